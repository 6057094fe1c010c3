//! Arbitrary catalogs, selections and options to the planner: a plan keeps every promise, or is refused for a reason that is true.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use floodtide_core::{Access, Buffers, Catalog, Error, MemoryLimit, Order, PlanOptions, Planner, TensorId};
use floodtide_fuzz::checkpoint::{Lengths, catalog, selection};
use floodtide_fuzz::{options, promises};
use libfuzzer_sys::{Corpus, fuzz_target};

/// More reads or buffers than that only take time.
const MAX_PIECES: u64 = 2000;

#[derive(Debug)]
struct Case {
    catalog: Catalog,
    options: PlanOptions,
    selected: Vec<TensorId>,
    memory: Option<MemoryLimit>,
}

impl Arbitrary<'_> for Case {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let catalog = catalog(u, Lengths::Any)?;
        let options = options::options(u, &catalog)?;
        let listed = matches!(options.access, Access::Stream(Buffers { order: Order::Listed, .. }));
        let selected = selection(u, &catalog, listed)?;
        Ok(Self { memory: options::memory(u)?, catalog, options, selected })
    }
}

fn run(case: Case) -> Corpus {
    let Case { catalog, options, selected, memory } = case;
    let piece = match options.access {
        Access::Stream(Buffers { gather, .. }) => gather.min(options.chunk_bytes),
        _ => options.chunk_bytes,
    };
    if catalog.tensor_bytes() / piece.clamp(64 << 10, 1 << 30) > MAX_PIECES {
        return Corpus::Reject;
    }

    let unlimited = Planner::new(options.clone()).plan(&catalog, &selected);
    let limited = Planner::new(PlanOptions { memory: memory.clone(), ..options.clone() }).plan(&catalog, &selected);
    match unlimited {
        Ok(plan) => {
            promises::check(&catalog, &selected, &options, &plan);
            let takes = promises::needed(&options, &plan);
            match (limited, memory) {
                (Ok(same), memory) => {
                    assert!(same == plan, "a limit that is kept changes nothing");
                    assert!(memory.is_none_or(|memory| takes <= memory.available));
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
            assert!(selected.contains(&tensor.id) && tensor.range.len() <= needed);
            // What the message asks for is enough for this tensor.
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
