//! The first block of a segment file; pure. Offsets in bytes, numbers little endian:
//!
//! ```text
//!   0  magic           u64
//!   8  version         u32   1
//!  12  chain           u32   of the last frame before this segment
//!  16  cluster         u64   ┐ whose log this is
//!  24  member          u64   ┘
//!  32  segment bytes   u64   the file's length
//!  40  sequence        u64   segments count up from 1; 0 is a blank one, ready for use
//!  48  salt            u64   fresh for each opening of the log
//!  56  first frame     u64   number of the first frame in this segment
//!  64  last index      u64   of the log before this segment
//!  72  durable upto    u64   ┐
//!  80  trimmed         u64   │
//!  88  term            u64   ├ as in a frame, at the cut
//!  96  vote            u64   │
//! 104  commit          u64   ┘
//! 112  crc             u32   of bytes 0..112
//! ```
//!
//! The header lies inside the first 512 bytes, the unit a disk writes or does not write: after a
//! power cut it is the old one or the new one. A header that does not verify is therefore rot.
//! Because it repeats where the log stood at the cut, recovery may start at any segment.

use super::{
    HardState, WalError,
    field::{get_u32, get_u64, put_u32, put_u64},
};

const MAGIC: usize = 0;
const VERSION: usize = MAGIC + size_of::<u64>();
const CHAIN: usize = VERSION + size_of::<u32>();
const CLUSTER: usize = CHAIN + size_of::<u32>();
const MEMBER: usize = CLUSTER + size_of::<u64>();
const SEGMENT_BYTES: usize = MEMBER + size_of::<u64>();
const SEQUENCE: usize = SEGMENT_BYTES + size_of::<u64>();
const SALT: usize = SEQUENCE + size_of::<u64>();
const FIRST_FRAME: usize = SALT + size_of::<u64>();
const LAST_INDEX: usize = FIRST_FRAME + size_of::<u64>();
const DURABLE_UPTO: usize = LAST_INDEX + size_of::<u64>();
const TRIMMED: usize = DURABLE_UPTO + size_of::<u64>();
const TERM: usize = TRIMMED + size_of::<u64>();
const VOTE: usize = TERM + size_of::<u64>();
const COMMIT: usize = VOTE + size_of::<u64>();
const CRC: usize = COMMIT + size_of::<u64>();

/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = CRC + size_of::<u32>();

const _: () = assert!(HEADER_BYTES == 116, "the byte map above says so");
const _: () = assert!(HEADER_BYTES <= 512, "a header is written whole or not at all");

const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"RLWALSEG");
const FORMAT_VERSION: u32 = 1;

/// The folder of the log, below the disk's root.
pub const DIR: &str = "wal";

/// Name of the file in `slot`. Slots are places in the ring; their numbers say nothing about order.
pub fn name(slot: u64) -> String {
    format!("{DIR}/{slot:08}.seg")
}

/// The slot of a file in [`DIR`], `None` if it is no segment.
pub fn slot(file: &str) -> Option<u64> {
    let digits = file.strip_suffix(".seg")?;
    (digits.len() >= 8 && digits.bytes().all(|digit| digit.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// What a segment says about itself and about the log before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster's id.
    pub cluster: u64,
    /// The member's id.
    pub member: u64,
    /// The file's length.
    pub segment_bytes: u64,
    /// Place in the order of segments, from 1; 0 for a blank one.
    pub sequence: u64,
    /// Fresh for each opening of the log.
    pub salt: u64,
    /// Number of the first frame here.
    pub first_frame: u64,
    /// Chain of the last frame before.
    pub chain: u32,
    /// Last index of the log before this segment.
    pub last_index: u64,
    /// Highest frame known durable at the cut.
    pub durable_upto: u64,
    /// Entries up to this index are kept elsewhere.
    pub trimmed: u64,
    /// The hard state at the cut.
    pub hard_state: HardState,
}

/// What the first block of a segment file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// All zero: a creation that was cut short.
    Unborn,
    /// Ready for use, holds nothing.
    Blank(Header),
    /// Part of the log, now or once.
    Live(Header),
    /// Not zero, and not a header.
    Unreadable,
    /// A header of a version that this build does not know.
    Unknown(u32),
}

impl Header {
    /// What tells this segment's frames from all others.
    pub fn frame_salt(&self) -> u64 {
        salt_of(self.salt, self.sequence)
    }

    /// Writes the header at the start of `to`, a zeroed block.
    pub fn encode(&self, to: &mut [u8]) {
        put_u64(to, MAGIC, SEGMENT_MAGIC);
        put_u32(to, VERSION, FORMAT_VERSION);
        put_u32(to, CHAIN, self.chain);
        put_u64(to, CLUSTER, self.cluster);
        put_u64(to, MEMBER, self.member);
        put_u64(to, SEGMENT_BYTES, self.segment_bytes);
        put_u64(to, SEQUENCE, self.sequence);
        put_u64(to, SALT, self.salt);
        put_u64(to, FIRST_FRAME, self.first_frame);
        put_u64(to, LAST_INDEX, self.last_index);
        put_u64(to, DURABLE_UPTO, self.durable_upto);
        put_u64(to, TRIMMED, self.trimmed);
        put_u64(to, TERM, self.hard_state.term);
        put_u64(to, VOTE, self.hard_state.vote);
        put_u64(to, COMMIT, self.hard_state.commit);
        let crc = crc32fast::hash(&to[..CRC]);
        put_u32(to, CRC, crc);
    }

    fn read(from: &[u8]) -> Self {
        Self {
            cluster: get_u64(from, CLUSTER),
            member: get_u64(from, MEMBER),
            segment_bytes: get_u64(from, SEGMENT_BYTES),
            sequence: get_u64(from, SEQUENCE),
            salt: get_u64(from, SALT),
            first_frame: get_u64(from, FIRST_FRAME),
            chain: get_u32(from, CHAIN),
            last_index: get_u64(from, LAST_INDEX),
            durable_upto: get_u64(from, DURABLE_UPTO),
            trimmed: get_u64(from, TRIMMED),
            hard_state: HardState {
                term: get_u64(from, TERM),
                vote: get_u64(from, VOTE),
                commit: get_u64(from, COMMIT),
            },
        }
    }

    /// Refuses a log of another cluster or member.
    ///
    /// # Errors
    /// [`WalError::Foreign`], naming `file` and both ids.
    pub fn belongs_to(&self, cluster: u64, member: u64, file: &str) -> Result<(), WalError> {
        for (whose, expected, found) in
            [("cluster", cluster, self.cluster), ("member", member, self.member)]
        {
            if expected != found {
                return Err(WalError::Foreign { file: file.into(), whose, expected, found });
            }
        }
        Ok(())
    }
}

/// Reads a segment's first block. Never panics, whatever the bytes.
pub fn decode(block: &[u8]) -> Opening {
    if block.iter().all(|byte| *byte == 0) {
        return Opening::Unborn;
    }
    let Some(bytes) = block.get(..HEADER_BYTES) else { return Opening::Unreadable };
    if get_u64(bytes, MAGIC) != SEGMENT_MAGIC
        || crc32fast::hash(&bytes[..CRC]) != get_u32(bytes, CRC)
    {
        return Opening::Unreadable;
    }
    match (get_u32(bytes, VERSION), Header::read(bytes)) {
        (FORMAT_VERSION, header) if header.sequence == 0 => Opening::Blank(header),
        (FORMAT_VERSION, header) => Opening::Live(header),
        (version, _) => Opening::Unknown(version),
    }
}

/// Spreads the sequence over all bits (by the odd number next to 2^64 / φ), so that the salts of
/// neighbours are far apart.
fn salt_of(salt: u64, sequence: u64) -> u64 {
    salt ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            cluster: 1,
            member: 2,
            segment_bytes: 3,
            sequence: 4,
            salt: 5,
            first_frame: 6,
            chain: 7,
            last_index: 8,
            durable_upto: 9,
            trimmed: 10,
            hard_state: HardState { term: 11, vote: 12, commit: 13 },
        }
    }

    #[test]
    fn fields_lie_where_the_byte_map_says() {
        let mut block = [0; HEADER_BYTES];
        header().encode(&mut block);
        assert_eq!(&block[..8], b"RLWALSEG");
        assert_eq!([get_u32(&block, 8), get_u32(&block, 12)], [1, 7], "version, chain");
        let found: Vec<u64> = (16..CRC).step_by(8).map(|at| get_u64(&block, at)).collect();
        assert_eq!(found, [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13]);
        assert_eq!(get_u32(&block, 112), crc32fast::hash(&block[..112]));
        assert_eq!(decode(&block), Opening::Live(header()));
    }

    #[test]
    fn every_flipped_bit_makes_a_header_unreadable() {
        let mut block = [0; HEADER_BYTES];
        header().encode(&mut block);
        for bit in 0..HEADER_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&block), Opening::Unreadable, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_later_version_is_named_not_guessed_at() {
        let mut block = [0; HEADER_BYTES];
        header().encode(&mut block);
        put_u32(&mut block, VERSION, 9);
        let crc = crc32fast::hash(&block[..CRC]);
        put_u32(&mut block, CRC, crc);
        assert_eq!(decode(&block), Opening::Unknown(9));
    }

    #[test]
    fn only_our_names_have_slots() {
        assert_eq!(name(12), "wal/00000012.seg");
        assert_eq!(slot("00000012.seg"), Some(12));
        assert_eq!(slot("123456789.seg"), Some(123_456_789));
        for other in ["12.seg", "0000001x.seg", "00000012.wal", "", "+0000012.seg"] {
            assert_eq!(slot(other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            decode(&bytes);
        }
    }
}
