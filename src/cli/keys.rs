//! `tenure keys`: the keys of nodes, and when they run out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, Node, date_text};
use crate::node::keys::{self, KeyFileError, span, time_of_day};
use crate::node::{Handle, Runnable};
use crate::wire::seal::{PublicKey, current};

/// How often a key that runs out soon is told of in the log of a node.
const TELL_EVERY: Duration = Duration::from_secs(86_400);

/// The subcommands of `tenure keys`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key for a node: a file that stays on its machine, and what the cluster file lists.
    #[command(
        after_help = "The file is readable by its owner alone, and is never overwritten. What is printed goes \
        into the cluster file of every node, below the [[node]] that the key is for.\n\n\
        Exit codes: 0 made; 1 the file is there already or cannot be written; 2 usage."
    )]
    New(NewArgs),
    /// Show the public key of a key file.
    #[command(
        after_help = "Exit codes: 0 shown; 1 the file cannot be read, others can read it, or it is no key file; \
        2 usage."
    )]
    Show(ShowArgs),
    /// Show the keys of each node of a cluster file, which of them is in use, and when they run out.
    #[command(after_help = "It reads the cluster file alone, no secret and no node.\n\n\
        Exit codes: 0 the last key of every node is good for more than 30 days; 1 one has run out or will, or the \
        file cannot be used; 2 usage.")]
    Status(StatusArgs),
}

/// The arguments of `tenure keys new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The file to make.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// After how many days it shall run out.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `tenure keys show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The key file.
    pub file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `tenure keys status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The cluster file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Print one JSON object a key.
    #[arg(long)]
    pub json: bool,
}

/// Runs a subcommand; its exit code is in its help.
pub fn run(command: &KeysCommand) -> ExitCode {
    match command {
        KeysCommand::New(args) => told(new(args)),
        KeysCommand::Show(args) => told(show(args)),
        KeysCommand::Status(args) => status(args),
    }
}

fn told(text: Result<String, KeyFileError>) -> ExitCode {
    match text {
        Ok(text) => {
            super::print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => super::failure(error),
    }
}

fn new(args: &NewArgs) -> Result<String, KeyFileError> {
    let key = keys::new_secret()?;
    keys::write_secret(&args.out, &key)?;
    let not_after = date_text(time_of_day() + u64::from(args.days) * 86_400);
    let (public, secret) = (key.public(), args.out.display().to_string());
    Ok(if args.json {
        let made =
            json!({ "public": public.to_string(), "not_after": not_after, "secret": secret });
        format!("{made}\n")
    } else {
        format!(
            "[[node.key]]\npublic = \"{public}\"\nnot_after = \"{not_after}\"\n\
             secret = {secret:?}   # relative to the cluster file\n"
        )
    })
}

fn show(args: &ShowArgs) -> Result<String, KeyFileError> {
    let public = keys::read_secret(&args.file)?.public();
    Ok(if args.json {
        format!("{}\n", json!({ "public": public.to_string(), "name": public.name() }))
    } else {
        format!("{public}\n")
    })
}

// -------------------------------------------------------------------------------------------------
// Status
// -------------------------------------------------------------------------------------------------

fn status(args: &StatusArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => return super::config_failure(&args.config, &errors),
    };
    if config.insecure {
        return super::failure(format!(
            "{}: `insecure = true`: no node has a key, and datagrams are not sealed",
            args.config.display()
        ));
    }
    let now = time_of_day();
    super::print(&status_text(&config, now, args.json));
    ExitCode::from(u8::from(!keys::warnings(&config, now).is_empty()))
}

/// Each key of each node, in the order of the file.
fn status_text(config: &Config, now: u64, as_json: bool) -> String {
    let mut text = String::new();
    for node in &config.nodes {
        for (public, not_after, state) in states(node, now) {
            // A text takes everything.
            let _ = if as_json {
                let left = i128::from(not_after) - i128::from(now);
                let key = json!({
                    "node": node.name, "key": public.name(), "public": public.to_string(), "state": state,
                    "not_after": date_text(not_after), "expires_in_seconds": i64::try_from(left).ok(),
                });
                writeln!(text, "{key}")
            } else {
                let left = match not_after.checked_sub(now) {
                    Some(left) => format!("in {}", span(left)),
                    None => format!("{} ago", span(now - not_after)),
                };
                writeln!(
                    text,
                    "{}  {}  {state:<7}  {}  {left}",
                    node.name,
                    public.name(),
                    date_text(not_after)
                )
            };
        }
    }
    for ending in keys::warnings(config, now).iter().filter(|_| !as_json) {
        let _ =
            writeln!(text, "{}: {ending}", if ending.has_run_out() { "error" } else { "warning" });
    }
    text
}

/// What each key of a node is for, by the one rule for all (SEAL-6).
fn states(node: &Node, now: u64) -> Vec<(PublicKey, u64, &'static str)> {
    let used = current(node.keys.iter().map(|key| key.not_after), now);
    let keys = node.keys.iter().enumerate().map(|(at, key)| {
        let state = match key.not_after {
            past if past < now => "ran out",
            _ if Some(at) == used => "in use",
            _ => "good",
        };
        (key.public, key.not_after, state)
    });
    keys.collect()
}

// -------------------------------------------------------------------------------------------------
// Keys of a node that runs
// -------------------------------------------------------------------------------------------------

/// Asks to be told of SIGHUP, which else would end this node without any order.
pub(super) fn hang_up() -> Result<Signal, String> {
    signal(SignalKind::hangup()).map_err(|error| error.to_string())
}

/// For as long as the node runs: warns of keys that run out, shows when they do, and reads the keys of the cluster
/// file again at each SIGHUP.
//= SPEC SEAL-9
//= SPEC SEAL-10
pub(super) async fn look_after<A: Runnable>(
    file: PathBuf,
    config: Arc<Config>,
    node: Node,
    handle: Arc<Handle<A>>,
    mut hang_up: Signal,
) {
    let mut now_used = Arc::clone(&config);
    let mut ticks = tokio::time::interval(TELL_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => tell(&now_used),
            received = hang_up.recv() => {
                if received.is_none() {
                    return;
                }
                if let Some(new) = read_again(&file, &config, &node, &handle) {
                    now_used = new;
                    tell(&now_used);
                }
            }
        }
    }
}

fn read_again<A: Runnable>(
    file: &Path,
    config: &Config,
    node: &Node,
    handle: &Handle<A>,
) -> Option<Arc<Config>> {
    let renewed = Config::load(file).map_err(|errors| errors.to_string()).and_then(|new| {
        let keyring = keys::renewed(config, &new, node).map_err(|error| error.to_string())?;
        Ok((new, keyring))
    });
    match renewed {
        Ok((new, keyring)) => {
            handle.renew_keys(keyring);
            tracing::info!(node = node.name, file = %file.display(), "keys were read again");
            Some(Arc::new(new))
        }
        Err(error) => {
            tracing::error!(
                node = node.name, file = %file.display(), error,
                "keys were not read again: the node goes on with those that it has"
            );
            None
        }
    }
}

/// Says in the log which keys run out within a month, and in the metrics when all of them do.
fn tell(config: &Config) {
    for node in &config.nodes {
        if let Some(not_after) = node.keyed_until() {
            metrics::gauge!("key_expiry_timestamp_seconds", "node" => node.name.clone())
                .set(not_after as f64);
        }
    }
    for ending in keys::warnings(config, time_of_day()) {
        if ending.has_run_out() {
            tracing::error!("{ending}");
        } else {
            tracing::warn!("{ending}");
        }
    }
}

/// What `tenure config check` says about keys: errors, then warnings.
pub(super) fn problems(config: &Config) -> [Vec<String>; 2] {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        keys::warnings(config, time_of_day()).into_iter().partition(|ending| ending.has_run_out());
    [errors, warnings].map(|endings| endings.iter().map(ToString::to_string).collect())
}
