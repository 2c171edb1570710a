//! A good client beside a bad one: whatever that does, this one writes and sees what it wrote.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use proto::mvccpb::Event;

use crate::{
    binary,
    ledger::{self, Ledger},
    server::{Folder, Server, Setup},
    watch::{self, Watch},
};

/// A good client's put, and the event of it, may take this long beside a bad one.
pub const SERVED_MAX: Duration = Duration::from_secs(5);
/// Puts at least, however soon the bad one is done.
const PUTS_MIN: u64 = 100;

/// Does the worst, on a server that a good client uses meanwhile.
///
/// # Panics
/// Where the good client is not served.
pub fn beside_a_good_client(name: &str, worst: impl FnOnce(&Server)) {
    let folder = Folder::new(name);
    let server = Setup::new(&binary::ringleader(), folder.path()).start().expect("it starts");
    let over = AtomicBool::new(false);
    let ledger = thread::scope(|scope| {
        let good = scope.spawn(|| good(&server, &over));
        let done = Done(&over);
        worst(&server);
        drop(done);
        good.join().expect("a good client is served")
    });
    let all = ledger::all(&mut server.client()).expect("it still serves");
    ledger.check(&all).unwrap_or_else(|lost| panic!("{lost}"));
}

/// However it ended: who waits for the good client waits for the end of this.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn good(server: &Server, over: &AtomicBool) -> Ledger {
    let mut ledger = Ledger::new("good", 50);
    let mut client = server.client();
    client.set_timeout(SERVED_MAX);
    let mut watch = Watch::open(server.client(), watch::prefix("good/", 0)).expect("it is served");
    let mut seen = VecDeque::new();
    while !over.load(Ordering::Relaxed) || ledger.acknowledged < PUTS_MIN {
        ledger.put(&mut client, 100).expect("a good client is served");
        while seen.is_empty() {
            seen.extend(watch.next(SERVED_MAX).expect("a good client is served"));
        }
        let event: Event = seen.pop_front().expect("one was waited for");
        let revision = event.kv.expect("an event is of a key").mod_revision;
        assert_eq!(revision, ledger.revision(), "it sees each of its puts, and nothing else");
    }
    ledger
}
