//! Judges a history: whether a cluster did what etcd promises, exactly, in O(n log n).
//!
//! Revisions make it possible: a write says in its answer where it stands among all writes, and a
//! read behind which write it stands. So nothing is searched for:
//!
//! ```text
//!   position    write at revision R ──▶ 2R           read at header revision R ──▶ 2R + 1
//!   content     replay all positions in order against the model: every answer is what it says,
//!               every event is what the write did                            [`replay`]
//!   real time   nothing stands before what had been answered when it was asked    [`order`]
//!   unknown     who was never answered may stand where the watch shows a write that nobody else
//!               claims, above what had been answered when he asked            [`replay`]
//!   watches     every stream was told the same events, in order, none missing [`truth`]
//!   leases      no key is gone before its last acknowledged renewal and the time to live after it
//! ```
//!
//! A serializable read may be old; it must be true of the revision it names, and whoever asks
//! after it must not be shown less, for what one member has applied is committed. What was refused
//! must not have happened.
//!
//! The history begins on an empty cluster, all keys that are written are the history's, and nothing
//! is compacted.

#[path = "../../../tests/sim/model.rs"]
#[allow(missing_docs, dead_code, reason = "the model speaks etcd's own words, and knows more")]
mod model;
mod op;
mod order;
mod replay;
mod truth;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use crate::history::Record;
use op::Op;

/// Broken promises told of one history; the first is the one to look at.
const TOLD_MAX: usize = 20;

/// Of a history without fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Questions by kind and outcome: `put`, `put unknown`, `put refused`.
    pub counts: BTreeMap<String, u64>,
    /// The last revision.
    pub revision: i64,
    /// Writes of which nobody was told and that happened.
    pub unknown_happened: u64,
    /// Deletions because a lease ran out.
    pub expired: u64,
    /// Watch streams.
    pub streams: usize,
    /// Events on all of them.
    pub events: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, unknown_happened, expired, streams, events, .. } = self;
        write!(f, "revision {revision}; {streams} watch streams with {events} events; ")?;
        write!(
            f,
            "{unknown_happened} unknown writes happened; {expired} leases ran out with keys;"
        )?;
        for (what, count) in &self.counts {
            write!(f, " {what} {count};")?;
        }
        Ok(())
    }
}

/// Promises that were broken, at most twenty of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(Vec<String>);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// What was found so far.
#[derive(Default)]
struct Findings {
    broken: Vec<String>,
    summary: Summary,
}

impl Findings {
    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.broken.len() < TOLD_MAX {
            self.broken.push(what());
        }
    }
}

/// Judges a history.
///
/// # Errors
/// Every promise that was broken, up to a number worth reading.
pub fn judge(records: &[Record]) -> Result<Summary, Broken> {
    let mut found = Findings::default();
    let (ops, streams) = match op::read(records) {
        Ok(parts) => parts,
        Err(unreadable) => return Err(Broken(vec![unreadable])),
    };
    for op in &ops {
        *found.summary.counts.entry(op.outcome_name()).or_default() += 1;
    }
    let truth = truth::agree(&streams, &mut found);
    let seen = order::Seen::of(&ops, &streams);
    let positions = replay::replay(&ops, &truth, &seen, &mut found);
    order::check(&ops, &positions, &seen, &mut found);
    match found.broken.is_empty() {
        true => Ok(found.summary),
        false => Err(Broken(found.broken)),
    }
}
