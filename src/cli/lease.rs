//! `tenure lease`: shows and operates a lease through the control sockets of its nodes.

use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::exec::{self, ExecArgs};
use super::paint::{Paint, Tone};
use crate::config::{Config, Lease, Node};
use crate::node::launch;

/// How long a node may take to answer a question about its state.
const ANSWER_MAX: Duration = Duration::from_millis(700);
/// How long a node may take to carry out a command: more than it takes by its own bounds.
const COMMAND_MAX: Duration = Duration::from_secs(60);
/// How long a watcher waits before it tries again to reach a node.
const RECONNECT: Duration = Duration::from_millis(500);

/// The subcommands of `tenure lease`.
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// Run a host, and a command only while it holds the lease.
    Exec(ExecArgs),
    /// Ask every node, and show who holds the lease.
    #[command(
        after_help = "Exit codes: 0 a host holds the lease; 1 none is known to, or the cluster \
        file is wrong; 2 usage."
    )]
    Status(LeaseArgs),
    /// Follow the lease: one line for each change of a role, an epoch, the holder or the in-sync set.
    #[command(
        after_help = "It ends when it is interrupted. Exit codes: 1 the cluster file is wrong; \
        2 usage."
    )]
    Watch(LeaseArgs),
    /// Give the lease to a named host, with no more than a moment between the two.
    #[command(after_help = "The host must be in sync: it then has every acknowledged write.\n\n\
        Exit codes: 0 the host holds the lease; 1 it does not, or nobody holds the lease now, and \
        the message says why; 2 usage.")]
    Handover(HandoverArgs),
    /// Make the holder give up the lease, to whichever host comes first.
    #[command(
        after_help = "Exit codes: 0 another host holds the lease; 1 none does, or nobody held \
        it, and the message says why; 2 usage."
    )]
    StepDown(LeaseArgs),
    /// Write a row through a client node, and wait until it is acknowledged.
    #[command(
        after_help = "Exit codes: 0 the write is acknowledged; 1 it is not, and the message \
        says why; 2 usage."
    )]
    Put(PutArgs),
    /// Read a committed row, from the holder unless another host is named.
    #[command(
        after_help = "Exit codes: 0 the row is there; 1 it is not, or no host answers; 2 usage."
    )]
    Get(GetArgs),
}

/// Which lease, and how to print.
#[derive(Debug, Args)]
pub struct LeaseArgs {
    /// The cluster file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The lease; not needed if there is only one.
    #[arg(long, value_name = "NAME")]
    pub lease: Option<String>,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `tenure lease handover`.
#[derive(Debug, Args)]
pub struct HandoverArgs {
    #[command(flatten)]
    /// Which lease.
    pub lease: LeaseArgs,
    /// The host that shall hold it.
    #[arg(long, value_name = "NODE")]
    pub to: String,
}

/// The arguments of `tenure lease put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    #[command(flatten)]
    /// Which lease.
    pub lease: LeaseArgs,
    /// The client node to write through; not needed if there is only one.
    #[arg(long, value_name = "NODE")]
    pub via: Option<String>,
    /// The key, at most 400 bytes.
    pub key: String,
    /// The value, at most 400 bytes.
    pub value: String,
}

/// The arguments of `tenure lease get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    #[command(flatten)]
    /// Which lease.
    pub lease: LeaseArgs,
    /// The host to ask; the holder, if none is named.
    #[arg(long, value_name = "NODE")]
    pub from: Option<String>,
    /// The key.
    pub key: String,
}

/// Runs a subcommand; its exit codes are in its help.
pub fn run(command: &LeaseCommand) -> ExitCode {
    let args = match command {
        LeaseCommand::Exec(args) => return exec::run(args),
        LeaseCommand::Status(args) | LeaseCommand::Watch(args) | LeaseCommand::StepDown(args) => {
            args
        }
        LeaseCommand::Handover(args) => &args.lease,
        LeaseCommand::Put(args) => &args.lease,
        LeaseCommand::Get(args) => &args.lease,
    };
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => return super::config_failure(&args.config, &errors),
    };
    let lease = match (&args.lease, &config.leases[..]) {
        (Some(name), leases) => leases.iter().find(|lease| lease.name == *name),
        (None, [lease]) => Some(lease),
        (None, _) => None,
    };
    let Some(lease) = lease else {
        let known: Vec<_> = config.leases.iter().map(|lease| lease.name.as_str()).collect();
        return super::usage_error(format!("name one lease with --lease: {}", known.join(", ")));
    };
    let cluster = Cluster { config: &config, lease, json: args.json };
    let done = match command {
        LeaseCommand::Exec(_) => unreachable!("it has its own way"),
        LeaseCommand::Status(_) => return cluster.status(),
        LeaseCommand::Watch(_) => cluster.watch(),
        LeaseCommand::Handover(args) => cluster.end_term(Some(&args.to)),
        LeaseCommand::StepDown(_) => cluster.end_term(None),
        LeaseCommand::Put(args) => cluster.put(args),
        LeaseCommand::Get(args) => cluster.get(args),
    };
    done.map_or_else(super::failure, |()| ExitCode::SUCCESS)
}

/// What one node has said, or why it has said nothing.
type Said = Result<Value, String>;

struct Cluster<'a> {
    config: &'a Config,
    lease: &'a Lease,
    json: bool,
}

impl<'a> Cluster<'a> {
    fn nodes(&self) -> impl Iterator<Item = &'a Node> + use<'a> {
        let lease = self.lease.index;
        let config = self.config;
        let has_part = move |node: &&Node| {
            launch::leases_of(config, node).any(|candidate| candidate.index == lease)
        };
        config.nodes.iter().filter(has_part)
    }

    /// Asks all nodes of the lease at once.
    fn ask_all(&self) -> Vec<(&'a Node, Said)> {
        let question = json!({ "op": "status", "lease": self.lease.name });
        std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .nodes()
                .map(|node| (node, scope.spawn(|| ask(node, &question, ANSWER_MAX))))
                .collect();
            let said = |said: std::thread::ScopedJoinHandle<'_, Said>| {
                said.join().unwrap_or_else(|_| Err("no answer".to_owned()))
            };
            asked.into_iter().map(|(node, asked)| (node, said(asked))).collect()
        })
    }

    fn holder(&self) -> Result<&'a Node, String> {
        let said = self.ask_all();
        let holder = said.iter().find(|(_, said)| said.as_ref().is_ok_and(holds));
        holder.map(|(node, _)| *node).ok_or_else(|| {
            format!(
                "no host that answers holds lease {:?} now: look at `tenure lease status`, and try again",
                self.lease.name
            )
        })
    }

    fn status(&self) -> ExitCode {
        let said = self.ask_all();
        let holder = said.iter().find(|(_, said)| said.as_ref().is_ok_and(holds));
        if self.json {
            let nodes: Vec<_> = said
                .iter()
                .map(|(node, said)| match said {
                    Ok(said) => said.clone(),
                    Err(error) => json!({ "ok": false, "node": node.name, "error": error }),
                })
                .collect();
            let holder = holder.map(|(node, _)| &node.name);
            super::print(&format!(
                "{}\n",
                json!({ "lease": self.lease.name, "holder": holder, "nodes": nodes })
            ));
        } else {
            super::print(&self.table(&said, Paint::stdout()));
        }
        ExitCode::from(u8::from(holder.is_none()))
    }

    fn table(&self, all: &[(&Node, Said)], paint: Paint) -> String {
        let mut table = paint.table([
            "node",
            "zone",
            "role",
            "epoch",
            "holder",
            "in sync",
            "time left",
            "version",
        ]);
        let mut remarks = String::new();
        for (node, said) in all {
            let name = paint.cell(Tone::Strong, &node.name);
            let zone = paint.cell(Tone::Plain, node.zone.as_deref().unwrap_or("-"));
            let said = match said {
                Ok(said) => said,
                Err(error) => {
                    table.add_row([name, zone, paint.cell(Tone::Warn, "unreachable")]);
                    remarks += &format!("{}\n", paint.faint(format!(" {}: {error}", node.name)));
                    continue;
                }
            };
            let Line { role, epoch, holder, in_sync, version, left } = Line::of(said);
            let role = paint.cell(if holds(said) { Tone::Good } else { Tone::Plain }, role);
            let rest = [epoch, holder, in_sync, left, version];
            let rest = rest.map(|text| paint.cell(Tone::Plain, text));
            table.add_row([name, zone, role].into_iter().chain(rest));
        }
        for column in [3, 6, 7] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
        lines.chain([remarks]).collect()
    }

    /// Streams what each node says to a channel, for as long as somebody listens. It reconnects.
    fn follow(&self) -> mpsc::Receiver<(usize, Said)> {
        let (sender, receiver) = mpsc::channel();
        for (index, node) in self.nodes().enumerate() {
            let (node, sender) = (node.clone(), sender.clone());
            let question = json!({ "op": "watch", "lease": self.lease.name });
            std::thread::spawn(move || {
                loop {
                    let error =
                        stream(&node, &question, |said| sender.send((index, Ok(said))).is_ok());
                    if sender.send((index, Err(error))).is_err() {
                        return;
                    }
                    std::thread::sleep(RECONNECT);
                }
            });
        }
        receiver
    }

    fn watch(&self) -> Result<(), String> {
        let begun = Instant::now();
        let paint = Paint::stdout();
        let nodes: Vec<_> = self.nodes().collect();
        let width = nodes.iter().map(|node| node.name.len()).max().unwrap_or(0);
        let mut last: Vec<Option<String>> = vec![None; nodes.len()];
        for (index, said) in self.follow() {
            let since = begun.elapsed();
            let name = &nodes[index].name;
            let (text, is_holder) = match &said {
                Ok(said) => {
                    let line = Line::of(said);
                    let text = format!(
                        "{:<9}  epoch {:>3}  holder {:<width$}  in sync {}",
                        line.role, line.epoch, line.holder, line.in_sync
                    );
                    (text, holds(said))
                }
                Err(error) => (error.clone(), false),
            };
            if last[index].as_ref() == Some(&text) {
                continue;
            }
            super::print(&if self.json {
                let mut object = match said {
                    Ok(said) => said,
                    Err(error) => json!({ "ok": false, "node": name, "error": error }),
                };
                object["since_ms"] = (since.as_micros() as f64 / 1e3).into();
                format!("{object}\n")
            } else {
                let told = match (&said, is_holder) {
                    (Err(_), _) => paint.warn(&text),
                    (Ok(_), true) => paint.good(&text),
                    (Ok(_), false) => text.clone(),
                };
                let since = paint.faint(format!("{:>9.3} s", since.as_secs_f64()));
                format!("{since}  {}  {told}\n", paint.strong(format!("{name:<width$}")))
            });
            last[index] = Some(text);
        }
        Ok(())
    }

    /// Ends the holder's term, for a named host or for anybody, and waits for the next holder.
    fn end_term(&self, to: Option<&str>) -> Result<(), String> {
        let old = self.holder()?;
        // The watchers are there before anything happens: all nodes are on one machine, so the times
        // in their lines can be compared.
        let follow = self.follow();
        let mut command = match to {
            Some(to) => json!({ "op": "hand-over", "to": to }),
            None => json!({ "op": "step-down" }),
        };
        command["lease"] = self.lease.name.as_str().into();
        let epoch = ask(old, &json!({ "op": "status", "lease": self.lease.name }), ANSWER_MAX)?;
        if let Some(epoch) = view(&epoch)["epoch"].as_u64() {
            command["epoch"] = epoch.into();
        }
        let nodes: Vec<_> = self.nodes().collect();
        let answer = std::thread::scope(|scope| {
            let (told, heard) = mpsc::channel();
            let command = &command;
            scope.spawn(move || told.send(ask(old, command, COMMAND_MAX)));
            self.await_successor(&nodes, old, &follow, &heard)
        });
        let (new, epoch, gap) = answer?;
        if let Some(to) = to.filter(|to| *to != new.name) {
            return Err(format!(
                "{} holds the lease now, with epoch {epoch}, and not {to}",
                new.name
            ));
        }
        super::print(&if self.json {
            let gap = gap.map(|gap| gap.as_micros() as f64 / 1e3);
            format!(
                "{}\n",
                json!({ "lease": self.lease.name, "from": old.name, "holder": new.name,
                    "epoch": epoch, "not_writable_ms": gap })
            )
        } else {
            let gap = gap.map_or_else(
                || "an unknown time".to_owned(),
                |gap| format!("{:.1} ms", gap.as_secs_f64() * 1e3),
            );
            let paint = Paint::stdout();
            format!(
                "{} -> {}  epoch {epoch}  nobody was writable for {}\n",
                old.name,
                paint.strong(&new.name),
                paint.strong(gap)
            )
        });
        Ok(())
    }

    /// The next holder, its epoch, and the time from the end of the old term to its own beginning.
    fn await_successor(
        &self,
        nodes: &[&'a Node],
        old: &Node,
        follow: &mpsc::Receiver<(usize, Said)>,
        command: &mpsc::Receiver<Said>,
    ) -> Result<(&'a Node, u64, Option<Duration>), String> {
        let timing = self.lease.timing;
        let patience =
            timing.takeover_latest(timing.retry, timing.retry).saturating_add(timing.hook);
        let until = Instant::now() + patience.min(COMMAND_MAX);
        let mut ended: Option<u64> = None;
        while Instant::now() < until {
            if let Ok(answer) = command.try_recv() {
                answer?;
            }
            let Ok((index, Ok(said))) = follow.recv_timeout(Duration::from_millis(20)) else {
                continue;
            };
            let node = nodes[index];
            let at = lease(&said)["mono_ns"].as_u64();
            if node.id == old.id {
                if !holds(&said) && ended.is_none() {
                    ended = at;
                }
            } else if holds(&said) {
                let gap = ended.zip(at).map(|(end, begin)| begin.saturating_sub(end));
                let epoch = view(&said)["epoch"].as_u64().unwrap_or_default();
                return Ok((node, epoch, gap.map(Duration::from_nanos)));
            }
        }
        Err(format!("nobody has taken lease {:?} over: look at the status", self.lease.name))
    }

    fn put(&self, args: &PutArgs) -> Result<(), String> {
        let client = match &args.via {
            Some(name) => self.node(name)?,
            None => self
                .nodes()
                .find(|node| node.role == crate::config::Role::Client)
                .ok_or("the cluster file has no node with the role of a client: add one")?,
        };
        let command = json!({
            "op": "put", "lease": self.lease.name, "key": args.key, "value": args.value,
        });
        let answer = ask(client, &command, COMMAND_MAX)?;
        super::print(&if self.json {
            format!("{answer}\n")
        } else {
            let took = answer["took_ms"].as_f64().unwrap_or_default();
            format!("acknowledged  seq {}  after {took:.1} ms\n", text(&answer["seq"]))
        });
        Ok(())
    }

    fn get(&self, args: &GetArgs) -> Result<(), String> {
        let host = match &args.from {
            Some(name) => self.node(name)?,
            None => self.holder()?,
        };
        let question = json!({ "op": "get", "lease": self.lease.name, "key": args.key });
        let answer = ask(host, &question, ANSWER_MAX)?;
        if self.json {
            super::print(&format!("{answer}\n"));
        } else if let Some(value) = answer["value"].as_str() {
            super::print(&format!("{value}\n"));
        }
        match answer["found"].as_bool() {
            Some(true) => Ok(()),
            _ => Err(format!("{:?} is not in the table of {}", args.key, host.name)),
        }
    }

    fn node(&self, name: &str) -> Result<&'a Node, String> {
        self.nodes().find(|node| node.name == name).ok_or_else(|| {
            let known: Vec<_> = self.nodes().map(|node| node.name.as_str()).collect();
            format!(
                "{name:?} has no part in lease {:?}: name one of {}",
                self.lease.name,
                known.join(", ")
            )
        })
    }
}

/// What an answer says about the lease.
fn lease(said: &Value) -> &Value {
    &said["leases"][0]
}

fn view(said: &Value) -> &Value {
    &lease(said)["view"]
}

/// Whether the node may write now.
fn holds(said: &Value) -> bool {
    view(said)["role"] == "holding"
        && lease(said)["remaining_ms"].as_f64().is_some_and(|ms| ms > 0.0)
}

/// What an answer says, as cells.
struct Line {
    role: String,
    epoch: String,
    holder: String,
    in_sync: String,
    version: String,
    left: String,
}

impl Line {
    fn of(said: &Value) -> Self {
        let (lease, view) = (lease(said), view(said));
        let first = |keys: [&str; 2]| {
            let known = keys.iter().map(|key| &view[*key]).find(|value| !value.is_null());
            known.map_or_else(|| "-".to_owned(), text)
        };
        let role = match &view["role"] {
            Value::String(role) => role.clone(),
            _ => text(&said["role"]),
        };
        let in_sync = lease["in_sync"].as_array().map(|names| {
            let names: Vec<_> = names.iter().map(text).collect();
            names.join(",")
        });
        let left = lease["remaining_ms"].as_f64();
        Self {
            role,
            epoch: first(["seen_epoch", "epoch"]),
            holder: text(&lease["holder"]),
            in_sync: in_sync.filter(|names| !names.is_empty()).unwrap_or_else(|| "-".to_owned()),
            version: first(["seen_version", "version"]),
            left: left.map_or_else(|| "-".to_owned(), |ms| format!("{:.1} s", ms / 1e3)),
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn control(node: &Node) -> Result<SocketAddr, String> {
    node.control.ok_or_else(|| {
        format!("{} has no control address: add `control = \"...\"` to its [[node]]", node.name)
    })
}

pub(super) fn connect(node: &Node, patience: Duration) -> Result<TcpStream, String> {
    let address = control(node)?;
    let unreachable = |error: &dyn Display| format!("{address} does not answer ({error})");
    let connection =
        TcpStream::connect_timeout(&address, ANSWER_MAX).map_err(|error| unreachable(&error))?;
    connection.set_read_timeout(Some(patience)).map_err(|error| unreachable(&error))?;
    Ok(connection)
}

/// Asks one question.
fn ask(node: &Node, question: &Value, patience: Duration) -> Said {
    let mut said = None;
    let error = converse(connect(node, patience)?, question, |answer| {
        said = Some(answer);
        false
    });
    let said = said.ok_or(error)?;
    match said["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(said),
    }
}

/// Hands on what a node says until nobody wants more, and says why it has ended.
fn stream(node: &Node, question: &Value, hear: impl FnMut(Value) -> bool) -> String {
    // A node that has nothing to say for an hour is asked again.
    match connect(node, Duration::from_secs(3600)) {
        Ok(connection) => converse(connection, question, hear),
        Err(error) => error,
    }
}

fn converse(
    mut connection: TcpStream,
    question: &Value,
    mut hear: impl FnMut(Value) -> bool,
) -> String {
    if let Err(error) = connection.write_all(format!("{question}\n").as_bytes()) {
        return format!("no answer ({error})");
    }
    for line in BufReader::new(connection).lines() {
        match line {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(said) => {
                    if !hear(said) {
                        return "enough".to_owned();
                    }
                }
                Err(error) => return format!("not a node's answer ({error})"),
            },
            Err(error) => return format!("no answer ({error})"),
        }
    }
    "the node has closed the connection".to_owned()
}
