//! Writes a manifest with one line per tensor and file, so that line-based tools can process it.

use super::{Manifest, ManifestFile, ManifestTensor, SCHEMA, VERSION};
use alloc::string::String;
use core::fmt;

/// Displays a name as a JSON string.
struct Json<'a>(&'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A string can always be written as JSON.
        let text: String = serde_json::to_string(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

/// Displays as JSON with a final newline, identical for equal manifests.
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\n  \"schema\": \"{SCHEMA}\",\n  \"version\": {VERSION},\n  \"files\": [")?;
        for (number, ManifestFile { name, bytes, sha256 }) in self.files.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}\n    {{\"name\": {}, \"bytes\": {bytes}, \"sha256\": \"{sha256}\"}}", Json(name))?;
        }
        f.write_str(if self.files.is_empty() { "],\n" } else { "\n  ],\n" })?;
        f.write_str("  \"tensors\": [")?;
        for (number, ManifestTensor { name, dtype, shape, bytes, blake3 }) in self.tensors.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}\n    {{\"name\": {}, \"dtype\": \"{dtype}\", \"shape\": {shape:?}, ", Json(name))?;
            write!(f, "\"bytes\": {bytes}, \"blake3\": \"{blake3}\"}}")?;
        }
        f.write_str(if self.tensors.is_empty() { "]\n}\n" } else { "\n  ]\n}\n" })
    }
}
