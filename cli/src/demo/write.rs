//! Writes the demo's checkpoint with the format's reference writer, generating contents on the way.

use super::layout::{self, Spec};
use super::room;
use crate::output::{self, Failure};
use indicatif::ProgressBar;
use safetensors::{Dtype, SafeTensorError, View};
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const SHARDS: usize = 2;

/// A tensor of random contents, generated only when the writer asks for them.
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

const INDEX: &str = "model.safetensors.index.json";

fn shard_name(number: usize) -> String {
    format!("model-{number:05}-of-{SHARDS:05}.safetensors")
}

/// Writes shards and index into an existing, empty folder. On failure the folder is empty again.
pub(crate) fn write(folder: &Path, specs: &[Spec], quiet: bool) -> Result<(), Failure> {
    write_all(folder, specs, quiet).inspect_err(|_| {
        for name in (1..=SHARDS).map(shard_name).chain([INDEX.to_owned()]) {
            // A file that was not begun does not exist. A file that cannot be removed stays: the
            // first error is the one to report.
            let _ = fs::remove_file(folder.join(name));
        }
    })
}

/// Describes why a file could not be written. On a full disk, also names a scale that fits: the
/// disk held `taken` bytes.
fn explain(path: &Path, error: &io::Error, taken: u64) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("; {}", room::advice(taken)),
        _ => String::new(),
    };
    Failure::Failed(format!("{}: cannot write the demo's checkpoint: {error}{advice}", path.display()))
}

/// Returns the bytes that the folder's files take on disk.
fn taken(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

fn write_all(folder: &Path, specs: &[Spec], quiet: bool) -> Result<(), Failure> {
    let failed = |path: &Path, error: io::Error| explain(path, &error, taken(folder));
    let bar = if quiet { None } else { output::progress_bar("writing") };
    if let Some(bar) = &bar {
        bar.set_length(specs.iter().map(|spec| spec.bytes() as u64).sum());
    }
    let mut weight_map = BTreeMap::new();
    for (i, shard) in layout::shards(specs, SHARDS).iter().enumerate() {
        let name = shard_name(i + 1);
        let path = folder.join(&name);
        let tensors = shard.iter().map(|spec| (spec.name.as_str(), RandomTensor { spec, bar: bar.as_ref() }));
        // The writer replaces this file with one that only its owner may read, so remember the mode
        // that a new file gets here.
        let permissions = fs::File::create(&path).and_then(|file| Ok(file.metadata()?.permissions()));
        let permissions = permissions.map_err(|error| failed(&path, error))?;
        let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
        safetensors::serialize_to_file(tensors, metadata, &path).map_err(|error| match error {
            SafeTensorError::IoError(error) => failed(&path, error),
            other => failed(&path, io::Error::other(other)),
        })?;
        // Sync, so that dropping the cache makes the next read cold.
        let synced = fs::File::open(&path).and_then(|file| {
            file.set_permissions(permissions)?;
            file.sync_all()
        });
        synced.map_err(|error| failed(&path, error))?;
        weight_map.extend(shard.iter().map(|spec| (spec.name.clone(), name.clone())));
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let total: usize = specs.iter().map(Spec::bytes).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    let path = folder.join(INDEX);
    fs::write(&path, format!("{index:#}\n")).map_err(|error| failed(&path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_advice_that_follows_its_room() {
        let message = |error: io::Error, taken| match explain(Path::new("shard"), &error, taken) {
            Failure::Failed(message) => message,
            other => panic!("{other:?}"),
        };
        let full = |taken| message(io::ErrorKind::StorageFull.into(), taken);
        assert!(full(256 << 20).ends_with(&room::advice(256 << 20)));
        assert!(full(1 << 20).contains("even the smallest"));
        assert!(!message(io::ErrorKind::PermissionDenied.into(), 1 << 20).contains("smallest"));
    }

    #[test]
    fn every_file_of_the_checkpoint_has_the_mode_of_a_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode();
        let plain = folder.path().join("plain");
        fs::write(&plain, "").expect("writes");
        write(folder.path(), &layout::gpt2(0.001), true).expect("writes");
        for name in (1..=SHARDS).map(shard_name).chain([INDEX.to_owned()]) {
            assert_eq!(mode(&folder.path().join(&name)), mode(&plain), "{name}");
        }
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        // The index cannot be written where a folder has its name.
        fs::create_dir(folder.path().join(INDEX)).expect("makes");
        write(folder.path(), &layout::gpt2(0.001), true).expect_err("no index");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
    }
}
