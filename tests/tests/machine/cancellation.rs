//! A load that is dropped or cancelled at any time ends, and leaves neither threads nor memory
//! behind. It runs in a child process, so that both can be counted.

use floodtide::Loader;
use floodtide_tests::checkpoint::folder;
use floodtide_tests::roles::{in_process, run_role};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const MIB: usize = 128;

/// Counts writable anonymous mappings as large as an arena. (The allocator's reserves for threads
/// are smaller.)
fn arenas() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("reads");
    let size = |line: &str| -> Option<usize> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let size = usize::from_str_radix(end, 16).ok()? - usize::from_str_radix(start, 16).ok()?;
        rest.starts_with("rw-p").then_some(size)
    };
    maps.lines().filter_map(size).filter(|&size| size >= MIB << 20).count()
}

fn loader_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("lists");
    tasks
        .flatten()
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "floodtide"))
        .count()
}

/// Runs one of the roles in a child process; does nothing otherwise.
#[test]
fn started_by_other_tests() {
    run_role(&[("drops loads", drops_loads)]);
}

#[test]
fn dropped_loads_leave_nothing_behind() {
    let folder = folder();
    in_process(module_path!(), "drops loads", folder.path(), |_| {});
}

fn drops_loads(folder: &Path) {
    let path = folder.join("model.safetensors");
    let data = vec![7_u8; MIB << 20];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![data.len()], &data).expect("bytes");
    safetensors::serialize_to_file([("t", view)], None, &path).expect("writes");
    drop(data);
    let file = fs::File::open(&path).expect("opens");
    file.sync_all().expect("syncs");
    let (mut seen_running, mut seen_arena) = (false, false);
    for backend in floodtide::backends() {
        for delay in [0, 200, 1000, 3000] {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
            let load = Loader::new().backend(backend).start(&path).expect("starts");
            std::thread::sleep(Duration::from_micros(delay));
            seen_running |= loader_threads() > 0;
            seen_arena |= arenas() > 0;
            if delay == 200 {
                load.cancel();
            } else {
                drop(load);
            }
        }
    }
    assert!(seen_running && seen_arena, "what is counted looks different");
    let end = Instant::now() + Duration::from_secs(20);
    while loader_threads() > 0 {
        assert!(Instant::now() < end, "threads of dropped loads are left");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(arenas(), 0, "memory of dropped loads is left");
}
