//! The superblock: everything that is true at one applied index, written at once (decision 13).
//!
//! The file `superblock` has two slots. Root number n goes into slot n mod 2 when all that it
//! names is durable, so at every moment one whole slot names a whole state; the newest whole one
//! wins. Everything in a slot lies under one checksum.
//!
//! ```text
//!   0   u64 magic  u32 version  u32 crc of everything else  u64 bytes in use
//!  24   u64 number  u64 cluster  u64 member
//!  48   u64 applied index  u64 applied term  u64 installed index
//!  72   i64 revision  i64 compacted
//!  88   u64 next seq  u64 bytes of a segment
//! 104   u64 tail id  u64 tail's generation  u64 tail's first seq  u64 tail's bytes
//! 136   u64 bytes of the list of dead records (see `dead`), 0 for none
//! 144   u64 number of the superblock that the table of leases (see `lease`) was written for
//!       u64 its bytes, 0 for none  u64 its crc
//! 168   i64 swept
//! 176   where the index of the keys has its root (see `page`): u64 link, all ones for an empty index
//!       u64 its crc  u64 live cells  u64 cells  u64 files
//! 216   likewise of the keys that hold on to leases
//! 256   u32 sealed segments  u32 bytes of state
//! 264   for each file of the one index, then of the other, by slot, 32 bytes:
//!         u64 slot  u64 number  u64 bytes  u64 bytes of pages that count
//!       for each sealed segment, in order, 64 bytes:
//!         u64 id  u64 generation  u64 first seq  u64 next seq  u64 records  u64 their bytes
//!         u64 live records  u64 their bytes
//!       state
//! ```
//!
//! Magic, version, checksum and length keep their places in every later format, so that an old
//! program can tell a newer directory from a damaged one.

use super::{
    dead,
    index::{INDEXES, IndexEntry, IndexRoot, Which},
    lease::LeaseFile,
    page::{Count, Link},
    segment::{Extent, Flaw, Identity, file},
};
use crate::{
    io::BLOCK_BYTES,
    limits::{INDEX_FILES_MAX, ROOT_BYTES_MIN, ROOT_SEGMENT_SHARE},
    types::{ClusterId, Index, MemberId, Revision, Seq, Term},
};
use bytes::Bytes;

/// Name of the file below the disk's root.
pub const FILE: &str = "superblock";
pub(crate) const SLOTS: u64 = 2;

const MAGIC: u64 = u64::from_le_bytes(*b"RLroot\r\n");
const VERSION: u32 = 3;

const VERSION_AT: usize = 8;
const CRC_AT: usize = VERSION_AT + 4;
const BYTES_AT: usize = CRC_AT + 4;
const FIXED_AT: usize = BYTES_AT + 8;
const ENTRIES_AT: usize = FIXED_AT + 29 * 8 + 2 * 4;
const INDEX_ENTRY_BYTES: usize = 4 * 8;
const ENTRY_BYTES: usize = 8 * 8;
const _: () = assert!(ENTRIES_AT == 264);
/// Stands for the link to the root of an index that is empty.
const NO_LINK: u64 = u64::MAX;

/// Bytes of one slot: a share of a segment, so that tiny test directories have tiny superblocks.
pub(crate) fn slot_bytes(segment_bytes: usize) -> usize {
    (segment_bytes / ROOT_SEGMENT_SHARE).max(ROOT_BYTES_MIN).next_multiple_of(BLOCK_BYTES)
}

/// What the member knows at an applied index and the tree does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFacts {
    /// The cluster this directory belongs to.
    pub cluster: ClusterId,
    /// The member this directory belongs to.
    pub member: MemberId,
    /// Everything up to this entry of the log has been applied, and nothing behind it.
    pub applied: Index,
    /// That entry's term.
    pub applied_term: Term,
    /// Everything up to this entry came as a whole, not through the log, which may end before it. 0
    /// where all that was applied went through the log.
    pub installed: Index,
    /// The store's revision.
    pub revision: Revision,
    /// Whatever else the store knows; bounded by [`crate::limits::ROOT_STATE_BYTES_MAX`].
    pub state: Bytes,
}

/// What one superblock says, all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Superblocks are numbered upwards.
    pub number: u64,
    /// What the member knew.
    pub facts: RootFacts,
    /// The compacted revision, -1 for never.
    pub compacted: Revision,
    /// Number of the next record.
    pub seq_next: Seq,
    /// Where the other slot is damaged: this root may not be the newest that was written, so the
    /// log must be seen to go on from it.
    pub sibling_damage: Option<Flaw>,
    pub(crate) segment_bytes: usize,
    pub(crate) sealed: Vec<Entry>,
    pub(crate) tail: TailEntry,
    /// Bytes of the list of dead records that was written with this root; 0 for none.
    pub(crate) dead_bytes: usize,
    pub(crate) leases: LeaseFile,
    /// What the compaction at this revision takes is taken, from the index and from the records.
    pub(crate) swept: Revision,
    /// One for each of [`INDEXES`].
    pub(super) index: [IndexRoot; INDEXES.len()],
}

/// A sealed segment, as the superblock names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) identity: Identity,
    pub(crate) extent: Extent,
    /// What compaction has not taken of it.
    pub(crate) live: Live,
}

/// Records that compaction has not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) records: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
}

/// How far the tail's file counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailEntry {
    pub(crate) id: u64,
    /// Above 0 for one that came with a snapshot.
    pub(crate) generation: u64,
    pub(crate) first: Seq,
    /// Bytes of records; 0 where there may be no file.
    pub(crate) bytes: usize,
}

impl TailEntry {
    /// The file's name below the disk's root.
    pub(crate) fn file(&self) -> String {
        file(self.id, self.generation)
    }
}

/// Where a tree stands when it comes from a superblock, or from nothing.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) number: u64,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    /// Not above `compacted`.
    pub(crate) swept: Revision,
    /// The list of dead records.
    pub(crate) dead_file: Option<String>,
    pub(crate) leases: LeaseFile,
    /// Names of the index's files.
    pub(crate) index_files: Vec<String>,
}

impl Standing {
    /// Nothing was ever written.
    pub(crate) const NEW: Self = Self {
        number: 1,
        revision: Revision(0),
        compacted: Revision(-1),
        swept: Revision(-1),
        dead_file: None,
        leases: LeaseFile { number: 0, bytes: 0, crc: 0 },
        index_files: Vec::new(),
    };
}

impl Root {
    /// Where in the file this root goes.
    pub(crate) fn offset(&self) -> u64 {
        self.number % SLOTS * slot_bytes(self.segment_bytes) as u64
    }

    /// Names of all files that this root needs.
    pub fn files(&self) -> impl Iterator<Item = String> {
        let tail = (self.tail.bytes > 0).then(|| self.tail.file());
        let sealed = self.sealed.iter().map(|entry| entry.identity.file());
        let lists = self.dead_file().into_iter().chain(self.leases.name());
        sealed.chain(tail).chain(lists).chain(self.index_files())
    }

    /// Names of the index's files.
    fn index_files(&self) -> impl Iterator<Item = String> {
        let names = |(which, index): (Which, &IndexRoot)| index.names(which).collect::<Vec<_>>();
        INDEXES.into_iter().zip(&self.index).flat_map(names)
    }

    /// Where a tree stands that comes from this root.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            number: self.number,
            revision: self.facts.revision,
            compacted: self.compacted,
            swept: self.swept,
            dead_file: self.dead_file(),
            leases: self.leases,
            index_files: self.index_files().collect(),
        }
    }

    /// The list of dead records that belongs to this root.
    pub(crate) fn dead_file(&self) -> Option<String> {
        (self.dead_bytes > 0).then(|| dead::file(self.number))
    }

    /// The slot's bytes. They fit if they are no more than [`slot_bytes`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let facts = &self.facts;
        let files = || self.index.iter().flat_map(|index| &index.files);
        let entries = files().count() * INDEX_ENTRY_BYTES + self.sealed.len() * ENTRY_BYTES;
        let bytes = ENTRIES_AT + entries + facts.state.len();
        let mut out = Vec::with_capacity(bytes.next_multiple_of(BLOCK_BYTES));
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let fixed = [
            bytes as u64,
            self.number,
            facts.cluster.0,
            facts.member.0,
            facts.applied.0,
            facts.applied_term.0,
            facts.installed.0,
            facts.revision.0 as u64,
            self.compacted.0 as u64,
            self.seq_next.0,
            self.segment_bytes as u64,
            self.tail.id,
            self.tail.generation,
            self.tail.first.0,
            self.tail.bytes as u64,
            self.dead_bytes as u64,
            self.leases.number,
            self.leases.bytes,
            self.leases.crc.into(),
            self.swept.0 as u64,
        ];
        let put = |out: &mut Vec<u8>, numbers: &[u64]| {
            numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        };
        put(&mut out, &fixed);
        for IndexRoot { root, count, files } in &self.index {
            put(&mut out, &root.map_or([NO_LINK, 0], Link::to_numbers));
            put(&mut out, &[count.live, count.cells, files.len() as u64]);
        }
        for count in [self.sealed.len(), facts.state.len()] {
            let count = u32::try_from(count).expect("a slot is below 4 GiB");
            out.extend_from_slice(&count.to_le_bytes());
        }
        for entry in files() {
            put(&mut out, &[entry.slot.into(), entry.number, entry.bytes, entry.live]);
        }
        for Entry { identity, extent, live } in &self.sealed {
            put(&mut out, &[identity.id, identity.generation, identity.first.0, identity.next.0]);
            put(
                &mut out,
                &[extent.records, extent.bytes, live.records, live.bytes].map(|n| n as u64),
            );
        }
        out.extend_from_slice(&facts.state);
        let crc = checksum(&out);
        out[CRC_AT..BYTES_AT].copy_from_slice(&crc.to_le_bytes());
        out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        out
    }
}

/// What was found in a slot.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// Never written.
    Blank,
    Whole(Box<Root>),
    Damaged(Flaw),
    /// Whole, in a format of this version.
    Foreign(u32),
}

/// How many bytes of a slot are in use, from its first block, to read the rest. Not yet checked,
/// but no more than a slot holds; None for a block that begins no root.
pub(crate) fn bytes_in_use(block: &[u8], slot_bytes: usize) -> Option<usize> {
    let bytes = usize::try_from(u64::from_le_bytes(array(block, BYTES_AT))).ok()?;
    let whole = array(block, 0) == MAGIC.to_le_bytes();
    (whole && (FIXED_AT..=slot_bytes).contains(&bytes)).then_some(bytes)
}

/// Reads slot `index`, whose bytes begin at `base` of the file.
pub(crate) fn decode(slot: &[u8], base: usize, index: u64) -> Slot {
    let flaw =
        |at, what, expected, found| Slot::Damaged(Flaw::new(base + at, what, expected, found));
    if slot.iter().all(|byte| *byte == 0) {
        return Slot::Blank;
    }
    let magic = u64::from_le_bytes(array(slot, 0));
    if magic != MAGIC {
        return flaw(0, "the mark of a superblock", MAGIC, magic);
    }
    let Some(bytes) = bytes_in_use(slot, slot.len()) else {
        let found = u64::from_le_bytes(array(slot, BYTES_AT));
        return flaw(BYTES_AT, "a superblock that fits its slot", slot.len() as u64, found);
    };
    let expected = u32::from_le_bytes(array(slot, CRC_AT));
    let found = checksum(&slot[..bytes]);
    if expected != found {
        return flaw(CRC_AT, "the superblock's checksum", expected.into(), found.into());
    }
    let version = u32::from_le_bytes(array(slot, VERSION_AT));
    if version != VERSION {
        return Slot::Foreign(version);
    }
    match parse(&slot[..bytes]) {
        Some(root) if root.number % SLOTS == index => Slot::Whole(Box::new(root)),
        Some(root) => flaw(FIXED_AT, "a superblock that belongs in this slot", index, root.number),
        None => flaw(ENTRIES_AT, "a superblock as long as its parts", bytes as u64, 0),
    }
}

fn parse(bytes: &[u8]) -> Option<Root> {
    let mut rest = bytes.get(FIXED_AT..)?;
    let mut number = || {
        let (number, tail) = rest.split_first_chunk()?;
        rest = tail;
        Some(u64::from_le_bytes(*number))
    };
    let root_number = number()?;
    let (cluster, member) = (ClusterId(number()?), MemberId(number()?));
    let (applied, applied_term) = (Index(number()?), Term(number()?));
    let installed = Index(number()?);
    let (revision, compacted) = (Revision(number()? as i64), Revision(number()? as i64));
    let (seq_next, segment_bytes) = (Seq(number()?), number()? as usize);
    let (id, generation) = (number()?, number()?);
    let tail = TailEntry { id, generation, first: Seq(number()?), bytes: number()? as usize };
    let dead_bytes = number()? as usize;
    let leases =
        LeaseFile { number: number()?, bytes: number()?, crc: u32::try_from(number()?).ok()? };
    let swept = Revision(number()? as i64);
    let mut index = [const { IndexRoot::EMPTY }; INDEXES.len()];
    let mut files = [0; INDEXES.len()];
    for (index, files) in index.iter_mut().zip(&mut files) {
        index.root = match [number()?, number()?] {
            [NO_LINK, _] => None,
            link => Some(Link::from_numbers(link)?),
        };
        index.count = Count { live: number()?, cells: number()? };
        *files = number()?;
    }
    let counts = number()?;
    for (index, files) in index.iter_mut().zip(files) {
        for _ in 0..files {
            let slot = u16::try_from(number()?).ok()?;
            let slot = (usize::from(slot) < INDEX_FILES_MAX).then_some(slot)?;
            let (number, bytes, live) = (number()?, number()?, number()?);
            index.files.push(IndexEntry { slot, number, bytes, live });
        }
    }
    let mut sealed = Vec::new();
    for _ in 0..counts as u32 {
        let (id, generation) = (number()?, number()?);
        let identity = Identity { id, generation, first: Seq(number()?), next: Seq(number()?) };
        let (records, bytes) = (number()? as usize, number()? as usize);
        let extent = Extent { records, bytes, sparse: generation > 0 };
        let live = Live { records: number()? as usize, bytes: number()? as usize };
        sealed.push(Entry { identity, extent, live });
    }
    let state = Bytes::copy_from_slice(rest);
    if state.len() as u64 != counts >> 32 {
        return None;
    }
    let facts = RootFacts { cluster, member, applied, applied_term, installed, revision, state };
    Some(Root {
        number: root_number,
        facts,
        compacted,
        seq_next,
        sibling_damage: None,
        segment_bytes,
        sealed,
        tail,
        dead_bytes,
        leases,
        swept,
        index,
    })
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[BYTES_AT..]);
    hasher.finalize()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the array's length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u64) -> Root {
        let identity = Identity { id: 3, generation: 2, first: Seq(10), next: Seq(90) };
        Root {
            number,
            facts: RootFacts {
                cluster: ClusterId(7),
                member: MemberId(8),
                applied: Index(99),
                applied_term: Term(4),
                installed: Index(60),
                revision: Revision(80),
                state: Bytes::from_static(b"members and alarms"),
            },
            compacted: Revision(-1),
            seq_next: Seq(120),
            sibling_damage: None,
            segment_bytes: 16384,
            sealed: vec![Entry {
                identity,
                extent: Extent { records: 5, bytes: 640, sparse: true },
                live: Live { records: 4, bytes: 512 },
            }],
            tail: TailEntry { id: 4, generation: 1 << 32, first: Seq(90), bytes: 4000 },
            dead_bytes: 48,
            leases: LeaseFile { number: 3, bytes: 64, crc: 9 },
            swept: Revision(-1),
            index: [
                IndexRoot {
                    root: Link::from_numbers([1 << 48 | 64, 5]),
                    count: Count { live: 3, cells: 4 },
                    files: vec![IndexEntry { slot: 1, number: 5, bytes: 8192, live: 4096 }],
                },
                IndexRoot::EMPTY,
            ],
        }
    }

    #[test]
    fn a_root_reads_back_as_written_and_only_from_its_own_slot() {
        let root = sample(5);
        let bytes = root.encode();
        let Slot::Whole(read) = decode(&bytes, 0, 1) else { panic!("slot 1 holds root 5") };
        assert_eq!(*read, root);
        assert!(matches!(decode(&bytes, 0, 0), Slot::Damaged(_)));
        assert!(matches!(decode(&vec![0; bytes.len()], 0, 0), Slot::Blank));
    }

    #[test]
    fn every_flipped_bit_in_use_is_noticed() {
        let bytes = sample(4).encode();
        let in_use = bytes_in_use(&bytes, bytes.len()).expect("just encoded");
        for bit in 0..in_use * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&damaged, 0, 0), Slot::Damaged(_)), "bit {bit}");
        }
    }

    #[test]
    fn another_format_is_told_from_damage() {
        let mut bytes = sample(4).encode();
        let in_use = bytes_in_use(&bytes, bytes.len()).expect("just encoded");
        for version in [2, 9] {
            bytes[VERSION_AT] = version;
            let crc = checksum(&bytes[..in_use]);
            bytes[CRC_AT..BYTES_AT].copy_from_slice(&crc.to_le_bytes());
            let Slot::Foreign(found) = decode(&bytes, 0, 0) else { panic!("it is whole") };
            assert_eq!(found, u32::from(version));
        }
    }
}
