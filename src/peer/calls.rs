//! Requests to another member, over few connections that are kept open.
//!
//! ```text
//!  call ─▶ waiting ─┬─ connection: sent ahead ▶ … ▶ answered in order
//!                   └─ connection …              (at most PEER_CALL_CONNECTIONS_MAX)
//! ```
//!
//! A connection takes what waits and sends it in one go without waiting for answers (RFC 9112
//! §9.3.2), so that a storm of keep-alives through a follower needs no connection each. A connection
//! that breaks fails what it took; whoever asked tries again where that makes sense.

use super::{Room, frame, link::Link, socket::Socket};
use crate::{
    consensus::Message,
    io::Clock,
    limits::{
        PEER_ANSWER_BYTES_MAX, PEER_CALL_CONNECTIONS_MAX, PEER_CALLS_AHEAD_MAX, PEER_IDLE_WAIT,
        PEER_POST_BYTES_MAX, PEER_POSTS_MAX, TIMEOUT_CHECK_INTERVAL,
    },
    mesh::FromPeer,
    net::{
        Authority, Promise, connect,
        http1::{Dechunk, Length, Parsed, Response, take_response},
    },
};
use bytes::{Bytes, BytesMut};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Nothing came back: whether the request took effect is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// The answer to come.
pub type Answering = Rc<Promise<Result<Answer, Lost>>>;

/// Requests to one member.
#[derive(Default)]
pub struct Calls {
    waiting: RefCell<VecDeque<(Vec<u8>, Answering)>>,
    connections: Cell<usize>,
    /// Connections that wait for something to send.
    idle: RefCell<Vec<Waker>>,
}

impl Calls {
    fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Lets idle connections look around.
    pub fn wake(&self) {
        self.idle.take().into_iter().for_each(Waker::wake);
    }

    /// A connection has nothing to do and wants to be woken.
    fn wait_idle(&self, waker: &Waker) {
        let mut idle = self.idle.borrow_mut();
        if !idle.iter().any(|known| known.will_wake(waker)) {
            idle.push(waker.clone());
        }
    }

    fn fail_waiting(&self) {
        for (_, answering) in self.waiting.take() {
            answering.set(Err(Lost));
        }
    }
}

/// Sends one request, a whole one with its body.
pub fn call(room: &Rc<Room>, link: &Rc<Link>, request: Vec<u8>) -> Answering {
    let answering = Answering::default();
    link.calls.waiting.borrow_mut().push_back((request, answering.clone()));
    let connections = link.calls.connections.get();
    if link.calls.idle.borrow().is_empty() && connections < PEER_CALL_CONNECTIONS_MAX {
        link.calls.connections.set(connections + 1);
        glommio::spawn_local(carry(room.clone(), link.clone())).detach();
    }
    link.calls.wake();
    answering
}

/// Posts one message that no stream can take (etcd `rafthttp/pipeline.go`); false when it is lost.
pub fn post(room: &Rc<Room>, link: &Rc<Link>, message: &Message) -> bool {
    let fits = message.weight() <= PEER_POST_BYTES_MAX && link.posts.get() < PEER_POSTS_MAX;
    let Some(place) = link.place().filter(|_| fits) else { return false };
    let mut body = Vec::with_capacity(message.weight());
    frame::encode(message, &mut body);
    let request = with_body(room, "/raft", &place, &body);
    link.posts.set(link.posts.get() + 1);
    let (room, link) = (room.clone(), link.clone());
    let answering = call(&room, &link, request);
    let wait = async move {
        let answer = answering.wait().await;
        link.posts.set(link.posts.get() - 1);
        match answer {
            Ok(answer) if answer.status == 204 => link.meter.sent_bytes.add(body.len() as u64),
            Ok(answer) if is_removal(&answer) => room.desk.tell(FromPeer::Removed),
            _ => {
                link.meter.sent_failures.add(1);
                room.desk.tell(FromPeer::Unreachable(link.id));
            }
        }
    };
    glommio::spawn_local(wait).detach();
    true
}

/// etcd says 403 of a removed member and of a wrong address alike; only the first is for ever.
pub fn is_removal(answer: &Answer) -> bool {
    let what = super::serve::FROM_REMOVED.as_bytes();
    answer.status == 403 && answer.body.windows(what.len()).any(|part| part == what)
}

/// A `POST` of protobuf with everything around it.
pub fn with_body(room: &Room, path: &str, place: &Authority, body: &[u8]) -> Vec<u8> {
    let mut request = room.who.request("POST", path, &place.to_string());
    request += "Content-Type: application/protobuf\r\n";
    request += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// One connection's life: until it breaks or nobody has needed it for a while.
async fn carry(room: Rc<Room>, link: Rc<Link>) {
    let opened = match link.place() {
        None => None,
        Some(place) => {
            let opened = connect(&place, room.dial_wait).await;
            let opened = opened.and_then(|stream| room.socket(stream));
            opened.inspect_err(|_| link.unreachable_at(&place)).ok()
        }
    };
    if let Some(socket) = opened.filter(|socket| socket.allow_silence().is_ok()) {
        let mut connection = Connection::new(socket, room.clock.now());
        connection.run(&room, &link).await;
        for answering in connection.ahead {
            answering.set(Err(Lost));
        }
    } else if link.calls.connections.get() == 1 {
        link.calls.fail_waiting();
    }
    link.calls.connections.set(link.calls.connections.get() - 1);
    // Among the idle ones there may be this one's waker.
    link.calls.wake();
    if link.is_ended() {
        return link.calls.fail_waiting();
    }
    // What came while the last connection was closing.
    let left_over = !link.calls.is_empty();
    if left_over && link.calls.connections.get() == 0 {
        link.calls.connections.set(1);
        glommio::spawn_local(again(room, link)).detach();
    }
}

/// [`carry`] once more; boxed, because a future cannot hold itself.
fn again(room: Rc<Room>, link: Rc<Link>) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(carry(room, link))
}

/// One connection.
struct Connection {
    socket: Socket,
    /// Sent and not answered, in order.
    ahead: VecDeque<Answering>,
    /// The answer that is being read.
    answer: Option<(Response, Dechunk, BytesMut)>,
    /// When something last came, or when it was last idle.
    heard: Duration,
}

impl Connection {
    fn new(socket: Socket, now: Duration) -> Self {
        Self { socket, ahead: VecDeque::new(), answer: None, heard: now }
    }

    async fn run(&mut self, room: &Room, link: &Link) {
        let clock = &room.clock;
        let look = || Box::pin(clock.sleep_until(clock.now() + TIMEOUT_CHECK_INTERVAL));
        let mut timer = look();
        poll_fn(|cx| {
            while timer.as_mut().poll(cx).is_ready() {
                timer = look();
                let wait = if self.ahead.is_empty() { PEER_IDLE_WAIT } else { room.patience.read };
                if clock.now() >= self.heard + wait {
                    return Poll::Ready(());
                }
            }
            self.poll(link, clock.now(), cx)
        })
        .await;
    }

    /// Ready when the connection is over.
    fn poll(&mut self, link: &Link, now: Duration, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if link.is_ended() {
                return Poll::Ready(());
            }
            // Taken before anything is read: what finds the connection closed is told so.
            self.take_calls(link, now);
            match self.socket.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {
                    self.heard = now;
                    if self.take_answers().is_err() {
                        return Poll::Ready(());
                    }
                    continue;
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            match self.socket.poll_flush(cx) {
                Poll::Ready(Ok(())) if self.has_room() && !link.calls.is_empty() => {}
                Poll::Ready(Ok(())) => {
                    if self.ahead.is_empty() {
                        link.calls.wait_idle(cx.waker());
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn has_room(&self) -> bool {
        self.ahead.len() < PEER_CALLS_AHEAD_MAX
    }

    fn take_calls(&mut self, link: &Link, now: Duration) {
        while self.has_room() {
            let Some((request, answering)) = link.calls.waiting.borrow_mut().pop_front() else {
                return;
            };
            if self.ahead.is_empty() {
                self.heard = now;
            }
            self.socket.out.extend_from_slice(&request);
            self.ahead.push_back(answering);
        }
    }

    /// Hands over whole answers.
    fn take_answers(&mut self) -> Result<(), Lost> {
        loop {
            let Some((head, chunks, body)) = &mut self.answer else {
                match take_response(&mut self.socket.input) {
                    Parsed::Whole(head) => {
                        self.answer = Some((head, Dechunk::Size, BytesMut::new()));
                        continue;
                    }
                    Parsed::Partial => return Ok(()),
                    Parsed::Bad(..) => return Err(Lost),
                }
            };
            let input = &mut self.socket.input;
            let whole = match head.length {
                Length::Known(bytes) if bytes > PEER_ANSWER_BYTES_MAX => return Err(Lost),
                Length::Known(bytes) if input.len() >= bytes => {
                    *body = input.split_to(bytes);
                    true
                }
                Length::Known(_) => false,
                Length::Chunked => {
                    chunks.step(input, body).map_err(|_| Lost)?;
                    if body.len() > PEER_ANSWER_BYTES_MAX {
                        return Err(Lost);
                    }
                    *chunks == Dechunk::Done
                }
                Length::UntilClose => return Err(Lost),
            };
            if !whole {
                return Ok(());
            }
            let (head, _, body) = self.answer.take().expect("it was looked at just now");
            let answering = self.ahead.pop_front().ok_or(Lost)?;
            answering.set(Ok(Answer { status: head.status, body: body.freeze() }));
            if !head.keep_alive {
                return Err(Lost);
            }
        }
    }
}
