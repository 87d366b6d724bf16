//! The worlds of peerings that `tla/MCIrc*.cfg` describe.
//!
//! The Rust worlds are raw, but for what only people read and nothing in the protocol does: the audit log, the
//! report of a restore, and the results that are kept under tokens. No wish is said twice here, so no
//! token is ever looked up.

use std::cell::RefCell;
use std::collections::BTreeMap;

use stateright::{Model as _, Property};
use tenure::irc::Storage;
use tenure::irc::facts::{Bundle, Decided, Decision, Incarnation, OpId, Region, Sealed};
use tenure::irc::ledger::Ledger;
use tenure::irc::msg::{Body, Call, ClaimEpoch, Errand, Kind, Msg, RecordId, Request, Work};
use tenure::irc::peering::Verb::{self, Accept, Delete, Reject};
use tenure::irc::safeguards::Safeguards;
use tenure::models::irc::{
    IrcState, IrcWorld, Scope, Wish, ask, change, create, first, properties as p,
};

use super::config::Config;
use super::graph::{State, Twin};
use super::irc_told::{self, Digests};

/// A world, and the digests of what its regions have known, which comparisons between them name.
pub(crate) struct IrcTwin {
    pub(crate) world: IrcWorld,
    /// The wishes, by their names in the specification.
    pub(crate) wishes: Vec<String>,
    digests: RefCell<Digests>,
}

/// What the specification checks too.
pub(crate) fn properties() -> Vec<Property<IrcWorld>> {
    vec![
        p::one_decision(),
        p::half_is_justified(),
        p::rank_never_falls(),
        p::dead_stays_dead(),
        p::one_live_per_pair(),
        p::accepted_in_time(),
        p::no_half_falls(),
        p::dead_is_decided(),
        p::rest_is_agreement(),
    ]
}

/// What must be possible.
pub(crate) fn witnesses() -> Vec<Property<IrcWorld>> {
    vec![
        p::both_active(),
        p::deleted(),
        p::rejected(),
        p::expired(),
        p::failed(),
        p::forgotten(),
        p::accepted_again(),
        p::thawed(),
        p::thawed_together(),
        p::third_done(),
    ]
}

impl IrcTwin {
    /// # Panics
    ///
    /// If the configuration is not one of peerings between two regions.
    pub(crate) fn of(config: &Config) -> Self {
        assert_eq!(config.set("Regions"), ["0", "1"], "{}: two regions", config.name);
        let wishes = config.set("Wishes");
        let may_restore = config.set("MayRestore");
        let restores = u8::try_from(config.number("Restores")).expect("few");
        let without = config.without_rules();
        let left_out = Safeguards::ALL.iter().filter(|rule| without.contains(&rule.id()));
        let safeguards = Safeguards::ALL.difference(left_out.collect());
        assert_eq!(Safeguards::ALL.difference(safeguards).iter().count(), without.len());
        let may_crash: Vec<usize> =
            config.set("MayCrash").iter().map(|node| node.parse().expect("a node")).collect();
        let scope = Scope {
            restores: ["0", "1"]
                .map(
                    |region| if may_restore.iter().any(|one| one == region) { restores } else { 0 },
                )
                .to_vec(),
            early_backup: config.truth("EarlyBackup"),
            crashes: u8::try_from(config.number("Crashes")).expect("few"),
            pending: config.number("Pending").into(),
            remember: config.number("Remember").into(),
            clock: config.number("MaxClock").into(),
            safeguards,
            ..Scope::new(wishes.iter().map(|name| wish(name)).collect())
        };
        let mut world = scope.world(properties());
        world.canonical = false;
        world.faults.may_crash = may_crash;
        Self { world, wishes, digests: RefCell::default() }
    }

    fn blank(mut state: IrcState) -> IrcState {
        for node in &mut state.nodes {
            if let Some(one) = &mut node.state {
                blank(&mut one.ledger);
                one.reindex();
            }
            if let Some(Storage::Control(ledger)) = &mut node.storage {
                blank(ledger);
            }
        }
        for backup in state.ghost.backups.iter_mut().flatten() {
            let Storage::Control(ledger) = backup;
            blank(ledger);
        }
        state
    }
}

fn blank(ledger: &mut Ledger) {
    ledger.audit = Default::default();
    ledger.head.audited = (0, [0; 32]);
    ledger.tokens = Default::default();
    let mut peers = ledger.peers.clone();
    for (&region, peer) in ledger.peers.iter() {
        let mut peer = peer.clone();
        peer.lost = Default::default();
        peers.insert(region, peer);
    }
    ledger.peers = peers;
}

impl Twin for IrcTwin {
    type State = IrcState;

    fn begin(&self) -> Vec<IrcState> {
        self.world.init_states().into_iter().map(Self::blank).collect()
    }

    fn steps(&self, before: &IrcState) -> Vec<IrcState> {
        let mut actions = Vec::new();
        self.world.actions(before, &mut actions);
        let after = actions.into_iter().filter_map(|action| self.world.next_state(before, action));
        after.map(Self::blank).collect()
    }

    fn is_within(&self, state: &IrcState) -> bool {
        self.world.within_boundary(state)
    }

    fn tell(&self, state: &IrcState) -> State {
        let mut digests = self.digests.borrow_mut();
        irc_told::learn(&mut digests, state);
        irc_told::state(self, &digests, state)
    }
}

/// What is meant by each name of a wish.
fn wish(name: &str) -> Wish {
    let second = OpId { seq: 1, ..first(0) };
    let verb = |at, token, id, verb: Verb| ask(at, token, Request::Change { id, verb });
    let known: BTreeMap<&str, Wish> = [
        ("create", create(0, 1, 1)),
        ("create_again", create(0, 1, 7)),
        ("create_back", create(1, 0, 8)),
        ("accept", change(1, 0, 2, Accept)),
        ("accept_again", verb(1, 10, second, Accept)),
        ("accept_back", change(0, 1, 9, Accept)),
        ("reject", change(1, 0, 3, Reject)),
        ("delete_by_r", change(0, 0, 4, Delete)),
        ("delete_by_a", change(1, 0, 5, Delete)),
        ("delete_back", change(1, 1, 11, Delete)),
        ("lie", lie()),
    ]
    .into();
    known.get(name).unwrap_or_else(|| panic!("nobody knows the wish {name}")).clone()
}

/// A server of R says, in the name of its region, that A has accepted.
fn lie() -> Wish {
    let facts = Decided {
        decision: Some(Decision::Accepted),
        deadline: Some(tenure::models::irc::PENDING),
        ..Decided::default()
    };
    let call = Call {
        from: Region(0),
        incarnation: Incarnation { n: 1, life: 0 },
        tag: (Work::Record(RecordId { n: 1, seq: 9 }), ClaimEpoch::default()),
        errand: Errand::Apply {
            kind: Kind::PEERING,
            id: first(0),
            op: 9,
            closed_below: 0,
            body: Body::of(&Bundle::Accepter(Sealed { facts, seal: 0 })),
        },
    };
    Wish { at: 1, from: 0, msg: Msg::Call(Box::new(call)) }
}
