//! A segment: a run of records in revision order, in memory and as a file.
//!
//! Generation 0 is written as records come and closed when the next record would not fit, so its
//! bytes are the same on every member. A later generation holds what was live of one or more
//! neighbours, in the same order. File names are `rec/<id>.g<generation>`. The upper half of a
//! generation counts the snapshots that came to this directory (see `install`), the lower half
//! rewrites: so what a snapshot brings has names that nothing else in the directory has.
//!
//! ```text
//!   header    one block: magic, version, crc, cluster, id, generation, first seq
//!   records   64-byte headers and payloads, 8-byte aligned (see `record`)
//!   footer    at the next block: u32 offset of each record (from the first one);
//!             in a later generation then u64 seq of each record
//!   trailer   the next block, the last: header's fields again, next seq, records, their bytes,
//!             crc of the footer
//! ```
//!
//! While it is being filled a file has a header and records only; how many of them count is what
//! the superblock says, and whatever lies behind them is overwritten. Its last block, where partly
//! filled, is written again with the same bytes in front: a disk may tear such a write between
//! sectors of 512 bytes, but within a sector it leaves the old or the new bytes, and both begin
//! with the same records.
//!
//! Once sealed, a file never changes. It is read through a map. A start reads nothing of it but how long it
//! is, so that it takes no time however much history there is: what is wrong with a file is noticed when
//! it is first read (see [`Unseen`]), and never served.

use super::{
    append_vec::Frozen,
    record::{HEADER_BYTES as RECORD_HEADER_BYTES, Record},
};
use crate::{
    fatal,
    io::{self, BLOCK_BYTES, Mapping},
    types::{ClusterId, Seq, Stamp},
};
use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Directory of the segments, below the disk's root.
pub(crate) const DIR: &str = "rec";
/// Where the first record lies in a file.
pub(crate) const RECORDS_AT: usize = BLOCK_BYTES;

const HEADER_MAGIC: u64 = u64::from_le_bytes(*b"RLsegmt\n");
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"RLsgend\n");
const VERSION: u32 = 1;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const CRC_AT: usize = VERSION_AT + 4;
const CLUSTER_AT: usize = CRC_AT + 4;
const ID_AT: usize = CLUSTER_AT + 8;
const GENERATION_AT: usize = ID_AT + 8;
const FIRST_AT: usize = GENERATION_AT + 8;
const NEXT_AT: usize = FIRST_AT + 8;
const RECORDS_COUNT_AT: usize = NEXT_AT + 8;
const RECORDS_BYTES_AT: usize = RECORDS_COUNT_AT + 8;
const FOOTER_CRC_AT: usize = RECORDS_BYTES_AT + 8;
const _: () = assert!(FOOTER_CRC_AT + 8 <= BLOCK_BYTES);

/// What is wrong with bytes that were read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Byte in the file.
    pub offset: u64,
    /// What should be there.
    pub what: &'static str,
    /// The value that it should have.
    pub expected: u64,
    /// The value that was found.
    pub found: u64,
}

impl Flaw {
    pub(crate) fn new(offset: usize, what: &'static str, expected: u64, found: u64) -> Self {
        Self { offset: offset as u64, what, expected, found }
    }

    /// The same flaw, where `base` was the start of what was looked at.
    pub(crate) fn behind(self, base: usize) -> Self {
        Self { offset: self.offset + base as u64, ..self }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, what, expected, found } = self;
        write!(f, "byte {offset}: {what}: expected {expected:#x}, found {found:#x}")
    }
}

/// A segment's name and reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: u64,
    pub(crate) generation: u64,
    /// The first number that belongs here.
    pub(crate) first: Seq,
    /// One past the last number that belongs here.
    pub(crate) next: Seq,
}

impl Identity {
    /// The file's name below the disk's root.
    pub(crate) fn file(&self) -> String {
        file(self.id, self.generation)
    }
}

/// The name of a segment's file below the disk's root.
pub(crate) fn file(id: u64, generation: u64) -> String {
    format!("{DIR}/{id:010}.g{generation}")
}

/// How much a segment holds; where things lie in its file follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) records: usize,
    /// Bytes of all records.
    pub(crate) bytes: usize,
    /// Whether the footer names each record's number: some between them are gone.
    pub(crate) sparse: bool,
}

impl Extent {
    pub(crate) fn footer_at(&self) -> usize {
        RECORDS_AT + self.bytes.next_multiple_of(BLOCK_BYTES)
    }

    fn footer_bytes(&self) -> usize {
        self.records * if self.sparse { 12 } else { 4 }
    }

    fn trailer_at(&self) -> usize {
        self.footer_at() + self.footer_bytes().next_multiple_of(BLOCK_BYTES)
    }

    /// Bytes of the whole file once sealed.
    pub(crate) fn file_bytes(&self) -> usize {
        self.trailer_at() + BLOCK_BYTES
    }
}

/// A closed segment, as views share it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) identity: Identity,
    pub(crate) source: Source,
    /// CRC-32 of its records, once somebody has asked; it never changes.
    pub(crate) crc: Arc<OnceLock<u32>>,
}

/// Where a closed segment's bytes are.
#[derive(Clone)]
pub(crate) enum Source {
    /// Full, not yet sealed.
    Heap { bytes: Frozen<u8>, offsets: Frozen<u32> },
    /// Sealed. `unseen` where this process did not write it.
    File { map: Mapping, extent: Extent, unseen: Option<Arc<Unseen>> },
}

impl Segment {
    pub(crate) fn new(identity: Identity, source: Source) -> Self {
        Self { identity, source, crc: Arc::default() }
    }

    pub(crate) fn run(&self) -> Run<'_> {
        match &self.source {
            Source::Heap { bytes, offsets } => Run::dense(self.identity.first, bytes, offsets),
            Source::File { map, extent, unseen } => {
                let unseen = unseen.as_deref();
                unseen.inspect(|unseen| unseen.see_ends(map, extent));
                let (offsets, seqs) = map[extent.footer_at()..].split_at(extent.records * 4);
                Run {
                    unseen,
                    first: self.identity.first,
                    bytes: &map[RECORDS_AT..RECORDS_AT + extent.bytes],
                    offsets: Offsets::File(offsets),
                    seqs: extent.sparse.then(|| &seqs[..extent.records * 8]),
                }
            }
        }
    }

    pub(crate) fn sealed(&self) -> bool {
        matches!(self.source, Source::File { .. })
    }

    /// How many records it has.
    pub(crate) fn records(&self) -> usize {
        match &self.source {
            Source::Heap { offsets, .. } => offsets.len(),
            Source::File { extent, .. } => extent.records,
        }
    }

    /// Bytes of all its records.
    pub(crate) fn bytes(&self) -> usize {
        match &self.source {
            Source::Heap { bytes, .. } => bytes.len(),
            Source::File { extent, .. } => extent.bytes,
        }
    }

    /// Whether the record numbered `seq` can be read without waiting for the disk.
    pub(crate) fn is_at_hand(&self, seq: Seq) -> bool {
        let Source::File { map, extent, unseen } = &self.source else { return true };
        let footer = extent.footer_at()..extent.file_bytes();
        // The first read of a file looks at both its ends.
        let ends_seen = unseen.as_ref().is_none_or(|unseen| unseen.ends.load(Ordering::Relaxed));
        let ends = || map.is_at_hand(0..RECORDS_AT) && map.is_at_hand(footer.clone());
        if !(ends_seen || ends()) {
            return false;
        }
        // Where records are missing their numbers are searched.
        if extent.sparse && !map.is_at_hand(footer) {
            return false;
        }
        let position = (seq.0.saturating_sub(self.identity.first.0) as usize).min(extent.records);
        let listed = extent.footer_at() + position * 4;
        if !map.is_at_hand(listed..(listed + 8).min(map.len())) {
            return false;
        }
        let run = self.run();
        let Some(position) = run.find(seq) else { return true };
        let at = RECORDS_AT + run.offset(position);
        map.is_at_hand(at..at + run.size(position))
    }

    /// Asks for the records behind the one at `position`, which whoever reads in a row will come to.
    pub(crate) fn read_ahead(&self, position: usize) {
        if let Source::File { map, .. } = &self.source
            && io::is_memory_short()
        {
            let run = self.run();
            let (before, at) = (run.offset(position.saturating_sub(1)), run.offset(position));
            map.read_ahead(RECORDS_AT + before, RECORDS_AT + at);
        }
    }

    /// Whether a record within its reach is gone.
    pub(crate) fn has_gaps(&self) -> bool {
        (self.records() as u64) < self.identity.next.0 - self.identity.first.0
    }

    /// Looks at all of it that nobody has looked at.
    pub(crate) fn check(&self) -> Result<(), Flaw> {
        let Source::File { map, extent, unseen: Some(unseen) } = &self.source else {
            return Ok(());
        };
        unseen.check_ends(map, extent)?;
        let run = self.run();
        (0..run.len()).try_for_each(|position| unseen.check_record(&run, position))
    }
}

/// What of a file was not yet seen to be whole: each part is checked when it is first read. What does not
/// fit its checksum is never served: the process says where it lies, and dies.
pub(crate) struct Unseen {
    cluster: ClusterId,
    identity: Identity,
    /// Header, footer and trailer are whole.
    ends: AtomicBool,
    /// One bit for each record by position, set once it was seen to be whole.
    records: Box<[AtomicU64]>,
}

impl Unseen {
    /// Nothing was looked at yet.
    pub(crate) fn new(cluster: ClusterId, identity: Identity, extent: &Extent) -> Self {
        let words = extent.records.div_ceil(u64::BITS as usize);
        let records = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { cluster, identity, ends: AtomicBool::new(false), records }
    }

    fn see_ends(&self, file: &[u8], extent: &Extent) {
        if !self.ends.load(Ordering::Relaxed) {
            self.check_ends(file, extent).unwrap_or_else(|flaw| self.die(&flaw));
        }
    }

    fn see_record(&self, run: &Run<'_>, position: usize) {
        let (word, bit) = (position / u64::BITS as usize, position % u64::BITS as usize);
        if self.records[word].load(Ordering::Relaxed) >> bit & 1 == 0 {
            self.check_record(run, position).unwrap_or_else(|flaw| self.die(&flaw));
            self.records[word].fetch_or(1 << bit, Ordering::Relaxed);
        }
    }

    fn check_ends(&self, file: &[u8], extent: &Extent) -> Result<(), Flaw> {
        check_ends(file, self.cluster, &self.identity, extent)?;
        self.ends.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Its checksum vouches for all that it says; that it is the one which belongs here its number tells.
    fn check_record(&self, run: &Run<'_>, position: usize) -> Result<(), Flaw> {
        let (offset, expected) = (run.offset(position), run.seq(position));
        let record = Record::check(run.bytes, offset).map_err(|flaw| flaw.behind(RECORDS_AT))?;
        let (end, next) = (offset + record.bytes().len(), run.offset(position + 1));
        if record.seq() != expected {
            let (expected, found) = (expected.0, record.seq().0);
            return Err(Flaw::new(RECORDS_AT + offset, "the record's number", expected, found));
        }
        if end != next {
            let (expected, found) = (next as u64, end as u64);
            return Err(Flaw::new(RECORDS_AT + offset, "the record's end", expected, found));
        }
        Ok(())
    }

    fn die(&self, flaw: &Flaw) -> ! {
        fatal::damaged("a record segment is damaged", &self.identity.file(), flaw)
    }
}

/// Records in order, wherever they lie.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// What of it was not yet looked at.
    unseen: Option<&'a Unseen>,
    first: Seq,
    bytes: &'a [u8],
    offsets: Offsets<'a>,
    seqs: Option<&'a [u8]>,
}

#[derive(Clone, Copy)]
enum Offsets<'a> {
    Heap(&'a [u32]),
    File(&'a [u8]),
}

impl<'a> Run<'a> {
    /// A run without gaps.
    pub(crate) fn dense(first: Seq, bytes: &'a [u8], offsets: &'a [u32]) -> Self {
        Self { unseen: None, first, bytes, offsets: Offsets::Heap(offsets), seqs: None }
    }

    /// A run with gaps, and the numbers of its records.
    pub(crate) fn sparse(first: Seq, bytes: &'a [u8], offsets: &'a [u32], seqs: &'a [u8]) -> Self {
        Self { unseen: None, first, bytes, offsets: Offsets::Heap(offsets), seqs: Some(seqs) }
    }

    /// Records in the run.
    pub(crate) fn len(&self) -> usize {
        match self.offsets {
            Offsets::Heap(offsets) => offsets.len(),
            Offsets::File(offsets) => offsets.len() / 4,
        }
    }

    /// Bytes of all records.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the record at `position` begins; the end of all records for the one behind the last.
    pub(crate) fn offset(&self, position: usize) -> usize {
        if position == self.len() {
            return self.bytes.len();
        }
        match self.offsets {
            Offsets::Heap(offsets) => offsets[position] as usize,
            Offsets::File(offsets) => u32::from_le_bytes(number(offsets, position)) as usize,
        }
    }

    /// Bytes of the record at `position`, without looking at it.
    pub(crate) fn size(&self, position: usize) -> usize {
        self.offset(position + 1) - self.offset(position)
    }

    pub(crate) fn at(&self, position: usize) -> Record<'a> {
        self.unseen.inspect(|unseen| unseen.see_record(self, position));
        Record::at_front(&self.bytes[self.offset(position)..])
    }

    /// Number of the record at `position`, without looking at it.
    pub(crate) fn seq(&self, position: usize) -> Seq {
        match self.seqs {
            None => Seq(self.first.0 + position as u64),
            Some(seqs) => Seq(u64::from_le_bytes(number(seqs, position))),
        }
    }

    /// Position of the first record numbered `seq` or above.
    pub(crate) fn position(&self, seq: Seq) -> usize {
        match self.seqs {
            None => (seq.0.saturating_sub(self.first.0) as usize).min(self.len()),
            Some(_) => partition(self.len(), |position| self.seq(position) < seq),
        }
    }

    /// Position of the record numbered `seq`, if it is here.
    pub(crate) fn find(&self, seq: Seq) -> Option<usize> {
        let position = self.position(seq);
        (position < self.len() && self.seq(position) == seq).then_some(position)
    }

    /// Position of the first record written at `stamp` or later.
    pub(crate) fn position_of(&self, stamp: Stamp) -> usize {
        partition(self.len(), |position| self.at(position).stamp() < stamp)
    }
}

/// First of `0..len` for which `before` is false; it is true below that and false above.
pub(crate) fn partition(len: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = usize::midpoint(low, high);
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

fn number<const N: usize>(bytes: &[u8], position: usize) -> [u8; N] {
    bytes[position * N..][..N].try_into().expect("the slice has the array's length")
}

// ── the file's own blocks ───────────────────────────────────────────────────────────────────────

/// The first block of a segment's file.
pub(crate) fn header(cluster: ClusterId, identity: &Identity) -> Vec<u8> {
    sign(block(HEADER_MAGIC, cluster, identity))
}

/// Footer and trailer of a sealed file: what lies from [`Extent::footer_at`] to the end.
pub(crate) fn ending(cluster: ClusterId, identity: &Identity, run: &Run<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for position in 0..run.len() {
        let offset = u32::try_from(run.offset(position)).expect("a segment is below 4 GiB");
        out.extend_from_slice(&offset.to_le_bytes());
    }
    if identity.generation > 0 {
        for position in 0..run.len() {
            out.extend_from_slice(&run.seq(position).0.to_le_bytes());
        }
    }
    let crc = crc32fast::hash(&out);
    let mut trailer = block(TRAILER_MAGIC, cluster, identity);
    put(&mut trailer, NEXT_AT, identity.next.0);
    put(&mut trailer, RECORDS_COUNT_AT, run.len() as u64);
    put(&mut trailer, RECORDS_BYTES_AT, run.bytes().len() as u64);
    put(&mut trailer, FOOTER_CRC_AT, crc.into());
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
    out.extend_from_slice(&sign(trailer));
    out
}

fn block(magic: u64, cluster: ClusterId, identity: &Identity) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    put(&mut block, MAGIC_AT, magic);
    put(&mut block, VERSION_AT, VERSION.into());
    put(&mut block, CLUSTER_AT, cluster.0);
    put(&mut block, ID_AT, identity.id);
    put(&mut block, GENERATION_AT, identity.generation);
    put(&mut block, FIRST_AT, identity.first.0);
    block
}

fn put(block: &mut [u8], at: usize, number: u64) {
    block[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn get(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(&block[at..], 0))
}

/// Fills in the checksum, which covers everything else in the block.
fn sign(mut block: Vec<u8>) -> Vec<u8> {
    let crc = checksum(&block);
    block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    block
}

fn checksum(block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..CRC_AT]);
    hasher.update(&block[CRC_AT + 4..BLOCK_BYTES]);
    hasher.finalize()
}

/// Checks the first block of a segment's file against what the superblock says of it.
pub(crate) fn check_header(
    block: &[u8],
    cluster: ClusterId,
    identity: &Identity,
) -> Result<(), Flaw> {
    check_block(block, 0, HEADER_MAGIC, cluster, identity)
}

fn check_block(
    block: &[u8],
    base: usize,
    magic: u64,
    cluster: ClusterId,
    identity: &Identity,
) -> Result<(), Flaw> {
    let same = |at: usize, what, expected: u64| match get(block, at) {
        found if found == expected => Ok(()),
        found => Err(Flaw::new(base + at, what, expected, found)),
    };
    same(MAGIC_AT, "the mark of a record segment", magic)?;
    let stored = u32::from_le_bytes(number(&block[CRC_AT..], 0));
    let found = checksum(block);
    if stored != found {
        let what = "the checksum of a segment's block";
        return Err(Flaw::new(base + CRC_AT, what, stored.into(), found.into()));
    }
    let version = u32::from_le_bytes(number(&block[VERSION_AT..], 0));
    if version != VERSION {
        let what = "a segment format that this version reads";
        return Err(Flaw::new(base + VERSION_AT, what, VERSION.into(), version.into()));
    }
    same(CLUSTER_AT, "the cluster's id", cluster.0)?;
    same(ID_AT, "the segment's id", identity.id)?;
    same(GENERATION_AT, "the segment's generation", identity.generation)?;
    same(FIRST_AT, "the segment's first record number", identity.first.0)
}

/// Checks what a sealed file has beside its records: header, trailer and footer.
fn check_ends(
    file: &[u8],
    cluster: ClusterId,
    identity: &Identity,
    extent: &Extent,
) -> Result<(), Flaw> {
    check_header(file, cluster, identity)?;
    let at = extent.trailer_at();
    let trailer = &file[at..];
    check_block(trailer, at, TRAILER_MAGIC, cluster, identity)?;
    let footer_at = extent.footer_at();
    let footer = &file[footer_at..footer_at + extent.footer_bytes()];
    let facts = [
        (NEXT_AT, "the number after the segment's last record", identity.next.0),
        (RECORDS_COUNT_AT, "the number of records", extent.records as u64),
        (RECORDS_BYTES_AT, "the bytes of all records", extent.bytes as u64),
        (FOOTER_CRC_AT, "the footer's checksum", crc32fast::hash(footer).into()),
    ];
    for (field, what, expected) in facts {
        if get(trailer, field) != expected {
            return Err(Flaw::new(at + field, what, expected, get(trailer, field)));
        }
    }
    Ok(())
}

/// Checks a sealed file whole: header, trailer, footer and every record.
pub(crate) fn check_sealed(
    file: &[u8],
    cluster: ClusterId,
    identity: &Identity,
    extent: &Extent,
) -> Result<(), Flaw> {
    check_ends(file, cluster, identity, extent)?;
    let footer_at = extent.footer_at();
    let footer = &file[footer_at..footer_at + extent.footer_bytes()];
    let records = &file[RECORDS_AT..RECORDS_AT + extent.bytes];
    let offsets =
        check_records(records, identity, extent.sparse).map_err(|flaw| flaw.behind(RECORDS_AT))?;
    let listed = footer.chunks_exact(4).take(extent.records);
    let same = offsets.iter().map(|offset| offset.to_le_bytes()).eq(listed);
    if same { Ok(()) } else { Err(Flaw::new(footer_at, "the offsets of the records", 1, 0)) }
}

/// Checks records that lie one behind the other and says where each begins. They are numbered
/// upwards within the segment's reach, without gaps unless `sparse`.
pub(crate) fn check_records(
    bytes: &[u8],
    identity: &Identity,
    sparse: bool,
) -> Result<Vec<u32>, Flaw> {
    let mut check = RecordCheck::new(bytes, identity, sparse);
    while !check.step(usize::MAX)? {}
    Ok(check.offsets)
}

/// [`check_records`] in pieces.
pub(crate) struct RecordCheck<'a> {
    bytes: &'a [u8],
    identity: Identity,
    sparse: bool,
    offset: usize,
    next: Seq,
    last: Stamp,
    /// Where each record begins that was checked.
    pub(crate) offsets: Vec<u32>,
}

impl<'a> RecordCheck<'a> {
    pub(crate) fn new(bytes: &'a [u8], identity: &Identity, sparse: bool) -> Self {
        Self {
            bytes,
            identity: *identity,
            sparse,
            offset: 0,
            next: identity.first,
            last: Stamp::default(),
            offsets: Vec::with_capacity(bytes.len() / (4 * RECORD_HEADER_BYTES)),
        }
    }

    /// Checks records of about `budget` bytes more; true once there are no others.
    pub(crate) fn step(&mut self, budget: usize) -> Result<bool, Flaw> {
        let pause = self.offset.saturating_add(budget);
        while self.offset < self.bytes.len() {
            if self.offset >= pause {
                return Ok(false);
            }
            self.check_one()?;
        }
        let end = self.identity.next;
        if self.next != end && !self.sparse {
            let what = "as many records as the superblock says";
            return Err(Flaw::new(self.offset, what, end.0, self.next.0));
        }
        Ok(true)
    }

    fn check_one(&mut self) -> Result<(), Flaw> {
        let Self { offset, next, last, .. } = *self;
        let record = Record::check(self.bytes, offset)?;
        let seq = record.seq();
        if seq < next || (seq > next && !self.sparse) || seq >= self.identity.next {
            return Err(Flaw::new(offset, "the record's number", next.0, seq.0));
        }
        let stamp = record.stamp();
        if stamp <= last {
            let (expected, found) = (last.main.0 as u64, stamp.main.0 as u64);
            return Err(Flaw::new(offset, "a revision above the one before", expected, found));
        }
        self.offsets.push(u32::try_from(offset).expect("a segment is below 4 GiB"));
        self.offset += record.bytes().len();
        (self.next, self.last) = (Seq(seq.0 + 1), stamp);
        Ok(())
    }
}
