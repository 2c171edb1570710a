//! Those that lag are told from the records, together and in bounded pieces.
//!
//! A cohort is taken from one place in the history onwards, like an elevator: the next one begins
//! where this piece ended, and after the last revision it begins again with the oldest. So those who
//! are near each other share a scan, and nobody is passed over for ever.
//!
//! ```text
//!   revisions   ·····a···b·bc·········d····e··········│ newest
//!                    └── one piece ──┘▲
//!                    a, b, b, c       │ the next piece begins here
//! ```
//!
//! Within a cohort, watchers of one group that lag alike are one run: they share bodies.

use super::{
    Place, Watches,
    events::{Chunk, Encoder},
    group::NONE,
    queue::Queued,
};
use crate::{
    api::watch::Kind,
    limits::{
        WATCH_COHORT_MAX, WATCH_GATHERED_BYTES_MAX, WATCH_PIECE_RECORDS_MAX,
        WATCH_REVISION_BYTES_MAX,
    },
    store::{Change, View},
    types::Revision,
};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Who lags.
#[derive(Default)]
pub(super) struct History {
    /// By the first revision still to be told.
    behind: BTreeSet<(Revision, u32)>,
    /// By the stream that has no room.
    parked: BTreeSet<(u32, u32)>,
    /// Where the next piece begins.
    cursor: Revision,
}

impl History {
    pub(super) fn insert(&mut self, next: Revision, at: u32) {
        self.behind.insert((next, at));
    }

    pub(super) fn remove(&mut self, next: Revision, at: u32) {
        self.behind.remove(&(next, at));
    }

    pub(super) fn park(&mut self, stream: u32, at: u32) {
        self.parked.insert((stream, at));
    }

    pub(super) fn unpark(&mut self, stream: u32, at: u32) {
        self.parked.remove(&(stream, at));
    }

    pub(super) fn first_parked(&self, stream: u32) -> Option<u32> {
        let of_stream = self.parked.range((stream, 0)..=(stream, u32::MAX)).next();
        of_stream.map(|(_, at)| *at)
    }

    /// Those from the cursor on, or from the beginning if there is nobody.
    fn cohort(&self) -> Vec<(Revision, u32)> {
        let from = |cursor| self.behind.range((cursor, 0)..).take(WATCH_COHORT_MAX).copied();
        let ahead: Vec<_> = from(self.cursor).collect();
        if ahead.is_empty() { from(Revision(0)).collect() } else { ahead }
    }
}

/// Watchers of one group that lag alike.
struct Run {
    group: u32,
    next: Revision,
    watchers: Vec<u32>,
    chunk: Chunk,
}

/// One scan.
struct Piece {
    /// By group, then by `next`.
    runs: Vec<Run>,
    copied: usize,
    hits: Vec<u32>,
}

impl Watches {
    /// Whether [`Watches::catch_up`] has something to do.
    pub fn is_behind(&self) -> bool {
        !self.history.behind.is_empty()
    }

    /// Tells some of those that lag a piece of the history; whether there is more to do. Nothing is
    /// told twice, and nobody is told of a part of a revision. `view` is the one that
    /// [`Watches::advance`] saw last.
    pub fn catch_up(&mut self, view: &View) -> bool {
        assert_eq!(view.revision, self.seen, "the history ends with the view seen last");
        let mut cohort = self.history.cohort();
        cohort.retain(|(next, at)| self.may_be_told(*next, *at, view));
        if let Some((first, _)) = cohort.first().copied() {
            let mut piece = self.runs(&cohort);
            let end = self.scan(first, view, &mut piece);
            piece.runs.into_iter().for_each(|run| self.settle(run, end));
            self.history.cursor = Revision(end.0 + 1);
        }
        self.is_behind()
    }

    /// Takes out who has no room and who is too late.
    fn may_be_told(&mut self, next: Revision, at: u32, view: &View) -> bool {
        let stream = self.watchers[at].stream;
        if !self.streams.has_room(stream) {
            self.park(at, next);
            return false;
        }
        let compacted = view.compacted();
        if next < compacted {
            self.end_compacted(at, compacted);
            return false;
        }
        true
    }

    /// etcd's answer has no revision in its header and no reason, and the name stays taken.
    fn end_compacted(&mut self, at: u32, compacted: Revision) {
        let (stream, id) = (self.watchers[at].stream, self.watchers[at].id);
        self.end(at);
        self.names.insert((stream, id), None);
        let (kind, revision) = (Kind::Compacted(compacted), Revision(0));
        self.streams.push(stream, Queued { id, kind, revision, body: Bytes::new() });
    }

    fn runs(&mut self, cohort: &[(Revision, u32)]) -> Piece {
        let group_of = |at: u32| self.watchers[at].group;
        let mut all: Vec<_> = cohort.iter().map(|(next, at)| (group_of(*at), *next, *at)).collect();
        all.sort_unstable();
        let mut runs: Vec<Run> = Vec::new();
        for (group, next, at) in all {
            match runs.last_mut() {
                Some(run) if (run.group, run.next) == (group, next) => run.watchers.push(at),
                last => {
                    if last.is_none_or(|run| run.group != group) {
                        self.groups[group].run = runs.len() as u32;
                    }
                    runs.push(Run { group, next, watchers: vec![at], chunk: Chunk::default() });
                }
            }
        }
        Piece { runs, copied: 0, hits: Vec::new() }
    }

    /// Gathers from `first` on. Gives back the last revision that was looked at whole.
    fn scan(&mut self, first: Revision, view: &View, piece: &mut Piece) -> Revision {
        let mut revision = first;
        for (records, change) in view.changes(first).enumerate() {
            let enough =
                records >= WATCH_PIECE_RECORDS_MAX || piece.copied >= WATCH_GATHERED_BYTES_MAX;
            if change.stamp.main > revision {
                if enough {
                    return Revision(change.stamp.main.0 - 1);
                }
                revision = change.stamp.main;
            }
            self.gather_old(&change, view, piece);
        }
        view.revision
    }

    fn gather_old(&mut self, change: &Change<'_>, view: &View, piece: &mut Piece) {
        let mut hits = std::mem::take(&mut piece.hits);
        self.groups.watching(change.key, &mut hits);
        let mut encoder = Encoder::default();
        for group in hits.drain(..) {
            let wish = self.groups[group].wish;
            let mut at = self.groups[group].run as usize;
            while let Some(run) = piece.runs.get_mut(at) {
                if run.group != group || run.next > change.stamp.main || !wish.takes(change) {
                    break;
                }
                let event = encoder.event(change, wish, view);
                self.gather_for_run(run, change, event, &mut piece.copied);
                at += 1;
            }
        }
        piece.hits = hits;
    }

    /// Adds to `copied` what this copies.
    fn gather_for_run(
        &mut self,
        run: &mut Run,
        change: &Change<'_>,
        event: &Bytes,
        copied: &mut usize,
    ) {
        let revision = change.stamp.main;
        if run.watchers.is_empty() {
            return;
        }
        if run.chunk.is_complete_before(revision) {
            self.hand_out_run(run, None);
        }
        if *copied - run.chunk.copied >= WATCH_REVISION_BYTES_MAX {
            // Others go first; these stay where they are.
            *copied -= run.chunk.copied;
            run.chunk = Chunk::default();
            run.watchers.clear();
            return;
        }
        let part_bytes = self.part_bytes(self.groups[run.group].wish);
        *copied += run.chunk.add(event, revision, part_bytes);
    }

    /// What the run has gathered goes to its watchers. Who has no room leaves it. The header says
    /// `through`, up to which everything was looked at, or else the last revision told.
    fn hand_out_run(&mut self, run: &mut Run, through: Option<Revision>) {
        let Some(response) = run.chunk.take() else { return };
        let revision = through.unwrap_or(response.last);
        run.watchers.retain(|at| {
            let taken = self.offer(*at, revision, &response);
            if !taken {
                self.park(*at, response.first);
            }
            taken
        });
        for at in &run.watchers {
            self.go_on(*at, Revision(response.last.0 + 1));
        }
    }

    /// The piece ended with revision `end`: its watchers are told up to there.
    fn settle(&mut self, mut run: Run, end: Revision) {
        self.groups[run.group].run = NONE;
        self.hand_out_run(&mut run, Some(end));
        for at in run.watchers {
            if end >= self.seen {
                self.leave(at);
                self.join(at);
            } else if self.watchers[at].next <= end {
                self.go_on(at, Revision(end.0 + 1));
            }
        }
    }

    /// What is still to be told begins with `next`.
    fn go_on(&mut self, at: u32, next: Revision) {
        let watcher = &mut self.watchers[at];
        assert!(matches!(watcher.place, Place::Behind), "only who lags goes through the history");
        self.history.behind.remove(&(watcher.next, at));
        watcher.next = next;
        self.history.behind.insert((next, at));
    }
}
