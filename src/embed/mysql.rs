//! The stop hook for a MariaDB or MySQL server: its modes have MySQL's names.
//!
//! | mode | does | who can write afterwards |
//! |---|---|---|
//! | [`ReadOnly`](StopMode::ReadOnly) | `super_read_only`, or `read_only` where there is none; ends every other session | nobody; without `super_read_only` (MariaDB), accounts with SUPER or READ ONLY ADMIN |
//! | [`OfflineMode`](StopMode::OfflineMode) | the same, and `offline_mode`; MySQL alone has it | the same, and others cannot connect either |
//! | [`AbortServer`](StopMode::AbortServer) | `read_only`, ends every other session, shuts the server down | nobody |
//!
//! Where accounts of applications may override `read_only`, only the last one, and a table that refuses an
//! epoch below the highest it has seen, hold against them.
//!
//! A server is told which with a URL, `mysql://root:password@127.0.0.1:3306`, of an account that may set global
//! variables, see and end all sessions, and shut the server down.

use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Opts, OptsBuilder};

use super::{Hook, StopMode};

/// The server's answer to `KILL` if that session has ended by itself.
const ER_NO_SUCH_THREAD: u16 = 1094;

/// How long it waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why the server's mode was not changed; it may be in either mode then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModeError {
    /// The server, or the way to it.
    #[error("MySQL: {0}")]
    Server(#[from] Error),
    /// The server cannot do this.
    #[error(
        "this server has no offline_mode, which is MySQL's alone: use READ_ONLY or ABORT_SERVER"
    )]
    NoOfflineMode,
}

async fn connect(url: &str) -> Result<Conn, Error> {
    // One session, to this address and no other: the server must not be another one half-way.
    let opts = OptsBuilder::from_opts(Opts::from_url(url)?).prefer_socket(false);
    Conn::new(opts).await
}

/// Whether the server has this global variable.
async fn has(conn: &mut Conn, variable: &str) -> Result<bool, Error> {
    let found: Option<String> = conn
        .query_first(format!(
            "SELECT variable_name FROM information_schema.global_variables \
             WHERE variable_name = '{variable}'"
        ))
        .await
        // MySQL has that table elsewhere.
        .or(Ok::<_, Error>(None))?;
    if found.is_some() {
        return Ok(true);
    }
    let shown: Option<(String, String)> =
        conn.query_first(format!("SHOW GLOBAL VARIABLES LIKE '{variable}'")).await?;
    Ok(shown.is_some())
}

/// Ends the sessions of all clients but this one, and waits until they are gone: a statement that is ending
/// may still commit. Those that send the log to other servers go on.
//= SPEC GUARD-23
async fn end_sessions(conn: &mut Conn) -> Result<(), Error> {
    loop {
        let sessions: Vec<u64> = conn
            .query(
                "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() \
                 AND user NOT IN ('system user', 'event_scheduler') \
                 AND command NOT IN ('Daemon', 'Binlog Dump', 'Binlog Dump GTID')",
            )
            .await?;
        if sessions.is_empty() {
            return Ok(());
        }
        for session in sessions {
            match conn.query_drop(format!("KILL CONNECTION {session}")).await {
                Err(Error::Server(error)) if error.code == ER_NO_SUCH_THREAD => {}
                done => done?,
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Takes writes from everybody, and ends every other session, with what it has not committed.
async fn make_read_only(conn: &mut Conn) -> Result<(), Error> {
    // First, because the server grants `read_only` only when no other transaction is writing.
    end_sessions(conn).await?;
    if has(conn, "super_read_only").await? {
        conn.query_drop("SET GLOBAL super_read_only = ON").await?;
    } else {
        conn.query_drop("SET GLOBAL read_only = ON").await?;
    }
    // Those that began meanwhile.
    end_sessions(conn).await
}

/// Lets clients write again: to be called when a term begins.
///
/// # Errors
///
/// [`ModeError`]; the server may be in either mode then.
pub async fn make_writable(url: &str) -> Result<(), ModeError> {
    let mut conn = connect(url).await?;
    if has(&mut conn, "offline_mode").await? {
        conn.query_drop("SET GLOBAL offline_mode = OFF").await?;
    }
    // This ends `super_read_only` too.
    conn.query_drop("SET GLOBAL read_only = OFF").await?;
    conn.disconnect().await?;
    Ok(())
}

/// Puts the server in this mode; in which every other session has ended.
///
/// # Errors
///
/// [`ModeError`]; the server may be in either mode then.
pub async fn stop(url: &str, mode: StopMode) -> Result<(), ModeError> {
    let mut conn = connect(url).await?;
    if mode == StopMode::OfflineMode && !has(&mut conn, "offline_mode").await? {
        return Err(ModeError::NoOfflineMode);
    }
    make_read_only(&mut conn).await?;
    match mode {
        StopMode::ReadOnly => conn.disconnect().await?,
        StopMode::OfflineMode => {
            conn.query_drop("SET GLOBAL offline_mode = ON").await?;
            conn.disconnect().await?;
        }
        StopMode::AbortServer => {
            conn.query_drop("SHUTDOWN").await?;
            // It closes its door before it ends its sessions, and this one is among them.
            while conn.ping().await.is_ok() || connect(url).await.is_ok() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
    Ok(())
}

/// A stop hook that puts this server in this mode. It needs at most `worst`; a server that does not answer
/// within that has not stopped, and the kill switch has to do it.
pub fn stop_hook(url: impl Into<String>, mode: StopMode, worst: Duration) -> Hook {
    let url = url.into();
    Hook::new(format!("mysql-{mode}"), worst, move |_| {
        let url = url.clone();
        async move {
            tokio::time::timeout(worst, stop(&url, mode))
                .await
                .map_err(|_| format!("no answer within {worst:?}"))?
                .map_err(|error| error.to_string())
        }
    })
}
