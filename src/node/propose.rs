//! Admission, and packing: all requests of a turn share one raft entry.

use super::{Action, Node};
use crate::{
    limits::{ENTRY_BYTES_MAX, PACKED_BYTES_MAX},
    mesh::Reply,
    store::{Unavailable, command},
    types::Ticket,
};
use bytes::Bytes;
use std::collections::VecDeque;

/// Requests on their way into the log, packed into entries.
#[derive(Default)]
pub(super) struct Proposals {
    entries: VecDeque<Packed>,
    bytes: usize,
    failed: u64,
}

#[derive(Default)]
struct Packed {
    data: Vec<u8>,
    tickets: Vec<Ticket>,
}

impl Proposals {
    /// Adds a request, or gives its ticket back when [`PACKED_BYTES_MAX`] is reached.
    fn add(&mut self, ticket: Ticket, request: &Bytes) -> Result<(), Ticket> {
        if self.bytes + request.len() > PACKED_BYTES_MAX {
            return Err(ticket);
        }
        let fits = |last: &Packed| last.data.len() + request.len() <= ENTRY_BYTES_MAX;
        if !self.entries.back().is_some_and(fits) {
            self.entries.push_back(Packed::default());
        }
        let last = self.entries.back_mut().expect("pushed above");
        let before = last.data.len();
        command::append(&mut last.data, ticket, request);
        last.tickets.push(ticket);
        self.bytes += last.data.len() - before;
        Ok(())
    }

    fn take(&mut self) -> impl Iterator<Item = Packed> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.entries).into_iter()
    }
}

impl Node {
    pub(super) fn on_propose(&mut self, ticket: Ticket, request: &Bytes, out: &mut Vec<Action>) {
        if let Err(ticket) = self.proposals.add(ticket, request) {
            self.proposals.failed += 1;
            let reply = Reply::Unavailable(Unavailable::TooManyRequests);
            out.push(Action::Reply { ticket, reply });
        }
    }

    pub(super) fn propose_packed(&mut self, out: &mut Vec<Action>) {
        for packed in self.proposals.take() {
            if self.replica.propose(packed.data).is_ok() {
                continue;
            }
            // Nobody leads, or the log is too far ahead: not proposed, so trying again is safe.
            self.proposals.failed += packed.tickets.len() as u64;
            let why = if self.leadership.own {
                Unavailable::TooManyRequests
            } else {
                Unavailable::NoLeader
            };
            let refuse = |ticket| Action::Reply { ticket, reply: Reply::Unavailable(why) };
            out.extend(packed.tickets.into_iter().map(refuse));
        }
    }

    /// Requests that wait to be proposed.
    pub fn proposals_waiting(&self) -> u64 {
        self.proposals.entries.iter().map(|packed| packed.tickets.len() as u64).sum()
    }

    /// Requests that raft would not take, since the start.
    pub fn proposals_failed(&self) -> u64 {
        self.proposals.failed
    }
}
