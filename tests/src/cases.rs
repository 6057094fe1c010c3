//! Cases for the simulator as data: the checkpoint, the selection and the options. proptest
//! generates them, and shrinks one that breaks a rule.

use floodtide_core::{Alignment, Buffers, DType, Order};
use floodtide_sim::case::{Consumer, Job};
use floodtide_sim::checkpoint::Checkpoint;
use floodtide_sim::faults::{FaultKind, Swarm};
use floodtide_sim::selection::KnownSelection;
use floodtide_sim::shard::{NewTensor, Padding, Shard, elements};
use floodtide_sim::slices::{KnownSlice, MAX_COUNTED_BYTES};
use floodtide_sim::{Case, run};
use proptest::prelude::*;
use proptest::sample::select;

/// A case: everything that a run depends on, and nothing derived from it.
#[derive(Debug, Clone)]
pub struct CaseData {
    /// The files.
    pub shards: Vec<ShardData>,
    /// Whether all tensors are selected, whatever they say.
    pub all: bool,
    /// The stream; `None` for a load.
    pub stream: Option<StreamData>,
    /// The size of a read in bytes.
    pub chunk_bytes: u64,
    /// The widest gap between tensors that a read may include, in bytes.
    pub max_merge_gap: u64,
    /// The same between the blocks of a slice.
    pub max_read_gap: u64,
    /// The minimum alignment of tensors in bytes.
    pub tensor_alignment: u64,
    /// The available memory in bytes.
    pub memory: u64,
    /// The number of sources, and of the reads that each keeps in flight.
    pub workers: usize,
    /// See `workers`.
    pub depth: usize,
    /// Whether tensors are verified; always true if reads return wrong bytes.
    pub verify: bool,
    /// The faults.
    pub faults: Vec<FaultKind>,
    /// The seed of the schedule and of the faults.
    pub seed: u64,
}

/// A file.
#[derive(Debug, Clone)]
pub struct ShardData {
    /// Its tensors.
    pub tensors: Vec<TensorData>,
    /// The number of spaces after the header.
    pub padding: u64,
    /// Whether the header lists the tensors in reverse order.
    pub backwards: bool,
}

/// A tensor.
#[derive(Debug, Clone, Copy)]
pub struct TensorData {
    /// The dtype.
    pub dtype: DType,
    /// The approximate length in bytes, rounded down to whole elements.
    pub bytes: u64,
    /// The length of a row, in groups of the fewest elements that fill whole bytes; 1 for a tensor
    /// without rows.
    pub columns: u64,
    /// Whether it is selected.
    pub selected: bool,
    /// The selected columns, modulo their number; `None` for all. Only for tensors that are short
    /// enough.
    pub part: Option<(u64, u64)>,
}

/// The options and the consumer of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamData {
    /// The size of a shared buffer in bytes.
    pub buffer_bytes: u64,
    /// The number of these buffers that fit under the memory limit.
    pub buffers: u64,
    /// Whether tensors may come in parts.
    pub split: bool,
    /// The order of delivery.
    pub order: Order,
    /// The number of buffers that the consumer holds.
    pub holds: usize,
}

impl CaseData {
    /// Returns the number of tensors.
    #[must_use]
    pub fn tensors(&self) -> usize {
        self.shards.iter().map(|shard| shard.tensors.len()).sum()
    }

    /// Returns the broken rules under any of `schedules` schedules. Shrunk data meets other random
    /// events, so one schedule says little.
    #[must_use]
    pub fn broken(&self, schedules: u64) -> Option<String> {
        (0..schedules).find_map(|schedule| {
            let case = Case { seed: self.seed.wrapping_add(schedule), ..self.case() };
            run(&case, false).violations.into_iter().next()
        })
    }

    /// Returns the simulator's case with its own files, which a run may change.
    #[must_use]
    pub fn case(&self) -> Case {
        let mut selected = Vec::new();
        let shards = self.shards.iter().enumerate().map(|(file, shard)| {
            let tensors = shard.tensors.iter().enumerate().map(|(i, tensor)| {
                let name = format!("{file}.{i}");
                let made = tensor.made(name);
                if tensor.selected {
                    selected.push((made.name.clone(), tensor.slice(&made)));
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

    fn slice(&self, made: &NewTensor) -> Option<KnownSlice> {
        let (a, b) = self.part.filter(|_| made.shape.len() == 2 && made.bytes <= MAX_COUNTED_BYTES)?;
        let (a, b) = (a % (self.columns + 1), b % (self.columns + 1));
        let group = elements(self.dtype, self.dtype.whole_bytes());
        Some(KnownSlice { dim: 1, start: a.min(b) * group, end: a.max(b) * group })
    }
}

/// Generates any case. A choice shrinks to its first alternative.
pub fn cases() -> impl Strategy<Value = CaseData> {
    let shape = (prop::collection::vec(shards(), 1..4), any::<bool>(), prop::option::of(streams()));
    let gaps = || select(vec![0_u64, 4096, 128 << 10]);
    let reads = (select(vec![64_u64 << 10, 128 << 10, 1 << 20]), gaps(), gaps());
    let alignments = select(vec![1_u64, 64, 4096]);
    // Some checkpoints do not fit in little memory.
    let means = (select(vec![64_u64 << 20, 8 << 20, 1 << 20]), 1_usize..4, 1_usize..8, prop::bool::weighted(0.2));
    let faults = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(select(FaultKind::ALL), 0..3),
        Just(vec![FaultKind::ShortRead]),
        Just(vec![FaultKind::Corrupted]),
    ];
    // A smaller seed does not mean a simpler schedule.
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
    // Most writers align the data after the header; some do not.
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
        // These fit in no memory, and would have too many parts for a stream.
        1 => (1_u64 << 38)..(1 << 40),
    ];
    // A huge tensor is rarely selected, because the case then tests little else.
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
