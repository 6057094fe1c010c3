//! Opens the files of a checkpoint and reads their headers into a catalog.
//!
//! The format's parser says which bytes it needs of which file; what is here reads them. Headers of many files are read and
//! parsed by several threads, some files at a time, and joined in the order of the files.

mod metadata;

use crate::discover::names::last_part;
use crate::discover::{CheckpointFiles, FileBytes, Formats, Index, ProbedFile, open_file};
use crate::error::Error;
use crate::small_file::SmallFile;
use floodtide_core::format::{Claim, FileKind, FileStart, HeaderParser, HeaderState, Headers};
use floodtide_core::storage::{FailureKind, Storage, StorageError, StorageFile};
use floodtide_core::{Buffer, Catalog, CatalogBuilder, Error as CoreError, MetadataValue};
use floodtide_linux::probe;
use floodtide_memory::Shelf;
use floodtide_memory::sync::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

/// From this number of files on, or of bytes of headers if all are as long as the first one's, threads read and parse them: a header
/// is parsed at about 100 MB/s, and each file takes the time of an open and a read that wait for the storage.
const PARALLEL_FILES: usize = 16;
const PARALLEL_BYTES: usize = 512 << 10;
const MAX_THREADS: usize = 16;

/// The open files of a checkpoint and what is in them.
#[derive(Debug)]
pub(crate) struct OpenCheckpoint {
    pub(crate) files: Vec<Arc<dyn StorageFile>>,
    /// The only file's bytes, when it was to be read whole and is small.
    pub(crate) small_file: Option<SmallFile>,
    pub(crate) catalog: Catalog,
    /// The metadata of the index and the files, each key once.
    pub(crate) metadata: Vec<(String, MetadataValue)>,
    /// The name of the index.
    pub(crate) index: Option<String>,
    pub(crate) warnings: Vec<String>,
}

/// Opens the files and reads their headers. `arenas`: where memory comes from when a single small file is to be read whole.
///
/// # Errors
/// When a file cannot be opened or breaks a rule of its format, or files disagree.
pub(crate) fn open<B: Buffer>(
    storage: &dyn Storage<B>,
    formats: Formats<'_>,
    found: CheckpointFiles,
    arenas: Option<&Arc<Shelf>>,
) -> Result<OpenCheckpoint, Error> {
    let CheckpointFiles { files: names, first, index } = found;
    let arenas = arenas.filter(|_| names.len() == 1);
    let Some((name, others)) = names.split_first() else {
        return Err(CoreError::Contract { what: "a checkpoint without files was opened" }.into());
    };
    let index_name = index.as_ref().map(|index| index.name.clone());
    let opener = Opener { storage, index: index_name.as_deref() };
    let first = match first {
        Some(first) => first,
        None => ProbedFile::read(opener.open(name)?, arenas)?,
    };
    let parser = match index {
        Some(Index { parser, .. }) => parser,
        None => parser_for(formats, name, first.start())?,
    };
    let reader = Reader { opener, parser: &*parser };
    let mut headers = OpenFiles::new(&*parser);
    let (small_file, header_len) = headers.add_first(&reader, first)?;
    if names.len() >= PARALLEL_FILES || header_len.saturating_mul(names.len()) >= PARALLEL_BYTES {
        for more in side_by_side(&reader, others)? {
            headers.append(more)?;
        }
    } else {
        headers.add_all(&reader, others)?;
    }
    let OpenFiles { files, catalog, .. } = headers;
    let Headers { catalog, index_metadata, warnings } = parser.finish(catalog)?;
    let of_files = catalog.metadata().map(|(file, key, value)| (file.index(), key, value));
    let metadata = metadata::merge(&index_metadata, of_files);
    Ok(OpenCheckpoint { files, small_file, catalog, metadata, index: index_name, warnings })
}

/// Returns what is wrong with each of several files that are checkpoints by themselves, each looked at alone. Of formats whose
/// files may be of no use without the others, nothing is reported.
pub(crate) fn broken_files<B: Buffer>(
    storage: &dyn Storage<B>,
    formats: Formats<'_>,
    found: &CheckpointFiles,
) -> Vec<Error> {
    if found.files.len() < 2 {
        return Vec::new();
    }
    let broken = |name: &String| {
        let first = open_file(storage, name).and_then(|file| Ok(ProbedFile::read(file, None)?));
        let first = match first {
            Ok(first) => first,
            Err(error) => return Some(error),
        };
        let parser = parser_for(formats, name, first.start()).ok()?;
        let is_independent = |id| formats.iter().any(|format| format.id() == id && format.is_file_independent());
        if !is_independent(parser.format()) {
            return None;
        }
        let files = CheckpointFiles { files: vec![name.clone()], first: Some(first), index: None };
        open(storage, formats, files, None).err()
    };
    // The files of such an index have no headers of their own.
    let is_of_index = |index: &Index| !formats.iter().any(|f| f.id() == index.parser.format() && f.is_file_independent());
    if found.index.as_ref().is_some_and(is_of_index) {
        return Vec::new();
    }
    found.files.iter().filter_map(broken).collect()
}

/// Returns the parser for files without an index, all of which are taken for what the first one is. Of a file that no format
/// claims by its content, the format that claims its name says best what is wrong; else the first of the registry.
fn parser_for(formats: Formats<'_>, name: &str, start: &[u8]) -> Result<Box<dyn HeaderParser>, Error> {
    let by_content = match FileKind::sniff(formats, start) {
        FileKind::Checkpoint(format) => format.parser(),
        _ => None,
    };
    let by_name = || {
        let format = formats.iter().find(|format| format.claim(last_part(name)) == Some(Claim::File))?;
        format.parser()
    };
    let any = || formats.iter().find_map(|format| format.parser());
    let parser = by_content.or_else(by_name).or_else(any);
    parser.ok_or_else(|| CoreError::Contract { what: "no format is registered that needs no index" }.into())
}

/// Opens the files of a checkpoint.
struct Opener<'a, B> {
    storage: &'a dyn Storage<B>,
    /// The index that lists them.
    index: Option<&'a str>,
}

impl<B: Buffer> Opener<'_, B> {
    fn open(&self, name: &str) -> Result<Arc<dyn StorageFile>, Error> {
        let is_missing = |error: &Error| {
            let no_such = FailureKind::NotFound;
            matches!(error, Error::Storage(StorageError::Failed { kind, .. }) if *kind == no_such || *kind == FailureKind::InvalidName)
        };
        open_file(self.storage, name).map_err(|error| match self.index {
            Some(index) if is_missing(&error) => {
                Error::MissingShard { index: index.to_owned(), shard: last_part(name).to_owned() }
            }
            _ => error,
        })
    }
}

/// Reads the bytes that a parser asks for.
struct Reader<'a, B> {
    opener: Opener<'a, B>,
    parser: &'a dyn HeaderParser,
}

/// Files whose headers have been read.
struct OpenFiles {
    files: Vec<Arc<dyn StorageFile>>,
    catalog: CatalogBuilder,
    /// One buffer for all headers: fresh memory for each would be faulted in each time.
    buffer: Vec<u8>,
}

impl OpenFiles {
    fn new(parser: &dyn HeaderParser) -> Self {
        Self { files: Vec::new(), catalog: CatalogBuilder::new(parser.format()), buffer: Vec::new() }
    }

    /// Parses a file of which something was read. Returns its bytes, if that was all of them, and the length of its header.
    fn add_first<B>(
        &mut self,
        reader: &Reader<'_, B>,
        first: ProbedFile,
    ) -> Result<(Option<SmallFile>, usize), Error> {
        let ProbedFile { file, start } = first;
        match start {
            FileBytes::Start(start) => {
                self.buffer = start;
                self.add(reader, file)?;
                Ok((None, self.buffer.len()))
            }
            FileBytes::Whole(whole) => {
                let start = FileStart { name: file.name(), len: file.len(), bytes: whole.as_bytes() };
                match reader.parser.parse(start, &mut self.catalog)? {
                    HeaderState::Complete => self.files.push(file),
                    HeaderState::Needs(_) => return Err(asks_for_too_much().into()),
                }
                Ok((Some(whole), 0))
            }
        }
    }

    /// Opens files and parses their headers.
    fn add_all<B: Buffer>(&mut self, reader: &Reader<'_, B>, names: &[String]) -> Result<(), Error> {
        for name in names {
            let file = reader.opener.open(name)?;
            self.buffer.clear();
            self.add(reader, file)?;
        }
        Ok(())
    }

    /// Parses the header of a file whose first bytes are in the buffer.
    fn add<B>(&mut self, reader: &Reader<'_, B>, file: Arc<dyn StorageFile>) -> Result<(), Error> {
        let len = file.len();
        let mut needed = reader.parser.first_read(len);
        loop {
            read_on(&*file, &mut self.buffer, needed.min(len) as usize)?;
            let start = FileStart { name: file.name(), len, bytes: &self.buffer };
            needed = match reader.parser.parse(start, &mut self.catalog)? {
                HeaderState::Complete => break,
                HeaderState::Needs(needed) => needed,
            };
            if needed <= self.buffer.len() as u64 || needed > len {
                return Err(asks_for_too_much().into());
            }
        }
        self.files.push(file);
        Ok(())
    }

    fn append(&mut self, more: Self) -> Result<(), Error> {
        self.files.extend(more.files);
        Ok(self.catalog.append(more.catalog)?)
    }
}

fn asks_for_too_much() -> CoreError {
    CoreError::Contract { what: "a parser asked for bytes that it has, or that the file does not have" }
}

/// Makes what was read of a file's start at least `len` bytes long, by reading on.
fn read_on(file: &dyn StorageFile, read: &mut Vec<u8>, len: usize) -> Result<(), StorageError> {
    let from = read.len();
    if len <= from {
        return Ok(());
    }
    // No more than that: a header may be long.
    read.reserve_exact(len - from);
    read.resize(len, 0);
    file.read_at(from as u64, &mut read[from..])
}

/// Reads the headers of many files by several threads, some files at a time. What comes is in the order of the files, and an error is that of the
/// first that is broken.
fn side_by_side<B: Buffer>(reader: &Reader<'_, B>, names: &[String]) -> Result<Vec<OpenFiles>, Error> {
    // Two a processor, as each waits for its reads.
    let threads = (2 * probe::cpus()).clamp(1, MAX_THREADS);
    let blocks: Vec<&[String]> = names.chunks(names.len().div_ceil(4 * threads).max(1)).collect();
    let (next, broken) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut done = Vec::new();
        // Taken in order, so that whatever lies before a broken one has been taken when that is found.
        while !broken.load(Ordering::Relaxed)
            && let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(block) = blocks.get(at)
        {
            let mut headers = OpenFiles::new(reader.parser);
            let headers = headers.add_all(reader, block).map(|()| headers);
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
mod tests;
