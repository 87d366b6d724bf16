//! Customers: each calls until it is answered, under one token for each call, and remembers what it was
//! told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::history::Taken;
use super::world::{Connection, PATIENCE, World};

/// A call that was answered.
#[derive(Clone, Debug)]
pub struct Told {
    pub region: usize,
    pub question: Value,
    pub answer: Value,
}

/// One peering, and what was done to it.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub id: String,
    /// The requester's region and network, then the accepter's.
    pub ends: [(usize, usize); 2],
    pub told: Vec<Told>,
    /// From the last call's answer to the moment when both sides showed the same.
    pub converged: Duration,
    /// The two states at that moment.
    pub states: [String; 2],
}

/// How far a peering has come: undecided, live, or over.
pub fn class(state: &str) -> &'static str {
    match state {
        "initiating-request" | "pending-acceptance" => "undecided",
        "provisioning" | "active" => "live",
        _ => "over",
    }
}

/// Whether nothing follows by itself.
fn is_settled(state: &str) -> bool {
    !matches!(state, "initiating-request" | "provisioning" | "deleting")
}

pub struct Customer<'a> {
    world: &'a World,
    connections: BTreeMap<usize, Connection>,
    rng: StdRng,
    /// Its number, and where what it is told is taken down.
    taken: Option<(u16, &'a Taken)>,
}

impl<'a> Customer<'a> {
    pub fn new(world: &'a World, rng: StdRng) -> Self {
        Self { world, connections: BTreeMap::new(), rng, taken: None }
    }

    /// One whose calls are taken down.
    pub fn taken_down(world: &'a World, rng: StdRng, taken: &'a Taken) -> Self {
        Self { taken: Some((taken.customer(), taken)), ..Self::new(world, rng) }
    }

    fn begin(&self, region: usize, question: &Value) -> Option<usize> {
        self.taken.and_then(|(customer, taken)| taken.ask(customer, region, question))
    }

    fn end(&mut self, call: Option<usize>, question: &Value, told: Option<&Value>, copies: usize) {
        let Some((customer, taken)) = &mut self.taken else { return };
        match told {
            Some(told) => taken.tell(call, question, told, copies),
            // Nobody heard of it again: who has asked asks the next thing as somebody else.
            None => *customer = taken.customer(),
        }
    }

    /// Reads once what a side shows; none if nobody has answered.
    pub fn get(&mut self, region: usize, id: &str) -> Option<Value> {
        let question = json!({ "op": "get", "account": 1, "id": id });
        let call = self.begin(region, &question);
        let told = self.ask(region, &question);
        self.end(call, &question, told.as_ref(), 1);
        told
    }

    /// Asks once; none if nobody has answered.
    pub fn ask(&mut self, region: usize, question: &Value) -> Option<Value> {
        if !self.connections.contains_key(&region) {
            self.connections.insert(region, self.world.connect(region).ok()?);
        }
        let answer = self.connections.get_mut(&region)?.ask(question);
        if answer.is_err() {
            self.connections.remove(&region);
        }
        answer.ok()
    }

    /// Calls, under one token, until the answer is a final one.
    pub fn call(&mut self, region: usize, mut question: Value) -> Told {
        question["account"] = 1.into();
        question["token"] = self.rng.random::<u64>().into();
        let begun = Instant::now();
        let call = self.begin(region, &question);
        for copies in 1.. {
            if let Some(answer) = self.ask(region, &question)
                && answer["retry"] != true
            {
                self.end(call, &question, Some(&answer), copies);
                return Told { region, question, answer };
            }
            assert!(begun.elapsed() < PATIENCE, "never answered: {question}");
            std::thread::sleep(Duration::from_millis(self.rng.random_range(5..40)));
        }
        unreachable!("it asks until it is answered")
    }

    pub fn state(&mut self, region: usize, id: &str) -> Option<String> {
        let answer = self.get(region, id)?;
        answer["peering"]["state"].as_str().map(str::to_owned)
    }

    /// Waits until both sides show the same, and nothing more follows.
    pub fn await_agreement(&mut self, story: &Story, patience: Duration) -> [String; 2] {
        let begun = Instant::now();
        loop {
            let states = story.ends.map(|(region, _)| self.state(region, &story.id));
            if let [Some(here), Some(there)] = &states
                && class(here) == class(there)
                && is_settled(here)
                && is_settled(there)
            {
                return [here.clone(), there.clone()];
            }
            assert!(begun.elapsed() < patience, "{}: never the same: {states:?}", story.id);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn pause(&mut self) {
        let pause = Duration::from_millis(self.rng.random_range(0..150));
        std::thread::sleep(pause);
    }

    /// Creates a peering and does to it what the lots say.
    pub fn live(&mut self, ends: [(usize, usize); 2]) -> Story {
        let [(from, network), (to, peer_network)] = ends;
        let create = json!({
            "op": "create", "network": network, "region": format!("r{to}"), "peer_account": 1,
            "peer_network": peer_network,
        });
        let told = self.call(from, create);
        let id = told.answer["id"].as_str().unwrap_or_else(|| panic!("{told:?}")).to_owned();
        let mut story = Story { id: id.clone(), ends, told: vec![told], ..Story::default() };
        if let Some((_, taken)) = self.taken {
            taken.begun.lock().unwrap().push((id.clone(), [from, to]));
        }
        let change = |op: &str| json!({ "op": op, "id": id });
        // A cancellation that may overtake the request.
        if self.rng.random_ratio(1, 8) {
            self.pause();
            story.told.push(self.call(from, change("delete")));
        } else {
            for _ in 0..self.rng.random_range(0..2) {
                self.modify(&mut story, 1);
            }
            match self.rng.random_range(0..8) {
                0 => {}
                1 | 2 => story.told.push(self.call(to, change("reject"))),
                _ => {
                    story.told.push(self.call(to, change("accept")));
                    for _ in 0..self.rng.random_range(0..3) {
                        let side = self.rng.random_range(0..2);
                        self.modify(&mut story, side);
                    }
                    match self.rng.random_range(0..6) {
                        0 => story.told.push(self.call(from, change("delete"))),
                        1 => story.told.push(self.call(to, change("delete"))),
                        2 => {
                            story.told.push(self.call(from, change("delete")));
                            story.told.push(self.call(to, change("delete")));
                        }
                        _ => {}
                    }
                }
            }
        }
        let begun = Instant::now();
        story.states = self.await_agreement(&story, PATIENCE * 2);
        story.converged = begun.elapsed();
        story
    }

    /// Changes the options of one side, from the version that they have.
    fn modify(&mut self, story: &mut Story, side: usize) {
        let region = story.ends[side].0;
        let begun = Instant::now();
        let version = loop {
            let said = self.get(region, &story.id).unwrap_or_default();
            let name = ["requester", "accepter"][side];
            let peering = &said["peering"];
            if let Some(version) = peering[name]["options"]["version"].as_str()
                && peering["state"] != "initiating-request"
            {
                break version.to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "{} is never visible: {said}", story.id);
            std::thread::sleep(Duration::from_millis(20));
        };
        let resolve_names: bool = self.rng.random();
        story.told.push(self.call(
            region,
            json!({
                "op": "modify", "id": story.id, "version": version, "resolve_names": resolve_names,
            }),
        ));
    }
}
