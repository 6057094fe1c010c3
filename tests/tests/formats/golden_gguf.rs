//! GGUF files from the format's own writer: the command must report and load what the format's own
//! reader does. Damaged headers must be read alike or refused by both.
//!
//! The package (PyPI `gguf`) is installed once into a virtual environment in the cache folder
//! (`FLOODTIDE_CACHE`, or `.cache` in the workspace), and the files are kept there too. Offline, or
//! without Python's venv, the tests are skipped with a message.

use floodtide::backend::{PREAD, TOKIO, URING};
use floodtide::{Loader, StreamOptions};
use floodtide_core::format::gguf::{GgufError, Parsed, parse};
use floodtide_tests::command;
use floodtide_tests::layout::drop_cache;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

const REQUIREMENTS: &str = include_str!("../../golden/requirements.txt");
const SCRIPT: &str = include_str!("../../golden/gguf_files.py");

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Returns the folder with the files, and creates it if it is not in the cache.
fn make() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let cache = std::env::var_os("FLOODTIDE_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    fs::create_dir_all(&cache).map_err(|error| error.to_string())?;
    // Other files for another package or script.
    let files = cache.join(format!("golden-gguf-{}", &hex([REQUIREMENTS, SCRIPT].concat().as_bytes())[..16]));
    if files.exists() {
        return Ok(files);
    }
    // Create it aside and rename it, so that it is complete even if other processes do the same.
    let aside = tempfile::tempdir_in(&cache).map_err(|error| error.to_string())?;
    let (environment, made) = (aside.path().join("venv"), aside.path().join("files"));
    let python = std::env::var_os("FLOODTIDE_PYTHON").unwrap_or_else(|| OsString::from("python3"));
    run(Command::new(python).args(["-m", "venv"]).arg(&environment))?;
    let requirements = root.join("tests/golden/requirements.txt");
    run(Command::new(environment.join("bin/pip")).args(["install", "--quiet", "-r"]).arg(requirements))?;
    fs::create_dir(&made).map_err(|error| error.to_string())?;
    let script = root.join("tests/golden/gguf_files.py");
    run(Command::new(environment.join("bin/python")).arg(script).arg(&made)).expect("the script works");
    match fs::rename(&made, &files) {
        Err(error) if !files.exists() => Err(error.to_string()),
        _ => Ok(files),
    }
}

/// Returns the folder with the files, and the package's description of them. Prints a message and
/// returns `None` if they are not available.
fn golden() -> Option<(PathBuf, Value)> {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match MADE.get_or_init(make) {
        Ok(folder) => {
            let json = fs::read(folder.join("golden.json")).expect("reads");
            Some((folder.clone(), serde_json::from_slice(&json).expect("JSON")))
        }
        Err(why) => {
            println!("skipped: the golden files cannot be made: {why}");
            None
        }
    }
}

const CASES: [&str; 6] = ["kinds", "version_two", "aligned", "large", "split", "vocabulary"];

/// Returns whether both JSON values mean the same.
fn numbers_agree(ours: &Value, theirs: &Value) -> bool {
    match (ours.as_f64(), theirs.as_f64()) {
        // What the package widens we write as short as it is: 0.1 for 0.10000000149011612.
        (Some(ours), Some(theirs)) => ours == theirs || ours as f32 == theirs as f32,
        _ => ours == theirs,
    }
}

#[test]
fn what_is_said_of_each_file_is_what_the_package_says() {
    let Some((folder, golden)) = golden() else { return };
    for case in CASES {
        let said = command::run(["inspect".as_ref(), folder.join(case).as_os_str(), "--json".as_ref()]).json();
        assert_eq!(said["format"], "gguf");
        let expected = &golden[case];
        let name_of = |path: &Value| Path::new(path.as_str().expect("a path")).file_name().expect("a name").to_owned();
        let files: Vec<OsString> =
            said["files"].as_array().expect("files").iter().map(|f| name_of(&f["path"])).collect();
        assert_eq!(
            serde_json::json!(files.iter().map(|f| f.to_str()).collect::<Vec<_>>()),
            expected["files"],
            "{case}"
        );
        let (tensors, theirs) = (said["tensors"].as_array().expect("tensors"), expected["tensors"].as_array());
        let theirs = theirs.expect("tensors");
        assert_eq!(tensors.len(), theirs.len(), "{case}");
        for (ours, theirs) in tensors.iter().zip(theirs) {
            for key in ["name", "ggml_shape", "offset", "bytes"] {
                assert_eq!(ours[key], theirs[key], "{case}: {key} of {theirs}");
            }
            assert_eq!(ours["dtype"], format!("GGML_{}", theirs["type"].as_str().expect("a name")), "{case}");
            assert_eq!(name_of(&ours["file"]).to_str(), theirs["file"].as_str(), "{case}");
            let mut turned = theirs["ggml_shape"].as_array().expect("a shape").clone();
            turned.reverse();
            assert_eq!(ours["shape"], Value::Array(turned), "{case}");
        }
        check_metadata(case, &said["metadata"], &expected["metadata"]);
    }
}

fn check_metadata(case: &str, ours: &Value, theirs: &Value) {
    let (ours, theirs) = (ours.as_object().expect("an object"), theirs.as_object().expect("an object"));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{case}");
    let types = |theirs: &Value| match theirs.as_str() {
        Some("uint32") => "u32",
        Some("int32") => "i32",
        Some("float32") => "f32",
        Some("bool") => "bool",
        Some("string") => "string",
        other => panic!("{other:?}"),
    };
    for (key, theirs) in theirs {
        let ours = &ours[key];
        if !theirs.is_object() {
            assert!(numbers_agree(ours, theirs), "{case}: {key} is {ours}, expected {theirs}");
            continue;
        }
        assert_eq!(
            (ours["type"].as_str(), &ours["count"]),
            (Some(types(&theirs["type"])), &theirs["count"]),
            "{case}: {key}"
        );
        let (ours, theirs) =
            (ours["first"].as_array().expect("elements"), theirs["first"].as_array().expect("elements"));
        assert_eq!(ours.len(), theirs.len(), "{case}: {key}");
        for (ours, theirs) in ours.iter().zip(theirs) {
            match (ours.as_str(), theirs.as_str()) {
                (Some(ours), Some(theirs)) if ours.ends_with('…') => {
                    assert!(
                        theirs.starts_with(ours.trim_end_matches('…')) && ours.chars().count() == 101,
                        "{key}: {ours}"
                    );
                }
                _ => assert!(numbers_agree(ours, theirs), "{case}: {key}: {ours}, expected {theirs}"),
            }
        }
    }
}

/// Returns what `floodtide digest` must print.
fn digests(expected: &Value) -> String {
    let tensors = expected["tensors"].as_array().expect("tensors");
    let text = |tensor: &Value, key: &str| tensor[key].as_str().expect("a text").to_owned();
    let lines: BTreeMap<String, String> = tensors.iter().map(|t| (text(t, "name"), text(t, "sha256"))).collect();
    lines.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect()
}

#[test]
fn every_tensor_is_what_the_package_reads_by_every_backend() {
    let Some((folder, golden)) = golden() else { return };
    for case in CASES {
        let (path, expected) = (folder.join(case), digests(&golden[case]));
        for backend in ["auto", "uring", "pread", "mmap", "tokio"] {
            for cold in [true, false] {
                if cold {
                    drop_cache(&path);
                }
                let run = command::run(["digest".as_ref(), path.as_os_str(), "--backend".as_ref(), backend.as_ref()]);
                assert_eq!(run.assert_ok(), expected, "{case} by {backend}");
            }
        }
        for backend in [None, Some(URING), Some(PREAD), Some(TOKIO)] {
            drop_cache(&path);
            let loader = backend
                .map_or_else(Loader::new, |backend| Loader::new().backend(backend))
                .stream_options(StreamOptions::new().memory_limit(16 << 20));
            let lines: Mutex<BTreeMap<String, String>> = Mutex::default();
            for tensor in loader.stream(&path).expect("opens") {
                let tensor = tensor.expect("streams");
                lines.lock().expect("whole").insert(tensor.name().to_owned(), hex(tensor.as_bytes()));
            }
            let lines = lines.into_inner().expect("whole");
            let streamed: String = lines.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
            assert_eq!(streamed, expected, "{case} streamed by {backend:?}");
        }
    }
}

/// The package takes an offset as it is, where ggml wants each tensor right behind the one before;
/// nothing else of this damage passes it.
fn is_stricter(error: &GgufError) -> bool {
    matches!(error, GgufError::Offset { .. })
}

#[test]
fn damaged_headers_are_read_as_the_package_reads_them_or_refused() {
    let Some((folder, golden)) = golden() else { return };
    let verdicts = golden["damaged"].as_array().expect("verdicts");
    let (mut both, mut stricter, mut refused) = (0, 0, 0);
    for (number, theirs) in verdicts.iter().enumerate() {
        let file = fs::read(folder.join(format!("damaged/{number:03}"))).expect("reads");
        match parse(&file, file.len() as u64) {
            Ok(Parsed::Needs(bytes)) => panic!("{number}: all of it is there, and {bytes} bytes are needed"),
            Ok(Parsed::Header(header)) => {
                let theirs = theirs.as_array().unwrap_or_else(|| panic!("{number}: the package refuses it"));
                let ours: Vec<Value> = header
                    .entries()
                    .iter()
                    .map(|entry| {
                        serde_json::json!({
                            "name": entry.name, "type": entry.ggml.name(), "ggml_shape": entry.ggml_shape(),
                            "offset": entry.range.start(), "bytes": entry.range.len(),
                        })
                    })
                    .collect();
                assert_eq!(&ours, theirs, "{number}");
                both += 1;
            }
            Err(error) if theirs.is_null() => {
                println!("{number}: {error}");
                refused += 1;
            }
            Err(error) => {
                println!("{number}: by us alone: {error}");
                assert!(is_stricter(&error), "{number}: we alone refuse: {error}");
                stricter += 1;
            }
        }
    }
    println!("{both} read by both, {refused} refused by both, {stricter} by us alone");
    assert!(both > 20 && refused > 100, "{both} {refused} {stricter}");
}
