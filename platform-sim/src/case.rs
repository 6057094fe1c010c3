//! What a run is about: drawn from a seed, or put together by hand.

use crate::checkpoint::{Checkpoint, Shape};
use crate::clock::Link;
use crate::cuts::{self, Cuts};
use crate::device::{FileDevice, alignment};
use crate::draw::Draw;
use crate::faults::{FaultKind, Scripted, Swarm};
use alloc::string::String;
use alloc::vec::Vec;
use floodtide_core::{Alignment, Buffers, DirectLimits, Order, Selection};

/// The world's clock runs in these.
pub const MICROSECOND: u64 = 1_000;
/// A thousand of the former.
pub const MILLISECOND: u64 = 1_000_000;
/// A thousand of the former.
pub const SECOND: u64 = 1_000_000_000;

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Job {
    /// All of it into one arena.
    Load,
    /// One after another through buffers.
    Stream {
        /// How it is cut.
        buffers: Buffers,
        /// Who takes it.
        consumer: Consumer,
    },
}

/// Who takes a stream.
#[derive(Debug, Clone)]
pub enum Consumer {
    /// One who holds up to so many buffers for up to so long, and stops after so many, if that is given.
    Holds {
        /// At most.
        buffers: usize,
        /// Nanoseconds, at most.
        time: u64,
        /// After so many it has enough.
        stops: Option<u64>,
    },
    /// A device at the end of a link, with so many uploads at a time.
    Device {
        /// The way there.
        link: Link,
        /// Uploads at a time.
        depth: usize,
    },
}

/// Others that use a stream's pool.
#[derive(Debug, Clone)]
pub struct Competitors {
    /// How many.
    pub count: usize,
    /// How often each borrows.
    pub rounds: u64,
    /// For how long, in nanoseconds, at most.
    pub time: u64,
}

/// A run to be.
#[derive(Debug, Clone)]
pub struct Case {
    /// Draws for whatever the run itself decides.
    pub seed: u64,
    /// What is loaded.
    pub checkpoint: Checkpoint,
    /// Which of it.
    pub selection: Selection,
    /// What that is of the tensors that are not wanted whole.
    pub cuts: Cuts,
    /// How.
    pub job: Job,
    /// The device of each file.
    pub devices: Vec<FileDevice>,
    /// The way to all of them.
    pub link: Link,
    /// Sources at work, and the reads that each keeps in flight.
    pub workers: usize,
    /// See `workers`.
    pub depth: usize,
    /// The size of a read in bytes.
    pub chunk_bytes: u64,
    /// The widest gap that is read along between tensors.
    pub merge_gap: u64,
    /// The widest gap that is read along between the pieces of a slice.
    pub gather_gap: u64,
    /// What tensors are aligned to at least.
    pub tensor_alignment: Alignment,
    /// Bytes in flight at most.
    pub in_flight_limit: u64,
    /// Whether a ring is wanted and no other source.
    pub strict: bool,
    /// Who else uses the pool.
    pub competitors: Competitors,
    /// What goes wrong by chance.
    pub swarm: Swarm,
    /// What goes wrong by order.
    pub script: Vec<Scripted>,
    /// When the run must be over, in nanoseconds.
    pub deadline: u64,
}

impl Case {
    /// A load of a checkpoint on a machine without fault.
    #[must_use]
    pub fn new(checkpoint: Checkpoint, job: Job) -> Self {
        let limits = DirectLimits { offset: alignment(512), memory: alignment(512) };
        let device = FileDevice { says: Some(limits), asks: limits, latency: 100 * MICROSECOND };
        Self {
            seed: 0,
            devices: checkpoint.files.iter().map(|_| device.clone()).collect(),
            checkpoint,
            selection: Selection::All,
            cuts: Cuts::new(),
            job,
            link: Link::new(0, 4 << 30),
            workers: 2,
            depth: 4,
            chunk_bytes: 64 << 10,
            merge_gap: 128 << 10,
            gather_gap: 128 << 10,
            tensor_alignment: Alignment::ONE,
            in_flight_limit: u64::MAX,
            strict: false,
            competitors: Competitors { count: 0, rounds: 0, time: 0 },
            swarm: Swarm::none(),
            script: Vec::new(),
            deadline: 3600 * SECOND,
        }
    }

    /// What that seed stands for.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let swarm = Swarm::draw(&mut draw.fork());
        let checkpoint = Checkpoint::draw(&mut draw.fork(), &Shape::default());
        Self::draw_with(seed, &mut draw, checkpoint, swarm)
    }

    fn draw_with(seed: u64, draw: &mut Draw, checkpoint: Checkpoint, swarm: Swarm) -> Self {
        let devices = devices(draw, checkpoint.files.len(), &swarm);
        let (selection, cuts) = selection(draw, &checkpoint);
        let gather_gap = gather_gap(draw, &checkpoint, &cuts);
        let job = job(draw, &checkpoint);
        let competitors = Competitors {
            count: if swarm.has(FaultKind::PoolExhausted) { 1 + draw.index(3) } else { 0 },
            rounds: draw.number(1..=8),
            time: draw.magnitude(MICROSECOND..=20 * MILLISECOND),
        };
        Self {
            seed,
            devices,
            selection,
            cuts,
            job,
            link: Link::new(0, *draw.of(&[0, 100 << 20, 1 << 30, 10 << 30])),
            workers: 1 + draw.index(4),
            depth: 1 + draw.index(8),
            chunk_bytes: *draw.of(&[64 << 10, 64 << 10, 128 << 10, 256 << 10]),
            merge_gap: *draw.of(&[0, 4096, 128 << 10]),
            gather_gap,
            tensor_alignment: alignment(*draw.of(&[1, 1, 64, 4096])),
            in_flight_limit: *draw.of(&[u64::MAX, u64::MAX, 1, 100_000, 300_000]),
            strict: draw.chance(300_000),
            competitors,
            swarm,
            script: Vec::new(),
            deadline: 3600 * SECOND,
            checkpoint,
        }
    }

    /// The same with other faults.
    #[must_use]
    pub fn with_swarm(mut self, swarm: Swarm) -> Self {
        self.swarm = swarm;
        self
    }
}

fn devices(draw: &mut Draw, files: usize, swarm: &Swarm) -> Vec<FileDevice> {
    let (mixed, lies) = (swarm.has(FaultKind::MixedAlignment), swarm.has(FaultKind::AlignmentLie));
    let mut limits = None;
    let latency = draw.magnitude(MICROSECOND..=10 * MILLISECOND);
    let slow = if swarm.has(FaultKind::SlowDevice) { draw.index(files) } else { files };
    (0..files)
        .map(|file| {
            if limits.is_none() || mixed {
                // Where much is asked for, only long runs are read directly, so that is rare.
                let offset = alignment(*draw.of(&[512, 512, 512, 4096]));
                let memory = alignment(*draw.of(&[4, 512, 512, 512]));
                limits = Some((!draw.chance(150_000)).then_some(DirectLimits { offset, memory }));
            }
            let says = limits.flatten();
            let asks = match says {
                Some(_) if lies && draw.coin() => DirectLimits { offset: alignment(4096), memory: alignment(4096) },
                Some(limits) => limits,
                None => DirectLimits { offset: alignment(512), memory: alignment(512) },
            };
            FileDevice { says, asks, latency: if file == slow { latency * 50 } else { latency } }
        })
        .collect()
}

fn selection(draw: &mut Draw, checkpoint: &Checkpoint) -> (Selection, Cuts) {
    let names: Vec<&String> = checkpoint.tensors.iter().map(|tensor| &tensor.name).collect();
    let whole = match draw.number(0..=9) {
        5..=7 => return cuts::slices(draw, checkpoint),
        8 => return cuts::shard(draw, checkpoint),
        0 if !names.is_empty() => {
            let count = 1 + draw.index(names.len());
            Selection::names((0..count).map(|_| names[draw.index(names.len())]))
        }
        1 if checkpoint.tensors.iter().any(|tensor| tensor.name.ends_with("weight")) => {
            Selection::globs(["*weight"]).unwrap_or_default()
        }
        _ => Selection::All,
    };
    (whole, Cuts::new())
}

/// Pieces are read apart only where they are few: a read of each would take virtual hours.
fn gather_gap(draw: &mut Draw, checkpoint: &Checkpoint, cuts: &Cuts) -> u64 {
    const MANY: u64 = 300;
    let drawn = *draw.of(&[0, 200, 4096, 128 << 10]);
    let pieces = checkpoint.tensors.iter().filter_map(|tensor| {
        let cut = cuts.get(&tensor.name)?;
        Some(tensor.shape.get(..cut.dim)?.iter().product::<u64>())
    });
    if pieces.sum::<u64>() > MANY { 400_000 } else { drawn }
}

fn job(draw: &mut Draw, checkpoint: &Checkpoint) -> Job {
    if draw.coin() {
        return Job::Load;
    }
    let split = draw.coin();
    let gather = *draw.of(&[64 << 10, 128 << 10, 256 << 10]);
    // A tensor and what alignment adds, if it must fit whole.
    let longest = checkpoint.tensors.iter().map(|tensor| tensor.bytes).max().unwrap_or(0) + 2 * 4096;
    let least = if split { gather } else { gather.max(longest) };
    let buffers = Buffers {
        gather,
        limit: least + draw.number(0..=4) * gather,
        split,
        order: *draw.of(&[Order::Arrival, Order::File, Order::Listed]),
    };
    let consumer = if draw.coin() {
        Consumer::Device {
            link: Link::new(draw.magnitude(MICROSECOND..=MILLISECOND), *draw.of(&[50 << 20, 1 << 30, 0])),
            depth: 1 + draw.index(4),
        }
    } else {
        Consumer::Holds {
            buffers: draw.index(3),
            time: draw.magnitude(MICROSECOND..=50 * MILLISECOND),
            stops: draw.chance(100_000).then(|| draw.number(0..=5)),
        }
    };
    Job::Stream { buffers, consumer }
}
