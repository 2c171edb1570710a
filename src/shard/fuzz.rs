//! What sockets bring, spoiled from a seed: gRPC's frames, and whole HTTP/2 connections, whose own
//! tests draw them frame by frame (`http2/tests/random.rs`).

use super::{
    Place,
    grpc::{self, PREFIX_BYTES},
    http2::{
        Inbound,
        connection::{Connection, Intake, Rules},
        frame::{self, PREFACE, flag, kind},
    },
};
use crate::{
    fuzz::{Dice, fuzz},
    limits::HTTP2_OUT_BYTES_MAX,
};
use bytes::BytesMut;
use std::{collections::BTreeMap, rc::Rc, time::Duration};

const UNARY: &str = "/etcdserverpb.KV/Put";
const STREAM: &str = "/etcdserverpb.Watch/Watch";

#[test]
fn grpc_frames() {
    fuzz("grpc frame", |dice| {
        let message = dice.bytes(100);
        let mut body = vec![0];
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(&message);
        assert_eq!(grpc::unary(&body, 100), Ok(PREFIX_BYTES..body.len()));
        dice.spoil(&mut body);
        if let Ok(range) = grpc::unary(&body, 100) {
            assert_eq!((range.start, range.end, body[0]), (PREFIX_BYTES, body.len(), 0));
            assert!(range.len() <= 100, "nothing larger than allowed is taken");
        }
        if let Ok(Some(len)) = grpc::message_len(&body, 100) {
            assert!(len <= 100);
        }
    });
}

#[test]
fn status_messages() {
    fuzz("grpc-message", |dice| {
        let text = String::from_utf8_lossy(&dice.bytes(60)).into_owned();
        let encoded = grpc::encode_message(&text);
        assert!(encoded.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "a header can carry it");
        assert_eq!(percent_decoded(&encoded), text.as_bytes());
    });
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut pieces = text.split('%');
    let mut out = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        out.push(u8::from_str_radix(&piece[..2], 16).expect("two digits follow"));
        out.extend_from_slice(&piece.as_bytes()[2..]);
    }
    out
}

/// The header fields of a call: from the static table, into the dynamic one, or in Huffman code.
fn fields(dice: &mut Dice, path: &str) -> Vec<u8> {
    let named = [
        (":path", path),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-y", "z"),
    ];
    let mut block = vec![0x83, 0x86];
    for (name, value) in named {
        block.push(*dice.pick(&[0x40, 0, 0x10]));
        for text in [name, value] {
            let huffman = dice.once_in(2);
            let coded = match huffman {
                true => super::http2::huffman::encode(text.as_bytes()),
                false => text.as_bytes().to_vec(),
            };
            block.push(coded.len() as u8 | if huffman { 0x80 } else { 0 });
            block.extend(coded);
        }
    }
    block
}

/// A call: its path, and the lengths of its messages.
type Said = (&'static str, Vec<usize>);

/// What a client may say: a greeting, then calls, in frames of any size.
fn conversation(dice: &mut Dice) -> (Vec<u8>, Vec<Said>) {
    let mut said = PREFACE.to_vec();
    frame::put_settings(&mut said, &[]);
    let mut calls = Vec::new();
    for nth in 0..dice.below(5) as u32 {
        let stream = 2 * nth + 1;
        let (path, messages) = match dice.once_in(2) {
            true => (UNARY, 1),
            false => (STREAM, dice.below(5)),
        };
        let lens: Vec<_> = (0..messages).map(|_| dice.below(80)).collect();
        frame::put_headers(&mut said, stream, &fields(dice, path), false, 40 + dice.below(60));
        let body: Vec<u8> = lens.iter().flat_map(|len| framed(*len)).collect();
        for part in body.chunks(1 + dice.below(100)) {
            frame::put_head(&mut said, part.len(), kind::DATA, 0, stream);
            said.extend_from_slice(part);
        }
        frame::put_head(&mut said, 0, kind::DATA, flag::END_STREAM, stream);
        if dice.once_in(3) {
            frame::put_word(&mut said, kind::WINDOW_UPDATE, 0, 1 + dice.below(1000) as u32);
        }
        calls.push((path, lens));
    }
    (said, calls)
}

fn framed(len: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(len as u32).to_be_bytes());
    message.resize(PREFIX_BYTES + len, b'm');
    message
}

/// What a server has heard.
#[derive(Default, PartialEq, Debug)]
struct Heard {
    /// Messages of unary requests, in order, framed.
    unary: Vec<Vec<u8>>,
    /// Messages of each call whose request is a stream, in order, and what stands behind them.
    calls: BTreeMap<u32, (Vec<Vec<u8>>, Option<Inbound>)>,
}

impl Heard {
    fn take(&mut self, connection: &mut Connection) {
        for (stream, (messages, end)) in &mut self.calls {
            *end = loop {
                match connection.take(*stream) {
                    Inbound::Message(message) => messages.push(message.to_vec()),
                    end => break Some(end),
                }
            };
        }
    }
}

/// What is heard, and whether the client kept to the rules. Messages are taken as they come, or all
/// at the end.
///
/// Answers wait for the end: what a late frame means depends on whether its stream was answered. A
/// body that holds no message is left out: one that comes in parts is refused before it is whole.
fn hear(said: &[u8], step: usize, at_once: bool) -> (Heard, bool) {
    let takes_stream = |path: &str| path == STREAM;
    let rules = Rules { concurrent_streams_max: 10, message_bytes_max: 1000, takes_stream };
    let (mut connection, unfinished) = (Connection::new(rules), Rc::default());
    let (mut bodies, mut requests, mut legal) = (BytesMut::new(), Vec::new(), true);
    let (mut calls, mut heard) = (Vec::new(), Heard::default());
    for part in said.chunks(step) {
        let mut intake = Intake {
            now: Duration::ZERO,
            requests: &mut requests,
            calls: &mut calls,
            bodies: &mut bodies,
            admit: &mut || Place::take(&unfinished, 10),
        };
        legal = connection.receive(part, &mut intake).is_ok();
        heard.calls.extend(calls.drain(..).map(|call| (call.stream, Default::default())));
        if at_once {
            heard.take(&mut connection);
        }
        assert!(connection.out().len() < HTTP2_OUT_BYTES_MAX);
        connection.sent(connection.out().len());
        if !legal {
            break;
        }
    }
    heard.take(&mut connection);
    for request in requests {
        if grpc::unary(&request.body, rules.message_bytes_max).is_ok() {
            heard.unary.push(request.body.to_vec());
        }
        connection.answer(request.stream, request.body);
    }
    for stream in heard.calls.keys() {
        connection.send(*stream, &framed(3), &bodies.split().freeze());
        connection.finish(*stream, None);
    }
    assert!(connection.out().len() < HTTP2_OUT_BYTES_MAX);
    (heard, legal)
}

#[test]
fn http2_connections() {
    fuzz("HTTP/2 connection", |dice| {
        let (mut said, calls) = conversation(dice);
        let at_once = dice.once_in(2);
        let (heard, legal) = hear(&said, 1 + dice.below(200), at_once);
        assert!(legal);
        let of = |wanted: &str| -> Vec<Vec<usize>> {
            let of_path = calls.iter().filter(|(path, _)| *path == wanted);
            of_path.map(|(_, lens)| lens.clone()).collect()
        };
        let lens = |messages: &Vec<Vec<u8>>| messages.iter().map(Vec::len).collect::<Vec<_>>();
        let unary = lens(&heard.unary).into_iter().map(|len| vec![len - PREFIX_BYTES]);
        assert_eq!(unary.collect::<Vec<_>>(), of(UNARY), "every call arrives");
        let streams: Vec<_> = heard.calls.values().map(|(messages, _)| lens(messages)).collect();
        assert_eq!(streams, of(STREAM), "with every message");
        assert!(heard.calls.values().all(|(_, end)| *end == Some(Inbound::Ended)));

        dice.spoil(&mut said);
        let whole = hear(&said, said.len().max(1), false);
        let cut = hear(&said, 1 + dice.below(60), false);
        let eager = hear(&said, 1 + dice.below(60), true);
        assert_eq!([whole.1; 2], [cut.1, eager.1], "legal or not, however cut");
        // Of a connection that broke a rule nothing is answered, so what was heard does not matter.
        if !whole.1 {
            return;
        }
        assert_eq!(whole.0, cut.0, "however cut");
        assert_eq!(whole.0.unary, eager.0.unary);
        // A client that resets a call takes back what was not taken.
        for (stream, (messages, _)) in &whole.0.calls {
            assert!(eager.0.calls[stream].0.starts_with(messages), "however taken");
        }
    });
}
