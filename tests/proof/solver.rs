//! Asks z3, over SMT-LIB2 and its standard input.
//!
//! The program and not the library: that way nothing is needed to *build* tenure and its tests, the questions
//! are text that a reader can look at and that another solver would take, and a solver that is missing
//! is one clear message instead of a failed build.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::system::{Answer, Query};

/// How long z3 may think about one question, in milliseconds.
const TIME_MAX: u32 = 60_000;

/// What z3 answers to each, after the same prelude, in one process.
///
/// # Panics
///
/// If there is no z3, if it complains, or if it does not know.
pub(crate) fn ask(prelude: &str, queries: &[Query]) -> Vec<Answer> {
    let answers = ask_until(prelude, queries, |_| false);
    assert_eq!(answers.len(), queries.len(), "z3 has answered every question");
    answers
}

/// Whether z3 answers "satisfiable" to any of these. It is asked for no more once it has.
pub(crate) fn is_any_sat(prelude: &str, queries: &[Query]) -> bool {
    ask_until(prelude, queries, |answer| answer == Answer::Sat).contains(&Answer::Sat)
}

fn ask_until(prelude: &str, queries: &[Query], is_enough: impl Fn(Answer) -> bool) -> Vec<Answer> {
    let mut text = format!("(set-option :timeout {TIME_MAX})\n{prelude}");
    for query in queries {
        text += &format!("(push)\n{}(check-sat)\n(pop)\n", query.text);
    }
    if let Some(folder) = std::env::var_os("TENURE_SMT_DIR") {
        let name = queries.first().map_or("none", |query| &query.name);
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = std::path::Path::new(&folder).join(name).with_extension("smt2");
        std::fs::write(path, &text).expect("TENURE_SMT_DIR can be written to");
    }
    let mut z3 = Command::new("z3")
        .args(["-in", "-smt2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("z3 does not run ({error}): install it (apt install z3)"));
    let mut input = z3.stdin.take().expect("piped");
    // It does not read to the end if it is ended before that.
    let writer = std::thread::spawn(move || drop(input.write_all(text.as_bytes())));
    let mut answers = Vec::new();
    for line in BufReader::new(z3.stdout.take().expect("piped")).lines() {
        let answer = match line.expect("UTF-8").as_str() {
            "sat" => Answer::Sat,
            "unsat" => Answer::Unsat,
            other => {
                let query = queries.get(answers.len()).map_or("the end", |query| &query.name);
                panic!("z3 says {other:?} to: {query}")
            }
        };
        answers.push(answer);
        if is_enough(answer) {
            z3.kill().expect("it runs");
            break;
        }
    }
    z3.wait().expect("z3 ends");
    writer.join().expect("no panic");
    answers
}

/// Asks, and compares.
pub(crate) fn demand(prelude: &str, queries: &[Query]) {
    let wrong: Vec<String> = ask(prelude, queries)
        .into_iter()
        .zip(queries)
        .filter(|(answer, query)| *answer != query.expect)
        .map(|(answer, query)| format!("{}: {answer:?}", query.name))
        .collect();
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.join("\n"));
}
