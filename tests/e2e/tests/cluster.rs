//! Three members and more: what is written through one is read through another, whoever is gone.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{thread, time::Duration};

use e2e::{
    binary,
    cluster::{Cluster, until},
    proxy::Link,
};
use loadgen::grpc::{Status, code};
use proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse, kv};

/// How long a write may take while a leader is sought.
const WRITE_MAX: Duration = Duration::from_secs(20);

fn put(cluster: &Cluster, by: usize, value: &str) -> Result<PutResponse, Status> {
    let put = PutRequest { key: "k".into(), value: value.to_owned().into(), ..Default::default() };
    cluster.ask(by, kv::PUT, &put)
}

fn written(cluster: &Cluster, by: usize, value: &str) {
    until(&format!("put of {value} through {by}"), WRITE_MAX, || put(cluster, by, value).ok());
}

fn get(cluster: &Cluster, by: usize, serializable: bool) -> Result<String, Status> {
    let range = RangeRequest { key: "k".into(), serializable, ..Default::default() };
    let found: RangeResponse = cluster.ask(by, kv::RANGE, &range)?;
    let value = found.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
    Ok(value.unwrap_or_default())
}

fn read(cluster: &Cluster, by: usize) -> String {
    until(&format!("read through {by}"), WRITE_MAX, || get(cluster, by, false).ok())
}

#[test]
fn what_is_written_through_one_is_read_through_all() {
    let Some(binary) = binary::of_clusters("cluster") else { return };
    let mut cluster = Cluster::start(&binary, "three", 3, &[]);
    for by in 0..3 {
        let value = format!("by {by}");
        written(&cluster, by, &value);
        (0..3).for_each(|reader| assert_eq!(read(&cluster, reader), value));
    }
    let leader = cluster.wait_leader();
    let (next, last) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(leader);
    written(&cluster, next, "without its leader");
    assert_eq!(read(&cluster, last), "without its leader");
    cluster.kill(next);
    // One of three is no majority: it answers what it has to those who ask for no more.
    assert!(put(&cluster, last, "lost").is_err());
    assert!(get(&cluster, last, false).is_err());
    assert_eq!(get(&cluster, last, true).as_deref(), Ok("without its leader"));
    cluster.recover();
    cluster.wait_equal();
    (0..3).for_each(|by| assert!(matches!(&read(&cluster, by)[..], "without its leader" | "lost")));
}

#[test]
fn the_lead_is_handed_over_at_an_orderly_end() {
    let Some(binary) = binary::of_clusters("cluster") else { return };
    let mut cluster = Cluster::start(&binary, "orderly", 3, &[]);
    let leader = cluster.wait_leader();
    cluster.terminate(leader);
    // Not a vote is missed: the next one leads before the first could have timed out.
    written(&cluster, (leader + 1) % 3, "after");
    cluster.restart(leader);
    assert_eq!(read(&cluster, leader), "after");
}

/// A leader that hears nobody stops being one. What it was asked meanwhile nobody is told of: it may
/// be written once the leader is back, and never is before.
#[test]
fn an_isolated_leader_takes_no_writes() {
    let Some(binary) = binary::of_clusters("cluster") else { return };
    let cluster = Cluster::start(&binary, "isolated", 3, &[]);
    written(&cluster, 0, "before");
    for link in [Link::Blackhole, Link::Cut] {
        let leader = cluster.wait_leader();
        let other = (leader + 1) % 3;
        cluster.net.around(leader, link);
        let value = format!("{link:?}");
        written(&cluster, other, &value);
        let refused = put(&cluster, leader, "stale").expect_err("it is alone");
        assert!([code::DEADLINE_EXCEEDED, code::UNAVAILABLE].contains(&refused.code), "{refused}");
        assert!(get(&cluster, leader, false).is_err(), "a read of one that is alone is stale");
        cluster.net.heal();
        let now = read(&cluster, leader);
        assert!(now == value || now == "stale", "{now} is neither");
    }
}

#[test]
fn a_member_is_added_as_a_learner_and_promoted_and_another_removed() {
    let Some(binary) = binary::of_clusters("cluster") else { return };
    let mut cluster = Cluster::start(&binary, "members", 3, &[]);
    written(&cluster, 0, "before");
    let new = cluster.add(true);
    cluster.wait_ready(new);
    let id = until("id of the learner", WRITE_MAX, || cluster.id(new));
    assert!(cluster.status(new).is_some_and(|status| status.is_learner));
    cluster.promote(new, id);
    assert_eq!(read(&cluster, new), "before");

    let leader = cluster.wait_leader();
    let id = cluster.id(leader).expect("the leader answers");
    cluster.remove(leader, id);
    let ended = cluster.wait_end(leader);
    assert!(ended.status.is_some(), "a removed member ends:\n{}", ended.log);
    written(&cluster, new, "after");
    cluster.present().into_iter().for_each(|by| assert_eq!(read(&cluster, by), "after"));
    let list = cluster.members(new).expect("it is in the cluster");
    assert_eq!(list.members.len(), 3);
}

/// Its disk is gone: it is removed and a new one added, and neither asks the other two to stop.
#[test]
fn a_member_is_replaced_with_an_empty_disk() {
    let Some(binary) = binary::of_clusters("cluster") else { return };
    let mut cluster = Cluster::start(&binary, "replaced", 3, &[]);
    written(&cluster, 0, "before");
    let id = cluster.id(2).expect("it answers");
    cluster.kill(2);
    cluster.wipe(2);
    written(&cluster, 0, "meanwhile");
    // Strict reconfiguration asks for members that have been healthy for some time.
    thread::sleep(Duration::from_secs(1));
    cluster.remove(2, id);
    let new = cluster.add(false);
    cluster.wait_ready(new);
    assert_eq!(read(&cluster, new), "meanwhile");
    cluster.kill(0);
    written(&cluster, new, "with the new one's vote");
    assert_eq!(read(&cluster, 1), "with the new one's vote");
}
