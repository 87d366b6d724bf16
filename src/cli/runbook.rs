//! `tenure region`, `restore`, `backup` and `dlq`: what an operator does with a region.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::paint::Paint;
use super::region::{RegionArgs, Target, word};
use crate::node::restore::{self, Contents};

const CODES: &str = "With --dry-run it says what would change, and changes nothing.\n\n\
    Exit codes: 0 done, and durable; 1 refused, and the message says why; 2 usage; 3 the control plane \
    does not answer: try again.";

/// The subcommands of `tenure region`.
#[derive(Debug, Subcommand)]
pub enum RegionCommand {
    /// Show a region: its life, its peerings by state, and how it stands to each other region.
    #[command(after_help = "Exit codes: 0 told; 2 usage; 3 the control plane does not answer.")]
    Status(RegionArgs),
    /// Take no calls of customers that change anything. What is under way goes on.
    #[command(after_help = CODES)]
    Drain(CommandArgs),
    /// Take calls again.
    #[command(after_help = CODES)]
    Undrain(CommandArgs),
    /// Begin a new life, as after a restore, and stay frozen towards each peer until `thaw`.
    #[command(after_help = CODES)]
    Freeze(CommandArgs),
    /// Let a freeze end that `freeze` began: towards each peer when it has said what it knows.
    #[command(
        after_help = "Refused if the region is not frozen, and if it is frozen because it was restored or \
        has found out that it went back in time: such a freeze ends by itself, and only when the peer has \
        answered.\n\n\
        With --dry-run it says what would change, and changes nothing.\n\n\
        Exit codes: 0 done, and durable; 1 refused, and the message says why; 2 usage; 3 the control plane \
        does not answer: try again."
    )]
    Thaw(CommandArgs),
    /// Declare another region gone for good: fence it, and end every peering with it here.
    #[command(after_help = CODES)]
    Dispose(PeerArgs),
    /// Let a region come back that was declared gone. It comes as a new life.
    #[command(after_help = CODES)]
    Readmit(PeerArgs),
}

/// A region, and whether only to look.
#[derive(Debug, Args)]
pub struct CommandArgs {
    #[command(flatten)]
    region: RegionArgs,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A region and another one.
#[derive(Debug, Args)]
pub struct PeerArgs {
    #[command(flatten)]
    command: CommandArgs,
    /// The other region.
    #[arg(long, value_name = "REGION")]
    peer: String,
}

/// Runs a subcommand; its exit code is in its help.
pub fn run_region(command: &RegionCommand) -> ExitCode {
    let done = match command {
        RegionCommand::Status(args) => args.target().map(|target| {
            let answer = target.ask(&json!({ "op": "status" }));
            target.tell(&answer, status)
        }),
        RegionCommand::Drain(args) => operate(args, json!({ "op": "drain" })),
        RegionCommand::Undrain(args) => operate(args, json!({ "op": "undrain" })),
        RegionCommand::Freeze(args) => operate(args, json!({ "op": "freeze" })),
        RegionCommand::Thaw(args) => operate(args, json!({ "op": "thaw" })),
        RegionCommand::Dispose(args) => {
            operate(&args.command, json!({ "op": "dispose", "peer": args.peer }))
        }
        RegionCommand::Readmit(args) => {
            operate(&args.command, json!({ "op": "readmit", "peer": args.peer }))
        }
    };
    done.unwrap_or_else(|code| code)
}

fn operate(args: &CommandArgs, mut question: Value) -> Result<ExitCode, ExitCode> {
    let target = args.region.target()?;
    question["dry_run"] = args.dry_run.into();
    let answer = target.ask(&question);
    Ok(target.tell(&answer, changes))
}

fn status(answer: &Value) -> String {
    let paint = Paint::stdout();
    let mut text = format!(
        "{}  life {}  clock {} ticks  {} halves on{}{}\n",
        paint.strong(word(&answer["region"])),
        answer["incarnation"],
        answer["clock_ticks"],
        answer["halves_on"],
        if answer["drained"] == true { "  DRAINED" } else { "" },
        if answer["held"] == true { "  FROZEN until `region thaw`" } else { "" }
    );
    for (state, count) in answer["peerings"].as_object().into_iter().flatten() {
        text += &format!("  {count:>6}  {state}\n");
    }
    text + &peers(answer)
}

fn peers(answer: &Value) -> String {
    let paint = Paint::stdout();
    let mut text = String::new();
    for peer in answer["peers"].as_array().into_iter().flatten() {
        let mut remarks = Vec::new();
        if peer["answers"] == false {
            remarks.push("does not answer".to_owned());
        }
        if peer["disposed"] == true {
            remarks.push("disposed".to_owned());
        }
        if peer["parked"] != 0 {
            remarks.push(format!("{} records set aside", peer["parked"]));
        }
        text += &format!(
            "  {}  {}  {} records wait, {} in flight  {}\n",
            paint.strong(word(&peer["region"])),
            word(&peer["link"]),
            peer["records"],
            peer["in_flight"],
            paint.warn(remarks.join(", "))
        );
    }
    text
}

/// What a command has changed, or would.
fn changes(answer: &Value) -> String {
    let mut text = String::new();
    if answer["dry_run"] == true {
        text += "nothing was changed; this would be:\n";
    }
    for change in answer["peerings"].as_array().into_iter().flatten() {
        let (id, from, to) = (word(&change["id"]), word(&change["from"]), word(&change["to"]));
        text += &format!("  {id}  {from} -> {to}\n");
    }
    for half in answer["halves"].as_array().into_iter().flatten() {
        let on = if half["on"] == true { "on" } else { "off" };
        text += &format!("  {}  the own half is {on}\n", word(&half["id"]));
    }
    let records = &answer["records"];
    text += &format!(
        "  life {}; records written {}, dropped {}{}{}\n",
        answer["incarnation"],
        word(&records["written"]),
        word(&records["dropped"]),
        if answer["drained"] == true { "; takes no calls" } else { "" },
        if answer["held"] == true { "; frozen until `region thaw`" } else { "" }
    );
    text + &peers(answer)
}

/// The subcommands of `tenure disagreements`.
#[derive(Debug, Subcommand)]
pub enum DisagreementsCommand {
    /// List the peerings of which the two sides may have different views, why, and for how long.
    #[command(
        after_help = "Why: `contradictory` facts, which an operator has to look at; `frozen` towards the \
        other region; `unacknowledged`: a record has not reached it; `unconfirmed`: it has not said that it \
        knows of the end. The age is in ticks of the region's clock, as far as it is known.\n\n\
        Exit codes: 0 told; 2 usage; 3 the control plane does not answer."
    )]
    List(DisagreementsArgs),
}

/// The arguments of `tenure disagreements list`.
#[derive(Debug, Args)]
pub struct DisagreementsArgs {
    #[command(flatten)]
    region: RegionArgs,
    /// Only peerings with this region.
    #[arg(long, value_name = "REGION")]
    peer: Option<String>,
}

/// Runs a subcommand; its exit code is in its help.
pub fn run_disagreements(command: &DisagreementsCommand) -> ExitCode {
    let DisagreementsCommand::List(args) = command;
    let done = args.region.target().map(|target| {
        let question = json!({ "op": "disagreements", "peer": args.peer });
        target.tell(&target.ask(&question), |answer| {
            let all = answer["disagreements"].as_array().map_or(&[][..], Vec::as_slice);
            let more = if answer["more"] == true { "and more: name a --peer\n" } else { "" };
            all.iter().map(disagreement).collect::<String>() + more
        })
    });
    done.unwrap_or_else(|code| code)
}

/// One disagreement in a line.
fn disagreement(one: &Value) -> String {
    let why: Vec<_> = one["why"].as_array().into_iter().flatten().map(word).collect();
    let record = one["record"].as_str().map(|record| format!("  record {record}"));
    format!(
        "{}  {}  with {}: {}  for {} ticks{}\n",
        word(&one["id"]),
        word(&one["state"]),
        word(&one["region"]),
        why.join(", "),
        word(&one["age_ticks"]),
        record.unwrap_or_default()
    )
}

/// The subcommands of `tenure dlq`.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List the records that were set aside.
    #[command(after_help = "Exit codes: 0 told; 2 usage; 3 the control plane does not answer.")]
    List(DlqListArgs),
    /// Show one record.
    #[command(
        after_help = "Exit codes: 0 told; 1 there is no such record; 2 usage; 3 not answered."
    )]
    Show(RecordShowArgs),
    /// Try a record again.
    #[command(after_help = CODES)]
    Redrive(RecordArgs),
    /// Give a record up. The peering stays as it is; the comparison with the other region goes on.
    #[command(after_help = CODES)]
    Discard(RecordArgs),
}

/// The arguments of `tenure dlq list`.
#[derive(Debug, Args)]
pub struct DlqListArgs {
    #[command(flatten)]
    region: RegionArgs,
    /// Only records for this region.
    #[arg(long, value_name = "REGION")]
    peer: Option<String>,
    /// Every record that is not delivered yet, set aside or not.
    #[arg(long)]
    all: bool,
    /// Only records behind this one: the last one of the list before.
    #[arg(long, value_name = "RECORD")]
    after: Option<String>,
    /// At most so many records; never more than 1000.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

/// The arguments of `tenure dlq show`.
#[derive(Debug, Args)]
pub struct RecordShowArgs {
    #[command(flatten)]
    region: RegionArgs,
    /// The record.
    record: String,
}

/// The arguments of `tenure dlq redrive` and `discard`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    #[command(flatten)]
    command: CommandArgs,
    /// The record.
    record: String,
}

/// Runs a subcommand; its exit code is in its help.
pub fn run_dlq(command: &DlqCommand) -> ExitCode {
    let done = match command {
        DlqCommand::List(args) => args.region.target().map(|target| {
            let question = json!({
                "op": "records", "peer": args.peer, "parked": !args.all, "after": args.after,
                "limit": args.limit,
            });
            target.tell(&target.ask(&question), records)
        }),
        DlqCommand::Show(args) => args.region.target().map(|target| {
            let answer = target.ask(&json!({ "op": "record", "record": args.record }));
            target.tell(&answer, |answer| record(&answer["record"]))
        }),
        DlqCommand::Redrive(args) => {
            operate(&args.command, json!({ "op": "redrive", "record": args.record }))
        }
        DlqCommand::Discard(args) => {
            operate(&args.command, json!({ "op": "discard", "record": args.record }))
        }
    };
    done.unwrap_or_else(|code| code)
}

/// Some records in a line each, and how to see the next ones.
//= SPEC REGION-15
fn records(answer: &Value) -> String {
    let some = answer["records"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text: String = some.iter().map(record).collect();
    if let (true, Some(last)) = (answer["more"] == true, some.last()) {
        text += &format!("and more: --after {}\n", word(&last["record"]));
    }
    text
}

fn record(one: &Value) -> String {
    format!(
        "{}  {} of {} to {}  {}\n",
        Paint::stdout().strong(word(&one["record"])),
        word(&one["verb"]),
        word(&one["id"]),
        word(&one["region"]),
        if one["parked"] == true { "set aside" } else { "waits" }
    )
}

/// The subcommands of `tenure backup`.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Write a copy of all that is durable into a new file. The control plane may be running.
    #[command(after_help = "The seal key is not in it, and should be kept elsewhere.\n\n\
        Exit codes: 0 written; 1 not written, and the message says why; 2 usage; 3 the control plane \
        does not answer and its storage is in use: try again.")]
    Create(BackupArgs),
    /// Say whether a backup may be put back, and what is in it.
    #[command(
        after_help = "Exit codes: 0 it may; 1 it is damaged, another region's, or of a line that a \
        later restore has abandoned; 2 usage."
    )]
    Check(BackupArgs),
}

/// A region and a file.
#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    region: RegionArgs,
    /// The file of the backup.
    #[arg(value_name = "BACKUP")]
    file: PathBuf,
}

/// Runs a subcommand; its exit code is in its help.
pub fn run_backup(command: &BackupCommand) -> ExitCode {
    let (BackupCommand::Create(args) | BackupCommand::Check(args)) = command;
    let target = match args.region.target() {
        Ok(target) => target,
        Err(code) => return code,
    };
    let answer = match command {
        BackupCommand::Create(_) => create_backup(&target, &args.file),
        BackupCommand::Check(_) => check_backup(&target, &args.file).unwrap_or_else(refused),
    };
    target.tell(&answer, |answer| {
        format!(
            "life {}  clock {} ticks  {} peerings  {} records  {} tokens\n",
            answer["incarnation"],
            answer["clock_ticks"],
            answer["peerings"],
            answer["records"],
            answer["tokens"]
        )
    })
}

fn refused(error: String) -> Value {
    json!({ "ok": false, "error": error })
}

/// Lets the control plane write it; one that is down has its storage read.
fn create_backup(target: &Target, file: &Path) -> Value {
    let Ok(path) = std::path::absolute(file) else {
        return refused(format!("{} is no path of a file", file.display()));
    };
    let answer = target.ask(&json!({ "op": "backup", "path": path }));
    if answer["code"] != "unreachable" {
        return answer;
    }
    let (owner, node) = (&target.owner, &target.node);
    let written = restore::read_with_boots(owner, &node.storage).and_then(|found| {
        let (ledger, boots) = found
            .ok_or_else(|| restore::RestoreError::Empty(node.storage.display().to_string()))?;
        let mut about = restore::about(&ledger);
        let audit = restore::read_audit(owner, &node.storage)?;
        restore::write(owner, &path, Contents { ledger, audit, boots })?;
        about["ok"] = true.into();
        about["path"] = path.display().to_string().into();
        Ok(about)
    });
    written.unwrap_or_else(|error| refused(error.to_string()))
}

fn check_backup(target: &Target, file: &Path) -> Result<Value, String> {
    let (owner, node) = (&target.owner, &target.node);
    let text = |error: restore::RestoreError| error.to_string();
    let ledger = restore::read(owner, file)
        .map_err(text)?
        .ok_or_else(|| text(restore::RestoreError::Empty(file.display().to_string())))?;
    let mut about = restore::about(&ledger);
    // The present line: of the control plane if it runs, or of its storage.
    let status = target.ask(&json!({ "op": "status" }));
    let current = if status["ok"] == true {
        Some(restore::line_of(&status).ok_or("the control plane's status has no line of lives")?)
    } else if node.storage.exists() {
        restore::read(owner, &node.storage).map_err(text)?
    } else {
        None
    };
    if let Some(current) = &current {
        restore::check_lineage(&ledger, current).map_err(text)?;
    }
    about["ok"] = true.into();
    about["compared"] = current.is_some().into();
    Ok(about)
}

/// The subcommands of `tenure restore`.
#[derive(Debug, Subcommand)]
pub enum RestoreCommand {
    /// Put a backup in the place of a control plane's storage, as a new life. The control plane must be
    /// stopped; start it afterwards.
    #[command(
        after_help = "The storage that is replaced is kept beside it: which halves are on is taken from \
        it, and it is the only trace of what the backup lacks. After the start the region is frozen towards \
        each peer until that one has answered: `tenure restore status`.\n\n\
        Exit codes: 0 put back; 1 refused, and nothing was changed; 2 usage."
    )]
    Begin(BeginArgs),
    /// Say towards which regions a restored region is still frozen.
    #[command(
        after_help = "Exit codes: 0 frozen towards none; 1 towards some; 2 usage; 3 not answered."
    )]
    Status(RegionArgs),
    /// Say what was recovered, what could not be, and in which time operations may be missing.
    #[command(after_help = "Exit codes: 0 told; 2 usage; 3 the control plane does not answer.")]
    Report(RegionArgs),
}

/// The arguments of `tenure restore begin`.
#[derive(Debug, Args)]
pub struct BeginArgs {
    #[command(flatten)]
    command: CommandArgs,
    /// The backup.
    #[arg(long, value_name = "BACKUP")]
    backup: PathBuf,
    /// The highest number of a life that is known of this region, if the storage is lost.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    above: u64,
    /// The storage is damaged: do without it. Every half is then taken to be off.
    #[arg(long)]
    without_storage: bool,
}

/// Runs a subcommand; its exit code is in its help.
pub fn run_restore(command: &RestoreCommand) -> ExitCode {
    match command {
        RestoreCommand::Begin(args) => begin(args),
        RestoreCommand::Status(args) => match args.target() {
            Ok(target) => {
                let answer = target.ask(&json!({ "op": "report" }));
                let is_frozen = answer["ok"] == true && answer["open"] == false;
                let code = target.tell(&answer, |answer| {
                    let lines = answer["peers"].as_array().into_iter().flatten();
                    lines
                        .map(|p| format!("{}  {}\n", word(&p["region"]), word(&p["link"])))
                        .collect()
                });
                if is_frozen { ExitCode::FAILURE } else { code }
            }
            Err(code) => code,
        },
        RestoreCommand::Report(args) => match args.target() {
            Ok(target) => target.tell(&target.ask(&json!({ "op": "report" })), report),
            Err(code) => code,
        },
    }
}

fn begin(args: &BeginArgs) -> ExitCode {
    let target = match args.command.region.target() {
        Ok(target) => target,
        Err(code) => return code,
    };
    let answer = put_back(&target, args).unwrap_or_else(refused);
    target.tell(&answer, |answer| {
        format!(
            "{}life {}  {} peerings of the backup, {} halves are on{}\n",
            if answer["dry_run"] == true { "nothing was changed; this would be:\n" } else { "" },
            answer["incarnation"],
            answer["peerings"],
            answer["halves"],
            answer["kept"].as_str().map(|kept| format!("\nkept: {kept}")).unwrap_or_default(),
        )
    })
}

/// Writes the new storage beside the old one, and then changes the names.
fn put_back(target: &Target, args: &BeginArgs) -> Result<Value, String> {
    let text = |error: restore::RestoreError| error.to_string();
    let (owner, node) = (&target.owner, &target.node);
    if target.ask(&json!({ "op": "status" }))["code"] != "unreachable" {
        return Err(format!("{} is running: stop it first", node.name));
    }
    let storage = &node.storage;
    let has_storage = storage.exists();
    let current = if has_storage && !args.without_storage {
        restore::read_with_boots(owner, storage).map_err(text)?
    } else {
        None
    };
    let how = (args.above, rand::random());
    let (contents, restored) = restore::plan(owner, &args.backup, current, how).map_err(text)?;
    let mut answer = json!({
        "ok": true, "dry_run": args.command.dry_run, "incarnation": restored.life.n,
        "clock_ticks": restored.clock, "peerings": restored.peerings, "halves": restored.halves,
    });
    if args.command.dry_run {
        return Ok(answer);
    }
    let beside = |end: String| {
        let mut name = storage.file_name().unwrap_or_default().to_owned();
        name.push(end);
        storage.with_file_name(name)
    };
    let draft = beside(format!(".life-{}.new", restored.life.n));
    restore::write(owner, &draft, contents).map_err(text)?;
    let system = |error: std::io::Error| format!("the storage cannot be replaced ({error})");
    if has_storage {
        let kept = beside(format!(".before-life-{}", restored.life.n));
        fs::hard_link(storage, &kept).map_err(system)?;
        answer["kept"] = kept.display().to_string().into();
    }
    fs::rename(&draft, storage).map_err(system)?;
    let parent = storage.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = fs::File::open(parent.unwrap_or_else(|| Path::new("."))).map_err(system)?;
    directory.sync_all().map_err(system)?;
    Ok(answer)
}

fn report(answer: &Value) -> String {
    let paint = Paint::stdout();
    let mut text = format!("life {}\n", answer["incarnation"]);
    for peer in answer["peers"].as_array().into_iter().flatten() {
        text += &format!("{}  {}\n", paint.strong(word(&peer["region"])), word(&peer["link"]));
        for one in peer["recovered"].as_array().into_iter().flatten() {
            let what = ["existence", "decision", "deletion", "options"];
            let what: Vec<_> = what.into_iter().filter(|what| one[*what] == true).collect();
            text += &format!("  recovered  {}: {}\n", word(&one["id"]), what.join(", "));
        }
        for id in peer["refused"].as_array().into_iter().flatten() {
            text += &format!("  {}  {}: look at it\n", paint.warn("not recovered"), word(id));
        }
        let window = &peer["window_ticks"];
        // Equal: of the time of the loss nothing is known.
        let until = if window[0] == window[1] { "the loss".into() } else { window[1].to_string() };
        text += &format!(
            "  what never left this region between tick {} and {until} may be missing without a trace\n",
            window[0]
        );
    }
    text
}
