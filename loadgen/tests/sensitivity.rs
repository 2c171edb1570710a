//! `loadgen sensitivity` as a process, with scripts for servers: how it ends, and what it leaves.
#![allow(clippy::disallowed_methods, reason = "a process takes real time")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A folder of the test's own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("loadgen-sensitivity-{name}-{}", std::process::id());
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(name);
        fs::create_dir_all(&target).expect("target is ours to write to");
        Self(fs::canonicalize(target).expect("it was made"))
    }

    /// A program that says it is Ringleader, and else does this.
    fn server(&self, does: &str) -> PathBuf {
        let path = self.0.join("server");
        let version = "[ \"$1\" = --version ] && { echo 'Ringleader Version: 0'; exit; }";
        fs::write(&path, format!("#!/bin/sh\n{version}\n{does}\n")).expect("a folder of ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
        path
    }

    fn command(&self, server: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.arg("sensitivity").arg("--out").arg(&self.0).arg("--server").arg(server);
        command.args(["--quick", "--sync", "0", "--network", "0", "--tail", "none"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Processes that were told to use this folder, ourselves and loadgen left out.
    fn servers(&self) -> usize {
        let name = self.0.join("loadgen-sensitivity").display().to_string();
        let processes = fs::read_dir("/proc").expect("it is Linux").flatten();
        let words = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        words.filter(|words| String::from_utf8_lossy(words).contains(&name)).count()
    }

    fn wait_for_servers(&self, how_many: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.servers() != how_many {
            assert!(Instant::now() < deadline, "{} servers, not {how_many}", self.servers());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn failure(ended: &Output) -> String {
    assert_eq!(ended.status.code(), Some(1));
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

fn signal(child: &Child, signal: &str) {
    let told = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(told.expect("kill is there").success());
}

/// It takes its words along, so that it is seen.
const IDLE: &str = "while sleep 1; do :; done";

#[test]
fn a_server_that_ends_at_once_is_quoted_and_its_log_kept() {
    let folder = Folder::new("ends");
    let server = folder.server("echo 'disk on fire' >&2; exit 3");
    let said = failure(&folder.command(&server).output().expect("it starts"));
    assert!(said.contains("ended by itself, exit status: 3: disk on fire"), "{said}");
    assert!(folder.0.join("sensitivity-logs/cell-1-m0.log").exists());
    assert!(!folder.0.join("loadgen-sensitivity").exists(), "the data is gone");
}

#[test]
fn interrupted_it_leaves_no_server_and_no_data_and_the_page_so_far() {
    let folder = Folder::new("interrupted");
    let child = folder.command(&folder.server(IDLE)).spawn().expect("it starts");
    folder.wait_for_servers(3);
    signal(&child, "-INT");
    let said = failure(&child.wait_with_output().expect("it ends"));
    assert!(
        said.contains("the run was cut short: interrupted; started again it goes on"),
        "{said}"
    );
    assert_eq!(folder.servers(), 0);
    assert!(!folder.0.join("loadgen-sensitivity").exists(), "the data is gone");
    let page = fs::read_to_string(folder.0.join("sensitivity.html")).expect("there is a page");
    assert!(page.contains("0 of "), "{page}");
    // Two at a time do not write to one file, and another setup is refused.
    let csv = folder.0.join("sensitivity.csv");
    let other = folder.command(&folder.server(IDLE)).args(["--members", "5"]).output();
    let said = failure(&other.expect("it starts"));
    assert!(
        said.contains(&format!(
            "{} was measured otherwise (members: 3 there, 5 now",
            csv.display()
        )),
        "{said}"
    );
}

#[test]
fn killed_it_takes_its_servers_along() {
    let folder = Folder::new("killed");
    let mut child = folder.command(&folder.server(IDLE)).spawn().expect("it starts");
    folder.wait_for_servers(3);
    let second = failure(&folder.command(&folder.server(IDLE)).output().expect("it starts"));
    assert!(second.contains("another run is using it"), "{second}");
    signal(&child, "-KILL");
    child.wait().expect("it ends");
    folder.wait_for_servers(0);
}

#[test]
fn files_that_cannot_be_written_are_named() {
    let folder = Folder::new("files");
    let server = folder.server(IDLE);
    fs::create_dir(folder.0.join("sensitivity.csv")).expect("a folder of ours");
    let said = failure(&folder.command(&server).output().expect("it starts"));
    assert!(said.contains("/sensitivity.csv: Is a directory"), "{said}");
    let said =
        failure(&folder.command(&server).args(["--data", "/proc"]).output().expect("it starts"));
    assert!(said.contains("/proc/loadgen-sensitivity: "), "{said}");
}
