//! What real members say to each other, read and written by our codec.
//!
//! Two real etcds and, as the third, this test: it takes the streams that they open, opens those
//! that they serve, and plays a follower that answers each append. What etcd writes must be what our
//! writer would have written, byte for byte; what our writer writes must be understood by etcd.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use e2e::{
    binary, http,
    server::{Folder, Server, Setup, free_port},
};
use ringleader::{
    api::http::read_members,
    consensus::{Kind, Message},
    net::http1::{Dechunk, Headers, Length, Parsed, take_request, take_response},
    peer::{
        frame::{Heard, Lane, Reader, Writer},
        identity::Identity,
    },
    types::{ClusterId, Index, MemberId},
};

/// How long members may take to do what they are about to do, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is killed when dropped.
struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait().map(drop)).expect("it is ours to end");
    }
}

fn start(etcd: &Path, folder: &Folder, name: &str, ports: (u16, u16), cluster: &str) -> Etcd {
    let (client, peer) =
        (format!("http://127.0.0.1:{}", ports.0), format!("http://127.0.0.1:{}", ports.1));
    let log = std::fs::File::create(folder.path().join(format!("{name}.log"))).expect("our folder");
    let child = Command::new(etcd)
        .args(["--name", name, "--initial-cluster", cluster])
        .arg("--data-dir")
        .arg(folder.path().join(name))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Etcd(child.expect("it starts"))
}

/// What is asked of us: a head, and the connection to answer over.
struct Asked {
    target: String,
    headers: Headers,
    socket: TcpStream,
}

/// Takes what members ask: posts are answered here, streams are handed on.
fn receive(
    listener: TcpListener,
    streams: mpsc::Sender<Asked>,
    posts: mpsc::Sender<(Headers, Vec<u8>)>,
) {
    for socket in listener.incoming() {
        let (streams, posts) = (streams.clone(), posts.clone());
        thread::spawn(move || serve(socket.expect("a connection"), &streams, &posts));
    }
}

/// Whoever listens may have heard enough.
fn serve(
    mut socket: TcpStream,
    streams: &mpsc::Sender<Asked>,
    posts: &mpsc::Sender<(Headers, Vec<u8>)>,
) {
    let mut input = BytesMut::new();
    loop {
        let request = match take_request(&mut input) {
            Parsed::Whole(request) => request,
            Parsed::Partial if fill(&mut socket, &mut input) => continue,
            _ => return,
        };
        let Length::Known(bytes) = request.length else { panic!("{request:?}") };
        while input.len() < bytes {
            if !fill(&mut socket, &mut input) {
                return;
            }
        }
        let body = input.split_to(bytes).to_vec();
        if request.target.starts_with("/raft/stream/") {
            let head =
                "HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.1\r\nTransfer-Encoding: chunked\r\n\r\n";
            if socket.write_all(head.as_bytes()).is_ok() {
                let asked = Asked { target: request.target, headers: request.headers, socket };
                let _enough = streams.send(asked).is_err();
            }
            return;
        }
        let (status, body) = match request.target.as_str() {
            "/raft" => {
                let _enough = posts.send((request.headers, body)).is_err();
                ("204 No Content", "")
            }
            "/raft/probing" => ("200 OK", "{\"OK\":true,\"Now\":\"2026-01-01T00:00:00Z\"}\n"),
            "/version" => {
                ("200 OK", r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#)
            }
            _ => ("404 Not Found", ""),
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if socket.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn fill(socket: &mut TcpStream, input: &mut BytesMut) -> bool {
    let mut piece = [0; 16 << 10];
    let read = socket.read(&mut piece).unwrap_or(0);
    input.extend_from_slice(&piece[..read]);
    read > 0
}

/// A stream that a member serves, and all that came over it.
struct Heeded {
    socket: TcpStream,
    input: BytesMut,
    chunks: Dechunk,
    body: BytesMut,
    reader: Reader,
    /// The body, as it came.
    raw: Vec<u8>,
    /// The same, as our writer writes what it says.
    again: Vec<u8>,
    writer: Writer,
}

impl Heeded {
    /// Asks until it is served: a member that does not know the other one yet says no.
    fn open(us: &Identity, from: MemberId, port: u16, lane: Lane) -> Self {
        let began = Instant::now();
        loop {
            if let Some(open) = Self::try_open(us, from, port, lane) {
                return open;
            }
            assert!(began.elapsed() < PATIENCE, "no stream {lane:?} from {from}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn try_open(us: &Identity, from: MemberId, port: u16, lane: Lane) -> Option<Self> {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
        let path = format!("/raft/stream/{}/{}", lane.name(), us.member);
        let head = us.request("GET", &path, "x");
        write!(socket, "{head}X-Raft-To: {from}\r\n\r\n").ok()?;
        let mut input = BytesMut::new();
        let answer = loop {
            match take_response(&mut input) {
                Parsed::Whole(answer) => break answer,
                Parsed::Partial if fill(&mut socket, &mut input) => {}
                _ => return None,
            }
        };
        let sound = answer.status == 200
            && answer.length == Length::Chunked
            && answer.headers.get("x-etcd-cluster-id") == Some(&us.cluster.to_string())
            && answer.headers.get("x-server-version") == Some("3.7.1");
        sound.then(|| Self {
            socket,
            input,
            chunks: Dechunk::Size,
            body: BytesMut::new(),
            reader: Reader::new(lane, from, us.member),
            raw: Vec::new(),
            again: Vec::new(),
            writer: Writer::new(lane),
        })
    }

    /// What comes next, checked against our own writer.
    fn next(&mut self) -> Option<Heard> {
        loop {
            let before = self.body.len();
            let heard = self.reader.next(&mut self.body).expect("etcd's frames are sound");
            let _taken = before - self.body.len();
            match &heard {
                Some(Heard::LinkHeartbeat) => self.writer.write_link_heartbeat(&mut self.again),
                Some(Heard::Message(message)) => self.writer.write(message, &mut self.again),
                None => {}
            }
            if let Some(heard) = heard {
                let same = self.raw.starts_with(&self.again);
                assert!(
                    same,
                    "of {heard:?}\netcd: {:02x?}\nours: {:02x?}",
                    tail(&self.raw),
                    tail(&self.again)
                );
                return Some(heard);
            }
            if !fill(&mut self.socket, &mut self.input) {
                return None;
            }
            let known = self.body.len();
            self.chunks.step(&mut self.input, &mut self.body).expect("chunks");
            self.raw.extend_from_slice(&self.body[known..]);
        }
    }
}

fn tail(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.len().saturating_sub(200)..]
}

/// Puts through a member's client port, from another program: etcd's own.
fn put(etcdctl: &Path, port: u16, key: &str, value: &str) -> bool {
    let endpoint = format!("http://127.0.0.1:{port}");
    let status = Command::new(etcdctl)
        .args(["--endpoints", &endpoint, "--command-timeout", "20s", "put", key, value])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.expect("it runs").success()
}

#[test]
fn real_members_are_read_and_answered_byte_for_byte() {
    let test = "real_members_are_read_and_answered_byte_for_byte";
    let (Some(etcd), Some(etcdctl)) = (binary::etcd("etcd", test), binary::etcd("etcdctl", test))
    else {
        return;
    };
    let folder = Folder::new("peer-wire");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let own_url = format!("http://{}", listener.local_addr().expect("it listens"));
    let ports = [(free_port(), free_port()), (free_port(), free_port())];
    let cluster = format!(
        "one=http://127.0.0.1:{},two=http://127.0.0.1:{},us={own_url}",
        ports[0].1, ports[1].1
    );
    let (streams, asked) = mpsc::channel();
    let (posts, posted) = mpsc::channel();
    thread::spawn(move || receive(listener, streams, posts));
    let _one = start(&etcd, &folder, "one", ports[0], &cluster);
    let _two = start(&etcd, &folder, "two", ports[1], &cluster);

    let (us, others) = introduce(&own_url, ports);
    // Both members dial both streams, in etcd's headers.
    let mut told = Vec::new();
    while told.len() < 4 {
        let asked: Asked = asked.recv_timeout(PATIENCE).expect("they dial");
        us.check(&asked.headers).expect("etcd's headers are sound");
        let said = |name| asked.headers.get(name).unwrap_or_default().to_owned();
        assert_eq!(said("x-raft-to"), us.member.to_string());
        let from = MemberId(u64::from_str_radix(&said("x-server-from"), 16).expect("an id"));
        assert!(asked.target.ends_with(&format!("/{from}")), "{}", asked.target);
        let place = others.iter().find(|(id, _)| *id == from).expect("a member");
        assert_eq!(said("x-peerurls"), format!("http://127.0.0.1:{}", ports[place.1].1));
        let lane = match asked.target.starts_with("/raft/stream/msgapp/") {
            true => Lane::Append,
            false => Lane::Message,
        };
        if !told.iter().any(|(id, known, _)| (*id, *known) == (from, lane)) {
            told.push((from, lane, asked.socket));
        }
    }
    // Each member's streams, read at the same time: only the leader appends.
    let (heard_by_us, from_streams) = mpsc::channel();
    for (id, at) in &others {
        for lane in [Lane::Append, Lane::Message] {
            let (heard_by_us, us, id, port) = (heard_by_us.clone(), us.clone(), *id, ports[*at].1);
            thread::spawn(move || {
                let mut stream = Heeded::open(&us, id, port, lane);
                while let Some(heard) = stream.next() {
                    if heard_by_us.send((lane, heard)).is_err() {
                        let _gone = stream.socket.shutdown(Shutdown::Both).is_err();
                        return;
                    }
                }
            });
        }
    }
    drop(heard_by_us);
    let putting = {
        let etcdctl = etcdctl.clone();
        thread::spawn(move || {
            (0..30).all(|n| put(&etcdctl, ports[0].0, &format!("k{n}"), &"v".repeat(n * 100)))
        })
    };
    follow(&us, &from_streams, &mut told);
    assert!(putting.join().expect("it ran"), "etcd serves meanwhile");
    // What was said before there were streams.
    for (headers, body) in posted.try_iter() {
        us.check(&headers).expect("etcd's headers are sound");
        let Ok(Heard::Message(message)) = ringleader::peer::frame::decode(body.clone().into())
        else {
            panic!("{body:02x?}")
        };
        let mut again = Vec::new();
        ringleader::peer::frame::encode(&message, &mut again);
        assert_eq!(again, body, "{message:?}");
    }
}

/// Who we are, and who the others are with the place of their ports, as one of them says.
fn introduce(own_url: &str, ports: [(u16, u16); 2]) -> (Identity, Vec<(MemberId, usize)>) {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "no member says who the members are");
        thread::sleep(Duration::from_millis(100));
        let endpoint = format!("127.0.0.1:{}", ports[0].1);
        let Ok(answer) = http::ask(&endpoint, "GET", "/members") else { continue };
        let (Some(members), Some(cluster)) =
            (read_members(answer.body.as_bytes()), answer.header("X-Etcd-Cluster-ID"))
        else {
            continue;
        };
        if members.len() < 3 {
            continue;
        }
        let again = ringleader::api::http::members(&members).body;
        assert_eq!(again, answer.body, "the list of members, byte for byte");
        let id = |url: &str| {
            let found = members.iter().find(|member| member.peer_urls == [url]);
            found.expect("all are members").id
        };
        let others = (0..2).map(|at| (id(&format!("http://127.0.0.1:{}", ports[at].1)), at));
        let identity = Identity {
            member: id(own_url),
            cluster: ClusterId(u64::from_str_radix(cluster, 16).expect("hex")),
            peer_urls: vec![own_url.to_owned()],
            boot: 1,
        };
        return (identity, others.collect());
    }
}

/// Plays a follower until the leader believes it and sends appends that follow from each other, with
/// all that was put.
fn follow(
    us: &Identity,
    heard: &mpsc::Receiver<(Lane, Heard)>,
    told: &mut [(MemberId, Lane, TcpStream)],
) {
    let mut writer = Writer::new(Lane::Message);
    let (mut last, mut values, mut beats, mut link_beats) = (Index(0), 0, 0, 0);
    let began = Instant::now();
    while values < 30 || beats < 3 || link_beats < 2 {
        assert!(began.elapsed() < PATIENCE, "{values} values, {beats} and {link_beats} heartbeats");
        let (lane, heard) = heard.recv_timeout(PATIENCE).expect("they speak");
        let Heard::Message(message) = heard else {
            link_beats += 1;
            continue;
        };
        assert_eq!(message.to, us.member);
        let mut answer = match message.kind {
            Kind::Append => {
                assert_eq!(lane, Lane::Append, "appends have a stream of their own");
                if message.index > last {
                    let mut no = Message::new(Kind::AppendResponse, us.member, message.from);
                    (no.index, no.reject, no.reject_hint) = (message.index, true, last);
                    no
                } else {
                    let new = message.entries.iter().filter(|entry| entry.index > last);
                    values +=
                        new.filter(|entry| entry.data.len() > 1 && holds_put(&entry.data)).count();
                    let end = message.entries.last().map_or(message.index, |entry| entry.index);
                    last = last.max(end);
                    Message {
                        index: end,
                        ..Message::new(Kind::AppendResponse, us.member, message.from)
                    }
                }
            }
            Kind::Heartbeat => {
                beats += 1;
                let context = message.context.clone();
                Message {
                    context,
                    ..Message::new(Kind::HeartbeatResponse, us.member, message.from)
                }
            }
            // Votes are between the other two.
            _ => continue,
        };
        answer.term = message.term;
        let to =
            told.iter_mut().find(|(id, lane, _)| *id == message.from && *lane == Lane::Message);
        let (_, _, socket) = to.expect("both have dialed both");
        let mut frame = Vec::new();
        writer.write(&answer, &mut frame);
        let head = format!("{:x}\r\n", frame.len());
        let whole = [head.as_bytes(), &frame, b"\r\n"].concat();
        socket.write_all(&whole).expect("the leader listens");
    }
}

/// Whether an entry is a put of this test: a key `k0` to `k29`.
fn holds_put(data: &[u8]) -> bool {
    // InternalRaftRequest.put is field 4; PutRequest.key is field 1.
    data.windows(4).any(|part| part[0] == 0x0a && (2..=3).contains(&part[1]) && part[2] == b'k')
}

// ── comparing what members have ─────────────────────────────────────────────────────────────────

fn etcdctl(etcdctl: &Path, server: &Server, words: &[&str]) {
    let mut command = Command::new(etcdctl);
    command.args(["--endpoints", &server.endpoint()]).args(words);
    assert!(command.output().expect("etcdctl runs").status.success(), "{words:?}");
}

/// Ours and etcd say the same of the same keys to a member that compares, whatever it asks.
#[test]
fn a_member_that_compares_hears_what_etcd_says() {
    let test = "a_member_that_compares_hears_what_etcd_says";
    let (Some(etcd), Some(ctl)) = (binary::etcd("etcd", test), binary::etcd("etcdctl", test))
    else {
        return;
    };
    let folder = Folder::new("peer-sums");
    let setups = [("etcd", etcd), ("ours", binary::ringleader())]
        .map(|(name, program)| Setup::named(&program, folder.path(), name));
    let servers = setups.each_ref().map(|setup| setup.start().expect("it starts"));
    for server in &servers {
        for words in [
            &["put", "a", "1"][..],
            &["put", "b", "2"],
            &["put", "a", "3"],
            &["del", "b"],
            &["compact", "3", "--physical"],
            &["put", "c", "4"],
            &["compact", "5", "--physical"],
        ] {
            etcdctl(&ctl, server, words);
        }
    }
    let ask = |method: &str, headers: &str, body: &str| {
        let [etcds, ours] = setups.each_ref().map(|setup| {
            let endpoint = format!("127.0.0.1:{}", setup.peer_port());
            let answer = http::ask_with(&endpoint, method, "/members/hashkv", headers, body);
            let answer = answer.unwrap_or_else(|error| panic!("{method} {body}: {error}"));
            let header = |name| answer.header(name).map(str::to_owned);
            let cluster = header("x-etcd-cluster-id");
            (answer.status, header("content-type"), header("allow"), cluster, answer.body)
        });
        assert_eq!(ours, etcds, "{method} {headers:?} {body}");
        (ours.0, ours.4)
    };
    let sum = |body: &str| ask("GET", "", body);
    let said = sum(r#"{"revision":3}"#).1;
    assert!(said.contains(r#""compact_revision":-1,"hash_revision":3"#), "it remembers: {said}");
    for revision in -1..8 {
        sum(&format!(r#"{{"revision":{revision}}}"#));
    }
    assert_eq!(sum("{}").0, 200);
    for body in ["null", r#" {"x":[1],"REVISION":6} "#, r#"{"revision":1,"revision":6}"#] {
        assert_eq!(sum(body).0, 200, "{body}");
    }
    let bad = ["", "[]", "7", "{", "{} x", r#"{"revision":"6"}"#, r#"{"revision":6.0}"#];
    for body in bad.into_iter().chain([r#"{"revision":99999999999999999999}"#]) {
        assert_eq!(sum(body), (400, "error unmarshalling request\n".into()), "{body}");
    }
    assert_eq!(ask("POST", "", "{}").0, 405);
    assert_eq!(ask("GET", "X-Etcd-Cluster-ID: 12\r\n", "{}").0, 412);
    assert_eq!(ask("GET", "X-Etcd-Cluster-ID: \r\n", "{}").0, 200);
}
