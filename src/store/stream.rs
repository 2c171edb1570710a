//! A range in parts (`KV.RangeStream`, etcd 3.7): one pinned revision, one part at a time.
//!
//! The first part holds ten key-values; a part smaller than half the target size doubles the next,
//! one larger than twice the target halves it. Only the last part carries header, `more` and
//! `count`. The view is pinned with the stream, so a compaction meanwhile does not tear it.

use bytes::Bytes;

use super::{
    command::Range,
    outcome::Refusal,
    range::{self, RangeOutcome},
};
use crate::{limits::STREAM_FIRST_KEYS, tree::Reader, types::Revision};

/// How far a streamed range has come.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The rest to read, with the next part's limit.
    query: Range,
    /// Most key-values in all.
    total: i64,
    sent: i64,
    revision: Revision,
    target_bytes: usize,
    done: bool,
}

/// One part of the stream.
pub struct Part<'a> {
    /// Its key-values.
    pub outcome: RangeOutcome<'a>,
    /// Set on the last part: header revision, `more` and `count` of the whole.
    pub last: Option<Last>,
}

/// What the last part says of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// The revision that was current when the stream began.
    pub revision: Revision,
    /// Whether the limit cut something off.
    pub more: bool,
    /// Keys in the interval, whatever the limit.
    pub count: i64,
}

impl Stream {
    /// A stream of `query`'s answer as of `current`, in parts of about `target_bytes`.
    pub fn new(mut query: Range, current: Revision, target_bytes: usize) -> Self {
        let total = if query.limit == 0 { i64::MAX } else { query.limit };
        query.limit = STREAM_FIRST_KEYS.min(total);
        if query.revision == Revision(0) {
            query.revision = current;
        }
        Self { query, total, sent: 0, revision: current, target_bytes, done: false }
    }

    /// The next part, or `None` after the last. `reader` is that of the view the stream began with.
    ///
    /// # Errors
    /// As [`range::range`], on the first part only.
    pub fn next<'a>(&mut self, reader: Reader<'a>) -> Result<Option<Part<'a>>, Refusal> {
        if self.done {
            return Ok(None);
        }
        let (outcome, counted) = range::part(reader, self.revision, &self.query)?;
        let before = self.sent;
        self.sent += outcome.found().len() as i64;
        let last_key = outcome.found().last().map(|found| found.key).filter(|_| outcome.more);
        self.done = last_key.is_none() || self.sent == self.total;
        if let Some(key) = last_key {
            self.query.key = successor(key);
            self.query.limit = self.next_limit(outcome.encoded_len()).min(self.total - self.sent);
        }
        let last = self.done.then(|| Last {
            revision: self.revision,
            more: outcome.more,
            count: if counted { before + outcome.count } else { self.sent + self.rest(reader) },
        });
        Ok(Some(Part { outcome, last }))
    }

    /// Keys after the part's last. Where a part is sorted by anything but its keys (a target without
    /// an order is), that is not the number of keys left: etcd pages and counts the same way. The
    /// revision was readable when the part was read.
    fn rest(&self, reader: Reader<'_>) -> i64 {
        range::count(reader, self.revision, &self.query).unwrap_or(0)
    }

    fn next_limit(&self, part_bytes: usize) -> i64 {
        let limit = self.query.limit;
        if part_bytes < self.target_bytes / 2 {
            limit.saturating_mul(2)
        } else if part_bytes > self.target_bytes * 2 {
            (limit / 2).max(1)
        } else {
            limit
        }
    }
}

/// The smallest key after `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}
