//! What we say on a connection: answers, cut into frames as the client's windows allow.
//!
//! An answer that fits — nearly every one — is written whole at once: headers, message, trailers.
//! What does not fit waits on its stream and is pumped out as windows open and the socket drains.

use super::{
    connection::Connection,
    frame::{self, HEAD_BYTES, Reason, STREAM_AT, flag, kind},
    reply,
    streams::{Sending, Stream},
};
use crate::{api::status::Status, limits::HTTP2_OUT_BYTES_MAX};
use bytes::{Buf, BufMut, Bytes};

/// HEADERS that open a successful answer, whole but for the stream's number.
const HEAD_FRAME: [u8; HEAD_BYTES + reply::HEAD.len()] = whole(reply::HEAD, flag::END_HEADERS);
/// HEADERS that end it.
const TRAILERS_FRAME: [u8; HEAD_BYTES + reply::TRAILERS_OK.len()] =
    whole(reply::TRAILERS_OK, flag::END_HEADERS | flag::END_STREAM);

const fn whole<const BLOCK: usize, const FRAME: usize>(
    block: &[u8; BLOCK],
    flags: u8,
) -> [u8; FRAME] {
    assert!(FRAME == HEAD_BYTES + BLOCK && BLOCK < 256, "one byte of length");
    let mut frame = [0; FRAME];
    (frame[2], frame[3], frame[4]) = (BLOCK as u8, kind::HEADERS, flags);
    let mut at = 0;
    while at < BLOCK {
        frame[HEAD_BYTES + at] = block[at];
        at += 1;
    }
    frame
}

fn put_whole(out: &mut Vec<u8>, frame: &[u8], stream: u32) {
    let at = out.len() + STREAM_AT;
    out.extend_from_slice(frame);
    out[at..at + 4].copy_from_slice(&stream.to_be_bytes());
}

/// How a streamed answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The client has room for the next message.
    Clear,
    /// The last message is not out yet.
    Busy,
    /// There is nobody to answer any more: the client has taken the call back or is gone, or the
    /// call was ended because the server goes down.
    Gone,
}

impl Stream {
    fn progress(&self) -> Progress {
        match self.is_stalled() {
            _ if self.is_finished() => Progress::Gone,
            true => Progress::Busy,
            false => Progress::Clear,
        }
    }
}

impl Connection {
    /// What is to be sent.
    pub fn out(&self) -> &[u8] {
        &self.out[self.out_sent..]
    }

    /// The first `bytes` of [`Self::out`] have left.
    pub fn sent(&mut self, bytes: usize) {
        self.out_sent += bytes;
        assert!(self.out_sent <= self.out.len(), "no more is sent than there was");
        if self.out_sent == self.out.len() {
            self.out.clear();
            self.out_sent = 0;
            self.choked = false;
            self.pump();
        } else if self.out_sent >= HTTP2_OUT_BYTES_MAX {
            // A socket that is never quite drained must not make this grow for ever.
            self.out.drain(..self.out_sent);
            self.out_sent = 0;
        }
    }

    /// Whether so much is on its way out that nothing more should be read, and messages wait.
    pub fn is_full(&self) -> bool {
        self.choked || self.out().len() >= HTTP2_OUT_BYTES_MAX
    }

    /// Answers with one message, framed already, and status OK.
    pub fn answer(&mut self, id: u32, framed: Bytes) {
        let Some(at) = self.streams.find(id) else { return };
        if self.is_full() || !self.lets(at, framed.len()) {
            self.put_ok_head(at);
            let trailers = Some(reply::TRAILERS_OK.to_vec());
            return self.send_later(at, Sending { unsent: framed.chain(Bytes::new()), trailers });
        }
        self.out.reserve(HEAD_FRAME.len() + HEAD_BYTES + framed.len() + TRAILERS_FRAME.len());
        put_whole(&mut self.out, &HEAD_FRAME, id);
        frame::put_head(&mut self.out, framed.len(), kind::DATA, 0, id);
        self.out.extend_from_slice(&framed);
        self.finish_whole(at, framed.len());
    }

    /// Head and message of an answer are in `out`.
    #[inline]
    fn finish_whole(&mut self, at: usize, len: usize) {
        self.on_headed();
        self.send_window -= len as i64;
        put_whole(&mut self.out, &TRAILERS_FRAME, self.streams[at].id);
        self.end(at);
    }

    /// As [`Self::answer`], with a message that `write` appends to what is sent anyway, framed; so
    /// it is copied no more. An error from `write` is sent instead.
    ///
    /// # Errors
    /// The status that was sent instead.
    pub fn answer_with(
        &mut self,
        id: u32,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Status>,
    ) -> Result<usize, Status> {
        let found = self.streams.find(id).filter(|_| !self.is_full());
        let start = self.out.len();
        put_whole(&mut self.out, &HEAD_FRAME, id);
        frame::put_head(&mut self.out, 0, kind::DATA, 0, id);
        let message_at = self.out.len();
        let written = write(&mut self.out);
        let len = self.out.len() - message_at;
        let fits = found.filter(|at| self.lets(*at, len));
        if let (Some(at), Ok(())) = (fits, &written) {
            let [_, l0, l1, l2] = (len as u32).to_be_bytes();
            let head_at = message_at - HEAD_BYTES;
            self.out[head_at..head_at + 3].copy_from_slice(&[l0, l1, l2]);
            self.finish_whole(at, len);
            return Ok(len);
        }
        let unsent = Bytes::copy_from_slice(&self.out[message_at..]);
        self.out.truncate(start);
        match written {
            Ok(()) => self.answer(id, unsent),
            Err(ref status) => self.refuse(id, status),
        }
        written.map(|()| len)
    }

    /// Answers with a status alone.
    pub fn refuse(&mut self, id: u32, status: &Status) {
        let Some(at) = self.streams.find(id) else { return };
        self.say_all(at, &reply::refusal(status));
    }

    /// Answers with headers alone.
    pub(super) fn say_all(&mut self, at: usize, block: &[u8]) {
        self.on_headed();
        let id = self.streams[at].id;
        frame::put_headers(&mut self.out, id, block, true, self.peer.frame_bytes_max);
        self.end(at);
    }

    /// Begins an answer of several messages, if it has not begun. Whether there is anybody to
    /// answer.
    pub fn open(&mut self, id: u32) -> bool {
        let Some(at) = self.streams.find(id) else { return false };
        if !self.streams[at].headed {
            self.put_ok_head(at);
        }
        self.streams[at].awaited = true;
        true
    }

    /// How a streamed answer stands.
    pub fn progress(&self, id: u32) -> Progress {
        self.streams.find(id).map_or(Progress::Gone, |at| self.streams[at].progress())
    }

    /// Sends one more message of a streamed answer that is clear, and the headers first where they
    /// have not gone out. The message is framed already, in two parts: what is this stream's own,
    /// and what it may share with others and so is not copied if it has to wait. Returns how the
    /// answer stands then.
    pub fn send(&mut self, id: u32, head: &[u8], body: &Bytes) -> Progress {
        let Some(at) = self.streams.find(id) else { return Progress::Gone };
        match self.streams[at].progress() {
            Progress::Clear => {}
            Progress::Busy => panic!("one message at a time"),
            Progress::Gone => return Progress::Gone,
        }
        if !self.streams[at].headed {
            self.put_ok_head(at);
        }
        let len = head.len() + body.len();
        if self.is_full() || !self.lets(at, len) {
            let unsent = Bytes::copy_from_slice(head).chain(body.clone());
            self.send_later(at, Sending { unsent, trailers: None });
            return self.streams[at].progress();
        }
        frame::put_head(&mut self.out, len, kind::DATA, 0, id);
        self.out.extend_from_slice(head);
        self.out.extend_from_slice(body);
        self.on_data_sent(at, len);
        Progress::Clear
    }

    /// Ends a streamed answer, once its messages are out. `None` is OK.
    pub fn finish(&mut self, id: u32, status: Option<&Status>) {
        let Some(at) = self.streams.find(id) else { return };
        let stream = &mut self.streams[at];
        if stream.is_finished() {
            return; // by `leave`
        }
        if let Some(incoming) = &mut stream.incoming {
            incoming.close();
        }
        match status {
            Some(status) if !stream.headed => return self.say_all(at, &reply::refusal(status)),
            None if !stream.headed => self.put_ok_head(at),
            _ => {}
        }
        let trailers = status.map_or_else(|| reply::TRAILERS_OK.to_vec(), reply::trailers);
        let sending = self.streams[at].sending.get_or_insert_default();
        sending.trailers = Some(trailers);
        if !self.pump_one(at) {
            self.stir(at);
        }
    }

    /// Ends a stream that nobody will answer any more. One that is finished goes on to its end.
    pub fn abandon(&mut self, id: u32) {
        let Some(at) = self.streams.find(id) else { return };
        if !self.streams[at].is_finished() {
            self.forget(at);
            self.put_reset(id, Reason::Cancel);
        }
    }

    /// Our last frame on a stream is in `out`.
    fn end(&mut self, at: usize) {
        let stream = self.forget(at);
        if stream.receiving.is_some() {
            // The client need not go on (§8.1).
            self.put_reset(stream.id, Reason::NoError);
        }
    }

    fn put_ok_head(&mut self, at: usize) {
        self.on_headed();
        let stream = &mut self.streams[at];
        stream.headed = true;
        put_whole(&mut self.out, &HEAD_FRAME, stream.id);
    }

    /// Whether the client takes a message in one frame now.
    fn lets(&self, at: usize, len: usize) -> bool {
        len <= self.peer.frame_bytes_max && len as i64 <= self.window_of(at)
    }

    /// What the client takes of a stream now.
    fn window_of(&self, at: usize) -> i64 {
        self.send_window.min(self.peer.stream_window + self.streams[at].credit)
    }

    fn send_later(&mut self, at: usize, sending: Sending) {
        let stream = &mut self.streams[at];
        stream.sending = Some(Box::new(sending));
        self.stalled += usize::from(stream.is_stalled());
        let _over = self.pump_one(at);
    }

    /// There may be room: goes on with the replies that wait, beginning where it ended last time,
    /// so that a stream whose handler always has more does not keep the others waiting.
    pub(super) fn pump(&mut self) {
        let mut at = self.streams.from(self.turn);
        for _ in 0..self.streams.len() {
            if self.stalled == 0 || self.send_window <= 0 || self.is_full() {
                break;
            }
            if at >= self.streams.len() {
                at = 0;
            }
            let over = self.streams[at].is_stalled() && self.pump_one(at);
            // Whoever is in the middle of a message when room ends goes on with it.
            let ends = self.is_full() || self.send_window <= 0;
            let goes_on = ends && !over && self.streams[at].is_stalled();
            at += usize::from(!over && !goes_on);
        }
        self.turn = if at < self.streams.len() { self.streams[at].id } else { 0 };
    }

    /// Sends what there is room for of one stream's reply. Whether the stream is over with that.
    fn pump_one(&mut self, at: usize) -> bool {
        let was_stalled = self.streams[at].is_stalled();
        while self.streams[at].is_stalled() && self.send_part(at) {}
        let stream = &mut self.streams[at];
        if stream.is_stalled() {
            return false;
        }
        if was_stalled {
            self.stalled -= 1;
            self.stir(at);
        }
        let stream = &mut self.streams[at];
        let Some(trailers) = stream.sending.take().and_then(|sending| sending.trailers) else {
            return false;
        };
        let id = stream.id;
        frame::put_headers(&mut self.out, id, &trailers, true, self.peer.frame_bytes_max);
        self.end(at);
        true
    }

    /// Sends one frame of a reply. `false` if there is no room.
    fn send_part(&mut self, at: usize) -> bool {
        let room = if self.is_full() { 0 } else { HTTP2_OUT_BYTES_MAX - self.out().len() };
        self.choked |= room == 0;
        let window = self.window_of(at).max(0) as usize;
        let stream = &mut self.streams[at];
        let sending = stream.sending.as_mut().expect("a stalled stream has something to send");
        let part = sending.unsent.remaining().min(window).min(room).min(self.peer.frame_bytes_max);
        if part == 0 {
            return false;
        }
        frame::put_head(&mut self.out, part, kind::DATA, 0, stream.id);
        self.out.put((&mut sending.unsent).take(part));
        self.on_data_sent(at, part);
        true
    }

    fn on_data_sent(&mut self, at: usize, len: usize) {
        self.send_window -= len as i64;
        self.streams[at].credit -= len as i64;
        self.pings.forgive();
    }

    /// Something has happened to a stream.
    fn stir(&mut self, at: usize) {
        let stream = &self.streams[at];
        if stream.awaited {
            self.stirred.push_back(stream.id);
        }
    }
}
