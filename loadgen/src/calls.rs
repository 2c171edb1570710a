//! The works that are calls: their flags, and what they print.

use std::{fmt::Display, io::Write, path::PathBuf};

use loadgen::{
    arrivals::{Arrivals, Schedule},
    beside::Beside,
    engine::{self, Pace, Plan, Until},
    flags::Flags,
    hdrlog::HdrLog,
    interrupt,
    keys::Order,
    ops::{Kind, Numbered},
    progress::Progress,
    replay::Recording,
    report::Report,
    scene::Scene,
    script::Script,
    sizes::Sizes,
    work::{Call, Work},
};
use serde_json::Value;

/// Flags of what is not built yet, which etcd's own tools have.
const REFUSED: [&str; 5] = ["--user", "--cacert", "--cert", "--key", "--insecure-skip-tls-verify"];

/// The members that are asked.
pub struct Servers {
    /// `host:port` of each.
    pub endpoints: Vec<String>,
    /// Their processes.
    pub pids: Vec<u32>,
    /// Where one of them has its data.
    pub data_dir: Option<PathBuf>,
    line: String,
}

impl Servers {
    /// From the flags that all works have.
    ///
    /// # Errors
    /// A flag that is wrong or not built.
    pub fn take(flags: &mut Flags, line: &str) -> Result<Self, String> {
        for refused in REFUSED {
            let given = line.split_whitespace().map(|word| word.split('=').next().unwrap_or(word));
            if given.into_iter().any(|given| given == refused) {
                return Err(format!("{refused}: neither TLS nor users are built yet"));
            }
        }
        let mut endpoints: Vec<String> = flags.list("--endpoint")?;
        if endpoints.is_empty() {
            endpoints.push("127.0.0.1:2379".into());
        }
        if let Some(secure) = endpoints.iter().find(|endpoint| endpoint.starts_with("https://")) {
            return Err(format!("--endpoint {secure}: TLS is not built yet"));
        }
        let (pids, data_dir) = (flags.list("--pid")?, flags.value("--data-dir")?);
        Ok(Self { endpoints, pids, data_dir, line: line.into() })
    }

    /// Where and when, to be taken before the run.
    pub fn scene(&self) -> Scene {
        let pid = self.pids.first().copied();
        Scene::new(&self.endpoints, self.data_dir.as_deref(), pid, &self.line)
    }
}

/// What the flags of all calls say.
struct Options {
    servers: Servers,
    plan: Plan,
    pace: Pace,
    keys: u64,
    order: Order,
    sizes: Sizes,
    hdr_log: Option<String>,
    recording: Option<String>,
    quiet: bool,
}

impl Options {
    fn take(name: &str, flags: &mut Flags, line: &str) -> Result<Self, String> {
        let servers = Servers::take(flags, line)?;
        let keys = flags.number("--keys", 100_000, 1)?;
        let seconds = flags.seconds("--seconds", 5)?;
        let rate: Option<f64> = flags.at_least("--rate", 0.001)?;
        let arrivals: Option<Arrivals> = flags.value("--arrivals")?;
        if arrivals.is_some() && rate.is_none() {
            return Err("--arrivals says how calls come at a --rate".into());
        }
        let (until, order) = match (name, flags.at_least("--ops", 1)?) {
            ("fill", _) => (Until::Calls(keys), Order::Sequential),
            (_, Some(ops)) => (Until::Calls(ops), Order::Random),
            (_, None) => (Until::Elapsed(seconds), Order::Random),
        };
        let order = flags.value("--order")?.unwrap_or(order);
        let warm_up = flags.number("--warm-up", 0, 0).map(std::time::Duration::from_secs)?;
        let schedule = rate.map(|rate| Schedule::new(arrivals.unwrap_or(Arrivals::Even), rate));
        Ok(Self {
            plan: Plan {
                endpoints: servers.endpoints.clone(),
                connections: flags.number("--connections", 1, 1)?,
                streams: flags.number("--streams", 1, 1)?,
                until,
                pids: servers.pids.clone(),
            },
            pace: Pace { schedule, warm_up },
            keys,
            order,
            sizes: flags.value("--value-size")?.unwrap_or(Sizes::Fixed(256)),
            hdr_log: flags.text("--hdr-log")?,
            recording: flags.text("--record")?,
            quiet: flags.switch("--quiet"),
            servers,
        })
    }

    fn beside(&self) -> Result<Beside, String> {
        let all = match self.plan.until {
            Until::Calls(calls) => Some(calls),
            Until::Elapsed(_) => None,
        };
        let progress = if self.quiet { None } else { Progress::new(all) };
        let log = |name: &String| HdrLog::create(name, &self.servers.line);
        let hdr_log = self.hdr_log.as_ref().map(log).transpose();
        let recording = self.recording.as_deref().map(Recording::create).transpose();
        let said = |error: std::io::Error| error.to_string();
        Ok(Beside {
            progress,
            hdr_log: hdr_log.map_err(said)?,
            recording: recording.map_err(said)?,
        })
    }

    fn run(&self, name: &str, script: &mut impl Script) -> Result<(), String> {
        interrupt::listen().map_err(|error| error.to_string())?;
        let mut beside = self.beside()?;
        let scene = self.servers.scene();
        let report = engine::run_at(&self.plan, &self.pace, script, &mut beside);
        tell(name, &scene, &report.map_err(|failure| failure.to_string())?)
    }
}

/// Makes the calls of a work.
///
/// # Errors
/// What was wrong with the flags, the server or an output; calls that failed.
pub fn run(name: &str, mut flags: Flags, line: &str) -> Result<(), String> {
    let options = Options::take(name, &mut flags, line)?;
    let Options { keys, order, sizes, .. } = &options;
    let work = |call| Work::new(call, *order, *keys, sizes.clone());
    let numbered = |kind| Numbered::new(kind, *order, *keys, sizes.clone());
    match name {
        "range" => {
            let call = Call::Range { serializable: flags.switch("--serializable") };
            flags.finish()?;
            options.run(name, &mut work(call))
        }
        "list" => {
            let digits = flags.number("--digits", 3, 0)?;
            let limit = flags.number("--limit", 0, 0)?;
            flags.finish()?;
            match digits {
                0..=12 => options.run(name, &mut numbered(Kind::List { digits, limit })),
                _ => Err(format!("--digits {digits}: at most 12, which are all keys")),
            }
        }
        _ => {
            flags.finish()?;
            match name {
                "cas" => options.run(name, &mut numbered(Kind::Swap)),
                "delete" => options.run(name, &mut work(Call::Delete)),
                _ => options.run(name, &mut work(Call::Put)),
            }
        }
    }
}

fn tell(name: &str, scene: &Scene, report: &Report) -> Result<(), String> {
    told(scene, report, report.json(name), report.errors().values().sum())?;
    match report.cut_short() {
        Some(why) => Err(format!("the run was cut short: {why}")),
        None => Ok(()),
    }
}

/// Prints a table and a line of JSON.
///
/// # Errors
/// An output that takes no more; calls that failed.
pub fn told(
    scene: &Scene,
    table: &impl Display,
    mut json: Value,
    failed: u64,
) -> Result<(), String> {
    json["scene"] = scene.json();
    let mut out = std::io::stdout().lock();
    let written = write!(out, "{scene}{table}").and_then(|()| writeln!(out, "{json}"));
    written.and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))?;
    match failed {
        0 => Ok(()),
        failed => Err(format!("{failed} calls failed")),
    }
}
