//! One run: a number of equal reads in flight for a time, through the sources that loads use.

use super::ReadMethod;
use super::bytes::Bytes;
use crate::backend::{PreadSource, UringSource};
use floodtide_core::{Alignment, Buffer, ChunkId, Fault, Outcome, ReadId, ReadOp, ReadSource, to_usize};
use floodtide_memory::Region;
use floodtide_memory::sync::{Barrier, Mutex, RwLock};
use floodtide_memory::{BufferSlice, SplitBuffer, StableMemory};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The memory that all runs read into. It is in huge pages and faulted in, so that only reading is
/// measured.
#[derive(Debug)]
pub(super) struct Scratch {
    region: Option<Region>,
    bytes: usize,
}

impl Scratch {
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let mut scratch = Self { region: None, bytes };
        scratch.region = Some(scratch.map()?);
        Ok(scratch)
    }

    pub(super) fn byte_len(&self) -> usize {
        self.bytes
    }

    fn map(&self) -> io::Result<Region> {
        let region = Region::map(self.bytes, Alignment::HUGE_PAGE)?;
        // If huge pages are off, the reads are as slow as a load's.
        let _ = region.advise_huge_pages();
        let whole = 0..self.bytes;
        let split = SplitBuffer::new(region, vec![whole])?;
        if let Some(mut slice) = split.take(0) {
            slice.memory().fill(0);
        }
        split.into_memory().ok_or_else(|| io::Error::other("the memory is still in use"))
    }

    /// The memory, split into slots of one size.
    fn split(&mut self, count: usize, bytes: usize) -> io::Result<SplitBuffer<Region>> {
        // The region is gone if a ring that could not wait has leaked its part.
        let region = match self.region.take() {
            Some(region) => region,
            None => self.map()?,
        };
        debug_assert!(count * bytes <= region.byte_len());
        SplitBuffer::new(region, (0..count).map(|slice| slice * bytes..(slice + 1) * bytes).collect())
    }
}

/// The parameters of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) method: ReadMethod,
    pub(super) chunk_bytes: u64,
    pub(super) in_flight: usize,
    /// The maximum number of threads, if each is a ring with several reads in flight.
    pub(super) rings: usize,
    /// The time after the first read when no further read starts.
    pub(super) time: Duration,
    /// The number of bytes after which the run ends early.
    pub(super) max_bytes: u64,
}

impl Run {
    /// Makes the run, and returns its rate in bytes per second.
    pub(super) fn rate(&self, bytes: &Bytes, scratch: &mut Scratch) -> Result<f64, String> {
        let threads = if self.method.ring { self.rings.clamp(1, self.in_flight) } else { self.in_flight };
        let split = scratch.split(self.in_flight, to_usize(self.chunk_bytes)).map_err(|error| error.to_string())?;
        let result = self.work(threads, bytes, &split);
        scratch.region = split.into_memory();
        let (read, elapsed) = result?;
        Ok(read as f64 / elapsed.as_secs_f64().max(1e-9))
    }

    fn work(&self, threads: usize, bytes: &Bytes, split: &SplitBuffer<Region>) -> Result<(u64, Duration), String> {
        // Start threads before the clock starts.
        let barrier = Barrier::new(threads);
        let failure = Mutex::new(None);
        let totals: Mutex<(u64, Option<Instant>, Option<Instant>)> = Mutex::new((0, None, None));
        let work = |thread: usize| {
            let slots: Vec<usize> = (0..self.in_flight).filter(|slot| slot % threads == thread).collect();
            let buffers = slots.into_iter().filter_map(|slot| split.take(slot)).collect();
            let source = Source::new(self.method.ring, bytes, self.in_flight.div_ceil(threads));
            barrier.wait();
            let started = Instant::now();
            let result = source.map_err(|error| error.to_string()).and_then(|mut source| match &mut source {
                Source::Ring(ring) => self.keep_busy(ring.as_mut(), bytes, buffers, started),
                Source::Thread(thread) => self.keep_busy(thread, bytes, buffers, started),
            });
            let ended = Instant::now();
            match result {
                Ok(read) => {
                    let mut totals = totals.lock();
                    totals.0 += read;
                    totals.1 = Some(totals.1.map_or(started, |first| first.min(started)));
                    totals.2 = Some(totals.2.map_or(ended, |last| last.max(ended)));
                }
                Err(error) => *failure.lock() = Some(error),
            }
        };
        spawn_all(threads, work).map_err(|error| format!("the system gives no {threads} threads ({error})"))?;
        if let Some(error) = failure.into_inner() {
            return Err(error);
        }
        match totals.into_inner() {
            (read, Some(first), Some(last)) if read > 0 => Ok((read, last - first)),
            _ => Err("nothing was read".to_owned()),
        }
    }

    /// Keeps a source busy until the time is up, then waits for its reads. All bytes and all of the
    /// time count.
    fn keep_busy<S: ReadSource<Buffer = BufferSlice>>(
        &self,
        source: &mut S,
        bytes: &Bytes,
        mut free: Vec<BufferSlice>,
        started: Instant,
    ) -> Result<u64, String> {
        let (mut read, mut asked, mut number, mut failed) = (0_u64, 0_u64, 0_u64, None);
        loop {
            while failed.is_none() && asked < self.max_bytes && started.elapsed() < self.time {
                if source.in_flight() >= source.capacity() {
                    break;
                }
                let Some(buffer) = free.pop() else { break };
                let (file, offset) = bytes.next(self.chunk_bytes);
                let len = to_usize(self.chunk_bytes);
                let id = ReadId::numbered(number);
                let (direct, attempt) = (self.method.direct, 0);
                let op = ReadOp { id, chunk: ChunkId(0), file, offset, at: 0, len, direct, attempt };
                (number, asked) = (number + 1, asked + self.chunk_bytes);
                if let Err(rejected) = source.submit(op, buffer) {
                    failed = Some(rejected.fault);
                }
            }
            if source.in_flight() == 0 {
                return match failed {
                    Some(fault) => Err(format!("a read failed: {fault}")),
                    None => Ok(read),
                };
            }
            let waited = source.wait(&mut |completion| {
                match completion.outcome {
                    Outcome::Read(0) => failed = Some(Fault::Io),
                    Outcome::Read(bytes) => read += bytes as u64,
                    Outcome::Failed(Fault::Interrupted | Fault::Again) => {}
                    Outcome::Failed(fault) => failed = Some(fault),
                }
                free.push(completion.buffer);
            });
            waited.map_err(|error| format!("the ring cannot wait: {error}"))?;
        }
    }
}

enum Source {
    Ring(Box<UringSource<BufferSlice>>),
    Thread(PreadSource<BufferSlice>),
}

impl Source {
    fn new(ring: bool, bytes: &Bytes, depth: usize) -> io::Result<Self> {
        let files: Arc<[_]> = bytes.files.iter().cloned().map(Some).collect();
        Ok(match ring {
            true => Self::Ring(Box::new(UringSource::new(files, depth, false)?)),
            false => Self::Thread(PreadSource::new(files, false)),
        })
    }
}

/// Runs `work` on this thread and others, or fails without running it if the threads cannot be
/// started.
fn spawn_all(threads: usize, work: impl Fn(usize) + Sync) -> io::Result<()> {
    // Each thread waits for this, so that a failed start leaves no other waiting at the barrier.
    let word = RwLock::new(false);
    std::thread::scope(|scope| {
        let mut go = word.write();
        for thread in 1..threads {
            let (work, word) = (&work, &word);
            let task = move || {
                if *word.read() {
                    work(thread);
                }
            };
            std::thread::Builder::new()
                .name("floodtide-probe".to_owned())
                .stack_size(128 << 10)
                .spawn_scoped(scope, task)?;
        }
        *go = true;
        drop(go);
        work(0);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_reads() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let bytes = Bytes::find(folder.path(), None, 32 << 20, Duration::from_secs(5), &|_| {}).expect("room");
        let mut scratch = Scratch::new(8 << 20).expect("memory");
        let ring = crate::probe::uring_refusal().is_none();
        for method in ReadMethod::ALL
            .into_iter()
            .filter(|method| (!method.ring || ring) && (!method.direct || bytes.takes_direct()))
        {
            for (chunk_bytes, in_flight) in [(64 << 10, 128), (1 << 20, 1), (1 << 20, 8)] {
                let run = Run {
                    method,
                    chunk_bytes,
                    in_flight,
                    rings: 2,
                    time: Duration::from_millis(5),
                    max_bytes: u64::MAX,
                };
                let rate = run.rate(&bytes, &mut scratch).expect("reads");
                assert!(rate > 1e6, "{run:?}: {rate}");
            }
        }
        assert!(scratch.region.is_some(), "the memory came back");
    }
}
