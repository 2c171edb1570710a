//! A directory of the engine, looked at: every file that its superblock names is checked as opening it
//! checks them, but each for itself, so that all damage is told at once, and nothing is built from
//! them, so that a directory of any size fits.
//!
//! A kind of file has one place here: [`Looking::all`] names it in the order in which a running member
//! removes them soonest, and a function beside the others reads it.

use super::{
    Options,
    dead::Dead,
    index::INDEXES,
    recover::{self, OpenError},
    root::{Live, Root, RootFacts, SLOTS, Slot},
    segment::{Flaw, Identity, RECORDS_AT, Run},
    shelf::Book,
};
use crate::{
    io::{BLOCK_BYTES, Disk},
    types::{LeaseId, Revision, Seq, Stamp},
};

/// What a directory of the engine holds.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What each slot of the superblock turned out to be.
    pub slots: [SlotState; SLOTS as usize],
    /// What the superblock that counts says, if there is one.
    pub root: Option<RootSummary>,
    /// Everything that does not verify.
    pub damage: Vec<Damage>,
    /// The files that the superblock names and that are whole.
    pub files: Vec<FileSummary>,
    /// Leases in the table.
    pub leases: u64,
    /// Files below the directory of records that the superblock does not name: of a checkpoint or a
    /// snapshot that is under way, or was.
    pub leftovers: Vec<String>,
}

/// A slot of the superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Never written.
    Blank,
    /// Whole.
    Whole(Box<RootSummary>),
    /// Torn by a crash or damaged: that cannot be told.
    Damaged(Flaw),
}

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSummary {
    /// Superblocks are numbered upwards.
    pub number: u64,
    /// What the member knew.
    pub facts: RootFacts,
    /// The compacted revision, -1 for never.
    pub compacted: Revision,
    /// Number of the next record.
    pub seq_next: Seq,
    /// Bytes of records in a full segment.
    pub segment_bytes: usize,
    /// The files that it names.
    pub files: Vec<String>,
}

/// Something that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, below the directory.
    pub file: String,
    /// Where, and what was expected and found.
    pub flaw: Flaw,
}

/// A whole file that the superblock names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSummary {
    /// The file, below the directory.
    pub file: String,
    /// Numbers of the records that belong here: the first, and one past the last.
    pub reach: (Seq, Seq),
    /// Records in it; 0 for lists.
    pub records: u64,
    /// Their bytes; of a list, all of it.
    pub bytes: u64,
    /// Records that compaction has not taken, and their bytes.
    pub live: (u64, u64),
}

/// A record, where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSummary {
    /// Its first byte in the file.
    pub offset: u64,
    /// Number of the record since genesis.
    pub seq: Seq,
    /// When it was written.
    pub stamp: Stamp,
    /// Its key was deleted.
    pub tombstone: bool,
    /// Before it the key did not exist.
    pub create: bool,
    /// Place in the chain of versions.
    pub rank: u8,
    /// The previous version of the key.
    pub prev: Option<(Seq, Revision)>,
    /// The version that the chain skips to.
    pub jump: Option<(Seq, Revision)>,
    /// Bytes of the record, padding included.
    pub bytes: usize,
    /// The key.
    pub key: Vec<u8>,
    /// The value; empty in a tombstone, as all that follows.
    pub value: Vec<u8>,
    /// Revision in which the key came to be.
    pub created: Revision,
    /// Revision of this version.
    pub modified: Revision,
    /// Puts since the key came to be.
    pub version: i64,
    /// The lease attached to the key, or 0.
    pub lease: LeaseId,
}

/// Looks at what is below `disk`. None for a directory that was never formatted.
///
/// # Errors
/// [`OpenError::Disk`] where the machine does not let it be read; [`OpenError::Foreign`] and
/// [`OpenError::SegmentBytes`] for a directory of another kind.
pub async fn inspect<D: Disk>(disk: &D, options: Options) -> Result<Option<Inspection>, OpenError> {
    let files = recover::files(disk).await?;
    let fresh = files.is_empty();
    let Some(slots) = recover::read_slots(disk, options, fresh).await? else { return Ok(None) };
    let states = SlotState::of(&slots);
    let root = match recover::choose(slots, fresh) {
        Ok(None) => return Ok(None),
        Ok(Some(root)) => Some(recover::check_segment_bytes(root, options)?),
        Err(OpenError::NoRoot { .. }) => None,
        Err(other) => return Err(other),
    };
    let mut found = Inspection {
        slots: states,
        root: root.as_ref().map(RootSummary::of),
        damage: Vec::new(),
        files: Vec::new(),
        leases: 0,
        leftovers: Vec::new(),
    };
    if let Some(root) = &root {
        let named: Vec<_> = root.files().collect();
        found.leftovers = files.into_iter().filter(|name| !named.contains(name)).collect();
        Looking { disk, root, found: &mut found, last: Stamp::default() }.all(options).await?;
    }
    Ok(Some(found))
}

/// Looks at the superblock alone: its slots, and what the one that counts says.
///
/// # Errors
/// As [`inspect`].
pub async fn inspect_superblock<D: Disk>(
    disk: &D,
    options: Options,
) -> Result<([SlotState; SLOTS as usize], Option<RootSummary>), OpenError> {
    let slots = recover::read_slots(disk, options, false).await?;
    let slots = slots.expect("without its file a directory that is not fresh is an error");
    let states = SlotState::of(&slots);
    match recover::choose(slots, false) {
        Ok(root) => Ok((states, root.as_ref().map(RootSummary::of))),
        Err(OpenError::NoRoot { .. }) => Ok((states, None)),
        Err(other) => Err(other),
    }
}

/// The records of one of the files that the superblock names, and where they stop being whole.
///
/// # Errors
/// As [`inspect`].
pub async fn list_records<D: Disk>(
    disk: &D,
    options: Options,
    file: &str,
) -> Result<Option<(Vec<RecordSummary>, Option<Flaw>)>, OpenError> {
    let Some(root) = read_root(disk, options).await? else { return Ok(None) };
    let Some((_, bytes)) = record_files(&root).find(|(name, _)| name == file) else {
        return Ok(None);
    };
    let end = RECORDS_AT + bytes.next_multiple_of(BLOCK_BYTES);
    let handle = recover::open_needed(disk, file, end).await?;
    let bytes = recover::read_chunks(&handle, RECORDS_AT, bytes).await?;
    let (mut records, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match RecordSummary::at(&bytes, at) {
            Ok(record) => {
                at += record.bytes;
                records.push(record);
            }
            Err(flaw) => return Ok(Some((records, Some(flaw.behind(RECORDS_AT))))),
        }
    }
    Ok(Some((records, None)))
}

/// The file that holds the record of this number, if it is there at all.
///
/// # Errors
/// As [`inspect`].
pub async fn file_of_record<D: Disk>(
    disk: &D,
    options: Options,
    seq: Seq,
) -> Result<Option<String>, OpenError> {
    let Some(root) = read_root(disk, options).await? else { return Ok(None) };
    let within = |first: Seq, next: Seq| (first..next).contains(&seq);
    let sealed = root.sealed.iter().find(|entry| within(entry.identity.first, entry.identity.next));
    let tail = within(root.tail.first, root.seq_next).then(|| root.tail.file());
    Ok(sealed.map(|entry| entry.identity.file()).or(tail))
}

async fn read_root<D: Disk>(disk: &D, options: Options) -> Result<Option<Root>, OpenError> {
    let Some(slots) = recover::read_slots(disk, options, false).await? else { return Ok(None) };
    let root = recover::choose(slots, false)?;
    root.map(|root| recover::check_segment_bytes(root, options)).transpose()
}

/// Files of records, and bytes of records in each.
fn record_files(root: &Root) -> impl Iterator<Item = (String, usize)> {
    let sealed = root.sealed.iter().map(|entry| (entry.identity.file(), entry.extent.bytes));
    sealed.chain((root.tail.bytes > 0).then(|| (root.tail.file(), root.tail.bytes)))
}

struct Looking<'a, D> {
    disk: &'a D,
    root: &'a Root,
    found: &'a mut Inspection,
    /// When the last record so far was written.
    last: Stamp,
}

impl<D: Disk> Looking<'_, D> {
    /// The lists first: the next checkpoint of a running member removes them.
    async fn all(mut self, options: Options) -> Result<(), OpenError> {
        let dead = recover::read_dead(self.disk, self.root).await;
        let dead = self.whole(dead)?.unwrap_or_default();
        self.list(self.root.dead_file(), self.root.dead_bytes as u64);
        let leases = recover::read_leases(self.disk, self.root, options).await;
        self.found.leases = self.whole(leases)?.map_or(0, |leases| leases.reader().live());
        self.list(self.root.leases.name(), self.root.leases.bytes);
        self.index(options).await?;
        self.sealed(&dead).await?;
        self.tail().await
    }

    async fn index(&mut self, options: Options) -> Result<(), OpenError> {
        for (which, index) in INDEXES.into_iter().zip(&self.root.index) {
            let opened = recover::open_index(self.disk, options, self.root, which).await;
            if let Some(map) = self.whole(opened)? {
                self.whole(map.check().map_err(|(file, flaw)| OpenError::Damaged { file, flaw }))?;
            }
            for entry in &index.files {
                self.list(Some(which.name(entry.number)), entry.bytes);
            }
        }
        Ok(())
    }

    async fn sealed(&mut self, dead: &Dead) -> Result<(), OpenError> {
        for entry in &self.root.sealed {
            let read = recover::read_sealed(self.disk, self.root, entry).await;
            let Some(segment) = self.whole(read)? else { continue };
            let identity = segment.identity;
            let book = Book::of(&segment.run(), recover::marks_of(dead, &identity));
            self.live(&identity, book.live(), entry.live);
            self.records(identity.file(), (identity.first, identity.next), &segment.run(), &book);
        }
        Ok(())
    }

    async fn tail(&mut self) -> Result<(), OpenError> {
        let read = recover::read_tail(self.disk, self.root).await;
        let Some(tail) = self.whole(read)?.filter(|tail| !tail.bytes.is_empty()) else {
            return Ok(());
        };
        let reach = (tail.first, self.root.seq_next);
        self.records(self.root.tail.file(), reach, &tail.run(), &tail.book);
        Ok(())
    }

    /// The superblock counts what the list of the dead leaves.
    fn live(&mut self, identity: &Identity, found: Live, named: Live) {
        let what = "live records of a segment, as the superblock counts them";
        let flaw = Flaw::new(0, what, named.records as u64, found.records as u64);
        if found != named {
            self.found.damage.push(Damage { file: identity.file(), flaw });
        }
    }

    /// What was read; None where it is damaged, which is noted.
    fn whole<T>(&mut self, read: Result<T, OpenError>) -> Result<Option<T>, OpenError> {
        match read {
            Ok(whole) => Ok(Some(whole)),
            Err(OpenError::Damaged { file, flaw }) => {
                self.found.damage.push(Damage { file, flaw });
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    fn list(&mut self, file: Option<String>, bytes: u64) {
        let whole = |file: &String| !self.found.damage.iter().any(|damage| damage.file == *file);
        if let Some(file) = file.filter(whole) {
            let reach = (Seq(0), Seq(0));
            self.found.files.push(FileSummary { file, reach, records: 0, bytes, live: (0, 0) });
        }
    }

    /// Notes a file of records that is whole in itself, and sees that it goes on from the one before.
    fn records(&mut self, file: String, reach: (Seq, Seq), run: &Run<'_>, book: &Book) {
        if run.len() > 0 {
            let (first, last) = (run.at(0).stamp(), run.at(run.len() - 1).stamp());
            if first <= self.last {
                let (expected, found) = (self.last.main.0 as u64, first.main.0 as u64);
                let what = "a revision above those of the segment before";
                let flaw = Flaw::new(RECORDS_AT, what, expected, found);
                self.found.damage.push(Damage { file: file.clone(), flaw });
            }
            self.last = last;
        }
        self.found.files.push(FileSummary {
            file,
            reach,
            records: run.len() as u64,
            bytes: run.bytes().len() as u64,
            live: (book.live_records as u64, book.live_bytes as u64),
        });
    }
}

impl SlotState {
    fn of(slots: &[Slot; SLOTS as usize]) -> [Self; SLOTS as usize] {
        slots.each_ref().map(|slot| match slot {
            Slot::Whole(root) => Self::Whole(Box::new(RootSummary::of(root))),
            Slot::Damaged(flaw) => Self::Damaged(flaw.clone()),
            Slot::Blank | Slot::Foreign(_) => Self::Blank,
        })
    }
}

impl RootSummary {
    fn of(root: &Root) -> Self {
        Self {
            number: root.number,
            facts: root.facts.clone(),
            compacted: root.compacted,
            seq_next: root.seq_next,
            segment_bytes: root.segment_bytes,
            files: root.files().collect(),
        }
    }
}

impl RecordSummary {
    fn at(bytes: &[u8], at: usize) -> Result<Self, Flaw> {
        let record = super::record::Record::check(bytes, at)?;
        let kv = record.fields();
        let link = |link: Option<super::Link>| link.map(|link| (link.seq, link.main));
        Ok(Self {
            offset: (RECORDS_AT + at) as u64,
            seq: record.seq(),
            stamp: record.stamp(),
            tombstone: record.tombstone(),
            create: record.create(),
            rank: record.rank(),
            prev: link(record.prev()),
            jump: link(record.jump()),
            bytes: record.bytes().len(),
            key: kv.key.to_vec(),
            value: kv.value.to_vec(),
            created: Revision(kv.create),
            modified: Revision(kv.modified),
            version: kv.version,
            lease: LeaseId(kv.lease),
        })
    }
}
