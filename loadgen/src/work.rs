//! What is asked of the server: the body of a request, encoded once, whose key is patched.

use proto::etcdserverpb::{PutRequest, RangeRequest, kv};

use crate::grpc;

/// Every key is as long: this and [`KEY_DIGITS`] decimal digits.
const KEY_PREFIX: &str = "key-";
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
    digits_at: usize,
    turn: u64,
}

impl Work {
    /// Requests for `keys` keys whose values have `value_bytes` bytes.
    pub fn new(call: Call, order: Order, keys: u64, value_bytes: usize) -> Self {
        assert!(keys > 0 && keys < 10u64.pow(KEY_DIGITS as u32), "keys have {KEY_DIGITS} digits");
        let key = format!("{KEY_PREFIX}{:0KEY_DIGITS$}", 0).into_bytes();
        let body = match call {
            Call::Put => grpc::body(&PutRequest {
                key: key.clone().into(),
                // Random, so that no compression on the way makes it smaller.
                value: (0..value_bytes as u64).map(|at| lot(at) as u8).collect(),
                ..Default::default()
            }),
            Call::Range { serializable } => grpc::body(&RangeRequest {
                key: key.clone().into(),
                serializable,
                ..Default::default()
            }),
        };
        let key_at = body.windows(key.len()).position(|window| window == key);
        let digits_at = key_at.expect("a body holds its key") + KEY_PREFIX.len();
        Self { call, order, keys, value_bytes, body, digits_at, turn: 0 }
    }

    /// The method to call.
    pub fn path(&self) -> &'static str {
        match self.call {
            Call::Put => kv::PUT,
            Call::Range { .. } => kv::RANGE,
        }
    }

    /// The next body.
    pub fn body(&mut self) -> &[u8] {
        let mut key = match self.order {
            Order::Sequential => self.turn % self.keys,
            Order::Random => lot(self.turn) % self.keys,
        };
        self.turn += 1;
        for digit in self.body[self.digits_at..][..KEY_DIGITS].iter_mut().rev() {
            *digit = b'0' + (key % 10) as u8;
            key /= 10;
        }
        &self.body
    }

    /// Fewest bytes of an answer that holds what was asked for. A range that found no key is less.
    pub fn answer_bytes_min(&self) -> usize {
        match self.call {
            Call::Put => grpc::PREFIX_BYTES + 1,
            Call::Range { .. } => grpc::PREFIX_BYTES + KEY_DIGITS + self.value_bytes,
        }
    }
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
        let mut work = Work::new(Call::Range { serializable: true }, Order::Random, 10, 0);
        let range = RangeRequest::decode(&work.body()[grpc::PREFIX_BYTES..]).unwrap();
        assert!(range.serializable && range.key.starts_with(b"key-00000000000"));
    }
}
