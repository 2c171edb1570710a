//! What a checksum came to at each of the newest compactions, remembered as etcd remembers it
//! (`mvcc/hash.go`, `HashStorage`), in memory only: by it members compare what they compacted, also
//! once it is gone.
//!
//! ```text
//!   compact at C ──▶ Due: a view of just before ── steps, a piece a turn ──▶ Made: three numbers
//! ```
//!
//! Which sums there are follows from the entries that were applied since the start, and from nothing
//! else: where one is still due, whoever is asked for it makes it from the view that waits here. So
//! members agree however far each has come. The pieces are there to let go of the view soon, for it
//! holds on to the memory of what compaction takes.

use super::{Hash, Hashing, View};
use crate::{limits::COMPACTION_SUMS_MAX, tree, types::Revision};
use std::sync::Arc;

/// The sum of one compaction.
#[derive(Clone)]
pub(super) enum Sum {
    /// It is known.
    Made(Hash),
    /// It can be made, from here.
    Due(Hashing),
}

impl Sum {
    fn revision(&self) -> Revision {
        match self {
            Self::Made(hash) => hash.revision,
            Self::Due(hashing) => hashing.revision(),
        }
    }

    /// Work that ends with it; none where it is known. `view` is any.
    pub(super) fn hashing(&self, view: &View) -> Hashing {
        match self {
            Self::Made(hash) => Hashing::made(*hash, view.tree.clone()),
            Self::Due(hashing) => hashing.clone(),
        }
    }
}

/// Those of the newest compactions, in their order.
#[derive(Clone, Default)]
pub(super) struct Newest(Vec<Sum>);

impl Newest {
    /// The sum of the compaction at `revision`.
    pub(super) fn of(&self, revision: Revision) -> Option<&Sum> {
        self.0.iter().find(|sum| sum.revision() == revision)
    }

    fn first_due(&self) -> Option<&Hashing> {
        self.0.iter().find_map(|sum| match sum {
            Sum::Made(_) => None,
            Sum::Due(hashing) => Some(hashing),
        })
    }
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Sums {
    newest: Arc<Newest>,
    /// The first that is due, as far as it has come.
    making: Option<Hashing>,
}

impl Sums {
    /// There is a compaction at `revision`; `before` are the keys just before it. The oldest sum is
    /// forgotten for it, made or not.
    pub(super) fn note(&mut self, revision: Revision, before: tree::View) {
        let sums = &mut Arc::make_mut(&mut self.newest).0;
        if sums.len() == COMPACTION_SUMS_MAX {
            let forgotten = sums.remove(0).revision();
            self.making.take_if(|making| making.revision() == forgotten);
        }
        sums.push(Sum::Due(Hashing::of_compaction(revision, before)));
    }

    /// Does a bounded piece of what is due. True when that made a sum, of which views do not know
    /// yet.
    pub(super) fn step(&mut self) -> bool {
        let making = self.making.take().or_else(|| self.newest.first_due().cloned());
        let Some(mut making) = making else { return false };
        if making.step() {
            self.making = Some(making);
            return false;
        }
        let made = making.finish();
        let mut sums = Arc::make_mut(&mut self.newest).0.iter_mut();
        let due = sums.find(|sum| sum.revision() == made.revision);
        *due.expect("what is forgotten is not made any more") = Sum::Made(made);
        true
    }

    /// Whether anything is due.
    pub(super) fn has_more(&self) -> bool {
        self.newest.first_due().is_some()
    }

    /// What a view shows.
    pub(super) fn publish(&self) -> Arc<Newest> {
        Arc::clone(&self.newest)
    }
}
