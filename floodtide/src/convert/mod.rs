//! Writes a checkpoint in another format, in other shards, in part, or under other names.
//!
//! Before a byte is written, core lays out the output ([`Layout`]), and checks run: the target
//! format can express every tensor, the output path is free (`output_path`), and the disk has room
//! (`room`). Then the source is streamed in bounded memory. Threads (`writers`) write each buffer
//! to its offsets in the output's files (`files`), and `pace` starts writeback at once.
//!
//! The files are in a folder beside the output path (`folder`). It is renamed to the output when
//! every file is synced, including the model's other files (`companions`).

mod companions;
mod files;
mod folder;
mod output_path;
mod pace;
mod room;
mod writers;

pub use crate::error::OutputError;
pub use floodtide_core::convert::{ConvertError, Rename, RenameError, Split, WriteError};
pub use writers::Written;

use crate::discover::names::folder_of;
use crate::error::{Error, no_thread};
use crate::loader::Loader;
use crate::opaque::Opaque;
use crate::report::Report;
use crate::stream::TensorStream;
use crate::warning::Warning;
use companions::Companions;
use files::Files;
use floodtide_core::convert::{Layout, Options, Writer};
use floodtide_core::format::find;
use floodtide_core::storage::StorageFile;
use floodtide_core::stream::PumpError;
use floodtide_core::{Error as CoreError, FileId, FormatId, MetadataValue, Order};
use floodtide_linux::LocalFile;
use floodtide_memory::sync::{AtomicBool, AtomicU64, Ordering};
use folder::Folder;
use output_path::OutputPath;
use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use writers::{Work, Writers};

/// Converts checkpoints.
///
/// Set options, then call [`convert`](Self::convert), any number of times. The loader decides what
/// is read and how: the selection, the memory limit, the backend, a trace. A conversion takes the
/// memory limit of the stream's buffers plus a few MiB.
///
/// ```no_run
/// use floodtide::convert::{Converter, Rename};
/// use floodtide::format::SERVERLESSLLM;
/// use floodtide::{Loader, StreamOptions};
///
/// let loader = Loader::new().stream_options(StreamOptions::new().memory_limit(256 << 20));
/// let converted = Converter::new(loader, SERVERLESSLLM)
///     .rename(Rename::new("model.*", "*")?)
///     .convert("model", "model-sllm")?;
/// println!("{} tensors in {:?}", converted.tensors, converted.elapsed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Converter {
    loader: Loader,
    format: FormatId,
    split: Split,
    renames: Vec<Rename>,
    force: bool,
    on_progress: Option<Opaque<dyn Fn(Written) + Send + Sync>>,
    cancelled: Arc<AtomicBool>,
}

/// The result of a conversion.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Converted {
    /// The format of the source.
    pub from: FormatId,
    /// The format of the output.
    pub to: FormatId,
    /// The output's files with their lengths, without the copied files.
    pub files: Vec<(String, u64)>,
    /// The model's other files, which were copied, with their lengths.
    pub copied: Vec<(String, u64)>,
    /// The number of tensors in the output.
    pub tensors: usize,
    /// The bytes of tensors that were written. Bytes that tensors share count once, if the output
    /// shares them too.
    pub tensor_bytes: u64,
    /// The time from the call until every file was synced and the output renamed.
    pub elapsed: Duration,
    /// The report of reading the source.
    pub read: Report,
    /// Warnings about a complete output.
    pub warnings: Vec<Warning>,
}

impl Converter {
    /// Returns a converter that writes `format` and reads with `loader`.
    #[must_use]
    pub fn new(loader: Loader, format: FormatId) -> Self {
        Self {
            loader,
            format,
            split: Split::Usual,
            renames: Vec::new(),
            force: false,
            on_progress: None,
            cancelled: Arc::default(),
        }
    }

    /// Sets how many files to write, or how large they are.
    #[must_use]
    pub fn split(mut self, split: Split) -> Self {
        self.split = split;
        self
    }

    /// Renames tensors. The first rule that matches a name counts.
    #[must_use]
    pub fn rename(mut self, rule: Rename) -> Self {
        self.renames.push(rule);
        self
    }

    /// Replaces an existing output, if it is an empty folder, or a folder that holds a checkpoint
    /// and no subfolders. It stays until the new one is complete.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Calls `callback` about 20 times a second while tensors are written, and once when all are
    /// written. They are not synced yet then.
    #[must_use]
    pub fn on_progress(mut self, callback: impl Fn(Written) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Opaque(Arc::new(callback)));
        self
    }

    /// Cancels the conversion when `cancelled` becomes true, which any thread may set. It then
    /// fails with `Cancelled` and leaves nothing behind.
    #[must_use]
    pub fn cancelled_by(mut self, cancelled: Arc<AtomicBool>) -> Self {
        self.cancelled = cancelled;
        self
    }

    /// Writes the checkpoint at `from` into a new folder `to`, and copies the model's other files.
    ///
    /// Conversion is atomic: `to` appears only after every file is synced.
    ///
    /// # Errors
    /// Returns an error if the checkpoint cannot be found, breaks a rule of its format, changes, or
    /// cannot be read; if the target format cannot express it; if `to` exists, the disk is full, or
    /// a write fails. An error leaves nothing behind.
    pub fn convert(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Converted, Error> {
        let started = Instant::now();
        let (from, to) = (from.as_ref(), to.as_ref());
        let Some(to) = self.loader.settings.storages.local_path(to)? else {
            return Err(OutputError::NotLocal { path: to.to_owned() }.into());
        };
        let to = &*to;
        let _span = tracing::info_span!("convert", from = %from.display(), to = %to.display()).entered();
        let stream = self.loader().stream(from)?;
        let source = stream.input()?;
        let catalog = Arc::clone(&source.catalog);
        let selected = self.loader.settings.selection.resolve(&catalog)?;
        let options = Options { writer: self.writer()?, split: self.split, renames: self.renames.clone() };
        let metadata = metadata_of_a_copy(catalog.format(), source.metadata);
        let layout = Layout::new(&catalog, &selected, &metadata, &options).map_err(CoreError::from)?;
        let companions =
            Companions::find(&**source.files.storage(0), folder_of(source.files.get(FileId(0)).name()), &layout)?;
        let files = source.files.iter().chain(companions.open_files());
        let sources: Vec<PathBuf> = files
            .filter_map(|file| local_path(&**file))
            .chain(self.loader.settings.storages.local_path(from)?)
            .collect();
        let output = OutputPath::check(to, &sources, self.force)?;
        let mut warnings = folder::sweep(&output.parent);
        let lengths = layout.files().iter().map(|file| file.bytes);
        room::check(&output, lengths.chain(companions.files().map(|(_, bytes)| bytes)))?;

        let folder = Folder::make(&output)?;
        let read = self.write(stream, &layout, &companions, folder.path())?;
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(CoreError::Cancelled.into());
        }
        let old = folder.become_output()?;
        warnings.extend(old.as_deref().and_then(remove_old));
        let of_layout = layout.warnings().iter().cloned().map(Warning::from);
        warnings.extend(read.warnings.iter().cloned().chain(of_layout).chain(companions.warnings.iter().cloned()));
        Ok(Converted {
            from: catalog.format(),
            to: self.format,
            files: layout.files().iter().map(|file| (file.name.clone(), file.bytes)).collect(),
            copied: companions.files().collect(),
            tensors: layout.tensors(),
            tensor_bytes: layout.tensor_bytes(),
            elapsed: started.elapsed(),
            read,
            warnings,
        })
    }

    /// Returns the writer of the format.
    fn writer(&self) -> Result<&'static dyn Writer, CoreError> {
        let writer = find(self.format).and_then(|format| format.writer());
        writer.ok_or_else(|| ConvertError::NotWritable { target: self.format }.into())
    }

    /// Returns the loader as a conversion needs it.
    fn loader(&self) -> Loader {
        let loader = self.loader.clone().ordered(Order::Completion);
        // Bytes that are read are not written yet, so they are not reported. A stream that reports
        // progress also checks for cancellation from time to time.
        if self.on_progress.is_some() { loader.on_progress(|_| {}) } else { loader }
    }

    /// Writes and syncs all files in a folder.
    fn write(
        &self,
        stream: TensorStream,
        layout: &Layout,
        companions: &Companions,
        folder: &Path,
    ) -> Result<Report, Error> {
        let files = Files::make(folder, layout)?;
        let read = self.write_tensors(stream, &files, layout)?;
        let _span = tracing::debug_span!("sync").entered();
        companions.copy_to(folder)?;
        files.sync()?;
        Ok(read)
    }

    /// Streams all tensors to their offsets in the output.
    fn write_tensors(&self, stream: TensorStream, files: &Files<'_>, layout: &Layout) -> Result<Report, Error> {
        let _span =
            tracing::debug_span!("write", bytes = layout.tensor_bytes(), files = layout.files().len()).entered();
        let written = AtomicU64::new(0);
        let on_progress = self.on_progress.as_ref().map(|Opaque(callback)| &**callback);
        let work = Work { files, layout, written: &written, cancelled: &self.cancelled, on_progress };
        let read = std::thread::scope(|scope| {
            let mut writers = Writers::start(scope, work).map_err(|source| no_thread("write", &source))?;
            stream.send_to(&mut writers).map_err(|error| match error {
                PumpError::Stream(error) | PumpError::Sink(error) => error,
            })
        })?;
        work.report();
        if written.load(Ordering::Relaxed) != layout.tensor_bytes() {
            return Err(CoreError::Contract { what: "a tensor was written too often or not at all" }.into());
        }
        Ok(read)
    }
}

/// Returns the metadata of the source that stay true for a copy in another layout.
fn metadata_of_a_copy(source: FormatId, metadata: &[(String, MetadataValue)]) -> Vec<(String, MetadataValue)> {
    let is_of_layout = |key: &str| find(source).is_some_and(|format| format.is_layout_key(key));
    metadata.iter().filter(|(key, _)| !is_of_layout(key)).cloned().collect()
}

/// Removes the replaced output. Returns a warning if that fails.
fn remove_old(old: &Path) -> Option<Warning> {
    match std::fs::remove_dir_all(old) {
        // Another conversion may have removed it as a leftover.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Some(Warning::OldOutputNotRemoved { path: old.to_owned(), source: Arc::new(error) })
        }
        _ => None,
    }
}

/// Returns where a file is in the local file system, if it is there.
fn local_path(file: &dyn StorageFile) -> Option<PathBuf> {
    match (file as &dyn Any).downcast_ref::<LocalFile>() {
        Some(file) => Some(file.path().to_owned()),
        None => local_path(file.inner()?),
    }
}
