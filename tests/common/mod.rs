//! Small actors and sockets for the tests of the node.

#![allow(clippy::disallowed_methods, reason = "a test waits for real processes, and for real time")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::borrow::Cow;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stateright::actor::{Actor, Id, Out};
use tenure::durable::Durable;
use tenure::lease::record::NodeId;
use tenure::node::clock::BootInstant;
use tenure::node::{Bind, Handle, Node, Published, Spec};
use tenure::step::Machine;
use tenure::wire::{self, Header, Message, Plain};

pub const CLUSTER: &str = "test";
/// The state that breaks the toys' invariant.
pub const POISON: u64 = u64::MAX - 1;
pub const MS: Duration = Duration::from_millis(1);

/// What the toys say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Say {
    Ping(u64),
    Pong(u64),
    Text(String),
}

impl Message for Say {
    fn is_legal(&self) -> bool {
        !matches!(self, Self::Ping(u64::MAX))
    }
}

/// One number, in one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Number(pub u64);

impl Durable for Number {
    fn difference(&self, before: Option<&Self>, put: &mut dyn FnMut(Vec<u8>, Option<Vec<u8>>)) {
        if before != Some(self) {
            put(b"number".to_vec(), Some(self.0.to_be_bytes().to_vec()));
            // A row for each number, so that the file grows and shows gaps.
            put(self.0.to_be_bytes().to_vec(), Some(vec![b'x'; 500]));
        }
    }

    fn restore(rows: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Option<Self>, String> {
        let mut number = None;
        let mut count = 0;
        for (key, value) in rows {
            if key == b"number" {
                number = Some(u64::from_be_bytes(value.try_into().map_err(|_| "length")?));
            } else {
                count += 1;
            }
        }
        match number {
            // Numbers are saved one after the other from 1: a prefix has all of them.
            Some(number) if number != count => Err(format!("{count} rows for number {number}")),
            number => Ok(number.map(Self)),
        }
    }
}

/// What a toy has seen, and when its handler began. Tests read it; the toy does not.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<(BootInstant, String)>>>);

impl Log {
    pub fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push((BootInstant::now(), what.into()));
    }

    pub fn entries(&self) -> Vec<(BootInstant, String)> {
        self.0.lock().unwrap().clone()
    }

    pub fn texts(&self) -> Vec<String> {
        self.entries().into_iter().map(|(_, text)| text).collect()
    }
}

pub type Handler = fn(&mut u64, Event, &mut Out<Toy>);

/// What happens to a toy.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Start(Option<u64>),
    Message(Id, Say),
    Timer(&'static str),
    Chosen(u8),
}

/// An actor whose state is a number and whose behaviour is a function.
#[derive(Clone)]
pub struct Toy {
    pub log: Log,
    pub handler: Handler,
    /// The timer that bounds its permission.
    pub permission: Option<&'static str>,
    /// The epoch of that permission, by the state.
    pub epoch: fn(&u64) -> Option<u64>,
}

impl Toy {
    pub fn new(handler: Handler) -> Self {
        Self { log: Log::default(), handler, permission: None, epoch: |_| None }
    }

    fn on(&self, state: &mut u64, event: Event, o: &mut Out<Self>) {
        self.log.note(match &event {
            Event::Start(saved) => format!("start {saved:?}"),
            Event::Message(src, Say::Ping(n)) => format!("ping {n} from {}", usize::from(*src)),
            Event::Message(src, Say::Pong(n)) => format!("pong {n} from {}", usize::from(*src)),
            Event::Message(_, Say::Text(text)) => text.chars().take(20).collect(),
            Event::Timer(timer) => format!("timer {timer}"),
            Event::Chosen(choice) => format!("chosen {choice}"),
        });
        (self.handler)(state, event, o);
    }
}

impl Actor for Toy {
    type Msg = Say;
    type Timer = &'static str;
    type State = u64;
    type Storage = Number;
    type Random = u8;

    fn on_start(&self, _: Id, storage: &Option<Number>, o: &mut Out<Self>) -> u64 {
        let saved = storage.as_ref().map(|number| number.0);
        let mut state = saved.unwrap_or(0);
        self.on(&mut state, Event::Start(saved), o);
        state
    }

    fn on_msg(&self, _: Id, state: &mut Cow<'_, u64>, src: Id, msg: Say, o: &mut Out<Self>) {
        self.on(state.to_mut(), Event::Message(src, msg), o);
    }

    fn on_timeout(&self, _: Id, state: &mut Cow<'_, u64>, timer: &&'static str, o: &mut Out<Self>) {
        self.on(state.to_mut(), Event::Timer(timer), o);
    }

    fn on_random(&self, _: Id, state: &mut Cow<'_, u64>, random: &u8, o: &mut Out<Self>) {
        self.on(state.to_mut(), Event::Chosen(*random), o);
    }
}

impl Machine for Toy {
    type View = u64;

    fn view(&self, _: Id, state: &u64) -> u64 {
        *state
    }

    fn deadline(&self, _: &u64) -> Option<&'static str> {
        self.permission
    }

    fn epoch(&self, state: &u64) -> Option<u64> {
        (self.epoch)(state)
    }

    fn is_withdrawal(&self, msg: &Say) -> bool {
        matches!(msg, Say::Text(text) if text == "end of the term")
    }

    fn may_be_dropped(&self, msg: &Say) -> bool {
        !self.is_withdrawal(msg) && !matches!(msg, Say::Pong(_))
    }

    fn check(&self, _: Id, state: &u64) {
        assert!(*state != POISON, "a toy never counts that far");
    }
}

/// Answers pings.
pub fn echo(state: &mut u64, event: Event, o: &mut Out<Toy>) {
    if let Event::Message(src, Say::Ping(n)) = event {
        *state += 1;
        o.send(src, Say::Pong(n));
    }
}

/// Saves each ping in its turn and acknowledges it. The send comes first: the node has to know better.
pub fn keep(state: &mut u64, event: Event, o: &mut Out<Toy>) {
    if let Event::Message(src, Say::Ping(_)) = event {
        *state += 1;
        if src != Id::from(0) {
            o.send(src, Say::Pong(*state));
        }
        o.save(Number(*state));
    }
}

/// A socket that plays a node, with nothing behind it.
pub struct Peer {
    pub socket: UdpSocket,
    pub id: NodeId,
    pub sequence: std::cell::Cell<u32>,
}

impl Peer {
    pub fn new(id: u16) -> Self {
        Self::at(id, "127.0.0.1:0")
    }

    pub fn at(id: u16, address: &str) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, id: NodeId(id), sequence: Default::default() }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    pub fn datagram(&self, to: u16, lease: u16, msg: &Say) -> Vec<u8> {
        let sequence = self.sequence.replace(self.sequence.get() + 1);
        let header = Header { source: self.id, destination: NodeId(to), incarnation: 1, sequence };
        wire::encode(&header, lease, msg, &mut Plain).unwrap()
    }

    pub fn say(&self, to: SocketAddr, msg: &Say) {
        self.socket.send_to(&self.datagram(0, 0, msg), to).unwrap();
    }

    /// The next message from node 0, or `None` if none comes for as long as the socket's timeout.
    pub fn hear(&self) -> Option<(Header, Say)> {
        let mut buffer = [0; 2000];
        let (len, _) = self.socket.recv_from(&mut buffer).ok()?;
        let (header, lease, msg) = wire::decode(self.id, &buffer[..len], &mut Plain).unwrap();
        assert_eq!((header.source, lease), (NodeId(0), 0));
        Some((header, msg))
    }
}

/// A node 0 with one toy, and peers 1, 2 ... in its address book.
pub fn spec(toy: Toy, peers: &[&Peer]) -> Spec<Toy> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut book = vec![socket.local_addr().unwrap()];
    book.extend(peers.iter().map(|peer| peer.address()));
    let mut spec = Spec::new(CLUSTER, NodeId(0), Bind::Socket(socket), book);
    spec.actors.push((0, toy));
    spec
}

pub fn start(toy: Toy, peers: &[&Peer]) -> Handle<Toy> {
    Node::start(spec(toy, peers)).unwrap()
}

/// Waits until something is so, and fails if it never is.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(MS);
    }
}

pub fn shown(node: &Handle<Toy>) -> Option<Published<u64>> {
    node.views(0).unwrap().borrow().clone()
}

pub fn view(node: &Handle<Toy>) -> Option<u64> {
    shown(node).map(|published| published.view)
}
