//! One part of a directory as text: its fields by name, keys and values with everything escaped that
//! cannot be printed.

use super::{Verdict, report::of_frame};
use crate::{
    io::Disk,
    tree::{self, RecordSummary, RootSummary, SUPERBLOCK_FILE, SlotState},
    types::{Revision, Seq},
    wal::{
        self, Framed, LogEntry,
        frame::{Head, Seen},
        segment::{self, Opening},
    },
};
use std::fmt::Display;

type Shown = Result<(String, Verdict), String>;

/// Fields by name, one a line.
fn fields(fields: &[(&str, &dyn Display)]) -> String {
    fields.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect()
}

fn said(error: impl Display) -> String {
    error.to_string()
}

pub(super) async fn frame<D: Disk>(wal: &D, number: u64) -> Shown {
    let found = wal::find_frame(wal, number).await.map_err(said)?;
    let Some(framed) = found else { return Err(format!("the log's files have no frame {number}")) };
    let Framed { file, offset, seen } = &framed;
    let (head, verdict) = match seen {
        Seen::Intact(head, _) => (Some(head), Verdict::Whole),
        Seen::Broken(head) => (head.as_ref(), Verdict::Damaged),
        Seen::Nothing => (None, Verdict::Damaged),
    };
    let mut text = fields(&[("file", file), ("offset", offset)]);
    if verdict == Verdict::Damaged {
        text += &fields(&[("damaged", &"its payload does not verify")]);
    }
    text += &head.map_or(String::new(), head_text);
    framed.entries().iter().for_each(|entry| text += &entry_text(entry));
    Ok((text, verdict))
}

fn head_text(head: &Head) -> String {
    fields(&[
        ("number", &head.number),
        ("payload bytes", &head.payload_bytes),
        ("entries", &head.entries),
        ("durable upto", &head.durable_upto),
        ("trimmed", &head.trimmed),
        ("first index", &head.first_index),
        ("last index", &head.last_index),
        ("term", &head.hard_state.term),
        ("vote", &format_args!("{:x}", head.hard_state.vote)),
        ("commit", &head.hard_state.commit),
        ("chain", &format_args!("{:#010x}", head.chain())),
    ])
}

fn entry_text(entry: &LogEntry) -> String {
    let LogEntry { index, term, kind, data } = entry;
    format!("entry {index} of term {term}, kind {kind}: {}\n", data.escape_ascii())
}

pub(super) async fn record<D: Disk>(data: &D, sizes: tree::Options, number: u64) -> Shown {
    let seq = Seq(number);
    let none = || format!("there is no record {number}: compaction took it, or it is yet to come");
    let file = tree::file_of_record(data, sizes, seq).await.map_err(said)?.ok_or_else(none)?;
    let listed = tree::list_records(data, sizes, &file).await.map_err(said)?;
    let (records, flaw) = listed.ok_or_else(none)?;
    match (records.iter().find(|record| record.seq == seq), flaw) {
        (Some(record), _) => {
            let text = fields(&[("file", &file)]) + &record_text(record);
            Ok((text, Verdict::Whole))
        }
        (None, Some(flaw)) => Ok((format!("{file} is damaged at {flaw}\n"), Verdict::Damaged)),
        (None, None) => Err(none()),
    }
}

fn record_text(record: &RecordSummary) -> String {
    let flag = |set: bool| if set { "yes" } else { "no" };
    let link = |link: Option<(Seq, Revision)>| match link {
        Some((seq, revision)) => format!("record {} of revision {}", seq.0, revision.0),
        None => "none".into(),
    };
    fields(&[
        ("offset", &record.offset),
        ("bytes", &record.bytes),
        ("seq", &record.seq.0),
        ("main", &record.stamp.main.0),
        ("sub", &record.stamp.sub),
        ("tombstone", &flag(record.tombstone)),
        ("create", &flag(record.create)),
        ("rank", &record.rank),
        ("prev", &link(record.prev)),
        ("jump", &link(record.jump)),
        ("key", &record.key.escape_ascii()),
        ("created", &record.created.0),
        ("modified", &record.modified.0),
        ("version", &record.version),
        ("lease", &format_args!("{:x}", record.lease.0)),
        ("value", &record.value.escape_ascii()),
    ])
}

pub(super) async fn superblock<D: Disk>(data: &D, sizes: tree::Options) -> Shown {
    let (slots, counts) = tree::inspect_superblock(data, sizes).await.map_err(said)?;
    let mut text = String::new();
    for (at, slot) in slots.iter().enumerate() {
        text += &format!("slot {at}\n");
        text += &match slot {
            SlotState::Blank => "never written\n".into(),
            SlotState::Damaged(flaw) => format!("torn or damaged at {flaw}\n"),
            SlotState::Whole(root) => root_text(root),
        };
    }
    match counts {
        Some(root) => Ok((text + &fields(&[("counts", &root.number)]), Verdict::Whole)),
        None => Ok((text + "no slot is whole\n", Verdict::Damaged)),
    }
}

fn root_text(root: &RootSummary) -> String {
    let facts = &root.facts;
    let mut text = fields(&[
        ("number", &root.number),
        ("cluster", &facts.cluster),
        ("member", &facts.member),
        ("applied index", &facts.applied.0),
        ("applied term", &facts.applied_term.0),
        ("installed", &facts.installed.0),
        ("revision", &facts.revision.0),
        ("compacted", &root.compacted.0),
        ("next seq", &root.seq_next.0),
        ("segment bytes", &root.segment_bytes),
        ("state", &facts.state.escape_ascii()),
    ]);
    root.files.iter().for_each(|file| text += &fields(&[("file", file)]));
    text
}

pub(super) async fn segment<D: Disk>(data: &D, wal: &D, sizes: tree::Options, file: &str) -> Shown {
    let slot = file.strip_prefix(segment::DIR).and_then(|rest| rest.strip_prefix('/'));
    if slot.and_then(segment::slot).is_some() {
        return log_segment(wal, file).await;
    }
    let listed = tree::list_records(data, sizes, file).await.map_err(said)?;
    let Some((records, flaw)) = listed else {
        let known = "such as rec/0000000000.g0 or wal/00000000.seg";
        return Err(format!("{SUPERBLOCK_FILE} names no segment {file}; one is needed, {known}"));
    };
    let mut text: String = records.iter().map(record_line).collect();
    if let Some(flaw) = &flaw {
        text += &format!("damaged at {flaw}\n");
    }
    Ok((text, flaw.map_or(Verdict::Whole, |_| Verdict::Damaged)))
}

fn record_line(record: &RecordSummary) -> String {
    let RecordSummary { offset, seq, stamp, key, value, tombstone, .. } = record;
    let what = match tombstone {
        true => "deleted".into(),
        false => format!("{} bytes", value.len()),
    };
    let key = key.escape_ascii();
    format!("byte {offset}: record {} at {}.{} {key}: {what}\n", seq.0, stamp.main.0, stamp.sub)
}

async fn log_segment<D: Disk>(wal: &D, file: &str) -> Shown {
    let (opening, frames) = wal::open_segment(wal, file).await.map_err(said)?;
    let (mut text, verdict) = match opening {
        Opening::Unborn => ("its creation was cut short\n".into(), Verdict::Whole),
        Opening::Blank(_) => ("blank: ready for use\n".into(), Verdict::Whole),
        Opening::Unreadable => ("its header does not verify\n".into(), Verdict::Damaged),
        Opening::Unknown(version) => return Err(format!("{file} has log format {version}")),
        Opening::Live(header) => (header_text(&header), Verdict::Whole),
    };
    for (offset, seen) in frames {
        let number = match &seen {
            Seen::Intact(head, _) | Seen::Broken(Some(head)) => head.number.to_string(),
            Seen::Broken(None) | Seen::Nothing => "?".into(),
        };
        let framed = Framed { file: file.into(), offset, seen };
        text += &format!("frame {number}: {}\n", of_frame(&framed));
    }
    Ok((text, verdict))
}

fn header_text(header: &segment::Header) -> String {
    fields(&[
        ("cluster", &format_args!("{:x}", header.cluster)),
        ("member", &format_args!("{:x}", header.member)),
        ("segment bytes", &header.segment_bytes),
        ("sequence", &header.sequence),
        ("first frame", &header.first_frame),
        ("chain", &format_args!("{:#010x}", header.chain)),
        ("last index", &header.last_index),
        ("durable upto", &header.durable_upto),
        ("trimmed", &header.trimmed),
        ("term", &header.hard_state.term),
        ("vote", &format_args!("{:x}", header.hard_state.vote)),
        ("commit", &header.hard_state.commit),
    ])
}
