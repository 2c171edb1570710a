//! One revision being written: puts and deletions, each with its place inside the revision.
//!
//! Nothing is counted until something changes: a transaction or deletion that changes nothing makes
//! no revision. Every put and every deleted key takes the next sub-revision, in order (etcd
//! `mvcc`). Reads in between see what was written so far.

use bytes::Bytes;

use super::{
    command::{DeleteRange, Put},
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

    fn next_stamp(&mut self) -> Stamp {
        let stamp = Stamp { main: Revision(self.begun.0 + 1), sub: self.changes };
        self.changes += 1;
        stamp
    }

    /// Writes one key. The caller has checked lease and, for `ignore_*`, that the key is there.
    pub(super) fn put(&mut self, put: &Put) -> PutDone {
        let mut prev = None;
        let (mut value, mut lease) = (put.value.clone(), put.lease);
        if put.prev || put.ignore_value || put.ignore_lease {
            if let Some(found) = self.tree.reader().newest(&put.key) {
                prev = put.prev.then(|| Bytes::copy_from_slice(found.kv()));
                if put.ignore_value {
                    value = Bytes::copy_from_slice(found.value());
                }
                if put.ignore_lease {
                    lease = found.meta.lease;
                }
            } else {
                // Deleted by an earlier operation of the same transaction: the check before it saw
                // the key. etcd panics here; we write what there is to keep: nothing.
                value = if put.ignore_value { Bytes::new() } else { value };
                lease = if put.ignore_lease { LeaseId(0) } else { lease };
            }
        }
        let stamp = self.next_stamp();
        self.tree.put(stamp, &put.key, &value, lease);
        PutDone { revision: self.revision(), prev }
    }

    /// Deletes the keys of an interval, in order.
    pub(super) fn delete_range(&mut self, delete: &DeleteRange) -> Deleted {
        let (keys, prev) = self.doomed(delete);
        for key in &keys {
            let stamp = self.next_stamp();
            self.tree.delete(stamp, key);
        }
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
