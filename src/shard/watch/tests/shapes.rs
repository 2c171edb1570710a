//! What each request is answered, and what each event looks like.

use super::*;
use proto::mvccpb::{KeyValue, event::EventType};

/// id, created, canceled, compact revision, reason, revision of the header.
type Shape = (i64, bool, bool, i64, String, i64);

fn shape(response: &WatchResponse) -> Shape {
    let WatchResponse { watch_id, created, canceled, compact_revision, .. } = *response;
    let reason = response.cancel_reason.clone();
    (watch_id, created, canceled, compact_revision, reason, header_revision(response))
}

fn shapes(responses: &[WatchResponse]) -> Vec<Shape> {
    responses.iter().map(shape).collect()
}

fn plain(id: i64, created: bool, canceled: bool, revision: i64) -> Shape {
    (id, created, canceled, 0, String::new(), revision)
}

fn refused(reason: &str, revision: i64) -> Shape {
    (-1, true, true, 0, reason.to_owned(), revision)
}

#[test]
fn names_are_given_from_zero_and_chosen_ones_are_left_out() {
    let mut rig = Rig::new();
    let stream = rig.open();
    for watch_id in [0, 1, 0, 1, -1, i64::MIN, 0] {
        rig.create(stream, WatchCreateRequest { watch_id, ..on("a") });
    }
    let ids: Vec<_> = rig.read(stream).iter().map(shape).collect();
    let duplicate = || refused("mvcc: duplicate watch ID provided on the WatchStream", 1);
    let created = |id| plain(id, true, false, 1);
    let expected = [
        created(0),
        created(1),
        created(2),
        duplicate(),
        created(-1),
        created(i64::MIN),
        created(3),
    ];
    assert_eq!(ids, expected);
}

#[test]
fn what_cannot_be_watched_is_created_and_canceled_at_once() {
    let mut rig = Rig::new();
    let stream = rig.open();
    let range = |key, end: &'static str| WatchCreateRequest { range_end: end.into(), ..on(key) };
    for request in [range("b", "b"), range("b", "a"), from(-1, range("b", "a"))] {
        rig.create(stream, request);
    }
    let empty = || refused("mvcc: watcher range is empty", 1);
    let negative = refused("etcdserver: mvcc: required revision has been compacted", 1);
    assert_eq!(shapes(&rig.read(stream)), [empty(), empty(), negative]);
    assert!(!rig.hub.is_watching());
}

#[test]
fn cancel_is_answered_once_and_unknown_names_and_empty_requests_are_not() {
    let mut rig = Rig::new();
    let stream = rig.watch(on("a"));
    rig.cancel(stream, 7);
    rig.ask(stream, None);
    rig.cancel(stream, 0);
    rig.cancel(stream, 0);
    assert_eq!(shapes(&rig.read(stream)), [plain(0, false, true, 1)]);
    rig.put("a", b"1");
    rig.wake();
    assert!(rig.read(stream).is_empty() && !rig.hub.is_watching());
}

#[test]
fn what_is_compacted_is_created_then_canceled_and_keeps_its_name() {
    let mut rig = Rig::new();
    rig.put_times(5, "a");
    rig.compact(5);
    rig.wake();
    let stream = rig.open();
    rig.create(stream, from(4, on("a")));
    let canceled = (0, false, true, 5, String::new(), 0);
    assert_eq!(shapes(&rig.read(stream)), [plain(0, true, false, 6), canceled]);
    rig.create(stream, WatchCreateRequest { watch_id: 0, ..on("a") });
    rig.cancel(stream, 0);
    assert_eq!(shapes(&rig.read(stream)), [plain(1, true, false, 6), plain(0, false, true, 6)]);
}

#[test]
fn a_watch_may_start_at_the_compacted_revision_below_above_and_in_the_future() {
    let mut rig = Rig::new();
    rig.put_times(5, "a");
    rig.compact(4);
    rig.sweep();
    rig.wake();
    let streams = [4, 6, 0, 7, 8].map(|start| rig.watch(from(start, on("a"))));
    rig.catch_up();
    rig.put_times(2, "a");
    rig.wake();
    let told = streams.map(|stream| revisions(&rig.read(stream)).concat());
    assert_eq!(told, [vec![4, 5, 6, 7, 8], vec![6, 7, 8], vec![7, 8], vec![7, 8], vec![8]]);
}

#[test]
fn a_key_range_and_its_ends() {
    let mut rig = Rig::new();
    let range = |key, end: &'static str| WatchCreateRequest { range_end: end.into(), ..on(key) };
    let asked = [on("b"), range("b", "c"), range("b", "\0"), range("", "b"), on(""), everything()];
    let streams = asked.map(|request| rig.watch(request));
    for key in ["\0", "a", "b", "ba", "c"] {
        rig.put(key, b"v");
    }
    rig.wake();
    let told = streams.map(|stream| {
        let keys = events(&rig.read(stream)).into_iter();
        keys.map(|event| event.kv.expect("each has one").key).collect::<Vec<_>>()
    });
    let told: Vec<Vec<&[u8]>> =
        told.iter().map(|keys| keys.iter().map(|key| &key[..]).collect()).collect();
    let expected: [&[&[u8]]; 6] = [
        &[b"b"],
        &[b"b", b"ba"],
        &[b"b", b"ba", b"c"],
        &[b"\0", b"a"],
        &[b"\0"],
        &[b"\0", b"a", b"b", b"ba", b"c"],
    ];
    assert_eq!(told, expected);
}

#[test]
fn events_say_what_etcd_says() {
    let mut rig = Rig::new();
    let stream = rig.watch(WatchCreateRequest { prev_kv: true, ..on("a") });
    let kv = |modified, version, value: &'static [u8]| KeyValue {
        key: "a".into(),
        create_revision: 2,
        mod_revision: modified,
        version,
        value: value.into(),
        lease: 0,
    };
    rig.put("a", b"1");
    rig.put("a", b"2");
    rig.delete("a");
    rig.wake();
    let all = rig.read(stream);
    let gone = KeyValue { key: "a".into(), mod_revision: 4, ..KeyValue::default() };
    let event = |kind: EventType, kv, prev_kv| Event { r#type: kind.into(), kv: Some(kv), prev_kv };
    let expected = [
        event(EventType::Put, kv(2, 1, b"1"), None),
        event(EventType::Put, kv(3, 2, b"2"), Some(kv(2, 1, b"1"))),
        event(EventType::Delete, gone, Some(kv(3, 2, b"2"))),
    ];
    assert_eq!(events(&all), expected);
    assert_eq!(header_revision(&all[0]), 4, "the last revision in it");
}

#[test]
fn what_was_before_is_left_out_where_it_is_compacted() {
    let mut rig = Rig::new();
    for value in [b"1", b"2", b"3", b"4"] {
        rig.put("a", value);
    }
    rig.compact(4);
    rig.sweep();
    rig.wake();
    let stream = rig.watch(from(4, WatchCreateRequest { prev_kv: true, ..on("a") }));
    let all = events(&rig.read(stream));
    let before = all.iter().map(|event| event.prev_kv.as_ref().map(|kv| kv.mod_revision));
    assert_eq!(before.collect::<Vec<_>>(), [None, Some(4)]);
}

#[test]
fn filters_leave_out_and_unknown_ones_do_nothing() {
    let mut rig = Rig::new();
    let filtered = |filters: &[i32]| WatchCreateRequest { filters: filters.to_vec(), ..on("a") };
    let streams =
        [&[][..], &[0], &[1], &[0, 1], &[7, -1]].map(|filters| rig.watch(filtered(filters)));
    rig.put("a", b"v");
    rig.delete("a");
    rig.wake();
    let told = streams.map(|stream| revisions(&rig.read(stream)).concat());
    assert_eq!(told, [vec![2, 3], vec![3], vec![2], vec![], vec![2, 3]]);
}

#[test]
fn a_revision_stays_whole_unless_the_client_takes_parts() {
    let mut rig = Rig::new();
    let (whole, parts) =
        (rig.watch(everything()), rig.watch(WatchCreateRequest { fragment: true, ..everything() }));
    let value = vec![b'v'; 40 << 10];
    let keys: Vec<_> = (0..20).map(|n| format!("k{n}")).collect();
    let ops: Vec<_> = keys.iter().map(|key| (&key[..], Some(value.clone()))).collect();
    for late in [false, true] {
        rig.txn(&ops);
        rig.wake();
        let (whole, parts) = if late {
            let first = rig.revision();
            let whole = rig.watch(from(first, everything()));
            let parts =
                rig.watch(from(first, WatchCreateRequest { fragment: true, ..everything() }));
            (rig.read(whole), rig.read(parts))
        } else {
            (rig.read(whole), rig.read(parts))
        };
        assert_eq!((whole.len(), whole[0].events.len()), (1, 20));
        assert_eq!(parts.len(), 20, "two would be more than a part may hold");
        assert_eq!(events(&whole), events(&parts));
        let more: Vec<_> = parts.iter().map(|response| response.fragment).collect();
        assert!(more[..19].iter().all(|more| *more) && !more[19], "{more:?}");
    }
}

#[test]
fn a_response_ends_with_a_revision_once_it_is_long() {
    let mut rig = Rig::new();
    let stream = rig.watch(on("a"));
    let value = vec![b'v'; WATCH_RESPONSE_BYTES_MAX / 2 + 1];
    for _ in 0..5 {
        rig.put("a", &value);
    }
    rig.wake();
    let all = rig.read(stream);
    assert_eq!(revisions(&all), [vec![2, 3], vec![4, 5], vec![6]]);
    assert_eq!(all.iter().map(header_revision).collect::<Vec<_>>(), [3, 5, 6]);
}

#[test]
fn progress_is_told_to_the_silent_when_it_is_due() {
    let mut rig = Rig::new();
    let stream = rig.open();
    rig.create(stream, WatchCreateRequest { progress_notify: true, ..on("a") });
    rig.create(stream, on("b"));
    rig.create(stream, from(9, WatchCreateRequest { progress_notify: true, ..on("c") }));
    rig.read(stream);
    let most = INTERVAL + INTERVAL / 10;
    rig.hub.on_time(INTERVAL - Duration::from_millis(1));
    assert!(rig.read(stream).is_empty(), "not before the interval");
    rig.hub.on_time(most);
    assert_eq!(shapes(&rig.read(stream)), [plain(0, false, false, 1)]);
    rig.put("a", b"v");
    rig.wake();
    rig.read(stream);
    rig.hub.on_time(2 * most);
    assert!(rig.read(stream).is_empty(), "it heard something meanwhile");
    rig.hub.on_time(3 * most);
    assert_eq!(shapes(&rig.read(stream)), [plain(0, false, false, 2)]);
    rig.cancel(stream, 0);
    rig.cancel(stream, 2);
    rig.read(stream);
    rig.hub.on_time(4 * most);
    assert!(rig.hub.due.is_empty(), "nobody is left to be told");
}

#[test]
fn periods_differ_by_up_to_a_tenth() {
    let mut rig = Rig::new();
    let periods: BTreeSet<_> = (0..1_000)
        .map(|_| {
            let stream = rig.watch(WatchCreateRequest { progress_notify: true, ..on("a") });
            rig.hub.streams[stream.0].progress.expect("it asked for progress")
        })
        .collect();
    assert!(periods.len() > 100 && periods.first() >= Some(&INTERVAL));
    assert!(periods.last() < Some(&(INTERVAL + INTERVAL / 10)));
}

#[test]
fn progress_of_all_needs_all_synced_and_somebody() {
    let mut rig = Rig::new();
    rig.put("a", b"v");
    rig.wake();
    let stream = rig.open();
    rig.ask_progress(stream);
    assert!(rig.read(stream).is_empty(), "nobody watches");
    rig.create(stream, on("a"));
    rig.ask_progress(stream);
    assert_eq!(shapes(&rig.read(stream)), [plain(0, true, false, 2), plain(-1, false, false, 2)]);
    rig.create(stream, from(1, on("b")));
    rig.ask_progress(stream);
    assert_eq!(shapes(&rig.read(stream)), [plain(1, true, false, 2)], "one is behind");
    rig.ask_progress(stream);
    assert_eq!(shapes(&rig.read(stream)), [plain(-1, false, false, 2)]);
    rig.create(stream, from(3, on("c")));
    rig.ask_progress(stream);
    assert_eq!(shapes(&rig.read(stream)), [plain(2, true, false, 2)], "one has not begun");
    rig.put("a", b"v");
    rig.wake();
    rig.read(stream);
    rig.ask_progress(stream);
    assert_eq!(shapes(&rig.read(stream)), [plain(-1, false, false, 3)]);
}

#[test]
fn a_client_that_asks_without_reading_is_not_taken_from() {
    let mut rig = Rig::new();
    let stream = rig.open();
    for _ in 0..WATCH_CONTROLS_MAX {
        assert!(rig.hub.can_take(stream));
        rig.create(stream, on("a"));
    }
    assert!(!rig.hub.can_take(stream));
    rig.read_one(stream);
    assert!(rig.hub.can_take(stream));
}

#[test]
fn a_client_that_does_not_read_falls_behind_alone_and_catches_up() {
    let mut rig = Rig::new();
    let (slow, fast) = (rig.watch(on("a")), rig.watch(on("a")));
    let value = vec![b'v'; 100 << 10];
    let mut told = Vec::new();
    for _ in 0..100 {
        rig.put("a", &value);
        rig.wake();
        rig.catch_up();
        told.extend(revisions(&rig.read(fast)).concat());
        let most = WATCH_STREAM_BYTES_MAX + WATCH_RESPONSE_BYTES_MAX + value.len() + 1_000;
        assert!(rig.hub.streams.bytes() < most);
    }
    assert_eq!(rig.hub.watchers_behind(), 1);
    let all: Vec<_> = (2..=101).collect();
    assert_eq!(told, all);
    assert_eq!(revisions(&rig.read(slow)).concat(), all);
    assert_eq!(rig.hub.watchers_behind(), 0);
    rig.put("a", b"v");
    rig.wake();
    assert_eq!(revisions(&rig.read(slow)).concat(), [102]);
}

#[test]
fn a_long_history_comes_in_pieces_whose_headers_promise_no_more_than_was_told() {
    let mut rig = Rig::new();
    for n in 0..10_000 {
        rig.put(if n % 10 == 0 { "a" } else { "b" }, b"v");
    }
    rig.wake();
    let stream = rig.watch(from(2, on("a")));
    assert!(rig.hub.catch_up(&rig.view), "more than one piece");
    let all = rig.read(stream);
    assert_eq!(revisions(&all).concat(), (0..1_000).map(|n| 2 + 10 * n).collect::<Vec<_>>());
    let pieces: Vec<_> = all.iter().map(header_revision).collect();
    assert!(pieces.len() > 1 && pieces.last() == Some(&10_001), "{pieces:?}");
    for (header, next) in pieces.iter().zip(revisions(&all[1..])) {
        assert!(*header < next[0]);
    }
}

#[test]
fn a_hundred_thousand_watchers_of_keys_of_their_own() {
    const WATCHERS: usize = 100_000;
    let mut rig = Rig::new();
    let streams: Vec<_> = (0..10).map(|_| rig.open()).collect();
    for n in 0..WATCHERS {
        let stream = streams[n % streams.len()];
        rig.create(stream, on(&format!("key/{n:08}")));
        assert!(rig.read_one(stream).is_some_and(|response| response.created));
    }
    for n in (0..WATCHERS).step_by(1_000) {
        let revision = rig.put(&format!("key/{n:08}"), b"v");
        rig.wake();
        let stream = rig.hub.take_ready().expect("one has something to read");
        assert_eq!(stream, streams[n % streams.len()]);
        let told = rig.read(stream);
        assert_eq!((revisions(&told), told[0].watch_id), (vec![vec![revision]], n as i64 / 10));
        assert_eq!(rig.hub.take_ready(), None);
    }
    streams.into_iter().for_each(|stream| rig.hub.close(stream));
    assert_eq!((rig.hub.groups.len(), rig.hub.names.len(), rig.hub.synced), (0, 0, 0));
}
