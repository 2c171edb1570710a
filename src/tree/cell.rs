//! A cell: what the map holds for a key. The newest version's facts and the roots of its chain.
//!
//! A put needs nothing else, and neither do keys-only reads, counts and comparisons: they touch no
//! record. About 18 bytes for a key with one version. Numbers are varints unless said otherwise.
//!
//! ```text
//!   u8 flags (1 tombstone, 2 leased)   main   sub
//!   not for a tombstone:  main - create   version   value bytes   [lease, u64, if leased]
//!   u8 number of roots, newest first; the first is the newest version itself:
//!     first    seq   u8 rank
//!     others   seq below the one before   main below the one before   u8 rank
//! ```

use super::{
    KeyMeta,
    chain::{Link, Root},
    varint,
};
use crate::types::{LeaseId, Revision, Seq, Stamp};

const TOMBSTONE: u8 = 1;
const LEASED: u8 = 2;

/// A cell, read.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    /// When the newest version was written.
    pub(crate) modified: Stamp,
    /// The newest version, unless it is a tombstone.
    pub(crate) meta: Option<KeyMeta>,
    roots: &'a [u8],
}

/// Replaces `out` by the cell of a key whose newest version was written at `modified`: `meta`, or
/// a tombstone. The first root is that version.
pub(crate) fn encode(modified: Stamp, meta: Option<&KeyMeta>, roots: &[Root], out: &mut Vec<u8>) {
    out.clear();
    let leased = meta.is_some_and(|meta| meta.lease != LeaseId(0));
    out.push(if meta.is_none() { TOMBSTONE } else { 0 } | if leased { LEASED } else { 0 });
    varint::put(out, modified.main.0 as u64);
    varint::put(out, modified.sub.into());
    if let Some(meta) = meta {
        varint::put(out, (modified.main.0 - meta.create.0) as u64);
        varint::put(out, meta.version as u64);
        varint::put(out, meta.value_bytes.into());
        if leased {
            out.extend_from_slice(&meta.lease.0.to_le_bytes());
        }
    }
    out.push(u8::try_from(roots.len()).expect("a chain has fewer roots than 64"));
    let mut last = roots[0].link;
    assert!(last.main == modified.main, "the first root is the newest version");
    varint::put(out, last.seq.0);
    out.push(roots[0].rank);
    for root in &roots[1..] {
        varint::put(out, last.seq.0 - root.link.seq.0);
        varint::put(out, (last.main.0 - root.link.main.0) as u64);
        out.push(root.rank);
        last = root.link;
    }
}

impl<'a> Cell<'a> {
    /// Reads what [`encode`] wrote. The bytes never left memory, so they are what they were.
    pub(crate) fn decode(cell: &'a [u8]) -> Self {
        let mut bytes = Bytes(cell);
        let flags = bytes.byte();
        let main = Revision(bytes.number() as i64);
        let modified = Stamp { main, sub: bytes.number() as u32 };
        let meta = (flags & TOMBSTONE == 0).then(|| KeyMeta {
            create: Revision(main.0 - bytes.number() as i64),
            modified,
            version: bytes.number() as i64,
            value_bytes: bytes.number() as u32,
            lease: LeaseId(if flags & LEASED == 0 { 0 } else { bytes.fixed() }),
        });
        Self { modified, meta, roots: bytes.0 }
    }

    /// Number of the newest version's record.
    pub(crate) fn newest(&self) -> Seq {
        Seq(Bytes(&self.roots[1..]).number())
    }

    /// Roots of the key's chain, newest first.
    pub(crate) fn roots(&self) -> Roots<'a> {
        let mut bytes = Bytes(self.roots);
        let left = bytes.byte();
        // The first root is told from here, as if the one before it lay at these numbers.
        Roots { bytes, left, last: Link { seq: Seq(0), main: self.modified.main }, first: true }
    }
}

/// The roots in a cell, one after the other.
pub(crate) struct Roots<'a> {
    bytes: Bytes<'a>,
    left: u8,
    last: Link,
    first: bool,
}

impl Iterator for Roots<'_> {
    type Item = Root;

    fn next(&mut self) -> Option<Root> {
        self.left = self.left.checked_sub(1)?;
        if std::mem::take(&mut self.first) {
            self.last.seq = Seq(self.bytes.number());
        } else {
            self.last.seq.0 -= self.bytes.number();
            self.last.main.0 -= self.bytes.number() as i64;
        }
        Some(Root { link: self.last, rank: self.bytes.byte() })
    }
}

/// The rest of a cell.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (&byte, rest) = self.0.split_first().expect("a cell is whole");
        self.0 = rest;
        byte
    }

    fn number(&mut self) -> u64 {
        let (number, rest) = varint::get(self.0).expect("a cell is whole");
        self.0 = rest;
        number
    }

    fn fixed(&mut self) -> i64 {
        let (fixed, rest) = self.0.split_first_chunk().expect("a cell is whole");
        self.0 = rest;
        i64::from_le_bytes(*fixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(seq: u64, main: i64, rank: u8) -> Root {
        Root { link: Link { seq: Seq(seq), main: Revision(main) }, rank }
    }

    #[test]
    fn cells_read_back_as_written() {
        let roots = [root(1 << 40, 900, 1), root(70, 80, 1), root(7, 8, 3)];
        let modified = Stamp::new(900, 17);
        let meta = KeyMeta {
            create: Revision(2),
            modified,
            version: 12,
            lease: LeaseId(-5),
            value_bytes: 1 << 20,
        };
        let unleased = KeyMeta { lease: LeaseId(0), ..meta };
        for meta in [Some(meta), Some(unleased), None] {
            let mut bytes = Vec::new();
            encode(modified, meta.as_ref(), &roots, &mut bytes);
            let cell = Cell::decode(&bytes);
            assert_eq!((cell.modified, cell.meta), (modified, meta));
            assert_eq!(cell.newest(), Seq(1 << 40));
            assert_eq!(cell.roots().collect::<Vec<_>>(), roots);
        }
    }

    #[test]
    fn a_key_with_one_version_takes_few_bytes() {
        let modified = Stamp::new(1 << 27, 0);
        let meta = KeyMeta {
            create: modified.main,
            modified,
            version: 1,
            lease: LeaseId(0),
            value_bytes: 300,
        };
        let mut bytes = Vec::new();
        encode(modified, Some(&meta), &[root(1 << 27, 1 << 27, 1)], &mut bytes);
        assert!(bytes.len() <= 18, "{} bytes", bytes.len());
    }
}
