//! All messages, help texts and reasons, each in one file that a person can review.
//!
//! A test here fails when a text changes. Review the difference, then accept it with
//! `INSTA_UPDATE=always cargo test -p floodtide-cli --test messages`.

mod declared;
mod errors;
mod formats;
mod help;
mod strategy;
mod troubleshooting;

/// Compares a text with its reviewed snapshot.
fn assert_reviewed(name: &str, text: &str) {
    insta::with_settings!({ prepend_module_to_snapshot => false }, { insta::assert_snapshot!(name, text) });
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn model() -> String {
    text("model.safetensors")
}
