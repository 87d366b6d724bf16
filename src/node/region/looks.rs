//! What there is to see of a region: for operators, and for whoever watches it.

use serde_json::{Map, Value, json};

use super::control::{Control, Inner};
use super::json::{self, id_text, object, parse_id, parse_record, record_text, word};
use crate::irc::audit;
use crate::irc::facts::{OpId, Region};
use crate::irc::ledger::{Link, Record};
use crate::irc::msg::RecordId;
use crate::irc::pace::Breaker;
use crate::irc::{ControlView, View};
use crate::node::lines::Answer;

/// How many records, entries or peerings one answer tells.
const RECORDS_MAX: usize = 1000;

/// A peering that the other side may see otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disagreement {
    pub(super) id: OpId,
    pub(super) peer: Region,
    /// Its facts contradict each other: nothing happens to it until an operator has looked.
    pub(super) stuck: bool,
    /// The region is frozen towards the other one.
    pub(super) frozen: bool,
    /// The oldest record that the other side has not acknowledged.
    pub(super) record: Option<RecordId>,
    /// It is over here, and the other side has not said that it knows.
    pub(super) unconfirmed: bool,
    /// For how many ticks, as far as that is known.
    pub(super) age: Option<u64>,
}

/// The peerings of which the two sides may have different views, in the order of their ids.
pub(super) fn disagreements(view: &ControlView) -> Vec<Disagreement> {
    let ledger = &view.ledger;
    let mut oldest = std::collections::BTreeMap::new();
    for (&record, what) in ledger.records.iter() {
        oldest.entry(what.id).or_insert((record, what.since));
    }
    let all = ledger.peerings.iter();
    all.filter_map(|(id, one)| {
        let peer = one.peer(id);
        let state = ledger.peers.get(&peer);
        let is_disposed = state.is_some_and(|peer| peer.disposed);
        let frozen = !is_disposed && state.is_none_or(|peer| peer.link != Link::Open);
        let record = oldest.get(&id);
        let unconfirmed = one.is_dead() && !one.confirmed && !is_disposed;
        if !(one.stuck || frozen || record.is_some() || unconfirmed) {
            return None;
        }
        let since = [
            record.map(|record| record.1),
            one.dead_since.filter(|_| unconfirmed),
            state.filter(|_| frozen).map(|peer| peer.lost.since),
        ];
        let since = since.into_iter().flatten().min();
        let age = since.map(|since| ledger.head.clock.saturating_sub(since));
        let record = record.map(|record| record.0);
        Some(Disagreement { id, peer, stuck: one.stuck, frozen, record, unconfirmed, age })
    })
    .collect()
}

impl Control {
    pub(super) async fn status(&self) -> Answer {
        let Inner { handle, node, region, .. } = &*self.inner;
        let mut status = object(json!({
            "node": node.name,
            "role": node.role.name(),
            "region": region.name,
            "pid": std::process::id(),
            "address": handle.address(),
            "counts": handle.counts(),
        }));
        match self.any_view().await? {
            View::Server { working, done, drained, unknown } => {
                status.insert("unknown_remote".to_owned(), unknown.into());
                status.insert("working".to_owned(), working.into());
                status.insert("done".to_owned(), done.into());
                status.insert("drained".to_owned(), drained.into());
            }
            View::Control(view) => {
                let head = &view.ledger.head;
                let mut labels = Map::new();
                for id in view.ledger.peerings.keys() {
                    let label = view.label(id).map(|label| label.to_string()).unwrap_or_default();
                    let count = labels.entry(label).or_insert(0.into());
                    *count = (count.as_u64().unwrap_or(0) + 1).into();
                }
                let peers = view.ledger.peers.iter().map(|(&peer, _)| self.peer(&view, peer));
                status.extend(object(json!({
                    "incarnation": head.incarnation.n,
                    "life": format!("{:016x}", head.incarnation.life),
                    "born": head.born,
                    "start": head.start,
                    "clock_ticks": head.clock,
                    "drained": head.drained,
                    "held": head.held,
                    "peerings": labels,
                    "halves_on": view.ledger.on.len(),
                    "tokens": view.ledger.tokens.len(),
                    "records": view.ledger.records.len(),
                    "peers": peers.collect::<Vec<_>>(),
                })));
            }
            View::Customer { .. } => {}
        }
        Ok(status)
    }

    /// How this region stands to another.
    pub(super) fn peer(&self, view: &ControlView, region: Region) -> Value {
        let peer = view.ledger.peers.get(&region);
        let records = view.ledger.records.iter().filter(|(_, record)| record.remote == region);
        let (mut waiting, mut parked) = (0, 0);
        let mut oldest = None;
        for (_, record) in records {
            *(if record.parked { &mut parked } else { &mut waiting }) += 1;
            oldest = oldest.into_iter().chain([record.since]).min();
        }
        let pace = view.paces.get(&region).copied().unwrap_or_default();
        let breaker = match pace.breaker {
            Breaker::Closed => "closed",
            Breaker::Ramping(_) => "ramping",
            Breaker::Open { .. } => "open",
        };
        json!({
            "region": self.inner.config.region_name(region),
            "link": peer.map(|peer| json::link(&peer.link)),
            "disposed": peer.is_some_and(|peer| peer.disposed),
            "promised": peer.and_then(|peer| peer.floor).map(|floor| floor.n),
            "records": waiting,
            "parked": parked,
            "in_flight": view.claimed.get(&region).copied().unwrap_or(0),
            "waiting": view.waiting.get(&region).copied().unwrap_or(0),
            "oldest_ticks": oldest.map(|since| view.ledger.head.clock.saturating_sub(since)),
            "breaker": breaker,
            "retry_budget": pace.retries(),
            "answers": !pace.is_open(),
        })
    }

    /// The records behind `after`, as many as one answer tells.
    pub(super) async fn records(
        &self,
        peer: Option<&str>,
        parked: bool,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Answer {
        let peer = peer.map(|peer| self.other(peer)).transpose()?;
        let after = after.map(parse_record).transpose()?;
        let view = self.view().await?;
        let mut wanted = view.ledger.records.iter().filter(|(id, record)| {
            let is_of_peer = peer.is_none_or(|peer| record.remote == peer);
            after.is_none_or(|after| **id > after) && is_of_peer && (record.parked || !parked)
        });
        let some = wanted.by_ref().take(limit.unwrap_or(RECORDS_MAX).clamp(1, RECORDS_MAX));
        let records: Vec<_> = some.map(|(&id, record)| self.recorded(id, record)).collect();
        Ok(object(json!({ "records": records, "more": wanted.next().is_some() })))
    }

    //= SPEC REGION-15
    pub(super) async fn record(&self, text: &str) -> Answer {
        let id = parse_record(text)?;
        let records = self.view().await?.ledger.records;
        let record = records.get(&id).ok_or_else(|| {
            format!("there is no record {text}: it was delivered or given up, or never was")
        })?;
        Ok(object(json!({ "record": self.recorded(id, record) })))
    }

    fn recorded(&self, id: RecordId, record: &Record) -> Value {
        let config = &self.inner.config;
        json!({
            "record": record_text(id),
            "region": config.region_name(record.remote),
            "kind": record.kind.0,
            "id": id_text(config, record.id),
            "verb": word(&record.verb),
            "op": record.op,
            "lost": record.lost,
            "parked": record.parked,
        })
    }

    /// The last entries of the audit log, those of one peering or all.
    pub(super) async fn audit(&self, id: Option<&str>, after: Option<u64>) -> Answer {
        let config = &self.inner.config;
        let id = id.map(|id| parse_id(config, id)).transpose()?;
        let ledger = self.view().await?.ledger;
        let kept = ledger.audit.iter().map(|(&number, entry)| (number, entry));
        let chain = audit::verify(kept, ledger.head.audited);
        let mut wanted = ledger.audit.iter().filter(|(number, entry)| {
            after.is_none_or(|after| **number > after) && id.is_none_or(|id| entry.id == Some(id))
        });
        let entries: Vec<_> = wanted
            .by_ref()
            .take(RECORDS_MAX)
            .map(|(&number, entry)| json::audited(config, number, entry))
            .collect();
        Ok(object(json!({
            "entries": entries,
            "more": wanted.next().is_some(),
            "first": ledger.audit.iter().next().map(|(number, _)| number),
            "chain": chain.map_or_else(|error| error.to_string(), |()| "whole".to_owned()),
        })))
    }

    /// The peerings of which the two sides may have different views.
    //= SPEC REGION-11
    pub(super) async fn disagreements(&self, peer: Option<&str>) -> Answer {
        let config = &self.inner.config;
        let peer = peer.map(|peer| self.other(peer)).transpose()?;
        let view = self.view().await?;
        let all = disagreements(&view);
        let mut wanted = all.iter().filter(|one| peer.is_none_or(|peer| one.peer == peer));
        let told: Vec<_> = wanted
            .by_ref()
            .take(RECORDS_MAX)
            .map(|one| {
                let why = [
                    (one.stuck, "contradictory"),
                    (one.frozen, "frozen"),
                    (one.record.is_some(), "unacknowledged"),
                    (one.unconfirmed, "unconfirmed"),
                ];
                let why: Vec<_> = why.iter().filter(|why| why.0).map(|why| why.1).collect();
                json!({
                    "id": id_text(config, one.id),
                    "region": config.region_name(one.peer),
                    "state": view.label(one.id),
                    "why": why,
                    "record": one.record.map(record_text),
                    "age_ticks": one.age,
                })
            })
            .collect();
        Ok(object(json!({ "disagreements": told, "more": wanted.next().is_some() })))
    }

    /// What the last freeze towards each peer has brought to light.
    pub(super) async fn report(&self) -> Answer {
        let config = &self.inner.config;
        let view = self.view().await?;
        let peers = view.ledger.peers.iter().map(|(&region, peer)| {
            let recovered = peer.lost.recovered.iter().map(|(&id, what)| {
                json!({
                    "id": id_text(config, id), "existence": what.existence,
                    "decision": what.decision, "deletion": what.flag, "options": what.options,
                })
            });
            let refused = peer.lost.refused.iter().map(|&id| id_text(config, id));
            json!({
                "region": config.region_name(region),
                "link": json::link(&peer.link),
                "recovered": recovered.collect::<Vec<_>>(),
                "refused": refused.collect::<Vec<_>>(),
                "window_ticks": [peer.lost.window.0, peer.lost.window.1],
            })
        });
        Ok(object(json!({
            "incarnation": view.ledger.head.incarnation.n,
            "open": view.is_open(),
            "peers": peers.collect::<Vec<_>>(),
        })))
    }
}
