//! Breaks every rule of the formats once, in core and with the command. Each must give a precise
//! error within a second, without a panic, in memory bounded by the real size of the header.

use floodtide_core::format::safetensors::{Header, header_range};
use floodtide_tests::checkpoint::{cache, folder, raw, small};
use floodtide_tests::malformed::{assert_refused_alike, assert_refused_by_command, assert_refused_by_core};
use floodtide_tests::{command, malformed};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

#[test]
fn core_refuses_each_malformed_file_by_its_rule() {
    assert_refused_by_core(malformed::safetensors::files(), |path| {
        let bytes = fs::read(path).expect("reads");
        let len = bytes.len() as u64;
        let range = header_range(&bytes, len).map_err(|error| error.to_string())?;
        let header = Header::parse(&bytes[range.start() as usize..range.end() as usize], len);
        header.map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn the_command_refuses_each_malformed_file() {
    assert_refused_by_command(
        1,
        malformed::safetensors::files(),
        &["inspect", "load", "plan", "digest"],
        &[malformed::safetensors::NAME],
    );
}

#[test]
fn the_command_refuses_each_malformed_sharded_checkpoint() {
    assert_refused_by_command(1, malformed::safetensors::sharded(), &["inspect", "load"], &[]);
}

#[test]
fn each_malformed_checkpoint_is_refused_alike_in_every_storage() {
    assert_refused_alike(malformed::safetensors::files());
    assert_refused_alike(malformed::safetensors::sharded());
    assert_refused_alike(malformed::gguf::files());
    assert_refused_alike(malformed::gguf::split_models());
    assert_refused_alike(malformed::gguf::ambiguous());
    assert_refused_alike(malformed::serverlessllm::indexes());
    assert_refused_alike(malformed::serverlessllm::folders());
    assert_refused_alike(malformed::serverlessllm::ambiguous());
}

#[test]
fn what_is_no_checkpoint_is_named() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let load = |path: &Path| command::run(["load".as_ref(), path.as_os_str()]);
    load(&at("missing.safetensors")).assert_error(1, &["missing.safetensors", "No such file", "check the path"]);
    fs::create_dir(at("nothing")).expect("makes");
    load(&at("nothing")).assert_error(1, &["nothing", "no checkpoint", "*.safetensors"]);
    for (name, bytes) in [("pytorch_model.bin", &b"PK\x03\x04rest"[..]), ("model.pt", &b"\x80\x02rest of it"[..])] {
        fs::create_dir(at("pickles")).expect("makes");
        fs::write(at("pickles").join(name), bytes).expect("writes");
        for path in [at("pickles"), at("pickles").join(name)] {
            load(&path).assert_error(1, &[name, "pickle", "runs code", "convert", "save_file"]);
        }
        fs::remove_dir_all(at("pickles")).expect("removes");
    }
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("makes");
    load(&at("fifo")).assert_error(1, &["fifo", "a FIFO"]);
    load(Path::new("/dev/null")).assert_error(1, &["/dev/null", "a character device"]);
    fs::create_dir(at("shards")).expect("makes");
    rustix::fs::mknodat(rustix::fs::CWD, at("shards/a.safetensors"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("makes");
    load(&at("shards")).assert_error(1, &["a.safetensors", "a FIFO"]);
}

#[test]
fn an_index_of_pickles_is_named_as_such() {
    let folder = folder();
    let index = folder.path().join("pytorch_model.bin.index.json");
    let map = r#"{"metadata":{"total_size":4},"weight_map":{"t":"pytorch_model-00001-of-00001.bin"}}"#;
    fs::write(&index, map).expect("writes");
    let words = ["pytorch_model-00001-of-00001.bin", "pickle", "runs code", "convert", "save_file"];
    // Whether the shard exists already or not.
    command::run(["load".as_ref(), index.as_os_str()]).assert_error(1, &words);
    fs::write(folder.path().join("pytorch_model-00001-of-00001.bin"), b"PK\x03\x04rest").expect("writes");
    command::run(["load".as_ref(), index.as_os_str()]).assert_error(1, &words);
    command::run(["load".as_ref(), folder.path().as_os_str()]).assert_error(1, &words);
}

#[test]
fn names_from_files_neither_act_on_the_terminal_nor_fill_it() {
    let folder = folder();
    // Two indexes, of which one has a name that clears the screen.
    for name in ["a\u{1b}[2J.safetensors.index.json", "b.safetensors.index.json"] {
        fs::write(folder.path().join(name), "{}").expect("writes");
    }
    let run = command::run(["load".as_ref(), folder.path().as_os_str()]);
    run.assert_error(2, &["several indexes", r"a\u{1b}[2J.safetensors.index.json"]);
    // Names of 1 MiB, of a tensor and of a shard.
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).expect("makes");
    let long = "n".repeat(1 << 20);
    let entry = r#"{"dtype":"U8","shape":[1],"data_offsets":[1,2]}"#;
    fs::write(inner.join("model.safetensors"), raw(&format!(r#"{{"{long}":{entry}}}"#), &[0; 2])).expect("writes");
    let index = |shard: &str| {
        fs::write(inner.join("model.safetensors.index.json"), format!(r#"{{"weight_map":{{"{long}":"{shard}"}}}}"#))
            .expect("writes");
    };
    for shard in ["model.safetensors", "../model.safetensors", &long, &format!("{long}.bin")] {
        index(shard);
        let run = command::run(["load".as_ref(), inner.as_os_str()]);
        run.assert_error(1, &["nnn…"]);
        assert!(run.stderr.len() < 6000, "{} bytes", run.stderr.len());
    }
}

#[test]
fn a_file_that_may_not_be_read_is_an_error_with_a_hint() {
    let folder = folder();
    let path = folder.path().join("secret.safetensors");
    small(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("sets");
    let mut program = Command::new(command::path());
    program.args(["load".as_ref(), path.as_os_str()]);
    if rustix::process::geteuid().is_root() {
        // Root may read every file, so the command runs as nobody, from a folder that nobody can
        // reach.
        let home = tempfile::tempdir().expect("a folder");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("sets");
        let (copy, secret) = (home.path().join("floodtide"), home.path().join("secret.safetensors"));
        fs::copy(command::path(), &copy).expect("copies");
        fs::rename(&path, &secret).or_else(|_| fs::copy(&path, &secret).map(drop)).expect("moves");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("sets");
        let mut program = Command::new(copy);
        program.args(["load".as_ref(), secret.as_os_str()]).uid(65534).gid(65534);
        command::finish(&mut program).assert_error(1, &["secret.safetensors", "Permission denied", "permissions"]);
    } else {
        command::finish(&mut program).assert_error(1, &["secret.safetensors", "Permission denied", "permissions"]);
    }
}

#[test]
fn a_wrong_command_line_is_2_and_a_wrong_selection_too() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let path = path.to_str().expect("UTF-8");
    command::run(["load", path, "--select", "nothing.*"]).assert_error(2, &["nothing.*", "inspect"]);
    command::run(["load", path, "--select", "a[b"]).assert_error(2, &["a[b", "]"]);
    let many = command::run(["load", path, "--threads", "18446744073709551615"]);
    assert_eq!(many.code, 2, "{many:#?}");
    assert!(many.stderr.contains("from 1 to 1024"), "{many:#?}");
    for wrong in
        [&["load"][..], &["load", path, "--backend", "floppy"], &["load", path, "--threads", "0"], &["fly"], &[]]
    {
        let run = command::run(wrong);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:#?}");
        assert!(!run.stderr.is_empty());
    }
    command::run(["demo", "--keep", folder.path().to_str().expect("UTF-8")]).assert_error(2, &["--keep", "empty"]);
}

#[test]
fn a_claimed_header_takes_no_memory_that_is_not_in_the_file() {
    let folder = folder();
    // 100 MB of header are claimed by a sparse file: zeros are no JSON, and no more than the header
    // may be read.
    let path = folder.path().join("sparse.safetensors");
    fs::write(&path, 100_000_000_u64.to_le_bytes()).expect("writes");
    fs::File::options().write(true).open(&path).expect("opens").set_len(1 << 40).expect("grows");
    command::run(["inspect".as_ref(), path.as_os_str()]).assert_error(1, &["sparse.safetensors", "JSON"]);
    // A tensor of a terabyte that exists, but does not fit in memory, is refused before the first
    // read.
    let json = r#"{"t":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}"#;
    fs::write(&path, raw(json, &[])).expect("writes");
    let len = fs::metadata(&path).expect("is there").len() + (1 << 40);
    fs::File::options().write(true).open(&path).expect("opens").set_len(len).expect("grows");
    for backend in ["auto", "uring", "pread", "mmap", "tokio"] {
        let run = command::run(["load".as_ref(), path.as_os_str(), "--backend".as_ref(), backend.as_ref()]);
        run.assert_error(1, &["1.0 TiB", "available", "--select", "--stream"]);
    }
}

#[test]
fn a_folder_of_links_is_a_checkpoint_only_without_an_index_or_in_a_cache() {
    let folder = folder();
    let (cache, blobs, snapshot) = cache(folder.path());
    fs::create_dir(cache.join("refs")).expect("makes");
    fs::write(cache.join("refs/main"), "0123abcd").expect("writes");
    small(&blobs.join("ff00"));
    symlink("../../blobs/ff00", snapshot.join("model.safetensors")).expect("links");
    let names = ["layer.weight", "layer.bias", "scale", "empty", "evil\\n\\u001b[31mname"];
    let map: Vec<String> = names.iter().map(|name| format!("\"{name}\":\"model.safetensors\"")).collect();
    let index = format!(r#"{{"weight_map":{{{}}}}}"#, map.join(","));
    fs::write(snapshot.join("model.safetensors.index.json"), &index).expect("writes");
    for path in [&snapshot, &cache] {
        command::run(["load".as_ref(), path.as_os_str()]).assert_ok();
    }
    // The same links elsewhere: found in the folder's listing they are trusted, named by an index
    // they are not.
    let plain = folder.path().join("plain");
    fs::create_dir(&plain).expect("makes");
    symlink(blobs.join("ff00"), plain.join("model.safetensors")).expect("links");
    command::run(["load".as_ref(), plain.as_os_str()]).assert_ok();
    fs::write(plain.join("model.safetensors.index.json"), &index).expect("writes");
    command::run(["load".as_ref(), plain.as_os_str()]).assert_error(1, &["symbolic link", "ff00"]);
}

/// Writes a component of a pipeline: a folder in the snapshot, with the file names of that library.
#[test]
fn a_component_of_a_pipeline_in_a_cache_is_a_checkpoint() {
    let folder = folder();
    let (cache, blobs, snapshot) = cache(folder.path());
    let component = snapshot.join("transformer");
    fs::create_dir(&component).expect("makes");
    let write = |variant: &str| {
        let json = r#"{"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
        fs::write(blobs.join("ff00"), raw(json, &[1, 2, 3, 4])).expect("writes");
        let shard = format!("diffusion_pytorch_model{variant}-00001-of-00001.safetensors");
        symlink("../../../blobs/ff00", component.join(&shard)).expect("links");
        let index = format!(r#"{{"metadata":{{"total_size":4.0}},"weight_map":{{"t":"{shard}"}}}}"#);
        fs::write(blobs.join(format!("ee00{variant}")), index).expect("writes");
        let index = component.join(format!("diffusion_pytorch_model.safetensors.index{variant}.json"));
        symlink(format!("../../../blobs/ee00{variant}"), &index).expect("links");
        index
    };
    let plain = write("");
    command::run(["load".as_ref(), component.as_os_str()]).assert_ok();
    let half = write(".fp16");
    command::run(["load".as_ref(), component.as_os_str()]).assert_error(2, &["several indexes", "index.fp16.json"]);
    for index in [&plain, &half] {
        let run = command::run(["load".as_ref(), index.as_os_str()]);
        run.assert_ok();
        assert_eq!(run.stderr, "", "the total size agrees");
    }
    fs::remove_file(&plain).expect("removes");
    command::run(["load".as_ref(), component.as_os_str()]).assert_ok();
    // Out of the blobs: to a file beside them, to another model's blobs, and to a folder in the
    // blobs.
    let shard = component.join("diffusion_pytorch_model.fp16-00001-of-00001.safetensors");
    let other = folder.path().join("models--org--other/blobs");
    fs::create_dir_all(&other).expect("makes");
    fs::create_dir_all(blobs.join("inner")).expect("makes");
    for target in [cache.join("outside"), other.join("ff00"), blobs.join("inner/ff00")] {
        fs::copy(blobs.join("ff00"), &target).expect("copies");
        fs::remove_file(&shard).expect("removes");
        symlink(&target, &shard).expect("links");
        let run = command::run(["load".as_ref(), component.as_os_str()]);
        run.assert_error(1, &["fp16-00001-of-00001.safetensors", "symbolic link"]);
    }
}

#[test]
fn names_that_are_not_utf8_are_files_like_any_other() {
    let folder = folder();
    let inner = folder.path().join(OsStr::from_bytes(b"d\xff"));
    fs::create_dir(&inner).expect("makes");
    let file = inner.join(OsStr::from_bytes(b"m\xfe.safetensors"));
    small(&file);
    for path in [&inner, &file] {
        command::run(["load".as_ref(), path.as_os_str(), "--json".as_ref()]).json();
        command::run(["inspect".as_ref(), path.as_os_str(), "--json".as_ref()]).json();
    }
}
