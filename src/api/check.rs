//! What etcd refuses before the log, in its order and with its quirks (`api/v3rpc/key.go`).

use std::collections::{BTreeMap, BTreeSet};

use proto::etcdserverpb::{self as pb, request_op::Request};

use super::status::{self, Status};

/// # Errors
/// An empty key, or a sort that etcd does not know.
pub fn range(request: &pb::RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::EMPTY_KEY);
    }
    let known = (0..=2).contains(&request.sort_order) && (0..=4).contains(&request.sort_target);
    if known { Ok(()) } else { Err(status::INVALID_SORT) }
}

/// # Errors
/// An empty key, or something given that the request says to ignore.
pub fn put(request: &pb::PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::EMPTY_KEY);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(status::VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(status::LEASE_PROVIDED);
    }
    Ok(())
}

/// # Errors
/// An empty key.
pub fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() { Err(status::EMPTY_KEY) } else { Ok(()) }
}

/// Checks a whole transaction; `ops_max` operations are allowed at the first level.
///
/// # Errors
/// The first thing wrong: each operation in order, then keys written twice.
pub fn txn(request: &pb::TxnRequest, ops_max: usize) -> Result<(), Status> {
    level(request, ops_max)?;
    touched(&request.success)?;
    touched(&request.failure).map(drop)
}

/// A nested transaction may hold what its parent left of the budget.
fn level(request: &pb::TxnRequest, budget: usize) -> Result<(), Status> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let rest = budget.checked_sub(ops).ok_or(status::TOO_MANY_OPS)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(status::EMPTY_KEY);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| operation(op, rest))
}

fn operation(op: &pb::RequestOp, budget: usize) -> Result<(), Status> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => level(request, budget),
        // Sic: etcd has no better word for an operation with nothing in it.
        None => Err(status::KEY_NOT_FOUND),
    }
}

/// The keys one branch writes and the intervals it deletes, nested branches included.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Deletes<'a>,
}

/// No key may be written twice in a branch, nor written and deleted. The order in which etcd looks
/// is visible: deletions of this level first, then nested transactions one after the other, then
/// this level's puts. So `{delete k}, {put k}` as two nested transactions is refused and the other
/// way round is not. Both branches of one nested transaction may write the same key, since only
/// one of them runs.
fn touched(ops: &[pb::RequestOp]) -> Result<Touched<'_>, Status> {
    let mut all = Touched::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            all.deletes.insert(&request.key, &request.range_end);
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(inner)) = &op.request {
            nested(&mut all, inner)?;
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(request)) = &op.request
            && (all.deletes.contain(&request.key) || !all.puts.insert(&request.key))
        {
            return Err(status::DUPLICATE_KEY);
        }
    }
    Ok(all)
}

fn nested<'a>(all: &mut Touched<'a>, inner: &'a pb::TxnRequest) -> Result<(), Status> {
    let success = touched(&inner.success)?;
    let failure = touched(&inner.failure)?;
    let puts: BTreeSet<_> = success.puts.union(&failure.puts).copied().collect();
    for &key in &puts {
        if all.deletes.contain(key) || !all.puts.insert(key) {
            return Err(status::DUPLICATE_KEY);
        }
    }
    all.deletes.absorb(success.deletes);
    all.deletes.absorb(failure.deletes);
    Ok(())
}

/// A set of keys as disjoint intervals, first key → end.
#[derive(Default)]
struct Deletes<'a>(BTreeMap<&'a [u8], End<'a>>);

/// Where an interval ends: before `key`, or with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct End<'a> {
    key: &'a [u8],
    included: bool,
}

impl End<'_> {
    fn reaches(self, key: &[u8]) -> bool {
        key < self.key || (self.included && key == self.key)
    }
}

impl<'a> Deletes<'a> {
    /// An `end` of one zero byte is taken as it stands, not as "no end". No key lies before it, so
    /// such a deletion collides with nothing (sic).
    fn insert(&mut self, from: &'a [u8], end: &'a [u8]) {
        let end = match end {
            [] => End { key: from, included: true },
            _ => End { key: end, included: false },
        };
        if end.reaches(from) {
            self.join(from, end);
        }
    }

    fn absorb(&mut self, other: Self) {
        other.0.into_iter().for_each(|(from, end)| self.join(from, end));
    }

    /// Adds an interval that is not empty, together with all that it overlaps.
    fn join(&mut self, mut from: &'a [u8], mut end: End<'a>) {
        if let Some((before, reach)) = self.last_from(from)
            && reach.reaches(from)
        {
            (from, end) = (before, end.max(reach));
        }
        while let Some((&next, &reach)) = self.0.range(from..).next()
            && end.reaches(next)
        {
            self.0.remove(next);
            end = end.max(reach);
        }
        self.0.insert(from, end);
    }

    fn contain(&self, key: &'a [u8]) -> bool {
        self.last_from(key).is_some_and(|(_, end)| end.reaches(key))
    }

    fn last_from(&self, key: &'a [u8]) -> Option<(&'a [u8], End<'a>)> {
        self.0.range(..=key).next_back().map(|(&from, &end)| (from, end))
    }
}
