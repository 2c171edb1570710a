//! The service `Cluster`, as far as it is built.

use bytes::Bytes;
use proto::etcdserverpb as pb;

use super::{Header, Read, Status, Work, encode::message_field, kv::parse};
use crate::{
    store::{Member, View},
    types::{MemberId, Revision},
};

pub(super) fn decode_member_list(raw: Bytes) -> Result<Work, Status> {
    let request: pb::MemberListRequest = parse(raw)?;
    Ok(Work::Read { serializable: !request.linearizable, read: Read::MemberList })
}

/// Members in the order of their ids. The header has no revision (etcd `v3rpc/member.go`).
pub(super) fn members(view: &View, header: Header, out: &mut Vec<u8>) {
    header.at(Revision(0)).encode(out);
    view.cluster.members.values().for_each(|member| message_field(2, &wire(member), out));
}

/// All that change members answer: those there are now, and before them the new one, if there is.
pub(super) fn changed(
    members: &[Member],
    added: Option<MemberId>,
    header: Header,
    out: &mut Vec<u8>,
) {
    header.at(Revision(0)).encode(out);
    let new = members.iter().find(|member| Some(member.id) == added);
    new.iter().for_each(|member| message_field(2, &wire(member), out));
    let tag = if added.is_some() { 3 } else { 2 };
    members.iter().for_each(|member| message_field(tag, &wire(member), out));
}

fn wire(member: &Member) -> pb::Member {
    pb::Member {
        id: member.id.0,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.learner,
    }
}
