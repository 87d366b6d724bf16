//! Peerings beside queues on PostgreSQL: operations per second, end to end and durable, with the same
//! number of durable steps, on one disk and in one run.
//!
//! Needs PostgreSQL's programs (Debian: postgresql; as root they run as the user postgres) and npm:
//!
//! ```sh
//! npm ci --prefix benches/queues
//! cargo test --release --test queues -- --ignored --nocapture
//! ```

#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

mod regions {
    #![allow(dead_code, unreachable_pub, reason = "helpers")]

    pub mod customers;
    pub mod history;
    pub mod links;
    pub mod ports;
    pub mod world;
}

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use regions::customers::Customer;
use regions::world::{PATIENCE, Plan, World, soon};
use serde_json::{Value, json};

/// So many times as many peerings as operations of the others, so that the run takes seconds.
const MORE: usize = 5;
/// How many operations are under way at a time, in every system.
const IN_FLIGHT: usize = 48;

const NUMBERS: &str = "[region.timing]\npoll = \"10ms\"\n[region.quota]\npeerings = 5000\nrequests = 5000\n\
    requests_per_account = 100000\nin_flight = 128\nwidth = 200\n";

/// What one system has shown.
struct Row {
    name: String,
    per_second: f64,
    syncs: f64,
    p50: f64,
    p99: f64,
}

fn operations() -> usize {
    let text = std::env::var("TENURE_OPERATIONS").ok();
    text.map_or(600, |text| text.parse().expect("TENURE_OPERATIONS is a number"))
}

/// How many writes of 4 KiB to one file the disk makes durable in a second, one after another.
fn raw(directory: &Path) -> f64 {
    let mut file = File::create(directory.join("raw")).unwrap();
    let page = [7_u8; 4096];
    file.write_all(&page).unwrap();
    file.sync_all().unwrap();
    let begun = Instant::now();
    for _ in 0..300 {
        file.rewind().unwrap();
        file.write_all(&page).unwrap();
        file.sync_data().unwrap();
    }
    300.0 / begun.elapsed().as_secs_f64()
}

fn counts(world: &World, key: &str) -> u64 {
    let of = |region| {
        let status = world.ask(region, &json!({ "op": "status" })).expect("it answers");
        status["counts"][key].as_u64().expect("a count")
    };
    (0..2).map(of).sum()
}

/// Creates, accepts, and waits until both sides show that it is active.
fn operate(customer: &mut Customer<'_>, n: usize) -> Duration {
    let begun = Instant::now();
    let told = customer.call(
        0,
        json!({ "op": "create", "network": n / 60, "region": "r1", "peer_account": 1,
            "peer_network": n % 60 }),
    );
    let id = told.answer["id"].as_str().unwrap_or_else(|| panic!("{told:?}")).to_owned();
    // Until it has arrived it is not visible, and the call is made again.
    let told = customer.call(1, json!({ "op": "accept", "id": id }));
    assert_eq!(told.answer["ok"], true, "{told:?}");
    for region in [0, 1] {
        let is_active = || customer.state(region, &id).as_deref() == Some("active");
        assert!(soon(PATIENCE, is_active), "{id} is never active");
    }
    begun.elapsed()
}

/// The rate of peerings, and how many saves one takes: its durable steps.
fn peerings(operations: usize) -> (Row, usize) {
    let world = World::start(Plan {
        regions: 2,
        servers: 2,
        networks: 60,
        numbers: NUMBERS,
        seed: 1,
        is_direct: true,
    });
    let (saves, commits) = (counts(&world, "saves"), counts(&world, "commits"));
    let next = Mutex::new(0..operations);
    let took = Mutex::new(Vec::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for customer in 0..IN_FLIGHT as u64 {
            let (world, next, took) = (&world, &next, &took);
            scope.spawn(move || {
                let mut customer = Customer::new(world, StdRng::seed_from_u64(customer));
                loop {
                    let Some(n) = next.lock().unwrap().next() else { return };
                    let one = operate(&mut customer, n);
                    took.lock().unwrap().push(one);
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let saves = counts(&world, "saves") - saves;
    let commits = counts(&world, "commits") - commits;
    let mut took = took.into_inner().unwrap();
    took.sort_unstable();
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
    let per = |count: u64| count as f64 / operations as f64;
    println!(
        "a peering takes {:.1} saves in {:.1} commits, at both regions together",
        per(saves),
        per(commits)
    );
    let row = Row {
        name: "tenure".to_owned(),
        per_second: operations as f64 / seconds,
        syncs: per(commits),
        p50: at(50),
        p99: at(99),
    };
    (row, per(saves).round() as usize)
}

/// A PostgreSQL server as `initdb` makes it, which syncs, on loopback.
struct Server {
    directory: tempfile::TempDir,
    port: u16,
    user: Option<(u32, u32)>,
}

impl Server {
    fn start() -> Self {
        let id = |option: &str| -> u32 {
            let output = Command::new("id").args([option, "postgres"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim().parse().expect("a user postgres")
        };
        let user = rustix::process::getuid().is_root().then(|| (id("-u"), id("-g")));
        let directory = tempfile::tempdir().unwrap();
        if let Some((uid, gid)) = user {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let server = Self { directory, port: regions::ports::address().port(), user };
        server.tool("initdb", &["-D", "data", "-A", "trust", "-U", "bench"]);
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=on -c synchronous_commit=on",
            server.port
        );
        server.tool("pg_ctl", &["-D", "data", "-w", "-l", "log", "-o", &options, "start"]);
        server
    }

    fn tool(&self, name: &str, args: &[&str]) {
        let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let found = found.map(|version| version.path().join("bin")).filter(|bin| bin.is_dir());
        let programs: PathBuf = found.max().expect("install Debian's postgresql");
        let mut command = Command::new(programs.join(name));
        command.args(args).current_dir(self.directory.path()).stdout(std::process::Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        assert!(command.status().expect("it runs").success(), "{name} {args:?}");
    }

    /// Runs chains of jobs.
    fn race(&self, system: &str, operations: usize, steps: usize, in_flight: usize) -> Row {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/queues");
        let output = Command::new(folder.join("node_modules/node/bin/node"))
            .arg(folder.join("bench.mjs"))
            .arg(system)
            .arg(format!("postgres://bench@127.0.0.1:{}/postgres", self.port))
            .args([operations, steps, in_flight].map(|number| number.to_string()))
            .output()
            .expect("run `npm ci --prefix benches/queues` first");
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{system}: {text}{said}");
        let told: Value = serde_json::from_str(text.trim()).expect("one JSON object");
        let number = |key: &str| told[key].as_f64().expect("a number");
        Row {
            name: format!("{system}, {in_flight} in flight"),
            per_second: number("per_second"),
            syncs: number("syncs_per_operation"),
            p50: number("p50_ms"),
            p99: number("p99_ms"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tool("pg_ctl", &["-D", "data", "-m", "immediate", "-w", "stop"]);
    }
}

#[test]
#[ignore = "a benchmark: it needs PostgreSQL and npm"]
fn peerings_beside_queues() {
    let operations = operations();
    let before = raw(&std::env::temp_dir());
    let (tenure, steps) = peerings(operations * MORE);
    let between = raw(&std::env::temp_dir());
    let server = Server::start();
    let rows = [
        server.race("graphile-worker", operations, steps, IN_FLIGHT),
        server.race("pg-boss", operations, steps, IN_FLIGHT),
        // Its workers poll twice a second at the most: with all at once that counts least.
        server.race("pg-boss", operations, steps, operations),
    ];
    let after = raw(&std::env::temp_dir());
    println!(
        "{} peerings, {operations} chains of {steps} durable steps, {IN_FLIGHT} in flight",
        operations * MORE
    );
    println!(
        "raw: {before:.0} fdatasync/s of 4 KiB at first, {between:.0} after the peerings, {after:.0} at last"
    );
    println!("| system | operations/s | ratio | fsyncs per operation | p50 ms | p99 ms |");
    println!("| --- | --: | --: | --: | --: | --: |");
    for row in std::iter::once(&tenure).chain(&rows) {
        println!(
            "| {} | {:.1} | {:.2} | {:.1} | {:.0} | {:.0} |",
            row.name,
            row.per_second,
            row.per_second / tenure.per_second,
            row.syncs,
            row.p50,
            row.p99
        );
    }
}
