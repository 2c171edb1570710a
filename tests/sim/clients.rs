//! Clients, as the edge sees them: a [`Desk`] stands where a shard would, at the mesh's other end.
//!
//! It draws requests, encodes them as clients do, has them judged by `api::decode`, and takes the
//! same ways as a shard: proposals and ReadIndex rounds to the node, serializable reads from the
//! newest view at once. There are no sockets and no timeouts: whoever never gets an answer stalls
//! the run, and a stalled run fails.

use crate::{
    check::{Answer, Chronicle, Ledger, Request},
    executor::{Lot, SimClock},
    member,
    weather::{Day, Weather},
};
use prost::{Message, bytes::Bytes};
use proto::etcdserverpb::{self as pb, compare::TargetUnion, request_op};
use ringleader::{
    api::{self, Edge, Header, Method, Status, Work},
    io::Clock,
    mesh::{Newest, Reply, ShardEnd, ToNode},
    store::{View, command::MemberAttributes, encode_cluster_version},
    types::Ticket,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// A bug planted between clients and member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slip {
    /// Linearizable reads are served without asking, from the view of the last message.
    StaleRead,
    /// Each proposal is sent again when it was answered.
    ProposedTwice,
    /// A proposal that cannot be sent is said to be done.
    RefusalForgotten,
}

/// What all desks of a day share.
pub(crate) struct Floor {
    pub(crate) weather: Rc<Weather>,
    pub(crate) day: Day,
    pub(crate) lot: RefCell<Lot>,
    pub(crate) clock: SimClock,
    pub(crate) edge: Edge,
    pub(crate) newest: Newest,
    pub(crate) left: Cell<u64>,
    pub(crate) chronicle: Rc<RefCell<Chronicle>>,
    pub(crate) ledger: Rc<RefCell<Ledger>>,
    pub(crate) slip: Option<Slip>,
}

/// One shard's clients.
pub(crate) struct Desk {
    floor: Rc<Floor>,
    end: ShardEnd,
    next_ticket: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    /// The view when the last message came.
    stale: Arc<View>,
    /// Since when there is a revision that the node has not told of.
    untold: Option<Duration>,
}

/// Longest that news may take: turns of the node, while a ring is full. A tick makes one.
const TICKS_UNTOLD: u32 = 20;

struct Waiting {
    op: usize,
    /// What a shard would answer from the view once the node says so.
    read: Option<api::Read>,
    again: Option<Bytes>,
}

impl Desk {
    pub(crate) fn new(floor: Rc<Floor>, end: ShardEnd) -> Self {
        let next_ticket = floor.clock.wall_nanos() / 1_000;
        // The client that answers from old views does not hear of new ones.
        end.interest.set(floor.slip != Some(Slip::StaleRead));
        let stale = floor.newest.load();
        Self { floor, end, next_ticket, waiting: BTreeMap::new(), stale, untold: None }
    }

    /// Asks and listens until the day's requests are used up and answered, or its
    /// patience is; then says goodbye.
    pub(crate) async fn serve(mut self) {
        self.ask(Request::Range(everything()), true);
        if self.end.shard == 0 {
            self.introduce();
        }
        let leaving = self.floor.day.patience.map(|patience| self.floor.clock.now() + patience);
        loop {
            self.listen();
            let done = self.floor.left.get() == 0 && self.waiting.is_empty();
            if done || leaving.is_some_and(|leaving| self.floor.clock.now() >= leaving) {
                break;
            }
            while self.floor.left.get() > 0 && self.waiting.len() < self.floor.weather.outstanding {
                self.floor.left.set(self.floor.left.get() - 1);
                self.ask_something();
                if self.draw(3) == 0 {
                    break;
                }
            }
            self.wait_a_little().await;
        }
        while self.end.to_node.try_send(ToNode::Farewell).is_err() {
            self.wait_a_little().await;
        }
    }

    fn draw(&self, below: u64) -> u64 {
        self.floor.lot.borrow_mut().below(below)
    }

    /// Until there is a message, but not for long.
    async fn wait_a_little(&self) {
        let clock = &self.floor.clock;
        let until = clock.now() + Duration::from_micros(self.draw(2_000));
        let mut timer = Box::pin(clock.sleep_until(until));
        poll_fn(|cx| match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.end.inbox.poll_ready(cx),
        })
        .await;
        futures_lite::future::yield_now().await;
    }

    fn listen(&mut self) {
        while let Some(message) = self.end.inbox.pop() {
            for (ticket, reply) in message.replies {
                self.hear(ticket, reply);
            }
            self.stale = self.floor.newest.load();
        }
        self.check_news();
    }

    /// Whoever is interested hears of every revision, also when the ring was full.
    fn check_news(&mut self) {
        let now = self.floor.clock.now();
        let is_told = self.floor.newest.load().revision == self.stale.revision;
        if is_told || self.floor.slip == Some(Slip::StaleRead) {
            self.untold = None;
        } else {
            let since = *self.untold.get_or_insert(now);
            assert!(
                now - since < self.floor.weather.tick * TICKS_UNTOLD,
                "a revision was not told"
            );
        }
    }

    fn hear(&mut self, ticket: Ticket, reply: Reply) {
        // A ticket of an earlier boot, whose entry was applied only now.
        let Some(Waiting { op, read, again }) = self.waiting.remove(&ticket) else { return };
        let view = self.floor.newest.load();
        let answer = match (reply, read) {
            (Reply::Applied(outcome), None) => {
                let mut out = Vec::new();
                let header = Header::of(&view, &self.floor.edge);
                let said = api::reply(&outcome, header, &mut out);
                Answer::Applied(said.map(|()| out.into()))
            }
            (Reply::Readable, Some(read)) => self.read(&read, &view),
            (Reply::Unavailable(_), _) => Answer::TurnedAway,
            (reply, read) => panic!("{reply:?} answers {read:?}"),
        };
        self.answer(op, answer, &view);
        if let Some(request) = again {
            drop(self.end.to_node.try_send(ToNode::Propose { ticket, request }));
        }
    }

    fn read(&self, read: &api::Read, view: &View) -> Answer {
        let mut out = Vec::new();
        let said = api::answer(read, view, &self.floor.edge, &mut out);
        Answer::Applied(said.map(|()| out.into()))
    }

    fn answer(&self, op: usize, answer: Answer, view: &View) {
        self.floor.ledger.borrow_mut().show(view.applied.0);
        self.floor.chronicle.borrow_mut().answered(op, answer, view.applied.0);
    }

    // ── asking ──────────────────────────────────────────────────────────────────────────────────

    fn ask_something(&mut self) {
        let view = self.floor.newest.load();
        let weather = self.floor.weather.clone();
        let reads_only = self.floor.day.reads_only;
        let mut lot = self.floor.lot.borrow_mut().clone();
        let mut tongue = Tongue { lot: &mut lot, weather: &weather, revision: view.revision.0 };
        let request = tongue.request(reads_only);
        *self.floor.lot.borrow_mut() = lot;
        let serializable = !reads_only && self.draw(3) == 0;
        self.ask(request, serializable);
    }

    fn introduce(&mut self) {
        let view = self.floor.newest.load();
        let own = view.cluster.members.values().next().expect("a member knows itself");
        if own.client_urls.is_empty() {
            let client_urls = vec!["http://sim".to_owned()];
            let attributes = MemberAttributes { member: own.id, name: "sim".into(), client_urls };
            self.propose_own(attributes.encode());
        }
        if view.cluster.version.is_none() {
            self.propose_own(encode_cluster_version("3.7.0"));
        }
    }

    fn propose_own(&mut self, body: Bytes) {
        let request = Request::Introduce(body.clone());
        self.propose(request, body);
    }

    /// Does what a shard does with a request.
    fn ask(&mut self, mut request: Request, serializable: bool) {
        if let Request::Range(range) = &mut request {
            range.serializable = serializable;
        }
        let view = self.floor.newest.load();
        let (method, message) = request.encode();
        match api::decode(method, message, &self.floor.edge, view.disk_bytes) {
            Work::Propose(body) => self.propose(request, body),
            Work::Read { serializable: true, read } => {
                let op = self.asked(request, None, true, true);
                let answer = self.read(&read, &view);
                self.answer(op, answer, &view);
            }
            Work::Read { serializable: false, read } => self.ask_read(request, read),
            Work::Refuse(_) => {
                let op = self.asked(request, None, false, false);
                self.answer(op, Answer::TurnedAway, &view);
            }
            Work::NoSpace(_) => panic!("there is no quota here"),
            Work::Grant { .. } | Work::TimeToLive(_) | Work::Leases | Work::Recipe(_) => {
                panic!("nobody here asks about leases or locks")
            }
        }
    }

    fn propose(&mut self, request: Request, body: Bytes) {
        let ticket = self.draw_ticket();
        let op = self.asked(request, Some(ticket), false, false);
        let again = (self.floor.slip == Some(Slip::ProposedTwice)).then(|| body.clone());
        let sent = self.end.to_node.try_send(ToNode::Propose { ticket, request: body });
        self.sent(sent.is_ok(), ticket, Waiting { op, read: None, again });
    }

    fn ask_read(&mut self, request: Request, read: api::Read) {
        let ticket = self.draw_ticket();
        let op = self.asked(request, Some(ticket), true, false);
        if self.floor.slip == Some(Slip::StaleRead) {
            let answer = self.read(&read, &self.stale);
            return self.answer(op, answer, &self.stale);
        }
        let sent = self.end.to_node.try_send(ToNode::Read { ticket });
        self.sent(sent.is_ok(), ticket, Waiting { op, read: Some(read), again: None });
    }

    /// A full ring is an immediate refusal.
    fn sent(&mut self, sent: bool, ticket: Ticket, waiting: Waiting) {
        if sent {
            self.waiting.insert(ticket, waiting);
            return;
        }
        let forgotten = self.floor.slip == Some(Slip::RefusalForgotten) && waiting.read.is_none();
        let answer = match forgotten {
            true => Answer::Applied(Err(Status::not_built("what was never sent"))),
            false => Answer::TurnedAway,
        };
        self.answer(waiting.op, answer, &self.floor.newest.load());
    }

    fn asked(
        &self,
        request: Request,
        ticket: Option<Ticket>,
        read: bool,
        serializable: bool,
    ) -> usize {
        self.floor.chronicle.borrow_mut().asked(request, ticket, read, serializable)
    }

    fn draw_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket::new(member::WHO_TYPED.1, self.end.shard, self.next_ticket)
    }
}

impl Request {
    fn encode(&self) -> (Method, Bytes) {
        let (method, bytes) = match self {
            Self::Range(r) => (Method::Range, r.encode_to_vec()),
            Self::Put(r) => (Method::Put, r.encode_to_vec()),
            Self::DeleteRange(r) => (Method::DeleteRange, r.encode_to_vec()),
            Self::Txn(r) => (Method::Txn, r.encode_to_vec()),
            Self::Compact(r) => (Method::Compact, r.encode_to_vec()),
            Self::Introduce(_) => unreachable!("no client asks that"),
        };
        (method, bytes.into())
    }
}

fn everything() -> pb::RangeRequest {
    let zero = Bytes::from_static(&[0]);
    pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() }
}

/// Draws requests.
struct Tongue<'a> {
    lot: &'a mut Lot,
    weather: &'a Weather,
    /// Newest revision that the asker has seen.
    revision: i64,
}

impl Tongue<'_> {
    fn roll(&mut self, below: u64) -> u64 {
        self.lot.below(below)
    }

    fn request(&mut self, reads_only: bool) -> Request {
        match if reads_only { 90 } else { self.roll(100) } {
            0..45 => Request::Put(self.put()),
            45..55 => Request::DeleteRange(self.delete_range()),
            55..72 => Request::Txn(self.txn(1)),
            72..77 => Request::Compact(pb::CompactionRequest {
                revision: self.old_revision(),
                physical: self.roll(2) == 0,
            }),
            _ => Request::Range(self.range()),
        }
    }

    fn key(&mut self) -> Bytes {
        format!("k{}", self.roll(self.weather.keys)).into()
    }

    fn end(&mut self) -> Bytes {
        match self.roll(6) {
            0 => Bytes::from_static(&[0]),
            1 => self.key(),
            2 => Bytes::from_static(b"l"),
            _ => Bytes::new(),
        }
    }

    fn old_revision(&mut self) -> i64 {
        let back = self.roll(12) as i64;
        self.revision - back + 1
    }

    fn value(&mut self) -> Bytes {
        let (tag, len) = (self.lot.draw(), self.roll(self.weather.value_bytes) as usize);
        let mut value = format!("{tag:x}").into_bytes();
        value.resize(value.len().max(len), b'.');
        value.into()
    }

    fn put(&mut self) -> pb::PutRequest {
        let ignore_value = self.roll(12) == 0;
        pb::PutRequest {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            prev_kv: self.roll(3) == 0,
            ignore_value,
            ..Default::default()
        }
    }

    fn delete_range(&mut self) -> pb::DeleteRangeRequest {
        let prev_kv = self.roll(2) == 0;
        pb::DeleteRangeRequest { key: self.key(), range_end: self.end(), prev_kv }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let mut range = match self.roll(3) {
            0 => everything(),
            _ => pb::RangeRequest { key: self.key(), range_end: self.end(), ..Default::default() },
        };
        range.revision = if self.roll(3) == 0 { self.old_revision().max(0) } else { 0 };
        range.limit = if self.roll(4) == 0 { 1 + self.roll(4) as i64 } else { 0 };
        range.keys_only = self.roll(6) == 0;
        range.count_only = self.roll(6) == 0;
        range.sort_target = if self.roll(4) == 0 { self.roll(5) as i32 } else { 0 };
        range.sort_order = self.roll(3) as i32;
        range
    }

    fn txn(&mut self, depth: u64) -> pb::TxnRequest {
        let compare = (0..self.roll(3)).map(|_| self.compare()).collect();
        let mut ops = |most| (0..self.roll(most)).map(|_| self.operation(depth)).collect();
        pb::TxnRequest { compare, success: ops(4), failure: ops(3) }
    }

    fn compare(&mut self) -> pb::Compare {
        let revision = self.old_revision();
        let (target, union) = match self.roll(3) {
            0 => (0, TargetUnion::Version(self.roll(3) as i64)),
            1 => (1, TargetUnion::CreateRevision(revision)),
            _ => (2, TargetUnion::ModRevision(revision)),
        };
        pb::Compare {
            result: self.roll(4) as i32,
            target,
            key: self.key(),
            range_end: Bytes::new(),
            target_union: Some(union),
        }
    }

    fn operation(&mut self, depth: u64) -> pb::RequestOp {
        let request = match self.roll(if depth > 0 { 9 } else { 8 }) {
            0..4 => request_op::Request::RequestPut(self.put()),
            4..6 => request_op::Request::RequestRange(self.range()),
            6..8 => request_op::Request::RequestDeleteRange(self.delete_range()),
            _ => request_op::Request::RequestTxn(self.txn(depth - 1)),
        };
        pb::RequestOp { request: Some(request) }
    }
}
