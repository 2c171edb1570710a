//! gRPC over HTTP/2 (its PROTOCOL-HTTP2 page): the headers of a call, messages in a body, and how a
//! call ended.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::{h2::Fields, hpack};

/// In front of each message: a byte that says whether it is compressed, then its length.
pub const PREFIX_BYTES: usize = 5;

/// gRPC's numbers for what a call came to, those this client says itself.
pub mod code {
    /// All went well.
    pub const OK: i32 = 0;
    /// Nobody knows; also an answer with no status.
    pub const UNKNOWN: i32 = 2;
    /// No answer in time.
    pub const DEADLINE_EXCEEDED: i32 = 4;
    /// No such method.
    pub const UNIMPLEMENTED: i32 = 12;
    /// The answer makes no sense.
    pub const INTERNAL: i32 = 13;
    /// No connection, or it was lost.
    pub const UNAVAILABLE: i32 = 14;
}

/// How a call failed: the server's words, or ours where no words of the server came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// gRPC's number, never [`code::OK`].
    pub code: i32,
    /// The text, decoded.
    pub message: String,
}

impl Status {
    /// A failure seen on our side.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

/// What the headers and trailers of one answer said. One block may be both.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Fields);

impl Verdict {
    /// Another block of the answer came.
    pub fn add(&mut self, fields: &Fields) {
        self.0.http_status = self.0.http_status.or(fields.http_status);
        if fields.grpc_status.is_some() {
            self.0.grpc_status = fields.grpc_status;
            self.0.grpc_message.clone_from(&fields.grpc_message);
        }
    }

    /// The answer is whole: how did the call end?
    pub fn read(&self) -> Result<(), Status> {
        match (self.0.grpc_status, self.0.http_status) {
            (Some(code::OK), Some(200)) => Ok(()),
            (Some(code), Some(200)) => Err(Status::new(code, percent_decode(&self.0.grpc_message))),
            (_, Some(200)) => Err(Status::new(code::UNKNOWN, "an answer without grpc-status")),
            (_, Some(404)) => Err(Status::new(code::UNIMPLEMENTED, "HTTP status 404")),
            (_, http) => Err(Status::new(code::UNKNOWN, format!("HTTP status {http:?}"))),
        }
    }
}

/// The server gave a stream up with this HTTP/2 error code.
pub fn reset(code: u32) -> Status {
    Status::new(code::UNAVAILABLE, format!("stream reset by the server, HTTP/2 error {code}"))
}

/// The header block of a call. It depends on nothing else, so it can be made once.
pub fn head(path: &str, authority: &str) -> Vec<u8> {
    let mut block = Vec::new();
    hpack::encode_post_over_http(&mut block);
    hpack::encode_literal(":path", path, &mut block);
    hpack::encode_literal(":authority", authority, &mut block);
    hpack::encode_literal("content-type", "application/grpc", &mut block);
    hpack::encode_literal("te", "trailers", &mut block);
    block
}

/// Adds one header to those of [`head`].
pub fn add_header(name: &str, value: &str, block: &mut Vec<u8>) {
    hpack::encode_literal(name, value, block);
}

/// A message with its prefix: the whole body of a call that sends one.
pub fn body(message: &impl Message) -> Vec<u8> {
    let bytes = message.encoded_len();
    let mut body = Vec::with_capacity(PREFIX_BYTES + bytes);
    body.put_u8(0);
    body.put_u32(u32::try_from(bytes).expect("a request of a test is below 4 GiB"));
    message.encode(&mut body).expect("a Vec has room");
    body
}

/// Takes the first message off a body, where it is whole.
pub fn take_message(body: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    let Some([compressed, length @ ..]) = body.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    if *compressed != 0 {
        return Err(compressed_message());
    }
    let length = u32::from_be_bytes(*length) as usize;
    if body.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    body.advance(PREFIX_BYTES);
    Ok(Some(body.split_to(length).freeze()))
}

/// Calls `on` for each whole message in what was held back before and `bytes`; holds back the rest.
/// Messages that came whole are read where they lie.
pub(crate) fn each_message(
    held: &mut Vec<u8>,
    bytes: &[u8],
    on: impl FnMut(&[u8]),
) -> Result<(), Status> {
    if held.is_empty() {
        let used = messages(bytes, on)?;
        held.extend_from_slice(&bytes[used..]);
    } else {
        held.extend_from_slice(bytes);
        let used = messages(held, on)?;
        held.drain(..used);
    }
    Ok(())
}

/// The whole messages that `bytes` begins with; returns their length.
fn messages(bytes: &[u8], mut on: impl FnMut(&[u8])) -> Result<usize, Status> {
    let mut used = 0;
    while let Some([compressed, length @ ..]) = bytes[used..].first_chunk::<PREFIX_BYTES>() {
        if *compressed != 0 {
            return Err(compressed_message());
        }
        let from = used + PREFIX_BYTES;
        let Some(message) = bytes.get(from..from + u32::from_be_bytes(*length) as usize) else {
            break;
        };
        on(message);
        used = from + message.len();
    }
    Ok(used)
}

fn compressed_message() -> Status {
    Status::new(code::INTERNAL, "a compressed message, which nobody asked for")
}

/// `grpc-message` is percent-encoded UTF-8. What is no escape stands for itself.
fn percent_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escape = after.first_chunk::<2>().filter(|_| *first == b'%');
        let escape = escape.and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_that_start_no_escape_stand_for_themselves() {
        assert_eq!(percent_decode("key%20is%2f%C3%A9 100% %zz %2"), "key is/é 100% %zz %2");
    }

    #[test]
    fn a_message_is_taken_only_when_whole() {
        let put = proto::etcdserverpb::LeaseGrantRequest { ttl: 5, id: 0 };
        let whole = body(&put);
        assert_eq!(whole, b"\0\0\0\0\x02\x08\x05");
        let mut received = BytesMut::new();
        for byte in &whole {
            assert_eq!(take_message(&mut received), Ok(None));
            received.put_u8(*byte);
        }
        assert_eq!(take_message(&mut received).unwrap().unwrap(), &b"\x08\x05"[..]);
        received.extend_from_slice(b"\x01\0\0\0\0");
        assert_eq!(take_message(&mut received).unwrap_err().code, code::INTERNAL);
    }

    #[test]
    fn messages_are_read_whole_however_they_are_cut() {
        let whole = [&b"\0\0\0\0\x02ab"[..], b"\0\0\0\0\0", b"\0\0\0\0\x03cde"].concat();
        for piece in 1..=whole.len() {
            let (mut held, mut seen) = (Vec::new(), Vec::new());
            for bytes in whole.chunks(piece) {
                let message = |message: &[u8]| seen.push(message.to_vec());
                each_message(&mut held, bytes, message).unwrap();
            }
            assert_eq!((seen, held.len()), (vec![b"ab".to_vec(), vec![], b"cde".to_vec()], 0));
        }
        assert!(each_message(&mut Vec::new(), b"\x01\0\0\0\0", |_| ()).is_err());
    }

    #[test]
    fn how_a_call_ended() {
        let answer = |http_status, grpc_status, text: &str| {
            let mut verdict = Verdict::default();
            verdict.add(&Fields { http_status, ..Default::default() });
            verdict.add(&Fields { grpc_status, grpc_message: text.into(), http_status: None });
            verdict.read().map_err(|status| (status.code, status.message))
        };
        assert_eq!(answer(Some(200), Some(0), ""), Ok(()));
        assert_eq!(answer(Some(200), Some(3), "no%20key"), Err((3, "no key".into())));
        assert_eq!(answer(Some(200), None, "").unwrap_err().0, code::UNKNOWN);
        assert_eq!(answer(Some(404), None, "").unwrap_err().0, code::UNIMPLEMENTED);
        assert_eq!(answer(None, Some(0), "").unwrap_err().0, code::UNKNOWN);
    }
}
