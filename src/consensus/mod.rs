//! raft behind one door. The only module that names `raft`; everything above sees [`Replica`],
//! [`Effects`], [`Message`] and plain numbers.
//!
//! A [`Replica`] decides and never waits. What it wants done comes out of [`Replica::drain`] as
//! values; when an append is on disk the driver says so with [`Replica::appended`], in order.
//!
//! ```text
//!  propose, step, tick ─▶ raft ─▶ drain ─┬ messages   a leader's at once, beside its own append;
//!                           ▲            │            a follower's once what they promise is durable
//!                           │            ├ append ──▶ log ──▶ appended(number)
//!                           │            ├ committed ──▶ store ──▶ applied_through
//!                           └────────────┴ reads
//! ```
//!
//! A proposal on a member that does not lead is sent to the one that does, marked with the term and
//! a number that rises: the leader takes each once, and only in that term. So a message that the
//! network repeats or delays puts nothing into the log twice.

mod change;
mod convert;
mod forward;
mod log;
mod lost;
mod message;

pub use change::Change;
pub use message::{Configuration, KINDS, Kind, Message, SnapshotMark};

use crate::{
    limits::{
        COMMITTED_BYTES_PER_READY_MAX, RAFT_MESSAGE_BYTES_MAX, RAFT_MESSAGES_IN_FLIGHT_MAX,
        UNCOMMITTED_BYTES_MAX, UNWRITTEN_BYTES_MAX,
    },
    types::{Index, MemberId, Term},
};
use bytes::Bytes;
use change::Unsaid;
use forward::{Forwards, Taken};
use log::Window;
use lost::{Losers, Standing};
use raft::{Config, RawNode, SnapshotStatus, StateRole, eraftpb::EntryType};
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
    /// The store has to become what this stands for first, and the log to begin behind it.
    pub snapshot: Option<SnapshotMark>,
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
    /// To be sent to other members. Those of a leader need not wait for its appends.
    pub messages: Vec<Message>,
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let Self { append, committed, reads, messages } = self;
        append.is_empty() && committed.is_empty() && reads.is_empty() && messages.is_empty()
    }
}

/// How far another member is, as its leader sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Everything up to here is in its log, durably.
    pub matched: Index,
    /// It has answered since the last time that the leader asked itself whether it has a quorum.
    pub active: bool,
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
    /// Who takes part, as of `applied`.
    pub configuration: Configuration,
    /// The log was lost: what this member acknowledged before may be missing.
    pub lost: bool,
}

impl Durable {
    /// Nothing yet: `voters` begin a log together.
    pub fn nothing(voters: Vec<MemberId>) -> Self {
        Self {
            applied: Index(0),
            applied_term: Term(0),
            entries: Vec::new(),
            hard_state: HardState::default(),
            configuration: Configuration { voters, learners: Vec::new() },
            lost: false,
        }
    }
}

/// How a replica behaves in time.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Ticks without a leader before a member stands for election.
    pub election_ticks: usize,
    /// Makes this member's election jitter its own, and a simulated run repeatable.
    pub seed: u64,
    /// A fresh random number for each start: with a count it marks forwarded proposals and reads.
    pub boot: u64,
    /// `--pre-vote`: ask around before standing for election.
    pub pre_vote: bool,
}

impl Default for Timing {
    fn default() -> Self {
        Self { election_ticks: 10, seed: 1, boot: 1, pre_vote: true }
    }
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
    /// What raft was handed and has not been told to be durable, in order.
    unwritten: VecDeque<Unwritten>,
    /// Of all of them.
    unwritten_bytes: usize,
    /// Messages that are not raft's own words, on their way out.
    aside: Vec<Message>,
    boot: u64,
    forwards: Forwards,
    taken: Taken,
    /// The newest term that it has led since it started.
    led: u64,
    standing: Standing,
    losers: Losers,
    unsaid: Unsaid,
}

/// One of raft's Readys.
struct Unwritten {
    number: u64,
    /// It has something that is on its way to the disk; else it counts as soon as all before it do.
    on_disk: bool,
    /// What it promises to others.
    messages: Vec<raft::eraftpb::Message>,
    /// Up to here the store is replaced by it.
    snapshot: Option<Index>,
    /// Of its entries.
    bytes: usize,
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
            max_inflight_msgs: RAFT_MESSAGES_IN_FLIGHT_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_PER_READY_MAX,
            check_quorum: true,
            pre_vote: timing.pre_vote,
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
            unwritten_bytes: 0,
            aside: Vec::new(),
            boot: timing.boot,
            forwards: Forwards::default(),
            taken: Taken::default(),
            led: 0,
            standing: Standing::Whole,
            losers: Losers::default(),
            unsaid: Unsaid::default(),
        };
        if durable.lost {
            replica.lose();
        }
        replica.pin_election_timeout();
        Ok(replica)
    }

    /// One heartbeat interval has passed.
    pub fn tick(&mut self) {
        if self.has_lost() {
            return self.tick_mute();
        }
        let raft = &self.raw.raft;
        let would_stand = raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        if would_stand && self.is_installing() {
            return;
        }
        let _has_ready = self.raw.tick();
        self.pin_election_timeout();
    }

    /// Whether the store is being replaced by a snapshot. Until it is, raft 0.7 cannot stand for
    /// election: it looks for changes of members among entries that are gone, and panics.
    fn is_installing(&self) -> bool {
        self.unwritten.iter().any(|unwritten| unwritten.snapshot.is_some())
    }

    /// Brings the first election forward: all but one tick of its timeout have passed.
    pub fn hurry(&mut self) {
        let passed = self.election_ticks.saturating_sub(1);
        if self.raw.raft.leader_id == 0 && !self.has_lost() {
            (0..passed).for_each(|_| self.tick());
        }
    }

    /// Whether nobody else votes.
    pub fn is_alone(&self) -> bool {
        let voters = self.configuration().voters;
        voters == [MemberId(self.raw.raft.id)]
    }

    /// Stands for election now instead of waiting for the timeout: right for a lone voter.
    pub fn campaign(&mut self) {
        self.raw.campaign().expect("a member may always stand for election");
        self.pin_election_timeout();
    }

    /// Puts `data` into the log, through the leader where another member leads. Whether it arrives
    /// there nobody says: what comes of it is seen when it is committed.
    ///
    /// # Errors
    /// [`Dropped`] when there is no leader, the lead is being handed over, or
    /// [`UNCOMMITTED_BYTES_MAX`] is reached.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<(), Dropped> {
        self.propose_entry(convert::proposal(0, data.into()))
    }

    /// Whether more waits for the disk than may.
    fn is_clogged(&self) -> bool {
        self.unwritten_bytes >= UNWRITTEN_BYTES_MAX
    }

    fn lead_proposal(&mut self, entry: raft::eraftpb::Entry) -> Result<(), Dropped> {
        if self.is_clogged() {
            return Err(Dropped);
        }
        if entry.entry_type != EntryType::EntryNormal {
            return self.lead_change(entry);
        }
        let message = convert::propose(self.raw.raft.id, entry);
        self.raw.raft.step(message).map_err(|_full| Dropped)
    }

    /// Takes in what another member says. Whatever the network makes of messages, lost ones,
    /// repeated ones and late ones, does no harm.
    pub fn step(&mut self, message: Message) {
        if !message.is_whole() || !self.hear_mute(&message) || self.hear_loss(&message) {
            return;
        }
        match message.kind {
            Kind::Propose if message.reject => self.on_returned(message),
            Kind::Propose => self.on_forwarded(message),
            Kind::ReadIndex | Kind::TransferLeader => self.step_raft(message),
            // Only its own words reach raft without a term.
            _ if message.term.0 == 0 => {}
            Kind::TimeoutNow if self.is_installing() => {}
            // As if it were lost on the way: a disk that stands still must not fill the memory.
            Kind::Append if !message.entries.is_empty() && self.is_clogged() => {}
            // A leader that knows more of this log than is there: it is not the log that it was.
            Kind::Heartbeat
                if message.commit.0 > self.raw.raft.raft_log.last_index()
                    && message.term.0 >= self.raw.raft.term => {}
            _ => self.step_raft(message),
        }
    }

    fn step_raft(&mut self, message: Message) {
        // What raft does not want of it, such as an answer of somebody who is no member, is ignored.
        let _ignored = self.raw.step(convert::to_raft(message)).is_err();
        self.pin_election_timeout();
    }

    /// Whether a question of [`Replica::read_index`] has a chance: somebody leads, and a leader has
    /// committed an entry of its own term.
    pub fn can_read(&self) -> bool {
        let raft = &self.raw.raft;
        raft.leader_id != 0 && (raft.state != StateRole::Leader || raft.commit_to_current_term())
    }

    /// Asks when a read that begins now is linearizable; the answer is an [`Effects::reads`] with
    /// the same context. raft may drop it silently when there is no leader or nothing is committed
    /// in its term yet: ask again on a timer, with a new context, which must never repeat.
    pub fn read_index(&mut self, context: u64) {
        let own = convert::read_context(self.raw.raft.id, self.boot, context);
        self.raw.read_index(own);
    }

    /// Everything up to and including append `number` survives a power cut.
    pub fn appended(&mut self, number: u64) {
        let oldest = self.unwritten.iter_mut().find(|oldest| oldest.on_disk);
        let oldest = oldest.filter(|oldest| oldest.number == number);
        oldest.expect("appends become durable in the order they were made").on_disk = false;
    }

    /// What is durable with all before it: raft is told, and what it promised may be said.
    fn settle(&mut self, effects: &mut Effects) {
        while let Some(settled) = self.unwritten.pop_front_if(|oldest| !oldest.on_disk) {
            self.raw.on_persist_ready(settled.number);
            self.unwritten_bytes -= settled.bytes;
            if let Some(index) = settled.snapshot {
                self.raw.advance_apply_to(index.0);
            }
            effects.messages.extend(settled.messages.into_iter().filter_map(convert::message));
            effects.committed.extend(self.say(settled.number));
            self.pin_election_timeout();
        }
    }

    /// The one place that keeps raft's required order of `Ready` steps.
    pub fn drain(&mut self) -> Effects {
        let mut effects = Effects::default();
        self.settle(&mut effects);
        self.tell(&effects.committed);
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let now = ready.take_messages();
            effects.messages.extend(now.into_iter().filter_map(convert::message));
            let own = (self.raw.raft.id, self.boot);
            let reads = ready.take_read_states().into_iter();
            for state in reads.filter_map(|state| convert::read_state(own, state)) {
                if !self.confirm_loss(state.context) {
                    effects.reads.push(state);
                }
            }
            let number = ready.number();
            let mut committed: Vec<_> =
                ready.take_committed_entries().into_iter().map(convert::entry).collect();
            let on_disk = self.keep_unsaid(number, &mut committed) || ready.must_sync();
            effects.committed.append(&mut committed);
            let messages = ready.take_persisted_messages();
            let snapshot = Some(ready.snapshot()).filter(|snapshot| !snapshot.is_empty());
            let snapshot = snapshot.map(convert::mark);
            if let Some(mark) = &snapshot {
                self.raw.mut_store().restore(mark);
                // It has them.
                self.unsaid = Unsaid::default();
            }
            let entries = ready.take_entries();
            let bytes = entries.iter().map(log::weight).sum();
            self.unwritten_bytes += bytes;
            let replaced = snapshot.as_ref().map(|mark| mark.index);
            self.unwritten.push_back(Unwritten {
                number,
                on_disk,
                messages,
                snapshot: replaced,
                bytes,
            });
            self.raw.mut_store().append(&entries);
            if let Some(hard_state) = ready.hs() {
                self.raw.mut_store().hard_state = hard_state.clone();
            }
            if on_disk {
                effects.append.push(Append {
                    number,
                    entries: entries.into_iter().map(convert::entry).collect(),
                    hard_state: self.hard_state(),
                    snapshot,
                });
            }
            self.raw.advance_append_async(ready);
            self.settle(&mut effects);
            self.tell(&effects.committed);
            self.pin_election_timeout();
        }
        if self.raw.raft.state == StateRole::Leader {
            self.led = self.raw.raft.term;
        }
        self.recover_voice();
        self.do_not_say(&mut effects.messages);
        effects.messages.append(&mut self.aside);
        effects
    }

    /// Everything up to `applied`, an entry of `term`, is in the store.
    pub fn applied_through(&mut self, applied: Index, term: Term) {
        self.raw.advance_apply_to(applied.0);
        self.raw.mut_store().applied_through(applied, term);
    }

    /// Asks `to` to lead, once it has everything. Meanwhile nothing is proposed; given up after an
    /// election timeout.
    pub fn hand_over(&mut self, to: MemberId) {
        self.raw.transfer_leader(to.0);
        self.pin_election_timeout();
    }

    /// Whether the lead is being handed over.
    pub fn is_handing_over(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// How far a member is, as this leader sees it; `None` for no member, or where another leads.
    pub fn progress(&self, member: MemberId) -> Option<Progress> {
        if self.raw.raft.state != StateRole::Leader {
            return None;
        }
        let progress = self.raw.raft.prs().get(member.0)?;
        Some(Progress { matched: Index(progress.matched), active: progress.recent_active })
    }

    /// Voters other than this one, the most advanced first.
    pub fn heirs(&self) -> Vec<(MemberId, Progress)> {
        let raft = &self.raw.raft;
        let voters = raft.prs().conf().voters().ids().iter().map(MemberId).collect::<Vec<_>>();
        let others = voters.into_iter().filter(|id| id.0 != raft.id);
        let mut heirs: Vec<_> =
            others.filter_map(|id| self.progress(id).map(|progress| (id, progress))).collect();
        heirs.sort_by_key(|(id, progress)| (std::cmp::Reverse(progress.matched), *id));
        heirs
    }

    /// What was sent to `member` may not have arrived.
    pub fn report_unreachable(&mut self, member: MemberId) {
        self.raw.report_unreachable(member.0);
    }

    /// The snapshot for `member` has arrived, or it has not.
    pub fn report_snapshot(&mut self, member: MemberId, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(member.0, status);
    }

    /// Who takes part, as of the last applied change.
    pub fn configuration(&self) -> Configuration {
        convert::configuration(&self.raw.raft.prs().conf().to_conf_state())
    }

    /// What entries take in memory, bytes.
    pub fn window_bytes(&self) -> usize {
        self.raw.store().bytes()
    }

    /// The last entry of its log, durable or not.
    pub fn last_index(&self) -> Index {
        Index(self.raw.raft.raft_log.last_index())
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

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod tests;
