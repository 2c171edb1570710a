//! One revision being written: puts and deletions, each with its place inside the revision.
//!
//! Nothing is counted until something changes: a transaction or deletion that changes nothing makes
//! no revision. Every put and every deleted key takes the next sub-revision, in order (etcd
//! `mvcc`). Reads in between see what was written so far.

use bytes::Bytes;

use super::{
    command::{DeleteRange, Put},
    lease::Leases,
    outcome::{Deleted, PutDone},
    range::interval,
};
use crate::{
    tree::{Reader, Tree},
    types::{LeaseId, Revision, Stamp},
};

/// The revision after `begun`, while it is written.
pub(super) struct Writing<'s> {
    tree: &'s mut Tree,
    begun: Revision,
    changes: u32,
}

impl<'s> Writing<'s> {
    pub(super) fn new(tree: &'s mut Tree, begun: Revision) -> Self {
        Self { tree, begun, changes: 0 }
    }

    /// The current revision: the one before until something has changed.
    pub(super) fn revision(&self) -> Revision {
        Revision(self.begun.0 + i64::from(self.changes > 0))
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        self.tree.reader()
    }

    pub(super) fn leases(&self) -> Leases<'_> {
        Leases::new(self.tree.reader())
    }

    fn next_stamp(&mut self) -> Stamp {
        let stamp = Stamp { main: Revision(self.begun.0 + 1), sub: self.changes };
        self.changes += 1;
        stamp
    }

    /// Writes one key. The caller has checked the lease and, for `ignore_*`, that the key is there.
    pub(super) fn put(&mut self, put: &Put) -> PutDone {
        let stamp = self.next_stamp();
        if !(put.prev || put.ignore_value || put.ignore_lease) {
            self.tree.put(stamp, &put.key, &put.value, put.lease);
            return PutDone { revision: self.revision(), prev: None };
        }
        let found = self.tree.reader().newest(&put.key);
        let prev = found.filter(|_| put.prev).map(|found| Bytes::copy_from_slice(found.kv()));
        // Nothing is found where the same transaction deleted the key after the check: etcd panics
        // there, we keep nothing.
        let kept = found.map_or(&[][..], |found| found.value());
        let value = if put.ignore_value { Bytes::copy_from_slice(kept) } else { put.value.clone() };
        let kept = found.map_or(LeaseId(0), |found| found.meta.lease);
        let lease = if put.ignore_lease { kept } else { put.lease };
        self.tree.put(stamp, &put.key, &value, lease);
        PutDone { revision: self.revision(), prev }
    }

    /// Deletes one key, which is there.
    pub(super) fn delete(&mut self, key: &[u8]) {
        let stamp = self.next_stamp();
        self.tree.delete(stamp, key);
    }

    /// Deletes the keys of an interval, in order.
    pub(super) fn delete_range(&mut self, delete: &DeleteRange) -> Deleted {
        let (keys, prev) = self.doomed(delete);
        keys.iter().for_each(|key| self.delete(key));
        Deleted { revision: self.revision(), deleted: keys.len() as i64, prev }
    }

    /// The keys to delete, and their key-values if asked for.
    fn doomed(&self, delete: &DeleteRange) -> (Vec<Bytes>, Vec<Bytes>) {
        let (mut keys, mut prev) = (Vec::new(), Vec::new());
        let reader = self.tree.reader();
        if delete.end.is_empty() {
            if let Some(found) = reader.newest(&delete.key) {
                keys.push(delete.key.clone());
                prev.extend(delete.prev.then(|| Bytes::copy_from_slice(found.kv())));
            }
        } else {
            for found in reader.scan(&interval(&delete.key, &delete.end), self.revision()) {
                keys.push(Bytes::copy_from_slice(found.key));
                prev.extend(delete.prev.then(|| Bytes::copy_from_slice(found.kv())));
            }
        }
        (keys, prev)
    }
}
