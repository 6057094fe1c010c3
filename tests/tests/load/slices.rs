//! Slices and shards: for any shape, dimension and backend, the bytes equal those that the
//! reference library slices, and no unneeded bytes are read.

use floodtide::backend::PREAD;
use floodtide::{Loader, Order, StreamOptions, Tensor};
use floodtide_core::{DType, Glob, Partition, Selection, ShardRules};
use floodtide_tests::checkpoint::{folder, raw};
use floodtide_tests::command;
use floodtide_tests::layout::drop_cache;
use floodtide_tests::over_storages::places;
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::slice::TensorIndexer;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Tensors by dtype and shape.
type Shapes = Vec<(DType, Vec<u64>)>;

/// Writes a file of these tensors with bytes that differ everywhere, and spaces before the data.
fn write(path: &Path, tensors: &Shapes, padding: usize) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (number, (dtype, shape)) in tensors.iter().enumerate() {
        let begin = data.len();
        let bytes = (shape.iter().product::<u64>() * dtype.bits() / 8) as usize;
        data.extend((0..bytes).map(|i| (i * 7 + i / 255 + i / 65_000 + number * 31) as u8));
        let offsets = [begin, data.len()];
        let entry = serde_json::json!({"dtype": dtype.name(), "shape": shape, "data_offsets": offsets});
        header.insert(format!("t{number}"), entry);
    }
    let json = serde_json::Value::Object(header).to_string() + &" ".repeat(padding);
    fs::write(path, raw(&json, &data)).expect("writes");
}

/// Returns the name, shape and bytes of the slice from the reference library.
type Expected = BTreeMap<String, (Vec<u64>, Vec<u8>)>;

fn cut_out(file: &[u8], cut: impl Fn(&str, &[u64]) -> Option<(usize, u64, u64)>) -> Expected {
    let tensors = SafeTensors::deserialize(file).expect("valid");
    let slice = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let mut shape: Vec<u64> = view.shape().iter().map(|&n| n as u64).collect();
        let Some((dim, start, end)) = cut(name, &shape) else {
            return (name.to_owned(), (shape, view.data().to_vec()));
        };
        shape[dim] = end - start;
        let mut index: Vec<TensorIndexer> = (0..dim).map(|_| TensorIndexer::from(..)).collect();
        index.push(TensorIndexer::from(start as usize..end as usize));
        // The reference library does not support empty slices.
        let bytes = match start == end || view.data().is_empty() {
            true => Vec::new(),
            false => view.sliced_data(&index).expect("a slice").flatten().copied().collect(),
        };
        (name.to_owned(), (shape, bytes))
    };
    tensors.iter().map(slice).collect()
}

fn assert_equal(found: impl Iterator<Item = Tensor>, expected: &Expected, what: &str) {
    let found: BTreeMap<String, Tensor> = found.map(|tensor| (tensor.name().to_owned(), tensor)).collect();
    assert!(found.keys().eq(expected.keys()), "{what}");
    for ((name, tensor), (shape, bytes)) in found.iter().zip(expected.values()) {
        assert_eq!(tensor.shape(), shape, "{what}: {name}");
        assert!(tensor.as_bytes() == bytes, "{what}: {name} {shape:?} differs");
        let aligned = (tensor.as_bytes().as_ptr() as u64).is_multiple_of(tensor.dtype().alignment());
        assert!(bytes.is_empty() || aligned, "{what}: {name} is not aligned");
    }
}

/// Loads and streams by every way there is.
fn assert_all_ways(selection: &Selection, path: &Path, expected: &Expected) {
    for place in places(path) {
        let loader = place.loader.clone().selection(selection.clone());
        for &backend in &place.backends {
            drop_cache(path.parent().expect("a folder"));
            let tensors = loader.clone().backend(backend).load(&place.path).expect("loads");
            assert_equal(tensors.iter(), expected, backend.name());
            let bytes: u64 = expected.values().map(|(_, bytes)| bytes.len() as u64).sum();
            assert_eq!(tensors.report().bytes, bytes, "{backend}");
            if backend.is_mapped() {
                continue;
            }
            let options = StreamOptions::new().buffer_bytes(64 << 10);
            let stream = |options| loader.clone().backend(backend).stream_options(options).stream(&place.path);
            let streamed = stream(options.clone().memory_limit(32 << 20).order(Order::File))
                .expect("opens")
                .map(|tensor| tensor.expect("comes"));
            assert_equal(streamed, expected, "a stream");
            let mut parts = BTreeMap::new();
            let report =
                stream(options.memory_limit(1 << 20)).expect("opens").for_each_part(|tensor, offset, bytes| {
                    let (shape, whole) = parts
                        .entry(tensor.name.to_owned())
                        .or_insert_with(|| (tensor.shape.to_vec(), vec![0; tensor.byte_len() as usize]));
                    assert_eq!(shape, tensor.shape);
                    whole[offset as usize..][..bytes.len()].copy_from_slice(bytes);
                });
            assert_eq!(report.expect("ends").bytes, bytes);
            assert!(parts == *expected, "{backend}: the parts differ");
        }
        assert_equal(loader.load(&place.path).expect("loads").iter(), expected, "auto, cached");
        assert_equal(loader.map(&place.path).expect("opens").iter(), expected, "open");
    }
}

fn shapes() -> impl Strategy<Value = Shapes> {
    let dtype = prop::sample::select(vec![DType::U8, DType::BF16, DType::F32, DType::F64, DType::C64, DType::F8_E4M3]);
    let shape = prop_oneof![
        4 => prop::collection::vec(0_u64..6, 0..5),
        3 => (1_u64..300, 1_u64..400).prop_map(|(a, b)| vec![a, b]),
        2 => (1_u64..6, 1_u64..30, 1_u64..3000).prop_map(|(a, b, c)| vec![a, b, c]),
        1 => (1_u64..6, 50_000_u64..200_000).prop_map(|(a, b)| vec![a, b]),
    ];
    prop::collection::vec((dtype, shape), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_slices_are_what_the_reference_cuts_out(
        shapes in shapes(),
        cuts in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u64>(), any::<u64>()), 5),
        padding in 0_usize..9,
    ) {
        let folder = folder();
        let path = folder.path().join("model.safetensors");
        write(&path, &shapes, padding);
        let cut = |name: &str, shape: &[u64]| {
            let number: usize = name[1..].parse().expect("a number");
            let (sliced, dim, a, b) = cuts[number];
            let dim = (dim as usize).checked_rem(shape.len()).filter(|_| sliced)?;
            let (a, b) = (a % (shape[dim] + 1), b % (shape[dim] + 1));
            Some((dim, a.min(b), a.max(b)))
        };
        let mut selection = Selection::names::<&str>([]);
        for (number, (_, shape)) in shapes.iter().enumerate() {
            let name = format!("t{number}");
            selection = selection.and(match cut(&name, shape) {
                Some((dim, start, end)) => Selection::slice(name, dim as u32, start..end),
                None => Selection::names([name]),
            });
        }
        let expected = cut_out(&fs::read(&path).expect("reads"), cut);
        assert_all_ways(&selection, &path, &expected);
    }

    #[test]
    fn all_ranks_together_have_everything(shapes in shapes(), dim in 0_u32..3, world in 1_u32..6) {
        let folder = folder();
        let path = folder.path().join("model.safetensors");
        write(&path, &shapes, 0);
        // A dimension that a tensor does not have would be refused.
        let deep = |number: usize| shapes[number].1.len() > dim as usize;
        let rules = (0..shapes.len()).map(|number| {
            let cut = if deep(number) { Partition::Shard(dim) } else { Partition::Replicate };
            (Glob::new(&format!("t{number}")).expect("closed"), cut)
        });
        let rules = ShardRules::new(rules);
        let file = fs::read(&path).expect("reads");
        let whole = cut_out(&file, |_, _| None);
for place in places(&path) {
        let mut together: BTreeMap<String, (u64, Vec<Vec<u8>>)> = BTreeMap::new();
        for rank in 0..world {
            let loader = place.loader.clone().selection(Selection::shard(rank, world, rules.clone()));
            for tensor in loader.load(&place.path).expect("loads").iter() {
                let number: usize = tensor.name()[1..].parse().expect("a number");
                if !deep(number) {
                    prop_assert!(tensor.as_bytes() == whole[tensor.name()].1, "every rank has it");
                    continue;
                }
                let (rows, parts) = together.entry(tensor.name().to_owned()).or_default();
                *rows += tensor.shape()[dim as usize];
                // One block for each index of the dimensions before.
                let outer: u64 = tensor.shape()[..dim as usize].iter().product();
                let block = (tensor.as_bytes().len() as u64).checked_div(outer).unwrap_or(0) as usize;
                parts.resize(outer as usize, Vec::new());
                for (part, bytes) in parts.iter_mut().zip(tensor.as_bytes().chunks(block.max(1))) {
                    part.extend_from_slice(bytes);
                }
            }
        }
        for (name, (rows, parts)) in together {
            let (shape, bytes) = &whole[&name];
            prop_assert_eq!(rows, shape[dim as usize]);
            prop_assert!(parts.concat() == *bytes, "{} differs", name);
        }
}
    }
}

/// Large enough for direct reads, for blocks that are read one by one, and for reads that span the
/// gaps.
#[test]
fn large_slices_come_by_direct_reads() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    let shapes = vec![
        (DType::BF16, vec![1000, 3000]),
        (DType::F32, vec![6, 1_000_000]),
        (DType::U8, vec![3, 4_000_001]),
        (DType::BF16, vec![4, 500, 1000]),
    ];
    write(&path, &shapes, 3);
    for (dim, share) in [(0, 3), (1, 2), (1, 7)] {
        let cut = |_: &str, shape: &[u64]| Some((dim, shape[dim] / share, shape[dim] * 2 / share));
        let names = shapes.iter().enumerate().map(|(number, (_, shape))| (format!("t{number}"), shape));
        let selection = names.fold(Selection::names::<&str>([]), |selection, (name, shape)| {
            selection.and(Selection::slice(name, dim as u32, shape[dim] / share..shape[dim] * 2 / share))
        });
        let expected = cut_out(&fs::read(&path).expect("reads"), cut);
        assert_all_ways(&selection, &path, &expected);
    }
}

/// Returns the layout of a small Llama.
fn llama(path: &Path) {
    const HIDDEN: usize = 512;
    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens.weight".to_owned(), vec![4096, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
        ("lm_head.weight".to_owned(), vec![4096, HIDDEN]),
    ];
    for layer in 0..4 {
        let mut add =
            |name: &str, shape: &[usize]| tensors.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        add("input_layernorm", &[HIDDEN]);
        add("self_attn.q_proj", &[HIDDEN, HIDDEN]);
        add("self_attn.k_proj", &[HIDDEN / 2, HIDDEN]);
        add("self_attn.o_proj", &[HIDDEN, HIDDEN]);
        add("mlp.gate_proj", &[4 * HIDDEN, HIDDEN]);
        add("mlp.down_proj", &[HIDDEN, 4 * HIDDEN]);
    }
    let data: Vec<u8> = (0..4096 * HIDDEN * 2).map(|i| (i * 37 + i / 256) as u8).collect();
    let view = |shape: &Vec<usize>| {
        let bytes = &data[..shape.iter().product::<usize>() * 2];
        safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, shape.clone(), bytes).expect("fits")
    };
    safetensors::serialize_to_file(tensors.iter().map(|(name, shape)| (name, view(shape))), None, path)
        .expect("writes");
}

#[test]
fn a_rank_of_four_reads_about_a_quarter() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    llama(&path);
    let path = path.to_str().expect("UTF-8");
    let bytes = |arguments: &[&str], key: &str| {
        let document = command::run(arguments.iter().copied().chain([path, "--json"])).json();
        document[key].as_u64().unwrap_or_else(|| panic!("no {key} in {document}"))
    };
    let whole = bytes(&["load"], "bytes");
    let quarter = |bytes: u64| assert!(bytes >= whole / 4 && bytes <= whole * 26 / 100, "{bytes} of {whole}");
    for rank in ["0/4", "3/4"] {
        quarter(bytes(&["load", "--shard", rank], "bytes"));
        quarter(bytes(&["load", "--shard", rank], "read_bytes"));
        quarter(bytes(&["plan", "--shard", rank], "selected_bytes"));
        quarter(bytes(&["plan", "--shard", rank], "read_bytes"));
        quarter(bytes(&["load", "--stream", "--shard", rank], "read_bytes"));
        quarter(bytes(&["load", "--backend", "mmap", "--shard", rank], "read_bytes"));
    }
    let parallel = ["plan", "--shard", "1/4", "--partition", "tensor-parallel"];
    quarter(bytes(&parallel, "selected_bytes"));
    assert!(bytes(&parallel, "gathered_reads") > 0 && bytes(&parallel, "read_bytes") > whole / 4);
    let whole_head =
        ["plan", "--shard", "1/4", "--partition-rule", "lm_head.*=replicate", "--partition-rule", "lm_head.*=1"];
    assert!(bytes(&whole_head, "selected_bytes") > whole / 4 + (1 << 20), "the first rule counts");
    let run = command::run(["plan", path, "--shard", "1/4", "--partition", "tensor-parallel"]);
    let shown = run.assert_ok();
    assert!(shown.contains("sliced") && shown.contains("gathered"), "{shown}");
    let read = bytes(&["load", "--shard", "1/4"], "read_bytes");
    let shown = command::run(["load", path, "--shard", "1/4"]);
    assert!(shown.assert_ok().contains(&format!("({read} bytes)")), "{shown:?}");
    let line = |shown: &str| shown.lines().any(|line| line.starts_with("read "));
    assert!(line(&shown.stdout) && !line(command::run(["load", path]).assert_ok()), "{shown:?}");
}

#[test]
fn what_cannot_be_cut_is_a_bad_request_that_says_why() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    llama(&path);
    let path = path.to_str().expect("UTF-8");
    for (arguments, words) in [
        (&["--shard", "4/4"][..], "no rank 4 of 4"),
        (&["--shard", "1"], "RANK/WORLD"),
        (&["--partition", "rows"], "--shard"),
        (&["--shard", "0/2", "--partition-rule", "*"], "GLOB=DIM"),
        (&["--shard", "0/2", "--partition-rule", "*=1"], "no dimension 1"),
        (&["--shard", "0/2", "--partition-rule", "*=1"], "[512]"),
        (&["--shard", "0/2", "--partition-rule", "*.wieght=0"], "\"*.wieght\" matches no tensor"),
    ] {
        for verb in ["load", "plan", "digest"] {
            let run = command::run([verb, path].into_iter().chain(arguments.iter().copied()));
            assert!(run.code == 2 && run.stderr.contains(words), "{verb} {arguments:?}: {} {}", run.code, run.stderr);
        }
    }
}

#[test]
fn a_shard_that_cuts_nothing_is_warned_of() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    write(&path, &vec![(DType::U8, vec![4, 6]), (DType::F32, vec![])], 0);
    let path = path.to_str().expect("UTF-8");
    let words = "the shard 1/4 divides nothing: each rank gets all 2 selected tensors whole";
    for verb in [&["load"][..], &["load", "--stream"], &["plan"], &["digest"]] {
        let run = |rules: &str| {
            let arguments = ["--json", "--shard", "1/4", "--partition", rules, path];
            command::run(verb.iter().copied().chain(arguments))
        };
        let uncut = run("tensor-parallel");
        assert!(uncut.stderr.starts_with("warning: ") && uncut.stderr.contains(words), "{verb:?}: {uncut:?}");
        if verb[0] != "digest" {
            assert!(uncut.json()["warnings"][0].as_str().is_some_and(|warning| warning.contains(words)), "{uncut:?}");
        }
        assert_eq!(run("rows").stderr, "", "{verb:?}");
    }
}

/// A slice whose reads span 64 times its bytes takes its own memory and that of a few reads.
#[test]
fn what_is_read_along_does_not_stay_in_memory() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    let json = r#"{"t":{"dtype":"U8","shape":[262144,1024],"data_offsets":[0,268435456]}}"#;
    fs::write(&path, raw(json, &[])).expect("writes");
    // A sparse file: zeros that are quick to read.
    let len = 8 + json.len() as u64 + 268_435_456;
    fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(len)).expect("grows");
    let path = path.to_str().expect("UTF-8");
    let report = command::run(["load", path, "--shard", "0/64", "--partition-rule", "*=1", "--json"]).json();
    let number = |key: &str| report[key].as_u64().expect("a number");
    assert!(number("bytes") == 4 << 20 && number("read_bytes") > 200 << 20);
    assert!(number("peak_rss_bytes") < 96 << 20, "{report}");
}

#[test]
fn many_threads_gather_from_shorter_reads() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    let json = r#"{"t":{"dtype":"U8","shape":[1024,65536],"data_offsets":[0,67108864]}}"#;
    fs::write(&path, raw(json, &[])).expect("writes");
    let header = fs::metadata(&path).expect("is there").len();
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(header + (64 << 20))).expect("grows");
    let half = Selection::slice("t", 1, 0..32 << 10);
    let longest = |threads: usize| {
        let threads = threads.try_into().expect("some");
        let planned = Loader::new().backend(PREAD).threads(threads).selection(half.clone()).plan(&path);
        let chunks = planned.expect("plans").plan.chunks().to_vec();
        assert!(chunks.iter().all(|chunk| chunk.gathered));
        chunks.iter().map(|chunk| chunk.buffer_range.len()).max().expect("some")
    };
    assert!(longest(2) > 1 << 20);
    // All of them together take as much memory as the default number of reads.
    assert!(512 * (longest(512) - 8192) <= 128 << 20, "{}", longest(512));
}
