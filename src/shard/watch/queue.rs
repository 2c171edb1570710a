//! What waits for each client, in order, and how much of it there may be.
//!
//! Nothing here ever blocks: where a stream has no room its watchers fall behind, and the records
//! are their queue (see `history`).

use super::{StreamId, events::Response, slab::Slab};
use crate::{
    api::watch::{Kind, WatchId},
    limits::{
        WATCH_CONTROLS_MAX, WATCH_IDLE_MESSAGES_MAX, WATCH_SHARD_BYTES_MAX, WATCH_STREAM_BYTES_MAX,
        WATCH_STREAM_RESUME_BYTES,
    },
    types::Revision,
};
use bytes::Bytes;
use std::{collections::VecDeque, ops, time::Duration};

/// A message that waits for its client. Its head is written when it goes out.
pub(super) struct Queued {
    pub(super) id: WatchId,
    pub(super) kind: Kind,
    /// What the header says.
    pub(super) revision: Revision,
    pub(super) body: Bytes,
}

impl Queued {
    /// What it counts as: its events, and about what it takes itself with a head.
    fn bytes(&self) -> usize {
        self.body.len() + 2 * size_of::<Self>()
    }

    /// Whether it answers a request of the client's.
    fn is_control(&self) -> bool {
        matches!(self.kind, Kind::Created | Kind::Refused | Kind::Canceled)
    }
}

/// One client's stream of messages.
pub(super) struct Stream {
    queue: VecDeque<Queued>,
    bytes: usize,
    controls: usize,
    /// It is, or will be, given out by [`Streams::take_ready`].
    listed: bool,
    /// Watchers that wait for room here.
    pub(super) parked: usize,
    /// Watchers, canceled ones whose names are still taken among them.
    pub(super) named: usize,
    /// Watchers that are not canceled.
    pub(super) live: usize,
    /// Those of them to which something older than the newest revision may still be told, or that
    /// wait for a revision to come.
    pub(super) lagging: usize,
    /// The next name to try.
    pub(super) next_id: WatchId,
    /// When progress is told next; `None` while no watcher asked for it.
    pub(super) progress: Option<Duration>,
    /// Counts all streams that were ever opened here.
    pub(super) number: u64,
}

/// All streams of a shard.
pub(super) struct Streams {
    streams: Slab<Stream>,
    ready: VecDeque<u32>,
    bytes: usize,
    opened: u64,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self { streams: Slab::new(), ready: VecDeque::new(), bytes: 0, opened: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn open(&mut self) -> StreamId {
        self.opened += 1;
        StreamId(self.streams.insert(Stream {
            queue: VecDeque::new(),
            bytes: 0,
            controls: 0,
            listed: false,
            parked: 0,
            named: 0,
            live: 0,
            lagging: 0,
            next_id: WatchId(0),
            progress: None,
            number: self.opened,
        }))
    }

    pub(super) fn close(&mut self, at: u32) {
        self.bytes -= self.streams.remove(at).bytes;
    }

    /// Whether events may be put into the queue: then any number of one response.
    pub(super) fn has_room(&self, at: u32) -> bool {
        let stream = &self.streams[at];
        let shared = self.bytes < WATCH_SHARD_BYTES_MAX || stream.queue.is_empty();
        stream.bytes < WATCH_STREAM_BYTES_MAX && shared
    }

    /// Whether watchers that found no room should try again.
    pub(super) fn may_resume(&self, at: u32) -> bool {
        self.has_room(at) && self.streams[at].bytes < WATCH_STREAM_RESUME_BYTES
    }

    /// Whether the client may ask for more.
    pub(super) fn can_take(&self, at: u32) -> bool {
        self.streams[at].controls < WATCH_CONTROLS_MAX
    }

    pub(super) fn push(&mut self, at: u32, message: Queued) {
        let stream = &mut self.streams[at];
        stream.bytes += message.bytes();
        self.bytes += message.bytes();
        stream.controls += usize::from(message.is_control());
        stream.queue.push_back(message);
        if !stream.listed {
            stream.listed = true;
            self.ready.push_back(at);
        }
    }

    /// All of `response` for watcher `id`, or nothing of it where there is no room.
    pub(super) fn offer(
        &mut self,
        at: u32,
        id: WatchId,
        revision: Revision,
        response: &Response,
    ) -> bool {
        if !self.has_room(at) {
            return false;
        }
        for body in &response.fragments {
            self.push(at, Queued { id, kind: Kind::Fragment, revision, body: body.clone() });
        }
        self.push(at, Queued { id, kind: Kind::Events, revision, body: response.body.clone() });
        true
    }

    pub(super) fn pop(&mut self, at: u32) -> Option<Queued> {
        let stream = &mut self.streams[at];
        let Some(message) = stream.queue.pop_front() else {
            stream.listed = false;
            return None;
        };
        stream.bytes -= message.bytes();
        self.bytes -= message.bytes();
        stream.controls -= usize::from(message.is_control());
        if stream.queue.is_empty() && stream.queue.capacity() > WATCH_IDLE_MESSAGES_MAX {
            stream.queue = VecDeque::new();
        }
        Some(message)
    }

    /// A stream whose queue was found empty before and now is not.
    pub(super) fn take_ready(&mut self) -> Option<StreamId> {
        loop {
            let at = self.ready.pop_front()?;
            // It may have been closed meanwhile, and its number given to another one.
            let waits = |stream: &Stream| stream.listed && !stream.queue.is_empty();
            if self.streams.get(at).is_some_and(waits) {
                return Some(StreamId(at));
            }
        }
    }

    /// Bytes that wait for all clients.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl ops::Index<u32> for Streams {
    type Output = Stream;

    fn index(&self, at: u32) -> &Stream {
        &self.streams[at]
    }
}

impl ops::IndexMut<u32> for Streams {
    fn index_mut(&mut self, at: u32) -> &mut Stream {
        &mut self.streams[at]
    }
}
