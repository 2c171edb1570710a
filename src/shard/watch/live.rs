//! What is new: every change since the last view is matched once, and what a group gathers goes to
//! all its members as one body.
//!
//! A response may hold several revisions, whole ones, and its header says the last. Where a stream
//! has no room for it, nothing of it is queued and the watcher falls behind at its first revision.

use super::{
    Watches,
    events::{Chunk, Encoder, Response},
    group::NONE,
};
use crate::{
    api::watch::Wish,
    limits::{WATCH_GATHERED_BYTES_MAX, WATCH_REVISION_BYTES_MAX},
    store::{Change, View},
    types::Revision,
};
use bytes::Bytes;

/// What this turn's events are gathered in, by group.
#[derive(Default)]
pub(super) struct Gathering {
    chunks: Vec<(u32, Chunk)>,
    copied: usize,
    hits: Vec<u32>,
}

impl Watches {
    /// Tells the synced watchers everything that is newer than what they were told. `view` is never
    /// older than the one before.
    pub fn advance(&mut self, view: &View) {
        assert!(view.revision >= self.seen, "revisions never go back");
        self.header.term = view.raft.term;
        if view.revision == self.seen {
            return;
        }
        let from = Revision(self.seen.0 + 1);
        let complete_above = view.complete_above();
        if from <= complete_above {
            self.all_fall_behind(from, complete_above);
        }
        let starts = self.waiting.first().is_some_and(|(start, _)| *start <= view.revision);
        if self.synced > 0 || starts {
            self.tell_new(view, from);
        }
        self.seen = view.revision;
    }

    fn tell_new(&mut self, view: &View, from: Revision) {
        let mut revision = self.seen;
        for change in view.changes(from) {
            if change.stamp.main > revision {
                revision = change.stamp.main;
                self.begin_revision(revision);
            }
            self.gather(&change, view);
        }
        self.hand_out_all();
        self.begin_revision(view.revision);
    }

    /// Between two revisions: hands out what became much, and lets those join who start here.
    fn begin_revision(&mut self, revision: Revision) {
        if self.live.copied >= WATCH_GATHERED_BYTES_MAX {
            self.hand_out_all();
        }
        while let Some((start, at)) = self.waiting.first().copied() {
            if start > revision {
                break;
            }
            // What its group has gathered is older than its start.
            self.hand_out(self.watchers[at].group);
            self.leave(at);
            self.join(at);
        }
    }

    fn gather(&mut self, change: &Change<'_>, view: &View) {
        let mut hits = std::mem::take(&mut self.live.hits);
        self.groups.watching(change.key, &mut hits);
        let mut encoder = Encoder::default();
        for group in hits.drain(..) {
            let wish = self.groups[group].wish;
            if wish.takes(change) && !self.groups[group].members.is_empty() {
                self.gather_for(group, change, encoder.event(change, wish, view));
            }
        }
        self.live.hits = hits;
    }

    fn gather_for(&mut self, group: u32, change: &Change<'_>, event: &Bytes) {
        let (revision, part_bytes) = (change.stamp.main, self.part_bytes(self.groups[group].wish));
        if self.groups[group].chunk == NONE {
            self.groups[group].chunk = self.live.chunks.len() as u32;
            self.live.chunks.push((group, Chunk::default()));
        }
        let at = self.groups[group].chunk as usize;
        if self.live.chunks[at].1.is_complete_before(revision) {
            self.hand_out(group);
        }
        let chunk = &mut self.live.chunks[at].1;
        let others = self.live.copied - chunk.copied;
        self.live.copied += chunk.add(event, revision, part_bytes);
        if others >= WATCH_REVISION_BYTES_MAX {
            let chunk = std::mem::take(chunk);
            self.live.copied -= chunk.copied;
            self.members_fall_behind(group, chunk.first);
        }
    }

    /// Bytes below which a response need not come in parts.
    pub(super) fn part_bytes(&self, wish: Wish) -> usize {
        if wish.fragment { self.setup.fragment_bytes } else { usize::MAX }
    }

    fn hand_out_all(&mut self) {
        for at in 0..self.live.chunks.len() {
            let group = self.live.chunks[at].0;
            self.hand_out(group);
            self.groups[group].chunk = NONE;
        }
        self.live.chunks.clear();
    }

    /// What the group has gathered goes to its members.
    fn hand_out(&mut self, group: u32) {
        let Some((_, chunk)) = self.live.chunks.get_mut(self.groups[group].chunk as usize) else {
            return;
        };
        self.live.copied -= chunk.copied;
        let Some(response) = chunk.take() else { return };
        let mut position = 0;
        while let Some(at) = self.groups[group].members.get(position).copied() {
            if self.offer(at, response.last, &response) {
                position += 1;
            } else {
                self.park(at, response.first);
            }
        }
    }

    /// All of `response` for the watcher, or nothing of it where its stream has no room.
    pub(super) fn offer(&mut self, at: u32, revision: Revision, response: &Response) -> bool {
        let watcher = &mut self.watchers[at];
        let taken = self.streams.offer(watcher.stream, watcher.id, revision, response);
        watcher.silent &= !taken;
        taken
    }

    fn members_fall_behind(&mut self, group: u32, next: Revision) {
        while let Some(at) = self.groups[group].members.last().copied() {
            self.leave(at);
            self.watchers[at].next = next;
            self.fall_behind(at);
        }
    }

    /// Changes up to `through` may be gone before they were told: compacted, and their segment
    /// rewritten. What there is, or that there is less, is told from the history.
    fn all_fall_behind(&mut self, next: Revision, through: Revision) {
        for group in self.watchers.iter().map(|watcher| watcher.group).collect::<Vec<_>>() {
            self.members_fall_behind(group, next);
        }
        while let Some((_, at)) = self.waiting.first().copied().filter(|(at, _)| *at <= through) {
            self.leave(at);
            self.fall_behind(at);
        }
    }
}
