//! Splits names of a storage into parts, which are separated by `/`.

/// Returns the name of a file in a folder; the folder "" is the root of the storage.
pub(crate) fn join(folder: &str, name: &str) -> String {
    let separator = if folder.is_empty() || folder.ends_with('/') { "" } else { "/" };
    [folder, separator, name].concat()
}

/// Returns the folder that a file is in.
pub(crate) fn folder_of(name: &str) -> &str {
    match name.rfind('/') {
        Some(0) => "/",
        Some(at) => &name[..at],
        None => "",
    }
}

/// Returns the last part of a name.
pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_folder_and_its_last_part() {
        for (name, folder, last) in [("a/b/c", "a/b", "c"), ("/c", "/", "c"), ("c", "", "c"), ("./c", ".", "c")] {
            assert_eq!((folder_of(name), last_part(name)), (folder, last));
            assert_eq!(join(folder, last), name);
        }
        assert_eq!(join("a/", "b"), "a/b");
    }
}
