//! A storage that refuses a worker's source after the load has started.

use floodtide::storage::{
    BoxedSource, DeviceSignals, Entry, LoadBuffer, MemoryStorage, Opened, SourceOptions, Storage, StorageError,
    StorageFile,
};
use floodtide::{Backend, Error, ErrorKind, Loader};
use floodtide_core::{Error as CoreError, ReadStyle};
use floodtide_tests::by_backend::MB;
use floodtide_tests::checkpoint::{folder, numbered};
use floodtide_tests::over_storages::Place;
use std::path::Path;
use std::sync::Arc;

const RING: Backend = Backend::new("ring", ReadStyle::Queue, "a ring that is refused to every worker");

/// Files in memory that are read by a ring, which no worker gets, and otherwise by copies.
#[derive(Debug, Clone)]
struct Refusing {
    inner: MemoryStorage,
    has_copies: bool,
}

type Inner = dyn Storage<LoadBuffer>;

impl Storage<LoadBuffer> for Refusing {
    fn name(&self) -> &str {
        "refusing memory"
    }

    fn backends(&self) -> Vec<Backend> {
        let copies = Inner::backends(&self.inner).into_iter().filter(|_| self.has_copies);
        [RING].into_iter().chain(copies).collect()
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError> {
        Inner::list(&self.inner, folder)
    }

    fn open(&self, name: &str) -> Result<Opened, StorageError> {
        Inner::open(&self.inner, name)
    }

    fn device_signals(&self, file: &dyn StorageFile, backends: &[Backend]) -> DeviceSignals {
        Inner::device_signals(&self.inner, file, backends)
    }

    fn source(
        &self,
        files: &[Arc<dyn StorageFile>],
        options: SourceOptions,
    ) -> Result<BoxedSource<LoadBuffer>, String> {
        if options.backend == RING { Err("EMFILE".to_owned()) } else { self.inner.source(files, options) }
    }
}

fn loader(path: &Path, has_copies: bool) -> Loader {
    let inner = Place::memory(path).memory.expect("it is in memory");
    Loader::new().storage("mem", Refusing { inner, has_copies })
}

#[test]
fn a_source_that_is_refused_to_a_worker_is_an_unavailable_backend() {
    let folder = folder();
    let path = numbered(folder.path(), &[2 * MB; 5]);
    let uri = Place::memory(&path).path;
    let unavailable = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::BackendUnavailable, "{error}");
        let Error::Core(CoreError::BackendUnavailable { backend: RING, why }) = &error else { panic!("{error}") };
        assert_eq!(why, "EMFILE");
    };
    for loader in [loader(&path, true).backend(RING), loader(&path, false)] {
        unavailable(loader.load(&uri).map(|_| ()).expect_err("refused"));
        unavailable(loader.stream(&uri).expect("opens").find_map(Result::err).expect("refused"));
    }
}
