//! Every rule that keeps operations between regions safe, as data.
//!
//! Each constant is one rule, with the number that `docs/SPEC.md` gives it. Nodes run with
//! [`Safeguards::ALL`]. For most there is a registered model of actors that leave them out, and that
//! model must fail; for the others `docs/SPEC.md` names the test.

use bitflags::bitflags;

bitflags! {
    /// A set of rules.
    #[derive(
        Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
    )]
    pub struct Safeguards: u64 {
        /// Only the accepter's region lets a request expire.
        ///
        /// Without it R's own timer says expired while A accepts; two writers of one fact, as in
        /// <https://www.postmortems.app/postmortem/4da4ac8a-fb93-426e-9ae7-eb088f115959>.
        const I_1_ONLY_A_EXPIRES = 1 << 1;
        /// Facts are joined, never overwritten.
        ///
        /// Without it a late answer takes back what is known:
        /// <https://github.com/hashicorp/terraform-provider-aws/pull/4140>.
        const I_2_FACTS_JOIN = 1 << 2;
        /// A record is kept until the other region has acknowledged it.
        ///
        /// Without it one lost datagram leaves the other side active alone:
        /// <https://github.com/karmada-io/karmada/issues/708>.
        const I_3_KEPT_UNTIL_ACKNOWLEDGED = 1 << 3;
        /// A dead peering is forgotten only after the other side has confirmed it dead.
        ///
        /// Without it one side is stuck until it is removed by hand:
        /// <https://github.com/hashicorp/terraform-provider-azurerm/issues/14051>.
        const I_4_FORGET_AFTER_CONFIRMATION = 1 << 4;
        /// The id of what was forgotten stays in the watermark.
        ///
        /// Without it a delayed request rises again as a new one:
        /// <https://github.com/submariner-io/submariner/issues/84>.
        const I_5_WATERMARK = 1 << 5;
        /// A restored region is frozen towards each peer until it knows what the peer knows.
        ///
        /// Without it it decides again what it has decided and forgotten:
        /// <https://about.gitlab.com/blog/postmortem-of-database-outage-of-january-31>.
        const I_6_FREEZE_AFTER_RESTORE = 1 << 6;
        /// The peer *promises* to ignore the old life, before it answers.
        ///
        /// Without it what the old life sent arrives after the thaw:
        /// <https://github.com/etcd-io/etcd/issues/16028>.
        const I_7_PROMISE = 1 << 7;
        /// A restored region learns back which promises it has given itself.
        ///
        /// Without it, if both were restored, the peer's old life is believed:
        /// <https://github.com/kubernetes/kubernetes/issues/118501>.
        const I_8_FLOOR_LEARNED_BACK = 1 << 8;
        /// No incarnation's number serves two lives.
        ///
        /// Without it a region that is restored twice from one backup meets its own first life.
        const I_9_INCARNATION_UNIQUE = 1 << 9;
        /// A promise of an older life of the peer is void: it has forgotten it.
        ///
        /// Without it what was promised before the peer was restored ends the freeze.
        const I_10_OLD_PROMISE_VOID = 1 << 10;
        /// A promise is given even while frozen.
        ///
        /// Without it two restored regions wait for each other for ever.
        const I_11_PROMISE_WHILE_FROZEN = 1 << 11;
        /// At the thaw, first merge, then decide: what was deleted while frozen does not stay pending.
        const I_12_MERGE_THEN_DECIDE = 1 << 12;
        /// Of two crossing requests for one pair the lower id wins, on both sides.
        ///
        /// Without it both are active:
        /// <https://github.com/hashicorp/terraform-provider-google/issues/3026>.
        const I_13_TIE_BREAK = 1 << 13;
        /// A dead peering does not block its pair.
        ///
        /// Without it nobody can peer again: <https://github.com/hashicorp/consul/pull/16776>.
        const I_14_DEAD_DOES_NOT_BLOCK = 1 << 14;
        /// A report counts only under the claim's own epoch.
        ///
        /// Without it a late failure reopens or closes work that another server does:
        /// <https://github.com/riverqueue/river/issues/1302>.
        const I_15_CLAIM_EPOCH_CHECKED = 1 << 15;
        /// A claim's epoch grows for ever, over restarts too.
        ///
        /// Without it two live claims have one epoch:
        /// <https://github.com/hardbyte/awa>, ADR-013.
        const I_16_EPOCH_NEVER_RESET = 1 << 16;
        /// A record takes effect only if it is newer than what the remote has seen of its sender.
        ///
        /// Without it a paused server lays an old plan over a new one:
        /// <https://failure-modes.dev/library/fm-020>.
        const I_17_FRESH_AT_EFFECT = 1 << 17;
        /// What a reply says obeys the incarnation rule too.
        const I_18_REPLY_OF_CURRENT_LIFE = 1 << 18;
        /// A claim is a lease: it ends.
        ///
        /// Without it a killed server keeps its work for ever:
        /// <https://github.com/riverqueue/river/issues/1258>.
        const I_19_LEASES_EXPIRE = 1 << 19;
        /// A server has a claim extended just before it calls, and stops when it is not its own any more.
        ///
        /// Without it every slow call, and every call of a server that stood still, is done twice:
        /// <https://gitlab.com/gitlab-org/ops/artifact-registry/-/merge_requests/2169>.
        const I_20_EXTEND_BEFORE_CALL = 1 << 20;
        /// The work record is in the transaction of the fact that it carries.
        ///
        /// Without it a crash between the two leaves a request that nobody ever sends:
        /// <https://event-driven.io/en/ordering_in_postgres_outbox/>.
        const I_21_ONE_TRANSACTION = 1 << 21;
        /// A poll reads the set of unfinished records, and no place in their order.
        ///
        /// Without it a record that is written late, or has to be tried again, is skipped for ever:
        /// <https://blog.sequinstream.com/postgres-sequences-can-commit-out-of-order>.
        const I_22_NO_CURSOR = 1 << 22;
        /// A region compares what it knows with each peer at a constant rate, whatever has changed.
        ///
        /// Without it a difference that no record tells stays for ever:
        /// <https://github.com/hashicorp/terraform-provider-azurerm/issues/30694>.
        const I_23_CONSTANT_SWEEP = 1 << 23;
        /// A wait before another try is never shorter than its floor, nor than what the remote has said.
        ///
        /// Without it jitter lets retries follow each other at once:
        /// <https://github.com/aws/aws-sdk-net/issues/4341>.
        const I_24_WAIT_HAS_A_FLOOR = 1 << 24;
        /// Retries towards a remote have a budget, and its breaker opens when too many calls fail.
        ///
        /// Without it what one outage has piled up is sent again and again, and the load stays high when
        /// the outage is over: <https://www.usenix.org/conference/osdi22/presentation/huang-lexiang>.
        const I_25_BUDGET_AND_BREAKER = 1 << 25;
        /// Claims that were handed out together do not end together.
        ///
        /// Without it all the work of servers that died comes back in one moment:
        /// <https://joshuabellew.com/posts/aws-us-east-1-outage-explained>.
        const I_26_SPREAD = 1 << 26;
        /// Each remote has a limit of claims of its own.
        ///
        /// Without it one region that is down takes every place that a server has:
        /// <https://blog.cloudflare.com/post-mortem-on-cloudflare-control-plane-and-analytics-outage/>.
        const I_27_BULKHEAD = 1 << 27;
        /// What can never be delivered is set aside: what its remote refuses, and what every server dies of.
        ///
        /// Without it one bad record takes down each server that touches it, again and again:
        /// <https://status.cloud.google.com/incidents/ow5i3PPK96RduMcb1SsW>.
        const I_28_DEAD_LETTER = 1 << 28;
        /// A record of a kind that a server does not know is left to servers that do.
        ///
        /// Without it an older server gives up what a newer one would have carried:
        /// <https://github.com/riverqueue/river/issues/1105>.
        const I_29_UNKNOWN_KINDS_LEFT = 1 << 29;
        /// A region asserts its own facts only.
        ///
        /// Without it a region that lies says that the other has accepted.
        const I_30_AUTHORITY = 1 << 30;
        /// A deletion switches the own half off in its own step.
        ///
        /// Without it it waits for a peer that may never answer:
        /// <https://github.com/karmada-io/karmada/issues/3740>.
        const I_33_OWN_HALF_FIRST = 1 << 33;
        /// The undecided requests at a network, and from an account, are limited where they arrive.
        ///
        /// Without it a flood of requests fills the region of whoever is asked:
        /// <https://docs.amazonaws.cn/en_us/vpc/latest/peering/accept-vpc-peering-connection.html>.
        const I_31_QUOTAS = 1 << 31;
        /// What a region says that was declared gone has no effect.
        ///
        /// Without it its half goes on when it comes back:
        /// <https://github.com/liqotech/liqo/pull/3122>.
        const I_32_DISPOSAL_FENCES = 1 << 32;
        /// A deletion of what is dead succeeds and changes nothing.
        ///
        /// Without it whoever cleans up never ends:
        /// <https://github.com/hashicorp/terraform/issues/7465>.
        const I_34_DELETE_IDEMPOTENT = 1 << 34;
        /// An id that may still arrive is not told to be unknown.
        ///
        /// Without it whoever accepts right after the request gives up for good:
        /// <https://github.com/hashicorp/terraform-provider-aws/issues/30423>.
        const I_35_NOT_YET_VISIBLE = 1 << 35;
        /// A half depends on the facts alone.
        ///
        /// Without it the silence of a peer that was restored withdraws traffic:
        /// <https://status.cloud.google.com/incident/cloud-networking/19009>.
        const I_36_HALVES_BY_FACTS = 1 << 36;
        /// Options change only from the version that the caller has seen.
        ///
        /// Without it one of two operators' changes is lost:
        /// <https://github.com/hashicorp/terraform-provider-azurerm/issues/2605>.
        const I_39_EXPECTED_VERSION = 1 << 39;
        /// The deadline is checked in the transaction that decides.
        const I_38_DEADLINE_IN_TRANSACTION = 1 << 38;
        /// A call under a token that is known has no second effect.
        ///
        /// Without it whoever has lost an answer and asks again gets a second peering.
        const I_41_TOKEN_KEPT = 1 << 41;
        /// Every change that an owner can see writes its audit entry, whoever has caused it.
        ///
        /// Without it what other regions and the clock change leaves no trace.
        const I_42_EVERY_CHANGE_AUDITED = 1 << 42;
        /// A seal goes with the facts that it is under.
        ///
        /// Without it a region that was restored, and went another way, is told its own facts under a
        /// seal that it has never made, and cannot take back what it had decided.
        const I_43_SEAL_WITH_ITS_FACTS = 1 << 43;
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

    /// The rule's id, for example `I-7`.
    ///
    /// # Panics
    ///
    /// If the set is not exactly one rule.
    pub fn id(self) -> String {
        let mut names = self.iter_names();
        let (Some((name, _)), None) = (names.next(), names.next()) else {
            panic!("only a single rule has an id")
        };
        format!("I-{}", name.split('_').nth(1).expect("names are I_<number>_<WORDS>"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_an_id_of_its_own() {
        let mut ids: Vec<String> = Safeguards::ALL.iter().map(Safeguards::id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), Safeguards::ALL.iter().count());
        assert_eq!(Safeguards::I_7_PROMISE.id(), "I-7");
    }
}
