//! Computes the checksums of a checkpoint in one pass over its files, for manifests and for
//! comparisons with them.
//!
//! Each file is streamed as one tensor, including its header, with the same plan, engine and
//! buffers as any stream: in parallel and in bounded memory. Threads hash the bytes (`hashers`).
//! `verify_report` holds the result of a comparison.

mod hashers;
mod verify_report;

pub use verify_report::{Mismatch, VerifyReport};

use crate::checkpoint_files::OpenFiles;
use crate::error::Error;
use crate::loader::Loader;
use crate::prepare::Input;
use crate::stream::TensorStream;
use crate::warning::Warning;
use floodtide_core::checksum::Checksum;
use floodtide_core::manifest::{MAX_BYTES, Manifest, ManifestError, ManifestFile, ManifestTensor, Sha256};
use floodtide_core::{Catalog, ContentHashes, Error as CoreError};
use floodtide_linux::probe;
use floodtide_linux::storage::names;
use hashers::Hashers;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The default limit for all buffers, and the size of one, which stays in a processor's cache from
/// one hash to the other.
const LIMIT: u64 = 256 << 20;
const PART: u64 = 4 << 20;

/// The checksums of a checkpoint's files, and of the tensors in them.
#[derive(Debug)]
struct Sums {
    catalog: Arc<Catalog>,
    /// By tensor; empty if only the files were hashed.
    tensors: Vec<Checksum>,
    files: Vec<FileSum>,
    warnings: Vec<Warning>,
    elapsed: Duration,
}

/// A file's name in its folder, its length, and its hash.
#[derive(Debug)]
struct FileSum {
    name: String,
    bytes: u64,
    sha256: Sha256,
}

/// The purpose of checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A manifest.
    Manifest,
    /// A list of the files.
    Files,
    /// A comparison with a manifest. A name that a manifest cannot hold is reported as added.
    Comparison,
}

impl Use {
    /// Fails if a file's name cannot be written down, before anything is hashed.
    fn check_names(self, files: &OpenFiles) -> Result<(), Error> {
        let unlistable = |name: &str| {
            let path = names::decode(name);
            match path.file_name().unwrap_or_default().to_str() {
                None if self != Self::Comparison => Some("is not UTF-8"),
                Some(name) if self == Self::Manifest && name.contains('\\') => Some("contains a backslash"),
                _ => None,
            }
        };
        match files.iter().find_map(|file| Some((file.name(), unlistable(file.name())?))) {
            Some((name, why)) => Err(Error::UnlistableName { path: names::decode(name), why }),
            None => Ok(()),
        }
    }
}

impl Sums {
    fn of(loader: &Loader, path: &Path, purpose: Use) -> Result<Self, Error> {
        let started = Instant::now();
        let loader = loader.for_whole_stream(LIMIT, 1, PART)?;
        let (catalog, checkpoint) = loader.settings.open_whole_files(&Input::Path(path))?;
        purpose.check_names(&checkpoint.files)?;
        let with_tensors = purpose != Use::Files;
        let (whole_files, warnings) = (Arc::clone(&checkpoint.catalog), checkpoint.warnings.clone());
        let mut stream = TensorStream::of(&loader.settings, checkpoint, started);
        let hashers = Hashers::new(whole_files.files().len(), with_tensors.then(|| ContentHashes::new(&catalog)));
        let ended = std::thread::scope(|scope| {
            // Closes also if this thread panics, as a caller's progress function may: the others
            // would wait forever.
            let _closed = Closed(&hashers);
            let work = || hashers.work(true);
            let spawn =
                |_| std::thread::Builder::new().name("floodtide-hash".to_owned()).spawn_scoped(scope, work).ok();
            let threads: Vec<_> = (0..probe::cpus().max(1)).map_while(spawn).collect();
            loop {
                match stream.next_buffer() {
                    None => break Ok(()),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(filled)) => hashers.push(filled),
                }
                if threads.is_empty() {
                    // The system granted no thread.
                    hashers.work(false);
                }
            }
        });
        ended?;
        let (files, tensors) = hashers.finish();
        let files: Vec<FileSum> = whole_files
            .files()
            .iter()
            .zip(files)
            .map(|(file, (sha256, done))| {
                debug_assert_eq!(file.bytes, done, "a stream that ends well has brought everything");
                FileSum { name: file_name(&file.path), bytes: file.bytes, sha256: sha256.into() }
            })
            .collect();
        let tensors = tensors.map_or_else(|| Some(Vec::new()), ContentHashes::finish);
        let tensors = tensors.ok_or(CoreError::Contract { what: "a tensor was not hashed although all files were" })?;
        let elapsed = started.elapsed();
        let sums = Self { catalog, tensors, files, warnings, elapsed };
        tracing::debug!(files = sums.files.len(), bytes = sums.byte_len(), ?elapsed, "hashed");
        Ok(sums)
    }

    fn byte_len(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Ends the input of the hashers when it is dropped.
struct Closed<'a>(&'a Hashers);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Returns the last component of a path.
fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

impl Loader {
    /// Computes the manifest of a checkpoint: the BLAKE3 of every tensor and the SHA-256 of every
    /// file, index included.
    ///
    /// Files are read and hashed in parallel, in one pass. The buffers take at most
    /// [`memory_limit`](crate::StreamOptions::memory_limit), by default 256 MiB. A single file is
    /// as fast as one thread's SHA-256, about 2 GB/s with the processor's SHA instructions.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load). Returns [`Error::UnlistableName`] if a file's
    /// name is not UTF-8 or contains a backslash.
    ///
    /// ```no_run
    /// use floodtide::Loader;
    ///
    /// let manifest = Loader::new().manifest("/models/qwen3")?;
    /// std::fs::write("/models/qwen3.manifest.json", manifest.to_string())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn manifest(&self, path: impl AsRef<Path>) -> Result<Manifest, Error> {
        let path = path.as_ref();
        let sums = Sums::of(self, path, Use::Manifest)?;
        let tensors = sums.catalog.tensors().zip(&sums.tensors);
        let tensors = tensors.map(|(tensor, checksum)| ManifestTensor::of(&tensor, *checksum)).collect();
        let manifest = Manifest::new(tensors, files(sums));
        manifest.map_err(|source| invalid(path, source))
    }

    /// Returns the SHA-256 of each file of a checkpoint, sorted by name, as `sha256sum` would print
    /// it.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load). Returns [`Error::UnlistableName`] if a file's
    /// name is not UTF-8.
    pub fn file_checksums(&self, path: impl AsRef<Path>) -> Result<Vec<ManifestFile>, Error> {
        let mut files = files(Sums::of(self, path.as_ref(), Use::Files)?);
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Compares every byte of a checkpoint's files with a manifest.
    ///
    /// Checks the structure first, as [`inspect`](Self::inspect) does: a file that breaks a rule of
    /// its format is an error.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load). A difference is not an error: the
    /// [`VerifyReport`] lists it.
    ///
    /// ```no_run
    /// use floodtide::{Loader, read_manifest};
    ///
    /// let manifest = read_manifest("/models/qwen3.manifest.json")?;
    /// let report = Loader::new().verify("/models/qwen3", &manifest)?;
    /// for mismatch in &report.mismatches {
    ///     println!("{mismatch}");
    /// }
    /// # Ok::<(), floodtide::Error>(())
    /// ```
    pub fn verify(&self, path: impl AsRef<Path>, manifest: &Manifest) -> Result<VerifyReport, Error> {
        Ok(VerifyReport::of(Sums::of(self, path.as_ref(), Use::Comparison)?, manifest))
    }
}

fn files(sums: Sums) -> Vec<ManifestFile> {
    sums.files.into_iter().map(|FileSum { name, bytes, sha256 }| ManifestFile { name, bytes, sha256 }).collect()
}

fn invalid(path: &Path, source: ManifestError) -> Error {
    CoreError::Manifest { file: path.display().to_string(), source }.into()
}

/// Reads a manifest from a file, a FIFO, or anything else that can be read to its end.
///
/// # Errors
/// Returns an error if the manifest cannot be read, or breaks a rule of `docs/manifest.md`.
pub fn read_manifest(path: impl AsRef<Path>) -> Result<Manifest, Error> {
    let path = path.as_ref();
    let io = |cause| Error::Io { path: path.to_owned(), action: "read the manifest", cause };
    let file = File::open(path).map_err(io)?;
    let check_len = |bytes| match bytes {
        ..=MAX_BYTES => Ok(()),
        _ => Err(invalid(path, ManifestError::TooLarge { bytes })),
    };
    // Not known of a FIFO, which is refused without being read to its end.
    check_len(file.metadata().map_err(io)?.len())?;
    let mut json = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut json).map_err(io)?;
    check_len(json.len() as u64)?;
    Manifest::parse(&json).map_err(|source| invalid(path, source))
}
