//! What the cells mean for this host, in words; and no more than the cells say.
//!
//! ```text
//!   steady        no election, no failed put, no trouble
//!   the cliff     the longest election timeout at which a pair of clocks was not
//!   asked for     twice the timeout at the cliff; ten round trips; what the disk asks for
//! ```
//!
//! A cell is seconds long, and what is rarer than that is not in it: hence the twice. The defaults stay where
//! they were steady and are no shorter than what is asked for.

use std::fmt;

use serde_json::{Value, json};

use super::{
    cell::{CONNECTIONS, Effort, Row, STREAMS},
    grid::{Clocks, Place, Program},
};

/// Room above the timeout at the cliff.
const ROOM: u64 = 2;
/// etcd's rule of thumb for an election timeout, in round trips.
const ROUND_TRIPS: f64 = 10.0;
/// A larger part of p99 than this that is our own is worth a word.
const OWN_PART_MAX: f64 = 0.1;

/// What is known beside the cells.
#[derive(Clone, Debug)]
pub(super) struct Known<'a> {
    pub(super) effort: Effort,
    pub(super) members: u64,
    pub(super) cpus: u64,
    /// As the table's head has it.
    pub(super) disk: &'a Value,
    /// Between the members that are to be, ms.
    pub(super) round_trip_ms: f64,
}

/// In words. [`fmt::Display`] is all of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Advice {
    /// Of the disk, and what the rest is derived from.
    pub(super) ground: Vec<String>,
    pub(super) programs: Vec<(Program, Vec<String>)>,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ground.iter().try_for_each(|sentence| writeln!(f, "{sentence}"))?;
        for (program, sentences) in &self.programs {
            writeln!(f, "\n{}", program.title())?;
            sentences.iter().try_for_each(|sentence| writeln!(f, "  {sentence}"))?;
        }
        Ok(())
    }
}

impl Advice {
    pub(super) fn json(&self) -> Value {
        let of = |program: &Program| {
            self.programs.iter().find(|(one, _)| one == program).map(|(_, sentences)| sentences)
        };
        let [ringleader, etcd] = Program::ALL.each_ref().map(of);
        json!({ "ground": self.ground, "ringleader": ringleader, "etcd": etcd })
    }

    pub(super) fn of(rows: &[Row], known: &Known<'_>) -> Self {
        let programs = Program::ALL.into_iter().filter_map(|program| {
            let rows: Vec<_> = rows.iter().filter(|row| row.setting.program == program).collect();
            let said = || sentences(&rows, known).iter().map(|said| capital(said)).collect();
            (!rows.is_empty()).then(|| (program, said()))
        });
        let mut ground = ground(known);
        ground.extend(busy(rows));
        Self { ground, programs: programs.collect() }
    }
}

fn ground(known: &Known<'_>) -> Vec<String> {
    let Known { effort, members, cpus, disk, .. } = known;
    let number = |name: &str| disk[name].as_f64();
    let disk = match (number("p50_ms"), number("p99_ms"), number("max_ms"), asked_ms(disk)) {
        (Some(p50), Some(p99), Some(max), Some(asked)) => format!(
            "This disk took {} for a block's write and sync at p50, {} at p99, {} at most, in a short \
             test: that alone asks for an election timeout of {asked} ms.",
            ms(p50),
            ms(p99),
            ms(max)
        ),
        _ => format!("This disk was not measured: {}.", disk["why"].as_str().unwrap_or("unknown")),
    };
    let together = match members {
        1 => "one member and loadgen share".to_owned(),
        _ => format!("all {members} members and loadgen share"),
    };
    let derived = format!(
        "The rest is derived from the cells: {:.1} s of undisturbed load and {} kill -9 of the leader \
         in each, on this host, where {together} {cpus} CPUs and one disk. What is rarer than that is not \
         seen here.",
        effort.closed + effort.open,
        effort.kills,
    );
    vec![disk, derived]
}

/// Whether the host had something else to do.
fn busy(rows: &[Row]) -> Option<String> {
    let late = |row: &&Row| {
        row.own_p99_ms.zip(row.p99_ms).is_some_and(|(own, p99)| own > OWN_PART_MAX * p99)
    };
    let (late, all) = (rows.iter().filter(late).count(), rows.len());
    (late > 0).then(|| {
        format!(
            "In {late} of {all} cells loadgen itself was late by more than a tenth of p99: this host was \
             busy, perhaps with something else, and the latencies have that in them."
        )
    })
}

/// The election timeout that the disk alone asks for.
fn asked_ms(disk: &Value) -> Option<u64> {
    disk["election_ms_asked"].as_u64()
}

fn sentences(rows: &[&Row], known: &Known<'_>) -> Vec<String> {
    let network_ms = nearest(rows.iter().map(|row| row.setting.place.network_ms), known);
    let here = Place { sync_ms: 0, tail: None, network_ms };
    let mut said = Vec::new();
    if known.round_trip_ms > 2.0 * network_ms as f64 {
        said.push(format!(
            "A round trip of {} is longer than any that was swept: what follows is for {} ms, and says \
             nothing of more.",
            ms(known.round_trip_ms),
            2 * network_ms
        ));
    }
    let at = |place| {
        rows.iter()
            .copied()
            .find(|row| row.setting.place == place && row.setting.clocks == Clocks::DEFAULT)
    };
    let corners = corners(rows);
    let usual = nearest(
        corners
            .iter()
            .filter(|place| place.sync_ms == 0 && place.tail.is_none())
            .map(|place| place.network_ms),
        known,
    );
    let ours = Place { network_ms: usual, ..here };
    if corners.contains(&ours) {
        let pairs = Pairs::at(rows, ours);
        let with = match ours.network_ms {
            0 => String::new(),
            _ => format!("With {ours}: "),
        };
        said.extend([pairs.advice(known), pairs.cliff(known)].map(|said| with.clone() + &said));
    }
    said.extend(at(here).map(|row| expect(row, known)));
    said.extend(slower(rows, network_ms, known));
    for place in corners.into_iter().filter(|place| *place != ours) {
        said.push(format!("With {place}: {}", Pairs::at(rows, place).cliff(known)));
    }
    said
}

/// The shortest delay that was swept and is no shorter than the round trip's half; else the longest.
fn nearest(swept: impl Iterator<Item = u64> + Clone, known: &Known<'_>) -> u64 {
    let enough = swept.clone().filter(|ms| 2.0 * *ms as f64 >= known.round_trip_ms).min();
    enough.or_else(|| swept.max()).unwrap_or(0)
}

/// Places where more than one pair of clocks was tried, in the order of the rows.
fn corners(rows: &[&Row]) -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    for row in rows {
        let place = row.setting.place;
        let pairs = rows.iter().filter(|row| row.setting.place == place).count();
        if pairs > 1 && !found.contains(&place) {
            found.push(place);
        }
    }
    found
}

fn expect(row: &Row, known: &Known<'_>) -> String {
    let Place { network_ms, .. } = row.setting.place;
    let mut said = match network_ms {
        0 => "With this disk and nothing added".to_owned(),
        one_way => format!("With this disk and a round trip of {} ms", 2 * one_way),
    };
    said += &format!(" expect, at {}: ", row.setting.clocks);
    if !row.trouble.is_empty() {
        return said + &row.trouble + ".";
    }
    said += &format!(
        "{} puts a second from {} clients that wait for each; at {:.0} a second {}.",
        whole(row.per_second.unwrap_or_default()),
        CONNECTIONS * STREAMS,
        known.effort.rate,
        latencies(row),
    );
    said + &after_kill(row)
}

fn latencies(row: &Row) -> String {
    let all = [("p50", row.p50_ms), ("p99", row.p99_ms), ("p99.9", row.p999_ms)];
    let known = all.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", ms(value?))));
    known.collect::<Vec<_>>().join(", ")
}

fn after_kill(row: &Row) -> String {
    let (Some(median), Some(max)) = (row.leaderless_median_ms(), row.leaderless_max_ms()) else {
        return String::new();
    };
    match row.leaderless_ms.len() {
        1 => format!(" After the leader was killed the next write was accepted in {}.", ms(median)),
        many => format!(
            " After the leader was killed the next write was accepted in {}, {} at most of {many}.",
            ms(median),
            ms(max)
        ),
    }
}

/// What longer syncs do.
fn slower(rows: &[&Row], network_ms: u64, known: &Known<'_>) -> Option<String> {
    let usual = rows.iter().filter(|row| {
        let Place { sync_ms, tail, network_ms: at } = row.setting.place;
        sync_ms > 0 && tail.is_none() && at == network_ms && row.setting.clocks == Clocks::DEFAULT
    });
    let each = usual.map(|row| {
        let (sync_ms, rate) = (row.setting.place.sync_ms, row.per_second.unwrap_or_default());
        match row.trouble.as_str() {
            "" => format!("by {sync_ms} ms: {} puts a second; {}", whole(rate), latencies(row)),
            trouble => format!("by {sync_ms} ms: {trouble}"),
        }
    });
    let each = each.collect::<Vec<_>>();
    (!each.is_empty()).then(|| {
        format!(
            "Where each sync is longer, by so much, and at {:.0} puts a second: {}.",
            known.effort.rate,
            each.join("; ")
        )
    })
}

/// All pairs of clocks that were tried at one place, by election timeout.
struct Pairs<'a> {
    place: Place,
    rows: Vec<&'a Row>,
}

impl<'a> Pairs<'a> {
    fn at(rows: &[&'a Row], place: Place) -> Self {
        let mut rows: Vec<_> =
            rows.iter().copied().filter(|row| row.setting.place == place).collect();
        rows.sort_by_key(|row| (row.setting.clocks.election_ms, row.setting.clocks.heartbeat_ms));
        Self { place, rows }
    }

    /// The longest election timeout that was not steady.
    fn edge(&self) -> Option<&'a Row> {
        self.rows.iter().rev().find(|row| !row.is_steady()).copied()
    }

    /// The shortest election timeout from which on all pairs were steady.
    fn steady_from(&self) -> Option<u64> {
        let edge = self.edge().map_or(0, |row| row.setting.clocks.election_ms);
        let above = self.rows.iter().map(|row| row.setting.clocks.election_ms);
        above.filter(|election_ms| *election_ms > edge).min()
    }

    /// What is asked of the election timeout, ms, and by what.
    fn asked(&self, known: &Known<'_>) -> (u64, &'static str) {
        let round_trip = match known.round_trip_ms {
            0.0 => 2.0 * self.place.network_ms as f64,
            told => told,
        };
        let cliff = self.edge().map_or(0, |row| ROOM * row.setting.clocks.election_ms);
        let asks = [
            (cliff, "twice the timeout at the cliff"),
            ((ROUND_TRIPS * round_trip).ceil() as u64, "ten round trips"),
            (asked_ms(known.disk).unwrap_or(0), "what this disk asks for"),
        ];
        asks.into_iter().max_by_key(|(ms, _)| *ms).expect("there are three")
    }

    /// The shortest election timeout that was steady and is as long as asked for, with the longest
    /// heartbeat of which ten fit in; without: the shortest heartbeat.
    fn steady(&self, asked_ms: u64) -> Option<&'a Row> {
        let from = self.steady_from()?.max(asked_ms);
        let election_ms = |row: &&Row| row.setting.clocks.election_ms;
        let shortest = self.rows.iter().map(election_ms).filter(|ms| *ms >= from).min()?;
        let mut rows: Vec<_> =
            self.rows.iter().filter(|row| election_ms(row) == shortest).copied().collect();
        rows.sort_by_key(|row| {
            let Clocks { heartbeat_ms, election_ms } = row.setting.clocks;
            (election_ms < 10 * heartbeat_ms, std::cmp::Reverse(heartbeat_ms))
        });
        rows.first().copied()
    }

    fn longest_steady(&self) -> Option<&'a Row> {
        self.rows.last().copied().filter(|_| self.steady_from().is_some())
    }

    fn advice(&self, known: &Known<'_>) -> String {
        let (asked_ms, by) = self.asked(known);
        let default = self.rows.iter().find(|row| row.setting.clocks == Clocks::DEFAULT);
        let stays =
            default.filter(|row| row.is_steady() && asked_ms <= row.setting.clocks.election_ms);
        let shorter = self.steady(asked_ms);
        match (stays, shorter) {
            (Some(stays), Some(shorter)) if shorter.setting.clocks != Clocks::DEFAULT => format!(
                "use the defaults, {}: steady here.{} Where that is too long, {} was steady too, and is \
                 no shorter than {asked_ms} ms, {by}.{}",
                stays.setting.clocks,
                after_kill(stays),
                shorter.setting.clocks,
                after_kill(shorter),
            ),
            (Some(stays), _) => format!(
                "Use the defaults, {}: steady here, and nothing shorter that was tried is as long as \
                 {asked_ms} ms, {by}.{}",
                stays.setting.clocks,
                after_kill(stays),
            ),
            (None, Some(shorter)) => format!(
                "use {}: the shortest that was steady and is no shorter than {asked_ms} ms, {by}.{}",
                shorter.setting.clocks,
                after_kill(shorter),
            ),
            (None, None) => match self.longest_steady() {
                Some(row) => format!(
                    "the longest clocks that were tried, {}, were steady, but {by} is {asked_ms} ms: \
                     use an election timeout of that; it was not tried (--election).",
                    row.setting.clocks
                ),
                None => "no clocks that were tried will do: the longest was not steady. Try longer ones \
                         (--election)."
                    .to_owned(),
            },
        }
    }

    fn cliff(&self, known: &Known<'_>) -> String {
        let time = known.effort.closed + known.effort.open;
        let shortest = self.rows[0].setting.clocks.election_ms;
        let Some(edge) = self.edge() else {
            return format!(
                "no cliff was seen: down to an election timeout of {shortest} ms there was no election \
                 without cause in {time:.1} s under load."
            );
        };
        let clocks = edge.setting.clocks;
        let saw = match (&edge.trouble[..], edge.elections, edge.failed) {
            ("", Some(0), Some(failed)) => format!("{failed} puts failed in {time:.1} s"),
            ("", Some(1), _) => format!("1 election without cause in {time:.1} s"),
            ("", Some(elections), _) => {
                format!("{elections} elections without cause in {time:.1} s")
            }
            ("", ..) => "it could not be told whether there were elections".to_owned(),
            (trouble, ..) => trouble.to_owned(),
        };
        let above = match self.steady_from() {
            Some(from) => format!("From {from} ms on all were steady."),
            None => "No longer one was tried.".to_owned(),
        };
        format!("the cliff is at {clocks}: {saw}. {above}")
    }
}

fn capital(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// A whole number for people, its thousands apart.
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut said = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            said.push(',');
        }
        said.push(digit);
    }
    said
}

/// Milliseconds for people.
pub(super) fn ms(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.1} s", ms / 1e3),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms if ms >= 10.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.2} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensitivity::grid::Setting;

    const HERE: Place = Place { sync_ms: 0, tail: None, network_ms: 0 };
    const FAR: Place = Place { network_ms: 25, ..HERE };

    fn row(place: Place, heartbeat_ms: u64, election_ms: u64, elections: u64) -> Row {
        let clocks = Clocks { heartbeat_ms, election_ms };
        Row {
            per_second: Some(5_000.0),
            p50_ms: Some(1.5),
            p99_ms: Some(4.0),
            elections: Some(elections),
            failed: Some(0),
            leaderless_ms: vec![1.4 * election_ms as f64],
            ..Row::empty(Setting { place, clocks, program: Program::Ringleader })
        }
    }

    fn advised(rows: &[Row], round_trip_ms: f64, disk: &Value) -> String {
        let known = Known { effort: Effort::QUICK, members: 3, cpus: 2, disk, round_trip_ms };
        Advice::of(rows, &known).to_string()
    }

    fn disk(election_ms_asked: u64) -> Value {
        json!({ "p50_ms": 0.3, "p99_ms": 0.9, "max_ms": 2.0, "election_ms_asked": election_ms_asked })
    }

    #[test]
    fn where_nothing_falls_the_defaults_stay_and_no_cliff_is_made_up() {
        let rows = [row(HERE, 10, 50, 0), row(HERE, 10, 200, 0), row(HERE, 100, 1_000, 0)];
        let said = advised(&rows, 0.0, &disk(100));
        assert!(said.contains("Use the defaults, heartbeat 100 ms, election 1000 ms"), "{said}");
        assert!(said.contains("heartbeat 10 ms, election 200 ms was steady too"), "{said}");
        assert!(said.contains("no shorter than 100 ms, what this disk asks for"), "{said}");
        assert!(said.contains("No cliff was seen: down to an election timeout of 50 ms"), "{said}");
        assert!(
            said.contains("accepted in 1400 ms") && said.contains("5,000 puts a second"),
            "{said}"
        );
    }

    #[test]
    fn a_cliff_is_named_and_kept_away_from() {
        let rows = [row(HERE, 10, 50, 7), row(HERE, 10, 200, 1), row(HERE, 100, 1_000, 0)];
        let said = advised(&rows, 0.0, &disk(100));
        assert!(
            said.contains(
                "The cliff is at heartbeat 10 ms, election 200 ms: 1 election without cause"
            ),
            "{said}"
        );
        assert!(said.contains("From 1000 ms on all were steady"), "{said}");
        assert!(
            said.contains("nothing shorter that was tried is as long as 400 ms, twice"),
            "{said}"
        );
        let rows = [row(HERE, 10, 50, 7), row(HERE, 100, 1_000, 1)];
        let said = advised(&rows, 0.0, &disk(100));
        assert!(said.contains("No clocks that were tried will do"), "{said}");
        let longer = [&rows[..], &[row(HERE, 100, 2_500, 0)]].concat();
        let said = advised(&longer, 0.0, &disk(100));
        assert!(said.contains("Use heartbeat 100 ms, election 2500 ms"), "{said}");
        assert!(said.contains("no shorter than 2000 ms, twice the timeout at the cliff"), "{said}");
    }

    #[test]
    fn trouble_and_failed_puts_are_a_cliff_too() {
        let failed = Row { failed: Some(3), ..row(HERE, 10, 50, 0) };
        let said = advised(&[failed, row(HERE, 100, 1_000, 0)], 0.0, &disk(100));
        assert!(said.contains("election 50 ms: 3 puts failed in 2.6 s"), "{said}");
        let none =
            Row { trouble: "at the start: no leader for 3.2 s".into(), ..row(HERE, 10, 50, 0) };
        let said = advised(&[none, row(HERE, 100, 1_000, 0)], 0.0, &disk(100));
        assert!(said.contains("election 50 ms: at the start: no leader for 3.2 s"), "{said}");
    }

    #[test]
    fn the_round_trip_chooses_the_place_and_what_was_not_swept_is_said() {
        let rows = [
            row(HERE, 100, 1_000, 0),
            row(HERE, 10, 200, 0),
            row(FAR, 100, 1_000, 0),
            row(FAR, 10, 200, 2),
        ];
        let said = advised(&rows, 0.0, &disk(100));
        assert!(said.contains("nothing added expect"), "{said}");
        assert!(said.contains("With network +25 ms: the cliff is at"), "{said}");
        let said = advised(&rows, 40.0, &disk(100));
        assert!(said.contains("a round trip of 50 ms expect"), "{said}");
        assert!(said.contains("With nothing added: no cliff"), "{said}");
        let said = advised(&rows, 90.0, &disk(100));
        assert!(said.contains("90.0 ms is longer than any that was swept"), "{said}");
    }

    #[test]
    fn a_busy_host_is_owned_up_to() {
        let late = Row { own_p99_ms: Some(0.5), ..row(HERE, 100, 1_000, 0) };
        let said = advised(&[late, row(HERE, 10, 200, 0)], 0.0, &disk(100));
        assert!(said.contains("In 1 of 2 cells loadgen itself was late"), "{said}");
        let said = advised(&[row(HERE, 10, 200, 0)], 0.0, &disk(100));
        assert!(!said.contains("was late"), "{said}");
    }

    #[test]
    fn ten_round_trips_and_a_slow_disk_ask_for_longer_timeouts() {
        let rows = [row(HERE, 100, 1_000, 0), row(HERE, 100, 2_500, 0)];
        let said = advised(&rows, 0.0, &disk(1_700));
        assert!(said.contains("Use heartbeat 100 ms, election 2500 ms"), "{said}");
        assert!(said.contains("1700 ms, what this disk asks for"), "{said}");
        let shorter = [row(HERE, 10, 200, 0), row(HERE, 100, 1_000, 0)];
        let said = advised(&shorter, 0.0, &disk(1_700));
        assert!(said.contains("The longest clocks that were tried, heartbeat 100 ms"), "{said}");
        assert!(
            said.contains("were steady, but what this disk asks for is 1700 ms: use"),
            "{said}"
        );
        let said = advised(&rows, 150.0, &json!({ "why": "it is in memory" }));
        assert!(said.contains("1500 ms, ten round trips"), "{said}");
        assert!(said.contains("This disk was not measured: it is in memory."), "{said}");
    }
}
