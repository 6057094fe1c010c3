//! Measures a checkpoint's files and the machine before a load is decided, and no more than the
//! decision needs.

use crate::checkpoint_files::OpenFiles;
use crate::error::Error;
use crate::warning::Warning;
use floodtide_core::storage::{DeviceSignals, Residency, StorageFile};
use floodtide_core::strategy::{Consumer, Demand, Device, FileSignals, Signals, is_small};
use floodtide_core::{Access, Alignment, Backend, Catalog, Error as CoreError, TensorSlice};
use floodtide_linux::probe;

/// The purpose of opening a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoadMode {
    /// A whole load. If the caller `waits`, a small file may be read together with its header.
    Whole { access: Access, waits: bool },
    /// A stream, through memory of this alignment if given.
    Stream { memory_alignment: Option<usize> },
}

/// What to measure before a load.
#[derive(Debug)]
pub(crate) struct ProbeRequest {
    pub(crate) mode: LoadMode,
    pub(crate) backend: Option<Backend>,
    /// The minimum alignment of tensors.
    pub(crate) alignment: Alignment,
    /// Whether the stored profile of a device may be used.
    pub(crate) use_device_profile: bool,
}

impl ProbeRequest {
    /// Measures. The second value is true if so little is copied that neither files nor memory
    /// need to be examined.
    ///
    /// # Errors
    /// Returns an error if the requested backend cannot read a storage.
    pub(crate) fn measure(
        &self,
        files: &OpenFiles,
        catalog: &Catalog,
        selected: &[TensorSlice],
        warnings: &mut Vec<Warning>,
    ) -> Result<(Signals, bool), Error> {
        let lazy = matches!(self.mode, LoadMode::Whole { access: Access::Map { resident: false }, .. });
        let demand = Demand::new(catalog, selected, self.alignment);
        let copied = if lazy { demand.copied_bytes } else { demand.selected_bytes };
        let is_small = is_small(copied, self.backend.filter(|_| !lazy));
        let mut signals = Signals {
            files: Vec::with_capacity(files.len()),
            devices: Vec::new(),
            selected_bytes: demand.selected_bytes,
            consumer: match self.mode {
                LoadMode::Whole { .. } => Consumer::Whole,
                LoadMode::Stream { .. } => Consumer::Stream,
            },
            verified: false,
            direct_refused: None,
            populate_page_cache: false,
            memory: u64::MAX,
            cpus: if is_small { 1 } else { probe::cpus() },
        };
        let mut devices = Vec::new();
        for (number, (file, demand)) in files.iter().zip(&demand.files).enumerate() {
            let key = files.device(number);
            let device = devices.iter().position(|known| *known == key).map_or_else(
                || {
                    devices.push(key);
                    signals.devices.push(self.device(files, number, &**file, is_small, warnings)?);
                    Ok::<_, Error>(devices.len() - 1)
                },
                Ok,
            )?;
            let (mut residency, mut direct) = (Residency::default(), false);
            if !is_small {
                direct = file.direct_limits().is_some();
                residency = file.residency();
            }
            signals.files.push(FileSignals {
                bytes: file.len(),
                resident: residency.share,
                cached: residency.ranges,
                direct,
                aligned: demand.aligned,
                selected_bytes: demand.selected_bytes,
                device,
            });
        }
        if signals.devices.is_empty() {
            // A checkpoint without files still needs a route.
            signals.devices.push(Device {
                signals: DeviceSignals::default(),
                backends: floodtide_linux::backend::all(),
                requested: self.backend,
            });
        }
        if let LoadMode::Stream { memory_alignment: Some(alignment) } = self.mode {
            keep_to_memory(&mut signals, files, alignment as u64);
        }
        Ok((signals, is_small))
    }

    fn device(
        &self,
        files: &OpenFiles,
        number: usize,
        file: &dyn StorageFile,
        is_small: bool,
        warnings: &mut Vec<Warning>,
    ) -> Result<Device, Error> {
        let storage = files.storage(number);
        let backends = storage.backends();
        let maps = matches!(self.mode, LoadMode::Whole { access: Access::Map { .. }, .. });
        // Any mapping backend of the storage will do.
        let requested = match self.backend {
            Some(backend) if backends.contains(&backend) => Some(backend),
            Some(backend) => {
                let mapped = backends.iter().copied().find(|b| maps && backend.is_mapped() && b.is_mapped());
                Some(mapped.ok_or_else(|| {
                    let names: Vec<&str> = backends.iter().map(|backend| backend.name()).collect();
                    let why = format!("{} is read by {}", storage.name(), names.join(", "));
                    CoreError::BackendUnavailable { backend, why }
                })?)
            }
            None => None,
        };
        let candidates = match requested {
            Some(_) if is_small => Vec::new(),
            Some(backend) => vec![backend],
            None if is_small => Vec::new(),
            None => backends.clone(),
        };
        let mut signals = storage.device_signals(file, &candidates);
        warnings.extend(signals.warnings.drain(..).map(Warning::from));
        if !self.use_device_profile {
            signals.profile = None;
        }
        if let Some(backend) = requested
            && let Some((_, why)) = signals.refused.iter().find(|(refused, _)| *refused == backend)
        {
            return Err(CoreError::BackendUnavailable { backend, why: why.clone() }.into());
        }
        Ok(Device { signals, backends, requested })
    }
}

/// Direct reads need aligned addresses, which memory of the caller's pool may not have.
fn keep_to_memory(signals: &mut Signals, files: &OpenFiles, alignment: u64) {
    let mut refused = false;
    for (file, signals) in files.iter().zip(&mut signals.files).filter(|(_, signals)| signals.direct) {
        signals.direct = file.direct_limits().is_some_and(|limits| limits.memory.as_u64() <= alignment);
        refused |= !signals.direct;
    }
    if refused {
        let why = format!("the pool's memory is aligned to only {alignment} bytes, and direct reads need more");
        signals.direct_refused = Some(why);
    }
}
