//! Wakes every executor now and then, so that one that fell asleep with work to do sleeps for
//! milliseconds and not for ever.
//!
//! glommio 0.9 runs no task in a turn whose preemption timer has rung already, which happens when
//! the thread lost its core just after arming it. Such a turn counts as idle; the look for I/O that
//! follows eats the timer's completion, and the executor parks although tasks are ready. Only news
//! from outside wakes it then. With three busy processes beside it on two cores that was one start
//! in nine. Two things answer it: the timer is long while a member starts (the executor's default)
//! and short only for the member's own task queue; and a thread wakes an idle task of each executor
//! every [`NUDGE_INTERVAL`]. Tasks run in a queue whose latency matters, because for those glommio
//! writes its event descriptor on every wake-up from another thread.

use crate::limits::{NUDGE_INTERVAL, TASK_LATENCY};
use glommio::{Latency, Shares};
use std::{
    future::{Future, poll_fn},
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Poll, Waker},
};

/// Where one executor leaves the waker of its idle task.
type Slot = Mutex<Option<Waker>>;

/// The thread that nudges. It ends once this and all executors are gone.
pub struct Nudger(Arc<Mutex<Vec<Weak<Slot>>>>);

/// An executor's end.
pub struct Nudged(Arc<Slot>);

impl Nudger {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the machine says.
    pub fn start() -> io::Result<Self> {
        let slots = Arc::<Mutex<Vec<Weak<Slot>>>>::default();
        let watched = Arc::downgrade(&slots);
        std::thread::Builder::new().name("nudge".into()).spawn(move || {
            while let Some(slots) = watched.upgrade() {
                for slot in slots.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    let Some(slot) = slot.upgrade() else { continue };
                    let waker = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    waker.into_iter().for_each(Waker::wake);
                }
                drop(slots);
                std::thread::sleep(NUDGE_INTERVAL);
            }
        })?;
        Ok(Self(slots))
    }

    /// One more executor to nudge.
    pub fn add(&self) -> Nudged {
        let slot = Arc::<Slot>::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&slot));
        Nudged(slot)
    }
}

impl Nudged {
    /// Runs `work` on the executor that calls this, with its task nudged.
    pub async fn run<F: Future<Output = ()> + 'static>(self, work: F) {
        let latency = Latency::Matters(TASK_LATENCY);
        let queue = glommio::executor().create_task_queue(Shares::default(), latency, "member");
        let idle = async move {
            poll_fn::<(), _>(|cx| {
                let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                *slot = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
        };
        let idle = glommio::spawn_local_into(idle, queue).expect("the queue was made just now");
        let work = glommio::spawn_local_into(work, queue).expect("the queue was made just now");
        work.await;
        drop(idle);
    }
}
