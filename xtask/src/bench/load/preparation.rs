//! Brings files into a state before a load, and stops the bench on Ctrl-C.

use super::memory_balloon::MemoryBalloon;
use super::subjects::program;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by Ctrl-C: no further load starts, and mounts are released as usual.
pub(super) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub(super) fn check_interrupted() -> Result<(), String> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err("interrupted".to_owned()) } else { Ok(()) }
}

/// The state of the files when a load begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Cold,
    Warm,
    Half,
}

/// Returns the command that brings files into a state and frees the memory balloon: see
/// `benches/src/bin/subjects/prepare.rs`.
pub(super) fn preparation(files: &[PathBuf], state: State, balloon: Option<&MemoryBalloon>) -> Vec<String> {
    let state = match state {
        State::Cold => "cold",
        State::Warm => "warm",
        State::Half => "half",
    };
    let balloon = balloon.map_or("-".to_owned(), |balloon| balloon.id().to_string());
    let fixed = [program().to_string_lossy().into_owned(), "prepare".to_owned(), state.to_owned(), balloon];
    fixed.into_iter().chain(files.iter().map(|path| path.to_string_lossy().into_owned())).collect()
}
