//! One request's life on its shard: judged, then answered from the view or sent to the node, then
//! finished when the node's answer comes or time runs out.

use super::{
    Place, Shard,
    http2::{Metadata, Responder},
};
use crate::{
    api::{
        self, Header, Method, Read, Status, Work, kv,
        lease::{self, TimeToLive},
        status::{self, Code},
    },
    io::Clock,
    limits::{FAREWELL_INTERVAL, GRPC_OVERHEAD_BYTES, UNFINISHED_REQUESTS_PER_SHARD_MAX},
    mesh::{LeaseAsk, Reply, ToNode},
    store::{Unavailable, View, encode_lease_grant},
    types::{LeaseId, Ticket},
};
use bytes::Bytes;
use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

/// Bounds that a connection needs to know.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Streams a client may have open on one connection.
    pub concurrent_streams_max: u32,
    /// Largest gRPC message taken in, bytes.
    pub message_bytes_max: usize,
}

/// What waits for the node under one ticket.
pub struct Waiting {
    what: What,
    /// Out of time after this.
    until: Duration,
}

enum What {
    /// A proposal; what its outcome means on the wire is in the outcome.
    Proposal { method: Method, respond: Responder },
    /// An alarm raised because there is no room; the client is told that, whatever comes of it.
    NoSpace { method: Method, respond: Responder },
    /// A proposal of the server's own.
    Own,
    /// A question to the leader's clock about one lease; its keys are in the view.
    TimeToLive { method: Method, asked: TimeToLive, respond: Responder },
    /// A question to the leader's clock about all leases.
    Leases { method: Method, respond: Responder },
    /// All reads of one ReadIndex round.
    Round(Vec<Reading>),
}

/// A read that waits to be linearizable.
pub enum Reading {
    /// A client's.
    Client { method: Method, read: Read, respond: Responder, until: Duration },
    /// A probe's; it only wants to know whether one is possible.
    Probe(Rc<Probe>),
}

impl Reading {
    /// When its client gives up; a probe waits for whatever comes.
    fn until(&self) -> Option<Duration> {
        match self {
            Self::Client { until, .. } => Some(*until),
            Self::Probe(_) => None,
        }
    }
}

/// A task of this core waits here for a round to come back.
#[derive(Default)]
pub struct Probe {
    outcome: RefCell<Option<Result<(), Status>>>,
    waker: RefCell<Option<Waker>>,
}

impl Probe {
    fn set(&self, outcome: Result<(), Status>) {
        *self.outcome.borrow_mut() = Some(outcome);
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn wait(&self) -> Result<(), Status> {
        std::future::poll_fn(|cx| match self.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl Shard {
    /// Bounds that a connection needs to know.
    pub(super) fn limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            concurrent_streams_max: self.setup.concurrent_streams_max,
            message_bytes_max: self.setup.edge.request_bytes_max + GRPC_OVERHEAD_BYTES,
        }
    }

    /// A place among the requests whose bodies have not arrived whole.
    pub(super) fn admit_unfinished(&self) -> Option<Place> {
        Place::take(&self.unfinished, UNFINISHED_REQUESTS_PER_SHARD_MAX)
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
        let message = match super::grpc::unary(&body, self.limits().message_bytes_max) {
            Ok(range) => body.slice(range),
            Err(status) => return self.refuse(method, respond, &status),
        };
        if metadata.requires_leader && self.view.borrow().raft.leader.0 == 0 {
            return self.refuse(method, respond, &status::NO_LEADER);
        }
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
            Work::Read { serializable: true, read } => self.serve(method, &read, respond),
            Work::Read { serializable: false, read } => {
                let until = self.deadline();
                let reading = Reading::Client { method, read, respond, until };
                self.next_round.borrow_mut().push(reading);
            }
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

    /// Asks the leader's clock.
    fn ask(&self, ask: LeaseAsk, what: What) {
        let ticket = self.wait(what);
        self.send(ticket, ToNode::Lease { ticket, ask });
    }

    fn send(&self, ticket: Ticket, message: ToNode) {
        if self.to_node.borrow_mut().try_send(message).is_err() {
            self.on_reply(ticket, Reply::Unavailable(Unavailable::TooManyRequests));
        }
    }

    fn wait(&self, what: What) -> Ticket {
        let until = self.deadline();
        self.waiting.borrow_mut().wait(Waiting { what, until })
    }

    fn deadline(&self) -> Duration {
        self.clock.now() + self.setup.request_timeout
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
                self.serve(method, &read, respond);
            }
            (Reading::Client { method, respond, .. }, Some(status)) => {
                self.refuse(method, respond, status);
            }
        }
    }

    /// Answers a read from the view as it is now.
    fn serve(&self, method: Method, read: &Read, respond: Responder) {
        if let Read::RangeStream(query) = read {
            let stream = kv::Stream::new(query.clone(), &self.view.borrow(), &self.setup.edge);
            let task = send_stream(stream, self.view(), respond);
            self.meters().handled(method, Code::Ok as u8, 0);
            glommio::spawn_local(task).detach();
            return;
        }
        let mut out = Vec::with_capacity(512);
        let said = api::answer(read, &self.view.borrow(), &self.setup.edge, &mut out);
        self.respond(method, respond, said.map(|()| out.into()));
    }

    fn respond(&self, method: Method, respond: Responder, said: Result<Bytes, Status>) {
        match said {
            Ok(framed) => {
                self.meters().handled(method, Code::Ok as u8, framed.len());
                respond.answer(framed);
            }
            Err(status) => self.refuse(method, respond, &status),
        }
    }

    fn refuse(&self, method: Method, respond: Responder, status: &Status) {
        self.meters().handled(method, status.code, 0);
        respond.refuse(status);
    }

    fn header(&self) -> Header {
        Header::of(&self.view.borrow(), &self.setup.edge)
    }

    /// Tells everybody whose time is up.
    pub(super) fn expire(&self) {
        let now = self.clock.now();
        let late = self.waiting.borrow_mut().take_expired(|waiting| waiting.until <= now);
        for waiting in late {
            self.finish(waiting, Reply::Unavailable(Unavailable::Timeout));
        }
        // Reads that no round has taken along yet.
        let late = |reading: &mut Reading| reading.until().is_some_and(|until| until <= now);
        let late: Vec<_> = self.next_round.borrow_mut().extract_if(.., late).collect();
        let timeout = Status::from(Unavailable::Timeout);
        late.into_iter().for_each(|reading| self.finish_read(reading, Some(&timeout)));
    }

    /// Whether a linearizable read is possible now.
    ///
    /// # Errors
    /// Why not, as a client would be told.
    pub(super) async fn probe(&self) -> Result<(), Status> {
        let probe = Rc::new(Probe::default());
        self.next_round.borrow_mut().push(Reading::Probe(probe.clone()));
        self.flush();
        probe.wait().await
    }

    /// Says goodbye to the node once nobody waits for it any more, or after `at_most`.
    pub async fn farewell(&self, at_most: Duration) {
        let until = self.clock.now() + at_most;
        while !self.waiting.borrow().is_empty() && self.clock.now() < until {
            self.clock.sleep_until(self.clock.now() + FAREWELL_INTERVAL).await;
        }
        self.stopping.set(true);
        while self.to_node.borrow_mut().try_send(ToNode::Farewell).is_err() {
            self.clock.sleep_until(self.clock.now() + FAREWELL_INTERVAL).await;
        }
    }
}

/// Sends one `LeaseLeases`, letting others run while it is sorted.
async fn send_listing(mut listing: lease::Listing, respond: Responder) {
    while listing.step() {
        futures_lite::future::yield_now().await;
    }
    let mut out = Vec::new();
    listing.finish(&mut out);
    respond.answer(out.into());
}

/// Sends one `RangeStream`, each message once the client has room for it.
async fn send_stream(mut stream: kv::Stream, view: Arc<View>, respond: Responder) {
    let mut out = Vec::new();
    let mut more = match stream.next(&view, &mut out) {
        Ok(more) => more,
        Err(status) => return respond.refuse(&status),
    };
    let Some(mut answers) = respond.open() else { return };
    while more {
        if answers.send(std::mem::take(&mut out).into()).await.is_err() {
            return;
        }
        more = match stream.next(&view, &mut out) {
            Ok(more) => more,
            Err(status) => return answers.finish(Some(&status)),
        };
    }
    answers.finish(None);
}
