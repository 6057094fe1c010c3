//! Streams whose memory is only a number: when each buffer is filled, and its contents.

mod pump;

use super::*;
use crate::format::{SAFETENSORS, safetensors::Header};
use crate::plan::{Access, Buffers, Order, Plan, PlanOptions, Planner};
use crate::units::{ChunkId, ExtentId};
use crate::{Catalog, CatalogBuilder, Selection};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const KIB: usize = 1 << 10;

/// A file of tensors of this size, streamed whole in reads and shared buffers of 64 KiB.
fn plan(sizes: &[usize]) -> (Arc<Catalog>, Arc<Plan>) {
    let mut at = 0;
    let entry = |(i, bytes): (usize, &usize)| {
        at += bytes;
        format!(r#""t{i}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[{},{at}]}}"#, at - bytes)
    };
    let json = format!("{{{}}}", sizes.iter().enumerate().map(entry).collect::<Vec<String>>().join(","));
    let len = (8 + json.len() + at) as u64;
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    Header::parse(json.as_bytes(), len).expect("valid").add_to(&mut builder, "model", len).expect("adds");
    let catalog = builder.finish().expect("unique names");
    let access = Access::Stream(Buffers { buffer_bytes: 64 << 10, limit: 1 << 20, split: false, order: Order::File });
    let options = PlanOptions { access, chunk_bytes: 64 << 10, ..PlanOptions::default() };
    let selected = Selection::All.resolve(&catalog).expect("all");
    let plan = Planner::new(options).plan(&catalog, &selected).expect("plans");
    (Arc::new(catalog), Arc::new(plan))
}

proptest! {
    #[test]
    fn a_buffer_comes_back_with_its_last_chunk(
        sizes in prop::collection::vec(0..300 * KIB, 1..8),
        order in prop::collection::vec(any::<u64>(), 40),
    ) {
        let (_, plan) = plan(&sizes);
        let mut filling = FillingBuffers::new(Arc::clone(&plan));
        let mut missing: BTreeMap<ExtentId, usize> = BTreeMap::new();
        while let Some(extent) = filling.next() {
            prop_assert_eq!(extent.index(), missing.len(), "in the order of the plan");
            prop_assert!(filling.find(ChunkId(filling.chunks(extent).start)).is_none(), "it has no memory yet");
            filling.open(extent.0);
            missing.insert(extent, filling.chunks(extent).len());
        }
        prop_assert_eq!(missing.len(), plan.extents().len());
        prop_assert!(filling.chunks(ExtentId(missing.len() as u32)).is_empty(), "no such extent");

        let mut chunks: Vec<usize> = (0..plan.chunks().len()).collect();
        chunks.sort_by_key(|index| order[index % order.len()]);
        for index in chunks {
            let (chunk, extent) = (ChunkId(index as u32), plan.chunks()[index].extent);
            let nth = plan.chunks()[..index].iter().filter(|before| before.extent == extent).count();
            prop_assert_eq!(filling.find(chunk), Some((&extent.0, nth)));
            prop_assert_eq!(filling.find_mut(chunk).copied(), Some(extent.0));
            let left = missing.get_mut(&extent).expect("an extent of the plan");
            *left -= 1;
            prop_assert_eq!(filling.complete(chunk), (*left == 0).then_some((extent, extent.0)));
        }
        prop_assert!(missing.values().all(|&left| left == 0));
    }
}

#[test]
fn a_whole_buffer_knows_what_it_holds() {
    let (catalog, plan) = plan(&[100, 100 * KIB, 50, 0, 7]);
    let filled = |extent, buffer| FilledBuffer::new(Arc::clone(&catalog), Arc::clone(&plan), ExtentId(extent), buffer);
    let names = |extent| filled(extent, 0).parts().map(|part| part.tensor.name.to_string()).collect::<Vec<String>>();
    assert_eq!([names(0), names(1), names(2)], [vec!["t0"], vec!["t1"], vec!["t2", "t3", "t4"]]);
    let last = filled(2, 7);
    assert_eq!(last.placed_parts().map(|part| part.placement).collect::<Vec<usize>>(), [2, 3, 4]);
    let bytes: Vec<_> = last.parts().map(|part| (part.offset, part.buffer_range)).collect();
    assert_eq!(bytes, [(0, 0..50), (0, 0..0), (0, 50..57)]);
    assert_eq!(format!("{last:?}"), "FilledBuffer { extent: ExtentId(2), .. }", "and not what is in its memory");
    assert!(Arc::ptr_eq(last.catalog(), &catalog) && Arc::ptr_eq(last.plan(), &plan));
    assert_eq!((last.extent(), *last.buffer(), last.into_buffer()), (ExtentId(2), 7, 7));
}
