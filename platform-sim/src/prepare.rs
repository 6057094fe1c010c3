//! Everything before the first read: headers, index, selection, strategy, plan.

use crate::case::{Case, Job};
use crate::device::SimStorage;
use crate::draw::Draw;
use crate::faults::{FaultKind, FaultState};
use crate::history::History;
use crate::memory::{Heap, WORLD_MEMORY};
use crate::world::World;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use floodtide_core::format::safetensors::{Header, header_range};
use floodtide_core::format::serverlessllm::TensorIndex;
use floodtide_core::format::shard_index::ShardIndex;
use floodtide_core::format::{SAFETENSORS, SERVERLESSLLM};
use floodtide_core::storage::DeviceSignals;
use floodtide_core::strategy::{Consumer as StrategyConsumer, Device, FileSignals, Signals, decide};
use floodtide_core::{
    Access, Backend, Catalog, CatalogBuilder, DirectLimits, Error, ErrorKind, MemoryLimit, Order, PlanOptions, Planner,
    ReadStyle, TensorSlice,
};

/// Parses the headers, resolves the selection, and creates strategy and plan.
///
/// Returns `None` if a damaged header is valid by chance: it describes another checkpoint, whose
/// contents are unknown.
pub(crate) fn prepare(
    case: &Case,
    storage: &Rc<SimStorage>,
    faults: &Rc<RefCell<FaultState>>,
    history: &Rc<RefCell<History>>,
    draw: &mut Draw,
) -> Result<Option<World>, Error> {
    let versions: Vec<_> = storage.files.iter().map(crate::files::SimFile::version).collect();
    let damaged = {
        let mut state = faults.borrow_mut();
        !storage.files.is_empty() && state.strikes(FaultKind::DamagedHeader, draw)
    };
    let damage = damaged.then(|| draw.fork());
    let catalog = match case.checkpoint.is_serverlessllm {
        true => serverlessllm(case, storage, damage)?,
        false => catalog(storage, damage)?,
    };
    if damaged {
        return Ok(None);
    }
    if !case.checkpoint.is_serverlessllm {
        check_index(case, &catalog)?;
    }
    let selection = case.selection.selection();
    let selected = selection.resolve(&catalog)?;
    let direct = directs(case, &catalog, &selected);
    let listed = match &case.job {
        Job::Stream { buffers, .. } if buffers.order == Order::Selection => selection.resolve_in_order(&catalog)?,
        _ => selected,
    };
    let access = match &case.job {
        Job::Load => Access::Copy,
        Job::Stream { buffers, .. } => Access::Stream(*buffers),
    };
    let options = PlanOptions {
        access,
        direct,
        cached: case.devices.iter().map(|device| device.cached.into_iter().collect()).collect(),
        tensor_alignment: case.tensor_alignment,
        chunk_bytes: case.chunk_bytes,
        file_chunk_bytes: Vec::new(),
        max_merge_gap: case.max_merge_gap,
        max_read_gap: case.max_read_gap,
        max_gather_reads: PlanOptions::default().max_gather_reads,
        memory: case.memory.map(|available| MemoryLimit { available, limit: "the world's memory".to_owned() }),
    };
    let plan = Planner::new(options).plan(&catalog, &listed)?;
    let heap = Heap::new(Rc::clone(faults), draw.fork());
    let arena = plan.arena_bytes() as u64;
    if arena > WORLD_MEMORY || (arena > 0 && heap.refuses()) {
        return Err(Error::Platform { kind: ErrorKind::OutOfMemory, message: "the system gives no memory".to_owned() });
    }
    World::new(case, Rc::clone(storage), Rc::clone(faults), Rc::clone(history), catalog, plan, versions).map(Some)
}

/// Reads and parses the headers, one of which may be damaged.
fn catalog(storage: &SimStorage, damage: Option<Draw>) -> Result<Catalog, Error> {
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    let victim = damage.map(|mut draw| (draw.index(storage.files.len()), draw));
    let mut victim = victim;
    for (number, file) in storage.files.iter().enumerate() {
        let mut head = vec![0; file.head.len()];
        file.read(0, &mut head);
        if let Some((_, draw)) = victim.as_mut().filter(|(at, _)| *at == number) {
            for _ in 0..draw.number(1..=4) {
                let at = draw.index(head.len());
                head[at] = draw.byte();
            }
        }
        let invalid = |source| Error::format(&*file.path, source);
        let range = header_range(&head, file.byte_len()).map_err(invalid)?;
        let json = range.indices();
        if json.end > head.len() {
            // A damaged length that is still within the file: the header is what the file has
            // there.
            head.resize(json.end, 0);
            file.read(0, &mut head);
        }
        let header = Header::parse(&head[json], file.byte_len()).map_err(invalid)?;
        header.add_to(&mut builder, &file.path, file.byte_len())?;
    }
    builder.finish()
}

/// Parses the index of a ServerlessLLM checkpoint, which may be damaged.
fn serverlessllm(case: &Case, storage: &SimStorage, damage: Option<Draw>) -> Result<Catalog, Error> {
    let mut json = case.checkpoint.index().into_bytes();
    if let Some(mut draw) = damage {
        for _ in 0..draw.number(1..=4) {
            let at = draw.index(json.len());
            json[at] = draw.byte();
        }
    }
    let lengths: Vec<u64> = storage.files.iter().map(crate::files::SimFile::byte_len).collect();
    let index = TensorIndex::parse(&json, &lengths).map_err(|source| Error::format("the index", source))?;
    let mut builder = CatalogBuilder::new(SERVERLESSLLM);
    for (file, len) in storage.files.iter().zip(lengths) {
        builder.add_file(&file.path, len)?;
    }
    index.add_tensors_to(&mut builder)?;
    builder.finish()
}

/// Checks that an index, as writers create it, matches the shards.
fn check_index(case: &Case, catalog: &Catalog) -> Result<(), Error> {
    if case.checkpoint.tensors.is_empty() {
        return Ok(());
    }
    let mut json = String::from(r#"{"metadata":{},"weight_map":{"#);
    for (i, tensor) in case.checkpoint.tensors.iter().enumerate() {
        let shard = &case.checkpoint.files[tensor.file].path;
        json += if i == 0 { "" } else { "," };
        json += &format!(r#"{}:"{shard}""#, crate::shard::quoted(&tensor.name));
    }
    json += "}}";
    let invalid = |source| Error::format("the index", source);
    let index = ShardIndex::parse(json.as_bytes()).map_err(invalid)?;
    // An index numbers the non-empty shards by name, a catalog the opened ones.
    let holding: Vec<usize> = (0..case.checkpoint.files.len())
        .filter(|&file| case.checkpoint.tensors.iter().any(|tensor| tensor.file == file))
        .collect();
    if holding.len() == case.checkpoint.files.len() {
        index.check(catalog).map_err(invalid)?;
    }
    Ok(())
}

/// Returns the limits of files that the strategy reads directly, given the devices' reports.
fn directs(case: &Case, catalog: &Catalog, selected: &[TensorSlice]) -> Vec<Option<DirectLimits>> {
    let mut aligned = vec![false; case.devices.len()];
    for part in selected {
        let tensor = catalog.tensor(part.tensor());
        let alignment = floodtide_core::tensor_alignment(&tensor, case.tensor_alignment);
        let starts_aligned = part.strided(&tensor).is_some() || alignment.divides(part.range(&tensor).start());
        aligned[tensor.file.index()] |= starts_aligned && part.byte_len(&tensor) > 0;
    }
    let files = case.devices.iter().zip(catalog.files()).zip(aligned).map(|((device, file), aligned)| FileSignals {
        bytes: file.bytes,
        resident: device.cached.map(|cached| cached.len() as f32 / file.bytes.max(1) as f32),
        cached: device.cached.into_iter().collect(),
        direct: device.says.is_some(),
        aligned,
        selected_bytes: 1,
        device: 0,
    });
    let ring = Backend::new("ring", ReadStyle::Queue, "");
    let device = Device {
        signals: DeviceSignals { file_system: "the world".to_owned(), ..DeviceSignals::default() },
        backends: vec![ring, Backend::new("threads", ReadStyle::Blocking, "")],
        requested: case.strict.then_some(ring),
    };
    let signals = Signals {
        files: files.collect(),
        // The world's checkpoints stand for larger ones, which are not small loads.
        selected_bytes: selected
            .iter()
            .map(|part| part.byte_len(&catalog.tensor(part.tensor())))
            .sum::<u64>()
            .saturating_mul(1000),
        consumer: if matches!(case.job, Job::Load) { StrategyConsumer::Whole } else { StrategyConsumer::Stream },
        verified: false,
        devices: vec![device],
        direct_refused: None,
        populate_page_cache: false,
        memory: u64::MAX,
        cpus: case.workers,
    };
    let strategy = decide(&signals);
    case.devices.iter().zip(strategy.direct).map(|(device, direct)| device.says.filter(|_| direct)).collect()
}
