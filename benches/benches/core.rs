//! The cost of core without system calls: parsing a header, planning a load, and the engine's share
//! of a read.
//!
//! The header bench compares with the reference parser over the same bytes in the same run.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use floodtide_core::format::gguf::{Parsed, parse};
use floodtide_core::format::{SAFETENSORS, safetensors::Header};
use floodtide_core::{
    Alignment, Catalog, CatalogBuilder, DirectLimits, Engine, Outcome, Plan, PlanOptions, Planner, RouteId, Selection,
    to_usize,
};
use safetensors::SafeTensors;
use std::hint::black_box;
use std::sync::Arc;

const TENSORS: usize = 100_000;

/// Returns a file of `TENSORS` tensors of 4 bytes, named as in a mixture-of-experts checkpoint, in
/// the order of the reference writer (by name, because all have one dtype).
fn file() -> Vec<u8> {
    let mut names: Vec<String> =
        (0..TENSORS).map(|i| format!("model.layers.{}.mlp.experts.{}.down_proj.weight", i / 512, i % 512)).collect();
    names.sort();
    let entry = |(i, name): (usize, &String)| {
        format!(r#""{name}":{{"dtype":"F32","shape":[1,1],"data_offsets":[{},{}]}}"#, 4 * i, 4 * i + 4)
    };
    let json = format!("{{{}}}", names.iter().enumerate().map(entry).collect::<Vec<_>>().join(","));
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    file.resize(file.len() + 4 * TENSORS, 0);
    file
}

fn parsing(c: &mut Criterion) {
    let file = file();
    let json = &file[8..file.len() - 4 * TENSORS];
    let mut group = c.benchmark_group("header of 100,000 tensors");
    group.throughput(Throughput::Bytes(json.len() as u64)).sample_size(20);
    group.bench_function("floodtide", |b| b.iter(|| Header::parse(black_box(json), file.len() as u64).expect("valid")));
    group.bench_function("floodtide, into a catalog", |b| {
        b.iter(|| {
            let header = Header::parse(black_box(json), file.len() as u64).expect("valid");
            catalog(&header, file.len() as u64)
        });
    });
    group.bench_function("safetensors::SafeTensors::read_metadata", |b| {
        b.iter(|| SafeTensors::read_metadata(black_box(&file)).expect("valid"));
    });
    group.finish();
}

fn catalog(header: &Header<'_>, file_len: u64) -> Catalog {
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    header.add_to(&mut builder, "model.safetensors", file_len).expect("adds");
    builder.finish().expect("unique")
}

/// Returns the GGUF header of a model with a large tokenizer: 250,000 tokens with scores, types and
/// merges, and 1,000 tensors.
fn gguf_header() -> (Vec<u8>, u64) {
    const TOKENS: u64 = 250_000;
    const TENSORS: u64 = 1000;
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let array = |key: &str, element: i32, elements: &[u8]| {
        let start = [&string(key)[..], &9_i32.to_le_bytes(), &element.to_le_bytes(), &TOKENS.to_le_bytes()].concat();
        [&start, elements].concat()
    };
    let texts = |text: &dyn Fn(u64) -> String| (0..TOKENS).flat_map(|i| string(&text(i))).collect::<Vec<u8>>();
    let mut header = b"GGUF\x03\0\0\0".to_vec();
    header.extend([TENSORS, 4].iter().flat_map(|count| count.to_le_bytes()));
    header.extend(array("tokenizer.ggml.tokens", 8, &texts(&|i| format!("▁token{i:x}"))));
    header.extend(array("tokenizer.ggml.scores", 6, &[0; to_usize(4 * TOKENS)]));
    header.extend(array("tokenizer.ggml.token_type", 5, &[0; to_usize(4 * TOKENS)]));
    header.extend(array("tokenizer.ggml.merges", 8, &texts(&|i| format!("▁token{i:x} ▁token{:x}", i + 1))));
    for tensor in 0..TENSORS {
        header.extend(string(&format!("blk.{}.ffn_down_exps.{tensor}.weight", tensor / 9)));
        header.extend([&2_u32.to_le_bytes()[..], &256_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat());
        // Q4_K: a block of 144 bytes, padded to 160.
        header.extend([&12_i32.to_le_bytes()[..], &(160 * tensor).to_le_bytes()].concat());
    }
    let file_len = header.len() as u64 + 32 + 160 * TENSORS;
    (header, file_len)
}

/// Parses the whole file at once, and as a loader does, which starts with 64 KiB and doubles the
/// length each time.
fn gguf(c: &mut Criterion) {
    let (header, file_len) = gguf_header();
    let mut group = c.benchmark_group("GGUF header of 500,000 strings");
    group.throughput(Throughput::Bytes(header.len() as u64)).sample_size(20);
    group.bench_function("at once", |b| b.iter(|| black_box(parse(black_box(&header), file_len).expect("valid"))));
    group.bench_function("in steps", |b| {
        b.iter(|| {
            let mut read = 64 << 10;
            while let Parsed::Needs(needed) = parse(black_box(&header[..read]), file_len).expect("valid") {
                read = to_usize(needed).max(2 * read).min(header.len());
            }
        });
    });
    group.finish();
}

/// Returns a catalog of one file with `count` tensors of `bytes` each.
fn uniform(count: u64, bytes: u64) -> Catalog {
    let entry = |i: u64| {
        format!(r#""t{i:06}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[{},{}]}}"#, i * bytes, (i + 1) * bytes)
    };
    let json = format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","));
    let file_len = 8 + json.len() as u64 + count * bytes;
    catalog(&Header::parse(json.as_bytes(), file_len).expect("valid"), file_len)
}

fn plan(catalog: &Catalog, chunk_bytes: u64) -> Plan {
    let alignment = Alignment::new(512).expect("a power of two");
    let direct = vec![Some(DirectLimits { offset: alignment, memory: alignment })];
    let selected = Selection::All.resolve(catalog).expect("all");
    let options = PlanOptions { direct, chunk_bytes, ..PlanOptions::default() };
    Planner::new(options).plan(catalog, &selected).expect("plans")
}

fn planning(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    group.sample_size(20);
    let many = uniform(100_000, 4096);
    group.bench_function("100,000 tensors of 4 KiB", |b| b.iter(|| plan(black_box(&many), 2 << 20)));
    let large = uniform(1000, 700 << 20);
    group.bench_function("700 GB in 1,000 tensors", |b| b.iter(|| plan(black_box(&large), 2 << 20)));
    group.finish();
}

/// Runs a load without a device: each read completes eight reads later, as with a ring. The time
/// per element is the engine's cost of one read.
fn engine(c: &mut Criterion) {
    let catalog = Arc::new(uniform(1000, 16 << 20));
    let plan = Arc::new(plan(&catalog, 2 << 20));
    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(plan.chunks().len() as u64)).sample_size(50);
    group.bench_function("a read", |b| {
        b.iter_batched(
            || Engine::new(Arc::clone(&catalog), Arc::clone(&plan), u64::MAX),
            |mut engine| {
                let mut in_flight = std::collections::VecDeque::with_capacity(8);
                loop {
                    while in_flight.len() < 8
                        && let Some(op) = engine.next_read(RouteId(0))
                    {
                        in_flight.push_back(op);
                    }
                    let Some(op) = in_flight.pop_front() else { break };
                    let _ = black_box(engine.complete(op.id, Outcome::Read(op.len)));
                    while let Some(event) = engine.poll_event() {
                        black_box(event);
                    }
                }
                engine.result().expect("loads");
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, parsing, gguf, planning, engine);
criterion_main!(benches);
