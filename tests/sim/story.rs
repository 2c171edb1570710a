//! A failed life, told in few lines: who was where when, what was promised of the keys that it is
//! about, and what was read.
//!
//! ```text
//!      1.204 s  4e starts, boot 3: 12 requests, Crash(7) of serving …
//!      1.350 s  term 5 begins, led by 3e
//!      1.402 s  ? request 17 to 3e: put k1, 8 bytes
//!      1.455 s  ! request 17: revision 9
//! ```

use crate::check::{Answer, Chronicle, Op, Request, parse, unframed};
use prost::bytes::Bytes;
use proto::etcdserverpb::{self as pb, request_op};
use std::{collections::BTreeSet, time::Duration};

/// One thing worth telling, and when it was.
pub(crate) type Line = (Duration, String);

/// Lines that a reader has patience for.
const LINES_MAX: usize = 80;

/// What is told of a failure whose reason is `why`: it may name requests by their numbers.
pub(crate) fn tell(chronicle: &Chronicle, events: Vec<Line>, why: &str) -> String {
    let named = named_in(why);
    let ops = chronicle.ops.iter().enumerate();
    let is_about =
        |op: &Op| named.iter().any(|named| touches(&chronicle.ops[*named].request, &op.request));
    let about = ops.filter(|(id, op)| named.contains(id) || is_about(op));
    let until = named.iter().filter_map(|named| last_of(&chronicle.ops[*named])).max();
    let mut lines = events;
    lines.extend(about.flat_map(|(id, op)| lines_of(id, op)));
    lines.retain(|(at, _)| until.is_none_or(|until| *at <= until));
    lines.sort_by_key(|(at, _)| *at);
    let left_out = lines.len().saturating_sub(LINES_MAX);
    let shown = lines.split_off(left_out).into_iter();
    let shown = shown.map(|(at, line)| format!("{:>10.3} s  {line}", at.as_secs_f64()));
    let before = (left_out > 0).then(|| format!("              {left_out} lines before"));
    before.into_iter().chain(shown).collect::<Vec<_>>().join("\n")
}

/// Numbers that follow the word "request".
fn named_in(why: &str) -> BTreeSet<usize> {
    let number = |rest: &str| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    why.split("request ").skip(1).filter_map(number).collect()
}

fn last_of(op: &Op) -> Option<Duration> {
    op.answered.as_ref().map(|answered| answered.when.at)
}

fn lines_of(id: usize, op: &Op) -> impl Iterator<Item = Line> {
    let asked = format!("? request {id} to {:x}: {}", op.member, brief(&op.request));
    let answered = op.answered.as_ref().map(|answered| {
        (answered.when.at, format!("! request {id}: {}", said(&op.request, &answered.answer)))
    });
    [(op.asked.at, asked)].into_iter().chain(answered)
}

fn said(request: &Request, answer: &Answer) -> String {
    match (request, answer) {
        (_, Answer::TurnedAway) => "turned away".into(),
        (_, Answer::Applied(Err(status))) => format!("no, {}", status.message),
        (Request::Introduce(_) | Request::MoveLeader(_), Answer::Applied(Ok(_))) => "done".into(),
        (Request::Range(_), Answer::Applied(Ok(framed))) => {
            let found: pb::RangeResponse = parse(&unframed(framed));
            let kvs =
                found.kvs.iter().map(|kv| format!("{} of {}", text(&kv.key), kv.mod_revision));
            let kvs = kvs.collect::<Vec<_>>().join(", ");
            format!("revision {}, {} keys: {kvs}", revision(framed), found.count)
        }
        (_, Answer::Applied(Ok(framed))) => format!("revision {}", revision(framed)),
    }
}

/// Every answer begins with a header; the rest is skipped.
fn revision(framed: &Bytes) -> i64 {
    let said: pb::LeaseRevokeResponse = parse(&unframed(framed));
    said.header.map_or(0, |header| header.revision)
}

fn brief(request: &Request) -> String {
    let lease = |lease: i64| if lease == 0 { String::new() } else { format!(", lease {lease}") };
    match request {
        Request::Range(r) => {
            let how = if r.serializable { "serializable " } else { "" };
            let at = if r.revision > 0 { format!(" at {}", r.revision) } else { String::new() };
            format!("{how}range {}{at}", spoken(&r.key, &r.range_end))
        }
        Request::Put(r) => {
            format!("put {}, {} bytes{}", text(&r.key), r.value.len(), lease(r.lease))
        }
        Request::DeleteRange(r) => format!("delete {}", spoken(&r.key, &r.range_end)),
        Request::Txn(r) => {
            let [yes, no] = [&r.success, &r.failure].map(|ops| ops.len());
            format!("txn with {} comparisons, {yes} or {no} operations", r.compare.len())
        }
        Request::Compact(r) => format!("compact {}", r.revision),
        Request::Grant(r) => format!("grant lease {} for {} s", r.id, r.ttl),
        Request::Revoke(r) => format!("revoke lease {}", r.id),
        Request::Renew(id) => format!("renew lease {id}"),
        Request::TimeToLive(r) => format!("time to live of lease {}", r.id),
        Request::Leases => "all leases".into(),
        Request::Introduce(_) => "introduces itself".into(),
        Request::Change(change) => format!("{change:?}"),
        Request::MoveLeader(to) => format!("move the lead to {to:x}"),
    }
}

fn text(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

fn spoken(key: &[u8], end: &[u8]) -> String {
    match end {
        [] => text(key),
        [0] => format!("{} and on", text(key)),
        end => format!("{} to {}", text(key), text(end)),
    }
}

/// Whether two requests are about the same thing.
fn touches(one: &Request, other: &Request) -> bool {
    let overlaps = |(a, a_end): &Span, (b, b_end): &Span| {
        (b_end.is_empty() || a < b_end) && (a_end.is_empty() || b < a_end)
    };
    let (ours, theirs) = (spans(one), spans(other));
    ours.iter().any(|span| theirs.iter().any(|other| overlaps(span, other)))
        || lease_of(one).is_some_and(|lease| lease_of(other) == Some(lease))
        || (is_change(one) && is_change(other))
}

/// From a key to before another; an empty one is the end of all.
type Span = (Vec<u8>, Vec<u8>);

fn span(key: &[u8], end: &[u8]) -> Span {
    let key = key.to_vec();
    let end = match end {
        [] => [&key[..], &[0]].concat(),
        [0] => Vec::new(),
        end => end.to_vec(),
    };
    (key, end)
}

fn spans(request: &Request) -> Vec<Span> {
    match request {
        Request::Range(r) => vec![span(&r.key, &r.range_end)],
        Request::Put(r) => vec![span(&r.key, &[])],
        Request::DeleteRange(r) => vec![span(&r.key, &r.range_end)],
        Request::Txn(r) => {
            let compared = r.compare.iter().map(|compare| span(&compare.key, &compare.range_end));
            let done = r.success.iter().chain(&r.failure).filter_map(|op| op.request.as_ref());
            let done = done.flat_map(|op| match op {
                request_op::Request::RequestRange(r) => spans(&Request::Range(r.clone())),
                request_op::Request::RequestPut(r) => spans(&Request::Put(r.clone())),
                request_op::Request::RequestDeleteRange(r) => {
                    spans(&Request::DeleteRange(r.clone()))
                }
                request_op::Request::RequestTxn(r) => spans(&Request::Txn(r.clone())),
            });
            compared.chain(done).collect()
        }
        _ => Vec::new(),
    }
}

fn lease_of(request: &Request) -> Option<i64> {
    match request {
        Request::Grant(r) => Some(r.id),
        Request::Revoke(r) => Some(r.id),
        Request::Renew(id) => Some(*id),
        Request::TimeToLive(r) => Some(r.id),
        _ => None,
    }
}

fn is_change(request: &Request) -> bool {
    matches!(request, Request::Change(_))
}
