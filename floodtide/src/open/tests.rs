//! Headers of many files in memory, and a toy format that only the registry knows.

use super::*;
use crate::discover::discover_among;
use floodtide_core::format::{Format, SAFETENSORS};
use floodtide_core::storage::MemoryStorage;
use floodtide_core::{ByteRange, DType, FormatId};

/// Writes files with headers of about `header` bytes each, for tensors of one byte.
fn write(storage: &MemoryStorage, files: usize, header: usize) -> Vec<String> {
    let tensors = header / 60 + 1;
    let write = |file: usize| {
        let entry =
            |i: usize| format!(r#""{file:03}.{i:05}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1);
        let json = format!("{{{}}}", (0..tensors).map(entry).collect::<Vec<_>>().join(","));
        let name = format!("m/{file:03}.safetensors");
        let data = vec![file.to_le_bytes()[0]; tensors];
        storage.insert(name.clone(), [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &data].concat());
        name
    };
    (0..files).map(write).collect()
}

fn open_all(storage: &MemoryStorage, names: &[String]) -> Result<OpenedHeaders, Error> {
    let storage: Arc<LoadStorage> = Arc::new(storage.clone());
    open(&storage, CheckpointFiles::without_index(names.to_vec()), None)
}

#[test]
fn many_headers_are_read_side_by_side_and_are_in_order() {
    // Few and short, many and short, few and long.
    for (files, header) in [(3, 100), (PARALLEL_FILES, 100), (50, 1000), (3, PARALLEL_BYTES / 2)] {
        let storage = MemoryStorage::new();
        let names = write(&storage, files, header);
        let opened = open_all(&storage, &names).expect("opens");
        assert!(opened.files.iter().map(|file| file.name()).eq(names.iter().map(String::as_str)));
        assert_eq!((opened.catalog.files().len(), opened.catalog.format()), (files, SAFETENSORS));
        let tensors = opened.catalog.tensors();
        assert_eq!(tensors.len(), files * (header / 60 + 1));
        assert!(tensors.map(|tensor| tensor.name.to_owned()).is_sorted(), "by file and offset");
    }
}

#[test]
fn of_many_broken_files_the_first_is_named() {
    let storage = MemoryStorage::new();
    let names = write(&storage, 60, 100);
    for broken in [59, 31, 30, 2, 1, 0] {
        storage.insert(names[broken].clone(), [0xff; 8]);
        let error = open_all(&storage, &names).map(|opened| opened.metadata).expect_err("broken").to_string();
        assert!(error.contains(&names[broken]), "{error}");
    }
    let found = CheckpointFiles::without_index(names);
    assert_eq!(broken_files(&storage, &found).len(), 6);
}

#[test]
fn a_shard_that_is_missing_is_one_of_its_index() {
    let storage = MemoryStorage::new();
    write(&storage, 1, 0);
    storage
        .insert("m/model.safetensors.index.json", br#"{"weight_map":{"a":"000.safetensors","b":"001.safetensors"}}"#);
    let storage: Arc<LoadStorage> = Arc::new(storage);
    let found = discover_among(FORMATS, &*storage, "m", None).expect("finds");
    let error = open(&storage, found, None).map(|opened| opened.metadata).expect_err("one is missing");
    assert!(
        matches!(&error, Error::MissingShard { index, shard } if index == "m/model.safetensors.index.json" && shard == "001.safetensors"),
        "{error}"
    );
}

#[test]
fn a_small_file_is_read_whole() {
    let storage = MemoryStorage::new();
    let names = write(&storage, 2, 100);
    let bytes = |name: &str| open_file(&storage, name).expect("opens").len();
    let len = bytes(&names[0]);
    let small_files = Arc::new(ArenaCache::default());
    let storage: Arc<LoadStorage> = Arc::new(storage);
    let found = discover_among(FORMATS, &*storage, &names[0], Some(&small_files)).expect("finds");
    let opened = open(&storage, found, Some(&small_files)).expect("opens");
    assert_eq!(opened.small_file.expect("it is small").as_bytes().len() as u64, len);
    let found = discover_among(FORMATS, &*storage, "m", Some(&small_files)).expect("finds");
    assert!(open(&storage, found, Some(&small_files)).expect("opens").small_file.is_none(), "one of two");
}

/// A format whose header is a magic and a run of zeros, which are read one by one; the rest is a
/// tensor.
#[derive(Debug)]
struct Toy;

const TOY: FormatId = FormatId::new("toy", "Toy");

impl Format for Toy {
    fn id(&self) -> FormatId {
        TOY
    }
    fn expected(&self) -> &'static str {
        "*.toy files"
    }
    fn claim(&self, name: &str) -> Option<Claim> {
        name.ends_with(".toy").then_some(Claim::File)
    }
    fn sniff(&self, start: &[u8]) -> bool {
        start.starts_with(b"TOY")
    }
    fn parser(&self) -> Option<Box<dyn HeaderParser>> {
        Some(Box::new(Self))
    }
}

impl HeaderParser for Toy {
    fn format(&self) -> FormatId {
        TOY
    }
    fn first_read(&self, len: u64) -> u64 {
        len.min(3)
    }
    fn parse(&self, start: FileStart<'_>, catalog: &mut CatalogBuilder) -> Result<HeaderState, CoreError> {
        let FileStart { name, len, bytes } = start;
        let malformed = || CoreError::format(name, "the file is no toy");
        if !bytes.starts_with(b"TOY") {
            return Err(malformed());
        }
        let Some(end) = bytes.get(3..).and_then(|rest| rest.iter().position(|&byte| byte != 0)) else {
            let more = bytes.len() as u64 + 1;
            return if more > len { Err(malformed()) } else { Ok(HeaderState::Needs(more)) };
        };
        let range = ByteRange::new(3 + end as u64, len).ok_or_else(malformed)?;
        let file = catalog.add_file(name, len)?;
        catalog.add_tensor(file, name, DType::U8.into(), &[range.len()], range)?;
        Ok(HeaderState::Complete)
    }
}

#[test]
fn a_format_is_one_implementation_and_one_line_of_the_registry() {
    let formats: Vec<&dyn Format> = FORMATS.iter().copied().chain([&Toy as &dyn Format]).collect();
    let storage = MemoryStorage::new();
    let long = [&b"TOY"[..], &[0; 30_000], b"1234567"].concat();
    for (name, bytes) in
        [("t/a.toy", &b"TOY\0\0abc"[..]), ("t/b.toy", &long), ("blob/ff", b"TOYx"), ("bad/c.toy", b"TOY\0")]
    {
        storage.insert(name, bytes.to_vec());
    }
    let shapes = |name: &str| {
        let found = discover_among(&formats, &storage, name, None)?;
        let sources: Vec<Source<'_>> = found.files.iter().map(|name| Source { storage: &storage, name }).collect();
        let catalog = read_headers(&formats, &sources, found.first, found.index, None)?.headers.catalog;
        assert_eq!(catalog.format(), TOY);
        Ok::<_, Error>(catalog.tensors().map(|tensor| tensor.shape[0]).collect::<Vec<_>>())
    };
    assert_eq!(shapes("t").expect("two"), [3, 7]);
    assert_eq!(shapes("t/b.toy").expect("one"), [7]);
    assert_eq!(shapes("blob").expect("by content"), [1]);
    assert!(shapes("bad").expect_err("malformed").to_string().contains("no toy"));
    storage.insert("t/model.gguf", b"");
    assert!(matches!(shapes("t"), Err(Error::SeveralFormats { names, .. }) if names == "model.gguf, a.toy"));
}
