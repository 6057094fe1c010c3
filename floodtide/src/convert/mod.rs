//! Writes a checkpoint anew: in another format, in other shards, a part of it, under other names.
//!
//! The headers are read and everything is laid out by core ([`Layout`]) and checked before a byte is written: that the
//! target can express it, that the place is free (`output`), that there is room (`room`). Then the source is streamed in bounded memory, while
//! threads (`writers`) write each buffer to its place in the output's files (`files`), and what has been written goes on to the
//! disk at once (`pace`). The files lie in a folder beside the output's place (`folder`), which is given the output's name when all of it is
//! on the disk, the model's other files (`companions`) too.

mod companions;
mod error;
mod files;
mod folder;
mod output_path;
mod pace;
mod room;
mod writers;

pub use error::OutputError;
pub use floodtide_core::convert::{ConvertError, Rename, RenameError, Split, WriteError};
pub use writers::Written;

use crate::discover::names::folder_of;
use crate::error::Error;
use crate::loader::Loader;
use crate::stream::TensorStream;
use crate::tensors::Report;
use companions::Companions;
use files::Files;
use floodtide_core::convert::{Layout, Options, Writer};
use floodtide_core::format::find;
use floodtide_core::storage::StorageFile;
use floodtide_core::stream::PumpError;
use floodtide_core::{Error as CoreError, Escaped, FileId, FormatId, MetadataValue, Order};
use floodtide_linux::LocalFile;
use floodtide_memory::sync::{AtomicBool, AtomicU64, Ordering};
use folder::Folder;
use output_path::OutputPath;
use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use writers::{Work, Writers};

/// Converts checkpoints. Options first, then [`convert`](Self::convert); a converter can be used any number of times.
///
/// What is read, and how, is its loader's to say: the selection, the memory limit (of the stream's buffers; the memory of a conversion is this and a
/// few MiB), the backend, a trace.
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
    on_progress: Option<Callback>,
    cancelled: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Callback(Arc<dyn Fn(Written) + Send + Sync>);

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// How a conversion went.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Converted {
    /// The source's format.
    pub from: FormatId,
    /// The output's.
    pub to: FormatId,
    /// The output's files with their lengths, without the copied ones.
    pub files: Vec<(String, u64)>,
    /// The model's other files that were copied, with their lengths.
    pub copied: Vec<(String, u64)>,
    /// The tensors of the output.
    pub tensors: usize,
    /// The bytes of tensors that were written; those of tensors that share their bytes once, where the output lets them.
    pub tensor_bytes: u64,
    /// From the call until everything was on the disk under its name.
    pub elapsed: Duration,
    /// How the source was read.
    pub read: Report,
    /// What a user should know although the output is complete.
    pub warnings: Vec<String>,
}

impl Converter {
    /// A converter to that format, of what that loader selects.
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

    /// How many files there are, or how large they are.
    #[must_use]
    pub fn split(mut self, split: Split) -> Self {
        self.split = split;
        self
    }

    /// Gives tensors other names; of several rules that match one, the first counts.
    #[must_use]
    pub fn rename(mut self, rule: Rename) -> Self {
        self.renames.push(rule);
        self
    }

    /// Replaces what is there: a folder with a checkpoint and no other folders in it, or an empty one, and nothing else. It is there until the new
    /// one is complete.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Calls back about 20 times a second while tensors are written, and once when all are; then they are still to be brought to the disk.
    #[must_use]
    pub fn on_progress(mut self, callback: impl Fn(Written) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Callback(Arc::new(callback)));
        self
    }

    /// Gives the conversion up when `cancelled` becomes true, which any thread may make it: it then fails with `Cancelled`, and leaves nothing behind.
    #[must_use]
    pub fn cancelled_by(mut self, cancelled: Arc<AtomicBool>) -> Self {
        self.cancelled = cancelled;
        self
    }

    /// Writes the checkpoint at `from` into a new folder `to`, with the files that belong to the model. It is there when all of it is on the
    /// disk, and until then it is not.
    ///
    /// # Errors
    /// When the checkpoint cannot be found, breaks a rule of its format, changes, or cannot be read; when the target cannot express
    /// it; when something is at `to` already, there is no room, or the disk does not take it. Then nothing is left behind.
    pub fn convert(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Converted, Error> {
        let started = Instant::now();
        let (from, to) = (from.as_ref(), to.as_ref());
        let Some(to) = self.loader.local_path(to)? else {
            return Err(OutputError::NotLocal { path: to.to_owned() }.into());
        };
        let to = &*to;
        let _span = tracing::info_span!("convert", from = %from.display(), to = %to.display()).entered();
        let stream = self.loader().stream(from)?;
        let source = stream.input()?;
        let catalog = Arc::clone(&source.catalog);
        let selected = self.loader.selection_choice().resolve(&catalog)?;
        let options = Options { writer: self.writer()?, split: self.split, renames: self.renames.clone() };
        let metadata = metadata_of_a_copy(catalog.format(), source.metadata);
        let layout = Layout::new(&catalog, &selected, &metadata, &options).map_err(CoreError::from)?;
        let companions =
            Companions::find(&**source.files.storage(0), folder_of(source.files.get(FileId(0)).name()), &layout)?;
        let files = source.files.iter().chain(companions.open_files());
        let sources: Vec<PathBuf> =
            files.filter_map(|file| local_path(&**file)).chain(self.loader.local_path(from)?).collect();
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
        warnings.extend(read.warnings.iter().chain(layout.notes()).chain(&companions.warnings).cloned());
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

    /// Returns what writes the format.
    fn writer(&self) -> Result<&'static dyn Writer, CoreError> {
        let writer = find(self.format).and_then(|format| format.writer());
        writer.ok_or_else(|| ConvertError::NotWritable { target: self.format }.into())
    }

    /// The loader as a conversion needs it.
    fn loader(&self) -> Loader {
        let loader = self.loader.clone().ordered(Order::Completion);
        // What is read is not safe yet, so it is not told; but a stream that tells progress looks up now and then.
        if self.on_progress.is_some() { loader.on_progress(|_| {}) } else { loader }
    }

    /// Writes all files into a folder, and brings them to the disk.
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

    /// Streams all tensors to their places.
    fn write_tensors(&self, stream: TensorStream, files: &Files<'_>, layout: &Layout) -> Result<Report, Error> {
        let _span =
            tracing::debug_span!("write", bytes = layout.tensor_bytes(), files = layout.files().len()).entered();
        let written = AtomicU64::new(0);
        let on_progress = self.on_progress.as_ref().map(|Callback(callback)| &**callback);
        let work = Work { files, layout, written: &written, cancelled: &self.cancelled, on_progress };
        let read = std::thread::scope(|scope| {
            let mut writers = Writers::start(scope, work).map_err(|source| CoreError::Platform {
                message: format!(
                    "the system gave no thread to write with: {source}; raise the limit of processes (ulimit -u)"
                ),
            })?;
            stream.send_to(&mut writers).map_err(|error| match error {
                PumpError::Stream(error) | PumpError::Sink(error) => error,
            })
        })?;
        work.report();
        if written.load(Ordering::Relaxed) != layout.tensor_bytes() {
            return Err(CoreError::Contract { what: "not every tensor was written as often as it should" }.into());
        }
        Ok(read)
    }
}

/// Returns the metadata of a source of that format that are true of a copy in another layout.
fn metadata_of_a_copy(source: FormatId, metadata: &[(String, MetadataValue)]) -> Vec<(String, MetadataValue)> {
    let is_of_layout = |key: &str| find(source).is_some_and(|format| format.is_layout_key(key));
    metadata.iter().filter(|(key, _)| !is_of_layout(key)).cloned().collect()
}

/// Removes what was replaced; says so if it cannot be.
fn remove_old(old: &Path) -> Option<String> {
    match std::fs::remove_dir_all(old) {
        // Another conversion may have taken it for litter.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let old = Escaped(&old.to_string_lossy()).to_string();
            Some(format!("{old}: this was replaced, and cannot be removed: {error}"))
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
