//! Pages between memory and files: what a checkpoint wrote is read from its file from then on, and what
//! lies in a file that is mostly garbage comes back to memory, for the next checkpoint to write.
//!
//! Neither changes what the map holds, so both may be done in pieces, between requests. A piece ends at
//! a key, and the next goes on there, however the tree has changed meanwhile.

use super::{
    super::{
        index::{IndexEntry, Written},
        node::Keeper as _,
        segment::Flaw,
    },
    Child, Link, Map,
};

/// Pages that were written and are in memory still.
pub(in super::super) struct Settling {
    written: Written,
    /// All below it is done.
    from: Vec<u8>,
    /// Pages that the tree reads from the file by now, and that are to be freed with all below.
    left: Vec<Link>,
    walked: bool,
}

/// Pages that are to leave a file.
pub(in super::super) struct Clearing {
    slot: u16,
    /// All below it is done.
    from: Vec<u8>,
}

/// One piece of a walk.
struct Piece<'a> {
    from: &'a [u8],
    /// Pages to look at, still.
    budget: usize,
    /// Where the next piece begins, if this one does not come to the end.
    stop: Option<Vec<u8>>,
}

impl Map {
    /// The files that hold pages, with how much of the tree each holds.
    pub(in super::super) fn entries(&self) -> impl Iterator<Item = IndexEntry> {
        self.heap.entries()
    }

    /// A slot for one more file.
    pub(in super::super) fn free_slot(&self) -> Option<u16> {
        self.heap.free_slot()
    }

    /// Forgets a file in which nothing of the tree is left.
    pub(in super::super) fn remove_file(&mut self, slot: u16) {
        // Whoever gets the slot next is not to be cleared.
        self.clearing.take_if(|clearing| clearing.slot == slot);
        self.heap.remove_file(slot);
    }

    /// Looks at every page that is in a file: which file is damaged, and where.
    pub(in super::super) fn check(&self) -> Result<(), (String, Flaw)> {
        let mut links = vec![self.root];
        while let Some(link) = links.pop() {
            let page = match link.is_in_memory() {
                true => self.heap.page(link),
                false => self.heap.files().look(link)?,
            };
            if page.level() > 0 {
                links.extend((0..page.len()).map(|at| page.child(at).link));
            }
        }
        Ok(())
    }

    /// Reads what was written from its file, once [`Map::settle`] has come by.
    pub(in super::super) fn adopt_written(&mut self, written: Written) {
        assert!(self.settling.is_none(), "one checkpoint settles before the next begins");
        self.heap.add_file(written.file.clone());
        let (from, left) = (Vec::new(), Vec::new());
        self.settling = Some(Settling { written, from, left, walked: false });
    }

    /// Whether not all of what the last checkpoint wrote is read from its file.
    pub(in super::super) fn is_settling(&self) -> bool {
        self.settling.is_some()
    }

    /// Looks at about `budget` pages that a checkpoint wrote. True when nothing is left to do.
    pub(in super::super) fn settle(&mut self, budget: usize) -> bool {
        let Some(mut settling) = self.settling.take() else { return true };
        let mut piece = Piece { from: &settling.from.clone(), budget, stop: None };
        if !settling.walked {
            self.root = self.settle_below(self.root, &mut settling, &mut piece);
            self.changed = true;
            settling.walked = piece.stop.is_none();
            settling.from = piece.stop.take().unwrap_or_default();
        }
        self.leave(&mut settling, piece.budget);
        if settling.walked && settling.left.is_empty() {
            return true;
        }
        self.settling = Some(settling);
        false
    }

    fn settle_below(&mut self, link: Link, settling: &mut Settling, piece: &mut Piece<'_>) -> Link {
        if !link.is_in_memory() {
            return link;
        }
        piece.budget = piece.budget.saturating_sub(1);
        if let Some((place, _)) = settling.written.place_of(link) {
            settling.left.push(link);
            return place;
        }
        self.each_child(link, piece, |map, child, piece| {
            map.settle_below(child.link, settling, piece)
        })
    }

    /// Frees pages that are read from the file.
    fn leave(&mut self, settling: &mut Settling, mut budget: usize) {
        while let Some(link) = settling.left.pop() {
            let (place, bytes) = settling.written.place_of(link).expect("what is left was written");
            self.heap.note_filed(place.place().slot, bytes);
            let page = self.heap.page(link);
            if page.level() > 0 {
                let below = (0..page.len()).map(|at| page.child(at).link);
                settling.left.extend(below.filter(|link| link.is_in_memory()));
            }
            self.heap.release(link);
            budget = budget.saturating_sub(1);
            if budget == 0 {
                return;
            }
        }
    }

    /// The pages of this file are to come back to memory, once [`Map::clear`] has come by.
    pub(in super::super) fn begin_clearing(&mut self, slot: u16) {
        self.clearing = Some(Clearing { slot, from: Vec::new() });
    }

    /// Takes about `budget` branches' pages out of the file that is being cleared. True when nothing is
    /// left to do.
    pub(in super::super) fn clear(&mut self, budget: usize) -> bool {
        let Some(Clearing { slot, from }) = self.clearing.take() else { return true };
        let mut piece = Piece { from: &from, budget, stop: None };
        let level = self.heap.page(self.root).level();
        self.root = self.clear_below(self.root, level, slot, &mut piece);
        self.changed = true;
        self.clearing = piece.stop.map(|from| Clearing { slot, from });
        self.clearing.is_none()
    }

    fn clear_below(&mut self, link: Link, level: u32, slot: u16, piece: &mut Piece<'_>) -> Link {
        let moves = !link.is_in_memory() && link.place().slot == slot;
        let link = if moves { self.heap.own(link) } else { link };
        if level == 0 {
            // A leaf that stays is not even looked at.
            piece.budget = piece.budget.saturating_sub(usize::from(moves));
            return link;
        }
        piece.budget = piece.budget.saturating_sub(1);
        self.each_child(link, piece, |map, child, piece| {
            map.clear_below(child.link, level - 1, slot, piece)
        })
    }

    /// Gives the children of a branch from the piece's start on another link, where `visit` says so,
    /// until the piece is used up.
    fn each_child(
        &mut self,
        mut link: Link,
        piece: &mut Piece<'_>,
        mut visit: impl FnMut(&mut Self, Child, &mut Piece<'_>) -> Link,
    ) -> Link {
        let page = self.heap.page(link);
        if page.level() == 0 {
            return link;
        }
        let (first, len) = (page.child_for(piece.from), page.len());
        for at in first..len {
            let child = self.heap.page(link).child(at);
            let to = visit(self, child, piece);
            if to != child.link {
                link = self.heap.own(link);
                self.heap.edit(link).set_child(at, Child { link: to, ..child });
            }
            if piece.stop.is_some() {
                return link;
            }
            if piece.budget == 0 && at + 1 < len {
                piece.stop = Some(self.heap.page(link).key(at + 1).to_vec());
                return link;
            }
            // What is behind the first begins behind where the piece does.
            piece.from = &[];
        }
        link
    }
}
