//! Opening a directory: the newest whole superblock, and all files that it names.
//!
//! What a start reads does not grow with the keys: the superblock, the segment that is being filled, the
//! list of the dead, the leases. Sealed segments and the index are mapped, and each part of them is
//! checked when it is first read (see [`Unseen`] and `index`). Damage that a start finds is refused with
//! its place; nothing is repaired in silence. What lies behind the superblock's tail is ignored, and
//! overwritten when its turn comes; files that the superblock does not name are removed by the next
//! checkpoint.
//!
//! Another member's records come without an index, which is rebuilt from them. The rebuild reads records in order and applies the compaction rule at the superblock's
//! compacted revision, so it does not matter how far physical compaction had come. Records listed as
//! dead are passed over: what killed them may be gone.

use super::{
    KeyMeta, Maps, Options, Tree,
    cell::{self, Cell},
    chain,
    dead::{self, Dead},
    index::{self, INDEXES, Which},
    lease,
    map::Map,
    record::Record,
    root::{self, Entry, FILE, Root, SLOTS, Slot, Standing, TailEntry},
    segment::{self, Flaw, Identity, RECORDS_AT, Run, Segment, Source, Unseen},
    shelf::{Book, Shelf, Tail},
};
use crate::{
    fatal::DAMAGED_ADVICE,
    io::{BLOCK_BYTES, Disk, File, Load},
    limits::{CHECKPOINT_CHUNK_BYTES, SWEEP_RECORDS_PER_TURN},
    types::{ClusterId, LeaseId, MemberId, Revision, Seq},
};
use futures_lite::future::yield_now;
use std::{collections::BTreeSet, fmt, io, sync::Arc};

/// Why a directory cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The disk said no.
    Disk(io::Error),
    /// A file that the superblock needs is damaged or missing.
    Damaged {
        /// Which, below the directory.
        file: String,
        /// Where, and what was expected and found.
        flaw: Flaw,
    },
    /// No slot of the superblock is whole.
    NoRoot {
        /// What is wrong with each slot; None for one that was never written.
        slots: [Option<Flaw>; SLOTS as usize],
    },
    /// The superblock was written by another version.
    Foreign {
        /// The format's version.
        version: u32,
    },
    /// The directory was formatted with segments of another size.
    SegmentBytes {
        /// What the directory has.
        found: usize,
        /// What was asked for.
        expected: usize,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "cannot read the store: {error}"),
            Self::Damaged { file, flaw } => {
                write!(f, "{file} is damaged at {flaw}; {DAMAGED_ADVICE}")
            }
            Self::NoRoot { slots } => {
                write!(f, "{FILE} has no whole slot")?;
                for (index, slot) in slots.iter().enumerate() {
                    match slot {
                        Some(flaw) => write!(f, "; slot {index} is damaged at {flaw}")?,
                        None => write!(f, "; slot {index} was never written")?,
                    }
                }
                write!(f, "; {DAMAGED_ADVICE}")
            }
            Self::Foreign { version } => write!(
                f,
                "{FILE} has format {version}, which this version does not read; use the version \
                 that wrote it"
            ),
            Self::SegmentBytes { found, expected } => write!(
                f,
                "{FILE} names segments of {found} bytes, expected {expected}; use the settings \
                 that the directory was made with"
            ),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// The newest whole superblock and the names of all other files: what opening begins with.
pub struct Newest {
    there: BTreeSet<String>,
    root: Root,
}

impl Newest {
    /// Whose directory this is.
    pub fn owner(&self) -> (ClusterId, MemberId) {
        (self.root.facts.cluster, self.root.facts.member)
    }
}

/// Finds the newest superblock. None for a directory that was never formatted.
///
/// # Errors
/// [`OpenError`] says what is wrong with the slots, and what to do.
pub async fn newest<D: Disk>(disk: &D, options: Options) -> Result<Option<Newest>, OpenError> {
    let there = files(disk).await?;
    let root = newest_root(disk, options, there.is_empty()).await?;
    Ok(root.map(|root| Newest { there, root }))
}

/// Opens what a checkpoint wrote. None for a directory that was never formatted.
///
/// # Errors
/// [`OpenError`] says which file is damaged, where, and what to do.
pub async fn open<D: Disk>(disk: &D, options: Options) -> Result<Option<(Tree, Root)>, OpenError> {
    match newest(disk, options).await? {
        Some(newest) => open_newest(disk, options, newest).await.map(Some),
        None => Ok(None),
    }
}

/// Opens what the checkpoint with this superblock wrote.
///
/// # Errors
/// As [`open`].
pub async fn open_newest<D: Disk>(
    disk: &D,
    options: Options,
    Newest { there, root }: Newest,
) -> Result<(Tree, Root), OpenError> {
    let dead = read_dead(disk, &root).await?;
    let mut closed = Vec::with_capacity(root.sealed.len());
    for entry in &root.sealed {
        closed.push(open_sealed(disk, &root, entry, &dead).await?);
    }
    let mut tail = read_tail(disk, &root).await?;
    tail.take_marks(marks_of(&dead, &tail.identity()));
    let leases = read_leases(disk, &root, options).await?;
    let [keys, held] = INDEXES;
    let keys = open_index(disk, options, &root, keys).await?;
    let held = open_index(disk, options, &root, held).await?;
    let shelf = Shelf::new(root.segment_bytes, closed, tail);
    let mut tree = Tree::from_parts(
        Maps { keys, held, leases, index_files: options.index_files },
        shelf,
        root.standing(),
    );
    let named: Vec<_> = root.files().collect();
    tree.shelf.garbage.extend(there.into_iter().filter(|name| !named.contains(name)));
    Ok((tree, root))
}

/// What stands in for a database that is damaged, until a snapshot takes its place: an empty tree, in
/// which everything that is there is garbage, and the newest superblock, which stays the newest until
/// that snapshot is installed. No checkpoint is taken of it.
///
/// # Errors
/// As [`open`] for the superblock; a directory that was never formatted has nothing to stand in for.
pub async fn stand_in<D: Disk>(disk: &D, options: Options) -> Result<(Tree, Root), OpenError> {
    let newest = newest(disk, options).await?;
    let Newest { there, root } = newest.ok_or(OpenError::NoRoot { slots: [None, None] })?;
    let mut shelf =
        Shelf::new(root.segment_bytes, Vec::new(), Tail::new(0, Seq(0), root.segment_bytes));
    shelf.garbage.extend(there);
    let standing = Standing { number: root.number, ..Standing::NEW };
    Ok((Tree::from_parts(Maps::new(options), shelf, standing), root))
}

/// The newest whole superblock.
async fn newest_root<D: Disk>(
    disk: &D,
    options: Options,
    fresh: bool,
) -> Result<Option<Root>, OpenError> {
    let Some(slots) = read_slots(disk, options, fresh).await? else { return Ok(None) };
    let root = choose(slots, fresh)?;
    root.map(|root| check_segment_bytes(root, options)).transpose()
}

impl Tree {
    /// Reads the whole index and checks it, where opening leaves that to whoever reads a page first.
    ///
    /// # Errors
    /// [`OpenError::Damaged`].
    pub fn check_index(&self) -> Result<(), OpenError> {
        let checked = self.map.check().and_then(|()| self.held.check());
        checked.map_err(|(file, flaw)| OpenError::Damaged { file, flaw })
    }

    /// Reads all sealed segments and checks them, where opening leaves that to whoever reads a record
    /// first.
    ///
    /// # Errors
    /// [`OpenError::Damaged`].
    pub fn check_records(&self) -> Result<(), OpenError> {
        self.shelf.closed().try_for_each(|(segment, _)| {
            let damaged = |flaw| OpenError::Damaged { file: segment.identity.file(), flaw };
            segment.check().map_err(damaged)
        })
    }
}

/// All files but the superblock, named or not.
pub(crate) async fn files<D: Disk>(disk: &D) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for dir in [segment::DIR, index::DIR] {
        names.extend(disk.list(dir).await?.into_iter().map(|name| format!("{dir}/{name}")));
    }
    Ok(names)
}

/// One bit for each record of a segment that is dead.
pub(crate) fn marks_of<'a>(dead: &'a Dead, identity: &Identity) -> &'a [u64] {
    dead.get(&(identity.id, identity.generation)).map_or(&[][..], Vec::as_slice)
}

/// Each segment with its book, in which the listed records are dead.
fn with_books(segments: Vec<Segment>, dead: &Dead) -> Vec<(Segment, Book)> {
    let with_book = |segment: Segment| {
        let book = Book::of(&segment.run(), marks_of(dead, &segment.identity));
        (segment, book)
    };
    segments.into_iter().map(with_book).collect()
}

// ── the superblock ──────────────────────────────────────────────────────────────────────────────

/// Both slots; None where there is no file, as in a fresh directory.
pub(crate) async fn read_slots<D: Disk>(
    disk: &D,
    options: Options,
    fresh: bool,
) -> io::Result<Option<[Slot; SLOTS as usize]>> {
    let file = match disk.open(FILE).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound && fresh => return Ok(None),
        result => result?,
    };
    // A process that was killed may have left a slot, or the file's name, that is not durable. The
    // member goes on from what it reads here, so it has to be.
    file.sync().await?;
    disk.sync_dir("").await?;
    let slot_bytes = root::slot_bytes(options.segment_bytes);
    let first = read_slot(&file, slot_bytes, 0).await?;
    let second = read_slot(&file, slot_bytes, 1).await?;
    Ok(Some([first, second]))
}

pub(super) async fn read_slot<F: File>(
    file: &F,
    slot_bytes: usize,
    index: u64,
) -> io::Result<Slot> {
    let base = index * slot_bytes as u64;
    let room = file.len().await?.saturating_sub(base).min(slot_bytes as u64) as usize;
    let room = room / BLOCK_BYTES * BLOCK_BYTES;
    if room == 0 {
        return Ok(Slot::Blank);
    }
    let head = file.read_at(base, BLOCK_BYTES).await?;
    let bytes = root::bytes_in_use(&head, room).unwrap_or(0).max(BLOCK_BYTES);
    let slot = file.read_at(base, bytes.next_multiple_of(BLOCK_BYTES)).await?;
    Ok(root::decode(&slot, base as usize, index))
}

/// The newest whole slot wins. Formatting writes the first slot before the second, so a second
/// slot that was never written beside a first that is not whole means that nothing ever counted.
pub(crate) fn choose(
    [first, second]: [Slot; SLOTS as usize],
    fresh: bool,
) -> Result<Option<Root>, OpenError> {
    match (first, second) {
        (Slot::Foreign(version), _) | (_, Slot::Foreign(version)) => {
            Err(OpenError::Foreign { version })
        }
        (Slot::Whole(first), Slot::Whole(second)) => {
            Ok(Some(if first.number > second.number { *first } else { *second }))
        }
        (Slot::Whole(root), Slot::Damaged(flaw)) | (Slot::Damaged(flaw), Slot::Whole(root)) => {
            Ok(Some(Root { sibling_damage: Some(flaw), ..*root }))
        }
        (Slot::Whole(root), Slot::Blank) | (Slot::Blank, Slot::Whole(root)) => Ok(Some(*root)),
        (_, Slot::Blank) if fresh => Ok(None),
        (first, second) => Err(OpenError::NoRoot { slots: [first, second].map(flaw_of) }),
    }
}

/// Sizes are fixed when a directory is made.
pub(crate) fn check_segment_bytes(root: Root, options: Options) -> Result<Root, OpenError> {
    let (found, expected) = (root.segment_bytes, options.segment_bytes);
    if found == expected { Ok(root) } else { Err(OpenError::SegmentBytes { found, expected }) }
}

fn flaw_of(slot: Slot) -> Option<Flaw> {
    if let Slot::Damaged(flaw) = slot { Some(flaw) } else { None }
}

// ── segments ────────────────────────────────────────────────────────────────────────────────────

/// Opens a file that the superblock needs and sees that it is long enough.
pub(crate) async fn open_needed<D: Disk>(
    disk: &D,
    file: &str,
    bytes: usize,
) -> Result<D::File, OpenError> {
    let damaged = |flaw| OpenError::Damaged { file: file.to_owned(), flaw };
    let missing = |found| damaged(Flaw::new(0, "a file of this many bytes", bytes as u64, found));
    let handle = match disk.open(file).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(0)),
        result => result?,
    };
    match handle.len().await? {
        found if found < bytes as u64 => Err(missing(found)),
        _ => Ok(handle),
    }
}

/// A sealed file, read and checked whole.
pub(crate) async fn read_sealed<D: Disk>(
    disk: &D,
    root: &Root,
    entry: &Entry,
) -> Result<Segment, OpenError> {
    let Entry { identity, extent, .. } = *entry;
    let bytes = extent.file_bytes();
    let file = open_needed(disk, &identity.file(), bytes).await?;
    let map = file.map(bytes as u64, Load::Now).await?;
    segment::check_sealed(&map, root.facts.cluster, &identity, &extent)
        .map_err(|flaw| OpenError::Damaged { file: identity.file(), flaw })?;
    Ok(Segment::new(identity, Source::File { map, extent, unseen: None }))
}

/// A sealed file as a start takes it: it is there and long enough; the rest is seen when it is read.
async fn open_sealed<D: Disk>(
    disk: &D,
    root: &Root,
    entry: &Entry,
    dead: &Dead,
) -> Result<(Segment, Book), OpenError> {
    let Entry { identity, extent, live } = *entry;
    let bytes = extent.file_bytes();
    let file = open_needed(disk, &identity.file(), bytes).await?;
    let map = file.map(bytes as u64, Load::Later).await?;
    let unseen = Some(Arc::new(Unseen::new(root.facts.cluster, identity, &extent)));
    let book = Book::opened(live, marks_of(dead, &identity));
    Ok((Segment::new(identity, Source::File { map, extent, unseen }), book))
}

pub(super) async fn open_index<D: Disk>(
    disk: &D,
    options: Options,
    root: &Root,
    which: Which,
) -> Result<Map, OpenError> {
    let index = &root.index[which as usize];
    let files = index::open(disk, root.facts.cluster, which, index).await?;
    Ok(Map::open(options.page_bytes, index, files))
}

pub(crate) async fn read_tail<D: Disk>(disk: &D, root: &Root) -> Result<Tail, OpenError> {
    let entry = root.tail;
    let mut tail = Tail::new(entry.id, entry.first, root.segment_bytes.max(entry.bytes));
    tail.generation = entry.generation;
    if entry.bytes == 0 {
        return Ok(tail);
    }
    let TailEntry { id, generation, first, .. } = entry;
    let identity = Identity { id, generation, first, next: root.seq_next };
    let damaged = |flaw| OpenError::Damaged { file: identity.file(), flaw };
    let end = RECORDS_AT + entry.bytes.next_multiple_of(BLOCK_BYTES);
    let file = open_needed(disk, &identity.file(), end).await?;
    let header = file.read_at(0, RECORDS_AT).await?;
    segment::check_header(&header, root.facts.cluster, &identity).map_err(damaged)?;
    let bytes = read_chunks(&file, RECORDS_AT, entry.bytes).await?;
    let offsets = segment::check_records(&bytes, &identity, false)
        .map_err(|flaw| damaged(flaw.behind(RECORDS_AT)))?;
    for offset in offsets {
        tail.push(Record::at_front(&bytes[offset as usize..]).bytes());
    }
    tail.book.durable = Some(entry.bytes);
    Ok(tail)
}

pub(crate) async fn read_dead<D: Disk>(disk: &D, root: &Root) -> Result<Dead, OpenError> {
    let Some(name) = root.dead_file() else { return Ok(Dead::new()) };
    let end = root.dead_bytes.next_multiple_of(BLOCK_BYTES);
    let file = open_needed(disk, &name, end).await?;
    let bytes = file.read_at(0, end).await?;
    dead::decode(&bytes[..root.dead_bytes], root.facts.cluster, root.number)
        .map_err(|flaw| OpenError::Damaged { file: name, flaw })
}

pub(crate) async fn read_leases<D: Disk>(
    disk: &D,
    root: &Root,
    options: Options,
) -> Result<Map, OpenError> {
    let Some(name) = root.leases.name() else { return Ok(Map::new(options.page_bytes)) };
    let len = root.leases.bytes as usize;
    let file = open_needed(disk, &name, len.next_multiple_of(BLOCK_BYTES)).await?;
    let bytes = read_chunks(&file, 0, len).await?;
    lease::decode(&bytes, root.facts.cluster, &root.leases, options.page_bytes)
        .await
        .map_err(|flaw| OpenError::Damaged { file: name, flaw })
}

/// The `len` bytes from block `from` on, read as the disk likes it.
pub(crate) async fn read_chunks<F: File>(file: &F, from: usize, len: usize) -> io::Result<Vec<u8>> {
    let end = from + len.next_multiple_of(BLOCK_BYTES);
    let mut bytes = Vec::with_capacity(end - from);
    for offset in (from..end).step_by(CHECKPOINT_CHUNK_BYTES) {
        let len = CHECKPOINT_CHUNK_BYTES.min(end - offset);
        bytes.extend_from_slice(&file.read_at(offset as u64, len).await?);
    }
    bytes.truncate(len);
    Ok(bytes)
}

// ── the map ─────────────────────────────────────────────────────────────────────────────────────

/// Makes the tree as it was at the root: all but what its compaction takes. In pieces that hold
/// nobody up.
pub(crate) async fn rebuild(
    options: Options,
    root: &Root,
    segments: Vec<Segment>,
    dead: &Dead,
    tail: Tail,
    leases: Map,
) -> Tree {
    let mut rebuild = Rebuild {
        map: Map::new(options.page_bytes),
        held: Map::new(options.page_bytes),
        entry: Vec::new(),
        compacted: root.compacted,
        dead: Vec::new(),
    };
    let mut closed = Vec::with_capacity(segments.len());
    for (segment, book) in with_books(segments, dead) {
        rebuild.take_run(&segment.run(), &book).await;
        closed.push((segment, book));
    }
    rebuild.take_run(&tail.run(), &Book::default()).await;
    let mut shelf = Shelf::new(root.segment_bytes, closed, tail);
    rebuild.dead.into_iter().for_each(|seq| shelf.mark(seq));
    let standing = Standing { swept: root.compacted, ..root.standing() };
    Tree::from_parts(
        Maps { keys: rebuild.map, held: rebuild.held, leases, index_files: options.index_files },
        shelf,
        standing,
    )
}

struct Rebuild {
    map: Map,
    held: Map,
    /// Memory that is used again.
    entry: Vec<u8>,
    compacted: Revision,
    /// Records that compaction takes and that are still there.
    dead: Vec<Seq>,
}

impl Rebuild {
    async fn take_run(&mut self, run: &Run<'_>, book: &Book) {
        let live = (0..run.len()).filter(|position| !book.dead(*position));
        for (taken, position) in live.enumerate() {
            self.take(&run.at(position));
            if taken % SWEEP_RECORDS_PER_TURN == 0 {
                yield_now().await;
            }
        }
    }

    /// Takes the next record in: it becomes its key's newest version.
    fn take(&mut self, record: &Record<'_>) {
        let kv = record.fields();
        let (mut roots, mut lease) = (Vec::new(), LeaseId(0));
        if let Some(cell) = self.map.get(kv.key) {
            let cell = Cell::decode(cell);
            roots.extend(cell.roots());
            lease = cell.meta.map_or(lease, |meta| meta.lease);
            if record.main() <= self.compacted {
                // Superseded at or below the compacted revision.
                self.dead.push(cell.newest());
            }
        }
        lease::hold(&mut self.held, &mut self.entry, kv.key, lease, LeaseId(kv.lease));
        if record.tombstone() && record.main() < self.compacted {
            self.dead.push(record.seq());
            self.map.remove(kv.key);
            return;
        }
        chain::replay(&mut roots, record, self.compacted);
        let meta = (!record.tombstone()).then(|| KeyMeta {
            create: Revision(kv.create),
            modified: record.stamp(),
            version: kv.version,
            lease: LeaseId(kv.lease),
            value_bytes: u32::try_from(kv.value.len()).expect("a record is below 4 GiB"),
        });
        let mut cell = Vec::new();
        cell::encode(record.stamp(), meta.as_ref(), &roots, &mut cell);
        self.map.insert(kv.key, &cell, meta.is_some());
    }
}
