//! The coordinator's part of a trace.

use super::{Backup, Traced, digest_of};
use crate::irc::msg::{Command, Msg};
use crate::irc::{Party, PartyState, Storage, Timer};

impl Traced for Party {
    const PROTOCOL: &'static str = "irc";

    fn digest(state: &PartyState) -> u64 {
        match state {
            PartyState::Control(control) => digest_of(&(0, control.digest())),
            PartyState::Server(server) => digest_of(&(1, server)),
            PartyState::Customer(customer) => digest_of(&(2, customer)),
        }
    }

    fn storage_digest(Storage::Control(ledger): &Storage) -> u64 {
        ledger.digest()
    }

    fn kind(msg: &Msg) -> &'static str {
        match msg {
            Msg::Ask { .. } => "Ask",
            Msg::Told { .. } => "Told",
            Msg::Poll { .. } => "Poll",
            Msg::Claimed(_) => "Claimed",
            Msg::Extend { .. } => "Extend",
            Msg::Extended { .. } => "Extended",
            Msg::Report { .. } => "Report",
            Msg::Reported { .. } => "Reported",
            Msg::Call(_) => "Call",
            Msg::Reply(_) => "Reply",
            Msg::Switched(_) => "Switched",
            Msg::Operate(_) => "Operate",
            Msg::Submit { .. } => "Submit",
        }
    }

    fn timer_kind(timer: &Timer) -> String {
        let kind = match timer {
            Timer::Tick => "Tick",
            Timer::Lease(_) => "Lease",
            Timer::Retry(_) => "Retry",
            Timer::Sweep(_) => "Sweep",
            Timer::Poll => "Poll",
            Timer::Call(_) => "Call",
            Timer::Ask => "Ask",
            Timer::Probe(_) => "Probe",
        };
        kind.to_owned()
    }

    fn may_be_told(&self, msg: &Msg) -> bool {
        match self {
            Self::Control(_) => matches!(msg, Msg::Ask { .. } | Msg::Operate(_)),
            Self::Server(_) => matches!(msg, Msg::Operate(Command::Drain(_))),
            Self::Customer(_) => matches!(msg, Msg::Submit { .. }),
        }
    }

    /// A control plane draws the tag of its next life at each start.
    fn has_same_part(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Control(one), Self::Control(other)) => {
                let life = one.life;
                *one == crate::irc::control::ControlPlane { life, ..other.clone() }
            }
            _ => self == other,
        }
    }

    fn as_backup(Storage::Control(ledger): &Storage) -> Option<Backup> {
        Some(Backup { content: ledger.backup_digest(), kept: ledger.on.digest() })
    }

    //= SPEC TRACE-9
    fn put_back(Storage::Control(found): &Storage) -> Result<Backup, &'static str> {
        Ok(Backup { content: found.digest_of_its_backup()?, kept: found.on.digest() })
    }
}
