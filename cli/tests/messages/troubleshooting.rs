//! The messages that the troubleshooting page quotes.

use crate::errors::every_message;
use crate::strategy::every_reason;
use std::path::Path;

#[test]
fn every_quoted_message_exists() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md");
    let page = std::fs::read_to_string(page).expect("reads");
    let texts = every_message() + &every_reason();
    let quotes = page.lines().filter_map(|line| line.strip_prefix("| \"")?.split_once('"'));
    let quotes: Vec<&str> = quotes.map(|(quote, _)| quote).collect();
    assert!(quotes.len() > 20, "{quotes:?}");
    for quote in quotes {
        // An ellipsis, or an N, stands for a value.
        let parts = quote.split('…').flat_map(|part| part.split(" N "));
        let found = texts.lines().any(|text| parts.clone().all(|part| text.contains(part.trim())));
        assert!(found, "no message says \"{quote}\"");
    }
}
