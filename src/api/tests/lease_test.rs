//! What no script can say: transactions that the edge would refuse, and room that ran out meanwhile.

use pb::request_op::Request;

use super::*;
use crate::{
    store::{
        Refusal,
        command::{body, field},
        encode_lease_grant, encode_lease_revoke,
    },
    types::LeaseId,
};

fn keys(world: &World, id: i64) -> Vec<&[u8]> {
    world.view.leases().keys(LeaseId(id)).collect()
}

fn leased(key: &str, lease: i64) -> Request {
    Request::RequestPut(pb::PutRequest { lease, ..put(key, "v") })
}

/// A log may hold what this edge refuses: another member's edge let it through.
fn txn(world: &mut World, operations: Vec<Request>) -> Outcome {
    let success = operations.into_iter().map(|request| pb::RequestOp { request: Some(request) });
    let txn = pb::TxnRequest { success: success.collect(), ..Default::default() };
    world.commit(&body(field::TXN, &txn.encode_to_vec()))
}

#[test]
fn a_key_written_twice_in_a_transaction_holds_on_to_the_last_lease() {
    let mut world = World::new();
    for id in [1, 2] {
        world.commit(&encode_lease_grant(LeaseId(id), 60));
    }
    let del = |key: &str| {
        let key = Bytes::copy_from_slice(key.as_bytes());
        Request::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() })
    };
    txn(&mut world, vec![leased("a", 1), leased("a", 2), leased("b", 2), leased("b", 0)]);
    assert_eq!((keys(&world, 1).len(), keys(&world, 2)), (0, vec![&b"a"[..]]));
    txn(&mut world, vec![del("a"), leased("a", 1), leased("c", 1), del("c")]);
    assert_eq!((keys(&world, 1), keys(&world, 2).len()), (vec![&b"a"[..]], 0));

    // What the transaction deleted before has no lease to keep.
    let keep = pb::PutRequest { ignore_lease: true, ..put("a", "w") };
    txn(&mut world, vec![del("a"), Request::RequestPut(keep)]);
    assert!(keys(&world, 1).is_empty());
}

#[test]
fn an_unknown_lease_refuses_the_transaction_whole_and_attaches_nothing() {
    let mut world = World::new();
    world.commit(&encode_lease_grant(LeaseId(1), 60));
    let outcome = txn(&mut world, vec![leased("a", 1), leased("b", 9)]);
    assert_eq!(outcome, Outcome::Refused(Refusal::LeaseNotFound));
    assert!(keys(&world, 1).is_empty() && world.view.revision.0 == 1);
}

/// Members may differ in the room they have: it colours the answer, never the state.
#[test]
fn a_grant_without_room_is_refused_and_there() {
    let mut world = World::new();
    let tree = Tree::new(Options { page_bytes: 256, segment_bytes: 1 << 16, index_files: 32 });
    world.store = Store::new(tree, Quota::from_flag(1));
    let outcome = world.commit(&encode_lease_grant(LeaseId(1), 60));
    assert_eq!(outcome, Outcome::LeaseGrantedWithoutRoom { id: LeaseId(1), ttl: 60 });
    let said = reply(&outcome, world.header(), &mut Vec::new());
    assert_eq!(said, Err(status::NO_SPACE));
    assert!(world.view.leases().get(LeaseId(1)).is_some());
    let outcome = world.commit(&encode_lease_revoke(LeaseId(1), None));
    assert!(matches!(outcome, Outcome::LeaseRevoked { .. }), "revoking takes no room");
}

#[test]
fn leases_take_room_on_disk_and_give_it_back() {
    let mut world = World::new();
    let before = world.view.disk_bytes;
    (1..=100).for_each(|id| drop(world.commit(&encode_lease_grant(LeaseId(id), 60))));
    assert!((3200..3800).contains(&(world.view.disk_bytes - before)));
    (1..=100).for_each(|id| drop(world.commit(&encode_lease_revoke(LeaseId(id), None))));
    assert_eq!(world.view.disk_bytes, before);
}
