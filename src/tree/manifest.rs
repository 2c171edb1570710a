//! What a snapshot for another member consists of: a list of parts, and all that is true of them at
//! one applied index.
//!
//! The manifest goes ahead; who gets it says which parts are missing. Its own checksum covers it, and
//! it holds a checksum for each part, so every byte of a snapshot is checked where it arrives.
//!
//! ```text
//!   0   u64 magic  u32 version  u32 crc of everything else  u64 bytes
//!  24   u64 cluster  u64 member that made it
//!  40   u64 applied index  u64 applied term  i64 revision  i64 compacted
//!  72   u64 next seq  u64 bytes of a segment  u64 tail id
//!  96   u32 parts  u32 bytes of state
//! 104   for each part, 56 bytes:
//!         u64 id  u64 generation  u64 first seq  u64 next seq  u64 records  u64 bytes
//!         u32 crc of those bytes  u32 kind
//!       state
//!
//! kind 1  a segment: its records, one behind the other        in order, first seqs ascending
//!      2  the tail: likewise, without gaps                     none where it is empty
//!      3  the dead records of the segments (see `dead`)        none where none is dead
//!      4  the leases: the list of a table (see `lease`)        none where there is none
//! ```
//!
//! Id, generation, first and next seq are 0 for a list.

use super::{
    dead,
    lease::LEASE_BYTES,
    record::RECORD_BYTES_MIN,
    root::RootFacts,
    segment::{Flaw, Identity},
};
use crate::{
    limits::{
        RECORD_BYTES_MAX, ROOT_STATE_BYTES_MAX, SNAPSHOT_MANIFEST_BYTES_MAX, SNAPSHOT_PARTS_MAX,
    },
    types::{ClusterId, Index, MemberId, Revision, Seq, Term},
};
use bytes::Bytes;

const MAGIC: u64 = u64::from_le_bytes(*b"RLsnap\r\n");
const VERSION: u32 = 1;

const VERSION_AT: usize = 8;
const CRC_AT: usize = VERSION_AT + 4;
const BYTES_AT: usize = CRC_AT + 4;
const CLUSTER_AT: usize = BYTES_AT + 8;
const MEMBER_AT: usize = CLUSTER_AT + 8;
const APPLIED_AT: usize = MEMBER_AT + 8;
const TERM_AT: usize = APPLIED_AT + 8;
const REVISION_AT: usize = TERM_AT + 8;
const COMPACTED_AT: usize = REVISION_AT + 8;
const SEQ_NEXT_AT: usize = COMPACTED_AT + 8;
const SEGMENT_BYTES_AT: usize = SEQ_NEXT_AT + 8;
const TAIL_ID_AT: usize = SEGMENT_BYTES_AT + 8;
const PARTS_AT: usize = TAIL_ID_AT + 8;
const STATE_BYTES_AT: usize = PARTS_AT + 4;
const LIST_AT: usize = STATE_BYTES_AT + 4;
const PART_BYTES: usize = 7 * 8;
const _: () = assert!(LIST_AT == 104);

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Segment = 1,
    Tail = 2,
    Dead = 3,
    Leases = 4,
}

/// One part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) kind: Kind,
    /// Of the segment where the snapshot was made.
    pub(crate) identity: Identity,
    /// Records or leases; 0 for the dead.
    pub(crate) records: usize,
    pub(crate) bytes: u64,
    /// CRC-32 of those bytes.
    pub(crate) crc: u32,
}

impl Part {
    /// A list, which belongs to no segment.
    pub(crate) fn list(kind: Kind, records: usize, bytes: u64, crc: u32) -> Self {
        let identity = Identity { id: 0, generation: 0, first: Seq(0), next: Seq(0) };
        Self { kind, identity, records, bytes, crc }
    }

    /// Whether it holds records, and the same ones as `other`.
    pub(crate) fn same_records(&self, other: &Self) -> bool {
        let key = |part: &Self| {
            let Identity { id, first, next, .. } = part.identity;
            (part.kind, id, first, next, part.records, part.bytes, part.crc)
        };
        self.kind <= Kind::Tail && key(self) == key(other)
    }
}

/// A snapshot's table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What the member knew that made it.
    pub(crate) facts: RootFacts,
    pub(crate) compacted: Revision,
    pub(crate) seq_next: Seq,
    pub(crate) segment_bytes: usize,
    pub(crate) tail_id: u64,
    pub(crate) parts: Vec<Part>,
}

impl Manifest {
    /// What the member knew that made the snapshot.
    pub fn facts(&self) -> &RootFacts {
        &self.facts
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Bytes of part `part`.
    ///
    /// # Panics
    /// If there is no such part.
    pub fn part_bytes(&self, part: usize) -> u64 {
        self.parts[part].bytes
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let facts = &self.facts;
        let bytes = LIST_AT + self.parts.len() * PART_BYTES + facts.state.len();
        let mut out = Vec::with_capacity(bytes);
        let mut put = |number: &u64| out.extend_from_slice(&number.to_le_bytes());
        let fixed = [
            MAGIC,
            VERSION.into(),
            bytes as u64,
            facts.cluster.0,
            facts.member.0,
            facts.applied.0,
            facts.applied_term.0,
            facts.revision.0 as u64,
            self.compacted.0 as u64,
            self.seq_next.0,
            self.segment_bytes as u64,
            self.tail_id,
            self.parts.len() as u64 | (facts.state.len() as u64) << 32,
        ];
        fixed.iter().for_each(&mut put);
        for part in &self.parts {
            let Identity { id, generation, first, next } = part.identity;
            let crc_and_kind = u64::from(part.crc) | (part.kind as u64) << 32;
            let numbers = [id, generation, first.0, next.0, part.records as u64, part.bytes];
            numbers.iter().chain([&crc_and_kind]).for_each(&mut put);
        }
        out.extend_from_slice(&facts.state);
        let crc = checksum(&out);
        out[CRC_AT..BYTES_AT].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a manifest that a member of `cluster` may have sent, for a directory with segments of
    /// `segment_bytes`. What it says fits together; whether the parts are so, they must show.
    ///
    /// # Errors
    /// The place, what was expected there and what was found.
    pub fn decode(bytes: &[u8], cluster: ClusterId, segment_bytes: usize) -> Result<Self, Flaw> {
        check_frame(bytes)?;
        check(bytes, CLUSTER_AT, "the cluster's id", cluster.0)?;
        check(bytes, SEGMENT_BYTES_AT, "segments of the same size", segment_bytes as u64)?;
        let (parts, state) = (half(bytes, PARTS_AT), half(bytes, STATE_BYTES_AT));
        at_most(PARTS_AT, "parts", parts as usize, SNAPSHOT_PARTS_MAX)?;
        at_most(STATE_BYTES_AT, "bytes of state", state as usize, ROOT_STATE_BYTES_MAX)?;
        let list_end = LIST_AT + parts as usize * PART_BYTES;
        let whole = list_end + state as usize;
        if whole != bytes.len() {
            let what = "as many bytes as its parts and its state";
            return Err(Flaw::new(BYTES_AT, what, whole as u64, bytes.len() as u64));
        }
        let manifest = Self {
            facts: RootFacts {
                cluster,
                member: MemberId(word(bytes, MEMBER_AT)),
                applied: Index(word(bytes, APPLIED_AT)),
                applied_term: Term(word(bytes, TERM_AT)),
                installed: Index(word(bytes, APPLIED_AT)),
                revision: Revision(word(bytes, REVISION_AT) as i64),
                state: Bytes::copy_from_slice(&bytes[list_end..]),
            },
            compacted: Revision(word(bytes, COMPACTED_AT) as i64),
            seq_next: Seq(word(bytes, SEQ_NEXT_AT)),
            segment_bytes,
            tail_id: word(bytes, TAIL_ID_AT),
            parts: (0..parts as usize).map(|at| read_part(bytes, at)).collect::<Result<_, _>>()?,
        };
        manifest.fits_together()?;
        Ok(manifest)
    }

    /// The parts come in their order, the segments one behind the other up to the next record, and
    /// none is larger than what it can hold.
    fn fits_together(&self) -> Result<(), Flaw> {
        let (revision, compacted) = (self.facts.revision.0, self.compacted.0);
        if revision < 1 || !(-1..=revision).contains(&compacted) {
            let what = "a compacted revision up to the newest";
            return Err(Flaw::new(COMPACTED_AT, what, revision as u64, compacted as u64));
        }
        let (mut kind, mut id, mut next, mut records) = (Kind::Segment, None, Seq(0), 0_usize);
        for (at, part) in self.parts.iter().enumerate() {
            let base = LIST_AT + at * PART_BYTES;
            if part.kind < kind || (part.kind == kind && kind != Kind::Segment) {
                let what = "a part of a later kind than the one before";
                return Err(Flaw::new(base, what, kind as u64, part.kind as u64));
            }
            kind = part.kind;
            if kind <= Kind::Tail {
                let Identity { id: own, first, next: end, .. } = part.identity;
                if id.is_some_and(|id| own <= id) || first < next || end <= first {
                    let what = "a segment behind the one before";
                    return Err(Flaw::new(base, what, next.0, first.0));
                }
                (id, next) = (Some(own), end);
                records = records.saturating_add(part.records);
            }
            self.check_size(part, records).map_err(|flaw| flaw.behind(base))?;
        }
        self.ends_at_the_tail(id, next)
    }

    fn check_size(&self, part: &Part, records: usize) -> Result<(), Flaw> {
        let Identity { first, next, .. } = part.identity;
        let numbers = next.0 - first.0;
        let flaw = |what, most: u64, found: u64| Err(Flaw::new(0, what, most, found));
        match part.kind {
            Kind::Segment | Kind::Tail => {
                let most = if part.records == 1 {
                    RECORD_BYTES_MAX.max(self.segment_bytes)
                } else {
                    self.segment_bytes
                } as u64;
                let least = part.records.saturating_mul(RECORD_BYTES_MIN) as u64;
                let gaps = part.kind == Kind::Segment;
                let count = part.records as u64;
                if count == 0 || count > numbers || (count < numbers && !gaps) {
                    flaw("records as numbered", numbers, count)
                } else if !(least..=most).contains(&part.bytes) || !part.bytes.is_multiple_of(8) {
                    flaw("bytes of so many records", most, part.bytes)
                } else {
                    Ok(())
                }
            }
            Kind::Dead => {
                let most = dead::bytes_max(self.parts.len(), records);
                let fits = (dead::HEAD_BYTES as u64..=most).contains(&part.bytes);
                if fits { Ok(()) } else { flaw("a list of the dead", most, part.bytes) }
            }
            Kind::Leases => {
                let bytes = (part.records as u64).saturating_mul(LEASE_BYTES as u64);
                let fits = bytes == part.bytes && bytes > 0;
                if fits { Ok(()) } else { flaw("bytes of so many leases", bytes, part.bytes) }
            }
        }
    }

    fn ends_at_the_tail(&self, id: Option<u64>, next: Seq) -> Result<(), Flaw> {
        let tail = self.parts.iter().find(|part| part.kind == Kind::Tail);
        let (wanted, reached) = match tail {
            Some(tail) => (tail.identity.id, self.seq_next == next),
            None => (self.tail_id, self.seq_next >= next && id.is_none_or(|id| id < self.tail_id)),
        };
        if wanted != self.tail_id {
            return Err(Flaw::new(TAIL_ID_AT, "the tail's id", wanted, self.tail_id));
        }
        if !reached {
            let what = "the number behind the last record";
            return Err(Flaw::new(SEQ_NEXT_AT, what, next.0, self.seq_next.0));
        }
        Ok(())
    }
}

/// Length, magic, checksum, version: in this order, so that another format is told from damage.
fn check_frame(bytes: &[u8]) -> Result<(), Flaw> {
    let len = bytes.len();
    if len < LIST_AT {
        return Err(Flaw::new(0, "a whole manifest", LIST_AT as u64, len as u64));
    }
    at_most(0, "bytes of a manifest", len, SNAPSHOT_MANIFEST_BYTES_MAX)?;
    check(bytes, 0, "the mark of a snapshot's manifest", MAGIC)?;
    check(bytes, BYTES_AT, "a manifest of this many bytes", len as u64)?;
    let (expected, found) = (half(bytes, CRC_AT), checksum(bytes));
    if expected != found {
        let what = "the manifest's checksum";
        return Err(Flaw::new(CRC_AT, what, expected.into(), found.into()));
    }
    match half(bytes, VERSION_AT) {
        VERSION => Ok(()),
        version => {
            let what = "a snapshot format that this version reads";
            Err(Flaw::new(VERSION_AT, what, VERSION.into(), version.into()))
        }
    }
}

fn read_part(bytes: &[u8], at: usize) -> Result<Part, Flaw> {
    let base = LIST_AT + at * PART_BYTES;
    let number = |field: usize| word(bytes, base + field * 8);
    let kind = match number(6) >> 32 {
        1 => Kind::Segment,
        2 => Kind::Tail,
        3 => Kind::Dead,
        4 => Kind::Leases,
        kind => return Err(Flaw::new(base, "a part of a known kind", 4, kind)),
    };
    let identity = Identity {
        id: number(0),
        generation: number(1),
        first: Seq(number(2)),
        next: Seq(number(3)),
    };
    if identity.next < identity.first {
        return Err(Flaw::new(base, "a part that ends behind its start", number(2), number(3)));
    }
    let records = usize::try_from(number(4)).expect("64-bit machine");
    Ok(Part { kind, identity, records, bytes: number(5), crc: number(6) as u32 })
}

fn check(bytes: &[u8], at: usize, what: &'static str, expected: u64) -> Result<(), Flaw> {
    let found = word(bytes, at);
    if found == expected { Ok(()) } else { Err(Flaw::new(at, what, expected, found)) }
}

fn at_most(at: usize, what: &'static str, found: usize, most: usize) -> Result<(), Flaw> {
    if found <= most { Ok(()) } else { Err(Flaw::new(at, what, most as u64, found as u64)) }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has the number's length"))
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the slice has the number's length"))
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[BYTES_AT..]);
    hasher.finalize()
}
