//! Changes of members: how they get into the log, and what comes of them.
//!
//! A member that is removed may be gone for good the moment it hears so. If the leader that told it
//! starts again and does not know that the removal is committed, it may need the vote of the one that
//! is gone, as one of two does. So a leader has a committed change on its own disk before it tells
//! anybody, and before it acts on it.

use super::{Dropped, Entry, Kind, Message, Replica, convert};
use crate::types::{Index, MemberId};
use bytes::Bytes;
use raft::{
    StateRole,
    eraftpb::{ConfChange, ConfChangeType},
};

/// What a change of members means to raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It votes from now on.
    Voter(MemberId),
    /// It hears from now on, and does not vote.
    Learner(MemberId),
    /// It takes no part any more.
    Gone(MemberId),
}

/// What a leader does not say yet, while a change of members is on its way.
#[derive(Default)]
pub(super) struct Unsaid {
    /// The append that makes it durable that `entries` are committed.
    number: u64,
    /// Committed ones, from a change of members on.
    entries: Vec<Entry>,
    /// The last one that was given out to be applied: the others may hear of what is up to it.
    given: Index,
    /// Some message would have told more.
    was_cut: bool,
}

impl Replica {
    /// As [`Replica::propose`], for a change of members as the log holds it.
    ///
    /// # Errors
    /// As [`Replica::propose`], and while another change is on its way.
    pub fn propose_change(&mut self, data: Bytes) -> Result<(), Dropped> {
        self.propose_entry(convert::proposal(1, data))
    }

    /// raft would read a change of members in its own words, which are not the log's. So what it does
    /// with one is done here: one at a time, counted as on its way until it is applied.
    pub(super) fn lead_change(&mut self, entry: raft::eraftpb::Entry) -> Result<(), Dropped> {
        let raft = &mut self.raw.raft;
        let is_member = raft.prs().get(raft.id).is_some();
        if raft.has_pending_conf() || raft.lead_transferee.is_some() || !is_member {
            return Err(Dropped);
        }
        let place = raft.raft_log.last_index() + 1;
        if !raft.append_entry(&mut [entry]) {
            return Err(Dropped);
        }
        raft.pending_conf_index = place;
        raft.bcast_append();
        Ok(())
    }

    /// Takes out of what a leader's Ready `number` has committed what is not said yet. Returns whether
    /// that Ready has to be on disk for it.
    pub(super) fn keep_unsaid(&mut self, number: u64, committed: &mut Vec<Entry>) -> bool {
        let leads = self.leads();
        let change = committed.iter().position(|entry| leads && entry.kind != 0);
        let held = &mut self.unsaid.entries;
        if let (true, Some(change)) = (held.is_empty(), change) {
            *held = committed.split_off(change);
        } else if !held.is_empty() {
            held.append(committed);
        }
        if change.is_some() {
            self.unsaid.number = number;
        }
        change.is_some()
    }

    /// What may be applied now that append `number` is durable.
    pub(super) fn say(&mut self, number: u64) -> Vec<Entry> {
        let waits = number < self.unsaid.number;
        if waits { Vec::new() } else { std::mem::take(&mut self.unsaid.entries) }
    }

    /// `committed` is given out to be applied, and others who were told less may hear of it.
    pub(super) fn tell(&mut self, committed: &[Entry]) {
        let Some(last) = committed.last() else { return };
        self.unsaid.given = last.index;
        if std::mem::take(&mut self.unsaid.was_cut) && self.leads() {
            self.raw.raft.bcast_append();
        }
    }

    /// While a change is on its way, messages tell of what is committed only up to what has been given
    /// out: raft counts the others' disks, and may know more before its own has it.
    pub(super) fn do_not_say(&mut self, messages: &mut [Message]) {
        let raft = &self.raw.raft;
        if !self.leads() || !raft.has_pending_conf() {
            return;
        }
        let upto = self.unsaid.given.max(Index(raft.raft_log.applied));
        let tells_more = |message: &&mut Message| {
            matches!(message.kind, Kind::Append | Kind::Heartbeat) && message.commit > upto
        };
        for message in messages.iter_mut().filter(tells_more) {
            message.commit = upto;
            self.unsaid.was_cut = true;
        }
    }

    fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// A committed change of members, once it is applied. `None`: it changes nothing of raft's.
    pub fn apply_change(&mut self, change: Option<Change>) {
        let Some(change) = change else { return };
        let (kind, id) = match change {
            Change::Voter(id) => (ConfChangeType::AddNode, id),
            Change::Learner(id) => (ConfChangeType::AddLearnerNode, id),
            Change::Gone(id) => (ConfChangeType::RemoveNode, id),
        };
        let raft_change = ConfChange { change_type: kind, node_id: id.0, ..ConfChange::default() };
        let after = self.raw.apply_conf_change(&raft_change);
        let after = after.expect("whoever applied it saw to it that somebody is left to vote");
        self.raw.mut_store().set_configuration(after);
        let raft = &self.raw.raft;
        if raft.state == StateRole::Leader && change == Change::Gone(MemberId(raft.id)) {
            self.give_up_lead();
        }
        self.pin_election_timeout();
    }

    /// A leader that is no member any more leads no more: raft 0.7 cannot count what its own disk
    /// finishes then, and panics. Whoever has most of its log is asked to lead.
    fn give_up_lead(&mut self) {
        let heir = self.heirs().into_iter().find(|(_, progress)| progress.active);
        let raft = &mut self.raw.raft;
        raft.bcast_append();
        if let Some((heir, _)) = heir {
            raft.send_timeout_now(heir.0);
        }
        raft.become_follower(raft.term, raft::INVALID_ID);
    }

    /// Whether a change of members is on its way.
    pub fn is_changing(&self) -> bool {
        self.raw.raft.has_pending_conf()
    }
}
