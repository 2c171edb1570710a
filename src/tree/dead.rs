//! Which records compaction has taken, as a file beside them.
//!
//! A dead record may lie in its segment for long after the record that killed it is gone: the
//! tombstone's own segment may be freed while a version before it stays among live neighbours. A
//! restart that saw only the records would raise it again. So each checkpoint writes down the dead
//! of all segments, as `rec/dead.<number of the superblock>`.
//!
//! ```text
//!   0   u64 magic  u32 version  u32 crc of everything else
//!  16   u64 cluster  u64 number  u64 segments
//!  40   for each segment: u64 id  u64 generation  u64 words, then the words: one bit a record,
//!       by its position in the segment
//! ```

use super::segment::{DIR, Flaw};
use crate::types::ClusterId;
use std::collections::BTreeMap;

const MAGIC: u64 = u64::from_le_bytes(*b"RLdead\r\n");
const VERSION: u32 = 1;
const CRC_AT: usize = 12;
const CLUSTER_AT: usize = 16;
/// Bytes of a list without segments.
pub(crate) const HEAD_BYTES: usize = CLUSTER_AT + 3 * 8;

/// The dead of each segment, by id and generation.
pub(crate) type Dead = BTreeMap<(u64, u64), Vec<u64>>;

/// The file's name below the disk's root.
pub(crate) fn file(number: u64) -> String {
    format!("{DIR}/dead.{number:010}")
}

pub(crate) fn encode(cluster: ClusterId, number: u64, dead: &Dead) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |number: u64| out.extend_from_slice(&number.to_le_bytes());
    put(MAGIC);
    put(VERSION.into());
    put(cluster.0);
    put(number);
    put(dead.len() as u64);
    for ((id, generation), words) in dead {
        put(*id);
        put(*generation);
        put(words.len() as u64);
        words.iter().for_each(|word| put(*word));
    }
    let crc = checksum(&out);
    out[CRC_AT..CLUSTER_AT].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Most bytes that a list takes for so many segments, with so many records in all.
pub(crate) fn bytes_max(segments: usize, records: usize) -> u64 {
    (HEAD_BYTES as u64).saturating_add(segments as u64 * 4 * 8 + records as u64 / 8)
}

/// Reads what [`encode`] wrote for the superblock of that cluster and number.
pub(crate) fn decode(bytes: &[u8], cluster: ClusterId, number: u64) -> Result<Dead, Flaw> {
    let (stored, found) = bytes[CRC_AT..]
        .first_chunk()
        .map(|crc| (u32::from_le_bytes(*crc), checksum(bytes)))
        .expect("the superblock says that the file has a head");
    if stored != found {
        let what = "the checksum of the list of dead records";
        return Err(Flaw::new(CRC_AT, what, stored.into(), found.into()));
    }
    let mut words = bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("the chunk has the word's length")));
    let mut next = |at: usize, what| {
        words.next().ok_or(Flaw::new(at, what, bytes.len() as u64 + 8, bytes.len() as u64))
    };
    let mut field = |what, expected: u64, mask: u64| match next(0, what)? & mask {
        found if found == expected => Ok(()),
        found => Err(Flaw::new(0, what, expected, found)),
    };
    field("the mark of a list of dead records", MAGIC, u64::MAX)?;
    field("a list format that this version reads", VERSION.into(), u32::MAX.into())?;
    field("the cluster's id", cluster.0, u64::MAX)?;
    field("the superblock's number", number, u64::MAX)?;
    let mut dead = Dead::new();
    let what = "a whole list of dead records";
    for _ in 0..next(bytes.len(), what)? {
        let (id, generation) = (next(bytes.len(), what)?, next(bytes.len(), what)?);
        let count = next(bytes.len(), what)?;
        let marks = (0..count).map(|_| next(bytes.len(), what)).collect::<Result<_, _>>()?;
        dead.insert((id, generation), marks);
    }
    Ok(dead)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[CLUSTER_AT..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_read_back_as_written_and_every_flipped_bit_is_noticed() {
        let dead = Dead::from([((3, 0), vec![1, 1 << 63]), ((4, 2), vec![7])]);
        let bytes = encode(ClusterId(5), 17, &dead);
        assert_eq!(decode(&bytes, ClusterId(5), 17), Ok(dead));
        assert!(decode(&bytes, ClusterId(5), 18).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged, ClusterId(5), 17).is_err(), "bit {bit} went unnoticed");
        }
    }
}
