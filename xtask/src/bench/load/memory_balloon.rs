//! Memory that is held until just before the clock starts.
//!
//! A virtual machine may return free memory to its host after a while, and taking it back is slow.
//! So that no load pays for how long the ones before it took, a program holds memory until the last
//! step of the preparation ends it.

use super::subjects::program;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A process that holds memory. It ends when this process ends.
pub(super) struct MemoryBalloon(Child);

impl MemoryBalloon {
    /// Holds that much memory, but at most two fifths of what is available.
    pub(super) fn hold(bytes: u64) -> Result<Self, String> {
        let bytes = bytes.min(available() / 5 * 2);
        let mut hold = Command::new(program());
        hold.args(["hold", &bytes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut balloon = Self(hold.spawn().map_err(|error| format!("memory cannot be held: {error}"))?);
        let mut line = String::new();
        let ready = balloon.0.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        match ready {
            Some(Ok(1..)) => Ok(balloon),
            _ => Err("memory cannot be held".to_owned()),
        }
    }

    /// Returns the id by which another process ends it.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for MemoryBalloon {
    fn drop(&mut self) {
        // It may have ended already. Its id stays valid until it is waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn available() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}
