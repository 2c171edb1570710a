//! Checkpoints: the records so far and a superblock that names them go to disk, while the writer
//! goes on.
//!
//! [`Tree::begin_checkpoint`] collects everything the job needs; [`Checkpoint::run`] does all the
//! I/O, in this order, and [`Tree::finish_checkpoint`] takes the result over:
//!
//! 1. the tail's new records are written, full segments are written to their end and sealed;
//! 2. segments that are mostly dead are rewritten, small neighbours into one, and the dead records
//!    of all others are listed;
//! 3. the table of leases is written, if it has changed since its last file, and those pages of the
//!    index that are not in a file yet;
//! 4. everything is synced, directories too; sealed files are mapped and compared with memory;
//! 5. the next superblock is written over the older slot and synced: from here on it counts;
//! 6. only now are files removed that it no longer names.
//!
//! A crash at any point leaves one whole superblock and all that it names. Nothing that a whole
//! superblock names is ever changed, but for the tail's last block (see `segment`). What a crash left
//! torn in the older slot goes before anything else is written: the files that it names are written
//! anew, and were the next superblock torn as well, sectors of both could make the first one whole.

use super::{
    Maps, Options, Tree,
    append_vec::Frozen,
    dead::{self, Dead},
    index::{self, INDEXES, IndexEntry, IndexRoot, Which, Written},
    lease::{self, LeaseFile},
    map::{Map, MapView},
    page::Count,
    record::Record,
    recover::read_slot,
    root::{self, Entry, Live, Root, RootFacts, Slot, Standing, TailEntry},
    segment::{self, Extent, Identity, RECORDS_AT, Run, Segment, Source},
    shelf::{Book, Shelf, Tail},
};
use crate::{
    io::{AlignedBuf, BLOCK_BYTES, Disk, File, Load, Mapping},
    limits::{CHECKPOINT_CHUNK_BYTES, REWRITE_BYTES_MAX, SEGMENTS_MAX},
    types::{ClusterId, Revision, Seq},
};
use futures_lite::future::yield_now;
use std::io;

const _: () = assert!(CHECKPOINT_CHUNK_BYTES.is_multiple_of(BLOCK_BYTES), "O_DIRECT writes blocks");

/// What the tree remembers of its checkpoints.
pub(crate) struct Ledger {
    /// Number of the newest superblock.
    number: u64,
    /// Records below this are in files that it names.
    durable: Seq,
    /// The list of dead records that it names.
    dead_file: Option<String>,
    /// The table of leases that it names.
    leases: LeaseFile,
    /// The files of the index that it names.
    index_files: Vec<String>,
    /// Changes of the leases that are in that table.
    lease_changes: u64,
    /// The checkpoint that is running.
    job: Option<Job>,
}

struct Job {
    /// Files that the job makes: garbage if it fails.
    creates: Vec<String>,
    /// Files that the job removes once it may.
    removes: Vec<String>,
    /// Records that died since it began.
    dead: Vec<Seq>,
    /// Changes of the leases when it began.
    lease_changes: u64,
    /// Slots of files of each index in which nothing was left when it began.
    empty_slots: [Vec<u16>; INDEXES.len()],
    /// Names of those that its superblock names.
    index_files: Vec<String>,
}

impl Ledger {
    pub(crate) fn new(standing: &Standing, durable: Seq) -> Self {
        let Standing { number, dead_file, leases, index_files, .. } = standing.clone();
        Self { number, durable, dead_file, leases, index_files, lease_changes: 0, job: None }
    }

    /// The lists that the newest superblock names.
    fn lists(&self) -> impl Iterator<Item = String> {
        let dead = self.dead_file.clone().into_iter();
        dead.chain(self.leases.name()).chain(self.index_files.iter().cloned())
    }

    /// Remembers a record that died while a job may be copying it.
    pub(crate) fn note_dead(&mut self, seq: Seq) {
        if let Some(job) = &mut self.job {
            job.dead.push(seq);
        }
    }
}

/// A checkpoint on its way. It owns all it needs and runs beside the writer.
pub struct Checkpoint {
    facts: RootFacts,
    number: u64,
    compacted: Revision,
    seq_next: Seq,
    segment_bytes: usize,
    /// Sealed segments that stay as they are.
    kept: Vec<Entry>,
    fills: Vec<Fill>,
    rewrites: Vec<Rewrite>,
    tail: TailEntry,
    dead: Dead,
    leases: Leases,
    swept: Revision,
    index: [Index; INDEXES.len()],
    removes: Vec<String>,
}

/// One of the maps that have files, at this checkpoint.
struct Index {
    which: Which,
    /// All of it.
    view: MapView,
    /// Where those of its pages go that are in memory; None where there are none.
    slot: Option<u16>,
    /// The files that hold the others.
    files: Vec<IndexEntry>,
}

/// The table of leases at this checkpoint.
enum Leases {
    /// As in this file.
    Kept(LeaseFile),
    /// Changed since, and not empty: to be written.
    Changed(MapView),
}

/// Records that go to the file that they began in.
struct Fill {
    identity: Identity,
    bytes: Frozen<u8>,
    offsets: Frozen<u32>,
    /// Bytes of records that the file has already; None where there is no file.
    durable: Option<usize>,
    seal: bool,
    /// Of its records, when the checkpoint began.
    live: Live,
}

/// Neighbours whose live records go to a new file.
pub(super) struct Rewrite {
    identity: Identity,
    sources: Vec<(Segment, Book)>,
}

/// What a finished checkpoint hands back to the tree.
pub struct CheckpointDone {
    number: u64,
    seq_next: Seq,
    sealed: Vec<(Identity, Source, Live)>,
    rewritten: Vec<(Vec<Identity>, Segment, Book)>,
    tail: TailEntry,
    dead_file: Option<String>,
    leases: LeaseFile,
    index: [Option<Written>; INDEXES.len()],
}

impl Tree {
    /// Starts a checkpoint of the newest state; None while one is running. `facts` say what the
    /// member knows at that very state.
    pub fn begin_checkpoint(&mut self, facts: RootFacts) -> Option<Checkpoint> {
        if self.ledger.job.is_some() {
            return None;
        }
        let rewrites = choose_rewrites(&self.shelf);
        Some(self.checkpoint(facts, rewrites))
    }

    /// The checkpoint that makes this tree the one of a directory whose newest superblock has this
    /// number. All its records are in files.
    pub(crate) fn begin_install(&mut self, number: u64, facts: RootFacts) -> Checkpoint {
        assert!(self.ledger.job.is_none(), "a tree is installed once");
        self.ledger.number = number;
        self.checkpoint(facts, Vec::new())
    }

    pub(super) fn is_checkpoint_running(&self) -> bool {
        self.ledger.job.is_some()
    }

    pub(super) fn checkpoint(&mut self, facts: RootFacts, rewrites: Vec<Rewrite>) -> Checkpoint {
        let leases = self.leases_to_write();
        self.cleared_bytes = 0;
        let (keys, keys_empty) = index_to_write(&mut self.map, Which::Keys);
        let (held, held_empty) = index_to_write(&mut self.held, Which::Held);
        let (index, empty_slots) = ([keys, held], [keys_empty, held_empty]);
        let tail = &self.shelf.tail;
        let mut checkpoint = Checkpoint {
            facts,
            number: self.ledger.number + 1,
            compacted: self.compacted,
            seq_next: tail.next(),
            segment_bytes: self.shelf.segment_bytes(),
            kept: Vec::new(),
            fills: Vec::new(),
            rewrites,
            tail: tail.entry(),
            dead: Dead::new(),
            leases,
            swept: self.sweep.done_up_to(),
            index,
            removes: Vec::new(),
        };
        checkpoint.collect_segments(&self.shelf);
        checkpoint.collect_tail(tail);
        let creates: Vec<_> = checkpoint.creates().collect();
        let named: Vec<_> = checkpoint.names().collect();
        checkpoint.removes = std::mem::take(&mut self.shelf.garbage);
        checkpoint.removes.extend(self.ledger.lists());
        checkpoint.removes.retain(|name| !named.contains(name));
        self.ledger.job = Some(Job {
            creates,
            removes: checkpoint.removes.clone(),
            dead: Vec::new(),
            lease_changes: self.lease_changes,
            empty_slots,
            index_files: checkpoint.index_files().collect(),
        });
        checkpoint
    }

    /// Number of the newest superblock.
    ///
    /// # Panics
    /// While a checkpoint is running, which will write the next.
    pub fn superblock(&self) -> u64 {
        assert!(self.ledger.job.is_none(), "a checkpoint is about to write a superblock");
        self.ledger.number
    }

    /// Names of the files that its superblock names, when all records are in files.
    pub(crate) fn files(&self) -> impl Iterator<Item = String> {
        let tail = &self.shelf.tail;
        let tail = tail.book.durable.map(|_| tail.entry().file());
        let closed = self.shelf.closed().map(|(segment, _)| segment.identity.file());
        closed.chain(tail).chain(self.ledger.lists())
    }

    fn leases_to_write(&mut self) -> Leases {
        if self.lease_changes == self.ledger.lease_changes {
            return Leases::Kept(self.ledger.leases);
        }
        match self.lease_bytes() {
            0 => Leases::Kept(LeaseFile::default()),
            _ => Leases::Changed(self.leases.publish()),
        }
    }

    /// Takes over what a checkpoint did: sealed segments are read from their files from now on.
    pub fn finish_checkpoint(&mut self, done: CheckpointDone) {
        let job = self.ledger.job.take().expect("a checkpoint was begun");
        assert!(done.number == self.ledger.number + 1, "checkpoints end in the order they began");
        self.ledger.number = done.number;
        self.ledger.durable = done.seq_next;
        self.ledger.dead_file = done.dead_file;
        self.ledger.leases = done.leases;
        self.ledger.lease_changes = job.lease_changes;
        self.ledger.index_files = job.index_files;
        let maps = [&mut self.map, &mut self.held];
        for ((map, empty), written) in maps.into_iter().zip(job.empty_slots).zip(done.index) {
            empty.into_iter().for_each(|slot| map.remove_file(slot));
            written.into_iter().for_each(|written| map.adopt_written(written));
        }
        for (identity, source, _) in done.sealed {
            match self.shelf.position(&identity) {
                Some(at) => self.shelf.seal(at, source),
                // It died while it was being sealed.
                None => self.shelf.garbage.push(identity.file()),
            }
        }
        for (sources, segment, book) in done.rewritten {
            for identity in sources {
                self.shelf.position(&identity).into_iter().for_each(|at| self.shelf.remove(at));
            }
            self.shelf.insert(segment, book);
        }
        self.shelf.tail_is_durable(&done.tail);
        job.dead.into_iter().for_each(|seq| self.shelf.mark(seq));
    }

    /// Forgets a checkpoint that failed because the disk was full. The tree is as it was before;
    /// the next checkpoint does the work again. After any other failure the process dies instead.
    pub fn abandon_checkpoint(&mut self) {
        let job = self.ledger.job.take().expect("a checkpoint was begun");
        self.shelf.garbage.extend(job.creates);
        self.shelf.garbage.extend(job.removes);
        let named: Vec<_> = self.ledger.lists().collect();
        self.shelf.garbage.retain(|name| !named.contains(name));
    }

    /// Records written since the newest checkpoint.
    pub fn records_since_checkpoint(&self) -> u64 {
        self.shelf.tail.next().0 - self.ledger.durable.0
    }

    /// Bytes of segments and leases: those in files, and what is in memory on its way there. The
    /// superblock's fixed room does not count: no client can fill or free it.
    pub fn disk_bytes(&self) -> u64 {
        let closed = self.shelf.closed().map(|(segment, _)| match &segment.source {
            Source::File { extent, .. } => extent.file_bytes(),
            Source::Heap { bytes, .. } => RECORDS_AT + bytes.len(),
        });
        let records = closed.sum::<usize>() + RECORDS_AT + self.shelf.tail.bytes.len();
        let index = self.map.entries().chain(self.held.entries());
        records as u64 + self.lease_bytes() + index.map(|entry| entry.bytes).sum::<u64>()
    }
}

/// A map as it is now; and the slots of files that it does not need any more.
fn index_to_write(map: &mut Map, which: Which) -> (Index, Vec<u16>) {
    while !map.settle(usize::MAX) {}
    let (empty, files): (Vec<_>, _) = map.entries().partition(|entry| entry.live == 0);
    let view = map.publish();
    let changed = view.root().0.is_in_memory() && view.count() != Count::default();
    let slot = changed.then(|| map.free_slot().expect("files are cleared before their end"));
    (Index { which, view, slot, files }, empty.iter().map(|entry| entry.slot).collect())
}

/// Chooses which sealed segments to rewrite: those less than half live, and neighbours that are
/// each less than half a segment, together. So space stays in proportion to what is live, and the
/// number of segments too, however much history there was. Bounded for each checkpoint.
fn choose_rewrites(shelf: &Shelf) -> Vec<Rewrite> {
    let small = |segment: &Segment, book: &Book| {
        segment.sealed() && book.live_bytes * 2 < shelf.segment_bytes()
    };
    let mut rewrites = Vec::new();
    let mut bytes = 0;
    let mut closed = shelf.closed().peekable();
    while let Some((segment, book)) = closed.next() {
        if !small(segment, book) {
            continue;
        }
        let mut live = book.live_bytes;
        let mut sources = vec![(segment, book)];
        while let Some((segment, book)) = closed.next_if(|(segment, book)| {
            small(segment, book) && live + book.live_bytes <= shelf.segment_bytes()
        }) {
            live += book.live_bytes;
            sources.push((segment, book));
        }
        let mostly_dead = book.live_bytes * 2 < segment.bytes();
        if sources.len() == 1 && !mostly_dead {
            continue;
        }
        bytes += live;
        if bytes > REWRITE_BYTES_MAX && !rewrites.is_empty() {
            break;
        }
        rewrites.push(Rewrite::of(&sources));
    }
    rewrites
}

impl Rewrite {
    pub(super) fn of(sources: &[(&Segment, &Book)]) -> Self {
        let identities = || sources.iter().map(|(segment, _)| segment.identity);
        let newest = identities().map(|identity| identity.generation).max();
        let first = sources[0].0.identity;
        let identity = Identity {
            id: first.id,
            generation: newest.expect("a rewrite has a source") + 1,
            first: first.first,
            next: sources[sources.len() - 1].0.identity.next,
        };
        let sources = sources.iter().map(|(segment, book)| ((*segment).clone(), (*book).clone()));
        Self { identity, sources: sources.collect() }
    }

    fn reads(&self, identity: &Identity) -> bool {
        self.sources.iter().any(|(segment, _)| segment.identity == *identity)
    }
}

impl Checkpoint {
    fn collect_segments(&mut self, shelf: &Shelf) {
        for (segment, book) in shelf.closed() {
            let identity = segment.identity;
            if self.rewrites.iter().any(|rewrite| rewrite.reads(&identity)) {
                continue;
            }
            if !book.marks().is_empty() {
                self.dead.insert((identity.id, identity.generation), book.marks().as_ref().clone());
            }
            let live = book.live();
            match &segment.source {
                Source::Heap { bytes, offsets } => self.fills.push(Fill {
                    identity,
                    live,
                    bytes: bytes.clone(),
                    offsets: offsets.clone(),
                    durable: book.durable,
                    seal: true,
                }),
                Source::File { extent, .. } => {
                    self.kept.push(Entry { identity, extent: *extent, live });
                }
            }
        }
    }

    fn collect_tail(&mut self, tail: &Tail) {
        let (durable, identity) = (tail.book.durable, tail.identity());
        if !tail.book.marks().is_empty() {
            self.dead
                .insert((identity.id, identity.generation), tail.book.marks().as_ref().clone());
        }
        if tail.bytes.len() > durable.unwrap_or(0) {
            self.fills.push(Fill {
                identity,
                bytes: tail.bytes.frozen(),
                offsets: tail.offsets.frozen(),
                durable,
                seal: false,
                live: tail.book.live(),
            });
        }
    }

    /// Files that this checkpoint makes.
    fn creates(&self) -> impl Iterator<Item = String> {
        let new = self.fills.iter().filter(|fill| fill.durable.is_none());
        let rewritten = self.rewrites.iter().map(|rewrite| rewrite.identity.file());
        let leases = matches!(self.leases, Leases::Changed(_)).then(|| lease::file(self.number));
        let new_index = self.index.iter().filter_map(|index| index.file(self.number));
        let lists = self.dead_file().into_iter().chain(leases).chain(new_index);
        new.map(|fill| fill.identity.file()).chain(rewritten).chain(lists)
    }

    /// The files of the index that its superblock will name.
    fn index_files(&self) -> impl Iterator<Item = String> {
        self.index.iter().flat_map(|index| {
            let kept = index.files.iter().map(|entry| index.which.name(entry.number));
            kept.chain(index.file(self.number))
        })
    }

    fn dead_file(&self) -> Option<String> {
        (!self.dead.is_empty()).then(|| dead::file(self.number))
    }

    /// Files that its superblock will name.
    fn names(&self) -> impl Iterator<Item = String> {
        let kept = self.kept.iter().map(|entry| entry.identity.file());
        let tail = self.tail.file();
        let filled = self.fills.iter().map(|fill| fill.identity.file());
        let rewritten = self.rewrites.iter().map(|rewrite| rewrite.identity.file());
        let leases = match &self.leases {
            Leases::Kept(file) => file.name(),
            Leases::Changed(_) => Some(lease::file(self.number)),
        };
        let lists = self.dead_file().into_iter().chain(leases).chain(self.index_files());
        kept.chain(filled).chain(rewritten).chain([tail]).chain(lists)
    }

    /// Does all the I/O of the checkpoint; when it is `Ok`, the log up to the applied index that
    /// was given may be trimmed.
    ///
    /// # Errors
    /// `StorageFull` when the disk is: nothing is lost, [`Tree::abandon_checkpoint`] and try again
    /// when there is room. After any other error nothing is known of the disk: the caller dies.
    pub async fn run<D: Disk>(self, disk: D) -> io::Result<CheckpointDone> {
        match self.write(&disk).await {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // Give back what was taken in vain; what cannot be removed now is removed later.
                for name in self.creates() {
                    disk.remove(&name).await.ok();
                }
                Err(error)
            }
            result => result,
        }
    }

    async fn write<D: Disk>(&self, disk: &D) -> io::Result<CheckpointDone> {
        let superblock = disk.open(root::FILE).await?;
        self.clear_torn_slot(&superblock).await?;
        let mut done = CheckpointDone {
            number: self.number,
            seq_next: self.seq_next,
            sealed: Vec::new(),
            rewritten: Vec::new(),
            tail: self.tail,
            dead_file: self.dead_file(),
            leases: LeaseFile::default(),
            index: [None, None],
        };
        for fill in &self.fills {
            if let Some(source) = fill.write(disk, self.facts.cluster).await? {
                done.sealed.push((fill.identity, source, fill.live));
            }
        }
        for rewrite in &self.rewrites {
            done.rewritten.push(rewrite.write(disk, self.facts.cluster).await?);
        }
        let dead_bytes = self.write_dead(disk).await?;
        done.leases = self.write_leases(disk).await?;
        for (index, written) in self.index.iter().zip(&mut done.index) {
            *written = index.write(disk, self.facts.cluster, self.number).await?;
        }
        if self.creates().next().is_some() {
            sync_dir_if_there(disk, segment::DIR).await?;
            if self.index.iter().any(|index| index.slot.is_some()) {
                disk.sync_dir(index::DIR).await?;
            }
            disk.sync_dir("").await?;
        }
        let root = self.root(&done, dead_bytes);
        write_root(&superblock, &root).await?;
        self.remove(disk).await?;
        Ok(done)
    }

    /// Empties the slot that the superblock will go to, if what is there is torn.
    async fn clear_torn_slot<F: File>(&self, superblock: &F) -> io::Result<()> {
        let slot_bytes = root::slot_bytes(self.segment_bytes);
        let slot = self.number % root::SLOTS;
        let Slot::Damaged(_) = read_slot(superblock, slot_bytes, slot).await? else {
            return Ok(());
        };
        write_at(superblock, &vec![0; slot_bytes], slot as usize * slot_bytes).await?;
        superblock.sync().await
    }

    fn root(&self, done: &CheckpointDone, dead_bytes: usize) -> Root {
        let entry = |identity: &Identity, source: &Source, live| match source {
            Source::File { extent, .. } => Entry { identity: *identity, extent: *extent, live },
            Source::Heap { .. } => unreachable!("a superblock names sealed segments"),
        };
        let mut sealed = self.kept.clone();
        sealed.extend(
            done.sealed.iter().map(|(identity, source, live)| entry(identity, source, *live)),
        );
        let rewritten = done.rewritten.iter();
        sealed.extend(
            rewritten
                .map(|(_, segment, book)| entry(&segment.identity, &segment.source, book.live())),
        );
        sealed.sort_by_key(|entry| entry.identity.first);
        Root {
            number: self.number,
            facts: self.facts.clone(),
            compacted: self.compacted,
            seq_next: self.seq_next,
            sibling_damage: None,
            segment_bytes: self.segment_bytes,
            sealed,
            tail: self.tail,
            dead_bytes,
            leases: done.leases,
            swept: self.swept,
            index: [0, 1].map(|at| self.index[at].root(done.index[at].as_ref())),
        }
    }

    /// Writes the table of leases, if it has changed, in pieces that hold nobody up.
    async fn write_leases<D: Disk>(&self, disk: &D) -> io::Result<LeaseFile> {
        let view = match &self.leases {
            Leases::Kept(file) => return Ok(*file),
            Leases::Changed(view) => view,
        };
        let file = create(disk, &lease::file(self.number)).await?;
        let mut pieces = lease::Pieces::new(self.facts.cluster, self.number, view);
        let mut at = 0;
        for piece in pieces.by_ref() {
            write_at(&file, &piece, at).await?;
            at += piece.len();
            yield_now().await;
        }
        file.sync().await?;
        Ok(pieces.taken())
    }

    /// Writes the list of dead records, if there are any, and says how long it is.
    async fn write_dead<D: Disk>(&self, disk: &D) -> io::Result<usize> {
        let Some(name) = self.dead_file() else { return Ok(0) };
        let bytes = dead::encode(self.facts.cluster, self.number, &self.dead);
        let file = create(disk, &name).await?;
        write_at(&file, &bytes, 0).await?;
        file.sync().await?;
        Ok(bytes.len())
    }

    async fn remove<D: Disk>(&self, disk: &D) -> io::Result<()> {
        let sources = self.rewrites.iter().flat_map(|rewrite| &rewrite.sources);
        let sources = sources.map(|(segment, _)| segment.identity.file());
        let names: Vec<_> = self.removes.iter().cloned().chain(sources).collect();
        for name in &names {
            remove_if_there(disk, name).await?;
        }
        for dir in [segment::DIR, index::DIR] {
            if names.iter().any(|name| name.starts_with(dir)) {
                sync_dir_if_there(disk, dir).await?;
            }
        }
        Ok(())
    }
}

impl Index {
    /// The file that this checkpoint makes.
    fn file(&self, number: u64) -> Option<String> {
        self.slot.map(|_| self.which.name(number))
    }

    /// Writes the pages that are in memory, if there are any.
    async fn write<D: Disk>(
        &self,
        disk: &D,
        cluster: ClusterId,
        number: u64,
    ) -> io::Result<Option<Written>> {
        let Some(slot) = self.slot else { return Ok(None) };
        index::write(disk, cluster, (self.which, number, slot), self.view.clone()).await.map(Some)
    }

    fn root(&self, written: Option<&Written>) -> IndexRoot {
        let mut files = self.files.clone();
        files.extend(written.map(|written| written.file.entry()));
        files.sort_unstable_by_key(|entry| entry.slot);
        let (root, _) = self.view.root();
        let kept = (!root.is_in_memory()).then_some(root);
        let root = written.map(|written| written.root).or(kept);
        IndexRoot { root, count: self.view.count(), files }
    }
}

/// A crash may have come between the removal and the superblock that would have remembered it.
pub(crate) async fn remove_if_there<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    match disk.remove(name).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A folder is made with its first file, for which the disk may have been too full until now.
async fn sync_dir_if_there<D: Disk>(disk: &D, dir: &str) -> io::Result<()> {
    match disk.sync_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A new file; one of that name is left from a checkpoint that never came to count.
pub(crate) async fn create<D: Disk>(disk: &D, name: &str) -> io::Result<D::File> {
    remove_if_there(disk, name).await?;
    disk.create(name, BLOCK_BYTES as u64).await
}

/// Writes `bytes` at `offset`, the last block filled up with zeros. Not synced.
pub(crate) async fn write_at<F: File>(file: &F, bytes: &[u8], offset: usize) -> io::Result<()> {
    let offsets = (offset..).step_by(CHECKPOINT_CHUNK_BYTES);
    for (chunk, offset) in bytes.chunks(CHECKPOINT_CHUNK_BYTES).zip(offsets) {
        let mut buf = AlignedBuf::zeroed(chunk.len());
        buf[..chunk.len()].copy_from_slice(chunk);
        file.write_at(buf, offset as u64).await?;
    }
    Ok(())
}

impl Fill {
    async fn write<D: Disk>(&self, disk: &D, cluster: ClusterId) -> io::Result<Option<Source>> {
        let name = self.identity.file();
        let file = if self.durable.is_some() {
            disk.open(&name).await?
        } else {
            let file = create(disk, &name).await?;
            write_at(&file, &segment::header(cluster, &self.identity), 0).await?;
            file
        };
        let from = self.durable.unwrap_or(0) / BLOCK_BYTES * BLOCK_BYTES;
        write_at(&file, &self.bytes[from..], RECORDS_AT + from).await?;
        if !self.seal {
            file.sync().await?;
            return Ok(None);
        }
        let run = Run::dense(self.identity.first, &self.bytes, &self.offsets);
        seal(&file, cluster, &self.identity, &run).await.map(Some)
    }
}

impl Rewrite {
    async fn write<D: Disk>(
        &self,
        disk: &D,
        cluster: ClusterId,
    ) -> io::Result<(Vec<Identity>, Segment, Book)> {
        let identity = self.identity;
        let file = create(disk, &identity.file()).await?;
        write_at(&file, &segment::header(cluster, &identity), 0).await?;
        let live = self.copy_to(&file).await?;
        let end = (RECORDS_AT + live.bytes).next_multiple_of(BLOCK_BYTES);
        let copied = file.map(end as u64, Load::Later).await?;
        let run = live.run(identity.first, &copied);
        let (map, extent) = close(&file, cluster, &identity, &run).await?;
        self.compare(&live.run(identity.first, &map)).await?;
        map.let_go();
        let source = Source::File { map, extent, unseen: None };
        let sources = self.sources.iter().map(|(segment, _)| segment.identity).collect();
        Ok((sources, Segment::new(identity, source), live.book))
    }

    /// The live records of the sources, in order.
    fn live(&self) -> impl Iterator<Item = (&Segment, usize)> {
        self.sources.iter().flat_map(|(segment, book)| {
            let live = (0..segment.records()).filter(|position| !book.dead(*position));
            live.map(move |position| (segment, position))
        })
    }

    /// Copies the live records to the file, a piece at a time, and makes them durable.
    async fn copy_to<F: File>(&self, file: &F) -> io::Result<Copied> {
        let (mut live, mut piece) = (Copied::default(), Vec::new());
        for (segment, position) in self.live() {
            segment.read_ahead(position);
            live.push(segment.run().at(position), &mut piece);
            if piece.len() >= CHECKPOINT_CHUNK_BYTES {
                let at = RECORDS_AT + live.bytes - piece.len();
                write_at(file, &piece[..CHECKPOINT_CHUNK_BYTES], at).await?;
                piece.drain(..CHECKPOINT_CHUNK_BYTES);
                yield_now().await;
            }
        }
        write_at(file, &piece, RECORDS_AT + live.bytes - piece.len()).await?;
        file.sync().await?;
        Ok(live)
    }

    /// Compares what was read back with the records that were copied, in pieces that hold nobody up.
    async fn compare(&self, run: &Run<'_>) -> io::Result<()> {
        let mut pause = 0;
        for (at, (segment, position)) in self.live().enumerate() {
            let (source, copy) = (segment.run(), run.offset(at));
            if source.at(position).bytes() != &run.bytes()[copy..copy + run.size(at)] {
                return Err(differs(&self.identity, RECORDS_AT + copy));
            }
            if copy >= pause {
                pause = copy + CHECKPOINT_CHUNK_BYTES;
                yield_now().await;
            }
        }
        Ok(())
    }
}

/// Records on their way to a rewritten segment.
#[derive(Default)]
struct Copied {
    /// Of all of them.
    bytes: usize,
    offsets: Vec<u32>,
    seqs: Vec<u8>,
    book: Book,
}

impl Copied {
    /// As they lie in their file.
    fn run<'a>(&'a self, first: Seq, file: &'a [u8]) -> Run<'a> {
        let records = &file[RECORDS_AT..RECORDS_AT + self.bytes];
        Run::sparse(first, records, &self.offsets, &self.seqs)
    }

    fn push(&mut self, record: Record<'_>, piece: &mut Vec<u8>) {
        let offset = u32::try_from(self.bytes).expect("a segment is below 4 GiB");
        self.offsets.push(offset);
        self.seqs.extend_from_slice(&record.seq().0.to_le_bytes());
        self.bytes += record.bytes().len();
        piece.extend_from_slice(record.bytes());
        self.book.add(record.bytes().len());
    }
}

/// Writes the end of a segment whose records are written, makes all of it durable, and reads it
/// back through a map.
pub(crate) async fn seal<F: File>(
    file: &F,
    cluster: ClusterId,
    identity: &Identity,
    run: &Run<'_>,
) -> io::Result<Source> {
    let (map, extent) = close(file, cluster, identity, run).await?;
    compare(&map[RECORDS_AT..], run.bytes(), identity, RECORDS_AT).await?;
    map.let_go();
    Ok(Source::File { map, extent, unseen: None })
}

/// As [`seal`], where somebody else looks at the records that are read back.
pub(crate) async fn close<F: File>(
    file: &F,
    cluster: ClusterId,
    identity: &Identity,
    run: &Run<'_>,
) -> io::Result<(Mapping, Extent)> {
    let sparse = identity.generation > 0;
    let extent = Extent { records: run.len(), bytes: run.bytes().len(), sparse };
    let ending = segment::ending(cluster, identity, run);
    write_at(file, &ending, extent.footer_at()).await?;
    file.sync().await?;
    let map = file.map(extent.file_bytes() as u64, Load::Now).await?;
    compare(&map[extent.footer_at()..], &ending, identity, extent.footer_at()).await?;
    Ok((map, extent))
}

/// Compares what was read back with what was written, in pieces that hold nobody up.
async fn compare(read: &[u8], wrote: &[u8], identity: &Identity, base: usize) -> io::Result<()> {
    let pieces = wrote.chunks(CHECKPOINT_CHUNK_BYTES).zip(read.chunks(CHECKPOINT_CHUNK_BYTES));
    for (at, (wrote, read)) in pieces.enumerate() {
        if wrote != &read[..wrote.len()] {
            return Err(differs(identity, base + at * CHECKPOINT_CHUNK_BYTES));
        }
        yield_now().await;
    }
    Ok(())
}

fn differs(identity: &Identity, offset: usize) -> io::Error {
    let file = identity.file();
    let what = format!("{file} reads back differently than written, near byte {offset}");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes a superblock into its slot and makes it durable.
async fn write_root<F: File>(file: &F, root: &Root) -> io::Result<()> {
    let bytes = root.encode();
    let slot_bytes = root::slot_bytes(root.segment_bytes);
    if bytes.len() > slot_bytes || root.sealed.len() > SEGMENTS_MAX {
        let segments = root.sealed.len();
        let what = format!(
            "the superblock is full: {} bytes of {slot_bytes}, {segments} segments of {SEGMENTS_MAX}",
            bytes.len()
        );
        return Err(io::Error::new(io::ErrorKind::StorageFull, what));
    }
    write_at(file, &bytes, root.offset() as usize).await?;
    file.sync().await
}

/// Makes the first superblock of a directory that has none, in both slots, and an empty tree. A
/// crash in between leaves a directory that [`super::open`] still takes for empty, or a whole one.
///
/// # Errors
/// What the disk says.
pub async fn format<D: Disk>(disk: &D, options: Options, facts: RootFacts) -> io::Result<Tree> {
    let bytes = root::SLOTS * root::slot_bytes(options.segment_bytes) as u64;
    let file = match disk.create(root::FILE, bytes).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(root::FILE).await?,
        result => result?,
    };
    let standing = Standing { revision: facts.revision, ..Standing::NEW };
    for number in 0..=standing.number {
        let root = Root {
            number,
            facts: facts.clone(),
            compacted: standing.compacted,
            seq_next: Seq(0),
            sibling_damage: None,
            segment_bytes: options.segment_bytes,
            sealed: Vec::new(),
            tail: TailEntry { id: 0, generation: 0, first: Seq(0), bytes: 0 },
            dead_bytes: 0,
            leases: LeaseFile::default(),
            swept: standing.swept,
            index: [IndexRoot::EMPTY; INDEXES.len()],
        };
        write_root(&file, &root).await?;
    }
    disk.sync_dir("").await?;
    let tail = Tail::new(0, Seq(0), options.segment_bytes);
    let shelf = Shelf::new(options.segment_bytes, Vec::new(), tail);
    Ok(Tree::from_parts(Maps::new(options), shelf, standing))
}
