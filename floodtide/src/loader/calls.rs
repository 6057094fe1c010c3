//! The calls of a loader: load, map, stream, inspect, plan, and their async forms.

use super::{Inspected, Loader};
use crate::discover::discover;
use crate::error::Error;
#[cfg(feature = "tokio")]
use crate::load::Canceller;
use crate::load::{Load, run_here};
use crate::open::{self, OpenedHeaders};
use crate::prepare::{DecidedLoad, Input, Planned, Settings};
#[cfg(feature = "tokio")]
use crate::stream::AsyncTensorStream;
use crate::stream::TensorStream;
use crate::tensors::Tensors;
use floodtide_core::Access;
use floodtide_linux::backend::MMAP;
use floodtide_memory::memory_limit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Loader {
    /// Loads a checkpoint into memory.
    ///
    /// `path` is a file, an index, a folder of shards, a Hugging Face cache snapshot, or the URI of
    /// one of these. All shards load together.
    ///
    /// The tensors are owned copies. With the backend [`MMAP`] they are views of the page cache,
    /// all resident; then the files must not be changed or truncated while any tensor is held, also
    /// not by another process, as with [`map`](Self::map), which returns before the files are read.
    ///
    /// # Errors
    /// Returns an error if the checkpoint cannot be found, breaks a rule of its format, does not
    /// fit in memory, changes while it is read, or cannot be read. A partial load is never
    /// returned.
    ///
    /// ```no_run
    /// use floodtide::{ErrorKind, Loader, backend};
    ///
    /// match Loader::new().backend(backend::URING).load("/models/qwen3") {
    ///     Ok(tensors) => println!("{} tensors", tensors.len()),
    ///     Err(error) if error.kind() == ErrorKind::NotFound => println!("download it first: {error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), floodtide::Error>(())
    /// ```
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Tensors, Error> {
        self.load_input(&Input::Path(path.as_ref()))
    }

    /// Loads files as one checkpoint.
    ///
    /// All files have the same format. They may be in different folders, on different devices and
    /// in different storages.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load), and an error if the list is empty, or two files
    /// hold a tensor of the same name.
    pub fn load_files<P: AsRef<Path>>(&self, paths: impl IntoIterator<Item = P>) -> Result<Tensors, Error> {
        self.load_input(&Input::Files(&owned(paths)))
    }

    fn load_input(&self, input: &Input<'_>) -> Result<Tensors, Error> {
        let task = self.settings.prepare(input, self.settings.access(true), true)?;
        if task.planned.strategy.runs_inline() { run_here(task) } else { Load::start(task).wait() }
    }

    /// Starts a load and returns once the headers are read. Dropping the returned [`Load`] cancels
    /// it.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load), for the headers and the plan.
    ///
    /// ```no_run
    /// use floodtide::Loader;
    ///
    /// let load = Loader::new().start("/models/qwen3")?;
    /// println!("{} bytes to load", load.progress().bytes_total);
    /// let tensors = load.wait()?;
    /// # let _ = tensors;
    /// # Ok::<(), floodtide::Error>(())
    /// ```
    pub fn start(&self, path: impl AsRef<Path>) -> Result<Load, Error> {
        let settings = &self.settings;
        Ok(Load::start(settings.prepare(&Input::Path(path.as_ref()), settings.access(true), false)?))
    }

    /// Maps a checkpoint and returns at once. The system reads tensors when they are touched.
    ///
    /// Tensors whose offset in the file does not satisfy their alignment are read now, into memory.
    ///
    /// The files must not be changed or truncated while any tensor is held, also not by another
    /// process: a change shows in the tensors, and touching a page beyond the end of a file kills
    /// the process (SIGBUS).
    ///
    /// Always maps, whatever [`backend`](Self::backend) is set.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load).
    pub fn map(&self, path: impl AsRef<Path>) -> Result<Tensors, Error> {
        let mapped = Settings { backend: Some(MMAP), ..self.settings.clone() };
        run_here(mapped.prepare(&Input::Path(path.as_ref()), Access::Map { resident: false }, true)?)
    }

    /// Streams a checkpoint in bounded memory, as whole tensors or in parts.
    ///
    /// The buffers take at most [`memory_limit`](crate::StreamOptions::memory_limit), however large
    /// the checkpoint is. The headers are read now; reading tensors starts with the first call on
    /// the stream.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load), for the headers. Returns [`Error::StreamLimit`]
    /// if the memory limit is too small for a stream.
    ///
    /// ```no_run
    /// use floodtide::{Loader, StreamOptions};
    ///
    /// // In parts, so that the limit may be smaller than a tensor.
    /// let loader = Loader::new().stream_options(StreamOptions::new().memory_limit(64 << 20));
    /// let mut bytes = 0;
    /// loader.stream("/models/qwen3")?.for_each_part(|_, _, part| bytes += part.len())?;
    /// println!("{bytes} bytes");
    /// # Ok::<(), floodtide::Error>(())
    /// ```
    pub fn stream(&self, path: impl AsRef<Path>) -> Result<TensorStream, Error> {
        TensorStream::open(&self.settings, &Input::Path(path.as_ref()))
    }

    /// Streams files as one checkpoint, as [`load_files`](Self::load_files) loads them.
    ///
    /// # Errors
    /// Returns the errors of [`stream`](Self::stream) and [`load_files`](Self::load_files).
    pub fn stream_files<P: AsRef<Path>>(&self, paths: impl IntoIterator<Item = P>) -> Result<TensorStream, Error> {
        TensorStream::open(&self.settings, &Input::Files(&owned(paths)))
    }

    /// Streams a checkpoint as an async `Stream`, which any executor can poll.
    ///
    /// The blocking threads of the tokio runtime read the headers.
    ///
    /// # Errors
    /// Returns the errors of [`stream`](Self::stream).
    ///
    /// # Panics
    /// Panics if it is polled outside a tokio runtime.
    ///
    /// ```no_run
    /// use floodtide::Loader;
    /// use std::future::poll_fn;
    /// use std::pin::Pin;
    ///
    /// # async fn names() -> Result<(), floodtide::Error> {
    /// let mut stream = Loader::new().stream_async("/models/qwen3").await?;
    /// while let Some(tensor) = poll_fn(|context| futures_core::Stream::poll_next(Pin::new(&mut stream), context)).await {
    ///     println!("{}", tensor?.name());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    pub async fn stream_async(&self, path: impl AsRef<Path> + Send) -> Result<AsyncTensorStream, Error> {
        let (loader, path) = (self.clone(), path.as_ref().to_owned());
        Ok(AsyncTensorStream::new(blocking(move || loader.stream(path)).await?))
    }

    /// Loads a checkpoint from within a tokio runtime, without blocking it.
    ///
    /// The reads run on separate threads. Dropping the future cancels the load.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load).
    ///
    /// # Panics
    /// Panics if it is polled outside a tokio runtime.
    ///
    /// ```no_run
    /// use floodtide::Loader;
    /// use std::time::Duration;
    ///
    /// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    /// // A load that takes too long is cancelled with its future.
    /// let loader = Loader::new();
    /// let load = loader.load_async("/models/qwen3");
    /// let tensors = tokio::time::timeout(Duration::from_secs(60), load).await??;
    /// println!("{} tensors", tensors.len());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    pub async fn load_async(&self, path: impl AsRef<Path> + Send) -> Result<Tensors, Error> {
        let (loader, path) = (self.clone(), path.as_ref().to_owned());
        let load = blocking(move || loader.start(path)).await?;
        let mut cancelled = CancelOnDrop(load.canceller());
        let loaded = blocking(move || load.wait()).await;
        cancelled.0 = None;
        loaded
    }

    /// Reads only the headers of a checkpoint.
    ///
    /// # Errors
    /// Returns an error if the checkpoint cannot be found or breaks a rule of its format.
    ///
    /// ```no_run
    /// use floodtide::Loader;
    ///
    /// let inspected = Loader::new().inspect("/models/qwen3")?;
    /// for tensor in inspected.catalog.tensors() {
    ///     println!("{} {} {:?}", tensor.name, tensor.dtype, tensor.shape);
    /// }
    /// # Ok::<(), floodtide::Error>(())
    /// ```
    pub fn inspect(&self, path: impl AsRef<Path>) -> Result<Inspected, Error> {
        let opened = self.settings.open_headers(&Input::Path(path.as_ref()), None)?;
        let OpenedHeaders { catalog, metadata, warnings, .. } = opened;
        Ok(Inspected { catalog: Arc::new(catalog), metadata, warnings })
    }

    /// Reads the headers as [`inspect`](Self::inspect) does, and reports every broken file, not
    /// only the first.
    ///
    /// # Errors
    /// Returns all errors, at least one.
    pub fn check_structure(&self, path: impl AsRef<Path>) -> Result<Inspected, Vec<Error>> {
        let path = path.as_ref();
        self.inspect(path).map_err(|first| {
            let found = self.settings.storages.resolve(path).and_then(|(storage, name)| {
                let files = discover(&**storage, &name, None)?;
                Ok(open::broken_files(&**storage, &files))
            });
            // Problems between files show only if each file is sound.
            match found {
                Ok(broken) if !broken.is_empty() => broken,
                _ => vec![first],
            }
        })
    }

    /// Plans what [`load`](Self::load) would do, from the headers and probes of the system. Reads
    /// no tensors.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load), for the headers and the plan.
    ///
    /// ```no_run
    /// use floodtide::Loader;
    ///
    /// let planned = Loader::new().plan("/models/qwen3")?;
    /// println!("{} reads by {}", planned.plan.chunks().len(), planned.strategy.main_route().backend);
    /// println!("{} of {} bytes", planned.plan.arena_bytes(), planned.memory.available);
    /// # Ok::<(), floodtide::Error>(())
    /// ```
    pub fn plan(&self, path: impl AsRef<Path>) -> Result<Planned, Error> {
        let settings = &self.settings;
        let (decided, plan) = settings.decide(&Input::Path(path.as_ref()), settings.access(true), false)?;
        let DecidedLoad { catalog, strategy, signals, warnings, .. } = decided;
        Ok(Planned { catalog, plan, strategy, signals, memory: memory_limit(), warnings })
    }
}

fn owned<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Vec<PathBuf> {
    paths.into_iter().map(|path| path.as_ref().to_owned()).collect()
}

/// Cancels a load that another thread waits for, if it is still running.
#[cfg(feature = "tokio")]
struct CancelOnDrop(Option<Canceller>);

#[cfg(feature = "tokio")]
impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(canceller) = &self.0 {
            canceller.cancel();
        }
    }
}

/// Runs `work` on tokio's blocking threads, and resumes a panic of it in the caller.
#[cfg(feature = "tokio")]
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => {
            std::panic::resume_unwind(error.try_into_panic().unwrap_or_else(|error| Box::new(error.to_string())))
        }
    }
}
