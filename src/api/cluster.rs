//! The service `Cluster`: who its members are, and changes of that.

use bytes::Bytes;
use proto::etcdserverpb as pb;

use super::{Header, Read, Status, Work, encode::message_field, kv::parse, status};
use crate::{
    config::{Scheme, Url},
    identity::member_id_at,
    limits::PEER_URLS_BYTES_MAX,
    store::{Member, View, command::MemberChange},
    types::{MemberId, Revision},
};

pub(super) fn decode_member_list(raw: Bytes) -> Result<Work, Status> {
    let request: pb::MemberListRequest = parse(raw)?;
    Ok(Work::Read { serializable: !request.linearizable, read: Read::MemberList })
}

/// The member's id is made from its URLs and the time, which the caller knows.
pub(super) fn decode_add(raw: Bytes) -> Result<Work, Status> {
    let request: pb::MemberAddRequest = parse(raw)?;
    let peer_urls = peer_urls(&request.peer_urls)?;
    Ok(Work::AddMember { peer_urls, learner: request.is_learner })
}

/// A member that comes at this time (etcd `membership.NewMember`, with an empty cluster name).
pub fn new_member(peer_urls: Vec<String>, learner: bool, unix_seconds: i64) -> Member {
    let id = member_id_at(&peer_urls, "", unix_seconds);
    Member { id, peer_urls, learner, ..Member::default() }
}

pub(super) fn decode_remove(raw: Bytes) -> Result<Work, Status> {
    let request: pb::MemberRemoveRequest = parse(raw)?;
    Ok(Work::Change(MemberChange::Remove(MemberId(request.id))))
}

/// etcd takes any text here, and its members end when they read it.
pub(super) fn decode_update(raw: Bytes) -> Result<Work, Status> {
    let request: pb::MemberUpdateRequest = parse(raw)?;
    let peer_urls = peer_urls(&request.peer_urls)?;
    Ok(Work::Change(MemberChange::Update { id: MemberId(request.id), peer_urls }))
}

pub(super) fn decode_promote(raw: Bytes) -> Result<Work, Status> {
    let request: pb::MemberPromoteRequest = parse(raw)?;
    Ok(Work::Change(MemberChange::Promote(MemberId(request.id))))
}

/// In order, as etcd keeps them.
fn peer_urls(typed: &[String]) -> Result<Vec<String>, Status> {
    let bytes: usize = typed.iter().map(String::len).sum();
    if typed.is_empty() || bytes > PEER_URLS_BYTES_MAX {
        return Err(status::MEMBER_BAD_URLS);
    }
    let read = typed.iter().map(|url| Url::parse(url)).collect::<Result<Vec<_>, _>>();
    let mut urls = read.map_err(|_| status::MEMBER_BAD_URLS)?;
    if urls.iter().any(|url| url.scheme != Scheme::Http) {
        return Err(Status::not_built("a member that is reached by TLS or a Unix socket"));
    }
    urls.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    Ok(urls.iter().map(|url| url.as_str().to_owned()).collect())
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
