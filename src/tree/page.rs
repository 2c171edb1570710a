//! One page of the map, byte for byte, in the form it has in memory and on disk.
//!
//! ```text
//! 0        40          40 + 8n        top                       bytes
//! ┌────────┬───────────┬──────────────┬─────────────────────────┐
//! │ header │ n slots → │     room     │ ← cells, in any order   │
//! └────────┴───────────┴──────────────┴─────────────────────────┘
//! header  u32 magic, u32 bytes, u64 version, u32 level, u32 n, u32 prefix, u32 top, u32 dead, u32 0
//! slot    u32 head, u32 offset of the cell (bit 31: the cell is live)
//! cell    u32 key bytes, u32 body bytes, body, key
//! body    leaf (level 0): what the caller stored
//!         branch: u64 link, u64 live cells below, u64 cells below, u32 CRC of the child, u32 0
//! ```
//!
//! All numbers are little endian. `prefix` is a length that all keys of the page have in common;
//! a slot's head is the four key bytes after it, so a search stays within the slots' few cache
//! lines and opens a cell only where heads are equal. Keys are stored whole: what a reader gets is
//! a slice of the page. A branch's key is a lower bound of the keys below that child, except the
//! first: whatever is smaller goes there too, so that key need only be smaller than the second.
//! The child's CRC is zero until it has a place on disk. Cells of branches are aligned to 8 bytes,
//! leaf cells are not.

use super::index::Files;
use std::cmp::Ordering;

/// First bytes of every page; a freed page in a debug build has others.
const MAGIC: u32 = 0x5047_4c52;

const MAGIC_AT: usize = 0;
const BYTES_AT: usize = MAGIC_AT + size_of::<u32>();
const VERSION_AT: usize = BYTES_AT + size_of::<u32>();
const LEVEL_AT: usize = VERSION_AT + size_of::<u64>();
const LEN_AT: usize = LEVEL_AT + size_of::<u32>();
const PREFIX_AT: usize = LEN_AT + size_of::<u32>();
const TOP_AT: usize = PREFIX_AT + size_of::<u32>();
const DEAD_AT: usize = TOP_AT + size_of::<u32>();
const ZERO_AT: usize = DEAD_AT + size_of::<u32>();

/// Bytes before the first slot.
pub(super) const HEADER_BYTES: usize = ZERO_AT + size_of::<u32>();

const HEAD_AT: usize = 0;
const OFFSET_AT: usize = HEAD_AT + size_of::<u32>();
const SLOT_BYTES: usize = OFFSET_AT + size_of::<u32>();
const LIVE_BIT: u32 = 1 << 31;

const KEY_BYTES_AT: usize = 0;
const BODY_BYTES_AT: usize = KEY_BYTES_AT + size_of::<u32>();
const BODY_AT: usize = BODY_BYTES_AT + size_of::<u32>();

const LINK_AT: usize = 0;
const LIVE_AT: usize = LINK_AT + size_of::<u64>();
const CELLS_AT: usize = LIVE_AT + size_of::<u64>();
const CRC_AT: usize = CELLS_AT + size_of::<u64>();
pub(super) const CHILD_BYTES: usize = CRC_AT + 2 * size_of::<u32>();

/// The least alignment of a page's length, so that branch cells can be aligned from its end.
const BRANCH_CELL_ALIGN: usize = 8;
const _: () = assert!(HEADER_BYTES.is_multiple_of(BRANCH_CELL_ALIGN));

/// One cache line: the unit of a page's length and of its place.
pub(super) const LINE_BYTES: usize = 64;

/// Where a page is. Bit 63 of `at` is set: the rest is an address in this process. It is clear: a
/// slot in the 15 bits below, and a line of the file that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    at: u64,
    /// Of the page's bytes in the file; 0 in memory.
    crc: u32,
}

/// Where in the index's files a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u16,
    pub(super) line: u64,
}

/// User space ends far below it on x86-64 and AArch64.
const HEAP_BIT: u64 = 1 << 63;
const SLOT_SHIFT: u32 = 48;

/// One entry of a branch: a page one level down and what lies below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) link: Link,
    pub(super) count: Count,
}

/// How many cells, and how many of them live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) live: u64,
    pub(super) cells: u64,
}

/// What a slot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a [u8],
    pub(super) body: &'a [u8],
    pub(super) live: bool,
}

/// A page to read.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    bytes: &'a [u8],
    files: &'a Files,
}

/// A page to edit.
pub(super) struct PageMut<'a> {
    bytes: &'a mut [u8],
}

/// Length of a whole page, from its header.
pub(super) fn whole_bytes(header: &[u8]) -> usize {
    assert_eq!(u32_at(header, MAGIC_AT), MAGIC, "a link leads to a page that is alive");
    u32_at(header, BYTES_AT) as usize
}

/// Bytes a page of `level` needs at least to hold these entries.
pub(super) fn bytes_for(level: u32, entries: &[Entry<'_>]) -> usize {
    HEADER_BYTES + entries.iter().map(|entry| entry_bytes(level, entry)).sum::<usize>()
}

/// Bytes of a page of `level` that one entry takes: its slot and its cell.
pub(super) fn entry_bytes(level: u32, entry: &Entry<'_>) -> usize {
    SLOT_BYTES + cell_bytes(level, entry.key.len(), entry.body.len())
}

fn cell_bytes(level: u32, key_bytes: usize, body_bytes: usize) -> usize {
    let align = if level == 0 { 1 } else { BRANCH_CELL_ALIGN };
    (BODY_AT + body_bytes + key_bytes).next_multiple_of(align)
}

/// Number of leading bytes that two keys have in common.
pub(super) fn common_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The four bytes of `key` after `prefix`, as a number that sorts as they do.
fn head_of(key: &[u8], prefix: usize) -> u32 {
    let rest = &key[prefix..];
    if let Some(four) = rest.first_chunk() {
        return u32::from_be_bytes(*four);
    }
    let mut head = [0; 4];
    head[..rest.len()].copy_from_slice(rest);
    u32::from_be_bytes(head)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a field ends before its page does"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("a field ends before its page does"))
}

fn set_u32(bytes: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).expect("a page is smaller than 2 GiB");
    bytes[at..at + size_of::<u32>()].copy_from_slice(&value.to_le_bytes());
}

fn set_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + size_of::<u64>()].copy_from_slice(&value.to_le_bytes());
}

impl Link {
    /// Of a page at this address.
    pub(super) fn in_memory(address: usize) -> Self {
        let address = address as u64;
        assert_eq!(address & HEAP_BIT, 0, "an address leaves bit 63 free");
        Self { at: address | HEAP_BIT, crc: 0 }
    }

    /// Of a page in a file, with the checksum of its bytes there.
    pub(super) fn in_file(place: Place, crc: u32) -> Self {
        assert!(place.line >> SLOT_SHIFT == 0 && place.slot >> 15 == 0, "{place:?} has a link");
        Self { at: u64::from(place.slot) << SLOT_SHIFT | place.line, crc }
    }

    pub(super) fn is_in_memory(self) -> bool {
        self.at & HEAP_BIT != 0
    }

    pub(super) fn address(self) -> usize {
        assert!(self.is_in_memory(), "a page in a file has no address");
        usize::try_from(self.at & !HEAP_BIT).expect("pointers have 64 bits")
    }

    pub(super) fn place(self) -> Place {
        assert!(!self.is_in_memory(), "a page in memory has no place");
        Place { slot: (self.at >> SLOT_SHIFT) as u16, line: self.at & ((1 << SLOT_SHIFT) - 1) }
    }

    pub(super) fn crc(self) -> u32 {
        self.crc
    }

    /// As two numbers, for the superblock.
    pub(super) fn to_numbers(self) -> [u64; 2] {
        [self.at, self.crc.into()]
    }

    /// From what [`Self::to_numbers`] gave; `None` for what is no link into a file.
    pub(super) fn from_numbers([at, crc]: [u64; 2]) -> Option<Self> {
        let link = Self { at, crc: u32::try_from(crc).ok()? };
        (!link.is_in_memory()).then_some(link)
    }
}

impl Count {
    pub(super) fn of_cell(live: bool) -> Self {
        Self { live: u64::from(live), cells: 1 }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { live: self.live + other.live, cells: self.cells + other.cells }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self { live: self.live - other.live, cells: self.cells - other.cells }
    }
}

impl Child {
    /// The body of a branch cell.
    pub(super) fn encode(self) -> [u8; CHILD_BYTES] {
        let mut body = [0; CHILD_BYTES];
        set_u64(&mut body, LINK_AT, self.link.at);
        set_u64(&mut body, LIVE_AT, self.count.live);
        set_u64(&mut body, CELLS_AT, self.count.cells);
        body[CRC_AT..][..4].copy_from_slice(&self.link.crc.to_le_bytes());
        body
    }

    fn decode(body: &[u8]) -> Self {
        let count = Count { live: u64_at(body, LIVE_AT), cells: u64_at(body, CELLS_AT) };
        Self { link: Link { at: u64_at(body, LINK_AT), crc: u32_at(body, CRC_AT) }, count }
    }
}

impl<'a> Page<'a> {
    /// Reads `bytes` as a page; they are one page, whole. What it leads to is in memory or in `files`.
    pub(super) fn new(bytes: &'a [u8], files: &'a Files) -> Self {
        debug_assert_eq!(whole_bytes(bytes), bytes.len());
        Self { bytes, files }
    }

    /// The bytes of the page that `bytes` begin with, as long as it says; `None` if they begin with
    /// none, or end before it does. Nothing else of it is known to be right.
    pub(super) fn bytes_at_front(bytes: &[u8]) -> Option<&[u8]> {
        let header = bytes.get(..HEADER_BYTES)?;
        let magic = u32_at(header, MAGIC_AT) == MAGIC;
        magic.then(|| bytes.get(..u32_at(header, BYTES_AT) as usize)).flatten()
    }

    pub(super) fn files(self) -> &'a Files {
        self.files
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The version of the map that made this page.
    pub(super) fn version(self) -> u64 {
        u64_at(self.bytes, VERSION_AT)
    }

    /// Distance to the leaves, which are at 0.
    pub(super) fn level(self) -> u32 {
        u32_at(self.bytes, LEVEL_AT)
    }

    pub(super) fn len(self) -> usize {
        u32_at(self.bytes, LEN_AT) as usize
    }

    /// A length that all keys of this page have in common; not always the longest.
    pub(super) fn prefix(self) -> usize {
        u32_at(self.bytes, PREFIX_AT) as usize
    }

    /// Bytes in use, as if the page were packed.
    pub(super) fn used_bytes(self) -> usize {
        self.bytes.len() - self.room() - u32_at(self.bytes, DEAD_AT) as usize
    }

    /// Bytes between the last slot and the first cell.
    fn room(self) -> usize {
        self.top() - slot_at(self.len())
    }

    fn top(self) -> usize {
        u32_at(self.bytes, TOP_AT) as usize
    }

    fn head(self, at: usize) -> u32 {
        u32_at(self.bytes, slot_at(at) + HEAD_AT)
    }

    fn cell(self, at: usize) -> &'a [u8] {
        let offset = u32_at(self.bytes, slot_at(at) + OFFSET_AT) & !LIVE_BIT;
        &self.bytes[offset as usize..]
    }

    pub(super) fn is_live(self, at: usize) -> bool {
        u32_at(self.bytes, slot_at(at) + OFFSET_AT) & LIVE_BIT != 0
    }

    pub(super) fn key(self, at: usize) -> &'a [u8] {
        self.key_and_body(at).0
    }

    pub(super) fn body(self, at: usize) -> &'a [u8] {
        self.key_and_body(at).1
    }

    pub(super) fn key_and_body(self, at: usize) -> (&'a [u8], &'a [u8]) {
        let cell = self.cell(at);
        let key_bytes = u32_at(cell, KEY_BYTES_AT) as usize;
        let body_bytes = u32_at(cell, BODY_BYTES_AT) as usize;
        let (body, rest) = cell[BODY_AT..].split_at(body_bytes);
        (&rest[..key_bytes], body)
    }

    pub(super) fn child(self, at: usize) -> Child {
        Child::decode(&self.cell(at)[BODY_AT..])
    }

    pub(super) fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        (0..self.len()).map(move |at| {
            let (key, body) = self.key_and_body(at);
            Entry { key, body, live: self.is_live(at) }
        })
    }

    /// What lies in the first `end` entries and below them.
    pub(super) fn count_before(self, end: usize) -> Count {
        if self.level() == 0 {
            let live = (0..end).filter(|&at| self.is_live(at)).count();
            return Count { live: live as u64, cells: end as u64 };
        }
        (0..end).fold(Count::default(), |sum, at| sum.plus(self.child(at).count))
    }

    /// The entry whose key is `key`. Opens only cells whose heads are equal, not even the first
    /// one: a key that does not share the page's prefix may be led astray, but finds nothing equal.
    pub(super) fn find(self, key: &[u8]) -> Option<usize> {
        if key.len() < self.prefix() {
            return None;
        }
        self.search(key).ok().filter(|&at| self.key(at) == key)
    }

    /// Where `key` is, or where it would be inserted.
    pub(super) fn position(self, key: &[u8]) -> Result<usize, usize> {
        if self.len() == 0 {
            return Err(0);
        }
        let prefix = self.prefix();
        match key[..prefix.min(key.len())].cmp(&self.key(0)[..prefix]) {
            Ordering::Less => Err(0),
            Ordering::Equal => self.search(key),
            Ordering::Greater => Err(self.len()),
        }
    }

    /// The entry of a branch below which `key` belongs.
    pub(super) fn child_for(self, key: &[u8]) -> usize {
        match self.position(key) {
            Ok(at) => at,
            Err(at) => at.saturating_sub(1),
        }
    }

    /// Binary search for a key that begins with the page's prefix.
    fn search(self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let head = head_of(key, prefix);
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = usize::midpoint(from, to);
            let tail = || self.key(middle)[prefix..].cmp(&key[prefix..]);
            match self.head(middle).cmp(&head).then_with(tail) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => to = middle,
            }
        }
        Err(from)
    }
}

fn slot_at(at: usize) -> usize {
    HEADER_BYTES + at * SLOT_BYTES
}

impl<'a> PageMut<'a> {
    /// Edits `bytes`, which are one page, whole.
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        debug_assert_eq!(whole_bytes(bytes), bytes.len());
        Self { bytes }
    }

    /// Makes `bytes` a page that holds `entries`, which ascend and fit.
    pub(super) fn build(bytes: &'a mut [u8], level: u32, version: u64, entries: &[Entry<'_>]) {
        assert!(bytes.len().is_multiple_of(BRANCH_CELL_ALIGN), "branch cells can be aligned");
        let prefix = match entries {
            [] => 0,
            [only] => only.key.len(),
            // The entries ascend, so what the ends share, all share.
            [first, .., last] => common_bytes(first.key, last.key),
        };
        let end = bytes.len();
        let mut page = Self { bytes };
        page.set(MAGIC_AT, MAGIC as usize);
        page.set(BYTES_AT, end);
        page.set_version(version);
        page.set(LEVEL_AT, level as usize);
        page.set(LEN_AT, entries.len());
        page.set(PREFIX_AT, prefix);
        page.set(TOP_AT, end);
        page.set(DEAD_AT, 0);
        page.set(ZERO_AT, 0);
        for (at, entry) in entries.iter().enumerate() {
            page.write(at, entry);
        }
    }

    /// Makes `bytes`, which are no fewer, a copy of `page` with all the room that there is then.
    pub(super) fn widen(bytes: &'a mut [u8], page: Page<'_>, version: u64) {
        let (slots, top) = (slot_at(page.len()), page.top());
        let wider = bytes.len() - page.bytes.len();
        assert!(wider.is_multiple_of(BRANCH_CELL_ALIGN), "branch cells stay aligned");
        bytes[..slots].copy_from_slice(&page.bytes[..slots]);
        bytes[top + wider..].copy_from_slice(&page.bytes[top..]);
        let end = bytes.len();
        let mut copy = Self { bytes };
        copy.set(BYTES_AT, end);
        copy.set_version(version);
        copy.set(TOP_AT, top + wider);
        for at in 0..page.len() {
            copy.set_offset(at, copy.offset(at) + wider, page.is_live(at));
        }
    }

    /// Says which version of the map owns this page.
    pub(super) fn set_version(&mut self, version: u64) {
        set_u64(self.bytes, VERSION_AT, version);
    }

    /// Inserts before entry `at`, which keeps the order. False, and nothing done, without room.
    pub(super) fn insert(&mut self, at: usize, entry: &Entry<'_>) -> bool {
        let page = self.page();
        let len = page.len();
        if page.room() < entry_bytes(page.level(), entry) {
            return false;
        }
        self.share_prefix(at, entry.key);
        self.bytes.copy_within(slot_at(at)..slot_at(len), slot_at(at + 1));
        self.set(LEN_AT, len + 1);
        self.write(at, entry);
        true
    }

    /// Removes entry `at`. Its cell stays as dead bytes until the page is built anew.
    pub(super) fn remove(&mut self, at: usize) {
        let page = self.page();
        let len = page.len();
        let (key, body) = page.key_and_body(at);
        let dead = u32_at(self.bytes, DEAD_AT) as usize;
        let dead = dead + cell_bytes(page.level(), key.len(), body.len());
        self.set(DEAD_AT, dead);
        self.bytes.copy_within(slot_at(at + 1)..slot_at(len), slot_at(at));
        self.set(LEN_AT, len - 1);
    }

    /// Overwrites the body of entry `at`. False, and nothing done, where its length would change.
    pub(super) fn replace(&mut self, at: usize, body: &[u8], live: bool) -> bool {
        let old = self.page().body(at).len();
        if old != body.len() {
            return false;
        }
        let offset = self.offset(at);
        self.bytes[offset + BODY_AT..][..old].copy_from_slice(body);
        self.set_offset(at, offset, live);
        true
    }

    /// Overwrites the child of entry `at`.
    pub(super) fn set_child(&mut self, at: usize, child: Child) {
        let body = self.offset(at) + BODY_AT;
        self.bytes[body..body + CHILD_BYTES].copy_from_slice(&child.encode());
    }

    /// Shortens the first key of a branch where it is not smaller than `second`, not empty, which
    /// will follow it.
    pub(super) fn make_way(&mut self, second: &[u8]) {
        let page = self.page();
        let first = page.key(0);
        if first < second {
            return;
        }
        let (level, old) = (page.level(), first.len());
        let new = common_bytes(first, second).min(second.len() - 1);
        self.set(self.offset(0) + KEY_BYTES_AT, new);
        let freed = cell_bytes(level, old, CHILD_BYTES) - cell_bytes(level, new, CHILD_BYTES);
        self.set(DEAD_AT, u32_at(self.bytes, DEAD_AT) as usize + freed);
        self.limit_prefix(new);
        self.set_head(0);
    }

    /// Makes the page's prefix one that `key`, new at `at`, shares. Between two keys it does.
    fn share_prefix(&mut self, at: usize, key: &[u8]) {
        let page = self.page();
        let len = page.len();
        if len == 0 {
            self.set(PREFIX_AT, key.len());
        } else if at == 0 || at == len {
            self.limit_prefix(common_bytes(&page.key(0)[..page.prefix()], key));
        }
    }

    /// Makes the page's prefix at most `prefix`, and the heads what follows from that.
    fn limit_prefix(&mut self, prefix: usize) {
        if prefix >= self.page().prefix() {
            return;
        }
        self.set(PREFIX_AT, prefix);
        (0..self.page().len()).for_each(|at| self.set_head(at));
    }

    fn set_head(&mut self, at: usize) {
        let page = self.page();
        let head = head_of(page.key(at), page.prefix());
        self.set(slot_at(at) + HEAD_AT, head as usize);
    }

    /// Writes a new cell below the others, and slot `at` for it.
    fn write(&mut self, at: usize, entry: &Entry<'_>) {
        let page = self.page();
        let (key, body) = (entry.key, entry.body);
        let offset = page.top() - cell_bytes(page.level(), key.len(), body.len());
        assert!(offset >= slot_at(page.len()), "a cell is written where there is room");
        self.set(TOP_AT, offset);
        self.set(offset + KEY_BYTES_AT, key.len());
        self.set(offset + BODY_BYTES_AT, body.len());
        let key_at = offset + BODY_AT + body.len();
        self.bytes[offset + BODY_AT..key_at].copy_from_slice(body);
        self.bytes[key_at..key_at + key.len()].copy_from_slice(key);
        self.set_offset(at, offset, entry.live);
        self.set_head(at);
    }

    fn offset(&self, at: usize) -> usize {
        (u32_at(self.bytes, slot_at(at) + OFFSET_AT) & !LIVE_BIT) as usize
    }

    fn set_offset(&mut self, at: usize, offset: usize, live: bool) {
        let live = if live { LIVE_BIT as usize } else { 0 };
        self.set(slot_at(at) + OFFSET_AT, offset | live);
    }

    fn set(&mut self, at: usize, value: usize) {
        set_u32(self.bytes, at, value);
    }

    fn page(&self) -> Page<'_> {
        static NO_FILES: Files = Files::NONE;
        Page { bytes: self.bytes, files: &NO_FILES }
    }
}

#[cfg(test)]
mod tests;
