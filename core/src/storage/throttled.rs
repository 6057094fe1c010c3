//! Any storage, made as slow as a device or a network.
//!
//! Requests wait out the latency side by side and then share the bandwidth one after another, as on a link. Time comes from a
//! [`Timer`], so that a simulator can use its own.

use super::{
    BoxedSource, DeviceSignals, Entry, FileView, LatencyClass, Opened, Residency, SourceOptions, Storage, StorageError,
    StorageFile,
};
use crate::backend::Backend;
use crate::file_version::FileVersion;
use crate::plan::DirectLimits;
use crate::source::{Buffer, Completion, ReadId, ReadOp, ReadSource, Rejected, SourceError};
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt::Debug;

/// A clock, in nanoseconds since anything, that can be waited for.
pub trait Timer: Debug + Clone + Send + Sync + 'static {
    /// Returns the time.
    fn now(&self) -> u64;

    /// Waits until `time`. Returns false at once when time passes only while nobody waits, as in a simulator.
    fn sleep_until(&self, time: u64) -> bool;
}

/// How slow a [`Throttled`] storage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Nanoseconds that each request takes before its first byte.
    pub latency: u64,
    /// The bytes per second of all requests together; 0 for no limit.
    pub bytes_per_second: u64,
    /// What the storage reports of its latency.
    pub class: LatencyClass,
}

/// A way to a device: requests wait out the latency side by side, then share the bandwidth one after another.
#[derive(Debug, Clone)]
pub struct Link {
    latency: u64,
    bytes_per_second: u64,
    free_at: u64,
}

impl Link {
    /// Returns an idle link with that latency in nanoseconds and that many bytes per second (0 for no limit).
    #[must_use]
    pub fn new(latency: u64, bytes_per_second: u64) -> Self {
        Self { latency, bytes_per_second, free_at: 0 }
    }

    /// Returns when a request for `bytes` that is made at `now` is done.
    pub fn schedule(&mut self, now: u64, bytes: u64) -> u64 {
        self.schedule_after(now, 0, bytes)
    }

    /// As [`schedule`](Self::schedule), for a request with some latency of its own.
    pub fn schedule_after(&mut self, now: u64, latency: u64, bytes: u64) -> u64 {
        let begins = self.free_at.max(now.saturating_add(self.latency).saturating_add(latency));
        let takes = (u128::from(bytes) * 1_000_000_000).checked_div(u128::from(self.bytes_per_second)).unwrap_or(0);
        self.free_at = begins.saturating_add(u64::try_from(takes).unwrap_or(u64::MAX));
        self.free_at
    }
}

/// Another storage, whose every request takes time. Views are those of the other storage, which nothing slows down.
#[derive(Debug, Clone)]
pub struct Throttled<S, T> {
    inner: S,
    class: LatencyClass,
    pace: Pace<T>,
}

/// What all requests of a storage share.
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

    /// Waits out a request.
    fn request(&self, bytes: usize) {
        let due = self.schedule(bytes);
        self.timer.sleep_until(due);
    }
}

impl<S, T: Timer> Throttled<S, T> {
    /// Slows `inner` down.
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
        self.inner.backends()
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

    fn view(&self) -> Result<Option<Box<dyn FileView>>, StorageError> {
        self.inner.view()
    }
}

/// A source whose reads complete no earlier than they are due.
struct ThrottledSource<B: Buffer, T> {
    inner: BoxedSource<B>,
    pace: Pace<T>,
    /// When each read that the inner source has is due.
    due: Vec<(ReadId, u64)>,
    /// What the inner source has completed, and when it is due.
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
