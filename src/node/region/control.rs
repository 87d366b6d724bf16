//! The control socket of a node of a region: what customers and operators call.
//!
//! | `op` | further keys | answer |
//! |---|---|---|
//! | `create` | `account`, `token`, `network`, `region`, `peer_account`, `peer_network`, `resolve_names`? | the id and the state |
//! | `accept`, `reject`, `delete` | `account`, `token`, `id` | the state |
//! | `modify` | `account`, `token`, `id`, `version`, `resolve_names` | the new version |
//! | `get`, `explain` | `account`, `id` | the peering; what it waits for |
//! | `list` | `account`, `after`? | some peerings, and whether there are more |
//! | `audit` | `id`?, `after`? | entries of the audit log that are in memory, and whether their chain is whole |
//! | `status` | | the region as this node knows it |
//! | `drain`, `undrain` | | takes no calls (a server: no work), or takes them again |
//! | `freeze` | | begins a new life, frozen towards every peer until that one has answered |
//! | `dispose`, `readmit` | `peer` | declares a region gone for good; lets it come back |
//! | `records` | `peer`?, `parked`? | the work log |
//! | `redrive`, `discard` | `record` | tries a record again that is set aside; gives it up |
//! | `report` | | what the last freeze towards each peer has brought to light |
//! | `backup` | `path` | once a copy of everything that is durable now lies there |
//! | `cut`, `heal`, `pause` | as for the nodes of a lease | tests only |
//!
//! With `"dry_run": true` a call that changes something is answered as it would be, and changes
//! nothing: it is one step of the same actor, on a copy of what is durable. A refusal has a `code`,
//! and `retry` if it may pass. A call that is not answered in time may yet take effect: ask again under
//! the same token.
//!
//! Whoever reaches the socket speaks for every account and operates the region, so it is bound to
//! loopback.

use std::io;
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use stateright::actor::Id;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::json::{
    self, id_text, object, parse_id, parse_record, parse_version, record_text, word,
};
use super::{Calls, INDEX, Told};
use crate::config::{Config, Node, Region};
use crate::irc::audit;
use crate::irc::facts::{Account, Network, Target};
use crate::irc::ledger::{ControlState, Ledger};
use crate::irc::msg::{CallError, Command, Msg, Request as Call, Token};
use crate::irc::peering::Verb;
use crate::irc::{ControlView, Party, PartyState, View};
use crate::node::handle::{Direction, Handle};
use crate::node::lines::{self, Answer, Lines, no_request};
use crate::node::restore;
use crate::step::{Effect, Input, step};

/// How long a call may wait for its answer: a commit takes milliseconds.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long a request waits for the first view of a node that has only just started.
const START_MAX: Duration = Duration::from_secs(2);
/// The longest pause that may be asked for.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// How many records one answer tells.
const RECORDS_MAX: usize = 1000;
/// How many changes the answer to a dry run tells.
const CHANGES_MAX: usize = 1000;
/// An account that owns nothing: for the question that follows an operator's command.
const NOBODY: Account = Account(u32::MAX);

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    Create {
        account: u32,
        token: u64,
        network: u32,
        region: String,
        peer_account: u32,
        peer_network: u32,
        #[serde(default)]
        resolve_names: bool,
        #[serde(default)]
        dry_run: bool,
    },
    Accept(Change),
    Reject(Change),
    Delete(Change),
    Modify {
        account: u32,
        token: u64,
        id: String,
        version: String,
        resolve_names: bool,
        #[serde(default)]
        dry_run: bool,
    },
    Get {
        account: u32,
        id: String,
    },
    Explain {
        account: u32,
        id: String,
    },
    List {
        account: u32,
        after: Option<String>,
    },
    Audit {
        id: Option<String>,
        after: Option<u64>,
    },
    Status {},
    Drain(Plain),
    Undrain(Plain),
    Freeze(Plain),
    Dispose(OfPeer),
    Readmit(OfPeer),
    Records {
        peer: Option<String>,
        #[serde(default)]
        parked: bool,
    },
    Redrive(OfRecord),
    Discard(OfRecord),
    Report {},
    Backup {
        path: PathBuf,
    },
    Cut {
        nodes: Vec<String>,
    },
    Heal {},
    Pause {
        ms: u64,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    account: u32,
    token: u64,
    id: String,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPeer {
    peer: String,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRecord {
    record: String,
    #[serde(default)]
    dry_run: bool,
}

/// The control socket of one running node of a region.
#[derive(Clone)]
pub struct Control {
    inner: Arc<Inner>,
}

struct Inner {
    handle: Arc<Handle<Party>>,
    calls: Calls,
    config: Arc<Config>,
    node: Node,
    region: Region,
    /// The actor once more, for dry runs.
    party: Party,
    with_faults: bool,
}

impl Control {
    /// Controls this node of that cluster; with fault injection only for tests. `party` is the node's
    /// actor, for dry runs.
    ///
    /// # Panics
    ///
    /// If the node works for no region of the cluster.
    pub fn new(
        handle: Arc<Handle<Party>>,
        calls: Calls,
        config: Arc<Config>,
        party: Party,
        with_faults: bool,
    ) -> Self {
        let node = config.node_by_id(handle.me()).expect("the node is one of the cluster").clone();
        let region = config.region_of(node.id).expect("it works for a region").clone();
        Self { inner: Arc::new(Inner { handle, calls, config, node, region, party, with_faults }) }
    }

    /// Serves connections until the future is dropped.
    ///
    /// # Errors
    ///
    /// If the listener cannot be used with tokio.
    pub async fn serve(self, listener: StdListener) -> io::Result<()> {
        lines::serve(listener, |stream| self.clone().converse(stream)).await
    }

    async fn converse(self, stream: TcpStream) -> io::Result<()> {
        let mut lines = Lines::of(stream)?;
        while let Some(line) = lines.next().await? {
            let answer = match serde_json::from_slice(line) {
                Ok(request) => self.answer(request).await,
                Err(error) => Err(no_request(&error)),
            };
            lines.say(answer).await?;
        }
        Ok(())
    }

    async fn answer(&self, request: Request) -> Answer {
        let config = &self.inner.config;
        match request {
            Request::Create {
                account,
                token,
                network,
                region,
                peer_account,
                peer_network,
                resolve_names,
                dry_run,
            } => {
                let target = Target {
                    region: json::region(config, &region)?,
                    account: Account(peer_account),
                    network: Network(peer_network),
                };
                let call = Call::Create { network: Network(network), target, resolve_names };
                self.call(account, token, call, dry_run).await
            }
            Request::Accept(change) => self.change(change, Verb::Accept).await,
            Request::Reject(change) => self.change(change, Verb::Reject).await,
            Request::Delete(change) => self.change(change, Verb::Delete).await,
            Request::Modify { account, token, id, version, resolve_names, dry_run } => {
                let (id, expected) = (parse_id(config, &id)?, parse_version(&version)?);
                let call = Call::Modify { id, expected, resolve_names };
                self.call(account, token, call, dry_run).await
            }
            Request::Get { account, id } => {
                let id = parse_id(config, &id)?;
                self.call(account, 0, Call::Get { id }, false).await
            }
            Request::Explain { account, id } => {
                let id = parse_id(config, &id)?;
                let mut answer = self.call(account, 0, Call::Explain { id }, false).await?;
                let view = self.view().await?;
                if let Some(peering) = view.ledger.peerings.get(&id) {
                    let peer = peering.peer(id);
                    answer.insert("peer".to_owned(), self.peer(&view, peer));
                }
                Ok(answer)
            }
            Request::List { account, after } => {
                let after = after.map(|after| parse_id(config, &after)).transpose()?;
                self.call(account, 0, Call::List { after }, false).await
            }
            Request::Audit { id, after } => self.audit(id.as_deref(), after).await,
            Request::Status {} => self.status().await,
            Request::Drain(Plain { dry_run }) => self.operate(Command::Drain(true), dry_run).await,
            Request::Undrain(Plain { dry_run }) => {
                self.operate(Command::Drain(false), dry_run).await
            }
            Request::Freeze(Plain { dry_run }) => {
                let mut others = config.regions.iter().map(|region| region.index);
                let other = others.find(|&other| other != self.inner.region.index);
                let other = other.ok_or("there is no other region")?;
                self.operate(Command::Freeze(other), dry_run).await
            }
            Request::Dispose(OfPeer { peer, dry_run }) => {
                let peer = self.other(&peer)?;
                self.operate(Command::Dispose(peer), dry_run).await
            }
            Request::Readmit(OfPeer { peer, dry_run }) => {
                let peer = self.other(&peer)?;
                let view = self.view().await?;
                if !view.ledger.peers.get(&peer).is_some_and(|peer| peer.disposed) {
                    return Err("that region was not disposed of: there is nothing to do".into());
                }
                self.operate(Command::Readmit(peer), dry_run).await
            }
            Request::Records { peer, parked } => self.records(peer.as_deref(), parked).await,
            Request::Redrive(OfRecord { record, dry_run }) => {
                let record = self.parked(&record).await?;
                self.operate(Command::Redrive(record), dry_run).await
            }
            Request::Discard(OfRecord { record, dry_run }) => {
                let record = self.parked(&record).await?;
                self.operate(Command::Discard(record), dry_run).await
            }
            Request::Report {} => self.report().await,
            Request::Backup { path } => self.backup(path).await,
            Request::Cut { nodes } => {
                self.faults_allowed()?;
                let id = |name: &String| {
                    let node = config.node(name).map(|node| node.id);
                    node.ok_or_else(|| format!("{name:?} is no node of this cluster"))
                };
                let nodes = nodes.iter().map(id).collect::<Result<Vec<_>, _>>()?;
                self.inner.handle.cut(nodes, Direction::Both);
                Ok(Map::new())
            }
            Request::Heal {} => {
                self.faults_allowed()?;
                self.inner.handle.cut([], Direction::Both);
                Ok(Map::new())
            }
            Request::Pause { ms } => {
                self.faults_allowed()?;
                let pause = Duration::from_millis(ms).min(PAUSE_MAX);
                self.inner.handle.pause(pause);
                Ok(Map::new())
            }
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Customers
    // ---------------------------------------------------------------------------------------------

    async fn change(&self, change: Change, verb: Verb) -> Answer {
        let Change { account, token, id, dry_run } = change;
        let id = parse_id(&self.inner.config, &id)?;
        self.call(account, token, Call::Change { id, verb }, dry_run).await
    }

    /// Calls the control plane in a customer's name, and waits for the answer.
    //= SPEC REGION-4
    async fn call(&self, account: u32, token: u64, request: Call, dry_run: bool) -> Answer {
        let ask = |n| Msg::Ask { n, caller: Account(account), token: Token(token), request };
        let told = if dry_run {
            let (_, effects) = self.dry(ask(0)).await?;
            effects.into_iter().find_map(|effect| match effect {
                Effect::Send(_, Msg::Told { result, .. }) => Some(result),
                _ => None,
            })
        } else {
            self.control_plane()?;
            self.ask(ask).await?
        };
        let Some(told) = told else {
            let error = "no answer in time: it may yet take effect; ask again under the same token";
            return Ok(object(
                json!({ "ok": false, "code": "no-answer", "error": error, "retry": true }),
            ));
        };
        let config = &self.inner.config;
        let mut answer = match told {
            Ok(answer) => json::answer(config, &answer),
            Err(error) => json::refusal(config, &error),
        };
        if dry_run {
            answer.insert("dry_run".to_owned(), true.into());
        }
        Ok(answer)
    }

    async fn ask(&self, ask: impl FnOnce(u64) -> Msg) -> Result<Option<Told>, String> {
        let Inner { calls, handle, .. } = &*self.inner;
        let (number, told) = calls.open();
        if let Err(error) = handle.tell(INDEX, ask(number)) {
            calls.close(number);
            return match error {
                crate::node::TellError::Full => Ok(Some(Err(CallError::Unavailable))),
                error => Err(error.to_string()),
            };
        }
        let told = timeout(CALL_MAX, told).await;
        calls.close(number);
        Ok(told.ok().and_then(Result::ok))
    }

    /// One step of the control plane on a copy of what is durable: what it would be, and its effects.
    //= SPEC REGION-5
    async fn dry(&self, msg: Msg) -> Result<(Ledger, Vec<crate::step::EffectOf<Party>>), String> {
        use crate::wire::Message as _;
        if !msg.is_legal() {
            return Err("a value is out of its bounds: check the ids".to_owned());
        }
        let ledger = self.view().await?.ledger;
        let me = Id::from(self.inner.node.id);
        let state = PartyState::Control(ControlState::new(ledger));
        let input = Input::Deliver { src: me, msg };
        match step(&self.inner.party, me, Some(state), input) {
            (PartyState::Control(state), effects) => Ok((state.ledger, effects)),
            _ => unreachable!("a control plane stays one"),
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Operators
    // ---------------------------------------------------------------------------------------------

    /// Gives a command, and waits until it is durable.
    async fn operate(&self, command: Command, dry_run: bool) -> Answer {
        if let Party::Server(_) = self.inner.party {
            return self.operate_server(command, dry_run);
        }
        let before = self.view().await?;
        if dry_run {
            let (after, _) = self.dry(Msg::Operate(command)).await?;
            let after = ControlView { ledger: after, ..before.clone() };
            let mut answer = self.changes(&before, &after);
            answer.insert("dry_run".to_owned(), true.into());
            return Ok(answer);
        }
        let Inner { handle, .. } = &*self.inner;
        handle.tell(INDEX, Msg::Operate(command)).map_err(|error| error.to_string())?;
        // Whatever follows is answered only when the command is durable.
        let list = Call::List { after: None };
        let after = |n| Msg::Ask { n, caller: NOBODY, token: Token(0), request: list };
        if self.ask(after).await?.is_none() {
            return Err("not carried out in time: look at the status, and try again".to_owned());
        }
        let after = self.view().await?;
        Ok(self.changes(&before, &after))
    }

    fn operate_server(&self, command: Command, dry_run: bool) -> Answer {
        let Command::Drain(drained) = command else { return Err(self.not_a_control_plane()) };
        if !dry_run {
            let told = self.inner.handle.tell(INDEX, Msg::Operate(command));
            told.map_err(|error| error.to_string())?;
        }
        Ok(object(json!({ "drained": drained, "dry_run": dry_run })))
    }

    /// What is different.
    fn changes(&self, before: &ControlView, after: &ControlView) -> Map<String, Value> {
        let config = &self.inner.config;
        let mut peerings = Vec::new();
        after.ledger.peerings.difference(&before.ledger.peerings, |&id, _| {
            let (from, to) = (before.label(id), after.label(id));
            if from != to && peerings.len() < CHANGES_MAX {
                peerings.push(json!({ "id": id_text(config, id), "from": from, "to": to }));
            }
        });
        let mut halves = Vec::new();
        after.ledger.on.difference(&before.ledger.on, |&id, on| {
            if halves.len() < CHANGES_MAX {
                halves.push(json!({ "id": id_text(config, id), "on": on.is_some() }));
            }
        });
        let (mut written, mut dropped) = (0_u64, 0_u64);
        after.ledger.records.difference(&before.ledger.records, |id, record| {
            match (record, before.ledger.records.get(id)) {
                (Some(_), None) => written += 1,
                (None, _) => dropped += 1,
                _ => {}
            }
        });
        let peers = after.ledger.peers.iter().map(|(&region, _)| self.peer(after, region));
        object(json!({
            "incarnation": after.ledger.head.incarnation.n,
            "drained": after.ledger.head.drained,
            "peerings": peerings,
            "halves": halves,
            "records": { "written": written, "dropped": dropped },
            "peers": peers.collect::<Vec<_>>(),
        }))
    }

    async fn status(&self) -> Answer {
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
            View::Server { working, done } => {
                status.insert("working".to_owned(), working.into());
                status.insert("done".to_owned(), done.into());
            }
            View::Control(view) => {
                let head = &view.ledger.head;
                let mut labels = Map::new();
                for (&id, _) in view.ledger.peerings.iter() {
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
    fn peer(&self, view: &ControlView, region: crate::irc::facts::Region) -> Value {
        let peer = view.ledger.peers.get(&region);
        let records = view.ledger.records.iter().filter(|(_, record)| record.remote == region);
        let (mut waiting, mut parked) = (0, 0);
        for (_, record) in records {
            *(if record.parked { &mut parked } else { &mut waiting }) += 1;
        }
        json!({
            "region": self.inner.config.region_name(region),
            "link": peer.map(|peer| json::link(&peer.link)),
            "disposed": peer.is_some_and(|peer| peer.disposed),
            "promised": peer.and_then(|peer| peer.floor).map(|floor| floor.n),
            "records": waiting,
            "parked": parked,
            "in_flight": view.claimed.get(&region).copied().unwrap_or(0),
            "answers": !view.halved.contains_key(&region),
        })
    }

    async fn records(&self, peer: Option<&str>, parked: bool) -> Answer {
        let config = &self.inner.config;
        let peer = peer.map(|peer| self.other(peer)).transpose()?;
        let view = self.view().await?;
        let mut wanted = view.ledger.records.iter().filter(|(_, record)| {
            peer.is_none_or(|peer| record.remote == peer) && (record.parked || !parked)
        });
        let records: Vec<_> = wanted
            .by_ref()
            .take(RECORDS_MAX)
            .map(|(&id, record)| {
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
            })
            .collect();
        Ok(object(json!({ "records": records, "more": wanted.next().is_some() })))
    }

    /// The last entries of the audit log, those of one peering or all.
    async fn audit(&self, id: Option<&str>, after: Option<u64>) -> Answer {
        let config = &self.inner.config;
        let id = id.map(|id| parse_id(config, id)).transpose()?;
        let ledger = self.view().await?.ledger;
        let kept = ledger.audit.iter().map(|(&number, entry)| (number, entry));
        let chain = audit::verify(kept, ledger.head.audited);
        let mut wanted = ledger.audit.iter().filter(|(number, entry)| {
            after.is_none_or(|after| **number > after) && id.is_none_or(|id| entry.id == id)
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

    async fn parked(&self, text: &str) -> Result<crate::irc::msg::RecordId, String> {
        let id = parse_record(text)?;
        match self.view().await?.ledger.records.get(&id) {
            Some(record) if record.parked => Ok(id),
            Some(_) => Err(format!("record {text} is not set aside: it is delivered by itself")),
            None => Err(format!("there is no record {text}: look at `dlq list`")),
        }
    }

    /// What the last freeze towards each peer has brought to light.
    async fn report(&self) -> Answer {
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

    /// Writes a copy of all that is durable into a new file.
    async fn backup(&self, path: PathBuf) -> Answer {
        if !path.is_absolute() {
            return Err("a backup needs an absolute path: it is this node that writes it".into());
        }
        let ledger = self.view().await?.ledger;
        let (cluster, node) = (self.inner.config.cluster.clone(), self.inner.node.id);
        let told = restore::about(&ledger);
        let target = path.clone();
        let write = move || restore::write(&cluster, node, &target, ledger);
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let mut answer = object(told);
        answer.insert("path".to_owned(), path.display().to_string().into());
        Ok(answer)
    }

    // ---------------------------------------------------------------------------------------------
    // Small things
    // ---------------------------------------------------------------------------------------------

    fn not_a_control_plane(&self) -> String {
        let Inner { config, node, region, .. } = &*self.inner;
        let control = config.node_by_id(region.control_plane).map_or("it", |node| &node.name);
        format!("{} is an {}: ask the control plane, {control}", node.name, node.role.name())
    }

    fn control_plane(&self) -> Result<(), String> {
        match self.inner.party {
            Party::Control(_) => Ok(()),
            _ => Err(self.not_a_control_plane()),
        }
    }

    fn other(&self, name: &str) -> Result<crate::irc::facts::Region, String> {
        let region = json::region(&self.inner.config, name)?;
        if region == self.inner.region.index {
            return Err(format!("{name} is this region: name another"));
        }
        Ok(region)
    }

    /// What was published last, once something was: what a node saves at its start takes a moment.
    async fn any_view(&self) -> Result<View, String> {
        let mut views = self.inner.handle.views(INDEX).ok_or("the node has no part in a region")?;
        let published = timeout(START_MAX, views.wait_for(Option::is_some)).await;
        let view = published.ok().and_then(Result::ok).and_then(|view| view.clone());
        view.map(|view| view.view).ok_or_else(|| "the node has only just started: try again".into())
    }

    async fn view(&self) -> Result<ControlView, String> {
        match self.any_view().await? {
            View::Control(view) => Ok(*view),
            _ => Err(self.not_a_control_plane()),
        }
    }

    fn faults_allowed(&self) -> Result<(), String> {
        if self.inner.with_faults {
            return Ok(());
        }
        Err("faults are for tests: start the node with --faults to allow them".to_owned())
    }
}
