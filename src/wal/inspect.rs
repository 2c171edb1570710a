//! The log, looked at: the verdict that opening it would come to, and what lies in it, without
//! opening it. The verdict is [`recover`](super::recover)'s own; only what it would sever stays.

use super::{
    HardState, LogEntry, Recovered, Torn, WalError,
    frame::Seen,
    recover::{self, Finding, Slot, Tip},
    segment::{self, Header, Opening},
};
use crate::io::{BLOCK_BYTES, Disk, File};
use std::io;

/// A log that opens.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The files that it consists of, in order, with what each says of itself.
    pub segments: Vec<(String, Header)>,
    /// Files that hold nothing needed.
    pub spares: Vec<String>,
    /// Bytes of all of them.
    pub file_bytes: u64,
    /// Entries up to this index are kept elsewhere.
    pub trimmed: u64,
    /// Its last entry; `trimmed` where it holds none.
    pub last_index: u64,
    /// The newest hard state.
    pub hard_state: HardState,
    /// Its last frame, 0 before the first one ever.
    pub last_frame: u64,
    /// An end that a start would cut off.
    pub torn: Option<Torn>,
}

/// A frame, and where it lies.
#[derive(Clone, Debug)]
pub struct Framed {
    /// The file, relative to the disk's root.
    pub file: String,
    /// Its first byte there.
    pub offset: u64,
    /// What is there.
    pub seen: Seen,
}

/// Looks at the log of this cluster and member as [`super::Wal::open`] does, and leaves it.
///
/// # Errors
/// Those of [`super::Wal::open`].
pub async fn inspect<D: Disk>(
    disk: &D,
    (cluster, member): (u64, u64),
) -> Result<Inspection, WalError> {
    let found = recover::weigh(recover::survey(disk, (cluster, member)).await?).await?;
    let Finding { tip, chain, mut spares, unborn, torn, .. } = found;
    spares.extend(unborn);
    let file_bytes = chain.iter().map(|live| live.slot.bytes).sum::<u64>()
        + spares.iter().map(|slot| slot.bytes).sum::<u64>();
    let name = |slot: &Slot<D::File>| segment::name(slot.number);
    Ok(Inspection {
        segments: chain.iter().map(|live| (name(&live.slot), live.header)).collect(),
        spares: spares.iter().map(name).collect(),
        file_bytes,
        trimmed: tip.trimmed,
        last_index: tip.last_index,
        hard_state: tip.hard_state,
        last_frame: tip.frame,
        torn,
    })
}

/// Reads the log of this cluster and member as [`super::Wal::open`] does, and leaves it.
///
/// # Errors
/// Those of [`super::Wal::open`].
pub async fn read<D: Disk>(disk: &D, owner: (u64, u64)) -> Result<Recovered, WalError> {
    let Finding { tip, torn, .. } = recover::weigh(recover::survey(disk, owner).await?).await?;
    let Tip { entries, hard_state, trimmed, .. } = tip;
    Ok(Recovered { entries, hard_state, trimmed, torn })
}

/// The newest frame of this number, whole or not, wherever one is; also in a log that does not open.
///
/// # Errors
/// What the machine says.
pub async fn find_frame<D: Disk>(disk: &D, number: u64) -> io::Result<Option<Framed>> {
    let mut live = Vec::new();
    for slot in disk.list(segment::DIR).await?.iter().filter_map(|name| segment::slot(name)) {
        let name = segment::name(slot);
        if let Opening::Live(header) = read_opening(&disk.open(&name).await?).await? {
            live.push((header, name));
        }
    }
    live.retain(|(header, _)| header.first_frame <= number);
    live.sort_by_key(|(header, _)| std::cmp::Reverse(header.sequence));
    for (_, file) in live {
        let (_, frames) = open_segment(disk, &file).await?;
        let of_that_number = |seen: &Seen| match seen {
            Seen::Intact(head, _) | Seen::Broken(Some(head)) => head.number == number,
            Seen::Broken(None) | Seen::Nothing => false,
        };
        if let Some((offset, seen)) = frames.into_iter().find(|(_, seen)| of_that_number(seen)) {
            return Ok(Some(Framed { file, offset, seen }));
        }
    }
    Ok(None)
}

/// What a segment's file says of itself, and the frames of its newest life, with their offsets.
///
/// # Errors
/// What the machine says.
pub async fn open_segment<D: Disk>(
    disk: &D,
    name: &str,
) -> io::Result<(Opening, Vec<(u64, Seen)>)> {
    let file = disk.open(name).await?;
    let opening = read_opening(&file).await?;
    let Opening::Live(header) = opening else { return Ok((opening, Vec::new())) };
    let bytes = file.len().await?;
    let slot = Slot { number: 0, file, bytes };
    Ok((opening, recover::frames_of(&slot, header.frame_salt(), 0, None).await?))
}

async fn read_opening<F: File>(file: &F) -> io::Result<Opening> {
    if file.len().await? < BLOCK_BYTES as u64 {
        return Ok(Opening::Unborn);
    }
    Ok(segment::decode(&file.read_at(0, BLOCK_BYTES).await?))
}

impl Inspection {
    /// Its first entry, one above the last where it holds none.
    pub fn first_index(&self) -> u64 {
        self.trimmed + 1
    }
}

impl Framed {
    /// Its entries, where they verify.
    pub fn entries(&self) -> &[LogEntry] {
        if let Seen::Intact(_, entries) = &self.seen { entries } else { &[] }
    }
}
