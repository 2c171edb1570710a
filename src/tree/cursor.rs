//! Walk down, walk along: how a state of the map is read, the writer's own or a view's.

use super::{
    KeyRange, node,
    page::{Count, Page},
};

/// Reads one state of a [`Map`](super::Map). Copies are free.
#[derive(Clone, Copy)]
pub struct MapReader<'a> {
    root: Page<'a>,
    count: Count,
}

/// Walks over cells in ascending key order: each item is a key and its cell, live or not.
pub struct Cursor<'a> {
    /// The branches above the leaf, the root first, with the next child to visit in each.
    above: Vec<(Page<'a>, usize)>,
    leaf: Page<'a>,
    len: usize,
    at: usize,
}

impl<'a> MapReader<'a> {
    pub(super) fn new(root: Page<'a>, count: Count) -> Self {
        Self { root, count }
    }

    /// The cell of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        let mut page = self.root;
        while page.level() > 0 {
            page = node::child(page, page.child_for(key));
        }
        page.find(key).map(|at| page.body(at))
    }

    /// Number of live cells with a key smaller than `key`: one walk down, whatever the number.
    pub fn live_before(&self, key: &[u8]) -> u64 {
        let mut page = self.root;
        let mut live = 0;
        while page.level() > 0 {
            let at = page.child_for(key);
            live += page.count_before(at).live;
            page = node::child(page, at);
        }
        let (Ok(at) | Err(at)) = page.position(key);
        live + page.count_before(at).live
    }

    /// Whether the first `cells` live cells of `range` can be read without waiting for the disk, and what
    /// `look` says of each.
    pub(super) fn is_at_hand(
        &self,
        range: &KeyRange<'_>,
        mut cells: usize,
        look: &mut impl FnMut(&[u8]) -> bool,
    ) -> bool {
        below_at_hand(self.root, range, &mut cells, look)
    }

    /// Number of live cells.
    pub fn live(&self) -> u64 {
        self.count.live
    }

    /// Number of cells.
    #[cfg(test)]
    pub fn len(&self) -> u64 {
        self.count.cells
    }

    /// Whether there is no cell.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.count.cells == 0
    }

    /// A cursor at the first cell whose key is `key` or larger.
    pub fn seek(&self, key: &[u8]) -> Cursor<'a> {
        let mut above = Vec::new();
        let mut page = self.root;
        while page.level() > 0 {
            let at = page.child_for(key);
            above.push((page, at + 1));
            page = node::child(page, at);
        }
        let (Ok(at) | Err(at)) = page.position(key);
        Cursor { above, leaf: page, len: page.len(), at }
    }
}

fn below_at_hand(
    page: Page<'_>,
    range: &KeyRange<'_>,
    cells: &mut usize,
    look: &mut impl FnMut(&[u8]) -> bool,
) -> bool {
    let is_behind = |key: &[u8]| range.to.is_some_and(|to| key >= to);
    if page.level() == 0 {
        let (Ok(first) | Err(first)) = page.position(range.from);
        for at in first..page.len() {
            if *cells == 0 || is_behind(page.key(at)) {
                return true;
            }
            *cells -= usize::from(page.is_live(at));
            if page.is_live(at) && !look(page.body(at)) {
                return false;
            }
        }
        return true;
    }
    let first = page.child_for(range.from);
    (first..page.len()).all(|at| {
        let done = *cells == 0 || at > first && is_behind(page.key(at));
        done || node::is_child_at_hand(page, at)
            && below_at_hand(node::child(page, at), range, cells, look)
    })
}

impl<'a> Cursor<'a> {
    /// Goes to the first cell of the next leaf; false at the end of the map.
    fn next_leaf(&mut self) -> bool {
        while let Some((branch, next)) = self.above.last_mut() {
            if *next == branch.len() {
                self.above.pop();
                continue;
            }
            let mut page = node::child(*branch, *next);
            *next += 1;
            while page.level() > 0 {
                self.above.push((page, 1));
                page = node::child(page, 0);
            }
            (self.leaf, self.len, self.at) = (page, page.len(), 0);
            self.prefetch_next_leaf();
            return true;
        }
        false
    }

    /// A cursor that has crossed one leaf is likely to cross the next.
    fn prefetch_next_leaf(&self) {
        if let Some(&(branch, next)) = self.above.last()
            && next < branch.len()
        {
            node::prefetch(branch, next);
        }
    }
}

impl<'a> Iterator for Cursor<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at == self.len {
            if !self.next_leaf() {
                return None;
            }
        }
        let item = self.leaf.key_and_body(self.at);
        self.at += 1;
        Some(item)
    }
}
