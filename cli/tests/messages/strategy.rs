//! The reasons that a strategy gives for its decisions.

use crate::{assert_reviewed, text};
use floodtide::backend;
use floodtide::core::ByteRange;
use floodtide::core::storage::{DeviceSignals, LatencyClass};
use floodtide::core::strategy::{BestReads, Consumer, Device, FileSignals, Profile, Signals, decide};
use std::fmt::Write;

/// Two files of 1 GiB on a local device, not cached, which support direct I/O.
fn cold() -> Signals {
    let bytes = 1 << 30;
    let file = FileSignals {
        bytes,
        resident: Some(0.0),
        cached: vec![],
        direct: true,
        aligned: true,
        selected_bytes: bytes,
        device: 0,
    };
    let device = DeviceSignals { file_system: text("ext4"), ..DeviceSignals::default() };
    let backends = vec![backend::URING, backend::MMAP, backend::TOKIO, backend::PREAD];
    Signals {
        files: vec![file.clone(), file],
        devices: vec![Device { signals: device, backends, requested: None }],
        selected_bytes: 2 * bytes,
        consumer: Consumer::Whole,
        verified: false,
        direct_refused: None,
        populate_page_cache: false,
        memory: 1 << 36,
        cpus: 4,
    }
}

fn for_files(change: impl Fn(&mut FileSignals)) -> Signals {
    let mut signals = cold();
    signals.files.iter_mut().for_each(change);
    signals
}

fn for_device(change: impl Fn(&mut Device)) -> Signals {
    let mut signals = cold();
    change(&mut signals.devices[0]);
    signals
}

/// A device whose direct reads reach `direct` GiB/s, and whose buffered reads reach 1.
fn profiled(direct: u64) -> Signals {
    let best = |direct, gib: u64| BestReads {
        ring: true,
        direct,
        chunk_bytes: 1 << 20,
        in_flight: 32,
        bytes_per_second: gib << 30,
    };
    let profile = Profile { device: text("a disk"), best: vec![best(true, direct), best(false, 2)] };
    for_device(|device| device.signals.profile = Some(profile.clone()))
}

/// Returns the decisions of many strategies.
pub(crate) fn every_reason() -> String {
    let small = || Signals { selected_bytes: 1000, ..for_files(|file| file.selected_bytes = 500) };
    let half = ByteRange::new(0, 1 << 29).expect("ascends");
    let mut mixed = cold();
    mixed.files[0].resident = Some(1.0);
    let mut unknown = cold();
    unknown.files[0].resident = None;
    let mut two_devices = cold();
    two_devices.devices.push(two_devices.devices[0].clone());
    two_devices.devices[1].signals.latency = LatencyClass::Network;
    two_devices.files[1].device = 1;
    two_devices.files[1].direct = false;
    let cases = [
        ("cold files", cold()),
        ("cold files, mmap requested", for_device(|device| device.requested = Some(backend::MMAP))),
        ("cold files, tokio requested", for_device(|device| device.requested = Some(backend::TOKIO))),
        ("cold files, io_uring refused", for_device(|d| d.signals.refused = vec![(backend::URING, text("EPERM"))])),
        ("cold files, no io_uring", for_device(|device| device.backends = vec![backend::PREAD])),
        ("cold files, streamed", Signals { consumer: Consumer::Stream, ..cold() }),
        ("cold files, page cache populated", Signals { populate_page_cache: true, ..cold() }),
        ("cold files, direct reads refused", {
            let why = Some(text("the pool's memory is aligned to only 64 bytes, and direct reads need more"));
            Signals { direct_refused: why, ..for_files(|file| file.direct = false) }
        }),
        ("no direct I/O", for_files(|file| file.direct = false)),
        ("no direct I/O, little memory", { Signals { memory: 2 << 30, ..for_files(|file| file.direct = false) } }),
        ("no aligned tensors", for_files(|file| file.aligned = false)),
        ("cached files", for_files(|file| file.resident = Some(1.0))),
        ("one of two files cached", mixed),
        ("partly cached files", for_files(|file| (file.resident, file.cached) = (Some(0.5), vec![half]))),
        ("scattered cached pages", for_files(|file| file.resident = Some(0.2))),
        ("unknown residency", for_files(|file| file.resident = None)),
        ("unknown residency of one of two files", unknown),
        ("nothing selected", Signals { selected_bytes: 8 << 20, ..for_files(|file| file.selected_bytes = 0) }),
        ("small", small()),
        ("small, streamed", Signals { consumer: Consumer::Stream, ..small() }),
        ("small, in memory", {
            let mut small = small();
            small.devices[0].signals.latency = LatencyClass::Memory;
            small
        }),
        ("in memory", for_device(|device| device.signals.latency = LatencyClass::Memory)),
        ("network", for_device(|device| device.signals.latency = LatencyClass::Network)),
        ("two devices", two_devices),
        ("profile, fast direct reads", profiled(3)),
        ("profile, slow direct reads", profiled(1)),
    ];
    let mut text = String::new();
    for (name, signals) in cases {
        let strategy = decide(&signals);
        let routes = strategy.routes.iter().map(|route| {
            let (backend, workers) = (route.backend.name(), route.workers);
            format!("{backend}, {workers} workers, depth {}, chunks of {} KiB", route.depth, route.chunk_bytes >> 10)
        });
        let _ = writeln!(text, "{name}\n  {}", routes.collect::<Vec<_>>().join("\n  "));
        for decision in &strategy.decisions {
            let route = decision.route.filter(|_| strategy.routes.len() > 1);
            let route = route.map_or_else(String::new, |route| format!("route {}, ", route.index()));
            let _ = writeln!(text, "    {route}{decision}");
        }
    }
    text
}

#[test]
fn every_reason_of_a_strategy_is_reviewed() {
    assert_reviewed("strategy", &every_reason());
}
