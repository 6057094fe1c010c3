//! What is measured of a checkpoint's files and of the system before a load is decided, and no more than that decision needs.

use crate::files::OpenFile;
use crate::probe::{self, Residency};
use floodtide_core::strategy::{Backend, Consumer, FileSignals, Signals, is_small};
use floodtide_core::{Access, Alignment, Catalog, PlanOptions, StridedRange, TensorSlice, tensor_alignment};

/// What a checkpoint is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// All of it, at once. `waits`: its caller does nothing meanwhile, so that a small file may be read along with its header.
    Whole { access: Access, waits: bool },
    /// One part after another, through memory of that alignment if it is given.
    Stream { memory_alignment: Option<usize> },
}

/// What a load wants, as far as it decides what must be known.
#[derive(Debug)]
pub struct ProbeRequest {
    pub mode: LoadMode,
    pub backend: Option<Backend>,
    /// What tensors are aligned to at least.
    pub alignment: Alignment,
}

/// A FUSE mount that does without the page cache, but not asynchronously, does not tell io_uring how far a read came; the kernel
/// then goes on with a short one at the place where it began, and fills memory with wrong bytes (seen on Linux 6.18).
const RING_ON_FUSE: &str = "on FUSE, the kernel may go on with a short read at the wrong place when io_uring makes it";

impl ProbeRequest {
    /// Measures. True if so little is copied that the files were not looked at, nor need the memory be. `already_read`: whether the files' bytes
    /// have been read already, so that nothing depends on where they come from.
    pub fn measure(
        &self,
        files: &mut [OpenFile],
        already_read: bool,
        catalog: &Catalog,
        selected: &[TensorSlice],
    ) -> (Signals, bool) {
        let lazy = matches!(self.mode, LoadMode::Whole { access: Access::Map { resident: false }, .. });
        let (mut aligned, mut selected_of) = (vec![false; files.len()], vec![0_u64; files.len()]);
        let (mut selected_bytes, mut copied) = (0_u64, 0_u64);
        let parts = selected.iter().map(|part| (part, catalog.tensor(part.tensor())));
        let mut before: Option<&TensorSlice> = None;
        for (part, tensor) in parts.filter(|(part, tensor)| part.byte_len(tensor) > 0) {
            // Tensors that are the same bytes are read once.
            if before.replace(part).is_some_and(|before| part.same_bytes(before, catalog)) {
                continue;
            }
            let (range, strided) = (part.range(&tensor), part.strided(&tensor));
            let in_place = strided.is_none() && tensor_alignment(&tensor, self.alignment).divides(range.start());
            // Blocks are gathered from buffers of their own, so that direct reads may bring them from anywhere.
            aligned[tensor.file.index()] |= in_place || strided.is_some();
            // What is read along with them takes its time too.
            let spanning = strided.is_some_and(|strided| strided.gap() <= PlanOptions::default().max_read_gap);
            let bytes = if spanning { range.len() } else { strided.map_or(range.len(), StridedRange::byte_len) };
            selected_of[tensor.file.index()] += bytes;
            selected_bytes = selected_bytes.saturating_add(bytes);
            let mapped = lazy && in_place && tensor_alignment(&tensor, self.alignment) <= Alignment::PAGE;
            copied = copied.saturating_add(if mapped { 0 } else { bytes });
        }
        let is_small = is_small(copied, self.backend.filter(|_| !lazy));
        let mut signals = Signals {
            files: Vec::with_capacity(files.len()),
            selected_bytes,
            consumer: match self.mode {
                LoadMode::Whole { .. } => Consumer::Whole,
                LoadMode::Stream { .. } => Consumer::Stream,
            },
            verified: false,
            file_system: String::new(),
            network: false,
            uring_refused: None,
            direct_refused: None,
            populate_page_cache: false,
            memory: u64::MAX,
            cpus: if is_small { 1 } else { probe::cpus() },
            profile: None,
        };
        for ((file, aligned), selected_bytes) in files.iter_mut().zip(aligned).zip(selected_of) {
            let mut residency = Residency::default();
            if !is_small {
                file.open_direct();
                residency = probe::residency(file.buffered());
            }
            signals.files.push(FileSignals {
                bytes: file.byte_len(),
                resident: residency.share,
                cached: residency.ranges,
                direct: file.direct_limits().is_some(),
                aligned,
                selected_bytes,
            });
        }
        if !already_read {
            look_at_file_systems(&mut signals, files);
        }
        if signals.uring_refused.is_none() && !is_small && matches!(self.backend, None | Some(Backend::Uring)) {
            signals.uring_refused = probe::uring_refusal();
        }
        if let LoadMode::Stream { memory_alignment: Some(alignment) } = self.mode {
            keep_to_memory(&mut signals, files, alignment as u64);
        }
        (signals, is_small)
    }
}

/// Looks at the file system of every device that a file is on: by its name the first, which nearly always is the only one, and whatever must
/// be minded of any.
fn look_at_file_systems(signals: &mut Signals, files: &[OpenFile]) {
    let mut seen = Vec::new();
    for file in files {
        if seen.contains(&file.device()) {
            continue;
        }
        seen.push(file.device());
        let (name, network) = probe::file_system(file.buffered());
        signals.network |= network;
        if name == probe::FUSE {
            signals.uring_refused = Some(RING_ON_FUSE.to_owned());
        }
        if signals.file_system.is_empty() {
            signals.file_system = name;
        }
    }
}

/// Direct reads ask for addresses of some alignment, which memory from elsewhere may not have.
fn keep_to_memory(signals: &mut Signals, files: &[OpenFile], alignment: u64) {
    for (file, signals) in files.iter().zip(&mut signals.files) {
        signals.direct &= file.direct_limits().is_some_and(|limits| limits.memory.as_u64() <= alignment);
    }
    if files.iter().zip(&signals.files).any(|(file, signals)| file.direct_limits().is_some() && !signals.direct) {
        let why = format!("the pool's memory is aligned to {alignment} bytes only, and direct reads need more");
        signals.direct_refused = Some(why);
    }
}
