//! How long a cluster takes no writes after its leader was killed: at most two election timeouts, at
//! etcd's defaults.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use e2e::{
    binary,
    cluster::{Cluster, ELECTION_TIMEOUT},
};
use loadgen::client::Client;
use proto::etcdserverpb::{PutRequest, PutResponse, kv};

/// Unless `$E2E_LEADERS` says otherwise.
const LEADERS: usize = 6;
/// One in so many, rounded up, may take longer: votes may be split, and then it takes one more.
const SPLIT_VOTES: usize = 10;
/// How long one write may take; the next is tried by another client in the meantime.
const TRY_MAX: Duration = Duration::from_millis(250);
/// Clients of each member, so that one tries every few milliseconds.
const CLIENTS: usize = 3;
/// Longer than any election on a machine that is not busy with something else.
const GIVE_UP: Duration = Duration::from_secs(15);

#[test]
fn a_killed_leader_is_replaced_within_two_election_timeouts() {
    let Some(binary) = binary::of_clusters("failover") else { return };
    let leaders = std::env::var("E2E_LEADERS");
    let leaders = leaders.map_or(LEADERS, |leaders| leaders.parse().expect("a number"));
    let mut cluster = Cluster::start(&binary, "failover", 3, &[]);
    let mut waits: Vec<Duration> = (0..leaders).map(|_| kill_leader(&mut cluster)).collect();
    waits.sort();
    println!("from kill -9 of the leader to the first accepted write: {waits:?}");
    let late = waits.iter().filter(|wait| **wait > 2 * ELECTION_TIMEOUT).count();
    assert!(late <= leaders.div_ceil(SPLIT_VOTES), "{late} of {leaders} took longer: {waits:?}");
}

fn kill_leader(cluster: &mut Cluster) -> Duration {
    let leader = cluster.wait_leader();
    cluster.wait_equal();
    // Members know each other for a while, as they would.
    thread::sleep(ELECTION_TIMEOUT);
    let first: Arc<Mutex<Option<Instant>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let others = cluster.present().into_iter().filter(|at| *at != leader);
    let clients = others.flat_map(|at| std::iter::repeat_n(cluster.endpoint(at), CLIENTS));
    let clients: Vec<_> = clients.collect();
    cluster.kill(leader);
    let killed = Instant::now();
    let clients = clients.into_iter().map(|endpoint| {
        let (first, done) = (Arc::clone(&first), Arc::clone(&done));
        thread::spawn(move || put_until(&endpoint, killed, &first, &done))
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().expect("it only asks"));
    cluster.restart(leader);
    let first = first.lock().expect("nobody panics").expect("a write is accepted in the end");
    first - killed
}

/// Asks again and again until somebody was answered.
fn put_until(endpoint: &str, killed: Instant, first: &Mutex<Option<Instant>>, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) && killed.elapsed() < GIVE_UP {
        let Ok(mut client) = Client::connect_within(endpoint, TRY_MAX) else { continue };
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let answer: Result<PutResponse, _> = client.unary(kv::PUT, &put);
        if answer.is_ok() {
            first.lock().expect("nobody panics").get_or_insert(Instant::now());
            done.store(true, Ordering::Relaxed);
        } else {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
