//! `floodtide verify`: checks a checkpoint's structure, and with a manifest its content.

use crate::args::VerifyArgs;
use crate::load::watched;
use crate::output::{self, Facts, Failure};
use floodtide::{Error, Inspected, Loader, Mismatch, StreamOptions, VerifyReport, read_manifest};
use serde_json::{Value, json};
use std::io::Write;

pub(crate) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    // A manifest that cannot be read fails before anything slow starts.
    let manifest = args.manifest.as_ref().map(read_manifest).transpose()?;
    let mut loader = Loader::new();
    if let Some(limit) = args.memory_limit {
        loader = loader.stream_options(StreamOptions::new().memory_limit(limit.as_u64()));
    }
    let inspected = match loader.check_structure(&args.path) {
        Ok(inspected) => inspected,
        Err(errors) => return broken(args, errors),
    };
    output::warn(&inspected.warnings);
    let report = match manifest {
        None => None,
        Some(manifest) => {
            let files = output::count(inspected.catalog.files().len(), "file");
            let what = format!("verifying {files} in parallel: SHA-256 of files, BLAKE3 of tensors");
            Some(watched(loader, what, args.json, |loader| loader.verify(&args.path, &manifest))?)
        }
    };
    let shown = if args.json {
        output::print_json(&document(args, &inspected, report.as_ref()))
    } else {
        show(&inspected, report.as_ref())
    };
    output::exit_for(shown, report.is_none_or(|report| report.is_same()))
}

/// Reports an invalid structure; the content is not compared then.
fn broken(args: &VerifyArgs, mut errors: Vec<Error>) -> Result<(), Failure> {
    if let Some(usage) = errors.iter().position(output::is_usage) {
        return Err(errors.swap_remove(usage).into());
    }
    if args.json {
        let rows: Vec<Value> = errors.iter().map(|error| json!(error.to_string())).collect();
        let path = args.path.to_string_lossy();
        let shown = output::print_json(&json!({"path": path, "valid": false, "errors": rows, "same": Value::Null}));
        return output::exit_for(shown, false).inspect_err(|_| complain(&errors));
    }
    complain(&errors);
    Err(Failure::Differs)
}

fn complain(errors: &[Error]) {
    errors.iter().for_each(|error| output::complain("error", &error.to_string()));
}

fn show(inspected: &Inspected, report: Option<&VerifyReport>) -> Result<(), Failure> {
    let catalog = &inspected.catalog;
    let (tensors, files) = (catalog.len(), catalog.files().len());
    let valid = format!(
        "{}, {} in {}: valid",
        catalog.format(),
        output::count(tensors, "tensor"),
        output::count(files, "file")
    );
    let mut facts = vec![("structure", valid)];
    let mut out = output::stdout();
    if let Some(report) = report {
        for mismatch in &report.mismatches {
            writeln!(out, "{mismatch}")?;
        }
        let tensors = output::count(tensors, "tensor");
        let files = output::count(report.files, "file");
        facts.push((
            "content",
            match report.mismatches.len() {
                0 => format!("{tensors} and {files}: match the manifest"),
                count => format!("{tensors} and {files}: {}", output::count(count, "difference")),
            },
        ));
        let rate = output::gib_per_second(report.bytes, report.elapsed);
        let time = output::duration(report.elapsed);
        facts.push(("read", format!("{} in {time}, {rate:.2} GiB/s", output::bytes(report.bytes))));
    }
    write!(out, "{}", Facts(facts))?;
    Ok(out.flush()?)
}

fn document(args: &VerifyArgs, inspected: &Inspected, report: Option<&VerifyReport>) -> Value {
    let catalog = &inspected.catalog;
    let mut document = json!({
        "path": args.path.to_string_lossy(),
        "valid": true,
        "errors": [],
        "format": catalog.format().name(),
        "tensors": catalog.len(),
        "files": catalog.files().len(),
        "warnings": output::texts(&inspected.warnings),
        "same": report.map(VerifyReport::is_same),
    });
    if let Some(report) = report {
        document["differences"] = report.mismatches.iter().map(row).collect();
        document["bytes"] = report.bytes.into();
        document["seconds"] = report.elapsed.as_secs_f64().into();
    }
    document
}

fn row(mismatch: &Mismatch) -> Value {
    let mut row = match mismatch {
        Mismatch::TensorContent { tensor, file, start, end, expected, found } => json!({
            "tensor": tensor, "file": file, "start": start, "end": end,
            "expected": expected.to_string(), "found": found.to_string(),
        }),
        Mismatch::TensorKind { tensor, dtype, shape, manifest_dtype, manifest_shape } => json!({
            "tensor": tensor,
            "expected": {"dtype": manifest_dtype.name(), "shape": manifest_shape},
            "found": {"dtype": dtype.name(), "shape": shape},
        }),
        Mismatch::TensorMissing { tensor } => json!({"tensor": tensor}),
        Mismatch::TensorAdded { tensor, file } => json!({"tensor": tensor, "file": file}),
        Mismatch::FileContent { file, expected, found, tensors } => json!({
            "file": file, "tensors": tensors, "expected": expected.to_string(), "found": found.to_string(),
        }),
        Mismatch::FileLength { file, expected, found } => {
            json!({"file": file, "expected": expected, "found": found})
        }
        Mismatch::FileMissing { file } | Mismatch::FileAdded { file } => json!({"file": file}),
        _ => json!({}),
    };
    row["kind"] = mismatch.kind().into();
    row["message"] = mismatch.to_string().into();
    row
}
