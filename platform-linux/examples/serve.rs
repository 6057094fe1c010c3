//! Swaps a model in an async service: loads in the background with progress, gives up when it takes too long.
//!
//! `cargo run --release -p floodtide-linux --features tokio --example serve -- model.safetensors`

use floodtide_core::HumanBytes;
use floodtide_linux::{Loader, Tensors};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give a safetensors file, its index or its folder")?;
    let done = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&done);
    let loader = Loader::new().on_progress(move |progress| seen.store(progress.bytes_done, Ordering::Relaxed));

    // The service goes on while the weights come in. When the time is over, the future is dropped, which cancels the load.
    let model: Tensors = match tokio::time::timeout(Duration::from_secs(60), loader.load_async(&path)).await {
        Ok(loaded) => loaded?,
        Err(_) => return Err(format!("gave up after {}", HumanBytes(done.load(Ordering::Relaxed))).into()),
    };
    println!("serving {} tensors, {}", model.len(), HumanBytes(done.load(Ordering::Relaxed)));
    Ok(())
}
