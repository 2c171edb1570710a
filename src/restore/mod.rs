//! `ringleader restore DIR --to-revision N --out NEW`: a data directory as it was at an earlier revision,
//! for a cluster that begins with it.
//!
//! ```text
//!  DIR ─ inspect: is it whole? ─ held: the state at N ─ tree: its records and leases ─▶ NEW.restoring
//!                                                                    └─ all of it there ─▶ NEW
//! ```
//!
//! DIR is only read. NEW has its name when it is whole and durable, and not before. Its member has no
//! log: it starts as one that was born a moment ago, and happens to know a store (see
//! [`node::recover`](crate::node::recover)). Who it is follows from its URLs and a token that no other
//! cluster has, so that it never speaks with members of the old one.

mod args;
mod held;
#[cfg(test)]
mod tests;

pub use held::{Held, NotHeld};

use crate::{
    inspect::{self, Progress, Report, Verdict, look_until_sure},
    io::{
        host,
        thread::{Lane, LaneDisk, Priority},
    },
    limits::{INSPECT_INTERVAL, INSPECT_LOOKS_MAX, RESTORED_LEASE_TTL_SECONDS},
    node::recover::{Newborn, born},
    tree::{KeyRange, Lease, Options, Past, Tree},
    types::{LeaseId, Revision},
};
use args::{Asked, Order};
use futures_lite::future::block_on;
use std::{
    cell::Cell,
    ffi::OsString,
    fs,
    io::{self, ErrorKind, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    thread,
};

/// The first argument that asks for this instead of a server.
pub const COMMAND: &str = "restore";

/// Why nothing was made: a text, and what is to be said by the exit code.
type Refused = (String, Verdict);

fn could_not(why: String) -> Refused {
    (format!("ringleader {COMMAND}: {why}\n"), Verdict::Blind)
}

/// Does what `args`, those behind [`COMMAND`], ask for. What was made goes to standard output, why
/// nothing was to standard error.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Verdict {
    let outcome = match args::read(args) {
        Ok(Asked::Help) => Ok(args::HELP.to_owned()),
        Ok(Asked::Restore(order)) => restore(&order),
        Err(problem) => Err(could_not(format!("{problem}\n\n{}", args::HELP))),
    };
    match outcome {
        Ok(text) => {
            // Who closes the other end has read enough.
            let _closed = io::stdout().write_all(text.as_bytes()).is_err();
            Verdict::Whole
        }
        Err((why, verdict)) => {
            eprint!("{why}");
            verdict
        }
    }
}

fn restore(order: &Order) -> Result<String, Refused> {
    order.places.check().map_err(could_not)?;
    let half = free(&order.out).map_err(could_not)?;
    let progress = order.places.progress();
    let made = make(order, &half, &progress);
    progress.end();
    made
}

fn make(order: &Order, half: &Path, progress: &Progress) -> Result<String, Refused> {
    let report = look_until_sure(&order.places, progress).map_err(could_not)?;
    if report.verdict() == Verdict::Damaged {
        return Err((inspect::told(&report, &order.places), Verdict::Damaged));
    }
    let held = find(order, &report, progress).map_err(could_not)?;
    let newborn = order.newborn(held.facts.cluster).map_err(could_not)?;
    claim(half).map_err(could_not)?;
    let past = held.past(order.skipped);
    let written = write(half, past, &held, newborn.clone(), progress).and_then(|made| {
        let named = fs::rename(half, &order.out).and_then(|()| sync(parent(&order.out)));
        named.map_err(|error| format!("{}: {error}", order.out.display())).map(|()| made)
    });
    let made = written.map_err(|why| {
        // What cannot be removed is told by its name.
        let _left = fs::remove_dir_all(half).is_err();
        could_not(why)
    })?;
    Ok(told(order, &newborn, &made))
}

/// Sees that there is nothing in the way, and says where to make it until it is whole.
fn free(out: &Path) -> Result<PathBuf, String> {
    let shown = out.display();
    let empty = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(format!("{shown}: {error}")),
    };
    if !empty {
        return Err(format!("{shown} is not empty"));
    }
    let name = out.file_name().ok_or_else(|| format!("{shown} has no name of its own"))?;
    let mut name = name.to_owned();
    name.push(".restoring");
    let half = out.with_file_name(name);
    match fs::symlink_metadata(&half) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(half),
        Err(error) => Err(format!("{}: {error}", half.display())),
        Ok(_) => Err(is_taken(&half)),
    }
}

fn is_taken(half: &Path) -> String {
    format!(
        "{} is there: another restore is under way, or did not come to its end; then remove it",
        half.display()
    )
}

/// Makes a directory that nobody else has made.
fn claim(half: &Path) -> Result<(), String> {
    host::prepare_directory(parent(half))?;
    let made = fs::DirBuilder::new().mode(0o700).create(half);
    made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_taken(half),
        _ => format!("{}: {error}", half.display()),
    })
}

/// Finds the past, again where a member changed its files meanwhile.
fn find(order: &Order, report: &Report, progress: &Progress) -> Result<Held, String> {
    let [data, wal] = order.places.disks(progress);
    let lost = report.ballot_that_counts().is_some_and(|(_, ballot)| ballot.lost);
    let once = || block_on(Held::find(&data, &wal, Options::default(), lost, order.revision));
    let mut found = once();
    for _ in 1..INSPECT_LOOKS_MAX {
        if matches!(found, Ok(_) | Err(NotHeld::Outside { .. })) {
            break;
        }
        thread::sleep(INSPECT_INTERVAL);
        found = once();
    }
    found.map_err(|error| format!("{}: {error}", order.places.dir.display()))
}

/// What came of it.
struct Made {
    tree: Tree,
    /// Leases of which nothing was known but that keys held on to them.
    unknown: u64,
}

fn write(
    half: &Path,
    past: Past<'_>,
    held: &Held,
    newborn: Newborn,
    progress: &Progress,
) -> Result<Made, String> {
    let data = half.join("member");
    host::prepare_directory(&data)?;
    let said = |error: io::Error| format!("cannot write {}: {error}", data.display());
    let lane = Lane::start("restore", Priority::Normal).map_err(said)?;
    let disk = LaneDisk::new(lane, data.clone());
    let facts = born(newborn, Options::default());
    let (unknown, since) = (Cell::new(0), facts.applied);
    let lease_of = |id: LeaseId| {
        let known = held.lease(id);
        unknown.set(unknown.get() + u64::from(known.is_none()));
        let granted = known.map_or(RESTORED_LEASE_TTL_SECONDS, |lease| lease.granted);
        Lease { granted, remaining: 0, since }
    };
    let total = past.revision.0.unsigned_abs();
    let reached = |revision: Revision| progress.reached(revision.0.unsigned_abs(), total);
    progress.begin();
    let tree = block_on(past.write(&disk, Options::default(), facts, lease_of, reached));
    let tree = tree.map_err(said)?;
    sync(half).map_err(said)?;
    Ok(Made { tree, unknown: unknown.get() })
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

fn told(order: &Order, newborn: &Newborn, made: &Made) -> String {
    let reader = made.tree.reader();
    let keys = reader.count(&KeyRange::ALL, Revision(i64::MAX));
    let newest = order.revision.0 + order.skipped;
    let compacted = match reader.compacted().0 {
        -1 => "never compacted".into(),
        revision => format!("compacted at {revision}"),
    };
    let [dir, out] = [&order.places.dir, &order.out].map(|path| path.display());
    let mut text = format!("{out} is {dir} as of revision {}\n", order.revision.0);
    let mut line = |head: &str, what: String| text += &format!("  {head:<16} {what}\n");
    let Newborn { cluster, member, .. } = newborn;
    line("cluster, member", format!("{cluster}, {member} {:?}", order.name));
    line("revision", format!("{newest}, {compacted}"));
    line("keys, leases", format!("{keys}, {}", reader.lease_count()));
    if made.unknown > 0 {
        let unknown = made.unknown;
        line(
            "of these leases",
            format!(
                "{unknown} are gone from {dir}, and their TTL with them: they have {RESTORED_LEASE_TTL_SECONDS} s"
            ),
        );
    }
    line("start", format!("ringleader --data-dir {out} --name {}", order.name));
    text
}
