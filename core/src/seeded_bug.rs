//! Seeded bugs, one at a time, for the test that the simulator finds each of them.
//!
//! They exist only in builds with `--cfg floodtide_seeded_bugs`; in any other, `seeded_bug!` is `false` and its branch is gone.

/// Whether this bug is switched on.
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
            /// Something that core could do wrong.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum SeededBug {
                $($(#[$doc])* $name,)*
            }

            impl SeededBug {
                /// All of them.
                pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            }
        };
    }

    seeded_bugs! {
        /// A completion is reported to the engine twice.
        DoubleCompletion,
        /// A stream's buffer is handed on while its last read is still in flight.
        BufferReusedInFlight,
        /// Memory that comes back to the pool wakes nobody.
        LostWakeUp,
        /// A chunk counts as whole one byte early.
        OffByOneAtChunkEnd,
        /// A short read counts as a whole one.
        ShortReadIgnored,
        /// A direct read goes on from the aligned byte after, not before.
        WrongRealign,
        /// Bytes in flight are not counted off when a chunk has landed.
        BudgetLeaked,
        /// The last read is never issued.
        LastChunkSkipped,
        /// The end of the file counts as the end of the chunk.
        EndOfFileIsSuccess,
        /// The pool serves whoever came last.
        WaiterStarved,
        /// A buffered read that takes over begins one byte late.
        WrongFallback,
        /// Failed reads are tried again without end.
        RetriedForever,
        /// The pool lends more than its limit.
        LimitIgnored,
        /// A stream delivers as buffers land, whatever order was asked for.
        OrderIgnored,
        /// A file that changed is not noticed.
        ChangeUnnoticed,
        /// A read's offset is counted in 32 bits.
        OffsetCutTo32Bits,
        /// The blocks of a slice, but for the first of a read, are taken one byte early.
        GatherShifted,
        /// A tensor that is not what the manifest says is taken for verified.
        MismatchIgnored,
    }

    static ON: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Switches one bug on, and every other off.
    pub fn switch(defect: Option<SeededBug>) {
        ON.store(defect.map_or(usize::MAX, |defect| defect as usize), Ordering::SeqCst);
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(defect: SeededBug) -> bool {
        ON.load(Ordering::Relaxed) == defect as usize
    }
}
