//! What a check has to say of a run.

use std::ops::Range;

use tenure::trace::check::{Options, Report, Verdict};

use super::cluster::Recorded;
use super::edit::Mutant;

/// The check of one protocol's traces.
pub type Judge = fn(&Recorded, Options) -> Report;

#[track_caller]
pub fn assert_accepted(report: &Report) {
    assert_eq!(report.verdict, Verdict::Accepted, "{:?}", report.problem);
    assert_eq!(report.taken + report.undone, report.logged);
}

#[track_caller]
pub fn assert_rejected(judge: Judge, mutant: &Mutant) {
    let report = judge(&mutant.run, mutant.options);
    assert_eq!(report.verdict, Verdict::Rejected, "{}: {:?}", mutant.what, report.problem);
    if let Some(why) = mutant.why {
        let problem = report.problem.expect("a rejection says why");
        assert!(problem.what.contains(why), "{}: {problem:?}", mutant.what);
    }
}

/// The run is accepted in the order of its times, and in others.
pub fn assert_accepted_in_every_order(judge: Judge, run: &Recorded) {
    for order in (1..=5).map(Some).chain([None]) {
        assert_accepted(&judge(run, Options { order, ..Options::default() }));
    }
}

/// Cut at any line, a trace is that of a run which went on unseen.
pub fn assert_accepted_up_to_any_moment(judge: Judge, run: &Recorded) {
    let (begun, ended) = run.latest();
    for part in 1..8 {
        let report = judge(&run.until(begun + (ended - begun) / 8 * part), Options::default());
        assert_accepted(&report);
        assert!(report.taken > 0);
    }
}

/// Draws mutants from these seeds, and gives how many of them there are: some draws hit what is free.
pub fn assert_random_mutants_are_rejected(
    judge: Judge,
    seeds: Range<u64>,
    draw: impl Fn(u64) -> Option<Mutant>,
) -> usize {
    seeds.filter_map(draw).inspect(|mutant| assert_rejected(judge, mutant)).count()
}
