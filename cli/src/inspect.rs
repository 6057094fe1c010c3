//! `floodtide inspect`: what a checkpoint holds, from its headers.

use crate::args::InspectArgs;
use crate::output::{self, Failure};
use floodtide_core::{Catalog, Escaped, HumanBytes};
use floodtide_linux::{Inspected, Loader};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// Names and shapes wider than this do not push the other columns away; they are shown whole all the same.
const MAX_COLUMN: usize = 64;

pub(crate) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let inspected = Loader::new().inspect(&args.path)?;
    output::warn(&inspected.warnings);
    if args.json {
        return output::print_json(&document(&inspected));
    }
    let mut out = output::stdout();
    table(&mut out, &inspected)?;
    Ok(out.flush()?)
}

fn document(inspected: &Inspected) -> Value {
    let catalog = &inspected.catalog;
    let metadata: Map<String, Value> =
        inspected.metadata.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    let files: Vec<Value> =
        catalog.files().iter().map(|file| json!({"path": file.path, "bytes": file.bytes})).collect();
    let tensors: Vec<Value> = catalog
        .tensors()
        .map(|tensor| {
            json!({
                "name": tensor.name,
                "dtype": tensor.dtype.name(),
                "shape": tensor.shape,
                "file": catalog.file(tensor.file).path,
                "offset": tensor.range.start(),
                "bytes": tensor.range.len(),
            })
        })
        .collect();
    json!({"format": catalog.format().name(), "files": files, "metadata": metadata, "tensors": tensors})
}

fn table(out: &mut impl Write, inspected: &Inspected) -> io::Result<()> {
    let catalog = &inspected.catalog;
    if !catalog.is_empty() {
        tensors(out, catalog)?;
        writeln!(out)?;
    }
    for file in catalog.files() {
        writeln!(out, "{:>10}  {}", HumanBytes(file.bytes).to_string(), Escaped(&file.path))?;
    }
    if !inspected.metadata.is_empty() {
        writeln!(out)?;
        for (key, value) in &inspected.metadata {
            writeln!(out, "{} = {}", Escaped(key), Escaped(value))?;
        }
    }
    let mut totals: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for tensor in catalog.tensors() {
        let total = totals.entry(tensor.dtype.name()).or_default();
        *total = (total.0 + 1, total.1 + tensor.range.len());
    }
    writeln!(out)?;
    for (dtype, (tensors, bytes)) in totals {
        writeln!(out, "{dtype:10}  {:>14}  {:>10}", output::count(tensors, "tensor"), HumanBytes(bytes).to_string())?;
    }
    let total = output::count(catalog.len(), "tensor");
    let files = output::count(catalog.files().len(), "file");
    let bytes = HumanBytes(catalog.tensor_bytes()).to_string();
    writeln!(out, "{:10}  {total:>14}  {bytes:>10}  {}, {files}", "all", catalog.format())
}

fn tensors(out: &mut impl Write, catalog: &Catalog) -> io::Result<()> {
    let rows: Vec<(String, String)> = catalog
        .tensors()
        .map(|tensor| {
            let dims: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
            (Escaped(tensor.name).to_string(), format!("[{}]", dims.join(", ")))
        })
        .collect();
    let width = |column: fn(&(String, String)) -> &str, title: &str| {
        let widest = rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0);
        widest.clamp(title.len(), MAX_COLUMN)
    };
    let (names, shapes) = (width(|row| &row.0, "tensor"), width(|row| &row.1, "shape"));
    writeln!(out, "{:names$}  {:11}  {:shapes$}  {:>10}  {:>14}  file", "tensor", "dtype", "shape", "size", "offset")?;
    for (tensor, (name, shape)) in catalog.tensors().zip(&rows) {
        let path = Path::new(&catalog.file(tensor.file).path);
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let (size, offset) = (HumanBytes(tensor.range.len()).to_string(), tensor.range.start());
        let dtype = tensor.dtype;
        writeln!(out, "{name:names$}  {dtype:11}  {shape:shapes$}  {size:>10}  {offset:>14}  {}", Escaped(&file))?;
    }
    Ok(())
}
