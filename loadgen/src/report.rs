//! What a run came to: rates, latencies, CPU time; as one table and one line of JSON.

use std::{collections::BTreeMap, fmt, fs, io, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::grpc::Status;

/// What a latency is cut to: longer than the engine waits.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Clock ticks a second in `/proc`, the same on every Linux that Rust runs on (proc(5), `USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// Counts of the calls that ended while it was held.
pub struct Tally {
    /// Of the calls that went well, in nanoseconds.
    latency: Histogram<u64>,
    /// The others, by what they said.
    errors: BTreeMap<String, u64>,
}

/// An empty histogram of latencies, in nanoseconds.
pub(crate) fn latencies() -> Histogram<u64> {
    let nanos_max = LATENCY_MAX.as_nanos() as u64;
    Histogram::new_with_bounds(1000, nanos_max, 3).expect("bounds in order")
}

impl Default for Tally {
    fn default() -> Self {
        Self { latency: latencies(), errors: BTreeMap::new() }
    }
}

impl Tally {
    /// How many calls went well.
    pub(crate) fn done(&self) -> u64 {
        self.latency.len()
    }

    /// How many did not.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The others, by what they said.
    pub(crate) fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// The latency that this part of the calls did not exceed, in microseconds.
    pub(crate) fn micros_at(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Counts a call that went well.
    pub(crate) fn record(&mut self, nanos: u64) {
        self.latency.saturating_record(nanos);
    }

    /// A call took so long and ended so.
    pub fn add(&mut self, took: Duration, outcome: Result<(), Status>) {
        match outcome {
            Ok(()) => self.latency.saturating_record(took.as_nanos() as u64),
            Err(status) => *self.errors.entry(status.to_string()).or_default() += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("all have the same bounds");
        for (error, calls) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += calls;
        }
    }

    /// The percentiles, each under its name; of nothing there are none.
    fn percentiles(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
        let any = self.done() > 0;
        let at = move |quantile| any.then(|| self.micros_at(quantile));
        PERCENTILES.into_iter().map(move |(name, _, quantile)| (name, at(quantile)))
    }
}

/// As JSON and the table call them, and the part of the calls.
const PERCENTILES: [(&str, &str, f64); 6] = [
    ("p50_us", "p50 ms", 0.5),
    ("p90_us", "p90 ms", 0.9),
    ("p99_us", "p99 ms", 0.99),
    ("p999_us", "p99.9 ms", 0.999),
    ("p9999_us", "p99.99 ms", 0.9999),
    ("max_us", "max ms", 1.0),
];

/// One tally for each kind of operation.
#[derive(Default)]
pub struct Tallies(Vec<(&'static str, Tally)>);

impl Tallies {
    /// Empty ones.
    pub(crate) fn new(kinds: &[&'static str]) -> Self {
        Self(kinds.iter().map(|kind| (*kind, Tally::default())).collect())
    }

    /// One kind.
    pub(crate) fn of(kind: &'static str, tally: Tally) -> Self {
        Self(vec![(kind, tally)])
    }

    pub(crate) fn add(&mut self, kind: usize, took: Duration, outcome: Result<(), Status>) {
        self.0[kind].1.add(took, outcome);
    }

    pub(crate) fn done(&self) -> u64 {
        self.0.iter().map(|(_, tally)| tally.done()).sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.0.iter().map(|(_, tally)| tally.failed()).sum()
    }

    fn merged(&self) -> Tally {
        let mut all = Tally::default();
        self.0.iter().for_each(|(_, tally)| all.merge(tally));
        all
    }
}

/// How late operations began, where their times were fixed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lateness {
    /// Operations that were begun.
    pub begun: u64,
    /// Of them, those that had to wait because all seats were taken.
    pub late: u64,
    /// How long they waited, in sum and at most.
    pub late_sum: Duration,
    /// As above.
    pub late_max: Duration,
    /// How much later than due the others began, at most: our own doing.
    pub slip_max: Duration,
    /// In sum.
    pub slip_sum: Duration,
    /// Operations that were due, and not begun before the end.
    pub unsent: u64,
}

impl Lateness {
    pub(crate) fn add(&mut self, late: Duration, blocked: bool) {
        self.begun += 1;
        if blocked {
            self.late += 1;
            self.late_sum += late;
            self.late_max = self.late_max.max(late);
        } else {
            self.slip_sum += late;
            self.slip_max = self.slip_max.max(late);
        }
    }

    /// How long the late ones waited, on average.
    pub fn late_mean(&self) -> Duration {
        self.late_sum.div_f64(self.late.max(1) as f64)
    }

    fn slip_mean(&self) -> Duration {
        self.slip_sum.div_f64((self.begun - self.late).max(1) as f64)
    }
}

/// What only an open loop knows.
pub struct OpenLoop {
    /// How late operations began.
    pub lateness: Lateness,
    /// From when they began; the latencies count from when they were due.
    pub(crate) service: Tally,
}

/// CPU time in user and kernel mode, of all threads; and of the thread that asks.
#[derive(Clone, Copy, Debug)]
pub struct CpuUse {
    server: Option<Duration>,
    client: Duration,
    thread: Duration,
}

impl CpuUse {
    /// Since this process, and the server's if they are known, began. In steps of 10 ms.
    pub fn now(servers: impl IntoIterator<Item = u32>) -> io::Result<Self> {
        let mut server = None;
        for pid in servers {
            *server.get_or_insert(Duration::ZERO) += cpu_time(&pid.to_string())?;
        }
        Ok(Self { server, client: cpu_time("self")?, thread: cpu_time("thread-self")? })
    }

    /// What was used between `before` and now.
    pub fn since(&self, before: &Self) -> Self {
        let server = self.server.zip(before.server).map(|(now, before)| now.saturating_sub(before));
        Self {
            server,
            client: self.client.saturating_sub(before.client),
            thread: self.thread.saturating_sub(before.thread),
        }
    }

    /// Whether what was measured is us and not the server: the thread that asks was busy for nearly
    /// all the time, and the server was not busy with all the CPUs that were left.
    fn is_ours(&self, wall: Duration, cpus: usize) -> bool {
        let busy = |cpu: Duration, of: f64| cpu.as_secs_f64() >= BUSY * of * wall.as_secs_f64();
        let left = (cpus - 1).max(1) as f64;
        wall >= JUDGED_MIN
            && busy(self.thread, 1.0)
            && !self.server.is_some_and(|server| busy(server, left))
    }
}

/// The part of a CPU's time that counts as nearly all.
const BUSY: f64 = 0.8;
/// CPU time is known in steps of 10 ms, so that of a shorter run says nothing.
const JUDGED_MIN: Duration = Duration::from_millis(200);

impl CpuUse {
    /// The server's, per so many of what it did, in microseconds.
    pub(crate) fn server_micros_per(&self, count: u64) -> Option<f64> {
        self.server.map(|cpu| micros_per(cpu, count))
    }

    /// Ours, as [`Self::server_micros_per`].
    pub(crate) fn client_micros_per(&self, count: u64) -> f64 {
        micros_per(self.client, count)
    }
}

fn micros_per(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// Memory of a process that no file stands behind, so that nothing can take it back: its heap. What
/// a server maps of its own files is not in it.
pub(crate) fn heap_bytes(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = kib.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("{path} has no RssAnon")))
}

fn cpu_time(process: &str) -> io::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| io::Error::other(format!("{path}: {stat:?}")))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Fields 14 and 15, counted from 1. The second is a name in parentheses and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let [user, system] = [fields.next()?, fields.next()?];
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

/// What a run came to. [`fmt::Display`] is the table.
pub struct Report {
    pub(crate) elapsed: Duration,
    pub(crate) cpu: CpuUse,
    pub(crate) tallies: Tallies,
    pub(crate) open: Option<OpenLoop>,
    pub(crate) counts: Vec<(&'static str, u64)>,
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    pub(crate) cut_short: Option<String>,
}

impl Report {
    /// Operations that went well.
    pub fn done(&self) -> u64 {
        self.tallies.done()
    }

    /// Operations that failed, by what they said.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.tallies.merged().errors
    }

    /// The latency that this part of the operations did not exceed, in microseconds.
    pub fn micros_at(&self, quantile: f64) -> f64 {
        self.tallies.merged().micros_at(quantile)
    }

    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.done() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// As [`Self::micros_at`], from when they began: an open loop's.
    pub fn service_micros_at(&self, quantile: f64) -> Option<f64> {
        self.open.as_ref().map(|open| open.service.micros_at(quantile))
    }

    /// How late operations began, in an open loop.
    pub fn lateness(&self) -> Option<Lateness> {
        self.open.as_ref().map(|open| open.lateness)
    }

    /// What the script counted, by name.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.iter().find(|(of, _)| *of == name).map_or(0, |(_, count)| *count)
    }

    /// Something else was counted beside.
    pub fn add_count(&mut self, name: &'static str, count: u64) {
        self.counts.push((name, count));
    }

    /// Why the run ended before it was over, where it did.
    pub fn cut_short(&self) -> Option<&str> {
        self.cut_short.as_deref()
    }

    /// The whole report under a name, for machines.
    pub fn json(&self, name: &str) -> Value {
        let all = self.tallies.merged();
        let mut json = json!({
            "work": name,
            "connections": self.connections,
            "streams": self.streams,
            "seconds": self.elapsed.as_secs_f64(),
            "ops": self.done(),
            "ops_per_second": self.rate(),
            "server_cpu_us_per_op": self.cpu.server.map(|cpu| self.micros_per_op(cpu)),
            "client_cpu_us_per_op": self.micros_per_op(self.cpu.client),
            "client_is_bottleneck": self.client_is_bottleneck(),
            "errors": all.errors,
        });
        extend(&mut json, all.percentiles());
        extend(&mut json, self.counts.iter().copied());
        if let Some(OpenLoop { lateness, service }) = &self.open {
            json["late"] = json!({
                "begun": lateness.begun,
                "late": lateness.late,
                "late_mean_us": micros(lateness.late_mean()),
                "late_max_us": micros(lateness.late_max),
                "unsent": lateness.unsent,
                "own_mean_us": micros(lateness.slip_mean()),
                "own_max_us": micros(lateness.slip_max),
            });
            json["service"] = json!({});
            extend(&mut json["service"], service.percentiles());
        }
        if let [_, _, ..] = &self.tallies.0[..] {
            json["kinds"] = json!({});
            for (kind, tally) in &self.tallies.0 {
                let mut row = json!({ "ops": tally.done(), "errors": tally.errors });
                extend(&mut row, tally.percentiles());
                json["kinds"][kind] = row;
            }
        }
        if let Some(why) = &self.cut_short {
            json["cut_short"] = json!(why);
        }
        json
    }

    fn client_is_bottleneck(&self) -> bool {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        self.cpu.is_ours(self.elapsed, cpus)
    }

    fn micros_per_op(&self, cpu: Duration) -> f64 {
        micros_per(cpu, self.done() + self.tallies.failed())
    }
}

fn extend<V: Into<Value>>(json: &mut Value, more: impl Iterator<Item = (&'static str, V)>) {
    more.for_each(|(name, value)| json[name] = value.into());
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.tallies.merged();
        write!(f, "{:<12} {:>9} {:>9}", "", "ops", "ops/s")?;
        PERCENTILES.iter().try_for_each(|(_, name, _)| write!(f, " {name:>9}"))?;
        writeln!(f)?;
        let kinds = &self.tallies.0;
        for (kind, tally) in kinds {
            if kinds.len() == 1 || tally.done() + tally.failed() > 0 {
                self.row(f, kind, tally)?;
            }
        }
        if kinds.len() > 1 {
            self.row(f, "all", &all)?;
        }
        if let Some(open) = &self.open {
            self.row(f, "service time", &open.service)?;
            open.lateness.fmt(f)?;
        }
        let counts: Vec<_> =
            self.counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        if !counts.is_empty() {
            writeln!(f, "{}", counts.join(", "))?;
        }
        write!(f, "CPU per operation: ")?;
        match self.cpu.server {
            Some(cpu) => write!(f, "server {:.1} µs, ", self.micros_per_op(cpu))?,
            None => write!(f, "server unknown (--pid), ")?,
        }
        writeln!(f, "loadgen {:.2} µs", self.micros_per_op(self.cpu.client))?;
        if self.client_is_bottleneck() {
            writeln!(
                f,
                "WARNING: loadgen's thread was busy for {:.0} % of the time, and the server was not: \
                 this measures loadgen",
                self.cpu.thread.as_secs_f64() / self.elapsed.as_secs_f64() * 100.0
            )?;
        }
        for (error, calls) in &all.errors {
            writeln!(f, "{calls:>9} failed: {error}")?;
        }
        match &self.cut_short {
            Some(why) => writeln!(f, "CUT SHORT: {why}"),
            None => Ok(()),
        }
    }
}

impl Report {
    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, tally: &Tally) -> fmt::Result {
        let rate = tally.done() as f64 / self.elapsed.as_secs_f64().max(1e-9);
        write!(f, "{name:<12} {:>9} {rate:>9.0}", tally.done())?;
        tally.percentiles().try_for_each(|(_, micros)| match micros {
            Some(micros) => write!(f, " {:>9.2}", micros / 1e3),
            None => write!(f, " {:>9}", "-"),
        })?;
        writeln!(f)
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Self { begun, late, late_max, slip_max, unsent, .. } = self;
        writeln!(
            f,
            "late: {late} of {begun}, all streams being busy: {:.2} ms on average, {:.2} ms at most; \
             the others, by our own doing: {:.2} ms on average, {:.2} ms at most",
            millis(self.late_mean()),
            millis(late_max),
            millis(self.slip_mean()),
            millis(slip_max),
        )?;
        match unsent {
            0 => Ok(()),
            unsent => writeln!(f, "unsent: {unsent} were due and not begun when the time was over"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_that_looks_like_fields() {
        let stat = "7 (a) S 1 (b) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a) R 1"), None);
    }

    #[test]
    fn a_busy_client_beside_an_idle_server_is_the_bottleneck() {
        let second = Duration::from_secs(1);
        let used = |client: u64, server: Option<u64>| CpuUse {
            server: server.map(Duration::from_millis),
            client: second,
            thread: Duration::from_millis(client),
        };
        assert!(used(900, Some(500)).is_ours(second, 2));
        assert!(used(900, None).is_ours(second, 2));
        assert!(used(900, Some(900)).is_ours(second, 4), "three were left to the server");
        assert!(!used(900, Some(900)).is_ours(second, 2), "both are busy");
        assert!(!used(700, Some(100)).is_ours(second, 2));
        assert!(!used(900, None).is_ours(Duration::from_millis(50), 2), "too short to say");
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = CpuUse::now(Some(u32::MAX)).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/stat"), "{error}");
    }
}
