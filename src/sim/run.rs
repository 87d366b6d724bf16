//! The event loop.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stateright::actor::Id;

use super::event::Event;
use super::plan::{Fault, Kind, Plan};
use super::process::Line;
use super::setup::{Birth, Setup, Simulated, Workload};
use super::work::Works;
use crate::durable::Durable as _;
use crate::lease::record::NodeId;
use crate::step::{Effect, Input, InputOf, step};
use crate::trace::{Origin, Recorder};
use crate::wire::{self, Header, Headers, Plain};

pub(super) const MS: u64 = 1_000_000;
/// How often a runtime looks at its timers that has no better way.
const TICK: u64 = 500 * MS;
/// What clocks read at the beginning, so that a clock that is too slow is never before zero.
const BEGINNING: u64 = 1_000_000_000_000;
/// The only lease, or the only coordinator.
pub(super) const LEASE: u16 = 0;

/// What waits at a node that is suspended.
pub(super) enum Waiting<A: Simulated> {
    Datagram(Vec<u8>),
    Own(A::Msg),
    Told(A::Msg),
}

pub(super) struct Node<A: Simulated, R> {
    pub(super) state: Option<A::State>,
    /// Counts the starts, whatever the duties: nothing of an earlier one, nor of one that has crashed, comes back.
    pub(super) start: u32,
    pub(super) life: u32,
    /// What was saved since the newest durable save, which comes first: number, content.
    pub(super) disk: VecDeque<(u64, Option<A::Storage>)>,
    pub(super) last_save: u64,
    pub(super) held: VecDeque<(u64, Held<A>)>,
    pub(super) timers: BTreeMap<A::Timer, Vec<(u64, u64)>>,
    pub(super) armed: u64,
    pub(super) headers: Headers,
    pub(super) trace: Option<R>,
    pub(super) backup: Option<A::Storage>,
    pub(super) down: u32,
    pub(super) suspended: u32,
    pub(super) suspended_since: u64,
    pub(super) slept: u64,
    /// What holds up its loop.
    pub(super) blocked: Vec<Fault>,
    pub(super) waiting: VecDeque<Waiting<A>>,
    pub(super) own: u32,
    pub(super) wake: Option<u64>,
}

pub(super) enum Held<A: Simulated> {
    Datagram(u16, Vec<u8>),
    Own(A::Msg),
}

/// A running simulation. `R` takes down what each node does.
pub struct Simulation<A: Simulated, R, F, L> {
    pub(super) setup: Setup<A>,
    pub(super) plan: Plan,
    pub(super) workload: L,
    pub(super) open: F,
    pub(super) now: u64,
    count: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event<A>>,
    pub(super) nodes: Vec<Node<A, R>>,
    pub(super) active: Vec<Fault>,
    pub(super) network: StdRng,
    timing: StdRng,
    pub(super) disks: StdRng,
    work: StdRng,
    pub(super) works: Option<Works>,
    pub(super) lines: BTreeMap<u16, Line>,
    /// Steps taken.
    pub steps: u64,
    /// Datagrams that were no messages when they arrived.
    pub malformed: u64,
}

impl<A, R, F, L> Simulation<A, R, F, L>
where
    A: Simulated,
    R: Recorder<A>,
    F: FnMut(Birth) -> R,
    L: Workload<A>,
{
    //= SPEC SIM-1
    /// Puts the nodes together. `open` gives each life of a node the one who takes it down.
    pub fn new(setup: Setup<A>, seed: u64, plan: Plan, workload: L, open: F) -> Self {
        let stream = |n: u64| StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9).wrapping_add(n));
        let nodes = (0..setup.actors.len())
            .map(|node| Node {
                state: None,
                start: 0,
                life: 0,
                disk: VecDeque::from([(0, None)]),
                last_save: 0,
                held: VecDeque::new(),
                timers: BTreeMap::new(),
                armed: 0,
                headers: Headers::new(NodeId(node as u16), 0),
                trace: None,
                backup: None,
                down: 0,
                suspended: 0,
                suspended_since: 0,
                slept: 0,
                blocked: Vec::new(),
                waiting: VecDeque::new(),
                own: 0,
                wake: None,
            })
            .collect();
        let works = workload.work().map(|work| Works::new(work, setup.actors.len(), seed));
        let mut simulation = Self {
            works,
            lines: BTreeMap::new(),
            setup,
            workload,
            open,
            now: 0,
            count: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            nodes,
            active: Vec::new(),
            network: stream(1),
            timing: stream(2),
            disks: stream(3),
            work: stream(4),
            steps: 0,
            malformed: 0,
            plan,
        };
        for node in 0..simulation.nodes.len() as u16 {
            simulation.start(node);
        }
        for fault in simulation.plan.faults.clone() {
            if usize::from(fault.node) < simulation.nodes.len() {
                simulation.at(fault.at_ms * MS, Event::Begin(fault));
            }
        }
        simulation.at(0, Event::Work);
        simulation
    }

    /// Runs until this time, in nanoseconds from the beginning.
    pub fn run_until(&mut self, end: u64) {
        while let Some(&Reverse((time, key))) = self.queue.peek() {
            if time > end {
                break;
            }
            self.queue.pop();
            self.now = time;
            let event = self.events.remove(&key).expect("each event is there once");
            self.handle(event);
        }
        self.now = end;
        for node in &mut self.nodes {
            if let Some(trace) = &mut node.trace {
                trace.write_out();
            }
        }
    }

    pub(super) fn at(&mut self, time: u64, event: Event<A>) {
        self.count += 1;
        self.queue.push(Reverse((time.max(self.now), self.count)));
        self.events.insert(self.count, event);
    }

    /// What a node's clock reads now.
    pub(super) fn clock(&self, node: u16) -> u64 {
        let slept = self.nodes[usize::from(node)].slept;
        let rate = i128::from(self.plan.rates_ppm.get(usize::from(node)).copied().unwrap_or(0));
        let time = i128::from(self.now - slept);
        BEGINNING + u64::try_from(time + time * rate / 1_000_000).expect("clocks go forward")
    }

    /// When a node's clock will read this.
    pub(super) fn when(&self, node: u16, reading: u64) -> u64 {
        let slept = self.nodes[usize::from(node)].slept;
        let rate = i128::from(self.plan.rates_ppm.get(usize::from(node)).copied().unwrap_or(0));
        let time = i128::from(reading.saturating_sub(BEGINNING)) * 1_000_000 / (1_000_000 + rate);
        let mut time = u64::try_from(time).unwrap_or(0);
        // Rounding may be off by a nanosecond or two: never early.
        while {
            let there = i128::from(time);
            there + there * rate / 1_000_000 < i128::from(reading.saturating_sub(BEGINNING))
        } {
            time += 1;
        }
        time + slept
    }

    fn handle(&mut self, event: Event<A>) {
        match event {
            Event::Wake(node) => {
                self.nodes[usize::from(node)].wake = None;
                if self.is_awake(node) {
                    self.fire_due(node);
                }
            }
            Event::Arrive(node, bytes) => {
                self.answered(node);
                self.input(node, Waiting::Datagram(bytes));
            }
            Event::Own { node, start, msg } => {
                let it = &mut self.nodes[usize::from(node)];
                if it.start == start && it.state.is_some() {
                    it.own -= 1;
                    if self.setup.actors[usize::from(node)].is_withdrawal(&msg) {
                        self.work_stopped(node, None);
                    }
                    self.input(node, Waiting::Own(msg));
                }
            }
            Event::Synced { node, start, number } => self.synced(node, start, number),
            Event::Work => {
                let views = self.views();
                let (pause, said) = self.workload.next(&views, &mut self.work);
                self.at(self.now + nanos(pause).max(1), Event::Work);
                if let Some((node, msg)) = said {
                    self.input(node, Waiting::Told(msg));
                }
            }
            Event::Error { node, start } => self.erred(node, start),
            Event::GiveUp { process, request } => self.unanswered(process, request),
            Event::Look(node) => self.wait_is_over(node),
            Event::HookEnded { node, process, epoch } => self.hook_ended(node, process, epoch),
            Event::Killed { node, process } => self.killed(node, process),
            Event::Begin(fault) => self.begin(fault),
            Event::End(fault) => self.end(fault),
        }
        self.judge();
        if self.queue.len() > 1_000_000 {
            panic!("the simulation drowns in events");
        }
    }

    pub(super) fn is_awake(&self, node: u16) -> bool {
        let node = &self.nodes[usize::from(node)];
        node.state.is_some() && node.suspended == 0 && node.blocked.is_empty()
    }

    pub(super) fn input(&mut self, node: u16, what: Waiting<A>) {
        let it = &mut self.nodes[usize::from(node)];
        if it.state.is_none() {
            return;
        }
        if it.suspended > 0 || !it.blocked.is_empty() {
            if it.waiting.len() < 1000 {
                it.waiting.push_back(what);
            }
            return;
        }
        let (input, origin) = match what {
            Waiting::Own(msg) => {
                (Input::Deliver { src: Id::from(usize::from(node)), msg }, Origin::Own)
            }
            Waiting::Told(msg) => {
                (Input::Deliver { src: Id::from(usize::from(node)), msg }, Origin::Told)
            }
            Waiting::Datagram(bytes) => {
                let decode = if self.setup.duties.refuses_illegal {
                    wire::decode::<A::Msg>
                } else {
                    wire::codec::decode_illegal::<A::Msg>
                };
                let Ok((header, _, msg)) = decode(NodeId(node), &bytes, &mut Plain) else {
                    self.malformed += 1;
                    return;
                };
                let Header { source, incarnation, sequence, .. } = header;
                let origin = Origin::Datagram { incarnation, sequence };
                (Input::Deliver { src: Id::from(source), msg }, origin)
            }
        };
        if self.setup.duties.timers_first {
            self.fire_due(node);
        }
        if matches!(origin, Origin::Datagram { .. }) && self.gives_up(node) {
            return;
        }
        self.step(node, input, origin);
    }

    /// Fires every timer that is due, each at most once.
    pub(super) fn fire_due(&mut self, node: u16) {
        if !self.setup.duties.no_periodic_test && !self.now.is_multiple_of(TICK) {
            return;
        }
        let before = self.nodes[usize::from(node)].armed;
        let early = if self.setup.duties.never_early { 0 } else { 5 * MS };
        loop {
            let now = self.clock(node) + early;
            let timers = &mut self.nodes[usize::from(node)].timers;
            let due = timers
                .iter()
                .flat_map(|(timer, armings)| armings.iter().map(move |&arming| (arming, timer)))
                .filter(|&((due, number), _)| due <= now && number <= before)
                .min()
                .map(|(arming, timer)| (arming, timer.clone()));
            let Some((arming, timer)) = due else { break };
            let armings = timers.get_mut(&timer).expect("it is armed");
            armings.retain(|&known| known != arming);
            if armings.is_empty() {
                timers.remove(&timer);
            }
            if self.gives_up(node) {
                return;
            }
            self.step(node, Input::Fire(timer), Origin::Timer(arming.0));
        }
        self.set_wake(node);
    }

    fn set_wake(&mut self, node: u16) {
        let timers = &self.nodes[usize::from(node)].timers;
        let Some(next) = timers.values().flatten().map(|&(due, _)| due).min() else { return };
        let early = if self.setup.duties.never_early { 0 } else { 5 * MS };
        let mut time = self.when(node, next - early).max(self.now + 1);
        if !self.setup.duties.no_periodic_test {
            time = time.next_multiple_of(TICK);
        }
        let wake = &mut self.nodes[usize::from(node)].wake;
        if wake.is_none_or(|wake| time < wake) {
            *wake = Some(time);
            self.at(time, Event::Wake(node));
        }
    }

    //= SPEC SIM-2
    pub(super) fn step(&mut self, node: u16, input: InputOf<A>, origin: Origin) {
        self.steps += 1;
        let (at, index) = (self.clock(node), usize::from(node));
        let it = &mut self.nodes[index];
        let trace = it.trace.as_mut().expect("it runs");
        trace.simulated(self.now);
        let durable = it.disk[0].0;
        trace.begin(LEASE, at, durable, &input, origin);
        let (state, effects) =
            step(&self.setup.actors[index], Id::from(index), it.state.take(), input);
        let mut sends = Vec::new();
        let mut synced = Vec::new();
        for effect in effects {
            let trace = it.trace.as_mut().expect("it runs");
            match effect {
                Effect::Save(storage) => {
                    let before = it.disk.back().and_then(|(_, saved)| saved.clone());
                    let mut rows = 0;
                    storage.difference(before.as_ref(), &mut |_, _| rows += 1);
                    let number = (rows > 0).then(|| it.last_save + 1);
                    trace.save(&storage, number);
                    if let Some(number) = number {
                        it.last_save = number;
                        it.disk.push_back((number, Some(storage)));
                        synced.push(number);
                    }
                }
                Effect::Send(to, msg) => {
                    let to = u16::try_from(usize::from(to)).unwrap_or(u16::MAX);
                    let is_other = to != node && usize::from(to) < self.setup.actors.len();
                    let header = is_other.then(|| it.headers.next(NodeId(to)));
                    let number = header.map(|header| header.sequence);
                    trace.send(usize::from(to).into(), &msg, number);
                    sends.push((to, header, msg));
                }
                Effect::SetTimer(timer, range) => {
                    let (low, high) = (nanos(range.start), nanos(range.end));
                    let length = match low < high {
                        true if self.setup.duties.jitter => self.timing.random_range(low..=high),
                        true => high,
                        false => low,
                    };
                    it.armed += 1;
                    let due = at.saturating_add(length);
                    trace.set(&timer, &range, due);
                    let armings = it.timers.entry(timer).or_default();
                    if self.setup.duties.no_stale_timers {
                        armings.clear();
                    }
                    armings.push((due, it.armed));
                }
                Effect::CancelTimer(timer) => {
                    trace.cancel(&timer);
                    if self.setup.duties.no_stale_timers {
                        it.timers.remove(&timer);
                    }
                }
                Effect::Choose(key, among) => trace.choose(&key, &among),
            }
        }
        let deadline = self.setup.actors[index].deadline(&state);
        let deadline =
            deadline.and_then(|timer| it.timers.get(&timer)?.last().map(|&(due, _)| due));
        let trace = it.trace.as_mut().expect("it runs");
        trace.end(&state, deadline);
        let epoch = self.setup.actors[index].epoch(&state);
        it.state = Some(state);
        let (start, last) = (it.start, it.last_save);
        let saves = !synced.is_empty();
        for number in synced {
            let slow = self.slowest(node);
            let took = self.disks.random_range(MS..=5 * MS) + slow;
            self.at(self.now + took, Event::Synced { node, start, number });
        }
        let strikes =
            |fault: &Fault| fault.node == node && fault.kind == Kind::CrashWhileSaving && saves;
        if let Some(place) = self.active.iter().position(strikes) {
            let fault = Fault { kind: Kind::Crash, ..self.active.swap_remove(place) };
            let soon = self.disks.random_range(0..=2 * MS);
            self.at(self.now + soon, Event::Begin(fault));
        }
        // What a message says must not be ahead of what this process permits.
        self.show(node, epoch, deadline);
        for (to, header, msg) in sends {
            if to == node && self.setup.actors[index].is_withdrawal(&msg) {
                self.stop_work(node);
            }
            let what = match header {
                None if to == node => Held::Own(msg),
                None => continue,
                Some(header) => match wire::encode(&header, LEASE, &msg, &mut Plain) {
                    Ok(bytes) => Held::Datagram(to, bytes),
                    Err(_) => continue,
                },
            };
            self.nodes[index].held.push_back((last, what));
        }
        self.let_out(node);
        self.set_wake(node);
    }

    fn synced(&mut self, node: u16, start: u32, number: u64) {
        let it = &mut self.nodes[usize::from(node)];
        if it.start != start || it.state.is_none() {
            return;
        }
        // In order: a save that is durable makes those before it so.
        while it.disk.len() > 1 && it.disk[1].0 <= number {
            it.disk.pop_front();
        }
        let durable = it.disk[0].0;
        if let Some(trace) = &mut it.trace {
            trace.durable(durable);
        }
        self.let_out(node);
    }

    fn let_out(&mut self, node: u16) {
        let index = usize::from(node);
        while let Some(&(after, _)) = self.nodes[index].held.front()
            && (after <= self.nodes[index].disk[0].0 || !self.setup.duties.saves_before_sends)
        {
            let Some((_, what)) = self.nodes[index].held.pop_front() else { break };
            match what {
                Held::Datagram(to, bytes) => self.send(node, to, bytes),
                Held::Own(msg)
                    if self.setup.actors[index].is_withdrawal(&msg) && self.hook_hangs(node) => {}
                Held::Own(msg) => {
                    let start = self.nodes[index].start;
                    self.nodes[index].own += 1;
                    let took = self.timing.random_range(0..=nanos(self.setup.local));
                    self.at(self.now + took, Event::Own { node, start, msg });
                }
            }
        }
    }

    /// What the nodes show now; nothing, if they are down.
    pub fn views(&self) -> Vec<Option<A::View>> {
        let nodes = self.setup.actors.iter().zip(&self.nodes).enumerate();
        nodes.map(|(id, (actor, node))| Some(actor.view(id.into(), node.state.as_ref()?))).collect()
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
