//! What clients say: requests, drawn.

use crate::{
    check::Request,
    executor::Lot,
    weather::{Day, Weather},
};
use prost::{Message, bytes::Bytes};
use proto::etcdserverpb::{
    self as pb, compare::TargetUnion, request_op, watch_create_request::FilterType,
};
use ringleader::{
    api::Method,
    limits::LEASE_TTL_SECONDS_MAX,
    store::{Member, View, command::MemberChange},
    types::{LeaseId, MemberId},
};

/// Ids that clients choose for their leases, again and again.
const LEASE_IDS: [i64; 4] = [1, 2, i64::MAX, -5];
/// Leases of the view that a client has in mind.
const LEASES_KNOWN: usize = 8;

impl Request {
    pub(crate) fn encode(&self) -> (Method, Bytes) {
        let (method, bytes) = match self {
            Self::Range(r) => (Method::Range, r.encode_to_vec()),
            Self::Put(r) => (Method::Put, r.encode_to_vec()),
            Self::DeleteRange(r) => (Method::DeleteRange, r.encode_to_vec()),
            Self::Txn(r) => (Method::Txn, r.encode_to_vec()),
            Self::Compact(r) => (Method::Compact, r.encode_to_vec()),
            Self::Grant(r) => (Method::LeaseGrant, r.encode_to_vec()),
            Self::Revoke(r) => (Method::LeaseRevoke, r.encode_to_vec()),
            Self::TimeToLive(r) => (Method::LeaseTimeToLive, r.encode_to_vec()),
            Self::Leases => (Method::LeaseLeases, pb::LeaseLeasesRequest {}.encode_to_vec()),
            Self::Renew(_) => unreachable!("that is asked on a stream"),
            Self::Introduce(_) => unreachable!("no client asks that"),
            Self::Change(_) | Self::MoveLeader(_) => unreachable!("the node is asked directly"),
        };
        (method, bytes.into())
    }
}

pub(crate) fn everything() -> pb::RangeRequest {
    let zero = Bytes::from_static(&[0]);
    pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() }
}

/// One of a crowd: all keys, with what was there before.
pub(crate) fn everybody() -> pb::WatchCreateRequest {
    let pb::RangeRequest { key, range_end, .. } = everything();
    pb::WatchCreateRequest { key, range_end, prev_kv: true, ..Default::default() }
}

/// Draws what an operator wants of the cluster of a view, where this member has asked `count` times.
pub(crate) fn operate(lot: &mut Lot, view: &View, asker: MemberId, count: u64) -> Request {
    let all: Vec<&Member> = view.cluster.members.values().collect();
    let Some(some) = all.get(lot.below(all.len().max(1) as u64) as usize) else {
        return Request::MoveLeader(asker.0);
    };
    let url = |word: &str| format!("http://{word}-{:x}-{count}:2380", asker.0);
    match lot.below(14) {
        0..5 => Request::MoveLeader(some.id.0),
        5..7 => {
            Request::Change(MemberChange::Update { id: some.id, peer_urls: vec![url("moved")] })
        }
        7 => {
            let peer_urls = some.peer_urls.clone();
            Request::Change(MemberChange::Update { id: asker, peer_urls })
        }
        8 => Request::Change(MemberChange::Promote(some.id)),
        9 => {
            // A learner that nobody starts.
            let id = MemberId(0xf00 + lot.below(3));
            let peer_urls = vec![url("learner")];
            let learner = Member { id, peer_urls, learner: true, ..Member::default() };
            Request::Change(MemberChange::Add(learner))
        }
        10..13 if all.len() > 2 || some.learner => Request::Change(MemberChange::Remove(some.id)),
        _ => Request::Change(MemberChange::Remove(MemberId(0xf00 + lot.below(4)))),
    }
}

/// Draws requests.
pub(crate) struct Tongue<'a> {
    lot: &'a mut Lot,
    weather: &'a Weather,
    /// Newest revision that the asker has seen.
    revision: i64,
    compacted: i64,
    leases: Vec<i64>,
}

impl<'a> Tongue<'a> {
    pub(crate) fn new(lot: &'a mut Lot, weather: &'a Weather, view: &View) -> Self {
        let leases = view.leases().from(LeaseId(i64::MIN)).take(LEASES_KNOWN);
        Self {
            lot,
            weather,
            revision: view.revision.0,
            compacted: view.compacted().0,
            leases: leases.map(|(id, _)| id.0).collect(),
        }
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.lot.below(below)
    }

    pub(crate) fn request(&mut self, day: &Day) -> Request {
        match if day.reads_only { 70 + self.roll(30) } else { self.roll(100) } {
            0..33 => Request::Put(self.put()),
            33..41 => Request::DeleteRange(self.delete_range()),
            41..54 => Request::Txn(self.txn(1)),
            54..58 => Request::Compact(pb::CompactionRequest {
                revision: self.old_revision(),
                physical: self.roll(2) == 0,
            }),
            58..64 => Request::Grant(self.grant()),
            64..66 => Request::Revoke(pb::LeaseRevokeRequest { id: self.lease() }),
            66..70 => Request::Renew(self.lease()),
            70..74 => Request::TimeToLive(pb::LeaseTimeToLiveRequest {
                id: self.lease(),
                keys: self.roll(2) == 0,
            }),
            74..76 => Request::Leases,
            _ => Request::Range(self.range()),
        }
    }

    /// One that is there, as a rule.
    fn lease(&mut self) -> i64 {
        match self.roll(8) {
            0 => LEASE_IDS[self.roll(4) as usize],
            _ if self.leases.is_empty() => 0,
            _ => {
                let pick = self.roll(self.leases.len() as u64) as usize;
                self.leases[pick]
            }
        }
    }

    fn grant(&mut self) -> pb::LeaseGrantRequest {
        let id = if self.roll(2) == 0 { LEASE_IDS[self.roll(4) as usize] } else { 0 };
        let ttl = match self.roll(20) {
            0 => LEASE_TTL_SECONDS_MAX + self.roll(2) as i64,
            _ => self.roll(self.weather.ttl_max + 1) as i64,
        };
        pb::LeaseGrantRequest { id, ttl }
    }

    fn key(&mut self) -> Bytes {
        format!("k{}", self.roll(self.weather.keys)).into()
    }

    fn end(&mut self) -> Bytes {
        match self.roll(6) {
            0 => Bytes::from_static(&[0]),
            1 => self.key(),
            2 => Bytes::from_static(b"l"),
            _ => Bytes::new(),
        }
    }

    fn old_revision(&mut self) -> i64 {
        let back = self.roll(12) as i64;
        self.revision - back + 1
    }

    fn value(&mut self) -> Bytes {
        let (tag, len) = (self.lot.draw(), self.roll(self.weather.value_bytes) as usize);
        let mut value = format!("{tag:x}").into_bytes();
        value.resize(value.len().max(len), b'.');
        value.into()
    }

    fn put(&mut self) -> pb::PutRequest {
        let ignore_value = self.roll(12) == 0;
        let ignore_lease = self.roll(12) == 0;
        let leased = !ignore_lease && self.roll(3) == 0;
        pb::PutRequest {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            prev_kv: self.roll(3) == 0,
            ignore_value,
            ignore_lease,
            lease: if leased { self.lease() } else { 0 },
        }
    }

    fn delete_range(&mut self) -> pb::DeleteRangeRequest {
        let prev_kv = self.roll(2) == 0;
        pb::DeleteRangeRequest { key: self.key(), range_end: self.end(), prev_kv }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let mut range = match self.roll(3) {
            0 => everything(),
            _ => pb::RangeRequest { key: self.key(), range_end: self.end(), ..Default::default() },
        };
        range.revision = if self.roll(3) == 0 { self.old_revision().max(0) } else { 0 };
        range.limit = if self.roll(4) == 0 { 1 + self.roll(4) as i64 } else { 0 };
        range.keys_only = self.roll(6) == 0;
        range.count_only = self.roll(6) == 0;
        range.sort_target = if self.roll(4) == 0 { self.roll(5) as i32 } else { 0 };
        range.sort_order = self.roll(3) as i32;
        range
    }

    fn txn(&mut self, depth: u64) -> pb::TxnRequest {
        let compare = (0..self.roll(3)).map(|_| self.compare()).collect();
        let mut ops = |most| (0..self.roll(most)).map(|_| self.operation(depth)).collect();
        pb::TxnRequest { compare, success: ops(4), failure: ops(3) }
    }

    fn compare(&mut self) -> pb::Compare {
        let revision = self.old_revision();
        let (target, union) = match self.roll(4) {
            3 => (4, TargetUnion::Lease(self.lease())),
            0 => (0, TargetUnion::Version(self.roll(3) as i64)),
            1 => (1, TargetUnion::CreateRevision(revision)),
            _ => (2, TargetUnion::ModRevision(revision)),
        };
        pb::Compare {
            result: self.roll(4) as i32,
            target,
            key: self.key(),
            range_end: Bytes::new(),
            target_union: Some(union),
        }
    }

    fn operation(&mut self, depth: u64) -> pb::RequestOp {
        let request = match self.roll(if depth > 0 { 9 } else { 8 }) {
            0..4 => request_op::Request::RequestPut(self.put()),
            4..6 => request_op::Request::RequestRange(self.range()),
            6..8 => request_op::Request::RequestDeleteRange(self.delete_range()),
            _ => request_op::Request::RequestTxn(self.txn(depth - 1)),
        };
        pb::RequestOp { request: Some(request) }
    }

    /// A watcher of any shape, from a revision that is gone, past, present or to come.
    pub(crate) fn watch(&mut self) -> pb::WatchCreateRequest {
        let filters = match self.roll(5) {
            0 => vec![FilterType::Noput.into()],
            1 => vec![FilterType::Nodelete.into()],
            _ => Vec::new(),
        };
        let start_revision = match self.roll(6) {
            0..3 => 0,
            3 => self.old_revision() + self.roll(8) as i64,
            4 => self.compacted.max(1) - 1 + self.roll(3) as i64,
            _ => 1 + self.roll(self.revision as u64) as i64,
        };
        let wide = self.roll(2) == 0;
        pb::WatchCreateRequest {
            key: if wide { Bytes::from_static(&[0]) } else { self.key() },
            range_end: if wide { Bytes::from_static(&[0]) } else { self.end() },
            start_revision,
            progress_notify: self.roll(3) == 0,
            filters,
            prev_kv: self.roll(2) == 0,
            watch_id: self.roll(5).saturating_sub(1) as i64,
            fragment: self.roll(3) == 0,
        }
    }
}
