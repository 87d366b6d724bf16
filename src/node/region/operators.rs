//! What operators do to a region: the commands of the runbook.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::INDEX;
use super::control::{Control, Inner};
use super::json::{id_text, object, parse_record};
use crate::irc::facts::Account;
use crate::irc::ledger::Link;
use crate::irc::msg::{Command, Msg, RecordId, Request as Call, Token};
use crate::irc::{ControlView, Party};
use crate::node::lines::Answer;
use crate::node::restore::{self, Contents};

/// How many changes the answer to a dry run tells.
const CHANGES_MAX: usize = 1000;
/// An account that owns nothing: for the question that follows an operator's command.
const NOBODY: Account = Account(u32::MAX);

impl Control {
    /// Gives a command, and waits until it is durable.
    pub(super) async fn operate(&self, command: Command, dry_run: bool) -> Answer {
        if let Party::Server(_) = self.inner.party {
            return self.operate_server(command, dry_run);
        }
        let before = self.view().await?;
        if dry_run {
            let (after, _) = self.dry(Msg::Operate(command)).await?;
            let after = ControlView { ledger: after, ..before.clone() };
            let mut answer = self.changes(&before, &after);
            answer.insert("dry_run".to_owned(), true.into());
            return Ok(answer);
        }
        let Inner { handle, .. } = &*self.inner;
        handle.tell(INDEX, Msg::Operate(command)).map_err(|error| error.to_string())?;
        // Whatever follows is answered only when the command is durable.
        let list = Call::List { after: None };
        let after = |n| Msg::Ask { n, caller: NOBODY, token: Token(0), request: list };
        if self.ask(after).await?.is_none() {
            return Err("not carried out in time: look at the status, and try again".to_owned());
        }
        let after = self.view().await?;
        Ok(self.changes(&before, &after))
    }

    fn operate_server(&self, command: Command, dry_run: bool) -> Answer {
        let Command::Drain(drained) = command else { return Err(self.not_a_control_plane()) };
        if !dry_run {
            let told = self.inner.handle.tell(INDEX, Msg::Operate(command));
            told.map_err(|error| error.to_string())?;
        }
        Ok(object(json!({ "drained": drained, "dry_run": dry_run })))
    }

    /// What is different.
    fn changes(&self, before: &ControlView, after: &ControlView) -> Map<String, Value> {
        let config = &self.inner.config;
        let mut peerings = Vec::new();
        after.ledger.peerings.difference(&before.ledger.peerings, |id, _| {
            let (from, to) = (before.label(id), after.label(id));
            if from != to && peerings.len() < CHANGES_MAX {
                peerings.push(json!({ "id": id_text(config, id), "from": from, "to": to }));
            }
        });
        let mut halves = Vec::new();
        after.ledger.on.difference(&before.ledger.on, |id, on| {
            if halves.len() < CHANGES_MAX {
                halves.push(json!({ "id": id_text(config, id), "on": on.is_some() }));
            }
        });
        let (mut written, mut dropped) = (0_u64, 0_u64);
        after.ledger.records.difference(&before.ledger.records, |id, record| {
            match (record, before.ledger.records.get(id)) {
                (Some(_), None) => written += 1,
                (None, _) => dropped += 1,
                _ => {}
            }
        });
        let peers = after.ledger.peers.iter().map(|(&region, _)| self.peer(after, region));
        object(json!({
            "incarnation": after.ledger.head.incarnation.n,
            "drained": after.ledger.head.drained,
            "held": after.ledger.head.held,
            "peerings": peerings,
            "halves": halves,
            "records": { "written": written, "dropped": dropped },
            "peers": peers.collect::<Vec<_>>(),
        }))
    }

    /// Lets a freeze end that an operator began. No other one: it ends when the peers have answered,
    /// and what they know nobody else can say.
    //= SPEC REGION-10
    pub(super) async fn thaw(&self, dry_run: bool) -> Answer {
        let config = &self.inner.config;
        let ledger = self.view().await?.ledger;
        if !ledger.head.held {
            let is_frozen =
                |link: &Link| matches!(link, Link::Preparing { .. } | Link::Syncing { .. });
            let frozen: Vec<_> = ledger
                .peers
                .iter()
                .filter(|(_, peer)| is_frozen(&peer.link) && !peer.disposed)
                .map(|(&region, _)| config.region_name(region))
                .collect();
            return Err(match &frozen[..] {
                [] => "the region is not frozen: there is nothing to thaw".to_owned(),
                frozen => format!(
                    "no operator has begun this freeze, and none can end it: it ends towards {} when that \
                     region has said what it knows; `region dispose` one that is gone for good",
                    frozen.join(", ")
                ),
            });
        }
        self.operate(Command::Thaw, dry_run).await
    }

    pub(super) async fn readmit(&self, peer: &str, dry_run: bool) -> Answer {
        let peer = self.other(peer)?;
        let view = self.view().await?;
        if !view.ledger.peers.get(&peer).is_some_and(|peer| peer.disposed) {
            return Err("that region was not disposed of: there is nothing to do".into());
        }
        self.operate(Command::Readmit(peer), dry_run).await
    }

    pub(super) async fn parked(&self, text: &str) -> Result<RecordId, String> {
        let id = parse_record(text)?;
        match self.view().await?.ledger.records.get(&id) {
            Some(record) if record.parked => Ok(id),
            Some(_) => Err(format!("record {text} is not set aside: it is delivered by itself")),
            None => Err(format!("there is no record {text}: look at `dlq list`")),
        }
    }

    /// Writes a copy of all that is durable into a new file.
    pub(super) async fn backup(&self, path: PathBuf) -> Answer {
        if !path.is_absolute() {
            return Err("a backup needs an absolute path: it is this node that writes it".into());
        }
        let ledger = self.view().await?.ledger;
        let owner = restore::Owner::of(&self.inner.config, &self.inner.region);
        let told = restore::about(&ledger);
        let target = path.clone();
        let (reader, storage) =
            (self.inner.handle.reader().cloned(), self.inner.node.storage.clone());
        // Memory has only the last entries of the audit log; the disk has all of them.
        let write = move || {
            let (audit, boots) = match &reader {
                Some(reader) => (restore::audit_in(reader, &storage)?, reader.boots()),
                None => (Vec::new(), 0),
            };
            restore::write(&owner, &target, Contents { ledger, audit, boots })
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let mut answer = object(told);
        answer.insert("path".to_owned(), path.display().to_string().into());
        Ok(answer)
    }
}
