//! Single calls on numbered keys: the body of a request, encoded once, whose key is patched. The
//! cheapest [`Script`] there is.

use prost::{Message, encoding::encode_varint};
use proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, PutRequest, RangeRequest, kv, lease,
};

use crate::{
    grpc::{self, Status},
    keys::{Keys, lot},
    replay::Noted,
    script::{Answer, Ask, Next, Script},
    sizes::Sizes,
};

pub use crate::keys::Order;

/// Every key is as long: this and [`KEY_DIGITS`] decimal digits.
pub(crate) const KEY_PREFIX: &str = "key-";
pub(crate) const KEY_DIGITS: usize = 12;
const KEY_BYTES: usize = KEY_PREFIX.len() + KEY_DIGITS;
/// The key is the first field of every request that has one: its tag, its length, the key.
const KEY_AT: usize = grpc::PREFIX_BYTES + 2;

/// Which call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `KV.Put`.
    Put,
    /// `KV.Range` of one key.
    Range {
        /// Read from the member's own state, without asking a quorum.
        serializable: bool,
    },
    /// `KV.DeleteRange` of one key, which may be gone already.
    Delete,
    /// `Lease.LeaseGrant`: the key's number and `first` are the lease's id.
    Grant {
        /// The id of lease 0.
        first: i64,
        /// Seconds.
        ttl: i64,
    },
    /// `KV.Put` of a key with the lease of the key's number.
    Attach {
        /// The id of lease 0.
        first: i64,
    },
}

/// Makes the bodies of requests, one after the other.
#[derive(Debug)]
pub struct Work {
    call: Call,
    keys: Keys,
    sizes: Sizes,
    /// As long as the longest value. Random, so that no compression on the way makes it smaller.
    value: Vec<u8>,
    body: Vec<u8>,
    /// Bytes of the value in the body.
    value_bytes: usize,
    turn: u64,
    deleted: u64,
    absent: u64,
}

impl Work {
    /// Requests for `keys` keys whose values have so many bytes.
    pub fn new(call: Call, order: Order, keys: u64, sizes: impl Into<Sizes>) -> Self {
        assert!(keys > 0 && keys < 10u64.pow(KEY_DIGITS as u32), "keys have {KEY_DIGITS} digits");
        let sizes = sizes.into();
        let (value, value_bytes) = (value(sizes.max()), sizes.draw(0));
        let mut work = Self {
            call,
            keys: Keys::new(order, keys),
            sizes,
            value,
            body: Vec::new(),
            value_bytes,
            turn: 0,
            deleted: 0,
            absent: 0,
        };
        let key = key(0).into();
        work.body = match call {
            Call::Put => grpc::body(&work.put(0)),
            Call::Range { serializable } => {
                grpc::body(&RangeRequest { key, serializable, ..Default::default() })
            }
            Call::Delete => grpc::body(&DeleteRangeRequest { key, ..Default::default() }),
            Call::Grant { .. } | Call::Attach { .. } => Vec::new(),
        };
        work
    }

    fn put(&self, lease: i64) -> PutRequest {
        let value = self.value[..self.value_bytes].to_vec().into();
        PutRequest { key: key(0).into(), value, lease, ..Default::default() }
    }

    /// The method to call.
    pub fn path(&self) -> &'static str {
        match self.call {
            Call::Put | Call::Attach { .. } => kv::PUT,
            Call::Range { .. } => kv::RANGE,
            Call::Delete => kv::DELETE_RANGE,
            Call::Grant { .. } => lease::LEASE_GRANT,
        }
    }

    /// The next body.
    pub fn body(&mut self) -> &[u8] {
        let key = self.keys.draw();
        match self.call {
            Call::Put => {
                self.resize();
                self.patch(key);
            }
            Call::Range { .. } | Call::Delete => self.patch(key),
            Call::Grant { first, ttl } => {
                let grant = LeaseGrantRequest { ttl, id: first + key.cast_signed() };
                self.body = grpc::body(&grant);
            }
            Call::Attach { first } => {
                self.body = grpc::body(&self.put(first + key.cast_signed()));
                self.patch(key);
            }
        }
        self.turn += 1;
        &self.body
    }

    /// The next body, its value beginning with these 8 bytes: for puts whose events are timed.
    pub(crate) fn stamped_body(&mut self, stamp: u64) -> &[u8] {
        assert!(self.call == Call::Put && self.sizes.min() >= 8, "a stamp has 8 bytes");
        self.body();
        // The value is the last field.
        let value_at = self.body.len() - self.value_bytes;
        self.body[value_at..][..8].copy_from_slice(&stamp.to_be_bytes());
        &self.body
    }

    /// Gives the body of a put a value of the next size, where that is another.
    fn resize(&mut self) {
        let bytes = self.sizes.draw(self.turn);
        if bytes == self.value_bytes {
            return;
        }
        self.value_bytes = bytes;
        self.body.truncate(KEY_AT + KEY_BYTES);
        // Field 2, of the kind that has a length.
        self.body.push(2 << 3 | 2);
        encode_varint(bytes as u64, &mut self.body);
        self.body.extend_from_slice(&self.value[..bytes]);
        let length = (self.body.len() - grpc::PREFIX_BYTES) as u32;
        self.body[1..grpc::PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    }

    /// Writes the key's digits into the body, where the key is the first field.
    fn patch(&mut self, mut key: u64) {
        let digits_at = KEY_AT + KEY_PREFIX.len();
        for digit in self.body[digits_at..][..KEY_DIGITS].iter_mut().rev() {
            *digit = b'0' + (key % 10) as u8;
            key /= 10;
        }
    }

    /// Fewest bytes of an answer that holds what was asked for. A range that found no key is less.
    pub fn answer_bytes_min(&self) -> usize {
        match self.call {
            Call::Range { .. } => grpc::PREFIX_BYTES + KEY_DIGITS + self.sizes.min(),
            _ => grpc::PREFIX_BYTES + 1,
        }
    }

    fn ask(&self) -> Ask<'_> {
        Ask { path: 0, body: &self.body }
    }
}

impl Script for Work {
    fn paths(&self) -> Vec<&'static str> {
        vec![self.path()]
    }

    fn kinds(&self) -> Vec<&'static str> {
        vec![match self.call {
            Call::Put => "put",
            Call::Range { .. } => "range",
            Call::Delete => "delete",
            Call::Grant { .. } => "grant",
            Call::Attach { .. } => "attach",
        }]
    }

    fn reads_answers(&self) -> bool {
        self.call == Call::Delete
    }

    fn begin(&mut self, _seat: usize) -> (usize, Ask<'_>) {
        self.body();
        (0, self.ask())
    }

    fn answered(&mut self, _seat: usize, answer: Answer<'_>) -> Next<'_> {
        if answer.bytes < self.answer_bytes_min() {
            return Next::Failed(empty_answer());
        }
        if self.call == Call::Delete {
            let message = answer.body.get(grpc::PREFIX_BYTES..).unwrap_or_default();
            match DeleteRangeResponse::decode(message) {
                Ok(response) if response.deleted > 0 => self.deleted += 1,
                Ok(_) => self.absent += 1,
                Err(error) => return Next::Failed(nonsense(&error)),
            }
        }
        Next::Over
    }

    fn noted(&self) -> Option<Noted<'_>> {
        let key = || &self.body[KEY_AT..][..KEY_BYTES];
        match self.call {
            Call::Put => Some(Noted { kind: "put", key: key(), number: Some(self.value_bytes) }),
            Call::Range { serializable } => {
                let kind = if serializable { "serializable" } else { "get" };
                Some(Noted { kind, key: key(), number: None })
            }
            Call::Delete => Some(Noted { kind: "delete", key: key(), number: None }),
            Call::Grant { .. } | Call::Attach { .. } => None,
        }
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        match self.call {
            Call::Delete => vec![("deleted", self.deleted), ("absent", self.absent)],
            _ => Vec::new(),
        }
    }
}

pub(crate) fn empty_answer() -> Status {
    Status::new(grpc::code::OK, "an answer without what was asked for")
}

pub(crate) fn nonsense(error: &prost::DecodeError) -> Status {
    Status::new(grpc::code::INTERNAL, error.to_string())
}

pub(crate) fn key(number: u64) -> String {
    format!("{KEY_PREFIX}{number:0KEY_DIGITS$}")
}

/// So many bytes that nothing makes smaller.
pub(crate) fn value(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| lot(at) as u8).collect()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_patched_body_decodes_to_the_request_it_stands_for() {
        let mut work = Work::new(Call::Put, Order::Sequential, 2, 256);
        for key in ["key-000000000000", "key-000000000001", "key-000000000000"] {
            let put = PutRequest::decode(&work.body()[grpc::PREFIX_BYTES..]).unwrap();
            assert_eq!((&put.key[..], put.value.len()), (key.as_bytes(), 256));
        }
        let stamped = work.stamped_body(0x0102_0304_0506_0708).to_vec();
        let put = PutRequest::decode(&stamped[grpc::PREFIX_BYTES..]).unwrap();
        assert_eq!(
            (&put.value[..9], put.value.len()),
            (&[1, 2, 3, 4, 5, 6, 7, 8, lot(8) as u8][..], 256)
        );

        let mut work = Work::new(Call::Grant { first: 1 << 50, ttl: 7 }, Order::Sequential, 9, 0);
        work.body();
        let grant = LeaseGrantRequest::decode(&work.body()[grpc::PREFIX_BYTES..]).unwrap();
        assert_eq!((grant.id, grant.ttl), ((1 << 50) + 1, 7));
        let mut work = Work::new(Call::Attach { first: 5 }, Order::Sequential, 9, 3);
        work.body();
        let put = PutRequest::decode(&work.body()[grpc::PREFIX_BYTES..]).unwrap();
        assert_eq!((&put.key[..], put.lease, put.value.len()), (&b"key-000000000001"[..], 6, 3));

        let mut work = Work::new(Call::Delete, Order::Sequential, 9, 0);
        work.body();
        let delete = DeleteRangeRequest::decode(&work.body()[grpc::PREFIX_BYTES..]).unwrap();
        assert_eq!((&delete.key[..], delete.range_end.len()), (&b"key-000000000001"[..], 0));

        let mut work = Work::new(Call::Range { serializable: true }, Order::Random, 10, 0);
        let range = RangeRequest::decode(&work.body()[grpc::PREFIX_BYTES..]).unwrap();
        assert!(range.serializable && range.key.starts_with(b"key-00000000000"));
    }

    #[test]
    fn each_body_has_a_value_of_its_own_size() {
        let sizes: Sizes = "50%:7,30%:300,20%:0".parse().unwrap();
        let mut work = Work::new(Call::Put, Order::Sequential, 1000, sizes.clone());
        for turn in 0..1000 {
            let put = PutRequest::decode(&work.body()[grpc::PREFIX_BYTES..]).unwrap();
            assert_eq!(put.key, key(turn).as_bytes());
            assert_eq!(put.value, work.value[..sizes.draw(turn)]);
            let length = u32::from_be_bytes(work.body[1..5].try_into().unwrap()) as usize;
            assert_eq!(length, work.body.len() - grpc::PREFIX_BYTES);
        }
    }
}
