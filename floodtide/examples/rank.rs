//! Loads one rank of a tensor-parallel group: its rows or columns of the projections, and whole
//! other tensors.
//!
//! `cargo run --release -p floodtide --example rank -- MODEL RANK WORLD`, once for each rank

use floodtide::{HumanBytes, Loader, Selection, ShardRules};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, rank, world] = &arguments[..] else { return Err("give MODEL RANK WORLD, as in MODEL 0 2".into()) };
    let (rank, world) = (rank.parse()?, world.parse()?);

    // The first rule that matches a tensor's name counts. Put your own rules before these with
    // `or`.
    let selection = Selection::shard(rank, world, ShardRules::tensor_parallel());
    let tensors = Loader::new().selection(selection).load(model)?;
    let report = tensors.report();
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
    let all = tensors.catalog().tensor_bytes();
    println!(
        "rank {rank} of {world}: {} of {} in {:.1?}, {} read",
        HumanBytes(report.bytes),
        HumanBytes(all),
        report.elapsed,
        HumanBytes(report.read_bytes)
    );

    // The shape is that of this rank's slice.
    let sliced = |name: &str, shape: &[u64]| tensors.catalog().find(name).is_some_and(|whole| whole.shape != shape);
    for tensor in tensors.iter().filter(|tensor| sliced(tensor.name(), tensor.shape())).take(5) {
        println!("{} {} {:?}", floodtide::Escaped(tensor.name()), tensor.dtype(), tensor.shape());
    }
    Ok(())
}
