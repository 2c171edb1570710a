//! Leases over `kill -9`: none ends before its last acknowledged renewal and its time to live are
//! over, and in the end all are gone.
#![allow(clippy::disallowed_methods, reason = "leases are about real time")]

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use e2e::{
    Dice, binary, ledger,
    server::{Folder, Server, Setup},
};
use loadgen::client::{Client, Duplex};
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, PutRequest, PutResponse, kv, lease,
};

const LEASES: usize = 120;
const KILLS: usize = 6;
/// Seconds: each lease has one of these.
const TTLS: [i64; 4] = [2, 3, 4, 6];
/// How long the server runs before each kill, in turn: a start gives each lease its time anew, so
/// only in the longer one do the shorter leases end.
const RUNS: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(3_500)];
/// After the last renewal, its time to live and a start of the server: an election, then a few looks
/// at the clock, on a busy machine.
const GONE_MAX: Duration = Duration::from_secs(20);
const ANSWER_MAX: Duration = Duration::from_secs(20);

struct Lease {
    id: i64,
    ttl: i64,
    key: String,
    /// Its key is there until then at least. Counted from when the renewal was sent: later than that
    /// it was done.
    safe_until: Instant,
    gone: bool,
}

#[test]
fn leases_outlive_kills_and_end() {
    let folder = Folder::new("lease");
    let setup = Setup::new(&binary::ringleader(), folder.path());
    let mut dice = Dice::new(binary::seed());
    let mut server = setup.start().expect("it starts");
    let mut leases: Vec<_> = (0..LEASES).map(|at| grant(&mut server.client(), at)).collect();
    for round in 1..=KILLS {
        let end = Instant::now() + RUNS[round % RUNS.len()];
        let mut alive = keep_alive(&server);
        while Instant::now() < end {
            // Some are renewed again and again, some never.
            let favoured = 1 + dice.below(LEASES / 2);
            renew(&mut alive, &mut leases[dice.below(favoured)]);
            look(&server, &mut leases);
        }
        server.kill();
        server = setup.start().expect("it starts over what a kill left");
        println!("kill {round}: {} leases are gone", gone(&leases));
    }
    assert!((1..LEASES).contains(&gone(&leases)), "all or none ended while some were renewed");
    let longest = Duration::from_secs(TTLS.into_iter().max().expect("there are some") as u64);
    let end = Instant::now() + longest + GONE_MAX;
    while gone(&leases) < LEASES {
        look(&server, &mut leases);
        assert!(Instant::now() < end, "{} leases are gone, of {LEASES}", gone(&leases));
        thread::sleep(Duration::from_millis(20));
    }
    let left: LeaseLeasesResponse =
        server.client().unary(lease::LEASE_LEASES, &LeaseLeasesRequest {}).expect("it serves");
    assert_eq!(left.leases, []);
}

fn gone(leases: &[Lease]) -> usize {
    leases.iter().filter(|lease| lease.gone).count()
}

fn grant(client: &mut Client, at: usize) -> Lease {
    let asked = Instant::now();
    let request = LeaseGrantRequest { ttl: TTLS[at % TTLS.len()], id: 0 };
    let granted: LeaseGrantResponse =
        client.unary(lease::LEASE_GRANT, &request).expect("it serves");
    let key = format!("lease/{at:03}");
    let put = PutRequest { key: key.clone().into(), lease: granted.id, ..Default::default() };
    let _: PutResponse = client.unary(kv::PUT, &put).expect("the lease was granted");
    let safe_until = asked + Duration::from_secs(granted.ttl as u64);
    Lease { id: granted.id, ttl: granted.ttl, key, safe_until, gone: false }
}

fn keep_alive(server: &Server) -> Duplex {
    server.client().duplex(lease::LEASE_KEEP_ALIVE).expect("it serves")
}

fn renew(alive: &mut Duplex, lease: &mut Lease) {
    let asked = Instant::now();
    alive.send(&LeaseKeepAliveRequest { id: lease.id }).expect("it serves");
    let answer: Option<LeaseKeepAliveResponse> = alive.next(ANSWER_MAX).expect("it serves");
    let answer = answer.expect("each renewal is answered");
    assert_eq!(answer.id, lease.id);
    if answer.ttl == 0 {
        assert!(Instant::now() >= lease.safe_until, "{} ended too early", lease.key);
        return;
    }
    assert_eq!(answer.ttl, lease.ttl);
    assert!(!lease.gone, "{}: renewed, and its key is gone", lease.key);
    lease.safe_until = asked + Duration::from_secs(lease.ttl as u64);
}

/// What must be there is, and what is gone stays away.
fn look(server: &Server, leases: &mut [Lease]) {
    let all = ledger::all(&mut server.client()).expect("it serves");
    // What was looked at was so at some time before now.
    let now = Instant::now();
    let there: BTreeSet<&[u8]> = all.kvs.iter().map(|kv| &kv.key[..]).collect();
    for lease in leases {
        match there.contains(lease.key.as_bytes()) {
            true => assert!(!lease.gone, "{} came back", lease.key),
            false if now < lease.safe_until => panic!("{} ended too early", lease.key),
            false => lease.gone = true,
        }
    }
}
