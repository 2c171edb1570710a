//! Clients, as the edge sees them: a [`Desk`] stands where a shard would, at the mesh's other end.
//!
//! It draws requests, encodes them as clients do, has them judged by `api::decode`, and takes the
//! same ways as a shard: proposals and ReadIndex rounds to the node, serializable reads from the
//! newest view at once, questions about a lease's time to the leader's clock. Some of its clients
//! keep their leases alive. There are no sockets. In bad weather whoever waits for long gives up; a
//! lone member answers everything, and when it is calm so does everybody.

use crate::{
    audience::{Audience, Spots},
    check::{Answer, Chronicle, Now, Request, Way},
    check_bounds,
    clocks::OwnClock,
    executor::{Lot, SimClock},
    history::History,
    tongue::{Tongue, everything, operate},
    weather::{Day, Weather},
};
use prost::bytes::Bytes;
use proto::etcdserverpb as pb;
use ringleader::{
    api::{
        self, Edge, Header, Status, Work,
        lease::{self, Listing, TimeToLive},
    },
    io::Clock,
    mesh::{LeaseAsk, Newest, Reply, ShardEnd, ToNode},
    metrics::NodeMeters,
    store::{
        Member, Outcome, View,
        command::{Expired, MemberAttributes, MemberChange},
        encode_cluster_version, encode_lease_grant, encode_lease_revoke,
    },
    types::{LeaseId, MemberId, Revision, Ticket},
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
    /// Linearizable reads are served without asking, from the newest view there is here.
    UnaskedRead,
    /// Renewals are acknowledged without asking.
    RenewedUnasked,
    /// Every fifth put is answered with the revision of the one before.
    RevisionReused,
    /// Each proposal is sent again when it was answered.
    ProposedTwice,
    /// A proposal that cannot be sent is said to be done.
    RefusalForgotten,
    /// A lease is revoked in the leader's name as soon as it was renewed.
    RevokedEarly,
    /// A snapshot that was just installed is served as if its place were there and its content not.
    HalfInstalled,
    /// Whose database is damaged serves before it has another.
    ServedEmpty,
    /// A shard says that it wants news, and does not look at what it missed before.
    LookedBefore,
    /// News without answers are not looked at.
    NewsUnheard,
    /// Each watcher begins a revision late.
    BeganLate,
    /// One message with events in five gets lost.
    MessageLost,
    /// Messages to a watch stream change places two by two.
    MessagesSwapped,
}

/// What all desks of a boot share.
pub(crate) struct Floor {
    pub(crate) weather: Rc<Weather>,
    pub(crate) day: RefCell<Day>,
    pub(crate) lot: RefCell<Lot>,
    pub(crate) clock: SimClock,
    /// The machine's.
    pub(crate) own: OwnClock,
    /// Where the boot's tickets begin.
    pub(crate) first_ticket: u64,
    pub(crate) edge: Edge,
    pub(crate) boot: u64,
    pub(crate) newest: Newest,
    pub(crate) meters: Arc<NodeMeters>,
    pub(crate) left: Cell<u64>,
    /// Desks that have nothing left to ask, nor to hear.
    pub(crate) done: Cell<usize>,
    /// Whoever waits for it stays until it blows.
    pub(crate) whistle: Option<Rc<Cell<bool>>>,
    /// Everything must be answered.
    pub(crate) is_calm: Cell<bool>,
    /// It calms down.
    pub(crate) dusk: Rc<Cell<bool>>,
    /// What is watched, and what was watched before this boot.
    pub(crate) spots: Rc<RefCell<Spots>>,
    pub(crate) returning: RefCell<Vec<pb::WatchCreateRequest>>,
    pub(crate) chronicle: Rc<RefCell<Chronicle>>,
    pub(crate) history: Rc<RefCell<History>>,
    /// Who could be added to the cluster.
    pub(crate) candidates: Rc<RefCell<Vec<Member>>>,
    pub(crate) slip: Option<Slip>,
}

/// Election timeouts after which a client gives up.
const GIVES_UP_AFTER: u32 = 8;

impl Floor {
    pub(crate) fn day(&self) -> std::cell::Ref<'_, Day> {
        self.day.borrow()
    }

    pub(crate) fn member(&self) -> MemberId {
        self.edge.member
    }

    /// Another day begins for the same boot.
    pub(crate) fn begin(&self, day: Day) {
        self.left.set(day.requests);
        self.is_calm.set(true);
        *self.day.borrow_mut() = day;
    }

    /// All desks have come to an end.
    pub(crate) fn is_done(&self) -> bool {
        self.done.get() == self.weather.shards
    }

    /// Somebody looks at a view.
    pub(crate) fn show(&self, view: &View) {
        let mut history = self.history.borrow_mut();
        let (member, leader, term) = (self.member(), view.raft.leader, view.raft.term.0);
        history.show(member.0, view.applied.0);
        if leader.0 != 0 {
            history.leads(term, leader.0, (leader == member).then_some(self.boot));
        }
    }

    fn now(&self, view: &View) -> Now {
        assert!(view.applied.0 > 0, "somebody is served by a member that has nothing yet");
        self.show(view);
        let reach = self.history.borrow().reach();
        Now { at: self.clock.now(), applied: view.applied.0, reach }
    }

    /// When whoever asks now gives up.
    fn gives_up_at(&self) -> Duration {
        match self.weather.members() == 1 || self.is_calm.get() {
            true => Duration::MAX,
            false => self.clock.now() + self.weather.election() * GIVES_UP_AFTER,
        }
    }
}

/// One shard's clients.
pub(crate) struct Desk {
    floor: Rc<Floor>,
    end: ShardEnd,
    next_ticket: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Leases that clients keep alive.
    kept: BTreeMap<i64, Kept>,
    /// Nothing is left to ask, and clients stay until this moment.
    evening: Option<Duration>,
    is_done: bool,
    audience: Audience,
    /// The view when the last message came.
    stale: Arc<View>,
    /// The newest view while a snapshot was on its way in.
    before: Option<Arc<View>>,
    /// A revision that the node has not told of, and since when.
    untold: Option<(Revision, Duration)>,
    /// The member's database was damaged, and it has to fetch another.
    stands_in: bool,
}

/// Longest that news may take: turns of the node, while a ring is full. A tick makes one.
const TICKS_UNTOLD: u32 = 20;

struct Waiting {
    op: usize,
    what: What,
    until: Duration,
    since: Duration,
    /// Snapshots that had come to the member when it was asked.
    snapshots: u64,
}

/// What a shard does with the node's answer.
enum What {
    Proposal { again: Option<Bytes>, granted: Option<i64> },
    Read(api::Read),
    Renewal { id: i64, header: Header },
    TimeToLive(TimeToLive),
    Leases,
    Change,
    Move,
}

/// A lease that a client renews: in good time, or when it has run out or nearly so.
struct Kept {
    ttl: Duration,
    in_time: bool,
    /// When it is renewed next; `None` while that is on its way.
    next: Option<Duration>,
}

impl Desk {
    pub(crate) fn new(floor: Rc<Floor>, end: ShardEnd, stands_in: bool) -> Self {
        let next_ticket = floor.first_ticket;
        let stale = floor.newest.load();
        let (waiting, kept) = (BTreeMap::new(), BTreeMap::new());
        let audience = Audience::new(floor.clone(), end.shard, end.interest.clone());
        Self {
            floor,
            end,
            next_ticket,
            waiting,
            kept,
            evening: None,
            is_done: false,
            audience,
            stale,
            before: None,
            untold: None,
            stands_in,
        }
    }

    /// Asks and listens until the day's requests are used up and answered, or its
    /// patience is; then says goodbye.
    pub(crate) async fn serve(mut self) {
        let leaving = self.floor.day().patience.map(|patience| self.floor.clock.now() + patience);
        if self.opens(leaving).await {
            self.serve_all(leaving).await;
        }
        while self.end.to_node.try_send(ToNode::Farewell).is_err() {
            self.wait_a_little().await;
        }
    }

    /// Clients come once the member has something; false where they have left before.
    async fn opens(&self, leaving: Option<Duration>) -> bool {
        let is_empty = || self.floor.newest.load().applied.0 == 0;
        let is_open = self.floor.slip == Some(Slip::ServedEmpty);
        while !is_open && is_empty() {
            let is_over = self.floor.whistle.as_ref().is_some_and(|whistle| whistle.get());
            if is_over || leaving.is_some_and(|leaving| self.floor.clock.now() >= leaving) {
                return false;
            }
            self.floor.clock.sleep_until(self.floor.clock.now() + self.floor.weather.tick).await;
        }
        let fetched = usize::from(self.stands_in && !is_empty());
        self.floor.chronicle.borrow_mut().see("a tree that was fetched anew", fetched);
        true
    }

    async fn serve_all(&mut self, leaving: Option<Duration>) {
        self.ask(Request::Range(everything()), true);
        if self.end.shard == 0 {
            self.introduce();
        }
        loop {
            let woken = self.listen();
            self.audience.turn(woken);
            check_bounds::judge(&self.floor.meters);
            self.give_up();
            let is_done = self.is_done();
            if is_done && !std::mem::replace(&mut self.is_done, true) {
                self.audience.be_quiet();
                self.floor.done.set(self.floor.done.get() + 1);
                self.floor.chronicle.borrow_mut().day_ends(self.floor.clock.now());
            }
            let may_leave = self.floor.whistle.as_ref().is_none_or(|whistle| whistle.get());
            let is_late = leaving.is_some_and(|leaving| self.floor.clock.now() >= leaving);
            let must_leave = self.floor.whistle.as_ref().is_some_and(|whistle| whistle.get());
            if (self.is_done && may_leave) || must_leave || is_late {
                break;
            }
            while self.floor.left.get() > 0 && self.waiting.len() < self.floor.weather.outstanding {
                self.floor.left.set(self.floor.left.get() - 1);
                self.ask_something();
                self.audience.act();
                if self.draw(3) == 0 {
                    break;
                }
            }
            self.keep_alive();
            self.wait_a_little().await;
        }
    }

    fn draw(&self, below: u64) -> u64 {
        self.floor.lot.borrow_mut().below(below)
    }

    /// Nothing is left to ask or to be answered, and the evening is over.
    fn is_done(&mut self) -> bool {
        let stays = self.floor.whistle.is_some() && !self.floor.is_calm.get();
        if self.floor.left.get() > 0 || stays {
            return false;
        }
        let (now, rest) = (self.floor.clock.now(), self.floor.day().rest);
        let evening = *self.evening.get_or_insert(now + rest);
        if rest > Duration::ZERO {
            self.audience.settle(evening);
        }
        now >= evening && self.waiting.is_empty()
    }

    /// Who has waited for too long will never know.
    fn give_up(&mut self) {
        let now = self.floor.clock.now();
        let snapshots = self.floor.history.borrow().snapshots_of(self.floor.member().0);
        let most = self.floor.weather.election() * GIVES_UP_AFTER;
        // A snapshot takes the place of entries, and nobody is answered for those.
        let late = self.waiting.extract_if(.., |_, waiting| {
            waiting.until <= now || (waiting.snapshots < snapshots && waiting.since + most <= now)
        });
        for waiting in late.map(|(_, waiting)| waiting).collect::<Vec<_>>() {
            if let What::Renewal { id, .. } = waiting.what {
                self.kept.remove(&id);
            }
            self.floor.chronicle.borrow_mut().see("a request that somebody gave up", 1);
        }
    }

    /// Until there is a message, but not for long.
    async fn wait_a_little(&self) {
        let clock = &self.floor.clock;
        let (now, leisure) = (clock.now(), self.floor.day().leisure.as_micros() as u64);
        let mut until = now + Duration::from_micros(self.draw(leisure));
        if let Some(evening) = self.evening.filter(|evening| *evening > now) {
            let renewal = self.kept.values().filter_map(|kept| kept.next).min();
            until = evening.min(renewal.unwrap_or(Duration::MAX));
        }
        let until = until.min(self.audience.wants_turn_at()).max(now);
        let mut timer = Box::pin(clock.sleep_until(until));
        poll_fn(|cx| match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.end.inbox.poll_ready(cx),
        })
        .await;
        futures_lite::future::yield_now().await;
    }

    /// Whether there was something to hear.
    fn listen(&mut self) -> bool {
        let mut woken = false;
        while let Some(message) = self.end.inbox.pop() {
            woken = true;
            self.audience.hear(&message);
            for (ticket, reply) in message.replies {
                self.hear(ticket, reply);
            }
            self.stale = self.floor.newest.load();
        }
        let newest = self.floor.newest.load();
        if newest.applied.0 < self.floor.history.borrow().whole_of(self.floor.member().0) {
            self.before = Some(newest);
        }
        self.check_news();
        woken
    }

    /// Whoever is interested hears of every revision, also when the ring was full.
    fn check_news(&mut self) {
        let (now, newest) = (self.floor.clock.now(), self.floor.newest.load().revision);
        let told = self.audience.has_heard_of();
        self.untold = self.untold.filter(|(revision, _)| *revision > told);
        // The node stands still as well while the process does.
        if told < newest && !self.floor.day().pauses {
            let (revision, since) = *self.untold.get_or_insert((newest, now));
            let most = self.floor.own.lasts(self.floor.weather.tick * TICKS_UNTOLD);
            assert!(now - since < most, "revision {revision:?} was not told");
        }
    }

    fn hear(&mut self, ticket: Ticket, reply: Reply) {
        // A ticket of an earlier boot, whose entry was applied only now.
        let Some(Waiting { op, what, .. }) = self.waiting.remove(&ticket) else { return };
        let view = self.floor.newest.load();
        let header = Header::of(&view, &self.floor.edge);
        let mut out = Vec::new();
        let mut again = None;
        let said = match (reply, what) {
            (Reply::Applied(mut outcome), What::Proposal { again: same, granted }) => {
                again = same;
                if let (Some(Slip::RevisionReused), Outcome::Put(done)) =
                    (self.floor.slip, &mut outcome)
                    && self.draw(5) == 0
                {
                    done.revision.0 -= 1;
                }
                let said = api::reply(&outcome, header, &mut out);
                if let (Ok(()), Some(id)) = (&said, granted) {
                    self.keep(id, &view);
                }
                said
            }
            (Reply::Readable, What::Read(read)) => {
                api::answer(&read, &self.half(view.clone()), &self.floor.edge, &mut out)
            }
            (Reply::Renewed(ttl), What::Renewal { id, header }) => {
                self.renewed(id, ttl.is_some(), &view);
                lease::encode_keep_alive(LeaseId(id), ttl, header, &mut out);
                Ok(())
            }
            (Reply::Remaining(found), What::TimeToLive(asked)) => {
                lease::answer_time_to_live(asked, found, &view, header, &mut out);
                Ok(())
            }
            (Reply::Leases(found), What::Leases) => {
                let mut listing = Listing::new(found, header);
                while listing.step() {}
                listing.finish(&mut out);
                Ok(())
            }
            (Reply::Applied(outcome), What::Change) => api::reply(&outcome, header, &mut out),
            (Reply::Moved, What::Move) => Ok(()),
            (Reply::Unavailable(_), what) => {
                if let What::Renewal { id, .. } = what {
                    self.kept.remove(&id);
                }
                return self.answer(op, Answer::TurnedAway, &view);
            }
            (reply, _) => panic!("{reply:?} answers something else"),
        };
        self.answer(op, Answer::Applied(said.map(|()| out.into())), &view);
        if let Some(request) = again {
            drop(self.end.to_node.try_send(ToNode::Propose { ticket, request }));
        }
    }

    fn read(&self, read: &api::Read, view: &View) -> Answer {
        let mut out = Vec::new();
        let said = api::answer(read, view, &self.floor.edge, &mut out);
        Answer::Applied(said.map(|()| out.into()))
    }

    /// What is read from `view`: all of it but for a slip.
    fn half(&self, view: Arc<View>) -> Arc<View> {
        /// Entries for which a slip lasts.
        const SOON: u64 = 10;
        let whole = self.floor.history.borrow().whole_of(self.floor.member().0);
        let soon = (whole..whole + SOON).contains(&view.applied.0);
        match self.before.as_ref().filter(|_| soon) {
            Some(before) if self.floor.slip == Some(Slip::HalfInstalled) => {
                let mut half = View::clone(before);
                (half.revision, half.applied) = (view.revision, view.applied);
                Arc::new(half)
            }
            _ => view,
        }
    }

    fn answer(&self, op: usize, answer: Answer, view: &View) {
        let now = self.floor.now(view);
        self.floor.chronicle.borrow_mut().answered(op, answer, now);
    }

    // ── keeping leases alive ────────────────────────────────────────────────────────────────────

    /// Some clients keep what they were granted.
    fn keep(&mut self, id: i64, view: &View) {
        let Some(granted) = view.leases().get(LeaseId(id)) else { return };
        if self.draw(2) == 0 {
            let ttl = Duration::from_secs(granted.granted.unsigned_abs());
            self.kept.insert(id, Kept { ttl, in_time: self.draw(3) == 0, next: None });
            self.renew_later(id);
        }
    }

    fn renew_later(&mut self, id: i64) {
        let now = self.floor.clock.now();
        let tempo = Duration::from_micros(self.floor.day().tempo.micros_max);
        let late = self.floor.weather.tick / 2 + tempo + Duration::from_millis(1);
        let late = Duration::from_micros(self.draw(late.as_micros() as u64));
        if let Some(kept) = self.kept.get_mut(&id) {
            kept.next = Some(if kept.in_time { now + kept.ttl / 3 } else { now + kept.ttl + late });
        }
    }

    fn renewed(&mut self, id: i64, lives: bool, view: &View) {
        if !lives {
            self.kept.remove(&id);
            return;
        }
        self.renew_later(id);
        if self.floor.slip == Some(Slip::RevokedEarly) {
            let expired = Expired { term: view.raft.term, applied: view.applied };
            let request = encode_lease_revoke(LeaseId(id), Some(expired));
            drop(self.end.to_node.try_send(ToNode::Propose { ticket: Ticket(0), request }));
        }
    }

    fn keep_alive(&mut self) {
        let now = self.floor.clock.now();
        let is_due = |kept: &Kept| kept.next.is_some_and(|next| next <= now);
        let due = self.kept.iter().filter(|(_, kept)| is_due(kept)).map(|(id, _)| *id);
        for id in due.collect::<Vec<_>>() {
            if let Some(kept) = self.kept.get_mut(&id) {
                kept.next = None;
            }
            self.ask_clock(Request::Renew(id));
        }
    }

    // ── asking ──────────────────────────────────────────────────────────────────────────────────

    fn ask_something(&mut self) {
        let view = self.floor.newest.load();
        let operated = self.floor.weather.operators && !self.floor.dusk.get();
        if operated && self.end.shard == 0 && self.draw(20) == 0 {
            return self.operate(&view);
        }
        let mut lot = self.floor.lot.borrow_mut();
        let request = Tongue::new(&mut lot, &self.floor.weather, &view).request(&self.floor.day());
        drop(lot);
        if matches!(request, Request::Renew(_)) {
            return self.ask_clock(request);
        }
        let reads_only = self.floor.day().reads_only;
        let serializable = !reads_only && self.draw(3) == 0;
        self.ask(request, serializable);
    }

    /// Asks for another leader or other members.
    fn operate(&mut self, view: &View) {
        let (ticket, member) = (self.draw_ticket(), self.floor.member());
        let mut lot = self.floor.lot.borrow_mut();
        let candidates = self.floor.candidates.borrow();
        let newcomer = candidates.first().filter(|_| lot.below(3) > 0);
        let request = match newcomer {
            Some(newcomer) => {
                let learner = lot.one_in(2);
                Request::Change(MemberChange::Add(Member { learner, ..newcomer.clone() }))
            }
            None => operate(&mut lot, view, member, self.next_ticket),
        };
        drop((lot, candidates));
        let (ask, what, way) = match &request {
            Request::MoveLeader(to) => {
                (ToNode::MoveLeader { ticket, to: MemberId(*to) }, What::Move, Way::Leader)
            }
            Request::Change(change) => {
                (ToNode::Change { ticket, change: change.clone() }, What::Change, Way::Log)
            }
            other => unreachable!("nothing for an operator: {other:?}"),
        };
        let op = self.asked(request, Some(ticket), way);
        let sent = self.end.to_node.try_send(ask);
        self.sent(sent.is_ok(), ticket, op, what);
    }

    fn introduce(&mut self) {
        let view = self.floor.newest.load();
        let own = view.cluster.members.get(&self.floor.member());
        if let Some(own) = own.filter(|own| own.client_urls.is_empty()) {
            let client_urls = vec!["http://sim".to_owned()];
            let name = format!("sim {:x}", own.id.0);
            let attributes = MemberAttributes { member: own.id, name, client_urls };
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
            Work::Grant { id, ttl } => self.grant(id, ttl),
            Work::TimeToLive(_) | Work::Leases => self.ask_clock(request),
            Work::Read { serializable: true, read } => {
                let op = self.asked(request, None, Way::View { serializable: true });
                let answer = self.read(&read, &self.half(view.clone()));
                self.answer(op, answer, &view);
            }
            Work::Read { serializable: false, read } => self.ask_read(request, read),
            Work::Refuse(_) => {
                let op = self.asked(request, None, Way::Log);
                self.answer(op, Answer::TurnedAway, &view);
            }
            Work::NoSpace(_) => panic!("there is no quota here"),
            Work::Recipe(_) => panic!("nobody here asks for locks"),
            Work::AddMember { .. } | Work::Change(_) | Work::MoveLeader(_) => {
                panic!("nobody here asks for other members")
            }
            Work::Defragment | Work::Sum(_) => panic!("nobody here asks for maintenance"),
        }
    }

    /// A lease without an id gets its ticket's number.
    fn grant(&mut self, id: LeaseId, ttl: i64) {
        let ticket = self.draw_ticket();
        let own = (ticket.0 & i64::MAX.unsigned_abs()).max(1).cast_signed();
        let id = if id == LeaseId(0) { LeaseId(own) } else { id };
        let request = Request::Grant(pb::LeaseGrantRequest { id: id.0, ttl });
        self.send(ticket, request, encode_lease_grant(id, ttl), Some(id.0));
    }

    fn propose(&mut self, request: Request, body: Bytes) {
        let ticket = self.draw_ticket();
        self.send(ticket, request, body, None);
    }

    fn send(&mut self, ticket: Ticket, request: Request, body: Bytes, granted: Option<i64>) {
        let op = self.asked(request, Some(ticket), Way::Log);
        let again = (self.floor.slip == Some(Slip::ProposedTwice)).then(|| body.clone());
        let sent = self.end.to_node.try_send(ToNode::Propose { ticket, request: body });
        let what = What::Proposal { again, granted };
        self.sent(sent.is_ok(), ticket, op, what);
    }

    fn ask_read(&mut self, request: Request, read: api::Read) {
        let ticket = self.draw_ticket();
        let op = self.asked(request, Some(ticket), Way::View { serializable: false });
        if self.floor.slip == Some(Slip::StaleRead) {
            let answer = self.read(&read, &self.stale);
            return self.answer(op, answer, &self.stale);
        }
        if self.floor.slip == Some(Slip::UnaskedRead) {
            let view = self.floor.newest.load();
            let answer = self.read(&read, &view);
            return self.answer(op, answer, &view);
        }
        let sent = self.end.to_node.try_send(ToNode::Read { ticket });
        self.sent(sent.is_ok(), ticket, op, What::Read(read));
    }

    /// Asks what only the leader's clock knows.
    fn ask_clock(&mut self, request: Request) {
        let (ask, what) = match &request {
            Request::Renew(id) => {
                let header = Header::of(&self.floor.newest.load(), &self.floor.edge);
                (LeaseAsk::Renew(LeaseId(*id)), What::Renewal { id: *id, header })
            }
            Request::TimeToLive(r) => {
                let asked = TimeToLive { id: LeaseId(r.id), keys: r.keys };
                (LeaseAsk::Remaining(asked.id), What::TimeToLive(asked))
            }
            Request::Leases => (LeaseAsk::List, What::Leases),
            other => unreachable!("no question for the clock: {other:?}"),
        };
        let ticket = self.draw_ticket();
        let op = self.asked(request, Some(ticket), Way::Clock);
        if let (Some(Slip::RenewedUnasked), What::Renewal { id, header }) = (self.floor.slip, &what)
        {
            let (view, mut out) = (self.floor.newest.load(), Vec::new());
            let ttl = view.leases().get(LeaseId(*id)).map(|lease| lease.granted);
            lease::encode_keep_alive(LeaseId(*id), ttl, *header, &mut out);
            return self.answer(op, Answer::Applied(Ok(out.into())), &view);
        }
        let sent = self.end.to_node.try_send(ToNode::Lease { ticket, ask });
        self.sent(sent.is_ok(), ticket, op, what);
    }

    /// A full ring is an immediate refusal.
    fn sent(&mut self, sent: bool, ticket: Ticket, op: usize, what: What) {
        let (until, since) = (self.floor.gives_up_at(), self.floor.clock.now());
        let snapshots = self.floor.history.borrow().snapshots_of(self.floor.member().0);
        let waiting = Waiting { op, what, until, since, snapshots };
        if sent {
            self.waiting.insert(ticket, waiting);
            return;
        }
        let forgotten = self.floor.slip == Some(Slip::RefusalForgotten)
            && matches!(waiting.what, What::Proposal { .. });
        if let What::Renewal { id, .. } = waiting.what {
            self.kept.remove(&id);
        }
        let answer = match forgotten {
            true => Answer::Applied(Err(Status::not_built("what was never sent"))),
            false => Answer::TurnedAway,
        };
        self.answer(waiting.op, answer, &self.floor.newest.load());
    }

    fn asked(&self, request: Request, ticket: Option<Ticket>, way: Way) -> usize {
        let (member, now) = (self.floor.member().0, self.floor.now(&self.floor.newest.load()));
        self.floor.chronicle.borrow_mut().asked(request, member, ticket, way, now)
    }

    fn draw_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket::new(self.floor.member(), self.end.shard, self.next_ticket)
    }
}
