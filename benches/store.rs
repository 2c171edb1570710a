//! What applying costs the node's core: entries of puts and of transactions, decoded and applied,
//! with a view published after each entry as the node does.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};
use ringleader::{
    store::{
        Quota, RaftSeen, Store,
        command::{self, field},
    },
    tree::{Options, Tree},
    types::{Index, Term, Ticket},
};
use std::{hint::black_box, time::Duration};

/// Entries that come round again and again: so many keys.
const ENTRIES: usize = 64;

fn key(n: usize) -> Bytes {
    format!("/registry/leases/kube-node-lease/node-{n:05}").into()
}

fn put(n: usize) -> PutRequest {
    PutRequest { key: key(n), value: vec![b'v'; 256].into(), ..PutRequest::default() }
}

/// What kube-apiserver asks for each update: if the key is as it was, put, else get.
fn update(n: usize) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Greater.into(),
        target: CompareTarget::Mod.into(),
        key: key(n),
        target_union: Some(TargetUnion::ModRevision(0)),
        ..Compare::default()
    };
    let get = RangeRequest { key: key(n), ..RangeRequest::default() };
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(Request::RequestPut(put(n))) }],
        failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
    }
}

/// An entry that packs `requests`.
fn entry(tag: u32, requests: impl Iterator<Item = Vec<u8>>) -> Bytes {
    let mut data = Vec::new();
    for (ticket, request) in requests.enumerate() {
        command::append(&mut data, Ticket(ticket as u64), &command::body(tag, &request));
    }
    data.into()
}

struct Applier {
    store: Store,
    next: usize,
}

impl Applier {
    fn new() -> Self {
        let store = Store::new(Tree::new(Options::default()), Quota::from_flag(-1));
        Self { store, next: 0 }
    }

    fn apply(&mut self, entries: &[Bytes]) {
        let data = entries[self.next % entries.len()].clone();
        self.next += 1;
        let index = Index(self.store.applied().0 + 1);
        self.store
            .apply(index, Term(1), data, |ticket, outcome| {
                black_box((ticket, outcome));
            })
            .expect("entries made here can be read");
        black_box(self.store.publish(RaftSeen::default()));
    }
}

/// Without checkpoints every record stays in memory, some 400 bytes a put, so this runs briefly.
fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("store apply");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for packed in [1, 16, 64] {
        let numbers = |at: usize| (0..packed).map(move |n| at * packed + n);
        let puts = |at| entry(field::PUT, numbers(at).map(|n| put(n).encode_to_vec()));
        let updates = |at| entry(field::TXN, numbers(at).map(|n| update(n).encode_to_vec()));
        let (puts, updates): (Vec<_>, Vec<_>) =
            (0..ENTRIES).map(|at| (puts(at), updates(at))).unzip();
        group.throughput(Throughput::Elements(packed as u64));
        for (name, entries) in [("puts", puts), ("updates", updates)] {
            let mut applier = Applier::new();
            group.bench_function(BenchmarkId::new(name, packed), |b| {
                b.iter(|| applier.apply(&entries));
            });
        }
    }
}

criterion_group!(benches, apply);
criterion_main!(benches);
