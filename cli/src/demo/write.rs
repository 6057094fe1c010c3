//! Writes the demo's checkpoint with the format's reference writer, contents made as they are written.

use super::layout::{self, Spec};
use crate::output::{self, Failure};
use indicatif::ProgressBar;
use safetensors::{Dtype, View};
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const SHARDS: usize = 2;

/// A tensor whose contents are random, and made only when the writer asks for them.
struct RandomTensor<'a> {
    spec: &'a Spec,
    bar: Option<&'a ProgressBar>,
}

impl View for RandomTensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.spec.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        // The seed is the name, so that every run writes the same checkpoint.
        let seed = self.spec.name.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let mut bytes = vec![0; self.spec.bytes()];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        if let Some(bar) = self.bar {
            bar.inc(bytes.len() as u64);
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.spec.bytes()
    }
}

/// Writes shards and index into a folder that exists.
pub(crate) fn write(folder: &Path, specs: &[Spec], quiet: bool) -> Result<(), Failure> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::Failed(format!(
            "{}: cannot write the demo's checkpoint: {error}; try --scale 0.1 if the disk is full",
            path.display()
        ))
    };
    let bar = if quiet { None } else { output::progress_bar("writing") };
    if let Some(bar) = &bar {
        bar.set_length(specs.iter().map(|spec| spec.bytes() as u64).sum());
    }
    let mut weight_map = BTreeMap::new();
    for (i, shard) in layout::shards(specs, SHARDS).iter().enumerate() {
        let name = format!("model-{:05}-of-{SHARDS:05}.safetensors", i + 1);
        let path = folder.join(&name);
        let tensors = shard.iter().map(|spec| (spec.name.as_str(), RandomTensor { spec, bar: bar.as_ref() }));
        let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
        safetensors::serialize_to_file(tensors, metadata, &path).map_err(|error| failed(&path, &error))?;
        // On the disk, so that dropping the cache makes the next read cold.
        let synced = fs::File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|error| failed(&path, &error))?;
        weight_map.extend(shard.iter().map(|spec| (spec.name.clone(), name.clone())));
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let total: usize = specs.iter().map(Spec::bytes).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    let path = folder.join("model.safetensors.index.json");
    fs::write(&path, format!("{index:#}\n")).map_err(|error| failed(&path, &error))
}
