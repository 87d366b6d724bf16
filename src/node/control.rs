//! The control socket of a node: one JSON object a line, over TCP, on loopback only.
//!
//! | `op` | further keys | answer |
//! |---|---|---|
//! | `status` | `lease`? | the node, its leases, its counters |
//! | `watch` | `lease` | the same for this lease, now and after each change, until the connection ends |
//! | `step-down` | `lease`, `epoch`? | once the term has ended and the lease is released |
//! | `hand-over` | `lease`, `to`, `epoch`? | once the term has ended |
//! | `put` | `lease`, `key`, `value`, `timeout_ms`? | once the write is acknowledged |
//! | `get` | `lease`, `key` | the committed row, as this host knows it |
//! | `table` | `lease` | all of them |
//! | `cut` | `nodes`, `direction`? | drops datagrams to and from these nodes: tests only |
//! | `heal` | | drops none any more: tests only |
//! | `pause` | `ms` | the node handles nothing for so long: tests only |
//!
//! Every answer has `"ok"`. If that is false, `"error"` says what to do. The last three work only if
//! the node was started for tests. While a node is paused its control socket goes on answering, with
//! what the node has last published.
//!
//! Whoever reaches the socket operates the node; so it is bound to loopback, and everything that
//! comes from it is bounded: lines, connections, waiting writes, and the time a reader may take.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::clock::BootInstant;
use super::handle::{Direction, Handle, Published};
use super::launch;
use super::lines::{self, Answer, Lines, no_request};
pub use super::lines::{CONNECTIONS_MAX, LINE_BYTES_MAX};
use crate::config::{Config, Lease, Node};
use crate::lease::msg::{Msg, TEXT_MAX};
use crate::lease::record::{Epoch, NodeId, NodeSet};
use crate::lease::{HostView, Member, Role, View};

/// How many writes of one client may wait for their acknowledgement.
const PUTS_MAX: u64 = 1024;
/// How long a `put` waits unless it says otherwise, and how long it may wait at most.
const PUT_WAIT: Duration = Duration::from_secs(10);
const PUT_WAIT_MAX: Duration = Duration::from_secs(600);
/// How long a request waits for the first view of a node that has only just started.
const START_MAX: Duration = Duration::from_secs(2);
/// The longest pause that may be asked for.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// How long the end of a term may take besides the stop hook, if the store answers.
const END_OF_TERM: Duration = Duration::from_secs(5);

type Views = watch::Receiver<Option<Published<View>>>;

/// What a connection asks.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    Status {
        lease: Option<String>,
    },
    Watch {
        lease: String,
    },
    StepDown {
        lease: String,
        epoch: Option<Epoch>,
    },
    HandOver {
        lease: String,
        to: String,
        epoch: Option<Epoch>,
    },
    Put {
        lease: String,
        key: String,
        value: String,
        timeout_ms: Option<u64>,
    },
    Get {
        lease: String,
        key: String,
    },
    Table {
        lease: String,
    },
    Cut {
        nodes: Vec<String>,
        #[serde(default)]
        direction: Way,
    },
    Heal {},
    Pause {
        ms: u64,
    },
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    #[default]
    Both,
    In,
    Out,
}

/// The control socket of one running node.
#[derive(Clone, Debug)]
pub struct Control {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    handle: Arc<Handle<Member>>,
    config: Arc<Config>,
    node: Node,
    with_faults: bool,
    /// How many writes were submitted, for each lease. Whoever waits for one holds the lock.
    puts: Vec<Mutex<u64>>,
}

impl Control {
    /// Controls this node of that cluster; with fault injection only for tests.
    ///
    /// # Panics
    ///
    /// If the cluster does not have the node.
    pub fn new(handle: Arc<Handle<Member>>, config: Arc<Config>, with_faults: bool) -> Self {
        let node = config.node_by_id(handle.me()).expect("the node is one of the cluster").clone();
        let puts = config.leases.iter().map(|_| Mutex::new(0)).collect();
        Self { inner: Arc::new(Inner { handle, config, node, with_faults, puts }) }
    }

    /// Serves connections until the future is dropped.
    ///
    /// # Errors
    ///
    /// If the listener cannot be used with tokio.
    pub async fn serve(self, listener: StdListener) -> io::Result<()> {
        lines::serve(listener, |stream| self.clone().converse(stream)).await
    }

    /// What `status` answers, with every lease of the node.
    pub fn status(&self) -> Value {
        let leases = self.leases().map(|lease| self.lease_status(lease, None));
        let mut status = self.about(leases.collect());
        status.insert("ok".to_owned(), true.into());
        status.into()
    }

    async fn converse(self, stream: TcpStream) -> io::Result<()> {
        let mut lines = Lines::of(stream)?;
        while let Some(line) = lines.next().await? {
            let answer = match serde_json::from_slice(line) {
                Ok(Request::Watch { lease }) => match self.views(&lease) {
                    Ok((lease, views)) => return self.watch(lease, views, lines).await,
                    Err(error) => Err(error),
                },
                Ok(request) => self.answer(request).await,
                Err(error) => Err(no_request(&error)),
            };
            lines.say(answer).await?;
        }
        Ok(())
    }

    async fn watch(&self, lease: &Lease, mut views: Views, mut lines: Lines) -> io::Result<()> {
        loop {
            let published = views.borrow_and_update().clone();
            let status = self.lease_status(lease, Some(published));
            lines.say(Ok(self.about(vec![status]))).await?;
            tokio::select! {
                // An error means that the node has ended.
                changed = views.changed() => if changed.is_err() { return Ok(()) },
                // The other side has closed, or wants something else: it may ask on a new one.
                _ = lines.reader.fill_buf() => return Ok(()),
            }
        }
    }

    async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status { lease: None } => {
                let leases = self.leases().map(|lease| self.lease_status(lease, None)).collect();
                Ok(self.about(leases))
            }
            Request::Status { lease: Some(name) } => {
                let (lease, _) = self.views(&name)?;
                Ok(self.about(vec![self.lease_status(lease, None)]))
            }
            Request::StepDown { lease, epoch } => {
                let (lease, views) = self.started(&lease).await?;
                let (_, epoch) = self.holding(lease, &views, epoch)?;
                self.end_term(lease, views, epoch, Msg::StepDown { epoch }).await
            }
            Request::HandOver { lease, to, epoch } => {
                let (lease, views) = self.started(&lease).await?;
                let (view, epoch) = self.holding(lease, &views, epoch)?;
                let target = self.target(lease, &view, &to)?;
                self.end_term(lease, views, epoch, Msg::HandOver { target, epoch }).await
            }
            Request::Put { lease, key, value, timeout_ms } => {
                let wait = timeout_ms.map_or(PUT_WAIT, Duration::from_millis);
                let (lease, views) = self.started(&lease).await?;
                self.put(lease, views, key, value, wait).await
            }
            Request::Get { lease, key } => {
                let (lease, views) = self.started(&lease).await?;
                let view = self.host_view(&views)?;
                let row = view.table.as_ref().and_then(|table| table.0.get(&key));
                let mut answer = self.about_table(lease, &views, &view);
                answer.insert("key".to_owned(), key.as_str().into());
                answer.insert("found".to_owned(), row.is_some().into());
                answer.insert("value".to_owned(), row.map(|(value, _)| value).into());
                answer.insert("seq".to_owned(), row.map(|(_, seq)| seq).into());
                Ok(answer)
            }
            Request::Table { lease } => {
                let (lease, views) = self.started(&lease).await?;
                let view = self.host_view(&views)?;
                let rows: Map<_, _> = rows(&view)
                    .map(|(key, value, seq)| (key, json!({ "value": value, "seq": seq })))
                    .collect();
                let mut answer = self.about_table(lease, &views, &view);
                answer.insert("rows".to_owned(), rows.into());
                Ok(answer)
            }
            Request::Cut { nodes, direction } => {
                self.faults_allowed()?;
                let nodes = nodes.iter().map(|name| self.node_id(name));
                let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
                self.inner.handle.cut(
                    nodes,
                    match direction {
                        Way::Both => Direction::Both,
                        Way::In => Direction::In,
                        Way::Out => Direction::Out,
                    },
                );
                Ok(Map::new())
            }
            Request::Heal {} => {
                self.faults_allowed()?;
                self.inner.handle.cut([], Direction::Both);
                Ok(Map::new())
            }
            Request::Pause { ms } => {
                self.faults_allowed()?;
                let pause = Duration::from_millis(ms);
                if pause > PAUSE_MAX {
                    return Err(format!("a pause is at most {} ms", PAUSE_MAX.as_millis()));
                }
                self.inner.handle.pause(pause);
                Ok(Map::new())
            }
            Request::Watch { .. } => unreachable!("a watch has the connection to itself"),
        }
    }

    // ---------------------------------------------------------------------------------------------
    // Operating a lease
    // ---------------------------------------------------------------------------------------------

    /// The view and the epoch of the term that this node holds, if it is the one that is meant.
    fn holding(
        &self,
        lease: &Lease,
        views: &Views,
        meant: Option<Epoch>,
    ) -> Result<(HostView, Epoch), String> {
        let view = self.host_view(views)?;
        let epoch = view.epoch.filter(|_| view.role == Role::Holding);
        match (epoch, meant) {
            (Some(epoch), Some(meant)) if meant != epoch => {
                Err(format!("the epoch is {epoch} and not {meant}: look at the status again"))
            }
            (Some(epoch), _) => Ok((view, epoch)),
            (None, _) => Err(format!(
                "{} does not hold lease {:?}: {}",
                self.inner.node.name,
                lease.name,
                match view.holder.filter(|&holder| holder != self.inner.node.id) {
                    Some(holder) => format!("ask {}", self.name(holder)),
                    None => "nobody is known to hold it, so try again later".to_owned(),
                },
            )),
        }
    }

    fn target(&self, lease: &Lease, view: &HostView, to: &str) -> Result<NodeId, String> {
        let target = self.node_id(to)?;
        if !lease.hosts.contains(&target) {
            let hosts = self.names(lease.host_set()).join(", ");
            return Err(format!(
                "{to:?} is no host of lease {:?}: name one of {hosts}",
                lease.name
            ));
        }
        if target == self.inner.node.id {
            return Err(format!("{to:?} holds the lease already: name another host"));
        }
        if !view.in_sync.contains(target) {
            return Err(format!(
                "{to:?} is not in sync and may lack acknowledged writes: wait for it, or name one of {}",
                self.names(view.in_sync.without(self.inner.node.id)).join(", "),
            ));
        }
        Ok(target)
    }

    /// Ends a term and waits until it has.
    async fn end_term(&self, lease: &Lease, mut views: Views, epoch: Epoch, msg: Msg) -> Answer {
        let begun = BootInstant::now();
        self.inner.handle.tell(lease.index, msg).map_err(|error| error.to_string())?;
        let has_ended = |view: &View| match view {
            View::Host(view) => view.epoch != Some(epoch) && view.role != Role::Releasing,
            _ => true,
        };
        let ended = views.wait_for(|published| {
            published.as_ref().is_none_or(|published| has_ended(&published.view))
        });
        let wait = lease.timing.hook.saturating_add(END_OF_TERM);
        match timeout(wait, ended).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err("the node has ended: the lease runs out by itself".to_owned()),
            Err(_) => {
                return Err(format!(
                    "the term of epoch {epoch} has not ended within {} ms: look at the status",
                    wait.as_millis()
                ));
            }
        }
        let took = BootInstant::now().saturating_duration_since(begun);
        let mut answer = Map::new();
        answer.insert("epoch".to_owned(), epoch.into());
        answer.insert("took_ms".to_owned(), millis(took));
        Ok(answer)
    }

    // ---------------------------------------------------------------------------------------------
    // The table
    // ---------------------------------------------------------------------------------------------

    async fn put(
        &self,
        lease: &Lease,
        mut views: Views,
        key: String,
        value: String,
        wait: Duration,
    ) -> Answer {
        let acknowledged = |views: &Views| match &*views.borrow() {
            Some(Published { view: View::Client { acknowledged, .. }, .. }) => Ok(*acknowledged),
            Some(_) => Err(format!(
                "{} is no client: a write goes through a node with the role of a client",
                self.inner.node.name
            )),
            None => Err("the node has only just started: try again".to_owned()),
        };
        acknowledged(&views)?;
        if key.len() > TEXT_MAX || value.len() > TEXT_MAX {
            return Err(format!("a key and a value have at most {TEXT_MAX} bytes each"));
        }
        let begun = BootInstant::now();
        let wait = wait.min(PUT_WAIT_MAX);
        let until = tokio::time::Instant::now() + wait;
        let late = |what: &str| format!("not {what} within {} ms", wait.as_millis());
        // One after another: so the client's last acknowledgement is that of this very write.
        let lock = self.inner.puts[usize::from(lease.index)].lock();
        let mut submitted = tokio::time::timeout_at(until, lock)
            .await
            .map_err(|_| late("submitted") + ": earlier writes are still waiting")?;
        if *submitted - acknowledged(&views)? >= PUTS_MAX {
            return Err(format!("{PUTS_MAX} writes are waiting: try again when the lease is held"));
        }
        let submit = Msg::Submit { key, value };
        self.inner.handle.tell(lease.index, submit).map_err(|error| error.to_string())?;
        *submitted += 1;
        let mine = *submitted;
        let done = views.wait_for(|published| {
            let view = published.as_ref().map(|published| &published.view);
            matches!(view, Some(View::Client { acknowledged, .. }) if *acknowledged >= mine)
        });
        let done = match tokio::time::timeout_at(until, done).await {
            Ok(Ok(published)) => published.clone(),
            Ok(Err(_)) => return Err("the node has ended: the write may yet be there".to_owned()),
            Err(_) => {
                return Err(
                    late("acknowledged") + ": it is still asked for, and may yet be written"
                );
            }
        };
        let Some(View::Client { acknowledged, last_seq, .. }) = done.map(|done| done.view) else {
            unreachable!("the view was that of a client")
        };
        let took = BootInstant::now().saturating_duration_since(begun);
        let mut answer = Map::new();
        answer.insert("seq".to_owned(), last_seq.into());
        answer.insert("acknowledged".to_owned(), acknowledged.into());
        answer.insert("took_ms".to_owned(), millis(took));
        Ok(answer)
    }

    /// What goes with every answer from the table: who says so, and whether it may know better.
    fn about_table(&self, lease: &Lease, views: &Views, view: &HostView) -> Map<String, Value> {
        let deadline = views.borrow().as_ref().and_then(|published| published.deadline);
        let mut about = Map::new();
        about.insert("node".to_owned(), self.inner.node.name.as_str().into());
        about.insert("lease".to_owned(), lease.name.as_str().into());
        about.insert("holder".to_owned(), view.holder.map(|holder| self.name(holder)).into());
        // Only the holder's table is certain to be the newest, and only while it holds.
        let is_holder =
            view.role == Role::Holding && deadline.is_some_and(|at| BootInstant::now() < at);
        about.insert("is_holder".to_owned(), is_holder.into());
        about.insert("committed_seq".to_owned(), view.committed_seq.into());
        about
    }

    // ---------------------------------------------------------------------------------------------
    // Small things
    // ---------------------------------------------------------------------------------------------

    fn leases(&self) -> impl Iterator<Item = &Lease> {
        launch::leases_of(&self.inner.config, &self.inner.node)
    }

    fn about(&self, leases: Vec<Value>) -> Map<String, Value> {
        let Inner { handle, node, .. } = &*self.inner;
        let Value::Object(about) = json!({
            "node": node.name,
            "role": node.role.name(),
            "zone": node.zone,
            "pid": std::process::id(),
            "address": handle.address(),
            "incarnation": handle.incarnation(),
            "leases": leases,
            "counts": handle.counts(),
        }) else {
            unreachable!("an object was written")
        };
        about
    }

    /// One lease: as published now, unless a moment is given.
    fn lease_status(&self, lease: &Lease, published: Option<Option<Published<View>>>) -> Value {
        let published = published.unwrap_or_else(|| {
            let views = self.inner.handle.views(lease.index);
            views.and_then(|views| views.borrow().clone())
        });
        let now = BootInstant::now();
        let view = published.as_ref().map(|published| &published.view);
        let (holder, in_sync) = match view {
            Some(View::Host(view)) => (view.holder, Some(self.names(view.in_sync))),
            Some(View::Store { holder, .. }) => (*holder, None),
            _ => (None, None),
        };
        let deadline = published.as_ref().and_then(|published| published.deadline);
        let remaining = deadline.map(|deadline| deadline.saturating_duration_since(now));
        json!({
            "lease": lease.name,
            "view": view,
            "holder": holder.map(|holder| self.name(holder)),
            "in_sync": in_sync,
            "remaining_ms": remaining.map(millis),
            "deadline_ns": deadline.map(BootInstant::as_nanos),
            "mono_ns": now.as_nanos(),
        })
    }

    fn views(&self, name: &str) -> Result<(&Lease, Views), String> {
        let lease = self.inner.config.lease(name).ok_or_else(|| {
            let known: Vec<_> = self.inner.config.leases.iter().map(|l| l.name.as_str()).collect();
            format!("{name:?} is no lease of this cluster: the leases are {}", known.join(", "))
        })?;
        let views = self.inner.handle.views(lease.index).ok_or_else(|| {
            format!("{} has no part in lease {name:?}: ask a node that has", self.inner.node.name)
        })?;
        Ok((lease, views))
    }

    /// The views of a lease, once there is one: what a node saves at its start takes a moment.
    async fn started(&self, name: &str) -> Result<(&Lease, Views), String> {
        let (lease, mut views) = self.views(name)?;
        // If it takes longer, whoever needs the view says so.
        let _ = timeout(START_MAX, views.wait_for(Option::is_some)).await;
        Ok((lease, views))
    }

    fn host_view(&self, views: &Views) -> Result<HostView, String> {
        match &*views.borrow() {
            Some(Published { view: View::Host(view), .. }) => Ok(view.clone()),
            Some(_) => Err(format!("{} is no host of this lease: ask one", self.inner.node.name)),
            None => Err("the node has only just started: try again".to_owned()),
        }
    }

    fn node_id(&self, name: &str) -> Result<NodeId, String> {
        self.inner.config.node(name).map(|node| node.id).ok_or_else(|| {
            let known: Vec<_> = self.inner.config.nodes.iter().map(|n| n.name.as_str()).collect();
            format!("{name:?} is no node of this cluster: the nodes are {}", known.join(", "))
        })
    }

    fn name(&self, node: NodeId) -> String {
        let known = self.inner.config.node_by_id(node);
        known.map_or_else(|| format!("{node:?}"), |node| node.name.clone())
    }

    fn names(&self, nodes: NodeSet) -> Vec<String> {
        nodes.iter().map(|node| self.name(node)).collect()
    }

    fn faults_allowed(&self) -> Result<(), String> {
        if self.inner.with_faults {
            return Ok(());
        }
        Err("faults are for tests: start the node with --faults to allow them".to_owned())
    }
}

/// The committed rows of a host's table: key, value and place, in the order of the keys.
pub fn rows(view: &HostView) -> impl Iterator<Item = (String, String, u64)> + '_ {
    view.table.iter().flat_map(|table| {
        table
            .0
            .by_key
            .iter()
            .filter_map(|(key, seq)| Some((key.clone(), table.0.log.get(seq)?.value.clone(), *seq)))
    })
}

/// Milliseconds to the microsecond.
fn millis(duration: Duration) -> Value {
    #[allow(clippy::cast_precision_loss, reason = "a float has room for the micros of 285 years")]
    let millis = duration.as_micros() as f64 / 1e3;
    millis.into()
}
