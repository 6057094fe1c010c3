//! Conversions of ServerlessLLM checkpoints of any layout, in both dialects, with tied tensors.

use floodtide::StreamOptions;
use floodtide::convert::{Converter, Split};
use floodtide::format::{SAFETENSORS, SERVERLESSLLM};
use floodtide_tests::checkpoint::folder;
use floodtide_tests::over_storages::Place;
use floodtide_tests::serverlessllm_reader;
use floodtide_tests::serverlessllm_writer::{checkpoints, write};
use proptest::prelude::*;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;

/// A memory limit below the longest tensors, which then come in parts.
const LIMIT: u64 = 1 << 20;

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_name_keeps_its_bytes_and_ties_stay_ties_where_they_can(
        checkpoint in checkpoints(),
        files in 1_u32..3,
        in_memory in any::<bool>(),
    ) {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("in")).expect("makes");
        let all = write(&at("in"), &checkpoint);
        let place = if in_memory { Place::memory(&at("in")) } else { Place::local(&at("in")) };
        let loader = place.loader.clone().stream_options(StreamOptions::new().memory_limit(LIMIT));
        let to = |target| Converter::new(loader.clone(), target);

        let converted = to(SAFETENSORS).convert(&place.path, at("files")).expect("converts");
        let file = fs::read(at("files/model.safetensors")).expect("one file");
        let found: BTreeMap<String, Vec<u8>> = SafeTensors::deserialize(&file)
            .expect("valid")
            .iter()
            .map(|(name, view)| (name.to_owned(), view.data().to_vec()))
            .collect();
        prop_assert!(found == all);
        prop_assert_eq!((converted.from, converted.tensors), (SERVERLESSLLM, all.len()));
        let bytes: usize = all.values().map(Vec::len).sum();
        prop_assert_eq!(converted.tensor_bytes, bytes as u64, "those of each name");

        let filled = checkpoint.tensors.iter().filter(|(_, rows, columns, _)| rows * columns > 0).count();
        let split = if filled >= 2 { Split::Files(NonZeroU32::new(files).expect("some")) } else { Split::Usual };
        let converted = to(SERVERLESSLLM).split(split).convert(&place.path, at("serverlessllm")).expect("converts");
        let found = serverlessllm_reader::read(&at("serverlessllm"));
        prop_assert!(found.iter().map(|(name, tensor)| (name.clone(), tensor.bytes.clone())).eq(all.clone()));
        let mut records: Vec<u64> =
            found.values().filter(|tensor| !tensor.bytes.is_empty()).map(|tensor| tensor.offset).collect();
        records.sort_unstable();
        records.dedup();
        prop_assert_eq!(records.len(), filled, "one for all that are the same bytes");
        let once: usize = (0..checkpoint.tensors.len()).map(|number| all[&format!("t{number}")].len()).sum();
        prop_assert_eq!(converted.tensor_bytes, once as u64);
    }
}
