//! What customers of regions see has an order: their histories, in real time and with unknown outcomes, in simulation.
//!
//! `src/sim/history.rs` says how a history is judged, `src/sim/token.rs` and `src/sim/two_sides.rs` what the objects are.
//! Here regions have several customers, and most calls only read.

use std::ops::Range;
use std::time::Duration;

use tenure::irc::facts::{
    Account, Decided, Decision, Network, OpId, Options, Region, Requested, Target, Version,
};
use tenure::irc::msg::{Answer, CallError, Request, Shown, Token, block_of};
use tenure::irc::peering::{Label, Side, Verb};
use tenure::irc::safeguards::Safeguards;
use tenure::sim::history::{History, Turn};
use tenure::sim::irc::{Outcome, Regions};
use tenure::sim::{Fault, Kind, Plan};

const LENGTH: Duration = Duration::from_secs(60);

/// Three customers in each region, of whom each calls several times a second and mostly reads.
fn busy() -> Regions {
    let call_every = Duration::from_millis(60);
    Regions { customers: 3, reads: 60, call_every, ..Regions::default() }
}

/// A swarm in which each customer is killed every second or two, so that it does not hear what came of its last call.
fn swarm(regions: &Regions, seed: u64) -> Plan {
    let mut plan = regions.swarm(seed, LENGTH);
    let customers = regions.regions * (1 + regions.servers)..regions.nodes();
    let length_ms = u64::try_from(LENGTH.as_millis()).expect("short");
    for node in customers {
        let every = 1_400 + 37 * u64::from(node);
        let times = (every..length_ms).step_by(usize::try_from(every).expect("seconds"));
        plan.faults.extend(times.map(|at_ms| Fault {
            at_ms,
            for_ms: 100,
            node,
            kind: Kind::Crash,
        }));
    }
    plan.faults.sort_by_key(|fault| fault.at_ms);
    plan
}

fn run(regions: &Regions, seed: u64) -> Outcome {
    regions.run(seed, swarm(regions, seed), LENGTH)
}

//= SPEC SIM-5 test
//= SPEC API-1 test
//= SPEC API-2 test
//= SPEC API-3 test
//= SPEC API-4 test
//= SPEC API-5 test
#[test]
fn what_customers_of_simulated_regions_see_has_an_order() {
    judge(0..6);
}

/// More of them, from `TENURE_FIRST` on.
#[test]
#[ignore = "takes minutes"]
fn what_customers_see_has_an_order_in_more_seeds() {
    let first = number("TENURE_FIRST", 6);
    judge(first..first + number("TENURE_SEEDS", 24));
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn judge(seeds: Range<u64>) {
    let count = usize::try_from(seeds.end - seeds.start).expect("few");
    let (mut answered, mut unknown, mut crossing, mut peerings, mut restored) = (0, 0, 0, 0, 0);
    let mut wrong = Vec::new();
    for seed in seeds {
        let outcome = run(&busy(), seed);
        wrong.extend(outcome.problem.map(|problem| format!("seed {seed}: {problem}")));
        let all = match outcome.history.judge() {
            Ok(all) => all,
            Err(why) => {
                wrong.push(format!("seed {seed}: {why}"));
                continue;
            }
        };
        answered += all.answered;
        unknown += all.unknown;
        crossing += all.crossing;
        peerings += all.peerings;
        restored += outcome.seen.get("restored").copied().unwrap_or(0);
    }
    println!(
        "{answered} calls answered, {unknown} of unknown outcome, {crossing} pairs side by side, {peerings} peerings, \
         {restored} restores"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(answered > 1000 * count && unknown > 4 * count && crossing > 1000 * count);
    assert!(peerings > 40 * count && restored > 0);
}

/// Each of these lets customers see what no order explains: in these seeds, and in others.
//= SPEC API-1 test
//= SPEC API-2 test
//= SPEC API-3 test
//= SPEC API-4 test
//= SPEC API-5 test
#[test]
fn regions_without_their_rules_are_told_by_their_customers() {
    let mut missed = Vec::new();
    for (rule, seed) in SEEDS {
        let regions = Regions { safeguards: Safeguards::except(rule), ..busy() };
        let judged = run(&regions, seed).history.judge();
        println!("{} in seed {seed}: {}", rule.id(), judged.is_err());
        if judged.is_ok() {
            missed.push(rule.id());
        }
    }
    assert!(missed.is_empty(), "not told: {missed:?}");
}

/// Rules without which customers see it, and a seed in which they do.
const SEEDS: [(Safeguards, u64); 1] = [(Safeguards::I_41_TOKEN_KEPT, 0)];

/// Looks for such seeds, for `TENURE_RULES`, from `TENURE_FIRST` on.
#[test]
#[ignore = "looks for seeds"]
fn which_rules_customers_miss() {
    let only = std::env::var("TENURE_RULES").ok();
    let (first, seeds) = (number("TENURE_FIRST", 0), number("TENURE_SEEDS", 6));
    for rule in Safeguards::ALL.iter() {
        if only.as_ref().is_some_and(|only| only.split(',').all(|id| id != rule.id())) {
            continue;
        }
        let regions = Regions { safeguards: Safeguards::except(rule), ..busy() };
        let found = (first..first + seeds).find_map(|seed| {
            let ran =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&regions, seed)));
            Some((seed, ran.ok()?.history.judge().err()?))
        });
        println!("{}: {found:?}", rule.id());
    }
}

// -------------------------------------------------------------------------------------------------
// Histories by hand
// -------------------------------------------------------------------------------------------------

const R: Region = Region(0);
const A: Region = Region(1);
const OWNER: Account = Account(1);
const ID: OpId = OpId { requester: R, n: 1, seq: 0 };
const TARGET: Target = Target { region: A, account: OWNER, network: Network(2) };
const CREATE: Request =
    Request::Create { network: Network(1), target: TARGET, resolve_names: false };
const GET: Request = Request::Get { id: ID };

fn change(verb: Verb) -> Request {
    Request::Change { id: ID, verb }
}

fn done(state: Label) -> Result<Answer, CallError> {
    Ok(Answer::Done { id: ID, state })
}

/// What a side shows of a request that its accepter has stored, and has decided so.
fn shown(side: Side, decision: Option<Decision>) -> Shown {
    let requested = Requested {
        account: OWNER,
        network: Network(1),
        block: block_of(Network(1)),
        target: TARGET,
        token: Token(1).key(R, OWNER),
        deleted: false,
        options: Options { version: Version { n: 1, counter: 0 }, resolve_names: false },
    };
    let decided = Decided { deadline: Some(9), decision, ..Decided::default() };
    let state = match decision {
        None => Label::PendingAcceptance,
        Some(Decision::Rejected) => Label::Rejected,
        Some(_) => Label::Provisioning,
    };
    Shown { id: ID, side, state, requested, decided, frozen: false, stuck: false }
}

/// A history by hand: each customer is a node, each call has a token of its own.
#[derive(Default)]
struct Hand {
    history: History,
    calls: u64,
}

impl Hand {
    /// One in which region 0 has asked region 1.
    fn begun() -> Self {
        let mut hand = Self::default();
        hand.call(0, R, CREATE, done(Label::InitiatingRequest));
        hand
    }

    fn ask(&mut self, customer: u16, region: Region, request: Request) -> usize {
        self.calls += 1;
        self.history.ask((customer, 1), region, OWNER, Token(self.calls), request)
    }

    /// A call that is answered before anything else happens.
    fn call(
        &mut self,
        customer: u16,
        region: Region,
        request: Request,
        result: Result<Answer, CallError>,
    ) {
        let call = self.ask(customer, region, request);
        self.history.tell(call, result);
    }

    fn read(&mut self, region: Region, decision: Option<Decision>) {
        let side = if region == R { Side::Requester } else { Side::Accepter };
        self.call(region.0, region, GET, Ok(Answer::One(shown(side, decision))));
    }

    fn has_order(&self) -> bool {
        self.history.judge().is_ok()
    }
}

const YES: Option<Decision> = Some(Decision::Accepted);
const NO: Option<Decision> = Some(Decision::Rejected);

//= SPEC API-1 test
#[test]
fn a_token_has_one_answer() {
    let mut hand = Hand::default();
    let again = |hand: &mut Hand, result| {
        let call = hand.history.ask((0, 1), R, OWNER, Token(1), CREATE);
        hand.history.tell(call, result);
    };
    again(&mut hand, done(Label::InitiatingRequest));
    again(&mut hand, done(Label::InitiatingRequest));
    assert!(hand.has_order());
    again(&mut hand, Err(CallError::PairBusy(ID)));
    assert!(!hand.has_order(), "it was done before");
    // A refusal is of one copy of a call, and leaves the token free.
    let mut hand = Hand::default();
    again(&mut hand, Err(CallError::Frozen(A)));
    again(&mut hand, done(Label::InitiatingRequest));
    assert!(hand.has_order());
    let other = OpId { seq: 1, ..ID };
    again(&mut hand, Ok(Answer::Done { id: other, state: Label::InitiatingRequest }));
    assert!(!hand.has_order(), "one token, two peerings");
}

/// A call that was refused, and was done nevertheless, is told by what is shown, unless a copy of it was under way.
//= SPEC API-1 test
#[test]
fn a_refused_call_has_no_effect_but_by_a_copy() {
    for copies in [1, 2] {
        let mut hand = Hand::default();
        let call = hand.ask(0, R, CREATE);
        for _ in 0..copies {
            hand.history.arrive(call);
        }
        hand.history.tell(call, Err(CallError::Frozen(A)));
        hand.read(R, None);
        assert_eq!(hand.has_order(), copies > 1);
    }
}

//= SPEC API-3 test
#[test]
fn a_decision_is_written_once_and_by_a_call() {
    let mut hand = Hand::begun();
    hand.read(A, None);
    hand.call(1, A, change(Verb::Accept), done(Label::Provisioning));
    // The requester's side may be behind for as long as it likes.
    hand.read(R, None);
    hand.read(R, YES);
    assert!(hand.has_order());
    hand.call(2, A, change(Verb::Reject), done(Label::Rejected));
    assert!(!hand.has_order(), "it was accepted before");
    let mut hand = Hand::begun();
    hand.read(R, YES);
    assert!(!hand.has_order(), "nobody has accepted it");
    let mut hand = Hand::begun();
    hand.call(1, A, change(Verb::Accept), done(Label::Provisioning));
    hand.read(R, NO);
    assert!(!hand.has_order(), "the two sides show different decisions");
}

//= SPEC API-3 test
#[test]
fn a_call_that_was_not_answered_may_have_been_done_since() {
    let mut hand = Hand::begun();
    hand.read(A, None);
    hand.ask(2, A, change(Verb::Accept));
    hand.read(A, None);
    hand.read(R, YES);
    assert!(hand.has_order());
    hand.read(A, None);
    assert!(!hand.has_order(), "the requester's side has it from there");
    // A read beside the call may see it or not, but not after its answer.
    for (before, after, has_order) in [(None, YES, true), (YES, YES, true), (None, None, false)] {
        let mut hand = Hand::begun();
        let call = hand.ask(2, A, change(Verb::Accept));
        hand.read(A, before);
        hand.history.tell(call, done(Label::Provisioning));
        hand.read(A, after);
        assert_eq!(hand.has_order(), has_order, "{before:?} {after:?}");
    }
}

//= SPEC API-2 test
#[test]
fn a_side_never_takes_back_what_it_has_shown() {
    let mut hand = Hand::begun();
    hand.call(2, A, change(Verb::Accept), done(Label::Provisioning));
    hand.read(R, YES);
    hand.read(R, None);
    assert!(!hand.has_order());
    // What is not shown any more is over, and so it stays.
    let mut hand = Hand::begun();
    hand.call(2, A, change(Verb::Accept), done(Label::Provisioning));
    hand.read(A, YES);
    hand.call(3, A, GET, Err(CallError::NotFound));
    assert!(!hand.has_order(), "nobody has ended it");
    let mut hand = Hand::begun();
    hand.call(3, A, change(Verb::Accept), Err(CallError::NotYetVisible));
    hand.read(A, None);
    assert!(hand.has_order());
    hand.call(3, A, change(Verb::Accept), Err(CallError::NotYetVisible));
    assert!(!hand.has_order(), "it was there");
    let mut hand = Hand::begun();
    hand.call(3, A, change(Verb::Accept), Err(CallError::NotFound));
    hand.read(A, None);
    assert!(!hand.has_order(), "there was said to be none");
    // Whoever has deleted it sees that.
    let mut hand = Hand::begun();
    hand.read(R, None);
    hand.call(0, R, change(Verb::Delete), done(Label::Deleting));
    hand.read(R, None);
    assert!(!hand.has_order());
}

//= SPEC API-4 test
#[test]
fn options_are_written_from_the_version_that_is_there() {
    let version = |counter| Version { n: 1, counter };
    let modify =
        |counter| Request::Modify { id: ID, expected: version(counter), resolve_names: true };
    let written = |counter| Ok(Answer::Version { id: ID, version: version(counter) });
    let mut hand = Hand::begun();
    hand.call(0, R, modify(0), written(1));
    hand.call(0, R, modify(0), Err(CallError::VersionConflict(version(1))));
    hand.call(0, R, modify(1), written(2));
    assert!(hand.has_order());
    hand.call(0, R, modify(1), written(3));
    assert!(!hand.has_order(), "somebody else has changed them");
    let mut hand = Hand::begun();
    let (one, two) = (hand.ask(0, R, modify(0)), hand.ask(1, R, modify(0)));
    hand.history.tell(one, written(1));
    hand.history.tell(two, written(1));
    assert!(!hand.has_order(), "two from one version");
    let mut hand = Hand::begun();
    hand.read(R, None);
    let mut changed = shown(Side::Requester, None);
    changed.requested.options.resolve_names = true;
    hand.call(0, R, GET, Ok(Answer::One(changed)));
    assert!(!hand.has_order(), "one version says two things");
}

//= SPEC API-5 test
#[test]
fn a_restore_excuses_what_it_has_lost_and_no_more() {
    let accepted = |is_seen: bool| {
        let mut hand = Hand::begun();
        hand.read(A, None);
        hand.history.turn(A, Turn::BackedUp);
        hand.call(2, A, change(Verb::Accept), done(Label::Provisioning));
        hand.read(A, YES);
        if is_seen {
            hand.read(R, YES);
        }
        hand
    };
    // Without a restore it is a step back.
    let mut hand = accepted(false);
    hand.read(A, None);
    assert!(!hand.has_order());
    let mut hand = accepted(false);
    hand.history.turn(A, Turn::Restored);
    hand.read(A, None);
    hand.call(2, A, change(Verb::Reject), done(Label::Rejected));
    assert!(hand.has_order(), "nobody else has it");
    // What is in the backup is not excused.
    let mut hand = accepted(false);
    hand.history.turn(A, Turn::BackedUp);
    hand.history.turn(A, Turn::Restored);
    hand.read(A, None);
    assert!(!hand.has_order());
    // What the other side shows comes back, as soon as the region is open.
    for frozen in [false, true] {
        let mut hand = accepted(true);
        hand.history.turn(A, Turn::Restored);
        let back = Shown { frozen, ..shown(Side::Accepter, None) };
        hand.call(2, A, GET, Ok(Answer::One(back)));
        assert_eq!(hand.has_order(), frozen);
    }
    let mut hand = accepted(true);
    hand.history.turn(A, Turn::Restored);
    hand.call(2, A, change(Verb::Reject), done(Label::Rejected));
    assert!(!hand.has_order(), "the requester's side has another decision");
    // The restore of the other region excuses nothing here.
    let mut hand = accepted(true);
    hand.history.turn(R, Turn::BackedUp);
    hand.history.turn(R, Turn::Restored);
    hand.read(A, None);
    assert!(!hand.has_order());
}
