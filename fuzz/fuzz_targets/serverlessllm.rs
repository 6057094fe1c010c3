//! Arbitrary bytes as the index of a ServerlessLLM checkpoint whose partitions have any lengths:
//! what is accepted is what serde_json's own tree says, lies in its partitions, and shares bytes
//! with others wholly or not at all.
//!
//! An input is the number of partitions, their lengths in 16 bits each, and the index.

#![no_main]

use floodtide_core::format::serverlessllm::{Dialect, TensorIndex};
use floodtide_core::format::{FORMATS, SERVERLESSLLM, index_format};
use floodtide_core::{Catalog, CatalogBuilder, PlanOptions, Planner, Selection};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

/// Parses the partitions' lengths and the index.
fn input(bytes: &[u8]) -> Option<(Vec<u64>, &[u8])> {
    let (&count, rest) = bytes.split_first()?;
    let (lengths, json) = rest.split_at_checked(usize::from(count % 5) * 2)?;
    let length = |bytes: &[u8]| u64::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    Some((lengths.chunks(2).map(length).collect(), json))
}

fn numbers(value: &Value) -> Option<Vec<u64>> {
    value.as_array()?.iter().map(Value::as_u64).collect()
}

/// Compares every tensor with its record.
fn compare(index: &TensorIndex<'_>, records: &Map<String, Value>, lengths: &[u64]) -> Option<()> {
    assert_eq!(index.tensors().len(), records.len());
    for tensor in index.tensors() {
        let record = records.get(tensor.name.as_ref())?.as_array()?;
        let dialect = if record.len() == 5 { Dialect::Original } else { Dialect::Tensora };
        assert!(matches!(record.len(), 5 | 6) && index.dialect() == Some(dialect));
        let (offset, size) = (record[0].as_u64()?, record[1].as_u64()?);
        let (shape, strides) = (numbers(&record[2])?, numbers(&record[3])?);
        assert!(index.shape(tensor) == shape && shape.len() == strides.len());
        assert_eq!(dialect.dtype(record[4].as_str()?), Some(tensor.dtype));
        let elements: u128 = shape.iter().map(|&dim| u128::from(dim)).product();
        assert_eq!(elements * u128::from(tensor.dtype.bits()), u128::from(size) * 8);
        assert_eq!(tensor.range.len(), size);
        let before: u64 = match dialect {
            Dialect::Original => lengths[..tensor.partition as usize].iter().sum(),
            Dialect::Tensora => {
                assert_eq!(record[5].as_u64(), Some(tensor.partition.into()));
                0
            }
        };
        assert_eq!(before + tensor.range.start(), offset);
        assert!(tensor.range.end() <= lengths[tensor.partition as usize], "past its partition");
    }
    Some(())
}

/// Checks that two tensors share all bytes or none.
fn check_ties(catalog: &Catalog) {
    let filled: Vec<_> = catalog.tensors().filter(|tensor| !tensor.range.is_empty()).collect();
    for pair in filled.windows(2) {
        let apart = pair[0].file < pair[1].file || pair[0].range.end() <= pair[1].range.start();
        assert!(apart != catalog.are_tied(pair[0].id, pair[1].id));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((lengths, json)) = input(bytes) else { return };
    let format = index_format(FORMATS, json).map(|(format, _)| format.id());
    let Ok(index) = TensorIndex::parse(json, &lengths) else { return };
    let records: Map<String, Value> = serde_json::from_slice(json).expect("it is JSON");
    assert_eq!(format, (!records.is_empty()).then_some(SERVERLESSLLM));
    compare(&index, &records, &lengths).expect("each record is of the right form");

    let mut builder = CatalogBuilder::new(SERVERLESSLLM);
    for &len in &lengths {
        builder.add_file("partition", len).expect("a few");
    }
    index.add_tensors_to(&mut builder).expect("a few");
    let catalog = builder.finish().expect("names are unique");
    check_ties(&catalog);
    let slice = Selection::All.resolve(&catalog).expect("all of them");
    let plan = Planner::new(PlanOptions::default()).plan(&catalog, &slice).expect("little");
    assert_eq!(plan.selected_bytes(), catalog.tensor_bytes());
    assert!(plan.selected_bytes() <= lengths.iter().sum());
});
