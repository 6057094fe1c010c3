//! Cases with large tensors: those that exceed any memory and are left out or refused, and those of
//! many reads.
//!
//! They have separate draws, so that other seeds keep their meaning.

use super::{Case, Consumer, Job, stream};
use crate::checkpoint::{Checkpoint, Extra, KnownTensor, shape_of};
use crate::draw::Draw;
use crate::selection::{KnownSelection, slices};
use crate::shard::{NewTensor, elements};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use floodtide_core::{Buffers, DType, Order};

/// The size from which tensors are huge: they, or tensors after them, are beyond 32-bit offsets.
pub const HUGE: u64 = 1 << 32;
/// The maximum size of a tensor.
const LONGEST: u64 = 1 << 40;

/// The role of size in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// None.
    Nothing,
    /// Huge tensors are not selected, but others follow them.
    LeftOut,
    /// A tensor takes many reads.
    Long,
    /// A huge tensor arrives in parts, and the consumer stops early.
    SoonEnough,
    /// A huge tensor is selected whole and does not fit.
    Refused,
    /// As `Refused`, but the amount of memory is unknown.
    RefusedUntold,
    /// A stream must deliver a huge tensor whole, and its buffers are too small.
    RefusedWhole,
    /// A stream has more parts than its plan may have.
    RefusedInParts,
    /// The memory limit of a stream exceeds the memory.
    RefusedLimit,
}

/// The draws about size.
#[derive(Debug)]
pub(crate) struct Sizes {
    draw: Draw,
    about: About,
}

impl Sizes {
    /// Draws the role of size for a seed.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut draw = Draw::new(seed ^ 0x2545_f491_4f6c_dd1d);
        let about = match draw.number(0..=999) {
            0..40 => About::LeftOut,
            40..60 => About::Long,
            60..65 => About::SoonEnough,
            65..70 => About::Refused,
            70..73 => About::RefusedUntold,
            73..77 => About::RefusedWhole,
            77..81 => About::RefusedInParts,
            81..85 => About::RefusedLimit,
            _ => About::Nothing,
        };
        Self { draw, about }
    }

    /// Returns the additional tensors of the checkpoint.
    pub(crate) fn extra(&mut self) -> Vec<Extra> {
        match self.about {
            About::Nothing => Vec::new(),
            About::LeftOut => {
                let mut extra: Vec<Extra> = (0..self.draw.number(1..=3)).map(|i| self.huge(i, HUGE, LONGEST)).collect();
                // At the end of the first tensor's file, so that something follows it.
                let behind = self.tensor("behind.weight".into(), 1, 200_000);
                extra.push(Extra { file: extra[0].file, index: usize::MAX, tensor: behind });
                extra
            }
            About::Long => {
                let tensor = self.tensor("long.weight".into(), 1 << 20, 8 << 20);
                vec![Extra { file: self.draw.number(0..=99), index: self.draw.index(8), tensor }]
            }
            // The tensors before it are not selected, so it starts beyond 32 bits.
            About::SoonEnough => {
                let (before, mut selected) = (self.huge(1, HUGE, LONGEST), self.huge(0, HUGE, 2 * HUGE));
                selected.file = before.file;
                selected.index = usize::MAX;
                vec![before, selected]
            }
            // It is planned before the lack of memory is found, so it must not be too long.
            About::RefusedUntold => vec![self.huge(0, HUGE, 2 * HUGE)],
            // A shorter one could still be planned.
            About::RefusedInParts => vec![self.huge(0, LONGEST / 8, LONGEST)],
            About::Refused | About::RefusedWhole | About::RefusedLimit => vec![self.huge(0, HUGE, LONGEST)],
        }
    }

    fn huge(&mut self, number: u64, min: u64, max: u64) -> Extra {
        let tensor = self.tensor(format!("huge.{number}"), min, max);
        Extra { file: self.draw.number(0..=99), index: self.draw.index(8), tensor }
    }

    fn tensor(&mut self, name: String, min: u64, max: u64) -> NewTensor {
        let dtype = *self.draw.of(DType::ALL);
        let bytes = self.draw.magnitude(min..=max).next_multiple_of(dtype.whole_bytes());
        let shape = shape_of(&mut self.draw, elements(dtype, bytes));
        NewTensor { name, dtype, bytes, shape, tied: false }
    }

    /// Applies the role of size to a case.
    pub(crate) fn apply(&mut self, case: &mut Case) {
        let draw = &mut self.draw;
        if self.about == About::Nothing {
            return;
        }
        let streamed = |draw: &mut Draw, case: &Case, edit: &dyn Fn(&mut Buffers)| {
            let (mut buffers, consumer) = stream(draw, &case.checkpoint);
            edit(&mut buffers);
            Job::Stream { buffers, consumer }
        };
        match self.about {
            About::LeftOut => {
                case.selection = if draw.coin() {
                    KnownSelection::Ending("weight")
                } else {
                    let others = case.checkpoint.tensors.iter().filter(|tensor| tensor.bytes < HUGE);
                    let kept = others.filter(|tensor| tensor.name == "behind.weight" || draw.coin());
                    let mut kept: Vec<&KnownTensor> = kept.collect();
                    let middle = draw.index(kept.len());
                    kept.rotate_left(middle);
                    // Slices can be beyond 32 bits too.
                    if draw.coin() {
                        slices(draw, kept)
                    } else {
                        KnownSelection::Names(kept.into_iter().map(|tensor| tensor.name.clone()).collect())
                    }
                };
            }
            About::Long if draw.coin() => case.selection = slices(draw, &case.checkpoint.tensors),
            About::Long => case.selection = with(draw, &case.checkpoint, "long.weight"),
            About::SoonEnough => {
                case.selection = KnownSelection::Names(vec!["huge.0".into()]);
                case.chunk_bytes = 1 << 20;
                let buffers = Buffers { buffer_bytes: 1 << 20, limit: 2 << 20, split: true, order: Order::Selection };
                let stops = Some(draw.number(1..=3));
                let consumer = Consumer::Holds { buffers: draw.index(2), time: 1_000_000, stops };
                case.job = Job::Stream { buffers, consumer };
            }
            About::Refused => case.job = Job::Load,
            About::RefusedUntold => {
                (case.job, case.memory) = (Job::Load, None);
                case.chunk_bytes = 1 << 20;
            }
            About::RefusedWhole => case.job = streamed(draw, case, &|buffers| buffers.split = false),
            About::RefusedInParts => case.job = streamed(draw, case, &|buffers| buffers.split = true),
            About::RefusedLimit => {
                case.job = streamed(draw, case, &|buffers| {
                    buffers.limit = 2 * LONGEST;
                    buffers.buffer_bytes = buffers.limit / 8;
                });
            }
            About::Nothing => {}
        }
        if !matches!(self.about, About::LeftOut | About::Long | About::SoonEnough) {
            case.selection = with(draw, &case.checkpoint, "huge.0");
        }
    }
}

/// Returns a selection that includes this tensor.
fn with(draw: &mut Draw, checkpoint: &Checkpoint, name: &str) -> KnownSelection {
    if draw.coin() {
        return KnownSelection::All;
    }
    let kept = checkpoint.tensors.iter().filter(|tensor| tensor.name == name || draw.coin());
    KnownSelection::Names(kept.map(|tensor| tensor.name.clone()).collect())
}
