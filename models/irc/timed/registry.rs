//! Every timed model of operations between regions, and what must come of it.

use super::numbers::{LEAST, Numbers};
use super::watch::{
    Watch, active_in_time, backlog_drains, both_active, both_deleted, both_expired, both_open,
    carried_by_who_knows, claims_end_apart, decided_by_deadline, delete_gets_through,
    deleted_in_time, deleted_without_peer, half_off_at_once, log_empty, near_arrived,
    notice_arrived, second_arrived, sends_are_paced, served_in_time, set_aside, set_aside_in_time,
    thawed_in_time, views_agree_in_time,
};
use super::{Post, Scope, TimedWorld, ledgers, post};
use crate::irc::facts::{Account, Incarnation, Network, Region, Target};
use crate::irc::ledger::Ledger;
use crate::irc::msg::{Command, Kind, Msg, RecordId, Request};
use crate::irc::safeguards::Safeguards;
use crate::models::irc::registry::{Row, accept, delete_by_r, entry, row};
use crate::models::irc::{Scope as Untimed, Wish, ask, create};
use crate::models::registry::{Entry, Expected};
use crate::models::space::space;

/// R asks to peer its other network with A's other one.
fn create_second() -> Wish {
    let target = Target { region: Region(1), account: Account(1), network: Network(11) };
    ask(0, 21, Request::Create { network: Network(10), target, resolve_names: false })
}

/// What an untimed run of these wishes leads to; all of it was carried.
fn after(wishes: Vec<Wish>) -> Vec<Ledger> {
    let scope = Untimed::new(wishes);
    ledgers(&scope, scope.wishes.len())
}

/// R has asked for this many peerings, and nothing of it was carried yet.
fn asked(requests: usize) -> Vec<Ledger> {
    let mut wishes = vec![create(0, 1, 1), create_second()];
    wishes.truncate(requests);
    ledgers(&Untimed { second_networks: true, ..Untimed::new(wishes) }, 0)
}

/// E1: a request is at its accepter, which compares what it knows with R all the time; nobody decides.
fn expiry() -> Scope {
    let numbers = Numbers { pending: 2, ..LEAST };
    let scope = Untimed { pending: numbers.pending, ..Untimed::new(vec![create(0, 1, 1)]) };
    Scope {
        posts: vec![post(1)],
        sweeps: vec![1],
        numbers,
        clocks: true,
        watches: vec![(Watch::Decided, numbers.decide(0))],
        ..Scope::new(ledgers(&scope, 1))
    }
}

/// E2, E3: a request is at its accepter, the links are cut, and it is accepted at any moment; the server
/// that carries this may die.
fn heal() -> Scope {
    Scope {
        posts: vec![post(1)],
        outage: true,
        wishes: vec![accept()],
        crashes: (vec![2], 1, true),
        watches: vec![(Watch::Agreed, LEAST.heal()), (Watch::Active, LEAST.heal() + LEAST.switch)],
        ..Scope::new(after(vec![create(0, 1, 1)]))
    }
}

/// E2: R has lost what A has told it, and does not know that; the links are cut.
fn lost_write() -> Scope {
    let mut ledgers = after(vec![create(0, 1, 1), accept()]);
    ledgers[0] = after(vec![create(0, 1, 1)]).swap_remove(0);
    Scope {
        sweeps: vec![0],
        outage: true,
        watches: vec![(Watch::Agreed, LEAST.sync())],
        ..Scope::new(ledgers)
    }
}

/// The operator of R's region declares A's gone.
fn dispose_of_a() -> Wish {
    Wish { at: 0, from: 0, msg: Msg::Operate(Command::Dispose(Region(1))) }
}

/// E4: R deletes an active peering while A cannot be reached, or gives A's region up.
fn delete() -> Scope {
    Scope {
        outage: true,
        wishes: vec![delete_by_r(), dispose_of_a()],
        crashes: (vec![2], 1, true),
        watches: vec![(Watch::Off, 0), (Watch::Deleted, LEAST.heal())],
        ..Scope::new(after(vec![create(0, 1, 1), accept()]))
    }
}

/// E5: two requests wait for a region that never answers, and one for another is made at any moment. A
/// server has two places; a call is longer than two polls.
fn dark() -> Scope {
    let numbers = Numbers { call: 6, lease: 13, ..LEAST };
    let far = Target { region: Region(2), account: Account(1), network: Network(12) };
    let far = Request::Create { network: Network(10), target: far, resolve_names: false };
    let untimed = Untimed {
        regions: 3,
        restores: vec![0; 3],
        second_networks: true,
        ..Untimed::new(vec![create(0, 2, 1), ask(0, 2, far)])
    };
    let mut ledgers = ledgers(&untimed, 0);
    ledgers.truncate(2);
    Scope {
        absent: Some(2),
        posts: vec![Post { width: 2, ..post(0) }],
        numbers,
        wishes: vec![create(0, 1, 3)],
        watches: vec![(Watch::Served(Region(1)), numbers.serve())],
        ..Scope::new(ledgers)
    }
}

/// E6: both regions were put back to backups, and the links are cut.
fn frozen() -> Scope {
    let restored = |(region, ledger): (u64, Ledger)| {
        let on = ledger.on.clone();
        ledger.restored(Incarnation { n: 2, life: 100 + region }, on, None)
    };
    let ledgers = after(vec![create(0, 1, 1), accept()]);
    let numbers = Numbers { delay: 0, call: 1, lease: 4, ..LEAST };
    Scope {
        posts: vec![post(0), post(1)],
        numbers,
        outage: true,
        watches: vec![(Watch::Thawed, numbers.thaw())],
        ..Scope::new((0..).zip(ledgers).map(restored).collect())
    }
}

/// E7: every server dies that is handed the first of two requests; it is deleted at any moment.
fn deadly() -> Scope {
    let numbers = Numbers { delay: 0, call: 1, lease: 4, ..LEAST };
    let through = numbers.set_aside() + numbers.carry();
    Scope {
        numbers,
        deadly: Some(RecordId { n: 1, seq: 0 }),
        wishes: vec![delete_by_r()],
        watches: vec![(Watch::SetAside, numbers.set_aside()), (Watch::DeleteTold, through)],
        ..Scope::new(asked(2))
    }
}

/// E7: of two servers the older one does not know what is to be carried.
fn older_server() -> Scope {
    let older = Post { kinds: vec![Kind::PEERING], ..post(0) };
    let publish = ask(0, 22, Request::Publish { to: Region(1), value: 7 });
    Scope {
        posts: vec![older, post(0)],
        wishes: vec![publish],
        watches: vec![(Watch::NoticeTold, LEAST.carry())],
        ..Scope::new(after(Vec::new()))
    }
}

/// E8: one request waits for a region that does not answer, and is sent again and again.
fn vain() -> Scope {
    Scope {
        outage: true,
        watches: vec![(Watch::Drained, LEAST.heal())],
        pace: Some((1, LEAST.pace())),
        ..Scope::new(asked(1))
    }
}

/// E8: two requests wait for a region that does not answer; the server has a place for both.
fn backlog() -> Scope {
    let numbers = Numbers { claims: 2, ..LEAST };
    Scope {
        posts: vec![Post { width: 2, ..post(0) }],
        numbers,
        outage: true,
        watches: vec![(Watch::Drained, numbers.drain(2))],
        ..Scope::new(asked(2))
    }
}

/// I-25: the same, with a breaker that two vain calls open.
fn breaker() -> Scope {
    let numbers = Numbers { delay: 0, claims: 2, ..LEAST };
    let (failures, probe) = (2, 2 * numbers.pace());
    Scope {
        numbers,
        breaker: Some((failures, probe)),
        watches: vec![(Watch::Drained, numbers.drain(2) + probe)],
        pace: Some((2, probe)),
        ..backlog()
    }
}

/// I-26: two claims are handed out in one instant, and their server dies for good.
fn dead_server() -> Scope {
    // Nothing takes time but what is meant to: both claims are extended in the instant in which they are handed out.
    let numbers = Numbers { delay: 0, claims: 2, ..LEAST };
    Scope {
        posts: vec![Post { width: 2, ..post(0) }],
        numbers,
        crashes: (vec![2], 1, false),
        watches: vec![(Watch::Spread, 0)],
        ..Scope::new(asked(2))
    }
}

/// The timed models in which everything must hold.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn rows() -> Vec<Row<TimedWorld>> {
    vec![
        row(
            "irc-timed-expiry",
            "timed: 1 request that nobody decides, at an accepter that sweeps",
            false,
            [167_428, 542_305, 69],
            || expiry().world(vec![decided_by_deadline(), both_expired()]),
        ),
        row(
            "irc-timed-heal",
            "timed: 1 request accepted in an outage of any length, the server crashes once",
            false,
            [28_099, 92_324, 67],
            || heal().world(vec![views_agree_in_time(), active_in_time(), both_active()]),
        ),
        row(
            "irc-timed-sweep",
            "timed: 1 peering of which one side has lost what it was told, after an outage of any length",
            false,
            [29_334, 79_138, 68],
            || lost_write().world(vec![views_agree_in_time(), both_active()]),
        ),
        row(
            "irc-timed-delete",
            "timed: 1 peering deleted in an outage of any length, or its peer given up; the server crashes once",
            false,
            [28_730, 105_390, 67],
            || {
                delete().world(vec![
                    half_off_at_once(),
                    deleted_in_time(),
                    both_deleted(),
                    deleted_without_peer(),
                ])
            },
        ),
        row(
            "irc-timed-dark",
            "timed: 3 regions, 2 requests to one that never answers, 1 to the other",
            false,
            [225_788, 889_751, 99],
            || dark().world(vec![served_in_time(), near_arrived()]),
        ),
        row(
            "irc-timed-frozen",
            "timed: 1 peering, both regions restored, after an outage of any length",
            false,
            [45_371, 117_825, 96],
            || frozen().world(vec![thawed_in_time(), both_open()]),
        ),
        row(
            "irc-timed-deadly",
            "timed: 2 requests, of which one kills each server that touches it, and is deleted",
            true,
            [5_009, 9_200, 86],
            || {
                deadly().world(vec![
                    set_aside_in_time(),
                    delete_gets_through(),
                    set_aside(),
                    second_arrived(),
                ])
            },
        ),
        row(
            "irc-timed-kinds",
            "timed: 1 notice, 2 servers of which one does not know what a notice is",
            true,
            [3_344, 10_780, 25],
            || older_server().world(vec![carried_by_who_knows(), notice_arrived()]),
        ),
        row(
            "irc-timed-vain",
            "timed: 1 request sent in vain, an outage of any length",
            true,
            [4_945, 12_376, 58],
            || vain().world(vec![backlog_drains(), sends_are_paced(), log_empty()]),
        ),
        row(
            "irc-timed-backlog",
            "timed: 2 requests sent in vain, an outage of any length, a server with 2 places",
            false,
            [673_634, 2_674_978, 80],
            || backlog().world(vec![backlog_drains(), log_empty()]),
        ),
        row(
            "irc-timed-breaker",
            "timed: 2 requests sent in vain, an outage of any length, a server with 2 places, and a breaker",
            true,
            [2_698, 4_751, 74],
            || breaker().world(vec![backlog_drains(), sends_are_paced(), log_empty()]),
        ),
        row(
            "irc-timed-spread",
            "timed: 2 claims handed out in one instant to a server that dies for good",
            true,
            [322, 573, 24],
            || dead_server().world(vec![claims_end_apart(), second_arrived()]),
        ),
    ]
}

/// The rules that only time shows, each left out.
pub fn mutants() -> Vec<Entry> {
    let mut rows = Vec::new();
    macro_rules! without {
        ($rule:ident, $property:ident, $steps:expr, $scope:ident) => {
            let property = stringify!($property);
            without!($rule, $property, $scope, Expected::Violated { property, steps: $steps })
        };
        ($rule:ident, never $property:ident, $scope:ident) => {
            let property = stringify!($property);
            without!($rule, $property, $scope, Expected::Never { property })
        };
        ($rule:ident, $property:ident, $scope:ident, $expected:expr) => {
            let rule = Safeguards::$rule;
            let words = stringify!($rule).splitn(3, '_').nth(2).expect("I_<number>_<WORDS>");
            let about = format!("without: {}", words.to_ascii_lowercase().replace('_', " "));
            let left_out = entry(&rule.id(), &about, true, $expected, || {
                let safeguards = Safeguards::except(Safeguards::$rule);
                Scope { safeguards, ..$scope() }.world(vec![$property()])
            });
            let mended = || space(|| $scope().world(vec![$property()]));
            rows.push(Entry { mended: Some(Box::new(mended)), ..left_out });
        };
    }
    without!(I_23_CONSTANT_SWEEP, views_agree_in_time, 68, lost_write);
    without!(I_24_WAIT_HAS_A_FLOOR, sends_are_paced, 17, vain);
    without!(I_25_BUDGET_AND_BREAKER, sends_are_paced, 27, breaker);
    without!(I_26_SPREAD, never claims_end_apart, dead_server);
    without!(I_27_BULKHEAD, served_in_time, 16, dark);
    without!(I_28_DEAD_LETTER, set_aside_in_time, 81, deadly);
    without!(I_29_UNKNOWN_KINDS_LEFT, carried_by_who_knows, 27, older_server);
    rows
}

/// A registered world that leaves out this rule.
///
/// # Panics
///
/// If there is none of that name here.
pub fn without(rule: Safeguards, name: &str) -> TimedWorld {
    let scope = match name {
        "irc-timed-heal" => heal(),
        "irc-timed-delete" => delete(),
        _ => panic!("no such model here: {name}"),
    };
    let properties = vec![views_agree_in_time(), deleted_in_time()];
    Scope { safeguards: Safeguards::except(rule), ..scope }.world(properties)
}
