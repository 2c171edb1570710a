//! The program from outside: what it says and how it exits when something is wrong, and what every
//! output carries.
#![allow(clippy::disallowed_methods, reason = "a process takes real time")]

mod synthetic;

use std::{
    fs::File,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use synthetic::{Delay, Server};

const MS: Duration = Duration::from_millis(1);

fn loadgen(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(line.split_whitespace()).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn ran(line: &str) -> Output {
    loadgen(line).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it says where it fails.
fn refused(line: &str) -> String {
    let output = ran(line);
    assert_eq!(output.status.code(), Some(1), "{line}: {}", text(&output.stdout));
    text(&output.stderr)
}

fn json(output: &Output) -> serde_json::Value {
    let out = text(&output.stdout);
    let line = out.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {out:?}"))
}

#[test]
fn bad_flags_are_named() {
    for (line, said) in [
        ("", "unknown work \"\""),
        ("dance", "unknown work \"dance\""),
        ("put --speed 9", "unknown flag --speed"),
        ("put --keys", "--keys wants a value"),
        ("put --keys 0", "--keys 0: at least 1"),
        ("put --value-size 9-1", "--value-size 9-1: 9 is more than 1"),
        ("put --value-size 10%:1", "the parts sum to 10%"),
        ("put --order often", "--order often: one of uniform"),
        ("put --rate 0", "--rate 0: at least"),
        ("put --rate 10 --arrivals odd", "--arrivals odd: one of even"),
        ("put --arrivals poisson", "how calls come at a --rate"),
        ("list --digits 13", "--digits 13: at most 12"),
        ("watch --value-size 7", "--value-size 7: at least 8"),
        ("put --user root:pw", "--user: neither TLS nor users are built yet"),
        ("put --cacert=ca.pem", "--cacert: neither TLS nor users are built yet"),
        ("put --endpoint https://a:1", "TLS is not built yet"),
        ("put --endpoint localhost", "--endpoint localhost: host:port is wanted"),
        ("watch --endpoint http://[::1]/", "host:port is wanted"),
        ("fill --seconds 3", "--seconds: fill is over when every key is there"),
        ("put --ops 3 --seconds 3", "--seconds: --ops says already when it is over"),
        ("replay x --rate 3", "--rate: the file says when"),
        ("watch --record x", "--record: a recording holds calls"),
        ("check --history x --warm-up 1", "--warm-up: a check judges answers"),
        ("check --history x --hdr-log=x", "--hdr-log: a check judges answers"),
        ("judge", "--history FILE"),
        ("judge --history /nonexistent/file", "/nonexistent/file: "),
        ("replay /nonexistent/file", "/nonexistent/file: "),
        ("replay", "replay FILE"),
        ("kubernetes --nodes 0", "--nodes 0: at least 1"),
    ] {
        let error = refused(line);
        assert!(error.starts_with("loadgen: ") && error.contains(said), "{line}: {error}");
    }
}

#[test]
fn help_is_no_failure() {
    for line in ["help", "--help", "put --help"] {
        let output = ran(line);
        assert!(output.status.success() && text(&output.stdout).contains("--endpoint"), "{line}");
    }
}

#[test]
fn an_endpoint_that_is_not_there_is_named() {
    for work in ["put", "watch", "keepalive", "expire", "kubernetes", "check --history unused"] {
        let error = refused(&format!("{work} --endpoint 127.0.0.1:1"));
        assert!(error.contains("cannot reach 127.0.0.1:1: Connection refused"), "{work}: {error}");
    }
    let error = refused("put --endpoint nobody.invalid:2379");
    assert!(error.contains("cannot reach nobody.invalid:2379"), "{error}");
}

#[test]
fn every_output_carries_where_and_when_it_was_measured() {
    let server = Server::start(Delay::of(MS));
    let line = format!("put --endpoint {} --ops 20 --data-dir .", server.endpoint);
    let output = ran(&line);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let json = json(&output);
    assert_eq!((&json["ops"], &json["scene"]["flags"]), (&20.into(), &line.clone().into()));
    for known in ["host", "kernel", "cpu_model", "disk", "loadgen", "date"] {
        let value = json["scene"][known].as_str().unwrap_or_default();
        assert!(!value.is_empty(), "{known}: {json}");
    }
    for figure in ["p50_us", "p90_us", "p99_us", "p999_us", "p9999_us", "max_us"] {
        assert!(json[figure].as_f64().is_some_and(|micros| micros >= 900.0), "{figure}: {json}");
    }
    let table = text(&output.stdout);
    assert!(table.contains("p99.99 ms") && table.contains("CPU per operation"), "{table}");
    assert_eq!(text(&output.stderr), "", "no progress where there is no terminal");
}

#[test]
fn a_full_disk_for_an_output_is_said() {
    let server = Server::start(Delay::of(MS));
    let endpoint = &server.endpoint;
    for flag in ["--hdr-log", "--record"] {
        let error = refused(&format!("put --endpoint {endpoint} --ops 20 {flag} /dev/full"));
        assert!(error.contains("/dev/full: No space left on device"), "{flag}: {error}");
    }
    for work in ["watch", "keepalive", "expire"] {
        let error = refused(&format!("{work} --endpoint {endpoint} --hdr-log /dev/full"));
        assert!(error.contains("/dev/full: No space left on device"), "{work}: {error}");
    }
    let error = refused(&format!("check --endpoint {endpoint} --history /dev/full"));
    assert!(error.contains("/dev/full: No space left on device"), "{error}");
    let mut full = loadgen(&format!("put --endpoint {endpoint} --ops 20"));
    let full = full.stdout(File::create("/dev/full").expect("Linux has one"));
    let output = full.output().expect("it runs");
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("standard output: No space left on device"), "{error}");
}

#[test]
fn an_interrupted_run_prints_what_it_has() {
    let server = Server::start(Delay::of(MS));
    let line = format!("put --endpoint {} --seconds 60 --rate 100", server.endpoint);
    let run = loadgen(&line).spawn().expect("it runs");
    thread::sleep(1500 * MS);
    let kill = Command::new("kill").args(["-INT", &run.id().to_string()]).status();
    assert!(kill.expect("there is a kill").success());
    let output = run.wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the run was cut short: interrupted"));
    let json = json(&output);
    assert_eq!(json["cut_short"], "interrupted");
    assert!(json["ops"].as_u64().is_some_and(|ops| ops > 0), "{json}");
}

#[test]
fn a_dying_endpoint_is_said() {
    let server = Server::start(Delay::of(MS));
    let run = loadgen(&format!("put --endpoint {} --seconds 60", server.endpoint)).spawn();
    thread::sleep(500 * MS);
    server.die();
    let output = run.expect("it runs").wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(1));
    let json = json(&output);
    assert!(json["cut_short"].as_str().is_some_and(|why| why.contains("no endpoint")), "{json}");
    let errors = json["errors"].as_object().expect("a map");
    assert!(errors.keys().any(|error| error.contains("connection lost")), "{json}");
}

#[test]
fn an_endpoint_that_died_between_calls_is_said() {
    let server = Server::start(Delay::of(MS));
    let line = format!("put --endpoint {} --seconds 3 --rate 2", server.endpoint);
    let run = loadgen(&line).spawn().expect("it runs");
    // Calls are due each half second and answered at once.
    thread::sleep(1750 * MS);
    server.die();
    let output = run.wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(1));
    let json = json(&output);
    assert!(json["cut_short"].as_str().is_some_and(|why| why.contains("in the end")), "{json}");
}

#[test]
fn a_servers_process_that_ended_does_not_take_the_report_with_it() {
    let server = Server::start(Delay::of(MS));
    let mut process = Command::new("sleep").arg("60").spawn().expect("there is a sleep");
    let line = format!("put --endpoint {} --seconds 1 --pid {}", server.endpoint, process.id());
    let run = loadgen(&line).spawn().expect("it runs");
    thread::sleep(300 * MS);
    process.kill().expect("it is ours");
    process.wait().expect("it is ours");
    let output = run.wait_with_output().expect("it is ours");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(json(&output)["server_cpu_us_per_op"].is_null());
}

#[test]
fn what_was_recorded_can_be_replayed() {
    let server = Server::start(Delay::of(MS));
    let file = std::env::temp_dir().join(format!("loadgen-{}-cli.replay", std::process::id()));
    let (endpoint, file) = (&server.endpoint, file.to_str().expect("a name"));
    let put = format!("put --endpoint {endpoint} --ops 50 --rate 200 --record {file}");
    assert!(ran(&put).status.success());
    let output = ran(&format!("replay {file} --endpoint {endpoint} --speed 2"));
    std::fs::remove_file(file).expect("it was written");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let json = json(&output);
    assert_eq!((&json["kinds"]["put"]["ops"], &json["late"]["begun"]), (&50.into(), &50.into()));
}
