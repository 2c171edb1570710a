//! Who waits for which ticket, in the order the tickets were drawn.

use crate::types::{MemberId, Ticket};
use std::collections::VecDeque;

/// A table keyed by tickets that rise by one: a queue with holes, so finding one costs no search.
pub struct Tickets<T> {
    member: MemberId,
    shard: usize,
    /// Count of the ticket at the front of `waiting`.
    first: u64,
    waiting: VecDeque<Option<T>>,
    live: usize,
}

impl<T> Tickets<T> {
    /// An empty table. `start` is the count of the first ticket, see [`Ticket::new`].
    pub fn new(member: MemberId, shard: usize, start: u64) -> Self {
        Self { member, shard, first: start, waiting: VecDeque::new(), live: 0 }
    }

    /// The ticket that the next [`Tickets::wait`] will hand out.
    pub fn next(&self) -> Ticket {
        Ticket::new(self.member, self.shard, self.first + self.waiting.len() as u64)
    }

    /// Files what waits under a new ticket.
    pub fn wait(&mut self, what: T) -> Ticket {
        let ticket = self.next();
        self.waiting.push_back(Some(what));
        self.live += 1;
        ticket
    }

    /// Takes out what waits for `ticket`; `None` if nothing does any more.
    pub fn take(&mut self, ticket: Ticket) -> Option<T> {
        let front = Ticket::new(self.member, self.shard, self.first);
        let at = usize::try_from(ticket.0.wrapping_sub(front.0)).ok()?;
        let taken = self.waiting.get_mut(at)?.take()?;
        self.live -= 1;
        self.drop_holes();
        Some(taken)
    }

    /// Takes out everything for which `expired` holds, oldest first. Looks at all: whoever came later
    /// may have less time.
    pub fn take_expired(&mut self, mut expired: impl FnMut(&mut T) -> bool) -> Vec<T> {
        let late = |slot: &mut Option<T>| slot.take_if(&mut expired);
        let taken: Vec<_> = self.waiting.iter_mut().filter_map(late).collect();
        self.live -= taken.len();
        self.drop_holes();
        taken
    }

    /// How many wait.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.live
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    fn drop_holes(&mut self) {
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_found_in_any_order_once() {
        let mut tickets = Tickets::new(MemberId(1), 3, 1_000);
        let drawn: Vec<_> = (0..5).map(|n| tickets.wait(n)).collect();
        assert_eq!(tickets.take(drawn[3]), Some(3));
        assert_eq!(tickets.take(drawn[3]), None);
        assert_eq!(tickets.take(drawn[0]), Some(0));
        assert_eq!(tickets.take(drawn[0]), None, "a ticket from before the front");
        assert_eq!(tickets.take(Ticket::new(MemberId(1), 4, 1_001)), None, "another shard's");
        assert_eq!(tickets.len(), 3);
        let later = tickets.wait(5);
        for (at, ticket) in [(1, drawn[1]), (2, drawn[2]), (4, drawn[4]), (5, later)] {
            assert_eq!(tickets.take(ticket), Some(at));
        }
        assert!(tickets.is_empty());
        let next = tickets.next();
        assert_eq!(tickets.wait(6), next);
    }

    #[test]
    fn the_oldest_expire_first_and_neither_holes_nor_the_patient_hide_them() {
        let mut tickets = Tickets::new(MemberId(1), 0, 0);
        let drawn: Vec<_> = (0..6).map(|n| tickets.wait(n)).collect();
        tickets.take(drawn[1]);
        assert_eq!(tickets.take_expired(|n| *n < 3), [0, 2]);
        assert_eq!(tickets.len(), 3);
        assert_eq!(tickets.take_expired(|n| *n == 5), [5]);
        assert_eq!(tickets.take(drawn[4]), Some(4));
        assert_eq!(tickets.take(drawn[5]), None);
    }
}
