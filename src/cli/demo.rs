//! `tenure demo`: a whole cluster in one process, and what can happen to it.
//!
//! One store, three hosts in three zones and a client talk over UDP on loopback, exactly as separate
//! processes would: each has its socket, its thread, its storage file, and is made from a cluster
//! file by the same code. The demo then does to them what happens in production, measures what
//! follows and compares it with the bounds that the timing promises.

use std::fmt::Write as _;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::{Args, ValueEnum};
use comfy_table::CellAlignment;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use super::paint::{Paint, Tone};
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
/// How often the monitor looks.
const SAMPLE_EVERY: Duration = Duration::from_micros(500);
/// How often the demo looks when it waits for something.
const LOOK_EVERY: Duration = Duration::from_micros(300);
/// The shortest pause between two steps.
const BREATH: Duration = Duration::from_millis(700);
/// The client's pause between two writes.
const WRITE_EVERY: Duration = Duration::from_millis(25);
/// How long the store is away.
const STORE_AWAY: Duration = Duration::from_millis(700);
/// After what time the demo gives up waiting for something that has no bound.
const PATIENCE: Duration = Duration::from_secs(15);

type Views = watch::Receiver<Option<Published<View>>>;
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
        return super::demo_irc::run(args.json);
    }
    let mut show = Show::new(args.json);
    match Demo::start(args.trace_dir.as_deref()).and_then(|mut demo| demo.play(&mut show)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => super::failure(reason),
    }
}

/// Takes a lock that somebody may have panicked with: each value here is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a node that has published this may write at that instant, and under which epoch.
fn writable(published: Option<&Published<View>>, now: BootInstant) -> Option<Epoch> {
    match published {
        Some(Published { view: View::Host(view), deadline: Some(deadline) })
            if view.role == Role::Holding && now < *deadline =>
        {
            view.epoch
        }
        _ => None,
    }
}

// -------------------------------------------------------------------------------------------------
// What is printed
// -------------------------------------------------------------------------------------------------

/// One thing that was measured or checked.
struct Row {
    what: String,
    measured: String,
    bound: Option<String>,
    /// Nothing if it was only measured.
    is_ok: Option<bool>,
}

/// The narrator.
struct Show {
    paint: Paint,
    json: bool,
    begun: BootInstant,
    step: u32,
    step_begun: BootInstant,
    rows: Vec<Row>,
}

impl Show {
    fn new(json: bool) -> Self {
        let now = BootInstant::now();
        Self {
            paint: Paint::stdout(),
            json,
            begun: now,
            step: 0,
            step_begun: now,
            rows: Vec::new(),
        }
    }

    fn print(&self, text: &str) {
        if !self.json {
            super::print(text);
        }
    }

    fn say(&self, mut event: Value) {
        if self.json {
            let since = BootInstant::now().saturating_duration_since(self.begun);
            event["at_ms"] = millis(since);
            super::print(&format!("{event}\n"));
        }
    }

    fn title(&self) {
        let paint = self.paint;
        let numbers = TIMING.inequality();
        let need = numbers.need_ns().unwrap_or_default() as f64 / 1e9;
        let title = "tenure: one lease, three hosts in three zones, over UDP, with faults";
        self.print(&format!(
            "\n {}\n {}\n {}\n",
            paint.strong(title),
            paint.faint(format!(
                "L {} s  G {} s  R {} s  S {} s  clocks within {} ppm: L must be above {need:.3} s, so \
                 there is {:.3} s to spare",
                TIMING.lease.as_secs_f64(),
                TIMING.give_up.as_secs_f64(),
                TIMING.renew.as_secs_f64(),
                TIMING.hook.as_secs_f64(),
                TIMING.clock_error_ppm,
                numbers.margin_ns() as f64 / 1e9,
            )),
            paint.faint("Meanwhile a client writes to the table, and a monitor watches all hosts."),
        ));
        self.say(json!({
            "event": "begin", "lease_ms": millis(TIMING.lease), "give_up_ms": millis(TIMING.give_up),
            "renew_ms": millis(TIMING.renew), "hook_ms": millis(TIMING.hook),
            "clock_error_ppm": TIMING.clock_error_ppm,
        }));
    }

    fn step(&mut self, title: &str) {
        self.step += 1;
        self.print(&format!("\n {}  {}\n", self.paint.strong(self.step), self.paint.strong(title)));
        self.say(json!({ "event": "step", "step": self.step, "title": title }));
        self.step_begun = BootInstant::now();
    }

    /// Something has happened now.
    fn tell(&self, what: &str) {
        self.tell_at(BootInstant::now(), what);
    }

    fn tell_at(&self, at: BootInstant, what: &str) {
        let since = at.saturating_duration_since(self.step_begun);
        let since_text = self.paint.faint(format!("{:>8.3} s", since.as_secs_f64()));
        self.print(&format!("   {since_text}  {what}\n"));
        self.say(
            json!({ "event": "note", "step": self.step, "since_ms": millis(since), "what": what }),
        );
    }

    /// Something has happened that was promised to take no longer than a bound.
    fn measure(&mut self, what: &str, told: &str, took: Duration, bound: Duration) {
        let is_ok = took <= bound;
        let paint = self.paint;
        let share = took.as_secs_f64() / bound.as_secs_f64();
        let verdict = if is_ok { paint.good("ok") } else { paint.bad("LATE") };
        let since = BootInstant::now().saturating_duration_since(self.step_begun);
        self.print(&format!(
            "   {}  {told:<44} {}  {} of {}  {verdict}\n",
            paint.faint(format!("{:>8.3} s", since.as_secs_f64())),
            bar(share, is_ok, paint),
            paint.strong(seconds(took)),
            seconds(bound),
        ));
        self.say(json!({
            "event": "measure", "step": self.step, "what": what, "told": told,
            "measured_ms": millis(took), "bound_ms": millis(bound), "ok": is_ok,
        }));
        let (measured, bound) = (seconds(took), Some(seconds(bound)));
        self.rows.push(Row { what: what.to_owned(), measured, bound, is_ok: Some(is_ok) });
    }

    /// A fact that has to be so.
    fn check(&mut self, what: &str, measured: impl Into<String>, is_ok: bool) {
        let measured = measured.into();
        self.say(json!({
            "event": "check", "step": self.step, "what": what, "measured": measured, "ok": is_ok,
        }));
        self.rows.push(Row { what: what.to_owned(), measured, bound: None, is_ok: Some(is_ok) });
    }

    /// Something that was measured, and for which nothing is promised.
    fn remark(&mut self, what: &str, measured: Duration) {
        let text = seconds(measured);
        self.say(json!({
            "event": "remark", "step": self.step, "what": what, "measured_ms": millis(measured),
        }));
        self.rows.push(Row { what: what.to_owned(), measured: text, bound: None, is_ok: None });
    }

    /// The table of everything that was measured; an error if something was not as promised.
    fn finish(&self) -> Run<()> {
        let paint = self.paint;
        let mut table = paint.table(["", "measured", "bound", ""]);
        for row in &self.rows {
            let (tone, verdict) = match row.is_ok {
                Some(true) => (Tone::Good, "ok"),
                Some(false) => (Tone::Bad, "FAILED"),
                None => (Tone::Plain, ""),
            };
            table.add_row([
                paint.cell(Tone::Plain, &row.what),
                paint.cell(Tone::Strong, &row.measured),
                paint.cell(Tone::Plain, row.bound.as_deref().unwrap_or("")),
                paint.cell(tone, verdict),
            ]);
        }
        for column in [1, 2] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::from("\n");
        for line in table.lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let took = BootInstant::now().saturating_duration_since(self.begun);
        let failed: Vec<_> = self.rows.iter().filter(|row| row.is_ok == Some(false)).collect();
        let verdict = match failed.len() {
            0 => paint.good("Everything held."),
            _ => paint.bad("Not everything held."),
        };
        let _ = writeln!(
            text,
            "\n {verdict} {}\n",
            paint.faint(format!(
                "{:.0} s. One run shows one schedule; the models explore the others.",
                took.as_secs_f64()
            ))
        );
        self.print(&text);
        let rows = self.rows.iter().map(|row| {
            json!({ "what": row.what, "measured": row.measured, "bound": row.bound, "ok": row.is_ok })
        });
        self.say(
            json!({ "event": "end", "ok": failed.is_empty(), "rows": rows.collect::<Vec<_>>() }),
        );
        self.judge()
    }

    /// The reason to fail, if there is one.
    fn judge(&self) -> Run<()> {
        match self.rows.iter().find(|row| row.is_ok == Some(false)) {
            None => Ok(()),
            Some(row) => Err(format!(
                "{}: {}{}; a machine that is very busy can be late, anything else is a bug: please report it",
                row.what,
                row.measured,
                row.bound
                    .as_ref()
                    .map(|bound| format!(", and the bound is {bound}"))
                    .unwrap_or_default()
            )),
        }
    }
}

/// How much of its bound something took, as a bar.
fn bar(share: f64, is_ok: bool, paint: Paint) -> String {
    const WIDTH: usize = 12;
    let filled = ((share * WIDTH as f64).ceil() as usize).min(WIDTH);
    let (taken, left) = ("━".repeat(filled), "╌".repeat(WIDTH - filled));
    let taken = if is_ok { paint.good(taken) } else { paint.bad(taken) };
    format!("{taken}{}", paint.faint(left))
}

fn seconds(duration: Duration) -> String {
    if duration < Duration::from_millis(100) {
        return format!("{:.1} ms", duration.as_secs_f64() * 1e3);
    }
    format!("{:.3} s", duration.as_secs_f64())
}

fn millis(duration: Duration) -> Value {
    (duration.as_micros() as f64 / 1e3).into()
}

// -------------------------------------------------------------------------------------------------
// Who watches
// -------------------------------------------------------------------------------------------------

/// A time during which one host was seen to be writable all along.
#[derive(Clone, Copy, Debug)]
struct Term {
    host: usize,
    epoch: Epoch,
    begin: BootInstant,
    end: BootInstant,
}

#[derive(Default)]
struct Seen {
    samples: u64,
    /// How often two hosts were writable in one instant.
    overlaps: u64,
    terms: Vec<Term>,
}

/// Looks at what all hosts have published, on one clock.
struct Monitor {
    hosts: Arc<Mutex<Vec<Option<Views>>>>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    fn start() -> io::Result<Self> {
        let hosts = Arc::new(Mutex::new(vec![None; HOSTS.len()]));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("monitor".to_owned()).spawn({
            let (hosts, seen, stop) = (Arc::clone(&hosts), Arc::clone(&seen), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Acquire) {
                    let views: Vec<Option<Views>> = lock(&hosts).clone();
                    lock(&seen).sample(&views);
                    std::thread::sleep(SAMPLE_EVERY);
                }
            }
        })?;
        Ok(Self { hosts, seen, stop, thread: Some(thread) })
    }

    fn look_at(&self, host: usize, views: Views) {
        lock(&self.hosts)[host] = Some(views);
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn sample(&mut self, hosts: &[Option<Views>]) {
        let look = || -> Vec<Option<(Epoch, BootInstant)>> {
            let look_at = |views: &Option<Views>| {
                // The clock is read while the view cannot change, so it is true at that instant.
                let published = views.as_ref()?.borrow();
                let now = BootInstant::now();
                writable(published.as_ref(), now).map(|epoch| (epoch, now))
            };
            hosts.iter().map(look_at).collect()
        };
        // One host's view is read after the other's. Whoever is writable under one epoch in both
        // rounds was so in between, and the times in between of all hosts have an instant in common.
        let (first, second) = (look(), look());
        self.samples += 1;
        let mut count = 0;
        for (host, (first, second)) in first.into_iter().zip(second).enumerate() {
            let (Some((epoch, begin)), Some((same, end))) = (first, second) else { continue };
            if epoch != same {
                continue;
            }
            count += 1;
            let last = self.terms.iter_mut().rev().find(|term| term.host == host);
            match last {
                Some(term) if term.epoch == epoch => term.end = end,
                _ => self.terms.push(Term { host, epoch, begin, end }),
            }
        }
        self.overlaps += u64::from(count > 1);
    }

    /// Overlaps of recorded terms, and the shortest time between the end of one and the next.
    fn judge(&self) -> (u64, Option<Duration>) {
        let mut terms = self.terms.clone();
        terms.sort_by_key(|term| term.begin);
        let mut overlaps = self.overlaps;
        let mut closest: Option<Duration> = None;
        for pair in terms.windows(2) {
            match pair[1].begin.checked_duration_since(pair[0].end) {
                Some(gap) => closest = Some(closest.map_or(gap, |closest| closest.min(gap))),
                None => overlaps += 1,
            }
        }
        (overlaps, closest)
    }
}

/// One acknowledged write.
struct Written {
    key: String,
    value: String,
    submitted: BootInstant,
    acknowledged: BootInstant,
}

/// Writes one row after the other through the client node, for as long as the demo runs.
struct Writer {
    written: Arc<Mutex<Vec<Written>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Run<()>>>,
}

impl Writer {
    fn start(client: Arc<Handle<Member>>) -> io::Result<Self> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("writer".to_owned()).spawn({
            let (written, stop) = (Arc::clone(&written), Arc::clone(&stop));
            move || write_all(&client, &written, &stop)
        })?;
        Ok(Self { written, stop, thread: Some(thread) })
    }

    fn count(&self) -> usize {
        lock(&self.written).len()
    }

    /// The longest time that a write took which was acknowledged since then.
    fn longest_since(&self, since: BootInstant) -> Duration {
        let took = |write: &Written| write.acknowledged.saturating_duration_since(write.submitted);
        let written = lock(&self.written);
        let recent = written.iter().rev().take_while(|write| write.acknowledged >= since);
        recent.map(took).max().unwrap_or_default()
    }

    fn finish(&mut self) -> Run<()> {
        self.stop.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err("the writer has failed: please report it".to_owned()),
            None => Ok(()),
        }
    }
}

fn write_all(client: &Handle<Member>, written: &Mutex<Vec<Written>>, stop: &AtomicBool) -> Run<()> {
    let views = client.views(LEASE).ok_or("the client has no part in the lease")?;
    for n in 1.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let (key, value) = (format!("order-{n:05}"), format!("paid-{n}"));
        let submitted = BootInstant::now();
        let submit = Msg::Submit { key: key.clone(), value: value.clone() };
        client.tell(LEASE, submit).map_err(|error| error.to_string())?;
        let is_done = || match &*views.borrow() {
            Some(Published { view: View::Client { acknowledged, .. }, .. }) => *acknowledged >= n,
            _ => false,
        };
        wait_until("a write was acknowledged", PATIENCE, is_done)?;
        let acknowledged = BootInstant::now();
        lock(written).push(Written { key, value, submitted, acknowledged });
        std::thread::sleep(WRITE_EVERY);
    }
    Ok(())
}

/// Waits until something is so, and says when it was seen.
fn wait_until(what: &str, patience: Duration, is_so: impl Fn() -> bool) -> Run<BootInstant> {
    let until = BootInstant::now().saturating_add(patience);
    loop {
        if is_so() {
            return Ok(BootInstant::now());
        }
        if BootInstant::now() > until {
            return Err(format!("{} s went by before {what}", patience.as_secs_f64()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

// -------------------------------------------------------------------------------------------------
// The cluster, and what happens to it
// -------------------------------------------------------------------------------------------------

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
    _directory: TempDir,
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
        let demo =
            Self { config, sockets, nodes, monitor, writer: None, traces, _directory: directory };
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

    #[test]
    fn terms_that_overlap_are_noticed() {
        let term = |host, begin, end| Term {
            host,
            epoch: 1,
            begin: BootInstant::from_nanos(begin),
            end: BootInstant::from_nanos(end),
        };
        let seen = Seen { terms: vec![term(0, 1, 5), term(1, 7, 9)], ..Seen::default() };
        assert_eq!(seen.judge(), (0, Some(Duration::from_nanos(2))));
        let seen = Seen { terms: vec![term(1, 7, 9), term(0, 1, 8)], ..Seen::default() };
        assert_eq!(seen.judge(), (1, None));
    }

    #[test]
    fn what_is_late_fails_and_says_so() {
        let mut show = Show::new(false);
        let row = |measured: &str, bound: Option<&str>, is_ok| Row {
            what: "takeover".to_owned(),
            measured: measured.to_owned(),
            bound: bound.map(str::to_owned),
            is_ok,
        };
        show.rows = vec![row("1 s", Some("2 s"), Some(true)), row("9 s", None, None)];
        assert_eq!(show.judge(), Ok(()));
        show.rows.push(row("3 s", Some("2 s"), Some(false)));
        let reason = show.judge().unwrap_err();
        assert!(reason.starts_with("takeover: 3 s, and the bound is 2 s"), "{reason}");
    }

    #[test]
    fn a_bar_is_never_longer_than_its_bound() {
        let bar = |share| bar(share, true, Paint::PLAIN);
        assert_eq!(bar(0.0), "╌".repeat(12));
        assert_eq!(bar(0.5), format!("{}{}", "━".repeat(6), "╌".repeat(6)));
        assert_eq!(bar(7.0), "━".repeat(12));
    }
}
