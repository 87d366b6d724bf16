//! The command line: parsing and printing only.

#![allow(clippy::disallowed_methods, reason = "a command may wait, and say how long it took")]

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{ConfigError, ConfigErrors};

mod beside;
pub mod check;
pub mod config;
pub mod demo;
pub mod demo_irc;
pub mod exec;
#[cfg(feature = "explorer")]
pub mod explore;
mod health;
pub mod keeper;
pub mod keys;
mod kill;
pub mod lease;
mod meter;
pub mod node;
mod node_region;
pub mod paint;
pub mod peering;
mod proc;
pub mod region;
pub mod runbook;
pub mod sim;
pub mod trace;
pub mod warden;
pub mod watchdog;

/// Lease election, written once: model-checked, and running over UDP.
#[derive(Debug, Parser)]
#[command(name = "tenure", version, propagate_version = true)]
#[command(after_help = "Without a command, the demo runs.")]
pub struct Cli {
    /// What to do; without it, the demo runs.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Explore the models and compare with what is registered.
    Check(check::CheckArgs),
    /// Make a backup of a region's control plane, or check one.
    #[command(subcommand)]
    Backup(runbook::BackupCommand),
    /// Check a cluster file, or explain the timing of a lease.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Show a cluster in this process: failover, partition, suspension, hand-over.
    Demo(demo::DemoArgs),
    /// Show the peerings of which the two regions may have different views.
    #[command(subcommand)]
    Disagreements(runbook::DisagreementsCommand),
    /// Show and move records that were set aside because they cannot be delivered.
    #[command(subcommand)]
    Dlq(runbook::DlqCommand),
    /// Show models, counterexamples and traces in a browser.
    #[cfg(feature = "explorer")]
    Explore(explore::ExploreArgs),
    /// Make keys for nodes, and show when they run out.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Show and operate a lease.
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Run one node of a cluster.
    Node(node::NodeArgs),
    /// Peer networks of two regions: the customer API.
    #[command(subcommand)]
    Peering(peering::PeeringCommand),
    /// Show and operate a region.
    #[command(subcommand)]
    Region(runbook::RegionCommand),
    /// Put a region back to a backup, and see what was lost.
    #[command(subcommand)]
    Restore(runbook::RestoreCommand),
    /// Simulate a cluster from a seed, with faults, and check what it did.
    #[command(subcommand)]
    Sim(sim::SimCommand),
    /// Check the traces that nodes have written, or export them.
    #[command(subcommand)]
    Trace(trace::TraceCommand),
    /// Keep the work of a term: `tenure node` starts it.
    #[command(hide = true)]
    Keeper,
    /// Become a command that dies with its warden: `tenure warden` starts it.
    #[command(hide = true)]
    Ward(warden::WardArgs),
    /// Run a command until a deadline: `tenure lease exec` starts it.
    #[command(hide = true)]
    Warden(warden::WardenArgs),
}

/// Runs the command that the arguments name. Exit code 2 is a usage error, for every command.
pub fn main() -> ExitCode {
    match Cli::parse().command.unwrap_or_else(|| Command::Demo(demo::DemoArgs::default())) {
        Command::Backup(command) => runbook::run_backup(&command),
        Command::Check(args) => check::run_check(&args),
        Command::Config(command) => config::run(&command),
        Command::Demo(args) => demo::run(&args),
        Command::Disagreements(command) => runbook::run_disagreements(&command),
        Command::Dlq(command) => runbook::run_dlq(&command),
        Command::Keeper => keeper::run(),
        Command::Keys(command) => keys::run(&command),
        #[cfg(feature = "explorer")]
        Command::Explore(args) => explore::run(&args),
        Command::Lease(command) => lease::run(&command),
        Command::Node(args) => node::run(&args),
        Command::Peering(command) => peering::run(&command),
        Command::Region(command) => runbook::run_region(&command),
        Command::Restore(command) => runbook::run_restore(&command),
        Command::Sim(command) => sim::run(&command),
        Command::Trace(command) => trace::run(&command),
        Command::Ward(args) => warden::become_command(&args),
        Command::Warden(args) => warden::run(&args),
    }
}

/// Writes to standard output. A reader that has gone away is no failure of ours.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Says on standard error that the command cannot be used like this; the exit code of that.
pub fn usage_error(message: impl std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::from(2)
}

/// Says on standard error, in one line, why the command has failed; the exit code of that.
pub fn failure(message: impl std::fmt::Display) -> ExitCode {
    let message = message.to_string();
    let line: Vec<_> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let _ = writeln!(std::io::stderr(), "error: {}", line.join("; "));
    ExitCode::FAILURE
}

/// Says in one line that the cluster file cannot be used; the exit code of that.
pub fn config_failure(file: &Path, errors: &ConfigErrors) -> ExitCode {
    match errors.iter().next() {
        // This one names the file by itself.
        Some(error @ ConfigError::Read { .. }) => failure(error),
        _ => failure(format!("{}: {errors}", file.display())),
    }
}
