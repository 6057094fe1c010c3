//! Measures what is too short to time once: repeats and compares it in one process.

use crate::measure::{median, prepare, touch};
use crate::{explain, shards};
use floodtide::{Loader, Tensors};
use serde_json::json;
use std::path::Path;
use std::time::Instant;

fn seconds<T>(work: impl FnOnce() -> Result<T, String>) -> Result<f64, String> {
    let start = Instant::now();
    let kept = work()?;
    let seconds = start.elapsed().as_secs_f64();
    drop(kept);
    Ok(seconds)
}

fn load(loader: &Loader, folder: &Path) -> Result<Tensors, String> {
    let tensors = loader.load(folder).map_err(explain)?;
    std::hint::black_box(tensors.iter().map(|tensor| touch(tensor.as_bytes())).sum::<u64>());
    Ok(tensors)
}

/// Compares loading a small checkpoint of one file with reading that file.
pub(crate) fn small(folder: &Path) -> Result<(), String> {
    const TIMES: usize = 200;
    prepare()?;
    let shards = shards(folder)?;
    let path = shards.first().ok_or("there are no shards")?;
    let loader = Loader::new();
    let (mut own, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        own.push(seconds(|| load(&loader, path))?);
        plain.push(seconds(|| {
            let bytes = std::fs::read(path).map_err(explain)?;
            std::hint::black_box(touch(&bytes));
            Ok(bytes)
        })?);
    }
    println!("{}", json!({ "seconds": median(own), "read_seconds": median(plain) }));
    Ok(())
}

/// Measures planning: from a path to every read of a load.
pub(crate) fn plan(folder: &Path) -> Result<(), String> {
    const TIMES: usize = 5;
    prepare()?;
    let mut times = Vec::new();
    let mut tensors = 0;
    for _ in 0..TIMES {
        times.push(seconds(|| {
            let planned = Loader::new().plan(folder).map_err(explain)?;
            tensors = planned.catalog.len();
            Ok(planned)
        })?);
    }
    println!("{}", json!({ "seconds": median(times), "tensors": tensors }));
    Ok(())
}

/// Compares two checkpoints of the same bytes, one of many tensors and one of few. The difference
/// is the cost of tensors.
pub(crate) fn per_tensor(many: &Path, few: &Path) -> Result<(), String> {
    const TIMES: usize = 15;
    prepare()?;
    let loader = Loader::new();
    let mut differences = Vec::new();
    let mut tensors = [0, 0];
    for _ in 0..TIMES {
        let mut times = [0.0, 0.0];
        for (i, folder) in [many, few].into_iter().enumerate() {
            times[i] = seconds(|| {
                let loaded = load(&loader, folder)?;
                tensors[i] = loaded.len();
                Ok(loaded)
            })?;
        }
        differences.push(times[0] - times[1]);
    }
    let more = (tensors[0] - tensors[1]) as f64;
    println!("{}", json!({ "seconds_per_tensor": median(differences) / more, "tensors": tensors[0] }));
    Ok(())
}
