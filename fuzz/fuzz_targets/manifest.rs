//! Arbitrary bytes as a manifest: no panic, and writing an accepted one gives the same manifest
//! when read.

#![no_main]

use floodtide_core::manifest::Manifest;
use libfuzzer_sys::fuzz_target;
use std::path::{Component, Path};

fuzz_target!(|json: &[u8]| {
    let Ok(manifest) = Manifest::parse(json) else { return };
    assert!(manifest.tensors().is_sorted_by(|a, b| a.name < b.name));
    assert!(manifest.files().is_sorted_by(|a, b| a.name < b.name));
    for file in manifest.files() {
        let mut components = Path::new(&file.name).components();
        assert!(matches!(components.next(), Some(Component::Normal(name)) if name == file.name.as_str()));
        assert!(components.next().is_none());
    }
    let written = manifest.to_string();
    assert_eq!(Manifest::parse(written.as_bytes()).as_ref(), Ok(&manifest));
});
