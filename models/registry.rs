//! Every model that is checked, and what must come of it.
//!
//! A *safe* row must be explored to its end, hold in every property, and have exactly the registered
//! number of states: a count that changes is a model that has changed. A *mutant* row leaves out one
//! rule and must violate the registered property, at the registered depth: that is how we know that
//! the rule is needed and that the checker can see what it prevents.

use std::sync::Arc;
use std::time::Duration;

use super::check::{self, Outcome};
use super::engine::{Limits, Progress};
use super::irc;
use super::lease::properties::{
    acknowledged, elected, expired, fenced_effects, handed_over, handover_gap, holder_has_deadline,
    no_lost_ack, overslept, read_only_under_another, released, renewed, self_fence, shrunk,
    single_holder, single_writer, stable_leader, taken_over, takeover_bound,
    unique_holder_per_epoch,
};
use super::lease::{Cluster, Keeps, Leaderless, LeaseWorld, Outside, Ticks};
use super::space::{Space, space};
use super::world::{Budget, Faults, Network};
use crate::lease::safeguards::Safeguards;

/// One model and what must come of it.
#[derive(Clone)]
pub struct Row {
    /// Its name on the command line.
    pub name: String,
    /// What it is about, in one line.
    pub about: String,
    /// What must come of it.
    pub expected: Expected,
    /// Whether it is small enough to be run by every test.
    pub quick: bool,
    /// Makes it.
    pub world: fn() -> LeaseWorld,
    /// A model that leaves out a rule, with that rule: the same schedules must do no harm there.
    pub mended: Option<fn() -> LeaseWorld>,
}

/// What must come of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Every property holds in all of these states.
    Safe(Counts),
    /// Every property holds; how many states there are is not registered.
    Holds,
    /// This property is violated.
    Violated {
        /// Which.
        property: &'static str,
        /// After how many steps at the least.
        steps: u32,
    },
    /// This one, which says that something must be possible, is found in no reachable state.
    Never {
        /// Which.
        property: &'static str,
    },
}

/// A row of any protocol: what it is called, and how it is explored.
pub struct Entry {
    /// Its name on the command line.
    pub name: String,
    /// What it is about, in one line.
    pub about: String,
    /// What must come of it.
    pub expected: Expected,
    /// Whether it is small enough to be run by every test.
    pub quick: bool,
    /// Explores it.
    pub explore: Box<Explore>,
    /// Makes it into something that can be walked by hand.
    pub space: Box<MakeSpace>,
    /// The same with the rule that it leaves out.
    pub mended: Option<Box<MakeSpace>>,
}

/// Makes a model that can be walked by hand.
pub type MakeSpace = dyn Fn() -> Arc<dyn Space> + Send + Sync;

/// Explores a row within limits, and says now and then how far it is.
pub type Explore = dyn Fn(Limits, &mut dyn FnMut(Progress)) -> Outcome + Send + Sync;

impl Entry {
    /// Whether something must go wrong here.
    pub fn is_mutant(&self) -> bool {
        !matches!(self.expected, Expected::Safe(_) | Expected::Holds)
    }
}

impl From<Row> for Entry {
    fn from(row: Row) -> Self {
        Self {
            name: row.name.clone(),
            about: row.about.clone(),
            expected: row.expected,
            quick: row.quick,
            space: Box::new(move || space(row.world)),
            mended: row.mended.map(|world| -> Box<MakeSpace> { Box::new(move || space(world)) }),
            explore: Box::new(move |limits, on_progress| check::run(&row, limits, on_progress)),
        }
    }
}

/// Every model of every protocol in which everything must hold.
pub fn all_safe() -> Vec<Entry> {
    safe().into_iter().map(Entry::from).chain(irc::registry::safe()).collect()
}

/// Every model of every protocol that leaves out a rule.
pub fn all_mutants() -> Vec<Entry> {
    mutants().into_iter().map(Entry::from).chain(irc::registry::mutants()).collect()
}

/// The size of a complete exploration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Different states.
    pub unique: u64,
    /// States made: one for each transition, and the initial one.
    pub generated: u64,
    /// Depth of the deepest state, counted from 1.
    pub depth: u32,
}

impl Row {
    /// Whether something must go wrong here.
    pub fn is_mutant(&self) -> bool {
        !matches!(self.expected, Expected::Safe(_) | Expected::Holds)
    }
}

/// Two hosts, a free network that repeats messages, no faults, G 2, R 1, retry 1, P 1, S 0, equal
/// clocks, and the smallest safe L: the ground on which most rows are built.
fn base() -> Cluster {
    ticks(Ticks {
        lease: 0,
        give_up: 2,
        renew: 1,
        retry: 1,
        poll: 1,
        jitter: 0,
        hook: 0,
        clock_error_ppm: 0,
    })
}

fn ticks(ticks: Ticks) -> Cluster {
    Cluster {
        hosts: 2,
        timing: ticks.with_smallest_lease(Safeguards::ALL).timing(),
        tick: Ticks::TICK,
        timed: true,
        network: Network::Free { repeats: true },
        faults: Faults::NONE,
        safeguards: Safeguards::ALL,
        keeps: Keeps::default(),
        outside: Vec::new(),
        writes: None,
        hints: false,
        settled: false,
    }
}

/// The same with a stop hook of one tick, and the smallest L of whoever keeps these rules.
fn hooked(safeguards: Safeguards) -> Cluster {
    let hooked = Ticks {
        lease: 0,
        give_up: 2,
        renew: 1,
        retry: 1,
        poll: 1,
        jitter: 0,
        hook: 1,
        clock_error_ppm: 0,
    };
    Cluster { timing: hooked.with_smallest_lease(safeguards).timing(), ..base() }
}

/// Clocks that may be off by 1 %, which rounded outwards is a tick either way on every timer.
fn drifting(hook: u16) -> Cluster {
    ticks(Ticks {
        lease: 0,
        give_up: 2,
        renew: 2,
        retry: 2,
        poll: 2,
        jitter: 0,
        hook,
        clock_error_ppm: 10_000,
    })
}

/// A network on which every message that is not lost arrives within one tick, and timing that leaves
/// room for one lost message: R + retry + two round trips are no more than G. A read is answered before the
/// next is sent.
fn timely(hosts: u16) -> Cluster {
    let ticks = ticks(Ticks {
        lease: 0,
        give_up: 11,
        renew: 3,
        retry: 3,
        poll: 4,
        jitter: 1,
        hook: 1,
        clock_error_ppm: 0,
    });
    Cluster { hosts, network: Network::Timely { delay: DELAY }, ..ticks }
}

const DELAY: u16 = 1;

/// Poll and retry are G here, so that no request is sent twice under one name: fewer states, as the second
/// could be answered with every later record.
fn sent_once(hosts: u16) -> Cluster {
    let once = ticks(Ticks {
        lease: 0,
        give_up: 2,
        renew: 1,
        retry: 2,
        poll: 2,
        jitter: 0,
        hook: 0,
        clock_error_ppm: 0,
    });
    Cluster { hosts, network: Network::Free { repeats: false }, ..once }
}

/// No clock at all: a timer may fire at any moment, at most this often in all. With no bound on that, a
/// request that is sent again could be answered with infinitely many later records.
fn untimed(hosts: u16, fires: Budget) -> Cluster {
    Cluster { timed: false, faults: Faults { fires, ..Faults::NONE }, ..sent_once(hosts) }
}

fn with_table(cluster: Cluster, writes: &[(&'static str, &'static str)]) -> Cluster {
    let keeps = Keeps { table: true, ..cluster.keeps };
    Cluster { writes: Some(writes.to_vec()), keeps, settled: true, ..cluster }
}

fn crashing(cluster: Cluster, nodes: &[usize], crashes: Budget) -> Cluster {
    let faults = Faults { may_crash: nodes.to_vec(), crashes, down_at_once: 1, ..cluster.faults };
    Cluster { faults, ..cluster }
}

fn told(cluster: Cluster, outside: Outside, times: u8) -> Cluster {
    let faults = Faults { inputs: Budget::Times(times), ..cluster.faults };
    Cluster { outside: vec![outside], faults, ..cluster }
}

fn losing(cluster: Cluster, losses: u8) -> Cluster {
    let faults = Faults { losses: Budget::Times(losses), ..cluster.faults };
    Cluster { faults, ..cluster }
}

/// What holds with clocks, and what must be possible in every model in which leases expire.
fn timed_world(cluster: &Cluster) -> LeaseWorld {
    cluster.world(vec![
        single_writer(),
        unique_holder_per_epoch(),
        read_only_under_another(),
        holder_has_deadline(),
        elected(),
        renewed(),
        taken_over(),
        expired(),
    ])
}

fn row(name: &str, about: &str, quick: bool, counts: [u64; 3], world: fn() -> LeaseWorld) -> Row {
    let [unique, generated, depth] = counts;
    let depth = u32::try_from(depth).expect("a depth is small");
    let expected = Expected::Safe(Counts { unique, generated, depth });
    Row { name: name.to_owned(), about: about.to_owned(), expected, quick, world, mended: None }
}

/// Every model in which everything must hold.
pub fn safe() -> Vec<Row> {
    vec![
        row(
            "timed-2",
            "2 hosts, equal clocks, messages late, lost and repeated; any number of renewals and takeovers",
            true,
            [68_972, 403_525, 56],
            || timed_world(&base()),
        ),
        row(
            "timed-2-crash",
            "the same with crashes of either host and of the store, one at a time, any number of times",
            false,
            [850_152, 5_691_793, 65],
            || timed_world(&crashing(base(), &[0, 1, 2], Budget::Unlimited)),
        ),
        row(
            "timed-2-drift",
            "2 hosts whose clocks drift by a tick either way",
            true,
            [386_887, 3_360_114, 71],
            || timed_world(&drifting(0)),
        ),
        row(
            "timed-2-drift-crash",
            "the same with crashes of either host and of the store, one at a time, any number of times",
            false,
            [4_298_672, 38_558_326, 77],
            || timed_world(&crashing(drifting(0), &[0, 1, 2], Budget::Unlimited)),
        ),
        row(
            "timed-2-hook",
            "2 hosts with a stop hook that takes any time up to S, and the age of every grant",
            false,
            [494_448, 3_007_197, 74],
            || {
                let cluster = ticks(Ticks {
                    lease: 0,
                    give_up: 2,
                    renew: 1,
                    retry: 1,
                    poll: 1,
                    jitter: 0,
                    hook: 1,
                    clock_error_ppm: 0,
                });
                let keeps = Keeps { ages: Some(cluster.self_fence()), ..Keeps::default() };
                let cluster = crashing(Cluster { keeps, ..cluster }, &[0, 1], Budget::Times(1));
                let mut world = timed_world(&cluster);
                world.properties.push(self_fence());
                world
            },
        ),
        row(
            "timed-2-release",
            "2 hosts, an operator who makes the holder step down, twice",
            false,
            [513_814, 3_255_232, 68],
            || {
                let mut world = timed_world(&told(base(), Outside::StepDown, 2));
                world.properties.push(released());
                world
            },
        ),
        row(
            "timed-2-handover",
            "2 hosts, an operator who hands the lease over, twice, on a network that loses the consent",
            false,
            [3_349_626, 28_768_734, 98],
            || {
                let mut world = timed_world(&told(base(), Outside::HandOver, 2));
                world.properties.push(handed_over());
                world
            },
        ),
        row(
            "timed-2-pause",
            "2 hosts that may be paused beyond their timers: no host that is awake writes beside another",
            true,
            [465_480, 2_083_819, 62],
            || {
                let faults =
                    Faults { may_pause: vec![0, 1], pauses: Budget::Times(1), ..Faults::NONE };
                let network = Network::Free { repeats: false };
                let mut world = untimed_world(&Cluster { faults, network, ..base() });
                world.properties.extend([single_holder(), overslept()]);
                world
            },
        ),
        row(
            "timed-3",
            "3 hosts, messages late and lost, each request sent once",
            false,
            [3_087_415, 14_873_527, 63],
            || timed_world(&sent_once(3)),
        ),
        row(
            "untimed-2",
            "2 hosts without any clock, messages late and lost, without bound",
            true,
            [3_923, 23_289, 26],
            || untimed_world(&untimed(2, Budget::Unlimited)),
        ),
        row(
            "untimed-3",
            "3 hosts without any clock, messages late and lost, without bound",
            false,
            [548_924, 4_894_500, 41],
            || untimed_world(&untimed(3, Budget::Unlimited)),
        ),
        row(
            "untimed-2-crash",
            "2 hosts without any clock, messages also repeated, 4 timers fire, 1 crash of a host or the store",
            true,
            [106_651, 682_874, 33],
            || {
                let cluster = crashing(untimed(2, Budget::Times(4)), &[0, 1, 2], Budget::Times(1));
                untimed_world(&Cluster { network: Network::Free { repeats: true }, ..cluster })
            },
        ),
        row(
            "untimed-2-table",
            "2 hosts with replicas and a client, no clock, 3 timers fire, 1 crash of a host",
            false,
            [714_365, 2_542_197, 34],
            || {
                let cluster = crashing(untimed(2, Budget::Times(3)), &[0, 1], Budget::Times(1));
                table_world(with_table(cluster, &[("x", "1")]))
            },
        ),
        row(
            "untimed-2-table-writes",
            "the same with 2 writes to one row and no crash, 3 timers fire",
            false,
            [349_601, 1_152_478, 37],
            || {
                let cluster = untimed(2, Budget::Times(3));
                table_world(with_table(cluster, &[("x", "1"), ("x", "2")]))
            },
        ),
        row(
            "untimed-3-table",
            "3 hosts with replicas and a client, no clock, 2 timers fire",
            false,
            [153_748, 523_039, 29],
            || table_world(with_table(untimed(3, Budget::Times(2)), &[("x", "1")])),
        ),
        row(
            "timely-2-takeover",
            "2 hosts on a timely network, 1 crash of a host: somebody leads again within the bound",
            true,
            [135_525, 302_327, 75],
            || takeover_world(2, Safeguards::ALL),
        ),
        row(
            "timely-2-slow",
            "2 hosts, and a store whose answers take longer than poll and retry: somebody leads nevertheless",
            false,
            [1_281_817, 8_231_766, 61],
            || slow_world(Safeguards::ALL),
        ),
        row(
            "timely-3-takeover",
            "3 hosts on a timely network, 1 crash of a host: somebody leads again within the bound",
            false,
            [7_179_989, 21_792_892, 98],
            || takeover_world(3, Safeguards::ALL),
        ),
        row(
            "timely-2-stable",
            "2 hosts on a timely network that loses 1 message: the leader never changes",
            true,
            [80_832, 199_744, 51],
            || stable_world(losing(timely(2), 1)),
        ),
        row(
            "timely-2-foreign",
            "2 hosts on a timely network, somebody else writes the record: the leader never changes",
            true,
            [70_891, 175_284, 58],
            || stable_world(told(timely(2), Outside::ForeignField, 1)),
        ),
        row(
            "timely-2-handover",
            "2 hosts on a timely network, hints of the store, a consented hand-over: the gap is within its bound",
            true,
            [121_822, 444_300, 65],
            handover_world,
        ),
    ]
}

fn untimed_world(cluster: &Cluster) -> LeaseWorld {
    cluster.world(vec![
        unique_holder_per_epoch(),
        read_only_under_another(),
        holder_has_deadline(),
        elected(),
        renewed(),
        taken_over(),
        expired(),
    ])
}

fn table_world(cluster: Cluster) -> LeaseWorld {
    let mut world = untimed_world(&cluster);
    world.properties.extend([fenced_effects(), no_lost_ack(), acknowledged(), shrunk()]);
    world
}

fn takeover_world(hosts: u16, safeguards: Safeguards) -> LeaseWorld {
    let cluster = timely(hosts);
    let bound = cluster.takeover(DELAY);
    let leaderless = Some(Leaderless { bound, from_start: true });
    let nodes: Vec<usize> = (0..hosts.into()).collect();
    let cluster = crashing(cluster, &nodes, Budget::Times(1));
    let keeps = Keeps { leaderless, ..Keeps::default() };
    Cluster { safeguards, keeps, ..cluster }.world(vec![
        takeover_bound(),
        single_writer(),
        elected(),
        taken_over(),
    ])
}

/// A round trip is 4 ticks, a retry 1 and a poll 2: each request is sent several times before its answer
/// can come.
fn slow_world(safeguards: Safeguards) -> LeaseWorld {
    let slow = ticks(Ticks {
        lease: 0,
        give_up: 16,
        renew: 3,
        retry: 1,
        poll: 2,
        jitter: 0,
        hook: 0,
        clock_error_ppm: 0,
    });
    let cluster = Cluster { network: Network::Timely { delay: 2 }, safeguards, ..slow };
    let bound = cluster.takeover(2);
    let leaderless = Some(Leaderless { bound, from_start: true });
    let keeps = Keeps { leaderless, ..Keeps::default() };
    Cluster { keeps, ..cluster }.world(vec![
        takeover_bound(),
        single_writer(),
        elected(),
        renewed(),
    ])
}

fn stable_world(cluster: Cluster) -> LeaseWorld {
    let keeps = Keeps { first_leader: true, ..Keeps::default() };
    Cluster { keeps, ..cluster }.world(vec![stable_leader(), single_writer(), elected(), renewed()])
}

fn handover_world() -> LeaseWorld {
    let cluster = Cluster { hints: true, ..told(timely(2), Outside::HandOver, 1) };
    let leaderless = Some(Leaderless { bound: cluster.handover_gap(DELAY), from_start: false });
    let keeps = Keeps { leaderless, ..Keeps::default() };
    Cluster { keeps, ..cluster }.world(vec![
        handover_gap(),
        single_writer(),
        unique_holder_per_epoch(),
        elected(),
        handed_over(),
    ])
}

/// One model for each rule that an actor keeps, without that rule.
pub fn mutants() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |rule: Safeguards,
                   property: &'static str,
                   steps: u32,
                   [world, mended]: [fn() -> LeaseWorld; 2]| {
        let (name, _) = rule.iter_names().next().expect("one rule");
        let words = name.splitn(3, '_').nth(2).expect("L_<number>_<WORDS>");
        rows.push(Row {
            name: rule.id(),
            about: format!("without: {}", words.to_ascii_lowercase().replace('_', " ")),
            expected: Expected::Violated { property, steps },
            quick: true,
            world,
            mended: Some(mended),
        });
    };
    /// A cluster without one rule, and the one property that must then fail.
    macro_rules! without {
        ($rule:ident, $property:ident, $steps:expr, $cluster:expr) => {
            without!($rule, $property, $steps, $cluster, $cluster)
        };
        ($rule:ident, $property:ident, $steps:expr, $cluster:expr, $mended:expr) => {
            add(
                Safeguards::$rule,
                stringify!($property),
                $steps,
                [
                    || {
                        let safeguards = Safeguards::except(Safeguards::$rule);
                        let cluster: Cluster = $cluster;
                        Cluster { safeguards, ..cluster }.world(vec![$property()])
                    },
                    || {
                        let cluster: Cluster = $mended;
                        cluster.world(vec![$property()])
                    },
                ],
            );
        };
    }
    without!(L_1_DEADLINE_FROM_SEND, single_writer, 15, base());
    without!(
        L_2_HOOK_TIME_COUNTS,
        single_writer,
        15,
        hooked(Safeguards::except(Safeguards::L_2_HOOK_TIME_COUNTS)),
        hooked(Safeguards::ALL)
    );
    without!(L_6_NO_WALL_CLOCK, single_writer, 9, base());
    without!(L_9_WATCH_RESTARTS, single_writer, 19, base());
    without!(L_10_WATCH_FROM_RECEIPT, single_writer, 14, base());
    without!(L_11_DEADLINE_IS_FINAL, single_writer, 16, base());
    without!(L_13_TIMER_PER_ATTEMPT, single_writer, 15, base());
    without!(L_15_RENEW_CONDITIONAL, unique_holder_per_epoch, 14, base());
    without!(L_16_RELEASE_CONDITIONAL, single_writer, 22, {
        let network = Network::Free { repeats: false };
        Cluster { network, ..told(base(), Outside::StepDown, 1) }
    });
    without!(L_17_TAKEOVER_CONDITIONAL, single_writer, 8, base());
    without!(L_18_NONCE_PER_ATTEMPT, single_writer, 15, base());
    without!(L_19_OWN_WRITE_IS_KNOWN, stable_leader, 14, {
        let keeps = Keeps { first_leader: true, ..Keeps::default() };
        Cluster { keeps, ..losing(timely(2), 1) }
    });
    without!(L_20A_CONFLICT_ENDS_TERM, read_only_under_another, 11, untimed(2, Budget::Unlimited));
    without!(L_20B_FOREIGN_FIELD_KEEPS_TERM, stable_leader, 11, {
        let keeps = Keeps { first_leader: true, ..Keeps::default() };
        Cluster { keeps, ..told(timely(2), Outside::ForeignField, 1) }
    });
    without!(L_21_UNKNOWN_NEVER_EXTENDS, single_writer, 16, base());
    without!(L_22_STORE_CHECKS_VERSION, unique_holder_per_epoch, 6, base());
    without!(L_23_TAKE_WHAT_WAS_WATCHED, single_writer, 19, base());
    without!(L_25_TAKEOVER_RAISES_EPOCH, unique_holder_per_epoch, 14, base());
    without!(
        L_26_RELEASE_RAISES_EPOCH,
        unique_holder_per_epoch,
        10,
        told(base(), Outside::StepDown, 1)
    );
    without!(L_27_TOMBSTONE, unique_holder_per_epoch, 10, told(base(), Outside::StepDown, 1));
    without!(
        L_28_RESOURCE_FENCES,
        fenced_effects,
        7,
        with_table(untimed(2, Budget::Times(2)), &[("x", "1")])
    );
    without!(
        L_29_IDENTITY_HAS_INCARNATION,
        unique_holder_per_epoch,
        8,
        crashing(base(), &[0, 1], Budget::Times(1))
    );
    without!(L_30_NO_RESUME, single_writer, 16, crashing(base(), &[0, 1], Budget::Times(1)));
    without!(L_31_STOP_BEFORE_RELEASE, single_writer, 10, told(base(), Outside::StepDown, 1));
    without!(L_32_LOCAL_END_BEFORE_RELEASE, single_writer, 10, told(base(), Outside::StepDown, 1));
    without!(L_33_RELEASE_FORGETS_ATTEMPTS, single_writer, 17, told(base(), Outside::StepDown, 1));
    add(
        Safeguards::L_38_RECONTEND,
        "takeover_bound",
        32,
        [
            || takeover_world(2, Safeguards::except(Safeguards::L_38_RECONTEND)),
            || takeover_world(2, Safeguards::ALL),
        ],
    );
    without!(L_43_HOSTS_WRITE, single_writer, 9, told(base(), Outside::Stranger, 1));
    without!(
        L_41_IN_SYNC_SET,
        no_lost_ack,
        2,
        with_table(untimed(2, Budget::Times(3)), &[("x", "1")])
    );
    add(
        Safeguards::L_42_RETRY_KEEPS_NAME,
        "takeover_bound",
        66,
        [
            || slow_world(Safeguards::except(Safeguards::L_42_RETRY_KEEPS_NAME)),
            || slow_world(Safeguards::ALL),
        ],
    );
    rows
}

/// How long a row that is stuck may run before it is called incomplete.
pub const TIME_MAX: Duration = Duration::from_secs(15 * 60);
