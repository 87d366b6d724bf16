//! Every rule that keeps the lease safe, as data.
//!
//! Each constant below is one rule. Nodes can only be built with [`Safeguards::ALL`]; the models
//! build one actor for each rule without it, and each of those must fail: that is how we know that
//! the rule is needed and that the checker would see its absence. The rules that live in the runtime
//! rather than in an actor (see `docs/SPEC.md`) have plain tests instead and no flag here.

use bitflags::bitflags;

bitflags! {
    /// A set of rules. Names and numbers are those of `docs/SPEC.md`.
    #[derive(
        Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
    )]
    pub struct Safeguards: u64 {
        /// The deadline counts from the *send* of the renewal, never from its answer.
        ///
        /// Without it a renewal that commits at once and is answered late gives the holder more time
        /// than the watchers leave it: <https://github.com/kubernetes/kubernetes/issues/44887>.
        const L_1_DEADLINE_FROM_SEND = 1 << 1;
        /// The time S of the stop hook is part of the timing inequality.
        ///
        /// Without it the holder gives up in time, but its work runs on beside the next holder:
        /// <https://github.com/cilium/cilium/pull/42920>.
        const L_2_HOOK_TIME_COUNTS = 1 << 2;
        /// A lease is never judged by another host's wall clock.
        ///
        /// Without it a watcher whose clock is ahead takes a live lease:
        /// <https://github.com/lukas-krecan/ShedLock/issues/231>.
        const L_6_NO_WALL_CLOCK = 1 << 6;
        /// The watch timer starts again at each observed change.
        ///
        /// Without it a watcher that has once seen the record takes over a lease that is being
        /// renewed: <https://github.com/awslabs/amazon-dynamodb-lock-client/pull/94>.
        const L_9_WATCH_RESTARTS = 1 << 9;
        /// The watch starts at the receipt of a reply, not at the send of the read.
        ///
        /// Without it a renewal that commits while the read is under way is counted from before
        /// its commit.
        const L_10_WATCH_FROM_RECEIPT = 1 << 10;
        /// The holder steps down at its deadline even while a renewal is in flight.
        ///
        /// Without it a hanging request keeps a dead lease alive:
        /// <https://github.com/kubernetes/kubernetes/issues/70819>.
        const L_11_DEADLINE_IS_FINAL = 1 << 11;
        /// Each hold timer belongs to one attempt; that of a pending renewal counts only once the
        /// renewal is the grant.
        ///
        /// Without it a renewal that never commits extends the lease by its mere sending.
        const L_13_TIMER_PER_ATTEMPT = 1 << 13;
        /// A renewal is conditional on the version.
        ///
        /// Without it a late renewal overwrites the next holder's record.
        const L_15_RENEW_CONDITIONAL = 1 << 15;
        /// A release is conditional on the version.
        ///
        /// Without it a late release frees a lease that somebody else holds:
        /// <https://github.com/awslabs/amazon-dynamodb-lock-client/pull/115>.
        const L_16_RELEASE_CONDITIONAL = 1 << 16;
        /// A takeover is conditional on the version that was watched.
        ///
        /// Without it a holder that renews in the last moment is overwritten.
        const L_17_TAKEOVER_CONDITIONAL = 1 << 17;
        /// Every attempt has a nonce of its own, and an answer counts only for its own attempt.
        ///
        /// Without it the late answer to an attempt that was given up counts for its successor,
        /// whose deadline is later.
        const L_18_NONCE_PER_ATTEMPT = 1 << 18;
        /// After a lost answer the own write is known by what it says: who and which incarnation.
        ///
        /// Without it a holder whose answer was lost conflicts with itself and gives up a lease that
        /// it holds: <https://github.com/cirello-io/dynamolock/issues/280>.
        const L_19_OWN_WRITE_IS_KNOWN = 1 << 19;
        /// A conflict that shows another holder or epoch ends the term at once.
        const L_20A_CONFLICT_ENDS_TERM = 1 << 20;
        /// A conflict in which only other fields have changed does not end the term.
        const L_20B_FOREIGN_FIELD_KEEPS_TERM = 1 << 42;
        /// An unknown outcome or an error of the store never extends the deadline.
        const L_21_UNKNOWN_NEVER_EXTENDS = 1 << 21;
        /// The store refuses late duplicates by their version.
        const L_22_STORE_CHECKS_VERSION = 1 << 22;
        /// A watcher takes over only the version that it has watched for all of L.
        ///
        /// Without it a watcher reads at the end of its watch and takes what it then sees.
        const L_23_TAKE_WHAT_WAS_WATCHED = 1 << 23;
        /// Taking over from a holder raises the epoch.
        ///
        /// Without it the resource cannot tell the old holder's late write from the new one's:
        /// <https://github.com/awslabs/amazon-dynamodb-lock-client/issues/62>.
        const L_25_TAKEOVER_RAISES_EPOCH = 1 << 25;
        /// A release raises the epoch, for its successor.
        const L_26_RELEASE_RAISES_EPOCH = 1 << 26;
        /// A record is never deleted: a release leaves a tombstone that carries the epoch.
        const L_27_TOMBSTONE = 1 << 27;
        /// The resource refuses an effect below the highest epoch that it has seen.
        ///
        /// Without it a write that was permitted before a pause lands after the next holder's:
        /// <https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html>.
        const L_28_RESOURCE_FENCES = 1 << 28;
        /// An identity is a name *and* an incarnation.
        const L_29_IDENTITY_HAS_INCARNATION = 1 << 29;
        /// No lease is resumed after a restart without a new epoch:
        /// <https://github.com/cockroachdb/cockroach/issues/7996>.
        const L_30_NO_RESUME = 1 << 30;
        /// Work has stopped before the lease is released:
        /// <https://github.com/kubernetes-sigs/controller-runtime/pull/1132>.
        const L_31_STOP_BEFORE_RELEASE = 1 << 31;
        /// Local leadership ends before the release is sent:
        /// <https://github.com/vmware/pinniped/pull/800>.
        const L_32_LOCAL_END_BEFORE_RELEASE = 1 << 32;
        /// A release forgets every outstanding attempt, so that none can revive the lease:
        /// <https://github.com/awslabs/amazon-dynamodb-lock-client/pull/116>.
        const L_33_RELEASE_FORGETS_ATTEMPTS = 1 << 33;
        /// An elector contends again after a loss.
        const L_38_RECONTEND = 1 << 38;
        /// Only a member of the record's in-sync set takes over, and a replica has left the set by a
        /// committed write before the primary acknowledges without it.
        const L_41_IN_SYNC_SET = 1 << 41;
        /// What is not answered is sent again under the name that it has, until it is G old.
        ///
        /// An answer counts for the request that it names. Were each sending a request of its own, a store
        /// that needs longer than the retry would only ever answer requests that have been replaced:
        /// nobody is ever elected, and whoever leads cannot renew.
        const L_42_RETRY_KEEPS_NAME = 1 << 43;
        /// The store takes a write from a host of the lease only, and of the host itself.
        ///
        /// Without it any node that can reach the store, of another lease perhaps, can free a lease that is held.
        const L_43_HOSTS_WRITE = 1 << 44;
    }
}

impl Safeguards {
    /// What every node runs with.
    pub const ALL: Self = Self::all();

    /// Everything but one rule: how a mutant is made.
    #[must_use]
    pub fn except(rule: Self) -> Self {
        Self::ALL.difference(rule)
    }

    /// The rule's id as `docs/SPEC.md` writes it, for example `L-20a`.
    ///
    /// # Panics
    ///
    /// If the set is not exactly one rule.
    pub fn id(self) -> String {
        let mut names = self.iter_names();
        let (Some((name, _)), None) = (names.next(), names.next()) else {
            panic!("only a single rule has an id")
        };
        let number = name.split('_').nth(1).expect("names are L_<number>_<WORDS>");
        format!("L-{}", number.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_an_id_of_its_own() {
        let ids: Vec<String> = Safeguards::ALL.iter().map(Safeguards::id).collect();
        let mut distinct = ids.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(ids.len(), distinct.len(), "{ids:?}");
        assert!(ids.contains(&"L-20a".to_owned()));
    }
}
