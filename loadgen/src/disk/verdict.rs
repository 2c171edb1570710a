//! What a disk's figures mean for a cluster's two clocks, in words.
//!
//! A member that waits for its disk answers nobody, and one that is silent for an election timeout
//! has an election held against it. So the timeout stands well above what the disk does in its worst
//! moments, and the usual sync well below the interval between heartbeats.

use std::time::Duration;

use serde_json::{Value, json};

/// Between heartbeats, and until an election, at the defaults of both servers, ms.
const DEFAULTS: Clocks = Clocks { heartbeat_ms: 100, election_ms: 1_000 };
/// The longest election timeout that is taken, ms (etcd `maxElectionMs`).
const ELECTION_MS_MAX: u64 = 50_000;
/// etcd's rule of thumb for the p99 of a log's sync at the default timeouts is 10 ms: so many of them
/// fit into an election timeout.
const P99_PER_ELECTION: u32 = 100;
/// The same for a sync in a thousand.
const P999_PER_ELECTION: u32 = 10;
/// The longest sync of a short test is not the longest of a year.
const LONGEST_PER_ELECTION: u32 = 2;
/// Advice is given in such steps, ms.
const STEP_MS: u64 = 100;
/// Faster than flash is written: the answer comes from a cache.
const FROM_A_CACHE: Duration = Duration::from_micros(20);

/// The two flags of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clocks {
    heartbeat_ms: u64,
    election_ms: u64,
}

/// What a block's write and sync took, as the server writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syncs {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) p999: Duration,
    pub(super) longest: Duration,
    pub(super) per_second: f64,
}

/// Whether a disk will do, and for which settings.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    /// What the disk alone asks of the election timeout, ms.
    asks_ms: u64,
    /// None for a disk that no setting can make up for.
    clocks: Option<Clocks>,
    sentences: Vec<String>,
}

impl Verdict {
    pub(super) fn of(syncs: &Syncs) -> Self {
        let asks_ms = asked_ms(syncs);
        let clocks = match asks_ms {
            ms if ms <= DEFAULTS.election_ms => Some(DEFAULTS),
            ms if ms <= ELECTION_MS_MAX => Some(Clocks { heartbeat_ms: ms / 10, election_ms: ms }),
            _ => None,
        };
        let mut sentences = vec![judgement(clocks, asks_ms, syncs)];
        if clocks.is_some() {
            sentences.push(
                "The network has a say too: a heartbeat about as long as the longest round trip \
                 between members, an election timeout of ten round trips or more."
                    .to_owned(),
            );
            sentences.push(format!(
                "A client that waits for each put gets at most {:.0} a second from one member with \
                 this disk; clients that put side by side share syncs.",
                syncs.per_second
            ));
        }
        if syncs.p50 < FROM_A_CACHE {
            sentences.push(format!(
                "Half of the syncs took {} or less, and flash is not written that fast: something \
                 answers from a cache. Make sure that what it holds survives a power cut.",
                millis(syncs.p50)
            ));
        }
        Self { asks_ms, clocks, sentences }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "good_for_defaults": self.clocks == Some(DEFAULTS),
            "election_ms_asked": self.asks_ms,
            "heartbeat_ms": self.clocks.map(|clocks| clocks.heartbeat_ms),
            "election_ms": self.clocks.map(|clocks| clocks.election_ms),
            "words": self.sentences.join(" "),
        })
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.sentences.iter().try_for_each(|sentence| writeln!(f, "{sentence}"))
    }
}

fn judgement(clocks: Option<Clocks>, asks_ms: u64, syncs: &Syncs) -> String {
    let Syncs { p99, p999, longest, .. } = *syncs;
    let (p99, p999, longest) = (millis(p99), millis(p999), millis(longest));
    let seen = format!("p99 of a block is {p99}, p99.9 {p999}, the longest {longest}");
    match clocks {
        Some(DEFAULTS) => format!(
            "Good enough for the defaults, a heartbeat of 100 ms and an election timeout of 1000 ms: \
             {seen}; etcd's rule of thumb is a p99 below 10 ms. The disk alone would bear an \
             election timeout of {asks_ms} ms."
        ),
        Some(Clocks { heartbeat_ms, election_ms }) => format!(
            "Too slow for the defaults: {seen}; etcd's rule of thumb is a p99 below 10 ms. With \
             --heartbeat-interval={heartbeat_ms} --election-timeout={election_ms} a member is not \
             taken for dead while it waits for this disk, and a dead one is missed that much later."
        ),
        None => format!(
            "Not fit for a member: {seen}; that asks for an election timeout of {asks_ms} ms, and \
             the longest that is taken is {ELECTION_MS_MAX} ms."
        ),
    }
}

/// The election timeout, in whole steps, that leaves room for the worst of these.
fn asked_ms(syncs: &Syncs) -> u64 {
    let wants = [
        syncs.p99 * P99_PER_ELECTION,
        syncs.p999 * P999_PER_ELECTION,
        syncs.longest * LONGEST_PER_ELECTION,
    ];
    let most = wants.into_iter().max().unwrap_or_default();
    (most.as_millis() as u64 + 1).next_multiple_of(STEP_MS)
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(p50: f64, p99: f64, p999: f64, longest: f64) -> Verdict {
        let [p50, p99, p999, longest] =
            [p50, p99, p999, longest].map(|ms| Duration::from_secs_f64(ms / 1e3));
        Verdict::of(&Syncs { p50, p99, p999, longest, per_second: 1e3 })
    }

    fn clocks(verdict: &Verdict) -> Option<(u64, u64)> {
        verdict.clocks.map(|clocks| (clocks.heartbeat_ms, clocks.election_ms))
    }

    #[test]
    fn a_fast_disk_will_do_and_is_told_what_it_would_bear() {
        let fast = verdict(0.2, 0.9, 2.0, 20.0);
        assert_eq!((clocks(&fast), fast.asks_ms), (Some((100, 1_000)), 100));
        assert!(fast.to_string().starts_with("Good enough for the defaults"));
    }

    #[test]
    fn each_of_the_three_worst_moments_can_ask_for_a_longer_timeout() {
        assert_eq!(clocks(&verdict(5.0, 30.0, 40.0, 50.0)), Some((310, 3_100)), "p99");
        assert_eq!(clocks(&verdict(1.0, 2.0, 150.0, 160.0)), Some((160, 1_600)), "p99.9");
        assert_eq!(clocks(&verdict(1.0, 2.0, 3.0, 1_000.0)), Some((210, 2_100)), "the longest");
    }

    #[test]
    fn ten_milliseconds_at_p99_are_just_no_longer_good_enough() {
        assert_eq!(clocks(&verdict(1.0, 9.9, 9.9, 9.9)), Some((100, 1_000)));
        assert_eq!(clocks(&verdict(1.0, 10.0, 10.0, 10.0)), Some((110, 1_100)));
    }

    #[test]
    fn a_hopeless_disk_gets_no_settings() {
        let hopeless = verdict(300.0, 600.0, 900.0, 1_000.0);
        assert_eq!(clocks(&hopeless), None);
        assert!(hopeless.to_string().contains("Not fit for a member"));
        assert!(hopeless.json()["heartbeat_ms"].is_null());
    }

    #[test]
    fn an_answer_that_flash_cannot_give_is_doubted() {
        assert!(verdict(0.005, 0.01, 0.02, 0.1).to_string().contains("survives a power cut"));
        assert!(!verdict(0.1, 0.2, 0.3, 0.4).to_string().contains("power cut"));
    }
}
