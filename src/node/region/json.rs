//! What the control socket of a region says, as JSON: names for numbers.

use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::irc::audit::{Cause, Entry};
use crate::irc::facts::{Block, Decided, Decision, OpId, Options, Region, Requested, Version};
use crate::irc::ledger::Link;
use crate::irc::msg::{Answer, CallError, Command, RecordId, Shown, Wait};

/// An id as people write it: `east-1-0` is the first operation that east began in its first life.
pub fn id_text(config: &Config, id: OpId) -> String {
    format!("{}-{}-{}", config.region_name(id.requester), id.n, id.seq)
}

/// Reads an id. The name of its region may have hyphens.
///
/// # Errors
///
/// Says how an id is written.
pub fn parse_id(config: &Config, text: &str) -> Result<OpId, String> {
    let read = || {
        let mut parts = text.rsplitn(3, '-');
        let (seq, n, region) = (parts.next()?, parts.next()?, parts.next()?);
        let requester = config.region(region)?.index;
        Some(OpId { requester, n: n.parse().ok()?, seq: seq.parse().ok()? })
    };
    read().ok_or_else(|| {
        format!("{text:?} is no id of a peering: write REGION-N-N, as `peering create` has told it")
    })
}

/// A record's id as people write it.
pub fn record_text(id: RecordId) -> String {
    format!("{}-{}", id.n, id.seq)
}

/// Reads a record's id.
///
/// # Errors
///
/// Says how it is written.
pub fn parse_record(text: &str) -> Result<RecordId, String> {
    let read = || {
        let (n, seq) = text.split_once('-')?;
        Some(RecordId { n: n.parse().ok()?, seq: seq.parse().ok()? })
    };
    read().ok_or_else(|| format!("{text:?} is no record: write N-N, as `dlq list` tells it"))
}

/// Reads the version of an option.
///
/// # Errors
///
/// Says how it is written.
pub fn parse_version(text: &str) -> Result<Version, String> {
    let read = || {
        let (n, counter) = text.split_once('-')?;
        Some(Version { n: n.parse().ok()?, counter: counter.parse().ok()? })
    };
    read().ok_or_else(|| format!("{text:?} is no version: write N-N, as `peering get` tells it"))
}

/// The word for a value that is written as one: `PairBusy` is `pair-busy`.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    let name = match &value {
        Value::String(name) => name.as_str(),
        Value::Object(object) => object.keys().next().map_or("", String::as_str),
        _ => "",
    };
    let mut word = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && index > 0 {
            word.push('-');
        }
        word.push(if letter == '_' { '-' } else { letter.to_ascii_lowercase() });
    }
    word
}

/// A refusal: its code, whether it may go away by itself, and what to do.
pub(super) fn refusal(config: &Config, error: &CallError) -> Map<String, Value> {
    let code = word(error);
    let may_pass = matches!(
        error,
        CallError::PairBusy(_)
            | CallError::NotYetVisible
            | CallError::Frozen(_)
            | CallError::Unavailable
    );
    let mut refusal = object(json!({
        "ok": false, "code": code, "error": error.to_string(), "retry": may_pass,
    }));
    match error {
        CallError::PairBusy(id) => drop(refusal.insert("id".into(), id_text(config, *id).into())),
        CallError::VersionConflict(version) => {
            refusal.insert("version".into(), version_text(*version).into());
        }
        CallError::Frozen(region) | CallError::Disposed(region) => {
            refusal.insert("region".into(), config.region_name(*region).into());
        }
        _ => {}
    }
    refusal
}

/// What a customer is told.
pub(super) fn answer(config: &Config, answer: &Answer) -> Map<String, Value> {
    object(match answer {
        Answer::Done { id, state } => json!({ "id": id_text(config, *id), "state": state }),
        Answer::Version { id, version } => {
            json!({ "id": id_text(config, *id), "version": version_text(*version) })
        }
        Answer::One(one) => json!({ "peering": shown(config, one) }),
        Answer::Many { peerings, more } => {
            let peerings: Vec<_> = peerings.iter().map(|one| shown(config, one)).collect();
            json!({ "peerings": peerings, "more": more })
        }
        Answer::Explained { shown: one, peer_state, heard, sync, waits_for } => {
            let waits: Vec<_> = waits_for.iter().map(|wait| self::wait(config, wait)).collect();
            json!({
                "peering": shown(config, one), "peer_state": peer_state, "peer_heard_minutes_ago": heard, "sync": sync,
                "waits_for": waits,
            })
        }
    })
}

fn wait(config: &Config, wait: &Wait) -> Value {
    match wait {
        Wait::Record(record, verb) => {
            json!({ "for": "delivery", "record": record_text(*record), "verb": word(verb) })
        }
        Wait::Parked(record) => json!({ "for": "an-operator", "record": record_text(*record) }),
        Wait::Frozen(region) => {
            json!({ "for": "the-end-of-a-freeze", "region": config.region_name(*region) })
        }
        Wait::Decision => json!({ "for": "a-decision" }),
        Wait::Half => json!({ "for": "the-own-half" }),
        Wait::More(count) => json!({ "for": "more-deliveries", "count": count }),
        Wait::Silence(region) => {
            json!({ "for": "an-answer", "region": config.region_name(*region) })
        }
    }
}

fn shown(config: &Config, shown: &Shown) -> Value {
    json!({
        "id": id_text(config, shown.id),
        "side": shown.side,
        "state": shown.state,
        "requester": requested(config, shown.id, &shown.requested),
        "accepter": decided(config, &shown.requested, &shown.decided),
        "frozen": shown.frozen,
        "stuck": shown.stuck,
    })
}

fn requested(config: &Config, id: OpId, facts: &Requested) -> Value {
    json!({
        "region": config.region_name(id.requester),
        "account": facts.account.0,
        "network": facts.network.0,
        "cidr": cidr(facts.block),
        "deleted": facts.deleted,
        "options": options(facts.options),
    })
}

fn decided(config: &Config, requested: &Requested, facts: &Decided) -> Value {
    json!({
        "region": config.region_name(requested.target.region),
        "account": requested.target.account.0,
        "network": requested.target.network.0,
        "deadline": facts.deadline,
        "decision": facts.decision.map(decision),
        "deleted": facts.deleted,
        "options": options(facts.options),
    })
}

pub(super) fn decision(decision: Decision) -> String {
    word(&decision)
}

fn options(options: Options) -> Value {
    json!({ "resolve_names": options.resolve_names, "version": version_text(options.version) })
}

fn version_text(version: Version) -> String {
    format!("{}-{}", version.n, version.counter)
}

fn cidr(block: Block) -> String {
    format!("{}/{}", std::net::Ipv4Addr::from(block.address), block.prefix)
}

/// An entry of the audit log, as the control socket tells it.
pub fn audited(config: &Config, number: u64, entry: &Entry) -> Value {
    let by = match &entry.cause {
        Cause::Call { caller, token } => {
            json!({ "by": "call", "account": caller.0, "call": format!("{token:016x}") })
        }
        Cause::Region { from, incarnation } => {
            json!({ "by": "region", "region": config.region_name(*from), "incarnation": incarnation.n })
        }
        Cause::Operator(command) => operator(config, command),
        other => json!({ "by": word(other) }),
    };
    let hash: String = entry.link().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "number": number,
        "at_ticks": entry.at,
        "incarnation": entry.incarnation.n,
        "id": entry.id.map(|id| id_text(config, id)),
        "from": entry.from,
        "to": entry.to,
        "cause": by,
        "hash": hash,
    })
}

/// A command as the cause of something.
fn operator(config: &Config, command: &Command) -> Value {
    let mut by = json!({ "by": "operator", "command": word(command) });
    match command {
        Command::Dispose(region) | Command::Readmit(region) => {
            by["region"] = config.region_name(*region).into();
        }
        Command::Redrive(record) | Command::Discard(record) => {
            by["record"] = record_text(*record).into();
        }
        Command::Drain(drained) => by["drained"] = (*drained).into(),
        Command::Freeze(_) | Command::Thaw => {}
    }
    by
}

/// How a region stands to another, in a word.
pub(super) fn link(link: &Link) -> &'static str {
    match link {
        Link::Open => "open",
        Link::Preparing { .. } => "preparing",
        Link::Syncing { .. } => "syncing",
        Link::Expelled => "expelled",
    }
}

pub(super) fn region(config: &Config, name: &str) -> Result<Region, String> {
    config.region(name).map(|region| region.index).ok_or_else(|| {
        let known: Vec<_> = config.regions.iter().map(|region| region.name.as_str()).collect();
        format!("{name:?} is no region of this cluster: the regions are {}", known.join(", "))
    })
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let file = include_str!("../../../examples/regions.toml");
        let config = Config::parse(&file.replace("\"west\"", "\"far-west\"")).unwrap();
        let id = OpId { requester: Region(1), n: 3, seq: 40 };
        assert_eq!(id_text(&config, id), "far-west-3-40");
        assert_eq!(parse_id(&config, "far-west-3-40"), Ok(id));
        for text in ["", "west-1-1", "far-west-1", "far-west-1-x", "far-west-1-1-1"] {
            assert!(parse_id(&config, text).is_err(), "{text}");
        }
        assert_eq!(parse_record("2-7"), Ok(RecordId { n: 2, seq: 7 }));
        assert_eq!(parse_version("2-7"), Ok(Version { n: 2, counter: 7 }));
        assert!(parse_record("2").is_err() && parse_version("x-1").is_err());
    }

    #[test]
    fn words_have_hyphens() {
        assert_eq!(word(&CallError::NotYetVisible), "not-yet-visible");
        assert_eq!(
            word(&CallError::PairBusy(OpId { requester: Region(0), n: 1, seq: 1 })),
            "pair-busy"
        );
        let failed = Decision::Failed(crate::irc::facts::Failure::Impossible);
        assert_eq!(decision(failed), "failed");
    }
}
