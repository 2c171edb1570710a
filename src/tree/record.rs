//! A record: one change of one key, written once.
//!
//! Little endian; a record starts at a multiple of 8. Offsets below are computed, each from the
//! field before it.
//!
//! ```text
//!   0  u32  crc         CRC-32 of bytes 4 .. 64 + len
//!   4  u32  len         bytes of payload
//!   8  u64  seq         dense number of this record since genesis: its address
//!  16  i64  main        revision
//!  24  u32  sub         position inside the revision
//!  28  u16  flags       1 tombstone, 2 create
//!  30  u8   rank        this version heads a tree of 2^rank - 1 versions in its key's chain
//!  31  u8   zero
//!  32  u64  prev seq    the previous version of this key ...
//!  40  i64  prev main   ... and its revision; 0 for none
//!  48  u64  jump seq    the version that the chain skips to (see `chain`) ...
//!  56  i64  jump main   ... and its revision; 0 for none
//!  64       payload     exact mvccpb.KeyValue bytes, then zeros up to a multiple of 8
//! ```
//!
//! Nothing in a record depends on the member that wrote it or on when its compaction ran, so the
//! same log makes the same bytes everywhere.

use super::{chain::Link, kv, segment::Flaw};
use crate::types::{Revision, Seq, Stamp};

const CRC_AT: usize = 0;
const LEN_AT: usize = CRC_AT + 4;
const SEQ_AT: usize = LEN_AT + 4;
const MAIN_AT: usize = SEQ_AT + 8;
const SUB_AT: usize = MAIN_AT + 8;
const FLAGS_AT: usize = SUB_AT + 4;
const RANK_AT: usize = FLAGS_AT + 2;
const ZERO_AT: usize = RANK_AT + 1;
const PREV_AT: usize = ZERO_AT + 1;
const JUMP_AT: usize = PREV_AT + LINK_BYTES;
/// Bytes before the payload: one cache line.
pub(crate) const HEADER_BYTES: usize = JUMP_AT + LINK_BYTES;
const LINK_BYTES: usize = 16;
const _: () = assert!(HEADER_BYTES == 64);

/// Records start at multiples of this.
const ALIGN_BYTES: usize = 8;

/// Smallest record there can be: a header and the tag and length of a key.
pub(crate) const RECORD_BYTES_MIN: usize = HEADER_BYTES + ALIGN_BYTES;

const TOMBSTONE: u16 = 1;
const CREATE: u16 = 2;

/// What a record's header says, for writing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) seq: Seq,
    pub(crate) stamp: Stamp,
    pub(crate) tombstone: bool,
    /// Version 1: before this record the key did not exist, or was deleted.
    pub(crate) create: bool,
    pub(crate) rank: u8,
    pub(crate) prev: Option<Link>,
    pub(crate) jump: Option<Link>,
}

/// Replaces `out` by a whole record: header, payload, padding.
pub(crate) fn encode(header: &Header, payload: &kv::KeyValue<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER_BYTES, 0);
    payload.encode(out);
    let len = u32::try_from(out.len() - HEADER_BYTES).expect("a request is far below 4 GiB");
    let mut flags = 0;
    flags |= if header.tombstone { TOMBSTONE } else { 0 };
    flags |= if header.create { CREATE } else { 0 };
    put(out, LEN_AT, len.to_le_bytes());
    put(out, SEQ_AT, header.seq.0.to_le_bytes());
    put(out, MAIN_AT, header.stamp.main.0.to_le_bytes());
    put(out, SUB_AT, header.stamp.sub.to_le_bytes());
    put(out, FLAGS_AT, flags.to_le_bytes());
    put(out, RANK_AT, [header.rank]);
    put_link(out, PREV_AT, header.prev);
    put_link(out, JUMP_AT, header.jump);
    let crc = crc32fast::hash(&out[LEN_AT..]);
    put(out, CRC_AT, crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGN_BYTES), 0);
}

fn put<const N: usize>(out: &mut [u8], at: usize, bytes: [u8; N]) {
    out[at..at + N].copy_from_slice(&bytes);
}

fn put_link(out: &mut [u8], at: usize, link: Option<Link>) {
    if let Some(link) = link {
        put(out, at, link.seq.0.to_le_bytes());
        put(out, at + 8, link.main.0.to_le_bytes());
    }
}

/// A whole record, where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the front of `bytes`, whose checksum was verified when it came into memory.
    pub(crate) fn at_front(bytes: &'a [u8]) -> Self {
        let len = u32::from_le_bytes(array(bytes, LEN_AT)) as usize;
        Self { bytes: &bytes[..(HEADER_BYTES + len).next_multiple_of(ALIGN_BYTES)] }
    }

    /// The record at `offset` of `bytes`, with everything checked that can be checked.
    pub(crate) fn check(bytes: &'a [u8], offset: usize) -> Result<Self, Flaw> {
        let rest = &bytes[offset..];
        let flaw = |what, expected: u64, found: u64| Flaw::new(offset, what, expected, found);
        if rest.len() < HEADER_BYTES {
            return Err(flaw("room for a record header", HEADER_BYTES as u64, rest.len() as u64));
        }
        let len = u64::from(u32::from_le_bytes(array(rest, LEN_AT)));
        let whole = (HEADER_BYTES as u64 + len).next_multiple_of(ALIGN_BYTES as u64);
        if whole > rest.len() as u64 {
            return Err(flaw("room for a record", whole, rest.len() as u64));
        }
        let (end, whole) = (HEADER_BYTES + len as usize, whole as usize);
        let found = crc32fast::hash(&rest[LEN_AT..end]);
        let expected = u32::from_le_bytes(array(rest, CRC_AT));
        if found != expected {
            return Err(flaw("a record's checksum", expected.into(), found.into()));
        }
        if rest[end..whole].iter().any(|byte| *byte != 0) {
            return Err(flaw("zeros behind a record", 0, 1));
        }
        let record = Self { bytes: &rest[..whole] };
        match kv::KeyValue::decode(record.kv()) {
            Some(kv) if !kv.key.is_empty() => Ok(record),
            _ => Err(flaw("a record that holds a KeyValue with a key", 1, 0)),
        }
    }

    /// Bytes in the record, padding included.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn seq(&self) -> Seq {
        Seq(u64::from_le_bytes(array(self.bytes, SEQ_AT)))
    }

    pub(crate) fn main(&self) -> Revision {
        Revision(i64::from_le_bytes(array(self.bytes, MAIN_AT)))
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { main: self.main(), sub: u32::from_le_bytes(array(self.bytes, SUB_AT)) }
    }

    pub(crate) fn tombstone(&self) -> bool {
        self.flags() & TOMBSTONE != 0
    }

    pub(crate) fn create(&self) -> bool {
        self.flags() & CREATE != 0
    }

    fn flags(&self) -> u16 {
        u16::from_le_bytes(array(self.bytes, FLAGS_AT))
    }

    pub(crate) fn rank(&self) -> u8 {
        self.bytes[RANK_AT]
    }

    pub(crate) fn prev(&self) -> Option<Link> {
        self.link(PREV_AT)
    }

    pub(crate) fn jump(&self) -> Option<Link> {
        self.link(JUMP_AT)
    }

    fn link(&self, at: usize) -> Option<Link> {
        let main = Revision(i64::from_le_bytes(array(self.bytes, at + 8)));
        let seq = Seq(u64::from_le_bytes(array(self.bytes, at)));
        if main.0 == 0 { None } else { Some(Link { seq, main }) }
    }

    /// The exact `KeyValue` bytes.
    pub(crate) fn kv(&self) -> &'a [u8] {
        let len = u32::from_le_bytes(array(self.bytes, LEN_AT)) as usize;
        &self.bytes[HEADER_BYTES..HEADER_BYTES + len]
    }

    pub(crate) fn key(&self) -> &'a [u8] {
        kv::key(self.kv()).expect("checked when it was written or read in")
    }

    pub(crate) fn fields(&self) -> kv::KeyValue<'a> {
        kv::KeyValue::decode(self.kv()).expect("checked when it was written or read in")
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the array's length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Header, Vec<u8>) {
        let link = |seq, main| Some(Link { seq: Seq(seq), main: Revision(main) });
        let header = Header {
            seq: Seq(7),
            stamp: Stamp::new(12, 3),
            tombstone: false,
            create: false,
            rank: 2,
            prev: link(5, 11),
            jump: link(1, 4),
        };
        let payload = kv::KeyValue {
            key: b"key",
            create: 4,
            modified: 12,
            version: 3,
            value: b"a value",
            lease: 0,
        };
        let mut bytes = Vec::new();
        encode(&header, &payload, &mut bytes);
        (header, bytes)
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let (header, bytes) = sample();
        let record = Record::check(&bytes, 0).expect("what was just written is whole");
        let read = Header {
            seq: record.seq(),
            stamp: record.stamp(),
            tombstone: record.tombstone(),
            create: record.create(),
            rank: record.rank(),
            prev: record.prev(),
            jump: record.jump(),
        };
        assert_eq!(read, header);
        assert_eq!((record.key(), record.fields().value), (&b"key"[..], &b"a value"[..]));
        assert_eq!(bytes.len() % ALIGN_BYTES, 0);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (_, bytes) = sample();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::check(&damaged, 0).is_err(), "bit {bit} went unnoticed");
        }
    }
}
