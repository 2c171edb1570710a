//! What clients send: the messages of every method, from bytes to an answer.

use super::{
    memory::bounded,
    mutate::{Dice, fuzz},
};
use bytes::Bytes;
use prost::Message;
use proto::{
    etcdserverpb::{
        self as pb, compare::TargetUnion, request_op::Request, watch_request::RequestUnion,
    },
    health,
};
use ringleader::{
    api::{
        self, Edge, Header, Method, Read, Work, cluster, kv, lease,
        maintenance::{Sum, Summing},
        method::METHODS,
    },
    mesh::LeaseTime,
    store::{
        Quota, RaftSeen, Store,
        command::{self, MemberChange},
        encode_lease_grant,
    },
    tree::{Options, Tree},
    types::{ClusterId, Index, LeaseId, MemberId, Term, Ticket},
};
use std::{sync::Arc, time::Duration};

fn key(dice: &mut Dice) -> Bytes {
    dice.bytes(5).into()
}

fn end(dice: &mut Dice) -> Bytes {
    match dice.below(3) {
        0 => Bytes::new(),
        1 => Bytes::from_static(&[0]),
        _ => key(dice),
    }
}

/// Zero mostly, so that a request is taken now and then; else anything.
fn rarely(dice: &mut Dice) -> i64 {
    if dice.once_in(6) { dice.number() as i64 } else { 0 }
}

fn range(dice: &mut Dice) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key(dice),
        range_end: end(dice),
        limit: rarely(dice),
        revision: rarely(dice),
        sort_order: rarely(dice) as i32,
        sort_target: dice.below(6) as i32,
        serializable: dice.once_in(2),
        keys_only: dice.once_in(3),
        count_only: dice.once_in(4),
        min_mod_revision: rarely(dice),
        max_mod_revision: rarely(dice),
        min_create_revision: rarely(dice),
        max_create_revision: rarely(dice),
    }
}

fn put(dice: &mut Dice) -> pb::PutRequest {
    pb::PutRequest {
        key: key(dice),
        value: dice.bytes(50).into(),
        lease: rarely(dice),
        prev_kv: dice.once_in(2),
        ignore_value: dice.once_in(8),
        ignore_lease: dice.once_in(8),
    }
}

fn delete(dice: &mut Dice) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key(dice), range_end: end(dice), prev_kv: dice.once_in(2) }
}

fn operation(dice: &mut Dice, depth: usize) -> pb::RequestOp {
    let request = match dice.below(if depth > 0 { 5 } else { 4 }) {
        0 => Some(Request::RequestRange(range(dice))),
        1 => Some(Request::RequestPut(put(dice))),
        2 => Some(Request::RequestDeleteRange(delete(dice))),
        3 if dice.once_in(4) => None,
        3 => Some(Request::RequestPut(put(dice))),
        _ => Some(Request::RequestTxn(txn(dice, depth - 1))),
    };
    pb::RequestOp { request }
}

fn txn(dice: &mut Dice, depth: usize) -> pb::TxnRequest {
    let number = |dice: &mut Dice| rarely(dice);
    let compare = |dice: &mut Dice| pb::Compare {
        result: dice.below(5) as i32,
        target: dice.below(6) as i32,
        key: key(dice),
        range_end: end(dice),
        target_union: match dice.below(6) {
            0 => Some(TargetUnion::Version(number(dice))),
            1 => Some(TargetUnion::CreateRevision(number(dice))),
            2 => Some(TargetUnion::ModRevision(number(dice))),
            3 => Some(TargetUnion::Value(key(dice))),
            4 => Some(TargetUnion::Lease(number(dice))),
            _ => None,
        },
    };
    pb::TxnRequest {
        compare: (0..dice.below(3)).map(|_| compare(dice)).collect(),
        success: (0..dice.below(4)).map(|_| operation(dice, depth)).collect(),
        failure: (0..dice.below(3)).map(|_| operation(dice, depth)).collect(),
    }
}

fn watch(dice: &mut Dice) -> pb::WatchRequest {
    let union = match dice.below(4) {
        0 => RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: dice.below(3) as i64 }),
        1 => RequestUnion::ProgressRequest(pb::WatchProgressRequest {}),
        _ => RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: key(dice),
            range_end: key(dice),
            start_revision: dice.below(20) as i64 - 2,
            progress_notify: dice.once_in(2),
            filters: (0..dice.below(3)).map(|_| dice.below(3) as i32).collect(),
            prev_kv: dice.once_in(2),
            watch_id: dice.below(3) as i64 - 1,
            fragment: dice.once_in(2),
        }),
    };
    pb::WatchRequest { request_union: Some(union) }
}

fn peer_urls(dice: &mut Dice) -> Vec<String> {
    let url = |dice: &mut Dice| match dice.below(4) {
        0 => String::from_utf8_lossy(&dice.bytes(12)).into_owned(),
        port => format!("http://127.0.0.1:{port}"),
    };
    (0..dice.below(3)).map(|_| url(dice)).collect()
}

/// A message that a client of `method` may send.
pub fn request(method: Method, dice: &mut Dice) -> Vec<u8> {
    match method {
        Method::Range | Method::RangeStream => range(dice).encode_to_vec(),
        Method::Put => put(dice).encode_to_vec(),
        Method::DeleteRange => delete(dice).encode_to_vec(),
        Method::Txn => txn(dice, 3).encode_to_vec(),
        Method::Compact => {
            let (revision, physical) = (dice.number() as i64 % 50, dice.once_in(2));
            pb::CompactionRequest { revision, physical }.encode_to_vec()
        }
        Method::MemberList => {
            pb::MemberListRequest { linearizable: dice.once_in(2) }.encode_to_vec()
        }
        Method::Alarm => {
            let (action, alarm) = (dice.below(4) as i32, dice.below(4) as i32);
            pb::AlarmRequest { action, member_id: dice.number(), alarm }.encode_to_vec()
        }
        Method::LeaseGrant => {
            let ttl = if dice.once_in(4) { dice.number() as i64 } else { dice.below(100) as i64 };
            pb::LeaseGrantRequest { ttl, id: dice.below(9) as i64 }.encode_to_vec()
        }
        Method::LeaseRevoke => pb::LeaseRevokeRequest { id: dice.below(9) as i64 }.encode_to_vec(),
        Method::LeaseTimeToLive => {
            let (id, keys) = (dice.below(9) as i64, dice.once_in(2));
            pb::LeaseTimeToLiveRequest { id, keys }.encode_to_vec()
        }
        Method::LeaseLeases => pb::LeaseLeasesRequest {}.encode_to_vec(),
        Method::LeaseKeepAlive => {
            pb::LeaseKeepAliveRequest { id: dice.below(9) as i64 }.encode_to_vec()
        }
        Method::Watch => watch(dice).encode_to_vec(),
        // What they ask is read when their recipe begins.
        Method::Lock
        | Method::Unlock
        | Method::Campaign
        | Method::Proclaim
        | Method::Leader
        | Method::Observe
        | Method::Resign => dice.bytes(20),
        Method::MemberAdd => {
            let is_learner = dice.once_in(2);
            pb::MemberAddRequest { peer_urls: peer_urls(dice), is_learner }.encode_to_vec()
        }
        Method::MemberRemove => pb::MemberRemoveRequest { id: dice.roll() % 9 }.encode_to_vec(),
        Method::MemberUpdate => {
            let id = dice.roll() % 9;
            pb::MemberUpdateRequest { id, peer_urls: peer_urls(dice) }.encode_to_vec()
        }
        Method::MemberPromote => pb::MemberPromoteRequest { id: dice.roll() % 9 }.encode_to_vec(),
        Method::Defragment => pb::DefragmentRequest {}.encode_to_vec(),
        Method::Hash => pb::HashRequest {}.encode_to_vec(),
        Method::HashKv => pb::HashKvRequest { revision: rarely(dice) }.encode_to_vec(),
        Method::MoveLeader => pb::MoveLeaderRequest { target_id: dice.roll() % 9 }.encode_to_vec(),
        Method::Downgrade => {
            let version = (*dice.pick(&["3.6", "3.6.0", "3.7.0-a+b", "x", ""])).to_owned();
            pb::DowngradeRequest { action: dice.below(4) as i32, version }.encode_to_vec()
        }
        Method::Status => pb::StatusRequest {}.encode_to_vec(),
        Method::HealthCheck => {
            let service = if dice.once_in(2) { String::new() } else { "KV".into() };
            health::HealthCheckRequest { service }.encode_to_vec()
        }
    }
}

fn edge() -> Edge {
    Edge {
        request_bytes_max: 1 << 16,
        txn_ops_max: 16,
        quota: Quota::from_flag(-1),
        quota_flag_bytes: -1,
        cluster: ClusterId(0xc1),
        member: MemberId(0x3e),
        lease_ttl_min: 2,
    }
}

/// One gRPC message, whole.
fn check_framed(framed: &[u8]) {
    let length: [u8; 4] = framed[1..5].try_into().expect("a prefix has five bytes");
    assert_eq!((framed[0], u32::from_be_bytes(length) as usize), (0, framed.len() - 5));
}

/// A member without a log: what the edge lets through is applied, what it asks is answered.
struct Member {
    store: Store,
}

impl Member {
    fn new() -> Self {
        let options = Options { page_bytes: 512, segment_bytes: 1 << 16, index_files: 32 };
        Self { store: Store::new(Tree::new(options), edge().quota) }
    }

    /// What is proposed must be applied by every member: an entry that cannot be read stops one.
    fn apply(&mut self, body: &[u8]) {
        let (ticket, mut data, mut out) = (Ticket(7), Vec::new(), Vec::new());
        command::append(&mut data, ticket, body);
        let index = Index(self.store.applied().0 + 1);
        let mut replies = 0;
        let applied = self.store.apply(index, Term(1), data.into(), |to, outcome| {
            assert_eq!(to, ticket);
            replies += 1;
            match api::reply(&outcome, Header::default(), &mut out) {
                Ok(()) => check_framed(&out),
                Err(_refused) => assert!(out.is_empty(), "a refusal appends nothing"),
            }
        });
        assert_eq!((applied, replies), (Ok(()), 1), "what the edge takes can be applied");
    }

    fn change(&mut self, change: &MemberChange) {
        let index = Index(self.store.applied().0 + 1);
        let changed = self.store.change_members(index, Term(1), change.encode(Ticket(7)));
        let mut out = Vec::new();
        let outcome = changed.expect("what the edge takes can be applied").outcome;
        match api::reply(&outcome, Header::default(), &mut out) {
            Ok(()) => check_framed(&out),
            Err(_refused) => assert!(out.is_empty(), "a refusal appends nothing"),
        }
    }

    fn sum(&mut self, sum: Sum) {
        let view = self.store.publish(RaftSeen::default());
        let Ok(mut summing) = Summing::new(sum, &view, &edge()) else { return };
        while summing.step() {}
        let mut out = Vec::new();
        summing.finish(&mut out);
        check_framed(&out);
    }

    fn time_to_live(&mut self, asked: lease::TimeToLive) {
        let view = self.store.publish(RaftSeen::default());
        let found = view.leases().get(asked.id);
        let remaining = Duration::from_millis(1_500);
        let found = found.map(|lease| LeaseTime { granted: lease.granted, remaining });
        let mut out = Vec::new();
        lease::answer_time_to_live(asked, found, &view, Header::default(), &mut out);
        check_framed(&out);
    }

    fn leases(&mut self) {
        let found = self.store.leases().from(LeaseId(i64::MIN));
        let found = found.map(|(id, _)| (Duration::ZERO, id)).collect();
        let mut listing = lease::Listing::new(Arc::new(found), Header::default());
        while listing.step() {}
        let mut out = Vec::new();
        listing.finish(&mut out);
        check_framed(&out);
    }

    fn answer(&mut self, read: &Read) {
        let view = self.store.publish(RaftSeen::default());
        let mut out = Vec::new();
        if let Read::RangeStream(query) = read {
            let mut stream = kv::Stream::new(query.clone(), &view, &edge());
            while let Ok(true) = stream.next(&view, &mut out) {
                check_framed(&std::mem::take(&mut out));
            }
            return;
        }
        match api::answer(read, &view, &edge(), &mut out) {
            Ok(()) => check_framed(&out),
            Err(_refused) => assert!(out.is_empty(), "a refusal appends nothing"),
        }
    }
}

#[test]
fn requests() {
    let mut member = Member::new();
    fuzz("requests", |dice| {
        if dice.once_in(500) {
            member = Member::new();
        }
        let method = *dice.pick(&METHODS);
        let mut message = request(method, dice);
        dice.spoil(&mut message);
        let message = Bytes::from(message);
        // A message of two bytes may become an operation of a few hundred.
        let decode = || api::decode(method, message.clone(), &edge(), 0);
        match bounded(message.len(), 1200, decode) {
            Work::Propose(body) => member.apply(&body),
            Work::Grant { id, ttl } => member.apply(&encode_lease_grant(id, ttl)),
            Work::TimeToLive(asked) => member.time_to_live(asked),
            Work::Leases => member.leases(),
            Work::NoSpace(_) => panic!("there is room"),
            Work::Read { read, .. } => member.answer(&read),
            Work::AddMember { peer_urls, learner } => {
                member.change(&MemberChange::Add(cluster::new_member(peer_urls, learner, 7)));
            }
            Work::Change(change) => member.change(&change),
            Work::Sum(sum) => member.sum(sum),
            Work::MoveLeader(_) | Work::Defragment => {}
            Work::Recipe(same) => assert_eq!(same, message),
            Work::Refuse(status) => assert!(!status.message.is_empty()),
        }
    });
}

/// What streams bring, one message at a time.
#[test]
fn messages_of_streams() {
    fuzz("message of a stream", |dice| {
        let mut message = request(Method::Watch, dice);
        assert!(api::watch::decode(message.clone().into()).is_ok());
        dice.spoil(&mut message);
        let message = Bytes::from(message);
        let asked = bounded(message.len(), 300, || api::watch::decode(message.clone()));
        assert!(asked.is_ok_and(|ask| ask == ask.clone()) || !message.is_empty());
        let mut message = request(Method::LeaseKeepAlive, dice);
        assert!(lease::decode_keep_alive(message.clone().into()).is_ok());
        dice.spoil(&mut message);
        let read = || lease::decode_keep_alive(message.clone().into());
        assert_eq!(read(), read(), "the same bytes say the same");
    });
}

#[test]
fn paths() {
    fuzz("paths", |dice| {
        let (_, service, method) = dice.pick(&METHODS).labels();
        let path = format!("/{service}/{method}");
        assert!(Method::parse(&path).is_ok());
        let mut bytes = path.clone().into_bytes();
        dice.spoil(&mut bytes);
        let spoiled = String::from_utf8_lossy(&bytes);
        assert!(
            spoiled == path || Method::parse(&spoiled).is_err() || spoiled.len() < path.len() + 16
        );
    });
}
