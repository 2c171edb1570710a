//! What the log carries: [`Command`], and the payload of a raft entry around it.
//!
//! A raft entry's data is one or more of etcd's `InternalRaftRequest`, each behind its length:
//!
//! ```text
//! entry data = ( varint length, InternalRaftRequest )+        an empty entry is raft's own no-op
//! InternalRaftRequest = header (field 100: ID = our Ticket) , one request (field 3 and up)
//! ```
//!
//! The request's own bytes are spliced in as the client sent them, so proposing copies once and
//! parses nothing twice. Only two layers of the message are read by hand here; the requests inside
//! are the generated messages, turned into our words in `convert`.

use bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint, encode_varint, skip_field};

use super::{Member, convert};
use crate::types::{Index, LeaseId, MemberId, Revision, Term, Ticket};

/// One request of the log, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Who waits for the outcome: `RequestHeader.ID`.
    pub ticket: Ticket,
    /// What to do.
    pub body: Body,
}

/// The requests that this server applies.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Write one key.
    Put(Put),
    /// Delete the keys of an interval.
    DeleteRange(DeleteRange),
    /// Compare, then one of two lists of operations.
    Txn(Txn),
    /// Forget history before a revision.
    Compact(Compact),
    /// List, raise or clear alarms.
    Alarm(AlarmOrder),
    /// Grant a lease.
    LeaseGrant {
        /// Never 0; the edge picks one where the client did not.
        id: LeaseId,
        /// Seconds.
        ttl: i64,
    },
    /// Take a lease back, and delete the keys that hold on to it.
    LeaseRevoke {
        /// Which.
        id: LeaseId,
        /// A leader's own, which takes only what that leader saw expire; a client's takes any.
        expired: Option<Expired>,
    },
    /// How many seconds the leader says are left of some leases.
    LeaseCheckpoint(Vec<(LeaseId, i64)>),
    /// A member says its name and where clients reach it.
    MemberAttributes(MemberAttributes),
    /// The cluster agrees on a version, `major.minor.patch`.
    ClusterVersion(String),
    /// A request that changes nothing and that nobody here waits for: etcd proposes a few reads.
    ReadOnly,
}

/// What a leader knew when it saw a lease expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Its term. In an entry of another term the revocation does nothing: it came late, and
    /// another leader may have renewed the lease.
    pub term: Term,
    /// The last entry it had applied. A lease granted by a later one does not go: its id was
    /// revoked and granted again meanwhile.
    pub applied: Index,
}

/// `PutRequest`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Put {
    /// Never empty; the edge refuses that.
    pub key: Bytes,
    /// Ignored with `ignore_value`.
    pub value: Bytes,
    /// 0: none.
    pub lease: LeaseId,
    /// Answer with what was there.
    pub prev: bool,
    /// Keep the value that is there.
    pub ignore_value: bool,
    /// Keep the lease that is there.
    pub ignore_lease: bool,
}

/// `DeleteRangeRequest`. `end` as in [`Range`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeleteRange {
    /// First key.
    pub key: Bytes,
    /// As in [`Range::end`].
    pub end: Bytes,
    /// Answer with what was there.
    pub prev: bool,
}

/// `RangeRequest`, all options.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Range {
    /// First key.
    pub key: Bytes,
    /// Empty: the one key. One zero byte: everything from `key` on. Otherwise the first key after.
    pub end: Bytes,
    /// Most keys to return; 0 and below: all.
    pub limit: i64,
    /// As of which revision; 0 and below: now.
    pub revision: Revision,
    /// Which way to sort.
    pub order: Order,
    /// What to sort by.
    pub target: Target,
    /// A local read, without asking the cluster.
    pub serializable: bool,
    /// Leave out values.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Leave out what was modified before; 0: off.
    pub min_mod: i64,
    /// Leave out what was modified after; 0: off.
    pub max_mod: i64,
    /// Leave out what was created before; 0: off.
    pub min_create: i64,
    /// Leave out what was created after; 0: off.
    pub max_create: i64,
}

/// `RangeRequest.SortOrder`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// As the keys lie; but see [`super::range`] for what another target makes of it.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// `RangeRequest.SortTarget`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Target {
    /// The key.
    #[default]
    Key,
    /// Puts since the key was created.
    Version,
    /// Revision of creation.
    Create,
    /// Revision of the last change.
    Mod,
    /// The value's bytes.
    Value,
}

/// `TxnRequest`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Txn {
    /// All must hold for `success`.
    pub compares: Vec<Compare>,
    /// Done when all hold.
    pub success: Vec<Op>,
    /// Done otherwise.
    pub failure: Vec<Op>,
}

/// `RequestOp`.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A read.
    Range(Range),
    /// A write.
    Put(Put),
    /// A deletion.
    DeleteRange(DeleteRange),
    /// A transaction inside.
    Txn(Txn),
    /// The empty union: answered with an empty union. The edge refuses it.
    Nothing,
}

/// `Compare`: must hold for every key of the interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Compare {
    /// First key.
    pub key: Bytes,
    /// As in [`Range::end`].
    pub end: Bytes,
    /// How the stored side must relate to the given one.
    pub relation: Relation,
    /// The given side.
    pub against: Against,
}

/// `Compare.CompareResult`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Stored = given.
    Equal,
    /// Stored > given.
    Greater,
    /// Stored < given.
    Less,
    /// Stored ≠ given.
    NotEqual,
    /// A number etcd does not know: always true there.
    Unknown,
}

/// What is compared, with the given side; a union that does not match its target counts as zero.
#[derive(Debug, Clone, PartialEq)]
pub enum Against {
    /// Puts since the key was created.
    Version(i64),
    /// Revision of creation.
    Create(i64),
    /// Revision of the last change.
    Mod(i64),
    /// The value's bytes.
    Value(Bytes),
    /// The lease.
    Lease(i64),
    /// A target etcd does not know: both sides count as equal there.
    Unknown,
}

/// `CompactionRequest`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compact {
    /// Keep nothing that only an older revision shows.
    pub revision: Revision,
    /// Answer only once the room is free again.
    pub physical: bool,
}

/// `AlarmRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmOrder {
    /// What to do.
    pub action: AlarmAction,
    /// Whose alarm.
    pub member: MemberId,
    /// `AlarmType`'s number.
    pub kind: i32,
}

/// `AlarmRequest.AlarmAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmAction {
    /// List.
    Get,
    /// Raise.
    Activate,
    /// Clear.
    Deactivate,
    /// A number etcd does not know: nothing happens.
    Unknown,
}

/// `ClusterMemberAttrSetRequest`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberAttributes {
    /// Whose.
    pub member: MemberId,
    /// Its `--name`.
    pub name: String,
    /// Its `--advertise-client-urls`.
    pub client_urls: Vec<String>,
}

/// A change of who belongs to the cluster; `store::members` has it in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// One more, as a voter or as a learner.
    Add(Member),
    /// One less, for ever: its id does not come back.
    Remove(MemberId),
    /// It is reached elsewhere.
    Update {
        /// Who.
        id: MemberId,
        /// Where, from now on.
        peer_urls: Vec<String>,
    },
    /// A learner votes from now on.
    Promote(MemberId),
}

/// An entry of the log that this server cannot apply: it stops rather than guess.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadEntry {
    /// The bytes are not what an entry holds.
    Malformed {
        /// Bytes of the entry's data before the request in question.
        offset: usize,
        /// What was expected there, and what was found.
        what: String,
    },
    /// A request this server knows but cannot apply yet.
    NotBuilt {
        /// The field of `InternalRaftRequest`, by etcd's number.
        field: u32,
        /// Its name.
        name: &'static str,
    },
}

impl std::fmt::Display for BadEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed { offset, what } => {
                write!(f, "malformed entry at byte {offset}: {what}")
            }
            Self::NotBuilt { field, name } => {
                write!(f, "the entry holds {name} (field {field}), which is not built yet")
            }
        }
    }
}

impl std::error::Error for BadEntry {}

/// Fields of `InternalRaftRequest` (raft_internal.proto) that the edge proposes.
pub mod field {
    /// `put`.
    pub const PUT: u32 = 4;
    /// `delete_range`.
    pub const DELETE_RANGE: u32 = 5;
    /// `txn`.
    pub const TXN: u32 = 6;
    /// `compaction`.
    pub const COMPACTION: u32 = 7;
    /// `lease_grant`.
    pub const LEASE_GRANT: u32 = 8;
    /// `lease_revoke`.
    pub const LEASE_REVOKE: u32 = 9;
    /// `alarm`.
    pub const ALARM: u32 = 10;
    /// `lease_checkpoint`.
    pub const LEASE_CHECKPOINT: u32 = 11;
    /// `header`.
    pub const HEADER: u32 = 100;
    /// `cluster_version_set`.
    pub const CLUSTER_VERSION_SET: u32 = 1300;
    /// `cluster_member_attr_set`.
    pub const CLUSTER_MEMBER_ATTR_SET: u32 = 1301;

    /// Our own field of `LeaseRevokeRequest`, a varint: [`super::Expired::term`]. etcd's decoders
    /// pass over it.
    pub const LEASE_REVOKE_TERM: u32 = 2001;
    /// Our own field of `LeaseRevokeRequest`, a varint: [`super::Expired::applied`].
    pub const LEASE_REVOKE_APPLIED: u32 = 2002;
}

/// One request as field `field` of an `InternalRaftRequest` without header: what the edge proposes.
pub fn body(field: u32, request: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(request.len() + 12);
    prost::encoding::encode_key(field, WireType::LengthDelimited, &mut out);
    encode_varint(request.len() as u64, &mut out);
    out.extend_from_slice(request);
    out.into()
}

/// Appends one request to an entry's data: its length, a header with `ticket`, then `body`.
pub fn append(data: &mut Vec<u8>, ticket: Ticket, body: &[u8]) {
    let id = 1 + prost::encoding::encoded_len_varint(ticket.0);
    encode_varint((3 + id + body.len()) as u64, data);
    prost::encoding::encode_key(field::HEADER, WireType::LengthDelimited, data);
    data.push(id as u8);
    data.push(0x08);
    encode_varint(ticket.0, data);
    data.extend_from_slice(body);
}

/// The requests of one entry's data, in order. Ends after the first error.
pub fn commands(data: Bytes) -> Commands {
    Commands { len: data.len(), rest: data }
}

/// See [`commands`].
#[derive(Debug)]
pub struct Commands {
    rest: Bytes,
    len: usize,
}

impl Iterator for Commands {
    type Item = Result<Command, BadEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let offset = self.len - self.rest.len();
        let one = split(&mut self.rest, offset).and_then(|request| decode(request, offset));
        if one.is_err() {
            self.rest.clear();
        }
        Some(one)
    }
}

fn split(rest: &mut Bytes, offset: usize) -> Result<Bytes, BadEntry> {
    let len = decode_varint(rest).map_err(|e| malformed(offset, &e))?;
    if len > rest.len() as u64 {
        let what = format!("a request of {len} bytes where {} are left", rest.len());
        return Err(BadEntry::Malformed { offset, what });
    }
    Ok(rest.split_to(len as usize))
}

/// Decodes one `InternalRaftRequest`. `offset` is only for the error.
pub(super) fn decode(mut message: Bytes, offset: usize) -> Result<Command, BadEntry> {
    let mut ticket = Ticket(0);
    let mut body = None;
    while message.has_remaining() {
        let (tag, wire) = decode_key(&mut message).map_err(|e| malformed(offset, &e))?;
        match (tag, wire) {
            (1, WireType::Varint) => {
                ticket = Ticket(decode_varint(&mut message).map_err(|e| malformed(offset, &e))?);
            }
            (_, WireType::LengthDelimited) => {
                let inner = split(&mut message, offset)?;
                if tag == field::HEADER {
                    ticket = convert::ticket(inner).map_err(|e| malformed(offset, &e))?;
                } else if let Some(one) = read_body(tag, inner, offset)?
                    && body.replace(one).is_some()
                {
                    let what = "one request in a message, found two".to_owned();
                    return Err(BadEntry::Malformed { offset, what });
                }
            }
            _ => skip_field(wire, tag, &mut message, Default::default())
                .map_err(|e| malformed(offset, &e))?,
        }
    }
    let body = body.ok_or_else(|| BadEntry::Malformed {
        offset,
        what: "a request that this version knows, found none".to_owned(),
    })?;
    Ok(Command { ticket, body })
}

fn malformed(offset: usize, error: &prost::DecodeError) -> BadEntry {
    BadEntry::Malformed { offset, what: error.to_string() }
}

/// The numbers are etcd's (raft_internal.proto). `None`: a field from a newer etcd, ignored as
/// protobuf does.
fn read_body(tag: u32, message: Bytes, offset: usize) -> Result<Option<Body>, BadEntry> {
    let not_built = |name| Err(BadEntry::NotBuilt { field: tag, name });
    let body = match tag {
        3 | 1013 | 1102 | 1202 | 1106 | 1107 | 9900 => Ok(Body::ReadOnly),
        field::PUT => convert::put(message).map(Body::Put),
        field::DELETE_RANGE => convert::delete_range(message).map(Body::DeleteRange),
        field::TXN => convert::txn(message).map(Body::Txn),
        field::COMPACTION => convert::compact(message).map(Body::Compact),
        field::LEASE_GRANT => {
            convert::lease_grant(message).map(|(id, ttl)| Body::LeaseGrant { id, ttl })
        }
        field::LEASE_REVOKE => {
            convert::lease_revoke(message).map(|(id, expired)| Body::LeaseRevoke { id, expired })
        }
        field::ALARM => convert::alarm(message).map(Body::Alarm),
        field::LEASE_CHECKPOINT => convert::lease_checkpoint(message).map(Body::LeaseCheckpoint),
        1000 => return not_built("auth_enable"),
        1011 => return not_built("auth_disable"),
        1012 => return not_built("authenticate"),
        1100 => return not_built("auth_user_add"),
        1101 => return not_built("auth_user_delete"),
        1103 => return not_built("auth_user_change_password"),
        1104 => return not_built("auth_user_grant_role"),
        1105 => return not_built("auth_user_revoke_role"),
        1200 => return not_built("auth_role_add"),
        1201 => return not_built("auth_role_delete"),
        1203 => return not_built("auth_role_grant_permission"),
        1204 => return not_built("auth_role_revoke_permission"),
        field::CLUSTER_VERSION_SET => convert::cluster_version(message).map(Body::ClusterVersion),
        field::CLUSTER_MEMBER_ATTR_SET => {
            convert::member_attributes(message).map(Body::MemberAttributes)
        }
        1302 => return not_built("downgrade_info_set"),
        _ => return Ok(None),
    };
    body.map(Some).map_err(|e| malformed(offset, &e))
}
