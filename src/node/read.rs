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
//!
//! Questions about a lease's time join the rounds on the member that leads: what its clock says counts
//! only if it still led after it was asked. A process that stood still does not know that by itself.

use super::{Action, Node};
use crate::{
    consensus::ReadState,
    limits::READ_INDEX_RETRY_TICKS,
    mesh::{LeaseAsk, Reply},
    types::{Index, Ticket},
};
use std::collections::VecDeque;

#[derive(Default)]
pub(super) struct Reads {
    waiting: Vec<Question>,
    asked: Option<Asked>,
    ripening: VecDeque<(Index, Vec<Question>)>,
    last_context: u64,
}

/// What waits for a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A read.
    Read(Ticket),
    /// A question to the leader's clock.
    Lease(Ticket, LeaseAsk),
}

struct Asked {
    context: u64,
    questions: Vec<Question>,
    age_ticks: u32,
}

impl Reads {
    pub(super) fn wait(&mut self, question: Question) {
        self.waiting.push(question);
    }

    pub(super) fn tick(&mut self) {
        let Some(asked) = &mut self.asked else { return };
        asked.age_ticks += 1;
        if asked.age_ticks >= READ_INDEX_RETRY_TICKS {
            self.ask_again();
        }
    }

    /// Nobody will answer the question that is on its way.
    pub(super) fn ask_again(&mut self) {
        let dropped = self.asked.take().map(|asked| asked.questions).unwrap_or_default();
        self.waiting.extend(dropped);
    }

    /// The next question, unless one is on its way or nobody waits.
    fn ask(&mut self) -> Option<u64> {
        if self.asked.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.last_context += 1;
        let questions = std::mem::take(&mut self.waiting);
        self.asked = Some(Asked { context: self.last_context, questions, age_ticks: 0 });
        Some(self.last_context)
    }

    /// raft's answers; one to a question that was given up is ignored.
    pub(super) fn answered(&mut self, states: &[ReadState]) {
        for state in states {
            if let Some(asked) = self.asked.take_if(|asked| asked.context == state.context) {
                self.ripening.push_back((state.index, asked.questions));
            }
        }
    }

    /// The next that may be answered: all that it must see is applied.
    fn ripen(&mut self, applied: Index) -> Option<Vec<Question>> {
        self.ripening.pop_front_if(|(index, _)| *index <= applied).map(|(_, questions)| questions)
    }
}

impl Node {
    pub(super) fn ask_reads(&mut self) {
        // raft drops the question where nobody leads; then it is asked when somebody does.
        if !self.replica.can_read() {
            return;
        }
        if let Some(context) = self.reads.ask() {
            self.replica.read_index(context);
        }
    }

    /// Answers what is ripe.
    pub(super) fn answer_reads(&mut self, out: &mut Vec<Action>) {
        while let Some(questions) = self.reads.ripen(self.store.applied()) {
            for question in questions {
                match question {
                    Question::Read(ticket) => {
                        out.push(Action::Reply { ticket, reply: Reply::Readable });
                    }
                    Question::Lease(ticket, ask) => self.answer_lease(ticket, ask, out),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ticket: u64) -> Question {
        Question::Read(Ticket(ticket))
    }

    #[test]
    fn all_that_wait_share_a_round_and_wait_for_its_index() {
        let mut reads = Reads::default();
        reads.wait(read(1));
        reads.wait(read(2));
        let context = reads.ask().unwrap();
        reads.wait(read(3));
        assert_eq!(reads.ask(), None, "one round at a time");
        reads.answered(&[ReadState { context, index: Index(7) }]);
        let early = reads.ripen(Index(6));
        assert_eq!(early, None, "served before everything it must see was applied");
        assert_eq!(reads.ripen(Index(7)).unwrap(), [read(1), read(2)]);
        assert!(reads.ask().is_some_and(|next| next != context));
    }

    #[test]
    fn a_dropped_question_is_asked_again_and_its_late_answer_is_ignored() {
        let mut reads = Reads::default();
        reads.wait(read(1));
        let first = reads.ask().unwrap();
        for _ in 0..READ_INDEX_RETRY_TICKS {
            assert_eq!(reads.ask(), None);
            reads.tick();
        }
        let second = reads.ask().unwrap();
        assert_ne!(first, second);
        reads.answered(&[ReadState { context: first, index: Index(1) }]);
        let late = reads.ripen(Index(9));
        assert_eq!(late, None, "an answer to an earlier question (etcd issue 20418)");
        reads.answered(&[ReadState { context: second, index: Index(9) }]);
        assert_eq!(reads.ripen(Index(9)).unwrap(), [read(1)]);
    }
}
