//! The checksum against what etcd 3.7.1 answered for the same history, and against a sum made the
//! simple way.

use super::*;
use crate::{
    limits::COMPACTION_SUMS_MAX,
    store::{
        Quota, RaftSeen, Store,
        command::{self, field},
    },
    tree::{Options, Tree},
    types::{ClusterId, Index, MemberId, Term, Ticket},
};
use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;

struct World(Store);

impl World {
    fn new() -> Self {
        let tree = Tree::new(Options { page_bytes: 256, segment_bytes: 1 << 16, index_files: 32 });
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
        while hashing.step() {}
        Ok(hashing.finish())
    }

    /// Makes what sums are due.
    fn sum_up(&mut self) {
        while self.0.has_sums_due() {
            self.0.sum_up();
        }
    }

    /// What is said of each revision: the sum, and where the store was compacted.
    fn says(&mut self, table: &[(i64, u32, i64)]) {
        for (asked, sum, compacted) in table {
            let hash = self.hash(*asked).expect("a revision that is there or remembered");
            assert_eq!((hash.sum, hash.compacted), (*sum, Revision(*compacted)), "at {asked}");
            let newest = self.0.revision();
            assert_eq!(hash.revision, if *asked == 0 { newest } else { Revision(*asked) });
        }
    }
}

/// What etcd 3.7.1 answered to `HashKV`: the revision asked for, the sum, and the compacted revision.
/// Whether the sums of compactions are made when they are asked for makes no difference.
#[test]
fn sums_are_those_of_etcd() {
    for made in [false, true] {
        let mut world = World::new();
        let compact = |world: &mut World, revision| {
            world.compact(revision);
            if made {
                world.sum_up();
            }
        };
        world.says(&[(0, 1084519789, -1)]);
        world.put(b"a", b"1");
        world.put(b"b", b"2");
        world.put(b"a", b"3");
        world.delete(b"b");
        world.put(b"c", b"4");
        world.says(&[(1, 1084519789, -1), (2, 2587454935, -1), (3, 1827592406, -1)]);
        world.says(&[(4, 2069675932, -1), (5, 1125682900, -1), (6, 2750537463, -1)]);
        world.says(&[(-1, 1084519789, -1)]);
        compact(&mut world, 4);
        world.says(&[(4, 2069675932, -1), (5, 1468967122, 4), (6, 2450235489, 4)]);
        assert_eq!(world.hash(3), Err(Refusal::Compacted));
        compact(&mut world, 5);
        world.says(&[(4, 2069675932, -1), (5, 1468967122, 4), (6, 168415639, 5)]);
        world.says(&[(0, 168415639, 5)]);
        world.delete(b"a");
        world.delete(b"c");
        world.says(&[(6, 168415639, 5), (7, 2990153982, 5), (8, 3341808301, 5)]);
        compact(&mut world, 6);
        world.says(&[(6, 168415639, 5), (7, 2990153982, 6), (0, 3341808301, 6)]);
        assert_eq!(world.hash(9), Err(Refusal::FutureRevision));
        // Nothing lives any more, but the compaction keeps a tombstone, so its sum is another one.
        compact(&mut world, 8);
        world.says(&[(4, 2069675932, -1), (8, 1679571469, 6), (0, 1084519789, 8)]);
        assert_eq!(world.hash(7), Err(Refusal::Compacted));
        world.put(b"d", b"5");
        world.says(&[(8, 1679571469, 6), (9, 1997803266, 8)]);
        compact(&mut world, 9);
        for (value, revision) in [b"10", b"11", b"12", b"13", b"14", b"15"].iter().zip(10..) {
            world.put(b"d", *value);
            compact(&mut world, revision);
        }
        // Ten are remembered, and the first was one more.
        assert_eq!(world.hash(4), Err(Refusal::Compacted));
        world.says(&[(5, 1468967122, 4), (6, 168415639, 5), (8, 1679571469, 6)]);
        world.says(&[(9, 1997803266, 8), (10, 1228147283, 9), (15, 3456262243, 14)]);
        world.says(&[(0, 3456262243, 15)]);
    }
}

/// As etcd answered again, which so never compares the newest keys after it compacted at 0.
#[test]
fn a_compaction_at_0_takes_the_place_of_the_newest_revision() {
    let mut world = World::new();
    world.put(b"a", b"1");
    world.says(&[(0, 2587454935, -1)]);
    world.compact(0);
    let remembered = Hash { sum: 1084519789, revision: Revision(0), compacted: Revision(-1) };
    assert_eq!(world.hash(0), Ok(remembered));
    world.says(&[(1, 1084519789, 0), (2, 2587454935, 0)]);
    world.compact(2);
    world.says(&[(2, 2587454935, 0)]);
    assert_eq!(world.hash(0), Ok(remembered));
}

/// Compactions that come faster than their sums are made, with the sweep anywhere between: what is
/// remembered is what it would have been, ten views wait at most, and in the end none does.
#[test]
fn sums_of_compactions_do_not_depend_on_when_they_are_made() {
    let story = |pieces: usize| {
        let mut world = World::new();
        let mut seen = Vec::new();
        for round in 0..60_i64 {
            for n in 0..20 + round {
                let key: &'static [u8] = [&b"a"[..], b"b", b"c", b"d"][(n % 4) as usize];
                if n % 9 == 8 { world.delete(key) } else { world.put(key, b"value") }
            }
            world.compact(world.0.revision().0 - round % 7);
            for _ in 0..pieces {
                world.0.sum_up();
                world.0.tree_mut().sweep(10);
            }
            let asked = seen.len().saturating_sub(COMPACTION_SUMS_MAX - 1);
            seen.push(world.0.tree().reader().compacted());
            for revision in &seen[asked..] {
                let hash = world.hash(revision.0).expect("one of the ten newest");
                assert_eq!(hash.revision, *revision);
            }
            if asked > 0 {
                assert_eq!(world.hash(seen[asked - 1].0), Err(Refusal::Compacted));
            }
        }
        world.sum_up();
        assert!(!world.0.has_sums_due() && !world.0.sum_up(), "nothing is left to do");
        let newest = &seen[seen.len() - COMPACTION_SUMS_MAX..];
        newest.iter().map(|revision| world.hash(revision.0)).collect::<Vec<_>>()
    };
    let at_once = story(100);
    assert_eq!(story(1), at_once);
    assert_eq!(story(3), at_once);
    assert_eq!(story(0), at_once);
}

/// A store that becomes another member's keeps them (etcd `Restore`), and the views they need.
#[test]
fn a_snapshot_leaves_the_sums_of_compactions() {
    let mut world = World::new();
    for _ in 0..300 {
        world.put(b"a", b"1");
    }
    world.compact(150);
    let remembered = world.hash(150);
    world.put(b"a", b"2");
    world.compact(200);
    let facts = world.0.facts(ClusterId(1), MemberId(1));
    let tree = Tree::new(Options { page_bytes: 256, segment_bytes: 1 << 16, index_files: 32 });
    world.0.replace(tree, &facts).expect("our own facts");
    assert!(world.0.has_sums_due());
    assert_eq!(world.hash(150), remembered);
    world.sum_up();
    assert_eq!(world.hash(150), remembered);
}

/// Large values end a step early.
#[test]
fn a_step_is_bounded_in_bytes_too() {
    let mut world = World::new();
    let value: &'static [u8] = &[0; HASH_BYTES_PER_STEP / 2];
    (0..8).for_each(|_| world.put(b"a", value));
    let view = world.0.publish(RaftSeen::default());
    let mut hashing = Hashing::new(Revision(0), &view).expect("the newest");
    let mut steps = 0;
    while hashing.step() {
        steps += 1;
    }
    assert!((4..=6).contains(&steps), "{steps} steps");
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
    while hashing.step() {
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
        while hashing.step() {}
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
