//! Leases as every member knows them: what was granted, and which keys hold on to it.
//!
//! Granting, revoking and what the leader notes of the time left come through the log; so do puts,
//! which attach their key to a lease, and deletions. When a lease runs out is the leader's business
//! and no part of the state: nobody's clock is.
//!
//! ```text
//! leases   id        → granted TTL, remaining TTL
//! held     id ‖ key  → nothing
//! ```
//!
//! Both are kept by the tree. A key is attached to the lease in its newest version, and only while that
//! lease is in the table: a put with an unknown lease is refused, and revoking deletes the keys with the
//! lease, as one revision.

use super::{
    GRANT_COST, Store,
    command::Expired,
    outcome::{Outcome, Refusal},
    write::Writing,
};
use crate::{
    tree::{HeldKeys, Lease, Reader},
    types::LeaseId,
};

const NONE: LeaseId = LeaseId(0);

/// Reads leases, the store's newest or a view's. Copies are free.
#[derive(Clone, Copy)]
pub struct Leases<'a> {
    tree: Reader<'a>,
}

impl<'a> Leases<'a> {
    pub(super) fn new(tree: Reader<'a>) -> Self {
        Self { tree }
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
    pub fn keys(&self, id: LeaseId) -> HeldKeys<'a> {
        self.tree.keys_of(id)
    }
}

impl Store {
    /// The leases, and the keys that hold on to them, as of the last entry applied.
    pub fn leases(&self) -> Leases<'_> {
        Leases::new(self.tree.reader())
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
        let mut writing = Writing::new(&mut self.tree, self.revision);
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
