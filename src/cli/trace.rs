//! `tenure trace`: checks what nodes have recorded, and puts it into other forms.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Subcommand};
use serde_json::json;

use super::paint::Paint;
use super::{failure, print, usage_error};
use crate::lease::Member;
use crate::step::Machine as _;
use crate::trace::Traced as _;
use crate::trace::check::{Options, Report, Shown, Source, Verdict, check, check_and_watch};
use crate::trace::format::Heard;
use crate::trace::itf::Export;

/// The commands of `tenure trace`.
#[derive(Debug, Subcommand)]
pub enum TraceCommand {
    /// Check that recorded runs are behaviours of the model.
    Check(CheckArgs),
    /// Write a recorded run in another form.
    Export(ExportArgs),
}

/// Arguments of `tenure trace check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 accepted; 1 rejected: the run cannot have been, or a property did not hold;
            2 inconclusive, or usage: a trace is missing, damaged or of another release.")]
pub struct CheckArgs {
    /// The traces of one run: one file for each node.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The network is known not to deliver a datagram twice; the models let it.
    #[arg(long)]
    no_repeats: bool,
    /// Check so many further orders of the steps that do not depend on each other, drawn at random.
    #[arg(long, value_name = "K", default_value_t = 0)]
    orders: u16,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Arguments of `tenure trace export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 written; 1 the run is rejected or the file cannot be written; 2 inconclusive, or usage.")]
pub struct ExportArgs {
    /// The traces of one run: one file for each node.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// In the Informal Trace Format (Apalache ADR-015), the only form so far.
    #[arg(long, required = true)]
    itf: bool,
    /// Where to; a name that ends in .itf.json is customary.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

/// Runs `tenure trace`.
pub fn run(command: &TraceCommand) -> ExitCode {
    match command {
        TraceCommand::Check(args) => run_check(args),
        TraceCommand::Export(args) => run_export(args),
    }
}

fn sources(files: &[PathBuf]) -> Vec<Source> {
    files.iter().cloned().map(Source::File).collect()
}

/// The exit code of a verdict.
//= SPEC TRACE-7
pub fn exit_code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Accepted => ExitCode::SUCCESS,
        Verdict::Rejected => ExitCode::FAILURE,
        Verdict::Inconclusive => ExitCode::from(2),
    }
}

fn run_check(args: &CheckArgs) -> ExitCode {
    let begun = Instant::now();
    let sources = sources(&args.files);
    let mut options = Options { repeats: !args.no_repeats, order: None };
    let mut report = check::<Member>(&sources, options);
    for order in 0..args.orders {
        if report.verdict != Verdict::Accepted {
            break;
        }
        options.order = Some(u64::from(order) + 1);
        let again = check::<Member>(&sources, options);
        if again.verdict != Verdict::Accepted {
            report = again;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    print(&if args.json {
        format!("{}\n", as_json(&report, seconds))
    } else {
        as_text(&report, seconds, Paint::stdout())
    });
    exit_code(report.verdict)
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accepted => "accepted",
        Verdict::Rejected => "rejected",
        Verdict::Inconclusive => "inconclusive",
    }
}

fn as_json(report: &Report, seconds: f64) -> serde_json::Value {
    let measured: serde_json::Map<_, _> = report
        .measured
        .iter()
        .map(|(name, nanos)| (name.replace(' ', "_") + "_ns", json!(nanos)))
        .collect();
    let rates = report.rates.iter().map(|rate| {
        json!({ "of": rate.of, "against": rate.against, "low_ppm": rate.low_ppm, "high_ppm": rate.high_ppm })
    });
    let problem = report
        .problem
        .as_ref()
        .map(|problem| json!({ "file": problem.file, "line": problem.line, "what": problem.what }));
    json!({
        "verdict": word(report.verdict), "problem": problem, "logged": report.logged,
        "taken": report.taken, "undone": report.undone, "cut": report.cut, "lives": report.lives,
        "stopped": report.stopped, "stutters": report.stutters, "coverage": report.coverage,
        "measured": measured, "rates": rates.collect::<Vec<_>>(), "seconds": seconds,
    })
}

/// A report for a reader.
pub fn as_text(report: &Report, seconds: f64, paint: Paint) -> String {
    let mut text = String::new();
    for (kind, count) in &report.coverage {
        let _ = writeln!(text, "  {kind:<24} {count:>9}");
    }
    for (name, nanos) in &report.measured {
        let _ = writeln!(text, "  {name}: {:.3} ms", *nanos as f64 / 1e6);
    }
    for rate in &report.rates {
        let _ = writeln!(
            text,
            "  clock of node {} against that of node {}: {:+.0} to {:+.0} ppm",
            rate.against, rate.of, rate.low_ppm, rate.high_ppm
        );
    }
    let verdict = word(report.verdict);
    let verdict = match report.verdict {
        Verdict::Accepted => paint.good(verdict),
        _ => paint.bad(verdict),
    };
    let _ = writeln!(text, "{verdict} {}", summary(report, seconds));
    if let Some(problem) = &report.problem {
        let _ = writeln!(text, "  {}:{}: {}", problem.file, problem.line, problem.what);
    }
    text
}

/// The numbers of a report in one line.
pub fn summary(report: &Report, seconds: f64) -> String {
    format!(
        "({}/{} steps, {} undone by crashes, {} cut off, {} without change, {} lives; {seconds:.1} s)",
        report.taken + report.undone,
        report.logged,
        report.undone,
        report.cut,
        report.stutters,
        report.lives,
    )
}

fn run_export(args: &ExportArgs) -> ExitCode {
    let file = match File::create(&args.out) {
        Ok(file) => file,
        Err(error) => {
            let out = args.out.display();
            return usage_error(format!("cannot write {out} ({error}): name another file"));
        }
    };
    let mut export = match Export::new(BufWriter::new(file), "a run of tenure") {
        Ok(export) => export,
        Err(error) => return failure(error),
    };
    let mut written = Ok(());
    let mut watch = |global: &crate::models::replay::Global<Member>,
                     node: u16,
                     line: u64,
                     shown: Shown<'_, Member>| {
        let Shown::Step(step) = shown else { return };
        let world = &global.world().actors;
        let nodes = global.state().nodes.iter().enumerate();
        let shown: Vec<_> = nodes
            .filter_map(|(node, it)| {
                let view = world[node].view(node.into(), it.state.as_ref()?);
                Some((node as u16, view))
            })
            .collect();
        let action = match &step.input {
            Heard::Start { .. } => "start".to_owned(),
            Heard::Deliver { src, msg, .. } => format!("deliver {} from {src}", Member::kind(msg)),
            Heard::Own { msg } => format!("own {}", Member::kind(msg)),
            Heard::Told { msg } => format!("told {}", Member::kind(msg)),
            Heard::Fire { timer, .. } => format!("fire {timer:?}"),
            Heard::Choose { .. } => "choose".to_owned(),
        };
        let meta = json!({
            "action": action, "node": node.to_string(), "lease": step.lease.to_string(),
            "line": line.to_string(), "at_ns": step.at.to_string(),
        });
        if written.is_ok() {
            written = export.state(&shown, meta);
        }
    };
    let report =
        check_and_watch::<Member>(&sources(&args.files), Options::default(), Some(&mut watch));
    if let Err(error) = written.and_then(|()| export.finish().map(|_| ())) {
        return failure(format!("cannot write {}: {error}", args.out.display()));
    }
    if let Some(problem) = &report.problem {
        let _ = failure(format!("{}:{}: {}", problem.file, problem.line, problem.what));
    }
    exit_code(report.verdict)
}
