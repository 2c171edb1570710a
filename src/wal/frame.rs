//! One batch on disk; pure. Offsets in bytes, numbers little endian:
//!
//! ```text
//!   0  magic ^ salt   u64   which life of which segment this frame belongs to
//!   8  number         u64   frames count up from 1, without gaps, across segments
//!  16  payload bytes  u32   from byte 104 on; zeros follow up to a whole block
//!  20  entries        u32   records in the payload, 0 for a hard state alone
//!  24  durable upto   u64   highest frame known durable when this one was built
//!  32  trimmed        u64   entries up to this index are kept elsewhere
//!  40  first index    u64   of the entries, 0 without any
//!  48  last index     u64   of the entries, 0 without any
//!  56  term           u64   ┐
//!  64  vote           u64   ├ the hard state after this frame
//!  72  commit         u64   ┘
//!  80  payload crc    u32   of the payload
//!  84  header crc     u32   of bytes 0..84
//!  88  chain          u32   of header crc and payload crc, begun with the chain of the frame before
//!  92  reserved             12 zero bytes
//! 104  payload              records, see `record`
//! ```
//!
//! A frame begins on a block and takes whole blocks. Entries and hard state stand or fall together.
//!
//! **Why 32 bits are enough.** A checksum answers one question: did these bytes change since they
//! were written? CRC-32 finds every burst of up to 32 bits and misses one random change in four
//! thousand million. Which bytes belong here is answered by others: the 64-bit salt, fresh for each
//! life of a segment and unknown to clients, shuts out frames of an earlier life and look-alikes in
//! payloads; the number shuts out gaps and repeats; the chain shuts out a frame whose predecessor
//! was another one (for equal checksums, different chains stay different).
//!
//! The header lies inside the first 512 bytes, the unit a disk writes or does not write.

use super::{
    Batch, HardState, LogEntry,
    field::{get_u32, get_u64, put_u32, put_u64},
    record,
};
use crate::io::BLOCK_BYTES;
use bytes::Bytes;

const MAGIC: usize = 0;
const NUMBER: usize = MAGIC + size_of::<u64>();
const PAYLOAD_BYTES: usize = NUMBER + size_of::<u64>();
const ENTRIES: usize = PAYLOAD_BYTES + size_of::<u32>();
const DURABLE_UPTO: usize = ENTRIES + size_of::<u32>();
const TRIMMED: usize = DURABLE_UPTO + size_of::<u64>();
const FIRST_INDEX: usize = TRIMMED + size_of::<u64>();
const LAST_INDEX: usize = FIRST_INDEX + size_of::<u64>();
const TERM: usize = LAST_INDEX + size_of::<u64>();
const VOTE: usize = TERM + size_of::<u64>();
const COMMIT: usize = VOTE + size_of::<u64>();
const PAYLOAD_CRC: usize = COMMIT + size_of::<u64>();
const HEADER_CRC: usize = PAYLOAD_CRC + size_of::<u32>();
const CHAIN: usize = HEADER_CRC + size_of::<u32>();
const RESERVED: usize = CHAIN + size_of::<u32>();

/// Bytes before a frame's payload.
pub const FRAME_HEAD_BYTES: usize = RESERVED + 12;

const _: () = assert!(FRAME_HEAD_BYTES == 104, "the byte map above says so");
const _: () = assert!(FRAME_HEAD_BYTES <= 512, "a header is written whole or not at all");

/// "RLFRAME1": the first eight bytes of a frame under a salt of zero.
const FRAME_MAGIC: u64 = u64::from_le_bytes(*b"RLFRAME1");

/// So many wrong bits in the first eight bytes still look like our frame gone bad. Two random salts
/// agree this well once in thousands of millions of blocks.
const MAGIC_WRONG_BITS_MAX: u32 = 8;

/// Where a frame stands: what it needs besides its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The salt of the segment's life, [`super::segment::Header::frame_salt`].
    pub salt: u64,
    /// The frame's number.
    pub number: u64,
    /// The chain of the frame before.
    pub chain: u32,
    /// Highest frame known durable.
    pub durable_upto: u64,
    /// Entries up to this index are kept elsewhere.
    pub trimmed: u64,
}

/// A frame's header that verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The frame's number.
    pub number: u64,
    /// Bytes of payload.
    pub payload_bytes: u32,
    /// Records in the payload.
    pub entries: u32,
    /// Highest frame known durable when this one was built.
    pub durable_upto: u64,
    /// Entries up to this index were kept elsewhere when this frame was built.
    pub trimmed: u64,
    /// Index of the first entry, 0 without entries.
    pub first_index: u64,
    /// Index of the last entry, 0 without entries.
    pub last_index: u64,
    /// The hard state after this frame.
    pub hard_state: HardState,
    payload_crc: u32,
    header_crc: u32,
    chain: u32,
}

/// What a block of a segment begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing of this life of the segment: zeros, an earlier life, the inside of a frame.
    Nothing,
    /// A frame of this life that does not verify: torn, or rotten. With its header if that does.
    Broken(Option<Head>),
    /// A frame that verifies by itself; whether it belongs here its number and chain decide.
    /// Entries are left out when all are at or below the index asked for.
    Intact(Head, Vec<LogEntry>),
}

/// Bytes of the frame that holds `batch`, a multiple of [`BLOCK_BYTES`].
pub fn frame_bytes(batch: &Batch) -> usize {
    let payload: usize = batch.entries.iter().map(record::encoded_bytes).sum();
    (FRAME_HEAD_BYTES + payload).next_multiple_of(BLOCK_BYTES)
}

/// Writes the frame of `batch` into `to`, which is zeroed and [`frame_bytes`] long; returns the
/// frame's chain. The batch's entries are contiguous and the frame shorter than a segment.
pub fn encode(batch: &Batch, place: &Place, to: &mut [u8]) -> u32 {
    let mut end = FRAME_HEAD_BYTES;
    for entry in &batch.entries {
        end += record::encode(entry, &mut to[end..]);
    }
    let payload_crc = crc32fast::hash(&to[FRAME_HEAD_BYTES..end]);
    let payload_bytes = end - FRAME_HEAD_BYTES;

    put_u64(to, MAGIC, FRAME_MAGIC ^ place.salt);
    put_u64(to, NUMBER, place.number);
    put_u32(to, PAYLOAD_BYTES, u32::try_from(payload_bytes).expect("shorter than a segment"));
    put_u32(to, ENTRIES, u32::try_from(batch.entries.len()).expect("fewer than bytes"));
    put_u64(to, DURABLE_UPTO, place.durable_upto);
    put_u64(to, TRIMMED, place.trimmed);
    put_u64(to, FIRST_INDEX, batch.entries.first().map_or(0, |entry| entry.index));
    put_u64(to, LAST_INDEX, batch.entries.last().map_or(0, |entry| entry.index));
    put_u64(to, TERM, batch.hard_state.term);
    put_u64(to, VOTE, batch.hard_state.vote);
    put_u64(to, COMMIT, batch.hard_state.commit);
    put_u32(to, PAYLOAD_CRC, payload_crc);
    let header_crc = crc32fast::hash(&to[..HEADER_CRC]);
    put_u32(to, HEADER_CRC, header_crc);
    let chain = link(place.chain, header_crc, payload_crc);
    put_u32(to, CHAIN, chain);
    chain
}

/// Reads the frame at the start of `from`, the rest of a segment whose salt is `salt`. Entries are
/// returned when any is above `after`. Never panics, whatever the bytes.
pub fn decode(from: &[u8], salt: u64, after: u64) -> Seen {
    let Some(head_bytes) = from.get(..FRAME_HEAD_BYTES) else { return Seen::Nothing };
    let wrong_bits = (get_u64(head_bytes, MAGIC) ^ FRAME_MAGIC ^ salt).count_ones();
    if wrong_bits > MAGIC_WRONG_BITS_MAX {
        return Seen::Nothing;
    }
    let header_crc = get_u32(head_bytes, HEADER_CRC);
    if wrong_bits > 0 || crc32fast::hash(&head_bytes[..HEADER_CRC]) != header_crc {
        return Seen::Broken(None);
    }
    let head = Head::read(head_bytes);
    let payload = from[FRAME_HEAD_BYTES..].get(..head.payload_bytes as usize);
    match payload.filter(|payload| crc32fast::hash(payload) == head.payload_crc) {
        None => Seen::Broken(Some(head)),
        Some(_) if head.last_index <= after => Seen::Intact(head, Vec::new()),
        Some(payload) => match head.read_entries(payload) {
            None => Seen::Broken(Some(head)),
            Some(entries) => Seen::Intact(head, entries),
        },
    }
}

/// The frame at the start of `from` and the salt it was written under, whichever that is; `None` if
/// there is none, or its header does not verify. Only to be asked of a place where nothing but a frame
/// can begin.
pub fn under_its_own_salt(from: &[u8]) -> Option<(u64, Head)> {
    let salt = get_u64(from.get(..FRAME_HEAD_BYTES)?, MAGIC) ^ FRAME_MAGIC;
    match decode(from, salt, u64::MAX) {
        Seen::Intact(head, _) | Seen::Broken(Some(head)) => Some((salt, head)),
        Seen::Broken(None) | Seen::Nothing => None,
    }
}

/// Every frame of the life `salt` in a segment's bytes, with its offset, in order. Entries are
/// returned as by [`decode`]. Never panics, whatever the bytes.
pub fn scan(segment: &[u8], salt: u64, after: u64) -> Vec<(u64, Seen)> {
    let mut scan = Scan::new(salt, after);
    scan.take(segment.get(BLOCK_BYTES..).unwrap_or_default(), true);
    scan.found
}

/// [`scan`], a piece of the segment at a time.
pub struct Scan {
    salt: u64,
    after: u64,
    at: u64,
    found: Vec<(u64, Seen)>,
}

impl Scan {
    /// Before the first frame.
    pub fn new(salt: u64, after: u64) -> Self {
        Self { salt, after, at: BLOCK_BYTES as u64, found: Vec::new() }
    }

    /// The byte of the segment where the next piece begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Takes the next piece, `last` if the segment ends with it. Returns how many bytes the one behind
    /// it must have at least, so that the frame that it begins with is whole.
    pub fn take(&mut self, piece: &[u8], last: bool) -> usize {
        let mut rest = piece;
        while !rest.is_empty() {
            let seen = decode(rest, self.salt, self.after);
            let step = match &seen {
                Seen::Intact(head, _) | Seen::Broken(Some(head)) => head.frame_bytes(),
                Seen::Broken(None) | Seen::Nothing => BLOCK_BYTES,
            };
            if step > rest.len() && !last {
                return step;
            }
            if seen != Seen::Nothing {
                self.found.push((self.at, seen));
            }
            self.at += step as u64;
            rest = rest.get(step..).unwrap_or_default();
        }
        0
    }

    /// The newest frame, where it is whole.
    pub fn newest(&self) -> Option<&Head> {
        match self.found.last() {
            Some((_, Seen::Intact(head, _))) => Some(head),
            _ => None,
        }
    }

    /// All frames, with their offsets.
    pub fn found(self) -> Vec<(u64, Seen)> {
        self.found
    }
}

/// Chain of a frame with these checksums behind a frame with chain `before`.
fn link(before: u32, header_crc: u32, payload_crc: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(&header_crc.to_le_bytes());
    hasher.update(&payload_crc.to_le_bytes());
    hasher.finalize()
}

impl Head {
    fn read(from: &[u8]) -> Self {
        Self {
            number: get_u64(from, NUMBER),
            payload_bytes: get_u32(from, PAYLOAD_BYTES),
            entries: get_u32(from, ENTRIES),
            durable_upto: get_u64(from, DURABLE_UPTO),
            trimmed: get_u64(from, TRIMMED),
            first_index: get_u64(from, FIRST_INDEX),
            last_index: get_u64(from, LAST_INDEX),
            hard_state: HardState {
                term: get_u64(from, TERM),
                vote: get_u64(from, VOTE),
                commit: get_u64(from, COMMIT),
            },
            payload_crc: get_u32(from, PAYLOAD_CRC),
            header_crc: get_u32(from, HEADER_CRC),
            chain: get_u32(from, CHAIN),
        }
    }

    /// The frame's chain, as stored.
    pub fn chain(&self) -> u32 {
        self.chain
    }

    /// Whether this frame was written behind one whose chain is `before`.
    pub fn follows(&self, before: u32) -> bool {
        self.chain == link(before, self.header_crc, self.payload_crc)
    }

    /// Bytes of the whole frame, a multiple of [`BLOCK_BYTES`].
    pub fn frame_bytes(&self) -> usize {
        (FRAME_HEAD_BYTES + self.payload_bytes as usize).next_multiple_of(BLOCK_BYTES)
    }

    /// The payload's records, `None` if they are not what the header announces. The entries share
    /// one copy of the payload.
    fn read_entries(&self, payload: &[u8]) -> Option<Vec<LogEntry>> {
        let payload = Bytes::copy_from_slice(payload);
        let mut rest: &[u8] = &payload;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (found, behind) = record::decode(rest)?;
            let expected = self.first_index.checked_add(entries.len() as u64)?;
            if found.index != expected {
                return None;
            }
            entries.push(LogEntry {
                index: found.index,
                term: found.term,
                kind: found.kind,
                data: payload.slice_ref(found.data),
            });
            rest = behind;
        }
        let last = entries.last().map_or(0, |entry| entry.index);
        (last == self.last_index && entries.len() == self.entries as usize).then_some(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place = Place { salt: 7, number: 3, chain: 9, durable_upto: 2, trimmed: 0 };

    fn batch(sizes: &[usize]) -> Batch {
        let entry = |(at, size): (usize, &usize)| LogEntry {
            index: 5 + at as u64,
            term: 2,
            kind: at as u8,
            data: Bytes::from(vec![at as u8 ^ 0x5a; *size]),
        };
        Batch {
            entries: sizes.iter().enumerate().map(entry).collect(),
            hard_state: HardState { term: 2, vote: 1, commit: 4 },
        }
    }

    fn encoded(batch: &Batch, place: &Place) -> Vec<u8> {
        let mut bytes = vec![0; frame_bytes(batch)];
        encode(batch, place, &mut bytes);
        bytes
    }

    #[test]
    fn fields_lie_where_the_byte_map_says() {
        let bytes = encoded(&batch(&[3]), &PLACE);
        assert_eq!(get_u64(&bytes, 0), FRAME_MAGIC ^ 7);
        assert_eq!(get_u64(&bytes, 8), 3, "number");
        assert_eq!(get_u32(&bytes, 16), 24, "payload bytes: a head of 21 and the data");
        assert_eq!(get_u32(&bytes, 20), 1, "entries");
        assert_eq!(get_u64(&bytes, 24), 2, "durable upto");
        assert_eq!(get_u64(&bytes, 32), 0, "trimmed");
        assert_eq!([get_u64(&bytes, 40), get_u64(&bytes, 48)], [5, 5], "first and last index");
        assert_eq!([56, 64, 72].map(|at| get_u64(&bytes, at)), [2, 1, 4], "hard state");
        assert_eq!(get_u32(&bytes, 80), crc32fast::hash(&bytes[104..128]), "payload crc");
        assert_eq!(get_u32(&bytes, 84), crc32fast::hash(&bytes[..84]), "header crc");
        assert_eq!(get_u64(&bytes, 104), 5, "the record's index");
        assert_eq!(get_u64(&bytes, 112), 2, "the record's term");
        assert_eq!(get_u32(&bytes, 120), 3, "the record's data bytes");
        assert_eq!(bytes[124], 0, "the record's kind");
        assert_eq!(&bytes[125..128], &[0x5a; 3], "the record's data");
    }

    #[test]
    fn a_frame_follows_only_the_chain_it_was_written_behind() {
        let Seen::Intact(head, _) = decode(&encoded(&batch(&[1]), &PLACE), 7, 0) else { panic!() };
        assert!(head.follows(9));
        assert!((0..9).chain(10..1000).all(|other| !head.follows(other)));
    }

    #[test]
    fn a_frame_of_another_life_is_nothing_here() {
        assert_eq!(decode(&encoded(&batch(&[1]), &PLACE), !7, 0), Seen::Nothing);
    }

    #[test]
    fn every_flipped_bit_that_means_something_breaks_the_frame() {
        let original = batch(&[10, 0, 30]);
        let intact = encoded(&original, &PLACE);
        let end =
            FRAME_HEAD_BYTES + original.entries.iter().map(record::encoded_bytes).sum::<usize>();
        for bit in (0..RESERVED * 8).chain(FRAME_HEAD_BYTES * 8..end * 8) {
            let mut bytes = intact.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match decode(&bytes, PLACE.salt, 0) {
                Seen::Intact(head, _) => assert!(!head.follows(PLACE.chain), "bit {bit}"),
                seen => assert_ne!(seen, Seen::Nothing, "bit {bit} must look like our frame"),
            }
        }
    }

    proptest! {
        #[test]
        fn a_scan_in_pieces_finds_what_a_whole_one_does(
            frames in prop::collection::vec((0usize..9000, any::<bool>()), 0..12),
            piece_blocks in prop::collection::vec(1usize..4, 1..5),
        ) {
            let mut segment = vec![0; BLOCK_BYTES];
            for (at, (size, torn)) in frames.into_iter().enumerate() {
                let mut bytes = encoded(&batch(&[size]), &Place { number: at as u64, ..PLACE });
                if torn {
                    bytes[FRAME_HEAD_BYTES] ^= 1;
                }
                segment.extend(bytes);
                segment.resize(segment.len() + at % 3 * BLOCK_BYTES, 0);
            }
            let mut scanning = Scan::new(PLACE.salt, 0);
            let mut least = 0;
            for blocks in piece_blocks.iter().cycle() {
                let at = scanning.at() as usize;
                if at >= segment.len() {
                    break;
                }
                let end = (at + least.max(blocks * BLOCK_BYTES)).min(segment.len());
                least = scanning.take(&segment[at..end], end == segment.len());
            }
            prop_assert_eq!(scanning.found(), scan(&segment, PLACE.salt, 0));
        }

        #[test]
        fn what_was_encoded_is_decoded(
            sizes in prop::collection::vec(0usize..9000, 0..5),
            salt: u64,
            chain: u32,
        ) {
            let (batch, place) = (batch(&sizes), Place { salt, chain, ..PLACE });
            let mut bytes = encoded(&batch, &place);
            bytes.extend([0xee; 40]);
            let Seen::Intact(head, entries) = decode(&bytes, salt, 0) else { panic!() };
            prop_assert!(head.follows(chain));
            prop_assert_eq!(head.frame_bytes(), frame_bytes(&batch));
            prop_assert_eq!(head.hard_state, batch.hard_state);
            prop_assert_eq!(entries, batch.entries);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..3 * BLOCK_BYTES),
            lie in prop::collection::vec(any::<u8>(), FRAME_HEAD_BYTES),
        ) {
            scan(&bytes, 1, 0);
            // A header with valid checksums around any lengths at all.
            bytes.resize(3 * BLOCK_BYTES, 0);
            let frame = &mut bytes[BLOCK_BYTES..];
            frame[..FRAME_HEAD_BYTES].copy_from_slice(&lie);
            put_u64(frame, MAGIC, FRAME_MAGIC ^ 1);
            let payload_bytes = get_u32(frame, PAYLOAD_BYTES) as usize % BLOCK_BYTES;
            put_u32(frame, PAYLOAD_BYTES, payload_bytes as u32);
            let payload_crc = crc32fast::hash(&frame[FRAME_HEAD_BYTES..][..payload_bytes]);
            put_u32(frame, PAYLOAD_CRC, payload_crc);
            let header_crc = crc32fast::hash(&frame[..HEADER_CRC]);
            put_u32(frame, HEADER_CRC, header_crc);
            prop_assert_eq!(scan(&bytes, 1, 0).len(), 1);
        }
    }
}
