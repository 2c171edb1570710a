//! The store and its edge from the client's side: bytes of a request in, bytes of a response out.
//!
//! Three kinds: scripts (one idea a file, under `src/store/scripts`), a table of what is refused
//! before the log, and random requests judged by the model.

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;

use super::{
    Edge, Header, Method, Status, Work, answer, cluster, decode, kv, lease, maintenance, reply,
    status,
};
use crate::{
    mesh::LeaseTime,
    store::{
        Lease, Member, Outcome, Quota, RaftSeen, Store, View,
        command::{self, MemberChange},
        encode_lease_grant,
    },
    tree::{Options, Tree},
    types::{ClusterId, Index, LeaseId, MemberId, Term, Ticket},
};
use std::{sync::Arc, time::Duration};

mod lease_test;
mod leases;
mod members;
mod model_test;
mod refusals;
mod script;
mod wire;

/// A member without a log: what is proposed is applied at once, through an encoded entry.
struct World {
    store: Store,
    view: View,
    edge: Edge,
    /// What the edge believes the files take.
    disk_bytes: u64,
}

const RAFT: RaftSeen = RaftSeen {
    term: Term(2),
    leader: MemberId(7),
    committed: Index(9),
    elected: None,
    in_touch: None,
};

impl World {
    fn new() -> Self {
        let quota = Quota::from_flag(0);
        let edge = Edge {
            request_bytes_max: crate::limits::REQUEST_BYTES_MAX,
            txn_ops_max: crate::limits::TXN_OPS_MAX,
            quota,
            quota_flag_bytes: 0,
            cluster: ClusterId(0xc),
            member: MemberId(7),
            lease_ttl_min: 2,
        };
        let tree = Tree::new(Options { page_bytes: 256, segment_bytes: 1 << 16, index_files: 32 });
        let mut store = Store::new(tree, quota);
        store.set_member(Member {
            id: MemberId(7),
            peer_urls: vec!["http://localhost:2380".to_owned()],
            ..Member::default()
        });
        let view = store.publish(RAFT);
        Self { store, view, edge, disk_bytes: 0 }
    }

    fn header(&self) -> Header {
        Header::of(&self.view, &self.edge)
    }

    /// Applies one body as an entry of its own.
    fn commit(&mut self, body: &[u8]) -> Outcome {
        let mut data = Vec::new();
        command::append(&mut data, Ticket(5), body);
        let mut outcomes = Vec::new();
        let index = Index(self.store.applied().0 + 1);
        let applied = self.store.apply(index, Term(2), data.into(), |ticket, outcome| {
            outcomes.push((ticket, outcome));
        });
        applied.expect("the edge proposes only what can be applied");
        self.view = self.store.publish(RAFT);
        let (ticket, outcome) = outcomes.pop().expect("one request, one outcome");
        assert!(outcomes.is_empty() && ticket == Ticket(5));
        outcome
    }

    /// Applies a change of members as an entry of its own.
    fn change(&mut self, change: &MemberChange) -> Outcome {
        let index = Index(self.store.applied().0 + 1);
        let changed = self.store.change_members(index, Term(2), change.encode(Ticket(5)));
        self.view = self.store.publish(RAFT);
        changed.expect("the edge proposes only what can be applied").outcome
    }

    /// The one message that answers a body which is proposed without an edge.
    fn propose<R: Message + Default>(&mut self, body: &[u8]) -> Result<R, Status> {
        let mut out = Vec::new();
        reply(&self.commit(body), self.header(), &mut out)?;
        let body = unframed(&out).pop().expect("a unary call has one answer");
        Ok(R::decode(Bytes::from(body)).expect("we write what prost can read"))
    }

    /// The bodies of the messages that answer a request.
    fn call_raw(&mut self, method: Method, request: Vec<u8>) -> Result<Vec<Vec<u8>>, Status> {
        let mut out = Vec::new();
        match decode(method, request.into(), &self.edge, self.disk_bytes) {
            Work::Recipe(_) => panic!("recipes are served by shards"),
            Work::Refuse(status) => return Err(status),
            Work::NoSpace(alarm) => {
                self.commit(&alarm);
                return Err(status::NO_SPACE);
            }
            Work::Propose(body) => {
                let outcome = self.commit(&body);
                reply(&outcome, self.header(), &mut out)?;
            }
            Work::Grant { id, ttl } => {
                let id = if id == LeaseId(0) { LeaseId(0x70) } else { id };
                let outcome = self.commit(&encode_lease_grant(id, ttl));
                reply(&outcome, self.header(), &mut out)?;
            }
            Work::TimeToLive(asked) => {
                // As if a tenth of a second had passed since it was granted.
                let found = self.view.leases().get(asked.id).map(|lease| LeaseTime {
                    granted: lease.granted,
                    remaining: ttl(lease) - Duration::from_millis(100),
                });
                lease::answer_time_to_live(asked, found, &self.view, self.header(), &mut out);
            }
            Work::Leases => {
                let found = self.view.leases().from(LeaseId(i64::MIN));
                let found = found.map(|(id, lease)| (ttl(lease), id)).collect();
                let mut listing = lease::Listing::new(Arc::new(found), self.header());
                while listing.step() {}
                listing.finish(&mut out);
            }
            Work::AddMember { peer_urls, learner } => {
                let member = cluster::new_member(peer_urls, learner, 1_700_000_000);
                reply(&self.change(&MemberChange::Add(member)), self.header(), &mut out)?;
            }
            Work::Change(change) => reply(&self.change(&change), self.header(), &mut out)?,
            Work::MoveLeader(_) | Work::Defragment => maintenance::encode_empty(&mut out),
            Work::Sum(sum) => {
                let mut summing = maintenance::Summing::new(sum, &self.view, &self.edge)?;
                while summing.step() {}
                summing.finish(&mut out);
            }
            Work::Read { read: super::Read::RangeStream(query), .. } => {
                let mut stream = kv::Stream::new(query, &self.view, &self.edge);
                while stream.next(&self.view, &mut out)? {}
            }
            Work::Read { read, .. } => answer(&read, &self.view, &self.edge, &mut out)?,
        }
        Ok(unframed(&out))
    }

    /// The one message that answers a request.
    fn call<R: Message + Default>(
        &mut self,
        method: Method,
        request: &impl Message,
    ) -> Result<R, Status> {
        let mut bodies = self.call_raw(method, request.encode_to_vec())?;
        assert_eq!(bodies.len(), 1, "a unary call has one answer");
        Ok(R::decode(Bytes::from(bodies.remove(0))).expect("we write what prost can read"))
    }
}

/// Splits gRPC messages; each must be whole.
fn unframed(mut out: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while let Some((prefix, rest)) = out.split_first_chunk::<5>() {
        let [compressed, len @ ..] = *prefix;
        let (body, rest) = rest.split_at(u32::from_be_bytes(len) as usize);
        assert_eq!(compressed, 0);
        bodies.push(body.to_vec());
        out = rest;
    }
    assert!(out.is_empty(), "no bytes beside whole messages");
    bodies
}

fn ttl(lease: Lease) -> Duration {
    Duration::from_secs(lease.granted.unsigned_abs())
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    }
}
