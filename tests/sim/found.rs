//! Bugs that the simulator found, each as the smallest life that showed it.

use crate::{
    member::Mutant,
    weather::{Day, Drought, Tempo, Weather},
    world::live,
};
use ringleader::tree;
use std::time::Duration;

/// A plain life of `days`, and a calm day after them.
fn plain(mut days: Vec<Day>) -> Weather {
    days.push(Day::calm(8, true));
    Weather {
        wal_blocks: 8,
        tree: tree::Options { page_bytes: 512, segment_bytes: 8 << 10 },
        ring_messages: 64,
        checkpoint_entries: 1_000,
        tick: Duration::from_millis(10),
        shards: 1,
        outstanding: 4,
        keys: 4,
        value_bytes: 700,
        days,
    }
}

fn sound(weather: Weather) {
    for seed in 0..20 {
        let lived = live(seed, weather.clone(), Mutant::default());
        assert!(lived.is_ok(), "seed {seed}: {}", lived.expect_err("it is not sound"));
    }
}

#[test]
fn an_answer_before_the_first_election_tells_the_term_of_what_it_shows() {
    sound(plain(vec![Day::calm(20, false), Day::calm(20, false)]));
}

#[test]
fn a_member_that_is_told_to_stop_while_its_disk_is_full_stops() {
    let drought =
        Drought { after: Duration::ZERO, lasts: Duration::from_secs(1_800), space_bytes: 0 };
    let day = Day {
        drought: Some(drought),
        while_serving: true,
        patience: Some(Duration::from_secs(60)),
        tempo: Tempo { micros_max: 50, stall_odds: None },
        ..Day::calm(200, false)
    };
    sound(plain(vec![day]));
}
