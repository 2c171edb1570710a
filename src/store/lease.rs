//! Leases as every member knows them: what was granted, and which keys hold on to it.
//!
//! Granting, revoking and what the leader notes of the time left come through the log; so do puts,
//! which attach their key to a lease, and deletions. When a lease runs out is the leader's business
//! and no part of the state: nobody's clock is.
//!
//! ```text
//! the tree's table   id        → granted TTL, remaining TTL       on disk as a file of its own
//! attached           id ‖ key  → nothing                          on disk as the keys' own lease
//! ```
//!
//! A key is attached to the lease in its newest version, and only while that lease is in the table:
//! a put with an unknown lease is refused, and revoking deletes the keys with the lease, as one
//! revision. So what is attached can be told from the keys alone, and is, at every start.

use super::{
    GRANT_COST, Store,
    command::Expired,
    outcome::{Outcome, Refusal},
    write::Writing,
};
use crate::{
    tree::{Cursor, KeyRange, Lease, Map, MapReader, MapView, Reader, lease_key},
    types::{LeaseId, Revision},
};

const NONE: LeaseId = LeaseId(0);

/// Reads leases, the store's newest or a view's. Copies are free.
#[derive(Clone, Copy)]
pub struct Leases<'a> {
    tree: Reader<'a>,
    attached: MapReader<'a>,
}

impl<'a> Leases<'a> {
    pub(super) fn new(tree: Reader<'a>, attached: MapReader<'a>) -> Self {
        Self { tree, attached }
    }

    /// The keys and everything else of the same state.
    pub(super) fn reader(&self) -> Reader<'a> {
        self.tree
    }

    /// What was granted under `id`, if it is still there.
    pub fn get(&self, id: LeaseId) -> Option<Lease> {
        self.tree.lease(id)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.tree.lease_count()
    }

    /// The leases from `from` on, in order of their signed ids.
    pub fn from(&self, from: LeaseId) -> impl Iterator<Item = (LeaseId, Lease)> + use<'a> {
        self.tree.leases_from(from)
    }

    /// The keys that hold on to `id`, in order.
    pub fn keys(&self, id: LeaseId) -> Keys<'a> {
        let prefix = lease_key(id);
        Keys { cursor: self.attached.seek(&prefix), prefix }
    }
}

/// The keys of one lease, in order.
pub struct Keys<'a> {
    cursor: Cursor<'a>,
    prefix: [u8; 8],
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.cursor.next()?.0.strip_prefix(&self.prefix)
    }
}

/// Which keys hold on to which lease. All steps are O(log n), however many keys one lease has.
pub(super) struct Attached {
    map: Map,
    /// Memory that is used again for each step.
    entry: Vec<u8>,
}

impl Attached {
    pub(super) fn new(page_bytes: usize) -> Self {
        Self { map: Map::new(page_bytes), entry: Vec::new() }
    }

    /// What the keys of a tree say.
    pub(super) fn of(reader: Reader<'_>, page_bytes: usize) -> Self {
        let mut attached = Self::new(page_bytes);
        if reader.lease_count() > 0 {
            for found in reader.scan(&KeyRange::ALL, Revision(i64::MAX)) {
                attached.moved(found.key, NONE, found.meta.lease);
            }
        }
        attached
    }

    pub(super) fn reader(&self) -> MapReader<'_> {
        self.map.reader()
    }

    pub(super) fn publish(&mut self) -> MapView {
        self.map.publish()
    }

    /// `key` held on to `old` and holds on to `new` now; 0 is no lease.
    pub(super) fn moved(&mut self, key: &[u8], old: LeaseId, new: LeaseId) {
        if old == new {
            return;
        }
        if old != NONE {
            let was = self.map.remove(entry(&mut self.entry, old, key));
            assert!(was, "a key with a lease is attached to it");
        }
        if new != NONE {
            self.map.insert(entry(&mut self.entry, new, key), &[], true);
        }
    }
}

fn entry<'e>(entry: &'e mut Vec<u8>, id: LeaseId, key: &[u8]) -> &'e [u8] {
    entry.clear();
    entry.extend_from_slice(&lease_key(id));
    entry.extend_from_slice(key);
    entry
}

impl Store {
    /// The leases, and the keys that hold on to them, as of the last entry applied.
    pub fn leases(&self) -> Leases<'_> {
        Leases::new(self.tree.reader(), self.attached.reader())
    }

    /// Id 0 would be no lease at all: it cannot be found (etcd `lessor.Grant`).
    pub(super) fn grant(&mut self, id: LeaseId, ttl: i64) -> Outcome {
        if id == NONE {
            return Outcome::Refused(Refusal::LeaseNotFound);
        }
        if self.leases().get(id).is_some() {
            return Outcome::Refused(Refusal::LeaseExists);
        }
        let fits = self.fits(GRANT_COST);
        self.tree.set_lease(id, Lease { granted: ttl, remaining: 0, since: self.applied });
        if !fits {
            return Outcome::LeaseGrantedWithoutRoom { id, ttl };
        }
        Outcome::LeaseGranted { id, ttl, revision: self.revision }
    }

    /// Deletes the keys in their order, so that every member numbers the changes alike.
    pub(super) fn revoke(&mut self, id: LeaseId, expired: Option<Expired>) -> Outcome {
        if expired.is_some_and(|seen| seen.term != self.term) {
            return Outcome::Done;
        }
        let Some(lease) = self.leases().get(id) else {
            return Outcome::Refused(Refusal::LeaseNotFound);
        };
        if expired.is_some_and(|seen| seen.applied < lease.since) {
            return Outcome::Done;
        }
        let keys: Vec<_> = self.leases().keys(id).map(<[u8]>::to_vec).collect();
        let mut writing = Writing::new(&mut self.tree, &mut self.attached, self.revision);
        keys.iter().for_each(|key| writing.delete(key));
        self.revision = writing.revision();
        self.tree.remove_lease(id);
        Outcome::LeaseRevoked { id, revision: self.revision }
    }

    /// A lease that is gone meanwhile needs no note (etcd `lessor.Checkpoint`).
    pub(super) fn note_remaining(&mut self, seen: &[(LeaseId, i64)]) -> Outcome {
        for &(id, remaining) in seen {
            if let Some(lease) = self.leases().get(id) {
                self.tree.set_lease(id, Lease { remaining, ..lease });
            }
        }
        Outcome::Done
    }
}
