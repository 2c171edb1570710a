//! Reading an interval of keys at a revision, with every option of etcd's `RangeRequest`.
//!
//! ```text
//! count        every key of the interval, whatever limit and filters say
//! filter       by revisions of creation and change
//! sort         by target and order
//! limit        `more` when something was cut off here
//! ```
//!
//! Three things to know (etcd `txn/range.go`, 3.7): without an order but with a target other than
//! the key, the limit cuts first, by key, and what is left is then sorted ascending; a sort or a
//! filter reads the whole interval; and `keys_only` drops the lease with the value, unless sorting
//! by value made it read the value after all.
//!
//! Results borrow the stored `KeyValue` bytes and are spliced into the response as they are.

use prost::encoding::{encode_varint, encoded_len_varint};

use super::{
    command::{Order, Range, Target},
    outcome::Refusal,
};
use crate::{
    tree::{Found, KeyMeta, KeyRange, Reader},
    types::Revision,
};

/// What a range found; borrows the stored bytes.
pub struct RangeOutcome<'a> {
    /// The current revision, not the one asked for.
    pub revision: Revision,
    /// Keys in the interval, whatever the limit and the filters.
    pub count: i64,
    /// Whether the limit cut something off.
    pub more: bool,
    kvs: Kvs<'a>,
    form: Form,
}

enum Kvs<'a> {
    /// A point read needs no list.
    One(Option<Found<'a>>),
    Many(Vec<Found<'a>>),
}

/// Which fields of a `KeyValue` are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    /// All but value and lease: no record is touched.
    KeyOnly,
    /// All but the value.
    KeyAndLease,
}

/// The half-open interval that etcd's `key` and `range_end` mean.
pub fn interval<'a>(key: &'a [u8], end: &'a [u8]) -> KeyRange<'a> {
    match end {
        [0] => KeyRange { from: key, to: None },
        _ => KeyRange { from: key, to: Some(end) },
    }
}

/// Answers `query` from `reader`, where `current` is the newest revision.
///
/// # Errors
/// [`Refusal::FutureRevision`] and [`Refusal::Compacted`].
pub fn range<'a>(
    reader: Reader<'a>,
    current: Revision,
    query: &Range,
) -> Result<RangeOutcome<'a>, Refusal> {
    let (mut outcome, counted) = part(reader, current, query)?;
    if !counted {
        outcome.count = count(reader, current, query)?;
    }
    Ok(outcome)
}

/// Only the number of keys in the interval.
///
/// # Errors
/// As [`range`].
pub fn count(reader: Reader<'_>, current: Revision, query: &Range) -> Result<i64, Refusal> {
    let at = readable(reader, current, query.revision)?;
    Ok(reader.count(&interval(&query.key, &query.end), at) as i64)
}

/// As [`range`], with `true`; or, where the limit cut the reading short, `false` and a count that
/// says nothing.
pub(super) fn part<'a>(
    reader: Reader<'a>,
    current: Revision,
    query: &Range,
) -> Result<(RangeOutcome<'a>, bool), Refusal> {
    let at = readable(reader, current, query.revision)?;
    let form = Form::of(query);
    let outcome = |count, more, kvs| RangeOutcome { revision: current, count, more, kvs, form };
    if query.end.is_empty() {
        let found = point(reader, current, at, query);
        let count = i64::from(found.is_some());
        let kept = found.filter(|f| !query.count_only && query.keeps(&f.meta));
        return Ok((outcome(count, false, Kvs::One(kept)), true));
    }
    if query.count_only {
        return Ok((outcome(0, false, Kvs::One(None)), false));
    }
    let keys = interval(&query.key, &query.end);
    let mut found: Vec<Found<'a>> = reader.scan(&keys, at).take(query.read_limit()).collect();
    let (count, counted) = (found.len() as i64, found.len() < query.read_limit());
    found.retain(|f| query.keeps(&f.meta));
    sort(&mut found, query);
    let more = query.limit > 0 && found.len() as u64 > query.limit as u64;
    if more {
        found.truncate(query.limit as usize);
    }
    Ok((outcome(count, more, Kvs::Many(found)), counted))
}

fn point<'a>(
    reader: Reader<'a>,
    current: Revision,
    at: Revision,
    query: &Range,
) -> Option<Found<'a>> {
    if at == current { reader.newest(&query.key) } else { reader.get(&query.key, at) }
}

/// The revision to read at.
fn readable(reader: Reader<'_>, current: Revision, asked: Revision) -> Result<Revision, Refusal> {
    if asked > current {
        return Err(Refusal::FutureRevision);
    }
    let at = if asked <= Revision(0) { current } else { asked };
    if at < reader.compacted() { Err(Refusal::Compacted) } else { Ok(at) }
}

impl Range {
    /// Whether the keys' own order serves and the limit may cut while reading.
    pub fn is_default_order(&self) -> bool {
        self.order == Order::None || (self.target == Target::Key && self.order == Order::Ascend)
    }

    /// Whether any filter by revision is on.
    pub fn has_filters(&self) -> bool {
        [self.min_mod, self.max_mod, self.min_create, self.max_create].iter().any(|&n| n != 0)
    }

    /// Keys to read: one more than asked for, to know whether there are more.
    fn read_limit(&self) -> usize {
        if self.limit <= 0 || !self.is_default_order() || self.has_filters() {
            return usize::MAX;
        }
        (self.limit as usize).saturating_add(1)
    }

    fn keeps(&self, meta: &KeyMeta) -> bool {
        let (modified, created) = (meta.modified.main.0, meta.create.0);
        (self.max_mod == 0 || modified <= self.max_mod)
            && (self.min_mod == 0 || modified >= self.min_mod)
            && (self.max_create == 0 || created <= self.max_create)
            && (self.min_create == 0 || created >= self.min_create)
    }
}

/// Ties keep the order of the keys; etcd's sort leaves them anyhow.
fn sort(found: &mut [Found<'_>], query: &Range) {
    let ascending = match (query.order, query.target) {
        (Order::None | Order::Ascend, Target::Key) => return,
        (Order::None | Order::Ascend, _) => true,
        (Order::Descend, _) => false,
    };
    let by = |a: &Found<'_>, b: &Found<'_>| match query.target {
        Target::Key => a.key.cmp(b.key),
        Target::Version => a.meta.version.cmp(&b.meta.version),
        Target::Create => a.meta.create.cmp(&b.meta.create),
        Target::Mod => a.meta.modified.main.cmp(&b.meta.modified.main),
        Target::Value => a.value().cmp(b.value()),
    };
    if ascending { found.sort_by(by) } else { found.sort_by(|a, b| by(b, a)) }
}

impl Form {
    fn of(query: &Range) -> Self {
        match (query.keys_only, query.target) {
            (false, _) => Self::Whole,
            (true, Target::Value) => Self::KeyAndLease,
            (true, _) => Self::KeyOnly,
        }
    }

    fn len(self, found: &Found<'_>) -> usize {
        match self {
            Self::Whole => found.kv().len(),
            _ => meta_len(found, self == Self::KeyAndLease),
        }
    }

    fn write(self, found: &Found<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Whole => out.extend_from_slice(found.kv()),
            _ => write_meta(found, self == Self::KeyAndLease, out),
        }
    }
}

fn numbers(found: &Found<'_>, with_lease: bool) -> [(u8, i64); 4] {
    let meta = &found.meta;
    let lease = if with_lease { meta.lease.0 } else { 0 };
    [(0x10, meta.create.0), (0x18, meta.modified.main.0), (0x20, meta.version), (0x30, lease)]
}

/// Bytes of a `KeyValue` without its value.
fn meta_len(found: &Found<'_>, with_lease: bool) -> usize {
    let key = 1 + encoded_len_varint(found.key.len() as u64) + found.key.len();
    let numbers = numbers(found, with_lease).into_iter().filter(|&(_, n)| n != 0);
    key + numbers.map(|(_, n)| 1 + encoded_len_varint(n as u64)).sum::<usize>()
}

/// A `KeyValue` without its value: field 1, then 2, 3, 4 and 6 where not zero.
fn write_meta(found: &Found<'_>, with_lease: bool, out: &mut Vec<u8>) {
    out.push(0x0a);
    encode_varint(found.key.len() as u64, out);
    out.extend_from_slice(found.key);
    for (tag, n) in numbers(found, with_lease) {
        if n != 0 {
            out.push(tag);
            encode_varint(n as u64, out);
        }
    }
}

impl<'a> RangeOutcome<'a> {
    /// What was found, in answer order.
    pub fn found(&self) -> &[Found<'a>] {
        match &self.kvs {
            Kvs::One(one) => one.as_slice(),
            Kvs::Many(many) => many,
        }
    }

    /// Bytes of [`RangeOutcome::encode`].
    pub fn encoded_len(&self) -> usize {
        let kv = |found| {
            let len = self.form.len(found);
            1 + encoded_len_varint(len as u64) + len
        };
        let count = if self.count == 0 { 0 } else { 1 + encoded_len_varint(self.count as u64) };
        self.found().iter().map(kv).sum::<usize>() + usize::from(self.more) * 2 + count
    }

    /// Appends the fields of a `RangeResponse` after its header: `kvs`, `more`, `count`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_kvs(out);
        encode_tail(self.more, self.count, out);
    }

    /// Appends the field `kvs`.
    pub fn encode_kvs(&self, out: &mut Vec<u8>) {
        for found in self.found() {
            out.push(0x12);
            encode_varint(self.form.len(found) as u64, out);
            self.form.write(found, out);
        }
    }
}

/// Appends the fields `more` and `count` of a `RangeResponse`.
pub fn encode_tail(more: bool, count: i64, out: &mut Vec<u8>) {
    if more {
        out.extend_from_slice(&[0x18, 1]);
    }
    if count != 0 {
        out.push(0x20);
        encode_varint(count as u64, out);
    }
}
