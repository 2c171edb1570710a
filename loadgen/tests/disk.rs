//! `loadgen disk` as a process: what it says when it is interrupted, and when it cannot measure.
#![allow(clippy::disallowed_methods, reason = "a real disk takes real time")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

/// A folder of the project's, so on a disk as a rule.
fn folder(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let folder = target.join(format!("loadgen-disk-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("target is ours to write to");
    folder
}

fn disk() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.arg("disk").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ctrl-C in the first of its nine minutes.
fn interrupted(command: &mut Command) -> Output {
    let child = command.args(["--seconds", "60"]).spawn().expect("it starts");
    thread::sleep(Duration::from_millis(700));
    let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(told.expect("kill is there").success());
    child.wait_with_output().expect("it ends")
}

fn failure(ended: &Output) -> String {
    assert_eq!(ended.status.code(), Some(1));
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[test]
fn when_it_is_interrupted_it_tells_what_it_has_and_leaves_nothing() {
    let folder = folder("interrupted");
    let ended = interrupted(disk().arg(&folder));
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    if failure(&ended).contains("takes no O_DIRECT") || failure(&ended).contains("in memory") {
        eprintln!("skipped: {}", failure(&ended));
        return fs::remove_dir(&folder).expect("nothing is left in it");
    }
    assert_eq!(failure(&ended), "loadgen: the run was cut short: interrupted\n", "{said}");
    let json: Value = serde_json::from_str(said.lines().next_back().expect("lines")).expect("JSON");
    assert_eq!((&json["work"], &json["rows"][0]["way"]), (&"disk".into(), &"filled".into()));
    assert_eq!(json["rows"].as_array().map(Vec::len), Some(1), "{said}");
    assert!(json["scene"]["kernel"].is_string() && json["verdict"]["words"].is_string(), "{said}");
    fs::remove_dir(&folder).expect("nothing is left in it");
}

#[test]
fn an_output_that_takes_no_more_is_named() {
    let folder = folder("full");
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let said = failure(&interrupted(disk().arg(&folder).stdout(full)));
    let refused = said.contains("takes no O_DIRECT") || said.contains("in memory");
    assert!(said.starts_with("loadgen: standard output: No space left") || refused, "{said}");
    fs::remove_dir(&folder).expect("nothing is left in it");
}

#[test]
fn a_folder_that_cannot_be_measured_is_named() {
    let said = |words: &[&str]| failure(&disk().args(words).output().expect("it starts"));
    assert_eq!(said(&["/nowhere/at/all"]), "loadgen: there is no folder /nowhere/at/all\n");
    assert!(said(&[]).starts_with("loadgen: disk wants a folder\n"));
    assert!(said(&["/tmp", "--second", "3"]).starts_with("loadgen: unknown flag --second\n"));
    assert!(said(&["/tmp", "--seconds", "0"]).starts_with("loadgen: --seconds 0: at least 1\n"));
}
