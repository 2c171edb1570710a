//! One connection, shared by the task that owns its socket and everybody on its core who owes it an
//! answer; and all connections of a core, for the day they have to be told that it goes down.

use super::{
    End,
    call::Call,
    connection::{CROWDED, Connection, Intake, Opened, Request},
    frame::Goaway,
    respond::Responder,
    send::Progress,
};
use crate::{
    io::Clock,
    limits::{
        HTTP2_BODY_CHUNK_BYTES, HTTP2_IDLE_BUFFER_BYTES_MAX, HTTP2_MOVED_PER_POLL_BYTES_MAX,
        HTTP2_READ_BYTES, REQUESTS_PER_POLL_MAX,
    },
    shard::{Shard, stream::Stream},
};
use bytes::BytesMut;
use futures_lite::ready;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    io, mem,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// What a core's connections use one after another while each has its turn.
struct Desk {
    read: Box<[u8]>,
    requests: Vec<Request>,
    calls: Vec<Opened>,
    bodies: BytesMut,
}

thread_local! {
    /// One for each core.
    static DESK: Cell<Option<Desk>> = const { Cell::new(None) };
}

impl Desk {
    fn take() -> Self {
        DESK.take().unwrap_or_else(|| Self {
            read: vec![0; HTTP2_READ_BYTES].into(),
            requests: Vec::new(),
            calls: Vec::new(),
            bodies: BytesMut::with_capacity(HTTP2_BODY_CHUNK_BYTES),
        })
    }

    fn give_back(self) {
        DESK.set(Some(self));
    }
}

/// Who waits for something to happen to a stream.
#[derive(Default)]
struct Waiter {
    /// Something has happened since it was last told.
    stirred: bool,
    waker: Option<Waker>,
}

/// What a connection has had of its turn.
#[derive(Default)]
struct Share {
    requests: usize,
    /// Read and sent.
    bytes: usize,
}

impl Share {
    fn is_used_up(&self) -> bool {
        self.requests >= REQUESTS_PER_POLL_MAX || self.bytes >= HTTP2_MOVED_PER_POLL_BYTES_MAX
    }
}

/// See the module. All who share it live on one core.
pub struct Link {
    connection: RefCell<Connection>,
    /// Why it ends, once the client has broken a rule.
    broken: Cell<Option<Goaway>>,
    /// The socket's task.
    task: RefCell<Option<Waker>>,
    /// The socket's task will look at what is to be sent without being woken.
    awake: Cell<bool>,
    waiting: RefCell<BTreeMap<u32, Waiter>>,
}

impl Link {
    /// Shares a connection.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection: RefCell::new(connection),
            broken: Cell::new(None),
            task: RefCell::new(None),
            awake: Cell::new(true),
            waiting: RefCell::default(),
        }
    }

    /// One turn of the socket's task.
    pub(super) fn poll(
        self: &Rc<Self>,
        stream: &mut Stream,
        shard: &Rc<Shard>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<End>> {
        self.awake.set(true);
        let mut desk = Desk::take();
        let polled = self.poll_with(&mut desk, stream, shard, cx);
        desk.requests.clear();
        desk.calls.clear();
        desk.give_back();
        if polled.is_pending() {
            let mut task = self.task.borrow_mut();
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
            self.awake.set(false);
        }
        polled
    }

    /// Sends and reads in turn until the socket has nothing more, or others should have the core.
    fn poll_with(
        self: &Rc<Self>,
        desk: &mut Desk,
        stream: &mut Stream,
        shard: &Rc<Shard>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<End>> {
        let mut share = Share::default();
        loop {
            let blocked = match self.poll_send(&mut share, stream, cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => false,
                Poll::Pending => true,
            };
            if self.connection.borrow().is_over() {
                return Poll::Ready(Ok(self.broken.get().map_or(End::Left, End::Broken)));
            }
            if share.is_used_up() {
                // A client that sends or reads without end shares its core with the others.
                shard.flush();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let may_read = self.broken.get().is_none() && !self.connection.borrow().is_full();
            let read = match may_read {
                true => stream.poll_read(cx, &mut desk.read),
                false => Poll::Pending, // the socket wakes us when it takes more
            };
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(End::Gone)),
                Poll::Ready(Ok(read)) => {
                    self.receive(read, desk, shard);
                    share.bytes += read;
                    share.requests += desk.requests.len() + desk.calls.len();
                    self.hand_over(desk, shard);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    shard.flush();
                    let mut connection = self.connection.borrow_mut();
                    // A flush may have answered some at once.
                    if blocked || connection.out().is_empty() {
                        connection.rest(HTTP2_IDLE_BUFFER_BYTES_MAX);
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Sends until there is nothing more, or the socket takes no more for now, or this connection
    /// has had its share.
    fn poll_send(
        &self,
        share: &mut Share,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut connection = self.connection.borrow_mut();
        while !connection.out().is_empty() && !share.is_used_up() {
            match ready!(stream.poll_write(cx, connection.out())) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(now) => {
                    connection.sent(now);
                    share.bytes += now;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        drop(connection);
        self.wake_stirred();
        Poll::Ready(Ok(()))
    }

    fn receive(&self, read: usize, desk: &mut Desk, shard: &Shard) {
        let Desk { read: buffer, requests, calls, bodies } = desk;
        let mut intake = Intake {
            now: shard.clock.now(),
            requests,
            calls,
            bodies,
            admit: &mut || shard.admit_unfinished(),
        };
        self.take_in(&buffer[..read], &mut intake);
    }

    /// Hears what was read.
    pub(super) fn take_in(&self, bytes: &[u8], intake: &mut Intake<'_>) {
        let received = self.connection.borrow_mut().receive(bytes, intake);
        if let Err(goaway) = received {
            self.broken.set(Some(goaway));
            // Nobody would hear the answers.
            intake.requests.clear();
            intake.calls.clear();
        }
        self.wake_stirred();
    }

    fn hand_over(self: &Rc<Self>, desk: &mut Desk, shard: &Rc<Shard>) {
        if !desk.requests.is_empty() || !desk.calls.is_empty() {
            shard.refresh();
        }
        for Request { stream, path, metadata, body } in desk.requests.drain(..) {
            shard.on_body(&path, metadata, body, Responder::new(self.clone(), stream));
        }
        for Opened { stream, path, metadata } in desk.calls.drain(..) {
            match shard.admit_call() {
                Some(place) => {
                    shard.on_call(&path, metadata, Call::new(self.clone(), stream, place));
                }
                None => self.say(|connection| connection.refuse(stream, &CROWDED)),
            }
        }
    }

    /// Tells those who wait for streams to which something has happened.
    fn wake_stirred(&self) {
        loop {
            let Some(stream) = self.connection.borrow_mut().next_stirred() else { return };
            let waker = self.waiting.borrow_mut().get_mut(&stream).and_then(|waiter| {
                waiter.stirred = true;
                waiter.waker.take()
            });
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Does something that may leave bytes to be sent, and sees to it that they are.
    pub(super) fn say<T>(&self, what: impl FnOnce(&mut Connection) -> T) -> T {
        let mut connection = self.connection.borrow_mut();
        let said = what(&mut connection);
        let has_more = !connection.out().is_empty();
        drop(connection);
        if has_more && !self.awake.replace(true) {
            let task = self.task.borrow();
            task.as_ref().expect("a task that sleeps has left its waker").wake_by_ref();
        }
        said
    }

    /// How a streamed answer stands.
    pub(super) fn progress(&self, stream: u32) -> Progress {
        self.connection.borrow().progress(stream)
    }

    /// Somebody cares from now on for what happens to a stream, until [`Self::ignore`].
    pub(super) fn heed(&self, stream: u32) {
        self.connection.borrow_mut().heed(stream);
        self.waiting.borrow_mut().insert(stream, Waiter { stirred: true, waker: None });
    }

    /// Nobody cares any more.
    pub(super) fn ignore(&self, stream: u32) {
        self.waiting.borrow_mut().remove(&stream);
    }

    /// Ready once something has happened to a heeded stream since this was last ready, and always
    /// when there is nobody to answer.
    pub(super) fn poll_stirred(&self, stream: u32, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting.borrow_mut();
        let waiter = waiting.get_mut(&stream).expect("whoever waits has heeded the stream");
        if mem::take(&mut waiter.stirred) || self.progress(stream) == Progress::Gone {
            return Poll::Ready(());
        }
        if !waiter.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiter.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until `ready` says so, looking again whenever something has happened to the stream,
    /// which is heeded.
    pub(super) async fn wait<T>(&self, stream: u32, ready: impl Fn(Progress) -> Option<T>) -> T {
        loop {
            if let Some(ready) = ready(self.progress(stream)) {
                return ready;
            }
            poll_fn(|cx| self.poll_stirred(stream, cx)).await;
        }
    }

    /// Says that the server goes down, and ends what would never end by itself.
    fn leave(&self) {
        self.say(Connection::leave);
        self.wake_stirred();
    }

    /// The socket is gone: whoever waits hears of it, and answers go nowhere.
    pub(super) fn close(&self) {
        self.awake.set(true);
        *self.task.borrow_mut() = None;
        self.connection.borrow_mut().close();
        self.wake_stirred();
    }
}

/// The connections of a core.
#[derive(Default)]
pub struct Links {
    open: RefCell<BTreeMap<u64, Rc<Link>>>,
    entered: Cell<u64>,
    leaving: Cell<bool>,
}

impl Links {
    /// One more is open. Returns its number.
    pub(super) fn enter(&self, link: &Rc<Link>) -> u64 {
        let number = self.entered.get();
        self.entered.set(number + 1);
        self.open.borrow_mut().insert(number, link.clone());
        if self.leaving.get() {
            link.leave();
        }
        number
    }

    /// It is open no more.
    pub(super) fn exit(&self, number: u64) {
        self.open.borrow_mut().remove(&number);
    }

    /// Tells each that the server goes down.
    pub fn leave(&self) {
        self.leaving.set(true);
        let open: Vec<_> = self.open.borrow().values().cloned().collect();
        open.iter().for_each(|link| link.leave());
    }

    /// Whether nothing is on its way to any client.
    pub fn are_quiet(&self) -> bool {
        self.open.borrow().values().all(|link| link.connection.borrow().is_quiet())
    }
}
