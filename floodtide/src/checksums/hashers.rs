//! The threads that hash the bytes of a stream.
//!
//! The SHA-256 of a file must be computed from the first byte to the last, so one thread at a time
//! hashes a file, and different files are hashed in parallel. The segments of a file arrive in any
//! order. Early ones wait and keep their memory. The wait is bounded, because the buffers before
//! theirs are being filled already.
//!
//! The BLAKE3 of the tensors accepts bytes in any order. A thread without a file to hash computes
//! it. If no thread is free, the thread that has just hashed the bytes for their file does it,
//! while they are in its cache.

use floodtide_core::stream::FilledBuffer;
use floodtide_core::{ContentHashes, FileId};
use floodtide_memory::pool::PoolBuffer;
use floodtide_memory::sync::{AtomicBool, Ordering};
use floodtide_memory::sync::{Condvar, Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a file in a buffer, which returns to its pool when all of its segments are hashed.
struct FileSegment {
    filled: Arc<FilledBuffer<PoolBuffer>>,
    file: FileId,
    /// The offset in the file.
    offset: u64,
    /// The range in the buffer.
    bytes: Range<usize>,
    /// Whether a thread has computed, or is computing, the hashes of its tensors.
    taken: AtomicBool,
}

impl FileSegment {
    fn as_bytes(&self) -> &[u8] {
        &self.filled.buffer()[self.bytes.clone()]
    }
}

struct File {
    /// `None` while a thread has it.
    hash: Option<Sha256>,
    /// The number of bytes that are hashed.
    done: u64,
    /// The segments that have arrived and are not hashed yet, by offset.
    waiting: BTreeMap<u64, Arc<FileSegment>>,
}

struct State {
    files: Vec<File>,
    /// Segments whose tensors are not hashed yet.
    unhashed: VecDeque<Arc<FileSegment>>,
    /// The number of threads that wait for work.
    idle: usize,
    /// Whether no more segments will arrive.
    over: bool,
    /// Whether a thread has panicked, so that there will be no result.
    dead: bool,
}

/// The state that all threads share.
pub(super) struct Hashers {
    state: Mutex<State>,
    changed: Condvar,
    /// `None` if only the files are hashed.
    tensors: Option<ContentHashes>,
}

/// The next step of a thread.
enum Job {
    File(FileId, Arc<FileSegment>, Sha256),
    Tensors(Arc<FileSegment>),
}

impl Hashers {
    /// Creates hashers for `files` files, and for the tensors in them if `tensors` is given.
    pub(super) fn new(files: usize, tensors: Option<ContentHashes>) -> Self {
        let file = || File { hash: Some(Sha256::new()), done: 0, waiting: BTreeMap::new() };
        let files = std::iter::repeat_with(file).take(files).collect();
        let state = State { files, unhashed: VecDeque::new(), idle: 0, over: false, dead: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), tensors }
    }

    /// Takes a buffer of a stream in which each file is one tensor.
    pub(super) fn push(&self, filled: FilledBuffer<PoolBuffer>) {
        let filled = Arc::new(filled);
        let segments = filled.parts().filter(|segment| !segment.buffer_range.is_empty()).map(|segment| {
            let (file, offset, bytes) = (segment.tensor.file, segment.offset, segment.buffer_range);
            Arc::new(FileSegment { filled: Arc::clone(&filled), file, offset, bytes, taken: AtomicBool::new(false) })
        });
        let segments: Vec<Arc<FileSegment>> = segments.collect();
        let mut state = self.state.lock();
        if !state.dead {
            for segment in segments {
                if self.tensors.is_some() {
                    state.unhashed.push_back(Arc::clone(&segment));
                }
                state.files[segment.file.index()].waiting.insert(segment.offset, segment);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Ends the input: no more buffers will be pushed.
    pub(super) fn close(&self) {
        self.state.lock().over = true;
        self.changed.notify_all();
    }

    /// Hashes until the input has ended and no work is left. Without `waits`, hashes only what is
    /// ready now.
    pub(super) fn work(&self, waits: bool) {
        let _guard = Guard(self);
        while let Some(job) = self.next(waits) {
            let segment = match job {
                Job::File(file, segment, mut hash) => {
                    hash.update(segment.as_bytes());
                    let mut state = self.state.lock();
                    let this = &mut state.files[file.index()];
                    this.done += segment.bytes.len() as u64;
                    this.hash = Some(hash);
                    let others = state.idle > 0;
                    drop(state);
                    if others {
                        self.changed.notify_one();
                        continue;
                    }
                    segment
                }
                Job::Tensors(segment) => segment,
            };
            if let Some(tensors) = self.tensors.as_ref().filter(|_| !segment.taken.swap(true, Ordering::Relaxed)) {
                tensors.add(segment.file, segment.offset, segment.as_bytes());
            }
        }
    }

    fn next(&self, waits: bool) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = Self::ready(&mut state) {
                return Some(job);
            }
            if state.over || !waits {
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state);
            state.idle -= 1;
        }
    }

    fn ready(state: &mut MutexGuard<'_, State>) -> Option<Job> {
        let goes_on = |file: &File| file.hash.is_some() && file.waiting.contains_key(&file.done);
        if let Some(number) = state.files.iter().position(goes_on) {
            let file = &mut state.files[number];
            let done = file.done;
            return Some(Job::File(FileId::from_index(number), file.waiting.remove(&done)?, file.hash.take()?));
        }
        while let Some(segment) = state.unhashed.pop_front() {
            if !segment.taken.load(Ordering::Relaxed) {
                return Some(Job::Tensors(segment));
            }
        }
        None
    }

    /// Returns the SHA-256 and the length of each file, and the hashes of the tensors.
    pub(super) fn finish(self) -> (Vec<([u8; 32], u64)>, Option<ContentHashes>) {
        let state = self.state.into_inner();
        let finish = |file: File| (file.hash.unwrap_or_default().finalize().into(), file.done);
        (state.files.into_iter().map(finish).collect(), self.tensors)
    }
}

/// Ends the hashing when a thread panics, so that the others do not wait forever. Waiting and later
/// segments are dropped.
struct Guard<'a>(&'a Hashers);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.0.state.lock();
            state.dead = true;
            state.unhashed.clear();
            state.files.iter_mut().for_each(|file| file.waiting.clear());
        }
    }
}
