//! A store, its watchers, and clients that read what they are sent. The facts of etcd 3.7.1 were
//! asked of etcd itself.

use super::*;
use crate::{
    limits::{WATCH_CONTROLS_MAX, WATCH_RESPONSE_BYTES_MAX, WATCH_STREAM_BYTES_MAX},
    store::{Outcome, Quota, RaftSeen, Store, command},
    tree::{Options, Tree},
    types::{Index, Term, Ticket},
};
use prost::Message as _;
use proto::{
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest,
        WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
        request_op::Request, watch_request::RequestUnion,
    },
    mvccpb::Event,
};

mod found_in_etcd;
mod model;
mod shapes;

const FRAGMENT_BYTES: usize = 64 << 10;
const INTERVAL: Duration = Duration::from_secs(10);

struct Rig {
    store: Store,
    view: View,
    hub: Watches,
    now: Duration,
}

impl Rig {
    fn new() -> Self {
        let tree = Tree::new(Options { page_bytes: 256, segment_bytes: 1 << 20, index_files: 32 });
        let mut store = Store::new(tree, Quota::from_flag(-1));
        let view = store.publish(RaftSeen::default());
        let mut hub = Watches::new(WatchSetup {
            cluster: ClusterId(u64::MAX),
            member: MemberId(u64::MAX),
            fragment_bytes: FRAGMENT_BYTES,
            progress_interval: INTERVAL,
        });
        hub.advance(&view);
        Self { store, view, hub, now: Duration::ZERO }
    }

    // ── the store ───────────────────────────────────────────────────────────────────────────────

    fn commit(&mut self, field: u32, request: &impl prost::Message) -> Outcome {
        let mut data = Vec::new();
        command::append(&mut data, Ticket(1), &command::body(field, &request.encode_to_vec()));
        let mut all = Vec::new();
        let index = Index(self.store.applied().0 + 1);
        let applied = self.store.apply(index, Term(3), data.into(), |_, outcome| all.push(outcome));
        applied.expect("entries made here can be read");
        all.pop().expect("one request, one outcome")
    }

    /// Puts, and tells nobody yet.
    fn put(&mut self, key: &str, value: &[u8]) -> i64 {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), value.to_vec().into());
        self.commit(command::field::PUT, &PutRequest { key, value, ..PutRequest::default() });
        self.store.revision().0
    }

    fn put_times(&mut self, times: usize, key: &str) {
        for _ in 0..times {
            self.put(key, b"v");
        }
    }

    fn delete(&mut self, key: &str) -> i64 {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let request = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        self.commit(command::field::DELETE_RANGE, &request);
        self.store.revision().0
    }

    /// One revision with these puts and deletes.
    fn txn(&mut self, ops: &[(&str, Option<Vec<u8>>)]) -> i64 {
        let op = |(key, value): &(&str, Option<Vec<u8>>)| {
            let key = Bytes::copy_from_slice(key.as_bytes());
            let request = match value.clone() {
                Some(value) => Request::RequestPut(PutRequest {
                    key,
                    value: value.into(),
                    ..PutRequest::default()
                }),
                None => Request::RequestDeleteRange(DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                }),
            };
            RequestOp { request: Some(request) }
        };
        let success = ops.iter().map(op).collect();
        self.commit(command::field::TXN, &TxnRequest { success, ..TxnRequest::default() });
        self.store.revision().0
    }

    fn compact(&mut self, revision: i64) {
        let request = CompactionRequest { revision, physical: false };
        let outcome = self.commit(command::field::COMPACTION, &request);
        assert!(matches!(outcome, Outcome::Compacted { .. }), "{outcome:?}");
    }

    /// Takes away what is compacted.
    fn sweep(&mut self) {
        while !self.store.tree_mut().sweep(10) {}
    }

    fn revision(&self) -> i64 {
        self.store.revision().0
    }

    // ── the shard ───────────────────────────────────────────────────────────────────────────────

    /// The shard is woken, and looks at the newest view.
    fn wake(&mut self) {
        let committed = self.store.applied();
        self.view =
            self.store.publish(RaftSeen { term: Term(3), committed, ..RaftSeen::default() });
        self.hub.advance(&self.view);
    }

    fn catch_up(&mut self) {
        while self.hub.catch_up(&self.view) {}
    }

    fn open(&mut self) -> StreamId {
        self.hub.open().expect("few are open")
    }

    fn ask(&mut self, stream: StreamId, union: Option<RequestUnion>) {
        let message = WatchRequest { request_union: union }.encode_to_vec();
        let ask = watch::decode(message.into()).expect("a valid message");
        self.hub.on_request(stream, ask, &self.view, self.now);
    }

    fn create(&mut self, stream: StreamId, request: WatchCreateRequest) {
        self.ask(stream, Some(RequestUnion::CreateRequest(request)));
    }

    fn cancel(&mut self, stream: StreamId, watch_id: i64) {
        self.ask(stream, Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })));
    }

    fn ask_progress(&mut self, stream: StreamId) {
        self.ask(stream, Some(RequestUnion::ProgressRequest(WatchProgressRequest {})));
    }

    /// Reads one message.
    fn read_one(&mut self, stream: StreamId) -> Option<WatchResponse> {
        let Message { head, body } = self.hub.next(stream)?;
        let (prefix, head) = head.split_at(5);
        assert_eq!(prefix[0], 0, "not compressed");
        let bytes = u32::from_be_bytes(prefix[1..].try_into().expect("four bytes"));
        let message = [head, &body].concat();
        assert_eq!(bytes as usize, message.len());
        let response = WatchResponse::decode(&message[..]).expect("what is sent is a message");
        assert_eq!(response.encode_to_vec(), message, "canonical, as etcd's");
        let header = response.header.expect("every answer has a header");
        assert_eq!((header.cluster_id, header.member_id), (u64::MAX, u64::MAX));
        Some(response)
    }

    /// Reads all there is, the history too.
    fn read(&mut self, stream: StreamId) -> Vec<WatchResponse> {
        let mut all = Vec::new();
        loop {
            self.catch_up();
            let before = all.len();
            while let Some(response) = self.read_one(stream) {
                all.push(response);
            }
            if all.len() == before && !self.hub.is_behind() {
                return all;
            }
        }
    }

    /// A watcher on a stream of its own, its answer read.
    fn watch(&mut self, request: WatchCreateRequest) -> StreamId {
        let stream = self.open();
        self.create(stream, request);
        let created = self.read_one(stream).expect("there is an answer");
        assert!(created.created && !created.canceled, "{created:?}");
        stream
    }
}

fn on(key: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..WatchCreateRequest::default()
    }
}

/// All keys.
fn everything() -> WatchCreateRequest {
    WatchCreateRequest { range_end: Bytes::from_static(b"\0"), ..on("") }
}

fn from(start_revision: i64, request: WatchCreateRequest) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, ..request }
}

fn events(responses: &[WatchResponse]) -> Vec<Event> {
    responses.iter().flat_map(|response| response.events.clone()).collect()
}

/// Revisions of the events in each response.
fn revisions(responses: &[WatchResponse]) -> Vec<Vec<i64>> {
    let of = |event: &Event| event.kv.as_ref().expect("each event has one").mod_revision;
    responses.iter().map(|response| response.events.iter().map(of).collect()).collect()
}

fn header_revision(response: &WatchResponse) -> i64 {
    response.header.as_ref().expect("each answer has one").revision
}
