//! What etcd means: commands in, outcomes out, and views to read from.
//!
//! [`Store::apply`] is the only place that makes revisions. It is a function of the store and the
//! entry alone: no disk, no clock, no chance, and no error that could differ between members. An
//! entry it cannot read is a [`BadEntry`], and the member stops there rather than guess.
//!
//! ```text
//! entry ─ commands ─ put · delete · txn ─ Writing ─→ Tree      (write.rs, txn.rs)
//!                    grant · revoke                            (lease.rs)
//!                    compact · alarm · cluster facts           (here, cluster.rs)
//! entry ─ change of members ─ Cluster                           (members.rs)
//! View ─ range · stream · read-only txn · checksum              (range.rs, stream.rs, txn.rs, hash.rs)
//! compact ─ checksums of the newest ─→ View                     (sums.rs)
//! ```

use std::sync::Arc;

use bytes::Bytes;

pub mod command;
mod convert;
mod foresee;

mod cluster;
mod hash;
mod lease;
mod members;
mod outcome;
mod quota;
pub mod range;
mod stream;
mod sums;
mod txn;
mod view;
mod write;

pub use cluster::{ALARM_CORRUPT, ALARM_NOSPACE, Alarm, BlobError, Cluster, Member};
pub use command::{BadEntry, Command};
pub use convert::{
    encode_cluster_version, encode_lease_checkpoint, encode_lease_grant, encode_lease_revoke,
};
pub use hash::{Hash, Hashing, HashingAll};
pub use lease::Leases;
pub use members::{Changed, RaftChange};
pub use outcome::{Deleted, OpDone, Outcome, PutDone, RangeDone, Refusal, TxnDone, Unavailable};
pub use quota::{GRANT_COST, Quota, put_cost};
pub use stream::{Last, Part, Stream};
pub use view::{RaftSeen, View};

/// What [`View::changes`] tells of.
pub use crate::tree::Change;
pub use crate::tree::Lease;
pub use crate::tree::is_memory_short;

use crate::{
    tree::{self, RootFacts, Tree},
    types::{ClusterId, Index, MemberId, Revision, Term, Ticket},
};
use command::{AlarmAction, AlarmOrder, Body, Compact, DeleteRange, MemberAttributes, Put, Txn};
use sums::Sums;
use write::Writing;

/// The state machine, owned by the node: the tree, and the small facts beside it.
pub struct Store {
    tree: Tree,
    revision: Revision,
    applied: Index,
    term: Term,
    /// Everything up to here came as a whole, not through [`Store::apply`].
    installed: Index,
    cluster: Arc<Cluster>,
    quota: Quota,
    sums: Sums,
    /// As of the last view: files grow at checkpoints, not with each write.
    disk_bytes: u64,
}

impl Store {
    /// A fresh store at revision 1, as etcd begins.
    pub fn new(tree: Tree, quota: Quota) -> Self {
        let disk_bytes = tree.disk_bytes();
        let (revision, applied, term) = (Revision(1), Index(0), Term(0));
        let installed = Index(0);
        let (cluster, sums) = (Arc::default(), Sums::default());
        Self { tree, revision, applied, term, installed, cluster, quota, sums, disk_bytes }
    }

    /// The store as a superblock describes it, with the tree opened from there.
    ///
    /// # Errors
    /// A state blob that [`Store::facts`] did not write.
    pub fn recover(tree: Tree, quota: Quota, facts: &RootFacts) -> Result<Self, BlobError> {
        let cluster = Arc::new(Cluster::decode(&facts.state)?);
        let fresh = Self::new(tree, quota);
        let RootFacts { revision, applied, applied_term: term, installed, .. } = *facts;
        Ok(Self { revision, applied, term, installed, cluster, ..fresh })
    }

    /// Becomes what a snapshot from another member holds. The sums of compactions stay, being the
    /// same on every member (etcd `kvstore.go`, `Restore`).
    ///
    /// # Errors
    /// As [`Store::recover`]; then nothing has changed.
    pub fn replace(&mut self, tree: Tree, facts: &RootFacts) -> Result<(), BlobError> {
        let recovered = Self::recover(tree, self.quota, facts)?;
        *self = Self { sums: std::mem::take(&mut self.sums), ..recovered };
        Ok(())
    }

    /// What a superblock says of this store now (decision 13).
    pub fn facts(&self, cluster: ClusterId, member: MemberId) -> RootFacts {
        RootFacts {
            cluster,
            member,
            applied: self.applied,
            applied_term: self.term,
            installed: self.installed,
            revision: self.revision,
            state: self.cluster.encode(),
        }
    }

    /// Applies the entry at `index`, the one after [`Store::applied`], and hands each outcome with
    /// its ticket to `reply`. An empty entry is raft's own and changes nothing.
    ///
    /// # Errors
    /// An entry that cannot be read; requests before the fault are applied. The member must stop.
    ///
    /// # Panics
    /// If `index` is not the next one or `term` goes back.
    pub fn apply(
        &mut self,
        index: Index,
        term: Term,
        data: Bytes,
        mut reply: impl FnMut(Ticket, Outcome),
    ) -> Result<(), BadEntry> {
        self.advance(index, term);
        for command in command::commands(data) {
            let Command { ticket, body } = command?;
            reply(ticket, self.execute(&body));
        }
        Ok(())
    }

    /// Applies the entry at `index` as [`Store::apply`] does, but looks back at the end of revision
    /// `last`, where the entry goes on behind it: returns the keys and leases as they were just then.
    /// The store is of no use after that.
    ///
    /// # Errors
    /// As [`Store::apply`].
    ///
    /// # Panics
    /// As [`Store::apply`].
    pub fn apply_until(
        &mut self,
        last: Revision,
        index: Index,
        term: Term,
        data: Bytes,
    ) -> Result<Option<tree::View>, BadEntry> {
        self.advance(index, term);
        for command in command::commands(data) {
            let before = self.tree.publish();
            self.execute(&command?.body);
            if self.revision > last {
                return Ok(Some(before));
            }
        }
        Ok(None)
    }

    /// Takes note of an entry.
    ///
    /// # Panics
    /// As [`Store::apply`].
    pub fn advance(&mut self, index: Index, term: Term) {
        assert_eq!(index.0, self.applied.0 + 1, "entries are applied in order, each once");
        assert!(term >= self.term, "terms never go back along the log");
        (self.applied, self.term) = (index, term);
    }

    fn execute(&mut self, body: &Body) -> Outcome {
        if let Some(refusal) = self.alarmed(body) {
            return Outcome::Refused(refusal);
        }
        match body {
            Body::Put(put) => self.put(put),
            Body::DeleteRange(delete) => self.delete_range(delete),
            Body::Txn(txn) => self.txn(txn),
            Body::Compact(compact) => self.compact(*compact),
            Body::Alarm(order) => self.alarm(*order),
            Body::MemberAttributes(attributes) => self.member_attributes(attributes),
            Body::ClusterVersion(version) => {
                Arc::make_mut(&mut self.cluster).version = Some(version.clone());
                Outcome::Done
            }
            Body::LeaseGrant { id, ttl } => self.grant(*id, *ttl),
            Body::LeaseRevoke { id, expired } => self.revoke(*id, *expired),
            Body::LeaseCheckpoint(seen) => self.note_remaining(seen),
            Body::ReadOnly => Outcome::Done,
        }
    }

    /// What the alarms forbid: CORRUPT all keys, NOSPACE what takes room (etcd `apply`).
    fn alarmed(&self, body: &Body) -> Option<Refusal> {
        let (touches_keys, takes_room) = match body {
            Body::Put(_) | Body::LeaseGrant { .. } => (true, true),
            Body::Txn(txn) => (true, !self.cluster.alarms.is_empty() && txn.cost() > 0),
            Body::DeleteRange(_) | Body::Compact(_) | Body::LeaseRevoke { .. } => (true, false),
            Body::Alarm(_)
            | Body::LeaseCheckpoint(_)
            | Body::MemberAttributes(_)
            | Body::ClusterVersion(_)
            | Body::ReadOnly => (false, false),
        };
        if touches_keys && self.cluster.alarmed(ALARM_CORRUPT) {
            return Some(Refusal::Corrupt);
        }
        (takes_room && self.cluster.alarmed(ALARM_NOSPACE)).then_some(Refusal::NoSpace)
    }

    fn put(&mut self, put: &Put) -> Outcome {
        if let Err(refusal) = txn::check_put(self.leases(), put) {
            return Outcome::Refused(refusal);
        }
        let fits = self.fits(put.cost());
        let mut writing = Writing::new(&mut self.tree, self.revision);
        let done = writing.put(put);
        self.revision = writing.revision();
        if fits { Outcome::Put(done) } else { Outcome::Refused(Refusal::NoSpace) }
    }

    fn delete_range(&mut self, delete: &DeleteRange) -> Outcome {
        let mut writing = Writing::new(&mut self.tree, self.revision);
        let done = writing.delete_range(delete);
        self.revision = writing.revision();
        Outcome::Deleted(done)
    }

    fn txn(&mut self, txn: &Txn) -> Outcome {
        let fits = self.fits(txn.cost());
        let mut writing = Writing::new(&mut self.tree, self.revision);
        let outcome = txn::apply(&mut writing, txn);
        self.revision = writing.revision();
        match outcome {
            Outcome::Txn(_) if !fits => Outcome::Refused(Refusal::NoSpace),
            outcome => outcome,
        }
    }

    /// Whether there was room. Members may differ here: it colours the reply, never the state.
    fn fits(&self, cost: u64) -> bool {
        self.quota.fits(self.disk_bytes, cost)
    }

    /// `revision` 0 is legal once, on a store that never was compacted: it is then at -1.
    fn compact(&mut self, compact: Compact) -> Outcome {
        if compact.revision <= self.tree.reader().compacted() {
            return Outcome::Refused(Refusal::Compacted);
        }
        if compact.revision > self.revision {
            return Outcome::Refused(Refusal::FutureRevision);
        }
        self.sums.note(compact.revision, self.tree.publish());
        self.tree.compact(compact.revision);
        Outcome::Compacted { revision: self.revision, physical: compact.physical }
    }

    fn alarm(&mut self, order: AlarmOrder) -> Outcome {
        let alarm = Alarm { kind: order.kind, member: order.member };
        let alarms = match order.action {
            AlarmAction::Get => {
                let asked = |a: &&Alarm| order.kind == 0 || a.kind == order.kind;
                self.cluster.alarms.iter().filter(asked).copied().collect()
            }
            AlarmAction::Activate if order.kind != 0 => {
                Arc::make_mut(&mut self.cluster).alarms.insert(alarm);
                vec![alarm]
            }
            AlarmAction::Deactivate if self.cluster.alarms.contains(&alarm) => {
                Arc::make_mut(&mut self.cluster).alarms.remove(&alarm);
                vec![alarm]
            }
            AlarmAction::Activate | AlarmAction::Deactivate | AlarmAction::Unknown => Vec::new(),
        };
        Outcome::Alarms { revision: self.revision, alarms }
    }

    /// A member that is not there has been removed meanwhile: nothing to note.
    fn member_attributes(&mut self, attributes: &MemberAttributes) -> Outcome {
        if self.cluster.members.contains_key(&attributes.member) {
            let members = &mut Arc::make_mut(&mut self.cluster).members;
            let member = members.get_mut(&attributes.member).expect("looked up just before");
            member.name.clone_from(&attributes.name);
            member.client_urls.clone_from(&attributes.client_urls);
        }
        Outcome::Done
    }

    /// Sets a member of a cluster that begins, before the first entry; later ones come through
    /// [`Store::change_members`]. Name and client URLs that are known already stay.
    pub fn set_member(&mut self, mut member: Member) {
        let members = &mut Arc::make_mut(&mut self.cluster).members;
        if let Some(known) = members.remove(&member.id) {
            (member.name, member.client_urls) = (known.name, known.client_urls);
        }
        members.insert(member.id, member);
    }

    /// An immutable view of everything applied so far.
    pub fn publish(&mut self, raft: RaftSeen) -> View {
        self.disk_bytes = self.tree.disk_bytes();
        View {
            tree: self.tree.publish(),
            revision: self.revision,
            applied: self.applied,
            raft,
            disk_bytes: self.disk_bytes,
            live_bytes: self.tree.live_bytes()
                + self.tree.live_index_bytes()
                + self.tree.lease_bytes(),
            cluster: Arc::clone(&self.cluster),
            sums: self.sums.publish(),
        }
    }

    /// Does a bounded piece of the checksums that compactions ask for. True when a view would show
    /// that.
    pub fn sum_up(&mut self) -> bool {
        self.sums.step()
    }

    /// Whether [`Store::sum_up`] has something to do.
    pub fn has_sums_due(&self) -> bool {
        self.sums.has_more()
    }

    /// The last entry applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Members, alarms, versions.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The engine, for checkpoints and sweeps. Only the store writes keys.
    pub fn tree_mut(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// The engine.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }
}
