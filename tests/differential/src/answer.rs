//! One answer, in the form in which two are compared.
//!
//! What is made equal before comparing, and why that loses nothing:
//!
//! - cluster id, member id and raft term of a header: only whether they are there. They are the
//!   member's own.
//! - `Status`: sizes, raft's index and term are left out; `leader` is kept as "itself". `MemberList`
//!   and `Alarm`: ids as above. `HashKV`: nothing.
//! - Ranges sorted by what may tie: Go's sort is not stable, so keys that tie are put in key order,
//!   and where the limit may have cut through the last tie only how many they are and their tied
//!   field is compared. Where the sorted values were not sent (`keys_only`), the keys are compared as
//!   a set, and if cut by the limit, their number.
//! - The parts of a `RangeStream` are concatenated; how a server cuts them is its own affair. That
//!   only the last carries a header is compared.
//! - Leases: an id that the server chose is named by which of them it is. The seconds left of a lease
//!   count as what it was granted if they are that, but for the time since, and two seconds. In a list
//!   of leases, which is sorted by the time left, those of one TTL are put in the order of their ids.
//! - Watches ([`crate::watching`]): how events are cut into responses, and what revision the header of
//!   a response with events names, beyond that it is not below them. What a stream says when asked to
//!   cancel a watcher that the server has cancelled.
//! - A message that cannot be decoded: the code, and the text up to the reason. protobuf-go's reasons
//!   name Go types, and spell their spaces differently from build to build.

use std::mem::discriminant;

use bytes::Bytes;
use loadgen::grpc::Status;
use prost::Message;
use proto::{
    etcdserverpb::{
        AlarmResponse, CompactionResponse, DefragmentResponse, DeleteRangeResponse, HashKvResponse,
        LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse,
        LeaseTimeToLiveResponse, MemberListResponse, PutResponse, RangeRequest, RangeResponse,
        RangeStreamResponse, RequestOp, ResponseHeader, ResponseOp, StatusResponse, TxnRequest,
        TxnResponse, WatchResponse, kv, lease, range_request::SortTarget, request_op::Request,
        response_op::Response,
    },
    health::HealthCheckResponse,
    mvccpb::KeyValue,
    v3electionpb::{CampaignResponse, LeaderResponse, ProclaimResponse, ResignResponse},
    v3lockpb::{LockResponse, UnlockResponse},
};

use crate::{
    call::Call,
    watching::{Delivered, Heard},
};

/// In front of what protobuf has against a message: of a unary call, of a stream.
const MALFORMED: [&str; 2] =
    ["grpc: error unmarshalling request: ", "grpc: failed to unmarshal the received message: "];

/// What a server answered.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are etcd's own")]
pub enum Answer {
    Range(RangeResponse),
    /// All parts together, and how many before the last carry a header.
    RangeStream(RangeResponse, usize),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    HashKv(HashKvResponse),
    Defragment(DefragmentResponse),
    MemberList(MemberListResponse),
    Status(StatusResponse),
    Alarm(AlarmResponse),
    Health(HealthCheckResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    LeaseTimeToLive(LeaseTimeToLiveResponse),
    LeaseLeases(LeaseLeasesResponse),
    KeepAlive(LeaseKeepAliveResponse),
    Lock(LockResponse),
    Unlock(UnlockResponse),
    Campaign(CampaignResponse),
    Proclaim(ProclaimResponse),
    Leader(LeaderResponse),
    Resign(ResignResponse),
    /// What a watch stream said to one request, events aside.
    Watch(Vec<WatchResponse>),
    /// A watch stream ended well, or is open still after we said our last.
    WatchOver {
        open: bool,
    },
    /// What the watchers heard since they were asked last.
    Settled(Heard),
    /// The watchers did not get all there is, within a time that is long.
    Unsettled(String),
    /// gRPC's number, and the text.
    Error(i32, String),
    /// Success, and yet not what the method answers.
    Senseless(String, Vec<Bytes>),
}

impl Answer {
    /// What came, to a call.
    pub fn new(call: &Call, came: Result<Vec<Bytes>, Status>) -> Self {
        match came {
            Err(status) => Self::Error(status.code, error_text(&status.message)),
            Ok(messages) => Self::read(call, &messages)
                .unwrap_or_else(|reason| Self::Senseless(reason, messages)),
        }
    }

    fn read(call: &Call, messages: &[Bytes]) -> Result<Self, String> {
        if let Call::RangeStream(_) = call {
            return stream(messages);
        }
        let [message] = messages else {
            return Err(format!("{} messages to a unary call", messages.len()));
        };
        Ok(match call {
            Call::Range(request) => Self::Range(range(Some(request), decode(message)?)),
            Call::Put(_) => Self::Put(put(decode(message)?)),
            Call::DeleteRange(_) => Self::DeleteRange(delete_range(decode(message)?)),
            Call::Txn(request) => Self::Txn(txn(Some(request), decode(message)?)),
            Call::Compact(_) => Self::Compact(compact(decode(message)?)),
            Call::HashKv(_) => {
                let mut response: HashKvResponse = decode(message)?;
                header(&mut response.header);
                Self::HashKv(response)
            }
            Call::Defragment(_) => Self::Defragment(decode(message)?),
            Call::MemberList(_) => Self::MemberList(members(decode(message)?)),
            Call::Status(_) => Self::Status(status(decode(message)?)),
            Call::Alarm(_) => Self::Alarm(alarms(decode(message)?)),
            Call::Health(_) => Self::Health(decode(message)?),
            Call::LeaseGrant(_) => Self::LeaseGrant(headed(message)?),
            Call::LeaseRevoke(_) => Self::LeaseRevoke(headed(message)?),
            Call::LeaseTimeToLive(_) => {
                let mut response: LeaseTimeToLiveResponse = headed(message)?;
                response.keys.sort();
                Self::LeaseTimeToLive(response)
            }
            Call::LeaseLeases(_) => Self::LeaseLeases(headed(message)?),
            Call::KeepAlive(_) | Call::KeepAliveOnce(_) => Self::KeepAlive(headed(message)?),
            Call::Lock(_) => Self::Lock(headed(message)?),
            Call::Unlock(_) => Self::Unlock(headed(message)?),
            Call::Campaign(_) => Self::Campaign(headed(message)?),
            Call::Proclaim(_) => Self::Proclaim(headed(message)?),
            Call::Leader(_) => Self::Leader(headed(message)?),
            Call::Resign(_) => Self::Resign(headed(message)?),
            Call::Raw { path, .. } => match path.as_ref() {
                kv::RANGE => Self::Range(range(None, decode(message)?)),
                kv::PUT => Self::Put(put(decode(message)?)),
                kv::DELETE_RANGE => Self::DeleteRange(delete_range(decode(message)?)),
                kv::TXN => Self::Txn(txn(None, decode(message)?)),
                kv::COMPACT => Self::Compact(compact(decode(message)?)),
                lease::LEASE_REVOKE => Self::LeaseRevoke(headed(message)?),
                lease::LEASE_KEEP_ALIVE => Self::KeepAlive(headed(message)?),
                other => return Err(format!("success of {other}")),
            },
            Call::RangeStream(_) => unreachable!("taken above"),
            Call::Watch { .. } | Call::WatchBytes { .. } | Call::WatchEnd { .. } | Call::Settle => {
                unreachable!("watch streams have their own ear")
            }
        })
    }

    /// Whether both are errors of one code, or answers of one kind.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Error(a, _), Self::Error(b, _)) => a == b,
            _ => discriminant(self) == discriminant(other),
        }
    }

    /// Of two answers that differ, what a person should look at: of all that watchers heard only
    /// where it differs, from there on.
    pub fn narrowed(pair: [Self; 2]) -> [Self; 2] {
        let [Self::Settled(a), Self::Settled(b)] = &pair else { return pair };
        let mut narrow = [Heard::new(), Heard::new()];
        for watcher in a.keys().chain(b.keys()) {
            let heard = [a, b].map(|side| side.get(watcher).map_or(&[][..], Vec::as_slice));
            let same = heard[0].iter().zip(heard[1]).take_while(|(a, b)| a == b).count();
            for (narrow, heard) in narrow.iter_mut().zip(heard).filter(|(_, all)| all.len() > same)
            {
                narrow.insert(*watcher, heard[same..].to_vec());
            }
        }
        narrow.map(Self::Settled)
    }

    /// Events in it.
    pub fn events(&self) -> usize {
        let Self::Settled(heard) = self else { return 0 };
        heard.values().flatten().map(Delivered::events).sum()
    }

    /// The revision in the header, if there is one.
    pub fn revision(&self) -> Option<i64> {
        let header = match self {
            Self::Range(response) | Self::RangeStream(response, _) => response.header,
            Self::Put(response) => response.header,
            Self::DeleteRange(response) => response.header,
            Self::Txn(response) => response.header,
            Self::Compact(response) => response.header,
            Self::HashKv(response) => response.header,
            Self::Status(response) => response.header,
            Self::Alarm(response) => response.header,
            Self::LeaseGrant(response) => response.header,
            Self::LeaseRevoke(response) => response.header,
            Self::LeaseTimeToLive(response) => response.header,
            Self::LeaseLeases(response) => response.header,
            Self::KeepAlive(response) => response.header,
            Self::Lock(response) => response.header,
            Self::Unlock(response) => response.header,
            Self::Campaign(response) => response.header,
            Self::Proclaim(response) => response.header,
            Self::Leader(response) => response.header,
            Self::Resign(response) => response.header,
            Self::Watch(responses) => responses.last().and_then(|response| response.header),
            // A member list's header carries none, and a defragmentation has no header.
            Self::MemberList(_)
            | Self::Defragment(_)
            | Self::Health(_)
            | Self::WatchOver { .. }
            | Self::Settled(_)
            | Self::Unsettled(_)
            | Self::Error(..)
            | Self::Senseless(..) => None,
        };
        header.map(|header| header.revision)
    }
}

/// An error's text without what is no server's own.
pub fn error_text(text: &str) -> String {
    let reason = MALFORMED.iter().find_map(|before| Some(text.find(before)? + before.len()));
    text[..reason.unwrap_or(text.len())].into()
}

/// Decodes, and demands that nothing was lost: no field that the message does not have.
fn decode<M: Message + Default>(message: &Bytes) -> Result<M, String> {
    let decoded = M::decode(message.clone()).map_err(|error| error.to_string())?;
    if decoded.encoded_len() == message.len() {
        return Ok(decoded);
    }
    Err(format!("{} bytes, of which {} are known fields", message.len(), decoded.encoded_len()))
}

// ── ids ─────────────────────────────────────────────────────────────────────────────────────────

fn is_there(id: &mut u64) {
    *id = (*id != 0).into();
}

/// Leaves of a header's ids only whether they are there.
pub fn header(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        is_there(&mut header.cluster_id);
        is_there(&mut header.member_id);
        is_there(&mut header.raft_term);
    }
}

/// A response that has a header.
trait Headed: Message + Default {
    fn header(&mut self) -> &mut Option<ResponseHeader>;
}

macro_rules! headed {
    ($($response:ty),+) => {
        $(impl Headed for $response {
            fn header(&mut self) -> &mut Option<ResponseHeader> {
                &mut self.header
            }
        })+
    };
}

headed!(
    LeaseGrantResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    LeaseLeasesResponse,
    LeaseKeepAliveResponse,
    LockResponse,
    UnlockResponse,
    CampaignResponse,
    ProclaimResponse,
    LeaderResponse,
    ResignResponse
);

fn headed<M: Headed>(message: &Bytes) -> Result<M, String> {
    let mut response: M = decode(message)?;
    header(response.header());
    Ok(response)
}

fn put(mut response: PutResponse) -> PutResponse {
    header(&mut response.header);
    response
}

fn delete_range(mut response: DeleteRangeResponse) -> DeleteRangeResponse {
    header(&mut response.header);
    response
}

fn compact(mut response: CompactionResponse) -> CompactionResponse {
    header(&mut response.header);
    response
}

fn members(mut response: MemberListResponse) -> MemberListResponse {
    header(&mut response.header);
    response.members.iter_mut().for_each(|member| is_there(&mut member.id));
    response
}

fn alarms(mut response: AlarmResponse) -> AlarmResponse {
    header(&mut response.header);
    response.alarms.iter_mut().for_each(|alarm| is_there(&mut alarm.member_id));
    response
}

fn status(response: StatusResponse) -> StatusResponse {
    let own = response.header.map_or(0, |header| header.member_id);
    let mut response = StatusResponse {
        leader: (response.leader == own).into(),
        db_size: 0,
        db_size_in_use: 0,
        raft_index: 0,
        raft_applied_index: 0,
        raft_term: 0,
        ..response
    };
    header(&mut response.header);
    response
}

// ── ranges ──────────────────────────────────────────────────────────────────────────────────────

fn stream(messages: &[Bytes]) -> Result<Answer, String> {
    let mut whole = RangeResponse::default();
    let mut early_headers = 0;
    for message in messages {
        let part: RangeStreamResponse = decode(message)?;
        let part = part.range_response.ok_or("a part without a response")?;
        early_headers += usize::from(whole.header.is_some());
        whole.header = part.header.or(whole.header);
        whole.kvs.extend(part.kvs);
        whole.more |= part.more;
        whole.count = if part.count == 0 { whole.count } else { part.count };
    }
    header(&mut whole.header);
    Ok(Answer::RangeStream(whole, early_headers))
}

fn range(request: Option<&RangeRequest>, mut response: RangeResponse) -> RangeResponse {
    header(&mut response.header);
    if let Some(request) = request {
        settle_ties(request, &mut response);
    }
    response
}

/// What two keys may tie in.
#[derive(PartialEq)]
enum Tied {
    Number(i64),
    Value(Bytes),
}

fn settle_ties(request: &RangeRequest, response: &mut RangeResponse) {
    let field = |kv: &KeyValue| match request.sort_target() {
        SortTarget::Version => Tied::Number(kv.version),
        SortTarget::Create => Tied::Number(kv.create_revision),
        SortTarget::Mod => Tied::Number(kv.mod_revision),
        SortTarget::Value => Tied::Value(kv.value.clone()),
        SortTarget::Key => unreachable!("keys do not tie"),
    };
    let target = request.sort_target();
    if target == SortTarget::Key {
        return;
    }
    if target == SortTarget::Value && request.keys_only {
        response.kvs.sort_by(|a, b| a.key.cmp(&b.key));
        if response.more {
            response.kvs.fill(KeyValue::default());
        }
        return;
    }
    let more = response.more;
    let mut rest = &mut response.kvs[..];
    while let Some(first) = rest.first() {
        let tied = field(first);
        let end = rest.iter().position(|kv| field(kv) != tied).unwrap_or(rest.len());
        let (ties, after) = rest.split_at_mut(end);
        ties.sort_by(|a, b| a.key.cmp(&b.key));
        if more && after.is_empty() {
            ties.iter_mut().for_each(|kv| keep_only(target, kv));
        }
        rest = after;
    }
}

fn keep_only(target: SortTarget, kv: &mut KeyValue) {
    let was = std::mem::take(kv);
    match target {
        SortTarget::Version => kv.version = was.version,
        SortTarget::Create => kv.create_revision = was.create_revision,
        SortTarget::Mod => kv.mod_revision = was.mod_revision,
        SortTarget::Value => kv.value = was.value,
        SortTarget::Key => kv.key = was.key,
    }
}

// ── transactions ────────────────────────────────────────────────────────────────────────────────

fn txn(request: Option<&TxnRequest>, mut response: TxnResponse) -> TxnResponse {
    header(&mut response.header);
    let branch = request.map(|request| match response.succeeded {
        true => &request.success[..],
        false => &request.failure[..],
    });
    let mut asked = branch.unwrap_or_default().iter();
    response.responses.iter_mut().for_each(|op| operation(asked.next(), op));
    response
}

fn operation(asked: Option<&RequestOp>, op: &mut ResponseOp) {
    let asked = asked.and_then(|asked| asked.request.as_ref());
    match &mut op.response {
        Some(Response::ResponseRange(response)) => {
            let request = match asked {
                Some(Request::RequestRange(request)) => Some(request),
                _ => None,
            };
            *response = range(request, std::mem::take(response));
        }
        Some(Response::ResponseTxn(response)) => {
            let request = match asked {
                Some(Request::RequestTxn(request)) => Some(request),
                _ => None,
            };
            *response = txn(request, std::mem::take(response));
        }
        Some(Response::ResponsePut(response)) => header(&mut response.header),
        Some(Response::ResponseDeleteRange(response)) => header(&mut response.header),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::etcdserverpb::range_request::SortOrder;

    fn kv(key: &'static str, version: i64) -> KeyValue {
        KeyValue { key: key.into(), version, ..Default::default() }
    }

    fn by_version(limit: i64) -> Call {
        Call::Range(RangeRequest {
            sort_target: SortTarget::Version.into(),
            sort_order: SortOrder::Ascend.into(),
            limit,
            ..Default::default()
        })
    }

    fn answer(call: &Call, kvs: &[KeyValue], more: bool) -> Answer {
        let response = RangeResponse { kvs: kvs.to_vec(), more, count: 9, header: None };
        Answer::new(call, Ok(vec![response.encode_to_vec().into()]))
    }

    #[test]
    fn ties_may_come_in_any_order_and_what_does_not_tie_may_not() {
        let all = by_version(0);
        let one = answer(&all, &[kv("a", 1), kv("b", 1), kv("c", 2)], false);
        assert_eq!(one, answer(&all, &[kv("b", 1), kv("a", 1), kv("c", 2)], false));
        assert_ne!(one, answer(&all, &[kv("a", 1), kv("c", 2), kv("b", 1)], false));
        assert_ne!(one, answer(&all, &[kv("a", 1), kv("d", 1), kv("c", 2)], false));
    }

    #[test]
    fn a_tie_cut_by_the_limit_is_compared_by_number() {
        let two = by_version(2);
        let one = answer(&two, &[kv("a", 1), kv("b", 2)], true);
        assert_eq!(one, answer(&two, &[kv("a", 1), kv("c", 2)], true));
        assert_ne!(one, answer(&two, &[kv("c", 1), kv("b", 2)], true));
        assert_ne!(one, answer(&two, &[kv("a", 1), kv("b", 3)], true));
    }

    #[test]
    fn ids_are_the_members_own_and_revisions_are_not() {
        let call = Call::Put(Default::default());
        let put = |cluster_id, revision| {
            let header = ResponseHeader { cluster_id, member_id: 7, revision, raft_term: 2 };
            let response = PutResponse { header: Some(header), prev_kv: None };
            Answer::new(&call, Ok(vec![response.encode_to_vec().into()]))
        };
        assert_eq!(put(1, 5), put(2, 5));
        assert_ne!(put(1, 5), put(0, 5));
        assert_ne!(put(1, 5), put(1, 6));
        assert_eq!(put(1, 5).revision(), Some(5));
    }

    #[test]
    fn a_field_that_the_message_does_not_have_is_seen() {
        let call = Call::Put(Default::default());
        let answer = Answer::new(&call, Ok(vec![Bytes::from_static(b"\x20\x01")]));
        assert!(matches!(answer, Answer::Senseless(..)), "{answer:?}");
        let answer = Answer::new(&call, Ok(vec![Bytes::new(), Bytes::new()]));
        assert!(matches!(answer, Answer::Senseless(..)), "{answer:?}");
    }

    #[test]
    fn errors_differ_by_code_and_by_text() {
        let call = Call::Put(Default::default());
        let error = |code, text: &str| Answer::new(&call, Err(Status::new(code, text)));
        assert_ne!(error(3, "a"), error(3, "b"));
        assert_ne!(error(3, "a"), error(5, "a"));
        for before in MALFORMED {
            let malformed = |why| error(13, &format!("{before}{why}"));
            assert_eq!(malformed("proto: this"), malformed("that"));
            assert_ne!(malformed("this"), error(13, "this"));
        }
    }

    #[test]
    fn only_what_watchers_heard_differently_is_shown() {
        let one = |revision| Delivered::Revision(revision, vec![]);
        let heard = |second| {
            let both = [((0, 1), vec![one(2), one(second)]), ((0, 2), vec![one(2)])];
            Answer::Settled(both.into_iter().collect())
        };
        let narrowed = Answer::narrowed([heard(3), heard(4)]);
        let left = |revision| Answer::Settled([((0, 1), vec![one(revision)])].into());
        assert_eq!(narrowed, [left(3), left(4)]);
    }

    #[test]
    fn a_stream_is_its_parts_together() {
        let call = Call::RangeStream(Default::default());
        let part = |kvs: &[KeyValue], count, header| {
            let whole = RangeResponse { kvs: kvs.to_vec(), count, header, more: false };
            Bytes::from(RangeStreamResponse { range_response: Some(whole) }.encode_to_vec())
        };
        let header = Some(ResponseHeader { revision: 4, ..Default::default() });
        let [a, b] = [kv("a", 1), kv("b", 1)];
        let cut = vec![
            part(std::slice::from_ref(&a), 0, None),
            part(std::slice::from_ref(&b), 2, header),
        ];
        let whole = vec![part(&[a.clone(), b.clone()], 2, header)];
        assert_eq!(Answer::new(&call, Ok(cut)), Answer::new(&call, Ok(whole.clone())));
        let early = vec![part(&[a], 0, header), part(&[b], 2, header)];
        assert_ne!(Answer::new(&call, Ok(early)), Answer::new(&call, Ok(whole)));
    }
}
