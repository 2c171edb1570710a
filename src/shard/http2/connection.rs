//! The server's half of one HTTP/2 connection (RFC 9113): bytes in, requests and bytes out. It
//! knows no socket and no clock.
//!
//! ```text
//!                    ┌────────────┐──► requests, each with its whole body
//!   receive(bytes) ─►│            │──► calls, as soon as they are opened; then take(id)
//!                    │ Connection │
//!      answer(id) ──►│            │──► out(): what to send, then sent(n)
//!        send(id) ──►└────────────┘
//! ```
//!
//! This file is what we hear; `incoming` holds the messages of calls, and `send` is what we say.

use super::{
    frame::{self, Goaway, HEAD_BYTES, Head, Reason, flag, kind, setting},
    head::{Heads, Kind, Malformed, Metadata, RequestHead},
    pings::Pings,
    reply,
    streams::{Receiving, Stream, Streams},
};
use crate::{
    api::status::{self, Code, Status},
    limits::{
        HTTP2_BODY_AHEAD_BYTES_MAX, HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_CONTINUATIONS_MAX,
        HTTP2_EMPTY_FRAMES_MAX, HTTP2_HEADER_BYTES_MAX, HTTP2_RESETS_AHEAD_MAX,
        HTTP2_STREAM_WINDOW_BYTES, HTTP2_STREAMS_ENDED_EARLY_MAX,
    },
    shard::{Place, grpc},
};
use bytes::{Bytes, BytesMut};
use std::{collections::VecDeque, mem, rc::Rc, time::Duration};

/// A request whose body is whole.
pub struct Request {
    /// Where the answer goes.
    pub stream: u32,
    /// `:path`.
    pub path: Rc<str>,
    /// What else its headers say.
    pub metadata: Metadata,
    /// All of its body.
    pub body: Bytes,
}

/// A call whose request is a stream of messages. They are taken with [`Connection::take`].
pub struct Opened {
    /// Its number.
    pub stream: u32,
    /// `:path`.
    pub path: Rc<str>,
    /// What else its headers say.
    pub metadata: Metadata,
}

/// What the core lends a connection while it takes bytes in.
pub struct Intake<'a> {
    /// Time now, by any clock that never goes back.
    pub now: Duration,
    /// Where finished requests go.
    pub requests: &'a mut Vec<Request>,
    /// Where calls go whose requests are streams.
    pub calls: &'a mut Vec<Opened>,
    /// Memory for small bodies; see [`crate::limits::HTTP2_BODY_CHUNK_BYTES`].
    pub bodies: &'a mut BytesMut,
    /// A place among the core's unfinished requests, if there is one.
    pub admit: &'a mut dyn FnMut() -> Option<Place>,
}

/// What a connection is told when it begins.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Streams a client may have open at a time.
    pub concurrent_streams_max: u32,
    /// Largest gRPC message taken in, bytes.
    pub message_bytes_max: usize,
    /// Whether the method of a path takes a stream of messages.
    pub takes_stream: fn(&str) -> bool,
}

/// No place is free for a request that does not come at once.
pub(super) const CROWDED: Status =
    Status::new(Code::ResourceExhausted, "etcdserver: too many requests");

/// A header block that goes on in CONTINUATION frames.
struct Block {
    stream: u32,
    end_stream: bool,
    frames: usize,
    bytes: Vec<u8>,
}

/// What the client has said in its SETTINGS.
pub(super) struct Peer {
    /// Largest frame it takes, bytes.
    pub(super) frame_bytes_max: usize,
    /// SETTINGS_INITIAL_WINDOW_SIZE.
    pub(super) stream_window: i64,
}

/// One connection.
pub struct Connection {
    pub(super) rules: Rules,
    /// Bytes of the preface that have not come.
    preface: &'static [u8],
    /// The client's SETTINGS have come, with which it begins.
    greeted: bool,
    /// The beginning of a frame whose end is still to come.
    partial: Vec<u8>,
    block: Option<Block>,
    heads: Heads,
    /// The highest stream that the client has opened.
    last: u32,
    /// What the client may still send on all streams without a WINDOW_UPDATE.
    window: i64,
    empty_frames: usize,
    pub(super) pings: Pings,
    /// Streams reset before an answer, less those that had one.
    resets_ahead: usize,
    /// Streams that we ended before the client did: late frames are no fault of its.
    ended_early: VecDeque<u32>,
    /// SETTINGS_INITIAL_WINDOW_SIZE has grown: no stream's window may now be too large.
    check_windows: bool,
    pub(super) streams: Streams,
    pub(super) peer: Peer,
    /// What the client lets us send on all streams.
    pub(super) send_window: i64,
    /// Streams whose replies wait for room.
    pub(super) stalled: usize,
    /// The stream whose turn it is when there is room for some of them.
    pub(super) turn: u32,
    /// There may be room for them now.
    pub(super) pump_due: bool,
    /// Replies wait for what is on its way out, and what comes later waits behind them.
    pub(super) choked: bool,
    /// Streams on which somebody may wait, and something has happened, oldest first.
    pub(super) stirred: VecDeque<u32>,
    pub(super) out: Vec<u8>,
    /// Bytes of `out` that have left.
    pub(super) out_sent: usize,
    /// We have said GOAWAY, and that this was the last stream we took.
    left_at: Option<u32>,
    /// Nothing is taken any more, and nothing may be said.
    closed: bool,
}

impl Connection {
    /// A connection on which nothing was said yet. Our SETTINGS are the first of [`Self::out`].
    pub fn new(rules: Rules) -> Self {
        let mut out = Vec::new();
        let mut settings = vec![
            (setting::INITIAL_WINDOW_SIZE, HTTP2_STREAM_WINDOW_BYTES),
            (setting::MAX_HEADER_LIST_SIZE, HTTP2_HEADER_BYTES_MAX),
        ];
        if rules.concurrent_streams_max != u32::MAX {
            settings.push((setting::MAX_CONCURRENT_STREAMS, rules.concurrent_streams_max));
        }
        frame::put_settings(&mut out, &settings);
        let window = i64::from(HTTP2_CONNECTION_WINDOW_BYTES);
        let more = (window - frame::WINDOW_DEFAULT) as u32;
        frame::put_word(&mut out, kind::WINDOW_UPDATE, 0, more);
        let (frame_bytes_max, stream_window) = (frame::FRAME_BYTES_MAX, frame::WINDOW_DEFAULT);
        Self {
            rules,
            preface: frame::PREFACE,
            greeted: false,
            partial: Vec::new(),
            block: None,
            heads: Heads::default(),
            last: 0,
            window,
            empty_frames: 0,
            pings: Pings::default(),
            resets_ahead: 0,
            ended_early: VecDeque::new(),
            check_windows: false,
            streams: Streams::default(),
            peer: Peer { frame_bytes_max, stream_window },
            send_window: frame::WINDOW_DEFAULT,
            stalled: 0,
            turn: 0,
            pump_due: false,
            choked: false,
            stirred: VecDeque::new(),
            out,
            out_sent: 0,
            left_at: None,
            closed: false,
        }
    }

    /// Takes in what was read from the socket.
    ///
    /// # Errors
    /// What the client did that ends the connection. The GOAWAY that says so is the last of
    /// [`Self::out`]; what was asked for before is still in `intake`, but nobody will be answered.
    pub fn receive(&mut self, input: &[u8], intake: &mut Intake<'_>) -> Result<(), Goaway> {
        assert!(!self.closed, "nothing is received after the end");
        let opened = self.last;
        let taken = self.take_frames(input, intake).and_then(|()| self.settle(opened, intake));
        if let Err(goaway) = taken {
            frame::put_goaway(&mut self.out, self.left_at.unwrap_or(self.last), goaway);
            self.close();
        }
        taken
    }

    fn take_frames(&mut self, input: &[u8], intake: &mut Intake<'_>) -> Result<(), Goaway> {
        let mut input = self.take_preface(input)?;
        if !self.partial.is_empty() {
            input = self.complete_partial(input, intake)?;
        }
        while let Some((head, payload, rest)) = frame::split(input)? {
            self.on_frame(head, payload, intake)?;
            input = rest;
        }
        self.partial.extend_from_slice(input);
        Ok(())
    }

    fn take_preface<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], Goaway> {
        let (now, rest) = input.split_at(input.len().min(self.preface.len()));
        let preface = self.preface.strip_prefix(now);
        self.preface = preface.ok_or(Goaway::protocol("the preface of HTTP/2 is missing"))?;
        Ok(rest)
    }

    /// Adds to the frame that was cut short only what it lacks.
    fn complete_partial<'a>(
        &mut self,
        mut input: &'a [u8],
        intake: &mut Intake<'_>,
    ) -> Result<&'a [u8], Goaway> {
        let mut partial = mem::take(&mut self.partial);
        loop {
            if let Some((head, payload, _)) = frame::split(&partial)? {
                self.on_frame(head, payload, intake)?;
                partial.clear();
                self.partial = partial;
                return Ok(input);
            }
            let whole = match partial.first_chunk() {
                Some(head) => HEAD_BYTES + Head::read(head)?.len,
                None => HEAD_BYTES,
            };
            let (now, rest) = input.split_at(input.len().min(whole - partial.len()));
            if now.is_empty() {
                self.partial = partial;
                return Ok(rest);
            }
            partial.extend_from_slice(now);
            input = rest;
        }
    }

    fn on_frame(
        &mut self,
        head: Head,
        payload: &[u8],
        intake: &mut Intake<'_>,
    ) -> Result<(), Goaway> {
        if !self.greeted && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Goaway::protocol("the first frame is not SETTINGS"));
        }
        if self.block.is_some() && head.kind != kind::CONTINUATION {
            return Err(Goaway::protocol("a header block is interrupted"));
        }
        match head.kind {
            kind::DATA => self.on_data(head, payload, intake),
            kind::HEADERS => self.on_headers(head, payload, intake),
            kind::PRIORITY => self.on_priority(head, payload),
            kind::RST_STREAM => self.on_reset(head, payload),
            kind::SETTINGS => self.on_settings(head, payload),
            kind::PUSH_PROMISE => Err(Goaway::protocol("a client may not push")),
            kind::PING => self.on_ping(head, payload, intake.now),
            kind::GOAWAY => on_goaway(head, payload),
            kind::WINDOW_UPDATE => self.on_window_update(head, payload),
            kind::CONTINUATION => self.on_continuation(head, payload, intake),
            _unknown => Ok(()),
        }
    }

    /// What is done once for all frames of a read.
    fn settle(&mut self, opened: u32, intake: &mut Intake<'_>) -> Result<(), Goaway> {
        if mem::take(&mut self.check_windows) {
            let initial = self.peer.stream_window;
            if self.streams.iter().any(|stream| initial + stream.credit > frame::WINDOW_MAX) {
                return Err(too_much_window());
            }
        }
        self.admit_unfinished(opened, intake);
        let whole = i64::from(HTTP2_CONNECTION_WINDOW_BYTES);
        if self.window <= whole / 2 {
            let used = (whole - self.window) as u32;
            frame::put_word(&mut self.out, kind::WINDOW_UPDATE, 0, used);
            self.window = whole;
        }
        if mem::take(&mut self.pump_due) {
            self.pump();
        }
        Ok(())
    }

    /// Requests that this read has begun and not ended take a place, or are refused.
    fn admit_unfinished(&mut self, opened: u32, intake: &mut Intake<'_>) {
        let mut refused = Vec::new();
        let new = self.streams.iter().rev().take_while(|stream| stream.id > opened).count();
        for at in self.streams.len() - new..self.streams.len() {
            let stream = &mut self.streams[at];
            if stream.incoming.is_some() {
                continue; // a call takes a place only if it holds much
            }
            let Some(receiving) = &mut stream.receiving else { continue };
            match (intake.admit)() {
                Some(place) => receiving.gathered.get_or_insert_default().place = Some(place),
                None => refused.push(stream.id),
            }
        }
        for id in refused {
            self.refuse(id, &CROWDED);
        }
    }
}

fn too_much_window() -> Goaway {
    Goaway { reason: Reason::FlowControl, why: "a window is larger than 2^31-1" }
}

fn on_goaway(head: Head, payload: &[u8]) -> Result<(), Goaway> {
    match (head.stream, payload.len()) {
        (0, 8..) => Ok(()), // it opens no more streams; those that are open go on
        (0, _) => Err(Goaway::size("GOAWAY has at least eight bytes")),
        _ => Err(Goaway::protocol("GOAWAY on a stream")),
    }
}

// ── headers ─────────────────────────────────────────────────────────────────────────────────────

impl Connection {
    fn on_headers(
        &mut self,
        head: Head,
        payload: &[u8],
        intake: &mut Intake<'_>,
    ) -> Result<(), Goaway> {
        if head.stream.is_multiple_of(2) {
            return Err(Goaway::protocol("a client's streams have odd numbers"));
        }
        let mut block = frame::unpad(head, payload)?;
        if head.has(flag::PRIORITY) {
            block = block.get(5..).ok_or(Goaway::size("no room for a priority"))?;
        }
        let end_stream = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.on_block(head.stream, end_stream, block, intake);
        }
        let bytes = block.to_vec();
        self.block = Some(Block { stream: head.stream, end_stream, frames: 0, bytes });
        Ok(())
    }

    fn on_continuation(
        &mut self,
        head: Head,
        payload: &[u8],
        intake: &mut Intake<'_>,
    ) -> Result<(), Goaway> {
        let Some(mut block) = self.block.take_if(|block| block.stream == head.stream) else {
            return Err(Goaway::protocol("CONTINUATION of nothing"));
        };
        block.frames += 1;
        block.bytes.extend_from_slice(payload);
        if block.frames > HTTP2_CONTINUATIONS_MAX
            || block.bytes.len() > HTTP2_HEADER_BYTES_MAX as usize
        {
            return Err(Goaway::calm("a header block is too long"));
        }
        if head.has(flag::END_HEADERS) {
            return self.on_block(block.stream, block.end_stream, &block.bytes, intake);
        }
        self.block = Some(block);
        Ok(())
    }

    fn on_block(
        &mut self,
        id: u32,
        end: bool,
        block: &[u8],
        intake: &mut Intake<'_>,
    ) -> Result<(), Goaway> {
        if id <= self.last {
            return self.on_trailers(id, end, block, intake);
        }
        self.last = id;
        if self.left_at.is_some() {
            return self.heads.skip(block); // §6.8: it will try again elsewhere
        }
        if self.streams.len() >= self.rules.concurrent_streams_max as usize {
            self.heads.skip(block)?;
            return self.reset_unopened(id, Reason::RefusedStream);
        }
        match self.heads.request(block, self.rules.takes_stream)? {
            Ok(head) => self.open_request(id, end, head, intake),
            Err(Malformed(_rule)) => self.reset_unopened(id, Reason::Protocol),
        }
    }

    fn open_request(
        &mut self,
        id: u32,
        end: bool,
        head: RequestHead,
        intake: &mut Intake<'_>,
    ) -> Result<(), Goaway> {
        let receiving = Receiving {
            path: head.path,
            metadata: head.metadata,
            window: i64::from(HTTP2_STREAM_WINDOW_BYTES),
            promised: head.body_bytes,
            gathered: None,
        };
        self.streams.push(Stream {
            id,
            receiving: Some(receiving),
            credit: 0,
            headed: false,
            awaited: false,
            incoming: None,
            sending: None,
        });
        let at = self.streams.len() - 1;
        let refusal = match head.kind {
            Kind::Grpc if end => return self.deliver(at, Bytes::new(), intake),
            Kind::Grpc => return Ok(()),
            Kind::GrpcStream => return self.open_call(at, end, intake),
            Kind::NotPost => reply::NOT_POST,
            Kind::NotGrpc => reply::NOT_GRPC,
            Kind::TooLarge => reply::TOO_LARGE,
        };
        if end {
            self.streams[at].receiving = None;
        }
        self.say_all(at, refusal);
        Ok(())
    }

    fn open_call(&mut self, at: usize, end: bool, intake: &mut Intake<'_>) -> Result<(), Goaway> {
        let stream = &mut self.streams[at];
        (stream.awaited, stream.incoming) = (true, Some(Box::default()));
        let receiving = stream.receiving.as_ref().expect("its headers have just come");
        let (path, metadata) = (receiving.path.clone(), receiving.metadata);
        intake.calls.push(Opened { stream: stream.id, path, metadata });
        if end { self.on_call_end(at) } else { Ok(()) }
    }

    fn on_trailers(
        &mut self,
        id: u32,
        end: bool,
        block: &[u8],
        intake: &mut Intake<'_>,
    ) -> Result<(), Goaway> {
        let legal = self.heads.trailers(block)?.is_ok();
        let Some(at) = self.streams.find(id) else {
            // grpc-go as well ends the connection here: a new stream's number must rise (§5.1.1).
            let late = self.may_be_late(id);
            return if late { Ok(()) } else { Err(Goaway::protocol("HEADERS on a closed stream")) };
        };
        let stream = &mut self.streams[at];
        let Some(receiving) = &mut stream.receiving else {
            return self.reset(at, Reason::StreamClosed);
        };
        if !end || !legal {
            return self.reset(at, Reason::Protocol);
        }
        if stream.incoming.is_some() {
            return self.on_call_end(at);
        }
        let body = receiving.gathered.take().map_or(Bytes::new(), |body| body.bytes.freeze());
        self.deliver(at, body, intake)
    }

    /// DATA on a stream that is no more (§5.1 "closed").
    fn on_late_data(&mut self, id: u32) -> Result<(), Goaway> {
        if !self.may_be_late(id) {
            frame::put_word(&mut self.out, kind::RST_STREAM, id, Reason::StreamClosed as u32);
        }
        Ok(())
    }

    /// Whether the client may not have heard yet that we ended a stream, or take no more.
    fn may_be_late(&self, id: u32) -> bool {
        self.left_at.is_some_and(|last| id > last) || self.ended_early.contains(&id)
    }
}

// ── bodies ──────────────────────────────────────────────────────────────────────────────────────

impl Connection {
    fn on_data(
        &mut self,
        head: Head,
        payload: &[u8],
        intake: &mut Intake<'_>,
    ) -> Result<(), Goaway> {
        self.must_be_known(head.stream)?;
        let data = frame::unpad(head, payload)?;
        let end = head.has(flag::END_STREAM);
        // Padding counts as well (§6.9.1).
        self.window -= payload.len() as i64;
        if self.window < 0 {
            let why = "more DATA than the connection's window";
            return Err(Goaway { reason: Reason::FlowControl, why });
        }
        self.empty_frames = if data.is_empty() && !end { self.empty_frames + 1 } else { 0 };
        if self.empty_frames > HTTP2_EMPTY_FRAMES_MAX {
            return Err(Goaway::calm("too many empty frames"));
        }
        let Some(at) = self.streams.find(head.stream) else {
            return self.on_late_data(head.stream);
        };
        let stream = &mut self.streams[at];
        let Some(receiving) = &mut stream.receiving else {
            return self.reset(at, Reason::StreamClosed);
        };
        receiving.window -= payload.len() as i64;
        if receiving.window < 0 {
            return self.reset(at, Reason::FlowControl);
        }
        if let Some(promised) = &mut receiving.promised {
            match promised.checked_sub(data.len() as u64) {
                Some(left) => *promised = left,
                None => return self.reset(at, Reason::Protocol),
            }
        }
        match &receiving.gathered {
            _ if stream.incoming.is_some() => self.on_call_data(at, data, end, intake),
            None if end => {
                let body = copy(data, intake.bodies);
                self.deliver(at, body, intake)
            }
            _ => self.gather(at, data, end, intake),
        }
    }

    /// Adds to a body that comes in parts. It never outgrows the message that it says it is.
    fn gather(
        &mut self,
        at: usize,
        data: &[u8],
        end: bool,
        intake: &mut Intake<'_>,
    ) -> Result<(), Goaway> {
        let bytes_max = self.rules.message_bytes_max;
        let stream = &mut self.streams[at];
        let receiving =
            stream.receiving.as_mut().expect("only a request that comes in is gathered");
        let body = &mut receiving.gathered.get_or_insert_default().bytes;
        match grow(body, data, bytes_max) {
            Ok(()) if end => {
                let body = mem::take(body).freeze();
                self.deliver(at, body, intake)
            }
            Ok(()) => {
                let whole = i64::from(HTTP2_STREAM_WINDOW_BYTES);
                if receiving.window <= whole / 2 {
                    let used = (whole - receiving.window) as u32;
                    frame::put_word(&mut self.out, kind::WINDOW_UPDATE, stream.id, used);
                    receiving.window = whole;
                }
                Ok(())
            }
            Err(status) => {
                if end {
                    stream.receiving = None;
                }
                let id = stream.id;
                self.refuse(id, &status);
                Ok(())
            }
        }
    }

    /// The client has ended its side.
    fn deliver(&mut self, at: usize, body: Bytes, intake: &mut Intake<'_>) -> Result<(), Goaway> {
        let stream = &mut self.streams[at];
        let receiving = stream.receiving.take().expect("only a request that comes in is delivered");
        if receiving.promised.is_some_and(|left| left > 0) {
            return self.reset(at, Reason::Protocol);
        }
        let Receiving { path, metadata, .. } = receiving;
        intake.requests.push(Request { stream: stream.id, path, metadata, body });
        Ok(())
    }
}

/// Copies a small body out of the read buffer.
pub(super) fn copy(data: &[u8], bodies: &mut BytesMut) -> Bytes {
    bodies.extend_from_slice(data);
    bodies.split().freeze()
}

/// Adds to a body in parts, refusing what no unary call may send.
fn grow(body: &mut BytesMut, data: &[u8], bytes_max: usize) -> Result<(), Status> {
    body.extend_from_slice(data);
    let Some(message) = grpc::message_len(body, bytes_max)? else { return Ok(()) };
    let Some(left) = (grpc::PREFIX_BYTES + message).checked_sub(body.len()) else {
        return Err(Status::new(Code::Internal, "grpc: more than one message in a unary request"));
    };
    // Room for what is promised, but not for much more than what has come.
    if body.capacity() - body.len() < left.min(frame::FRAME_BYTES_MAX) {
        body.reserve(left.min(HTTP2_BODY_AHEAD_BYTES_MAX.max(body.len())));
    }
    Ok(())
}

// ── the rest ────────────────────────────────────────────────────────────────────────────────────

impl Connection {
    /// DATA, WINDOW_UPDATE and RST_STREAM are for streams that were opened (§5.1 "idle").
    fn must_be_known(&self, id: u32) -> Result<(), Goaway> {
        let opened = id <= self.last && !id.is_multiple_of(2);
        if opened { Ok(()) } else { Err(Goaway::protocol("a frame on a stream never opened")) }
    }

    fn on_priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Goaway> {
        match (head.stream, payload.len()) {
            (0, _) => Err(Goaway::protocol("PRIORITY on no stream")),
            (_, 5) => Ok(()), // deprecated (§5.3.2)
            (id, _) => match self.streams.find(id) {
                Some(at) => self.reset(at, Reason::FrameSize),
                None => Err(Goaway::size("PRIORITY has five bytes")),
            },
        }
    }

    fn on_reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Goaway> {
        let _reason = frame::word(payload)?;
        self.must_be_known(head.stream)?;
        let Some(at) = self.streams.find(head.stream) else { return Ok(()) };
        let headed = self.streams[at].headed;
        self.forget(at);
        if headed { Ok(()) } else { self.count_reset() }
    }

    fn on_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Goaway> {
        if head.stream != 0 {
            return Err(Goaway::protocol("SETTINGS on a stream"));
        }
        if head.has(flag::ACK) {
            let empty = payload.is_empty();
            return if empty { Ok(()) } else { Err(Goaway::size("an ACK of SETTINGS is empty")) };
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Goaway::size("SETTINGS have six bytes each"));
        }
        for &[n0, n1, v0, v1, v2, v3] in settings {
            self.set(u16::from_be_bytes([n0, n1]), u32::from_be_bytes([v0, v1, v2, v3]))?;
        }
        self.greeted = true;
        frame::put_head(&mut self.out, 0, kind::SETTINGS, flag::ACK, 0);
        Ok(())
    }

    /// Those that bind a server which neither pushes, nor has a header table, nor opens streams.
    fn set(&mut self, name: u16, value: u32) -> Result<(), Goaway> {
        match (name, value as usize) {
            (setting::ENABLE_PUSH, 2..) => Err(Goaway::protocol("ENABLE_PUSH is 0 or 1")),
            (setting::INITIAL_WINDOW_SIZE, _) => {
                if i64::from(value) > frame::WINDOW_MAX {
                    return Err(too_much_window());
                }
                self.peer.stream_window = i64::from(value);
                (self.check_windows, self.pump_due) = (true, true);
                Ok(())
            }
            (setting::MAX_FRAME_SIZE, bytes) => {
                if !(frame::FRAME_BYTES_MAX..=frame::FRAME_BYTES_LEGAL_MAX).contains(&bytes) {
                    return Err(Goaway::protocol("MAX_FRAME_SIZE is out of range"));
                }
                self.peer.frame_bytes_max = bytes;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_ping(&mut self, head: Head, payload: &[u8], now: Duration) -> Result<(), Goaway> {
        if payload.len() != 8 {
            return Err(Goaway::size("PING has eight bytes"));
        }
        if head.stream != 0 {
            return Err(Goaway::protocol("PING on a stream"));
        }
        if head.has(flag::ACK) {
            return Ok(());
        }
        frame::put_head(&mut self.out, payload.len(), kind::PING, flag::ACK, 0);
        self.out.extend_from_slice(payload);
        let too_many = self.pings.on_ping(now, !self.streams.is_empty());
        // The words that clients of grpc-go look for.
        if too_many { Err(Goaway::calm("too_many_pings")) } else { Ok(()) }
    }

    fn on_window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Goaway> {
        let more = i64::from(frame::word(payload)? & 0x7fff_ffff);
        self.pump_due = self.stalled > 0;
        if head.stream == 0 {
            self.send_window += more;
            return match more {
                0 => Err(Goaway::protocol("a WINDOW_UPDATE of nothing")),
                _ if self.send_window > frame::WINDOW_MAX => Err(too_much_window()),
                _ => Ok(()),
            };
        }
        self.must_be_known(head.stream)?;
        let Some(at) = self.streams.find(head.stream) else { return Ok(()) };
        let stream = &mut self.streams[at];
        stream.credit += more;
        match more {
            0 => self.reset(at, Reason::Protocol),
            _ if self.peer.stream_window + stream.credit > frame::WINDOW_MAX => {
                self.reset(at, Reason::FlowControl)
            }
            _ => Ok(()),
        }
    }
}

// ── how streams and connections end ─────────────────────────────────────────────────────────────

impl Connection {
    /// A stream's error that is the client's (§5.4.2).
    pub(super) fn reset(&mut self, at: usize, reason: Reason) -> Result<(), Goaway> {
        let id = self.streams[at].id;
        self.forget(at);
        self.reset_unopened(id, reason)
    }

    fn reset_unopened(&mut self, id: u32, reason: Reason) -> Result<(), Goaway> {
        self.put_reset(id, reason);
        self.count_reset()
    }

    fn count_reset(&mut self) -> Result<(), Goaway> {
        self.resets_ahead += 1;
        if self.resets_ahead > HTTP2_RESETS_AHEAD_MAX {
            return Err(Goaway::calm("too many streams reset"));
        }
        Ok(())
    }

    /// We have begun an answer.
    pub(super) fn on_headed(&mut self) {
        self.resets_ahead = self.resets_ahead.saturating_sub(1);
        self.pings.forgive();
    }

    /// Ends a stream, which the client may not know yet.
    pub(super) fn put_reset(&mut self, id: u32, reason: Reason) {
        frame::put_word(&mut self.out, kind::RST_STREAM, id, reason as u32);
        if self.ended_early.len() == HTTP2_STREAMS_ENDED_EARLY_MAX {
            self.ended_early.pop_front();
        }
        self.ended_early.push_back(id);
    }

    /// A stream is over, one way or the other.
    pub(super) fn forget(&mut self, at: usize) -> Stream {
        let stream = self.streams.remove(at);
        self.stalled -= usize::from(stream.is_stalled());
        if stream.awaited {
            self.stirred.push_back(stream.id);
        }
        stream
    }

    /// Says that no new streams are taken, and ends those that would never end by themselves. The
    /// connection is over once all are.
    pub fn leave(&mut self) {
        if self.left_at.is_none() && !self.closed {
            self.left_at = Some(self.last);
            let why = "the server is going down";
            let goaway = Goaway { reason: Reason::NoError, why };
            frame::put_goaway(&mut self.out, self.last, goaway);
            let calls = self.streams.iter().filter(|stream| stream.incoming.is_some());
            for id in calls.map(|stream| stream.id).collect::<Vec<_>>() {
                self.finish(id, Some(&status::STOPPED));
            }
        }
    }

    /// Whether nothing is on its way to the client.
    pub fn is_quiet(&self) -> bool {
        self.out().is_empty() && self.stalled == 0
    }

    /// Whether there is nothing left to be said.
    pub fn is_over(&self) -> bool {
        self.out().is_empty() && (self.closed || self.left_at.is_some() && self.streams.is_empty())
    }

    /// Gives up all streams; what is in [`Self::out`] may still be sent.
    pub fn close(&mut self) {
        let waiting = self.streams.iter().filter(|stream| stream.awaited);
        self.stirred.extend(waiting.map(|stream| stream.id));
        self.streams.clear();
        self.stalled = 0;
        self.closed = true;
    }

    /// From now on somebody waits for what happens to a stream.
    pub fn heed(&mut self, id: u32) {
        if let Some(at) = self.streams.find(id) {
            self.streams[at].awaited = true;
        }
    }

    /// The next stream on which somebody may wait and something has happened.
    pub fn next_stirred(&mut self) -> Option<u32> {
        self.stirred.pop_front()
    }

    /// Nothing is under way: buffers give back what they hold beyond `bytes_max`.
    pub fn rest(&mut self, bytes_max: usize) {
        for buffer in [&mut self.out, &mut self.partial] {
            if buffer.is_empty() && buffer.capacity() > bytes_max {
                *buffer = Vec::new();
            }
        }
        self.streams.rest();
    }
}
