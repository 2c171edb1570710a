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

impl Default for Tally {
    fn default() -> Self {
        let nanos_max = LATENCY_MAX.as_nanos() as u64;
        let latency = Histogram::new_with_bounds(1000, nanos_max, 3).expect("bounds in order");
        Self { latency, errors: BTreeMap::new() }
    }
}

impl Tally {
    /// How many calls went well.
    pub(crate) fn done(&self) -> u64 {
        self.latency.len()
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
}

/// CPU time in user and kernel mode, of all threads.
#[derive(Clone, Copy, Debug)]
pub struct CpuUse {
    server: Option<Duration>,
    client: Duration,
}

impl CpuUse {
    /// Since this process, and the server's if they are known, began. In steps of 10 ms.
    pub fn now(servers: impl IntoIterator<Item = u32>) -> io::Result<Self> {
        let mut server = None;
        for pid in servers {
            *server.get_or_insert(Duration::ZERO) += cpu_time(&pid.to_string())?;
        }
        Ok(Self { server, client: cpu_time("self")? })
    }

    /// What was used between `before` and now.
    pub fn since(&self, before: &Self) -> Self {
        let server = self.server.zip(before.server).map(|(now, before)| now.saturating_sub(before));
        Self { server, client: self.client.saturating_sub(before.client) }
    }
}

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
    pub(crate) tally: Tally,
    pub(crate) connections: usize,
    pub(crate) streams: usize,
}

impl Report {
    /// Calls that went well.
    pub fn done(&self) -> u64 {
        self.tally.latency.len()
    }

    /// Calls that failed, by what they said.
    pub fn errors(&self) -> &BTreeMap<String, u64> {
        &self.tally.errors
    }

    /// The whole report under a name, for machines.
    pub fn json(&self, name: &str) -> Value {
        json!({
            "work": name,
            "connections": self.connections,
            "streams": self.streams,
            "seconds": self.elapsed.as_secs_f64(),
            "ops": self.done(),
            "ops_per_second": self.rate(),
            "p50_us": self.micros_at(0.5),
            "p99_us": self.micros_at(0.99),
            "p999_us": self.micros_at(0.999),
            "max_us": self.micros_at(1.0),
            "server_cpu_us_per_op": self.cpu.server.map(|cpu| self.micros_per_call(cpu)),
            "client_cpu_us_per_op": self.micros_per_call(self.cpu.client),
            "errors": self.tally.errors,
        })
    }

    fn rate(&self) -> f64 {
        self.done() as f64 / self.elapsed.as_secs_f64()
    }

    fn micros_at(&self, quantile: f64) -> f64 {
        self.tally.micros_at(quantile)
    }

    fn micros_per_call(&self, cpu: Duration) -> f64 {
        micros_per(cpu, self.done() + self.tally.errors.values().sum::<u64>())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12} {:>12}",
            "ops",
            "ops/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "server µs/op",
            "client µs/op"
        )?;
        write!(f, "{:>9} {:>9.0}", self.done(), self.rate())?;
        for quantile in [0.5, 0.99, 0.999, 1.0] {
            write!(f, " {:>9.2}", self.micros_at(quantile) / 1e3)?;
        }
        match self.cpu.server {
            Some(cpu) => write!(f, " {:>12.1}", self.micros_per_call(cpu))?,
            None => write!(f, " {:>12}", "-")?,
        }
        writeln!(f, " {:>12.2}", self.micros_per_call(self.cpu.client))?;
        for (error, calls) in &self.tally.errors {
            writeln!(f, "{calls:>9} failed: {error}")?;
        }
        Ok(())
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
    fn a_process_that_is_not_there_is_named() {
        let error = CpuUse::now(Some(u32::MAX)).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/stat"), "{error}");
    }
}
