//! All records there are: closed segments in order and the tail that grows, with the writer's own
//! books about them.
//!
//! Views share the closed segments through one `Arc` that changes only when a segment is closed,
//! sealed, rewritten or freed, so publishing a view costs a few counter increments.

use super::{
    append_vec::AppendVec,
    record::RECORD_BYTES_MIN,
    root::{Live, TailEntry},
    segment::{Identity, Run, Segment, Source},
    view::Records,
};
use crate::types::Seq;
use std::sync::Arc;

/// What the writer knows about a segment and views need not.
#[derive(Clone, Default)]
pub(crate) struct Book {
    /// Bytes of records in the file, while the segment is not sealed; None where there is no file.
    pub(crate) durable: Option<usize>,
    pub(crate) live_records: usize,
    pub(crate) live_bytes: usize,
    /// One bit for each record by position, set when compaction took it; grown when needed.
    dead: Arc<Vec<u64>>,
}

impl Book {
    /// The book of a run in which these records are dead.
    pub(crate) fn of(run: &Run<'_>, marks: &[u64]) -> Self {
        let (live_records, live_bytes) = (run.len(), run.bytes().len());
        let mut book = Self { live_records, live_bytes, ..Self::default() };
        let marked = |position: &usize| {
            marks.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
        };
        (0..run.len()).filter(marked).for_each(|position| book.mark(position, run.size(position)));
        book
    }

    /// The book of a sealed segment as a superblock has it.
    pub(crate) fn opened(live: Live, marks: &[u64]) -> Self {
        let dead = Arc::new(marks.to_vec());
        Self { durable: None, live_records: live.records, live_bytes: live.bytes, dead }
    }

    /// What compaction has not taken.
    pub(crate) fn live(&self) -> Live {
        Live { records: self.live_records, bytes: self.live_bytes }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.live_records += 1;
        self.live_bytes += bytes;
    }

    /// One bit for each record by position, set where it is dead; short where none behind is. Who
    /// keeps a clone keeps what is in it.
    pub(crate) fn marks(&self) -> &Arc<Vec<u64>> {
        &self.dead
    }

    pub(crate) fn dead(&self, position: usize) -> bool {
        self.dead.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }

    /// Counts a record as dead; again is no change.
    fn mark(&mut self, position: usize, bytes: usize) {
        if self.dead(position) {
            return;
        }
        let dead = Arc::make_mut(&mut self.dead);
        if dead.len() <= position / 64 {
            dead.resize(position / 64 + 1, 0);
        }
        dead[position / 64] |= 1 << (position % 64);
        self.live_records -= 1;
        self.live_bytes -= bytes;
    }
}

/// The segment that grows.
pub(crate) struct Tail {
    pub(crate) id: u64,
    /// Above 0 where it began elsewhere and came with a snapshot.
    pub(crate) generation: u64,
    pub(crate) first: Seq,
    pub(crate) bytes: AppendVec<u8>,
    pub(crate) offsets: AppendVec<u32>,
    pub(crate) book: Book,
}

impl Tail {
    /// An empty tail with room for `bytes` of records.
    pub(crate) fn new(id: u64, first: Seq, bytes: usize) -> Self {
        Self {
            id,
            generation: 0,
            first,
            bytes: AppendVec::new(bytes),
            offsets: AppendVec::new(bytes / RECORD_BYTES_MIN + 1),
            book: Book::default(),
        }
    }

    /// The number that the next record gets.
    pub(crate) fn next(&self) -> Seq {
        Seq(self.first.0 + self.offsets.len() as u64)
    }

    pub(crate) fn identity(&self) -> Identity {
        let Self { id, generation, first, .. } = *self;
        Identity { id, generation, first, next: self.next() }
    }

    /// How far its file counts once all of it is there.
    pub(crate) fn entry(&self) -> TailEntry {
        let Self { id, generation, first, .. } = *self;
        TailEntry { id, generation, first, bytes: self.bytes.len() }
    }

    pub(crate) fn push(&mut self, record: &[u8]) {
        let offset = u32::try_from(self.bytes.len()).expect("a segment is below 4 GiB");
        self.offsets.extend(&[offset]);
        self.bytes.extend(record);
        self.book.add(record.len());
    }

    pub(crate) fn run(&self) -> Run<'_> {
        Run::dense(self.first, &self.bytes, &self.offsets)
    }

    /// These of its records are dead.
    pub(crate) fn take_marks(&mut self, marks: &[u64]) {
        let durable = self.book.durable;
        self.book = Book { durable, ..Book::of(&self.run(), marks) };
    }
}

/// Closed segments, their books, and the tail.
pub(crate) struct Shelf {
    segment_bytes: usize,
    table: Arc<Vec<Segment>>,
    /// One for each segment of the table, in its order.
    books: Vec<Book>,
    pub(crate) tail: Tail,
    /// Files that hold nothing any more and may go once a superblock does not name them.
    pub(crate) garbage: Vec<String>,
}

impl Shelf {
    /// A shelf with these closed segments, of which those without a live record are freed.
    pub(crate) fn new(segment_bytes: usize, closed: Vec<(Segment, Book)>, tail: Tail) -> Self {
        let (table, books) = closed.into_iter().unzip();
        let garbage = Vec::new();
        let mut shelf = Self { segment_bytes, table: Arc::new(table), books, tail, garbage };
        for at in (0..shelf.books.len()).rev() {
            shelf.free_if_dead(at);
        }
        shelf
    }

    pub(crate) fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    pub(crate) fn table(&self) -> &Arc<Vec<Segment>> {
        &self.table
    }

    /// The closed segments with their books.
    pub(crate) fn closed(&self) -> impl Iterator<Item = (&Segment, &Book)> {
        self.table.iter().zip(&self.books)
    }

    pub(crate) fn records(&self) -> Records<'_> {
        Records { table: &self.table, tail: self.tail.run(), tail_first: self.tail.first }
    }

    /// Appends a record. The tail is closed first if the record would not fit: a rule of content
    /// alone, so that segments are cut at the same records on every member. A record larger than a
    /// segment gets one to itself.
    pub(crate) fn push(&mut self, record: &[u8]) {
        if record.len() > self.tail.bytes.room() {
            self.begin_tail(self.segment_bytes.max(record.len()));
        }
        self.tail.push(record);
    }

    /// Closes the tail although there is room in it.
    pub(crate) fn close_tail(&mut self) {
        self.begin_tail(self.segment_bytes);
    }

    fn begin_tail(&mut self, room: usize) {
        let next = Tail::new(self.tail.id + 1, self.tail.next(), room);
        let full = std::mem::replace(&mut self.tail, next);
        if !full.offsets.is_empty() {
            self.close(full);
        } else {
            self.tail.id = full.id;
        }
    }

    fn close(&mut self, full: Tail) {
        let source = Source::Heap { bytes: full.bytes.frozen(), offsets: full.offsets.frozen() };
        Arc::make_mut(&mut self.table).push(Segment::new(full.identity(), source));
        self.books.push(full.book);
        self.free_if_dead(self.books.len() - 1);
    }

    /// Counts a record as dead, wherever it is; one that is gone already is no matter. A closed
    /// segment with no live record left is freed at once for views to come.
    pub(crate) fn mark(&mut self, seq: Seq) {
        if seq >= self.tail.first {
            let run = Run::dense(self.tail.first, &self.tail.bytes, &self.tail.offsets);
            let position = run.find(seq).expect("the tail has no gaps");
            self.tail.book.mark(position, run.size(position));
            return;
        }
        let Some(at) = locate(&self.table, seq) else { return };
        let run = self.table[at].run();
        let Some(position) = run.find(seq) else { return };
        self.books[at].mark(position, run.size(position));
        self.free_if_dead(at);
    }

    /// Takes a segment without a live record off the shelf; its file, if there is one, is garbage.
    fn free_if_dead(&mut self, at: usize) {
        if self.books[at].live_records > 0 {
            return;
        }
        if self.table[at].sealed() || self.books[at].durable.is_some() {
            self.garbage.push(self.table[at].identity.file());
        }
        self.remove(at);
    }

    /// Takes a segment off the shelf.
    pub(crate) fn remove(&mut self, at: usize) {
        self.books.remove(at);
        Arc::make_mut(&mut self.table).remove(at);
    }

    /// Position of the segment with this identity.
    pub(crate) fn position(&self, identity: &Identity) -> Option<usize> {
        self.table.iter().position(|segment| segment.identity == *identity)
    }

    /// A segment's bytes are now read from its sealed file.
    pub(crate) fn seal(&mut self, at: usize, source: Source) {
        Arc::make_mut(&mut self.table)[at].source = source;
        self.books[at].durable = None;
    }

    /// Reads a closed segment from another file from now on; its records are the same.
    pub(crate) fn replace(&mut self, at: usize, segment: Segment) {
        Arc::make_mut(&mut self.table)[at] = segment;
    }

    /// Remembers how far the file reaches of what was the tail when its checkpoint began. It may
    /// have been closed since then, or freed.
    pub(crate) fn tail_is_durable(&mut self, entry: &TailEntry) {
        let durable = (entry.bytes > 0).then_some(entry.bytes);
        if self.tail.id == entry.id {
            self.tail.book.durable = durable;
            return;
        }
        let was_tail = |segment: &Segment| segment.identity.first == entry.first;
        match self.table.iter().position(was_tail) {
            Some(at) => self.books[at].durable = durable,
            None => self.garbage.extend(durable.map(|_| entry.file())),
        }
    }

    /// Puts a rewritten segment where it belongs.
    pub(crate) fn insert(&mut self, segment: Segment, book: Book) {
        let first = segment.identity.first;
        let at = self.table.partition_point(|other| other.identity.first < first);
        Arc::make_mut(&mut self.table).insert(at, segment);
        self.books.insert(at, book);
        self.free_if_dead(at);
    }
}

/// Position of the segment in whose reach `seq` is.
pub(crate) fn locate(table: &[Segment], seq: Seq) -> Option<usize> {
    let at = table.partition_point(|segment| segment.identity.next <= seq);
    (at < table.len() && table[at].identity.first <= seq).then_some(at)
}
