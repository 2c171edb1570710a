//! A tree sent to another member is the same tree there, whatever both were doing meanwhile, and a
//! crash leaves the old state or the new one.

use crate::{
    damage::MARK,
    disk::{Crash, SimDisk},
    executor::{Ended, Executor, Lot},
    tree_model::{History, OPTIONS, Rig, checkpoint, facts, format, open, run},
};
use ringleader::{
    tree::{
        self, CheckpointDone, InstallError, Manifest, Mark, Receiving, RootFacts, Sealed, Snapshot,
        Stage, Staged, Tree,
    },
    types::{ClusterId, Index, LeaseId, MemberId, Revision, Stamp},
};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// The member that receives.
const SELF: MemberId = MemberId(0x5e1f);

fn decode(bytes: &[u8]) -> Result<Manifest, InstallError> {
    Manifest::decode(bytes, ClusterId(0xc1), OPTIONS.segment_bytes).map_err(InstallError::Manifest)
}

async fn begin(
    disk: &SimDisk,
    own: &Sealed,
    stage: Stage,
    snapshot: &Snapshot,
) -> Receiving<SimDisk> {
    let manifest = decode(&snapshot.encode_manifest().await).expect("it was just made");
    assert_eq!(manifest.parts(), snapshot.parts());
    assert_eq!(manifest.facts().applied, snapshot.facts().applied);
    let begun = Receiving::begin(disk.clone(), OPTIONS, own, stage, manifest).await;
    begun.expect("the disk works")
}

/// Sends one part, in pieces of any size.
async fn send(receiving: &mut Receiving<SimDisk>, snapshot: &Snapshot, part: usize, lot: &mut Lot) {
    let mut offset = 0;
    for piece in snapshot.pieces(part) {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let (some, behind) = rest.split_at(rest.len().min(1 + lot.below(5000) as usize));
            receiving.receive(part, offset, some).await.expect("it is the next piece");
            offset += some.len() as u64;
            rest = behind;
        }
    }
    assert_eq!(offset, snapshot.part_bytes(part));
    receiving.finish_part(part).await.expect("it is whole");
}

/// Sends what is missing; says what that was.
async fn transfer(
    disk: SimDisk,
    own: Sealed,
    stage: Stage,
    snapshot: Snapshot,
    mut lot: Lot,
) -> (Staged, Vec<usize>) {
    let mut receiving = begin(&disk, &own, stage, &snapshot).await;
    let missing = receiving.missing();
    for part in &missing {
        send(&mut receiving, &snapshot, *part, &mut lot).await;
    }
    let staged = receiving.finish().await.map_err(|(error, _)| error).expect("all is here");
    assert_eq!(staged.applied(), snapshot.facts().applied);
    (staged, missing)
}

async fn install(staged: Staged, disk: SimDisk, number: u64) -> (Tree, RootFacts) {
    let installed = staged.install(&disk, number, SELF).await;
    installed.map_err(|(_, error)| error).expect("the disk works")
}

/// A checkpoint on its way.
type Running = Pin<Box<dyn Future<Output = io::Result<CheckpointDone>>>>;

/// A tree that lives on its disk: entries, sweeps and checkpoints, whatever else goes on there.
struct Live {
    rig: Rig,
    history: Rc<History>,
    disk: SimDisk,
    lot: Lot,
    job: Option<(u64, Running)>,
    /// Applied index of the last checkpoint that ended, and of the last that began.
    seen: Rc<RefCell<(u64, u64)>>,
}

impl Live {
    fn new(tree: Tree, applied: u64, history: &Rc<History>, disk: &SimDisk, seed: u64) -> Self {
        Self {
            rig: Rig::new(tree, applied, history),
            history: history.clone(),
            disk: disk.clone(),
            lot: Lot::new(seed),
            job: None,
            seen: Rc::new(RefCell::new((applied, applied))),
        }
    }

    fn begin(&mut self) {
        let begun = self.rig.tree.begin_checkpoint(self.rig.facts()).expect("none is running");
        self.seen.borrow_mut().1 = self.rig.applied;
        self.job = Some((self.rig.applied, Box::pin(begun.run(self.disk.clone()))));
    }

    /// Goes on a little, with entries up to `upto`.
    fn poll(&mut self, context: &mut Context<'_>, upto: u64, may_begin: bool) {
        if self.lot.one_in(3) && self.rig.applied < upto {
            self.rig.apply(&self.history);
        }
        self.rig.tree.sweep(self.lot.below(8) as usize);
        if self.job.is_none() && may_begin && self.lot.one_in(6) {
            self.begin();
        }
        if let Some((applied, job)) = &mut self.job
            && let Poll::Ready(done) = job.as_mut().poll(context)
        {
            self.rig.tree.finish_checkpoint(done.expect("the disk works"));
            self.seen.borrow_mut().0 = *applied;
            self.job = None;
        }
    }

    /// Runs `main` and goes on beside it, until that has ended and no checkpoint is running.
    async fn beside<T>(&mut self, upto: u64, main: impl Future<Output = T>) -> T {
        let mut main = Box::pin(main);
        let mut value = None;
        std::future::poll_fn(|context| {
            if value.is_none()
                && let Poll::Ready(ended) = main.as_mut().poll(context)
            {
                value = Some(ended);
            }
            self.poll(context, upto, value.is_none());
            if self.job.is_none() {
                value.take().map_or(Poll::Pending, Poll::Ready)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Entries up to `upto`, with checkpoints between them.
    fn live(&mut self, upto: u64) {
        while self.rig.applied < upto {
            self.rig.apply(&self.history);
            if self.lot.one_in(3) {
                self.rig.tree.sweep(self.lot.below(40) as usize);
            }
            if self.lot.one_in(10) {
                checkpoint(&mut self.rig, &self.disk);
            }
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let facts = self.rig.facts();
        self.rig.tree.snapshot(facts)
    }
}

/// What is on a disk is the tree after entry `applied`, and goes on as such.
fn is_the_tree(live: &mut Live, applied: u64, lot: &mut Lot, all: bool) {
    let model = live.history.model(applied);
    assert_eq!(live.rig.applied, applied);
    model.check(&live.rig.tree.reader(), lot, all);
    while !live.rig.tree.sweep(100) {}
    assert_eq!(live.rig.tree.live_bytes(), model.kept_bytes());
}

/// Checkpoints leave nothing but what a superblock names, and so what a start would not take away.
fn nothing_is_left_over(live: &mut Live) {
    let files = |disk: &SimDisk| {
        let lists = |name: &String| name.contains("dead.");
        disk.names().into_iter().filter(|name| !lists(name)).collect::<BTreeSet<_>>()
    };
    while !live.rig.tree.sweep(100) {}
    // Until there is nothing left to rewrite.
    while {
        let before = files(&live.disk);
        checkpoint(&mut live.rig, &live.disk);
        before != files(&live.disk)
    } {}
    let before = files(&live.disk);
    let (tree, root) = open(&live.disk).expect("nothing is damaged").expect("formatted");
    let mut again = Rig::new(tree, root.facts.applied.0, &live.history);
    checkpoint(&mut again, &live.disk);
    assert_eq!(before, files(&live.disk));
}

/// Sends the source's newest state to the target, which goes on meanwhile, and installs it there.
/// Says how many parts were asked for.
fn move_over(source: &mut Live, mut target: Live, lot: &mut Lot) -> (Live, usize) {
    let (applied, history) = (source.rig.applied, source.history.clone());
    let snapshot = source.snapshot();
    let own = target.rig.tree.sealed();
    let (disk, sent, dice) = (target.disk.clone(), snapshot.clone(), Lot::new(lot.draw()));
    let (target, (staged, missing)) = run(async move {
        let main = transfer(disk, own, Stage::default(), sent, dice);
        let moved = target.beside(applied, main).await;
        (target, moved)
    });
    history.model(applied).check(&staged.reader(), lot, false);
    let number = target.rig.tree.superblock();
    let (tree, facts) = run(install(staged, target.disk.clone(), number));
    assert_eq!((facts.member, facts.installed), (SELF, Index(applied)));
    let theirs = RootFacts { member: SELF, installed: Index(applied), ..snapshot.facts().clone() };
    assert_eq!(facts, theirs);
    let copy = target.disk.fork();
    let (again, root) = open(&copy).expect("whole").expect("formatted");
    assert_eq!((root.facts, root.number), (facts, number + 1));
    let mut again = Live::new(again, applied, &history, &copy, lot.draw());
    is_the_tree(&mut again, applied, lot, false);
    let tree =
        if lot.one_in(2) { tree } else { open(&target.disk).expect("whole").expect("formatted").0 };
    let mut target = Live::new(tree, applied, &history, &target.disk, lot.draw());
    is_the_tree(&mut target, applied, lot, false);
    (target, missing.len())
}

#[test]
fn a_snapshot_makes_the_same_tree_elsewhere_and_that_makes_others() {
    let (mut asked, mut had) = (0, 0);
    for seed in 0..60 {
        let mut lot = Lot::new(seed);
        let history = Rc::new(History::draw(seed + 8000, 260));
        let member = |seed| {
            let disk = SimDisk::new(seed);
            Live::new(format(&disk), 0, &history, &disk, seed)
        };
        let (mut source, mut target) = (member(2 * seed), member(2 * seed + 1));
        // The receiver is behind, by little or much.
        target.live(lot.below(100));
        for _ in 0..4 {
            let ahead = source.rig.applied.max(target.rig.applied) + lot.below(60);
            source.live(ahead.min(history.len()));
            let parts = source.snapshot().parts();
            let (installed, missing) = move_over(&mut source, target, &mut lot);
            (target, asked, had) = (installed, asked + missing, had + parts - missing);
            let further = target.rig.applied + lot.below(40);
            target.live(further.min(history.len()));
            let applied = target.rig.applied;
            is_the_tree(&mut target, applied, &mut lot, false);
            if lot.one_in(2) {
                // The one that received sends.
                std::mem::swap(&mut source, &mut target);
            }
        }
        nothing_is_left_over(&mut target);
    }
    assert!(asked > 300 && had > 300, "{asked} parts asked for, {had} there");
}

/// A member that got a snapshot closes its segments where all others do, so that the next snapshot
/// finds them there.
#[test]
fn who_had_a_snapshot_asks_only_for_what_came_since() {
    let (here, there) = (SimDisk::new(1), SimDisk::new(2));
    let (mut source, target) = (format(&here), format(&there));
    let write = |tree: &mut Tree, disk: &SimDisk, from: i64, to: i64| {
        for main in from..to {
            tree.put(Stamp::new(main, 0), &main.to_be_bytes(), &[main as u8; 90], LeaseId(0));
            if main % 30 == 0 {
                save(tree, disk, main);
            }
        }
    };
    let move_over = |source: &mut Tree, target: Tree, main: i64| {
        let (snapshot, own) = (source.snapshot(facts(main as u64, main)), target.sealed());
        let parts = snapshot.parts();
        let moved = transfer(there.clone(), own, Stage::default(), snapshot, Lot::new(1));
        let (staged, missing) = run(moved);
        let number = target.superblock();
        (run(install(staged, there.clone(), number)).0, parts, missing)
    };
    write(&mut source, &here, 2, 400);
    let (mut target, parts, missing) = move_over(&mut source, target, 399);
    assert_eq!(missing.len(), parts, "it had nothing");
    write(&mut source, &here, 400, 1000);
    write(&mut target, &there, 400, 970);
    let (target, parts, missing) = move_over(&mut source, target, 999);
    assert!(parts > 30 && missing.len() <= 3, "{missing:?} of {parts}");
    assert!(
        target.reader().changes(Stamp::default()).eq(source.reader().changes(Stamp::default()))
    );
    assert_eq!(target.reader().complete_above(), Revision(0), "nothing ever died");
}

fn save(tree: &mut Tree, disk: &SimDisk, main: i64) {
    let job = tree.begin_checkpoint(facts(main as u64, main)).expect("none is running");
    tree.finish_checkpoint(run(job.run(disk.clone())).expect("the disk works"));
}

// ── crashes ─────────────────────────────────────────────────────────────────────────────────────

/// What a boot that receives had come to when it ended.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// Applied index of the last checkpoint of the old tree that ended, and of the last that began.
    ended: u64,
    begun: u64,
    installing: bool,
    installed: bool,
    /// Applied index of the last checkpoint of the new tree that ended, and of the last that began.
    since: (u64, u64),
}

/// Opens, receives `snapshot` beside its own life, installs it, and goes on.
async fn receive_boot(
    disk: SimDisk,
    history: Rc<History>,
    snapshot: Snapshot,
    progress: Rc<RefCell<Progress>>,
    seed: u64,
) {
    let (tree, root) = tree::open(&disk, OPTIONS).await.expect("whole").expect("formatted");
    let applied = snapshot.facts().applied.0;
    if root.facts.applied.0 >= applied {
        return;
    }
    let mut live = Live::new(tree, root.facts.applied.0, &history, &disk, seed);
    let seen = live.seen.clone();
    let own = live.rig.tree.sealed();
    let main = transfer(disk.clone(), own, Stage::default(), snapshot, Lot::new(seed));
    let mut main = Box::pin(live.beside(applied - 1, main));
    let noting = std::future::poll_fn(|context| {
        let polled = main.as_mut().poll(context);
        let mut progress = progress.borrow_mut();
        (progress.ended, progress.begun) = *seen.borrow();
        polled
    });
    let (staged, _) = noting.await;
    drop(main);
    progress.borrow_mut().installing = true;
    let number = live.rig.tree.superblock();
    let (tree, _) = install(staged, disk.clone(), number).await;
    progress.borrow_mut().installed = true;
    let mut live = Live::new(tree, applied, &history, &disk, seed + 9);
    progress.borrow_mut().since = (applied, applied);
    for _ in 0..2 {
        for _ in 0..live.lot.below(12) {
            live.rig.apply(&history);
            live.rig.tree.sweep(5);
        }
        progress.borrow_mut().since.1 = live.rig.applied;
        let begun = live.rig.tree.begin_checkpoint(live.rig.facts()).expect("none is running");
        live.rig.tree.finish_checkpoint(begun.run(disk.clone()).await.expect("the disk works"));
        progress.borrow_mut().since.0 = live.rig.applied;
    }
}

/// Boots until the plug is pulled at operation `crash_at`, if it comes to that.
fn boot_until(
    disk: &SimDisk,
    history: &Rc<History>,
    snapshot: &Snapshot,
    crash_at: u64,
    seed: u64,
) -> (Progress, bool) {
    disk.crash_at(crash_at);
    let progress = Rc::new(RefCell::new(Progress::default()));
    let main =
        receive_boot(disk.clone(), history.clone(), snapshot.clone(), progress.clone(), seed);
    let crash = disk.clone();
    let crashed = Executor::new(seed).run(main, move || crash.crashed()) == Ended::Halted;
    let progress = *progress.borrow();
    (progress, crashed)
}

#[test]
fn a_crash_leaves_the_old_state_or_the_snapshot() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..10 {
        let mut lot = Lot::new(seed);
        let history = Rc::new(History::draw(seed + 9000, 130));
        let away = SimDisk::new(seed);
        let mut source = Live::new(format(&away), 0, &history, &away, seed);
        source.live(100);
        let snapshot = source.snapshot();
        let before = SimDisk::new(seed + 100);
        let mut target = Live::new(format(&before), 0, &history, &before, seed + 1);
        target.live(20 + lot.below(70));
        checkpoint(&mut target.rig, &before);
        let behind = target.rig.applied;
        for crash_at in 1.. {
            let disk = before.fork();
            let (progress, crashed) = boot_until(&disk, &history, &snapshot, crash_at, seed);
            let crash = if crash_at % 3 == 0 { Crash::Kill } else { Crash::PowerCut };
            let disk = disk.reboot(crash);
            let context = format!("seed {seed} boundary {crash_at}");
            let (tree, root) = open(&disk).expect("a crash damages nothing").expect("formatted");
            let applied = root.facts.applied.0;
            if applied < 100 {
                assert!(!progress.installed, "{context}: what was installed is lost");
                let ended = progress.ended.max(behind);
                assert!((ended..=progress.begun.max(ended)).contains(&applied), "{context}");
                old += 1;
            } else {
                assert!(progress.installing, "{context}: it counts too early");
                let (ended, begun) = progress.since;
                assert!((ended.max(100)..=begun.max(100)).contains(&applied), "{context}");
                if applied == 100 && ended < 101 && begun < 101 {
                    assert_eq!((root.facts.member, root.facts.installed), (SELF, Index(100)));
                }
                new += 1;
            }
            let mut live = Live::new(tree, applied, &history, &disk, crash_at);
            is_the_tree(&mut live, applied, &mut lot, false);
            if crash_at % 7 == 0 {
                nothing_is_left_over(&mut live);
            }
            // It is tried again after the crash, and may crash again.
            let (again, _) =
                boot_until(&disk, &history, &snapshot, 1 + lot.below(80), seed + crash_at);
            let disk = disk.reboot(Crash::PowerCut);
            let (tree, root) = open(&disk).expect("a crash damages nothing").expect("formatted");
            let applied = root.facts.applied.0;
            assert!(applied >= 100 || !again.installed, "{context}");
            let mut live = Live::new(tree, applied, &history, &disk, crash_at);
            is_the_tree(&mut live, applied, &mut lot, false);
            if !crashed {
                break;
            }
        }
    }
    assert!(old > 500 && new > 100, "{old} old, {new} new");
}

// ── in place of a damaged tree ──────────────────────────────────────────────────────────────────

/// Stands in for what is there, takes a snapshot in its place, and one checkpoint behind it.
async fn stand_in_boot(disk: SimDisk, snapshot: Snapshot, seed: u64) {
    let (tree, _) = tree::stand_in(&disk, OPTIONS).await.expect("its superblock is whole");
    assert_eq!((tree.disk_bytes(), tree.reader().changes(Stamp::default()).count()), (4096, 0));
    let (own, number) = (tree.sealed(), tree.superblock());
    let (staged, missing) =
        transfer(disk.clone(), own, Stage::default(), snapshot.clone(), Lot::new(seed)).await;
    assert_eq!(missing.len(), snapshot.parts(), "nothing of the damaged tree is used");
    let (mut tree, facts) = install(staged, disk.clone(), number).await;
    let job = tree.begin_checkpoint(facts).expect("none is running");
    tree.finish_checkpoint(job.run(disk).await.expect("the disk works"));
}

#[test]
fn what_stands_in_for_a_damaged_tree_leaves_all_of_it_until_a_snapshot_counts() {
    let (source, snapshot) = source_of_all_kinds();
    let damaged = SimDisk::new(7);
    let mut target = Live::new(format(&damaged), 0, &source.history, &damaged, 7);
    target.live(90);
    checkpoint(&mut target.rig, &damaged);
    let (_, before) = open(&damaged).expect("nothing looks yet").expect("formatted");
    let file = before.files().next().expect("there are records");
    let mark = Mark { file: file.clone(), flaw: "byte 4097".into() };
    damaged.leave(MARK, &mark.encode());
    let old: BTreeSet<_> = before.files().collect();
    let (mut kept, mut replaced) = (0, 0);
    for crash_at in 1.. {
        let disk = damaged.fork();
        disk.crash_at(crash_at);
        let (main, crash) = (stand_in_boot(disk.clone(), snapshot.clone(), crash_at), disk.clone());
        let crashed = Executor::new(crash_at).run(main, move || crash.crashed()) == Ended::Halted;
        let disk = disk.reboot(Crash::PowerCut);
        let (tree, root) = open(&disk).expect("a crash damages nothing").expect("formatted");
        let names = disk.names();
        if root.number == before.number {
            let (looked, left) = (disk.clone(), mark.clone());
            run(async move { assert_eq!(Mark::read(&looked).await.ok(), Some(Some(left))) });
            assert!(old.iter().all(|name| names.contains(name)), "boundary {crash_at}");
            kept += 1;
        } else {
            assert!(root.files().all(|name| !old.contains(&name)), "boundary {crash_at}");
            let applied = snapshot.facts().applied.0;
            let mut live = Live::new(tree, applied, &source.history, &disk, crash_at);
            is_the_tree(&mut live, applied, &mut Lot::new(crash_at), false);
            replaced += 1;
        }
        if !crashed {
            assert!(!names.iter().any(|name| name == MARK || old.contains(name)), "{names:?}");
            break;
        }
    }
    assert!(kept > 20 && replaced > 5, "{kept} kept, {replaced} replaced");
}

// ── what is refused ─────────────────────────────────────────────────────────────────────────────

/// A source with every kind of part.
fn source_of_all_kinds() -> (Live, Snapshot) {
    (0..)
        .map(|seed| {
            let history = Rc::new(History::draw(seed, 160));
            let disk = SimDisk::new(seed);
            let mut source = Live::new(format(&disk), 0, &history, &disk, seed);
            source.live(160);
            let snapshot = source.snapshot();
            (source, snapshot)
        })
        .find(|(source, snapshot)| {
            let segments = source.disk.names().iter().filter(|name| name.contains(".g")).count();
            let generations = source.disk.names().iter().any(|name| name.ends_with(".g1"));
            generations && snapshot.parts() >= segments + 2
        })
        .expect("seeds do not end")
}

#[test]
fn no_byte_of_a_manifest_may_change() {
    let (_, snapshot) = source_of_all_kinds();
    let bytes = run(async move { snapshot.encode_manifest().await });
    decode(&bytes).expect("it is whole");
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged).is_err(), "bit {bit} went unnoticed");
    }
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "cut at {len}");
    }
    let more = [&bytes[..], &[0]].concat();
    assert!(decode(&more).is_err(), "a byte more");
    let error = Manifest::decode(&bytes, ClusterId(0xc2), OPTIONS.segment_bytes);
    assert!(error.expect_err("another cluster's").to_string().contains("cluster"));
    let error = Manifest::decode(&bytes, ClusterId(0xc1), 2 * OPTIONS.segment_bytes);
    assert!(error.expect_err("other segments").to_string().contains("segments"));
}

#[test]
fn a_part_with_a_changed_byte_is_refused_by_name_and_may_come_again() {
    let (_, snapshot) = source_of_all_kinds();
    let disk = SimDisk::new(5);
    let own = format(&disk).sealed();
    run(async move {
        let mut lot = Lot::new(5);
        let mut receiving = begin(&disk, &own, Stage::default(), &snapshot).await;
        for part in receiving.missing() {
            let whole: Vec<u8> = snapshot.pieces(part).flatten().collect();
            for _ in 0..25 {
                let mut damaged = whole.clone();
                damaged[lot.below(whole.len() as u64) as usize] ^= 1 << lot.below(8);
                receiving.receive(part, 0, &damaged).await.expect("nothing is checked yet");
                let error = receiving.finish_part(part).await.expect_err("it is damaged");
                assert!(matches!(error, InstallError::Part { part: of, .. } if of == part));
                assert!(error.to_string().contains(&format!("part {part} ")), "{error}");
            }
            let half = whole.len() / 2;
            receiving.receive(part, 0, &whole[..half]).await.expect("it is the next piece");
            let at = |error: InstallError| match error {
                InstallError::Part { part: of, flaw } if of == part => flaw.offset,
                error => panic!("{error}"),
            };
            let error = receiving.receive(part, 0, &whole).await.expect_err("it begins twice");
            assert_eq!(at(error), 0);
            let gap = receiving.receive(part, half as u64 + 1, &[1]).await.expect_err("a gap");
            assert_eq!(at(gap), half as u64 + 1);
            let more = receiving.receive(part, half as u64, &whole).await.expect_err("more");
            assert_eq!(at(more), half as u64);
            let other = (part + 1) % snapshot.parts();
            receiving.receive(other, 0, &[1]).await.expect_err("one part after the other");
            let short = receiving.finish_part(part).await.expect_err("it is cut off");
            assert_eq!(at(short), half as u64);
            send(&mut receiving, &snapshot, part, &mut lot).await;
            receiving.receive(part, 0, &whole).await.expect_err("it is here already");
        }
        receiving.receive(snapshot.parts(), 0, &[1]).await.expect_err("there is no such part");
        receiving.finish().await.map_err(|(error, _)| error).expect("all is whole");
    });
}

/// Numbers of a manifest that are not what they were, under a checksum that fits: refused somewhere,
/// or of no matter.
#[test]
fn whatever_a_manifest_says_nothing_panics() {
    let (_, snapshot) = source_of_all_kinds();
    let (mut refused, mut taken) = ([0; 4], 0);
    for seed in 0..600 {
        let disk = SimDisk::new(seed);
        let own = format(&disk).sealed();
        let sent = snapshot.clone();
        let stage = run(async move {
            let mut lot = Lot::new(seed);
            let mut bytes = sent.encode_manifest().await.to_vec();
            let at = lot.below(bytes.len() as u64 / 8 - 3) as usize * 8 + 24;
            let word: [u8; 8] = bytes[at..at + 8].try_into().expect("eight bytes");
            let new = match lot.below(4) {
                0 => lot.draw(),
                1 => u64::MAX,
                2 => u64::from_le_bytes(word).wrapping_add(1 + lot.below(8)),
                _ => u64::from_le_bytes(word).wrapping_sub(1 + lot.below(8)),
            };
            bytes[at..at + 8].copy_from_slice(&new.to_le_bytes());
            let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..]].concat());
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            let Ok(manifest) = decode(&bytes) else { return 0 };
            let begun = Receiving::begin(disk.clone(), OPTIONS, &own, Stage::default(), manifest);
            let mut receiving = begun.await.expect("the disk works");
            for part in receiving.missing() {
                let whole: Vec<u8> = sent.pieces(part).flatten().collect();
                if receiving.receive(part, 0, &whole).await.is_err() {
                    return 1;
                }
                if receiving.finish_part(part).await.is_err() {
                    return 1;
                }
            }
            match receiving.finish().await {
                Err(_) => 2,
                Ok(staged) => {
                    install(staged, disk, 1).await;
                    3
                }
            }
        });
        refused[stage] += 1;
        taken += usize::from(stage == 3);
    }
    assert!(refused[0] > 100 && refused[1] > 10 && taken > 10, "{refused:?}");
}

#[test]
fn a_store_without_a_key_is_sent_too() {
    let (here, there) = (SimDisk::new(1), SimDisk::new(2));
    let (mut source, target) = (format(&here), format(&there));
    let snapshot = source.snapshot(facts(7, 1));
    assert_eq!(snapshot.parts(), 0);
    let own = target.sealed();
    let moved = transfer(there.clone(), own, Stage::default(), snapshot, Lot::new(1));
    let (staged, missing) = run(moved);
    assert!(missing.is_empty());
    let (mut tree, _) = run(install(staged, there.clone(), target.superblock()));
    tree.put(Stamp::new(2, 0), b"first", b"", LeaseId(0));
    save(&mut tree, &there, 2);
    let (tree, root) = open(&there).expect("whole").expect("formatted");
    assert_eq!(root.facts.applied, Index(2));
    assert!(tree.reader().newest(b"first").is_some());
}

#[test]
fn a_transfer_that_broke_off_goes_on_with_its_next_part() {
    let (mut source, snapshot) = source_of_all_kinds();
    // What comes after leaves the closed segments as they are.
    let facts = source.rig.facts();
    let later = source.rig.tree.snapshot(facts);
    let disk = SimDisk::new(6);
    let own = format(&disk).sealed();
    let empty = disk.names();
    let after = disk.clone();
    run(async move {
        let mut lot = Lot::new(6);
        let mut receiving = begin(&disk, &own, Stage::default(), &snapshot).await;
        let missing = receiving.missing();
        assert_eq!(missing.len(), snapshot.parts());
        let whole = missing.len() / 2;
        for part in &missing[..whole] {
            send(&mut receiving, &snapshot, *part, &mut lot).await;
        }
        receiving.receive(missing[whole], 0, &[1, 2, 3]).await.expect("it is the next piece");
        let (error, stage) = receiving.finish().await.expect_err("parts are missing");
        assert!(matches!(error, InstallError::Missing { part } if part == missing[whole]));
        let (staged, asked) =
            transfer(disk.clone(), own.clone(), stage, later.clone(), Lot::new(7)).await;
        assert_eq!(asked, missing[whole..]);
        // Given up at last, and once more: now only what is not a closed segment is asked for.
        let (staged, asked) = transfer(disk.clone(), own, staged.abandon(), later, lot).await;
        assert!(!asked.is_empty() && asked.len() <= 3, "{asked:?}");
        let stage = staged.abandon();
        assert!(disk.names().len() > empty.len());
        stage.discard(&disk).await.expect("the disk works");
        assert_eq!(disk.names(), empty);
    });
    assert!(open(&after).expect("nothing is damaged").is_some());
}

/// Segments die at the receiver while it uses them for a snapshot: their files go, their records stay.
#[test]
fn segments_whose_files_the_live_tree_removes_are_written_again() {
    for between in [false, true] {
        let put = |tree: &mut Tree, main: i64| {
            let key = if main % 9 == 0 { format!("{main}") } else { format!("busy {}", main % 3) };
            tree.put(Stamp::new(main, 0), key.as_bytes(), &[main as u8; 60], LeaseId(0));
        };
        let (here, there) = (SimDisk::new(1), SimDisk::new(2));
        let (mut source, mut target) = (format(&here), format(&there));
        for main in 2..300 {
            put(&mut source, main);
            put(&mut target, main);
        }
        save(&mut target, &there, 299);
        put(&mut source, 300);
        let snapshot = source.snapshot(facts(300, 300));
        let own = target.sealed();
        let die = |target: &mut Tree| {
            target.compact(Revision(299));
            while !target.sweep(1000) {}
            for _ in 0..2 {
                save(target, &there, 299);
            }
        };
        let before = there.names().len();
        if !between {
            die(&mut target);
        }
        let moved = transfer(there.clone(), own, Stage::default(), snapshot, Lot::new(1));
        let (staged, missing) = run(moved);
        assert_eq!(missing.len(), 1, "only the tail");
        if between {
            die(&mut target);
        }
        assert!(there.names().iter().filter(|name| name.ends_with(".g0")).count() < before / 2);
        let number = target.superblock();
        drop(target);
        let (tree, facts) = run(install(staged, there.clone(), number));
        let (again, root) = open(&there).expect("whole").expect("formatted");
        assert_eq!(root.facts, facts);
        for tree in [tree, again] {
            let found = tree.reader().changes(Stamp::default());
            assert!(found.eq(source.reader().changes(Stamp::default())), "{between}");
            for main in [2, 100, 300] {
                let found = tree.reader().scan(&tree::KeyRange::ALL, Revision(main));
                let kvs: Vec<_> = found.map(|found| found.kv().to_vec()).collect();
                let source = source.reader().scan(&tree::KeyRange::ALL, Revision(main));
                assert_eq!(kvs, source.map(|found| found.kv().to_vec()).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_full_disk_breaks_a_transfer_off_and_leaves_the_live_tree() {
    let (source, snapshot) = source_of_all_kinds();
    let mut full = 0;
    for room in (0..60).map(|step| step * 4096) {
        let disk = SimDisk::new(room);
        let mut live = Live::new(format(&disk), 0, &source.history, &disk, room);
        live.live(30);
        checkpoint(&mut live.rig, &disk);
        let (own, number) = (live.rig.tree.sealed(), live.rig.tree.superblock());
        let taken: u64 = disk.names().iter().map(|name| disk.peek(name).len() as u64).sum();
        let before = disk.names();
        disk.set_space(Some(taken + room));
        let (ours, sent) = (disk.clone(), snapshot.clone());
        let ended: Result<(), io::Error> = run(async move {
            let mut receiving = begin(&ours, &own, Stage::default(), &sent).await;
            let mut failed = None;
            'parts: for part in receiving.missing() {
                let mut offset = 0;
                for piece in sent.pieces(part) {
                    if let Err(error) = receiving.receive(part, offset, &piece).await {
                        failed = Some(error);
                        break 'parts;
                    }
                    offset += piece.len() as u64;
                }
                if let Err(error) = receiving.finish_part(part).await {
                    failed = Some(error);
                    break;
                }
            }
            let (error, stage) = match failed {
                Some(InstallError::Disk(error)) => (error, receiving.abandon()),
                Some(error) => panic!("{error}"),
                None => {
                    let staged = receiving.finish().await.map_err(|(error, _)| error);
                    match staged.expect("all is here").install(&ours, number, SELF).await {
                        Ok(_) => return Ok(()),
                        Err((staged, error)) => (error, staged.abandon()),
                    }
                }
            };
            stage.discard(&ours).await.expect("removing needs no room");
            Err(error)
        });
        disk.set_space(None);
        let (tree, root) = open(&disk).expect("nothing is damaged").expect("formatted");
        if let Err(error) = ended {
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
            assert_eq!((root.facts.applied, disk.names()), (Index(30), before));
            full += 1;
        } else {
            assert_eq!(root.facts.applied, Index(160));
        }
        let mut live = Live::new(tree, root.facts.applied.0, &source.history, &disk, room);
        let applied = live.rig.applied;
        is_the_tree(&mut live, applied, &mut Lot::new(room), false);
    }
    assert!((5..60).contains(&full), "{full} of 60 times the disk was full");
}
