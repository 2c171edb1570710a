//! Writing gRPC messages and protobuf fields straight into a reply buffer.
//!
//! ```text
//! ┌───┬───────────────┬──────────────────────────┐
//! │ 0 │ length, u32 BE│ message                   │      0: not compressed
//! └───┴───────────────┴──────────────────────────┘
//! ```

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::Edge;
use crate::{
    store::View,
    types::{ClusterId, MemberId, Revision, Term},
};

/// Bytes before each gRPC message.
pub const PREFIX_BYTES: usize = 5;

/// `ResponseHeader`, first field of nearly every response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// The answering member's id.
    pub member: MemberId,
    /// The store's revision; which one depends on the call.
    pub revision: Revision,
    /// The answering member's raft term.
    pub term: Term,
}

impl Header {
    /// As `view` has it.
    pub fn of(view: &View, edge: &Edge) -> Self {
        let Edge { cluster, member, .. } = *edge;
        Self { cluster, member, revision: view.revision, term: view.raft.term }
    }

    /// The same with another revision.
    pub fn at(self, revision: Revision) -> Self {
        Self { revision, ..self }
    }

    /// Appends field 1 with this header. Four numbers never need a second length byte.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0x0a, 0]);
        let start = out.len();
        number(1, self.cluster.0, out);
        number(2, self.member.0, out);
        number(3, self.revision.0 as u64, out);
        number(4, self.term.0, out);
        out[start - 1] = (out.len() - start) as u8;
    }
}

/// Appends what `write` appends, as one gRPC message.
pub fn message(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    write(out);
    let len = u32::try_from(out.len() - start - PREFIX_BYTES)
        .expect("a response is bounded by what memory the request's keys fill");
    out[start + 1..start + PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
}

/// Appends a number unless it is zero.
pub fn number(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// Appends a message or string that is there already.
pub fn bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Appends what `write` appends, as a message in field `tag`. The length is put before it
/// afterwards, which moves the message by a byte or a few.
pub fn nested(tag: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, out);
    out.push(0);
    let start = out.len();
    write(out);
    let len = out.len() - start;
    let more = encoded_len_varint(len as u64) - 1;
    out.extend_from_slice(&[0; 9][..more]);
    out.copy_within(start..start + len, start + more);
    encode_varint(len as u64, &mut &mut out[start - 1..start + more]);
}

/// Appends a generated message as field `tag`.
pub fn message_field(tag: u32, message: &impl prost::Message, out: &mut Vec<u8>) {
    bytes(tag, &message.encode_to_vec(), out);
}
