//! `loadgen put|range|fill`: asks an etcd-compatible server as fast as it answers, and prints a
//! table and a line of JSON.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::{fmt::Display, process::ExitCode, str::FromStr, time::Duration};

use loadgen::{
    engine::{self, Plan, Until},
    work::{Call, Order, Work},
};

const USAGE: &str = "\
loadgen put|range|fill [--flag value ...]

  put     puts keys chosen by lot
  range   reads single keys chosen by lot
  fill    puts every key once

  --endpoint host:port   127.0.0.1:2379
  --connections N        1
  --streams N            1: calls open at a time on each connection
  --keys N               100000
  --value-size BYTES     256; of a range: that the values have at least
  --seconds N            5; not for fill
  --ops N                instead of --seconds
  --serializable         range: ask one member, not a quorum
  --pid N                the server's process, to read its CPU time";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Result<(), String> {
    let name = args.next().unwrap_or_default();
    let mut plan = Plan {
        endpoint: "127.0.0.1:2379".into(),
        connections: 1,
        streams: 1,
        until: Until::Elapsed(Duration::from_secs(5)),
        pid: None,
    };
    let (mut keys, mut value_bytes, mut serializable) = (100_000u64, 256usize, false);
    while let Some(flag) = args.next() {
        let mut next = || args.next().ok_or(format!("{flag} wants a value"));
        match flag.as_str() {
            "--endpoint" => plan.endpoint = next()?,
            "--connections" => plan.connections = number(&flag, &next()?, 1)?,
            "--streams" => plan.streams = number(&flag, &next()?, 1)?,
            "--keys" => keys = number(&flag, &next()?, 1)?,
            "--value-size" => value_bytes = number(&flag, &next()?, 0)?,
            "--seconds" => {
                plan.until = Until::Elapsed(Duration::from_secs(number(&flag, &next()?, 1)?));
            }
            "--ops" => plan.until = Until::Calls(number(&flag, &next()?, 1)?),
            "--serializable" => serializable = true,
            "--pid" => plan.pid = Some(number(&flag, &next()?, 1)?),
            _ => return Err(format!("unknown flag {flag}\n\n{USAGE}")),
        }
    }
    let (call, order) = match name.as_str() {
        "put" => (Call::Put, Order::Random),
        "range" => (Call::Range { serializable }, Order::Random),
        "fill" => (Call::Put, Order::Sequential),
        _ => return Err(format!("unknown work {name:?}\n\n{USAGE}")),
    };
    if order == Order::Sequential {
        plan.until = Until::Calls(keys);
    }
    let work = Work::new(call, order, keys, value_bytes);
    let report = engine::run(&plan, work).map_err(|failure| failure.to_string())?;
    print!("{report}");
    println!("{}", report.json(&name));
    match report.errors().values().sum() {
        0u64 => Ok(()),
        failed => Err(format!("{failed} calls failed")),
    }
}

fn number<N>(flag: &str, text: &str, min: N) -> Result<N, String>
where
    N: FromStr<Err: Display> + PartialOrd + Display,
{
    let number = text.parse::<N>().map_err(|error| format!("{flag} {text}: {error}"))?;
    if number < min { Err(format!("{flag} {text}: at least {min}")) } else { Ok(number) }
}
