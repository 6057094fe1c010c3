//! Swaps a model in an async service. While one model is served, the next one loads in the
//! background, with a time limit. Then they are swapped, and the memory of the old model is kept
//! for the next load.
//!
//! `cargo run --release -p floodtide --features tokio --example serve -- gpt2 other-gpt2`
//!
//! Without a second path the first one is loaded again.

use floodtide::{HumanBytes, Loader, Tensors};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let first = paths.next().ok_or("give a checkpoint's file, index or folder, and another one to swap it with")?;
    let second = paths.next().unwrap_or_else(|| first.clone());

    let done = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&done);
    // Keep the memory of the old model for the next load: fresh memory must be zeroed and mapped
    // page by page. A swap holds two models in memory anyway, so this does not raise the peak.
    let loader = Loader::new()
        .arena_cache_limit(u64::MAX)
        .on_progress(move |progress| seen.store(progress.bytes_done, Ordering::Relaxed));

    let mut serving = load(&loader, &first, &done).await?;
    for path in [&second, &first] {
        let next = load(&loader, path, &done).await?;
        // Tensors of the old model that are still held stay valid. Its memory is kept for reuse
        // once all of them are dropped.
        let old = std::mem::replace(&mut serving, next);
        drop(old);
        println!("  swapped; {} are kept for the next load", HumanBytes(loader.arena_cache_len()));
    }

    // No other swap follows: return the memory to the system.
    loader.clear_arena_cache();
    println!("cleared; {} are kept, serving {} tensors", HumanBytes(loader.arena_cache_len()), serving.len());
    Ok(())
}

/// Loads without blocking the service. On a timeout the future is dropped, which cancels the load.
async fn load(loader: &Loader, path: &Path, done: &AtomicU64) -> Result<Tensors, Box<dyn Error>> {
    let started = Instant::now();
    let model = match tokio::time::timeout(PATIENCE, loader.load_async(path)).await {
        Ok(loaded) => loaded?,
        Err(_) => {
            let came = HumanBytes(done.load(Ordering::Relaxed));
            return Err(format!("{}: gave up with {came} after {PATIENCE:?}", path.display()).into());
        }
    };
    let (bytes, reason) = (HumanBytes(model.report().bytes), model.report().reason());
    println!("{}: {} tensors, {bytes} in {:.1?} ({reason})", path.display(), model.len(), started.elapsed());
    Ok(model)
}
