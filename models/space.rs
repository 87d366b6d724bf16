//! A model that can be walked by hand: one action after the other, and the shortest way to a state of a
//! certain kind.
//!
//! [`Space`] is what an explorer needs of a world, whatever its protocol. One walks in the *raw* world,
//! in which hosts keep their names and numbers grow as the hosts themselves see them; one searches in the
//! canonical one, where the state space is finite, and the path that is found is told in the raw one.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stateright::actor::Id;
use stateright::{Expectation, Model};

use super::engine::{self, End, Limits, Progress, Reason, fingerprint};
use super::idle::idle;
use super::lasso::{self, Question};
use super::portrait::{Portrait, Portray, portrait};
use super::raw::{RawStep, canonical, raw_path};
use super::tree::Tree;
use super::world::{Action, Event, Observer, StateOf, Subject, Time, World};
use crate::step::{Effect, EffectOf, Input, step};

/// A state of some space, as its explorer keeps it.
pub type Place = Arc<dyn Any + Send + Sync>;

/// A lane of a space-time diagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// The node's name.
    pub name: String,
    /// What kind of node it is.
    pub kind: String,
    /// How its clock runs, where the readings of a whole run show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
}

/// How a node's clock has run for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// After how many steps of the story the while begins; it ends with the step that shows it.
    pub from: usize,
    /// How it has run.
    pub rate: Rate,
    /// What shows it, in words.
    pub about: String,
}

/// How a clock runs against a true one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// Faster.
    Fast,
    /// As a true one would, as far as can be told.
    True,
    /// Slower.
    Slow,
}

/// A timer that a step sets or cancels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerSet {
    /// Whose.
    pub node: u16,
    /// Which, as it is printed.
    pub timer: String,
    /// For how long on the node's clock, at least and at most; none if it is cancelled.
    pub range: Option<Range<Duration>>,
}

/// An action in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Deliver, lose, fire, elapse, crash, recover, pause, resume, say, intervene.
    pub kind: String,
    /// All of it in one line.
    pub label: String,
    /// The node that handles it; none for what happens to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<u16>,
    /// Who has sent the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<u16>,
    /// To whom it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<u16>,
    /// The message or the timer in few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
    /// The message or the timer in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<String>,
}

/// Something that a node sends in a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// To whom.
    pub dst: u16,
    /// The message in few words.
    pub msg: String,
    /// The message in full.
    pub full: String,
}

/// A property on one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Its name.
    pub name: String,
    /// Whether it must hold in every state; otherwise there must be one in which it does.
    pub always: bool,
    /// Whether its condition is true of this state.
    pub is_true: bool,
}

/// What a state looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its fingerprint.
    pub fingerprint: u64,
    /// Each node.
    pub lanes: Vec<Portrait>,
    /// Each property.
    pub properties: Vec<Judged>,
    /// Whether the model goes on beyond it.
    pub within: bool,
}

/// What a search looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Every state there is, and on the way a discovery of each property.
    Everything,
    /// A state in which this `sometimes` property holds, or this `always` property does not.
    Property(String),
    /// A state in which one node's kind, condition and role have all of these words.
    Node(String),
}

/// What a search for a loop has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// The way to it and once around, as numbers of actions; none if there is no such way.
    pub path: Option<Vec<u32>>,
    /// After how many steps of it the loop begins; none if it ends where nothing can change any more.
    pub back_to: Option<usize>,
    /// Why not every state was seen, if so.
    pub incomplete: Option<Reason>,
    /// How many different states there were.
    pub unique: u64,
    /// How many were made.
    pub generated: u64,
    /// The depth of the deepest.
    pub depth: u32,
    /// How long it took.
    pub elapsed: Duration,
}

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Why it ended.
    pub end: End,
    /// Whether every reachable state was seen.
    pub exhaustive: bool,
    /// How many different states there were.
    pub unique: u64,
    /// How many were made.
    pub generated: u64,
    /// The depth of the deepest.
    pub depth: u32,
    /// How long it took.
    pub elapsed: Duration,
    /// For each property that has one, the shortest way to its discovery, as numbers of actions; for a state
    /// that is wanted, under [`WANTED`](engine::WANTED).
    pub paths: BTreeMap<&'static str, Vec<u32>>,
    /// The properties that are violated.
    pub violated: Vec<&'static str>,
}

/// A model that can be walked by hand.
pub trait Space: Send + Sync {
    /// The nodes.
    fn lanes(&self) -> Vec<Lane>;

    /// The properties: each with whether it must always hold.
    fn properties(&self) -> Vec<(&'static str, bool)>;

    /// Whether time passes here, in ticks.
    fn is_timed(&self) -> bool;

    /// The first state.
    fn start(&self) -> Place;

    /// What can happen there.
    fn actions(&self, place: &Place) -> Vec<Told>;

    /// One of these; none if there is no such action.
    fn told(&self, place: &Place, index: usize) -> Option<Told>;

    /// The state after one of these; none if there is no such action.
    fn take(&self, place: &Place, index: usize) -> Option<Place>;

    /// Which of the actions change nothing.
    fn idle(&self, place: &Place) -> Vec<bool>;

    /// What the node sends that handles this action.
    fn sends(&self, place: &Place, index: usize) -> Vec<Sending>;

    /// The length of a tick, where time passes.
    fn tick(&self) -> Option<Duration>;

    /// The timers that this action sets or cancels, in order.
    fn timers(&self, place: &Place, index: usize) -> Vec<TimerSet>;

    /// The timers that are armed in the first state as the nodes have set them when they started.
    fn timers_at_start(&self) -> Vec<TimerSet>;

    /// The messages under way: who has sent each, and what.
    fn under_way(&self, place: &Place) -> Vec<(u16, Sending)>;

    /// Whether the message of this action is still under way after it.
    fn is_kept(&self, place: &Place, index: usize, after: &Place) -> bool;

    /// Whether two states are one.
    fn is_same(&self, one: &Place, other: &Place) -> bool;

    /// What it looks like.
    fn picture(&self, place: &Place) -> Picture;

    /// All of it.
    fn tree(&self, place: &Place) -> Tree;

    /// Whether two states differ in nothing but names and numbers that cannot matter: they have one canonical
    /// form.
    fn is_alike(&self, one: &Place, other: &Place) -> bool;

    /// Explores every state that follows from this one, or only as far as the goal. The paths begin there.
    fn search(
        &self,
        from: &Place,
        goal: &Goal,
        limits: Limits,
        on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Found;

    /// Searches for a way from this state on which a property is never true any more: once around a loop, or to
    /// where nothing can change. `again`: it may be true before the loop. None if there is no such property.
    fn lasso(
        &self,
        from: &Place,
        property: &str,
        again: bool,
        limits: Limits,
        on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Option<Loop>;
}

/// A world whose values may be shared by threads.
pub trait Walkable:
    Subject<Msg: Serialize, Timer: Serialize> + Portray + Send + Sync + 'static
{
}

impl<A> Walkable for A where
    A: Subject<Msg: Serialize, Timer: Serialize> + Portray + Send + Sync + 'static
{
}

/// A way through a world.
struct Walk<A: Walkable, O: Observer<A>> {
    raw: World<A, O>,
    make: Box<dyn Fn() -> World<A, O> + Send + Sync>,
}

/// Makes a space of a world.
pub fn space<A, O>(make: impl Fn() -> World<A, O> + Send + Sync + 'static) -> Arc<dyn Space>
where
    A: Walkable,
    O: Observer<A> + Send + Sync + 'static,
    StateOf<A, O>: Send + Sync,
{
    let mut raw = make();
    raw.canonical = false;
    Arc::new(Walk { raw, make: Box::new(make) })
}

impl<A, O> Walk<A, O>
where
    A: Walkable,
    O: Observer<A> + Send + Sync + 'static,
    StateOf<A, O>: Send + Sync,
{
    fn state<'a>(&self, place: &'a Place) -> &'a StateOf<A, O> {
        place.downcast_ref().expect("a place is kept with its own space")
    }

    fn action(&self, place: &Place, index: usize) -> Option<Action> {
        let mut actions = Vec::new();
        self.raw.actions(self.state(place), &mut actions);
        actions.get(index).copied()
    }

    /// The node that handles an action, and what it then does.
    fn effects(&self, place: &Place, index: usize) -> (usize, Vec<EffectOf<A>>) {
        let state = self.state(place);
        let Some(action) = self.action(place, index) else { return (0, Vec::new()) };
        let (node, input) = match action {
            Action::Recover(node) => {
                let node = usize::from(node);
                (node, Input::Start(state.nodes[node].storage.clone()))
            }
            action => match self.raw.event(state, action) {
                Event::Deliver { src, dst, msg } | Event::Say { src, dst, msg } => {
                    (usize::from(dst), Input::Deliver { src: Id::from(usize::from(src)), msg })
                }
                Event::Fire { node, timer } => (usize::from(node), Input::Fire(timer)),
                _ => return (0, Vec::new()),
            },
        };
        let before = state.nodes[node].state.clone();
        (node, step(&self.raw.actors[node], Id::from(node), before, input).1)
    }

    fn in_words(&self, state: &StateOf<A, O>, action: Action) -> Told {
        let empty = Told {
            kind: String::new(),
            label: String::new(),
            actor: None,
            src: None,
            dst: None,
            msg: None,
            full: None,
        };
        let name = |node: u16| self.name(node);
        let message = |kind: &str, verb: &str, src: u16, dst: u16, msg: &A::Msg| {
            let brief = A::brief(msg);
            Told {
                kind: kind.to_owned(),
                label: format!("{} {verb} {}: {brief}", name(src), name(dst)),
                actor: Some(dst),
                src: Some(src),
                dst: Some(dst),
                msg: Some(brief),
                full: Some(format!("{msg:?}")),
            }
        };
        let node = |kind: &str, what: &str, node: u16| Told {
            kind: kind.to_owned(),
            label: format!("{} {what}", name(node)),
            actor: Some(node),
            ..empty.clone()
        };
        match self.raw.event(state, action) {
            Event::Deliver { src, dst, msg } => message("deliver", "→", src, dst, &msg),
            Event::Lose { src, dst, msg } => {
                Told { actor: None, ..message("lose", "↛", src, dst, &msg) }
            }
            Event::Say { src, dst, msg } => {
                let told = message("say", "→", src, dst, &msg);
                let brief = told.msg.clone().unwrap_or_default();
                Told { label: format!("{} is told: {brief}", name(dst)), src: None, ..told }
            }
            Event::Fire { node: at, timer } => {
                let told = node("fire", "", at);
                let timer = format!("{timer:?}");
                Told { label: format!("{}: timer {timer}", name(at)), msg: Some(timer), ..told }
            }
            Event::Elapse => {
                Told { kind: "elapse".to_owned(), label: "a tick passes".to_owned(), ..empty }
            }
            Event::Crash(at) => node("crash", "crashes", at),
            Event::Recover(at) => node("recover", "starts again", at),
            Event::Pause(at) => node("pause", "is paused", at),
            Event::Resume(at) => node("resume", "goes on", at),
            Event::Intervene(what) => Told { kind: "intervene".to_owned(), label: what, ..empty },
        }
    }

    fn name(&self, node: u16) -> String {
        let actor = self.raw.actors.get(usize::from(node));
        actor.map_or_else(|| "outside".to_owned(), |actor| lane_name(actor, node))
    }
}

fn timers_of<A: Walkable>(node: usize, effects: Vec<EffectOf<A>>) -> Vec<TimerSet> {
    let node = u16::try_from(node).expect("few nodes");
    let set = |effect| match effect {
        Effect::SetTimer(timer, range) => Some((timer, Some(range))),
        Effect::CancelTimer(timer) => Some((timer, None)),
        _ => None,
    };
    let sets = effects.into_iter().filter_map(set);
    sets.map(|(timer, range)| TimerSet { node, timer: format!("{timer:?}"), range }).collect()
}

fn lane_name<A: Portray>(actor: &A, node: u16) -> String {
    format!("{} n{node}", actor.kind())
}

/// The lanes of these actors.
pub fn lanes<A: Portray>(actors: &[A]) -> Vec<Lane> {
    let lane = |(node, actor): (usize, &A)| Lane {
        name: lane_name(actor, u16::try_from(node).expect("few nodes")),
        kind: actor.kind().to_owned(),
        pace: None,
    };
    actors.iter().enumerate().map(lane).collect()
}

impl<A, O> Space for Walk<A, O>
where
    A: Walkable,
    O: Observer<A> + Send + Sync + 'static,
    StateOf<A, O>: Send + Sync,
{
    fn lanes(&self) -> Vec<Lane> {
        lanes(&self.raw.actors)
    }

    fn properties(&self) -> Vec<(&'static str, bool)> {
        let properties = self.raw.properties.iter();
        properties.map(|it| (it.name, it.expectation == Expectation::Always)).collect()
    }

    fn is_timed(&self) -> bool {
        self.raw.time != Time::Untimed
    }

    fn start(&self) -> Place {
        Arc::new(self.raw.init_states().swap_remove(0))
    }

    fn actions(&self, place: &Place) -> Vec<Told> {
        let state = self.state(place);
        if !self.raw.within_boundary(state) {
            return Vec::new();
        }
        let mut actions = Vec::new();
        self.raw.actions(state, &mut actions);
        actions.into_iter().map(|action| self.in_words(state, action)).collect()
    }

    fn told(&self, place: &Place, index: usize) -> Option<Told> {
        let state = self.state(place);
        let action = self.raw.within_boundary(state).then(|| self.action(place, index))?;
        action.map(|action| self.in_words(state, action))
    }

    fn take(&self, place: &Place, index: usize) -> Option<Place> {
        let next = self.raw.next_state(self.state(place), self.action(place, index)?)?;
        Some(Arc::new(next))
    }

    //= SPEC EXPLORER-22
    fn idle(&self, place: &Place) -> Vec<bool> {
        let state = self.state(place);
        let mut actions = Vec::new();
        self.raw.actions(state, &mut actions);
        idle(&self.raw, state, &actions)
    }

    fn sends(&self, place: &Place, index: usize) -> Vec<Sending> {
        let (_, effects) = self.effects(place, index);
        let sending = |effect| match effect {
            Effect::Send(dst, msg) if usize::from(dst) < self.raw.actors.len() => Some(Sending {
                dst: u16::try_from(usize::from(dst)).expect("few nodes"),
                msg: A::brief(&msg),
                full: format!("{msg:?}"),
            }),
            _ => None,
        };
        effects.into_iter().filter_map(sending).collect()
    }

    fn tick(&self) -> Option<Duration> {
        match self.raw.time {
            Time::Untimed => None,
            Time::Timed { tick, .. } => Some(tick),
        }
    }

    fn timers(&self, place: &Place, index: usize) -> Vec<TimerSet> {
        let (node, effects) = self.effects(place, index);
        timers_of::<A>(node, effects)
    }

    fn timers_at_start(&self) -> Vec<TimerSet> {
        let first = self.raw.init_states().swap_remove(0);
        let mut timers = Vec::new();
        for (node, actor) in self.raw.actors.iter().enumerate() {
            let storage = self.raw.observer.stored(node);
            let (_, effects) = step(actor, Id::from(node), None, Input::Start(storage));
            // What a message has set anew before the story begins is not known here.
            let is_armed = |set: &TimerSet| {
                let window = set.range.as_ref().map(|range| self.raw.window(range));
                let mut armed = first.nodes[node].timers.iter();
                armed.any(|(timer, is)| format!("{timer:?}") == set.timer && Some(*is) == window)
            };
            timers.extend(timers_of::<A>(node, effects).into_iter().filter(is_armed));
        }
        timers
    }

    fn under_way(&self, place: &Place) -> Vec<(u16, Sending)> {
        let flights = self.state(place).network.iter();
        flights
            .map(|flight| {
                let (msg, full) = (A::brief(&flight.msg), format!("{:?}", flight.msg));
                (flight.src, Sending { dst: flight.dst, msg, full })
            })
            .collect()
    }

    fn is_kept(&self, place: &Place, index: usize, after: &Place) -> bool {
        let state = self.state(place);
        match self.action(place, index) {
            Some(Action::Deliver(flight) | Action::Lose(flight)) => {
                let gone = &state.network[usize::from(flight)];
                let is_same = |flight: &&super::world::Flight<A::Msg>| {
                    (flight.src, flight.dst, &flight.msg) == (gone.src, gone.dst, &gone.msg)
                };
                self.state(after).network.iter().any(|flight| is_same(&flight))
            }
            _ => true,
        }
    }

    fn is_same(&self, one: &Place, other: &Place) -> bool {
        self.state(one) == self.state(other)
    }

    //= SPEC EXPLORER-2
    fn picture(&self, place: &Place) -> Picture {
        let state = self.state(place);
        let nodes = self.raw.actors.iter().zip(&state.nodes).enumerate();
        Picture {
            fingerprint: fingerprint(state),
            lanes: nodes.map(|(id, (actor, node))| portrait(actor, id, node)).collect(),
            properties: self
                .raw
                .properties
                .iter()
                .map(|property| Judged {
                    name: property.name.to_owned(),
                    always: property.expectation == Expectation::Always,
                    is_true: (property.condition)(&self.raw, state),
                })
                .collect(),
            within: self.raw.within_boundary(state),
        }
    }

    fn tree(&self, place: &Place) -> Tree {
        Tree::of(self.state(place))
    }

    fn is_alike(&self, one: &Place, other: &Place) -> bool {
        let world = (self.make)();
        canonical(&world, self.state(one)) == canonical(&world, self.state(other))
    }

    //= SPEC EXPLORER-3
    //= SPEC EXPLORER-15
    fn search(
        &self,
        from: &Place,
        goal: &Goal,
        limits: Limits,
        on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Found {
        let mut world = (self.make)();
        let limits = Limits { until_found: *goal != Goal::Everything, ..limits };
        let raw_start = self.state(from);
        let start = vec![canonical(&world, raw_start)];
        let report = match goal {
            Goal::Node(words) => {
                let words: Vec<_> = words.split_whitespace().map(str::to_lowercase).collect();
                let actors = &self.raw.actors;
                let looks = |id: usize, state: &StateOf<A, O>| {
                    let it = portrait(&actors[id], id, &state.nodes[id]);
                    let text = format!("{} {} {}", actors[id].kind(), it.condition, it.role);
                    text.to_lowercase()
                };
                let wanted = |state: &StateOf<A, O>| {
                    (0..actors.len()).any(|id| {
                        let text = looks(id, state);
                        words.iter().all(|word| text.split(' ').any(|it| it == word))
                    })
                };
                engine::explore_from(&world, start, Some(&wanted), limits, on_progress)
            }
            goal => {
                if let Goal::Property(name) = goal {
                    world.properties.retain(|property| property.name == name);
                }
                engine::explore_from(&world, start, None, limits, on_progress)
            }
        };
        let paths = report.discoveries.iter().map(|(&name, path)| {
            let goals = path.steps.iter().map(|(_, state)| (None, state));
            let steps = raw_path(&world, &self.raw, raw_start.clone(), goals);
            (name, steps.iter().map(RawStep::number).collect())
        });
        Found {
            end: report.end,
            exhaustive: report.exhaustive,
            unique: report.unique,
            generated: report.generated,
            depth: report.depth,
            elapsed: report.elapsed,
            paths: paths.collect(),
            violated: report.violated,
        }
    }

    fn lasso(
        &self,
        from: &Place,
        property: &str,
        again: bool,
        limits: Limits,
        on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Option<Loop> {
        let world = (self.make)();
        let condition = world.properties.iter().find(|it| it.name == property)?.condition;
        let raw_start = self.state(from);
        let happens = |state: &StateOf<A, O>| condition(&world, state);
        let is_tick = |action: &Action| *action == Action::Elapse;
        let question =
            Question { happens: &happens, again, needs: self.is_timed().then_some(&is_tick) };
        let starts = vec![canonical(&world, raw_start)];
        let report = lasso::search(&world, starts, &question, limits, on_progress);
        let mut path = None;
        let mut back_to = None;
        if let Some(lasso) = report.lasso {
            let goals = lasso.path.steps.iter().map(|(action, state)| (Some(*action), state));
            let steps = raw_path(&world, &self.raw, raw_start.clone(), goals);
            // In the raw world there may be more steps: the loop begins behind that many of the canonical one.
            back_to = lasso.back_to.map(|canonical| match canonical.checked_sub(1) {
                None => 0,
                Some(last) => {
                    let mut of_path = steps.iter().enumerate().filter(|(_, step)| step.is_step);
                    of_path.nth(last).map_or(steps.len(), |(at, _)| at + 1)
                }
            });
            path = Some(steps.iter().map(RawStep::number).collect());
        }
        Some(Loop {
            path,
            back_to,
            incomplete: report.incomplete,
            unique: report.unique,
            generated: report.generated,
            depth: report.depth,
            elapsed: report.elapsed,
        })
    }
}
