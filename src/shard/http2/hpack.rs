//! Reading header blocks (RFC 7541). Replies need no encoder: their blocks are constants, see
//! [`super::reply`].
//!
//! The peer's dynamic table is a queue of names and values in one buffer, newest last:
//!
//! ```text
//! bytes   │ dead │ name value │ name value │ … │ name value │
//! entries           oldest                        newest = index 62
//! ```

use super::huffman;
use crate::limits::HTTP2_HEADER_TABLE_BYTES;
use std::{collections::VecDeque, fmt};

/// What an entry costs beside its bytes (§4.1).
pub const ENTRY_BYTES: usize = 32;

/// Why a block cannot be read. The connection is lost with it, for nobody knows the table any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends in the middle of a field.
    Short,
    /// A number has more bits than any of ours may.
    Number,
    /// No such entry.
    Index(usize),
    /// A string is not in the Huffman code.
    Huffman,
    /// The table may not become as large as this, or not here.
    TableSize(usize),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "a header block ends in the middle of a field"),
            Self::Number => write!(f, "a number in a header block is too large"),
            Self::Index(index) => write!(f, "a header block names entry {index}: there is none"),
            Self::Huffman => write!(f, "a header block holds a string that is not Huffman code"),
            Self::TableSize(bytes) => write!(f, "a header table of {bytes} bytes is not allowed"),
        }
    }
}

/// Reads the header blocks of one connection, in their order.
#[derive(Default)]
pub struct Decoder {
    table: Table,
    name: Vec<u8>,
    value: Vec<u8>,
}

enum Name<'a> {
    Static(&'static str),
    /// An entry of the dynamic table, which may be evicted by the field that names it.
    Entry(usize),
    Literal(&'a [u8]),
}

impl Decoder {
    /// Calls `on` with each name and value of a whole block.
    ///
    /// # Errors
    /// [`Malformed`]: the connection cannot go on.
    pub fn decode(
        &mut self,
        mut block: &[u8],
        mut on: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        let mut begun = false;
        while let [first, ..] = *block {
            match first {
                0x80.. => {
                    let (name, value) = self.table.get(number(&mut block, 7)?)?;
                    on(name, value);
                }
                0x40.. => self.literal(&mut block, 6, true, &mut on)?,
                // A size may change only where a block begins (§4.2).
                0x20.. => {
                    let bytes = number(&mut block, 5)?;
                    if begun || bytes > HTTP2_HEADER_TABLE_BYTES {
                        return Err(Malformed::TableSize(bytes));
                    }
                    self.table.resize(bytes);
                    continue;
                }
                _ => self.literal(&mut block, 4, false, &mut on)?,
            }
            begun = true;
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &mut &[u8],
        prefix: u32,
        insert: bool,
        on: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        let Self { table, name: name_buffer, value: value_buffer } = self;
        let name = match number(block, prefix)? {
            0 => Name::Literal(string(block, name_buffer)?),
            index => match index.checked_sub(STATIC.len() + 1) {
                None => Name::Static(STATIC[index - 1].0),
                Some(nth) if nth < table.entries.len() => Name::Entry(nth),
                Some(_) => return Err(Malformed::Index(index)),
            },
        };
        let value = string(block, value_buffer)?;
        match name {
            Name::Static(name) => on(name.as_bytes(), value),
            Name::Entry(nth) => on(table.entry(nth).0, value),
            Name::Literal(name) => on(name, value),
        }
        if insert {
            table.insert(name, value);
        }
        Ok(())
    }

    /// A number that is another one whenever the table has changed. A block that was read while it
    /// was this, and left it so, means the same again as long as it stays so.
    pub fn version(&self) -> u64 {
        self.table.version
    }
}

/// Reads a number whose first byte holds `prefix` bits of it (§5.1).
fn number(block: &mut &[u8], prefix: u32) -> Result<usize, Malformed> {
    let mut next = || {
        let (&byte, rest) = block.split_first().ok_or(Malformed::Short)?;
        *block = rest;
        Ok(usize::from(byte))
    };
    let most = (1 << prefix) - 1;
    let mut number = next()? & most;
    if number < most {
        return Ok(number);
    }
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        number += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed::Number)
}

/// Reads a string (§5.2); `buffer` is for one that is encoded.
fn string<'s, 'b: 's>(
    block: &mut &'b [u8],
    buffer: &'s mut Vec<u8>,
) -> Result<&'s [u8], Malformed> {
    let encoded = block.first().ok_or(Malformed::Short)? & 0x80 != 0;
    let len = number(block, 7)?;
    let (bytes, rest) = block.split_at_checked(len).ok_or(Malformed::Short)?;
    *block = rest;
    if !encoded {
        return Ok(bytes);
    }
    buffer.clear();
    huffman::decode(bytes, buffer).map_err(|huffman::Malformed| Malformed::Huffman)?;
    Ok(buffer)
}

struct Entry {
    /// Position among all bytes that ever stood in the table.
    start: u64,
    name: u32,
    value: u32,
}

impl Entry {
    fn bytes(&self) -> usize {
        (self.name + self.value) as usize
    }
}

struct Table {
    bytes: Vec<u8>,
    /// Position of the first of `bytes`.
    base: u64,
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Sizes of all entries, as the RFC counts them.
    size: usize,
    size_max: usize,
    version: u64,
}

impl Default for Table {
    fn default() -> Self {
        let size_max = HTTP2_HEADER_TABLE_BYTES;
        let entries = VecDeque::new();
        Self { bytes: Vec::new(), base: 0, entries, size: 0, size_max, version: 0 }
    }
}

impl Table {
    /// The field at an index, static or dynamic (§2.3.3).
    fn get(&self, index: usize) -> Result<(&[u8], &[u8]), Malformed> {
        match index.checked_sub(STATIC.len() + 1) {
            None if index == 0 => Err(Malformed::Index(0)),
            None => {
                let (name, value) = STATIC[index - 1];
                Ok((name.as_bytes(), value.as_bytes()))
            }
            Some(nth) if nth < self.entries.len() => Ok(self.entry(nth)),
            Some(_) => Err(Malformed::Index(index)),
        }
    }

    /// An entry that is there, newest first.
    fn entry(&self, nth: usize) -> (&[u8], &[u8]) {
        let entry = &self.entries[self.entries.len() - 1 - nth];
        let start = (entry.start - self.base) as usize;
        self.bytes[start..start + entry.bytes()].split_at(entry.name as usize)
    }

    fn insert(&mut self, name: Name<'_>, value: &[u8]) {
        self.version += 1;
        let start = self.bytes.len();
        match name {
            Name::Static(name) => self.bytes.extend_from_slice(name.as_bytes()),
            Name::Literal(name) => self.bytes.extend_from_slice(name),
            Name::Entry(nth) => {
                let entry = &self.entries[self.entries.len() - 1 - nth];
                let from = (entry.start - self.base) as usize;
                self.bytes.extend_from_within(from..from + entry.name as usize);
            }
        }
        let name = (self.bytes.len() - start) as u32;
        self.bytes.extend_from_slice(value);
        let start = self.base + start as u64;
        self.entries.push_back(Entry { start, name, value: value.len() as u32 });
        self.size += name as usize + value.len() + ENTRY_BYTES;
        self.evict();
    }

    fn resize(&mut self, size_max: usize) {
        self.version += 1;
        self.size_max = size_max;
        self.evict();
    }

    /// Drops the oldest until the rest fits. One that is too large drops all, itself too (§4.4).
    fn evict(&mut self) {
        while self.size > self.size_max {
            let oldest = self.entries.pop_front().expect("an empty table has no size");
            self.size -= oldest.bytes() + ENTRY_BYTES;
        }
        let end = self.base + self.bytes.len() as u64;
        let first = self.entries.front().map_or(end, |entry| entry.start);
        let dead = (first - self.base) as usize;
        if dead > HTTP2_HEADER_TABLE_BYTES {
            self.bytes.drain(..dead);
            self.base = first;
        }
    }
}

/// RFC 7541 appendix A, from index 1.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
#[path = "hpack_tests.rs"]
mod tests;
