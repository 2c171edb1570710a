//! Members that are made slow by the options that are there for tests: how long a write takes then,
//! and what becomes of a member whose disk stalls.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::time::{Duration, Instant};

use e2e::{
    binary,
    cluster::{Cluster, until},
    server::{Folder, Setup},
};
use loadgen::{client::Client, grpc::Status};
use proto::etcdserverpb::{
    MoveLeaderRequest, MoveLeaderResponse, PutRequest, PutResponse, kv, maintenance,
};

/// Long enough for all that happens here.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn put(client: &mut Client) -> Result<(), Status> {
    client.set_timeout(WAIT_MAX);
    let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    client.unary::<_, PutResponse>(kv::PUT, &put).map(drop)
}

/// How long one takes.
fn put_time(client: &mut Client) -> Duration {
    let begin = Instant::now();
    put(client).expect("it serves");
    begin.elapsed()
}

#[test]
fn a_write_waits_for_the_disk() {
    let delay = Duration::from_millis(150);
    let folder = Folder::new("slow-disk");
    for flag in ["--testing-sync-delay=150ms", "--testing-sync-delay-tail=1:150ms"] {
        let setup = Setup::named(&binary::ringleader(), folder.path(), &flag[2..24]);
        let server = setup.flags([flag]).start().expect("it starts");
        assert!(server.log().contains("for tests only"), "it warns:\n{}", server.log());
        let mut client = server.client();
        for _ in 0..3 {
            let took = put_time(&mut client);
            assert!(took >= delay, "{flag}: {took:?}");
        }
    }
}

#[test]
fn a_write_waits_for_the_way_to_the_others_and_back() {
    let delay = Duration::from_millis(60);
    let flags = ["--testing-peer-delay=60ms"];
    let cluster = Cluster::start(&binary::ringleader(), "slow-way", 3, &flags);
    let leader = cluster.wait_leader();
    // A follower sends it to the leader, and waits to hear that it is committed.
    for (at, ways) in [(leader, 2), ((leader + 1) % 3, 4)] {
        let mut client = cluster.client(at).expect("it runs");
        for _ in 0..3 {
            let took = put_time(&mut client);
            assert!(took >= ways * delay, "{ways} ways in {took:?}");
        }
    }
    cluster.wait_equal();
}

/// Three members; the disk of the first stalls now and then.
fn stalling(test: &str, tail: &str) -> Cluster {
    let mut cluster = Cluster::prepare(&binary::ringleader(), test, 3, &[]);
    cluster.add_flags(0, &[&format!("--testing-sync-delay-tail={tail}")]);
    (0..3).for_each(|at| cluster.spawn(at));
    [1, 2].into_iter().for_each(|at| cluster.wait_ready(at));
    cluster
}

fn says(cluster: &Cluster, at: usize, what: &str) -> Option<()> {
    cluster.server(at)?.log().contains(what).then_some(())
}

/// Nobody asks the first member to hand over: it does so because of its disk.
#[test]
fn a_leader_whose_disk_stalls_hands_over_and_goes_on() {
    let mut cluster = stalling("stall", "0.05:700ms");
    cluster.wait_ready(0);
    until("hand-over by the first member", WAIT_MAX, || {
        match cluster.leader() {
            Some(0) => drop(put(&mut cluster.client(0).ok()?)),
            Some(other) => {
                let request = MoveLeaderRequest { target_id: cluster.id(0)? };
                let _may_fail: Result<MoveLeaderResponse, _> =
                    cluster.ask(other, maintenance::MOVE_LEADER, &request);
            }
            None => {}
        }
        says(&cluster, 0, "leadership transfer")
    });
    until("a write where the disk is sound", WAIT_MAX, || put(&mut cluster.client(1).ok()?).ok());
    assert!(cluster.runs(0), "a stall that passes ends nobody");
}

#[test]
fn a_member_whose_disk_stands_still_ends_and_the_others_go_on() {
    let mut cluster = stalling("dead-disk", "0.2:4s");
    until("a write that the disk stands still for", WAIT_MAX, || {
        put(&mut cluster.client(1).ok()?).ok();
        says(&cluster, 0, "the disk has not finished a write to the log")
    });
    let ended = cluster.wait_end(0);
    assert!(ended.status.is_some_and(|status| !status.success()), "{:?}", ended.status);
    until("a write of the other two", WAIT_MAX, || put(&mut cluster.client(1).ok()?).ok());
}
