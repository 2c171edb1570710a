//! Term and vote once more, apart from the log.
//!
//! A member may lose what it acknowledged and come back by way of its leader; a vote that it forgot it
//! may give again, and then two lead in one term. So both are kept twice: in the log's frames, and
//! here. Whatever a vote promises to others leaves only when both places have it.
//!
//! The file `ballot` has two blocks; ballot number n goes into block n mod 2, so one whole ballot is
//! always there. Numbers are little endian:
//!
//! ```text
//!  0 magic u64 · 8 crc of all that follows u32 · 12 version u32 · 16 number u64
//! 24 cluster u64 · 32 member u64 · 40 term u64 · 48 vote u64 · 56 lost u64, 1 while the log is lost
//! 64 boot u64
//! ```

use super::{
    WalError,
    field::{get_u32, get_u64, put_u32, put_u64},
};
use crate::io::{AlignedBuf, BLOCK_BYTES, Disk, File};
use std::{future::Future, io, pin::Pin};

/// Name of the file below the disk's root.
pub const FILE: &str = "ballot";

const MAGIC: u64 = u64::from_le_bytes(*b"RLballot");
const VERSION: u32 = 1;
const CRC_AT: usize = 8;
const VERSION_AT: usize = CRC_AT + 4;
const NUMBER_AT: usize = VERSION_AT + 4;
const IN_USE: usize = NUMBER_AT + 7 * 8;
const SLOTS: u64 = 2;

/// What a member must not forget even without its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ballot {
    /// The newest term it took part in.
    pub term: u64,
    /// Whom it voted for in that term, 0 for nobody.
    pub vote: u64,
    /// Its log was found damaged, and it has not caught up since.
    pub lost: bool,
    /// Number of the start, in microseconds of the wall clock while that goes on; rises in any case.
    pub boot: u64,
}

/// The ballots of one member.
pub struct BallotBox<F> {
    file: F,
    number: u64,
    owner: (u64, u64),
    ballot: Ballot,
}

impl<F: File> BallotBox<F> {
    /// Opens the box below `disk`, or makes an empty one. `None` for what is in it: nothing, or
    /// nothing that can be read.
    ///
    /// # Errors
    /// [`WalError::Foreign`] for another member's box; [`WalError::Io`].
    pub async fn open<D: Disk<File = F>>(
        disk: &D,
        cluster: u64,
        member: u64,
    ) -> Result<(Self, Option<Ballot>), WalError> {
        let file = match disk.open(FILE).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = disk.create(FILE, SLOTS * BLOCK_BYTES as u64).await?;
                file.sync().await?;
                disk.sync_dir("").await?;
                file
            }
            opened => opened?,
        };
        // What a killed process has written may not be durable yet, and counts from now on.
        file.sync().await?;
        let mut newest: Option<(u64, Ballot)> = None;
        for slot in read(&file).await? {
            let BallotSlot::Whole { number, owner, ballot } = slot else { continue };
            for (whose, expected, found) in
                [("cluster", cluster, owner.0), ("member", member, owner.1)]
            {
                if expected != found {
                    return Err(WalError::Foreign { file: FILE.into(), whose, expected, found });
                }
            }
            if newest.is_none_or(|(before, _)| number > before) {
                newest = Some((number, ballot));
            }
        }
        let (number, ballot) = newest.unzip();
        let number = number.unwrap_or_default();
        let known = ballot.unwrap_or_default();
        Ok((Self { file, number, owner: (cluster, member), ballot: known }, ballot))
    }

    /// The newest ballot, durable or on its way.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Puts `ballot` in. It counts once the future is done; they end in the order they were made.
    ///
    /// # Errors
    /// The future fails when the write or sync does: the caller aborts.
    pub fn cast(&mut self, ballot: Ballot) -> Pin<Box<dyn Future<Output = io::Result<()>>>> {
        self.number += 1;
        self.ballot = ballot;
        let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
        encode(self.number, self.owner, ballot, &mut block);
        let offset = self.number % SLOTS * BLOCK_BYTES as u64;
        // Made now, so that ballots take effect in order.
        Box::pin(self.file.write_sync_at(block, offset))
    }
}

/// What one of the two blocks turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BallotSlot {
    /// Never written.
    Blank,
    /// A ballot.
    Whole {
        /// Ballots count up.
        number: u64,
        /// Cluster and member.
        owner: (u64, u64),
        /// What it says.
        ballot: Ballot,
    },
    /// Neither. A block's fields lie in one sector, so no crash leaves this.
    Damaged,
}

/// The blocks of the box below `disk`, without opening it; `None` where there is none.
///
/// # Errors
/// What the machine says.
pub async fn ballots<D: Disk>(disk: &D) -> io::Result<Option<[BallotSlot; SLOTS as usize]>> {
    match disk.open(FILE).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => read(&opened?).await.map(Some),
    }
}

/// A file that is too short is one whose making was cut short.
async fn read<F: File>(file: &F) -> io::Result<[BallotSlot; SLOTS as usize]> {
    let mut slots = [BallotSlot::Blank; SLOTS as usize];
    if file.len().await? < SLOTS * BLOCK_BYTES as u64 {
        return Ok(slots);
    }
    for (at, slot) in (0..SLOTS).zip(&mut slots) {
        let block = file.read_at(at * BLOCK_BYTES as u64, BLOCK_BYTES).await?;
        *slot = match decode(&block, at) {
            Some((number, owner, ballot)) => BallotSlot::Whole { number, owner, ballot },
            None if block[..IN_USE].iter().all(|byte| *byte == 0) => BallotSlot::Blank,
            None => BallotSlot::Damaged,
        };
    }
    Ok(slots)
}

fn encode(number: u64, (cluster, member): (u64, u64), ballot: Ballot, block: &mut [u8]) {
    let Ballot { term, vote, lost, boot } = ballot;
    let fields = [number, cluster, member, term, vote, u64::from(lost), boot];
    put_u64(block, 0, MAGIC);
    put_u32(block, VERSION_AT, VERSION);
    for (at, field) in (NUMBER_AT..).step_by(8).zip(fields) {
        put_u64(block, at, field);
    }
    let crc = crc32fast::hash(&block[VERSION_AT..IN_USE]);
    put_u32(block, CRC_AT, crc);
}

/// Number, cluster and member, and the ballot, if the block holds one that belongs in this slot.
fn decode(block: &[u8], slot: u64) -> Option<(u64, (u64, u64), Ballot)> {
    let [number, cluster, member, term, vote, lost, boot] =
        std::array::from_fn(|field| get_u64(block, NUMBER_AT + 8 * field));
    let whole = get_u64(block, 0) == MAGIC
        && get_u32(block, CRC_AT) == crc32fast::hash(&block[VERSION_AT..IN_USE])
        && get_u32(block, VERSION_AT) == VERSION
        && number % SLOTS == slot
        && lost <= 1;
    whole.then_some((number, (cluster, member), Ballot { term, vote, lost: lost == 1, boot }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ballot_reads_back_from_its_own_slot_and_no_flipped_bit_passes() {
        let ballot = Ballot { term: 7, vote: 3, lost: true, boot: 4 };
        let mut block = vec![0; BLOCK_BYTES];
        encode(5, (1, 2), ballot, &mut block);
        assert_eq!(decode(&block, 1), Some((5, (1, 2), ballot)));
        assert_eq!(decode(&block, 0), None);
        for bit in 0..IN_USE * 8 {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged, 1), None, "bit {bit}");
        }
        assert_eq!(decode(&[0; BLOCK_BYTES], 0), None);
    }
}
