//! Where the truth ends: reading the log after a crash.
//!
//! ```text
//!  survey   open every segment, read its header             nothing is changed
//!  weigh    scan the frames, newest segment first, for two proofs:
//!             D = highest `durable upto` anywhere: frames up to D were acknowledged
//!             T = highest `trimmed` anywhere: entries up to T are not needed
//!           then walk from the newest segment whose cut is at or below T, frame by frame
//!           ├ the walk ends before D  → something acknowledged is gone: rot. Refused, untouched
//!           └ otherwise               → what lies behind was never acknowledged: torn
//!  sever    zero the torn frames, blank the segments behind them
//! ```
//!
//! Both proofs come from checksummed headers under a salt that clients cannot know, and hold even
//! if the frame that carries them is itself torn away: they were true when it was built. Severing
//! only removes frames that prove nothing about others being acknowledged, so a crash in its middle
//! leaves a log that recovers to the same place.
//!
//! One case cannot be told: the last frame of all, header intact, payload not. It may have been
//! acknowledged with nothing written after it. It is severed like a torn one and reported as
//! [`Torn::doubtful`]; a lone member must go on, a member with peers may ask them first. A frame
//! without entries, written when the log falls idle, closes that window.
//!
//! Every file is synced before it is read: what a drive's cache shows is not yet durable.

use super::{
    HardState, LogEntry, WalError,
    frame::{self, Head, Scan, Seen},
    segment::{self, Header, Opening},
};
use crate::{
    io::{AlignedBuf, BLOCK_BYTES, Disk, File},
    limits::WAL_READ_BYTES,
};
use std::{collections::VecDeque, fmt, io};

const ADVICE: &str = "nothing was changed; keep a copy of the data directory, check the disk, and \
                      restore this member from a backup or replace it from its peers";

/// A segment's file, whatever it holds.
#[derive(Clone, Debug)]
pub(super) struct Slot<F> {
    pub(super) number: u64,
    pub(super) file: F,
    pub(super) bytes: u64,
}

/// A segment that is, or was, part of the log.
#[derive(Clone, Debug)]
pub(super) struct Live<F> {
    pub(super) slot: Slot<F>,
    pub(super) header: Header,
}

/// All files of the log by what their headers say.
pub(super) struct Survey<F> {
    /// By sequence, ascending.
    live: Vec<Live<F>>,
    blank: Vec<Slot<F>>,
    unborn: Vec<Slot<F>>,
}

/// The verdict about a log that may be opened.
pub(super) struct Finding<F> {
    /// Where the log ends.
    pub(super) tip: Tip,
    /// The segments the log consists of, ascending.
    pub(super) chain: Vec<Live<F>>,
    /// Segments that hold nothing needed.
    pub(super) spares: Vec<Slot<F>>,
    /// Files whose creation was cut short.
    pub(super) unborn: Vec<Slot<F>>,
    /// Segments behind the end, to be blanked.
    severed: Vec<Slot<F>>,
    /// Offsets of torn frames in the last segment of `chain`, to be zeroed.
    severed_frames: Vec<u64>,
    /// What is reported about the two.
    pub(super) torn: Option<Torn>,
}

/// The end of a log that a crash cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file that the log now ends in, relative to the disk's root.
    pub file: String,
    /// Byte offset at which it ends.
    pub offset: u64,
    /// Number of the first frame that was dropped.
    pub frame: u64,
    /// The first dropped frame is there but does not verify. It may have been torn, or acknowledged
    /// and then damaged with nothing written after it to tell.
    pub doubtful: bool,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, frame, doubtful } = self;
        write!(f, "log ends at frame {frame}, {file} byte {offset}: ")?;
        f.write_str(match doubtful {
            false => "what followed was never acknowledged",
            true => "that frame is incomplete; if the disk is at fault, its writes are lost",
        })
    }
}

/// The two proofs that segments and frames give about the rest of the log.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    durable: u64,
    trimmed: u64,
}

impl Evidence {
    fn note(&mut self, durable: u64, trimmed: u64) {
        self.durable = self.durable.max(durable);
        self.trimmed = self.trimmed.max(trimmed);
    }

    fn note_all(&mut self, frames: &[(u64, Seen)]) {
        for (_, seen) in frames {
            if let Seen::Intact(head, _) | Seen::Broken(Some(head)) = seen {
                self.note(head.durable_upto, head.trimmed);
            }
        }
    }
}

/// How far the walk has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Tip {
    pub(super) frame: u64,
    pub(super) chain: u32,
    pub(super) hard_state: HardState,
    pub(super) trimmed: u64,
    pub(super) last_index: u64,
    pub(super) entries: Vec<LogEntry>,
}

impl Tip {
    /// Before the first frame of a segment.
    fn before(header: &Header) -> Self {
        Self {
            frame: header.first_frame - 1,
            chain: header.chain,
            hard_state: header.hard_state,
            trimmed: header.trimmed,
            last_index: header.last_index,
            entries: Vec::new(),
        }
    }

    fn reaches(&self, header: &Header) -> bool {
        header.first_frame == self.frame + 1 && header.chain == self.chain
    }

    fn admits(&self, head: &Head) -> bool {
        let end = self.last_index.max(head.trimmed);
        head.number == self.frame + 1
            && head.follows(self.chain)
            && (head.entries == 0
                || (head.trimmed < head.first_index && head.first_index <= end + 1))
    }

    fn take(&mut self, head: &Head, entries: Vec<LogEntry>) {
        self.frame = head.number;
        self.chain = head.chain();
        self.hard_state = head.hard_state;
        self.trimmed = head.trimmed;
        self.last_index = self.last_index.max(head.trimmed);
        if head.entries > 0 {
            self.last_index = head.last_index;
            let kept = self.entries.partition_point(|entry| entry.index < head.first_index);
            self.entries.truncate(kept);
            self.entries.extend(entries);
        }
    }
}

/// Opens every segment and reads its header. Changes nothing.
///
/// # Errors
/// [`WalError::Damaged`] for a header that does not verify; [`WalError::Foreign`] and
/// [`WalError::Version`] for one that is not ours to read.
pub(super) async fn survey<D: Disk>(
    disk: &D,
    (cluster, member): (u64, u64),
) -> Result<Survey<D::File>, WalError> {
    let mut found = Survey { live: Vec::new(), blank: Vec::new(), unborn: Vec::new() };
    let names = disk.list(segment::DIR).await?;
    if !names.is_empty() {
        disk.sync_dir(segment::DIR).await?;
    }
    for number in names.iter().filter_map(|name| segment::slot(name)) {
        let name = segment::name(number);
        let file = disk.open(&name).await?;
        file.sync().await?;
        let bytes = file.len().await?;
        let slot = Slot { number, file, bytes };
        if bytes < BLOCK_BYTES as u64 {
            found.unborn.push(slot);
            continue;
        }
        let block = slot.file.read_at(0, BLOCK_BYTES).await?;
        match segment::decode(&block) {
            Opening::Unborn => found.unborn.push(slot),
            Opening::Blank(header) => {
                header.belongs_to(cluster, member, &name)?;
                found.blank.push(slot);
            }
            Opening::Live(header) => {
                header.belongs_to(cluster, member, &name)?;
                if header.segment_bytes != bytes {
                    let what = format!("the file has {bytes} of {} bytes", header.segment_bytes);
                    return Err(damaged(name, 0, what));
                }
                found.live.push(Live { slot, header });
            }
            Opening::Unreadable => {
                return Err(damaged(name, 0, "the segment's header does not verify".into()));
            }
            Opening::Unknown(version) => {
                return Err(WalError::Version { file: name, found: version });
            }
        }
    }
    found.live.sort_by_key(|live| live.header.sequence);
    Ok(found)
}

/// A segment and the frames seen in it.
struct Scanned<F> {
    live: Live<F>,
    frames: Vec<(u64, Seen)>,
}

/// Decides where the log begins and ends. Changes nothing.
///
/// # Errors
/// [`WalError::Damaged`] when something acknowledged is missing.
pub(super) async fn weigh<F: File>(survey: Survey<F>) -> Result<Finding<F>, WalError> {
    let Survey { mut live, blank, unborn } = survey;
    let used = live.iter().map(|live| &live.slot);
    let all: Vec<_> = used.chain(&blank).chain(&unborn).cloned().collect();
    let mut evidence = Evidence::default();
    let mut scanned = scan_back(&mut live, &mut evidence).await?;
    let mut spares = blank;
    spares.extend(live.into_iter().map(|stale| stale.slot));

    let Walk { mut tip, connected, taken, end } = walk(&mut scanned);
    if let Some(last) = connected.checked_sub(1) {
        let name = segment::name(scanned[last].live.slot.number);
        if tip.frame < evidence.durable {
            let what = format!(
                "frame {} was acknowledged and is not there (all up to {} were)",
                tip.frame + 1,
                evidence.durable
            );
            return Err(damaged(name, end, what));
        }
    }
    refuse_lost_header(&all, &tip).await?;
    tip.trimmed = evidence.trimmed;
    tip.last_index = tip.last_index.max(tip.trimmed);
    tip.entries.retain(|entry| entry.index > tip.trimmed);

    let mut chain: Vec<Live<F>> = Vec::new();
    let mut severed: Vec<Slot<F>> = Vec::new();
    let mut dropped = Vec::new();
    for (at, segment) in scanned.into_iter().enumerate() {
        if at + 1 == connected {
            dropped = segment.frames.into_iter().skip(taken).collect();
        }
        if at < connected {
            chain.push(segment.live);
        } else {
            severed.push(segment.live.slot);
        }
    }
    let torn =
        chain.last().filter(|_| !dropped.is_empty() || !severed.is_empty()).map(|last| Torn {
            file: segment::name(last.slot.number),
            offset: end,
            frame: tip.frame + 1,
            doubtful: matches!(dropped.first(), Some((at, Seen::Broken(_))) if *at == end),
        });
    Ok(Finding {
        tip,
        chain,
        spares,
        unborn,
        severed,
        severed_frames: dropped.into_iter().map(|(at, _)| at).collect(),
        torn,
    })
}

/// Scans segments from the newest back to the first one that nothing before is needed for. What is
/// left in `live` is stale. A gap in their order is not judged here: with several appends in flight
/// a later segment may have reached the disk without the one before.
async fn scan_back<F: File>(
    live: &mut Vec<Live<F>>,
    evidence: &mut Evidence,
) -> Result<VecDeque<Scanned<F>>, WalError> {
    let mut scanned: VecDeque<Scanned<F>> = VecDeque::new();
    while let Some(segment) = live.pop() {
        let header = segment.header;
        evidence.note(header.durable_upto, header.trimmed);
        let next = scanned.front().map(|next| &next.live.header);
        let frames = frames_of(&segment.slot, header.frame_salt(), evidence.trimmed, next).await?;
        evidence.note_all(&frames);
        scanned.push_front(Scanned { live: segment, frames });
        if header.last_index <= evidence.trimmed {
            return Ok(scanned);
        }
    }
    match scanned.front() {
        Some(oldest) => Err(missing(&oldest.live, evidence)),
        None => Ok(scanned),
    }
}

/// Where a walk over segments ended.
struct Walk {
    tip: Tip,
    /// Segments that belong to the log.
    connected: usize,
    /// Frames of the last of them that do.
    taken: usize,
    /// Offset behind the last of these.
    end: u64,
}

fn walk<F>(scanned: &mut VecDeque<Scanned<F>>) -> Walk {
    let tip = scanned.front().map(|oldest| Tip::before(&oldest.live.header)).unwrap_or_default();
    let mut walk = Walk { tip, connected: 0, taken: 0, end: 0 };
    for segment in scanned.iter_mut() {
        if !walk.tip.reaches(&segment.live.header) {
            break;
        }
        walk.connected += 1;
        (walk.taken, walk.end) = (0, BLOCK_BYTES as u64);
        for (at, seen) in &mut segment.frames {
            let Seen::Intact(head, entries) = seen else { break };
            if !walk.tip.admits(head) {
                break;
            }
            walk.tip.take(head, std::mem::take(entries));
            walk.taken += 1;
            walk.end = *at + head.frame_bytes() as u64;
        }
    }
    walk
}

/// A segment's header is written with its first frame. If the disk lost that one sector, the
/// segment looks unused, or as it was used before: its frames tell. Where the first of them must lie,
/// nothing else ever does, so it may say under which salt the others are.
async fn refuse_lost_header<F: File>(segments: &[Slot<F>], tip: &Tip) -> Result<(), WalError> {
    for slot in segments.iter().filter(|slot| slot.bytes >= 2 * BLOCK_BYTES as u64) {
        let first = slot.file.read_at(BLOCK_BYTES as u64, BLOCK_BYTES).await?;
        let salt = match frame::under_its_own_salt(&first) {
            Some((salt, head)) if head.number > tip.frame => salt,
            // What an earlier use has left, what the walk has taken, or nothing.
            _ => continue,
        };
        let mut evidence = Evidence::default();
        evidence.note_all(&frames_of(slot, salt, u64::MAX, None).await?);
        if evidence.durable > tip.frame {
            let what = format!(
                "the segment's header is lost; its frames up to {} were acknowledged",
                evidence.durable
            );
            return Err(damaged(segment::name(slot.number), 0, what));
        }
    }
    Ok(())
}

/// Every frame of the life `salt` in a segment, with its offset, as [`frame::scan`] finds them; up to
/// the one that `next` goes on from, if that is whole. Nothing was ever written behind that one, or it
/// was severed before `next` began; and a start leaves nearly all of a segment empty. A piece at a time:
/// what is held of the log is its entries.
pub(super) async fn frames_of<F: File>(
    slot: &Slot<F>,
    salt: u64,
    after: u64,
    next: Option<&Header>,
) -> io::Result<Vec<(u64, Seen)>> {
    let end = slot.bytes - slot.bytes % BLOCK_BYTES as u64;
    let ends_with = |head: &Head| {
        next.is_some_and(|next| (next.first_frame, next.chain) == (head.number + 1, head.chain()))
    };
    let (mut scan, mut least) = (Scan::new(salt, after), 0);
    while scan.at() < end && !scan.newest().is_some_and(ends_with) {
        let rest = usize::try_from(end - scan.at()).expect("64-bit machine");
        let len = WAL_READ_BYTES.max(least).min(rest);
        let piece = slot.file.read_at(scan.at(), len).await?;
        least = scan.take(&piece, len == rest);
    }
    Ok(scan.found())
}

impl<F> Survey<F> {
    /// The first slot number that no file has.
    pub(super) fn next_slot(&self) -> u64 {
        let live = self.live.iter().map(|live| &live.slot);
        let all = live.chain(&self.blank).chain(&self.unborn);
        all.map(|slot| slot.number + 1).max().unwrap_or(0)
    }
}

impl<F: File> Finding<F> {
    /// Removes what was torn off, durably. The severed segments become spares.
    ///
    /// # Errors
    /// What the machine says. Opening again finds the same end of the log.
    pub(super) async fn sever(&mut self, blank: &Header) -> Result<(), WalError> {
        while let Some(slot) = self.severed.pop() {
            let header = Header { segment_bytes: slot.bytes, ..*blank };
            slot.file.write_sync_at(header_block(&header), 0).await?;
            self.spares.push(slot);
        }
        if let Some(last) = self.chain.last() {
            while let Some(at) = self.severed_frames.pop() {
                last.slot.file.write_sync_at(AlignedBuf::zeroed(BLOCK_BYTES), at).await?;
            }
        }
        Ok(())
    }
}

/// A block that holds `header`.
pub(super) fn header_block(header: &Header) -> AlignedBuf {
    let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
    header.encode(&mut block);
    block
}

fn missing<F>(oldest: &Live<F>, evidence: &Evidence) -> WalError {
    let what = format!(
        "this is the oldest segment, and entries {} to {} before it are needed",
        evidence.trimmed + 1,
        oldest.header.last_index
    );
    damaged(segment::name(oldest.slot.number), 0, what)
}

fn damaged(file: String, offset: u64, what: String) -> WalError {
    WalError::Damaged { file, offset, what, advice: ADVICE }
}
