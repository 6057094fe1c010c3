//! Deliberate defects, one at a time, for the test that the simulator finds each of them.
//!
//! They exist only in builds with `--cfg floodtide_planted`; in any other, `planted!` is `false` and its branch is gone.

/// Whether this defect is switched on.
macro_rules! planted {
    ($defect:ident) => {{
        #[cfg(floodtide_planted)]
        {
            crate::planted::is_on(crate::planted::Defect::$defect)
        }
        #[cfg(not(floodtide_planted))]
        {
            false
        }
    }};
}

pub(crate) use planted;

#[cfg(floodtide_planted)]
pub use defects::{Defect, is_on, switch};

#[cfg(floodtide_planted)]
mod defects {
    use core::sync::atomic::{AtomicUsize, Ordering};

    macro_rules! defects {
        ($($(#[$doc:meta])* $name:ident,)*) => {
            /// Something that core could do wrong.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Defect {
                $($(#[$doc])* $name,)*
            }

            impl Defect {
                /// All of them.
                pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            }
        };
    }

    defects! {
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
        /// The pieces of a slice, but for the first of a read, are taken one byte early.
        GatherShifted,
        /// A tensor that is not what the manifest says is taken for verified.
        MismatchIgnored,
    }

    static ON: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Switches one defect on, and every other off.
    pub fn switch(defect: Option<Defect>) {
        ON.store(defect.map_or(usize::MAX, |defect| defect as usize), Ordering::SeqCst);
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(defect: Defect) -> bool {
        ON.load(Ordering::Relaxed) == defect as usize
    }
}
