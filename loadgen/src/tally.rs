//! Counts of operations while they go on: latencies, errors, and how late they began.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::grpc::Status;

/// What a latency is cut to: longer than the engine waits.
const LATENCY_MAX: Duration = Duration::from_secs(60);
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

    pub(crate) fn merge(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("all have the same bounds");
        for (error, calls) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += calls;
        }
    }

    /// The percentiles, each under its name; of nothing there are none.
    pub(crate) fn percentiles(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
        let any = self.done() > 0;
        let at = move |quantile| any.then(|| self.micros_at(quantile));
        PERCENTILES.into_iter().map(move |(name, _, quantile)| (name, at(quantile)))
    }
}

/// As JSON and the table call them, and the part of the calls.
pub(crate) const PERCENTILES: [(&str, &str, f64); 6] = [
    ("p50_us", "p50 ms", 0.5),
    ("p90_us", "p90 ms", 0.9),
    ("p99_us", "p99 ms", 0.99),
    ("p999_us", "p99.9 ms", 0.999),
    ("p9999_us", "p99.99 ms", 0.9999),
    ("max_us", "max ms", 1.0),
];

/// One tally for each kind of operation.
#[derive(Default)]
pub struct Tallies(pub(crate) Vec<(&'static str, Tally)>);

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

    pub(crate) fn merged(&self) -> Tally {
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
    /// Operations that were due, and not begun before the end.
    pub unsent: u64,
}

impl Lateness {
    /// One that had to wait for so long, or did not have to.
    pub(crate) fn add(&mut self, waited: Option<Duration>) {
        self.begun += 1;
        if let Some(late) = waited {
            self.late += 1;
            self.late_sum += late;
            self.late_max = self.late_max.max(late);
        }
    }

    /// How long the late ones waited, on average.
    pub fn late_mean(&self) -> Duration {
        self.late_sum.div_f64(self.late.max(1) as f64)
    }
}
