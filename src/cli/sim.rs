//! `tenure sim`: simulates clusters from seeds, and checks what they did.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{failure, print, usage_error};
use crate::irc::Party;
use crate::lease::Member;
use crate::sim::Plan;
use crate::sim::irc::Regions;
use crate::sim::lease::Cluster;
use crate::trace::check::{Options, Report, Source, Verdict, check};

/// How often a smaller plan is tried.
const TRIES: u32 = 200;

/// The commands of `tenure sim`.
#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// Three hosts, a store, a client that writes and an operator. Their traces are checked as `tenure trace check` does.
    Lease(SimArgs),
    /// Three regions with a control plane, two IRC servers and a customer each. The invariants of the models are asked at
    /// each step; in the end both sides of every peering must agree. Their traces are checked as `tenure trace check` does.
    Irc(SimArgs),
}

/// Arguments of `tenure sim lease` and `tenure sim irc`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 every step was one of the model's and every property and bound held; 1 not, and the smallest
            plan of faults that shows it is written; 2 usage.")]
pub struct SimArgs {
    /// All randomness comes from it; drawn, if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// So many seeds, from that one on, on all cores.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How long, in hours of the simulated cluster.
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// What goes wrong: none, swarm (drawn from the seed), or a file with a plan.
    #[arg(long, default_value = "swarm", value_name = "none|swarm|FILE")]
    faults: String,
    /// Where the plan and the traces are kept; without it they are thrown away unless something failed.
    #[arg(long, value_name = "DIR")]
    trace_dir: Option<PathBuf>,
    /// Print one JSON object for each seed.
    #[arg(long)]
    json: bool,
}

/// Runs `tenure sim`.
pub fn run(command: &SimCommand) -> ExitCode {
    let (subject, args) = match command {
        SimCommand::Lease(args) => (Subject::Lease(Cluster::default()), args),
        SimCommand::Irc(args) => (Subject::Irc(Regions::default()), args),
    };
    if !(args.hours > 0.0 && args.hours <= 10_000.0) {
        return usage_error("--hours is more than 0 and at most 10000");
    }
    if args.seeds == 0 {
        return usage_error("--seeds is at least 1");
    }
    if args.seeds > 1 && args.trace_dir.is_some() {
        return usage_error(
            "--trace-dir is for one seed: repeat the one that you want with --seed",
        );
    }
    match simulate(&subject, args) {
        Ok(code) => code,
        Err(reason) => failure(reason),
    }
}

/// What is simulated.
enum Subject {
    Lease(Cluster),
    Irc(Regions),
}

/// What one seed has come to.
struct Ran {
    seed: u64,
    faults: usize,
    steps: u64,
    /// What must not be.
    problem: Option<String>,
    /// How long it took, and how much of that was simulation.
    took: Duration,
    ran: Duration,
    /// What is told of it, for people and for programs.
    summary: String,
    more: Map<String, Value>,
}

impl Subject {
    const fn name(&self) -> &'static str {
        match self {
            Self::Lease(_) => "lease",
            Self::Irc(_) => "irc",
        }
    }

    fn plan(&self, args: &SimArgs, seed: u64, length: Duration) -> Result<Plan, String> {
        match (args.faults.as_str(), self) {
            ("none", Self::Lease(cluster)) => Ok(Plan::none(cluster.nodes())),
            ("none", Self::Irc(regions)) => Ok(Plan::none(regions.nodes())),
            ("swarm", Self::Lease(cluster)) => Ok(cluster.swarm(seed, length)),
            ("swarm", Self::Irc(regions)) => Ok(regions.swarm(seed, length)),
            (file, _) => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    format!("cannot read {file} ({error}): name a plan of faults")
                })?;
                serde_json::from_str(&text)
                    .map_err(|error| format!("{file} is no plan of faults: {error}"))
            }
        }
    }

    /// Simulates one seed and judges what was done. A failed assertion of an actor is a problem like others.
    fn go(&self, seed: u64, plan: Plan, length: Duration, folder: &Path) -> Result<Ran, String> {
        let begun = Instant::now();
        let faults = plan.faults.len();
        let ran = AssertUnwindSafe(|| self.simulate(seed, plan, length, folder));
        catch_unwind(ran).unwrap_or_else(|_| {
            let problem = Some("an assertion of an actor fails, see above".to_owned());
            let (took, summary, more) = (begun.elapsed(), String::new(), Map::new());
            Ok(Ran { seed, faults, steps: 0, problem, took, ran: took, summary, more })
        })
    }

    fn simulate(
        &self,
        seed: u64,
        plan: Plan,
        length: Duration,
        folder: &Path,
    ) -> Result<Ran, String> {
        let begun = Instant::now();
        let faults = plan.faults.len();
        match self {
            Self::Lease(cluster) => {
                let ran = cluster.run(seed, plan, length, folder);
                let ran = ran.map_err(|error| format!("cannot write the traces: {error}"))?;
                let (steps, of_work, terms) = (ran.steps, ran.problem, ran.terms);
                let ran = begun.elapsed();
                let sources: Vec<_> =
                    cluster.traces(folder).into_iter().map(Source::File).collect();
                let report = check::<Member>(&sources, Options::default());
                let elected = report.coverage.get("deliver Written").is_some_and(|&n| n > 0);
                let problem = match report.verdict {
                    _ if of_work.is_some() => of_work,
                    Verdict::Accepted if !elected => Some("nobody was ever elected".to_owned()),
                    _ => refused(report.clone()),
                };
                let mut more = Map::new();
                more.insert("terms".to_owned(), terms.into());
                more.insert("undone".to_owned(), report.undone.into());
                more.insert("lives".to_owned(), report.lives.into());
                more.insert("coverage".to_owned(), json!(report.coverage));
                let Report { undone, lives, .. } = report;
                let summary = format!("{undone} undone by crashes, {lives} lives, {terms} terms");
                Ok(Ran { seed, faults, steps, problem, took: begun.elapsed(), ran, summary, more })
            }
            Self::Irc(regions) => {
                let outcome = regions.run_traced(seed, plan, length, folder);
                let outcome =
                    outcome.map_err(|error| format!("cannot write the traces: {error}"))?;
                let ran = begun.elapsed();
                let files =
                    regions.traces(folder).into_iter().map(Source::File).collect::<Vec<_>>();
                let report = check::<Party>(&files, Options::default());
                let mut more = Map::new();
                more.insert("seen".to_owned(), json!(outcome.seen));
                let told: Vec<_> =
                    outcome.seen.iter().map(|(what, count)| format!("{what} {count}")).collect();
                more.insert("undone".to_owned(), report.undone.into());
                more.insert("lives".to_owned(), report.lives.into());
                more.insert("restored".to_owned(), report.restored.into());
                more.insert("coverage".to_owned(), json!(report.coverage));
                let summary = told.join(", ");
                let steps = outcome.steps;
                let problem = outcome.problem.or_else(|| refused(report));
                Ok(Ran { seed, faults, steps, problem, took: begun.elapsed(), ran, summary, more })
            }
        }
    }
}

/// Why traces are not accepted.
fn refused(report: Report) -> Option<String> {
    if report.verdict == Verdict::Accepted {
        return None;
    }
    Some(report.problem.map_or_else(
        || "the traces cannot be judged".to_owned(),
        |it| format!("{}:{}: {}", it.file, it.line, it.what),
    ))
}

impl Ran {
    fn what(&self) -> &str {
        let fine = "every step was one of the model's, and every property held";
        self.problem.as_deref().unwrap_or(fine)
    }

    fn tell(&self, args: &SimArgs, again: &str, length: Duration) {
        let Self { seed, faults, steps, took, ran, summary, .. } = self;
        if args.json {
            let mut line = self.more.clone();
            let known = json!({
                "seed": seed, "ok": self.problem.is_none(), "what": self.what(), "steps": steps, "faults": faults,
                "simulated_s": length.as_secs_f64(), "ran_s": ran.as_secs_f64(), "seconds": took.as_secs_f64(),
                "again": again,
            });
            line.extend(known.as_object().cloned().unwrap_or_default());
            print(&format!("{}\n", Value::from(line)));
        } else {
            print(&format!(
                "seed {seed}: {}\n  {:.0} s with {faults} faults in {:.1} s, {:.1} s of that to check: {:.0} simulated \
                 seconds a second\n  {steps} steps, {summary}\n  again: {again}\n",
                self.what(),
                length.as_secs_f64(),
                took.as_secs_f64(),
                (*took - *ran).as_secs_f64(),
                length.as_secs_f64() / took.as_secs_f64(),
            ));
        }
    }
}

fn simulate(subject: &Subject, args: &SimArgs) -> Result<ExitCode, String> {
    let first = args.seed.unwrap_or_else(|| rand::random_range(0..1 << 32));
    let length = Duration::from_secs_f64(args.hours * 3600.0);
    let again = |seed: u64, faults: &str| {
        format!(
            "tenure sim {} --seed {seed} --hours {} --faults {faults}",
            subject.name(),
            args.hours
        )
    };
    let begun = Instant::now();
    let (mut seeds, mut steps, mut faults) = (0, 0, 0);
    let mut failed: Option<Ran> = None;
    for ran in all(subject, args, first, length) {
        let ran = ran?;
        seeds += 1;
        steps += ran.steps;
        faults += ran.faults;
        if args.json || args.seeds == 1 || ran.problem.is_some() {
            ran.tell(args, &again(ran.seed, &args.faults), length);
        }
        if ran.problem.is_some() && failed.as_ref().is_none_or(|known| ran.seed < known.seed) {
            failed = Some(ran);
        }
    }
    let took = begun.elapsed().as_secs_f64();
    if args.seeds > 1 && !args.json {
        let what = if failed.is_none() { "all clean" } else { "not clean" };
        print(&format!(
            "{seeds} seeds from {first} on, {} h each: {what}\n  {faults} faults, {steps} steps in {took:.1} s: {:.0} \
             simulated seconds a second\n",
            args.hours,
            length.as_secs_f64() * seeds as f64 / took,
        ));
    }
    let Some(failed) = failed else { return Ok(ExitCode::SUCCESS) };
    shrink(subject, args, failed.seed, length, &again)
}

/// Simulates every seed on all cores; what each has come to, in the order in which they end.
fn all(
    subject: &Subject,
    args: &SimArgs,
    first: u64,
    length: Duration,
) -> Vec<Result<Ran, String>> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (out, results) = channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(usize::try_from(args.seeds).unwrap_or(usize::MAX)) {
            let (out, next) = (out.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= args.seeds {
                        return;
                    }
                    let seed = first.wrapping_add(index);
                    if out.send(one(subject, args, seed, length)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(out);
        results.into_iter().collect()
    })
}

fn one(subject: &Subject, args: &SimArgs, seed: u64, length: Duration) -> Result<Ran, String> {
    let plan = subject.plan(args, seed, length)?;
    let temporary = tempfile::Builder::new().prefix("tenure-sim-").tempdir();
    let temporary = temporary.map_err(|error| format!("cannot write the traces: {error}"))?;
    let folder = args.trace_dir.as_deref().unwrap_or_else(|| temporary.path());
    subject.go(seed, plan, length, folder)
}

/// Writes the smallest plan with which the seed still fails.
fn shrink(
    subject: &Subject,
    args: &SimArgs,
    seed: u64,
    length: Duration,
    again: &dyn Fn(u64, &str) -> String,
) -> Result<ExitCode, String> {
    let kept = args.trace_dir.clone().unwrap_or_else(|| PathBuf::from(format!("sim-{seed}")));
    let system = |error: std::io::Error| format!("cannot write the plan: {error}");
    std::fs::create_dir_all(&kept).map_err(system)?;
    let plan = subject.plan(args, seed, length)?;
    let mut tries = 0;
    let small = plan.shrink(|plan| {
        tries += 1;
        let fails = |ran: Result<Ran, String>| ran.is_ok_and(|ran| ran.problem.is_some());
        tries <= TRIES && fails(subject.go(seed, plan.clone(), length, &kept))
    });
    // The traces that stay are those of the smallest plan.
    subject.go(seed, small.clone(), length, &kept)?;
    let file = kept.join("plan.json");
    let text = serde_json::to_string_pretty(&small).expect("a plan is plain data");
    std::fs::write(&file, text + "\n").map_err(system)?;
    print(&format!(
        "  with {} faults it fails still: {}\n  again: {}\n",
        small.faults.len(),
        kept.display(),
        again(seed, &file.display().to_string())
    ));
    Ok(ExitCode::FAILURE)
}
