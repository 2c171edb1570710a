//! A checksum over the key space, by which members compare what they have.
//!
//! It is etcd's, byte for byte (`mvcc/hash.go`): CRC-32C over the word `key` and then, in order of
//! revision, over every change that a member which has compacted at `C` must have at revision `R`:
//!
//! ```text
//!   0 ........... C ............... R ........ now
//!   │ still live   │ all changes    │ none
//!   │ at R         │                │            change = revision key ‖ KeyValue
//! ```
//!
//! What compaction has not taken yet does not count, so members agree however far each has come.
//! Where nothing is live at `R`, etcd has no list of what to keep and takes all that is left below
//! `C`: what was live at `C`.
//!
//! A compaction at `R` makes the same sum of what there was just before it, but for one thing: it
//! keeps tombstones of `R` itself, so where there is one the list is not empty. The sums of the
//! newest compactions are remembered (see `sums`) and answer for their revisions.
//!
//! The keys are many, so it is done in steps, of one view from beginning to end.

use super::{Refusal, View};
use crate::{
    limits::{HASH_BYTES_PER_STEP, HASH_RECORDS_PER_STEP},
    tree::{self, Change, KeyRange, Lease},
    types::{LeaseId, Revision, Stamp},
};

/// The word that begins the checksum: the name of etcd's bucket.
const BUCKET: &[u8] = b"key";
/// A revision as a key of that bucket: main, `_`, sub, and a `t` for a tombstone.
const REVISION_KEY_LEN: usize = 18;

/// A checksum, and what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash {
    /// CRC-32C.
    pub sum: u32,
    /// The revision up to which it counts.
    pub revision: Revision,
    /// Where the store was compacted; -1 if nowhere.
    pub compacted: Revision,
}

/// A checksum on its way.
#[derive(Clone)]
pub struct Hashing {
    /// What is summed up.
    tree: tree::View,
    sum: u32,
    /// Where it ends; negative for no changes at all, as in etcd.
    revision: Revision,
    compacted: Revision,
    /// Versions on etcd's list of what to keep, as far as counted.
    kept: i64,
    phase: Phase,
    /// The next change to look at.
    from: Stamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Going through what came after the revision, to know how many keys are live there.
    Count,
    /// Going through the changes up to the revision.
    Sum,
    Done,
}

impl Hashing {
    /// Begins to sum up `view`, up to `revision`; 0 is its newest. What one of the newest
    /// compactions was at has the sum of then, as in etcd (`mvcc/hash.go`, `HashByRev`): also where
    /// it is 0, which then is no longer the newest.
    ///
    /// # Errors
    /// A revision that was compacted away or has not happened.
    pub fn new(revision: Revision, view: &View) -> Result<Self, Refusal> {
        if let Some(sum) = view.sums.of(revision) {
            return Ok(sum.hashing(view));
        }
        if revision.0 > 0 && revision < view.compacted() {
            return Err(Refusal::Compacted);
        }
        if revision.0 > 0 && revision > view.revision {
            return Err(Refusal::FutureRevision);
        }
        let revision = if revision.0 == 0 { view.revision } else { revision };
        Ok(Self::over(view.tree.clone(), revision))
    }

    /// The sum that a compaction at `revision` makes of `before`, the keys just before it.
    pub(super) fn of_compaction(revision: Revision, before: tree::View) -> Self {
        // The tombstones of the revision itself count, too.
        let from = Stamp { main: revision, sub: 0 };
        Self { from, ..Self::over(before, revision) }
    }

    /// A sum that is made already.
    pub(super) fn made(hash: Hash, tree: tree::View) -> Self {
        let Hash { sum, revision, compacted } = hash;
        let (kept, phase, from) = (0, Phase::Done, Stamp::new(0, 0));
        Self { tree, sum, revision, compacted, kept, phase, from }
    }

    fn over(tree: tree::View, revision: Revision) -> Self {
        let live = tree.reader().count(&KeyRange::ALL, Revision(i64::MAX));
        Self {
            sum: crc32c::crc32c(BUCKET),
            revision,
            compacted: tree.reader().compacted(),
            kept: i64::try_from(live).expect("keys are fewer than bytes"),
            phase: if revision.0 < 0 { Phase::Done } else { Phase::Count },
            from: Stamp { main: Revision(revision.0 + 1), sub: 0 },
            tree,
        }
    }

    /// The revision up to which it counts.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Does the next piece of work; false once nothing is left.
    pub fn step(&mut self) -> bool {
        let tree = self.tree.clone();
        let mut changes = tree.reader().changes(self.from);
        let mut bytes = 0;
        for _ in 0..HASH_RECORDS_PER_STEP {
            match (self.phase, changes.next()) {
                (Phase::Count, Some(change)) => {
                    self.kept += i64::from(change.tombstone);
                    if change.stamp.main > self.revision {
                        self.kept -= i64::from(change.create);
                    }
                    self.from = behind(change.stamp);
                }
                (Phase::Count, None) => {
                    self.phase = Phase::Sum;
                    self.from = Stamp::new(0, 0);
                    return true;
                }
                (Phase::Sum, Some(change)) if change.stamp.main <= self.revision => {
                    if self.counts(&change) {
                        self.take(&change);
                        bytes += change.kv.len();
                    }
                    self.from = behind(change.stamp);
                }
                (Phase::Sum, _) => self.phase = Phase::Done,
                (Phase::Done, _) => return false,
            }
            if bytes >= HASH_BYTES_PER_STEP {
                break;
            }
        }
        self.phase != Phase::Done
    }

    /// What it came to.
    ///
    /// # Panics
    /// While [`Hashing::step`] has something left.
    pub fn finish(&self) -> Hash {
        assert!(self.phase == Phase::Done, "a checksum is asked for when it is whole");
        Hash { sum: self.sum, revision: self.revision, compacted: self.compacted }
    }

    /// Whether a change is one that every member has. Tombstones at the compacted revision are not
    /// counted, since etcd before 3.5.16 takes them and later ones keep them.
    fn counts(&self, change: &Change<'_>) -> bool {
        if change.stamp.main > self.compacted {
            return true;
        }
        let at = if self.kept > 0 { self.revision } else { self.compacted };
        let version = self.tree.reader().get(change.key, at);
        version.is_some_and(|version| version.meta.modified == change.stamp)
    }

    fn take(&mut self, change: &Change<'_>) {
        let mut key = [0; REVISION_KEY_LEN];
        key[..8].copy_from_slice(&change.stamp.main.0.to_be_bytes());
        key[8] = b'_';
        key[9..17].copy_from_slice(&u64::from(change.stamp.sub).to_be_bytes());
        key[17] = b't';
        let len = if change.tombstone { REVISION_KEY_LEN } else { REVISION_KEY_LEN - 1 };
        self.sum = crc32c::crc32c_append(self.sum, &key[..len]);
        self.sum = crc32c::crc32c_append(self.sum, change.kv);
    }
}

fn behind(stamp: Stamp) -> Stamp {
    Stamp { sub: stamp.sub + 1, ..stamp }
}

/// A checksum over everything a member has applied: keys, leases, and the cluster's facts. It is
/// stable and the same on members that have applied and compacted the same, but it is not etcd's
/// `Hash`, which depends on how its file is laid out in buckets.
#[derive(Clone)]
pub struct HashingAll {
    view: View,
    keys: Hashing,
    /// The next lease to take; `None` once all are in.
    lease: Option<LeaseId>,
}

impl HashingAll {
    /// Begins to sum up `view`.
    pub fn new(view: &View) -> Self {
        let keys = Hashing::over(view.tree.clone(), view.revision);
        Self { view: view.clone(), keys, lease: Some(LeaseId(i64::MIN)) }
    }

    /// As [`Hashing::step`].
    pub fn step(&mut self) -> bool {
        if self.keys.step() {
            return true;
        }
        let Some(from) = self.lease else { return false };
        self.lease = None;
        let view = self.view.clone();
        for (taken, (id, lease)) in view.leases().from(from).enumerate() {
            if taken == HASH_RECORDS_PER_STEP {
                self.lease = Some(id);
                return true;
            }
            self.take_lease(id, lease);
        }
        self.keys.sum = crc32c::crc32c_append(self.keys.sum, &view.cluster.encode());
        false
    }

    fn take_lease(&mut self, id: LeaseId, lease: Lease) {
        for number in [id.0, lease.granted, lease.remaining] {
            self.keys.sum = crc32c::crc32c_append(self.keys.sum, &number.to_be_bytes());
        }
    }

    /// As [`Hashing::finish`].
    ///
    /// # Panics
    /// While [`HashingAll::step`] has something left.
    pub fn finish(&self) -> Hash {
        assert!(self.lease.is_none(), "a checksum is asked for when it is whole");
        self.keys.finish()
    }
}

#[cfg(test)]
mod tests;
