//! `tenure check`: explores the registered models and compares with what is registered.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use super::paint::Paint;
use super::{failure, print, usage_error};
use crate::config::Config;
use crate::models::check::{Outcome, Verdict};
use crate::models::deployment;
use crate::models::engine::{Limits, Progress};
use crate::models::registry::{Entry, Expected, all_mutants, all_safe};

/// Arguments of `tenure check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 every verdict, and every count of a complete exploration, is as registered;
            1 one is not, or an exploration was stopped before its end; 2 usage.")]
pub struct CheckArgs {
    /// The models to check; all of them if none is named.
    names: Vec<String>,
    /// List the models instead of checking them.
    #[arg(long)]
    list: bool,
    /// Check the models that leave out one rule each: every one must fail as registered.
    #[arg(long)]
    mutants: bool,
    /// Check the timing of each lease of this cluster file instead: its own L, G, S and clock error, with
    /// renewals, retries and polls at any time.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["names", "mutants"])]
    config: Option<PathBuf>,
    /// How many models are explored at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Stop each exploration after this many seconds. What was stopped is incomplete, and fails.
    #[arg(long, value_name = "SECONDS")]
    time_max: Option<u64>,
    /// Stop each exploration after this many states. What was stopped is incomplete, and fails.
    #[arg(long, value_name = "STATES")]
    states_max: Option<u64>,
    /// Where counterexamples are written, a file each.
    #[arg(long, value_name = "DIR", default_value = "traces")]
    trace_dir: PathBuf,
    /// Print one JSON object per model instead of a table.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the table as Markdown, as the README has it.
    #[arg(long)]
    markdown: bool,
}

/// What came of one row, and where its counterexample lies.
struct Result {
    row: Arc<Entry>,
    outcome: Outcome,
    trace: Option<PathBuf>,
}

/// Runs `tenure check`.
pub fn run_check(args: &CheckArgs) -> ExitCode {
    let rows = match select(args) {
        Ok(rows) => rows,
        Err(message) => return usage_error(message),
    };
    if args.list {
        for row in &rows {
            print(&format!("{:<24} {}\n", row.name, row.about));
        }
        return ExitCode::SUCCESS;
    }
    let results = match explore(args, rows) {
        Ok(results) => results,
        Err(message) => return failure(message),
    };
    if args.markdown {
        print(&markdown(&results));
    } else if !args.json {
        print(&table(&results, Paint::stdout()));
    }
    if results.iter().all(|result| result.outcome.as_registered) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn select(args: &CheckArgs) -> std::result::Result<Vec<Entry>, String> {
    if let Some(file) = &args.config {
        let config = Config::load(file).map_err(|errors| errors.to_string())?;
        let entries = config.leases.iter().map(|lease| {
            deployment::entry(&lease.name, &lease.timing)
                .map_err(|error| format!("lease {:?}: {error}", lease.name))
        });
        return entries.collect();
    }
    let all = if args.mutants { all_mutants() } else { all_safe() };
    if args.names.is_empty() {
        return Ok(all);
    }
    let everything = || all_safe().into_iter().chain(all_mutants());
    args.names
        .iter()
        .map(|name| {
            everything().find(|row| row.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
                format!(
                    "there is no model {name:?}; `tenure check --list` names the models, and \
                         `tenure check --list --mutants` those that must fail"
                )
            })
        })
        .collect()
}

/// Explores the rows, several at a time, and keeps their order.
fn explore(args: &CheckArgs, rows: Vec<Entry>) -> std::result::Result<Vec<Result>, String> {
    let rows: Vec<Arc<Entry>> = rows.into_iter().map(Arc::new).collect();
    let limits = Limits {
        time: args.time_max.map(Duration::from_secs),
        states: args.states_max,
        ..Limits::default()
    };
    let shows_bars = std::io::stderr().is_terminal() && !args.json;
    let bars = MultiProgress::new();
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<std::result::Result<Result, String>>>> =
        Mutex::new(rows.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..usize::from(args.threads).min(rows.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = rows.get(index) else { return };
                    let bar = shows_bars.then(|| bars.add(bar(row)));
                    let outcome = (row.explore)(limits, &mut |progress| {
                        if let Some(bar) = &bar {
                            show(bar, progress);
                        }
                    });
                    if let Some(bar) = bar {
                        bar.finish_and_clear();
                        bars.remove(&bar);
                    }
                    let trace = match &outcome.trace {
                        Some(trace) => trace.write_into(&args.trace_dir).map(Some).map_err(|error| {
                            format!(
                                "cannot write a counterexample into {}: {error}; name another folder \
                                 with --trace-dir",
                                args.trace_dir.display()
                            )
                        }),
                        None => Ok(None),
                    };
                    let result = trace.map(|trace| Result { row: Arc::clone(row), outcome, trace });
                    if let (true, Ok(result)) = (args.json, &result) {
                        print(&format!("{}\n", as_json(result)));
                    }
                    results.lock().expect("no thread panics with the lock")[index] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().expect("no thread panics with the lock");
    results.into_iter().map(|result| result.expect("every row was run")).collect()
}

fn bar(row: &Entry) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {prefix:<24} {elapsed:>5} {msg}");
    let bar = ProgressBar::new_spinner().with_style(style.expect("the template is well-formed"));
    bar.set_prefix(row.name.clone());
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    let seconds = bar.elapsed().as_secs_f64().max(0.001);
    bar.set_message(format!(
        "{:>11} states  {:>9.0} states/s  depth {:>3}  {:>9} waiting",
        grouped(progress.unique),
        progress.unique as f64 / seconds,
        progress.depth,
        grouped(progress.frontier),
    ));
    bar.tick();
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::Violated => "violated",
        Verdict::Incomplete => "incomplete",
    }
}

fn expected(row: &Entry) -> serde_json::Value {
    match row.expected {
        Expected::Safe(counts) => json!({
            "verdict": "holds",
            "unique_states": counts.unique,
            "generated_states": counts.generated,
            "depth": counts.depth,
        }),
        Expected::Holds => json!({ "verdict": "holds" }),
        Expected::Never { property } => json!({ "verdict": "violated", "never": property }),
        Expected::Violated { property, steps } => {
            json!({ "verdict": "violated", "property": property, "steps": steps })
        }
    }
}

fn as_json(Result { row, outcome, trace }: &Result) -> serde_json::Value {
    json!({
        "name": row.name,
        "kind": if row.is_mutant() { "mutant" } else { "safe" },
        "expected": expected(row),
        "as_registered": outcome.as_registered,
        "verdict": verdict(outcome.verdict),
        "property": outcome.property,
        "steps": outcome.steps,
        "exhaustive": outcome.exhaustive,
        "unique_states": outcome.counts.unique,
        "generated_states": outcome.counts.generated,
        "depth": outcome.counts.depth,
        "seconds": (outcome.elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
        "trace": trace.as_deref().map(Path::display).map(|path| path.to_string()),
    })
}

fn found(outcome: &Outcome) -> String {
    match (outcome.verdict, outcome.property, outcome.steps) {
        (Verdict::Violated, Some(property), Some(steps)) => {
            format!("violates {property} in {steps} steps")
        }
        // A `sometimes` that never comes true has no shortest path.
        (Verdict::Violated, Some(property), None) => format!("{property} never happens"),
        (verdict_, ..) => verdict(verdict_).to_owned(),
    }
}

fn table(results: &[Result], paint: Paint) -> String {
    let mut text = format!(
        "{:<24} {:>12} {:>13} {:>6} {:>8}  result\n",
        "model", "states", "generated", "depth", "seconds"
    );
    for Result { row, outcome, trace } in results {
        let found = found(outcome);
        let found = if outcome.as_registered {
            paint.good(found)
        } else {
            paint.bad(format!("{found}, registered was {}", expected(row)))
        };
        text += &format!(
            "{:<24} {:>12} {:>13} {:>6} {:>8.1}  {found}\n",
            row.name,
            grouped(outcome.counts.unique),
            grouped(outcome.counts.generated),
            outcome.counts.depth,
            outcome.elapsed.as_secs_f64(),
        );
        if let (false, Some(trace)) = (outcome.as_registered, trace) {
            text += &format!("{:<24} counterexample: {}\n", "", trace.display());
        }
    }
    let right = results.iter().filter(|result| result.outcome.as_registered).count();
    let states: u64 = results.iter().map(|result| result.outcome.counts.unique).sum();
    text += &format!("\n{right} of {} as registered, {} states\n", results.len(), grouped(states));
    text
}

fn markdown(results: &[Result]) -> String {
    let mut text =
        "| model | what | states | transitions | depth | result |\n|---|---|--:|--:|--:|---|\n"
            .to_owned();
    for Result { row, outcome, .. } in results {
        text += &format!(
            "| `{}` | {} | {} | {} | {} | {} |\n",
            row.name,
            row.about,
            grouped(outcome.counts.unique),
            grouped(outcome.counts.generated - 1),
            outcome.counts.depth,
            found(outcome)
        );
    }
    text
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
