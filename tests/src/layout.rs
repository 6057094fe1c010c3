//! Checkpoints of any layout for property tests: written byte by byte, read with the reference
//! library.

use floodtide_core::DType;
use proptest::prelude::*;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A checkpoint to write.
#[derive(Debug, Clone)]
pub struct Layout {
    /// By shard: the dtypes and the numbers of elements of its tensors.
    pub shards: Vec<Vec<(DType, usize)>>,
    /// By shard: the number of spaces after the JSON, which break the alignment of the data.
    pub padding: Vec<usize>,
    /// Whether the shards have an index.
    pub index: bool,
}

/// Generates any layout.
pub fn layouts() -> impl Strategy<Value = Layout> {
    let dtypes = prop::sample::select(vec![
        DType::U8,
        DType::BF16,
        DType::F32,
        DType::F64,
        DType::C64,
        DType::F8_E4M3,
        DType::BOOL,
    ]);
    let tensor = (dtypes, prop_oneof![4 => 0_usize..50, 2 => 0_usize..40_000, 1 => 100_000_usize..600_000]);
    let shards = prop::collection::vec(prop::collection::vec(tensor, 0..8), 1..4);
    (shards, prop::collection::vec(0_usize..9, 4), any::<bool>()).prop_map(|(shards, padding, index)| Layout {
        shards,
        padding,
        index,
    })
}

/// Writes the layout with bytes that differ everywhere.
pub fn write(folder: &Path, layout: &Layout) {
    let mut map = BTreeMap::new();
    for (s, tensors) in layout.shards.iter().enumerate() {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        let shard = format!("model-{s}.safetensors");
        for (t, &(dtype, elements)) in tensors.iter().enumerate() {
            let name = format!("s{s}.t{t}");
            let begin = data.len();
            let bytes = elements * dtype.bits() as usize / 8;
            data.extend((0..bytes).map(|i| (i * 7 + i / 255 + t * 31 + s * 101) as u8));
            header.insert(
                name.clone(),
                serde_json::json!({"dtype": dtype.name(), "shape": [elements], "data_offsets": [begin, data.len()]}),
            );
            map.insert(name, shard.clone());
        }
        let mut json = serde_json::Value::Object(header).to_string();
        json.push_str(&" ".repeat(layout.padding[s]));
        let file = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &data].concat();
        fs::write(folder.join(&shard), file).expect("writes");
    }
    if layout.index && !map.is_empty() {
        // An index lists only shards with tensors, so an empty shard is not part of the checkpoint.
        let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
        fs::write(folder.join("model.safetensors.index.json"), index).expect("writes");
    }
}

/// Returns what the reference library reads.
pub fn reference(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("lists").path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let file = fs::read(&path).expect("reads");
            for (name, view) in SafeTensors::deserialize(&file).expect("valid").iter() {
                all.insert(name.to_owned(), view.data().to_vec());
            }
        }
    }
    all
}

/// Writes the files back and drops them from the page cache.
pub fn drop_cache(folder: &Path) {
    for entry in fs::read_dir(folder).expect("lists") {
        let file = fs::File::open(entry.expect("lists").path()).expect("opens");
        file.sync_all().expect("syncs");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
    }
}
