//! What is remembered of an actor's saves, so that a storage which was put back to a backup can be told from one
//! that was changed otherwise.

use std::collections::VecDeque;

use super::Traced;
use super::read::Fault;

/// So many saves are remembered, each by 8 bytes.
const SAVES: usize = 1 << 20;

/// What was saved, by its digests.
pub(super) struct Backups {
    /// What each save would give as a backup, the oldest first.
    contents: VecDeque<u64>,
    /// What no backup holds, as each save since the newest durable one has left it: number, digest.
    kept: VecDeque<(u64, u64)>,
    /// Nothing was ever saved that is not among these.
    is_whole: bool,
}

impl Backups {
    pub(super) fn new() -> Self {
        Self { contents: VecDeque::new(), kept: VecDeque::new(), is_whole: true }
    }

    /// The actor starts from this. `is_first`: nothing is known from before.
    pub(super) fn start<A: Traced>(&mut self, found: Option<&A::Storage>, is_first: bool) {
        self.is_whole &= !is_first || found.is_none();
        self.kept.clear();
        if let Some(storage) = found {
            self.save::<A>(storage, 0);
        }
    }

    /// The actor saves this, under this number.
    pub(super) fn save<A: Traced>(&mut self, storage: &A::Storage, number: u64) {
        let Some(backup) = A::as_backup(storage) else { return };
        if self.contents.back() != Some(&backup.content) {
            self.contents.push_back(backup.content);
        }
        if self.contents.len() > SAVES {
            self.contents.pop_front();
            self.is_whole = false;
        }
        self.kept.push_back((number, backup.kept));
    }

    /// Everything up to the save of this number is durable, so no older one is found any more.
    pub(super) fn durable(&mut self, number: u64) {
        while self.kept.get(1).is_some_and(|&(next, _)| next <= number) {
            self.kept.pop_front();
        }
    }

    /// The actor starts from a storage that its life before has not left: right only if it was put back to what some
    /// earlier save has left, and what no backup holds was left as it was, or is gone.
    //= SPEC TRACE-9
    pub(super) fn check<A: Traced>(
        &self,
        line: u64,
        found: Option<&A::Storage>,
    ) -> Result<(), Fault> {
        let changed = |why: &str| {
            let what = "it starts from storage that no step of its life before has left: the end of that \
                        life is missing, or the storage was changed from outside";
            Fault::impossible(line, format!("{what} ({why})"))
        };
        let found = found.ok_or_else(|| changed("there is none"))?;
        let backup = A::put_back(found).map_err(changed)?;
        if backup.kept != 0 && !self.kept.iter().any(|&(_, kept)| kept == backup.kept) {
            return Err(changed("what no backup holds is not what it was"));
        }
        if self.contents.contains(&backup.content) {
            return Ok(());
        }
        if self.is_whole {
            return Err(changed("it was put back to a backup of a storage that never was"));
        }
        Err(Fault::unreadable(
            line,
            "the storage was put back to a backup that is older than what is known of the node: check the run \
             from that life on, in files of its own",
        ))
    }
}
