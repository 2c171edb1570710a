//! What the log reads back from its segments.

use super::{
    memory::bounded,
    mutate::{Dice, fuzz},
};
use bytes::Bytes;
use ringleader::{
    io::BLOCK_BYTES,
    wal::{
        Batch, HardState, LogEntry,
        frame::{self, Place, Seen},
        record,
        segment::{self, Header, Opening},
    },
};

/// Where a frame keeps its checksums and its payload (the byte map in `wal::frame`).
const PAYLOAD_CRC: usize = 80;
const HEADER_CRC: usize = 84;
const SALT: u64 = 0x5eed;

fn hard_state(dice: &mut Dice) -> HardState {
    HardState { term: dice.number(), vote: dice.number(), commit: dice.number() }
}

fn batch(dice: &mut Dice) -> Batch {
    let first = 1 + dice.roll() % 1000;
    let entry = |(index, dice): (u64, &mut Dice)| LogEntry {
        index,
        term: dice.number(),
        kind: dice.roll() as u8,
        data: Bytes::from(dice.bytes(300)),
    };
    let mut entries = Vec::new();
    for index in first..first + dice.below(4) as u64 {
        entries.push(entry((index, dice)));
    }
    Batch { entries, hard_state: hard_state(dice) }
}

fn place(dice: &mut Dice, number: u64, chain: u32) -> Place {
    Place { salt: SALT, number, chain, durable_upto: dice.number(), trimmed: dice.number() }
}

fn encoded(batch: &Batch, place: &Place) -> Vec<u8> {
    let mut bytes = vec![0; frame::frame_bytes(batch)];
    frame::encode(batch, place, &mut bytes);
    bytes
}

/// Makes the checksums fit again, so that what lies behind them is reached.
fn sign(bytes: &mut [u8]) {
    let Some(payload_bytes) = bytes.get(16..20) else { return };
    let payload_bytes = u32::from_le_bytes(payload_bytes.try_into().expect("four bytes")) as usize;
    let payload = bytes.get(frame::FRAME_HEAD_BYTES..).and_then(|rest| rest.get(..payload_bytes));
    let Some(crc) = payload.map(crc32fast::hash) else { return };
    bytes[PAYLOAD_CRC..HEADER_CRC].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..HEADER_CRC]);
    bytes[HEADER_CRC..HEADER_CRC + 4].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn frames() {
    fuzz("wal frame", |dice| {
        let batch = batch(dice);
        let place = place(dice, 1, 7);
        let mut bytes = encoded(&batch, &place);
        match frame::decode(&bytes, SALT, 0) {
            Seen::Intact(head, entries) => {
                assert_eq!((entries, head.hard_state), (batch.entries, batch.hard_state));
                assert_eq!((head.number, head.trimmed), (place.number, place.trimmed));
                assert!(head.follows(7) && !head.follows(8));
            }
            other => panic!("a frame reads back: {other:?}"),
        }
        dice.spoil(&mut bytes);
        if dice.once_in(2) {
            sign(&mut bytes);
        }
        let after = dice.number();
        let seen = bounded(bytes.len(), 8, || frame::decode(&bytes, SALT, after));
        if let Seen::Intact(head, entries) = seen {
            assert!(head.frame_bytes() <= bytes.len().next_multiple_of(BLOCK_BYTES));
            let again = Batch { entries, hard_state: head.hard_state };
            if head.last_index > after && head.last_index > 0 {
                let place = Place { number: head.number, ..place };
                let Seen::Intact(_, entries) = frame::decode(&encoded(&again, &place), SALT, 0)
                else {
                    panic!("what was taken can be written")
                };
                assert_eq!(entries, again.entries);
            }
        }
    });
}

#[test]
fn whole_segments() {
    fuzz("wal segment", |dice| {
        let mut bytes = vec![0; BLOCK_BYTES];
        let mut chain = 0;
        for number in 1..2 + dice.below(4) as u64 {
            let (batch, place) = (batch(dice), place(dice, number, chain));
            let mut frame = vec![0; frame::frame_bytes(&batch)];
            chain = frame::encode(&batch, &place, &mut frame);
            bytes.extend(frame);
        }
        dice.spoil(&mut bytes);
        let found = bounded(bytes.len(), 16, || frame::scan(&bytes, SALT, 0));
        assert!(found.len() <= bytes.len() / BLOCK_BYTES + 1);
        assert!(found.iter().is_sorted_by(|(a, _), (b, _)| a < b));
    });
}

#[test]
fn records() {
    fuzz("wal record", |dice| {
        let entries = batch(dice).entries;
        let mut bytes = Vec::new();
        for entry in &entries {
            let start = bytes.len();
            bytes.resize(start + record::encoded_bytes(entry), 0);
            assert_eq!(record::encode(entry, &mut bytes[start..]), bytes.len() - start);
        }
        let mut rest: &[u8] = &bytes;
        for entry in &entries {
            let (read, behind) = record::decode(rest).expect("it was just written");
            assert_eq!((read.index, read.term, read.kind), (entry.index, entry.term, entry.kind));
            assert_eq!(read.data, entry.data);
            rest = behind;
        }
        dice.spoil(&mut bytes);
        let mut rest: &[u8] = &bytes;
        while let Some((_, behind)) = bounded(0, 0, || record::decode(rest)) {
            assert!(behind.len() < rest.len(), "it goes on");
            rest = behind;
        }
    });
}

#[test]
fn segment_headers() {
    fuzz("wal segment header", |dice| {
        let header = Header {
            cluster: dice.number(),
            member: dice.number(),
            segment_bytes: dice.number(),
            sequence: dice.number().max(1),
            salt: dice.number(),
            first_frame: dice.number(),
            chain: dice.roll() as u32,
            last_index: dice.number(),
            durable_upto: dice.number(),
            trimmed: dice.number(),
            hard_state: hard_state(dice),
        };
        let mut block = vec![0; BLOCK_BYTES];
        header.encode(&mut block);
        assert_eq!(segment::decode(&block), Opening::Live(header));
        dice.spoil(&mut block);
        let resign = segment::HEADER_BYTES - 4..segment::HEADER_BYTES;
        if dice.once_in(2) && block.len() >= resign.end {
            let crc = crc32fast::hash(&block[..resign.start]);
            block[resign].copy_from_slice(&crc.to_le_bytes());
        }
        match bounded(0, 0, || segment::decode(&block)) {
            Opening::Live(read) | Opening::Blank(read) => {
                let mut again = vec![0; BLOCK_BYTES];
                read.encode(&mut again);
                assert_eq!(again[..segment::HEADER_BYTES], block[..segment::HEADER_BYTES]);
            }
            Opening::Unborn | Opening::Unreadable | Opening::Unknown(_) => {}
        }
    });
}

#[test]
fn segment_names() {
    fuzz("wal segment name", |dice| {
        let number = dice.number();
        let name = segment::name(number);
        let file = name.strip_prefix("wal/").expect("it lies in its folder");
        assert_eq!(segment::slot(file), Some(number));
        let mut bytes = file.as_bytes().to_vec();
        dice.spoil(&mut bytes);
        let spoiled = String::from_utf8_lossy(&bytes);
        if let Some(slot) = segment::slot(&spoiled) {
            assert_eq!(segment::slot(segment::name(slot).trim_start_matches("wal/")), Some(slot));
        }
    });
}
