//! What was found, for people and for programs.

use super::{Damage, Places, Report};
use crate::{
    tree::{FileSummary, RootSummary, SUPERBLOCK_FILE},
    wal::{BALLOT_FILE, Framed, frame::Seen},
};
use serde_json::{Value, json};
use std::fmt::Write;

/// The summary, some twenty lines.
pub(crate) fn text(report: &Report, places: &Places) -> String {
    let mut out = String::new();
    let verdict = match report.damage.len() {
        0 => "whole".into(),
        1 => "DAMAGED in one place".into(),
        places => format!("DAMAGED in {places} places"),
    };
    line(&mut out, &places.dir.display().to_string(), &verdict);
    for damage in &report.damage {
        line(&mut out, "  damaged", &said(damage));
        line(&mut out, "", damage.advice);
    }
    for damage in &report.being_written {
        line(&mut out, "  being written", &said(damage));
    }
    if let Some(root) = report.root() {
        of_root(&mut out, report, root);
    }
    of_log(&mut out, report);
    for note in &report.notes {
        line(&mut out, "  note", note);
    }
    for name in &report.leftovers {
        line(&mut out, "  named by nothing", name);
    }
    out
}

/// A line of the summary. Writing to a string cannot fail.
fn line(out: &mut String, head: &str, what: &str) {
    writeln!(out, "{head:<18} {what}").expect("a string takes everything");
}

fn said(damage: &Damage) -> String {
    let Damage { file, offset, what, values, .. } = damage;
    let place = format!("{file} byte {offset}: {what}");
    values.map_or(place.clone(), |(expected, found)| {
        format!("{place}: expected {expected:#x}, found {found:#x}")
    })
}

fn of_root(out: &mut String, report: &Report, root: &RootSummary) {
    let facts = &root.facts;
    let name = report.cluster.as_ref().and_then(|cluster| cluster.members.get(&facts.member));
    let name = name.map_or(String::new(), |member| format!(" {:?}", member.name));
    line(out, "  cluster, member", &format!("{}, {}{name}", facts.cluster, facts.member));
    if let Some(cluster) = &report.cluster {
        let (voters, learners) = cluster.configuration();
        let members = format!("{} that vote, {} that learn", voters.len(), learners.len());
        line(out, "  members", &members);
    }
    line(out, "  superblock", &format!("{}", root.number));
    let applied = format!("{} of term {}", facts.applied.0, facts.applied_term.0);
    line(out, "  applied index", &applied);
    let compacted = match root.compacted.0 {
        -1 => "never compacted".into(),
        revision => format!("compacted at {revision}"),
    };
    line(out, "  revision", &format!("{}, {compacted}", facts.revision.0));
    let sum = Sums::of(report);
    line(out, "  records", &format!("{} in {} files, {} bytes", sum.records, sum.files, sum.bytes));
    let live = format!("{} records, {} bytes", sum.live_records, sum.live_bytes);
    line(out, "  of these live", &live);
    line(out, "  leases", &report.tree.as_ref().map_or(0, |tree| tree.leases).to_string());
}

fn of_log(out: &mut String, report: &Report) {
    if let Some(log) = &report.log {
        let entries = match log.last_index {
            last if last < log.first_index() => format!("no entries behind {last}"),
            last => format!("entries {} to {last}", log.first_index()),
        };
        let state = log.hard_state;
        let state = format!("term {}, vote {:x}, commit {}", state.term, state.vote, state.commit);
        line(out, "  log", &format!("{entries}; {state}"));
        let first = log.segments.first().map_or(1, |(_, header)| header.first_frame);
        let frames = match log.last_frame {
            last if last < first => "none".into(),
            last => format!("{first} to {last}"),
        };
        let files = format!("{} and {} spare", log.segments.len(), log.spares.len());
        line(out, "  frames", &format!("{frames}, in {files} segments, {} bytes", log.file_bytes));
        if let Some(last) = &report.last_frame {
            line(out, "  last frame", &of_frame(last));
        }
    }
    if let Some((number, ballot)) = report.ballot_that_counts() {
        let said = format!("{number}: term {}, vote {:x}", ballot.term, ballot.vote);
        line(out, &format!("  {BALLOT_FILE}"), &said);
    }
}

/// One frame in one line.
pub(super) fn of_frame(frame: &Framed) -> String {
    let Framed { file, offset, seen } = frame;
    let what = match seen {
        Seen::Intact(head, _) if head.entries == 0 => "a hard state".into(),
        Seen::Intact(head, _) => {
            format!("entries {} to {}", head.first_index, head.last_index)
        }
        Seen::Broken(_) | Seen::Nothing => "it does not verify".into(),
    };
    format!("{file} byte {offset}: {what}")
}

/// Over all files of records.
#[derive(Default)]
struct Sums {
    files: u64,
    records: u64,
    bytes: u64,
    live_records: u64,
    live_bytes: u64,
}

impl Sums {
    fn of(report: &Report) -> Self {
        let files = report.tree.iter().flat_map(|tree| &tree.files);
        files.filter(|file| file.records > 0).fold(Self::default(), |sum, file| Self {
            files: sum.files + 1,
            records: sum.records + file.records,
            bytes: sum.bytes + file.bytes,
            live_records: sum.live_records + file.live.0,
            live_bytes: sum.live_bytes + file.live.1,
        })
    }
}

/// The same as one JSON object, and every file beside.
pub(super) fn json(report: &Report, places: &Places) -> String {
    let all = |damage: &[Damage]| damage.iter().map(damage_object).collect::<Vec<_>>();
    let object = json!({
        "directory": places.dir.display().to_string(),
        "whole": report.damage.is_empty(),
        "damage": all(&report.damage),
        "beingWritten": all(&report.being_written),
        "superblock": report.root().map(|root| root_object(report, root)),
        "records": records_object(report),
        "log": log_object(report),
        "ballot": report.ballot_that_counts().map(|(number, ballot)| json!({
            "number": number,
            "term": ballot.term,
            "vote": format!("{:x}", ballot.vote),
            "lost": ballot.lost,
        })),
        "notes": report.notes,
        "leftovers": report.leftovers,
    });
    format!("{object}\n")
}

fn damage_object(damage: &Damage) -> Value {
    let Damage { file, offset, what, values, advice } = damage;
    json!({
        "file": file,
        "offset": offset,
        "what": what,
        "expected": values.map(|(expected, _)| expected),
        "found": values.map(|(_, found)| found),
        "advice": advice,
    })
}

fn root_object(report: &Report, root: &RootSummary) -> Value {
    let facts = &root.facts;
    let members = report.cluster.iter().flat_map(|cluster| cluster.members.values());
    let members = members.map(|member| {
        json!({ "id": member.id.to_string(), "name": member.name, "learner": member.learner })
    });
    json!({
        "file": SUPERBLOCK_FILE,
        "number": root.number,
        "cluster": facts.cluster.to_string(),
        "member": facts.member.to_string(),
        "appliedIndex": facts.applied.0,
        "appliedTerm": facts.applied_term.0,
        "installedIndex": facts.installed.0,
        "revision": facts.revision.0,
        "compacted": root.compacted.0,
        "nextRecord": root.seq_next.0,
        "members": members.collect::<Vec<_>>(),
    })
}

fn records_object(report: &Report) -> Option<Value> {
    let tree = report.tree.as_ref()?;
    let sum = Sums::of(report);
    let file = |file: &FileSummary| {
        json!({
            "file": file.file,
            "firstRecord": file.reach.0.0,
            "nextRecord": file.reach.1.0,
            "records": file.records,
            "bytes": file.bytes,
            "liveRecords": file.live.0,
            "liveBytes": file.live.1,
        })
    };
    Some(json!({
        "records": sum.records,
        "bytes": sum.bytes,
        "liveRecords": sum.live_records,
        "liveBytes": sum.live_bytes,
        "leases": tree.leases,
        "files": tree.files.iter().map(file).collect::<Vec<_>>(),
    }))
}

fn log_object(report: &Report) -> Option<Value> {
    let log = report.log.as_ref()?;
    let segments = log.segments.iter().map(|(file, header)| {
        json!({ "file": file, "sequence": header.sequence, "firstFrame": header.first_frame })
    });
    Some(json!({
        "firstIndex": log.first_index(),
        "lastIndex": log.last_index,
        "term": log.hard_state.term,
        "vote": format!("{:x}", log.hard_state.vote),
        "commit": log.hard_state.commit,
        "lastFrame": log.last_frame,
        "lastFrameSays": report.last_frame.as_ref().map(of_frame),
        "fileBytes": log.file_bytes,
        "segments": segments.collect::<Vec<_>>(),
        "spares": log.spares,
    }))
}
