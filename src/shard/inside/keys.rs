//! How locks and elections name their keys, and the requests that they are made of.
//!
//! ```text
//! <name> / <lease, hex>       the oldest key under <name>/ holds the lock, or leads
//! ```
//!
//! Clients that bring the recipe themselves (the official Go client, `etcdctl lock`) queue under the
//! same names, so both kinds exclude each other.

use bytes::Bytes;
use proto::etcdserverpb::{
    self as pb, compare, compare::TargetUnion, range_request, request_op::Request,
};
use proto::mvccpb;

/// What all keys of a lock or election begin with.
pub fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of whoever holds `lease`. Go writes a negative number with its sign.
pub fn own(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    let mut key = prefix.to_vec();
    key.extend_from_slice(format!("{sign}{:x}", lease.unsigned_abs()).as_bytes());
    key.into()
}

/// The first key behind a prefix that ends in `/`.
fn end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    *end.last_mut().expect("a prefix ends in a slash") += 1;
    end.into()
}

/// One key, to be watched from `start` on.
pub fn watch_one(key: &Bytes, start: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.clone(), start_revision: start, ..Default::default() }
}

/// The interval of all keys of a lock or election, to be watched from `start` on.
pub fn watch_all(prefix: &Bytes, start: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: prefix.clone(),
        range_end: end(prefix),
        start_revision: start,
        ..Default::default()
    }
}

/// One key.
pub fn get(key: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key: key.clone(), ..Default::default() }
}

/// The oldest key of a prefix.
pub fn created_first(prefix: &Bytes) -> pb::RangeRequest {
    by_creation(prefix, range_request::SortOrder::Ascend)
}

/// The youngest key of a prefix.
pub fn created_last(prefix: &Bytes) -> pb::RangeRequest {
    by_creation(prefix, range_request::SortOrder::Descend)
}

fn by_creation(prefix: &Bytes, order: range_request::SortOrder) -> pb::RangeRequest {
    pb::RangeRequest {
        key: prefix.clone(),
        range_end: end(prefix),
        limit: 1,
        sort_order: order.into(),
        sort_target: range_request::SortTarget::Create.into(),
        ..Default::default()
    }
}

/// A put under a lease.
pub fn put(key: &Bytes, value: Bytes, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: key.clone(), value, lease, ..Default::default() }
}

/// Deletes one key.
pub fn delete(key: &Bytes) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.clone(), ..Default::default() }
}

/// One operation of a transaction.
pub fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// `key` was created at `revision`; 0 where it is not there.
pub fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

/// What the `nth` operation of a transaction found, if it was a range.
pub fn found(done: &pb::TxnResponse, nth: usize) -> Option<&mvccpb::KeyValue> {
    match &done.responses.get(nth)?.response {
        Some(pb::response_op::Response::ResponseRange(range)) => range.kvs.first(),
        _ => None,
    }
}

/// Whether an event is a deletion.
pub fn is_deletion(event: &mvccpb::Event) -> bool {
    event.r#type == i32::from(mvccpb::event::EventType::Delete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_go_clients_name_them() {
        let prefix = prefix(b"jobs/nightly");
        assert_eq!(own(&prefix, 0x694d_71dd_ae27_8b0a), "jobs/nightly/694d71ddae278b0a");
        assert_eq!(own(&prefix, -26), "jobs/nightly/-1a");
        assert_eq!(own(&prefix, i64::MIN), "jobs/nightly/-8000000000000000");
        assert_eq!(end(&prefix), "jobs/nightly0");
    }
}
