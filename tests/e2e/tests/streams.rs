//! Bad watch streams hurt themselves: others, on the same connection and on theirs, go on.
#![allow(clippy::disallowed_methods, reason = "real sockets take real time")]

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::BytesMut;
use e2e::{
    Dice, binary,
    neighbour::beside_a_good_client,
    server::Server,
    watch::{self, Watch, request},
};
use loadgen::{
    grpc,
    h2::{Connection, Event},
};
use prost::Message;
use proto::etcdserverpb::{
    PutRequest, PutResponse, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
    WatchResponse, kv, lease, watch::WATCH, watch_request::RequestUnion,
};

const WATCHERS: usize = 100_000;
const ANSWER_MAX: Duration = Duration::from_secs(30);

// ── one that does not read ──────────────────────────────────────────────────────────────────────

/// In the end it reads after all, and has missed nothing.
#[test]
fn watchers_that_do_not_read() {
    const SLOW: usize = 8;
    const PUTS: usize = 1_000;
    const VALUE_BYTES: usize = 20_000;
    beside_a_good_client("slow", |server| {
        let open = || Watch::open(server.client(), watch::prefix("slow/", 0)).expect("it serves");
        let slow: Vec<_> = (0..SLOW).map(|_| open()).collect();
        let mut reading = open();
        let mut client = server.client();
        let put = |at: usize| PutRequest {
            key: format!("slow/{at}").into(),
            value: vec![b'x'; VALUE_BYTES].into(),
            ..Default::default()
        };
        for at in 0..PUTS {
            let _: PutResponse = client.unary(kv::PUT, &put(at)).expect("it serves");
            let events = reading.next(ANSWER_MAX).expect("it serves");
            assert_eq!(events.len(), 1);
        }
        for mut slow in slow {
            let mut seen = 0;
            while seen < PUTS {
                for event in slow.next(ANSWER_MAX).expect("it is not given up") {
                    let kv = event.kv.expect("an event is of a key");
                    assert_eq!(kv.key, format!("slow/{seen}"));
                    seen += 1;
                }
            }
        }
    });
}

// ── one that watches everything ─────────────────────────────────────────────────────────────────

#[test]
fn a_hundred_thousand_watchers_on_one_stream() {
    beside_a_good_client("many", |server| {
        let mut stream = server.client().duplex(WATCH).expect("it serves");
        let key = |at: usize| format!("many/{at:06}");
        for at in 0..WATCHERS {
            let create = WatchCreateRequest { key: key(at).into(), ..Default::default() };
            stream.send(&request(RequestUnion::CreateRequest(create))).expect("it serves");
        }
        for at in 0..WATCHERS {
            let created = next(&mut stream);
            let as_asked = (created.created, created.canceled, created.watch_id);
            assert_eq!(as_asked, (true, false, at as i64), "{}", created.cancel_reason);
        }
        let mut client = server.client();
        let mut dice = Dice::new(binary::seed());
        for _ in 0..200 {
            let at = dice.below(WATCHERS);
            let put = PutRequest { key: key(at).into(), ..Default::default() };
            let _: PutResponse = client.unary(kv::PUT, &put).expect("it serves");
            let response = next(&mut stream);
            assert_eq!((response.watch_id, response.events.len()), (at as i64, 1));
        }
        // Half of them change their mind.
        for at in (0..WATCHERS).step_by(2) {
            let cancel = WatchCancelRequest { watch_id: at as i64 };
            stream.send(&request(RequestUnion::CancelRequest(cancel))).expect("it serves");
        }
        for at in (0..WATCHERS).step_by(2) {
            let canceled = next(&mut stream);
            assert_eq!((canceled.canceled, canceled.watch_id), (true, at as i64));
        }
    });
}

fn next(stream: &mut loadgen::client::Duplex) -> WatchResponse {
    stream.next(ANSWER_MAX).expect("it serves").expect("a watch does not end by itself")
}

// ── one that says nonsense ──────────────────────────────────────────────────────────────────────

/// Several streams on one connection, and what was heard on each.
struct Wire {
    socket: TcpStream,
    connection: Connection,
    authority: String,
    /// By the streams' places in the order in which they were opened.
    heard: Vec<Heard>,
}

#[derive(Default)]
struct Heard {
    body: BytesMut,
    messages: VecDeque<WatchResponse>,
    verdict: grpc::Verdict,
    over: bool,
}

impl Wire {
    fn connect(server: &Server) -> Self {
        let socket = TcpStream::connect(server.endpoint()).expect("it listens");
        socket.set_read_timeout(Some(ANSWER_MAX)).expect("a socket takes a timeout");
        let authority = server.endpoint();
        let mut wire = Self { socket, connection: Connection::default(), authority, heard: vec![] };
        while !wire.connection.greeted() {
            wire.flush();
            wire.read();
        }
        wire
    }

    /// Its place, and its number on the wire.
    fn open(&mut self, path: &str) -> (usize, u32) {
        let place = self.heard.len();
        self.heard.push(Heard::default());
        let head = grpc::head(path, &self.authority);
        let number = self.connection.open(place, &head).expect("there is room for a stream");
        (place, number)
    }

    fn say(&mut self, number: u32, bytes: &[u8]) {
        self.connection.send(number, bytes);
        self.flush();
    }

    fn flush(&mut self) {
        let bytes = self.connection.out().len();
        self.socket.write_all(self.connection.out()).expect("the connection stays");
        self.connection.sent(bytes);
    }

    fn read(&mut self) {
        let mut buffer = [0; 1 << 14];
        let bytes = self.socket.read(&mut buffer).expect("an answer comes");
        assert!(bytes > 0, "the connection stays");
        let heard = &mut self.heard;
        let right = self.connection.receive(&buffer[..bytes], |place, event| {
            let heard = &mut heard[place];
            match event {
                Event::Headers(fields) => heard.verdict.add(fields),
                Event::Data(bytes) => heard.hear(bytes),
                Event::End | Event::Reset(_) => heard.over = true,
            }
        });
        right.expect("the server speaks HTTP/2");
        self.flush();
    }

    fn next(&mut self, place: usize) -> WatchResponse {
        loop {
            if let Some(message) = self.heard[place].messages.pop_front() {
                return message;
            }
            assert!(!self.heard[place].over, "it is over: {:?}", self.heard[place].verdict);
            self.read();
        }
    }

    fn end(&mut self, place: usize) {
        while !self.heard[place].over {
            self.read();
        }
    }
}

impl Heard {
    fn hear(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
        while let Some(message) = grpc::take_message(&mut self.body).expect("it is framed") {
            self.messages.push_back(WatchResponse::decode(message).expect("it is a response"));
        }
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let bytes = u32::try_from(message.len()).expect("messages are short");
    [&[0], &bytes.to_be_bytes()[..], message].concat()
}

/// Each ends its own stream at most; a watch on the same connection sees what is put after it.
#[test]
fn nonsense_on_a_stream() {
    let create = request(RequestUnion::CreateRequest(watch::prefix("n/", 0)));
    let whole = grpc::body(&create);
    // What it says, and whether that can only be wrong.
    let nonsense: [(&str, Vec<u8>, bool); 8] = [
        ("no protobuf", framed(&[0xff; 40]), true),
        ("a field cut short", framed(&create.encode_to_vec()[..5]), true),
        ("a field numbered 0", framed(&[0x00, 0x01]), true),
        ("compressed by nobody knows what", [&[1], &whole[1..]].concat(), true),
        ("of 4 GiB", vec![0, 0xff, 0xff, 0xff, 0xff, 1], true),
        ("of 64 MiB", vec![0, 4, 0, 0, 0, 1], true),
        ("half a message", whole[..whole.len() / 2].to_vec(), false),
        ("half a prefix", whole[..3].to_vec(), false),
    ];
    beside_a_good_client("nonsense", |server| {
        let mut client = server.client();
        let mut wire = Wire::connect(server);
        let (good, number) = wire.open(WATCH);
        wire.say(number, &whole);
        assert!(wire.next(good).created);
        for path in [WATCH, lease::LEASE_KEEP_ALIVE] {
            for (name, words, wrong) in &nonsense {
                let (bad, number) = wire.open(path);
                wire.say(number, words);
                if *wrong {
                    wire.end(bad);
                    assert!(wire.heard[bad].verdict.read().is_err(), "{name} was well");
                } else {
                    // etcd goes on with some of these: a watch outlives the requests of its client.
                    wire.connection.finish(number);
                    wire.flush();
                }
                let put = PutRequest { key: "n/k".into(), ..Default::default() };
                let _: PutResponse = client.unary(kv::PUT, &put).expect("it serves");
                let seen = wire.next(good);
                assert_eq!((seen.watch_id, seen.events.len()), (0, 1), "after {name}");
            }
        }
    });
}

/// What is well formed and makes no sense is answered on the stream, which goes on.
#[test]
fn requests_that_make_no_sense() {
    beside_a_good_client("senseless", |server| {
        let mut stream = server.client().duplex(WATCH).expect("it serves");
        let mut say = |union| stream.send(&request(union)).expect("it serves");
        let cancel = |watch_id| RequestUnion::CancelRequest(WatchCancelRequest { watch_id });
        let (inverted, negative) = (
            WatchCreateRequest { key: "b".into(), range_end: "a".into(), ..Default::default() },
            WatchCreateRequest { key: "k".into(), start_revision: -1, ..Default::default() },
        );
        let filters = WatchCreateRequest { filters: vec![7, -1], ..watch::prefix("s/", 0) };
        (-2..2).for_each(|id| say(cancel(id)));
        say(RequestUnion::CreateRequest(inverted));
        say(RequestUnion::CreateRequest(negative));
        say(RequestUnion::CreateRequest(filters));
        say(cancel(4711));
        say(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        stream.send(&proto::etcdserverpb::WatchRequest::default()).expect("it serves");
        let put = PutRequest { key: "s/k".into(), ..Default::default() };
        let mut answers = vec![];
        // Controls and progress keep no order between them.
        while answers.len() < 3 {
            let answer = next(&mut stream);
            let progress = answer.watch_id == -1 && !answer.created;
            if !progress {
                answers.push((answer.watch_id, answer.canceled, answer.cancel_reason));
            }
        }
        let refused = |reason: &str| (-1, true, reason.to_owned());
        let compacted = refused("etcdserver: mvcc: required revision has been compacted");
        let expected = [refused("mvcc: watcher range is empty"), compacted, (0, false, "".into())];
        assert_eq!(answers, expected);
        let _: PutResponse = server.client().unary(kv::PUT, &put).expect("it serves");
        let seen = (0..2).map(|_| next(&mut stream)).find(|answer| !answer.events.is_empty());
        assert_eq!(seen.expect("at most a progress comes before").watch_id, 0);
    });
}
