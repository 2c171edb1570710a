//! The works that are calls: their flags, and what they print.
#![allow(clippy::disallowed_methods, reason = "it measures real servers in real time")]

use std::{
    fmt::Display,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use loadgen::{
    arrivals::{Arrivals, Schedule},
    beside::Beside,
    client::Client,
    engine::{self, Pace, Plan, Until},
    flags::Flags,
    hdrlog::HdrLog,
    interrupt,
    keys::Order,
    kubernetes::{self, Kubernetes},
    link::Failure,
    ops::{Kind, Numbered, Ops},
    progress::Progress,
    replay::{Recording, Replay},
    report::Report,
    scene::Scene,
    script::Script,
    sizes::Sizes,
    watching::Watches,
    work::{Call, Work},
};
use prost::Message;
use proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, RequestOp, TxnRequest, TxnResponse, kv,
    request_op::Request,
};
use serde_json::Value;

/// Flags of what is not built yet, which etcd's own tools have.
const REFUSED: [&str; 5] = ["--user", "--cacert", "--cert", "--key", "--insecure-skip-tls-verify"];

/// Streams of an open loop on each connection, if nothing is said.
const OPEN_STREAMS: usize = 100;

/// How long a member may take for a call before or after a run.
const BESIDE: Duration = Duration::from_secs(20);

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
        flags.refuse(&REFUSED, "neither TLS nor users are built yet")?;
        let mut endpoints: Vec<String> = flags.list("--endpoint")?;
        if endpoints.is_empty() {
            endpoints.push("127.0.0.1:2379".into());
        }
        if let Some(secure) = endpoints.iter().find(|endpoint| endpoint.starts_with("https://")) {
            return Err(format!("--endpoint {secure}: TLS is not built yet"));
        }
        if let Some(bare) = endpoints.iter().find(|endpoint| !has_port(endpoint)) {
            return Err(format!("--endpoint {bare}: host:port is wanted"));
        }
        let (pids, data_dir) = (flags.list("--pid")?, flags.value("--data-dir")?);
        Ok(Self { endpoints, pids, data_dir, line: line.into() })
    }

    /// Creates a log of latencies, where one is wanted.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub fn log(&self, name: Option<&str>) -> Result<Option<HdrLog>, String> {
        let log = name.map(|name| HdrLog::create(name, &self.line)).transpose();
        log.map_err(|error| error.to_string())
    }

    /// Where and when, to be taken before the run.
    pub fn scene(&self) -> Scene {
        Scene::new(&self.endpoints, self.data_dir.as_deref(), &self.pids, &self.line)
    }
}

fn has_port(endpoint: &str) -> bool {
    let authority = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let parts = authority.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// What the flags of all runs of the engine say.
struct Options {
    servers: Servers,
    plan: Plan,
    pace: Pace,
    hdr_log: Option<String>,
    recording: Option<String>,
    quiet: bool,
}

impl Options {
    /// Of a work that has so many streams if nothing is said, and until when it goes on.
    fn take(flags: &mut Flags, line: &str, streams: usize, until: Until) -> Result<Self, String> {
        let servers = Servers::take(flags, line)?;
        let warm_up = warm_up(flags)?;
        Ok(Self {
            plan: Plan {
                endpoints: servers.endpoints.clone(),
                connections: flags.number("--connections", 1, 1)?,
                streams: flags.number("--streams", streams, 1)?,
                until,
                pids: servers.pids.clone(),
            },
            pace: Pace { schedule: None, warm_up },
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
        let hdr_log = self.servers.log(self.hdr_log.as_deref())?;
        let recording = self.recording.as_deref().map(Recording::create).transpose();
        Ok(Beside { progress, hdr_log, recording: recording.map_err(|error| error.to_string())? })
    }

    fn run(&self, name: &str, script: &mut impl Script) -> Result<(), String> {
        interrupt::listen().map_err(|error| error.to_string())?;
        let mut beside = self.beside()?;
        let scene = self.servers.scene();
        let report = engine::run_at(&self.plan, &self.pace, script, &mut beside);
        tell(name, &scene, &report.map_err(said)?)
    }
}

/// How long is worked before that counts.
///
/// # Errors
/// No number.
pub fn warm_up(flags: &mut Flags) -> Result<Duration, String> {
    flags.number("--warm-up", 0, 0).map(Duration::from_secs)
}

fn until(flags: &mut Flags) -> Result<Until, String> {
    match flags.at_least("--ops", 1)? {
        None => for_seconds(flags),
        Some(ops) => {
            flags.refuse(&["--seconds"], "--ops says already when it is over")?;
            Ok(Until::Calls(ops))
        }
    }
}

fn for_seconds(flags: &mut Flags) -> Result<Until, String> {
    flags.seconds("--seconds", 5).map(Until::Elapsed)
}

fn said(failure: Failure) -> String {
    failure.to_string()
}

/// How many are due a second, where that is said, and how they come.
fn schedule(flags: &mut Flags, or: Option<f64>) -> Result<Option<Schedule>, String> {
    let rate = flags.at_least("--rate", 0.001)?.or(or);
    let arrivals: Option<Arrivals> = flags.value("--arrivals")?;
    match (rate, arrivals) {
        (None, Some(_)) => Err("--arrivals says how calls come at a --rate".into()),
        (None, None) => Ok(None),
        (Some(rate), arrivals) => Ok(Some(Schedule::new(arrivals.unwrap_or(Arrivals::Even), rate))),
    }
}

/// Makes the calls of a work.
///
/// # Errors
/// What was wrong with the flags, the server or an output; calls that failed.
pub fn run(name: &str, mut flags: Flags, line: &str) -> Result<(), String> {
    let schedule = schedule(&mut flags, None)?;
    // What is due does not wait for a stream, if we can help it.
    let streams = if schedule.is_some() { OPEN_STREAMS } else { 1 };
    let keys = flags.number("--keys", 100_000, 1)?;
    let sizes: Sizes = flags.value("--value-size")?.unwrap_or(Sizes::Fixed(256));
    let (until, usual) = match name {
        "fill" => {
            flags.refuse(&["--seconds", "--ops"], "fill is over when every key is there")?;
            (Until::Calls(keys), Order::Sequential)
        }
        _ => (until(&mut flags)?, Order::Random),
    };
    let mut options = Options::take(&mut flags, line, streams, until)?;
    options.pace.schedule = schedule;
    let order = flags.value("--order")?.unwrap_or(usual);
    let work = |call| Work::new(call, order, keys, sizes.clone());
    let numbered = |kind| Numbered::new(kind, order, keys, sizes.clone());
    match name {
        "range" => {
            let call = Call::Range { serializable: flags.switch("--serializable") };
            flags.finish()?;
            options.run(name, &mut work(call))
        }
        "list" | "count" => {
            let digits = flags.number("--digits", 3, 0)?;
            let kind = match name {
                "list" => Kind::List { digits, limit: flags.number("--limit", 0, 0)? },
                _ => Kind::Count { digits },
            };
            flags.finish()?;
            match digits {
                0..=12 => options.run(name, &mut numbered(kind)),
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

/// What a cluster of nodes asks of its store.
///
/// # Errors
/// As [`run`].
pub fn kubernetes(mut flags: Flags, line: &str) -> Result<(), String> {
    let until = for_seconds(&mut flags)?;
    let mut options = Options::take(&mut flags, line, OPEN_STREAMS, until)?;
    let nodes: u64 = flags.number("--nodes", 1000, 1)?;
    let pods = flags.number("--pods", 10 * nodes, 0)?;
    let watchers = flags.number("--watchers", 2, 0)?;
    options.pace.schedule = schedule(&mut flags, Some(kubernetes::rate(nodes)))?;
    flags.finish()?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let root = format!("/loadgen-{:x}", since.as_millis());
    let ran = mixed(&options, &mut Kubernetes::new(&root, nodes, pods), watchers);
    // Whatever became of the run.
    let cleared = clear(&options.plan.endpoints, &root);
    ran.and(cleared)
}

/// Creates what there is to begin with, and runs the mix.
fn mixed(options: &Options, mix: &mut Ops<Kubernetes>, watchers: usize) -> Result<(), String> {
    interrupt::listen().map_err(|error| error.to_string())?;
    let Options { servers, plan, pace, .. } = options;
    let scene = servers.scene();
    fill(plan, mix)?;
    let prefixes = mix.chooser().watched();
    let watches = Watches::open(&plan.endpoints, &prefixes, watchers).map_err(said)?;
    let mut beside = options.beside()?;
    let clock = Instant::now();
    mix.stamp_values(clock);
    let watching = watches.listen(clock, pace.warm_up);
    let mut report = engine::run_at(plan, pace, mix, &mut beside).map_err(said)?;
    // A run that was cut short may have nobody left to put anything.
    let heard = match report.cut_short() {
        None => last_put(&plan.endpoints, &prefixes).map(Some),
        Some(_) => Ok(None),
    };
    let heard = heard.and_then(|revision| watching.finish(revision).map_err(said));
    let lost = heard.map(|heard| report.add_heard(heard)).err();
    tell("kubernetes", &scene, &report)?;
    lost.map_or(Ok(()), |why| Err(format!("watching: {why}")))
}

fn fill(plan: &Plan, mix: &mut Ops<Kubernetes>) -> Result<(), String> {
    let filling = Plan { until: Until::Calls(mix.chooser().filling()), ..plan.clone() };
    let filled = engine::run_at(&filling, &Pace::default(), mix, &mut Beside::default());
    let filled = filled.map_err(said)?;
    if let Some((error, calls)) = filled.errors().first_key_value() {
        return Err(format!("{calls} of the objects to begin with were refused: {error}"));
    }
    if let Some(why) = filled.cut_short() {
        return Err(format!("cut short while the objects to begin with were created: {why}"));
    }
    mix.forget_counts();
    Ok(())
}

/// Puts a key under each prefix, at one revision, which is returned: who has that has all before it.
fn last_put(endpoints: &[String], prefixes: &[String]) -> Result<i64, String> {
    let put = |prefix: &String| {
        let put = PutRequest { key: format!("{prefix}last").into(), ..Default::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    };
    let all = TxnRequest { success: prefixes.iter().map(put).collect(), ..Default::default() };
    let done: TxnResponse = by_any(endpoints, kv::TXN, &all)?;
    Ok(done.header.unwrap_or_default().revision)
}

/// Deletes all keys under a root that are a run's own.
fn clear(endpoints: &[String], root: &str) -> Result<(), String> {
    let range_end = format!("{root}0").into();
    let key = format!("{root}/").into();
    let delete = DeleteRangeRequest { key, range_end, ..Default::default() };
    let done: Result<DeleteRangeResponse, _> = by_any(endpoints, kv::DELETE_RANGE, &delete);
    done.map(drop).map_err(|error| format!("the keys under {root}/ are still there: {error}"))
}

/// A call of the first member that answers it well.
///
/// # Errors
/// What the last one said.
pub fn by_any<Q: Message, R: Message + Default>(
    endpoints: &[String],
    path: &str,
    request: &Q,
) -> Result<R, String> {
    let mut last = String::new();
    for endpoint in endpoints {
        let client = Client::connect_within(endpoint, BESIDE).map_err(|error| error.to_string());
        let asked = |mut client: Client| client.unary(path, request).map_err(|e| e.to_string());
        match client.and_then(asked) {
            Ok(response) => return Ok(response),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Operations of a file, at their times.
///
/// # Errors
/// As [`run`], and a file that is none.
pub fn replay(mut flags: Flags, line: &str) -> Result<(), String> {
    flags
        .refuse(&["--seconds", "--ops", "--rate"], "the file says when which operations are due")?;
    // Until what is in the file is known.
    let mut options = Options::take(&mut flags, line, OPEN_STREAMS, Until::Calls(0))?;
    let speed = flags.number("--speed", 1.0, 0.001)?;
    let file = flags.operand().ok_or("replay FILE: which operations?")?;
    flags.finish()?;
    let replay = Replay::read(&file)?;
    options.plan.until = Until::Calls(replay.count());
    options.pace.schedule = Some(replay.schedule(speed));
    options.run("replay", &mut replay.ops())
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
        failed => Err(format!("{failed} of the calls failed")),
    }
}
