//! Space that somebody asked back: once the sweep has found what is dead, checkpoints that rewrite
//! it follow each other until nothing is wasteful, and then it is said so.

use super::{Action, Node};
use crate::{mesh::Reply, types::Ticket};

/// Who waits for space to be given back.
#[derive(Default)]
pub(super) struct Defragmenting {
    waiting: Vec<Ticket>,
}

impl Node {
    pub(super) fn on_defragment(&mut self, ticket: Ticket) {
        self.defragmenting.waiting.push(ticket);
    }

    /// Whether a checkpoint is due that gives space back.
    pub fn wants_defragment(&self) -> bool {
        let waits = !self.defragmenting.waiting.is_empty() && !self.sweeping.has_more();
        waits && self.store.tree().is_wasteful()
    }

    /// Tells who waits, when nothing is left to do.
    pub(super) fn answer_defragment(&mut self, out: &mut Vec<Action>) {
        if self.sweeping.has_more() || self.wants_defragment() {
            return;
        }
        let done = self.defragmenting.waiting.drain(..);
        out.extend(done.map(|ticket| Action::Reply { ticket, reply: Reply::Defragmented }));
    }
}
