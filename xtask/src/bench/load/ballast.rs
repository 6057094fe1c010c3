//! Memory that is in use until just before a clock starts.
//!
//! A virtual machine may give memory that is free to its host after a while, and pay dearly when it takes it again. So that no way
//! pays for how long others took before it, a program holds memory until the last step of preparing ends it.

use super::ways::program;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A process that holds memory, and ends by itself when this one does.
pub(super) struct Ballast(Child);

impl Ballast {
    /// Memory of that size, but of less than half of what is free.
    pub(super) fn hold(bytes: u64) -> Result<Self, String> {
        let bytes = bytes.min(available() / 5 * 2);
        let mut hold = Command::new(program());
        hold.args(["hold", &bytes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut ballast = Self(hold.spawn().map_err(|error| format!("memory cannot be held: {error}"))?);
        let mut line = String::new();
        let ready = ballast.0.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        match ready {
            Some(Ok(1..)) => Ok(ballast),
            _ => Err("memory cannot be held".to_owned()),
        }
    }

    /// By this another process ends it.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // It may have ended already; it is ours until it is waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn available() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}
