//! The companion files of a checkpoint that a converted model needs too, such as its tokenizer.

/// Full names, in lower case.
const NAMES: [&str; 15] = [
    "config.json",
    "generation_config.json",
    "configuration.json",
    "model_index.json",
    "modules.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tekken.json",
    "params.json",
    "no_split_modules.json",
    "tied_no_split_modules.json",
];

/// Prefixes and suffixes of names, in lower case.
const PATTERNS: [(&str, &str); 17] = [
    ("tokenizer", ".json"),
    ("tokenizer", ".model"),
    ("tokenizer.model.v", ""),
    ("sentencepiece", ".model"),
    ("vocab", ".bpe"),
    ("", ".tiktoken"),
    ("", ".spm"),
    ("chat_template", ".json"),
    ("chat_template", ".jinja"),
    ("", "_config.json"),
    ("config_", ".json"),
    // Code that a configuration's `auto_map` names.
    ("configuration_", ".py"),
    ("modeling_", ".py"),
    ("tokenization_", ".py"),
    ("processing_", ".py"),
    ("image_processing_", ".py"),
    ("video_processing_", ".py"),
];

/// Returns true if a file with this name in a checkpoint's folder is part of the model.
///
/// Such files are its configuration, its tokenizer, its chat templates, and the code that its
/// configuration names.
#[must_use]
pub fn is_companion(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let fits = |(begin, end): &(&str, &str)| {
        name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
    };
    NAMES.contains(&name.as_str()) || PATTERNS.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_and_tokenizers_belong_to_a_model_and_weights_do_not() {
        for name in [
            "config.json",
            "generation_config.json",
            "preprocessor_config.json",
            "adapter_config.json",
            "config_sentence_transformers.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "tokenizer.model",
            "tokenizer.model.v7",
            "special_tokens_map.json",
            "added_tokens.json",
            "vocab.json",
            "vocab.txt",
            "merges.txt",
            "spiece.model",
            "sentencepiece.bpe.model",
            "qwen.tiktoken",
            "chat_template.json",
            "chat_template.jinja",
            "modeling_deepseek.py",
            "Tokenizer.json",
        ] {
            assert!(is_companion(name), "{name}");
        }
        for name in [
            "model.safetensors",
            "model.safetensors.index.json",
            "tensor_index.json",
            "tensor.data_0",
            "pytorch_model.bin",
            "tokenizer.safetensors",
            "model.gguf",
            "README.md",
            "notes.txt",
            "secrets.json",
            ".gitattributes",
            "_config",
            "",
        ] {
            assert!(!is_companion(name), "{name}");
        }
    }
}
