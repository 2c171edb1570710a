//! When a linearizable read may be served: one ReadIndex round at a time, shared by all that wait.
//!
//! ```text
//!  waiting ──ask──▶ asked (context) ──raft answers──▶ ripening (index) ──applied──▶ reply
//!                    └── too old: ask again with a new context
//! ```
//!
//! raft may drop a question without a word, so a round is asked again after
//! [`READ_INDEX_RETRY_TICKS`]. Contexts never repeat, or a late answer would be taken for a new one
//! (etcd issue 20418).

use super::{Action, Node};
use crate::{
    consensus::ReadState,
    limits::READ_INDEX_RETRY_TICKS,
    mesh::Reply,
    types::{Index, Ticket},
};
use std::collections::VecDeque;

#[derive(Default)]
pub(super) struct Reads {
    waiting: Vec<Ticket>,
    asked: Option<Asked>,
    ripening: VecDeque<(Index, Vec<Ticket>)>,
    last_context: u64,
}

struct Asked {
    context: u64,
    tickets: Vec<Ticket>,
    age_ticks: u32,
}

impl Reads {
    pub(super) fn wait(&mut self, ticket: Ticket) {
        self.waiting.push(ticket);
    }

    pub(super) fn tick(&mut self) {
        let Some(asked) = &mut self.asked else { return };
        asked.age_ticks += 1;
        if asked.age_ticks >= READ_INDEX_RETRY_TICKS {
            let dropped = self.asked.take().map(|asked| asked.tickets).unwrap_or_default();
            self.waiting.extend(dropped);
        }
    }

    /// The next question, unless one is on its way or nobody waits.
    fn ask(&mut self) -> Option<u64> {
        if self.asked.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.last_context += 1;
        let tickets = std::mem::take(&mut self.waiting);
        self.asked = Some(Asked { context: self.last_context, tickets, age_ticks: 0 });
        Some(self.last_context)
    }

    /// raft's answers; one to a question that was given up is ignored.
    pub(super) fn answered(&mut self, states: &[ReadState]) {
        for state in states {
            if let Some(asked) = self.asked.take_if(|asked| asked.context == state.context) {
                self.ripening.push_back((state.index, asked.tickets));
            }
        }
    }

    pub(super) fn ripen(&mut self, applied: Index, out: &mut Vec<Action>) {
        while let Some((_, tickets)) = self.ripening.pop_front_if(|(index, _)| *index <= applied) {
            let reply = |ticket| Action::Reply { ticket, reply: Reply::Readable };
            out.extend(tickets.into_iter().map(reply));
        }
    }
}

impl Node {
    pub(super) fn ask_reads(&mut self) {
        // raft drops the question where nobody leads; then it is asked when somebody does.
        if self.leadership.leader.0 == 0 {
            return;
        }
        if let Some(context) = self.reads.ask() {
            self.replica.read_index(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(out: &[Action]) -> Vec<u64> {
        let ticket = |action: &Action| match action {
            Action::Reply { ticket, reply: Reply::Readable } => ticket.0,
            other => panic!("only reads are answered here: {other:?}"),
        };
        out.iter().map(ticket).collect()
    }

    #[test]
    fn all_that_wait_share_a_round_and_wait_for_its_index() {
        let (mut reads, mut out) = (Reads::default(), Vec::new());
        reads.wait(Ticket(1));
        reads.wait(Ticket(2));
        let context = reads.ask().unwrap();
        reads.wait(Ticket(3));
        assert_eq!(reads.ask(), None, "one round at a time");
        reads.answered(&[ReadState { context, index: Index(7) }]);
        reads.ripen(Index(6), &mut out);
        assert!(out.is_empty(), "served before everything it must see was applied");
        reads.ripen(Index(7), &mut out);
        assert_eq!(replies(&out), [1, 2]);
        assert!(reads.ask().is_some_and(|next| next != context));
    }

    #[test]
    fn a_dropped_question_is_asked_again_and_its_late_answer_is_ignored() {
        let (mut reads, mut out) = (Reads::default(), Vec::new());
        reads.wait(Ticket(1));
        let first = reads.ask().unwrap();
        for _ in 0..READ_INDEX_RETRY_TICKS {
            assert_eq!(reads.ask(), None);
            reads.tick();
        }
        let second = reads.ask().unwrap();
        assert_ne!(first, second);
        reads.answered(&[ReadState { context: first, index: Index(1) }]);
        reads.ripen(Index(9), &mut out);
        assert!(out.is_empty(), "an answer to an earlier question (etcd issue 20418)");
        reads.answered(&[ReadState { context: second, index: Index(9) }]);
        reads.ripen(Index(9), &mut out);
        assert_eq!(replies(&out), [1]);
    }
}
