//! Runs a test over every storage that holds the same files.

use floodtide::storage::{BoxedSource, Layered, LoadBuffer, LocalStorage, MemoryStorage, Storage};
use floodtide::{Backend, Loader, backends};
use floodtide_core::ReadStyle;
use floodtide_core::middleware::{Faults, Faulty};
use std::fs;
use std::path::{Path, PathBuf};

/// A storage with a test's files.
#[derive(Debug, Clone)]
pub struct Place {
    /// A loader that finds it.
    pub loader: Loader,
    /// The checkpoint: a path, or the URI of the file or folder of that path in another storage.
    pub path: PathBuf,
    /// The storage's ways of reading.
    pub backends: Vec<Backend>,
    /// The storage, when the files are in memory.
    pub memory: Option<MemoryStorage>,
}

impl Place {
    /// The local files.
    pub fn local(path: &Path) -> Self {
        Self { loader: Loader::new(), path: path.to_owned(), backends: backends(), memory: None }
    }

    /// Copies of the files at `path` and below it, and of those beside it when it is a file, in
    /// memory under the same names.
    pub fn memory(path: &Path) -> Self {
        let memory = MemoryStorage::new();
        copy(if path.is_dir() { path } else { path.parent().expect("a folder") }, &memory);
        let backends = Storage::<LoadBuffer>::backends(&memory);
        Self { loader: Loader::new().storage("mem", memory.clone()), path: uri(path), backends, memory: Some(memory) }
    }

    /// The ways of reading that copy, with `None` for the automatic choice.
    pub fn copying(&self) -> Vec<Option<Backend>> {
        let copying = self.backends.iter().copied().filter(|backend| !backend.is_mapped());
        [None].into_iter().chain(copying.map(Some)).collect()
    }

    /// All ways of reading, with `None` for the automatic choice.
    pub fn loading(&self) -> Vec<Option<Backend>> {
        [None].into_iter().chain(self.backends.iter().copied().map(Some)).collect()
    }

    /// The backend that reads one range after another.
    pub fn blocking(&self) -> Backend {
        *self.backends.iter().find(|backend| backend.style() == ReadStyle::Blocking).expect("every storage has one")
    }

    /// The backend that copies nothing.
    pub fn mapped(&self) -> Backend {
        *self.backends.iter().find(|backend| backend.is_mapped()).expect("both storages have one")
    }

    /// A loader that reads by `backend`.
    pub fn loader_by(&self, backend: Option<Backend>) -> Loader {
        backend.map_or_else(|| self.loader.clone(), |backend| self.loader.clone().backend(backend))
    }

    /// The same place, with faults. Each worker makes its own.
    pub fn with_faults<F: Faults + 'static>(mut self, make: impl Fn() -> F + Send + Sync + 'static) -> Self {
        self.loader = match &self.memory {
            Some(memory) => self.loader.storage("mem", Layered::new(memory.clone(), faulty(make))),
            None => self.loader.storage("file", Layered::new(LocalStorage::new(), faulty(make))),
        };
        self
    }

    /// What leads to another of the test's files or folders here.
    pub fn at(&self, path: &Path) -> PathBuf {
        if self.memory.is_some() { uri(path) } else { path.to_owned() }
    }

    /// Takes over what has become of a local folder or file since.
    pub fn update(&self, path: &Path) {
        if let Some(memory) = &self.memory {
            copy(path, memory);
        }
    }

    /// What a message calls it.
    pub fn name(&self) -> &'static str {
        if self.memory.is_some() { "memory" } else { "local files" }
    }
}

/// A layer that injects faults. Each worker makes its own.
pub fn faulty<F: Faults + 'static>(
    make: impl Fn() -> F + Send + Sync,
) -> impl Fn(BoxedSource<LoadBuffer>) -> BoxedSource<LoadBuffer> + Send + Sync {
    move |source| Box::new(Faulty::new(source, make()))
}

/// The files at `path`, in each storage.
pub fn places(path: &Path) -> [Place; 2] {
    [Place::local(path), Place::memory(path)]
}

fn uri(path: &Path) -> PathBuf {
    Path::new("mem://").join(path.to_str().expect("Unicode").trim_start_matches('/'))
}

/// Copies a file, or all that is below a folder. Links are followed; what is no file, or has no
/// Unicode name, is left out.
fn copy(path: &Path, memory: &MemoryStorage) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("lists") {
            copy(&entry.expect("lists").path(), memory);
        }
    } else if let (true, Some(name)) = (path.is_file(), path.to_str()) {
        memory.insert(name, fs::read(path).expect("reads"));
    }
}
