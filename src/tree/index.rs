//! The index's files: pages of the maps as they lie on disk, and how they are read from there.
//!
//! There are two such maps: the keys, and the keys that hold on to leases. A checkpoint writes the pages
//! that it finds in memory of each to one new file, `idx/<number of its superblock>` and `idx/<number of
//! its superblock>.held`. Nothing in it is ever changed; what a later checkpoint writes again elsewhere stays
//! behind as garbage, until a file holds nothing else and goes.
//!
//! ```text
//!     0   u64 magic  u32 version  u32 crc of what follows  u64 cluster  u64 number
//!  4096   pages (see `page`), children before parents, each at a multiple of 64 bytes
//! ```
//!
//! The checksum of a page lies with whoever links to it, its parent or the superblock, and covers the
//! checksums of its own children: so the superblock's few bytes vouch for all of them, and a page that
//! is stale, or stands elsewhere, is noticed too. It is looked at when the page is first read, so that
//! opening a file takes no time, however long it is. A page that does not fit is never served: the
//! process says where it lies, and dies.

use super::{
    checkpoint::{create, write_at},
    map::MapView,
    node,
    page::{Child, Count, Entry, LINE_BYTES, Link, Page, PageMut, Place, bytes_for, whole_bytes},
    recover::{OpenError, open_needed},
    segment::Flaw,
};
use crate::{
    fatal,
    io::{BLOCK_BYTES, Disk, File, Load, Mapping},
    limits::{CHECKPOINT_CHUNK_BYTES, INDEX_FILES_MAX},
    types::ClusterId,
};
use futures_lite::future::yield_now;
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The folder of the index, below the disk's root.
pub(crate) const DIR: &str = "idx";

const MAGIC: u64 = u64::from_le_bytes(*b"RLindex\n");
const VERSION: u32 = 1;
const CRC_AT: usize = 12;
const CLUSTER_AT: usize = 16;
const HEAD_BYTES: usize = CLUSTER_AT + 2 * 8;
/// Offset of the first page.
const PAGES_AT: usize = BLOCK_BYTES;

/// Lines that one word of [`IndexFile::seen`] speaks of.
const LINES_PER_WORD: usize = u64::BITS as usize;

/// The maps that have files, in the superblock's order.
pub(super) const INDEXES: [Which; 2] = [Which::Keys, Which::Held];

/// A map that has files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The keys.
    Keys,
    /// The keys that hold on to leases (see `lease`).
    Held,
}

impl Which {
    /// Name of the file that was written for this superblock.
    pub(super) fn name(self, number: u64) -> String {
        let suffix = match self {
            Self::Keys => "",
            Self::Held => ".held",
        };
        format!("{DIR}/{number:010}{suffix}")
    }
}

/// An index file, as the superblock names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// What links call it, below [`INDEX_FILES_MAX`].
    pub(crate) slot: u16,
    /// Of the superblock that it was written for.
    pub(crate) number: u64,
    /// In the file, the header included.
    pub(crate) bytes: u64,
    /// Of pages that are part of the tree.
    pub(crate) live: u64,
}

/// Where the tree's root lies on disk, and all that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexRoot {
    /// None for an index that was never written: it is empty.
    pub(super) root: Option<Link>,
    pub(super) count: Count,
    /// By slot, ascending.
    pub(super) files: Vec<IndexEntry>,
}

impl IndexRoot {
    /// Of an index that was never written.
    pub(super) const EMPTY: Self =
        Self { root: None, count: Count { live: 0, cells: 0 }, files: Vec::new() };

    /// Names of its files.
    pub(super) fn names(&self, which: Which) -> impl Iterator<Item = String> {
        self.files.iter().map(move |entry| which.name(entry.number))
    }
}

// ── to be read ──────────────────────────────────────────────────────────────────────────────────

/// The files that links may lead to, by slot. A version of the map holds those that it needs.
#[derive(Clone, Default)]
pub(super) struct Files(Vec<Option<Arc<IndexFile>>>);

/// A file that is read.
pub(super) struct IndexFile {
    which: Which,
    entry: IndexEntry,
    map: Mapping,
    /// One bit for each line at which a page begins that was seen to be whole.
    seen: Box<[AtomicU64]>,
}

impl Files {
    /// No file.
    pub(super) const NONE: Self = Self(Vec::new());

    /// The page at a link into a file.
    pub(super) fn page(&self, link: Link) -> Page<'_> {
        let looked = self.look(link);
        looked.unwrap_or_else(|(file, flaw)| fatal::damaged("the index is damaged", &file, flaw))
    }

    /// The page at a link into a file, or the file that is damaged, and where.
    pub(super) fn look(&self, link: Link) -> Result<Page<'_>, (String, Flaw)> {
        let place = link.place();
        let file = self.0.get(usize::from(place.slot)).and_then(Option::as_deref);
        let file = file.expect("a version of the map holds the files that its pages are in");
        let page = file.page(place.line, link.crc()).map_err(|flaw| (file.name(), flaw))?;
        Ok(Page::new(page, self))
    }

    /// Whether the page at a link into a file can be read without waiting for the disk.
    pub(super) fn is_at_hand(&self, link: Link) -> bool {
        let place = link.place();
        let file = self.0.get(usize::from(place.slot)).and_then(Option::as_deref);
        file.is_none_or(|file| file.is_at_hand(place.line))
    }

    /// Where a page's bytes begin, whole or not: for a hint to the processor.
    pub(super) fn start_of(&self, link: Link) -> *const u8 {
        let place = link.place();
        let file = self.0.get(usize::from(place.slot)).and_then(Option::as_deref);
        file.map_or(std::ptr::null(), |file| {
            file.map.as_ptr().wrapping_add(place.line as usize * LINE_BYTES)
        })
    }

    /// Every file with what the superblock says of it.
    pub(super) fn entries(&self) -> impl Iterator<Item = IndexEntry> {
        self.0.iter().flatten().map(|file| file.entry)
    }

    /// The first slot without a file.
    pub(super) fn free_slot(&self) -> Option<u16> {
        let at = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        (at < INDEX_FILES_MAX).then_some(at as u16)
    }

    pub(super) fn insert(&mut self, file: Arc<IndexFile>) {
        let slot = usize::from(file.entry.slot);
        if self.0.len() <= slot {
            self.0.resize(slot + 1, None);
        }
        self.0[slot] = Some(file);
    }

    pub(super) fn remove(&mut self, slot: u16) {
        self.0[usize::from(slot)] = None;
    }
}

impl IndexFile {
    fn new(which: Which, entry: IndexEntry, map: Mapping) -> Self {
        let words = map.len().div_ceil(LINE_BYTES * LINES_PER_WORD);
        Self { which, entry, map, seen: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    fn name(&self) -> String {
        self.which.name(self.entry.number)
    }

    pub(super) fn entry(&self) -> IndexEntry {
        self.entry
    }

    fn is_at_hand(&self, line: u64) -> bool {
        let at = line as usize * LINE_BYTES;
        if self.map.len().saturating_sub(at) < LINE_BYTES {
            return true;
        }
        // A header lies in one line; what it says of the page's length is checked when it is read.
        self.map.is_at_hand(at..at + LINE_BYTES) && {
            let page = Page::bytes_at_front(&self.map[at..]);
            self.map.is_at_hand(at..at + page.map_or(LINE_BYTES, <[u8]>::len))
        }
    }

    /// The page that begins at `line`, whose checksum is `crc`.
    fn page(&self, line: u64, crc: u32) -> Result<&[u8], Flaw> {
        let at = line as usize * LINE_BYTES;
        let (word, bit) = (at / LINE_BYTES / LINES_PER_WORD, at / LINE_BYTES % LINES_PER_WORD);
        let seen =
            self.seen.get(word).is_some_and(|word| word.load(Ordering::Relaxed) >> bit & 1 == 1);
        if seen {
            let page = &self.map[at..];
            return Ok(&page[..whole_bytes(page)]);
        }
        let page = check_page(&self.map, at, crc)?;
        self.seen[word].fetch_or(1 << bit, Ordering::Relaxed);
        Ok(page)
    }
}

/// The page at `at` of a file's bytes, if it is there and whole.
fn check_page(file: &[u8], at: usize, crc: u32) -> Result<&[u8], Flaw> {
    let behind = file.get(at..).unwrap_or_default();
    let Some(page) = Page::bytes_at_front(behind) else {
        return Err(Flaw::new(at, "a page of the index", 0, behind.len() as u64));
    };
    match crc32fast::hash(page) {
        found if found != crc => {
            Err(Flaw::new(at, "the page's checksum", crc.into(), found.into()))
        }
        _ => Ok(page),
    }
}

/// Opens the files that a superblock names.
pub(super) async fn open<D: Disk>(
    disk: &D,
    cluster: ClusterId,
    which: Which,
    index: &IndexRoot,
) -> Result<Files, OpenError> {
    let mut files = Files::default();
    for entry in &index.files {
        let name = which.name(entry.number);
        let file = open_needed(disk, &name, entry.bytes as usize).await?;
        let map = file.map(entry.bytes, Load::Later).await?;
        check_header(&map, cluster, entry)
            .map_err(|flaw| OpenError::Damaged { file: name, flaw })?;
        files.insert(Arc::new(IndexFile::new(which, *entry, map)));
    }
    Ok(files)
}

fn header(cluster: ClusterId, number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&cluster.0.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&out[CLUSTER_AT..]);
    out[CRC_AT..CLUSTER_AT].copy_from_slice(&crc.to_le_bytes());
    out
}

fn check_header(file: &[u8], cluster: ClusterId, entry: &IndexEntry) -> Result<(), Flaw> {
    let expected = header(cluster, entry.number);
    let word = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    };
    for at in (0..HEAD_BYTES).step_by(8) {
        let (expected, found) = (word(&expected, at), word(file, at));
        if expected != found {
            return Err(Flaw::new(at, "the header of an index file", expected, found));
        }
    }
    Ok(())
}

// ── to be written ───────────────────────────────────────────────────────────────────────────────

/// What a checkpoint wrote of the index.
pub(crate) struct Written {
    pub(super) file: Arc<IndexFile>,
    /// Where the state's root lies now.
    pub(super) root: Link,
    /// Where each page went that was in memory, and its bytes there, by the link that it had.
    moved: BTreeMap<Link, (Link, u32)>,
    /// The state itself. Until all of it is read from the file its pages keep their addresses.
    _view: MapView,
}

impl Written {
    /// Where the page at this link went, and its bytes there.
    pub(super) fn place_of(&self, link: Link) -> Option<(Link, u64)> {
        self.moved.get(&link).map(|(to, bytes)| (*to, (*bytes).into()))
    }
}

/// Writes the pages of `view` that are in memory to the file of superblock `number`, and makes them
/// durable, in pieces that hold nobody up. The root is one of them.
///
/// # Errors
/// What the disk says.
pub(super) async fn write<D: Disk>(
    disk: &D,
    cluster: ClusterId,
    (which, number, slot): (Which, u64, u16),
    view: MapView,
) -> io::Result<Written> {
    let file = create(disk, &which.name(number)).await?;
    write_at(&file, &header(cluster, number), 0).await?;
    let mut press = Press { slot, at: PAGES_AT, bytes: Vec::new(), moved: BTreeMap::new() };
    let root = {
        let mut walk = Walk::from(&view);
        loop {
            if let Some(root) = walk.step(&mut press) {
                break root;
            }
            if press.bytes.len() >= CHECKPOINT_CHUNK_BYTES {
                press.flush(&file, BLOCK_BYTES).await?;
                yield_now().await;
            }
        }
    };
    press.flush(&file, 1).await?;
    file.sync().await?;
    let Press { at, moved, .. } = press;
    let bytes = at as u64;
    let live = bytes - PAGES_AT as u64;
    // Whoever reads these pages next had them in memory a moment ago, and is not to wait for the disk.
    let map = file.map(bytes, Load::Now).await?;
    map.let_go();
    let file = Arc::new(IndexFile::new(which, IndexEntry { slot, number, bytes, live }, map));
    Ok(Written { file, root, moved, _view: view })
}

/// Pages on their way into a file.
struct Press {
    slot: u16,
    /// Where the next page goes.
    at: usize,
    /// The last of what lies before that: not written yet.
    bytes: Vec<u8>,
    moved: BTreeMap<Link, (Link, u32)>,
}

impl Press {
    /// Sets a page, packed, with these children. Where it lies now.
    fn set(&mut self, from: Link, page: Page<'_>, children: &[Child]) -> Link {
        let bodies: Vec<_> = children.iter().map(|child| child.encode()).collect();
        let mut entries: Vec<Entry<'_>> = page.entries().collect();
        for (entry, body) in entries.iter_mut().zip(&bodies) {
            entry.body = body;
        }
        let begin = self.bytes.len();
        let end = begin + bytes_for(page.level(), &entries).next_multiple_of(LINE_BYTES);
        self.bytes.resize(end, 0);
        let packed = &mut self.bytes[begin..];
        PageMut::build(packed, page.level(), page.version(), &entries);
        let crc = crc32fast::hash(packed);
        let to = Link::in_file(Place { slot: self.slot, line: (self.at / LINE_BYTES) as u64 }, crc);
        let bytes = u32::try_from(end - begin).expect("a page is smaller than 2 GiB");
        self.moved.insert(from, (to, bytes));
        self.at += end - begin;
        to
    }

    /// Writes what is there in whole units of `unit` bytes; the last block is filled up with zeros.
    async fn flush<F: File>(&mut self, file: &F, unit: usize) -> io::Result<()> {
        let ready = self.bytes.len() / unit * unit;
        let from = self.at - self.bytes.len();
        write_at(file, &self.bytes[..ready], from).await?;
        self.bytes.drain(..ready);
        Ok(())
    }
}

/// A walk over the pages of a state that are in memory, children before parents.
struct Walk<'a> {
    path: Vec<Step<'a>>,
}

struct Step<'a> {
    link: Link,
    page: Page<'a>,
    /// Those that have a place on disk, from the first on.
    children: Vec<Child>,
}

impl<'a> Walk<'a> {
    fn from(view: &'a MapView) -> Self {
        let (link, page) = view.root();
        Self { path: vec![Step { link, page, children: Vec::new() }] }
    }

    /// Goes down to a page, or sets one. The root's place once that has one.
    fn step(&mut self, press: &mut Press) -> Option<Link> {
        let Step { link, page, children } =
            self.path.last_mut().expect("a walk ends with its root");
        if page.level() > 0 && children.len() < page.len() {
            let at = children.len();
            let child = page.child(at);
            if child.link.is_in_memory() {
                let below = node::child(*page, at);
                self.path.push(Step { link: child.link, page: below, children: Vec::new() });
            } else {
                children.push(child);
            }
            return None;
        }
        let place = press.set(*link, *page, children);
        self.path.pop();
        let Some(above) = self.path.last_mut() else { return Some(place) };
        let count = above.page.child(above.children.len()).count;
        above.children.push(Child { link: place, count });
        None
    }
}
