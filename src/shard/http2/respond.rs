//! The way back to the client: one answer, or a stream of them.

use super::{link::Link, send::Progress};
use crate::api::status::Status;
use bytes::Bytes;
use std::rc::Rc;

/// The way back to the client, for one answer. A client that is gone is not an error. One that is
/// dropped without an answer resets its stream.
pub struct Responder {
    /// `None` once answered.
    link: Option<Rc<Link>>,
    stream: u32,
    /// Somebody has waited for the client to take the call back.
    heeded: bool,
}

impl Responder {
    /// For a stream that asks for an answer.
    pub(super) fn new(link: Rc<Link>, stream: u32) -> Self {
        Self { link: Some(link), stream, heeded: false }
    }

    fn take(&mut self) -> Rc<Link> {
        let link = self.link.take().expect("every way to answer takes the responder");
        if self.heeded {
            link.ignore(self.stream);
        }
        link
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
        opened.then(|| {
            link.heed(self.stream);
            Answers { link: Some(link), stream: self.stream }
        })
    }

    /// Returns once the client has taken the call back or is gone: nobody waits for the answer any
    /// more. One waiter at a time; may be given up and waited for again.
    pub async fn closed(&mut self) {
        let link = self.link.as_ref().expect("every way to answer takes the responder");
        if !self.heeded {
            link.heed(self.stream);
            self.heeded = true;
        }
        link.wait(self.stream, gone).await;
    }
}

fn gone(progress: Progress) -> Option<()> {
    (progress == Progress::Gone).then_some(())
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.link.is_some() {
            self.take().say(|connection| connection.abandon(self.stream));
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

    fn take(&mut self) -> Rc<Link> {
        let link = self.link.take().expect("only the end takes it");
        link.ignore(self.stream);
        link
    }

    /// Sends one framed message once the client has room for it, so that a slow reader holds
    /// memory for one message and no more.
    ///
    /// # Errors
    /// [`Gone`] when the client ended the stream.
    pub async fn send(&mut self, framed: Bytes) -> Result<(), Gone> {
        self.room().await?;
        self.link().say(|connection| connection.send(self.stream, &[], &framed));
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
        self.link().wait(self.stream, gone).await;
    }

    /// Ends the stream.
    pub fn finish(mut self, status: Option<&Status>) {
        self.take().say(|connection| connection.finish(self.stream, status));
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if self.link.is_some() {
            self.take().say(|connection| connection.abandon(self.stream));
        }
    }
}
