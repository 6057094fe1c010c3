//! All backends agree with the reference library, byte for byte, on generated checkpoints of any
//! layout.

use floodtide::Tensors;
use floodtide_core::{Alignment, DType, Selection};
use floodtide_tests::layout::{drop_cache, layouts, reference, write};
use floodtide_tests::over_storages::places;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;

fn assert_equal(tensors: &Tensors, expected: &BTreeMap<String, Vec<u8>>, alignment: u64, what: &str) {
    assert_eq!(tensors.len(), expected.len(), "{what}");
    for (tensor, (name, bytes)) in tensors.iter().zip(expected) {
        assert_eq!(tensor.name(), name, "{what}");
        assert!(tensor.as_bytes() == bytes, "{what}: {name} differs");
        if !bytes.is_empty() {
            let required = alignment.max(tensor.dtype().alignment());
            assert_eq!(tensor.as_bytes().as_ptr() as u64 % required, 0, "{what}: {name} is not aligned to {required}");
        }
    }
}

/// Empty input loads: an empty file, empty tensors of one dtype, or one empty tensor among others.
#[test]
fn on_files_and_tensors_without_bytes() {
    let empty: Vec<String> = DType::ALL
        .iter()
        .map(|dtype| format!(r#""{dtype}":{{"dtype":"{dtype}","shape":[3,0],"data_offsets":[0,0]}}"#))
        .collect();
    let among = r#""a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F32","shape":[0],"data_offsets":[3,3]},"c":{"dtype":"U8","shape":[],"data_offsets":[3,4]}"#;
    for (entries, data) in [(String::new(), &[][..]), (empty.join(","), &[]), (among.to_owned(), &[1, 2, 3, 4])] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let path = folder.path().join("model.safetensors");
        let json = format!("{{{entries}}}");
        fs::write(&path, [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), data].concat()).expect("writes");
        let expected = reference(folder.path());
        for place in places(&path) {
            let loader = place.loader.clone().tensor_alignment(Alignment::new(64).expect("a power of two"));
            for &backend in &place.backends {
                let tensors = loader.clone().backend(backend).load(&place.path).expect("loads");
                assert_equal(&tensors, &expected, 64, backend.name());
            }
            assert_equal(&loader.load(&place.path).expect("loads"), &expected, 64, "auto");
            assert_equal(&loader.map(&place.path).expect("opens"), &expected, 64, "open");
            for tensor in loader.load(&place.path).expect("loads").iter() {
                let elements: u64 = tensor.shape().iter().product();
                assert_eq!(
                    tensor.as_bytes().len() as u64,
                    elements / tensor.dtype().block_elements() * tensor.dtype().block_bytes(),
                    "{}",
                    tensor.name()
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn on_any_layout(layout in layouts(), alignment in prop::sample::select(vec![1_u64, 64, 4096]), threads in 1_usize..5) {
        // On the disk of the build, because /tmp may be tmpfs, which does not support direct reads.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        write(folder.path(), &layout);
        let expected = reference(folder.path());
        for place in places(folder.path()) {
            let loader = place.loader.clone()
                .tensor_alignment(Alignment::new(alignment).expect("a power of two"))
                .threads(std::num::NonZeroUsize::new(threads).expect("positive"));
            for &backend in &place.backends {
                drop_cache(folder.path());
                let tensors = loader.clone().backend(backend).load(&place.path).expect("loads");
                assert_equal(&tensors, &expected, alignment, backend.name());
            }
            assert_equal(&loader.load(&place.path).expect("loads"), &expected, alignment, "auto, cached");
            assert_equal(&loader.map(&place.path).expect("opens"), &expected, alignment, "open");
            // A part of it, by a pattern.
            if expected.keys().any(|name| name.ends_with("1")) {
                let part: BTreeMap<_, _> =
                    expected.iter().filter(|(name, _)| name.ends_with('1')).map(|(n, b)| (n.clone(), b.clone())).collect();
                drop_cache(folder.path());
                let loader = loader.selection(Selection::globs(["*1"]).expect("a pattern"));
                for &backend in &place.backends {
                    let tensors = loader.clone().backend(backend).load(&place.path).expect("loads");
                    assert_equal(&tensors, &part, alignment, "a part");
                }
            }
        }
    }

    /// Globs match like the globset crate where its rules are the same: without braces, with `*`
    /// matching everything.
    #[test]
    fn globs_agree_with_globset(pattern in "[ab.*?]{0,8}|[ab*]{0,3}\\[!?[a-c]{1,3}\\][b*]{0,2}", name in "[abc.]{0,8}") {
        let ours = floodtide_core::Glob::new(&pattern).expect("closed").matches(&name);
        // globset gives "**" a meaning of its own.
        prop_assume!(!pattern.contains("**"));
        let theirs = globset::GlobBuilder::new(&pattern).literal_separator(false).build().expect("closed");
        prop_assert_eq!(ours, theirs.compile_matcher().is_match(&name));
    }
}
