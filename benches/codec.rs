//! What a request costs a shard besides HTTP/2: its message decoded and checked, its answer
//! written; for a put, a read of one key, and a page of a list.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use proto::etcdserverpb::{PutRequest, RangeRequest};
use ringleader::{
    api::{self, Edge, Header, Method, Work, kv},
    store::{
        PutDone, Quota, RaftSeen, Store, View,
        command::{self, field},
    },
    tree::{Options, Tree},
    types::{ClusterId, Index, MemberId, Revision, Term, Ticket},
};
use std::hint::black_box;

const KEYS: usize = 500;

fn edge() -> Edge {
    Edge {
        request_bytes_max: 1 << 20,
        txn_ops_max: 128,
        quota: Quota::from_flag(0),
        quota_flag_bytes: 0,
        cluster: ClusterId(0xcdf8_1818_6ad2_c1f8),
        member: MemberId(0x8e9e_05c5_2164_694d),
        lease_ttl_min: 2,
    }
}

fn key(n: usize) -> Bytes {
    format!("/registry/pods/default/pod-{n:08}").into()
}

fn put(n: usize) -> Bytes {
    let value = vec![b'v'; 256].into();
    PutRequest { key: key(n), value, ..PutRequest::default() }.encode_to_vec().into()
}

fn range(from: Bytes, to: &'static [u8]) -> Bytes {
    let range_end = Bytes::from_static(to);
    RangeRequest { key: from, range_end, ..RangeRequest::default() }.encode_to_vec().into()
}

/// A view of [`KEYS`] keys.
fn view() -> View {
    let mut store = Store::new(Tree::new(Options::default()), edge().quota);
    let mut data = Vec::new();
    for n in 0..KEYS {
        command::append(&mut data, Ticket(n as u64), &command::body(field::PUT, &put(n)));
    }
    store.apply(Index(1), Term(1), data.into(), |_, _| {}).expect("entries made here can be read");
    store.publish(RaftSeen::default())
}

fn puts(c: &mut Criterion) {
    let (edge, message) = (edge(), put(7));
    let mut group = c.benchmark_group("codec");
    group.bench_function("decode put", |b| {
        b.iter(|| black_box(api::decode(Method::Put, message.clone(), &edge, 0)));
    });
    let header = Header { cluster: edge.cluster, member: edge.member, ..Header::default() };
    let done = PutDone { revision: Revision(1 << 30), prev: None };
    let mut out = Vec::new();
    group.bench_function("encode put", |b| {
        b.iter(|| {
            out.clear();
            kv::encode_put(black_box(&done), header, &mut out);
        });
    });
}

/// From the message to the answer, both read from one view.
fn ranges(c: &mut Criterion) {
    let (edge, view) = (edge(), view());
    let mut group = c.benchmark_group("codec");
    let cases = [
        ("get", range(key(7), b""), 1),
        ("list", range(key(0), b"/registry/pods/default0"), KEYS as u64),
    ];
    for (name, message, keys) in cases {
        group.throughput(Throughput::Elements(keys));
        let mut out = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                let Work::Read { read, .. } = api::decode(Method::Range, message.clone(), &edge, 0)
                else {
                    panic!("a range is a read")
                };
                api::answer(&read, &view, &edge, &mut out).expect("the revision is there");
            });
        });
        assert!(out.len() > 256, "something was found");
    }
}

criterion_group!(benches, puts, ranges);
criterion_main!(benches);
