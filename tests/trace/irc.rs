//! A run of two regions that has left traces, and traces that are changed so that no run can have left them.

use std::path::Path;
use std::process::Command;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tenure::trace::check::Options;

use super::cluster::{Recorded, TraceFile};

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

/// A changed trace, and how.
pub struct Mutant {
    pub what: String,
    pub run: Recorded,
    pub options: Options,
}

type Lines = Vec<Value>;

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn is_header(line: &Value) -> bool {
    line.get("tenure_trace").is_some()
}

fn is_step(line: &Value) -> bool {
    line.get("i").is_some()
}

fn changes(line: &Value) -> bool {
    is_step(line) && line["pre"] != line["post"]
}

fn input<'a>(line: &'a Value, kind: &str) -> Option<&'a Value> {
    line.get("in")?.get(kind)
}

fn delivers(line: &Value, kind: &str) -> bool {
    input(line, "deliver").is_some_and(|it| it["msg"].get(kind).is_some())
}

fn is_start(line: &Value) -> bool {
    input(line, "start").is_some()
}

/// Gives the steps of each life their numbers again.
fn renumber(lines: &mut [Value]) {
    let mut i = 0;
    for line in lines {
        if is_step(line) {
            line["i"] = json!(i);
            i += 1;
        } else if is_header(line) {
            i = 0;
        }
    }
}

/// Whether a crash cannot have undone this line: a later one of its life says that its save is durable, or nobody
/// has started after it.
fn is_certain(lines: &[Value], index: usize) -> bool {
    let rest = &lines[index + 1..];
    let Some(end) = rest.iter().position(is_header) else { return true };
    let saved = lines[..=index]
        .iter()
        .rev()
        .take_while(|line| !is_header(line))
        .find_map(|line| line["save"]["number"].as_u64());
    rest[..end]
        .iter()
        .any(|line| line.get("stop").is_some() || line["durable"].as_u64() >= saved.or(Some(0)))
}

struct Bench<'a> {
    run: &'a Recorded,
    files: Vec<Lines>,
    mutants: Vec<Mutant>,
}

impl<'a> Bench<'a> {
    fn new(run: &'a Recorded) -> Self {
        let files = run.files.iter().map(|file| file.lines.iter().map(|l| parse(l)).collect());
        Self { run, files: files.collect(), mutants: Vec::new() }
    }

    fn add(&mut self, what: &str, file: usize, lines: &[Value], options: Options) {
        let mut run = self.run.clone();
        run.files[file].lines = lines.iter().map(Value::to_string).collect();
        let what = format!("{what}, in {}", run.files[file].name);
        self.mutants.push(Mutant { what, run, options });
    }

    /// The first line, in any file, that is as wanted, in the middle of its life and certain.
    fn find(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> (usize, usize) {
        let places = self.files.iter().enumerate().flat_map(|(file, lines)| {
            // Not at the very beginning, so that something has gone before.
            (5..lines.len() - 1).map(move |index| (file, index))
        });
        let is_wanted = |&(file, index): &(usize, usize)| {
            let lines = &self.files[file];
            wanted(&lines[index]) && is_step(&lines[index + 1]) && is_certain(lines, index)
        };
        places.into_iter().find(is_wanted).unwrap_or_else(|| panic!("no line for {what}"))
    }

    fn edit(&mut self, what: &str, wanted: impl Fn(&Value) -> bool, edit: impl FnOnce(&mut Value)) {
        self.rearrange(what, wanted, |lines, at| {
            let before = lines[at].clone();
            edit(&mut lines[at]);
            assert_ne!(before, lines[at], "{what} changes something");
        });
    }

    fn rearrange(
        &mut self,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
        rearrange: impl FnOnce(&mut Lines, usize),
    ) {
        let (file, index) = self.find(what, wanted);
        let mut lines = self.files[file].clone();
        rearrange(&mut lines, index);
        renumber(&mut lines);
        self.add(what, file, &lines, Options::default());
    }

    /// Changes west's trace, given where its lives start.
    fn west(&mut self, what: &str, change: impl FnOnce(&mut Lines, &[usize])) {
        let mut lines = self.files[WEST].clone();
        let starts: Vec<_> = (0..lines.len()).filter(|&at| is_start(&lines[at])).collect();
        change(&mut lines, &starts);
        self.add(what, WEST, &lines, Options::default());
    }
}

fn bump(value: &mut Value) {
    *value = json!(value.as_u64().expect("a number") + 1);
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
    let mut bench = Bench::new(run);
    let b = &mut bench;
    b.rearrange("a step is missing", changes, |lines, at| drop(lines.remove(at)));
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
    b.rearrange("two steps in the wrong order", changes, |lines, at| {
        let next = (at + 1..lines.len()).find(|&next| changes(&lines[next])).expect("another");
        let (one, other) = (lines[at]["at"].clone(), lines[next]["at"].clone());
        lines.swap(at, next);
        lines[at]["at"] = one;
        lines[next]["at"] = other;
    });
    let fires = |line: &Value| input(line, "fire").is_some_and(|it| it["timer"] == "Poll");
    b.edit("a timer fires that is not armed", fires, |line| {
        line["in"]["fire"]["timer"] = json!("Tick");
    });
    b.edit("a timer fires from an old arming", fires, |line| {
        let due = line["in"]["fire"]["due"].as_u64().expect("a time");
        line["in"]["fire"]["due"] = json!(due - 1);
    });
    b.edit("a timer fires before its time", fires, |line| {
        line["at"] = json!(line["in"]["fire"]["due"].as_u64().expect("a time") - 1);
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
    let call = |line: &Value| delivers(line, "Call");
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
    b.edit("a datagram that was never sent", call, |line| {
        line["in"]["deliver"]["seq"] = json!(4_000_000);
    });
    b.edit("a message of a life before the first", call, |line| {
        line["in"]["deliver"]["inc"] = json!(0);
    });
    b.edit("a message from nobody", call, |line| line["in"]["deliver"]["src"] = json!(99));
    b.edit(
        "another answer to a customer",
        |line| delivers(line, "Told"),
        |line| {
            line["in"]["deliver"]["msg"]["Told"]["result"] = json!({ "Err": "Unavailable" });
        },
    );
    let sends = |line: &Value| line["sends"][0].get("seq").is_some();
    b.edit("a send to another node", sends, |line| bump(&mut line["sends"][0]["to"]));
    b.edit("a datagram's number is left out", sends, |line| bump(&mut line["sends"][0]["seq"]));
    b.edit("a send that is not told", sends, |line| {
        line["sends"].as_array_mut().expect("a list").remove(0);
    });
    b.edit("a send that was not made", sends, |line| {
        let first = line["sends"][0].clone();
        line["sends"].as_array_mut().expect("a list").push(first);
    });
    for digest in ["pre", "post"] {
        b.edit(&format!("another {digest}"), changes, |line| {
            line[digest] = json!("0123456789abcdef");
        });
    }
    let saves = |line: &Value| line["save"].get("number").is_some();
    b.edit("another content is saved", saves, |line| {
        line["save"]["digest"] = json!("0123456789abcdef");
    });
    b.edit("saved more often", saves, |line| bump(&mut line["save"]["count"]));
    b.edit("a save has another number", saves, |line| bump(&mut line["save"]["number"]));
    b.edit("a save that is not told", saves, |line| {
        line.as_object_mut().expect("a step").remove("save");
    });
    b.edit("durable before it was made", saves, |line| line["durable"] = json!(1_000_000));
    b.edit("another actor", changes, |line| bump(&mut line["lease"]));
    b.edit("the clock goes back", changes, |line| line["at"] = json!(1));
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
    overdue(b);
    headers(b);
    storage(b);
    duplicate_without_repeats(b);
    bench.mutants
}

/// A message is handled while a timer should have fired.
fn overdue(b: &mut Bench<'_>) {
    b.rearrange(
        "an overdue timer is passed over",
        |line| delivers(line, "Reported") && line.get("timers").is_none(),
        |lines, at| {
            let due = |line: &Value| {
                let all = line["timers"].as_array()?.iter();
                let mut polls = all.filter(|it| it["set"]["timer"] == "Poll");
                polls.next().map(|it| it["set"]["due"].as_u64().expect("a time"))
            };
            let due = lines[..at].iter().rev().find_map(due).expect("a poll is armed");
            lines[at]["at"] = json!(due + 1);
        },
    );
}

fn headers(b: &mut Bench<'_>) {
    for wrong in [7, 9] {
        b.west("the wrong number of nodes", |lines, _| {
            for line in lines.iter_mut().filter(|line| is_header(line)) {
                line["nodes"] = json!(wrong);
            }
        });
    }
    b.west("an incarnation comes twice", |lines, starts| {
        lines[starts[1] - 1]["incarnation"] = lines[starts[0] - 1]["incarnation"].clone();
    });
    b.west("a node without storage starts twice", |lines, starts| {
        lines[starts[1] - 1]["durable"] = json!(false);
    });
    b.west("two traces of one node", |lines, _| lines[0]["node"] = json!(0));
    b.west("two control planes of one region", |lines, _| {
        for line in lines.iter_mut().filter(|line| is_header(line)) {
            line["actors"][0][1]["Control"]["region"] = json!(0);
        }
    });
    b.west("another seal key", |lines, _| {
        for line in lines.iter_mut().filter(|line| is_header(line)) {
            line["actors"][0][1]["Control"]["key"] = json!("0123456789abcdef0123456789abcdef");
        }
    });
    b.west("a control plane without one of its rules", |lines, _| {
        for line in lines.iter_mut().filter(|line| is_header(line)) {
            let all = &mut line["actors"][0][1]["Control"]["safeguards"];
            let fewer = all.as_str().expect("names").replace("I_41_TOKEN_KEPT | ", "");
            *all = json!(fewer.replace("I_42_EVERY_CHANGE_AUDITED | ", ""));
        }
    });
}

/// The storage was changed while the node was down, with and without a restore.
fn storage(b: &mut Bench<'_>) {
    b.west("storage is lost between two lives", |lines, starts| {
        lines[starts[1]]["in"]["start"]["rows"] = Value::Null;
    });
    b.west("an old copy is there, and nobody has put it back", |lines, starts| {
        lines[starts[2]]["in"]["start"]["rows"] = lines[starts[1]]["in"]["start"]["rows"].clone();
    });
    b.west("storage that cannot be read", |lines, starts| {
        rows(&mut lines[starts[1]])[0][1] = json!("ff");
    });
    b.west("a peering was changed from outside", |lines, starts| {
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
        b.west(&format!("{what} was changed in what was put back"), |lines, starts| {
            change_row(&mut lines[starts[3]], kind);
        });
        b.west(&format!("{what} is missing in what was put back"), |lines, starts| {
            let place = row(&mut lines[starts[3]], kind);
            rows(&mut lines[starts[3]]).remove(place);
        });
    }
    b.west("a half went off while a backup was put back", |lines, starts| {
        let place = row(&mut lines[starts[3]], b'o');
        rows(&mut lines[starts[3]]).remove(place);
    });
    b.west("a half went on while a backup was put back", |lines, starts| {
        let place = row(&mut lines[starts[3]], b'o');
        let mut more = rows(&mut lines[starts[3]])[place].clone();
        more[0] = json!("6f000111");
        rows(&mut lines[starts[3]]).push(more);
    });
}

/// The control plane answers, and comes back without what it has answered: as if its saves had never been durable.
pub fn sent_before_its_save(run: &Recorded) -> Mutant {
    let lines: Lines = run.files[WEST].lines.iter().map(|line| parse(line)).collect();
    let starts: Vec<_> = (0..lines.len()).filter(|&at| is_start(&lines[at])).collect();
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
    Mutant { what: "a send before its save".to_owned(), run, options: Options::default() }
}

/// A datagram comes twice and changes nothing: only a network that does not repeat forbids it.
fn duplicate_without_repeats(b: &mut Bench<'_>) {
    let what = "a datagram comes twice";
    let (file, index) = b.find(what, |line| {
        is_step(line)
            && !changes(line)
            && input(line, "deliver").is_some()
            && line.get("sends").is_none()
            && line.get("timers").is_none()
    });
    let mut lines = b.files[file].clone();
    lines.insert(index + 1, lines[index].clone());
    renumber(&mut lines);
    b.add(what, file, &lines, Options { repeats: false, ..Options::default() });
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

fn leaves(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let mut go = |name: String, value: &Value| {
        path.push(name);
        leaves(value, path, found);
        path.pop();
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, it)| go(name.clone(), it)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(place, it)| go(place.to_string(), it));
        }
        _ => found.push(path.clone()),
    }
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
    let is_followed = is_step(&lines[index + 1]) && !is_start(&line) && changes(&line);
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
            let mut found = Vec::new();
            leaves(&line, &mut Vec::new(), &mut found);
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
    Some(Mutant { what, run, options: Options::default() })
}
