//! The service `Lease`: what its requests ask, and how its answers are written.
//!
//! Which leases there are is in the view; when they end only the leader's clock knows. So a
//! `TimeToLive` is answered from both, and a keep-alive from the clock alone.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;

use super::{
    Edge, Header, Status, Work,
    encode::{bytes, message, nested, number},
    kv::{no_space, parse},
    status,
};
use crate::{
    limits::{LEASE_TTL_SECONDS_MAX, LEASES_PER_TURN_MAX},
    mesh::LeaseTime,
    store::{GRANT_COST, View, encode_lease_revoke},
    types::LeaseId,
};

/// `LeaseTimeToLiveRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeToLive {
    /// Which lease.
    pub id: LeaseId,
    /// Answer with its keys too.
    pub keys: bool,
}

/// `LeaseGrant`, in etcd's order: room, then the TTL; that the id is free is seen when it is applied.
pub(super) fn decode_grant(raw: Bytes, edge: &Edge, disk_bytes: u64) -> Result<Work, Status> {
    let request: pb::LeaseGrantRequest = parse(raw)?;
    if !edge.quota.fits(disk_bytes, GRANT_COST) {
        return Ok(no_space(edge.member));
    }
    if request.ttl > LEASE_TTL_SECONDS_MAX {
        return Err(status::LEASE_TTL_TOO_LARGE);
    }
    Ok(Work::Grant { id: LeaseId(request.id), ttl: request.ttl.max(edge.lease_ttl_min) })
}

/// `LeaseRevoke`. The request is written anew, because on the log it may say more than a client may.
pub(super) fn decode_revoke(raw: Bytes) -> Result<Work, Status> {
    let request: pb::LeaseRevokeRequest = parse(raw)?;
    Ok(Work::Propose(encode_lease_revoke(LeaseId(request.id), None)))
}

pub(super) fn decode_time_to_live(raw: Bytes) -> Result<Work, Status> {
    let request: pb::LeaseTimeToLiveRequest = parse(raw)?;
    Ok(Work::TimeToLive(TimeToLive { id: LeaseId(request.id), keys: request.keys }))
}

pub(super) fn decode_leases(raw: Bytes) -> Result<Work, Status> {
    let _: pb::LeaseLeasesRequest = parse(raw)?;
    Ok(Work::Leases)
}

/// One message of a `LeaseKeepAlive` stream: which lease to renew.
///
/// # Errors
/// A message that is no request, as grpc-go says it of a stream.
pub fn decode_keep_alive(raw: Bytes) -> Result<LeaseId, Status> {
    let request =
        pb::LeaseKeepAliveRequest::decode(raw).map_err(|_| status::MALFORMED_IN_STREAM)?;
    Ok(LeaseId(request.id))
}

/// Appends the answer to one keep-alive: one gRPC message. `ttl` is what the leader's clock said:
/// seconds from now on, or `None` for a lease that is not there, which is no error.
///
/// `header` is that of the moment before the leader was asked, so that nobody sees a renewal
/// succeed at a revision at which the lease was gone (etcd `v3rpc/lease.go`).
pub fn encode_keep_alive(id: LeaseId, ttl: Option<i64>, header: Header, out: &mut Vec<u8>) {
    message(out, |out| timed(id, ttl.unwrap_or(0), header, out));
}

pub(super) fn granted(id: LeaseId, ttl: i64, header: Header, out: &mut Vec<u8>) {
    timed(id, ttl, header, out);
}

/// What a grant's, a keep-alive's and a time-to-live's answers have in common.
fn timed(id: LeaseId, ttl: i64, header: Header, out: &mut Vec<u8>) {
    header.encode(out);
    number(2, id.0 as u64, out);
    number(3, ttl as u64, out);
}

/// Appends the answer to `asked`: one gRPC message. `found` is what the leader's clock said, `view`
/// at least as new as that.
pub fn answer_time_to_live(
    asked: TimeToLive,
    found: Option<LeaseTime>,
    view: &View,
    header: Header,
    out: &mut Vec<u8>,
) {
    message(out, |out| {
        let Some(LeaseTime { granted, remaining }) = found else {
            return timed(asked.id, -1, header, out);
        };
        timed(asked.id, remaining.as_secs() as i64, header, out);
        number(4, granted as u64, out);
        if asked.keys {
            view.leases().keys(asked.id).for_each(|key| bytes(5, key, out));
        }
    });
}

/// The answer to `LeaseLeases`, which etcd sorts by deadline: made in steps, because a million
/// leases are not sorted in a turn.
///
/// ```text
/// found ─ sorted run, sorted run, … ─ a heap of their heads ─ body
/// ```
pub struct Listing {
    found: Arc<Vec<(Duration, LeaseId)>>,
    /// Runs not yet copied and sorted begin here.
    unsorted: usize,
    runs: Vec<std::vec::IntoIter<(Duration, LeaseId)>>,
    heads: BinaryHeap<Reverse<((Duration, LeaseId), usize)>>,
    body: Vec<u8>,
}

impl Listing {
    /// Begins with what the leader's clock said.
    pub fn new(found: Arc<Vec<(Duration, LeaseId)>>, header: Header) -> Self {
        let mut body = Vec::new();
        header.encode(&mut body);
        let (runs, heads) = (Vec::new(), BinaryHeap::new());
        Self { found, unsorted: 0, runs, heads, body }
    }

    /// Works on a bounded number of leases; false once the answer is whole.
    pub fn step(&mut self) -> bool {
        if self.unsorted < self.found.len() {
            self.sort_run();
            return true;
        }
        for _ in 0..LEASES_PER_TURN_MAX {
            let Some(Reverse(((_, id), run))) = self.heads.pop() else { return false };
            nested(2, &mut self.body, |out| number(1, id.0 as u64, out));
            self.push_head(run);
        }
        !self.heads.is_empty()
    }

    fn sort_run(&mut self) {
        let end = self.found.len().min(self.unsorted + LEASES_PER_TURN_MAX);
        let mut run = self.found[self.unsorted..end].to_vec();
        run.sort_unstable();
        self.unsorted = end;
        self.runs.push(run.into_iter());
        self.push_head(self.runs.len() - 1);
    }

    fn push_head(&mut self, run: usize) {
        let head = self.runs[run].next();
        self.heads.extend(head.map(|head| Reverse((head, run))));
    }

    /// Appends the answer: one gRPC message.
    ///
    /// # Panics
    /// Before [`Listing::step`] has said that it is whole.
    pub fn finish(self, out: &mut Vec<u8>) {
        assert!(self.unsorted == self.found.len() && self.heads.is_empty(), "it is not whole");
        message(out, |out| out.extend_from_slice(&self.body));
    }
}
