//! The actors of a world beside its workers: the consumer of a stream, and other users of its pool.

use crate::case::{Consumer, Job};
use crate::draw::Draw;
use crate::faults::FaultKind;
use crate::memory::{Block, Flag, SimBuffer};
use crate::upload::DeviceSink;
use crate::world::{World, WorldStream};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use core::task::{Context, Poll, Waker};
use floodtide_core::pool::Turn;
use floodtide_core::stream::{FilledBuffer, FilledBufferStream, PumpError, SinkPump};
use floodtide_core::{EngineHandle, Error, to_usize};

/// The consumer of a stream.
pub(crate) struct ConsumerActor<'w> {
    world: &'w World,
    alignment: u64,
    kind: ConsumerKind<'w>,
    /// Whether it was woken.
    woken: Arc<Flag>,
    /// How the stream ended for it.
    pub(crate) end: Option<Result<(), Error>>,
}

/// Called with each buffer that a device gets.
type Watching<'w> = Box<dyn FnMut(&FilledBuffer<SimBuffer>) + 'w>;

enum ConsumerKind<'w> {
    Holds {
        max: usize,
        time: u64,
        stops: Option<u64>,
        draw: Draw,
        held: VecDeque<(u64, FilledBuffer<SimBuffer>)>,
        taken: u64,
    },
    Device {
        pump: SinkPump<Error, core::convert::Infallible>,
        sink: DeviceSink<SimBuffer, Watching<'w>>,
    },
}

impl<'w> ConsumerActor<'w> {
    pub(crate) fn new(world: &'w World, job: &Job, alignment: u64, draw: Draw) -> Option<Self> {
        let Job::Stream { consumer, .. } = job else { return None };
        let kind = match consumer.clone() {
            Consumer::Holds { buffers, time, stops } => {
                ConsumerKind::Holds { max: buffers, time, stops, draw, held: VecDeque::new(), taken: 0 }
            }
            Consumer::Device { link, depth } => ConsumerKind::Device {
                pump: SinkPump::new(),
                sink: DeviceSink::new(
                    world.storage.clock.clone(),
                    link,
                    depth,
                    Box::new(move |filled| world.receive(filled, alignment)),
                ),
            },
        };
        let woken = Arc::new(Flag::default());
        woken.raise();
        Some(Self { world, alignment, kind, woken, end: None })
    }

    /// Returns true if it can act now.
    pub(crate) fn can_act(&self) -> bool {
        let now = self.world.now();
        match &self.kind {
            ConsumerKind::Holds { max, held, .. } => {
                let due = held.front().is_some_and(|(until, _)| *until <= now);
                due || (self.end.is_none() && self.woken.is_up() && held.len() <= *max)
            }
            ConsumerKind::Device { sink, .. } => {
                self.end.is_none() && (self.woken.is_up() || sink.next_due().is_some_and(|due| due <= now))
            }
        }
    }

    /// Returns the time at which it can act by itself.
    pub(crate) fn next_due(&self) -> Option<u64> {
        match &self.kind {
            ConsumerKind::Holds { held, .. } => held.front().map(|(until, _)| *until),
            ConsumerKind::Device { sink, .. } => sink.next_due(),
        }
    }

    /// Returns true if it has nothing left to do.
    pub(crate) fn is_done(&self) -> bool {
        let holds = matches!(&self.kind, ConsumerKind::Holds { held, .. } if !held.is_empty());
        self.end.is_some() && !holds
    }

    pub(crate) fn act(&mut self) {
        let Self { world, alignment, kind, woken, end } = self;
        let waker = Waker::from(Arc::clone(woken));
        let context = &mut Context::from_waker(&waker);
        match kind {
            ConsumerKind::Holds { max, time, stops, draw, held, taken } => {
                if held.front().is_some_and(|(until, _)| *until <= world.now()) {
                    held.pop_front();
                    return;
                }
                if end.is_some() {
                    return;
                }
                if stops.is_some_and(|stops| *taken >= stops) {
                    world.note("consumer stops", &[*taken]);
                    world.with(|engine| engine.fail(Error::Cancelled));
                    world.close();
                    *end = Some(Err(Error::Cancelled));
                    return;
                }
                // It stays awake while there is work, and sleeps only after finding nothing.
                woken.take();
                match WorldStream(world).poll_filled(context) {
                    Poll::Pending => {}
                    Poll::Ready(None) => *end = Some(Ok(())),
                    Poll::Ready(Some(Err(error))) => *end = Some(Err(error)),
                    Poll::Ready(Some(Ok(filled))) => {
                        woken.raise();
                        *taken += 1;
                        world.receive(&filled, *alignment);
                        if *max > 0 {
                            let until = world.now() + draw.number(0..=*time);
                            let last = held.back().map_or(0, |(until, _)| *until);
                            held.push_back((until.max(last), filled));
                        }
                    }
                }
            }
            ConsumerKind::Device { pump, sink } => {
                if sink.next_due().is_some_and(|due| due <= world.now()) {
                    sink.wake();
                }
                // A lost wake-up leaves it asleep.
                if !woken.take() {
                    return;
                }
                match pump.poll(&mut WorldStream(world), sink, context) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => *end = Some(Ok(())),
                    Poll::Ready(Err(PumpError::Stream(error))) => *end = Some(Err(error)),
                    Poll::Ready(Err(PumpError::Sink(never))) => match never {},
                }
            }
        }
        if end.is_some() {
            world.close();
        }
    }
}

/// Another borrower of a stream's pool.
pub(crate) struct Competitor<'w> {
    world: &'w World,
    /// Its number in the queue.
    who: usize,
    rounds: u64,
    time: u64,
    draw: Draw,
    /// The number of attempts without a buffer.
    looks: u32,
    state: Borrowing,
}

enum Borrowing {
    Idle { until: u64 },
    Waiting { turn: Turn, bytes: usize, woken: Arc<Flag>, until: u64 },
    Has { block: Option<Block>, until: u64 },
    Done,
}

impl<'w> Competitor<'w> {
    pub(crate) fn new(world: &'w World, who: usize, rounds: u64, time: u64, mut draw: Draw) -> Self {
        let until = draw.number(0..=time);
        Self { world, who, rounds, time, draw, looks: 0, state: Borrowing::Idle { until } }
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        match self.state {
            Borrowing::Idle { until } | Borrowing::Waiting { until, .. } | Borrowing::Has { until, .. } => Some(until),
            Borrowing::Done => None,
        }
    }

    pub(crate) fn can_act(&self) -> bool {
        let woken = matches!(&self.state, Borrowing::Waiting { woken, .. } if woken.is_up());
        woken || self.next_due().is_some_and(|due| due <= self.world.now())
    }

    pub(crate) fn act(&mut self) {
        let now = self.world.now();
        // Wait longer and longer, so that attempts do not dominate a run with slow reads.
        let soon = now + self.draw.number(1..=self.time.max(1) << self.looks.min(20));
        let Some(stream) = self.world.stream_buffers() else { return };
        let pool = Rc::clone(&stream.pool);
        match core::mem::replace(&mut self.state, Borrowing::Done) {
            Borrowing::Idle { .. } if self.rounds > 0 => {
                self.rounds -= 1;
                self.world.faults.borrow_mut().counts.count(FaultKind::PoolExhausted);
                let limit = pool.limit() as u64;
                let bytes = to_usize(self.draw.magnitude(1..=limit));
                self.ask(&pool, Turn::new(), bytes, Arc::default(), soon);
            }
            Borrowing::Waiting { mut turn, bytes, woken, until } => {
                let gives_up = self.world.faults.borrow_mut().strikes(FaultKind::WaiterCancelled, &mut self.draw);
                if until <= now && gives_up {
                    self.world.note("waiter gives up", &[self.who as u64]);
                    // Before others are woken.
                    self.world.book_turn(self.who, true, false, false);
                    pool.cancel(&mut turn);
                    self.state = Borrowing::Idle { until: soon };
                } else {
                    woken.take();
                    self.ask(&pool, turn, bytes, woken, soon);
                }
            }
            Borrowing::Has { mut block, .. } => {
                if let Some(block) = block.take() {
                    self.world.note("gives back", &[self.who as u64]);
                    if self.draw.coin() { pool.give(block, 0) } else { pool.release(block) }
                }
                self.state = Borrowing::Idle { until: soon };
            }
            Borrowing::Idle { .. } | Borrowing::Done => {}
        }
    }

    fn ask(&mut self, pool: &crate::memory::Pool, mut turn: Turn, bytes: usize, woken: Arc<Flag>, until: u64) {
        let waited = turn.is_waiting();
        let answer = pool.poll_take(bytes, 0, &mut turn, &Waker::from(Arc::clone(&woken)));
        self.world.book_turn(self.who, waited, turn.is_waiting(), matches!(answer, Poll::Ready(Ok(_))));
        self.state = match answer {
            Poll::Pending => {
                self.looks += 1;
                Borrowing::Waiting { turn, bytes, woken, until }
            }
            Poll::Ready(Ok(block)) => {
                self.world.note("borrows", &[self.who as u64, bytes as u64]);
                self.looks = 0;
                let until = self.world.now() + self.draw.number(1..=self.time.max(1));
                Borrowing::Has { block: Some(block), until }
            }
            // No memory now, or the request exceeds the limit.
            Poll::Ready(Err(_)) => Borrowing::Idle { until },
        };
    }

    /// Ends it in any state.
    pub(crate) fn end(&mut self) {
        let Some(stream) = self.world.stream_buffers() else { return };
        match core::mem::replace(&mut self.state, Borrowing::Done) {
            Borrowing::Waiting { mut turn, .. } => {
                self.world.book_turn(self.who, true, false, false);
                stream.pool.cancel(&mut turn);
            }
            Borrowing::Has { block: Some(block), .. } => stream.pool.give(block, 0),
            _ => {}
        }
    }
}
