//! What applying said: [`Outcome`], and the two kinds of no.
//!
//! An outcome owns its bytes, so it may travel to another core. Stored key-values inside are the
//! exact bytes of the record, ready to be spliced into a response.

use bytes::Bytes;

use super::cluster::{Alarm, Member};
use crate::types::{LeaseId, MemberId, Revision};

/// What applying a [`super::command::Command`] said.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A put.
    Put(PutDone),
    /// A delete-range.
    Deleted(Deleted),
    /// A transaction, either branch.
    Txn(TxnDone),
    /// A compaction; the history is unreadable from now on.
    Compacted {
        /// The current revision, not the compacted one.
        revision: Revision,
        /// The client waits until the room is free.
        physical: bool,
    },
    /// What the alarm order listed, raised or cleared.
    Alarms {
        /// The current revision.
        revision: Revision,
        /// In order of kind, then member.
        alarms: Vec<Alarm>,
    },
    /// A lease was granted.
    LeaseGranted {
        /// Which.
        id: LeaseId,
        /// Seconds.
        ttl: i64,
        /// The current revision: a grant makes none.
        revision: Revision,
    },
    /// A lease was granted although room had run out: the client is told that (etcd `apply`, the
    /// quota's applier).
    LeaseGrantedWithoutRoom {
        /// Which.
        id: LeaseId,
        /// Seconds.
        ttl: i64,
    },
    /// A lease is gone, and its keys with it.
    LeaseRevoked {
        /// Which.
        id: LeaseId,
        /// The revision that deleted its keys, or the current one where it had none.
        revision: Revision,
    },
    /// The members are others now, or elsewhere.
    Members {
        /// All of them, by id.
        members: Vec<Member>,
        /// Who is new.
        added: Option<MemberId>,
    },
    /// Done, with nothing to say.
    Done,
    /// A no that every member says alike.
    Refused(Refusal),
}

/// What a put did.
#[derive(Debug, Clone, PartialEq)]
pub struct PutDone {
    /// The revision it made.
    pub revision: Revision,
    /// The key-value before it, if asked for and there was one.
    pub prev: Option<Bytes>,
}

/// What a delete-range did.
#[derive(Debug, Clone, PartialEq)]
pub struct Deleted {
    /// The revision it made, or the current one if there was nothing to delete.
    pub revision: Revision,
    /// Keys deleted.
    pub deleted: i64,
    /// Their key-values, if asked for.
    pub prev: Vec<Bytes>,
}

/// What a range inside a transaction found.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeDone {
    /// The revision at this point of the transaction.
    pub revision: Revision,
    /// The fields of a `RangeResponse` after its header, encoded.
    pub body: Bytes,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq)]
pub struct TxnDone {
    /// The revision after it; 0 in a nested one, which says none (etcd `txn`).
    pub revision: Revision,
    /// Whether the compares held.
    pub succeeded: bool,
    /// One for each operation of the branch taken.
    pub responses: Vec<OpDone>,
}

/// What one operation of a transaction did.
#[derive(Debug, Clone, PartialEq)]
pub enum OpDone {
    /// A read.
    Range(RangeDone),
    /// A write.
    Put(PutDone),
    /// A deletion.
    Deleted(Deleted),
    /// A transaction inside.
    Txn(TxnDone),
    /// The empty union.
    Nothing,
}

/// A deterministic no, read by the client; `api::status` holds etcd's code and sentence for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The revision asked for was compacted away.
    Compacted,
    /// The revision asked for has not happened.
    FutureRevision,
    /// `ignore_value` or `ignore_lease` on a key that is not there.
    KeyNotFound,
    /// No such lease.
    LeaseNotFound,
    /// A lease of that id is there already.
    LeaseExists,
    /// Over quota, or the NOSPACE alarm is up.
    NoSpace,
    /// The CORRUPT alarm is up.
    Corrupt,
    /// Nobody would be left to vote; etcd refuses it only with `--strict-reconfig-check`, and dies
    /// without.
    LastVoter,
    /// No such member, or not any more.
    MemberNotFound,
    /// A member of that id is there already.
    MemberExists,
    /// Another member is reached there.
    PeerUrlExists,
    /// Only a learner can be promoted.
    NotLearner,
    /// There are as many learners as there may be.
    TooManyLearners,
}

/// A no that another try may turn into a yes; decided before the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unavailable {
    /// Nobody leads.
    NoLeader,
    /// The leader changed while the request waited.
    LeaderChanged,
    /// The member is going down.
    Stopped,
    /// Nobody led for as long as it could wait: it was never proposed.
    Held,
    /// The client's own deadline has passed.
    Overdue,
    /// No answer in time.
    Timeout,
    /// No answer in time, and the leader failed meanwhile.
    TimeoutLeaderFailed,
    /// No answer in time, and the connection to the quorum was lost.
    TimeoutConnectionLost,
    /// Too many requests wait already.
    TooManyRequests,
    /// Only the leader can do this, and this member is not it.
    NotLeader,
    /// Too few members have started to change who they are.
    NotEnoughStarted,
    /// Too few members are in touch to change who they are.
    Unhealthy,
    /// The learner lags too far behind the leader to vote.
    LearnerNotReady,
    /// The lead cannot go to that member: there is none of that id that votes.
    BadTransferee,
}
