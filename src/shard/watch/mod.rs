//! Who watches what, and what they are told: all watch streams of one shard.
//!
//! The published views hold every change, so nothing is sent from the node but a wake-up. The shard
//! looks at what is new in the newest view, once for all who watch:
//!
//! ```text
//!              ┌ advance: new revisions ┐        ┌────────── group: same keys, same wish
//!  View ───────┤                        ├─ index ┤ events gathered once, one body
//!              └ catch_up: old ones ────┘        └─ watcher, watcher … ─▶ queues ─▶ next()
//!
//!                 start > newest                    told everything
//!      create ───────────────────▶ waiting ─────────▶ synced ◀───────────┐
//!         └────────────────────▶ behind ◀─┐              │ no room       │ caught up
//!             start ≤ newest       │      └── parked ◀───┘               │
//!                                  │   room again ▲  no room             │
//!                                  └──────────────┴──────────────────────┘
//! ```
//!
//! A client that does not read costs its queue and no more: its watchers fall behind, and are told
//! from the records once there is room. Nobody else waits for it.
//!
//! [`Watches`] decides without waiting: views, requests and the time go in, messages come out. The
//! order of calls, on every turn of the shard: [`Watches::advance`] with the newest view, then
//! whatever else with the same view. After any of them [`Watches::take_ready`] says who has
//! something to read.
//!
//! A watcher holds 310 bytes where each watches another key of 16 bytes, 111 where all watch the
//! same: what 100,000 of them on one stream ask of the allocator and do not give back, measured by
//! `a_watcher_costs_some_hundred_bytes` in `tests/fuzz/watch.rs`, which fails above 512 and 192.

mod events;
mod group;
mod history;
mod index;
mod live;
mod progress;
mod queue;
mod slab;
#[cfg(test)]
mod tests;

use crate::{
    api::{
        Header,
        watch::{self, Ask, Create, Head, Kind, WatchId},
    },
    limits::{WATCH_STREAMS_PER_SHARD_MAX, WATCHERS_PER_SHARD_MAX, WATCHERS_PER_STREAM_MAX},
    store::View,
    types::{ClusterId, MemberId, Revision},
};
use bytes::Bytes;
use group::Groups;
use index::Span;
use queue::{Queued, Streams};
use slab::Slab;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What is the same for all watchers.
#[derive(Clone, Copy, Debug)]
pub struct WatchSetup {
    /// This member's cluster.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// Bytes at which a response comes in parts for those who take it so (etcd:
    /// `--max-request-bytes` + 512 KiB).
    pub fragment_bytes: usize,
    /// `--watch-progress-notify-interval`.
    pub progress_interval: Duration,
}

/// A stream's number; used again once it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u32);

/// One gRPC message in two parts; the prefix is in the first.
pub struct Message {
    /// The watcher's own part.
    pub head: Head,
    /// The events, which others may share.
    pub body: Bytes,
}

/// See the head of this file.
pub struct Watches {
    setup: WatchSetup,
    header: Header,
    /// Synced watchers have been told everything up to here.
    seen: Revision,
    streams: Streams,
    watchers: Slab<Watcher>,
    /// By stream and name. A name stays taken after its watcher was canceled for compaction, until
    /// the client cancels it too (etcd).
    names: BTreeMap<(u32, WatchId), Option<u32>>,
    groups: Groups,
    synced: usize,
    /// By the revision that they start with.
    waiting: BTreeSet<(Revision, u32)>,
    history: history::History,
    live: live::Gathering,
    /// Streams by the time when progress is told.
    due: BTreeSet<(Duration, u32)>,
}

struct Watcher {
    stream: u32,
    group: u32,
    id: WatchId,
    place: Place,
    /// Where it is not synced: the first revision that it has not been told of.
    next: Revision,
    progress_notify: bool,
    /// Nothing was told since progress was last due.
    silent: bool,
}

/// Where a watcher stands.
#[derive(Clone, Copy)]
enum Place {
    /// Among its group's members, at this position.
    Synced(u32),
    /// It starts with a revision that is not there yet.
    Waiting,
    /// It is to be told from the history.
    Behind,
    /// The same, once its stream has room.
    Parked,
}

impl Watches {
    /// Nobody watches yet.
    pub fn new(setup: WatchSetup) -> Self {
        let WatchSetup { cluster, member, .. } = setup;
        Self {
            setup,
            header: Header { cluster, member, ..Header::default() },
            seen: Revision(0),
            streams: Streams::new(),
            watchers: Slab::new(),
            names: BTreeMap::new(),
            groups: Groups::new(),
            synced: 0,
            waiting: BTreeSet::new(),
            history: history::History::default(),
            live: live::Gathering::default(),
            due: BTreeSet::new(),
        }
    }

    /// One more stream; `None` past [`WATCH_STREAMS_PER_SHARD_MAX`], which the client is told as
    /// [`watch::TOO_MANY_STREAMS`].
    pub fn open(&mut self) -> Option<StreamId> {
        (self.streams.len() < WATCH_STREAMS_PER_SHARD_MAX).then(|| self.streams.open())
    }

    /// The stream is gone, with its watchers and with what waited for it.
    pub fn close(&mut self, stream: StreamId) {
        let at = stream.0;
        let names = self.names_of(at);
        for (id, watcher) in names {
            self.names.remove(&(at, id));
            if let Some(watcher) = watcher {
                self.end(watcher);
            }
        }
        if let Some(due) = self.streams[at].progress {
            self.due.remove(&(due, at));
        }
        self.streams.close(at);
    }

    fn names_of(&self, stream: u32) -> Vec<(WatchId, Option<u32>)> {
        let all = (stream, WatchId(i64::MIN))..=(stream, WatchId(i64::MAX));
        self.names.range(all).map(|((_, id), watcher)| (*id, *watcher)).collect()
    }

    /// Whether anybody cares for a new revision.
    pub fn is_watching(&self) -> bool {
        self.watchers.len() > 0
    }

    /// Watchers that are not canceled.
    pub fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Those of them that are told from the history (etcd's slow watchers).
    pub fn watchers_behind(&self) -> usize {
        self.watchers.len() - self.synced - self.waiting.len()
    }

    /// Bytes of messages that wait for clients.
    pub fn waiting_bytes(&self) -> usize {
        self.streams.bytes()
    }

    /// Open streams.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether requests should be taken from the client: few answers to them wait for it.
    pub fn can_take(&self, stream: StreamId) -> bool {
        self.streams.can_take(stream.0)
    }

    /// A stream that has something to send. It comes again after [`Watches::next`] has said `None`
    /// for it and there is more.
    pub fn take_ready(&mut self) -> Option<StreamId> {
        self.streams.take_ready()
    }

    /// The oldest message that waits for the client. Whoever takes it calls [`Watches::catch_up`]
    /// soon, if [`Watches::is_behind`] says so: there may be room for more.
    pub fn next(&mut self, stream: StreamId) -> Option<Message> {
        let Queued { id, kind, revision, body } = self.streams.pop(stream.0)?;
        self.resume(stream.0);
        let head = Head::new(self.header.at(revision), id, kind, body.len());
        Some(Message { head, body })
    }

    /// Does what the client asks. `view` is the one that [`Watches::advance`] saw last.
    pub fn on_request(&mut self, stream: StreamId, ask: Ask, view: &View, now: Duration) {
        assert_eq!(view.revision, self.seen, "requests are answered from the view seen last");
        match ask {
            Ask::Create(create) => match self.create(stream.0, &create, now) {
                Ok(id) => self.answer(stream.0, id, Kind::Created, Bytes::new()),
                Err(why) => self.refuse(stream.0, why),
            },
            Ask::Refused(why) => self.refuse(stream.0, why),
            Ask::Cancel(id) => self.cancel(stream.0, id),
            Ask::Progress => self.tell_all_progress(stream.0),
            Ask::Nothing => {}
        }
    }

    fn answer(&mut self, stream: u32, id: WatchId, kind: Kind, body: Bytes) {
        self.streams.push(stream, Queued { id, kind, revision: self.seen, body });
    }

    fn refuse(&mut self, stream: u32, why: &str) {
        self.answer(stream, WatchId::NONE, Kind::Refused, watch::reason(why));
    }

    fn create(&mut self, at: u32, ask: &Create, now: Duration) -> Result<WatchId, &'static str> {
        let id = self.name(at, ask.id)?;
        let many = self.streams[at].named >= WATCHERS_PER_STREAM_MAX;
        if many || self.watchers.len() >= WATCHERS_PER_SHARD_MAX {
            return Err(watch::TOO_MANY_WATCHERS);
        }
        let group = self.groups.enroll(Span::new(&ask.key, &ask.until), ask.wish);
        let next = ask.start.unwrap_or(Revision(self.seen.0 + 1));
        let watcher = self.watchers.insert(Watcher {
            stream: at,
            group,
            id,
            place: Place::Waiting,
            next,
            progress_notify: ask.progress_notify,
            silent: true,
        });
        self.names.insert((at, id), Some(watcher));
        let stream = &mut self.streams[at];
        stream.named += 1;
        stream.live += 1;
        stream.lagging += 1;
        match ask.start {
            None => self.join(watcher),
            Some(start) if start > self.seen => self.wait(watcher),
            Some(_) => self.fall_behind(watcher),
        }
        if ask.progress_notify {
            self.expect_progress(at, now);
        }
        Ok(id)
    }

    /// The name for a new watcher: the client's choice, or the next one from 0 that is free. A
    /// chosen one does not move those that come (etcd).
    fn name(&mut self, at: u32, chosen: Option<WatchId>) -> Result<WatchId, &'static str> {
        if let Some(id) = chosen {
            let taken = self.names.contains_key(&(at, id));
            return if taken { Err(watch::DUPLICATE_ID) } else { Ok(id) };
        }
        let next_id = &mut self.streams[at].next_id;
        while self.names.contains_key(&(at, *next_id)) {
            next_id.0 += 1;
        }
        let id = *next_id;
        next_id.0 += 1;
        Ok(id)
    }

    /// A name that nobody has is passed over in silence (etcd).
    fn cancel(&mut self, at: u32, id: WatchId) {
        let Some(watcher) = self.names.remove(&(at, id)) else { return };
        if let Some(watcher) = watcher {
            self.end(watcher);
        }
        self.streams[at].named -= 1;
        self.answer(at, id, Kind::Canceled, Bytes::new());
    }

    /// The watcher is no more; its name may stay.
    fn end(&mut self, at: u32) {
        self.leave(at);
        let Watcher { stream, group, .. } = self.watchers.remove(at);
        self.streams[stream].live -= 1;
        self.streams[stream].lagging -= 1;
        self.groups.discharge(group);
    }

    // ── where watchers stand ────────────────────────────────────────────────────────────────────

    /// Takes the watcher from where it stands; it goes elsewhere or ends.
    fn leave(&mut self, at: u32) {
        let Watcher { stream, group, place, next, .. } = self.watchers[at];
        match place {
            Place::Synced(position) => {
                let members = &mut self.groups[group].members;
                members.swap_remove(position as usize);
                if let Some(moved) = members.get(position as usize) {
                    self.watchers[*moved].place = place;
                }
                self.synced -= 1;
                self.streams[stream].lagging += 1;
            }
            Place::Waiting => {
                self.waiting.remove(&(next, at));
            }
            Place::Behind => self.history.remove(next, at),
            Place::Parked => {
                self.history.unpark(stream, at);
                self.streams[stream].parked -= 1;
            }
        }
    }

    /// From nowhere to the group's members: told everything so far.
    fn join(&mut self, at: u32) {
        let watcher = &mut self.watchers[at];
        let members = &mut self.groups[watcher.group].members;
        let position = u32::try_from(members.len()).expect("limits.rs keeps counts below u32::MAX");
        members.push(at);
        watcher.place = Place::Synced(position);
        self.synced += 1;
        self.streams[watcher.stream].lagging -= 1;
    }

    /// From nowhere to those that start later.
    fn wait(&mut self, at: u32) {
        let watcher = &mut self.watchers[at];
        watcher.place = Place::Waiting;
        self.waiting.insert((watcher.next, at));
    }

    /// From nowhere to those that are told from the history.
    fn fall_behind(&mut self, at: u32) {
        let watcher = &mut self.watchers[at];
        watcher.place = Place::Behind;
        self.history.insert(watcher.next, at);
    }

    /// From wherever to those that wait for room, with `next` still to be told.
    fn park(&mut self, at: u32, next: Revision) {
        self.leave(at);
        let watcher = &mut self.watchers[at];
        (watcher.place, watcher.next) = (Place::Parked, next);
        self.history.park(watcher.stream, at);
        self.streams[watcher.stream].parked += 1;
    }

    /// The stream gave up a message: those that wait for room may go on.
    fn resume(&mut self, stream: u32) {
        if self.streams[stream].parked == 0 || !self.streams.may_resume(stream) {
            return;
        }
        while let Some(at) = self.history.first_parked(stream) {
            self.leave(at);
            self.fall_behind(at);
        }
    }
}
