//! The memory of pages: the only place of the map that turns a [`Link`] into an address.
//!
//! A page that is in a file is a slice of its mapping (see `index`) and needs none of what follows.
//! Any other lives in a [`Block`]. While the writer builds it the block is owned like a box; once
//! [`Block::link`] has given it away, links in branch pages and roots stand for it, as many as
//! there are versions of the tree that contain it, and nobody counts them.
//!
//! The invariant, which [`Heap`](super::heap::Heap) and [`Map`](super::map::Map) keep and on which
//! every `unsafe` here rests:
//!
//! 1. A heap link comes from [`Block::link`] and is given to [`Block::take`] at most once, when no
//!    root of a view and not the writer's own root leads to it any more. So whoever holds a root
//!    (a [`Keeper`]) may follow every link below it.
//! 2. A page that a published root leads to is never written again. [`edit`] is called only for
//!    pages made after the newest publish, by the one writer, through `&mut Heap`.
//!
//! In a debug build a freed page is overwritten first, so that a broken invariant shows as a page
//! without its magic number.
#![allow(unsafe_code)]

use std::{ptr, slice};

use super::{
    heap::Heap,
    index::Files,
    page::{HEADER_BYTES, LINE_BYTES, Link, Page, PageMut, whole_bytes},
};
use crate::limits::TREE_PAGE_BYTES;

/// The unit of a page's length and its alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

/// Owned memory for one page.
pub(super) struct Block(Box<[Line]>);

/// Holds a root, and with it every page below (invariant 1).
pub(super) trait Keeper {
    /// The files that pages below are in.
    fn files(&self) -> &Files;
}

/// What a debug build writes over a freed page.
const POISON: u8 = 0xdd;

impl Block {
    /// Zeroed memory for a page of at least `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        #[cfg(test)]
        tests::BLOCKS.set(tests::BLOCKS.get() + 1);
        Self(vec![Line([0; LINE_BYTES]); bytes.div_ceil(LINE_BYTES)].into_boxed_slice())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len() * LINE_BYTES
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.len();
        // SAFETY: the box holds that many initialised bytes, and any byte is a valid one.
        unsafe { slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), bytes) }
    }

    /// Gives the memory, which is a finished page, to the tree.
    pub(super) fn link(self) -> Link {
        let mut block = self;
        let bytes = block.len();
        assert_eq!(whole_bytes(block.bytes_mut()), bytes, "a page knows its length");
        let lines = std::mem::take(&mut block.0);
        Link::in_memory(Box::into_raw(lines).cast::<u8>().expose_provenance())
    }

    /// Takes a page's memory back from the tree; nothing leads to it any more (invariant 1).
    pub(super) fn take(link: Link) -> Self {
        // SAFETY: invariant 1: the page is alive until now.
        let lines = unsafe { bytes_at(link) }.len() / LINE_BYTES;
        let start = ptr::with_exposed_provenance_mut::<Line>(link.address());
        // SAFETY: `link` made this address and length from a box, and it is taken only once.
        let mut block = Self(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(start, lines)) });
        if cfg!(debug_assertions) {
            block.bytes_mut().fill(POISON);
        }
        block
    }
}

#[cfg(test)]
impl Drop for Block {
    fn drop(&mut self) {
        // `Block::link` leaves an empty one behind.
        if !self.0.is_empty() {
            tests::BLOCKS.set(tests::BLOCKS.get() - 1);
        }
    }
}

/// The page behind a root that `keeper` holds, or behind a link that the writer's tree contains.
pub(super) fn page<K: Keeper>(link: Link, keeper: &K) -> Page<'_> {
    let files = keeper.files();
    if !link.is_in_memory() {
        return files.page(link);
    }
    // SAFETY: invariant 1; the keeper outlives the page's lifetime.
    Page::new(unsafe { bytes_at(link) }, files)
}

/// The page below entry `at` of a branch. It lives as long as the branch may be read.
pub(super) fn child(branch: Page<'_>, at: usize) -> Page<'_> {
    let (link, files) = (branch.child(at).link, branch.files());
    if !link.is_in_memory() {
        return files.page(link);
    }
    // SAFETY: invariant 1: the keeper of the branch keeps its children too.
    Page::new(unsafe { bytes_at(link) }, files)
}

/// Whether the page below entry `at` of a branch can be read without waiting for the disk.
pub(super) fn is_child_at_hand(branch: Page<'_>, at: usize) -> bool {
    let link = branch.child(at).link;
    link.is_in_memory() || branch.files().is_at_hand(link)
}

/// Asks the processor for the page below entry `at` of a branch, to be read soon: a page is a
/// couple of dozen cache lines, and a walk that waited for each would spend most of its time there.
pub(super) fn prefetch(branch: Page<'_>, at: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let link = branch.child(at).link;
        let start = match link.is_in_memory() {
            true => ptr::with_exposed_provenance::<i8>(link.address()),
            false => branch.files().start_of(link).cast(),
        };
        for line in 0..TREE_PAGE_BYTES / LINE_BYTES {
            // SAFETY: a hint has no effect on memory and cannot fault, wherever it points.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * LINE_BYTES)) };
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (branch, at);
}

/// The same page, to be written (invariant 2).
pub(super) fn edit(link: Link, heap: &mut Heap) -> PageMut<'_> {
    let before = page(link, heap);
    assert!(heap.owns(link), "a page that a view may see is not written");
    let bytes = before.bytes().len();
    let start = ptr::with_exposed_provenance_mut::<u8>(link.address());
    // SAFETY: invariant 2: no view leads here, and `&mut Heap` excludes the writer's own readers.
    PageMut::new(unsafe { slice::from_raw_parts_mut(start, bytes) })
}

/// All bytes of the page at `link`.
///
/// # Safety
/// The page is alive, and is neither written nor freed during `'a`.
unsafe fn bytes_at<'a>(link: Link) -> &'a [u8] {
    let start = ptr::with_exposed_provenance::<u8>(link.address());
    // SAFETY: the caller's; every page is at least a header long.
    let header = unsafe { slice::from_raw_parts(start, HEADER_BYTES) };
    // SAFETY: the caller's; the header was written with the length of its block.
    unsafe { slice::from_raw_parts(start, whole_bytes(header)) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Blocks made minus blocks dropped by this thread.
        pub(in super::super) static BLOCKS: Cell<i64> = const { Cell::new(0) };
    }

    #[test]
    fn memory_given_to_the_tree_comes_back_whole() {
        let before = BLOCKS.get();
        let mut block = Block::new(100);
        assert_eq!(block.len(), 128);
        PageMut::build(block.bytes_mut(), 0, 7, &[]);
        let link = block.link();
        assert_eq!(Block::take(link).len(), 128);
        assert_eq!(BLOCKS.get(), before);
    }
}
