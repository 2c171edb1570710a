//! The messages of a call on their way in: frames bring them cut anywhere, and a handler takes them
//! one by one.
//!
//! ```text
//!  DATA ─►│ message │ message │ mess…  │─► take() ─► handler
//!         └──────── what is held ──────┘    │
//!  ◄─ WINDOW_UPDATE ────────────────────────┘
//! ```
//!
//! What is held is held against the stream's window, which grows again as messages are taken. So a
//! handler that stops taking stops its client (§5.2), and a call costs its window and no more. Only
//! one message at the front that is larger than the window may be gathered past it.

use super::{
    connection::{CROWDED, Connection, Intake, copy},
    frame::{self, Goaway, Reason, kind},
};
use crate::{
    api::status::{Code, Status},
    limits::{CALL_HELD_BYTES_MAX, HTTP2_STREAM_WINDOW_BYTES},
    shard::{
        Place,
        grpc::{self, PREFIX_BYTES},
    },
};
use bytes::{Buf, Bytes, BytesMut};

/// The client ended its side within a message (grpc-go's words).
const CUT_SHORT: Status = Status::new(Code::Internal, "unexpected EOF");

/// What a handler finds when it looks for the next message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// One message, without gRPC's prefix. It shares memory with its neighbours: whoever keeps a
    /// part of it for long should copy that.
    Message(Bytes),
    /// None yet; or none ever, where the call is [`Gone`](super::send::Progress::Gone).
    Nothing,
    /// The client has ended its side, and everything is taken. It still wants its answers.
    Ended,
    /// What has come is no message, and nothing more will be taken: the status to finish with.
    Broken(Status),
}

/// What has come and is not taken.
#[derive(Default)]
pub struct Incoming {
    /// Whole messages, as one frame brought them when nothing else was held.
    whole: Bytes,
    /// What came behind them.
    parts: BytesMut,
    /// Why what comes is thrown away.
    spoiled: Option<Status>,
    /// A place among the shard's unfinished requests, while more is held than any call may hold.
    place: Option<Place>,
}

/// What the first of the held bytes are.
enum Front {
    /// A message of this length, without its prefix.
    Whole(usize),
    /// The beginning of one, or nothing: this many bytes are missing, as far as is known.
    Lacks(usize),
    /// No message.
    Broken(Status),
}

impl Incoming {
    fn held(&self) -> usize {
        self.whole.len() + self.parts.len()
    }

    fn front(&self, message_bytes_max: usize) -> Front {
        let bytes = if self.whole.is_empty() { &self.parts[..] } else { &self.whole[..] };
        match grpc::message_len(bytes, message_bytes_max) {
            Ok(None) => Front::Lacks(PREFIX_BYTES - bytes.len()),
            Ok(Some(len)) => match (PREFIX_BYTES + len).checked_sub(bytes.len()) {
                None | Some(0) => Front::Whole(len),
                Some(lacks) => Front::Lacks(lacks),
            },
            Err(status) => Front::Broken(status),
        }
    }

    /// Whether there is something to take before the client says more.
    fn is_ready(&self, message_bytes_max: usize) -> bool {
        self.spoiled.is_some() || !matches!(self.front(message_bytes_max), Front::Lacks(_))
    }

    /// Takes in what a frame has brought. Whether there is something to take now, and was not.
    fn push(&mut self, data: &[u8], message_bytes_max: usize, intake: &mut Intake<'_>) -> bool {
        if data.is_empty() {
            return false;
        }
        if self.held() == 0 && self.spoiled.is_none() && are_whole(data, message_bytes_max) {
            self.whole = copy(data, intake.bodies);
            return true;
        }
        let was_ready = self.is_ready(message_bytes_max);
        if self.spoiled.is_none() && !matches!(self.front(message_bytes_max), Front::Broken(_)) {
            self.parts.extend_from_slice(data);
        }
        if self.held() > CALL_HELD_BYTES_MAX && self.place.is_none() {
            self.place = (intake.admit)();
            self.spoiled = self.place.is_none().then_some(CROWDED);
        }
        !was_ready && self.is_ready(message_bytes_max)
    }

    fn take(&mut self, message_bytes_max: usize, ended: bool) -> Inbound {
        match self.front(message_bytes_max) {
            Front::Whole(len) => Inbound::Message(self.split(len)),
            Front::Broken(status) => Inbound::Broken(status),
            Front::Lacks(_) => match &self.spoiled {
                Some(status) => Inbound::Broken(status.clone()),
                None if !ended => Inbound::Nothing,
                None if self.held() == 0 => Inbound::Ended,
                None => Inbound::Broken(CUT_SHORT),
            },
        }
    }

    fn split(&mut self, len: usize) -> Bytes {
        let mut message = match self.whole.is_empty() {
            false => self.whole.split_to(PREFIX_BYTES + len),
            true => self.parts.split_to(PREFIX_BYTES + len).freeze(),
        };
        message.advance(PREFIX_BYTES);
        if self.parts.is_empty() {
            self.parts = BytesMut::new(); // an idle call holds no memory
        }
        if self.held() <= CALL_HELD_BYTES_MAX {
            self.place = None;
        }
        message
    }

    /// Nobody will take what is held, nor what still comes.
    pub(super) fn close(&mut self) {
        *self = Self { spoiled: Some(CUT_SHORT), ..Self::default() };
    }

    /// What the client's window should be raised to, where it has shrunk to `window`.
    fn window(&self, window: i64, message_bytes_max: usize) -> Option<i64> {
        let whole = i64::from(HTTP2_STREAM_WINDOW_BYTES);
        if window > whole / 2 || self.spoiled.is_some() {
            return None;
        }
        let lacks = match self.front(message_bytes_max) {
            Front::Whole(_) => 0,
            Front::Lacks(bytes) => bytes as i64,
            Front::Broken(_) => return None,
        };
        let wanted = lacks.max(whole - self.held() as i64);
        (wanted - window >= whole / 2 || window < lacks).then_some(wanted)
    }
}

/// Whether these are messages, and nothing besides.
fn are_whole(mut data: &[u8], message_bytes_max: usize) -> bool {
    while !data.is_empty() {
        let Ok(Some(len)) = grpc::message_len(data, message_bytes_max) else { return false };
        let Some(rest) = data.get(PREFIX_BYTES + len..) else { return false };
        data = rest;
    }
    true
}

impl Connection {
    /// DATA of a call, which its windows allow.
    pub(super) fn on_call_data(
        &mut self,
        at: usize,
        data: &[u8],
        end: bool,
        intake: &mut Intake<'_>,
    ) -> Result<(), Goaway> {
        let stream = &mut self.streams[at];
        let incoming = stream.incoming.as_mut().expect("only a call's messages come here");
        if incoming.push(data, self.rules.message_bytes_max, intake) {
            self.stirred.push_back(stream.id);
        }
        if end {
            return self.on_call_end(at);
        }
        self.refill(at);
        Ok(())
    }

    /// The client has ended its side of a call.
    pub(super) fn on_call_end(&mut self, at: usize) -> Result<(), Goaway> {
        let stream = &mut self.streams[at];
        let receiving = stream.receiving.take().expect("a side ends once");
        if receiving.promised.is_some_and(|left| left > 0) {
            return self.reset(at, Reason::Protocol);
        }
        self.stirred.push_back(stream.id);
        Ok(())
    }

    /// Takes a call's next message, and lets the client send as much again.
    pub fn take(&mut self, id: u32) -> Inbound {
        let Some(at) = self.streams.find(id) else { return Inbound::Nothing };
        let stream = &mut self.streams[at];
        let finished = stream.is_finished();
        let Some(incoming) = stream.incoming.as_mut().filter(|_| !finished) else {
            return Inbound::Nothing;
        };
        let ended = stream.receiving.is_none();
        let taken = incoming.take(self.rules.message_bytes_max, ended);
        self.refill(at);
        taken
    }

    fn refill(&mut self, at: usize) {
        let stream = &mut self.streams[at];
        let (Some(receiving), Some(incoming)) = (&mut stream.receiving, &stream.incoming) else {
            return;
        };
        if let Some(window) = incoming.window(receiving.window, self.rules.message_bytes_max) {
            let more = (window - receiving.window) as u32;
            frame::put_word(&mut self.out, kind::WINDOW_UPDATE, stream.id, more);
            receiving.window = window;
        }
    }
}
