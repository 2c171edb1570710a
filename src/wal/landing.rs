//! When a frame counts as durable: when it and every frame before it is.
//!
//! Frames in flight may lie in two files, so a later one can land first. Each append's future waits
//! here until the gap before it is closed. Used on the node's core only, by [`super::Wal`] and the
//! futures it has handed out; the lock lets the log be opened elsewhere and is never contended.

use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    io,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
};

/// Which frames have landed. Frames beyond the first gap are at most
/// [`crate::limits::WAL_FRAMES_IN_FLIGHT_MAX`].
#[derive(Debug)]
struct State {
    durable: u64,
    beyond: BTreeSet<u64>,
    failed: bool,
    waiting: Vec<Waker>,
}

/// The shared tally of frames that landed.
#[derive(Clone, Debug)]
pub(super) struct Landing(Arc<Mutex<State>>);

impl Landing {
    /// All frames up to `durable` have landed.
    pub(super) fn new(durable: u64) -> Self {
        let (beyond, waiting) = (BTreeSet::new(), Vec::new());
        Self(Arc::new(Mutex::new(State { durable, beyond, failed: false, waiting })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics under this lock")
    }

    /// Highest frame that is durable with all before it.
    pub(super) fn durable(&self) -> u64 {
        self.state().durable
    }

    /// Whether any write or sync failed.
    pub(super) fn failed(&self) -> bool {
        self.state().failed
    }

    /// Awaits `write`, the write and sync of frame `number`, and then all frames before it.
    ///
    /// # Errors
    /// What `write` says; or that an earlier frame failed, so that this one can never count.
    pub(super) async fn land(
        self,
        number: u64,
        write: impl Future<Output = io::Result<()>>,
    ) -> io::Result<u64> {
        let outcome = write.await;
        self.note(number, outcome.is_ok());
        outcome?;
        poll_fn(|context| {
            let mut state = self.state();
            if state.durable >= number {
                Poll::Ready(Ok(number))
            } else if state.failed {
                Poll::Ready(Err(io::Error::other("an earlier frame of the log was not written")))
            } else {
                state.waiting.push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    fn note(&self, number: u64, landed: bool) {
        let mut state = self.state();
        if landed {
            state.beyond.insert(number);
        } else {
            state.failed = true;
        }
        while state.beyond.first() == Some(&(state.durable + 1)) {
            state.beyond.pop_first();
            state.durable += 1;
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}
