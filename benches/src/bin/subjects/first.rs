//! Measures the time to the first tensor of a checkpoint that is only mapped.

use crate::measure::{status, timed, touch};
use crate::{explain, shards};
use floodtide::Loader;
use memmap2::Mmap;
use safetensors::SafeTensors;
use std::fs::File;
use std::path::{Path, PathBuf};

pub(crate) fn run(way: &str, folder: &Path, name: &str) -> Result<(), String> {
    let anonymous = status("RssAnon:");
    let mut report = match way {
        "auto" => {
            timed(|| {
                let tensors = Loader::new().map(folder).map_err(explain)?;
                let tensor = tensors.get(name).ok_or("there is no such tensor")?;
                std::hint::black_box(touch(tensor.as_bytes()));
                Ok((tensor.as_bytes().len() as u64, tensors))
            })?
            .0
        }
        // All shards, as a program must that does not know which of them has the tensor.
        "safetensors" => timed(|| find(&shards(folder)?, name))?.0,
        // Only the shard that has the tensor: the first.
        "safetensors-shard" => {
            let path = shards(folder)?.first().cloned().ok_or("there are no shards")?;
            timed(|| find(&[path], name))?.0
        }
        _ => return Err(format!("there is no way \"{way}\"")),
    };
    // Copied tensors would be here.
    report["copied_bytes"] = status("RssAnon:").saturating_sub(anonymous).into();
    println!("{report}");
    Ok(())
}

/// Maps files with the reference library, and touches the tensor in the file that has it.
fn find(paths: &[PathBuf], name: &str) -> Result<(u64, Vec<Mmap>), String> {
    let mut maps = Vec::new();
    let mut bytes = None;
    for path in paths {
        let file = File::open(path).map_err(explain)?;
        // SAFETY: no process writes to the bench's own files while it runs.
        let map = unsafe { Mmap::map(&file) }.map_err(explain)?;
        let tensors = SafeTensors::deserialize(&map).map_err(explain)?;
        if let Ok(tensor) = tensors.tensor(name) {
            std::hint::black_box(touch(tensor.data()));
            bytes = Some(tensor.data().len() as u64);
        }
        maps.push(map);
    }
    Ok((bytes.ok_or("there is no such tensor")?, maps))
}
