//! Writes checkpoints: with the reference writer, or byte by byte where the layout is odd.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the scratch folder in the workspace's target folder.
fn scratch() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let target = root.join("target/scratch");
    fs::create_dir_all(&target).expect("makes");
    target
}

/// Returns a folder on the disk of the build: /tmp may be tmpfs, which does not support direct
/// reads.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(scratch()).expect("a folder")
}

/// Creates an empty Hugging Face cache, and returns the model's folder, its blobs, and its one
/// snapshot.
pub fn cache(folder: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let cache = folder.join("models--org--name");
    let (blobs, snapshot) = (cache.join("blobs"), cache.join("snapshots/0123abcd"));
    fs::create_dir_all(&blobs).expect("makes");
    fs::create_dir_all(&snapshot).expect("makes");
    (cache, blobs, snapshot)
}

/// Returns a file: the length of the header's JSON, the JSON as given, and the data.
pub fn raw(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), data].concat()
}

/// Returns the header's JSON and the data of contiguous U8 tensors of these names and bytes.
pub fn plain(tensors: impl IntoIterator<Item = (String, Vec<u8>)>) -> (String, Vec<u8>) {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, bytes) in tensors {
        let (begin, length) = (data.len(), bytes.len());
        data.extend(bytes);
        entries
            .push(format!(r#""{name}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{begin},{}]}}"#, data.len()));
    }
    (format!("{{{}}}", entries.join(",")), data)
}

/// Writes and syncs a file of tensors of these sizes, named t0, t1 and so on, each filled with its
/// number.
pub fn numbered(folder: &Path, sizes: &[usize]) -> PathBuf {
    let (json, data) = plain(sizes.iter().enumerate().map(|(i, &bytes)| (format!("t{i}"), vec![i as u8; bytes])));
    let path = folder.join("model.safetensors");
    fs::write(&path, raw(&json, &data)).expect("writes");
    fs::File::open(&path).expect("opens").sync_all().expect("syncs");
    path
}

/// Creates a sparse checkpoint of one tensor of zeros, none of which is cached.
pub fn sparse(folder: &Path, bytes: u64) -> PathBuf {
    let json = format!(r#"{{"t":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    let start = raw(&json, &[]);
    let path = folder.join("sparse.safetensors");
    fs::write(&path, &start).expect("writes");
    fs::File::options().write(true).open(&path).expect("opens").set_len(start.len() as u64 + bytes).expect("grows");
    path
}

/// Writes a small checkpoint of several dtypes, with a scalar, an empty tensor and a name that is
/// hard to print.
pub fn small(path: &Path) {
    let bytes: Vec<u8> = (0..4096_u32).map(|i| (i * 37 + i / 256) as u8).collect();
    let view =
        |dtype, shape: &[usize], n: usize| TensorView::new(dtype, shape.to_vec(), &bytes[n..2 * n]).expect("fits");
    let tensors = [
        ("layer.weight", view(Dtype::F32, &[16, 8], 512)),
        ("layer.bias", view(Dtype::BF16, &[8], 16)),
        ("scale", view(Dtype::F64, &[], 8)),
        ("empty", TensorView::new(Dtype::F32, vec![0, 4], &[]).expect("fits")),
        ("evil\n\u{1b}[31mname", view(Dtype::U8, &[3], 3)),
    ];
    safetensors::serialize_to_file(tensors, None, path).expect("writes");
}

/// Splits a safetensors file into `count` shards with an index, with the reference library.
pub fn reshard(file: &Path, folder: &Path, count: usize) {
    let bytes = fs::read(file).expect("reads");
    let tensors = SafeTensors::deserialize(&bytes).expect("valid");
    let mut names = tensors.names();
    names.sort_unstable();
    let mut map = BTreeMap::new();
    for (i, part) in names.chunks(names.len().div_ceil(count)).enumerate() {
        let shard = format!("model-{:05}-of-{count:05}.safetensors", i + 1);
        let views = part.iter().map(|name| (*name, tensors.tensor(name).expect("is there")));
        safetensors::serialize_to_file(views, None, &folder.join(&shard)).expect("writes");
        map.extend(part.iter().map(|name| ((*name).to_owned(), shard.clone())));
    }
    let total: usize = tensors.iter().map(|(_, view)| view.data().len()).sum();
    let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).expect("writes");
}

/// Returns what `floodtide digest` must print for a file, computed with the reference library.
pub fn reference_digest(file: &Path) -> String {
    let bytes = fs::read(file).expect("reads");
    let tensors = SafeTensors::deserialize(&bytes).expect("valid");
    let mut names = tensors.names();
    names.sort_unstable();
    let line = |name: &&str| {
        let digest = Sha256::digest(tensors.tensor(name).expect("is there").data());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        // Control characters as the command escapes them.
        let name: String =
            name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
        format!("{hex}  {name}\n")
    };
    names.iter().map(line).collect()
}

/// Writes a file of `count` one-element tensors.
pub fn many(path: &Path, count: usize) -> PathBuf {
    let entry = |i: usize| {
        format!(
            r#""model.layers.{i}.mlp.experts.weight":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#,
            4 * i,
            4 * i + 4
        )
    };
    let json = format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","));
    let data: Vec<u8> = (0..count as u32).flat_map(u32::to_le_bytes).collect();
    fs::write(path, raw(&json, &data)).expect("writes");
    path.to_owned()
}
