//! A load that is dropped or cancelled at any time ends, and leaves neither a thread nor its memory behind. Alone in its
//! process, so that both can be counted.

use floodtide_linux::{Backend, Loader};
use std::fs;
use std::time::{Duration, Instant};

const MIB: usize = 128;

fn own(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).expect("reads");
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the key is there");
    line.split_whitespace().next().expect("a number").parse().expect("a number")
}

fn loader_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("lists");
    tasks
        .flatten()
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "floodtide"))
        .count()
}

#[test]
fn dropped_loads_leave_nothing_behind() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let path = folder.path().join("model.safetensors");
    let data = vec![7_u8; MIB << 20];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![data.len()], &data).expect("bytes");
    safetensors::serialize_to_file([("t", view)], None, &path).expect("writes");
    drop(data);
    let file = fs::File::open(&path).expect("opens");
    file.sync_all().expect("syncs");
    let before = own("/proc/self/status", "VmSize:");
    let mut seen_running = false;
    for backend in Backend::ALL {
        for delay in [0, 200, 1000, 3000] {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
            let load = Loader::new().backend(backend).start(&path).expect("starts");
            std::thread::sleep(Duration::from_micros(delay));
            seen_running |= loader_threads() > 0;
            if delay == 200 {
                load.cancel();
            } else {
                drop(load);
            }
        }
    }
    assert!(seen_running, "the threads that are counted bear another name");
    let end = Instant::now() + Duration::from_secs(20);
    while loader_threads() > 0 {
        assert!(Instant::now() < end, "threads of dropped loads are left");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Sixteen arenas of 128 MiB would show; stacks and heaps of the threads are a few MiB each.
    let grown = own("/proc/self/status", "VmSize:").saturating_sub(before) / 1024;
    assert!(grown < 2 * MIB as u64, "{grown} MiB of address space are left");
}
