//! A store that was opened again knows its leases and which keys hold on to them, as the model does.
//!
//! The table comes back from its own file; what is attached is not written at all and is collected
//! from the keys. Entries behind the checkpoint are applied again, as a start does from the log.

use crate::{
    disk::SimDisk,
    executor::Lot,
    model::Model,
    tree_model::{format, open, run},
};
use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;
use ringleader::{
    store::{
        Quota, Store, command,
        command::{Expired, field},
        encode_lease_checkpoint, encode_lease_grant, encode_lease_revoke,
    },
    types::{ClusterId, Index, LeaseId, MemberId, Term, Ticket},
};

const IDS: [i64; 4] = [i64::MIN, -1, 1, i64::MAX];

/// One request, applied to the model, as a body for the log. What the model refuses, the store must.
pub(crate) fn draw(lot: &mut Lot, model: &mut Model) -> Bytes {
    let id = IDS[lot.below(4) as usize];
    let key = Bytes::from(format!("key {}", lot.below(12)));
    match lot.below(10) {
        0 | 1 => {
            let request = pb::LeaseGrantRequest { id, ttl: lot.below(100) as i64 };
            let _refused = model.grant(&request).is_err();
            encode_lease_grant(LeaseId(id), request.ttl)
        }
        2 => {
            let _refused = model.revoke(&pb::LeaseRevokeRequest { id }).is_err();
            let expired = Expired { term: Term(1), applied: Index(u64::MAX) };
            encode_lease_revoke(LeaseId(id), Some(expired))
        }
        3 => encode_lease_checkpoint(&[(LeaseId(id), lot.below(9) as i64)]),
        4 => {
            let request = pb::DeleteRangeRequest { key, ..Default::default() };
            model.delete_range(&request);
            command::body(field::DELETE_RANGE, &request.encode_to_vec())
        }
        _ => {
            let lease = if lot.one_in(3) { 0 } else { id };
            let request = pb::PutRequest { key, lease, ..Default::default() };
            let _refused = model.put(&request).is_err();
            command::body(field::PUT, &request.encode_to_vec())
        }
    }
}

fn apply(store: &mut Store, body: &[u8]) {
    let mut data = Vec::new();
    command::append(&mut data, Ticket(1), body);
    let index = Index(store.applied().0 + 1);
    store.apply(index, Term(1), data.into(), |_, _| {}).expect("it was just encoded");
}

fn same(store: &Store, model: &Model) {
    let leases = store.leases();
    let found = leases.from(LeaseId(i64::MIN)).map(|(id, lease)| (id.0, lease.granted));
    assert!(found.eq(model.leases.iter().map(|(id, ttl)| (*id, *ttl))));
    for id in IDS {
        assert!(leases.keys(LeaseId(id)).eq(model.lease_keys(id)), "keys of {id}");
    }
    assert_eq!(store.revision().0, model.revision);
}

#[test]
fn a_store_opened_again_knows_its_leases_and_their_keys() {
    for seed in 0..60 {
        let mut lot = Lot::new(seed);
        let disk = SimDisk::new(seed);
        let mut store = Store::new(format(&disk), Quota::from_flag(-1));
        let mut model = Model::default();
        let mut log: Vec<Bytes> = Vec::new();
        for _ in 0..6 {
            for _ in 0..lot.below(60) {
                log.push(draw(&mut lot, &mut model));
                apply(&mut store, log.last().expect("just pushed"));
            }
            same(&store, &model);
            if lot.one_in(2) {
                let facts = store.facts(ClusterId(0xc1), MemberId(0x3e));
                let job = store.tree_mut().begin_checkpoint(facts).expect("none is running");
                let done = run(job.run(disk.clone())).expect("the disk works");
                store.tree_mut().finish_checkpoint(done);
            }
            let remaining =
                |store: &Store| store.leases().from(LeaseId(i64::MIN)).collect::<Vec<_>>();
            let before = remaining(&store);
            let (tree, root) = open(&disk).expect("nothing is damaged").expect("formatted");
            store = match root.facts.applied.0 {
                0 => Store::new(tree, Quota::from_flag(-1)),
                _ => Store::recover(tree, Quota::from_flag(-1), &root.facts).expect("our blob"),
            };
            log[root.facts.applied.0 as usize..].iter().for_each(|body| apply(&mut store, body));
            same(&store, &model);
            assert_eq!(remaining(&store), before);
        }
    }
}
