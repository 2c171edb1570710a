//! One call: what is asked, with revisions that may be relative.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use prost::Message;
use proto::{
    etcdserverpb::{
        AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest,
        MemberListRequest, PutRequest, RangeRequest, RequestOp, StatusRequest, TxnRequest, cluster,
        compare::TargetUnion, kv, maintenance, request_op::Request,
    },
    health::{HealthCheckRequest, health},
};

/// `CURRENT + n`, n small: the revision in the newest header, and n.
pub const CURRENT: i64 = 1 << 50;
/// `COMPACTED + n`, n small: the revision compacted to last, and n.
pub const COMPACTED: i64 = 1 << 51;
/// How far from the two a relative revision may be.
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
    MemberList(MemberListRequest),
    Status(StatusRequest),
    Alarm(AlarmRequest),
    Health(HealthCheckRequest),
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
            Self::MemberList(_) => cluster::MEMBER_LIST,
            Self::Status(_) => maintenance::STATUS,
            Self::Alarm(_) => maintenance::ALARM,
            Self::Health(_) => health::CHECK,
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
            Self::MemberList(request) => request.encode_to_vec().into(),
            Self::Status(request) => request.encode_to_vec().into(),
            Self::Alarm(request) => request.encode_to_vec().into(),
            Self::Health(request) => request.encode_to_vec().into(),
            Self::Raw { message, .. } => message.clone(),
        }
    }

    /// What was meant once it is known what the server said last.
    pub fn resolve(mut self, known: Known) -> Self {
        match &mut self {
            Self::Range(request) | Self::RangeStream(request) => range(request, known),
            Self::Txn(request) => txn(request, known),
            Self::Compact(request) => known.resolve(&mut request.revision),
            Self::HashKv(request) => known.resolve(&mut request.revision),
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::MemberList(_)
            | Self::Status(_)
            | Self::Alarm(_)
            | Self::Health(_)
            | Self::Raw { .. } => {}
        }
        self
    }
}

/// What a server said last.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The revision in its newest header.
    pub current: i64,
    /// The revision it compacted to.
    pub compacted: i64,
}

impl Known {
    fn resolve(self, revision: &mut i64) {
        for (base, is) in [(CURRENT, self.current), (COMPACTED, self.compacted)] {
            if (base - RELATIVE_MAX..=base + RELATIVE_MAX).contains(revision) {
                *revision = is + (*revision - base);
                return;
            }
        }
    }
}

fn range(request: &mut RangeRequest, known: Known) {
    known.resolve(&mut request.revision);
    known.resolve(&mut request.min_mod_revision);
    known.resolve(&mut request.max_mod_revision);
    known.resolve(&mut request.min_create_revision);
    known.resolve(&mut request.max_create_revision);
}

fn txn(request: &mut TxnRequest, known: Known) {
    request.compare.iter_mut().for_each(|one| compare(one, known));
    for op in request.success.iter_mut().chain(&mut request.failure) {
        match op {
            RequestOp { request: Some(Request::RequestRange(one)) } => range(one, known),
            RequestOp { request: Some(Request::RequestTxn(one)) } => txn(one, known),
            RequestOp { .. } => {}
        }
    }
}

fn compare(one: &mut Compare, known: Known) {
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
            let bases = [(CURRENT, "current"), (COMPACTED, "compacted")];
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

    #[test]
    fn a_person_sees_names_and_numbers() {
        let text = format!("[{}, {CURRENT}, {} {}] 17", CURRENT - 3, COMPACTED + 1, "0".repeat(50));
        assert_eq!(shortened(&text), "[current-3, current, compacted+1 <50 times 0>] 17");
        assert_eq!(shortened("äää 5"), "äää 5");
    }

    #[test]
    fn relative_revisions_follow_the_server_wherever_they_stand() {
        let known = Known { current: 70, compacted: 30 };
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

        let never = Call::Compact(CompactionRequest { revision: i64::MIN, physical: false });
        assert_eq!(never.clone().resolve(known), never);
    }
}
