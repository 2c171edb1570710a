//! `loadgen sensitivity` with real servers: one tiny cell of each, and what a second run does.

use std::{fs, path::Path};

use e2e::{binary, server::Folder};
use loadgen::{flags::Flags, sensitivity};
use serde_json::Value;

fn run(out: &Path, more: &str) -> Result<String, String> {
    let server = binary::ringleader();
    let line = format!("--quick --out {} --server {} {more}", out.display(), server.display());
    let mut told = Vec::new();
    let flags = Flags::new(line.split_whitespace().map(str::to_owned));
    sensitivity::command(flags, &line, &mut told)?;
    Ok(String::from_utf8(told).expect("it is text"))
}

/// Lines under the columns, by column.
fn rows(out: &Path) -> Vec<impl Fn(&str) -> String + use<>> {
    let text = fs::read_to_string(out.join("sensitivity.csv")).expect("it was written");
    let mut lines = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let columns = lines.next().expect("columns");
    let row = |fields: Vec<String>| {
        let columns = columns.clone();
        move |name: &str| {
            let at = columns.iter().position(|column| column == name).expect("a column");
            fields[at].clone()
        }
    };
    lines.map(row).collect()
}

/// Real etcd is asked for too, where it is there.
fn etcd_flag() -> String {
    let etcd = binary::etcd("etcd", "sensitivity");
    etcd.map(|etcd| format!("--etcd {}", etcd.display())).unwrap_or_default()
}

const TINY: &str = "--tail none --heartbeat 100 --election 1000 --seconds 0.5";

/// A put waits for a round trip between members, so the delay can be seen and nothing beats it.
#[test]
fn members_are_as_far_apart_as_was_said_and_a_second_run_measures_nothing() {
    let folder = Folder::new("sensitivity-far");
    let etcd = etcd_flag();
    let line = format!("{TINY} --sync 0 --network 15 {etcd}");
    let told = run(folder.path(), &line).expect("it ends well");
    let rows = rows(folder.path());
    assert_eq!(rows.len(), if etcd.is_empty() { 1 } else { 2 });
    for row in rows {
        let number = |name| row(name).parse::<f64>().unwrap_or_else(|_| panic!("{name}: {told}"));
        assert_eq!(row("trouble"), "", "{told}");
        assert!(number("p50_ms") >= 30.0 && number("puts_per_second") > 0.0, "{told}");
        assert!(number("leaderless_ms") > 0.0, "{told}");
    }
    let json: Value = serde_json::from_str(told.lines().next_back().expect("lines")).expect("JSON");
    assert_eq!(json["cells"], json["of"], "{told}");
    let page = fs::read_to_string(folder.path().join("sensitivity.html")).expect("a page");
    assert!(page.contains("Ringleader: p99") && page.contains("For this host"));

    let before = fs::read(folder.path().join("sensitivity.csv")).expect("it is there");
    run(folder.path(), &line).expect("there is nothing to do");
    assert_eq!(fs::read(folder.path().join("sensitivity.csv")).expect("it is there"), before);
    let refused = run(folder.path(), &format!("{line} --kills 2")).unwrap_err();
    assert!(refused.contains("kills: 1 there, 2 now"), "{refused}");
    assert!(!folder.path().join("loadgen-sensitivity").exists(), "no data stays behind");
    // What the page is written to takes nothing.
    let page = folder.path().join("sensitivity.html");
    fs::remove_file(&page).expect("a file of ours");
    std::os::unix::fs::symlink("/dev/full", &page).expect("a folder of ours");
    let full = run(folder.path(), &line).unwrap_err();
    assert!(full.contains("sensitivity.html: No space left"), "{full}");
}

/// A lone member's put waits for its own sync.
#[test]
fn a_lone_member_syncs_as_slowly_as_was_said() {
    let folder = Folder::new("sensitivity-slow");
    let told = run(folder.path(), &format!("{TINY} --members 1 --sync 20")).expect("it ends well");
    let rows = rows(folder.path());
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]("trouble"), "", "{told}");
    assert!(rows[0]("p50_ms").parse::<f64>().expect("a number") >= 20.0, "{told}");
}

/// Twice as many keys are on no less disk, and each step is measured once.
#[test]
fn a_database_grows_step_by_step() {
    let folder = Folder::new("sensitivity-growth");
    let etcd = etcd_flag();
    let line = format!("--grow --keys 500,20000 --seconds 0.3 {etcd}");
    let told = run(folder.path(), &line).expect("it ends well");
    let text = fs::read_to_string(folder.path().join("growth.csv")).expect("it was written");
    let rows: Vec<Vec<&str>> = text.lines().skip(4).map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), if etcd.is_empty() { 2 } else { 4 }, "{text}");
    for steps in rows.chunks(2) {
        let disk = |row: &[&str]| row[11].parse::<f64>().expect("bytes");
        assert!(disk(&steps[0]) > 0.0 && disk(&steps[1]) >= disk(&steps[0]), "{text}");
        assert!(steps.iter().all(|row| row[12].parse::<f64>().expect("a restart") > 0.0), "{text}");
    }
    assert!(told.contains("Ringleader, from 500 to 20000 keys: "), "{told}");
    let page = fs::read_to_string(folder.path().join("sensitivity.html")).expect("a page");
    assert!(page.contains("restart after kill -9"));
    run(folder.path(), &line).expect("there is nothing to do");
    assert_eq!(fs::read_to_string(folder.path().join("growth.csv")).expect("it is there"), text);
}
