//! A checkpoint of a real model's layout with random contents, by the format's reference writer.

use safetensors::{Dtype, View};
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A tensor of bf16.
struct Spec {
    name: String,
    shape: Vec<usize>,
}

impl Spec {
    fn bytes(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }
}

/// Qwen3-1.7B: 28 layers, 3.2 GiB of bf16; the output layer is the embedding. From the model's config.json.
fn qwen3() -> Vec<Spec> {
    const HIDDEN: usize = 2048;
    const INNER: usize = 6144;
    const KEYS: usize = 1024;
    const HEAD: usize = 128;
    let mut specs = Vec::new();
    let mut add =
        |name: String, shape: &[usize]| specs.push(Spec { name: format!("model.{name}"), shape: shape.to_vec() });
    add("embed_tokens.weight".into(), &[151_936, HIDDEN]);
    for layer in 0..28 {
        let mut add = |name: &str, shape: &[usize]| add(format!("layers.{layer}.{name}.weight"), shape);
        add("input_layernorm", &[HIDDEN]);
        add("mlp.down_proj", &[HIDDEN, INNER]);
        add("mlp.gate_proj", &[INNER, HIDDEN]);
        add("mlp.up_proj", &[INNER, HIDDEN]);
        add("post_attention_layernorm", &[HIDDEN]);
        add("self_attn.k_norm", &[HEAD]);
        add("self_attn.k_proj", &[KEYS, HIDDEN]);
        add("self_attn.o_proj", &[HIDDEN, HIDDEN]);
        add("self_attn.q_norm", &[HEAD]);
        add("self_attn.q_proj", &[HIDDEN, HIDDEN]);
        add("self_attn.v_proj", &[KEYS, HIDDEN]);
    }
    add("norm.weight".into(), &[HIDDEN]);
    specs
}

/// Random contents, made when the writer asks for them.
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

/// Writes Qwen3-1.7B's layout into a new folder: four shards and their index. Says how many bytes the tensors have.
pub(super) fn write_qwen3(folder: &Path) -> Result<u64, String> {
    const SHARDS: usize = 4;
    let failed = |error: &dyn std::fmt::Display| format!("{}: cannot write the checkpoint: {error}", folder.display());
    fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    let specs = qwen3();
    let total: usize = specs.iter().map(Spec::bytes).sum();
    let (mut weight_map, mut before) = (BTreeMap::new(), 0);
    let mut shards: Vec<Vec<&Spec>> = (0..SHARDS).map(|_| Vec::new()).collect();
    for spec in &specs {
        shards[(before * SHARDS / total).min(SHARDS - 1)].push(spec);
        before += spec.bytes();
    }
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{SHARDS:05}.safetensors", i + 1);
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
