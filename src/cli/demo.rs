//! `tenure demo`: a whole cluster in one process, and what can happen to it.
//!
//! One store, three hosts in three zones and a client talk over UDP on loopback, exactly as separate
//! processes would: each has its socket, its thread, its storage file, and is made from a cluster
//! file by the same code. The demo then does to them what happens in production, measures what
//! follows and compares it with the bounds that the timing promises, later by what the machine itself was seen to
//! withhold meanwhile: a thread that could not run, a block that was long on its way to the disk.

mod meter;
mod show;
mod watch;

use std::fmt::Write as _;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use meter::Meter;
use show::{Show, seconds};
use tempfile::TempDir;
use watch::{Monitor, Writer, Written, lock, wait_until, writable};

use crate::config::Config;
use crate::lease::msg::Msg;
use crate::lease::presets::STORE_TIME;
use crate::lease::record::{Epoch, NodeId};
use crate::lease::timing::Timing;
use crate::lease::{HostView, Member, Role, View};
use crate::node::clock::BootInstant;
use crate::node::{Bind, Direction, Handle, Node, Published, launch, record_into};
use crate::trace::check::{Options, Source, Verdict, check};

/// Short enough to be watched, and safe.
const TIMING: Timing = Timing {
    lease: Duration::from_secs(3),
    give_up: Duration::from_secs(2),
    renew: Duration::from_millis(700),
    retry: Duration::from_millis(200),
    poll: Duration::from_millis(200),
    jitter: Duration::from_millis(50),
    hook: Duration::from_millis(300),
    clock_error_ppm: 200,
};

/// The nodes' names, by id: three hosts, the store, the client.
const NAMES: [&str; 5] = ["a", "b", "c", "s", "w"];
const HOSTS: [usize; 3] = [0, 1, 2];
const STORE: usize = 3;
const CLIENT: usize = 4;
/// The only lease.
const LEASE: u16 = 0;

/// The longest time of one message on loopback, generously: half of what a store may take.
const MESSAGE_TIME: Duration = Duration::from_millis(50);
/// The shortest pause between two steps.
const BREATH: Duration = Duration::from_millis(700);
/// How long the store is away.
const STORE_AWAY: Duration = Duration::from_millis(700);
/// After what time the demo gives up waiting for something that has no bound.
const PATIENCE: Duration = Duration::from_secs(15);

type Run<T> = Result<T, String>;

/// The arguments of `tenure demo`.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "It takes about half a minute, needs no file and no port of its own, and leaves \
    nothing behind.\n\nExit codes: 0 everything held; 1 something did not, and the message says what; \
    2 usage; 130 interrupted."
)]
pub struct DemoArgs {
    /// What to show.
    #[arg(value_enum, default_value_t)]
    pub what: What,
    /// Print JSON, one object a line: each event as it happens, and a summary.
    #[arg(long)]
    pub json: bool,
    /// Where the nodes' traces are kept; without it they are checked and thrown away.
    #[arg(long, value_name = "DIR")]
    pub trace_dir: Option<PathBuf>,
}

/// What can be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// A lease and the table that it protects.
    #[default]
    Lease,
    /// Operations between two regions: peering, crossing, deletion, an outage, a restore.
    Irc,
}

/// Runs the demo.
pub fn run(args: &DemoArgs) -> ExitCode {
    if args.what == What::Irc {
        return super::demo_irc::run(args);
    }
    let mut show = Show::new(args.json);
    match Demo::start(args.trace_dir.as_deref()).and_then(|mut demo| demo.play(&mut show)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => super::failure(reason),
    }
}

struct Demo {
    config: Config,
    /// The nodes' sockets: a node that is started again has the address that it had.
    sockets: Vec<UdpSocket>,
    nodes: Vec<Option<Arc<Handle<Member>>>>,
    monitor: Monitor,
    writer: Option<Writer>,
    /// Where the nodes write what they do.
    traces: PathBuf,
    /// Removed when the demo ends, after the nodes have closed their files.
    directory: TempDir,
}

impl Demo {
    fn start(traces: Option<&Path>) -> Run<Self> {
        let system = |error: io::Error| format!("the system refuses what the demo needs: {error}");
        let directory =
            tempfile::Builder::new().prefix("tenure-demo-").tempdir().map_err(system)?;
        tidy_up_when_interrupted(directory.path().to_owned()).map_err(system)?;
        let sockets = NAMES.map(|_| UdpSocket::bind("127.0.0.1:0"));
        let sockets = sockets.into_iter().collect::<io::Result<Vec<_>>>().map_err(system)?;
        let mut file = String::from("cluster = \"demo\"\ninsecure = true\n");
        let timing = [
            ("lease", TIMING.lease),
            ("give_up", TIMING.give_up),
            ("renew", TIMING.renew),
            ("retry", TIMING.retry),
            ("poll", TIMING.poll),
            ("jitter", TIMING.jitter),
            ("hook", TIMING.hook),
        ];
        file += "[timing]\n";
        for (key, length) in timing {
            let _ = writeln!(file, "{key} = \"{}ms\"", length.as_millis());
        }
        let _ = writeln!(file, "clock_error_ppm = {}", TIMING.clock_error_ppm);
        for (id, (name, socket)) in NAMES.iter().zip(&sockets).enumerate() {
            let role = match id {
                STORE => "store",
                CLIENT => "client",
                _ => "host",
            };
            let _ = write!(
                file,
                "[[node]]\nname = \"{name}\"\nroles = [\"{role}\"]\naddress = \"{}\"\n\
                 storage = \"{name}.redb\"\nzone = \"zone-{}\"\n",
                socket.local_addr().map_err(system)?,
                id + 1,
            );
        }
        file += "[[lease]]\nname = \"orders\"\nhosts = [\"a\", \"b\", \"c\"]\nstore = \"s\"\n";
        let config =
            Config::parse_in(&file, directory.path()).map_err(|errors| errors.to_string())?;
        let monitor = Monitor::start().map_err(system)?;
        let nodes = NAMES.map(|_| None).into_iter().collect();
        let traces = traces.unwrap_or_else(|| directory.path()).to_owned();
        std::fs::create_dir_all(&traces).map_err(|error| {
            format!("cannot make {} ({error}): name another folder", traces.display())
        })?;
        let demo = Self { config, sockets, nodes, monitor, writer: None, traces, directory };
        if let Some(old) = NAMES.iter().map(|name| demo.trace(name)).find(|file| file.exists()) {
            let old = old.display();
            return Err(format!(
                "{old} is the trace of another run: remove it, or name another folder"
            ));
        }
        Ok(demo)
    }

    fn trace(&self, name: &str) -> PathBuf {
        self.traces.join(format!("{name}.ndjson"))
    }

    /// Starts a node, or starts it again.
    fn start_node(&mut self, id: usize) -> Run<()> {
        let socket = &self.sockets[id];
        // What was sent to a node that did not run, it has not got.
        let drained = socket.set_nonblocking(true).and_then(|()| {
            while socket.recv(&mut [0; 1]).is_ok() {}
            socket.try_clone()
        });
        let mut spec = launch::spec(&self.config, NAMES[id]).map_err(|error| error.to_string())?;
        spec.bind = Bind::Socket(drained.map_err(|error| error.to_string())?);
        record_into(&mut spec, self.trace(NAMES[id]));
        let handle = Node::start(spec).map_err(|error| error.to_string())?;
        if HOSTS.contains(&id) {
            self.monitor.look_at(id, handle.views(LEASE).expect("a host has a part in the lease"));
        }
        self.nodes[id] = Some(Arc::new(handle));
        Ok(())
    }

    fn node(&self, id: usize) -> &Arc<Handle<Member>> {
        self.nodes[id].as_ref().expect("the node is running")
    }

    fn kill(&mut self, id: usize) {
        if let Some(node) = self.nodes[id].take() {
            node.kill();
        }
    }

    fn published(&self, id: usize) -> Option<Published<View>> {
        self.nodes[id].as_ref()?.views(LEASE)?.borrow().clone()
    }

    fn host(&self, id: usize) -> Option<HostView> {
        match self.published(id)?.view {
            View::Host(view) => Some(view),
            _ => None,
        }
    }

    /// The epoch under which a host may write now.
    fn writable(&self, id: usize) -> Option<Epoch> {
        writable(self.published(id).as_ref(), BootInstant::now())
    }

    fn primary(&self) -> Option<(usize, Epoch)> {
        HOSTS.into_iter().find_map(|host| Some((host, self.writable(host)?)))
    }

    fn await_primary(&self) -> Run<(usize, Epoch)> {
        wait_until("a host held the lease", PATIENCE, || self.primary().is_some())?;
        self.primary().ok_or_else(|| "the holder has just lost the lease again".to_owned())
    }

    /// Waits until another host than this one holds, with a higher epoch.
    fn await_successor(&self, old: usize, epoch: Epoch) -> Run<(usize, Epoch, BootInstant)> {
        let next = || self.primary().filter(|&(host, new)| host != old && new > epoch);
        let at = wait_until("another host took the lease over", PATIENCE, || next().is_some())?;
        let (new, epoch) = next().ok_or("the new holder has just lost the lease again")?;
        Ok((new, epoch, at))
    }

    fn await_in_sync(&self, host: usize) -> Run<BootInstant> {
        let is_back = || {
            let set = self.primary().and_then(|(primary, _)| self.host(primary));
            set.is_some_and(|view| view.in_sync.contains(NodeId(host as u16)))
                && self.host(host).is_some_and(|view| view.role == Role::Watching)
        };
        wait_until("the host was in sync again", PATIENCE, is_back)
    }

    /// Waits until a write that is submitted from now on is acknowledged.
    fn await_write(&self) -> Run<BootInstant> {
        let writer = self.writer.as_ref().expect("the writer is running");
        let count = writer.count();
        wait_until("writes were acknowledged again", PATIENCE, || writer.count() > count + 1)
    }

    fn longest_write(&self, since: BootInstant) -> Duration {
        self.writer.as_ref().map_or(Duration::ZERO, |writer| writer.longest_since(since))
    }

    fn play(&mut self, show: &mut Show) -> Run<()> {
        show.title();
        let meter = Meter::with_disk(self.directory.path()).map_err(|error| error.to_string())?;
        show.allow_for(meter);
        self.acquisition(show)?;
        self.renewals(show)?;
        self.crash(show)?;
        self.partition(show)?;
        self.suspension(show)?;
        self.hand_over(show)?;
        self.store_restart(show)?;
        self.final_checks(show)?;
        self.check_traces(show);
        show.finish()
    }

    fn acquisition(&mut self, show: &mut Show) -> Run<()> {
        show.step("three hosts wait for the store, and one of them takes the free lease");
        for host in HOSTS {
            self.start_node(host)?;
        }
        show.tell("a, b and c run, read-only: without the store nobody may write");
        self.breathe();
        if let Some((host, _)) = self.primary() {
            return Err(format!("{} holds the lease without a store", NAMES[host]));
        }
        self.start_node(STORE)?;
        let begun = BootInstant::now();
        show.tell_at(begun, "s runs, and keeps the record");
        let (host, epoch) = self.await_primary()?;
        let took = BootInstant::now().saturating_duration_since(begun);
        let told = format!("{} holds the lease, epoch {epoch}", NAMES[host]);
        let bound = TIMING.poll + STORE_TIME + STORE_TIME;
        show.measure("acquisition", &told, took, bound);
        self.start_node(CLIENT)?;
        let client = Arc::clone(self.node(CLIENT));
        self.writer = Some(Writer::start(client).map_err(|error| error.to_string())?);
        self.await_write()?;
        show.tell("the client's writes are acknowledged by all three");
        Ok(())
    }

    fn renewals(&mut self, show: &mut Show) -> Run<()> {
        show.step("it renews: the epoch stays, the version grows");
        let (host, epoch) = self.await_primary()?;
        let version = || self.host(host).and_then(|view| view.seen_version).unwrap_or_default();
        let first = version();
        let mut longest = Duration::ZERO;
        let mut last = BootInstant::now();
        for n in 1..=4 {
            let at = wait_until("the lease was renewed", PATIENCE, || version() >= first + n)?;
            // The first was under way for an unknown time already.
            if n > 1 {
                longest = longest.max(at.saturating_duration_since(last));
            }
            last = at;
        }
        if self.writable(host) != Some(epoch) {
            return Err(format!("{} has lost the lease without a cause", NAMES[host]));
        }
        let told = format!("version {first} -> {}, still epoch {epoch}", version());
        show.measure("longest time between renewals", &told, longest, TIMING.renew + STORE_TIME);
        Ok(())
    }

    fn crash(&mut self, show: &mut Show) -> Run<()> {
        self.breathe();
        let (old, epoch) = self.await_primary()?;
        show.step("the primary crashes");
        let begun = BootInstant::now();
        self.kill(old);
        show.tell_at(begun, &format!("{} is killed, in epoch {epoch}", NAMES[old]));
        let (new, epoch, at) = self.await_successor(old, epoch)?;
        let told = format!("{} takes over, epoch {epoch}", NAMES[new]);
        let took = at.saturating_duration_since(begun);
        show.measure("takeover after a crash", &told, took, latest());
        self.await_write()?;
        let stall = seconds(self.longest_write(begun));
        show.tell(&format!("writes go on; the longest took {stall}"));
        self.start_node(old)?;
        show.tell(&format!("{} starts again, read-only", NAMES[old]));
        self.rejoin(old, show)
    }

    /// Leaves time to read, and lets each fault hit another moment of the renewals.
    fn breathe(&self) {
        let jitter = rand::random_range(Duration::ZERO..TIMING.renew);
        std::thread::sleep(BREATH + jitter);
    }

    fn rejoin(&self, host: usize, show: &Show) -> Run<()> {
        self.await_in_sync(host)?;
        show.tell(&format!("{} has caught up, and is in the in-sync set again", NAMES[host]));
        Ok(())
    }

    fn partition(&mut self, show: &mut Show) -> Run<()> {
        self.breathe();
        let (old, epoch) = self.await_primary()?;
        show.step("the primary is cut off from everybody, and lives on");
        let begun = BootInstant::now();
        let others = (0..NAMES.len()).filter(|&id| id != old).map(|id| NodeId(id as u16));
        self.node(old).cut(others, Direction::Both);
        show.tell_at(begun, &format!("{} hears nobody and is heard by nobody", NAMES[old]));
        let fenced =
            wait_until("the primary became read-only", PATIENCE, || self.writable(old).is_none())?;
        let took = fenced.saturating_duration_since(begun);
        let told = format!("{} becomes read-only by its own clock", NAMES[old]);
        show.measure("read-only when cut off", &told, took, TIMING.self_fence());
        let (new, epoch, at) = self.await_successor(old, epoch)?;
        let told = format!("{} takes over, epoch {epoch}", NAMES[new]);
        let took = at.saturating_duration_since(begun);
        show.measure("takeover after a partition", &told, took, latest());
        self.await_write()?;
        self.node(old).cut([], Direction::Both);
        show.tell("the network heals");
        self.rejoin(old, show)
    }

    fn suspension(&mut self, show: &mut Show) -> Run<()> {
        self.breathe();
        let (old, epoch) = self.await_primary()?;
        show.step("the primary is suspended for twice the lease, and wakes up");
        let begun = BootInstant::now();
        let pause = TIMING.lease * 2;
        self.node(old).pause(pause);
        let told =
            format!("{} stands still, in the belief that it holds epoch {epoch}", NAMES[old]);
        show.tell_at(begun, &told);
        let (new, epoch, at) = self.await_successor(old, epoch)?;
        let told = format!("{} takes over, epoch {epoch}", NAMES[new]);
        let took = at.saturating_duration_since(begun);
        show.measure("takeover after a suspension", &told, took, latest());
        // Not even in its first instant awake may it write: its deadline has passed.
        let is_awake = || self.host(old).is_some_and(|view| view.role == Role::Watching);
        wait_until("the suspended host woke up", pause + PATIENCE, is_awake)?;
        show.tell(&format!("{} wakes up, finds its time over, and is read-only", NAMES[old]));
        self.rejoin(old, show)
    }

    fn hand_over(&mut self, show: &mut Show) -> Run<()> {
        self.breathe();
        let (old, epoch) = self.await_primary()?;
        let view = self.host(old).ok_or("the primary has ended")?;
        let others = HOSTS.into_iter().filter(|&host| host != old);
        let target = others
            .into_iter()
            .find(|&host| view.in_sync.contains(NodeId(host as u16)))
            .ok_or("no other host is in sync")?;
        show.step("an operator hands the lease over to a host of his choice");
        let begun = BootInstant::now();
        let order = Msg::HandOver { target: NodeId(target as u16), epoch };
        self.node(old).tell(LEASE, order).map_err(|error| error.to_string())?;
        show.tell_at(begun, &format!("{} is told to hand over to {}", NAMES[old], NAMES[target]));
        let ended =
            wait_until("the term had ended", PATIENCE, || self.writable(old) != Some(epoch))?;
        let (new, epoch, at) = self.await_successor(old, epoch)?;
        if new != target {
            return Err(format!("{} has the lease, and not {}", NAMES[new], NAMES[target]));
        }
        let took = at.saturating_duration_since(ended);
        let told = format!("{} holds it, epoch {epoch}", NAMES[new]);
        let bound = TIMING.handover_gap(MESSAGE_TIME, STORE_TIME);
        show.measure("nobody writable in a hand-over", &told, took, bound);
        self.await_write()?;
        Ok(())
    }

    fn store_restart(&mut self, show: &mut Show) -> Run<()> {
        self.breathe();
        let (host, epoch) = self.await_primary()?;
        show.step("the store crashes, and comes back from its file");
        let begun = BootInstant::now();
        self.kill(STORE);
        show.tell_at(begun, "s is killed; the primary goes on until its deadline");
        std::thread::sleep(STORE_AWAY);
        self.start_node(STORE)?;
        let away = BootInstant::now().saturating_duration_since(begun);
        show.tell("s is back, with the record that it had");
        let version = || self.host(host).and_then(|view| view.seen_version).unwrap_or_default();
        let before = version();
        wait_until("the lease was renewed", PATIENCE, || version() >= before + 2)?;
        let kept = self.writable(host) == Some(epoch);
        let told = format!("{} still holds epoch {epoch}, and renews", NAMES[host]);
        // A renewal that is due when the store goes is sent again until its holder gives up.
        let bound = TIMING.give_up - TIMING.renew - TIMING.retry;
        show.measure("store away, term kept", &told, away, bound);
        if !kept {
            show.check("the term outlives the store's absence", "it has ended", false);
        }
        Ok(())
    }

    /// Everything that the nodes did, once more through the model.
    fn check_traces(&mut self, show: &mut Show) {
        for node in &mut self.nodes {
            if let Some(node) = node.take() {
                node.stop();
            }
        }
        let sources: Vec<_> = NAMES.iter().map(|name| Source::File(self.trace(name))).collect();
        let report = check::<Member>(&sources, Options::default());
        let measured = match (&report.problem, report.verdict) {
            (None, Verdict::Accepted) => {
                format!("{} of {}", report.taken + report.undone, report.logged)
            }
            (Some(problem), _) => format!("{}:{}: {}", problem.file, problem.line, problem.what),
            (None, _) => "no verdict".to_owned(),
        };
        let what = format!(
            "recorded steps that the checked model allows, {} lives, {} undone by crashes",
            report.lives, report.undone
        );
        show.check(&what, measured, report.verdict == Verdict::Accepted);
    }

    fn final_checks(&mut self, show: &mut Show) -> Run<()> {
        // One that was slow for a moment is in sync again with the next write.
        let are_in_sync = || {
            let view = self.primary().and_then(|(primary, _)| self.host(primary));
            view.is_some_and(|view| {
                HOSTS.iter().all(|&host| view.in_sync.contains(NodeId(host as u16)))
            })
        };
        wait_until("all hosts were in sync", PATIENCE, are_in_sync)?;
        if let Some(writer) = &mut self.writer {
            writer.finish()?;
        }
        let (primary, _) = self.await_primary()?;
        let view = self.host(primary).ok_or("the primary has ended")?;
        let hosts: Vec<_> =
            HOSTS.into_iter().filter(|&host| view.in_sync.contains(NodeId(host as u16))).collect();
        let committed = view.last_seq;
        wait_until("the tables were equal", PATIENCE, || {
            let is_there =
                |&host: &usize| self.host(host).is_some_and(|view| view.committed_seq >= committed);
            hosts.iter().all(is_there)
        })?;
        self.monitor.finish();
        let written = self.writer.as_ref().map(|writer| lock(&writer.written));
        let written: &[Written] = written.as_deref().map_or(&[], Vec::as_slice);
        let missing = |host: usize| {
            let table = self.host(host).and_then(|view| view.table);
            let has = |write: &&Written| {
                let row = table.as_ref().and_then(|table| table.0.get(&write.key));
                row.is_some_and(|(value, _)| value == write.value)
            };
            written.len() - written.iter().filter(has).count()
        };
        let lost: usize = hosts.iter().map(|&host| missing(host)).sum();
        let longest = written
            .iter()
            .map(|write| write.acknowledged.saturating_duration_since(write.submitted))
            .max()
            .unwrap_or_default();
        let seen = lock(&self.monitor.seen);
        let mut terms = seen.terms.clone();
        terms.sort_by_key(|term| term.begin);
        let epochs: Vec<_> = terms.iter().map(|term| term.epoch.to_string()).collect();
        let (overlaps, closest) = seen.judge();
        let names: Vec<_> = hosts.iter().map(|&host| NAMES[host]).collect();
        show.remark("longest wait of a write", longest);
        let what = format!("acknowledged writes, all in the tables of {}", names.join(", "));
        let measured = match lost {
            0 => written.len().to_string(),
            lost => format!("{} and {lost} lost", written.len()),
        };
        show.check(&what, measured, lost == 0 && !written.is_empty() && names.len() == HOSTS.len());
        let only_grew = terms.windows(2).all(|pair| pair[0].epoch < pair[1].epoch);
        show.check("epochs only grew", epochs.join(" < "), only_grew && terms.len() > 1);
        if let Some(closest) = closest {
            show.remark("shortest time between two terms", closest);
        }
        let what = format!("overlaps of writable hosts, in {} samples", seen.samples);
        show.check(&what, overlaps.to_string(), overlaps == 0);
        Ok(())
    }
}

/// Removes the directory when the demo is interrupted, and ends the process.
fn tidy_up_when_interrupted(directory: PathBuf) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            // What cannot be removed, the system removes some day.
            let _ = std::fs::remove_dir_all(directory);
            std::process::exit(130);
        }
    })?;
    Ok(())
}

/// The latest takeover that the timing allows.
fn latest() -> Duration {
    TIMING.takeover_latest(STORE_TIME, STORE_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timing_is_safe() {
        TIMING.validate().unwrap();
        assert!(STORE_AWAY < TIMING.give_up - TIMING.renew - TIMING.retry);
    }
}
