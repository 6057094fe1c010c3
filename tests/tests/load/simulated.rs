//! Any checkpoint, selection and limits in the simulated world break no rule.

use floodtide_core::Error;
use floodtide_sim::run;
use floodtide_tests::cases::cases;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn no_data_breaks_a_rule(data in cases()) {
        prop_assert_eq!(data.broken(2), None);
    }
}

/// Checks the generator: cases that are always refused, or never large, would prove little.
#[test]
fn cases_are_of_every_kind() {
    let mut runner = TestRunner::deterministic();
    let (mut well, mut refused, mut far, mut many, mut parts, mut own, mut gathered) = (0, 0, 0, 0, 0, 0, 0);
    let (mut verified, mut wrong) = (0, 0);
    for _ in 0..500 {
        let data = cases().new_tree(&mut runner).expect("any case will do").current();
        let case = data.case();
        let report = run(&case, false);
        verified += u64::from(case.verify && report.result.is_ok() && report.bytes > 0);
        wrong += u64::from(matches!(report.result, Err(Error::Mismatch { .. })));
        well += u64::from(report.result.is_ok() && report.bytes > 0);
        refused += u64::from(matches!(
            report.result,
            Err(Error::NotEnoughMemory { .. } | Error::BufferTooSmall { .. } | Error::TooManyBuffers { .. })
        ));
        far += u64::from(report.sizes.far_reads > 0);
        many += u64::from(report.sizes.many_reads > 0);
        parts += u64::from(report.sizes.parts > 0);
        own += u64::from(report.sizes.own_buffers > 0);
        gathered += u64::from(report.gathered > 0);
    }
    println!(
        "{well} well, {refused} refused, {far} far, {many} of many reads, {parts} in parts, {own} in own buffers, {gathered} gathered, \
         {verified} verified, {wrong} wrong"
    );
    assert!(well > 150 && refused > 20 && far > 20 && many > 10 && parts > 10 && own > 10 && gathered > 20);
    assert!(verified > 20 && wrong > 5);
}
