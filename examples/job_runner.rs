//! A job that runs in one of several processes at a time. Here the processes are two electors in one, over a
//! store in memory: `cargo run --example job_runner`.
//!
//! The job asks before each piece of work whether there is time for it, and holds an admission while it runs, so
//! that the lease is not given back under it.

#![allow(clippy::disallowed_methods, reason = "a program may wait")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenure::embed::{Builder, Elector, Leadership, MemoryStore};
use tenure::lease::record::NodeId;
use tenure::lease::timing::Timing;

const PIECE: Duration = Duration::from_millis(50);
const PIECES: u64 = 10;

/// Runs pieces of the job until the term ends, or so many are done.
async fn work(name: &str, term: &Leadership, done: &AtomicU64) {
    let token = term.token();
    for _ in 0..PIECES {
        if token.is_cancelled() {
            return;
        }
        // Ten times what a piece takes: the margin is for a loaded machine.
        let Ok(admission) = term.enter(10 * PIECE) else { return };
        tokio::time::sleep(PIECE).await;
        let total = done.fetch_add(1, Ordering::Relaxed) + 1;
        println!("{name}: piece {total} under epoch {}", admission.epoch());
    }
}

async fn run(name: &'static str, mut elector: Elector, done: Arc<AtomicU64>) {
    while done.load(Ordering::Relaxed) < 4 * PIECES {
        let Ok(term) = elector.acquire().await else { return };
        println!("{name}: holds the lease under epoch {}", term.epoch());
        work(name, &term, &done).await;
        // The work has been joined: somebody else may go on.
        term.release().await;
    }
    elector.shutdown().await;
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let timing = Timing {
        lease: Duration::from_secs(3),
        give_up: Duration::from_millis(1500),
        renew: Duration::from_millis(500),
        retry: Duration::from_millis(200),
        poll: Duration::from_millis(100),
        jitter: Duration::from_millis(20),
        hook: Duration::from_millis(500),
        clock_error_ppm: 200,
    };
    let hosts = [NodeId(0), NodeId(1)];
    let (store, done) = (MemoryStore::new(), Arc::new(AtomicU64::new(0)));
    let start = |me| {
        Builder::new("job", me, hosts, store.clone(), timing.validate()?)
            .start()
            .map_err(Box::<dyn std::error::Error>::from)
    };
    let (a, b) = (start(hosts[0])?, start(hosts[1])?);
    tokio::join!(run("a", a, Arc::clone(&done)), run("b", b, Arc::clone(&done)));
    println!("{} pieces", done.load(Ordering::Relaxed));
    Ok(())
}
