//! `differential`: the same seeded calls to two servers; fails with the fewest calls that show how
//! they differ.
#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use differential::{
    call::Call,
    generate::{Calls, Extras},
    run::{Difference, run},
    shrink::shrink,
};
use e2e::server::{Folder, Server, Setup};

const USAGE: &str = "\
usage: differential --a-bin PROGRAM --b-bin PROGRAM [--a-flag FLAG]... [--b-flag FLAG]...
       differential --a HOST:PORT --b HOST:PORT
  [--seed 1] [--ops 100000]     what is asked
  [--also hash-kv]              and the hash of all keys
  [--also mistyped]             and messages whose fields have other wire types than they should
  [--also watches] [--also leases] [--also locks]   and these; locks mean little without leases
  [--shrink-seconds 300]        how long the fewest calls are looked for, where programs were named
Endpoints must be fresh servers, told the same advertised URLs.";

#[derive(Debug)]
struct Arguments {
    endpoints: [Option<String>; 2],
    programs: [Option<PathBuf>; 2],
    flags: [Vec<OsString>; 2],
    seed: u64,
    extras: Extras,
    ops: usize,
    shrink: Duration,
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut found = Arguments {
        endpoints: [None, None],
        programs: [None, None],
        flags: [vec![], vec![]],
        seed: 1,
        extras: Extras::default(),
        ops: 100_000,
        shrink: Duration::from_secs(300),
    };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word}: {value} is no number"));
        match word.as_str() {
            "--a" => found.endpoints[0] = Some(value),
            "--b" => found.endpoints[1] = Some(value),
            "--a-bin" => found.programs[0] = Some(value.into()),
            "--b-bin" => found.programs[1] = Some(value.into()),
            "--a-flag" => found.flags[0].push(value.into()),
            "--b-flag" => found.flags[1].push(value.into()),
            "--also" if value == "hash-kv" => found.extras.hash_kv = true,
            "--also" if value == "mistyped" => found.extras.mistyped = true,
            "--also" if value == "watches" => found.extras.watches = true,
            "--also" if value == "leases" => found.extras.leases = true,
            "--also" if value == "locks" => found.extras.locks = true,
            "--seed" => found.seed = number()?,
            "--ops" => found.ops = number()? as usize,
            "--shrink-seconds" => found.shrink = Duration::from_secs(number()?),
            other => return Err(format!("{other} {value}: no such flag")),
        }
    }
    Ok(found)
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("differential: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let calls: Vec<Call> =
        Calls::new(arguments.seed, arguments.extras).take(arguments.ops).collect();
    let same = match (&arguments.programs, &arguments.endpoints) {
        ([Some(a), Some(b)], [None, None]) => programs(&arguments, [a, b], calls),
        ([None, None], [Some(a), Some(b)]) => endpoints([a, b], &calls),
        _ => {
            eprintln!("differential: two programs, or two endpoints\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    println!("seed {}: {}", arguments.seed, if same { "no difference" } else { "they differ" });
    if same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn endpoints(endpoints: [&str; 2], calls: &[Call]) -> bool {
    match run(endpoints, calls, true) {
        Ok(_) => true,
        Err(difference) => {
            println!("after {} calls:\n{difference}", difference.at);
            false
        }
    }
}

fn programs(arguments: &Arguments, programs: [&Path; 2], mut calls: Vec<Call>) -> bool {
    let Err(difference) = fresh(arguments, programs, &calls, true) else { return true };
    println!("call {} is answered differently:\n{difference}", difference.at + 1);
    calls.truncate(difference.at + 1);
    eprintln!("looking for the fewest calls that show it");
    let shrunk = shrink(calls, difference, arguments.shrink, |calls| {
        fresh(arguments, programs, calls, false).err()
    });
    println!("\n{} calls show it ({} replays):", shrunk.calls.len(), shrunk.replays);
    let (_, before) = shrunk.calls.split_last().expect("a difference has a call");
    before.iter().for_each(|call| println!("{call}"));
    println!("{}", shrunk.difference);
    false
}

/// The calls, on two servers that know nothing yet.
fn fresh(
    arguments: &Arguments,
    programs: [&Path; 2],
    calls: &[Call],
    talk: bool,
) -> Result<(), Box<Difference>> {
    let folder = Folder::new("differential");
    let [a, b] = [0, 1]
        .map(|side| {
            let own = folder.path().join(["a", "b"][side]);
            fs::create_dir(&own).expect("the folder is ours");
            let setup = Setup::new(programs[side], &own).flags(arguments.flags[side].clone());
            setup.spawn()
        })
        .map(ready);
    run([&a.endpoint(), &b.endpoint()], calls, talk).map(|_| ())
}

fn ready(mut server: Server) -> Server {
    if let Err(ended) = server.wait_ready() {
        eprintln!("a server ended with {:?}:\n{}", ended.status, ended.log);
        std::process::exit(1);
    }
    server
}
