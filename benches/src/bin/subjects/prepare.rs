//! Brings the page cache and the memory into a known state: `prepare STATE BALLOON FILE…`, run just
//! before a load.
//!
//! `cold` drops the files from the page cache, `warm` reads them into it, `half` keeps the first
//! half of each. It drops only these files: dropping everything would evict the code of libraries,
//! which a load would then read again.
//!
//! At last it frees the memory of the balloon, given by its process id; `-` means none.

use crate::memory_balloon::set_free;
use floodtide::probe::resident_share;
use rustix::fs::{Advice as FileAdvice, fadvise};
use std::fs::{self, File};
use std::io::{self, Read};

pub(crate) fn run(state: &str, balloon: &str, files: &[&str]) -> Result<(), String> {
    for path in files {
        let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
        match state {
            "cold" => drop_from_cache(&file),
            "warm" => warm(&file),
            "half" => drop_from_cache(&file).and_then(|()| read(&file, file.metadata()?.len() / 2)),
            _ => return Err(format!("there is no state \"{state}\"")),
        }
        .map_err(|error| format!("{path}: {error}"))?;
        let share = resident_share(&file).unwrap_or(0.0);
        let as_asked = match state {
            "cold" => share == 0.0,
            // Ignore a page or two that the kernel has reclaimed at once.
            "warm" => share >= 0.999,
            _ => (0.45..0.6).contains(&share),
        };
        if !as_asked {
            return Err(format!("{path}: asked to be {state}, but {:.0} % of it is cached", share * 100.0));
        }
    }
    if balloon == "-" { Ok(()) } else { set_free(balloon) }
}

fn drop_from_cache(file: &File) -> io::Result<()> {
    for _ in 0..50 {
        fadvise(file, 0, None, FileAdvice::DontNeed)?;
        if resident_share(file).is_none_or(|share| share == 0.0) {
            return Ok(());
        }
        // Pages of a load that has just ended may not be on the lists yet from which they can be
        // dropped.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // Root can drop the pages that the advice leaves.
    fs::write("/proc/sys/vm/drop_caches", "1")
}

fn warm(file: &File) -> io::Result<()> {
    // The kernel may reclaim some at once to make room for the balloon's huge pages.
    for _ in 0..40 {
        read(file, u64::MAX)?;
        if resident_share(file).is_none_or(|share| share == 1.0) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    Ok(())
}

fn read(file: &File, bytes: u64) -> io::Result<()> {
    // Disable read-ahead, which would cache more than half.
    fadvise(file, 0, None, if bytes == u64::MAX { FileAdvice::Sequential } else { FileAdvice::Random })?;
    io::copy(&mut io::BufReader::with_capacity(4 << 20, file.take(bytes)), &mut io::sink()).map(drop)
}
