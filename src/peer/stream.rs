//! The two streams of messages with another member, at both ends.
//!
//! Whoever wants to hear opens them: `GET /raft/stream/<kind>/<own id>`, and the answer's body, in
//! chunks, never ends. So this member reads the streams that it opened and writes to those that the
//! other one did.

use super::{
    Room,
    frame::{Heard, Lane, Reader, Writer},
    identity::{self, Mismatch},
    link::{Link, Task},
    socket::{Socket, chunk},
};
use crate::{
    io::Clock,
    limits::{
        HTTP1_HEAD_BYTES_MAX, PEER_DIAL_INTERVAL, PEER_LINK_HEARTBEAT_INTERVAL, PEER_SEND_BYTES_MAX,
    },
    log,
    mesh::FromPeer,
    net::{
        Authority, connect,
        http1::{Dechunk, Length, Parsed, Response, take_response},
    },
};
use bytes::BytesMut;
use futures_lite::future;
use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

// ── what the other side says ────────────────────────────────────────────────────────────────────

/// Keeps one stream from `link` open and hands over what it brings, until the link ends.
pub async fn read_all(room: Rc<Room>, link: Rc<Link>, lane: Lane) {
    let task = match lane {
        Lane::Append => Task::ReadAppends,
        Lane::Message => Task::ReadMessages,
    };
    let reading = async {
        loop {
            if let Some(place) = link.place() {
                read_one(&room, &link, lane, &place).await;
            }
            glommio::timer::sleep(PEER_DIAL_INTERVAL).await;
        }
    };
    future::or(reading, link.end_of(task)).await;
}

/// Opens one stream and reads it to its end.
async fn read_one(room: &Rc<Room>, link: &Rc<Link>, lane: Lane, place: &Authority) {
    let mut inward = match open(room, link, lane, place).await {
        Ok(inward) => inward,
        Err(why) => {
            link.unreachable_at(place);
            log::debug!(
                "cannot open a stream",
                "stream-type" => lane.title(),
                "remote-peer-id" => link.id.to_string(),
                "address" => place.to_string(),
                "error" => why,
            );
            return;
        }
    };
    let touch = link.touch(room);
    tell_of("established TCP streaming connection with remote peer", room, link, lane);
    let why = inward.read(room, link).await;
    log::warn!(
        "lost TCP streaming connection with remote peer",
        "stream-reader-type" => lane.title(),
        "local-member-id" => room.who.member.to_string(),
        "remote-peer-id" => link.id.to_string(),
        "error" => why,
    );
    drop(touch);
}

fn tell_of(what: &str, room: &Room, link: &Link, lane: Lane) {
    log::info!(
        what,
        "stream-type" => lane.title(),
        "local-member-id" => room.who.member.to_string(),
        "remote-peer-id" => link.id.to_string(),
    );
}

/// A stream that this member reads.
struct Inward {
    socket: Socket,
    /// `None` when the body ends with the connection.
    chunks: Option<Dechunk>,
    body: BytesMut,
    reader: Reader,
    /// The start of the other member that writes it.
    boot: Option<u64>,
}

/// Asks for a stream.
async fn open(room: &Room, link: &Link, lane: Lane, place: &Authority) -> Result<Inward, String> {
    let text = |error: std::io::Error| error.to_string();
    let stream = connect(place, room.dial_wait).await.map_err(text)?;
    let mut socket = room.socket(stream).map_err(text)?;
    let path = format!("/raft/stream/{}/{}", lane.name(), room.who.member);
    let head = room.who.request("GET", &path, &place.to_string());
    socket.out = format!("{head}X-Raft-To: {}\r\n\r\n", link.id).into_bytes();
    socket.flush().await.map_err(text)?;
    let answer = loop {
        match take_response(&mut socket.input) {
            Parsed::Whole(answer) => break answer,
            Parsed::Bad(_, why) => return Err(why.into()),
            Parsed::Partial if socket.fill().await.map_err(text)? => {}
            Parsed::Partial => return Err("the connection ended in the answer's head".into()),
        }
    };
    if answer.status != 200 {
        return Err(refused(room, link, &answer, &mut socket).await);
    }
    let chunks = match answer.length {
        Length::Chunked => Some(Dechunk::Size),
        Length::UntilClose => None,
        Length::Known(_) => return Err("the stream has an end".into()),
    };
    let boot = identity::boot_of(&answer.headers);
    if !link.hears(boot) {
        return Err("an older start of the member answered".into());
    }
    let reader = Reader::new(lane, link.id, room.who.member);
    Ok(Inward { socket, chunks, body: BytesMut::new(), reader, boot })
}

/// What an answer that is no stream means (etcd `streamReader.dial`).
async fn refused(room: &Room, link: &Link, answer: &Response, socket: &mut Socket) -> String {
    if answer.status == 410 {
        room.desk.tell(FromPeer::Removed);
        return "the member has been permanently removed from the cluster".into();
    }
    if answer.status == 404 {
        return format!("peer {} failed to find local node {}", link.id, room.who.member);
    }
    let said = said(answer, socket).await;
    let known = [Mismatch::Version, Mismatch::Cluster];
    if let Some(mismatch) = known.into_iter().find(|known| known.text() == said) {
        log::warn!(
            "request sent was ignored by remote peer",
            "remote-peer-id" => link.id.to_string(),
            "remote-peer-cluster-id" => answer.headers.get(identity::CLUSTER).unwrap_or(""),
            "local-member-cluster-id" => room.who.cluster.to_string(),
            "error" => mismatch.text(),
        );
    }
    format!("http status {}: {said}", answer.status)
}

/// The sentence that comes with a refusal, as far as it arrives.
async fn said(answer: &Response, socket: &mut Socket) -> String {
    let Length::Known(bytes) = answer.length else { return String::new() };
    let bytes = bytes.min(HTTP1_HEAD_BYTES_MAX);
    while socket.input.len() < bytes {
        if !socket.fill().await.unwrap_or(false) {
            break;
        }
    }
    let said = &socket.input[..bytes.min(socket.input.len())];
    String::from_utf8_lossy(said).trim_end().to_owned()
}

impl Inward {
    /// Hands over what the stream brings until it ends; why it did.
    async fn read(&mut self, room: &Rc<Room>, link: &Rc<Link>) -> String {
        loop {
            // First what came with the answer's head.
            if let Err(why) = self.hand_over(room, link).await {
                return why;
            }
            match self.socket.fill().await {
                Ok(true) => {}
                Ok(false) => return "EOF".into(),
                Err(error) => return error.to_string(),
            }
            // A stream that always has more must not keep others from this core.
            future::yield_now().await;
        }
    }

    async fn hand_over(&mut self, room: &Room, link: &Link) -> Result<(), String> {
        match &mut self.chunks {
            None => self.body.unsplit(self.socket.input.split()),
            Some(chunks) => {
                let stepped = chunks.step(&mut self.socket.input, &mut self.body);
                stepped.map_err(|_| "not a body in chunks".to_owned())?;
            }
        }
        let before = self.body.len();
        while let Some(heard) = self.reader.next(&mut self.body).map_err(|fault| {
            link.meter.received_failures.add(1);
            fault.to_string()
        })? {
            let Heard::Message(message) = heard else { continue };
            if (message.from, message.to) != (link.id, room.who.member) {
                link.meter.received_failures.add(1);
                return Err(format!("a message from {} to {}", message.from, message.to));
            }
            if !room.desk.deliver(message, || link.hears(self.boot)).await {
                return Err("a newer start of the member was heard of".into());
            }
        }
        link.meter.received_bytes.add((before - self.body.len()) as u64);
        if self.chunks == Some(Dechunk::Done) { Err("EOF".into()) } else { Ok(()) }
    }
}

// ── what this side says ─────────────────────────────────────────────────────────────────────────

/// Serves a stream that the other member opened and whose head was answered, until it breaks or the
/// member opens another one.
pub async fn write(room: Rc<Room>, link: Rc<Link>, lane: Lane, socket: Socket) {
    let stream = link.open_lane(lane);
    let touch = link.touch(&room);
    tell_of("established TCP streaming connection with remote peer", &room, &link, lane);
    // Nothing is asked here any more; whether the other side lives is seen from what it acknowledges.
    let why = match socket.allow_silence() {
        Ok(()) => {
            Outward { lane, stream, socket, writer: Writer::new(lane) }.run(&room, &link).await
        }
        Err(error) => error.to_string(),
    };
    log::warn!(
        "lost TCP streaming connection with remote peer",
        "stream-writer-type" => lane.title(),
        "local-member-id" => room.who.member.to_string(),
        "remote-peer-id" => link.id.to_string(),
        "error" => why,
    );
    link.meter.sent_failures.add(1);
    if link.close_lane(lane, stream) && !link.is_ended() {
        room.desk.tell(FromPeer::Unreachable(link.id));
    }
    drop(touch);
}

/// A stream that this member writes.
struct Outward {
    lane: Lane,
    stream: u64,
    socket: Socket,
    writer: Writer,
}

impl Outward {
    /// Why it ended.
    async fn run(mut self, room: &Room, link: &Link) -> String {
        let clock = &room.clock;
        let beat = || clock.sleep_until(clock.now() + PEER_LINK_HEARTBEAT_INTERVAL);
        let mut timer = Box::pin(beat());
        poll_fn(|cx| {
            loop {
                match self.socket.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready("EOF".into()),
                    Poll::Ready(Ok(_)) => return Poll::Ready("it speaks out of turn".into()),
                    Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                    Poll::Pending => {}
                }
                match self.socket.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                    Poll::Pending => return Poll::Pending,
                }
                if pin!(&mut timer).poll(cx).is_ready() {
                    timer = Box::pin(beat());
                    chunk(&mut self.socket.out, |out| self.writer.write_link_heartbeat(out));
                    continue;
                }
                match self.gather(link, cx) {
                    Err(()) => return Poll::Ready("the peer opened another one".into()),
                    Ok(()) if self.socket.out.is_empty() => return Poll::Pending,
                    Ok(()) => {}
                }
            }
        })
        .await
    }

    /// Puts what waits into one send.
    fn gather(&mut self, link: &Link, cx: &Context<'_>) -> Result<(), ()> {
        let (mut gone, before) = (false, self.socket.out.len());
        chunk(&mut self.socket.out, |out| {
            while out.len() < PEER_SEND_BYTES_MAX {
                match link.next_for(self.lane, self.stream, cx.waker()) {
                    Ok(Some(message)) => self.writer.write(&message, out),
                    Ok(None) => break,
                    Err(()) => {
                        gone = true;
                        break;
                    }
                }
            }
        });
        link.meter.sent_bytes.add((self.socket.out.len() - before) as u64);
        if gone { Err(()) } else { Ok(()) }
    }
}
