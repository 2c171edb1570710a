//! etcd's wire meaning ↔ ours. Plain functions over bytes: no socket, no clock, no state.
//!
//! ```text
//! :path ─ Method::parse ─ decode(method, message) ─┬ Propose ─ node ─ outcome ─ reply()
//!                                                  ├ TimeToLive, Leases ─ node ─ lease
//!                                                  ├ Read ─── view ─────────── answer()
//!                                                  └ Refuse ─ Status
//! ```
//!
//! Answers are appended to a `Vec<u8>` as whole gRPC messages, five bytes of prefix and all, so the
//! hot path copies nothing twice.

use bytes::Bytes;

pub mod check;
pub mod cluster;
pub mod encode;
pub mod http;
pub mod kv;
pub mod lease;
pub mod maintenance;
pub mod method;
pub mod status;
pub mod watch;

#[cfg(test)]
mod tests;

pub use encode::Header;
pub use method::Method;
pub use status::Status;

use crate::{
    store::{
        Outcome, Quota, View,
        command::{MemberChange, Range, Txn},
    },
    types::{ClusterId, LeaseId, MemberId},
};

/// The etcd whose API this is: `Status.version`, `/version` (decision 1).
pub const API_VERSION: &str = "3.7.1";

/// What the edge must know to judge a request.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// `--max-request-bytes`.
    pub request_bytes_max: usize,
    /// `--max-txn-ops`.
    pub txn_ops_max: usize,
    /// `--quota-backend-bytes`.
    pub quota: Quota,
    /// The flag itself, for `Status.dbSizeQuota`.
    pub quota_flag_bytes: i64,
    /// This member's cluster.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// The shortest TTL of a lease, seconds: `--election-timeout` and half of it.
    pub lease_ttl_min: i64,
}

/// What a request asks of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Goes into the log: an `InternalRaftRequest` without header (see
    /// [`crate::store::command::append`]). Its [`Outcome`] goes to [`reply`].
    Propose(Bytes),
    /// There is no room: propose this alarm, then refuse with [`status::NO_SPACE`] whatever comes
    /// of it (etcd `v3rpc/quota.go`).
    NoSpace(Bytes),
    /// Goes into the log as [`crate::store::encode_lease_grant`] makes it; its [`Outcome`] goes to
    /// [`reply`].
    Grant {
        /// 0: the server picks one.
        id: LeaseId,
        /// Seconds, already raised to the shortest.
        ttl: i64,
    },
    /// The leader's clock is asked, then a view: [`lease::answer_time_to_live`].
    TimeToLive(lease::TimeToLive),
    /// The leader's clock is asked: [`lease::Listing`].
    Leases,
    /// A new member, whose id the clock is asked for: [`cluster::new_member`]. Then it is a
    /// [`Work::Change`].
    AddMember {
        /// Where it will be reached, in order.
        peer_urls: Vec<String>,
        /// Whether it is to learn only.
        learner: bool,
    },
    /// Goes into the log as [`MemberChange::encode`] makes it; its [`Outcome`] goes to [`reply`].
    Change(MemberChange),
    /// The leader hands its lead to this member; answered by [`maintenance::encode_empty`].
    MoveLeader(MemberId),
    /// What space can be given back is; answered by [`maintenance::encode_empty`].
    Defragment,
    /// Is summed up from a view: [`maintenance::Summing`].
    Sum(maintenance::Sum),
    /// Is made of other requests, which the server makes itself: locks and elections.
    Recipe(Bytes),
    /// Is answered from a view by [`answer`]; by [`kv::Stream`] for a stream.
    Read {
        /// A local view will do; otherwise one as new as the cluster's agreement at this moment.
        serializable: bool,
        /// What to read.
        read: Read,
    },
    /// No.
    Refuse(Status),
}

/// What to read from a view.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    /// `KV.Range`.
    Range(Range),
    /// `KV.RangeStream`.
    RangeStream(Range),
    /// `KV.Txn` that only reads.
    Txn(Txn),
    /// `Maintenance.Status`.
    Status,
    /// `Cluster.MemberList`.
    MemberList,
    /// `Maintenance.Downgrade`, as far as it only asks.
    Downgrade(maintenance::Downgrade),
    /// `Health.Check` of the whole server.
    Health,
}

/// What `message`, the body of one gRPC message, asks. `disk_bytes` is the newest view's.
pub fn decode(method: Method, message: Bytes, edge: &Edge, disk_bytes: u64) -> Work {
    let work = match method {
        Method::Put => kv::decode_put(message, edge, disk_bytes),
        Method::Range => kv::decode_range(message),
        Method::RangeStream => kv::decode_range_stream(message),
        Method::Txn => kv::decode_txn(message, edge, disk_bytes),
        Method::DeleteRange => kv::decode_delete_range(message, edge),
        Method::Compact => kv::decode_compact(message, edge),
        Method::LeaseGrant => lease::decode_grant(message, edge, disk_bytes),
        Method::LeaseRevoke => lease::decode_revoke(message),
        Method::LeaseTimeToLive => lease::decode_time_to_live(message),
        Method::LeaseLeases => lease::decode_leases(message),
        Method::Lock
        | Method::Unlock
        | Method::Campaign
        | Method::Proclaim
        | Method::Leader
        | Method::Observe
        | Method::Resign => Ok(Work::Recipe(message)),
        Method::Watch | Method::LeaseKeepAlive => Err(status::NO_SINGLE_REQUEST),
        Method::Alarm => maintenance::decode_alarm(message, edge),
        Method::Status => maintenance::decode_status(message),
        Method::MemberList => cluster::decode_member_list(message),
        Method::MemberAdd => cluster::decode_add(message),
        Method::MemberRemove => cluster::decode_remove(message),
        Method::MemberUpdate => cluster::decode_update(message),
        Method::MemberPromote => cluster::decode_promote(message),
        Method::Defragment => maintenance::decode_defragment(message),
        Method::Hash => maintenance::decode_hash(message),
        Method::HashKv => maintenance::decode_hash_kv(message),
        Method::MoveLeader => maintenance::decode_move_leader(message),
        Method::Downgrade => maintenance::decode_downgrade(message),
        Method::HealthCheck => maintenance::decode_health(message),
    };
    work.unwrap_or_else(Work::Refuse)
}

/// Whether a learner serves this request: its own status, and what can be read from its view alone
/// (etcd `isRPCSupportedForLearner`, which knows no stream but that of a snapshot).
pub fn is_for_learners(method: Method, message: &Bytes) -> bool {
    match method {
        Method::Status => true,
        Method::Range => kv::is_serializable(message),
        _ => false,
    }
}

/// Appends the answer to `read` from `view`: one gRPC message.
///
/// # Errors
/// What the client is told instead; nothing was appended.
///
/// # Panics
/// For [`Read::RangeStream`], whose answer is several messages: see [`kv::Stream`].
pub fn answer(read: &Read, view: &View, edge: &Edge, out: &mut Vec<u8>) -> Result<(), Status> {
    let header = Header::of(view, edge);
    match read {
        Read::Range(query) => return kv::answer_range(query, view, header, out),
        Read::Txn(txn) => return reply(&view.read_txn(txn), header, out),
        Read::Status => encode::message(out, |out| maintenance::status(view, edge, header, out)),
        Read::MemberList => encode::message(out, |out| cluster::members(view, header, out)),
        Read::Downgrade(asked) => return asked.answer(view, header, out),
        Read::Health => encode::message(out, maintenance::serving),
        Read::RangeStream(_) => unreachable!("a stream has more than one answer"),
    }
    Ok(())
}

/// Appends what applying said: one gRPC message. The header's revision is replaced by the
/// outcome's own.
///
/// # Errors
/// What the client is told instead; nothing was appended.
pub fn reply(outcome: &Outcome, header: Header, out: &mut Vec<u8>) -> Result<(), Status> {
    match outcome {
        Outcome::Put(done) => kv::encode_put(done, header, out),
        Outcome::Deleted(done) => encode::message(out, |out| kv::deleted(done, header, out)),
        Outcome::Txn(done) => encode::message(out, |out| kv::txn(done, header, out)),
        Outcome::Compacted { revision, .. } => {
            encode::message(out, |out| header.at(*revision).encode(out));
        }
        Outcome::Alarms { revision, alarms } => {
            encode::message(out, |out| maintenance::alarms(alarms, header.at(*revision), out));
        }
        Outcome::LeaseGranted { id, ttl, revision } => {
            encode::message(out, |out| lease::granted(*id, *ttl, header.at(*revision), out));
        }
        Outcome::LeaseGrantedWithoutRoom { .. } => return Err(status::NO_SPACE),
        Outcome::LeaseRevoked { revision, .. } => {
            encode::message(out, |out| header.at(*revision).encode(out));
        }
        Outcome::Members { members, added } => {
            encode::message(out, |out| cluster::changed(members, *added, header, out));
        }
        Outcome::Done => encode::message(out, |out| header.encode(out)),
        Outcome::Refused(refusal) => return Err((*refusal).into()),
    }
    Ok(())
}
