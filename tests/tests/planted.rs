//! The simulator finds each defect that is planted in core: `RUSTFLAGS="--cfg floodtide_planted" cargo test -p floodtide-tests --test
//! planted`. One test, as a planted defect is switched on for the whole process.
#![cfg(floodtide_planted)]

use floodtide_core::planted::{Defect, switch};
use floodtide_sim::{Case, run};

/// Within so many seeds.
const SEEDS: u64 = 1000;

/// The first seed that breaks a rule, with the rules; a panic breaks one too.
fn first_failure() -> Option<(u64, Vec<String>)> {
    (0..SEEDS).find_map(|seed| {
        let violations = std::panic::catch_unwind(|| run(&Case::draw(seed), false).violations)
            .unwrap_or_else(|_| vec!["it panicked".to_owned()]);
        (!violations.is_empty()).then_some((seed, violations))
    })
}

#[test]
fn every_planted_defect_is_found() {
    assert!(Defect::ALL.len() >= 10);
    // What panics need not tell so each time.
    std::panic::set_hook(Box::new(|_| {}));
    switch(None);
    let clean = first_failure();
    let mut unfound = Vec::new();
    for &defect in Defect::ALL {
        switch(Some(defect));
        match first_failure() {
            Some((seed, violations)) => println!("{defect:?}: seed {seed}: {}", violations[0]),
            None => unfound.push(defect),
        }
    }
    let _ = std::panic::take_hook();
    assert_eq!(clean, None, "without a defect nothing is found");
    assert!(unfound.is_empty(), "not found within {SEEDS} seeds: {unfound:?}");
}
