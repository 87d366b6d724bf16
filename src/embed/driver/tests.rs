//! The driver without its thread: what it does when it comes to something late.

use super::*;
use crate::embed::MemoryStore;
use crate::lease::elector::Elector as Actor;
use crate::lease::host::Host;
use crate::lease::record::NodeSet;
use crate::lease::safeguards::Safeguards;
use crate::lease::timing::Timing;
use crate::node::clock::BootClock;

const MS: Duration = Duration::from_millis(1);

fn timing() -> Timing {
    Timing {
        lease: 600 * MS,
        give_up: 300 * MS,
        renew: 60 * MS,
        retry: 40 * MS,
        poll: 20 * MS,
        jitter: 4 * MS,
        hook: 120 * MS,
        clock_error_ppm: 200,
    }
}

/// A driver that has come to hold the lease.
async fn holder(
    commands: &mpsc::UnboundedSender<Command>,
    inbox: &mut mpsc::UnboundedReceiver<Command>,
) -> Driver<MemoryStore> {
    let timing = timing().validate().expect("safe").get();
    let (me, store_id) = (NodeId(0), NodeId(NodeId::LIMIT - 1));
    let hosts: NodeSet = [me, NodeId(1)].into_iter().collect();
    let elector = Actor { me, store: store_id, hosts, timing, safeguards: Safeguards::ALL };
    let mut driver = Driver::new(Parts {
        lease: "orders".into(),
        me,
        store_id,
        actor: Member::Host(Host { elector, replica: None }),
        store: Arc::new(MemoryStore::new()),
        hooks: Arc::default(),
        courier: None,
        guard: Arc::new(Guard::new(BootClock)),
        give_up: timing.give_up,
        stop_within: timing.stop_within(),
        alive_within: None,
        once: false,
        runtime: tokio::runtime::Handle::current(),
        commands: commands.downgrade(),
        shown: Shown {
            view: watch::Sender::new(LeaderView::UNKNOWN),
            term: watch::Sender::new(None),
            watched: watch::Sender::new(Watched::default()),
        },
        stats: Arc::new(Stats::new("orders")),
    });
    driver.begin();
    while driver.term.is_none() {
        driver.obey(inbox.recv().await.expect("the store answers"));
    }
    driver
}

//= SPEC GUARD-26 test
#[tokio::test]
async fn the_kill_counts_from_the_deadline_however_late_the_driver_comes_to_it() {
    let (commands, mut inbox) = mpsc::unbounded_channel();
    let mut driver = holder(&commands, &mut inbox).await;
    let (epoch, deadline) = driver.until.expect("it holds");
    // Nobody fires its timers: the process is stopped, or starved.
    std::thread::sleep(timing().give_up + 100 * MS);
    let woken = driver.fire_due();
    assert!(woken > deadline.saturating_add(50 * MS), "it is late");
    assert_eq!(driver.phase().and_then(Phase::holding), None);
    let kill_at = deadline.saturating_add(timing().stop_within());
    assert_eq!(driver.parts.shown.watched.borrow().oversight.to_kill(), Some((epoch, kill_at)));
}

//= SPEC GUARD-26 test
#[tokio::test]
async fn the_kill_counts_from_the_end_of_a_term_that_ends_before_its_deadline() {
    let (commands, mut inbox) = mpsc::unbounded_channel();
    let mut driver = holder(&commands, &mut inbox).await;
    let (epoch, deadline) = driver.until.expect("it holds");
    let (done, _) = oneshot::channel();
    let before = BootInstant::now();
    driver.obey(Command::StepDown { epoch, done });
    let to_kill = driver.parts.shown.watched.borrow().oversight.to_kill();
    let (of, at) = to_kill.expect("it is being stopped");
    assert_eq!(of, epoch);
    assert!(at >= before.saturating_add(timing().stop_within()));
    assert!(at < deadline.saturating_add(timing().stop_within()));
}

/// Also when no timer would have renewed it: a hint of the store makes a holder write at once.
//= SPEC GUARD-12 test
#[tokio::test]
async fn a_hint_does_not_renew_a_term_whose_work_is_dead() {
    let (commands, mut inbox) = mpsc::unbounded_channel();
    let mut driver = holder(&commands, &mut inbox).await;
    let (epoch, _) = driver.until.expect("it holds");
    driver.parts.alive_within = Some(20 * MS);
    std::thread::sleep(30 * MS);
    let seen = driver.parts.store.read("orders").await.expect("in memory").expect("written");
    driver
        .obey(Command::Deliver(driver.parts.store_id, Msg::Changed { version: seen.version + 1 }));
    assert_eq!(driver.phase().and_then(Phase::holding), None);
    assert_eq!(driver.stopping, Some(epoch));
    let asked = driver.sent.is_some();
    assert!(!asked, "a renewal is under way");
}
