//! Follows a run: traces that nodes are still writing, checked and told as they grow.

use std::collections::BTreeSet;
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
use crate::trace::check::{Growing, Options, Shown, Source, check_and_watch};

/// How many steps are kept to be shown. The check goes on behind them.
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
}

#[derive(Default)]
struct SoFar {
    /// The story without its steps.
    head: Option<Story>,
    steps: Vec<Step>,
    /// What there is to say besides.
    notes: Vec<String>,
    is_over: bool,
}

impl Live {
    /// Follows these files, and every trace in these folders, on a thread of its own.
    pub fn follow(places: Vec<PathBuf>) -> Arc<Self> {
        let live = Arc::new(Self {
            so_far: Mutex::default(),
            changed: watch::Sender::new(()),
            ended: Arc::new(AtomicBool::new(false)),
        });
        let follower = Arc::clone(&live);
        std::thread::spawn(move || follower.run(&places));
        live
    }

    /// Says that what is in the files is all that there will be: the run is judged as a whole.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// The story so far.
    pub fn story(&self) -> Option<Story> {
        let so_far = self.so_far();
        let head = so_far.head.clone()?;
        Some(Story { steps: so_far.steps.clone(), notes: so_far.notes.clone(), ..head })
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

    fn run(&self, places: &[PathBuf]) {
        loop {
            let files = self.wait_for(places);
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
                        if self.ended.load(Ordering::Acquire) {
                            ended.store(true, Ordering::Release);
                        }
                        std::thread::sleep(LOOK_EVERY);
                    }
                });
                check_and_watch::<Member>(&sources, Options::default(), Some(&mut watch))
            });
            let is_over = self.so_far().head.is_some() || self.ended.load(Ordering::Acquire);
            self.update(|so_far| {
                so_far.notes = verdict(&report);
                so_far.is_over = is_over;
            });
            if is_over {
                return;
            }
            // Nothing could be told: perhaps a trace was missing. Another may come.
            while !self.ended.load(Ordering::Acquire) && traces(places) == files {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    fn tell(&self, nodes: &Nodes, step: Step) {
        self.update(|so_far| {
            if so_far.head.is_none() {
                so_far.head = nodes.head();
                so_far.notes.clear();
            }
            if so_far.steps.len() < STEPS_MAX {
                so_far.steps.push(step);
            } else if so_far.notes.is_empty() {
                so_far.notes.push(format!(
                    "only the first {STEPS_MAX} steps are shown; all of them are checked. Start again to see \
                     others"
                ));
            }
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
            if (there && (are_all || is_settled)) || self.ended.load(Ordering::Acquire) {
                return known;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Tells somebody all of it, and goes on as it grows.
    pub(super) async fn listen(&self, events: mpsc::Sender<Result<Event, Infallible>>) {
        let mut changed = self.changed.subscribe();
        let mut told: Option<usize> = None;
        let mut notes = Vec::new();
        loop {
            changed.borrow_and_update();
            loop {
                let (event, more) = {
                    let so_far = self.so_far();
                    match (&so_far.head, told) {
                        (Some(head), None) => {
                            told = Some(0);
                            (Some(event("story", &json!(head))), true)
                        }
                        (Some(_), Some(from)) if from < so_far.steps.len() => {
                            let to = so_far.steps.len().min(from + TOLD_MAX);
                            told = Some(to);
                            (Some(event("steps", &json!(so_far.steps[from..to]))), true)
                        }
                        _ if notes != so_far.notes => {
                            notes.clone_from(&so_far.notes);
                            (Some(event("notes", &json!(notes))), true)
                        }
                        _ if so_far.is_over => (Some(event("end", &Value::Null)), false),
                        _ => (None, false),
                    }
                };
                let is_end = event.is_some() && !more;
                if let Some(event) = event
                    && events.send(Ok(event)).await.is_err()
                {
                    return;
                }
                if is_end {
                    return;
                }
                if !more {
                    break;
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

/// The files that are named, and the traces in the folders that are.
fn traces(places: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = BTreeSet::new();
    for place in places {
        match std::fs::read_dir(place) {
            Err(_) => {
                files.insert(place.clone());
            }
            Ok(entries) => files.extend(
                entries
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .filter(|path| path.extension().is_some_and(|ending| ending == "ndjson")),
            ),
        }
    }
    files.into_iter().collect()
}
