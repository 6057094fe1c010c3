//! Seeded bugs, one at a time, for the test that the simulator finds each of them.
//!
//! They exist only with `--cfg floodtide_seeded_bugs`. Otherwise `seeded_bug!` is `false` and its
//! branch is removed.

/// Evaluates to true if this bug is on.
macro_rules! seeded_bug {
    ($defect:ident) => {{
        #[cfg(floodtide_seeded_bugs)]
        {
            crate::seeded_bug::is_on(crate::seeded_bug::SeededBug::$defect)
        }
        #[cfg(not(floodtide_seeded_bugs))]
        {
            false
        }
    }};
}

pub(crate) use seeded_bug;

#[cfg(floodtide_seeded_bugs)]
pub use seeded_bugs::{SeededBug, is_on, switch};

#[cfg(floodtide_seeded_bugs)]
mod seeded_bugs {
    use core::sync::atomic::{AtomicUsize, Ordering};

    macro_rules! seeded_bugs {
        ($($(#[$doc:meta])* $name:ident,)*) => {
            /// A bug that can be seeded into core.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum SeededBug {
                $($(#[$doc])* $name,)*
            }

            impl SeededBug {
                /// All bugs.
                pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            }
        };
    }

    seeded_bugs! {
        /// A completion is passed to the engine twice.
        DoubleCompletion,
        /// A stream's buffer is delivered while its last read is in flight.
        BufferReusedInFlight,
        /// Memory that returns to the pool wakes no borrower.
        LostWakeUp,
        /// A chunk counts as complete one byte early.
        OffByOneAtChunkEnd,
        /// A short read counts as complete.
        ShortReadIgnored,
        /// A direct read resumes at the aligned byte after, not before.
        WrongRealign,
        /// The bytes of a complete chunk still count as in flight.
        BudgetLeaked,
        /// The last read is never issued.
        LastChunkSkipped,
        /// The end of the file counts as the end of the chunk.
        EndOfFileIsSuccess,
        /// The pool serves the last borrower first.
        WaiterStarved,
        /// A buffered fallback read starts one byte late.
        WrongFallback,
        /// Failed reads are retried without end.
        RetriedForever,
        /// The pool lends more than its limit.
        LimitIgnored,
        /// A stream delivers buffers in the order of completion, whatever order was requested.
        OrderIgnored,
        /// A changed file is not detected.
        ChangeUnnoticed,
        /// The offset of a read is truncated to 32 bits.
        OffsetCutTo32Bits,
        /// The blocks of a slice, but for the first of a read, are taken one byte early.
        GatherShifted,
        /// A tensor that differs from the manifest counts as verified.
        MismatchIgnored,
    }

    static ON: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Switches one bug on, and all others off.
    pub fn switch(defect: Option<SeededBug>) {
        ON.store(defect.map_or(usize::MAX, |defect| defect as usize), Ordering::SeqCst);
    }

    /// Returns true if the bug is on.
    #[must_use]
    pub fn is_on(defect: SeededBug) -> bool {
        ON.load(Ordering::Relaxed) == defect as usize
    }
}
