//! raft behind one door. The only module that names `raft`; everything above sees [`Replica`],
//! [`Effects`] and plain numbers.
//!
//! A [`Replica`] decides and never waits. What it wants done comes out of [`Replica::drain`] as
//! values; when an append is on disk the driver says so with [`Replica::appended`], in order.

mod log;
mod message;

pub use message::{Configuration, KINDS, Kind, Message, SnapshotMark};

use crate::{
    limits::{COMMITTED_BYTES_PER_READY_MAX, RAFT_MESSAGE_BYTES_MAX, UNCOMMITTED_BYTES_MAX},
    types::{Index, MemberId, Term},
};
use bytes::Bytes;
use log::Window;
use raft::{
    Config, RawNode, StateRole,
    eraftpb::{ConfState, HardState as RaftHardState},
};
use std::collections::VecDeque;

/// One position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log.
    pub index: Index,
    /// Term of the leader that made it.
    pub term: Term,
    /// Normal or a change of members, by raft's numbers (0 normal, 1 and 2 changes).
    pub kind: u8,
    /// What was proposed; empty for the entry a new leader makes.
    pub data: Bytes,
}

/// What raft must never forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Whom this member voted for in that term; 0 is nobody.
    pub vote: MemberId,
    /// The newest index known to be committed.
    pub commit: Index,
}

/// What must be on disk before [`Replica::appended`] may be told `number`.
#[derive(Clone, Debug)]
pub struct Append {
    /// Rises by the append; appends are reported in order.
    pub number: u64,
    /// Entries, contiguous; they replace whatever the log holds from the first one's index on.
    pub entries: Vec<Entry>,
    /// Goes with the entries, as one unit.
    pub hard_state: HardState,
}

/// A read that was asked for with `context` may be served once `index` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// As given to [`Replica::read_index`].
    pub context: u64,
    /// Everything up to here must be applied first.
    pub index: Index,
}

/// Who leads, as far as this member knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader; 0 when there is none.
    pub leader: MemberId,
    /// Whether that is this member.
    pub own: bool,
    /// The term this is about.
    pub term: Term,
}

/// Everything raft wants done now.
#[derive(Default, Debug)]
pub struct Effects {
    /// To be made durable, in this order.
    pub append: Vec<Append>,
    /// To be applied, in this order.
    pub committed: Vec<Entry>,
    /// Reads that may be served.
    pub reads: Vec<ReadState>,
}

/// Where a replica starts from.
#[derive(Clone, Debug)]
pub struct Durable {
    /// Everything up to here is in the store already.
    pub applied: Index,
    /// Term of the entry at `applied`.
    pub applied_term: Term,
    /// The log after `applied`, contiguous.
    pub entries: Vec<Entry>,
    /// As last written.
    pub hard_state: HardState,
    /// Who votes.
    pub voters: Vec<MemberId>,
}

/// How a replica behaves in time.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Ticks without a leader before a member stands for election.
    pub election_ticks: usize,
    /// Makes this member's election jitter its own, and a simulated run repeatable.
    pub seed: u64,
}

/// Why a start from what the disk holds is impossible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogGap {
    /// The first index the log must hold.
    pub wanted: Index,
    /// The first index it does hold.
    pub found: Index,
}

impl std::fmt::Display for LogGap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wanted, found } = self;
        write!(f, "the log starts at index {} but {} is needed", found.0, wanted.0)
    }
}

/// A proposal or a read that raft would not take now: there is no leader, or too much is waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped;

/// One member's raft.
pub struct Replica {
    raw: RawNode<Window>,
    election_ticks: usize,
    seed: u64,
    /// Numbers handed out in an [`Append`] and not yet reported back, in order.
    unwritten: VecDeque<u64>,
}

impl Replica {
    /// A replica that goes on from what the disk holds.
    ///
    /// # Errors
    /// [`LogGap`] when the log does not connect to what is applied.
    pub fn recover(id: MemberId, durable: &Durable, timing: Timing) -> Result<Self, LogGap> {
        let window = Window::recover(durable)?;
        let config = Config {
            id: id.0,
            election_tick: timing.election_ticks,
            min_election_tick: timing.election_ticks,
            max_election_tick: timing.election_ticks * 2,
            heartbeat_tick: 1,
            applied: durable.applied.0,
            max_size_per_msg: RAFT_MESSAGE_BYTES_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_PER_READY_MAX,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            ..Config::default()
        };
        let quiet = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, window, &quiet)
            .expect("the configuration is checked when it is typed, and the window cannot fail");
        let mut replica = Self {
            raw,
            election_ticks: timing.election_ticks,
            seed: timing.seed,
            unwritten: VecDeque::new(),
        };
        replica.pin_election_timeout();
        Ok(replica)
    }

    /// One heartbeat interval has passed.
    pub fn tick(&mut self) {
        let _has_ready = self.raw.tick();
        self.pin_election_timeout();
    }

    /// Stands for election now instead of waiting for the timeout: right for a lone voter.
    pub fn campaign(&mut self) {
        self.raw.campaign().expect("a member may always stand for election");
        self.pin_election_timeout();
    }

    /// Puts `data` into the log, if this member leads.
    ///
    /// # Errors
    /// [`Dropped`] when there is no leader or [`UNCOMMITTED_BYTES_MAX`] is reached.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<(), Dropped> {
        self.raw.propose(Vec::new(), data).map_err(|_no_leader_or_full| Dropped)
    }

    /// Asks when a read that begins now is linearizable; the answer is an [`Effects::reads`] with
    /// the same context. raft may drop it silently when there is no leader or nothing is committed
    /// in its term yet: ask again on a timer, with a new context, which must never repeat.
    pub fn read_index(&mut self, context: u64) {
        self.raw.read_index(context.to_be_bytes().to_vec());
    }

    /// Everything up to and including append `number` survives a power cut.
    pub fn appended(&mut self, number: u64) {
        let oldest = self.unwritten.pop_front();
        assert_eq!(oldest, Some(number), "appends become durable in the order they were made");
        self.raw.on_persist_ready(number);
        self.pin_election_timeout();
    }

    /// The one place that keeps raft's required order of `Ready` steps.
    pub fn drain(&mut self) -> Effects {
        let mut effects = Effects::default();
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            assert!(ready.snapshot().is_empty(), "a lone voter is never sent a snapshot");
            assert!(ready.take_messages().is_empty(), "a lone voter has nobody to write to");
            assert!(ready.take_persisted_messages().is_empty(), "nor to answer");
            effects.reads.extend(ready.take_read_states().into_iter().map(read_state));
            effects.committed.extend(ready.take_committed_entries().into_iter().map(entry));
            let number = ready.number();
            if ready.must_sync() {
                let entries = ready.take_entries();
                self.raw.mut_store().append(&entries);
                if let Some(hard_state) = ready.hs() {
                    self.raw.mut_store().hard_state = hard_state.clone();
                }
                effects.append.push(Append {
                    number,
                    entries: entries.into_iter().map(entry).collect(),
                    hard_state: self.hard_state(),
                });
                self.unwritten.push_back(number);
                self.raw.advance_append_async(ready);
            } else {
                if let Some(hard_state) = ready.hs() {
                    self.raw.mut_store().hard_state = hard_state.clone();
                }
                self.raw.advance_append_async(ready);
                // Nothing of it needs the disk, but raft wants its numbers in order: it counts as
                // written at once when nothing before it is still being written.
                if self.unwritten.is_empty() {
                    self.raw.on_persist_ready(number);
                }
            }
            self.pin_election_timeout();
        }
        effects
    }

    /// Everything up to `applied` is in the store.
    pub fn applied_through(&mut self, applied: Index) {
        self.raw.advance_apply_to(applied.0);
        self.raw.mut_store().forget_through(applied);
    }

    /// Who leads.
    pub fn leadership(&self) -> Leadership {
        let raft = &self.raw.raft;
        Leadership {
            leader: MemberId(raft.leader_id),
            own: raft.state == StateRole::Leader,
            term: Term(raft.term),
        }
    }

    /// The newest index known to be committed.
    pub fn committed(&self) -> Index {
        Index(self.raw.raft.raft_log.committed)
    }

    /// What must never be forgotten, as it is now.
    pub fn hard_state(&self) -> HardState {
        let raft = &self.raw.raft;
        HardState {
            term: Term(raft.term),
            vote: MemberId(raft.vote),
            commit: Index(raft.raft_log.committed),
        }
    }

    /// raft draws its election jitter from the thread's own random numbers. A pure function of who
    /// and when keeps elections spread apart and a seed repeatable; being pure, it may be applied
    /// after every call.
    fn pin_election_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        let draw = mix(self.seed ^ mix(raft.id ^ mix(raft.term)));
        let jitter = usize::try_from(draw % self.election_ticks as u64).expect("fits its divisor");
        raft.set_randomized_election_timeout(self.election_ticks + jitter);
    }
}

/// Spreads the bits of a small number over the whole word (the finaliser of splitmix64).
fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn entry(entry: raft::eraftpb::Entry) -> Entry {
    Entry {
        index: Index(entry.index),
        term: Term(entry.term),
        kind: u8::try_from(entry.entry_type as i32).expect("raft has three kinds of entry"),
        data: entry.data,
    }
}

fn read_state(state: raft::ReadState) -> ReadState {
    let context = state.request_ctx.try_into().expect("contexts are eight bytes, made here");
    ReadState { context: u64::from_be_bytes(context), index: Index(state.index) }
}

fn raft_hard_state(state: HardState) -> RaftHardState {
    RaftHardState {
        term: state.term.0,
        vote: state.vote.0,
        commit: state.commit.0,
        ..RaftHardState::default()
    }
}

fn conf_state(voters: &[MemberId]) -> ConfState {
    ConfState { voters: voters.iter().map(|voter| voter.0).collect(), ..ConfState::default() }
}

#[cfg(test)]
mod tests;
