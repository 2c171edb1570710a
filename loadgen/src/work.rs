//! What is asked of the server: the body of a request, encoded once, whose key is patched.

use proto::etcdserverpb::{LeaseGrantRequest, PutRequest, RangeRequest, kv, lease};

use crate::grpc;

/// Every key is as long: this and [`KEY_DIGITS`] decimal digits.
pub(crate) const KEY_PREFIX: &str = "key-";
const KEY_DIGITS: usize = 12;

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

/// In which order the keys are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each in turn.
    Sequential,
    /// Uniformly by lot, the same lot in every run.
    Random,
}

/// Makes the bodies of requests, one after the other.
#[derive(Debug)]
pub struct Work {
    call: Call,
    order: Order,
    keys: u64,
    value_bytes: usize,
    body: Vec<u8>,
    turn: u64,
}

impl Work {
    /// Requests for `keys` keys whose values have `value_bytes` bytes.
    pub fn new(call: Call, order: Order, keys: u64, value_bytes: usize) -> Self {
        assert!(keys > 0 && keys < 10u64.pow(KEY_DIGITS as u32), "keys have {KEY_DIGITS} digits");
        let mut work = Self { call, order, keys, value_bytes, body: Vec::new(), turn: 0 };
        work.body = match call {
            Call::Put => grpc::body(&work.put(0)),
            Call::Range { serializable } => {
                grpc::body(&RangeRequest { key: key(0).into(), serializable, ..Default::default() })
            }
            Call::Grant { .. } | Call::Attach { .. } => Vec::new(),
        };
        work
    }

    fn put(&self, lease: i64) -> PutRequest {
        // Random, so that no compression on the way makes it smaller.
        let value = (0..self.value_bytes as u64).map(|at| lot(at) as u8).collect();
        PutRequest { key: key(0).into(), value, lease, ..Default::default() }
    }

    /// The method to call.
    pub fn path(&self) -> &'static str {
        match self.call {
            Call::Put | Call::Attach { .. } => kv::PUT,
            Call::Range { .. } => kv::RANGE,
            Call::Grant { .. } => lease::LEASE_GRANT,
        }
    }

    /// The next body.
    pub fn body(&mut self) -> &[u8] {
        let key = match self.order {
            Order::Sequential => self.turn % self.keys,
            Order::Random => lot(self.turn) % self.keys,
        };
        self.turn += 1;
        match self.call {
            Call::Put | Call::Range { .. } => self.patch(key),
            Call::Grant { first, ttl } => {
                let grant = LeaseGrantRequest { ttl, id: first + key.cast_signed() };
                self.body = grpc::body(&grant);
            }
            Call::Attach { first } => {
                self.body = grpc::body(&self.put(first + key.cast_signed()));
                self.patch(key);
            }
        }
        &self.body
    }

    /// The next body, its value beginning with these 8 bytes: for puts whose events are timed.
    pub(crate) fn stamped_body(&mut self, stamp: u64) -> &[u8] {
        assert!(self.call == Call::Put && self.value_bytes >= 8, "a stamp has 8 bytes");
        self.body();
        // The value is the last field.
        let value_at = self.body.len() - self.value_bytes;
        self.body[value_at..][..8].copy_from_slice(&stamp.to_be_bytes());
        &self.body
    }

    /// Writes the key's digits into the body, where the key is the first field.
    fn patch(&mut self, mut key: u64) {
        let digits_at = grpc::PREFIX_BYTES + 2 + KEY_PREFIX.len();
        for digit in self.body[digits_at..][..KEY_DIGITS].iter_mut().rev() {
            *digit = b'0' + (key % 10) as u8;
            key /= 10;
        }
    }

    /// Fewest bytes of an answer that holds what was asked for. A range that found no key is less.
    pub fn answer_bytes_min(&self) -> usize {
        match self.call {
            Call::Put | Call::Grant { .. } | Call::Attach { .. } => grpc::PREFIX_BYTES + 1,
            Call::Range { .. } => grpc::PREFIX_BYTES + KEY_DIGITS + self.value_bytes,
        }
    }
}

fn key(number: u64) -> String {
    format!("{KEY_PREFIX}{number:0KEY_DIGITS$}")
}

/// The `turn`th number of splitmix64.
fn lot(turn: u64) -> u64 {
    let mut lot = (turn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    lot = (lot ^ lot >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    lot = (lot ^ lot >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    lot ^ lot >> 31
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

        let mut work = Work::new(Call::Range { serializable: true }, Order::Random, 10, 0);
        let range = RangeRequest::decode(&work.body()[grpc::PREFIX_BYTES..]).unwrap();
        assert!(range.serializable && range.key.starts_with(b"key-00000000000"));
    }
}
