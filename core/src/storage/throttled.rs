//! A decorator that limits a storage to the speed of a device or a network.
//!
//! Latencies of concurrent requests overlap. Their transfers share the bandwidth one after another,
//! as on a link. A [`Timer`] supplies the time, so that a simulator can use its own.

use super::{
    BoxedSource, DeviceSignals, Entry, LatencyClass, Opened, Residency, SourceOptions, Storage, StorageError,
    StorageFile,
};
use crate::backend::Backend;
use crate::file_version::FileVersion;
use crate::source::{Buffer, Completion, ReadId, ReadOp, ReadSource, Rejected, SourceError};
use crate::sync::Mutex;
use crate::units::DirectLimits;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt::Debug;

/// A clock that can be waited on. It counts nanoseconds from an arbitrary point.
pub trait Timer: Debug + Clone + Send + Sync + 'static {
    /// Returns the current time in nanoseconds.
    fn now(&self) -> u64;

    /// Waits until `time`. Returns false without waiting if the caller must return to let time
    /// pass, as in a simulator.
    fn sleep_until(&self, time: u64) -> bool;
}

/// The speed of a [`Throttled`] storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// The latency of a request in nanoseconds.
    pub latency: u64,
    /// The bandwidth of all requests together in bytes per second, 0 for no limit.
    pub bytes_per_second: u64,
    /// The latency class that the storage reports.
    pub class: LatencyClass,
}

/// A link to a device. Latencies overlap, and transfers share the bandwidth one after another.
#[derive(Debug, Clone)]
pub struct Link {
    latency: u64,
    bytes_per_second: u64,
    free_at: u64,
}

impl Link {
    /// Creates an idle link with a latency in nanoseconds and a bandwidth in bytes per second (0
    /// for no limit).
    #[must_use]
    pub fn new(latency: u64, bytes_per_second: u64) -> Self {
        Self { latency, bytes_per_second, free_at: 0 }
    }

    /// Returns the time at which a request for `bytes`, made at `now`, completes.
    pub fn schedule(&mut self, now: u64, bytes: u64) -> u64 {
        self.schedule_after(now, 0, bytes)
    }

    /// Like [`schedule`](Self::schedule), with a different latency for this request.
    pub fn schedule_after(&mut self, now: u64, latency: u64, bytes: u64) -> u64 {
        let begins = self.free_at.max(now.saturating_add(self.latency).saturating_add(latency));
        let takes = (u128::from(bytes) * 1_000_000_000).checked_div(u128::from(self.bytes_per_second)).unwrap_or(0);
        self.free_at = begins.saturating_add(u64::try_from(takes).unwrap_or(u64::MAX));
        self.free_at
    }
}

/// Another storage, of which every request takes time.
///
/// It offers neither views nor the backends that map files, because touching a view is no request
/// that could be slowed down.
#[derive(Debug, Clone)]
pub struct Throttled<S, T> {
    inner: S,
    class: LatencyClass,
    pace: Pace<T>,
}

/// The state that all requests of a storage share.
#[derive(Debug, Clone)]
struct Pace<T> {
    timer: T,
    link: Arc<Mutex<Link>>,
}

impl<T: Timer> Pace<T> {
    fn schedule(&self, bytes: usize) -> u64 {
        let now = self.timer.now();
        self.link.with(|link| link.schedule(now, bytes as u64))
    }

    /// Waits for the duration of a request.
    fn request(&self, bytes: usize) {
        let due = self.schedule(bytes);
        self.timer.sleep_until(due);
    }
}

impl<S, T: Timer> Throttled<S, T> {
    /// Limits `inner` to the speed of `throttle`.
    pub fn new(inner: S, throttle: Throttle, timer: T) -> Self {
        let link = Arc::new(Mutex::new(Link::new(throttle.latency, throttle.bytes_per_second)));
        Self { inner, class: throttle.class, pace: Pace { timer, link } }
    }
}

impl<B: Buffer, S: Storage<B>, T: Timer> Storage<B> for Throttled<S, T> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn backends(&self) -> Vec<Backend> {
        self.inner.backends().into_iter().filter(|backend| !backend.is_mapped()).collect()
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError> {
        self.pace.request(0);
        self.inner.list(folder)
    }

    fn open(&self, name: &str) -> Result<Opened, StorageError> {
        self.pace.request(0);
        Ok(match self.inner.open(name)? {
            Opened::File(inner) => Opened::File(Arc::new(ThrottledFile { inner, pace: self.pace.clone() })),
            Opened::Folder => Opened::Folder,
        })
    }

    fn check_link(&self, folder: &str, name: &str) -> Result<(), StorageError> {
        self.inner.check_link(folder, name)
    }

    fn device_signals(&self, file: &dyn StorageFile, backends: &[Backend]) -> DeviceSignals {
        let file = (file as &dyn Any).downcast_ref::<ThrottledFile<T>>().map_or(file, |file| &*file.inner);
        DeviceSignals { latency: self.class, ..self.inner.device_signals(file, backends) }
    }

    fn source(&self, files: &[Arc<dyn StorageFile>], options: SourceOptions) -> Result<BoxedSource<B>, String> {
        let inner = |file: &Arc<dyn StorageFile>| match (&**file as &dyn Any).downcast_ref::<ThrottledFile<T>>() {
            Some(file) => Arc::clone(&file.inner),
            None => Arc::clone(file),
        };
        let inner: Vec<_> = files.iter().map(inner).collect();
        let source = self.inner.source(&inner, options)?;
        Ok(Box::new(ThrottledSource { inner: source, pace: self.pace.clone(), due: Vec::new(), held: Vec::new() }))
    }
}

/// A file whose every read takes time.
#[derive(Debug)]
struct ThrottledFile<T> {
    inner: Arc<dyn StorageFile>,
    pace: Pace<T>,
}

impl<T: Timer> StorageFile for ThrottledFile<T> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn version(&self) -> &FileVersion {
        self.inner.version()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.pace.request(buffer.len());
        self.inner.read_at(offset, buffer)
    }

    fn is_unchanged(&self) -> bool {
        self.inner.is_unchanged()
    }

    fn check_unchanged(&self) -> Result<(), StorageError> {
        self.inner.check_unchanged()
    }

    fn inner(&self) -> Option<&dyn StorageFile> {
        Some(&*self.inner)
    }

    fn device(&self) -> u64 {
        self.inner.device()
    }

    fn direct_limits(&self) -> Option<DirectLimits> {
        self.inner.direct_limits()
    }

    fn residency(&self) -> Residency {
        self.inner.residency()
    }
}

/// A source that holds completions back until they are due.
struct ThrottledSource<B: Buffer, T> {
    inner: BoxedSource<B>,
    pace: Pace<T>,
    /// When each read of the inner source is due.
    due: Vec<(ReadId, u64)>,
    /// The completions of the inner source, each with the time at which it is due.
    held: Vec<(u64, Completion<B>)>,
}

impl<B: Buffer, T: Timer> ReadSource for ThrottledSource<B, T> {
    type Buffer = B;

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.held.len()
    }

    fn submit(&mut self, op: ReadOp, buffer: B) -> Result<(), Rejected<B>> {
        self.inner.submit(op, buffer)?;
        self.due.push((op.id, self.pace.schedule(op.len)));
        Ok(())
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<B>)) -> Result<(), SourceError> {
        if self.held.is_empty() {
            let (due, held) = (&mut self.due, &mut self.held);
            self.inner.wait(&mut |completion| {
                let place = due.iter().position(|(id, _)| *id == completion.id);
                held.push((place.map_or(0, |place| due.swap_remove(place).1), completion));
            })?;
        }
        let Some(first) = self.held.iter().map(|(due, _)| *due).min() else { return Ok(()) };
        if self.pace.timer.now() < first && !self.pace.timer.sleep_until(first) {
            return Ok(());
        }
        let now = self.pace.timer.now();
        for (_, completion) in self.held.extract_if(.., |(due, _)| *due <= now) {
            completed(completion);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_overlaps_and_bandwidth_is_shared() {
        // 1 byte a nanosecond.
        let mut link = Link::new(100, 1_000_000_000);
        assert_eq!(link.schedule(0, 50), 150);
        assert_eq!(link.schedule(0, 50), 200, "the second one's latency has passed meanwhile");
        assert_eq!(link.schedule(1000, 50), 1150);
        assert_eq!(Link::new(7, 0).schedule(1, u64::MAX), 8);
    }
}
