//! The engine: etcd's multi-version key space.
//!
//! Every change is written once, as a record (`record`), in revision order, in append-only
//! segments (`segment`). One copy-on-write B+tree, the map (`map`), holds a cell (`cell`) for each
//! key: the facts of its newest version and where its older versions begin. Older versions are
//! found through links inside the records (`chain`). The table of leases (`lease`) lies beside.
//!
//! ```text
//!        writer (one core)                          readers (every core)
//!   Tree ── put/delete/compact/sweep ── publish ──► View ── Reader ── get/count/scan/changes
//!    │
//!    └─ begin_checkpoint ──► Checkpoint::run (all I/O) ──► finish_checkpoint
//!       on disk: rec/0000000042.g0 ...   rec/dead.0000000007   rec/leases.0000000005
//!                idx/0000000007 ...       superblock (see `root`)
//!    │
//!    └─ snapshot ──► Snapshot ═══ manifest, parts ═══► Receiving ──► Staged ── install ──► Tree
//!                                                      of another member
//! ```
//!
//! The tree decides without waiting; [`Checkpoint`], [`open`] and [`format()`] move bytes and wait.
//! It stores what it is told in the order it is told: which revision comes next, what a client may
//! do and which reads are legal is the store's business.

mod append_vec;
mod cell;
mod chain;
mod checkpoint;
mod cursor;
mod dead;
mod defragment;
mod heap;
mod index;
mod inspect;
mod install;
mod kv;
mod lease;
mod manifest;
mod map;
mod mark;
mod node;
mod page;
mod record;
mod recover;
mod restore;
mod root;
mod segment;
mod shelf;
mod snapshot;
mod sweep;
mod varint;
mod view;

#[cfg(test)]
mod fuzz;

pub use checkpoint::{Checkpoint, CheckpointDone, format};
pub use cursor::{Cursor, MapReader};
pub(crate) use index::DIR as INDEX_DIR;
pub use inspect::{
    Damage, FileSummary, Inspection, RecordSummary, RootSummary, SlotState, file_of_record,
    inspect, inspect_superblock, list_records,
};
pub use install::{InstallError, Receiving, Sealed, Stage, Staged};
pub use lease::{HeldKeys, Lease, LeaseScan};
pub use manifest::Manifest;
pub use map::{Map, MapView};
pub use mark::Mark;
pub use recover::{Newest, OpenError, newest, open, open_newest, stand_in};
pub use restore::Past;
pub use root::{FILE as SUPERBLOCK_FILE, Root, RootFacts};
pub(crate) use segment::DIR as RECORDS_DIR;
pub use segment::Flaw;
pub use snapshot::{Pieces, Snapshot};
pub use view::{Change, Changes, Found, Reader, Scan, View};

pub use crate::io::is_memory_short;

use crate::{
    limits,
    types::{LeaseId, Revision, Seq, Stamp},
};
use cell::Cell;
use chain::Link;
use kv::KeyValue;
use shelf::{Shelf, Tail};
use std::sync::Arc;

/// Sizes that tests make tiny.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a node of the map.
    pub page_bytes: usize,
    /// Bytes of records in a segment; fixed when the directory is formatted.
    pub segment_bytes: usize,
    /// Files of an index past which one is emptied ([`limits::INDEX_FILES_USUAL`]).
    pub index_files: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            page_bytes: limits::TREE_PAGE_BYTES,
            segment_bytes: limits::SEGMENT_BYTES,
            index_files: limits::INDEX_FILES_USUAL,
        }
    }
}

/// What is known of a key's version without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMeta {
    /// Revision in which the key came to be, this time.
    pub create: Revision,
    /// When this version was written.
    pub modified: Stamp,
    /// Puts since the key came to be, from 1.
    pub version: i64,
    /// The lease attached to the key, or 0.
    pub lease: LeaseId,
    /// Bytes of the value.
    pub value_bytes: u32,
}

/// A half-open interval of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// The first key inside.
    pub from: &'a [u8],
    /// The first key behind; None reaches to the end of the key space.
    pub to: Option<&'a [u8]>,
}

impl KeyRange<'_> {
    /// All keys.
    pub const ALL: KeyRange<'static> = KeyRange { from: &[], to: None };

    /// Whether no key can be inside.
    pub fn is_empty(&self) -> bool {
        self.to.is_some_and(|to| to <= self.from)
    }

    /// Whether `key` is inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.from && self.to.is_none_or(|to| key < to)
    }
}

/// The only writer. It lives on the node's core and does no I/O.
pub struct Tree {
    map: Map,
    leases: Map,
    /// Which keys hold on to which lease (see `lease`).
    held: Map,
    /// Changes of the leases since the tree was made or opened.
    lease_changes: u64,
    shelf: Shelf,
    compacted: Revision,
    newest: Stamp,
    sweep: sweep::Sweep,
    /// Bytes of pages taken out of the index's files since the newest checkpoint began.
    cleared_bytes: u64,
    /// See [`Options::index_files`].
    index_files: usize,
    ledger: checkpoint::Ledger,
    /// Memory that is used again for each change.
    scratch: Scratch,
}

/// The maps of a tree.
struct Maps {
    keys: Map,
    held: Map,
    leases: Map,
    /// See [`Options::index_files`].
    index_files: usize,
}

impl Maps {
    /// Empty ones.
    fn new(options: Options) -> Self {
        let map = || Map::new(options.page_bytes);
        Self { keys: map(), held: map(), leases: map(), index_files: options.index_files }
    }
}

#[derive(Default)]
struct Scratch {
    roots: Vec<chain::Root>,
    cell: Vec<u8>,
    record: Vec<u8>,
    held: Vec<u8>,
}

impl Tree {
    /// An empty tree, in memory. [`format()`] makes one that has a directory.
    pub fn new(options: Options) -> Self {
        let tail = Tail::new(0, Seq(0), options.segment_bytes);
        let shelf = Shelf::new(options.segment_bytes, Vec::new(), tail);
        Self::from_parts(Maps::new(options), shelf, root::Standing::NEW)
    }

    fn from_parts(maps: Maps, shelf: Shelf, standing: root::Standing) -> Self {
        let Maps { keys: map, held, leases, index_files } = maps;
        let durable = shelf.records().next();
        Self {
            map,
            leases,
            held,
            lease_changes: 0,
            compacted: standing.compacted,
            newest: Stamp { main: standing.revision, sub: u32::MAX },
            sweep: sweep::Sweep::done(standing.swept, None),
            cleared_bytes: 0,
            index_files,
            ledger: checkpoint::Ledger::new(&standing, durable),
            shelf,
            scratch: Scratch::default(),
        }
    }

    /// Writes a version of `key`. It goes on with the key's newest version where the key exists,
    /// and else begins at version 1. Revisions come in ascending order. Returns the facts of what
    /// was there before.
    pub fn put(&mut self, at: Stamp, key: &[u8], value: &[u8], lease: LeaseId) -> Option<KeyMeta> {
        let old = self.current(key);
        let meta = KeyMeta {
            create: old.map_or(at.main, |old| old.create),
            modified: at,
            version: old.map_or(1, |old| old.version + 1),
            lease,
            value_bytes: u32::try_from(value.len()).expect("a request is far below 4 GiB"),
        };
        let kv = KeyValue {
            key,
            create: meta.create.0,
            modified: at.main.0,
            version: meta.version,
            value,
            lease: lease.0,
        };
        self.append(at, &kv, Some(&meta));
        self.hold(key, old, lease);
        old
    }

    /// Writes a tombstone. Returns the facts of what was there. Panics where `key` does not exist:
    /// the store looks first.
    pub fn delete(&mut self, at: Stamp, key: &[u8]) -> KeyMeta {
        let old = self.current(key).expect("only a key that exists is deleted");
        self.append(at, &KeyValue { key, ..KeyValue::default() }, None);
        self.hold(key, Some(old), LeaseId(0));
        old
    }

    fn hold(&mut self, key: &[u8], old: Option<KeyMeta>, new: LeaseId) {
        let old = old.map_or(LeaseId(0), |old| old.lease);
        lease::hold(&mut self.held, &mut self.scratch.held, key, old, new);
    }

    /// Reads `key`'s cell: its chain into the scratch roots, and its newest version if that is
    /// live. A tombstone below the compacted revision counts as absent whether or not the sweep
    /// has come by, so that links are the same on every member.
    fn current(&mut self, key: &[u8]) -> Option<KeyMeta> {
        self.scratch.roots.clear();
        let cell = Cell::decode(self.map.get(key)?);
        if cell.meta.is_some() || cell.modified.main >= self.compacted {
            self.scratch.roots.extend(cell.roots());
        }
        cell.meta
    }

    /// Writes a record behind the chain in the scratch roots, and the key's new cell.
    fn append(&mut self, at: Stamp, kv: &KeyValue<'_>, meta: Option<&KeyMeta>) {
        assert!(at > self.newest, "revisions ascend: {at:?} after {:?}", self.newest);
        let Scratch { roots, cell, record, .. } = &mut self.scratch;
        let seq = self.shelf.tail.next();
        let place = chain::push(roots, Link { seq, main: at.main }, self.compacted);
        let header = record::Header {
            seq,
            stamp: at,
            tombstone: meta.is_none(),
            create: meta.is_some_and(|meta| meta.version == 1),
            rank: place.rank,
            prev: place.prev,
            jump: place.jump,
        };
        record::encode(&header, kv, record);
        cell::encode(at, meta, roots, cell);
        self.shelf.push(record);
        self.map.insert(kv.key, cell, meta.is_some());
        self.newest = at;
    }

    /// Looks at the newest state, changes that no view shows yet included.
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            map: self.map.reader(),
            leases: self.leases.reader(),
            held: self.held.reader(),
            records: self.shelf.records(),
            compacted: self.compacted,
            newest: self.newest.main,
        }
    }

    /// Makes an immutable view of the newest state. O(1).
    pub fn publish(&mut self) -> View {
        View::new(view::Published {
            map: self.map.publish(),
            leases: self.leases.publish(),
            held: self.held.publish(),
            table: Arc::clone(self.shelf.table()),
            tail_first: self.shelf.tail.first,
            tail_bytes: self.shelf.tail.bytes.frozen(),
            tail_offsets: self.shelf.tail.offsets.frozen(),
            compacted: self.compacted,
            newest: self.newest.main,
        })
    }

    /// Bytes of records that only memory holds in whole: they are in no sealed segment.
    pub fn unsealed_bytes(&self) -> u64 {
        let full = self.shelf.closed().filter(|(segment, _)| !segment.sealed());
        let full: usize = full.map(|(segment, _)| segment.bytes()).sum();
        (full + self.shelf.tail.bytes.len()) as u64
    }

    /// Bytes of a page of its maps.
    pub fn page_bytes(&self) -> usize {
        self.map.page_bytes()
    }

    /// Bytes of memory that the index takes.
    pub fn index_bytes(&self) -> u64 {
        self.map.bytes() + self.held.bytes() + self.leases.bytes()
    }

    /// Bytes of memory that a checkpoint of the index would give back.
    pub fn unwritten_index_bytes(&self) -> u64 {
        self.map.unwritten_bytes() + self.held.unwritten_bytes()
    }

    /// Whether [`Tree::tend_index`] has not come by all that the last checkpoint wrote: the next would have to
    /// do that at once.
    pub fn is_settling(&self) -> bool {
        self.map.is_settling() || self.held.is_settling()
    }

    /// Bytes of memory that the index would not take if nobody looked at an older state of it.
    pub fn retired_index_bytes(&self) -> u64 {
        self.map.retired_bytes() + self.held.retired_bytes() + self.leases.retired_bytes()
    }

    /// Bytes of records that reads can still ask for.
    pub fn live_bytes(&self) -> u64 {
        let closed: usize = self.shelf.closed().map(|(_, book)| book.live_bytes).sum();
        (closed + self.shelf.tail.book.live_bytes) as u64
    }

    /// Bytes of pages in the index's files that are part of it.
    pub fn live_index_bytes(&self) -> u64 {
        self.map.entries().chain(self.held.entries()).map(|entry| entry.live).sum()
    }
}
