//! Safetensors files, and the index that may list them.

use super::{OpenCheckpoint, first_read, merge_metadata};
use crate::error::Error;
use floodtide_core::format::safetensors::{Header, header_range};
use floodtide_core::format::shard_index::ShardIndex;
use floodtide_core::{CatalogBuilder, Error as CoreError, Escaped, Format};
use floodtide_linux::OpenFile;
use floodtide_linux::probe;
use floodtide_linux::{ProbedFile, SmallFile};
use floodtide_memory::sync::{AtomicBool, AtomicUsize, Ordering};
use std::path::{Path, PathBuf};

/// Most shards' headers are within this: one read then brings prefix and header. Of a longer one the rest is read.
const FIRST_READ: u64 = 16 << 10;
/// From so many files on, or so many bytes of headers if all are as long as the first one's, threads read and parse them: a header is parsed
/// at about 100 MB/s, and each file takes the time of an open and a read that wait for the file system.
const PARALLEL_MIN_FILES: usize = 16;
const PARALLEL_MIN_HEADER_BYTES: usize = 512 << 10;
const MAX_THREADS: usize = 16;

/// Opens these files. `already`: the first one, if it is open.
pub(super) fn open(
    paths: &[PathBuf],
    already: Option<ProbedFile>,
    index: Option<(&Path, &ShardIndex)>,
) -> Result<OpenCheckpoint, Error> {
    let mut headers = Headers::new();
    let (mut small_file, mut rest) = (None, paths);
    if let Some((path, others)) = paths.split_first() {
        let ProbedFile { file, small_file: whole } = already.map_or_else(|| ProbedFile::open(path, None), Ok)?;
        let first = headers.add(path, file, whole.as_ref())?;
        (small_file, rest) = (whole, others);
        if paths.len() >= PARALLEL_MIN_FILES || first.saturating_mul(paths.len()) >= PARALLEL_MIN_HEADER_BYTES {
            for more in side_by_side(others)? {
                headers.append(more)?;
            }
            rest = &[];
        }
    }
    for path in rest {
        headers.add(path, OpenFile::open(path)?, None)?;
    }
    let catalog = headers.builder.finish()?;
    let mut warnings = Vec::new();
    if let Some((path, index)) = index {
        catalog.check_index(index).map_err(|source| CoreError::Index { file: path.display().to_string(), source })?;
        let total = catalog.tensor_bytes();
        if let Some(claimed) = index.total_size().filter(|&claimed| claimed != total) {
            warnings.push(format!(
                "{}: the index gives a total_size of {claimed} bytes, but the tensors have {total}; \
                 writers count differently, and every shard is complete",
                Escaped(&path.to_string_lossy())
            ));
        }
    }
    let index = index.map_or(&[][..], |(_, index)| index.metadata());
    let metadata = merge_metadata(index, catalog.metadata().map(|(file, key, value)| (file.index(), key, value)));
    Ok(OpenCheckpoint { files: headers.files, small_file, catalog, metadata, warnings })
}

/// Files whose headers have been read.
struct Headers {
    files: Vec<OpenFile>,
    builder: CatalogBuilder,
    /// One buffer for all headers: fresh memory for each would be faulted in each time.
    buffer: Vec<u8>,
}

impl Headers {
    fn new() -> Self {
        Self { files: Vec::new(), builder: CatalogBuilder::new(Format::Safetensors), buffer: Vec::new() }
    }

    fn of(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut headers = Self::new();
        for path in paths {
            headers.add(path, OpenFile::open(path)?, None)?;
        }
        Ok(headers)
    }

    /// Reads and parses a file's header, or takes it from `small_file`, the whole file; answers how long it is.
    fn add(&mut self, path: &Path, file: OpenFile, small_file: Option<&SmallFile>) -> Result<usize, Error> {
        let name = path.display().to_string();
        let invalid = |source| CoreError::Header { file: name.clone(), source };
        let mut bytes = match small_file {
            Some(small_file) => small_file.as_bytes(),
            None => {
                file.read_exact_into(&mut self.buffer, 0, first_read(file.byte_len(), FIRST_READ))?;
                &self.buffer
            }
        };
        let range = header_range(bytes, file.byte_len()).map_err(invalid)?;
        // The range is within the file and at most 100 MB, so it fits in memory and in usize.
        let (start, end) = (range.start() as usize, range.end() as usize);
        if end > bytes.len() {
            file.read_on(&mut self.buffer, end)?;
            bytes = &self.buffer;
        }
        let header = Header::parse(&bytes[start..end], file.byte_len()).map_err(invalid)?;
        self.builder.add_safetensors(&name, file.byte_len(), &header)?;
        self.files.push(file);
        Ok(end)
    }

    fn append(&mut self, more: Self) -> Result<(), Error> {
        self.files.extend(more.files);
        Ok(self.builder.append(more.builder)?)
    }
}

/// Reads the headers of many files by several threads, some files at a time. What comes is in the order of the files, and an error is that of the
/// first that is broken.
fn side_by_side(paths: &[PathBuf]) -> Result<Vec<Headers>, Error> {
    // Two a processor, as each waits for its reads.
    let threads = (2 * probe::cpus()).clamp(1, MAX_THREADS);
    let blocks: Vec<&[PathBuf]> = paths.chunks(paths.len().div_ceil(4 * threads).max(1)).collect();
    let (next, broken) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut done = Vec::new();
        // Taken in order, so that whatever lies before a broken one has been taken when that is found.
        while !broken.load(Ordering::Relaxed)
            && let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(block) = blocks.get(at)
        {
            let headers = Headers::of(block);
            broken.fetch_or(headers.is_err(), Ordering::Relaxed);
            done.push((at, headers));
        }
        done
    };
    let mut done = std::thread::scope(|scope| {
        let helper = |_| std::thread::Builder::new().name("floodtide-open".to_owned()).spawn_scoped(scope, work).ok();
        let helpers: Vec<_> = (1..threads.min(blocks.len())).map_while(helper).collect();
        let mut done = work();
        for helper in helpers {
            done.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, headers)| headers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// So many files, each with a header of about so many bytes, for tensors of a byte.
    fn write(folder: &Path, files: usize, header: usize) -> Vec<PathBuf> {
        let tensors = header / 60 + 1;
        let write = |file: usize| {
            let entry =
                |i: usize| format!(r#""{file:03}.{i:05}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1);
            let json = format!("{{{}}}", (0..tensors).map(entry).collect::<Vec<_>>().join(","));
            let path = folder.join(format!("{file:03}.safetensors"));
            let data = vec![file as u8; tensors];
            let kind = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &data].concat();
            fs::write(&path, kind).expect("writes");
            path
        };
        (0..files).map(write).collect()
    }

    #[test]
    fn many_headers_are_read_side_by_side_and_are_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        // Few and short, many and short, few and long.
        for (files, header) in [(3, 100), (PARALLEL_MIN_FILES, 100), (50, 1000), (3, PARALLEL_MIN_HEADER_BYTES / 2)] {
            let paths = write(folder.path(), files, header);
            let opened = open(&paths, None, None).expect("opens");
            let found: Vec<_> = opened.files.iter().map(OpenFile::path).collect();
            assert!(found.iter().eq(&paths) && opened.catalog.files().len() == files);
            let tensors = opened.catalog.tensors();
            assert_eq!(tensors.len(), files * (header / 60 + 1));
            assert!(tensors.map(|tensor| tensor.name.to_owned()).is_sorted(), "by file and offset");
        }
    }

    #[test]
    fn of_many_broken_files_the_first_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = write(folder.path(), 60, 100);
        for broken in [59, 31, 30, 2, 1, 0] {
            fs::write(&paths[broken], b"\xff\xff\xff\xff\xff\xff\xff\xff").expect("writes");
            let error = open(&paths, None, None).map(|opened| opened.files).expect_err("broken").to_string();
            assert!(error.contains(&format!("{broken:03}.safetensors")), "{error}");
        }
    }
}
