//! HTTP/2 on one socket: what it reads goes into a [`Connection`], requests go to the shard, and
//! what the connection says leaves in one send a turn.
//!
//! A request costs no task: it is handed over on the spot, and its [`Responder`] answers from
//! wherever on this core the answer comes about. Answers gather until the socket's task runs next.
//!
//! ```text
//!                 ┌─────────────── this task ───────────────┐
//!  socket ─ read ─► Connection::receive ─► Shard::on_body ──┼─► …
//!         ◄ send ─┤ Connection::out     ◄─────────────────── ┼── Responder, any time later
//!                 └─────────────────────────────────────────┘
//! ```

pub mod connection;
pub mod frame;
mod head;
mod hpack;
pub(super) mod huffman;
mod pings;
mod reply;
mod send;
mod streams;
#[cfg(test)]
mod tests;

pub use head::Metadata;

use super::{Shard, stream::Stream};
use crate::{
    api::status::Status,
    io::Clock,
    limits::{
        HTTP2_BODY_CHUNK_BYTES, HTTP2_IDLE_BUFFER_BYTES_MAX, HTTP2_LINGER_BYTES_MAX,
        HTTP2_LINGER_WAIT, HTTP2_READ_BYTES, HTTP2_SENT_PER_POLL_BYTES_MAX, REQUESTS_PER_POLL_MAX,
    },
};
use bytes::{Bytes, BytesMut};
use connection::{Connection, Intake, Request, Rules};
use frame::Goaway;
use futures_lite::ready;
use send::Progress;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Serves one connection until either side ends it.
///
/// # Errors
/// A sentence for the log: what the client did that HTTP/2 forbids, or why the socket broke.
pub async fn serve(mut stream: Stream, shard: Rc<Shard>) -> Result<(), String> {
    let limits = shard.limits();
    let link = Rc::new(Link::new(Connection::new(Rules {
        concurrent_streams_max: limits.concurrent_streams_max,
        message_bytes_max: limits.message_bytes_max,
    })));
    let served = poll_fn(|cx| link.poll(&mut stream, &shard, cx)).await;
    link.close();
    match served {
        Ok(End::Gone) => Ok(()),
        Ok(End::Left) => linger(stream).await,
        Ok(End::Broken(goaway)) => {
            linger(stream).await?;
            Err(format!("HTTP/2: {goaway}"))
        }
        Err(error) => Err(format!("HTTP/2: {error}")),
    }
}

/// How a connection ended, once all that was to be said is sent.
enum End {
    /// The client closed it.
    Gone,
    /// We said that we leave, and everything is answered.
    Left,
    /// The client broke a rule.
    Broken(Goaway),
}

/// Closes our side and waits a moment for the client's: closing the socket while bytes of the
/// client lie unread would reset it, and the client might never read the GOAWAY.
async fn linger(mut stream: Stream) -> Result<(), String> {
    let mut unread = vec![0; HTTP2_READ_BYTES];
    let mut left = HTTP2_LINGER_BYTES_MAX;
    let ended = async {
        poll_fn(|cx| stream.poll_close(cx)).await?;
        stream.set_read_timeout(HTTP2_LINGER_WAIT)?;
        while left > 0 {
            match poll_fn(|cx| stream.poll_read(cx, &mut unread)).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<(), io::Error>(())
    };
    // The socket closes in any case; why it did so sooner is nobody's concern.
    let _reason = ended.await.is_err();
    Ok(())
}

/// What a core's connections use one after another while each has its turn.
struct Desk {
    read: Box<[u8]>,
    requests: Vec<Request>,
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
            bodies: BytesMut::with_capacity(HTTP2_BODY_CHUNK_BYTES),
        })
    }

    fn give_back(self) {
        DESK.set(Some(self));
    }
}

/// One connection, shared by the task that owns its socket and everybody who owes it an answer. All
/// of them live on one core.
struct Link {
    connection: RefCell<Connection>,
    /// Why it ends, once the client has broken a rule.
    broken: Cell<Option<Goaway>>,
    /// The socket's task.
    task: RefCell<Option<Waker>>,
    /// The socket's task will look at what is to be sent without being woken.
    awake: Cell<bool>,
    /// Who waits for something to happen to a stream.
    waiting: RefCell<BTreeMap<u32, Waker>>,
}

impl Link {
    fn new(connection: Connection) -> Self {
        Self {
            connection: RefCell::new(connection),
            broken: Cell::new(None),
            task: RefCell::new(None),
            awake: Cell::new(true),
            waiting: RefCell::default(),
        }
    }

    /// One turn of the socket's task.
    fn poll(
        self: &Rc<Self>,
        stream: &mut Stream,
        shard: &Rc<Shard>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<End>> {
        self.awake.set(true);
        let mut desk = Desk::take();
        let polled = self.poll_with(&mut desk, stream, shard, cx);
        desk.requests.clear();
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
        let (mut taken, mut sent) = (0, 0);
        loop {
            if shard.stopping.get() {
                self.connection.borrow_mut().leave();
            }
            let blocked = match self.poll_send(&mut sent, stream, cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => false,
                Poll::Pending => true,
            };
            if self.connection.borrow().is_over() {
                return Poll::Ready(Ok(self.broken.get().map_or(End::Left, End::Broken)));
            }
            if taken >= REQUESTS_PER_POLL_MAX || sent >= HTTP2_SENT_PER_POLL_BYTES_MAX {
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
                    taken += desk.requests.len();
                    self.hand_over(&mut desk.requests, shard);
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
        sent: &mut usize,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut connection = self.connection.borrow_mut();
        while !connection.out().is_empty() && *sent < HTTP2_SENT_PER_POLL_BYTES_MAX {
            match ready!(stream.poll_write(cx, connection.out())) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(now) => {
                    connection.sent(now);
                    *sent += now;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        drop(connection);
        self.wake_stirred();
        Poll::Ready(Ok(()))
    }

    fn receive(&self, read: usize, desk: &mut Desk, shard: &Shard) {
        let Desk { read: buffer, requests, bodies } = desk;
        let mut intake = Intake {
            now: shard.clock.now(),
            requests,
            bodies,
            admit: &mut || shard.admit_unfinished(),
        };
        let received = self.connection.borrow_mut().receive(&buffer[..read], &mut intake);
        if let Err(goaway) = received {
            self.broken.set(Some(goaway));
            requests.clear(); // nobody would hear the answers
        }
        self.wake_stirred();
    }

    fn hand_over(self: &Rc<Self>, requests: &mut Vec<Request>, shard: &Rc<Shard>) {
        if !requests.is_empty() {
            shard.refresh();
        }
        for Request { stream, path, metadata, body } in requests.drain(..) {
            let respond = Responder { link: Some(self.clone()), stream };
            shard.on_body(&path, metadata, body, respond);
        }
    }

    /// Wakes those who wait for streams to which something has happened.
    fn wake_stirred(&self) {
        let stirred = self.connection.borrow_mut().take_stirred();
        for stream in stirred {
            let waker = self.waiting.borrow_mut().remove(&stream);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Does something that may leave bytes to be sent, and sees to it that they are.
    fn say<T>(&self, what: impl FnOnce(&mut Connection) -> T) -> T {
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

    /// Waits until `ready` says so, looking again whenever something has happened to the stream.
    async fn wait<T>(&self, stream: u32, ready: impl Fn(Progress) -> Option<T>) -> T {
        poll_fn(|cx| match ready(self.connection.borrow().progress(stream)) {
            Some(ready) => Poll::Ready(ready),
            None => {
                self.waiting.borrow_mut().insert(stream, cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// The socket is gone: whoever waits hears of it, and answers go nowhere.
    fn close(&self) {
        self.awake.set(true);
        *self.task.borrow_mut() = None;
        self.connection.borrow_mut().close();
        self.wake_stirred();
    }
}

/// The way back to the client, for one answer. A client that is gone is not an error. One that is
/// dropped without an answer resets its stream.
pub struct Responder {
    /// `None` once answered.
    link: Option<Rc<Link>>,
    stream: u32,
}

impl Responder {
    fn take(&mut self) -> Rc<Link> {
        self.link.take().expect("every way to answer takes the responder")
    }

    /// Sends one message, framed already, and status OK.
    pub fn answer(mut self, framed: Bytes) {
        self.take().say(|connection| connection.answer(self.stream, framed));
    }

    /// Sends one message that `write` appends, framed, to what goes to the client anyway, and
    /// status OK. Returns the message's bytes. `write` may read what is in its argument, but not
    /// change it.
    ///
    /// # Errors
    /// What `write` said; the client has been told.
    pub fn answer_with(
        mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Status>,
    ) -> Result<usize, Status> {
        self.take().say(|connection| connection.answer_with(self.stream, write))
    }

    /// Sends a status alone.
    pub fn refuse(mut self, status: &Status) {
        self.take().say(|connection| connection.refuse(self.stream, status));
    }

    /// Opens a stream of answers.
    pub fn open(mut self) -> Option<Answers> {
        let link = self.take();
        let opened = link.say(|connection| connection.open(self.stream));
        opened.then_some(Answers { link: Some(link), stream: self.stream })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.say(|connection| connection.abandon(self.stream));
        }
    }
}

/// A server stream: several messages, then a status. Dropped without one, it resets its stream.
pub struct Answers {
    /// `None` once finished.
    link: Option<Rc<Link>>,
    stream: u32,
}

/// The client of a stream is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Answers {
    fn link(&self) -> &Rc<Link> {
        self.link.as_ref().expect("only the end takes it")
    }

    /// Sends one framed message once the client has room for it, so that a slow reader holds
    /// memory for one message and no more.
    ///
    /// # Errors
    /// [`Gone`] when the client ended the stream.
    pub async fn send(&mut self, framed: Bytes) -> Result<(), Gone> {
        self.room().await?;
        self.link().say(|connection| connection.message(self.stream, framed));
        self.room().await
    }

    async fn room(&self) -> Result<(), Gone> {
        let ready = |progress| match progress {
            Progress::Clear => Some(Ok(())),
            Progress::Busy => None,
            Progress::Gone => Some(Err(Gone)),
        };
        self.link().wait(self.stream, ready).await
    }

    /// Returns once the client has ended the stream.
    pub async fn closed(&mut self) {
        let gone = |progress| (progress == Progress::Gone).then_some(());
        self.link().wait(self.stream, gone).await;
    }

    /// Ends the stream.
    pub fn finish(mut self, status: Option<&Status>) {
        let link = self.link.take().expect("only the end takes it");
        link.say(|connection| connection.finish(self.stream, status));
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.say(|connection| connection.abandon(self.stream));
        }
    }
}
