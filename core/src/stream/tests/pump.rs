//! A pump between a stream and a sink that do as a test says.

use super::plan;
use crate::stream::{FilledBuffer, FilledBufferStream, PumpError, Sink, SinkPump};
use crate::units::ExtentId;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use proptest::prelude::*;

type Why = &'static str;
type Pumped = Poll<Result<(), PumpError<Why, Why>>>;

/// A stream of buffers that are numbered from 0.
#[derive(Default)]
struct Source {
    next: u32,
    /// How many are whole.
    whole: u32,
    /// What comes after those, once it is known.
    end: Option<Result<(), Why>>,
    ended: bool,
    waker: Option<Waker>,
}

impl Source {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl FilledBufferStream<u32> for Source {
    type Error = Why;

    fn poll_filled(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<FilledBuffer<u32>, Why>>> {
        assert!(!self.ended, "nothing is asked for after the end");
        if self.next < self.whole {
            self.next += 1;
            let (catalog, plan) = plan(&[100]);
            return Poll::Ready(Some(Ok(FilledBuffer::new(catalog, plan, ExtentId(0), self.next - 1))));
        }
        let Some(end) = self.end else {
            self.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        self.ended = true;
        Poll::Ready(end.err().map(Err))
    }
}

/// A sink that checks that it is driven as its trait says.
struct Device {
    depth: usize,
    /// Those that it works on.
    busy: VecDeque<u32>,
    /// Those that it is done with.
    done: VecDeque<Result<u32, Why>>,
    taken: u32,
    /// Whether there is room apart from its depth, as a socket's.
    open: bool,
    /// How it answers to being asked for room, to a buffer and to the flush.
    refuses: Option<Why>,
    rejects: Option<Why>,
    flush: Option<Result<(), Why>>,
    /// It was ready, and nothing was started since.
    ready: bool,
    /// It failed: only `poll_completed` follows.
    failed: bool,
    flushed: bool,
    waker: Option<Waker>,
    calls: usize,
}

fn device(depth: usize) -> Device {
    Device {
        depth,
        busy: VecDeque::new(),
        done: VecDeque::new(),
        taken: 0,
        open: true,
        refuses: None,
        rejects: None,
        flush: Some(Ok(())),
        ready: false,
        failed: false,
        flushed: false,
        waker: None,
        calls: 0,
    }
}

impl Device {
    fn pending<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn fail<T>(&mut self, why: Why) -> Result<T, Why> {
        self.failed = true;
        Err(why)
    }

    /// Is done with the buffer that it has had for longest.
    fn complete(&mut self, end: Result<(), Why>) {
        let buffer = self.busy.pop_front().expect("it has one");
        self.done.push_back(end.map(|()| buffer));
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Sink<u32> for Device {
    type Error = Why;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Why>> {
        self.calls += 1;
        assert!(!self.failed && !self.flushed, "it is asked for room after its end");
        assert!(self.done.is_empty(), "it is asked for room before its buffers are taken back");
        if let Some(why) = self.refuses {
            return Poll::Ready(self.fail(why));
        }
        self.ready = self.open && self.busy.len() < self.depth;
        if self.ready { Poll::Ready(Ok(())) } else { self.pending(context) }
    }

    fn start(&mut self, buffer: FilledBuffer<u32>) -> Result<(), Why> {
        self.calls += 1;
        assert!(core::mem::take(&mut self.ready), "it is given a buffer without being ready");
        if let Some(why) = self.rejects {
            return self.fail(why);
        }
        assert_eq!(*buffer.buffer(), self.taken, "in the order of the stream");
        self.taken += 1;
        self.busy.push_back(buffer.into_buffer());
        Ok(())
    }

    fn poll_completed(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<u32, Why>>> {
        self.calls += 1;
        match self.done.pop_front() {
            None if self.busy.is_empty() => Poll::Ready(None),
            None => self.pending(context),
            Some(Err(why)) => Poll::Ready(Some(self.fail(why))),
            done => Poll::Ready(done),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Why>> {
        self.calls += 1;
        assert!(!self.failed && !self.flushed, "it is flushed after its end");
        match self.flush {
            Some(Ok(())) if self.busy.is_empty() => {
                self.flushed = true;
                Poll::Ready(Ok(()))
            }
            Some(Err(why)) => Poll::Ready(self.fail(why)),
            _ => self.pending(context),
        }
    }
}

/// A stream of so many whole buffers, a sink with so many places, and the pump between them.
struct Rig {
    source: Source,
    sink: Device,
    pump: SinkPump<Why, Why>,
}

fn rig(buffers: u32, end: Option<Result<(), Why>>, depth: usize) -> Rig {
    let source = Source { whole: buffers, end, ..Source::default() };
    Rig { source, sink: device(depth), pump: SinkPump::new() }
}

impl Rig {
    fn poll(&mut self) -> Pumped {
        self.poll_with(Waker::noop())
    }

    fn poll_with(&mut self, waker: &Waker) -> Pumped {
        self.pump.poll(&mut self.source, &mut self.sink, &mut Context::from_waker(waker))
    }

    fn complete_all(&mut self) {
        while !self.sink.busy.is_empty() {
            self.sink.complete(Ok(()));
        }
    }
}

#[test]
fn a_sink_has_as_many_buffers_as_it_is_ready_for() {
    for (depth, expected) in [(1, 1), (2, 2), (9, 3)] {
        let mut rig = rig(3, Some(Ok(())), depth);
        for next in 0..3 {
            assert!(rig.poll().is_pending());
            assert_eq!(rig.sink.busy, (next..3).take(expected).collect::<Vec<u32>>());
            rig.sink.complete(Ok(()));
        }
        assert_eq!(rig.poll(), Poll::Ready(Ok(())));
        assert!(rig.sink.flushed);
    }
}

#[test]
fn a_stream_without_a_buffer_is_flushed_too() {
    let mut rig = rig(0, Some(Ok(())), 1);
    assert_eq!(rig.poll(), Poll::Ready(Ok(())));
    assert!(rig.sink.flushed);
}

#[test]
fn the_stream_is_asked_only_when_the_sink_is_ready() {
    let mut rig = rig(1, None, 1);
    rig.sink.open = false;
    assert!(rig.poll().is_pending());
    assert_eq!(rig.source.next, 0, "its buffer stays with the stream");
    rig.sink.open = true;
    assert!(rig.poll().is_pending());
    assert_eq!(rig.sink.busy, [0]);
}

#[test]
fn buffers_come_back_while_the_stream_or_the_flush_is_waited_for() {
    let mut rig = rig(2, None, 2);
    assert!(rig.poll().is_pending());
    rig.sink.complete(Ok(()));
    assert!(rig.poll().is_pending());
    assert!(rig.sink.done.is_empty(), "while the stream is waited for");
    rig.source.end = Some(Ok(()));
    rig.sink.flush = None;
    assert!(rig.poll().is_pending());
    rig.sink.complete(Ok(()));
    assert!(rig.poll().is_pending());
    assert!(rig.sink.done.is_empty(), "while the flush is waited for");
    rig.sink.flush = Some(Ok(()));
    assert_eq!(rig.poll(), Poll::Ready(Ok(())));
}

type Failure = (fn(&mut Rig), PumpError<Why, Why>);

/// Each call that can fail: how, and the failure.
const FAILURES: [Failure; 5] = [
    (|rig| rig.source.end = Some(Err("read")), PumpError::Stream("read")),
    (|rig| rig.sink.refuses = Some("poll_ready"), PumpError::Sink("poll_ready")),
    (
        |rig| {
            rig.source.whole += 1;
            rig.sink.rejects = Some("start");
        },
        PumpError::Sink("start"),
    ),
    (|rig| rig.sink.complete(Err("poll_completed")), PumpError::Sink("poll_completed")),
    (
        |rig| {
            rig.source.end = Some(Ok(()));
            rig.sink.flush = Some(Err("poll_flush"));
        },
        PumpError::Sink("poll_flush"),
    ),
];

#[test]
fn the_first_failure_is_returned_once_every_buffer_is_back() {
    for (cause, failure) in FAILURES {
        let mut rig = rig(3, None, 9);
        assert!(rig.poll().is_pending(), "the sink has three buffers");
        cause(&mut rig);
        assert!(rig.poll().is_pending(), "{failure}: not all are back");
        let (taken, busy) = (rig.sink.taken, rig.sink.busy.len());
        assert!(taken == 3 && busy >= 2);
        rig.source.whole += 1;
        rig.sink.complete(Err("too late"));
        assert!(rig.poll().is_pending(), "{failure}: not all are back");
        rig.complete_all();
        assert_eq!(rig.poll(), Poll::Ready(Err(failure)));
        assert_eq!((rig.sink.taken, rig.sink.done.len(), rig.sink.flushed), (taken, 0, false));
    }
}

#[test]
fn a_failure_with_nothing_in_hand_is_returned_at_once() {
    for (cause, failure) in FAILURES.into_iter().filter(|(_, failure)| *failure != PumpError::Sink("poll_completed")) {
        let mut rig = rig(0, None, 9);
        cause(&mut rig);
        assert_eq!(rig.poll(), Poll::Ready(Err(failure)));
    }
}

/// A sink that has lost its device: its buffers are gone, or it says so each time.
struct Lost {
    says_so_again: bool,
    calls: usize,
}

impl Sink<u32> for Lost {
    type Error = Why;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Why>> {
        Poll::Ready(Ok(()))
    }

    fn start(&mut self, _: FilledBuffer<u32>) -> Result<(), Why> {
        Ok(())
    }

    fn poll_completed(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<u32, Why>>> {
        self.calls += 1;
        match self.calls {
            ..5 => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            5 => Poll::Ready(Some(Err("lost"))),
            _ if self.says_so_again => Poll::Ready(Some(Err("still lost"))),
            _ => Poll::Ready(None),
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Why>> {
        Poll::Pending
    }
}

#[test]
fn a_sink_that_has_lost_its_buffers_ends_the_pump() {
    for says_so_again in [false, true] {
        let mut sink = Lost { says_so_again, calls: 0 };
        let mut source = Source { whole: 3, end: Some(Ok(())), ..Source::default() };
        let mut pump = SinkPump::new();
        let mut poll = || pump.poll(&mut source, &mut sink, &mut Context::from_waker(Waker::noop()));
        let ended = (0..9).map(|_| poll()).find(Poll::is_ready);
        assert_eq!(ended, Some(Poll::Ready(Err(PumpError::Sink("lost")))));
    }
}

#[test]
fn a_failure_says_whose_it_is() {
    let of_the_stream: PumpError<Why, Why> = PumpError::Stream("no such file");
    let of_the_sink: PumpError<Why, Why> = PumpError::Sink("no device");
    assert_eq!(of_the_stream.to_string(), "no such file");
    assert_eq!(of_the_sink.to_string(), "the sink failed: no device");
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What happens while the pump sleeps.
#[derive(Debug, Clone, Copy)]
enum Event {
    Whole,
    StreamEnds(Result<(), Why>),
    Completed(Result<(), Why>),
    Opens(bool),
    Flushed(Result<(), Why>),
}

/// Mostly without a failure.
fn end(why: Why) -> impl Strategy<Value = Result<(), Why>> {
    prop_oneof![9 => Just(Ok(())), 1 => Just(Err(why))]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => Just(Event::Whole),
        1 => end("read").prop_map(Event::StreamEnds),
        6 => end("upload").prop_map(Event::Completed),
        3 => any::<bool>().prop_map(Event::Opens),
        1 => end("flush").prop_map(Event::Flushed),
    ];
    prop::collection::vec(event, 0..60)
}

/// Lets an event happen; who waits for it is woken.
fn happen(rig: &mut Rig, event: Event) {
    match event {
        Event::Whole if rig.source.end.is_none() => rig.source.whole += 1,
        Event::StreamEnds(end) if rig.source.end.is_none() => rig.source.end = Some(end),
        Event::Completed(end) if !rig.sink.busy.is_empty() => rig.sink.complete(end),
        Event::Opens(open) => rig.sink.open = open,
        Event::Flushed(end) if rig.sink.flush.is_none() => rig.sink.flush = Some(end),
        _ => return,
    }
    match event {
        Event::Whole | Event::StreamEnds(_) => rig.source.wake(),
        _ => rig.sink.wake(),
    }
}

proptest! {
    #[test]
    fn a_pump_that_sleeps_until_it_is_woken_comes_to_its_end(
        events in events(),
        depth in 1_usize..4,
        every in 1_usize..4,
    ) {
        let mut rig = rig(0, None, depth);
        rig.sink.flush = None;
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        // Whatever has not happened by then happens in the end.
        let last = [Event::Opens(true), Event::StreamEnds(Ok(())), Event::Flushed(Ok(()))];
        let mut events = events.into_iter().chain(last);
        let mut turn = 0;
        let ended = loop {
            turn += 1;
            let completes = (!rig.sink.busy.is_empty()).then_some(Event::Completed(Ok(())));
            let event = events.next().or(completes);
            if let Some(event) = event {
                happen(&mut rig, event);
            }
            let is_woken = woken.0.load(Ordering::Relaxed);
            prop_assert!(is_woken || event.is_some(), "a wake-up got lost");
            if !is_woken || (turn % every > 0 && event.is_some()) {
                continue;
            }
            woken.0.store(false, Ordering::Relaxed);
            let (calls, taken, done) = (rig.sink.calls, rig.sink.taken, rig.sink.done.len());
            let pumped = rig.poll_with(&waker);
            let max = done + 3 * (rig.sink.taken - taken) as usize + 6;
            prop_assert!(rig.sink.calls - calls <= max, "{} calls, {max} at most", rig.sink.calls - calls);
            if let Poll::Ready(ended) = pumped {
                break ended;
            }
        };
        prop_assert!(rig.sink.busy.is_empty() && rig.sink.done.is_empty(), "every buffer is back");
        match ended {
            Ok(()) => prop_assert!(rig.sink.flushed && rig.sink.taken == rig.source.whole),
            Err(PumpError::Stream(why)) => prop_assert_eq!(Some(Err(why)), rig.source.end),
            Err(PumpError::Sink(_)) => prop_assert!(rig.sink.failed),
        }
    }
}
