//! The table of leases: what the store grants beside its keys, by id.
//!
//! A map of its own, so that a view of a million leases is published, and read on every core, as
//! cheaply as one of ten. Which keys hold on to a lease is not in it: the keys' cells say that.
//!
//! ```text
//! key   u64 id, its sign bit flipped, big endian: the map's order is that of the ids
//! body  i64 granted TTL   [i64 remaining TTL, where one was noted]         little endian, seconds
//! ```

use super::{Cursor, MapReader, Reader, Tree};
use crate::types::LeaseId;

/// What is known of a lease; the same on every member, whatever its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The TTL that was granted, seconds.
    pub granted: i64,
    /// What the leader last noted of it as left, seconds; 0 where it noted nothing.
    pub remaining: i64,
}

/// A lease's key in a map. [`LeaseId`]s are signed, keys are compared byte by byte.
pub fn lease_key(id: LeaseId) -> [u8; 8] {
    (id.0 ^ i64::MIN).to_be_bytes()
}

/// Reads what [`lease_key`] made.
///
/// # Panics
/// If `key` is shorter than 8 bytes.
pub fn lease_id(key: &[u8]) -> LeaseId {
    let bytes = key.first_chunk().expect("a lease's key has its id's bytes");
    LeaseId(i64::from_be_bytes(*bytes) ^ i64::MIN)
}

impl Lease {
    fn decode(body: &[u8]) -> Self {
        let (granted, rest) = body.split_first_chunk().expect("a lease has a TTL");
        let remaining = rest.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
        Self { granted: i64::from_le_bytes(*granted), remaining }
    }
}

impl Tree {
    /// Adds a lease, or says something else of it.
    pub fn set_lease(&mut self, id: LeaseId, lease: Lease) {
        let mut body = [0; 16];
        body[..8].copy_from_slice(&lease.granted.to_le_bytes());
        body[8..].copy_from_slice(&lease.remaining.to_le_bytes());
        let bytes = if lease.remaining == 0 { 8 } else { body.len() };
        self.leases.insert(&lease_key(id), &body[..bytes], true);
    }

    /// Removes a lease; false where there was none.
    pub fn remove_lease(&mut self, id: LeaseId) -> bool {
        self.leases.remove(&lease_key(id))
    }
}

impl<'a> Reader<'a> {
    /// What is known of lease `id`; None where it was never granted or is gone.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.leases.get(&lease_key(id)).map(Lease::decode)
    }

    /// The leases from id `from` on, in order of their ids.
    pub fn leases_from(&self, from: LeaseId) -> LeaseScan<'a> {
        LeaseScan(self.leases.seek(&lease_key(from)))
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> u64 {
        self.leases.live()
    }
}

/// Leases in order of their ids.
pub struct LeaseScan<'a>(Cursor<'a>);

impl<'a> LeaseScan<'a> {
    pub(crate) fn all(map: MapReader<'a>) -> Self {
        Self(map.seek(&[]))
    }
}

impl Iterator for LeaseScan<'_> {
    type Item = (LeaseId, Lease);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, body)| (lease_id(key), Lease::decode(body)))
    }
}
