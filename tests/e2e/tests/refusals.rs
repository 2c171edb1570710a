//! What the server does not start on, and what it says: on standard error, naming the thing, and
//! touching nothing. What it survives instead: a disk that fills up.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use e2e::{
    binary,
    ledger::{self, Ledger},
    server::{Ended, Folder, Setup, free_port},
};
use socket2::{Domain, Socket, Type};

fn setup(folder: &Folder) -> Setup {
    Setup::new(&binary::ringleader(), folder.path())
}

/// It ends with this code, having said all of this.
#[track_caller]
fn refused(setup: &Setup, code: i32, says: &[&str]) -> Ended {
    let ended = match setup.start() {
        Err(ended) => ended,
        Ok(server) => panic!("it starts:\n{}", server.log()),
    };
    assert_eq!(ended.code(), Some(code), "{:?}\n{}", ended.status, ended.log);
    for words in says {
        assert!(ended.log.contains(words), "no {words:?} in:\n{}", ended.log);
    }
    ended
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn succeeds(program: &str, words: &[&str]) -> bool {
    Command::new(program).args(words).output().is_ok_and(|done| done.status.success())
}

// ── flags ───────────────────────────────────────────────────────────────────────────────────────

#[test]
fn flags_that_mean_nothing() {
    let folder = Folder::new("flags");
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--nothing"], 2, "nothing"),
        (&["--election-timeout", "soon"], 2, "soon"),
        (&["--election-timeout"], 2, "election-timeout"),
        (&["--strict-reconfig-check=perhaps"], 2, "perhaps"),
        (&["nothing"], 1, "nothing"),
        (&["--heartbeat-interval=300", "--election-timeout=1000"], 1, "election-timeout"),
        (&["--listen-client-urls=http://example.com:1"], 1, "example.com"),
        (&["--initial-cluster=other=http://127.0.0.1:1"], 1, "default"),
    ];
    for (flags, code, says) in cases {
        refused(&setup(&folder).flags(flags), code, &[says]);
    }
    // What was refused left nothing that is in the way.
    setup(&folder).start().expect("right flags are taken");
}

#[test]
fn help_and_version_are_no_errors() {
    let says = |flag| {
        let done = Command::new(binary::ringleader()).arg(flag).output().expect("it starts");
        assert_eq!(done.status.code(), Some(0), "{flag}");
        String::from_utf8(done.stdout).expect("it is text")
            + &String::from_utf8(done.stderr).expect("it is text")
    };
    assert!(says("--version").starts_with("etcd Version: 3.7.1\n"));
    assert!(says("--help").contains("--listen-client-urls"));
}

// ── what others hold ────────────────────────────────────────────────────────────────────────────

#[test]
fn a_port_in_use() {
    let folder = Folder::new("port");
    let port = free_port();
    let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is free");
    let said = format!("127.0.0.1:{port}");
    refused(&setup(&folder).client_port(port), 1, &[&said, "address already in use"]);
}

/// Sharing must be wanted by both: connections would go to one of them by chance.
#[test]
fn a_port_shared_by_another() {
    let folder = Folder::new("shared");
    let port = free_port();
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    held.set_reuse_port(true).expect("Linux has it");
    held.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("it is free");
    held.listen(16).expect("it is bound");
    let said = format!("127.0.0.1:{port}");
    refused(&setup(&folder).client_port(port), 1, &[&said, "address already in use"]);
}

#[test]
fn a_port_of_a_second_server() {
    let folder = Folder::new("second");
    let other = Folder::new("first");
    let port = free_port();
    let first = setup(&other).client_port(port).start().expect("it starts");
    refused(&setup(&folder).client_port(port), 1, &["address already in use"]);
    ledger::all(&mut first.client()).expect("the first goes on");
}

#[test]
fn a_data_folder_of_a_second_server() {
    let folder = Folder::new("locked");
    let first = setup(&folder).start().expect("it starts");
    let mut ledger = Ledger::new("k", 10);
    let mut client = first.client();
    (0..10).for_each(|_| ledger.put(&mut client, 20).expect("it serves"));
    // Same folder, ports of its own.
    let second = setup(&folder);
    refused(&second, 1, &[second.data_folder().to_str().expect("a plain name")]);
    ledger.put(&mut client, 20).expect("the first goes on");
    ledger.check(&ledger::all(&mut client).expect("it serves")).expect("nothing is lost");
}

// ── a host that does not do ─────────────────────────────────────────────────────────────────────

#[test]
fn a_data_folder_in_memory() {
    let folder = Folder::new("tmpfs");
    let mount = folder.path().join("mount");
    fs::create_dir(&mount).expect("the folder is ours");
    let mount_text = mount.to_str().expect("a plain name");
    if !is_root() || !succeeds("mount", &["-t", "tmpfs", "-o", "size=64m", "tmpfs", mount_text]) {
        eprintln!("a_data_folder_in_memory: skipped, only root can mount");
        return;
    }
    let _mounted = Mounted(mount.clone());
    let data = mount.join("data");
    refused(&setup(&folder).data(&data), 1, &["tmpfs", data.to_str().expect("a plain name")]);
}

#[test]
fn too_little_locked_memory() {
    if !succeeds("prlimit", &["--version"]) {
        eprintln!("too_little_locked_memory: skipped, there is no prlimit");
        return;
    }
    let folder = Folder::new("memlock");
    let setup = setup(&folder).wrapper(["prlimit", "--memlock=65536:65536"]);
    refused(&setup, 1, &["RLIMIT_MEMLOCK", "65536"]);
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if !succeeds("umount", &[self.0.to_str().expect("a plain name")]) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}

// ── damage ──────────────────────────────────────────────────────────────────────────────────────

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the folder is readable").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Where the bytes are, in whichever file.
fn find(folder: &Path, bytes: &[u8]) -> Vec<(PathBuf, usize)> {
    let mut found = Vec::new();
    for path in files(folder) {
        let all = fs::read(&path).expect("the file is readable");
        let places = memchr::memmem::find_iter(&all, bytes);
        found.extend(places.map(|at| (path.clone(), at)));
    }
    found
}

fn flip(path: &Path, at: usize) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().read(true).write(true).open(path).expect("the file is ours");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).expect("it is inside");
    file.write_all_at(&[byte[0] ^ 0x10], at as u64).expect("the file is ours");
}

fn contents(folder: &Path) -> Vec<(PathBuf, u32)> {
    let sum = |path: &PathBuf| crc32fast::hash(&fs::read(path).expect("the file is readable"));
    // Who holds the lock writes its number there.
    let kept = files(folder).into_iter().filter(|path| !path.ends_with("LOCK"));
    kept.map(|path| (path.clone(), sum(&path))).collect()
}

/// Values that are found again in the files, written in a way that leaves them on disk in all places
/// where the server keeps such.
fn written(setup: &Setup) {
    let server = setup.start().expect("it starts");
    let mut client = server.client();
    let mut ledger = Ledger::new("needle", 1_000_000);
    for _ in 0..300 {
        ledger.put(&mut client, 2_000).expect("it serves");
    }
    let ended = server.terminate();
    assert!(ended.status.is_some(), "SIGTERM does not end it:\n{}", ended.log);
}

/// One flipped bit in what was acknowledged long ago: never served, never repaired by guessing.
#[test]
fn a_flipped_bit_in_each_file() {
    let folder = Folder::new("damage");
    let setup = setup(&folder);
    written(&setup);
    // The middle one, so that much was acknowledged after it.
    let places = find(setup.data_folder(), b"needle/150");
    assert!(!places.is_empty(), "the key is in no file");
    for (path, at) in places {
        flip(&path, at + 3);
        let before = contents(setup.data_folder());
        let started = setup.start();
        let refused = started.is_err();
        let ended = started.map_or_else(
            |ended| ended,
            |server| {
                // What a start does not look at is noticed by the first read that comes to it.
                let read = ledger::all(&mut server.client());
                assert!(read.is_err(), "{}: served\n{}", path.display(), server.log());
                server.wait_end()
            },
        );
        assert!(!ended.status.is_some_and(|status| status.success()), "{}", ended.log);
        let name = path.file_name().expect("a file").to_str().expect("a plain name");
        assert!(ended.log.contains(name), "{name} is not named in:\n{}", ended.log);
        let now = contents(setup.data_folder());
        assert!(now == before || !refused, "a refused start changes nothing");
        flip(&path, at + 3);
        println!("{}: a flipped bit at {at} is refused", path.display());
    }
    let mut server = setup.start().expect("undone, all is well");
    assert!(server.ended().is_none());
    let all = ledger::all(&mut server.client()).expect("it serves");
    assert_eq!(all.count, 300);
}

/// Both halves of the superblock, so that there is no older one to fall back to.
#[test]
fn a_superblock_of_nonsense() {
    let folder = Folder::new("superblock");
    let setup = setup(&folder);
    written(&setup);
    let path = setup.data_folder().join("member/superblock");
    let was = fs::read(&path).expect("there is a superblock");
    let junk: Vec<u8> = (0..was.len()).map(|at| (at * 31 % 251) as u8).collect();
    fs::write(&path, junk).expect("the file is ours");
    let before = contents(setup.data_folder());
    refused(&setup, 1, &["superblock"]);
    assert_eq!(contents(setup.data_folder()), before, "a refused start changes nothing");
    fs::remove_file(&path).expect("the file is ours");
    let ended = setup.start().expect_err("a log without a superblock is no new member");
    assert!(ended.log.contains("superblock"), "{}", ended.log);
    fs::write(&path, was).expect("the file is ours");
    setup.start().expect("undone, all is well");
}

// ── a disk that fills up ────────────────────────────────────────────────────────────────────────

#[test]
fn a_full_disk() {
    let folder = Folder::new("full");
    let image = folder.path().join("image");
    let mount = folder.path().join("mount");
    fs::create_dir(&mount).expect("the folder is ours");
    let file = fs::File::create(&image).expect("the folder is ours");
    file.set_len(512 << 20).expect("a sparse file");
    let text = |path: &Path| path.to_str().expect("a plain name").to_owned();
    let loops = ["-o", "loop", &text(&image), &text(&mount)];
    if !is_root() || !succeeds("mkfs.ext4", &["-q", &text(&image)]) || !succeeds("mount", &loops) {
        eprintln!("a_full_disk: skipped, only root can mount");
        return;
    }
    let mounted = Mounted(mount.clone());
    fills_up(&setup(&folder).data(&mount.join("data")), &mount.join("ballast"));
    drop(mounted);
}

/// Whatever the server does about it, it keeps what it acknowledged; and with room again, it takes
/// writes again, after a restart at the latest.
fn fills_up(setup: &Setup, ballast: &Path) {
    let mut server = setup.start().expect("it starts");
    let mut client = server.client();
    let mut ledger = Ledger::new("k", 100_000);
    for _ in 0..50 {
        ledger.put(&mut client, 50_000).expect("there is room");
    }
    let room = fill(ballast);
    let refusal = (0..20_000).find_map(|_| ledger.put(&mut client, 50_000).err());
    let refusal = refusal.expect("more was acknowledged than the disk holds");
    println!("{room} bytes of ballast; {} puts, then: {refusal}", ledger.acknowledged);
    if server.ended().is_none() {
        let all = ledger::all(&mut server.client()).expect("reads go on");
        ledger.check(&all).unwrap_or_else(|lost| panic!("{lost}"));
    }
    drop(server);
    fs::remove_file(ballast).expect("the file is ours");
    let server = setup.start().expect("with room, it starts");
    let mut client = server.client();
    let all = ledger::all(&mut client).expect("it serves");
    ledger.check(&all).unwrap_or_else(|lost| panic!("{lost}"));
    ledger.put(&mut client, 50_000).expect("with room, writes go on");
}

fn fill(ballast: &Path) -> u64 {
    use std::io::Write;
    let mut file = fs::File::create(ballast).expect("the folder is ours");
    let mut block = vec![7; 1 << 20];
    while !block.is_empty() {
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
    // What was not written yet may not fit after all.
    file.sync_all().ok();
    thread::sleep(Duration::from_millis(100));
    file.metadata().expect("the file is ours").len()
}
