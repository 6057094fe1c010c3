//! Loads with progress, locked memory, async waits and changing files, and tensors that outlive
//! their loader.

use floodtide::storage::StorageError;
use floodtide::{Error, Loader, Tensor, Tensors};
use floodtide_core::middleware::{Faults, Injection};
use floodtide_core::{DType, Error as CoreError, ReadOp, Selection};
use floodtide_tests::over_storages::places;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Writes one F32 tensor of `mib` MiB, and a small U8 one.
fn write(folder: &Path, mib: usize) -> PathBuf {
    let elements = mib << 18;
    let header = format!(
        r#"{{"big":{{"dtype":"F32","shape":[{elements}],"data_offsets":[0,{0}]}},"small":{{"dtype":"U8","shape":[3],"data_offsets":[{0},{1}]}}}}"#,
        elements * 4,
        elements * 4 + 3
    );
    let mut header = header.into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(&header);
    file.extend((0..elements).flat_map(|i| (i as f32).to_le_bytes()));
    file.extend_from_slice(&[1, 2, 3]);
    let path = folder.join("model.safetensors");
    fs::write(&path, file).expect("writes");
    fs::File::open(&path).expect("opens").sync_all().expect("syncs");
    path
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn drop_cache(path: &Path) {
    let file = fs::File::open(path).expect("opens");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
}

#[test]
fn tensors_are_send_sync_and_outlive_everything() {
    fn is_send_sync<T: Send + Sync + Clone + 'static>() {}
    is_send_sync::<Tensor>();
    is_send_sync::<Tensors>();
    let folder = folder();
    let path = write(folder.path(), 8);
    for place in places(&path) {
        for &backend in &place.backends {
            let tensor =
                place.loader.clone().backend(backend).load(&place.path).expect("loads").get("big").expect("is there");
            let values =
                std::thread::spawn(move || tensor.elements::<f32>().expect("f32").to_vec()).join().expect("no panic");
            assert!(values.iter().enumerate().all(|(i, &value)| value == i as f32), "{backend}");
        }
    }
}

#[test]
fn a_view_of_another_type_is_refused() {
    let folder = folder();
    let path = write(folder.path(), 1);
    for place in places(&path) {
        let tensors = place.loader.clone().load(&place.path).expect("loads");
        let big = tensors.get("big").expect("is there");
        assert_eq!((big.dtype().plain(), big.shape()), (Some(DType::F32), &[1 << 18][..]));
        assert!(big.elements::<f64>().expect_err("f32").to_string().contains("F32"));
        assert_eq!(tensors.get("small").expect("is there").elements::<u8>(), Ok(&[1, 2, 3][..]));
        assert!(tensors.get("other").is_none());
    }
}

#[test]
fn a_dropped_future_cancels_its_load_and_a_finished_one_has_it_all() {
    let folder = folder();
    let path = write(folder.path(), 64);
    for place in places(&path) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_time().worker_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            for _ in 0..4 {
                drop_cache(&path);
                let loader = place.loader.clone();
                let _ = tokio::time::timeout(Duration::from_micros(500), loader.load_async(&place.path)).await;
            }
            for backend in [None, Some(place.backends[0]), place.backends.last().copied()] {
                let loader = place.loader_by(backend);
                let tensors = loader.load_async(&place.path).await.expect("loads");
                assert_eq!(tensors.get("big").expect("is there").elements::<f32>().expect("f32")[12345], 12345.0);
                assert!(backend.is_none_or(|backend| tensors.report().backend == backend));
            }
        });
    }
}

#[test]
fn progress_ends_at_the_total() {
    let folder = folder();
    let path = write(folder.path(), 64);
    for place in places(&path) {
        for &backend in &place.backends {
            let (calls, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
            let (calls_seen, done_seen) = (Arc::clone(&calls), Arc::clone(&done));
            let loader = place.loader.clone().backend(backend).on_progress(move |progress| {
                assert!(progress.bytes_done <= progress.bytes_total);
                assert!(progress.bytes_done >= done_seen.load(Ordering::Relaxed), "progress never goes back");
                done_seen.store(progress.bytes_done, Ordering::Relaxed);
                calls_seen.fetch_add(1, Ordering::Relaxed);
            });
            loader.load(&place.path).expect("loads");
            assert!(calls.load(Ordering::Relaxed) >= 1, "{backend}");
            assert!(done.load(Ordering::Relaxed) >= 64 << 20, "{backend}");
        }
    }
}

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// Makes reads slow, and counts them.
#[derive(Clone, Default)]
struct Slow(Arc<AtomicUsize>);

impl Faults for Slow {
    fn inject(&mut self, _: &ReadOp) -> Injection {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        Injection::None
    }
}

#[test]
fn a_progress_function_that_panics_ends_what_it_watched() {
    let folder = folder();
    let path = write(folder.path(), 64);
    for place in places(&path) {
        let slow = Slow::default();
        let reads = Arc::clone(&slow.0);
        let place = place.with_faults(move || slow.clone());
        let loader = place.loader_by(Some(place.blocking())).threads(TWO);
        let loader = loader.on_progress(|progress| assert!(progress.bytes_total == 0, "seen"));
        let panicked = |call: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err();
        assert!(panicked(&|| drop(loader.load(&place.path))));
        // The load is given up, and so is its memory, which goes back to the loader when the last
        // thread has ended.
        let waited = std::time::Instant::now();
        while loader.arena_cache_len() == 0 {
            assert!(waited.elapsed() < Duration::from_secs(20), "something holds the load");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(reads.load(Ordering::Relaxed) < 32, "not all 64 MiB were read");
        assert!(panicked(&|| drop(loader.manifest(&place.path))), "and does not wait for ever");
    }
}

#[test]
fn progress_is_told_while_a_load_is_awaited() {
    let folder = folder();
    let path = write(folder.path(), 64);
    for place in places(&path) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let count = move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        };
        let place = place.with_faults(Slow::default);
        let loader = place.loader_by(Some(place.blocking())).threads(TWO).on_progress(count);
        runtime.block_on(loader.load_async(&place.path)).expect("loads");
        assert!(calls.load(Ordering::Relaxed) >= 2, "{calls:?} in a load of several ticks");
    }
}

#[test]
fn what_is_read_of_a_small_file_is_all_of_it() {
    let folder = folder();
    let path = write(folder.path(), 1);
    for place in places(&path) {
        let report = place
            .loader
            .clone()
            .selection(Selection::names(["small"]))
            .load(&place.path)
            .expect("loads")
            .report()
            .clone();
        assert_eq!((report.bytes, report.read_bytes), (3, fs::metadata(&path).expect("is there").len()));
    }
}

#[test]
fn a_file_that_changes_during_the_load_is_reported() {
    for (change, words) in [
        (
            (|path| {
                fs::OpenOptions::new()
                    .append(true)
                    .open(path)
                    .map(|mut f| std::io::Write::write_all(&mut f, b"x").expect("writes"))
                    .expect("opens");
            }) as fn(&Path),
            "length",
        ),
        (|path| fs::remove_file(path).expect("removes"), "removed"),
        (
            |path| {
                fs::copy(path, path.with_extension("new")).expect("copies");
                fs::rename(path.with_extension("new"), path).expect("renames");
            },
            "another file",
        ),
    ] {
        let folder = folder();
        let path = write(folder.path(), 16);
        // The file changes at the first progress report or, because that may be the last one, right
        // after the start.
        let load = Loader::new().start(&path).expect("starts");
        change(&path);
        let error = load.wait().expect_err("changed");
        assert!(matches!(error, Error::Storage(StorageError::Changed { .. })), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_file_cut_off_during_the_load_is_an_error_for_every_backend() {
    for backend in floodtide::backends() {
        let folder = folder();
        let path = write(folder.path(), 64);
        drop_cache(&path);
        let load = Loader::new().backend(backend).start(&path).expect("starts");
        fs::OpenOptions::new().write(true).open(&path).expect("opens").set_len(1 << 20).expect("cuts");
        let error = load.wait().expect_err("cut off");
        let expected = matches!(
            &error,
            Error::Storage(StorageError::Changed { .. })
                | Error::Core(CoreError::Truncated { .. } | CoreError::Platform { .. })
        );
        assert!(expected, "{backend}: {error}");
    }
}

#[test]
fn a_refused_memory_lock_is_a_warning_and_a_granted_one_is_counted() {
    let folder = folder();
    let path = write(folder.path(), 1);
    for place in places(&path) {
        let report = place.loader.clone().mlock(true).load(&place.path).expect("loads").report().clone();
        assert!((report.locked_bytes >= 1 << 20) != (report.warnings.len() == 1), "{report:?}");
    }
}
