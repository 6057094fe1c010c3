//! Writes the manifest of a checkpoint, then loads the checkpoint against it.
//!
//! `cargo run --release -p floodtide --example verify -- MODEL`

use floodtide::{ErrorKind, Escaped, HumanBytes, Loader, read_manifest};
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = std::env::args().nth(1).ok_or("give a checkpoint: a file, an index or a folder")?;
    let file = PathBuf::from(format!("{}.manifest.json", model.trim_end_matches('/')));
    let loader = Loader::new();

    // The publisher of the model writes its manifest, once.
    if !file.exists() {
        fs::write(&file, loader.manifest(&model)?.to_string())?;
        println!("wrote {}", Escaped(&file.to_string_lossy()));
    }
    let manifest = read_manifest(&file)?;

    // The service checks each tensor as its bytes arrive. A tensor that differs is never returned.
    match loader.clone().verify_with(manifest.clone()).load(&model) {
        Ok(tensors) => {
            let report = tensors.report();
            println!("{} tensors, {} verified in {:.1?}", report.tensors, HumanBytes(report.bytes), report.elapsed);
        }
        Err(error) if error.kind() == ErrorKind::ChecksumMismatch => {
            println!("{error}");
            // A load stops at the first difference. This lists all of them.
            for mismatch in loader.verify(&model, &manifest)?.mismatches {
                println!("{mismatch}");
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
