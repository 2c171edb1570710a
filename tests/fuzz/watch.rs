//! Watch requests from a socket, and what watchers cost.

use crate::{memory, mutate};
use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    watch_request::RequestUnion,
};
use ringleader::{
    api::watch,
    shard::watch::{StreamId, WatchSetup, Watches},
    store::{Quota, RaftSeen, Store, View},
    tree::{Options, Tree},
    types::{ClusterId, MemberId},
};
use std::time::Duration;

fn view() -> View {
    Store::new(Tree::new(Options::default()), Quota::from_flag(-1)).publish(RaftSeen::default())
}

fn hub(view: &View) -> (Watches, StreamId) {
    let mut hub = Watches::new(WatchSetup {
        cluster: ClusterId(1),
        member: MemberId(1),
        fragment_bytes: 2 << 20,
        progress_interval: Duration::from_secs(600),
    });
    hub.advance(view);
    let stream = hub.open().expect("it is the first");
    (hub, stream)
}

fn request(union: RequestUnion) -> Bytes {
    WatchRequest { request_union: Some(union) }.encode_to_vec().into()
}

/// Whatever is decoded is also done, and taken back again.
#[test]
fn watch_requests() {
    let view = view();
    mutate::fuzz("watch_requests", |dice| {
        let (mut hub, stream) = hub(&view);
        for _ in 0..dice.below(8) {
            let union = match dice.below(4) {
                0 => RequestUnion::CancelRequest(WatchCancelRequest {
                    watch_id: dice.below(3) as i64,
                }),
                1 => RequestUnion::ProgressRequest(WatchProgressRequest {}),
                _ => RequestUnion::CreateRequest(WatchCreateRequest {
                    key: dice.bytes(20).into(),
                    range_end: dice.bytes(4).into(),
                    start_revision: dice.below(3) as i64,
                    watch_id: dice.below(3) as i64,
                    filters: vec![dice.below(3) as i32],
                    ..WatchCreateRequest::default()
                }),
            };
            let mut message = request(union).to_vec();
            if dice.once_in(2) {
                dice.spoil(&mut message);
            }
            let bytes = message.len();
            let asked = memory::bounded(bytes, 16, || watch::decode(message.into()));
            if let Ok(ask) = asked {
                hub.on_request(stream, ask, &view, Duration::ZERO);
                hub.catch_up(&view);
                while let Some(message) = hub.next(stream) {
                    assert!(message.head.len() > 5);
                }
            }
        }
        hub.close(stream);
        assert!(!hub.is_watching());
    });
}

/// Bytes that each of many watchers holds on to, by what they watch.
fn bytes_a_watcher(key: impl Fn(usize) -> String) -> usize {
    const WATCHERS: usize = 100_000;
    let view = view();
    let (_hub, held) = memory::held(|| {
        let (mut hub, stream) = hub(&view);
        for n in 0..WATCHERS {
            let create = WatchCreateRequest { key: key(n).into(), ..WatchCreateRequest::default() };
            let ask = watch::decode(request(RequestUnion::CreateRequest(create)));
            hub.on_request(stream, ask.expect("a valid request"), &view, Duration::ZERO);
            while hub.next(stream).is_some() {}
        }
        hub
    });
    held / WATCHERS
}

#[test]
fn a_watcher_costs_some_hundred_bytes() {
    let (own, shared) =
        (bytes_a_watcher(|n| format!("key/{n:012}")), bytes_a_watcher(|_| "key".to_owned()));
    println!("{own} bytes with a key of its own, {shared} with the same key as others");
    assert!(own <= 512 && shared <= 192, "{own} and {shared}");
}
