//! Each rule left out, as a change of the transition system: some step of the induction must fail, and a run
//! from the start must reach what the property forbids. In the system as it is the same order of
//! actions must not.

use super::system::System;
use super::{decisions, epochs, timed};

pub(crate) struct Mutant {
    /// The rule, as docs/SPEC.md numbers it.
    pub(crate) rule: &'static str,
    pub(crate) system: System,
    pub(crate) property: &'static str,
    /// The order of actions of a run that goes wrong.
    pub(crate) run: Vec<&'static str>,
}

fn words(text: &'static str) -> Vec<&'static str> {
    text.split_whitespace().collect()
}

/// The write does not ask for the version if it is of this kind, where `y` is the record that it is over.
fn unless(kind: &str) -> String {
    format!(
        "(or {} (not (forall ((y Att))
            (not (and (applied y) (= (version y) (expects x)) {kind})))))",
        timed::OVER_NEWEST
    )
}

const RENEWAL: &str = "(names y (by x)) (not (tombstone x))";
const TAKEOVER: &str = "(not (names y (by x)))";

pub(crate) fn all() -> Vec<Mutant> {
    let timed = timed::system;
    let mut all = Vec::new();
    let mut add = |rule, system, run| {
        all.push(Mutant { rule, system, property: "single_writer", run: words(run) });
    };
    let takeover = "TakeFree Apply Granted Show Watch Elapse TakeWatched Apply Granted";

    let mut from_answer = timed().guard(
        "Granted",
        timed::IN_TIME,
        "(and (<= now (deadline x)) (<= (deadline x) (+ now (hold-max a))))",
    );
    for known in &mut from_answer.macros {
        if known.name == "new" {
            known.body =
                "(and (not (sent att)) (distinct att first) (= (by att) who) (applied base)
                               (= (expects att) (version base)) (= (sent-at att) now))";
        }
    }
    add(
        "L-1",
        from_answer,
        "TakeFree Apply Show Watch Elapse Granted Elapse TakeWatched Apply Granted",
    );
    let unsafe_by = |inequality: &str| {
        let mut system = timed();
        system.axioms[0] = format!("(forall ((h Life)) {inequality})");
        system
    };
    let to_the_end =
        "TakeFree Apply Granted Show Watch Elapse Stop Elapse TakeWatched Apply Granted";
    add("L-2", unsafe_by("(< (hold-max h) (watch-min h))"), to_the_end);
    add("L-3", unsafe_by("(<= (+ (hold-max h) (hook-max h)) (watch-min h))"), to_the_end);
    add("L-6", timed().guard("Watch", timed::WATCH_TIME, "(<= now m)"), {
        "TakeFree Apply Granted Show Watch TakeWatched Apply Granted"
    });
    add("L-7", timed().guard("Elapse", timed::URGENT_HOLD, "true"), takeover);
    add(
        "L-9",
        timed().effect(
            "Watch",
            "watch-ends",
            "(ite (and (= it a) (not (watching it))) m (watch-ends it))",
        ),
        "TakeFree Apply Granted Show Watch Elapse Renew Apply Granted Show Watch Elapse
         TakeWatched Apply Granted",
    );
    add(
        "L-10",
        timed()
            .guard("Watch", timed::WATCH_TIME, "(and (<= 0 r now) (<= (+ r (watch-min (by y))) m))")
            .with("Watch", |action| action.params.push(["r", "Real"])),
        "TakeFree Apply Granted Elapse Renew Apply Granted Show Watch Elapse TakeWatched Apply
         Granted",
    );
    add(
        "L-11",
        timed().guard(
            "Elapse",
            timed::URGENT_HOLD,
            "(forall ((h Life)) (=> (holding h)
                (or (<= (+ now d) (deadline (grant h)))
                    (not (forall ((x Att)) (not (and (pending x) (= (by x) h)
                                                     (distinct x (grant h)))))))))",
        ),
        "TakeFree Apply Granted Show Watch Renew Elapse TakeWatched Apply Granted",
    );
    add(
        "L-13",
        timed().effect("Renew", "grant", "(ite (and (= it a) (holding it)) x (grant it))"),
        "TakeFree Apply Granted Show Watch Elapse Renew Elapse TakeWatched Apply Granted",
    );
    add(
        "L-15",
        timed().guard("Apply", timed::OVER_NEWEST, &unless(RENEWAL)),
        "TakeFree Apply Granted Show Watch Elapse Renew Stop Stopped Elapse TakeWatched Apply
         Granted Apply Granted",
    );
    add(
        "L-16",
        timed().guard("Release", "(names y a)", "(not (tombstone y))"),
        "TakeFree Apply Granted Release Apply TakeFree Apply Granted",
    );
    add(
        "L-17",
        timed().guard("Apply", timed::OVER_NEWEST, &unless(TAKEOVER)),
        "TakeFree Apply Granted Show Watch Elapse Renew Apply Granted Elapse TakeWatched Apply
         Granted",
    );
    add(
        "L-18",
        timed()
            .guard("Granted", "(applied x)", "(applied y)")
            .guard(
                "Granted",
                "(names x a)",
                "(and (names x a) (names y a) (= (expects x) (expects y)))",
            )
            .with("Granted", |action| action.params.push(["y", "Att"])),
        "TakeFree Apply Show Watch Elapse TakeFree Granted Elapse TakeWatched Apply Granted",
    );
    add("L-22", timed().guard("Apply", timed::OVER_NEWEST, "true"), {
        "TakeFree TakeFree Apply Granted Apply Granted"
    });
    add(
        "L-23",
        timed().guard("TakeWatched", "(= y (watched a))", "(shown y)"),
        "TakeFree Apply Granted Show Watch Elapse Renew Apply Granted Show Elapse TakeWatched
         Apply Granted",
    );
    add(
        "L-30",
        timed().guard("Granted", "(pending x)", "true"),
        "TakeFree Apply Granted Stop Stopped Release Apply Crash TakeFree Apply Granted Granted",
    );
    add("L-31", timed().guard("Release", "(not (stopping a))", "true"), {
        "TakeFree Apply Granted Stop Release Apply TakeFree Apply Granted"
    });
    add("L-32", timed().guard("Release", "(not (holding a))", "true"), {
        "TakeFree Apply Granted Release Apply TakeFree Apply Granted"
    });
    add(
        "L-33",
        timed().effect("Release", "pending", "(pending it)"),
        "TakeFree Apply Granted Stop Stopped Release Apply TakeFree Apply Granted Granted",
    );
    add("LEASE-3", timed().guard("Watch", timed::WATCH_TIME, "(<= (+ now (watch-min a)) m)"), {
        takeover
    });
    add(
        "LEASE-10",
        timed().guard("Granted", timed::IN_TIME, "true"),
        "TakeFree Apply Show Watch Elapse TakeWatched Apply Granted Granted",
    );
    add("LEASE-12", timed().guard("Consent", "(not (holding a))", "true"), {
        "TakeFree Apply Granted Consent TakeConsented Apply Granted"
    });

    let epochs = epochs::system;
    let unique = "unique_holder_per_epoch";
    let mut add = |rule, system, property, run| {
        all.push(Mutant { rule, system, property, run: words(run) });
    };
    let unconditional = |kind: &str| epochs().guard("Apply", epochs::OVER_NEWEST, &unless(kind));
    add("L-15", unconditional(RENEWAL), unique, "Take Apply Renew Take Apply Apply");
    add("L-16", unconditional("(tombstone x)"), unique, {
        "Take Apply Release Take Apply Take Apply Apply"
    });
    add("L-17", unconditional(TAKEOVER), unique, "Take Take Apply Apply");
    add("L-22", epochs().guard("Apply", epochs::OVER_NEWEST, "true"), unique, {
        "Take Take Apply Apply"
    });
    add("L-25", epochs().guard("Take", epochs::TAKEN_EPOCH, epochs::SAME_EPOCH), unique, {
        "Take Apply Take Apply"
    });
    add("L-26", epochs().guard("Release", epochs::RELEASED_EPOCH, epochs::SAME_EPOCH), unique, {
        "Take Apply Release Apply Take Apply"
    });
    add("L-27", epochs().guard("Release", epochs::RELEASED_EPOCH, "(= (epoch x) 1)"), unique, {
        "Take Apply Release Apply Take Apply"
    });
    add("L-28", epochs().guard("Replicated", epochs::UNFENCED, "true"), "fenced_effects", {
        "Take Apply Granted Copy Take Apply Granted Copy Replicated Replicated"
    });
    add(
        "L-29",
        epochs().guard("Renew", "(names y a)", "(and (= (on (by y)) (on a)) (not (tombstone y)))"),
        unique,
        "Take Apply Renew Apply",
    );
    all.extend(of_decisions());
    all
}

/// The rules of peerings, over restores.
fn of_decisions() -> Vec<Mutant> {
    let whole = decisions::system;
    let mut all = Vec::new();
    let mut add = |rule, system, run: &[&'static str]| {
        let run = run.iter().flat_map(|part| words(part)).collect();
        all.push(Mutant { rule, system, property: "one_decision", run });
    };
    const THAWS: &str = "Ask Promise OnPromise Answer Thaw";
    let same_number = |life: &str, floor: &str| format!("(= (n ({life})) (n ({floor})))");
    let any_answer = |system: System| system.guard("Thaw", decisions::FROM_FLOOR, "true");
    add(
        "IRC-2",
        whole().guard("Decide", decisions::UNDECIDED, "true"),
        &["Decide Tell Learn Decide"],
    );
    add("I-1", whole().guard("Learn", "(sent m)", "true"), &["Decide Learn"]);
    add(
        "I-6",
        whole().effect("Restore", "open", "(open it)"),
        &["Decide Tell Learn Restore Decide"],
    );
    let unpromised = whole()
        .effect("Promise", "floor", "(floor it)")
        .effect("Promise", "asked", "(asked it)")
        .effect("Promise", "reading", "(reading it)")
        .guard("Answer", decisions::PROMISED_TO, "(<= (n (floor (answerer q))) (n (asks-as q)))")
        .guard("Learn", decisions::LISTENED_TO, "(<= (n (floor (at-r (about m)))) (n (under m)))");
    add("I-7", unpromised, &["Decide Tell Restore", THAWS, "Decide Learn"]);
    add(
        "I-8",
        any_answer(whole().effect("OnPromise", "floor", "(floor it)")),
        &["Decide Tell Restore", THAWS, "Restore", THAWS, "Decide Learn"],
    );
    let reused = whole()
        .guard("Promise", decisions::ABOVE, "(<= (n (floor (answerer q))) (n (asks-as q)))")
        .guard("Answer", decisions::PROMISED_TO, &same_number("asks-as q", "floor (answerer q)"))
        .guard("Learn", decisions::LISTENED_TO, &same_number("under m", "floor (at-r (about m))"));
    add("I-9", reused, &["Restore", THAWS, "Decide Tell Restore", THAWS, "Decide Learn"]);
    let old_promise = whole()
        .effect("Promise", "asked", "(asked it)")
        .effect("Promise", "reading", "(reading it)")
        .guard("OnPromise", decisions::NOT_VOID, "true");
    add(
        "I-10",
        any_answer(old_promise),
        &["Restore Ask Promise Decide Tell Restore", THAWS, "OnPromise Answer Thaw Decide Learn"],
    );
    add(
        "I-18",
        whole().guard("Learn", decisions::LISTENED_TO, "true"),
        &["Decide Tell Restore", THAWS, "Decide Learn"],
    );
    let falling = decisions::NEWER.replace("(<= (n y) (n x))", "true");
    add(
        "IRC-14",
        whole().guard("Restore", decisions::NEWER, &falling),
        &[
            "Restore Ask",
            "Ask Promise OnPromise Answer Thaw Decide Tell",
            "Restore Restore",
            THAWS,
            THAWS,
            "Promise Decide Learn",
        ],
    );
    all
}
