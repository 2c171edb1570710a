//! `ringleader restore` on directories that real members made: what starts from the result answers as the
//! member did, belongs to another cluster, and goes on from there.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use e2e::{
    binary,
    server::{Folder, Server, Setup},
};
use loadgen::client::Client;
use proto::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse,
        DeleteRangeRequest, DeleteRangeResponse, HashKvRequest, HashKvResponse, LeaseGrantRequest,
        LeaseGrantResponse, LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest,
        LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, MemberListRequest,
        MemberListResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
        ResponseHeader, TxnRequest, TxnResponse, cluster, kv, lease, maintenance,
        request_op::Request,
    },
    mvccpb::KeyValue,
};
use serde_json::Value;

/// Keys are few, so that each has a history.
const KEYS: usize = 40;

/// Exit code, standard output and standard error.
fn restore(dir: &Path, revision: i64, out: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(binary::ringleader());
    command.arg("restore").arg(dir).args(["--to-revision", &revision.to_string()]);
    let said = command.arg("--out").arg(out).args(words).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("it says text");
    (said.status.code().expect("it exits"), text(said.stdout), text(said.stderr))
}

fn revision_of(header: Option<ResponseHeader>) -> i64 {
    header.expect("an answer has a header").revision
}

fn put(client: &mut Client, key: &str, value: &str, lease: i64) -> i64 {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let request = PutRequest { key, value, lease, ..PutRequest::default() };
    let done: PutResponse = client.unary(kv::PUT, &request).expect("it is put");
    revision_of(done.header)
}

fn delete(client: &mut Client, key: &str) -> i64 {
    let request = DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    let done: DeleteRangeResponse = client.unary(kv::DELETE_RANGE, &request).expect("deleted");
    revision_of(done.header)
}

/// Several changes of one revision.
fn txn(client: &mut Client, at: usize) -> i64 {
    let put = |key: String| {
        let put = PutRequest { key: key.into(), value: "of a txn".into(), ..Default::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    };
    let gone = DeleteRangeRequest { key: key(at + 1).into(), ..Default::default() };
    let gone = RequestOp { request: Some(Request::RequestDeleteRange(gone)) };
    let success = vec![put(key(at)), gone, put(key(at + 2))];
    let request = TxnRequest { success, ..TxnRequest::default() };
    let done: TxnResponse = client.unary(kv::TXN, &request).expect("done");
    revision_of(done.header)
}

fn key(at: usize) -> String {
    format!("key{}", at % KEYS)
}

fn grant(client: &mut Client, id: i64, ttl: i64) {
    let request = LeaseGrantRequest { id, ttl };
    let _: LeaseGrantResponse = client.unary(lease::LEASE_GRANT, &request).expect("granted");
}

fn compact(client: &mut Client, revision: i64) {
    let request = CompactionRequest { revision, physical: true };
    let _: CompactionResponse = client.unary(kv::COMPACT, &request).expect("compacted");
}

fn all(client: &mut Client, revision: i64) -> RangeResponse {
    let ends = (vec![0].into(), vec![0].into());
    let request = RangeRequest { key: ends.0, range_end: ends.1, revision, ..Default::default() };
    client.unary(kv::RANGE, &request).expect("it is held")
}

fn sum(client: &mut Client, revision: i64) -> (u32, i64) {
    let request = HashKvRequest { revision };
    let done: HashKvResponse = client.unary(maintenance::HASH_KV, &request).expect("it is held");
    (done.hash, done.compact_revision)
}

/// Puts, deletions, transactions and leases; returns the newest revision.
fn work(client: &mut Client, changes: usize) -> i64 {
    let value = "v".repeat(300);
    let mut revision = 0;
    for at in 0..changes {
        revision = match at % 9 {
            3 => delete(client, &key(at / 2)),
            5 => txn(client, at * 7),
            _ => put(client, &key(at * 5), &format!("{at}{value}"), 0),
        };
    }
    revision
}

/// What a member says of some revisions.
struct Moment {
    revision: i64,
    keys: Vec<KeyValue>,
    sum: (u32, i64),
}

fn moments(client: &mut Client, revisions: &[i64]) -> Vec<Moment> {
    let of = |revision: &i64| Moment {
        revision: *revision,
        keys: all(client, *revision).kvs,
        sum: sum(client, *revision),
    };
    revisions.iter().map(of).collect()
}

/// Restores, starts the result, and sees that it is that moment, with all that came before it.
fn comes_back(dir: &Path, folder: &Path, of: &[Moment], at: usize) -> (Setup, Server) {
    let Moment { revision, keys, sum: was } = &of[at];
    let setup = Setup::named(&binary::ringleader(), folder, &format!("at{revision}"));
    let out = setup.data_folder();
    let (code, said, err) = restore(dir, *revision, out, &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{said}");
    assert!(said.contains(&format!("as of revision {revision}\n")), "{said}");
    let server = setup.start().expect("it starts");
    let mut client = server.client();
    let now = all(&mut client, 0);
    assert_eq!((revision_of(now.header), &now.kvs), (*revision, keys));
    assert_eq!(now.count, keys.len() as i64);
    for earlier in &of[..=at] {
        assert_eq!(all(&mut client, earlier.revision).kvs, earlier.keys);
        assert_eq!(sum(&mut client, earlier.revision), earlier.sum, "at {}", earlier.revision);
    }
    assert_eq!(sum(&mut client, 0), *was);
    (setup, server)
}

fn identity(client: &mut Client) -> (u64, u64, Vec<String>) {
    let request = MemberListRequest::default();
    let list: MemberListResponse = client.unary(cluster::MEMBER_LIST, &request).expect("it has");
    let header = list.header.expect("an answer has a header");
    (header.cluster_id, header.member_id, list.members.into_iter().map(|one| one.name).collect())
}

/// The directory of a member that compacted, swept and saved, and the rest of what it did in its log.
#[test]
fn what_starts_from_it_is_the_member_as_it_was() {
    let folder = Folder::new("restore-moments");
    let setup = Setup::named(&binary::ringleader(), folder.path(), "old")
        .flags(["--snapshot-count", "100"]);
    let dir = setup.data_folder().to_owned();
    let mut server = setup.start().expect("it starts");
    let mut client = server.client();
    grant(&mut client, 7, 600);
    put(&mut client, "leased", "for long", 7);
    let compacted = work(&mut client, 300) - 100;
    compact(&mut client, compacted);
    let request = DefragmentRequest::default();
    let _: DefragmentResponse = client.unary(maintenance::DEFRAGMENT, &request).expect("done");
    grant(&mut client, 8, 700);
    let lock = put(&mut client, "lock", "held", 8);
    let revoke = LeaseRevokeRequest { id: 8 };
    let revoked: LeaseRevokeResponse = client.unary(lease::LEASE_REVOKE, &revoke).expect("revoked");
    assert_eq!(revision_of(revoked.header), lock + 1);
    let newest = work(&mut client, 60);
    let revisions = [compacted + 1, compacted + 50, lock, lock + 1, lock + 20, newest];
    let was = moments(&mut client, &revisions);
    let old = identity(&mut client);
    server.kill();

    for at in [0, 2, 3, 5] {
        let (setup, server) = comes_back(&dir, folder.path(), &was, at);
        let mut client = server.client();
        let new = identity(&mut client);
        assert!(new.0 != old.0 && new.1 != old.1 && new.2 == ["default"], "{new:?} {old:?}");
        let request = LeaseLeasesRequest::default();
        let held: LeaseLeasesResponse =
            client.unary(lease::LEASE_LEASES, &request).expect("a list");
        let held: Vec<_> = held.leases.iter().map(|lease| lease.id).collect();
        assert_eq!(held, if revisions[at] == lock { vec![7, 8] } else { vec![7] });
        let request = LeaseTimeToLiveRequest { id: 7, keys: true };
        let left: LeaseTimeToLiveResponse =
            client.unary(lease::LEASE_TIME_TO_LIVE, &request).expect("it is there");
        assert_eq!((left.granted_ttl, left.keys), (600, vec!["leased".into()]));
        assert_eq!(put(&mut client, "next", "", 0), revisions[at] + 1);
        drop(client);
        server.terminate();
        setup.start().expect("and again").terminate();
        let mut inspect = Command::new(binary::ringleader());
        let said = inspect.arg("inspect").arg(setup.data_folder()).output().expect("it starts");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    }
    let out = folder.path().join("too far");
    for (revision, why) in [(compacted - 1, "is compacted"), (newest + 1, "still to come")] {
        let (code, said, err) = restore(&dir, revision, &out, &[]);
        let range = format!("revisions {compacted} to {newest} can be restored");
        assert_eq!((code, said.as_str()), (1, ""));
        assert!(err.contains(why) && err.contains(&range), "{err}");
        assert!(!out.exists());
    }
}

/// etcd's own client sees no difference either.
#[test]
fn etcdctl_sees_what_it_saw() {
    let Some(etcdctl) = binary::etcd("etcdctl", "etcdctl_sees_what_it_saw") else { return };
    let folder = Folder::new("restore-etcdctl");
    let setup = Setup::named(&binary::ringleader(), folder.path(), "old");
    let server = setup.start().expect("it starts");
    let newest = work(&mut server.client(), 80);
    let ask = |server: &Server, words: &[&str]| -> Value {
        let mut command = Command::new(&etcdctl);
        command.args(["--endpoints", &server.endpoint(), "-w", "json"]).args(words);
        let said = command.output().expect("it starts");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        serde_json::from_slice(&said.stdout).expect("JSON was asked for")
    };
    let seen = |server: &Server, revision: i64| {
        let revision = format!("--rev={revision}");
        let keys = ask(server, &["get", "", "--from-key", &revision]);
        let sum = ask(server, &["endpoint", "hashkv", &revision]);
        (keys["kvs"].clone(), keys["count"].clone(), sum[0]["HashKV"]["hash"].clone())
    };
    let revisions = [2, 9, newest / 2, newest];
    let was = revisions.map(|revision| seen(&server, revision));
    assert!(was.iter().all(|(_, _, sum)| sum.is_number()), "{was:?}");
    server.terminate();
    for (revision, was) in revisions.into_iter().zip(was) {
        let new = Setup::named(&binary::ringleader(), folder.path(), &format!("at{revision}"));
        let (code, _, err) = restore(setup.data_folder(), revision, new.data_folder(), &[]);
        assert_eq!(code, 0, "{err}");
        let server = new.start().expect("it starts");
        assert_eq!(seen(&server, revision), was);
        assert_eq!(seen(&server, 0), was);
        server.terminate();
    }
}

/// Each member of the new cluster gets a directory of its own, as with etcd's.
#[test]
fn three_members_begin_with_one_past() {
    let folder = Folder::new("restore-three");
    let old = Setup::named(&binary::ringleader(), folder.path(), "old");
    let server = old.start().expect("it starts");
    let mut client = server.client();
    work(&mut client, 50);
    let was = moments(&mut client, &[30]);
    server.terminate();

    let names = ["a", "b", "c"];
    let news = names.map(|name| {
        Setup::named(&binary::ringleader(), folder.path(), name).flags(["--name", name])
    });
    let url = |setup: &Setup| format!("http://127.0.0.1:{}", setup.peer_port());
    let all_of_them: Vec<_> =
        names.iter().zip(&news).map(|(name, setup)| format!("{name}={}", url(setup))).collect();
    for (name, setup) in names.iter().zip(&news) {
        let words = ["--name", name, "--initial-cluster", &all_of_them.join(",")];
        let advertised = ["--initial-advertise-peer-urls", &url(setup)];
        let words = [&words[..], &advertised].concat();
        let (code, _, err) = restore(old.data_folder(), 30, setup.data_folder(), &words);
        assert_eq!(code, 0, "{err}");
    }
    let mut servers: Vec<_> = news.iter().map(Setup::spawn).collect();
    servers.iter_mut().for_each(|server| server.wait_ready().expect("they elect a leader"));
    for server in &servers {
        let mut client = server.client();
        let now = all(&mut client, 0);
        assert_eq!((revision_of(now.header), &now.kvs), (30, &was[0].keys));
        assert_eq!(sum(&mut client, 30), was[0].sum);
        let mut found = identity(&mut client).2;
        found.sort();
        assert_eq!(found, names);
    }
    assert_eq!(put(&mut servers[0].client(), "next", "", 0), 31);
    assert_eq!(all(&mut servers[2].client(), 0).count, was[0].keys.len() as i64 + 1);
}

/// As with etcd's `--bump-revision`: who has seen what came later begins anew.
#[test]
fn a_bumped_revision_sends_watchers_of_later_ones_away() {
    let folder = Folder::new("restore-bumped");
    let old = Setup::named(&binary::ringleader(), folder.path(), "old");
    let server = old.start().expect("it starts");
    let mut client = server.client();
    let newest = work(&mut client, 50);
    let was = moments(&mut client, &[20]);
    server.terminate();
    let new = Setup::named(&binary::ringleader(), folder.path(), "new");
    let words = ["--bump-revision", "1000", "--mark-compacted"];
    let (code, _, err) = restore(old.data_folder(), 20, new.data_folder(), &words);
    assert_eq!(code, 0, "{err}");
    let server = new.start().expect("it starts");
    let mut client = server.client();
    let now = all(&mut client, 0);
    assert_eq!((revision_of(now.header), &now.kvs), (1020, &was[0].keys));
    for revision in [2, 20, 21, newest, 1019] {
        let request = RangeRequest { key: "k".into(), revision, ..RangeRequest::default() };
        let refused = client.unary::<_, RangeResponse>(kv::RANGE, &request).expect_err("gone");
        assert!(format!("{refused:?}").contains("compacted"), "{refused:?}");
    }
    assert_eq!(put(&mut client, "next", "", 0), 1021);
}

/// A member that runs is not disturbed, and what it has committed by then can be had.
#[test]
fn beside_a_member_under_load_it_works_too() {
    let folder = Folder::new("restore-beside");
    let setup = Setup::named(&binary::ringleader(), folder.path(), "old")
        .flags(["--snapshot-count", "100"]);
    let server = setup.start().expect("it starts");
    let revision = work(&mut server.client(), 200);
    let was = moments(&mut server.client(), &[revision]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = server.client();
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                at += 1;
                put(&mut client, &key(at), &"w".repeat(2000), 0);
            }
            at
        });
        for at in 0..3 {
            let aside = folder.path().join(format!("aside{at}"));
            let (code, said, err) = restore(setup.data_folder(), revision, &aside, &[]);
            if code != 0 {
                stop.store(true, Ordering::Relaxed);
            }
            assert_eq!(code, 0, "{said}{err}");
        }
        let (_, restored) = comes_back(setup.data_folder(), folder.path(), &was, 0);
        stop.store(true, Ordering::Relaxed);
        restored.terminate();
        assert!(writer.join().expect("it writes") > 3);
    });
}

#[test]
fn who_cannot_restore_says_why_and_leaves_nothing() {
    let folder = Folder::new("restore-refused");
    let setup =
        Setup::named(&binary::ringleader(), folder.path(), "old").flags(["--snapshot-count", "10"]);
    let server = setup.start().expect("it starts");
    work(&mut server.client(), 20);
    server.terminate();
    let (dir, out) = (setup.data_folder().to_owned(), folder.path().join("new"));
    let refused = |dir: &Path, out: &Path, words: &[&str], ends: i32, why: &str| {
        let (code, said, err) = restore(dir, 5, out, words);
        assert_eq!((code, said.as_str()), (ends, ""), "{err}");
        assert!(err.contains(why), "{err}");
    };
    let none = |folder: &Path| !folder.join("new").exists() && !half(&folder.join("new")).exists();
    refused(&folder.path().join("nowhere"), &out, &[], 1, "No such file");
    refused(&dir, &out, &["--frob"], 1, "there is no --frob");
    refused(&dir, &out, &["--to-revision", "6"], 1, "--to-revision is given twice");
    refused(&dir, &out, &["--name"], 1, "--name needs a value");
    refused(&dir, &out, &["--initial-cluster", "a=http://a:1"], 1, "couldn't find local name");
    refused(&dir, &out, &["--initial-advertise-peer-urls", "ftp://x:1"], 1, "URL scheme must be");
    refused(&dir, &out, &["--wal-dir", "/nowhere"], 1, "/nowhere");
    refused(&dir, &dir, &[], 1, "is not empty");
    assert!(none(folder.path()));
    let same = ["--initial-cluster-token", "etcd-cluster"];
    let urls = ["--initial-advertise-peer-urls", "http://127.0.0.1:10380"];
    refused(&dir, &out, &[&same[..], &urls].concat(), 1, "has to be another one");

    fs::create_dir(half(&out)).expect("ours");
    refused(&dir, &out, &[], 1, "did not come to its end");
    fs::remove_dir(half(&out)).expect("ours");

    let record = dir.join("member/rec/0000000000.g0");
    let file = fs::File::options().read(true).write(true).open(&record).expect("it was saved");
    let flip = || {
        let mut byte = [0];
        file.read_exact_at(&mut byte, 4096 + 70).expect("it is that long");
        file.write_all_at(&[byte[0] ^ 1], 4096 + 70).expect("ours");
    };
    flip();
    refused(&dir, &out, &[], 2, "rec/0000000000.g0 byte 4096: a record's checksum");
    flip();
    assert!(none(folder.path()));

    // An empty one is as good as none.
    fs::create_dir(&out).expect("ours");
    let (code, said, err) = restore(&dir, 5, &out, &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{said}");
    assert!(out.join("member/superblock").exists() && !half(&out).exists());
    let said = Command::new(binary::ringleader()).args(["restore", "--help"]).output();
    let said = said.expect("it starts");
    assert!(said.status.success() && said.stdout.starts_with(b"Usage:"));
}

/// What it is called until it is whole.
fn half(out: &Path) -> PathBuf {
    let name = out.file_name().expect("it has one").to_string_lossy();
    out.with_file_name(format!("{name}.restoring"))
}
