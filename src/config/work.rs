//! What a host's lease protects outside of tenure: how it is begun, and what ends it within S.
//!
//! ```toml
//! [[work]]
//! node = "a"
//! lease = "orders"
//! lead = ["sh", "lead.sh"]             # run when a term has begun, e.g. to promote a standby
//! follow = ["sh", "follow.sh"]         # run when another host holds the lease, e.g. to rejoin as a standby
//! kill = "a/postmaster.pid"            # the kill switch: this process, with all of its descendants
//!
//! [[work.stop]]                        # what ends the work, one after the other; their times must fit S
//! postgres = "host=127.0.0.1 user=postgres"
//! mode = "READ_ONLY"
//! worst = "500ms"
//!
//! [[work.stop]]
//! command = ["sh", "stop.sh"]
//! worst = "300ms"
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Lease, Node, Role};
use crate::duration::{self, DurationError};
use crate::embed::{StopMode, StopModeError};
use crate::lease::record::NodeId;

/// What a host does beside its part in the election of one lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The host.
    pub node: NodeId,
    /// The index of the lease.
    pub lease: u16,
    /// The command that begins the work of a term. It is ended with the term; if it fails, the term ends.
    pub lead: Option<Vec<String>>,
    /// The command that is run when another host is seen to hold the lease, again until it exits with 0.
    pub follow: Option<Vec<String>>,
    /// What ends the work, in this order.
    pub stop: Vec<StopHook>,
    /// The file with the id of the process that is killed, with all of its descendants, if the hooks have
    /// not ended the work.
    pub kill: Option<PathBuf>,
}

/// One hook of a [`Work`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopHook {
    /// What it does.
    pub how: How,
    /// The longest that it may take.
    pub worst: Duration,
}

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// Runs a program, which must exit with 0.
    Command(Vec<String>),
    /// Makes a PostgreSQL server read-only and ends its sessions.
    Postgres(String),
    /// Puts a MariaDB or MySQL server in a mode, by its name: see [`StopMode`].
    Mysql(String, String),
    /// Kills the process whose id is in this file, with all of its descendants.
    Kill(PathBuf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWork {
    pub(super) node: String,
    pub(super) lease: String,
    lead: Option<Vec<String>>,
    follow: Option<Vec<String>>,
    #[serde(default)]
    stop: Vec<RawStop>,
    kill: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStop {
    command: Option<Vec<String>>,
    postgres: Option<String>,
    mysql: Option<String>,
    kill: Option<PathBuf>,
    mode: Option<String>,
    worst: String,
}

/// What is wrong with a section `[[work]]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// The file has no such lease.
    #[error("there is no lease of that name; add one or name another")]
    UnknownLease,
    /// The node does not run for the lease.
    #[error("{0:?} is no host of this lease; name one of its hosts")]
    NotAHost(String),
    /// The host has two such sections for one lease.
    #[error("the host has another [[work]] for this lease; make one of the two")]
    Duplicate,
    /// Nothing would end the work.
    #[error("nothing ends it; add [[work.stop]] or `kill`")]
    NothingStops,
    /// A command without a program.
    #[error("{0} is empty; give a program and its arguments")]
    EmptyCommand(&'static str),
    /// A hook that does nothing, or two things.
    #[error("a hook has {0} of command, postgres, mysql and kill; give exactly one")]
    Ways(usize),
    /// A mode that is none, or that this server has not.
    #[error("mode: {0}")]
    Mode(#[from] StopModeError),
    /// A mode that cannot be had.
    #[error("mode {0} is for mysql alone; use READ_ONLY, or a command that stops the server")]
    NotOfThisServer(StopMode),
    /// The program was built without this client.
    #[error("this program has no client for {0}; build it with --features {0}")]
    NotBuiltIn(&'static str),
    /// A duration does not parse.
    #[error("worst: {0}")]
    Duration(#[from] DurationError),
    /// The hooks may take longer than S.
    #[error(
        "the hooks take up to {hooks:?}, but an S of {stop:?} leaves them {left:?} before the kill switch: raise \
         `hook` in the timing of the lease, or give the hooks less"
    )]
    TooLong {
        /// The sum of the hooks' times.
        hooks: Duration,
        /// S.
        stop: Duration,
        /// What they may take: [`Timing::stop_within`](crate::lease::timing::Timing::stop_within).
        left: Duration,
    },
}

impl RawStop {
    fn check(self, directory: &Path) -> Result<StopHook, WorkError> {
        let worst = duration::parse(&self.worst)?;
        let mode: StopMode = self.mode.as_deref().unwrap_or("READ_ONLY").parse()?;
        let Self { command, postgres, mysql, kill, .. } = self;
        let ways = usize::from(command.is_some())
            + usize::from(postgres.is_some())
            + usize::from(mysql.is_some())
            + usize::from(kill.is_some());
        let how = match (command, postgres, mysql, kill) {
            (Some(command), None, None, None) => {
                How::Command(program("command", Some(command))?.unwrap_or_default())
            }
            (None, Some(_), None, None) if mode != StopMode::ReadOnly => {
                return Err(WorkError::NotOfThisServer(mode));
            }
            (None, Some(conninfo), None, None) => How::Postgres(conninfo),
            (None, None, Some(url), None) => How::Mysql(url, mode.name().to_owned()),
            (None, None, None, Some(file)) => How::Kill(directory.join(file)),
            _ => return Err(WorkError::Ways(ways)),
        };
        needs_client(&how, CLIENTS)?;
        Ok(StopHook { how, worst })
    }
}

/// The clients that are built in, by the names of their features.
const CLIENTS: &[&str] = &[
    #[cfg(feature = "postgres")]
    "postgres",
    #[cfg(feature = "mysql")]
    "mysql",
];

fn needs_client(how: &How, clients: &[&str]) -> Result<(), WorkError> {
    let needed = match how {
        How::Postgres(_) => "postgres",
        How::Mysql(..) => "mysql",
        How::Command(_) | How::Kill(_) => return Ok(()),
    };
    if clients.contains(&needed) { Ok(()) } else { Err(WorkError::NotBuiltIn(needed)) }
}

fn program(
    key: &'static str,
    words: Option<Vec<String>>,
) -> Result<Option<Vec<String>>, WorkError> {
    match words {
        Some(words) if words.first().is_none_or(String::is_empty) => {
            Err(WorkError::EmptyCommand(key))
        }
        words => Ok(words),
    }
}

impl RawWork {
    /// Checks a section, of this node and this lease.
    //= SPEC GUARD-14
    pub(super) fn check(
        self,
        node: &Node,
        lease: &Lease,
        known: &[Work],
        directory: &Path,
    ) -> Result<Work, WorkError> {
        if node.role != Role::Host || !lease.hosts.contains(&node.id) {
            return Err(WorkError::NotAHost(self.node));
        }
        if known.iter().any(|work| work.node == node.id && work.lease == lease.index) {
            return Err(WorkError::Duplicate);
        }
        let (lead, follow) = (program("lead", self.lead)?, program("follow", self.follow)?);
        let stop: Vec<_> =
            self.stop.into_iter().map(|stop| stop.check(directory)).collect::<Result<_, _>>()?;
        let kill = self.kill.map(|file| directory.join(file));
        if stop.is_empty() && kill.is_none() {
            return Err(WorkError::NothingStops);
        }
        let (within, left) = (lease.timing.hook, lease.timing.stop_within());
        let hooks = stop.iter().fold(Duration::ZERO, |sum, hook| sum.saturating_add(hook.worst));
        if left.is_zero() || hooks > left {
            return Err(WorkError::TooLong { hooks, stop: within, left });
        }
        Ok(Work { node: node.id, lease: lease.index, lead, follow, stop, kill })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_of_stopping_whose_client_is_not_built_in_is_refused() {
        let sql = [How::Postgres("x".into()), How::Mysql("x".into(), "READ_ONLY".into())];
        for (how, name) in sql.iter().zip(["postgres", "mysql"]) {
            assert!(needs_client(how, &[name]).is_ok());
            let error = needs_client(how, &[]).unwrap_err().to_string();
            assert!(error.contains(&format!("--features {name}")), "{error}");
        }
        assert!(needs_client(&How::Kill("x".into()), &[]).is_ok());
    }
}
