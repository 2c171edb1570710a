//! Whose pages are whose: the writer's side of the map's memory, and the pins of its views.
//!
//! ```text
//!  oldest                                   newest published      writer
//!  ┌─ version 7 ────┐  ┌─ version 8 ────┐  ┌─ version 9 ────┐    version 10
//!  │ pin: 2 views   │  │ pin: no view   │  │ pin: 1 view    │    pages of version 10
//!  │ retired: a b c │  │ retired: d     │  │ retired: e f   │    are edited in place
//!  └────────────────┘  └────────────────┘  └────────────────┘
//! ```
//!
//! Each publish makes a version with a [`Pin`]; views share the pin and so need neither epochs nor
//! per-core state. A page made after the newest publish is the writer's alone: it is edited in
//! place and freed at once. Any other page that the writer's tree loses is *retired*: the newest
//! version, and perhaps older ones, contain it, so it goes to the newest version's list. Lists are
//! freed oldest first, each when its pin has no view; `d` above waits for the views of version 7,
//! which may contain it too.
//!
//! A page in a file is nobody's to edit. The writer that changes one makes a copy in memory; that the
//! file holds less of the tree then is all that is counted of it.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use super::{
    index::{Files, IndexEntry, IndexFile},
    node::{self, Block, Keeper},
    page::{Count, Entry, Link, Page, PageMut, bytes_for},
};
use crate::limits::{TREE_PAGES_FREED_PER_PUBLISH_MIN, TREE_PAGES_SPARE_MAX};

/// All pages of one map. Lives with the writer.
pub(super) struct Heap {
    page_bytes: usize,
    /// The version being written: one more than the newest published one.
    version: u64,
    published: VecDeque<Version>,
    /// Memory of freed pages of the usual length, for the next ones. In a cell, so that a page can
    /// be built while its entries are borrowed from others.
    spare: RefCell<Vec<Block>>,
    /// Pages not yet freed, the retired ones too.
    pages: usize,
    /// Their bytes.
    bytes: usize,
    /// Bytes of those that the writer's tree holds.
    tree_bytes: usize,
    /// The files that pages of the writer's tree are in.
    files: Arc<Files>,
    /// Bytes of those pages, by slot; too few while what a checkpoint wrote settles.
    filed: Vec<i64>,
}

impl Keeper for Heap {
    fn files(&self) -> &Files {
        &self.files
    }
}

struct Version {
    pin: Arc<Pin>,
    retired: Vec<Link>,
}

/// Keeps the pages of one published version alive. Shared by its views, on any core.
pub(super) struct Pin {
    pub(super) root: Link,
    pub(super) count: Count,
    files: Arc<Files>,
    /// What is left to free when the map is gone before its views.
    remains: OnceLock<Remains>,
}

/// The duty of a map that was dropped, left to the pin of one version.
struct Remains {
    retired: Vec<Link>,
    /// Held so that versions end oldest first.
    _newer: Option<Arc<Pin>>,
}

impl Heap {
    /// No pages but those in `files`, all of which the tree holds.
    pub(super) fn new(page_bytes: usize, files: Files) -> Self {
        let mut filed = Vec::new();
        for entry in files.entries() {
            filed.resize(filed.len().max(usize::from(entry.slot) + 1), 0);
            filed[usize::from(entry.slot)] = entry.live.cast_signed();
        }
        Self {
            page_bytes: Block::new(page_bytes).len(),
            version: 1,
            published: VecDeque::new(),
            spare: RefCell::default(),
            pages: 0,
            bytes: 0,
            tree_bytes: 0,
            files: Arc::new(files),
            filed,
        }
    }

    /// The usual length of a page.
    pub(super) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Bytes of all pages not yet freed.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of those pages that the writer's tree holds.
    pub(super) fn tree_bytes(&self) -> usize {
        self.tree_bytes
    }

    /// Whether the page was made in memory after the newest publish.
    pub(super) fn owns(&self, link: Link) -> bool {
        link.is_in_memory() && self.page(link).version() == self.version
    }

    pub(super) fn page(&self, link: Link) -> Page<'_> {
        node::page(link, self)
    }

    pub(super) fn edit(&mut self, link: Link) -> PageMut<'_> {
        node::edit(link, self)
    }

    /// The page at `link` as one that may be edited: itself, or a copy in its place.
    pub(super) fn own(&mut self, link: Link) -> Link {
        if self.owns(link) {
            return link;
        }
        let page = self.page(link);
        if !link.is_in_memory() {
            let mut block = self.blank(self.page_bytes.max(page.bytes().len()));
            PageMut::widen(block.bytes_mut(), page, self.version);
            self.release(link);
            return self.adopt(block);
        }
        let mut block = self.blank(page.bytes().len());
        block.bytes_mut().copy_from_slice(page.bytes());
        PageMut::new(block.bytes_mut()).set_version(self.version);
        self.release(link);
        self.adopt(block)
    }

    /// A page of `entries` that is not yet part of the tree: of the usual length or, where they
    /// need more, as long as that.
    pub(super) fn build(&self, level: u32, entries: &[Entry<'_>]) -> Block {
        let mut block = self.blank(self.page_bytes.max(bytes_for(level, entries)));
        PageMut::build(block.bytes_mut(), level, self.version, entries);
        block
    }

    /// Makes a built page part of the tree.
    pub(super) fn adopt(&mut self, block: Block) -> Link {
        self.pages += 1;
        self.bytes += block.len();
        self.tree_bytes += block.len();
        block.link()
    }

    /// The writer's tree no longer contains this page.
    pub(super) fn release(&mut self, link: Link) {
        if !link.is_in_memory() {
            let bytes = self.page(link).bytes().len() as i64;
            self.filed[usize::from(link.place().slot)] -= bytes;
            return;
        }
        self.tree_bytes -= self.page(link).bytes().len();
        if self.owns(link) {
            return self.free(link);
        }
        let newest = self.published.back_mut().expect("an older page belongs to a published root");
        newest.retired.push(link);
    }

    /// Makes `root` a version for views, and frees a bounded piece of what none needs any more.
    pub(super) fn publish(&mut self, root: Link, count: Count) -> Arc<Pin> {
        let files = Arc::clone(&self.files);
        let pin = Arc::new(Pin { root, count, files, remains: OnceLock::new() });
        let retired = self.published.back().map_or(0, |newest| newest.retired.len());
        self.published.push_back(Version { pin: Arc::clone(&pin), retired: Vec::new() });
        self.version += 1;
        // Twice what came in, so that a backlog left by a slow reader shrinks without a long turn.
        self.reclaim(TREE_PAGES_FREED_PER_PUBLISH_MIN.max(2 * retired));
        pin
    }

    /// Frees a bounded piece of what no view needs any more. True when there is nothing left of it.
    pub(super) fn free_unseen(&mut self) -> bool {
        self.reclaim(TREE_PAGES_FREED_PER_PUBLISH_MIN);
        self.published.len() < 2 || Arc::get_mut(&mut self.published[0].pin).is_none()
    }

    /// The newest published version.
    pub(super) fn newest(&self) -> Option<&Arc<Pin>> {
        self.published.back().map(|newest| &newest.pin)
    }

    // ── files ───────────────────────────────────────────────────────────────────────────────────

    /// The files with how much of the tree each holds.
    pub(super) fn entries(&self) -> impl Iterator<Item = IndexEntry> {
        let live = |slot: u16| self.filed[usize::from(slot)].max(0).cast_unsigned();
        self.files.entries().map(move |entry| IndexEntry { live: live(entry.slot), ..entry })
    }

    /// Whether pages may be in `file` from now on; none is yet.
    pub(super) fn add_file(&mut self, file: Arc<IndexFile>) {
        let slot = usize::from(file.entry().slot);
        self.filed.resize(self.filed.len().max(slot + 1), 0);
        assert_eq!(self.filed[slot], 0, "a slot is free when it is used again");
        Arc::make_mut(&mut self.files).insert(file);
    }

    /// Forgets a file that holds nothing of the tree. Views that need it keep it.
    pub(super) fn remove_file(&mut self, slot: u16) {
        assert_eq!(self.filed[usize::from(slot)], 0, "nothing leads into a file that goes");
        Arc::make_mut(&mut self.files).remove(slot);
    }

    /// A slot for one more file.
    pub(super) fn free_slot(&self) -> Option<u16> {
        self.files.free_slot()
    }

    /// The tree reads a page of so many bytes from this file from now on.
    pub(super) fn note_filed(&mut self, slot: u16, bytes: u64) {
        self.filed[usize::from(slot)] += bytes.cast_signed();
    }

    /// Frees at most `budget` retired pages, oldest version first. The newest version stays: its
    /// pin may be handed out again.
    fn reclaim(&mut self, mut budget: usize) {
        while self.published.len() > 1 {
            let oldest = &mut self.published[0];
            if Arc::get_mut(&mut oldest.pin).is_none() {
                return;
            }
            let keep = oldest.retired.len().saturating_sub(budget);
            let mut retired = std::mem::take(&mut oldest.retired);
            budget -= retired.len() - keep;
            retired.drain(keep..).for_each(|link| self.free(link));
            if keep > 0 {
                self.published[0].retired = retired;
                return;
            }
            self.published.pop_front();
        }
    }

    fn free(&mut self, link: Link) {
        let block = Block::take(link);
        self.pages -= 1;
        self.bytes -= block.len();
        let spare = self.spare.get_mut();
        if block.len() == self.page_bytes && spare.len() < TREE_PAGES_SPARE_MAX {
            spare.push(block);
        }
    }

    /// Memory for a page, with anything in it.
    fn blank(&self, bytes: usize) -> Block {
        let spare = if bytes == self.page_bytes { self.spare.borrow_mut().pop() } else { None };
        spare.unwrap_or_else(|| Block::new(bytes))
    }

    /// The map is dropped, with `tree` all pages of its newest state: frees what no view can see,
    /// and leaves the rest to the pins.
    pub(super) fn close(&mut self, tree: Vec<Link>) {
        for link in tree {
            self.release(link);
        }
        let mut newer = None;
        while let Some(Version { pin, retired }) = self.published.pop_back() {
            let left = pin.remains.set(Remains { retired, _newer: newer.take() });
            assert!(left.is_ok(), "a map is dropped once");
            newer = Some(pin);
        }
    }

    #[cfg(test)]
    pub(super) fn pages(&self) -> usize {
        self.pages
    }
}

impl Keeper for Pin {
    fn files(&self) -> &Files {
        &self.files
    }
}

impl Pin {
    pub(super) fn root(&self) -> Page<'_> {
        node::page(self.root, self)
    }
}

impl Drop for Pin {
    /// Frees what a dropped map left to this version, then goes on to newer ones that only this
    /// one still held: in a loop, for there may be many.
    fn drop(&mut self) {
        let mut remains = self.remains.take();
        while let Some(Remains { retired, _newer: newer }) = remains {
            retired.into_iter().for_each(|link| drop(Block::take(link)));
            // Exactly one of several racing holders gets the pin out.
            remains = newer.and_then(Arc::into_inner).and_then(|mut pin| pin.remains.take());
        }
    }
}
