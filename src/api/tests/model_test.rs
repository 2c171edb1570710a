//! Random requests, each answered by the store (through the edge, an encoded entry and the wire)
//! and by the model; the answers must be equal to the last field.

use pb::{compare::TargetUnion, request_op::Request};
use prost::Message;
use proto::mvccpb::event::EventType;

use super::*;
use crate::{
    store::{encode_lease_grant, encode_lease_revoke},
    types::{LeaseId, Revision},
};

#[path = "../../../tests/sim/model.rs"]
#[allow(missing_docs, reason = "the model speaks etcd's own words")]
mod model;

use model::{Model, No};

/// SplitMix64: enough for choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn once_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    fn key(&mut self) -> Bytes {
        const KEYS: [&str; 8] = ["a", "aa", "b", "ba", "c", "d", "e\0", "e"];
        Bytes::from_static(KEYS[self.roll(8) as usize].as_bytes())
    }

    fn end(&mut self) -> Bytes {
        match self.roll(4) {
            0 => Bytes::from_static(b"\0"),
            1 => self.key(),
            _ => Bytes::new(),
        }
    }

    /// Of four, most of them granted at any time.
    fn lease(&mut self) -> i64 {
        [i64::MIN, -1, 1, i64::MAX][self.roll(4) as usize]
    }

    fn revision(&mut self, model: &Model) -> i64 {
        if self.once_in(2) { 0 } else { self.roll(model.revision as u64 + 3) as i64 - 1 }
    }

    fn bound(&mut self, model: &Model) -> i64 {
        if self.once_in(6) { self.roll(model.revision as u64 + 2) as i64 } else { 0 }
    }

    fn range(&mut self, model: &Model) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: if self.once_in(2) { self.roll(5) as i64 - 1 } else { 0 },
            revision: self.revision(model),
            sort_order: self.roll(3) as i32,
            sort_target: self.roll(5) as i32,
            serializable: self.once_in(2),
            keys_only: self.once_in(4),
            count_only: self.once_in(6),
            min_mod_revision: self.bound(model),
            max_mod_revision: self.bound(model),
            min_create_revision: self.bound(model),
            max_create_revision: self.bound(model),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let ignore_value = self.once_in(8);
        let lease = if self.once_in(3) { self.lease() } else { 0 };
        let value = if ignore_value { String::new() } else { self.roll(4).to_string() };
        pb::PutRequest {
            key: self.key(),
            value: value.into(),
            lease,
            prev_kv: self.once_in(2),
            ignore_value,
            ignore_lease: lease == 0 && self.once_in(8),
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: self.key(), range_end: self.end(), prev_kv: self.once_in(2) }
    }

    fn compare(&mut self, model: &Model) -> pb::Compare {
        let number = self.roll(model.revision as u64 + 1) as i64;
        let value = Bytes::from(self.roll(4).to_string());
        let union = match self.roll(6) {
            0 => TargetUnion::Version(number % 4),
            1 => TargetUnion::CreateRevision(number),
            2 => TargetUnion::ModRevision(number),
            3 => TargetUnion::Value(value),
            4 => TargetUnion::Lease(if number % 2 == 0 { 0 } else { self.lease() }),
            _ => TargetUnion::Version(0),
        };
        pb::Compare {
            result: self.roll(5) as i32,
            target: self.roll(6) as i32,
            key: self.key(),
            range_end: self.end(),
            target_union: Some(union).filter(|_| !self.once_in(10)),
        }
    }

    fn txn(&mut self, model: &Model, depth: u64) -> pb::TxnRequest {
        let ops = |dice: &mut Self| {
            (0..dice.roll(4)).map(|_| dice.operation(model, depth)).collect::<Vec<_>>()
        };
        pb::TxnRequest {
            success: ops(self),
            failure: ops(self),
            compare: (0..self.roll(3)).map(|_| self.compare(model)).collect(),
        }
    }

    fn operation(&mut self, model: &Model, depth: u64) -> pb::RequestOp {
        let request = match self.roll(if depth == 0 { 6 } else { 8 }) {
            0 | 1 => Request::RequestRange(self.range(model)),
            2..4 => Request::RequestPut(self.put()),
            4..6 => Request::RequestDeleteRange(self.delete()),
            _ => Request::RequestTxn(self.txn(model, depth - 1)),
        };
        pb::RequestOp { request: Some(request) }
    }
}

/// Headers say more on the wire than the model knows; inside a transaction they do not.
fn outermost(header: &mut Option<pb::ResponseHeader>) {
    let header = header.as_mut().expect("every response has a header");
    assert_eq!((header.cluster_id, header.member_id, header.raft_term), (0xc, 7, 2));
    *header = pb::ResponseHeader { revision: header.revision, ..Default::default() };
}

fn sentence(no: No) -> Status {
    match no {
        "Compacted" => status::COMPACTED,
        "FutureRev" => status::FUTURE_REVISION,
        "KeyNotFound" => status::KEY_NOT_FOUND,
        "LeaseNotFound" => status::LEASE_NOT_FOUND,
        "LeaseExists" => status::LEASE_EXISTS,
        other => panic!("the model says {other}"),
    }
}

macro_rules! same {
    ($world:expr, $method:ident, $request:expr, $answer:ty, $model:expr) => {{
        let request = $request;
        let answered = $world.call::<$answer>(Method::$method, &request).map(|mut answer| {
            outermost(&mut answer.header);
            answer
        });
        let expected: Result<$answer, No> = $model;
        assert_eq!(answered, expected.map_err(sentence), "{request:?}");
    }};
}

macro_rules! same_proposed {
    ($world:expr, $body:expr, $answer:ty, $model:expr) => {{
        let answered = $world.propose::<$answer>(&$body).map(|mut answer| {
            outermost(&mut answer.header);
            answer
        });
        let expected: Result<$answer, No> = $model;
        assert_eq!(answered, expected.map_err(sentence));
    }};
}

/// The leases of the view and their keys are the model's.
fn same_leases(world: &World, model: &Model) {
    let leases = world.view.leases();
    let found = leases.from(LeaseId(i64::MIN)).map(|(id, lease)| (id.0, lease.granted));
    assert!(found.eq(model.leases.iter().map(|(id, ttl)| (*id, *ttl))));
    for id in model.leases.keys() {
        assert!(leases.keys(LeaseId(*id)).eq(model.lease_keys(*id)), "keys of {id}");
    }
}

/// The changes that are not compacted are the model's, in its order. Of the compacted revision
/// itself may be gone what it changed once more.
fn same_history(world: &World, model: &Model) {
    let from = model.compacted.max(2);
    let mut found = world.view.changes(Revision(from)).peekable();
    for expected in model.history().into_iter().filter(|change| change.revision >= from) {
        let is_deleted = expected.kind == EventType::Delete;
        let change = found.next_if(|change| {
            let kv = if is_deleted { Vec::new() } else { expected.kv.encode_to_vec() };
            (change.stamp.main.0, change.key) == (expected.revision, &expected.kv.key[..])
                && change.tombstone == is_deleted
                && (is_deleted || change.kv == kv)
        });
        let Some(change) = change else {
            assert!(expected.overtaken && expected.revision == from, "missing: {expected:?}");
            continue;
        };
        let before = world.view.before(change.key, change.stamp.main).filter(|_| !change.create);
        let may_be_gone = expected.revision - 1 < model.compacted;
        let expected = expected.before.map(|kv| kv.encode_to_vec()).filter(|_| !may_be_gone);
        assert_eq!(before, expected.as_deref());
    }
    assert!(found.next().is_none(), "the history ends");
}

fn one_request(dice: &mut Dice, world: &mut World, model: &mut Model) {
    match dice.roll(23) {
        0..7 => {
            let r = dice.put();
            same!(world, Put, r.clone(), pb::PutResponse, model.put(&r));
        }
        7..9 => {
            let r = dice.delete();
            same!(
                world,
                DeleteRange,
                r.clone(),
                pb::DeleteRangeResponse,
                Ok(model.delete_range(&r))
            );
        }
        9..14 => {
            let r = dice.range(model);
            same!(world, Range, r.clone(), pb::RangeResponse, model.range(&r));
        }
        14..19 => {
            let r = dice.txn(model, 2);
            // What the edge refuses has its own tests; the model knows nothing of it.
            if super::super::check::txn(&r, 128).is_ok() {
                same!(world, Txn, r.clone(), pb::TxnResponse, model.txn(&r));
            }
        }
        19..22 if dice.once_in(3) => {
            let r = pb::LeaseRevokeRequest { id: dice.lease() };
            let body = encode_lease_revoke(LeaseId(r.id), None);
            same_proposed!(world, body, pb::LeaseRevokeResponse, model.revoke(&r));
        }
        19..22 => {
            let r = pb::LeaseGrantRequest { id: dice.lease(), ttl: dice.roll(100) as i64 };
            let body = encode_lease_grant(LeaseId(r.id), r.ttl);
            same_proposed!(world, body, pb::LeaseGrantResponse, model.grant(&r));
        }
        _ if dice.once_in(4) => {
            let revision = model.compacted + dice.roll(8) as i64 - 1;
            let r = pb::CompactionRequest { revision, physical: false };
            let revision = model.revision;
            let header = Some(pb::ResponseHeader { revision, ..Default::default() });
            let expected = model.compact(r.revision).map(|()| pb::CompactionResponse { header });
            same!(world, Compact, r, pb::CompactionResponse, expected);
        }
        _ => drop(world.store.tree_mut().sweep(dice.roll(40) as usize)),
    }
}

#[test]
fn store_answers_as_the_model_does() {
    for seed in 0..40 {
        let (mut dice, mut world, mut model) = (Dice(seed), World::new(), Model::default());
        for _ in 0..400 {
            one_request(&mut dice, &mut world, &mut model);
            assert_eq!(world.view.revision.0, model.revision, "seed {seed}");
            same_leases(&world, &model);
        }
        same_history(&world, &model);
    }
}

#[test]
fn old_views_keep_answering_what_they_answered() {
    for seed in 100..110 {
        let (mut dice, mut world, mut model) = (Dice(seed), World::new(), Model::default());
        let mut kept: Vec<(View, Model)> = Vec::new();
        for step in 0..300 {
            one_request(&mut dice, &mut world, &mut model);
            if step % 20 == 0 {
                kept.push((world.view.clone(), model.clone()));
            }
            let (view, model) = &kept[dice.roll(kept.len() as u64) as usize];
            let newest = std::mem::replace(&mut world.view, view.clone());
            let r = dice.range(model);
            same!(world, Range, r.clone(), pb::RangeResponse, model.range(&r));
            same_leases(&world, model);
            world.view = newest;
        }
    }
}
