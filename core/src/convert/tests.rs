//! Layouts of small catalogs: locations, ties and refusals.

use super::*;
use crate::catalog::CatalogBuilder;
use crate::element::{ElementType, GgmlType};
use crate::format::safetensors::{Header, header_range};
use crate::format::serverlessllm::Dialect;
use crate::format::shard_index::ShardIndex;
use crate::format::{Format, GGUF, SAFETENSORS, SERVERLESSLLM, find};
use crate::format_id::FormatId;
use crate::selection::Selection;
use crate::units::{ByteRange, FileId};
use crate::warning::Warning;
use alloc::format;
use core::num::{NonZeroU32, NonZeroU64};
use proptest::prelude::*;

/// Returns a catalog of one file with tensors of these types, shapes and locations.
fn catalog(format: FormatId, tensors: &[(&str, ElementType, &[u64], u64)]) -> Catalog {
    let mut builder = CatalogBuilder::new(format);
    let file = builder.add_file("model", 1 << 40).expect("one");
    for &(name, dtype, shape, start) in tensors {
        let bytes = dtype.bytes_of(shape.iter().map(|&dim| u128::from(dim)).product()).expect("whole blocks") as u64;
        let range = ByteRange::new(start, start + bytes).expect("forwards");
        builder.add_tensor(file, name, dtype, shape, range).expect("few");
    }
    builder.finish().expect("unique names")
}

fn plain(dtype: DType) -> ElementType {
    dtype.into()
}

fn writer(format: FormatId) -> &'static dyn Writer {
    find(format).and_then(Format::writer).expect("it is written")
}

fn options(target: FormatId) -> Options {
    Options { writer: writer(target), split: Split::Usual, renames: Vec::new() }
}

fn all(catalog: &Catalog, options: &Options) -> Result<Layout, ConvertError> {
    Layout::new(catalog, &Selection::All.resolve(catalog).expect("all"), &[], options)
}

fn names(layout: &Layout) -> Vec<&str> {
    layout.files().iter().map(|file| file.name.as_str()).collect()
}

fn place(layout: &Layout, catalog: &Catalog, name: &str) -> Option<(u32, u64)> {
    let destination = layout.destination(catalog.find(name).expect("a tensor").id)?;
    Some((destination.file, destination.offset))
}

fn header(file: &OutputFile) -> Header<'_> {
    let range = header_range(&file.start, file.bytes).expect("valid");
    Header::parse(&file.start[range.start() as usize..], file.bytes).expect("valid")
}

const F32: ElementType = ElementType::Plain(DType::F32);

#[test]
fn one_file_has_no_index_and_several_have_one() {
    let catalog = catalog(SAFETENSORS, &[("b", F32, &[2], 0), ("a", plain(DType::U8), &[3], 8)]);
    let one = all(&catalog, &options(SAFETENSORS)).expect("fits");
    assert_eq!(names(&one), ["model.safetensors"]);
    assert_eq!((one.tensors(), one.tensor_bytes(), one.byte_len()), (2, 11, one.files()[0].bytes));

    let split = Split::Files(NonZeroU32::new(2).expect("two"));
    let two = all(&catalog, &Options { split, ..options(SAFETENSORS) }).expect("fits");
    let [first, second, index] = two.files() else { panic!("{:?}", names(&two)) };
    assert_eq!(
        names(&two),
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    );
    assert_eq!([header(first).entries()[0].name.as_ref(), header(second).entries()[0].name.as_ref()], ["b", "a"]);
    let text = core::str::from_utf8(&index.start).expect("text");
    // The output of `json.dumps(…, indent=2, sort_keys=True) + "\n"`.
    assert_eq!(
        text,
        "{\n  \"metadata\": {\n    \"total_size\": 11\n  },\n  \"weight_map\": {\n    \"a\": \"model-00002-of-00002.safetensors\",\n    \
         \"b\": \"model-00001-of-00002.safetensors\"\n  }\n}\n"
    );
    assert_eq!(ShardIndex::parse(&index.start).expect("valid").total_size(), Some(11));
    assert_eq!(index.bytes, index.start.len() as u64);
}

#[test]
fn a_checkpoint_without_tensors_can_be_written() {
    let catalog = catalog(SAFETENSORS, &[]);
    let safetensors = all(&catalog, &options(SAFETENSORS)).expect("fits");
    assert_eq!(names(&safetensors), ["model.safetensors"]);
    assert!(header(&safetensors.files()[0]).entries().is_empty());
    let layout = all(&catalog, &options(SERVERLESSLLM)).expect("fits");
    assert_eq!(names(&layout), ["tensor.data_0", "tensor_index.json"]);
    assert_eq!((layout.files()[0].bytes, &layout.files()[1].start[..]), (0, &b"{}"[..]));
}

#[test]
fn shards_are_cut_by_their_tensors_bytes() {
    let tensors = [("a", F32, &[10][..], 0), ("b", F32, &[10], 40), ("c", F32, &[10], 80)];
    let catalog = catalog(SAFETENSORS, &tensors);
    for (limit, shards) in [(120, 1), (119, 2), (80, 2), (79, 3), (1, 3)] {
        let split = Split::Bytes(NonZeroU64::new(limit).expect("some"));
        let layout = all(&catalog, &Options { split, ..options(SAFETENSORS) }).expect("fits");
        let files = layout.files().iter().filter(|file| file.name.ends_with(".safetensors")).count();
        assert_eq!(files, shards, "{limit}");
    }
}

#[test]
fn tied_tensors_share_a_record_and_are_both_written_where_there_are_none() {
    let tensors = [
        ("embed", F32, &[3, 2][..], 0),
        ("head", F32, &[3, 2], 0),
        // It starts at the same byte but is another tensor.
        ("part", F32, &[2], 0),
        ("empty", F32, &[0], 0),
        ("void", F32, &[0], 0),
        ("last", plain(DType::I8), &[3], 24),
    ];
    let catalog = catalog(SERVERLESSLLM, &tensors);
    let layout = all(&catalog, &options(SERVERLESSLLM)).expect("fits");
    let index: serde_json::Value = serde_json::from_slice(&layout.files()[1].start).expect("JSON");
    let record = |name: &str| (index[name][0].as_u64().expect("a number"), index[name][1].as_u64().expect("a number"));
    assert_eq!(record("embed"), record("head"));
    assert_ne!(record("part"), record("embed"));
    assert_eq!((record("empty").1, record("void").1), (0, 0));
    let written = ["embed", "head"].map(|name| place(&layout, &catalog, name).is_some());
    assert_eq!(written.iter().filter(|&&written| written).count(), 1, "once");
    assert_eq!((layout.tensors(), layout.tensor_bytes(), layout.files()[0].bytes), (6, 24 + 8 + 3, 24 + 8 + 8));

    let files = all(&catalog, &options(SAFETENSORS)).expect("fits");
    assert_eq!(files.tensor_bytes(), 24 + 24 + 8 + 3);
    assert_ne!(place(&files, &catalog, "embed"), place(&files, &catalog, "head"));
    assert!(header(&files.files()[0]).metadata().contains(&("format".into(), "pt".into())), "torch wrote it");
}

#[test]
fn partitions_are_as_many_as_asked_for_and_ties_take_no_room() {
    let tensors = [("a", F32, &[8][..], 0), ("b", F32, &[8], 0), ("c", F32, &[8], 32), ("d", F32, &[8], 64)];
    let catalog = catalog(SERVERLESSLLM, &tensors);
    let files = |files| {
        let split = Split::Files(NonZeroU32::new(files).expect("some"));
        all(&catalog, &Options { split, ..options(SERVERLESSLLM) })
    };
    let three = files(3).expect("enough");
    assert_eq!(three.files().iter().map(|file| file.bytes).take(3).collect::<Vec<_>>(), [32, 32, 32]);
    let error = files(4).expect_err("three records");
    assert_eq!(error, ConvertError::TooFewTensors { files: 4, tensors: 3 });
    let limit = Split::Bytes(NonZeroU64::new(64).expect("some"));
    let limited = all(&catalog, &Options { split: limit, ..options(SERVERLESSLLM) }).expect("fits");
    assert_eq!(names(&limited), ["tensor.data_0", "tensor.data_1", "tensor_index.json"]);
}

#[test]
fn what_a_target_cannot_express_is_refused_with_all_tensors() {
    let tensors = [
        ("good", F32, &[2][..], 0),
        ("fp8", plain(DType::F8_E4M3), &[4], 8),
        ("fp4", plain(DType::F4), &[4], 12),
        ("bool", plain(DType::BOOL), &[1], 14),
    ];
    let catalog_of_plain = catalog(SAFETENSORS, &tensors);
    let message = all(&catalog_of_plain, &options(SERVERLESSLLM)).expect_err("three").to_string();
    for word in ["ServerlessLLM", "3 tensors", "\"fp8\" (F8_E4M3)", "\"fp4\" (F4)", "\"bool\" (BOOL)", "leave them out"]
    {
        assert!(message.contains(word), "\"{word}\" is not in {message}");
    }
    assert!(!message.contains("good"), "{message}");
    assert!(all(&catalog_of_plain, &options(SAFETENSORS)).is_ok(), "every dtype is of safetensors");

    let blocks =
        [("w", ElementType::Ggml(GgmlType::Q4_0), &[32][..], 0), ("n", ElementType::Ggml(GgmlType::F32), &[4], 32)];
    let catalog = catalog(GGUF, &blocks);
    for target in [SAFETENSORS, SERVERLESSLLM] {
        let message = all(&catalog, &options(target)).expect_err("blocks").to_string();
        assert!(message.contains("1 tensor: \"w\" (GGML_Q4_0)"), "{message}");
        let selected = Selection::names(["n"]).resolve(&catalog).expect("it is there");
        let layout = Layout::new(&catalog, &selected, &[], &options(target)).expect("ggml's F32 is plain");
        assert_eq!((layout.tensors(), layout.tensor_bytes()), (1, 16));
    }
}

#[test]
fn an_index_that_no_reader_takes_is_refused() {
    let mut layout = all(&catalog(SAFETENSORS, &[]), &options(SERVERLESSLLM)).expect("fits");
    let error = layout.push_index("index.json", vec![0; MAX_START_BYTES as usize + 1]).expect_err("too long");
    let source = WriteError::HeaderTooLarge { needed: MAX_START_BYTES + 1, limit: MAX_START_BYTES };
    assert_eq!(error, ConvertError::File { file: "index.json".into(), source });
    assert!(layout.push_index("index.json", vec![0; 8]).is_ok());
}

#[test]
fn every_dtype_of_the_original_dialect_is_written() {
    for &dtype in DType::ALL {
        let catalog = catalog(SAFETENSORS, &[("t", plain(dtype), &[4], 0)]);
        let layout = all(&catalog, &options(SERVERLESSLLM));
        let named = Dialect::Original.dtype_name(dtype);
        assert_eq!(layout.is_ok(), named.is_some(), "{dtype}");
        if let (Ok(layout), Some(name)) = (layout, named) {
            assert!(layout.files()[1].start.ends_with(format!("\"{name}\"]}}").as_bytes()), "{dtype}");
        }
    }
}

#[test]
fn renames_are_applied_and_may_not_collide() {
    let catalog = catalog(SAFETENSORS, &[("h.0.w", F32, &[1], 0), ("h.1.w", F32, &[1], 4)]);
    let renamed = |target, rules: &[(&str, &str)]| {
        let renames = rules.iter().map(|(from, to)| Rename::new(from, to).expect("a rule")).collect();
        all(&catalog, &Options { renames, ..options(target) })
    };
    let layout = renamed(SAFETENSORS, &[("h.*", "model.h.*")]).expect("fits");
    let header = header(&layout.files()[0]);
    let names: Vec<&str> = header.entries().iter().map(|entry| entry.name.as_ref()).collect();
    assert_eq!(names, ["model.h.0.w", "model.h.1.w"]);
    assert_eq!(place(&layout, &catalog, "h.1.w").expect("by its old name").1, header.entries()[1].range.start());

    for target in [SAFETENSORS, SERVERLESSLLM] {
        let error = renamed(target, &[("h.0.w", "h.1.w")]).expect_err("two of a name");
        let expected = ConvertError::SameName { name: "h.1.w".into(), first: "h.0.w".into(), second: "h.1.w".into() };
        assert_eq!(error, expected);
        let error = renamed(target, &[("h.*", "g.*"), ("layers.*", "*")]).expect_err("matches nothing");
        assert_eq!(error, ConvertError::RenameUnused { rule: "layers.*=*".into() });
    }
    let swapped = renamed(SAFETENSORS, &[("h.0.w", "h.1.w"), ("h.1.w", "h.0.w")]).expect("a swap is none");
    assert_ne!(place(&swapped, &catalog, "h.0.w"), place(&swapped, &catalog, "h.1.w"));
    let error = renamed(SAFETENSORS, &[("h.0.w", "__metadata__")]).expect_err("the metadata's name");
    assert!(matches!(&error, ConvertError::ReservedName { tensor, .. } if tensor == "h.0.w"), "{error}");
    assert!(renamed(SERVERLESSLLM, &[("h.0.w", "__metadata__")]).is_ok());
}

#[test]
fn what_is_selected_is_whole() {
    let catalog = catalog(SAFETENSORS, &[("a", F32, &[4], 0), ("b", F32, &[4], 16)]);
    let slice = Selection::slice("a", 0, 1..2).resolve(&catalog).expect("a slice");
    let error = Layout::new(&catalog, &slice, &[], &options(SAFETENSORS)).expect_err("a slice");
    assert_eq!(error, ConvertError::Slice { tensor: "a".into() });
    let one = Selection::names(["b"]).resolve(&catalog).expect("it is there");
    let layout = Layout::new(&catalog, &one, &[], &options(SAFETENSORS)).expect("fits");
    assert_eq!((place(&layout, &catalog, "a"), layout.tensor_bytes()), (None, 16));
}

#[test]
fn metadata_is_kept_where_there_is_a_place_for_it() {
    let catalog = catalog(SAFETENSORS, &[("a", F32, &[4], 0), ("b", F32, &[4], 16)]);
    let metadata = [("total_size", "1"), ("k", "v")].map(|(k, v)| (k.to_string(), MetadataValue::from(v)));
    let selected = Selection::All.resolve(&catalog).expect("all");
    let laid_out = |target| {
        let split = Split::Files(NonZeroU32::new(2).expect("two"));
        Layout::new(&catalog, &selected, &metadata, &Options { split, ..options(target) }).expect("fits")
    };
    let kept = laid_out(SAFETENSORS);
    for shard in &kept.files()[..2] {
        assert_eq!(header(shard).metadata(), [("k".into(), "v".into())], "in each shard");
    }
    assert!(kept.warnings().is_empty());
    let lost = laid_out(SERVERLESSLLM);
    let [Warning::MetadataLost { keys, more: 0, .. }] = lost.warnings() else { panic!("{:?}", lost.warnings()) };
    assert_eq!(keys, &["k"]);
}

#[test]
fn more_bytes_than_can_be_counted_are_refused() {
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    for file in 0..2 {
        builder.add_file("huge", u64::MAX).expect("few");
        let range = ByteRange::new(0, u64::MAX - 100).expect("forwards");
        builder.add_tensor(FileId(file), &format!("t{file}"), plain(DType::U8), &[range.len()], range).expect("few");
    }
    let catalog = builder.finish().expect("unique");
    let refused = |target| all(&catalog, &options(target)).expect_err("too large");
    assert_eq!(refused(SERVERLESSLLM), ConvertError::TooLarge { target: SERVERLESSLLM });
    let refused = refused(SAFETENSORS);
    assert!(matches!(refused, ConvertError::TooLarge { .. } | ConvertError::File { .. }), "{refused}");
}

proptest! {
    #[test]
    fn every_byte_has_one_place(
        tensors in prop::collection::vec((prop::sample::select(DType::ALL), 0_u64..40), 0..30),
        split in prop_oneof![
            Just(Split::Usual),
            (1_u64..200).prop_map(|limit| Split::Bytes(NonZeroU64::new(limit).expect("some"))),
            (1_u32..6).prop_map(|files| Split::Files(NonZeroU32::new(files).expect("some"))),
        ],
        target in prop::sample::select(vec![SAFETENSORS, SERVERLESSLLM]),
    ) {
        let named: Vec<(String, ElementType, [u64; 1], u64)> = tensors
            .iter()
            .enumerate()
            .filter(|(_, (dtype, _))| writer(target).holds(*dtype))
            .map(|(i, &(dtype, n))| (format!("t{i}"), plain(dtype), [n * 4], i as u64 * 1000))
            .collect();
        let given: Vec<_> = named.iter().map(|(name, dtype, shape, at)| (name.as_str(), *dtype, &shape[..], *at)).collect();
        let catalog = catalog(SAFETENSORS, &given);
        match all(&catalog, &Options { split, ..options(target) }) {
            Err(error) => {
                let too_few = matches!(error, ConvertError::TooFewTensors { .. });
                prop_assert!(too_few, "{}", error);
            }
            Ok(layout) => {
                let mut taken: Vec<Vec<(u64, u64)>> =
                    layout.files().iter().map(|file| vec![(0, file.start.len() as u64)]).collect();
                for tensor in catalog.tensors() {
                    let Destination { file, offset } = layout.destination(tensor.id).expect("it is selected");
                    prop_assert!(offset.is_multiple_of(tensor.dtype.alignment()));
                    taken[file as usize].push((offset, offset + tensor.byte_len()));
                }
                for (mut ranges, file) in taken.into_iter().zip(layout.files()) {
                    ranges.sort_unstable();
                    let overlap = ranges.windows(2).any(|pair| pair[1].0 < pair[0].1);
                    prop_assert!(!overlap, "{ranges:?}");
                    let end = ranges.last().expect("its start").1;
                    prop_assert!(end <= file.bytes && file.bytes - end < 8, "{} of {}", end, file.bytes);
                }
                prop_assert_eq!(layout.tensor_bytes(), catalog.tensor_bytes());
            }
        }
    }
}
