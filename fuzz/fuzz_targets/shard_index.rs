//! Arbitrary bytes as an index: no panic, and no shard name that could lead out of the folder.

#![no_main]

use floodtide_core::format::shard_index::ShardIndex;
use libfuzzer_sys::fuzz_target;
use std::path::{Component, Path};

fuzz_target!(|json: &[u8]| {
    if let Ok(index) = ShardIndex::parse(json) {
        for shard in index.shards() {
            let mut components = Path::new(shard).components();
            assert!(matches!(components.next(), Some(Component::Normal(name)) if name == shard.as_str()));
            assert!(components.next().is_none());
        }
    }
});
