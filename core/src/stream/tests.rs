//! Streams whose memory is only a number: which buffer is whole when, what it holds, and what a sink has.

use super::*;
use crate::format::{SAFETENSORS, safetensors::Header};
use crate::plan::{Access, Buffers, Order, Plan, PlanOptions, Planner};
use crate::units::{ChunkId, ExtentId};
use crate::{Catalog, CatalogBuilder, Selection};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};
use proptest::prelude::*;

const KIB: usize = 1 << 10;

/// A file of tensors of so many bytes, streamed whole in reads and shared buffers of 64 KiB.
fn plan(sizes: &[usize]) -> (Arc<Catalog>, Arc<Plan>) {
    let mut at = 0;
    let entry = |(i, bytes): (usize, &usize)| {
        at += bytes;
        format!(r#""t{i}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[{},{at}]}}"#, at - bytes)
    };
    let json = format!("{{{}}}", sizes.iter().enumerate().map(entry).collect::<Vec<String>>().join(","));
    let len = (8 + json.len() + at) as u64;
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    Header::parse(json.as_bytes(), len).expect("valid").add_to(&mut builder, "model", len).expect("adds");
    let catalog = builder.finish().expect("unique names");
    let access = Access::Stream(Buffers { gather: 64 << 10, limit: 1 << 20, split: false, order: Order::File });
    let options = PlanOptions { access, chunk_bytes: 64 << 10, ..PlanOptions::default() };
    let selected = Selection::All.resolve(&catalog).expect("all");
    let plan = Planner::new(options).plan(&catalog, &selected).expect("plans");
    (Arc::new(catalog), Arc::new(plan))
}

proptest! {
    #[test]
    fn a_buffer_comes_back_with_its_last_chunk(
        sizes in prop::collection::vec(0..300 * KIB, 1..8),
        order in prop::collection::vec(any::<u64>(), 40),
    ) {
        let (_, plan) = plan(&sizes);
        let mut stages = Stages::new(Arc::clone(&plan));
        let mut missing: BTreeMap<ExtentId, usize> = BTreeMap::new();
        while let Some(extent) = stages.next() {
            prop_assert_eq!(extent.index(), missing.len(), "in the order of the plan");
            prop_assert!(stages.find(ChunkId(stages.chunks(extent).start)).is_none(), "it has no memory yet");
            stages.open(extent.0);
            missing.insert(extent, stages.chunks(extent).len());
        }
        prop_assert_eq!(missing.len(), plan.extents().len());
        prop_assert!(stages.chunks(ExtentId(missing.len() as u32)).is_empty(), "no such extent");

        let mut chunks: Vec<usize> = (0..plan.chunks().len()).collect();
        chunks.sort_by_key(|index| order[index % order.len()]);
        for index in chunks {
            let (chunk, extent) = (ChunkId(index as u32), plan.chunks()[index].extent);
            let nth = plan.chunks()[..index].iter().filter(|before| before.extent == extent).count();
            prop_assert_eq!(stages.find(chunk), Some((&extent.0, nth)));
            prop_assert_eq!(stages.find_mut(chunk).copied(), Some(extent.0));
            let left = missing.get_mut(&extent).expect("an extent of the plan");
            *left -= 1;
            prop_assert_eq!(stages.land(chunk), (*left == 0).then_some((extent, extent.0)));
        }
        prop_assert!(missing.values().all(|&left| left == 0));
    }
}

#[test]
fn a_whole_buffer_knows_what_it_holds() {
    let (catalog, plan) = plan(&[100, 100 * KIB, 50, 0, 7]);
    let staged = |extent, buffer| Staged::new(Arc::clone(&catalog), Arc::clone(&plan), ExtentId(extent), buffer);
    let names = |extent| staged(extent, 0).parts().map(|part| part.tensor.name.to_string()).collect::<Vec<String>>();
    assert_eq!([names(0), names(1), names(2)], [vec!["t0"], vec!["t1"], vec!["t2", "t3", "t4"]]);
    let last = staged(2, 7);
    assert_eq!(last.placed_parts().map(|part| part.placement).collect::<Vec<usize>>(), [2, 3, 4]);
    let bytes: Vec<_> = last.parts().map(|part| (part.offset, part.bytes)).collect();
    assert_eq!(bytes, [(0, 0..50), (0, 0..0), (0, 50..57)]);
    assert_eq!(format!("{last:?}"), "Staged { extent: ExtentId(2), .. }", "and not what is in its memory");
    assert!(Arc::ptr_eq(last.catalog(), &catalog) && Arc::ptr_eq(last.plan(), &plan));
    assert_eq!((last.extent(), *last.buffer(), last.into_buffer()), (ExtentId(2), 7, 7));
}

type Given = Option<Result<Staged<u32>, &'static str>>;

/// Gives what it is told to, and is not asked for more.
struct Script(vec::IntoIter<Poll<Given>>);

impl StagedSource<u32> for Script {
    type Error = &'static str;

    fn poll_staged(&mut self, _: &mut Context<'_>) -> Poll<Given> {
        self.0.next().expect("nothing is asked for after the end")
    }
}

/// So many buffers, numbered from 0, and then `end`.
fn script(buffers: u32, end: Poll<Option<&'static str>>) -> Script {
    let (catalog, plan) = plan(&[100]);
    let staged = |buffer| Staged::new(Arc::clone(&catalog), Arc::clone(&plan), ExtentId(0), buffer);
    let buffers = (0..buffers).map(|buffer| Poll::Ready(Some(Ok(staged(buffer)))));
    Script(buffers.chain([end.map(|end| end.map(Err))]).collect::<Vec<_>>().into_iter())
}

/// Holds buffers until it is told how each ends.
struct Upload {
    depth: usize,
    held: Vec<u32>,
    ends: BTreeMap<u32, Result<(), &'static str>>,
    refuses: Option<u32>,
}

fn upload(depth: usize) -> Upload {
    Upload { depth, held: Vec::new(), ends: BTreeMap::new(), refuses: None }
}

impl Sink<u32> for Upload {
    type Error = &'static str;

    fn depth(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, chunk: Staged<u32>) -> Result<Ticket, &'static str> {
        let buffer = chunk.into_buffer();
        if self.refuses == Some(buffer) {
            return Err("refused");
        }
        self.held.push(buffer);
        Ok(Ticket(u64::from(buffer)))
    }

    fn poll(&mut self, ticket: Ticket, _: &mut Context<'_>) -> Poll<Result<u32, &'static str>> {
        let at =
            self.held.iter().position(|&buffer| u64::from(buffer) == ticket.0).expect("it is polled until it ends");
        match self.ends.remove(&self.held[at]) {
            None => Poll::Pending,
            Some(end) => {
                let buffer = self.held.remove(at);
                Poll::Ready(end.map(|()| buffer))
            }
        }
    }
}

type Poured = Poll<Result<(), PourError<&'static str, &'static str>>>;

fn poll(pour: &mut Pour<&'static str, &'static str>, source: &mut Script, sink: &mut Upload) -> Poured {
    pour.poll(source, sink, &mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_sink_has_as_many_buffers_as_it_takes() {
    for (depth, expected) in [(0, 1), (1, 1), (2, 2), (9, 3)] {
        let (mut pour, mut source, mut sink) = (Pour::new(), script(3, Poll::Ready(None)), upload(depth));
        for next in 0..3 {
            assert!(poll(&mut pour, &mut source, &mut sink).is_pending());
            assert_eq!(sink.held, (next..3).take(expected).collect::<Vec<u32>>());
            sink.ends.insert(next, Ok(()));
        }
        assert_eq!(poll(&mut pour, &mut source, &mut sink), Poll::Ready(Ok(())));
    }
}

#[test]
fn what_is_not_whole_yet_is_waited_for() {
    let (mut pour, mut source, mut sink) = (Pour::new(), script(0, Poll::Pending), upload(1));
    assert!(poll(&mut pour, &mut source, &mut sink).is_pending());
    let mut source = script(1, Poll::Ready(None));
    assert!(poll(&mut pour, &mut source, &mut sink).is_pending());
    sink.ends.insert(0, Ok(()));
    assert_eq!(poll(&mut pour, &mut source, &mut sink), Poll::Ready(Ok(())));
}

#[test]
fn the_first_failure_is_told_once_every_buffer_is_back() {
    let (mut pour, mut source, mut sink) = (Pour::new(), script(2, Poll::Ready(Some("read"))), upload(9));
    assert!(poll(&mut pour, &mut source, &mut sink).is_pending(), "the sink has two buffers");
    sink.ends.insert(1, Err("upload"));
    assert!(poll(&mut pour, &mut source, &mut sink).is_pending(), "the sink has one buffer");
    sink.ends.insert(0, Ok(()));
    assert_eq!(poll(&mut pour, &mut source, &mut sink), Poll::Ready(Err(PourError::Stream("read"))));
}

#[test]
fn a_sink_that_fails_is_given_no_more() {
    // With a buffer that it had.
    let (mut pour, mut source, mut sink) = (Pour::new(), script(9, Poll::Ready(None)), upload(2));
    assert!(poll(&mut pour, &mut source, &mut sink).is_pending());
    sink.ends.insert(0, Err("upload"));
    assert!(poll(&mut pour, &mut source, &mut sink).is_pending());
    assert_eq!(sink.held, [1]);
    sink.ends.insert(1, Err("too late"));
    assert_eq!(poll(&mut pour, &mut source, &mut sink), Poll::Ready(Err(PourError::Sink("upload"))));
    // Or already when it is given one.
    let (mut pour, mut source) = (Pour::new(), script(9, Poll::Ready(None)));
    let mut sink = Upload { refuses: Some(0), ..upload(2) };
    assert_eq!(poll(&mut pour, &mut source, &mut sink), Poll::Ready(Err(PourError::Sink("refused"))));
}

#[test]
fn a_failure_says_whose_it_is() {
    let of_the_stream: PourError<&str, &str> = PourError::Stream("no such file");
    let of_the_sink: PourError<&str, &str> = PourError::Sink("no device");
    assert_eq!(of_the_stream.to_string(), "no such file");
    assert_eq!(of_the_sink.to_string(), "the sink failed: no device");
}
