//! `floodtide inspect`: lists what a checkpoint holds, from its headers.

use crate::args::InspectArgs;
use crate::metadata::{self, Pairs, Texts};
use crate::output::{self, Failure};
use floodtide::core::{Catalog, Escaped, FileInfo, HumanBytes, TensorInfo};
use floodtide::{Inspected, Loader};
use serde::{Serialize, Serializer};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

/// The widest column for names and shapes. Longer ones are printed in full but do not widen the
/// column.
const MAX_COLUMN: usize = 64;

pub(crate) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let inspected = Loader::new().inspect(&args.path)?;
    output::warn(&inspected.warnings);
    if args.json {
        return if args.metadata {
            output::print_json(&About::of(&inspected))
        } else {
            output::print_json(&document(&inspected))
        };
    }
    let mut out = output::stdout();
    if args.metadata {
        metadata::lines(&mut out, &inspected.metadata, Texts::Whole)?;
    } else {
        table(&mut out, &inspected)?;
    }
    Ok(out.flush()?)
}

/// The document of `--metadata`.
#[derive(Serialize)]
struct About<'a> {
    format: &'a str,
    metadata: Pairs<'a>,
}

impl<'a> About<'a> {
    fn of(inspected: &'a Inspected) -> Self {
        Self { format: inspected.catalog.format().name(), metadata: Pairs(&inspected.metadata) }
    }
}

/// The JSON document, serialized while it is written: a header can hold millions of dimensions and
/// keys, and a tree of them takes many times their memory.
fn document(inspected: &Inspected) -> impl Serialize {
    let catalog = &inspected.catalog;
    let file = |file: &FileInfo| json!({"path": file.path, "bytes": file.bytes});
    Document {
        format: catalog.format().name(),
        files: Sequence(move || catalog.files().iter().map(file)),
        metadata: Pairs(&inspected.metadata),
        tensors: Sequence(move || {
            with_ties(catalog).map(|(tensor, tied_to)| TensorRow {
                name: tensor.name,
                dtype: tensor.dtype.name(),
                shape: tensor.shape,
                ggml_shape: tensor.dtype.ggml().map(|_| tensor.ggml_shape().collect()),
                file: &catalog.file(tensor.file).path,
                offset: tensor.range.start(),
                bytes: tensor.range.len(),
                tied_to: tied_to.map(|first| first.name),
            })
        }),
    }
}

#[derive(Serialize)]
struct Document<'a, F, T> {
    format: &'a str,
    files: F,
    metadata: Pairs<'a>,
    tensors: T,
}

#[derive(Serialize)]
struct TensorRow<'a> {
    name: &'a str,
    dtype: &'a str,
    shape: &'a [u64],
    /// The shape in ggml's order, for ggml types.
    #[serde(skip_serializing_if = "Option::is_none")]
    ggml_shape: Option<Vec<u64>>,
    file: &'a str,
    offset: u64,
    bytes: u64,
    /// The first tensor with the same bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    tied_to: Option<&'a str>,
}

/// Returns the tensors, each with the earlier tensor that has the same bytes, if any.
fn with_ties(catalog: &Catalog) -> impl Iterator<Item = (TensorInfo<'_>, Option<TensorInfo<'_>>)> {
    catalog.tensors().scan(None, |first: &mut Option<TensorInfo<'_>>, tensor| {
        let tied_to = first.filter(|first| catalog.are_tied(first.id, tensor.id));
        *first = Some(tied_to.unwrap_or(tensor));
        Some((tensor, tied_to))
    })
}

/// Serializes an iterator as an array.
struct Sequence<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Sequence<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
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
        metadata::lines(out, &inspected.metadata, Texts::Short)?;
    }
    let (mut totals, mut ties): (BTreeMap<&str, (usize, u64)>, usize) = (BTreeMap::new(), 0);
    for (tensor, tied_to) in with_ties(catalog) {
        let total = totals.entry(tensor.dtype.name()).or_default();
        // Tied tensors count once.
        *total = (total.0 + 1, total.1 + if tied_to.is_some() { 0 } else { tensor.range.len() });
        ties += usize::from(tied_to.is_some());
    }
    writeln!(out)?;
    for (dtype, (tensors, bytes)) in totals {
        writeln!(out, "{dtype:12}  {:>14}  {:>10}", output::count(tensors, "tensor"), HumanBytes(bytes).to_string())?;
    }
    let total = output::count(catalog.len(), "tensor");
    let files = output::count(catalog.files().len(), "file");
    let bytes = HumanBytes(catalog.tensor_bytes()).to_string();
    write!(out, "{:12}  {total:>14}  {bytes:>10}  {}, {files}", "all", catalog.format())?;
    match ties {
        0 => writeln!(out),
        _ => writeln!(out, "; {} tied to another and counted once", output::count(ties, "tensor")),
    }
}

fn tensors(out: &mut impl Write, catalog: &Catalog) -> io::Result<()> {
    let (mut names, mut shapes) = ("tensor".len(), "shape".len());
    for tensor in catalog.tensors() {
        names = names.max(width(&Escaped(tensor.name)));
        shapes = shapes.max(width(&Shape(tensor.shape)));
    }
    writeln!(out, "{:names$}  {:12}  {:shapes$}  {:>10}  {:>14}  file", "tensor", "dtype", "shape", "size", "offset")?;
    for tensor in catalog.tensors() {
        let path = Path::new(&catalog.file(tensor.file).path);
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let (size, offset) = (HumanBytes(tensor.range.len()).to_string(), tensor.range.start());
        let (name, shape) = (Escaped(tensor.name), Shape(tensor.shape));
        let name_padding = names - width(&name);
        let shape_padding = shapes - width(&shape);
        write!(out, "{name}{:name_padding$}  {:12}  {shape}{:shape_padding$}", "", tensor.dtype, "")?;
        writeln!(out, "  {size:>10}  {offset:>14}  {}", Escaped(&file))?;
    }
    Ok(())
}

/// Formats a shape in brackets, number by number: a shape may have millions of dimensions.
struct Shape<'a>(&'a [u64]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            write!(f, "{}{dim}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// Returns how many characters a value takes in a column, at most [`MAX_COLUMN`].
fn width(shown: &impl fmt::Display) -> usize {
    struct Count(usize);
    impl fmt::Write for Count {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.chars().count();
            // The result is known: an error stops the formatter.
            if self.0 < MAX_COLUMN { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut count = Count(0);
    let _ = fmt::write(&mut count, format_args!("{shown}"));
    count.0.min(MAX_COLUMN)
}
