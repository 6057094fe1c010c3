//! Paths as names of a storage, which are Unicode: bytes that are not are escaped, so that every path has a name of its own.
//!
//! A byte that is not part of UTF-8 becomes the character `U+10FF00` plus the byte, of the last private-use plane. A path that
//! holds such a character has it escaped byte by byte.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const ESCAPE: u32 = 0x10_ff00;

fn escaped(byte: u8) -> char {
    char::from_u32(ESCAPE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn is_escape(c: char) -> bool {
    (ESCAPE..=ESCAPE + 0xff).contains(&u32::from(c))
}

/// Returns the name of a path.
#[must_use]
pub fn encode(path: &Path) -> String {
    encode_part(path.as_os_str())
}

/// Returns the name of a part of a path.
#[must_use]
pub fn encode_part(part: &OsStr) -> String {
    match part.to_str() {
        Some(text) if !text.contains(is_escape) => return text.to_owned(),
        _ => {}
    }
    let mut name = String::new();
    for chunk in part.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_escape(c) {
                name.extend(c.encode_utf8(&mut [0; 4]).bytes().map(escaped));
            } else {
                name.push(c);
            }
        }
        name.extend(chunk.invalid().iter().copied().map(escaped));
    }
    name
}

/// Returns the path of a name.
#[must_use]
pub fn decode(name: &str) -> PathBuf {
    if !name.contains(is_escape) {
        return PathBuf::from(name);
    }
    let mut bytes = Vec::with_capacity(name.len());
    for c in name.chars() {
        if is_escape(c) {
            // The last byte of the character's number.
            bytes.push((u32::from(c) & 0xff) as u8);
        } else {
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_name_of_its_own() {
        let paths: [&[u8]; 7] =
            [b"a/b", b"a\xff", b"\xc3", "\u{10ffff}".as_bytes(), b"\xf4\x8f\xbf\xbf\xff", "é".as_bytes(), b""];
        let names = paths.map(|path| encode(Path::new(OsStr::from_bytes(path))));
        for (path, name) in paths.iter().zip(&names) {
            assert_eq!(decode(name).as_os_str().as_bytes(), *path, "{name:?}");
        }
        assert_eq!((&*names[0], &*names[5]), ("a/b", "é"));
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), names.len());
    }
}
