//! Loads adapt to the page cache, to kept memory and to the size of the checkpoint, and return the
//! same bytes.

use floodtide::backend::PREAD;
use floodtide::probe::resident_share;
use floodtide::storage::{Layered, LocalStorage};
use floodtide::{Loader, Tensors};
use floodtide_core::middleware::{Faults, Injection};
use floodtide_core::{Alignment, Method, ReadOp, Selection};
use floodtide_tests::checkpoint::{folder, raw, small, sparse};
use floodtide_tests::counts::Counts;
use floodtide_tests::over_storages::{faulty, places};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

const MIB: usize = 1 << 20;

/// Byte `i` of the tensor `t` of [`large`].
fn byte(i: usize) -> u8 {
    (i / 4096 * 31 + i) as u8
}

/// Writes and syncs a file of one tensor of `mib` MiB in rows of 4096 bytes, which is not cached.
fn large(folder: &Path, mib: usize) -> PathBuf {
    let data: Vec<u8> = (0..mib * MIB).map(byte).collect();
    let (rows, bytes) = (data.len() / 4096, data.len());
    let json = format!(r#"{{"t":{{"dtype":"U8","shape":[{rows},4096],"data_offsets":[0,{bytes}]}}}}"#);
    let path = folder.join("model.safetensors");
    fs::write(&path, raw(&json, &data)).expect("writes");
    let file = fs::File::open(&path).expect("opens");
    file.sync_all().expect("syncs");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
    path
}

fn assert_loaded(tensors: &Tensors) {
    let tensor = tensors.get("t").expect("is there");
    assert!(tensor.as_bytes().iter().enumerate().all(|(i, &found)| found == byte(i)));
}

#[test]
fn the_cached_part_of_a_file_is_copied_and_the_rest_read_past_the_cache() {
    let folder = folder();
    let path = large(folder.path(), 32);
    let file = fs::File::open(&path).expect("opens");
    fs::read(&path).expect("reads");
    rustix::fs::fadvise(&file, 16 << 20, None, rustix::fs::Advice::DontNeed).expect("advises");

    let planned = Loader::new().plan(&path).expect("plans");
    let signals = &planned.signals.files[0];
    if !signals.direct || !signals.resident.is_some_and(|share| (0.3..0.7).contains(&share)) {
        return println!("skipped: this file system has no half-cached files or no direct reads: {signals:?}");
    }
    assert!(planned.strategy.reason().contains("partly in the page cache"), "{}", planned.strategy.reason());
    for chunk in planned.plan.chunks() {
        let cached = chunk.offset + chunk.payload_len as u64 <= 16 << 20;
        assert_eq!(chunk.method == Method::Buffered, cached, "{chunk:?}");
    }
    assert_loaded(&Loader::new().load(&path).expect("loads"));
    let after = Loader::new().plan(&path).expect("plans").signals.files[0].resident.expect("told before");
    assert!(after < 0.7, "the direct reads went past the cache: {after}");
}

#[test]
fn files_can_be_left_in_the_page_cache() {
    let folder = folder();
    let path = large(folder.path(), 16);
    let share = || resident_share(&fs::File::open(&path).expect("opens"));
    let before = Loader::new().plan(&path).expect("plans");
    if !before.signals.files[0].direct || share() != Some(0.0) {
        return println!("skipped: this file system has no direct reads, or keeps its files in memory");
    }
    assert_loaded(&Loader::new().load(&path).expect("loads"));
    assert!(share() < Some(0.1), "read past it: {:?}", share());
    let tensors = Loader::new().populate_page_cache(true).load(&path).expect("loads");
    assert_loaded(&tensors);
    assert!(tensors.report().reason().contains("stay in the page cache"), "{}", tensors.report().reason());
    assert!(share() > Some(0.9), "{:?}", share());
}

#[test]
fn the_cached_part_of_a_slice_is_gathered_from_the_cache() {
    let folder = folder();
    let path = large(folder.path(), 32);
    let file = fs::File::open(&path).expect("opens");
    fs::read(&path).expect("reads");
    rustix::fs::fadvise(&file, 16 << 20, None, rustix::fs::Advice::DontNeed).expect("advises");

    let loader = Loader::new().selection(Selection::slice("t", 1, 1000..2000));
    let planned = loader.plan(&path).expect("plans");
    let signals = &planned.signals.files[0];
    if !signals.direct || !signals.resident.is_some_and(|share| (0.3..0.7).contains(&share)) {
        return println!("skipped: this file system has no half-cached files or no direct reads: {signals:?}");
    }
    for chunk in planned.plan.chunks() {
        let cached = chunk.offset + chunk.payload_len as u64 <= 16 << 20;
        assert!(chunk.gathered && (chunk.method == Method::Buffered) == cached, "{chunk:?}");
    }
    let tensors = loader.load(&path).expect("loads");
    let tensor = tensors.get("t").expect("is there");
    let expected = (0..8192).flat_map(|row| (1000..2000).map(move |column| byte(row * 4096 + column)));
    assert!(tensor.shape() == [8192, 1000] && tensor.as_bytes().iter().copied().eq(expected));
}

#[test]
fn a_loader_uses_its_memory_again() {
    let folder = folder();
    let path = large(folder.path(), 16);
    for place in places(&path) {
        let loader = place.loader_by(Some(place.blocking()));
        let first = loader.load(&place.path).expect("loads");
        assert!(!first.report().reason().contains("earlier load"), "{}", first.report().reason());
        let address = first.get("t").expect("is there").as_bytes().as_ptr();
        drop(first);
        assert!(loader.arena_cache_len() >= 16 << 20);
        // A clone shares it.
        let second = loader.clone().load(&place.path).expect("loads");
        assert_eq!(second.get("t").expect("is there").as_bytes().as_ptr(), address);
        assert!(second.report().reason().contains("earlier load"), "{}", second.report().reason());
        assert_loaded(&second);
        assert_eq!(loader.arena_cache_len(), 0, "it is in use");
        let third = loader.load(&place.path).expect("loads beside it");
        assert_loaded(&second);
        assert_loaded(&third);
        drop((second, third));
        loader.clear_arena_cache();
        assert_eq!(loader.arena_cache_len(), 0);
    }
}

#[test]
fn what_an_earlier_load_left_is_not_in_the_tensors_of_the_next() {
    let folder = folder();
    let zeros = vec![0_u8; 7 * MIB];
    let json = format!(r#"{{"z":{{"dtype":"U8","shape":[{}],"data_offsets":[0,{0}]}}}}"#, zeros.len());
    let path = large(folder.path(), 8);
    for place in places(&path) {
        large(folder.path(), 8);
        let loader = place.loader_by(Some(place.blocking()));
        drop(loader.load(&place.path).expect("loads"));
        fs::write(&path, raw(&json, &zeros)).expect("writes");
        place.update(&path);
        let tensors = loader.load(&place.path).expect("loads");
        assert!(tensors.report().reason().contains("earlier load"), "{}", tensors.report().reason());
        assert!(tensors.get("z").expect("is there").as_bytes() == zeros);
    }
}

#[test]
fn memory_is_kept_as_far_as_it_may_be() {
    let folder = folder();
    let path = large(folder.path(), 16);
    for place in places(&path) {
        let loader = place.loader_by(Some(place.blocking())).arena_cache_limit(8 << 20);
        drop(loader.load(&place.path).expect("loads"));
        assert_eq!(loader.arena_cache_len(), 0);
        let locked = place.loader_by(Some(place.blocking())).mlock(true);
        drop(locked.load(&place.path).expect("loads"));
        assert_eq!(locked.arena_cache_len(), 0, "locked memory is given back");
    }
}

#[test]
fn an_option_of_a_clone_does_not_change_the_original() {
    let folder = folder();
    let path = large(folder.path(), 16);
    for place in places(&path) {
        let loader = place.loader_by(Some(place.blocking()));
        drop(loader.load(&place.path).expect("loads"));
        let kept = loader.arena_cache_len();
        assert!(kept >= 16 << 20);
        let clone = loader.clone().arena_cache_limit(0);
        assert_eq!((clone.arena_cache_len(), loader.arena_cache_len()), (0, kept));
        drop(clone.load(&place.path).expect("loads"));
        assert_eq!((clone.arena_cache_len(), loader.arena_cache_len()), (0, kept));
        drop(loader.load(&place.path).expect("loads"));
        assert_eq!(loader.arena_cache_len(), kept, "it still keeps what it kept");
    }
}

#[test]
fn a_small_checkpoint_is_owned() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let before = Loader::new().load(&path).expect("loads");
    let bytes: Vec<Vec<u8>> = before.iter().map(|tensor| tensor.as_bytes().to_vec()).collect();
    assert!(bytes.iter().any(|bytes| !bytes.is_empty()));
    let mut written = fs::read(&path).expect("reads");
    let header = usize::try_from(u64::from_le_bytes(written[..8].try_into().expect("eight"))).expect("fits");
    written[8 + header..].fill(0xff);
    fs::write(&path, written).expect("writes");
    let still = before.iter().map(|tensor| tensor.as_bytes().to_vec()).collect::<Vec<_>>();
    assert_eq!(still, bytes, "the file's new contents are not seen");
}

#[test]
fn a_small_checkpoint_of_crooked_offsets_is_aligned() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    // The data starts at an odd offset.
    for padding in 0..8 {
        let json = format!(r#"{{"t":{{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}}}{}"#, " ".repeat(padding));
        fs::write(&path, raw(&json, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])).expect("writes");
        let aligned = Loader::new().tensor_alignment(Alignment::new(64).expect("a power of two"));
        for loader in [Loader::new(), aligned.clone()] {
            let tensors = loader.load(&path).expect("loads");
            let tensor = tensors.get("t").expect("is there");
            let bits: Vec<u32> =
                tensor.elements::<f32>().expect("aligned").iter().map(|value| value.to_bits()).collect();
            assert_eq!(bits, [1, 2, 3]);
        }
        let tensors = aligned.load(&path).expect("loads");
        assert_eq!(tensors.get("t").expect("is there").as_bytes().as_ptr().align_offset(64), 0);
    }
}

/// Reads that take a while.
struct SlowDevice;

impl Faults for SlowDevice {
    fn inject(&mut self, _: &ReadOp) -> Injection {
        std::thread::sleep(Duration::from_millis(3));
        Injection::None
    }
}

#[test]
fn a_device_that_answers_slowly_gets_more_threads() {
    let folder = folder();
    // Holes are read at once, so that a read takes the injected time only.
    let path = sparse(folder.path(), 512 << 20);
    let workers = |loader: Loader| {
        let counts = Counts::default();
        let slow = Layered::new(LocalStorage::new(), faulty(|| SlowDevice));
        let loader = loader.storage("file", slow).backend(PREAD).trace(counts.clone());
        let started = loader.plan(&path).expect("plans").strategy.main_route().workers;
        let tensors = loader.load(&path).expect("loads");
        assert!(tensors.get("t").is_some_and(|tensor| tensor.as_bytes().iter().all(|&byte| byte == 0)));
        (started, counts.workers.load(Ordering::Relaxed) as usize)
    };
    let (started, ended) = workers(Loader::new());
    assert!(ended > started, "{started} threads at first, {ended} in all");
    let three = NonZeroUsize::new(3).expect("not zero");
    assert_eq!(workers(Loader::new().threads(three)), (3, 3), "who says how many gets no more");
}
