//! What a growing database does: one member is filled step by step, and at each step asked at a fixed rate,
//! weighed, killed and started again.
//!
//! ```text
//!   fill to the next number of keys ──► puts, ranges at a rate ──► memory, disk ──► kill -9 ──► start
//!        ▲                                                                                       │
//!        └───────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Common,
    cell::{self, CONNECTIONS, STREAMS},
    cluster::{Cluster, Ground, Trouble},
    grid::{Clocks, Place, Program, Setting},
    host::{self, Server},
    page,
    plot::{Curves, Scale, Series, Unit, escape},
    probe::Probe,
    table::{Head, Line, Table, number, read_number},
    told::Progress,
};
use crate::{
    arrivals::{Arrivals, Schedule},
    beside::Beside,
    cpu,
    engine::{self, Pace, Plan, Until},
    flags::Flags,
    interrupt,
    keys::Order,
    report::Report,
    work::{Call, Work},
};

/// Of a file beside `sensitivity.csv`.
pub(super) const FILE: &str = "growth.csv";
/// Calls open at a time at the fixed rate.
const OPEN_STREAMS: usize = 100;
/// A member may take so long to start over much data.
const RESTART_MAX: Duration = Duration::from_secs(300);
/// More than the largest step, so that the quota is in nobody's way, bytes.
const QUOTA_BYTES: u64 = 16 << 30;
/// Keys that are filled in a second, for who waits, and no promise.
const FILLED_PER_SECOND: f64 = 20_000.0;

/// What the flags say.
pub(super) struct Steps {
    /// Numbers of keys, rising.
    keys: Vec<u64>,
    value_bytes: usize,
    rate: f64,
    /// For puts, and for ranges.
    seconds: f64,
}

impl Steps {
    pub(super) fn take(flags: &mut Flags, quick: bool) -> Result<Self, String> {
        let mut keys: Vec<u64> = flags.list("--keys")?;
        if keys.is_empty() {
            keys = vec![10_000, 100_000];
            keys.extend((!quick).then_some(1_000_000));
        }
        keys.sort_unstable();
        keys.dedup();
        if keys[0] == 0 {
            return Err("--keys 0: at least 1".into());
        }
        Ok(Self {
            keys,
            value_bytes: flags.number("--value-size", 256, 1)?,
            rate: flags.number("--rate", 500.0, 1.0)?,
            seconds: flags.number("--seconds", if quick { 3.0 } else { 8.0 }, 0.1)?,
        })
    }

    fn setup(&self, identity: Value) -> Value {
        let mut setup = identity;
        setup["keys"] = json!(self.keys);
        setup["value_bytes"] = json!(self.value_bytes);
        setup["rate"] = json!(self.rate);
        setup["seconds"] = json!(self.seconds);
        setup
    }

    fn step_seconds(&self, from: u64, to: u64) -> f64 {
        (to - from) as f64 / FILLED_PER_SECOND + 2.0 * self.seconds + 1.0
    }
}

/// One step of one server. What is not there was not measured.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grown {
    pub(super) program: Program,
    pub(super) keys: u64,
    filled_per_second: Option<f64>,
    /// p50, p99 and p99.9, ms.
    puts: [Option<f64>; 3],
    ranges: [Option<f64>; 3],
    /// All memory of the process that is there, files it has mapped included.
    resident_bytes: Option<f64>,
    /// Of that, what no file stands behind.
    heap_bytes: Option<f64>,
    disk_bytes: Option<f64>,
    /// From its start after kill -9 to the first write that it accepted.
    restart_ms: Option<f64>,
}

impl Line for Grown {
    const COLUMNS: &'static str = "server,keys,filled_per_second,put_p50_ms,put_p99_ms,put_p999_ms,\
        range_p50_ms,range_p99_ms,range_p999_ms,resident_bytes,heap_bytes,disk_bytes,restart_ms";

    fn fields(&self) -> Vec<String> {
        let numbers = [self.filled_per_second].into_iter().chain(self.puts).chain(self.ranges);
        let numbers =
            numbers.chain([self.resident_bytes, self.heap_bytes, self.disk_bytes, self.restart_ms]);
        let mut fields = vec![self.program.name().to_owned(), self.keys.to_string()];
        fields.extend(numbers.map(number));
        fields
    }

    fn read(fields: &[String]) -> Option<Self> {
        let [name, keys, numbers @ ..] = fields else { return None };
        let numbers: Vec<_> =
            numbers.iter().map(|field| read_number(field)).collect::<Option<_>>()?;
        let [filled, p1, p2, p3, r1, r2, r3, resident, heap, disk, restart] = numbers[..] else {
            return None;
        };
        Some(Self {
            program: Program::ALL.into_iter().find(|program| program.name() == name)?,
            keys: keys.parse().ok()?,
            filled_per_second: filled,
            puts: [p1, p2, p3],
            ranges: [r1, r2, r3],
            resident_bytes: resident,
            heap_bytes: heap,
            disk_bytes: disk,
            restart_ms: restart,
        })
    }
}

impl std::fmt::Display for Grown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short =
            |unit: Unit, value: Option<f64>| value.map_or("-".into(), |value| unit.short(value));
        let [put, range] = [self.puts[1], self.ranges[1]].map(|p99| short(Unit::Millis, p99));
        let memory = short(Unit::Bytes, self.resident_bytes);
        let (disk, restart) =
            (short(Unit::Bytes, self.disk_bytes), short(Unit::Millis, self.restart_ms));
        write!(
            f,
            "{:<10} {:>9} keys: p99 of puts {put}, of ranges {range}; memory {memory}, disk {disk}, \
             restart {restart}",
            self.program.name(),
            self.keys,
        )
    }
}

/// Measures what is not there yet.
///
/// # Errors
/// A sentence.
pub(super) fn run(
    common: &Common,
    steps: &Steps,
    servers: &[Server],
    folder: &Path,
    line: &str,
) -> Result<(), String> {
    let setup = steps.setup(host::identity(&common.data, servers));
    let head = || common.head(&setup, line, folder);
    let mut table: Table<Grown> = Table::open(&common.out.join(FILE), &setup, common.fresh, head)?;
    let is_done = |table: &Table<Grown>, program, keys| {
        table.lines.iter().any(|row| row.program == program && row.keys == keys)
    };
    let weights = |server: &Server| {
        let from = std::iter::once(0).chain(steps.keys.iter().copied());
        let todo = !steps.keys.iter().all(|keys| is_done(&table, server.program, *keys));
        let each = from.zip(&steps.keys).map(|(from, to)| steps.step_seconds(from, *to));
        if todo { each.collect() } else { Vec::new() }
    };
    let todo: Vec<f64> = servers.iter().flat_map(weights).collect();
    let mut progress = Progress::new(common.quiet, servers.len() * steps.keys.len(), &todo);
    for server in servers {
        if steps.keys.iter().all(|keys| is_done(&table, server.program, *keys)) {
            continue;
        }
        let ground = Ground {
            binaries: vec![(server.program, server.path.clone())],
            folder: folder.to_owned(),
            members: 1,
            flags: vec![format!("--quota-backend-bytes={QUOTA_BYTES}")],
        };
        let mut member =
            Member::start(&ground, server.program, steps).map_err(|why| why.to_string())?;
        for keys in &steps.keys {
            let thought = steps.step_seconds(member.keys, *keys);
            progress.begin(&format_args!("{}, {keys} keys", server.program.title()));
            let grown = member.grow(*keys, steps).map_err(|trouble| {
                // Nobody can look at the reason where it is not kept.
                member.cluster.keep_logs(&common.logs(), "growth").ok();
                format!("{}, {keys} keys: {trouble}", server.program.title())
            })?;
            progress.end(thought, &grown);
            if !is_done(&table, server.program, *keys) {
                table.push(grown)?;
            }
        }
    }
    Ok(())
}

/// The member that grows.
struct Member {
    cluster: Cluster,
    program: Program,
    /// What it holds.
    keys: u64,
    puts: Work,
}

impl Member {
    fn start(ground: &Ground, program: Program, steps: &Steps) -> Result<Self, Trouble> {
        let place = Place { sync_ms: 0, tail: None, network_ms: 0 };
        let setting = Setting { place, clocks: Clocks::DEFAULT, program };
        let mut cluster = Cluster::start(ground, &setting)?;
        cluster.settle(RESTART_MAX)?;
        let most = steps.keys[steps.keys.len() - 1];
        let puts = Work::new(Call::Put, Order::Sequential, most, steps.value_bytes);
        Ok(Self { cluster, program, keys: 0, puts })
    }

    fn grow(&mut self, keys: u64, steps: &Steps) -> Result<Grown, Trouble> {
        let filled_per_second = Some(self.fill(keys)?);
        let puts = Work::new(Call::Put, Order::Random, keys, steps.value_bytes);
        let puts = self.ask(puts, steps)?;
        // A key that a restart was tried with has a shorter value.
        let ranges = Work::new(Call::Range { serializable: false }, Order::Random, keys, 1);
        let ranges = self.ask(ranges, steps)?;
        let pid = self.cluster.pids()[0];
        Ok(Grown {
            program: self.program,
            keys,
            filled_per_second,
            puts,
            ranges,
            resident_bytes: Some(resident_bytes(pid)? as f64),
            heap_bytes: Some(cpu::heap_bytes(pid)? as f64),
            disk_bytes: Some(disk_bytes(&self.cluster.data(0))? as f64),
            restart_ms: Some(self.restart()?.as_secs_f64() * 1e3),
        })
    }

    /// Puts the keys that are missing; so many a second.
    fn fill(&mut self, keys: u64) -> Result<f64, Trouble> {
        let plan = Plan {
            endpoints: vec![self.cluster.endpoint(0)],
            connections: CONNECTIONS,
            streams: STREAMS,
            until: Until::Calls(keys - self.keys),
            pids: Vec::new(),
        };
        let report =
            engine::run_at(&plan, &Pace::default(), &mut self.puts, &mut Beside::default());
        self.keys = keys;
        self.whole(report).map(|report| report.rate())
    }

    /// Latencies at the rate.
    fn ask(&mut self, mut work: Work, steps: &Steps) -> Result<[Option<f64>; 3], Trouble> {
        let plan = Plan {
            endpoints: vec![self.cluster.endpoint(0)],
            connections: CONNECTIONS,
            streams: OPEN_STREAMS,
            until: Until::Elapsed(Duration::from_secs_f64(steps.seconds)),
            pids: Vec::new(),
        };
        let schedule = Some(Schedule::new(Arrivals::Even, steps.rate));
        let pace = Pace { schedule, warm_up: Duration::ZERO };
        let report = engine::run_at(&plan, &pace, &mut work, &mut Beside::default());
        let report = self.whole(report)?;
        Ok([0.5, 0.99, 0.999].map(|quantile| cell::millis_at(&report, quantile)))
    }

    /// What was measured, where nothing failed.
    fn whole(&mut self, ran: Result<Report, crate::link::Failure>) -> Result<Report, Trouble> {
        self.cluster.look()?;
        let report = ran.map_err(|failure| Trouble::InTheWay(failure.to_string()))?;
        if let Some(why) = report.cut_short() {
            return Err(Trouble::InTheWay(format!("the load was cut short: {why}")));
        }
        match report.errors().pop_first() {
            Some((error, calls)) => {
                Err(Trouble::InTheWay(format!("{calls} calls failed: {error}")))
            }
            None => Ok(report),
        }
    }

    fn restart(&mut self) -> Result<Duration, Trouble> {
        self.cluster.kill(0)?;
        self.cluster.reap(0)?;
        let since = Instant::now();
        self.cluster.restart(0)?;
        let mut probe = Probe::new(self.cluster.others(0))?;
        let took = probe.first_write(since, RESTART_MAX)?;
        self.cluster.look()?;
        if interrupt::asked() {
            return Err(Trouble::Interrupted);
        }
        took.ok_or_else(|| Trouble::no_leader(RESTART_MAX))
    }
}

/// All memory of a process, whatever stands behind it.
fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("a process without VmRSS"))
}

/// What a folder takes on disk, holes left out.
fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(found) if found.is_dir() => disk_bytes(&entry.path())?,
            Ok(found) => found.blocks() * 512,
            // Servers remove files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

// ── what is told ────────────────────────────────────────────────────────────────────────────────

/// What the steps came to, of each program in one sentence.
pub(super) fn sentences(rows: &[Grown]) -> Vec<String> {
    let each = Program::ALL.into_iter().filter_map(|program| {
        let mut rows = rows.iter().filter(|row| row.program == program);
        let first = rows.next()?;
        let last = rows.next_back()?;
        let change = |what: &str, unit: Unit, of: fn(&Grown) -> Option<f64>| {
            Some(format!("{what} {} → {}", unit.short(of(first)?), unit.short(of(last)?)))
        };
        let changes = [
            change("p99 of puts", Unit::Millis, |row| row.puts[1]),
            change("p99 of ranges", Unit::Millis, |row| row.ranges[1]),
            change("memory", Unit::Bytes, |row| row.resident_bytes),
            change("disk", Unit::Bytes, |row| row.disk_bytes),
            change("restart after kill -9", Unit::Millis, |row| row.restart_ms),
        ];
        let changes = changes.into_iter().flatten().collect::<Vec<_>>().join("; ");
        Some(format!("{}, from {} to {} keys: {changes}.", program.title(), first.keys, last.keys))
    });
    each.collect()
}

/// The section of the page.
pub(super) fn section(head: &Head, rows: &[Grown]) -> String {
    let said = |name: &str| number(head.setup[name].as_f64());
    let mut html = page::section(
        "A growing database",
        &format!(
            "One member, values of {} bytes. At each step: {} puts a second and then as many linearizable \
             ranges of one key, for {} s each; memory and disk; kill -9, and from the start after it to the \
             first accepted write.",
            said("value_bytes"),
            said("rate"),
            said("seconds"),
        ),
    );
    html += &page::scene(head, &format!("{} steps", rows.len()));
    html += &format!("<ul>\n{}</ul>\n", page::items(&sentences(rows)));
    type Measure = fn(&Grown) -> Option<f64>;
    let measures: [(&str, Unit, Measure); 6] = [
        ("p99 of puts", Unit::Millis, |row| row.puts[1]),
        ("p99 of ranges", Unit::Millis, |row| row.ranges[1]),
        ("restart after kill -9", Unit::Millis, |row| row.restart_ms),
        ("resident memory", Unit::Bytes, |row| row.resident_bytes),
        ("memory without mapped files", Unit::Bytes, |row| row.heap_bytes),
        ("disk", Unit::Bytes, |row| row.disk_bytes),
    ];
    html += "<div class=\"row\">\n";
    for (title, unit, measure) in measures {
        let Some(scale) = Scale::over(rows.iter().filter_map(measure)) else { continue };
        let series = Program::ALL.into_iter().map(|program| {
            let rows = rows.iter().filter(|row| row.program == program);
            let point = |row: &Grown| Some((row.keys as f64, measure(row)?));
            let points = rows.filter_map(point).collect();
            Series { name: program.title().into(), class: program.name().into(), points }
        });
        let series = series.filter(|series| !series.points.is_empty()).collect();
        let place = |keys: f64| Unit::PerSecond.short(keys);
        let curves =
            Curves { title, across: "keys", series, scale: scale.with_room(), unit, place };
        html += &page::figure(title, &curves.svg());
    }
    html += "</div>\n";
    let columns: Vec<_> = Grown::COLUMNS.split(',').map(|name| name.replace('_', " ")).collect();
    let fields = rows.iter().map(|row| row.fields().iter().map(|field| escape(field)).collect());
    html += &page::table(&columns, fields);
    html + "</section>\n"
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Figures that follow from the number of keys.
    pub(in crate::sensitivity) fn grown(program: Program, keys: u64) -> Grown {
        let some = |part: f64| Some(part * keys as f64 / 1e3);
        Grown {
            program,
            keys,
            filled_per_second: Some(20_000.0),
            puts: [some(0.1), some(0.2), some(0.3)],
            ranges: [some(0.05), some(0.125), None],
            resident_bytes: some(1e6),
            heap_bytes: some(5e5),
            disk_bytes: some(2e6),
            restart_ms: some(4.0),
        }
    }

    #[test]
    fn a_step_reads_as_it_was_written() {
        let row = grown(Program::Etcd, 10_000);
        assert_eq!(Grown::read(&row.fields()).unwrap(), row);
        assert_eq!(row.fields().len(), Grown::COLUMNS.split(',').count());
        assert_eq!(Grown::read(&row.fields()[1..]), None);
    }

    #[test]
    fn what_growth_did_is_one_sentence_for_each_server() {
        let rows = [10_000, 100_000].map(|keys| grown(Program::Ringleader, keys));
        let said = sentences(&rows);
        assert_eq!(said.len(), 1);
        assert!(
            said[0]
                .starts_with("Ringleader, from 10000 to 100000 keys: p99 of puts 2.0 ms → 20 ms")
        );
        assert!(said[0].ends_with(
            "memory 10 MB → 100 MB; disk 20 MB → 200 MB; restart after kill -9 40 ms → 400 ms."
        ));
        assert!(sentences(&rows[..1]).is_empty(), "one step is no growth");
    }

    #[test]
    fn steps_rise_and_none_is_empty() {
        let steps = |line: &str| {
            Steps::take(&mut Flags::new(line.split_whitespace().map(str::to_owned)), true)
        };
        assert_eq!(steps("--keys 500,20,500").ok().unwrap().keys, [20, 500]);
        assert_eq!(steps("--keys 0").err().unwrap(), "--keys 0: at least 1");
    }

    #[test]
    fn a_folder_weighs_what_its_files_do() {
        let folder = std::env::temp_dir().join(format!("loadgen-weigh-{}", std::process::id()));
        fs::create_dir_all(folder.join("below")).unwrap();
        fs::write(folder.join("below/file"), vec![7; 100_000]).unwrap();
        let bytes = disk_bytes(&folder).unwrap();
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
