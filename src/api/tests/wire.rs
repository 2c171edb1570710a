//! Bytes: framing, headers, entries of the log, and the answers that are not about keys.

use super::*;
use crate::{
    api::http,
    store::{BadEntry, command::commands},
    tree::RootFacts,
    types::Revision,
};

#[test]
fn a_put_is_answered_in_one_message_with_a_full_header() {
    let mut world = World::new();
    let bodies = world.call_raw(Method::Put, put("a", "1").encode_to_vec()).expect("a put");
    assert_eq!(bodies, [vec![0x0a, 8, 0x08, 0xc, 0x10, 7, 0x18, 2, 0x20, 2]]);
}

#[test]
fn a_nested_message_of_any_length_gets_its_length_right() {
    for len in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000] {
        let (mut ours, inner) = (vec![9], vec![7; len]);
        super::super::encode::nested(3, &mut ours, |out| out.extend_from_slice(&inner));
        let mut theirs = vec![9];
        super::super::encode::bytes(3, &inner, &mut theirs);
        assert!(ours == theirs, "{len}");
    }
}

#[test]
fn an_entry_holds_several_requests_each_with_its_ticket() {
    let body = |key| command::body(command::field::PUT, &put(key, "1").encode_to_vec());
    let mut data = Vec::new();
    let tickets = [1, 127, 128, u64::MAX];
    for ticket in tickets {
        command::append(&mut data, Ticket(ticket), &body("a"));
    }
    let mut world = World::new();
    let mut replies = Vec::new();
    world
        .store
        .apply(Index(1), Term(1), data.into(), |ticket, outcome| replies.push((ticket.0, outcome)))
        .expect("all can be applied");
    assert_eq!(replies.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), tickets);
    assert_eq!(world.store.revision(), Revision(5));
}

#[test]
fn an_entry_is_what_prost_makes_of_etcds_message() {
    let request = pb::InternalRaftRequest {
        header: Some(pb::RequestHeader { id: 300, ..Default::default() }),
        put: Some(put("a", "1")),
        ..Default::default()
    };
    let data = Bytes::from(request.encode_length_delimited_to_vec());
    let theirs = commands(data).collect::<Result<Vec<_>, _>>().expect("one command");
    let mut data = Vec::new();
    let body = command::body(command::field::PUT, &put("a", "1").encode_to_vec());
    command::append(&mut data, Ticket(300), &body);
    assert_eq!(commands(data.clone().into()).collect::<Result<Vec<_>, _>>(), Ok(theirs));
    let ours = pb::InternalRaftRequest::decode_length_delimited(&data[..]).expect("etcd's message");
    assert_eq!(ours, request);
}

#[test]
fn an_entry_that_cannot_be_read_is_named() {
    let bad =
        |data: &[u8]| commands(Bytes::copy_from_slice(data)).last().expect("one").expect_err("bad");
    assert!(matches!(bad(&[5, 1]), BadEntry::Malformed { offset: 0, .. }));
    assert!(matches!(bad(&[0]), BadEntry::Malformed { offset: 0, .. }), "no request at all");
    assert!(matches!(bad(&[2, 0x22, 9]), BadEntry::Malformed { .. }));
    assert!(matches!(bad(&[4, 0x22, 0, 0x2a, 0]), BadEntry::Malformed { .. }), "two requests");
    assert_eq!(bad(&[3, 0xc2, 0x3e, 0]), BadEntry::NotBuilt { field: 1000, name: "auth_enable" });
    let mut data = Vec::new();
    command::append(&mut data, Ticket(1), &command::body(4, &put("a", "").encode_to_vec()));
    let first = data.len();
    data.extend([0xff, 0xff]);
    assert!(matches!(bad(&data), BadEntry::Malformed { offset, .. } if offset == first));
}

#[test]
fn random_bytes_are_refused_and_never_panic() {
    let mut seed = 1_u64;
    for len in 0..2_000 {
        let bytes: Vec<u8> = (0..len % 60)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Small numbers make fields and lengths that nearly fit.
                if seed >> 63 == 0 { (seed >> 40) as u8 & 0x2f } else { (seed >> 40) as u8 }
            })
            .collect();
        drop(commands(bytes.clone().into()).collect::<Vec<_>>());
        let edge = World::new().edge;
        for method in [Method::Put, Method::Txn, Method::Range, Method::DeleteRange, Method::Alarm]
        {
            drop(decode(method, bytes.clone().into(), &edge, 0));
        }
    }
}

#[test]
fn members_have_a_header_without_revision() {
    let mut world = World::new();
    let attributes = command::MemberAttributes {
        member: MemberId(7),
        name: "m1".to_owned(),
        client_urls: vec!["http://localhost:2379".to_owned()],
    };
    assert_eq!(world.commit(&attributes.encode()), Outcome::Done);
    let request = pb::MemberListRequest { linearizable: true };
    let response: pb::MemberListResponse =
        world.call(Method::MemberList, &request).expect("a list");
    let header = response.header.expect("a header");
    assert_eq!(
        (header.cluster_id, header.member_id, header.revision, header.raft_term),
        (0xc, 7, 0, 2)
    );
    let member = &response.members[0];
    assert_eq!((member.id, &*member.name, &member.client_urls), (7, "m1", &attributes.client_urls));
    assert_eq!(member.peer_urls, ["http://localhost:2380"]);
    let Work::Read { serializable, .. } =
        decode(Method::MemberList, request.encode_to_vec().into(), &world.edge, 0)
    else {
        panic!("a list is a read")
    };
    assert!(!serializable);
}

#[test]
fn status_says_what_the_view_knows() {
    let mut world = World::new();
    world.commit(&crate::store::encode_cluster_version("3.7.0"));
    let alarm = pb::AlarmRequest { action: 1, member_id: 7, alarm: 1 };
    let _: pb::AlarmResponse = world.call(Method::Alarm, &alarm).expect("an alarm");
    let status: pb::StatusResponse =
        world.call(Method::Status, &pb::StatusRequest {}).expect("a status");
    assert_eq!(status.header.map(|h| h.revision), Some(1));
    assert_eq!((&*status.version, &*status.storage_version), ("3.7.1", "3.7.0"));
    assert_eq!((status.leader, status.raft_index, status.raft_term), (7, 9, 2));
    assert_eq!(status.raft_applied_index, 2);
    assert_eq!(status.db_size_quota, 2_147_483_648);
    assert_eq!(status.errors, ["memberID:7 alarm:NOSPACE"]);
    assert_eq!(status.downgrade_info, Some(pb::DowngradeInfo::default()));
    world.view.raft.leader = MemberId(0);
    let status: pb::StatusResponse =
        world.call(Method::Status, &pb::StatusRequest {}).expect("a status");
    assert_eq!(status.errors[0], "etcdserver: no leader");
}

#[test]
fn health_is_that_of_the_whole_server_only() {
    use proto::health::{HealthCheckRequest, HealthCheckResponse};
    let mut world = World::new();
    let whole = world.call(Method::HealthCheck, &HealthCheckRequest::default());
    assert_eq!(whole, Ok(HealthCheckResponse { status: 1 }));
    let part = HealthCheckRequest { service: "etcdserverpb.KV".to_owned() };
    let refused: Result<HealthCheckResponse, _> = world.call(Method::HealthCheck, &part);
    assert_eq!(refused, Err(Status::new(status::Code::NotFound, "unknown service")));
}

#[test]
fn http_bodies_are_etcds() {
    let mut world = World::new();
    let cluster = || (*World::new().view.cluster).clone();
    assert_eq!(
        http::version(&cluster()).body,
        r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#
    );
    assert_eq!(http::health_now(&cluster(), RAFT, &[], false), None);
    assert_eq!(http::health_read(Ok(())).body, r#"{"health":"true","reason":""}"#);
    let alarm = pb::AlarmRequest { action: 1, member_id: 7, alarm: 1 };
    let _: pb::AlarmResponse = world.call(Method::Alarm, &alarm).expect("an alarm");
    let sick = http::health_now(&world.view.cluster, RAFT, &[], false).expect("an alarm is up");
    assert_eq!(
        (sick.code, &*sick.body),
        (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n")
    );
    assert_eq!(http::health_now(&world.view.cluster, RAFT, &["NOSPACE"], false), None);
    let alone = RaftSeen::default();
    let sick = http::health_now(&cluster(), alone, &[], false).expect("nobody leads");
    assert_eq!(sick.body, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n");
    assert_eq!(http::health_now(&cluster(), alone, &[], true), None);
    let checks = [("a", Ok(())), ("b", Err("no".to_owned()))];
    assert_eq!(http::checks(&checks[..1], false).body, "ok\n");
    assert_eq!(http::checks(&checks[..1], true).body, "[+]a ok\nok\n");
    assert_eq!(http::checks(&checks, false).body, "[+]a ok\n[-]b failed: no\n\n");
}

#[test]
fn the_blob_brings_back_what_it_was_made_of() {
    let mut world = World::new();
    world.commit(&crate::store::encode_cluster_version("3.7.0"));
    let alarm = pb::AlarmRequest { action: 1, member_id: 7, alarm: 2 };
    let _: pb::AlarmResponse = world.call(Method::Alarm, &alarm).expect("an alarm");
    let facts = world.store.facts(ClusterId(0xc), MemberId(7));
    let tree = || Tree::new(Options { page_bytes: 256, segment_bytes: 1 << 16, index_files: 32 });
    let quota = Quota::from_flag(0);
    let back = Store::recover(tree(), quota, &facts).expect("our own facts");
    assert_eq!(back.cluster(), world.store.cluster());
    assert_eq!(back.facts(ClusterId(0xc), MemberId(7)), facts);
    for cut in 0..facts.state.len() {
        let state = facts.state.slice(..cut);
        let short = RootFacts { state, ..facts.clone() };
        assert!(Store::recover(tree(), quota, &short).is_err(), "cut at {cut}");
    }
}
