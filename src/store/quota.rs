//! How much room a request may take: etcd's cost model (`storage/quota.go`), as plain arithmetic.
//!
//! The edge asks before proposing and raises the NOSPACE alarm; applying asks again and, when the
//! room ran out meanwhile, applies all the same but answers no. Both are estimates on purpose.

use super::command::{Op, Put, Txn};
use crate::limits::{QUOTA_BYTES_DEFAULT, QUOTA_KEY_BYTES, QUOTA_LEASE_BYTES};

/// What a grant may add, in bytes.
pub const GRANT_COST: u64 = QUOTA_LEASE_BYTES;

/// The effective `--quota-backend-bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    bytes: Option<u64>,
}

impl Quota {
    /// From the flag: negative turns the quota off, 0 is etcd's default.
    pub fn from_flag(bytes: i64) -> Self {
        let bytes = match bytes {
            ..0 => None,
            0 => Some(QUOTA_BYTES_DEFAULT),
            _ => Some(bytes as u64),
        };
        Self { bytes }
    }

    /// The bytes a database may take; `None` without a quota.
    pub fn bytes(self) -> Option<u64> {
        self.bytes
    }

    /// Whether a request of `cost` bytes still fits beside `disk_bytes`. What costs nothing fits.
    pub fn fits(self, disk_bytes: u64, cost: u64) -> bool {
        cost == 0 || self.bytes.is_none_or(|quota| disk_bytes + cost < quota)
    }
}

impl Put {
    /// What it may add, in bytes.
    pub fn cost(&self) -> u64 {
        put_cost(self.key.len(), self.value.len())
    }
}

impl Txn {
    /// What its more expensive branch may add, in bytes; deletions and reads are free.
    pub fn cost(&self) -> u64 {
        let sum = |ops: &[Op]| ops.iter().map(Op::cost).sum::<u64>();
        sum(&self.success).max(sum(&self.failure))
    }
}

impl Op {
    fn cost(&self) -> u64 {
        match self {
            Self::Put(put) => put.cost(),
            Self::Txn(txn) => txn.cost(),
            Self::Range(_) | Self::DeleteRange(_) | Self::Nothing => 0,
        }
    }
}

/// What a put may add, in bytes.
pub fn put_cost(key_bytes: usize, value_bytes: usize) -> u64 {
    (QUOTA_KEY_BYTES + key_bytes + value_bytes) as u64
}
