//! Memory that one writer appends to while readers on other cores read what was there before.
//!
//! ```text
//!   AppendVec  ├── written, never changes again ──┤── free ──────────┤ capacity
//!   Frozen     ├──────────────────────────┤ its own length, taken when it was made
//! ```
//!
//! The invariant, on which every `unsafe` here rests: *elements below a length that was ever
//! handed out never change and never move, and the writer only writes at and above its own
//! length.* A [`Frozen`] carries the length it was made with; it reaches another core through
//! something that synchronises, as every `Send` value does, so the elements below its length were
//! written before it arrived. No atomics, no locks, and no growth: a vector has one fixed block.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ops::Deref,
    ptr::NonNull,
    sync::Arc,
};

/// The block itself; freed when the writer and every [`Frozen`] of it are gone.
struct Block<T> {
    start: NonNull<T>,
    capacity: usize,
}

// SAFETY: a block is plain memory of `Copy` elements. Which parts of it may be read and written,
// and by whom, is decided by `AppendVec` and `Frozen` under the invariant at the head of the file.
unsafe impl<T: Copy + Send + Sync> Send for Block<T> {}
// SAFETY: as above: shared readers only see elements that never change again.
unsafe impl<T: Copy + Send + Sync> Sync for Block<T> {}

impl<T> Block<T> {
    fn layout(capacity: usize) -> Layout {
        Layout::array::<T>(capacity).expect("a segment is smaller than the address space")
    }

    fn new(capacity: usize) -> Self {
        assert!(capacity > 0 && size_of::<T>() > 0, "a block holds something");
        let layout = Self::layout(capacity);
        // SAFETY: the layout has a size above zero, as was just asserted.
        let start = unsafe { alloc(layout) }.cast::<T>();
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, capacity }
    }
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc` with this very layout, and this is its only owner.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.capacity)) }
    }
}

/// The writing end: exactly one per block.
pub(crate) struct AppendVec<T: Copy> {
    block: Arc<Block<T>>,
    len: usize,
}

impl<T: Copy> AppendVec<T> {
    /// Room for `capacity` elements. The machine lends the memory when it is first written.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { block: Arc::new(Block::new(capacity)), len: 0 }
    }

    /// Elements that still fit.
    pub(crate) fn room(&self) -> usize {
        self.block.capacity - self.len
    }

    /// Appends all of `items`. Panics where they do not fit: the caller asks for the room first.
    pub(crate) fn extend(&mut self, items: &[T]) {
        assert!(items.len() <= self.room(), "an append vector never grows");
        // SAFETY: `len..len + items.len()` lies inside the block (asserted) and above every length
        // handed out so far, so nobody reads it; `items` cannot overlap it, because a slice of the
        // block only ever reaches up to a handed-out length. `&mut self` makes this the only writer.
        unsafe {
            let end = self.block.start.as_ptr().add(self.len);
            std::ptr::copy_nonoverlapping(items.as_ptr(), end, items.len());
        }
        self.len += items.len();
    }

    /// What was appended so far, for good.
    pub(crate) fn frozen(&self) -> Frozen<T> {
        Frozen { block: Arc::clone(&self.block), len: self.len }
    }
}

impl<T: Copy> Deref for AppendVec<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: elements below `len` were written by `extend` and never change again.
        unsafe { std::slice::from_raw_parts(self.block.start.as_ptr(), self.len) }
    }
}

/// A reading end: the elements that had been appended when it was made. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Frozen<T: Copy> {
    block: Arc<Block<T>>,
    len: usize,
}

impl<T: Copy> Deref for Frozen<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: elements below `len` were written before this value was made, never change
        // again, and the block lives as long as `self.block`.
        unsafe { std::slice::from_raw_parts(self.block.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_end_keeps_its_length_and_its_elements() {
        let mut vec = AppendVec::new(8);
        vec.extend(&[1u32, 2]);
        let early = vec.frozen();
        vec.extend(&[3, 4, 5]);
        assert_eq!(*early, [1, 2]);
        assert_eq!(*vec, [1, 2, 3, 4, 5]);
        assert_eq!(vec.room(), 3);
        let late = vec.frozen();
        drop(vec);
        assert_eq!((&*early, &*late), (&[1u32, 2][..], &[1u32, 2, 3, 4, 5][..]));
    }

    #[test]
    #[should_panic(expected = "never grows")]
    fn what_does_not_fit_is_refused() {
        let mut vec = AppendVec::new(2);
        vec.extend(&[1u8, 2, 3]);
    }

    #[test]
    fn readers_on_another_thread_read_while_the_writer_appends() {
        let (send, receive) = std::sync::mpsc::channel::<Frozen<u64>>();
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            while let Ok(frozen) = receive.recv() {
                assert!(frozen.iter().enumerate().all(|(i, item)| *item == i as u64));
                seen = frozen.len();
            }
            seen
        });
        let mut vec = AppendVec::new(100);
        for i in 0..100 {
            vec.extend(&[i]);
            send.send(vec.frozen()).expect("the reader lives until the channel closes");
        }
        drop(send);
        assert_eq!(reader.join().expect("the reader found nothing wrong"), 100);
    }
}
