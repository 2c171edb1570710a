//! Three members, clients of all of them, a fault every few seconds: nothing acknowledged is lost,
//! nothing read is stale, no watch misses anything, no lease ends early.
//!
//! `$CHAOS_SECONDS` makes it longer, `$E2E_SEED` the same again as far as real processes can be.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use e2e::{binary, chaos::Chaos, cluster::Cluster, server::Folder};
use loadgen::{
    check,
    history::{self, Recorder},
    mix::{self, Plan},
};

/// Unless `$CHAOS_SECONDS` says otherwise.
const SECONDS: u64 = 60;
/// Fewer acknowledged puts in a second, on average, and the clients were not there.
const PUTS_PER_SECOND_MIN: u64 = 5;

#[test]
fn nothing_is_lost_and_nothing_is_stale_whatever_befalls_members() {
    let Some(binary) = binary::of_clusters("chaos") else { return };
    let seconds = std::env::var("CHAOS_SECONDS");
    let seconds = seconds.map_or(SECONDS, |seconds| seconds.parse().expect("a number"));
    let seed = binary::seed();
    let folder = Folder::new("history");
    let path = folder.path().join("history");
    let mut cluster = Cluster::start(&binary, "chaos", 3, &[]);
    let recorder = Arc::new(Recorder::create(&path).expect("our folder"));
    let plan = Plan {
        endpoints: cluster.endpoints(),
        workers: 10,
        keepers: 4,
        watchers: 3,
        rate: 60,
        seed,
    };
    let clients = mix::start(plan, recorder);
    let mut chaos = Chaos::new(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        chaos.round(&mut cluster);
    }
    cluster.recover();
    clients.finish().expect("a cluster that is whole answers");
    println!("{chaos}");
    let records = history::read(&path).expect("it was written");
    match check::judge(&records) {
        Ok(summary) => {
            println!("{summary}");
            let puts = summary.counts.get("put").copied().unwrap_or(0);
            assert!(puts >= seconds * PUTS_PER_SECOND_MIN, "the clients hardly wrote: {puts} puts");
        }
        Err(broken) => panic!("{} holds broken promises:\n{broken}", path.display()),
    }
}
