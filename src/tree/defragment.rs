//! Giving space back now, rather than as it comes.
//!
//! An ordinary checkpoint rewrites what is mostly dead and leaves the segment that grows alone, so
//! that each byte is copied seldom. An operator who has just compacted wants the room at once: a
//! checkpoint begun here closes that segment, and rewrites every one that is wasteful. Served
//! meanwhile is everything, since it is a checkpoint like any other (etcd's `Defragment` stops the
//! member).
//!
//! Where segments are cut otherwise depends on their records alone; after this it differs from
//! other members.

use super::{
    Checkpoint, Tree,
    checkpoint::Rewrite,
    root::RootFacts,
    segment::Segment,
    shelf::{Book, Shelf},
};
use crate::limits::{DEFRAGMENT_DEAD_SHARE, DEFRAGMENT_TAIL_BYTES_MIN, REWRITE_BYTES_MAX};

impl Tree {
    /// Whether [`Tree::begin_defragment`] would give space back.
    pub fn is_wasteful(&self) -> bool {
        is_wasteful_tail(&self.shelf)
            || self.shelf.closed().any(|(segment, book)| is_wasteful_segment(segment, book))
    }

    /// As [`Tree::begin_checkpoint`], and gives back what space it can. Bounded too: ask
    /// [`Tree::is_wasteful`] afterwards whether another is needed.
    pub fn begin_defragment(&mut self, facts: RootFacts) -> Option<Checkpoint> {
        if self.is_checkpoint_running() {
            return None;
        }
        if is_wasteful_tail(&self.shelf) {
            self.shelf.close_tail();
        }
        let rewrites = choose_rewrites(&self.shelf);
        Some(self.checkpoint(facts, rewrites))
    }
}

/// Whether so much of a segment is dead that it is worth a copy of the rest.
fn is_wasteful(bytes: usize, book: &Book) -> bool {
    (bytes - book.live_bytes) * DEFRAGMENT_DEAD_SHARE > bytes
}

/// A segment of its own takes some room too: the tail must bring more than that.
fn is_wasteful_tail(shelf: &Shelf) -> bool {
    let (bytes, book) = (shelf.tail.bytes.len(), &shelf.tail.book);
    let worth = DEFRAGMENT_TAIL_BYTES_MIN.min(shelf.segment_bytes() / 4);
    is_wasteful(bytes, book) && bytes - book.live_bytes > worth
}

fn is_wasteful_segment(segment: &Segment, book: &Book) -> bool {
    is_wasteful(segment.bytes(), book)
}

/// All wasteful segments, as far as one checkpoint may copy, neighbours together where they fit.
fn choose_rewrites(shelf: &Shelf) -> Vec<Rewrite> {
    let mut rewrites = Vec::new();
    let mut bytes = 0;
    let mut closed = shelf.closed().peekable();
    while let Some((segment, book)) = closed.next() {
        if !is_wasteful_segment(segment, book) {
            continue;
        }
        let mut live = book.live_bytes;
        let mut sources = vec![(segment, book)];
        while let Some((segment, book)) = closed.next_if(|(segment, book)| {
            is_wasteful_segment(segment, book) && live + book.live_bytes <= shelf.segment_bytes()
        }) {
            live += book.live_bytes;
            sources.push((segment, book));
        }
        bytes += live;
        if bytes > REWRITE_BYTES_MAX && !rewrites.is_empty() {
            break;
        }
        rewrites.push(Rewrite::of(&sources));
    }
    rewrites
}
