use super::*;
use crate::catalog::CatalogBuilder;
use crate::format::{SAFETENSORS, safetensors::Header};
use crate::manifest::ManifestTensor;
use crate::plan::{Access, Buffers, Order, PlanOptions, Planner};
use crate::selection::Selection;
use crate::units::{Alignment, DirectLimits};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use proptest::prelude::*;

/// A checkpoint with its files' bytes.
struct Files {
    catalog: Arc<Catalog>,
    bytes: Vec<Vec<u8>>,
}

/// Files of U8 tensors of these sizes. The data starts at `8 + header + shift`.
fn files(sizes: &[Vec<usize>], shift: usize) -> Files {
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    let mut all = Vec::new();
    for (file, sizes) in sizes.iter().enumerate() {
        let (mut json, mut at) = (String::from("{"), 0);
        for (number, size) in sizes.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let end = at + size;
            json +=
                &format!(r#"{comma}"{file}.{number}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{at},{end}]}}"#);
            at = end;
        }
        json += &format!("}}{}", " ".repeat(shift));
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.extend((0..at as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8));
        let header = Header::parse(json.as_bytes(), bytes.len() as u64).expect("valid");
        header.add_to(&mut builder, &format!("file {file}"), bytes.len() as u64).expect("adds");
        all.push(bytes);
    }
    Files { catalog: Arc::new(builder.finish().expect("unique")), bytes: all }
}

impl Files {
    fn range(&self, range: ByteRange, file: FileId) -> &[u8] {
        &self.bytes[file.index()][range.start() as usize..range.end() as usize]
    }

    fn manifest(&self) -> Manifest {
        let checksum = |tensor: &TensorInfo<'_>| Checksum::of(self.range(tensor.range, tensor.file));
        let tensors = self.catalog.tensors().map(|tensor| ManifestTensor::of(&tensor, checksum(&tensor)));
        Manifest::new(tensors.collect(), vec![]).expect("valid")
    }

    fn plan(&self, options: PlanOptions) -> Arc<Plan> {
        let selected = Selection::All.resolve(&self.catalog).expect("all");
        Arc::new(Planner::new(options).plan(&self.catalog, &selected).expect("plans"))
    }

    /// The contents of a complete chunk's buffer, with any bytes past the file's end.
    fn chunk(&self, plan: &Plan, chunk: ChunkId) -> Vec<u8> {
        let chunk = &plan.chunks()[chunk.index()];
        let file = &self.bytes[chunk.file.index()];
        let mut bytes =
            file[chunk.offset as usize..(chunk.offset as usize + chunk.buffer_range.len()).min(file.len())].to_vec();
        bytes.resize(chunk.buffer_range.len(), 0xee);
        bytes
    }

    /// Completes everything in the order of `key`.
    fn land(&self, plan: &Arc<Plan>, manifest: &Manifest, key: u64) -> Result<(), Error> {
        let verification = Verification::new(Arc::clone(&self.catalog), Arc::clone(plan), manifest)?;
        let mut order: Vec<u32> = (0..plan.chunks().len() as u32).collect();
        order.sort_by_key(|&chunk| u64::from(chunk + 1).wrapping_mul(key | 1) % 1_000_003);
        for chunk in order {
            verification.add_chunk(ChunkId(chunk), &self.chunk(plan, ChunkId(chunk)))?;
        }
        for &(file, range) in plan.mapped() {
            let steps: Vec<u64> = (range.start()..range.end()).step_by(1 + key as usize % 100_000).collect();
            for at in steps.iter().enumerate().map(|(i, _)| steps[(i + key as usize) % steps.len()]) {
                let end = (at + 1 + key % 100_000).min(range.end());
                let step = ByteRange::new(at, end).expect("forwards");
                verification.add_mapped(file, at, self.range(step, file))?;
            }
        }
        verification.finish()
    }
}

fn limits(bytes: u64) -> Option<DirectLimits> {
    let alignment = Alignment::new(bytes).expect("a power of two");
    Some(DirectLimits { offset: alignment, memory: alignment })
}

/// All ways to plan them.
fn ways(files: usize) -> Vec<PlanOptions> {
    let stream = |split| Buffers { buffer_bytes: 64 << 10, limit: 4 << 20, split, order: Order::Completion };
    let mut ways = Vec::new();
    for access in
        [Access::Copy, Access::Map { resident: true }, Access::Stream(stream(false)), Access::Stream(stream(true))]
    {
        for direct in [None, limits(512), limits(4096)] {
            let direct = vec![direct; files];
            ways.push(PlanOptions { access, direct, chunk_bytes: 64 << 10, ..PlanOptions::default() });
        }
    }
    ways
}

#[test]
fn chunks_are_verified_in_any_order() {
    let files = files(&[vec![70_000, 0, 1, 300_000, 5], vec![], vec![1023, 1025, 200_000]], 3);
    let manifest = files.manifest();
    for options in ways(3) {
        let plan = files.plan(options);
        for key in [1, 5, 99_991, 0x1234_5677] {
            assert_eq!(files.land(&plan, &manifest, key), Ok(()));
        }
    }
}

#[test]
fn a_byte_that_is_another_is_found_with_its_tensor_and_its_place() {
    let mut files = files(&[vec![70_000, 1, 300_000], vec![900, 200_000]], 5);
    let manifest = files.manifest();
    let tensors: Vec<(String, FileId, ByteRange)> =
        files.catalog.tensors().map(|tensor| (tensor.name.to_string(), tensor.file, tensor.range)).collect();
    for options in ways(2) {
        let plan = files.plan(options);
        for (name, file, range) in &tensors {
            for at in [range.start(), (range.start() + range.end()) / 2, range.end() - 1] {
                files.bytes[file.index()][at as usize] ^= 0x10;
                let error = files.land(&plan, &manifest, at).expect_err("it is another byte");
                files.bytes[file.index()][at as usize] ^= 0x10;
                let Error::Mismatch { file: path, tensor, start, end, .. } = &error else { panic!("{error}") };
                assert_eq!((tensor, *path == format!("file {}", file.0)), (name, true));
                assert_eq!((*start, *end), (range.start(), range.end()));
                let words = [format!("file {}", file.0), format!("\"{name}\""), format!("{start}..{end}")];
                assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
            }
        }
    }
}

#[test]
fn what_is_of_no_tensor_may_be_anything() {
    let mut files = files(&[vec![5000]], 9);
    let manifest = files.manifest();
    files.bytes[0][0..4].copy_from_slice(&[9; 4]);
    assert_eq!(files.land(&files.plan(PlanOptions::default()), &manifest, 1), Ok(()));
}

#[test]
fn what_cannot_be_verified_is_refused_at_once() {
    let files = files(&[vec![5000, 0]], 0);
    let plan = files.plan(PlanOptions::default());
    let refused = |plan: &Arc<Plan>, manifest: &Manifest| {
        Verification::new(Arc::clone(&files.catalog), Arc::clone(plan), manifest).map(drop).expect_err("refused")
    };
    let nothing = Manifest::new(vec![], vec![]).expect("valid");
    assert!(matches!(refused(&plan, &nothing), Error::NotInManifest { tensor } if tensor == "0.0"));

    let changed = |change: &dyn Fn(&mut ManifestTensor)| {
        let mut tensors = files.manifest().tensors().to_vec();
        tensors.iter_mut().for_each(change);
        Manifest::new(tensors, vec![]).expect("valid")
    };
    let dtype = changed(&|tensor| tensor.dtype = crate::DType::I8.into());
    let shape = changed(&|tensor| tensor.shape.push(1));
    for manifest in [dtype, shape] {
        let error = refused(&plan, &manifest);
        assert!(matches!(&error, Error::ManifestDiffers { tensor, .. } if tensor == "0.0"), "{error}");
    }
    // An empty tensor has one right checksum.
    let empty = changed(&|tensor| {
        if tensor.bytes == 0 {
            tensor.blake3 = Checksum::of(b"something");
        }
    });
    assert!(matches!(refused(&plan, &empty), Error::Mismatch { tensor, .. } if tensor == "0.1"));

    let slice = Selection::slice("0.0", 0, 1..2).resolve(&files.catalog).expect("a slice");
    let sliced = Arc::new(Planner::new(PlanOptions::default()).plan(&files.catalog, &slice).expect("plans"));
    let error = refused(&sliced, &files.manifest());
    assert!(matches!(&error, Error::SliceUnverifiable { tensor } if tensor == "0.0"));
    assert!(error.to_string().contains("in part"), "{error}");
}

#[test]
fn a_load_that_ends_early_is_not_verified() {
    let files = files(&[vec![500_000, 10]], 0);
    let plan = files.plan(PlanOptions { chunk_bytes: 64 << 10, ..PlanOptions::default() });
    let verification =
        Verification::new(Arc::clone(&files.catalog), Arc::clone(&plan), &files.manifest()).expect("can be");
    for chunk in 1..plan.chunks().len() as u32 {
        assert_eq!(verification.add_chunk(ChunkId(chunk), &files.chunk(&plan, ChunkId(chunk))), Ok(()));
    }
    assert!(matches!(verification.finish(), Err(Error::Contract { .. })));
    assert_eq!(verification.add_chunk(ChunkId(0), &files.chunk(&plan, ChunkId(0))), Ok(()));
    assert_eq!(verification.finish(), Ok(()));
}

#[test]
fn all_checksums_come_of_the_files_bytes_in_any_order() {
    let files = files(&[vec![70_000, 0, 1, 300_000, 5], vec![], vec![1023, 1025]], 3);
    let whole = |id: usize, size: usize| {
        let mut steps: Vec<usize> = (0..files.bytes[id].len()).step_by(size).collect();
        steps.sort_by_key(|at| at.wrapping_mul(7919) % 1009);
        steps.into_iter().map(move |at| (FileId(id as u32), at, size))
    };
    for size in [1000, 65_536, 1 << 20] {
        let hashes = ContentHashes::new(&files.catalog);
        for (file, at, size) in (0..3).flat_map(|id| whole(id, size)) {
            let bytes = &files.bytes[file.index()];
            hashes.add(file, at as u64, &bytes[at..(at + size).min(bytes.len())]);
        }
        let expected = files.catalog.tensors().map(|tensor| Checksum::of(files.range(tensor.range, tensor.file)));
        assert_eq!(hashes.finish(), Some(expected.collect()));
    }
    let part = ContentHashes::new(&files.catalog);
    part.add(FileId(0), 0, &files.bytes[0]);
    assert_eq!(part.finish(), None, "a file is missing");
}

proptest! {
    #[test]
    fn any_checkpoint_in_any_order_is_verified_and_any_byte_counts(
        sizes in proptest::collection::vec(proptest::collection::vec(prop_oneof![0_usize..3000, 0_usize..150_000], 0..5), 1..3),
        shift in 0_usize..8,
        key in any::<u64>(),
        at in any::<u64>(),
    ) {
        let mut files = files(&sizes, shift);
        let manifest = files.manifest();
        let plans: Vec<Arc<Plan>> = ways(sizes.len()).into_iter().map(|options| files.plan(options)).collect();
        for plan in &plans {
            prop_assert_eq!(files.land(plan, &manifest, key), Ok(()));
        }
        let total = files.catalog.tensor_bytes();
        if total > 0 {
            // That byte of all tensors' bytes.
            let mut left = at % total;
            let tensors: Vec<(FileId, ByteRange)> =
                files.catalog.tensors().map(|tensor| (tensor.file, tensor.range)).collect();
            let (file, offset) = tensors.into_iter().find_map(|(file, range)| {
                if left < range.len() {
                    return Some((file, range.start() + left));
                }
                left -= range.len();
                None
            }).expect("the tensor has this many bytes");
            files.bytes[file.index()][offset as usize] ^= 1;
            for plan in &plans {
                let found = files.land(plan, &manifest, key);
                prop_assert!(
                    matches!(&found, Err(Error::Mismatch { start, end, .. }) if (*start..*end).contains(&offset)),
                    "{:?}", found
                );
            }
        }
    }
}
