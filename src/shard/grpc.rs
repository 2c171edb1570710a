//! gRPC's own framing on top of HTTP/2: five bytes before a message, and a status after it.
//!
//! ```text
//! message = u8 compressed, u32 length (big endian), bytes      (gRPC over HTTP/2, "Length-Prefixed-Message")
//! ```

use crate::api::status::{Code, Status};
use std::fmt::Write;

/// Bytes in front of each message.
pub const PREFIX_BYTES: usize = 5;

/// Finds the one message of a unary request in its whole body.
///
/// # Errors
/// The status grpc-go answers with: a message larger than `bytes_max`, a compressed one, none, or
/// bytes after it.
pub fn unary(body: &[u8], bytes_max: usize) -> Result<std::ops::Range<usize>, Status> {
    let Some(len) = message_len(body, bytes_max)? else {
        return Err(Status::new(Code::Internal, "grpc: request message is missing or cut short"));
    };
    let end = PREFIX_BYTES + len;
    match body.len() {
        n if n < end => {
            Err(Status::new(Code::Internal, "grpc: request message is missing or cut short"))
        }
        n if n > end => {
            Err(Status::new(Code::Internal, "grpc: more than one message in a unary request"))
        }
        _ => Ok(PREFIX_BYTES..end),
    }
}

/// Length of the message that starts `body`, once its prefix is there.
///
/// # Errors
/// A message larger than `bytes_max`, or compressed, as grpc-go says it.
pub fn message_len(body: &[u8], bytes_max: usize) -> Result<Option<usize>, Status> {
    let Some((prefix, _)) = body.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let [compressed, length @ ..] = *prefix;
    let len = u32::from_be_bytes(length) as usize;
    if len > bytes_max {
        return Err(Status::received_too_large(len, bytes_max));
    }
    match compressed {
        0 => Ok(Some(len)),
        1 => Err(Status::new(
            Code::Unimplemented,
            "grpc: Decompressor is not installed for the request's grpc-encoding",
        )),
        other => Err(Status::made(
            Code::Internal,
            format!("grpc: received unexpected payload format {other}"),
        )),
    }
}

/// `grpc-message` as a header carries it: printable ASCII but `%`, the rest percent-encoded (gRPC
/// over HTTP/2, "Status-Message").
pub fn encode_message(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            out.push(byte as char);
        } else {
            write!(out, "%{byte:02X}").expect("a string takes everything");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut body = vec![0];
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(message);
        body
    }

    #[test]
    fn one_whole_message_is_found() {
        assert_eq!(unary(&framed(b"abc"), 10), Ok(5..8));
        assert_eq!(unary(&framed(b""), 0), Ok(5..5));
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        let cases: [(&[u8], &str); 6] = [
            (b"", "missing or cut short"),
            (b"\0\0\0\0", "missing or cut short"),
            (&framed(b"abc")[..7], "missing or cut short"),
            (b"\0\0\0\0\x0bhello world", "received message larger than max (11 vs. 10)"),
            (b"\x01\0\0\0\0", "Decompressor is not installed"),
            (b"\x07\0\0\0\0", "unexpected payload format 7"),
        ];
        for (body, text) in cases {
            let status = unary(body, 10).unwrap_err();
            assert!(status.message.contains(text), "{}", status.message);
        }
        let twice = [framed(b"a"), framed(b"b")].concat();
        assert!(unary(&twice, 10).unwrap_err().message.contains("more than one message"));
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(encode_message("a b: 100%\n"), "a b: 100%25%0A");
    }
}
