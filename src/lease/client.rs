//! The client: writes to the table through whichever host is primary.
//!
//! It has one write under way at a time and asks for it under one name until it is acknowledged,
//! going from host to host, or to the one that a refusal names.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stateright::actor::Id;

use super::elector::exactly;
use super::msg::{Msg, RequestId, Seq, TEXT_MAX};
use super::record::{Epoch, NodeId};
use super::{Out, Storage, Timer};

/// What one client is told at its making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The node it is.
    pub me: NodeId,
    /// The hosts of the lease, in the order in which it tries them.
    pub hosts: Vec<NodeId>,
    /// How long it waits for an answer before it asks the next host.
    pub retry: Duration,
    /// What it writes without being asked: the workload of a model.
    pub script: Vec<(String, String)>,
}

/// A running client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientState {
    /// This life of the client.
    pub incarnation: u64,
    /// How many writes this life has begun.
    pub begun: u64,
    /// Which host it asks.
    pub target: usize,
    /// The write under way, and behind it those that wait.
    pub queue: VecDeque<(String, String)>,
    /// The last acknowledgement.
    pub last: Option<(RequestId, Epoch, Seq)>,
}

impl Client {
    pub(super) fn on_start(&self, incarnation: Option<u64>, o: &mut Out) -> ClientState {
        assert!(!self.hosts.is_empty(), "a client needs a host to write to");
        let incarnation = incarnation.unwrap_or(0) + 1;
        o.save(Storage::Client(incarnation));
        // A model's workload is written once, by the first life.
        let queue =
            if incarnation == 1 { self.script.iter().cloned().collect() } else { VecDeque::new() };
        let mut state = ClientState { incarnation, begun: 0, target: 0, queue, last: None };
        self.begin(&mut state, o);
        state
    }

    pub(super) fn on_msg(&self, state: &mut ClientState, src: Id, msg: &Msg, o: &mut Out) {
        match msg {
            Msg::Submit { key, value } if NodeId::from(src) == self.me => {
                if key.len() > TEXT_MAX || value.len() > TEXT_MAX {
                    return;
                }
                state.queue.push_back((key.clone(), value.clone()));
                if state.queue.len() == 1 {
                    self.begin(state, o);
                }
            }
            Msg::Applied { request, epoch, seq } if self.is_under_way(state, *request) => {
                state.last = Some((*request, *epoch, *seq));
                state.queue.pop_front();
                self.begin(state, o);
            }
            Msg::Refused { request, holder } if self.is_under_way(state, *request) => {
                let named = holder
                    .and_then(|holder| self.hosts.iter().position(|&host| host == holder))
                    .filter(|_| Id::from(self.hosts[state.target]) == src);
                if let Some(named) = named {
                    state.target = named;
                    self.ask(state, o);
                }
                // Nobody is primary, or a straggler: the retry timer asks the next host.
            }
            _ => {}
        }
    }

    pub(super) fn on_timeout(&self, state: &mut ClientState, timer: Timer, o: &mut Out) {
        if timer == Timer::Retry && !state.queue.is_empty() {
            state.target = (state.target + 1) % self.hosts.len();
            self.ask(state, o);
        }
    }

    /// Begins the write at the head of the queue, under a new name.
    fn begin(&self, state: &mut ClientState, o: &mut Out) {
        if state.queue.is_empty() {
            o.cancel_timer(Timer::Retry);
            return;
        }
        state.begun += 1;
        self.ask(state, o);
    }

    /// Asks for the write under way, under its one name (LEASE-18).
    //= SPEC LEASE-23
    fn ask(&self, state: &mut ClientState, o: &mut Out) {
        let (key, value) = state.queue.front().cloned().expect("a write is under way");
        let request = self.request(state);
        o.send(self.hosts[state.target].into(), Msg::Apply { request, key, value });
        o.set_timer(Timer::Retry, exactly(self.retry));
    }

    fn request(&self, state: &ClientState) -> RequestId {
        RequestId { client: self.me, incarnation: state.incarnation, n: state.begun }
    }

    fn is_under_way(&self, state: &ClientState, request: RequestId) -> bool {
        !state.queue.is_empty() && request == self.request(state)
    }
}
