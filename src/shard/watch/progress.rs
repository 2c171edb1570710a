//! How far everybody is, for those who hear nothing.
//!
//! Progress at R goes through the same queue as events and is told only to who is synced, when all
//! up to R is in that queue: nothing at or below R comes after it.

use super::{Place, Watches, queue::Queued};
use crate::{
    api::watch::{Kind, WatchId},
    limits::WATCH_PROGRESS_INTERVAL_MIN,
};
use bytes::Bytes;
use std::time::Duration;

impl Watches {
    /// Tells progress to those who asked to be told, are synced, and heard nothing since it was last
    /// due. `now` is on the clock of [`Watches::on_request`].
    pub fn on_time(&mut self, now: Duration) {
        while let Some((due, stream)) = self.due.first().copied() {
            if due > now {
                break;
            }
            self.due.remove(&(due, stream));
            self.streams[stream].progress = None;
            if self.tell_progress(stream) {
                let next = due + self.period(stream);
                self.expect_progress_at(
                    stream,
                    if next > now { next } else { now + self.period(stream) },
                );
            }
        }
    }

    /// A stream's period begins with the first of its watchers that asks for progress.
    pub(super) fn expect_progress(&mut self, stream: u32, now: Duration) {
        if self.streams[stream].progress.is_none() {
            self.expect_progress_at(stream, now + self.period(stream));
        }
    }

    fn expect_progress_at(&mut self, stream: u32, due: Duration) {
        self.streams[stream].progress = Some(due);
        self.due.insert((due, stream));
    }

    /// The interval and up to a tenth more, so that streams opened together are not all due at once
    /// (etcd `GetProgressReportInterval`, which draws it by chance).
    fn period(&self, stream: u32) -> Duration {
        let interval = self.setup.progress_interval.max(WATCH_PROGRESS_INTERVAL_MIN);
        interval + interval / 10 * share(self.streams[stream].number) / 256
    }

    /// Whether the stream still has somebody who wants to be told.
    fn tell_progress(&mut self, stream: u32) -> bool {
        let mut wanted = false;
        for (id, at) in self.names_of(stream) {
            let Some(watcher) = at.map(|at| &mut self.watchers[at]) else { continue };
            if !watcher.progress_notify {
                continue;
            }
            wanted = true;
            let silent = std::mem::replace(&mut watcher.silent, true);
            if silent && matches!(watcher.place, Place::Synced(_)) {
                self.push_progress(stream, id);
            }
        }
        wanted
    }

    /// The client asked for all of the stream: told if all are synced and have begun, and else not
    /// at all (etcd `progressIfSync`). Watchers that are canceled do not count; in etcd those that
    /// compaction canceled do, until the client cancels them too.
    pub(super) fn tell_all_progress(&mut self, stream: u32) {
        let of = &self.streams[stream];
        if of.live > 0 && of.lagging == 0 {
            self.push_progress(stream, WatchId::NONE);
        }
    }

    /// Where there is no room the client has enough to read (etcd drops it too).
    fn push_progress(&mut self, stream: u32, id: WatchId) {
        if self.streams.has_room(stream) {
            let (kind, revision) = (Kind::Events, self.seen);
            self.streams.push(stream, Queued { id, kind, revision, body: Bytes::new() });
        }
    }
}

/// A number from 0 to 255 that looks like chance (the golden ratio's hash of Knuth, TAOCP 6.4).
fn share(number: u64) -> u32 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u32
}
