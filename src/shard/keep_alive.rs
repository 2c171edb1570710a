//! `LeaseKeepAlive`: one answer for each request, in the order of the requests.
//!
//! Each renewal goes to the node under a ticket of its own, so that many may be under way. Answers
//! that come out of order wait for those before them: one may wait for a lease's end.

use super::{
    Shard,
    http2::{Call, Inbound, Progress},
};
use crate::{
    api::{
        Method, lease,
        status::{Code, Status},
    },
    limits::KEEP_ALIVES_AHEAD_MAX,
    net::Promise,
};
use bytes::Bytes;
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    mem,
    rc::Rc,
};

/// One call.
pub struct KeepAlive {
    call: Rc<Call>,
    state: RefCell<State>,
    /// The task waits for answers to leave before it takes more.
    moved: Promise<()>,
    /// How it ended; a client that takes its call back has canceled it.
    code: Cell<u8>,
}

#[derive(Default)]
struct State {
    /// Answers to come, oldest first; those that are there already wait for the ones before.
    answers: VecDeque<Option<Bytes>>,
    /// How many answers have left the queue: the first in it has this number.
    sent: u64,
    /// The client has said everything.
    ended: bool,
    /// As many are under way as may be.
    full: bool,
}

impl KeepAlive {
    fn new(call: Rc<Call>) -> Self {
        let code = Cell::new(Code::Canceled as u8);
        Self { call, state: RefCell::default(), moved: Promise::default(), code }
    }

    /// Numbers the next request.
    fn expect_answer(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.answers.push_back(None);
        state.sent + state.answers.len() as u64 - 1
    }

    /// Here is the answer to request `number`, a whole gRPC message, or why there is none: then the
    /// call is over.
    pub(super) fn answer(&self, number: u64, answer: Result<Bytes, Status>) {
        match answer {
            Ok(answer) => {
                let mut state = self.state.borrow_mut();
                let at = (number - state.sent) as usize;
                state.answers[at] = Some(answer);
                drop(state);
                self.flush();
            }
            Err(status) => self.finish(Some(&status)),
        }
    }

    fn finish(&self, status: Option<&Status>) {
        self.code.set(status.map_or(Code::Ok as u8, |status| status.code));
        self.call.finish(status);
    }

    /// Sends the answers that are due, as far as the client has room, and the end behind the last.
    fn flush(&self) {
        while self.call.progress() == Progress::Clear {
            let Some(answer) = self.pop() else { break };
            self.call.send(&[], &answer);
        }
        let mut state = self.state.borrow_mut();
        if state.ended && state.answers.is_empty() {
            self.finish(None);
        }
        if state.answers.len() < KEEP_ALIVES_AHEAD_MAX && mem::take(&mut state.full) {
            self.moved.set(());
        }
    }

    fn pop(&self) -> Option<Bytes> {
        let mut state = self.state.borrow_mut();
        let answer = state.answers.pop_front_if(|front| front.is_some())?;
        state.sent += 1;
        answer
    }

    /// Whether one more may be under way; else the task is told when.
    fn may_take(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.full = state.answers.len() >= KEEP_ALIVES_AHEAD_MAX;
        !state.full
    }
}

impl Shard {
    /// One call, until its client ends it, or something breaks.
    pub(super) async fn serve_keep_alive(self: Rc<Self>, call: Rc<Call>) {
        call.open();
        let stream = Rc::new(KeepAlive::new(call.clone()));
        while call.progress() != Progress::Gone {
            if let Err(status) = self.take_keep_alives(&stream) {
                stream.finish(Some(&status));
            }
            stream.flush();
            future::or(call.stirred(), stream.moved.wait()).await;
        }
        self.meters().handled(Method::LeaseKeepAlive, stream.code.get(), 0);
    }

    fn take_keep_alives(&self, stream: &Rc<KeepAlive>) -> Result<(), Status> {
        while stream.may_take() {
            match stream.call.take() {
                Inbound::Message(message) => {
                    self.meters().received(message.len());
                    let id = lease::decode_keep_alive(message)?;
                    self.renew(id, stream.clone(), stream.expect_answer());
                }
                Inbound::Broken(status) => return Err(status),
                Inbound::Ended => {
                    stream.state.borrow_mut().ended = true;
                    return Ok(());
                }
                Inbound::Nothing => return Ok(()),
            }
        }
        Ok(())
    }
}
