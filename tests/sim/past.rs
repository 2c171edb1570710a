//! A directory made of what another one holds of a revision is that revision, whatever checkpoints,
//! sweeps and compactions the other one has behind it: restored at every revision of random histories
//! and held against the models.

use crate::{
    disk::{Crash, SimDisk},
    executor::{Executor, Lot},
    lease_restart::draw,
    model::Model,
    tree_model::{History, OPTIONS, Rig, checkpoint, format, open, run},
    wal_model::spare_ready,
};
use prost::Message;
use proto::etcdserverpb::RangeRequest;
use ringleader::{
    inspect::{Verdict, look},
    io::BLOCK_BYTES,
    node::recover::{self, Disks, Newborn, Opening, born},
    restore::{Held, NotHeld},
    store::{Member, Quota, Store, command},
    tree::{self, KeyRange, Lease, Past, RootFacts, Tree, View},
    types::{ClusterId, Index, LeaseId, MemberId, Revision, Stamp, Term, Ticket},
    wal::{Batch, HardState, LogEntry, Options, Wal},
};
use std::io;

/// Of the cluster that begins.
const NEW: (ClusterId, MemberId) = (ClusterId(0xbe61), MemberId(0x9a11));

fn newborn(cluster: ClusterId, members: &[MemberId]) -> Newborn {
    let named = |id: &MemberId| Member { id: *id, name: format!("{id}"), ..Member::default() };
    Newborn { cluster, member: members[0], members: members.iter().map(named).collect() }
}

fn new_facts() -> RootFacts {
    born(newborn(NEW.0, &[NEW.1]), OPTIONS)
}

fn lease_of(id: LeaseId) -> Lease {
    Lease { granted: id.0 ^ 0x77, remaining: 0, since: Index(1) }
}

async fn write(disk: SimDisk, view: View, revision: i64) -> io::Result<()> {
    write_and_skip(disk, view, revision, 0).await
}

async fn write_and_skip(disk: SimDisk, view: View, revision: i64, skipped: i64) -> io::Result<()> {
    let past = Past { reader: view.reader(), revision: Revision(revision), skipped };
    past.write(&disk, OPTIONS, new_facts(), lease_of, |_| ()).await.map(drop)
}

fn opened(disk: &SimDisk) -> (Tree, RootFacts) {
    let (tree, root) = open(disk).expect("it is whole").expect("it is formatted");
    (tree, root.facts)
}

#[test]
fn a_tree_made_of_any_revision_is_the_models() {
    let mut made = 0;
    for seed in 0..40 {
        let mut lot = Lot::new(seed ^ 0x7061_7374);
        let history = History::draw(seed, 90 + lot.below(200) as usize);
        let disk = SimDisk::new(seed);
        let mut rig = Rig::new(format(&disk), 0, &history);
        while rig.apply(&history) {
            match lot.below(12) {
                0 => checkpoint(&mut rig, &disk),
                1 | 2 => drop(rig.tree.sweep(lot.below(20) as usize)),
                _ => {}
            }
        }
        let model = history.model(history.len());
        let view = rig.tree.publish();
        for revision in model.held() {
            let disk = SimDisk::new(seed);
            run(write(disk.clone(), view.clone(), revision)).expect("the disk works");
            let (mut tree, facts) = opened(&disk);
            let expected = model.back_at(revision, |id| lease_of(LeaseId(id)));
            let all = lot.one_in(4);
            expected.check(&tree.reader(), &mut lot, all);
            assert_eq!(facts, RootFacts { revision: Revision(revision), ..new_facts() });
            goes_on(&mut tree, revision, &disk, facts);
            made += 1;
        }
    }
    println!("{made} directories made");
}

#[test]
fn who_skips_revisions_finds_all_before_them_compacted() {
    for seed in 0..20 {
        let mut lot = Lot::new(seed ^ 0x736b_6970);
        let history = History::draw(seed ^ 0x62, 150);
        let mut rig = Rig::new(format(&SimDisk::new(seed)), 0, &history);
        while rig.apply(&history) {}
        let (model, view) = (history.model(history.len()), rig.tree.publish());
        for revision in model.held().step_by(3) {
            let (disk, skipped) = (SimDisk::new(seed), 1 + lot.below(1000) as i64);
            let made = write_and_skip(disk.clone(), view.clone(), revision, skipped);
            run(made).expect("the disk works");
            let (mut tree, facts) = opened(&disk);
            let past = model.back_at(revision, |id| lease_of(LeaseId(id)));
            let expected = past.skipping(skipped);
            expected.check(&tree.reader(), &mut lot, true);
            let newest = revision + skipped;
            assert_eq!(facts.revision, Revision(newest));
            assert_eq!(tree.live_bytes(), expected.kept_bytes());
            goes_on(&mut tree, newest, &disk, facts);
        }
    }
}

/// Its next change is the one of the next revision; it is compacted, swept and opened as any other.
fn goes_on(tree: &mut Tree, revision: i64, disk: &SimDisk, facts: RootFacts) {
    tree.put(Stamp::new(revision + 1, 0), b"/next", b"", LeaseId(0));
    let before = kvs(tree, revision);
    tree.compact(Revision(revision));
    while !tree.sweep(7) {}
    let facts = RootFacts { revision: Revision(revision + 1), ..facts };
    let job = tree.begin_checkpoint(facts).expect("none is running");
    tree.finish_checkpoint(run(job.run(disk.clone())).expect("the disk works"));
    let (again, _) = opened(disk);
    assert_eq!(kvs(&again, revision), before);
    let next = again.reader().newest(b"/next").expect("it was put");
    assert_eq!(next.meta.create, Revision(revision + 1));
}

fn kvs(tree: &Tree, revision: i64) -> Vec<Vec<u8>> {
    let found = tree.reader().scan(&KeyRange::ALL, Revision(revision));
    found.map(|found| found.kv().to_vec()).collect()
}

fn end(history: &History) -> i64 {
    *history.model(history.len()).held().end()
}

/// What a directory becomes depends on what can be read, not on what compaction has reached.
#[test]
fn equal_pasts_make_equal_directories() {
    for seed in 0..20 {
        let history = History::draw(seed ^ 0x65, 200);
        let [first, second] = [1, 13].map(|often| {
            let disk = SimDisk::new(seed);
            let mut rig = Rig::new(format(&disk), 0, &history);
            while rig.apply(&history) {
                if rig.applied.is_multiple_of(often) {
                    while !rig.tree.sweep(9) {}
                    checkpoint(&mut rig, &disk);
                }
            }
            let (view, revision) = (rig.tree.publish(), end(&history));
            let made = SimDisk::new(seed);
            run(write(made.clone(), view, revision)).expect("the disk works");
            made
        });
        assert_eq!(first.names(), second.names());
        for name in first.names() {
            assert_eq!(first.peek(&name), second.peek(&name), "{name} of seed {seed}");
        }
    }
}

const OLD: (ClusterId, MemberId) = (ClusterId(0xc1), MemberId(0x3e));
const WAL_SEGMENT_BYTES: u64 = 16 * BLOCK_BYTES as u64;

/// A life of a member as its disk shows it, and what was at each revision at its end.
struct Life {
    disk: SimDisk,
    /// By revision, from 1; the last moment of each that is known to be committed.
    moments: Vec<Model>,
    /// Of the superblock.
    saved: i64,
    compacted: i64,
}

/// Entries of some requests each, in a log; a superblock somewhere.
async fn live(seed: u64) -> Life {
    let mut lot = Lot::new(seed);
    let disk = SimDisk::new(seed);
    let members: &[MemberId] = if lot.one_in(2) { &[OLD.1] } else { &[OLD.1, MemberId(0x3f)] };
    let facts = born(newborn(OLD.0, members), OPTIONS);
    let tree = tree::format(&disk, OPTIONS, facts.clone()).await.expect("the disk works");
    let mut store = Store::recover(tree, Quota::from_flag(-1), &facts).expect("our blob");
    let options =
        Options { segment_bytes: WAL_SEGMENT_BYTES, cluster: OLD.0.0, member: OLD.1.0, salt: seed };
    let opened = Wal::open(disk.clone(), disk.clone(), options).await;
    let (mut wal, _) = opened.expect("a fresh directory");
    wal.trim(facts.applied.0);
    let mut model = Model::default();
    let mut moments = vec![model.clone(), model.clone()];
    let (mut saved, mut compacted) = (1, -1);
    let entries = 20 + lot.below(30);
    let (save_at, commit_lag) = (lot.below(entries), lot.below(4));
    for at in 0..entries {
        let mut data = Vec::new();
        // Nobody applies, and so nobody saves, what is not committed.
        let known = members.len() == 1 || at + commit_lag < entries;
        for _ in 0..1 + lot.below(5) {
            let body = draw_or_compact(&mut lot, &mut model);
            command::append(&mut data, Ticket(1), &body);
            if known {
                moments.truncate(model.revision as usize);
                moments.push(model.clone());
            }
        }
        let index = store.applied().0 + 1;
        let entry = LogEntry { index, term: 1, kind: 0, data: data.clone().into() };
        let commit = index.saturating_sub(commit_lag);
        let hard_state = HardState { term: 1, vote: OLD.1.0, commit };
        spare_ready(&mut wal).await;
        let batch = Batch { entries: vec![entry], hard_state };
        wal.append(&batch).expect("room").await.expect("durable");
        store.apply(Index(index), Term(1), data.into(), |_, _| {}).expect("just encoded");
        if at == save_at && known {
            (saved, compacted) = (model.revision, model.compacted);
            let facts = store.facts(OLD.0, OLD.1);
            let job = store.tree_mut().begin_checkpoint(facts).expect("none is running");
            let done = job.run(disk.clone()).await.expect("the disk works");
            store.tree_mut().finish_checkpoint(done);
            wal.trim(index - lot.below(2).min(index - 1));
        }
    }
    Life { disk, moments, saved, compacted }
}

fn draw_or_compact(lot: &mut Lot, model: &mut Model) -> prost::bytes::Bytes {
    if !lot.one_in(30) {
        return draw(lot, model);
    }
    let revision = 1 + lot.below(model.revision as u64) as i64;
    let _refused = model.compact(revision).is_err();
    let request = proto::etcdserverpb::CompactionRequest { revision, physical: false };
    command::body(command::field::COMPACTION, &request.encode_to_vec())
}

fn find(disk: &SimDisk, revision: i64) -> Result<Held, NotHeld> {
    let disk = disk.clone();
    run(async move { Held::find(&disk, &disk, OPTIONS, false, Revision(revision)).await })
}

fn all_at(model: &Model, revision: i64) -> Vec<Vec<u8>> {
    let all = RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        revision,
        ..RangeRequest::default()
    };
    let read = model.range(&all).expect("it is held");
    read.kvs.iter().map(Message::encode_to_vec).collect()
}

#[test]
fn every_revision_of_records_and_log_comes_back_with_its_leases() {
    let (mut of_records, mut of_log) = (0, 0);
    for seed in 0..60 {
        let life = run(live(seed));
        let (oldest, newest) = (life.compacted.max(1), life.moments.len() as i64 - 1);
        for revision in oldest..=newest {
            let held = find(&life.disk, revision).unwrap_or_else(|error| panic!("{seed}: {error}"));
            let (of, exact) = (&life.moments[revision as usize], revision > life.saved);
            *(if exact { &mut of_log } else { &mut of_records }) += 1;
            is_the_moment(held, of, revision, exact, seed);
        }
        for (outside, why) in [(oldest - 1, "is compacted"), (newest + 1, "still to come")] {
            let Err(error) = find(&life.disk, outside) else { panic!("{outside} of seed {seed}") };
            let range = format!("revisions {oldest} to {newest} can be restored");
            let said = error.to_string();
            assert!(said.contains(why) && said.ends_with(&range), "{seed}: {said}");
        }
    }
    println!("{of_records} out of records, {of_log} out of logs");
    assert!(of_records > 100 && of_log > 100);
}

fn is_the_moment(held: Held, moment: &Model, revision: i64, exact: bool, seed: u64) {
    let disk = SimDisk::new(seed);
    let ours = disk.clone();
    let made = run(async move {
        let known = |id: LeaseId| held.lease(id).unwrap_or(lease_of(id));
        held.past(0).write(&ours, OPTIONS, new_facts(), known, |_| ()).await.map(drop)
    });
    made.expect("the disk works");
    let (tree, _) = opened(&disk);
    let reader = tree.reader();
    if exact {
        assert_eq!(reader.compacted().0, moment.compacted, "seed {seed} at {revision}");
    }
    assert_eq!(kvs(&tree, i64::MAX), all_at(moment, revision), "seed {seed} at {revision}");
    for (id, ttl) in &moment.leases {
        let lease = reader.lease(LeaseId(*id));
        match moment.lease_keys(*id).is_empty() {
            true => assert_eq!(lease, None),
            false if exact => assert_eq!(lease.map(|lease| lease.granted), Some(*ttl)),
            false => assert!(lease.is_some()),
        }
    }
    is_a_member(&disk);
}

/// It is whole, and a member starts from it.
fn is_a_member(disk: &SimDisk) {
    let ours = disk.clone();
    let report = run(async move { look(&ours, &ours, OPTIONS).await }).expect("it can be seen");
    assert_eq!(
        (report.verdict(), report.leftovers),
        (Verdict::Whole, vec![]),
        "{:?}",
        report.damage
    );
    let opening = Opening {
        quota: Quota::from_flag(0),
        tree: OPTIONS,
        wal_segment_bytes: WAL_SEGMENT_BYTES,
        salt: 9,
        election_ticks: 10,
        pre_vote: true,
        boot_micros: 1,
    };
    let copy = disk.fork();
    let started = run(async move {
        let disks = Disks { data: copy.clone(), wal: copy.clone(), wal_background: copy };
        recover::member(&disks, &opening, || Err("it is born already".into())).await
    });
    assert_eq!(started.expect("it starts").cluster, NEW.0);
}

/// A crash before the end leaves something that no member starts from.
#[test]
fn what_a_crash_leaves_of_it_is_no_members() {
    let history = History::draw(5, 150);
    let disk = SimDisk::new(5);
    let mut rig = Rig::new(format(&disk), 0, &history);
    while rig.apply(&history) {}
    let (view, revision) = (rig.tree.publish(), end(&history));
    let calm = SimDisk::new(6);
    run(write(calm.clone(), view.clone(), revision)).expect("the disk works");
    let (mut empty, mut half, mut whole) = (0, 0, 0);
    for boundary in 1..=calm.boundaries() {
        let disk = SimDisk::new(6 ^ boundary << 20);
        disk.crash_at(boundary);
        let crashed = || disk.crashed();
        drop(Executor::new(1).run(write(disk.clone(), view.clone(), revision), crashed));
        let crash = if boundary % 3 == 0 { Crash::Kill } else { Crash::PowerCut };
        match open(&disk.reboot(crash)).expect("a crash damages nothing") {
            None => empty += 1,
            Some((_, root)) if root.facts.revision == Revision(revision) => whole += 1,
            Some((tree, root)) => {
                let started = Store::recover(tree, Quota::from_flag(-1), &root.facts);
                let said = started.err().map(|error| error.to_string());
                assert!(said.is_some_and(|said| said.contains("the format")), "at {boundary}");
                half += 1;
            }
        }
    }
    println!("{empty} empty, {half} half made, {whole} whole");
    assert!(empty > 0 && half > 0 && whole > 0);
}
