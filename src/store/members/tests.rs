//! The bytes of the log, the checks in etcd's order, and what a change leaves behind.

use super::*;
use crate::{
    store::Quota,
    tree::{Options, Tree},
};

fn urls(port: u16) -> Vec<String> {
    vec![format!("http://127.0.0.1:{port}")]
}

fn member(id: u64, learner: bool) -> Member {
    Member { id: MemberId(id), peer_urls: urls(id as u16), learner, ..Member::default() }
}

/// A store with these voters, the first `started` of which have said their name.
fn store(voters: u64, started: u64) -> Store {
    let tree = Tree::new(Options { page_bytes: 256, segment_bytes: 1 << 16, index_files: 32 });
    let mut store = Store::new(tree, Quota::from_flag(0));
    for id in 1..=voters {
        let name = if id <= started { format!("m{id}") } else { String::new() };
        store.set_member(Member { name, ..member(id, false) });
    }
    store
}

fn apply(store: &mut Store, change: MemberChange) -> Changed {
    let index = Index(store.applied().0 + 1);
    let data = change.encode(Ticket(9));
    let changed = store.change_members(index, Term(1), data).expect("our own bytes");
    assert_eq!((changed.ticket, store.applied()), (Ticket(9), index));
    changed
}

fn refused(store: &mut Store, change: MemberChange) -> Refusal {
    let before = store.cluster().clone();
    let Changed { outcome: Outcome::Refused(refusal), raft: RaftChange::None, .. } =
        apply(store, change.clone())
    else {
        panic!("{change:?} was not refused");
    };
    assert_eq!(*store.cluster(), before, "a change that is refused changes nothing");
    refusal
}

#[test]
fn changes_read_back_as_written() {
    for change in [
        MemberChange::Add(member(1, false)),
        MemberChange::Add(member(u64::MAX, true)),
        MemberChange::Add(Member {
            name: "a\"<ü".to_owned(),
            client_urls: urls(7),
            ..member(3, false)
        }),
        MemberChange::Remove(MemberId(4)),
        MemberChange::Update { id: MemberId(5), peer_urls: [urls(1), urls(2)].concat() },
        MemberChange::Promote(MemberId(6)),
    ] {
        let data = change.encode(Ticket(u64::MAX));
        assert_eq!(MemberChange::decode(data), Ok((Ticket(u64::MAX), change)));
    }
}

/// The context is JSON as Go writes it; fields that nobody knows are passed over.
#[test]
fn changes_are_read_as_etcd_writes_them() {
    let entry = |kind: u8, context: &str| {
        let mut data = vec![0x08, 0x07, 0x10, kind, 0x18, 0x05];
        if !context.is_empty() {
            data.extend_from_slice(&body(field::CONTEXT, context.as_bytes()));
        }
        MemberChange::decode(data.into()).map(|(ticket, change)| (ticket.0, change))
    };
    let learner = r#"{"id":5,"peerURLs":["http://127.0.0.1:5"],"isLearner":true,"zone":[1]}"#;
    assert_eq!(entry(3, learner), Ok((7, MemberChange::Add(member(5, true)))));
    let promote = r#"{"id":5,"peerURLs":null,"isPromote":true}"#;
    assert_eq!(entry(0, promote), Ok((7, MemberChange::Promote(MemberId(5)))));
    let update = MemberChange::Update { id: MemberId(5), peer_urls: Vec::new() };
    assert_eq!(entry(2, r#"{"id":5,"peerURLs":null}"#), Ok((7, update)));
    assert_eq!(entry(1, ""), Ok((7, MemberChange::Remove(MemberId(5)))));
    for (kind, context) in [
        (0, ""),
        (0, "{}"),
        (0, r#"{"id":6,"peerURLs":[]}"#),
        (0, learner),
        (3, promote),
        (2, r#"{"id":5,"peerURLs":[1]}"#),
        (4, r#"{"id":5}"#),
    ] {
        assert!(entry(kind, context).is_err(), "type {kind}, {context}");
    }
}

#[test]
fn a_member_comes_learns_votes_moves_and_goes_for_ever() {
    let mut store = store(1, 1);
    let added = apply(&mut store, MemberChange::Add(member(2, true)));
    assert_eq!(added.raft, RaftChange::AddLearner(MemberId(2)));
    let members = vec![store.cluster().members[&MemberId(1)].clone(), member(2, true)];
    assert_eq!(added.outcome, Outcome::Members { members, added: Some(MemberId(2)) });

    let promoted = apply(&mut store, MemberChange::Promote(MemberId(2)));
    assert_eq!(promoted.raft, RaftChange::AddVoter(MemberId(2)));
    assert_eq!(store.cluster().voters().count(), 2);

    let peer_urls = urls(22);
    let moved = apply(&mut store, MemberChange::Update { id: MemberId(2), peer_urls });
    assert_eq!(moved.raft, RaftChange::None);
    assert_eq!(store.cluster().members[&MemberId(2)].peer_urls, urls(22));

    let removed = apply(&mut store, MemberChange::Remove(MemberId(2)));
    assert_eq!(removed.raft, RaftChange::Remove(MemberId(2)));
    for change in [
        MemberChange::Remove(MemberId(2)),
        MemberChange::Add(member(2, false)),
        MemberChange::Promote(MemberId(2)),
    ] {
        assert_eq!(refused(&mut store, change), Refusal::MemberNotFound);
    }
}

#[test]
fn changes_that_are_wrong_are_refused_as_etcd_does() {
    let mut store = store(2, 2);
    let update = |id, port| MemberChange::Update { id: MemberId(id), peer_urls: urls(port) };
    let at_another = Member { peer_urls: urls(1), ..member(3, true) };
    apply(&mut store, MemberChange::Add(member(9, true)));
    for (change, refusal) in [
        (MemberChange::Add(member(2, false)), Refusal::MemberExists),
        (MemberChange::Add(at_another), Refusal::PeerUrlExists),
        (MemberChange::Add(member(4, true)), Refusal::TooManyLearners),
        (MemberChange::Remove(MemberId(5)), Refusal::MemberNotFound),
        (MemberChange::Promote(MemberId(5)), Refusal::MemberNotFound),
        (MemberChange::Promote(MemberId(2)), Refusal::NotLearner),
        (update(5, 5), Refusal::MemberNotFound),
        (update(1, 2), Refusal::PeerUrlExists),
    ] {
        assert_eq!(refused(&mut store, change.clone()), refusal, "{change:?}");
    }
    assert_eq!(apply(&mut store, update(1, 1)).raft, RaftChange::None, "its own URL");
}

/// As many have to have started as would be a majority afterwards.
#[test]
fn members_that_have_started_decide_who_may_come_and_go() {
    let (can, cannot) = (true, false);
    for (voters, started, add, remove, promote) in [
        (1, 1, can, cannot, can),
        (2, 1, cannot, cannot, can),
        (2, 2, can, can, can),
        (3, 2, cannot, cannot, can),
        (3, 3, can, can, can),
        (5, 3, cannot, cannot, can),
        (5, 4, can, can, can),
    ] {
        let store = store(voters, started);
        let cluster = store.cluster();
        let found =
            (cluster.can_add_voter(), cluster.can_remove(MemberId(1)), cluster.can_promote());
        assert_eq!(found, (add, remove, promote), "{started} of {voters}");
    }
}
