//! The index: a copy-on-write B+tree from byte keys to byte cells, written by one core and read by
//! all.
//!
//! [`Map`] belongs to the writer. [`Map::publish`] makes a [`MapView`], an immutable state that any
//! core may read without locks for as long as it likes; the writer copies the pages that a view may
//! see before it changes them, and edits its own copies in place until the next publish. Branches
//! hold the counts of what lies below them, so a rank costs one walk down.
//!
//! A page that is full splits in the middle of its bytes; at the right edge of the tree it stays
//! full and the new entry starts the next one, so ascending keys fill their pages. A cell larger
//! than a page gets a page of its own size. Removing merges a page that is less than a quarter
//! full with a neighbour, when both together leave a quarter of a page free: enough to keep space
//! and height in proportion, and far from where the next insert would split it again.

use std::sync::Arc;

use files::{Clearing, Settling};

use super::{
    cursor::MapReader,
    heap::{Heap, Pin},
    index::{Files, IndexRoot},
    node::Block,
    page::{Child, Count, Entry, HEADER_BYTES, Link, Page, bytes_for, common_bytes, entry_bytes},
};

/// Children on each side of a split branch, at least: a branch of long keys grows instead, so that
/// the height stays logarithmic whatever the keys are.
const BRANCH_CHILDREN_MIN: usize = 2;

/// The writer's tree. It may move between cores, and one at a time may use it.
pub struct Map {
    heap: Heap,
    root: Link,
    count: Count,
    /// Whether the newest view shows less than this.
    changed: bool,
    /// Pages on their way from memory to where a checkpoint wrote them.
    settling: Option<Settling>,
    /// Pages on their way out of a file.
    clearing: Option<Clearing>,
}

/// An immutable state of a [`Map`]: cheap to clone, readable on any core, alive as long as held.
#[derive(Clone)]
pub struct MapView {
    pin: Arc<Pin>,
}

/// What an insert did to a page: where it is now, what it gained and lost, and the page that was
/// split off to its right, with the key that divides them.
struct Grown {
    link: Link,
    more: Count,
    less: Count,
    right: Option<(Vec<u8>, Child)>,
}

impl Map {
    /// An empty map with pages of `page_bytes`, rounded up to a cache line.
    pub fn new(page_bytes: usize) -> Self {
        Self::open(page_bytes, &IndexRoot::EMPTY, Files::NONE)
    }

    /// The map whose root lies there, in `files`.
    pub(super) fn open(page_bytes: usize, index: &IndexRoot, files: Files) -> Self {
        let mut heap = Heap::new(page_bytes, files);
        let root = index.root.unwrap_or_else(|| heap.adopt(heap.build(0, &[])));
        Self { heap, root, count: index.count, changed: true, settling: None, clearing: None }
    }

    /// The cell of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.reader().get(key)
    }

    /// Adds `key` with `cell`, or gives it another cell. `live` says whether ranks and counts
    /// include it.
    pub fn insert(&mut self, key: &[u8], cell: &[u8], live: bool) {
        self.changed = true;
        let grown = self.put(self.root, &Entry { key, body: cell, live }, true);
        self.count = self.count.plus(grown.more).minus(grown.less);
        self.root = match grown.right {
            None => grown.link,
            Some((key, right)) => self.raise(grown.link, &key, right),
        };
    }

    /// Removes `key`; false where it was not.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        if self.get(key).is_none() {
            return false;
        }
        self.changed = true;
        let (root, less) = self.take(self.root, key);
        self.count = self.count.minus(less);
        self.root = self.lower(root);
        true
    }

    /// An immutable view of this state. The same view again where nothing has changed since.
    pub fn publish(&mut self) -> MapView {
        if let (false, Some(pin)) = (self.changed, self.heap.newest()) {
            return MapView { pin: Arc::clone(pin) };
        }
        self.changed = false;
        MapView { pin: self.heap.publish(self.root, self.count) }
    }

    /// Reads the newest state, published or not.
    pub fn reader(&self) -> MapReader<'_> {
        MapReader::new(self.heap.page(self.root), self.count)
    }

    /// Number of cells.
    #[cfg(test)]
    pub fn cells(&self) -> u64 {
        self.count.cells
    }

    /// Number of live cells.
    #[cfg(test)]
    pub fn live(&self) -> u64 {
        self.count.live
    }

    /// Bytes of a page of the usual length.
    pub fn page_bytes(&self) -> usize {
        self.heap.page_bytes()
    }

    /// Bytes of memory in pages, those that only views still need included.
    pub fn bytes(&self) -> u64 {
        self.heap.bytes() as u64
    }

    /// Frees a bounded piece of what no view needs any more. True when there is nothing left of it.
    pub(super) fn free_unseen(&mut self) -> bool {
        self.heap.free_unseen()
    }

    /// Bytes of memory that only views need any more.
    pub(super) fn retired_bytes(&self) -> u64 {
        (self.heap.bytes() - self.heap.tree_bytes()) as u64
    }

    /// Bytes of memory that the next checkpoint would give back: pages that are in no file yet. 0 while
    /// what the last one wrote is given back.
    pub(super) fn unwritten_bytes(&self) -> u64 {
        if self.is_settling() { 0 } else { self.heap.tree_bytes() as u64 }
    }

    // ── insert ──────────────────────────────────────────────────────────────────────────────────

    /// Puts `entry` below `link`; `edge` says that nothing in the tree is right of this page.
    fn put(&mut self, link: Link, entry: &Entry<'_>, edge: bool) -> Grown {
        let link = self.heap.own(link);
        let page = self.heap.page(link);
        if page.level() == 0 {
            return self.put_in_leaf(link, entry, edge);
        }
        let at = page.child_for(entry.key);
        let child = page.child(at);
        let last = at + 1 == page.len();
        let Grown { link: below, more, less, right } = self.put(child.link, entry, edge && last);
        let split_off = right.as_ref().map_or(Count::default(), |(_, right)| right.count);
        let count = child.count.plus(more).minus(less).minus(split_off);
        self.heap.edit(link).set_child(at, Child { link: below, count });
        let Some((key, right)) = right else {
            return Grown { link, more, less, right: None };
        };
        if at == 0 {
            self.heap.edit(link).make_way(&key);
        }
        let entry = Entry { key: &key, body: &right.encode(), live: false };
        let (link, right) = self.place(link, at + 1, &entry, edge && last);
        Grown { link, more, less, right }
    }

    fn put_in_leaf(&mut self, link: Link, entry: &Entry<'_>, edge: bool) -> Grown {
        let page = self.heap.page(link);
        let more = Count::of_cell(entry.live);
        let (at, less) = match page.position(entry.key) {
            Ok(at) => (at, Count::of_cell(page.is_live(at))),
            Err(at) => (at, Count::default()),
        };
        if less.cells == 1 {
            if self.heap.edit(link).replace(at, entry.body, entry.live) {
                return Grown { link, more, less, right: None };
            }
            self.heap.edit(link).remove(at);
        }
        let (link, right) = self.place(link, at, entry, edge);
        Grown { link, more, less, right }
    }

    /// Places `entry` at `at` of an owned page: in it, in the same page packed, or in two.
    fn place(
        &mut self,
        link: Link,
        at: usize,
        entry: &Entry<'_>,
        edge: bool,
    ) -> (Link, Option<(Vec<u8>, Child)>) {
        if self.heap.edit(link).insert(at, entry) {
            return (link, None);
        }
        let page = self.heap.page(link);
        let level = page.level();
        let mut entries: Vec<_> = page.entries().collect();
        let appending = edge && at == entries.len();
        entries.insert(at, *entry);
        let cut = cut(level, &entries, self.heap.page_bytes(), appending);
        let left = self.heap.build(level, &entries[..cut]);
        let split = (cut < entries.len()).then(|| {
            let key = divider(level, entries[cut - 1].key, entries[cut].key).to_vec();
            (key, self.heap.build(level, &entries[cut..]))
        });
        self.heap.release(link);
        let right = split.map(|(key, right)| (key, self.adopt_counted(right)));
        (self.heap.adopt(left), right)
    }

    /// A root above `left` and `right`.
    fn raise(&mut self, left: Link, key: &[u8], right: Child) -> Link {
        let page = self.heap.page(left);
        // Any key up to the divider would do for the first; one like the others keeps heads useful.
        let first = &page.key(0)[..key.len().min(page.key(0).len())];
        let left = Child { link: left, count: self.count.minus(right.count) };
        let entries = [
            Entry { key: first, body: &left.encode(), live: false },
            Entry { key, body: &right.encode(), live: false },
        ];
        let root = self.heap.build(page.level() + 1, &entries);
        self.heap.adopt(root)
    }

    fn adopt_counted(&mut self, block: Block) -> Child {
        let link = self.heap.adopt(block);
        let page = self.heap.page(link);
        Child { link, count: page.count_before(page.len()) }
    }

    // ── remove ──────────────────────────────────────────────────────────────────────────────────

    /// Removes `key`, which is there, from below `link`. The page may be empty after it.
    fn take(&mut self, link: Link, key: &[u8]) -> (Link, Count) {
        let link = self.heap.own(link);
        let page = self.heap.page(link);
        if page.level() == 0 {
            let at = page.find(key).expect("the key was found before its path was copied");
            let less = Count::of_cell(page.is_live(at));
            self.heap.edit(link).remove(at);
            return (self.pack(link), less);
        }
        let at = page.child_for(key);
        let child = page.child(at);
        let (below, less) = self.take(child.link, key);
        self.heap.edit(link).set_child(at, Child { link: below, count: child.count.minus(less) });
        self.thin_out(link, at);
        (self.pack(link), less)
    }

    /// An owned page that a large entry has left, made shorter.
    fn pack(&mut self, link: Link) -> Link {
        let page = self.heap.page(link);
        let bytes = page.bytes().len();
        if bytes == self.heap.page_bytes() || page.used_bytes() > bytes / 2 {
            return link;
        }
        let entries: Vec<_> = page.entries().collect();
        let packed = self.heap.build(page.level(), &entries);
        self.heap.release(link);
        self.heap.adopt(packed)
    }

    /// After a removal below entry `at` of an owned branch: drops an empty child, merges a thin one.
    fn thin_out(&mut self, link: Link, at: usize) {
        let page = self.heap.page(link);
        let child = page.child(at).link;
        let below = self.heap.page(child);
        if below.len() == 0 {
            self.heap.edit(link).remove(at);
            self.heap.release(child);
        } else if page.len() > 1 && self.is_thin(below) {
            self.merge(link, at.min(page.len() - 2));
        }
    }

    fn is_thin(&self, page: Page<'_>) -> bool {
        let lonely = page.level() > 0 && page.len() < BRANCH_CHILDREN_MIN;
        lonely || page.used_bytes() - HEADER_BYTES < self.cell_room() / 4
    }

    /// Bytes of a page of the usual length for slots and cells.
    fn cell_room(&self) -> usize {
        self.heap.page_bytes() - HEADER_BYTES
    }

    /// Makes children `at` and `at + 1` of an owned branch one page, where that leaves room.
    fn merge(&mut self, link: Link, at: usize) {
        let page = self.heap.page(link);
        let (a, b) = (page.child(at), page.child(at + 1));
        let (left, right) = (self.heap.page(a.link), self.heap.page(b.link));
        let level = left.level();
        let mut entries: Vec<_> = left.entries().chain(right.entries()).collect();
        if level > 0 {
            // A branch's first key may be larger than what lies below; its parent knows the bound.
            entries[left.len()].key = page.key(at + 1);
        }
        let few = level > 0 && entries.len() < 2 * BRANCH_CHILDREN_MIN;
        if !few && bytes_for(level, &entries) - HEADER_BYTES > self.cell_room() / 4 * 3 {
            return;
        }
        let merged = self.heap.build(level, &entries);
        self.heap.release(a.link);
        self.heap.release(b.link);
        let merged = Child { link: self.heap.adopt(merged), count: a.count.plus(b.count) };
        self.heap.edit(link).set_child(at, merged);
        self.heap.edit(link).remove(at + 1);
    }

    /// The root without branches of a single child above it.
    fn lower(&mut self, mut root: Link) -> Link {
        loop {
            let page = self.heap.page(root);
            if page.level() == 0 || page.len() > 1 {
                return root;
            }
            let child = page.child(0).link;
            self.heap.release(root);
            root = child;
        }
    }

    /// All pages below `link` that are in memory. Below a page in a file there is none.
    fn collect(&self, link: Link, links: &mut Vec<Link>) {
        if !link.is_in_memory() {
            return;
        }
        let page = self.heap.page(link);
        if page.level() > 0 {
            (0..page.len()).for_each(|at| self.collect(page.child(at).link, links));
        }
        links.push(link);
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // What is on its way to a file is in no tree.
        while !self.settle(usize::MAX) {}
        let mut tree = Vec::new();
        self.collect(self.root, &mut tree);
        self.heap.close(tree);
    }
}

impl MapView {
    /// Reads this state.
    pub fn reader(&self) -> MapReader<'_> {
        MapReader::new(self.pin.root(), self.pin.count)
    }

    /// The root, and where it is.
    pub(super) fn root(&self) -> (Link, Page<'_>) {
        (self.pin.root, self.pin.root())
    }

    pub(super) fn count(&self) -> Count {
        self.pin.count
    }
}

/// How many of `entries` stay in the left page; all of them, where one page can hold them or where
/// too few are left for two.
fn cut(level: u32, entries: &[Entry<'_>], page_bytes: usize, appending: bool) -> usize {
    let least = if level == 0 { 1 } else { BRANCH_CHILDREN_MIN };
    let most = entries.len().saturating_sub(least);
    let bytes = bytes_for(level, entries);
    if bytes <= page_bytes || most < least {
        return entries.len();
    }
    if appending {
        return most;
    }
    let mut left = 0;
    let half = |entry: &&Entry<'_>| {
        left += entry_bytes(level, entry);
        left <= bytes / 2
    };
    entries.iter().take_while(half).count().clamp(least, most)
}

/// A key that divides `left` from `right`, `left < divider ≤ right`: for leaves the shortest
/// beginning of `right` that does.
fn divider<'a>(level: u32, left: &[u8], right: &'a [u8]) -> &'a [u8] {
    if level > 0 { right } else { &right[..common_bytes(left, right) + 1] }
}

mod files;

#[cfg(test)]
mod tests;
