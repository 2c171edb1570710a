//! What is asked for, what stays of several looks, and how it is told.

use super::{
    Damage, Places, Report, Verdict,
    args::{Ask, Asked, read},
    progress::{bar, percent},
    report, settle,
};
use crate::limits::INSPECT_LOOKS_MAX;
use std::{cell::Cell, path::PathBuf};

fn asked(line: &str) -> Result<Asked, String> {
    read(line.split_whitespace().map(Into::into))
}

#[test]
fn a_line_says_what_is_asked() {
    let look = |wal: Option<&str>, ask| {
        let places = Places { dir: "d".into(), wal_dir: wal.map(PathBuf::from) };
        Ok(Asked::Look { places, ask })
    };
    assert_eq!(asked("d"), look(None, Ask::Summary { json: false }));
    assert_eq!(asked("--json d"), look(None, Ask::Summary { json: true }));
    assert_eq!(asked("d -wal-dir=w"), look(Some("w"), Ask::Summary { json: false }));
    assert_eq!(asked("--wal-dir w d --frame 7"), look(Some("w"), Ask::Frame(7)));
    assert_eq!(asked("d --record=3"), look(None, Ask::Record(3)));
    assert_eq!(asked("d --superblock"), look(None, Ask::Superblock));
    assert_eq!(asked("d --segment wal/1"), look(None, Ask::Segment("wal/1".into())));
    assert_eq!(asked("d --help"), Ok(Asked::Help));
}

#[test]
fn a_line_that_makes_no_sense_is_told_why() {
    for (line, why) in [
        ("", "which directory?"),
        ("a b", "b: one directory at a time"),
        ("d --frame", "--frame needs a value"),
        ("d --frame x", "--frame=x: a number is needed"),
        ("d --frame 1 --record 2", "one part at a time"),
        ("d --json --superblock", "--json is for the summary; parts are shown as text"),
        ("d --fix", "there is no --fix"),
    ] {
        assert_eq!(asked(line), Err(why.into()), "{line}");
    }
}

fn damaged(offset: u64) -> Damage {
    Damage {
        file: "wal/00000000.seg".into(),
        offset,
        what: "a frame".into(),
        values: Some((1, 2)),
        advice: "look",
    }
}

fn report_of(damage: &[u64]) -> Report {
    Report { damage: damage.iter().copied().map(damaged).collect(), ..Report::default() }
}

/// What comes of looks that find damage at these offsets, and how many there were.
fn settled(looks: &[&[u64]]) -> (Report, usize) {
    let taken = Cell::new(0);
    let look = || {
        taken.set(taken.get() + 1);
        Ok(report_of(looks[taken.get() - 1]))
    };
    let report = settle(look, || ()).expect("all looks see");
    (report, taken.get())
}

#[test]
fn what_is_damaged_twice_in_the_same_place_is_damaged_and_the_rest_was_being_written() {
    let offsets = |damage: &[Damage]| damage.iter().map(|one| one.offset).collect::<Vec<_>>();
    let (report, looks) = settled(&[&[]]);
    assert_eq!((report.verdict(), looks), (Verdict::Whole, 1));
    let (report, looks) = settled(&[&[1], &[]]);
    assert_eq!((report.verdict(), looks), (Verdict::Whole, 2));
    let (report, looks) = settled(&[&[1], &[1]]);
    assert_eq!((report.verdict(), looks), (Verdict::Damaged, 2));
    let (report, looks) = settled(&[&[1], &[2], &[3], &[4], &[5]]);
    assert_eq!((report.verdict(), looks), (Verdict::Whole, INSPECT_LOOKS_MAX));
    assert_eq!(offsets(&report.being_written), [5]);
    let (report, looks) = settled(&[&[9, 1], &[9, 2], &[9, 3], &[9, 4], &[9, 5]]);
    assert_eq!((report.verdict(), looks), (Verdict::Damaged, INSPECT_LOOKS_MAX));
    assert_eq!((offsets(&report.damage), offsets(&report.being_written)), (vec![9], vec![5]));
}

#[test]
fn damage_is_told_with_its_place_and_what_to_do() {
    let places = Places { dir: "/d".into(), wal_dir: None };
    let report = report_of(&[4096]);
    let text = report::text(&report, &places);
    assert_eq!(
        text.lines().map(str::trim_end).collect::<Vec<_>>(),
        [
            "/d                 DAMAGED in one place",
            "  damaged          wal/00000000.seg byte 4096: a frame: expected 0x1, found 0x2",
            "                   look",
        ]
    );
    let json: serde_json::Value =
        serde_json::from_str(&report::json(&report, &places)).expect("it is JSON");
    assert_eq!(json["whole"], false);
    assert_eq!(json["damage"][0]["offset"], 4096);
    assert_eq!(json["damage"][0]["found"], 2);
}

#[test]
fn the_bar_ends_at_a_hundred() {
    assert_eq!(bar(percent(1, 3)), format!("\r[{:<25}]  33 %", "########"));
    assert_eq!(bar(percent(5, 3)), format!("\r[{}] 100 %", "#".repeat(25)));
    assert_eq!(percent(0, 0), 0);
}
