//! The lease with clocks, for any number of hosts: `single_writer`.
//!
//! A `Life` is one run of one host; an `Att` is one attempt, that is, one write with a name of its own, and
//! stands for the record that it makes. Time is real, versions are integers, and neither is ever
//! quantified. What an attempt is (who sends it, over which record, when, and when at the latest its
//! hold timer runs out) is fixed from the beginning, as if it were known beforehand.
//!
//! docs/PROOF.md explains every line of this.

use super::system::{Action, Conjunct, System, action};
use super::term::Macro;

const X: [&str; 2] = ["x", "Att"];
const Y: [&str; 2] = ["y", "Att"];
const H: [&str; 2] = ["h", "Life"];
const A: [&str; 2] = ["a", "Life"];

const MACROS: &[Macro] = &[
    // The host's work may be running, its stopping included.
    Macro { name: "writable", params: &["who"], body: "(or (holding who) (stopping who))" },
    // Its sender waits for no answer to it any more, and does not hold by it.
    Macro {
        name: "gone",
        params: &["old"],
        body: "(and (not (pending old))
                    (not (and (writable (by old)) (= (grant (by old)) old))))",
    },
    // An attempt that has never been made, and is made now.
    Macro {
        name: "new",
        params: &["att", "who", "base"],
        body: "(and (not (sent att)) (distinct att first) (= (by att) who) (applied base)
                    (= (expects att) (version base))
                    (= (sent-at att) now) (<= (deadline att) (+ now (hold-max who))))",
    },
    // The record names this life as the holder.
    Macro {
        name: "names",
        params: &["att", "who"],
        body: "(and (= (by att) who) (not (tombstone att)))",
    },
];

/// The conjuncts, in the order in which they are explained.
pub(crate) const INVARIANT: &[Conjunct] = &[
    Conjunct { name: "store", vars: &[], body: "(applied current)" },
    Conjunct {
        name: "applied",
        vars: &[X],
        body: "(=> (applied x)
            (and (<= 0 (version x) (version current)) (<= (applied-at x) now)
                 (or (= x first)
                     (and (sent x) (<= (sent-at x) (applied-at x))
                          (= (version x) (+ (expects x) 1))))))",
    },
    Conjunct {
        name: "unique",
        vars: &[X, Y],
        body: "(=> (and (applied x) (applied y) (= (version x) (version y))) (= x y))",
    },
    Conjunct {
        name: "order",
        vars: &[X, Y],
        body: "(=> (and (applied x) (applied y) (< (version x) (version y)))
            (<= (applied-at x) (applied-at y)))",
    },
    Conjunct {
        name: "request",
        vars: &[X],
        body: "(=> (sent x)
            (and (distinct x first) (<= (expects x) (version current)) (<= (sent-at x) now)
                 (<= (deadline x) (+ (sent-at x) (hold-max (by x))))))",
    },
    Conjunct {
        name: "reason",
        vars: &[X, Y],
        body: "(=> (and (sent x) (applied y) (= (version y) (expects x)))
            (or (names y (by x))
                (and (not (tombstone x))
                     (or (tombstone y) (consented y)
                         (<= (+ (applied-at y) (watch-min (by y))) (sent-at x))))))",
    },
    Conjunct { name: "shown", vars: &[X], body: "(=> (shown x) (applied x))" },
    Conjunct {
        name: "watch",
        vars: &[H],
        body: "(=> (watching h)
            (and (applied (watched h))
                 (<= (+ (applied-at (watched h)) (watch-min (by (watched h))))
                     (watch-ends h))))",
    },
    Conjunct {
        name: "ended",
        vars: &[X, Y],
        body: "(=> (and (applied x) (applied y) (< (version x) (version y))
                        (or (distinct (by x) (by y)) (tombstone y)))
            (or (< (+ (deadline x) (hook-max (by x))) (applied-at y)) (gone x)))",
    },
    Conjunct {
        name: "release",
        vars: &[X, Y],
        body: "(=> (and (sent x) (tombstone x) (applied y) (= (by y) (by x))
                        (<= (version y) (expects x)))
            (gone y))",
    },
    Conjunct {
        name: "consent",
        vars: &[X, Y],
        body: "(=> (consented x)
            (and (applied x)
                 (=> (and (applied y) (= (by y) (by x)) (<= (version y) (version x)))
                     (gone y))))",
    },
    Conjunct { name: "no-grant", vars: &[X], body: "(=> (tombstone x) (not (pending x)))" },
    Conjunct {
        name: "holder",
        vars: &[H],
        body: "(=> (holding h)
            (and (applied (grant h)) (names (grant h) h) (<= now (deadline (grant h)))))",
    },
    Conjunct {
        name: "stopper",
        vars: &[H],
        body: "(=> (stopping h)
            (and (applied (grant h)) (names (grant h) h)
                 (<= now (stops-by h) (+ (deadline (grant h)) (hook-max h)))))",
    },
];

const SAFETY: &[Conjunct] = &[Conjunct {
    name: "single_writer",
    vars: &[H, A],
    body: "(=> (and (writable h) (writable a)) (= h a))",
}];

pub(crate) fn system() -> System {
    System {
        name: "single_writer",
        sorts: &["Life", "Att"],
        macros: MACROS.to_vec(),
        rigid: vec![
            ["hold-max", "Life", "Real"],
            ["hook-max", "Life", "Real"],
            ["watch-min", "Life", "Real"],
            ["by", "Att", "Life"],
            ["expects", "Att", "Int"],
            ["sent-at", "Att", "Real"],
            ["deadline", "Att", "Real"],
            ["tombstone", "Att", "Bool"],
            ["first", "", "Att"],
        ],
        state: vec![
            ["now", "", "Real"],
            ["current", "", "Att"],
            ["sent", "Att", "Bool"],
            ["applied", "Att", "Bool"],
            ["version", "Att", "Int"],
            ["applied-at", "Att", "Real"],
            ["shown", "Att", "Bool"],
            ["consented", "Att", "Bool"],
            ["pending", "Att", "Bool"],
            ["holding", "Life", "Bool"],
            ["stopping", "Life", "Bool"],
            ["grant", "Life", "Att"],
            ["stops-by", "Life", "Real"],
            ["watching", "Life", "Bool"],
            ["watched", "Life", "Att"],
            ["watch-ends", "Life", "Real"],
        ],
        axioms: vec![
            TIMING.to_owned(),
            "(forall ((h Life)) (and (< 0 (hold-max h)) (<= 0 (hook-max h))))".to_owned(),
            "(tombstone first)".to_owned(),
        ],
        init: vec![
            "(= now 0)",
            "(= current first)",
            "(forall ((x Att)) (and (not (sent x)) (= (applied x) (= x first)) (not (shown x))
                                    (not (consented x)) (not (pending x))))",
            "(and (= (version first) 0) (= (applied-at first) 0))",
            "(forall ((h Life)) (and (not (holding h)) (not (stopping h)) (not (watching h))))",
        ],
        actions: actions(),
        invariant: INVARIANT.to_vec(),
        safety: SAFETY.to_vec(),
    }
}

/// The timing inequality, in real time; for each host on its own.
pub(crate) const TIMING: &str =
    "(forall ((h Life)) (< (+ (hold-max h) (hook-max h)) (watch-min h)))";

pub(crate) const URGENT_HOLD: &str =
    "(forall ((h Life)) (=> (holding h) (<= (+ now d) (deadline (grant h)))))";
pub(crate) const URGENT_HOOK: &str =
    "(forall ((h Life)) (=> (stopping h) (<= (+ now d) (stops-by h))))";
pub(crate) const OVER_NEWEST: &str = "(= (version current) (expects x))";
pub(crate) const WATCH_TIME: &str = "(<= (+ now (watch-min (by y))) m)";
pub(crate) const IN_TIME: &str = "(<= now (deadline x))";

fn actions() -> Vec<Action> {
    let sends = [("sent", "(or (sent it) (= it x))"), ("pending", "(or (pending it) (= it x))")];
    let forgets_all = "(and (pending it) (distinct (by it) a))";
    let m = ["m", "Real"];
    vec![
        action(
            "Elapse",
            &[["d", "Real"]],
            &["(< 0 d)", URGENT_HOLD, URGENT_HOOK],
            &[("now", "(+ now d)")],
        ),
        // A claim over a record in the own name: a renewal, or a term of its own after one that was stopped.
        action("Renew", &[A, X, Y], &["(new x a y)", "(not (tombstone x))", "(names y a)"], &sends),
        action(
            "TakeWatched",
            &[A, X, Y],
            &[
                "(new x a y)",
                "(not (tombstone x))",
                "(watching a)",
                "(<= (watch-ends a) now)",
                "(= y (watched a))",
            ],
            &sends,
        ),
        action(
            "TakeFree",
            &[A, X, Y],
            &["(new x a y)", "(not (tombstone x))", "(tombstone y)"],
            &sends,
        ),
        action(
            "TakeConsented",
            &[A, X, Y],
            &["(new x a y)", "(not (tombstone x))", "(consented y)"],
            &sends,
        ),
        // Somebody else writes the record and leaves the holder as it is: nobody waits for the answer.
        action(
            "Foreign",
            &[A, X, Y],
            &["(new x a y)", "(not (tombstone x))", "(names y a)"],
            &[
                ("sent", "(or (sent it) (= it x))"),
                ("pending", "(and (pending it) (distinct it x))"),
            ],
        ),
        action(
            "Apply",
            &[X],
            &["(sent x)", OVER_NEWEST],
            &[
                ("applied", "(or (applied it) (= it x))"),
                ("version", "(ite (= it x) (+ (version current) 1) (version it))"),
                ("applied-at", "(ite (= it x) now (applied-at it))"),
                ("current", "x"),
            ],
        ),
        action("Show", &[], &[], &[("shown", "(or (shown it) (= it current))")]),
        action(
            "Watch",
            &[A, Y, m],
            &["(shown y)", WATCH_TIME],
            &[
                ("watching", "(or (watching it) (= it a))"),
                ("watched", "(ite (= it a) y (watched it))"),
                ("watch-ends", "(ite (= it a) m (watch-ends it))"),
            ],
        ),
        action(
            "LookAway",
            &[A],
            &["(watching a)"],
            &[("watching", "(and (watching it) (distinct it a))")],
        ),
        action(
            "Granted",
            &[A, X],
            &["(applied x)", "(pending x)", "(names x a)", IN_TIME],
            &[
                ("holding", "(or (holding it) (= it a))"),
                ("stopping", "(and (stopping it) (distinct it a))"),
                ("grant", "(ite (= it a) x (grant it))"),
            ],
        ),
        action(
            "Forget",
            &[X],
            &["(pending x)"],
            &[("pending", "(and (pending it) (distinct it x))")],
        ),
        action(
            "Stop",
            &[A, m],
            &["(holding a)", "(<= now m (+ now (hook-max a)))"],
            &[
                ("holding", "(and (holding it) (distinct it a))"),
                ("stopping", "(or (stopping it) (= it a))"),
                ("stops-by", "(ite (= it a) m (stops-by it))"),
            ],
        ),
        action(
            "Stopped",
            &[A],
            &["(stopping a)"],
            &[("stopping", "(and (stopping it) (distinct it a))")],
        ),
        action(
            "Release",
            &[A, X, Y],
            &[
                "(new x a y)",
                "(tombstone x)",
                "(names y a)",
                "(not (stopping a))",
                "(not (holding a))",
            ],
            &[("sent", "(or (sent it) (= it x))"), ("pending", forgets_all)],
        ),
        action(
            "Consent",
            &[A, Y],
            &["(applied y)", "(names y a)", "(not (stopping a))", "(not (holding a))"],
            &[("consented", "(or (consented it) (= it y))"), ("pending", forgets_all)],
        ),
        action(
            "Crash",
            &[A],
            &[],
            &[
                ("holding", "(and (holding it) (distinct it a))"),
                ("stopping", "(and (stopping it) (distinct it a))"),
                ("watching", "(and (watching it) (distinct it a))"),
                ("pending", forgets_all),
            ],
        ),
    ]
}
