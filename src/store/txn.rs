//! Transactions: which branch, whether it may run, then one operation after the other.
//!
//! etcd's order, which is visible (`txn/txn.go`): all compares, those of nested transactions
//! included, are decided first against the state before the transaction; then the operations of
//! the branches taken are checked against that state too, and one no refuses the whole; only then
//! does anything change. The branches taken are a flat list in the order they are met:
//!
//! ```text
//! txn A { txn B { txn C } , txn D }      path = [ A, B, C, D ]
//! ```

use std::slice::Iter;

use super::{
    command::{Against, Compare, Op, Put, Range, Relation, Txn},
    lease::Leases,
    outcome::{OpDone, Outcome, RangeDone, Refusal, TxnDone},
    range,
    write::Writing,
};
use crate::{
    tree::{Found, Reader},
    types::{LeaseId, Revision},
};

/// Which branch each transaction takes, outermost first.
type Path = Vec<bool>;

impl Txn {
    /// Whether both branches only read, so that no log is needed. A nested transaction counts as a
    /// write, whatever is in it (etcd `IsTxnReadonly`).
    pub fn is_read_only(&self) -> bool {
        self.ops().all(|op| matches!(op, Op::Range(_)))
    }

    /// Whether it only reads, and a local read will do for each.
    pub fn is_serializable(&self) -> bool {
        self.ops().all(|op| matches!(op, Op::Range(range) if range.serializable))
    }

    fn ops(&self) -> impl Iterator<Item = &Op> {
        self.success.iter().chain(&self.failure)
    }

    fn branch(&self, succeeded: bool) -> &[Op] {
        if succeeded { &self.success } else { &self.failure }
    }
}

/// Runs `txn` as the next revision.
pub(super) fn apply(writing: &mut Writing<'_>, txn: &Txn) -> Outcome {
    let path = match decide(writing.leases(), writing.revision(), txn) {
        Ok(path) => path,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    let mut done = run(writing, txn, &mut path.iter());
    done.revision = writing.revision();
    Outcome::Txn(done)
}

/// Answers a transaction that only reads (see [`Txn::is_read_only`]).
///
/// # Errors
/// A range's revision that is compacted or in the future.
pub fn read(leases: Leases<'_>, current: Revision, txn: &Txn) -> Result<TxnDone, Refusal> {
    let reader = leases.reader();
    let succeeded = decide(leases, current, txn)?[0];
    let mut responses = Vec::with_capacity(txn.branch(succeeded).len());
    for op in txn.branch(succeeded) {
        let Op::Range(query) = op else { unreachable!("the caller checked that it only reads") };
        responses.push(OpDone::Range(ranged(reader, current, query)?));
    }
    Ok(TxnDone { revision: current, succeeded, responses })
}

fn ranged(reader: Reader<'_>, current: Revision, query: &Range) -> Result<RangeDone, Refusal> {
    let outcome = range::range(reader, current, query)?;
    let mut body = Vec::with_capacity(outcome.encoded_len());
    outcome.encode(&mut body);
    Ok(RangeDone { revision: outcome.revision, body: body.into() })
}

/// All compares, then all checks, against the state before the transaction.
fn decide(leases: Leases<'_>, current: Revision, txn: &Txn) -> Result<Path, Refusal> {
    let mut path = Path::new();
    choose(leases.reader(), current, txn, &mut path);
    check(leases, current, txn, &mut path.iter())?;
    Ok(path)
}

fn choose(reader: Reader<'_>, current: Revision, txn: &Txn, path: &mut Path) {
    let succeeded = txn.compares.iter().all(|compare| holds(reader, current, compare));
    path.push(succeeded);
    for op in txn.branch(succeeded) {
        if let Op::Txn(inner) = op {
            choose(reader, current, inner, path);
        }
    }
}

fn next(path: &mut Iter<'_, bool>) -> bool {
    *path.next().expect("the path was chosen over the same transaction")
}

fn check(
    leases: Leases<'_>,
    current: Revision,
    txn: &Txn,
    path: &mut Iter<'_, bool>,
) -> Result<(), Refusal> {
    for op in txn.branch(next(path)) {
        match op {
            Op::Range(query) => check_range(leases.reader(), current, query)?,
            Op::Put(put) => check_put(leases, put)?,
            Op::Txn(inner) => check(leases, current, inner, path)?,
            Op::DeleteRange(_) | Op::Nothing => {}
        }
    }
    Ok(())
}

/// Unlike a range of its own, a negative revision is not "now" here: it is older than everything.
fn check_range(reader: Reader<'_>, current: Revision, query: &Range) -> Result<(), Refusal> {
    match query.revision {
        Revision(0) => Ok(()),
        at if at > current => Err(Refusal::FutureRevision),
        at if at < reader.compacted() => Err(Refusal::Compacted),
        _ => Ok(()),
    }
}

/// The lease first, then the key (etcd `checkPut`).
pub(super) fn check_put(leases: Leases<'_>, put: &Put) -> Result<(), Refusal> {
    if put.lease != LeaseId(0) && leases.get(put.lease).is_none() {
        return Err(Refusal::LeaseNotFound);
    }
    let keeps = put.ignore_value || put.ignore_lease;
    if keeps && leases.reader().meta(&put.key).is_none() {
        return Err(Refusal::KeyNotFound);
    }
    Ok(())
}

fn run(writing: &mut Writing<'_>, txn: &Txn, path: &mut Iter<'_, bool>) -> TxnDone {
    let succeeded = next(path);
    let ops = txn.branch(succeeded);
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        responses.push(match op {
            Op::Range(query) => {
                let done = ranged(writing.reader(), writing.revision(), query);
                OpDone::Range(
                    done.expect("the range's revision was checked before the first write"),
                )
            }
            Op::Put(put) => OpDone::Put(writing.put(put)),
            Op::DeleteRange(delete) => OpDone::Deleted(writing.delete_range(delete)),
            Op::Txn(inner) => OpDone::Txn(run(writing, inner, path)),
            Op::Nothing => OpDone::Nothing,
        });
    }
    TxnDone { revision: Revision(0), succeeded, responses }
}

/// For a range: every key in it must hold. No key at all counts as one missing key.
fn holds(reader: Reader<'_>, current: Revision, compare: &Compare) -> bool {
    let one = |found: Found<'_>| relates(compare, Some(found));
    if compare.end.is_empty() {
        return relates(compare, reader.newest(&compare.key));
    }
    let mut found = reader.scan(&range::interval(&compare.key, &compare.end), current).peekable();
    if found.peek().is_none() { relates(compare, None) } else { found.all(one) }
}

fn relates(compare: &Compare, found: Option<Found<'_>>) -> bool {
    let meta = found.as_ref().map(|found| found.meta);
    let order = match &compare.against {
        Against::Value(value) => match &found {
            Some(found) => found.value().cmp(value),
            // A missing value equals nothing and differs from nothing.
            None => return false,
        },
        Against::Version(n) => meta.map_or(0, |m| m.version).cmp(n),
        Against::Create(n) => meta.map_or(0, |m| m.create.0).cmp(n),
        Against::Mod(n) => meta.map_or(0, |m| m.modified.main.0).cmp(n),
        Against::Lease(n) => meta.map_or(0, |m| m.lease.0).cmp(n),
        Against::Unknown => std::cmp::Ordering::Equal,
    };
    match compare.relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
        Relation::Unknown => true,
    }
}
