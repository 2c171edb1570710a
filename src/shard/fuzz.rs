//! What sockets bring, spoiled from a seed: gRPC's frames, the heads of HTTP/1.1, and whole
//! HTTP/2 connections, whose own tests draw them frame by frame (`http2/tests/random.rs`).

use super::{
    Place,
    grpc::{self, PREFIX_BYTES},
    http1::{self, Parsed},
    http2::{
        connection::{Connection, Intake, Rules},
        frame::{self, PREFACE, flag, kind},
    },
};
use crate::{
    fuzz::{Dice, fuzz},
    limits::HTTP2_OUT_BYTES_MAX,
};
use bytes::BytesMut;
use std::{rc::Rc, time::Duration};

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

fn head(dice: &mut Dice) -> Vec<u8> {
    let method = dice.pick(&["GET", "HEAD", "POST", "PRI"]);
    let target = dice.pick(&["/health", "/metrics", "/livez?exclude=a&verbose", "*", "/%00"]);
    let mut text = format!("{method} {target} HTTP/1.{}\r\n", dice.below(3));
    for _ in 0..dice.below(6) {
        text += *dice.pick(&[
            "Host: a\r\n",
            "Connection: close\r\n",
            "Connection: keep-alive\r\n",
            "Content-Length: 5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\n",
            "X: \r\n",
        ]);
    }
    text += "\r\nhello";
    text.into_bytes()
}

#[test]
fn http1_heads() {
    fuzz("HTTP/1 head", |dice| {
        let mut input = head(dice);
        dice.spoil(&mut input);
        match http1::parse(&input) {
            Parsed::Whole(head, len) => {
                assert!(len <= input.len() && !head.method.is_empty() && !head.target.is_empty());
                // What follows a head changes nothing in it; what it lacks makes it wait.
                let Parsed::Whole(again, again_len) = http1::parse(&input[..len]) else {
                    panic!("the head alone is whole")
                };
                assert_eq!((again.target, again.body_bytes), (head.target, head.body_bytes));
                assert_eq!((again.keep_alive, again_len), (head.keep_alive, len));
                assert!(!matches!(http1::parse(&input[..len - 1]), Parsed::Whole(..)));
            }
            Parsed::Partial => {}
            Parsed::Bad(why) => assert!(!why.is_empty()),
        }
    });
}

/// The header fields of a call: from the static table, into the dynamic one, or in Huffman code.
fn fields(dice: &mut Dice) -> Vec<u8> {
    let named = [
        (":path", "/etcdserverpb.KV/Put"),
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

/// What a client may say: a greeting, then calls, in frames of any size.
fn conversation(dice: &mut Dice) -> (Vec<u8>, usize) {
    let mut said = PREFACE.to_vec();
    frame::put_settings(&mut said, &[]);
    let calls = dice.below(5);
    for nth in 0..calls as u32 {
        let (stream, len) = (2 * nth + 1, dice.below(80));
        frame::put_headers(&mut said, stream, &fields(dice), false, 40 + dice.below(60));
        let mut body = vec![0];
        body.extend_from_slice(&(len as u32).to_be_bytes());
        body.resize(PREFIX_BYTES + len, b'm');
        for part in body.chunks(1 + dice.below(50)) {
            frame::put_head(&mut said, part.len(), kind::DATA, 0, stream);
            said.extend_from_slice(part);
        }
        frame::put_head(&mut said, 0, kind::DATA, flag::END_STREAM, stream);
        if dice.once_in(3) {
            frame::put_word(&mut said, kind::WINDOW_UPDATE, 0, 1 + dice.below(1000) as u32);
        }
    }
    (said, calls)
}

/// Messages of the requests that came in, in order, and whether the client kept to the rules.
///
/// Answers wait for the end: what a late frame means depends on whether its stream was answered. A
/// body that holds no message is left out: one that comes in parts is refused before it is whole.
fn hear(said: &[u8], step: usize) -> (Vec<Vec<u8>>, bool) {
    let rules = Rules { concurrent_streams_max: 10, message_bytes_max: 1000 };
    let (mut connection, unfinished) = (Connection::new(rules), Rc::default());
    let (mut bodies, mut requests, mut legal) = (BytesMut::new(), Vec::new(), true);
    for part in said.chunks(step) {
        let mut intake = Intake {
            now: Duration::ZERO,
            requests: &mut requests,
            bodies: &mut bodies,
            admit: &mut || Place::take(&unfinished, 10),
        };
        legal = connection.receive(part, &mut intake).is_ok();
        assert!(connection.out().len() < HTTP2_OUT_BYTES_MAX);
        connection.sent(connection.out().len());
        if !legal {
            break;
        }
    }
    let mut heard = Vec::new();
    for request in requests {
        if grpc::unary(&request.body, rules.message_bytes_max).is_ok() {
            heard.push(request.body.to_vec());
        }
        connection.answer(request.stream, request.body);
    }
    assert!(connection.out().len() < HTTP2_OUT_BYTES_MAX);
    (heard, legal)
}

#[test]
fn http2_connections() {
    fuzz("HTTP/2 connection", |dice| {
        let (mut said, calls) = conversation(dice);
        let (heard, legal) = hear(&said, 1 + dice.below(200));
        assert_eq!((heard.len(), legal), (calls, true), "every call arrives");
        dice.spoil(&mut said);
        let (whole, cut) = (hear(&said, said.len().max(1)), hear(&said, 1 + dice.below(60)));
        assert_eq!(whole.1, cut.1, "legal or not, however cut");
        // Of a connection that broke a rule nothing is answered, so what was heard does not matter.
        if whole.1 {
            assert_eq!(whole.0, cut.0, "however cut");
        }
    });
}
