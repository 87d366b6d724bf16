//! What goes wrong with a network, drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

use super::network::Family;

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Node(usize),
    /// Whoever holds the lease then; if nobody does, this node.
    HolderOr(usize),
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The link of the target is down.
    Unplugged(Target),
    /// What the target says to this one is lost.
    OneWay(Target, usize),
    /// What the target says is lost, and it hears everything.
    Mute(Target),
    /// What others say to the target is lost, and it is heard.
    Deaf(Target),
    /// The target and this one do not reach each other; all others reach both.
    Apart(Target, usize),
    /// Nothing goes between these and the others.
    Split(Vec<usize>),
    /// What the target sends is lost and doubled, so many in a thousand, and late by up to so many milliseconds.
    Rough { target: Target, loss: u16, double: u16, late_ms: u16 },
    /// The target's process is killed, and starts again at the end.
    Killed(Target),
    /// The same, and what it had stored is gone. No schedule has this: no rule is made for it.
    Emptied(Target),
}

/// One fault, from some moment for some time.
#[derive(Clone, Debug)]
pub struct Fault {
    pub at: Duration,
    pub lasts: Duration,
    pub kind: Kind,
}

/// All that happens to one cluster.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// What it and its weather are drawn from.
    pub seed: u64,
    pub family: Family,
    pub faults: Vec<Fault>,
}

impl Schedule {
    /// So many faults for that many nodes. They overlap; most last for about as long as a lease.
    pub fn draw(seed: u64, nodes: usize, faults: usize, lease: Duration) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let family = if rng.random() { Family::V4 } else { Family::V6 };
        let mut at = Duration::ZERO;
        let faults = (0..faults).map(|_| {
            at += lease.mul_f64(rng.random_range(0.0..1.0));
            let lasts = lease.mul_f64(rng.random_range(0.2..2.2));
            Fault { at, lasts, kind: kind(&mut rng, nodes, lease) }
        });
        let faults = faults.collect();
        Self { seed, family, faults }
    }
}

fn kind(rng: &mut StdRng, nodes: usize, lease: Duration) -> Kind {
    let mut two: Vec<_> = (0..nodes).collect();
    two.shuffle(rng);
    let target = if rng.random() { Target::HolderOr(two[0]) } else { Target::Node(two[0]) };
    match rng.random_range(0..15) {
        0..3 => Kind::Unplugged(target),
        3..5 => Kind::OneWay(target, two[1]),
        5..7 => Kind::Mute(target),
        7..9 => Kind::Deaf(target),
        9..10 => Kind::Apart(target, two[1]),
        10..12 => Kind::Split(two[..rng.random_range(1..nodes)].to_vec()),
        12..14 => {
            let late = u16::try_from(lease.as_millis() / 2).unwrap_or(u16::MAX);
            Kind::Rough {
                target,
                loss: *[0, 100, 400].choose(rng).expect("three"),
                double: *[0, 200, 700].choose(rng).expect("three"),
                late_ms: *[0, late / 10, late].choose(rng).expect("three"),
            }
        }
        _ => Kind::Killed(target),
    }
}
