//! Encodings, byte for byte, written down from etcd's field numbers. A tag is `number << 3 | type`,
//! with type 0 for a varint and 2 for something with a length.

use bytes::Bytes;
use prost::Message;
use proto::{authpb, etcdserverpb as pb, health, leasepb, membershippb, mvccpb, v3electionpb};

/// `message` encodes to `wire`, and `wire` decodes to it.
fn same<M: Message + Default + PartialEq + std::fmt::Debug>(message: M, wire: &[u8]) {
    assert_eq!(message.encode_to_vec(), wire, "{message:?}");
    assert_eq!(M::decode(wire).expect("what was encoded decodes"), message);
}

#[test]
fn a_key_value_has_its_fields_in_order_and_leaves_out_zeros() {
    let kv = mvccpb::KeyValue {
        key: Bytes::from_static(b"k"),
        create_revision: 2,
        mod_revision: 300,
        version: 1,
        value: Bytes::from_static(b"v"),
        lease: -1,
    };
    let wire =
        b"\x0a\x01k\x10\x02\x18\xac\x02\x20\x01\x2a\x01v\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    same(kv, wire);
    same(mvccpb::KeyValue::default(), b"");
}

#[test]
fn a_put_and_its_answer() {
    let put = pb::PutRequest {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
        lease: 7,
        prev_kv: true,
        ignore_value: true,
        ignore_lease: true,
    };
    same(put, b"\x0a\x01k\x12\x01v\x18\x07\x20\x01\x28\x01\x30\x01");
    let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
    let response = pb::PutResponse { header: Some(header), prev_kv: None };
    same(response, b"\x0a\x08\x08\x01\x10\x02\x18\x03\x20\x04");
}

#[test]
fn the_last_field_of_a_range_is_number_13() {
    let range = pb::RangeRequest {
        range_end: Bytes::from_static(b"\0"),
        sort_target: pb::range_request::SortTarget::Value as i32,
        max_create_revision: 5,
        ..Default::default()
    };
    same(range, b"\x12\x01\0\x30\x04\x68\x05");
}

#[test]
fn the_end_of_a_compared_range_is_number_64() {
    let compare = pb::Compare {
        target_union: Some(pb::compare::TargetUnion::Lease(0)),
        range_end: Bytes::from_static(b"z"),
        ..Default::default()
    };
    same(compare, b"\x40\x00\x82\x04\x01z");
}

#[test]
fn the_events_of_a_watch_are_number_11_and_filters_are_packed() {
    let event = mvccpb::Event { r#type: 1, ..Default::default() };
    let response = pb::WatchResponse { watch_id: -1, events: vec![event], ..Default::default() };
    same(response, b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x5a\x02\x08\x01");
    let create = pb::WatchCreateRequest { filters: vec![0, 1], ..Default::default() };
    same(create, b"\x2a\x02\x00\x01");
}

#[test]
fn the_header_of_a_log_entry_comes_last() {
    let request = pb::InternalRaftRequest {
        header: Some(pb::RequestHeader { id: 9, ..Default::default() }),
        put: Some(pb::PutRequest { key: Bytes::from_static(b"k"), ..Default::default() }),
        ..Default::default()
    };
    same(request, b"\x22\x03\x0a\x01k\xa2\x06\x02\x08\x09");
    let member = membershippb::ClusterMemberAttrSetRequest { member_id: 3, ..Default::default() };
    let attributes =
        pb::InternalRaftRequest { cluster_member_attr_set: Some(member), ..Default::default() };
    same(attributes, b"\xaa\x51\x02\x08\x03");
}

#[test]
fn names_that_etcd_writes_in_capitals() {
    same(pb::LeaseGrantRequest { ttl: 5, id: 6 }, b"\x08\x05\x10\x06");
    same(leasepb::Lease { id: 1, ttl: 2, remaining_ttl: 3 }, b"\x08\x01\x10\x02\x18\x03");
    let member =
        pb::Member { client_urls: vec!["u".into()], is_learner: true, ..Default::default() };
    same(member, b"\x22\x01u\x28\x01");
    let user = authpb::User { roles: vec!["root".into()], ..Default::default() };
    same(user, b"\x1a\x04root");
    let leader = v3electionpb::LeaderKey { rev: 1, lease: 2, ..Default::default() };
    same(leader, b"\x18\x01\x20\x02");
    same(health::HealthCheckResponse { status: 1 }, b"\x08\x01");
}

#[test]
fn paths_are_package_service_method() {
    assert_eq!(pb::kv::RANGE_STREAM, "/etcdserverpb.KV/RangeStream");
    assert_eq!(pb::maintenance::HASH_KV, "/etcdserverpb.Maintenance/HashKV");
    assert_eq!(proto::v3lockpb::lock::LOCK, "/v3lockpb.Lock/Lock");
    assert_eq!(health::health::CHECK, "/grpc.health.v1.Health/Check");
}
