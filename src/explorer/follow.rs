//! Follows a run: traces that nodes are still writing, checked and told as they grow.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::response::sse::Event;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::nodes::{Nodes, verdict};
use super::story::{Step, Story};
use crate::lease::Member;
use crate::models::replay::Global;
use crate::models::space::Lane;
use crate::trace::check::{Growing, Options, Report, Shown, Source, check_and_watch};

/// How many steps are kept to be shown: the newest. The check knows of all.
const STEPS_MAX: usize = 50_000;
/// How many steps are told at once.
const TOLD_MAX: usize = 500;
/// How often a folder is looked at, and how long it must have had no new trace before the run is read.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const SETTLED: Duration = Duration::from_secs(2);

/// A run that is followed.
pub struct Live {
    so_far: Mutex<SoFar>,
    changed: watch::Sender<()>,
    ended: Arc<AtomicBool>,
    /// How many steps are kept.
    most: usize,
}

#[derive(Default)]
struct SoFar {
    /// How often the run was read from the beginning: a trace was added to it.
    reading: u64,
    /// The story without its steps. It begins with the first step that is kept.
    head: Option<Story>,
    steps: VecDeque<Step>,
    /// How many steps there were before those that are kept.
    gone: usize,
    /// What the check has come to.
    notes: Vec<String>,
    is_over: bool,
}

impl SoFar {
    /// Keeps a step, and forgets some when there are too many.
    //= SPEC EXPLORER-21
    fn push(&mut self, step: Step, most: usize) {
        self.steps.push_back(step);
        if self.steps.len() <= most {
            return;
        }
        // A tenth at once, so that who looks on is not told with every step.
        let surplus = (most / 10).max(1);
        let last = self.steps.drain(..surplus).next_back();
        self.gone += surplus;
        if let (Some(head), Some(last)) = (&mut self.head, last) {
            head.first = last.after;
        }
    }

    fn notes(&self) -> Vec<String> {
        let gone = (self.gone > 0).then(|| {
            format!(
                "the first {} steps are not kept any more: the newest are shown, and all are checked",
                self.gone
            )
        });
        gone.into_iter().chain(self.notes.iter().cloned()).collect()
    }

    /// What somebody is told next who has been told so much; none if there is nothing new.
    fn next(&self, told: &mut ToldSoFar) -> Option<(&'static str, Value)> {
        let head = self.head.as_ref();
        let now = match told.reading {
            Some(reading) if reading == self.reading => head,
            // From the beginning, or from the beginning again.
            _ => {
                let head = head?;
                *told = ToldSoFar {
                    reading: Some(self.reading),
                    first: self.gone,
                    next: self.gone,
                    notes: None,
                    lanes: head.lanes.clone(),
                    has_ended: false,
                };
                return Some(("story", json!(head)));
            }
        };
        if let Some(head) = now {
            if told.first < self.gone {
                let count = self.gone - told.first;
                told.first = self.gone;
                // Whoever is so slow misses those that are gone by now.
                told.next = told.next.max(self.gone);
                return Some(("gone", json!({ "count": count, "first": head.first })));
            }
            let from = told.next - self.gone;
            if from < self.steps.len() {
                let to = self.steps.len().min(from + TOLD_MAX);
                told.next = self.gone + to;
                let steps: Vec<_> = self.steps.range(from..to).collect();
                return Some(("steps", json!(steps)));
            }
            if told.lanes != head.lanes {
                told.lanes.clone_from(&head.lanes);
                return Some(("lanes", json!(head.lanes)));
            }
        }
        let notes = self.notes();
        if told.notes.as_ref().unwrap_or(&Vec::new()) != &notes {
            told.notes = Some(notes.clone());
            return Some(("notes", json!(notes)));
        }
        None
    }
}

/// What somebody was told.
#[derive(Default)]
struct ToldSoFar {
    reading: Option<u64>,
    /// The first step that it still has, and the one that it is told next, of all there were.
    first: usize,
    next: usize,
    notes: Option<Vec<String>>,
    lanes: Vec<Lane>,
    /// That nothing more comes, unless another trace does.
    has_ended: bool,
}

impl Live {
    /// Follows these files, and every trace in these folders, on a thread of its own.
    pub fn follow(places: Vec<PathBuf>) -> Arc<Self> {
        Self::follow_newest(places, STEPS_MAX)
    }

    /// The same, and keeps so many steps at most.
    pub fn follow_newest(places: Vec<PathBuf>, most: usize) -> Arc<Self> {
        let live = Arc::new(Self {
            so_far: Mutex::default(),
            changed: watch::Sender::new(()),
            ended: Arc::new(AtomicBool::new(false)),
            most,
        });
        let follower = Arc::clone(&live);
        std::thread::spawn(move || follower.run(&places));
        live
    }

    /// Says that what is in the files is all that there will be: the run is judged as a whole.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// The story so far, from the first step on that is kept.
    pub fn story(&self) -> Option<Story> {
        let so_far = self.so_far();
        let head = so_far.head.clone()?;
        Some(Story { steps: so_far.steps.iter().cloned().collect(), notes: so_far.notes(), ..head })
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        self.so_far().is_over
    }

    fn so_far(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().expect("no thread panics with the lock")
    }

    fn update(&self, change: impl FnOnce(&mut SoFar)) {
        change(&mut self.so_far());
        self.changed.send_replace(());
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn run(&self, places: &[PathBuf]) {
        loop {
            let files = self.wait_for(places);
            let report = self.read(places, &files);
            // What was read until another trace came is no whole run.
            let is_whole = || traces(places) == files;
            if is_whole() {
                let is_over = self.so_far().head.is_some() || self.has_ended();
                self.update(|so_far| {
                    so_far.notes = verdict(&report);
                    so_far.is_over = is_over;
                });
                while !self.has_ended() && is_whole() {
                    std::thread::sleep(LOOK_EVERY);
                }
                if is_over && is_whole() {
                    return;
                }
            }
            // A node that is started later writes a trace of its own. Without it nothing can be told, or what others have
            // heard of that node was never sent; with it the run is read again from the beginning.
            self.update(|so_far| {
                *so_far = SoFar { reading: so_far.reading + 1, ..SoFar::default() };
            });
        }
    }

    /// Reads these files until they end, or until there is another one.
    fn read(&self, places: &[PathBuf], files: &[PathBuf]) -> Report {
        let heads: Vec<String> = files.iter().filter_map(|file| first_line(file)).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let mut nodes = Nodes::new(&heads, false);
        // Each try has an end of its own: a check that fails ends what it reads.
        let ended = Arc::new(AtomicBool::new(false));
        let growing = |path: &PathBuf| {
            Source::Growing(Growing { path: path.clone(), ended: Arc::clone(&ended) })
        };
        let sources: Vec<Source> = files.iter().map(growing).collect();
        let mut watch = |global: &Global<Member>, node: u16, _: u64, it: Shown<'_, Member>| {
            if let Some(step) = nodes.tell(global, node, &it) {
                self.tell(&nodes, step);
            }
        };
        let report = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Acquire) {
                    if self.has_ended() || traces(places) != files {
                        ended.store(true, Ordering::Release);
                    }
                    std::thread::sleep(LOOK_EVERY);
                }
            });
            check_and_watch::<Member>(&sources, Options::default(), Some(&mut watch))
        });
        nodes.measure(&report);
        self.update(|so_far| {
            if let Some(head) = &mut so_far.head {
                head.lanes = nodes.lanes().to_vec();
            }
        });
        report
    }

    fn tell(&self, nodes: &Nodes, step: Step) {
        self.update(|so_far| {
            if so_far.head.is_none() {
                so_far.head = nodes.head();
                so_far.notes.clear();
            }
            so_far.push(step, self.most);
        });
    }

    /// Waits until there is a trace of every node, or of all that seem to have one.
    fn wait_for(&self, places: &[PathBuf]) -> Vec<PathBuf> {
        let mut known = Vec::new();
        let mut since = Instant::now();
        loop {
            let files = traces(places);
            let named: BTreeSet<&Path> =
                places.iter().map(PathBuf::as_path).filter(|it| !it.is_dir()).collect();
            let is_there = |file: &PathBuf| first_line(file).is_some();
            let there = !files.is_empty() && files.iter().all(is_there);
            let heads = files.iter().filter_map(|file| first_line(file));
            let nodes = heads
                .filter_map(|head| serde_json::from_str::<Value>(&head).ok())
                .filter_map(|head| head["nodes"].as_u64())
                .max();
            let are_all = nodes.is_some_and(|nodes| files.len() as u64 >= nodes)
                || named.len() == files.len();
            if files != known {
                (known, since) = (files, Instant::now());
            }
            let is_settled = since.elapsed() >= SETTLED;
            if (there && (are_all || is_settled)) || self.has_ended() {
                return known;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Tells somebody all of it, and goes on as it grows.
    pub(super) async fn listen(&self, events: mpsc::Sender<Result<Event, Infallible>>) {
        let mut changed = self.changed.subscribe();
        let mut told = ToldSoFar::default();
        loop {
            changed.borrow_and_update();
            loop {
                let (next, is_over) = {
                    let so_far = self.so_far();
                    (so_far.next(&mut told), so_far.is_over)
                };
                let is_end =
                    next.is_none() && is_over && !std::mem::replace(&mut told.has_ended, true);
                let next = next.or_else(|| is_end.then_some(("end", Value::Null)));
                let Some((name, data)) = next else { break };
                if events.send(Ok(event(name, &data))).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = events.closed() => return,
            }
        }
    }
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// The first line of a file, when it has one.
fn first_line(file: &Path) -> Option<String> {
    let mut line = String::new();
    BufReader::new(std::fs::File::open(file).ok()?).read_line(&mut line).ok()?;
    line.ends_with('\n').then_some(line)
}

/// Whether this is the first line of a trace.
fn is_head(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|head| head.get("tenure_trace").is_some())
}

/// The files that are named, and the traces in the folders that are: each when its first line is written.
fn traces(places: &[PathBuf]) -> Vec<PathBuf> {
    let is_trace = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ending == "ndjson")
            && first_line(path).is_some_and(|line| is_head(&line))
    };
    let mut files = BTreeSet::new();
    for place in places {
        match std::fs::read_dir(place) {
            Err(_) => {
                files.insert(place.clone());
            }
            Ok(entries) => {
                let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
                files.extend(paths.filter(is_trace));
            }
        }
    }
    files.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::story::{Clock, FORMAT, Moment};
    use super::*;
    use crate::models::space::Told;

    fn moment(at: usize) -> Moment {
        Moment {
            at: at.to_string(),
            lanes: Vec::new(),
            properties: Vec::new(),
            tree: None,
            changes: Vec::new(),
            fingerprint: None,
        }
    }

    fn step(at: usize) -> Step {
        let told = Told {
            kind: "say".to_owned(),
            label: at.to_string(),
            actor: None,
            src: None,
            dst: None,
            msg: None,
            full: None,
        };
        super::super::import::plain_step(told, false, moment(at))
    }

    fn head() -> Story {
        Story {
            tenure_story: FORMAT,
            title: String::new(),
            source: "nodes".to_owned(),
            clock: Clock { unit: "ns".to_owned(), common: true, about: String::new() },
            lanes: Vec::new(),
            first: moment(0),
            steps: Vec::new(),
            back_to: None,
            notes: Vec::new(),
            around: None,
        }
    }

    /// What somebody has who is told this, as the page keeps it.
    #[derive(Default)]
    struct Page {
        told: ToldSoFar,
        first: String,
        steps: Vec<String>,
        notes: usize,
    }

    impl Page {
        fn hear(&mut self, so_far: &SoFar) -> bool {
            let Some((name, data)) = so_far.next(&mut self.told) else { return false };
            let labels = |data: &Value| -> Vec<String> {
                let steps = data.as_array().unwrap().iter();
                steps.map(|step| step["label"].as_str().unwrap().to_owned()).collect()
            };
            let first = |data: &Value| data["first"]["at"].as_str().unwrap().to_owned();
            match name {
                "story" => (self.first, self.steps) = (first(&data), Vec::new()),
                "gone" => {
                    let count = data["count"].as_u64().unwrap() as usize;
                    self.steps.drain(..count.min(self.steps.len()));
                    self.first = first(&data);
                }
                "steps" => self.steps.extend(labels(&data)),
                "notes" => self.notes += 1,
                other => panic!("{other}"),
            }
            true
        }
    }

    //= SPEC EXPLORER-21 test
    #[test]
    fn the_newest_steps_are_kept_and_told_in_their_order_however_slow_somebody_reads() {
        for pace in [1, 7, 40, 400] {
            let mut so_far = SoFar { head: Some(head()), ..SoFar::default() };
            let mut page = Page::default();
            for at in 1..=2_345 {
                so_far.push(step(at), 100);
                if at % pace == 0 {
                    page.hear(&so_far);
                }
            }
            while page.hear(&so_far) {}
            let kept: Vec<_> = so_far.steps.iter().map(|step| step.told.label.clone()).collect();
            assert!((90..=100).contains(&kept.len()) && kept.last().unwrap() == "2345");
            assert_eq!(so_far.gone + kept.len(), 2_345);
            assert_eq!(page.steps, kept, "read at {pace}");
            assert_eq!(page.first, so_far.gone.to_string(), "the state before the first of them");
            assert!(page.notes > 0 && so_far.notes()[0].contains(&so_far.gone.to_string()));
            // Read again from the beginning, with another trace.
            let again = SoFar { reading: 1, head: Some(head()), ..SoFar::default() };
            assert!(page.hear(&again) && page.steps.is_empty() && page.first == "0");
        }
    }
}
