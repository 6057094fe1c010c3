//! Resolves a path or URI to a storage and a name in it.

use crate::checkpoint_files::LoadStorage;
use crate::error::Error;
use floodtide_linux::LocalStorage;
use floodtide_linux::storage::names;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The storages of a loader, by URI scheme.
#[derive(Debug, Clone)]
pub(crate) struct Storages(BTreeMap<String, Arc<LoadStorage>>);

/// The scheme of plain paths and `file://` URIs.
const LOCAL: &str = "file";

impl Default for Storages {
    fn default() -> Self {
        let local: Arc<LoadStorage> = Arc::new(LocalStorage::new());
        Self(BTreeMap::from([(LOCAL.to_owned(), local)]))
    }
}

impl Storages {
    /// Adds a storage, or replaces the one of the same scheme.
    pub(crate) fn insert(&mut self, scheme: String, storage: Arc<LoadStorage>) {
        self.0.insert(scheme, storage);
    }

    /// Returns the path of what a path or URI names, `None` when that is in a storage of its own.
    pub(crate) fn local_path(&self, path: &Path) -> Result<Option<PathBuf>, Error> {
        let is_local = path.to_str().and_then(split).is_none_or(|(scheme, _)| scheme == LOCAL);
        let (_, name) = self.resolve(path)?;
        Ok(is_local.then(|| names::decode(&name)))
    }

    /// Returns the storage of a path or URI, and the name in it.
    pub(crate) fn resolve(&self, path: &Path) -> Result<(&Arc<LoadStorage>, String), Error> {
        let uri = path.to_str().and_then(split);
        let (scheme, name) = match uri {
            None => (LOCAL, names::encode(path)),
            Some((LOCAL, rest)) => (LOCAL, local_name(rest).ok_or_else(|| invalid(path))?),
            Some((scheme, rest)) => (scheme, rest.to_owned()),
        };
        let storage = self.0.get(scheme).ok_or_else(|| {
            let known: Vec<String> = self.0.keys().map(|scheme| format!("{scheme}://")).collect();
            Error::UnknownScheme { uri: path.display().to_string(), known: known.join(", ") }
        })?;
        Ok((storage, name))
    }
}

fn invalid(path: &Path) -> Error {
    Error::InvalidUri { uri: path.display().to_string() }
}

/// Returns the scheme of a URI (RFC 3986, section 3.1) and the rest after `://`, or `None` for a
/// path.
fn split(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    is_scheme.then_some((scheme, rest))
}

/// Returns the name of a `file://` URI (RFC 8089) without a host or with `localhost`. Special
/// characters are escaped as `%XX`.
fn local_name(rest: &str) -> Option<String> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return None;
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut parts = path.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (hex, rest) = part.split_at_checked(2)?;
        if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    use std::os::unix::ffi::OsStrExt;
    (!bytes.contains(&0)).then(|| names::encode_part(std::ffi::OsStr::from_bytes(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodtide_core::storage::MemoryStorage;

    #[test]
    fn a_path_or_uri_leads_to_a_name_in_its_storage() {
        let mut storages = Storages::default();
        storages.insert("mem".to_owned(), Arc::new(MemoryStorage::new()));
        for (path, storage, name) in [
            ("model/a.safetensors", "local files", "model/a.safetensors"),
            ("file:///a%20b/%C3%A9", "local files", "/a b/é"),
            ("file://localhost/a", "local files", "/a"),
            ("mem://model/a%20b", "memory", "model/a%20b"),
            ("C://x", "local files", "C://x"),
        ] {
            let (found, named) = storages.resolve(Path::new(path)).expect(path);
            assert_eq!((found.name(), &*named), (storage, name), "{path}");
        }
        for path in ["file://host/a", "file:///%zz", "file:///%4", "file:///%00"] {
            let error = storages.resolve(Path::new(path)).expect_err(path);
            assert!(matches!(error, Error::InvalidUri { .. }), "{path}: {error}");
        }
        let error = storages.resolve(Path::new("s3://bucket/model")).expect_err("unknown").to_string();
        assert!(error.contains("s3://bucket/model") && error.contains("file://, mem://"), "{error}");
    }
}
