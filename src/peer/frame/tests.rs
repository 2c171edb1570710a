//! Bytes written down from etcd's format, round trips, and spoiled streams.

use super::*;
use crate::{
    consensus::KINDS,
    fuzz::{Dice, fuzz},
};

const US: MemberId = MemberId(0xa);
const THEM: MemberId = MemberId(0xb);

fn append(term: u64, log_term: u64, index: u64, entries: &[&str], commit: u64) -> Message {
    let entry = |(at, data): (u64, &&str)| Entry {
        index: Index(index + at),
        term: Term(term),
        kind: 0,
        data: Bytes::copy_from_slice(data.as_bytes()),
    };
    Message {
        term: Term(term),
        log_term: Term(log_term),
        index: Index(index),
        entries: (1..).zip(entries).map(entry).collect(),
        commit: Index(commit),
        ..Message::new(Kind::Append, THEM, US)
    }
}

fn written(lane: Lane, messages: &[Message]) -> Vec<u8> {
    let (mut writer, mut out) = (Writer::new(lane), Vec::new());
    messages.iter().for_each(|message| writer.write(message, &mut out));
    out
}

fn read(lane: Lane, bytes: &[u8], step: usize) -> (Vec<Heard>, Option<Fault>) {
    let (mut reader, mut input) = (Reader::new(lane, THEM, US), BytesMut::new());
    let mut all = Vec::new();
    for piece in bytes.chunks(step) {
        input.extend_from_slice(piece);
        loop {
            match reader.next(&mut input) {
                Ok(Some(heard)) => all.push(heard),
                Ok(None) => break,
                Err(fault) => return (all, Some(fault)),
            }
        }
    }
    (all, None)
}

fn heard(messages: &[Message]) -> Vec<Heard> {
    messages.iter().map(|message| Heard::Message(Box::new(message.clone()))).collect()
}

#[test]
fn an_append_is_etcds_bytes() {
    let mut out = Vec::new();
    encode(&append(2, 1, 0, &["x"], 0), &mut out);
    // type, to, from, term, logTerm, index 0, one entry (term 2, index 1, data), commit 0
    let expected = b"\x08\x03\x10\x0a\x18\x0b\x20\x02\x28\x01\x30\x00\x3a\x07\x10\x02\x18\x01\x22\x01x\x40\x00";
    assert_eq!(out, expected);
}

#[test]
fn a_stream_of_messages_is_lengths_and_messages() {
    let vote = Message {
        term: Term(3),
        log_term: Term(2),
        index: Index(9),
        ..Message::new(Kind::Vote, THEM, US)
    };
    let bytes = written(Lane::Message, &[vote]);
    assert_eq!(bytes[..8], 12_u64.to_be_bytes());
    assert_eq!(&bytes[8..], b"\x08\x05\x10\x0a\x18\x0b\x20\x03\x28\x02\x30\x09");
    let mut beat = Vec::new();
    Writer::new(Lane::Message).write_link_heartbeat(&mut beat);
    assert_eq!(beat, b"\0\0\0\0\0\0\0\x02\x08\x08");
    assert_eq!(read(Lane::Message, &beat, 3), (vec![Heard::LinkHeartbeat], None));
}

#[test]
fn an_append_that_follows_from_the_last_says_only_what_is_new() {
    let messages = [
        append(5, 4, 10, &["a"], 9),
        append(5, 5, 11, &["bc", ""], 11),
        append(5, 5, 13, &[], 13),
        append(6, 5, 13, &["d"], 13),
    ];
    let bytes = written(Lane::Append, &messages);
    let whole = 1 + 8 + wire(&messages[0]).encoded_len();
    assert_eq!((bytes[0], bytes[whole]), (2, 1));
    let second = b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x08\x10\x05\x18\x0c\x22\x02bc\0\0\0\0\0\0\0\x04\x10\x05\x18\x0d\0\0\0\0\0\0\0\x0b";
    assert_eq!(bytes[whole..whole + second.len()], second[..]);
    let third = whole + second.len();
    assert_eq!(bytes[third..third + 17], *b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0d");
    assert_eq!(bytes[third + 17], 2, "a new term is said whole");
    for step in [1, 7, bytes.len()] {
        assert_eq!(read(Lane::Append, &bytes, step), (heard(&messages), None), "{step}");
    }
}

#[test]
fn what_only_a_member_tells_itself_is_refused() {
    for number in [0, 1, 10, 11, 12, 19, -1, i32::MAX] {
        let wire = pb::Message { r#type: Some(number), term: Some(1), ..Default::default() };
        assert_eq!(decode(wire.encode_to_vec().into()), Err(Fault::Kind(number)));
    }
    let without = pb::Message { from: Some(1), r#type: Some(3), ..Default::default() };
    assert_eq!(decode(without.encode_to_vec().into()), Err(Fault::NoTerm));
    let entry = pb::Entry { r#type: Some(3), ..Default::default() };
    let odd = pb::Message { r#type: Some(2), entries: vec![entry], ..Default::default() };
    assert_eq!(decode(odd.encode_to_vec().into()), Err(Fault::EntryKind(3)));
    let mut gap = append(2, 1, 4, &["a", "b"], 0);
    gap.entries[1].index = Index(7);
    assert_eq!(decode(wire(&gap).encode_to_vec().into()), Err(Fault::Gap));
}

#[test]
fn lengths_are_bounded_before_anything_is_kept() {
    let huge = u64::MAX.to_be_bytes();
    assert_eq!(read(Lane::Message, &huge, 8), (vec![], Some(Fault::Bytes(u64::MAX))));
    let mut many = written(Lane::Append, &[append(5, 4, 10, &["a"], 9)]);
    many.push(1);
    many.extend_from_slice(&huge);
    assert_eq!(read(Lane::Append, &many, 8).1, Some(Fault::Entries(u64::MAX)));
    assert_eq!(read(Lane::Append, b"\x01", 1), (vec![], Some(Fault::NoTerm)));
    assert_eq!(read(Lane::Append, b"\x07", 1), (vec![], Some(Fault::Type(7))));
}

fn any_entry(dice: &mut Dice, index: u64) -> Entry {
    Entry {
        index: Index(index),
        term: Term(dice.number()),
        kind: dice.below(3) as u8,
        data: dice.bytes(40).into(),
    }
}

fn any_message(dice: &mut Dice, kind: Kind) -> Message {
    let index = dice.number() >> 1;
    let count = dice.below(4) as u64;
    let members = |dice: &mut Dice| (0..dice.below(4)).map(|_| MemberId(dice.number())).collect();
    Message {
        kind,
        to: MemberId(dice.number().max(1)),
        from: MemberId(dice.number()),
        term: Term(dice.number().max(1)),
        log_term: Term(dice.number()),
        index: Index(index),
        entries: (1..=count).map(|at| any_entry(dice, index + at)).collect(),
        commit: Index(dice.number()),
        snapshot: dice.once_in(3).then(|| SnapshotMark {
            index: Index(dice.number()),
            term: Term(dice.number()),
            configuration: Configuration { voters: members(dice), learners: members(dice) },
        }),
        reject: dice.once_in(2),
        reject_hint: Index(dice.number()),
        context: dice.bytes(20).into(),
    }
}

#[test]
fn messages_come_back_as_they_were() {
    fuzz("peer message", |dice| {
        let kind = *dice.pick(&KINDS);
        let message = any_message(dice, kind);
        let mut bytes = Vec::new();
        encode(&message, &mut bytes);
        assert_eq!(decode(bytes.clone().into()), Ok(Heard::Message(Box::new(message))));
        dice.spoil(&mut bytes);
        if let Ok(Heard::Message(other)) = decode(bytes.into()) {
            let mut again = Vec::new();
            encode(&other, &mut again);
            assert_eq!(decode(again.into()), Ok(Heard::Message(other)));
        }
    });
}

/// Appends as a leader sends them: mostly one after the other, now and then from somewhere else.
fn any_appends(dice: &mut Dice) -> Vec<Message> {
    let (mut term, mut index) = (1 + dice.roll() % 5, dice.roll() % 50);
    let next = |_| {
        let log_term = if dice.once_in(4) { dice.roll() % 5 } else { term };
        term += u64::from(dice.once_in(6));
        index = if dice.once_in(6) { dice.roll() % 50 } else { index };
        let count = dice.below(3) as u64;
        let entries: Vec<_> = (1..=count).map(|at| any_entry(dice, index + at)).collect();
        let message = Message {
            term: Term(term),
            log_term: Term(log_term),
            index: Index(index),
            entries,
            commit: Index(dice.number()),
            ..Message::new(Kind::Append, THEM, US)
        };
        index += count;
        message
    };
    (0..8).map(next).collect()
}

#[test]
fn streams_say_the_same_however_they_are_cut_and_never_more_when_spoiled() {
    fuzz("peer stream", |dice| {
        let (lane, messages) = match dice.once_in(2) {
            true => (Lane::Append, any_appends(dice)),
            false => {
                let kind = *dice.pick(&KINDS);
                (Lane::Message, (0..4).map(|_| any_message(dice, kind)).collect())
            }
        };
        let mut bytes = written(lane, &messages);
        assert_eq!(read(lane, &bytes, 1 + dice.below(30)), (heard(&messages), None));
        dice.spoil(&mut bytes);
        let step = 1 + dice.below(30);
        let (spoiled, fault) = read(lane, &bytes, step);
        assert_eq!(
            read(lane, &bytes, bytes.len().max(1)),
            (spoiled, fault),
            "cutting changes nothing"
        );
    });
}
