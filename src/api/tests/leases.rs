//! The service `Lease` on the wire.

use super::*;
use crate::store::ALARM_NOSPACE;

fn grant(world: &mut World, ttl: i64, id: i64) -> Result<pb::LeaseGrantResponse, Status> {
    world.call(Method::LeaseGrant, &pb::LeaseGrantRequest { ttl, id })
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: 0xc, member_id: 7, revision, raft_term: 2 })
}

#[test]
fn a_grant_raises_short_ttls_and_refuses_those_that_are_too_long() {
    let mut world = World::new();
    for (asked, granted) in [(60, 60), (1, 2), (0, 2), (-5, 2), (9_000_000_000, 9_000_000_000)] {
        let id = asked + 100;
        let expected =
            pb::LeaseGrantResponse { header: header(1), id, ttl: granted, error: String::new() };
        assert_eq!(grant(&mut world, asked, id), Ok(expected), "a grant makes no revision");
    }
    assert_eq!(grant(&mut world, 9_000_000_001, 1), Err(status::LEASE_TTL_TOO_LARGE));
    assert_eq!(grant(&mut world, 60, 160), Err(status::LEASE_EXISTS));
    assert!(grant(&mut world, 60, -1).is_ok(), "any id but 0");
    assert!(grant(&mut world, 60, 0).is_ok_and(|granted| granted.id > 0));
}

#[test]
fn a_grant_without_room_raises_the_alarm_as_a_put_does() {
    let mut world = World::new();
    world.disk_bytes = 2 << 30;
    assert_eq!(grant(&mut world, 60, 1), Err(status::NO_SPACE));
    assert!(world.store.cluster().alarmed(ALARM_NOSPACE));
    assert!(world.store.leases().get(LeaseId(1)).is_none());
    world.disk_bytes = 0;
    assert_eq!(grant(&mut world, 60, 1), Err(status::NO_SPACE), "the alarm stands");
}

#[test]
fn revoking_deletes_the_keys_as_one_revision() {
    let mut world = World::new();
    grant(&mut world, 60, 7).expect("a new id");
    for key in ["b", "a"] {
        let request = pb::PutRequest { lease: 7, ..put(key, "") };
        world.call::<pb::PutResponse>(Method::Put, &request).expect("the lease is there");
    }
    let revoke = pb::LeaseRevokeRequest { id: 7 };
    let answered = world.call::<pb::LeaseRevokeResponse>(Method::LeaseRevoke, &revoke);
    assert_eq!(answered, Ok(pb::LeaseRevokeResponse { header: header(4) }));
    let answered = world.call::<pb::LeaseRevokeResponse>(Method::LeaseRevoke, &revoke);
    assert_eq!(answered, Err(status::LEASE_NOT_FOUND));
}

/// On the log a revocation may name a term and then do nothing: a client's may not.
#[test]
fn a_client_cannot_name_a_term() {
    let mut world = World::new();
    grant(&mut world, 60, 7).expect("a new id");
    let mut request = pb::LeaseRevokeRequest { id: 7 }.encode_to_vec();
    prost::encoding::uint64::encode(command::field::LEASE_REVOKE_TERM, &1, &mut request);
    world.call_raw(Method::LeaseRevoke, request).expect("a field that a client has made up");
    assert!(world.store.leases().get(LeaseId(7)).is_none());
}

#[test]
fn time_to_live_says_whole_seconds_and_keys_where_asked() {
    let mut world = World::new();
    grant(&mut world, 60, 7).expect("a new id");
    let request = pb::PutRequest { lease: 7, ..put("a", "") };
    world.call::<pb::PutResponse>(Method::Put, &request).expect("the lease is there");
    let mut ask =
        |id, keys| world.call(Method::LeaseTimeToLive, &pb::LeaseTimeToLiveRequest { id, keys });
    let expected = pb::LeaseTimeToLiveResponse {
        header: header(2),
        id: 7,
        ttl: 59,
        granted_ttl: 60,
        keys: Vec::new(),
    };
    assert_eq!(ask(7, false), Ok(expected.clone()));
    assert_eq!(
        ask(7, true),
        Ok(pb::LeaseTimeToLiveResponse { keys: vec!["a".into()], ..expected })
    );
    let unknown =
        pb::LeaseTimeToLiveResponse { header: header(2), id: 8, ttl: -1, ..Default::default() };
    assert_eq!(ask(8, true), Ok(unknown));
}

#[test]
fn leases_are_listed_by_deadline_however_many_there_are() {
    for count in [0, 1, 3, 1_024, 1_025, 5_000] {
        let mut world = World::new();
        for id in 1..=count {
            let lease = Lease { granted: 10 + (id * 7_919) % 5_003, remaining: 0, since: Index(0) };
            world.store.tree_mut().set_lease(LeaseId(id), lease);
        }
        world.view = world.store.publish(RAFT);
        let answered =
            world.call::<pb::LeaseLeasesResponse>(Method::LeaseLeases, &pb::LeaseLeasesRequest {});
        let answered = answered.expect("a list");
        let leases = world.view.leases();
        let deadline = |status: &pb::LeaseStatus| leases.get(LeaseId(status.id)).map(|l| l.granted);
        assert!(answered.leases.is_sorted_by_key(deadline), "{count}");
        assert_eq!((answered.leases.len() as i64, answered.header), (count, header(1)));
    }
}

#[test]
fn a_keep_alive_is_answered_with_the_header_of_before() {
    let id = lease::decode_keep_alive(pb::LeaseKeepAliveRequest { id: -3 }.encode_to_vec().into());
    assert_eq!(id, Ok(LeaseId(-3)));
    let bad = lease::decode_keep_alive(Bytes::from_static(&[0x0a, 5]));
    assert_eq!(bad, Err(status::MALFORMED_IN_STREAM));
    let world = World::new();
    for (said, ttl) in [(Some(60), 60), (None, 0)] {
        let mut out = Vec::new();
        lease::encode_keep_alive(LeaseId(-3), said, world.header(), &mut out);
        let answer = pb::LeaseKeepAliveResponse::decode(&unframed(&out)[0][..]);
        assert_eq!(answer, Ok(pb::LeaseKeepAliveResponse { header: header(1), id: -3, ttl }));
    }
}
