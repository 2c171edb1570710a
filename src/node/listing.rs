//! A list of all leases with their deadlines, made a piece in each turn: a million of them must not
//! hold up a put.
//!
//! All who ask while a list is being made share the next one, as reads share a round of ReadIndex:
//! what was granted before somebody asked is in that one's list.

use super::Action;
use crate::{
    limits::LEASES_PER_TURN_MAX,
    mesh::Reply,
    store::Leases,
    types::{LeaseId, Ticket},
};
use std::{sync::Arc, time::Duration};

#[derive(Default)]
pub(super) struct Listing {
    waiting: Vec<Ticket>,
    round: Option<Round>,
}

struct Round {
    tickets: Vec<Ticket>,
    found: Vec<(Duration, LeaseId)>,
    from: LeaseId,
}

impl Listing {
    pub(super) fn wait(&mut self, ticket: Ticket) {
        self.waiting.push(ticket);
    }

    /// Lists [`LEASES_PER_TURN_MAX`] more leases; who waits for them is answered at the end.
    pub(super) fn step(
        &mut self,
        leases: Leases<'_>,
        deadline: impl Fn(LeaseId) -> Duration,
        out: &mut Vec<Action>,
    ) {
        if self.round.is_none() && self.waiting.is_empty() {
            return;
        }
        let mut round = self.round.take().unwrap_or_else(|| Round {
            tickets: std::mem::take(&mut self.waiting),
            found: Vec::new(),
            from: LeaseId(i64::MIN),
        });
        for (seen, (id, _)) in leases.from(round.from).enumerate() {
            if seen == LEASES_PER_TURN_MAX {
                round.from = id;
                self.round = Some(round);
                return;
            }
            round.found.push((deadline(id), id));
        }
        let found = Arc::new(round.found);
        let reply = |ticket| Action::Reply { ticket, reply: Reply::Leases(found.clone()) };
        out.extend(round.tickets.into_iter().map(reply));
    }

    /// Whether another turn has work to do although nothing new happened.
    pub(super) fn has_more(&self) -> bool {
        self.round.is_some() || !self.waiting.is_empty()
    }
}
