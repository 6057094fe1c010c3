//! Converts the metadata that is true of the output and that the target can store.

use super::Writer;
use crate::format_id::FormatId;
use crate::metadata::MetadataValue;
use crate::warning::Warning;
use alloc::borrow::{Cow, ToOwned};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Sizes in an index, which are computed again.
const COUNTED: [&str; 2] = ["total_size", "total_parameters"];
/// The key that names the framework of a safetensors file. Readers expect it.
const FORMAT: &str = "format";
/// The maximum number of keys in a warning.
const MAX_SHOWN: usize = 10;

/// The pairs to keep, and the keys of arrays, which only GGUF can store.
pub(super) struct Kept<'a> {
    pairs: Vec<(&'a str, Cow<'a, str>)>,
    arrays: Vec<&'a str>,
}

impl<'a> Kept<'a> {
    /// Selects the metadata of a source to keep in a target.
    pub(super) fn of(source: FormatId, target: FormatId, metadata: &'a [(String, MetadataValue)]) -> Self {
        let mut kept = Self { pairs: Vec::new(), arrays: Vec::new() };
        for (key, value) in metadata {
            let key = key.as_str();
            if COUNTED.contains(&key) {
                continue;
            }
            match text(value) {
                Some(text) => kept.pairs.push((key, text)),
                None => kept.arrays.push(key),
            }
        }
        // Other formats name the framework differently or belong to torch alone.
        if source != target && kept.pairs.iter().all(|(key, _)| *key != FORMAT) {
            kept.pairs.push((FORMAT, "pt".into()));
        }
        kept
    }

    /// Returns the pairs, for a target that can store them.
    pub(super) fn pairs(&self) -> Vec<(&str, &str)> {
        self.pairs.iter().map(|(key, value)| (*key, value.as_ref())).collect()
    }

    /// Returns a note on the keys that the output lacks.
    pub(super) fn lost(&self, writer: &dyn Writer) -> Option<Warning> {
        let lost: Vec<&str> = if writer.holds_metadata() {
            self.arrays.clone()
        } else {
            // The target implies torch.
            let pairs = self.pairs.iter().map(|(key, _)| *key).filter(|key| *key != FORMAT);
            pairs.chain(self.arrays.iter().copied()).collect()
        };
        if lost.is_empty() {
            return None;
        }
        let what = if writer.holds_metadata() { "arrays in its metadata" } else { "metadata" };
        Some(Warning::MetadataLost {
            target: writer.format(),
            what,
            keys: lost.iter().take(MAX_SHOWN).map(|key| (*key).to_owned()).collect(),
            more: lost.len().saturating_sub(MAX_SHOWN),
        })
    }
}

/// Returns a value as a text, as safetensors requires, or `None` for an array.
fn text(value: &MetadataValue) -> Option<Cow<'_, str>> {
    Some(match value {
        MetadataValue::Text(text) => Cow::Borrowed(text),
        MetadataValue::Bool(value) => value.to_string().into(),
        MetadataValue::Unsigned(value) => value.to_string().into(),
        MetadataValue::Signed(value) => value.to_string().into(),
        MetadataValue::F32(value) => value.to_string().into(),
        MetadataValue::F64(value) => value.to_string().into(),
        MetadataValue::List(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Format, GGUF, SAFETENSORS, SERVERLESSLLM, find};
    use crate::metadata::MetadataList;
    use crate::units::ByteRange;
    use alloc::boxed::Box;
    use alloc::format;
    use alloc::vec;

    fn list() -> MetadataValue {
        let list = MetadataList { element: "string", count: 0, range: ByteRange::EMPTY, first: vec![] };
        MetadataValue::List(Box::new(list))
    }

    fn pairs(source: FormatId, metadata: Vec<(&str, MetadataValue)>) -> (String, [Option<String>; 2]) {
        let metadata: Vec<(String, MetadataValue)> = metadata.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        let kept = Kept::of(source, SAFETENSORS, &metadata);
        let pairs: Vec<String> = kept.pairs().iter().map(|(key, value)| format!("{key}={value}")).collect();
        (
            pairs.join(" "),
            [SAFETENSORS, SERVERLESSLLM]
                .map(|target| kept.lost(find(target).and_then(Format::writer).expect("written")))
                .map(|warning| warning.map(|warning| warning.to_string())),
        )
    }

    #[test]
    fn what_is_counted_anew_is_left_out_and_nothing_is_made_up() {
        let metadata = vec![
            ("total_size", "1".into()),
            ("total_parameters", "1".into()),
            ("format", "tf".into()),
            ("k\u{1b}", "v".into()),
        ];
        let (kept, lost) = pairs(SAFETENSORS, metadata.clone());
        assert_eq!(kept, "format=tf k\u{1b}=v");
        let [None, Some(lost)] = lost else { panic!("{lost:?}") };
        assert!(lost.contains("\"k\\u{1b}\"") && !lost.contains("\"format\"") && !lost.contains("total"), "{lost}");
        assert_eq!(pairs(SAFETENSORS, metadata[..3].to_vec()).1, [None, None]);
        assert_eq!(pairs(SAFETENSORS, vec![]).0, "");
        assert_eq!(pairs(SERVERLESSLLM, vec![]), ("format=pt".to_string(), [None, None]));
    }

    #[test]
    fn values_of_gguf_are_texts_and_its_arrays_are_lost() {
        let metadata = vec![
            ("general.architecture", "llama".into()),
            ("n", MetadataValue::Signed(-3)),
            ("b", MetadataValue::Bool(true)),
            ("f", MetadataValue::F32(0.1)),
            ("d", MetadataValue::F64(1e-5)),
            ("tokenizer.ggml.tokens", list()),
        ];
        let (kept, lost) = pairs(GGUF, metadata);
        assert_eq!(kept, "general.architecture=llama n=-3 b=true f=0.1 d=0.00001 format=pt");
        let [Some(of_safetensors), Some(of_store)] = lost else { panic!("{lost:?}") };
        assert!(of_safetensors.ends_with("output: \"tokenizer.ggml.tokens\""), "{of_safetensors}");
        assert!(of_store.contains("\"general.architecture\", \"n\"") && of_store.contains("tokens"), "{of_store}");
    }

    #[test]
    fn of_many_keys_the_first_are_named() {
        let keys: Vec<String> = (0..25).map(|i| format!("k{i}")).collect();
        let metadata = keys.iter().map(|key| (key.as_str(), "".into())).collect();
        let [None, Some(lost)] = pairs(SAFETENSORS, metadata).1 else { panic!("ServerlessLLM keeps no metadata") };
        assert!(lost.ends_with("\"k9\" and 15 more"), "{lost}");
    }
}
