//! The room against scripted members over loopback sockets, and two rooms with each other.
//!
//! Each test runs on one executor: the room, the node that it believes to have, and the other side.
//! Tests wait for something to happen, for as long as it takes.

use super::{
    frame::{Heard, Reader, Writer},
    socket::{Socket, chunk},
    *,
};
use crate::{
    consensus::{Entry, Kind, Message, SnapshotMark},
    io::thread::{Lane as Driven, LaneDisk, Priority},
    limits::{PEER_CONNECTION_WAIT_MIN, PEER_LANE_BYTES_MAX, PEER_LANE_MESSAGES_MAX},
    mesh::{Capacity, Forward, LeaseAsk, LeaseTime, NodeEnd, Reply, ToNode, ToShard, mesh, rings},
    net::{
        deal,
        http1::{Dechunk, Length, Parsed, Request, Response, take_request, take_response},
        listen,
    },
    store::{Member, Quota, RaftSeen, Store, Unavailable, View},
    tree::{Options, RootFacts, Snapshot, Tree},
    types::{Index, LeaseId, Revision, Stamp, Term, Ticket},
};
use bytes::{Bytes, BytesMut};
use futures_lite::future;
use glommio::{
    LocalExecutor,
    net::{TcpListener, TcpStream},
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

const CLUSTER: ClusterId = ClusterId(0xc1);
const A: MemberId = MemberId(0xa);
const B: MemberId = MemberId(0xb);
const GONE: MemberId = MemberId(0xdead);

fn run<T>(test: impl Future<Output = T>) -> T {
    LocalExecutor::default().run(test)
}

/// A room with what it believes to be its node, and its port.
struct Bench {
    node: NodeEnd,
    newest: Newest,
    meters: Arc<PeerMeters>,
    address: SocketAddr,
    who: Identity,
    held: VecDeque<FromPeer>,
    root: PathBuf,
}

/// Members with their peer URLs.
fn cluster(members: &[(MemberId, String)]) -> Cluster {
    let member = |(id, url): &(MemberId, String)| {
        let peer_urls = vec![url.clone()];
        (*id, Member { id: *id, peer_urls, ..Member::default() })
    };
    let members = members.iter().map(member).collect();
    Cluster { members, removed: [GONE].into(), ..Cluster::default() }
}

const PATIENCE: Patience =
    Patience { read: PEER_CONNECTION_WAIT_MIN, write: PEER_CONNECTION_WAIT_MIN };

fn view(cluster: Cluster, leader: MemberId) -> View {
    let mut store = Store::new(Tree::new(Options::default()), Quota::from_flag(-1));
    let raft = RaftSeen { leader, ..RaftSeen::default() };
    let mut view = store.publish(raft);
    view.cluster = Arc::new(cluster);
    view
}

/// A directory of a room's own, on a real disk: memory knows no O_DIRECT.
fn directory() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("peer-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name)
}

fn ground(root: &Path) -> Ground {
    std::fs::create_dir_all(root).expect("target is ours");
    let lane = Driven::start("peer-test", Priority::Normal).expect("a thread");
    Ground { disk: LaneDisk::new(lane, root.to_owned()), tree: Options::default() }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What a failed test leaves is left for a look.
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.root).expect("it is there");
        }
    }
}

impl Bench {
    fn start(own: MemberId, boot: u64, capacity: Capacity) -> Self {
        Self::patient(own, boot, capacity, PATIENCE)
    }

    fn patient(own: MemberId, boot: u64, capacity: Capacity, patience: Patience) -> Self {
        let (node, _shards, end) = mesh(0, capacity);
        let (senders, accepted) = rings(1, 64);
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let address = listener.local_addr().expect("it listens");
        // It ends with the process.
        std::thread::spawn(move || deal(&listener, senders));
        let root = directory();
        let newest = Newest::new(view(cluster(&[]), MemberId(0)));
        let meters = Arc::<PeerMeters>::default();
        let peer_urls = vec![format!("http://{address}")];
        let who = Identity { member: own, cluster: CLUSTER, peer_urls: peer_urls.clone(), boot };
        let setup = Setup {
            member: own,
            cluster: CLUSTER,
            peer_urls,
            boot,
            dial_wait: Duration::from_secs(2),
            patience,
            delay: Duration::ZERO,
            request_timeout: Duration::from_secs(7),
            meters: meters.clone(),
            ground: ground(&root),
        };
        glommio::spawn_local(serve(end, newest.clone(), accepted, setup)).detach();
        Self { node, newest, meters, address, who, held: VecDeque::new(), root }
    }

    fn default(own: MemberId, boot: u64) -> Self {
        Self::start(own, boot, Capacity::default())
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn tell(&mut self, what: ToPeers) {
        assert!(self.node.to_peers.try_send(what).is_ok(), "there is room");
    }

    /// Who the members are, and who leads.
    fn meet(&mut self, members: &[(MemberId, String)], leader: MemberId) {
        let members = cluster(members);
        self.newest.publish(view(members.clone(), leader));
        self.tell(ToPeers::Members(Arc::new(members)));
    }

    async fn asked(&mut self) -> ToNode {
        loop {
            if let Some(asked) = self.node.inbox.pop() {
                return asked;
            }
            poll_fn(|cx| self.node.inbox.poll_ready(cx)).await;
        }
    }

    /// The first word that `is_it` wants; others are kept.
    async fn word<T>(&mut self, is_it: impl Fn(&FromPeer) -> Option<T>) -> T {
        if let Some(at) = self.held.iter().position(|word| is_it(word).is_some()) {
            let word = self.held.remove(at).expect("it was found there");
            return is_it(&word).expect("it was asked before");
        }
        loop {
            let ToNode::Peer(word) = self.asked().await else { panic!("no word of the room") };
            match is_it(&word) {
                Some(found) => return found,
                None => self.held.push_back(word),
            }
        }
    }

    async fn message(&mut self) -> Message {
        self.word(|word| match word {
            FromPeer::Message(message) => Some((**message).clone()),
            _ => None,
        })
        .await
    }

    async fn contact(&mut self, wanted: bool) -> MemberId {
        self.word(|word| match word {
            FromPeer::Contact { member, connected } if *connected == wanted => Some(*member),
            _ => None,
        })
        .await
    }

    async fn unreachable(&mut self) -> MemberId {
        self.word(|word| match word {
            FromPeer::Unreachable(member) => Some(*member),
            _ => None,
        })
        .await
    }
}

// ── a scripted member ───────────────────────────────────────────────────────────────────────────

fn identity_of(member: MemberId, boot: u64) -> Identity {
    Identity { member, cluster: CLUSTER, peer_urls: vec!["http://127.0.0.1:1".into()], boot }
}

async fn dial(address: SocketAddr) -> Socket {
    let stream = TcpStream::connect(address).await.expect("it listens");
    Socket::new(stream, PATIENCE).expect("a socket")
}

async fn accept(listener: &TcpListener) -> Socket {
    let stream = listener.accept().await.expect("a connection");
    Socket::new(stream, PATIENCE).expect("a socket")
}

async fn request(socket: &mut Socket) -> (Request, Bytes) {
    loop {
        if let Parsed::Whole(request) = take_request(&mut socket.input) {
            let Length::Known(bytes) = request.length else { panic!("{request:?}") };
            while socket.input.len() < bytes {
                assert!(socket.fill().await.expect("it lives"));
            }
            return (request, socket.input.split_to(bytes).freeze());
        }
        assert!(socket.fill().await.expect("it lives"), "a whole request");
    }
}

async fn response(socket: &mut Socket) -> (Response, Bytes) {
    loop {
        if let Parsed::Whole(response) = take_response(&mut socket.input) {
            let Length::Known(bytes) = response.length else { return (response, Bytes::new()) };
            while socket.input.len() < bytes {
                assert!(socket.fill().await.expect("it lives"));
            }
            return (response, socket.input.split_to(bytes).freeze());
        }
        assert!(socket.fill().await.expect("it lives"), "a whole answer");
    }
}

async fn say(socket: &mut Socket, bytes: impl AsRef<[u8]>) {
    socket.out.extend_from_slice(bytes.as_ref());
    socket.flush().await.expect("it lives");
}

async fn exchange(socket: &mut Socket, request: impl AsRef<[u8]>) -> (u16, String) {
    say(socket, request).await;
    let (head, body) = response(socket).await;
    (head.status, String::from_utf8_lossy(&body).into_owned())
}

/// Opens a stream as `from`, to hear what the room has for it.
async fn listen_to(bench: &Bench, from: &Identity, lane: Lane) -> Ear {
    let mut socket = dial(bench.address).await;
    let head = stream_request(bench, from, lane);
    say(&mut socket, head).await;
    let (head, _) = response(&mut socket).await;
    assert_eq!((head.status, head.length), (200, Length::Chunked));
    let reader = Reader::new(lane, bench.who.member, from.member);
    Ear { socket, chunks: Dechunk::Size, body: BytesMut::new(), reader }
}

fn stream_request(bench: &Bench, from: &Identity, lane: Lane) -> String {
    let path = format!("/raft/stream/{}/{}", lane.name(), from.member);
    let head = from.request("GET", &path, "x");
    format!("{head}X-Raft-To: {}\r\n\r\n", bench.who.member)
}

struct Ear {
    socket: Socket,
    chunks: Dechunk,
    body: BytesMut,
    reader: Reader,
}

impl Ear {
    /// The next message; `None` at the stream's end.
    async fn hear(&mut self) -> Option<Message> {
        loop {
            match self.reader.next(&mut self.body).expect("sound frames") {
                Some(Heard::Message(message)) => return Some(*message),
                Some(Heard::LinkHeartbeat) => continue,
                None => {}
            }
            if !self.socket.fill().await.unwrap_or(false) {
                return None;
            }
            self.chunks.step(&mut self.socket.input, &mut self.body).expect("chunks");
        }
    }
}

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Takes the two streams that the room opens, and says that they are there. In order of lanes.
async fn take_streams(listener: &TcpListener, boot: Option<u64>) -> [Socket; 2] {
    let mut found = [None, None];
    while found.iter().any(Option::is_none) {
        let mut socket = accept(listener).await;
        let (request, _) = request(&mut socket).await;
        let lane = if request.target.contains("msgapp") { Lane::Append } else { Lane::Message };
        let head = match boot {
            None => STREAM_HEAD.to_owned(),
            Some(boot) => {
                STREAM_HEAD.replace("\r\n\r\n", &format!("\r\n{}: {boot}\r\n\r\n", identity::BOOT))
            }
        };
        say(&mut socket, head).await;
        found[lane as usize] = Some(socket);
    }
    found.map(|socket| socket.expect("both came"))
}

async fn send(socket: &mut Socket, writer: &mut Writer, message: &Message) {
    chunk(&mut socket.out, |out| writer.write(message, out));
    socket.flush().await.expect("it lives");
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it listens"));
    (listener, url)
}

fn vote(from: MemberId, to: MemberId, term: u64) -> Message {
    Message { term: Term(term), ..Message::new(Kind::Vote, from, to) }
}

fn append(from: MemberId, to: MemberId, index: u64, data: &[u8]) -> Message {
    let entry = Entry {
        index: Index(index + 1),
        term: Term(2),
        kind: 0,
        data: Bytes::copy_from_slice(data),
    };
    Message {
        term: Term(2),
        log_term: Term(2),
        index: Index(index),
        entries: vec![entry],
        ..Message::new(Kind::Append, from, to)
    }
}

/// Nobody there.
fn nowhere() -> String {
    "http://127.0.0.1:1".into()
}

// ── what the room reads ─────────────────────────────────────────────────────────────────────────

#[test]
fn the_room_opens_both_streams_as_etcd_does_and_hands_over_what_they_bring() {
    run(async {
        let (listener, url) = listener();
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, bench.url()), (B, url)], B);
        let mut first = accept(&listener).await;
        let (head, _) = request(&mut first).await;
        assert!(matches!(head.target.as_str(), "/raft/stream/msgapp/a" | "/raft/stream/message/a"));
        let said = |name| head.headers.get(name).unwrap_or_default().to_owned();
        assert_eq!((said("x-server-from"), said("x-raft-to")), ("a".into(), "b".into()));
        assert_eq!(
            (said("x-server-version"), said("x-min-cluster-version")),
            ("3.7.1".into(), "3.0.0".into())
        );
        assert_eq!((said("x-etcd-cluster-id"), said("x-peerurls")), ("c1".into(), bench.url()));
        drop(first);
        let [mut appends, mut messages] = take_streams(&listener, None).await;
        assert_eq!(bench.contact(true).await, B);
        let mut writers = [Writer::new(Lane::Append), Writer::new(Lane::Message)];
        for index in 1..=3 {
            let sent = append(B, A, index, b"x");
            send(&mut appends, &mut writers[0], &sent).await;
            assert_eq!(bench.message().await, sent);
        }
        chunk(&mut messages.out, |out| writers[1].write_link_heartbeat(out));
        send(&mut messages, &mut writers[1], &vote(B, A, 7)).await;
        assert_eq!(bench.message().await, vote(B, A, 7));
        assert!(bench.meters.of("b").received_bytes.get() > 0);
    });
}

#[test]
fn a_stream_torn_in_a_message_or_of_garbage_is_opened_again_and_nothing_of_it_is_heard() {
    run(async {
        let (listener, url) = listener();
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, bench.url()), (B, url)], B);
        let mut torn = Vec::new();
        Writer::new(Lane::Message).write(&vote(B, A, 1), &mut torn);
        torn.pop();
        let garbage = vec![0xff; 64];
        let foreign = {
            let mut out = Vec::new();
            Writer::new(Lane::Message).write(&vote(MemberId(9), A, 1), &mut out);
            out
        };
        for bad in [torn, garbage, foreign] {
            let [appends, mut messages] = take_streams(&listener, None).await;
            bench.contact(true).await;
            chunk(&mut messages.out, |out| out.extend_from_slice(&bad));
            messages.flush().await.expect("it lives");
            drop((appends, messages));
            assert_eq!(bench.contact(false).await, B);
        }
        let [_appends, mut messages] = take_streams(&listener, None).await;
        send(&mut messages, &mut Writer::new(Lane::Message), &vote(B, A, 2)).await;
        assert_eq!(bench.message().await, vote(B, A, 2), "and nothing before it");
    });
}

#[test]
fn a_stream_that_brings_nothing_for_too_long_is_opened_again() {
    run(async {
        let (listener, url) = listener();
        let patience = Patience { read: Duration::from_millis(200), ..PATIENCE };
        let mut bench = Bench::patient(A, 1, Capacity::default(), patience);
        bench.meet(&[(A, bench.url()), (B, url)], B);
        let _silent = take_streams(&listener, None).await;
        assert_eq!(bench.contact(true).await, B);
        assert_eq!(bench.contact(false).await, B);
        let [_appends, mut messages] = take_streams(&listener, None).await;
        send(&mut messages, &mut Writer::new(Lane::Message), &vote(B, A, 2)).await;
        assert_eq!(bench.message().await, vote(B, A, 2));
    });
}

#[test]
fn a_full_ring_stops_the_reading_and_loses_nothing() {
    run(async {
        let (listener, url) = listener();
        let mut bench = Bench::start(A, 1, Capacity { to_node: 2, ..Capacity::default() });
        bench.meet(&[(A, bench.url()), (B, url)], B);
        let [_appends, mut messages] = take_streams(&listener, None).await;
        let mut writer = Writer::new(Lane::Message);
        for term in 1..=500 {
            chunk(&mut messages.out, |out| writer.write(&vote(B, A, term), out));
        }
        messages.flush().await.expect("it lives");
        for term in 1..=500 {
            assert_eq!(bench.message().await.term, Term(term));
        }
    });
}

#[test]
fn nothing_of_an_older_start_is_heard_after_a_newer_one() {
    run(async {
        let (listener, url) = listener();
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, bench.url()), (B, url)], B);
        let [_appends, mut messages] = take_streams(&listener, Some(5)).await;
        let mut writer = Writer::new(Lane::Message);
        send(&mut messages, &mut writer, &vote(B, A, 1)).await;
        bench.message().await;
        let newer = post(&identity_of(B, 6), &vote(B, A, 2));
        assert_eq!(exchange(&mut dial(bench.address).await, newer).await.0, 204);
        send(&mut messages, &mut writer, &vote(B, A, 3)).await;
        let older = post(&identity_of(B, 5), &vote(B, A, 4));
        assert_eq!(exchange(&mut dial(bench.address).await, older).await.0, 412);
        assert_eq!(bench.message().await.term, Term(2));
        bench.contact(true).await;
        let newer = post(&identity_of(B, 6), &vote(B, A, 5));
        assert_eq!(exchange(&mut dial(bench.address).await, newer).await.0, 204);
        assert_eq!(bench.message().await.term, Term(5), "neither 3 nor 4");
    });
}

fn post(from: &Identity, message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    frame::encode(message, &mut body);
    let head = from.request("POST", "/raft", "x");
    let mut out = format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    out.extend_from_slice(&body);
    out
}

#[test]
fn a_member_is_told_that_it_was_removed() {
    run(async {
        let (listener, url) = listener();
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, bench.url()), (B, url)], B);
        let mut socket = accept(&listener).await;
        request(&mut socket).await;
        say(&mut socket, "HTTP/1.1 410 Gone\r\nContent-Length: 15\r\n\r\nremoved member\n").await;
        bench.word(|word| matches!(word, FromPeer::Removed).then_some(())).await;
    });
}

// ── what the room sends ─────────────────────────────────────────────────────────────────────────

#[test]
fn appends_take_their_own_stream_and_the_rest_the_other() {
    run(async {
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, bench.url()), (B, nowhere())], A);
        let them = identity_of(B, 1);
        let mut messages = listen_to(&bench, &them, Lane::Message).await;
        assert_eq!(bench.contact(true).await, B);
        let all = vec![append(A, B, 1, b"x"), vote(A, B, 3)];
        bench.tell(ToPeers::Send(all.clone()));
        // Without a stream of their own appends go with the rest, behind what holds no entries.
        assert_eq!(messages.hear().await, Some(all[1].clone()));
        assert_eq!(messages.hear().await, Some(all[0].clone()));
        let mut appends = listen_to(&bench, &them, Lane::Append).await;
        bench.tell(ToPeers::Send(all.clone()));
        assert_eq!(appends.hear().await, Some(all[0].clone()));
        assert_eq!(messages.hear().await, Some(all[1].clone()));
        drop((appends, messages));
        assert_eq!(bench.unreachable().await, B);
        assert_eq!(bench.contact(false).await, B);
    });
}

#[test]
fn of_two_streams_of_one_kind_the_newer_wins() {
    run(async {
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, bench.url()), (B, nowhere())], A);
        let mut older = listen_to(&bench, &identity_of(B, 1), Lane::Message).await;
        let mut newer = listen_to(&bench, &identity_of(B, 2), Lane::Message).await;
        assert_eq!(older.hear().await, None);
        bench.tell(ToPeers::Send(vec![vote(A, B, 3)]));
        assert_eq!(newer.hear().await, Some(vote(A, B, 3)));
        let mut late = dial(bench.address).await;
        let stale = stream_request(&bench, &identity_of(B, 1), Lane::Message);
        assert_eq!(exchange(&mut late, stale).await.0, 412, "an older start comes too late");
    });
}

#[test]
fn a_slow_reader_costs_a_bounded_queue_and_raft_is_told() {
    run(async {
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, bench.url()), (B, nowhere())], A);
        let mut appends = listen_to(&bench, &identity_of(B, 1), Lane::Append).await;
        let large = vec![7; 4 << 20];
        let count = 2 * (PEER_LANE_BYTES_MAX / large.len()) as u64;
        for index in 1..=count {
            bench.tell(ToPeers::Send(vec![append(A, B, index, &large)]));
            future::yield_now().await;
        }
        assert_eq!(bench.unreachable().await, B);
        assert_eq!(appends.hear().await.map(|first| first.index), Some(Index(1)));
        let small: Vec<_> =
            (1..=2 * PEER_LANE_MESSAGES_MAX as u64).map(|n| vote(A, B, n)).collect();
        let mut messages = listen_to(&bench, &identity_of(B, 1), Lane::Message).await;
        bench.tell(ToPeers::Send(small));
        assert_eq!(bench.unreachable().await, B);
        assert_eq!(messages.hear().await.map(|first| first.term), Some(Term(1)));
    });
}

#[test]
fn without_streams_small_messages_are_posted_and_large_ones_lost() {
    run(async {
        let (listener, url) = listener();
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, bench.url()), (B, url)], A);
        bench.tell(ToPeers::Send(vec![vote(A, B, 3), append(A, B, 1, &[7; 100_000])]));
        assert_eq!(bench.unreachable().await, B);
        let (mut socket, (head, body)) = loop {
            let mut socket = accept(&listener).await;
            let found = request(&mut socket).await;
            if found.0.target == "/raft" {
                break (socket, found);
            }
        };
        assert_eq!(
            (head.method.as_str(), head.headers.get("content-type")),
            ("POST", Some("application/protobuf"))
        );
        assert_eq!(frame::decode(body), Ok(Heard::Message(Box::new(vote(A, B, 3)))));
        let removed = format!("{{\"message\":\"{}\"}}", serve::FROM_REMOVED);
        let answer =
            format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{removed}", removed.len());
        say(&mut socket, answer).await;
        bench.word(|word| matches!(word, FromPeer::Removed).then_some(())).await;
    });
}

// ── what others ask ─────────────────────────────────────────────────────────────────────────────

#[test]
fn refusals_are_etcds() {
    run(async {
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, bench.url()), (B, nowhere())], A);
        bench.word_of_members().await;
        let them = identity_of(B, 1);
        let get = |path: &str| them.request("GET", path, "x") + "X-Raft-To: a\r\n\r\n";
        let from =
            |who: &Identity, path: &str| who.request("GET", path, "x") + "X-Raft-To: a\r\n\r\n";
        let elsewhere = Identity { cluster: ClusterId(2), ..them.clone() };
        let gone = identity_of(GONE, 1);
        let plain =
            |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let stranger = vote(MemberId(5), B, 1);
        let cases: Vec<(Vec<u8>, u16, &str)> = vec![
            (from(&elsewhere, "/raft/stream/msgapp/b").into(), 412, "cluster ID mismatch\n"),
            (plain("GET", "/raft/stream/msgapp/b").into(), 412, "incompatible version\n"),
            (
                get("/raft/stream/msgapp/b").replace("X-Raft-To: a", "X-Raft-To: 9").into(),
                412,
                "to field mismatch\n",
            ),
            (get("/raft/stream/msgapp/9").into(), 404, "error sender not found\n"),
            (get("/raft/stream/msgapp/xyz").into(), 404, "invalid from\n"),
            (get("/raft/stream/other/b").into(), 404, "invalid path\n"),
            (from(&gone, "/raft/stream/msgapp/dead").into(), 410, "removed member\n"),
            (plain("POST", "/raft/stream/msgapp/b").into(), 405, "Method Not Allowed\n"),
            (plain("GET", "/raft").into(), 405, "Method Not Allowed\n"),
            (post(&elsewhere, &vote(B, A, 1)), 412, "cluster ID mismatch\n"),
            (
                post(&gone, &vote(GONE, A, 1)),
                403,
                "{\"message\":\"cannot process message from removed member\"}",
            ),
            (
                post(&them, &stranger),
                403,
                "{\"message\":\"cannot process message to mismatch member\"}",
            ),
            (
                them.request("POST", "/raft", "x")
                    .into_bytes()
                    .into_iter()
                    .chain(*b"Content-Length: 1\r\n\r\n\xff")
                    .collect(),
                400,
                "error unmarshalling raft message\n",
            ),
            (plain("POST", "/members").into(), 405, "Method Not Allowed\n"),
            (plain("GET", "/members/promote/1").into(), 405, "Method Not Allowed\n"),
            (plain("POST", "/members/promote/x").into(), 404, "member x not found in cluster\n"),
            (plain("POST", "/members/hashkv").into(), 405, "Method Not Allowed\n"),
            (plain("GET", "/members/hashkv").into(), 400, "error unmarshalling request\n"),
            (from(&elsewhere, "/members/hashkv").into(), 412, "cluster ID mismatch\n"),
            (
                (from(&them, "/members/hashkv").trim_end().to_owned()
                    + "\r\nContent-Length: 14\r\n\r\n{\"revision\":2}")
                    .into(),
                400,
                "mvcc: required revision is a future revision\n",
            ),
            (plain("GET", "/leases").into(), 405, "Method Not Allowed\n"),
            (
                b"POST /leases HTTP/1.1\r\nContent-Length: 1\r\n\r\n\xff".to_vec(),
                400,
                "error unmarshalling request\n",
            ),
            (plain("GET", "/health").into(), 404, "404 page not found\n"),
        ];
        let mut socket = dial(bench.address).await;
        for (request, status, body) in cases {
            let shown = String::from_utf8_lossy(&request).into_owned();
            assert_eq!(exchange(&mut socket, request).await, (status, body.to_owned()), "{shown}");
        }
        let mut other = dial(bench.address).await;
        assert_eq!(exchange(&mut other, "what?\r\n\r\n").await.0, 400);
        assert!(!other.fill().await.unwrap_or(false), "garbage ends the connection");
    });
}

impl Bench {
    /// Returns once the room knows the members.
    async fn word_of_members(&self) {
        let mut socket = dial(self.address).await;
        loop {
            let said = exchange(&mut socket, "GET /raft/probing HTTP/1.1\r\n\r\n").await;
            assert!(said.1.starts_with("{\"OK\":true,\"Now\":\"2"), "{said:?}");
            if !self.meters.all().is_empty() {
                return;
            }
        }
    }
}

#[test]
fn members_and_versions_are_told() {
    run(async {
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, "http://a:1".into()), (B, nowhere())], A);
        let mut socket = dial(bench.address).await;
        say(&mut socket, "GET /members HTTP/1.1\r\n\r\n").await;
        let (head, body) = response(&mut socket).await;
        assert_eq!(head.headers.get("X-Etcd-Cluster-ID"), Some("c1"));
        assert_eq!(
            body,
            "[{\"id\":10,\"peerURLs\":[\"http://a:1\"]},{\"id\":11,\"peerURLs\":[\"http://127.0.0.1:1\"]}]\n"
        );
        let (status, version) = exchange(&mut socket, "GET /version HTTP/1.1\r\n\r\n").await;
        assert_eq!(status, 200);
        assert!(version.starts_with("{\"etcdserver\":\"3.7.1\""), "{version}");
    });
}

#[test]
fn who_is_not_known_is_answered_where_it_says_it_is() {
    run(async {
        let (listener, url) = listener();
        let mut bench = Bench::default(A, 1);
        let them = Identity { peer_urls: vec![url], ..identity_of(B, 1) };
        let mut socket = dial(bench.address).await;
        assert_eq!(exchange(&mut socket, post(&them, &vote(B, A, 1))).await.0, 204);
        assert_eq!(bench.message().await, vote(B, A, 1));
        bench.tell(ToPeers::Send(vec![vote(A, B, 2)]));
        let (head, body) = request(&mut accept(&listener).await).await;
        assert_eq!(head.target, "/raft", "and no stream is opened");
        assert_eq!(frame::decode(body), Ok(Heard::Message(Box::new(vote(A, B, 2)))));
    });
}

// ── questions ───────────────────────────────────────────────────────────────────────────────────

/// Answers the questions about leases that come to a node: renewals with the lease's own number.
fn answer_leases(bench: &mut Bench) -> usize {
    let mut replies = Vec::new();
    while let Some(asked) = bench.node.inbox.pop() {
        let ToNode::Lease { ticket, ask } = asked else { continue };
        let reply = match ask {
            LeaseAsk::Renew(LeaseId(0)) => Reply::Renewed(None),
            LeaseAsk::Renew(id) => Reply::Renewed(Some(id.0)),
            LeaseAsk::Remaining(id) => Reply::Remaining(Some(LeaseTime {
                granted: id.0,
                remaining: Duration::from_millis(2_900),
            })),
            LeaseAsk::List => panic!("nobody asks another for its list"),
        };
        replies.push((ticket, reply));
    }
    let count = replies.len();
    if count > 0 {
        let message = ToShard { replies };
        assert!(bench.node.to_shards[0].try_send(message).is_ok(), "there is room");
    }
    count
}

#[test]
fn two_rooms_speak_and_one_asks_the_other_about_leases() {
    run(async {
        let (mut a, mut b) = (Bench::default(A, 1), Bench::default(B, 1));
        let members = [(A, a.url()), (B, b.url())];
        a.meet(&members, B);
        b.meet(&members, B);
        assert_eq!((a.contact(true).await, b.contact(true).await), (B, A));
        for term in 1..=20 {
            let (there, back) = (append(A, B, term, b"x"), vote(B, A, term));
            a.tell(ToPeers::Send(vec![there.clone()]));
            b.tell(ToPeers::Send(vec![back.clone()]));
            assert_eq!((b.message().await, a.message().await), (there, back));
        }
        let renewals = 2_000_u64;
        for number in 0..renewals {
            let what = Forward::Lease(LeaseAsk::Renew(LeaseId(number as i64)));
            let mut ask = ToPeers::Forward { ticket: Ticket(number), to: B, what };
            while let Err(back) = a.node.to_peers.try_send(ask) {
                ask = back;
                future::yield_now().await;
            }
        }
        let mut answered = BTreeSet::new();
        while answered.len() < renewals as usize {
            answer_leases(&mut b);
            while let Some(asked) = a.node.inbox.pop() {
                let ToNode::Peer(FromPeer::Answered { ticket, reply }) = asked else { continue };
                let expected = (ticket.0 != 0).then_some(ticket.0 as i64);
                assert!(matches!(reply, Reply::Renewed(ttl) if ttl == expected), "{reply:?}");
                assert!(answered.insert(ticket));
            }
            future::yield_now().await;
        }
    });
}

#[test]
fn questions_ahead_are_answered_in_order_and_together() {
    run(async {
        let mut bench = Bench::default(A, 1);
        let mut socket = dial(bench.address).await;
        let renew = "POST /leases HTTP/1.1\r\nContent-Length: 2\r\n\r\n\x08";
        let time = "POST /leases/internal HTTP/1.1\r\nContent-Length: 4\r\n\r\n\x0a\x02\x08\x05";
        say(&mut socket, format!("{renew}\x07{time}{renew}\x01GET /version HTTP/1.1\r\n\r\n"))
            .await;
        let mut asked = Vec::new();
        while asked.len() < 3 {
            match bench.asked().await {
                ToNode::Lease { ticket, ask } => asked.push((ticket, ask)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(asked[1].1, LeaseAsk::Remaining(LeaseId(5)), "all before the first answer");
        let granted = LeaseTime { granted: 9, remaining: Duration::from_millis(2_900) };
        let replies = vec![
            (asked[2].0, Reply::Unavailable(Unavailable::LeaderChanged)),
            (asked[1].0, Reply::Remaining(Some(granted))),
            (asked[0].0, Reply::Renewed(None)),
        ];
        assert!(bench.node.to_shards[0].try_send(ToShard { replies }).is_ok());
        let (first, body) = response(&mut socket).await;
        assert_eq!((first.status, &body[..]), (404, &b"lease not found\n"[..]));
        let (second, body) = response(&mut socket).await;
        let said = b"\x0a\x08\x0a\x00\x10\x05\x18\x02\x20\x09";
        assert_eq!((second.status, &body[..]), (200, &said[..]));
        assert_eq!(response(&mut socket).await.0.status, 400);
        assert_eq!(response(&mut socket).await.0.status, 200);
    });
}

#[test]
fn a_question_is_asked_again_where_the_lead_has_gone() {
    run(async {
        let (listener, url) = listener();
        let mut bench = Bench::default(A, 1);
        let members = [(A, bench.url()), (B, url)];
        bench.meet(&members, B);
        let what = Forward::Lease(LeaseAsk::Renew(LeaseId(7)));
        bench.tell(ToPeers::Forward { ticket: Ticket(3), to: B, what });
        let mut socket = loop {
            let mut socket = accept(&listener).await;
            if request(&mut socket).await.0.target == "/leases" {
                break socket;
            }
        };
        // It does not lead any more; meanwhile this member has come to.
        bench.newest.publish(view(cluster(&members), A));
        say(&mut socket, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        while answer_leases(&mut bench) == 0 {
            future::yield_now().await;
        }
        let ttl = bench
            .word(|word| match word {
                FromPeer::Answered { ticket: Ticket(3), reply: Reply::Renewed(ttl) } => Some(*ttl),
                _ => None,
            })
            .await;
        assert_eq!(ttl, Some(7));
    });
}

#[test]
fn a_question_waits_until_somebody_leads() {
    run(async {
        let mut bench = Bench::default(A, 1);
        let members = [(A, bench.url()), (B, nowhere())];
        bench.meet(&members, MemberId(0));
        let what = Forward::Lease(LeaseAsk::Renew(LeaseId(7)));
        bench.tell(ToPeers::Forward { ticket: Ticket(3), to: MemberId(0), what });
        bench.newest.publish(view(cluster(&members), A));
        while answer_leases(&mut bench) == 0 {
            future::yield_now().await;
        }
        bench
            .word(|word| match word {
                FromPeer::Answered { ticket: Ticket(3), reply: Reply::Renewed(Some(7)) } => {
                    Some(())
                }
                _ => None,
            })
            .await;
    });
}

#[test]
fn a_desk_does_not_ask_further_for_others() {
    run(async {
        let mut bench = Bench::default(A, 1);
        bench.meet(&[(A, bench.url()), (B, nowhere())], B);
        let mut socket = dial(bench.address).await;
        say(&mut socket, "POST /leases HTTP/1.1\r\nContent-Length: 2\r\n\r\n\x08\x07").await;
        let ticket = loop {
            if let ToNode::Lease { ticket, .. } = bench.asked().await {
                break ticket;
            }
        };
        let what = Forward::Lease(LeaseAsk::Renew(LeaseId(7)));
        bench.tell(ToPeers::Forward { ticket, to: B, what });
        bench
            .word(|word| match word {
                FromPeer::Answered {
                    reply: Reply::Unavailable(Unavailable::NotLeader), ..
                } => Some(()),
                _ => None,
            })
            .await;
    });
}

// ── snapshots ───────────────────────────────────────────────────────────────────────────────────

/// A tree of `keys` keys at entry `applied`.
fn snapshot(keys: i64, applied: u64) -> Snapshot {
    let mut tree = Tree::new(Options::default());
    for key in 0..keys {
        tree.put(Stamp::new(2 + key, 0), format!("k{key}").as_bytes(), &[7; 900], LeaseId(0));
    }
    tree.snapshot(RootFacts {
        cluster: CLUSTER,
        member: A,
        applied: Index(applied),
        applied_term: Term(2),
        installed: Index(0),
        revision: Revision(1 + keys),
        state: Bytes::new(),
    })
}

fn word_of(from: MemberId, to: MemberId, applied: u64) -> Box<Message> {
    let mark = SnapshotMark { index: Index(applied), term: Term(2), ..SnapshotMark::default() };
    let message = Message::new(Kind::Snapshot, from, to);
    Box::new(Message { term: Term(2), snapshot: Some(mark), ..message })
}

impl Bench {
    async fn sent(&mut self) -> bool {
        self.word(|word| match word {
            FromPeer::SnapshotSent { to: B, arrived } => Some(*arrived),
            _ => None,
        })
        .await
    }
}

#[test]
fn a_snapshot_goes_over_whole_and_one_at_a_time() {
    run(async {
        let (mut a, mut b) = (Bench::default(A, 1), Bench::default(B, 1));
        let members = [(A, a.url()), (B, b.url())];
        a.meet(&members, A);
        b.meet(&members, A);
        let (keys, applied) = (3_000, 50);
        let message = word_of(A, B, applied);
        a.tell(ToPeers::Snapshot { message: message.clone(), snapshot: snapshot(keys, applied) });
        let staged = loop {
            match b.asked().await {
                ToNode::Peer(FromPeer::Snapshot { message: said, staged }) => {
                    assert_eq!(said, message);
                    break staged;
                }
                ToNode::Peer(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(a.sent().await);
        assert_eq!(staged.applied(), Index(applied));
        let count = staged.reader().count(&crate::tree::KeyRange::ALL, Revision(1 + keys));
        assert_eq!(count, keys as u64);
        // The node has not said yet what becomes of it.
        a.tell(ToPeers::Snapshot { message: word_of(A, B, 60), snapshot: snapshot(3, 60) });
        assert!(!a.sent().await);
        b.tell(ToPeers::Unneeded(staged));
        b.word_of_members().await;
        a.tell(ToPeers::Snapshot { message: word_of(A, B, 60), snapshot: snapshot(3, 60) });
        assert!(a.sent().await);
    });
}

#[test]
fn a_snapshot_that_is_none_is_refused_and_another_may_come() {
    run(async {
        let (mut a, mut b) = (Bench::default(A, 1), Bench::default(B, 1));
        let members = [(A, a.url()), (B, b.url())];
        a.meet(&members, A);
        b.meet(&members, A);
        // It speaks of another state than the one it comes with.
        a.tell(ToPeers::Snapshot { message: word_of(A, B, 51), snapshot: snapshot(3, 50) });
        assert!(!a.sent().await);
        let head = a.who.request("POST", "/raft/snapshot", "x");
        let etcds = format!("{head}Content-Length: 3\r\n\r\nabc");
        assert_eq!(exchange(&mut dial(b.address).await, etcds).await.0, 501);
        // It breaks off after the list of its parts.
        let mut body = Vec::new();
        frame::encode_framed(&word_of(A, B, 50), &mut body);
        body.extend_from_slice(&snapshot(3, 50).encode_manifest().await);
        let head = format!(
            "{head}X-Ringleader-Snapshot: manifest\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut torn = dial(b.address).await;
        say(&mut torn, [head.as_bytes(), &body].concat()).await;
        let (answer, missing) = response(&mut torn).await;
        assert_eq!((answer.status, missing.len() % 8), (200, 0));
        drop(torn);
        loop {
            a.tell(ToPeers::Snapshot { message: word_of(A, B, 50), snapshot: snapshot(3, 50) });
            // Until it is noticed that nothing more comes.
            if a.sent().await {
                break;
            }
        }
    });
}
