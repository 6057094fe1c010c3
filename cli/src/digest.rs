//! `floodtide digest`: loads a checkpoint and prints the SHA-256 of every tensor.

use crate::args::DigestArgs;
use crate::load::with_progress;
use crate::output::{self, Failure};
use floodtide::Tensor;
use floodtide::core::Escaped;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) fn run(args: &DigestArgs) -> Result<(), Failure> {
    let tensors = with_progress(args.source.loader()?, &args.source, args.json)?;
    output::warn(&tensors.report().warnings);
    let tensors: Vec<Tensor> = tensors.iter().collect();
    let digests = digest_all(&tensors);
    if args.json {
        let rows: Vec<Value> = tensors
            .iter()
            .zip(&digests)
            .map(|(tensor, digest)| json!({"name": tensor.name(), "sha256": digest}))
            .collect();
        return output::print_json(&json!({ "tensors": rows }));
    }
    let mut out = output::stdout();
    for (tensor, digest) in tensors.iter().zip(&digests) {
        writeln!(out, "{digest}  {}", Escaped(tensor.name()))?;
    }
    Ok(out.flush()?)
}

/// Hashes on every processor. Each thread takes one tensor at a time, so that a large one does not
/// delay the others.
fn digest_all(tensors: &[Tensor]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, tensor)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, tensors.get(i)?)))
        {
            done.push((index, sha256(tensor.as_bytes())));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(tensors.len());
    let mut digests = vec![String::new(); tensors.len()];
    std::thread::scope(|scope| {
        let helpers: Vec<_> =
            (1..threads).filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let mut done = work();
        for helper in helpers {
            match helper.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        for (index, digest) in done {
            digests[index] = digest;
        }
    });
    digests
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_empty_tensor_has_the_known_digest() {
        let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(super::sha256(&[]), known);
    }
}
