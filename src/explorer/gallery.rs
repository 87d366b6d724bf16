//! The gallery: every rule that can be left out, and what happens then.
//!
//! What a rule says, and what goes wrong without it, is written once, above its flag and in
//! `docs/SPEC.md`; it is read from there. The shortest counterexamples are kept as paths in
//! `gallery.json`; a test walks each, and walks it again with the rule.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::models::registry::{Entry, Expected};

const FLAGS: [&str; 2] =
    [include_str!("../lease/safeguards.rs"), include_str!("../irc/safeguards.rs")];
const SPEC: &str = include_str!("../../docs/SPEC.md");
const PATHS: &str = include_str!("gallery.json");

/// Real-world failures of rules above whose flag there is none.
const LINKS: [(&str, &str); 6] = [
    ("L-15", "https://github.com/alex-karpenko/kube-lease-manager"),
    ("L-17", "https://github.com/alex-karpenko/kube-lease-manager"),
    ("L-20a", "https://github.com/patroni/patroni/blob/master/docs/releases.rst"),
    ("L-20b", "https://github.com/patroni/patroni/blob/master/docs/releases.rst"),
    ("L-23", "https://github.com/patroni/patroni/blob/master/docs/releases.rst"),
    ("L-27", "https://github.com/awslabs/amazon-dynamodb-lock-client/issues/62"),
];

/// One rule.
#[derive(Clone, Debug, Serialize)]
pub struct Exhibit {
    /// Its id, which is the name of the model without it.
    pub id: String,
    /// Lease or IRC.
    pub protocol: &'static str,
    /// What it says.
    pub rule: String,
    /// What happens without it.
    pub without: String,
    /// Somebody to whom it has happened.
    pub link: Option<String>,
    /// The property that is violated.
    pub property: &'static str,
    /// After how many steps at the least; none if something never becomes possible.
    pub steps: Option<u32>,
    /// The shortest counterexample.
    pub path: Option<String>,
    /// The fingerprint of its last state.
    pub fingerprint: Option<String>,
}

/// A counterexample that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The path.
    pub path: String,
    /// The fingerprint of its last state.
    pub fingerprint: String,
}

/// The counterexamples that are kept, by rule.
///
/// # Panics
///
/// If the file that was built in is not as a test has written it.
pub fn kept() -> BTreeMap<String, Kept> {
    serde_json::from_str(PATHS).expect("a test has written the file")
}

/// Which protocol a model is of.
pub fn protocol(name: &str) -> &'static str {
    if name.starts_with("irc") || name.starts_with("I-") { "irc" } else { "lease" }
}

/// Every rule of which there is a mutant, in the order of the registry.
//= SPEC EXPLORER-11
pub fn exhibits<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Exhibit> {
    let kept = kept();
    let exhibit = |entry: &Entry| {
        let (property, steps) = match entry.expected {
            Expected::Violated { property, steps } => (property, Some(steps)),
            Expected::Never { property } => (property, None),
            Expected::Safe(_) | Expected::Holds => return None,
        };
        let id = entry.name.clone();
        let told = told_at_flag(&id);
        let without = told.without.or_else(|| told_in_spec(&id)).unwrap_or_default();
        let link = LINKS.iter().find(|(rule, _)| *rule == id).map(|&(_, link)| link.to_owned());
        let found = kept.get(&id);
        Some(Exhibit {
            protocol: protocol(&id),
            rule: told.rule,
            without: sentence(&without),
            link: told.link.or(link),
            property,
            steps,
            path: found.map(|kept| kept.path.clone()),
            fingerprint: found.map(|kept| kept.fingerprint.clone()),
            id,
        })
    };
    entries.filter_map(exhibit).collect()
}

struct AtFlag {
    rule: String,
    without: Option<String>,
    link: Option<String>,
}

/// What is written above the flag of a rule.
fn told_at_flag(id: &str) -> AtFlag {
    let name = format!("{}_", id.to_ascii_uppercase().replace('-', "_"));
    let mut told = Vec::new();
    let lines = FLAGS.iter().flat_map(|text| text.lines()).map(str::trim);
    for line in lines {
        if let Some(words) = line.strip_prefix("///") {
            told.push(words.trim());
            continue;
        }
        if line.strip_prefix("const ").is_some_and(|flag| flag.starts_with(&name)) {
            break;
        }
        told.clear();
    }
    let all = told.join("\n");
    let mut paragraphs = all.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    let mut link = None;
    let mut plain = |text: String| {
        let Some((before, rest)) = text.split_once('<') else { return text };
        let (url, after) = rest.split_once('>').unwrap_or((rest, ""));
        link = Some(url.to_owned());
        format!("{}{after}", before.trim_end().trim_end_matches(':'))
    };
    let rule = sentence(&plain(paragraphs.next().unwrap_or_default()));
    let without = paragraphs.next().map(&mut plain);
    AtFlag { rule, without, link }
}

/// What the table of rules says about doing without one.
fn told_in_spec(id: &str) -> Option<String> {
    let row = SPEC.lines().find(|line| line.starts_with(&format!("| {id} |")))?;
    let cells: Vec<_> = row.split('|').map(str::trim).collect();
    (cells.len() == 6).then(|| format!("Without it {}", cells[3]))
}

fn sentence(text: &str) -> String {
    let text = text.trim().trim_end_matches(['.', ',']).replace(['*', '`'], "");
    if text.is_empty() { text } else { format!("{text}.") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::registry::all_mutants;

    #[test]
    fn every_rule_has_its_story() {
        let mutants = all_mutants();
        let all = exhibits(mutants.iter());
        assert_eq!(all.len(), mutants.len());
        for one in &all {
            assert!(one.rule.ends_with('.') && one.rule.len() > 10, "{one:?}");
            assert!(!one.without.is_empty() || one.protocol == "irc", "{one:?}");
            assert!(!one.rule.contains("http") && !one.without.contains("http"), "{one:?}");
        }
        let of = |id: &str| all.iter().find(|one| one.id == id).expect("it is there");
        assert_eq!(
            of("L-1").link.as_deref(),
            Some("https://github.com/kubernetes/kubernetes/issues/44887")
        );
        assert!(of("L-20a").without.contains("deposed holder"), "{:?}", of("L-20a"));
    }
}
