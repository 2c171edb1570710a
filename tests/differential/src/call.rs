//! One call: what is asked, with revisions that may be relative.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use bytes::Bytes;
use prost::Message;
use proto::{
    etcdserverpb::{
        AlarmRequest, CompactionRequest, Compare, DefragmentRequest, DeleteRangeRequest,
        HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
        LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberListRequest, PutRequest, RangeRequest,
        RequestOp, StatusRequest, TxnRequest, WatchRequest, cluster, compare::TargetUnion, kv,
        lease, maintenance, request_op::Request, watch, watch_request::RequestUnion,
    },
    health::{HealthCheckRequest, health},
    v3electionpb::{
        CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest, election,
    },
    v3lockpb::{LockRequest, UnlockRequest, lock},
};

/// `CURRENT + n`, n small: the revision in the newest header, and n.
pub const CURRENT: i64 = 1 << 50;
/// `COMPACTED + n`, n small: the revision compacted to last, and n.
pub const COMPACTED: i64 = 1 << 51;
/// `CHOSEN + n`: the `n`th lease whose id the server chose.
pub const CHOSEN: i64 = 1 << 52;
/// The revision in the leader key of the election's last campaign.
pub const CAMPAIGNED: i64 = 1 << 53;
/// No server's lease: asked for where none was chosen yet.
const NEVER_CHOSEN: i64 = 999;
/// `COMPACTION - n`: the revision of the `n`th compaction before the last.
pub const COMPACTION: i64 = 1 << 54;
/// How far from these a relative number may be.
pub const RELATIVE_MAX: i64 = 1 << 20;
/// So many of one character are shown as their number.
const RUN_CHARS_MAX: usize = 40;
/// A call shown to a person is cut to this.
const SHOWN_CHARS_MAX: usize = 4_000;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are etcd's own")]
pub enum Call {
    Range(RangeRequest),
    RangeStream(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    HashKv(HashKvRequest),
    Defragment(DefragmentRequest),
    MemberList(MemberListRequest),
    Status(StatusRequest),
    Alarm(AlarmRequest),
    Health(HealthCheckRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    LeaseTimeToLive(LeaseTimeToLiveRequest),
    LeaseLeases(LeaseLeasesRequest),
    /// On a stream that stays.
    KeepAlive(LeaseKeepAliveRequest),
    /// On a stream of its own, whose request ends with it.
    KeepAliveOnce(LeaseKeepAliveRequest),
    Lock(LockRequest),
    Unlock(UnlockRequest),
    Campaign(CampaignRequest),
    Proclaim(ProclaimRequest),
    Leader(LeaderRequest),
    Resign(ResignRequest),
    /// On one of a few watch streams, which is opened by the first.
    Watch {
        stream: usize,
        request: WatchRequest,
    },
    /// What may be no message, on a watch stream.
    WatchBytes {
        stream: usize,
        message: Bytes,
    },
    /// The end of a watch stream's request; then we leave.
    WatchEnd {
        stream: usize,
    },
    /// No request: waits until all watchers have all there is, and says what came since the last.
    Settle,
    /// A message as it stands, which may be no message, for a method that may not be there.
    Raw {
        path: Cow<'static, str>,
        message: Bytes,
    },
}

impl Call {
    /// The method's path.
    pub fn path(&self) -> &str {
        match self {
            Self::Range(_) => kv::RANGE,
            Self::RangeStream(_) => kv::RANGE_STREAM,
            Self::Put(_) => kv::PUT,
            Self::DeleteRange(_) => kv::DELETE_RANGE,
            Self::Txn(_) => kv::TXN,
            Self::Compact(_) => kv::COMPACT,
            Self::HashKv(_) => maintenance::HASH_KV,
            Self::Defragment(_) => maintenance::DEFRAGMENT,
            Self::MemberList(_) => cluster::MEMBER_LIST,
            Self::Status(_) => maintenance::STATUS,
            Self::Alarm(_) => maintenance::ALARM,
            Self::Health(_) => health::CHECK,
            Self::LeaseGrant(_) => lease::LEASE_GRANT,
            Self::LeaseRevoke(_) => lease::LEASE_REVOKE,
            Self::LeaseTimeToLive(_) => lease::LEASE_TIME_TO_LIVE,
            Self::LeaseLeases(_) => lease::LEASE_LEASES,
            Self::KeepAlive(_) | Self::KeepAliveOnce(_) => lease::LEASE_KEEP_ALIVE,
            Self::Lock(_) => lock::LOCK,
            Self::Unlock(_) => lock::UNLOCK,
            Self::Campaign(_) => election::CAMPAIGN,
            Self::Proclaim(_) => election::PROCLAIM,
            Self::Leader(_) => election::LEADER,
            Self::Resign(_) => election::RESIGN,
            Self::Watch { .. } | Self::WatchBytes { .. } | Self::WatchEnd { .. } | Self::Settle => {
                watch::WATCH
            }
            Self::Raw { path, .. } => path,
        }
    }

    /// The message's bytes.
    pub fn message(&self) -> Bytes {
        match self {
            Self::Range(request) | Self::RangeStream(request) => request.encode_to_vec().into(),
            Self::Put(request) => request.encode_to_vec().into(),
            Self::DeleteRange(request) => request.encode_to_vec().into(),
            Self::Txn(request) => request.encode_to_vec().into(),
            Self::Compact(request) => request.encode_to_vec().into(),
            Self::HashKv(request) => request.encode_to_vec().into(),
            Self::Defragment(request) => request.encode_to_vec().into(),
            Self::MemberList(request) => request.encode_to_vec().into(),
            Self::Status(request) => request.encode_to_vec().into(),
            Self::Alarm(request) => request.encode_to_vec().into(),
            Self::Health(request) => request.encode_to_vec().into(),
            Self::LeaseGrant(request) => request.encode_to_vec().into(),
            Self::LeaseRevoke(request) => request.encode_to_vec().into(),
            Self::LeaseTimeToLive(request) => request.encode_to_vec().into(),
            Self::LeaseLeases(request) => request.encode_to_vec().into(),
            Self::KeepAlive(request) | Self::KeepAliveOnce(request) => {
                request.encode_to_vec().into()
            }
            Self::Lock(request) => request.encode_to_vec().into(),
            Self::Unlock(request) => request.encode_to_vec().into(),
            Self::Campaign(request) => request.encode_to_vec().into(),
            Self::Proclaim(request) => request.encode_to_vec().into(),
            Self::Leader(request) => request.encode_to_vec().into(),
            Self::Resign(request) => request.encode_to_vec().into(),
            Self::Watch { request, .. } => request.encode_to_vec().into(),
            Self::WatchBytes { message, .. } => message.clone(),
            Self::WatchEnd { .. } | Self::Settle => Bytes::new(),
            Self::Raw { message, .. } => message.clone(),
        }
    }

    /// What was meant once it is known what the server said last.
    pub fn resolve(mut self, known: &Known) -> Self {
        match &mut self {
            Self::Range(request) | Self::RangeStream(request) => range(request, known),
            Self::Txn(request) => txn(request, known),
            Self::Compact(request) => known.resolve(&mut request.revision),
            Self::HashKv(request) => known.resolve(&mut request.revision),
            Self::LeaseRevoke(request) => known.resolve_lease(&mut request.id),
            Self::LeaseTimeToLive(request) => known.resolve_lease(&mut request.id),
            Self::KeepAlive(request) | Self::KeepAliveOnce(request) => {
                known.resolve_lease(&mut request.id);
            }
            Self::Proclaim(ProclaimRequest { leader: Some(leader), .. })
            | Self::Resign(ResignRequest { leader: Some(leader) }) => known.resolve_leader(leader),
            Self::Watch { request, .. } => {
                if let Some(RequestUnion::CreateRequest(create)) = &mut request.request_union {
                    known.resolve(&mut create.start_revision);
                }
            }
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Defragment(_)
            | Self::MemberList(_)
            | Self::Status(_)
            | Self::Alarm(_)
            | Self::Health(_)
            | Self::LeaseGrant(_)
            | Self::LeaseLeases(_)
            | Self::Lock(_)
            | Self::Unlock(_)
            | Self::Campaign(_)
            | Self::Proclaim(_)
            | Self::Leader(_)
            | Self::Resign(_)
            | Self::WatchBytes { .. }
            | Self::WatchEnd { .. }
            | Self::Settle
            | Self::Raw { .. } => {}
        }
        self
    }
}

/// What a server said last.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The revision in its newest header.
    pub current: i64,
    /// The revisions it compacted to, first to last.
    pub compacted: Vec<i64>,
    /// The leases whose ids it chose, first to last.
    pub chosen: Vec<i64>,
    /// Of each election, by its name: the revision of the newest leader key.
    pub campaigned: BTreeMap<Bytes, i64>,
}

impl Known {
    /// A lease's id in the form that means the same of every server.
    pub fn lease(&self, id: i64) -> i64 {
        let chosen = self.chosen.iter().position(|chosen| *chosen == id);
        chosen.map_or(id, |at| CHOSEN + at as i64)
    }

    fn resolve_lease(&self, id: &mut i64) {
        if (CHOSEN..=CHOSEN + RELATIVE_MAX).contains(id) {
            let at = (*id - CHOSEN) as usize;
            let at = at.checked_rem(self.chosen.len());
            *id = at.map_or(NEVER_CHOSEN, |at| self.chosen[at]);
        }
    }

    fn resolve_leader(&self, leader: &mut LeaderKey) {
        if leader.rev == CAMPAIGNED {
            leader.rev = self.campaigned.get(&leader.name).copied().unwrap_or(1);
        }
    }

    fn resolve(&self, revision: &mut i64) {
        if (COMPACTION - RELATIVE_MAX..=COMPACTION).contains(revision) {
            let before = (COMPACTION - *revision) as usize;
            let at = self.compacted.iter().rev().nth(before);
            *revision = at.copied().unwrap_or_default();
            return;
        }
        let compacted = self.compacted.last().copied().unwrap_or_default();
        for (base, is) in [(CURRENT, self.current), (COMPACTED, compacted)] {
            if (base - RELATIVE_MAX..=base + RELATIVE_MAX).contains(revision) {
                *revision = is + (*revision - base);
                return;
            }
        }
    }
}

fn range(request: &mut RangeRequest, known: &Known) {
    known.resolve(&mut request.revision);
    known.resolve(&mut request.min_mod_revision);
    known.resolve(&mut request.max_mod_revision);
    known.resolve(&mut request.min_create_revision);
    known.resolve(&mut request.max_create_revision);
}

fn txn(request: &mut TxnRequest, known: &Known) {
    request.compare.iter_mut().for_each(|one| compare(one, known));
    for op in request.success.iter_mut().chain(&mut request.failure) {
        match op {
            RequestOp { request: Some(Request::RequestRange(one)) } => range(one, known),
            RequestOp { request: Some(Request::RequestTxn(one)) } => txn(one, known),
            RequestOp { .. } => {}
        }
    }
}

fn compare(one: &mut Compare, known: &Known) {
    use TargetUnion::{CreateRevision, ModRevision};
    if let Some(CreateRevision(revision) | ModRevision(revision)) = &mut one.target_union {
        known.resolve(revision);
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", shortened(&format!("{self:?}")))
    }
}

/// The text for a person: relative revisions by name, long runs of one character counted, and the
/// middle left out where it is still very long.
pub fn shortened(text: &str) -> String {
    let text = &runs_counted(&revisions_named(text));
    let chars = text.chars().count();
    if chars <= SHOWN_CHARS_MAX {
        return text.into();
    }
    let head: String = text.chars().take(SHOWN_CHARS_MAX / 2).collect();
    let tail: String = text.chars().skip(chars - SHOWN_CHARS_MAX / 2).collect();
    format!("{head} … {} characters … {tail}", chars - SHOWN_CHARS_MAX)
}

fn revisions_named(text: &str) -> String {
    let mut named = String::new();
    for word in text.split_inclusive(|at: char| !at.is_ascii_digit()) {
        let digits = word.trim_end_matches(|at: char| !at.is_ascii_digit());
        let base = digits.parse::<i64>().ok().and_then(|number| {
            let bases = [
                (CURRENT, "current"),
                (COMPACTED, "compacted"),
                (CHOSEN, "chosen"),
                (CAMPAIGNED, "campaigned"),
                (COMPACTION, "compaction"),
            ];
            let near = |base: i64| (base - RELATIVE_MAX..=base + RELATIVE_MAX).contains(&number);
            bases
                .into_iter()
                .find(|(base, _)| near(*base))
                .map(|(base, name)| (number - base, name))
        });
        match base {
            Some((0, name)) => named.push_str(name),
            Some((offset, name)) => named.push_str(&format!("{name}{offset:+}")),
            None => named.push_str(digits),
        }
        named.push_str(&word[digits.len()..]);
    }
    named
}

fn runs_counted(text: &str) -> String {
    let mut counted = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = rest.trim_start_matches(first);
        let run = (rest.len() - after.len()) / first.len_utf8();
        match run {
            RUN_CHARS_MAX.. => counted.push_str(&format!("<{run} times {first}>")),
            _ => counted.push_str(&rest[..rest.len() - after.len()]),
        }
        rest = after;
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::etcdserverpb::WatchCreateRequest;

    #[test]
    fn what_the_server_chose_has_a_name() {
        let mut known = Known::default();
        let revoke = |id| Call::LeaseRevoke(LeaseRevokeRequest { id });
        assert_eq!(revoke(CHOSEN + 1).resolve(&known), revoke(NEVER_CHOSEN));
        known.chosen = vec![701, 702];
        assert_eq!(revoke(CHOSEN + 3).resolve(&known), revoke(702));
        assert_eq!((known.lease(702), known.lease(5)), (CHOSEN + 1, 5));

        let resign = |rev| {
            let leader = LeaderKey { name: "e".into(), rev, ..Default::default() };
            Call::Resign(ResignRequest { leader: Some(leader) })
        };
        assert_eq!(resign(CAMPAIGNED).resolve(&known), resign(1));
        known.campaigned.insert("e".into(), 44);
        assert_eq!(resign(CAMPAIGNED).resolve(&known), resign(44));
    }

    #[test]
    fn a_person_sees_names_and_numbers() {
        let text = format!("[{}, {CURRENT}, {} {}] 17", CURRENT - 3, COMPACTED + 1, "0".repeat(50));
        assert_eq!(shortened(&text), "[current-3, current, compacted+1 <50 times 0>] 17");
        assert_eq!(shortened("äää 5"), "äää 5");
    }

    #[test]
    fn relative_revisions_follow_the_server_wherever_they_stand() {
        let known = &Known { current: 70, compacted: vec![20, 30], ..Known::default() };
        let range =
            RangeRequest { revision: CURRENT + 1, max_mod_revision: 7, ..Default::default() };
        let resolved = RangeRequest { revision: 71, max_mod_revision: 7, ..Default::default() };
        assert_eq!(Call::Range(range.clone()).resolve(known), Call::Range(resolved.clone()));

        let inner = |range| TxnRequest {
            success: vec![RequestOp { request: Some(Request::RequestRange(range)) }],
            ..Default::default()
        };
        let outer = |range, revision| {
            Call::Txn(TxnRequest {
                compare: vec![Compare {
                    target_union: Some(TargetUnion::ModRevision(revision)),
                    ..Default::default()
                }],
                failure: vec![RequestOp { request: Some(Request::RequestTxn(inner(range))) }],
                ..Default::default()
            })
        };
        let call = outer(range, COMPACTED - 2);
        assert_eq!(call.resolve(known), outer(resolved, 28));

        let watch = |start_revision| Call::Watch {
            stream: 0,
            request: WatchRequest {
                request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                    start_revision,
                    ..Default::default()
                })),
            },
        };
        assert_eq!(watch(COMPACTED).resolve(known), watch(30));

        let never = Call::Compact(CompactionRequest { revision: i64::MIN, physical: false });
        assert_eq!(never.clone().resolve(known), never);
    }
}
