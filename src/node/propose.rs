//! Admission, and packing: all requests of a turn share one raft entry.
//!
//! While nobody leads, or the lead is being handed over, requests wait here, as etcd's do, until their
//! time runs out: most are proposed a moment later, and none of them twice.

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
    /// Ticks that have passed.
    tick: u64,
    /// Ticks for which a request waits for a leader; for ever where nobody has said.
    held_ticks_max: Option<u32>,
}

/// The ticket of requests that nobody waits for (etcd: ID 0 is no request's).
pub(super) const NOBODY: Ticket = Ticket(0);

#[derive(Default)]
struct Packed {
    data: Vec<u8>,
    tickets: Vec<Ticket>,
    /// The tick before which all of them came.
    tick: u64,
}

impl Proposals {
    /// How long a request waits for a leader.
    pub(super) fn hold_for(&mut self, ticks: u32) {
        self.held_ticks_max = Some(ticks);
    }

    /// Adds a request, or gives its ticket back when [`PACKED_BYTES_MAX`] is reached.
    fn add(&mut self, ticket: Ticket, request: &Bytes) -> Result<(), Ticket> {
        if self.bytes + request.len() > PACKED_BYTES_MAX {
            return Err(ticket);
        }
        let fits = |last: &Packed| {
            last.tick == self.tick && last.data.len() + request.len() <= ENTRY_BYTES_MAX
        };
        if !self.entries.back().is_some_and(fits) {
            self.entries.push_back(Packed { tick: self.tick, ..Packed::default() });
        }
        let last = self.entries.back_mut().expect("pushed above");
        let before = last.data.len();
        command::append(&mut last.data, ticket, request);
        last.tickets.push(ticket);
        self.bytes += last.data.len() - before;
        Ok(())
    }

    fn refuse(&mut self, tickets: Vec<Ticket>, why: Unavailable, out: &mut Vec<Action>) {
        self.failed += tickets.len() as u64;
        let refuse = |ticket| Action::Reply { ticket, reply: Reply::Unavailable(why) };
        out.extend(tickets.into_iter().map(refuse));
    }

    /// The oldest, where they have waited for too long.
    fn take_late(&mut self) -> Option<Vec<Ticket>> {
        let (now, most) = (self.tick, u64::from(self.held_ticks_max?));
        let late = self.entries.pop_front_if(|packed| now - packed.tick >= most)?;
        self.bytes -= late.data.len();
        Some(late.tickets)
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

    /// A request of the node's own: nobody waits for it, and without room it is left out.
    pub(super) fn propose_own(&mut self, request: &Bytes) {
        let _full = self.proposals.add(NOBODY, request).is_err();
    }

    pub(super) fn propose_packed(&mut self, out: &mut Vec<Action>) {
        if self.leadership.leader.0 == 0 || self.replica.is_handing_over() {
            return;
        }
        for packed in self.proposals.take() {
            if self.replica.propose(packed.data).is_err() {
                // The log is too far ahead: not proposed, so trying again is safe.
                self.proposals.refuse(packed.tickets, Unavailable::TooManyRequests, out);
            }
        }
    }

    /// A tick passes. Whoever has waited for a leader for too long waits no more.
    pub(super) fn age_proposals(&mut self, out: &mut Vec<Action>) {
        self.proposals.tick += 1;
        while let Some(tickets) = self.proposals.take_late() {
            self.proposals.refuse(tickets, Unavailable::Held, out);
        }
    }

    /// Requests that wait to be proposed.
    pub fn proposals_waiting(&self) -> u64 {
        self.proposals.entries.iter().map(|packed| packed.tickets.len() as u64).sum()
    }

    /// Bytes of them.
    pub fn proposals_bytes(&self) -> u64 {
        self.proposals.bytes as u64
    }

    /// Requests that raft would not take, since the start.
    pub fn proposals_failed(&self) -> u64 {
        self.proposals.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_shares_an_entry_up_to_its_bound() {
        let mut proposals = Proposals::default();
        let request = Bytes::from(vec![0; ENTRY_BYTES_MAX / 2 - 64]);
        for n in 0..5 {
            proposals.add(Ticket(n), &request).unwrap();
        }
        let packed: Vec<_> = proposals.take().map(|packed| packed.tickets).collect();
        assert_eq!(
            packed,
            [vec![Ticket(0), Ticket(1)], vec![Ticket(2), Ticket(3)], vec![Ticket(4)]]
        );
        assert_eq!(proposals.bytes, 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_not_queued() {
        let mut proposals = Proposals::default();
        let request = Bytes::from(vec![0; 8 << 20]);
        let taken = (0..).take_while(|n| proposals.add(Ticket(*n), &request).is_ok()).count();
        assert_eq!(taken, PACKED_BYTES_MAX / request.len() - 1, "headers take room too");
    }

    #[test]
    fn whoever_has_waited_for_a_leader_for_too_long_waits_no_more_and_others_do() {
        let mut proposals = Proposals::default();
        proposals.hold_for(3);
        let mut late = Vec::new();
        for n in 0..5 {
            proposals.add(Ticket(n), &Bytes::from_static(b"x")).unwrap();
            proposals.tick += 1;
            late.extend(std::iter::from_fn(|| proposals.take_late()));
        }
        assert_eq!(late, [vec![Ticket(0)], vec![Ticket(1)], vec![Ticket(2)]]);
        let left: Vec<_> = proposals.entries.iter().map(|packed| packed.data.len()).collect();
        assert_eq!(proposals.bytes, left.iter().sum::<usize>(), "room is given back");
    }
}
