//! A call whose request is a stream of messages (Watch, LeaseKeepAlive), as its handler sees it.
//!
//! ```text
//!  loop {
//!      while I want more  { match call.take()     { Message(m) => …, Nothing => break, … } }
//!      while I have some  { match call.progress() { Clear => call.send(…), Busy => break, Gone => return } }
//!      call.stirred().await
//!  }
//! ```
//!
//! Both directions are pulled by the handler, and neither holds up the other. What it does not take
//! stops the client by flow control; what the client does not read leaves the call busy.

use super::{incoming::Inbound, link::Link, send::Progress};
use crate::{api::status::Status, shard::Place};
use bytes::Bytes;
use std::{cell::Cell, future::poll_fn, rc::Rc};

/// See the module. Dropped unfinished, it resets its stream.
pub struct Call {
    link: Rc<Link>,
    stream: u32,
    finished: Cell<bool>,
    /// Among the shard's calls.
    _place: Place,
}

impl Call {
    /// For a stream that was just opened.
    pub(super) fn new(link: Rc<Link>, stream: u32, place: Place) -> Self {
        link.heed(stream);
        Self { link, stream, finished: Cell::new(false), _place: place }
    }

    /// Takes the next message, and lets the client send as much again.
    pub fn take(&self) -> Inbound {
        self.link.say(|connection| connection.take(self.stream))
    }

    /// Whether there is room for a message, and anybody to read it.
    pub fn progress(&self) -> Progress {
        match self.finished.get() {
            true => Progress::Gone,
            false => self.link.progress(self.stream),
        }
    }

    /// Sends one message, framed already, in two parts: what is this call's own, and what it may
    /// share with others, which is not copied if it has to wait. The headers go first where they
    /// have not gone out. Returns [`Self::progress`] then; a client that is gone is not an error.
    ///
    /// # Panics
    /// When the call is [`Progress::Busy`]: one message at a time.
    pub fn send(&self, head: &[u8], body: &Bytes) -> Progress {
        match self.finished.get() {
            true => Progress::Gone,
            false => self.link.say(|connection| connection.send(self.stream, head, body)),
        }
    }

    /// Sends the headers, where they have not gone out: some clients wait for them.
    pub fn open(&self) {
        let _anybody = self.link.say(|connection| connection.open(self.stream));
    }

    /// Returns once something has happened since it last returned: there is a message to take, the
    /// client has ended its side, there is room again, or the call is gone. Returns at once when it
    /// is called first, and always when the call is gone. It may return for nothing; and what the
    /// handler leaves lying does not make it return again. One waiter at a time.
    pub async fn stirred(&self) {
        poll_fn(|cx| self.link.poll_stirred(self.stream, cx)).await;
    }

    /// Ends the call behind the message that is under way; what is not taken is thrown away. `None`
    /// is OK. Ending it twice is once.
    pub fn finish(&self, status: Option<&Status>) {
        if !self.finished.replace(true) {
            self.link.say(|connection| connection.finish(self.stream, status));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.link.ignore(self.stream);
        if !self.finished.get() {
            self.link.say(|connection| connection.abandon(self.stream));
        }
    }
}
