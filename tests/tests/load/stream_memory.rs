//! The memory of streams: the limit holds if the consumer or the device is slow, stops or fails,
//! with own and shared pools.

use floodtide::pool::{HeapMemory, MemoryBlock, MemoryProvider, Pool};
use floodtide::{Alignment, Error, ErrorKind, Loader, StreamOptions, Tensor};
use floodtide_tests::by_backend::{MB, STREAMED};
use floodtide_tests::checkpoint::{folder, numbered};
use floodtide_tests::layout::drop_cache;
use floodtide_tests::over_storages::places;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A provider that counts its memory, and allows at most `max` bytes.
#[derive(Debug, Clone)]
struct Counted {
    live: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

impl Counted {
    fn new() -> Self {
        Self { live: Arc::default(), peak: Arc::default() }
    }
}

struct Live(MemoryBlock, Arc<AtomicUsize>);

impl Drop for Live {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.capacity(), Ordering::SeqCst);
    }
}

impl MemoryProvider for Counted {
    fn allocate(&self, bytes: usize) -> io::Result<MemoryBlock> {
        let mut memory = HeapMemory::new().allocate(bytes)?;
        let live = self.live.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.peak.fetch_max(live, Ordering::SeqCst);
        let start = std::ptr::NonNull::new(memory.as_mut_ptr()).expect("not null");
        // SAFETY: the memory belongs to its owner, which this value keeps, and is zeroed.
        Ok(unsafe { MemoryBlock::from_raw(start, bytes, Live(memory, Arc::clone(&self.live))) })
    }
}

/// Waits until a condition holds, and fails if that takes too long.
fn soon(holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < end, "buffers are left");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_lent_and_in_flight_never_passes_the_limit() {
    let folder = folder();
    let path = numbered(folder.path(), &[3 * MB; 20]);
    for place in places(&path) {
        for backend in place.copying() {
            for limit in [4 * MB, 9 * MB, 16 * MB] {
                let memory = Counted::new();
                let pool = Pool::builder().limit(limit).memory(memory.clone()).build();
                let loader = place.loader_by(backend);
                let loader = loader.stream_options(StreamOptions::new().pool(pool.clone()));
                drop_cache(folder.path());
                let mut held = Vec::new();
                for tensor in loader.stream(&place.path).expect("opens") {
                    // Two are held at a time where there is room for more, so that what is held
                    // counts too.
                    held.push(tensor.expect("streams"));
                    if held.len() > usize::from(limit > 8 * MB) {
                        held.remove(0);
                    }
                }
                drop(held);
                loader.stream(&place.path).expect("opens").for_each_part(|_, _, _| {}).expect("streams");
                let peak = memory.peak.load(Ordering::SeqCst);
                assert!(peak <= limit && peak > limit / 2, "{backend:?}: {peak} of {limit}");
                assert_eq!(pool.stats().lent, 0);
                drop((loader, pool));
                // The workers hold the pool to their very end.
                soon(|| memory.live.load(Ordering::SeqCst) == 0);
            }
        }
    }
}

#[test]
fn a_slow_consumer_throttles_the_reads() {
    let folder = folder();
    let path = numbered(folder.path(), &[MB; 64]);
    for place in places(&path) {
        let mut stream = place
            .loader
            .clone()
            .stream_options(StreamOptions::new().memory_limit(8 * MB as u64))
            .stream(&place.path)
            .expect("opens");
        let first = stream.next().expect("one").expect("streams");
        std::thread::sleep(Duration::from_millis(200));
        let read = stream.progress().bytes_done;
        assert!(read > 4 * MB as u64 && read <= 8 * MB as u64, "{read} bytes were read while one tensor was held");
        drop(first);
        assert_eq!(stream.by_ref().map(|tensor| tensor.expect("streams").as_bytes().len()).sum::<usize>(), 63 * MB);
    }
}

#[test]
fn a_consumer_that_holds_everything_is_told_and_can_go_on() {
    let folder = folder();
    let path = numbered(folder.path(), &[MB; 32]);
    for place in places(&path) {
        let loader = place
            .loader
            .clone()
            .stream_options(StreamOptions::new().memory_limit(8 * MB as u64).stall_timeout(Duration::from_millis(200)));
        let mut stream = loader.stream(&place.path).expect("opens");
        let mut held = Vec::new();
        let error = loop {
            match stream.next().expect("not all fit") {
                Ok(tensor) => held.push(tensor),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::StreamStalled { limit, .. } if limit == 8 * MB), "{error}");
        assert!(error.to_string().contains("drop tensors"), "{error}");
        assert!((4..=8).contains(&held.len()));
        let before = held.len();
        held.clear();
        assert_eq!(stream.inspect(|tensor| assert!(tensor.is_ok(), "it goes on")).count(), 32 - before);
    }
}

#[test]
fn a_consumer_that_stops_leaves_nothing_behind() {
    let folder = folder();
    let path = numbered(folder.path(), &[MB; 64]);
    for place in places(&path) {
        for backend in place.copying() {
            let memory = Counted::new();
            let pool = Pool::builder().limit(16 * MB).memory(memory.clone()).build();
            let loader = place.loader_by(backend).stream_options(StreamOptions::new().pool(pool.clone()));
            for taken in [0, 1, 5] {
                drop_cache(folder.path());
                let mut stream = loader.stream(&place.path).expect("opens");
                let tensors: Vec<Tensor> = stream.by_ref().take(taken).map(|tensor| tensor.expect("streams")).collect();
                drop(stream);
                for tensor in &tensors {
                    let required = tensor.name()[1..].parse::<u8>().expect("a number");
                    assert!(tensor.as_bytes().iter().all(|&byte| byte == required), "what was taken stays");
                }
            }
            // The workers wait for what the kernel has, and end.
            soon(|| pool.stats().lent == 0);
        }
    }
}

#[test]
fn bad_options_are_refused() {
    let folder = folder();
    let path = numbered(folder.path(), &[10]);
    for place in places(&path) {
        let error = place
            .loader
            .clone()
            .stream_options(StreamOptions::new().memory_limit(1000))
            .stream(&place.path)
            .expect_err("too little");
        assert!(
            matches!(error, Error::StreamLimit { limit: 1000, .. }) && error.kind() == ErrorKind::InvalidRequest,
            "{error}"
        );
        let error = place.loader.clone().backend(place.mapped()).stream(&place.path).expect_err("no buffers");
        assert!(matches!(error, Error::StreamMapped { .. }), "{error}");
        let error = place
            .loader
            .clone()
            .stream_options(StreamOptions::new().memory_limit(u64::MAX))
            .stream(&place.path)
            .expect("opens")
            .next();
        assert!(error.is_some_and(|tensor| tensor.is_ok()), "what is not needed need not be there");
        let pool = Pool::builder().limit(MB).memory(HeapMemory::aligned(Alignment::ONE)).build();
        let loader =
            place.loader.clone().stream_options(StreamOptions::new().pool(pool)).tensor_alignment(Alignment::PAGE);
        let error = loader.stream(&place.path).expect("opens").next().expect("an error").expect_err("unaligned memory");
        assert!(matches!(error, Error::TensorAlignment { bytes: 4096, max: 1 }), "{error}");
    }
}

#[test]
fn a_pool_that_is_less_aligned_than_direct_reads_need_serves_all_the_same() {
    let folder = folder();
    let path = numbered(folder.path(), &[3 * MB; 4]);
    drop_cache(folder.path());
    let pool = Pool::builder().limit(8 * MB).memory(HeapMemory::aligned(Alignment::ONE)).build();
    let stream = Loader::new().stream_options(StreamOptions::new().pool(pool)).stream(&path).expect("opens");
    assert_eq!(stream.map(|tensor| tensor.expect("streams").as_bytes().len()).sum::<usize>(), 12 * MB);
}

#[test]
fn streams_that_share_a_pool_and_take_turns_do_not_starve_one_another() {
    let folder = folder();
    let path = numbered(folder.path(), &[MB; 32]);
    for place in places(&path) {
        let pool = Pool::builder().limit(8 * MB).build();
        let loader =
            place.loader.clone().stream_options(StreamOptions::new().pool(pool).stall_timeout(Duration::from_secs(5)));
        let mut streams: Vec<_> = (0..3).map(|_| loader.stream(&place.path).expect("opens")).collect();
        for _ in 0..32 {
            for stream in &mut streams {
                stream.next().expect("more").expect("streams");
                // Time to read ahead.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(streams.iter_mut().all(|stream| stream.next().is_none() && stream.report().is_some()));
    }
}

#[test]
fn a_stream_that_failed_is_in_nobodys_way() {
    let folder = folder();
    for backend in STREAMED {
        let path = numbered(folder.path(), &[MB; 16]);
        drop_cache(folder.path());
        let pool = Pool::builder().limit(8 * MB).build();
        let other = pool.get(4 * MB).expect("fits");
        let loader = backend
            .map_or_else(Loader::new, |backend| Loader::new().backend(backend))
            .stream_options(StreamOptions::new().pool(pool.clone()));
        let mut stream = loader.stream(&path).expect("opens");
        stream.next().expect("one").expect("streams");
        fs::OpenOptions::new().write(true).open(&path).expect("opens").set_len(2 * MB as u64).expect("cuts");
        // It fails by itself, or waits for memory; no call resumes it.
        std::thread::sleep(Duration::from_millis(100));
        drop(other);
        std::thread::sleep(Duration::from_millis(100));
        let got = pool.get_timeout(MB, Duration::from_secs(5));
        assert!(got.is_ok(), "{backend:?}: {:?}", pool.stats());
    }
}

#[test]
fn others_that_hold_a_shared_pool_are_waited_for() {
    let folder = folder();
    let path = numbered(folder.path(), &[MB; 8]);
    for place in places(&path) {
        let pool = Pool::builder().limit(8 * MB).build();
        let held = pool.get(8 * MB).expect("fits");
        let loader = place
            .loader
            .clone()
            .stream_options(StreamOptions::new().pool(pool).stall_timeout(Duration::from_millis(50)));
        let stream = loader.stream(&place.path).expect("opens");
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            drop(held);
        });
        let report = stream.for_each_part(|_, _, _| {}).expect("in the end");
        assert_eq!(report.bytes, 8 * MB as u64);
        holder.join().expect("no panic");
    }
}

#[test]
fn buffers_are_of_the_size_that_was_asked_for() {
    let folder = folder();
    let path = numbered(folder.path(), &[MB; 16]);
    for place in places(&path) {
        let options = StreamOptions::new().memory_limit(4 * MB as u64).buffer_bytes(MB as u64);
        let loader = place.loader.clone().stream_options(options.clone());
        let mut max = 0;
        loader
            .stream(&place.path)
            .expect("opens")
            .for_each_part(|_, _, bytes| max = max.max(bytes.len()))
            .expect("streams");
        assert!((MB / 2..=MB).contains(&max), "{max}");
        for wrong in [1000, 5 * MB as u64] {
            let error = place
                .loader
                .clone()
                .stream_options(options.clone().buffer_bytes(wrong))
                .stream(&place.path)
                .expect_err("refused");
            assert!(
                matches!(error, Error::StreamBuffer { .. }) && error.kind() == ErrorKind::InvalidRequest,
                "{error}"
            );
        }
        let small = Pool::builder().limit(1000).build();
        let error = place
            .loader
            .clone()
            .stream_options(StreamOptions::new().pool(small))
            .stream(&place.path)
            .expect_err("refused");
        assert!(matches!(error, Error::StreamLimit { .. }), "{error}");
    }
}

#[test]
fn a_panicking_provider_is_told_from_a_defect() {
    #[derive(Debug)]
    struct Panics;
    impl MemoryProvider for Panics {
        fn allocate(&self, _: usize) -> io::Result<MemoryBlock> {
            panic!("out of pinned memory")
        }
    }
    let folder = folder();
    let path = numbered(folder.path(), &[MB; 2]);
    for place in places(&path) {
        let pool = Pool::builder().limit(8 * MB).memory(Panics).build();
        let error = place
            .loader
            .clone()
            .stream_options(StreamOptions::new().pool(pool.clone()))
            .stream(&place.path)
            .expect("opens")
            .next()
            .expect("an error");
        let error = error.expect_err("no memory").to_string();
        assert!(error.contains("out of pinned memory"), "{error}");
        assert_eq!(pool.stats().lent, 0, "nothing stays reserved");
    }
}
