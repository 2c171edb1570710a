//! What was acknowledged outlives `kill -9` at any moment, and an orderly end.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    os::unix::process::ExitStatusExt,
    thread,
    time::{Duration, Instant},
};

use e2e::{
    Dice, binary,
    ledger::{self, Ledger},
    server::{Folder, Server, Setup},
};
use loadgen::client::Client;
use proto::etcdserverpb::{CompactionRequest, CompactionResponse, kv};

const WRITERS: usize = 6;
const KEYS_PER_WRITER: u64 = 20;
const VALUE_BYTES: [usize; 4] = [16, 300, 3_000, 20_000];
/// Kills in one run, unless `$E2E_KILLS` says otherwise.
const KILLS: usize = 60;
/// A run of so many is ended in order instead.
const ORDERLY_EVERY: usize = 10;
/// A kill comes within this time after the writers began.
const RUN_MAX: Duration = Duration::from_millis(150);

#[test]
fn acknowledged_writes_outlive_kills() {
    let kills = std::env::var("E2E_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let folder = Folder::new("crash");
    let setup = Setup::new(&binary::ringleader(), folder.path());
    let mut dice = Dice::new(binary::seed());
    let mut ledgers: Vec<_> =
        (0..WRITERS).map(|at| Ledger::new(&format!("w{at}"), KEYS_PER_WRITER)).collect();
    let mut revision = 0;
    let mut slowest_start = Duration::ZERO;
    for round in 1..=kills {
        let begin = Instant::now();
        let server = setup.start().expect("it starts over what a kill left");
        slowest_start = slowest_start.max(begin.elapsed());
        revision = check(&server, &ledgers, revision);
        let orderly = round % ORDERLY_EVERY == 0;
        ledgers = run(server, ledgers, &mut dice, orderly);
    }
    let server = setup.start().expect("it starts over what a kill left");
    revision = check(&server, &ledgers, revision);
    let acknowledged: u64 = ledgers.iter().map(|ledger| ledger.acknowledged).sum();
    assert!(acknowledged > kills as u64, "the writers hardly wrote");
    println!(
        "{kills} kills, {} of them orderly; {acknowledged} acknowledged puts, none lost; revision \
         {revision}; slowest start {slowest_start:?}",
        kills / ORDERLY_EVERY
    );
}

/// All that was acknowledged is there, and the revision did not go back.
fn check(server: &Server, ledgers: &[Ledger], before: i64) -> i64 {
    let all = ledger::all(&mut server.client()).expect("a fresh server answers");
    let revision = all.header.expect("an answer has a header").revision;
    let promised = ledgers.iter().map(Ledger::revision).max().unwrap_or(0).max(before);
    assert!(revision >= promised, "revision {revision} after {promised}");
    ledgers.iter().for_each(|ledger| ledger.check(&all).unwrap_or_else(|lost| panic!("{lost}")));
    revision
}

/// Writes until the server is gone, which is soon.
fn run(server: Server, ledgers: Vec<Ledger>, dice: &mut Dice, orderly: bool) -> Vec<Ledger> {
    let after = Duration::from_micros(dice.below(RUN_MAX.as_micros() as usize) as u64);
    let endpoint = server.endpoint();
    let compactor = thread::spawn({
        let endpoint = endpoint.clone();
        move || compact(&endpoint)
    });
    let writers = ledgers.into_iter().map(|ledger| {
        let client = Client::connect(&endpoint).expect("the server listens");
        let dice = Dice::new(dice.number());
        thread::spawn(|| write(client, ledger, dice))
    });
    let writers: Vec<_> = writers.collect();
    thread::sleep(after);
    end(server, orderly);
    compactor.join().expect("the compactor does not panic");
    writers.into_iter().map(|writer| writer.join().expect("a broken promise")).collect()
}

fn end(mut server: Server, orderly: bool) {
    if !orderly {
        return server.kill();
    }
    let ended = server.terminate();
    let status = ended.status.unwrap_or_else(|| panic!("SIGTERM does not end it:\n{}", ended.log));
    // etcd ends by the signal it was sent, as a supervisor expects; 0 where it is process 1.
    assert!(status.signal() == Some(15) || status.success(), "{status}: {}", ended.log);
}

fn write(mut client: Client, mut ledger: Ledger, mut dice: Dice) -> Ledger {
    while ledger.put(&mut client, *dice.pick(&VALUE_BYTES)).is_ok() {}
    ledger
}

/// Forgets history all the time; the newest version of a key is no history.
fn compact(endpoint: &str) {
    let Ok(mut client) = Client::connect(endpoint) else { return };
    while let Ok(all) = ledger::all(&mut client) {
        let revision = all.header.expect("an answer has a header").revision;
        let compaction = CompactionRequest { revision, physical: revision % 2 == 0 };
        let done: Result<CompactionResponse, _> = client.unary(kv::COMPACT, &compaction);
        // Refused where nothing was written since: only a lost connection ends it.
        if done.is_err_and(|status| status.code == loadgen::grpc::code::UNAVAILABLE) {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
