//! How the clocks of nodes have run, as far as anything shows it.
//!
//! A model has no rate for each clock: a timer may run out as early or as late as the bound on the clocks' error lets it.
//! So what is known of a clock is known when a timer has run out: by then, more or less time has passed on it than on a
//! true one. In a run, the readings of the nodes' clocks show it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::story::Story;
use crate::models::space::{Lane, Pace, Rate, TimerSet};
use crate::trace::clocks::Rate as Measured;

/// How many steps a timer is followed back to where it was set.
const BACK_MAX: usize = 500;

/// How the clock of this node has run since it set the timer that now runs out, behind the last step of the story.
/// `timers`: those that were set or cancelled before the story begins, and in each of its steps.
//= SPEC EXPLORER-20
pub(super) fn pace(
    tick: Duration,
    timers: &[Vec<TimerSet>],
    story: &Story,
    node: u16,
    timer: &str,
) -> Option<Pace> {
    let last = story.steps.len();
    let mut has_paused = false;
    for row in (last.saturating_sub(BACK_MAX)..=last).rev() {
        let moment = story.moment(row)?;
        has_paused |= moment.lanes.get(usize::from(node))?.condition != "running";
        if let Some(step) = row.checked_sub(1).map(|at| &story.steps[at]) {
            let is_crash = step.told.kind == "crash" && step.told.actor == Some(node);
            if step.told.kind == "intervene" || (is_crash && step.index.is_some()) {
                return None;
            }
        }
        let mut sets = timers.get(row)?.iter().rev();
        if let Some(set) = sets.find(|set| set.node == node && set.timer == timer) {
            let time = |row: usize| story.moment(row)?.at.parse::<u64>().ok();
            let took = time(last)?.checked_sub(time(row)?)?;
            let range = set.range.as_ref()?;
            return judge(tick, range, took, has_paused, timer).map(|(rate, about)| Pace {
                from: row,
                rate,
                about,
            });
        }
    }
    None
}

/// What a timer that was set for this long and has run out after so many ticks says of its clock.
fn judge(
    tick: Duration,
    range: &Range<Duration>,
    took: u64,
    has_paused: bool,
    timer: &str,
) -> Option<(Rate, String)> {
    let tick = tick.as_nanos();
    let [least, most] = [range.start.as_nanos() / tick, range.end.as_nanos().div_ceil(tick)];
    let rate = match u128::from(took) {
        took if took < least => Rate::Fast,
        // A node that is paused lets its timers wait, whatever its clock says.
        took if took > most && has_paused => return None,
        took if took > most => Rate::Slow,
        _ => Rate::True,
    };
    let set = if least == most { least.to_string() } else { format!("{least} to {most}") };
    let ticks = if least == most && least == 1 { "tick" } else { "ticks" };
    Some((rate, format!("timer {timer}, set for {set} {ticks}, ran out after {took}")))
}

/// The readings of a node's clock in a run beside the time of a simulator, in nanoseconds.
#[derive(Default)]
pub(super) struct Readings {
    last: BTreeMap<u16, (u64, u64)>,
    ppm: BTreeMap<u16, Vec<i64>>,
}

/// Between two readings so far apart, a nanosecond is less than a tenth of a millionth.
const APART: u64 = 10_000_000;
/// How many pairs of readings are looked at.
const READINGS_MAX: usize = 1_001;

impl Readings {
    /// A reading of a clock at a true time.
    pub(super) fn note(&mut self, node: u16, time: u64, reading: u64) {
        let (begun, from) = *self.last.entry(node).or_insert((time, reading));
        let all = self.ppm.entry(node).or_default();
        let Some(passed) = time.checked_sub(begun).filter(|passed| *passed >= APART) else {
            return;
        };
        self.last.insert(node, (time, reading));
        if all.len() < READINGS_MAX {
            let gained = i128::from(reading) - i128::from(from) - i128::from(passed);
            let ppm = (gained as f64 * 1e6 / passed as f64).round();
            all.push(ppm as i64);
        }
    }

    /// The life of a node has ended: its next one may read another clock.
    pub(super) fn forget(&mut self, node: u16) {
        self.last.remove(&node);
    }

    /// Says in each lane how its clock has run: against the simulator's time, or against the clock of the first node of
    /// which that was measured. The median of what was read, because a clock that has stood still for a while is not slow.
    pub(super) fn tell(&self, lanes: &mut [Lane], measured: &[Measured]) {
        for (node, all) in &self.ppm {
            let mut all = all.clone();
            all.sort_unstable();
            let Some(&ppm) = all.get(all.len() / 2) else { continue };
            let about = match ppm {
                0 => "it keeps the simulator's time".to_owned(),
                ppm => format!("{} ppm {} than the simulator's time", ppm.abs(), word(ppm < 0)),
            };
            set(lanes, *node, ppm.signum(), about);
        }
        let Some(of) = measured.iter().map(|rate| rate.of).min() else { return };
        for rate in measured.iter().filter(|rate| rate.of == of && self.ppm.is_empty()) {
            let Measured { low_ppm: low, high_ppm: high, .. } = *rate;
            let sign = i64::from(low > 0.0) - i64::from(high < 0.0);
            let name = lanes.get(usize::from(of)).map_or("", |lane| lane.name.as_str());
            let about = match sign {
                0 => format!(
                    "{low:.0} to {high:.0} ppm faster than that of {name}: no difference is shown"
                ),
                1 => format!("{low:.0} to {high:.0} ppm faster than that of {name}"),
                _ => format!("{:.0} to {:.0} ppm slower than that of {name}", -high, -low),
            };
            set(lanes, rate.against, sign, about);
        }
    }
}

fn word(is_slow: bool) -> &'static str {
    if is_slow { "slower" } else { "faster" }
}

fn set(lanes: &mut [Lane], node: u16, sign: i64, about: String) {
    let rate = match sign {
        0 => Rate::True,
        1 => Rate::Fast,
        _ => Rate::Slow,
    };
    if let Some(lane) = lanes.get_mut(usize::from(node)) {
        lane.pace = Some(Pace { from: 0, rate, about });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(2);

    fn judged(range: Range<u64>, took: u64, has_paused: bool) -> Option<Rate> {
        let range = Duration::from_millis(range.start)..Duration::from_millis(range.end);
        judge(TICK, &range, took, has_paused, "Poll").map(|(rate, _)| rate)
    }

    //= SPEC EXPLORER-20 test
    #[test]
    fn a_clock_is_judged_only_by_what_a_true_one_could_not_do() {
        assert_eq!(judged(6..6, 3, false), Some(Rate::True));
        assert_eq!(judged(6..6, 2, false), Some(Rate::Fast));
        assert_eq!(judged(6..6, 4, false), Some(Rate::Slow));
        assert_eq!(judged(6..6, 4, true), None, "it was paused");
        assert_eq!(judged(6..6, 2, true), Some(Rate::Fast), "a pause makes no timer early");
        // Rounded outwards to whole ticks.
        assert_eq!(judged(5..7, 2, false), Some(Rate::True));
        assert_eq!(judged(5..7, 4, false), Some(Rate::True));
        assert_eq!(judged(5..7, 5, false), Some(Rate::Slow));
    }

    fn lanes() -> Vec<Lane> {
        let lane = |name: &str| Lane { name: name.to_owned(), kind: "host".to_owned(), pace: None };
        ["a", "b", "c"].map(lane).into()
    }

    //= SPEC EXPLORER-20 test
    #[test]
    fn the_rates_of_a_run_are_read_off_its_clocks() {
        let mut readings = Readings::default();
        for n in 0..100_u64 {
            let time = n * 20_000_000;
            readings.note(0, time, 5_000 + time + time / 1_000_000 * 150);
            // The second stands still for an hour.
            let stood = if n < 50 { 3_600_000_000_000 } else { 0 };
            readings.note(
                1,
                time + 7_200_000_000_000 - stood,
                9_000_000_000_000 + time - time / 1_000_000 * 80,
            );
            readings.note(2, time, time);
        }
        let mut told = lanes();
        readings.tell(&mut told, &[]);
        let paces: Vec<_> = told.into_iter().filter_map(|lane| lane.pace).collect();
        assert_eq!(
            paces.iter().map(|it| it.rate).collect::<Vec<_>>(),
            [Rate::Fast, Rate::Slow, Rate::True]
        );
        assert!(paces[0].about.starts_with("150 ppm faster"), "{paces:?}");
        assert!(paces[1].about.starts_with("80 ppm slower"), "{paces:?}");

        let rate = |against, low_ppm, high_ppm| Measured { of: 0, against, low_ppm, high_ppm };
        let mut told = lanes();
        Readings::default().tell(&mut told, &[rate(1, 10.0, 20.0), rate(2, -5.0, 5.0)]);
        let rates: Vec<_> = told.iter().map(|it| it.pace.as_ref().map(|pace| pace.rate)).collect();
        assert_eq!(rates, [None, Some(Rate::Fast), Some(Rate::True)]);
    }
}
