//! The simulator's faults over real reads: io_uring and pread of local files, and copies from
//! memory, for whole loads and streams.

use floodtide::backend::{PREAD, URING};
use floodtide::{Backend, Error, Loader, Order, StreamOptions};
use floodtide_core::middleware::Injection;
use floodtide_core::{Error as CoreError, Fault, Outcome};
use floodtide_sim::Draw;
use floodtide_sim::faults::{FaultKind, FaultState, Scripted, SimFaults, Swarm};
use floodtide_tests::checkpoint::{folder, plain, raw};
use floodtide_tests::counts::Counts;
use floodtide_tests::layout::drop_cache;
use floodtide_tests::over_storages::{Place, places};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const KINDS: [FaultKind; 9] = [
    FaultKind::ShortRead,
    FaultKind::ZeroRead,
    FaultKind::Interrupted,
    FaultKind::Again,
    FaultKind::NoMemory,
    FaultKind::TransientIo,
    FaultKind::DirectRefused,
    FaultKind::QueueFull,
    FaultKind::Reordered,
];

/// Two files of large and small tensors, with what is in them.
fn checkpoint(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for file in 0..2 {
        let sizes = [1_500_000, 7, 0, 900_000, 64, 3_000_000].into_iter().enumerate();
        let tensors = sizes.map(|(i, bytes)| {
            (format!("{file}.{i}"), (0..bytes).map(|at| (at * 31 + at / 255 + i * 7 + file) as u8).collect())
        });
        let tensors: BTreeMap<String, Vec<u8>> = tensors.collect();
        let (json, data) = plain(tensors.clone());
        fs::write(folder.join(format!("model-{file}.safetensors")), raw(&json, &data)).expect("writes");
        all.extend(tensors);
    }
    all
}

/// The ways of reading that have sources of their own.
fn ways(folder: &Path) -> Vec<(Place, Backend)> {
    let [local, memory] = places(folder);
    let copy = memory.blocking();
    vec![(local.clone(), URING), (local, PREAD), (memory, copy)]
}

fn loader(place: &Place, backend: Backend, swarm: &Swarm, script: &[Scripted], seed: u64, counts: &Counts) -> Loader {
    let (swarm, script, worker) = (swarm.clone(), script.to_vec(), AtomicU64::new(0));
    let faulty = place.clone().with_faults(move || {
        let draw = Draw::new(seed ^ worker.fetch_add(1, Ordering::Relaxed) << 32);
        SimFaults::new(FaultState::new(swarm.clone(), script.clone()), draw)
    });
    faulty.loader_by(Some(backend)).trace(counts.clone())
}

#[test]
fn what_passes_by_itself_is_made_good() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    let ways = ways(folder.path());
    for (seed, kind) in KINDS.into_iter().enumerate() {
        for (place, backend) in &ways {
            let backend = *backend;
            drop_cache(folder.path());
            let counts = Counts::default();
            let loader = loader(place, backend, &Swarm::none().with(kind, 600_000), &[], seed as u64, &counts);
            let tensors = match loader.load(&place.path) {
                Ok(tensors) => tensors,
                Err(Error::Core(CoreError::BackendUnavailable { why, .. })) => {
                    println!("skipped: no io_uring here ({why})");
                    continue;
                }
                Err(error) => panic!("{kind:?}, {backend}: {error}"),
            };
            for tensor in tensors.iter() {
                assert!(tensor.as_bytes() == expected[tensor.name()], "{kind:?}, {backend}: {}", tensor.name());
            }
            let (submitted, completed) =
                (counts.submitted.load(Ordering::Relaxed), counts.completed.load(Ordering::Relaxed));
            assert!(submitted > 4 && submitted == completed, "{kind:?}, {backend}: {submitted} and {completed}");
            let told = match kind {
                FaultKind::QueueFull => counts.rejected.load(Ordering::Relaxed),
                FaultKind::ShortRead | FaultKind::ZeroRead | FaultKind::DirectRefused | FaultKind::Reordered => 1,
                _ => counts.failed.load(Ordering::Relaxed),
            };
            assert!(told > 0, "{kind:?}, {backend}: nothing went wrong");
            let mut streamed = BTreeMap::new();
            drop_cache(folder.path());
            let stream = loader
                .stream_options(StreamOptions::new().order(Order::File).memory_limit(2 << 20))
                .stream(&place.path)
                .expect("opens");
            let parts = stream.for_each_part(|tensor, _, bytes| {
                streamed.entry(tensor.name.to_owned()).or_insert_with(Vec::new).extend_from_slice(bytes);
            });
            parts.unwrap_or_else(|error| panic!("{kind:?}, {backend}: {error}"));
            assert!(streamed == expected, "{kind:?}, {backend}: the stream differs");
        }
    }
}

#[test]
fn what_does_not_pass_is_an_error_that_names_the_place() {
    let folder = folder();
    checkpoint(folder.path());
    let injection = Injection::Answer(Outcome::Failed(Fault::Os(libc::ENXIO)));
    for (place, backend) in ways(folder.path()) {
        let script = [Scripted { file: 1, nth: 1, injection }];
        let result = loader(&place, backend, &Swarm::none(), &script, 0, &Counts::default()).load(&place.path);
        let error = match result {
            Err(Error::Core(CoreError::BackendUnavailable { why, .. })) => {
                println!("skipped: no io_uring here ({why})");
                continue;
            }
            result => result.map(|_| ()).expect_err("broken"),
        };
        let Error::Core(CoreError::Read { file, tensor, .. }) = &error else { panic!("{error}") };
        assert!(file.ends_with("model-1.safetensors") && tensor.starts_with("1."), "{error}");
    }
}
