//! The checksum against what etcd 3.7.1 answered for the same history, and against a sum made the
//! simple way.

use super::*;
use crate::{
    store::{
        Quota, RaftSeen, Store,
        command::{self, field},
    },
    tree::{Options, Tree},
    types::{Index, Term, Ticket},
};
use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;

struct World(Store);

impl World {
    fn new() -> Self {
        let tree = Tree::new(Options { page_bytes: 256, segment_bytes: 1 << 16 });
        Self(Store::new(tree, Quota::from_flag(0)))
    }

    fn commit(&mut self, field: u32, request: &impl Message) {
        let mut data = Vec::new();
        let body = command::body(field, &request.encode_to_vec());
        command::append(&mut data, Ticket(1), &body);
        let next = Index(self.0.applied().0 + 1);
        self.0.apply(next, Term(1), data.into(), |_, _| {}).expect("our own entry");
    }

    fn put(&mut self, key: &'static [u8], value: &'static [u8]) {
        let (key, value) = (Bytes::from_static(key), Bytes::from_static(value));
        self.commit(field::PUT, &pb::PutRequest { key, value, ..Default::default() });
    }

    fn delete(&mut self, key: &'static [u8]) {
        let key = Bytes::from_static(key);
        self.commit(field::DELETE_RANGE, &pb::DeleteRangeRequest { key, ..Default::default() });
    }

    fn compact(&mut self, revision: i64) {
        self.commit(field::COMPACTION, &pb::CompactionRequest { revision, physical: false });
    }

    fn hash(&mut self, revision: i64) -> Result<Hash, Refusal> {
        let view = self.0.publish(RaftSeen::default());
        let mut hashing = Hashing::new(Revision(revision), &view)?;
        while hashing.step(&view) {}
        Ok(hashing.finish())
    }
}

/// What etcd 3.7.1 answered to `HashKV`: the revision asked for, the sum, and what it covers. Where
/// a revision is the compacted one, etcd was started again in between: it remembers its last
/// compactions' sums in memory, and we do not.
#[test]
fn sums_are_those_of_etcd() {
    let mut world = World::new();
    let holds = |world: &mut World, table: &[(i64, u32)], compacted: i64| {
        for (revision, sum) in table {
            let newest = world.0.revision();
            let hash = world.hash(*revision).expect("a revision that is there");
            let revision = if *revision == 0 { newest } else { Revision(*revision) };
            let compacted = Revision(compacted);
            assert_eq!(hash, Hash { sum: *sum, revision, compacted });
        }
    };
    holds(&mut world, &[(0, 1084519789)], -1);
    world.put(b"a", b"1");
    world.put(b"b", b"2");
    world.put(b"a", b"3");
    world.delete(b"b");
    world.put(b"c", b"4");
    let table = [(1, 1084519789), (2, 2587454935), (3, 1827592406), (4, 2069675932)];
    holds(&mut world, &table, -1);
    holds(&mut world, &[(5, 1125682900), (6, 2750537463), (-1, 1084519789)], -1);
    world.compact(4);
    holds(&mut world, &[(4, 1107643163), (5, 1468967122), (6, 2450235489)], 4);
    world.compact(5);
    holds(&mut world, &[(5, 3184071396), (6, 168415639), (0, 168415639)], 5);
    world.delete(b"a");
    world.delete(b"c");
    holds(&mut world, &[(6, 168415639), (7, 2990153982), (8, 3341808301)], 5);
    world.compact(6);
    holds(&mut world, &[(7, 2990153982), (0, 3341808301)], 6);
    assert_eq!(world.hash(5), Err(Refusal::Compacted));
    assert_eq!(world.hash(9), Err(Refusal::FutureRevision));
    world.compact(8);
    holds(&mut world, &[(8, 1084519789)], 8);
    world.put(b"d", b"5");
    holds(&mut world, &[(9, 1997803266)], 8);
}

/// However far the sweep has come, and whatever a checkpoint has rewritten, the sum is the same.
#[test]
fn sums_do_not_depend_on_how_far_compaction_has_come() {
    let mut world = World::new();
    for round in 0..200_u32 {
        let key: &'static [u8] = [&b"a"[..], b"b", b"c", b"d", b"e"][round as usize % 5];
        if round % 7 == 6 { world.delete(key) } else { world.put(key, b"value") }
    }
    world.compact(120);
    let revisions = [120, 121, 150, world.0.revision().0];
    let before = revisions.map(|revision| world.hash(revision));
    assert!(!world.0.tree_mut().sweep(10), "the sweep has begun and has more to do");
    assert_eq!(revisions.map(|revision| world.hash(revision)), before);
    while !world.0.tree_mut().sweep(10) {}
    assert_eq!(revisions.map(|revision| world.hash(revision)), before);
}

/// A step is bounded, and a view that is summed up is not the newest for long.
#[test]
fn a_sum_is_made_in_steps_of_one_view() {
    let mut world = World::new();
    let put = |world: &mut World, n: usize| {
        (0..n).for_each(|_| world.put(b"a", b"1"));
    };
    put(&mut world, HASH_RECORDS_PER_STEP * 3);
    let view = world.0.publish(RaftSeen::default());
    let mut hashing = Hashing::new(Revision(0), &view).expect("the newest");
    let mut steps = 0;
    while hashing.step(&view) {
        steps += 1;
        put(&mut world, 1);
    }
    assert!((3..=8).contains(&steps), "{steps} steps");
    let then = view.revision.0;
    assert_eq!(Ok(hashing.finish().sum), world.hash(then).map(|hash| hash.sum));
}

#[test]
fn the_sum_of_everything_sees_leases_and_members() {
    let mut world = World::new();
    let all = |world: &mut World| {
        let view = world.0.publish(RaftSeen::default());
        let mut hashing = HashingAll::new(&view);
        while hashing.step(&view) {}
        hashing.finish().sum
    };
    let mut seen = std::collections::BTreeSet::from([all(&mut world)]);
    world.put(b"a", b"1");
    assert!(seen.insert(all(&mut world)));
    world.commit(field::LEASE_GRANT, &pb::LeaseGrantRequest { id: 7, ttl: 60 });
    assert!(seen.insert(all(&mut world)));
    world.commit(field::ALARM, &pb::AlarmRequest { action: 1, member_id: 7, alarm: 2 });
    assert!(seen.insert(all(&mut world)));
    assert!(!seen.insert(all(&mut world)), "the same again");
}
