//! The engine and the world where other checkers have gone wrong: each test is a trap that a checker has
//! fallen into.

use std::borrow::Cow;
use std::time::Duration;

use stateright::actor::{Actor, ActorModel, Id, Network as TheirNetwork, Out};
use stateright::{Checker, Model, Property};
use tenure::models::engine::{End, Limits, explore};
use tenure::models::world::{Blind, Budget, Faults, Network, Time, World};
use tenure::step::Machine;

/// A chain of numbers in which everything from 3 on is wrong.
struct Chain {
    property: Property<Self>,
}

impl Model for Chain {
    type State = u32;
    type Action = u32;
    fn init_states(&self) -> Vec<u32> {
        vec![0]
    }
    fn actions(&self, state: &u32, actions: &mut Vec<u32>) {
        if *state < 100 {
            actions.extend([1, 2]);
        }
    }
    fn next_state(&self, state: &u32, action: u32) -> Option<u32> {
        Some(state + action)
    }
    fn properties(&self) -> Vec<Property<Self>> {
        vec![self.property.clone()]
    }
}

#[test]
fn the_first_violation_is_kept_and_is_the_shortest() {
    let chain = Chain { property: Property::<Chain>::always("small", |_, state| *state < 3) };
    for past_violations in [false, true] {
        let limits = Limits { past_violations, ..Limits::default() };
        let report = explore(&chain, limits, |_| ());
        assert_eq!(report.end, End::Violated);
        assert_eq!(report.violated, ["small"]);
        assert_eq!(report.discoveries["small"].steps.len(), 2);
        assert_eq!(report.exhaustive, past_violations);
    }
}

#[test]
fn a_witness_that_never_comes_is_a_violation() {
    let never = Property::<Chain>::sometimes("never", |_, state| *state > 1000);
    let report = explore(&Chain { property: never }, Limits::default(), |_| ());
    assert_eq!(report.end, End::Complete);
    assert_eq!(report.violated, ["never"]);
}

#[test]
#[should_panic(expected = "state it as a bound in time")]
fn an_eventually_is_refused_rather_than_guessed() {
    let property = Property::<Chain>::eventually("ends", |_, state| *state > 99);
    let _ = explore(&Chain { property }, Limits::default(), |_| ());
}

/// Answers every number up to a limit with the next one, and ignores the others; a timer may fire once.
#[derive(Clone)]
struct Player {
    serves_to: Option<Id>,
    timer: bool,
    last: u8,
}

impl Actor for Player {
    type Msg = u8;
    type Timer = ();
    type State = u8;
    type Storage = ();
    type Random = ();
    fn on_start(&self, _: Id, _: &Option<()>, o: &mut Out<Self>) -> u8 {
        if let Some(other) = self.serves_to {
            o.send(other, 1);
        }
        if self.timer {
            o.set_timer((), Duration::ZERO..Duration::ZERO);
        }
        0
    }
    fn on_msg(&self, _: Id, state: &mut Cow<'_, u8>, src: Id, msg: u8, o: &mut Out<Self>) {
        if msg <= self.last {
            *state.to_mut() = msg;
            if msg < self.last {
                o.send(src, msg + 1);
            }
        }
    }
}

impl Machine for Player {
    type View = u8;
    fn view(&self, _: Id, state: &u8) -> u8 {
        *state
    }
    fn deadline(&self, _: &u8) -> Option<()> {
        None
    }
    fn check(&self, _: Id, _: &u8) {}
}

fn world(actors: Vec<Player>) -> World<Player> {
    World {
        actors,
        time: Time::Untimed,
        network: Network::Free { repeats: false },
        faults: Faults { fires: Budget::Unlimited, ..Faults::NONE },
        observer: Blind,
        settled: Vec::new(),
        canonical: true,
        properties: Vec::new(),
    }
}

/// Armed-timer sets that are hashed without their length run into each other: `[{t}, {}]` and
/// `[{}, {t}]` look alike, and a checker that knows states by their hash sees three of these four.
#[test]
fn timers_of_two_actors_are_told_apart() {
    let player = Player { serves_to: None, timer: true, last: 0 };
    let report = explore(&world(vec![player.clone(), player]), Limits::default(), |_| ());
    assert_eq!((report.end, report.unique), (End::Complete, 4));
}

/// A message that nobody cares for is gone after its delivery; it does not lie about to be taken later.
#[test]
fn an_ignored_message_is_consumed() {
    let deaf = Player { serves_to: None, timer: false, last: 0 };
    let server = Player { serves_to: Some(Id::from(1)), ..deaf.clone() };
    let report = explore(&world(vec![server, deaf]), Limits::default(), |_| ());
    assert_eq!(report.unique, 2, "the message under way, and gone");
}

/// Where stateright's own actor model is sound (no timers, no ignored messages, no loss), the world has
/// exactly its states and transitions.
#[test]
fn the_world_and_the_actor_model_of_stateright_agree() {
    let player = |serves_to| Player { serves_to, timer: false, last: 5 };
    for servers in [1, 2] {
        let other = |node: usize| (node < servers).then(|| Id::from(1 - node));
        let actors = vec![player(other(0)), player(other(1))];
        let ours = explore(&world(actors.clone()), Limits::default(), |_| ());
        let theirs = ActorModel::new((), ())
            .actors(actors)
            .init_network(TheirNetwork::new_unordered_nonduplicating([]))
            .property(stateright::Expectation::Always, "true", |_, _| true)
            .checker()
            .spawn_bfs()
            .join();
        assert_eq!(ours.unique, theirs.unique_state_count() as u64, "{servers} servers: unique");
        assert_eq!(ours.generated, theirs.state_count() as u64, "{servers} servers: generated");
    }
}
