//! A place to read from: everything a serving core needs to answer without asking the writer.
//!
//! The node publishes one after each batch; it never changes and is cheap to clone. What it holds
//! is true together: the keys, the revision, the applied index and the cluster's facts.

use std::sync::Arc;

use super::{
    Cluster, Leases, Outcome, command::Range, outcome::Refusal, range, range::RangeOutcome, sums,
};
use crate::{
    tree,
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
}

/// See the head of this file.
#[derive(Clone)]
pub struct View {
    /// The keys.
    pub tree: tree::View,
    pub(super) attached: tree::MapView,
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

    /// The leases, and the keys that hold on to them.
    pub fn leases(&self) -> Leases<'_> {
        Leases::new(self.tree.reader(), self.attached.reader())
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
