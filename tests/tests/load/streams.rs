//! Streams: their contents, order, parts, sinks and ends.

use floodtide::pool::PoolBuffer;
use floodtide::sink::{FilledBuffer, PumpError, Sink, WriterSink};
use floodtide::storage::StorageError;
use floodtide::{Alignment, Error, ErrorKind, Loader, Order, Selection, StreamOptions, Tensor};
use floodtide_core::Error as CoreError;
use floodtide_tests::by_backend::{MB, STREAMED};
use floodtide_tests::checkpoint::{folder, numbered, raw};
use floodtide_tests::layout::{drop_cache, layouts, reference, write};
use floodtide_tests::over_storages::places;
use futures_util::StreamExt;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

const ORDERS: [Order; 3] = [Order::Completion, Order::File, Order::Selection];

fn assert_tensor(tensor: &Tensor, expected: &BTreeMap<String, Vec<u8>>, alignment: u64) {
    let bytes = &expected[tensor.name()];
    assert!(tensor.as_bytes() == bytes, "{} differs", tensor.name());
    if !bytes.is_empty() {
        let required = alignment.max(tensor.dtype().alignment());
        assert_eq!(tensor.as_bytes().as_ptr() as u64 % required, 0, "{} is not aligned", tensor.name());
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
        for place in places(folder.path()) {
            let loader = place.loader.clone()
                .tensor_alignment(Alignment::new(alignment).expect("a power of two"))
                .threads(std::num::NonZeroUsize::new(threads).expect("positive"));
            for (backend, order) in place.copying().into_iter().zip(ORDERS.into_iter().cycle()) {
                drop_cache(folder.path());
                let loader = backend.map_or(loader.clone(), |backend| loader.clone().backend(backend));
                let open = |limit| {
                    let options = StreamOptions::new().order(order).memory_limit(limit);
                    loader.clone().stream_options(options).stream(&place.path)
                };
                // Whole tensors, if none is larger than the limit.
                let mut seen = 0;
                let mut stream = open(16 << 20).expect("opens");
                for tensor in &mut stream {
                    assert_tensor(&tensor.expect("streams"), &expected, alignment);
                    seen += 1;
                }
                prop_assert_eq!(seen, expected.len());
                prop_assert_eq!(stream.report().expect("has ended").tensors, seen);
                // Parts, under any limit.
                let mut parts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
                let report = open(limit).expect("opens")
                    .for_each_part(|tensor, offset, bytes| {
                        let whole = parts.entry(tensor.name.to_owned()).or_default();
                        if order != Order::Completion {
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
}

#[test]
fn the_orders_are_kept() {
    let folder = folder();
    numbered(folder.path(), &[100_000, 2 * MB, 0, 3 * MB, 70_000, 1]);
    for place in places(folder.path()) {
        let names = |loader: Loader, order: Order| -> Vec<String> {
            let options = StreamOptions::new().memory_limit(4 * MB as u64).order(order);
            let stream = loader.stream_options(options).stream(&place.path).expect("opens");
            stream.map(|tensor| tensor.expect("streams").name().to_owned()).collect()
        };
        assert_eq!(names(place.loader.clone(), Order::File), ["t0", "t1", "t2", "t3", "t4", "t5"]);
        let listed = ["t5", "t3", "t0", "t2"];
        let loader = place.loader.clone().selection(Selection::names(listed));
        assert_eq!(names(loader.clone(), Order::Selection), listed);
        assert_eq!(names(loader, Order::File), ["t0", "t2", "t3", "t5"]);
    }
}

#[test]
fn a_tensor_larger_than_the_limit_is_named_and_comes_in_parts() {
    let folder = folder();
    let path = numbered(folder.path(), &[10, 5 * MB, 10]);
    for place in places(&path) {
        let loader = place.loader.clone().stream_options(StreamOptions::new().memory_limit(2 * MB as u64));
        let mut stream = loader.stream(&place.path).expect("opens");
        let error = stream.next().expect("an error").expect_err("too large");
        assert!(matches!(&error, Error::Core(CoreError::BufferTooSmall { tensor, .. }) if tensor == "t1"), "{error}");
        assert!(error.to_string().contains("raise the limit") && error.kind() == ErrorKind::InvalidRequest, "{error}");
        assert!(stream.next().is_none(), "that was its end");
        let mut parts = 0;
        loader
            .stream(&place.path)
            .expect("opens")
            .for_each_part(|tensor, _, _| parts += usize::from(tensor.name == "t1"))
            .expect("streams");
        assert!(parts > 10, "{parts}");
    }
}

#[test]
fn a_checkpoint_without_a_byte_streams_its_names() {
    let folder = folder();
    let path = numbered(folder.path(), &[0, 0, 0]);
    for place in places(&path) {
        let names: Vec<String> = place
            .loader
            .clone()
            .stream(&place.path)
            .expect("opens")
            .map(|tensor| tensor.map(|tensor| (tensor.name().to_owned(), tensor.as_bytes().len())))
            .map(|tensor| tensor.expect("streams").0)
            .collect();
        assert_eq!(names, ["t0", "t1", "t2"]);
        let mut seen = 0;
        let count = |_: floodtide_core::TensorInfo<'_>, offset: u64, bytes: &[u8]| {
            assert!(offset == 0 && bytes.is_empty());
            seen += 1;
        };
        let report = place.loader.clone().stream(&place.path).expect("opens").for_each_part(count).expect("streams");
        assert_eq!((seen, report.tensors, report.bytes), (3, 3, 0));
    }
}

#[test]
fn a_writer_gets_the_tensors_one_after_another() {
    let folder = folder();
    let path = numbered(folder.path(), &[MB, 0, 3 * MB + 5, 100]);
    for place in places(&path) {
        let mut sink = WriterSink::new(Vec::new());
        let loader =
            place.loader.clone().stream_options(StreamOptions::new().order(Order::File).memory_limit(2 * MB as u64));
        loader.stream(&place.path).expect("opens").send_to(&mut sink).expect("streams");
        assert_eq!(sink.written(), 4 * MB as u64 + 105);
        let (whole, written) = (fs::read(&path).expect("reads"), sink.into_inner());
        assert!(whole.ends_with(&written), "the data section, as it is stored");
    }
}

/// Holds three buffers at a time and returns the last one first.
#[derive(Default)]
struct Slow {
    fails_at: Option<u64>,
    next: u64,
    /// How often each was asked for, its number, and itself.
    held: Vec<(u32, u64, PoolBuffer)>,
    max: usize,
    bytes: usize,
    flushed: bool,
}

impl Slow {
    fn wake_soon(context: &Context<'_>) {
        let waker = context.waker().clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(200));
            waker.wake();
        });
    }
}

impl Sink<PoolBuffer> for Slow {
    type Error = String;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        if self.held.len() < 3 {
            return Poll::Ready(Ok(()));
        }
        Self::wake_soon(context);
        Poll::Pending
    }

    fn start(&mut self, buffer: FilledBuffer<PoolBuffer>) -> Result<(), String> {
        self.bytes += buffer.parts().map(|part| part.buffer_range.len()).sum::<usize>();
        self.held.push((0, self.next, buffer.into_buffer()));
        self.next += 1;
        self.max = self.max.max(self.held.len());
        Ok(())
    }

    fn poll_completed(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<PoolBuffer, String>>> {
        let Some((asked, ..)) = self.held.last_mut() else { return Poll::Ready(None) };
        *asked += 1;
        if *asked < 3 {
            Self::wake_soon(context);
            return Poll::Pending;
        }
        let (_, number, buffer) = self.held.pop().expect("it is there");
        Poll::Ready(Some(if self.fails_at == Some(number) { Err("the device is gone".into()) } else { Ok(buffer) }))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        if !self.held.is_empty() {
            Self::wake_soon(context);
            return Poll::Pending;
        }
        self.flushed = true;
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_sink_gets_everything_and_no_more_at_a_time_than_it_takes() {
    let folder = folder();
    let path = numbered(folder.path(), &[MB; 40]);
    for place in places(&path) {
        let loader = place.loader.clone().stream_options(StreamOptions::new().memory_limit(8 * MB as u64));
        let mut sink = Slow::default();
        loader.stream(&place.path).expect("opens").send_to(&mut sink).expect("streams");
        assert_eq!((sink.bytes, sink.held.len(), sink.flushed), (40 * MB, 0, true));
        assert!((2..=3).contains(&sink.max), "{}", sink.max);
        let mut sink = Slow { fails_at: Some(5), ..Slow::default() };
        let error = loader.stream(&place.path).expect("opens").send_to(&mut sink).expect_err("fails");
        assert!(matches!(&error, PumpError::Sink(why) if why == "the device is gone"), "{error}");
        assert!(sink.held.is_empty() && !sink.flushed, "everything has come back by then");
    }
}

#[test]
fn a_file_that_changes_or_is_cut_off_ends_the_stream_with_an_error() {
    for backend in STREAMED {
        for cut in [true, false] {
            let folder = folder();
            let path = numbered(folder.path(), &[MB; 64]);
            drop_cache(folder.path());
            let loader = backend.map_or_else(Loader::new, |backend| Loader::new().backend(backend));
            let mut stream =
                loader.stream_options(StreamOptions::new().memory_limit(4 * MB as u64)).stream(&path).expect("opens");
            stream.next().expect("one").expect("streams");
            let written = fs::OpenOptions::new().append(true).open(&path).expect("opens");
            let _ = if cut { written.set_len(8 * MB as u64) } else { io::Write::write_all(&mut &written, b"x") };
            let last = stream.by_ref().last().expect("more").expect_err("changed");
            let expected = matches!(
                &last,
                Error::Storage(StorageError::Changed { .. }) | Error::Core(CoreError::Truncated { .. })
            );
            assert!(expected, "{backend:?}: {last}");
            assert!(stream.next().is_none() && stream.report().is_none());
        }
    }
}

#[test]
fn an_async_stream_delivers_everything_and_can_be_dropped() {
    let folder = folder();
    let path = numbered(folder.path(), &[MB; 40]);
    for place in places(&path) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let loader = place.loader.clone().stream_options(StreamOptions::new().memory_limit(8 * MB as u64));
            let mut stream = loader.stream_async(&place.path).await.expect("opens");
            let mut bytes = 0;
            while let Some(tensor) = stream.next().await {
                bytes += tensor.expect("streams").as_bytes().len();
            }
            assert_eq!(bytes, 40 * MB);
            assert_eq!(stream.report().expect("has ended").tensors, 40);
            // Holding everything: the task waits, and is not in the way of others.
            let mut stream = loader.stream_async(&place.path).await.expect("opens");
            let mut held = Vec::new();
            let all = async {
                while let Some(tensor) = stream.next().await {
                    held.push(tensor.expect("streams"));
                }
            };
            tokio::time::timeout(Duration::from_millis(200), all).await.expect_err("it waits for itself");
            assert!(held.len() >= 4, "{}", held.len());
            let error = loader
                .clone()
                .stream_options(StreamOptions::new().memory_limit(1 << 20))
                .stream_async(place.path.join("none"))
                .await;
            assert!(error.is_err());
        });
    }
}

#[test]
fn progress_is_reported_and_ends_at_the_total() {
    let folder = folder();
    let path = numbered(folder.path(), &[MB; 16]);
    for place in places(&path) {
        let done = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&done);
        let loader = place.loader.clone().stream_options(StreamOptions::new().memory_limit(4 * MB as u64)).on_progress(
            move |progress| {
                assert!(progress.bytes_done <= progress.bytes_total);
                seen.fetch_max(progress.bytes_done as usize, Ordering::Relaxed);
            },
        );
        loader.stream(&place.path).expect("opens").for_each_part(|_, _, _| {}).expect("streams");
        assert_eq!(done.load(Ordering::Relaxed), 16 * MB);
    }
}

#[test]
fn a_stream_that_was_begun_one_by_one_is_not_taken_in_parts() {
    let folder = folder();
    let path = numbered(folder.path(), &[1000; 20]);
    for place in places(&path) {
        let mut stream = place.loader.clone().stream(&place.path).expect("opens");
        stream.next().expect("one").expect("streams");
        let error = stream.for_each_part(|_, _, _| panic!("some would be missing")).expect_err("refused");
        assert!(matches!(error, Error::StreamStarted) && error.kind() == ErrorKind::InvalidRequest, "{error}");
        let mut stream = place.loader.clone().stream(&place.path).expect("opens");
        stream.next().expect("one").expect("streams");
        assert!(matches!(stream.send_to(&mut Slow::default()), Err(PumpError::Stream(Error::StreamStarted))));
    }
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
        let loader = Loader::new().stream_options(StreamOptions::new().memory_limit(MB as u64));
        let stream = loader.stream(&path).expect("opens");
        let parts = stream.for_each_part(|_, offset, part| {
            assert_eq!((offset % 3, part.len() % 3), (0, 0), "whole elements");
            seen[offset as usize..][..part.len()].copy_from_slice(part);
        });
        parts.expect("streams");
        assert!(seen == data, "data at {}", 8 + json.len());
    }
}
