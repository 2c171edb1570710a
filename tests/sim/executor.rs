//! One thread, many futures; the seed picks which goes next.
//!
//! Wakers are real: a future that is not woken is not polled, so a lost wake-up shows as
//! [`Ended::Stalled`]. When nothing can run, the clock jumps to the next timer.

use ringleader::io::Clock;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// The seed's choices, one after the other (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Lot(u64);

impl Lot {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// True once in `odds` times.
    pub(crate) fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended<T> {
    /// The main future finished.
    Done(T),
    /// The caller's `halt` became true: a crash, or enough was seen. Every future was dropped.
    Halted,
    /// No future can go on and no timer is set.
    Stalled,
}

impl<T> Ended<T> {
    /// The main future's value.
    pub(crate) fn done(self) -> T {
        match self {
            Self::Done(value) => value,
            Self::Halted => panic!("the run was halted"),
            Self::Stalled => panic!("the run stalled: every future waits and no timer is set"),
        }
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    flag: Arc<Flag>,
}

/// Whether a task was woken since its last poll.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct State {
    lot: RefCell<Lot>,
    /// Tasks made since the run last looked; a task may make others while it is polled.
    newborn: RefCell<Vec<Task>>,
    clock: SimClock,
}

/// Runs futures on this thread. Cheap to clone; clones make tasks for the same run.
#[derive(Clone)]
pub(crate) struct Executor(Rc<State>);

impl Executor {
    pub(crate) fn new(seed: u64) -> Self {
        Self::at(seed, SimClock::default())
    }

    /// Begins at the time that `clock` shows.
    pub(crate) fn at(seed: u64, clock: SimClock) -> Self {
        Self(Rc::new(State { lot: Lot::new(seed).into(), newborn: RefCell::default(), clock }))
    }

    pub(crate) fn clock(&self) -> SimClock {
        self.0.clock.clone()
    }

    /// Adds a future to the run. It is dropped when the run ends.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        self.0.newborn.borrow_mut().push(Task { future: Box::pin(future), flag });
    }

    /// Runs `main` and all that is spawned until `main` finishes or, asked after every step, `halt`
    /// is true.
    pub(crate) fn run<T: 'static>(
        &self,
        main: impl Future<Output = T> + 'static,
        halt: impl Fn() -> bool,
    ) -> Ended<T> {
        let outcome = Rc::new(Cell::new(None));
        let slot = outcome.clone();
        self.spawn(async move { slot.set(Some(main.await)) });
        let mut tasks: Vec<Task> = Vec::new();
        loop {
            tasks.append(&mut self.0.newborn.borrow_mut());
            let ready: Vec<usize> =
                (0..tasks.len()).filter(|at| tasks[*at].flag.0.load(Ordering::Relaxed)).collect();
            if ready.is_empty() {
                if self.0.clock.jump() {
                    continue;
                }
                return Ended::Stalled;
            }
            let pick = self.0.lot.borrow_mut().below(ready.len() as u64) as usize;
            step(&mut tasks, ready[pick]);
            if halt() {
                return Ended::Halted;
            }
            if let Some(value) = outcome.take() {
                return Ended::Done(value);
            }
        }
    }
}

fn step(tasks: &mut Vec<Task>, at: usize) {
    let task = &mut tasks[at];
    task.flag.0.store(false, Ordering::Relaxed);
    let waker = Waker::from(task.flag.clone());
    if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
        tasks.swap_remove(at);
    }
}

/// Time that passes only when nothing else can happen.
#[derive(Clone, Default)]
pub(crate) struct SimClock(Rc<RefCell<Timers>>);

#[derive(Default)]
struct Timers {
    now: Duration,
    made: u64,
    set: BTreeMap<(Duration, u64), Waker>,
}

impl SimClock {
    /// Time passes although something else could happen: whatever reads this clock stood still.
    pub(crate) fn skip(&self, by: Duration) {
        self.0.borrow_mut().now += by;
    }

    /// Goes to the next timer and wakes it; false if there is none.
    fn jump(&self) -> bool {
        let mut timers = self.0.borrow_mut();
        let Some(((until, _), waker)) = timers.set.pop_first() else { return false };
        timers.now = timers.now.max(until);
        waker.wake();
        true
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.0.borrow().now
    }

    fn wall_nanos(&self) -> u64 {
        /// Some morning in 2026: plausible to code that looks at dates.
        const EPOCH_NANOS: u64 = 1_767_600_000_000_000_000;
        EPOCH_NANOS + u64::try_from(self.now().as_nanos()).expect("a run is shorter than centuries")
    }

    fn sleep_until(&self, until: Duration) -> impl Future<Output = ()> + 'static {
        let clock = self.clone();
        let made = {
            let mut timers = self.0.borrow_mut();
            timers.made += 1;
            timers.made
        };
        std::future::poll_fn(move |context| {
            let mut timers = clock.0.borrow_mut();
            if timers.now >= until {
                return Poll::Ready(());
            }
            timers.set.insert((until, made), context.waker().clone());
            Poll::Pending
        })
    }
}

#[test]
fn time_passes_only_when_nothing_else_can_happen() {
    let executor = Executor::new(1);
    let (clock, seen) = (executor.clock(), Rc::new(RefCell::new(Vec::new())));
    for seconds in [3, 1, 2] {
        let (clock, seen) = (clock.clone(), seen.clone());
        executor.spawn(async move {
            clock.sleep_until(Duration::from_secs(seconds)).await;
            seen.borrow_mut().push((seconds, clock.now()));
        });
    }
    let last = clock.clone();
    let end = executor.run(async move { last.sleep_until(Duration::from_secs(4)).await }, || false);
    assert_eq!(end, Ended::Done(()));
    let expected = [1, 2, 3].map(|seconds| (seconds, Duration::from_secs(seconds)));
    assert_eq!(*seen.borrow(), expected);
}

#[test]
fn a_future_that_nobody_wakes_stalls_the_run() {
    assert_eq!(Executor::new(1).run(std::future::pending::<()>(), || false), Ended::Stalled);
}
