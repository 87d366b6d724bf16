//! The command line: parsing and printing only.

#![allow(clippy::disallowed_methods, reason = "a command may wait, and say how long it took")]

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod config;
pub mod paint;

/// Lease election, written once: model-checked, and running over UDP.
#[derive(Debug, Parser)]
#[command(name = "tenure", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a cluster file, or explain the timing of a lease.
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Runs the command that the arguments name. Exit code 2 is a usage error, for every command.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Config(command) => config::run(&command),
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
