//! The single writer. Events in, actions out; it never waits and never looks at a clock: each turn
//! begins with being told the time.
//!
//! [`Node`] owns raft, the store and what waits for either; it lives on one core, and only
//! [`drive`](drive::drive) may call it. Each kind of event has its own file:
//!
//! | event | file |
//! |---|---|
//! | a proposal | `propose.rs` |
//! | a committed entry | `apply.rs` |
//! | a linearizable read | `read.rs` |
//! | a renewal, a deadline | `lease.rs`, `listing.rs` |
//! | another member's word, a change of leader | `peers.rs` |
//! | a change of members | `members.rs` |
//! | a snapshot, sent or arrived | `snapshot.rs` |

mod apply;
mod defragment;
pub mod drive;
mod event;
mod lease;
mod listing;
mod members;
mod peers;
mod pieces;
mod piecewise;
mod propose;
mod read;
pub mod recover;
mod snapshot;

pub use event::{Action, Event};

use crate::{
    consensus::{HardState, Leadership, Replica},
    limits::held_ticks,
    metrics::LeaseMeters,
    store::{BadEntry, RaftSeen, Store, View},
    tree::{Checkpoint, CheckpointDone, Staged},
    types::{ClusterId, Index, MemberId},
};
use lease::Expiry;
use listing::Listing;
use peers::{Contacts, Moves};
use propose::Proposals;
use read::{Question, Reads};
use std::{sync::Arc, time::Duration};

/// One member's decisions.
pub struct Node {
    id: MemberId,
    cluster: ClusterId,
    replica: Replica,
    store: Store,
    proposals: Proposals,
    reads: Reads,
    /// Compactions whose clients wait until the room is free.
    sweeping: apply::Sweeping,
    /// There may be pages of the index to give back.
    tending_index: bool,
    /// There may be memory that only views needed that are gone.
    freeing: bool,
    defragmenting: defragment::Defragmenting,
    leases: Expiry,
    listing: Listing,
    contacts: Contacts,
    moves: Moves,
    /// A snapshot that raft has not judged yet.
    arrived: Option<Box<Staged>>,
    /// See [`Node::take_no_snapshot_before`].
    snapshots_from: Index,
    /// A first contact brings the first election forward.
    hurries: bool,
    /// `--strict-reconfig-check`.
    strict: bool,
    /// The cluster has removed this member: so many ticks are left.
    ends_after: Option<u32>,
    /// The cluster has removed this member, and there is nothing left to say.
    removed: bool,
    /// When this turn began, by the driver's clock.
    now: Duration,
    leadership: Leadership,
    leaders_seen: u64,
    /// When this member last came to lead.
    elected: Option<Duration>,
    /// Whether anything a reader could see has changed since the last [`Node::publish`].
    changed: bool,
}

/// An entry of the log that cannot be applied: this member must not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Which entry.
    pub index: Index,
    /// Why.
    pub entry: BadEntry,
}

impl Node {
    /// A node that goes on from what its parts hold.
    pub fn new(cluster: ClusterId, id: MemberId, replica: Replica, store: Store) -> Self {
        Self {
            id,
            cluster,
            // Before the first election a member answers with the term that it remembers.
            leadership: replica.leadership(),
            replica,
            store,
            proposals: Proposals::default(),
            reads: Reads::default(),
            sweeping: apply::Sweeping::at_start(),
            tending_index: true,
            freeing: true,
            defragmenting: defragment::Defragmenting::default(),
            leases: Expiry::default(),
            listing: Listing::default(),
            contacts: Contacts::default(),
            moves: Moves::default(),
            arrived: None,
            snapshots_from: Index(0),
            hurries: false,
            strict: true,
            ends_after: None,
            removed: false,
            now: Duration::ZERO,
            leaders_seen: 0,
            elected: None,
            changed: true,
        }
    }

    /// A turn begins at `now`, by a clock that never goes back; it is read after the turn's events
    /// have arrived, so that nothing that is renewed in it counts from before it was asked for.
    ///
    /// # Panics
    /// If the clock went back.
    pub fn begin_turn(&mut self, now: Duration) {
        assert!(now >= self.now, "the clock went back from {:?} to {now:?}", self.now);
        self.now = now;
    }

    /// Takes in one cause. What follows from it comes out of [`Node::flush`].
    pub fn handle(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Tick => self.on_tick(out),
            Event::Propose { ticket, request } => self.on_propose(ticket, &request, out),
            Event::Read { ticket } => self.reads.wait(Question::Read(ticket)),
            Event::Lease { ticket, ask } => self.on_lease(ticket, ask, out),
            Event::MoveLeader { ticket, to } => self.on_move_leader(ticket, to, out),
            Event::Change { ticket, change } => self.on_change(ticket, &change, out),
            Event::Defragment { ticket } => self.on_defragment(ticket),
            Event::Peer(said) => self.on_peer(said, out),
            Event::Appended { number } => self.replica.appended(number),
        }
    }

    /// Once per turn, after a batch of events: this is where group commit comes from. Without
    /// `room` for another append, proposals stay packed and the next turn's join them.
    ///
    /// # Errors
    /// [`Stuck`] when the log holds what this member cannot apply.
    pub fn flush(&mut self, room: bool, out: &mut Vec<Action>) -> Result<(), Stuck> {
        if room {
            self.propose_packed(out);
        }
        self.ask_reads();
        self.settle(out)?;
        self.answer_reads(out);
        // After the renewals of this turn.
        if room && self.revoke_expired() {
            self.settle(out)?;
        }
        self.answer_defragment(out);
        self.tend_leases(out);
        self.give_back_unneeded(out);
        Ok(())
    }

    /// Whether there is work that nobody who is served waits for.
    pub fn wants_tidying(&self) -> bool {
        let has_more = self.sweeping.has_more() || self.store.has_sums_due();
        has_more || self.tending_index || self.freeing
    }

    /// One bounded piece of that work: how often, the driver decides. Behind [`Node::flush`].
    pub fn tidy(&mut self, out: &mut Vec<Action>) {
        self.sweep(out);
        self.sum_up();
        self.tend_index();
        self.freeing = self.freeing && !self.store.tree_mut().free_unseen();
        self.answer_defragment(out);
    }

    /// Does what raft wants until it wants nothing more for now.
    fn settle(&mut self, out: &mut Vec<Action>) -> Result<(), Stuck> {
        loop {
            let effects = self.replica.drain();
            self.notice_leadership(out);
            if effects.is_empty() {
                return Ok(());
            }
            self.send(effects.messages, out);
            for append in effects.append {
                self.install_for(&append, out);
                out.push(Action::Append(append));
            }
            self.on_committed(effects.committed, out)?;
            self.reads.answered(&effects.reads);
        }
    }

    fn on_tick(&mut self, out: &mut Vec<Action>) {
        self.replica.tick();
        self.replica.propose_returned();
        self.reads.tick();
        self.age_proposals(out);
        self.age_removed();
        self.freeing = true;
    }

    /// Whether no memory is taken for views alone.
    pub fn memory_is_tidy(&self) -> bool {
        self.store.tree().retired_index_bytes() == 0
    }

    /// A change of leader is news to readers, and what waited for the old one must ask again.
    fn notice_leadership(&mut self, out: &mut Vec<Action>) {
        let now = self.replica.leadership();
        if now == self.leadership {
            return;
        }
        crate::log::info!(
            "leadership changed",
            "leader" => now.leader.to_string(),
            "term" => now.term.0,
            "own" => now.own,
        );
        if now.own {
            self.elected = Some(self.now);
        }
        self.leadership = now;
        self.leases.on_leadership(now, out);
        self.reads.ask_again();
        self.replica.propose_returned();
        self.answer_moves(out);
        self.changed = true;
        self.leaders_seen += u64::from(now.leader.0 != 0);
    }

    /// How fast the cluster's clocks go. A lease lives an `election` longer than its TTL under a new
    /// leader (etcd), since the one before may have renewed it; a proposal waits for a leader for
    /// [`held_ticks`] of `tick`.
    pub fn keep_pace(&mut self, tick: Duration, election: Duration) {
        self.leases.extend_by(election);
        self.proposals.hold_for(held_ticks(tick, election));
    }

    /// What is counted of leases.
    pub fn lease_meters(&self) -> Arc<LeaseMeters> {
        self.leases.meters()
    }

    /// Whether another turn has work to do although nothing new happened.
    pub fn has_more(&self) -> bool {
        self.leases.has_more() || self.listing.has_more()
    }

    /// Times somebody came to lead, as seen from here.
    pub fn leaders_seen(&self) -> u64 {
        self.leaders_seen
    }

    /// The state as readers may see it from now on, if it has changed since the last call.
    pub fn publish(&mut self) -> Option<View> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let seen = RaftSeen {
            term: self.leadership.term,
            leader: self.leadership.leader,
            committed: self.replica.committed(),
            elected: self.elected,
            in_touch: self.in_touch_since(),
        };
        Some(self.store.publish(seen))
    }

    /// Starts a checkpoint of everything applied so far, one that gives space back where somebody
    /// waits for that; `None` while one is running, and for a member that has nothing yet: what is on
    /// its disk goes when a snapshot has come, not before.
    pub fn begin_checkpoint(&mut self) -> Option<Checkpoint> {
        if self.applied() == Index(0) {
            return None;
        }
        let facts = self.store.facts(self.cluster, self.id);
        if self.wants_defragment() {
            return self.store.tree_mut().begin_defragment(facts);
        }
        self.store.tree_mut().begin_checkpoint(facts)
    }

    /// A checkpoint was written whole.
    pub fn finish_checkpoint(&mut self, done: CheckpointDone) {
        self.store.tree_mut().finish_checkpoint(done);
        self.tending_index = true;
        self.changed = true;
    }

    /// Stands for election at once: right for a lone voter, which nobody can outvote.
    pub fn campaign(&mut self) {
        self.replica.campaign();
    }

    /// The state machine, to look at.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A checkpoint could not be written for lack of room; the next one does its work.
    pub fn abandon_checkpoint(&mut self) {
        self.store.tree_mut().abandon_checkpoint();
    }

    /// The last entry applied.
    pub fn applied(&self) -> Index {
        self.store.applied()
    }

    /// What raft must never forget, as it is now.
    pub fn hard_state(&self) -> HardState {
        self.replica.hard_state()
    }

    /// Who leads, as far as this member knows.
    pub fn leadership(&self) -> Leadership {
        self.leadership
    }

    /// The newest index known to be committed.
    pub fn committed(&self) -> Index {
        self.replica.committed()
    }

    /// What entries take in memory, bytes.
    pub fn window_bytes(&self) -> usize {
        self.replica.window_bytes()
    }

    /// Who this is.
    pub fn id(&self) -> MemberId {
        self.id
    }
}
