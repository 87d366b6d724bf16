//! What customers of real processes have called and were told, for whoever looks for an order of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use tenure::irc::facts::{
    Account, Block, Decided, Decision, Failure, Network, OpId, Options, Region, Requested, Target,
    Version,
};
use tenure::irc::msg::{Answer, CallError, Request, Shown, Token};
use tenure::irc::peering::Verb;
use tenure::sim::history::{Explained, History};

/// All of it, of all customers.
#[derive(Default)]
pub struct Taken {
    history: Mutex<History>,
    customers: AtomicU16,
    /// The peerings that were begun, and the regions of their ends.
    pub begun: Mutex<Vec<(String, [usize; 2])>>,
}

impl Taken {
    /// The number of another customer.
    pub fn customer(&self) -> u16 {
        self.customers.fetch_add(1, Ordering::Relaxed)
    }

    /// That customer calls.
    pub fn ask(&self, customer: u16, region: usize, question: &Value) -> Option<usize> {
        let request = request(question)?;
        let (region, caller) = (Region(region.try_into().ok()?), account(&question["account"])?);
        let token = Token(question["token"].as_u64().unwrap_or(0));
        let mut history = self.history.lock().unwrap();
        Some(history.ask((customer, 1), region, caller, token, request))
    }

    /// The call is answered. Some of its copies may be under way if it was made more than once.
    pub fn tell(&self, call: Option<usize>, question: &Value, told: &Value, copies: usize) {
        let Some(call) = call else { return };
        let result = answer(question, told).unwrap_or_else(|| panic!("{question}: {told}"));
        let mut history = self.history.lock().unwrap();
        history.tell(call, result);
        for _ in 0..copies {
            history.arrive(call);
        }
    }

    pub fn judge(&self) -> Result<Explained, String> {
        self.history.lock().unwrap().judge()
    }
}

fn region(value: &Value) -> Option<Region> {
    value.as_str()?.strip_prefix('r')?.parse().ok().map(Region)
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

fn account(value: &Value) -> Option<Account> {
    number(value).map(Account)
}

fn id(value: &Value) -> Option<OpId> {
    let mut parts = value.as_str()?.rsplitn(3, '-');
    let (seq, n) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let requester = Region(parts.next()?.strip_prefix('r')?.parse().ok()?);
    Some(OpId { requester, n, seq })
}

fn version(value: &Value) -> Option<Version> {
    let (n, counter) = value.as_str()?.split_once('-')?;
    Some(Version { n: n.parse().ok()?, counter: counter.parse().ok()? })
}

fn request(question: &Value) -> Option<Request> {
    let change = |verb| Some(Request::Change { id: id(&question["id"])?, verb });
    let resolve_names = question["resolve_names"] == true;
    match question["op"].as_str()? {
        "create" => {
            let target = Target {
                region: region(&question["region"])?,
                account: account(&question["peer_account"])?,
                network: Network(number(&question["peer_network"])?),
            };
            let network = Network(number(&question["network"])?);
            Some(Request::Create { network, target, resolve_names })
        }
        "accept" => change(Verb::Accept),
        "reject" => change(Verb::Reject),
        "delete" => change(Verb::Delete),
        "modify" => {
            let (id, expected) = (id(&question["id"])?, version(&question["version"])?);
            Some(Request::Modify { id, expected, resolve_names })
        }
        "get" => Some(Request::Get { id: id(&question["id"])? }),
        _ => None,
    }
}

fn answer(question: &Value, told: &Value) -> Option<Result<Answer, CallError>> {
    if told["ok"] != true {
        return Some(Err(match told["code"].as_str()? {
            "not-yet-visible" => CallError::NotYetVisible,
            "not-found" => CallError::NotFound,
            "token-mismatch" => CallError::TokenMismatch,
            "version-conflict" => CallError::VersionConflict(version(&told["version"])?),
            "wrong-side" => CallError::WrongSide,
            "not-owner" => CallError::NotOwner,
            "stuck" => CallError::Stuck,
            "unavailable" => CallError::Unavailable,
            // A refusal of which no more is known than that it is one.
            _ => CallError::QuotaExceeded,
        }));
    }
    Some(Ok(match question["op"].as_str()? {
        "get" => Answer::One(shown(&told["peering"])?),
        "modify" => Answer::Version { id: id(&told["id"])?, version: version(&told["version"])? },
        _ => {
            let state = serde_json::from_value(told["state"].clone()).ok()?;
            Answer::Done { id: id(&told["id"])?, state }
        }
    }))
}

fn options(value: &Value) -> Option<Options> {
    let resolve_names = value["resolve_names"].as_bool()?;
    Some(Options { version: version(&value["version"])?, resolve_names })
}

fn shown(value: &Value) -> Option<Shown> {
    let (requester, accepter) = (&value["requester"], &value["accepter"]);
    let (address, prefix) = requester["cidr"].as_str()?.split_once('/')?;
    let address: std::net::Ipv4Addr = address.parse().ok()?;
    let requested = Requested {
        account: account(&requester["account"])?,
        network: Network(number(&requester["network"])?),
        block: Block { address: address.into(), prefix: prefix.parse().ok()? },
        target: Target {
            region: region(&accepter["region"])?,
            account: account(&accepter["account"])?,
            network: Network(number(&accepter["network"])?),
        },
        // The hash of a token is not shown.
        token: 0,
        deleted: requester["deleted"].as_bool()?,
        options: options(&requester["options"])?,
    };
    let decision = match accepter["decision"].as_str() {
        None => None,
        Some("accepted") => Some(Decision::Accepted),
        Some("rejected") => Some(Decision::Rejected),
        Some("expired") => Some(Decision::Expired),
        Some("cancelled") => Some(Decision::Cancelled),
        Some("failed") => Some(Decision::Failed(Failure::Impossible)),
        Some(other) => panic!("no decision: {other}"),
    };
    let decided = Decided {
        deadline: accepter["deadline"].as_u64(),
        decision,
        deleted: accepter["deleted"].as_bool()?,
        options: options(&accepter["options"])?,
    };
    Some(Shown {
        id: id(&value["id"])?,
        side: serde_json::from_value(value["side"].clone()).ok()?,
        state: serde_json::from_value(value["state"].clone()).ok()?,
        requested,
        decided,
        frozen: value["frozen"].as_bool()?,
        stuck: value["stuck"].as_bool()?,
    })
}
