//! Arbitrary catalogs, selections and options: a plan keeps every promise, or is refused for a true
//! reason.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use floodtide_core::{
    Access, Buffers, Catalog, Chunk, Error, MemoryLimit, Order, Plan, PlanOptions, Planner, TensorSlice,
};
use floodtide_fuzz::checkpoint::{Lengths, catalog, cut, selection};
use floodtide_fuzz::{options, promises};
use libfuzzer_sys::{Corpus, fuzz_target};

/// The maximum number of reads or buffers. More only take time.
const MAX_PARTS: u64 = 2000;

/// The maximum number of gathered blocks. Each of them is examined.
const MAX_GATHERED: u64 = 1 << 20;

#[derive(Debug)]
struct Case {
    catalog: Catalog,
    options: PlanOptions,
    selected: Vec<TensorSlice>,
    memory: Option<MemoryLimit>,
}

impl Arbitrary<'_> for Case {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let catalog = catalog(u, Lengths::Any)?;
        let mut options = options::options(u, &catalog)?;
        let listed = matches!(options.access, Access::Stream(Buffers { order: Order::Selection, .. }));
        let mut selected = selection(u, &catalog, listed)?;
        let memory = options::memory(u)?;
        options.max_read_gap = options::magnitude(u)?;
        cut(u, &catalog, &mut selected)?;
        Ok(Self { memory, catalog, options, selected })
    }
}

/// Returns the reads outside strided slices, in the order of the file.
fn whole_runs(plan: &Plan) -> Vec<&Chunk> {
    let whole = |chunk: &&Chunk| plan.extents()[chunk.extent.index()].strided.is_none();
    let mut chunks: Vec<_> = plan.chunks().iter().filter(whole).collect();
    chunks.sort_unstable_by_key(|chunk| (chunk.extent, chunk.offset));
    chunks
}

fn run(case: Case) -> Corpus {
    let Case { catalog, options, selected, memory } = case;
    let part = match options.access {
        Access::Stream(Buffers { buffer_bytes, .. }) => buffer_bytes.min(options.chunk_bytes),
        _ => options.chunk_bytes,
    };
    if catalog.tensor_bytes() / part.clamp(64 << 10, 1 << 30) > MAX_PARTS {
        return Corpus::Reject;
    }

    let strided = || selected.iter().filter_map(|slice| slice.strided(&catalog.tensor(slice.tensor())));
    if strided().fold(0, |sum: u64, strided| sum.saturating_add(strided.count())) > MAX_GATHERED {
        return Corpus::Reject;
    }
    if strided().filter(|strided| strided.gap() > options.max_read_gap).any(|strided| strided.count() > MAX_PARTS) {
        return Corpus::Reject;
    }

    let unlimited = Planner::new(options.clone()).plan(&catalog, &selected);
    let with_limit = PlanOptions { memory: memory.clone(), ..options.clone() };
    let limited = Planner::new(with_limit.clone()).plan(&catalog, &selected);
    match unlimited {
        Ok(plan) => {
            promises::check(&catalog, &selected, &options, &plan);
            let takes = promises::needed(&options, &plan);
            match (limited, memory) {
                (Ok(limited), memory) => {
                    assert!(memory.is_none_or(|memory| takes <= memory.available));
                    if limited != plan {
                        // Gather buffers use additional memory, so those reads may be shorter.
                        promises::check(&catalog, &selected, &with_limit, &limited);
                        assert!(plan.extents() == limited.extents() && plan.placements() == limited.placements());
                        assert!(whole_runs(&plan) == whole_runs(&limited), "a limit that is kept changes nothing else");
                        assert!(plan.chunks().len() < limited.chunks().len(), "not longer, and not for nothing");
                    }
                }
                (Err(Error::NotEnoughMemory { needed, available, .. }), Some(memory)) => {
                    assert!(needed == takes && available == memory.available && needed > available);
                }
                (Err(error), _) => panic!("{error}"),
            }
        }
        Err(Error::BufferTooSmall { tensor, needed, limit }) => {
            let Access::Stream(buffers) = options.access else { panic!("only streams have buffers") };
            assert!(!buffers.split && limit == buffers.limit && needed > limit);
            let tensor = catalog.find(&tensor).expect("it is named");
            assert!(selected.iter().any(|slice| slice.tensor() == tensor.id && slice.byte_len(&tensor) <= needed));
            // The size that the message names must suffice for this tensor.
            let access = Access::Stream(Buffers { limit: needed, ..buffers });
            match Planner::new(PlanOptions { access, ..options }).plan(&catalog, &selected) {
                Ok(_) => {}
                Err(Error::BufferTooSmall { needed: more, .. }) => assert!(more > needed),
                Err(error) => panic!("{error}"),
            }
        }
        Err(error) => panic!("without a memory limit, 2^46 bytes can be addressed: {error}"),
    }
    Corpus::Keep
}

fuzz_target!(|case: Case| -> Corpus { run(case) });
