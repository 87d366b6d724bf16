//! Other systems' lease timing, in the terms of [`timing`](super::timing).
//!
//! Each [`Preset`] is a table of another system's settings and the rules by which it turns them
//! into a lease: what it stores as L, what G is made of, and from where its holder counts. With
//! that the same inequality decides for all. [`Preset::explain`] fills it in, for the published
//! settings or for an operator's own, and names the smallest change that makes them safe.
//!
//! The rules were read from documentation and source at [`Preset::source`]; they describe timing
//! logic, not how often a real deployment meets its worst case. A negative margin means that timing
//! alone does not exclude two leaders. Some systems have a second guard; the notes name it.

use std::time::Duration;

use super::timing::{Inequality, Timing};
use crate::duration::from_nanos;

/// What a million writes cost, in dollars: the price that the cost figures assume.
pub const DOLLARS_PER_MILLION_WRITES: f64 = 0.625;

/// The seconds in the month of the cost figures: thirty days.
const MONTH_SECS: f64 = 30.0 * 24.0 * 60.0 * 60.0;

/// The longest time of a read and of a conditional write that takeover times assume for tenure.
pub const STORE_TIME: Duration = Duration::from_millis(100);

/// A system whose timing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Preset {
    /// tenure's own defaults.
    Tenure,
    /// The leader election of Kubernetes' client-go, with its recommended settings.
    ClientGo,
    /// The same code with the settings of OpenShift's components.
    OpenShift,
    /// The Amazon Kinesis Client Library.
    Kcl,
    /// The Amazon DynamoDB Lock Client.
    DynamoDb,
    /// Patroni, without a watchdog.
    Patroni,
}

/// From where a holder counts its G.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Anchor {
    /// From the send of the renewal, so from no later than its commit.
    Send,
    /// From the receipt of the answer, which can be D_max later than the commit.
    Answer,
    /// From the start of the loop that will send it: no later than the send.
    LoopStart,
}

/// Settings that replace the published ones; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The lease period.
    pub lease: Option<Duration>,
    /// The give-up time, for a system that has it as a setting.
    pub give_up: Option<Duration>,
    /// The renewal setting: a period, or client-go's RenewDeadline.
    pub renew: Option<Duration>,
    /// The retry setting.
    pub retry: Option<Duration>,
    /// The period of a watcher's reads.
    pub poll: Option<Duration>,
    /// S, the worst time of the stop hook.
    pub hook: Option<Duration>,
    /// rho, in parts per million.
    pub clock_error_ppm: Option<u32>,
    /// From where the holder counts.
    pub anchor: Option<Anchor>,
    /// D_max: the longest time from the send of a renewal to its answer.
    pub answer_max: Option<Duration>,
}

/// Why settings cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The system has no such setting.
    #[error("{preset} has no setting \"{name}\"; it takes {known}")]
    NoSuchSetting {
        /// The system.
        preset: &'static str,
        /// The setting that was given.
        name: &'static str,
        /// Those that it takes.
        known: String,
    },
    /// The holder counts from the answer, and nothing says how late that can be.
    #[error(
        "a holder that counts from the answer needs \"answer-max\", the longest time to an answer"
    )]
    AnswerMaxMissing,
    /// The time to an answer is of no account.
    #[error("\"answer-max\" has no effect on a holder that counts from the send; leave it out")]
    AnswerMaxUnused,
    /// A duration that [`Timing::validate`] would call absurd.
    #[error("\"{name}\" is longer than 365 days; give a shorter one")]
    TooLong {
        /// Which one.
        name: &'static str,
    },
    /// A clock error that [`Timing::validate`] would call absurd.
    #[error("\"clock-error-ppm\" is above 100000 (10 %); give a smaller one")]
    ClockError,
    /// A setting that is divided by is zero.
    #[error("\"{name}\" is zero; give it a length")]
    Zero {
        /// Which one.
        name: &'static str,
    },
}

/// One part of G: `times` * `length`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which setting.
    pub name: &'static str,
    /// How often it counts.
    pub times: u32,
    /// Its length.
    pub length: Duration,
}

/// A change that makes an unsafe set safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Raise the lease period at least to this.
    LeaseAtLeast(Duration),
    /// Count from the send, and change no number.
    CountFromSend,
    /// Count from the send, and give up after at most this.
    CountFromSendAndGiveUp(Duration),
    /// Give up after at most this.
    GiveUpAtMost(Duration),
}

/// A set of timing settings, explained.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Whose rules these are.
    pub preset: Preset,
    /// The settings by the names that the system gives them.
    pub settings: Vec<(&'static str, Duration)>,
    /// The lease period as set.
    pub lease_set: Duration,
    /// L, as the record keeps it.
    pub lease: Duration,
    /// G.
    pub give_up: Duration,
    /// What G is made of.
    pub parts: Vec<Part>,
    /// From where the holder counts it.
    pub anchor: Anchor,
    /// D_max, if the anchor makes it count.
    pub answer_max: Option<Duration>,
    /// S, if it is declared; otherwise it is taken for zero, which is rarely true.
    pub hook: Option<Duration>,
    /// rho, in parts per million.
    pub clock_error_ppm: u32,
    /// The inequality with the latest answers.
    pub worst: Inequality,
    /// The inequality with instant answers.
    pub instant: Inequality,
    /// The longest time from the holder's last commit to the next holder's, with no packet lost.
    pub takeover_max: Duration,
    /// How that is computed.
    pub takeover_how: &'static str,
    /// The time from one write of the record to the next, at the shortest in normal operation.
    pub write_every: Duration,
    /// What makes it safe; empty if it is. Any one of them is enough.
    pub fixes: Vec<Fix>,
    /// The numbers as a [`Timing`], for tenure's own rules.
    pub timing: Option<Timing>,
}

impl Explanation {
    /// Whether timing alone excludes two holders at once.
    pub fn is_safe(&self) -> bool {
        self.worst.is_safe()
    }

    /// The writes of one lease, per second.
    pub fn writes_per_second(&self) -> f64 {
        1.0 / self.write_every.as_secs_f64()
    }

    /// What the writes of one lease cost in thirty days, in dollars, at
    /// [`DOLLARS_PER_MILLION_WRITES`].
    pub fn dollars_per_month(&self) -> f64 {
        self.writes_per_second() * MONTH_SECS * DOLLARS_PER_MILLION_WRITES / 1e6
    }
}

/// What differs between systems, before the inequality.
struct Rules {
    settings: Vec<(&'static str, Duration)>,
    lease_set: Duration,
    /// The lease period is kept in whole multiples of this.
    resolution: Duration,
    /// L and G are one setting: L cannot be raised alone.
    is_coupled: bool,
    parts: Vec<Part>,
    anchor: Anchor,
    answer_max: Option<Duration>,
    hook: Option<Duration>,
    takeover_max: Duration,
    takeover_how: &'static str,
    write_every: Duration,
    timing: Option<Timing>,
}

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const NANOSECOND: Duration = Duration::from_nanos(1);

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 6] =
        [Self::Tenure, Self::ClientGo, Self::OpenShift, Self::Kcl, Self::DynamoDb, Self::Patroni];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tenure => "tenure",
            Self::ClientGo => "client-go",
            Self::OpenShift => "openshift",
            Self::Kcl => "kcl",
            Self::DynamoDb => "dynamodb",
            Self::Patroni => "patroni",
        }
    }

    /// The preset of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// Where its settings and rules can be read.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Tenure => "Timing::DEFAULT in this program",
            Self::ClientGo => {
                "https://github.com/kubernetes/client-go/tree/master/tools/leaderelection"
            }
            Self::OpenShift => "https://github.com/openshift/library-go/pull/1104",
            Self::Kcl => "https://github.com/awslabs/amazon-kinesis-client",
            Self::DynamoDb => "https://github.com/awslabs/amazon-dynamodb-lock-client",
            Self::Patroni => "https://github.com/patroni/patroni",
        }
    }

    /// What these figures take for granted, and what else guards the system.
    pub const fn notes(self) -> &'static [&'static str] {
        match self {
            Self::Tenure => &[
                "the store is linearizable, and clocks count through a suspend (BOOTTIME)",
                "a pause between a check and its effect is covered by the epoch alone, checked at the resource",
            ],
            Self::ClientGo => &[
                "the holder counts from the answer, sleeps RetryPeriod, then tries for RenewDeadline",
                "the record keeps whole seconds; a fraction of LeaseDuration is cut off",
                "D_max = max(1 s, RenewDeadline/2) with the default client set-up; without its time-out up to RenewDeadline",
                "the package states that it does not guarantee a single leader (no fencing)",
                "the ratio of clock rates that its documentation gives leaves out RetryPeriod",
            ],
            Self::OpenShift => &[
                "client-go's code with other settings: see the preset client-go",
                "the documented clock-skew tolerance of 30 s leaves out RetryPeriod and answers that are late",
            ],
            Self::Kcl => &[
                "one setting, failoverTimeMillis, is both L and G; renewals run each third of it",
                "D_max is the default time-out of a request to the lease table, 60 s",
                "takeover by the classic lease taker, which scans each 2*(L + 25 ms)",
                "checkpoints are conditional on the lease, so a deposed worker's checkpoint fails; records may be processed twice",
            ],
            Self::DynamoDb => &[
                "one setting, leaseDuration, is both L and G: with equal clocks the margin is zero, with any drift negative",
                "takeover: the last version is seen within refreshPeriod, then leaseDuration passes",
            ],
            Self::Patroni => &[
                "the documented rule loop_wait + 2*retry_timeout <= ttl allows equality, which is margin zero",
                "the ttl runs in the store, by the store's clock; rho is taken to bound that clock too",
                "without a watchdog; a kernel watchdog is a second guard that these figures leave out",
                "the store's own delay in expiring the key, and the promotion, come on top of the takeover",
            ],
        }
    }

    /// Puts the settings into the inequality.
    ///
    /// # Errors
    ///
    /// [`ExplainError`] if the system has no such setting, or a value is absurd.
    pub fn explain(self, overrides: &Overrides) -> Result<Explanation, ExplainError> {
        self.check(overrides)?;
        let rules = self.rules(overrides);
        let clock_error_ppm = overrides.clock_error_ppm.unwrap_or(Timing::DEFAULT.clock_error_ppm);
        let anchor = overrides.anchor.unwrap_or(rules.anchor);
        let answer_max = match (anchor, overrides.answer_max.or(rules.answer_max)) {
            (Anchor::Answer, None) => return Err(ExplainError::AnswerMaxMissing),
            (Anchor::Answer, known) => known,
            (Anchor::Send | Anchor::LoopStart, _) if overrides.answer_max.is_some() => {
                return Err(ExplainError::AnswerMaxUnused);
            }
            (Anchor::Send | Anchor::LoopStart, _) => None,
        };
        let lease = round_down(rules.lease_set, rules.resolution);
        let give_up = rules.parts.iter().map(|part| part.length * part.times).sum();
        let hook = overrides.hook.or(rules.hook);
        let instant = Inequality {
            lease,
            hold: give_up,
            hook: hook.unwrap_or(Duration::ZERO),
            clock_error_ppm,
        };
        let worst = Inequality { hold: give_up + answer_max.unwrap_or(Duration::ZERO), ..instant };
        Ok(Explanation {
            preset: self,
            fixes: fixes(&rules, anchor, worst, instant),
            settings: rules.settings,
            lease_set: rules.lease_set,
            lease,
            give_up,
            parts: rules.parts,
            anchor,
            answer_max,
            hook,
            clock_error_ppm,
            worst,
            instant,
            takeover_max: rules.takeover_max,
            takeover_how: rules.takeover_how,
            write_every: rules.write_every,
            timing: rules.timing,
        })
    }

    /// Which of lease, give-up, renew, retry and poll it has as settings.
    const fn known(self) -> &'static [&'static str] {
        match self {
            Self::Tenure => &["lease", "give-up", "renew", "retry", "poll"],
            Self::ClientGo | Self::OpenShift | Self::Patroni => &["lease", "renew", "retry"],
            Self::Kcl => &["lease"],
            Self::DynamoDb => &["lease", "renew", "poll"],
        }
    }

    fn check(self, overrides: &Overrides) -> Result<(), ExplainError> {
        let own = [
            ("lease", overrides.lease),
            ("give-up", overrides.give_up),
            ("renew", overrides.renew),
            ("retry", overrides.retry),
            ("poll", overrides.poll),
        ];
        for (name, value) in own {
            if value.is_some() && !self.known().contains(&name) {
                let mut known = self.known().join(", ");
                known.push_str(", hook, clock-error-ppm, anchor, answer-max");
                return Err(ExplainError::NoSuchSetting { preset: self.name(), name, known });
            }
            if value.is_some_and(|value| value.is_zero()) {
                return Err(ExplainError::Zero { name });
            }
        }
        let common = [("hook", overrides.hook), ("answer-max", overrides.answer_max)];
        for (name, value) in own.into_iter().chain(common) {
            if value.is_some_and(|value| value > Timing::DURATION_MAX) {
                return Err(ExplainError::TooLong { name });
            }
        }
        if overrides.clock_error_ppm.is_some_and(|ppm| ppm > Timing::CLOCK_ERROR_MAX_PPM) {
            return Err(ExplainError::ClockError);
        }
        Ok(())
    }

    fn rules(self, overrides: &Overrides) -> Rules {
        match self {
            Self::Tenure => tenure(overrides),
            Self::ClientGo => client_go(overrides, [15, 10, 2]),
            Self::OpenShift => client_go(overrides, [137, 107, 26]),
            Self::Kcl => kcl(overrides),
            Self::DynamoDb => dynamodb(overrides),
            Self::Patroni => patroni(overrides),
        }
    }
}

fn tenure(overrides: &Overrides) -> Rules {
    let default = Timing::DEFAULT;
    let timing = Timing {
        lease: overrides.lease.unwrap_or(default.lease),
        give_up: overrides.give_up.unwrap_or(default.give_up),
        renew: overrides.renew.unwrap_or(default.renew),
        retry: overrides.retry.unwrap_or(default.retry),
        poll: overrides.poll.unwrap_or(default.poll),
        hook: overrides.hook.unwrap_or(default.hook),
        clock_error_ppm: overrides.clock_error_ppm.unwrap_or(default.clock_error_ppm),
        jitter: default.jitter,
    };
    // Scaled down with small numbers, so that free values need no jitter of their own.
    let shortest = timing.renew.min(timing.retry).min(timing.poll);
    let timing = Timing { jitter: timing.jitter.min(shortest / 5), ..timing };
    Rules {
        settings: vec![
            ("lease", timing.lease),
            ("give_up", timing.give_up),
            ("renew", timing.renew),
            ("retry", timing.retry),
            ("poll", timing.poll),
        ],
        lease_set: timing.lease,
        resolution: NANOSECOND,
        is_coupled: false,
        parts: vec![Part { name: "give_up", times: 1, length: timing.give_up }],
        anchor: Anchor::Send,
        answer_max: None,
        hook: Some(timing.hook),
        takeover_max: timing.takeover_latest(STORE_TIME, STORE_TIME),
        takeover_how: "(poll + lease)/(1-rho) + 0.1 s for a read + 0.1 s for a write",
        // At its earliest, jitter included.
        write_every: timing.renew.saturating_sub(timing.jitter).max(NANOSECOND),
        timing: Some(timing),
    }
}

fn client_go(overrides: &Overrides, published_secs: [u64; 3]) -> Rules {
    let [lease, renew, retry] = published_secs.map(Duration::from_secs);
    let lease = overrides.lease.unwrap_or(lease);
    let renew = overrides.renew.unwrap_or(renew);
    let retry = overrides.retry.unwrap_or(retry);
    Rules {
        settings: vec![("LeaseDuration", lease), ("RenewDeadline", renew), ("RetryPeriod", retry)],
        lease_set: lease,
        resolution: SECOND,
        is_coupled: false,
        parts: vec![
            Part { name: "retry", times: 1, length: retry },
            Part { name: "renew", times: 1, length: renew },
        ],
        anchor: Anchor::Answer,
        answer_max: Some((renew / 2).max(SECOND)),
        hook: None,
        // Two polls, each up to 2.2 times the period because of its jitter.
        takeover_max: round_down(lease, SECOND) + retry * 44 / 10,
        takeover_how: "L + 2 polls of up to 2.2*RetryPeriod",
        write_every: retry,
        timing: None,
    }
}

fn kcl(overrides: &Overrides) -> Rules {
    const EPSILON: Duration = Duration::from_millis(25);
    let lease = overrides.lease.unwrap_or(Duration::from_secs(10));
    let scan = (lease + EPSILON) * 2;
    Rules {
        settings: vec![("failoverTimeMillis", lease)],
        lease_set: lease,
        resolution: MILLISECOND,
        is_coupled: true,
        parts: vec![Part { name: "failover", times: 1, length: lease }],
        anchor: Anchor::Answer,
        answer_max: Some(Duration::from_secs(60)),
        hook: None,
        takeover_max: scan * 2,
        takeover_how: "two scans: the first sees the last version, the next finds it expired",
        write_every: (lease / 3).saturating_sub(EPSILON).max(MILLISECOND),
        timing: None,
    }
}

fn dynamodb(overrides: &Overrides) -> Rules {
    let lease = overrides.lease.unwrap_or(Duration::from_secs(20));
    let heartbeat = overrides.renew.unwrap_or(Duration::from_secs(5));
    let refresh = overrides.poll.unwrap_or(SECOND);
    Rules {
        settings: vec![
            ("leaseDuration", lease),
            ("heartbeatPeriod", heartbeat),
            ("refreshPeriod", refresh),
        ],
        lease_set: lease,
        resolution: MILLISECOND,
        is_coupled: true,
        parts: vec![Part { name: "lease", times: 1, length: lease }],
        anchor: Anchor::Send,
        answer_max: None,
        hook: None,
        takeover_max: lease + refresh,
        takeover_how: "L + refreshPeriod",
        write_every: heartbeat,
        timing: None,
    }
}

fn patroni(overrides: &Overrides) -> Rules {
    let ttl = overrides.lease.unwrap_or(Duration::from_secs(30));
    let loop_wait = overrides.renew.unwrap_or(Duration::from_secs(10));
    let retry_timeout = overrides.retry.unwrap_or(Duration::from_secs(10));
    Rules {
        settings: vec![("ttl", ttl), ("loop_wait", loop_wait), ("retry_timeout", retry_timeout)],
        lease_set: ttl,
        resolution: SECOND,
        is_coupled: false,
        parts: vec![
            Part { name: "loop", times: 1, length: loop_wait },
            Part { name: "retry", times: 2, length: retry_timeout },
        ],
        anchor: Anchor::LoopStart,
        answer_max: None,
        hook: None,
        takeover_max: ttl + loop_wait,
        takeover_how: "ttl + one loop_wait, if no watch wakes the replica",
        write_every: loop_wait,
        timing: None,
    }
}

fn fixes(rules: &Rules, anchor: Anchor, worst: Inequality, instant: Inequality) -> Vec<Fix> {
    if worst.is_safe() {
        return Vec::new();
    }
    let mut fixes = Vec::new();
    let lease = worst.smallest_lease().and_then(|lease| round_up(lease, rules.resolution));
    fixes.extend(lease.filter(|_| !rules.is_coupled).map(Fix::LeaseAtLeast));
    // In whole milliseconds where a nanosecond has no meaning.
    let resolution = rules.resolution.min(MILLISECOND);
    let hold = instant.largest_hold().map(|hold| round_down(hold, resolution));
    let hold = hold.filter(|hold| !hold.is_zero());
    match anchor {
        Anchor::Answer if instant.is_safe() => fixes.push(Fix::CountFromSend),
        Anchor::Answer => fixes.extend(hold.map(Fix::CountFromSendAndGiveUp)),
        Anchor::Send | Anchor::LoopStart => fixes.extend(hold.map(Fix::GiveUpAtMost)),
    }
    fixes
}

fn round_down(duration: Duration, to: Duration) -> Duration {
    let ns = duration.as_nanos();
    from_nanos(ns - ns % to.as_nanos()).expect("not longer than before")
}

fn round_up(duration: Duration, to: Duration) -> Option<Duration> {
    from_nanos(duration.as_nanos().next_multiple_of(to.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(text: &str) -> Duration {
        crate::duration::parse(text).expect("a duration")
    }

    fn published(preset: Preset) -> Explanation {
        preset.explain(&Overrides::default()).expect("published settings can be explained")
    }

    const MS: i128 = 1_000_000;

    #[test]
    fn measured_rows_of_client_go() {
        // lease / renew / retry, D: need, L stored, margin. Equal clocks, no hook.
        let rows = [
            (Preset::ClientGo, ["15s", "10s", "2s"], "0s", "12s", "15s", 3_000),
            (Preset::ClientGo, ["15s", "10s", "2s"], "4s", "16s", "15s", -1_000),
            (Preset::ClientGo, ["15s", "10s", "2s"], "4.9s", "16.9s", "15s", -1_900),
            (Preset::ClientGo, ["15s", "10s", "2s"], "5s", "17s", "15s", -2_000),
            (Preset::OpenShift, ["137s", "107s", "26s"], "0s", "133s", "137s", 4_000),
            (Preset::OpenShift, ["137s", "107s", "26s"], "52s", "185s", "137s", -48_000),
            (Preset::ClientGo, ["2.9s", "2.5s", "0.5s"], "0s", "3s", "2s", -1_000),
        ];
        for (preset, [lease, renew, retry], answer_max, need, stored, margin_ms) in rows {
            let overrides = Overrides {
                lease: Some(secs(lease)),
                renew: Some(secs(renew)),
                retry: Some(secs(retry)),
                answer_max: Some(secs(answer_max)),
                clock_error_ppm: Some(0),
                ..Overrides::default()
            };
            let told = preset.explain(&overrides).expect("settings of this system");
            assert_eq!(told.worst.need_ns(), Some(secs(need).as_nanos()), "{lease} D {answer_max}");
            assert_eq!(told.lease, secs(stored));
            assert_eq!(told.worst.margin_ns(), margin_ms * MS);
            assert_eq!(told.is_safe(), margin_ms > 0);
            let overlap = u64::try_from(-margin_ms).unwrap_or(0);
            assert_eq!(told.worst.overlap(), Duration::from_millis(overlap));
        }
        // An exact 2.9 s would still be a tenth short.
        let exact = Inequality {
            lease: secs("2.9s"),
            hold: secs("3s"),
            hook: secs("0s"),
            clock_error_ppm: 0,
        };
        assert_eq!(exact.margin_ns(), -100 * MS);
    }

    #[test]
    fn client_go_as_published() {
        let told = published(Preset::ClientGo);
        assert_eq!(told.give_up, secs("12s"));
        assert_eq!(
            (told.anchor, told.answer_max, told.hook),
            (Anchor::Answer, Some(secs("5s")), None)
        );
        assert_eq!(told.worst.need_ns().map(|ns| ns / 1_000_000), Some(17_006));
        assert_eq!(told.worst.margin_ns() / MS, -2_006);
        assert_eq!(told.instant.margin_ns() / MS, 2_995);
        assert_eq!(told.worst.overlap().as_millis(), 2_006);
        assert_eq!(told.takeover_max, secs("23.8s"));
        assert!((told.dollars_per_month() - 0.81).abs() < 1e-9);
        assert_eq!(told.fixes, [Fix::LeaseAtLeast(secs("18s")), Fix::CountFromSend]);
    }

    #[test]
    fn openshift_as_published() {
        let told = published(Preset::OpenShift);
        assert_eq!(told.answer_max, Some(secs("53.5s")));
        assert_eq!(told.takeover_max, secs("251.4s"));
        assert_eq!(told.fixes, [Fix::LeaseAtLeast(secs("187s")), Fix::CountFromSend]);
    }

    #[test]
    fn counted_from_the_send_client_go_would_be_safe() {
        // 15/10 needs 12.005 s for retry + renew; what tenure needs for G = 10 s is in `timing`.
        for preset in [Preset::ClientGo, Preset::OpenShift] {
            let overrides = Overrides { anchor: Some(Anchor::Send), ..Overrides::default() };
            let told = preset.explain(&overrides).expect("an anchor");
            assert!(told.is_safe() && told.fixes.is_empty() && told.answer_max.is_none());
        }
    }

    #[test]
    fn a_system_whose_lease_is_its_give_up_time_cannot_be_mended_by_a_longer_lease() {
        let told = published(Preset::DynamoDb);
        assert!(!told.is_safe());
        assert_eq!(told.worst.margin_ns() / MS, -8);
        assert_eq!(told.fixes, [Fix::GiveUpAtMost(secs("19.992s"))]);
        assert_eq!(told.takeover_max, secs("21s"));
        let equal_clocks = Overrides { clock_error_ppm: Some(0), ..Overrides::default() };
        let told = Preset::DynamoDb.explain(&equal_clocks).expect("a clock error");
        assert_eq!((told.worst.margin_ns(), told.is_safe()), (0, false));

        let told = published(Preset::Kcl);
        assert_eq!(told.worst.hold, secs("70s"));
        assert_eq!(told.fixes, [Fix::CountFromSendAndGiveUp(secs("9.996s"))]);
        let told = Preset::Kcl.explain(&equal_clocks).expect("a clock error");
        assert_eq!(told.worst.margin_ns(), -60_000 * MS);
    }

    #[test]
    fn patroni_has_no_margin_at_its_own_rule() {
        let equal_clocks = Overrides { clock_error_ppm: Some(0), ..Overrides::default() };
        let told = Preset::Patroni.explain(&equal_clocks).expect("a clock error");
        assert_eq!((told.worst.margin_ns(), told.give_up), (0, secs("30s")));
        assert_eq!(told.fixes[0], Fix::LeaseAtLeast(secs("31s")));
        assert_eq!(told.anchor, Anchor::LoopStart);
    }

    #[test]
    fn tenure_is_safe_by_its_own_measure() {
        let told = published(Preset::Tenure);
        assert!(told.is_safe() && told.fixes.is_empty());
        assert_eq!(told.timing, Some(Timing::DEFAULT));
        assert_eq!(told.worst, Timing::DEFAULT.inequality());
    }

    #[test]
    fn every_fix_fixes_and_is_the_smallest() {
        for preset in Preset::ALL {
            for fix in published(preset).fixes {
                let told = published(preset);
                let (mut worst, instant) = (told.worst, told.instant);
                let safe = match fix {
                    Fix::LeaseAtLeast(lease) => {
                        worst.lease = lease - SECOND;
                        assert!(!worst.is_safe(), "{preset:?}");
                        Inequality { lease, ..worst }
                    }
                    Fix::CountFromSend => instant,
                    Fix::CountFromSendAndGiveUp(hold) | Fix::GiveUpAtMost(hold) => {
                        assert!(!Inequality { hold: hold + MILLISECOND, ..instant }.is_safe());
                        Inequality { hold, ..instant }
                    }
                };
                assert!(safe.is_safe(), "{preset:?} {fix:?}");
            }
        }
    }

    #[test]
    fn settings_that_a_system_lacks_are_refused() {
        let poll = Overrides { poll: Some(SECOND), ..Overrides::default() };
        let refused = Preset::ClientGo.explain(&poll);
        assert!(matches!(refused, Err(ExplainError::NoSuchSetting { name: "poll", .. })));
        let anchor = Overrides { anchor: Some(Anchor::Answer), ..Overrides::default() };
        assert_eq!(Preset::Tenure.explain(&anchor), Err(ExplainError::AnswerMaxMissing));
        let answer = Overrides { answer_max: Some(SECOND), ..Overrides::default() };
        assert_eq!(Preset::Tenure.explain(&answer), Err(ExplainError::AnswerMaxUnused));
        let clock = Overrides { clock_error_ppm: Some(100_001), ..Overrides::default() };
        assert_eq!(Preset::Tenure.explain(&clock), Err(ExplainError::ClockError));
        let long = Overrides { lease: Some(Duration::MAX), ..Overrides::default() };
        assert_eq!(Preset::Kcl.explain(&long), Err(ExplainError::TooLong { name: "lease" }));
        let zero = Overrides { retry: Some(Duration::ZERO), ..Overrides::default() };
        assert_eq!(Preset::ClientGo.explain(&zero), Err(ExplainError::Zero { name: "retry" }));
    }

    #[test]
    fn names_find_their_presets() {
        for preset in Preset::ALL {
            assert_eq!(Preset::from_name(preset.name()), Some(preset));
            assert!(!preset.notes().is_empty() && !preset.source().is_empty());
        }
        assert_eq!(Preset::from_name("etcd"), None);
    }
}
