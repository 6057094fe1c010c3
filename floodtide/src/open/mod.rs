//! Opens the files of a checkpoint and reads their headers into a catalog.
//!
//! The format's parser asks for bytes of a file, and this module reads them. Several threads read
//! and parse the headers of many files, and the results are joined in the order of the files.

mod metadata;

use crate::checkpoint_files::{LoadStorage, OpenFiles};
use crate::discover::names::last_part;
use crate::discover::{CheckpointFiles, FileBytes, Formats, Index, ProbedFile, open_file};
use crate::error::Error;
use crate::small_file::SmallFile;
use crate::warning::Warning;
use floodtide_core::format::{Claim, FORMATS, FileKind, FileStart, HeaderParser, HeaderState, Headers, find};
use floodtide_core::storage::{FailureKind, StorageError, StorageFile};
use floodtide_core::{Catalog, CatalogBuilder, Error as CoreError, MetadataValue, to_usize};
use floodtide_linux::probe;
use floodtide_memory::ArenaCache;
use floodtide_memory::sync::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

/// The numbers of files and of header bytes (if all headers are as long as the first) from which
/// threads read and parse headers. Parsing runs at about 100 MB/s, and each file waits for the
/// storage twice: for an open and for a read.
const PARALLEL_FILES: usize = 16;
const PARALLEL_BYTES: usize = 512 << 10;
const MAX_THREADS: usize = 16;

/// The open files of a checkpoint and their contents.
#[derive(Debug)]
pub(crate) struct OpenedHeaders {
    pub(crate) files: OpenFiles,
    /// The bytes of the only file, if it is small and was read whole.
    pub(crate) small_file: Option<SmallFile>,
    pub(crate) catalog: Catalog,
    /// The metadata of the index and the files, each key once.
    pub(crate) metadata: Vec<(String, MetadataValue)>,
    pub(crate) warnings: Vec<Warning>,
    /// The index and its storage.
    index: Option<(Arc<LoadStorage>, String)>,
}

impl OpenedHeaders {
    /// Adds the index to the files, if there is one.
    pub(crate) fn add_index_file(&mut self) -> Result<(), Error> {
        if let Some((storage, name)) = &self.index {
            let file = open_file(&**storage, name)?;
            self.files.add(storage, [file]);
        }
        Ok(())
    }
}

/// Opens the files and reads their headers. `small_files` provides memory to read a single small
/// file whole.
///
/// # Errors
/// Returns an error if a file cannot be opened or breaks a rule of its format, or if files
/// contradict each other.
pub(crate) fn open(
    storage: &Arc<LoadStorage>,
    found: CheckpointFiles,
    small_files: Option<&Arc<ArenaCache>>,
) -> Result<OpenedHeaders, Error> {
    let CheckpointFiles { files, first, index } = found;
    let index_name = index.as_ref().map(|index| (Arc::clone(storage), index.name.clone()));
    let sources: Vec<Source<'_>> = files.iter().map(|name| Source { storage: &**storage, name }).collect();
    let read = read_headers(FORMATS, &sources, first, index, small_files)?;
    let mut files = OpenFiles::default();
    files.add(storage, read.files);
    Ok(OpenedHeaders { files, index: index_name, ..read.headers })
}

/// Opens files, which may be in several storages, as one checkpoint without an index.
///
/// # Errors
/// Returns the errors of [`open`].
pub(crate) fn open_files(named: &[(&Arc<LoadStorage>, String)]) -> Result<OpenedHeaders, Error> {
    let sources: Vec<Source<'_>> = named.iter().map(|(storage, name)| Source { storage: &***storage, name }).collect();
    let read = read_headers(FORMATS, &sources, None, None, None)?;
    let mut files = OpenFiles::default();
    for ((storage, _), file) in named.iter().zip(read.files) {
        files.add(storage, [file]);
    }
    Ok(OpenedHeaders { files, ..read.headers })
}

/// Returns the errors of each file, opened alone. Returns none for formats whose files depend on
/// each other.
pub(crate) fn broken_files(storage: &LoadStorage, found: &CheckpointFiles) -> Vec<Error> {
    let is_independent =
        |parser: &dyn HeaderParser| find(parser.format()).is_some_and(|format| format.is_file_independent());
    let broken = |name: &String| {
        let first = match open_file(storage, name).and_then(|file| Ok(ProbedFile::read(file, None)?)) {
            Ok(first) => first,
            Err(error) => return Some(error),
        };
        let parser = parser_for(FORMATS, name, first.start()).ok()?;
        if !is_independent(&*parser) {
            return None;
        }
        read_headers(FORMATS, &[Source { storage, name }], Some(first), None, None).err()
    };
    if found.files.len() < 2 || found.index.as_ref().is_some_and(|index| !is_independent(&*index.parser)) {
        return Vec::new();
    }
    found.files.iter().filter_map(broken).collect()
}

/// A file to open.
struct Source<'a> {
    storage: &'a LoadStorage,
    name: &'a str,
}

/// Files and their headers; `files` is empty in those of the headers.
struct ReadFiles {
    files: Vec<Arc<dyn StorageFile>>,
    headers: OpenedHeaders,
}

/// Opens files and reads their headers. `first` is the first file, if it is open.
fn read_headers(
    formats: Formats<'_>,
    sources: &[Source<'_>],
    first: Option<ProbedFile>,
    index: Option<Index>,
    small_files: Option<&Arc<ArenaCache>>,
) -> Result<ReadFiles, Error> {
    let Some((source, others)) = sources.split_first() else {
        return Err(CoreError::Contract { what: "a checkpoint without files was opened" }.into());
    };
    let index_name = index.as_ref().map(|index| index.name.clone());
    let first = match first {
        Some(first) => first,
        None => {
            let small_files = small_files.filter(|_| others.is_empty());
            ProbedFile::read(source.open(index_name.as_deref())?, small_files)?
        }
    };
    let parser = match index {
        Some(Index { parser, .. }) => parser,
        None => parser_for(formats, source.name, first.start())?,
    };
    let reader = Reader { parser: &*parser, index: index_name.as_deref() };
    let mut parsed = ParsedFiles::new(&*parser);
    let (small_file, header_len) = parsed.add_first(&reader, first)?;
    if sources.len() >= PARALLEL_FILES || header_len.saturating_mul(sources.len()) >= PARALLEL_BYTES {
        for more in side_by_side(&reader, others)? {
            parsed.append(more)?;
        }
    } else {
        parsed.add_all(&reader, others)?;
    }
    let ParsedFiles { files, catalog, .. } = parsed;
    let Headers { catalog, index_metadata, warnings } = parser.finish(catalog)?;
    let of_files = catalog.metadata().map(|(file, key, value)| (file.index(), key, value));
    let metadata = metadata::merge(&index_metadata, of_files);
    let warnings = warnings.into_iter().map(Warning::from).collect();
    let headers = OpenedHeaders { files: OpenFiles::default(), small_file, catalog, metadata, warnings, index: None };
    Ok(ReadFiles { files, headers })
}

/// Returns the parser for files without an index, which are assumed to have the format of the
/// first. If no format claims the content of the file, the format that claims its name gives the
/// best error, or else the first of the registry.
fn parser_for(formats: Formats<'_>, name: &str, start: &[u8]) -> Result<Box<dyn HeaderParser>, Error> {
    let by_kind = match FileKind::sniff(formats, start) {
        FileKind::Checkpoint(format) => format.parser(),
        _ => None,
    };
    let by_name = || {
        let format = formats.iter().find(|format| format.claim(last_part(name)) == Some(Claim::File))?;
        format.parser()
    };
    let any = || formats.iter().find_map(|format| format.parser());
    let parser = by_kind.or_else(by_name).or_else(any);
    parser.ok_or_else(|| CoreError::Contract { what: "no format is registered that needs no index" }.into())
}

impl Source<'_> {
    /// Opens the file. `index` is the index that lists it, for messages.
    fn open(&self, index: Option<&str>) -> Result<Arc<dyn StorageFile>, Error> {
        open_file(self.storage, self.name).map_err(|error| match (&error, index) {
            (
                Error::Storage(StorageError::Failed { kind: FailureKind::NotFound | FailureKind::InvalidName, .. }),
                Some(index),
            ) => Error::MissingShard { index: index.to_owned(), shard: last_part(self.name).to_owned() },
            _ => error,
        })
    }
}

/// Reads the bytes that a parser requests.
struct Reader<'a> {
    parser: &'a dyn HeaderParser,
    /// The index that lists the files.
    index: Option<&'a str>,
}

/// The files whose headers have been read.
struct ParsedFiles {
    files: Vec<Arc<dyn StorageFile>>,
    catalog: CatalogBuilder,
    /// One buffer for all headers: fresh memory would be faulted in for each.
    buffer: Vec<u8>,
}

impl ParsedFiles {
    fn new(parser: &dyn HeaderParser) -> Self {
        Self { files: Vec::new(), catalog: CatalogBuilder::new(parser.format()), buffer: Vec::new() }
    }

    /// Parses a file that was read in part. Returns its bytes, if that was the whole file, and the
    /// length of its header.
    fn add_first(&mut self, reader: &Reader<'_>, first: ProbedFile) -> Result<(Option<SmallFile>, usize), Error> {
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
    fn add_all(&mut self, reader: &Reader<'_>, sources: &[Source<'_>]) -> Result<(), Error> {
        for source in sources {
            let file = source.open(reader.index)?;
            self.buffer.clear();
            self.add(reader, file)?;
        }
        Ok(())
    }

    /// Parses the header of a file whose first bytes are in the buffer.
    fn add(&mut self, reader: &Reader<'_>, file: Arc<dyn StorageFile>) -> Result<(), Error> {
        let len = file.len();
        let mut needed = reader.parser.first_read(len);
        loop {
            read_on(&*file, &mut self.buffer, to_usize(needed.min(len)))?;
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
    CoreError::Contract { what: "a parser requested bytes that it has, or that are beyond the end of the file" }
}

/// Reads on until the first `len` bytes of a file are in the buffer.
fn read_on(file: &dyn StorageFile, read: &mut Vec<u8>, len: usize) -> Result<(), StorageError> {
    let from = read.len();
    if len <= from {
        return Ok(());
    }
    // Reserve exactly: a header may be long.
    read.reserve_exact(len - from);
    read.resize(len, 0);
    file.read_at(from as u64, &mut read[from..])
}

/// Reads the headers of many files with several threads. The results are in the order of the files,
/// and an error is that of the first broken file.
fn side_by_side(reader: &Reader<'_>, sources: &[Source<'_>]) -> Result<Vec<ParsedFiles>, Error> {
    // Two threads per processor, because each waits for its reads.
    let threads = (2 * probe::cpus()).clamp(1, MAX_THREADS);
    let blocks: Vec<&[Source<'_>]> = sources.chunks(sources.len().div_ceil(4 * threads).max(1)).collect();
    let (next, broken) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut done = Vec::new();
        // Threads take files in order, so that every file before a broken one is taken when the
        // error occurs.
        while !broken.load(Ordering::Relaxed)
            && let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(block) = blocks.get(at)
        {
            let mut headers = ParsedFiles::new(reader.parser);
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
