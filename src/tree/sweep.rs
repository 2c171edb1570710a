//! Physical compaction, in bounded pieces.
//!
//! Compacting at C is at once true for readers; what it takes is found later, by looking at the
//! records written in (C before, C] only: each of them kills the version before it, and each
//! tombstone below C is dead itself, and its key leaves the map if that tombstone is still its
//! newest version. So per key the newest version at or below C stays, a tombstone below C goes and
//! one at C stays, so that a watch from C still sees the delete (etcd `mvcc` key index, since
//! 3.5.15). The cost is that of the changes since the last compaction, not that of all keys.
//!
//! Tombstones written exactly at C are looked at again by the next sweep.

use super::{Map, Tree, cell::Cell, index::IndexEntry};
use crate::limits::INDEX_CLEARED_BYTES_MAX;
use crate::types::{Revision, Seq, Stamp};

/// How far physical compaction has come.
pub(crate) struct Sweep {
    /// What this compaction takes is taken.
    done: Revision,
    /// The compaction that is being swept; equal to `done` when there is none.
    target: Revision,
    /// The next record to look at; None after a start, which does not look for it.
    at: Option<Seq>,
    /// The first record of the target's own revision, where the next sweep begins.
    again: Option<Seq>,
}

impl Sweep {
    /// Everything up to `done` is swept, and `at`, if it is known, is the first record not below that
    /// revision.
    pub(crate) fn done(done: Revision, at: Option<Seq>) -> Self {
        Self { done, target: done, at, again: None }
    }

    /// What the compaction at this revision takes is taken.
    pub(crate) fn done_up_to(&self) -> Revision {
        self.done
    }
}

impl Tree {
    /// Compacts at `revision`: from now on reads below it are not answered. What that makes
    /// unreachable is removed by [`Tree::sweep`]. Per key the newest version at or below
    /// `revision` stays; a tombstone below it goes completely and one at it stays (etcd). The
    /// store refuses revisions that were compacted before or lie in the future.
    pub fn compact(&mut self, revision: Revision) {
        assert!(revision >= self.compacted, "compaction never goes back");
        self.compacted = revision;
    }

    /// Looks at no more than `budget_records` records for physical compaction. True when nothing
    /// is left to do for now.
    pub fn sweep(&mut self, budget_records: usize) -> bool {
        for _ in 0..budget_records {
            if self.sweep.target == self.sweep.done {
                if self.sweep.done == self.compacted {
                    return true;
                }
                self.sweep.target = self.compacted;
            }
            self.sweep_one();
        }
        self.sweep.done == self.compacted
    }

    /// Looks at no more than about `budget_pages` pages of the index to give memory and disk space
    /// back: what a checkpoint wrote is read from its file from now on, and a file that is mostly
    /// garbage gives up the rest. True when nothing is left to do before the next checkpoint.
    pub fn tend_index(&mut self, budget_pages: usize) -> bool {
        for map in [&mut self.map, &mut self.held] {
            if !map.settle(budget_pages) || !map.clear(budget_pages) {
                return false;
            }
        }
        for map in [&mut self.map, &mut self.held] {
            if let Some(wasteful) = wasteful_file(map, self.index_files, self.cleared_bytes) {
                self.cleared_bytes += wasteful.live;
                map.begin_clearing(wasteful.slot);
                return false;
            }
        }
        true
    }

    /// Frees a bounded piece of the memory that views held and hold no more, where writes do not do it in
    /// passing. True when there is nothing left of it.
    pub fn free_unseen(&mut self) -> bool {
        let maps = [&mut self.map, &mut self.held, &mut self.leases];
        maps.map(Map::free_unseen) == [true; 3]
    }

    fn sweep_one(&mut self) {
        let Sweep { done, target, at, again } = self.sweep;
        let records = self.shelf.records();
        let from = Stamp { main: done, sub: 0 };
        let mut position = at.map_or_else(|| records.position_of(from), |at| records.position(at));
        let next = records.step(&mut position);
        let Some(record) = next.filter(|record| record.main() <= target) else {
            self.sweep = Sweep::done(target, again.or(at));
            return;
        };
        let (seq, main) = (record.seq(), record.main());
        let killed = record.prev().filter(|_| main > done);
        let dead_tombstone = record.tombstone() && main < target;
        if dead_tombstone {
            let key = record.key();
            let newest = self.map.get(key).map(|cell| Cell::decode(cell).newest());
            if newest == Some(seq) {
                self.map.remove(key);
            }
        }
        if let Some(prev) = killed {
            self.mark_dead(prev.seq);
        }
        if dead_tombstone {
            self.mark_dead(seq);
        }
        self.sweep.at = Some(Seq(seq.0 + 1));
        if main == target {
            self.sweep.again.get_or_insert(seq);
        }
    }

    fn mark_dead(&mut self, seq: Seq) {
        self.shelf.mark(seq);
        self.ledger.note_dead(seq);
    }
}

/// The file of a map that is to be emptied next, where there are more than usual or it is mostly garbage:
/// if any may be before the next checkpoint, and so many bytes have been taken out of files since the last.
fn wasteful_file(map: &Map, usual: usize, cleared_bytes: u64) -> Option<IndexEntry> {
    let files: Vec<_> = map.entries().filter(|entry| entry.live > 0).collect();
    let many = files.len() > usual;
    let wasteful = |entry: &IndexEntry| many || 2 * entry.live < entry.bytes;
    let least = files.into_iter().filter(wasteful).min_by_key(|entry| entry.live)?;
    let room = INDEX_CLEARED_BYTES_MAX.checked_sub(cleared_bytes)?;
    (least.live <= room || cleared_bytes == 0).then_some(least)
}
