//! The client's half of one HTTP/2 connection (RFC 9113): bytes in, bytes and events out. It knows
//! no socket and no clock, so both the blocking client and the engine drive it.
//!
//! ```text
//!   request(tag, head, body) ──►┌────────────┐──► out(): what to write, then sent(n)
//!   open, send .. send, finish ─►│ Connection │
//!        receive(bytes read) ──►└────────────┘──► Event { tag, .. } for each open stream
//! ```
//!
//! It is strict: a server that breaks the protocol is reported, not worked around.

mod streams;

use std::{
    fmt, mem,
    ops::{Range, RangeInclusive},
};

use streams::Streams;

use crate::hpack::{self, Malformed};

/// What opens every connection, ours first (§3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, kind, flags and stream of a frame (§4.1).
const FRAME_HEAD_BYTES: usize = 9;
/// Largest payload we accept: the default, which we leave as it is (§6.5.2).
const FRAME_BYTES_MAX: usize = 16_384;
/// What a peer may set for itself (§6.5.2).
const FRAME_BYTES_RANGE: RangeInclusive<usize> = FRAME_BYTES_MAX..=(1 << 24) - 1;
/// Headers of one answer. Ours are a few hundred bytes; an error's text may be some kilobytes.
const HEADER_BLOCK_BYTES_MAX: usize = 1 << 20;
/// What may be on its way to us, per stream and per connection: as much as there is (§6.9.1).
const WINDOW_MAX: i64 = (1 << 31) - 1;
/// What both sides start with (§6.9.2).
const WINDOW_DEFAULT: i64 = 65_535;
/// Streams are odd and below 2^31 (§5.1.1).
const STREAM_MAX: u32 = (1 << 31) - 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// Why a connection is of no more use.
#[derive(Debug)]
pub enum Broken {
    /// A header block could not be read.
    Headers(Malformed),
    /// The server broke a rule of RFC 9113, named here.
    Protocol(&'static str),
    /// The server said GOAWAY: the error code, and the text it gave.
    GoAway(u32, String),
    /// The server allows this many streams at a time, and so many are open.
    TooManyStreams(usize),
    /// All 2^30 stream numbers were used.
    StreamsUsedUp,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headers(malformed) => write!(f, "{malformed}"),
            Self::Protocol(rule) => write!(f, "HTTP/2: {rule}"),
            Self::GoAway(code, text) => write!(f, "the server said GOAWAY: code {code} {text:?}"),
            Self::TooManyStreams(max) => write!(f, "the server allows {max} streams at a time"),
            Self::StreamsUsedUp => write!(f, "all stream numbers of the connection are used"),
        }
    }
}

impl std::error::Error for Broken {}

/// What a gRPC client wants to know of a header block. Later blocks of a stream add to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// `:status`, in the first block of an answer.
    pub http_status: Option<u16>,
    /// `grpc-status`, in the last block.
    pub grpc_status: Option<i32>,
    /// `grpc-message` as sent, percent-encoded.
    pub grpc_message: String,
}

impl Fields {
    fn decode(block: &[u8]) -> Result<Self, Broken> {
        let mut fields = Self::default();
        hpack::decode(block, |name, value| {
            let text = String::from_utf8_lossy(value);
            match name {
                b":status" => fields.http_status = text.parse().ok(),
                b"grpc-status" => fields.grpc_status = text.parse().ok(),
                b"grpc-message" => fields.grpc_message = text.into_owned(),
                _ => {}
            }
        })
        .map_err(Broken::Headers)?;
        Ok(fields)
    }
}

/// What happened to a stream, named by the tag its request was given.
#[derive(Debug)]
pub enum Event<'a> {
    /// A whole header block, leading or trailing.
    Headers(&'a Fields),
    /// Some bytes of the body.
    Data(&'a [u8]),
    /// The answer is whole. The last event of a stream.
    End,
    /// The server gave the stream up, with this error code. The last event of a stream.
    Reset(u32),
}

#[derive(Debug)]
struct Stream {
    tag: usize,
    /// What the server still takes of our body.
    send_window: i64,
    /// What of our body waits for the window.
    unsent: Vec<u8>,
    /// The body is whole: its last byte ends our half of the stream.
    whole: bool,
    /// Bytes received and not yet given back to the server's window.
    owed: i64,
}

/// How much may be on its way to us, of each stream and of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// As much as there is, given back as it is used.
    Wide,
    /// What a connection starts with, and never more: a client that stopped reading, as a server
    /// sees it.
    Shut,
}

impl Window {
    fn bytes(self) -> i64 {
        match self {
            Self::Wide => WINDOW_MAX,
            Self::Shut => WINDOW_DEFAULT,
        }
    }

    /// Counts received bytes, and gives the window back once half of it is used.
    fn take(
        self,
        owed: &mut i64,
        bytes: usize,
        stream: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        *owed += bytes as i64;
        if *owed > self.bytes() {
            return Err(Broken::Protocol("more DATA than the window allowed"));
        }
        if self == Self::Wide && *owed > WINDOW_MAX / 2 {
            put_u32(out, WINDOW_UPDATE, stream, *owed as u32);
            *owed = 0;
        }
        Ok(())
    }
}

/// A header block that goes on in CONTINUATION frames.
#[derive(Debug)]
struct Block {
    stream: u32,
    end: bool,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Head {
    bytes: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    out: Vec<u8>,
    out_sent: usize,
    /// The beginning of a frame whose end is still to come.
    partial: Vec<u8>,
    block: Option<Block>,
    streams: Streams,
    next_stream: u32,
    greeted: bool,
    send_window: i64,
    stream_window: i64,
    frame_bytes_max: usize,
    streams_max: usize,
    owed: i64,
    receive_window: Window,
    goaway: Option<(u32, String)>,
    /// The two header blocks seen last, which are those of nearly every answer.
    seen: [(Vec<u8>, Fields); 2],
    seen_next: usize,
}

impl Default for Connection {
    fn default() -> Self {
        Self::new(Window::Wide)
    }
}

impl Connection {
    /// A connection that has its greeting to write.
    pub fn new(receive_window: Window) -> Self {
        let mut out = PREFACE.to_vec();
        let window = receive_window.bytes();
        let settings =
            [(HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, window as u32)];
        put_head(&mut out, settings.len() * 6, SETTINGS, 0, 0);
        for (name, value) in settings {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        if window > WINDOW_DEFAULT {
            put_u32(&mut out, WINDOW_UPDATE, 0, (window - WINDOW_DEFAULT) as u32);
        }
        Self {
            out,
            out_sent: 0,
            partial: Vec::new(),
            block: None,
            streams: Streams::default(),
            next_stream: 1,
            greeted: false,
            send_window: WINDOW_DEFAULT,
            stream_window: WINDOW_DEFAULT,
            frame_bytes_max: FRAME_BYTES_MAX,
            streams_max: usize::MAX,
            owed: 0,
            receive_window,
            goaway: None,
            seen: Default::default(),
            seen_next: 0,
        }
    }
}

// ── what we say ─────────────────────────────────────────────────────────────────────────────────

impl Connection {
    /// What is to be written to the socket.
    pub fn out(&self) -> &[u8] {
        &self.out[self.out_sent..]
    }

    /// The first `bytes` of [`Self::out`] are written.
    pub fn sent(&mut self, bytes: usize) {
        self.out_sent += bytes;
        assert!(self.out_sent <= self.out.len(), "no more is sent than there was");
        if self.out_sent == self.out.len() {
            self.out.clear();
            self.out_sent = 0;
        }
    }

    /// Whether the server's SETTINGS have come, with which it begins.
    pub fn greeted(&self) -> bool {
        self.greeted
    }

    /// Whether no stream is open.
    pub fn is_quiet(&self) -> bool {
        self.streams.len() == 0
    }

    /// Opens a stream with a header block and a whole body. Its events will name `tag`.
    ///
    /// Returns the stream's number. Refused where the server would not take another stream.
    pub fn request(&mut self, tag: usize, head: &[u8], body: &[u8]) -> Result<u32, Broken> {
        let (number, mut stream) = self.begin(tag, head)?;
        stream.whole = true;
        let taken = self.send_body(number, &mut stream.send_window, body, true);
        if taken < body.len() {
            stream.unsent.extend_from_slice(&body[taken..]);
        } else if body.is_empty() {
            put_head(&mut self.out, 0, DATA, END_STREAM, number);
        }
        self.streams.open(number, stream);
        Ok(number)
    }

    /// Opens a stream with a header block, and a body that comes bit by bit: [`Self::send`], and at
    /// last [`Self::finish`]. As [`Self::request`] otherwise.
    pub fn open(&mut self, tag: usize, head: &[u8]) -> Result<u32, Broken> {
        let (number, stream) = self.begin(tag, head)?;
        self.streams.open(number, stream);
        Ok(number)
    }

    /// More of an open stream's body. Nothing is sent on a stream that is over.
    pub fn send(&mut self, number: u32, body: &[u8]) {
        let Some(stream) = self.streams.get_mut(number) else { return };
        assert!(!stream.whole, "a body goes on until it is whole");
        let (waits, mut window) = (!stream.unsent.is_empty(), stream.send_window);
        let taken = if waits { 0 } else { self.send_body(number, &mut window, body, false) };
        let stream = self.streams.get_mut(number).expect("sending ends no stream");
        stream.send_window = window;
        stream.unsent.extend_from_slice(&body[taken..]);
    }

    /// An open stream's body is whole: our half of the stream ends.
    pub fn finish(&mut self, number: u32) {
        let Some(stream) = self.streams.get_mut(number) else { return };
        stream.whole = true;
        if stream.unsent.is_empty() {
            put_head(&mut self.out, 0, DATA, END_STREAM, number);
        }
    }

    /// Says the headers of a new stream.
    fn begin(&mut self, tag: usize, head: &[u8]) -> Result<(u32, Stream), Broken> {
        if let Some((code, text)) = &self.goaway {
            return Err(Broken::GoAway(*code, text.clone()));
        }
        if self.streams.len() >= self.streams_max {
            return Err(Broken::TooManyStreams(self.streams_max));
        }
        if self.next_stream > STREAM_MAX {
            return Err(Broken::StreamsUsedUp);
        }
        assert!(head.len() <= FRAME_BYTES_MAX, "the headers of a request fit one frame");
        let number = self.next_stream;
        self.next_stream += 2;
        put_head(&mut self.out, head.len(), HEADERS, END_HEADERS, number);
        self.out.extend_from_slice(head);
        let send_window = self.stream_window;
        Ok((number, Stream { tag, send_window, unsent: Vec::new(), whole: false, owed: 0 }))
    }

    /// Gives up a stream: no more events come of it.
    pub fn cancel(&mut self, stream: u32) {
        if self.streams.remove(stream).is_some() {
            put_u32(&mut self.out, RST_STREAM, stream, CANCEL);
        }
    }

    /// Sends what both windows let through of a body's rest. If it is whole, the last frame ends the
    /// stream.
    fn send_body(
        &mut self,
        stream: u32,
        stream_window: &mut i64,
        body: &[u8],
        whole: bool,
    ) -> usize {
        let mut taken = 0;
        while taken < body.len() {
            let window = self.send_window.min(*stream_window).max(0) as usize;
            let part = (body.len() - taken).min(window).min(self.frame_bytes_max);
            if part == 0 {
                break;
            }
            let flags = if whole && taken + part == body.len() { END_STREAM } else { 0 };
            put_head(&mut self.out, part, DATA, flags, stream);
            self.out.extend_from_slice(&body[taken..taken + part]);
            self.send_window -= part as i64;
            *stream_window -= part as i64;
            taken += part;
        }
        taken
    }

    /// A window grew: goes on with the bodies that wait, oldest first.
    fn send_unsent(&mut self) {
        let mut streams = mem::take(&mut self.streams);
        for (number, stream) in streams.iter_mut().filter(|(_, stream)| !stream.unsent.is_empty()) {
            let Stream { send_window, unsent, whole, .. } = stream;
            let taken = self.send_body(number, send_window, unsent, *whole);
            stream.unsent.drain(..taken);
        }
        self.streams = streams;
    }
}

fn put_head(out: &mut Vec<u8>, bytes: usize, kind: u8, flags: u8, stream: u32) {
    let length = (bytes as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags, s0, s1, s2, s3]);
}

/// A frame of four bytes: WINDOW_UPDATE or RST_STREAM.
fn put_u32(out: &mut Vec<u8>, kind: u8, stream: u32, value: u32) {
    put_head(out, 4, kind, 0, stream);
    out.extend_from_slice(&value.to_be_bytes());
}

// ── what we hear ────────────────────────────────────────────────────────────────────────────────

impl Connection {
    /// Takes what was read from the socket, and calls `on` for everything that follows from it.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        mut on: impl FnMut(usize, Event<'_>),
    ) -> Result<(), Broken> {
        let mut held = mem::take(&mut self.partial);
        if held.is_empty() {
            let used = self.frames(bytes, &mut on)?;
            held.extend_from_slice(&bytes[used..]);
        } else {
            held.extend_from_slice(bytes);
            let used = self.frames(&held, &mut on)?;
            held.drain(..used);
        }
        self.partial = held;
        Ok(())
    }

    /// Takes the whole frames that `bytes` begins with; returns their length.
    fn frames(
        &mut self,
        bytes: &[u8],
        on: &mut impl FnMut(usize, Event<'_>),
    ) -> Result<usize, Broken> {
        let mut used = 0;
        while let Some(fields) = bytes[used..].first_chunk::<FRAME_HEAD_BYTES>() {
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *fields;
            let stream = u32::from_be_bytes([s0, s1, s2, s3]) & STREAM_MAX;
            let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            let head = Head { bytes: length, kind, flags, stream };
            if !self.greeted && kind != SETTINGS {
                return Err(Broken::Protocol("the server did not begin with SETTINGS"));
            }
            if length > FRAME_BYTES_MAX {
                return Err(Broken::Protocol("a frame is larger than was allowed"));
            }
            let payload = used + FRAME_HEAD_BYTES;
            let Some(payload) = bytes.get(payload..payload + length) else { break };
            self.frame(head, payload, on)?;
            used += FRAME_HEAD_BYTES + length;
        }
        Ok(used)
    }

    fn frame(
        &mut self,
        head: Head,
        payload: &[u8],
        on: &mut impl FnMut(usize, Event<'_>),
    ) -> Result<(), Broken> {
        if self.block.is_some() != (head.kind == CONTINUATION) {
            return Err(Broken::Protocol(
                "CONTINUATION frames follow their HEADERS, and only they",
            ));
        }
        match head.kind {
            DATA => self.on_data(head, payload, on),
            HEADERS => self.on_headers(head, payload, on),
            CONTINUATION => self.on_continuation(head, payload, on),
            RST_STREAM => {
                let code = u32_of(payload)?;
                if let Some(stream) = self.streams.remove(head.stream) {
                    on(stream.tag, Event::Reset(code));
                }
                Ok(())
            }
            SETTINGS => self.on_settings(head, payload),
            PUSH_PROMISE => Err(Broken::Protocol("a push was not allowed")),
            PING => self.on_ping(head, payload),
            GOAWAY => self.on_goaway(payload, on),
            WINDOW_UPDATE => self.on_window_update(head, payload),
            // PRIORITY says nothing to a client; unknown kinds are ignored (§5.5).
            _ => Ok(()),
        }
    }

    fn on_data(
        &mut self,
        head: Head,
        payload: &[u8],
        on: &mut impl FnMut(usize, Event<'_>),
    ) -> Result<(), Broken> {
        if !self.was_opened(head.stream) {
            return Err(Broken::Protocol("DATA on a stream that nobody opened"));
        }
        let end = head.flags & END_STREAM != 0;
        // Padding counts too (§6.9.1).
        let window = self.receive_window;
        window.take(&mut self.owed, head.bytes, 0, &mut self.out)?;
        let Some(stream) = self.streams.get_mut(head.stream) else { return Ok(()) };
        let tag = stream.tag;
        if !end {
            window.take(&mut stream.owed, head.bytes, head.stream, &mut self.out)?;
        }
        on(tag, Event::Data(&payload[unpadded(head, payload)?]));
        if end {
            self.end(head.stream, on);
        }
        Ok(())
    }

    fn on_headers(
        &mut self,
        head: Head,
        payload: &[u8],
        on: &mut impl FnMut(usize, Event<'_>),
    ) -> Result<(), Broken> {
        if !self.was_opened(head.stream) {
            return Err(Broken::Protocol("HEADERS on a stream that nobody opened"));
        }
        let mut block = &payload[unpadded(head, payload)?];
        if head.flags & PRIORITY != 0 {
            block =
                block.get(5..).ok_or(Broken::Protocol("HEADERS shorter than their priority"))?;
        }
        let end = head.flags & END_STREAM != 0;
        if head.flags & END_HEADERS != 0 {
            return self.on_block(head.stream, end, block, on);
        }
        self.block = Some(Block { stream: head.stream, end, bytes: block.to_vec() });
        Ok(())
    }

    fn on_continuation(
        &mut self,
        head: Head,
        payload: &[u8],
        on: &mut impl FnMut(usize, Event<'_>),
    ) -> Result<(), Broken> {
        let mut block = self.block.take().expect("frame() lets no other CONTINUATION through");
        if block.stream != head.stream {
            return Err(Broken::Protocol("CONTINUATION of another stream's HEADERS"));
        }
        block.bytes.extend_from_slice(payload);
        if block.bytes.len() > HEADER_BLOCK_BYTES_MAX {
            return Err(Broken::Protocol("a header block is too large"));
        }
        if head.flags & END_HEADERS != 0 {
            return self.on_block(block.stream, block.end, &block.bytes, on);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A header block is whole. One seen before is not decoded again: no state lies between blocks.
    fn on_block(
        &mut self,
        number: u32,
        end: bool,
        block: &[u8],
        on: &mut impl FnMut(usize, Event<'_>),
    ) -> Result<(), Broken> {
        let at = match self.seen.iter().position(|(seen, _)| seen == block) {
            Some(at) => at,
            None => {
                let at = self.seen_next;
                self.seen[at] = (block.to_vec(), Fields::decode(block)?);
                self.seen_next = 1 - at;
                at
            }
        };
        if let Some(stream) = self.streams.get_mut(number) {
            on(stream.tag, Event::Headers(&self.seen[at].1));
        }
        if end {
            self.end(number, on);
        }
        Ok(())
    }

    /// The server has said all on this stream. If it did not wait for our whole body, neither do we.
    fn end(&mut self, number: u32, on: &mut impl FnMut(usize, Event<'_>)) {
        let Some(stream) = self.streams.remove(number) else { return };
        if !stream.unsent.is_empty() || !stream.whole {
            put_u32(&mut self.out, RST_STREAM, number, CANCEL);
        }
        on(stream.tag, Event::End);
    }

    fn on_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Broken> {
        if head.flags & ACK != 0 {
            return Ok(());
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Broken::Protocol("SETTINGS of a wrong length"));
        }
        for setting in payload.chunks_exact(6) {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32_of(&setting[2..])?;
            match name {
                MAX_CONCURRENT_STREAMS => self.streams_max = value as usize,
                INITIAL_WINDOW_SIZE => self.set_stream_window(i64::from(value))?,
                MAX_FRAME_SIZE if !FRAME_BYTES_RANGE.contains(&(value as usize)) => {
                    return Err(Broken::Protocol("MAX_FRAME_SIZE out of its range"));
                }
                MAX_FRAME_SIZE => self.frame_bytes_max = value as usize,
                _ => {}
            }
        }
        self.greeted = true;
        put_head(&mut self.out, 0, SETTINGS, ACK, 0);
        self.send_unsent();
        Ok(())
    }

    /// The window of new streams changes, and that of the open ones by as much (§6.9.2).
    fn set_stream_window(&mut self, window: i64) -> Result<(), Broken> {
        if window > WINDOW_MAX {
            return Err(Broken::Protocol("INITIAL_WINDOW_SIZE out of its range"));
        }
        for (_, stream) in self.streams.iter_mut() {
            stream.send_window += window - self.stream_window;
        }
        self.stream_window = window;
        Ok(())
    }

    fn on_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Broken> {
        if payload.len() != 8 {
            return Err(Broken::Protocol("PING of a wrong length"));
        }
        if head.flags & ACK == 0 {
            put_head(&mut self.out, 8, PING, ACK, 0);
            self.out.extend_from_slice(payload);
        }
        Ok(())
    }

    /// The server takes no more streams. Those it names as never seen are given up.
    fn on_goaway(
        &mut self,
        payload: &[u8],
        on: &mut impl FnMut(usize, Event<'_>),
    ) -> Result<(), Broken> {
        let [last, code] = [0, 4].map(|at| payload.get(at..at + 4).unwrap_or_default());
        let (last, code) = (u32_of(last)? & STREAM_MAX, u32_of(code)?);
        for stream in self.streams.split_off_after(last) {
            on(stream.tag, Event::Reset(REFUSED_STREAM));
        }
        self.goaway = Some((code, String::from_utf8_lossy(&payload[8..]).into_owned()));
        Ok(())
    }

    fn on_window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Broken> {
        let more = i64::from(u32_of(payload)? & STREAM_MAX);
        let window = match head.stream {
            0 => Some(&mut self.send_window),
            number => self.streams.get_mut(number).map(|stream| &mut stream.send_window),
        };
        let Some(window) = window else { return Ok(()) };
        *window += more;
        if more == 0 || *window > WINDOW_MAX {
            return Err(Broken::Protocol("WINDOW_UPDATE out of its range"));
        }
        self.send_unsent();
        Ok(())
    }

    fn was_opened(&self, stream: u32) -> bool {
        stream % 2 == 1 && stream < self.next_stream
    }
}

/// Where the payload is without its padding (§6.1).
fn unpadded(head: Head, payload: &[u8]) -> Result<Range<usize>, Broken> {
    if head.flags & PADDED == 0 {
        return Ok(0..payload.len());
    }
    let padding = usize::from(*payload.first().unwrap_or(&u8::MAX));
    if padding >= payload.len() {
        return Err(Broken::Protocol("padding longer than its frame"));
    }
    Ok(1..payload.len() - padding)
}

fn u32_of(payload: &[u8]) -> Result<u32, Broken> {
    let bytes = payload.try_into().map_err(|_| Broken::Protocol("a frame of a wrong length"))?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests;
