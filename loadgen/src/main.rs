//! `loadgen WORK`: asks an etcd-compatible server as fast as it answers, and prints a table and a
//! line of JSON.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::{fmt::Display, io, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use loadgen::{
    check, compare, disk,
    engine::{self, Plan, Until},
    expiry, fanout,
    flags::Flags,
    history::{self, Recorder},
    lease, mix,
    work::{Call, Order, Work},
    writers::Puts,
};
use serde_json::Value;

const USAGE: &str = "\
loadgen WORK [--flag value ...]

  put        puts keys chosen by lot
  range      reads single keys chosen by lot
  fill       puts every key once
  watch      watchers of one prefix, and puts under it: events, their latency, memory
  keepalive  leases kept alive
  expire     leases all renewed and then all let go, beside puts
  check      a bit of everything on an empty cluster, written down and judged
  judge      what an earlier check wrote down
  disk DIR   whether the disk of a folder is good enough, and for which settings
  compare A B -- WORK [--flag value ...]   two servers in turn, and the ratios of each pair

  --endpoint host:port   127.0.0.1:2379; several for put, range, fill and check: a,b,c
  --connections N        1; not those of writers or stalled watchers
  --streams N            1: calls, or watch or keep-alive streams, on each connection
  --keys N               100000
  --value-size BYTES     256; of a range: that the values have at least
  --seconds N            5; not for fill. watch: each phase; expire: puts before the storm
  --ops N                instead of --seconds, for put and range
  --serializable         range: ask one member, not a quorum
  --pid N                the server's process, to read its CPU time and memory; several: a,b,c
  --history FILE         check, judge: where it is written down
  --seed N               1: check

  --watchers N           1000
  --prev-kv              watch: events carry the value before
  --stalled N            0: watch: a second phase, with so many that stop reading
  --writers N            1: puts open at a time
  --rate N               puts a second; without: as fast as they are answered

  --leases N             1000
  --ttl SECONDS          60
  --depth N              1: keep-alives on their way on a stream
  --attach               a key for each lease
  --gone-max SECONDS     60: expire: how long to wait until they are gone";

const WORKS: [&str; 8] = ["put", "range", "fill", "watch", "keepalive", "expire", "check", "judge"];

fn main() -> ExitCode {
    match run(Flags::new(std::env::args().skip(1))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the flags say, of all works.
struct Options {
    endpoints: Vec<String>,
    connections: usize,
    streams: usize,
    keys: u64,
    value_bytes: usize,
    time: Duration,
    ops: Option<u64>,
    serializable: bool,
    pids: Vec<u32>,
    history: PathBuf,
    seed: u64,
    watchers: usize,
    prev_kv: bool,
    stalled: usize,
    writers: usize,
    rate: Option<u64>,
    leases: usize,
    ttl: i64,
    depth: usize,
    attach: bool,
    gone_max: Duration,
}

impl Options {
    fn take(mut flags: Flags) -> Result<Self, String> {
        let endpoints = flags.list("--endpoint")?;
        let options = Self {
            endpoints: if endpoints.is_empty() { vec!["127.0.0.1:2379".into()] } else { endpoints },
            connections: flags.number("--connections", 1, 1)?,
            streams: flags.number("--streams", 1, 1)?,
            keys: flags.number("--keys", 100_000, 1)?,
            value_bytes: flags.number("--value-size", 256, 0)?,
            time: flags.seconds("--seconds", 5)?,
            ops: flags.at_least("--ops", 1)?,
            serializable: flags.switch("--serializable"),
            pids: flags.list("--pid")?,
            history: flags.value("--history")?.unwrap_or_default(),
            seed: flags.number("--seed", 1, 0)?,
            watchers: flags.number("--watchers", 1_000, 1)?,
            prev_kv: flags.switch("--prev-kv"),
            stalled: flags.number("--stalled", 0, 0)?,
            writers: flags.number("--writers", 1, 1)?,
            rate: flags.at_least("--rate", 1)?,
            leases: flags.number("--leases", 1_000, 1)?,
            ttl: flags.number("--ttl", 60, 1)?,
            depth: flags.number("--depth", 1, 1)?,
            attach: flags.switch("--attach"),
            gone_max: Duration::from_secs(flags.number("--gone-max", 60, 0)?),
        };
        flags.finish().map(|()| options)
    }

    fn puts(&self) -> Result<Puts, String> {
        let &Self { writers, rate, keys, value_bytes, .. } = self;
        match value_bytes {
            8.. => Ok(Puts { writers, rate, keys, value_bytes }),
            _ => Err("a value has at least 8 bytes here: it tells when it was put".into()),
        }
    }

    fn calls(&self, until: Until) -> Plan {
        let Self { endpoints, connections, streams, pids, .. } = self;
        let (connections, streams) = (*connections, *streams);
        Plan { endpoints: endpoints.clone(), connections, streams, until, pids: pids.clone() }
    }

    fn fanout(&self) -> Result<fanout::Plan, String> {
        let &Self { connections, streams, watchers, prev_kv, stalled, .. } = self;
        let (endpoint, pid) = self.one_member()?;
        self.at_least_one_a_stream(watchers, "watchers")?;
        Ok(fanout::Plan {
            endpoint,
            connections,
            streams,
            watchers,
            prev_kv,
            stalled,
            puts: self.puts()?,
            time: self.time,
            pid,
        })
    }

    fn lease(&self) -> Result<lease::Plan, String> {
        let &Self { connections, streams, leases, depth, ttl, attach, .. } = self;
        let (endpoint, pid) = self.one_member()?;
        self.at_least_one_a_stream(leases, "leases")?;
        Ok(lease::Plan { endpoint, connections, streams, leases, depth, ttl, attach, pid })
    }

    /// Of a work that asks one.
    fn one_member(&self) -> Result<(String, Option<u32>), String> {
        match (&self.endpoints[..], &self.pids[..]) {
            ([endpoint], [] | [_]) => Ok((endpoint.clone(), self.pids.first().copied())),
            _ => Err("this work asks one endpoint, of one process".into()),
        }
    }

    fn at_least_one_a_stream(&self, many: usize, what: &str) -> Result<(), String> {
        match self.connections * self.streams {
            streams if streams > many => Err(format!("{many} {what} for {streams} streams")),
            _ => Ok(()),
        }
    }
}

fn run(mut flags: Flags) -> Result<(), String> {
    let name = flags.command().unwrap_or_default();
    if name == "disk" {
        return disk::command(flags, &mut io::stdout().lock());
    }
    if name == "compare" {
        return compare::command(flags, &mut io::stdout().lock());
    }
    if !WORKS.contains(&name.as_str()) {
        return Err(format!("unknown work {name:?}\n\n{USAGE}"));
    }
    let flags = Options::take(flags).map_err(|wrong| format!("{wrong}\n\n{USAGE}"))?;
    match name.as_str() {
        "put" => calls(&name, &flags, Call::Put, Order::Random),
        "range" => {
            calls(&name, &flags, Call::Range { serializable: flags.serializable }, Order::Random)
        }
        "fill" => calls(&name, &flags, Call::Put, Order::Sequential),
        "watch" => {
            let report = fanout::run(&flags.fanout()?).map_err(|failure| failure.to_string())?;
            told(&report, &report.json(), report.failed())
        }
        "keepalive" => {
            let report = lease::run(&flags.lease()?, flags.time);
            let report = report.map_err(|failure| failure.to_string())?;
            told(&report, &report.json(&name), report.errors().values().sum())
        }
        "expire" => {
            let (plan, puts) = (flags.lease()?, flags.puts()?);
            let report = expiry::run(&plan, &puts, flags.time, flags.gone_max);
            let report = report.map_err(|failure| failure.to_string())?;
            told(&report, &report.json(), report.failed())
        }
        "check" => check(&flags),
        "judge" => judge(&flags),
        other => unreachable!("{other} is no work"),
    }
}

fn check(flags: &Options) -> Result<(), String> {
    let recorder = Recorder::create(&flags.history);
    let recorder = recorder.map_err(|error| format!("{}: {error}", flags.history.display()))?;
    let plan = mix::Plan {
        endpoints: flags.endpoints.clone(),
        workers: 8,
        keepers: 3,
        watchers: 3,
        rate: 100,
        seed: flags.seed,
    };
    let clients = mix::start(plan, Arc::new(recorder));
    std::thread::sleep(flags.time);
    clients.finish().map_err(|error| error.to_string())?;
    judge(flags)
}

fn judge(flags: &Options) -> Result<(), String> {
    let named = |error| format!("{}: {error}", flags.history.display());
    let records = history::read(&flags.history).map_err(named)?;
    let summary = check::judge(&records).map_err(|broken| broken.to_string())?;
    println!("{summary}");
    Ok(())
}

fn calls(name: &str, flags: &Options, call: Call, order: Order) -> Result<(), String> {
    let until = match (order, flags.ops) {
        (Order::Sequential, _) => Until::Calls(flags.keys),
        (Order::Random, Some(ops)) => Until::Calls(ops),
        (Order::Random, None) => Until::Elapsed(flags.time),
    };
    let work = Work::new(call, order, flags.keys, flags.value_bytes);
    let report = engine::run(&flags.calls(until), work).map_err(|failure| failure.to_string())?;
    told(&report, &report.json(name), report.errors().values().sum())
}

fn told(table: &impl Display, json: &Value, failed: u64) -> Result<(), String> {
    print!("{table}");
    println!("{json}");
    match failed {
        0 => Ok(()),
        failed => Err(format!("{failed} calls failed")),
    }
}
