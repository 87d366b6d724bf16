//! What one node looks like from outside: the picture that an explorer draws of it.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use super::irc::carrier::Carried;
use super::world::{Condition, Node, Subject};
use crate::irc::facts::{Decided, Requested};
use crate::irc::msg::{Errand, Msg as IrcMsg};
use crate::irc::{Party, PartyState};
use crate::lease::elector::Phase;
use crate::lease::msg::Msg;
use crate::lease::record::{Claim, Record};
use crate::lease::{Member, MemberState};
use crate::step::Machine as _;

/// A node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portrait {
    /// What it is doing, in a word or two.
    pub role: String,
    /// Down, running, paused or waking.
    pub condition: String,
    /// The bar that is drawn along its lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bar: Option<Bar>,
    /// The epoch of that bar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// What else is worth knowing, each with its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<(String, String)>,
}

/// An interval in the life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// It holds the lease: it accepts new work.
    Hold,
    /// It no longer holds it, and its work is being stopped: it still writes.
    Hook,
    /// It watches a version that another holds, to take over when L has passed.
    Watch,
    /// A region is frozen towards another.
    Frozen,
}

impl Bar {
    /// Whether work may be running.
    pub fn is_writable(self) -> bool {
        matches!(self, Self::Hold | Self::Hook)
    }
}

/// An actor of which there is a picture.
pub trait Portray: Subject {
    /// What kind of node it is.
    fn kind(&self) -> &'static str;

    /// What it looks like. `condition` and timers are filled in by [`portrait`].
    fn portray(&self, node: usize, state: &Self::State) -> Portrait;

    /// A message in few words: its kind, and what tells it from others of that kind.
    fn brief(msg: &Self::Msg) -> String;
}

/// What a node looks like.
pub fn portrait<A: Portray>(
    actor: &A,
    id: usize,
    node: &Node<A::State, A::Storage, A::Timer>,
) -> Portrait {
    let Some(state) = &node.state else {
        let down = "down".to_owned();
        return Portrait { role: down.clone(), condition: down, ..Portrait::default() };
    };
    let mut portrait = actor.portray(id, state);
    portrait.condition = match node.condition {
        Condition::Running => "running",
        Condition::Paused => "paused",
        Condition::Waking => "waking",
    }
    .to_owned();
    for (timer, window) in &node.timers {
        let when = format!("{}..{}", window.earliest, window.latest);
        portrait.facts.push((format!("timer {timer:?}"), when));
    }
    portrait
}

/// The name of a variant, as it is printed.
fn variant(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    text[..end].to_owned()
}

fn record(record: &Record) -> String {
    if record.is_absent() {
        "v0".to_owned()
    } else {
        format!("v{} {}", record.version, claim(&record.claim))
    }
}

fn claim(claim: &Claim) -> String {
    let holder =
        claim.holder.map_or_else(|| "nobody".to_owned(), |holder| format!("{:?}", holder.node));
    format!("{holder} e{}", claim.epoch)
}

impl Portray for Member {
    fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Store(_) => "store",
            Self::Client(_) => "client",
        }
    }

    fn portray(&self, node: usize, state: &MemberState) -> Portrait {
        let mut portrait = Portrait::default();
        match state {
            MemberState::Host(host) => {
                let elector = &host.elector;
                portrait.role = variant(&elector.phase).to_lowercase();
                portrait.bar = match elector.phase {
                    Phase::Holding { .. } => Some(Bar::Hold),
                    Phase::Stopping { .. } => Some(Bar::Hook),
                    Phase::Watching { .. } => {
                        let seen = elector.seen.as_ref().filter(|seen| !seen.is_free());
                        seen.map(|_| Bar::Watch)
                    }
                    _ => None,
                };
                portrait.epoch = elector.phase.writable().map(|epoch| epoch.to_string());
                if let Some(seen) = &elector.seen {
                    portrait.facts.push(("has seen".to_owned(), record(seen)));
                }
                if let Some(attempt) = elector.attempt {
                    portrait.facts.push(("asks".to_owned(), format!("{:?}", attempt.nonce)));
                }
                if let Some(replica) = &host.replica {
                    let table = &replica.table;
                    portrait.facts.push(("table ends at".to_owned(), table.last().seq.to_string()));
                    portrait.facts.push(("fence".to_owned(), table.fence.to_string()));
                }
            }
            MemberState::Store(kept) => {
                portrait.role = record(kept);
                portrait.facts.push(("record".to_owned(), record(kept)));
            }
            MemberState::Client(_) => {
                portrait.role = "client".to_owned();
                let view = format!("{:?}", self.view(node.into(), state));
                portrait.facts.push(("shows".to_owned(), view));
            }
        }
        portrait
    }

    fn brief(msg: &Msg) -> String {
        match msg {
            Msg::ReadOk { record: it, .. } => format!("ReadOk {}", record(it)),
            Msg::Write { claim: it, .. } => format!("Write {}", claim(it)),
            Msg::Written { record: it, .. } => format!("Written {}", record(it)),
            Msg::Conflict { record: it, .. } => format!("Conflict {}", record(it)),
            Msg::Consent { record: it } => format!("Consent {}", record(it)),
            Msg::Stopped { epoch } => format!("Stopped e{epoch}"),
            Msg::StepDown { epoch } => format!("StepDown e{epoch}"),
            Msg::Apply { key, value, .. } => format!("Apply {key}={value}"),
            Msg::Applied { epoch, .. } => format!("Applied e{epoch}"),
            Msg::Replicate { epoch, entry, .. } => match entry {
                Some((seq, entry)) => {
                    format!("Replicate e{epoch} #{seq} {}={}", entry.key, entry.value)
                }
                None => format!("Replicate e{epoch}"),
            },
            other => variant(other),
        }
    }
}

fn gone(deleted: bool) -> &'static str {
    if deleted { ", deleted" } else { "" }
}

fn control(state: &crate::irc::ledger::ControlState) -> Portrait {
    let mut portrait = Portrait::default();
    let ledger = &state.ledger;
    let labels = super::irc::labels(state);
    portrait.role = match labels.values().next() {
        Some(label) if labels.len() == 1 => format!("{label:?}"),
        Some(_) => format!("{} peerings", labels.len()),
        None => "no peering".to_owned(),
    };
    let frozen = ledger.peers.iter().any(|(region, _)| !super::irc::is_open(state, *region));
    portrait.bar = frozen.then_some(Bar::Frozen);
    let fact = |name: &str, value: String| (name.to_owned(), value);
    portrait.facts.push(fact("life", format!("{:?}", ledger.head.incarnation)));
    portrait.facts.push(fact("clock", ledger.head.clock.to_string()));
    for (id, label) in labels {
        let half = if ledger.on.contains(&id) { "half on" } else { "half off" };
        let name = format!("peering r{}:{}.{}", id.requester.0, id.n, id.seq);
        portrait.facts.push((name, format!("{label:?}, {half}")));
    }
    for (id, one) in ledger.peerings.iter() {
        let name = |what: &str| format!("{what} r{}:{}.{}", id.requester.0, id.n, id.seq);
        let Requested { deleted, target, .. } = one.requested.facts;
        let asked = format!("asked of region {}{}", target.region.0, gone(deleted));
        portrait.facts.push((name("requester says"), asked));
        let Decided { decision, deleted, .. } = one.decided.facts;
        let decided = decision.map_or_else(|| "undecided".to_owned(), |it| format!("{it:?}"));
        portrait.facts.push((name("accepter says"), format!("{decided}{}", gone(deleted))));
    }
    for (region, peer) in ledger.peers.iter() {
        portrait.facts.push((format!("towards region {}", region.0), variant(&peer.link)));
    }
    for (id, one) in ledger.records.iter() {
        let name = format!("work {}.{}", id.n, id.seq);
        portrait.facts.push((name, format!("{:?} for region {}", one.verb, one.remote.0)));
    }
    for (work, held) in &state.claims {
        portrait.facts.push((format!("claim {work:?}"), format!("by {:?}", held.server)));
    }
    portrait
}

impl Portray for Carried {
    fn kind(&self) -> &'static str {
        "region"
    }

    fn portray(&self, _: usize, state: &Self::State) -> Portrait {
        control(state)
    }

    fn brief(msg: &IrcMsg) -> String {
        <Party as Portray>::brief(msg)
    }
}

impl Portray for Party {
    fn kind(&self) -> &'static str {
        match self {
            Self::Control(_) => "region",
            Self::Server(_) => "server",
            Self::Customer(_) => "customer",
        }
    }

    fn portray(&self, _: usize, state: &PartyState) -> Portrait {
        match state {
            PartyState::Control(state) => control(state),
            PartyState::Server(state) => Portrait {
                role: format!("{} claims", state.working.len()),
                facts: state
                    .working
                    .iter()
                    .map(|(work, epoch)| (format!("works on {work:?}"), format!("{epoch:?}")))
                    .collect(),
                ..Portrait::default()
            },
            PartyState::Customer(_) => {
                Portrait { role: "customer".to_owned(), ..Portrait::default() }
            }
        }
    }

    fn brief(msg: &IrcMsg) -> String {
        match msg {
            IrcMsg::Ask { request, .. } => match request {
                crate::irc::msg::Request::Change { verb, .. } => format!("Ask {verb:?}"),
                request => format!("Ask {}", variant(request)),
            },
            IrcMsg::Call(call) => match &call.errand {
                Errand::Apply { op, .. } => format!("Call Apply op {op}"),
                errand => format!("Call {}", variant(errand)),
            },
            other => variant(other),
        }
    }
}
