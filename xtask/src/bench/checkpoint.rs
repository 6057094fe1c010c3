//! Writes checkpoints with random contents, in the layout of a real model or with equal tensors, by
//! the format's reference writer.

use safetensors::{Dtype, View};
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A bf16 tensor.
struct Spec {
    name: String,
    shape: Vec<usize>,
}

impl Spec {
    fn bytes(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }
}

/// The dimensions in which the Qwen3 models differ, and the number of files.
pub(super) struct Layout {
    pub(super) name: &'static str,
    layers: usize,
    hidden: usize,
    inner: usize,
    queries: usize,
    vocabulary: usize,
    shards: usize,
}

/// 3.2 GiB, from the model's config.json.
pub(super) const QWEN3_1_7B: Layout =
    Layout { name: "qwen3-1.7b", layers: 28, hidden: 2048, inner: 6144, queries: 2048, vocabulary: 151_936, shards: 4 };

/// 1.1 GiB, from the model's config.json.
pub(super) const QWEN3_0_6B: Layout =
    Layout { name: "qwen3-0.6b", layers: 28, hidden: 1024, inner: 3072, queries: 2048, vocabulary: 151_936, shards: 1 };

/// About 100 MiB, for quick runs and to warm up.
pub(super) const QUICK: Layout =
    Layout { name: "quick", layers: 4, hidden: 1024, inner: 3072, queries: 2048, vocabulary: 1 << 13, shards: 2 };

/// Returns the tensors of a layout. The output layer is tied to the embedding.
fn qwen3(layout: &Layout) -> Vec<Spec> {
    const KEYS: usize = 1024;
    const HEAD: usize = 128;
    let Layout { layers, hidden, inner, queries, vocabulary, .. } = *layout;
    let mut specs = Vec::new();
    let mut add =
        |name: String, shape: &[usize]| specs.push(Spec { name: format!("model.{name}"), shape: shape.to_vec() });
    add("embed_tokens.weight".into(), &[vocabulary, hidden]);
    for layer in 0..layers {
        let mut add = |name: &str, shape: &[usize]| add(format!("layers.{layer}.{name}.weight"), shape);
        add("input_layernorm", &[hidden]);
        add("mlp.down_proj", &[hidden, inner]);
        add("mlp.gate_proj", &[inner, hidden]);
        add("mlp.up_proj", &[inner, hidden]);
        add("post_attention_layernorm", &[hidden]);
        add("self_attn.k_norm", &[HEAD]);
        add("self_attn.k_proj", &[KEYS, hidden]);
        add("self_attn.o_proj", &[hidden, queries]);
        add("self_attn.q_norm", &[HEAD]);
        add("self_attn.q_proj", &[queries, hidden]);
        add("self_attn.v_proj", &[KEYS, hidden]);
    }
    add("norm.weight".into(), &[hidden]);
    specs
}

/// A tensor whose random contents are generated when the writer asks for them.
struct Random<'a>(&'a Spec);

impl View for Random<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let seed = self.0.name.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let mut bytes = vec![0; self.0.bytes()];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.0.bytes()
    }
}

/// Writes the shards and the index of a model into a new folder. Returns the bytes of all tensors.
pub(super) fn write_model(folder: &Path, layout: &Layout) -> Result<u64, String> {
    write(folder, &qwen3(layout), layout.shards)
}

/// Writes N tensors of the same size into a new folder. Returns the bytes of all tensors.
pub(super) fn write_even(folder: &Path, tensors: usize, bytes: usize, shards: usize) -> Result<u64, String> {
    let spec = |i| Spec { name: format!("model.layers.{i}.weight"), shape: vec![bytes / 2] };
    write(folder, &(0..tensors).map(spec).collect::<Vec<_>>(), shards)
}

fn write(folder: &Path, specs: &[Spec], count: usize) -> Result<u64, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: cannot write the checkpoint: {error}", folder.display());
    fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    let total: usize = specs.iter().map(Spec::bytes).sum();
    let (mut weight_map, mut before) = (BTreeMap::new(), 0);
    let mut shards: Vec<Vec<&Spec>> = (0..count).map(|_| Vec::new()).collect();
    for spec in specs {
        shards[(before * count / total).min(count - 1)].push(spec);
        before += spec.bytes();
    }
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{count:05}.safetensors", i + 1);
        let path = folder.join(&name);
        let views = shard.iter().map(|spec| (spec.name.as_str(), Random(spec)));
        safetensors::serialize_to_file(views, None, &path).map_err(|error| failed(&error))?;
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(|error| failed(&error))?;
        weight_map.extend(shard.iter().map(|spec| (spec.name.as_str(), name.clone())));
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).map_err(|error| failed(&error))?;
    Ok(total as u64)
}
