//! `loadgen WORK`: asks an etcd-compatible server, and prints a table and a line of JSON.
//! [docs/loadgen.md](../../docs/loadgen.md) says what each work does and what the figures mean.
#![allow(clippy::disallowed_methods, reason = "it measures real servers in real time")]

mod calls;

use std::{
    fmt::Display,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use loadgen::{
    check, compare, disk, expiry, fanout,
    flags::Flags,
    history::{self, Recorder},
    interrupt, lease, mix, sensitivity,
    writers::Puts,
};
use proto::etcdserverpb::{RangeRequest, RangeResponse, kv};
use serde_json::json;

use crate::calls::{Servers, by_any, told, warm_up};

const USAGE: &str = "\
loadgen WORK [--flag value ...]      docs/loadgen.md says more

  put        puts keys
  range      reads single keys
  delete     deletes single keys
  cas        puts keys if they are as they were last known: a transaction, again until it wins
  list       reads all keys that begin alike
  count      counts all keys that begin alike
  fill       puts every key once
  kubernetes node leases, pods that come and go, lists, gets and watches, as of N nodes
  replay FILE  the operations of a file, at their times
  watch      watchers of one prefix, and puts under it: events, their latency, memory
  keepalive  leases kept alive
  expire     leases all renewed and then all let go, beside puts
  check      a bit of everything on a new cluster, written down and judged
  judge      what an earlier check wrote down

  disk DIR [--seconds 3]   whether a folder's disk is good enough, and for which settings
  compare A B [--rounds 3] [--pid-a N] [--pid-b N] -- WORK [--flag value ...]
                           two servers in turn, and the ratios of each pair
  sensitivity [--quick] [--etcd PATH]
                           what slower syncs, longer lines and other timeouts do: clusters of its own

  all works that ask a server:
  --endpoint host:port   127.0.0.1:2379; several for calls and check: a,b,c
  --pid N                the server's process, to read its CPU time and memory; several: a,b,c
  --data-dir DIR         the server's, to say what disk it is on; without: asked of --pid
  --seconds N            5; not for fill and replay. watch: each phase; expire: puts before the
                         storm

  all these but check:
  --connections N        1; not those of writers or stalled watchers
  --streams N            calls, or watch or keep-alive streams, on each connection: 1;
                         of an open loop 100
  --warm-up SECONDS      0: made and not counted
  --hdr-log FILE         latencies of each second, for HdrHistogram's tools: of the operations;
                         watch: of the events; expire: of the puts

  put, range, delete, cas, list, count, fill, kubernetes, replay:
  --record FILE          the operations, for a replay
  --quiet                no progress on the terminal

  put, range, delete, cas, list, count, fill; --rate and --arrivals of kubernetes too:
  --keys N               100000
  --order ORDER          uniform, zipf, zipf:SKEW or sequential
  --value-size SIZE      256; 100-2000: by lot; 90%:256,10%:16384: by weight.
                         Of a range: that the values have at least
  --ops N                instead of --seconds
  --rate N               an open loop: so many are due a second, whatever the server does
  --arrivals even        or poisson: how they are due
  --serializable         range: ask one member, not a quorum
  --digits N             3: list, count: the keys that differ in their last N digits, at most 10^N
  --limit N              0: list: keys in a page; 0: all in one

  --nodes N              1000: kubernetes
  --pods N               10 for each node: there to begin with
  --watchers N           2: of pods, and as many of leases
  --speed N              1: replay: so many times as fast

  watch, expire:
  --keys N               100000
  --value-size BYTES     256
  --writers N            1: puts open at a time
  --rate N               puts a second; without: as fast as they are answered

  --watchers N           1000: watch
  --prev-kv              watch: events carry the value before
  --stalled N            0: watch: a second phase, with so many that stop reading

  --leases N             1000: keepalive, expire
  --ttl SECONDS          60
  --depth N              1: keep-alives on their way on a stream
  --attach               a key for each lease
  --gone-max SECONDS     60: expire: how long to wait until they are gone

  --history FILE         check, judge: where it is written down
  --seed N               1: check";

/// How often is looked whether somebody wants an end.
const LOOK: Duration = Duration::from_millis(100);
const CALLS: [&str; 7] = ["put", "range", "delete", "cas", "list", "count", "fill"];

fn main() -> ExitCode {
    let line: Vec<String> = std::env::args().skip(1).collect();
    match run(Flags::new(line.iter().cloned()), &line.join(" ")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell where this fails too.
            writeln!(std::io::stderr(), "loadgen: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(mut flags: Flags, line: &str) -> Result<(), String> {
    let name = flags.command().unwrap_or_default();
    if flags.switch("--help") {
        return print(&format_args!("{USAGE}\n"));
    }
    match name.as_str() {
        "watch" => watch(flags, line),
        "keepalive" => keepalive(flags, line),
        "expire" => expire(flags, line),
        "check" => checked(flags, line),
        "kubernetes" => calls::kubernetes(flags, line),
        "replay" => calls::replay(flags, line),
        "judge" => {
            let history = history_file(&mut flags)?;
            flags.finish().and_then(|()| judge(&history))
        }
        "disk" => disk::command(flags, line, &mut std::io::stdout().lock()),
        "compare" => compare::command(flags, line, &mut std::io::stdout().lock()),
        "sensitivity" => sensitivity::command(flags, line, &mut std::io::stdout().lock()),
        call if CALLS.contains(&call) => calls::run(call, flags, line),
        "help" => print(&format_args!("{USAGE}\n")),
        _ => Err(format!("unknown work {name:?}\n\n{USAGE}")),
    }
}

fn puts(flags: &mut Flags) -> Result<Puts, String> {
    Ok(Puts {
        writers: flags.number("--writers", 1, 1)?,
        rate: flags.at_least("--rate", 1)?,
        keys: flags.number("--keys", 100_000, 1)?,
        // A value tells when it was put.
        value_bytes: flags.number("--value-size", 256, 8)?,
    })
}

/// Of a work that asks one.
fn one_member(servers: &Servers) -> Result<(String, Option<u32>), String> {
    match (&servers.endpoints[..], &servers.pids[..]) {
        ([endpoint], [] | [_]) => Ok((endpoint.clone(), servers.pids.first().copied())),
        _ => Err("this work asks one endpoint, of one process".into()),
    }
}

fn at_least_one_a_stream(streams: usize, many: usize, what: &str) -> Result<(), String> {
    match streams > many {
        true => Err(format!("{many} {what} for {streams} streams")),
        false => Ok(()),
    }
}

fn watch(mut flags: Flags, line: &str) -> Result<(), String> {
    let servers = Servers::take(&mut flags, line)?;
    let (endpoint, pid) = one_member(&servers)?;
    let plan = fanout::Plan {
        endpoint,
        connections: flags.number("--connections", 1, 1)?,
        streams: flags.number("--streams", 1, 1)?,
        watchers: flags.number("--watchers", 1_000, 1)?,
        prev_kv: flags.switch("--prev-kv"),
        stalled: flags.number("--stalled", 0, 0)?,
        puts: puts(&mut flags)?,
        warm_up: warm_up(&mut flags)?,
        time: flags.seconds("--seconds", 5)?,
        pid,
    };
    let log = log_name(&mut flags)?;
    flags.finish()?;
    at_least_one_a_stream(plan.connections * plan.streams, plan.watchers, "watchers")?;
    let (log, scene) = (servers.log(log.as_deref())?, servers.scene());
    listen()?;
    let report = fanout::run(&plan, log).map_err(|failure| failure.to_string())?;
    told(&scene, &report, report.json(), report.failed())?;
    interrupted()
}

fn lease_plan(flags: &mut Flags, servers: &Servers) -> Result<lease::Plan, String> {
    let (endpoint, pid) = one_member(servers)?;
    let plan = lease::Plan {
        endpoint,
        connections: flags.number("--connections", 1, 1)?,
        streams: flags.number("--streams", 1, 1)?,
        leases: flags.number("--leases", 1_000, 1)?,
        depth: flags.number("--depth", 1, 1)?,
        ttl: flags.number("--ttl", 60, 1)?,
        attach: flags.switch("--attach"),
        warm_up: warm_up(flags)?,
        pid,
    };
    at_least_one_a_stream(plan.connections * plan.streams, plan.leases, "leases")?;
    Ok(plan)
}

fn keepalive(mut flags: Flags, line: &str) -> Result<(), String> {
    let servers = Servers::take(&mut flags, line)?;
    let (plan, time) = (lease_plan(&mut flags, &servers)?, flags.seconds("--seconds", 5)?);
    let log = log_name(&mut flags)?;
    flags.finish()?;
    let (log, scene) = (servers.log(log.as_deref())?, servers.scene());
    listen()?;
    let report = lease::run(&plan, time, log).map_err(|failure| failure.to_string())?;
    told(&scene, &report, report.json("keepalive"), report.errors().values().sum())?;
    interrupted()
}

fn expire(mut flags: Flags, line: &str) -> Result<(), String> {
    let servers = Servers::take(&mut flags, line)?;
    let (plan, puts) = (lease_plan(&mut flags, &servers)?, puts(&mut flags)?);
    let time = flags.seconds("--seconds", 5)?;
    let gone_max = Duration::from_secs(flags.number("--gone-max", 60, 0)?);
    let log = log_name(&mut flags)?;
    flags.finish()?;
    let (log, scene) = (servers.log(log.as_deref())?, servers.scene());
    listen()?;
    let report = expiry::run(&plan, &puts, time, gone_max, log);
    let report = report.map_err(|failure| failure.to_string())?;
    told(&scene, &report, report.json(), report.failed())?;
    interrupted()?;
    match report.left() {
        0 => Ok(()),
        left => Err(format!("{left} leases were not gone after {} s", gone_max.as_secs())),
    }
}

/// Where the latencies of a work that is no calls are to be logged.
fn log_name(flags: &mut Flags) -> Result<Option<String>, String> {
    flags.refuse(&["--record"], "a recording holds calls, and these are streams")?;
    flags.text("--hdr-log")
}

fn listen() -> Result<(), String> {
    interrupt::listen().map_err(|error| error.to_string())
}

fn interrupted() -> Result<(), String> {
    match interrupt::asked() {
        true => Err("the run was cut short: interrupted".into()),
        false => Ok(()),
    }
}

fn history_file(flags: &mut Flags) -> Result<PathBuf, String> {
    flags.value("--history")?.ok_or_else(|| "--history FILE: where is it written down?".into())
}

fn checked(mut flags: Flags, line: &str) -> Result<(), String> {
    let measuring = ["--warm-up", "--hdr-log", "--record", "--rate"];
    flags.refuse(&measuring, "a check judges answers, and measures nothing")?;
    let servers = Servers::take(&mut flags, line)?;
    let history = history_file(&mut flags)?;
    let (seed, time) = (flags.number("--seed", 1, 0)?, flags.seconds("--seconds", 5)?);
    flags.finish()?;
    wants_nothing_written(&servers.endpoints)?;
    let recorder = Recorder::create(&history);
    let recorder = recorder.map_err(|error| format!("{}: {error}", history.display()))?;
    let scene = servers.scene();
    listen()?;
    let endpoints = servers.endpoints;
    let plan = mix::Plan { endpoints, workers: 8, keepers: 3, watchers: 3, rate: 100, seed };
    let recorder = Arc::new(recorder);
    let clients = mix::start(plan, Arc::clone(&recorder));
    let begin = Instant::now();
    while begin.elapsed() < time && !interrupt::asked() && !recorder.failed() {
        std::thread::sleep(LOOK.min(time));
    }
    clients.finish().map_err(|error| error.to_string())?;
    let summary = judged(&history)?;
    let json = json!({ "work": "check", "seed": seed, "possible": summary });
    told(&scene, &format_args!("{summary}\n"), json, 0)?;
    interrupted()
}

/// What others wrote, nobody could be asked about.
fn wants_nothing_written(endpoints: &[String]) -> Result<(), String> {
    let key = Bytes::from_static(b"\0");
    let all = RangeRequest { range_end: key.clone(), key, count_only: true, ..Default::default() };
    let found: RangeResponse = by_any(endpoints, kv::RANGE, &all)?;
    match found.header.unwrap_or_default().revision {
        ..=1 => Ok(()),
        revision => Err(format!(
            "a check begins where nothing was ever written, and this cluster is at revision {revision}"
        )),
    }
}

fn judge(history: &Path) -> Result<(), String> {
    print(&format_args!("{}\n", judged(history)?))
}

/// What a history has that was possible.
fn judged(history: &Path) -> Result<String, String> {
    let named = |error| format!("{}: {error}", history.display());
    let records = history::read(history).map_err(named)?;
    let summary = check::judge(&records).map_err(|broken| broken.to_string())?;
    Ok(summary.to_string())
}

fn print(text: &impl Display) -> Result<(), String> {
    let written = write!(std::io::stdout(), "{text}");
    written.map_err(|error| format!("standard output: {error}"))
}
