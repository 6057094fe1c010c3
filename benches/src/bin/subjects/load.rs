//! Measures one load of a whole checkpoint. Every subject touches one byte of each page before the
//! clock stops.

use crate::measure::{timed, touch};
use crate::{explain, shards};
use floodtide::core::to_usize;
use floodtide::{Loader, Tensors};
use memmap2::{Advice, Mmap, MmapMut};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

pub(crate) fn run(way: &str, folder: &Path) -> Result<(), String> {
    let report = match way {
        "read" => read(folder)?,
        "safetensors" => mapped(folder)?,
        "threads" => threads(folder, 0)?,
        "threads-direct" => threads(folder, rustix::fs::OFlags::DIRECT.bits().cast_signed())?,
        "second" => second(folder)?,
        backend => {
            let loader = loader(backend)?;
            let (mut report, tensors) = timed(|| touched(&loader, folder))?;
            report["note"] = note(&tensors);
            report
        }
    };
    println!("{report}");
    Ok(())
}

fn loader(backend: &str) -> Result<Loader, String> {
    let named = floodtide::backends().into_iter().find(|known| known.name() == backend);
    match named {
        Some(named) => Ok(Loader::new().backend(named)),
        None if backend == "auto" => Ok(Loader::new()),
        None => Err(format!("there is no way \"{backend}\"")),
    }
}

fn touched(loader: &Loader, folder: &Path) -> Result<(u64, Tensors), String> {
    let tensors = loader.load(folder).map_err(explain)?;
    std::hint::black_box(tensors.iter().map(|tensor| touch(tensor.as_bytes())).sum::<u64>());
    Ok((tensors.report().bytes, tensors))
}

fn note(tensors: &Tensors) -> Value {
    let report = tensors.report();
    json!(format!("{}: {}", report.backend, report.reason()))
}

/// Loads again in this process, after the tensors of an earlier load are dropped.
fn second(folder: &Path) -> Result<Value, String> {
    let loader = Loader::new();
    touched(&loader, folder)?;
    let (mut report, tensors) = timed(|| touched(&loader, folder))?;
    report["note"] = note(&tensors);
    Ok(report)
}

/// Reads files as a program without a loader does.
fn read(folder: &Path) -> Result<Value, String> {
    let shards = shards(folder)?;
    let load = || {
        let whole = shards.iter().map(fs::read).collect::<Result<Vec<_>, _>>().map_err(explain)?;
        std::hint::black_box(whole.iter().map(|bytes| touch(bytes)).sum::<u64>());
        Ok((whole.iter().map(|bytes| bytes.len() as u64).sum(), whole))
    };
    Ok(timed(load)?.0)
}

/// Loads with the reference library over mapped files, as its documentation shows.
fn mapped(folder: &Path) -> Result<Value, String> {
    let shards = shards(folder)?;
    let load = || {
        let mut maps = Vec::new();
        let mut bytes = 0;
        for path in &shards {
            let file = File::open(path).map_err(explain)?;
            // SAFETY: no process writes to the bench's own files while it runs.
            let map = unsafe { Mmap::map(&file) }.map_err(explain)?;
            let tensors = SafeTensors::deserialize(&map).map_err(explain)?;
            for (_, tensor) in tensors.iter() {
                std::hint::black_box(touch(tensor.data()));
                bytes += tensor.data().len() as u64;
            }
            maps.push(map);
        }
        Ok((bytes, maps))
    };
    Ok(timed(load)?.0)
}

const HUGE_PAGE: usize = 2 << 20;
const READ: usize = 2 << 20;

/// Reads without a loader as fast as two processors can: threads that pread into huge pages, two
/// through the page cache or four with direct I/O, because these wait. Each thread takes a part of
/// every file.
fn threads(folder: &Path, flags: i32) -> Result<Value, String> {
    let threads = if flags == 0 { 2 } else { 4 };
    let open = |path| fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let files = shards(folder)?.iter().map(open).collect::<Result<Vec<_>, _>>().map_err(explain)?;
    let load = || {
        let lengths = files.iter().map(|file| Ok(to_usize(file.metadata().map_err(explain)?.len())));
        let lengths = lengths.collect::<Result<Vec<_>, String>>()?;
        let room: usize = lengths.iter().map(|length| length.next_multiple_of(HUGE_PAGE)).sum();
        let mut memory = MmapMut::map_anon(room + HUGE_PAGE).map_err(explain)?;
        memory.advise(Advice::HugePage).map_err(explain)?;
        let first = memory.as_ptr().align_offset(HUGE_PAGE);
        let mut rest = &mut memory[first..first + room];
        let mut parts: Vec<Vec<(&File, usize, &mut [u8])>> = (0..threads).map(|_| Vec::new()).collect();
        for (file, length) in files.iter().zip(&lengths) {
            let (own, others) = rest.split_at_mut(length.next_multiple_of(HUGE_PAGE));
            rest = others;
            let share = length.div_ceil(threads).next_multiple_of(READ);
            for (i, part) in own.chunks_mut(share).enumerate() {
                parts[i].push((file, i * share, part));
            }
        }
        let read = |part: Vec<(&File, usize, &mut [u8])>| -> std::io::Result<u64> {
            let (mut sum, mut total) = (0, 0);
            for (file, offset, bytes) in part {
                for (i, bytes) in bytes.chunks_mut(READ).enumerate() {
                    let read = file.read_at(bytes, (offset + i * READ) as u64)?;
                    sum += touch(&bytes[..read]);
                    total += read as u64;
                }
            }
            std::hint::black_box(sum);
            Ok(total)
        };
        let done = thread::scope(|scope| {
            let workers: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || read(part))).collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).collect::<Result<Vec<_>, _>>()
        });
        let (read, expected) = (done.map_err(explain)?.iter().sum::<u64>(), lengths.iter().sum::<usize>() as u64);
        if read == expected { Ok((read, memory)) } else { Err(format!("read {read} of {expected} bytes")) }
    };
    Ok(timed(load)?.0)
}
