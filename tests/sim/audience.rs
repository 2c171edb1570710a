//! Watch streams: the half of a shard that serves them, and clients who read well or badly.
//!
//! An [`Audience`] does with a real [`Watches`] what `shard::watching` and the shard's own loop do,
//! in the same order and at the same moments: it looks at a new view when the node sends something or
//! a client asks, never else, so that news that do not come are missed.
//!
//! A client asks for watchers of all shapes, cancels some, wants to know how far they are, stops
//! reading and goes on. When its stream ends with the member it comes back and watches on from where
//! it was, as etcd's own client does: behind the last event or the last progress.

use crate::{
    check::{parse, unframed},
    check_bounds,
    clients::{Floor, Slip},
    tongue::{Tongue, everybody},
};
use prost::{Message as _, bytes::Bytes};
use proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
};
use ringleader::{
    api::watch,
    io::Clock,
    limits::TIMEOUT_CHECK_INTERVAL,
    mesh::{Interest, ToShard},
    shard::watch::{Message, StreamId, WatchSetup, Watches},
    store::View,
    types::Revision,
};
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(300);
/// Clients that read have been told everything after this long.
pub(crate) const QUIET_AFTER: Duration = Duration::from_secs(1);
/// Watchers of earlier boots that come back.
const RETURNING: usize = 6;
/// Watchers that a usual client has at once.
const WATCHERS_MAX: usize = 6;

/// What clients watch, by stream and name, as they would ask for it if they had to ask again. It
/// outlives the member.
pub(crate) type Spots = BTreeMap<(usize, i64), WatchCreateRequest>;

/// Some of those whose streams ended with the member.
pub(crate) fn returning(spots: &mut Spots) -> Vec<WatchCreateRequest> {
    let all = std::mem::take(spots);
    let step = all.len() / RETURNING + 1;
    let again = |request| WatchCreateRequest { watch_id: 0, ..request };
    all.into_values().step_by(step).map(again).collect()
}

/// One shard's watch streams.
pub(crate) struct Audience {
    floor: Rc<Floor>,
    interest: Interest,
    hub: Watches,
    /// As of the last message or the last request.
    view: Arc<View>,
    clients: BTreeMap<StreamId, Client>,
    next_check: Duration,
    /// By the evening all up to here must have been told.
    settled: Option<i64>,
    /// Messages with events so far.
    told: usize,
}

/// Whoever is at the other end of a stream.
struct Client {
    /// The stream's number in the record.
    number: usize,
    /// What it has said and nobody has taken, each with the newest revision of that moment.
    asks: VecDeque<(WatchRequest, i64)>,
    creating: VecDeque<WatchCreateRequest>,
    /// As it would ask for them again.
    watchers: BTreeMap<i64, WatchCreateRequest>,
    /// Messages that it reads before it stops.
    room: u64,
    /// When it goes on reading.
    wakes: Option<Duration>,
    /// It stops as soon as all its watchers are there.
    crowd: bool,
    /// What a slip keeps back.
    held: Option<(WatchResponse, u64)>,
}

impl Audience {
    pub(crate) fn new(floor: Rc<Floor>, shard: usize, interest: Interest) -> Self {
        let setup = WatchSetup {
            cluster: floor.edge.cluster,
            member: floor.edge.member,
            fragment_bytes: floor.weather.fragment_bytes,
            progress_interval: PROGRESS_INTERVAL,
        };
        let (view, now) = (floor.newest.load(), floor.clock.now());
        let mut audience = Self {
            floor,
            interest,
            hub: Watches::new(setup),
            view,
            clients: BTreeMap::new(),
            next_check: now + TIMEOUT_CHECK_INTERVAL,
            settled: None,
            told: 0,
        };
        audience.come_back(shard);
        audience
    }

    /// Those come who were there before, and sometimes a crowd.
    fn come_back(&mut self, shard: usize) {
        let shards = self.floor.weather.shards;
        let all = self.floor.returning.borrow().clone();
        let back: Vec<_> = all.into_iter().skip(shard).step_by(shards).collect();
        if !back.is_empty() {
            self.floor.chronicle.borrow_mut().see("a watch that was resumed", back.len());
            let stream = self.open();
            back.into_iter().for_each(|request| self.say(stream, create(request)));
        }
        let crowd = self.floor.day().crowd;
        if shard == 0 && crowd > 0 {
            let stream = self.open();
            (0..crowd).for_each(|_| self.say(stream, create(everybody())));
            self.client(stream).crowd = true;
        }
    }

    // ── what the shard does ─────────────────────────────────────────────────────────────────────

    /// The node has sent something.
    pub(crate) fn hear(&mut self, message: &ToShard) {
        let unheard = self.floor.slip == Some(Slip::NewsUnheard) && message.replies.is_empty();
        if !unheard {
            self.view = self.floor.newest.load();
        }
    }

    /// One turn of the shard's loop, and of its clients. `woken` says that the node sent something.
    pub(crate) fn turn(&mut self, woken: bool) {
        let now = self.floor.clock.now();
        let rang = now >= self.next_check;
        if rang {
            self.next_check = now + TIMEOUT_CHECK_INTERVAL;
            self.hub.advance(&self.view);
            self.hub.on_time(self.floor.own.now());
            self.flush_ready();
        }
        if woken || rang || self.hub.is_behind() {
            self.on_news();
        }
        for stream in self.clients.keys().copied().collect::<Vec<_>>() {
            self.serve(stream, now);
        }
        check_bounds::judge_watches(&self.hub);
    }

    fn on_news(&mut self) {
        let behind = self.hub.watchers_behind();
        self.hub.advance(&self.view);
        let fallen = self.hub.watchers_behind();
        self.hub.catch_up(&self.view);
        let (left, watchers) = (self.hub.watchers_behind(), self.hub.watchers());
        self.flush_ready();
        let mut chronicle = self.floor.chronicle.borrow_mut();
        chronicle.see("a watcher that fell behind", fallen.saturating_sub(behind));
        let ended = watchers - self.hub.watchers();
        chronicle.see("a watcher that caught up", fallen.saturating_sub(left + ended));
    }

    /// What the task of a call does when its client says something or has room.
    fn serve(&mut self, stream: StreamId, now: Duration) {
        let client = self.client(stream);
        let wakes = client.wakes.is_some_and(|wakes| wakes <= now);
        if wakes {
            (client.wakes, client.room) = (None, u64::MAX);
        }
        if !wakes && client.asks.is_empty() {
            return;
        }
        loop {
            while self.hub.can_take(stream)
                && let Some((request, seen)) = self.client(stream).asks.pop_front()
            {
                self.take(stream, request, seen);
            }
            self.flush(stream);
            self.flush_ready();
            if self.client(stream).asks.is_empty() || !self.hub.can_take(stream) {
                break;
            }
        }
        let client = self.client(stream);
        if client.crowd && client.asks.is_empty() {
            (client.crowd, client.room) = (false, 0);
        }
    }

    fn take(&mut self, stream: StreamId, request: WatchRequest, seen: i64) {
        let message = request.encode_to_vec().into();
        let mut ask = watch::decode(message).expect("clients speak etcd's language");
        let client = self.client(stream);
        if let Some(RequestUnion::CreateRequest(create)) = &request.request_union {
            client.creating.push_back(create.clone());
        }
        let number = client.number;
        self.floor.chronicle.borrow_mut().watch_asked(number, request, seen);
        self.interest.set(true);
        if self.floor.slip != Some(Slip::LookedBefore) {
            self.view = self.floor.newest.load();
        }
        self.hub.advance(&self.view);
        if let (watch::Ask::Create(create), Some(Slip::BeganLate)) = (&mut ask, self.floor.slip) {
            let start = create.start.map_or(self.view.revision.0 + 1, |start| start.0);
            create.start = Some(Revision(start + 1));
        }
        self.hub.on_request(stream, ask, &self.view, self.floor.own.now());
        self.interest.set(self.hub.is_watching());
    }

    fn flush_ready(&mut self) {
        while let Some(stream) = self.hub.take_ready() {
            self.flush(stream);
        }
    }

    fn flush(&mut self, stream: StreamId) {
        while self.clients.get(&stream).is_some_and(|client| client.room > 0) {
            let Some(message) = self.hub.next(stream) else { return };
            let client = self.client(stream);
            client.room = if client.room == u64::MAX { u64::MAX } else { client.room - 1 };
            self.deliver(stream, &message);
        }
    }

    /// The newest revision that it knows of, or needs to know of.
    pub(crate) fn has_heard_of(&self) -> Revision {
        if self.hub.is_watching() { self.view.revision } else { Revision(i64::MAX) }
    }

    /// When the loop must turn although nothing comes.
    pub(crate) fn wants_turn_at(&self) -> Duration {
        if self.hub.is_behind() {
            return Duration::ZERO;
        }
        let wakes = self.clients.values().filter_map(|client| client.wakes).min();
        let check = if self.clients.is_empty() { Duration::MAX } else { self.next_check };
        check.min(wakes.unwrap_or(Duration::MAX))
    }

    // ── what its clients do ─────────────────────────────────────────────────────────────────────

    fn client(&mut self, stream: StreamId) -> &mut Client {
        self.clients.get_mut(&stream).expect("it is open")
    }

    fn open(&mut self) -> StreamId {
        let stream = self.hub.open().expect("few are open");
        let client = Client {
            number: self.floor.chronicle.borrow_mut().watch_opened(self.floor.member().0),
            asks: VecDeque::new(),
            creating: VecDeque::new(),
            watchers: BTreeMap::new(),
            room: u64::MAX,
            wakes: None,
            crowd: false,
            held: None,
        };
        self.clients.insert(stream, client);
        stream
    }

    fn say(&mut self, stream: StreamId, union: RequestUnion) {
        let seen = self.floor.newest.load().revision.0;
        let request = WatchRequest { request_union: Some(union) };
        self.client(stream).asks.push_back((request, seen));
    }

    fn deliver(&mut self, stream: StreamId, message: &Message) {
        let framed = Bytes::from([&message.head[..], &message.body[..]].concat());
        let response: WatchResponse = parse(&unframed(&framed));
        let applied = self.view.applied.0;
        self.floor.show(&self.view);
        self.told += usize::from(!response.events.is_empty());
        match self.floor.slip {
            Some(Slip::MessageLost) if self.told % 5 == 4 && !response.events.is_empty() => {}
            Some(Slip::MessagesSwapped) if !response.created => {
                let held = self.client(stream).held.replace((response, applied));
                if let Some((held, applied)) = held {
                    let (now, _) = self.client(stream).held.take().expect("just put there");
                    self.told(stream, now, applied);
                    self.told(stream, held, applied);
                }
            }
            _ => self.told(stream, response, applied),
        }
    }

    fn told(&mut self, stream: StreamId, response: WatchResponse, applied: u64) {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let client = self.client(stream);
        let number = client.number;
        let again = client.told(&response, revision);
        let client = &self.clients[&stream];
        let mut spots = self.floor.spots.borrow_mut();
        match client.watchers.get(&response.watch_id) {
            Some(spot) => drop(spots.insert((number, response.watch_id), spot.clone())),
            None if response.watch_id >= 0 => drop(spots.remove(&(number, response.watch_id))),
            None => {
                let all = client.watchers.iter();
                spots.extend(all.map(|(id, spot)| ((number, *id), spot.clone())));
            }
        }
        drop(spots);
        self.floor.chronicle.borrow_mut().watch_told(number, response, applied);
        again.into_iter().for_each(|request| self.say(stream, create(request)));
    }

    /// Clients do something, or nothing.
    pub(crate) fn act(&mut self) {
        let streams: Vec<_> = self.clients.keys().copied().collect();
        if streams.len() < self.floor.weather.streams && self.draw(4) == 0 {
            let stream = self.open();
            return self.watch(stream);
        }
        if streams.is_empty() {
            return;
        }
        let stream = streams[self.draw(streams.len() as u64) as usize];
        match self.draw(12) {
            0..4 if self.client(stream).watchers.len() < WATCHERS_MAX => self.watch(stream),
            4..6 => {
                let watch_id = self.draw(5) as i64;
                self.say(stream, RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
            }
            6..8 => self.say(stream, RequestUnion::ProgressRequest(WatchProgressRequest {})),
            8..10 => self.stop_reading(stream),
            10 if self.draw(3) == 0 => self.close(stream),
            _ => {}
        }
    }

    fn draw(&self, below: u64) -> u64 {
        self.floor.lot.borrow_mut().below(below)
    }

    fn watch(&mut self, stream: StreamId) {
        let view = self.floor.newest.load();
        let mut lot = self.floor.lot.borrow_mut();
        let request = Tongue::new(&mut lot, &self.floor.weather, &view).watch();
        drop(lot);
        self.say(stream, create(request));
    }

    /// After a message or a few, for a while.
    fn stop_reading(&mut self, stream: StreamId) {
        let leisure = self.floor.day().leisure.as_micros() as u64;
        let pause = Duration::from_micros(self.draw(20 * leisure));
        let (room, now) = (self.draw(4), self.floor.clock.now());
        let client = self.client(stream);
        (client.room, client.wakes) = (room, Some(now + pause));
    }

    fn close(&mut self, stream: StreamId) {
        self.hub.close(stream);
        self.interest.set(self.hub.is_watching());
        let gone = self.clients.remove(&stream).expect("it is open").number;
        self.floor.spots.borrow_mut().retain(|(stream, _), _| *stream != gone);
    }

    /// Nothing more is asked; who stopped reading goes on, and hears the rest until `evening`.
    pub(crate) fn settle(&mut self, evening: Duration) {
        let now = self.floor.clock.now();
        if self.settled.is_none() && now + QUIET_AFTER >= evening {
            self.settled = Some(self.floor.newest.load().revision.0);
        }
        for client in self.clients.values_mut().filter(|client| client.room < u64::MAX) {
            client.wakes = Some(now);
        }
    }

    /// The evening has come in peace.
    pub(crate) fn be_quiet(&self) {
        let Some(revision) = self.settled else { return };
        for client in self.clients.values() {
            assert!(client.asks.is_empty(), "a request that is not taken");
            self.floor.chronicle.borrow_mut().watch_quiet(client.number, revision);
        }
    }
}

fn create(request: WatchCreateRequest) -> RequestUnion {
    RequestUnion::CreateRequest(request)
}

impl Client {
    /// Remembers where each of its watchers is. Gives back one that it asks for anew, because what
    /// it waited for is compacted.
    fn told(&mut self, response: &WatchResponse, revision: i64) -> Option<WatchCreateRequest> {
        let id = response.watch_id;
        if response.created {
            let mut request = self.creating.pop_front()?;
            if request.start_revision == 0 {
                request.start_revision = revision + 1;
            }
            if !response.canceled {
                self.watchers.insert(id, request);
            }
            return None;
        }
        if response.canceled {
            let ended = self.watchers.remove(&id)?;
            let start_revision = response.compact_revision;
            let again = WatchCreateRequest { start_revision, watch_id: 0, ..ended };
            return (start_revision > 0).then_some(again);
        }
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        let through = last.map_or(revision, |kv| kv.mod_revision);
        if !response.fragment {
            let of = self.watchers.iter_mut().filter(|(name, _)| id == -1 || **name == id);
            of.for_each(|(_, spot)| spot.start_revision = spot.start_revision.max(through + 1));
        }
        None
    }
}
