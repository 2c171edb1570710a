//! A watch goes on where it was, however often the server is killed: no event is lost, none comes
//! twice, and all is as the history says.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    thread,
    time::Duration,
};

use e2e::{
    Dice, binary,
    server::{Folder, Setup},
    watch::{self, Watch},
};
use loadgen::{
    client::Client,
    grpc::{Status, code},
};
use proto::{
    etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, kv},
    mvccpb::Event,
};

const KILLS: usize = 12;
const WATCHERS: usize = 4;
/// A kill comes within this time after the server serves again.
const RUN_MAX: Duration = Duration::from_millis(400);
const KEYS: u64 = 20;
/// Far longer than a server that is there takes to deliver what it has.
const EVENT_MAX: Duration = Duration::from_secs(20);
/// How often a watcher that hears nothing looks whether that is the end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What an answer said of one change: its revision and the counter in its value.
type Change = (i64, u64);

#[test]
fn a_watch_goes_on_after_each_kill() {
    let folder = Folder::new("watch");
    let setup = Setup::new(&binary::ringleader(), folder.path());
    let mut dice = Dice::new(binary::seed());
    let mut server = setup.start().expect("it starts");
    let endpoint = server.endpoint();
    let (over, last) = (&AtomicBool::new(false), &AtomicI64::new(i64::MAX));
    let endpoint = endpoint.as_str();
    let (acknowledged, watched) = thread::scope(|scope| {
        let writer = scope.spawn(move || write(endpoint, over));
        let watchers: Vec<_> = (0..WATCHERS)
            .map(|at| scope.spawn(move || follow(endpoint, last, at % 2 == 0)))
            .collect();
        for _ in 0..KILLS {
            let after = dice.below(RUN_MAX.as_micros() as usize);
            thread::sleep(Duration::from_micros(after as u64));
            server.kill();
            server = setup.start().expect("it starts over what a kill left");
        }
        over.store(true, Ordering::Relaxed);
        let (acknowledged, revision) = writer.join().expect("a broken promise");
        last.store(revision, Ordering::Relaxed);
        let watched = watchers.into_iter().map(|it| it.join().expect("a broken promise"));
        (acknowledged, watched.collect::<Vec<_>>())
    });
    let mut history = Watch::open(server.client(), watch::prefix("w/", 1)).expect("it serves");
    let history = take(&mut history, last.load(Ordering::Relaxed));
    for (at, watched) in watched.iter().enumerate() {
        let differs = history.iter().zip(watched).find(|(one, other)| one != other);
        assert_eq!(differs, None, "watcher {at} saw something else than what the history has");
        assert_eq!(watched.len(), history.len(), "watcher {at}");
    }
    let known = history.iter().map(change).collect::<BTreeSet<_>>();
    for change in &acknowledged {
        assert!(known.contains(change), "{change:?} was acknowledged, and is no event");
    }
    println!("{KILLS} kills, {} acknowledged changes, {} events", acknowledged.len(), known.len());
    assert!(acknowledged.len() > KILLS, "hardly anything was written");
}

/// Of a delete the counter is 0.
fn change(event: &Event) -> Change {
    let kv = event.kv.as_ref().expect("an event is of a key");
    let text = std::str::from_utf8(&kv.value).expect("it is text");
    (kv.mod_revision, if text.is_empty() { 0 } else { text.parse().expect("a counter") })
}

/// Puts and deletes until told to stop, over every kill; what was acknowledged, and the revision of
/// the last change, which is.
fn write(endpoint: &str, over: &AtomicBool) -> (Vec<Change>, i64) {
    let mut acknowledged = vec![];
    let mut client = None;
    for counter in 1.. {
        let on = client.take().or_else(|| Client::connect(endpoint).ok());
        let Some(mut on) = on else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        let Ok(change) = change_one(&mut on, counter) else { continue };
        client = Some(on);
        acknowledged.extend(change);
        if let Some((revision, _)) = change
            && over.load(Ordering::Relaxed)
        {
            return (acknowledged, revision);
        }
    }
    unreachable!("counters do not run out")
}

/// None where nothing was there to be deleted.
fn change_one(on: &mut Client, counter: u64) -> Result<Option<Change>, Status> {
    let key = format!("w/{:03}", counter % KEYS).into();
    if counter.is_multiple_of(7) {
        let delete = DeleteRangeRequest { key, ..Default::default() };
        let response: DeleteRangeResponse = on.unary(kv::DELETE_RANGE, &delete)?;
        let revision = response.header.expect("an answer has a header").revision;
        return Ok((response.deleted == 1).then_some((revision, 0)));
    }
    let put = PutRequest { key, value: counter.to_string().into(), ..Default::default() };
    let response: PutResponse = on.unary(kv::PUT, &put)?;
    Ok(Some((response.header.expect("an answer has a header").revision, counter)))
}

/// Watches over every kill, each time from where it was, until this revision. Some ask after each
/// event how far that is, and believe it.
fn follow(endpoint: &str, until: &AtomicI64, asks: bool) -> Vec<Event> {
    let mut events = vec![];
    let mut delivered = 0;
    while delivered < until.load(Ordering::Relaxed) {
        let Ok(client) = Client::connect(endpoint) else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        let create = watch::prefix("w/", delivered + 1);
        let Ok(mut watch) = Watch::open(client, create) else { continue };
        while watch.delivered() < until.load(Ordering::Relaxed) {
            match watch.next(LOOK_EVERY) {
                Ok(more) if asks && !more.is_empty() => {
                    events.extend(more);
                    // Whether it is still there, the next read tells.
                    watch.ask_progress().ok();
                }
                Ok(more) => events.extend(more),
                Err(status) if status.code == code::DEADLINE_EXCEEDED => {}
                Err(_) => break,
            }
        }
        delivered = watch.delivered();
    }
    events
}

/// All events up to this revision.
fn take(watch: &mut Watch, last: i64) -> Vec<Event> {
    let mut events = vec![];
    while watch.delivered() < last {
        events.extend(watch.next(EVENT_MAX).expect("it serves"));
    }
    events
}
