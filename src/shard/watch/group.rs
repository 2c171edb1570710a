//! Watchers that want the same: each event is gathered once for all of them.

use super::{
    index::{Index, Span},
    slab::Slab,
};
use crate::api::watch::Wish;
use std::ops;

/// No group, chunk or run.
pub(super) const NONE: u32 = u32::MAX;

/// All watchers of the same keys with the same wish.
pub(super) struct Group {
    pub(super) span: Span,
    pub(super) wish: Wish,
    /// Those that have been told everything up to the newest revision.
    pub(super) members: Vec<u32>,
    /// All of them, wherever they stand.
    watchers: usize,
    /// Another group with the same keys and another wish, or [`NONE`].
    sibling: u32,
    /// Where this turn's events are gathered, or [`NONE`].
    pub(super) chunk: u32,
    /// The first of its runs through the history, or [`NONE`] (see `history`).
    pub(super) run: u32,
}

/// All groups of a shard.
pub(super) struct Groups {
    groups: Slab<Group>,
    /// From keys to the first group of siblings.
    index: Index,
}

impl Groups {
    pub(super) fn new() -> Self {
        Self { groups: Slab::new(), index: Index::default() }
    }

    /// The group for one more watcher.
    pub(super) fn enroll(&mut self, span: Span, wish: Wish) -> u32 {
        let first = self.index.get(&span).unwrap_or(NONE);
        let mut at = first;
        while let Some(group) = self.groups.get(at) {
            if group.wish == wish {
                self.groups[at].watchers += 1;
                return at;
            }
            at = group.sibling;
        }
        let group = Group {
            span: span.clone(),
            wish,
            members: Vec::new(),
            watchers: 1,
            sibling: first,
            chunk: NONE,
            run: NONE,
        };
        let new = self.groups.insert(group);
        self.index.set(&span, new);
        new
    }

    /// One watcher of `at`, which is no member any more, is gone. The last one ends the group.
    pub(super) fn discharge(&mut self, at: u32) {
        self.groups[at].watchers -= 1;
        if self.groups[at].watchers > 0 {
            return;
        }
        let Group { span, sibling, .. } = self.groups.remove(at);
        let first = self.index.get(&span).expect("a group can be found by its keys");
        if first != at {
            let mut before = first;
            while self.groups[before].sibling != at {
                before = self.groups[before].sibling;
            }
            self.groups[before].sibling = sibling;
        } else if sibling == NONE {
            self.index.remove(&span);
        } else {
            self.index.set(&span, sibling);
        }
    }

    /// Appends all groups that watch `key`.
    pub(super) fn watching(&self, key: &[u8], found: &mut Vec<u32>) {
        self.index.stab(key, found);
        let mut at = 0;
        while at < found.len() {
            let sibling = self.groups[found[at]].sibling;
            if sibling != NONE {
                found.push(sibling);
            }
            at += 1;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }
}

impl ops::Index<u32> for Groups {
    type Output = Group;

    fn index(&self, at: u32) -> &Group {
        &self.groups[at]
    }
}

impl ops::IndexMut<u32> for Groups {
    fn index_mut(&mut self, at: u32) -> &mut Group {
        &mut self.groups[at]
    }
}
