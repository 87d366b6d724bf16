//! From clocks and configured numbers to the constants of the transition system.
//!
//! `rho` bounds the error of a clock's rate, so that while `t` of real time passes a clock moves by `c` with
//! `(1-rho)*t <= c <= (1+rho)*t`. G, L and S are configured; `hold` is `G/(1-rho)` and `watch` is
//! `L/(1+rho)`, written as products.

use super::system::{Answer, Query};

const DECLARED: &str = "
(declare-const rho Real) (declare-const G Real) (declare-const L Real) (declare-const S Real)
(declare-const hold Real) (declare-const watch Real)
(declare-const t Real) (declare-const c Real)
(assert (and (<= 0 rho) (< rho 1) (< 0 G) (<= 0 S) (< 0 L)))
(assert (= (* hold (- 1 rho)) G))
(assert (= (* watch (+ 1 rho)) L))
";

/// `L > G*(1+rho)/(1-rho) + S*(1+rho)`, without the division.
const SAFE: &str = "(assert (> (* L (- 1 rho)) (+ (* G (+ 1 rho)) (* S (+ 1 rho) (- 1 rho)))))";

const CLOCK: &str = "(assert (and (<= 0 t) (<= (* (- 1 rho) t) c) (<= c (* (+ 1 rho) t))))";

pub(crate) fn queries() -> Vec<Query> {
    let query = |name: &str, lines: &[&str], expect| Query {
        name: name.to_owned(),
        text: format!("{DECLARED}{}\n", lines.join("\n")),
        expect,
    };
    use Answer::{Sat, Unsat};
    vec![
        query(
            "the inequality gives what the system assumes",
            &[SAFE, "(assert (not (and (< 0 hold) (< (+ hold S) watch))))"],
            Unsat,
        ),
        query(
            "and is needed: what the system assumes gives the inequality",
            &[
                "(assert (< (+ hold S) watch))",
                "(assert (<= (* L (- 1 rho)) (+ (* G (+ 1 rho)) (* S (+ 1 rho) (- 1 rho)))))",
            ],
            Unsat,
        ),
        query(
            "a hold timer of length G runs out within hold",
            &[CLOCK, "(assert (= c G))", "(assert (< hold t))"],
            Unsat,
        ),
        query(
            "a watch timer of length L runs for at least watch",
            &[CLOCK, "(assert (<= L c))", "(assert (< t watch))"],
            Unsat,
        ),
        query("there are safe numbers", &[SAFE, "(assert (< 0 rho))", "(assert (< 0 S))"], Sat),
        query(
            "G + S < L is not enough",
            &["(assert (< (+ G S) L))", "(assert (<= watch (+ hold S)))"],
            Sat,
        ),
        query(
            "not even with good clocks",
            &[
                "(assert (< rho 0.0001))",
                "(assert (< (+ G S) L))",
                "(assert (<= watch (+ hold S)))",
            ],
            Sat,
        ),
        query(
            "a hold timer can take all of hold",
            &[CLOCK, "(assert (< 0 rho))", "(assert (= c G))", "(assert (= t hold))"],
            Sat,
        ),
    ]
}
