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
//! The keys are many, so it is done in steps, of one view from beginning to end.

use super::{Refusal, View};
use crate::{
    limits::HASH_RECORDS_PER_STEP,
    tree::{Change, KeyRange, Lease},
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
#[derive(Debug, Clone)]
pub struct Hashing {
    sum: u32,
    /// Where it ends; negative for no changes at all, as in etcd.
    revision: Revision,
    compacted: Revision,
    /// Keys that are live at `revision`, as far as counted.
    live: i64,
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
    /// Begins to sum up `view`, up to `revision`; 0 is its newest.
    ///
    /// # Errors
    /// A revision that was compacted away or has not happened.
    pub fn new(revision: Revision, view: &View) -> Result<Self, Refusal> {
        let compacted = view.compacted();
        if revision.0 > 0 && revision < compacted {
            return Err(Refusal::Compacted);
        }
        if revision.0 > 0 && revision > view.revision {
            return Err(Refusal::FutureRevision);
        }
        let revision = if revision.0 == 0 { view.revision } else { revision };
        let live = view.tree.reader().count(&KeyRange::ALL, Revision(i64::MAX));
        Ok(Self {
            sum: crc32c::crc32c(BUCKET),
            revision,
            compacted,
            live: i64::try_from(live).expect("keys are fewer than bytes"),
            phase: if revision.0 < 0 { Phase::Done } else { Phase::Count },
            from: Stamp { main: Revision(revision.0 + 1), sub: 0 },
        })
    }

    /// Does the next piece of work; false once nothing is left. `view` is that of the beginning.
    pub fn step(&mut self, view: &View) -> bool {
        let reader = view.tree.reader();
        let mut changes = reader.changes(self.from);
        for _ in 0..HASH_RECORDS_PER_STEP {
            match (self.phase, changes.next()) {
                (Phase::Count, Some(change)) => {
                    self.live += i64::from(change.tombstone) - i64::from(change.create);
                    self.from = behind(change.stamp);
                }
                (Phase::Count, None) => {
                    self.phase = Phase::Sum;
                    self.from = Stamp::new(0, 0);
                    return true;
                }
                (Phase::Sum, Some(change)) if change.stamp.main <= self.revision => {
                    if self.counts(&change, view) {
                        self.take(&change);
                    }
                    self.from = behind(change.stamp);
                }
                (Phase::Sum, _) => self.phase = Phase::Done,
                (Phase::Done, _) => return false,
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
    fn counts(&self, change: &Change<'_>, view: &View) -> bool {
        if change.stamp.main > self.compacted {
            return true;
        }
        let at = if self.live > 0 { self.revision } else { self.compacted };
        let version = view.tree.reader().get(change.key, at);
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
#[derive(Debug, Clone)]
pub struct HashingAll {
    keys: Hashing,
    /// The next lease to take; `None` once all are in.
    lease: Option<LeaseId>,
}

impl HashingAll {
    /// Begins to sum up `view`.
    pub fn new(view: &View) -> Self {
        let keys = Hashing::new(Revision(0), view).expect("the newest revision is always there");
        Self { keys, lease: Some(LeaseId(i64::MIN)) }
    }

    /// As [`Hashing::step`].
    pub fn step(&mut self, view: &View) -> bool {
        if self.keys.step(view) {
            return true;
        }
        let Some(from) = self.lease else { return false };
        self.lease = None;
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
