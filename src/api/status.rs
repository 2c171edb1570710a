//! Every no, with etcd's exact code and sentence. Clients compare the sentence, byte for byte.
//!
//! The table is etcd's `api/v3rpc/rpctypes/error.go`, with the exceptions that its server makes on
//! the way (`v3rpc/util.go`) written where they apply.

use std::borrow::Cow;

use crate::store::{Refusal, Unavailable};

/// gRPC status codes that this server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// What goes into `grpc-status` and `grpc-message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `grpc-status`.
    pub code: u8,
    /// `grpc-message`, before percent-encoding.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A status with a sentence known beforehand.
    pub const fn new(code: Code, message: &'static str) -> Self {
        Self { code: code as u8, message: Cow::Borrowed(message) }
    }

    /// A status with a sentence made on the spot.
    pub fn made(code: Code, message: String) -> Self {
        Self { code: code as u8, message: Cow::Owned(message) }
    }

    /// An RPC of etcd's that this server does not have yet.
    pub fn not_built(what: &str) -> Self {
        let message = format!("etcdserver: {what} is not built yet in ringleader");
        Self::made(Code::Unimplemented, message)
    }

    /// A message larger than the receive limit, as grpc-go says it.
    pub fn received_too_large(bytes: usize, most: usize) -> Self {
        let message = format!("grpc: received message larger than max ({bytes} vs. {most})");
        Self::made(Code::ResourceExhausted, message)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {}: {}", self.code, self.message)
    }
}

use Code::{
    Canceled, DataLoss, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, NotFound,
    OutOfRange, ResourceExhausted, Unimplemented, Unknown,
};

/// A key is empty.
pub const EMPTY_KEY: Status = Status::new(InvalidArgument, "etcdserver: key is not provided");
/// `ignore_*` on a missing key; also an operation with nothing set.
pub const KEY_NOT_FOUND: Status = Status::new(InvalidArgument, "etcdserver: key not found");
/// `ignore_value` with a value.
pub const VALUE_PROVIDED: Status = Status::new(InvalidArgument, "etcdserver: value is provided");
/// `ignore_lease` with a lease.
pub const LEASE_PROVIDED: Status = Status::new(InvalidArgument, "etcdserver: lease is provided");
/// Over `--max-txn-ops`.
pub const TOO_MANY_OPS: Status =
    Status::new(InvalidArgument, "etcdserver: too many operations in txn request");
/// One key written twice in a transaction.
pub const DUPLICATE_KEY: Status =
    Status::new(InvalidArgument, "etcdserver: duplicate key given in txn request");
/// An unknown sort order or target.
pub const INVALID_SORT: Status = Status::new(InvalidArgument, "etcdserver: invalid sort option");
/// The revision was compacted away.
pub const COMPACTED: Status =
    Status::new(OutOfRange, "etcdserver: mvcc: required revision has been compacted");
/// The revision has not happened.
pub const FUTURE_REVISION: Status =
    Status::new(OutOfRange, "etcdserver: mvcc: required revision is a future revision");
/// Over quota, or the NOSPACE alarm is up.
pub const NO_SPACE: Status =
    Status::new(ResourceExhausted, "etcdserver: mvcc: database space exceeded");
/// No such lease.
pub const LEASE_NOT_FOUND: Status = Status::new(NotFound, "etcdserver: requested lease not found");
/// A lease of that id is there.
pub const LEASE_EXISTS: Status =
    Status::new(FailedPrecondition, "etcdserver: lease already exists");
/// A lease's TTL is longer than any.
pub const LEASE_TTL_TOO_LARGE: Status = Status::new(OutOfRange, "etcdserver: too large lease TTL");
/// Over `--max-request-bytes`.
pub const REQUEST_TOO_LARGE: Status =
    Status::new(InvalidArgument, "etcdserver: request is too large");
/// Too many proposals wait. etcd maps this one to its client-side error by mistake, so the wire
/// says Unknown (`v3rpc/util.go`).
pub const TOO_MANY_REQUESTS: Status = Status::new(Unknown, "etcdserver: too many requests");
/// The CORRUPT alarm is up.
pub const CORRUPT: Status = Status::new(DataLoss, "etcdserver: corrupt cluster");
/// Nobody leads.
pub const NO_LEADER: Status = Status::new(Code::Unavailable, "etcdserver: no leader");
/// The leader changed while the request waited.
pub const LEADER_CHANGED: Status = Status::new(Code::Unavailable, "etcdserver: leader changed");
/// Only the leader can do this.
pub const NOT_LEADER: Status = Status::new(FailedPrecondition, "etcdserver: not leader");
/// No such member.
pub const MEMBER_NOT_FOUND: Status = Status::new(NotFound, "etcdserver: member not found");
/// A member of that id is there.
pub const MEMBER_EXISTS: Status =
    Status::new(FailedPrecondition, "etcdserver: member ID already exist");
/// Another member is reached there.
pub const PEER_URL_EXISTS: Status =
    Status::new(FailedPrecondition, "etcdserver: Peer URLs already exists");
/// A member's URLs are not as `--initial-advertise-peer-urls` takes them.
pub const MEMBER_BAD_URLS: Status =
    Status::new(InvalidArgument, "etcdserver: given member URLs are invalid");
/// Promotion of a member that votes.
pub const NOT_LEARNER: Status =
    Status::new(FailedPrecondition, "etcdserver: can only promote a learner member");
/// Promotion of a learner that lags.
pub const LEARNER_NOT_READY: Status = Status::new(
    FailedPrecondition,
    "etcdserver: can only promote a learner member which is in sync with leader",
);
/// One learner more than there may be.
pub const TOO_MANY_LEARNERS: Status =
    Status::new(FailedPrecondition, "etcdserver: too many learner members in cluster");
/// Too few members have started. Unknown by the same mistake as [`TOO_MANY_REQUESTS`].
pub const NOT_ENOUGH_STARTED: Status =
    Status::new(Unknown, "etcdserver: re-configuration failed due to not enough started members");
/// Too few members are in touch.
pub const UNHEALTHY: Status = Status::new(Code::Unavailable, "etcdserver: unhealthy cluster");
/// The lead cannot go there.
pub const BAD_TRANSFEREE: Status =
    Status::new(FailedPrecondition, "etcdserver: bad leader transferee");
/// The lead did not go over in time; etcd has no code for it.
pub const TRANSFER_TIMED_OUT: Status =
    Status::new(Unknown, "etcdserver: request timed out, leader transfer took too long");
/// A version to go back to is none.
pub const WRONG_VERSION_FORMAT: Status =
    Status::new(InvalidArgument, "etcdserver: wrong downgrade target version format");
/// A version to go back to is not the one before.
pub const INVALID_DOWNGRADE: Status =
    Status::new(InvalidArgument, "etcdserver: invalid downgrade target version");
/// The cluster has not agreed on a version yet.
pub const NO_CLUSTER_VERSION: Status =
    Status::new(FailedPrecondition, "etcdserver: cluster version not found during downgrade");
/// An action of `Downgrade` that etcd does not know, and has no code for.
pub const UNKNOWN_ACTION: Status = Status::new(Unknown, "etcdserver: unknown method");
/// The member is going down.
pub const STOPPED: Status = Status::new(Code::Unavailable, "etcdserver: server stopped");
/// No answer in time.
pub const TIMEOUT: Status = Status::new(Code::Unavailable, "etcdserver: request timed out");
/// No answer in time; this member came to lead meanwhile, so the one before was lost.
pub const TIMEOUT_LEADER_FAILED: Status = Status::new(
    Code::Unavailable,
    "etcdserver: request timed out, possibly due to previous leader failure",
);
/// No answer in time; the connection to the leader, or of the leader to a majority, is younger than the
/// request.
pub const TIMEOUT_CONNECTION_LOST: Status = Status::new(
    Code::Unavailable,
    "etcdserver: request timed out, possibly due to connection lost",
);
/// The call's own deadline passed (gRPC's text, not etcd's); also what etcd says where nobody led for
/// all the time that a request has (`raft.Node.Propose` ends with its context).
pub const DEADLINE_EXCEEDED: Status = Status::new(DeadlineExceeded, "context deadline exceeded");
/// The client gave the call up (gRPC's text, not etcd's).
pub const CANCELED: Status = Status::new(Canceled, "context canceled");
/// A learner serves only few calls.
pub const NOT_FOR_LEARNER: Status =
    Status::new(FailedPrecondition, "etcdserver: rpc not supported for learner");
/// `RangeStream` with a sort.
pub const STREAM_SORT: Status =
    Status::new(Unimplemented, "RangeStream does not support custom sort orders");
/// `RangeStream` with a filter.
pub const STREAM_FILTER: Status =
    Status::new(Unimplemented, "RangeStream does not support revision filters");
/// Health of a service other than the whole.
pub const UNKNOWN_HEALTH_SERVICE: Status = Status::new(NotFound, "unknown service");
/// A request that is no protobuf, as grpc-go's server and protobuf-go say it.
pub const MALFORMED: Status = Status::new(
    Internal,
    "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data",
);

/// A method whose request is a stream, asked as if it had one message.
pub const NO_SINGLE_REQUEST: Status =
    Status::new(Internal, "grpc: the request of this method is a stream of messages");

/// The same where the answer is a stream.
pub const MALFORMED_IN_STREAM: Status = Status::new(
    Internal,
    "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data",
);

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Compacted => COMPACTED,
            Refusal::FutureRevision => FUTURE_REVISION,
            Refusal::KeyNotFound => KEY_NOT_FOUND,
            Refusal::LeaseNotFound => LEASE_NOT_FOUND,
            Refusal::LeaseExists => LEASE_EXISTS,
            Refusal::NoSpace => NO_SPACE,
            Refusal::Corrupt => CORRUPT,
            Refusal::LastVoter => NOT_ENOUGH_STARTED,
            Refusal::MemberNotFound => MEMBER_NOT_FOUND,
            Refusal::MemberExists => MEMBER_EXISTS,
            Refusal::PeerUrlExists => PEER_URL_EXISTS,
            Refusal::NotLearner => NOT_LEARNER,
            Refusal::TooManyLearners => TOO_MANY_LEARNERS,
        }
    }
}

impl From<Unavailable> for Status {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::NoLeader => NO_LEADER,
            Unavailable::LeaderChanged => LEADER_CHANGED,
            Unavailable::Stopped => STOPPED,
            Unavailable::Held | Unavailable::Overdue => DEADLINE_EXCEEDED,
            Unavailable::Timeout => TIMEOUT,
            Unavailable::TimeoutLeaderFailed => TIMEOUT_LEADER_FAILED,
            Unavailable::TimeoutConnectionLost => TIMEOUT_CONNECTION_LOST,
            Unavailable::TooManyRequests => TOO_MANY_REQUESTS,
            Unavailable::NotLeader => NOT_LEADER,
            Unavailable::NotEnoughStarted => NOT_ENOUGH_STARTED,
            Unavailable::Unhealthy => UNHEALTHY,
            Unavailable::LearnerNotReady => LEARNER_NOT_READY,
            Unavailable::BadTransferee => BAD_TRANSFEREE,
        }
    }
}
