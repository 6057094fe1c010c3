//! The kinds of faults, and how often they occur.

use crate::draw::Draw;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use floodtide_core::middleware::{Faults, Injection};
use floodtide_core::{Alignment, Fault, Outcome, ReadOp, to_usize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Returns the kinds that every load must handle. Corruption is not one of them: only a
            /// verified load can detect it.
            pub fn drawn() -> impl Iterator<Item = Self> {
                Self::ALL.iter().copied().filter(|&kind| kind != Self::Corrupted)
            }

            /// Returns the name in the program's options.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    /// A read returns fewer bytes than requested.
    ShortRead = "short-read",
    /// A read returns nothing before the end of the file.
    ZeroRead = "zero-read",
    /// `EINTR`.
    Interrupted = "interrupted",
    /// `EAGAIN`.
    Again = "again",
    /// `ENOMEM` from a read.
    NoMemory = "no-memory",
    /// A transient `EIO`.
    TransientIo = "transient-io",
    /// A permanent `EIO` at one place of a file.
    PermanentIo = "permanent-io",
    /// An aligned direct read is refused (`EINVAL` or `EOPNOTSUPP`).
    DirectRefused = "direct-refused",
    /// A device needs more alignment than it reports, and refuses direct reads (`EINVAL`).
    AlignmentLie = "alignment-lie",
    /// Files need different alignments for direct reads.
    MixedAlignment = "mixed-alignment",
    /// Latencies with a heavy tail.
    HeavyTail = "heavy-tail",
    /// The device of one file is slow.
    SlowDevice = "slow-device",
    /// Completions are held back and reordered.
    Reordered = "reordered",
    /// A file is truncated during the load.
    Truncated = "truncated",
    /// A file is replaced during the load.
    Replaced = "replaced",
    /// A file is written to during the load.
    Written = "written",
    /// The submission queue is full.
    QueueFull = "queue-full",
    /// A ring cannot be created.
    RingRefused = "ring-refused",
    /// The system refuses memory.
    AllocationRefused = "allocation-refused",
    /// The caller cancels.
    Cancelled = "cancelled",
    /// Others hold the pool's memory.
    PoolExhausted = "pool-exhausted",
    /// Others that wait for the pool's memory give up.
    WaiterCancelled = "waiter-cancelled",
    /// A header is damaged.
    DamagedHeader = "damaged-header",
    /// A read returns a wrong byte.
    Corrupted = "corrupted",
}

/// The probability of each kind in millionths, 0 for never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swarm([u32; FaultKind::ALL.len()]);

impl Swarm {
    /// Returns a swarm without faults.
    #[must_use]
    pub fn none() -> Self {
        Self([0; FaultKind::ALL.len()])
    }

    /// Draws which kinds occur and how often. Each seed has another mixture, so that no kind always
    /// hides others.
    #[must_use]
    pub fn draw(draw: &mut Draw) -> Self {
        let mut swarm = Self::none();
        // Some runs have no faults, some one kind, most a few.
        let share = *draw.of(&[0, 50_000, 150_000, 300_000, 600_000]);
        for kind in FaultKind::drawn() {
            // Reads that end unaligned test the ledger.
            let often = kind == FaultKind::ShortRead && share > 0 && draw.coin();
            if often || draw.chance(share) {
                swarm.0[kind as usize] = u32::try_from(draw.magnitude(1_000..=300_000)).unwrap_or(u32::MAX);
            }
        }
        swarm
    }

    /// Returns the probability in millionths.
    #[must_use]
    pub fn chance(&self, kind: FaultKind) -> u32 {
        self.0[kind as usize]
    }

    /// Returns true if the kind can occur.
    #[must_use]
    pub fn has(&self, kind: FaultKind) -> bool {
        self.chance(kind) > 0
    }

    /// Removes a kind.
    #[must_use]
    pub fn without(&self, kind: FaultKind) -> Self {
        let mut less = self.clone();
        less.0[kind as usize] = 0;
        less
    }

    /// Sets the probability of a kind.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, millionths: u32) -> Self {
        self.0[kind as usize] = millionths;
        self
    }

    /// Returns the kinds that can occur.
    pub fn kinds(&self) -> impl Iterator<Item = FaultKind> + '_ {
        FaultKind::ALL.iter().copied().filter(|&kind| self.has(kind))
    }
}

/// How often each kind has occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultCounts(pub [u64; FaultKind::ALL.len()]);

impl Default for FaultCounts {
    fn default() -> Self {
        Self([0; FaultKind::ALL.len()])
    }
}

impl FaultCounts {
    /// Counts an occurrence.
    pub fn count(&mut self, kind: FaultKind) {
        self.0[kind as usize] += 1;
    }

    /// Returns the count of a kind.
    #[must_use]
    pub fn of(&self, kind: FaultKind) -> u64 {
        self.0[kind as usize]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}

/// Injects a fault into one read of a file: "the 3rd read of file 2 returns 17 bytes".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scripted {
    /// The file.
    pub file: u32,
    /// The number of the read in the file, from 1.
    pub nth: u64,
    /// The fault.
    pub injection: Injection,
}

/// The fault state that all workers share.
#[derive(Debug)]
pub struct FaultState {
    /// The random faults.
    pub swarm: Swarm,
    /// The scripted faults.
    pub script: Vec<Scripted>,
    /// How often each kind has occurred.
    pub counts: FaultCounts,
    /// The number of reads, by file.
    reads: BTreeMap<u32, u64>,
    /// The number of reads with an offset beyond 32 bits.
    far_reads: u64,
    /// The unreadable bytes, by file.
    broken: BTreeMap<u32, (u64, u64)>,
    /// Transient errors in a row, by file and chunk start. They are limited to what every loader
    /// should handle.
    transient: BTreeMap<(u32, u32), u32>,
}

impl FaultState {
    /// Creates the initial state.
    #[must_use]
    pub fn new(swarm: Swarm, script: Vec<Scripted>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            swarm,
            script,
            counts: FaultCounts::default(),
            reads: BTreeMap::new(),
            far_reads: 0,
            broken: BTreeMap::new(),
            transient: BTreeMap::new(),
        }))
    }

    /// Makes bytes of a file unreadable.
    pub fn break_at(&mut self, file: u32, start: u64, end: u64) {
        self.broken.insert(file, (start, end));
    }

    /// Returns the number of reads.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.values().sum()
    }

    /// Returns the number of reads with an offset beyond 32 bits.
    #[must_use]
    pub fn far_reads(&self) -> u64 {
        self.far_reads
    }

    /// Draws whether this kind occurs now, and counts it.
    pub fn strikes(&mut self, kind: FaultKind, draw: &mut Draw) -> bool {
        let strikes = draw.chance(self.swarm.chance(kind));
        if strikes {
            self.counts.count(kind);
        }
        strikes
    }
}

/// The faults of a worker.
#[derive(Debug)]
pub struct SimFaults {
    state: Rc<RefCell<FaultState>>,
    draw: Draw,
}

impl SimFaults {
    /// Creates faults with their own draws.
    #[must_use]
    pub fn new(state: Rc<RefCell<FaultState>>, draw: Draw) -> Self {
        Self { state, draw }
    }

    /// Draws the length of a short read, often at an edge, where mistakes are likely.
    fn short(&mut self, op: &ReadOp) -> usize {
        let len = op.len as u64;
        let bytes = match self.draw.number(0..=5) {
            0 => len - 1,
            1 => 1,
            2 => Alignment::PAGE.down(self.draw.number(0..=len)),
            3 => self.draw.number(0..=len / 512) * 512,
            _ => self.draw.number(0..=len),
        };
        // Zero is a separate kind.
        to_usize(bytes.clamp(1, len))
    }
}

impl Faults for SimFaults {
    fn inject(&mut self, op: &ReadOp) -> Injection {
        let state = Rc::clone(&self.state);
        let mut state = state.borrow_mut();
        let nth = state.reads.entry(op.file.0).or_insert(0);
        *nth += 1;
        let nth = *nth;
        state.far_reads += u64::from(op.offset > u64::from(u32::MAX));
        if let Some(&Scripted { injection, .. }) = state.script.iter().find(|s| s.file == op.file.0 && s.nth == nth) {
            if matches!(injection, Injection::Corrupt(_)) {
                state.counts.count(FaultKind::Corrupted);
            }
            return injection;
        }
        let end = op.offset + op.len as u64;
        if state.broken.get(&op.file.0).is_some_and(|&(from, to)| op.offset < to && from < end) {
            state.counts.count(FaultKind::PermanentIo);
            return Injection::Answer(Outcome::Failed(Fault::Io));
        }
        if state.strikes(FaultKind::QueueFull, &mut self.draw) {
            return Injection::Reject(Fault::Again);
        }
        let failed = |fault| Injection::Answer(Outcome::Failed(fault));
        if state.strikes(FaultKind::Interrupted, &mut self.draw) {
            return failed(Fault::Interrupted);
        }
        if state.strikes(FaultKind::Again, &mut self.draw) {
            return failed(Fault::Again);
        }
        if state.strikes(FaultKind::NoMemory, &mut self.draw) {
            return failed(Fault::NoMemory);
        }
        let place = (op.file.0, op.chunk.0);
        if state.transient.get(&place).copied().unwrap_or(0) < 2
            && state.strikes(FaultKind::TransientIo, &mut self.draw)
        {
            *state.transient.entry(place).or_insert(0) += 1;
            return failed(Fault::Io);
        }
        if op.direct && state.strikes(FaultKind::DirectRefused, &mut self.draw) {
            return failed(if self.draw.coin() { Fault::Invalid } else { Fault::NotSupported });
        }
        // A buffered read of nothing means the end of the file. Before the end only a direct read
        // may return nothing.
        if op.direct && state.strikes(FaultKind::ZeroRead, &mut self.draw) {
            return Injection::Answer(Outcome::Read(0));
        }
        if op.len > 1 && state.strikes(FaultKind::ShortRead, &mut self.draw) {
            return Injection::Short(self.short(op));
        }
        if op.len > 0 && state.strikes(FaultKind::Corrupted, &mut self.draw) {
            return Injection::Corrupt(self.draw.index(op.len));
        }
        Injection::None
    }

    fn pick(&mut self, completions: usize) -> usize {
        if self.state.borrow().swarm.has(FaultKind::Reordered) { self.draw.index(completions) } else { 0 }
    }

    fn holds_back(&mut self) -> bool {
        self.state.borrow_mut().strikes(FaultKind::Reordered, &mut self.draw)
    }
}
