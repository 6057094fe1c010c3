//! The parameters of a run, drawn from a seed or set by hand. `sizes` turns some drawn cases into
//! cases with large tensors.

mod sizes;

pub use sizes::HUGE;

use crate::checkpoint::{Checkpoint, Shape};
use crate::device::{FileDevice, alignment};
use crate::draw::{Draw, scramble};
use crate::faults::{FaultKind, Scripted, Swarm};
use crate::memory::WORLD_MEMORY;
use crate::selection::{KnownSelection, shard, slices};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use floodtide_core::direct_io_fallback::ProbeWindow;
use floodtide_core::storage::Link;
use floodtide_core::{Alignment, Buffers, ByteRange, DirectLimits, Order};
use sizes::Sizes;

/// A microsecond of the world's clock, which counts nanoseconds.
pub const MICROSECOND: u64 = 1_000;
/// A millisecond in nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;
/// A second in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// The task of a run.
#[derive(Debug, Clone)]
pub enum Job {
    /// Load everything into one arena.
    Load,
    /// Pass one buffer after another to a consumer.
    Stream {
        /// How the checkpoint is divided into buffers.
        buffers: Buffers,
        /// The consumer.
        consumer: Consumer,
    },
}

/// The consumer of a stream.
#[derive(Debug, Clone)]
pub enum Consumer {
    /// A consumer that holds buffers for a while.
    Holds {
        /// The maximum number of buffers it holds.
        buffers: usize,
        /// The maximum time in nanoseconds that it holds one.
        time: u64,
        /// The number of buffers after which it stops, if any.
        stops: Option<u64>,
    },
    /// A device behind a link.
    Device {
        /// The link.
        link: Link,
        /// The maximum number of concurrent uploads.
        depth: usize,
    },
}

/// Other users of a stream's pool.
#[derive(Debug, Clone)]
pub struct Competitors {
    /// Their number.
    pub count: usize,
    /// How often each borrows.
    pub rounds: u64,
    /// The maximum time in nanoseconds that they hold a buffer.
    pub time: u64,
}

/// The parameters of a run.
#[derive(Debug, Clone)]
pub struct Case {
    /// The seed of all draws during the run.
    pub seed: u64,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The selection.
    pub selection: KnownSelection,
    /// The task.
    pub job: Job,
    /// The device of each file.
    pub devices: Vec<FileDevice>,
    /// The link to all devices.
    pub link: Link,
    /// The number of workers.
    pub workers: usize,
    /// The number of reads in flight per worker.
    pub depth: usize,
    /// The limit of reads in flight for a tuner, or `None` for a fixed `workers` times `depth`.
    pub max_in_flight: Option<u32>,
    /// The expected rate of direct reads in bytes per second and the window to watch, or `None`.
    pub profiled_direct_rate: Option<(u64, ProbeWindow)>,
    /// The size of a read in bytes.
    pub chunk_bytes: u64,
    /// The maximum gap between tensors that is read along, in bytes.
    pub max_merge_gap: u64,
    /// The widest gap that is read along between the blocks of a slice.
    pub max_read_gap: u64,
    /// The minimum alignment of tensors.
    pub tensor_alignment: Alignment,
    /// The reported memory in bytes, or `None` if unknown.
    pub memory: Option<u64>,
    /// The maximum number of bytes in flight.
    pub in_flight_limit: u64,
    /// Whether the load is verified.
    pub verify: bool,
    /// Whether a ring is asked for and no other source.
    pub strict: bool,
    /// The other users of the pool.
    pub competitors: Competitors,
    /// The random faults.
    pub swarm: Swarm,
    /// The scripted faults.
    pub script: Vec<Scripted>,
    /// The time in nanoseconds by which the run must end.
    pub deadline: u64,
}

impl Case {
    /// Creates a case without faults.
    #[must_use]
    pub fn new(checkpoint: Checkpoint, job: Job) -> Self {
        let limits = DirectLimits { offset: alignment(512), memory: alignment(512) };
        let device = FileDevice { says: Some(limits), asks: limits, latency: 100 * MICROSECOND, cached: None };
        Self {
            seed: 0,
            devices: checkpoint.files.iter().map(|_| device.clone()).collect(),
            checkpoint,
            selection: KnownSelection::All,
            job,
            link: Link::new(0, 4 << 30),
            workers: 2,
            depth: 4,
            max_in_flight: None,
            profiled_direct_rate: None,
            chunk_bytes: 64 << 10,
            max_merge_gap: 128 << 10,
            max_read_gap: 128 << 10,
            tensor_alignment: Alignment::ONE,
            memory: Some(WORLD_MEMORY),
            in_flight_limit: u64::MAX,
            verify: false,
            strict: false,
            competitors: Competitors { count: 0, rounds: 0, time: 0 },
            swarm: Swarm::none(),
            script: Vec::new(),
            deadline: 3600 * SECOND,
        }
    }

    /// Draws the case of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let swarm = Swarm::draw(&mut draw.fork());
        let mut sizes = Sizes::draw(seed);
        let shape = Shape { extra: sizes.extra(), ..Shape::default() };
        let mut checkpoint = Checkpoint::draw(&mut draw.fork(), &shape);
        // Drawn apart, so that a seed whose checkpoint is no ServerlessLLM checkpoint means the
        // same with and without them.
        let mut apart = Draw::new(seed ^ 0x6a09_e667_f3bc_c908);
        if apart.chance(80_000) {
            checkpoint = checkpoint.into_serverlessllm(&mut apart);
        }
        let mut case = Self::draw_with(seed, &mut draw, checkpoint, swarm);
        sizes.apply(&mut case);
        case.with_few_reads_apart()
    }

    /// Draws the case of a seed with verification, every second time with corrupted reads.
    ///
    /// The draws are separate, so that seeds keep their meaning.
    #[must_use]
    pub fn draw_verified(seed: u64) -> Self {
        let mut case = Self { verify: true, ..Self::draw(seed) };
        let mut draw = Draw::new(scramble(seed));
        if draw.coin() {
            // One wrong byte in millions is detected as easily as many, so corruption is frequent
            // enough to occur.
            let often = u32::try_from(draw.magnitude(5_000..=300_000)).unwrap_or(u32::MAX);
            case.swarm = case.swarm.with(FaultKind::Corrupted, often);
        }
        case
    }

    fn draw_with(seed: u64, draw: &mut Draw, checkpoint: Checkpoint, swarm: Swarm) -> Self {
        let devices = devices(draw, &checkpoint, &swarm);
        let selection = selection(draw, &checkpoint);
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
            job,
            link: Link::new(0, *draw.of(&[0, 100 << 20, 1 << 30, 10 << 30])),
            workers: 1 + draw.index(4),
            depth: 1 + draw.index(8),
            max_in_flight: draw.coin().then(|| *draw.of(&[1, 8, 64])),
            chunk_bytes: *draw.of(&[64 << 10, 64 << 10, 128 << 10, 256 << 10]),
            max_merge_gap: *draw.of(&[0, 4096, 128 << 10]),
            max_read_gap: *draw.of(&[0, 200, 4096, 128 << 10]),
            tensor_alignment: alignment(*draw.of(&[1, 1, 64, 4096])),
            memory: Some(WORLD_MEMORY),
            in_flight_limit: *draw.of(&[u64::MAX, u64::MAX, 1, 100_000, 300_000]),
            verify: false,
            strict: draw.chance(300_000),
            competitors,
            swarm,
            script: Vec::new(),
            deadline: 3600 * SECOND,
            checkpoint,
            // So few bytes prove nothing, but they make reads change their method during the load.
            profiled_direct_rate: draw.chance(250_000).then(|| {
                let window = ProbeWindow {
                    direct_bytes: draw.magnitude(1..=1 << 20),
                    buffered_bytes: draw.magnitude(1..=1 << 20),
                };
                (*draw.of(&[1 << 20, 1 << 30, u64::MAX]), window)
            }),
        }
    }

    /// The same, reading blocks one by one only where they are few: a read of each would take
    /// virtual hours.
    #[must_use]
    pub fn with_few_reads_apart(mut self) -> Self {
        const MANY: u64 = 300;
        /// The maximum gap for this number of blocks.
        const WIDE: u64 = 400_000;
        let tensors = self.checkpoint.tensors.iter();
        let blocks = tensors.filter_map(|tensor| Some(self.selection.slice(tensor)?.block_count(tensor)));
        if blocks.fold(0, u64::saturating_add) > MANY {
            self.max_read_gap = self.max_read_gap.max(WIDE);
        }
        self
    }

    /// Replaces the random faults.
    #[must_use]
    pub fn with_swarm(mut self, swarm: Swarm) -> Self {
        self.swarm = swarm;
        self
    }

    /// Keeps only these tensors, by index, and drops files without any.
    #[must_use]
    pub fn only(mut self, tensors: &[usize]) -> Self {
        let keeps = |number: usize| tensors.contains(&number);
        let known = self.checkpoint.tensors.iter().enumerate();
        let files: BTreeSet<usize> =
            known.filter(|(number, _)| keeps(*number)).map(|(_, tensor)| tensor.file).collect();
        self.checkpoint = self.checkpoint.only(keeps);
        self.devices = files.iter().map(|&file| self.devices[file].clone()).collect();
        let moved = |file: u32| (0..).zip(&files).find(|&(_, &kept)| kept == file as usize).map(|(number, _)| number);
        let script = self.script.into_iter();
        self.script = script.filter_map(|s| Some(Scripted { file: moved(s.file)?, ..s })).collect();
        match &mut self.selection {
            KnownSelection::Names(names) => names.retain(|name| self.checkpoint.find(name).is_some()),
            KnownSelection::Slices(slices) => slices.retain(|(name, _)| self.checkpoint.find(name).is_some()),
            _ => {}
        }
        self
    }
}

/// Draws a cached part of a file.
fn cached(draw: &mut Draw, bytes: u64) -> Option<ByteRange> {
    if !draw.chance(300_000) {
        return None;
    }
    let start = draw.number(0..=bytes / 2);
    ByteRange::new(start, draw.number(start..=bytes))
}

fn devices(draw: &mut Draw, checkpoint: &Checkpoint, swarm: &Swarm) -> Vec<FileDevice> {
    let files = checkpoint.files.len();
    let (mixed, lies) = (swarm.has(FaultKind::MixedAlignment), swarm.has(FaultKind::AlignmentLie));
    let mut limits = None;
    let latency = draw.magnitude(MICROSECOND..=10 * MILLISECOND);
    let slow = if swarm.has(FaultKind::SlowDevice) { draw.index(files) } else { files };
    (0..files)
        .map(|file| {
            if limits.is_none() || mixed {
                // A strict alignment excludes short runs from direct reads, so it is rare.
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
            let cached = cached(draw, checkpoint.files[file].byte_len());
            FileDevice { says, asks, latency: if file == slow { latency * 50 } else { latency }, cached }
        })
        .collect()
}

fn selection(draw: &mut Draw, checkpoint: &Checkpoint) -> KnownSelection {
    let names: Vec<&String> = checkpoint.tensors.iter().map(|tensor| &tensor.name).collect();
    match draw.number(0..=9) {
        5..=7 => {
            let kept: Vec<_> = checkpoint.tensors.iter().filter(|_| !draw.chance(300_000)).collect();
            slices(draw, kept)
        }
        8 => shard(draw, checkpoint),
        0 if !names.is_empty() => {
            let count = 1 + draw.index(names.len());
            KnownSelection::Names((0..count).map(|_| names[draw.index(names.len())].clone()).collect())
        }
        1 if checkpoint.tensors.iter().any(|tensor| tensor.name.ends_with("weight")) => {
            KnownSelection::Ending("weight")
        }
        _ => KnownSelection::All,
    }
}

fn job(draw: &mut Draw, checkpoint: &Checkpoint) -> Job {
    if draw.coin() {
        return Job::Load;
    }
    let (buffers, consumer) = stream(draw, checkpoint);
    Job::Stream { buffers, consumer }
}

fn stream(draw: &mut Draw, checkpoint: &Checkpoint) -> (Buffers, Consumer) {
    let split = draw.coin();
    let buffer_bytes = *draw.of(&[64 << 10, 128 << 10, 256 << 10]);
    // A tensor and its alignment, if it must fit whole. Huge ones never do.
    let lengths = checkpoint.tensors.iter().map(|tensor| tensor.bytes);
    let longest = lengths.filter(|bytes| *bytes < HUGE).max().unwrap_or(0) + 2 * 4096;
    let min = if split { buffer_bytes } else { buffer_bytes.max(longest) };
    let buffers = Buffers {
        buffer_bytes,
        limit: min + draw.number(0..=4) * buffer_bytes,
        split,
        order: *draw.of(&[Order::Completion, Order::File, Order::Selection]),
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
    (buffers, consumer)
}
