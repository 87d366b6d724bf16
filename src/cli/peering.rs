//! `tenure peering`: the customer API, through the control plane of the customer's own region.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::paint::Paint;
use super::region::{RegionArgs, Target, word};
use crate::irc::audit as log;
use crate::node::region::{audited, parse_id};
use crate::node::restore;

const CODES: &str = "A call is named by its token: the same token makes it the same call, however often \
    it is made. Without one a token is drawn.\n\n\
    Exit codes: 0 done; 1 refused, and the message says why; 2 usage; 3 refused for now, or not \
    answered: try again with the same token.";
const CODES_OF_QUESTION: &str = "Exit codes: 0 told; 1 there is no such peering, or it is another's; 2 usage; 3 not visible \
    here yet, or not answered: try again.";

/// The subcommands of `tenure peering`.
#[derive(Debug, Subcommand)]
pub enum PeeringCommand {
    /// Ask for a peering of a network of this region with one of another region.
    #[command(after_help = CODES)]
    Create(CreateArgs),
    /// Accept a request, in the region that was asked.
    #[command(after_help = CODES)]
    Accept(ChangeArgs),
    /// Reject a request, in the region that was asked.
    #[command(after_help = CODES)]
    Reject(ChangeArgs),
    /// End a peering, from either side. It succeeds on what is over already.
    #[command(after_help = CODES)]
    Delete(ChangeArgs),
    /// Change what this side lets the other do.
    #[command(after_help = CODES)]
    Modify(ModifyArgs),
    /// Show one peering.
    #[command(after_help = CODES_OF_QUESTION)]
    Get(GetArgs),
    /// Show the peerings of an account in this region.
    #[command(after_help = "Exit codes: 0 told; 2 usage; 3 not answered: try again.")]
    List(ListArgs),
    /// Show what has changed for the owners in this region, and why: the audit log.
    #[command(
        after_help = "The last entries, as far as they are in memory; a backup has all of them. Each names the \
        hash of the one before.\n\nExit codes: 0 told, and the chain is whole; 1 the chain is broken; 2 usage; 3 not answered: \
        try again."
    )]
    Audit(AuditArgs),
    /// Show one peering as both sides see it, the facts behind that, and what it waits for.
    #[command(after_help = CODES_OF_QUESTION)]
    Explain(GetArgs),
}

/// Who calls, and how often.
#[derive(Debug, Args)]
pub struct CallArgs {
    #[command(flatten)]
    region: RegionArgs,
    /// The account that calls.
    #[arg(long, value_name = "NUMBER")]
    account: u32,
    /// Names the call; drawn at random if it is not given.
    #[arg(long, value_name = "NUMBER")]
    token: Option<u64>,
    /// Say what the call would come to, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// The arguments of `tenure peering create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    call: CallArgs,
    /// The own network.
    #[arg(long, value_name = "NUMBER")]
    network: u32,
    /// The other region.
    #[arg(long, value_name = "REGION")]
    to: String,
    /// Who owns the other network, and must accept.
    #[arg(long, value_name = "NUMBER")]
    peer_account: u32,
    /// The other network.
    #[arg(long, value_name = "NUMBER")]
    peer_network: u32,
    /// Let the other side resolve names of this one.
    #[arg(long)]
    resolve_names: bool,
}

/// The arguments of `tenure peering accept`, `reject` and `delete`.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    call: CallArgs,
    /// The peering.
    id: String,
}

/// The arguments of `tenure peering modify`.
#[derive(Debug, Args)]
pub struct ModifyArgs {
    #[command(flatten)]
    call: CallArgs,
    /// The peering.
    id: String,
    /// The version of the own options that the caller has seen.
    #[arg(long, value_name = "VERSION")]
    seen: String,
    /// Whether the other side may resolve names of this one.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    resolve_names: bool,
}

/// The arguments of `tenure peering get` and `explain`.
#[derive(Debug, Args)]
pub struct GetArgs {
    #[command(flatten)]
    region: RegionArgs,
    /// The account that calls.
    #[arg(long, value_name = "NUMBER")]
    account: u32,
    /// The peering.
    id: String,
}

/// The arguments of `tenure peering list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    region: RegionArgs,
    /// The account that calls.
    #[arg(long, value_name = "NUMBER")]
    account: u32,
}

/// The arguments of `tenure peering audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    region: RegionArgs,
    /// The peering; without it, all.
    id: Option<String>,
    /// Read the whole log in this backup, or in the storage of a control plane that is stopped.
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
}

/// Runs a subcommand; its exit code is in its help.
pub fn run(command: &PeeringCommand) -> ExitCode {
    let done = match command {
        PeeringCommand::Create(args) => {
            let CreateArgs { call, network, to, peer_account, peer_network, resolve_names } = args;
            make(
                call,
                json!({
                    "op": "create", "network": network, "region": to, "peer_account": peer_account,
                    "peer_network": peer_network, "resolve_names": resolve_names,
                }),
            )
        }
        PeeringCommand::Accept(args) => make(&args.call, json!({ "op": "accept", "id": args.id })),
        PeeringCommand::Reject(args) => make(&args.call, json!({ "op": "reject", "id": args.id })),
        PeeringCommand::Delete(args) => make(&args.call, json!({ "op": "delete", "id": args.id })),
        PeeringCommand::Modify(ModifyArgs { call, id, seen, resolve_names }) => make(
            call,
            json!({ "op": "modify", "id": id, "version": seen, "resolve_names": resolve_names }),
        ),
        PeeringCommand::Get(args) => question(args, "get", |answer| {
            let one = &answer["peering"];
            format!("{}\n", line(one, Paint::stdout()))
        }),
        PeeringCommand::Explain(args) => question(args, "explain", explained),
        PeeringCommand::Audit(args) => args.region.target().map(|target| audit(&target, args)),
        PeeringCommand::List(args) => {
            args.region.target().map(|target| list(&target, args.account))
        }
    };
    done.unwrap_or_else(|code| code)
}

/// Makes a call that changes something.
fn make(call: &CallArgs, mut question: Value) -> Result<ExitCode, ExitCode> {
    let target = call.region.target()?;
    let token = call.token.unwrap_or_else(rand::random);
    question["account"] = call.account.into();
    question["token"] = token.into();
    question["dry_run"] = call.dry_run.into();
    let mut answer = target.ask(&question);
    answer["token"] = token.into();
    Ok(target.tell(&answer, |answer| {
        let what = if answer["version"].is_null() { &answer["state"] } else { &answer["version"] };
        let would = if answer["dry_run"] == true { "would be " } else { "" };
        let paint = Paint::stdout();
        format!(
            "{}  {would}{}  {}\n",
            paint.strong(word(&answer["id"])),
            word(what),
            paint.faint(format!("token {token}"))
        )
    }))
}

fn question(
    args: &GetArgs,
    op: &str,
    text: impl FnOnce(&Value) -> String,
) -> Result<ExitCode, ExitCode> {
    let target = args.region.target()?;
    let answer = target.ask(&json!({ "op": op, "account": args.account, "id": args.id }));
    Ok(target.tell(&answer, text))
}

fn list(target: &Target, account: u32) -> ExitCode {
    let mut after: Option<String> = None;
    let mut all = Vec::new();
    loop {
        let answer = target.ask(&json!({ "op": "list", "account": account, "after": after }));
        let Some(page) = answer["peerings"].as_array().filter(|_| answer["ok"] == true) else {
            return target.tell(&answer, |_| String::new());
        };
        all.extend(page.iter().cloned());
        let last = page.last().and_then(|one| one["id"].as_str()).map(str::to_owned);
        match last {
            Some(last) if answer["more"] == true => after = Some(last),
            _ => break,
        }
    }
    let paint = Paint::stdout();
    target.tell(&json!({ "ok": true, "peerings": all }), |_| {
        all.iter().map(|one| format!("{}\n", line(one, paint))).collect()
    })
}

/// The entries that are asked for, and whether their chain is whole; or the answer that refuses them.
fn read_audit(target: &Target, id: Option<&str>) -> Result<(Vec<Value>, String), Value> {
    let mut after: Option<u64> = None;
    let mut all = Vec::new();
    loop {
        let answer = target.ask(&json!({ "op": "audit", "id": id, "after": after }));
        let Some(page) = answer["entries"].as_array().filter(|_| answer["ok"] == true) else {
            return Err(answer);
        };
        all.extend(page.iter().cloned());
        after = page.last().and_then(|one| one["number"].as_u64());
        if answer["more"] != true {
            return Ok((all, word(&answer["chain"])));
        }
    }
}

/// The same out of a file.
//= SPEC REGION-9
fn read_audit_in(
    target: &Target,
    id: Option<&str>,
    file: &Path,
) -> Result<(Vec<Value>, String), String> {
    let text = |error: restore::RestoreError| error.to_string();
    let id = id.map(|id| parse_id(&target.config, id)).transpose()?;
    let ledger = restore::read(&target.owner, file).map_err(text)?;
    let head = ledger.map(|ledger| ledger.head.audited).unwrap_or_default();
    let entries = restore::read_audit(&target.owner, file).map_err(text)?;
    let chain = log::verify(entries.iter().map(|(number, entry)| (*number, entry)), head);
    let wanted = entries.iter().filter(|(_, entry)| id.is_none_or(|id| entry.id == Some(id)));
    let all = wanted.map(|(number, entry)| audited(&target.config, *number, entry)).collect();
    Ok((all, chain.map_or_else(|error| error.to_string(), |()| "whole".to_owned())))
}

fn audit(target: &Target, args: &AuditArgs) -> ExitCode {
    let id = args.id.as_deref();
    let read = match &args.backup {
        Some(file) => {
            read_audit_in(target, id, file).map_err(|error| json!({ "ok": false, "error": error }))
        }
        None => read_audit(target, id),
    };
    let (all, chain) = match read {
        Ok(read) => read,
        Err(refusal) => return target.tell(&refusal, |_| String::new()),
    };
    let is_whole = chain == "whole";
    let code = target.tell(&json!({ "ok": true, "entries": all, "chain": chain }), |answer| {
        let mut text = String::new();
        for one in &all {
            let by = &one["cause"];
            let by =
                ["by", "command", "region", "record", "drained", "account"].map(|key| &by[key]);
            let by: Vec<_> = by.into_iter().filter(|word| !word.is_null()).map(word).collect();
            text += &format!(
                "{:>6}  tick {}  {}  {} -> {}  by {}\n",
                word(&one["number"]),
                one["at_ticks"],
                word(&one["id"]),
                word(&one["from"]),
                word(&one["to"]),
                by.join(" ")
            );
        }
        text + &format!("chain: {}\n", word(&answer["chain"]))
    });
    if is_whole { code } else { ExitCode::FAILURE }
}

/// One peering in a line.
fn line(one: &Value, paint: Paint) -> String {
    let end = |side: &Value| {
        format!("{}/{} of account {}", word(&side["region"]), side["network"], side["account"])
    };
    let mut conditions = String::new();
    for condition in ["frozen", "stuck"] {
        if one[condition] == true {
            conditions += &format!("  {}", paint.warn(condition));
        }
    }
    format!(
        "{}  {:<18}  {} -> {}{conditions}",
        paint.strong(word(&one["id"])),
        word(&one["state"]),
        end(&one["requester"]),
        end(&one["accepter"]),
    )
}

//= SPEC REGION-8
fn explained(answer: &Value) -> String {
    let paint = Paint::stdout();
    let one = &answer["peering"];
    let (mine, other) = match one["side"].as_str() {
        Some("requester") => ("requester", "accepter"),
        _ => ("accepter", "requester"),
    };
    let mut text = format!("{}\n", line(one, paint));
    text += &format!(
        "  here ({}, {mine}): {}\n  there ({}, {other}), as far as it is known here: {}\n  {}\n",
        word(&one[mine]["region"]),
        word(&one["state"]),
        word(&one[other]["region"]),
        word(&answer["peer_state"]),
        word(&answer["sync"]),
    );
    if let Some(minutes) = answer["peer_heard_minutes_ago"].as_u64() {
        text += &format!("  {} was heard {minutes} ticks ago\n", word(&one[other]["region"]));
    }
    text += &format!("{}\n", paint.strong("facts"));
    for side in ["requester", "accepter"] {
        let facts = &one[side];
        let mut parts = Vec::new();
        if side == "requester" {
            parts.push(format!("created for {}", word(&facts["cidr"])));
        } else {
            parts.push(match facts["deadline"].as_u64() {
                Some(tick) => format!("stored, expires at tick {tick} if undecided"),
                None => "not known to be stored".to_owned(),
            });
            parts.push(format!("decision {}", word(&facts["decision"])));
        }
        if facts["deleted"] == true {
            parts.push("deleted".to_owned());
        }
        let options = &facts["options"];
        parts.push(format!(
            "resolve names {} (version {})",
            options["resolve_names"],
            word(&options["version"])
        ));
        text += &format!("  {} writes: {}\n", word(&facts["region"]), parts.join("; "));
    }
    text += &format!("{}\n", paint.strong("waits for"));
    let waits = answer["waits_for"].as_array().map_or(&[][..], Vec::as_slice);
    for wait in waits {
        let what = match wait["for"].as_str().unwrap_or_default() {
            "delivery" => format!(
                "the delivery of record {} ({}) to {}",
                word(&wait["record"]),
                word(&wait["verb"]),
                word(&one[other]["region"])
            ),
            "more-deliveries" => {
                format!("the delivery of {} more records", wait["count"])
            }
            "an-operator" => format!(
                "an operator: record {} is set aside, see `tenure dlq show`",
                word(&wait["record"])
            ),
            "the-end-of-a-freeze" => {
                format!("{} to answer: a restore is going on", word(&wait["region"]))
            }
            "a-decision" => format!("a decision of {}", word(&one["accepter"]["region"])),
            "an-answer" => {
                format!("any answer of {}: it is silent", word(&wait["region"]))
            }
            "the-own-half" => "the own half to be switched on".to_owned(),
            other => other.to_owned(),
        };
        text += &format!("  {what}\n");
    }
    if waits.is_empty() {
        text += "  nothing\n";
    }
    let peer = &answer["peer"];
    if peer["answers"] == false {
        text += &format!(
            "  {} does not answer: {} records wait for it, {} in flight\n",
            paint.warn(word(&peer["region"])),
            peer["records"],
            peer["in_flight"]
        );
    }
    text
}
