//! What etcd got wrong once, and must not go wrong here.

use super::*;

/// etcd issue 15220: progress that a client had asked for overtook the events before it, or told an
/// older revision than an event that was sent already.
#[test]
fn progress_comes_after_the_events_it_speaks_of() {
    let mut rig = Rig::new();
    let stream = rig.watch(everything());
    for round in 0..50 {
        rig.put("a", b"v");
        if round % 3 == 0 {
            rig.put("b", b"v");
        }
        rig.wake();
        rig.ask_progress(stream);
    }
    let mut told = 1;
    for response in rig.read(stream) {
        for revision in revisions(std::slice::from_ref(&response)).concat() {
            assert_eq!(revision, told + 1, "nothing at or below what was promised");
            told = revision;
        }
        assert!(!response.events.is_empty() || header_revision(&response) == told);
    }
    assert_eq!(told, rig.revision());
}

/// etcd issue 17529: of many watchers on one stream that was read slowly some lost events when the
/// history was compacted under them, without being canceled.
#[test]
fn compaction_under_slow_watchers_cancels_them_and_leaves_no_gap() {
    let mut rig = Rig::new();
    let stream = rig.open();
    for _ in 0..50 {
        rig.create(stream, everything());
        rig.read(stream);
    }
    let value = vec![b'v'; 10 << 10];
    for n in 0..300 {
        rig.put("a", &value);
        rig.wake();
        if n % 100 == 99 {
            rig.compact(rig.revision() - 10);
            rig.sweep();
        }
        rig.catch_up();
        if n % 5 == 0 {
            rig.read_one(stream);
        }
    }
    rig.wake();
    let (mut told, mut canceled) = (BTreeMap::<i64, i64>::new(), BTreeSet::new());
    for response in rig.read(stream) {
        assert!(!canceled.contains(&response.watch_id));
        for revision in revisions(std::slice::from_ref(&response)).concat() {
            let last = told.insert(response.watch_id, revision);
            assert!(last.is_none_or(|last| revision == last + 1), "{last:?} then {revision}");
        }
        if response.canceled {
            assert!(response.compact_revision > told.get(&response.watch_id).map_or(1, |r| r + 1));
            canceled.insert(response.watch_id);
        }
    }
    assert!(!canceled.is_empty(), "the history was taken from under some");
    let complete = |(id, last): (&i64, &i64)| canceled.contains(id) || *last == rig.revision();
    assert!(told.iter().all(complete));
}

/// etcd issue 17780: compaction took the newest revision, a delete, and after a restart the store
/// counted from an older one; watchers missed what came under a number already told.
#[test]
fn compaction_of_a_delete_that_is_newest_takes_no_revision_back() {
    let mut rig = Rig::new();
    rig.put("a", b"v");
    rig.wake();
    let stream = rig.watch(on("a"));
    let deleted = rig.delete("a");
    rig.wake();
    rig.compact(deleted);
    rig.sweep();
    rig.wake();
    let facts = rig.store.facts(ClusterId(1), MemberId(1));
    assert_eq!((rig.revision(), facts.revision), (deleted, Revision(deleted)));
    let again = rig.put("a", b"v");
    rig.wake();
    assert_eq!(again, deleted + 1);
    assert_eq!(revisions(&rig.read(stream)).concat(), [deleted, again]);
}

/// etcd issue 18089: a watch from the compacted revision did not see the delete made there.
#[test]
fn a_delete_at_the_compacted_revision_is_told() {
    let mut rig = Rig::new();
    rig.put("a", b"v");
    let deleted = rig.delete("a");
    rig.put("b", b"v");
    rig.compact(deleted);
    rig.sweep();
    rig.wake();
    let stream = rig.watch(from(deleted, everything()));
    assert_eq!(revisions(&rig.read(stream)).concat(), [deleted, deleted + 1]);
}

/// etcd issue 19179: the same where compaction was interrupted and done again after a restart. Here
/// it is interrupted anywhere, and done again by the next one.
#[test]
fn a_delete_at_the_compacted_revision_is_told_however_far_compaction_is() {
    for pieces in 0..12 {
        let mut rig = Rig::new();
        for key in ["a", "b", "c"] {
            rig.put(key, b"v");
            rig.delete(key);
        }
        let deleted = rig.revision();
        rig.compact(deleted - 2);
        rig.store.tree_mut().sweep(3);
        rig.compact(deleted);
        for _ in 0..pieces {
            rig.store.tree_mut().sweep(1);
        }
        rig.wake();
        let stream = rig.watch(from(deleted, everything()));
        assert_eq!(revisions(&rig.read(stream)).concat(), [deleted], "after {pieces} records");
    }
}

/// etcd issue 20221: a watch that starts in the future was told what is older, or that there was
/// progress before it began.
#[test]
fn a_watch_from_the_future_hears_nothing_before_it_begins() {
    let mut rig = Rig::new();
    let ahead = WatchCreateRequest { progress_notify: true, ..everything() };
    let (stream, other) = (rig.watch(from(10, ahead)), rig.watch(everything()));
    for revision in 2..=20 {
        rig.put("a", b"v");
        if revision % 4 == 0 {
            rig.wake();
        }
        rig.ask_progress(stream);
        rig.now += 2 * INTERVAL;
        rig.hub.on_time(rig.now);
    }
    let told = rig.read(stream);
    assert_eq!(revisions(&told).concat(), (10..=20).collect::<Vec<_>>());
    let progress = told.iter().filter(|response| response.events.is_empty());
    assert!(progress.map(header_revision).all(|revision| revision >= 10));
    assert_eq!(revisions(&rig.read(other)).concat(), (2..=20).collect::<Vec<_>>());
}
