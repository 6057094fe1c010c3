//! Writes the reads of one worker to a trace file.
//!
//! Spans on one track must not overlap, so each concurrent read of a worker has its own track.

use super::Reads;
use super::event::{Nanos, Read, What};
use super::file::LoadFile;
use floodtide_core::middleware::Tracer;
use floodtide_core::{Fault, Outcome, ReadId, ReadOp};
use std::sync::Arc;

/// The number of tracks per worker.
const TRACKS: u64 = 4096;

pub(super) struct Worker {
    load: Arc<LoadFile>,
    reads: Reads,
    number: u32,
    tracks: Vec<Track>,
    /// The time at which the read that is being submitted arrived.
    handed: Nanos,
}

struct Track {
    id: u32,
    read: Option<UnderWay>,
}

struct UnderWay {
    op: ReadOp,
    handed: Nanos,
    began: Option<Nanos>,
    ended: Option<Nanos>,
}

impl Worker {
    pub(super) fn new(load: Arc<LoadFile>, reads: Reads, number: u32) -> Self {
        Self { load, reads, number, tracks: Vec::new(), handed: 0 }
    }

    /// Returns a track without a read in flight.
    fn free_track(&mut self) -> &mut Track {
        let index = self.tracks.iter().position(|track| track.read.is_none()).unwrap_or_else(|| {
            let (lane, number) = (self.tracks.len() as u64, self.number);
            let name = match self.reads {
                Reads::Calls => format!("thread {number}"),
                Reads::Queued => format!("queue {number}, read {lane}"),
            };
            let id = self.load.new_track(name, u64::from(number) * TRACKS + lane + 1);
            self.tracks.push(Track { id, read: None });
            self.tracks.len() - 1
        });
        &mut self.tracks[index]
    }

    fn under_way(&mut self) -> impl Iterator<Item = &mut UnderWay> {
        self.tracks.iter_mut().filter_map(|track| track.read.as_mut())
    }
}

impl Tracer for Worker {
    fn submitting(&mut self, _: &ReadOp) {
        self.handed = self.load.now();
        self.load.began(self.handed);
    }

    fn submitted(&mut self, op: &ReadOp) {
        let (handed, carried_out) = (self.handed, self.reads == Reads::Calls);
        let ended = carried_out.then(|| self.load.now());
        let read = UnderWay { op: *op, handed, began: carried_out.then_some(handed), ended };
        self.free_track().read = Some(read);
    }

    fn rejected(&mut self, op: &ReadOp, fault: Fault) {
        let why = match fault {
            Fault::Again => "busy (EAGAIN)",
            Fault::NoMemory => "no memory (ENOMEM)",
            _ => "refused",
        };
        let (at, track) = (self.load.now(), self.free_track().id);
        self.load.send(What::Rejected { at, track, op: *op, why });
        self.load.ended(at, 0);
    }

    fn waiting(&mut self) {
        if self.under_way().any(|read| read.began.is_none()) && self.reads == Reads::Queued {
            let now = self.load.now();
            self.under_way().for_each(|read| _ = read.began.get_or_insert(now));
        }
    }

    fn completed(&mut self, id: ReadId, outcome: Outcome) {
        let (worker, now) = (self.number, self.load.now());
        let track = self.tracks.iter_mut().find(|track| track.read.as_ref().is_some_and(|read| read.op.id == id));
        let Some((track, read)) = track.and_then(|track| Some((track.id, track.read.take()?))) else { return };
        let UnderWay { op, handed, began, ended } = read;
        let ended = ended.unwrap_or(now);
        let began = began.unwrap_or(ended);
        self.load.send(What::Read(Read { op, outcome, worker, track, handed, began, ended }));
        let bytes = if let Outcome::Read(bytes) = outcome { bytes } else { 0 };
        self.load.ended(now, bytes as u64);
    }
}
