//! `ringleader inspect` on directories that real members made: whole at every age and beside a running
//! member, damaged where something was changed, and never changed by it.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::SystemTime,
};

use e2e::{
    binary,
    server::{Folder, Server, Setup},
};
use loadgen::client::Client;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse,
    DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, PutRequest,
    PutResponse, kv, lease, maintenance,
};
use serde_json::Value;

/// Writers beside an inspection, and inspections beside the writers.
const WRITERS: usize = 4;
const LOOKS: usize = 6;

/// Exit code, standard output and standard error.
fn inspect(words: &[&str], dir: &Path) -> (i32, String, String) {
    let mut command = Command::new(binary::ringleader());
    let said = command.arg("inspect").arg(dir).args(words).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("it says text");
    let code = said.status.code().expect("it exits");
    (code, text(said.stdout), text(said.stderr))
}

/// The summary of a directory that is whole.
fn whole(dir: &Path) -> Value {
    let (code, out, err) = inspect(&["--json"], dir);
    assert_eq!(code, 0, "{out}{err}");
    let object: Value = serde_json::from_str(&out).expect("JSON was asked for");
    assert_eq!((&object["whole"], err.as_str()), (&Value::Bool(true), ""), "{out}");
    object
}

fn put(client: &mut Client, key: &str, value: &str) -> i64 {
    put_with(
        client,
        PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        },
    )
}

fn put_with(client: &mut Client, request: PutRequest) -> i64 {
    let done: PutResponse = client.unary(kv::PUT, &request).expect("it is put");
    done.header.expect("an answer has a header").revision
}

/// Puts, a deletion, a lease, a compaction and a sweep: all that makes files.
fn work(client: &mut Client, from: usize) -> i64 {
    let value = "v".repeat(300);
    for at in from..from + 300 {
        put(client, &format!("key{}", at % 50), &value);
    }
    let grant = LeaseGrantRequest { ttl: 600, ..LeaseGrantRequest::default() };
    let granted: LeaseGrantResponse = client.unary(lease::LEASE_GRANT, &grant).expect("granted");
    let leased = PutRequest { key: "leased".into(), lease: granted.id, ..PutRequest::default() };
    let revision = put_with(client, leased);
    let delete = DeleteRangeRequest { key: "key7".into(), ..DeleteRangeRequest::default() };
    let _: DeleteRangeResponse = client.unary(kv::DELETE_RANGE, &delete).expect("deleted");
    let compaction = CompactionRequest { revision: revision - 20, physical: true };
    let _: CompactionResponse = client.unary(kv::COMPACT, &compaction).expect("compacted");
    let defragment = DefragmentRequest::default();
    let _: DefragmentResponse =
        client.unary(maintenance::DEFRAGMENT, &defragment).expect("defragmented");
    revision + 1
}

/// Every file below a directory: a sum over its first bytes, and when it was written last.
fn image(dir: &Path) -> BTreeMap<PathBuf, (u32, SystemTime)> {
    let (mut dirs, mut found) = (vec![dir.to_owned()], BTreeMap::new());
    while let Some(dir) = dirs.pop() {
        let written = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
        found.insert(dir.clone(), (0, written(&dir).expect("it is there")));
        for entry in fs::read_dir(&dir).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = head(&path);
                found.insert(
                    path.clone(),
                    (crc32fast::hash(&bytes), written(&path).expect("a time")),
                );
            }
        }
    }
    found
}

/// The log's segments are large and the same for the most part.
const HEAD_BYTES: u64 = 1 << 20;

fn head(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).expect("a file");
    file.take(HEAD_BYTES).read_to_end(&mut bytes).expect("it is readable");
    bytes
}

/// A member's directory after some work and an orderly end.
fn ended(folder: &Folder) -> (Setup, i64) {
    let setup = Setup::new(&binary::ringleader(), folder.path());
    let server = setup.start().expect("it starts");
    let revision = work(&mut server.client(), 0);
    server.terminate();
    (setup, revision)
}

#[test]
fn a_directory_is_whole_at_every_age_and_stays_as_it_is() {
    let folder = Folder::new("inspect-ages");
    let setup = Setup::new(&binary::ringleader(), folder.path()).flags(["--snapshot-count", "100"]);
    let dir = setup.data_folder().to_owned();
    let mut server = setup.start().expect("it starts");
    let fresh = whole(&dir);
    assert_eq!(fresh["superblock"]["members"][0]["name"], "default");

    let revision = work(&mut server.client(), 0);
    whole(&dir);
    server.kill();
    let before = image(&dir);
    let killed = whole(&dir);
    assert!(killed["log"]["lastIndex"].as_u64() >= killed["superblock"]["appliedIndex"].as_u64());
    assert_eq!(image(&dir), before);

    let server = setup.start().expect("it starts over what a kill left");
    let again = work(&mut server.client(), 1000);
    assert!(again > revision);
    server.terminate();
    let before = image(&dir);
    let done = whole(&dir);
    assert_eq!(done["records"]["leases"], 2);
    assert!(done["superblock"]["compacted"].as_i64() > Some(0), "{done}");
    for words in [&[][..], &["--superblock"], &["--segment", "wal/00000000.seg"]] {
        let (code, out, err) = inspect(words, &dir);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
    }
    assert_eq!(image(&dir), before);
}

#[test]
fn parts_are_shown_as_text() {
    let folder = Folder::new("inspect-parts");
    let (setup, _) = ended(&folder);
    let dir = setup.data_folder();
    let summary = whole(dir);
    let shown = |words: &[&str]| {
        let (code, out, err) = inspect(words, dir);
        assert_eq!((code, err.as_str()), (0, ""), "{words:?}: {out}");
        out
    };
    let last = summary["log"]["lastFrame"].as_u64().expect("a number");
    let frames = (1..=last).rev().map(|number| shown(&["--frame", &number.to_string()]));
    let put = frames.into_iter().find(|frame| frame.contains("leased")).expect("it was put");
    assert!(put.contains("payload bytes") && put.contains("kind 0: "), "{put}");
    let next = summary["superblock"]["nextRecord"].as_u64().expect("a number");
    if next > 0 {
        let record = shown(&["--record", &(next - 1).to_string()]);
        assert!(record.contains("key ") && record.contains("tombstone"), "{record}");
    }
    let number = summary["superblock"]["number"].to_string();
    assert!(shown(&["--superblock"]).ends_with(&format!("counts         {number}\n")));
    for file in summary["records"]["files"].as_array().expect("a list") {
        let (name, records) = (file["file"].as_str().expect("text"), &file["records"]);
        if records.as_u64() > Some(0) {
            let lines = shown(&["--segment", name]).lines().count() as u64;
            assert_eq!(Some(lines), records.as_u64());
        }
    }
    let (code, _, err) = inspect(&["--frame", "999999999"], dir);
    assert_eq!((code, err.contains("no frame 999999999")), (1, true), "{err}");
}

/// Beside it the superblock changes every hundred entries, and the log with every put.
#[test]
fn beside_a_member_under_load_nothing_is_called_damaged() {
    let folder = Folder::new("inspect-beside");
    let setup = Setup::new(&binary::ringleader(), folder.path()).flags(["--snapshot-count", "100"]);
    let server = setup.start().expect("it starts");
    let stop = AtomicBool::new(false);
    let write = |server: &Server, at: usize| {
        let mut client = server.client();
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            round += 1;
            let revision = put(&mut client, &format!("w{at}-{}", round % 40), &"v".repeat(2000));
            if round % 150 == 0 {
                let compaction = CompactionRequest { revision, physical: false };
                let done: Result<CompactionResponse, _> = client.unary(kv::COMPACT, &compaction);
                // Another may have been quicker.
                let _refused = done.is_err();
            }
        }
        round
    };
    let puts = thread::scope(|scope| {
        let (server, write) = (&server, &write);
        let writers: Vec<_> =
            (0..WRITERS).map(|at| scope.spawn(move || write(server, at))).collect();
        for _ in 0..LOOKS {
            let (code, out, err) = inspect(&[], setup.data_folder());
            if code != 0 {
                stop.store(true, Ordering::Relaxed);
            }
            assert_eq!(code, 0, "{out}{err}");
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("it writes")).sum::<usize>()
    });
    assert!(puts > LOOKS, "the writers hardly wrote");
    println!("{LOOKS} looks beside {puts} puts");
}

/// Runs `change` on one file, sees that the damage is told with that file and an offset within
/// `offsets`, and puts the file back.
fn told(dir: &Path, file: &str, offsets: std::ops::Range<u64>, change: impl Fn(&fs::File)) {
    let path = dir.join("member").join(file);
    let before = fs::read(&path).expect("a file of the member");
    change(&fs::File::options().write(true).read(true).open(&path).expect("ours"));
    let changed = image(dir);
    is_told(dir, file, offsets);
    assert_eq!(image(dir), changed);
    fs::write(&path, before).expect("ours");
}

fn is_told(dir: &Path, file: &str, offsets: std::ops::Range<u64>) {
    let (code, out, _) = inspect(&["--json"], dir);
    assert_eq!(code, 2, "{file}: {out}");
    let object: Value = serde_json::from_str(&out).expect("JSON was asked for");
    let damage = object["damage"].as_array().expect("a list");
    let here = damage.iter().find(|damage| damage["file"] == file);
    let here = here.unwrap_or_else(|| panic!("{file}: {out}"));
    assert!(offsets.contains(&here["offset"].as_u64().expect("a number")), "{file}: {out}");
    assert!(!here["advice"].as_str().expect("text").is_empty());
    let (code, out, _) = inspect(&[], dir);
    assert_eq!((code, out.contains(file), out.contains("DAMAGED")), (2, true, true), "{out}");
}

fn flip(file: &fs::File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is that long");
    file.write_all_at(&[byte[0] ^ 4], at).expect("ours");
}

#[test]
fn what_was_changed_is_told_with_file_and_offset() {
    let folder = Folder::new("inspect-damage");
    let (setup, _) = ended(&folder);
    let dir = setup.data_folder();
    // So that it is not the last write of all, which a crash may have torn.
    setup.start().expect("it starts").terminate();
    let summary = whole(dir);
    let files = summary["records"]["files"].as_array().expect("a list");
    for file in files {
        let name = file["file"].as_str().expect("text");
        let first = if file["records"].as_u64() > Some(0) { 4096 } else { 0 };
        told(dir, name, 0..first + 100, |file| flip(file, first + 20));
        told(dir, name, 0..1, |file| file.set_len(100).expect("ours"));
        let path = dir.join("member").join(name);
        fs::rename(&path, dir.join("aside")).expect("ours");
        is_told(dir, name, 0..1);
        fs::rename(dir.join("aside"), &path).expect("ours");
    }
    let log = summary["log"]["segments"][0]["file"].as_str().expect("text");
    told(dir, log, 0..1, |file| flip(file, 30));
    told(dir, log, 0..1, |file| file.set_len(1 << 20).expect("ours"));
    told(dir, log, 4096..4097, |file| flip(file, 4096 + 50));
    told(dir, "ballot", 4096..4097, |file| flip(file, 4096 + 30));
    let half = fs::metadata(dir.join("member/superblock")).expect("it is there").len() / 2;
    told(dir, "superblock", 0..half * 2, |file| {
        [50, half + 50].into_iter().for_each(|at| flip(file, at))
    });
    let superblock = dir.join("member/superblock");
    fs::rename(&superblock, dir.join("aside")).expect("ours");
    is_told(dir, "superblock", 0..1);
    fs::rename(dir.join("aside"), &superblock).expect("ours");
    whole(dir);
    setup.start().expect("it is as it was");
}

#[test]
fn who_cannot_look_says_why() {
    let folder = Folder::new("inspect-blind");
    let blind = |words: &[&str], dir: &Path, why: &str| {
        let (code, out, err) = inspect(words, dir);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(why), "{err}");
    };
    let at = |name: &str| folder.path().join(name);
    blind(&[], &at("nowhere"), "No such file");
    fs::write(at("file"), "text").expect("ours");
    blind(&[], &at("file"), "Not a directory");
    fs::create_dir_all(at("empty")).expect("ours");
    blind(&[], &at("empty"), "is no data directory");
    fs::create_dir_all(at("begun/member/rec")).expect("ours");
    blind(&[], &at("begun"), "there is no database");
    fs::create_dir_all(at("etcd/member/snap")).expect("ours");
    fs::write(at("etcd/member/snap/db"), "").expect("ours");
    blind(&[], &at("etcd"), "holds the data of an etcd");
    blind(&["--wal-dir", "/nowhere"], &at("begun"), "/nowhere");
    blind(&["--frob"], &at("begun"), "there is no --frob");

    let closed = at("closed");
    fs::create_dir_all(closed.join("member")).expect("ours");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).expect("ours");
    // Nothing is closed to root.
    if fs::read_dir(&closed).is_err() {
        blind(&[], &closed, "Permission denied");
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("ours");

    let said = Command::new(binary::ringleader()).args(["inspect", "--help"]).output();
    let said = said.expect("it starts");
    assert!(said.status.success() && said.stdout.starts_with(b"Usage:"));
}
