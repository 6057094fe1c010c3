//! Loads and streams a checkpoint of a few MiB with every backend, and checks the results.

use crate::checkpoint::{plain, raw};
use crate::faulty_fs::VICTIM;
use crate::layout::reference;
use floodtide::backend::{MMAP, PREAD, TOKIO, URING};
use floodtide::{Backend, Error, Loader, StreamOptions, TensorStream};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// One MiB.
pub const MB: usize = 1 << 20;
/// The backends to stream with; `None` is the automatic choice.
pub const STREAMED: [Option<Backend>; 4] = [None, Some(URING), Some(PREAD), Some(TOKIO)];
/// The backends to load with.
pub const LOADED: [Option<Backend>; 5] = [None, Some(URING), Some(PREAD), Some(TOKIO), Some(MMAP)];
/// Rings are refused on FUSE.
pub const ON_FUSE: [Option<Backend>; 4] = [None, Some(PREAD), Some(TOKIO), Some(MMAP)];
/// See [`ON_FUSE`].
pub const STREAMED_ON_FUSE: [Option<Backend>; 3] = [None, Some(PREAD), Some(TOKIO)];
/// The tensors of the checkpoint, in bytes: eight of a little over 1 MiB.
pub const TENSORS: [usize; 8] = [MB + 12_345; 8];

/// Writes the checkpoint as the victim, and returns its bytes by name.
pub fn checkpoint(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut end = 0;
    let (json, data) = plain(TENSORS.into_iter().enumerate().map(|(i, bytes)| {
        end += bytes;
        (format!("t{i}"), (end - bytes..end).map(|at| (at * 7 + at / 255 + at / 65_521) as u8).collect())
    }));
    fs::write(folder.join(VICTIM), raw(&json, &data)).expect("writes");
    reference(folder)
}

/// Returns the range of a tensor in the file.
pub fn tensor_range(folder: &Path, tensor: usize) -> Range<u64> {
    let file = fs::metadata(folder.join(VICTIM)).expect("is there").len();
    let data = file - TENSORS.iter().sum::<usize>() as u64;
    let begin = data + TENSORS[..tensor].iter().sum::<usize>() as u64;
    begin..begin + TENSORS[tensor] as u64
}

/// Returns a loader that streams through 4 MiB.
pub fn loader(backend: Option<Backend>) -> Loader {
    backend.map_or_else(Loader::new, |backend| Loader::new().backend(backend)).stream_options(stream_options())
}

/// Returns the stream options of these loaders: a limit that several tensors exceed together.
pub fn stream_options() -> StreamOptions {
    StreamOptions::new().memory_limit(4 * MB as u64)
}

/// Loads, and returns the bytes by name.
pub fn load(loader: &Loader, path: &Path) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let tensors = loader.load(path)?;
    Ok(tensors.iter().map(|tensor| (tensor.name().to_owned(), tensor.as_bytes().to_vec())).collect())
}

/// Streams, and returns the bytes by name. The stream must end after an error.
pub fn stream(loader: &Loader, path: &Path) -> Bytes {
    drain(loader.stream(path)?)
}

/// Consumes the rest of a stream.
///
/// # Errors
/// Returns the error that ended the stream.
///
/// # Panics
/// If the stream continues after an error.
pub fn drain(mut stream: TensorStream) -> Bytes {
    let mut all = BTreeMap::new();
    while let Some(tensor) = stream.next() {
        match tensor {
            Ok(tensor) => all.insert(tensor.name().to_owned(), tensor.as_bytes().to_vec()),
            Err(error) => {
                assert!(stream.next().is_none() && stream.report().is_none(), "an error ends the stream");
                return Err(error);
            }
        };
    }
    assert!(stream.report().is_some());
    Ok(all)
}

/// Returns the bytes of all tensors by name.
pub type Bytes = Result<BTreeMap<String, Vec<u8>>, Error>;

/// Loads and streams with every backend, and passes each result with its name to `check`.
pub fn by_every_backend(path: &Path, mut prepare: impl FnMut(), mut check: impl FnMut(Bytes, Option<Backend>, &str)) {
    for backend in ON_FUSE {
        prepare();
        check(load(&loader(backend), path), backend, &format!("load by {backend:?}"));
    }
    for backend in STREAMED_ON_FUSE {
        prepare();
        check(stream(&loader(backend), path), backend, &format!("stream by {backend:?}"));
    }
}

/// Asserts that the bytes are right.
///
/// # Panics
/// If they are not.
pub fn assert_right(bytes: Bytes, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
    let bytes = bytes.unwrap_or_else(|error| panic!("{what}: {error}"));
    // Do not print all of them: they are megabytes.
    let other = bytes.iter().find(|(name, bytes)| expected[*name] != **bytes);
    assert!(other.is_none(), "{what}: {} differs", other.map_or("", |(name, _)| name));
    assert_eq!(bytes.len(), expected.len(), "{what}");
}

/// Returns the error of a result that must be one, without printing bytes.
pub fn error_of(bytes: Bytes, what: &str) -> Error {
    bytes.err().unwrap_or_else(|| panic!("{what}: no error"))
}
