//! Every model of operations between regions, and what must come of it.

use stateright::Property;

use super::claims::{
    ClaimWorld, Claims, deleted_at_requester, epochs_only_grow, every_claim_ends, late_report,
    no_call_for_a_lost_claim, no_record_agreement, nothing_is_skipped, only_fresh_calls_count,
    pending_at_requester, stale_report_changes_nothing,
};
use super::properties::{
    accepted_again, accepted_in_time, all_thawed, audited, both_active, dead_is_decided,
    dead_stays_dead, deleted, disposed_is_fenced, expired, failed, forgotten, half_is_justified,
    no_half_falls, no_lost_update, nobody_accepted, nobody_is_denied, nothing_is_stuck,
    one_decision, one_effect_per_token, one_live_per_pair, quota_kept, rank_never_falls, recovered,
    rejected, rest_is_agreement, thawed, thawed_together, third_done,
};
use super::{IrcWorld, PENDING, Scope, Wish, ask, change, create, first, timed};
use crate::irc::facts::{Bundle, Decided, Decision, Incarnation, Region, Sealed, Version};
use crate::irc::msg::{
    Body, Call, ClaimEpoch, Command, Errand, Kind, Msg, RecordId, Request, Work,
};
use crate::irc::peering::Verb::{Accept, Delete, Reject};
use crate::irc::safeguards::Safeguards;
use crate::models::check::{run_world, tell_raw};
use crate::models::engine::{Limits, Progress};
use crate::models::registry::{Counts, Entry, Expected};
use crate::models::space::{Walkable, space};
use crate::models::world::{Observer, StateOf, World};

pub(super) fn entry<A, O>(
    name: &str,
    about: &str,
    quick: bool,
    expected: Expected,
    world: fn() -> World<A, O>,
) -> Entry
where
    A: Walkable,
    O: Observer<A> + Send + Sync + 'static,
    StateOf<A, O>: Send + Sync,
{
    let owned = name.to_owned();
    Entry {
        name: name.to_owned(),
        about: about.to_owned(),
        expected,
        quick,
        space: Box::new(move || space(world)),
        mended: None,
        explore: Box::new(move |limits: Limits, on_progress: &mut dyn FnMut(Progress)| {
            run_world(&owned, expected, &world(), limits, on_progress, tell_raw)
        }),
    }
}

/// All that must hold in every world of control planes.
pub fn invariants() -> Vec<Property<IrcWorld>> {
    vec![
        one_decision(),
        nothing_is_stuck(),
        half_is_justified(),
        rank_never_falls(),
        dead_stays_dead(),
        one_live_per_pair(),
        accepted_in_time(),
        one_effect_per_token(),
        nobody_is_denied(),
        audited(),
        no_lost_update(),
        no_half_falls(),
        disposed_is_fenced(),
        quota_kept(),
        dead_is_decided(),
        rest_is_agreement(),
    ]
}

/// A model in which everything must hold.
pub struct Row<W = IrcWorld> {
    /// Its name.
    pub name: &'static str,
    /// What it is about, in one line.
    about: &'static str,
    /// Whether every test runs it.
    quick: bool,
    /// States, transitions with the initial state, depth.
    counts: [u64; 3],
    /// Makes it.
    pub world: fn() -> W,
}

pub(super) fn row<W>(
    name: &'static str,
    about: &'static str,
    quick: bool,
    counts: [u64; 3],
    world: fn() -> W,
) -> Row<W> {
    Row { name, about, quick, counts, world }
}

impl<A, O> From<Row<World<A, O>>> for Entry
where
    A: Walkable,
    O: Observer<A> + Send + Sync + 'static,
    StateOf<A, O>: Send + Sync,
{
    fn from(Row { name, about, quick, counts, world }: Row<World<A, O>>) -> Self {
        entry(name, about, quick, counted(counts), world)
    }
}

fn counted([unique, generated, depth]: [u64; 3]) -> Expected {
    let depth = u32::try_from(depth).expect("a depth is small");
    Expected::Safe(Counts { unique, generated, depth })
}

fn safe_world(scope: &Scope, witnesses: Vec<Property<IrcWorld>>) -> IrcWorld {
    scope.world(invariants().into_iter().chain(witnesses).collect())
}

/// One request from region 0 to region 1, and what may become of it.
pub(super) fn one(others: Vec<Wish>) -> Scope {
    let mut wishes = vec![create(0, 1, 1)];
    wishes.extend(others);
    Scope::new(wishes)
}

pub(super) fn accept() -> Wish {
    change(1, 0, 2, Accept)
}

pub(super) fn reject() -> Wish {
    change(1, 0, 3, Reject)
}

pub(super) fn delete_by_r() -> Wish {
    change(0, 0, 4, Delete)
}

pub(super) fn delete_by_a() -> Wish {
    change(1, 0, 5, Delete)
}

/// A server of R says, in the name of its region, that A has accepted.
fn lie() -> Wish {
    let facts = Decided {
        decision: Some(Decision::Accepted),
        deadline: Some(PENDING),
        ..Decided::default()
    };
    let bundle = Bundle::Accepter(Sealed { facts, seal: 0 });
    let errand = Errand::Apply {
        kind: Kind::PEERING,
        id: first(0),
        op: 9,
        closed_below: 0,
        body: Body::of(&bundle),
    };
    let record = RecordId { n: 1, seq: 9 };
    let call = Call {
        from: Region(0),
        incarnation: Incarnation { n: 1, life: 0 },
        tag: (Work::Record(record), ClaimEpoch::default()),
        errand,
    };
    Wish { at: 1, from: 0, msg: Msg::Call(Box::new(call)) }
}

pub(super) fn modify_by_r() -> Wish {
    let expected = Version { n: 1, counter: 0 };
    ask(0, 6, Request::Modify { id: first(0), expected, resolve_names: true })
}

pub(super) fn restored(scope: Scope, restores: [u8; 2]) -> Scope {
    Scope { restores: restores.to_vec(), ..scope }
}

/// The same, to the first state in which there is a request.
pub(super) fn put_back(scope: Scope, restores: [u8; 2]) -> Scope {
    Scope { early_backup: true, ..restored(scope, restores) }
}

pub(super) fn expiring(scope: Scope) -> Scope {
    Scope { pending: 1, clock: 1, ..scope }
}

pub(super) fn forgetting(scope: Scope, clock: u64) -> Scope {
    Scope { remember: 1, clock, ..scope }
}

fn claims(servers: u16, wishes: Vec<Wish>, claims: u64) -> Claims {
    Claims { servers, wishes, crashes: (Vec::new(), 0), claims, safeguards: Safeguards::ALL }
}

fn claim_world(claims: &Claims, witnesses: Vec<Property<ClaimWorld>>) -> ClaimWorld {
    let mut properties = vec![
        stale_report_changes_nothing(),
        epochs_only_grow(),
        only_fresh_calls_count(),
        every_claim_ends(),
        no_record_agreement(),
        no_call_for_a_lost_claim(),
        nothing_is_skipped(),
    ];
    properties.extend(witnesses);
    claims.world(properties)
}

/// Every model in which everything must hold.
pub fn safe() -> Vec<Entry> {
    let untimed = rows().into_iter().map(Entry::from);
    let claims = claim_rows().into_iter().map(Entry::from);
    untimed.chain(claims).chain(timed::registry::rows().into_iter().map(Entry::from)).collect()
}

/// The models of control planes with the freest carrier.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn rows() -> Vec<Row> {
    vec![
        row(
            "irc-one",
            "1 request: accept, reject, deletion by its requester",
            true,
            [150, 669, 11],
            || {
                let scope = one(vec![accept(), reject(), delete_by_r()]);
                safe_world(&scope, vec![both_active(), deleted(), rejected()])
            },
        ),
        row(
            "irc-all",
            "1 request: accept, reject, deletion and options by either side, expiry",
            false,
            [42_414, 314_167, 19],
            || {
                let wishes = vec![
                    accept(),
                    reject(),
                    modify_by_r(),
                    modify_by_a(),
                    delete_by_r(),
                    delete_by_a(),
                ];
                let scope = expiring(one(wishes));
                safe_world(&scope, vec![both_active(), deleted(), rejected(), expired()])
            },
        ),
        row(
            "irc-options",
            "1 request with options that two operators of a side change at once, and the other side's",
            true,
            [6652, 45_129, 17],
            || {
                let wishes =
                    vec![accept(), modify_by_r(), modify_again(), modify_by_a(), delete_by_a()];
                safe_world(&one(wishes), vec![both_active(), deleted()])
            },
        ),
        row(
            "irc-forget",
            "1 request that ends in any way and is forgotten, either control plane crashes",
            true,
            [41_835, 231_852, 19],
            || {
                let wishes = vec![accept(), reject(), delete_by_r(), delete_by_a()];
                let scope = Scope { crashes: 1, ..forgetting(one(wishes), 2) };
                safe_world(&scope, vec![both_active(), deleted(), forgotten()])
            },
        ),
        row(
            "irc-again",
            "1 request that is rejected or deleted, then another for the pair",
            true,
            [3_555, 24_445, 19],
            || {
                let wishes =
                    vec![reject(), accept(), delete_by_r(), create(0, 1, 7), accept_second()];
                safe_world(&one(wishes), vec![rejected(), accepted_again()])
            },
        ),
        row(
            "irc-crossing",
            "2 requests for one pair that cross, accepted or deleted by their owners",
            false,
            [91_995, 617_370, 23],
            || {
                let wishes = vec![
                    create(1, 0, 8),
                    accept(),
                    change(0, 1, 9, Accept),
                    delete_by_r(),
                    change(1, 1, 10, Delete),
                ];
                let scope = Scope { crashes: 1, ..one(wishes) };
                safe_world(&scope, vec![both_active(), failed(), deleted()])
            },
        ),
        row(
            "irc-crash",
            "1 request: accept, deletion by either side, either control plane crashes, 3 crashes",
            true,
            [7_420, 33_040, 18],
            || {
                let wishes = vec![accept(), delete_by_r(), delete_by_a()];
                let scope = Scope { crashes: 3, ..one(wishes) };
                safe_world(&scope, vec![both_active(), deleted()])
            },
        ),
        row(
            "irc-three",
            "3 regions, a request from the first to the second and from the second to the third",
            false,
            [25_860, 208_025, 21],
            || {
                let wishes = vec![
                    create(1, 2, 8),
                    accept(),
                    change(2, 1, 9, Accept),
                    delete_by_r(),
                    change(2, 1, 10, Delete),
                ];
                let scope = Scope { regions: 3, restores: vec![0, 0, 0], ..one(wishes) };
                safe_world(&scope, vec![both_active(), deleted()])
            },
        ),
        row(
            "irc-delete-dead",
            "1 request that is rejected, and then deleted by the one who has rejected it",
            true,
            [24, 73, 8],
            || safe_world(&one(vec![reject(), delete_by_a()]), vec![rejected(), third_done()]),
        ),
        row(
            "irc-token",
            "1 request that is said again under its token, also when it is over and forgotten",
            true,
            [10_190, 59_563, 16],
            || {
                let wishes = vec![create(0, 1, 1), create(0, 1, 1), accept(), delete_by_r()];
                let scope = Scope { crashes: 1, ..forgetting(one(wishes), 1) };
                safe_world(&scope, vec![both_active(), forgotten()])
            },
        ),
        row(
            "irc-quota",
            "3 regions, requests of two at one network of the third, which takes one at a time",
            true,
            [1_214, 6_347, 16],
            || safe_world(&crowded(), vec![both_active(), failed()]),
        ),
        row(
            "irc-dispose",
            "1 request: accept, deletion by its requester, whose region is declared gone",
            true,
            [818, 3_512, 15],
            || {
                let scope = one(vec![accept(), delete_by_r(), dispose(), create(0, 1, 7)]);
                safe_world(&scope, vec![both_active(), deleted()])
            },
        ),
        row(
            "irc-liar",
            "1 request, a server of R that says A has accepted",
            true,
            [14, 48, 7],
            || {
                let mut world = safe_world(&one(vec![lie(), reject()]), vec![rejected()]);
                world.properties.push(nobody_accepted());
                world
            },
        ),
        row(
            "irc-restore-a",
            "1 request: accept, reject, deletion by either side, A's region restored once, to any moment",
            true,
            [17_387, 84_544, 22],
            || {
                let wishes = vec![accept(), reject(), delete_by_r(), delete_by_a()];
                let scope = restored(one(wishes), [0, 1]);
                safe_world(&scope, vec![both_active(), thawed(), recovered()])
            },
        ),
        row(
            "irc-restore-a-twice",
            "1 request: accept, reject, deletion by its requester, A's region restored twice from one backup",
            false,
            [55_518, 575_067, 27],
            || {
                let wishes = vec![accept(), reject(), delete_by_r()];
                let scope = restored(one(wishes), [0, 2]);
                safe_world(&scope, vec![both_active(), thawed(), recovered()])
            },
        ),
        row(
            "irc-restore-r",
            "1 request: accept, reject, options and deletion by its requester, whose region is restored once, to any moment",
            true,
            [17_579, 90_853, 20],
            || {
                let wishes = vec![accept(), reject(), modify_by_r(), delete_by_r()];
                let scope = restored(one(wishes), [1, 0]);
                safe_world(&scope, vec![both_active(), thawed(), recovered()])
            },
        ),
        row(
            "irc-restore-both",
            "1 request: accept, reject, deletion by its requester, both regions restored once, to any moment",
            false,
            [256_443, 1_511_406, 28],
            || {
                let scope = restored(one(vec![accept(), reject(), delete_by_r()]), [1, 1]);
                let witnesses = vec![both_active(), all_thawed(), thawed_together(), recovered()];
                safe_world(&scope, witnesses)
            },
        ),
        row(
            "irc-restore-both-deleted",
            "1 request: accept, deletion by its accepter, both regions restored once, to any moment",
            true,
            [121_652, 656_616, 26],
            || {
                let scope = restored(one(vec![accept(), delete_by_a()]), [1, 1]);
                let witnesses = vec![both_active(), all_thawed(), thawed_together(), recovered()];
                safe_world(&scope, witnesses)
            },
        ),
        row(
            "irc-restore-forget",
            "1 request: accept, deletion by its requester, both regions restored once, what is over is forgotten",
            false,
            [53_997, 306_545, 31],
            || {
                let scope = put_back(forgetting(one(vec![accept(), delete_by_r()]), 1), [1, 1]);
                let witnesses = vec![both_active(), all_thawed(), thawed_together(), recovered()];
                safe_world(&scope, witnesses)
            },
        ),
        row(
            "irc-restore-crossing",
            "2 requests for one pair that cross, A's region restored once, to any moment",
            false,
            [28_431, 158_793, 23],
            || {
                let wishes = vec![create(1, 0, 8), accept(), change(0, 1, 9, Accept)];
                safe_world(&restored(one(wishes), [0, 1]), vec![both_active(), thawed()])
            },
        ),
    ]
}

/// The models of claims, with the real servers.
pub fn claim_rows() -> Vec<Row<ClaimWorld>> {
    vec![
        row(
            "irc-claims",
            "2 servers share the log with 1 request, 3 claims",
            false,
            [237_976, 1_199_022, 26],
            || {
                let claims = claims(2, vec![create(0, 1, 1)], 3);
                claim_world(&claims, vec![pending_at_requester(), late_report()])
            },
        ),
        row(
            "irc-claims-records",
            "1 server, a request and its deletion, 3 claims",
            false,
            [160_525, 751_164, 27],
            || {
                let claims = claims(1, vec![create(0, 1, 1), delete_by_r()], 3);
                let witnesses = vec![pending_at_requester(), deleted_at_requester(), late_report()];
                claim_world(&claims, witnesses)
            },
        ),
        row(
            "irc-claims-two",
            "2 servers, a request and its deletion, 2 claims",
            true,
            [17_240, 68_701, 19],
            || {
                let claims = claims(2, vec![create(0, 1, 1), delete_by_r()], 2);
                let witnesses = vec![pending_at_requester(), deleted_at_requester(), late_report()];
                claim_world(&claims, witnesses)
            },
        ),
        row(
            "irc-claims-crash",
            "1 server, 1 crash of it or of the control plane, 2 claims each",
            false,
            [1_170_790, 6_760_718, 36],
            || {
                let claims = claims(1, vec![create(0, 1, 1)], 2);
                let claims = Claims { crashes: (vec![0, 2], 1), ..claims };
                claim_world(&claims, vec![pending_at_requester(), late_report()])
            },
        ),
    ]
}

/// One model for each rule, without that rule.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn mutants() -> Vec<Entry> {
    let mut rows = Vec::new();
    macro_rules! without {
        ($rule:ident, $property:ident, $steps:expr, $scope:expr) => {
            without!(
                $rule,
                $property,
                scope,
                Expected::Violated { property: stringify!($property), steps: $steps },
                $scope
            )
        };
        ($rule:ident, never $property:ident, $scope:expr) => {
            without!(
                $rule,
                $property,
                scope,
                Expected::Never { property: stringify!($property) },
                $scope
            )
        };
        ($rule:ident, claims $property:ident, $steps:expr, $scope:expr) => {
            without!(
                $rule,
                $property,
                scope,
                Expected::Violated { property: stringify!($property), steps: $steps },
                $scope
            )
        };
        ($rule:ident, $property:ident, scope, $expected:expr, $scope:expr) => {{
            let rule = Safeguards::$rule;
            let words = stringify!($rule).splitn(3, '_').nth(2).expect("I_<number>_<WORDS>");
            let about = format!("without: {}", words.to_ascii_lowercase().replace('_', " "));
            let left_out = entry(&rule.id(), &about, true, $expected, || {
                let safeguards = Safeguards::except(Safeguards::$rule);
                let mut scope = $scope;
                scope.safeguards = safeguards;
                scope.world(vec![$property()])
            });
            let mended = || space(|| $scope.world(vec![$property()]));
            rows.push(Entry { mended: Some(Box::new(mended)), ..left_out });
        }};
    }
    without!(I_1_ONLY_A_EXPIRES, one_decision, 5, expiring(one(vec![accept()])));
    without!(I_2_FACTS_JOIN, rank_never_falls, 5, one(vec![accept(), modify_by_r()]));
    without!(I_3_KEPT_UNTIL_ACKNOWLEDGED, claims no_record_agreement, 5, claims(1, vec![create(0, 1, 1), delete_by_r()], 3));
    without!(
        I_4_FORGET_AFTER_CONFIRMATION,
        rest_is_agreement,
        4,
        forgetting(one(vec![accept(), delete_by_r()]), 1)
    );
    without!(I_5_WATERMARK, dead_stays_dead, 5, forgetting(one(vec![accept(), delete_by_r()]), 1));
    without!(
        I_6_FREEZE_AFTER_RESTORE,
        one_decision,
        6,
        put_back(one(vec![accept(), reject()]), [0, 1])
    );
    without!(I_7_PROMISE, one_decision, 10, put_back(one(vec![accept(), reject()]), [0, 1]));
    without!(
        I_8_FLOOR_LEARNED_BACK,
        one_decision,
        15,
        put_back(one(vec![accept(), reject()]), [1, 1])
    );
    without!(
        I_9_INCARNATION_UNIQUE,
        one_decision,
        15,
        put_back(one(vec![accept(), reject()]), [0, 2])
    );
    without!(
        I_10_OLD_PROMISE_VOID,
        one_decision,
        14,
        put_back(one(vec![accept(), reject()]), [1, 1])
    );
    without!(
        I_11_PROMISE_WHILE_FROZEN,
        never thawed_together,
        put_back(one(vec![accept()]), [1, 1])
    );
    without!(
        I_12_MERGE_THEN_DECIDE,
        dead_is_decided,
        8,
        put_back(one(vec![delete_by_r()]), [0, 1])
    );
    without!(I_13_TIE_BREAK, one_live_per_pair, 3, one(vec![create(1, 0, 8)]));
    without!(I_14_DEAD_DOES_NOT_BLOCK, never accepted_again, one(vec![reject(), create(0, 1, 7), accept_second()]));
    without!(I_15_CLAIM_EPOCH_CHECKED, claims stale_report_changes_nothing, 7, claims(2, vec![create(0, 1, 1)], 2));
    without!(I_16_EPOCH_NEVER_RESET, claims epochs_only_grow, 4, claims(1, vec![create(0, 1, 1)], 3));
    without!(I_17_FRESH_AT_EFFECT, claims only_fresh_calls_count, 20, claims(1, vec![create(0, 1, 1), modify_by_r()], 3));
    without!(
        I_18_REPLY_OF_CURRENT_LIFE,
        one_decision,
        11,
        put_back(one(vec![accept(), reject(), modify_by_r()]), [0, 1])
    );
    without!(I_19_LEASES_EXPIRE, claims every_claim_ends, 2, claims(1, vec![create(0, 1, 1)], 1));
    without!(I_21_ONE_TRANSACTION, rest_is_agreement, 3, Scope { crashes: 1, ..one(vec![]) });
    without!(I_30_AUTHORITY, nobody_accepted, 3, one(vec![lie()]));
    without!(I_31_QUOTAS, quota_kept, 4, crowded());
    without!(I_32_DISPOSAL_FENCES, disposed_is_fenced, 9, one(vec![dispose()]));
    without!(I_33_OWN_HALF_FIRST, half_is_justified, 5, one(vec![accept(), delete_by_a()]));
    without!(I_34_DELETE_IDEMPOTENT, never third_done, one(vec![reject(), delete_by_a()]));
    without!(I_35_NOT_YET_VISIBLE, nobody_is_denied, 2, one(vec![accept()]));
    without!(I_36_HALVES_BY_FACTS, no_half_falls, 5, put_back(one(vec![accept()]), [0, 1]));
    without!(I_39_EXPECTED_VERSION, no_lost_update, 5, one(vec![modify_by_r(), modify_again()]));
    without!(
        I_38_DEADLINE_IN_TRANSACTION,
        accepted_in_time,
        9,
        put_back(expiring(one(vec![accept()])), [0, 1])
    );
    without!(I_20_EXTEND_BEFORE_CALL, claims no_call_for_a_lost_claim, 4, claims(2, vec![create(0, 1, 1)], 2));
    without!(I_22_NO_CURSOR, claims nothing_is_skipped, 3, claims(1, vec![create(0, 1, 1)], 2));
    without!(I_41_TOKEN_KEPT, one_effect_per_token, 5, one(vec![delete_by_r(), create(0, 1, 1)]));
    without!(I_42_EVERY_CHANGE_AUDITED, audited, 2, one(vec![]));
    without!(
        I_43_SEAL_WITH_ITS_FACTS,
        nothing_is_stuck,
        17,
        restored(one(vec![accept(), delete_by_a()]), [1, 1])
    );
    rows.extend(timed::registry::mutants());
    rows
}

fn modify_by_a() -> Wish {
    let expected = Version { n: 0, counter: 0 };
    ask(1, 11, Request::Modify { id: first(0), expected, resolve_names: true })
}

fn modify_again() -> Wish {
    let expected = Version { n: 1, counter: 0 };
    ask(0, 12, Request::Modify { id: first(0), expected, resolve_names: false })
}

/// The operator of A's region declares R's gone.
pub(super) fn dispose() -> Wish {
    Wish { at: 1, from: 1, msg: Msg::Operate(Command::Dispose(Region(0))) }
}

/// Two regions want to peer with one network that takes one request at a time.
fn crowded() -> Scope {
    let wishes = vec![create(2, 1, 8), accept(), delete_by_r()];
    Scope { regions: 3, restores: vec![0, 0, 0], pending_max: 1, ..one(wishes) }
}

/// A's owner accepts the second request.
fn accept_second() -> Wish {
    let id = crate::irc::facts::OpId { seq: 1, ..first(0) };
    ask(1, 10, Request::Change { id, verb: Accept })
}
