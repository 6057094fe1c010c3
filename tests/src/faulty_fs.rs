//! A file system whose device fails as it is told: through the kernel, so that every backend meets the fault as it would meet
//! a real one.
//!
//! It shows the files of a folder as they are at each moment (nothing is cached of their attributes), and one of them, the
//! victim, is served with [`Faults`]. A program of its own serves it: a thread that waits for a read of a file system that its
//! own process serves could not be killed any more. That program is the test's own, started again for the one function that
//! calls [`serve`]; it listens on its standard input, which is a socket, and ends when that is closed.

mod server;

pub use server::serve;

use crate::roles::this_program;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The name of the file that is served with faults.
pub const VICTIM: &str = "model.safetensors";
/// Set for the program that is to serve.
const SERVE: &str = "FLOODTIDE_TEST_SERVE";
/// A read is held no longer than this, whatever becomes of the test.
const HELD_AT_MOST: Duration = Duration::from_secs(20);

/// What is wrong with the victim; nothing by default, except that it takes no direct reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Faults {
    /// Reads that touch these bytes fail with EIO.
    pub eio: Option<Range<u64>>,
    /// So many of them; `None` for all.
    pub eio_times: Option<u32>,
    /// By turns, reads bring no more than so many bytes.
    pub short: Vec<usize>,
    /// By turns, reads take so long.
    pub delays: Vec<Duration>,
    /// Reads that reach past this byte wait until they are [released](FaultyFs::release).
    pub hold_from: Option<u64>,
    /// The bytes from here on are gone, although the file's attributes do not say so.
    pub cut: Option<u64>,
    /// It can be opened for direct reads.
    pub direct: bool,
    /// Direct reads from here on are refused, although it could be opened for them.
    pub direct_until: Option<u64>,
    /// Reads go past the page cache, direct or not, so that a short one is seen as it is.
    pub uncached: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Mount { files: PathBuf, at: PathBuf, faults: Faults },
    Fault(Faults),
    Release,
    CountHeld,
}

/// The mounted file system, unmounted on drop.
pub struct FaultyFs {
    folder: tempfile::TempDir,
    control: Mutex<BufReader<UnixStream>>,
    server: Child,
}

impl FaultyFs {
    /// Shows `files`. `server` names the calling program's test function that calls [`serve`], after the `module_path!()` of it.
    ///
    /// # Errors
    /// When this process may not mount, or the kernel has no FUSE.
    pub fn mount(files: &Path, (module, server): (&str, &str), faults: Faults) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (ours, theirs) = UnixStream::pair()?;
        let mut program = this_program(module, server);
        let program = program.env(SERVE, "1").stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).spawn()?;
        let mounted = Self { folder, control: Mutex::new(BufReader::new(ours)), server: program };
        mounted.tell(&Order::Mount { files: files.to_owned(), at: mounted.folder.path().to_owned(), faults })?;
        Ok(mounted)
    }

    /// The victim.
    pub fn victim(&self) -> PathBuf {
        self.file(VICTIM)
    }

    /// Any file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes what is wrong, and releases what is held.
    pub fn fault(&self, faults: Faults) {
        self.tell(&Order::Fault(faults)).expect("it serves");
    }

    /// Lets the reads that are held go on, and holds no more.
    pub fn release(&self) {
        self.tell(&Order::Release).expect("it serves");
    }

    /// Waits until a read is held.
    pub fn wait_until_held(&self) {
        let end = Instant::now() + HELD_AT_MOST / 2;
        while self.tell(&Order::CountHeld).expect("it serves") == 0 {
            assert!(Instant::now() < end, "no read reaches what is held");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn tell(&self, order: &Order) -> io::Result<usize> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(control.get_mut(), "{}", serde_json::to_string(order)?)?;
        let mut answer = String::new();
        control.read_line(&mut answer)?;
        serde_json::from_str::<Result<usize, String>>(&answer)?.map_err(io::Error::other)
    }
}

impl Drop for FaultyFs {
    fn drop(&mut self) {
        // What is still open is detached, and fails when its server is gone.
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
        let control = self.control.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = control.get_mut().shutdown(std::net::Shutdown::Both);
        let _ = self.server.wait();
    }
}
