//! Numbers that do not mix. Each is its own type, so that a term is never passed for an index.

use std::fmt;

/// etcd's main revision: one for each change of the store. A fresh store is at 1, and the first
/// put makes 2 (etcd `mvcc`). Signed because the wire is; 0 and below mean "current" in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// A revision with the position of one change inside it: etcd's `(main, sub)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The main revision the change belongs to.
    pub main: Revision,
    /// Position among the changes of that revision, from 0.
    pub sub: u32,
}

/// Position in the raft log, from 1; 0 is before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// A raft term, from 1; 0 is before the first election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// A member's id, as etcd computes it. Printed in hex, as etcd prints it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// A cluster's id, as etcd computes it. Printed in hex, as etcd prints it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// A lease's id; any non-zero value is legal, negative ones too (etcd `lease`). 0 means no lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// The receipt that ties a waiting client to its proposal or read. Unique per member and boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Dense number of a record since genesis: the record's address in the engine, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberId({:x})", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({:x})", self.0)
    }
}

impl Stamp {
    /// The change `sub` of revision `main`.
    pub fn new(main: i64, sub: u32) -> Self {
        Self { main: Revision(main), sub }
    }
}

/// Bits of a ticket that count; above them the shard, above that the member's low bits.
const TICKET_COUNT_BITS: u32 = 44;
/// Bits of a ticket that say which shard waits.
const TICKET_SHARD_BITS: u32 = 8;

/// Most shards that tickets can tell apart.
pub const SHARDS_MAX: usize = 1 << TICKET_SHARD_BITS;

impl Ticket {
    /// The ticket `count` of a shard. `count` starts at the start's number, its microseconds since the
    /// epoch at least, so that no ticket of an earlier start comes back while fewer than a million
    /// are drawn a second; where the wall clock is behind, it starts
    /// [`STARTS_APART_TICKETS_MIN`](crate::limits::STARTS_APART_TICKETS_MIN) after the last time. What
    /// an earlier start proposed is still applied later, and must not answer somebody else. It wraps
    /// after 200 days' worth.
    pub fn new(member: MemberId, shard: usize, count: u64) -> Self {
        let count = count & ((1 << TICKET_COUNT_BITS) - 1);
        let owner = Self::owner(member) | shard as u64;
        Self(owner << TICKET_COUNT_BITS | count)
    }

    /// Which shard of `member` waits for it; `None` when another member's does.
    pub fn shard_of(self, member: MemberId) -> Option<usize> {
        let (owner, shard_mask) = (self.0 >> TICKET_COUNT_BITS, (1 << TICKET_SHARD_BITS) - 1);
        (owner & !shard_mask == Self::owner(member)).then_some((owner & shard_mask) as usize)
    }

    fn owner(member: MemberId) -> u64 {
        let bits = u64::BITS - TICKET_COUNT_BITS - TICKET_SHARD_BITS;
        (member.0 & ((1 << bits) - 1)) << TICKET_SHARD_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_finds_its_way_back() {
        let (ours, theirs) = (MemberId(0x8e9e_05c5_2164_694d), MemberId(0x8e9e_05c5_2164_694e));
        for shard in [0, 1, SHARDS_MAX - 1] {
            for count in [0, 1, u64::MAX] {
                let ticket = Ticket::new(ours, shard, count);
                assert_eq!(ticket.shard_of(ours), Some(shard));
                assert_eq!(ticket.shard_of(theirs), None);
            }
        }
        assert_ne!(Ticket::new(ours, 0, 1), Ticket::new(ours, 1, 1));
    }
}
