//! One of the two servers: a connection, and what it said last.

use bytes::{Buf, BufMut, Bytes};
use loadgen::{
    client::Client,
    grpc::{Status, code},
};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType},
};

use crate::{
    answer::Answer,
    call::{Call, Known},
};

/// A message not looked into: what was sent or came, byte for byte.
#[derive(Clone, Debug, Default)]
struct Bare(Bytes);

impl Message for Bare {
    fn encode_raw(&self, out: &mut impl BufMut) {
        out.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn decode(mut from: impl Buf) -> Result<Self, DecodeError> {
        Ok(Self(from.copy_to_bytes(from.remaining())))
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: WireType,
        _: &mut impl Buf,
        _: DecodeContext,
    ) -> Result<(), DecodeError> {
        unreachable!("decode takes all there is")
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A server that is asked one call after the other.
pub struct Side {
    endpoint: String,
    client: Option<Client>,
    known: Known,
}

impl Side {
    /// A fresh server: revision 1, nothing compacted.
    pub fn new(endpoint: &str) -> Self {
        let known = Known { current: 1, compacted: 0 };
        Self { endpoint: endpoint.into(), client: None, known }
    }

    /// Asks, and says what was asked in the end.
    pub fn ask(&mut self, call: &Call) -> (Call, Answer) {
        let call = call.clone().resolve(self.known);
        let messages = self.exchange(call.path(), call.message());
        let answer = Answer::new(&call, messages);
        if let Some(revision) = answer.revision() {
            self.known.current = revision;
        }
        if let (Call::Compact(request), Answer::Compact(_)) = (&call, &answer) {
            self.known.compacted = request.revision;
        }
        (call, answer)
    }

    fn exchange(&mut self, path: &str, message: Bytes) -> Result<Vec<Bytes>, Status> {
        let unreachable = |error: std::io::Error| Status::new(code::UNAVAILABLE, error.to_string());
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::connect(&self.endpoint).map_err(unreachable)?),
        };
        let replies = client.stream::<Bare, Bare>(path, &Bare(message));
        let messages: Result<Vec<Bytes>, Status> =
            replies.and_then(|replies| replies.map(|one| one.map(|one| one.0)).collect());
        // Lost, perhaps: the next call tries a new connection.
        if messages.as_ref().is_err_and(|status| status.code == code::UNAVAILABLE) {
            self.client = None;
        }
        messages
    }
}
