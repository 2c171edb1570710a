//! What a run came to: rates, latencies, CPU time; as one table and one line of JSON.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Value, json};

use crate::{
    cpu::{CpuUse, micros_per},
    ear::Heard,
    tally::{Lateness, PERCENTILES, Tallies, Tally},
};

/// What only an open loop knows.
pub struct OpenLoop {
    /// How late operations began.
    pub lateness: Lateness,
    /// From when they began; the latencies count from when they were due.
    pub(crate) service: Tally,
    /// How much later than due the others began: our own doing.
    pub(crate) slip: Tally,
}

/// A larger part of the latency than this is worth a warning.
const OWN_PART_MAX: f64 = 0.1;

impl OpenLoop {
    /// The part of these latencies that may be our own, at the hundredth that is slowest.
    fn own_part(&self, all: &Tally) -> f64 {
        match (all.done(), self.slip.done()) {
            (0, _) | (_, 0) => 0.0,
            _ => self.slip.micros_at(0.99) / all.micros_at(0.99),
        }
    }
}

/// What a run came to. [`fmt::Display`] is the table.
pub struct Report {
    pub(crate) elapsed: Duration,
    pub(crate) cpu: CpuUse,
    pub(crate) tallies: Tallies,
    pub(crate) open: Option<OpenLoop>,
    /// Of those who watched what was put.
    pub(crate) heard: Option<Heard>,
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
        self.tallies.merged().errors().clone()
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

    /// Watchers heard this meanwhile.
    pub fn add_heard(&mut self, heard: Heard) {
        self.counts.push(("events", heard.events));
        self.heard = Some(heard);
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
            "errors": all.errors(),
        });
        extend(&mut json, all.percentiles());
        extend(&mut json, self.counts.iter().copied());
        if let Some(open @ OpenLoop { lateness, service, slip }) = &self.open {
            json["late"] = json!({
                "begun": lateness.begun,
                "late": lateness.late,
                "late_mean_us": micros(lateness.late_mean()),
                "late_max_us": micros(lateness.late_max),
                "unsent": lateness.unsent,
                "own_p50_us": slip.micros_at(0.5),
                "own_p99_us": slip.micros_at(0.99),
                "own_max_us": slip.micros_at(1.0),
                "own_part_of_p99": open.own_part(&all),
            });
            json["service"] = json!({});
            extend(&mut json["service"], service.percentiles());
        }
        if let Some(heard) = &self.heard {
            json["put_to_event"] = json!({ "events": heard.timed() });
            extend(&mut json["put_to_event"], heard.latency.tally.percentiles());
        }
        if let [_, _, ..] = &self.tallies.0[..] {
            json["kinds"] = json!({});
            for (kind, tally) in &self.tallies.0 {
                let mut row = json!({ "ops": tally.done(), "errors": tally.errors() });
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
        }
        if let Some(heard) = &self.heard {
            self.row(f, "put to event", &heard.latency.tally)?;
        }
        if let Some(open) = &self.open {
            open.fmt(f)?;
            let own = open.own_part(&all);
            if own > OWN_PART_MAX {
                writeln!(
                    f,
                    "WARNING: loadgen itself was late by up to {:.0} % of p99: this host is busy",
                    own * 100.0
                )?;
            }
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
        for (error, calls) in all.errors() {
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

impl fmt::Display for OpenLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lateness { begun, late, late_max, unsent, .. } = self.lateness;
        writeln!(
            f,
            "late: {late} of {begun}, all streams being busy or lost: {:.2} ms on average, \
             {:.2} ms at most; the others, by our own doing: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            millis(self.lateness.late_mean()),
            millis(late_max),
            self.slip.micros_at(0.5) / 1e3,
            self.slip.micros_at(0.99) / 1e3,
            self.slip.micros_at(1.0) / 1e3,
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
    fn what_loadgen_itself_adds_to_the_latencies_is_a_part_of_them() {
        let tally = |millis: u64| {
            let mut tally = Tally::default();
            (0..100).for_each(|_| tally.record(millis * 1_000_000));
            tally
        };
        let part = |slip| {
            let open = OpenLoop { lateness: Lateness::default(), service: tally(9), slip };
            open.own_part(&tally(10))
        };
        assert!((part(tally(2)) - 0.2).abs() < 0.01);
        assert!(part(Tally::default()).abs() < f64::EPSILON);
    }
}
