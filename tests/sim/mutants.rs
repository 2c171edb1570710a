//! Bugs planted on purpose, through the seams: the product knows nothing of them. A check that
//! catches none of them checks nothing.
//!
//! Most live in a member's life. Those in checkpoints are looked for in the states that a crash may
//! leave of them (see `states`); a count or a mark that a checkpoint writes wrong is forged on the disk
//! with every checksum above it.
//!
//! Each of the first lives through seeds until one life goes wrong; it must be caught within the stated
//! number. Faults of the disk are left out of a mutant's weather, so that nothing but the bug can
//! be what was caught.
//!
//! `just mutants WORDS` tries those whose name has the words in it, and tells their stories.

use crate::{
    clients::Slip,
    executor::Lot,
    forge,
    member::{Drift, Mutant, Tamper},
    network::Gust,
    rough::Lie,
    seeds::tell_short,
    states::{Bug, first_wrong},
    tap::Order as DiskOrder,
    weather::{Day, Weather, Winds},
    world::live,
};
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// A bug, and what it takes to see it.
struct Planted {
    name: &'static str,
    mutant: Mutant,
    weather: fn(u64) -> Weather,
    seeds_max: u64,
}

/// The same seed without failing I/O and full disks.
fn gentle(seed: u64) -> Weather {
    Weather::draw(seed).gentle()
}

/// A life of three, without failing I/O and full disks.
fn company(seed: u64) -> Weather {
    Weather::draw_cluster(&mut Lot::new(seed ^ 0x3ee3), 3).gentle()
}

/// A life of three, of which one's tree or log may rot.
fn rotten(seed: u64) -> Weather {
    Weather { rot: true, ..company(seed) }
}

/// Three whose links are cut again and again, and clients at each who ask all the time.
fn divided(seed: u64) -> Weather {
    let weather = company(seed);
    let election = weather.election();
    let winds = Winds { lull: Some(election * 2), storm: election * 12, ..Winds::calm() };
    let day = Day { leisure: election / 2, ..Day::calm(2_000, false) };
    let (rows, wal_blocks, value_bytes) = (vec![vec![day]; 3], 400, 8);
    Weather { winds, rows, wal_blocks, value_bytes, outstanding: 300, keys: 2, ..weather }
}

fn gust(gust: Gust) -> Mutant {
    Mutant { gust: Some(gust), ..Mutant::default() }
}

fn lie(lie: Lie) -> Mutant {
    Mutant { lie: Some(lie), ..Mutant::default() }
}

fn slip(slip: Slip) -> Mutant {
    Mutant { slip: Some(slip), ..Mutant::default() }
}

fn tamper(tamper: Tamper) -> Mutant {
    Mutant { tamper: Some(tamper), ..Mutant::default() }
}

fn drift(drift: Drift) -> Mutant {
    Mutant { drift: Some(drift), ..Mutant::default() }
}

impl Planted {
    fn any(name: &'static str, mutant: Mutant, seeds_max: u64) -> Self {
        Self { name, mutant, weather: gentle, seeds_max }
    }

    fn of_three(name: &'static str, mutant: Mutant, seeds_max: u64) -> Self {
        Self { weather: company, ..Self::any(name, mutant, seeds_max) }
    }

    /// Whether it is caught, and the same seed is sound without it.
    fn is_caught(&self, in_full: bool) -> Result<(), String> {
        let name = self.name;
        for seed in 0..self.seeds_max {
            let weather = (self.weather)(seed);
            if let Err(why) = live(seed, weather.clone(), self.mutant) {
                let first_line = why.lines().next().unwrap_or_default();
                println!("{name}: seed {seed}: {first_line}");
                if in_full {
                    println!("{}\n", tell_short(seed, &weather, self.mutant, why));
                }
                let sound = live(seed, (self.weather)(seed), Mutant::default());
                let fails = |why| format!("{name}: seed {seed} fails without it: {why}");
                return sound.map(drop).map_err(fails);
            }
        }
        Err(format!("{name}: survived {} seeds", self.seeds_max))
    }
}

/// All of them, by where they are planted.
fn all() -> Vec<Planted> {
    let any = Planted::any;
    let of_three = Planted::of_three;
    vec![
        // The disk.
        any("data that is never synced", lie(Lie::DataNeverSynced), 20),
        any("a log that is never synced", lie(Lie::LogNeverSynced), 20),
        any("a reply before the log is durable", lie(Lie::LogAcknowledgedEarly), 20),
        any("a superblock before its records", lie(Lie::RecordsAfterSuperblock), 60),
        of_three("messages before their append is durable", lie(Lie::LogAcknowledgedEarly), 20),
        of_three("a snapshot that is not synced", lie(Lie::DataNeverSynced), 40),
        // Between recovery and start.
        any("a forgotten hard state", tamper(Tamper::HardStateForgotten), 20),
        any("a dropped last entry", tamper(Tamper::LastEntryDropped), 20),
        any("a log trimmed before its checkpoint", tamper(Tamper::TrimmedTooEarly), 20),
        of_three("a vote that is forgotten", tamper(Tamper::HardStateForgotten), 40),
        of_three(
            "a log of several that loses its last entry",
            tamper(Tamper::LastEntryDropped),
            40,
        ),
        Planted {
            weather: rotten,
            ..of_three("a mark of damage that is forgotten", tamper(Tamper::MarkForgotten), 300)
        },
        // The clock.
        any("leases on a clock that goes fast", drift(Drift::Fast), 20),
        any("leases on a clock that goes slow", drift(Drift::Slow), 20),
        // The desks.
        any("a stale read", slip(Slip::StaleRead), 20),
        any("a proposal sent twice", slip(Slip::ProposedTwice), 20),
        any("a refusal told as done", slip(Slip::RefusalForgotten), 20),
        any("a revocation before its time", slip(Slip::RevokedEarly), 20),
        any("a look before the interest", slip(Slip::LookedBefore), 60),
        any("news that are not heard", slip(Slip::NewsUnheard), 20),
        any("a watcher that begins a revision late", slip(Slip::BeganLate), 20),
        any("a message to a watcher that is lost", slip(Slip::MessageLost), 20),
        any("messages to a watch stream in another order", slip(Slip::MessagesSwapped), 20),
        of_three("a read that asks nobody", slip(Slip::UnaskedRead), 20),
        of_three("a renewal that asks nobody", slip(Slip::RenewedUnasked), 40),
        of_three("a revision used twice", slip(Slip::RevisionReused), 20),
        of_three(
            "a snapshot that is served when half of it is there",
            slip(Slip::HalfInstalled),
            60,
        ),
        Planted {
            weather: rotten,
            ..of_three("an empty tree that is served", slip(Slip::ServedEmpty), 300)
        },
        // Between members.
        of_three("a vote given to anybody", gust(Gust::VotesGranted), 40),
        of_three("a commit without a quorum", gust(Gust::AppendsConfirmed), 40),
        Planted {
            weather: divided,
            ..of_three("a ReadIndex without a quorum", gust(Gust::ReadsConfirmed), 40)
        },
        of_three("a forwarded proposal taken twice", gust(Gust::ForwardedTwice), 20),
    ]
}

/// A bug in checkpoints, and in how many crash states it must be seen.
struct InCheckpoints {
    name: &'static str,
    bug: Bug,
    states_max: u64,
}

impl InCheckpoints {
    /// Whether it is caught. That the same states are sound without it is a test of its own.
    fn is_caught(&self) -> Result<(), String> {
        let Self { name, bug, states_max } = *self;
        let why = first_wrong(bug, states_max)
            .ok_or_else(|| format!("{name}: survived {states_max} states"))?;
        println!("{name}: {why}");
        Ok(())
    }
}

fn in_checkpoints() -> Vec<InCheckpoints> {
    let order = |order| Bug { order, ..Bug::default() };
    let applied = |applied| Bug { applied, ..Bug::default() };
    let tamper = |tamper| Bug { tamper: Some(tamper), ..Bug::default() };
    let any = |name, bug, states_max| InCheckpoints { name, bug, states_max };
    vec![
        any("pages after their superblock", order(DiskOrder::FilesAfterSuperblock("idx")), 500),
        any("records after their superblock", order(DiskOrder::FilesAfterSuperblock("rec")), 500),
        any(
            "a page file's name after its superblock",
            order(DiskOrder::NamesAfterSuperblock("idx")),
            500,
        ),
        any(
            "a segment's name after its superblock",
            order(DiskOrder::NamesAfterSuperblock("rec")),
            500,
        ),
        any("files removed before the superblock lets go", order(DiskOrder::SuperblockLast), 500),
        any("a replay that starts late", applied(1), 500),
        any("a replay that starts early", applied(-1), 500),
        any("a count that is not carried up", tamper(forge::lose_a_count), 500),
        any("a sweep that is remembered before it is done", tamper(forge::claim_swept), 5_000),
    ]
}

/// Something to be caught: its name, and whether it is.
type Trial = (&'static str, Box<dyn Fn() -> Result<(), String> + Send + Sync>);

fn trials(in_full: bool) -> Vec<Trial> {
    let in_lives = all()
        .into_iter()
        .map(|planted| -> Trial { (planted.name, Box::new(move || planted.is_caught(in_full))) });
    let in_checkpoints = in_checkpoints()
        .into_iter()
        .map(|planted| -> Trial { (planted.name, Box::new(move || planted.is_caught())) });
    in_lives.chain(in_checkpoints).collect()
}

#[test]
fn planted_bugs_are_caught() {
    let wanted = std::env::var("RINGLEADER_MUTANTS").ok();
    let is_wanted = |(name, _): &Trial| wanted.as_deref().is_none_or(|words| name.contains(words));
    let trials: Vec<Trial> = trials(wanted.is_some()).into_iter().filter(is_wanted).collect();
    assert!(!trials.is_empty(), "no mutant has {wanted:?} in its name");
    let (next, survived) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((_, trial)) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let caught = trial();
                    survived.lock().expect("nobody panics here").extend(caught.err());
                }
            });
        }
    });
    let survived = survived.into_inner().expect("nobody panics here");
    assert!(survived.is_empty(), "{}", survived.join("\n"));
}
