//! The table of noes: each with etcd's code and sentence, and the order in which they are looked
//! for.

use super::*;
use crate::store::{Refusal, Unavailable};

#[test]
fn refusals_have_etcds_code_and_sentence() {
    let table: [(Status, u8, &str); 28] = [
        (Refusal::Compacted.into(), 11, "etcdserver: mvcc: required revision has been compacted"),
        (
            Refusal::FutureRevision.into(),
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (Refusal::KeyNotFound.into(), 3, "etcdserver: key not found"),
        (Refusal::LeaseNotFound.into(), 5, "etcdserver: requested lease not found"),
        (Refusal::LeaseExists.into(), 9, "etcdserver: lease already exists"),
        (status::LEASE_TTL_TOO_LARGE, 11, "etcdserver: too large lease TTL"),
        (Refusal::NoSpace.into(), 8, "etcdserver: mvcc: database space exceeded"),
        (Refusal::Corrupt.into(), 15, "etcdserver: corrupt cluster"),
        (Refusal::MemberNotFound.into(), 5, "etcdserver: member not found"),
        (Refusal::MemberExists.into(), 9, "etcdserver: member ID already exist"),
        (Refusal::PeerUrlExists.into(), 9, "etcdserver: Peer URLs already exists"),
        (Refusal::NotLearner.into(), 9, "etcdserver: can only promote a learner member"),
        (Refusal::TooManyLearners.into(), 9, "etcdserver: too many learner members in cluster"),
        (status::MEMBER_BAD_URLS, 3, "etcdserver: given member URLs are invalid"),
        (Unavailable::NotLeader.into(), 9, "etcdserver: not leader"),
        (Unavailable::Unhealthy.into(), 14, "etcdserver: unhealthy cluster"),
        (Unavailable::BadTransferee.into(), 9, "etcdserver: bad leader transferee"),
        (
            Unavailable::LearnerNotReady.into(),
            9,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        (
            Unavailable::NotEnoughStarted.into(),
            2,
            "etcdserver: re-configuration failed due to not enough started members",
        ),
        (Unavailable::NoLeader.into(), 14, "etcdserver: no leader"),
        (Unavailable::LeaderChanged.into(), 14, "etcdserver: leader changed"),
        (Unavailable::Stopped.into(), 14, "etcdserver: server stopped"),
        (Unavailable::Held.into(), 4, "context deadline exceeded"),
        (Unavailable::Overdue.into(), 4, "context deadline exceeded"),
        (Unavailable::Timeout.into(), 14, "etcdserver: request timed out"),
        (
            Unavailable::TimeoutLeaderFailed.into(),
            14,
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        (
            Unavailable::TimeoutConnectionLost.into(),
            14,
            "etcdserver: request timed out, possibly due to connection lost",
        ),
        // Sic: etcd means ResourceExhausted and says Unknown.
        (Unavailable::TooManyRequests.into(), 2, "etcdserver: too many requests"),
    ];
    for (status, code, message) in table {
        assert_eq!((status.code, &*status.message), (code, message));
    }
}

#[test]
fn unknown_methods_get_grpcs_words() {
    let table = [
        ("/etcdserverpb.KV/Rage", "unknown method Rage for service etcdserverpb.KV"),
        ("/etcdserverpb.KVS/Range", "unknown service etcdserverpb.KVS"),
        ("/a/b/c", "unknown service a/b"),
        ("/Range", "malformed method name: \"/Range\""),
        ("", "malformed method name: \"\""),
        (
            "/etcdserverpb.Maintenance/Snapshot",
            "etcdserver: Maintenance.Snapshot is not built yet in ringleader",
        ),
        ("/etcdserverpb.Auth/UserAdd", "etcdserver: Auth.UserAdd is not built yet in ringleader"),
        ("/etcdserverpb.Lease/Grant", "unknown method Grant for service etcdserverpb.Lease"),
    ];
    for (path, message) in table {
        let status = Method::parse(path).expect_err(path);
        assert_eq!((status.code, &*status.message), (12, message));
    }
    assert_eq!(Method::parse("/etcdserverpb.KV/Put"), Ok(Method::Put));
}

#[test]
fn a_request_that_is_no_protobuf_is_refused_as_grpc_does() {
    let mut world = World::new();
    for method in [Method::Put, Method::Range, Method::Txn, Method::Status, Method::Alarm] {
        assert_eq!(world.call_raw(method, vec![0x0a, 5, 1]), Err(status::MALFORMED));
    }
    let streamed = world.call_raw(Method::RangeStream, vec![0x0a, 5, 1]);
    assert_eq!(streamed, Err(status::MALFORMED_IN_STREAM));
}

#[test]
fn too_large_is_measured_with_the_header_it_gets_in_the_log() {
    let mut world = World::new();
    world.edge.request_bytes_max = 200;
    let most = (0..300).take_while(|n| {
        world.call::<pb::PutResponse>(Method::Put, &put("k", &"x".repeat(*n))).is_ok()
    });
    // The put's own field and length: 3 + 3 + n; around it 2 to 3, and 14 for the header.
    assert_eq!(most.last(), Some(200 - 14 - 3 - 3 - 3));
    let refused = world.call::<pb::PutResponse>(Method::Put, &put("k", &"x".repeat(500)));
    assert_eq!(refused, Err(status::REQUEST_TOO_LARGE));
    // A wrong request is wrong before it is large.
    let refused = world.call::<pb::PutResponse>(Method::Put, &put("", &"x".repeat(500)));
    assert_eq!(refused, Err(status::EMPTY_KEY));
}

fn txn_of(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..Default::default() }
}

fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

#[test]
fn a_nested_transaction_may_hold_what_its_parent_left() {
    use pb::request_op::Request::{RequestPut, RequestTxn};
    let puts = |n: usize| (0..n).map(|i| op(RequestPut(put(&format!("k{i}"), "")))).collect();
    let check = |request: &pb::TxnRequest| super::super::check::txn(request, 4);
    assert_eq!(check(&txn_of(puts(4))), Ok(()));
    assert_eq!(check(&txn_of(puts(5))), Err(status::TOO_MANY_OPS));
    let around = |inner| txn_of(vec![op(RequestTxn(inner))]);
    assert_eq!(check(&around(txn_of(puts(3)))), Ok(()));
    assert_eq!(check(&around(txn_of(puts(4)))), Err(status::TOO_MANY_OPS));
    assert_eq!(check(&around(around(txn_of(puts(2))))), Ok(()));
    assert_eq!(check(&around(around(txn_of(puts(3))))), Err(status::TOO_MANY_OPS));
    // Counted before looked at: an empty key inside does not matter yet.
    let mut wrong: Vec<_> = puts(4);
    wrong.push(op(RequestPut(put("", ""))));
    assert_eq!(check(&txn_of(wrong)), Err(status::TOO_MANY_OPS));
}

#[test]
fn a_duplicate_is_found_among_many_deletions() {
    use pb::request_op::Request::{RequestDeleteRange, RequestPut};
    let delete = |from: &str, end: &str| {
        let bytes = |s: &str| Bytes::copy_from_slice(s.as_bytes());
        let request =
            pb::DeleteRangeRequest { key: bytes(from), range_end: bytes(end), prev_kv: false };
        op(RequestDeleteRange(request))
    };
    let deletes = [("d", "f"), ("a", "b"), ("e", "h"), ("k", ""), ("p", "m"), ("c", "d")];
    for (key, dup) in [
        ("a", true),
        ("az", true),
        ("b", false),
        ("c", true),
        ("d", true),
        ("f", true),
        ("g", true),
        ("h", false),
        ("k", true),
        ("k0", false),
        ("n", false),
        ("p", false),
    ] {
        let mut ops: Vec<_> = deletes.iter().map(|(from, end)| delete(from, end)).collect();
        ops.push(op(RequestPut(put(key, ""))));
        let expected = if dup { Err(status::DUPLICATE_KEY) } else { Ok(()) };
        assert_eq!(super::super::check::txn(&txn_of(ops), 128), expected, "{key}");
    }
}

#[test]
fn a_put_may_lie_in_48_nested_transactions() {
    use pb::request_op::Request::{RequestPut, RequestTxn};
    let nested = |depth: usize| {
        let deepest = txn_of(vec![op(RequestPut(put("a", "1")))]);
        (0..depth).fold(deepest, |inner, _| txn_of(vec![op(RequestTxn(inner))])).encode_to_vec()
    };
    let mut world = World::new();
    // etcd's own decoder would read the answers of both; prost, in a test, reads neither.
    assert!(world.call_raw(Method::Txn, nested(48)).is_ok());
    let refused = world.call_raw(Method::Txn, nested(50)).expect_err("too deep");
    assert_eq!(refused, Status::not_built("a transaction nested more than 48 deep"));
    assert_eq!(world.store.revision().0, 2, "one of them was applied");
}
