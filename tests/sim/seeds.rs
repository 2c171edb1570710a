//! Seeds: which are lived, a few of them twice, on all cores; and how a failure is told.

use crate::{
    member::Mutant,
    weather::Weather,
    world::{Sights, Trace, live},
};
use std::{
    io::IsTerminal,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Seeds that every test run tries.
const SEEDS: Range<u64> = 0..500;
/// One seed in so many is lived twice, which must come out the same.
const TWICE_ODDS: u64 = 10;

const SIGHTS: [&str; 33] = [
    "a clock that was set",
    "a lead that was handed over",
    "a leader that was alone",
    "a log that rotted",
    "a log that was lost",
    "a member that was replaced",
    "a message that came twice",
    "a proposal that was forwarded",
    "a snapshot that came in",
    "a crash while it recovered",
    "a crash while it served",
    "a crash during a checkpoint",
    "a death by damage",
    "a death by failed I/O",
    "a full disk",
    "a full disk that it stopped on",
    "a lease that a client revoked",
    "a lease that expired",
    "a lease that was renewed",
    "a log of several segments",
    "a log that was trimmed",
    "a rewritten record segment",
    "a tree that rotted",
    "a tree that was fetched anew",
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

/// Lives a seed's life, or two that must be the same.
fn lives(seed: u64) -> Result<Trace, String> {
    let weather = Weather::draw(seed);
    let outcome = live(seed, weather.clone(), Mutant::default()).and_then(|first| {
        if !seed.is_multiple_of(TWICE_ODDS) {
            return Ok(first);
        }
        let second = live(seed, weather.clone(), Mutant::default())?;
        match first == second {
            true => Ok(first),
            false => Err(format!("twice the same seed: {first:x?}, then {second:x?}")),
        }
    });
    outcome.map_err(|why| tell_short(seed, &weather, Mutant::default(), why))
}

/// Lives that are tried to tell a failure's story in few words.
const TRIES_MAX: usize = 60;

/// The story of a failure, of the shortest life found that fails in the same way.
pub(crate) fn tell_short(seed: u64, weather: &Weather, mutant: Mutant, why: String) -> String {
    let (mut weather, mut why, mut left_out, mut tries) =
        (weather.clone(), why, Vec::new(), TRIES_MAX);
    while let Some((what, shorter, failure)) = shorten(seed, &weather, mutant, &why, &mut tries) {
        (weather, why) = (shorter, failure);
        left_out.push(what);
    }
    let left_out = left_out.join(", ");
    format!("seed {seed} failed: {why}\n\nIt fails as well without {left_out}.\n{weather:?}")
}

/// The first shorter life that fails in the same way.
fn shorten(
    seed: u64,
    weather: &Weather,
    mutant: Mutant,
    why: &str,
    tries: &mut usize,
) -> Option<(String, Weather, String)> {
    for (what, shorter) in weather.shorter() {
        *tries = tries.checked_sub(1)?;
        if let Err(failure) = live(seed, shorter.clone(), mutant)
            && kind(&failure) == kind(why)
        {
            return Some((what, shorter, failure));
        }
    }
    None
}

/// The first words of a failure, without its numbers.
fn kind(why: &str) -> String {
    const LETTERS: usize = 16;
    why.chars().filter(|c| c.is_alphabetic()).take(LETTERS).collect()
}

/// Runs seeds on all cores and returns what went wrong, and what was seen.
fn run(seeds: Range<u64>) -> (Vec<String>, Sights) {
    let next = AtomicU64::new(seeds.start);
    let bar = std::io::stderr().is_terminal();
    let outcome = Mutex::new((Vec::new(), Sights::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let lived = lives(seed);
                    if bar {
                        draw_bar(seed - seeds.start + 1, seeds.end - seeds.start);
                    }
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

/// A line that is drawn over again.
fn draw_bar(done: u64, all: u64) {
    const WIDTH: u64 = 40;
    let full = "#".repeat((done * WIDTH / all) as usize);
    eprint!("\r[{full:<40}] {done} of {all} seeds");
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
            .args(["--exact", "--nocapture", "seeds::a_seed_is_the_same_in_another_process"])
            .env(ASKED_SEED, seed.to_string())
            .output()
            .expect("the test can be started again");
        let there = String::from_utf8_lossy(&child.stdout);
        assert!(there.contains(&here), "seed {seed}: {here} here, but there\n{there}");
    }
}
