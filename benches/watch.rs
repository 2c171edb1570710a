//! What watching costs a shard's core: a change that many watch, that few of many watch, that
//! nobody watches; and the history told to those who lag.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use proto::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, watch_request::RequestUnion,
};
use ringleader::{
    api::watch,
    shard::watch::{StreamId, WatchSetup, Watches},
    store::{Quota, RaftSeen, Store, View, command},
    tree::{Options, Tree},
    types::{ClusterId, Index, MemberId, Term, Ticket},
};
use std::{hint::black_box, time::Duration};

const WATCHERS: usize = 1_000;
const COHORT: usize = 512;
const REVISIONS: usize = 1_000;

struct Rig {
    store: Store,
    hub: Watches,
    view: View,
    streams: Vec<StreamId>,
}

impl Rig {
    fn new(revisions: usize) -> Self {
        let mut store = Store::new(Tree::new(Options::default()), Quota::from_flag(-1));
        for n in 0..revisions {
            put(&mut store, n);
        }
        let view = store.publish(RaftSeen::default());
        let mut hub = hub();
        hub.advance(&view);
        Self { store, hub, view, streams: Vec::new() }
    }

    /// One watcher on a stream of its own.
    fn watch(&mut self, request: WatchCreateRequest) {
        let stream = watch(&mut self.hub, &self.view, request);
        self.streams.push(stream);
        self.drain();
    }

    /// A change, matched and sent.
    fn change(&mut self, n: usize) {
        put(&mut self.store, n);
        self.view = self.store.publish(RaftSeen::default());
        self.hub.advance(&self.view);
        self.drain();
    }

    fn drain(&mut self) {
        drain(&mut self.hub);
    }
}

fn hub() -> Watches {
    Watches::new(WatchSetup {
        cluster: ClusterId(1 << 60),
        member: MemberId(1 << 60),
        fragment_bytes: 2 << 20,
        progress_interval: Duration::from_secs(600),
    })
}

fn watch(hub: &mut Watches, view: &View, request: WatchCreateRequest) -> StreamId {
    let stream = hub.open().expect("few are open");
    let union = Some(RequestUnion::CreateRequest(request));
    let message = WatchRequest { request_union: union }.encode_to_vec();
    let ask = watch::decode(message.into()).expect("a request made here is one");
    hub.on_request(stream, ask, view, Duration::ZERO);
    stream
}

fn drain(hub: &mut Watches) {
    while let Some(stream) = hub.take_ready() {
        while let Some(message) = hub.next(stream) {
            black_box((message.head.len(), message.body));
        }
    }
}

fn key(n: usize) -> Bytes {
    format!("/registry/pods/default/pod-{n:05}").into()
}

fn put(store: &mut Store, n: usize) {
    let request =
        PutRequest { key: key(n), value: vec![b'v'; 256].into(), ..PutRequest::default() };
    let mut data = Vec::new();
    let body = command::body(command::field::PUT, &request.encode_to_vec());
    command::append(&mut data, Ticket(1), &body);
    let index = Index(store.applied().0 + 1);
    store.apply(index, Term(1), data.into(), |_, _| {}).expect("entries made here can be read");
}

fn prefix() -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::from_static(b"/registry/pods/"),
        range_end: Bytes::from_static(b"/registry/pods0"),
        ..WatchCreateRequest::default()
    }
}

fn point(n: usize) -> WatchCreateRequest {
    WatchCreateRequest { key: key(n), ..WatchCreateRequest::default() }
}

/// Each includes the put that makes the change, which `apply_only` shows alone.
fn live(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("watch_change");
    group.bench_function("apply_only", |bencher| {
        let mut rig = Rig::new(0);
        bencher.iter(|| rig.change(0));
    });
    group.throughput(Throughput::Elements(WATCHERS as u64));
    group.bench_function("1000_watchers_of_one_prefix", |bencher| {
        let mut rig = Rig::new(0);
        (0..WATCHERS).for_each(|_| rig.watch(prefix()));
        bencher.iter(|| rig.change(0));
    });
    group.throughput(Throughput::Elements(1));
    for (name, key) in [("1_of_1000_point_watchers", 500), ("nobody_of_1000", WATCHERS)] {
        group.bench_function(name, |bencher| {
            let mut rig = Rig::new(0);
            (0..WATCHERS).for_each(|n| rig.watch(point(n)));
            bencher.iter(|| rig.change(key));
        });
    }
    group.finish();
}

/// From creation to the last event read.
fn history(criterion: &mut Criterion) {
    let rig = Rig::new(REVISIONS);
    let mut group = criterion.benchmark_group("watch_history");
    group.throughput(Throughput::Elements((COHORT * REVISIONS) as u64));
    group.bench_function("512_watchers_1000_revisions", |bencher| {
        let lagging = || {
            let mut hub = hub();
            hub.advance(&rig.view);
            for _ in 0..COHORT {
                watch(&mut hub, &rig.view, WatchCreateRequest { start_revision: 2, ..prefix() });
            }
            hub
        };
        let told = |mut hub: Watches| {
            while hub.watchers_behind() > 0 {
                hub.catch_up(&rig.view);
                drain(&mut hub);
            }
            hub
        };
        bencher.iter_batched(lagging, told, BatchSize::LargeInput);
    });
    group.finish();
}

fn briefly() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = briefly(); targets = live, history }
criterion_main!(benches);
