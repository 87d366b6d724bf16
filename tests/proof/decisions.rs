//! Peerings between regions, for any number of regions and of peerings: `one_decision`, over restores too.
//!
//! A decision is written by one region, A, and copied by another, R. Either may be restored from its backup at any
//! time and any number of times, while everything that its earlier lives have said is still under way.
//! There is no clock: whatever was said may arrive at any time, any number of times, or never.

use super::system::{Action, Conjunct, System, action};
use super::term::Macro;

const G: [&str; 2] = ["g", "Region"];
const X: [&str; 2] = ["x", "Life"];
const Y: [&str; 2] = ["y", "Life"];
const L: [&str; 2] = ["l", "Link"];
const O: [&str; 2] = ["o", "Op"];
const D: [&str; 2] = ["d", "Decision"];
const Q: [&str; 2] = ["q", "Question"];
const P: [&str; 2] = ["p", "Promise"];
const S: [&str; 2] = ["s", "Answer"];
const M: [&str; 2] = ["m", "Message"];

const MACROS: &[Macro] = &[
    // The life that the owner of a link is in.
    Macro { name: "life", params: &["link"], body: "(now-in (owner link))" },
    // R's end of an operation's link; A's is `at`.
    Macro { name: "at-r", params: &["op"], body: "(back (at op))" },
    // The end at which a question is answered, and the one that has asked.
    Macro { name: "answerer", params: &["question"], body: "(back (asks-on question))" },
    Macro {
        name: "current",
        params: &["question"],
        body: "(= (asks-as question) (now-in (owner (asks-on question))))",
    },
    Macro { name: "preparing", params: &["link"], body: "(not (or (open link) (reading link)))" },
    // An answer that the owner of the link may take: to its present life, by the life that it listens to.
    Macro {
        name: "taken",
        params: &["answer", "link"],
        body: "(and (told answer) (= (asks-on (replies answer)) link) (current (replies answer)))",
    },
];

pub(crate) const INVARIANT: &[Conjunct] = &[
    Conjunct {
        name: "life",
        vars: &[G],
        body: "(and (used (now-in g)) (= (of (now-in g)) g))",
    },
    Conjunct {
        name: "newest",
        vars: &[X],
        body: "(=> (used x)
            (and (<= (n x) (n (now-in (of x))))
                 (or (= x (now-in (of x))) (< (born x) (born (now-in (of x)))))))",
    },
    Conjunct {
        name: "numbers",
        vars: &[X, Y],
        body: "(=> (and (used x) (used y) (= (of x) (of y)) (< (n x) (n y))) (< (born x) (born y)))",
    },
    Conjunct {
        name: "question",
        vars: &[Q],
        body: "(=> (put q)
            (and (distinct q nobody) (used (asks-as q)) (= (of (asks-as q)) (owner (asks-on q)))))",
    },
    Conjunct {
        name: "asked",
        vars: &[L],
        body: "(and (=> (distinct (asked l) nobody)
                        (and (put (asked l)) (= (asks-on (asked l)) l) (current (asked l))))
                    (=> (reading l) (not (open l))))",
    },
    Conjunct {
        name: "given",
        vars: &[P],
        body: "(=> (given p)
            (and (put (answers p)) (used (by p)) (= (of (by p)) (owner (answerer (answers p))))
                 (=> (current (answers p)) (promised (asks-on (answers p))))))",
    },
    Conjunct {
        name: "told",
        vars: &[S],
        body: "(=> (told s)
            (and (put (replies s)) (used (from s)) (= (of (from s)) (owner (answerer (replies s))))
                 (=> (current (replies s)) (promised (asks-on (replies s))))))",
    },
    Conjunct {
        name: "sent",
        vars: &[M],
        body: "(=> (sent m) (and (used (under m)) (= (of (under m)) (owner (at (about m))))))",
    },
    Conjunct {
        name: "floor",
        vars: &[L],
        body: "(and (used (floor l)) (= (of (floor l)) (owner (back l)))
                    (used (kept-floor l)) (= (of (kept-floor l)) (owner (back l))))",
    },
    Conjunct {
        name: "thawed",
        vars: &[L],
        body: "(=> (or (open l) (reading l)) (promised l))",
    },
    Conjunct {
        name: "listens",
        vars: &[L],
        body: "(=> (and (promised l) (not (preparing (back l)))) (= (floor (back l)) (life l)))",
    },
    Conjunct {
        name: "hears",
        vars: &[L, P],
        body: "(=> (and (or (promised l) (= (floor (back l)) (life l)))
                        (preparing (back l)) (given p) (= (answers p) (asked (back l))))
            (= (by p) (life l)))",
    },
    Conjunct {
        name: "since",
        vars: &[O],
        body: "(=> (distinct (decided o) none)
            (and (used (since o)) (= (of (since o)) (owner (at o)))))",
    },
    Conjunct {
        name: "says",
        vars: &[M],
        body: "(=> (and (sent m) (distinct (says m) none)
                        (or (= (under m) (life (at (about m))))
                            (and (distinct (decided (about m)) none)
                                 (<= (born (since (about m))) (born (under m))))))
            (= (says m) (decided (about m))))",
    },
    Conjunct {
        name: "shows",
        vars: &[S, O],
        body: "(=> (and (told s) (= (asks-on (replies s)) (at-r o)) (distinct (copy s o) none)
                        (or (= (from s) (life (at o)))
                            (and (distinct (decided o) none) (<= (born (since o)) (born (from s))))))
            (= (copy s o) (decided o)))",
    },
    Conjunct {
        name: "copies",
        vars: &[S, O],
        body: "(=> (and (taken s (at o)) (distinct (known o) none))
            (or (= (copy s o) (known o)) (= (decided o) (known o))))",
    },
    Conjunct {
        name: "late",
        vars: &[O],
        body: "(=> (and (distinct (decided o) none) (not (preparing (at-r o))))
            (<= (born (since o)) (born (floor (at-r o)))))",
    },
    Conjunct {
        name: "late-promise",
        vars: &[O, P],
        body: "(=> (and (distinct (decided o) none) (preparing (at-r o)) (given p)
                        (= (answers p) (asked (at-r o))))
            (<= (born (since o)) (born (by p))))",
    },
    Conjunct {
        name: "kept",
        vars: &[O],
        body: "(and (=> (distinct (kept-decided o) none)
                        (and (= (kept-decided o) (decided o)) (= (kept-since o) (since o))))
                    (=> (distinct (kept-known o) none) (= (kept-known o) (known o))))",
    },
    Conjunct {
        name: "agree",
        vars: &[O],
        body: "(=> (and (distinct (decided o) none) (distinct (known o) none))
            (= (decided o) (known o)))",
    },
    Conjunct {
        name: "knows",
        vars: &[O],
        body: "(=> (and (open (at o)) (distinct (known o) none)) (distinct (decided o) none))",
    },
];

const SAFETY: &[Conjunct] = &[Conjunct {
    name: "one_decision",
    vars: &[O],
    body: "(=> (and (open (at o)) (open (at-r o)) (distinct (decided o) none)
                    (distinct (known o) none))
        (= (decided o) (known o)))",
}];

pub(crate) fn system() -> System {
    System {
        name: "decisions",
        sorts: &[
            "Region", "Life", "Link", "Op", "Decision", "Question", "Promise", "Answer", "Message",
        ],
        macros: MACROS.to_vec(),
        rigid: vec![
            ["of", "Life", "Region"],
            ["n", "Life", "Int"],
            ["born", "Life", "Int"],
            ["owner", "Link", "Region"],
            ["back", "Link", "Link"],
            ["at", "Op", "Link"],
            ["none", "", "Decision"],
            ["nobody", "", "Question"],
            ["asks-on", "Question", "Link"],
            ["asks-as", "Question", "Life"],
            ["answers", "Promise", "Question"],
            ["by", "Promise", "Life"],
            ["replies", "Answer", "Question"],
            ["from", "Answer", "Life"],
            ["copy", "Answer Op", "Decision"],
            ["about", "Message", "Op"],
            ["under", "Message", "Life"],
            ["says", "Message", "Decision"],
        ],
        state: vec![
            ["now-in", "Region", "Life"],
            ["used", "Life", "Bool"],
            ["floor", "Link", "Life"],
            ["open", "Link", "Bool"],
            ["reading", "Link", "Bool"],
            ["promised", "Link", "Bool"],
            ["asked", "Link", "Question"],
            ["put", "Question", "Bool"],
            ["given", "Promise", "Bool"],
            ["told", "Answer", "Bool"],
            ["sent", "Message", "Bool"],
            ["decided", "Op", "Decision"],
            ["since", "Op", "Life"],
            ["known", "Op", "Decision"],
            ["kept-floor", "Link", "Life"],
            ["kept-decided", "Op", "Decision"],
            ["kept-since", "Op", "Life"],
            ["kept-known", "Op", "Decision"],
        ],
        axioms: vec![
            "(forall ((l Link))
                (and (= (back (back l)) l) (distinct (owner l) (owner (back l)))))"
                .to_owned(),
        ],
        init: vec![
            "(forall ((g Region)) (= (of (now-in g)) g))",
            "(forall ((x Life)) (= (used x) (= x (now-in (of x)))))",
            "(forall ((l Link)) (and (= (floor l) (life (back l))) (= (kept-floor l) (floor l))
                (open l) (not (reading l)) (promised l) (= (asked l) nobody)))",
            "(forall ((q Question)) (not (put q)))",
            "(forall ((p Promise)) (not (given p)))",
            "(forall ((s Answer)) (not (told s)))",
            "(forall ((m Message)) (not (sent m)))",
            "(forall ((o Op)) (and (= (decided o) none) (= (known o) none)
                (= (kept-decided o) none) (= (kept-known o) none)))",
        ],
        actions: actions(),
        invariant: INVARIANT.to_vec(),
        safety: SAFETY.to_vec(),
    }
}

pub(crate) const UNDECIDED: &str = "(= (decided o) none)";
pub(crate) const LISTENED_TO: &str = "(= (under m) (floor (at-r (about m))))";
pub(crate) const NEWER: &str = "(forall ((y Life)) (=> (and (used y) (= (of y) g))
    (and (< (born y) (born x)) (<= (n y) (n x)))))";
pub(crate) const ABOVE: &str = "(or (= (asks-as q) (floor (answerer q)))
    (< (n (floor (answerer q))) (n (asks-as q))))";
pub(crate) const NOT_VOID: &str = "(<= (n (floor l)) (n (by p)))";
pub(crate) const PROMISED_TO: &str = "(= (asks-as q) (floor (answerer q)))";
pub(crate) const FROM_FLOOR: &str = "(= (from s) (floor l))";
const KNOWS: &str = "(forall ((o Op))
    (and (=> (= (at o) (asks-on q)) (= (copy s o) (known o)))
         (=> (= (at-r o) (asks-on q)) (= (copy s o) (decided o)))))";

/// What a region knows more after it has read what its peer knows.
const MERGE: [(&str, &str); 3] = [
    ("decided", "(ite (and (= (at it) l) (= (decided it) none)) (copy s it) (decided it))"),
    ("since", "(ite (and (= (at it) l) (= (decided it) none)) (life l) (since it))"),
    ("known", "(ite (and (= (at-r it) l) (= (known it) none)) (copy s it) (known it))"),
];

/// A region begins a new life, frozen towards every peer.
const NEW_LIFE: [(&str, &str); 6] = [
    ("now-in", "(ite (= it g) x (now-in it))"),
    ("used", "(or (used it) (= it x))"),
    ("open", "(and (open it) (distinct (owner it) g))"),
    ("reading", "(and (reading it) (distinct (owner it) g))"),
    ("promised", "(and (promised it) (distinct (owner it) g))"),
    ("asked", "(ite (= (owner it) g) nobody (asked it))"),
];

fn actions() -> Vec<Action> {
    let fresh = ["(not (used x))", "(= (of x) g)", NEWER];
    let back = [
        ("floor", "(ite (= (owner it) g) (kept-floor it) (floor it))"),
        ("decided", "(ite (= (owner (at it)) g) (kept-decided it) (decided it))"),
        ("since", "(ite (= (owner (at it)) g) (kept-since it) (since it))"),
        ("known", "(ite (= (owner (at-r it)) g) (kept-known it) (known it))"),
    ];
    let thawed = [
        ("open", "(or (open it) (= it l))"),
        ("reading", "(and (reading it) (distinct it l))"),
        ("asked", "(ite (= it l) nobody (asked it))"),
    ];
    let asks_anew = "(and (= it (answerer q)) (not (open it)) (distinct (floor it) (asks-as q)))";
    let is_promised = "(or (promised it) (and (= it (asks-on q)) (= (asks-as q) (life it))))";
    vec![
        action(
            "Decide",
            &[O, D],
            &["(open (at o))", UNDECIDED, "(distinct d none)"],
            &[
                ("decided", "(ite (= it o) d (decided it))"),
                ("since", "(ite (= it o) (life (at o)) (since it))"),
            ],
        ),
        // In a question or in an answer, frozen or not.
        action(
            "Tell",
            &[M],
            &[
                "(not (sent m))",
                "(= (under m) (life (at (about m))))",
                "(= (says m) (decided (about m)))",
            ],
            &[("sent", "(or (sent it) (= it m))")],
        ),
        action(
            "Learn",
            &[M],
            &["(sent m)", "(open (at-r (about m)))", LISTENED_TO],
            &[("known", "(ite (and (= it (about m)) (= (known it) none)) (says m) (known it))")],
        ),
        action(
            "BackUp",
            &[G],
            &[],
            &[
                ("kept-floor", "(ite (= (owner it) g) (floor it) (kept-floor it))"),
                ("kept-decided", "(ite (= (owner (at it)) g) (decided it) (kept-decided it))"),
                ("kept-since", "(ite (= (owner (at it)) g) (since it) (kept-since it))"),
                ("kept-known", "(ite (= (owner (at-r it)) g) (known it) (kept-known it))"),
            ],
        ),
        action("Restore", &[G, X], &fresh, &[&NEW_LIFE[..], &back[..]].concat()),
        action("BeginLife", &[G, X], &fresh, &NEW_LIFE),
        // Again, too: the answers to what was asked before are void.
        action(
            "Ask",
            &[L, Q],
            &[
                "(not (open l))",
                "(not (put q))",
                "(distinct q nobody)",
                "(= (asks-on q) l)",
                "(= (asks-as q) (life l))",
            ],
            &[
                ("put", "(or (put it) (= it q))"),
                ("asked", "(ite (= it l) q (asked it))"),
                ("reading", "(and (reading it) (distinct it l))"),
            ],
        ),
        action(
            "Promise",
            &[Q, P],
            &[
                "(put q)",
                "(not (given p))",
                "(= (answers p) q)",
                "(= (by p) (life (answerer q)))",
                ABOVE,
            ],
            &[
                ("given", "(or (given it) (= it p))"),
                ("floor", "(ite (= it (answerer q)) (asks-as q) (floor it))"),
                ("asked", &format!("(ite {asks_anew} nobody (asked it))")),
                ("reading", &format!("(and (reading it) (not {asks_anew}))")),
                ("promised", is_promised),
            ],
        ),
        action(
            "OnPromise",
            &[L, P],
            &["(given p)", "(= (answers p) (asked l))", "(preparing l)", NOT_VOID],
            &[
                ("floor", "(ite (= it l) (by p) (floor it))"),
                ("reading", "(or (reading it) (= it l))"),
            ],
        ),
        action(
            "Answer",
            &[Q, S],
            &[
                "(put q)",
                "(not (told s))",
                "(= (replies s) q)",
                "(= (from s) (life (answerer q)))",
                PROMISED_TO,
                KNOWS,
            ],
            &[("told", "(or (told it) (= it s))"), ("promised", is_promised)],
        ),
        action(
            "Thaw",
            &[L, S],
            &["(told s)", "(= (replies s) (asked l))", "(reading l)", FROM_FLOOR],
            &[&MERGE[..], &thawed[..]].concat(),
        ),
        action("Sweep", &[L, S], &["(open l)", "(taken s l)", FROM_FLOOR], &MERGE),
    ]
}
