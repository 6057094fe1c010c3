//! The baselines' libraries, in a virtual environment in the target folder.

use crate::tools::{root, run, target};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const REQUIREMENTS: &str = "benches/baselines/requirements.txt";
const NEXT: &str = "benches/baselines/requirements-next.txt";

/// The environment, or why there is none.
pub(super) struct Baselines(Result<PathBuf, String>);

impl Baselines {
    /// Installs the environment unless it is there; without `install`, takes only what is there.
    pub(super) fn set_up(install: bool) -> Self {
        let folder = target().join("bench/venv");
        let stamp = folder.join("installed.txt");
        let wanted =
            [REQUIREMENTS, NEXT].map(|path| fs::read_to_string(root().join(path)).unwrap_or_default()).concat();
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Self(Ok(folder));
        }
        if !install {
            return Self(Err("the libraries are not installed, and a quick run does not install them".to_owned()));
        }
        println!("Installing the baselines' libraries (a few minutes, 5 GB of disk) ...");
        let pip = folder.join("bin/pip");
        let install = || {
            let _ = fs::remove_dir_all(&folder);
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
            run(Command::new(&pip).args(["install", "--quiet", "-r"]).arg(root().join(REQUIREMENTS)))?;
            let next = folder.join("next");
            run(Command::new(&pip)
                .args(["install", "--quiet", "--no-deps", "--target"])
                .arg(next)
                .arg("-r")
                .arg(root().join(NEXT)))?;
            fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
        };
        Self(install().map(|()| folder).map_err(|why| format!("the libraries cannot be installed: {why}")))
    }

    /// Returns why there is no environment.
    pub(super) fn missing(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    /// Returns the environment's Python; with `next`, pre-releases take precedence.
    pub(super) fn python(&self, next: bool) -> Result<Command, String> {
        let folder = self.0.as_ref().map_err(Clone::clone)?;
        let mut command = Command::new(folder.join("bin/python"));
        if next {
            command.env("PYTHONPATH", folder.join("next"));
        }
        Ok(command)
    }

    /// Returns the libraries with their pinned versions.
    pub(super) fn versions(&self) -> Vec<(String, String)> {
        if self.missing().is_some() {
            return Vec::new();
        }
        let mut versions = Vec::new();
        for path in [REQUIREMENTS, NEXT] {
            let text = fs::read_to_string(root().join(path)).unwrap_or_default();
            let pins = text.lines().filter_map(|line| line.split_once("=="));
            versions.extend(pins.map(|(name, version)| (name.to_owned(), version.to_owned())));
        }
        versions
    }
}
