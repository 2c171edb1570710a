//! What other members ask over the peers' port (etcd `api/etcdhttp/peer.go`, `rafthttp/http.go`,
//! `lease/leasehttp`): etcd's paths, statuses and sentences.
//!
//! Questions about leases are answered in order but worked on together, however many of them a
//! connection brings at once; everything else is one after the other.

use super::{
    Room, frame, frame::Heard, frame::Lane, identity, identity::Mismatch, link::Link, snapshot,
    socket::Socket, stream,
};
use crate::{
    api::{API_VERSION, http as bodies, status::Status},
    io::Clock,
    limits::{PEER_BODY_BYTES_MAX, PEER_CALLS_AHEAD_MAX, PEER_LEASE_WAIT},
    log,
    mesh::{LeaseAsk, Reply, ToNode},
    net::{
        Accepted, Promise,
        http1::{Length, Parsed, Request, begin_response, finish_head, take_request},
    },
    store::{Hashing, Outcome, Refusal, Unavailable, command::MemberChange},
    types::{LeaseId, MemberId},
};
use bytes::Bytes;
use futures_lite::future;
use prost::Message as _;
use proto::{etcdserverpb as pb, leasepb};
use std::{collections::VecDeque, future::poll_fn, rc::Rc, task::Poll};

/// What is said to a member that was removed.
pub const FROM_REMOVED: &str = "cannot process message from removed member";
/// What is said to whoever takes this member for another.
pub const TO_ANOTHER: &str = "cannot process message to mismatch member";
const NO_LEASE: &str = "lease not found";
const TOO_LATE: &str = "waiting for node to catch up its applied index has timed out";
const NOT_LEADING: &str = "not a primary lessor";

const NO_MEMBER: &str = "membership: ID not found";
/// What is said of a member that votes already.
pub const NOT_LEARNER: &str = "membership: can only promote a learner member";
/// What is said of a learner that lags.
pub const LEARNER_NOT_READY: &str =
    "etcdserver: can only promote a learner member which is in sync with leader";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";

/// An answer with everything that HTTP/1.1 needs to send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: u16,
    content_type: &'static str,
    body: Bytes,
    /// Says which cluster this is.
    names_cluster: bool,
    /// The method that would have been right.
    allow: &'static str,
}

impl Answer {
    fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, body: body.into(), names_cluster: false, allow: "" }
    }

    /// Go's `http.Error`.
    pub fn error(status: u16, why: &str) -> Self {
        Self::new(status, TEXT, format!("{why}\n"))
    }

    /// etcd's `httptypes.HTTPError`.
    pub fn json_error(status: u16, why: &str) -> Self {
        Self::new(status, JSON, format!("{{\"message\":\"{why}\"}}"))
    }

    pub fn not_allowed(allow: &'static str) -> Self {
        Self { allow, ..Self::error(405, "Method Not Allowed") }
    }

    fn of_cluster(self) -> Self {
        Self { names_cluster: true, ..self }
    }

    /// It was done, and there is nothing to say.
    pub fn done() -> Self {
        Self::new(204, TEXT, Bytes::new()).of_cluster()
    }

    /// Numbers of parts of a snapshot.
    pub fn parts(list: Vec<u8>) -> Self {
        Self::new(200, PROTOBUF, list).of_cluster()
    }

    /// Whether it says no.
    pub fn is_error(&self) -> bool {
        self.status >= 400
    }

    /// Its body, for people.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }

    /// Appends it, head and body.
    pub fn write(&self, room: &Room, keep_alive: bool, out: &mut Vec<u8>) {
        let cluster = room.who.cluster.to_string();
        let mut headers = Vec::new();
        headers.extend((!self.allow.is_empty()).then_some(("Allow", self.allow)));
        headers.extend((self.status != 204).then_some(("Content-Type", self.content_type)));
        headers.extend(self.names_cluster.then_some((identity::CLUSTER, cluster.as_str())));
        headers.extend((self.status >= 400).then_some(("X-Content-Type-Options", "nosniff")));
        let mut head = begin_response(self.status, &headers);
        // A 204 has no body and says no length (RFC 9110 §8.6).
        finish_head(&mut head, (self.status != 204).then_some(self.body.len()), keep_alive);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&self.body);
    }
}

/// Serves one connection until either side ends it or it becomes a stream.
///
/// # Errors
/// What the socket says.
pub async fn serve(room: Rc<Room>, accepted: Accepted) -> std::io::Result<()> {
    accepted.give_up_after(room.patience.write)?;
    let mut talk = Talk {
        socket: room.socket(accepted.adopt())?,
        head: None,
        questions: VecDeque::new(),
        over: false,
    };
    while let Some((request, body)) = talk.next(&room).await? {
        let answer = match route(&room, &request, body).await {
            Routed::Answer(answer) => answer,
            Routed::Snapshot(body) => {
                return snapshot::receive(room, request, body, talk.socket).await;
            }
            Routed::Stream(link, lane) => {
                talk.socket.out.extend_from_slice(stream_head(&room).as_bytes());
                talk.socket.flush().await?;
                stream::write(room, link, lane, talk.socket).await;
                return Ok(());
            }
        };
        answer.write(&room, request.keep_alive, &mut talk.socket.out);
        talk.socket.flush().await?;
        if !request.keep_alive {
            return Ok(());
        }
    }
    Ok(())
}

fn stream_head(room: &Room) -> String {
    let (cluster, boot) = (room.who.cluster.to_string(), room.who.boot.to_string());
    let headers = [
        (identity::CLUSTER, cluster.as_str()),
        (identity::BOOT, boot.as_str()),
        ("X-Server-Version", API_VERSION),
        ("Transfer-Encoding", "chunked"),
    ];
    let mut head = begin_response(200, &headers);
    finish_head(&mut head, None, true);
    head
}

/// One connection's requests.
struct Talk {
    socket: Socket,
    /// A request whose body is not whole.
    head: Option<Request>,
    /// Questions about leases, in the order of their answers.
    questions: VecDeque<Question>,
    /// The last answer is written.
    over: bool,
}

impl Talk {
    /// The next request that is not a question about a lease; those are answered meanwhile. `None`
    /// at the end.
    async fn next(&mut self, room: &Rc<Room>) -> std::io::Result<Option<(Request, Bytes)>> {
        let mut held = None;
        loop {
            while held.is_none() && self.questions.len() < PEER_CALLS_AHEAD_MAX {
                match self.take() {
                    Ok(None) => break,
                    Ok(Some((request, body))) => match Question::of(room, &request, &body) {
                        Some(question) => self.questions.push_back(question),
                        None => held = Some((request, body)),
                    },
                    Err(answer) => {
                        answer.write(room, false, &mut self.socket.out);
                        self.socket.flush().await?;
                        return Ok(None);
                    }
                }
            }
            if self.questions.is_empty()
                && let Some(request) = held.take()
            {
                return Ok(Some(request));
            }
            if !self.step(room, held.is_none()).await? {
                return Ok(None);
            }
        }
    }

    /// Waits for answers to questions or, where `reads`, for more requests. False at the end.
    async fn step(&mut self, room: &Room, reads: bool) -> std::io::Result<bool> {
        poll_fn(|cx| {
            let mut moved = false;
            while let Some(front) = self.questions.front()
                && let Poll::Ready(reply) = front.promise.poll(cx)
            {
                let question = self.questions.pop_front().expect("it was looked at just now");
                let (last, out) = (question.last, &mut self.socket.out);
                question.answer(room, reply).write(room, !last, out);
                self.over |= last;
                moved = true;
            }
            if !self.socket.out.is_empty()
                && let Poll::Ready(Err(error)) = self.socket.poll_flush(cx)
            {
                return Poll::Ready(Err(error));
            }
            if self.over {
                return self.socket.poll_flush(cx).map_ok(|()| false);
            }
            if reads && self.questions.len() < PEER_CALLS_AHEAD_MAX {
                match self.socket.poll_fill(cx) {
                    Poll::Ready(read) => return Poll::Ready(read.map(|read| read > 0)),
                    Poll::Pending => {}
                }
            }
            if moved { Poll::Ready(Ok(true)) } else { Poll::Pending }
        })
        .await
    }

    /// Takes a whole request off what was read.
    fn take(&mut self) -> Result<Option<(Request, Bytes)>, Answer> {
        let head = match self.head.take() {
            Some(head) => head,
            None => match take_request(&mut self.socket.input) {
                Parsed::Whole(head) => head,
                Parsed::Partial => return Ok(None),
                Parsed::Bad(status, why) => return Err(Answer::error(status, why)),
            },
        };
        let Length::Known(bytes) = head.length else {
            return Err(Answer::error(400, "chunked request bodies are not taken here"));
        };
        if bytes > PEER_BODY_BYTES_MAX {
            return Err(Answer::error(413, "request body too large"));
        }
        if self.socket.input.len() < bytes {
            self.head = Some(head);
            return Ok(None);
        }
        let body = self.socket.input.split_to(bytes).freeze();
        Ok(Some((head, body)))
    }
}

// ── what can be asked ───────────────────────────────────────────────────────────────────────────

enum Routed {
    Answer(Answer),
    /// The connection carries messages from here on.
    Stream(Rc<Link>, Lane),
    /// The connection carries a snapshot, of which this is the first request's body.
    Snapshot(Bytes),
}

async fn route(room: &Rc<Room>, request: &Request, body: Bytes) -> Routed {
    let path = request.target.split_once('?').map_or(request.target.as_str(), |(path, _)| path);
    Routed::Answer(match path {
        "/raft" => posted(room, request, body).await,
        "/raft/probing" => probed(room),
        "/raft/snapshot" => return Routed::Snapshot(body),
        "/version" | "/members" if request.method != "GET" => Answer::not_allowed("GET"),
        "/version" => Answer::new(200, JSON, bodies::version(&room.newest.load().cluster).body),
        "/members" => {
            let members = bodies::members(room.newest.load().cluster.members.values());
            Answer::new(200, JSON, members.body).of_cluster()
        }
        // What is sound of these is a question, and does not come here.
        "/leases" | "/leases/internal" if request.method == "POST" => {
            Answer::error(400, "error unmarshalling request")
        }
        "/leases" | "/leases/internal" => Answer::error(405, "Method Not Allowed"),
        "/members/hashkv" => summed_up(room, request, &body).await,
        "/downgrade/enabled" => downgrading(room, request).await,
        _ if path.starts_with("/members/promote/") => promoted(room, request, path).await,
        _ if path.starts_with("/raft/stream/") => return streamed(room, request, path),
        _ => Answer::error(404, "404 page not found"),
    })
}

/// Go's JSON of xiang90/probing.
fn probed(room: &Room) -> Answer {
    let now = super::probe::rfc3339(room.clock.wall_nanos());
    Answer::new(200, TEXT, format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n"))
}

/// No downgrade is ever under way here; who asks wants to hear it from a member that is in touch.
async fn downgrading(room: &Room, request: &Request) -> Answer {
    if request.method != "GET" {
        return Answer::not_allowed("GET");
    }
    let until = room.clock.now() + room.request_timeout;
    let reply = room.desk.ask(until, |ticket| ToNode::Read { ticket }).wait().await;
    match reply {
        Some(Reply::Readable) => Answer::new(200, "text/plain", "false"),
        _ => Answer::error(500, "failed linearized read: etcdserver: request timed out"),
    }
    .of_cluster()
}

/// A checksum of the keys, for a member that compares (etcd `corrupt.go`, `hashKVHandler`).
async fn summed_up(room: &Room, request: &Request, body: &[u8]) -> Answer {
    if request.method != "GET" {
        return Answer::not_allowed("GET");
    }
    let cluster = request.headers.get(identity::CLUSTER).unwrap_or_default();
    if !cluster.is_empty() && cluster != room.who.cluster.to_string() {
        return Answer::error(412, Mismatch::Cluster.text());
    }
    let Some(revision) = bodies::read_hash_kv(body) else {
        return Answer::error(400, "error unmarshalling request");
    };
    let view = room.newest.load();
    let mut hashing = match Hashing::new(revision, &view) {
        Ok(hashing) => hashing,
        Err(refusal) => {
            let why = Status::from(refusal).message;
            return Answer::error(400, why.trim_start_matches("etcdserver: "));
        }
    };
    while hashing.step() {
        future::yield_now().await;
    }
    let said = bodies::hash_kv(view.revision, hashing.finish());
    Answer::new(200, JSON, said.body).of_cluster()
}

/// A learner is to vote. Only the leader is asked, so this one does not ask further.
async fn promoted(room: &Room, request: &Request, path: &str) -> Answer {
    if request.method != "POST" {
        return Answer::not_allowed("POST");
    }
    let id = path.strip_prefix("/members/promote/").unwrap_or_default();
    let Ok(member) = id.parse().map(MemberId) else {
        let why = format!("member {id} not found in cluster");
        return Answer::error(404, &why).of_cluster();
    };
    let until = room.clock.now() + room.request_timeout;
    let change = MemberChange::Promote(member);
    let asked = room.desk.ask(until, |ticket| ToNode::Change { ticket, change });
    match asked.wait().await {
        Some(Reply::Applied(Outcome::Members { members, .. })) => {
            Answer::new(200, JSON, bodies::members(&members).body)
        }
        Some(Reply::Applied(Outcome::Refused(Refusal::MemberNotFound))) => {
            Answer::error(404, NO_MEMBER)
        }
        Some(Reply::Applied(Outcome::Refused(Refusal::NotLearner))) => {
            Answer::error(412, NOT_LEARNER)
        }
        Some(Reply::Unavailable(Unavailable::LearnerNotReady)) => {
            Answer::error(412, LEARNER_NOT_READY)
        }
        _ => Answer::json_error(500, "Internal Server Error"),
    }
    .of_cluster()
}

/// One message of a member without a stream.
async fn posted(room: &Rc<Room>, request: &Request, body: Bytes) -> Answer {
    if request.method != "POST" {
        return Answer::not_allowed("POST");
    }
    if let Err(mismatch) = room.who.check(&request.headers) {
        return Answer::error(412, mismatch.text()).of_cluster();
    }
    room.hear_of(&request.headers);
    let bytes = body.len() as u64;
    let message = match frame::decode(body) {
        Ok(Heard::Message(message)) => message,
        Ok(Heard::LinkHeartbeat) | Err(_) => {
            return Answer::error(400, "error unmarshalling raft message").of_cluster();
        }
    };
    if room.is_removed(message.from) {
        return Answer::json_error(403, FROM_REMOVED).of_cluster();
    }
    if message.to != room.who.member {
        return Answer::json_error(403, TO_ANOTHER).of_cluster();
    }
    let link = room.link(message.from);
    let boot = identity::boot_of(&request.headers);
    let is_heard = || link.as_ref().is_none_or(|link| link.hears(boot));
    if !room.desk.deliver(message, is_heard).await {
        return Answer::error(412, "a newer start of the member was heard of").of_cluster();
    }
    link.inspect(|link| link.meter.received_bytes.add(bytes));
    Answer::done()
}

/// A stream that another member wants to read (etcd `streamHandler`, its checks in its order).
fn streamed(room: &Rc<Room>, request: &Request, path: &str) -> Routed {
    let refuse = |status, why: &str| {
        log::warn!(
            "rejected a stream from a remote peer",
            "local-member-id" => room.who.member.to_string(),
            "path" => path,
            "status" => status,
            "error" => why,
        );
        Routed::Answer(Answer::error(status, why).of_cluster())
    };
    if request.method != "GET" {
        return Routed::Answer(Answer::not_allowed("GET"));
    }
    if let Err(mismatch) = room.who.check(&request.headers) {
        return refuse(412, mismatch.text());
    }
    let rest = path.strip_prefix("/raft/stream/").unwrap_or_default();
    let Some((kind, from)) = rest.split_once('/') else { return refuse(404, "invalid path") };
    let lane = match kind {
        "msgapp" => Lane::Append,
        "message" => Lane::Message,
        _ => return refuse(404, "invalid path"),
    };
    let Ok(from) = u64::from_str_radix(from, 16).map(MemberId) else {
        return refuse(404, "invalid from");
    };
    if room.is_removed(from) {
        return refuse(410, "removed member");
    }
    let Some(link) = room.link(from).filter(|link| !link.stranger.get()) else {
        room.hear_of(&request.headers);
        return refuse(404, "error sender not found");
    };
    if request.headers.get("x-raft-to") != Some(room.who.member.to_string().as_str()) {
        return refuse(412, "to field mismatch");
    }
    if !link.hears(identity::boot_of(&request.headers)) {
        return refuse(412, "a newer start of the member was heard of");
    }
    Routed::Stream(link, lane)
}

// ── questions about leases ──────────────────────────────────────────────────────────────────────

/// One question about a lease, under way.
struct Question {
    promise: Rc<Promise<Option<Reply>>>,
    id: LeaseId,
    /// It is about time, not a renewal; and the lease's keys are wanted too.
    time: Option<bool>,
    /// The connection ends after the answer.
    last: bool,
}

impl Question {
    /// Asks the node what a request asks; `None` if that is not about leases or is not sound, which
    /// [`route`] then says.
    fn of(room: &Rc<Room>, request: &Request, body: &Bytes) -> Option<Self> {
        let is_post = request.method == "POST";
        let (id, time) = match request.target.as_str() {
            "/leases" if is_post => {
                (pb::LeaseKeepAliveRequest::decode(body.clone()).ok()?.id, None)
            }
            "/leases/internal" if is_post => {
                let asked = leasepb::LeaseInternalRequest::decode(body.clone()).ok()?;
                let asked = asked.lease_time_to_live_request.unwrap_or_default();
                (asked.id, Some(asked.keys))
            }
            _ => return None,
        };
        let id = LeaseId(id);
        let ask = if time.is_some() { LeaseAsk::Remaining(id) } else { LeaseAsk::Renew(id) };
        let until = room.clock.now() + PEER_LEASE_WAIT;
        let promise = room.desk.ask(until, |ticket| ToNode::Lease { ticket, ask });
        Some(Self { promise, id, time, last: !request.keep_alive })
    }

    fn answer(self, room: &Room, reply: Option<Reply>) -> Answer {
        match reply {
            Some(Reply::Renewed(Some(ttl))) => {
                let renewed = pb::LeaseKeepAliveResponse { header: None, id: self.id.0, ttl };
                Answer::new(200, PROTOBUF, renewed.encode_to_vec())
            }
            Some(Reply::Remaining(Some(found))) => {
                let keys = match self.time {
                    Some(true) => {
                        let view = room.newest.load();
                        view.leases().keys(self.id).map(Bytes::copy_from_slice).collect()
                    }
                    _ => Vec::new(),
                };
                let time = pb::LeaseTimeToLiveResponse {
                    header: Some(pb::ResponseHeader::default()),
                    id: self.id.0,
                    ttl: found.remaining.as_secs() as i64,
                    granted_ttl: found.granted,
                    keys,
                };
                let said =
                    leasepb::LeaseInternalResponse { lease_time_to_live_response: Some(time) };
                Answer::new(200, PROTOBUF, said.encode_to_vec())
            }
            Some(Reply::Renewed(None) | Reply::Remaining(None)) => Answer::error(404, NO_LEASE),
            None | Some(Reply::Unavailable(Unavailable::Timeout)) => Answer::error(408, TOO_LATE),
            Some(Reply::Unavailable(_)) if self.time.is_some() => Answer::error(500, NOT_LEADING),
            Some(Reply::Unavailable(_)) => Answer::error(400, NOT_LEADING),
            Some(other) => unreachable!("no answer about a lease: {other:?}"),
        }
    }
}
