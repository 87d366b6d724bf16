//! The stop hook for a PostgreSQL server: read-only, and everybody out.
//!
//! It is *soft*: a session that sets `default_transaction_read_only` back may write, and a superuser always may. What
//! holds against those is to stop the server (`tenure lease exec` does), and a table that refuses an epoch
//! below the highest it has seen.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::Hook;

/// Why the server's mode was not changed.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL: {0}")]
pub struct ModeError(#[from] tokio_postgres::Error);

async fn connect(conninfo: &str) -> Result<Client, ModeError> {
    let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await?;
    // It ends with the client; what goes wrong shows in the client's answers.
    tokio::spawn(connection);
    Ok(client)
}

/// Lets new transactions write again: to be called when a term begins.
///
/// `conninfo` is a connection string of libpq for a superuser.
///
/// # Errors
///
/// [`ModeError`]; the server may be in either mode then.
pub async fn make_writable(conninfo: &str) -> Result<(), ModeError> {
    let client = connect(conninfo).await?;
    client.batch_execute("ALTER SYSTEM SET default_transaction_read_only = off").await?;
    client.batch_execute("SELECT pg_reload_conf()").await?;
    Ok(())
}

/// How often it looks whether what it waits for has come.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Makes new transactions read-only, then ends every other session, with what it has not committed, and waits until
/// they are gone: a backend that was told to end may still be committing.
///
/// It waits for as long as that takes: bound it, as [`read_only_hook`] does. A role or database that has a
/// `default_transaction_read_only` of its own must not be that of `conninfo`.
///
/// # Errors
///
/// [`ModeError`]; the server may be in either mode then.
//= SPEC GUARD-23
pub async fn make_read_only(conninfo: &str) -> Result<(), ModeError> {
    let client = connect(conninfo).await?;
    client.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").await?;
    client.batch_execute("SELECT pg_reload_conf()").await?;
    // The server reads its configuration some time after it was told: a session that begins tells when it has.
    let session = loop {
        let session = connect(conninfo).await?;
        let shown = session.query_one("SHOW default_transaction_read_only", &[]).await?;
        if shown.get::<_, &str>(0) == "on" {
            break session;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    // What is there now may have begun with the old default; what comes from here on has the new one.
    loop {
        let found = session
            .query_one(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
                &[],
            )
            .await?;
        if found.get::<_, i64>(0) == 0 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A stop hook that makes this server read-only. It needs at most `worst`; a server that does not answer
/// within that has not stopped, and the kill switch has to do it.
pub fn read_only_hook(conninfo: impl Into<String>, worst: Duration) -> Hook {
    let conninfo = conninfo.into();
    Hook::new("postgres-read-only", worst, move |_| {
        let conninfo = conninfo.clone();
        async move {
            tokio::time::timeout(worst, make_read_only(&conninfo))
                .await
                .map_err(|_| format!("no answer within {worst:?}"))?
                .map_err(|error| error.to_string())
        }
    })
}
