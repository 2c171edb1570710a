//! Header blocks of replies, ready to be sent: literals and entries of the static table only, so
//! they mean the same at any time (RFC 7541 §6).

use crate::{api::status::Status, shard::grpc};

/// `:status: 200`, `content-type: application/grpc`.
pub const HEAD: &[u8; 20] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0`.
pub const TRAILERS_OK: &[u8; 15] = b"\0\x0bgrpc-status\x010";
/// `:status: 405`, `allow: POST`.
pub const NOT_POST: &[u8] = b"\x08\x03405\x0f\x07\x04POST";
/// `:status: 415`.
pub const NOT_GRPC: &[u8] = b"\x08\x03415";
/// `:status: 431`.
pub const TOO_LARGE: &[u8] = b"\x08\x03431";

/// `grpc-status` and `grpc-message` of an error.
pub fn trailers(status: &Status) -> Vec<u8> {
    let mut block = Vec::with_capacity(64 + status.message.len());
    literal(&mut block, b"grpc-status", status.code.to_string().as_bytes());
    literal(&mut block, b"grpc-message", grpc::encode_message(&status.message).as_bytes());
    block
}

/// A whole reply that is nothing but an error ("Trailers-Only" in gRPC over HTTP/2).
pub fn refusal(status: &Status) -> Vec<u8> {
    [&HEAD[..], &trailers(status)].concat()
}

/// A field that enters no table.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    string(block, name);
    string(block, value);
}

fn string(block: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        len @ 0..127 => block.push(len as u8),
        len => {
            block.push(127);
            let mut rest = len - 127;
            while rest >= 128 {
                block.push(rest as u8 | 128);
                rest >>= 7;
            }
            block.push(rest as u8);
        }
    }
    block.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::{super::hpack::Decoder, *};
    use crate::api::status::Code;

    fn fields(block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Decoder::default()
            .decode(block, |name, value| fields.push((text(name), text(value))))
            .unwrap();
        fields
    }

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn constants_say_what_they_are_for() {
        let head = [(":status", "200"), ("content-type", "application/grpc")];
        assert_eq!(fields(HEAD), pairs(&head));
        assert_eq!(fields(TRAILERS_OK), pairs(&[("grpc-status", "0")]));
        assert_eq!(fields(NOT_POST), pairs(&[(":status", "405"), ("allow", "POST")]));
        assert_eq!(fields(NOT_GRPC), pairs(&[(":status", "415")]));
        assert_eq!(fields(TOO_LARGE), pairs(&[(":status", "431")]));
    }

    #[test]
    fn errors_carry_their_sentence_whatever_its_length() {
        for len in [0, 1, 126, 127, 128, 254, 255, 256, 16_510, 16_511, 20_000] {
            let text = "x".repeat(len);
            let status = Status::made(Code::Unavailable, text.clone());
            assert_eq!(
                fields(&trailers(&status)),
                pairs(&[("grpc-status", "14"), ("grpc-message", &text)])
            );
        }
        let status = Status::new(Code::NotFound, "100%\n");
        assert_eq!(fields(&refusal(&status))[3].1, "100%25%0A");
    }
}
