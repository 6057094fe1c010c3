//! What selections resolve to, in which order, and what they reject as mistyped.

use super::*;
use crate::format::{SAFETENSORS, safetensors::Header};
use crate::{CatalogBuilder, TensorId};
use alloc::format;
use proptest::prelude::*;

const NAMES: [&str; 4] = ["b.weight", "a.weight", "b.bias", "a.bias"];

/// One-byte tensors with these names, in the order of the list.
fn catalog() -> Catalog {
    let entry = |(i, name)| format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1);
    let json = format!("{{{}}}", NAMES.iter().enumerate().map(entry).collect::<Vec<String>>().join(","));
    let len = (8 + json.len() + NAMES.len()) as u64;
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    Header::parse(json.as_bytes(), len).expect("valid").add_to(&mut builder, "model", len).expect("adds");
    builder.finish().expect("unique names")
}

fn ids(ids: &[u32]) -> Result<Vec<TensorSlice>, Error> {
    Ok(ids.iter().map(|&id| TensorId(id).into()).collect())
}

#[test]
fn everything_is_selected_unless_something_is_asked_for() {
    assert_eq!(Selection::default().resolve(&catalog()), ids(&[0, 1, 2, 3]));
    assert_eq!(Selection::All.resolve_in_order(&catalog()), ids(&[0, 1, 2, 3]));
}

#[test]
fn names_are_found_whatever_their_order() {
    let names = Selection::names(["a.bias", "b.weight", "a.bias"]);
    assert_eq!(names.resolve(&catalog()), ids(&[0, 3]));
    assert_eq!(names.resolve_in_order(&catalog()), ids(&[3, 0]));
}

#[test]
fn a_tensor_that_several_patterns_match_comes_once() {
    let globs = Selection::globs(["a.*", "*.weight"]).expect("patterns");
    assert_eq!(globs.resolve(&catalog()), ids(&[0, 1, 3]));
    assert_eq!(globs.resolve_in_order(&catalog()), ids(&[1, 3, 0]));
}

#[test]
fn what_is_mistyped_is_named() {
    let missing = Error::NoSuchTensor { name: "c.bias".to_string() };
    assert_eq!(Selection::names(["a.bias", "c.bias"]).resolve(&catalog()), Err(missing));
    let nothing = Error::NothingSelected { glob: "c.*".to_string() };
    assert_eq!(Selection::globs(["a.*", "c.*"]).expect("patterns").resolve_in_order(&catalog()), Err(nothing));
    assert!(matches!(Selection::globs(["a.*", "c.["]), Err(Error::Glob(_))));
}

proptest! {
    #[test]
    fn both_orders_select_the_same(picks in prop::collection::vec(0..NAMES.len(), 0..9)) {
        let selection = Selection::names(picks.iter().map(|&pick| NAMES[pick]));
        let mut listed = selection.resolve_in_order(&catalog()).expect("they are there");
        let first = |(at, pick): &(usize, &usize)| !picks[..*at].contains(pick);
        let expected = picks.iter().enumerate().filter(first).map(|(_, &pick)| pick);
        prop_assert!(listed.iter().map(|slice| slice.tensor().index()).eq(expected), "each where it comes first");
        listed.sort_by_key(TensorSlice::tensor);
        prop_assert_eq!(selection.resolve(&catalog()), Ok(listed));
    }
}
