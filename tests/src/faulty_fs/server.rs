//! The file system in the serving process.

use super::{Faults, HELD_AT_MOST, Order, SERVE, VICTIM};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};
use rustix::mount::{UnmountFlags, unmount};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// Serves the file system, if this program was started for it.
pub fn serve() {
    if std::env::var_os(SERVE).is_none() {
        return;
    }
    let standard_input = io::stdin().as_fd().try_clone_to_owned().expect("is open");
    let mut control = UnixStream::from(standard_input);
    let state = Arc::new(State::default());
    let mut session = None;
    for line in BufReader::new(control.try_clone().expect("a descriptor")).lines() {
        let Ok(line) = line else { break };
        let answer = match serde_json::from_str(&line).expect("an order") {
            Order::Mount { files, at, faults } => {
                state.set(faults);
                let shown = Shown { files, state: Arc::clone(&state), inodes: Mutex::default() };
                mount(shown, &at)
                    .map(|mounted| session = Some((mounted, at)))
                    .map_err(|error| error.to_string())
                    .map(|()| 0)
            }
            Order::Fault(faults) => Ok(state.set(faults)),
            Order::Release => {
                let faults = state.lock().faults.clone();
                Ok(state.set(Faults { hold_from: None, ..faults }))
            }
            Order::CountHeld => Ok(state.lock().held),
        };
        if writeln!(control, "{}", serde_json::to_string(&answer).expect("plain")).is_err() {
            break;
        }
    }
    if let Some((_, at)) = &session {
        let _ = unmount(at, UnmountFlags::DETACH);
    }
    // The end of the process closes the device, which ends all waiting reads.
    std::process::exit(0);
}

fn mount(shown: Shown, at: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("faulty".to_owned())];
    fuser::spawn_mount(shown, at, &config)
}

/// The faults and the waiting reads.
#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    faults: Faults,
    reads: usize,
    /// The number of reads held by the current faults.
    held: usize,
    /// The number of changes of the faults.
    changes: u64,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, faults: Faults) -> usize {
        let mut inner = self.lock();
        inner.faults = faults;
        inner.held = 0;
        inner.changes += 1;
        drop(inner);
        self.changed.notify_all();
        0
    }

    /// The result of a read of the victim: an error, or a maximum length and a delay.
    fn judge(&self, offset: u64, len: usize, direct: bool) -> Result<(usize, Duration), Errno> {
        let mut inner = self.lock();
        let Inner { faults, reads, .. } = &mut *inner;
        let end = offset + len as u64;
        if direct && faults.direct_until.is_some_and(|until| end > until) {
            return Err(Errno::EINVAL);
        }
        if faults.eio.as_ref().is_some_and(|bad| offset < bad.end && bad.start < end) {
            match &mut faults.eio_times {
                Some(0) => {}
                times => {
                    *times = times.map(|times| times - 1);
                    return Err(Errno::EIO);
                }
            }
        }
        let turn = *reads;
        *reads += 1;
        let by_turns = |n: usize| turn.checked_rem(n);
        let len = by_turns(faults.short.len()).map_or(len, |turn| len.min(faults.short[turn]));
        let left = faults.cut.map_or(u64::MAX, |cut| cut.saturating_sub(offset));
        let delay = by_turns(faults.delays.len()).map_or(Duration::ZERO, |turn| faults.delays[turn]);
        Ok((len.min(usize::try_from(left).unwrap_or(usize::MAX)), delay))
    }

    /// Returns the number of the faults that hold a read up to `end`, if any.
    fn holds(&self, end: u64) -> Option<u64> {
        let inner = self.lock();
        inner.faults.hold_from.is_some_and(|from| end > from).then_some(inner.changes)
    }

    /// Waits until the faults change.
    fn wait(&self, changes: u64) {
        let mut inner = self.lock();
        inner.held += usize::from(inner.changes == changes);
        let waited = self.changed.wait_timeout_while(inner, HELD_AT_MOST, |inner| inner.changes == changes);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// A known file.
#[derive(Clone)]
struct Inode {
    file: Arc<File>,
    victim: bool,
}

/// The files of a folder, without subfolders.
struct Shown {
    files: PathBuf,
    state: Arc<State>,
    inodes: Mutex<HashMap<u64, Inode>>,
}

impl Shown {
    fn inode(&self, number: INodeNo) -> Result<Inode, Errno> {
        let inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        inodes.get(&number.0).cloned().ok_or(Errno::ENOENT)
    }

    fn look_up(&self, name: &OsStr) -> io::Result<FileAttr> {
        let file = File::open(self.files.join(name))?;
        let attributes = attributes(&file)?;
        let inode = Inode { file: Arc::new(file), victim: name == VICTIM };
        // An open file keeps its inode number from being reused.
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner).entry(attributes.ino.0).or_insert(inode);
        Ok(attributes)
    }
}

fn attributes(file: &File) -> io::Result<FileAttr> {
    let metadata = file.metadata()?;
    let modified = metadata.modified()?;
    Ok(FileAttr {
        ino: INodeNo(metadata.ino()),
        size: metadata.len(),
        blocks: metadata.blocks(),
        mtime: modified,
        ctime: modified,
        kind: FileType::RegularFile,
        nlink: 1,
        perm: 0o644,
        ..folder_attributes()
    })
}

fn folder_attributes() -> FileAttr {
    FileAttr {
        ino: INodeNo::ROOT,
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0o755,
        nlink: 2,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Shown {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Allows mapping of uncached files; kernels before 6.6 do not support it.
        let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        // Not ASYNC_DIO: without it Linux (as of 6.18) does not advance the position after a short
        // direct read of an uncached file, and io_uring, which reads on by itself, would bring the
        // wrong bytes. A loader must not fall for that.
        let usual = InitFlags::FUSE_ASYNC_READ | InitFlags::FUSE_AUTO_INVAL_DATA;
        let _ = config.add_capabilities(usual);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(name) {
            Ok(attributes) => reply.entry(&Duration::ZERO, &attributes, Generation(0)),
            Err(_) => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if number == INodeNo::ROOT {
            return reply.attr(&Duration::ZERO, &folder_attributes());
        }
        match self.inode(number).and_then(|inode| attributes(&inode.file).map_err(|_| Errno::EIO)) {
            Ok(attributes) => reply.attr(&Duration::ZERO, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let victim = self.inode(number).is_ok_and(|inode| inode.victim);
        let state = self.state.lock();
        if flags.0 & libc::O_DIRECT != 0 && !(victim && state.faults.direct) {
            return reply.error(Errno::EINVAL);
        }
        let uncached = victim && state.faults.uncached;
        reply.opened(FileHandle(0), if uncached { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() });
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Inode { file, victim } = match self.inode(number) {
            Ok(inode) => inode,
            Err(error) => return reply.error(error),
        };
        let (mut len, mut delay, mut held) = (size as usize, Duration::ZERO, None);
        let end = offset + u64::from(size);
        if victim {
            match self.state.judge(offset, len, flags.0 & libc::O_DIRECT != 0) {
                Ok(verdict) => (len, delay) = verdict,
                Err(error) => return reply.error(error),
            }
            held = self.state.holds(end);
        }
        let state = Arc::clone(&self.state);
        let answer = move || {
            if let Some(changes) = held {
                state.wait(changes);
            }
            std::thread::sleep(delay);
            let mut bytes = vec![0; len];
            match read_up_to(&file, &mut bytes, offset) {
                Ok(read) => reply.data(&bytes[..read]),
                Err(_) => reply.error(Errno::EIO),
            }
        };
        // Serve others meanwhile.
        if held.is_some() || !delay.is_zero() {
            std::thread::spawn(answer);
        } else {
            answer();
        }
    }
}

/// Fills the buffer up to the end of the file.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
