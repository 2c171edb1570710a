//! What members say to each other: etcd's `raftpb.Message`, field by field, as a plain value.
//!
//! `peer` puts it on the wire and takes it off; `consensus` alone turns it into raft's own.

use super::Entry;
use crate::types::{Index, MemberId, Term};
use bytes::Bytes;

/// What a message is for, with raft's numbers (etcd `raftpb.MessageType`). Those that a member says
/// only to itself are not here: on the wire they are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are raft's own")]
pub enum Kind {
    Propose = 2,
    Append = 3,
    AppendResponse = 4,
    Vote = 5,
    VoteResponse = 6,
    Snapshot = 7,
    Heartbeat = 8,
    HeartbeatResponse = 9,
    TransferLeader = 13,
    TimeoutNow = 14,
    ReadIndex = 15,
    ReadIndexResponse = 16,
    PreVote = 17,
    PreVoteResponse = 18,
}

/// All kinds.
pub const KINDS: [Kind; 14] = [
    Kind::Propose,
    Kind::Append,
    Kind::AppendResponse,
    Kind::Vote,
    Kind::VoteResponse,
    Kind::Snapshot,
    Kind::Heartbeat,
    Kind::HeartbeatResponse,
    Kind::TransferLeader,
    Kind::TimeoutNow,
    Kind::ReadIndex,
    Kind::ReadIndexResponse,
    Kind::PreVote,
    Kind::PreVoteResponse,
];

impl Kind {
    /// The kind with raft's number `number`.
    pub fn of(number: i32) -> Option<Self> {
        KINDS.into_iter().find(|kind| *kind as i32 == number)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is for.
    pub kind: Kind,
    /// Whom it is for.
    pub to: MemberId,
    /// Who says it.
    pub from: MemberId,
    /// The sender's term; 0 in a proposal of an etcd.
    pub term: Term,
    /// Term of the entry at `index`.
    pub log_term: Term,
    /// The entry that the new ones follow, or up to which something is so.
    pub index: Index,
    /// Entries, contiguous.
    pub entries: Vec<Entry>,
    /// The newest index known to be committed.
    pub commit: Index,
    /// What a snapshot holds.
    pub snapshot: Option<SnapshotMark>,
    /// The answer is no.
    pub reject: bool,
    /// Where to try next, beside a no.
    pub reject_hint: Index,
    /// Comes back with the answer.
    pub context: Bytes,
}

/// Where a snapshot stands in the log. What it holds travels apart from raft's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMark {
    /// Its last entry.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// Who votes and who learns then.
    pub configuration: Configuration,
}

/// Who takes part in consensus; each id once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Who votes.
    pub voters: Vec<MemberId>,
    /// Who only hears.
    pub learners: Vec<MemberId>,
}

impl Message {
    /// A message of `kind` with nothing else in it.
    pub fn new(kind: Kind, from: MemberId, to: MemberId) -> Self {
        Self {
            kind,
            to,
            from,
            term: Term(0),
            log_term: Term(0),
            index: Index(0),
            entries: Vec::new(),
            commit: Index(0),
            snapshot: None,
            reject: false,
            reject_hint: Index(0),
            context: Bytes::new(),
        }
    }

    /// Whether it has what its kind must have: raft looks without asking.
    pub(super) fn is_whole(&self) -> bool {
        match self.kind {
            Kind::Append => {
                let places = (self.index.0 + 1..).zip(&self.entries);
                places.into_iter().all(|(place, entry)| entry.index.0 == place)
            }
            Kind::ReadIndex | Kind::ReadIndexResponse => self.entries.len() == 1,
            Kind::Snapshot => self.snapshot.as_ref().is_some_and(|mark| mark.index.0 > 0),
            _ => true,
        }
    }

    /// About what it takes in memory and on the wire, bytes.
    pub fn weight(&self) -> usize {
        let entries = self.entries.iter().map(|entry| entry.data.len() + 32);
        64 + self.context.len() + entries.sum::<usize>()
    }
}
