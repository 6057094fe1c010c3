use super::*;
use crate::storage::LatencyClass;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use core::ops::Deref;

pub(super) const URING: Backend = Backend::new("uring", ReadStyle::Queue, "");
pub(super) const PREAD: Backend = Backend::new("pread", ReadStyle::Blocking, "");
pub(super) const MMAP: Backend = Backend::new("mmap", ReadStyle::Mapped, "");
const TOKIO: Backend = Backend::new("tokio", ReadStyle::Tasks, "");

/// A strategy of one route.
#[derive(Debug, PartialEq)]
pub(super) struct Decided {
    pub(super) direct: Vec<bool>,
    pub(super) reason: String,
    huge_pages: bool,
    route: Route,
}

impl Deref for Decided {
    type Target = Route;

    fn deref(&self) -> &Route {
        &self.route
    }
}

/// Decides for files on one device, with the caller's choice.
pub(super) fn decide(signals: &Signals, requested: Option<Backend>) -> Decided {
    let mut signals = signals.clone();
    signals.devices[0].requested = requested;
    let strategy = super::decide(&signals);
    assert_eq!(strategy.routes.len(), 1);
    let (direct, reason) = (strategy.direct.clone(), strategy.reason());
    Decided { direct, reason, huge_pages: strategy.huge_pages, route: strategy.routes[0].clone() }
}

pub(super) fn device() -> Device {
    let signals = DeviceSignals { file_system: "ext4".to_string(), ..DeviceSignals::default() };
    Device { signals, backends: vec![URING, MMAP, TOKIO, PREAD], requested: None }
}

/// Two files of 1 GiB, all of them selected.
pub(super) fn signals(resident: Option<f32>, direct: bool) -> Signals {
    let file = FileSignals {
        bytes: 1 << 30,
        resident,
        cached: vec![],
        direct,
        aligned: true,
        selected_bytes: 1 << 30,
        device: 0,
    };
    Signals {
        files: vec![file.clone(), file],
        selected_bytes: 2 << 30,
        consumer: Consumer::Whole,
        verified: false,
        devices: vec![device()],
        direct_refused: None,
        populate_page_cache: false,
        memory: u64::MAX,
        cpus: 2,
    }
}

#[test]
fn what_is_gathered_has_fewer_reads_in_flight() {
    let bounds = |workers, depth, max_in_flight, gathers| {
        let strategy = decide(&signals(Some(0.0), true), None);
        Route { workers, depth, max_in_flight, ..strategy.route }.in_flight(gathers)
    };
    assert_eq!([bounds(2, 4, 512, false), bounds(2, 4, 512, true)], [(8, 512), (8, 32)]);
    assert_eq!(bounds(8, 16, 512, true), (32, 32), "a profile may ask for more to begin with");
    assert_eq!(bounds(40, 1, 40, true), (40, 40), "a requested number of workers is used");
    assert_eq!(bounds(0, 1, 0, true), (1, 1));
}

#[test]
fn cold_files_go_direct_through_the_ring() {
    let strategy = decide(&signals(Some(0.0), true), None);
    assert_eq!((strategy.backend, strategy.direct.clone()), (URING, vec![true, true]));
    assert!(strategy.reason.contains("not in the page cache"), "{}", strategy.reason);
}

#[test]
fn a_refused_ring_means_threads_and_says_so() {
    let mut refused = signals(Some(0.0), true);
    refused.devices[0].signals.refused = vec![(URING, "EPERM".to_string())];
    let strategy = decide(&refused, None);
    assert_eq!(strategy.backend, PREAD);
    assert!(strategy.reason.contains("EPERM"), "{}", strategy.reason);
    assert_eq!(decide(&refused, Some(URING)).backend, URING, "the caller's choice stands");
}

#[test]
fn cached_files_and_files_without_direct_reads_are_copied_by_threads() {
    for signals in [signals(Some(1.0), true), signals(Some(0.0), false)] {
        let strategy = decide(&signals, None);
        assert_eq!((strategy.backend, strategy.direct.clone()), (PREAD, vec![false, false]));
    }
}

#[test]
fn a_small_load_is_read_on_the_calling_thread() {
    let little = Signals { selected_bytes: 1000, ..signals(Some(0.0), true) };
    let strategy = decide(&little, None);
    assert_eq!((strategy.workers, strategy.direct), (0, vec![false, false]));
    assert_eq!(decide(&little, Some(URING)).direct, [true, true], "what was asked for is done");
    let streamed = Signals { consumer: Consumer::Stream, ..little };
    assert_eq!(decide(&streamed, None).workers, 1, "the caller consumes meanwhile");
}

#[test]
fn what_is_partly_cached_is_read_both_ways() {
    let mut signals = signals(Some(0.95), true);
    signals.files[0].cached = vec![ByteRange::new(0, 1 << 29).expect("forwards")];
    let strategy = decide(&signals, None);
    assert_eq!((strategy.backend, strategy.direct.clone()), (URING, vec![true, false]), "the other's part is unknown");
    signals.files[1].cached = signals.files[0].cached.clone();
    let reason = decide(&signals, None).reason;
    assert!(reason.contains("2 of 2 files are partly in the page cache"), "{reason}");
    signals.files[1].cached.clear();
    signals.files[1].resident = Some(0.0);
    let reason = decide(&signals, None).reason;
    assert!(reason.contains("1 of 2 files is partly in the page cache"), "{reason}");
    signals.files[1].resident = Some(1.0);
    let reason = decide(&signals, None).reason;
    assert!(reason.ends_with("1 of 2 files is read by direct I/O (1 is cached, 1 is cached in part)"), "{reason}");
}

#[test]
fn one_file_is_spoken_of_as_one() {
    let mut signals = signals(Some(0.0), true);
    signals.files.truncate(1);
    let reason = |signals: &Signals, words: &str| {
        let reason = decide(signals, None).reason;
        assert!(reason.ends_with(words), "{reason}");
    };
    reason(&signals, "the file is not in the page cache, so the reads use direct I/O");
    signals.files[0].resident = Some(0.8);
    reason(&signals, "only small parts of the file are in the page cache, so the reads use direct I/O");
    signals.files[0].cached = vec![ByteRange::new(0, 1 << 29).expect("forwards")];
    reason(&signals, "the file is partly in the page cache: that part is copied, the rest is read by direct I/O");
    signals.files[0].resident = Some(1.0);
    reason(&signals, "the file is in the page cache, so it is copied from there");
}

#[test]
fn backends_are_shown_by_their_names() {
    let shown = [URING, PREAD, MMAP, TOKIO].map(|backend| format!("{backend:>6}"));
    assert_eq!(shown, [" uring", " pread", "  mmap", " tokio"]);
    assert_eq!(format!("{URING:?}"), "uring");
}

#[test]
fn files_on_different_devices_have_routes_of_their_own() {
    let mut signals = signals(Some(0.0), true);
    let mut slow = device();
    slow.signals = DeviceSignals { file_system: "NFS".to_string(), latency: LatencyClass::Network, ..slow.signals };
    slow.backends = vec![PREAD];
    signals.devices.push(slow);
    signals.files.push(FileSignals { device: 1, direct: false, ..signals.files[0].clone() });
    let strategy = super::decide(&signals);
    assert_eq!(strategy.route_of, [0, 0, 1].map(RouteId));
    assert_eq!(strategy.direct, [true, true, false]);
    let [disk, server] = &strategy.routes[..] else { panic!("two routes") };
    assert_eq!((disk.backend, disk.chunk_bytes, disk.workers), (URING, 2 << 20, 2));
    assert_eq!((server.backend, server.chunk_bytes, server.workers), (PREAD, 4 << 20, 16));
    assert_eq!(strategy.route(FileId(2)), server);
    let decided: Vec<_> = strategy.decisions.iter().map(|decision| (decision.route, decision.what)).collect();
    let [of_disk, of_server] = [Some(RouteId(0)), Some(RouteId(1))];
    assert_eq!(decided, [(of_disk, "backend"), (of_disk, "reads"), (of_server, "backend"), (of_server, "reads")]);
    assert!(strategy.decisions[0].why.contains("a ring keeps direct reads"), "{}", strategy.decisions[0]);
    assert!(strategy.decisions[3].why.contains("NFS does not support direct reads"), "{}", strategy.decisions[3]);
}

#[test]
fn equal_decisions_of_two_devices_are_listed_for_each_and_joined_once() {
    let mut signals = signals(Some(0.0), true);
    signals.devices.push(device());
    signals.files[1].device = 1;
    let strategy = super::decide(&signals);
    let routes: Vec<_> = strategy.decisions.iter().map(|decision| decision.route.map(RouteId::index)).collect();
    assert_eq!(routes, [Some(0), Some(0), Some(1), Some(1)]);
    assert_eq!(
        strategy.reason(),
        "a ring keeps direct reads in flight from few threads; \
         the file is not in the page cache, so the reads use direct I/O"
    );
}

#[test]
fn bytes_in_memory_are_copied_and_no_page_cache_is_spoken_of() {
    let mut signals = Signals { memory: 0, ..signals(Some(1.0), false) };
    signals.devices[0].signals.latency = LatencyClass::Memory;
    let decided = decide(&signals, None);
    assert_eq!((decided.backend, decided.dont_cache), (PREAD, false));
    let copied = "processors copy the bytes, so threads share them; the bytes are in memory and are copied from there";
    assert_eq!(decided.reason, copied);
    // Also if a device with direct reads and a ring is declared to be as fast as memory.
    signals.files.iter_mut().for_each(|file| (file.direct, file.resident) = (true, None));
    let decided = decide(&signals, None);
    assert_eq!((decided.backend, decided.direct, &*decided.reason), (PREAD, vec![false, false], copied));
    assert_eq!(decide(&signals, Some(URING)).direct, [false, false]);
    let mapped = decide(&signals, Some(MMAP)).reason;
    assert_eq!(mapped, "mmap was requested; the tensors are views of the bytes in memory");
    signals.selected_bytes = 1000;
    assert_eq!(decide(&signals, None).reason, "the load is small, so the calling thread reads it");
}

#[test]
fn what_is_asked_for_is_taken_and_said() {
    let strategy = decide(&signals(Some(0.0), true), Some(MMAP));
    assert_eq!(strategy.backend, MMAP);
    assert_eq!(strategy.reason, "mmap was requested; the files are mapped, so tensors share the page cache");
}

#[test]
fn a_small_load_is_smaller_than_what_threads_are_worth() {
    let workers = |selected_bytes, requested_backend| {
        decide(&Signals { selected_bytes, ..signals(Some(1.0), true) }, requested_backend).workers
    };
    assert_eq!([workers((4 << 20) - 1, None), workers(4 << 20, None)], [0, 2]);
    assert_eq!(workers(1000, Some(PREAD)), 2, "who asks for threads gets them");
}

#[test]
fn reads_are_as_large_and_as_many_as_each_way_of_reading_needs() {
    let sizes = |signals: &Signals, requested_backend| {
        let strategy = decide(signals, requested_backend);
        (strategy.chunk_bytes, strategy.depth, strategy.workers)
    };
    let [cold, cached] = [0.0, 1.0].map(|share| Signals { cpus: 3, ..signals(Some(share), true) });
    assert_eq!(sizes(&cold, None), (2 << 20, 4, 3), "a ring a processor");
    assert_eq!(sizes(&cold, Some(PREAD)), (2 << 20, 1, 6), "two threads a processor, as they wait");
    assert_eq!(sizes(&cached, None), (2 << 20, 1, 3), "a thread a processor, as they copy");
    let mut network = cached.clone();
    network.devices[0].signals.latency = LatencyClass::Network;
    assert_eq!(sizes(&network, None), (4 << 20, 1, 16), "many that wait for long");
    assert_eq!(sizes(&cold, Some(TOKIO)), (2 << 20, 6, 1), "one hands out all");
    assert_eq!(sizes(&Signals { selected_bytes: 1, ..cached.clone() }, None), (4 << 20, 1, 0), "the caller's thread");
    assert_eq!(sizes(&Signals { cpus: 100, ..cached.clone() }, None).2, 8);
    assert_eq!(sizes(&Signals { cpus: 0, ..cached }, None).2, 1);
}

#[test]
fn a_file_is_cached_when_nine_tenths_of_it_are() {
    let direct = |share| decide(&signals(Some(share), true), None).direct;
    assert_eq!([direct(0.89), direct(0.9)], [vec![true; 2], vec![false; 2]]);
}

#[test]
fn the_file_system_that_takes_no_direct_reads_is_named() {
    let reason = decide(&signals(Some(0.0), false), None).reason;
    assert!(reason.ends_with("ext4 does not support direct reads, so the reads are buffered"), "{reason}");
}

#[test]
fn files_that_differ_are_counted() {
    let mut mixed = signals(Some(0.0), true);
    let cold = mixed.files[0].clone();
    mixed.files = vec![
        cold.clone(),
        FileSignals { resident: Some(1.0), ..cold.clone() },
        FileSignals { direct: false, ..cold.clone() },
        FileSignals { aligned: false, ..cold.clone() },
        FileSignals { resident: None, ..cold.clone() },
        // Not read, so not counted.
        FileSignals { selected_bytes: 0, resident: None, direct: false, ..cold.clone() },
        FileSignals { selected_bytes: 0, ..cold },
    ];
    let reason = decide(&mixed, None).reason;
    let counts = "2 of 5 files are read by direct I/O (1 is cached, 1 does not support direct reads, \
                  1 has misaligned tensors); \
                  the system does not report what is cached of 1 file";
    assert!(reason.ends_with(counts), "{reason}");
    mixed.files.iter_mut().for_each(|file| file.selected_bytes = 0);
    let reason = decide(&mixed, None).reason;
    assert!(reason.ends_with("there is nothing to read"), "{reason}");
}

#[test]
fn what_is_cached_is_said_to_be_copied() {
    let mut signals = signals(Some(1.0), true);
    // It does not matter that it could not be read directly either.
    signals.direct_refused = Some("the memory is crooked".to_string());
    let reason = decide(&signals, None).reason;
    assert!(reason.ends_with("the files are in the page cache, so they are copied from there"), "{reason}");
    signals.files[0].resident = Some(0.0);
    signals.files[0].aligned = false;
    let reason = decide(&signals, None).reason;
    assert!(
        reason.ends_with("none of 2 files is read by direct I/O (1 is cached, 1 has misaligned tensors)"),
        "{reason}"
    );
}

#[test]
fn tensors_that_must_be_shifted_are_not_said_to_go_past_the_cache() {
    let mut signals = signals(Some(0.0), true);
    signals.files.iter_mut().for_each(|file| file.aligned = false);
    let strategy = decide(&signals, None);
    assert_eq!((strategy.backend, strategy.direct.clone()), (PREAD, vec![false, false]));
    assert!(strategy.reason.contains("misaligned for their dtypes"), "{}", strategy.reason);
}

#[test]
fn files_that_are_not_read_are_not_spoken_of() {
    let mut part = signals(Some(0.0), true);
    part.files[1] = FileSignals { selected_bytes: 0, aligned: false, ..part.files[1].clone() };
    let reason = decide(&part, None).reason;
    assert!(reason.ends_with("the file is not in the page cache, so the reads use direct I/O"), "{reason}");
}

#[test]
fn memory_that_takes_no_direct_reads_is_said_to_be_the_cause() {
    let mut signals = signals(Some(0.0), true);
    signals.files.iter_mut().for_each(|file| file.direct = false);
    signals.direct_refused = Some("the memory is crooked".to_string());
    let strategy = decide(&signals, None);
    assert_eq!(strategy.backend, PREAD);
    assert!(strategy.reason.contains("the memory is crooked, so the reads are buffered"), "{}", strategy.reason);
}

#[test]
fn unknown_residency_is_taken_as_cold_and_said() {
    let strategy = decide(&signals(None, true), None);
    assert_eq!(strategy.direct, vec![true, true]);
    let reason = |signals: &Signals, words: &str| {
        let reason = decide(signals, None).reason;
        assert!(reason.ends_with(words), "{reason}");
    };
    let mut signals = signals(None, true);
    reason(
        &signals,
        "few threads; the system does not report what is cached of the files, so the reads use direct I/O",
    );
    for share in [0.0, 0.2] {
        signals.files[1].resident = Some(share);
        reason(
            &signals,
            "few threads; no file is known to be in the page cache, so the reads use direct I/O; \
             the system does not report what is cached of 1 file",
        );
    }
    signals.files[1].selected_bytes = 0;
    reason(&signals, "few threads; the system does not report what is cached of the file, so the reads use direct I/O");
}

#[test]
fn what_the_page_cache_cannot_hold_is_not_left_there() {
    let dont_cache = |memory, consumer, resident, direct| {
        let strategy = decide(&Signals { memory, consumer, ..signals(Some(resident), direct) }, None);
        assert_eq!(strategy.dont_cache, strategy.reason.contains("leave nothing in it"), "{}", strategy.reason);
        strategy.dont_cache
    };
    const GIB: u64 = 1 << 30;
    // 2 GiB of tensors in files of the same size.
    assert!(!dont_cache(4 * GIB, Consumer::Whole, 0.0, false));
    assert!(dont_cache(4 * GIB - 1, Consumer::Whole, 0.0, false));
    assert!(!dont_cache(2 * GIB, Consumer::Stream, 0.0, false), "a stream keeps no tensors");
    assert!(dont_cache(2 * GIB - 1, Consumer::Stream, 0.0, false));
    assert!(!dont_cache(0, Consumer::Whole, 0.0, true), "direct reads leave nothing");
    assert!(!dont_cache(0, Consumer::Whole, 1.0, false), "what is there stays there");
    let little = Signals { selected_bytes: 1000, memory: 0, ..signals(Some(0.0), false) };
    assert!(!decide(&little, None).dont_cache);
    assert!(!decide(&Signals { memory: 0, ..signals(Some(0.0), false) }, Some(MMAP)).dont_cache);
}

#[test]
fn files_that_are_to_stay_cached_are_read_through_the_cache() {
    let kept = Signals { populate_page_cache: true, memory: 0, ..signals(Some(0.0), true) };
    let strategy = decide(&kept, None);
    assert_eq!((strategy.backend, strategy.direct.clone(), strategy.dont_cache), (PREAD, vec![false, false], false));
    assert!(strategy.reason.ends_with("the files should stay in the page cache, so the reads are buffered"));
    assert_eq!(decide(&kept, Some(URING)).direct, [false, false]);
}

#[test]
fn huge_pages_are_for_what_is_copied_and_not_tiny() {
    let huge = |selected_bytes, requested_backend| {
        decide(&Signals { selected_bytes, ..signals(Some(0.0), true) }, requested_backend).huge_pages
    };
    assert_eq!([huge(HUGE_PAGES_FROM - 1, None), huge(HUGE_PAGES_FROM, None)], [false, true]);
    assert!(!huge(1 << 30, Some(MMAP)));
}
