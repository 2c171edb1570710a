//! `loadgen disk DIR`: how long a write and its sync take in a folder, and whether that will do.
//!
//! ```text
//!   ground    what the folder stands on        ways     how logs are written      kernel
//!                 └──────────── a row for each way and size ────┘
//!                                      verdict    for which settings it is good enough
//! ```
//!
//! One record at a time, as a log is written: a write, a sync, and only then the next. What both
//! servers do beside it, so that it takes no time, is not counted: making the next file.

use std::{
    fmt,
    io::{self, ErrorKind, IsTerminal, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::{flags::Flags, ground::Ground, interrupt, scene::Scene};

mod kernel;
mod verdict;
mod ways;

use verdict::{Syncs, Verdict};
use ways::{Log, Way};

/// Bytes of a record: one block, which a few puts fit into, and two sizes that many make.
const SIZES: [usize; 3] = [4 << 10, 16 << 10, 128 << 10];
/// A sync that takes longer counts as this long.
const LONGEST: Duration = Duration::from_secs(600);
/// What is printed of each row.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];
/// How often a terminal is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What is taken from a command line.
pub const USAGE: &str = "\
loadgen disk DIR [--seconds N]

  how long a write and its sync take in DIR: as Ringleader writes its log (O_DIRECT over blocks that were
  written before), as etcd does (reserved), and into a growing file; and for which settings that will do
  --seconds N            3: for each of nine rows";

/// Does what the flags say, and tells `out`; when it is interrupted, what there is so far.
///
/// # Errors
/// A sentence: flags, the folder, or an output that takes no more.
pub fn command(mut flags: Flags, line: &str, out: &mut impl Write) -> Result<(), String> {
    let asked = |wrong: String| format!("{wrong}\n\n{USAGE}");
    let time = flags.seconds("--seconds", 3).map_err(asked)?;
    let dir = flags.operand().ok_or_else(|| asked("disk wants a folder".to_owned()))?;
    flags.finish().map_err(asked)?;
    interrupt::listen().map_err(|error| error.to_string())?;
    let scene = Scene::new(&[], Some(Path::new(&dir)), &[], line);
    let report = measure(Path::new(&dir), time)?;
    let mut json = report.json();
    json["scene"] = scene.json();
    let told = write!(out, "{scene}{report}").and_then(|()| writeln!(out, "{json}"));
    told.and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))?;
    match report.rows.len() == Way::ALL.len() * SIZES.len() && !interrupt::asked() {
        true => Ok(()),
        false => Err("the run was cut short: interrupted".to_owned()),
    }
}

/// What a folder's disk came to. [`fmt::Display`] is the table and the verdict.
#[derive(Debug)]
pub struct Report {
    dir: PathBuf,
    ground: Option<Ground>,
    /// Whether the kernel put the measuring thread ahead of others, as it would the server's.
    real_time: bool,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    way: Way,
    bytes: usize,
    elapsed: Duration,
    /// Nanoseconds for a write and its sync.
    took: Histogram<u64>,
}

/// Measures a folder, each row for so long.
///
/// # Errors
/// A sentence that names the folder and what is wrong with it.
pub fn measure(dir: &Path, time: Duration) -> Result<Report, String> {
    let wrong = |error| sentence(dir, &error);
    if !std::fs::metadata(dir).map_err(wrong)?.is_dir() {
        return Err(wrong(ErrorKind::NotADirectory.into()));
    }
    let ground = Ground::of(dir);
    if let Some(ground) = ground.as_ref().filter(|ground| ground.in_memory()) {
        return Err(format!(
            "{} is in memory ({}), where a sync has nothing to do: measure a folder on a disk",
            dir.display(),
            ground.filesystem
        ));
    }
    // On a thread of its own, because its priority changes.
    thread::scope(|scope| {
        let rows = scope.spawn(|| {
            let real_time = kernel::ask_for_real_time();
            rows(dir, time).map(|rows| (real_time, rows))
        });
        let (real_time, rows) =
            rows.join().expect("the measuring does not panic").map_err(wrong)?;
        Ok(Report { dir: dir.to_owned(), ground, real_time, rows })
    })
}

fn rows(dir: &Path, time: Duration) -> io::Result<Vec<Row>> {
    let all: Vec<_> = Way::ALL.into_iter().flat_map(|way| SIZES.map(|size| (way, size))).collect();
    let progress = Progress::new(all.len());
    let mut rows = Vec::new();
    for (at, (way, bytes)) in all.into_iter().enumerate() {
        rows.push(row(dir, way, bytes, time, &mut progress.of(at))?);
        if interrupt::asked() {
            break;
        }
    }
    Ok(rows)
}

fn row(dir: &Path, way: Way, bytes: usize, time: Duration, told: &mut Step) -> io::Result<Row> {
    told.say(Duration::ZERO, way, bytes);
    let mut log = Log::start(way, dir, bytes)?;
    let mut took =
        Histogram::new_with_bounds(1_000, LONGEST.as_nanos() as u64, 3).expect("bounds in order");
    let start = Instant::now();
    let mut busy = Duration::ZERO;
    loop {
        let one = log.append()?;
        took.saturating_record(one.as_nanos() as u64);
        busy += one;
        let elapsed = start.elapsed();
        if elapsed >= time || interrupt::asked() {
            break;
        }
        told.say(elapsed, way, bytes);
    }
    Ok(Row { way, bytes, elapsed: busy, took })
}

/// What is wrong with a folder.
fn sentence(dir: &Path, error: &io::Error) -> String {
    let shown = dir.display();
    match error.kind() {
        ErrorKind::NotFound if !dir.exists() => format!("there is no folder {shown}"),
        ErrorKind::NotADirectory => format!("{shown} is not a folder"),
        // Where the kernel makes the files, nobody else can (`/proc`): not found.
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound => {
            format!("{shown} is not to be written in: {error}")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => format!(
            "the disk of {shown} is full; this takes {} MiB for as long as it runs",
            ways::FILE_BYTES >> 20
        ),
        ErrorKind::InvalidInput | ErrorKind::Unsupported => format!(
            "the file system of {shown}{} takes no O_DIRECT writes, which the server needs; use \
             ext4 or XFS",
            Ground::of(dir).map(|on| format!(" ({})", on.filesystem)).unwrap_or_default()
        ),
        _ => format!("{shown}: {error}"),
    }
}

/// How far it is, for somebody who looks.
struct Progress {
    rows: usize,
    shown: bool,
}

/// The same, of one row.
struct Step {
    at: usize,
    rows: usize,
    shown: bool,
    /// Not before this time of the row again.
    next: Duration,
}

impl Progress {
    fn new(rows: usize) -> Self {
        Self { rows, shown: io::stderr().is_terminal() }
    }

    fn of(&self, at: usize) -> Step {
        Step { at, rows: self.rows, shown: self.shown, next: Duration::ZERO }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

impl Step {
    fn say(&mut self, elapsed: Duration, way: Way, bytes: usize) {
        if self.shown && elapsed >= self.next {
            let (at, rows, name) = (self.at + 1, self.rows, way.name());
            let seconds = elapsed.as_secs_f64();
            eprint!("\r\x1b[K{at} of {rows}: {name}, {} KiB, {seconds:.1} s", bytes >> 10);
            self.next = elapsed + PROGRESS_INTERVAL;
        }
    }
}

impl Row {
    fn per_second(&self) -> f64 {
        self.took.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// None where so few were seen that the answer would be another's.
    fn micros_at(&self, quantile: f64) -> Option<f64> {
        let beyond = self.took.len() as f64 * (1.0 - quantile);
        (beyond >= 0.999).then(|| self.took.value_at_quantile(quantile) as f64 / 1e3)
    }

    fn time_at(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.took.value_at_quantile(quantile))
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "way": self.way.name(),
            "bytes": self.bytes,
            "syncs": self.took.len(),
            "syncs_per_second": self.per_second(),
            "max_us": self.took.max() as f64 / 1e3,
        });
        for (name, quantile) in QUANTILES {
            row[format!("{}_us", name.replace('.', ""))] = json!(self.micros_at(quantile));
        }
        row
    }
}

impl Report {
    /// The row that a member's usual append is.
    fn usual(&self) -> &Row {
        &self.rows[0]
    }

    fn verdict(&self) -> Verdict {
        let row = self.usual();
        Verdict::of(&Syncs {
            p50: row.time_at(0.5),
            p99: row.time_at(0.99),
            p999: row.time_at(0.999),
            longest: Duration::from_nanos(row.took.max()),
            per_second: row.per_second(),
        })
    }

    /// The whole report, for machines.
    pub fn json(&self) -> Value {
        json!({
            "work": "disk",
            "dir": self.dir.display().to_string(),
            "ground": self.ground.as_ref().map(Ground::json),
            "real_time": self.real_time,
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "verdict": self.verdict().json(),
        })
    }

    /// How the other ways compare with the server's, for one block.
    fn beside(&self) -> String {
        let usual = self.usual().time_at(0.5).as_secs_f64();
        let others = self.rows.iter().filter(|row| row.bytes == SIZES[0] && row.way != Way::Filled);
        let times = others
            .map(|row| format!("{} {:.2}", row.way.name(), row.time_at(0.5).as_secs_f64() / usual));
        times.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.dir.display())?;
        match &self.ground {
            Some(ground) => writeln!(f, "{ground}")?,
            None => writeln!(f, "the kernel does not tell what it stands on")?,
        }
        let device = self.ground.as_ref().and_then(|ground| ground.device.as_ref());
        if device.is_some_and(|device| device.rotates) {
            writeln!(
                f,
                "The kernel takes the device for a rotating one; virtual disks often say so."
            )?;
        }
        if !self.real_time {
            writeln!(f, "Without real-time priority, which the server's log thread asks for.")?;
        }
        write!(f, "\n{:<9} {:>8} {:>8} {:>8}", "", "KiB", "syncs", "syncs/s")?;
        for (name, _) in QUANTILES {
            write!(f, " {:>9}", format!("{name} ms"))?;
        }
        writeln!(f, " {:>9}", "max ms")?;
        self.rows.iter().try_for_each(|row| row.fmt(f))?;
        match self.beside() {
            none if none.is_empty() => writeln!(f)?,
            beside => writeln!(f, "\nMedians of one block, in those of filled: {beside}.")?,
        }
        self.verdict().fmt(f)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { way, bytes, took, .. } = self;
        let (name, kib, syncs) = (way.name(), bytes >> 10, took.len());
        write!(f, "{name:<9} {kib:>8} {syncs:>8} {:>8.0}", self.per_second())?;
        for (_, quantile) in QUANTILES {
            match self.micros_at(quantile) {
                Some(micros) => write!(f, " {:>9.3}", micros / 1e3)?,
                None => write!(f, " {:>9}", "-")?,
            }
        }
        writeln!(f, " {:>9.3}", took.max() as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(way: Way, bytes: usize, millis: impl IntoIterator<Item = u64>) -> Row {
        let mut took = Histogram::new_with_bounds(1_000, LONGEST.as_nanos() as u64, 3).unwrap();
        millis.into_iter().for_each(|one| took.saturating_record(one * 1_000_000));
        Row { way, bytes, elapsed: Duration::from_secs(1), took }
    }

    #[test]
    fn a_percentile_needs_as_many_syncs_as_it_leaves_out() {
        let hundred = row(Way::Filled, 4096, 1..=100);
        assert!(hundred.micros_at(0.99).is_some() && hundred.micros_at(0.999).is_none());
        assert!(row(Way::Filled, 4096, 1..=10_000).micros_at(0.9999).is_some());
        assert!(hundred.json()["p999_us"].is_null() && hundred.to_string().contains(" - "));
    }

    #[test]
    fn a_report_compares_and_judges_by_the_block_as_the_server_writes_it() {
        let rows = vec![
            row(Way::Filled, SIZES[0], [2; 1000]),
            row(Way::Filled, SIZES[2], [900; 1000]),
            row(Way::Reserved, SIZES[0], [4; 1000]),
            row(Way::Growing, SIZES[0], [6; 1000]),
        ];
        let report = Report { dir: "x".into(), ground: None, real_time: true, rows };
        let table = report.to_string();
        assert!(table.contains("in those of filled: reserved 2.00, growing 3.00"), "{table}");
        assert!(table.contains("Good enough"), "{table}");
        let json = report.json();
        assert_eq!(json["rows"][2]["syncs"], 1000);
        assert_eq!(json["verdict"]["good_for_defaults"], true);
    }

    #[test]
    fn what_is_wrong_with_a_folder_is_one_sentence() {
        let said = |dir: &str| measure(Path::new(dir), Duration::from_secs(1)).unwrap_err();
        assert_eq!(said("/nowhere/at/all"), "there is no folder /nowhere/at/all");
        assert_eq!(said("/proc/version"), "/proc/version is not a folder");
        assert!(said("/proc").starts_with("/proc is not to be written in: "), "{}", said("/proc"));
        assert!(said("/sys").starts_with("/sys is not to be written in: "), "{}", said("/sys"));
        let full = sentence(Path::new("/d"), &ErrorKind::StorageFull.into());
        assert_eq!(full, "the disk of /d is full; this takes 64 MiB for as long as it runs");
        let odd = sentence(Path::new("/sys"), &ErrorKind::InvalidInput.into());
        assert!(odd.contains("/sys (sysfs) takes no O_DIRECT writes"), "{odd}");
    }

    #[test]
    fn memory_is_no_disk() {
        let shm = Path::new("/dev/shm");
        if !Ground::of(shm).is_some_and(|ground| ground.in_memory()) {
            eprintln!("skipped: /dev/shm is not in memory here");
            return;
        }
        let said = measure(shm, Duration::from_secs(1)).unwrap_err();
        assert!(said.starts_with("/dev/shm is in memory (tmpfs)"), "{said}");
    }
}
