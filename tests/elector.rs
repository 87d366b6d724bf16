//! The lease protocol, one situation at a time.
//!
//! Goal: each sentence LEASE-n of `docs/SPEC.md` has a test that a reader can follow. Method: members are
//! driven by hand through [`tenure::step::step`], with no network, no clock and no thread. A test says
//! which message arrives, which is lost and which timer runs out; nothing else happens. What holds in
//! *every* order of events is not shown here but by the models.

#![allow(clippy::disallowed_methods, reason = "one test waits, to show that time does not matter")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use stateright::actor::Id;
use tenure::lease::client::Client;
use tenure::lease::elector::{Elector, ElectorState, Phase, Slot, Then, Yielding};
use tenure::lease::host::{Host, HostState};
use tenure::lease::msg::{Entry, EntryId, Msg, RequestId};
use tenure::lease::record::{Claim, Expect, Holder, NodeId, NodeSet, Nonce, Record};
use tenure::lease::replica::Replica;
use tenure::lease::safeguards::Safeguards;
use tenure::lease::store::LeaseStore;
use tenure::lease::timing::Timing;
use tenure::lease::{Member, MemberState, Storage, Timer, View};
use tenure::step::{Effect, EffectOf, Input, InputOf, Machine, step};

type Effects = Vec<EffectOf<Member>>;

const L: Duration = Timing::DEFAULT.lease;
const G: Duration = Timing::DEFAULT.give_up;

/// Members, the mail between them, and their armed timers. Hosts come first, then the store, then a
/// client.
struct Bench {
    members: Vec<Member>,
    states: Vec<Option<MemberState>>,
    storage: Vec<Option<Storage>>,
    timers: Vec<BTreeMap<Timer, Range<Duration>>>,
    /// What is under way, the oldest first: from, to, what.
    mail: Vec<(u16, u16, Msg)>,
    hosts: u16,
}

impl Bench {
    /// Hosts without a replica, and a store. Nobody has started.
    fn new(hosts: u16) -> Self {
        Self::with(hosts, false, |_, timing| timing)
    }

    /// Hosts with a replica each.
    fn with_table(hosts: u16) -> Self {
        Self::with(hosts, true, |_, timing| timing)
    }

    fn with(hosts: u16, table: bool, timing: impl Fn(u16, Timing) -> Timing) -> Self {
        let set: NodeSet = (0..hosts).map(NodeId).collect();
        let safeguards = Safeguards::ALL;
        let mut members: Vec<Member> = (0..hosts)
            .map(|host| {
                let (me, timing) = (NodeId(host), timing(host, Timing::DEFAULT));
                let elector = Elector { me, store: NodeId(hosts), hosts: set, timing, safeguards };
                let resend = timing.retry;
                let replica = Replica { me, hosts: set, resend, patience: 2, safeguards };
                Member::Host(Host { elector, replica: table.then_some(replica) })
            })
            .collect();
        members.push(Member::Store(LeaseStore { hints: Vec::new(), safeguards }));
        members.push(Member::Client(Client {
            me: NodeId(hosts + 1),
            hosts: set.iter().collect(),
            retry: Timing::DEFAULT.retry,
            script: Vec::new(),
        }));
        let count = members.len();
        Self {
            members,
            states: vec![None; count],
            storage: vec![None; count],
            timers: vec![BTreeMap::new(); count],
            mail: Vec::new(),
            hosts,
        }
    }

    /// Everybody has started, host 0 holds epoch 1, the others have seen its record and watch it.
    fn elected(mut self) -> Self {
        for node in 0..self.hosts + 2 {
            self.start(node);
        }
        self.settle();
        assert_eq!(self.phase(0), Phase::Holding { epoch: 1, slot: Slot::A });
        for host in 1..self.hosts {
            assert!(self.is_armed(host, Timer::Watch(Slot::A)));
        }
        self
    }

    fn store(&self) -> u16 {
        self.hosts
    }

    fn client(&self) -> u16 {
        self.hosts + 1
    }

    fn input(&mut self, node: u16, input: InputOf<Member>) -> Effects {
        let index = usize::from(node);
        let state = self.states[index].take();
        let (state, effects) = step(&self.members[index], Id::from(index), state, input);
        self.states[index] = Some(state);
        for effect in effects.clone() {
            match effect {
                Effect::Save(storage) => self.storage[index] = Some(storage),
                Effect::Send(to, msg) => {
                    self.mail.push((node, u16::try_from(usize::from(to)).unwrap(), msg));
                }
                Effect::SetTimer(timer, range) => {
                    self.timers[index].insert(timer, range);
                }
                Effect::CancelTimer(timer) => {
                    self.timers[index].remove(&timer);
                }
                Effect::Choose(..) => panic!("the lease chooses nothing"),
            }
        }
        effects
    }

    fn start(&mut self, node: u16) -> Effects {
        let storage = self.storage[usize::from(node)].clone();
        self.input(node, Input::Start(storage))
    }

    /// The node's process ends. What it has saved stays; what it has told itself goes.
    fn crash(&mut self, node: u16) {
        self.states[usize::from(node)] = None;
        self.timers[usize::from(node)].clear();
        self.mail.retain(|&(from, to, _)| (from, to) != (node, node));
    }

    /// Somebody says something that was never in the mail.
    fn say(&mut self, from: u16, to: u16, msg: Msg) -> Effects {
        self.input(to, Input::Deliver { src: Id::from(usize::from(from)), msg })
    }

    /// The timer runs out.
    fn fire(&mut self, node: u16, timer: Timer) -> Effects {
        let armed = self.timers[usize::from(node)].remove(&timer);
        assert!(armed.is_some(), "{timer:?} is not armed at node {node}");
        self.input(node, Input::Fire(timer))
    }

    /// The oldest message from one node to another arrives.
    fn deliver(&mut self, from: u16, to: u16) -> Effects {
        let msg = self.lose(from, to);
        self.say(from, to, msg)
    }

    /// The oldest message from one node to another does not arrive, or not yet: here it is.
    fn lose(&mut self, from: u16, to: u16) -> Msg {
        let place = self.mail.iter().position(|&(src, dst, _)| (src, dst) == (from, to));
        self.mail.remove(place.unwrap_or_else(|| panic!("nothing is under way: {from} to {to}"))).2
    }

    /// The stop hook of this host has finished.
    fn hook_done(&mut self, node: u16) -> Effects {
        self.deliver(node, node)
    }

    /// Delivers everything between nodes, until nobody has anything more to say.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let due = |&(src, dst, _): &(u16, u16, Msg)| {
                src != dst && self.states[usize::from(dst)].is_some()
            };
            let Some(place) = self.mail.iter().position(due) else { return };
            let (from, to, msg) = self.mail.remove(place);
            self.say(from, to, msg);
        }
        panic!("the members never stop talking");
    }

    /// The holder's next renewal, answered.
    fn renew(&mut self, host: u16) {
        self.fire(host, Timer::Attempt);
        self.deliver(host, self.store());
        self.deliver(self.store(), host);
    }

    fn host(&self, node: u16) -> &HostState {
        match &self.states[usize::from(node)] {
            Some(MemberState::Host(host)) => host,
            other => panic!("node {node} is no running host: {other:?}"),
        }
    }

    fn elector(&self, node: u16) -> &ElectorState {
        &self.host(node).elector
    }

    fn phase(&self, node: u16) -> Phase {
        self.elector(node).phase
    }

    fn is_primary(&self, node: u16) -> bool {
        self.host(node).replica.as_ref().is_some_and(|replica| replica.primary.is_some())
    }

    fn record(&self) -> Record {
        match &self.states[usize::from(self.hosts)] {
            Some(MemberState::Store(record)) => record.clone(),
            other => panic!("the store is not running: {other:?}"),
        }
    }

    fn is_armed(&self, node: u16, timer: Timer) -> bool {
        self.timers[usize::from(node)].contains_key(&timer)
    }

    /// A write of the client, the nth of its first life.
    fn write(&self, n: u64) -> Msg {
        let request = RequestId { client: NodeId(self.client()), incarnation: 1, n };
        Msg::Apply { request, key: format!("k{n}"), value: "v".to_owned() }
    }

    /// Puts somebody else's claim into the record, as if it had been written by a node that is not here.
    fn overwrite(&mut self, change: impl FnOnce(&mut Claim)) {
        let record = self.record();
        let mut claim = record.claim;
        change(&mut claim);
        let by = Holder { node: NodeId(60), incarnation: 1 };
        let (nonce, expect) = (Nonce { by, n: 1 }, Expect::Version(record.version));
        let store = self.store();
        self.say(60, store, Msg::Write { nonce, expect, claim });
        assert!(matches!(self.lose(store, 60), Msg::Written { .. }));
    }
}

fn sends(effects: &Effects) -> Vec<(usize, Msg)> {
    let send = |effect: &EffectOf<Member>| match effect {
        Effect::Send(to, msg) => Some((usize::from(*to), msg.clone())),
        _ => None,
    };
    effects.iter().filter_map(send).collect()
}

/// The one write among these effects.
fn write_in(effects: &Effects) -> (Nonce, Expect, Claim) {
    let writes: Vec<_> = sends(effects)
        .into_iter()
        .filter_map(|(_, msg)| match msg {
            Msg::Write { nonce, expect, claim } => Some((nonce, expect, claim)),
            _ => None,
        })
        .collect();
    <[_; 1]>::try_from(writes).map(|[write]| write).expect("exactly one write")
}

fn sets(effects: &Effects, timer: Timer) -> Option<Range<Duration>> {
    effects.iter().find_map(|effect| match effect {
        Effect::SetTimer(set, range) if *set == timer => Some(range.clone()),
        _ => None,
    })
}

fn cancels(effects: &Effects, timer: Timer) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::CancelTimer(gone) if *gone == timer))
}

fn is_read(effects: &Effects) -> bool {
    matches!(sends(effects)[..], [(_, Msg::Read { .. })])
}

const HOLDS: Phase = Phase::Holding { epoch: 1, slot: Slot::A };
const STOPS: Phase = Phase::Stopping { epoch: 1, then: Then::Watch };
const WATCHES: Phase = Phase::Watching { yielding: None, ripe: false };

// -------------------------------------------------------------------------------------------------
// Starting and watching
// -------------------------------------------------------------------------------------------------

//= SPEC LEASE-1 test
#[test]
fn a_restarted_holder_resumes_nothing_and_needs_a_new_epoch() {
    let mut bench = Bench::new(2).elected();
    bench.crash(0);
    let effects = bench.start(0);
    assert_eq!(bench.phase(0), WATCHES);
    assert!(is_read(&effects));
    // The record names its earlier life, which is nobody's own: it waits like everybody else.
    bench.settle();
    assert_eq!(bench.phase(0), WATCHES);
    assert!(bench.is_armed(0, Timer::Watch(Slot::A)));
    bench.fire(0, Timer::Watch(Slot::A));
    bench.settle();
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 2, slot: Slot::A });
}

//= SPEC LEASE-2 test
#[test]
fn a_hint_is_a_reason_to_read_and_moves_no_timer() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    let before = bench.timers[1][&Timer::Watch(Slot::A)].clone();
    let effects = bench.say(store, 1, Msg::Changed { version: 7 });
    assert!(is_read(&effects));
    assert!(sets(&effects, Timer::Watch(Slot::A)).is_none());
    assert_eq!(bench.timers[1][&Timer::Watch(Slot::A)], before);
    assert_eq!(bench.elector(1).seen.as_ref().unwrap().version, 1);
}

//= SPEC LEASE-2 test
#[test]
fn the_answer_to_a_replaced_read_is_not_looked_at() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(1, Timer::Poll);
    bench.deliver(1, store);
    let late = bench.lose(store, 1);
    let first = bench.elector(1).reading.unwrap().nonce;
    while bench.elector(1).reading.unwrap().nonce == first {
        bench.fire(1, Timer::Poll);
    }
    let before = bench.elector(1).clone();
    assert_eq!(bench.say(store, 1, late), []);
    assert_eq!(*bench.elector(1), before);
}

//= SPEC LEASE-2 test
#[test]
fn a_free_record_is_taken_at_once() {
    let mut bench = Bench::new(2);
    bench.start(0);
    bench.start(bench.store());
    bench.deliver(0, bench.store());
    let effects = bench.deliver(bench.store(), 0);
    let (_, expect, claim) = write_in(&effects);
    assert_eq!((expect, claim.epoch), (Expect::Version(0), 1));
    assert_eq!(bench.phase(0), Phase::Acquiring);
}

//= SPEC LEASE-2 test
#[test]
fn a_record_in_the_name_of_the_running_life_is_taken_at_once_with_a_new_epoch() {
    let mut bench = Bench::new(2).elected();
    bench.fire(0, Timer::Hold(Slot::A));
    bench.hook_done(0);
    bench.deliver(0, bench.store());
    let (_, expect, claim) = write_in(&bench.deliver(bench.store(), 0));
    assert_eq!((expect, claim.epoch), (Expect::Version(1), 2));
    bench.settle();
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 2, slot: Slot::A });
}

//= SPEC LEASE-3 test
#[test]
fn a_changed_version_starts_the_watch_again_and_an_unchanged_one_does_not() {
    let mut bench = Bench::new(2).elected();
    bench.fire(1, Timer::Poll);
    bench.deliver(1, bench.store());
    let effects = bench.deliver(bench.store(), 1);
    assert!(sets(&effects, Timer::Watch(Slot::A)).is_none());
    bench.renew(0);
    let effects = bench.fire(1, Timer::Poll);
    assert!(sets(&effects, Timer::Watch(Slot::A)).is_none(), "not at the send of the read");
    bench.deliver(1, bench.store());
    let effects = bench.deliver(bench.store(), 1);
    assert_eq!(sets(&effects, Timer::Watch(Slot::A)), Some(L..L));
}

//= SPEC LEASE-3 test
#[test]
fn of_two_periods_the_longer_is_waited_for() {
    for (mine, holders, waited) in [(20, 30, 30), (30, 20, 30)] {
        let lease = |host| Duration::from_secs(if host == 0 { holders } else { mine });
        let bench = Bench::with(2, false, |host, timing| Timing { lease: lease(host), ..timing });
        let waited = Duration::from_secs(waited);
        assert_eq!(bench.elected().timers[1][&Timer::Watch(Slot::A)], waited..waited);
    }
}

//= SPEC LEASE-4 test
#[test]
fn the_watched_version_is_written_over_and_no_newer_one() {
    let mut bench = Bench::new(2).elected();
    // The holder renews in the last moment, and the watcher does not know.
    bench.renew(0);
    let (_, expect, _) = write_in(&bench.fire(1, Timer::Watch(Slot::A)));
    assert_eq!(expect, Expect::Version(1));
    bench.deliver(1, bench.store());
    bench.deliver(bench.store(), 1);
    assert_eq!(bench.phase(1), WATCHES);
    assert_eq!(bench.record().claim.holder.unwrap().node, NodeId(0));
}

//= SPEC LEASE-34 test
//= SPEC LEASE-38 test
#[test]
fn an_unanswered_read_keeps_its_name_until_it_is_as_old_as_the_give_up_time() {
    let mut bench = Bench::new(2).elected();
    let poll = Timing::DEFAULT.poll;
    let times = Timing::DEFAULT.give_up.as_millis() / poll.as_millis();
    let mut nonces: Vec<Nonce> = Vec::new();
    for _ in 0..times {
        let effects = bench.fire(1, Timer::Poll);
        let [(_, Msg::Read { nonce })] = sends(&effects)[..] else { panic!("one read") };
        nonces.push(nonce);
        assert_eq!(sets(&effects, Timer::Poll).unwrap().end, poll, "the wait is always the same");
    }
    let first = nonces[0];
    assert!(nonces.iter().all(|&nonce| nonce == first), "{nonces:?}");
    let effects = bench.fire(1, Timer::Poll);
    let [(_, Msg::Read { nonce })] = sends(&effects)[..] else { panic!("one read") };
    assert_ne!(nonce, first, "what is older than G could do no good");
}

//= SPEC LEASE-38 test
#[test]
fn the_answer_to_the_first_of_many_sendings_counts_and_those_to_the_others_do_not() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(1, Timer::Poll);
    bench.fire(1, Timer::Poll);
    bench.deliver(1, store);
    bench.deliver(store, 1);
    assert_eq!(bench.elector(1).reading, None);
    let before = bench.states.clone();
    bench.deliver(1, store);
    assert_eq!(bench.deliver(store, 1), []);
    assert_eq!(bench.states, before);
}

//= SPEC LEASE-38 test
#[test]
fn a_renewal_sent_again_is_the_same_write_with_the_hold_timer_of_the_first() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    let first = write_in(&bench.fire(0, Timer::Attempt));
    let effects = bench.fire(0, Timer::Attempt);
    assert_eq!(write_in(&effects), first);
    for slot in [Slot::A, Slot::B] {
        assert_eq!(sets(&effects, Timer::Hold(slot)), None, "the deadline counts from the first");
    }
    // Both copies arrive. The second is refused, because of the first.
    bench.deliver(0, store);
    bench.deliver(0, store);
    bench.deliver(store, 0);
    let before = bench.states.clone();
    assert_eq!(bench.deliver(store, 0), []);
    assert_eq!(bench.states, before);
    assert!(bench.phase(0).holding().is_some());
}

//= SPEC LEASE-38 test
#[test]
fn a_release_sent_again_is_the_same_write() {
    let mut bench = Bench::new(2).elected();
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    let first = write_in(&bench.hook_done(0));
    assert_eq!(write_in(&bench.fire(0, Timer::Attempt)), first);
}

//= SPEC LEASE-36 test
#[test]
fn a_node_outside_the_in_sync_set_never_takes_over() {
    let mut bench = Bench::new(2).elected();
    let me = NodeId(1);
    bench.overwrite(|claim| claim.in_sync = claim.in_sync.without(me));
    bench.fire(1, Timer::Poll);
    bench.settle();
    assert!(!bench.is_armed(1, Timer::Watch(Slot::A)), "it does not even watch");
    // Not when the lease is free, and not when the holder consents.
    let record = bench.record();
    assert_eq!(bench.say(0, 1, Msg::Consent { record }), []);
    bench.overwrite(|claim| claim.holder = None);
    bench.fire(1, Timer::Poll);
    bench.settle();
    assert_eq!(bench.phase(1), WATCHES);
    assert!(bench.record().is_free());
}

//= SPEC LEASE-30 test
#[test]
fn only_the_store_is_believed_about_the_record_and_only_the_own_host_commands() {
    let mut bench = Bench::new(3).elected();
    bench.fire(1, Timer::Poll);
    let nonce = bench.elector(1).reading.unwrap().nonce;
    let before = bench.states.clone();
    let record = Record::absent();
    assert_eq!(bench.say(2, 1, Msg::ReadOk { nonce, record }), []);
    assert_eq!(bench.say(2, 1, Msg::Changed { version: 9 }), []);
    assert_eq!(bench.say(1, 0, Msg::StepDown { epoch: 1 }), []);
    assert_eq!(bench.say(1, 0, Msg::HandOver { target: NodeId(1), epoch: 1 }), []);
    assert_eq!(bench.say(1, 0, Msg::Stopped { epoch: 1 }), []);
    assert_eq!(bench.states, before);
}

// -------------------------------------------------------------------------------------------------
// Acquiring and holding
// -------------------------------------------------------------------------------------------------

//= SPEC LEASE-5 test
#[test]
fn an_acquirer_stays_read_only_until_the_commit_is_known() {
    let mut bench = Bench::with_table(2);
    for node in 0..4 {
        bench.start(node);
    }
    let (store, client) = (bench.store(), bench.client());
    bench.deliver(0, store);
    bench.deliver(store, 0);
    bench.deliver(0, store);
    // The store has committed, and the host does not know it yet.
    assert_eq!(bench.record().claim.holder.unwrap().node, NodeId(0));
    assert_eq!(bench.phase(0), Phase::Acquiring);
    let write = bench.write(1);
    let effects = bench.say(client, 0, write.clone());
    assert!(matches!(sends(&effects)[..], [(_, Msg::Refused { .. })]));
    bench.deliver(store, 0);
    assert_eq!(bench.phase(0), HOLDS);
    bench.say(client, 0, write);
    assert_eq!(bench.host(0).replica.as_ref().unwrap().table.log.len(), 1);
}

//= SPEC LEASE-5 test
#[test]
fn an_acquirer_whose_deadline_passes_without_an_answer_watches_again() {
    let mut bench = Bench::new(2).elected();
    bench.fire(1, Timer::Watch(Slot::A));
    assert_eq!(bench.phase(1), Phase::Acquiring);
    let effects = bench.fire(1, Timer::Hold(Slot::A));
    assert_eq!(bench.phase(1), WATCHES);
    assert!(is_read(&effects));
}

//= SPEC LEASE-6 test
#[test]
fn every_attempt_has_a_name_and_a_deadline_of_its_own_from_its_send() {
    let mut bench = Bench::new(2).elected();
    let first = bench.fire(0, Timer::Attempt);
    // Clocks drift: it is given up while the grant still counts.
    bench.fire(0, Timer::Hold(Slot::B));
    let second = bench.fire(0, Timer::Attempt);
    let (one, expect, _) = write_in(&first);
    let (two, expect_again, _) = write_in(&second);
    assert_ne!(one, two);
    assert_eq!([expect, expect_again], [Expect::Version(1); 2]);
    for effects in [first, second] {
        assert_eq!(sets(&effects, Timer::Hold(Slot::B)), Some(G..G));
        assert!(sets(&effects, Timer::Hold(Slot::A)).is_none(), "the grant's deadline stays");
    }
}

//= SPEC LEASE-7 test
#[test]
fn only_the_answer_to_the_attempt_under_way_counts() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    let late = bench.lose(store, 0);
    bench.fire(0, Timer::Hold(Slot::B));
    bench.fire(0, Timer::Attempt);
    let before = bench.elector(0).clone();
    assert_eq!(bench.say(store, 0, late), []);
    assert_eq!(*bench.elector(0), before);
}

//= SPEC LEASE-7 test
#[test]
fn a_committed_renewal_makes_the_deadline_of_its_own_send_the_one_that_counts() {
    let mut bench = Bench::new(2).elected();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, bench.store());
    let effects = bench.deliver(bench.store(), 0);
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 1, slot: Slot::B });
    assert!(cancels(&effects, Timer::Hold(Slot::A)));
    assert!(sets(&effects, Timer::Hold(Slot::B)).is_none(), "not counted from the answer");
    assert!(bench.is_armed(0, Timer::Hold(Slot::B)));
}

//= SPEC LEASE-8 test
#[test]
fn lost_answer_is_read_back() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    bench.lose(store, 0);
    bench.fire(0, Timer::Hold(Slot::B));
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    // The conflict shows the host's own earlier write: it still holds, and claims over that.
    let effects = bench.deliver(store, 0);
    assert_eq!(bench.phase(0), HOLDS);
    assert_eq!(write_in(&effects).1, Expect::Version(2));
    assert!(bench.is_armed(0, Timer::Hold(Slot::A)), "the deadline has not moved");
    bench.deliver(0, store);
    bench.deliver(store, 0);
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 1, slot: Slot::B });
    assert_eq!(bench.record().version, 3);
}

//= SPEC LEASE-8 test
#[test]
fn a_write_that_the_network_doubles_is_granted_by_either_answer() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    let write = bench.lose(0, store);
    bench.say(0, store, write.clone());
    bench.say(0, store, write);
    assert!(matches!(bench.lose(store, 0), Msg::Written { .. }));
    // Only the refusal of the second copy arrives, and it carries the attempt's own name.
    bench.deliver(store, 0);
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 1, slot: Slot::B });
}

//= SPEC LEASE-8 test
#[test]
fn another_holder_in_the_answer_ends_the_term_at_once() {
    let mut bench = Bench::new(2).elected();
    let other = Holder { node: NodeId(1), incarnation: 1 };
    bench.overwrite(|claim| (claim.holder, claim.epoch) = (Some(other), 2));
    bench.renew(0);
    assert_eq!(bench.phase(0), STOPS);
}

//= SPEC LEASE-8 test
#[test]
fn a_foreign_change_of_another_field_does_not_end_the_term() {
    let mut bench = Bench::new(2).elected();
    bench.overwrite(|claim| claim.lease += Duration::from_secs(1));
    bench.renew(0);
    assert_eq!(bench.phase(0), HOLDS);
    bench.settle();
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 1, slot: Slot::B });
}

//= SPEC LEASE-9 test
#[test]
fn the_deadline_is_final_even_while_a_renewal_is_in_flight() {
    let mut bench = Bench::new(2).elected();
    bench.fire(0, Timer::Attempt);
    bench.fire(0, Timer::Hold(Slot::A));
    assert_eq!(bench.phase(0), STOPS);
}

//= SPEC LEASE-9 test
#[test]
fn a_holder_that_is_cut_off_asks_nobody() {
    let mut bench = Bench::new(2).elected();
    bench.crash(bench.store());
    bench.fire(0, Timer::Attempt);
    bench.fire(0, Timer::Attempt);
    assert_eq!(bench.phase(0), HOLDS);
    let effects = bench.fire(0, Timer::Hold(Slot::A));
    // What it sends is to itself: stop.
    assert_eq!(sends(&effects), [(0, Msg::Stopped { epoch: 1 })]);
    assert_eq!(bench.phase(0), STOPS);
}

//= SPEC LEASE-10 test
#[test]
fn renewal_arrives_after_expiry() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    // Its own deadline passes before its answer comes, and before that of the grant.
    bench.fire(0, Timer::Hold(Slot::B));
    assert_eq!(bench.phase(0), HOLDS);
    let effects = bench.deliver(store, 0);
    assert_eq!(effects, []);
    assert_eq!(bench.phase(0), HOLDS);
    assert!(bench.is_armed(0, Timer::Hold(Slot::A)), "the holder still has a deadline");
}

//= SPEC LEASE-24 test
#[test]
fn thousand_renewals_keep_holder_and_epoch() {
    let mut bench = Bench::new(2).elected();
    let holder = bench.record().claim.holder;
    for n in 1..=1000 {
        bench.renew(0);
        let record = bench.record();
        assert_eq!((record.claim.holder, record.claim.epoch), (holder, 1));
        assert_eq!(record.version, 1 + n);
    }
}

//= SPEC LEASE-24 test
#[test]
fn each_change_of_holder_raises_the_epoch_once() {
    let mut bench = Bench::new(2).elected();
    // A takeover: the one who takes raises it.
    bench.fire(1, Timer::Watch(Slot::A));
    bench.settle();
    assert_eq!(bench.phase(1), Phase::Holding { epoch: 2, slot: Slot::A });
    // A release: the one who releases raises it, and the successor keeps that.
    bench.say(1, 1, Msg::StepDown { epoch: 2 });
    bench.hook_done(1);
    bench.deliver(1, bench.store());
    assert_eq!(bench.record().claim.epoch, 3);
    bench.renew(0);
    bench.hook_done(0);
    bench.settle();
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 3, slot: Slot::A });
}

//= SPEC LEASE-24 test
#[test]
fn a_takeover_whose_answer_was_lost_is_found_by_asking_again() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(1, Timer::Watch(Slot::A));
    bench.deliver(1, store);
    bench.lose(store, 1);
    bench.fire(1, Timer::Attempt);
    bench.settle();
    assert_eq!(bench.phase(1), Phase::Holding { epoch: 2, slot: Slot::A });
    assert_eq!(bench.record().version, 2, "one write, sent twice");
}

//= SPEC LEASE-24 test
#[test]
fn a_takeover_that_was_given_up_is_claimed_again_as_a_term_of_its_own() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(1, Timer::Watch(Slot::A));
    bench.deliver(1, store);
    bench.lose(store, 1);
    assert_eq!(bench.record().claim.epoch, 2);
    bench.fire(1, Timer::Hold(Slot::A));
    assert_eq!(bench.phase(1), WATCHES);
    bench.settle();
    // Nobody has ever acted under epoch 2.
    assert_eq!(bench.phase(1), Phase::Holding { epoch: 3, slot: Slot::A });
}

//= SPEC LEASE-37 test
#[test]
fn each_watcher_reports_the_holder_that_the_record_names() {
    let mut bench = Bench::new(3).elected();
    let reported = |bench: &Bench| {
        [0, 1, 2].map(|node: usize| {
            let state = bench.states[node].as_ref().unwrap();
            match bench.members[node].view(Id::from(node), state) {
                View::Host(view) => view.holder.unwrap(),
                other => panic!("a host: {other:?}"),
            }
        })
    };
    assert_eq!(reported(&bench), [NodeId(0); 3]);
    bench.fire(1, Timer::Watch(Slot::A));
    bench.settle();
    bench.fire(0, Timer::Attempt);
    bench.fire(2, Timer::Poll);
    bench.settle();
    assert_eq!(reported(&bench), [NodeId(1); 3]);
}

//= SPEC LEASE-29 test
#[test]
fn the_record_carries_the_configured_period_to_the_nanosecond() {
    let lease = Duration::new(15, 1);
    let bench = Bench::with(2, false, |_, timing| Timing { lease, ..timing });
    assert_eq!(bench.elected().record().claim.lease, lease);
}

//= SPEC LEASE-32 test
//= SPEC TIME-16 test
#[test]
fn an_unanswered_renewal_is_sent_again_and_an_answered_one_is_followed_by_the_next() {
    let mut bench = Bench::new(2).elected();
    let timing = Timing::DEFAULT;
    let due = bench.timers[0][&Timer::Attempt].clone();
    assert_eq!(due, timing.renew - timing.jitter..timing.renew);
    let effects = bench.fire(0, Timer::Attempt);
    let again = timing.retry - timing.jitter..timing.retry;
    assert_eq!(sets(&effects, Timer::Attempt), Some(again.clone()));
    let effects = bench.fire(0, Timer::Attempt);
    assert_eq!(sets(&effects, Timer::Attempt), Some(again));
    bench.lose(0, bench.store());
    bench.deliver(0, bench.store());
    let effects = bench.deliver(bench.store(), 0);
    assert_eq!(sets(&effects, Timer::Attempt), Some(due));
}

// -------------------------------------------------------------------------------------------------
// The end of a term
// -------------------------------------------------------------------------------------------------

//= SPEC LEASE-11 test
#[test]
fn a_late_answer_after_the_stop_changes_nothing() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    assert_eq!(bench.phase(0), Phase::Stopping { epoch: 1, then: Then::Release });
    assert_eq!(bench.elector(0).attempt, None);
    for timer in [Timer::Attempt, Timer::Hold(Slot::A), Timer::Hold(Slot::B)] {
        assert!(!bench.is_armed(0, timer), "{timer:?}");
    }
    assert_eq!(bench.deliver(store, 0), []);
    assert_eq!(bench.phase(0), Phase::Stopping { epoch: 1, then: Then::Release });
}

//= SPEC LEASE-12 test
#[test]
fn release_waits_for_the_stop_hook() {
    let mut bench = Bench::new(2).elected();
    let effects = bench.say(0, 0, Msg::StepDown { epoch: 1 });
    assert_eq!(sends(&effects), [(0, Msg::Stopped { epoch: 1 })]);
    // The hook of another term says nothing about this one.
    assert_eq!(bench.say(0, 0, Msg::Stopped { epoch: 9 }), []);
    assert_eq!(bench.phase(0).writable(), Some(1));
    let effects = bench.hook_done(0);
    assert_eq!(write_in(&effects).2.holder, None);
    assert_eq!(bench.phase(0).writable(), None);
}

//= SPEC LEASE-12 test
#[test]
fn consent_waits_for_the_stop_hook() {
    let mut bench = Bench::new(2).elected();
    let effects = bench.say(0, 0, Msg::HandOver { target: NodeId(1), epoch: 1 });
    assert_eq!(sends(&effects), [(0, Msg::Stopped { epoch: 1 })]);
    let effects = bench.hook_done(0);
    let record = bench.record();
    assert!(sends(&effects).contains(&(1, Msg::Consent { record })));
    assert_eq!(bench.phase(0).writable(), None);
}

//= SPEC LEASE-13 test
#[test]
fn a_consented_hand_over_needs_no_wait() {
    let mut bench = Bench::new(2).elected();
    bench.say(0, 0, Msg::HandOver { target: NodeId(1), epoch: 1 });
    bench.hook_done(0);
    let (_, expect, claim) = write_in(&bench.deliver(0, 1));
    assert_eq!((expect, claim.epoch), (Expect::Version(1), 2));
    bench.settle();
    assert_eq!(bench.phase(1), Phase::Holding { epoch: 2, slot: Slot::A });
}

//= SPEC LEASE-13 test
#[test]
fn consent_for_an_old_version_does_no_harm() {
    let mut bench = Bench::new(2).elected();
    let old = bench.record();
    bench.renew(0);
    // The watcher has not seen the renewal: it asks, and the store refuses.
    let (_, expect, _) = write_in(&bench.say(0, 1, Msg::Consent { record: old.clone() }));
    assert_eq!(expect, Expect::Version(1));
    bench.settle();
    assert_eq!((bench.phase(0).holding(), bench.phase(1)), (Some(1), WATCHES));
    // Now it has seen it, and does not even ask.
    assert_eq!(bench.say(0, 1, Msg::Consent { record: old }), []);
}

//= SPEC LEASE-13 test
#[test]
fn nobody_consents_for_another() {
    let mut bench = Bench::new(3).elected();
    let record = bench.record();
    assert_eq!(bench.say(2, 1, Msg::Consent { record: record.clone() }), []);
    assert_eq!(bench.say(1, 1, Msg::Consent { record }), []);
    assert_eq!(bench.say(2, 1, Msg::Consent { record: Record::absent() }), []);
    assert_eq!(bench.phase(1), WATCHES);
}

//= SPEC LEASE-14 test
#[test]
fn a_release_leaves_a_tombstone_that_carries_the_next_epoch() {
    let mut bench = Bench::new(2).elected();
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    let (_, expect, _) = write_in(&bench.hook_done(0));
    assert_eq!(expect, Expect::Version(1));
    bench.deliver(0, bench.store());
    let record = bench.record();
    assert_eq!((record.version, record.claim.holder, record.claim.epoch), (2, None, 2));
    assert_eq!(record.claim.in_sync, [NodeId(0), NodeId(1)].into_iter().collect());
}

//= SPEC LEASE-14 test
#[test]
fn a_renewal_that_landed_unseen_is_released_over() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    bench.deliver(0, store);
    bench.lose(store, 0);
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    bench.hook_done(0);
    bench.deliver(0, store);
    // The release conflicts with the renewal, and is repeated over it.
    assert_eq!(write_in(&bench.deliver(store, 0)).1, Expect::Version(2));
    bench.deliver(0, store);
    assert!(bench.record().is_free());
}

//= SPEC LEASE-16 test
#[test]
fn late_duplicate_after_release_changes_nothing() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.fire(0, Timer::Attempt);
    let renewal = bench.lose(0, store);
    bench.say(0, store, renewal.clone());
    bench.deliver(store, 0);
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    bench.hook_done(0);
    bench.deliver(0, store);
    let released = bench.record();
    let effects = bench.say(0, store, renewal);
    assert_eq!(bench.record(), released);
    assert!(matches!(sends(&effects)[..], [(0, Msg::Conflict { .. })]));
}

//= SPEC LEASE-33 test
#[test]
fn after_a_release_the_host_stands_back_until_somebody_leads_or_the_period_has_passed() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.say(0, 0, Msg::StepDown { epoch: 1 });
    let effects = bench.hook_done(0);
    assert_eq!(sets(&effects, Timer::Yield), Some(L..L));
    bench.deliver(0, store);
    bench.deliver(store, 0);
    bench.deliver(0, store);
    bench.deliver(store, 0);
    // It sees a free record, and leaves it to others.
    let stands_back = Phase::Watching { yielding: Some(Yielding::Anybody), ripe: false };
    assert_eq!(bench.phase(0), stands_back);
    // Nobody wanted it.
    bench.fire(0, Timer::Yield);
    bench.settle();
    assert_eq!(bench.phase(0), Phase::Holding { epoch: 2, slot: Slot::A });
}

//= SPEC LEASE-33 test
#[test]
fn a_hand_over_whose_consent_was_lost_is_said_again() {
    let mut bench = Bench::new(2).elected();
    bench.say(0, 0, Msg::HandOver { target: NodeId(1), epoch: 1 });
    bench.hook_done(0);
    bench.lose(0, 1);
    bench.deliver(0, bench.store());
    let effects = bench.deliver(bench.store(), 0);
    assert!(matches!(sends(&effects)[..], [(1, Msg::Consent { .. })]));
    bench.settle();
    assert_eq!(bench.phase(1).holding(), Some(2));
}

//= SPEC LEASE-33 test
#[test]
fn a_host_that_has_lost_its_term_contends_again() {
    let mut bench = Bench::new(2).elected();
    bench.fire(0, Timer::Hold(Slot::A));
    let effects = bench.hook_done(0);
    assert_eq!(bench.phase(0), WATCHES);
    assert!(is_read(&effects));
}

//= SPEC LEASE-35 test
#[test]
fn a_hand_over_is_for_this_term_and_for_a_host_that_has_every_write() {
    let mut bench = Bench::new(3).elected();
    let hand_over = |target, epoch| Msg::HandOver { target: NodeId(target), epoch };
    bench.overwrite(|claim| claim.in_sync = claim.in_sync.without(NodeId(2)));
    bench.renew(0);
    bench.settle();
    // To itself, to a node that is no host, to one outside of the in-sync set, in another term.
    for (target, epoch) in [(0, 1), (9, 1), (2, 1), (1, 2)] {
        assert_eq!(bench.say(0, 0, hand_over(target, epoch)), [], "{target} {epoch}");
    }
    assert_eq!(bench.say(0, 0, Msg::StepDown { epoch: 2 }), []);
    bench.say(0, 0, hand_over(1, 1));
    let then = Then::HandOver(NodeId(1));
    assert_eq!(bench.phase(0), Phase::Stopping { epoch: 1, then });
}

// -------------------------------------------------------------------------------------------------
// The store
// -------------------------------------------------------------------------------------------------

//= SPEC LEASE-15 test
#[test]
fn a_read_after_a_committed_write_shows_it_also_after_a_crash_of_the_store() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    bench.renew(0);
    let written = bench.record();
    bench.crash(store);
    bench.start(store);
    let nonce = Nonce { by: Holder { node: NodeId(1), incarnation: 1 }, n: 77 };
    let effects = bench.say(1, store, Msg::Read { nonce });
    assert_eq!(sends(&effects), [(1, Msg::ReadOk { nonce, record: written })]);
    // A store has no timer: no time ends a lease there.
    assert!(bench.timers[usize::from(store)].is_empty());
}

//= SPEC LEASE-16 test
#[test]
fn the_store_saves_before_it_answers_and_adds_one_to_the_version() {
    let mut bench = Bench::new(2).elected();
    bench.fire(0, Timer::Attempt);
    let effects = bench.deliver(0, bench.store());
    let [Effect::Save(Storage::Store(saved)), Effect::Send(_, Msg::Written { record, .. })] =
        &effects[..]
    else {
        panic!("a save, then an answer: {effects:?}")
    };
    assert_eq!((saved, record.version), (record, 2));
}

//= SPEC LEASE-16 test
#[test]
fn a_refusal_shows_the_record_and_changes_nothing() {
    let mut bench = Bench::new(2).elected();
    let store = bench.store();
    let record = bench.record();
    let nonce = Nonce { by: Holder { node: NodeId(1), incarnation: 1 }, n: 77 };
    for version in [0, 2] {
        let (expect, claim) = (Expect::Version(version), record.claim.clone());
        let effects = bench.say(1, store, Msg::Write { nonce, expect, claim });
        let refusal = Msg::Conflict { nonce, record: record.clone() };
        assert_eq!(effects, [Effect::Send(Id::from(1), refusal)]);
    }
    assert_eq!(bench.record(), record);
}

//= SPEC LEASE-28 test
#[test]
fn two_leases_have_different_primaries() {
    // The same two nodes, one bench for each lease: nothing that a member knows is shared.
    let mut orders = Bench::new(2).elected();
    let mut stock = Bench::new(2).elected();
    stock.fire(1, Timer::Watch(Slot::A));
    stock.settle();
    orders.renew(0);
    assert_eq!((orders.phase(0).holding(), orders.phase(1).holding()), (Some(1), None));
    assert_eq!(stock.phase(1).holding(), Some(2));
    assert_eq!(orders.record().claim.holder.unwrap().node, NodeId(0));
    assert_eq!(stock.record().claim.holder.unwrap().node, NodeId(1));
}

// -------------------------------------------------------------------------------------------------
// The table
// -------------------------------------------------------------------------------------------------

fn fence(bench: &Bench, node: u16) -> u64 {
    bench.host(node).replica.as_ref().unwrap().table.fence
}

fn saved_fence(effects: &Effects) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Save(Storage::Host(host)) => host.table.as_ref().map(|table| table.fence),
        _ => None,
    })
}

//= SPEC LEASE-17 test
#[test]
fn the_fence_is_raised_and_saved_in_the_step_that_opens_the_replica() {
    let mut bench = Bench::with_table(2).elected();
    bench.fire(1, Timer::Watch(Slot::A));
    bench.deliver(1, bench.store());
    assert!(!bench.is_primary(1));
    let effects = bench.deliver(bench.store(), 1);
    assert!(bench.is_primary(1));
    assert_eq!((fence(&bench, 1), saved_fence(&effects)), (2, Some(2)));
    assert!(
        sends(&effects).iter().any(|(to, msg)| *to == 0 && matches!(msg, Msg::Replicate { .. })),
        "the others are asked where they stand"
    );
}

//= SPEC LEASE-17 test
#[test]
fn a_host_whose_replica_has_seen_a_higher_epoch_ends_its_term_at_once() {
    let mut bench = Bench::with_table(3).elected();
    bench.fire(1, Timer::Watch(Slot::A));
    bench.deliver(1, bench.store());
    // While the answer is under way, a later primary shows itself.
    let probe = Msg::Replicate { epoch: 3, prev: EntryId::default(), entry: None, committed: 0 };
    bench.say(2, 1, probe);
    bench.deliver(bench.store(), 1);
    assert_eq!(bench.phase(1), Phase::Stopping { epoch: 2, then: Then::Watch });
    assert!(!bench.is_primary(1));
}

//= SPEC LEASE-31 test
#[test]
fn the_replica_is_primary_exactly_while_the_elector_holds() {
    let mut bench = Bench::with_table(2).elected();
    assert_eq!([0, 1].map(|host| bench.is_primary(host)), [true, false]);
    bench.fire(0, Timer::Hold(Slot::A));
    // In the very step that ends the term, while the stop hook still runs.
    assert!(!bench.is_primary(0));
    let write = bench.write(1);
    let effects = bench.say(bench.client(), 0, write);
    assert!(matches!(sends(&effects)[..], [(_, Msg::Refused { .. })]));
}

//= SPEC LEASE-31 test
#[test]
fn a_role_without_a_table_is_elected_by_the_same_protocol() {
    let mut job = Bench::new(2).elected();
    let mut table = Bench::with_table(2).elected();
    for bench in [&mut job, &mut table] {
        bench.fire(1, Timer::Watch(Slot::A));
        bench.settle();
        assert_eq!(bench.phase(1).holding(), Some(2));
    }
    assert_eq!(job.record(), table.record());
}

//= SPEC LEASE-18 test
#[test]
fn a_secondary_refuses_writes_and_names_the_holder() {
    let mut bench = Bench::with_table(2).elected();
    let Msg::Apply { request, .. } = bench.write(1) else { unreachable!() };
    let write = bench.write(1);
    let effects = bench.say(bench.client(), 1, write);
    let refusal = Msg::Refused { request, holder: Some(NodeId(0)) };
    assert_eq!(sends(&effects), [(usize::from(bench.client()), refusal)]);
}

//= SPEC LEASE-18 test
#[test]
fn one_write_asked_for_twice_is_applied_once() {
    let mut bench = Bench::with_table(2).elected();
    let client = bench.client();
    let write = bench.write(1);
    bench.say(client, 0, write.clone());
    bench.say(client, 0, write.clone());
    bench.settle();
    // Also by the next primary, which has it from the first.
    bench.fire(1, Timer::Watch(Slot::A));
    bench.settle();
    let effects = bench.say(client, 1, write);
    bench.settle();
    assert_eq!(bench.host(1).replica.as_ref().unwrap().table.last().seq, 1);
    assert!(sends(&effects).iter().all(|(_, msg)| !matches!(msg, Msg::Refused { .. })));
    // Nobody writes in another's name.
    let forged = bench.write(2);
    assert_eq!(bench.say(0, 1, forged), []);
}

//= SPEC LEASE-19 test
#[test]
fn a_write_is_acknowledged_when_every_in_sync_node_has_it() {
    let mut bench = Bench::with_table(3).elected();
    let client = bench.client();
    let write = bench.write(1);
    let effects = bench.say(client, 0, write);
    let applied = |effects: &Effects| {
        sends(effects).iter().any(|(_, msg)| matches!(msg, Msg::Applied { seq: 1, .. }))
    };
    assert!(!applied(&effects));
    bench.deliver(0, 1);
    assert!(!applied(&bench.deliver(1, 0)), "one of two");
    // The copy is saved before it is confirmed.
    let effects = bench.deliver(0, 2);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Save(_))));
    assert!(matches!(sends(&effects)[..], [(0, Msg::Replicated { .. })]));
    assert!(applied(&bench.deliver(2, 0)));
}

//= SPEC LEASE-20 test
#[test]
fn a_silent_replica_leaves_the_set_by_a_committed_write_before_the_primary_goes_on() {
    let mut bench = Bench::with_table(2).elected();
    let (store, client) = (bench.store(), bench.client());
    let write = bench.write(1);
    bench.say(client, 0, write);
    bench.crash(1);
    let first = bench.fire(0, Timer::Resend);
    assert!(!sends(&first).iter().any(|(_, msg)| matches!(msg, Msg::Write { .. })), "patience");
    let effects = bench.fire(0, Timer::Resend);
    let alone: NodeSet = [NodeId(0)].into_iter().collect();
    assert_eq!(write_in(&effects).2.in_sync, alone);
    bench.deliver(0, store);
    assert_eq!(bench.record().claim.in_sync, alone);
    let is_applied =
        |bench: &Bench| bench.mail.iter().any(|(_, _, msg)| matches!(msg, Msg::Applied { .. }));
    assert!(!is_applied(&bench), "committed, and the primary does not know it yet");
    bench.deliver(store, 0);
    assert!(is_applied(&bench));
    // It comes back, catches up, and is taken in again by the same kind of write.
    bench.start(1);
    bench.fire(0, Timer::Resend);
    bench.settle();
    assert_eq!(bench.record().claim.in_sync, alone.with(NodeId(1)));
}

//= SPEC LEASE-21 test
#[test]
fn a_replica_refuses_what_comes_below_its_fence() {
    let mut bench = Bench::with_table(2).elected();
    // The old primary's copy is under way while the next one takes over.
    let write = bench.write(1);
    bench.say(bench.client(), 0, write);
    let late = bench.lose(0, 1);
    bench.fire(1, Timer::Watch(Slot::A));
    bench.deliver(1, bench.store());
    bench.deliver(bench.store(), 1);
    let effects = bench.say(0, 1, late);
    assert_eq!(sends(&effects), [(0, Msg::Fenced { epoch: 1, fence: 2 })]);
    assert_eq!(bench.host(1).replica.as_ref().unwrap().table.last().seq, 0);
    // And the refusal ends the old term.
    let refusal =
        bench.mail.iter().position(|(_, to, msg)| *to == 0 && matches!(msg, Msg::Fenced { .. }));
    let (from, to, msg) = bench.mail.remove(refusal.unwrap());
    bench.say(from, to, msg);
    assert_eq!(bench.phase(0), STOPS);
}

//= SPEC LEASE-21 test
#[test]
fn a_replica_takes_an_entry_only_next_to_one_on_which_both_agree() {
    let mut bench = Bench::with_table(2).elected();
    let Msg::Apply { request, key, value } = bench.write(2) else { unreachable!() };
    let entry = Some((2, Entry { epoch: 1, request, key, value }));
    let prev = EntryId { seq: 1, epoch: 1 };
    let effects = bench.say(0, 1, Msg::Replicate { epoch: 1, prev, entry, committed: 0 });
    assert_eq!(sends(&effects), [(0, Msg::Behind { epoch: 1, committed: 0 })]);
}

//= SPEC LEASE-22 test
#[test]
fn each_life_has_a_new_incarnation_that_is_saved_in_its_first_step() {
    let mut bench = Bench::with_table(2);
    for life in 1..=3 {
        let effects = bench.start(0);
        let saved = effects.iter().find_map(|effect| match effect {
            Effect::Save(Storage::Host(host)) => Some(host.incarnation),
            _ => None,
        });
        assert_eq!(saved, Some(life));
        let [(_, Msg::Read { nonce })] = sends(&effects)[..] else { panic!("one read") };
        assert_eq!((nonce.by, nonce.n), (Holder { node: NodeId(0), incarnation: life }, 1));
        bench.crash(0);
    }
}

//= SPEC LEASE-23 test
#[test]
fn a_client_asks_from_host_to_host_under_one_name() {
    let mut bench = Bench::with_table(2);
    let client = bench.client();
    bench.start(client);
    let submit = Msg::Submit { key: "k".to_owned(), value: "v".to_owned() };
    let mut effects = bench.say(client, client, submit);
    let mut asked = Vec::new();
    for _ in 0..3 {
        let [(to, Msg::Apply { request, .. })] = &sends(&effects)[..] else { panic!("one write") };
        asked.push((*to, *request));
        effects = bench.fire(client, Timer::Retry);
    }
    let request = RequestId { client: NodeId(client), incarnation: 1, n: 1 };
    assert_eq!(asked, [(0, request), (1, request), (0, request)]);
    // The retry has gone to host 1; its refusal names the holder, and the client follows.
    let refused = Msg::Refused { request, holder: Some(NodeId(0)) };
    let effects = bench.say(1, client, refused);
    assert!(matches!(sends(&effects)[..], [(0, Msg::Apply { .. })]));
    let applied = Msg::Applied { request, epoch: 1, seq: 1 };
    let effects = bench.say(0, client, applied.clone());
    assert!(cancels(&effects, Timer::Retry));
    assert_eq!(bench.say(0, client, applied), [], "a second acknowledgement is a stranger");
}

// -------------------------------------------------------------------------------------------------
// Steps
// -------------------------------------------------------------------------------------------------

//= SPEC TIME-4 test
#[test]
fn the_same_inputs_make_the_same_steps() {
    let run = || {
        let mut bench = Bench::with_table(3).elected();
        let mut seen = Vec::new();
        let write = bench.write(1);
        seen.push(bench.say(bench.client(), 0, write));
        seen.push(bench.fire(0, Timer::Attempt));
        seen.push(bench.fire(1, Timer::Watch(Slot::A)));
        bench.settle();
        (seen, bench.states)
    };
    let first = run();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(run(), first);
}
