//! What a seed makes happen to a member: sizes, days, and a disk that takes its time.
//!
//! Each member has a row of days of its own; each is one boot and has an end of its own. When all
//! rows are over a calm stretch begins for all at once, on which everything must finish; then there is
//! a last look, for which nothing may be missing. Between members there are [`Winds`].

use crate::{clocks::Rate, executor::Lot};
use ringleader::{io::BLOCK_BYTES, tree};
use std::{fmt, time::Duration};

/// Heartbeats in an election timeout, as etcd has it.
pub(crate) const ELECTION_TICKS: usize = 10;
/// A restart takes a moment, during which nobody draws tickets.
const RESTART: Duration = Duration::from_secs(1);

/// Everything that is drawn before a run begins.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) wal_blocks: u64,
    pub(crate) tree: tree::Options,
    pub(crate) ring_messages: usize,
    pub(crate) checkpoint_entries: u64,
    pub(crate) tick: Duration,
    pub(crate) shards: usize,
    /// Requests that a shard's clients have on their way at once.
    pub(crate) outstanding: usize,
    pub(crate) keys: u64,
    pub(crate) value_bytes: u64,
    /// Longest TTL that is usually asked for, seconds.
    pub(crate) ttl_max: u64,
    /// Watch streams that a shard's clients open.
    pub(crate) streams: usize,
    /// Bytes at which responses to watchers come in parts.
    pub(crate) fragment_bytes: usize,
    /// Of each member, its days.
    pub(crate) rows: Vec<Vec<Day>>,
    /// What members do until the last of them has no rough days left.
    pub(crate) stay: Day,
    pub(crate) calm: Day,
    pub(crate) last_look: Day,
    pub(crate) winds: Winds,
    /// Whether all members start anew when it calms down.
    pub(crate) calm_boots: bool,
    /// All are killed at once after this time.
    pub(crate) blackout: Option<Duration>,
    pub(crate) pre_vote: bool,
    /// Members are changed and the lead is moved; with or without `--strict-reconfig-check`.
    pub(crate) operators: bool,
    pub(crate) strict: bool,
    /// Logs rot, of so many members that a quorum is whole.
    pub(crate) rot: bool,
    /// How fast the machines' clocks go.
    pub(crate) clocks: Vec<Rate>,
    /// Clocks on the wall are set, while members run and between.
    pub(crate) walls: bool,
}

/// The network between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Winds {
    /// How long a message takes.
    pub(crate) delay_micros_max: u64,
    /// Whether what goes the same way keeps its order, but for what is late.
    pub(crate) orderly: bool,
    /// One message in so many is lost, comes twice, or comes much later.
    pub(crate) loss_odds: Option<u64>,
    pub(crate) twice_odds: Option<u64>,
    pub(crate) late_odds: Option<u64>,
    pub(crate) late_micros_max: u64,
    /// Between two storms, at most: links are cut for a while, or slow.
    pub(crate) lull: Option<Duration>,
    pub(crate) storm: Duration,
}

/// One boot.
#[derive(Clone, Debug)]
pub(crate) struct Day {
    /// Requests that clients make; then they say goodbye.
    pub(crate) requests: u64,
    pub(crate) tempo: Tempo,
    pub(crate) drought: Option<Drought>,
    /// The process stands still now and then while time goes on.
    pub(crate) pauses: bool,
    pub(crate) fate: Fate,
    /// Fate and drought begin when the member begins to serve, not when it begins to recover.
    pub(crate) while_serving: bool,
    /// Whether the machine loses power after the day, whatever ended it.
    pub(crate) dark: bool,
    /// Clients leave after this time, whether or not everything was asked and answered.
    pub(crate) patience: Option<Duration>,
    /// Only reads are asked.
    pub(crate) reads_only: bool,
    /// Clients pause up to so long between requests.
    pub(crate) leisure: Duration,
    /// How long clients stay when all is answered, renew their leases and watch. Whoever watches
    /// must then have been told everything.
    pub(crate) rest: Duration,
    /// Watchers of a stream whose client asks for many and stops reading; 0 for no such stream.
    pub(crate) crowd: u64,
    /// The process is killed after this time, wherever its disk is.
    pub(crate) killed_after: Option<Duration>,
    /// How long nobody starts it again.
    pub(crate) down: Duration,
}

/// The disk is full for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drought {
    pub(crate) after: Duration,
    pub(crate) lasts: Duration,
    /// What files may take in all meanwhile.
    pub(crate) space_bytes: u64,
}

/// How long operations take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tempo {
    pub(crate) micros_max: u64,
    /// One operation in so many takes seconds.
    pub(crate) stall_odds: Option<u64>,
    pub(crate) stall_micros_max: u64,
}

/// What befalls a day unless its requests are done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Nothing,
    /// The process or the machine ends at the n-th operation of the disk.
    Crash(u64),
    /// The n-th sync fails.
    FailedSync(u64),
    /// The n-th write fails.
    FailedWrite(u64),
}

impl Weather {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut lot = Lot::new(seed ^ 0x77ea_7e12);
        let lot = &mut lot;
        match [1, 1, 3, 3, 3, 3, 3, 5][lot.below(8) as usize] {
            1 => Self::draw_alone(lot),
            members => Self::draw_cluster(lot, members),
        }
    }

    /// The life of one member.
    pub(crate) fn draw_alone(lot: &mut Lot) -> Self {
        let row: Vec<Day> = (0..1 + lot.below(9)).map(|_| Day::draw(lot)).collect();
        let tempo = lot.below(3) as usize;
        let tick = Duration::from_millis([1, 10, 100][tempo]);
        Self::draw_rest(lot, vec![row], tick, [2, 3, 5][tempo]).with_clocks(lot)
    }

    /// The life of several.
    pub(crate) fn draw_cluster(lot: &mut Lot, members: u64) -> Self {
        let tempo = lot.below(3) as usize;
        let tick = Duration::from_millis([5, 20, 100][tempo]);
        let election = tick * ELECTION_TICKS as u32;
        let days = 1 + lot.below(4);
        let row = |lot: &mut Lot| {
            let days = lot.below(days + 1);
            (0..days).map(|_| Day::draw_in_company(lot, election)).collect()
        };
        let rows = (0..members).map(|_| row(lot)).collect();
        let weather = Self::draw_rest(lot, rows, tick, [2, 3, 5][tempo]);
        let operators = lot.one_in(3);
        Self {
            winds: Winds::draw(lot, tick),
            calm_boots: lot.one_in(2),
            blackout: lot.one_in(4).then(|| election * (1 + lot.below(60) as u32)),
            pre_vote: lot.below(4) > 0,
            operators,
            rot: !operators && lot.one_in(2),
            strict: lot.one_in(2),
            ..weather
        }
        .with_clocks(lot)
    }

    fn with_clocks(mut self, lot: &mut Lot) -> Self {
        self.clocks.fill_with(|| Rate::draw(lot));
        self.walls = lot.one_in(2);
        self
    }

    fn draw_rest(lot: &mut Lot, rows: Vec<Vec<Day>>, tick: Duration, ttl_max: u64) -> Self {
        // Every lease has its whole TTL and an election from the start; and a second more.
        let rest = Duration::from_secs(ttl_max + 1) + tick * 10;
        let calm = Day::calm(20 + lot.below(40), false);
        Self {
            wal_blocks: [8, 9, 12, 16, 40][lot.below(5) as usize],
            tree: tree::Options {
                page_bytes: [256, 512, 2048][lot.below(3) as usize],
                segment_bytes: [4 << 10, 8 << 10, 20 << 10, 64 << 10][lot.below(4) as usize],
                index_files: 6,
            },
            ring_messages: [1, 2, 4, 64][lot.below(4) as usize],
            checkpoint_entries: [1, 3, 8, 30, 1_000][lot.below(5) as usize],
            tick,
            ttl_max,
            streams: lot.below(4) as usize,
            fragment_bytes: [64, 600, 4_000][lot.below(3) as usize],
            shards: 1 + lot.below(3) as usize,
            outstanding: 1 + lot.below(5) as usize,
            keys: 1 + lot.below(12),
            value_bytes: [8, 40, 700][lot.below(3) as usize],
            clocks: vec![Rate::RIGHT; rows.len()],
            walls: false,
            rows,
            stay: Day { leisure: tick * 5, ..Day::calm(30, false) },
            calm: Day { rest, crowd: Day::draw_crowd(lot), ..calm },
            last_look: Day { rest: rest / 2, ..Day::calm(8, true) },
            winds: Winds::calm(),
            calm_boots: true,
            blackout: None,
            pre_vote: true,
            operators: false,
            strict: true,
            rot: false,
        }
    }

    /// How many members there are.
    pub(crate) fn members(&self) -> u64 {
        self.rows.len() as u64
    }

    /// How long a leader may be silent.
    pub(crate) fn election(&self) -> Duration {
        self.tick * ELECTION_TICKS as u32
    }

    fn days(&mut self) -> impl Iterator<Item = &mut Day> {
        let Self { rows, stay, calm, last_look, .. } = self;
        rows.iter_mut().flatten().chain([stay, calm, last_look])
    }

    /// Without failing I/O and full disks; and without clocks on the wall that are set, since starts
    /// have no other number where what is known of them is forgotten.
    pub(crate) fn gentle(mut self) -> Self {
        (self.rot, self.walls) = (false, false);
        for day in self.days() {
            day.drought = None;
            if matches!(day.fate, Fate::FailedSync(_) | Fate::FailedWrite(_)) {
                day.fate = Fate::Nothing;
            }
        }
        self
    }

    /// Lives in which less happens, each with a word for what is left out; the shortest first.
    pub(crate) fn shorter(&self) -> Vec<(String, Self)> {
        let mut all = Vec::new();
        let mut offer = |what: String, change: &dyn Fn(&mut Self)| {
            let mut shorter = self.clone();
            change(&mut shorter);
            if format!("{shorter:?}") != format!("{self:?}") {
                all.push((what, shorter));
            }
        };
        for machine in 0..self.rows.len() {
            offer(format!("all days of machine {machine}"), &|w| w.rows[machine].clear());
        }
        offer("the wind".into(), &|w| w.winds = Winds::calm());
        offer("storms".into(), &|w| w.winds.lull = None);
        offer("rot".into(), &|w| w.rot = false);
        offer("clocks that go wrong".into(), &|w| w.clocks.fill(Rate::RIGHT));
        offer("clocks that are set".into(), &|w| w.walls = false);
        offer("operators".into(), &|w| w.operators = false);
        offer("the blackout".into(), &|w| w.blackout = None);
        for most in [1, 4, 16, 64] {
            let few = |w: &mut Self| w.days().for_each(|day| day.requests = day.requests.min(most));
            offer(format!("requests above {most} a day"), &few);
        }
        offer("watchers".into(), &|w| w.streams = 0);
        offer("pauses".into(), &|w| w.days().for_each(|day| day.pauses = false));
        offer("droughts".into(), &|w| w.days().for_each(|day| day.drought = None));
        offer("crowds".into(), &|w| w.days().for_each(|day| day.crowd = 0));
        for machine in 0..self.rows.len() {
            let shorter = |w: &mut Self| {
                let last = w.rows[machine].len().saturating_sub(1);
                w.rows[machine].truncate(last);
            };
            offer(format!("a day of machine {machine}"), &shorter);
        }
        all
    }

    pub(crate) fn wal_segment_bytes(&self) -> u64 {
        self.wal_blocks * BLOCK_BYTES as u64
    }
}

impl Day {
    fn draw(lot: &mut Lot) -> Self {
        let (while_serving, leisurely) = (lot.below(3) > 0, lot.one_in(3));
        let soon = 1 + lot.draw() % (1 << (2 + lot.below(5 + 4 * u64::from(while_serving))));
        let requests = 4 + lot.draw() % (1 << (3 + lot.below(6)));
        Self {
            requests,
            tempo: Tempo::draw(lot, leisurely),
            drought: lot.one_in(3).then(|| Drought::draw(lot)),
            pauses: lot.one_in(4),
            fate: match lot.below(8) {
                0..4 => Fate::Crash(soon),
                4 => Fate::FailedSync(1 + soon / 3),
                5 => Fate::FailedWrite(1 + soon / 3),
                _ => Fate::Nothing,
            },
            while_serving,
            dark: lot.below(3) > 0,
            patience: lot.one_in(4).then(|| Duration::from_micros(lot.below(200_000))),
            reads_only: false,
            leisure: Duration::from_millis(if leisurely { 200 } else { 2 }),
            rest: Duration::ZERO,
            crowd: Self::draw_crowd(lot),
            killed_after: None,
            down: RESTART,
        }
    }

    /// A day of one member of several, in whose election timeouts all is measured.
    fn draw_in_company(lot: &mut Lot, election: Duration) -> Self {
        let elections = |lot: &mut Lot, most: u64| election * lot.below(most * 10) as u32 / 10;
        let day = Self::draw(lot);
        let while_serving = day.while_serving || lot.one_in(2);
        let long = if lot.one_in(3) { 30 } else { 3 };
        Self {
            tempo: Tempo::draw_in_company(lot, election),
            drought: lot.one_in(6).then(|| Drought::draw(lot)),
            while_serving,
            patience: lot.one_in(2).then(|| elections(lot, 60)),
            leisure: if lot.one_in(3) { election / 5 } else { election / 100 },
            killed_after: lot.one_in(4).then(|| elections(lot, 40)),
            down: elections(lot, long).max(Duration::from_millis(1)),
            crowd: if lot.one_in(4) { day.crowd } else { 0 },
            fate: if while_serving && lot.one_in(2) { Fate::Nothing } else { day.fate },
            ..day
        }
    }

    fn draw_crowd(lot: &mut Lot) -> u64 {
        if lot.one_in(8) { 100 + lot.below(200) } else { 0 }
    }

    pub(crate) fn calm(requests: u64, reads_only: bool) -> Self {
        Self {
            requests,
            tempo: Tempo::calm(),
            drought: None,
            pauses: false,
            fate: Fate::Nothing,
            while_serving: false,
            dark: true,
            patience: None,
            reads_only,
            leisure: Duration::from_millis(2),
            rest: Duration::ZERO,
            crowd: 0,
            killed_after: None,
            down: RESTART,
        }
    }
}

impl Winds {
    fn draw(lot: &mut Lot, tick: Duration) -> Self {
        let tick_micros = tick.as_micros() as u64;
        let odds =
            |lot: &mut Lot, odds: [u64; 4]| Some(odds[lot.below(4) as usize]).filter(|n| *n > 0);
        Self {
            delay_micros_max: [10, tick_micros / 20, tick_micros / 2, tick_micros * 3]
                [lot.below(4) as usize],
            orderly: lot.one_in(2),
            loss_odds: odds(lot, [0, 0, 50, 8]),
            twice_odds: odds(lot, [0, 0, 20, 3]),
            late_odds: odds(lot, [0, 0, 100, 10]),
            late_micros_max: tick_micros * [10, 100, 1_000][lot.below(3) as usize],
            lull: lot.one_in(2).then(|| tick * 10 * (1 + lot.below(60) as u32)),
            storm: tick * 10 * (1 + lot.below(30) as u32),
        }
    }

    pub(crate) fn calm() -> Self {
        Self {
            delay_micros_max: 100,
            orderly: true,
            loss_odds: None,
            twice_odds: None,
            late_odds: None,
            late_micros_max: 1,
            lull: None,
            storm: Duration::ZERO,
        }
    }
}

impl fmt::Display for Day {
    /// What is not as on any day.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests", self.requests)?;
        match self.fate {
            Fate::Nothing => {}
            fate => write!(f, ", {fate:?}{}", if self.while_serving { " of serving" } else { "" })?,
        }
        for (what, after) in [("killed", self.killed_after), ("clients leave", self.patience)] {
            after.map_or(Ok(()), |after| write!(f, ", {what} after {after:?}"))?;
        }
        if let Some(Drought { after, lasts, space_bytes }) = self.drought {
            write!(f, ", disk full at {space_bytes} bytes after {after:?} for {lasts:?}")?;
        }
        let Tempo { micros_max, stall_odds, .. } = self.tempo;
        let flags = [
            (self.pauses, ", pauses"),
            (stall_odds.is_some(), ", stalls"),
            (self.crowd > 0, ", a crowd"),
            (self.reads_only, ", only reads"),
            (!self.dark, ", power stays"),
        ];
        flags.iter().filter(|(is_so, _)| *is_so).try_for_each(|(_, what)| f.write_str(what))?;
        write!(f, ", {micros_max} µs an operation")
    }
}

impl Drought {
    fn draw(lot: &mut Lot) -> Self {
        let after_max = [0, 1_000, 20_000][lot.below(3) as usize];
        Self {
            after: Duration::from_micros(lot.below(after_max + 1)),
            lasts: Duration::from_millis(lot.below(20_000)),
            space_bytes: lot.below(600_000),
        }
    }
}

impl Tempo {
    /// The disk is often slow where nobody is in a hurry, so that what is asked then is asked while
    /// something is on its way to it.
    fn draw(lot: &mut Lot, leisurely: bool) -> Self {
        let kinds = if leisurely { 8 } else { 4 };
        let micros_max =
            [0, 50, 500, 20_000].get(lot.below(kinds) as usize).copied().unwrap_or(20_000);
        let stall_odds = lot.one_in(4).then_some(150);
        Self { micros_max, stall_odds, stall_micros_max: 5_000_000 }
    }

    /// A disk that is too slow for its election timeout is as good as none.
    fn draw_in_company(lot: &mut Lot, election: Duration) -> Self {
        let election = election.as_micros() as u64;
        let micros_max = [0, 50, election / 200, election / 30][lot.below(4) as usize];
        let stall_odds = lot.one_in(4).then_some(150);
        Self { micros_max, stall_odds, stall_micros_max: election * 3 }
    }

    pub(crate) fn calm() -> Self {
        Self { micros_max: 50, stall_odds: None, stall_micros_max: 1 }
    }
}
