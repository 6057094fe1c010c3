//! Explains how each group of files is read.

use super::FileSignals;
use super::group::Group;
use crate::storage::LatencyClass;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Up to this fraction a file does not count as cached. Reading its header caches about as much.
const SCATTERED_SHARE: f32 = 0.05;

/// Explains how the selected files are read. `direct` is the decision by file.
pub(super) fn explain(signals: &Group<'_>, direct: &[bool]) -> String {
    if signals.device.signals.latency == LatencyClass::Memory {
        return "the bytes are in memory and are copied from there".to_string();
    }
    let read = || signals.files.iter().filter(|file| file.selected_bytes > 0);
    let count = |is: fn(&FileSignals) -> bool| read().filter(|file| is(file)).count();
    let files = read().count();
    let direct = signals.files.iter().zip(direct).filter(|(file, direct)| **direct && file.selected_bytes > 0).count();
    let cached = count(FileSignals::is_cached);
    let partly = count(|file| !file.is_cached() && !file.cached.is_empty());
    // The cached ranges are each too small for a read.
    let scattered = count(|file| file.cached.is_empty() && file.resident.is_some_and(|share| share > SCATTERED_SHARE));
    let refusing = count(|file| !file.direct);
    let unknown = count(|file| file.resident.is_none());
    let shifted = count(|file| file.direct && !file.aligned && !file.is_cached());
    let say = |one: &str, several: &str| number(files, one, several).to_string();
    let mut text = match (direct, cached, refusing) {
        _ if files == 0 => "there is nothing to read".to_string(),
        (0, c, _) if c == files => say(
            "the file is in the page cache, so it is copied from there",
            "the files are in the page cache, so they are copied from there",
        ),
        (0, _, r) if r == files => match &signals.direct_refused {
            Some(why) => format!("{why}, so the reads are buffered"),
            None => format!(
                "{} does not support direct reads, so the reads are buffered",
                signals.device.signals.file_system
            ),
        },
        (0, 0, 0) => format!(
            "the tensors in the {} are misaligned for their dtypes, so each is read through the page cache to an \
             aligned address",
            number(files, "file", "files")
        ),
        (d, _, _) if d == files && partly > 0 => {
            let those = match (partly, files) {
                (_, 1) => "the file is".to_string(),
                (1, _) => format!("1 of {files} files is"),
                _ => format!("{partly} of {files} files are"),
            };
            format!("{those} partly in the page cache: that part is copied, the rest is read by direct I/O")
        }
        (d, _, _) if d == files && unknown == files => {
            return say(
                "the system does not report what is cached of the file, so the reads use direct I/O",
                "the system does not report what is cached of the files, so the reads use direct I/O",
            );
        }
        (d, _, _) if d == files && unknown > 0 => {
            "no file is known to be in the page cache, so the reads use direct I/O".to_string()
        }
        (d, _, _) if d == files && scattered > 0 => say(
            "only small parts of the file are in the page cache, so the reads use direct I/O",
            "only small parts of the files are in the page cache, so the reads use direct I/O",
        ),
        (d, _, _) if d == files => say(
            "the file is not in the page cache, so the reads use direct I/O",
            "the files are not in the page cache, so the reads use direct I/O",
        ),
        _ => {
            let those = match direct {
                0 => format!("none of {files} files is"),
                1 => format!("1 of {files} files is"),
                _ => format!("{direct} of {files} files are"),
            };
            let kinds = [
                (cached, "is cached", "are cached"),
                (partly, "is cached in part", "are cached in part"),
                (refusing, "does not support direct reads", "do not support direct reads"),
                (shifted, "has misaligned tensors", "have misaligned tensors"),
            ];
            let there = kinds.iter().filter(|(n, ..)| *n > 0);
            let told: Vec<String> =
                there.map(|(n, one, several)| format!("{n} {}", number(*n, one, several))).collect();
            format!("{those} read by direct I/O ({})", told.join(", "))
        }
    };
    if unknown > 0 {
        let files = number(unknown, "file", "files");
        text += &format!("; the system does not report what is cached of {unknown} {files}");
    }
    text
}

fn number<'a>(n: usize, one: &'a str, several: &'a str) -> &'a str {
    if n == 1 { one } else { several }
}
