//! The tables of `docs/formats.md`, as maps from a field's name to its place.

use std::{collections::BTreeMap, ops::Range};

/// The page itself.
pub const PAGE: &str = include_str!("../../docs/formats.md");

/// One table: where each field of a structure lies.
pub struct ByteMap {
    section: &'static str,
    fields: BTreeMap<&'static str, Range<usize>>,
    /// Where the fields of fixed length end.
    end: usize,
}

impl ByteMap {
    /// The table under the heading `section`. Its fields follow each other without gaps; one without
    /// a length is the last.
    pub fn of(section: &'static str) -> Self {
        let lines = PAGE.lines().skip_while(|line| line.trim_start_matches('#').trim() != section);
        let rows = lines.skip(1).take_while(|line| !line.starts_with('#')).filter_map(row);
        let (mut fields, mut end, mut open) = (BTreeMap::new(), 0, false);
        for (offset, bytes, name) in rows {
            assert!(!open, "{section}: {name} stands behind a field without a length");
            assert_eq!(offset, end, "{section}: {name} does not begin where the last field ends");
            open = bytes.is_none();
            end += bytes.unwrap_or(0);
            assert_eq!(fields.insert(name, offset..end), None, "{section}: {name} is there twice");
        }
        assert!(!fields.is_empty(), "docs/formats.md has no table under {section:?}");
        Self { section, fields, end }
    }

    /// Where the fields of fixed length end.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Where a field lies.
    pub fn place(&self, field: &str) -> Range<usize> {
        let place = self.fields.get(field);
        place.unwrap_or_else(|| panic!("{}: no field {field:?}", self.section)).clone()
    }

    /// The names of the fields of fixed length.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().filter(|(_, place)| !place.is_empty()).map(|(name, _)| *name)
    }

    /// A field's number in `bytes`, little endian.
    pub fn number(&self, bytes: &[u8], field: &str) -> u64 {
        let bytes = &bytes[self.place(field)];
        assert!(bytes.len() <= 8, "{}: {field} is no number", self.section);
        bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// `| offset | bytes | field | …`; `None` for any other line.
fn row(line: &'static str) -> Option<(usize, Option<usize>, &'static str)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let offset = cells.next()?.parse().ok()?;
    let bytes = cells.next()?;
    let bytes = (!bytes.is_empty()).then(|| bytes.parse().expect("a length is a number"));
    Some((offset, bytes, cells.next()?))
}
