//! Measures the limit of the storage: several threads read the files from front to back and discard
//! the bytes, each into one buffer that it reuses. No loader can be faster, because none has less
//! to do.

use floodtide::core::to_usize;
use floodtide::pool::{MappedMemory, Pool, PoolBuffer};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How the files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pattern {
    /// Direct I/O.
    pub(super) direct: bool,
    /// The number of reads in flight at a time.
    pub(super) threads: usize,
    pub(super) block: usize,
}

/// Smaller memory gets no huge pages, and a device transfers more at once into a huge page.
const HUGE_PAGE: usize = 2 << 20;
/// The alignment of every direct read in bytes.
const ALIGNMENT: usize = 4096;

impl Pattern {
    /// Returns the patterns to try. `direct`: the files are not cached and support direct I/O;
    /// `cached`: they are cached.
    pub(super) fn candidates(direct: bool, cached: bool) -> Vec<Self> {
        const KIB: usize = 1 << 10;
        const MIB: usize = 1 << 20;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let patterns: &[(usize, usize)] = if cached {
            &[(1, 2 * MIB), (cpus, 256 * KIB), (cpus, 2 * MIB), (2 * cpus, MIB)]
        } else {
            &[(1, 8 * MIB), (2, 4 * MIB), (4, 2 * MIB), (8, 2 * MIB), (16, MIB), (32, MIB)]
        };
        patterns.iter().map(|&(threads, block)| Self { direct, threads, block }).collect()
    }

    /// Describes the pattern.
    pub(super) fn describe(self) -> String {
        let kind = if self.direct { "direct" } else { "buffered" };
        let threads = crate::output::count(self.threads, "thread");
        format!("{kind} reads of {} by {threads}", floodtide::core::HumanBytes(self.block as u64))
    }
}

/// A prepared reader: everything but the reads is done.
pub(super) struct Reader {
    files: Vec<File>,
    /// The ranges to read, in order: the file, the start and the end.
    blocks: Vec<(usize, u64, u64)>,
    /// One buffer per thread.
    buffers: Vec<PoolBuffer>,
    direct: bool,
}

impl Reader {
    pub(super) fn new(paths: &[PathBuf], pattern: Pattern) -> io::Result<Self> {
        let (mut files, mut blocks) = (Vec::new(), Vec::new());
        let flags = if pattern.direct { rustix::fs::OFlags::DIRECT.bits() as i32 } else { 0 };
        for path in paths {
            let file = File::options().read(true).custom_flags(flags).open(path)?;
            let (index, bytes) = (files.len(), file.metadata()?.len());
            let starts = (0..bytes).step_by(pattern.block);
            blocks.extend(starts.map(|at| (index, at, bytes.min(at + pattern.block as u64))));
            files.push(file);
        }
        let bytes = pattern.block.max(HUGE_PAGE);
        let pool = Pool::builder().limit(2 * pattern.threads * bytes).memory(MappedMemory::new()).build();
        let mut buffers: Vec<PoolBuffer> =
            (0..pattern.threads).map(|_| pool.get(bytes)).collect::<Result<_, _>>().map_err(io::Error::other)?;
        // Writing makes every page of the buffer resident.
        buffers.iter_mut().for_each(PoolBuffer::fill_with_zeros);
        Ok(Self { files, blocks, buffers, direct: pattern.direct })
    }

    /// Reads all bytes of all files.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let Self { files, blocks, buffers, direct } = self;
        let (next, alignment) = (AtomicUsize::new(0), if *direct { ALIGNMENT } else { 1 });
        let work = |memory: &mut [u8]| -> io::Result<()> {
            while let Some(&(file, mut at, end)) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
                while at < end {
                    // Rounded up past the end of the file, where a direct read stops by itself.
                    let len = to_usize(end - at).next_multiple_of(alignment);
                    match files[file].read_at(&mut memory[..len], at)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        bytes => at += bytes as u64,
                    }
                }
            }
            std::hint::black_box(memory);
            Ok(())
        };
        let Some((mine, others)) = buffers.split_first_mut() else { return Ok(()) };
        std::thread::scope(|scope| {
            let spawn = |memory| std::thread::Builder::new().spawn_scoped(scope, move || work(memory));
            let helpers = others.iter_mut().map(|memory| spawn(memory)).collect::<io::Result<Vec<_>>>()?;
            let mine = work(mine);
            helpers.into_iter().fold(mine, |result, helper| {
                result.and(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_reads_files_of_any_length() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let files: Vec<PathBuf> = [0, 1, 4096, 3_000_001]
            .map(|bytes| {
                let path = folder.path().join(bytes.to_string());
                std::fs::write(&path, vec![1; bytes]).expect("writes");
                path
            })
            .into();
        for pattern in Pattern::candidates(false, true).into_iter().chain(Pattern::candidates(false, false)) {
            let read = |pattern| Reader::new(&files, pattern)?.read();
            read(pattern).expect("reads");
            match read(Pattern { direct: true, ..pattern }) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => println!("skipped: no direct reads here"),
                result => result.expect("reads directly"),
            }
        }
        assert!(Reader::new(&[folder.path().join("missing")], Pattern::candidates(false, true)[0]).is_err());
    }
}
