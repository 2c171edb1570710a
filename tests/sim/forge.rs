//! Directories with a number that is wrong though every checksum above it is right: what a bug in a
//! checkpoint would have written. The bytes are those that `docs/formats.md` draws.

use crate::disk::SimDisk;
use ringleader::tree::SUPERBLOCK_FILE;

/// Where the first page of an index file lies, and the unit of a page's place.
const PAGES_AT: usize = 4096;
const LINE_BYTES: usize = 64;
const SLOT_SHIFT: u32 = 48;

/// In a page.
const PAGE_BYTES_AT: usize = 4;
const PAGE_LEVEL_AT: usize = 16;
const PAGE_LEN_AT: usize = 20;
const PAGE_SLOTS_AT: usize = 40;
/// In a branch's cell.
const CHILD_LINK_AT: usize = 8;
const CHILD_LIVE_AT: usize = CHILD_LINK_AT + 8;
const CHILD_CRC_AT: usize = CHILD_LIVE_AT + 16;

/// In a superblock.
const ROOT_CRC_AT: usize = 12;
const ROOT_BYTES_AT: usize = 16;
const ROOT_NUMBER_AT: usize = 24;
const ROOT_COMPACTED_AT: usize = 80;
const ROOT_SWEPT_AT: usize = 168;
const ROOT_LINK_AT: usize = 176;
const ROOT_LINK_CRC_AT: usize = 184;

/// One child's live keys are one more than its parent says, in the newest file of the newest index.
pub(crate) fn lose_a_count(disk: &SimDisk) {
    let Some(mut root) = Superblock::newest(disk) else { return };
    let link = u64_at(&root.bytes, ROOT_LINK_AT);
    let name = format!("idx/{:010}", root.number());
    if !disk.names().contains(&name) {
        return;
    }
    let mut file = disk.peek(&name);
    let slot = link >> SLOT_SHIFT;
    let mut forged: Option<(u64, u32)> = None;
    let mut at = PAGES_AT;
    while at + PAGE_SLOTS_AT <= file.len() && u32_at(&file, at + PAGE_BYTES_AT) > 0 {
        let bytes = u32_at(&file, at + PAGE_BYTES_AT) as usize;
        let page = &mut file[at..at + bytes];
        let changed = match forged {
            None => lower_a_count(page),
            // Children lie before their parents: this page may be the one above.
            Some((link, crc)) => relink(page, link, crc),
        };
        if changed {
            let place = slot << SLOT_SHIFT | (at / LINE_BYTES) as u64;
            forged = Some((place, crc32fast::hash(page)));
        }
        at += bytes;
    }
    let Some((place, crc)) = forged.filter(|(place, _)| *place == link) else { return };
    disk.poke(&name, 0, &file);
    root.put(ROOT_LINK_AT, place);
    root.put(ROOT_LINK_CRC_AT, crc.into());
    root.write(disk);
}

/// The newest superblock says that all is swept.
pub(crate) fn claim_swept(disk: &SimDisk) {
    if let Some(mut root) = Superblock::newest(disk) {
        root.put(ROOT_SWEPT_AT, u64_at(&root.bytes, ROOT_COMPACTED_AT));
        root.write(disk);
    }
}

/// Offsets of a branch's cells; none for a leaf.
fn children(page: &[u8]) -> Vec<usize> {
    let len = if u32_at(page, PAGE_LEVEL_AT) > 0 { u32_at(page, PAGE_LEN_AT) as usize } else { 0 };
    (0..len).map(|at| u32_at(page, PAGE_SLOTS_AT + 8 * at + 4) as usize & 0x7fff_ffff).collect()
}

fn lower_a_count(page: &mut [u8]) -> bool {
    let live = |page: &[u8], cell: &usize| u64_at(page, cell + CHILD_LIVE_AT);
    let Some(cell) = children(page).into_iter().find(|cell| live(page, cell) > 0) else {
        return false;
    };
    let less = live(page, &cell) - 1;
    page[cell + CHILD_LIVE_AT..][..8].copy_from_slice(&less.to_le_bytes());
    true
}

/// Gives the child at a place another checksum; false where it is none of this page's.
fn relink(page: &mut [u8], link: u64, crc: u32) -> bool {
    let is_it = |cell: &usize| u64_at(page, cell + CHILD_LINK_AT) == link;
    let Some(cell) = children(page).into_iter().find(is_it) else { return false };
    page[cell + CHILD_CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
    true
}

/// A slot of the superblock that is whole.
struct Superblock {
    at: usize,
    bytes: Vec<u8>,
}

impl Superblock {
    fn newest(disk: &SimDisk) -> Option<Self> {
        if !disk.names().iter().any(|name| name == SUPERBLOCK_FILE) {
            return None;
        }
        let file = disk.peek(SUPERBLOCK_FILE);
        let half = file.len() / 2;
        let slots = [0, half].into_iter().filter_map(|at| {
            let slot = file[at..at + half].get(..ROOT_LINK_CRC_AT + 8)?;
            let bytes = u64_at(slot, ROOT_BYTES_AT) as usize;
            let slot = Self { at, bytes: file.get(at..at + bytes.max(slot.len()))?.to_vec() };
            (slot.crc() == u32_at(&slot.bytes, ROOT_CRC_AT)).then_some(slot)
        });
        slots.max_by_key(Self::number)
    }

    fn number(&self) -> u64 {
        u64_at(&self.bytes, ROOT_NUMBER_AT)
    }

    fn crc(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.bytes[..ROOT_CRC_AT]);
        hasher.update(&self.bytes[ROOT_BYTES_AT..]);
        hasher.finalize()
    }

    fn put(&mut self, at: usize, number: u64) {
        self.bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }

    fn write(&mut self, disk: &SimDisk) {
        let crc = self.crc();
        self.bytes[ROOT_CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
        disk.poke(SUPERBLOCK_FILE, self.at, &self.bytes);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
