//! Runs one load in its own process: the request arrives as JSON on standard input, the result
//! leaves on standard output.

use super::Checkpoint;
use super::roofline::{Pattern, Reader};
use super::subject::{Loaded, Subject};
use crate::args::BenchOneArgs;
use crate::output::{self, Failure};
use floodtide::Loader;
use floodtide::core::HumanBytes;
use floodtide::format::SAFETENSORS;
use rustix::time::{ClockId, clock_gettime};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Work {
    Load(Subject),
    Roofline(Pattern),
}

/// The checksum of each tensor, to compare loads.
pub(super) type Checksums = BTreeMap<String, u64>;

/// The result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measured {
    /// The time until every page of every tensor was touched.
    pub(super) seconds: f64,
    /// The CPU time of all threads, user and system, including the kernel threads of a ring.
    pub(super) cpu_seconds: f64,
    pub(super) peak_rss_bytes: u64,
    /// The backend and the reason, for floodtide's own loads.
    pub(super) backend: Option<String>,
    pub(super) reason: String,
    /// The checksums, if requested.
    pub(super) checksums: Option<Checksums>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    work: Work,
    files: Vec<PathBuf>,
    checksums: bool,
}

/// Runs the process of one load.
pub(crate) fn run_one(args: &BenchOneArgs) -> Result<(), Failure> {
    let request = serde_json::from_reader(io::stdin().lock());
    let request: Request = request.map_err(|error| Failure::BadRequest(format!("invalid request: {error}")))?;
    let measured = match request.work {
        Work::Load(subject) => measure(subject, &args.path, &request),
        Work::Roofline(pattern) => {
            let reader = Reader::new(&request.files, pattern);
            let timed = reader.and_then(|mut reader| time(|| reader.read()));
            timed.map(|(timing, ())| timing).map_err(|error| error.to_string())
        }
    };
    output::print_json(&measured)
}

/// Measures `work`.
fn time<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(Measured, T), E> {
    let (cpu, start) = (cpu_time(), Instant::now());
    let done = work()?;
    let measured = Measured {
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: cpu_time().saturating_sub(cpu).as_secs_f64(),
        peak_rss_bytes: output::peak_rss_bytes(),
        backend: None,
        reason: String::new(),
        checksums: None,
    };
    Ok((measured, done))
}

fn measure(subject: Subject, path: &Path, request: &Request) -> Result<Measured, String> {
    if subject == Subject::StdRead {
        let bytes: u64 = request.files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        let memory = floodtide::probe::memory_limit();
        if bytes > memory.available {
            let (bytes, available) = (HumanBytes(bytes), HumanBytes(memory.available));
            return Err(format!("needs {bytes} of memory, {available} available ({})", memory.limit));
        }
    }
    let (mut measured, loaded) = time(|| -> Result<Loaded, String> {
        let loaded = subject.load(path, &request.files)?;
        loaded.touch();
        Ok(loaded)
    })?;
    if let Loaded::Tensors(tensors) = &loaded {
        let report = tensors.report();
        measured.backend = Some(report.backend.name().to_owned());
        measured.reason = report.reason();
    }
    if request.checksums {
        measured.checksums = Some(checksums(&loaded, path)?);
    }
    Ok(measured)
}

/// Returns the CPU time of this process, on all processors.
fn cpu_time() -> Duration {
    // The clock never reports a negative time.
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Computes the checksums of the bytes that plain reads returned.
///
/// The reference library parses safetensors, so that floodtide is compared with it. For other
/// formats, floodtide's own headers say which bytes belong to which tensor.
fn checksums(loaded: &Loaded, path: &Path) -> Result<Checksums, String> {
    let files = match loaded {
        Loaded::Tensors(tensors) => {
            let sum = |tensor: floodtide::Tensor| (tensor.name().to_owned(), checksum(tensor.as_bytes()));
            return Ok(tensors.iter().map(sum).collect());
        }
        Loaded::Files(files) => files,
    };
    let catalog = Loader::new().inspect(path).map_err(|error| error.to_string())?.catalog;
    let mut checksums = Checksums::new();
    if catalog.format() == SAFETENSORS {
        for file in files {
            let tensors = SafeTensors::deserialize(file).map_err(|error| format!("the reference library: {error}"))?;
            checksums.extend(tensors.iter().map(|(name, view)| (name.to_owned(), checksum(view.data()))));
        }
        return Ok(checksums);
    }
    for tensor in catalog.tensors() {
        let bytes = files.get(tensor.file.index());
        let bytes = bytes.and_then(|file| file.get(tensor.range.indices()));
        let bytes = bytes.ok_or_else(|| "a file has changed since the bench began".to_owned())?;
        checksums.insert(tensor.name.to_owned(), checksum(bytes));
    }
    Ok(checksums)
}

/// Computes FNV-1a over words, at the speed of memory.
fn checksum(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(mix(hash, bytes.len() as u64), |hash, &byte| mix(hash, byte.into()))
}

/// Runs the request in a new process. An error concerns this load alone.
pub(super) fn run(work: Work, checkpoint: &Checkpoint, checksums: bool) -> Result<Measured, String> {
    let failed = |error: io::Error| format!("the load's process: {error}");
    let request = Request { work, files: checkpoint.files.clone(), checksums };
    // The running program, even if its file has been replaced meanwhile.
    let mut child = Command::new("/proc/self/exe")
        .arg("bench-one")
        .arg("--")
        .arg(&checkpoint.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let request = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // If the process has ended already, its status says why.
        let _ = stdin.write_all(&request);
    }
    let output = child.wait_with_output().map_err(failed)?;
    if let Some(signal) = output.status.signal() {
        return Err(format!("signal {signal} ended the load's process"));
    }
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| Err(format!("the load's process: {}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_sees_one_bit_and_a_length() {
        let bytes = vec![3_u8; 1001];
        for at in [0, 500, 1000] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(checksum(&bytes), checksum(&other));
        }
        assert_ne!(checksum(&bytes), checksum(&bytes[..1000]));
    }

    #[test]
    fn the_time_of_other_threads_counts() {
        let before = cpu_time();
        let work = || (0..30_000_000_u64).fold(1, |hash: u64, i| std::hint::black_box(hash.wrapping_mul(31) ^ i));
        std::thread::spawn(work).join().expect("ends");
        assert!(cpu_time() > before + Duration::from_millis(1));
    }
}
