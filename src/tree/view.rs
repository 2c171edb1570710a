//! Reading: a [`View`] is the tree at one moment, readable on every core without locks; a
//! [`Reader`] is how both views and the writer look at it.
//!
//! A read begins at the key's cell. Where the newest version is old enough, the cell answers; else
//! the search goes back through links in the records (see `chain`). Reads below the compacted
//! revision are the caller's mistake: the store refuses them first.

use super::{
    KeyMeta, KeyRange,
    append_vec::Frozen,
    cell::Cell,
    chain,
    cursor::{Cursor, MapReader},
    install::Sealed,
    map::MapView,
    record::Record,
    segment::{Run, Segment, partition},
    shelf::locate,
};
use crate::{
    io,
    types::{LeaseId, Revision, Seq, Stamp},
};
use std::sync::Arc;

/// The tree at the moment it was published. Immutable; belongs to any core; cheap to clone.
#[derive(Clone)]
pub struct View(Arc<Published>);

/// What a view keeps alive.
pub(crate) struct Published {
    pub(crate) map: MapView,
    pub(crate) leases: MapView,
    pub(crate) held: MapView,
    pub(crate) table: Arc<Vec<Segment>>,
    pub(crate) tail_first: Seq,
    pub(crate) tail_bytes: Frozen<u8>,
    pub(crate) tail_offsets: Frozen<u32>,
    pub(crate) compacted: Revision,
    pub(crate) newest: Revision,
}

impl View {
    pub(crate) fn new(published: Published) -> Self {
        Self(Arc::new(published))
    }

    /// The segments that are in files: what need not be sent to this member.
    pub fn sealed(&self) -> Sealed {
        Sealed::of(&self.0.table)
    }

    /// Looks at the view.
    pub fn reader(&self) -> Reader<'_> {
        let view = &*self.0;
        let tail = Run::dense(view.tail_first, &view.tail_bytes, &view.tail_offsets);
        Reader {
            map: view.map.reader(),
            leases: view.leases.reader(),
            held: view.held.reader(),
            records: Records { table: &view.table, tail, tail_first: view.tail_first },
            compacted: view.compacted,
            newest: view.newest,
        }
    }
}

/// Looks at the tree, or at a view of it. All reads borrow; nothing is copied.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub(crate) map: MapReader<'a>,
    pub(crate) leases: MapReader<'a>,
    pub(crate) held: MapReader<'a>,
    pub(crate) records: Records<'a>,
    pub(crate) compacted: Revision,
    pub(crate) newest: Revision,
}

impl<'a> Reader<'a> {
    /// The compacted revision: reads below it are not answered. -1 when never compacted.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The live version of `key` at revision `at`, all changes of that revision included; None if
    /// the key did not exist then. `at` is not below [`Reader::compacted`].
    pub fn get(&self, key: &[u8], at: Revision) -> Option<Found<'a>> {
        let cell = Cell::decode(self.map.get(key)?);
        let (meta, version) = self.resolve(&cell, at)?;
        let record = version.record(&self.records);
        let version = Version::Here(record);
        Some(Found { key: record.key(), meta, version, records: self.records })
    }

    /// The newest version of `key`, if the key exists now.
    pub fn newest(&self, key: &[u8]) -> Option<Found<'a>> {
        self.get(key, Revision(i64::MAX))
    }

    /// Whether up to `keys` keys of `range`, as they are now, can be read without waiting for the disk; with
    /// their values, if `values`. Where memory is not short nobody looks, and they can. What is missing
    /// is asked for.
    pub fn is_at_hand(&self, range: &KeyRange<'_>, keys: usize, values: bool) -> bool {
        let mut look =
            |cell: &[u8]| !values || self.records.is_at_hand(Cell::decode(cell).newest());
        !io::is_memory_short() || self.map.is_at_hand(range, keys, &mut look)
    }

    /// As [`Reader::is_at_hand`], of one key.
    pub fn is_key_at_hand(&self, key: &[u8], value: bool) -> bool {
        let after = [key, &[0]].concat();
        self.is_at_hand(&KeyRange { from: key, to: Some(&after) }, 1, value)
    }

    /// What a put or a comparison needs of the newest version; touches no record.
    pub fn meta(&self, key: &[u8]) -> Option<KeyMeta> {
        Cell::decode(self.map.get(key)?).meta
    }

    /// How many keys of `range` exist at revision `at`. O(log n) where nothing changed after `at`;
    /// else the cheaper of walking the range and walking the changes since.
    pub fn count(&self, range: &KeyRange<'_>, at: Revision) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let end = range.to.map_or_else(|| self.map.live(), |to| self.map.live_before(to));
        let now = end - self.map.live_before(range.from);
        if at >= self.newest {
            return now;
        }
        assert!(at >= self.compacted, "the store refuses reads below the compacted revision");
        let from = Stamp { main: Revision(at.0 + 1), sub: 0 };
        let changes = self.changes(from);
        if changes.records_left() <= now {
            // Each create since `at` brought one key, each tombstone took one.
            let inside = changes.filter(|change| range.contains(change.key));
            let count = inside.fold(now as i64, |count, change| match change {
                Change { tombstone: true, .. } => count + 1,
                Change { create: true, .. } => count - 1,
                _ => count,
            });
            return u64::try_from(count).expect("no fewer keys existed than none");
        }
        self.walk(range, at).count() as u64
    }

    /// The keys of `range` that exist at revision `at`, ascending.
    pub fn scan(&self, range: &KeyRange<'_>, at: Revision) -> Scan<'a> {
        self.walk(range, at)
    }

    fn walk(&self, range: &KeyRange<'_>, at: Revision) -> Scan<'a> {
        let cursor = (!range.is_empty()).then(|| self.map.seek(range.from));
        Scan { reader: *self, cursor, to: range.to.map(<[u8]>::to_vec), at }
    }

    /// Every change from `from` on, in revision order. Complete for revisions above
    /// [`Reader::compacted`]; at and below it, what compaction has not taken yet.
    pub fn changes(&self, from: Stamp) -> Changes<'a> {
        Changes { records: self.records, at: self.records.position_of(from) }
    }

    /// Changes of revisions above this one are all still there, compacted ones too: a record leaves
    /// only when its segment is rewritten.
    pub fn complete_above(&self) -> Revision {
        self.records.complete_above(self.newest)
    }

    /// The version of a cell's key at `at`.
    fn resolve(&self, cell: &Cell<'a>, at: Revision) -> Option<(KeyMeta, Version<'a>)> {
        assert!(at >= self.compacted, "the store refuses reads below the compacted revision");
        if cell.modified.main <= at {
            return cell.meta.map(|meta| (meta, Version::Newest(cell.newest())));
        }
        let record = chain::find(cell.roots(), at, |seq| self.records.get(seq))?;
        Some((meta(&record), Version::Here(record)))
    }
}

/// The facts of an older version, from its record.
fn meta(record: &Record<'_>) -> KeyMeta {
    let kv = record.fields();
    KeyMeta {
        create: Revision(kv.create),
        modified: record.stamp(),
        version: kv.version,
        lease: LeaseId(kv.lease),
        value_bytes: u32::try_from(kv.value.len()).expect("a record is below 4 GiB"),
    }
}

/// One live version of one key.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What is known of the version without its value.
    pub meta: KeyMeta,
    version: Version<'a>,
    records: Records<'a>,
}

/// Where a version is.
#[derive(Clone, Copy)]
enum Version<'a> {
    /// The key's newest; its record has not been looked at.
    Newest(Seq),
    Here(Record<'a>),
}

impl<'a> Version<'a> {
    fn record(self, records: &Records<'a>) -> Record<'a> {
        match self {
            Self::Newest(seq) => records.get(seq),
            Self::Here(record) => record,
        }
    }
}

impl<'a> Found<'a> {
    /// The exact `mvccpb.KeyValue` bytes.
    pub fn kv(&self) -> &'a [u8] {
        self.record().kv()
    }

    /// The value.
    pub fn value(&self) -> &'a [u8] {
        self.record().fields().value
    }

    fn record(&self) -> Record<'a> {
        self.version.record(&self.records)
    }
}

/// Keys of a range that exist at one revision, ascending. Keys and metadata of newest versions
/// touch no record.
pub struct Scan<'a> {
    reader: Reader<'a>,
    cursor: Option<Cursor<'a>>,
    to: Option<Vec<u8>>,
    at: Revision,
}

impl<'a> Iterator for Scan<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        loop {
            let (key, cell) = self.cursor.as_mut()?.next()?;
            if self.to.as_deref().is_some_and(|to| key >= to) {
                self.cursor = None;
                return None;
            }
            if let Some((meta, version)) = self.reader.resolve(&Cell::decode(cell), self.at) {
                return Some(Found { key, meta, version, records: self.reader.records });
            }
        }
    }
}

/// One change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// When.
    pub stamp: Stamp,
    /// The change is a delete.
    pub tombstone: bool,
    /// The change is a put of a key that did not exist just before it.
    pub create: bool,
    /// The key.
    pub key: &'a [u8],
    /// The exact `mvccpb.KeyValue` bytes; of a delete, those of a `KeyValue` with only its key.
    pub kv: &'a [u8],
}

/// Changes in revision order.
#[derive(Clone)]
pub struct Changes<'a> {
    records: Records<'a>,
    at: Position,
}

impl Changes<'_> {
    /// An upper bound of how many are left.
    fn records_left(&self) -> u64 {
        self.records.next().0 - self.records.seq(self.at).0
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        let record = self.records.step(&mut self.at)?;
        Some(Change {
            stamp: record.stamp(),
            tombstone: record.tombstone(),
            create: record.create(),
            key: record.key(),
            kv: record.kv(),
        })
    }
}

/// All records, in order of their numbers: closed segments, then the tail.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a> {
    pub(crate) table: &'a [Segment],
    pub(crate) tail: Run<'a>,
    pub(crate) tail_first: Seq,
}

/// A place between records: before the record at `record` of run `run`. The tail is the last run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    run: usize,
    record: usize,
}

impl<'a> Records<'a> {
    /// The record numbered `seq`, which a legal read has shown to be live.
    pub(crate) fn get(&self, seq: Seq) -> Record<'a> {
        let run = if seq >= self.tail_first {
            self.tail
        } else {
            self.table[locate(self.table, seq).expect("a live record's segment is kept")].run()
        };
        run.at(run.find(seq).expect("a live record is kept"))
    }

    fn is_at_hand(&self, seq: Seq) -> bool {
        let segment = locate(self.table, seq).filter(|_| seq < self.tail_first);
        segment.is_none_or(|at| self.table[at].is_at_hand(seq))
    }

    /// The number that the next record gets.
    pub(crate) fn next(&self) -> Seq {
        Seq(self.tail_first.0 + self.tail.len() as u64)
    }

    fn run(&self, at: usize) -> Option<Run<'a>> {
        match self.table.get(at) {
            Some(segment) => Some(segment.run()),
            None => (at == self.table.len()).then_some(self.tail),
        }
    }

    /// The first record numbered `seq` or above.
    pub(crate) fn position(&self, seq: Seq) -> Position {
        let run = self.table.partition_point(|segment| segment.identity.next <= seq);
        let record = self.run(run).map_or(0, |run| run.position(seq));
        Position { run, record }
    }

    /// The first record written at `stamp` or later.
    pub(crate) fn position_of(&self, stamp: Stamp) -> Position {
        // A run's first record tells whether the place is behind it; then it is in the run before.
        let runs = self.table.len() + usize::from(self.tail.len() > 0);
        let begins_before = |run| self.run(run).is_some_and(|run| run.at(0).stamp() < stamp);
        let run = partition(runs, begins_before).saturating_sub(1);
        let record = self.run(run).map_or(0, |run| run.position_of(stamp));
        Position { run, record }
    }

    /// The revision that the first record behind the last gap belongs to; its earlier changes may
    /// be in the gap. `newest` where nothing is behind it.
    fn complete_above(&self, newest: Revision) -> Revision {
        let ends = self.table.iter().map(|segment| segment.identity.next);
        let begins = self.table.iter().map(|segment| segment.identity.first);
        let before = std::iter::once(Seq(0)).chain(ends);
        let gaps = before.zip(begins.chain([self.tail_first])).map(|(end, begin)| end != begin);
        let within = |run: usize| self.table.get(run).is_some_and(Segment::has_gaps);
        // The first whole run behind the last gap: the gap is in front of a run, or in it.
        let behind = gaps.enumerate().filter_map(|(run, gap)| match within(run) {
            true => Some(run + 1),
            false => gap.then_some(run),
        });
        let Some(run) = behind.last() else { return Revision(0) };
        let mut behind = Position { run, record: 0 };
        self.step(&mut behind).map_or(newest, |record| record.main())
    }

    /// Number of the record at `position`, or the next one's where there is none.
    fn seq(&self, mut position: Position) -> Seq {
        self.step(&mut position).map_or(self.next(), |record| record.seq())
    }

    /// The record at `position`, which moves behind it.
    pub(crate) fn step(&self, position: &mut Position) -> Option<Record<'a>> {
        loop {
            let run = self.run(position.run)?;
            if position.record < run.len() {
                if let Some(segment) = self.table.get(position.run) {
                    segment.read_ahead(position.record);
                }
                position.record += 1;
                return Some(run.at(position.record - 1));
            }
            *position = Position { run: position.run + 1, record: 0 };
        }
    }
}
