//! Watch streams: clients on one side, the shard's [`Watches`] on the other.
//!
//! Each stream has a task that takes requests while its answers find room; events do not go through
//! it. They are matched once for the whole shard when the node has published something, and then
//! written to every client that has room, here and now.
//!
//! ```text
//!  publish ─▶ on_news ─ Watches::advance ─┬▶ flush ─▶ Call::send      clients
//!                     └ catch_up, a piece ┘        └▶ Promise         the server's own
//!  request ─▶ serve_watch ─ Watches::on_request ─▶ flush
//! ```

use super::{
    Shard,
    http2::{Call, Inbound, Progress},
    watch::StreamId,
};
use crate::{
    api::{
        Method,
        status::{Code, Status},
        watch,
    },
    io::Clock,
    net::Promise,
};
use bytes::Bytes;
use futures_lite::future;
use proto::etcdserverpb as pb;
use std::{rc::Rc, task::Waker, time::Duration};

/// Who reads a watch stream.
pub(super) enum Reader {
    /// A client.
    Client(Rc<Call>),
    /// A task of the server's own; told when something lies in its queue.
    Inside(Rc<Promise<()>>),
}

impl Shard {
    /// One `Watch` call, until the client ends it or breaks its rules. A client that has ended its
    /// own side goes on listening, as in etcd.
    pub(super) async fn serve_watch(self: Rc<Self>, call: Rc<Call>) {
        call.open();
        let status = match self.open_watch(Reader::Client(call.clone())) {
            Ok(stream) => {
                let broken = self.take_requests(stream, &call).await;
                self.close_watch(stream);
                broken
            }
            Err(status) => Some(status),
        };
        // A client that takes its call back has canceled it.
        let code = status.as_ref().map_or(Code::Canceled as u8, |status| status.code);
        self.meters().handled(Method::Watch, code, 0);
        if status.is_some() {
            call.finish(status.as_ref());
        }
    }

    /// Takes requests while their answers find room. Returns once the client is gone, or with what it
    /// did wrong.
    async fn take_requests(&self, stream: StreamId, call: &Call) -> Option<Status> {
        loop {
            let more = match self.take_some(stream, call) {
                Ok(more) => more,
                Err(status) => return Some(status),
            };
            self.flush_watch(stream);
            self.flush_ready();
            self.wake_behind();
            if call.progress() == Progress::Gone {
                return None;
            }
            match more && self.watches.borrow().can_take(stream) {
                true => future::yield_now().await,
                false => call.stirred().await,
            }
        }
    }

    /// Whether there may be more to take once answers have gone out.
    fn take_some(&self, stream: StreamId, call: &Call) -> Result<bool, Status> {
        while self.watches.borrow().can_take(stream) {
            match call.take() {
                Inbound::Message(message) => {
                    self.meters().received(message.len());
                    self.ask_watch(stream, watch::decode(message)?);
                }
                Inbound::Broken(status) => return Err(status),
                Inbound::Nothing | Inbound::Ended => return Ok(false),
            }
        }
        Ok(true)
    }

    fn open_watch(&self, reader: Reader) -> Result<StreamId, Status> {
        let stream = self.watches.borrow_mut().open().ok_or(watch::TOO_MANY_STREAMS)?;
        self.readers.borrow_mut().insert(stream, reader);
        Ok(stream)
    }

    /// Ends a stream and all its watchers.
    pub(super) fn close_watch(&self, stream: StreamId) {
        self.readers.borrow_mut().remove(&stream);
        let mut watches = self.watches.borrow_mut();
        watches.close(stream);
        self.interest.set(watches.is_watching());
    }

    /// A watch of the server's own, with one watcher.
    pub(super) fn watch_inside(
        &self,
        create: pb::WatchCreateRequest,
        changed: Rc<Promise<()>>,
    ) -> Result<StreamId, Status> {
        let stream = self.open_watch(Reader::Inside(changed))?;
        self.ask_watch(stream, watch::decode_create(create));
        self.flush_ready();
        self.wake_behind();
        Ok(stream)
    }

    /// The oldest message of a stream of the server's own, framed.
    pub(super) fn watch_message(&self, stream: StreamId) -> Option<Bytes> {
        let message = self.watches.borrow_mut().next(stream)?;
        Some([&message.head[..], &message.body[..]].concat().into())
    }

    fn ask_watch(&self, stream: StreamId, ask: watch::Ask) {
        let mut watches = self.watches.borrow_mut();
        // From here on the node wakes this shard when it publishes; and what it has published
        // before is seen now.
        self.interest.set(true);
        self.refresh();
        let view = self.view.borrow();
        watches.advance(&view);
        watches.on_request(stream, ask, &view, self.clock.now());
        self.interest.set(watches.is_watching());
    }

    /// The node may have published something: events go out to all who have room, and somebody who
    /// is behind is told a piece of the history.
    pub(super) fn on_news(&self) {
        {
            let (mut watches, view) = (self.watches.borrow_mut(), self.view.borrow());
            watches.advance(&view);
            watches.catch_up(&view);
        }
        self.flush_ready();
    }

    /// Time has passed: progress is told to those who want it.
    pub(super) fn on_watch_time(&self, now: Duration) {
        let mut watches = self.watches.borrow_mut();
        watches.advance(&self.view.borrow());
        watches.on_time(now);
        let (streams, watchers) = (watches.streams(), watches.watchers());
        self.meters().watching(streams, watchers, watches.watchers_behind());
        drop(watches);
        self.flush_ready();
    }

    /// Somebody is behind: the shard's own task reads history, a piece at a time.
    fn wake_behind(&self) {
        if self.watches.borrow().is_behind() {
            let task = self.task.take();
            task.into_iter().for_each(Waker::wake);
        }
    }

    /// Sends what has come about on any stream.
    pub(super) fn flush_ready(&self) {
        loop {
            let Some(stream) = self.watches.borrow_mut().take_ready() else { return };
            self.flush_watch(stream);
        }
    }

    /// Sends what lies in a stream's queue, as far as its reader has room.
    fn flush_watch(&self, stream: StreamId) {
        let readers = self.readers.borrow();
        let call = match readers.get(&stream) {
            Some(Reader::Client(call)) => call,
            Some(Reader::Inside(changed)) => return changed.set(()),
            None => return,
        };
        while call.progress() == Progress::Clear {
            let Some(message) = self.watches.borrow_mut().next(stream) else { return };
            self.meters().sent(message.head.len() + message.body.len());
            call.send(&message.head, &message.body);
        }
    }
}
