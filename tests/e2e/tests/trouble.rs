//! What clients are told when their cluster is in trouble: etcd's codes and sentences, as three members
//! of etcd 3.7.1 say them. `E2E_CLUSTER=etcd` asks those.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use e2e::{
    binary,
    cluster::{Cluster, ELECTION_TIMEOUT, until},
    proxy::Link,
    watch::{self, Watch},
};
use loadgen::{
    client::{Client, Duplex},
    grpc::{Status, code},
};
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    MemberListRequest, MemberListResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    cluster, kv, lease,
};

/// Long enough for every answer.
const ASK_MAX: Duration = Duration::from_secs(40);
/// What a request has at default timeouts: 5 s, and two elections.
const REQUEST_MAX: Duration = Duration::from_secs(7);
/// Elections without a leader after which streams that require one end.
const LEADERLESS_ELECTIONS: u32 = 3;

type Said = Result<(), (i32, &'static str)>;

const TIMED_OUT: Said = Err((code::UNAVAILABLE, "etcdserver: request timed out"));
const LEADER_FAILED: Said = Err((
    code::UNAVAILABLE,
    "etcdserver: request timed out, possibly due to previous leader failure",
));
const CONNECTION_LOST: Said =
    Err((code::UNAVAILABLE, "etcdserver: request timed out, possibly due to connection lost"));
const LEADER_CHANGED: Said = Err((code::UNAVAILABLE, "etcdserver: leader changed"));
const NO_LEADER: Said = Err((code::UNAVAILABLE, "etcdserver: no leader"));
/// The client's own deadline passed.
const OVERDUE: Said = Err((code::DEADLINE_EXCEEDED, "context deadline exceeded"));
/// What grpc-go's server does then; its client knows the reason.
const RESET: Said = Err((code::UNAVAILABLE, "stream reset by the server, HTTP/2 error 8"));
/// etcd's words also where nobody led for all the time that a request has.
const HELD: Said = OVERDUE;

type Ask = fn(&mut Client) -> Result<(), Status>;

const PUT: Ask = |client| {
    let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    client.unary::<_, PutResponse>(kv::PUT, &put).map(drop)
};
const GRANT: Ask = |client| {
    let grant = LeaseGrantRequest { ttl: 100, ..Default::default() };
    client.unary::<_, LeaseGrantResponse>(lease::LEASE_GRANT, &grant).map(drop)
};
const RANGE: Ask = |client| {
    let range = RangeRequest { key: "k".into(), ..Default::default() };
    client.unary::<_, RangeResponse>(kv::RANGE, &range).map(drop)
};
const MEMBERS: Ask = |client| {
    let list = MemberListRequest { linearizable: true };
    client.unary::<_, MemberListResponse>(cluster::MEMBER_LIST, &list).map(drop)
};

/// A call under way, on a connection of its own.
struct Asked(JoinHandle<Result<(), Status>>);

fn ask(cluster: &Cluster, at: usize, what: Ask) -> Asked {
    let mut client = cluster.client(at).expect("it runs");
    client.set_timeout(ASK_MAX);
    Asked(thread::spawn(move || what(&mut client)))
}

impl Asked {
    #[track_caller]
    fn expects(self, expected: &[Said]) {
        told(self.0.join().expect("it does not panic"), expected);
    }
}

#[track_caller]
fn told(said: Result<(), Status>, expected: &[Said]) {
    let said = said.as_ref().map_err(|status| (status.code, &*status.message)).copied();
    assert!(expected.contains(&said), "{said:?} is none of {expected:?}");
}

/// A cluster that has taken a write, and its leader.
fn cluster(test: &str) -> Option<(Cluster, usize)> {
    let binary = binary::of_clusters("trouble")?;
    let cluster = Cluster::start(&binary, test, 3, &[]);
    until("a write", ASK_MAX, || PUT(&mut cluster.client(0).ok()?).ok());
    let leader = cluster.wait_leader();
    Some((cluster, leader))
}

fn wants_leader(cluster: &Cluster, at: usize) -> Client {
    let mut client = cluster.client(at).expect("it runs");
    client.add_metadata("hasleader", "true");
    client.set_timeout(ASK_MAX);
    client
}

fn in_a_hurry(cluster: &Cluster, at: usize) -> Client {
    let mut client = cluster.client(at).expect("it runs");
    client.add_metadata("grpc-timeout", "200m");
    client.set_timeout(ASK_MAX);
    client
}

// ── nobody leads any more ───────────────────────────────────────────────────────────────────────

fn leave_alone(mut cluster: Cluster, left: usize) {
    let mut led = Streams::open(&cluster, wants_leader, left);
    let mut others =
        Streams::open(&cluster, |cluster, at| cluster.client(at).expect("it runs"), left);
    let lost = Instant::now();
    (0..3).filter(|at| *at != left).for_each(|at| assert!(cluster.kill(at)));

    // Proposed where somebody still seemed to lead, and lost.
    let at_once = [PUT, GRANT, RANGE, MEMBERS].map(|what| ask(&cluster, left, what));
    until("no leader", ASK_MAX, || {
        PUT(&mut wants_leader(&cluster, left))
            .err()
            .filter(|said| said.message.ends_with("no leader"))
    });
    told(PUT(&mut wants_leader(&cluster, left)), &[NO_LEADER]);
    told(RANGE(&mut wants_leader(&cluster, left)), &[NO_LEADER]);
    told(Watch::open(wants_leader(&cluster, left), watch::prefix("w", 0)).map(drop), &[NO_LEADER]);
    let asked = Instant::now();
    told(PUT(&mut in_a_hurry(&cluster, left)), &[OVERDUE, RESET]);
    told(RANGE(&mut in_a_hurry(&cluster, left)), &[OVERDUE, RESET]);
    assert!(asked.elapsed() < REQUEST_MAX, "the client's deadline ends a call");
    // Never proposed.
    let later = [PUT, GRANT].map(|what| ask(&cluster, left, what));

    // Asked of whoever will lead.
    let keep_alive = LeaseKeepAliveRequest { id: 7 };
    others.keep_alive.send(&keep_alive).expect("it serves");

    led.end(NO_LEADER);
    let waited = lost.elapsed();
    assert!(waited >= LEADERLESS_ELECTIONS * ELECTION_TIMEOUT, "streams end after {waited:?}");
    others.go_on();
    at_once.into_iter().for_each(|asked| asked.expects(&[TIMED_OUT]));
    later.into_iter().for_each(|asked| asked.expects(&[HELD]));
    others.end_of_renewals(NO_LEADER);
}

/// A watch and a stream of keep-alives.
struct Streams {
    watch: Watch,
    keep_alive: Duplex,
}

impl Streams {
    fn open(cluster: &Cluster, client: fn(&Cluster, usize) -> Client, at: usize) -> Self {
        let watch = Watch::open(client(cluster, at), watch::prefix("w", 0)).expect("it serves");
        let mut stream = client(cluster, at).duplex(lease::LEASE_KEEP_ALIVE).expect("it serves");
        // An answer shows that the server knows of it.
        stream.send(&LeaseKeepAliveRequest { id: 7 }).expect("it serves");
        let answer = stream.next::<LeaseKeepAliveResponse>(ASK_MAX).expect("it serves");
        assert_eq!(answer.map(|answer| (answer.id, answer.ttl)), Some((7, 0)));
        Self { watch, keep_alive: stream }
    }

    fn end(&mut self, with: Said) {
        told(self.watch.next(ASK_MAX).map(drop), &[with]);
        self.end_of_renewals(with);
    }

    fn end_of_renewals(&mut self, with: Said) {
        told(self.keep_alive.next::<LeaseKeepAliveResponse>(ASK_MAX).map(drop), &[with]);
    }

    /// Nothing has come, and nothing has ended.
    fn go_on(&mut self) {
        let moment = Duration::from_millis(1);
        let nothing =
            |said: Option<Status>| said.is_some_and(|said| said.code == code::DEADLINE_EXCEEDED);
        assert!(nothing(self.watch.next(moment).err()));
        assert!(nothing(self.keep_alive.next::<LeaseKeepAliveResponse>(moment).err()));
    }
}

#[test]
fn a_follower_that_is_left_alone_says_what_etcds_does() {
    let Some((cluster, leader)) = cluster("left-follower") else { return };
    leave_alone(cluster, (leader + 1) % 3);
}

#[test]
fn a_leader_that_is_left_alone_says_what_etcds_does() {
    let Some((cluster, leader)) = cluster("left-leader") else { return };
    leave_alone(cluster, leader);
}

// ── somebody else leads ─────────────────────────────────────────────────────────────────────────

/// What was sent to a leader that stands still is lost with it. Only who leads next suspects that, as
/// in etcd. Reads ask again here; etcd's clients do that themselves.
#[test]
fn what_was_lost_with_a_leader_is_told_by_the_next_one() {
    let Some((mut cluster, leader)) = cluster("lost-leader") else { return };
    let paused = Instant::now();
    cluster.pause(leader);
    let others = [1, 2].map(|step| (leader + step) % 3);
    let asked = others.map(|at| (at, [PUT, GRANT].map(|what| ask(&cluster, at, what))));
    let reads = others.map(|at| [RANGE, MEMBERS].map(|what| ask(&cluster, at, what)));
    let next = cluster.wait_leader();
    let soon = paused.elapsed() < 2 * ELECTION_TIMEOUT;
    for (at, writes) in asked {
        let expected: &[Said] = match (at == next, soon) {
            (false, _) => &[TIMED_OUT],
            (true, true) => &[LEADER_FAILED],
            (true, false) => &[LEADER_FAILED, TIMED_OUT],
        };
        writes.into_iter().for_each(|asked| asked.expects(expected));
    }
    reads.into_iter().flatten().for_each(|asked| asked.expects(&[Ok(()), LEADER_CHANGED]));
}

#[test]
fn what_was_lost_on_the_way_to_the_leader_is_told_so() {
    let Some((cluster, leader)) = cluster("lost-connection") else { return };
    let follower = (leader + 1) % 3;
    cluster.net.set(follower, leader, Link::Blackhole);
    let asked = [PUT, GRANT].map(|what| ask(&cluster, follower, what));
    // Some time to be forwarded in; then what is on its way is lost.
    thread::sleep(ELECTION_TIMEOUT / 4);
    cluster.net.set(follower, leader, Link::Cut);
    cluster.net.set(leader, follower, Link::Cut);
    thread::sleep(ELECTION_TIMEOUT / 4);
    cluster.net.heal();
    asked.into_iter().for_each(|asked| asked.expects(&[CONNECTION_LOST]));
}

// ── a member takes nothing any more ─────────────────────────────────────────────────────────────

/// Until then the leader cannot know whether the member is slow or gone. Nothing is read late here, so
/// that only what is written can be.
#[test]
fn a_member_that_takes_nothing_is_cut_off_after_the_write_timeout() {
    const TIMEOUT: Duration = Duration::from_secs(9);
    /// More than the sockets on the way hold.
    const PUTS: usize = 32;
    let Some(binary) = binary::of_clusters("trouble") else { return };
    let flags = ["--raft-write-timeout=9s", "--raft-read-timeout=60s"];
    let cluster = Cluster::start(&binary, "takes-nothing", 3, &flags);
    let leader = cluster.wait_leader();
    let follower = (leader + 1) % 3;
    let id = format!("{:x}", cluster.id(follower).expect("it serves"));
    let cuts = || {
        let log = cluster.server(leader).expect("it runs").log();
        let cut = |line: &&str| {
            line.contains("lost TCP streaming connection")
                && line.contains("stream-writer-type")
                && line.contains(&id)
        };
        log.lines().filter(cut).count()
    };
    let before = cuts();
    cluster.net.set(leader, follower, Link::Blackhole);
    let silent = Instant::now();
    let mut client = cluster.client(leader).expect("it runs");
    client.set_timeout(ASK_MAX);
    for _ in 0..PUTS {
        let put =
            PutRequest { key: "k".into(), value: vec![7; 1 << 20].into(), ..Default::default() };
        client.unary::<_, PutResponse>(kv::PUT, &put).expect("two of three take it");
    }
    until("end of the stream", ASK_MAX, || (cuts() > before).then_some(()));
    let waited = silent.elapsed();
    assert!(waited >= TIMEOUT, "cut off after {waited:?}");
    cluster.net.heal();
    cluster.wait_equal();
}
