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
//! | `freeze` | | begins a new life, frozen towards every peer until `thaw` |
//! | `thaw` | | lets that freeze end, towards each peer as soon as that one has said what it knows |
//! | `dispose`, `readmit` | `peer` | declares a region gone for good; lets it come back |
//! | `records` | `peer`?, `parked`?, `after`?, `limit`? | the work log, in the order of its records, and whether there are more |
//! | `record` | `record` | one record of the work log |
//! | `redrive`, `discard` | `record` | tries a record again that is set aside; gives it up |
//! | `disagreements` | `peer`? | the peerings that the other side may see otherwise, why, and for how long |
//! | `report` | | what the last freeze towards each peer has brought to light |
//! | `backup` | `path` | once a copy of everything that is durable now lies there |
//! | `cut`, `heal`, `pause` | as for the nodes of a lease | tests only |
//!
//! With `"dry_run": true` a call that changes something is answered as it would be, and changes
//! nothing: it is one step of the same actor, on a copy of what is durable. What a command of an operator
//! changes at a control plane has an entry in the audit log; servers have none. A refusal has a `code`,
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
use serde_json::{Map, json};
use stateright::actor::Id;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::json::{self, object, parse_id, parse_version};
use super::{Calls, INDEX, Told};
use crate::config::{Config, Node, Region};
use crate::irc::facts::{Account, Network, Target};
use crate::irc::ledger::{ControlState, Ledger};
use crate::irc::msg::{CallError, Command, Msg, Request as Call, Token};
use crate::irc::peering::Verb;
use crate::irc::{ControlView, Party, PartyState, View};
use crate::node::handle::{Direction, Handle};
use crate::node::lines::{self, Answer, Lines, no_request};
use crate::step::{Effect, Input, step};

/// How long a call may wait for its answer: a commit takes milliseconds.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long a request waits for the first view of a node that has only just started.
const START_MAX: Duration = Duration::from_secs(2);
/// The longest pause that may be asked for.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

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
    Thaw(Plain),
    Disagreements {
        peer: Option<String>,
    },
    Dispose(OfPeer),
    Readmit(OfPeer),
    Records {
        peer: Option<String>,
        #[serde(default)]
        parked: bool,
        after: Option<String>,
        limit: Option<usize>,
    },
    Record {
        record: String,
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
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) handle: Arc<Handle<Party>>,
    pub(super) calls: Calls,
    pub(super) config: Arc<Config>,
    pub(super) node: Node,
    pub(super) region: Region,
    /// The actor once more, for dry runs.
    pub(super) party: Party,
    pub(super) with_faults: bool,
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
            Request::Thaw(Plain { dry_run }) => self.thaw(dry_run).await,
            Request::Disagreements { peer } => self.disagreements(peer.as_deref()).await,
            Request::Dispose(OfPeer { peer, dry_run }) => {
                let peer = self.other(&peer)?;
                self.operate(Command::Dispose(peer), dry_run).await
            }
            Request::Readmit(OfPeer { peer, dry_run }) => self.readmit(&peer, dry_run).await,
            Request::Records { peer, parked, after, limit } => {
                self.records(peer.as_deref(), parked, after.as_deref(), limit).await
            }
            Request::Record { record } => self.record(&record).await,
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

    pub(super) async fn ask(&self, ask: impl FnOnce(u64) -> Msg) -> Result<Option<Told>, String> {
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
    pub(super) async fn dry(
        &self,
        msg: Msg,
    ) -> Result<(Ledger, Vec<crate::step::EffectOf<Party>>), String> {
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
    // Small things
    // ---------------------------------------------------------------------------------------------

    pub(super) fn not_a_control_plane(&self) -> String {
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

    pub(super) fn other(&self, name: &str) -> Result<crate::irc::facts::Region, String> {
        let region = json::region(&self.inner.config, name)?;
        if region == self.inner.region.index {
            return Err(format!("{name} is this region: name another"));
        }
        Ok(region)
    }

    /// What was published last, once something was: what a node saves at its start takes a moment.
    pub(super) async fn any_view(&self) -> Result<View, String> {
        let mut views = self.inner.handle.views(INDEX).ok_or("the node has no part in a region")?;
        let published = timeout(START_MAX, views.wait_for(Option::is_some)).await;
        let view = published.ok().and_then(Result::ok).and_then(|view| view.clone());
        view.map(|view| view.view).ok_or_else(|| "the node has only just started: try again".into())
    }

    pub(super) async fn view(&self) -> Result<ControlView, String> {
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
