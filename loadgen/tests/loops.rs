//! The open and the closed loop against servers whose delays are known: what they say is what the
//! delays dictate. Bounds are those that no slow machine can break.
#![allow(clippy::disallowed_methods, reason = "delays are what is measured")]

mod synthetic;

use std::{thread, time::Duration};

use loadgen::{
    arrivals::{Arrivals, Schedule},
    beside::Beside,
    engine::{self, Pace, Plan, Until},
    report::Report,
    work::{Call, Order, Work},
};
use synthetic::{Delay, Server};

const MS: Duration = Duration::from_millis(1);

fn plan(servers: &[&Server], connections: usize, streams: usize, until: Until) -> Plan {
    let endpoints = servers.iter().map(|server| server.endpoint.clone()).collect();
    Plan { endpoints, connections, streams, until, pids: Vec::new() }
}

fn puts() -> Work {
    Work::new(Call::Put, Order::Random, 100, 16)
}

fn open(plan: &Plan, rate: f64) -> Report {
    let schedule = Some(Schedule::new(Arrivals::Even, rate));
    let pace = Pace { schedule, warm_up: Duration::ZERO };
    engine::run_at(plan, &pace, &mut puts(), &mut Beside::default()).expect("a report")
}

#[test]
fn a_closed_loop_waits_for_each_answer() {
    let server = Server::start(Delay::of(20 * MS));
    let report = engine::run(&plan(&[&server], 1, 2, Until::Calls(20)), puts()).expect("a report");
    assert_eq!((report.done(), report.errors().len()), (20, 0));
    assert!(report.micros_at(0.0) >= 19_900.0, "{report}");
    assert!(report.rate() <= 100.1, "two at a time, 50 a second each: {report}");
    assert!(report.lateness().is_none());
}

#[test]
fn an_open_loop_counts_from_when_a_call_was_due() {
    let server = Server::start(Delay::of(20 * MS));
    // Of 100 a second one stream can make 50, if nothing holds it up.
    let report = open(&plan(&[&server], 1, 1, Until::Elapsed(Duration::from_secs(1))), 100.0);
    let late = report.lateness().expect("an open loop");
    assert_eq!(late.begun + late.unsent, 100, "{report}");
    assert_eq!(report.done(), late.begun, "what was begun in time counts");
    assert!((10..=50).contains(&late.begun), "{report}");
    assert_eq!(late.late, late.begun - 1, "all but the first had to wait: {report}");
    // The n-th was due at 10n ms and could begin at 20n ms.
    assert!(late.late_max >= (late.begun as u32 - 1) * 10 * MS, "{report}");
    assert!(late.late_mean() >= (late.begun as u32 / 2 - 1) * 10 * MS, "{report}");
    assert!(report.micros_at(1.0) >= late.late_max.as_secs_f64() * 1e6 * 0.99, "{report}");
    let service = report.service_micros_at(0.01).expect("an open loop");
    assert!((19_900.0..report.micros_at(1.0)).contains(&service), "{report}");
}

#[test]
fn with_streams_enough_nothing_is_late() {
    let server = Server::start(Delay::of(20 * MS));
    let report = open(&plan(&[&server], 2, 200, Until::Calls(100)), 200.0);
    let late = report.lateness().expect("an open loop");
    assert_eq!((late.begun, late.late, late.unsent), (100, 0, 0), "{report}");
    assert!(report.micros_at(0.0) >= 19_900.0, "{report}");
}

#[test]
fn a_stall_of_a_second_shows_in_an_open_loop_and_hides_in_a_closed_one() {
    let delay = Delay { each: MS, stall_at: 300 * MS, stall: 1000 * MS };
    let server = Server::start(delay);
    let time = Until::Elapsed(Duration::from_secs(2));
    let report = open(&plan(&[&server], 1, 400, time), 200.0);
    assert_eq!(report.done(), 400, "{report}");
    // Twenty of the 400 were due in the first tenth of a second of the stall.
    assert!(report.micros_at(0.96) >= 850_000.0, "{report}");
    assert!(report.micros_at(0.80) >= 500_000.0, "{report}");

    let server = Server::start(delay);
    let few = open(&plan(&[&server], 1, 4, time), 200.0);
    let late = few.lateness().expect("an open loop");
    assert!(late.late >= 150 && late.late_max >= 850 * MS, "{few}");
    assert!(few.micros_at(0.96) >= 850_000.0, "who had to wait for a stream waited too: {few}");

    let server = Server::start(delay);
    let closed = engine::run(&plan(&[&server], 1, 1, Until::Calls(400)), puts()).expect("a report");
    assert!(closed.micros_at(1.0) >= 900_000.0, "one call met it: {closed}");
    assert!(closed.micros_at(0.99) < 500_000.0, "{closed}");
}

#[test]
fn what_is_due_in_the_warm_up_is_made_and_not_counted() {
    // Calls of the warm-up meet the stall.
    let delay = Delay { each: MS, stall_at: Duration::ZERO, stall: 300 * MS };
    let server = Server::start(delay);
    let schedule = Some(Schedule::new(Arrivals::Even, 100.0));
    let pace = Pace { schedule, warm_up: 400 * MS };
    let plan = plan(&[&server], 1, 100, Until::Calls(50));
    let report = engine::run_at(&plan, &pace, &mut puts(), &mut Beside::default()).expect("one");
    assert_eq!((report.done(), report.lateness().expect("open").begun), (50, 50));
    assert!(report.micros_at(0.5) < 200_000.0, "{report}");
}

#[test]
fn a_lost_connection_costs_what_was_open_on_it_and_is_made_again() {
    let server = Server::start(Delay::of(5 * MS));
    let plan = plan(&[&server], 2, 4, Until::Elapsed(1500 * MS));
    let report = thread::scope(|scope| {
        let run = scope.spawn(|| engine::run(&plan, puts()));
        thread::sleep(300 * MS);
        server.hang_up();
        run.join().expect("no panic").expect("a report")
    });
    assert_eq!(report.cut_short(), None);
    let lost: u64 = report.errors().values().sum();
    assert!((1..=8).contains(&lost), "{report}");
    assert!(report.errors().keys().all(|error| error.contains("connection lost")), "{report}");
    assert!(report.done() > 0);
}

#[test]
fn one_of_two_endpoints_may_die() {
    let (dies, lives) = (Server::start(Delay::of(5 * MS)), Server::start(Delay::of(5 * MS)));
    let plan = plan(&[&dies, &lives], 2, 4, Until::Calls(800));
    let report = thread::scope(|scope| {
        let run = scope.spawn(|| engine::run(&plan, puts()));
        thread::sleep(100 * MS);
        dies.die();
        run.join().expect("no panic").expect("a report")
    });
    let lost: u64 = report.errors().values().sum();
    assert!((1..=4).contains(&lost), "{report}");
    assert_eq!((report.done() + lost, report.cut_short()), (800, None));
}

#[test]
fn a_run_without_any_endpoint_ends_and_says_why() {
    let server = Server::start(Delay::of(5 * MS));
    let plan = plan(&[&server], 1, 1, Until::Elapsed(Duration::from_secs(60)));
    let report = thread::scope(|scope| {
        let run = scope.spawn(|| engine::run(&plan, puts()));
        thread::sleep(200 * MS);
        server.die();
        run.join().expect("no panic").expect("a report")
    });
    let why = report.cut_short().expect("it was");
    assert!(why.contains("no endpoint could be reached for 10 s"), "{why}");
    assert!(why.contains(&server.endpoint), "{why}");
    assert!(report.done() > 0);
}
