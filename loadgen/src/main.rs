//! `loadgen WORK`: asks an etcd-compatible server as fast as it answers, and prints a table and a
//! line of JSON.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    fmt::{Debug, Display},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use loadgen::{
    check,
    engine::{self, Plan, Until},
    expiry, fanout,
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

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the flags say, of all works.
struct Flags {
    endpoints: Vec<String>,
    connections: usize,
    streams: usize,
    keys: u64,
    value_bytes: usize,
    seconds: u64,
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
    gone_max: u64,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".into()],
            connections: 1,
            streams: 1,
            keys: 100_000,
            value_bytes: 256,
            seconds: 5,
            ops: None,
            serializable: false,
            pids: Vec::new(),
            history: PathBuf::new(),
            seed: 1,
            watchers: 1_000,
            prev_kv: false,
            stalled: 0,
            writers: 1,
            rate: None,
            leases: 1_000,
            ttl: 60,
            depth: 1,
            attach: false,
            gone_max: 60,
        }
    }
}

impl Flags {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut flags = Self::default();
        while let Some(flag) = args.next() {
            let mut next = || args.next().ok_or(format!("{flag} wants a value"));
            match flag.as_str() {
                "--endpoint" => flags.endpoints = next()?.split(',').map(str::to_owned).collect(),
                "--connections" => flags.connections = number(&flag, &next()?, 1)?,
                "--streams" => flags.streams = number(&flag, &next()?, 1)?,
                "--keys" => flags.keys = number(&flag, &next()?, 1)?,
                "--value-size" => flags.value_bytes = number(&flag, &next()?, 0)?,
                "--seconds" => flags.seconds = number(&flag, &next()?, 1)?,
                "--ops" => flags.ops = Some(number(&flag, &next()?, 1)?),
                "--serializable" => flags.serializable = true,
                "--pid" => {
                    let pids = next()?;
                    flags.pids = pids
                        .split(',')
                        .map(|pid| number(&flag, pid, 1))
                        .collect::<Result<_, _>>()?;
                }
                "--history" => flags.history = next()?.into(),
                "--seed" => flags.seed = number(&flag, &next()?, 0)?,
                "--watchers" => flags.watchers = number(&flag, &next()?, 1)?,
                "--prev-kv" => flags.prev_kv = true,
                "--stalled" => flags.stalled = number(&flag, &next()?, 0)?,
                "--writers" => flags.writers = number(&flag, &next()?, 1)?,
                "--rate" => flags.rate = Some(number(&flag, &next()?, 1)?),
                "--leases" => flags.leases = number(&flag, &next()?, 1)?,
                "--ttl" => flags.ttl = number(&flag, &next()?, 1)?,
                "--depth" => flags.depth = number(&flag, &next()?, 1)?,
                "--attach" => flags.attach = true,
                "--gone-max" => flags.gone_max = number(&flag, &next()?, 0)?,
                _ => return Err(format!("unknown flag {flag}\n\n{USAGE}")),
            }
        }
        Ok(flags)
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
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
            time: self.time(),
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

fn run(mut args: impl Iterator<Item = String>) -> Result<(), String> {
    let name = args.next().unwrap_or_default();
    let flags = Flags::parse(args)?;
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
            let report = lease::run(&flags.lease()?, flags.time());
            let report = report.map_err(|failure| failure.to_string())?;
            told(&report, &report.json(&name), report.errors().values().sum())
        }
        "expire" => {
            let (plan, puts) = (flags.lease()?, flags.puts()?);
            let gone_max = Duration::from_secs(flags.gone_max);
            let report = expiry::run(&plan, &puts, flags.time(), gone_max);
            let report = report.map_err(|failure| failure.to_string())?;
            told(&report, &report.json(), report.failed())
        }
        "check" => check(&flags),
        "judge" => judge(&flags),
        _ => Err(format!("unknown work {name:?}\n\n{USAGE}")),
    }
}

fn check(flags: &Flags) -> Result<(), String> {
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
    std::thread::sleep(flags.time());
    clients.finish().map_err(|error| error.to_string())?;
    judge(flags)
}

fn judge(flags: &Flags) -> Result<(), String> {
    let named = |error| format!("{}: {error}", flags.history.display());
    let records = history::read(&flags.history).map_err(named)?;
    let summary = check::judge(&records).map_err(|broken| broken.to_string())?;
    println!("{summary}");
    Ok(())
}

fn calls(name: &str, flags: &Flags, call: Call, order: Order) -> Result<(), String> {
    let until = match (order, flags.ops) {
        (Order::Sequential, _) => Until::Calls(flags.keys),
        (Order::Random, Some(ops)) => Until::Calls(ops),
        (Order::Random, None) => Until::Elapsed(flags.time()),
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

fn number<N>(flag: &str, text: &str, min: N) -> Result<N, String>
where
    N: FromStr<Err: Display> + PartialOrd + Display + Debug,
{
    let number = text.parse::<N>().map_err(|error| format!("{flag} {text}: {error}"))?;
    if number < min { Err(format!("{flag} {text}: at least {min}")) } else { Ok(number) }
}
