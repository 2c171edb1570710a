//! Real time: nothing stands before what had been answered when it was asked.

use std::collections::BTreeMap;

use super::{
    Findings, Op,
    op::{Response, Stream},
};

/// Where an operation stands: a write at revision R at 2R, a read behind it at 2R + 1.
pub(super) type Position = i64;

/// Of a write at a revision.
pub(super) fn write_at(revision: i64) -> Position {
    2 * revision
}

/// Of a read behind a revision.
pub(super) fn read_at(revision: i64) -> Position {
    2 * revision + 1
}

/// How far the cluster was known to be, and since when: rises in both.
pub(super) struct Seen(Vec<(u64, Position, String)>);

impl Seen {
    /// By all answers and all that watches were told. What a member has applied is committed, so a
    /// serializable read shows it to everybody who asks later; so does an event.
    pub(super) fn of(ops: &[Op], streams: &BTreeMap<u32, Stream>) -> Self {
        let answers = ops.iter().enumerate().filter_map(|(at, op)| {
            let position = of_answer(op.said()?)?;
            Some((op.answered, position, Source::Op(at)))
        });
        let told = streams.iter().flat_map(|(stream, Stream { told, .. })| {
            told.iter().filter_map(|(when, _, events)| {
                let last = events.last()?.kv.as_ref()?.mod_revision;
                Some((*when, write_at(last), Source::Stream(*stream)))
            })
        });
        let mut all: Vec<_> = answers.chain(told).collect();
        all.sort_by_key(|(when, position, _)| (*when, *position));
        let mut rising: Vec<(u64, Position, String)> = Vec::new();
        for (when, position, source) in all {
            if rising.last().is_none_or(|(_, highest, _)| position > *highest) {
                rising.push((when, position, source.name(ops)));
            }
        }
        Self(rising)
    }

    /// The highest position known before this time, and by whom.
    pub(super) fn before(&self, time: u64) -> (Position, &str) {
        let known = self.0.partition_point(|(when, ..)| *when < time);
        known.checked_sub(1).map_or((0, ""), |at| (self.0[at].1, &self.0[at].2))
    }

    /// When this position was first known to be reached.
    pub(super) fn since(&self, position: Position) -> Option<u64> {
        let at = self.0.partition_point(|(_, known, _)| *known < position);
        self.0.get(at).map(|(when, ..)| *when)
    }
}

enum Source {
    Op(usize),
    Stream(u32),
}

impl Source {
    fn name(&self, ops: &[Op]) -> String {
        match self {
            Self::Op(at) => ops[*at].to_string(),
            Self::Stream(stream) => format!("watch stream {stream}"),
        }
    }
}

/// Where an answer says that it stands.
pub(super) fn of_answer(response: &Response) -> Option<Position> {
    match response {
        // Says what its member had applied, and nothing of when it was made.
        Response::Renew(_) => None,
        // Its own revision or a later one: at least this far.
        Response::Revoke(r) => Some(write_at(r.header?.revision)),
        response if response.wrote() => Some(write_at(response.revision())),
        response => Some(read_at(response.revision())),
    }
}

/// Every operation that stands somewhere stands behind all that had been answered when it was asked.
pub(super) fn check(ops: &[Op], positions: &[Option<Position>], seen: &Seen, found: &mut Findings) {
    for (op, position) in ops.iter().zip(positions) {
        let Some(position) = *position else { continue };
        if op.serializable() {
            continue;
        }
        let (floor, who) = seen.before(op.asked);
        let is_write = position % 2 == 0;
        if position < floor || is_write && position == floor {
            let what = if is_write { "is written before" } else { "reads what was before" };
            found.say(|| format!("{op}\n  {what} what had been answered when it was asked: {who}"));
        }
    }
}
