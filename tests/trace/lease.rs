//! Traces of a lease that are changed so that no run can have left them.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tenure::durable::Durable as _;
use tenure::lease::record::Record;
use tenure::lease::{Member, MemberState, Storage};
use tenure::trace::Traced as _;
use tenure::trace::check::Options;
use tenure::trace::format::{Hex, to_hex};

use super::cluster::{Recorded, STORE};
use super::edit::{
    self, Bench, Mutant, bump, changes, delivers, input, is_certain, is_header, is_step, leaves,
    parse, renumber,
};

fn sets(line: &Value, timer: &str) -> Option<usize> {
    let is_it = |change: &Value| {
        change["set"]["timer"].get(timer).is_some() || change["set"]["timer"] == timer
    };
    line.get("timers")?.as_array()?.iter().position(is_it)
}

/// One mutant of every kind that is known.
pub fn one_of_each(run: &Recorded) -> Vec<Mutant> {
    let mut bench = Bench::new(run, 10);
    let b = &mut bench;
    let written = |line: &Value| delivers(line, "Written");
    edit::of_any_protocol(b, STORE, written);
    b.rearrange(
        "the answer to a read was never made",
        |line| delivers(line, "Read"),
        |lines, at| drop(lines.remove(at)),
    );
    b.rearrange(
        "a delivery that changes something comes twice",
        |line| changes(line) && input(line, "deliver").is_some(),
        |lines, at| lines.insert(at + 1, lines[at].clone()),
    );
    let (poll, fire) = (json!("Poll"), "fire");
    let fires = |line: &Value| input(line, fire).is_some_and(|it| it["timer"] == poll);
    b.rearrange("a timer fires that is not armed", fires, |lines, at| {
        lines.insert(at + 1, lines[at].clone());
        lines[at + 1]["in"]["fire"]["timer"] = json!("Yield");
    });
    for (what, field) in [("lo", "lo"), ("hi", "hi"), ("deadline of a hold timer", "due")] {
        b.edit(
            &format!("the {what} is longer"),
            |line| sets(line, "Hold").is_some(),
            |line| {
                let place = sets(line, "Hold").expect("it does");
                bump(&mut line["timers"][place]["set"][field]);
            },
        );
    }
    b.edit(
        "a timer is not armed",
        |line| sets(line, "Poll").is_some(),
        |line| {
            let place = sets(line, "Poll").expect("it does");
            line["timers"].as_array_mut().expect("a list").remove(place);
        },
    );
    b.edit(
        "the permission lasts longer",
        |line| line.get("deadline").is_some(),
        |line| {
            bump(&mut line["deadline"]);
        },
    );
    b.edit(
        "the permission lasts for ever",
        |line| line.get("deadline").is_some(),
        |line| {
            line.as_object_mut().expect("a step").remove("deadline");
        },
    );
    for (what, pointer) in [
        ("epoch", "/in/deliver/msg/Written/record/claim/epoch"),
        ("version", "/in/deliver/msg/Written/record/version"),
        ("nonce", "/in/deliver/msg/Written/nonce/n"),
        ("holder", "/in/deliver/msg/Written/record/claim/holder/node"),
        ("sender", "/in/deliver/src"),
        ("sender's life", "/in/deliver/inc"),
    ] {
        b.edit(&format!("a message with another {what}"), written, |line| {
            bump(line.pointer_mut(pointer).expect("it is there"));
        });
    }
    b.edit("a node tells itself what only it can know", written, |line| {
        line["in"] = json!({ "told": { "msg": { "Stopped": { "epoch": 1 } } } });
    });
    b.edit("it hears from itself what it has not said", written, |line| {
        line["in"] = json!({ "own": { "msg": { "Stopped": { "epoch": 1 } } } });
    });
    b.edit("a value out of its bounds", written, |line| {
        line["in"]["deliver"]["msg"]["Written"]["record"]["version"] = json!(u64::MAX);
    });
    storage(b);
    send_before_its_save(b);
    bench.mutants
}

/// The storage was changed while the node was down.
fn storage(b: &mut Bench<'_>) {
    b.change("storage is lost between two lives", STORE, |lines, starts| {
        lines[starts[1]]["in"]["start"]["rows"] = lines[starts[0]]["in"]["start"]["rows"].clone();
    });
    b.change("storage that cannot be read", STORE, |lines, starts| {
        lines[starts[1]]["in"]["start"]["rows"][0][1] = json!("ff");
    });
}

/// The store answers a write, somebody hears it, and the store comes back without it: as if the save had never been
/// durable.
fn send_before_its_save(b: &mut Bench<'_>) {
    let heard: Vec<_> = b
        .files
        .iter()
        .flatten()
        .filter_map(|line| input(line, "deliver")?["msg"]["Written"]["record"].get("version"))
        .collect();
    let mut lines = b.files[STORE].clone();
    let second = (1..lines.len()).find(|&at| is_header(&lines[at])).expect("two lives");
    let saves: Vec<_> =
        (0..second).filter(|&at| lines[at]["save"].get("number").is_some()).collect();
    let is_heard = |&at: &usize| {
        heard.contains(&&lines[at]["sends"][0]["msg"]["Written"]["record"]["version"])
    };
    let last = saves.iter().rposition(is_heard).expect("an answer that was heard");
    let (kept, lost) = (saves[last - 1], saves[last]);
    let number = lines[kept]["save"]["number"].clone();
    for line in &mut lines[lost..second] {
        line["durable"] = number.clone();
    }
    let written = lines[kept]["sends"][0]["msg"]["Written"]["record"].clone();
    let record: Record = serde_json::from_value(written).expect("a record");
    let mut rows = Vec::new();
    Storage::Store(record.clone()).difference(None, &mut |key, value| {
        rows.push((to_hex(&key), to_hex(&value.expect("a row"))));
    });
    lines[second + 1]["in"]["start"]["rows"] = json!(rows);
    lines[second + 1]["post"] = json!(Hex(Member::digest(&MemberState::Store(record))));
    // What the second life has done with what it had not lost is no part of this.
    lines.truncate(second + 2);
    b.add("a send before its save", STORE, &lines, Options::default());
    b.mutants.last_mut().expect("one was added").why = Some("arrives and was never sent");
}

/// The same run with one more step at the end of the store's first life, whose save was never durable.
pub fn with_an_undone_step(run: &Recorded) -> Recorded {
    let mut run = run.clone();
    let lines = &mut run.files[STORE].lines;
    let second = (1..lines.len()).find(|&at| lines[at].contains("\"tenure_trace\"")).unwrap();
    let saving = lines[..second].iter().rposition(|line| line.contains("\"number\"")).unwrap();
    let mut undone = parse(&lines[saving]);
    let last = parse(&lines[second - 1]);
    let number = undone["save"]["number"].as_u64().unwrap();
    undone["i"] = json!(last["i"].as_u64().unwrap() + 1);
    undone["save"]["number"] = json!(number + 1);
    undone["save"]["digest"] = json!("0123456789abcdef");
    undone["durable"] = json!(number);
    lines.insert(second, undone.to_string());
    run
}

/// Whether this part of a line can be changed without the run becoming impossible, or the trace one of
/// another kind: times that lie within their windows, names that nothing depends on, orders that nobody
/// obeys.
fn is_free(line: &Value, path: &[String]) -> bool {
    let has = |name: &str| path.iter().any(|part| part == name);
    !is_step(line)
        || ["at", "durable", "i", "told", "due"].iter().any(|name| has(name))
        || input(line, "start").is_some()
}

/// Another text of the same kind.
fn another(text: &str) -> String {
    let is_digest = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text {
        "A" => "B".to_owned(),
        "B" => "A".to_owned(),
        "Poll" => "Retry".to_owned(),
        "Attempt" | "Yield" | "Resend" | "Retry" => "Poll".to_owned(),
        _ if is_digest => {
            let first = if text.starts_with('0') { '1' } else { '0' };
            format!("{first}{}", &text[1..])
        }
        _ => format!("{text}0"),
    }
}

/// A mutant that is drawn from a seed; none if the draw hits what is free.
pub fn random(run: &Recorded, seed: u64) -> Option<Mutant> {
    let mut rng = StdRng::seed_from_u64(seed);
    let file = rng.random_range(0..run.files.len());
    let lines = &run.files[file].lines;
    let index = rng.random_range(1..lines.len() - 1);
    let line = parse(&lines[index]);
    // What a crash has undone has never been, whatever it says; and what goes before it need not have been.
    let all: Vec<Value> = lines.iter().map(|line| parse(line)).collect();
    if !is_certain(&all, index) {
        return None;
    }
    let is_followed =
        is_step(&all[index + 1]) && is_certain(&all, index + 1) && input(&line, "start").is_none();
    let mut run = run.clone();
    let mut what;
    match rng.random_range(0..5) {
        0 if changes(&line) && is_followed => {
            what = format!("line {} is missing", index + 1);
            run.files[file].lines.remove(index);
        }
        1 if changes(&line) && is_followed => {
            what = format!("line {} comes twice", index + 1);
            run.files[file].lines.insert(index, lines[index].clone());
        }
        2 if changes(&line) && is_followed && changes(&parse(&lines[index + 1])) => {
            what = format!("lines {} and {} change places", index + 1, index + 2);
            let mut next = parse(&lines[index + 1]);
            let mut this = line.clone();
            (next["at"], this["at"]) = (this["at"].clone(), next["at"].clone());
            run.files[file].lines[index] = next.to_string();
            run.files[file].lines[index + 1] = this.to_string();
        }
        _ => {
            let mut found = leaves(&line);
            found.retain(|path| !is_free(&line, path));
            let path = found.choose(&mut rng)?;
            let mut changed = line.clone();
            let leaf = changed.pointer_mut(&format!("/{}", path.join("/")))?;
            *leaf = match &*leaf {
                Value::Number(number) => json!(number.as_u64()? ^ (1 << rng.random_range(0..10))),
                Value::String(text) => json!(another(text)),
                Value::Bool(is) => json!(!is),
                // Neither an entry nor a claim's holder is a number: with one, the line would be none of a trace.
                Value::Null if path.last().is_some_and(|name| name == "entry") => return None,
                Value::Null if path.ends_with(&["claim".to_owned(), "holder".to_owned()]) => {
                    json!({ "node": 0, "incarnation": 1 })
                }
                Value::Null => json!(1),
                _ => return None,
            };
            what = format!("line {} has another {}", index + 1, path.join("."));
            if path.last().is_some_and(|name| name == "seq") && path[0] == "in" {
                *leaf = json!(3_000_000);
            }
            run.files[file].lines[index] = changed.to_string();
        }
    }
    let mut values: Vec<Value> = run.files[file].lines.iter().map(|line| parse(line)).collect();
    renumber(&mut values);
    run.files[file].lines = values.iter().map(Value::to_string).collect();
    what += &format!(", in {}, seed {seed}", run.files[file].name);
    Some(Mutant { what, run, options: Options::default(), why: None })
}
