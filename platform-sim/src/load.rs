//! A whole load over files in memory, by core's own worker.

use crate::source::{MemoryBuffer, MemorySource};
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use floodtide_core::format::safetensors::{Header, header_range};
use floodtide_core::{
    Alignment, BufferSupply, Catalog, CatalogBuilder, ChunkId, Engine, EngineHandle, Error, ExtentId, Format, Location,
    Plan, PlanOptions, Planner, Selection, Worker,
};

/// The tensors of a load, by name.
pub type Loaded = BTreeMap<String, Vec<u8>>;

struct World {
    engine: RefCell<Engine>,
    plan: Arc<Plan>,
    arena: RefCell<Vec<u8>>,
}

impl EngineHandle for World {
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        f(&mut self.engine.borrow_mut())
    }

    fn wait_for_room(&self) {
        // One worker alone never waits for another: what is in flight is its own.
        self.with(|engine| engine.fail(Error::Contract { what: "the only worker waits for another" }));
    }
}

impl BufferSupply for World {
    type Buffer = MemoryBuffer;

    fn provide(&self, _: ExtentId) -> Result<bool, Error> {
        // The arena is there from the start.
        Ok(true)
    }

    fn take(&self, chunk: ChunkId) -> Result<MemoryBuffer, Error> {
        Ok(MemoryBuffer(vec![0; self.plan.chunks()[chunk.index()].slot.len()]))
    }

    fn landed(&self, chunk: ChunkId, buffer: MemoryBuffer) {
        let chunk = &self.plan.chunks()[chunk.index()];
        self.arena.borrow_mut()[chunk.slot.clone()].copy_from_slice(&buffer.0);
    }
}

/// Loads the selected tensors of safetensors files that lie in memory. `options.direct` is what the planner believes of direct
/// reads; `device_alignment` is what the device really asks of them.
///
/// # Errors
/// As a load on any platform.
pub fn load(
    files: Rc<[Vec<u8>]>,
    selection: &Selection,
    options: PlanOptions,
    device_alignment: Alignment,
    depth: usize,
) -> Result<Loaded, Error> {
    let catalog = Arc::new(catalog_of(&files)?);
    let selected = selection.resolve(&catalog)?;
    let plan = Arc::new(Planner::new(options).plan(&catalog, &selected)?);
    let world = World {
        engine: RefCell::new(Engine::new(Arc::clone(&catalog), Arc::clone(&plan), u64::MAX)),
        arena: RefCell::new(vec![0; plan.arena_bytes()]),
        plan: Arc::clone(&plan),
    };
    let source = MemorySource::new(files, device_alignment, depth);
    Worker::new(source).run(&world, &world);
    world.engine.borrow().result()?;
    let arena = world.arena.into_inner();
    let tensors = plan.placements().iter().filter_map(|placement| {
        let Location::Arena(place) = placement.location else { return None };
        let bytes = arena[place..place + placement.range.len() as usize].to_vec();
        Some((String::from(catalog.tensor(placement.tensor).name), bytes))
    });
    Ok(tensors.collect())
}

/// What the files' headers say.
pub(crate) fn catalog_of(files: &[Vec<u8>]) -> Result<Catalog, Error> {
    let mut builder = CatalogBuilder::new(Format::Safetensors);
    for (index, file) in files.iter().enumerate() {
        let name = alloc::format!("file {index}");
        let invalid = |source| Error::Header { file: name.clone(), source };
        let len = file.len() as u64;
        let range = header_range(file, len).map_err(invalid)?;
        // The range is inside the file, which is in memory.
        let json = &file[range.start() as usize..range.end() as usize];
        builder.add_safetensors(&name, len, &Header::parse(json, len).map_err(invalid)?)?;
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodtide_core::DirectLimits;
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    #[test]
    fn two_files_load_to_what_was_written() {
        let write = |name: &str, bytes: &[u8]| {
            let view = TensorView::new(Dtype::U8, vec![bytes.len()], bytes).expect("one byte each");
            safetensors::serialize([(name, view)], None).expect("serializes")
        };
        let (a, b) = (vec![1; 300_000], vec![2; 1000]);
        let files: Rc<[Vec<u8>]> = [write("a", &a), write("b", &b)].into();
        let alignment = Alignment::new(512).expect("a power of two");
        let limits = Some(DirectLimits { offset: alignment, memory: alignment });
        let options = PlanOptions { direct: vec![limits; 2], chunk_bytes: 64 << 10, ..PlanOptions::default() };
        let expected: Loaded = [("a".into(), a), ("b".into(), b)].into();
        // The second device refuses what the planner believes it takes: EINVAL at the first read after a good open.
        for device in [alignment, Alignment::PAGE, Alignment::HUGE_PAGE] {
            let loaded = load(files.clone(), &Selection::All, options.clone(), device, 3).expect("loads");
            assert_eq!(loaded, expected, "a device of alignment {device}");
        }
    }
}
