//! Cases for the simulator as data: what a checkpoint holds, what is asked for, and how. proptest makes them, and takes away from
//! one that breaks a rule until only what breaks it is left.

use floodtide_core::{Alignment, Buffers, DType, Order};
use floodtide_sim::case::{Consumer, Job};
use floodtide_sim::checkpoint::Checkpoint;
use floodtide_sim::cuts::{KnownCut, MAX_COUNTED_BYTES};
use floodtide_sim::faults::{FaultKind, Swarm};
use floodtide_sim::selection::KnownSelection;
use floodtide_sim::shard::{NewTensor, Padding, Shard, elements};
use floodtide_sim::{Case, run};
use proptest::prelude::*;
use proptest::sample::select;

/// What a case is about. It says everything that a run depends on, and nothing that is made of it.
#[derive(Debug, Clone)]
pub struct CaseData {
    /// The files.
    pub shards: Vec<ShardData>,
    /// Whether all tensors are selected, whatever each says.
    pub all: bool,
    /// How they are streamed; `None` for a whole load.
    pub stream: Option<StreamData>,
    /// The size of a read in bytes.
    pub chunk_bytes: u64,
    /// The widest gap that is read along between tensors, in bytes.
    pub max_merge_gap: u64,
    /// The same between the blocks of a slice.
    pub max_read_gap: u64,
    /// What tensors are aligned to at least, in bytes.
    pub tensor_alignment: u64,
    /// The memory that there is, in bytes.
    pub memory: u64,
    /// Sources at work, and the reads that each keeps in flight.
    pub workers: usize,
    /// See `workers`.
    pub depth: usize,
    /// Whether what is read is verified; so it is where reads bring wrong bytes.
    pub verify: bool,
    /// What goes wrong.
    pub faults: Vec<FaultKind>,
    /// Decides the schedule, and when a fault strikes.
    pub seed: u64,
}

/// A file.
#[derive(Debug, Clone)]
pub struct ShardData {
    /// Its tensors.
    pub tensors: Vec<TensorData>,
    /// Spaces behind its header.
    pub padding: u64,
    /// Whether the header lists the tensors from the last one on.
    pub backwards: bool,
}

/// A tensor.
#[derive(Debug, Clone, Copy)]
pub struct TensorData {
    /// Its type.
    pub dtype: DType,
    /// About how many bytes it has: what whole elements fill of it.
    pub bytes: u64,
    /// How many groups of elements, the fewest that fill whole bytes, each of its rows has; 1 for a tensor without rows.
    pub columns: u64,
    /// Whether it is selected.
    pub selected: bool,
    /// Which of the columns, modulo their number, if not all; of what is short enough to be counted.
    pub part: Option<(u64, u64)>,
}

/// How a stream is cut, and who takes it.
#[derive(Debug, Clone, Copy)]
pub struct StreamData {
    /// What tensors that share a buffer may have together, in bytes.
    pub buffer_bytes: u64,
    /// How often that goes into the limit of all buffers.
    pub buffers: u64,
    /// Whether tensors may come in parts.
    pub split: bool,
    /// In which order.
    pub order: Order,
    /// How many buffers the consumer holds.
    pub holds: usize,
}

impl CaseData {
    /// How many tensors there are.
    #[must_use]
    pub fn tensors(&self) -> usize {
        self.shards.iter().map(|shard| shard.tensors.len()).sum()
    }

    /// What breaks a rule, under any of so many schedules. Other data meets other chances, so that when it is shrunk one
    /// schedule says little of it.
    #[must_use]
    pub fn broken(&self, schedules: u64) -> Option<String> {
        (0..schedules).find_map(|schedule| {
            let case = Case { seed: self.seed.wrapping_add(schedule), ..self.case() };
            run(&case, false).violations.into_iter().next()
        })
    }

    /// The case, with files of its own: a run may change them.
    #[must_use]
    pub fn case(&self) -> Case {
        let mut selected = Vec::new();
        let shards = self.shards.iter().enumerate().map(|(file, shard)| {
            let tensors = shard.tensors.iter().enumerate().map(|(i, tensor)| {
                let name = format!("{file}.{i}");
                let made = tensor.made(name);
                if tensor.selected {
                    selected.push((made.name.clone(), tensor.cut(&made)));
                }
                made
            });
            let mut made = Shard::new(tensors.collect(), file as u64);
            made.padding = Padding::Bytes(shard.padding);
            if shard.backwards {
                made.order.reverse();
            }
            made
        });
        let checkpoint = Checkpoint::new(shards.collect());
        let job = match self.stream {
            None => Job::Load,
            Some(StreamData { buffer_bytes, buffers, split, order, holds }) => Job::Stream {
                buffers: Buffers { buffer_bytes, limit: buffer_bytes * buffers, split, order },
                consumer: Consumer::Holds { buffers: holds, time: 1_000_000, stops: None },
            },
        };
        Case {
            seed: self.seed,
            selection: if self.all { KnownSelection::All } else { KnownSelection::Slices(selected) },
            chunk_bytes: self.chunk_bytes,
            max_merge_gap: self.max_merge_gap,
            max_read_gap: self.max_read_gap,
            tensor_alignment: Alignment::new(self.tensor_alignment).unwrap_or(Alignment::ONE),
            memory: Some(self.memory),
            workers: self.workers,
            depth: self.depth,
            verify: self.verify || self.faults.contains(&FaultKind::Corrupted),
            swarm: self.faults.iter().fold(Swarm::none(), |swarm, &kind| swarm.with(kind, 300_000)),
            ..Case::new(checkpoint, job)
        }
        .with_few_reads_apart()
    }
}

impl TensorData {
    fn made(&self, name: String) -> NewTensor {
        let row = self.columns * self.dtype.whole_bytes();
        let bytes = self.bytes / row * row;
        if self.columns == 1 {
            return NewTensor::flat(name, self.dtype, bytes);
        }
        NewTensor { name, dtype: self.dtype, bytes, shape: vec![bytes / row, elements(self.dtype, row)], tied: false }
    }

    fn cut(&self, made: &NewTensor) -> Option<KnownCut> {
        let (a, b) = self.part.filter(|_| made.shape.len() == 2 && made.bytes <= MAX_COUNTED_BYTES)?;
        let (a, b) = (a % (self.columns + 1), b % (self.columns + 1));
        let group = elements(self.dtype, self.dtype.whole_bytes());
        Some(KnownCut { dim: 1, start: a.min(b) * group, end: a.max(b) * group })
    }
}

/// Any case. What comes first in a choice is what it is shrunk to.
pub fn cases() -> impl Strategy<Value = CaseData> {
    let shape = (prop::collection::vec(shards(), 1..4), any::<bool>(), prop::option::of(streams()));
    let gaps = || select(vec![0_u64, 4096, 128 << 10]);
    let reads = (select(vec![64_u64 << 10, 128 << 10, 1 << 20]), gaps(), gaps());
    let alignments = select(vec![1_u64, 64, 4096]);
    // Little memory is too little for some checkpoints.
    let means = (select(vec![64_u64 << 20, 8 << 20, 1 << 20]), 1_usize..4, 1_usize..8, prop::bool::weighted(0.2));
    let faults = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(select(FaultKind::ALL), 0..3),
        Just(vec![FaultKind::ShortRead]),
        Just(vec![FaultKind::Corrupted]),
    ];
    // A smaller seed is no simpler schedule.
    (shape, (reads, alignments), means, faults, any::<u64>().no_shrink()).prop_map(
        |(shape, reads, means, faults, seed)| {
            let (
                (shards, all, stream),
                ((chunk_bytes, max_merge_gap, max_read_gap), tensor_alignment),
                (memory, workers, depth, verify),
            ) = (shape, reads, means);
            CaseData {
                shards,
                all,
                stream,
                chunk_bytes,
                max_merge_gap,
                max_read_gap,
                tensor_alignment,
                memory,
                workers,
                depth,
                verify,
                faults,
                seed,
            }
        },
    )
}

fn shards() -> impl Strategy<Value = ShardData> {
    // Most writers align what follows the header; some do not.
    let padding = prop_oneof![0_u64..8, 0_u64..5000];
    (prop::collection::vec(tensors(), 0..8), padding, any::<bool>())
        .prop_map(|(tensors, padding, backwards)| ShardData { tensors, padding, backwards })
}

fn tensors() -> impl Strategy<Value = TensorData> {
    let bytes = prop_oneof![
        4 => 0_u64..64,
        4 => 0_u64..20_000,
        4 => 0_u64..400_000,
        1 => 0_u64..3_000_000,
        // No memory holds these, and no stream has so many parts.
        1 => (1_u64 << 38)..(1 << 40),
    ];
    // Nearly never is a huge one selected, or hardly anything else would be tried.
    let columns = prop_oneof![2 => Just(1_u64), 1 => select(vec![2_u64, 3, 64, 5000])];
    let part = prop::option::of((0_u64..5001, 0_u64..5001));
    // Fewer columns first, so that fewer bytes are then enough for several rows.
    (select(DType::ALL), columns, part, bytes, 0_u8..20).prop_map(|(dtype, columns, part, bytes, selected)| {
        let selected = if bytes < 1 << 32 { selected < 15 } else { selected == 0 };
        TensorData { dtype, bytes, columns, selected, part }
    })
}

fn streams() -> impl Strategy<Value = StreamData> {
    let orders = select(vec![Order::Completion, Order::File, Order::Selection]);
    (select(vec![64_u64 << 10, 128 << 10, 1 << 20]), 1_u64..8, any::<bool>(), orders, 0_usize..3).prop_map(
        |(buffer_bytes, buffers, split, order, holds)| StreamData { buffer_bytes, buffers, split, order, holds },
    )
}
