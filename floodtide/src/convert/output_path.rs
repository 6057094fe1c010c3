//! Checks that the output may be written to the requested path.

use crate::error::{Error, OutputError};
use floodtide_core::format::{Claim, FORMATS, Format};
use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A checked output path: a name in an existing folder.
#[derive(Debug)]
pub(super) struct OutputPath {
    /// The path as given.
    pub(super) path: PathBuf,
    /// The parent folder, resolved and open.
    pub(super) parent: PathBuf,
    pub(super) parent_file: File,
    /// The name in the parent folder.
    pub(super) name: OsString,
    /// Whether an existing output is replaced.
    force: bool,
}

impl OutputPath {
    /// Checks `path`, which must not contain any file of `sources`. With `force`, it may hold a
    /// checkpoint, which is replaced.
    pub(super) fn check(path: &Path, sources: &[PathBuf], force: bool) -> Result<Self, Error> {
        let owned = || path.to_owned();
        // Empty, "/", or a path that ends in "..".
        let name = path.file_name().ok_or_else(|| OutputError::NoName { path: owned() })?.to_owned();
        let given = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let io = |path: &Path, action| {
            let path = path.to_owned();
            move |cause: io::Error| Error::Io { path, action, cause }
        };
        let parent = match fs::canonicalize(given) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OutputError::NoParent { path: given.to_owned() }.into());
            }
            parent => parent.map_err(io(given, "open the output's folder"))?,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent_file = rustix::fs::open(&parent, flags, Mode::empty());
        let parent_file = File::from(parent_file.map_err(|e| io(given, "open the output's folder")(e.into()))?);
        let output = Self { path: owned(), parent, parent_file, name, force };
        let resolved = output.resolved();
        if fs::symlink_metadata(&resolved).is_ok() && sources.iter().any(|source| lies_in(source, &resolved)) {
            return Err(OutputError::IsSource { path: owned() }.into());
        }
        output.replaces()?;
        Ok(output)
    }

    /// Returns true if the output exists and is replaced.
    pub(super) fn replaces(&self) -> Result<bool, Error> {
        let path = || self.path.clone();
        let io = |action| move |cause: io::Error| Error::Io { path: path(), action, cause };
        let resolved = self.resolved();
        match fs::symlink_metadata(&resolved) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io("examine the output")(error)),
            Ok(_) if !self.force => Err(OutputError::Exists { path: path() }.into()),
            Ok(there) => match not_replaceable(&resolved, &there).map_err(io("list the folder"))? {
                Some(found) => Err(OutputError::NotReplaceable { path: path(), found }.into()),
                None => Ok(true),
            },
        }
    }

    /// Resolves all links in a path, except its last component.
    pub(super) fn resolved(&self) -> PathBuf {
        self.parent.join(&self.name)
    }
}

/// Returns true if a file, or a link to it, is in a folder.
fn lies_in(file: &Path, folder: &Path) -> bool {
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let by_name =
        file.parent().map_or(Path::new("."), |parent| if parent == Path::new("") { Path::new(".") } else { parent });
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let own = identity(&folder);
    // Compare identities too: a folder that is mounted twice has two paths.
    let is_below = |path: PathBuf| {
        path.starts_with(&folder) || own.is_some() && path.ancestors().any(|above| identity(above) == own)
    };
    [fs::canonicalize(file), fs::canonicalize(by_name)].into_iter().flatten().any(is_below)
}

/// Returns true if the folder is a mount point, which cannot be renamed. Before Linux 5.8, detects
/// only mounts of another device.
fn is_mounted_on(path: &Path, there: &fs::Metadata) -> bool {
    let told = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
    if told.is_ok_and(|told| told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)) {
        return true;
    }
    path.parent().and_then(|parent| fs::metadata(parent).ok()).is_some_and(|parent| parent.dev() != there.dev())
}

/// Describes an output that must not be replaced: anything but an empty folder, or one with a
/// checkpoint and no subfolders.
fn not_replaceable(path: &Path, there: &fs::Metadata) -> io::Result<Option<&'static str>> {
    if there.is_symlink() {
        return Ok(Some("a symbolic link"));
    }
    if !there.is_dir() {
        return Ok(Some("a file"));
    }
    if is_mounted_on(path, there) {
        return Ok(Some("a mount point"));
    }
    let (mut empty, mut checkpoint) = (true, false);
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            return Ok(Some("a folder with subfolders"));
        }
        empty = false;
        checkpoint |= is_of_a_checkpoint(&entry.file_name());
    }
    Ok(if empty || checkpoint { None } else { Some("a folder without a checkpoint") })
}

fn is_of_a_checkpoint(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let is_claimed = |format: &&dyn Format| matches!(format.claim(&name), Some(Claim::File | Claim::Index { .. }));
    FORMATS.iter().any(is_claimed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn refusal(path: &Path, sources: &[PathBuf], force: bool) -> OutputError {
        match OutputPath::check(path, sources, force) {
            Err(Error::Output(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_source_is_found_by_what_it_is_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let (source, mounted) = (folder.path().join("source"), folder.path().join("mounted"));
        for path in [&source, &mounted] {
            fs::create_dir(path).expect("makes");
        }
        let file = source.join("model.safetensors");
        fs::write(&file, b"source").expect("writes");
        if let Err(error) = rustix::mount::mount_bind(&source, &mounted) {
            return println!("skipped: nothing can be mounted here ({error})");
        }
        let (same, below) =
            (lies_in(&file, &mounted), not_replaceable(&mounted, &fs::metadata(&mounted).expect("there")));
        rustix::mount::unmount(&mounted, rustix::mount::UnmountFlags::empty()).expect("unmounts");
        assert!(same && !lies_in(&file, &mounted));
        assert_eq!(below.expect("lists"), Some("a mount point"));
    }

    #[test]
    fn a_new_name_in_a_folder_that_is_there_will_do() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in [folder.path().join("out"), folder.path().join("out/"), folder.path().join("./out")] {
            let output = OutputPath::check(&path, &[], false).expect("free");
            assert_eq!((output.name.to_str(), output.replaces().expect("may be")), (Some("out"), false));
            assert_eq!(output.resolved(), fs::canonicalize(folder.path()).expect("there").join("out"));
        }
    }

    #[test]
    fn names_that_mean_no_new_folder_are_refused() {
        for path in ["/", "", "..", "a/.."] {
            assert!(matches!(refusal(Path::new(path), &[], true), OutputError::NoName { .. }), "{path}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing/out");
        assert!(matches!(refusal(&missing, &[], false), OutputError::NoParent { path } if path.ends_with("missing")));
        fs::write(folder.path().join("file"), b"").expect("writes");
        let below_a_file = OutputPath::check(&folder.path().join("file/out"), &[], false).expect_err("no folder");
        assert!(matches!(below_a_file, Error::Io { .. }), "{below_a_file}");
    }

    #[test]
    fn what_is_there_is_replaced_only_on_request_and_only_if_it_is_a_checkpoint() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["empty", "model", "other", "deep"] {
            fs::create_dir(at(name)).expect("makes");
        }
        for file in ["model/model.safetensors", "model/README.md", "other/photo.jpg", "deep/model.safetensors", "file"]
        {
            fs::write(at(file), b"").expect("writes");
        }
        fs::create_dir(at("deep/more")).expect("makes");
        symlink(at("model"), at("link")).expect("links");
        symlink("nowhere", at("dangling")).expect("links");
        for name in ["empty", "model", "other", "deep", "file", "link", "dangling"] {
            assert!(matches!(refusal(&at(name), &[], false), OutputError::Exists { .. }), "{name}");
        }
        for name in ["empty", "model"] {
            let output = OutputPath::check(&at(name), &[], true).expect("replaceable");
            assert!(output.replaces().expect("replaceable"), "{name}");
            // Another program creates the output meanwhile.
            fs::create_dir(at(name).join("photos")).expect("makes");
            assert!(output.replaces().is_err(), "{name}");
        }
        for (name, expected) in [
            ("other", "without a checkpoint"),
            ("deep", "with subfolders"),
            ("file", "file"),
            ("link", "symbolic link"),
            ("dangling", "symbolic link"),
        ] {
            let refusal = refusal(&at(name), &[], true);
            assert!(matches!(refusal, OutputError::NotReplaceable { found, .. } if found.contains(expected)), "{name}");
        }
    }

    #[test]
    fn the_source_is_not_replaced_whatever_name_it_is_given_by() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["model", "snapshot", "blobs"] {
            fs::create_dir(at(name)).expect("makes");
        }
        for file in ["model/model.safetensors", "blobs/1.safetensors"] {
            fs::write(at(file), b"").expect("writes");
        }
        symlink("../blobs/1.safetensors", at("snapshot/model.safetensors")).expect("links");
        symlink("model", at("link")).expect("links");
        for (out, source) in [
            ("model", "model/model.safetensors"),
            ("model", "link/model.safetensors"),
            ("link", "model/model.safetensors"),
            // Through a link, and the folder of the link itself.
            ("blobs", "snapshot/model.safetensors"),
            ("snapshot", "snapshot/model.safetensors"),
        ] {
            for force in [false, true] {
                let refusal = refusal(&at(out), &[at(source)], force);
                assert!(matches!(refusal, OutputError::IsSource { .. }), "{out} of {source}: {refusal}");
            }
        }
        assert!(OutputPath::check(&at("model/new"), &[at("model/model.safetensors")], false).is_ok(), "beside it");
    }
}
