//! One member's life, from one seed: days of bad weather, a calm one, and a last look.
//!
//! `RINGLEADER_SEEDS=A..B cargo test --test sim` runs the seeds A to B − 1 instead of the usual
//! ones. A seed that fails prints its number, its weather and what happened on each day.

use crate::{
    check::{Chronicle, Ledger},
    disk::{Crash, SimDisk},
    executor::{Ended, Executor, Lot, SimClock},
    member::{Boot, End, Mutant},
    weather::{Air, Day, Fate, Weather},
};
use ringleader::io::Clock;
use std::{
    cell::{Cell, RefCell},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Seeds that every test run tries.
const SEEDS: Range<u64> = 0..300;
/// Steps of a day, far beyond what any needs: more is a loop that goes nowhere.
const STEPS_MAX: u64 = 2_000_000;
/// A day lasts no longer, however slow its disk: more is a wait for something that never comes.
const DAY_MAX: Duration = Duration::from_secs(3_600);

/// A member's whole life.
struct World {
    weather: Rc<Weather>,
    lot: Lot,
    disk: SimDisk,
    clock: SimClock,
    mutant: Mutant,
    chronicle: Rc<RefCell<Chronicle>>,
    ledger: Rc<RefCell<Ledger>>,
}

/// What a life left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Over every effect on the disk and every answer.
    pub(crate) audit: u64,
    pub(crate) asked: usize,
    pub(crate) applied: usize,
}

impl World {
    fn new(seed: u64, weather: Weather, mutant: Mutant) -> Self {
        let mut lot = Lot::new(seed);
        Self {
            weather: Rc::new(weather),
            disk: SimDisk::new(lot.draw()),
            lot,
            clock: SimClock::default(),
            mutant,
            chronicle: Rc::default(),
            ledger: Rc::default(),
        }
    }

    fn live(&mut self) {
        for (number, day) in self.weather.clone().days.iter().enumerate() {
            self.tell(format!("day {number}: {day:?}"));
            self.day(day);
            let crash = if day.dark { Crash::PowerCut } else { Crash::Kill };
            self.disk = self.disk.reboot(crash);
            self.disk.set_space(None);
            let (asked, applied) = self.chronicle.borrow().counts();
            self.tell(format!("  then {crash:?}; so far {asked} asked, {applied} applied or read"));
            // A restart takes a moment, during which nobody draws tickets.
            self.clock.skip(Duration::from_secs(1));
        }
        self.chronicle.borrow().judge(&self.ledger.borrow());
    }

    fn tell(&self, line: String) {
        self.chronicle.borrow_mut().story.push(line);
    }

    fn day(&mut self, day: &Day) {
        let executor = Executor::at(self.lot.draw(), self.clock.clone());
        let air = Rc::new(Air {
            executor: executor.clone(),
            lot: Lot::new(self.lot.draw()).into(),
            tempo: day.tempo,
            lie: self.mutant.lie,
            ledger: self.ledger.clone(),
            failed: Cell::new(false),
            was_full: Cell::new(false),
        });
        let boot = Boot {
            weather: self.weather.clone(),
            day: day.clone(),
            disk: self.disk.clone(),
            air: air.clone(),
            lot: Lot::new(self.lot.draw()),
            mutant: self.mutant,
            chronicle: self.chronicle.clone(),
            ledger: self.ledger.clone(),
        };
        let (steps, evening) = (Cell::new(0), self.clock.now() + DAY_MAX);
        let (disk, clock) = (self.disk.clone(), self.clock.clone());
        let halt = || {
            steps.set(steps.get() + 1);
            disk.crashed() || steps.get() > STEPS_MAX || clock.now() > evening
        };
        let handle = executor.clone();
        match executor.run(async move { boot.run(handle).await }, halt) {
            Ended::Done(end) => self.judge_end(&end, day, &air),
            Ended::Halted if self.disk.crashed() => self.tell("  crashed".into()),
            Ended::Halted => panic!("the day did not end in {} steps", steps.get()),
            Ended::Stalled => panic!("everybody waits, for nothing"),
        }
    }

    fn judge_end(&self, end: &End, day: &Day, air: &Air) {
        self.tell(match end {
            End::Stopped => "  stopped".into(),
            End::Fatal(why) => format!("  fatal: {why}"),
            End::Unrecovered(why) => format!("  did not start: {why}"),
        });
        let failed = air.failed.get();
        match end {
            End::Stopped => assert!(!failed, "a failed write or sync went unnoticed"),
            End::Fatal(why) => assert!(failed, "died without a reason: {why}"),
            End::Unrecovered(why) => {
                assert!(failed || air.was_full.get(), "did not start: {why}");
            }
        }
        assert!(day.fate != Fate::Nothing || !failed, "a fault that nobody ordered");
    }

    fn trace(&self) -> Trace {
        let chronicle = self.chronicle.borrow();
        let (asked, applied) = chronicle.counts();
        Trace { audit: chronicle.audit() ^ self.disk.audit().rotate_left(1), asked, applied }
    }
}

/// Lives the life of a seed.
///
/// # Errors
/// What went wrong, and the story up to there.
pub(crate) fn live(seed: u64, weather: Weather, mutant: Mutant) -> Result<Trace, String> {
    let mut world = World::new(seed, weather, mutant);
    match catch_unwind(AssertUnwindSafe(|| world.live())) {
        Ok(()) => Ok(world.trace()),
        Err(panic) => {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
            let story = world.chronicle.borrow().story.join("\n");
            Err(format!("{}\n{story}", why.unwrap_or_else(|| "panicked".into())))
        }
    }
}

/// Lives a life twice, which must come out the same.
fn twice(seed: u64) -> Result<Trace, String> {
    let weather = Weather::draw(seed);
    let outcome = live(seed, weather.clone(), Mutant::default()).and_then(|first| {
        let second = live(seed, weather.clone(), Mutant::default())?;
        (first == second).then_some(first).ok_or_else(|| {
            format!("the same seed came out differently: {first:x?}, then {second:x?}")
        })
    });
    outcome.map_err(|why| tell_short(seed, &weather, why))
}

/// The story of a failure, of a shorter life if one fails as well.
fn tell_short(seed: u64, weather: &Weather, why: String) -> String {
    let shorter = [1, 2, 4, 8, 16, 32].into_iter().find_map(|most| {
        let weather = weather.clone().with_requests_at_most(most);
        let failure = live(seed, weather, Mutant::default()).err()?;
        Some(format!("with at most {most} requests a day: {failure}"))
    });
    format!("seed {seed} failed: {}\n{weather:?}", shorter.unwrap_or(why))
}

/// Runs seeds on all cores and returns what went wrong, by seed.
fn run(seeds: Range<u64>) -> Vec<String> {
    let (next, failures) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if let Err(failure) = twice(seed) {
                        failures.lock().expect("nobody panics here").push(failure);
                    }
                }
            });
        }
    });
    failures.into_inner().expect("nobody panics here")
}

fn seeds() -> Range<u64> {
    let Ok(wanted) = std::env::var("RINGLEADER_SEEDS") else { return SEEDS };
    let parsed = wanted
        .split_once("..")
        .and_then(|(from, to)| Some(from.trim().parse().ok()?..to.trim().parse().ok()?));
    parsed.unwrap_or_else(|| panic!("RINGLEADER_SEEDS={wanted}: expected two numbers, like 0..300"))
}

#[test]
fn members_keep_their_word_in_any_weather() {
    let failures = run(seeds());
    assert!(failures.is_empty(), "{} seeds failed\n\n{}", failures.len(), failures.join("\n\n"));
}

/// How a test asks another process for a seed's audit.
const ASKED_SEED: &str = "RINGLEADER_AUDIT_OF";

#[test]
fn a_seed_is_the_same_in_another_process() {
    if let Ok(seed) = std::env::var(ASKED_SEED) {
        let seed = seed.parse().expect("the parent says a number");
        println!("audit {:x?}", live(seed, Weather::draw(seed), Mutant::default()));
        return;
    }
    for seed in [1, 7, 23] {
        let here = format!("audit {:x?}", live(seed, Weather::draw(seed), Mutant::default()));
        let own = std::env::current_exe().expect("a running test has a path");
        let child = std::process::Command::new(own)
            .args(["--exact", "--nocapture", "world::a_seed_is_the_same_in_another_process"])
            .env(ASKED_SEED, seed.to_string())
            .output()
            .expect("the test can be started again");
        let there = String::from_utf8_lossy(&child.stdout);
        assert!(there.contains(&here), "seed {seed}: {here} here, but there\n{there}");
    }
}
