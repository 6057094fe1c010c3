//! A trace file. Workers pass compact events to one thread, which writes them.

use super::event::{Event, Nanos, SIGNATURE, What, Writer};
use super::reads::Worker;
use super::{LoadTrace, Phase, Populated, ReadTrace, Reads, Trace};
use crate::error::Error;
use floodtide_core::direct_io_fallback::{ComparedRates, FallbackDecision};
use floodtide_core::strategy::{Route, Strategy};
use floodtide_memory::sync::Mutex;
use floodtide_memory::sync::{AtomicU32, AtomicU64, Ordering};
use serde_json::json;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// The maximum number of queued events, about 2 MiB. If the queue is full, senders wait.
const WAITING: usize = 16 << 10;
/// The minimum interval between counters in nanoseconds.
const COUNT_EVERY: Nanos = 1_000_000;

/// Writes a trace in the Trace Event Format, for <https://ui.perfetto.dev> or chrome://tracing.
///
/// ```no_run
/// use floodtide::{Loader, trace::TraceFile};
///
/// let trace = TraceFile::create("load.json")?;
/// let tensors = Loader::new().trace(trace.clone()).load("model.safetensors")?;
/// trace.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Each load appears as a process. One of its tracks shows the phases. Each worker has one track
/// per concurrent read. The span of a read lasts from its submission to its completion. A nested
/// span shows the time that it queued; the rest is service time, as [`Reads`] defines it. Counters
/// show the completed bytes and the reads in flight, at most once per millisecond, and the target
/// of reads in flight with the rate measured before, whenever the target changes.
///
/// A thread writes the events as they arrive, so memory is bounded (a few MiB). A disk that is too
/// slow for them slows down the load. The file is complete when [`finish`](Self::finish) returns,
/// or when the last clone and the last load are dropped. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct TraceFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    origin: Instant,
    events: SyncSender<Option<Event>>,
    writer: Mutex<Option<JoinHandle<io::Result<()>>>>,
    loads: AtomicU32,
}

impl TraceFile {
    /// Creates the file, or truncates an earlier trace.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, or exists and is not a trace: it might be a
    /// checkpoint.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let failed = |cause| Error::Io { path: path.clone(), action: "write the trace", cause };
        if !may_be_replaced(&path).map_err(failed)? {
            return Err(Error::NotATrace { path });
        }
        let file = File::create(&path).map_err(failed)?;
        let (events, received) = sync_channel(WAITING);
        let mut writer = Writer::begin(BufWriter::with_capacity(256 << 10, file)).map_err(failed)?;
        let work = move || write(&mut writer, &received);
        let thread = std::thread::Builder::new().name("floodtide-trace".to_owned()).spawn(work).map_err(failed)?;
        let (origin, writer) = (Instant::now(), Mutex::new(Some(thread)));
        Ok(Self(Arc::new(Inner { path, origin, events, writer, loads: AtomicU32::new(0) })))
    }

    /// Completes the file. Later events are dropped.
    ///
    /// # Errors
    /// Returns an error if the file could not be written completely.
    pub fn finish(&self) -> Result<(), Error> {
        self.0.finish().map_err(|cause| Error::Io { path: self.0.path.clone(), action: "write the trace", cause })
    }
}

impl Inner {
    fn finish(&self) -> io::Result<()> {
        // Held until the thread ends, so that a second caller does not return before the file is
        // complete.
        let mut writer = self.writer.lock();
        let Some(thread) = writer.take() else { return Ok(()) };
        // Sending fails only if the thread has ended already.
        let _ = self.events.send(None);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the writer thread panicked")))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // `TraceFile::finish` reports errors; a drop cannot.
        let _ = self.finish();
    }
}

/// Returns true if the path is free, a character device or pipe, an empty file, or a trace of an
/// earlier run. A block device is excluded, because it may hold a file system.
fn may_be_replaced(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(metadata) if metadata.file_type().is_block_device() => Ok(false),
        Ok(metadata) if !metadata.is_file() || metadata.len() == 0 => Ok(true),
        Ok(_) => {
            let mut start = Vec::new();
            File::open(path)?.take(SIGNATURE.len() as u64).read_to_end(&mut start)?;
            Ok(start == SIGNATURE.as_bytes())
        }
    }
}

/// Writes events until the end is requested. After an error it drops events, so that no load waits
/// for it.
fn write(writer: &mut Writer<BufWriter<File>>, events: &Receiver<Option<Event>>) -> io::Result<()> {
    let mut result = Ok(());
    while let Ok(Some(event)) = events.recv() {
        if result.is_ok() {
            result = writer.write(event);
        }
    }
    result.and_then(|()| writer.end())
}

impl Trace for TraceFile {
    fn load(&self) -> Arc<dyn LoadTrace> {
        let load = LoadFile {
            file: Arc::clone(&self.0),
            load: self.0.loads.fetch_add(1, Ordering::Relaxed) + 1,
            workers: AtomicU32::new(0),
            tracks: AtomicU32::new(super::event::PHASES),
            populating: Mutex::default(),
            bytes: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            counted: AtomicU64::new(0),
        };
        load.send(What::Begun);
        Arc::new(Handle(Arc::new(load)))
    }
}

/// One load in the file.
#[derive(Debug)]
pub(super) struct LoadFile {
    file: Arc<Inner>,
    load: u32,
    workers: AtomicU32,
    /// The last track that was created.
    tracks: AtomicU32,
    /// The tracks of the threads that make mappings resident.
    populating: Mutex<Vec<u32>>,
    bytes: AtomicU64,
    in_flight: AtomicU64,
    /// The time at which the counters were last written.
    counted: AtomicU64,
}

impl LoadFile {
    pub(super) fn now(&self) -> Nanos {
        self.at(Instant::now())
    }

    pub(super) fn at(&self, instant: Instant) -> Nanos {
        instant.saturating_duration_since(self.file.origin).as_nanos().try_into().unwrap_or(Nanos::MAX)
    }

    pub(super) fn send(&self, what: What) {
        // Events after the end are dropped.
        let _ = self.file.events.send(Some(Event { load: self.load, what }));
    }

    pub(super) fn new_track(&self, name: String, order: u64) -> u32 {
        let track = self.tracks.fetch_add(1, Ordering::Relaxed) + 1;
        self.send(What::Track { track, name, order });
        track
    }

    /// Records the start of a read.
    pub(super) fn began(&self, now: Nanos) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.count(now);
    }

    /// Records the completion of a read of `bytes` bytes.
    pub(super) fn ended(&self, now: Nanos, bytes: u64) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.count(now);
    }

    /// Writes the counters if they are due.
    fn count(&self, now: Nanos) {
        let last = self.counted.load(Ordering::Relaxed);
        let due = last == 0 || now >= last.saturating_add(COUNT_EVERY);
        if due && self.counted.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.send_counters(now);
        }
    }

    fn send_counters(&self, at: Nanos) {
        let (bytes, in_flight) = (self.bytes.load(Ordering::Relaxed), self.in_flight.load(Ordering::Relaxed));
        self.send(What::Counters { at, bytes, in_flight });
    }
}

impl Drop for LoadFile {
    fn drop(&mut self) {
        self.send(What::Over);
    }
}

/// A load that its workers share.
struct Handle(Arc<LoadFile>);

impl LoadTrace for Handle {
    fn decided(&self, files: &[&str], strategy: &Strategy) {
        let load = &self.0;
        let folder = shared_folder(files);
        let name = |name: &&str| name.strip_prefix(folder).unwrap_or(name).trim_start_matches('/').to_owned();
        let Route { backend, chunk_bytes, depth, workers, .. } = strategy.main_route();
        let about = json!({
            "folder": folder,
            "files": files.len(),
            "backend": backend.name(),
            "reason": strategy.reason(),
            "routes": strategy.routes.len(),
            "workers": workers,
            "depth": depth,
            "chunk_bytes": chunk_bytes,
        });
        load.send(What::Decided { at: load.now(), files: files.iter().map(name).collect(), about });
    }

    fn phase(&self, phase: Phase, began: Instant, ended: Instant) {
        let load = &self.0;
        load.send(What::Phase { phase, began: load.at(began), ended: load.at(ended) });
        if phase == Phase::Load {
            load.send_counters(load.at(ended));
        }
    }

    fn worker(&self, reads: Reads) -> Box<dyn ReadTrace> {
        let number = self.0.workers.fetch_add(1, Ordering::Relaxed);
        Box::new(Worker::new(Arc::clone(&self.0), reads, number))
    }

    fn tuned(&self, reads: u32, bytes_per_second: Option<u64>) {
        let load = &self.0;
        load.send(What::Tuned { at: load.now(), reads, bytes_per_second });
    }

    fn fell_back(&self, decision: FallbackDecision) {
        let load = &self.0;
        let about = match decision {
            FallbackDecision::Try => json!({ "to": "the page cache, to try it" }),
            FallbackDecision::Keep(ComparedRates { direct, buffered }) => {
                json!({ "to": "the page cache", "direct_bytes_per_second": direct, "buffered_bytes_per_second": buffered })
            }
            FallbackDecision::Back(ComparedRates { direct, buffered }) => {
                json!({ "to": "direct reads", "direct_bytes_per_second": direct, "buffered_bytes_per_second": buffered })
            }
        };
        load.send(What::Fallback { at: load.now(), about });
    }

    fn populated(&self, step: &Populated) {
        let load = &self.0;
        let mut tracks = load.populating.lock();
        while tracks.len() <= step.thread {
            let thread = tracks.len();
            tracks.push(load.new_track(format!("mmap {thread}"), thread as u64 + 1));
        }
        let track = tracks[step.thread];
        drop(tracks);
        let bytes = step.range.end - step.range.start;
        let (began, ended) = (load.at(step.began), load.at(step.ended));
        let (file, offset, done) = (step.file.index(), step.range.start, step.done);
        load.send(What::Populated { track, file, offset, bytes, began, ended, done });
        load.bytes.fetch_add(if done { bytes } else { 0 }, Ordering::Relaxed);
        load.count(ended);
    }
}

/// Returns the folder that contains all files.
fn shared_folder<'a>(files: &[&'a str]) -> &'a str {
    let parent = |name: &'a str| name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut folder = files.first().map_or("", |name| parent(name));
    let is_below = |name: &&str, folder: &str| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    while !folder.is_empty() && !files.iter().all(|name| is_below(name, folder)) {
        folder = parent(folder);
    }
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_trace_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trace.json");
        for _ in 0..2 {
            TraceFile::create(&path).expect("is new, or a trace").finish().expect("writes");
        }
        fs::write(&path, "").expect("writes");
        TraceFile::create(&path).expect("is empty");
        fs::write(&path, "{\"__metadata__\":{}}").expect("writes");
        let error = TraceFile::create(&path).expect_err("is something else");
        assert!(matches!(error, Error::NotATrace { .. }), "{error}");
        assert_eq!(fs::read(&path).expect("reads"), b"{\"__metadata__\":{}}");
        assert!(matches!(TraceFile::create(folder.path().join("no/folder")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_block_device_is_not_overwritten() {
        let devices = fs::read_dir("/dev").into_iter().flatten().flatten().map(|entry| entry.path());
        let is_block = |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
        let Some(device) = devices.into_iter().find(is_block) else {
            return println!("skipped: there is no block device here");
        };
        // This only checks: nothing is opened.
        assert!(!may_be_replaced(&device).expect("is there"), "{device:?}");
        assert!(may_be_replaced(Path::new("/dev/null")).expect("is there"));
    }

    #[test]
    fn a_full_disk_is_told_and_stops_no_load() {
        let trace = TraceFile::create("/dev/full").expect("opens");
        let load = trace.load();
        for _ in 0..2 * WAITING {
            load.phase(Phase::Load, Instant::now(), Instant::now());
        }
        let error = trace.finish().expect_err("is full").to_string();
        assert!(error.contains("/dev/full: cannot write the trace"), "{error}");
        load.phase(Phase::Settle, Instant::now(), Instant::now());
    }

    #[test]
    fn files_are_named_without_the_folder_they_share() {
        assert_eq!(shared_folder(&["/a/b/1", "/a/b/c/2"]), "/a/b");
        assert_eq!(shared_folder(&["/a/bc/1", "/a/b/2"]), "/a");
        assert_eq!(shared_folder(&["1", "b/2"]), "");
        assert_eq!(shared_folder(&[]), "");
    }
}
