//! A member that lost its log, and how it comes back.
//!
//! It acknowledged entries that it does not have any more, so neither its vote nor anything it said
//! before may count until it has them again. Its term and vote it still knows: they are kept twice.
//!
//! ```text
//!  lost ──"count on nothing I said"──▶ leader: forgets what it knew of this log, remembers where its
//!   │                                  own log ends (R), makes sure that it still leads by a round of
//!   │                                  the others, who are a majority without this member
//!   │◀──────── "found", R ─────────────┘
//!  mute: takes entries, answers for them, votes for nobody and stands for nothing
//!   │ everything up to R is in its log again, durably
//!  whole
//! ```
//!
//! Why that is enough. Whatever was committed with this member's help was acknowledged by a majority
//! with it in, and that majority meets the one that confirms the leader in a third member. So no
//! leader of a later term has been helped by the lost log, and this leader has all that was committed
//! by its help: at R or before it. Afterwards nothing that this member said before the loss counts:
//! the leader has forgotten it, later leaders never heard it, and the network between members
//! delivers nothing of an earlier boot after something of a later one.

use super::{Kind, Message, Replica, convert};
use crate::{
    limits::LOST_LOG_ASK_TICKS,
    types::{Index, MemberId, Term},
};
use raft::StateRole;
use std::collections::BTreeMap;

/// What the two words begin with; a number that the member picked stands behind.
const LOST: &[u8] = b"ringleader: my log is lost";
const FOUND: &[u8] = b"ringleader: it ends here";

/// Rounds of a leader's own have this bit in their context; those of readers never come so far.
const OWN_ROUND: u64 = 1 << 63;

/// How much a member's word counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its log is what it said it was.
    Whole,
    /// Its log is lost, and nobody knows yet.
    Lost {
        /// Who leads, as it hears.
        leader: Option<(MemberId, Term)>,
        /// Ticks since it last asked.
        ticks: u32,
    },
    /// Everything up to here is missing still.
    Mute {
        /// Where the leader's log ended.
        until: Index,
    },
}

/// As leader: who has lost its log and waits to be told so, by the round that confirms the lead.
#[derive(Default)]
pub(super) struct Losers {
    rounds: u64,
    waiting: BTreeMap<u64, Loser>,
}

struct Loser {
    member: MemberId,
    mark: Vec<u8>,
    end: Index,
    term: u64,
}

impl Replica {
    /// From now on its log is one that it has lost.
    pub(super) fn lose(&mut self) {
        self.standing = Standing::Lost { leader: None, ticks: 0 };
    }

    /// Whether what it acknowledged before is not all there yet.
    pub fn has_lost(&self) -> bool {
        self.standing != Standing::Whole
    }

    /// A tick, for one that stands for nothing.
    pub(super) fn tick_mute(&mut self) {
        if let Standing::Lost { leader: Some((leader, term)), ticks } = &mut self.standing {
            *ticks += 1;
            if *ticks >= LOST_LOG_ASK_TICKS {
                *ticks = 0;
                let (leader, term) = (*leader, *term);
                self.say_lost(leader, term);
            }
        }
    }

    fn say_lost(&mut self, leader: MemberId, term: Term) {
        let mut word = Message::new(Kind::AppendResponse, MemberId(self.raw.raft.id), leader);
        word.term = term;
        word.context = [LOST, &self.boot.to_be_bytes()].concat().into();
        self.aside.push(word);
    }

    /// Whether the message may go on to raft.
    pub(super) fn hear_mute(&mut self, message: &Message) -> bool {
        match self.standing {
            Standing::Whole => true,
            Standing::Mute { .. } => {
                !matches!(message.kind, Kind::Vote | Kind::PreVote | Kind::TimeoutNow)
            }
            Standing::Lost { leader, .. } => {
                self.hear_lost(message, leader);
                self.is_of_an_older_term(message)
            }
        }
    }

    /// What leads in a term that is over by this member's word hears so from raft, and from nobody else:
    /// the term may be one that this member began and nobody heard of. It promises nothing.
    fn is_of_an_older_term(&self, message: &Message) -> bool {
        matches!(message.kind, Kind::Heartbeat | Kind::Append)
            && message.term.0 < self.raw.raft.term
    }

    fn hear_lost(&mut self, message: &Message, leader: Option<(MemberId, Term)>) {
        let own = self.raw.raft.term;
        if message.term.0 < own {
            return;
        }
        match message.kind {
            Kind::Heartbeat | Kind::Append | Kind::Snapshot => {
                let heard = Some((message.from, message.term));
                if leader.is_none_or(|(_, term)| term < message.term) {
                    self.standing = Standing::Lost { leader: heard, ticks: 0 };
                    self.say_lost(message.from, message.term);
                }
            }
            Kind::AppendResponse => {
                let ours = [FOUND, &self.boot.to_be_bytes()].concat();
                if message.context == ours {
                    self.standing = Standing::Mute { until: message.index };
                }
            }
            _ => {}
        }
    }

    /// Once everything that was lost is durable again, its word counts.
    pub(super) fn recover_voice(&mut self) {
        if let Standing::Mute { until } = self.standing
            && self.raw.raft.raft_log.persisted >= until.0
        {
            self.standing = Standing::Whole;
        }
    }

    /// Whether the message was one of the two words, which raft does not know.
    pub(super) fn hear_loss(&mut self, message: &Message) -> bool {
        let Some(mark) = message.context.strip_prefix(LOST) else {
            return message.context.starts_with(FOUND);
        };
        let raft = &mut self.raw.raft;
        let (end, term) = (raft.raft_log.last_index(), raft.term);
        if raft.state != StateRole::Leader || message.term.0 != term {
            return true;
        }
        let Some(progress) = raft.mut_prs().get_mut(message.from.0) else { return true };
        progress.matched = 0;
        progress.become_probe();
        progress.next_idx = end + 1;
        self.losers.rounds += 1;
        let round = OWN_ROUND | self.losers.rounds;
        let loser = Loser { member: message.from, mark: mark.to_vec(), end: Index(end), term };
        // Only the last question of a member counts.
        self.losers.waiting.retain(|_, other| other.member != message.from);
        self.losers.waiting.insert(round, loser);
        self.raw.read_index(convert::read_context(self.raw.raft.id, self.boot, round));
        true
    }

    /// Whether a round was one of the leader's own; whoever waited for it is told.
    pub(super) fn confirm_loss(&mut self, context: u64) -> bool {
        if context & OWN_ROUND == 0 {
            return false;
        }
        let Some(loser) = self.losers.waiting.remove(&context) else { return true };
        let raft = &self.raw.raft;
        if raft.state == StateRole::Leader && raft.term == loser.term {
            let mut word = Message::new(Kind::AppendResponse, MemberId(raft.id), loser.member);
            (word.term, word.index) = (Term(raft.term), loser.end);
            word.context = [FOUND, &loser.mark].concat().into();
            self.aside.push(word);
        }
        true
    }
}
