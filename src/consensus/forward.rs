//! Proposals on a member that does not lead.
//!
//! ```text
//!  propose ─▶ outstanding ──message──▶ leader ── once, in the term it speaks of ──▶ its log
//!     ▲           │                      └── cannot take it: sent back
//!     └─ returned ◀── sent back, or never left ──┘
//! ```
//!
//! What comes back was surely not taken, and never will be, however often the network repeats it. Only
//! who led the term that it speaks of, since this start, can know that: while it leads, it remembers
//! what it sent back as if it had taken it; afterwards it leads in that term no more, and still knows
//! what it has taken. So what comes back may be proposed again, once. What is lost without a word stays
//! lost; its client runs out of time.

use super::{Dropped, Entry, Kind, Message, Replica, convert};
use crate::{
    limits::{FORWARDING_BOOTS_MAX, FORWARDS_OUTSTANDING_MAX, RETURNED_BYTES_MAX},
    types::{MemberId, Term},
};
use raft::StateRole;
use std::collections::{BTreeMap, BTreeSet};

/// What a member forwards, and what of it comes back.
#[derive(Default)]
pub(super) struct Forwards {
    /// Forwarded in this boot.
    count: u64,
    /// Of those, what may still come back; the newest ones.
    outstanding: BTreeSet<u64>,
    returned: Vec<Entry>,
    returned_bytes: usize,
}

/// As leader of a term: the newest count taken of each boot of each member that forwards.
#[derive(Default)]
pub(super) struct Taken {
    term: u64,
    newest: BTreeMap<(MemberId, u64), u64>,
}

impl Taken {
    /// Whether this message of a term that was led in this boot has surely not been taken.
    fn lacks(&self, message: &Message) -> bool {
        let Some((boot, count)) = convert::read_mark(&message.context) else { return false };
        let newest = self.newest.get(&(message.from, boot)).copied().unwrap_or_default();
        self.term < message.term.0 || (self.term == message.term.0 && count > newest)
    }

    /// Whether the message is new, which it then is no more.
    fn take(&mut self, message: &Message) -> bool {
        let Some((boot, count)) = convert::read_mark(&message.context) else { return false };
        if self.term != message.term.0 || self.newest.len() >= FORWARDING_BOOTS_MAX {
            *self = Self { term: message.term.0, newest: BTreeMap::new() };
        }
        let newest = self.newest.entry((message.from, boot)).or_default();
        let is_new = count > *newest;
        *newest = count.max(*newest);
        is_new
    }
}

impl Replica {
    pub(super) fn propose_entry(&mut self, entry: raft::eraftpb::Entry) -> Result<(), Dropped> {
        let raft = &mut self.raw.raft;
        if raft.state == StateRole::Leader {
            return self.lead_proposal(entry);
        }
        if raft.leader_id == 0 {
            return Err(Dropped);
        }
        let forwards = &mut self.forwards;
        forwards.count += 1;
        forwards.outstanding.insert(forwards.count);
        if forwards.outstanding.len() > FORWARDS_OUTSTANDING_MAX {
            forwards.outstanding.pop_first();
        }
        let mut message = Message::new(Kind::Propose, MemberId(raft.id), MemberId(raft.leader_id));
        message.term = Term(raft.term);
        message.entries = vec![convert::entry(entry)];
        message.context = convert::mark_of(self.boot, forwards.count).into();
        self.aside.push(message);
        Ok(())
    }

    /// A proposal of another member. One with a term is taken once, and in that term only.
    pub(super) fn on_forwarded(&mut self, message: Message) {
        let raft = &self.raw.raft;
        let leads = raft.state == StateRole::Leader;
        if message.term.0 == 0 {
            // An etcd's: taken as raft takes it.
            let entries = message.entries.into_iter().filter(|_| leads);
            for entry in entries {
                let _full = self.lead_proposal(convert::to_raft_entry(entry)).is_err();
            }
            return;
        }
        if !leads || message.term.0 != raft.term {
            if message.term.0 == self.led && self.taken.lacks(&message) {
                self.send_back(message);
            }
            return;
        }
        if !self.taken.take(&message) {
            return;
        }
        let mut refused = message.clone();
        refused.entries.clear();
        for entry in message.entries {
            if self.lead_proposal(convert::to_raft_entry(entry.clone())).is_err() {
                refused.entries.push(entry);
            }
        }
        if !refused.entries.is_empty() {
            self.send_back(refused);
        }
    }

    fn send_back(&mut self, message: Message) {
        let (to, from) = (message.from, MemberId(self.raw.raft.id));
        self.aside.push(Message { to, from, reject: true, ..message });
    }

    /// A proposal of this member's came back, or never left.
    pub fn on_returned(&mut self, message: Message) {
        let Some((boot, count)) = convert::read_mark(&message.context) else { return };
        if boot != self.boot || !self.forwards.outstanding.remove(&count) {
            return;
        }
        let bytes: usize = message.entries.iter().map(|entry| entry.data.len()).sum();
        if self.forwards.returned_bytes + bytes <= RETURNED_BYTES_MAX {
            self.forwards.returned_bytes += bytes;
            self.forwards.returned.extend(message.entries);
        }
    }

    /// Proposes again what came back, where somebody leads. In between some time passes, so that it
    /// does not go to and fro.
    pub fn propose_returned(&mut self) {
        if self.raw.raft.leader_id == 0 || self.is_handing_over() {
            return;
        }
        self.forwards.returned_bytes = 0;
        for entry in std::mem::take(&mut self.forwards.returned) {
            // A full log drops it; its client runs out of time.
            let _full = self.propose_entry(convert::proposal(entry.kind, entry.data)).is_err();
        }
    }
}
