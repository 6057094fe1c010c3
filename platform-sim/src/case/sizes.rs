//! Cases about size: tensors that no memory holds, left out or refused, and tensors of many reads.
//!
//! They are drawn apart from everything else, so that a seed that is not about size means the same with and without them.

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

/// Tensors from here on are huge: they lie, or bring others to lie, beyond what 32 bits count.
pub const HUGE: u64 = 1 << 32;
/// The longest.
const LONGEST: u64 = 1 << 40;

/// What size has to do with a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// Nothing.
    Nothing,
    /// Huge tensors are not selected, but others lie behind them.
    LeftOut,
    /// A tensor takes many reads.
    Long,
    /// A huge tensor comes in parts, and the consumer has soon enough.
    SoonEnough,
    /// A huge tensor is selected whole, and does not fit.
    Refused,
    /// The same, while nobody knows how much memory there is.
    RefusedUntold,
    /// A stream must have a huge tensor whole, and its buffers are too small.
    RefusedWhole,
    /// A stream has so many parts that their plan does not fit.
    RefusedInParts,
    /// A stream may have more memory than there is.
    RefusedLimit,
}

/// The draws about size.
#[derive(Debug)]
pub(crate) struct Sizes {
    draw: Draw,
    about: About,
}

impl Sizes {
    /// What size has to do with the case of a seed.
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

    /// The tensors that its checkpoint has beside others.
    pub(crate) fn extra(&mut self) -> Vec<Extra> {
        match self.about {
            About::Nothing => Vec::new(),
            About::LeftOut => {
                let mut extra: Vec<Extra> = (0..self.draw.number(1..=3)).map(|i| self.huge(i, HUGE, LONGEST)).collect();
                // At the end of the first one's file, so that something lies behind it.
                let behind = self.tensor("behind.weight".into(), 1, 200_000);
                extra.push(Extra { file: extra[0].file, index: usize::MAX, tensor: behind });
                extra
            }
            About::Long => {
                let tensor = self.tensor("long.weight".into(), 1 << 20, 8 << 20);
                vec![Extra { file: self.draw.number(0..=99), index: self.draw.index(8), tensor }]
            }
            // What lies before it is not asked for, so that it begins beyond 32 bits.
            About::SoonEnough => {
                let (before, mut selected) = (self.huge(1, HUGE, LONGEST), self.huge(0, HUGE, 2 * HUGE));
                selected.file = before.file;
                selected.index = usize::MAX;
                vec![before, selected]
            }
            // Planned before the memory is missed, so not too long.
            About::RefusedUntold => vec![self.huge(0, HUGE, 2 * HUGE)],
            // Shorter ones could still be planned.
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

    /// Makes a case one about size.
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
                    // Slices lie beyond 32 bits too.
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

/// A selection with that tensor in it.
fn with(draw: &mut Draw, checkpoint: &Checkpoint, name: &str) -> KnownSelection {
    if draw.coin() {
        return KnownSelection::All;
    }
    let kept = checkpoint.tensors.iter().filter(|tensor| tensor.name == name || draw.coin());
    KnownSelection::Names(kept.map(|tensor| tensor.name.clone()).collect())
}
