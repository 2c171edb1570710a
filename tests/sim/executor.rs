//! One thread, many futures; the seed picks which goes next.
//!
//! Wakers are real: a future that is not woken is not polled, so a lost wake-up shows as
//! [`Ended::Stalled`]. When nothing can run, the clock jumps to the next timer.

use crate::damage::{Died, attempt};
use ringleader::io::Clock;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
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
    group: u64,
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
    groups: RefCell<Groups>,
}

/// Tasks that live and stand still together, as those of a process do.
#[derive(Default)]
struct Groups {
    made: u64,
    ended: BTreeSet<u64>,
    /// Until when one stands still.
    frozen: BTreeMap<u64, Duration>,
    /// What one died of, until somebody asks.
    died: BTreeMap<u64, Died>,
}

/// Runs futures on this thread. Cheap to clone; clones make tasks for the same run and group.
#[derive(Clone)]
pub(crate) struct Executor {
    state: Rc<State>,
    group: u64,
}

impl Executor {
    pub(crate) fn new(seed: u64) -> Self {
        Self::at(seed, SimClock::default())
    }

    /// Begins at the time that `clock` shows.
    pub(crate) fn at(seed: u64, clock: SimClock) -> Self {
        let state = State {
            lot: Lot::new(seed).into(),
            newborn: RefCell::default(),
            clock,
            groups: RefCell::default(),
        };
        Self { state: Rc::new(state), group: 0 }
    }

    pub(crate) fn clock(&self) -> SimClock {
        self.state.clock.clone()
    }

    /// The same run, for a new group of tasks.
    pub(crate) fn group(&self) -> Self {
        let mut groups = self.state.groups.borrow_mut();
        groups.made += 1;
        Self { state: self.state.clone(), group: groups.made }
    }

    /// Drops all tasks of this group before anything else happens.
    pub(crate) fn end_group(&self) {
        self.state.groups.borrow_mut().ended.insert(self.group);
    }

    /// What a task of this group died of since somebody asked last. The others go on until the group is
    /// ended.
    pub(crate) fn died(&self) -> Option<Died> {
        self.state.groups.borrow_mut().died.remove(&self.group)
    }

    /// No task of this group goes on before `until`, while time does.
    pub(crate) fn freeze(&self, until: Duration) {
        self.state.groups.borrow_mut().frozen.insert(self.group, until);
        self.state.clock.set(until, Waker::noop().clone());
    }

    /// Adds a future to the run. It is dropped when the run ends.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let task = Task { group: self.group, future: Box::pin(future), flag };
        self.state.newborn.borrow_mut().push(task);
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
            tasks.append(&mut self.state.newborn.borrow_mut());
            let ready = self.ready(&mut tasks);
            if ready.is_empty() {
                if self.state.clock.jump() {
                    continue;
                }
                return Ended::Stalled;
            }
            let pick = self.state.lot.borrow_mut().below(ready.len() as u64) as usize;
            let group = tasks[ready[pick]].group;
            if let Err(died) = attempt(|| step(&mut tasks, ready[pick])) {
                drop(tasks.swap_remove(ready[pick]));
                self.state.groups.borrow_mut().died.entry(group).or_insert(died);
            }
            if halt() {
                return Ended::Halted;
            }
            if let Some(value) = outcome.take() {
                return Ended::Done(value);
            }
        }
    }

    /// The tasks that were woken and do not stand still; those whose group has ended are dropped.
    fn ready(&self, tasks: &mut Vec<Task>) -> Vec<usize> {
        let mut groups = self.state.groups.borrow_mut();
        let Groups { ended, frozen, .. } = &mut *groups;
        let over = std::mem::take(ended);
        let now = self.state.clock.now();
        frozen.retain(|_, until| *until > now);
        let woken =
            |task: &Task| task.flag.0.load(Ordering::Relaxed) && !frozen.contains_key(&task.group);
        if over.is_empty() {
            return (0..tasks.len()).filter(|at| woken(&tasks[*at])).collect();
        }
        let (gone, left) =
            std::mem::take(tasks).into_iter().partition(|task| over.contains(&task.group));
        *tasks = left;
        let ready = (0..tasks.len()).filter(|at| woken(&tasks[*at])).collect();
        drop(groups);
        drop::<Vec<Task>>(gone);
        ready
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
    fn set(&self, until: Duration, waker: Waker) {
        let mut timers = self.0.borrow_mut();
        timers.made += 1;
        let made = timers.made;
        timers.set.insert((until, made), waker);
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
        let mut timers = self.0.borrow_mut();
        timers.made += 1;
        Sleep { clock: self.clone(), until, number: timers.made }
    }
}

/// Nobody is woken by one that was dropped.
struct Sleep {
    clock: SimClock,
    until: Duration,
    number: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut timers = self.clock.0.borrow_mut();
        if timers.now >= self.until {
            return Poll::Ready(());
        }
        // What never comes must not make time pass.
        if self.until < Duration::MAX {
            timers.set.insert((self.until, self.number), context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.0.borrow_mut().set.remove(&(self.until, self.number));
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
fn a_timer_that_was_dropped_wakes_nobody() {
    let executor = Executor::new(1);
    let (clock, polls) = (executor.clock(), Rc::new(Cell::new(0)));
    let (inner, counted) = (clock.clone(), polls.clone());
    executor.spawn(async move {
        let until = Duration::from_secs(1);
        for _ in 0..10 {
            let mut dropped = Box::pin(inner.sleep_until(until));
            let first = |context: &mut Context<'_>| Poll::Ready(dropped.as_mut().poll(context));
            assert!(std::future::poll_fn(first).await.is_pending());
        }
        std::future::poll_fn(|_| {
            counted.set(counted.get() + 1);
            Poll::<()>::Pending
        })
        .await;
    });
    executor.run(async move { clock.sleep_until(Duration::from_secs(2)).await }, || false).done();
    assert_eq!(polls.get(), 1);
}

#[test]
fn a_group_stands_still_and_ends_alone() {
    let executor = Executor::new(1);
    let seen = Rc::new(RefCell::new(Vec::new()));
    for (name, group) in [executor.clone(), executor.group(), executor.group()].iter().enumerate() {
        let (seen, clock) = (seen.clone(), executor.clock());
        group.spawn(async move {
            clock.sleep_until(Duration::from_secs(1)).await;
            seen.borrow_mut().push((name, clock.now().as_secs()));
        });
        match name {
            1 => group.freeze(Duration::from_secs(3)),
            2 => group.end_group(),
            _ => {}
        }
    }
    let last = executor.clock();
    executor.run(async move { last.sleep_until(Duration::from_secs(4)).await }, || false).done();
    assert_eq!(*seen.borrow(), [(0, 1), (1, 3)]);
}

#[test]
fn a_future_that_nobody_wakes_stalls_the_run() {
    assert_eq!(Executor::new(1).run(std::future::pending::<()>(), || false), Ended::Stalled);
}
