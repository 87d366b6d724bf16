//! `tenure trace`: checks what nodes have recorded, and puts it into other forms.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::paint::Paint;
use super::{failure, print, usage_error};
use crate::irc::facts::OpId;
use crate::irc::{self, Party};
use crate::lease::Member;
use crate::models::replay::{Global, Replayed};
use crate::trace::Traced;
use crate::trace::check::{Options, Report, Shown, Source, Verdict, check, check_and_watch};
use crate::trace::format::Heard;
use crate::trace::itf::Export;
use crate::trace::read::protocol_of;

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
        TraceCommand::Check(args) if is_of_regions(&args.files) => run_check::<Party>(args),
        TraceCommand::Check(args) => run_check::<Member>(args),
        TraceCommand::Export(args) if is_of_regions(&args.files) => run_export::<Party>(args),
        TraceCommand::Export(args) => run_export::<Member>(args),
    }
}

/// Whether the first file that names a protocol names that of regions. What else is among the files is told by
/// whoever reads them.
//= SPEC TRACE-10
fn is_of_regions(files: &[PathBuf]) -> bool {
    let protocol =
        |file: &PathBuf| protocol_of(BufReader::new(File::open(file).ok()?)).ok().flatten();
    files.iter().find_map(protocol).is_some_and(|protocol| protocol == Party::PROTOCOL)
}

/// A protocol whose runs this command knows.
trait Told:
    Replayed<Msg: Send, Timer: Send, Random: Send, State: Send, Storage: Send> + Send + Sync + 'static
{
    /// What a node shows, for other viewers.
    fn shown(view: &Self::View) -> Value;
}

impl Told for Member {
    fn shown(view: &Self::View) -> Value {
        serde_json::to_value(view).unwrap_or_default()
    }
}

impl Told for Party {
    fn shown(view: &irc::View) -> Value {
        match view {
            irc::View::Control(view) => {
                let ledger = &view.ledger;
                let labels = ledger.peerings.keys().filter_map(|id| Some((id, ledger.label(id)?)));
                let labels: serde_json::Map<_, _> =
                    labels.map(|(id, label)| (numbers(id), json!(label.to_string()))).collect();
                json!({
                    "kind": "control-plane", "incarnation": ledger.head.incarnation.n,
                    "clock": ledger.head.clock, "open": ledger.is_open(),
                    "records": ledger.records.len(), "peerings": labels,
                })
            }
            irc::View::Server { working, done, drained, .. } => {
                json!({ "kind": "server", "working": working, "done": done, "drained": drained })
            }
            irc::View::Customer { waiting, .. } => {
                json!({ "kind": "customer", "waiting": waiting })
            }
        }
    }
}

/// An id by its numbers: a trace does not know the names of regions.
fn numbers(id: OpId) -> String {
    format!("{}-{}-{}", id.requester.0, id.n, id.seq)
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

fn run_check<A: Told>(args: &CheckArgs) -> ExitCode {
    let begun = Instant::now();
    let sources = sources(&args.files);
    let mut options = Options { repeats: !args.no_repeats, order: None };
    let mut report = check::<A>(&sources, options);
    for order in 0..args.orders {
        if report.verdict != Verdict::Accepted {
            break;
        }
        options.order = Some(u64::from(order) + 1);
        let again = check::<A>(&sources, options);
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

fn as_json(report: &Report, seconds: f64) -> Value {
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
        "stopped": report.stopped, "restored": report.restored, "stutters": report.stutters, "coverage": report.coverage,
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
    let restored = match report.restored {
        0 => String::new(),
        count => format!(", {count} restored"),
    };
    format!(
        "({}/{} steps, {} undone by crashes, {} cut off, {} without change, {} lives{restored}; {seconds:.1} s)",
        report.taken + report.undone,
        report.logged,
        report.undone,
        report.cut,
        report.stutters,
        report.lives,
    )
}

fn run_export<A: Told>(args: &ExportArgs) -> ExitCode {
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
    let mut watch = |global: &Global<A>, node: u16, line: u64, shown: Shown<'_, A>| {
        let Shown::Step(step) = shown else { return };
        let world = &global.world().actors;
        let nodes = global.state().nodes.iter().enumerate();
        let shown: Vec<_> = nodes
            .filter_map(|(node, it)| {
                let view = world[node].view(node.into(), it.state.as_ref()?);
                Some((node as u16, A::shown(&view)))
            })
            .collect();
        let action = match &step.input {
            Heard::Start { .. } => "start".to_owned(),
            Heard::Deliver { src, msg, .. } => format!("deliver {} from {src}", A::kind(msg)),
            Heard::Own { msg } => format!("own {}", A::kind(msg)),
            Heard::Told { msg } => format!("told {}", A::kind(msg)),
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
    let report = check_and_watch::<A>(&sources(&args.files), Options::default(), Some(&mut watch));
    if let Err(error) = written.and_then(|()| export.finish().map(|_| ())) {
        return failure(format!("cannot write {}: {error}", args.out.display()));
    }
    if let Some(problem) = &report.problem {
        let _ = failure(format!("{}:{}: {}", problem.file, problem.line, problem.what));
    }
    exit_code(report.verdict)
}
