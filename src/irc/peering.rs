//! One peering as one side knows it: the facts, what is derived from them, and which call is legal.
//!
//! The label that a customer sees is a function of the facts and of the own half, in this order:
//!
//! 1. a label that was terminal once stays;
//! 2. a decision that ends the request gives its label;
//! 3. any delete flag gives `deleting`, and `deleted` once the own half is off and the other side has
//!    confirmed that it knows;
//! 4. accepted gives `provisioning`, and `active` once the own half is on;
//! 5. undecided gives `pending-acceptance`, and at R `initiating-request` until A has stored it.
//!
//! Facts only ever grow, so a label never goes down in [`Label::rank`]. Slow and frozen are conditions
//! that are shown beside the label; they are no labels.

use serde::{Deserialize, Serialize};

use super::facts::{Block, Decided, Decision, OpId, Region, Requested, Sealed};
use super::msg::CallError;

/// Which end of a peering a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// R: where it was asked for.
    Requester,
    /// A: where it is decided.
    Accepter,
}

/// What a customer sees. The names are those of the
/// [API state codes](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_VpcPeeringConnectionStateReason.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// R has it, A perhaps not yet.
    InitiatingRequest,
    /// A may decide.
    PendingAcceptance,
    /// Accepted; the own half is not on yet.
    Provisioning,
    /// Accepted, and the own half is on.
    Active,
    /// Deleted by one side; the other may not know.
    Deleting,
    /// Deleted, and both know.
    Deleted,
    /// A's checks refused it.
    Failed,
    /// Nobody decided in time.
    Expired,
    /// A's owner said no.
    Rejected,
}

impl Label {
    /// Every label.
    pub const ALL: [Self; 9] = [
        Self::InitiatingRequest,
        Self::PendingAcceptance,
        Self::Provisioning,
        Self::Active,
        Self::Deleting,
        Self::Deleted,
        Self::Failed,
        Self::Expired,
        Self::Rejected,
    ];

    /// How far a peering has come: no view ever goes down in it.
    pub fn rank(self) -> u8 {
        match self {
            Self::InitiatingRequest => 0,
            Self::PendingAcceptance => 1,
            Self::Provisioning => 2,
            Self::Active => 3,
            Self::Deleting => 4,
            Self::Deleted | Self::Failed | Self::Expired | Self::Rejected => 5,
        }
    }

    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        self.rank() == 5
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InitiatingRequest => "initiating-request",
            Self::PendingAcceptance => "pending-acceptance",
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        })
    }
}

/// What an owner does to a peering that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// A's owner wants it.
    Accept,
    /// A's owner does not.
    Reject,
    /// Either owner ends it.
    Delete,
    /// Either owner changes what its own side lets the other do.
    Modify,
}

/// What a call leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A writes this decision.
    Decide(Decision),
    /// The side raises its delete flag.
    RaiseFlag,
    /// The side writes its options.
    WriteOptions,
    /// The call succeeds, and nothing changes: it is dead already.
    Nothing,
}

/// Which calls are legal, and what they lead to: the table of transitions, as far as an owner causes
/// them. What is not in it is an illegal transition.
///
/// # Errors
///
/// [`CallError::WrongSide`] if only the other region may do this at all,
/// [`CallError::InvalidTransition`] if it may not be done to a peering that looks like this.
//= SPEC IRC-5
pub fn transition(side: Side, label: Label, verb: Verb) -> Result<Effect, CallError> {
    use Label::{Active, Deleting, InitiatingRequest, PendingAcceptance, Provisioning};
    let illegal = Err(CallError::InvalidTransition { from: label, verb });
    match (verb, side) {
        (Verb::Accept | Verb::Reject, Side::Requester) => Err(CallError::WrongSide),
        (Verb::Accept, Side::Accepter) if label == PendingAcceptance => {
            Ok(Effect::Decide(Decision::Accepted))
        }
        (Verb::Reject, Side::Accepter) if label == PendingAcceptance => {
            Ok(Effect::Decide(Decision::Rejected))
        }
        (Verb::Accept | Verb::Reject, Side::Accepter) => illegal,
        // A's owner says no to a request by rejecting it.
        (Verb::Delete, Side::Accepter) if label == PendingAcceptance => illegal,
        (Verb::Delete, _) => match label {
            InitiatingRequest | PendingAcceptance | Provisioning | Active => Ok(Effect::RaiseFlag),
            _ => Ok(Effect::Nothing),
        },
        (Verb::Modify, _) => match label {
            PendingAcceptance | Provisioning | Active => Ok(Effect::WriteOptions),
            InitiatingRequest | Deleting => illegal,
            _ => illegal,
        },
    }
}

/// One peering, as one side keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peering {
    /// Which end this region is.
    pub side: Side,
    /// What R writes.
    pub requested: Sealed<Requested>,
    /// What A writes.
    pub decided: Sealed<Decided>,
    /// The number of the next operation that this side sends about it.
    pub next_op: u64,
    /// The newest operation of the other side that has had its effect here: the number of its
    /// incarnation, and its own number.
    pub seen: Option<(u64, u64)>,
    /// The other side has confirmed that it is dead.
    pub confirmed: bool,
    /// The first terminal label.
    pub terminal: Option<Label>,
    /// When it was seen to be dead, on the own clock.
    pub dead_since: Option<u64>,
    /// Facts that cannot be: two decisions, or a seal that is not ours. Nothing happens to it until
    /// an operator has looked.
    pub stuck: bool,
}

impl Peering {
    /// A peering of which this side knows the request and nothing more.
    pub fn new(side: Side, requested: Sealed<Requested>) -> Self {
        Self {
            side,
            requested,
            decided: Sealed { facts: Decided::default(), seal: 0 },
            next_op: 0,
            seen: None,
            confirmed: false,
            terminal: None,
            dead_since: None,
            stuck: false,
        }
    }

    /// The region at the other end.
    pub fn peer(&self, id: OpId) -> Region {
        match self.side {
            Side::Requester => self.requested.facts.target.region,
            Side::Accepter => id.requester,
        }
    }

    /// Whether a delete flag or a decision that ends it is known.
    pub fn is_dead(&self) -> bool {
        self.requested.facts.deleted || self.decided.facts.is_dead()
    }

    /// Whether this side's half has to be on: both accepted and live (S3). Nothing else decides that,
    /// above all no silence of anybody (I-36).
    //= SPEC IRC-8
    pub fn wants_half(&self) -> bool {
        self.decided.facts.decision == Some(Decision::Accepted) && !self.is_dead()
    }

    /// Whether nothing is decided yet.
    pub fn is_undecided(&self) -> bool {
        self.decided.facts.decision.is_none()
    }

    /// What the side's owner sees, with the own half on or off.
    //= SPEC IRC-4
    //= SPEC API-2
    pub fn label(&self, half: bool) -> Label {
        if let Some(label) = self.terminal {
            return label;
        }
        let Decided { decision, deadline, .. } = self.decided.facts;
        match decision {
            Some(Decision::Failed(_)) => return Label::Failed,
            Some(Decision::Rejected) => return Label::Rejected,
            Some(Decision::Expired) => return Label::Expired,
            Some(Decision::Cancelled) => return Label::Deleted,
            Some(Decision::Accepted) | None => {}
        }
        if self.is_dead() {
            return if self.confirmed && !half { Label::Deleted } else { Label::Deleting };
        }
        match (decision, self.side) {
            (Some(_), _) if half => Label::Active,
            (Some(_), _) => Label::Provisioning,
            (None, Side::Requester) if deadline.is_none() => Label::InitiatingRequest,
            (None, _) => Label::PendingAcceptance,
        }
    }

    /// The two networks, in either direction the same.
    pub fn pair(&self, id: OpId) -> [(Region, u32); 2] {
        let Requested { network, target, .. } = self.requested.facts;
        let mut pair = [(id.requester, network.0), (target.region, target.network.0)];
        pair.sort_unstable();
        pair
    }

    /// How long the owner may see a label, in minutes of the side's clock; none if it does not end.
    /// Display only: it never justifies that anything is forgotten.
    //= SPEC IRC-7
    pub fn visible_for(&self, label: Label) -> Option<u64> {
        const HOUR: u64 = 60;
        const DAY: u64 = 24 * HOUR;
        let facts = (&self.requested.facts, &self.decided.facts);
        match (label, self.side) {
            (Label::Failed, _) => Some(2 * HOUR),
            (Label::Expired, _) | (Label::Rejected, Side::Requester) => Some(2 * DAY),
            (Label::Rejected, Side::Accepter) => Some(2 * HOUR),
            (Label::Deleted, side) => {
                let by_own = match side {
                    Side::Requester => facts.0.deleted,
                    Side::Accepter => facts.1.deleted,
                };
                let one_account = facts.0.account == facts.0.target.account;
                Some(if by_own || one_account { 2 * HOUR } else { 2 * DAY })
            }
            _ => None,
        }
    }

    /// Whether the owner sees it at all in this state, that old.
    pub fn is_visible(&self, label: Label, now: u64) -> bool {
        // Before A has stored it there is nothing at A; and a failed request is R's alone.
        let is_shown = !(self.side == Side::Accepter && label == Label::Failed);
        let age = self.dead_since.map_or(0, |since| now.saturating_sub(since));
        is_shown && self.visible_for(label).is_none_or(|window| age < window)
    }

    /// The addresses of the requester's network.
    pub fn block(&self) -> Block {
        self.requested.facts.block
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Account, Failure, Network, Options, Target};
    use super::*;

    /// Every state and every call: what is not named here is illegal.
    //= SPEC IRC-5 test
    #[test]
    fn every_call_in_every_state() {
        use Label::{
            Active, Deleted, Deleting, Expired, Failed, InitiatingRequest, PendingAcceptance,
            Provisioning, Rejected,
        };
        let illegal = |label, verb| Err(CallError::InvalidTransition { from: label, verb });
        for label in Label::ALL {
            for side in [Side::Requester, Side::Accepter] {
                let at_a = side == Side::Accepter;
                let expected = |verb| match verb {
                    Verb::Accept | Verb::Reject if !at_a => Err(CallError::WrongSide),
                    Verb::Accept if label == PendingAcceptance => {
                        Ok(Effect::Decide(Decision::Accepted))
                    }
                    Verb::Reject if label == PendingAcceptance => {
                        Ok(Effect::Decide(Decision::Rejected))
                    }
                    Verb::Accept | Verb::Reject => illegal(label, verb),
                    Verb::Delete => match label {
                        PendingAcceptance if at_a => illegal(label, verb),
                        InitiatingRequest | PendingAcceptance | Provisioning | Active => {
                            Ok(Effect::RaiseFlag)
                        }
                        Deleting | Deleted | Failed | Expired | Rejected => Ok(Effect::Nothing),
                    },
                    Verb::Modify => match label {
                        PendingAcceptance | Provisioning | Active => Ok(Effect::WriteOptions),
                        _ => illegal(label, verb),
                    },
                };
                for verb in [Verb::Accept, Verb::Reject, Verb::Delete, Verb::Modify] {
                    assert_eq!(transition(side, label, verb), expected(verb), "{side:?} {label}");
                }
            }
        }
    }

    fn peering(side: Side) -> Peering {
        let target = Target { region: Region(1), account: Account(2), network: Network(20) };
        let facts = Requested {
            account: Account(1),
            network: Network(10),
            block: Block { address: 0x0a00_0000, prefix: 16 },
            target,
            token: 1,
            deleted: false,
            options: Options::default(),
        };
        Peering::new(side, Sealed { facts, seal: 0 })
    }

    /// All facts that there can be, and what each side makes of them.
    //= SPEC IRC-4 test
    #[test]
    fn the_view_is_a_function_of_the_facts() {
        let decisions = [
            None,
            Some(Decision::Accepted),
            Some(Decision::Rejected),
            Some(Decision::Expired),
            Some(Decision::Cancelled),
            Some(Decision::Failed(Failure::Impossible)),
        ];
        let flags = [false, true];
        for side in [Side::Requester, Side::Accepter] {
            for decision in decisions {
                for bits in 0..32_usize {
                    let [stored, by_r, by_a, confirmed, half] =
                        [1, 2, 4, 8, 16].map(|bit| flags[usize::from(bits & bit != 0)]);
                    let mut peering = peering(side);
                    peering.requested.facts.deleted = by_r;
                    peering.decided.facts = Decided {
                        deadline: stored.then_some(9),
                        decision,
                        deleted: by_a,
                        options: Options::default(),
                    };
                    peering.confirmed = confirmed;
                    let expected = match (decision, by_r || by_a) {
                        (Some(Decision::Failed(_)), _) => "failed",
                        (Some(Decision::Rejected), _) => "rejected",
                        (Some(Decision::Expired), _) => "expired",
                        (Some(Decision::Cancelled), _) => "deleted",
                        (_, true) if confirmed && !half => "deleted",
                        (_, true) => "deleting",
                        (Some(Decision::Accepted), false) if half => "active",
                        (Some(Decision::Accepted), false) => "provisioning",
                        (None, false) if side == Side::Requester && !stored => "initiating-request",
                        (None, false) => "pending-acceptance",
                    };
                    assert_eq!(peering.label(half).to_string(), expected);
                    // More facts never make less of it.
                    let before = peering.label(half).rank();
                    peering.requested.facts.deleted = true;
                    assert!(peering.label(half).rank() >= before);
                }
            }
        }
    }

    #[test]
    fn a_terminal_label_stays() {
        let mut peering = peering(Side::Requester);
        peering.terminal = Some(Label::Deleted);
        peering.decided.facts.decision = Some(Decision::Rejected);
        assert_eq!(peering.label(false), Label::Deleted);
    }

    //= SPEC IRC-7 test
    #[test]
    fn what_is_shown_ends_by_the_own_clock() {
        let mut peering = peering(Side::Accepter);
        peering.decided.facts.decision = Some(Decision::Rejected);
        peering.dead_since = Some(100);
        assert!(peering.is_visible(Label::Rejected, 219));
        assert!(!peering.is_visible(Label::Rejected, 220));
        peering.side = Side::Requester;
        assert!(peering.is_visible(Label::Rejected, 220));
        assert!(!peering.is_visible(Label::Rejected, 100 + 2880));
        assert!(
            !Peering { side: Side::Accepter, ..peering.clone() }.is_visible(Label::Failed, 100)
        );
        peering.requested.facts.deleted = true;
        assert_eq!(peering.visible_for(Label::Deleted), Some(120));
        peering.side = Side::Accepter;
        assert_eq!(peering.visible_for(Label::Deleted), Some(2880));
        assert_eq!(peering.visible_for(Label::Active), None);
    }
}
