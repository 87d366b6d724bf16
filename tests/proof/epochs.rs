//! The lease without clocks, for any number of hosts: `unique_holder_per_epoch` and `fenced_effects`.
//!
//! Everything may happen at any time here: whoever has read a record may write over it, an answer counts
//! however late it is, and a primary stops when it likes. What is proved holds of paused hosts too.

use super::system::{Action, Conjunct, System, action};
use super::term::Macro;

const X: [&str; 2] = ["x", "Att"];
const Y: [&str; 2] = ["y", "Att"];
const H: [&str; 2] = ["h", "Life"];
const A: [&str; 2] = ["a", "Life"];
const N: [&str; 2] = ["n", "Node"];

const MACROS: &[Macro] = &[
    Macro {
        name: "new",
        params: &["att", "who", "base"],
        body: "(and (not (sent att)) (distinct att first) (= (by att) who) (applied base)
                    (= (expects att) (version base)))",
    },
    Macro {
        name: "names",
        params: &["att", "who"],
        body: "(and (= (by att) who) (not (tombstone att)))",
    },
    // An effect under this grant, on a table that was last changed under that epoch, is as it must not be.
    Macro {
        name: "bad",
        params: &["att", "last"],
        body: "(or (< (epoch att) last) (not (applied att)) (tombstone att))",
    },
];

pub(crate) const INVARIANT: &[Conjunct] = &[
    Conjunct { name: "store", vars: &[], body: "(applied current)" },
    Conjunct {
        name: "applied",
        vars: &[X],
        body: "(=> (applied x)
            (and (<= (version x) (version current))
                 (or (= x first) (and (sent x) (= (version x) (+ (expects x) 1))))))",
    },
    Conjunct {
        name: "unique",
        vars: &[X, Y],
        body: "(=> (and (applied x) (applied y) (= (version x) (version y))) (= x y))",
    },
    Conjunct {
        name: "request",
        vars: &[X],
        body: "(=> (sent x) (and (distinct x first) (<= (expects x) (version current))))",
    },
    Conjunct {
        name: "raise",
        vars: &[X, Y],
        body: "(=> (and (sent x) (applied y) (= (version y) (expects x)))
            (or (and (names y (by x)) (not (tombstone x)) (= (epoch x) (epoch y)))
                (and (names y (by x)) (tombstone x) (= (epoch x) (+ (epoch y) 1)))
                (and (not (tombstone x))
                     (= (epoch x) (ite (tombstone y) (epoch y) (+ (epoch y) 1))))))",
    },
    Conjunct {
        name: "grow",
        vars: &[X, Y],
        body: "(=> (and (applied x) (applied y) (< (version x) (version y)))
            (<= (epoch x) (epoch y)))",
    },
    Conjunct {
        name: "apart",
        vars: &[X, Y],
        body: "(=> (and (applied x) (applied y) (< (version x) (version y)) (not (tombstone x))
                        (or (tombstone y) (distinct (by x) (by y))))
            (< (epoch x) (epoch y)))",
    },
    Conjunct {
        name: "copied",
        vars: &[X],
        body: "(=> (copied x) (and (applied x) (not (tombstone x))))",
    },
    Conjunct {
        name: "leader",
        vars: &[H],
        body: "(=> (leading h)
            (and (applied (grant h)) (names (grant h) h) (= (epoch (grant h)) (fence (on h)))))",
    },
    Conjunct { name: "fence", vars: &[N], body: "(<= (changed n) (fence n))" },
    Conjunct { name: "effects", vars: &[], body: "(not wrong)" },
];

const SAFETY: &[Conjunct] = &[
    Conjunct {
        name: "unique_holder_per_epoch",
        vars: &[X, Y],
        body: "(=> (and (applied x) (applied y))
            (and (=> (and (= (epoch x) (epoch y)) (not (tombstone x)) (not (tombstone y)))
                     (= (by x) (by y)))
                 (=> (<= (version x) (version y)) (<= (epoch x) (epoch y)))))",
    },
    Conjunct { name: "fenced_effects", vars: &[], body: "(not wrong)" },
];

pub(crate) fn system() -> System {
    System {
        name: "epochs",
        sorts: &["Life", "Att", "Node"],
        macros: MACROS.to_vec(),
        rigid: vec![
            ["on", "Life", "Node"],
            ["by", "Att", "Life"],
            ["expects", "Att", "Int"],
            ["tombstone", "Att", "Bool"],
            ["epoch", "Att", "Int"],
            ["first", "", "Att"],
        ],
        state: vec![
            ["current", "", "Att"],
            ["sent", "Att", "Bool"],
            ["applied", "Att", "Bool"],
            ["version", "Att", "Int"],
            ["leading", "Life", "Bool"],
            ["grant", "Life", "Att"],
            ["copied", "Att", "Bool"],
            ["fence", "Node", "Int"],
            ["changed", "Node", "Int"],
            ["wrong", "", "Bool"],
        ],
        axioms: vec!["(and (tombstone first) (= (epoch first) 1))".to_owned()],
        init: vec![
            "(and (= current first) (= (version first) 0) (not wrong))",
            "(forall ((x Att)) (and (not (sent x)) (= (applied x) (= x first)) (not (copied x))))",
            "(forall ((h Life)) (not (leading h)))",
            "(forall ((n Node)) (and (= (fence n) 0) (= (changed n) 0)))",
        ],
        actions: actions(),
        invariant: INVARIANT.to_vec(),
        safety: SAFETY.to_vec(),
    }
}

pub(crate) const OVER_NEWEST: &str = "(= (version current) (expects x))";
pub(crate) const SAME_EPOCH: &str = "(= (epoch x) (epoch y))";
pub(crate) const TAKEN_EPOCH: &str = "(= (epoch x) (ite (tombstone y) (epoch y) (+ (epoch y) 1)))";
pub(crate) const RELEASED_EPOCH: &str = "(= (epoch x) (+ (epoch y) 1))";
pub(crate) const UNFENCED: &str = "(<= (fence n) (epoch x))";

fn actions() -> Vec<Action> {
    let sends = [("sent", "(or (sent it) (= it x))")];
    vec![
        // Also what somebody else writes who leaves holder and epoch as they are.
        action(
            "Renew",
            &[A, X, Y],
            &["(new x a y)", "(not (tombstone x))", "(names y a)", SAME_EPOCH],
            &sends,
        ),
        action("Take", &[A, X, Y], &["(new x a y)", "(not (tombstone x))", TAKEN_EPOCH], &sends),
        action(
            "Release",
            &[A, X, Y],
            &["(new x a y)", "(tombstone x)", "(names y a)", RELEASED_EPOCH],
            &sends,
        ),
        action(
            "Apply",
            &[X],
            &["(sent x)", OVER_NEWEST],
            &[
                ("applied", "(or (applied it) (= it x))"),
                ("version", "(ite (= it x) (+ (version current) 1) (version it))"),
                ("current", "x"),
            ],
        ),
        // A node runs one life at a time.
        action(
            "Granted",
            &[A, X],
            &["(applied x)", "(names x a)", "(<= (fence (on a)) (epoch x))"],
            &[
                ("leading", "(or (= it a) (and (leading it) (distinct (on it) (on a))))"),
                ("grant", "(ite (= it a) x (grant it))"),
                ("fence", "(ite (= it (on a)) (epoch x) (fence it))"),
            ],
        ),
        action(
            "Stop",
            &[A],
            &["(leading a)"],
            &[("leading", "(and (leading it) (distinct it a))")],
        ),
        action(
            "Write",
            &[A],
            &["(leading a)"],
            &[
                ("changed", "(ite (= it (on a)) (epoch (grant a)) (changed it))"),
                ("wrong", "(or wrong (bad (grant a) (changed (on a))))"),
            ],
        ),
        action("Copy", &[A], &["(leading a)"], &[("copied", "(or (copied it) (= it (grant a)))")]),
        action(
            "Replicated",
            &[N, X],
            &["(copied x)", UNFENCED],
            &[
                ("changed", "(ite (= it n) (epoch x) (changed it))"),
                ("fence", "(ite (= it n) (epoch x) (fence it))"),
                ("wrong", "(or wrong (bad x (changed n)))"),
                (
                    "leading",
                    "(and (leading it) (or (distinct (on it) n) (= (epoch (grant it)) (epoch x))))",
                ),
            ],
        ),
    ]
}
