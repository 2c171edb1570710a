//! A side's watch streams: what each is told, and what each watcher hears.
//!
//! ```text
//!   request, then one for an impossible range ──►  ◄── answers .. then that it is impossible
//!                                                  ◄── events, kept by watcher for the next quiet point
//! ```
//!
//! That second request, which every server refuses at once and which leaves nothing behind, tells that
//! the first is dealt with, whether or not it has an answer. A quiet point is reached when a stream
//! says how far it is: it may only when all its watchers have everything up to there.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use loadgen::{
    client::{Client, Duplex},
    grpc::{Status, code},
};
use proto::{
    etcdserverpb::{
        WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
        watch, watch_request::RequestUnion,
    },
    mvccpb::Event,
};

use crate::{answer, side::Bare};

/// Longer than any server should take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two questions how far a stream is. A server may leave one unanswered.
const PROGRESS_EVERY: Duration = Duration::from_millis(25);
/// Impossible requests in a row after which nothing sent before can still be on its way: a server
/// may send answers and progress from two queues, taking from either.
const SWEEPS: usize = 4;
/// A stream whose request has ended is listened to for as long.
const LISTEN: Duration = Duration::from_millis(50);

/// What one watcher heard, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivered {
    /// All events of one revision.
    Revision(i64, Vec<Event>),
    /// The server cancelled it.
    Canceled {
        /// What was compacted.
        compact_revision: i64,
        /// Why, in words.
        reason: String,
    },
    /// Something that no server may say.
    Wrong(String),
}

impl Delivered {
    /// How many events it holds.
    pub fn events(&self) -> usize {
        match self {
            Self::Revision(_, events) => events.len(),
            Self::Canceled { .. } | Self::Wrong(_) => 0,
        }
    }
}

/// What was heard, by stream and watch id.
pub type Heard = BTreeMap<(usize, i64), Vec<Delivered>>;

/// One watch stream.
pub struct Stream {
    duplex: Duplex,
    /// The watchers there are, and where they start.
    live: BTreeMap<i64, i64>,
    /// The watcher that was just made, of which the caller does not know yet: events may follow.
    fresh: Option<i64>,
    /// Watchers that the server cancelled, and of which it was not yet told that we know.
    dead: Vec<i64>,
    heard: BTreeMap<i64, Vec<Delivered>>,
    /// The watcher whose last response is to go on.
    fragment: Option<i64>,
    progress: Vec<WatchResponse>,
}

impl Stream {
    /// Opens it, without a watcher.
    pub fn open(endpoint: &str) -> Result<Self, Status> {
        let client = Client::connect(endpoint)
            .map_err(|error| Status::new(code::UNAVAILABLE, error.to_string()))?;
        Ok(Self {
            duplex: client.duplex(watch::WATCH)?,
            live: BTreeMap::new(),
            fresh: None,
            dead: Vec::new(),
            heard: BTreeMap::new(),
            fragment: None,
            progress: Vec::new(),
        })
    }

    /// Tells it something, and says what it answered, events aside.
    pub fn tell(&mut self, request: &WatchRequest) -> Result<Vec<WatchResponse>, Status> {
        self.duplex.send(request)?;
        let create = match &request.request_union {
            Some(RequestUnion::CreateRequest(create)) => Some(create.start_revision),
            _ => None,
        };
        let answers = self.answers(create.is_some())?;
        for answer in answers.iter().filter(|answer| answer.created != answer.canceled) {
            match answer.created {
                true => self.live.insert(answer.watch_id, create.unwrap_or(0)),
                false => self.live.remove(&answer.watch_id),
            };
        }
        Ok(answers)
    }

    /// Tells it what may be no request.
    pub fn tell_bytes(&mut self, message: &Bytes) -> Result<Vec<WatchResponse>, Status> {
        self.duplex.send(&Bare(message.clone()))?;
        self.answers(false)
    }

    /// Asks how far it is, once, and says what it answered. The stream is settled.
    pub fn ask_progress(&mut self) -> Result<Vec<WatchResponse>, Status> {
        self.sweep()?;
        self.progress.clear();
        self.duplex.send(&progress())?;
        self.sweep()?;
        Ok(self.progress.drain(..).collect())
    }

    fn sweep(&mut self) -> Result<(), Status> {
        (0..SWEEPS).try_for_each(|_| self.answers(false).map(drop))
    }

    /// Says that nothing more will be asked; whether the stream is open still, or has ended well.
    pub fn end(&mut self) -> Result<bool, Status> {
        self.duplex.finish()?;
        let deadline = Instant::now() + LISTEN;
        loop {
            match self.duplex.next::<WatchResponse>(deadline - Instant::now().min(deadline)) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(false),
                Err(status) if status.code == code::DEADLINE_EXCEEDED => return Ok(true),
                Err(status) => return Err(status),
            }
        }
    }

    /// The highest revision at which a watcher starts, and those who start beyond `most`.
    pub fn starts(&self, most: i64) -> (i64, Vec<i64>) {
        let beyond = |start: i64| start > most;
        let far = self.live.iter().filter(|(_, start)| beyond(**start)).map(|(id, _)| *id);
        let near = self.live.values().copied().filter(|start| !beyond(*start));
        (near.max().unwrap_or(0), far.collect())
    }

    /// Waits until all watchers have everything up to a revision at which all have started.
    pub fn settle(&mut self, revision: i64) -> Result<(), Status> {
        let deadline = Instant::now() + PATIENCE;
        while !self.live.is_empty() || !self.dead.is_empty() {
            if Instant::now() > deadline {
                let text = format!("no progress to {revision}, watchers {:?}", self.live);
                return Err(Status::new(code::DEADLINE_EXCEEDED, text));
            }
            self.duplex.send(&progress())?;
            let reached = self.reached(revision)?;
            let dead = std::mem::take(&mut self.dead);
            if reached && dead.is_empty() {
                return Ok(());
            }
            for id in dead {
                self.tell(&cancel(id))?;
                self.live.remove(&id);
            }
        }
        Ok(())
    }

    /// Listens for a while; whether the stream says that it is as far.
    fn reached(&mut self, revision: i64) -> Result<bool, Status> {
        let deadline = Instant::now() + PROGRESS_EVERY;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let response = match self.duplex.next::<WatchResponse>(left) {
                Ok(response) => response.ok_or_else(ended)?,
                Err(status) if status.code == code::DEADLINE_EXCEEDED => return Ok(false),
                Err(status) => return Err(status),
            };
            let there = is_progress(&response) && header_revision(&response) >= revision;
            self.take(response);
            if there {
                return Ok(true);
            }
        }
    }

    /// What the watchers heard since this was asked last.
    pub fn take_heard(&mut self) -> BTreeMap<i64, Vec<Delivered>> {
        std::mem::take(&mut self.heard)
    }

    /// Sends the impossible request, and hears all answers before its own. A request to create has
    /// exactly one that says so.
    fn answers(&mut self, creates: bool) -> Result<Vec<WatchResponse>, Status> {
        self.duplex.send(&impossible())?;
        let mut to_come = 1 + usize::from(creates);
        let mut answers = Vec::new();
        loop {
            let mut response = self.duplex.next::<WatchResponse>(PATIENCE)?.ok_or_else(ended)?;
            let is_answer =
                response.created || (response.canceled && response.compact_revision == 0);
            if !is_answer {
                self.take(response);
                continue;
            }
            to_come -= usize::from(response.created);
            if to_come == 0 {
                self.fresh = None;
                return Ok(answers);
            }
            self.fresh = response.created.then_some(response.watch_id);
            answer::header(&mut response.header);
            answers.push(response);
        }
    }

    /// Something that is no answer to a request.
    fn take(&mut self, mut response: WatchResponse) {
        if is_progress(&response) && !self.live.contains_key(&-1) {
            answer::header(&mut response.header);
            self.progress.push(response);
            return;
        }
        let WatchResponse { watch_id: id, compact_revision, canceled, .. } = response;
        let heard = self.heard.entry(id).or_default();
        if !self.live.contains_key(&id) && self.fresh != Some(id) {
            heard.push(Delivered::Wrong(format!("for nobody: {response:?}")));
        }
        if canceled {
            let reason = response.cancel_reason;
            heard.push(Delivered::Canceled { compact_revision, reason });
            self.dead.push(id);
            return;
        }
        let goes_on = match self.fragment.take() {
            Some(begun) if begun != id => {
                heard.push(Delivered::Wrong(format!("amid a response to watcher {begun}")));
                false
            }
            begun => begun.is_some(),
        };
        let header = header_revision(&response);
        for (at, event) in response.events.into_iter().enumerate() {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if header < revision {
                heard.push(Delivered::Wrong(format!("revision {revision} in one of {header}")));
            }
            match heard.last_mut() {
                Some(Delivered::Revision(last, events)) if *last == revision => {
                    events.push(event);
                    if at == 0 && !goes_on {
                        heard.push(Delivered::Wrong(format!("revision {revision} in two parts")));
                    }
                }
                _ => heard.push(Delivered::Revision(revision, vec![event])),
            }
        }
        self.fragment = response.fragment.then_some(id);
    }
}

fn ended() -> Status {
    Status::new(code::OK, "the stream ended well")
}

fn header_revision(response: &WatchResponse) -> i64 {
    response.header.map_or(0, |header| header.revision)
}

fn is_progress(response: &WatchResponse) -> bool {
    response.watch_id == -1 && response.events.is_empty() && !response.created && !response.canceled
}

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(union) }
}

fn progress() -> WatchRequest {
    request(RequestUnion::ProgressRequest(WatchProgressRequest {}))
}

/// The request that gives up a watcher.
pub fn cancel(watch_id: i64) -> WatchRequest {
    request(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
}

fn impossible() -> WatchRequest {
    let [key, range_end] = ["b", "a"].map(Into::into);
    request(RequestUnion::CreateRequest(WatchCreateRequest {
        key,
        range_end,
        ..Default::default()
    }))
}
