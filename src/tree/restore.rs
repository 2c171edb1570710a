//! A tree as it was at a revision, written into a directory of its own: for a cluster that begins with
//! it.
//!
//! ```text
//!  changes up to the revision ── but those that compaction takes ──▶ a record and a cell each
//!                                      └── a checkpoint whenever much is in memory
//!  the leases that keys hold on to ──▶ the table ──▶ the last checkpoint: it says who owns all this
//! ```
//!
//! The records are numbered and linked anew, as if nothing else had ever been written: what is made
//! depends on what reads at the compacted revision and above can ask for, and on nothing else. So all
//! members that are made of one past have the same segments.
//!
//! Before the last checkpoint the superblock knows no cluster, and no member starts from it.

use super::{
    Change, KeyMeta, KeyRange, Lease, Options, Reader, RootFacts, Tree, checkpoint::format,
    kv::KeyValue, sweep::Sweep,
};
use crate::{
    io::Disk,
    limits::{INDEX_PAGES_PER_TURN, RESTORE_SEGMENTS_IN_MEMORY},
    types::{LeaseId, Revision, Stamp},
};
use bytes::Bytes;
use std::io;

/// What a tree was at a revision.
#[derive(Clone, Copy)]
pub struct Past<'a> {
    /// Looks at it, then or later, and compacted at that revision or below.
    pub reader: Reader<'a>,
    /// When.
    pub revision: Revision,
    /// Revisions that are left out behind it. Where it is not 0, all that was is compacted: who has
    /// seen other changes of those revisions asks for nothing that has an answer.
    pub skipped: i64,
}

impl<'a> Past<'a> {
    /// Makes it the tree of `disk`, which is empty; `facts` say whose it is. `lease_of` tells what is
    /// known of a lease, and `reached` is told how far it has come.
    ///
    /// # Errors
    /// What the disk says; what is there by then is of no use.
    ///
    /// # Panics
    /// If the past is compacted above its revision.
    pub async fn write<D: Disk>(
        &self,
        disk: &D,
        options: Options,
        facts: RootFacts,
        lease_of: impl Fn(LeaseId) -> Lease,
        reached: impl Fn(Revision),
    ) -> io::Result<Tree> {
        assert!(self.reader.compacted() <= self.revision, "what is compacted is not there");
        let compacted = self.compacted();
        let nobodys = RootFacts { revision: Revision(0), state: Bytes::new(), ..facts.clone() };
        let mut tree = format(disk, options, nobodys.clone()).await?;
        tree.compact(compacted);
        tree.sweep = Sweep::done(compacted, None);
        let room = options.segment_bytes as u64 * RESTORE_SEGMENTS_IN_MEMORY;
        let mut whole = compacted < Revision(0);
        for change in self.changes() {
            if !whole && change.stamp.main > compacted {
                whole = true;
                tree.leave_a_gap();
            }
            tree.adopt(&change);
            reached(change.stamp.main);
            if tree.unsealed_bytes() + tree.index_bytes() > room {
                tree.unload(disk, nobodys.clone()).await?;
            }
        }
        if !whole {
            tree.leave_a_gap();
        }
        tree.hold_leases(lease_of);
        tree.unload(disk, RootFacts { revision: self.newest(), ..facts }).await?;
        Ok(tree)
    }

    /// The newest revision of what is made of it.
    pub fn newest(&self) -> Revision {
        Revision(self.revision.0 + self.skipped)
    }

    /// The compacted revision of what is made of it.
    fn compacted(&self) -> Revision {
        if self.skipped > 0 { self.newest() } else { self.reader.compacted() }
    }

    /// All that happened up to the revision, in order, and that compaction leaves.
    fn changes(&self) -> impl Iterator<Item = Change<'a>> {
        let past = *self;
        let until = self.reader.changes(Stamp::default());
        let until = until.take_while(move |change| change.stamp.main <= past.revision);
        until.filter(move |change| past.keeps(change))
    }

    /// Whether compaction leaves a change: of each key the newest at or below the compacted revision,
    /// unless that is a tombstone below it.
    fn keeps(&self, change: &Change<'_>) -> bool {
        let compacted = self.compacted();
        if change.stamp.main > compacted {
            return true;
        }
        match self.reader.get(change.key, compacted.min(self.revision)) {
            Some(found) => found.meta.modified == change.stamp,
            None => change.tombstone && change.stamp.main == compacted,
        }
    }
}

impl Tree {
    /// Leaves a number out: changes before it are missing ([`Reader::complete_above`]).
    fn leave_a_gap(&mut self) {
        self.shelf.close_tail();
        self.shelf.tail.first.0 += 1;
    }

    /// Writes a change with the facts that it had.
    fn adopt(&mut self, change: &Change<'_>) {
        let kv = KeyValue::decode(change.kv).expect("checked when it was written or read in");
        let meta = KeyMeta {
            create: Revision(kv.create),
            modified: change.stamp,
            version: kv.version,
            lease: LeaseId(kv.lease),
            value_bytes: u32::try_from(kv.value.len()).expect("a record is below 4 GiB"),
        };
        let old = self.current(kv.key);
        self.append(change.stamp, &kv, (!change.tombstone).then_some(&meta));
        self.hold(kv.key, old, meta.lease);
    }

    /// Brings all that is in memory only to files.
    async fn unload<D: Disk>(&mut self, disk: &D, facts: RootFacts) -> io::Result<()> {
        let job = self.begin_checkpoint(facts).expect("none is running");
        let done = job.run(disk.clone()).await?;
        self.finish_checkpoint(done);
        while !self.tend_index(INDEX_PAGES_PER_TURN) {}
        // Pages that the view before holds are freed by the next.
        drop(self.publish());
        Ok(())
    }

    /// Fills the table with the leases that keys hold on to.
    fn hold_leases(&mut self, lease_of: impl Fn(LeaseId) -> Lease) {
        let view = self.publish();
        for found in view.reader().scan(&KeyRange::ALL, Revision(i64::MAX)) {
            let id = found.meta.lease;
            if id != LeaseId(0) && self.reader().lease(id).is_none() {
                self.set_lease(id, lease_of(id));
            }
        }
    }
}
