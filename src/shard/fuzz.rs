//! What sockets bring, spoiled from a seed: gRPC's frames and the heads of HTTP/1.1.

use super::{
    grpc::{self, PREFIX_BYTES},
    http1::{self, Parsed},
};
use crate::fuzz::{Dice, fuzz};

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
        text += dice.pick(&[
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
