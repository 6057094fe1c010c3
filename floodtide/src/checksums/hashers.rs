//! The threads that hash what passes through.
//!
//! A file's SHA-256 can only be made from its first byte to its last, so one thread at a time has a file, and files are hashed side by side.
//! Its parts come in any order; those that come early wait, and their memory with them. That comes to an end, as the buffers before
//! theirs are being filled already. The tensors' BLAKE3 takes any bytes in any order: whoever has no file to go on with makes it, and
//! where nobody is free, the thread that has just had the bytes for their file, in whose cache they are.

use floodtide_core::stream::FilledBuffer;
use floodtide_core::{ContentHashes, FileId};
use floodtide_memory::pool::PoolBuffer;
use floodtide_memory::sync::{AtomicBool, Ordering};
use floodtide_memory::sync::{Condvar, Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a file, in a buffer that goes back when all of its parts are hashed.
struct FileSegment {
    filled: Arc<FilledBuffer<PoolBuffer>>,
    file: FileId,
    /// Where they are in the file.
    offset: u64,
    /// Where they are in the buffer.
    bytes: Range<usize>,
    /// Somebody has made, or is making, its tensors' hashes.
    taken: AtomicBool,
}

impl FileSegment {
    fn as_bytes(&self) -> &[u8] {
        &self.filled.buffer()[self.bytes.clone()]
    }
}

struct File {
    /// Not there while a thread has it.
    hash: Option<Sha256>,
    /// How far it is hashed.
    done: u64,
    /// What has come, by offset, and is not hashed yet.
    waiting: BTreeMap<u64, Arc<FileSegment>>,
}

struct State {
    files: Vec<File>,
    /// Parts whose tensors are not hashed yet.
    unhashed: VecDeque<Arc<FileSegment>>,
    /// Threads that wait for something to do.
    idle: usize,
    /// Nothing more will come.
    over: bool,
    /// A thread has panicked, so nothing will come of it.
    dead: bool,
}

/// What all threads share.
pub(super) struct Hashers {
    state: Mutex<State>,
    changed: Condvar,
    /// Not there where only the files are of interest.
    tensors: Option<ContentHashes>,
}

/// What a thread does next.
enum Job {
    File(FileId, Arc<FileSegment>, Sha256),
    Tensors(Arc<FileSegment>),
}

impl Hashers {
    /// For so many files; `tensors`: for what is in them.
    pub(super) fn new(files: usize, tensors: Option<ContentHashes>) -> Self {
        let file = || File { hash: Some(Sha256::new()), done: 0, waiting: BTreeMap::new() };
        let files = std::iter::repeat_with(file).take(files).collect();
        let state = State { files, unhashed: VecDeque::new(), idle: 0, over: false, dead: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), tensors }
    }

    /// Takes a buffer of a stream whose tensors are the files, by their numbers.
    pub(super) fn push(&self, filled: FilledBuffer<PoolBuffer>) {
        let filled = Arc::new(filled);
        let segments = filled.parts().filter(|segment| !segment.bytes.is_empty()).map(|segment| {
            let (file, offset, bytes) = (segment.tensor.file, segment.offset, segment.bytes);
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

    /// Nothing more will be pushed.
    pub(super) fn close(&self) {
        self.state.lock().over = true;
        self.changed.notify_all();
    }

    /// Hashes until it is closed and nothing is left. `waits`: or else until there is nothing to do just now.
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
            return Some(Job::File(FileId(number as u32), file.waiting.remove(&done)?, file.hash.take()?));
        }
        while let Some(segment) = state.unhashed.pop_front() {
            if !segment.taken.load(Ordering::Relaxed) {
                return Some(Job::Tensors(segment));
            }
        }
        None
    }

    /// The SHA-256 and the length of what has come of each file, and the tensors' hashes.
    pub(super) fn finish(self) -> (Vec<([u8; 32], u64)>, Option<ContentHashes>) {
        let state = self.state.into_inner();
        let finish = |file: File| (file.hash.unwrap_or_default().finalize().into(), file.done);
        (state.files.into_iter().map(finish).collect(), self.tensors)
    }
}

/// Lets a thread's panic end everything instead of leaving the others to wait: what it had goes back, and so does what comes.
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
