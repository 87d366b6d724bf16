//! The stop hook of a MariaDB server: what each of its modes takes from whom.
//!
//! Needs the server's programs (Debian: mariadb-server). As root, they run as the user mysql.
//!
//! ```sh
//! cargo test --test mysql -- --ignored --nocapture --test-threads=1
//! ```

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

mod regions {
    #![allow(unreachable_pub, reason = "helpers")]

    pub mod ports;
}

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Opts};
use tenure::embed::mysql::{ModeError, make_writable, stop, stop_hook};
use tenure::embed::{Builder, KillSwitch, MemoryStore, StopMode};
use tenure::lease::record::NodeId;
use tenure::lease::timing::Timing;

/// The answers of the server to what is not allowed.
const ER_OPTION_PREVENTS_STATEMENT: u16 = 1290;

/// A server in a directory of its own, on loopback.
struct Server {
    directory: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(name: &str) -> Command {
    let places = ["/usr/sbin", "/usr/bin"].map(|place| PathBuf::from(place).join(name));
    let found = places.into_iter().find(|path| path.exists());
    let mut command = Command::new(found.expect("install Debian's mariadb-server"));
    command.arg("--no-defaults").stdin(Stdio::null());
    if rustix::process::getuid().is_root() {
        command.arg("--user=mysql");
    }
    command
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        if rustix::process::getuid().is_root() {
            let id = |option: &str| -> u32 {
                let output = Command::new("id").args([option, "mysql"]).output().unwrap();
                String::from_utf8_lossy(&output.stdout).trim().parse().expect("a user mysql")
            };
            chown(directory.path(), Some(id("-u")), Some(id("-g"))).unwrap();
        }
        let data = format!("--datadir={}", directory.path().join("data").display());
        let made = program("mariadb-install-db")
            .args([&data, "--skip-test-db", "--auth-root-authentication-method=normal"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = regions::ports::address().port();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = program("mariadbd")
            .args([&data, "--bind-address=127.0.0.1", &format!("--port={port}")])
            .arg(format!("--socket={}", directory.path().join("socket").display()))
            .arg(format!("--pid-file={}", directory.path().join("pid").display()))
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { directory, port, child };
        let begun = Instant::now();
        while server.connect("root").await.is_err() {
            let log = || std::fs::read_to_string(server.directory.path().join("log")).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not start:\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut root = server.connect("root").await.unwrap();
        for statement in [
            "CREATE DATABASE d",
            "CREATE TABLE d.t (n INT) ENGINE = InnoDB",
            // What an application has, and what it should not have.
            "CREATE USER app@localhost",
            "GRANT ALL ON d.* TO app@localhost",
            "CREATE USER admin@localhost",
            "GRANT ALL ON *.* TO admin@localhost",
        ] {
            root.query_drop(statement).await.unwrap();
        }
        server
    }

    fn url(&self, user: &str) -> String {
        format!("mysql://{user}@127.0.0.1:{}", self.port)
    }

    async fn connect(&self, user: &str) -> Result<Conn, Error> {
        Conn::new(Opts::from_url(&self.url(user)).unwrap()).await
    }

    async fn write(&self, user: &str, n: u32) -> Result<(), Error> {
        self.connect(user).await?.query_drop(format!("INSERT INTO d.t VALUES ({n})")).await
    }

    async fn rows(&self) -> Vec<u32> {
        let mut conn = self.connect("root").await.unwrap();
        conn.query("SELECT n FROM d.t ORDER BY n").await.unwrap()
    }
}

fn is_refused(done: Result<(), Error>) -> bool {
    matches!(done, Err(Error::Server(error)) if error.code == ER_OPTION_PREVENTS_STATEMENT)
}

#[tokio::test]
#[ignore = "needs the programs of a MariaDB server"]
async fn read_only_takes_the_writes_of_applications_and_ends_their_sessions() {
    let server = Server::start().await;
    let root = server.url("root");
    server.write("app", 1).await.unwrap();
    // A transaction that is open, one that waits for it, and an account that may override `read_only`.
    let mut open = server.connect("app").await.unwrap();
    open.query_drop("BEGIN").await.unwrap();
    open.query_drop("UPDATE d.t SET n = 2").await.unwrap();
    let mut waits = server.connect("app").await.unwrap();
    let waiting = tokio::spawn(async move { waits.query_drop("UPDATE d.t SET n = 3").await });
    let mut admin = server.connect("admin").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    let begun = Instant::now();
    stop(&root, StopMode::ReadOnly).await.unwrap();
    println!("READ_ONLY took {:?}", begun.elapsed());
    assert!(waiting.await.unwrap().is_err(), "its session has ended");
    assert!(open.query_drop("COMMIT").await.is_err(), "its session has ended");
    assert!(admin.query_drop("SELECT 1").await.is_err(), "its session has ended");
    assert!(is_refused(server.write("app", 4).await));
    assert_eq!(server.rows().await, [1], "what was open is gone");

    // What this server cannot do: MySQL's `super_read_only` would refuse this too.
    let mut conn = server.connect("root").await.unwrap();
    let has: Option<(String, String)> =
        conn.query_first("SHOW GLOBAL VARIABLES LIKE 'super_read_only'").await.unwrap();
    let done = server.write("admin", 5).await;
    match has {
        None => assert!(done.is_ok(), "MariaDB lets an administrator write: {done:?}"),
        Some(_) => assert!(is_refused(done)),
    }

    make_writable(&root).await.unwrap();
    server.write("app", 6).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the programs of a MariaDB server"]
async fn offline_mode_is_refused_by_a_server_that_has_none_and_nothing_is_changed() {
    let server = Server::start().await;
    let error = stop(&server.url("root"), StopMode::OfflineMode).await.unwrap_err();
    assert!(matches!(error, ModeError::NoOfflineMode), "{error}");
    assert!(error.to_string().contains("use READ_ONLY or ABORT_SERVER"));
    server.write("app", 1).await.unwrap();
}

/// The whole way: an elector whose hook ends the server when its term ends.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the programs of a MariaDB server"]
async fn abort_server_leaves_nobody_to_write_not_even_an_administrator() {
    let mut server = Server::start().await;
    let mut admin = server.connect("admin").await.unwrap();
    admin.query_drop("BEGIN").await.unwrap();
    admin.query_drop("INSERT INTO d.t VALUES (1)").await.unwrap();
    let worst = Duration::from_millis(4500);
    let timing = Timing { hook: Duration::from_millis(4900), ..Timing::DEFAULT };
    let mut elector = Builder::new(
        "t",
        NodeId(0),
        [NodeId(0), NodeId(1)],
        MemoryStore::new(),
        timing.validate().unwrap(),
    )
    .hook(stop_hook(server.url("root"), StopMode::AbortServer, worst))
    .kill_switch(KillSwitch::Call(Arc::new(|_| panic!("the hook was too slow"))))
    .start()
    .unwrap();
    let term = elector.acquire().await.unwrap();
    server.write("admin", 2).await.unwrap();
    let begun = Instant::now();
    term.release().await;
    println!("ABORT_SERVER took {:?}", begun.elapsed());
    assert!(admin.query_drop("COMMIT").await.is_err());
    let refused = server.write("admin", 3).await.unwrap_err();
    assert!(matches!(refused, Error::Io(_)), "{refused}");
    // Its process ends by itself, in order.
    let status = tokio::task::spawn_blocking(move || (server.child.wait().unwrap(), server));
    let (status, _server) =
        tokio::time::timeout(Duration::from_secs(20), status).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn modes_have_the_names_of_mysql() {
    for mode in [StopMode::ReadOnly, StopMode::OfflineMode, StopMode::AbortServer] {
        assert_eq!(mode.name().parse(), Ok(mode));
    }
    let error = "read_only".parse::<StopMode>().unwrap_err().to_string();
    assert!(error.contains("use READ_ONLY"), "{error}");
}
