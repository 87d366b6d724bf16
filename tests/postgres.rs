//! A primary and a standby of PostgreSQL, each with a host of a lease beside it: whatever is done to the
//! primary's host, a prober that writes to both every 5 ms never finds two that take its writes.
//!
//! Needs the server's programs (Debian: postgresql). As root, they run as the user postgres.
//!
//! ```sh
//! cargo test --features postgres --test postgres -- --ignored --nocapture --test-threads=1
//! ```

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

mod processes;

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use processes::{Cluster, until};
use rustix::process::Signal;
use tenure::clock::BootInstant;
use tokio_postgres::NoTls;

/// Becomes the primary: starts the server under the warden, and promotes it if it is a standby. Told to end,
/// it stops the server at once, without waiting for its clients.
const LEAD: &str = r#"
data=$1
pg_ctl -D "$data" -m immediate -w stop >/dev/null 2>&1
trap 'kill -QUIT $server 2>/dev/null; wait $server; exit 0' TERM
postgres -D "$data" >>"$data.log" 2>&1 &
server=$!
if [ -f "$data/standby.signal" ]; then
  until pg_ctl -D "$data" -w promote >/dev/null 2>&1; do
    kill -0 $server 2>/dev/null || exit 1
    sleep 0.05
  done
fi
wait $server
"#;

/// Where the server's programs are.
fn programs() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found =
        found.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    found.max().expect("the programs of a PostgreSQL server: install Debian's postgresql")
}

/// The user that the servers run as, if this is root, whom they refuse.
fn user() -> Option<(u32, u32)> {
    let id = |option: &str| -> u32 {
        let output = Command::new("id").args([option, "postgres"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("a user postgres")
    };
    rustix::process::getuid().is_root().then(|| (id("-u"), id("-g")))
}

struct Pair {
    cluster: Cluster,
    ports: [u16; 2],
    /// Where each host is among the cluster's children.
    hosts: [usize; 2],
}

impl Drop for Pair {
    fn drop(&mut self) {
        for data in ["a", "b"] {
            let _ = self.tool("pg_ctl").args(["-D", data, "-m", "immediate", "stop"]).output();
        }
    }
}

impl Pair {
    fn start() -> Self {
        let cluster = Cluster::new();
        let free =
            || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut pair = Self { cluster, ports: [free(), free()], hosts: [0, 0] };
        let directory = pair.cluster.directory.path().to_owned();
        let program = directory.join("tenure");
        std::fs::copy(env!("CARGO_BIN_EXE_tenure"), &program).unwrap();
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
        if let Some((user, group)) = user() {
            chown(&directory, Some(user), Some(group)).unwrap();
        }
        pair.run("initdb", &["-D", "a", "-A", "trust", "-U", "postgres", "--no-sync"]);
        pair.configure("a", pair.ports[0]);
        pair.run("pg_ctl", &["-D", "a", "-l", "a.log", "-w", "start"]);
        let port = pair.ports[0].to_string();
        let to_a = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        let table = "CREATE TABLE probe (n bigint, at timestamptz DEFAULT now())";
        pair.run("psql", &[&to_a[..], &["-c", table]].concat());
        pair.run("pg_basebackup", &[&to_a[..], &["-D", "b", "-R", "-c", "fast"]].concat());
        pair.configure("b", pair.ports[1]);
        pair.run("pg_ctl", &["-D", "a", "-m", "fast", "-w", "stop"]);
        pair.hosts[0] = pair.host(&program, "a");
        pair.await_server(0);
        // B follows, outside of any lease, until its host holds one.
        pair.run("pg_ctl", &["-D", "b", "-l", "b.log", "-w", "start"]);
        pair.hosts[1] = pair.host(&program, "b");
        pair
    }

    fn configure(&self, data: &str, port: u16) {
        use std::io::Write as _;
        let path = self.cluster.path(data).join("postgresql.conf");
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        writeln!(file, "port = {port}\nlisten_addresses = '127.0.0.1'").unwrap();
        // What is shown is who takes writes, and not whether the disk keeps them.
        writeln!(file, "unix_socket_directories = ''\nfsync = off\nwal_keep_size = 64").unwrap();
    }

    fn as_user(&self, command: &mut Command) {
        command.current_dir(self.cluster.directory.path());
        if let Some((user, group)) = user() {
            command.uid(user).gid(group);
        }
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        self.as_user(command.stdin(Stdio::null()));
        command
    }

    fn run(&self, program: &str, args: &[&str]) {
        // A server that goes on running would keep a pipe open.
        let said = self.cluster.path("tool.log");
        let said = || std::fs::OpenOptions::new().append(true).create(true).open(&said).unwrap();
        let mut command = self.tool(program);
        let status = command.args(args).stdout(said()).stderr(said()).status().unwrap();
        let log = std::fs::read_to_string(self.cluster.path("tool.log")).unwrap_or_default();
        assert!(status.success(), "{program} {args:?}:\n{log}");
    }

    fn host(&mut self, program: &Path, id: &str) -> usize {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", programs().display());
        command
            .args(["lease", "exec", "--config", "cluster.toml", "--id", id, "--faults", "--"])
            .args(["sh", "-c", LEAD, "lead", id])
            .env("PATH", path)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null());
        self.as_user(&mut command);
        self.cluster.children.push(command.spawn().unwrap());
        self.cluster.children.len() - 1
    }

    fn await_server(&self, server: usize) {
        let port = self.ports[server].to_string();
        until("the server answers", || {
            let mut ready = self.tool("pg_isready");
            let status =
                ready.args(["-h", "127.0.0.1", "-p", &port]).stdout(Stdio::null()).status();
            status.unwrap().success()
        });
    }
}

/// A write that a server has taken: when it was begun, and when it was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Taken {
    begun: BootInstant,
    done: BootInstant,
}

/// Writes to one server every 5 ms, and notes what it takes.
async fn probe(port: u16, taken: Arc<Mutex<Vec<Taken>>>, is_over: Arc<AtomicBool>) {
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres connect_timeout=1");
    let pause = || tokio::time::sleep(Duration::from_millis(5));
    let mut n = 0_i64;
    while !is_over.load(Ordering::Relaxed) {
        pause().await;
        let Ok((client, connection)) = tokio_postgres::connect(&conninfo, NoTls).await else {
            continue;
        };
        tokio::spawn(connection);
        while !is_over.load(Ordering::Relaxed) && !client.is_closed() {
            n += 1;
            let begun = BootInstant::now();
            // A standby refuses it; a server that is being killed breaks the connection.
            if client.execute("INSERT INTO probe (n) VALUES ($1)", &[&n]).await.is_ok() {
                taken.lock().unwrap().push(Taken { begun, done: BootInstant::now() });
            }
            pause().await;
        }
    }
}

/// Starts a pair, does something to the primary's host, and waits until the standby has taken over.
fn switch(name: &str, fault: impl Fn(&Pair), heal: impl Fn(&Pair)) {
    let pair = Pair::start();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let taken: [Arc<Mutex<Vec<Taken>>>; 2] = Default::default();
    let probers: Vec<_> = (0..2)
        .map(|server| {
            let (taken, is_over) = (Arc::clone(&taken[server]), Arc::clone(&is_over));
            runtime.spawn(probe(pair.ports[server], taken, is_over))
        })
        .collect();
    let count = |server: usize| taken[server].lock().unwrap().len();
    until("the primary takes writes", || count(0) > 50);
    assert_eq!(count(1), 0, "the standby takes none");
    fault(&pair);
    let at = BootInstant::now();
    until("the standby has taken over", || count(1) > 50);
    heal(&pair);
    std::thread::sleep(Duration::from_millis(1500));
    is_over.store(true, Ordering::Relaxed);
    for prober in probers {
        runtime.block_on(prober).unwrap();
    }
    let (old, new) = (taken[0].lock().unwrap().clone(), taken[1].lock().unwrap().clone());
    let last = old.iter().max_by_key(|taken| taken.done).unwrap();
    let first = new.iter().min_by_key(|taken| taken.begun).unwrap();
    assert!(last.done < first.begun, "two took writes: {last:?} of the old, {first:?} of the new");
    let since = |to: BootInstant| to.saturating_duration_since(at).as_secs_f64();
    println!(
        "{name}: {} and {} writes; after the fault the last of the old at {:.2} s, the first of the new at {:.2} s",
        old.len(),
        new.len(),
        since(last.done),
        since(first.begun),
    );
}

#[test]
#[ignore = "needs the programs of a PostgreSQL server"]
fn the_primarys_host_is_killed() {
    switch("killed", |pair| pair.cluster.signal(pair.hosts[0], Signal::KILL), |_| ());
}

#[test]
#[ignore = "needs the programs of a PostgreSQL server"]
fn the_primarys_host_is_stopped_and_goes_on() {
    let signal = |signal| move |pair: &Pair| pair.cluster.signal(pair.hosts[0], signal);
    switch("stopped", signal(Signal::STOP), signal(Signal::CONT));
}

#[test]
#[ignore = "needs the programs of a PostgreSQL server"]
fn the_primarys_host_is_cut_off_and_comes_back() {
    switch(
        "cut off",
        |pair| pair.cluster.control("a", r#"{"op":"cut","nodes":["b","s"]}"#),
        |pair| pair.cluster.control("a", r#"{"op":"heal"}"#),
    );
}

/// One server that takes writes, outside of any lease.
fn alone() -> Pair {
    let cluster = Cluster::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let pair = Pair { cluster, ports: [port, 0], hosts: [0, 0] };
    let directory = pair.cluster.directory.path();
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
    if let Some((user, group)) = user() {
        chown(directory, Some(user), Some(group)).unwrap();
    }
    pair.run("initdb", &["-D", "a", "-A", "trust", "-U", "postgres", "--no-sync"]);
    pair.configure("a", port);
    pair.run("pg_ctl", &["-D", "a", "-l", "a.log", "-w", "start"]);
    pair
}

#[tokio::test]
#[ignore = "needs the programs of a PostgreSQL server"]
async fn the_hook_makes_a_server_read_only_and_ends_its_sessions() {
    use tenure::embed::postgres::{make_read_only, make_writable};
    let pair = alone();
    let conninfo = format!("host=127.0.0.1 port={} user=postgres", pair.ports[0]);
    let connect = async || {
        let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let before = connect().await;
    before.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    before.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    make_read_only(&conninfo).await.unwrap();
    assert!(before.batch_execute("COMMIT").await.is_err(), "its session has ended");
    let after = connect().await;
    let refused = after.batch_execute("INSERT INTO t VALUES (2)").await.unwrap_err();
    let code = refused.as_db_error().unwrap().code();
    assert_eq!(*code, tokio_postgres::error::SqlState::READ_ONLY_SQL_TRANSACTION);
    assert_eq!(
        after.query("SELECT n FROM t", &[]).await.unwrap().len(),
        0,
        "what was open is gone"
    );
    make_writable(&conninfo).await.unwrap();
    // A session learns of the new configuration some time after it was told.
    let mut is_writable = false;
    for _ in 0..200 {
        is_writable = connect().await.batch_execute("INSERT INTO t VALUES (3)").await.is_ok();
        if is_writable {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(is_writable);
}

/// Status and body.
fn http(method: &str, address: &str, path: &str) -> Option<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let length = "Content-Length: 0\r\nConnection: close";
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: test\r\n{length}\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.trim().to_owned()))
}

/// Needs the example to be built: `cargo build --features postgres --example axum_service`.
#[test]
#[ignore = "needs the programs of a PostgreSQL server"]
fn the_example_service_writes_under_its_epoch_and_the_row_refuses_an_older_one() {
    let mut pair = alone();
    let this = std::env::current_exe().unwrap();
    let example = this.parent().unwrap().parent().unwrap().join("examples/axum_service");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = free.to_string();
    let conninfo = format!("host=127.0.0.1 port={} user=postgres", pair.ports[0]);
    let mut command = Command::new(example);
    command.arg(&address).env("DATABASE_URL", &conninfo).stdin(Stdio::null());
    pair.cluster.children.push(command.spawn().expect("the example is built"));
    until("it leads", || http("GET", &address, "/leader").is_some_and(|(status, _)| status == 200));
    assert_eq!(http("POST", &address, "/add/5"), Some((200, "5".to_owned())));
    assert_eq!(http("POST", &address, "/add/2"), Some((200, "7".to_owned())));
    // The next primary has written under its epoch: this one is too late, whatever it believes.
    let port = pair.ports[0].to_string();
    let replace = "UPDATE counter SET epoch = 9";
    pair.run("psql", &["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", replace]);
    let (status, text) = http("POST", &address, "/add/1").unwrap();
    assert_eq!((status, text.as_str()), (409, "epoch 1 has been replaced"));
    let (_, metrics) = http("GET", &address, "/metrics").unwrap();
    for name in ["lease_is_leader", "lease_epoch", "lease_valid_seconds", "renew_seconds"] {
        assert!(metrics.contains(name), "{metrics}");
    }
}
