//! Holds memory until just before the clock starts: `hold BYTES` holds it, and `prepare` ends that
//! process.
//!
//! It is held in huge pages, because the kernel reuses freed pages first only for allocations of
//! their size.

use crate::explain;
use memmap2::{Advice, MmapMut};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{self, Read};
use std::thread;
use std::time::Duration;

/// Allocates the memory, prints a line, and holds it until standard input is closed or the process
/// is ended.
pub(crate) fn hold(bytes: &str) -> Result<(), String> {
    let half = bytes.parse::<usize>().map_err(explain)? / 2;
    let take = || {
        let memory = MmapMut::map_anon(half.max(1))?;
        // If the kernel supports neither, loads pay for their memory.
        let _ = memory.advise(Advice::HugePage);
        let _ = memory.advise(Advice::PopulateWrite);
        io::Result::Ok(memory)
    };
    let halves = thread::scope(|scope| {
        let halves = [scope.spawn(take), scope.spawn(take)];
        halves.map(|half| half.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
    });
    let _held = halves.into_iter().collect::<io::Result<Vec<MmapMut>>>().map_err(explain)?;
    println!("holding");
    io::stdin().read_to_end(&mut Vec::new()).map(drop).map_err(explain)
}

/// Ends the process that holds memory, and waits until the memory is free.
pub(crate) fn set_free(process: &str) -> Result<(), String> {
    let pid = process.parse().ok().and_then(Pid::from_raw).ok_or("the memory balloon is not a process")?;
    kill_process(pid, Signal::KILL).map_err(explain)?;
    // Only its exit status remains, until the bench reaps it.
    let gone = || fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| stat.contains(") Z "));
    for _ in 0..10_000 {
        if gone() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err("the memory balloon does not end".to_owned())
}
