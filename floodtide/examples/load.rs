//! Loads a checkpoint with default options, and sums up one tensor through a typed view.
//!
//! `cargo run --release -p floodtide --example load -- model.safetensors`

use floodtide::{DType, Escaped, HumanBytes, Loader};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give a safetensors file, its index or its folder")?;
    let tensors = Loader::new().load(&path)?;
    let report = tensors.report();
    println!("{} tensors, {} in {:?}", report.tensors, HumanBytes(report.bytes), report.elapsed);
    println!("read by {}: {}", report.backend, report.reason());

    // A tensor keeps the memory of its load alive, so it can outlive `tensors` and go to any
    // thread.
    let Some(tensor) = tensors.iter().find(|tensor| tensor.dtype() == DType::F32) else { return Ok(()) };
    drop(tensors);
    let sum = std::thread::spawn(move || -> Result<String, floodtide::ViewError> {
        let values: &[f32] = tensor.elements()?;
        // A checkpoint may hold any values, and one NaN would hide all others.
        let finite = values.iter().map(|&value| f64::from(value)).filter(|value| value.is_finite());
        let (count, sum) = finite.fold((0_usize, 0.0), |(count, sum), value| (count + 1, sum + value));
        let (name, shape) = (Escaped(tensor.name()), tensor.shape());
        Ok(format!("{name} {shape:?}: {count} of {} values are finite and sum up to {sum:.3e}", values.len()))
    });
    println!("{}", sum.join().map_err(|_| "the thread panicked")??);
    Ok(())
}
