//! One request's life on its shard: judged, then answered from the view or sent to the node, then
//! finished when the node's answer comes or time runs out.

use super::{
    Place, Shard, cold,
    http2::{Answers, Call, Metadata, Responder},
    inside,
    keep_alive::KeepAlive,
};
use crate::{
    api::{
        self, Edge, Header, Method, Read, Status, Work, cluster, kv,
        lease::{self, TimeToLive},
        maintenance::{self, Summing},
        method,
        status::{self, Code},
    },
    io::Clock,
    limits::{
        CALLS_PER_SHARD_MAX, FAREWELL_INTERVAL, GRPC_OVERHEAD_BYTES, NO_LEADER_ELECTIONS_MAX,
        UNFINISHED_REQUESTS_PER_SHARD_MAX, request_wait,
    },
    mesh::{LeaseAsk, Reply, ToNode},
    net::Promise,
    store::{self, Unavailable, View, command::MemberChange, encode_lease_grant},
    types::{LeaseId, Ticket},
};
use bytes::Bytes;
use std::{
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Calls that require a leader.
#[derive(Default)]
pub struct Led {
    calls: Vec<Weak<Call>>,
    /// When it was first seen that nobody leads.
    leaderless_since: Option<Duration>,
}

/// Bounds that a connection needs to know.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Streams a client may have open on one connection.
    pub concurrent_streams_max: u32,
    /// Largest gRPC message taken in, bytes.
    pub message_bytes_max: usize,
    /// Whether the method of a path takes a stream of messages.
    pub takes_stream: fn(&str) -> bool,
}

/// What waits for the node under one ticket.
pub struct Waiting {
    what: What,
    /// Out of time after this.
    until: Duration,
}

enum What {
    /// A proposal; what its outcome means on the wire is in the outcome.
    Proposal { method: Method, respond: Respond },
    /// An alarm raised because there is no room; the client is told that, whatever comes of it.
    NoSpace { method: Method, respond: Respond },
    /// A proposal of the server's own.
    Own,
    /// The lead on its way to another member.
    MoveLeader { method: Method, respond: Respond },
    /// Space being given back.
    Defragment { method: Method, respond: Respond },
    /// A question to the leader's clock about one lease; its keys are in the view.
    TimeToLive { method: Method, asked: TimeToLive, respond: Respond },
    /// A question to the leader's clock about all leases.
    Leases { method: Method, respond: Respond },
    /// Renewal of a lease, the request of that number in its stream.
    Renewal { stream: Rc<KeepAlive>, number: u64, id: LeaseId, header: Header },
    /// All reads of one ReadIndex round.
    Round(Vec<Reading>),
}

impl What {
    /// When its client stops to wait. Of a round's reads each has its own time.
    fn until(&self) -> Duration {
        match self {
            Self::Proposal { respond, .. }
            | Self::NoSpace { respond, .. }
            | Self::MoveLeader { respond, .. }
            | Self::Defragment { respond, .. }
            | Self::TimeToLive { respond, .. }
            | Self::Leases { respond, .. } => respond.until(),
            Self::Own | Self::Renewal { .. } | Self::Round(_) => Duration::MAX,
        }
    }
}

/// A read that waits to be linearizable.
pub enum Reading {
    /// A client's.
    Client { method: Method, read: Read, respond: Respond, until: Duration },
    /// A probe's; it only wants to know whether one is possible.
    Probe(Rc<Promise<Result<(), Status>>>),
}

impl Reading {
    /// Why it is over at `now`, where it is; a probe waits for whatever comes.
    fn is_late(&self, now: Duration) -> Option<Unavailable> {
        match self {
            Self::Client { respond, .. } if respond.until() <= now => Some(Unavailable::Overdue),
            Self::Client { until, .. } if *until <= now => Some(Unavailable::Timeout),
            _ => None,
        }
    }
}

/// Who gets an answer.
pub(super) enum Respond {
    /// A client, and when it stops to wait.
    Client(Responder, Duration),
    /// A task of the server's own.
    Inside(Rc<Promise<Result<Bytes, Status>>>),
}

impl From<Responder> for Respond {
    /// A client whose time is nobody's concern any more.
    fn from(responder: Responder) -> Self {
        Self::Client(responder, Duration::MAX)
    }
}

impl Respond {
    /// When whoever gets it stops to wait.
    fn until(&self) -> Duration {
        match self {
            Self::Client(_, until) => *until,
            Self::Inside(_) => Duration::MAX,
        }
    }

    fn answer(self, framed: Bytes) {
        match self {
            Self::Client(responder, _) => responder.answer(framed),
            Self::Inside(promise) => promise.set(Ok(framed)),
        }
    }

    fn refuse(self, status: &Status) {
        match self {
            Self::Client(responder, _) => responder.refuse(status),
            Self::Inside(promise) => promise.set(Err(status.clone())),
        }
    }

    /// Opens a stream of answers, which nobody inside asks for.
    fn open(self) -> Option<Answers> {
        match self {
            Self::Client(responder, _) => responder.open(),
            Self::Inside(_) => None,
        }
    }
}

impl Shard {
    /// Bounds that a connection needs to know.
    pub(super) fn limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            concurrent_streams_max: self.setup.concurrent_streams_max,
            message_bytes_max: self.setup.edge.request_bytes_max + GRPC_OVERHEAD_BYTES,
            takes_stream: method::takes_stream,
        }
    }

    /// A place among the requests whose bodies have not arrived whole.
    pub(super) fn admit_unfinished(&self) -> Option<Place> {
        Place::take(&self.unfinished, UNFINISHED_REQUESTS_PER_SHARD_MAX)
    }

    /// A place among the calls whose requests are streams.
    pub(super) fn admit_call(&self) -> Option<Place> {
        Place::take(&self.calls, CALLS_PER_SHARD_MAX)
    }

    /// A call whose request is a stream of messages, as soon as it is opened.
    pub(super) fn on_call(self: &Rc<Self>, path: &str, metadata: Metadata, call: Call) {
        let method = match Method::parse(path) {
            Ok(method) => method,
            Err(status) => return call.finish(Some(&status)),
        };
        self.meters().started(method, 0);
        if self.is_learner() {
            self.meters().handled(method, status::NOT_FOR_LEARNER.code, 0);
            return call.finish(Some(&status::NOT_FOR_LEARNER));
        }
        let call = Rc::new(call);
        if metadata.requires_leader {
            if self.view.borrow().raft.leader.0 == 0 {
                self.meters().handled(method, status::NO_LEADER.code, 0);
                return call.finish(Some(&status::NO_LEADER));
            }
            self.require_leader(&call);
        }
        let shard = self.clone();
        match method {
            Method::Watch => glommio::spawn_local(shard.serve_watch(call)).detach(),
            Method::LeaseKeepAlive => glommio::spawn_local(shard.serve_keep_alive(call)).detach(),
            _ => unreachable!("{method:?} takes no stream"),
        };
    }

    /// A request whose body is whole.
    pub(super) fn on_body(
        self: &Rc<Self>,
        path: &str,
        metadata: Metadata,
        body: Bytes,
        respond: Responder,
    ) {
        let method = match Method::parse(path) {
            Ok(method) => method,
            Err(status) => return respond.refuse(&status),
        };
        self.meters().started(method, body.len());
        let patience = metadata.timeout.map_or(Duration::MAX, |timeout| self.clock.now() + timeout);
        let respond = Respond::Client(respond, patience);
        let message = match super::grpc::unary(&body, self.limits().message_bytes_max) {
            Ok(range) => body.slice(range),
            Err(status) => return self.refuse(method, respond, &status),
        };
        if self.is_learner() && !api::is_for_learners(method, &message) {
            return self.refuse(method, respond, &status::NOT_FOR_LEARNER);
        }
        if metadata.requires_leader && self.view.borrow().raft.leader.0 == 0 {
            return self.refuse(method, respond, &status::NO_LEADER);
        }
        self.judge(method, message, respond);
    }

    /// Whether this member only learns, and so serves little.
    pub(super) fn is_learner(&self) -> bool {
        self.view.borrow().is_learner(self.setup.edge.member)
    }

    /// Does what one message asks.
    pub(super) fn judge(self: &Rc<Self>, method: Method, message: Bytes, respond: Respond) {
        let disk_bytes = self.view.borrow().disk_bytes;
        match api::decode(method, message, &self.setup.edge, disk_bytes) {
            Work::Propose(request) => self.propose(request, What::Proposal { method, respond }),
            Work::NoSpace(alarm) => self.propose(alarm, What::NoSpace { method, respond }),
            Work::Grant { id, ttl } => self.grant(id, ttl, What::Proposal { method, respond }),
            Work::TimeToLive(asked) => {
                let ask = LeaseAsk::Remaining(asked.id);
                self.ask(ask, What::TimeToLive { method, asked, respond });
            }
            Work::Leases => self.ask(LeaseAsk::List, What::Leases { method, respond }),
            Work::Read { serializable: true, read } => self.serve(method, read, respond),
            Work::Read { serializable: false, read } => {
                let until = self.deadline();
                let reading = Reading::Client { method, read, respond, until };
                self.next_round.borrow_mut().push(reading);
            }
            Work::AddMember { peer_urls, learner } => {
                let now = (self.clock.wall_nanos() / NANOS_PER_SECOND).cast_signed();
                let member = cluster::new_member(peer_urls, learner, now);
                self.change(MemberChange::Add(member), method, respond);
            }
            Work::Change(change) => self.change(change, method, respond),
            Work::MoveLeader(to) => {
                let ticket = self.wait(What::MoveLeader { method, respond });
                self.send(ticket, ToNode::MoveLeader { ticket, to });
            }
            Work::Defragment => self.defragment(What::Defragment { method, respond }),
            Work::Sum(sum) => match Summing::new(sum, &self.view.borrow(), &self.setup.edge) {
                Ok(summing) => {
                    let task = send_sum(self.clone(), method, summing, respond);
                    glommio::spawn_local(task).detach();
                }
                Err(status) => self.refuse(method, respond, &status),
            },
            Work::Recipe(message) => match respond {
                Respond::Client(responder, _) => {
                    let task = inside::serve(self.clone(), method, message, responder);
                    glommio::spawn_local(task).detach();
                }
                Respond::Inside(_) => unreachable!("recipes are made of plain requests"),
            },
            Work::Refuse(status) => self.refuse(method, respond, &status),
        }
    }

    /// A request of the server's own, nobody to answer.
    pub fn propose_own(&self, request: Bytes) {
        self.propose(request, What::Own);
    }

    fn propose(&self, request: Bytes, what: What) {
        let ticket = self.wait(what);
        self.send(ticket, ToNode::Propose { ticket, request });
    }

    /// A lease without an id gets its ticket's number, which no other request has: positive, as
    /// etcd's are.
    fn grant(&self, id: LeaseId, ttl: i64, what: What) {
        let ticket = self.wait(what);
        let own = (ticket.0 & i64::MAX.unsigned_abs()).max(1).cast_signed();
        let id = if id == LeaseId(0) { LeaseId(own) } else { id };
        self.send(ticket, ToNode::Propose { ticket, request: encode_lease_grant(id, ttl) });
    }

    fn change(&self, change: MemberChange, method: Method, respond: Respond) {
        let ticket = self.wait(What::Proposal { method, respond });
        self.send(ticket, ToNode::Change { ticket, change });
    }

    /// However long it takes: it is the client's own patience that counts, as in etcd.
    fn defragment(&self, what: What) {
        let until = what.until();
        let waiting = Waiting { what, until };
        let ticket = self.waiting.borrow_mut().wait(waiting);
        self.send(ticket, ToNode::Defragment { ticket });
    }

    /// Asks the leader's clock.
    fn ask(&self, ask: LeaseAsk, what: What) {
        let ticket = self.wait(what);
        self.send(ticket, ToNode::Lease { ticket, ask });
    }

    /// Asks for a renewal; its answer's header is that of now.
    pub(super) fn renew(&self, id: LeaseId, stream: Rc<KeepAlive>, number: u64) {
        let header = self.header();
        self.ask(LeaseAsk::Renew(id), What::Renewal { stream, number, id, header });
    }

    fn send(&self, ticket: Ticket, message: ToNode) {
        if self.to_node.borrow_mut().try_send(message).is_err() {
            self.on_reply(ticket, Reply::Unavailable(Unavailable::TooManyRequests));
        }
    }

    fn wait(&self, what: What) -> Ticket {
        let until = self.deadline().min(what.until());
        self.waiting.borrow_mut().wait(Waiting { what, until })
    }

    fn deadline(&self) -> Duration {
        self.clock.now() + request_wait(self.setup.election)
    }

    /// Sends the waiting reads on as one round, unless one is on its way.
    pub(super) fn flush(&self) {
        if self.round_in_flight.get() || self.next_round.borrow().is_empty() {
            return;
        }
        let round = std::mem::take(&mut *self.next_round.borrow_mut());
        let ticket = self.wait(What::Round(round));
        self.round_in_flight.set(true);
        self.send(ticket, ToNode::Read { ticket });
    }

    /// The node has answered, or time has run out, which is an answer too.
    pub(super) fn finish(&self, waiting: Waiting, reply: Reply) {
        match waiting.what {
            What::Proposal { method, respond } => {
                let mut out = Vec::with_capacity(64);
                let said = match &reply {
                    Reply::Applied(outcome) => api::reply(outcome, self.header(), &mut out),
                    Reply::Unavailable(why) => Err((*why).into()),
                    other => unreachable!("no answer to a proposal: {other:?}"),
                };
                self.respond(method, respond, said.map(|()| out.into()));
            }
            What::NoSpace { method, respond } => self.refuse(method, respond, &status::NO_SPACE),
            What::Own => {}
            What::MoveLeader { method, respond } => {
                let said = match reply {
                    Reply::Moved => Ok(empty()),
                    // The client's patience has not ended, or it would not hear this.
                    Reply::Unavailable(Unavailable::Timeout) => Err(status::TRANSFER_TIMED_OUT),
                    Reply::Unavailable(why) => Err(why.into()),
                    other => unreachable!("no answer to a change of leader: {other:?}"),
                };
                self.respond(method, respond, said);
            }
            What::Defragment { method, respond } => {
                let said = match reply {
                    Reply::Defragmented => Ok(empty()),
                    Reply::Unavailable(why) => Err(why.into()),
                    other => unreachable!("no answer to a defragmentation: {other:?}"),
                };
                self.respond(method, respond, said);
            }
            What::TimeToLive { method, asked, respond } => match reply {
                Reply::Remaining(found) => {
                    let (header, mut out) = (self.header(), Vec::with_capacity(64));
                    let view = self.view.borrow();
                    lease::answer_time_to_live(asked, found, &view, header, &mut out);
                    self.respond(method, respond, Ok(out.into()));
                }
                Reply::Unavailable(why) => self.refuse(method, respond, &why.into()),
                other => unreachable!("no answer about a lease: {other:?}"),
            },
            What::Leases { method, respond } => match reply {
                Reply::Leases(found) => {
                    self.meters().handled(method, Code::Ok as u8, 0);
                    let listing = lease::Listing::new(found, self.header());
                    glommio::spawn_local(send_listing(listing, respond)).detach();
                }
                Reply::Unavailable(why) => self.refuse(method, respond, &why.into()),
                other => unreachable!("no answer about all leases: {other:?}"),
            },
            What::Renewal { stream, number, id, header } => {
                let answer = match reply {
                    Reply::Renewed(ttl) => {
                        let mut out = Vec::with_capacity(64);
                        lease::encode_keep_alive(id, ttl, header, &mut out);
                        self.meters().sent(out.len());
                        Ok(out.into())
                    }
                    Reply::Unavailable(why) => Err(why.into()),
                    other => unreachable!("no answer to a renewal: {other:?}"),
                };
                stream.answer(number, answer);
            }
            What::Round(round) => {
                self.round_in_flight.set(false);
                let refused = match reply {
                    Reply::Unavailable(why) => Some(Status::from(why)),
                    Reply::Readable => None,
                    other => unreachable!("no answer to a read: {other:?}"),
                };
                for reading in round {
                    self.finish_read(reading, refused.as_ref());
                }
            }
        }
    }

    fn finish_read(&self, reading: Reading, refused: Option<&Status>) {
        match (reading, refused) {
            (Reading::Probe(probe), None) => probe.set(Ok(())),
            (Reading::Probe(probe), Some(status)) => probe.set(Err(status.clone())),
            (Reading::Client { method, read, respond, .. }, None) => {
                self.serve(method, read, respond);
            }
            (Reading::Client { method, respond, .. }, Some(status)) => {
                self.refuse(method, respond, status);
            }
        }
    }

    /// Answers a read from the view as it is now.
    fn serve(&self, method: Method, read: Read, respond: Respond) {
        let view = self.view.borrow();
        let waits = match &read {
            Read::RangeStream(query) => {
                let stream = kv::Stream::new(query.clone(), &view, &self.setup.edge);
                let task = send_stream(self.own(), stream, self.view(), respond);
                self.meters().handled(method, Code::Ok as u8, 0);
                glommio::spawn_local(task).detach();
                return;
            }
            Read::Range(query) => !view.is_at_hand(query),
            Read::Txn(_) => store::is_memory_short(),
            _ => false,
        };
        if waits {
            return self.serve_beside(method, read, respond, Arc::clone(&view));
        }
        let said = answer(&read, &view, &self.setup.edge);
        self.respond(method, respond, said);
    }

    /// Answers a read that would wait for the disk.
    fn serve_beside(&self, method: Method, read: Read, respond: Respond, view: Arc<View>) {
        let edge = self.setup.edge;
        self.meters().waited();
        let Ok(said) = self.cold.run(move || answer(&read, &view, &edge)) else {
            return self.refuse(method, respond, &Unavailable::TooManyRequests.into());
        };
        let shard = self.own();
        let task = async move { shard.respond(method, respond, said.await) };
        glommio::spawn_local(task).detach();
    }

    /// Does a step of a long read: on a thread beside where memory is short, for it may wait for the disk.
    /// With too many there already it is done here.
    async fn beside<S: Send + 'static, T: Send + 'static>(
        &self,
        state: S,
        step: impl FnOnce(S) -> (S, T) + Send + 'static,
    ) -> (S, T) {
        if !store::is_memory_short() || self.cold.is_full() {
            return step(state);
        }
        match self.cold.run(move || step(state)) {
            Ok(done) => done.await,
            Err(cold::TooMany) => unreachable!("there was a place just now"),
        }
    }

    fn own(&self) -> Rc<Self> {
        self.me.upgrade().expect("it is borrowed at this moment")
    }

    pub(super) fn respond(&self, method: Method, respond: Respond, said: Result<Bytes, Status>) {
        match said {
            Ok(framed) => {
                self.meters().handled(method, Code::Ok as u8, framed.len());
                respond.answer(framed);
            }
            Err(status) => self.refuse(method, respond, &status),
        }
    }

    pub(super) fn refuse(&self, method: Method, respond: Respond, status: &Status) {
        self.meters().handled(method, status.code, 0);
        respond.refuse(status);
    }

    fn header(&self) -> Header {
        Header::of(&self.view.borrow(), &self.setup.edge)
    }

    /// Tells everybody whose time is up.
    pub(super) fn expire(&self) {
        let now = self.clock.now();
        self.cold.look(now, self.number == 0);
        // One that nobody asks holds no old view, and what only that one needs.
        self.refresh();
        self.end_leaderless(now);
        self.on_watch_time(now);
        let is_late = |reading: &mut Reading| reading.is_late(now).is_some();
        let mut reads: Vec<_> = self.next_round.borrow_mut().extract_if(.., is_late).collect();
        let late = self.waiting.borrow_mut().take_expired(|waiting| {
            if let What::Round(round) = &mut waiting.what {
                reads.extend(round.extract_if(.., is_late));
            }
            waiting.until <= now
        });
        for waiting in late {
            let why = self.why_late(&waiting, now);
            self.finish(waiting, Reply::Unavailable(why));
        }
        for reading in reads {
            let why = reading.is_late(now).map(Status::from);
            self.finish_read(reading, why.as_ref());
        }
    }

    /// What was proposed may have been lost with its leader, or on its way there; for the rest etcd
    /// looks for no reasons.
    fn why_late(&self, waiting: &Waiting, now: Duration) -> Unavailable {
        let election = self.setup.election;
        match waiting.what {
            _ if waiting.what.until() <= now => Unavailable::Overdue,
            What::Proposal { .. } => {
                let proposed = waiting.until.saturating_sub(request_wait(election));
                self.newest.load().raft.why_late(proposed, election)
            }
            // Whoever asks the leader was looking for one all the time.
            What::TimeToLive { .. } | What::Renewal { .. }
                if self.newest.load().raft.leader.0 == 0 =>
            {
                Unavailable::NoLeader
            }
            _ => Unavailable::Timeout,
        }
    }

    fn require_leader(&self, call: &Rc<Call>) {
        let mut led = self.led.borrow_mut();
        if led.calls.len() == led.calls.capacity() {
            led.calls.retain(|call| call.strong_count() > 0);
        }
        led.calls.push(Rc::downgrade(call));
    }

    /// Without a leader for a while, calls that require one end (etcd `v3rpc/interceptor.go`).
    fn end_leaderless(&self, now: Duration) {
        let mut led = self.led.borrow_mut();
        if self.newest.load().raft.leader.0 != 0 {
            led.leaderless_since = None;
            return;
        }
        let since = *led.leaderless_since.get_or_insert(now);
        if now >= since + NO_LEADER_ELECTIONS_MAX * self.setup.election {
            for call in led.calls.drain(..).filter_map(|call| call.upgrade()) {
                call.finish(Some(&status::NO_LEADER));
            }
        }
    }

    /// Whether a linearizable read is possible now.
    ///
    /// # Errors
    /// Why not, as a client would be told.
    pub(super) async fn probe(&self) -> Result<(), Status> {
        let probe = Rc::new(Promise::default());
        self.next_round.borrow_mut().push(Reading::Probe(probe.clone()));
        self.flush();
        probe.wait().await
    }

    /// Says goodbye to the clients at once, and to the node once nobody waits for it any more and
    /// everything said is sent, or after `at_most`.
    pub async fn farewell(&self, at_most: Duration) {
        self.links.leave();
        let until = self.clock.now() + at_most;
        let is_done = || self.waiting.borrow().is_empty() && self.links.are_quiet();
        while !is_done() && self.clock.now() < until {
            self.clock.sleep_until(self.clock.now() + FAREWELL_INTERVAL).await;
        }
        self.stopping.set(true);
        while self.to_node.borrow_mut().try_send(ToNode::Farewell).is_err() {
            self.clock.sleep_until(self.clock.now() + FAREWELL_INTERVAL).await;
        }
    }
}

/// Sends one `LeaseLeases`, letting others run while it is sorted.
async fn send_listing(mut listing: lease::Listing, respond: Respond) {
    while listing.step() {
        futures_lite::future::yield_now().await;
    }
    let mut out = Vec::new();
    listing.finish(&mut out);
    respond.answer(out.into());
}

fn empty() -> Bytes {
    let mut out = Vec::new();
    maintenance::encode_empty(&mut out);
    out.into()
}

/// Sends one checksum, letting others run while it is made.
async fn send_sum(shard: Rc<Shard>, method: Method, mut summing: Summing, respond: Respond) {
    loop {
        let more;
        (summing, more) = shard
            .beside(summing, |mut summing| {
                let more = summing.step();
                (summing, more)
            })
            .await;
        if !more {
            break;
        }
        futures_lite::future::yield_now().await;
    }
    let mut out = Vec::with_capacity(64);
    summing.finish(&mut out);
    shard.respond(method, respond, Ok(out.into()));
}

/// Sends one `RangeStream`, each message once the client has room for it.
async fn send_stream(shard: Rc<Shard>, stream: kv::Stream, view: Arc<View>, respond: Respond) {
    let next = |stream: kv::Stream| {
        let view = Arc::clone(&view);
        shard.beside(stream, move |mut stream| {
            let mut out = Vec::new();
            let more = stream.next(&view, &mut out);
            (stream, more.map(|more| more.then(|| Bytes::from(out))))
        })
    };
    let (mut stream, mut part) = next(stream).await;
    if let Err(status) = part {
        return respond.refuse(&status);
    }
    let Some(mut answers) = respond.open() else { return };
    loop {
        match part {
            Ok(Some(part)) if answers.send(part.clone()).await.is_err() => return,
            Ok(Some(_)) => (stream, part) = next(stream).await,
            Ok(None) => return answers.finish(None),
            Err(status) => return answers.finish(Some(&status)),
        }
    }
}

/// One gRPC message.
fn answer(read: &Read, view: &View, edge: &Edge) -> Result<Bytes, Status> {
    let mut out = Vec::with_capacity(512);
    api::answer(read, view, edge, &mut out).map(|()| out.into())
}
