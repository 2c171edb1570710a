//! A server that is full, and is used again: compact, defragment, disarm. Asked with `etcdctl`, of
//! our server and of etcd alike.

use std::{path::Path, process::Command};

use e2e::{
    binary,
    server::{Folder, Server, Setup},
};
use serde_json::Value;

/// Thirteen pages: etcd begins with five of them.
const QUOTA_BYTES: i64 = 13 * 4096;
/// More puts of a page than fit any such quota.
const PUTS_MAX: usize = 100;
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

struct Ctl<'a> {
    program: &'a Path,
    endpoint: String,
}

impl Ctl<'_> {
    /// What it says on standard output.
    ///
    /// # Errors
    /// What it says on standard error.
    fn run(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.program);
        command.env_clear().args(["--endpoints", &self.endpoint, "--command-timeout=60s"]);
        let said = command.args(words).output().expect("etcdctl starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("etcdctl says text");
        if said.status.success() { Ok(text(said.stdout)) } else { Err(text(said.stderr)) }
    }

    fn done(&self, words: &[&str]) -> String {
        self.run(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    fn refused(&self, words: &[&str], why: &str) {
        let error = self.run(words).expect_err("there is no room");
        assert!(error.contains(why), "{words:?}: {error}");
    }

    fn status(&self) -> Value {
        let said = self.done(&["endpoint", "status", "-w", "json"]);
        let all: Value = serde_json::from_str(&said).expect("JSON was asked for");
        all[0]["Status"].clone()
    }

    fn db_size(&self) -> i64 {
        self.status()["dbSize"].as_i64().expect("a size")
    }
}

fn a_full_server_is_used_again(server: &Server, etcdctl: &Path) {
    let ctl = Ctl { program: etcdctl, endpoint: server.endpoint() };
    let (small, page) = ("a".repeat(64), "b".repeat(4096));
    ctl.done(&["put", "first", &small]);
    assert!(ctl.db_size() < QUOTA_BYTES * 2 / 3, "a server that begins has room");
    let mut puts = (0..PUTS_MAX).map(|_| ctl.run(&["put", "second", &page]));
    let full = puts.find_map(Result::err).expect("the room ends");
    assert!(full.contains(NO_SPACE), "{full}");
    assert!(ctl.done(&["alarm", "list"]).contains("alarm:NOSPACE"));
    ctl.refused(&["put", "third", &small], NO_SPACE);

    let before = ctl.db_size();
    let revision = ctl.status()["header"]["revision"].to_string();
    ctl.done(&["compact", "--physical", &revision]);
    ctl.done(&["defrag"]);
    let after = ctl.db_size();
    println!("{before} bytes before, {after} after");
    assert!(after < before * 2 / 3, "{before} bytes before, {after} after");
    ctl.refused(&["put", "third", &small], NO_SPACE);
    ctl.done(&["alarm", "disarm"]);
    ctl.done(&["put", "fourth", &small]);
    assert_eq!(ctl.done(&["get", "second", "--print-value-only"]).trim_end(), page);
    assert_eq!(ctl.done(&["alarm", "list"]), "");
    assert!(ctl.done(&["defrag"]).starts_with("Finished defragmenting"), "there is little to do");
}

fn run(server: &Path, test: &str) {
    let Some(etcdctl) = binary::etcd("etcdctl", test) else { return };
    let folder = Folder::new("space");
    let quota = format!("--quota-backend-bytes={QUOTA_BYTES}");
    let mut server = Setup::new(server, folder.path()).flags([quota]).start().expect("it starts");
    a_full_server_is_used_again(&server, &etcdctl);
    // What was given back is not needed after all.
    server.kill();
    let server = server.setup().start().expect("it starts over what a kill left");
    let ctl = Ctl { program: &etcdctl, endpoint: server.endpoint() };
    let keys = ctl.done(&["get", "", "--prefix", "--keys-only"]);
    assert_eq!(keys.split_whitespace().collect::<Vec<_>>(), ["first", "fourth", "second"]);
}

#[test]
fn a_full_server_is_used_again_after_compaction_and_defragmentation() {
    run(&binary::ringleader(), "a_full_server_is_used_again_after_compaction_and_defragmentation");
}

/// The test itself is right: etcd passes it.
#[test]
fn a_full_etcd_is_used_again() {
    let test = "a_full_etcd_is_used_again";
    if let Some(etcd) = binary::etcd("etcd", test) {
        run(&etcd, test);
    }
}
