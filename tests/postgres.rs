//! A primary and a standby of PostgreSQL, each with `tenure node` beside it: whatever is done to the primary's
//! node, a prober that writes to both servers every 5 ms never finds two that take its writes, no row that was
//! acknowledged is lost, and the old primary comes back as a standby.
//!
//! Needs the server's programs (Debian: postgresql). As root, they run as the user postgres.
//!
//! ```sh
//! cargo test --test postgres -- --ignored --nocapture --test-threads=1
//! ```

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]

mod processes;

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use processes::{Cluster, ports, until};
use rustix::process::Signal;
use tenure::clock::BootInstant;
use tokio_postgres::NoTls;

/// Becomes the primary: starts the server if it does not run, and promotes it if it is a standby. A server that
/// has not yet taken over what another primary wrote does not lead.
const LEAD: &str = r#"
me=$1 port=$2
[ -e "$me.behind" ] && exit 1
pg_ctl -D $me status >/dev/null 2>&1 || pg_ctl -D $me -o "-p $port" -l $me.log -w start >/dev/null || exit 1
if [ -e $me/standby.signal ]; then pg_ctl -D $me -w promote >/dev/null || exit 1; fi
psql -q -h 127.0.0.1 -p $port -U postgres \
  -c 'ALTER SYSTEM SET default_transaction_read_only = off' -c 'SELECT pg_reload_conf()' >/dev/null
"#;

/// Follows the primary as its standby: what this server wrote and the other has not is taken back.
const FOLLOW: &str = r#"
set -e
me=$1 port=$2
[ "$TENURE_HOLDER" = a ] && other=$3 || other=$4
source="host=127.0.0.1 port=$other user=postgres dbname=postgres"
touch $me.behind
psql -q "$source" -c CHECKPOINT
pg_ctl -D $me -m immediate -w stop >/dev/null 2>&1 || true
pg_rewind -D $me --source-server="$source" -R >>$me.log 2>&1 || {
  rm -rf $me.new
  pg_basebackup -d "$source" -D $me.new -R -c fast >>$me.log 2>&1
  rm -rf $me
  mv $me.new $me
  echo rebuilt >>$me.log
}
pg_ctl -D $me -o "-p $port" -l $me.log -w start >/dev/null
rm $me.behind
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

/// How the primary is ended: one of the hooks that a cluster file can have.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Command,
    Sql,
    Kill,
}

impl Stop {
    fn section(self, me: &str, port: u16) -> String {
        let how = match self {
            Self::Command => {
                format!(
                    "command = [\"pg_ctl\", \"-D\", \"{me}\", \"-m\", \"immediate\", \"-w\", \"stop\"]"
                )
            }
            Self::Sql => format!("postgres = \"host=127.0.0.1 port={port} user=postgres\""),
            Self::Kill => format!("kill = \"{me}/postmaster.pid\""),
        };
        format!("[[work.stop]]\n{how}\nworst = \"800ms\"\n")
    }
}

struct Pair {
    cluster: Cluster,
    ports: [u16; 2],
    /// Where each host is among the cluster's children.
    hosts: [usize; 2],
}

const NAMES: [&str; 2] = ["a", "b"];

impl Drop for Pair {
    fn drop(&mut self) {
        // The nodes first, or they would have the servers started again.
        for host in self.hosts {
            if let Some(child) = self.cluster.children.get_mut(host) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        for data in NAMES {
            let _ = self.tool("pg_ctl").args(["-D", data, "-m", "immediate", "stop"]).output();
        }
    }
}

impl Pair {
    fn start(stop: Stop) -> Self {
        use std::io::Write as _;
        let pair = alone();
        // A standby's answer is part of every acknowledgement from now on.
        let table = "CREATE TABLE probe (n bigint, at timestamptz DEFAULT now()); CREATE TABLE acked (n bigint)";
        let port = pair.ports[0].to_string();
        let to_a = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        pair.run("psql", &[&to_a[..], &["-c", table]].concat());
        pair.run("pg_basebackup", &[&to_a[..], &["-D", "b", "-R", "-c", "fast"]].concat());
        pair.run("pg_ctl", &["-D", "a", "-m", "fast", "-w", "stop"]);
        for name in NAMES {
            let path = pair.cluster.path(name).join("postgresql.conf");
            let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
            writeln!(file, "synchronous_standby_names = '*'").unwrap();
        }
        let mut pair = pair;
        pair.ports[1] = ports::address().port();
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(pair.cluster.path("cluster.toml"))
            .unwrap();
        for (name, port) in NAMES.into_iter().zip(pair.ports) {
            let [a, b] = pair.ports;
            writeln!(
                file,
                "[[work]]\nnode = \"{name}\"\nlease = \"job\"\n\
                 lead = [\"sh\", \"lead.sh\", \"{name}\", \"{port}\"]\n\
                 follow = [\"sh\", \"follow.sh\", \"{name}\", \"{port}\", \"{a}\", \"{b}\"]\n\
                 kill = \"{name}/postmaster.pid\"\n{}",
                stop.section(name, port),
            )
            .unwrap();
        }
        std::fs::write(pair.cluster.path("lead.sh"), LEAD).unwrap();
        std::fs::write(pair.cluster.path("follow.sh"), FOLLOW).unwrap();
        pair.node(0);
        pair.await_server(0);
        pair.node(1);
        pair.await_server(1);
        pair
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

    /// Starts the node beside a server.
    fn node(&mut self, server: usize) {
        let program = self.cluster.path("tenure");
        if !program.exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_tenure"), &program).unwrap();
        }
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", programs().display());
        command
            .args(["node", "--config", "cluster.toml", "--id", NAMES[server], "--faults"])
            .env("PATH", path)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        self.as_user(&mut command);
        self.cluster.children.push(command.spawn().unwrap());
        self.hosts[server] = self.cluster.children.len() - 1;
    }

    fn signal(&self, server: usize, signal: Signal) {
        self.cluster.signal(self.hosts[server], signal);
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

    /// What a server answers to this query; none if it does not.
    fn ask(&self, server: usize, query: &str) -> Option<Vec<i64>> {
        let port = self.ports[server].to_string();
        let mut psql = self.tool("psql");
        psql.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-At", "-c", query]);
        let output = psql.stderr(Stdio::null()).output().unwrap();
        let rows = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| rows.lines().map(|row| row.parse().unwrap()).collect())
    }
}

/// A write that a server has taken: when it was begun, and when it was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Taken {
    n: i64,
    begun: BootInstant,
    done: BootInstant,
}

/// What was taken, by server.
type Log = [Arc<Mutex<Vec<Taken>>>; 2];

/// Writes to one server every 5 ms, and notes what it takes.
///
/// Who takes writes is asked without waiting for the standby (`local`), so that a server counts as writable
/// as soon as it is; what may not be lost is acknowledged by both.
async fn probe(
    port: u16,
    table: &str,
    commit: &str,
    log: Arc<Mutex<Vec<Taken>>>,
    is_over: Arc<AtomicBool>,
) {
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres connect_timeout=1");
    let insert = format!("INSERT INTO {table} (n) VALUES ($1)");
    let pause = || tokio::time::sleep(Duration::from_millis(5));
    let mut n = i64::from(port) * 1_000_000;
    while !is_over.load(Ordering::Relaxed) {
        pause().await;
        let Ok((client, connection)) = tokio_postgres::connect(&conninfo, NoTls).await else {
            continue;
        };
        tokio::spawn(connection);
        let set = format!("SET synchronous_commit = {commit}");
        if client.batch_execute(&set).await.is_err() {
            continue;
        }
        while !is_over.load(Ordering::Relaxed) && !client.is_closed() {
            n += 1;
            let begun = BootInstant::now();
            // A standby refuses it; a server that is being killed breaks the connection.
            if client.execute(&insert, &[&n]).await.is_ok() {
                log.lock().unwrap().push(Taken { n, begun, done: BootInstant::now() });
            }
            pause().await;
        }
    }
}

/// Starts a pair, does something to the primary's host, waits until the standby has taken over, undoes what was
/// done, and waits until the old primary follows the new one.
fn switch(name: &str, stop: Stop, fault: impl Fn(&Pair), heal: impl Fn(&mut Pair)) {
    let mut pair = Pair::start(stop);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let (taken, acked) = (Log::default(), Log::default());
    let mut probers = Vec::new();
    for (server, port) in pair.ports.into_iter().enumerate() {
        for (table, commit, log) in [("probe", "local", &taken), ("acked", "on", &acked)] {
            let (log, is_over) = (Arc::clone(&log[server]), Arc::clone(&is_over));
            probers.push(runtime.spawn(probe(port, table, commit, log, is_over)));
        }
    }
    let count = |log: &Log, server: usize| log[server].lock().unwrap().len();
    until("the primary takes writes", || count(&taken, 0) > 50 && count(&acked, 0) > 50);
    assert_eq!(count(&taken, 1), 0, "the standby takes none");
    fault(&pair);
    let at = BootInstant::now();
    until("the standby has taken over", || count(&taken, 1) > 50);
    let before_heal = count(&taken, 0);
    heal(&mut pair);
    // Every acknowledgement of the new primary needs the old one as its standby.
    until("the old primary follows", || count(&acked, 1) > 50);
    let rejoined = BootInstant::now();
    std::thread::sleep(Duration::from_millis(500));
    is_over.store(true, Ordering::Relaxed);
    for prober in probers {
        runtime.block_on(prober).unwrap();
    }
    let of = |log: &Log, server: usize| log[server].lock().unwrap().clone();
    let (old, new) = (of(&taken, 0), of(&taken, 1));
    let last = old.iter().max_by_key(|taken| taken.done).unwrap();
    let first = new.iter().min_by_key(|taken| taken.begun).unwrap();
    assert!(last.done < first.begun, "two took writes: {last:?} of the old, {first:?} of the new");
    assert_eq!(old.len(), before_heal, "the old primary has taken writes again");
    assert_eq!(pair.ask(0, "SELECT pg_is_in_recovery()::int"), Some(vec![1]), "it is a standby");
    // Nothing that was acknowledged is lost, on either server.
    let acked: Vec<_> =
        of(&acked, 0).into_iter().chain(of(&acked, 1)).map(|acked| acked.n).collect();
    until("both servers have all that was acknowledged", || {
        let missing = |server| {
            let rows: std::collections::BTreeSet<_> =
                pair.ask(server, "SELECT n FROM acked").unwrap_or_default().into_iter().collect();
            acked.iter().filter(|n| !rows.contains(n)).count()
        };
        assert_eq!(missing(1), 0, "an acknowledged row is lost");
        missing(0) == 0
    });
    let since = |to: BootInstant| to.saturating_duration_since(at).as_secs_f64();
    println!(
        "{name}, stopped by {stop:?}: {} and {} writes, {} acknowledged by both servers, none lost; after the fault \
         the last of the old at {:.2} s, the first of the new at {:.2} s, the old one follows at {:.2} s",
        old.len(),
        new.len(),
        acked.len(),
        since(last.done),
        since(first.begun),
        since(rejoined),
    );
}

//= SPEC GUARD-19 test
#[test]
#[ignore = "needs the programs of a PostgreSQL server"]
fn the_primarys_host_is_killed() {
    switch(
        "killed",
        Stop::Command,
        |pair| pair.signal(0, Signal::KILL),
        |pair| {
            let _ = pair.cluster.children[pair.hosts[0]].wait();
            pair.node(0);
        },
    );
}

//= SPEC GUARD-19 test
#[test]
#[ignore = "needs the programs of a PostgreSQL server"]
fn the_primarys_host_is_stopped_and_goes_on() {
    switch(
        "stopped",
        Stop::Sql,
        |pair| pair.signal(0, Signal::STOP),
        |pair| pair.signal(0, Signal::CONT),
    );
}

#[test]
#[ignore = "needs the programs of a PostgreSQL server"]
fn the_primarys_host_is_cut_off_and_comes_back() {
    switch(
        "cut off",
        Stop::Kill,
        |pair| pair.cluster.control("a", r#"{"op":"cut","nodes":["b","s"]}"#),
        |pair| pair.cluster.control("a", r#"{"op":"heal"}"#),
    );
}

/// One server that takes writes, outside of any lease.
fn alone() -> Pair {
    use std::io::Write as _;
    // On a disk: a server needs more room than there may be in memory.
    let cluster = Cluster::inside(&std::env::temp_dir());
    let port = ports::address().port();
    let pair = Pair { cluster, ports: [port, 0], hosts: [usize::MAX; 2] };
    let directory = pair.cluster.directory.path();
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
    if let Some((user, group)) = user() {
        for place in [directory, pair.cluster.storage.path()] {
            chown(place, Some(user), Some(group)).unwrap();
        }
    }
    // With checksums a server can be rewound.
    pair.run("initdb", &["-D", "a", "-A", "trust", "-U", "postgres", "-k"]);
    let mut file =
        std::fs::OpenOptions::new().append(true).open(directory.join("a/postgresql.conf")).unwrap();
    writeln!(file, "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''").unwrap();
    writeln!(file, "wal_keep_size = 64").unwrap();
    pair.run("pg_ctl", &["-D", "a", "-o", &format!("-p {port}"), "-l", "a.log", "-w", "start"]);
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

/// A process that is stopped, until this is dropped.
struct Stopped(rustix::process::Pid);

impl Stopped {
    fn new(pid: i32) -> Self {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, Signal::CONT);
    }
}

//= SPEC GUARD-23 test
#[tokio::test]
#[ignore = "needs the programs of a PostgreSQL server"]
async fn the_hook_does_not_finish_while_a_session_from_before_is_left() {
    use tenure::embed::postgres::make_read_only;
    let pair = alone();
    let conninfo = format!("host=127.0.0.1 port={} user=postgres", pair.ports[0]);
    let connect = async || {
        let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let before = connect().await;
    let pid: i32 = before.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let is_there = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        connect().await.query_one(sql, &[&pid]).await.unwrap().get::<_, i64>(0) == 1
    };
    // It stands for one that is in the part of a commit that nothing interrupts.
    let stopped = Stopped::new(pid);
    let stopping = tokio::time::timeout(Duration::from_secs(1), make_read_only(&conninfo)).await;
    assert!(is_there().await, "it cannot end");
    assert!(stopping.is_err(), "it has finished beside a session: {stopping:?}");
    drop(stopped);
    let stopping = tokio::time::timeout(Duration::from_secs(10), make_read_only(&conninfo)).await;
    stopping.expect("nothing holds it up").unwrap();
    assert!(!is_there().await);
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

/// Needs the example to be built: `cargo build --example axum_service`.
#[test]
#[ignore = "needs the programs of a PostgreSQL server"]
fn the_example_service_writes_under_its_epoch_and_the_row_refuses_an_older_one() {
    let mut pair = alone();
    let this = std::env::current_exe().unwrap();
    let example = this.parent().unwrap().parent().unwrap().join("examples/axum_service");
    let address = ports::address().to_string();
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
