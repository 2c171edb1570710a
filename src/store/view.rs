//! A place to read from: everything a serving core needs to answer without asking the writer.
//!
//! The node publishes one after each batch; it never changes and is cheap to clone. What it holds
//! is true together: the keys, the revision, the applied index and the cluster's facts.

use std::{sync::Arc, time::Duration};

use super::{
    Cluster, Leases, Outcome, Unavailable,
    command::{Order, Range, Target},
    outcome::Refusal,
    range::{self, RangeOutcome, interval},
    sums,
};
use crate::{
    limits::KEYS_LOOKED_FOR_MAX,
    tree::{self, KeyRange},
    types::{Index, MemberId, Revision, Stamp, Term},
};

/// What raft said when the view was published; the node fills it in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RaftSeen {
    /// This member's term.
    pub term: Term,
    /// Who leads; 0 for nobody.
    pub leader: MemberId,
    /// Highest index known committed.
    pub committed: Index,
    /// When this member last came to lead; `None` where it never did. By the clock that it shares with
    /// those who read this.
    pub elected: Option<Duration>,
    /// Since when it is in touch with those without whom nothing is committed: with the leader, or,
    /// where it leads, with a majority. `None` where it is not.
    pub in_touch: Option<Duration>,
}

impl RaftSeen {
    /// Why a proposal of that moment has no answer although its time is over, as far as this member
    /// can know (etcd `server.go`, `parseProposeCtxErr`): an election follows the loss of a leader
    /// within two `election` timeouts, so one that came that soon may have cost the proposal; a
    /// connection that is younger than the proposal may have lost it. Where nobody leads there is
    /// nothing to say.
    pub fn why_late(&self, proposed: Duration, election: Duration) -> Unavailable {
        let lost_with_its_leader = |elected: Duration| {
            proposed < elected && elected < proposed.saturating_add(2 * election)
        };
        if self.elected.is_some_and(lost_with_its_leader) {
            Unavailable::TimeoutLeaderFailed
        } else if self.leader.0 != 0 && self.in_touch.is_none_or(|since| since > proposed) {
            Unavailable::TimeoutConnectionLost
        } else {
            Unavailable::Timeout
        }
    }
}

/// See the head of this file.
#[derive(Clone)]
pub struct View {
    /// The keys.
    pub tree: tree::View,
    /// The newest revision in it.
    pub revision: Revision,
    /// The last entry applied.
    pub applied: Index,
    /// What raft said.
    pub raft: RaftSeen,
    /// Bytes of all files of the engine: etcd's `dbSize`.
    pub disk_bytes: u64,
    /// Bytes of them that are still of use: etcd's `dbSizeInUse`.
    pub live_bytes: u64,
    /// Members, alarms, versions.
    pub cluster: Arc<Cluster>,
    pub(super) sums: Arc<sums::Newest>,
}

impl View {
    /// Answers a range from this view.
    ///
    /// # Errors
    /// As [`range::range`].
    pub fn range(&self, query: &Range) -> Result<RangeOutcome<'_>, Refusal> {
        range::range(self.tree.reader(), self.revision, query)
    }

    /// Whether a range can be answered without waiting for the disk, as far as a short look can tell.
    pub fn is_at_hand(&self, query: &Range) -> bool {
        if !tree::is_memory_short() {
            return true;
        }
        let point = query.end.is_empty();
        let (limit, newest) = (if point { 1 } else { query.limit }, query.revision.0 <= 0);
        let reader = self.tree.reader();
        let looks = newest
            && query.order == Order::None
            && query.target == Target::Key
            && [query.min_mod, query.max_mod, query.min_create, query.max_create] == [0; 4]
            && (1..=KEYS_LOOKED_FOR_MAX).contains(&limit);
        if !looks {
            return false;
        }
        let values = !query.keys_only && !query.count_only;
        if point {
            return reader.is_key_at_hand(&query.key, values);
        }
        let interval = interval(&query.key, &query.end);
        // What is in front of the interval's end is counted.
        let end = KeyRange { from: interval.to.unwrap_or_default(), ..interval };
        reader.is_at_hand(&interval, limit as usize, values)
            && (interval.to.is_none() || reader.is_at_hand(&end, 1, false))
    }

    /// The leases, and the keys that hold on to them.
    pub fn leases(&self) -> Leases<'_> {
        Leases::new(self.tree.reader())
    }

    /// Every change of revision `from` and later, in order.
    pub fn changes(&self, from: Revision) -> tree::Changes<'_> {
        self.tree.reader().changes(Stamp { main: from, sub: 0 })
    }

    /// The compacted revision; -1 when never compacted.
    pub fn compacted(&self) -> Revision {
        self.tree.reader().compacted()
    }

    /// Changes of revisions above this one are all there, compacted ones too.
    pub fn complete_above(&self) -> Revision {
        self.tree.reader().complete_above()
    }

    /// The `KeyValue` of `key` just before revision `at`; `None` where there was none, or where it
    /// was compacted away.
    pub fn before(&self, key: &[u8], at: Revision) -> Option<&[u8]> {
        let (reader, before) = (self.tree.reader(), Revision(at.0 - 1));
        if before < reader.compacted() {
            return None;
        }
        reader.get(key, before).map(|found| found.kv())
    }

    /// Whether `member` is one that only learns.
    pub fn is_learner(&self, member: MemberId) -> bool {
        self.cluster.members.get(&member).is_some_and(|member| member.learner)
    }

    /// Live keys.
    pub fn keys(&self) -> u64 {
        self.tree.reader().count(&tree::KeyRange::ALL, self.revision)
    }

    /// Answers a transaction that only reads.
    pub fn read_txn(&self, txn: &super::command::Txn) -> Outcome {
        match super::txn::read(self.leases(), self.revision, txn) {
            Ok(done) => Outcome::Txn(done),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_runs_out_of_time_is_told_what_may_have_been_the_reason() {
        let second = Duration::from_secs;
        let seen = |leader, elected, in_touch| RaftSeen {
            leader: MemberId(leader),
            elected,
            in_touch,
            ..RaftSeen::default()
        };
        use Unavailable::{Timeout, TimeoutConnectionLost, TimeoutLeaderFailed};
        // Proposed at 10, with elections of 1 s.
        for (seen, why) in [
            (seen(1, None, Some(second(10))), Timeout),
            (seen(1, None, Some(second(11))), TimeoutConnectionLost),
            (seen(1, None, None), TimeoutConnectionLost),
            (seen(0, None, None), Timeout),
            (seen(1, Some(Duration::from_millis(11_999)), None), TimeoutLeaderFailed),
            (seen(0, Some(second(11)), None), TimeoutLeaderFailed),
            (seen(1, Some(second(12)), Some(second(9))), Timeout),
            (seen(1, Some(second(10)), Some(second(9))), Timeout),
        ] {
            assert_eq!(seen.why_late(second(10), second(1)), why, "{seen:?}");
        }
    }
}
