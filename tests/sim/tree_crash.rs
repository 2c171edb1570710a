//! After any crash the tree is exactly what some checkpoint said, at least the last one that ended;
//! and the entries after it make of it what they made before.
//!
//! A seed draws a history and a schedule of checkpoints, which run while entries are applied. It
//! runs once to count the disk's operations, then again for each of them with the plug pulled
//! there: in formatting, in writing the tail, sealing, rewriting, in the superblock, in removing.

use crate::{
    disk::{Crash, Pending, SimDisk},
    executor::{Ended, Executor, Lot},
    states::beside,
    tap::{Order, Point, Tap},
    tree_model::{History, OPTIONS, Rig, checkpoint, facts, format, open, run},
};
use ringleader::{
    tree::{self, CheckpointDone, KeyRange, Lease, OpenError, RootFacts, Tree},
    types::{Index, LeaseId, Revision, Stamp},
};
use std::{cell::RefCell, collections::BTreeMap, io, pin::Pin, rc::Rc};

/// What a boot had come to when it ended.
#[derive(Clone, Copy, Default)]
struct Progress {
    formatted: bool,
    /// Applied index of the last checkpoint that ended.
    ended: u64,
    /// Applied index of the last checkpoint that began.
    begun: u64,
}

/// A boot: open or format, then entries and checkpoints beside each other.
async fn boot(disk: SimDisk, history: Rc<History>, progress: Rc<RefCell<Progress>>, seed: u64) {
    let mut lot = Lot::new(seed);
    let opened = tree::open(&disk, OPTIONS).await.expect("nothing is damaged");
    let mut rig = match opened {
        Some((tree, root)) => Rig::new(tree, root.facts.applied.0, &history),
        None => {
            let tree = tree::format(&disk, OPTIONS, facts(0, 1)).await.expect("the disk works");
            Rig::new(tree, 0, &history)
        }
    };
    progress.borrow_mut().formatted = true;
    while rig.applied < history.len() {
        for _ in 0..lot.below(12) {
            rig.apply(&history);
            rig.tree.sweep(lot.below(30) as usize);
            rig.tree.tend_index(1 + lot.below(9) as usize);
        }
        let job = rig.begin(&mut lot);
        progress.borrow_mut().begun = rig.applied;
        let began = rig.applied;
        let mut job = Box::pin(job.run(disk.clone()));
        let done = std::future::poll_fn(|context| {
            let poll = Pin::new(&mut job).poll(context);
            if poll.is_pending() && lot.one_in(4) {
                rig.apply(&history);
                rig.tree.sweep(lot.below(10) as usize);
                rig.tree.tend_index(1 + lot.below(9) as usize);
            }
            poll
        });
        let done: io::Result<CheckpointDone> = done.await;
        rig.tree.finish_checkpoint(done.expect("the disk works"));
        progress.borrow_mut().ended = began;
    }
}

/// Boots until the plug is pulled at operation `crash_at`, if it comes to that.
fn boot_until(disk: &SimDisk, history: &Rc<History>, crash_at: u64, seed: u64) -> (Progress, bool) {
    disk.crash_at(crash_at);
    let progress = Rc::new(RefCell::new(Progress::default()));
    let main = boot(disk.clone(), history.clone(), progress.clone(), seed);
    let crash = disk.clone();
    let crashed = Executor::new(seed).run(main, move || crash.crashed()) == Ended::Halted;
    let progress = *progress.borrow();
    (progress, crashed)
}

/// Opens after a crash and holds what is there against the model; says the applied index.
fn check(disk: &SimDisk, history: &History, progress: Progress, lot: &mut Lot) -> u64 {
    let Some((tree, root)) = open(disk).expect("a crash damages nothing") else {
        assert!(!progress.formatted, "a formatted directory stays formatted");
        return 0;
    };
    let applied = root.facts.applied.0;
    assert!((progress.ended..=progress.begun).contains(&applied), "{applied} is no checkpoint");
    let mut rig = Rig::new(tree, applied, history);
    assert_eq!(root.facts, rig.facts());
    history.model(applied).check(&rig.tree.reader(), lot, false);
    rig.tree.check_index().expect("a crash damages nothing");
    while !rig.tree.sweep(100) {}
    assert_eq!(rig.tree.live_bytes(), history.model(applied).kept_bytes());
    while rig.apply(history) {
        rig.tree.sweep(3);
    }
    history.model(rig.applied).check(&rig.tree.reader(), lot, false);
    applied
}

/// A lease came and went while the disk of a new member was full: what its checkpoint did not come to
/// write was removed again by the next, from a folder that was never made.
#[test]
fn what_a_full_disk_did_not_take_is_not_missed_by_the_next_checkpoint() {
    let disk = SimDisk::new(1);
    let mut tree = format(&disk);
    tree.set_lease(LeaseId(7), Lease { granted: 60, remaining: 0, since: Index(1) });
    let job = tree.begin_checkpoint(facts(1, 1)).expect("none is running");
    disk.set_space(Some(0));
    let error = run(job.run(disk.clone())).err().expect("the disk is full");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    tree.abandon_checkpoint();
    disk.set_space(None);
    assert!(tree.remove_lease(LeaseId(7)));
    let job = tree.begin_checkpoint(facts(2, 1)).expect("none is running");
    tree.finish_checkpoint(run(job.run(disk.clone())).expect("there is room"));
    assert_eq!(disk.names(), [tree::SUPERBLOCK_FILE]);
}

#[test]
fn any_crash_leaves_a_checkpoint_whole() {
    let mut states = 0;
    for seed in 0..24 {
        let history = Rc::new(History::draw(seed + 5000, 90));
        let calm = SimDisk::new(seed);
        let (_, crashed) = boot_until(&calm, &history, u64::MAX / 2, seed);
        assert!(!crashed);
        for crash_at in 1..=calm.boundaries() {
            let disk = SimDisk::new(seed ^ crash_at << 20);
            let (progress, crashed) = boot_until(&disk, &history, crash_at, seed);
            let crash = if crash_at % 3 == 0 { Crash::Kill } else { Crash::PowerCut };
            let disk = disk.reboot(crash);
            let mut lot = Lot::new(crash_at);
            let applied = check(&disk.fork(), &history, progress, &mut lot);
            states += u64::from(crashed);
            // Once more: a second crash on top of the first.
            // What was seen counts from when it was opened, not before.
            let (second, crashed) = boot_until(&disk, &history, 1 + lot.below(40), seed + 1);
            let opened = if second.formatted { applied } else { 0 };
            let progress = Progress {
                formatted: progress.formatted || second.formatted,
                ended: progress.ended.max(opened).max(second.ended),
                begun: progress.begun.max(second.begun),
            };
            check(&disk.reboot(Crash::PowerCut), &history, progress, &mut lot);
            states += u64::from(crashed);
        }
    }
    assert!(states > 3000, "only {states} crash states");
}

/// A directory with sealed, rewritten and open segments, dead records and two superblocks.
fn sample() -> (SimDisk, History, u64) {
    let has = |disk: &SimDisk, part: &str| disk.names().iter().any(|name| name.contains(part));
    let all =
        |disk: &SimDisk| [".g0", ".g1", "dead.", "leases."].iter().all(|part| has(disk, part));
    (0..).map(draw_sample).find(|(disk, ..)| all(disk)).expect("seeds do not end")
}

fn draw_sample(seed: u64) -> (SimDisk, History, u64) {
    let history = History::draw(seed, 160);
    let disk = SimDisk::new(seed);
    let mut rig = Rig::new(format(&disk), 0, &history);
    while rig.apply(&history) {
        rig.tree.sweep(30);
        if rig.applied.is_multiple_of(20) {
            checkpoint(&mut rig, &disk);
        }
    }
    (disk, history, rig.applied / 20 * 20)
}

/// Opens a damaged directory: refused with the file's name, or whole; never anything else.
fn refused_or_whole(disk: &SimDisk, history: &History, file: &str, bit: usize) -> bool {
    match open(disk) {
        Ok(Some((tree, root))) => {
            let mut lot = Lot::new(bit as u64);
            let model = history.model(root.facts.applied.0);
            model.check(&tree.reader(), &mut lot, false);
            false
        }
        Ok(None) => panic!("{file} bit {bit}: a damaged directory is not an empty one"),
        Err(error) => {
            let said = error.to_string();
            let named = said.contains(file) && said.contains("expected") && said.contains("found");
            assert!(named, "{file} bit {bit}: {said}");
            true
        }
    }
}

#[test]
fn a_flipped_bit_is_refused_by_name_or_does_not_matter() {
    let (disk, history, _) = sample();
    let mut refused = 0;
    for name in disk.names().iter().filter(|name| *name != "superblock") {
        let bits = disk.peek(name).len() * 8;
        let mut lot = Lot::new(bits as u64);
        for _ in 0..150 {
            let bit = lot.below(bits as u64) as usize;
            let damaged = disk.fork();
            damaged.flip(name, bit);
            refused += u32::from(refused_or_whole(&damaged, &history, name, bit));
        }
    }
    assert!(refused > 500, "{refused} refused");
}

#[test]
fn a_damaged_superblock_slot_leaves_the_other_or_a_refusal() {
    let (disk, history, newest) = sample();
    let slot_bits = disk.peek("superblock").len() * 8 / 2;
    for bit in 0..224 * 8 {
        for slot in 0..2 {
            let damaged = disk.fork();
            damaged.flip("superblock", slot * slot_bits + bit);
            match open(&damaged) {
                Ok(found) => {
                    let (tree, root) = found.expect("a damaged directory is not an empty one");
                    assert!(root.sibling_damage.is_some(), "bit {bit} of slot {slot}");
                    let applied = root.facts.applied;
                    assert!([newest, newest - 20].contains(&applied.0));
                    history.model(applied.0).check(&tree.reader(), &mut Lot::new(1), false);
                }
                // The older superblock names files that are gone by now.
                Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "{error}"),
            }
        }
        let damaged = disk.fork();
        damaged.flip("superblock", bit);
        damaged.flip("superblock", slot_bits + bit);
        let error = open(&damaged).err().expect("both slots are damaged");
        assert!(matches!(error, OpenError::NoRoot { .. }), "{error}");
    }
}

#[test]
fn a_file_that_is_gone_is_refused_by_name() {
    let (disk, _, _) = sample();
    for name in disk.names() {
        let less = disk.fork();
        let (removing, gone) = (less.clone(), name.clone());
        run(async move { ringleader::io::Disk::remove(&removing, &gone).await })
            .expect("it is there");
        let error = open(&less).err().expect("a needed file is gone").to_string();
        assert!(error.contains(&name) || name == "superblock", "{name}: {error}");
    }
}

#[test]
fn a_full_disk_fails_the_checkpoint_and_loses_nothing() {
    let mut failed = 0;
    for seed in 0..30 {
        let mut lot = Lot::new(seed);
        let history = History::draw(seed + 6000, 150);
        let disk = SimDisk::new(seed);
        let mut rig = Rig::new(format(&disk), 0, &history);
        let mut ended = 0;
        while rig.apply(&history) {
            rig.tree.sweep(10);
            if !lot.one_in(9) {
                continue;
            }
            let taken: u64 = disk.names().iter().map(|name| disk.peek(name).len() as u64).sum();
            disk.set_space(lot.one_in(2).then(|| taken + lot.below(12_000)));
            let job = rig.begin(&mut lot);
            match run(job.run(disk.clone())) {
                Ok(done) => {
                    rig.tree.finish_checkpoint(done);
                    ended = rig.applied;
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
                    rig.tree.abandon_checkpoint();
                    failed += 1;
                }
            }
            disk.set_space(None);
            let (tree, root) = open(&disk).expect("nothing is damaged").expect("formatted");
            assert_eq!(root.facts.applied, Index(ended));
            history.model(ended).check(&tree.reader(), &mut lot, false);
            history.model(rig.applied).check(&rig.tree.reader(), &mut lot, false);
        }
        checkpoint(&mut rig, &disk);
        let (tree, _) = open(&disk).expect("nothing is damaged").expect("formatted");
        history.model(rig.applied).check(&tree.reader(), &mut lot, true);
    }
    assert!(failed > 30, "{failed} failed");
}

#[test]
fn a_directory_of_another_format_or_size_is_refused_with_what_to_do() {
    let disk = SimDisk::new(3);
    drop(format(&disk));
    let other = tree::Options { segment_bytes: 8192, ..OPTIONS };
    let handle = disk.clone();
    let opened = run(async move { tree::open(&handle, other).await });
    let error = opened.err().expect("segments of another size").to_string();
    assert!(error.contains("4096") && error.contains("8192"), "{error}");
}

/// The disk after a checkpoint whose superblock the power cut tore: of its sectors that are others than
/// before, those live whose place `lives` says so of.
fn tear(
    disk: &SimDisk,
    tree: &mut Tree,
    facts: RootFacts,
    lives: impl Fn(usize) -> bool,
) -> SimDisk {
    let tap = Tap::new(disk.clone(), Order::Told);
    let job = tree.begin_checkpoint(facts).expect("none is running");
    drop(beside(job.run(tap.clone()), || {}).expect("the disk works"));
    let points = tap.points();
    let writes = |point: &&Point| point.what.contains("go to superblock");
    let pending = Pending::of(&points.iter().rfind(writes).expect("it is written").disk);
    assert!(pending.len() > 2, "it has sectors to lose");
    pending.cut(&(0..pending.len()).map(lives).collect::<Vec<_>>())
}

/// Its first sector came from the first attempt and the others, which were the same in both, from the
/// second; the files that it named were the second's by then.
#[test]
fn a_superblock_that_a_crash_tore_is_not_made_whole_by_the_next_crash() {
    let told = |applied: u64, state| RootFacts {
        state: vec![state; 2000].into(),
        ..facts(applied, applied as i64)
    };
    let disk = SimDisk::new(1);
    let mut tree = format(&disk);
    for applied in [1, 2] {
        let job = tree.begin_checkpoint(told(applied, 1)).expect("none is running");
        tree.finish_checkpoint(run(job.run(disk.clone())).expect("the disk works"));
    }
    tree.put(Stamp::new(3, 0), b"first", b"value", LeaseId(0));
    let disk = tear(&disk, &mut tree, told(3, 2), |sector| sector == 0);
    let (mut tree, root) = open(&disk).expect("one slot is whole").expect("formatted");
    assert_eq!(root.facts.applied, Index(2));
    assert!(root.sibling_damage.is_some());
    tree.put(Stamp::new(4, 0), b"second", b"value", LeaseId(0));
    let disk = tear(&disk, &mut tree, told(4, 2), |sector| sector > 0);
    let (tree, root) = open(&disk).expect("one slot is whole").expect("formatted");
    assert_eq!(root.facts.applied, Index(2));
    tree.check_index().expect("a crash damages nothing");
    assert_eq!(tree.reader().count(&KeyRange::ALL, Revision(4)), 0);
}

fn lease(id: LeaseId, granted: i64) -> Lease {
    Lease { granted, remaining: id.0 % 2, since: Index(id.0.unsigned_abs()) }
}

/// More leases than one piece of the file holds: it takes several writes, and a crash at each of them
/// leaves the table before or the table after.
#[test]
fn a_table_of_leases_in_many_pieces_is_whole_or_the_one_before() {
    let many = |granted: i64| (0..25_000).map(move |id| (LeaseId(id - 9_000), granted));
    let grant = |tree: &mut Tree, granted| {
        for (id, granted) in many(granted) {
            tree.set_lease(id, lease(id, granted));
        }
    };
    let calm = SimDisk::new(1);
    let mut tree = format(&calm);
    grant(&mut tree, 5);
    let job = tree.begin_checkpoint(facts(1, 1)).expect("none is running");
    tree.finish_checkpoint(run(job.run(calm.clone())).expect("the disk works"));
    let table = |disk: &SimDisk| disk.names().into_iter().find(|name| name.contains("leases."));
    let first = table(&calm).expect("there are leases");
    assert_eq!(calm.peek(&first).len(), (40_usize + 32 * 25_000).next_multiple_of(4096));

    // What did not change is not written again.
    let job = tree.begin_checkpoint(facts(2, 1)).expect("none is running");
    tree.finish_checkpoint(run(job.run(calm.clone())).expect("the disk works"));
    assert_eq!(table(&calm), Some(first));

    let mut seen = BTreeMap::new();
    for crash_at in 1.. {
        let disk = calm.fork();
        let (mut tree, _) = open(&disk).expect("nothing is damaged").expect("formatted");
        grant(&mut tree, 6);
        let job = tree.begin_checkpoint(facts(3, 1)).expect("none is running");
        disk.crash_at(crash_at);
        let crash = disk.clone();
        let run = Executor::new(crash_at).run(job.run(disk.clone()), move || crash.crashed());
        let (tree, root) = open(&disk.reboot(Crash::PowerCut)).expect("whole").expect("formatted");
        let granted = if root.facts.applied == Index(3) { 6 } else { 5 };
        let found: Vec<_> = tree.reader().leases_from(LeaseId(i64::MIN)).collect();
        let expected = many(granted);
        let expected = expected.map(|(id, granted)| (id, lease(id, granted)));
        assert!(found.into_iter().eq(expected), "crash at {crash_at}");
        *seen.entry(granted).or_insert(0) += 1;
        if !matches!(run, Ended::Halted) {
            break;
        }
    }
    assert!(seen[&5] > 3 && seen[&6] > 1, "{seen:?}");
}

/// A tombstone may be freed while the version it killed stays in a segment of live neighbours.
#[test]
fn a_deleted_key_does_not_rise_when_its_tombstone_was_freed_first() {
    let disk = SimDisk::new(4);
    let mut tree = format(&disk);
    let mut main = 1;
    let mut put = |tree: &mut tree::Tree, key: &str| {
        main += 1;
        tree.put(Stamp::new(main, 0), key.as_bytes(), &[1; 50], LeaseId(0));
        main
    };
    put(&mut tree, "gone");
    for number in 0..60 {
        put(&mut tree, &format!("kept {number}"));
    }
    for _ in 0..60 {
        put(&mut tree, "busy");
    }
    let deleted = put(&mut tree, "busy") + 1;
    tree.delete(Stamp::new(deleted, 0), b"gone");
    let mut last = deleted;
    for _ in 0..100 {
        last += 1;
        tree.put(Stamp::new(last, 0), b"busy", &[2; 50], LeaseId(0));
    }
    tree.compact(Revision(last));
    while !tree.sweep(100) {}
    let job = tree.begin_checkpoint(facts(1, last)).expect("none is running");
    tree.finish_checkpoint(run(job.run(disk.clone())).expect("the disk works"));
    let (mut again, _) = open(&disk).expect("nothing is damaged").expect("formatted");
    while !again.sweep(100) {}
    assert!(again.reader().newest(b"gone").is_none());
    assert_eq!(again.reader().count(&KeyRange::ALL, Revision(last)), 61);
    assert_eq!(again.live_bytes(), tree.live_bytes());
    let all = again.reader().changes(Stamp::default());
    assert!(!all.clone().any(|change| change.tombstone), "the tombstone was freed");
    assert!(all.into_iter().any(|change| change.key == b"gone"), "what it killed is still there");
}
