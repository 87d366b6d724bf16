//! Changes traces so that no run can have left them, whatever the protocol.

use serde_json::{Value, json};
use tenure::trace::check::Options;

use super::cluster::Recorded;

/// A changed trace, and how.
pub struct Mutant {
    pub what: String,
    pub run: Recorded,
    pub options: Options,
    /// What the verdict says, if only one rule shall find it.
    pub why: Option<&'static str>,
}

pub type Lines = Vec<Value>;

pub fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

pub fn is_header(line: &Value) -> bool {
    line.get("tenure_trace").is_some()
}

pub fn is_step(line: &Value) -> bool {
    line.get("i").is_some()
}

pub fn changes(line: &Value) -> bool {
    is_step(line) && line["pre"] != line["post"]
}

pub fn input<'a>(line: &'a Value, kind: &str) -> Option<&'a Value> {
    line.get("in")?.get(kind)
}

pub fn delivers(line: &Value, kind: &str) -> bool {
    input(line, "deliver").is_some_and(|it| it["msg"].get(kind).is_some())
}

pub fn is_start(line: &Value) -> bool {
    input(line, "start").is_some()
}

/// Where the lives of a trace start.
pub fn starts(lines: &[Value]) -> Vec<usize> {
    (0..lines.len()).filter(|&at| is_start(&lines[at])).collect()
}

/// Gives the steps of each life their numbers again.
pub fn renumber(lines: &mut [Value]) {
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
pub fn is_certain(lines: &[Value], index: usize) -> bool {
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

pub fn bump(value: &mut Value) {
    *value = json!(value.as_u64().expect("a number") + 1);
}

/// Where each value of a line is that holds no others.
pub fn leaves(value: &Value) -> Vec<Vec<String>> {
    fn go(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        let mut inside = |name: String, value: &Value| {
            path.push(name);
            go(value, path, found);
            path.pop();
        };
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, it)| inside(name.clone(), it));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(place, it)| inside(place.to_string(), it));
            }
            _ => found.push(path.clone()),
        }
    }
    let mut found = Vec::new();
    go(value, &mut Vec::new(), &mut found);
    found
}

/// Makes mutants of a run, one after the other.
pub struct Bench<'a> {
    run: &'a Recorded,
    pub files: Vec<Lines>,
    /// So many lines at the beginning of a file are left alone, so that something has gone before.
    beginning: usize,
    pub mutants: Vec<Mutant>,
}

impl<'a> Bench<'a> {
    pub fn new(run: &'a Recorded, beginning: usize) -> Self {
        let files = run.files.iter().map(|file| file.lines.iter().map(|l| parse(l)).collect());
        Self { run, files: files.collect(), beginning, mutants: Vec::new() }
    }

    pub fn add(&mut self, what: &str, file: usize, lines: &[Value], options: Options) {
        let mut run = self.run.clone();
        run.files[file].lines = lines.iter().map(Value::to_string).collect();
        let what = format!("{what}, in {}", run.files[file].name);
        self.mutants.push(Mutant { what, run, options, why: None });
    }

    /// The first line, in any file, that is as wanted, in the middle of its life and certain.
    pub fn find(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> (usize, usize) {
        let places = self.files.iter().enumerate().flat_map(|(file, lines)| {
            (self.beginning..lines.len() - 1).map(move |index| (file, index))
        });
        let is_wanted = |&(file, index): &(usize, usize)| {
            let lines = &self.files[file];
            wanted(&lines[index]) && is_step(&lines[index + 1]) && is_certain(lines, index)
        };
        places.into_iter().find(is_wanted).unwrap_or_else(|| panic!("no line for {what}"))
    }

    pub fn edit(
        &mut self,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
        edit: impl FnOnce(&mut Value),
    ) {
        self.rearrange(what, wanted, |lines, at| {
            let before = lines[at].clone();
            edit(&mut lines[at]);
            assert_ne!(before, lines[at], "{what} changes something");
        });
    }

    pub fn rearrange(
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

    /// Changes one file, given where its lives start.
    pub fn change(&mut self, what: &str, file: usize, change: impl FnOnce(&mut Lines, &[usize])) {
        let mut lines = self.files[file].clone();
        let starts = starts(&lines);
        change(&mut lines, &starts);
        self.add(what, file, &lines, Options::default());
    }
}

/// The kinds of mutants that every protocol has. `file` has had two lives, and `message` is a delivery that changes
/// something.
pub fn of_any_protocol(b: &mut Bench<'_>, file: usize, message: impl Fn(&Value) -> bool) {
    b.rearrange("a step is missing", changes, |lines, at| drop(lines.remove(at)));
    let both = |line: &Value| changes(line) && line.get("sends").is_some();
    b.rearrange("two steps in the wrong order", both, |lines, at| {
        let next = (at + 1..lines.len()).find(|&next| changes(&lines[next])).expect("another");
        let (one, other) = (lines[at]["at"].clone(), lines[next]["at"].clone());
        lines.swap(at, next);
        lines[at]["at"] = one;
        lines[next]["at"] = other;
    });
    let fires = |line: &Value| input(line, "fire").is_some_and(|it| it["timer"] == "Poll");
    b.edit("a timer fires from an old arming", fires, |line| {
        let due = line["in"]["fire"]["due"].as_u64().expect("a time");
        line["in"]["fire"]["due"] = json!(due - 1);
    });
    b.edit("a timer fires before its time", fires, |line| {
        line["at"] = json!(line["in"]["fire"]["due"].as_u64().expect("a time") - 1);
    });
    b.edit("a datagram that was never sent", &message, |line| {
        line["in"]["deliver"]["seq"] = json!(4_000_000);
    });
    b.edit("a message of a life before the first", &message, |line| {
        line["in"]["deliver"]["inc"] = json!(0);
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
    headers(b, file);
    overdue(b);
    duplicate_without_repeats(b);
}

/// A message is handled while a timer should have fired. The timer was armed before an earlier input that was no
/// timer's: one that is armed only after it may be overdue.
fn overdue(b: &mut Bench<'_>) {
    let (file, index, due) = b
        .files
        .iter()
        .enumerate()
        .find_map(|(file, lines)| {
            message_beside_a_timer(lines, b.beginning).map(|(at, due)| (file, at, due))
        })
        .expect("a message comes while a timer is armed");
    let mut lines = b.files[file].clone();
    lines[index]["at"] = json!(due + 1);
    b.add("an overdue timer is passed over", file, &lines, Options::default());
    b.mutants.last_mut().expect("one was added").why = Some("has not fired before this");
}

/// The first line from `beginning` that delivers a message while a timer is armed since before the last input that
/// was no timer's, and when this timer is due.
fn message_beside_a_timer(lines: &[Value], beginning: usize) -> Option<(usize, u64)> {
    let mut armed: Vec<(String, usize, u64)> = Vec::new();
    let mut last_other = None;
    for (at, line) in lines.iter().enumerate() {
        if is_header(line) {
            armed.clear();
            last_other = None;
        }
        if !is_step(line) {
            continue;
        }
        if at >= beginning && input(line, "deliver").is_some() && is_certain(lines, at) {
            let since =
                |&&(_, by, _): &&(String, usize, u64)| last_other.is_some_and(|other| by <= other);
            if let Some(&(_, _, due)) = armed.iter().find(since) {
                return Some((at, due));
            }
        }
        let name = |timer: &Value| format!("{} {timer}", line["lease"]);
        match input(line, "fire") {
            Some(fire) => armed.retain(|(timer, ..)| *timer != name(&fire["timer"])),
            None => last_other = Some(at),
        }
        for change in line["timers"].as_array().into_iter().flatten() {
            let timer = name(change.get("set").map_or(&change["cancel"], |set| &set["timer"]));
            armed.retain(|(known, ..)| *known != timer);
            if let Some(due) = change["set"]["due"].as_u64() {
                armed.push((timer, at, due));
            }
        }
    }
    None
}

fn headers(b: &mut Bench<'_>, file: usize) {
    let right = b.files[file][0]["nodes"].as_u64().expect("a number");
    for wrong in [right - 1, right + 1] {
        b.change("the wrong number of nodes", file, |lines, _| {
            for line in lines.iter_mut().filter(|line| is_header(line)) {
                line["nodes"] = json!(wrong);
            }
        });
    }
    b.change("an incarnation comes twice", file, |lines, starts| {
        lines[starts[1] - 1]["incarnation"] = lines[starts[0] - 1]["incarnation"].clone();
    });
    b.change("a node without storage starts twice", file, |lines, starts| {
        lines[starts[1] - 1]["durable"] = json!(false);
    });
    b.change("two traces of one node", file, |lines, _| lines[0]["node"] = json!(0));
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
