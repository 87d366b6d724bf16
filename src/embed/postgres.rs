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

/// Makes new transactions read-only, then ends every other session, with what it has not committed.
///
/// # Errors
///
/// [`ModeError`]; the server may be in either mode then.
pub async fn make_read_only(conninfo: &str) -> Result<(), ModeError> {
    let client = connect(conninfo).await?;
    client.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").await?;
    client.batch_execute("SELECT pg_reload_conf()").await?;
    // A session that begins from here on has the new default; one from before is ended, and then again those
    // that began while the server was reading its configuration.
    for _ in 0..2 {
        client
            .batch_execute(
                "SELECT pg_terminate_backend(pid, 100) FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            )
            .await?;
    }
    Ok(())
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
