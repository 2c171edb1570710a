//! `ringleader inspect DIR`: is what lies in a data directory whole, and what is it?
//!
//! It reads and nothing else: no file is made, changed, removed, synced or locked, so a member may run
//! beside it. Every format is read by the module that writes it (`tree`, `wal`), and whether log and
//! superblock fit each other is decided where a start decides it: the verdict is a start's own.
//!
//! ```text
//!   args ─ what is asked for ─┬─ examine: one look ─ settle: what of it stays ─ report: text, JSON
//!                             └─ part: one frame, record, superblock or file as text
//! ```
//!
//! Beside a running member files change while they are read. The superblock says what there is, and is
//! read first; what lies behind may be torn, trimmed or gone by the time it is read. So whatever is
//! found damaged is looked at again: what is damaged twice in the same place is damaged, and what is
//! not was being written.

mod args;
mod examine;
mod part;
mod progress;
mod report;
mod settle;
#[cfg(test)]
mod tests;

pub use examine::{Damage, Report, look};
pub(crate) use progress::Progress;
pub(crate) use report::text as told;
pub use settle::settle;

use crate::{
    io::{host, readonly::ReadOnlyDisk},
    limits::INSPECT_INTERVAL,
    tree::{INDEX_DIR, Options, RECORDS_DIR, SUPERBLOCK_FILE},
    wal,
};
use args::{Ask, Asked};
use futures_lite::future::block_on;
use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    thread,
};

/// The first argument that asks for this instead of a server.
pub const COMMAND: &str = "inspect";

/// How it ended, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that counts is whole.
    Whole = 0,
    /// It could not look.
    Blind = 1,
    /// Something is damaged.
    Damaged = 2,
}

/// Does what `args`, those behind [`COMMAND`], ask for. What is found goes to standard output, why
/// nothing could be found to standard error.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Verdict {
    let outcome = match args::read(args) {
        Ok(Asked::Help) => Ok((args::HELP.to_owned(), Verdict::Whole)),
        Ok(Asked::Look { places, ask }) => answer(&places, ask),
        Err(problem) => Err(format!("{problem}\n\n{}", args::HELP)),
    };
    match outcome {
        Ok((text, verdict)) => {
            // Who closes the other end has read enough.
            let _closed = io::stdout().write_all(text.as_bytes()).is_err();
            verdict
        }
        Err(why) => {
            eprintln!("ringleader {COMMAND}: {why}");
            Verdict::Blind
        }
    }
}

/// Where the parts of a data directory lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// What was given.
    pub(crate) dir: PathBuf,
    pub(crate) wal_dir: Option<PathBuf>,
}

impl Places {
    /// The folder of superblock and records.
    fn data(&self) -> PathBuf {
        self.dir.join("member")
    }

    /// The folder of log and ballot.
    fn wal(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data())
    }

    /// The two as disks, of whose reads `progress` is told.
    pub(crate) fn disks(&self, progress: &Progress) -> [ReadOnlyDisk; 2] {
        [self.data(), self.wal()].map(|root| ReadOnlyDisk::new(root, progress.heard()))
    }

    /// How far what is read of them has come.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(&[self.data(), self.wal()])
    }

    /// Sees that there is something to look at.
    pub(crate) fn check(&self) -> Result<(), String> {
        let shown = self.dir.display();
        list(&self.dir)?;
        if self.data().join("snap").join("db").exists() {
            return Err(format!("{shown} holds the data of an etcd; etcdutl reads it"));
        }
        match fs::metadata(self.data()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let hint = match self.dir.join(SUPERBLOCK_FILE).exists() {
                    true => "; give the folder above it",
                    false => "",
                };
                return Err(format!("{shown} is no data directory: it has no folder member{hint}"));
            }
            _ => list(&self.data())?,
        }
        list(&self.wal())
    }
}

/// What a member makes in its folders. Anything else is a person's, or a log that was put aside.
const KNOWN: [&str; 6] =
    [SUPERBLOCK_FILE, RECORDS_DIR, INDEX_DIR, wal::segment::DIR, wal::BALLOT_FILE, host::LOCK_FILE];

impl Places {
    /// What lies in the folders of a member and is not its own.
    fn strangers(&self) -> Vec<String> {
        let mut roots = vec![self.data(), self.wal()];
        roots.dedup();
        let entries = roots.iter().filter_map(|root| fs::read_dir(root).ok()).flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| !KNOWN.contains(&name.as_str())).collect();
        names.sort();
        names
    }
}

/// Sees that a folder can be read.
fn list(dir: &Path) -> Result<(), String> {
    fs::read_dir(dir).map(drop).map_err(|error| format!("{}: {error}", dir.display()))
}

/// Looks at everything, again where something does not verify.
pub(crate) fn look_until_sure(places: &Places, progress: &Progress) -> Result<Report, String> {
    let [data, wal] = places.disks(progress);
    let once = || {
        progress.begin();
        block_on(look(&data, &wal, Options::default()))
    };
    settle(once, || thread::sleep(INSPECT_INTERVAL))
}

fn answer(places: &Places, ask: Ask) -> Result<(String, Verdict), String> {
    places.check()?;
    let progress = places.progress();
    let [data, wal] = places.disks(&progress);
    let sizes = Options::default();
    let answered = match ask {
        Ask::Summary { json } => look_until_sure(places, &progress).map(|mut report| {
            report.leftovers.extend(places.strangers());
            let text = match json {
                true => report::json(&report, places),
                false => report::text(&report, places),
            };
            (text, report.verdict())
        }),
        Ask::Frame(number) => block_on(part::frame(&wal, number)),
        Ask::Record(seq) => block_on(part::record(&data, sizes, seq)),
        Ask::Superblock => block_on(part::superblock(&data, sizes)),
        Ask::Segment(file) => block_on(part::segment(&data, &wal, sizes, &file)),
    };
    progress.end();
    answered
}
