//! A durable sequence of byte strings: the log that everything else is rebuilt from.
//!
//! ```text
//!  wal/00000000.seg          wal/00000001.seg             wal/00000002.seg
//!  ┌────────┬─────┬─────┬──┐ ┌────────┬───────────┬─────┐ ┌────────┬ ─ ─ ─ ─ ─ ─ ─ ┐
//!  │ header │ f 1 │ f 2 │  │ │ header │    f 3    │ f 4 │ │ blank  │    zeros        a spare
//!  └────────┴─────┴─────┴──┘ └────────┴───────────┴─────┘ └────────┴ ─ ─ ─ ─ ─ ─ ─ ┘
//!  ↑ trimmed: becomes a spare             ↑ the current one
//! ```
//!
//! One append writes one `Batch` as one frame: entries and hard state stand or fall together.
//! Segments are zero-filled before use and used again after a trim, never renamed, so an append
//! changes file contents only and costs one write and one sync (decision 7). The header of a segment
//! travels in the same write as its first frame, so a roll costs no more.
//!
//! Several appends may be in flight. A frame counts when it and all before it are durable
//! (`landing`); each frame carries the highest frame that counted when it was built, which is how
//! `recover` tells a torn tail from rot. A trim counts when a frame that carries it is durable;
//! only then is a segment used again.
//!
//! The log does not understand what it stores: terms, votes and kinds are numbers to it.
//! A failed write or sync is final (decision 8): the log refuses everything after it.

mod append;
mod ballot;
mod error;
mod field;
pub mod frame;
mod inspect;
mod landing;
pub mod record;
mod recover;
pub mod segment;
mod spare;
#[cfg(test)]
mod tests;

pub use ballot::{Ballot, BallotBox, BallotSlot, FILE as BALLOT_FILE, ballots};
pub use error::WalError;
pub use inspect::{Framed, Inspection, find_frame, inspect, open_segment, read};
pub use recover::Torn;
pub use spare::Prepared;

use crate::{
    io::{BLOCK_BYTES, Disk, File},
    limits::WAL_SEGMENT_BYTES_MAX,
};
use bytes::Bytes;
use landing::Landing;
use recover::{Finding, Live, Slot, Tip, header_block};
use segment::Header;
use std::{collections::VecDeque, fmt, io};

/// One entry of the log.
#[derive(Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Position in the log, from 1.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
    /// What `data` is; the log does not ask.
    pub kind: u8,
    /// The entry's bytes.
    pub data: Bytes,
}

impl fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, term, kind, data } = self;
        write!(f, "{index}@{term} kind {kind} ({} bytes)", data.len())
    }
}

/// What a member must not forget besides its entries (raft, figure 2, "persistent state").
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct HardState {
    /// The current term.
    pub term: u64,
    /// Whom this member voted for in that term, 0 for nobody.
    pub vote: u64,
    /// Highest index known committed.
    pub commit: u64,
}

/// What one append makes durable, all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Contiguous by index. They continue the log, or replace its end from the first one's index
    /// on. May be empty.
    pub entries: Vec<LogEntry>,
    /// The hard state from this batch on.
    pub hard_state: HardState,
}

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a new segment, a multiple of [`BLOCK_BYTES`], at least two of them;
    /// [`crate::limits::WAL_SEGMENT_BYTES`] but in tests. A frame fits one less block.
    pub segment_bytes: u64,
    /// The cluster's id: a log of another one is refused.
    pub cluster: u64,
    /// The member's id: a log of another one is refused.
    pub member: u64,
    /// A fresh random number for each opening, not known to clients.
    pub salt: u64,
}

/// What a log held when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The entries above `trimmed`, contiguous by index; replaced ones are gone.
    pub entries: Vec<LogEntry>,
    /// The newest hard state.
    pub hard_state: HardState,
    /// The highest trim on record. Whoever trimmed has the entries up to here.
    pub trimmed: u64,
    /// The end that a crash cut off, if one did.
    pub torn: Option<Torn>,
}

impl Recovered {
    /// The last entry; `trimmed` where there is none.
    pub fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.trimmed, |entry| entry.index)
    }
}

/// The log of one member. Lives on the node's core; one at a time per directory.
pub struct Wal<D: Disk> {
    disk: D,
    background: D,
    options: Options,
    /// In order; the last one is appended to.
    segments: VecDeque<Live<D::File>>,
    /// Where the next frame goes in the last segment.
    offset: u64,
    /// All of `options.segment_bytes`, at most [`crate::limits::WAL_SPARES_MAX`].
    spares: Vec<Slot<D::File>>,
    /// To be removed when there is time.
    surplus: Vec<Slot<D::File>>,
    next_slot: u64,
    next_frame: u64,
    chain: u32,
    hard_state: HardState,
    last_index: u64,
    trim: Trim,
    landing: Landing,
}

/// A trim on its way to the disk: wanted, then carried by a frame, then settled.
#[derive(Clone, Copy, Debug, Default)]
struct Trim {
    wanted: u64,
    carried: Option<Carried>,
    settled: u64,
}

/// The frame that first carried a trim.
#[derive(Clone, Copy, Debug)]
struct Carried {
    frame: u64,
    through: u64,
}

impl Options {
    fn check(&self) {
        let (bytes, block) = (self.segment_bytes, BLOCK_BYTES as u64);
        assert!(bytes.is_multiple_of(block), "a segment is made of blocks");
        assert!(bytes >= 2 * block, "a segment has a header and room for a frame");
        assert!(bytes <= WAL_SEGMENT_BYTES_MAX, "lengths in a frame are 32 bits");
    }

    /// Cluster and member.
    fn owner(&self) -> (u64, u64) {
        (self.cluster, self.member)
    }

    /// The header of a segment that is ready for use.
    fn blank(&self) -> Header {
        let Self { segment_bytes, cluster, member, .. } = *self;
        Header { segment_bytes, cluster, member, ..Header::default() }
    }
}

/// A log that has been read, and in which nothing is changed yet.
pub struct Weighed<D: Disk> {
    disk: D,
    options: Options,
    next_slot: u64,
    found: Finding<D::File>,
}

impl<D: Disk> Wal<D> {
    /// Reads the log below `disk`, or makes a new one, and begins a segment. `background` is the
    /// same directory reached another way: files are filled and removed through it, so that doing so
    /// delays no append.
    ///
    /// # Errors
    /// As [`Wal::weigh`] and [`Weighed::open`].
    ///
    /// # Panics
    /// When `options.segment_bytes` is not as described.
    pub async fn open(
        disk: D,
        background: D,
        options: Options,
    ) -> Result<(Self, Recovered), WalError> {
        Self::weigh(disk, options).await?.open(background).await
    }

    /// The first half of [`Wal::open`]: finds out what the log holds, and changes nothing.
    ///
    /// # Errors
    /// [`WalError::Damaged`], [`WalError::Foreign`], [`WalError::Version`], [`WalError::Io`].
    ///
    /// # Panics
    /// When `options.segment_bytes` is not as described.
    pub async fn weigh(disk: D, options: Options) -> Result<Weighed<D>, WalError> {
        options.check();
        let survey = recover::survey(&disk, options.owner()).await?;
        let next_slot = survey.next_slot();
        let found = recover::weigh(survey).await?;
        Ok(Weighed { disk, options, next_slot, found })
    }

    /// Puts the files of a damaged log aside, into a folder whose name begins with `wal-damaged`, so
    /// that a new one can be made and a person can still look.
    ///
    /// # Errors
    /// What the machine says. Trying again goes on where this ended.
    pub async fn set_aside(disk: &D, options: Options) -> io::Result<()> {
        let aside = format!("wal-damaged-{:016x}", options.salt);
        let names = disk.list(segment::DIR).await?;
        for name in names.iter().filter(|name| segment::slot(name).is_some()) {
            disk.rename(&format!("{}/{name}", segment::DIR), &format!("{aside}/{name}")).await?;
        }
        if !names.is_empty() {
            disk.sync_dir(&aside).await?;
            disk.sync_dir(segment::DIR).await?;
            disk.sync_dir("").await?;
        }
        Ok(())
    }

    /// The log as found. It takes no appends before a segment is begun.
    fn behind(
        disk: D,
        background: D,
        options: Options,
        next_slot: u64,
        found: Finding<D::File>,
    ) -> Self {
        let Tip { frame, chain, hard_state, trimmed, last_index, .. } = found.tip;
        let mut wal = Self {
            disk,
            background,
            options,
            segments: found.chain.into(),
            offset: 0,
            spares: Vec::new(),
            surplus: Vec::new(),
            next_slot,
            next_frame: frame + 1,
            chain,
            hard_state,
            last_index,
            trim: Trim { wanted: trimmed, carried: None, settled: trimmed },
            landing: Landing::new(frame),
        };
        found.spares.into_iter().for_each(|slot| wal.keep(slot));
        wal
    }

    /// Begins a segment under this opening's salt. A last segment without frames is begun anew where
    /// it is: its header is one sector, so a crash leaves the old one or the new one, and both say
    /// the same of the log. Without that, a member that crashes at every start would fill the disk.
    async fn begin(&mut self) -> Result<(), WalError> {
        let mut header = self.next_header();
        let last_is_empty =
            self.segments.back().is_some_and(|last| last.header.first_frame == self.next_frame);
        let slot = if last_is_empty {
            let last = self.segments.pop_back().expect("a last one was just looked at");
            header.sequence = last.header.sequence;
            last.slot
        } else if let Some(spare) = self.spares.pop() {
            spare
        } else {
            let number = self.take_slot_number();
            spare::create(&self.disk, number, &self.options.blank()).await?
        };
        header.segment_bytes = slot.bytes;
        slot.file.write_sync_at(header_block(&header), 0).await?;
        self.segments.push_back(Live { slot, header });
        self.offset = BLOCK_BYTES as u64;
        Ok(())
    }

    /// The header of the segment that comes next: where the log stands now.
    fn next_header(&self) -> Header {
        Header {
            sequence: self.segments.back().map_or(1, |last| last.header.sequence + 1),
            salt: self.options.salt,
            first_frame: self.next_frame,
            chain: self.chain,
            last_index: self.last_index,
            durable_upto: self.landing.durable(),
            trimmed: self.trim.wanted,
            hard_state: self.hard_state,
            ..self.options.blank()
        }
    }

    /// Lowest index that opening the log again would give back: one above the last trim.
    pub fn first_index(&self) -> u64 {
        self.trim.wanted + 1
    }

    /// Index of the last appended entry, durable or not; one below [`Wal::first_index`] without any.
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Highest frame that is durable with all before it. Frames count from 1 over the log's life.
    pub fn durable_frame(&self) -> u64 {
        self.landing.durable()
    }

    /// Bytes that the log's files take on disk.
    pub fn disk_bytes(&self) -> u64 {
        let live = self.segments.iter().map(|live| &live.slot);
        live.chain(&self.spares).chain(&self.surplus).map(|slot| slot.bytes).sum()
    }

    /// Bytes of the segments that opening the log again would read.
    pub fn live_bytes(&self) -> u64 {
        self.segments.iter().map(|live| live.slot.bytes).sum()
    }

    /// Bytes of the largest frame, see [`frame::frame_bytes`].
    pub fn frame_bytes_max(&self) -> usize {
        usize::try_from(self.options.segment_bytes).expect("64-bit machine") - BLOCK_BYTES
    }
}

impl<D: Disk> Weighed<D> {
    /// The second half of [`Wal::open`]: cuts off what was never acknowledged, and begins a segment.
    ///
    /// # Errors
    /// [`WalError::Io`]: nothing is lost, not even by `StorageFull`.
    pub async fn open(self, background: D) -> Result<(Wal<D>, Recovered), WalError> {
        let Self { disk, options, next_slot, mut found } = self;
        found.sever(&options.blank()).await?;
        spare::remove_all(&disk, std::mem::take(&mut found.unborn)).await?;

        let recovered = Recovered {
            entries: std::mem::take(&mut found.tip.entries),
            hard_state: found.tip.hard_state,
            trimmed: found.tip.trimmed,
            torn: found.torn.take(),
        };
        let mut wal = Wal::behind(disk, background, options, next_slot, found);
        wal.begin().await?;
        // The folder itself may be new, from this opening or from one that was cut short.
        wal.disk.sync_dir("").await?;
        Ok((wal, recovered))
    }
}
