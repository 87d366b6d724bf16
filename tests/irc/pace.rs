//! How much is sent to a region that does not answer, or not always, in the time of a clock that the test
//! moves (I-25).

use tenure::irc::msg::Reply;
use tenure::irc::pace::{Breaker, Pacing};

use super::net::*;

/// How long a call takes that is answered, and one that is not.
const ROUND_TRIP: Duration = Duration::from_millis(50);
const CALL_MAX: Duration = Duration::from_secs(1);
/// How often the server polls, and for how much.
const POLL: Duration = Duration::from_millis(20);
const WIDTH: u8 = 64;
/// How many networks each region has.
const NETWORKS: u32 = 60;

/// One control plane, and a server of it that keeps no place free.
struct Clocked {
    now: Duration,
    party: Party,
    state: Option<PartyState>,
    timers: BTreeMap<Timer, Duration>,
    /// The calls that are under way, by when they end, and whether they are answered.
    calls: BTreeSet<(Duration, Work, ClaimEpoch, bool)>,
    /// Which call is answered: a function of how many there were before.
    answers: fn(usize) -> bool,
    sent: usize,
    created: u32,
    /// The most calls that were under way at once since that was last set to 0.
    widest: usize,
}

impl Clocked {
    fn new(safeguards: Safeguards, answers: fn(usize) -> bool) -> Self {
        let control = control(0, 2, &|control| {
            control.safeguards = safeguards;
            control.policy.quota = [usize::MAX; 3];
            let network = |n| (Network(n), (ALICE, block_of(Network(n))));
            control.networks = (0..NETWORKS).map(network).collect();
        });
        let mut clocked = Self {
            now: Duration::ZERO,
            party: Party::Control(control),
            state: None,
            timers: BTreeMap::new(),
            calls: BTreeSet::new(),
            answers,
            sent: 0,
            created: 0,
            widest: 0,
        };
        clocked.run(Input::Start(None));
        clocked
    }

    fn run(&mut self, input: Input<Msg, Timer, (), Storage>) {
        let (state, effects) = step(&self.party, Id::from(0), self.state.take(), input);
        self.state = Some(state);
        for effect in effects {
            match effect {
                Effect::SetTimer(timer, range) => {
                    // Half way: neither all at once nor as late as can be.
                    let after = (range.start + range.end) / 2;
                    self.timers.insert(timer, self.now + after);
                }
                Effect::CancelTimer(timer) => drop(self.timers.remove(&timer)),
                Effect::Send(_, Msg::Claimed(claim)) => {
                    let is_answered = (self.answers)(self.sent);
                    let took = if is_answered { ROUND_TRIP } else { CALL_MAX };
                    let (work, epoch) = claim.call.tag;
                    self.calls.insert((self.now + took, work, epoch, is_answered));
                    self.sent += 1;
                    self.widest = self.widest.max(self.calls.len());
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, src: usize, msg: Msg) {
        self.run(Input::Deliver { src: Id::from(src), msg });
    }

    /// A customer wants to peer, each time another pair of networks.
    fn create(&mut self, count: u32) {
        for n in self.created..self.created + count {
            let network = Network(n / NETWORKS);
            let target =
                Target { region: Region(1), account: ALICE, network: Network(n % NETWORKS) };
            let request = Request::Create { network, target, resolve_names: false };
            let token = Token(n.into());
            self.tell(CUSTOMER, Msg::Ask { n: 0, caller: ALICE, token, request });
        }
        self.created += count;
    }

    /// Lets time pass.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now += POLL;
            let due: Vec<Timer> =
                self.timers.iter().filter(|(_, at)| **at <= self.now).map(|(&t, _)| t).collect();
            for timer in due {
                self.timers.remove(&timer);
                self.run(Input::Fire(timer));
            }
            while let Some(&call) = self.calls.first().filter(|call| call.0 <= self.now) {
                self.calls.remove(&call);
                let (_, work, epoch, is_answered) = call;
                let incarnation = Incarnation { n: 1, life: 0 };
                let stored = Decided { deadline: Some(9), ..Decided::default() };
                let bundle = Bundle::Accepter(Sealed { facts: stored, seal: 1 });
                let status = Status::Ok(Body::of(&bundle));
                let outcome = match is_answered {
                    true => Outcome::Answered(Reply { tag: (work, epoch), incarnation, status }),
                    false => Outcome::TimedOut,
                };
                self.tell(2, Msg::Report { work, epoch, outcome: Box::new(outcome) });
            }
            self.tell(2, Msg::Poll { kinds: vec![Kind::PEERING], max: WIDTH });
        }
    }

    fn control(&self) -> &ControlState {
        match &self.state {
            Some(PartyState::Control(state)) => state,
            _ => panic!("a control plane"),
        }
    }

    fn left(&self) -> usize {
        self.control().ledger.records.len()
    }

    fn breaker(&self) -> Breaker {
        self.control().paces.get(&Region(1)).copied().unwrap_or_default().breaker
    }
}

/// How much is sent to a region within two minutes in which it answers nothing, and what is left.
fn two_dark_minutes(safeguards: Safeguards) -> Clocked {
    let mut clocked = Clocked::new(safeguards, |_| false);
    clocked.create(600);
    clocked.pass(Duration::from_secs(120));
    assert_eq!(clocked.left(), 600, "nothing is given up");
    clocked
}

/// As many as the limit of claims, some until ten have failed, ten retries, and a probe a second.
const DARK_MAX: usize = 32 + 10 + 10 + 120;

//= SPEC IRC-17 test
#[test]
fn a_region_that_answers_nothing_is_sent_probes_alone() {
    let mut clocked = two_dark_minutes(Safeguards::ALL);
    assert!(clocked.sent <= DARK_MAX, "{} calls", clocked.sent);
    assert!(matches!(clocked.breaker(), Breaker::Open { .. }));
    let count = clocked.control().counts.get(Region(1));
    assert!(count.retries as f64 <= count.first_sends as f64 * 0.1 + 120.0 + 10.0, "{count:?}");
    // New requests change nothing of that.
    let before = clocked.sent;
    clocked.create(100);
    clocked.pass(Duration::from_secs(60));
    assert!(clocked.sent - before <= 61, "{} calls in a minute", clocked.sent - before);
    // It answers again: what waited counts as never sent, and is released by a ramp.
    clocked.answers = |_| true;
    clocked.widest = 0;
    let mut widest = Vec::new();
    while clocked.breaker() != Breaker::Closed {
        clocked.pass(ROUND_TRIP);
        widest.push(clocked.calls.len());
        assert!(widest.len() < 100, "{widest:?}");
    }
    assert!(widest.contains(&1), "it begins with one: {widest:?}");
    let doubles = widest.windows(2).all(|pair| pair[1] <= 2 * pair[0].max(1) + 1);
    assert!(doubles, "it at most doubles with each round trip: {widest:?}");
    assert!(clocked.widest <= 32);
    let first = clocked.control().counts.get(Region(1)).first_sends;
    clocked.pass(Duration::from_secs(5));
    assert_eq!(clocked.left(), 0, "700 records need 22 round trips of 32");
    let count = clocked.control().counts.get(Region(1));
    assert!(count.first_sends > first, "what was tried before counts as a first send: {count:?}");
}

#[test]
fn without_budget_and_breaker_the_load_stays_high() {
    let clocked = two_dark_minutes(Safeguards::except(Safeguards::I_25_BUDGET_AND_BREAKER));
    assert!(clocked.sent > 10 * DARK_MAX, "only {} calls", clocked.sent);
}

//= SPEC IRC-36 test
#[test]
fn retries_are_a_share_of_first_sends_and_wait_for_better_times() {
    // Every fourth call is lost: too few for the breaker.
    let mut clocked = Clocked::new(Safeguards::ALL, |sent| sent % 4 != 0);
    for _ in 0..120 {
        clocked.create(20);
        clocked.pass(Duration::from_secs(1));
    }
    assert_eq!(clocked.breaker(), Breaker::Closed);
    let count = clocked.control().counts.get(Region(1));
    let Pacing { retry_percent, .. } = Pacing::default();
    let budget = count.first_sends * u64::from(retry_percent) / 100 + 120 + 10;
    assert!(count.retries <= budget, "{count:?}, budget {budget}");
    assert!(count.retries > 120 + 10, "the share counts too: {count:?}");
    assert!(!clocked.control().starved.is_empty(), "there is work that has no budget");
    let waiting = clocked.left();
    // All is well again. What has waited need not wait for one retry a second.
    clocked.answers = |_| true;
    clocked.create(40);
    clocked.pass(Duration::from_secs(10));
    assert_eq!(clocked.left(), 0, "of {waiting}");
}

#[test]
fn one_region_in_the_dark_takes_no_budget_of_another() {
    let mut net = Net::new(3);
    for network in 1..=6 {
        net.create(0, 1, network);
    }
    net.down = [1].into();
    for _ in 0..4 {
        net.settle();
        let server = net.server(0);
        for timer in net.armed(server, |timer| matches!(timer, Timer::Call(_))) {
            net.fire(server, timer);
        }
    }
    let paces = &net.control(0).paces;
    assert!(paces.contains_key(&Region(1)) && !paces.contains_key(&Region(2)), "{paces:?}");
    // A server that calls gives its place back only with the next answer or failure.
    let server = net.server(0);
    for timer in net.armed(server, |timer| matches!(timer, Timer::Call(_))) {
        net.fire(server, timer);
    }
    let far = net.create(0, 2, 7);
    net.settle();
    assert_eq!(net.label(0, far), Some(Label::PendingAcceptance));
}
