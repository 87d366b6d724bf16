//! The specification, the code and the tests agree about what there is.
//!
//! `docs/SPEC.md` has numbered sentences. Each must be cited above the code that does it
//! (`//= SPEC LEASE-4`) and above a test that shows it (`//= SPEC LEASE-4 test`), in Rust or in the
//! sources of the explorer's page. This counts both; it cannot see whether they say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use tenure::irc;
use tenure::lease::safeguards::Safeguards;

const SPEC: &str = "docs/SPEC.md";

struct Sentence {
    id: String,
    line: usize,
    rows: Vec<String>,
    text: String,
}

struct Citation {
    id: String,
    place: String,
    is_test: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn spec() -> String {
    fs::read_to_string(root().join(SPEC)).expect("the specification is there")
}

/// Reads `- **LEASE-4** (A16, A17): text`, with its lines that follow, indented.
fn sentences(spec: &str) -> Vec<Sentence> {
    let mut sentences: Vec<Sentence> = Vec::new();
    for (index, line) in spec.lines().enumerate() {
        if let Some(rest) = line.strip_prefix("- **") {
            let (id, rest) = rest.split_once("** (").expect("- **ID** (rows): text");
            let (rows, text) = rest.split_once("):").expect("- **ID** (rows): text");
            let rows = rows.split(", ").map(str::to_owned).collect();
            let (id, text) = (id.to_owned(), text.to_owned());
            sentences.push(Sentence { id, line: index + 1, rows, text });
        } else if let (Some(sentence), Some(more)) = (sentences.last_mut(), line.strip_prefix("  "))
        {
            sentence.text.push(' ');
            sentence.text.push_str(more);
        }
    }
    sentences
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let ending = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            sources(&path, found);
        } else if matches!(ending, Some("rs" | "ts" | "tsx" | "mjs")) {
            found.push(path);
        }
    }
}

fn citations() -> Vec<Citation> {
    let mut files = Vec::new();
    for directory in ["src", "models", "tests", "web/src", "web/test", "web/e2e"] {
        sources(&root().join(directory), &mut files);
    }
    let mut citations = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).expect("below the root").display().to_string();
        let text = fs::read_to_string(&file).expect("UTF-8");
        for (index, line) in text.lines().enumerate() {
            let Some(cited) = line.trim_start().strip_prefix("//= SPEC ") else { continue };
            let (id, is_test) = match cited.strip_suffix(" test") {
                Some(id) => (id, true),
                None => (cited, false),
            };
            let place = format!("{name}:{}", index + 1);
            let of_tests = ["tests/", "web/test/", "web/e2e/"];
            assert!(
                is_test || !of_tests.iter().any(|folder| name.starts_with(folder)),
                "{place}: a citation above a test ends in ` test`"
            );
            citations.push(Citation { id: id.trim().to_owned(), place, is_test });
        }
    }
    citations
}

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_sentence_has_code_and_a_test() {
    let spec = spec();
    let citations = citations();
    let mut problems = Vec::new();
    for Sentence { id, line, .. } in sentences(&spec) {
        let has = |is_test| citations.iter().any(|c| c.id == id && c.is_test == is_test);
        if !has(false) {
            problems.push(format!(
                "{SPEC}:{line}: {id} has no code: write `//= SPEC {id}` above the function that does it"
            ));
        }
        if !has(true) {
            problems.push(format!(
                "{SPEC}:{line}: {id} has no test: write `//= SPEC {id} test` above one that fails if \
                 the code does not do it"
            ));
        }
    }
    assert_none(&problems);
}

#[test]
fn every_citation_names_a_sentence() {
    let spec = spec();
    let ids: BTreeSet<String> = sentences(&spec).into_iter().map(|sentence| sentence.id).collect();
    let unknown = |citation: &Citation| !ids.contains(&citation.id);
    let problems: Vec<String> = citations()
        .iter()
        .filter(|citation| unknown(citation))
        .map(|Citation { id, place, .. }| {
            format!("{place}: there is no sentence {id}: mend the number, or add it to {SPEC}")
        })
        .collect();
    assert_none(&problems);
}

#[test]
fn sentences_are_well_formed_and_serve_every_requirement() {
    let spec = spec();
    let rows: BTreeSet<String> =
        (1..=21).map(|n| format!("A{n}")).chain((1..=16).map(|n| format!("B{n}"))).collect();
    let mut served = BTreeSet::new();
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for Sentence { id, line, rows: named, text } in sentences(&spec) {
        if let Some(before) = first.insert(id.clone(), line) {
            problems.push(format!("{SPEC}:{line}: {id} is also in line {before}: renumber one"));
        }
        if !text.contains("MUST") {
            problems.push(format!("{SPEC}:{line}: {id} has no MUST: say what must be"));
        }
        for row in named {
            if !rows.contains(&row) {
                problems.push(format!("{SPEC}:{line}: {id} names {row}, which is no requirement"));
            }
            served.insert(row);
        }
    }
    for row in rows {
        if !spec.contains(&format!("\n| {row} | ")) {
            problems.push(format!("{SPEC}: requirement {row} is in no table of requirements"));
        }
        if !served.contains(&row) {
            problems.push(format!("{SPEC}: no sentence serves {row}: add one, or name it in one"));
        }
    }
    for prefix in [
        "API-",
        "EXPLORER-",
        "GUARD-",
        "IRC-",
        "LEASE-",
        "REGION-",
        "SEAL-",
        "SIM-",
        "TIME-",
        "TRACE-",
    ] {
        let numbers: BTreeSet<usize> =
            first.keys().filter_map(|id| id.strip_prefix(prefix)?.parse().ok()).collect();
        let count = numbers.len();
        if numbers != (1..=count).collect() {
            problems.push(format!("{SPEC}: {prefix}1 to {prefix}{count} have gaps: {numbers:?}"));
        }
    }
    assert_none(&problems);
}

#[test]
fn every_safeguard_is_in_the_table_and_says_how_it_is_shown() {
    let spec = spec();
    let ids: BTreeSet<String> = Safeguards::ALL.iter().map(Safeguards::id).collect();
    let mut problems = Vec::new();
    let mut mutants = BTreeSet::new();
    for line in spec.lines().filter(|line| line.starts_with("| L-")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, .., shown] = cells[..] else { panic!("an empty row") };
        if shown.trim_end_matches('|').trim() == "mutant" {
            mutants.insert(id.to_owned());
        }
    }
    for id in ids.symmetric_difference(&mutants) {
        problems.push(format!(
            "{SPEC}: {id}: a rule is a flag of Safeguards exactly if the table says `mutant`"
        ));
    }
    for n in 1..=41 {
        let starts = [format!("| L-{n} |"), format!("| L-{n}a |")];
        if !spec.lines().any(|line| starts.iter().any(|start| line.starts_with(start))) {
            problems.push(format!("{SPEC}: L-{n} is not in the table of safeguards"));
        }
    }
    assert_none(&problems);
}

#[test]
fn every_safeguard_between_regions_is_in_the_table_and_is_shown() {
    let spec = spec();
    let ids: BTreeSet<String> =
        irc::safeguards::Safeguards::ALL.iter().map(irc::safeguards::Safeguards::id).collect();
    let table: BTreeMap<&str, &str> = spec
        .lines()
        .filter(|line| line.starts_with("| I-"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            (cells[0], *cells.last().expect("a row has cells"))
        })
        .collect();
    let mut problems = Vec::new();
    for id in &ids {
        if !table.contains_key(id.as_str()) {
            problems.push(format!("{SPEC}: {id} is not in the table of safeguards"));
        }
    }
    for (id, shown) in table {
        let is_mutant = shown.trim_end_matches('|').trim() == "mutant";
        if is_mutant && !ids.contains(id) {
            problems.push(format!("{SPEC}: {id} is said to have a mutant, and is no flag"));
        }
        if !is_mutant && !shown.contains('`') {
            problems.push(format!("{SPEC}: {id} names neither a mutant nor a test"));
        }
        let rows = tenure::models::irc::registry::mutants();
        if is_mutant != rows.iter().any(|row| row.name == id) {
            problems
                .push(format!("{SPEC}: {id}: the table and the registry disagree about a mutant"));
        }
    }
    assert_none(&problems);
}

/// Every situation has a row, and the mutants and models that a row names are registered.
#[test]
fn every_scenario_has_a_row_and_what_it_names_is_there() {
    const SCENARIOS: &str = "docs/SCENARIOS.md";
    let text = fs::read_to_string(root().join(SCENARIOS)).expect("the document is there");
    let rows: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .filter(|(id, _)| id.starts_with("LF-") || id.starts_with("IF-"))
        .collect();
    let mut problems = Vec::new();
    let wanted = (1..=52).map(|n| format!("LF-{n}")).chain((1..=35).map(|n| format!("IF-{n}")));
    let wanted: BTreeSet<String> = wanted.collect();
    for id in &wanted {
        let count = rows.iter().filter(|(row, _)| row == id).count();
        if count != 1 {
            problems.push(format!("{SCENARIOS}: {id} has {count} rows: give it one"));
        }
    }
    let mutants: BTreeSet<String> =
        tenure::models::registry::all_mutants().into_iter().map(|entry| entry.name).collect();
    let models: BTreeSet<String> =
        tenure::models::registry::all_safe().into_iter().map(|entry| entry.name).collect();
    for (id, row) in rows {
        if !wanted.contains(id) {
            problems.push(format!("{SCENARIOS}: {id} is no situation of the specification"));
        }
        // `mutant L-1`, `mutants L-22 and L-29`, `mutants I-6 to I-10 and I-12`.
        for named in row.split("mutant").skip(1) {
            let ends = |c: char| c == ';' || c == ':' || c == '.';
            let named = named.split(ends).next().unwrap_or_default();
            let word = |word: &&str| word.starts_with("L-") || word.starts_with("I-");
            for rule in named.split([' ', ',']).filter(word) {
                if !mutants.contains(rule) {
                    problems.push(format!("{SCENARIOS}: {id}: there is no mutant {rule}"));
                }
            }
        }
        let kinds = ["irc-", "timed-", "timely-", "untimed-"];
        let named = row.split('`').skip(1).step_by(2);
        for model in named.filter(|name| kinds.iter().any(|kind| name.starts_with(kind))) {
            if !models.contains(model) {
                problems.push(format!("{SCENARIOS}: {id}: there is no model {model}"));
            }
        }
    }
    assert_none(&problems);
}

/// A table that names a test must not outlive it.
#[test]
fn every_test_that_the_documents_name_is_there() {
    let mut files = Vec::new();
    for directory in ["src", "models", "tests"] {
        sources(&root().join(directory), &mut files);
    }
    let code: String = files.iter().map(|file| fs::read_to_string(file).expect("UTF-8")).collect();
    let mut problems = Vec::new();
    for document in [SPEC, "docs/SCENARIOS.md"] {
        let text = fs::read_to_string(root().join(document)).expect("the document is there");
        let rows = ["| L-", "| I-", "| LF-", "| IF-"];
        let is_row = |line: &&str| rows.iter().any(|row| line.starts_with(row));
        let named = text.lines().filter(is_row).flat_map(|line| {
            line.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() >= 3)
        });
        let gone = named.filter(|name| !code.contains(&format!("fn {name}(")));
        problems.extend(gone.map(|name| {
            format!("{document}: there is no test {name}: name the one that shows it now")
        }));
    }
    assert_none(&problems);
}
