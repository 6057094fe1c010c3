//! Files mapped into memory: tensors are views of the page cache. Misaligned tensors are copied by
//! `pread`.

use super::{PreadSource, Registration};
use floodtide_core::{Backend, ReadStyle};
use floodtide_memory::StableBuffer;

/// The backend that maps files into memory.
///
/// No program may change or truncate a file while its tensors are alive. Otherwise their bytes may
/// change, and access to a page beyond the new end kills the process (SIGBUS).
pub const MMAP: Backend = Backend::new("mmap", ReadStyle::Mapped, "files mapped into memory");

pub(super) const fn registration<B: StableBuffer>() -> Registration<B> {
    Registration {
        backend: MMAP,
        refusal: |_| None,
        source: |files, options| Ok(Box::new(PreadSource::new(files, options.dont_cache))),
    }
}
