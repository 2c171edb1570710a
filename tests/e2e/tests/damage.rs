//! A member whose database was damaged behind its back fetches it anew from the others, and is whole
//! again; alone it says so and goes on with what it has.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use e2e::{
    binary,
    cluster::{Cluster, until},
    server::{Ended, Folder, Setup},
};
use loadgen::client::Client;
use proto::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse,
        HashKvRequest, HashKvResponse, LeaseGrantRequest, LeaseGrantResponse, PutRequest,
        PutResponse, RangeRequest, RangeResponse, kv, lease, maintenance,
    },
    mvccpb::KeyValue,
};
use serde_json::Value;

/// Long enough for everything.
const MOST: Duration = Duration::from_secs(40);
/// Each has a history, of which a compaction leaves gaps.
const KEYS: usize = 50;
/// The key that is damaged.
const STRUCK: &str = "key13";
const CHECKPOINT_EVERY: [&str; 2] = ["--snapshot-count", "100"];

fn put(client: &mut Client, key: &str, lease: i64) -> i64 {
    let (key, value) = (key.to_owned().into(), "v".repeat(2_000).into());
    let request = PutRequest { key, value, lease, ..PutRequest::default() };
    let done: PutResponse = client.unary(kv::PUT, &request).expect("it is put");
    done.header.expect("an answer has a header").revision
}

/// Puts, a lease and a compaction: all that makes files.
fn work(client: &mut Client) {
    for at in 0..6 * KEYS {
        put(client, &format!("key{}", at % KEYS), 0);
    }
    let grant = LeaseGrantRequest { ttl: 600, ..LeaseGrantRequest::default() };
    let granted: LeaseGrantResponse = client.unary(lease::LEASE_GRANT, &grant).expect("granted");
    let revision = put(client, "leased", granted.id);
    let compaction = CompactionRequest { revision: revision - 20, physical: true };
    let _: CompactionResponse = client.unary(kv::COMPACT, &compaction).expect("compacted");
}

/// Closes the segment that grows, and writes anew what is mostly gone.
fn defragment(client: &mut Client) {
    let request = DefragmentRequest::default();
    let _: DefragmentResponse = client.unary(maintenance::DEFRAGMENT, &request).expect("done");
}

fn get(client: &mut Client, key: &str) -> Option<Vec<KeyValue>> {
    let key = key.to_owned().into();
    let range = RangeRequest { key, serializable: true, ..RangeRequest::default() };
    client.unary::<_, RangeResponse>(kv::RANGE, &range).ok().map(|found| found.kvs)
}

fn everything(client: &mut Client) -> Vec<KeyValue> {
    let (key, range_end) = (vec![0].into(), vec![0].into());
    let range = RangeRequest { key, range_end, serializable: true, ..RangeRequest::default() };
    client.unary::<_, RangeResponse>(kv::RANGE, &range).expect("it serves").kvs
}

fn hash(client: &mut Client) -> (u32, i64) {
    let done: HashKvResponse =
        client.unary(maintenance::HASH_KV, &HashKvRequest::default()).expect("it serves");
    (done.hash, done.header.expect("an answer has a header").revision)
}

/// What `ringleader inspect` says of a directory, and whether it calls it whole.
fn inspect(dir: &Path) -> (bool, Value) {
    let mut command = Command::new(binary::ringleader());
    let said = command.arg("inspect").arg(dir).arg("--json").output().expect("it starts");
    let object = serde_json::from_slice(&said.stdout).expect("JSON was asked for");
    (said.status.success(), object)
}

/// Files of the newest superblock whose names begin so.
fn named(dir: &Path, prefix: &str) -> Vec<String> {
    let (_, summary) = inspect(dir);
    let files = summary["records"]["files"].as_array().expect("a list");
    let names = files.iter().map(|file| file["file"].as_str().expect("text").to_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Flips a bit of a key's name wherever a sealed segment has it. Returns the files.
fn strike_records(dir: &Path) -> BTreeSet<String> {
    let mut segments = named(dir, "rec/0");
    segments.sort();
    // The last of them grows.
    segments.pop();
    let mut struck = BTreeSet::new();
    for name in segments {
        let path = dir.join("member").join(&name);
        let bytes = fs::read(&path).expect("a file of the member");
        for at in memchr::memmem::find_iter(&bytes, STRUCK) {
            flip(&path, at as u64);
            struck.insert(name.clone());
        }
    }
    assert!(!struck.is_empty(), "{STRUCK} is in no sealed segment");
    struck
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("a file of ours");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is that long");
    file.write_all_at(&[byte[0] ^ 4], at).expect("ours");
}

fn mark_of(setup: &Setup) -> PathBuf {
    setup.data_folder().join("member/rec/damaged")
}

/// Three members that have done their work, and one that follows and has ended in order.
fn three(test: &str) -> (Cluster, usize) {
    let mut cluster = Cluster::start(&binary::ringleader(), test, 3, &CHECKPOINT_EVERY);
    let follower = (cluster.wait_leader() + 1) % 3;
    work(&mut cluster.client(follower).expect("it runs"));
    cluster.wait_equal();
    defragment(&mut cluster.client(follower).expect("it runs"));
    // So that the segment that grows is not empty.
    put(&mut cluster.client(follower).expect("it runs"), "last", 0);
    cluster.wait_equal();
    cluster.terminate(follower);
    (cluster, follower)
}

/// It starts as one that fetches everything anew, and then has what the others have.
fn becomes_whole(cluster: &mut Cluster, member: usize, file: &str) {
    let begun = Instant::now();
    cluster.restart(member);
    println!("it serves again after {:?}", begun.elapsed());
    let log = cluster.server(member).expect("it runs").log();
    assert!(log.contains("it is fetched anew from the other members"), "{log}");
    assert!(log.contains(file), "{file} is not named:\n{log}");
    cluster.wait_equal();
    let all: Vec<_> = (0..3)
        .map(|at| {
            let mut client = cluster.client(at).expect("it runs");
            (everything(&mut client), hash(&mut client))
        })
        .collect();
    assert_eq!(all[0].0.len(), KEYS + 2);
    assert!(all.iter().all(|one| *one == all[0]), "they differ");
    assert_eq!(
        get(&mut cluster.client(member).expect("it runs"), STRUCK).map(|it| it.len()),
        Some(1)
    );

    // Its word counts again: the others are no majority without it.
    let other = (0..3).find(|at| *at != member && cluster.leader() != Some(*at)).expect("one");
    cluster.kill(other);
    for _ in 0..200 {
        put(&mut cluster.client(member).expect("it runs"), "later", 0);
    }
    let mark = mark_of(cluster.setup(member));
    until("a checkpoint", MOST, || (!mark.exists()).then_some(()));
    cluster.terminate(member);
    let (whole, summary) = inspect(cluster.setup(member).data_folder());
    assert!(whole, "{summary}");
    cluster.restart(member);
    let log = cluster.server(member).expect("it runs").log();
    assert!(!log.contains("is damaged"), "{log}");
}

fn died_of(ended: &Ended, files: &BTreeSet<String>) -> String {
    assert_eq!(ended.code(), None, "{}", ended.log);
    let named = files.iter().find(|file| ended.log.contains(&format!("at {file}, byte ")));
    let named = named.unwrap_or_else(|| panic!("none of {files:?} is named in {}", ended.log));
    assert!(ended.log.contains("ringleader: fatal: "), "{}", ended.log);
    named.clone()
}

#[test]
fn a_member_that_died_of_a_damaged_record_fetches_everything_anew() {
    let (mut cluster, follower) = three("damaged-record");
    let struck = strike_records(cluster.setup(follower).data_folder());
    cluster.restart(follower);
    let answer = get(&mut cluster.client(follower).expect("it runs"), STRUCK);
    assert_eq!(answer, None, "what is damaged is not served");
    let file = died_of(&cluster.wait_end(follower), &struck);
    let mark = fs::read(mark_of(cluster.setup(follower))).expect("it left a mark");
    assert!(mark.starts_with(format!("{file}\nbyte ").as_bytes()) && mark.len() == 4096);
    becomes_whole(&mut cluster, follower, &file);
}

#[test]
fn a_member_that_comes_upon_damage_as_it_starts_fetches_everything_anew() {
    let (mut cluster, follower) = three("damaged-start");
    let dir = cluster.setup(follower).data_folder().to_owned();
    let leases = named(&dir, "rec/leases.");
    let tail = named(&dir, "rec/0").into_iter().max();
    let some = leases.first().cloned().or(tail).expect("there are files");
    flip(&dir.join("member").join(&some), 60);
    becomes_whole(&mut cluster, follower, &some);
    // And one that is gone.
    cluster.recover();
    cluster.terminate(follower);
    let page = named(&dir, "idx/").pop().expect("there are keys");
    fs::remove_file(dir.join("member").join(&page)).expect("ours");
    cluster.restart(follower);
    assert!(cluster.server(follower).expect("it runs").log().contains(&page));
    cluster.wait_equal();
}

#[test]
fn a_member_alone_says_what_is_damaged_and_goes_on() {
    let folder = Folder::new("damaged-alone");
    let setup = Setup::new(&binary::ringleader(), folder.path()).flags(CHECKPOINT_EVERY);
    let server = setup.start().expect("it starts");
    work(&mut server.client());
    defragment(&mut server.client());
    put(&mut server.client(), "last", 0);
    server.terminate();
    let struck = strike_records(setup.data_folder());
    let server = setup.start().expect("it does not look yet");
    assert_eq!(get(&mut server.client(), STRUCK), None);
    let file = died_of(&server.wait_end(), &struck);
    let (whole, summary) = inspect(setup.data_folder());
    assert!(!whole && summary["leftovers"].to_string().contains("rec/damaged"), "{summary}");

    let server = setup.start().expect("it goes on");
    let log = server.log();
    assert!(log.contains("the other members are too few to fetch it from"), "{log}");
    assert!(log.contains(&file), "{log}");
    assert_eq!(get(&mut server.client(), "last").map(|found| found.len()), Some(1));
    assert_eq!(get(&mut server.client(), STRUCK), None);
    died_of(&server.wait_end(), &struck);

    // What a start reads whole is refused, as nobody else has it.
    let tail = named(setup.data_folder(), "rec/0").into_iter().max().expect("a segment grows");
    flip(&setup.data_folder().join("member").join(&tail), 4096 + 20);
    let ended = setup.start().expect_err("it is damaged");
    assert_eq!(ended.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains(&format!("{tail} is damaged at byte")), "{}", ended.log);
}
