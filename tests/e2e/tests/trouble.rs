//! What clients are told when their cluster is in trouble: etcd's codes and sentences, as three members
//! of etcd 3.7.1 say them (`E2E_CLUSTER=etcd` asks those).
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    thread,
    time::{Duration, Instant},
};

use e2e::{
    binary,
    cluster::{Cluster, ELECTION_TIMEOUT, until},
    proxy::Link,
};
use loadgen::{client::Client, grpc::Status};
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, MemberListRequest, MemberListResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, cluster, kv, lease,
};

/// How long a request may take here.
const ASK_MAX: Duration = Duration::from_secs(20);

/// What was asked, what was said, after how long.
#[derive(Debug)]
struct Told {
    what: &'static str,
    said: Result<(), Status>,
    after: Duration,
}

type Ask = fn(&mut Client) -> Result<(), Status>;

const ASKS: [(&str, Ask); 4] = [
    ("put", |client| {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        client.unary::<_, PutResponse>(kv::PUT, &put).map(drop)
    }),
    ("range", |client| {
        let range = RangeRequest { key: "k".into(), ..Default::default() };
        client.unary::<_, RangeResponse>(kv::RANGE, &range).map(drop)
    }),
    ("grant", |client| {
        let grant = LeaseGrantRequest { ttl: 100, ..Default::default() };
        client.unary::<_, LeaseGrantResponse>(lease::LEASE_GRANT, &grant).map(drop)
    }),
    ("members", |client| {
        let list = MemberListRequest { linearizable: true };
        client.unary::<_, MemberListResponse>(cluster::MEMBER_LIST, &list).map(drop)
    }),
];

fn ask(mut client: Client, (what, ask): (&'static str, Ask)) -> Told {
    client.set_timeout(ASK_MAX);
    let began = Instant::now();
    let said = ask(&mut client);
    Told { what, said, after: began.elapsed() }
}

/// Asks one member everything at once.
fn ask_all(cluster: &Cluster, at: usize) -> Vec<thread::JoinHandle<Told>> {
    let one = |what| {
        let client = cluster.client(at).expect("it runs");
        thread::spawn(move || ask(client, what))
    };
    ASKS.map(one).into()
}

fn told(asked: Vec<thread::JoinHandle<Told>>) -> Vec<Told> {
    asked.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
}

#[test]
fn explore_majority() {
    let Some(binary) = binary::of_clusters("trouble") else { return };
    for led in [true, false] {
        let mut cluster = Cluster::start(&binary, &format!("alone-{led}"), 3, &[]);
        let leader = cluster.wait_leader();
        until("put", ASK_MAX, || ask(cluster.client(leader).ok()?, ASKS[0]).said.ok());
        let left = if led { leader } else { (leader + 1) % 3 };
        (0..3).filter(|at| *at != left).for_each(|at| _ = cluster.kill(at));
        let at_once = ask_all(&cluster, left);
        thread::sleep(3 * ELECTION_TIMEOUT);
        let later = ask_all(&cluster, left);
        let mut client = cluster.client(left).unwrap();
        client.add_metadata("hasleader", "true");
        println!("led={led} {:?}", ask(client, ASKS[0]));
        println!("led={led} {:#?} {:#?}", told(at_once), told(later));
    }
}

#[test]
fn explore_pause() {
    let Some(binary) = binary::of_clusters("trouble") else { return };
    let mut cluster = Cluster::start(&binary, "paused", 3, &[]);
    let leader = cluster.wait_leader();
    until("put", ASK_MAX, || ask(cluster.client(leader).ok()?, ASKS[0]).said.ok());
    cluster.pause(leader);
    let one = ask_all(&cluster, (leader + 1) % 3);
    let other = ask_all(&cluster, (leader + 2) % 3);
    println!(
        "old leader {leader}, one {:#?} other {:#?} now {:?}",
        told(one),
        told(other),
        cluster.leader()
    );
}

#[test]
fn explore_cut() {
    let Some(binary) = binary::of_clusters("trouble") else { return };
    let cluster = Cluster::start(&binary, "cut", 3, &[]);
    let leader = cluster.wait_leader();
    let follower = (leader + 1) % 3;
    until("put", ASK_MAX, || ask(cluster.client(follower).ok()?, ASKS[0]).said.ok());
    cluster.net.set(follower, leader, Link::Blackhole);
    let asked = ask_all(&cluster, follower);
    thread::sleep(Duration::from_millis(200));
    cluster.net.set(follower, leader, Link::Cut);
    cluster.net.set(leader, follower, Link::Cut);
    thread::sleep(Duration::from_millis(200));
    cluster.net.heal();
    println!("cut {:#?}", told(asked));
}
