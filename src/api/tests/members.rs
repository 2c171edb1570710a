//! Members, sums, and what else an operator asks for, from the client's side.

use super::*;
use crate::api::is_for_learners;

fn urls(ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
}

fn add(world: &mut World, peer_urls: Vec<String>) -> Result<pb::MemberAddResponse, Status> {
    world.call(Method::MemberAdd, &pb::MemberAddRequest { peer_urls, is_learner: true })
}

#[test]
fn a_member_that_is_added_is_named_and_listed() {
    let mut world = World::new();
    let added = add(&mut world, urls(&[4001, 4000])).expect("a learner");
    let member = added.member.expect("the new member");
    // What sha1("http://127.0.0.1:4000http://127.0.0.1:40011700000000") begins with.
    let id = crate::identity::member_id_at(&urls(&[4000, 4001]), "", 1_700_000_000);
    let expected =
        pb::Member { id: id.0, peer_urls: urls(&[4000, 4001]), is_learner: true, ..member.clone() };
    assert_eq!(member, expected);
    assert_eq!(added.members.len(), 2);
    assert_eq!(added.header.expect("a header").revision, 0);

    let promote = pb::MemberPromoteRequest { id: id.0 };
    let promoted: pb::MemberPromoteResponse =
        world.call(Method::MemberPromote, &promote).expect("a learner");
    assert!(promoted.members.iter().all(|member| !member.is_learner));
    let update = pb::MemberUpdateRequest { id: id.0, peer_urls: urls(&[4002]) };
    let updated: pb::MemberUpdateResponse = world.call(Method::MemberUpdate, &update).expect("it");
    assert!(updated.members.iter().any(|member| member.peer_urls == urls(&[4002])));
    let remove = pb::MemberRemoveRequest { id: id.0 };
    let removed: pb::MemberRemoveResponse = world.call(Method::MemberRemove, &remove).expect("it");
    assert_eq!(removed.members.len(), 1);
    let again = world.call::<pb::MemberRemoveResponse>(Method::MemberRemove, &remove);
    assert_eq!(again, Err(status::MEMBER_NOT_FOUND));
}

#[test]
fn urls_that_no_member_can_be_reached_at_are_refused() {
    let mut world = World::new();
    let bad = [&[][..], &[""], &["127.0.0.1:1"], &["http://a"], &["http://a:1/b"], &["ftp://a:1"]];
    for typed in bad {
        let peer_urls: Vec<String> = typed.iter().map(|url| (*url).to_owned()).collect();
        assert_eq!(add(&mut world, peer_urls.clone()), Err(status::MEMBER_BAD_URLS), "{typed:?}");
        let update = pb::MemberUpdateRequest { id: 7, peer_urls };
        let updated = world.call::<pb::MemberUpdateResponse>(Method::MemberUpdate, &update);
        assert_eq!(updated, Err(status::MEMBER_BAD_URLS), "{typed:?}");
    }
    let long = vec![format!("http://{}:1", "a".repeat(crate::limits::PEER_URLS_BYTES_MAX))];
    assert_eq!(add(&mut world, long), Err(status::MEMBER_BAD_URLS));
    let tls = add(&mut world, vec!["https://a:1".to_owned()]).expect_err("no TLS yet");
    assert_eq!(tls.code, status::Code::Unimplemented as u8);
}

#[test]
fn a_sum_says_what_it_covers() {
    let mut world = World::new();
    let sum: pb::HashKvResponse =
        world.call(Method::HashKv, &pb::HashKvRequest { revision: 0 }).expect("the newest");
    let expected =
        pb::HashKvResponse { hash: 1084519789, compact_revision: -1, hash_revision: 1, ..sum };
    assert_eq!(sum, expected);
    assert_eq!(sum.header.expect("a header").revision, 1);
    let future =
        world.call::<pb::HashKvResponse>(Method::HashKv, &pb::HashKvRequest { revision: 2 });
    assert_eq!(future, Err(status::FUTURE_REVISION));
    let all: pb::HashResponse = world.call(Method::Hash, &pb::HashRequest {}).expect("a sum");
    assert_ne!(all.hash, sum.hash, "it knows of more than keys");
}

#[test]
fn an_older_version_cannot_be_gone_back_to() {
    let mut world = World::new();
    let ask = |world: &mut World, action: i32, version: &str| {
        let request = pb::DowngradeRequest { action, version: version.to_owned() };
        world.call::<pb::DowngradeResponse>(Method::Downgrade, &request)
    };
    assert_eq!(ask(&mut world, 0, "3.6.0"), Err(status::NO_CLUSTER_VERSION));
    world.commit(&crate::store::encode_cluster_version("3.7.0"));
    for version in ["", "x", "3", "3.x", "3.6.0.0", "3.6.0-ä"] {
        assert_eq!(ask(&mut world, 0, version), Err(status::WRONG_VERSION_FORMAT), "{version}");
    }
    for version in ["3.5", "3.7.0", "4.6", "3.18446744073709551615"] {
        assert_eq!(ask(&mut world, 1, version), Err(status::INVALID_DOWNGRADE), "{version}");
    }
    for action in [0, 1] {
        let said = ask(&mut world, action, "3.6.0-rc.1+b").expect_err("it is not built");
        assert_eq!(said.code, status::Code::Unimplemented as u8);
    }
    assert_eq!(ask(&mut world, 2, "").expect("nothing to give up").version, "3.7");
    assert_eq!(ask(&mut world, 3, ""), Err(status::UNKNOWN_ACTION));
}

#[test]
fn a_learner_serves_its_status_and_what_its_view_alone_can_answer() {
    let range = |serializable| pb::RangeRequest { serializable, ..Default::default() };
    let asks = |method, request: Vec<u8>| is_for_learners(method, &Bytes::from(request));
    assert!(asks(Method::Status, Vec::new()));
    assert!(asks(Method::Range, range(true).encode_to_vec()));
    assert!(!asks(Method::Range, range(false).encode_to_vec()));
    assert!(!asks(Method::RangeStream, range(true).encode_to_vec()));
    for method in [Method::MemberList, Method::HealthCheck, Method::HashKv, Method::Watch] {
        assert!(!asks(method, Vec::new()), "{method:?}");
    }
}
