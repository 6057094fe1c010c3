//! What can go wrong, by name, and how often.

use crate::draw::Draw;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use floodtide_core::middleware::{Faults, Injection};
use floodtide_core::{Alignment, Fault, Outcome, ReadOp};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Those that any load must bear. A byte that is another is not among them: only a load that is verified can notice.
            pub fn drawn() -> impl Iterator<Item = Self> {
                Self::ALL.iter().copied().filter(|&kind| kind != Self::Corrupted)
            }

            /// The name that the program uses.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    /// A read brings fewer bytes than it asked for.
    ShortRead = "short-read",
    /// A read brings nothing before the end of the file.
    ZeroRead = "zero-read",
    /// EINTR.
    Interrupted = "interrupted",
    /// EAGAIN.
    Again = "again",
    /// ENOMEM of a read.
    NoMemory = "no-memory",
    /// EIO that passes.
    TransientIo = "transient-io",
    /// EIO that stays, at one place of a file.
    PermanentIo = "permanent-io",
    /// A direct read is refused (EINVAL or EOPNOTSUPP) although its alignment is right.
    DirectRefused = "direct-refused",
    /// A device's direct reads need more alignment than it says, so that they are refused (EINVAL).
    AlignmentLie = "alignment-lie",
    /// Files differ in the alignment that their direct reads need.
    MixedAlignment = "mixed-alignment",
    /// Latencies with a heavy tail.
    HeavyTail = "heavy-tail",
    /// One file's device is slow.
    SlowDevice = "slow-device",
    /// Completions are held back and passed on in any order.
    Reordered = "reordered",
    /// A file is cut off while it is loaded.
    Truncated = "truncated",
    /// A file is replaced by another while it is loaded.
    Replaced = "replaced",
    /// A file is written to while it is loaded.
    Written = "written",
    /// The submission queue is full.
    QueueFull = "queue-full",
    /// A ring cannot be made.
    RingRefused = "ring-refused",
    /// The system gives no memory.
    AllocationRefused = "allocation-refused",
    /// The caller cancels.
    Cancelled = "cancelled",
    /// Others have the pool's memory.
    PoolExhausted = "pool-exhausted",
    /// Others that wait for the pool's memory give up.
    WaiterCancelled = "waiter-cancelled",
    /// A header is damaged.
    DamagedHeader = "damaged-header",
    /// A read brings a byte that is not the file's.
    Corrupted = "corrupted",
}

/// How often each kind happens, in millionths; 0 is never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swarm([u32; FaultKind::ALL.len()]);

impl Swarm {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self([0; FaultKind::ALL.len()])
    }

    /// Which kinds there are, and how strongly: for each seed another mixture, so that no kind is always hidden by others.
    #[must_use]
    pub fn draw(draw: &mut Draw) -> Self {
        let mut swarm = Self::none();
        // Some runs are quiet, some have one kind alone, most a few.
        let share = *draw.of(&[0, 50_000, 150_000, 300_000, 600_000]);
        for kind in FaultKind::drawn() {
            // Reads that end off the alignment are where the ledger is tried.
            let often = kind == FaultKind::ShortRead && share > 0 && draw.coin();
            if often || draw.chance(share) {
                swarm.0[kind as usize] = u32::try_from(draw.magnitude(1_000..=300_000)).unwrap_or(u32::MAX);
            }
        }
        swarm
    }

    /// How often, in millionths.
    #[must_use]
    pub fn chance(&self, kind: FaultKind) -> u32 {
        self.0[kind as usize]
    }

    /// Whether it happens at all.
    #[must_use]
    pub fn has(&self, kind: FaultKind) -> bool {
        self.chance(kind) > 0
    }

    /// Without a kind.
    #[must_use]
    pub fn without(&self, kind: FaultKind) -> Self {
        let mut less = self.clone();
        less.0[kind as usize] = 0;
        less
    }

    /// With a kind, so often.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, millionths: u32) -> Self {
        self.0[kind as usize] = millionths;
        self
    }

    /// The kinds that happen.
    pub fn kinds(&self) -> impl Iterator<Item = FaultKind> + '_ {
        FaultKind::ALL.iter().copied().filter(|&kind| self.has(kind))
    }
}

/// How often each kind has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultCounts(pub [u64; FaultKind::ALL.len()]);

impl Default for FaultCounts {
    fn default() -> Self {
        Self([0; FaultKind::ALL.len()])
    }
}

impl FaultCounts {
    /// One more.
    pub fn count(&mut self, kind: FaultKind) {
        self.0[kind as usize] += 1;
    }

    /// How often.
    #[must_use]
    pub fn of(&self, kind: FaultKind) -> u64 {
        self.0[kind as usize]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}

/// One read of a file gets a certain answer: "the 3rd read of file 2 returns 17 bytes".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scripted {
    /// The file.
    pub file: u32,
    /// Which of its reads, from 1.
    pub nth: u64,
    /// What becomes of it.
    pub injection: Injection,
}

/// What all workers' faults share.
#[derive(Debug)]
pub struct FaultState {
    /// How often each kind happens.
    pub swarm: Swarm,
    /// What was ordered.
    pub script: Vec<Scripted>,
    /// How often each has happened.
    pub counts: FaultCounts,
    /// Reads so far, by file.
    reads: BTreeMap<u32, u64>,
    /// Reads whose offset 32 bits do not hold.
    far_reads: u64,
    /// Where permanent errors are: a file's bytes.
    broken: BTreeMap<u32, (u64, u64)>,
    /// Errors that pass, by file and where the chunk began: no place has more in a row than every loader should bear.
    transient: BTreeMap<(u32, u32), u32>,
}

impl FaultState {
    /// Nothing has happened yet.
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

    /// Makes some bytes of a file unreadable.
    pub fn break_at(&mut self, file: u32, start: u64, end: u64) {
        self.broken.insert(file, (start, end));
    }

    /// How many reads were asked for.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.values().sum()
    }

    /// How many of them had an offset that 32 bits do not hold.
    #[must_use]
    pub fn far_reads(&self) -> u64 {
        self.far_reads
    }

    /// Whether this kind happens now; counts it if so.
    pub fn strikes(&mut self, kind: FaultKind, draw: &mut Draw) -> bool {
        let strikes = draw.chance(self.swarm.chance(kind));
        if strikes {
            self.counts.count(kind);
        }
        strikes
    }
}

/// A worker's faults.
#[derive(Debug)]
pub struct SimFaults {
    state: Rc<RefCell<FaultState>>,
    draw: Draw,
}

impl SimFaults {
    /// With draws of its own.
    #[must_use]
    pub fn new(state: Rc<RefCell<FaultState>>, draw: Draw) -> Self {
        Self { state, draw }
    }

    /// A length that a read could be cut to; edges are where mistakes are.
    fn short(&mut self, op: &ReadOp) -> usize {
        let len = op.len as u64;
        let bytes = match self.draw.number(0..=5) {
            0 => len - 1,
            1 => 1,
            2 => Alignment::PAGE.down(self.draw.number(0..=len)),
            3 => self.draw.number(0..=len / 512) * 512,
            _ => self.draw.number(0..=len),
        };
        // Nothing at all is another kind.
        bytes.clamp(1, len) as usize
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
        // A buffered read of nothing is the end of the file, as every reader takes it; before the end a direct one may come.
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
