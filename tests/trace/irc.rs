//! A run of two regions that has left traces, and traces that are changed so that no run can have left them.

use std::path::Path;
use std::process::Command;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tenure::trace::check::Options;

use super::cluster::{Recorded, TraceFile};
use super::edit::{
    self, Bench, Lines, Mutant, bump, changes, delivers, input, is_certain, is_header, is_start,
    is_step, leaves, parse, renumber, starts,
};

/// The control plane that is killed, and put back to a backup.
pub const WEST: usize = 4;
const NAMES: [&str; 8] =
    ["east", "east-1", "east-2", "east-customer", "west", "west-1", "west-2", "west-customer"];

/// The traces of the demo: creations, crossing ones among them, an acceptance, deletions, kills of a server and of a
/// region, and a restore.
pub fn recorded() -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_tenure"))
        .args(["demo", "irc", "--trace-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(demo.status.success(), "{demo:?}");
    read(folder.path(), NAMES.map(|name| format!("{name}.ndjson")))
}

/// The traces of these names.
pub fn read(folder: &Path, names: impl IntoIterator<Item = String>) -> Recorded {
    let read = |name: String| {
        let text = std::fs::read_to_string(folder.join(&name)).unwrap();
        TraceFile { name, lines: text.lines().map(str::to_owned).collect() }
    };
    Recorded { files: names.into_iter().map(read).collect() }
}

/// The rows of a start.
fn rows(line: &mut Value) -> &mut Vec<Value> {
    line["in"]["start"]["rows"].as_array_mut().expect("something was stored")
}

/// The place of the first row of this kind.
fn row(line: &mut Value, kind: u8) -> usize {
    let kind = format!("{kind:02x}");
    let is_it = |row: &Value| row[0].as_str().expect("a key").starts_with(&kind);
    rows(line).iter().position(is_it).expect("a row of that kind")
}

/// Adds one to the last byte of a row's value.
fn change_row(line: &mut Value, kind: u8) {
    let place = row(line, kind);
    let text = rows(line)[place][1].as_str().expect("a value").to_owned();
    let (rest, last) = text.split_at(text.len() - 2);
    let last = u8::from_str_radix(last, 16).expect("a byte") ^ 1;
    rows(line)[place][1] = json!(format!("{rest}{last:02x}"));
}

/// One mutant of every kind that is known.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn one_of_each(run: &Recorded) -> Vec<Mutant> {
    let mut bench = Bench::new(run, 5);
    let b = &mut bench;
    let call = |line: &Value| delivers(line, "Call");
    edit::of_any_protocol(b, WEST, call);
    for kind in ["Ask", "Call", "Claimed", "Report"] {
        let what = format!("nobody has heard the {kind}");
        b.rearrange(
            &what,
            |it| changes(it) && delivers(it, kind),
            |lines, at| {
                lines.remove(at);
            },
        );
        let what = format!("the {kind} comes twice, with an effect each time");
        b.rearrange(
            &what,
            |it| changes(it) && delivers(it, kind),
            |lines, at| {
                lines.insert(at + 1, lines[at].clone());
            },
        );
    }
    let fires = |line: &Value| input(line, "fire").is_some_and(|it| it["timer"] == "Poll");
    b.edit("a timer fires that is not armed", fires, |line| {
        line["in"]["fire"]["timer"] = json!("Tick");
    });
    let leases = |line: &Value| line["timers"][0]["set"]["timer"].get("Lease").is_some();
    for field in ["lo", "hi"] {
        b.edit(&format!("a claim's {field} is longer"), leases, |line| {
            bump(&mut line["timers"][0]["set"][field]);
        });
    }
    b.edit("a claim ends later than it may", leases, |line| {
        let hi = line["timers"][0]["set"]["hi"].as_u64().expect("a time");
        line["timers"][0]["set"]["due"] = json!(line["at"].as_u64().expect("a time") + hi + 1);
    });
    b.edit("the end of a claim is not armed", leases, |line| {
        line["timers"].as_array_mut().expect("a list").remove(0);
    });
    for (what, pointer) in [
        ("life", "/in/deliver/msg/Call/incarnation/n"),
        ("life's tag", "/in/deliver/msg/Call/incarnation/life"),
        ("region", "/in/deliver/msg/Call/from"),
        ("claim", "/in/deliver/msg/Call/tag/1/counter"),
        ("sender's life", "/in/deliver/inc"),
    ] {
        b.edit(&format!("a call with another {what}"), call, |line| {
            let it = line.pointer_mut(pointer).expect("it is there");
            *it = json!(it.as_u64().expect("a number") ^ 1);
        });
    }
    b.edit("a message from nobody", call, |line| line["in"]["deliver"]["src"] = json!(99));
    b.edit(
        "another answer to a customer",
        |line| delivers(line, "Told"),
        |line| {
            line["in"]["deliver"]["msg"]["Told"]["result"] = json!({ "Err": "Unavailable" });
        },
    );
    b.edit("an operator says what a server says", call, |line| {
        let msg = line["in"]["deliver"]["msg"].clone();
        line["in"] = json!({ "told": { "msg": msg } });
    });
    b.edit("it hears from itself what it has not said", call, |line| {
        let msg = line["in"]["deliver"]["msg"].clone();
        line["in"] = json!({ "own": { "msg": msg } });
    });
    b.rearrange(
        "a half is switched on twice",
        |line| input(line, "own").is_some() && changes(line),
        |lines, at| lines.insert(at + 1, lines[at].clone()),
    );
    actors(b);
    storage(b);
    bench.mutants
}

/// The actors are not those that have run.
fn actors(b: &mut Bench<'_>) {
    b.change("two control planes of one region", WEST, |lines, _| {
        for line in lines.iter_mut().filter(|line| is_header(line)) {
            line["actors"][0][1]["Control"]["region"] = json!(0);
        }
    });
    b.change("another seal key", WEST, |lines, _| {
        for line in lines.iter_mut().filter(|line| is_header(line)) {
            line["actors"][0][1]["Control"]["key"] = json!("0123456789abcdef0123456789abcdef");
        }
    });
    b.change("a control plane without one of its rules", WEST, |lines, _| {
        for line in lines.iter_mut().filter(|line| is_header(line)) {
            let all = &mut line["actors"][0][1]["Control"]["safeguards"];
            let fewer = all.as_str().expect("names").replace("I_41_TOKEN_KEPT | ", "");
            *all = json!(fewer.replace("I_42_EVERY_CHANGE_AUDITED | ", ""));
        }
    });
}

/// The storage was changed while the node was down, with and without a restore.
fn storage(b: &mut Bench<'_>) {
    b.change("storage is lost between two lives", WEST, |lines, starts| {
        lines[starts[1]]["in"]["start"]["rows"] = Value::Null;
    });
    b.change("an old copy is there, and nobody has put it back", WEST, |lines, starts| {
        lines[starts[2]]["in"]["start"]["rows"] = lines[starts[1]]["in"]["start"]["rows"].clone();
    });
    b.change("storage that cannot be read", WEST, |lines, starts| {
        rows(&mut lines[starts[1]])[0][1] = json!("ff");
    });
    b.change("a peering was changed from outside", WEST, |lines, starts| {
        change_row(&mut lines[starts[2]], b'p');
    });
    // The restore.
    for (kind, what) in [
        (b'a', "an entry of the audit log"),
        (b'h', "the head"),
        (b'p', "a peering"),
        (b'r', "what is known of the other region"),
        (b't', "the result of a call"),
    ] {
        b.change(&format!("{what} was changed in what was put back"), WEST, |lines, starts| {
            change_row(&mut lines[starts[3]], kind);
        });
        b.change(&format!("{what} is missing in what was put back"), WEST, |lines, starts| {
            let place = row(&mut lines[starts[3]], kind);
            rows(&mut lines[starts[3]]).remove(place);
        });
    }
    b.change("a half went off while a backup was put back", WEST, |lines, starts| {
        let place = row(&mut lines[starts[3]], b'o');
        rows(&mut lines[starts[3]]).remove(place);
    });
    b.change("a half went on while a backup was put back", WEST, |lines, starts| {
        let place = row(&mut lines[starts[3]], b'o');
        let mut more = rows(&mut lines[starts[3]])[place].clone();
        more[0] = json!("6f0001010111");
        rows(&mut lines[starts[3]]).push(more);
    });
}

/// The control plane answers, and comes back without what it has answered: as if its saves had never been durable.
pub fn sent_before_its_save(run: &Recorded) -> Mutant {
    let lines: Lines = run.files[WEST].lines.iter().map(|line| parse(line)).collect();
    let starts = starts(&lines);
    let moment = lines[starts[2]]["at"].as_u64().expect("a time");
    let mut run = run.until(moment);
    let mut lines: Lines = run.files[WEST].lines.iter().map(|line| parse(line)).collect();
    for line in lines[starts[1]..starts[2] - 1].iter_mut().filter(|line| is_step(line)) {
        line["durable"] = json!(0);
    }
    let first = lines[starts[1]].clone();
    for part in ["in", "post", "save", "sends"] {
        lines[starts[2]][part] = first[part].clone();
    }
    lines[starts[2]].as_object_mut().expect("a step").retain(|_, value| !value.is_null());
    run.files[WEST].lines = lines.iter().map(Value::to_string).collect();
    Mutant {
        what: "a send before its save".to_owned(),
        run,
        options: Options::default(),
        why: None,
    }
}

/// Whether this part of a line can be changed without the run becoming impossible, or the trace one of another kind:
/// times that lie within their windows, what an operator says, the names of kinds.
fn is_free(line: &Value, path: &[String], leaf: &Value) -> bool {
    let has = |name: &str| path.iter().any(|part| part == name);
    let is_digest = |text: &str| text.len() == 16 && text.bytes().all(|it| it.is_ascii_hexdigit());
    !is_step(line)
        || ["at", "durable", "i", "told", "due"].iter().any(|name| has(name))
        || is_start(line)
        || leaf.is_null()
        || leaf.as_str().is_some_and(|text| !is_digest(text))
}

/// Another value in the place of one of a datagram's input or of anything else; it keeps to the type.
fn another(leaf: &Value, path: &[String], rng: &mut StdRng) -> Option<Value> {
    // Polls are alike: one datagram's name in the place of another one's can be a run, too.
    let is_name = path.len() == 3 && path[0] == "in" && path[1] == "deliver";
    Some(match (leaf, path.last().map(String::as_str)) {
        (_, Some("seq" | "inc")) if is_name => json!(3_000_000),
        (Value::Number(node), Some("src")) if is_name => json!(node.as_u64()? ^ 64),
        // A byte stays one.
        (Value::Number(number), _) => json!(number.as_u64()? ^ (1 << rng.random_range(0..6))),
        (Value::Bool(is), _) => json!(!is),
        (Value::String(text), _) => {
            let first = if text.starts_with('0') { '1' } else { '0' };
            json!(format!("{first}{}", &text[1..]))
        }
        _ => return None,
    })
}

/// A mutant that is drawn from a seed; none if the draw hits what is free.
pub fn random(run: &Recorded, seed: u64) -> Option<Mutant> {
    let mut rng = StdRng::seed_from_u64(seed);
    let file = rng.random_range(0..run.files.len());
    let mut lines: Lines = run.files[file].lines.iter().map(|line| parse(line)).collect();
    let index = rng.random_range(1..lines.len() - 1);
    let line = lines[index].clone();
    if !is_certain(&lines, index) {
        return None;
    }
    // What goes before a step that a crash has undone need not have been.
    let is_followed = is_step(&lines[index + 1])
        && is_certain(&lines, index + 1)
        && !is_start(&line)
        && changes(&line);
    let what = match rng.random_range(0..5) {
        0 if is_followed => {
            lines.remove(index);
            "is missing".to_owned()
        }
        1 if is_followed => {
            lines.insert(index, line);
            "comes twice".to_owned()
        }
        2 if is_followed && changes(&lines[index + 1]) => {
            lines.swap(index, index + 1);
            let (one, other) = (lines[index]["at"].clone(), lines[index + 1]["at"].clone());
            (lines[index]["at"], lines[index + 1]["at"]) = (other, one);
            "changes places with the next".to_owned()
        }
        _ => {
            let mut found = leaves(&line);
            let leaf = |path: &[String]| line.pointer(&format!("/{}", path.join("/")));
            found.retain(|path| leaf(path).is_some_and(|leaf| !is_free(&line, path, leaf)));
            let path = found.choose(&mut rng)?;
            let new = another(leaf(path)?, path, &mut rng)?;
            *lines[index].pointer_mut(&format!("/{}", path.join("/")))? = new;
            format!("has another {}", path.join("."))
        }
    };
    renumber(&mut lines);
    let mut run = run.clone();
    run.files[file].lines = lines.iter().map(Value::to_string).collect();
    let name = &run.files[file].name;
    let what = format!("line {} of {name} {what}, seed {seed}", index + 1);
    Some(Mutant { what, run, options: Options::default(), why: None })
}
