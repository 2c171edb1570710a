//! One cell: a cluster is started, left alone under load, and then loses its leader a few times.
//!
//! ```text
//!   start ── until a write is accepted
//!   ├─ as fast as it goes ─┤├─── at a fixed rate ───┤   undisturbed: rate; latencies; elections; stalls
//!                                                    kill -9 ── until a write is accepted ── again
//! ```

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    cluster::{Cluster, Ground, Trouble},
    grid::{Clocks, Place, Program, Setting},
    probe::Probe,
    table::{Line, number, read_number},
};
use crate::{
    arrivals::{Arrivals, Schedule},
    beside::Beside,
    engine::{self, Pace, Plan, Until},
    keys::Order,
    replay::Noted,
    report::Report,
    script::{Answer, Ask, Next, Script},
    work::{Call, Work},
};

/// Clients that wait for each put, while it goes as fast as it can.
pub(super) const CONNECTIONS: usize = 10;
/// As above, on each connection.
pub(super) const STREAMS: usize = 20;
/// Puts open at a time at the fixed rate: a second's worth and more.
const OPEN_STREAMS: usize = 100;
/// Keys that are put.
const KEYS: u64 = 10_000;
/// CPU time is known in steps of 10 ms, so that of less than this says little.
const CPU_MIN: Duration = Duration::from_millis(50);
/// How often a cluster is started whose ports somebody takes.
const STARTS: usize = 3;
/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 256;

/// How long and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Effort {
    /// As fast as it goes, seconds.
    pub(super) closed: f64,
    /// At the fixed rate, seconds.
    pub(super) open: f64,
    /// Puts a second.
    pub(super) rate: f64,
    pub(super) kills: usize,
}

impl Effort {
    pub(super) const QUICK: Self = Self { closed: 0.6, open: 2.0, rate: 500.0, kills: 1 };
    pub(super) const FULL: Self = Self { closed: 3.0, open: 8.0, rate: 500.0, kills: 3 };

    /// As [`super::Sweep::setup`] has it.
    pub(super) fn read(setup: &Value) -> Option<Self> {
        Some(Self {
            closed: setup["seconds"][0].as_f64()?,
            open: setup["seconds"][1].as_f64()?,
            rate: setup["rate"].as_f64()?,
            kills: setup["kills"].as_u64()? as usize,
        })
    }

    /// About how long a cell takes, in seconds: for who waits, and no promise.
    pub(super) fn cell_seconds(&self, setting: &Setting) -> f64 {
        let election = setting.clocks.election_ms as f64 / 1e3;
        let kill = 0.3 + 2.0 * election.max(0.1);
        0.5 + election + self.closed + self.open + kill * self.kills as f64
    }

    /// For how long a cluster may be without a leader until that is what it is.
    fn patience(&self, setting: &Setting) -> Duration {
        let Place { sync_ms, network_ms, tail } = setting.place;
        let once = setting.clocks.election_ms
            + 5 * (sync_ms + 2 * network_ms)
            + tail.map_or(0, |tail| tail.ms);
        Duration::from_millis(3_000 + 4 * once)
    }
}

/// What was measured. What is not there was not.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) setting: Setting,
    /// Until the first write was accepted.
    pub(super) start_s: Option<f64>,
    /// Puts, as fast as it goes.
    pub(super) per_second: Option<f64>,
    pub(super) server_cpu_us: Option<f64>,
    pub(super) client_cpu_us: Option<f64>,
    /// At the fixed rate, from when a put was due.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) p999_ms: Option<f64>,
    pub(super) max_ms: Option<f64>,
    /// Of that our own doing: how late puts were sent.
    pub(super) own_p99_ms: Option<f64>,
    /// Longest time without an answered put, undisturbed.
    pub(super) stall_ms: Option<f64>,
    /// Terms that began, undisturbed.
    pub(super) elections: Option<u64>,
    /// Puts that failed, undisturbed.
    pub(super) failed: Option<u64>,
    /// From each kill to the first write that was accepted.
    pub(super) leaderless_ms: Vec<f64>,
    /// What was in the way; empty: nothing.
    pub(super) trouble: String,
}

impl Row {
    pub(super) fn empty(setting: Setting) -> Self {
        Self {
            setting,
            start_s: None,
            per_second: None,
            server_cpu_us: None,
            client_cpu_us: None,
            p50_ms: None,
            p99_ms: None,
            p999_ms: None,
            max_ms: None,
            own_p99_ms: None,
            stall_ms: None,
            elections: None,
            failed: None,
            leaderless_ms: Vec::new(),
            trouble: String::new(),
        }
    }

    /// Nothing happened that had no cause.
    pub(super) fn is_steady(&self) -> bool {
        self.trouble.is_empty() && self.elections == Some(0) && self.failed == Some(0)
    }

    /// The median of what followed the kills.
    pub(super) fn leaderless_median_ms(&self) -> Option<f64> {
        let mut sorted = self.leaderless_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        Some(f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]))
    }

    /// The longest of what followed the kills.
    pub(super) fn leaderless_max_ms(&self) -> Option<f64> {
        self.leaderless_ms.iter().copied().max_by(f64::total_cmp)
    }
}

/// Measures one cell. Where a member or its leader fails, what came before is kept and the trouble said;
/// the members' logs of a cell in trouble are kept in `logs`, under `name`.
///
/// # Errors
/// [`Trouble::Interrupted`], what makes going on pointless on this host, and a member that ends before
/// all have served.
pub(super) fn measure(
    ground: &Ground,
    setting: &Setting,
    effort: &Effort,
    logs: &Path,
    name: &str,
) -> Result<Row, Trouble> {
    for _ in 1..STARTS {
        match once(ground, setting, effort, logs, name) {
            // Somebody took a port in the moment in which it was free.
            Err(Trouble::Ended(why)) if why.contains("in use") => {}
            done => return done,
        }
    }
    once(ground, setting, effort, logs, name)
}

fn once(
    ground: &Ground,
    setting: &Setting,
    effort: &Effort,
    logs: &Path,
    name: &str,
) -> Result<Row, Trouble> {
    let mut cluster = Cluster::start(ground, setting)?;
    let mut row = Row::empty(*setting);
    let Err(trouble) = lives(&mut cluster, effort, &mut row) else { return Ok(row) };
    if matches!(trouble, Trouble::Interrupted | Trouble::Host(_)) {
        return Err(trouble);
    }
    cluster.keep_logs(logs, name)?;
    if row.start_s.is_none() && matches!(trouble, Trouble::Ended(_)) {
        return Err(trouble);
    }
    row.trouble = trouble.to_string();
    Ok(row)
}

fn lives(cluster: &mut Cluster, effort: &Effort, row: &mut Row) -> Result<(), Trouble> {
    let setting = row.setting;
    let patience = effort.patience(&setting);
    let begin = Instant::now();
    let leader = cluster.settle(patience).map_err(|trouble| trouble.when("at the start"))?;
    row.start_s = Some(begin.elapsed().as_secs_f64());
    undisturbed(cluster, leader, effort, row).map_err(|trouble| trouble.when("undisturbed"))?;
    for _ in 0..effort.kills {
        let leader = cluster.settle(patience).map_err(|trouble| trouble.when("before a kill"))?;
        let time = without(cluster, leader, patience)?;
        let time = time.ok_or_else(|| Trouble::no_leader(patience).when("after a kill"))?;
        row.leaderless_ms.push(millis(time));
    }
    Ok(())
}

/// Load, and nobody does anything to the cluster.
fn undisturbed(
    cluster: &mut Cluster,
    leader: usize,
    effort: &Effort,
    row: &mut Row,
) -> Result<(), Trouble> {
    let before = cluster.term();
    let mut stalls = Stalls::new(Work::new(Call::Put, Order::Random, KEYS, VALUE_BYTES));
    let mut plan = Plan {
        endpoints: vec![cluster.endpoint(leader)],
        connections: CONNECTIONS,
        streams: STREAMS,
        until: Until::Elapsed(Duration::from_secs_f64(effort.closed)),
        pids: cluster.pids(),
    };
    let fast = load(&plan, &Pace::default(), &mut stalls, cluster)?;
    row.per_second = Some(fast.rate());
    row.server_cpu_us =
        fast.cpu.server_micros_per(fast.done()).filter(|_| fast.cpu.server >= Some(CPU_MIN));
    row.client_cpu_us =
        (fast.cpu.client >= CPU_MIN).then(|| fast.cpu.client_micros_per(fast.done()));

    plan.streams = OPEN_STREAMS;
    plan.until = Until::Elapsed(Duration::from_secs_f64(effort.open));
    let schedule = Some(Schedule::new(Arrivals::Even, effort.rate));
    let pace = Pace { schedule, warm_up: Duration::ZERO };
    let calm = load(&plan, &pace, &mut stalls, cluster)?;
    [row.p50_ms, row.p99_ms, row.p999_ms] =
        [0.5, 0.99, 0.999].map(|quantile| millis_at(&calm, quantile));
    row.max_ms = (calm.done() > 0).then(|| calm.micros_at(1.0) / 1e3);
    row.own_p99_ms = calm.open.as_ref().map(|open| open.slip.micros_at(0.99) / 1e3);
    row.stall_ms = Some(millis(stalls.longest));
    row.failed = Some(fast.tallies.failed() + calm.tallies.failed());
    row.elections = before.zip(cluster.term()).map(|(before, now)| now.saturating_sub(before));
    Ok(())
}

/// A percentile, where it rests on a call of its own.
pub(super) fn millis_at(report: &Report, quantile: f64) -> Option<f64> {
    let beyond = report.done() as f64 * (1.0 - quantile);
    (beyond >= 0.999).then(|| report.micros_at(quantile) / 1e3)
}

fn load(
    plan: &Plan,
    pace: &Pace,
    stalls: &mut Stalls,
    cluster: &mut Cluster,
) -> Result<Report, Trouble> {
    stalls.last = None;
    let ran = engine::run_at(plan, pace, stalls, &mut Beside::default());
    stalls.note();
    // Why it ended says more than that it did.
    cluster.look()?;
    let report = ran.map_err(|failure| Trouble::InTheWay(failure.to_string()))?;
    match report.cut_short() {
        Some(why) => Err(Trouble::InTheWay(format!("the load was cut short: {why}"))),
        None => Ok(report),
    }
}

/// Kills the leader; from then until another accepts a write. A lone member is started again at once.
fn without(
    cluster: &mut Cluster,
    leader: usize,
    patience: Duration,
) -> Result<Option<Duration>, Trouble> {
    let alone = cluster.members() == 1;
    let mut probe = Probe::new(cluster.others(leader))?;
    let since = Instant::now();
    cluster.kill(leader)?;
    if alone {
        cluster.restart(leader)?;
    }
    let time = probe.first_write(since, patience)?;
    cluster.look()?;
    if !alone {
        cluster.restart(leader)?;
    }
    Ok(time)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Puts, and the longest time in which none was answered well.
struct Stalls {
    work: Work,
    last: Option<Instant>,
    longest: Duration,
}

impl Stalls {
    fn new(work: Work) -> Self {
        Self { work, last: None, longest: Duration::ZERO }
    }

    /// One was answered, or it is over.
    fn note(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last.unwrap_or(now));
        self.last = Some(now);
    }
}

impl Script for Stalls {
    fn paths(&self) -> Vec<&'static str> {
        self.work.paths()
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.work.kinds()
    }

    fn begin(&mut self, seat: usize) -> (usize, Ask<'_>) {
        self.last.get_or_insert_with(Instant::now);
        self.work.begin(seat)
    }

    fn answered(&mut self, seat: usize, answer: Answer<'_>) -> Next<'_> {
        match self.work.answered(seat, answer) {
            Next::Over => {
                self.note();
                Next::Over
            }
            Next::Failed(status) => Next::Failed(status),
            Next::Call(_) => unreachable!("a put is one call"),
        }
    }

    fn noted(&self) -> Option<Noted<'_>> {
        None
    }
}

impl Line for Row {
    const COLUMNS: &'static str = "server,sync_ms,tail,network_ms,heartbeat_ms,election_ms,\
        start_s,puts_per_second,server_cpu_us_per_put,loadgen_cpu_us_per_put,p50_ms,p99_ms,p999_ms,max_ms,\
        loadgen_late_p99_ms,stall_ms,elections,failed,leaderless_ms,trouble";

    fn fields(&self) -> Vec<String> {
        let Setting { place, clocks, program } = self.setting;
        let count = |count: Option<u64>| count.map_or(String::new(), |count| count.to_string());
        let leaderless = self.leaderless_ms.iter().map(|ms| number(Some(*ms)));
        vec![
            program.name().into(),
            place.sync_ms.to_string(),
            place.tail.map_or(String::new(), |tail| tail.to_string()),
            place.network_ms.to_string(),
            clocks.heartbeat_ms.to_string(),
            clocks.election_ms.to_string(),
            number(self.start_s),
            number(self.per_second),
            number(self.server_cpu_us),
            number(self.client_cpu_us),
            number(self.p50_ms),
            number(self.p99_ms),
            number(self.p999_ms),
            number(self.max_ms),
            number(self.own_p99_ms),
            number(self.stall_ms),
            count(self.elections),
            count(self.failed),
            leaderless.collect::<Vec<_>>().join(" "),
            self.trouble.clone(),
        ]
    }

    fn read(fields: &[String]) -> Option<Self> {
        let mut fields = fields.iter().map(String::as_str);
        let mut next = || fields.next();
        let name = next()?;
        let program = Program::ALL.into_iter().find(|program| program.name() == name)?;
        let sync_ms = next()?.parse().ok()?;
        let tail = match next()? {
            "" => None,
            text => Some(text.parse().ok()?),
        };
        let place = Place { sync_ms, tail, network_ms: next()?.parse().ok()? };
        let (heartbeat_ms, election_ms) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let clocks = Clocks { heartbeat_ms, election_ms };
        let mut number = || read_number(next()?);
        let row = Self {
            setting: Setting { place, clocks, program },
            start_s: number()?,
            per_second: number()?,
            server_cpu_us: number()?,
            client_cpu_us: number()?,
            p50_ms: number()?,
            p99_ms: number()?,
            p999_ms: number()?,
            max_ms: number()?,
            own_p99_ms: number()?,
            stall_ms: number()?,
            elections: number()?.map(|count| count as u64),
            failed: number()?.map(|count| count as u64),
            leaderless_ms: Vec::new(),
            trouble: String::new(),
        };
        let leaderless = fields.next()?.split_whitespace().map(|ms| ms.parse().ok());
        let leaderless_ms = leaderless.collect::<Option<_>>()?;
        Some(Self { leaderless_ms, trouble: fields.next()?.into(), ..row })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensitivity::grid::Tail;

    #[test]
    fn a_row_reads_as_it_was_written() {
        let tail = Some(Tail { per_mille: 5, ms: 200 });
        let setting = Setting {
            place: Place { sync_ms: 3, tail, network_ms: 20 },
            clocks: Clocks { heartbeat_ms: 10, election_ms: 50 },
            program: Program::Etcd,
        };
        let empty =
            Row { trouble: "at the start: no leader, \"ever\"".into(), ..Row::empty(setting) };
        let full = Row {
            start_s: Some(1.5),
            per_second: Some(12_345.0),
            p99_ms: Some(0.125),
            elections: Some(3),
            failed: Some(0),
            leaderless_ms: vec![1_400.5, 1_200.0],
            ..Row::empty(setting)
        };
        for row in [empty, full] {
            assert_eq!(Row::read(&row.fields()).unwrap(), row);
            assert_eq!(row.fields().len(), Row::COLUMNS.split(',').count());
        }
        assert_eq!(Row::read(&["etcd".into()]), None);
    }

    #[test]
    fn a_stall_is_the_longest_time_without_an_answer() {
        let mut stalls = Stalls::new(Work::new(Call::Put, Order::Sequential, 1, 8));
        stalls.begin(0);
        let asked = stalls.last.unwrap();
        stalls.last = asked.checked_sub(Duration::from_millis(70));
        assert!(matches!(stalls.answered(0, Answer { bytes: 100, body: &[] }), Next::Over));
        assert!(matches!(stalls.answered(0, Answer { bytes: 0, body: &[] }), Next::Failed(_)));
        assert!(stalls.longest >= Duration::from_millis(70));
    }
}
