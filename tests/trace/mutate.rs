//! Traces that are changed so that no run can have left them.

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

/// A changed trace, and how.
pub struct Mutant {
    pub what: String,
    pub run: Recorded,
    pub options: Options,
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
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

/// Gives the steps of each life their numbers again.
fn renumber(lines: &mut [Value]) {
    let mut i = 0;
    for line in lines {
        if is_step(line) {
            line["i"] = json!(i);
            i += 1;
        } else if line.get("tenure_trace").is_some() {
            i = 0;
        }
    }
}

/// Whether more steps of this life follow, none of them a start.
fn goes_on(lines: &[Value], index: usize) -> bool {
    lines.get(index + 1).is_some_and(is_step)
}

struct Bench<'a> {
    run: &'a Recorded,
    files: Vec<Vec<Value>>,
    mutants: Vec<Mutant>,
}

impl<'a> Bench<'a> {
    fn new(run: &'a Recorded) -> Self {
        let files = run.files.iter().map(|file| file.lines.iter().map(|l| parse(l)).collect());
        Self { run, files: files.collect(), mutants: Vec::new() }
    }

    fn build(&self, what: &str, file: usize, lines: &[Value], options: Options) -> Mutant {
        let mut run = self.run.clone();
        run.files[file].lines = lines.iter().map(Value::to_string).collect();
        Mutant { what: format!("{what}, in {}", run.files[file].name), run, options }
    }

    /// The first line, in any file, that is as wanted and in the middle of its life.
    fn find(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> (usize, usize) {
        let places = self.files.iter().enumerate().flat_map(|(file, lines)| {
            // Not at the very beginning, so that something has gone before.
            (10..lines.len()).map(move |index| (file, index))
        });
        let is_wanted = |&(file, index): &(usize, usize)| {
            wanted(&self.files[file][index]) && goes_on(&self.files[file], index)
        };
        places.into_iter().find(is_wanted).unwrap_or_else(|| panic!("no line for {what}"))
    }

    fn edit(&mut self, what: &str, wanted: impl Fn(&Value) -> bool, edit: impl FnOnce(&mut Value)) {
        let (file, index) = self.find(what, wanted);
        let mut lines = self.files[file].clone();
        let before = lines[index].clone();
        edit(&mut lines[index]);
        assert_ne!(before, lines[index], "{what} changes something");
        self.mutants.push(self.build(what, file, &lines, Options::default()));
    }

    fn rearrange(
        &mut self,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
        rearrange: impl FnOnce(&mut Vec<Value>, usize),
    ) {
        let (file, index) = self.find(what, wanted);
        let mut lines = self.files[file].clone();
        rearrange(&mut lines, index);
        renumber(&mut lines);
        self.mutants.push(self.build(what, file, &lines, Options::default()));
    }
}

fn bump(value: &mut Value) {
    *value = json!(value.as_u64().expect("a number") + 1);
}

fn delivers(line: &Value, kind: &str) -> bool {
    input(line, "deliver").is_some_and(|it| it["msg"].get(kind).is_some())
}

fn sets(line: &Value, timer: &str) -> Option<usize> {
    let is_it = |change: &Value| {
        change["set"]["timer"].get(timer).is_some() || change["set"]["timer"] == timer
    };
    line.get("timers")?.as_array()?.iter().position(is_it)
}

/// One mutant of every kind that is known.
pub fn one_of_each(run: &Recorded) -> Vec<Mutant> {
    let mut bench = Bench::new(run);
    let b = &mut bench;
    b.rearrange("a step is missing", changes, |lines, at| drop(lines.remove(at)));
    b.rearrange(
        "the answer to a read was never made",
        |line| delivers(line, "Read"),
        |lines, at| drop(lines.remove(at)),
    );
    let both = |line: &Value| changes(line) && line.get("sends").is_some();
    b.rearrange("two steps in the wrong order", both, |lines, at| {
        let next = (at + 1..lines.len()).find(|&next| changes(&lines[next])).expect("another");
        let (one, other) = (lines[at]["at"].clone(), lines[next]["at"].clone());
        lines.swap(at, next);
        lines[at]["at"] = one;
        lines[next]["at"] = other;
    });
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
    b.edit("a timer fires from an old arming", fires, |line| {
        let due = line["in"][fire]["due"].as_u64().expect("a time");
        line["in"][fire]["due"] = json!(due - 1);
    });
    b.edit("a timer fires before its time", fires, |line| {
        line["at"] = json!(line["in"][fire]["due"].as_u64().expect("a time") - 1);
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
    let written = |line: &Value| delivers(line, "Written");
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
    b.edit("a message of a life before the first", written, |line| {
        line["in"]["deliver"]["inc"] = json!(0);
    });
    b.edit("a datagram that was never sent", written, |line| {
        line["in"]["deliver"]["seq"] = json!(4_000_000);
    });
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
            line[digest] = json!("0123456789abcdef")
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
    b.edit("another lease", changes, |line| bump(&mut line["lease"]));
    b.edit("the clock goes back", changes, |line| line["at"] = json!(1));
    b.edit("a node tells itself what only it can know", written, |line| {
        line["in"] = json!({ "told": { "msg": { "Stopped": { "epoch": 1 } } } });
    });
    b.edit("it hears from itself what it has not said", written, |line| {
        line["in"] = json!({ "own": { "msg": { "Stopped": { "epoch": 1 } } } });
    });
    b.edit("a value out of its bounds", written, |line| {
        line["in"]["deliver"]["msg"]["Written"]["record"]["version"] = json!(u64::MAX);
    });
    overdue(b);
    headers(b);
    storage(b);
    send_before_its_save(b);
    duplicate_without_repeats(b);
    bench.mutants
}

/// A message is handled while a timer should have fired.
fn overdue(b: &mut Bench<'_>) {
    let (file, index) = b.find("overdue", |line| {
        delivers(line, "ReadOk") && sets(line, "Watch").is_none() && line.get("timers").is_none()
    });
    let mut lines = b.files[file].clone();
    let mut dues = lines[..index].iter().filter_map(|line| {
        Some(line["timers"][sets(line, "Poll")?]["set"]["due"].as_u64().expect("a time"))
    });
    let due = dues.next_back().expect("a poll is armed");
    lines[index]["at"] = json!(due + 1);
    b.mutants.push(b.build("an overdue timer is passed over", file, &lines, Options::default()));
}

fn headers(b: &mut Bench<'_>) {
    let nodes = |b: &Bench<'_>, nodes: u16| {
        let mut lines = b.files[0].clone();
        for line in lines.iter_mut().filter(|line| line.get("tenure_trace").is_some()) {
            line["nodes"] = json!(nodes);
        }
        b.build("the wrong number of nodes", 0, &lines, Options::default())
    };
    for wrong in [4, 6] {
        b.mutants.push(nodes(b, wrong));
    }
    let mut lines = b.files[STORE].clone();
    let second = (1..lines.len()).find(|&at| lines[at].get("tenure_trace").is_some());
    let second = second.expect("the store has had two lives");
    lines[second]["incarnation"] = lines[0]["incarnation"].clone();
    b.mutants.push(b.build("an incarnation comes twice", STORE, &lines, Options::default()));
    let mut lines = b.files[STORE].clone();
    lines[second]["durable"] = json!(false);
    b.mutants.push(b.build(
        "a node without storage starts twice",
        STORE,
        &lines,
        Options::default(),
    ));
    let mut lines = b.files[1].clone();
    lines[0]["node"] = json!(0);
    b.mutants.push(b.build("two traces of one node", 1, &lines, Options::default()));
}

/// The storage was changed while the node was down.
fn storage(b: &mut Bench<'_>) {
    let mut lines = b.files[STORE].clone();
    let starts: Vec<_> =
        (0..lines.len()).filter(|&at| input(&lines[at], "start").is_some()).collect();
    lines[starts[1]]["in"]["start"]["rows"] = lines[starts[0]]["in"]["start"]["rows"].clone();
    b.mutants.push(b.build("storage is lost between two lives", STORE, &lines, Options::default()));
    let mut lines = b.files[STORE].clone();
    lines[starts[1]]["in"]["start"]["rows"][0][1] = json!("ff");
    b.mutants.push(b.build("storage that cannot be read", STORE, &lines, Options::default()));
}

/// The store answers a write, and comes back without it: as if the save had never been durable.
fn send_before_its_save(b: &mut Bench<'_>) {
    let mut lines = b.files[STORE].clone();
    let second =
        (1..lines.len()).find(|&at| lines[at].get("tenure_trace").is_some()).expect("two lives");
    let saves: Vec<_> =
        (0..second).filter(|&at| lines[at]["save"].get("number").is_some()).collect();
    let (kept, lost) = (saves[saves.len() - 2], saves[saves.len() - 1]);
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
    b.mutants.push(b.build("a send before its save", STORE, &lines, Options::default()));
}

/// A datagram comes twice and changes nothing: only a network that does not repeat forbids it.
fn duplicate_without_repeats(b: &mut Bench<'_>) {
    let (file, index) = b.find("a delivery without effect", |line| {
        is_step(line)
            && !changes(line)
            && input(line, "deliver").is_some()
            && line.get("sends").is_none()
            && line.get("timers").is_none()
    });
    let mut lines = b.files[file].clone();
    lines.insert(index + 1, lines[index].clone());
    renumber(&mut lines);
    let options = Options { repeats: false, ..Options::default() };
    b.mutants.push(b.build("a datagram comes twice", file, &lines, options));
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

fn leaves(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                path.push(name.clone());
                leaves(value, path, found);
                path.pop();
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                path.push(index.to_string());
                leaves(value, path, found);
                path.pop();
            }
        }
        _ => found.push(path.clone()),
    }
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
    let is_followed = lines[index + 1].starts_with("{\"i\":") && input(&line, "start").is_none();
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
            let mut found = Vec::new();
            leaves(&line, &mut Vec::new(), &mut found);
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
    Some(Mutant { what, run, options: Options::default() })
}
