//! A server that says it is ready answers every connection, on every core, each time it starts.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{thread, time::Duration};

use e2e::{
    Dice, binary,
    ledger::{self, Ledger},
    server::{Folder, Setup},
};

const STARTS: usize = 60;
/// Enough that each serving core gets some.
const CONNECTIONS: usize = 8;

/// Segments that many short lives may leave: what makes a checkpoint due, those of the lives during
/// which it was written, and spares.
const SEGMENTS_MAX: usize = 16;

/// Found: one core in sixty starts slept through the first connection dealt to it, and for ever. And
/// each life began a segment that no checkpoint ever freed, so that every start took longer.
#[test]
fn every_core_wakes_for_its_first_connection() {
    let mut dice = Dice::new(binary::seed());
    let folder = Folder::new("start");
    let setup = Setup::new(&binary::ringleader(), folder.path());
    let mut ledger = Ledger::new("k", 10);
    for _ in 0..STARTS {
        let server = setup.start().expect("it starts");
        thread::sleep(Duration::from_micros(dice.below(20_000) as u64));
        for _ in 0..CONNECTIONS {
            let mut client = server.client();
            client.set_timeout(Duration::from_secs(10));
            ledger.put(&mut client, 20).expect("it says that it is ready");
            let all = ledger::all(&mut client).expect("it says that it is ready");
            ledger.check(&all).unwrap_or_else(|lost| panic!("{lost}"));
        }
        let segments = std::fs::read_dir(setup.data_folder().join("member/wal")).expect("the log");
        assert!(segments.count() <= SEGMENTS_MAX, "a start reads a bounded log");
    }
}

/// Asked while it waits for an election, a server makes its clients wait; it does not lose them.
#[test]
fn connections_made_while_it_starts_are_answered() {
    for _ in 0..5 {
        let folder = Folder::new("early");
        let mut server = Setup::new(&binary::ringleader(), folder.path()).spawn();
        let mut client = loop {
            match loadgen::client::Client::connect(&server.endpoint()) {
                Ok(client) => break client,
                Err(_) if server.ended().is_none() => thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}: {}", server.log()),
            }
        };
        ledger::all(&mut client).expect("it is answered in the end");
    }
}
