//! What a failing seed comes down to: the fewest kinds of faults with which it still fails.

use floodtide_sim::faults::Swarm;
use floodtide_sim::{Case, Report};

/// Takes away each kind of fault that the failure does not need; returns what is left, and that run.
pub(crate) fn shrink(seed: u64) -> (Swarm, Report) {
    let fails = |swarm: &Swarm| {
        let report = floodtide_sim::run(&Case::draw(seed).with_swarm(swarm.clone()), true);
        (!report.violations.is_empty()).then_some(report)
    };
    let mut swarm = Case::draw(seed).swarm;
    let mut smallest = floodtide_sim::run(&Case::draw(seed), true);
    loop {
        let kinds: Vec<_> = swarm.kinds().collect();
        let less =
            kinds.into_iter().map(|kind| swarm.without(kind)).find_map(|less| fails(&less).map(|run| (less, run)));
        let Some((less, run)) = less else { return (swarm, smallest) };
        (swarm, smallest) = (less, run);
    }
}
