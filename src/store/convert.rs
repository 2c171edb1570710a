//! etcd's generated messages → our words. The only file of the store, with [`super::command`],
//! that names them.

use bytes::{Buf, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use proto::{
    etcdserverpb::{self as pb, compare::TargetUnion, request_op::Request},
    membershippb,
};

use super::command::{
    Against, AlarmAction, AlarmOrder, Compact, Compare, DeleteRange, Expired, MemberAttributes, Op,
    Order, Put, Range, Relation, Target, Txn, field,
};
use crate::types::{Index, LeaseId, MemberId, Revision, Term, Ticket};

pub(super) fn ticket(header: Bytes) -> Result<Ticket, DecodeError> {
    Ok(Ticket(pb::RequestHeader::decode(header)?.id))
}

pub(super) fn put(message: Bytes) -> Result<Put, DecodeError> {
    pb::PutRequest::decode(message).map(Put::from)
}

pub(super) fn delete_range(message: Bytes) -> Result<DeleteRange, DecodeError> {
    pb::DeleteRangeRequest::decode(message).map(DeleteRange::from)
}

pub(super) fn txn(message: Bytes) -> Result<Txn, DecodeError> {
    pb::TxnRequest::decode(message).map(Txn::from)
}

pub(super) fn compact(message: Bytes) -> Result<Compact, DecodeError> {
    let request = pb::CompactionRequest::decode(message)?;
    Ok(Compact { revision: Revision(request.revision), physical: request.physical })
}

pub(super) fn alarm(message: Bytes) -> Result<AlarmOrder, DecodeError> {
    let request = pb::AlarmRequest::decode(message)?;
    let action = match request.action {
        0 => AlarmAction::Get,
        1 => AlarmAction::Activate,
        2 => AlarmAction::Deactivate,
        _ => AlarmAction::Unknown,
    };
    Ok(AlarmOrder { action, member: MemberId(request.member_id), kind: request.alarm })
}

pub(super) fn lease_grant(message: Bytes) -> Result<(LeaseId, i64), DecodeError> {
    let request = pb::LeaseGrantRequest::decode(message)?;
    Ok((LeaseId(request.id), request.ttl))
}

pub(super) fn lease_revoke(message: Bytes) -> Result<(LeaseId, Option<Expired>), DecodeError> {
    let request = pb::LeaseRevokeRequest::decode(message.clone())?;
    Ok((LeaseId(request.id), expired(message)?))
}

/// Our own fields of a `LeaseRevokeRequest`, which the generated decoder passes over. Without a
/// term it is a client's.
fn expired(mut message: Bytes) -> Result<Option<Expired>, DecodeError> {
    let (mut term, mut applied) = (None, 0);
    while message.has_remaining() {
        match decode_key(&mut message)? {
            (field::LEASE_REVOKE_TERM, WireType::Varint) => {
                term = Some(Term(decode_varint(&mut message)?));
            }
            (field::LEASE_REVOKE_APPLIED, WireType::Varint) => {
                applied = decode_varint(&mut message)?;
            }
            (tag, wire) => skip_field(wire, tag, &mut message, DecodeContext::default())?,
        }
    }
    Ok(term.map(|term| Expired { term, applied: Index(applied) }))
}

pub(super) fn lease_checkpoint(message: Bytes) -> Result<Vec<(LeaseId, i64)>, DecodeError> {
    let request = pb::LeaseCheckpointRequest::decode(message)?;
    let seen = request.checkpoints.into_iter();
    Ok(seen.map(|one| (LeaseId(one.id), one.remaining_ttl)).collect())
}

pub(super) fn cluster_version(message: Bytes) -> Result<String, DecodeError> {
    Ok(membershippb::ClusterVersionSetRequest::decode(message)?.ver)
}

pub(super) fn member_attributes(message: Bytes) -> Result<MemberAttributes, DecodeError> {
    let request = membershippb::ClusterMemberAttrSetRequest::decode(message)?;
    let attributes = request.member_attributes.unwrap_or_default();
    Ok(MemberAttributes {
        member: MemberId(request.member_id),
        name: attributes.name,
        client_urls: attributes.client_urls,
    })
}

impl MemberAttributes {
    /// As a body to propose (see [`super::command::append`]).
    pub fn encode(&self) -> Bytes {
        let message = membershippb::ClusterMemberAttrSetRequest {
            member_id: self.member.0,
            member_attributes: Some(membershippb::Attributes {
                name: self.name.clone(),
                client_urls: self.client_urls.clone(),
            }),
        };
        super::command::body(field::CLUSTER_MEMBER_ATTR_SET, &message.encode_to_vec())
    }
}

impl AlarmOrder {
    /// As a body to propose (see [`super::command::append`]).
    pub fn encode(&self) -> Bytes {
        let action = match self.action {
            AlarmAction::Get | AlarmAction::Unknown => 0,
            AlarmAction::Activate => 1,
            AlarmAction::Deactivate => 2,
        };
        let message = pb::AlarmRequest { action, member_id: self.member.0, alarm: self.kind };
        super::command::body(field::ALARM, &message.encode_to_vec())
    }
}

/// A grant as a body to propose.
pub fn encode_lease_grant(id: LeaseId, ttl: i64) -> Bytes {
    let message = pb::LeaseGrantRequest { ttl, id: id.0 };
    super::command::body(field::LEASE_GRANT, &message.encode_to_vec())
}

/// A revocation as a body to propose (see [`super::command::Body::LeaseRevoke`]).
pub fn encode_lease_revoke(id: LeaseId, expired: Option<Expired>) -> Bytes {
    let mut message = pb::LeaseRevokeRequest { id: id.0 }.encode_to_vec();
    if let Some(Expired { term, applied }) = expired {
        let fields = [(field::LEASE_REVOKE_TERM, term.0), (field::LEASE_REVOKE_APPLIED, applied.0)];
        for (tag, number) in fields {
            prost::encoding::uint64::encode(tag, &number, &mut message);
        }
    }
    super::command::body(field::LEASE_REVOKE, &message)
}

/// What is left of some leases, in seconds, as a body to propose.
pub fn encode_lease_checkpoint(seen: &[(LeaseId, i64)]) -> Bytes {
    let one = |(id, remaining_ttl): &(LeaseId, i64)| pb::LeaseCheckpoint {
        id: id.0,
        remaining_ttl: *remaining_ttl,
    };
    let message = pb::LeaseCheckpointRequest { checkpoints: seen.iter().map(one).collect() };
    super::command::body(field::LEASE_CHECKPOINT, &message.encode_to_vec())
}

/// A cluster version, `major.minor.patch`, as a body to propose.
pub fn encode_cluster_version(version: &str) -> Bytes {
    let message = membershippb::ClusterVersionSetRequest { ver: version.to_owned() };
    super::command::body(field::CLUSTER_VERSION_SET, &message.encode_to_vec())
}

impl From<pb::PutRequest> for Put {
    fn from(m: pb::PutRequest) -> Self {
        Self {
            key: m.key,
            value: m.value,
            lease: LeaseId(m.lease),
            prev: m.prev_kv,
            ignore_value: m.ignore_value,
            ignore_lease: m.ignore_lease,
        }
    }
}

impl From<pb::DeleteRangeRequest> for DeleteRange {
    fn from(m: pb::DeleteRangeRequest) -> Self {
        Self { key: m.key, end: m.range_end, prev: m.prev_kv }
    }
}

impl From<pb::RangeRequest> for Range {
    fn from(m: pb::RangeRequest) -> Self {
        Self {
            key: m.key,
            end: m.range_end,
            limit: m.limit,
            revision: Revision(m.revision),
            order: match m.sort_order {
                1 => Order::Ascend,
                2 => Order::Descend,
                _ => Order::None,
            },
            target: match m.sort_target {
                1 => Target::Version,
                2 => Target::Create,
                3 => Target::Mod,
                4 => Target::Value,
                _ => Target::Key,
            },
            serializable: m.serializable,
            keys_only: m.keys_only,
            count_only: m.count_only,
            min_mod: m.min_mod_revision,
            max_mod: m.max_mod_revision,
            min_create: m.min_create_revision,
            max_create: m.max_create_revision,
        }
    }
}

impl From<pb::TxnRequest> for Txn {
    fn from(m: pb::TxnRequest) -> Self {
        Self {
            compares: m.compare.into_iter().map(Compare::from).collect(),
            success: m.success.into_iter().map(Op::from).collect(),
            failure: m.failure.into_iter().map(Op::from).collect(),
        }
    }
}

impl From<pb::RequestOp> for Op {
    fn from(m: pb::RequestOp) -> Self {
        match m.request {
            Some(Request::RequestRange(r)) => Self::Range(r.into()),
            Some(Request::RequestPut(r)) => Self::Put(r.into()),
            Some(Request::RequestDeleteRange(r)) => Self::DeleteRange(r.into()),
            Some(Request::RequestTxn(r)) => Self::Txn(r.into()),
            None => Self::Nothing,
        }
    }
}

impl From<pb::Compare> for Compare {
    fn from(m: pb::Compare) -> Self {
        let number = |of: fn(&TargetUnion) -> Option<i64>| m.target_union.as_ref().and_then(of);
        let against = match m.target {
            0 => Against::Version(
                number(|u| if let TargetUnion::Version(n) = u { Some(*n) } else { None })
                    .unwrap_or(0),
            ),
            1 => Against::Create(
                number(|u| if let TargetUnion::CreateRevision(n) = u { Some(*n) } else { None })
                    .unwrap_or(0),
            ),
            2 => Against::Mod(
                number(|u| if let TargetUnion::ModRevision(n) = u { Some(*n) } else { None })
                    .unwrap_or(0),
            ),
            3 => Against::Value(match m.target_union {
                Some(TargetUnion::Value(v)) => v,
                _ => Bytes::new(),
            }),
            4 => Against::Lease(
                number(|u| if let TargetUnion::Lease(n) = u { Some(*n) } else { None })
                    .unwrap_or(0),
            ),
            _ => Against::Unknown,
        };
        let relation = match m.result {
            0 => Relation::Equal,
            1 => Relation::Greater,
            2 => Relation::Less,
            3 => Relation::NotEqual,
            _ => Relation::Unknown,
        };
        Self { key: m.key, end: m.range_end, relation, against }
    }
}
