//! Many leases that are all renewed at once and then all let go, beside puts: what that does to the
//! puts, and how long the leases take to be gone.
//!
//! ```text
//!   grant ── before: puts ── storm: every lease renewed once ── TTL ── expiry: until all are gone
//! ```

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use proto::etcdserverpb::{
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    lease as method,
};
use serde_json::{Value, json};

use crate::{
    client::Client,
    cpu::{CpuUse, heap_bytes},
    hdrlog::HdrLog,
    interrupt,
    lease::{self, Goal, Plan, Renewals},
    link::{Failure, PATIENCE, READ_BYTES_MAX},
    poll::Poll,
    tally::Tally,
    writers::{Puts, Writers},
};

const WRITERS_TOKEN: usize = 0;
/// Of all leases so many are asked for, one after the other, before all are listed.
const SAMPLES: usize = 1_000;
/// Between two questions for one that is still there.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// Between two lists, and for each lease on the last one: lists may be long.
const LIST_EVERY: Duration = Duration::from_millis(200);
const LISTED_EACH: Duration = Duration::from_micros(20);

/// One part of the run.
struct Phase {
    name: &'static str,
    elapsed: Duration,
    cpu: CpuUse,
    puts: Tally,
    /// Keep-alives, where there were any.
    renewals: Tally,
}

/// What a run came to. [`fmt::Display`] is the table.
pub struct Report {
    leases: usize,
    attached: bool,
    ttl: i64,
    granted_in: Duration,
    heap_bytes: Option<[u64; 2]>,
    phases: Vec<Phase>,
    /// From when the first could have been gone until none was left; none: they were not all gone
    /// in time, and so many were left.
    gone_in: Result<Duration, usize>,
}

/// Runs a plan: puts alone for `before`; then, when all are renewed and their time is up, waits no
/// longer than `gone_max` until they are gone. The puts' latencies are logged, too.
pub fn run(
    plan: &Plan,
    puts: &Puts,
    before: Duration,
    gone_max: Duration,
    hdr_log: Option<HdrLog>,
) -> Result<Report, Failure> {
    let heap = plan.pid.map(heap_bytes).transpose()?;
    let begin = Instant::now();
    let first = lease::grant(plan)?;
    let granted_in = begin.elapsed();
    let heap_bytes = heap.zip(plan.pid.map(heap_bytes).transpose()?).map(<[u64; 2]>::from);

    let poll = Poll::new()?;
    let mut run = Run {
        writers: Writers::connect(&plan.endpoint, puts, &poll, WRITERS_TOKEN)?,
        renewals: Renewals::connect(plan, first, &poll, WRITERS_TOKEN + 1)?,
        poll,
        buffer: vec![0; READ_BYTES_MAX].into(),
        clock: begin,
        latest: begin.elapsed(),
        pid: plan.pid,
    };
    if plan.warm_up > Duration::ZERO {
        run.phase_of("warm-up", plan.warm_up)?;
    }
    run.writers.tally.begin(hdr_log, run.clock.elapsed());
    let calm = run.phase_of("before", before)?;
    let storm_began = run.clock.elapsed();
    run.renewals.start(Goal::Once, storm_began, &run.poll)?;
    let storm = run.phase("storm", |run| run.renewals.open == 0)?;
    if let Some((error, _)) = storm.renewals.errors().first_key_value() {
        return Err(Failure::Wrong(format!("{error}, before its time: give a longer TTL")));
    }
    let due = storm_began + Duration::from_secs(plan.ttl.unsigned_abs());
    let idle = run.phase("idle", |run| run.clock.elapsed() >= due)?;
    let (expiry, gone_in) = run.expiry(plan, first, gone_max)?;
    run.writers.tally.finish()?;
    let phases = vec![calm, storm, idle, expiry];
    let Plan { leases, attach, ttl, .. } = *plan;
    Ok(Report { leases, attached: attach, ttl, granted_in, heap_bytes, phases, gone_in })
}

struct Run {
    poll: Poll,
    writers: Writers,
    renewals: Renewals,
    buffer: Box<[u8]>,
    clock: Instant,
    latest: Duration,
    pid: Option<u32>,
}

impl Run {
    fn phase_of(&mut self, name: &'static str, time: Duration) -> Result<Phase, Failure> {
        let end = self.clock.elapsed() + time;
        self.phase(name, |run| run.clock.elapsed() >= end)
    }

    /// Puts, and hears what comes, until it is over.
    fn phase(
        &mut self,
        name: &'static str,
        over: impl Fn(&Self) -> bool,
    ) -> Result<Phase, Failure> {
        let begin = self.clock.elapsed();
        let cpu = CpuUse::now(self.pid)?;
        self.latest = begin;
        self.writers.start(begin, &self.poll)?;
        while !over(self) && !interrupt::asked() {
            let now = self.clock.elapsed();
            self.writers.ask(now, &self.poll)?;
            let wait = self.writers.next_due().map(|due| due.saturating_sub(now));
            self.turn(wait.unwrap_or(SAMPLE_EVERY).min(SAMPLE_EVERY))?;
        }
        let (elapsed, cpu) = (self.clock.elapsed() - begin, CpuUse::now(self.pid)?.since(&cpu));
        while self.writers.open() > 0 {
            self.turn(PATIENCE)?;
        }
        let renewals = self.renewals.tally.take();
        Ok(Phase { name, elapsed, cpu, puts: self.writers.tally.take(), renewals })
    }

    fn turn(&mut self, time: Duration) -> Result<(), Failure> {
        for token in self.poll.wait(time.min(PATIENCE))? {
            let clock = self.clock;
            let now = || clock.elapsed();
            let read = if self.renewals.owns(token) {
                self.renewals.hear(token, &mut self.buffer, now, &self.poll)?
            } else {
                let read = self.writers.hear(&mut self.buffer, now)?;
                self.writers.flush(&self.poll)?;
                read
            };
            if read > 0 {
                self.latest = now();
            }
        }
        let (now, open) = (self.clock.elapsed(), self.writers.open() + self.renewals.open);
        self.writers.tally.look(now)?;
        match open > 0 && now > self.latest + PATIENCE {
            true => Err(Failure::Stalled(open)),
            false => Ok(()),
        }
    }

    /// Puts until no lease is left, or for `gone_max`.
    fn expiry(
        &mut self,
        plan: &Plan,
        first: i64,
        gone_max: Duration,
    ) -> Result<(Phase, Result<Duration, usize>), Failure> {
        let begin = Instant::now();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watched = scope.spawn(|| {
                let watched = wait_gone(plan, first, begin + gone_max);
                over.store(true, Ordering::Release);
                watched.map(|left| if left == 0 { Ok(begin.elapsed()) } else { Err(left) })
            });
            let phase = self.phase("expiry", |_| over.load(Ordering::Acquire));
            let watched = watched.join().expect("watching does not panic");
            Ok((phase?, watched?))
        })
    }
}

/// Waits until the run's leases are gone; returns how many are left at the deadline.
fn wait_gone(plan: &Plan, first: i64, deadline: Instant) -> Result<usize, Failure> {
    let mut client = Client::connect(&plan.endpoint)?;
    let last = first + plan.leases as i64;
    // The last of all among them, for it was renewed last.
    let step = plan.leases.div_ceil(SAMPLES);
    for id in (first..last).rev().step_by(step) {
        loop {
            let request = LeaseTimeToLiveRequest { id, keys: false };
            let left: LeaseTimeToLiveResponse =
                client.unary(method::LEASE_TIME_TO_LIVE, &request)?;
            if left.ttl < 0 {
                break;
            }
            if Instant::now() > deadline || interrupt::asked() {
                return count(&mut client, first..last);
            }
            thread::sleep(SAMPLE_EVERY);
        }
    }
    loop {
        let left = count(&mut client, first..last)?;
        if left == 0 || Instant::now() > deadline || interrupt::asked() {
            return Ok(left);
        }
        thread::sleep(LIST_EVERY + LISTED_EACH * left as u32);
    }
}

fn count(client: &mut Client, ids: std::ops::Range<i64>) -> Result<usize, Failure> {
    let list: LeaseLeasesResponse = client.unary(method::LEASE_LEASES, &LeaseLeasesRequest {})?;
    Ok(list.leases.iter().filter(|lease| ids.contains(&lease.id)).count())
}

// ── the report ──────────────────────────────────────────────────────────────────────────────────

impl Phase {
    fn json(&self) -> Value {
        let puts = &self.puts;
        json!({
            "phase": self.name,
            "seconds": self.elapsed.as_secs_f64(),
            "puts": puts.done(),
            "put_p50_us": puts.micros_at(0.5),
            "put_p99_us": puts.micros_at(0.99),
            "put_max_us": puts.micros_at(1.0),
            "put_errors": puts.errors(),
            "renewals": self.renewals.done(),
            "renewal_p99_us": self.renewals.micros_at(0.99),
            "server_cpu_seconds": self.server_seconds(),
        })
    }

    fn server_seconds(&self) -> Option<f64> {
        self.cpu.server_micros_per(1).map(|micros| micros / 1e6)
    }
}

impl Report {
    /// Puts that failed.
    pub fn failed(&self) -> u64 {
        self.phases.iter().flat_map(|phase| phase.puts.errors().values()).sum()
    }

    /// How many leases were not gone in time.
    pub fn left(&self) -> usize {
        self.gone_in.err().unwrap_or(0)
    }

    fn lease_bytes(&self) -> Option<i64> {
        let [before, after] = self.heap_bytes?;
        Some((after as i64 - before as i64) / self.leases as i64)
    }

    /// The whole report, for machines.
    pub fn json(&self) -> Value {
        json!({
            "work": "expire",
            "leases": self.leases,
            "attached": self.attached,
            "ttl_seconds": self.ttl,
            "granted_in_seconds": self.granted_in.as_secs_f64(),
            "server_bytes_per_lease": self.lease_bytes(),
            "gone_in_seconds": self.gone_in.ok().map(|time| time.as_secs_f64()),
            "leases_left": self.gone_in.err(),
            "phases": self.phases.iter().map(Phase::json).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { leases, ttl, .. } = self;
        write!(f, "{leases} leases of {ttl} s granted in {:.2} s", self.granted_in.as_secs_f64())?;
        match self.lease_bytes() {
            Some(bytes) => writeln!(f, ", {bytes} bytes of heap each")?,
            None => writeln!(f)?,
        }
        writeln!(
            f,
            "{:<8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9}",
            "",
            "seconds",
            "puts/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "renewals/s",
            "p99 ms",
            "server s"
        )?;
        for phase in &self.phases {
            phase.fmt(f)?;
        }
        match self.gone_in {
            Ok(time) => {
                writeln!(f, "all gone {:.2} s after the first could be", time.as_secs_f64())
            }
            Err(left) => writeln!(f, "{left} leases were not gone in time"),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(1e-6);
        write!(f, "{:<8} {seconds:>8.2} {:>9.0}", self.name, self.puts.done() as f64 / seconds)?;
        for quantile in [0.5, 0.99, 1.0] {
            write!(f, " {:>9.2}", self.puts.micros_at(quantile) / 1e3)?;
        }
        match self.renewals.done() {
            0 => write!(f, " {:>10} {:>9}", "-", "-")?,
            renewals => {
                let p99 = self.renewals.micros_at(0.99) / 1e3;
                write!(f, " {:>10.0} {p99:>9.2}", renewals as f64 / seconds)?;
            }
        }
        match self.server_seconds() {
            Some(seconds) => writeln!(f, " {seconds:>9.2}")?,
            None => writeln!(f, " {:>9}", "-")?,
        }
        for (error, calls) in self.puts.errors() {
            writeln!(f, "{calls:>9} puts failed: {error}")?;
        }
        Ok(())
    }
}
