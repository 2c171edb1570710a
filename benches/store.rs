//! What applying costs the node's core: entries of puts and of transactions, decoded and applied,
//! with a view published after each entry as the node does.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
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
        encode_lease_grant, encode_lease_revoke,
    },
    tree::{Lease, Options, Tree},
    types::{Index, LeaseId, Term, Ticket},
};
use std::{hint::black_box, iter, time::Duration};

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

    /// One body as an entry of its own.
    fn propose(&mut self, body: &[u8]) {
        let mut data = Vec::new();
        command::append(&mut data, Ticket(1), body);
        self.apply(&[data.into()]);
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

/// Attaching to one lease that has ever more keys, beside the same puts without it; granting and
/// revoking; a revocation of ten thousand keys.
fn leases(c: &mut Criterion) {
    let mut group = c.benchmark_group("store leases");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.sample_size(20);
    let puts = |lease| -> Vec<_> {
        (0..100_000)
            .map(|n| entry(field::PUT, iter::once(leased(n, lease).encode_to_vec())))
            .collect()
    };
    for (name, lease) in [("put", 0), ("put with a lease", 1)] {
        let (mut applier, entries) = (Applier::new(), puts(lease));
        applier.propose(&encode_lease_grant(LeaseId(1), 60));
        group.bench_function(name, |b| b.iter(|| applier.apply(&entries)));
    }
    let mut applier = Applier::new();
    group.bench_function("grant and revoke", |b| {
        b.iter(|| {
            applier.propose(&encode_lease_grant(LeaseId(1), 60));
            applier.propose(&encode_lease_revoke(LeaseId(1), None));
        });
    });
    group.sample_size(10);
    group.bench_function("revoke of 10,000 keys", |b| {
        let revoke =
            |applier: &mut Applier| applier.propose(&encode_lease_revoke(LeaseId(1), None));
        b.iter_batched_ref(many_keys, revoke, BatchSize::PerIteration);
    });
    group.finish();
}

fn leased(n: usize, lease: i64) -> PutRequest {
    PutRequest { lease, ..put(n) }
}

/// Ten thousand keys of lease 1.
fn many_keys() -> Applier {
    let mut applier = Applier::new();
    applier.propose(&encode_lease_grant(LeaseId(1), 60));
    for at in 0..100 {
        let puts = (0..100).map(|n| leased(at * 100 + n, 1).encode_to_vec());
        applier.apply(&[entry(field::PUT, puts)]);
    }
    applier
}

/// A million leases: a grant with a view published after it, and the memory they take.
fn many_leases(c: &mut Criterion) {
    let mut applier = Applier::new();
    let bytes = applier.store.tree().index_bytes();
    for id in 0..1_000_000_u64 {
        // Ids come from members' tickets and from clients: in no order.
        let id = LeaseId(id.wrapping_mul(0x9e37_79b9_7f4a_7c15) as i64 | 1);
        applier
            .store
            .tree_mut()
            .set_lease(id, Lease { granted: 60, remaining: 0, since: Index(1) });
    }
    black_box(applier.store.publish(RaftSeen::default()));
    let bytes = applier.store.tree().index_bytes() - bytes;
    println!("a million leases take {} MiB of memory", bytes >> 20);
    let mut group = c.benchmark_group("store with a million leases");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let (mut next, seen) = (0_i64, RaftSeen::default());
    group.bench_function("grant and publish", |b| {
        b.iter(|| {
            next += 2;
            applier.propose(&encode_lease_grant(LeaseId(next), 60));
        });
    });
    group.bench_function("publish", |b| b.iter(|| applier.store.publish(seen)));
    group.finish();
}

criterion_group!(benches, apply, leases, many_leases);
criterion_main!(benches);
