//! What stands behind `ringleader inspect`.

use super::Places;
use std::{ffi::OsString, path::PathBuf};

pub(super) const HELP: &str = "Usage:

  ringleader inspect DIR [--wal-dir DIR] [--json]
    Check every checksum, count and order in the data directory DIR, and say what is in it.

  ringleader inspect DIR [--wal-dir DIR] --frame N | --record SEQ | --superblock | --segment FILE
    Show one frame of the log, one record, both slots of the superblock, or what is in one file
    (such as rec/0000000000.g0 or wal/00000000.seg).

Nothing is changed, and a member may run on the directory meanwhile. --wal-dir is what the member
was started with, where it was.

Exit codes: 0 whole; 2 damaged, and it says where; 1 it could not look.
";

/// A line that makes sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Help,
    Look { places: Places, ask: Ask },
}

/// What is asked about the directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Summary { json: bool },
    Frame(u64),
    Record(u64),
    Superblock,
    Segment(String),
}

pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Asked, String> {
    let mut args = args.into_iter();
    let (mut dir, mut wal_dir, mut json, mut part) = (None, None, false, None);
    while let Some(arg) = args.next() {
        let Some(flag) = arg.to_str().and_then(|arg| arg.strip_prefix('-')) else {
            if dir.replace(PathBuf::from(&arg)).is_some() {
                return Err(format!("{}: one directory at a time", arg.display()));
            }
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (flag, None),
        };
        let mut value =
            || given.clone().or_else(|| args.next()).ok_or(format!("--{name} needs a value"));
        let ask = match name {
            "h" | "help" => return Ok(Asked::Help),
            "wal-dir" => {
                wal_dir = Some(PathBuf::from(value()?));
                continue;
            }
            "json" => {
                json = true;
                continue;
            }
            "frame" => Ask::Frame(number(name, &value()?)?),
            "record" => Ask::Record(number(name, &value()?)?),
            "superblock" => Ask::Superblock,
            "segment" => Ask::Segment(value()?.to_string_lossy().into_owned()),
            _ => return Err(format!("there is no --{name}")),
        };
        if part.replace(ask).is_some() {
            return Err("one part at a time".into());
        }
    }
    let dir = dir.ok_or("which directory?")?;
    if json && part.is_some() {
        return Err("--json is for the summary; parts are shown as text".into());
    }
    let ask = part.unwrap_or(Ask::Summary { json });
    Ok(Asked::Look { places: Places { dir, wal_dir }, ask })
}

fn number(name: &str, value: &OsString) -> Result<u64, String> {
    let digits = value.to_str().and_then(|value| value.parse().ok());
    digits.ok_or(format!("--{name}={}: a number is needed", value.display()))
}
