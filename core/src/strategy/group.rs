//! The files of one device.

use super::{Device, FileSignals, Signals};
use crate::storage::LatencyClass;
use alloc::string::String;
use alloc::vec::Vec;

/// The signals of one device and of its files.
#[derive(Debug, Clone)]
pub(super) struct Group<'a> {
    pub(super) files: Vec<FileSignals>,
    pub(super) device: &'a Device,
    pub(super) signals: &'a Signals,
    pub(super) direct_refused: Option<String>,
}

impl<'a> Group<'a> {
    pub(super) fn new(signals: &'a Signals, device: &'a Device, files: &[usize]) -> Self {
        let mut files: Vec<FileSignals> = files.iter().map(|&file| signals.files[file].clone()).collect();
        if device.signals.latency == LatencyClass::Memory {
            // Bytes in memory are copied from there, whatever the storage below supports.
            files.iter_mut().for_each(|file| file.direct = false);
        }
        Self { files, device, signals, direct_refused: signals.direct_refused.clone() }
    }

    /// Rules out direct reads for all files, with a reason.
    pub(super) fn refuse_direct(&mut self, why: String) {
        self.files.iter_mut().for_each(|file| file.direct = false);
        self.direct_refused = Some(why);
    }
}
