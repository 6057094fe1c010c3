//! Shrinks a failing seed to the fewest kinds of faults and the fewest tensors with which it still
//! fails.

use floodtide_sim::faults::Swarm;
use floodtide_sim::{Case, Report};

/// The case of a seed, or a part of it. A run changes the files, so each run needs a new case.
pub(crate) struct Small {
    seed: u64,
    verify: bool,
    pub(crate) swarm: Swarm,
    /// The indices of the remaining tensors, or `None` if none was removed.
    pub(crate) tensors: Option<Vec<usize>>,
}

/// Draws the case of a seed, verified or not.
pub(crate) fn drawn(seed: u64, verify: bool) -> Case {
    if verify { Case::draw_verified(seed) } else { Case::draw(seed) }
}

impl Small {
    fn case(&self) -> Case {
        let case = drawn(self.seed, self.verify).with_swarm(self.swarm.clone());
        match &self.tensors {
            Some(tensors) => case.only(tensors),
            None => case,
        }
    }

    /// Runs it, and returns the run if it violates a rule.
    fn failing(self) -> Option<(Self, Report)> {
        let report = floodtide_sim::run(&self.case(), true);
        (!report.violations.is_empty()).then_some((self, report))
    }

    /// Returns cases with one kind of fault less, and with fewer tensors: first by halves, then one
    /// by one.
    fn less(&self) -> impl Iterator<Item = Self> {
        let Self { seed, verify, swarm, tensors } = self;
        let less = |swarm, tensors| Self { seed: *seed, verify: *verify, swarm, tensors };
        let kinds = swarm.kinds().map(move |kind| less(swarm.without(kind), tensors.clone()));
        let all = || (0..Case::draw(*seed).checkpoint.tensors.len()).collect();
        let left: Vec<usize> = tensors.clone().unwrap_or_else(all);
        let pieces = [left.len().div_ceil(2), left.len().div_ceil(4), 1].into_iter().filter(|&piece| piece > 0);
        let cuts = pieces.flat_map(move |piece| {
            let starts = (0..left.len()).step_by(piece);
            let without = |start: usize| [&left[..start], &left[(start + piece).min(left.len())..]].concat();
            starts.map(without).collect::<Vec<_>>()
        });
        kinds.chain(cuts.map(move |tensors| less(swarm.clone(), Some(tensors))))
    }
}

/// Removes each kind of fault and each tensor that the failure does not need. Returns the rest and
/// its run.
pub(crate) fn shrink(seed: u64, verify: bool) -> (Small, Report) {
    let whole = Small { seed, verify, swarm: drawn(seed, verify).swarm, tensors: None };
    let report = floodtide_sim::run(&whole.case(), true);
    let mut smallest = (whole, report);
    loop {
        let less = smallest.0.less().find_map(Small::failing);
        let Some(less) = less else { return smallest };
        smallest = less;
    }
}
