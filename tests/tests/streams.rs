//! Streams: what they deliver, in which order, within which memory, and how they end.

use floodtide_core::Error as CoreError;
use floodtide_linux::pool::{HeapMemory, Memory, MemoryProvider, Pool, PoolBuffer};
use floodtide_linux::sink::{PourError, Sink, Staged, Ticket, WriterSink};
use floodtide_linux::{Alignment, Backend, Error, Loader, Order, Selection, Tensor};
use floodtide_tests::checkpoint::{folder, raw};
use floodtide_tests::layout::{drop_cache, layouts, reference, write};
use futures_util::StreamExt;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

const BACKENDS: [Option<Backend>; 4] = [None, Some(Backend::Uring), Some(Backend::Pread), Some(Backend::Tokio)];
const ORDERS: [Order; 3] = [Order::Arrival, Order::File, Order::Listed];
const MB: usize = 1 << 20;

/// A file of U8 tensors of these sizes, named t0, t1 and so on, each filled with its number.
fn file(folder: &Path, sizes: &[usize]) -> PathBuf {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (i, &bytes) in sizes.iter().enumerate() {
        let begin = data.len();
        data.resize(begin + bytes, i as u8);
        entries.push(format!(r#""t{i}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[{begin},{}]}}"#, data.len()));
    }
    let path = folder.join("model.safetensors");
    fs::write(&path, raw(&format!("{{{}}}", entries.join(",")), &data)).expect("writes");
    fs::File::open(&path).expect("opens").sync_all().expect("syncs");
    path
}

/// Memory that is counted, and may not be more than `most`.
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

struct Live(Memory, Arc<AtomicUsize>);

impl Drop for Live {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.capacity(), Ordering::SeqCst);
    }
}

impl MemoryProvider for Counted {
    fn allocate(&self, bytes: usize) -> io::Result<Memory> {
        let mut memory = HeapMemory::new().allocate(bytes)?;
        let live = self.live.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.peak.fetch_max(live, Ordering::SeqCst);
        let start = std::ptr::NonNull::new(memory.as_mut_ptr()).expect("not null");
        // SAFETY: the memory belongs to its owner, which this one keeps, and is zeroed.
        Ok(unsafe { Memory::from_raw(start, bytes, Live(memory, Arc::clone(&self.live))) })
    }
}

/// Waits until it holds; fails if that takes too long.
fn soon(holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < end, "buffers are left");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn assert_tensor(tensor: &Tensor, expected: &BTreeMap<String, Vec<u8>>, alignment: u64) {
    let bytes = &expected[tensor.name()];
    assert!(tensor.bytes() == bytes, "{} differs", tensor.name());
    if !bytes.is_empty() {
        let wanted = alignment.max(tensor.dtype().alignment());
        assert_eq!(tensor.bytes().as_ptr() as u64 % wanted, 0, "{} is not aligned", tensor.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn they_deliver_what_the_reference_reads(
        layout in layouts(),
        alignment in prop::sample::select(vec![1_u64, 64, 4096, 1 << 16]),
        limit in prop::sample::select(vec![1_u64 << 20, 3 << 20, 16 << 20]),
        threads in 1_usize..4,
    ) {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        write(folder.path(), &layout);
        let expected = reference(folder.path());
        let loader = Loader::new()
            .tensor_alignment(Alignment::new(alignment).expect("a power of two"))
            .threads(std::num::NonZeroUsize::new(threads).expect("positive"));
        for (backend, order) in BACKENDS.into_iter().zip(ORDERS.into_iter().cycle()) {
            drop_cache(folder.path());
            let loader = backend.map_or(loader.clone(), |backend| loader.clone().backend(backend)).order(order);
            // Whole, where no tensor is larger than the limit.
            let mut seen = 0;
            let mut stream = loader.clone().memory_limit(16 << 20).stream(folder.path()).expect("opens");
            for tensor in &mut stream {
                assert_tensor(&tensor.expect("streams"), &expected, alignment);
                seen += 1;
            }
            prop_assert_eq!(seen, expected.len());
            prop_assert_eq!(stream.report().expect("has ended").tensors, seen);
            // In parts, under any limit.
            let mut parts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            let report = loader.clone().memory_limit(limit).stream(folder.path()).expect("opens")
                .for_each_chunk(|tensor, offset, bytes| {
                    let whole = parts.entry(tensor.name.to_owned()).or_default();
                    if order != Order::Arrival {
                        assert_eq!(whole.len() as u64, offset, "parts ascend");
                    }
                    whole.resize(whole.len().max(offset as usize + bytes.len()), 0);
                    whole[offset as usize..][..bytes.len()].copy_from_slice(bytes);
                    assert_eq!(bytes.len() as u64 % tensor.dtype.block_bytes(), 0, "whole elements");
                })
                .expect("streams");
            prop_assert!(parts == expected);
            prop_assert_eq!(report.bytes, expected.values().map(|bytes| bytes.len() as u64).sum::<u64>());
            prop_assert_eq!(report.memory_limit, Some(limit));
        }
    }
}

#[test]
fn the_orders_are_kept() {
    let folder = folder();
    file(folder.path(), &[100_000, 2 * MB, 0, 3 * MB, 70_000, 1]);
    let names = |loader: Loader| -> Vec<String> {
        let stream = loader.memory_limit(4 * MB as u64).stream(folder.path()).expect("opens");
        stream.map(|tensor| tensor.expect("streams").name().to_owned()).collect()
    };
    assert_eq!(names(Loader::new().order(Order::File)), ["t0", "t1", "t2", "t3", "t4", "t5"]);
    let listed = ["t5", "t3", "t0", "t2"];
    let loader = Loader::new().selection(Selection::names(listed)).order(Order::Listed);
    assert_eq!(names(loader.clone()), listed);
    assert_eq!(names(loader.order(Order::File)), ["t0", "t2", "t3", "t5"]);
}

#[test]
fn what_is_lent_and_in_flight_never_passes_the_limit() {
    let folder = folder();
    let path = file(folder.path(), &[3 * MB; 20]);
    for backend in BACKENDS {
        for limit in [4 * MB, 9 * MB, 16 * MB] {
            let memory = Counted::new();
            let pool = Pool::builder().limit(limit).memory(memory.clone()).build();
            let loader = backend.map_or_else(Loader::new, |backend| Loader::new().backend(backend));
            let loader = loader.stream_pool(pool.clone());
            drop_cache(folder.path());
            let mut held = Vec::new();
            for tensor in loader.stream(&path).expect("opens") {
                // Two are held at a time where there is room for more, so that what is held counts too.
                held.push(tensor.expect("streams"));
                if held.len() > usize::from(limit > 8 * MB) {
                    held.remove(0);
                }
            }
            drop(held);
            loader.stream(&path).expect("opens").for_each_chunk(|_, _, _| {}).expect("streams");
            let peak = memory.peak.load(Ordering::SeqCst);
            assert!(peak <= limit && peak > limit / 2, "{backend:?}: {peak} of {limit}");
            assert_eq!(pool.stats().lent, 0);
            drop((loader, pool));
            // The workers hold the pool to their very end.
            soon(|| memory.live.load(Ordering::SeqCst) == 0);
        }
    }
}

#[test]
fn a_slow_consumer_throttles_the_reads() {
    let folder = folder();
    let path = file(folder.path(), &[MB; 64]);
    let mut stream = Loader::new().memory_limit(8 * MB as u64).stream(&path).expect("opens");
    let first = stream.next().expect("one").expect("streams");
    std::thread::sleep(Duration::from_millis(200));
    let read = stream.progress().bytes_done;
    assert!(read > 4 * MB as u64 && read <= 8 * MB as u64, "{read} bytes were read while one tensor was held");
    drop(first);
    assert_eq!(stream.by_ref().map(|tensor| tensor.expect("streams").bytes().len()).sum::<usize>(), 63 * MB);
}

#[test]
fn a_consumer_that_holds_everything_is_told_and_can_go_on() {
    let folder = folder();
    let path = file(folder.path(), &[MB; 32]);
    let loader = Loader::new().memory_limit(8 * MB as u64).stall_timeout(Duration::from_millis(200));
    let mut stream = loader.stream(&path).expect("opens");
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

#[test]
fn a_consumer_that_stops_leaves_nothing_behind() {
    let folder = folder();
    let path = file(folder.path(), &[MB; 64]);
    for backend in BACKENDS {
        let memory = Counted::new();
        let pool = Pool::builder().limit(16 * MB).memory(memory.clone()).build();
        let loader =
            backend.map_or_else(Loader::new, |backend| Loader::new().backend(backend)).stream_pool(pool.clone());
        for taken in [0, 1, 5] {
            drop_cache(folder.path());
            let mut stream = loader.stream(&path).expect("opens");
            let tensors: Vec<Tensor> = stream.by_ref().take(taken).map(|tensor| tensor.expect("streams")).collect();
            drop(stream);
            for tensor in &tensors {
                let wanted = tensor.name()[1..].parse::<u8>().expect("a number");
                assert!(tensor.bytes().iter().all(|&byte| byte == wanted), "what was taken stays");
            }
        }
        // The workers wait for what the kernel has, and end.
        soon(|| pool.stats().lent == 0);
    }
}

#[test]
fn a_tensor_larger_than_the_limit_is_named_and_comes_in_parts() {
    let folder = folder();
    let path = file(folder.path(), &[10, 5 * MB, 10]);
    let loader = Loader::new().memory_limit(2 * MB as u64);
    let mut stream = loader.stream(&path).expect("opens");
    let error = stream.next().expect("an error").expect_err("too large");
    assert!(matches!(&error, Error::Core(CoreError::BufferTooSmall { tensor, .. }) if tensor == "t1"), "{error}");
    assert!(error.to_string().contains("raise the memory limit") && error.is_bad_request(), "{error}");
    assert!(stream.next().is_none(), "that was its end");
    let mut parts = 0;
    loader
        .stream(&path)
        .expect("opens")
        .for_each_chunk(|tensor, _, _| parts += usize::from(tensor.name == "t1"))
        .expect("streams");
    assert!(parts > 10, "{parts}");
}

#[test]
fn bad_options_are_refused() {
    let folder = folder();
    let path = file(folder.path(), &[10]);
    let error = Loader::new().memory_limit(1000).stream(&path).expect_err("too little");
    assert!(matches!(error, Error::StreamLimit { limit: 1000, .. }) && error.is_bad_request(), "{error}");
    let error = Loader::new().backend(Backend::Mmap).stream(&path).expect_err("no buffers");
    assert!(error.to_string().contains("mapping"), "{error}");
    let error = Loader::new().memory_limit(u64::MAX).stream(&path).expect("opens").next();
    assert!(error.is_some_and(|tensor| tensor.is_ok()), "what is not needed need not be there");
    let pool = Pool::builder().limit(MB).memory(HeapMemory::aligned(Alignment::ONE)).build();
    let loader = Loader::new().stream_pool(pool).tensor_alignment(Alignment::PAGE);
    let error = loader.stream(&path).expect("opens").next().expect("an error").expect_err("unaligned memory");
    assert!(matches!(error, Error::TensorAlignment { bytes: 4096, most: 1 }), "{error}");
}

#[test]
fn a_pool_that_is_less_aligned_than_direct_reads_need_serves_all_the_same() {
    let folder = folder();
    let path = file(folder.path(), &[3 * MB; 4]);
    drop_cache(folder.path());
    let pool = Pool::builder().limit(8 * MB).memory(HeapMemory::aligned(Alignment::ONE)).build();
    let stream = Loader::new().stream_pool(pool).stream(&path).expect("opens");
    assert_eq!(stream.map(|tensor| tensor.expect("streams").bytes().len()).sum::<usize>(), 12 * MB);
}

#[test]
fn a_checkpoint_without_a_byte_streams_its_names() {
    let folder = folder();
    let path = file(folder.path(), &[0, 0, 0]);
    let names: Vec<String> = Loader::new()
        .stream(&path)
        .expect("opens")
        .map(|tensor| tensor.map(|tensor| (tensor.name().to_owned(), tensor.bytes().len())))
        .map(|tensor| tensor.expect("streams").0)
        .collect();
    assert_eq!(names, ["t0", "t1", "t2"]);
    let mut seen = 0;
    let count = |_: floodtide_core::TensorInfo<'_>, offset: u64, bytes: &[u8]| {
        assert!(offset == 0 && bytes.is_empty());
        seen += 1;
    };
    let report = Loader::new().stream(&path).expect("opens").for_each_chunk(count).expect("streams");
    assert_eq!((seen, report.tensors, report.bytes), (3, 3, 0));
}

#[test]
fn a_writer_gets_the_tensors_one_after_another() {
    let folder = folder();
    let path = file(folder.path(), &[MB, 0, 3 * MB + 5, 100]);
    let mut sink = WriterSink::new(Vec::new());
    let loader = Loader::new().order(Order::File).memory_limit(2 * MB as u64);
    loader.stream(&path).expect("opens").send_to(&mut sink).expect("streams");
    assert_eq!(sink.written(), 4 * MB as u64 + 105);
    let (whole, written) = (fs::read(&path).expect("reads"), sink.into_inner());
    assert!(whole.ends_with(&written), "the data section, as it is stored");
}

/// Gives every buffer back after it was asked for it a few times, from another thread; fails at one of them if it is told to.
#[derive(Default)]
struct Slow {
    fails_at: Option<u64>,
    next: u64,
    held: BTreeMap<Ticket, (u32, PoolBuffer)>,
    most: usize,
    bytes: usize,
}

impl Sink<PoolBuffer> for Slow {
    type Error = String;

    fn depth(&self) -> usize {
        3
    }

    fn submit(&mut self, chunk: Staged<PoolBuffer>) -> Result<Ticket, String> {
        self.bytes += chunk.parts().map(|part| part.bytes.len()).sum::<usize>();
        let ticket = Ticket(self.next);
        self.next += 1;
        self.held.insert(ticket, (0, chunk.into_buffer()));
        self.most = self.most.max(self.held.len());
        Ok(ticket)
    }

    fn poll(&mut self, ticket: Ticket, context: &mut Context<'_>) -> Poll<Result<PoolBuffer, String>> {
        let (asked, _) = self.held.get_mut(&ticket).expect("it is there until it is ready");
        *asked += 1;
        if *asked < 3 {
            let waker = context.waker().clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(200));
                waker.wake();
            });
            return Poll::Pending;
        }
        let (_, buffer) = self.held.remove(&ticket).expect("it is there");
        if self.fails_at == Some(ticket.0) {
            Poll::Ready(Err("the device is gone".into()))
        } else {
            Poll::Ready(Ok(buffer))
        }
    }
}

#[test]
fn a_sink_gets_everything_and_no_more_at_a_time_than_it_takes() {
    let folder = folder();
    let path = file(folder.path(), &[MB; 40]);
    let loader = Loader::new().memory_limit(8 * MB as u64);
    let mut sink = Slow::default();
    loader.stream(&path).expect("opens").send_to(&mut sink).expect("streams");
    assert_eq!((sink.bytes, sink.held.len()), (40 * MB, 0));
    assert!((2..=3).contains(&sink.most), "{}", sink.most);
    let mut sink = Slow { fails_at: Some(5), ..Slow::default() };
    let error = loader.stream(&path).expect("opens").send_to(&mut sink).expect_err("fails");
    assert!(matches!(&error, PourError::Sink(why) if why == "the device is gone"), "{error}");
    assert!(sink.held.is_empty(), "everything has come back by then");
}

#[test]
fn a_file_that_changes_or_is_cut_off_ends_the_stream_with_an_error() {
    for backend in BACKENDS {
        for cut in [true, false] {
            let folder = folder();
            let path = file(folder.path(), &[MB; 64]);
            drop_cache(folder.path());
            let loader = backend.map_or_else(Loader::new, |backend| Loader::new().backend(backend));
            let mut stream = loader.memory_limit(4 * MB as u64).stream(&path).expect("opens");
            stream.next().expect("one").expect("streams");
            let written = fs::OpenOptions::new().append(true).open(&path).expect("opens");
            let _ = if cut { written.set_len(8 * MB as u64) } else { io::Write::write_all(&mut &written, b"x") };
            let last = stream.by_ref().last().expect("more").expect_err("changed");
            let expected = matches!(&last, Error::Changed { .. } | Error::Core(CoreError::Truncated { .. }));
            assert!(expected, "{backend:?}: {last}");
            assert!(stream.next().is_none() && stream.report().is_none());
        }
    }
}

#[test]
fn an_async_stream_delivers_everything_and_can_be_dropped() {
    let folder = folder();
    let path = file(folder.path(), &[MB; 40]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let loader = Loader::new().memory_limit(8 * MB as u64);
        let mut stream = loader.stream_async(&path).await.expect("opens");
        let mut bytes = 0;
        while let Some(tensor) = stream.next().await {
            bytes += tensor.expect("streams").bytes().len();
        }
        assert_eq!(bytes, 40 * MB);
        assert_eq!(stream.report().expect("has ended").tensors, 40);
        // Holding everything: the task waits, and is not in the way of others.
        let mut stream = loader.stream_async(&path).await.expect("opens");
        let mut held = Vec::new();
        let all = async {
            while let Some(tensor) = stream.next().await {
                held.push(tensor.expect("streams"));
            }
        };
        tokio::time::timeout(Duration::from_millis(200), all).await.expect_err("it waits for itself");
        assert!(held.len() >= 4, "{}", held.len());
        let error = loader.clone().memory_limit(1 << 20).stream_async(folder.path().join("none")).await;
        assert!(error.is_err());
    });
}

#[test]
fn progress_is_reported_and_ends_at_the_total() {
    let folder = folder();
    let path = file(folder.path(), &[MB; 16]);
    let done = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&done);
    let loader = Loader::new().memory_limit(4 * MB as u64).on_progress(move |progress| {
        assert!(progress.bytes_done <= progress.bytes_total);
        seen.fetch_max(progress.bytes_done as usize, Ordering::Relaxed);
    });
    loader.stream(&path).expect("opens").for_each_chunk(|_, _, _| {}).expect("streams");
    assert_eq!(done.load(Ordering::Relaxed), 16 * MB);
}

#[test]
fn a_stream_that_was_begun_one_by_one_is_not_taken_in_parts() {
    let folder = folder();
    let path = file(folder.path(), &[1000; 20]);
    let mut stream = Loader::new().stream(&path).expect("opens");
    stream.next().expect("one").expect("streams");
    let error = stream.for_each_chunk(|_, _, _| panic!("some would be missing")).expect_err("refused");
    assert!(matches!(error, Error::StreamBegun) && error.is_bad_request(), "{error}");
    let mut stream = Loader::new().stream(&path).expect("opens");
    stream.next().expect("one").expect("streams");
    assert!(matches!(stream.send_to(&mut Slow::default()), Err(PourError::Stream(Error::StreamBegun))));
}

#[test]
fn streams_that_share_a_pool_and_take_turns_do_not_starve_one_another() {
    let folder = folder();
    let path = file(folder.path(), &[MB; 32]);
    let pool = Pool::builder().limit(8 * MB).build();
    let loader = Loader::new().stream_pool(pool).stall_timeout(Duration::from_secs(5));
    let mut streams: Vec<_> = (0..3).map(|_| loader.stream(&path).expect("opens")).collect();
    for _ in 0..32 {
        for stream in &mut streams {
            stream.next().expect("more").expect("streams");
            // Time to read ahead.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(streams.iter_mut().all(|stream| stream.next().is_none() && stream.report().is_some()));
}

#[test]
fn a_stream_that_failed_is_in_nobodys_way() {
    let folder = folder();
    for backend in BACKENDS {
        let path = file(folder.path(), &[MB; 16]);
        drop_cache(folder.path());
        let pool = Pool::builder().limit(8 * MB).build();
        let other = pool.get(4 * MB).expect("fits");
        let loader =
            backend.map_or_else(Loader::new, |backend| Loader::new().backend(backend)).stream_pool(pool.clone());
        let mut stream = loader.stream(&path).expect("opens");
        stream.next().expect("one").expect("streams");
        fs::OpenOptions::new().write(true).open(&path).expect("opens").set_len(2 * MB as u64).expect("cuts");
        // It fails by itself, or waits for memory; nobody asks it again.
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
    let path = file(folder.path(), &[MB; 8]);
    let pool = Pool::builder().limit(8 * MB).build();
    let held = pool.get(8 * MB).expect("fits");
    let loader = Loader::new().stream_pool(pool).stall_timeout(Duration::from_millis(50));
    let stream = loader.stream(&path).expect("opens");
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        drop(held);
    });
    let report = stream.for_each_chunk(|_, _, _| {}).expect("in the end");
    assert_eq!(report.bytes, 8 * MB as u64);
    holder.join().expect("no panic");
}

#[test]
fn buffers_are_of_the_size_that_was_asked_for() {
    let folder = folder();
    let path = file(folder.path(), &[MB; 16]);
    let loader = Loader::new().memory_limit(4 * MB as u64).stream_buffer(MB as u64);
    let mut most = 0;
    loader.stream(&path).expect("opens").for_each_chunk(|_, _, bytes| most = most.max(bytes.len())).expect("streams");
    assert!((MB / 2..=MB).contains(&most), "{most}");
    for wrong in [1000, 5 * MB as u64] {
        let error = loader.clone().stream_buffer(wrong).stream(&path).expect_err("refused");
        assert!(matches!(error, Error::StreamBuffer { .. }) && error.is_bad_request(), "{error}");
    }
    let small = Pool::builder().limit(1000).build();
    let error = Loader::new().stream_pool(small).stream(&path).expect_err("refused");
    assert!(matches!(error, Error::StreamLimit { .. }), "{error}");
}

#[test]
fn a_panicking_provider_is_told_from_a_defect() {
    #[derive(Debug)]
    struct Panics;
    impl MemoryProvider for Panics {
        fn allocate(&self, _: usize) -> io::Result<Memory> {
            panic!("out of pinned memory")
        }
    }
    let folder = folder();
    let path = file(folder.path(), &[MB; 2]);
    let pool = Pool::builder().limit(8 * MB).memory(Panics).build();
    let error = Loader::new().stream_pool(pool.clone()).stream(&path).expect("opens").next().expect("an error");
    let error = error.expect_err("no memory").to_string();
    assert!(error.contains("out of pinned memory"), "{error}");
    assert_eq!(pool.stats().lent, 0, "nothing stays reserved");
}

#[test]
fn packed_tensors_stream_in_parts_wherever_they_begin() {
    for pad in 0..24 {
        let folder = folder();
        let bytes = 3 * MB / 3 * 3;
        let json = format!(
            r#"{{"six":{{"dtype":"F6_E2M3","shape":[{}],"data_offsets":[0,{bytes}]}}}}{}"#,
            bytes / 3 * 4,
            " ".repeat(pad)
        );
        let data: Vec<u8> = (0..bytes).map(|i| (i * 31 + i / 255) as u8).collect();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, raw(&json, &data)).expect("writes");
        drop_cache(folder.path());
        let mut seen = vec![0; bytes];
        let loader = Loader::new().memory_limit(MB as u64);
        let stream = loader.stream(&path).expect("opens");
        let parts = stream.for_each_chunk(|_, offset, part| {
            assert_eq!((offset % 3, part.len() % 3), (0, 0), "whole elements");
            seen[offset as usize..][..part.len()].copy_from_slice(part);
        });
        parts.expect("streams");
        assert!(seen == data, "data at {}", 8 + json.len());
    }
}
