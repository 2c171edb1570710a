//! Many watchers of one prefix, and writers under it: every put becomes as many events as there are
//! watchers.
//!
//! ```text
//!   writers ──put──► server ──► connection ── stream ── watcher, watcher, ..
//!      ▲              │  └────► connection ── stream ── ..
//!      └──answer──────┘  └────► connection that stopped reading
//! ```
//!
//! Every value begins with when it was put, so an event tells its own latency. Each watcher must get
//! each put once and in order, or there is no report.

use std::{
    fmt, mem,
    time::{Duration, Instant},
};

use proto::etcdserverpb::watch as method;
use serde_json::{Value, json};

use crate::{
    cpu::{CpuUse, heap_bytes},
    ear::{self, Ear, Heard},
    h2::Window,
    hdrlog::HdrLog,
    interrupt,
    link::{Failure, Link, PATIENCE, READ_BYTES_MAX},
    poll::Poll,
    tally::Tally,
    work::KEY_PREFIX,
    writers::{Puts, Writers},
};

const WRITERS_TOKEN: usize = 0;

/// Who watches, who puts, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port`.
    pub endpoint: String,
    /// Connections of watchers, at least 1.
    pub connections: usize,
    /// Watch streams on each connection, at least 1.
    pub streams: usize,
    /// In all, at least one a stream.
    pub watchers: usize,
    /// Whether events carry the value before.
    pub prev_kv: bool,
    /// Watchers on connections of their own that stop reading, for a second phase; 0: there is none.
    pub stalled: usize,
    /// The puts, on one more connection.
    pub puts: Puts,
    /// How long is put before that counts.
    pub warm_up: Duration,
    /// How long each phase puts.
    pub time: Duration,
    /// The server's process, where its CPU time and memory are wanted.
    pub pid: Option<u32>,
}

/// What one phase came to.
struct Phase {
    name: &'static str,
    elapsed: Duration,
    cpu: CpuUse,
    puts: Tally,
    events: Tally,
    heap_bytes: Option<[u64; 2]>,
}

/// What a run came to. [`fmt::Display`] is the table.
pub struct Report {
    watchers: usize,
    connections: usize,
    stalled: usize,
    /// The server's memory before and after the watchers were created.
    heap_bytes: Option<[u64; 2]>,
    phases: Vec<Phase>,
}

/// Runs a plan and says what came of it; the events' latencies are logged, too.
pub fn run(plan: &Plan, hdr_log: Option<HdrLog>) -> Result<Report, Failure> {
    assert!(plan.watchers >= plan.connections * plan.streams, "no stream without a watcher");
    let mut fanout = Fanout::connect(plan)?;
    let before = fanout.heap_bytes()?;
    let per_stream = Shares::new(plan.watchers, plan.connections * plan.streams);
    for connection in 0..plan.connections {
        let shares = (0..plan.streams).map(|at| per_stream.of(connection * plan.streams + at));
        fanout.open(Window::Wide, &shares.collect::<Vec<_>>())?;
    }
    fanout.wait_created()?;
    let heap_bytes = before.zip(fanout.heap_bytes()?).map(<[u64; 2]>::from);
    if plan.warm_up > Duration::ZERO {
        fanout.phase("warm-up", plan.warm_up)?;
    }
    fanout.heard.latency.begin(hdr_log, fanout.clock.elapsed());
    let mut phases = vec![fanout.phase("all read", plan.time)?];
    if plan.stalled > 0 {
        for _ in 0..plan.stalled {
            fanout.open(Window::Shut, &[1])?;
        }
        fanout.wait_created()?;
        phases.push(fanout.phase("some stalled", plan.time)?);
    }
    fanout.heard.latency.finish()?;
    let Plan { watchers, connections, stalled, .. } = *plan;
    Ok(Report { watchers, connections, stalled, heap_bytes, phases })
}

/// A number cut into parts that differ by one at most.
pub(crate) struct Shares {
    total: usize,
    parts: usize,
}

impl Shares {
    pub(crate) fn new(total: usize, parts: usize) -> Self {
        Self { total, parts }
    }

    pub(crate) fn of(&self, part: usize) -> usize {
        self.from(part + 1) - self.from(part)
    }

    /// Where a part begins.
    pub(crate) fn from(&self, part: usize) -> usize {
        self.total * part / self.parts
    }
}

/// One connection of watchers.
struct Listener {
    link: Link,
    ears: Vec<Ear>,
}

struct Fanout<'a> {
    plan: &'a Plan,
    poll: Poll,
    writers: Writers,
    listeners: Vec<Listener>,
    buffer: Box<[u8]>,
    clock: Instant,
    /// When bytes last came.
    latest: Duration,
    wanted: usize,
    heard: Heard,
}

impl<'a> Fanout<'a> {
    fn connect(plan: &'a Plan) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        Ok(Self {
            plan,
            writers: Writers::connect(&plan.endpoint, &plan.puts, &poll, WRITERS_TOKEN)?,
            poll,
            listeners: Vec::new(),
            buffer: vec![0; READ_BYTES_MAX].into(),
            clock: Instant::now(),
            latest: Duration::ZERO,
            wanted: 0,
            heard: Heard::default(),
        })
    }

    fn heap_bytes(&self) -> Result<Option<u64>, Failure> {
        Ok(self.plan.pid.map(heap_bytes).transpose()?)
    }

    /// A connection with a stream for each share, and so many watchers on it.
    fn open(&mut self, window: Window, shares: &[usize]) -> Result<(), Failure> {
        let token = 1 + self.listeners.len();
        let mut link = Link::connect(&self.plan.endpoint, window, &self.poll, token)?;
        let head = link.head(method::WATCH);
        let create = ear::create(KEY_PREFIX, self.plan.prev_kv);
        let mut ears = Vec::new();
        for (tag, &watchers) in shares.iter().enumerate() {
            let counts = window == Window::Wide;
            ears.push(Ear::open(&mut link, tag, &head, &create, watchers, counts)?);
            self.wanted += watchers;
        }
        link.flush(&self.poll)?;
        self.listeners.push(Listener { link, ears });
        Ok(())
    }

    fn wait_created(&mut self) -> Result<(), Failure> {
        self.latest = self.clock.elapsed();
        while self.heard.created < self.wanted {
            self.turn(PATIENCE)?;
        }
        Ok(())
    }

    /// Puts for this time, and waits for all events.
    fn phase(&mut self, name: &'static str, time: Duration) -> Result<Phase, Failure> {
        let heap = self.heap_bytes()?;
        let cpu = CpuUse::now(self.plan.pid)?;
        let begin = self.clock.elapsed();
        let end = begin + time;
        self.latest = begin;
        self.writers.start(begin, &self.poll)?;
        loop {
            let now = self.clock.elapsed();
            if now >= end || interrupt::asked() {
                break;
            }
            self.writers.ask(now, &self.poll)?;
            let until = self.writers.next_due().unwrap_or(end).min(end);
            self.turn(until.saturating_sub(now))?;
        }
        while self.writers.open() > 0 {
            self.turn(PATIENCE)?;
        }
        let puts = self.writers.tally.take();
        let expected = puts.done() * self.plan.watchers as u64;
        while self.heard.events < expected {
            self.turn(PATIENCE)?;
        }
        let elapsed = self.clock.elapsed() - begin;
        let cpu = CpuUse::now(self.plan.pid)?.since(&cpu);
        let heap_bytes = heap.zip(self.heap_bytes()?).map(<[u64; 2]>::from);
        let heard = mem::take(&mut self.heard.events);
        if heard > expected {
            return Err(Failure::Wrong(format!("{heard} events of {expected}")));
        }
        Ok(Phase { name, elapsed, cpu, puts, events: self.heard.latency.take(), heap_bytes })
    }

    /// Waits once, at most `time`, and serves who is ready.
    fn turn(&mut self, time: Duration) -> Result<(), Failure> {
        for token in self.poll.wait(time.min(PATIENCE))? {
            let clock = self.clock;
            let read = match token {
                WRITERS_TOKEN => {
                    let read = self.writers.hear(&mut self.buffer, || clock.elapsed())?;
                    self.writers.flush(&self.poll)?;
                    read
                }
                token => self.hear(token - 1)?,
            };
            if read > 0 {
                self.latest = clock.elapsed();
            }
        }
        if let Some(wrong) = self.heard.wrong.take() {
            return Err(Failure::Wrong(wrong));
        }
        let now = self.clock.elapsed();
        self.heard.latency.look(now)?;
        if now > self.latest + PATIENCE {
            let missing = self.wanted - self.heard.created;
            return Err(Failure::Wrong(format!(
                "nothing more comes: {} events heard, {missing} watchers not created",
                self.heard.events
            )));
        }
        Ok(())
    }

    fn hear(&mut self, at: usize) -> Result<usize, Failure> {
        let Self { listeners, heard, buffer, clock, poll, .. } = self;
        let Listener { link, ears } = &mut listeners[at];
        let mut now = None;
        let read = link.read(buffer, |tag, event| {
            let now = *now.get_or_insert_with(|| clock.elapsed());
            ears[tag].on(event, now, heard);
        })?;
        if let Some(over) = ears.iter().find_map(Ear::over) {
            return Err(over.clone().into());
        }
        link.flush(poll)?;
        Ok(read)
    }
}

// ── the report ──────────────────────────────────────────────────────────────────────────────────

impl Phase {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64()
    }

    /// Events for each second of the server's CPU time.
    fn per_cpu_second(&self) -> Option<f64> {
        let micros = self.cpu.server_micros_per(self.events.done())?;
        Some(1e6 / micros.max(1e-3))
    }

    fn heap_growth_bytes(&self) -> Option<i64> {
        self.heap_bytes.map(|[before, after]| after as i64 - before as i64)
    }

    fn json(&self) -> Value {
        let events = self.events.done();
        json!({
            "phase": self.name,
            "seconds": self.elapsed.as_secs_f64(),
            "events": events,
            "events_per_second": self.per_second(events),
            "events_per_cpu_second": self.per_cpu_second(),
            "server_cpu_us_per_event": self.cpu.server_micros_per(events),
            "client_cpu_us_per_event": self.cpu.client_micros_per(events),
            "event_p50_us": self.events.micros_at(0.5),
            "event_p99_us": self.events.micros_at(0.99),
            "puts": self.puts.done(),
            "puts_per_second": self.per_second(self.puts.done()),
            "put_p50_us": self.puts.micros_at(0.5),
            "put_p99_us": self.puts.micros_at(0.99),
            "put_max_us": self.puts.micros_at(1.0),
            "put_errors": self.puts.errors(),
            "server_heap_growth_bytes": self.heap_growth_bytes(),
        })
    }
}

impl Report {
    /// Puts that failed.
    pub fn failed(&self) -> u64 {
        self.phases.iter().flat_map(|phase| phase.puts.errors().values()).sum()
    }

    /// Events delivered to the watchers that read.
    pub fn events(&self) -> u64 {
        self.phases.iter().map(|phase| phase.events.done()).sum()
    }

    /// Puts that went well.
    pub fn puts(&self) -> u64 {
        self.phases.iter().map(|phase| phase.puts.done()).sum()
    }

    /// How many times as long the slowest hundredth of the puts took with stalled watchers.
    fn put_p99_ratio(&self) -> Option<f64> {
        let [before, with] = &self.phases[..] else { return None };
        Some(with.puts.micros_at(0.99) / before.puts.micros_at(0.99).max(1.0))
    }

    fn watcher_bytes(&self) -> Option<i64> {
        let [before, after] = self.heap_bytes?;
        Some((after as i64 - before as i64) / self.watchers as i64)
    }

    /// The whole report, for machines.
    pub fn json(&self) -> Value {
        json!({
            "work": "watch",
            "watchers": self.watchers,
            "connections": self.connections,
            "stalled": self.stalled,
            "server_heap_bytes": self.heap_bytes,
            "server_bytes_per_watcher": self.watcher_bytes(),
            "put_p99_ratio": self.put_p99_ratio(),
            "phases": self.phases.iter().map(Phase::json).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:>9} {:>10} {:>12} {:>12} {:>9} {:>9} {:>8} {:>8} {:>8} {:>9}",
            "",
            "events/s",
            "/cpu s",
            "server µs/ev",
            "client µs/ev",
            "p50 ms",
            "p99 ms",
            "puts/s",
            "p50 ms",
            "p99 ms",
            "heap MiB"
        )?;
        for phase in &self.phases {
            phase.fmt(f)?;
        }
        if let (Some([before, _]), Some(each)) = (self.heap_bytes, self.watcher_bytes()) {
            let (watchers, mib) = (self.watchers, mib(before as i64));
            writeln!(
                f,
                "a heap of {mib:.1} MiB, then {each} bytes for each of {watchers} watchers"
            )?;
        }
        if let Some(ratio) = self.put_p99_ratio() {
            writeln!(
                f,
                "{} stalled: the p99 of puts is {ratio:.2} times that before",
                self.stalled
            )?;
        }
        Ok(())
    }
}

fn mib(bytes: i64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events.done();
        write!(f, "{:<12} {:>9.0}", self.name, self.per_second(events))?;
        match self.per_cpu_second().zip(self.cpu.server_micros_per(events)) {
            Some((rate, micros)) => write!(f, " {rate:>10.0} {micros:>12.2}")?,
            None => write!(f, " {:>10} {:>12}", "-", "-")?,
        }
        write!(f, " {:>12.2}", self.cpu.client_micros_per(events))?;
        for quantile in [0.5, 0.99] {
            write!(f, " {:>9.2}", self.events.micros_at(quantile) / 1e3)?;
        }
        write!(f, " {:>8.0}", self.per_second(self.puts.done()))?;
        for quantile in [0.5, 0.99] {
            write!(f, " {:>8.2}", self.puts.micros_at(quantile) / 1e3)?;
        }
        match self.heap_growth_bytes() {
            Some(bytes) => writeln!(f, " {:>+9.1}", mib(bytes))?,
            None => writeln!(f, " {:>9}", "-")?,
        }
        for (error, calls) in self.puts.errors() {
            writeln!(f, "{calls:>9} puts failed: {error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_fair_and_whole() {
        let shares = |total, parts| {
            let shares = Shares::new(total, parts);
            (0..parts).map(|part| shares.of(part)).collect::<Vec<_>>()
        };
        assert_eq!(shares(10, 4), [2, 3, 2, 3]);
        assert_eq!(shares(1000, 50), [20; 50]);
    }
}
