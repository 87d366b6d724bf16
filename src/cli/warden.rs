//! The warden of a command: a process that runs it, and ends it in time whatever becomes of the node.
//!
//! A node that is killed, stopped or stuck cannot end the work of its term. So the work runs under a process
//! of its own, which knows one thing: until when. The node says so again after each renewal, on the
//! warden's standard input, one line each:
//!
//! | line | means |
//! |---|---|
//! | `until NS` | the term lasts until this many nanoseconds after the machine's boot |
//! | `stop` | the term ends now |
//! | end of file | the node is gone: the same |
//!
//! When the term ends, the command's process group gets SIGTERM, and SIGKILL when S has almost passed since
//! then. The command itself also dies with the warden: a step between the two asks the kernel for that.
//!
//! The warden leads a session of its own, and the command's processes are in it unless they make another one.
//! When the command has ended, what it has left in the session is killed, and the warden ends when none of that runs.
//! If the warden itself is killed, the node does the same: it knows the session, which is the warden's number.
//!
//! What it cannot do: run while the machine or the warden itself is stopped. Only the epoch helps there. And it
//! cannot kill what the system does not let it kill, as a process of another user: run it as one who may.

use std::io::BufRead as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, getppid, kill_process_group, set_parent_process_death_signal, setsid,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::kill::{end_session, kill_session};
use crate::clock::BootInstant;
use crate::node::clock::WakeUp;

/// How long a warden whose term is over waits for a word that it is not.
const SAYS_WITHIN: Duration = Duration::from_millis(50);

/// The arguments of the warden, which `tenure lease exec` starts.
#[derive(Debug, Args)]
pub struct WardenArgs {
    /// Until when the term lasts at first, in nanoseconds since the machine's boot.
    #[arg(long)]
    until: u64,
    /// How many nanoseconds the command has between SIGTERM and SIGKILL.
    #[arg(long)]
    grace: u64,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The arguments of the step between warden and command.
#[derive(Debug, Args)]
pub struct WardArgs {
    /// The warden's process id.
    #[arg(long)]
    parent: i32,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Becomes the command, which the kernel will kill when its parent, the warden, ends.
pub fn become_command(args: &WardArgs) -> ExitCode {
    let Some((program, rest)) = args.command.split_first() else {
        return super::usage_error("no command");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return super::failure(format!(
            "the kernel does not tie the command to its warden ({error})"
        ));
    }
    // It may have ended before the kernel was asked.
    if getppid().map(Pid::as_raw_pid) != Some(args.parent) {
        return super::failure("the warden has ended");
    }
    let error = std::process::Command::new(program).args(rest).exec();
    let _ = super::failure(format!("{program}: {error}"));
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

/// What the node says.
pub(super) enum Said {
    /// The term lasts until then.
    Until(BootInstant),
    /// The term ends now.
    Stop,
}

/// Runs the command until it ends, and passes its exit code on; 128 and the signal's number if a signal ended it.
pub fn run(args: &WardenArgs) -> ExitCode {
    if let Err(code) = super::node::log_to_stderr() {
        return code;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::failure(error),
    };
    match runtime.block_on(watch_over(args)) {
        Ok(status) => ExitCode::from(code_of(status)),
        Err(error) => super::failure(error),
    }
}

/// The code that says how a command has ended.
pub(super) fn code_of(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn hear(line: &str) -> Option<Said> {
    match line.trim().split_once(' ') {
        None if line.trim() == "stop" => Some(Said::Stop),
        Some(("until", nanos)) => nanos.parse().ok().map(BootInstant::from_nanos).map(Said::Until),
        _ => None,
    }
}

/// Hears what the node says on standard input. Its end means that the node is gone: the term ends.
pub(super) fn listen() -> mpsc::UnboundedReceiver<Said> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if let Some(said) = hear(&line)
                && sender.send(said).is_err()
            {
                return;
            }
        }
        let _ = sender.send(Said::Stop);
    });
    receiver
}

//= SPEC GUARD-15
//= SPEC GUARD-30
async fn watch_over(args: &WardenArgs) -> Result<ExitStatus, String> {
    let system = |error: std::io::Error| error.to_string();
    let grace = Duration::from_nanos(args.grace);
    let session = setsid().map_err(|error| format!("tenure lease exec starts this ({error})"))?;
    let mut said = listen();
    let mut wake_up = WakeUp::new().map_err(system)?;
    let mut until = BootInstant::from_nanos(args.until);
    while BootInstant::now() >= until {
        // It may have been renewed while this process was being started.
        match timeout(SAYS_WITHIN, said.recv()).await {
            Ok(Some(Said::Until(later))) => until = until.max(later),
            _ => return Err("the term has ended before the command could begin".to_owned()),
        }
    }
    let mut command = std::process::Command::new(std::env::current_exe().map_err(system)?);
    command
        .args(["ward", "--parent", &std::process::id().to_string(), "--"])
        .args(&args.command)
        .stdin(Stdio::null())
        .process_group(0);
    let mut child = tokio::process::Command::from(command).spawn().map_err(system)?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let end = |signal| match group.map(|group| kill_process_group(group, signal)) {
        // It may be gone already.
        None | Some(Ok(()) | Err(Errno::SRCH)) => {}
        Some(Err(error)) => tracing::error!(%error, "the command cannot be told to end"),
    };
    // When SIGKILL is due, from SIGTERM on; and whether it has been sent.
    let mut kill_at: Option<BootInstant> = None;
    let mut is_killed = false;
    let status = loop {
        let now = BootInstant::now();
        if kill_at.is_none() && now >= until {
            end(Signal::TERM);
            // Counted from the deadline, however late this process has woken up.
            kill_at = Some(until.saturating_add(grace));
        }
        if let Some(at) = kill_at
            && now >= at
            && !is_killed
        {
            end(Signal::KILL);
            // And what has left the group. What is still there is seen when the command has ended.
            let _ = kill_session(session);
            is_killed = true;
        }
        let next = kill_at.map_or(Some(until), |at| (!is_killed).then_some(at));
        wake_up.set(next).map_err(system)?;
        tokio::select! {
            biased;
            status = child.wait() => break status.map_err(system)?,
            expired = wake_up.expired() => expired.map_err(system)?,
            Some(said) = said.recv() => match said {
                Said::Until(later) => until = until.max(later),
                Said::Stop => until = until.min(BootInstant::now()),
            },
        }
    };
    // What the command has left behind goes with it.
    end_session(session).await;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hears_what_a_node_says_and_nothing_else() {
        assert!(matches!(hear("until 17\n"), Some(Said::Until(at)) if at.as_nanos() == 17));
        assert!(matches!(hear("stop"), Some(Said::Stop)));
        for noise in ["", "until", "until x", "until -1", "stop now", "go"] {
            assert!(hear(noise).is_none(), "{noise:?}");
        }
    }
}
