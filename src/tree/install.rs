//! Taking in a snapshot: its parts become files of this directory, beside those of the tree that
//! lives there, and one superblock makes them the member's state.
//!
//! ```text
//!  manifest ─► Receiving::begin ── what is missing ──► asked for; the rest is here already
//!  pieces ──► receive … finish_part     each part a file of its own, durable and checked
//!             finish ─► Staged          the new tree, built from them; nothing counts yet
//!             install                   one superblock: from here on it counts
//! ```
//!
//! The live tree goes on meanwhile, checkpoints and all. Files that come with a snapshot have a
//! generation whose upper half is above all others in the directory, so names never meet. A segment
//! of the live tree with the same records is used as it is; if the live tree removes its file before
//! the snapshot is installed, the records are written once more, from the mapping.
//!
//! Until the superblock is written a crash leaves the old state, and files that the next start calls
//! garbage. A transfer that breaks off leaves its whole parts in a [`Stage`] for the next.

use super::{
    Options, Reader, Tree,
    checkpoint::{close, create, remove_if_there, seal, write_at},
    dead::{self, Dead},
    index::{INDEXES, IndexRoot},
    lease::{self, LeaseFile},
    manifest::{Kind, Manifest, Part},
    map::Map,
    record::Record,
    recover::{files, read_chunks, rebuild},
    root::{Root, RootFacts},
    segment::{self, DIR, Flaw, Identity, RECORDS_AT, RecordCheck, Run, Segment, Source},
    shelf::Tail,
    snapshot::crc_of,
};
use crate::{
    io::{BLOCK_BYTES, Disk, File, Load, Mapping},
    limits::{CHECKPOINT_CHUNK_BYTES, SWEEP_RECORDS_PER_TURN},
    types::{ClusterId, Index, MemberId, Revision, Stamp},
};
use futures_lite::future::yield_now;
use std::{collections::BTreeSet, fmt, io, mem, sync::Arc};

/// Snapshots are told apart by the upper half of a generation.
const SNAPSHOT_SHIFT: u32 = 32;

/// Why a snapshot cannot be taken in.
#[derive(Debug)]
pub enum InstallError {
    /// The disk said no. `StorageFull` is for now; after anything else nothing is known of the disk.
    Disk(io::Error),
    /// The manifest is not one that this member can use.
    Manifest(Flaw),
    /// A part is not what the manifest says.
    Part {
        /// Which.
        part: usize,
        /// The byte in it, and what was expected and found there.
        flaw: Flaw,
    },
    /// A part is missing.
    Missing {
        /// Which.
        part: usize,
    },
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "cannot write the snapshot: {error}"),
            Self::Manifest(flaw) => write!(f, "the snapshot's manifest: {flaw}"),
            Self::Part { part, flaw } => write!(f, "part {part} of the snapshot: {flaw}"),
            Self::Missing { part } => write!(f, "part {part} of the snapshot is missing"),
        }
    }
}

impl std::error::Error for InstallError {}

impl From<io::Error> for InstallError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// The segments that a tree has in files: what need not be sent to it. Belongs to any core.
#[derive(Clone)]
pub struct Sealed(Arc<Vec<Segment>>);

impl Sealed {
    pub(crate) fn of(table: &Arc<Vec<Segment>>) -> Self {
        Self(Arc::clone(table))
    }
}

impl Tree {
    /// The segments that are in files now.
    pub fn sealed(&self) -> Sealed {
        Sealed::of(self.shelf.table())
    }
}

/// Whole segments of snapshots that were not installed, in files, for the next attempt of this
/// process. A restart finds them to be garbage.
#[derive(Default)]
pub struct Stage {
    kept: Vec<(Part, Segment)>,
    /// Files that are of no use.
    scraps: Vec<String>,
}

impl Stage {
    /// Removes all its files.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn discard<D: Disk>(self, disk: &D) -> io::Result<()> {
        let kept = self.kept.iter().map(|(_, segment)| segment.identity.file());
        for name in kept.chain(self.scraps) {
            remove_if_there(disk, &name).await?;
        }
        Ok(())
    }
}

/// A snapshot on its way into a directory.
pub struct Receiving<D: Disk> {
    disk: D,
    options: Options,
    manifest: Manifest,
    /// Of all files that it makes.
    generation: u64,
    /// What there is of each part.
    have: Vec<Option<Have>>,
    incoming: Option<Incoming<D::File>>,
    scraps: Vec<String>,
}

/// A part that is here, durable and checked.
enum Have {
    /// As a file of the live tree.
    Own(Segment),
    Staged(Segment),
    Tail(Identity, Mapping, Ends),
    Dead(Dead),
    Leases(LeaseFile, Box<Map>),
}

/// When the first and the last of some records were written.
type Ends = (Stamp, Stamp);

/// A part that is coming in.
struct Incoming<F> {
    part: usize,
    /// None for one that is kept in memory.
    file: Option<F>,
    /// Bytes of the file that are written.
    written: usize,
    /// What comes behind them.
    pending: Vec<u8>,
    hasher: crc32fast::Hasher,
    received: u64,
}

impl<D: Disk> Receiving<D> {
    /// Begins to take in what `manifest` lists; one at a time for a directory. What `own`, the live tree's segments, or `stage` hold
    /// of it is not missing; whatever else is in `stage` is removed.
    ///
    /// # Errors
    /// What the disk says.
    ///
    /// # Panics
    /// If the manifest was read for segments of another size than those in `options`.
    pub async fn begin(
        disk: D,
        options: Options,
        own: &Sealed,
        stage: Stage,
        manifest: Manifest,
    ) -> io::Result<Self> {
        assert_eq!(manifest.segment_bytes, options.segment_bytes, "checked when it was read");
        let generation = generation_above(&disk.list(DIR).await?);
        let Stage { mut kept, scraps } = stage;
        let mut have = Vec::with_capacity(manifest.parts.len());
        for part in &manifest.parts {
            let staged = kept.iter().position(|(of, _)| of.same_records(part));
            have.push(match staged {
                Some(at) => Some(Have::Staged(kept.swap_remove(at).1)),
                None => find_own(own, part).await.map(Have::Own),
            });
        }
        Stage { kept, scraps }.discard(&disk).await?;
        let (incoming, scraps) = (None, Vec::new());
        Ok(Self { disk, options, manifest, generation, have, incoming, scraps })
    }

    /// The parts that are not here yet.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.have.len()).filter(|part| self.have[*part].is_none()).collect()
    }

    /// Takes the next bytes of a missing part, which begin at `offset` of it. One part comes after
    /// the other; each begins at 0. Holds no more of them than one write of a checkpoint.
    ///
    /// # Errors
    /// [`InstallError::Part`] for bytes that are not the next ones, and nothing has changed;
    /// [`InstallError::Disk`], and all that is left is [`Receiving::abandon`].
    pub async fn receive(
        &mut self,
        part: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), InstallError> {
        let flaw = |what, expected, found| {
            Err(InstallError::Part { part, flaw: Flaw { offset, what, expected, found } })
        };
        let Some(None) = self.have.get(part) else {
            return flaw("a part that is missing", self.have.len() as u64, part as u64);
        };
        let coming = self.incoming.as_ref().map(|incoming| (incoming.part, incoming.received));
        let received = match coming {
            Some((of, received)) if of == part => received,
            Some((of, _)) => return flaw("the end of the part before", of as u64, part as u64),
            None => 0,
        };
        if offset != received {
            return flaw("the bytes behind those that came", received, offset);
        }
        let (end, whole) = (offset + bytes.len() as u64, self.manifest.parts[part].bytes);
        if end > whole {
            return flaw("no more bytes than the manifest says", whole, end);
        }
        if coming.is_none() {
            let begun = self.begin_part(part).await?;
            self.incoming = Some(begun);
        }
        let incoming = self.incoming.as_mut().expect("it was just begun");
        Ok(incoming.take(bytes).await?)
    }

    async fn begin_part(&mut self, at: usize) -> io::Result<Incoming<D::File>> {
        let part = self.manifest.parts[at];
        let cluster = self.manifest.facts.cluster;
        let (name, pending) = match part.kind {
            Kind::Segment | Kind::Tail => {
                let identity = self.identity(&part);
                (Some(identity.file()), segment::header(cluster, &identity))
            }
            Kind::Dead => (None, Vec::new()),
            Kind::Leases => {
                let head = lease::head(cluster, self.generation, part.records as u64);
                (Some(lease::file(self.generation)), head)
            }
        };
        let file = match name {
            None => None,
            Some(name) => {
                self.scraps.push(name.clone());
                Some(create(&self.disk, &name).await?)
            }
        };
        let hasher = crc32fast::Hasher::new();
        Ok(Incoming { part: at, file, written: 0, pending, hasher, received: 0 })
    }

    /// What a segment of the snapshot is called here.
    fn identity(&self, part: &Part) -> Identity {
        Identity { generation: self.generation, ..part.identity }
    }

    /// Checks a part whose bytes have all come, and makes it durable. One that fails the check is
    /// missing as before.
    ///
    /// # Errors
    /// [`InstallError::Part`] for one that is not as the manifest says; [`InstallError::Disk`].
    pub async fn finish_part(&mut self, part: usize) -> Result<(), InstallError> {
        let Some(mut incoming) = self.incoming.take_if(|incoming| incoming.part == part) else {
            return Err(InstallError::Missing { part });
        };
        let listed = self.manifest.parts[part];
        let flaw = |offset, what, expected, found| InstallError::Part {
            part,
            flaw: Flaw { offset, what, expected, found },
        };
        let (received, found) = (incoming.received, incoming.hasher.clone().finalize());
        if received != listed.bytes {
            return Err(flaw(received, "all bytes of the part", listed.bytes, received));
        }
        if found != listed.crc {
            return Err(flaw(0, "the part's checksum", listed.crc.into(), found.into()));
        }
        let hasher = mem::take(&mut incoming.hasher);
        let of_part = |flaw| InstallError::Part { part, flaw };
        let have = match listed.kind {
            Kind::Segment | Kind::Tail => {
                let file = incoming.end().await?;
                self.finish_records(&listed, &file).await?.map_err(of_part)?
            }
            Kind::Dead => self.read_dead(&incoming.pending).map(Have::Dead).map_err(of_part)?,
            Kind::Leases => {
                let file = incoming.end().await?;
                self.read_leases(&listed, &file, &hasher).await?.map_err(of_part)?
            }
        };
        if let Some(name) = have.file() {
            self.scraps.retain(|scrap| *scrap != name);
        }
        self.have[part] = Some(have);
        Ok(())
    }

    /// Records that are in their file, durable: reads them back and, where the segment is closed,
    /// writes its end.
    async fn finish_records(&self, part: &Part, file: &D::File) -> io::Result<Result<Have, Flaw>> {
        let (identity, len) = (self.identity(part), part.bytes as usize);
        let map =
            file.map((RECORDS_AT + len.next_multiple_of(BLOCK_BYTES)) as u64, Load::Now).await?;
        let records = &map[RECORDS_AT..RECORDS_AT + len];
        let numbered = match number_records(records, part, &identity).await {
            Ok(numbered) => numbered,
            Err(flaw) => return Ok(Err(flaw)),
        };
        let (offsets, seqs) = numbered;
        if part.kind == Kind::Tail {
            let stamp = |at: u32| Record::at_front(&records[at as usize..]).stamp();
            let ends = (stamp(offsets[0]), stamp(offsets[offsets.len() - 1]));
            return Ok(Ok(Have::Tail(identity, map, ends)));
        }
        let run = Run::sparse(identity.first, records, &offsets, &seqs);
        let (map, extent) = close(file, self.manifest.facts.cluster, &identity, &run).await?;
        let segment = Segment::new(identity, Source::File { map, extent, unseen: None });
        segment.crc.get_or_init(|| part.crc);
        Ok(Ok(Have::Staged(segment)))
    }

    fn read_dead(&self, bytes: &[u8]) -> Result<Dead, Flaw> {
        let mut dead = dead::decode(bytes, self.manifest.facts.cluster, 0)?;
        let (mut here, listed) = (Dead::new(), dead.len() as u64);
        let segments = self.manifest.parts.iter().filter(|part| part.kind == Kind::Segment);
        for part in segments {
            let Identity { id, generation, .. } = part.identity;
            let Some(marks) = dead.remove(&(id, generation)) else { continue };
            if marks.len() > part.records.div_ceil(64) {
                let what = "a bit for each record of a segment";
                return Err(Flaw::new(0, what, part.records as u64, marks.len() as u64 * 64));
            }
            here.insert((id, generation), marks);
        }
        match dead.len() as u64 {
            0 => Ok(here),
            others => Err(Flaw::new(0, "the dead of segments that there are", listed, others)),
        }
    }

    async fn read_leases(
        &self,
        part: &Part,
        file: &D::File,
        list: &crc32fast::Hasher,
    ) -> io::Result<Result<Have, Flaw>> {
        let cluster = self.manifest.facts.cluster;
        let head = lease::head(cluster, self.generation, part.records as u64);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&head);
        hasher.combine(list);
        let bytes = head.len() as u64 + part.bytes;
        let named = LeaseFile { number: self.generation, bytes, crc: hasher.finalize() };
        let read = read_chunks(file, 0, bytes as usize).await?;
        let map = lease::decode(&read, cluster, &named, self.options.page_bytes).await;
        Ok(map.map(|map| Have::Leases(named, Box::new(map))))
    }

    /// Gives the transfer up. Whole segments are left for the next.
    pub fn abandon(self) -> Stage {
        let mut stage = Stage { kept: Vec::new(), scraps: self.scraps };
        for (have, part) in self.have.into_iter().zip(self.manifest.parts) {
            match have {
                Some(Have::Staged(segment)) => stage.kept.push((part, segment)),
                Some(have) => stage.scraps.extend(have.file()),
                None => {}
            }
        }
        stage
    }

    /// Builds the tree from the parts, all of which are here. Takes seconds for a large store, in
    /// pieces that hold nobody up; a thread of its own is a good place for it.
    ///
    /// # Errors
    /// [`InstallError::Missing`], [`InstallError::Part`], [`InstallError::Disk`]; and what is whole.
    pub async fn finish(mut self) -> Result<Staged, (InstallError, Stage)> {
        match self.build().await {
            Ok((tree, facts)) => {
                Ok(Staged { tree, facts, generation: self.generation, stage: self.abandon() })
            }
            Err(error) => Err((error, self.abandon())),
        }
    }

    async fn build(&mut self) -> Result<(Tree, RootFacts), InstallError> {
        if let Some(part) = self.missing().first() {
            return Err(InstallError::Missing { part: *part });
        }
        self.keep_own().await?;
        if self.have.iter().flatten().any(|have| have.file().is_some()) {
            self.disk.sync_dir(DIR).await?;
            self.disk.sync_dir("").await?;
        }
        self.check_order()?;
        let manifest = &self.manifest;
        let mut tail = Tail::new(manifest.tail_id, manifest.seq_next, self.options.segment_bytes);
        let (mut segments, mut marks) = (Vec::new(), Dead::new());
        let (mut dead, mut leases) = (Dead::new(), None);
        for (have, part) in self.have.iter_mut().zip(&manifest.parts) {
            match have.take().expect("none is missing") {
                Have::Own(segment) => {
                    segments.push(segment.clone());
                    *have = Some(Have::Own(segment));
                }
                Have::Staged(segment) => {
                    segments.push(segment.clone());
                    *have = Some(Have::Staged(segment));
                }
                Have::Tail(identity, map, ends) => {
                    tail = fill_tail(identity, &map, part, self.options).await;
                    *have = Some(Have::Tail(identity, map, ends));
                }
                Have::Dead(list) => dead = list,
                Have::Leases(file, map) => {
                    self.scraps.extend(file.name());
                    leases = Some((file, map));
                }
            }
        }
        for (segment, part) in segments.iter().zip(&manifest.parts) {
            let theirs = (part.identity.id, part.identity.generation);
            if let Some(list) = dead.remove(&theirs) {
                marks.insert((segment.identity.id, segment.identity.generation), list);
            }
        }
        let (file, map) = leases
            .unwrap_or_else(|| (LeaseFile::default(), Map::new(self.options.page_bytes).into()));
        let facts = RootFacts { installed: manifest.facts.applied, ..manifest.facts.clone() };
        let root = Root {
            number: 0,
            facts: facts.clone(),
            compacted: manifest.compacted,
            seq_next: manifest.seq_next,
            sibling_damage: None,
            segment_bytes: manifest.segment_bytes,
            sealed: Vec::new(),
            tail: tail.entry(),
            dead_bytes: 0,
            leases: file,
            swept: manifest.compacted,
            index: [IndexRoot::EMPTY; INDEXES.len()],
        };
        Ok((rebuild(self.options, &root, segments, &marks, tail, *map).await, facts))
    }

    /// Writes those segments of the live tree once more whose files it has removed meanwhile.
    async fn keep_own(&mut self) -> io::Result<()> {
        let names = files(&self.disk).await?;
        let cluster = self.manifest.facts.cluster;
        for have in self.have.iter_mut().flatten() {
            if let Have::Own(segment) = have
                && !names.contains(&segment.identity.file())
            {
                let again = write_again(&self.disk, cluster, segment, self.generation).await?;
                *have = Have::Staged(again);
            }
        }
        Ok(())
    }

    /// Revisions ascend from part to part, up to the newest.
    fn check_order(&self) -> Result<(), InstallError> {
        let mut last = Stamp::default();
        for (part, have) in self.have.iter().enumerate() {
            let (first, end) = match have {
                Some(Have::Own(segment) | Have::Staged(segment)) => {
                    let run = segment.run();
                    (run.at(0).stamp(), run.at(run.len() - 1).stamp())
                }
                Some(Have::Tail(.., ends)) => *ends,
                _ => continue,
            };
            let flaw = |what, expected: Revision, found: Revision| {
                let flaw = Flaw::new(0, what, expected.0 as u64, found.0 as u64);
                Err(InstallError::Part { part, flaw })
            };
            let newest = self.manifest.facts.revision;
            if first <= last {
                return flaw("a revision above those of the part before", last.main, first.main);
            }
            if end.main > newest {
                return flaw("revisions up to the newest", newest, end.main);
            }
            last = end;
        }
        Ok(())
    }
}

impl Have {
    /// The file that it is in, unless that is the live tree's.
    fn file(&self) -> Option<String> {
        match self {
            Self::Own(_) | Self::Dead(_) => None,
            Self::Staged(segment) => Some(segment.identity.file()),
            Self::Tail(identity, ..) => Some(identity.file()),
            Self::Leases(file, _) => file.name(),
        }
    }
}

impl<F: File> Incoming<F> {
    async fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.received += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        let Some(file) = &self.file else { return Ok(()) };
        let whole = self.pending.len() / CHECKPOINT_CHUNK_BYTES * CHECKPOINT_CHUNK_BYTES;
        if whole > 0 {
            write_at(file, &self.pending[..whole], self.written).await?;
            self.pending.drain(..whole);
            self.written += whole;
        }
        Ok(())
    }

    /// Writes what is left and makes all of it durable.
    async fn end(self) -> io::Result<F> {
        let file = self.file.expect("only the dead are kept in memory");
        write_at(&file, &self.pending, self.written).await?;
        file.sync().await?;
        Ok(file)
    }
}

/// The live tree's segment with the records of this part, if it has one.
async fn find_own(own: &Sealed, part: &Part) -> Option<Segment> {
    let listed = own.0.iter().find(|segment| segment.identity.id == part.identity.id)?;
    let identity = listed.identity;
    let (records, bytes) = (listed.records(), listed.bytes() as u64);
    let found = Part { kind: Kind::Segment, identity, records, bytes, crc: part.crc };
    let same = listed.sealed() && found.same_records(part) && crc_of(listed).await == part.crc;
    same.then(|| listed.clone())
}

/// The first generation of the snapshot that comes next to a directory with these files.
fn generation_above(names: &[String]) -> u64 {
    // The last number of `0000000042.g7`, `leases.0000000005` and `dead.0000000005`.
    let numbers = names.iter().filter_map(|name| {
        let last = name.rsplit('.').next().unwrap_or(name);
        last.trim_start_matches('g').parse::<u64>().ok()
    });
    let snapshots = numbers.map(|number| number >> SNAPSHOT_SHIFT).max();
    (snapshots.unwrap_or(0) + 1) << SNAPSHOT_SHIFT
}

/// Checks a part's records, and says where each begins and which number it has.
async fn number_records(
    records: &[u8],
    part: &Part,
    identity: &Identity,
) -> Result<(Vec<u32>, Vec<u8>), Flaw> {
    let dense = part.records as u64 == identity.next.0 - identity.first.0;
    let mut check = RecordCheck::new(records, identity, !dense);
    while !check.step(CHECKPOINT_CHUNK_BYTES)? {
        yield_now().await;
    }
    let offsets = check.offsets;
    if offsets.len() != part.records {
        let what = "as many records as the manifest says";
        return Err(Flaw::new(0, what, part.records as u64, offsets.len() as u64));
    }
    let mut seqs = Vec::with_capacity(offsets.len() * 8);
    for piece in offsets.chunks(SWEEP_RECORDS_PER_TURN) {
        let numbers = piece.iter().map(|at| Record::at_front(&records[*at as usize..]).seq().0);
        seqs.extend(numbers.flat_map(u64::to_le_bytes));
        yield_now().await;
    }
    Ok((offsets, seqs))
}

/// A tail that goes on in the file that came.
async fn fill_tail(identity: Identity, map: &Mapping, part: &Part, options: Options) -> Tail {
    let Identity { id, generation, first, .. } = identity;
    let bytes = part.bytes as usize;
    let mut tail = Tail::new(id, first, options.segment_bytes.max(bytes));
    tail.generation = generation;
    let mut at = RECORDS_AT;
    while at < RECORDS_AT + bytes {
        let record = Record::at_front(&map[at..]);
        tail.push(record.bytes());
        at += record.bytes().len();
        if tail.offsets.len().is_multiple_of(SWEEP_RECORDS_PER_TURN) {
            yield_now().await;
        }
    }
    tail.book.durable = Some(bytes);
    tail
}

/// Writes a sealed segment's records to a file of another generation.
async fn write_again<D: Disk>(
    disk: &D,
    cluster: ClusterId,
    segment: &Segment,
    generation: u64,
) -> io::Result<Segment> {
    let identity = Identity { generation, ..segment.identity };
    let run = segment.run();
    let file = create(disk, &identity.file()).await?;
    write_at(&file, &segment::header(cluster, &identity), 0).await?;
    write_at(&file, run.bytes(), RECORDS_AT).await?;
    let source = seal(&file, cluster, &identity, &run).await?;
    Ok(Segment { identity, source, crc: Arc::clone(&segment.crc) })
}

/// A snapshot that is whole and durable and does not count yet. It may move to another core.
pub struct Staged {
    tree: Tree,
    facts: RootFacts,
    generation: u64,
    /// Its files, should it not be installed.
    stage: Stage,
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Staged({:?})", self.facts)
    }
}

impl Staged {
    /// Everything up to this entry is in it.
    pub fn applied(&self) -> Index {
        self.facts.applied
    }

    /// Looks at it.
    pub fn reader(&self) -> Reader<'_> {
        self.tree.reader()
    }

    /// Gives it up. Whole segments are left for the next attempt.
    pub fn abandon(self) -> Stage {
        self.stage
    }

    /// Makes it the state of the directory, with one superblock: the next after `number`, the live
    /// tree's newest ([`Tree::superblock`]). No checkpoint of the live tree may be running, and it
    /// begins none any more. Its files become garbage of the new tree.
    ///
    /// # Errors
    /// `StorageFull` when the disk is: the live tree is as it was. After any other error nothing is
    /// known of the disk: the caller dies.
    pub async fn install<D: Disk>(
        mut self,
        disk: &D,
        number: u64,
        member: MemberId,
    ) -> Result<(Tree, RootFacts), (Box<Self>, io::Error)> {
        self.facts.member = member;
        match self.write(disk, number).await {
            Ok(()) => Ok((self.tree, self.facts)),
            Err(error) => Err((Box::new(self), error)),
        }
    }

    async fn write<D: Disk>(&mut self, disk: &D, number: u64) -> io::Result<()> {
        let there = files(disk).await?;
        self.keep_own(disk, &there).await?;
        self.tree.shelf.garbage.clear();
        let checkpoint = self.tree.begin_install(number, self.facts.clone());
        match checkpoint.run(disk.clone()).await {
            Ok(done) => self.tree.finish_checkpoint(done),
            Err(error) => {
                self.tree.abandon_checkpoint();
                return Err(error);
            }
        }
        let named: BTreeSet<_> = self.tree.files().collect();
        self.tree.shelf.garbage = there.difference(&named).cloned().collect();
        Ok(())
    }

    /// As [`Receiving::keep_own`], for what the live tree removed since then.
    async fn keep_own<D: Disk>(&mut self, disk: &D, there: &BTreeSet<String>) -> io::Result<()> {
        let mut again = Vec::new();
        for (at, (segment, _)) in self.tree.shelf.closed().enumerate() {
            let name = segment.identity.file();
            if !there.contains(&name) {
                let cluster = self.facts.cluster;
                again.push((at, write_again(disk, cluster, segment, self.generation).await?));
            }
        }
        if again.is_empty() {
            return Ok(());
        }
        for (at, segment) in again {
            self.stage.scraps.push(segment.identity.file());
            self.tree.shelf.replace(at, segment);
        }
        disk.sync_dir(DIR).await
    }
}

/// A snapshot is built on whatever thread, and goes from there to the node's.
const _: () = {
    const fn moves<T: Send>() {}
    const fn shared<T: Send + Sync>() {}
    moves::<Staged>();
    moves::<Receiving<crate::io::thread::LaneDisk>>();
    moves::<Stage>();
    shared::<Sealed>();
    shared::<super::Snapshot>();
};
