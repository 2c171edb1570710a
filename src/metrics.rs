//! Counters and histograms as plain values. They know nobody: whoever is measured owns its meters
//! and whoever serves `/metrics` is handed them.
//!
//! Each value has one writer, so plain loads and stores of atomics are enough; any core may read.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// A number that one core writes and any core reads.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that only grows. One writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }
    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations in `BUCKETS` buckets, the first up to `FIRST_MICROS`, each next up to twice as much.
/// As it stands: etcd's disk buckets, 1 ms, 2 ms, 4 ms … 8.192 s.
#[derive(Debug)]
pub struct Histogram<const FIRST_MICROS: u64 = 1_000, const BUCKETS: usize = 14> {
    buckets: [Counter; BUCKETS],
    count: Counter,
    /// Seconds, as the bits of an `f64`.
    sum: Gauge,
}

/// etcd's buckets of leases' TTLs: 1 s, 2 s, 4 s … 97 days.
pub type TtlHistogram = Histogram<1_000_000, 24>;

/// etcd's buckets of round trips between members: 0.1 ms, 0.2 ms … 3.2768 s.
pub type RoundTripHistogram = Histogram<100, 16>;

impl<const FIRST_MICROS: u64, const BUCKETS: usize> Default for Histogram<FIRST_MICROS, BUCKETS> {
    fn default() -> Self {
        let buckets = std::array::from_fn(|_| Counter::default());
        Self { buckets, count: Counter::default(), sum: Gauge::default() }
    }
}

impl<const FIRST_MICROS: u64, const BUCKETS: usize> Histogram<FIRST_MICROS, BUCKETS> {
    /// Counts one duration.
    pub fn record(&self, took: Duration) {
        let fits = (0..BUCKETS).find(|bucket| took <= Self::bound(*bucket));
        if let Some(bucket) = fits {
            self.buckets[bucket].add(1);
        }
        self.count.add(1);
        self.sum.set((self.sum_seconds() + took.as_secs_f64()).to_bits());
    }

    /// Upper bound of a bucket, inclusive.
    pub fn bound(bucket: usize) -> Duration {
        Duration::from_micros(FIRST_MICROS << bucket)
    }

    /// How many durations were at most each bound, in order.
    pub fn cumulative(&self) -> [u64; BUCKETS] {
        let mut total = 0;
        std::array::from_fn(|bucket| {
            total += self.buckets[bucket].get();
            total
        })
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Their sum in seconds.
    pub fn sum_seconds(&self) -> f64 {
        f64::from_bits(self.sum.get())
    }
}

/// What the node counts.
#[derive(Debug, Default)]
pub struct NodeMeters {
    /// Newest committed index.
    pub committed_index: Gauge,
    /// Newest applied index.
    pub applied_index: Gauge,
    /// Times a member came to lead, as seen from here.
    pub leader_changes: Gauge,
    /// Requests packed and not yet proposed.
    pub proposals_pending: Gauge,
    /// Requests raft would not take.
    pub proposals_failed: Gauge,
    /// Bytes of the requests packed and not yet proposed.
    pub proposals_bytes: Gauge,
    /// Bytes of entries in memory, with what they take beside their data.
    pub window_bytes: Gauge,
    /// Appends on their way to the disk.
    pub appends_in_flight: Gauge,
    /// Appends that the log has no room for yet.
    pub appends_held: Gauge,
    /// From handing an append to the disk until it is durable.
    pub log_sync: Histogram,
    /// From beginning a checkpoint until its superblock is durable.
    pub checkpoint: Histogram,
}

/// What is counted of leases.
#[derive(Debug, Default)]
pub struct LeaseMeters {
    /// Leases granted, as seen by this member.
    pub granted: Counter,
    /// Leases gone, expired ones among them, as seen by this member.
    pub revoked: Counter,
    /// Leases renewed here.
    pub renewed: Counter,
    /// Leases that expired while this member led.
    pub expired: Counter,
    /// TTLs granted.
    pub ttl: TtlHistogram,
}

/// What is counted of another member.
#[derive(Debug, Default)]
pub struct PeerMeter {
    /// 1 while something goes over to it, else 0.
    pub active: Gauge,
    /// Times it went from active to not.
    pub disconnected: Counter,
    /// Bytes of messages sent to it.
    pub sent_bytes: Counter,
    /// Bytes of messages received from it.
    pub received_bytes: Counter,
    /// Messages, or sends of several, that did not go out.
    pub sent_failures: Counter,
    /// Messages from it that could not be read.
    pub received_failures: Counter,
    /// From a question to its answer.
    pub round_trip: RoundTripHistogram,
}

/// What is counted of other members, by name. A member that is gone keeps its numbers.
#[derive(Debug, Default)]
pub struct PeerMeters(Mutex<BTreeMap<String, Arc<PeerMeter>>>);

impl PeerMeters {
    /// The meter of the member of that name.
    pub fn of(&self, name: &str) -> Arc<PeerMeter> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(name.to_owned()).or_default().clone()
    }

    /// All of them, by name.
    pub fn all(&self) -> BTreeMap<String, Arc<PeerMeter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_etcds_buckets() {
        let histogram: Histogram = Histogram::default();
        for micros in [500, 1_000, 1_001, 3_000, 100_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let cumulative = histogram.cumulative();
        assert_eq!(cumulative[..3], [2, 3, 4]);
        assert_eq!((cumulative.last(), histogram.count()), (Some(&4), 5));
        assert!((histogram.sum_seconds() - 100.005_501).abs() < 1e-6);
    }
}
