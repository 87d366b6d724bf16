//! `tenure sim`: simulates a cluster from a seed, and checks what it did.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{failure, print, usage_error};
use crate::lease::Member;
use crate::sim::Plan;
use crate::sim::lease::Cluster;
use crate::trace::check::{Options, Report, Source, Verdict, check};

/// How often a smaller plan is tried.
const TRIES: u32 = 200;

/// The commands of `tenure sim`.
#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// Three hosts, a store, a client that writes and an operator.
    Lease(LeaseArgs),
}

/// Arguments of `tenure sim lease`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 every step was one of the model's and every property and bound held; 1 not, and the smallest
            plan of faults that shows it is written; 2 usage.")]
pub struct LeaseArgs {
    /// All randomness comes from it; drawn, if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How long, in hours of the simulated cluster.
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// What goes wrong: none, swarm (drawn from the seed), or a file with a plan.
    #[arg(long, default_value = "swarm", value_name = "none|swarm|FILE")]
    faults: String,
    /// Where the traces and the plan are kept; without it they are thrown away unless something failed.
    #[arg(long, value_name = "DIR")]
    trace_dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs `tenure sim`.
pub fn run(command: &SimCommand) -> ExitCode {
    let SimCommand::Lease(args) = command;
    if !(args.hours > 0.0 && args.hours <= 10_000.0) {
        return usage_error("--hours is more than 0 and at most 10000");
    }
    match simulate(args) {
        Ok(code) => code,
        Err(reason) => failure(reason),
    }
}

fn judge(cluster: &Cluster, folder: &Path) -> Report {
    let sources: Vec<_> = cluster.traces(folder).into_iter().map(Source::File).collect();
    check::<Member>(&sources, Options::default())
}

fn simulate(args: &LeaseArgs) -> Result<ExitCode, String> {
    let cluster = Cluster::default();
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..1 << 32));
    let length = Duration::from_secs_f64(args.hours * 3600.0);
    let plan = match args.faults.as_str() {
        "none" => Plan::none(cluster.nodes()),
        "swarm" => cluster.swarm(seed, length),
        file => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read {file} ({error}): name a plan of faults"))?;
            serde_json::from_str(&text)
                .map_err(|error| format!("{file} is no plan of faults: {error}"))?
        }
    };
    let system = |error: std::io::Error| format!("cannot write the traces: {error}");
    let temporary = tempfile::Builder::new().prefix("tenure-sim-").tempdir().map_err(system)?;
    let folder = args.trace_dir.as_deref().unwrap_or_else(|| temporary.path());
    let begun = Instant::now();
    let steps = cluster.run(seed, plan.clone(), length, folder).map_err(system)?;
    let ran = begun.elapsed();
    let report = judge(&cluster, folder);
    let took = begun.elapsed();
    let elected = report.coverage.get("deliver Written").is_some_and(|&count| count > 0);
    let is_good = report.verdict == Verdict::Accepted && elected;
    let again =
        format!("tenure sim lease --seed {seed} --hours {} --faults {}", args.hours, args.faults);
    let speed = length.as_secs_f64() / took.as_secs_f64();
    let what = match (&report.problem, elected) {
        (Some(problem), _) => format!("{}:{}: {}", problem.file, problem.line, problem.what),
        (None, false) => "nobody was ever elected".to_owned(),
        (None, true) => "every step was one of the model's, and every property held".to_owned(),
    };
    if args.json {
        let line = json!({
            "seed": seed, "ok": is_good, "what": what, "steps": steps, "faults": plan.faults.len(),
            "undone": report.undone, "lives": report.lives, "coverage": report.coverage,
            "simulated_s": length.as_secs_f64(), "ran_s": ran.as_secs_f64(), "seconds": took.as_secs_f64(),
            "again": again,
        });
        print(&format!("{line}\n"));
    } else {
        print(&format!(
            "seed {seed}: {what}\n  {:.0} s with {} faults in {:.1} s, {:.1} s of that to check: {speed:.0} \
             simulated seconds a second\n  {steps} steps, {} undone by crashes, {} lives\n  again: {again}\n",
            length.as_secs_f64(),
            plan.faults.len(),
            took.as_secs_f64(),
            (took - ran).as_secs_f64(),
            report.undone,
            report.lives,
        ));
    }
    if is_good {
        return Ok(ExitCode::SUCCESS);
    }
    let kept = args.trace_dir.clone().unwrap_or_else(|| PathBuf::from(format!("sim-{seed}")));
    let mut tries = 0;
    let small = plan.shrink(|plan| {
        tries += 1;
        tries <= TRIES
            && cluster.run(seed, plan.clone(), length, &kept).is_ok()
            && judge(&cluster, &kept).verdict == report.verdict
    });
    cluster.run(seed, small.clone(), length, &kept).map_err(system)?;
    let file = kept.join("plan.json");
    let text = serde_json::to_string_pretty(&small).expect("a plan is plain data");
    std::fs::write(&file, text + "\n").map_err(system)?;
    print(&format!(
        "  with {} faults it fails still: {}\n  again: tenure sim lease --seed {seed} --hours {} --faults {}\n",
        small.faults.len(),
        kept.display(),
        args.hours,
        file.display()
    ));
    Ok(ExitCode::FAILURE)
}
