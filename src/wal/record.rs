//! One entry of the log inside a frame's payload; pure.
//!
//! ```text
//!  0        8        16     20     21
//!  ├ index ─┼─ term ─┼ len ─┼ kind ┼ data: `len` bytes …
//! ```
//!
//! Numbers are little endian. Records follow each other without padding; the frame's payload
//! checksum covers them, so a record has none of its own.

use super::{
    LogEntry,
    field::{get_u32, get_u64, put_u32, put_u64},
};

const INDEX: usize = 0;
const TERM: usize = INDEX + size_of::<u64>();
const LEN: usize = TERM + size_of::<u64>();
const KIND: usize = LEN + size_of::<u32>();

/// Bytes before an entry's data.
pub const RECORD_HEAD_BYTES: usize = KIND + size_of::<u8>();

/// A record as it lies in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Position in the log.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
    /// What the data is; the log does not ask.
    pub kind: u8,
    /// The entry's bytes.
    pub data: &'a [u8],
}

/// Bytes that `entry` takes in a payload.
pub fn encoded_bytes(entry: &LogEntry) -> usize {
    RECORD_HEAD_BYTES + entry.data.len()
}

/// Writes `entry` at the start of `to`, which holds at least [`encoded_bytes`]; returns that number.
/// The data is no longer than a segment, so its length fits the field.
pub fn encode(entry: &LogEntry, to: &mut [u8]) -> usize {
    put_u64(to, INDEX, entry.index);
    put_u64(to, TERM, entry.term);
    put_u32(to, LEN, u32::try_from(entry.data.len()).expect("an entry is shorter than a segment"));
    to[KIND] = entry.kind;
    let end = encoded_bytes(entry);
    to[RECORD_HEAD_BYTES..end].copy_from_slice(&entry.data);
    end
}

/// The record at the start of `from` and what follows it; `None` when `from` is too short for it.
pub fn decode(from: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (head, rest) = from.split_at_checked(RECORD_HEAD_BYTES)?;
    let (data, rest) = rest.split_at_checked(get_u32(head, LEN) as usize)?;
    let record =
        Record { index: get_u64(head, INDEX), term: get_u64(head, TERM), kind: head[KIND], data };
    Some((record, rest))
}
