//! Slow storages: the right bytes, no sooner than the latency and the bandwidth allow, around any
//! storage and around each other.

use floodtide::storage::{
    LatencyClass, Layered, LoadBuffer, LocalStorage, MemoryStorage, Opened, Storage, SystemTimer, Throttle, Throttled,
};
use floodtide::{Backend, ErrorKind, Loader, StreamOptions};
use floodtide_sim::Draw;
use floodtide_sim::faults::{FaultKind, FaultState, SimFaults, Swarm};
use floodtide_tests::by_backend::{MB, assert_right, load, stream};
use floodtide_tests::checkpoint::{folder, numbered};
use floodtide_tests::counts::Counts;
use floodtide_tests::layout::reference;
use floodtide_tests::over_storages::{Place, faulty};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const MILLISECOND: u64 = 1_000_000;

fn network(latency: u64, bytes_per_second: u64) -> Throttle {
    Throttle { latency, bytes_per_second, class: LatencyClass::Network }
}

/// A loader that finds a storage by the scheme `slow`.
fn loader(storage: impl Storage<LoadBuffer> + 'static) -> Loader {
    Loader::new().storage("slow", storage).stream_options(StreamOptions::new().memory_limit(16 * MB as u64))
}

fn uri(path: &Path) -> PathBuf {
    PathBuf::from(format!("slow://{}", path.display()))
}

fn in_memory(path: &Path) -> MemoryStorage {
    Place::memory(path).memory.expect("it is")
}

/// Loads and streams by each way, which takes at least that long.
fn assert_slow(loader: &Loader, path: &Path, backends: &[Option<Backend>], least: Duration) {
    let expected = reference(path.parent().expect("a folder"));
    let uri = uri(path);
    for &backend in backends {
        let loader = backend.map_or_else(|| loader.clone(), |backend| loader.clone().backend(backend));
        let device = &loader.plan(&uri).expect("plans").signals.devices[0];
        assert_eq!(device.signals.latency, LatencyClass::Network, "{backend:?}");
        for way in [load, stream] {
            let started = Instant::now();
            assert_right(way(&loader, &uri), &expected, &format!("{backend:?}"));
            assert!(started.elapsed() >= least, "{backend:?}: {:?} is less than {least:?}", started.elapsed());
        }
    }
}

#[test]
fn a_load_takes_the_latency_and_the_bytes_at_the_bandwidth() {
    let folder = folder();
    let path = numbered(folder.path(), &[2 * MB; 5]);
    // 10 MiB at 50 MiB/s.
    let throttle = network(20 * MILLISECOND, 50 << 20);
    let least = Duration::from_millis(20 + 200);
    let local = Throttled::new(LocalStorage::new(), throttle, SystemTimer::new());
    assert_slow(&loader(local), &path, &Place::local(&path).copying(), least);
    let memory = Throttled::new(in_memory(&path), throttle, SystemTimer::new());
    assert_slow(&loader(memory), &path, &Place::memory(&path).copying(), least);
}

#[test]
fn the_latency_of_reads_side_by_side_overlaps() {
    let folder = folder();
    let path = numbered(folder.path(), &[4 * MB; 12]);
    let latency = 100 * MILLISECOND;
    let memory = Throttled::new(in_memory(&path), network(latency, 0), SystemTimer::new());
    let loader = loader(memory);
    let reads = loader.plan(uri(&path)).expect("plans").plan.chunks().len() as u32;
    let started = Instant::now();
    assert_eq!(loader.load(uri(&path)).expect("loads").len(), 12);
    let all = Duration::from_nanos(latency) * reads;
    assert!(reads >= 12 && started.elapsed() < all / 2, "{:?} of {all:?}", started.elapsed());
}

#[test]
fn a_slow_storage_around_a_slow_one_takes_the_time_of_both() {
    let folder = folder();
    let path = numbered(folder.path(), &[2 * MB; 5]);
    let timer = SystemTimer::new();
    let least = Duration::from_millis(30 + 40);
    let inner = Throttle { class: LatencyClass::Memory, ..network(30 * MILLISECOND, 0) };
    let local = Throttled::new(LocalStorage::new(), inner, timer);
    let local = Throttled::new(local, network(40 * MILLISECOND, 1 << 30), timer);
    assert_slow(&loader(local), &path, &Place::local(&path).copying(), least);
    let memory = Throttled::new(in_memory(&path), inner, timer);
    let memory = Throttled::new(memory, network(40 * MILLISECOND, 1 << 30), timer);
    assert_slow(&loader(memory), &path, &Place::memory(&path).copying(), least);
}

#[test]
fn reads_of_a_slow_storage_are_traced_and_their_faults_made_good() {
    let folder = folder();
    let path = numbered(folder.path(), &[2 * MB; 5]);
    let throttle = network(2 * MILLISECOND, 1 << 30);
    let faulty = || {
        faulty(|| {
            SimFaults::new(FaultState::new(Swarm::none().with(FaultKind::ShortRead, 500_000), Vec::new()), Draw::new(1))
        })
    };
    let local = Throttled::new(LocalStorage::new(), throttle, SystemTimer::new());
    let memory = Throttled::new(in_memory(&path), throttle, SystemTimer::new());
    let (local, memory) = (loader(Layered::new(local, faulty())), loader(Layered::new(memory, faulty())));
    for (slow, backends) in [(local, Place::local(&path).copying()), (memory, Place::memory(&path).copying())] {
        let counts = Counts::default();
        let slow = slow.trace(counts.clone());
        assert_slow(&slow, &path, &backends, Duration::from_millis(2));
        let chunks = slow.plan(uri(&path)).expect("plans").plan.chunks().len();
        // Of each load and stream; what came short was read on.
        assert!(counts.submitted.load(Ordering::Relaxed) > (2 * backends.len() * chunks.min(5)) as u64, "{counts:?}");
    }
}

#[test]
fn a_slow_storage_has_no_views_that_would_not_be_slow() {
    let folder = folder();
    let path = numbered(folder.path(), &[2 * MB; 5]);
    let throttle = network(20 * MILLISECOND, 0);
    let local = Throttled::new(LocalStorage::new(), throttle, SystemTimer::new());
    let memory = Throttled::new(in_memory(&path), throttle, SystemTimer::new());
    assert_no_views(local, &path, Place::local(&path).mapped());
    assert_no_views(memory, &path, Place::memory(&path).mapped());
}

fn assert_no_views(storage: impl Storage<LoadBuffer> + Clone + 'static, path: &Path, mapped: Backend) {
    let Opened::File(file) = storage.open(path.to_str().expect("Unicode")).expect("opens") else { panic!("a file") };
    assert!(file.view().expect("views").is_none());
    let slow = loader(storage);
    let loaded = slow.clone().backend(mapped).load(uri(path));
    for result in [slow.map(uri(path)), loaded] {
        let error = result.map(|_| ()).expect_err("nothing to map");
        assert_eq!(error.kind(), ErrorKind::BackendUnavailable, "{error}");
        assert!(error.to_string().contains("is read by"), "{error}");
    }
}

#[test]
fn a_slow_storage_reports_a_file_that_changes() {
    let folder = folder();
    let path = numbered(folder.path(), &[2 * MB; 5]);
    let memory = in_memory(&path);
    let slow = loader(Throttled::new(memory.clone(), network(50 * MILLISECOND, 0), SystemTimer::new()));
    let load = slow.start(uri(&path)).expect("starts");
    assert!(memory.remove(path.to_str().expect("Unicode")));
    let error = load.wait().expect_err("changed").to_string();
    assert!(error.contains("model.safetensors") && error.contains("removed"), "{error}");
}
