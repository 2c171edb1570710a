//! `loadgen compare` as a process, against servers that are not there, that hang up, and real etcd.
#![allow(clippy::disallowed_methods, reason = "a real server takes real time")]

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

fn compare(arguments: &[&str]) -> Output {
    let bin = env!("CARGO_BIN_EXE_loadgen");
    Command::new(bin).arg("compare").args(arguments).output().expect("it starts")
}

fn failure(ended: &Output) -> String {
    assert_eq!(ended.status.code(), Some(1));
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let (a, b) = (free_address(), free_address());
    let said = failure(&compare(&[&a, &b, "--", "put", "--ops", "1"]));
    assert!(said.starts_with(&format!("loadgen: round 1: A ({a}): put failed: ")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_server_that_hangs_up_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let a = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || listener.incoming().for_each(drop));
    let said = failure(&compare(&[&a, &a, "--", "put", "--ops", "1"]));
    assert!(said.starts_with(&format!("loadgen: round 1: A ({a}): put failed: ")), "{said}");
}

#[test]
fn a_work_that_there_is_not_is_refused_by_its_own_words() {
    let said = failure(&compare(&["a:1", "b:1", "--", "dance"]));
    assert!(said.contains("unknown work \"dance\""), "{said}");
    let said = failure(&compare(&["a:1", "--", "put"]));
    assert!(said.contains("compare wants two endpoints") && said.contains("--rounds"), "{said}");
}

/// A member of real etcd with its own folder, both gone when dropped.
struct Etcd {
    process: Child,
    folder: PathBuf,
    endpoint: String,
}

impl Etcd {
    /// None where there is no binary.
    fn start() -> Option<Self> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/etcd");
        let bin = std::env::var_os("REAL_ETCD_DIR").map_or(target, PathBuf::from).join("etcd");
        if !bin.exists() {
            eprintln!("skipped: no {}; see tests/e2e/build-etcd.sh", bin.display());
            return None;
        }
        let folder = std::env::temp_dir().join(format!("loadgen-{}-ab", std::process::id()));
        let (endpoint, peer) = (free_address(), format!("http://{}", free_address()));
        let client = format!("http://{endpoint}");
        let mut command = Command::new(bin);
        command.arg("--data-dir").arg(&folder);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.args(["--unsafe-no-fsync", "--log-level", "error"]).stdout(Stdio::null());
        let process = command.spawn().expect("etcd starts");
        Some(Self { process, folder, endpoint })
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&self.endpoint).is_err() {
            assert!(Instant::now() < deadline, "etcd listens in time");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process.kill().expect("it was started");
        self.process.wait().expect("it was started");
        let _best_effort = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_server_beside_itself_is_compared_round_by_round() {
    let Some(etcd) = Etcd::start() else { return };
    etcd.wait();
    let (at, pid) = (&etcd.endpoint, etcd.process.id().to_string());
    let work = ["--pid-a", &pid, "--pid-b", &pid, "--rounds", "2", "--", "put", "--ops", "300"];
    let ended = compare(&[&[at.as_str(), at.as_str()][..], &work[..]].concat());
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let json: Value = serde_json::from_str(said.lines().next_back().expect("lines")).expect("JSON");
    assert_eq!((&json["rounds"], &json["of"][0]), (&2.into(), &"put".into()));
    for measure in ["ops_per_second", "p50_us", "p99_us"] {
        let ratios = json["measures"][measure]["ratios"].as_array().expect(measure);
        assert_eq!(ratios.len(), 2, "{said}");
        assert!(said.contains(measure), "{said}");
    }
}
