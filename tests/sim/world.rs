//! One member's life, from one seed: days of bad weather, a calm one, and a last look.
//!
//! `RINGLEADER_SEEDS=A..B cargo test --test sim` runs the seeds A to B − 1 instead of the usual
//! ones. A seed that fails prints its number, its weather and what happened on each day.

use crate::{
    audience::Spots,
    check::{Chronicle, Ledger},
    disk::{Crash, SimDisk},
    executor::{Ended, Executor, Lot, SimClock},
    member::{Boot, ELECTION_TICKS, End, Mutant},
    weather::{Air, Day, Fate, Weather},
};
use ringleader::io::Clock;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
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
pub(crate) struct World {
    weather: Rc<Weather>,
    lot: Lot,
    disk: SimDisk,
    clock: SimClock,
    mutant: Mutant,
    pub(crate) chronicle: Rc<RefCell<Chronicle>>,
    ledger: Rc<RefCell<Ledger>>,
    /// What clients watch.
    spots: Rc<RefCell<Spots>>,
    sights: Sights,
}

/// What a life left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Over every effect on the disk and every answer.
    pub(crate) audit: u64,
    sights: Sights,
}

/// What a life came past, and how often: so that nobody believes in weather that never comes.
type Sights = BTreeMap<&'static str, usize>;

const SIGHTS: [&str; 22] = [
    "a crash while it recovered",
    "a crash while it served",
    "a crash during a checkpoint",
    "a death by failed I/O",
    "a full disk",
    "a full disk that it did not start on",
    "a full disk that it stopped on",
    "a lease that a client revoked",
    "a lease that expired",
    "a lease that was renewed",
    "a log of several segments",
    "a log that was trimmed",
    "a rewritten record segment",
    "a renewal that came while its lease was being revoked",
    "a request that was turned away",
    "a request whose fate nobody was told",
    "a response to a watcher in parts",
    "a watch that was canceled for compaction",
    "a watch that was resumed",
    "a watcher that caught up",
    "a watcher that fell behind",
    "progress that was told",
];

impl World {
    pub(crate) fn new(seed: u64, weather: Weather, mutant: Mutant) -> Self {
        let mut lot = Lot::new(seed);
        Self {
            weather: Rc::new(weather),
            disk: SimDisk::new(lot.draw()),
            lot,
            clock: SimClock::default(),
            mutant,
            chronicle: Rc::default(),
            ledger: Rc::default(),
            spots: Rc::default(),
            sights: Sights::new(),
        }
    }

    pub(crate) fn live(&mut self) {
        for (number, day) in self.weather.clone().days.iter().enumerate() {
            self.tell(format!("day {number}: {day:?}"));
            self.ledger.borrow_mut().boot();
            self.day(day);
            self.look_around();
            let crash = if day.dark { Crash::PowerCut } else { Crash::Kill };
            self.disk = self.disk.reboot(crash);
            self.disk.set_space(None);
            let (asked, applied) = self.chronicle.borrow().counts();
            self.tell(format!("  then {crash:?}; so far {asked} asked, {applied} applied or read"));
            // A restart takes a moment, during which nobody draws tickets.
            self.clock.skip(Duration::from_secs(1));
        }
        let (tick, ledger) = (self.weather.tick, self.ledger.borrow());
        let election = tick * ELECTION_TICKS as u32;
        self.chronicle.borrow_mut().judge(&ledger, election, tick);
    }

    fn see(&mut self, sight: &'static str, seen: bool) {
        *self.sights.entry(sight).or_default() += usize::from(seen);
    }

    fn look_around(&mut self) {
        let names = self.disk.names();
        let logs = names.iter().filter(|name| name.starts_with("wal/")).count();
        self.see("a log of several segments", logs > 2);
        let rewritten = names.iter().any(|name| name.starts_with("rec/") && !name.ends_with(".g0"));
        self.see("a rewritten record segment", rewritten);
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
            served: Cell::new(false),
            checkpointing: Cell::new(false),
        });
        let boot = Boot {
            weather: self.weather.clone(),
            day: day.clone(),
            disk: self.disk.clone(),
            air: air.clone(),
            lot: Lot::new(self.lot.draw()),
            mutant: self.mutant,
            spots: self.spots.clone(),
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
            Ended::Halted if self.disk.crashed() => {
                self.tell("  crashed".into());
                self.see("a crash while it served", air.served.get());
                self.see("a crash while it recovered", !air.served.get());
                self.see("a crash during a checkpoint", air.checkpointing.get());
            }
            Ended::Halted => panic!("the day did not end in {} steps", steps.get()),
            Ended::Stalled => panic!("everybody waits, for nothing"),
        }
    }

    fn judge_end(&mut self, end: &End, day: &Day, air: &Air) {
        let full = air.was_full.get();
        self.see("a full disk", full);
        self.see("a full disk that it did not start on", full && !air.served.get());
        self.see("a full disk that it stopped on", full && matches!(end, End::Stopped));
        self.see("a death by failed I/O", matches!(end, End::Fatal(_)));
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
        let mut sights = self.sights.clone();
        sights.extend(&chronicle.sights);
        let (turned_away, untold) = chronicle.ends();
        sights.insert("a request that was turned away", turned_away);
        sights.insert("a request whose fate nobody was told", untold);
        sights.insert("a log that was trimmed", self.ledger.borrow().trims());
        Trace { audit: chronicle.audit() ^ self.disk.audit().rotate_left(1), sights }
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
        match first == second {
            true => Ok(first),
            false => Err(format!("twice the same seed: {first:x?}, then {second:x?}")),
        }
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

/// Runs seeds on all cores and returns what went wrong, and what was seen.
fn run(seeds: Range<u64>) -> (Vec<String>, Sights) {
    let next = AtomicU64::new(seeds.start);
    let outcome = Mutex::new((Vec::new(), Sights::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let lived = twice(seed);
                    let mut outcome = outcome.lock().expect("nobody panics here");
                    match lived {
                        Err(failure) => outcome.0.push(failure),
                        Ok(trace) => trace.sights.into_iter().for_each(|(sight, times)| {
                            *outcome.1.entry(sight).or_default() += times;
                        }),
                    }
                }
            });
        }
    });
    outcome.into_inner().expect("nobody panics here")
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
    let (failures, sights) = run(seeds());
    assert!(failures.is_empty(), "{} seeds failed\n\n{}", failures.len(), failures.join("\n\n"));
    println!("{sights:#?}");
    if seeds() == SEEDS {
        let unseen = SIGHTS.iter().find(|sight| sights.get(*sight).is_none_or(|times| *times == 0));
        assert_eq!(unseen, None, "no seed came past this; seen: {sights:#?}");
    }
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
