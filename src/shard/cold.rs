//! Reads that would wait for the disk, done beside the shard: a thread runs what the shard would have run,
//! on the same view, and waits where it must; the shard sends the answer (decision 0015).
//!
//! The threads are started by the first such read. Without them, or where a short look beforehand was wrong,
//! the shard itself waits: slower for its other sessions, and no less right.

use super::Place;
use crate::{
    io::{
        self,
        process::major_faults,
        thread::{Lane, Priority},
    },
    limits::{COLD_READERS, COLD_READS_MAX, MEMORY_LOOK_INTERVAL},
};
use std::{
    cell::{Cell, OnceCell},
    future::Future,
    rc::Rc,
    time::Duration,
};

/// A shard's threads for reads that wait.
#[derive(Default)]
pub(super) struct ColdReads {
    lanes: OnceCell<Vec<Lane>>,
    next: Cell<usize>,
    on_their_way: Rc<Cell<usize>>,
    /// When it is next looked whether memory is short, and how often this thread had waited by the last time.
    look: Cell<(Duration, u64)>,
}

/// There are too many already.
pub(super) struct TooMany;

impl ColdReads {
    /// Whether there are too many already.
    pub(super) fn is_full(&self) -> bool {
        self.on_their_way.get() >= COLD_READS_MAX
    }

    /// Does `work` on one of the threads.
    ///
    /// # Errors
    /// [`TooMany`], and nothing is done.
    pub(super) fn run<T, W>(&self, work: W) -> Result<impl Future<Output = T> + use<T, W>, TooMany>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let place = Place::take(&self.on_their_way, COLD_READS_MAX).ok_or(TooMany)?;
        let lanes = self.lanes.get_or_init(|| {
            (0..COLD_READERS)
                .map_while(|_| Lane::start("cold-reads", Priority::Normal).ok())
                .collect()
        });
        let at = self.next.replace(self.next.get() + 1);
        let done = match lanes.get(at % lanes.len().max(1)) {
            Some(lane) => Err(lane.run(move || {
                let before = major_faults();
                let done = work();
                if major_faults() > before {
                    io::note_miss();
                }
                Ok(done)
            })),
            None => Ok(work()),
        };
        Ok(async move {
            let done = match done {
                Ok(done) => done,
                Err(wait) => wait.await.expect("this work has no error"),
            };
            drop(place);
            done
        })
    }

    /// Sees whether this shard itself had to wait lately; and, where it is the `first` of the process, lets
    /// the process forget what it knows of its memory.
    pub(super) fn look(&self, now: Duration, first: bool) {
        let (next, before) = self.look.get();
        if now < next {
            return;
        }
        let faults = major_faults();
        if faults > before {
            io::note_miss();
        }
        if first {
            io::every_second();
        }
        self.look.set((now + MEMORY_LOOK_INTERVAL, faults));
    }
}
