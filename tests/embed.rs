//! The embedding API over stores in memory: terms, their ends, hooks, kill switch, hand-over.

#![allow(clippy::disallowed_methods, reason = "a test waits for real time")]

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "../src/cli/demo/meter.rs"]
mod meter;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use meter::Meter;
use tenure::embed::{
    Builder, CasOutcome, Consent, Courier, Elector, HandOverError, Hook, KillSwitch, LeaseStore,
    MemoryStore, StartError, StoreError,
};
use tenure::gate::EPOCH_MAX;
use tenure::guard::Lost;
use tenure::lease::Role;
use tenure::lease::record::{Claim, Epoch, Holder, NodeId, Nonce, Record, Version};
use tenure::lease::timing::{Checked, Timing};

const MS: Duration = Duration::from_millis(1);
const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

fn timing() -> Checked {
    let timing = Timing {
        lease: 3000 * MS,
        give_up: 1500 * MS,
        renew: 300 * MS,
        retry: 200 * MS,
        poll: 100 * MS,
        jitter: 20 * MS,
        hook: 600 * MS,
        clock_error_ppm: 200,
    };
    timing.validate().unwrap()
}

fn builder<S: LeaseStore>(me: NodeId, store: S) -> Builder<S> {
    // A kill switch that fires in a test must fail that test, not the others.
    let kill = KillSwitch::Call(Arc::new(|epoch| panic!("the work of term {epoch} was killed")));
    Builder::new("orders", me, [A, B], store, timing()).kill_switch(kill)
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(5 * MS).await;
    }
}

/// Waits for what must come before L has passed.
async fn within_l<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(3000 * MS, future).await.expect("it comes within L")
}

async fn record(store: &MemoryStore) -> Record {
    store.read("orders").await.unwrap().unwrap()
}

/// A memory store that does what the test says.
#[derive(Clone)]
struct Fickle {
    inner: MemoryStore,
    /// Whether it answers at all.
    answers: Arc<AtomicBool>,
    /// How many of the next writes are committed and then answered with "unknown".
    unknown: Arc<AtomicU64>,
    /// How many of the next reads fail.
    unread: Arc<AtomicU64>,
}

impl Fickle {
    fn new(inner: MemoryStore) -> Self {
        let answers = Arc::new(AtomicBool::new(true));
        Self { inner, answers, unknown: Arc::default(), unread: Arc::default() }
    }

    fn takes(counter: &AtomicU64) -> bool {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }
}

impl LeaseStore for Fickle {
    async fn read(&self, lease: &str) -> Result<Option<Record>, StoreError> {
        if !self.answers.load(Ordering::SeqCst) || Self::takes(&self.unread) {
            return Err(StoreError("it is away".to_owned()));
        }
        self.inner.read(lease).await
    }

    async fn cas(&self, lease: &str, expect: Version, record: Record) -> CasOutcome {
        if !self.answers.load(Ordering::SeqCst) {
            return CasOutcome::Unknown;
        }
        let outcome = self.inner.cas(lease, expect, record).await;
        if Self::takes(&self.unknown) { CasOutcome::Unknown } else { outcome }
    }
}

#[tokio::test]
async fn one_leads_and_the_other_takes_over_when_it_releases() {
    let store = MemoryStore::new();
    let mut a = builder(A, store.clone()).start().unwrap();
    let term = a.acquire().await.unwrap();
    assert_eq!(term.epoch(), 1);
    assert_eq!(term.permit(MS).unwrap().epoch(), 1);
    assert!(term.permit(3000 * MS).is_err(), "more than is left");
    assert!(a.view().borrow().is_leader_now());
    let mut b = builder(B, store.clone()).start().unwrap();
    let mut view = b.view();
    view.wait_for(|view| view.leader == Some(A)).await.unwrap();
    assert!(!view.borrow().is_leader_now());
    assert_eq!(b.guard().permit(Duration::ZERO), Err(Lost::NoTerm));
    let versions = record(&store).await.version;
    tokio::time::sleep(1000 * MS).await;
    assert!(record(&store).await.version > versions, "it renews");
    assert!(!term.token().is_cancelled());
    let (token, released) = (term.token(), Instant::now());
    term.release().await;
    assert!(token.is_cancelled());
    assert!(a.guard().permit(Duration::ZERO).is_err());
    let term = b.acquire().await.unwrap();
    assert!(released.elapsed() < 1500 * MS, "no need to wait for L");
    assert_eq!(term.epoch(), 2);
    assert!(!term.token().is_cancelled(), "a term has a token of its own");
    drop(term);
}

//= SPEC GUARD-10 test
#[tokio::test]
async fn each_term_has_a_token_of_its_own_and_the_elector_contends_again() {
    let mut a = builder(A, MemoryStore::new()).start().unwrap();
    let first = a.acquire().await.unwrap();
    let (epoch, token) = (first.epoch(), first.token());
    first.release().await;
    assert!(token.is_cancelled());
    let second = a.acquire().await.unwrap();
    assert!(second.epoch() > epoch);
    assert!(!second.token().is_cancelled());
    assert!(token.is_cancelled(), "the work of the first term stays ended");
    a.shutdown().await;
    assert!(second.token().is_cancelled());
    assert_eq!(second.permit(Duration::ZERO), Err(Lost::NoTerm));
}

//= SPEC GUARD-11 test
#[tokio::test]
async fn a_leadership_that_is_dropped_ends_the_term_and_frees_nothing() {
    let store = MemoryStore::new();
    let stopped = Arc::new(AtomicU64::new(0));
    let note = Arc::clone(&stopped);
    let hook = Hook::new("note", 100 * MS, move |epoch| {
        note.store(epoch, Ordering::SeqCst);
        async { Ok(()) }
    });
    let mut a = builder(A, store.clone()).hook(hook).start().unwrap();
    let term = a.acquire().await.unwrap();
    let mut b = builder(B, store.clone()).start().unwrap();
    let (token, guard, epoch) = (term.token(), term.guard(), term.epoch());
    drop(term);
    assert!(token.is_cancelled(), "at once");
    assert!(guard.permit(Duration::ZERO).is_err(), "at once");
    let left = record(&store).await;
    let dropped = Instant::now();
    until("the hook has run", || stopped.load(Ordering::SeqCst) == epoch).await;
    tokio::time::sleep(500 * MS).await;
    let record = record(&store).await;
    assert_eq!(record.claim.holder.map(|holder| holder.node), Some(A), "nothing is released");
    assert!(record.version <= left.version + 1, "nothing is renewed");
    // Whoever is next, the old life's own host or the other, has waited for L.
    tokio::select! {
        term = a.acquire() => assert!(term.unwrap().epoch() > epoch),
        term = b.acquire() => assert!(term.unwrap().epoch() > epoch),
    }
    assert!(dropped.elapsed() >= 1500 * MS, "{:?}", dropped.elapsed());
}

#[tokio::test]
async fn a_transient_error_does_not_end_a_term_and_a_lasting_one_does_in_time() {
    let store = Fickle::new(MemoryStore::new());
    store.unread.store(2, Ordering::SeqCst);
    let mut a = builder(A, store.clone()).start().unwrap();
    let term = a.acquire().await.unwrap();
    store.answers.store(false, Ordering::SeqCst);
    tokio::time::sleep(500 * MS).await;
    assert!(term.permit(Duration::ZERO).is_ok(), "G has not passed");
    store.answers.store(true, Ordering::SeqCst);
    tokio::time::sleep(1500 * MS).await;
    assert!(term.permit(Duration::ZERO).is_ok(), "renewed again");
    let deadline = term.deadline().unwrap();
    store.answers.store(false, Ordering::SeqCst);
    let (meter, cut) = (Meter::start(), Instant::now());
    term.cancelled().await;
    let took = cut.elapsed();
    let withheld = meter.lost();
    assert!(took <= 1500 * MS + 300 * MS + withheld, "{took:?} {withheld:?}");
    assert!(term.permit(Duration::ZERO).is_err());
    assert!(term.deadline().is_none(), "it was {deadline:?}");
    assert!(!a.view().borrow().is_leader_now());
    // It contends again when the store is back, under another epoch.
    store.answers.store(true, Ordering::SeqCst);
    let next = a.acquire().await.unwrap();
    assert!(next.epoch() >= term.epoch());
}

#[tokio::test]
async fn a_write_that_landed_unheard_is_known_again() {
    let store = Fickle::new(MemoryStore::new());
    store.unknown.store(2, Ordering::SeqCst);
    let mut a = builder(A, store.clone()).start().unwrap();
    let begun = Instant::now();
    let term = a.acquire().await.unwrap();
    assert!(begun.elapsed() < 2500 * MS, "it does not wait for L: {:?}", begun.elapsed());
    store.unknown.store(2, Ordering::SeqCst);
    tokio::time::sleep(2000 * MS).await;
    assert!(term.permit(Duration::ZERO).is_ok(), "the term goes on");
    term.release().await;
}

//= SPEC GUARD-14 test
#[tokio::test]
async fn hooks_that_do_not_fit_into_s_are_refused() {
    let hook = |worst| Hook::new("slow", worst, |_| async { Ok(()) });
    let start = |worst| builder(A, MemoryStore::new()).hook(hook(worst)).hook(hook(worst)).start();
    assert!(matches!(start(300 * MS), Err(StartError::HooksTooLong { .. })), "no time to kill");
    let refused = start(275 * MS).unwrap_err();
    assert!(matches!(refused, StartError::HooksTooLong { .. }), "no time on a slow clock");
    assert!(refused.to_string().contains("S of 600ms leaves them 549.88ms"), "{refused}");
    assert!(matches!(start(Duration::MAX), Err(StartError::HooksTooLong { .. })), "no overflow");
    start(274 * MS).unwrap();
    let alone = Builder::new("orders", A, [A], MemoryStore::new(), timing()).start();
    assert!(matches!(alone, Err(StartError::Hosts(A))));
    let stranger = Builder::new("orders", NodeId(7), [A, B], MemoryStore::new(), timing()).start();
    assert!(matches!(stranger, Err(StartError::Hosts(NodeId(7)))));
}

/// Which term was killed, and when.
type Killed = Arc<Mutex<Vec<(u64, Instant)>>>;

/// A kill switch that notes when it was pulled.
fn noted() -> (Killed, KillSwitch) {
    let killed = Killed::default();
    let note = Arc::clone(&killed);
    let kill = move |epoch| note.lock().unwrap().push((epoch, Instant::now()));
    (killed, KillSwitch::Call(Arc::new(kill)))
}

//= SPEC GUARD-13 test
#[tokio::test]
async fn work_that_does_not_end_is_killed_within_s_and_frees_nothing_before() {
    let store = MemoryStore::new();
    let (killed, kill_switch) = noted();
    let mut a = builder(A, store.clone()).kill_switch(kill_switch).start().unwrap();
    let term = a.acquire().await.unwrap();
    let (guard, epoch) = (term.guard(), term.epoch());
    let work = guard.enter(MS).unwrap();
    let (meter, ended) = (Meter::start(), Instant::now());
    let release = tokio::spawn(term.release());
    until("killed", || !killed.lock().unwrap().is_empty()).await;
    let (of, at) = killed.lock().unwrap()[0];
    assert_eq!(of, epoch);
    let after = at - ended;
    let withheld = meter.lost();
    let latest = 600 * MS + 100 * MS + withheld;
    assert!(after >= 500 * MS && after <= latest, "{after:?} {withheld:?}");
    assert!(record(&store).await.claim.holder.is_some(), "work still runs: nothing is free");
    assert!(!release.is_finished());
    drop(work);
    release.await.unwrap();
    assert!(record(&store).await.claim.holder.is_none());
    assert_eq!(killed.lock().unwrap().len(), 1, "once for each term");
}

//= SPEC GUARD-13 test
#[tokio::test]
async fn a_hook_that_fails_has_not_stopped_the_work() {
    let store = MemoryStore::new();
    let (killed, kill_switch) = noted();
    let order: Arc<Mutex<Vec<&str>>> = Arc::default();
    let note = |name: &'static str, ends: Result<(), String>| {
        let order = Arc::clone(&order);
        Hook::new(name, 100 * MS, move |_| {
            order.lock().unwrap().push(name);
            let ends = ends.clone();
            async move { ends }
        })
    };
    let mut a = builder(A, store.clone())
        .kill_switch(kill_switch)
        .hook(note("first", Ok(())))
        .hook(note("second", Err("cannot".to_owned())))
        .hook(note("third", Ok(())))
        .start()
        .unwrap();
    let term = a.acquire().await.unwrap();
    let release = tokio::spawn(term.release());
    tokio::time::sleep(300 * MS).await;
    assert!(!release.is_finished(), "nothing has ended the work");
    until("killed", || !killed.lock().unwrap().is_empty()).await;
    within_l(release).await.unwrap();
    assert_eq!(*order.lock().unwrap(), ["first", "second"]);
    assert!(record(&store).await.claim.holder.is_some(), "nothing is freed");
}

/// An elector whose hook does not end well leads again, when the kill switch has done its part and L has passed.
async fn leads_again_after(hook: Hook) {
    let store = MemoryStore::new();
    let (killed, kill_switch) = noted();
    let mut a = builder(A, store.clone()).kill_switch(kill_switch).hook(hook).start().unwrap();
    let term = a.acquire().await.unwrap();
    let epoch = term.epoch();
    let left = Instant::now();
    within_l(term.release()).await;
    assert_eq!(killed.lock().unwrap().iter().map(|(of, _)| *of).collect::<Vec<_>>(), [epoch]);
    assert_eq!(record(&store).await.claim.epoch, epoch, "nothing is freed");
    let next = tokio::time::timeout(10_000 * MS, a.acquire()).await.expect("it contends again");
    assert!(next.unwrap().epoch() > epoch);
    assert!(left.elapsed() >= 2900 * MS, "the record stood until L: {:?}", left.elapsed());
}

//= SPEC GUARD-24 test
#[tokio::test]
async fn after_the_kill_switch_the_elector_contends_again_and_frees_nothing() {
    tokio::join!(
        leads_again_after(Hook::new("fails", 100 * MS, |_| async { Err("cannot".to_owned()) })),
        leads_again_after(Hook::new("hangs", 100 * MS, |_| std::future::pending())),
        leads_again_after(Hook::new("panics", 100 * MS, |_| async { panic!("as the test wants") })),
    );
}

//= SPEC GUARD-24 test
#[tokio::test]
async fn work_that_outlives_its_term_and_the_next_one_holds_up_the_elector_only_until_it_ends() {
    let store = MemoryStore::new();
    let (_, kill_switch) = noted();
    let mut a = builder(A, store.clone()).kill_switch(kill_switch).start().unwrap();
    let term = a.acquire().await.unwrap();
    let guard = term.guard();
    let work = guard.enter(MS).unwrap();
    drop(term);
    // The kill switch, which only takes a note, has left the work running: L passes, and the next term cannot begin.
    let begun = Instant::now();
    while record(&store).await.claim.epoch < 2 {
        assert!(begun.elapsed() < 10_000 * MS, "it never contended");
        tokio::time::sleep(5 * MS).await;
    }
    tokio::time::sleep(100 * MS).await;
    assert!(guard.permit(Duration::ZERO).is_err());
    drop(work);
    let next = tokio::time::timeout(10_000 * MS, a.acquire()).await.expect("it contends again");
    assert!(next.unwrap().epoch() > 2);
}

/// An elector over a record that somebody has written with this epoch: it does nothing until that is put right.
async fn leaves_alone(epoch: Epoch) {
    let store = MemoryStore::new();
    let by = Holder { node: B, incarnation: 7 };
    let in_sync = [A, B].into_iter().collect();
    let claim = Claim { holder: Some(by), epoch, lease: 300 * MS, in_sync };
    let wrong = Record { version: 1, nonce: Nonce { by, n: 1 }, claim: claim.clone() };
    assert_eq!(store.cas("orders", 0, wrong.clone()).await, CasOutcome::Committed);
    let (killed, kill_switch) = noted();
    let mut a = builder(A, store.clone()).kill_switch(kill_switch).start().unwrap();
    tokio::time::sleep((3000 + 1500 + 600) * MS).await;
    assert_eq!(record(&store).await, wrong, "it is left alone");
    assert!(killed.lock().unwrap().is_empty());
    let claim = Claim { holder: None, epoch: 5, ..claim };
    let right = Record { version: 2, nonce: Nonce { by, n: 2 }, claim };
    assert_eq!(store.cas("orders", 1, right).await, CasOutcome::Committed);
    let term = tokio::time::timeout(5000 * MS, a.acquire()).await.expect("it is put right");
    assert_eq!(term.unwrap().epoch(), 5);
}

//= SPEC GUARD-25 test
#[tokio::test]
async fn a_record_with_an_epoch_that_no_term_can_have_is_left_alone_until_it_is_put_right() {
    tokio::join!(leaves_alone(EPOCH_MAX), leaves_alone(1 << 40), leaves_alone(u64::MAX));
}

/// A store that never answers, and counts the requests that wait.
#[derive(Clone, Default)]
struct Hanging {
    waiting: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

struct Waiting(Arc<AtomicU64>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Hanging {
    async fn hang(&self) -> ! {
        let now = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        let _waiting = Waiting(Arc::clone(&self.waiting));
        self.most.fetch_max(now, Ordering::SeqCst);
        std::future::pending().await
    }
}

impl LeaseStore for Hanging {
    async fn read(&self, _: &str) -> Result<Option<Record>, StoreError> {
        self.hang().await
    }

    async fn cas(&self, _: &str, _: Version, _: Record) -> CasOutcome {
        self.hang().await
    }
}

//= SPEC GUARD-27 test
#[tokio::test]
async fn a_store_that_hangs_holds_no_more_requests_than_go_into_g() {
    let store = Hanging::default();
    let a = builder(A, store.clone()).start().unwrap();
    tokio::time::sleep(3 * 1500 * MS).await;
    let most = store.most.load(Ordering::SeqCst);
    // One each P, early by the jitter at the most.
    assert!((10..=1500 / 80 + 1).contains(&most), "{most} at a time");
    a.shutdown().await;
    until("the last are given up", || store.waiting.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_command_is_a_hook() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("epoch");
    let script = format!("echo $TENURE_EPOCH > {}", file.display());
    // A machine may take its time to start a shell.
    let mut patient = timing().get();
    patient.hook = 5000 * MS;
    patient.lease = patient.smallest_lease().unwrap();
    let hook = Hook::command("sh", ["-c".to_owned(), script], 4500 * MS);
    let patient = patient.validate().unwrap();
    let builder = Builder::new("orders", A, [A, B], MemoryStore::new(), patient);
    let mut a = builder.hook(hook).start().unwrap();
    let term = a.acquire().await.unwrap();
    let epoch = term.epoch();
    term.release().await;
    assert_eq!(std::fs::read_to_string(file).unwrap(), format!("{epoch}\n"));
}

#[tokio::test]
async fn a_command_that_hangs_is_ended_and_the_kill_switch_is_pulled() {
    let (killed, kill_switch) = noted();
    let hook = Hook::command("sleep", ["60"], 200 * MS);
    let store = MemoryStore::new();
    let mut a = builder(A, store.clone()).hook(hook).kill_switch(kill_switch).start().unwrap();
    let release = tokio::spawn(a.acquire().await.unwrap().release());
    until("killed", || !killed.lock().unwrap().is_empty()).await;
    within_l(release).await.unwrap();
    assert!(record(&store).await.claim.holder.is_some(), "nothing is freed");
}

/// The elector of the other host, when it is there.
#[derive(Clone, Default)]
struct Mail(Arc<Mutex<Option<Elector>>>);

impl Courier for Mail {
    fn send(
        &self,
        lease: &str,
        to: NodeId,
        consent: Consent,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        assert_eq!((lease, to, consent.from), ("orders", B, A));
        if let Some(elector) = &*self.0.lock().unwrap() {
            elector.deliver(consent);
        }
        Box::pin(async {})
    }
}

#[tokio::test]
async fn a_lease_is_handed_over_without_waiting() {
    let store = MemoryStore::new();
    let mail = Mail::default();
    let mut a = builder(A, store.clone()).courier(mail.clone()).start().unwrap();
    let term = a.acquire().await.unwrap();
    let b = builder(B, store.clone()).start().unwrap();
    let (mut view, guard) = (b.view(), b.guard());
    view.wait_for(|view| view.leader == Some(A)).await.unwrap();
    *mail.0.lock().unwrap() = Some(b);
    let (error, term) = term.hand_over(NodeId(5)).await.unwrap_err();
    assert_eq!(error, HandOverError::NotACandidate(NodeId(5)));
    let term = term.expect("the term goes on");
    assert!(term.permit(MS).is_ok());
    let epoch = term.epoch();
    let begun = Instant::now();
    term.hand_over(B).await.unwrap();
    assert!(a.guard().permit(Duration::ZERO).is_err());
    view.wait_for(|view| view.role == Role::Holding).await.unwrap();
    assert!(begun.elapsed() < 1500 * MS, "{:?}", begun.elapsed());
    assert_eq!(guard.permit(MS).unwrap().epoch(), epoch + 1);
}

#[tokio::test]
async fn a_term_that_has_ended_cannot_be_handed_over() {
    let store = Fickle::new(MemoryStore::new());
    let mail = Mail::default();
    let mut a = builder(A, store.clone()).courier(mail).start().unwrap();
    let term = a.acquire().await.unwrap();
    store.answers.store(false, Ordering::SeqCst);
    term.cancelled().await;
    let (error, term) = term.hand_over(B).await.unwrap_err();
    assert_eq!(error, HandOverError::TermOver);
    assert!(term.is_none());
}

#[tokio::test]
async fn without_a_courier_a_hand_over_is_refused_and_the_term_goes_on() {
    let mut a = builder(A, MemoryStore::new()).start().unwrap();
    let term = a.acquire().await.unwrap();
    let (error, term) = term.hand_over(B).await.unwrap_err();
    assert_eq!(error, HandOverError::NoCourier);
    assert!(term.unwrap().permit(MS).is_ok());
}

//= SPEC GUARD-12 test
#[tokio::test]
async fn a_term_whose_work_is_dead_is_not_renewed() {
    let mut a = builder(A, MemoryStore::new()).alive_within(700 * MS).start().unwrap();
    let term = a.acquire().await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(200 * MS).await;
        term.alive();
    }
    assert!(term.permit(Duration::ZERO).is_ok(), "it says that it is alive");
    let (meter, silent) = (Meter::start(), Instant::now());
    term.cancelled().await;
    let took = silent.elapsed();
    let withheld = meter.lost();
    assert!(took <= 700 * MS + 300 * MS + 300 * MS + withheld, "{took:?} {withheld:?}");
}

/// Work that takes most of S to end after its token is cancelled, and when it wrote last.
fn slow_work(token: tokio_util::sync::CancellationToken) -> tokio::task::JoinHandle<Instant> {
    tokio::spawn(async move {
        token.cancelled().await;
        let cancelled = Instant::now();
        // It looks at the time before each write.
        let mut last_write = cancelled;
        loop {
            tokio::time::sleep(5 * MS).await;
            let now = Instant::now();
            if now - cancelled >= 480 * MS {
                return last_write;
            }
            last_write = now;
        }
    })
}

/// Waits for the next term, whosever it is, and gives the time at which it had begun.
async fn next_term(a: &mut Elector, b: &mut Elector, above: u64) -> Instant {
    let term = tokio::select! { term = a.acquire() => term, term = b.acquire() => term }.unwrap();
    assert!(term.epoch() > above);
    Instant::now()
}

//= SPEC GUARD-21 test
#[tokio::test]
async fn a_silent_term_is_not_given_back_while_its_work_may_still_run() {
    let store = MemoryStore::new();
    let mut a = builder(A, store.clone()).alive_within(300 * MS).start().unwrap();
    let term = a.acquire().await.unwrap();
    let mut b = builder(B, store.clone()).start().unwrap();
    let work = slow_work(term.token());
    let begun = next_term(&mut a, &mut b, term.epoch()).await;
    let last_write = work.await.unwrap();
    assert!(
        begun > last_write,
        "the next term began {:?} before the last write",
        last_write - begun
    );
}

//= SPEC GUARD-21 test
#[tokio::test]
async fn a_term_that_was_revoked_in_the_guard_is_not_given_back_while_its_work_may_still_run() {
    let store = MemoryStore::new();
    let mut a = builder(A, store.clone()).start().unwrap();
    let term = a.acquire().await.unwrap();
    let mut b = builder(B, store.clone()).start().unwrap();
    let work = slow_work(term.token());
    assert!(term.guard().revoke(term.epoch()));
    let begun = next_term(&mut a, &mut b, term.epoch()).await;
    let last_write = work.await.unwrap();
    assert!(
        begun > last_write,
        "the next term began {:?} before the last write",
        last_write - begun
    );
}

#[tokio::test]
async fn once_is_once() {
    let mut a = builder(A, MemoryStore::new()).once().start().unwrap();
    a.acquire().await.unwrap().release().await;
    assert!(a.acquire().await.is_err());
}

#[tokio::test]
async fn shutting_down_frees_the_lease() {
    let store = MemoryStore::new();
    let mut a = builder(A, store.clone()).start().unwrap();
    let term = a.acquire().await.unwrap();
    a.shutdown().await;
    assert!(term.token().is_cancelled());
    assert!(record(&store).await.claim.holder.is_none());
}

/// The store, the hooks and everything else of the user's stand still: the term ends all the same (L-7).
#[test]
fn a_runtime_that_is_blocked_holds_up_no_deadline() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (killed, kill_switch) = noted();
    let mut a = {
        let _entered = runtime.enter();
        builder(A, MemoryStore::new()).kill_switch(kill_switch).start().unwrap()
    };
    let term = runtime.block_on(a.acquire()).unwrap();
    let (meter, blocked) = (Meter::start(), Instant::now());
    runtime.spawn(async { std::thread::sleep(4000 * MS) });
    while !term.token().is_cancelled() {
        assert!(blocked.elapsed() < 3000 * MS, "never cancelled");
        std::thread::sleep(MS);
    }
    assert!(term.permit(Duration::ZERO).is_err());
    let took = blocked.elapsed();
    let withheld = meter.lost();
    assert!(took <= 1500 * MS + 300 * MS + withheld, "{took:?} {withheld:?}");
    // No hook can run, so nobody knows whether the work has ended.
    while killed.lock().unwrap().is_empty() {
        let took = blocked.elapsed();
        assert!(took < 1500 * MS + 600 * MS + 300 * MS + meter.lost(), "never killed");
        std::thread::sleep(MS);
    }
}
