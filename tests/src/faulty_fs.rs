//! A file system with injected faults, mounted through FUSE, so that every backend meets them as it
//! meets real ones.
//!
//! It shows the current files of a folder (attributes are not cached), and serves one of them, the
//! victim, with [`Faults`]. A separate process serves it: a thread that waits for a read of a file
//! system of its own process cannot be killed. That process is the test program, started again for
//! the one function that calls [`serve`]. It listens on its standard input, which is a socket, and
//! ends when the socket is closed.

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
/// The environment variable that is set for the serving process.
const SERVE: &str = "FLOODTIDE_TEST_SERVE";
/// The maximum time that a read is held.
const HELD_AT_MOST: Duration = Duration::from_secs(20);

/// The faults of the victim. By default there is none, but direct reads are not supported.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Faults {
    /// Reads that touch these bytes fail with EIO.
    pub eio: Option<Range<u64>>,
    /// The number of reads that fail; `None` for all.
    pub eio_times: Option<u32>,
    /// The maximum lengths of reads, in turn.
    pub short: Vec<usize>,
    /// The delays of reads, in turn.
    pub delays: Vec<Duration>,
    /// Reads that reach past this byte wait until they are [released](FaultyFs::release).
    pub hold_from: Option<u64>,
    /// The bytes from here on are missing, although the file's attributes include them.
    pub cut: Option<u64>,
    /// Whether the file can be opened for direct reads.
    pub direct: bool,
    /// Direct reads from here on are refused, although the file can be opened for them.
    pub direct_until: Option<u64>,
    /// Whether all reads bypass the page cache, so that a short read reaches the reader.
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
#[derive(Debug)]
pub struct FaultyFs {
    folder: tempfile::TempDir,
    control: Mutex<BufReader<UnixStream>>,
    server: Child,
}

impl FaultyFs {
    /// Shows `files`. `server` names the calling program's test function that calls [`serve`],
    /// after the `module_path!()` of it.
    ///
    /// # Errors
    /// Returns an error if this process may not mount, or the kernel does not support FUSE.
    pub fn mount(files: &Path, (module, server): (&str, &str), faults: Faults) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (ours, theirs) = UnixStream::pair()?;
        let mut program = this_program(module, server);
        let program = program.env(SERVE, "1").stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).spawn()?;
        let mounted = Self { folder, control: Mutex::new(BufReader::new(ours)), server: program };
        mounted.tell(&Order::Mount { files: files.to_owned(), at: mounted.folder.path().to_owned(), faults })?;
        Ok(mounted)
    }

    /// Returns the path of the victim.
    pub fn victim(&self) -> PathBuf {
        self.file(VICTIM)
    }

    /// Returns the path of a file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes the faults, and releases held reads.
    pub fn fault(&self, faults: Faults) {
        self.tell(&Order::Fault(faults)).expect("it serves");
    }

    /// Releases held reads, and holds no more.
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
        // Open files are detached, and fail when the server ends.
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
        let control = self.control.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = control.get_mut().shutdown(std::net::Shutdown::Both);
        let _ = self.server.wait();
    }
}
