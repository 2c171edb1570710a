//! Whatever the log acknowledged is there after any crash, in order, and nothing else is.
//!
//! A seed draws a workload; it is run once to count its boundaries, then once more for each of them
//! with the plug pulled there. What is found afterwards must be what a prefix of the appended
//! frames says, and that prefix must hold every acknowledged one.

use crate::{
    disk::{Crash, Faults, SimDisk},
    executor::{Ended, Executor, Lot},
};
use bytes::Bytes;
use ringleader::{
    io::BLOCK_BYTES,
    wal::{
        Batch, HardState, LogEntry, Options, Recovered, Wal, WalError,
        frame::{self, Seen},
        segment::{self, Opening},
    },
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
    task::Poll,
};

type SimWal = Wal<SimDisk>;

/// What a log means: the specification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    entries: BTreeMap<u64, LogEntry>,
    hard_state: HardState,
    trimmed: u64,
    last_index: u64,
}

impl Model {
    fn trim(&mut self, through: u64) {
        self.trimmed = self.trimmed.max(through);
        self.last_index = self.last_index.max(self.trimmed);
        self.entries.retain(|index, _| *index > self.trimmed);
    }

    fn append(&mut self, batch: &Batch) {
        self.hard_state = batch.hard_state;
        if let Some(first) = batch.entries.first() {
            self.entries.retain(|index, _| *index < first.index);
        }
        for entry in &batch.entries {
            self.last_index = entry.index;
            self.entries.insert(entry.index, entry.clone());
        }
    }
}

/// What one boot did to the log.
#[derive(Debug, Default, PartialEq)]
struct History {
    /// The log when the boot began, and its last frame.
    base: Model,
    base_frame: u64,
    /// Each append with the trim it carried, from `base_frame + 1` on.
    appended: Vec<(Batch, u64)>,
    acknowledged: u64,
    acknowledgements: u64,
    trim_wanted: u64,
}

impl History {
    fn behind(base: Model, base_frame: u64) -> Self {
        let trim_wanted = base.trimmed;
        Self { base, base_frame, acknowledged: base_frame, trim_wanted, ..Self::default() }
    }

    fn in_flight(&self) -> u64 {
        self.appended.len() as u64 - self.acknowledgements
    }

    fn model_at(&self, frame: u64) -> Model {
        let mut model = self.base.clone();
        for (batch, trim) in &self.appended[..(frame - self.base_frame) as usize] {
            model.trim(*trim);
            model.append(batch);
        }
        model
    }

    /// Checks what a recovery found; returns the log as it now is.
    fn check(&self, wal: &SimWal, found: &Recovered, context: &str) -> History {
        let (frame, newest) = (wal.durable_frame(), self.base_frame + self.appended.len() as u64);
        assert!(self.acknowledged <= frame, "{context}: frame {} is lost", self.acknowledged);
        assert!(frame <= newest, "{context}: frame {frame} was never appended");
        let mut expected = self.model_at(frame);
        assert!(expected.trimmed <= found.trimmed, "{context}: a trim is lost");
        assert!(found.trimmed <= self.trim_wanted, "{context}: a trim is invented");
        expected.trim(found.trimmed);
        assert_eq!(found.hard_state, expected.hard_state, "{context}");
        let entries: Vec<LogEntry> = expected.entries.values().cloned().collect();
        assert_eq!(found.entries, entries, "{context}");
        assert_eq!(wal.last_index(), expected.last_index, "{context}");
        assert_eq!(wal.first_index(), found.trimmed + 1, "{context}");
        if let Some(torn) = &found.torn {
            assert_eq!(torn.frame, frame + 1, "{context}: {torn}");
        }
        History::behind(expected, frame)
    }
}

fn options(segment_blocks: u64, salt: u64) -> Options {
    let segment_bytes = segment_blocks * BLOCK_BYTES as u64;
    Options { segment_bytes, cluster: 0xc1, member: 0x3e, salt }
}

async fn open(disk: SimDisk, options: Options) -> Result<(SimWal, Recovered), WalError> {
    Wal::open(disk.clone(), disk, options).await
}

/// Runs `main` until it ends or the disk loses power.
fn run<T: 'static>(
    disk: &SimDisk,
    seed: u64,
    main: impl AsyncFnOnce(Executor) -> T + 'static,
) -> Ended<T> {
    let executor = Executor::new(seed);
    let handle = executor.clone();
    let off = disk.clone();
    executor.run(async move { main(handle).await }, move || off.crashed())
}

/// One boot's work, drawn from a seed.
#[derive(Clone)]
struct Load {
    lot: Lot,
    executor: Executor,
    wal: Rc<RefCell<SimWal>>,
    history: Rc<RefCell<History>>,
    depth: u64,
    serial: u64,
    committed: u64,
    preparing: Rc<RefCell<bool>>,
}

impl Load {
    fn new(seed: u64, executor: Executor, wal: SimWal, history: Rc<RefCell<History>>) -> Self {
        let mut lot = Lot::new(seed);
        let depth = 1 + lot.below(4);
        let (serial, committed) = {
            let history = history.borrow();
            (history.base.hard_state.commit, history.base.trimmed)
        };
        let wal = Rc::new(RefCell::new(wal));
        let preparing = Rc::new(RefCell::new(false));
        Self { lot, executor, wal, history, depth, serial, committed, preparing }
    }

    async fn work(mut self, steps: u64) {
        for _ in 0..steps {
            match self.lot.below(12) {
                0 => self.drain().await,
                1 | 2 => self.trim(),
                3 => self.start_over().await,
                4 => self.prepare(),
                _ => self.append().await,
            }
        }
        self.drain().await;
        self.fall_idle().await;
    }

    /// One more frame with nothing in flight: it proves all before it.
    async fn fall_idle(&mut self) {
        self.serial += 1;
        let hard_state = HardState { commit: self.serial, ..HardState::default() };
        self.send(Batch { entries: Vec::new(), hard_state }).await;
        self.drain().await;
    }

    /// Lets the disk finish everything; what is there then counts as committed.
    async fn drain(&mut self) {
        self.wait_until(|load| load.history.borrow().in_flight() == 0).await;
        self.committed = self.wal.borrow().last_index();
    }

    fn trim(&mut self) {
        let trimmed = self.history.borrow().trim_wanted;
        let through = trimmed + self.lot.below(self.committed.max(trimmed) - trimmed + 1);
        self.wal.borrow_mut().trim(through);
        self.history.borrow_mut().trim_wanted = through;
    }

    /// Now and then the log goes on behind a gap, as after a snapshot from elsewhere.
    async fn start_over(&mut self) {
        if self.lot.one_in(4) {
            self.drain().await;
            self.committed += self.lot.below(50);
            self.wal.borrow_mut().trim(self.committed);
            let mut history = self.history.borrow_mut();
            history.trim_wanted = history.trim_wanted.max(self.committed);
        }
    }

    fn batch(&mut self) -> Batch {
        self.serial += 1;
        let last = self.wal.borrow().last_index();
        let replaces = self.lot.one_in(5);
        let first = if replaces {
            self.committed + 1 + self.lot.below(last - self.committed + 1)
        } else {
            last + 1
        };
        let count = self.lot.below(4);
        let term = self.serial;
        let entries = (first..first + count).map(|index| {
            let bytes = [30, 500, 5000][self.lot.below(3) as usize];
            let data = vec![self.lot.draw() as u8; self.lot.below(bytes) as usize];
            LogEntry { index, term, kind: self.lot.draw() as u8, data: Bytes::from(data) }
        });
        let entries = entries.collect();
        Batch {
            entries,
            hard_state: HardState { term, vote: self.lot.below(3), commit: self.serial },
        }
    }

    async fn append(&mut self) {
        let depth = self.depth;
        self.wait_until(|load| load.history.borrow().in_flight() < depth).await;
        let batch = self.batch();
        self.send(batch).await;
    }

    async fn send(&mut self, batch: Batch) {
        loop {
            let attempt = self.wal.borrow_mut().append(&batch);
            let durable = match attempt {
                Ok(durable) => durable,
                Err(WalError::NoSpare) => {
                    self.prepare();
                    self.wait_until(|load| !*load.preparing.borrow()).await;
                    continue;
                }
                Err(other) => panic!("append: {other}"),
            };
            let history = self.history.clone();
            let trim = history.borrow().trim_wanted;
            history.borrow_mut().appended.push((batch, trim));
            let expected = {
                let history = history.borrow();
                history.base_frame + history.appended.len() as u64
            };
            self.executor.spawn(async move {
                let number = durable.await.expect("no faults are armed");
                assert_eq!(number, expected, "frames count up without gaps");
                let mut history = history.borrow_mut();
                history.acknowledged = history.acknowledged.max(number);
                history.acknowledgements += 1;
            });
            return;
        }
    }

    /// Starts preparing in the background, if it is not under way.
    fn prepare(&mut self) {
        if self.preparing.replace(true) {
            return;
        }
        let Some(work) = self.wal.borrow_mut().prepare() else {
            self.preparing.replace(false);
            return;
        };
        let (wal, preparing) = (self.wal.clone(), self.preparing.clone());
        self.executor.spawn(async move {
            let prepared = work.await.expect("no faults are armed");
            wal.borrow_mut().prepared(prepared);
            preparing.replace(false);
        });
    }

    async fn wait_until(&self, ready: impl Fn(&Self) -> bool) {
        std::future::poll_fn(|context| {
            if ready(self) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// One boot: opens the log, checks it against what the boot before did, and works. What this boot
/// did is in `history` afterwards, however it ended.
fn boot(
    disk: &SimDisk,
    seed: u64,
    blocks: u64,
    steps: u64,
    history: &Rc<RefCell<History>>,
) -> Ended<()> {
    let (ours, history) = (disk.clone(), history.clone());
    run(disk, seed, async move |executor: Executor| {
        let (wal, found) = open(ours, options(blocks, seed)).await.expect("the log opens");
        let after = history.borrow().check(&wal, &found, &format!("seed {seed}"));
        *history.borrow_mut() = after;
        Load::new(seed, executor, wal, history).work(steps).await;
    })
}

/// Opens the log once, checks it, and leaves it.
fn recover(
    disk: &SimDisk,
    seed: u64,
    blocks: u64,
    before: &History,
    context: &str,
) -> Ended<History> {
    let ours = disk.clone();
    let ended = run(disk, seed, async move |_| {
        open(ours, options(blocks, seed)).await.map_err(|error| error.to_string())
    });
    match ended {
        Ended::Done(Ok((wal, found))) => Ended::Done(before.check(&wal, &found, context)),
        Ended::Done(Err(error)) => panic!("{context}: {error}"),
        Ended::Halted => Ended::Halted,
        Ended::Stalled => Ended::Stalled,
    }
}

fn kind_of_crash(lot: &mut Lot) -> Crash {
    if lot.one_in(4) { Crash::Kill } else { Crash::PowerCut }
}

/// Sizes of a seed's world.
fn sizes(seed: u64) -> (u64, u64) {
    let mut lot = Lot::new(seed ^ 0x517e);
    // Three entries of 5000 bytes need four blocks and the header one.
    (5 + lot.below(8), 8 + lot.below(20))
}

/// Every boundary of one seed's workload. Returns how many crash states were looked at.
fn crash_everywhere(seed: u64) -> u64 {
    let (blocks, steps) = sizes(seed);
    let calm = SimDisk::new(seed);
    boot(&calm, seed, blocks, steps, &Rc::default()).done();
    let mut states = 0;
    for at in 1..=calm.boundaries() {
        let (disk, history) = (SimDisk::new(seed), Rc::new(RefCell::new(History::default())));
        disk.crash_at(at);
        assert_eq!(boot(&disk, seed, blocks, steps, &history), Ended::Halted);
        let mut lot = Lot::new(seed ^ (at << 32));
        let disk = disk.reboot(kind_of_crash(&mut lot));
        let context = format!("seed {seed} boundary {at}");
        states += 1;
        if at % 5 == seed % 5 {
            states += crash_recovery_everywhere(&disk, seed, blocks, &history.borrow(), &context);
        }
        // A second boot works on what it found and crashes too; a third has the last word.
        disk.crash_at(1 + lot.below(60));
        let second = boot(&disk, seed + 1, blocks, 6, &history);
        assert_ne!(second, Ended::Stalled, "{context}");
        let disk = disk.reboot(kind_of_crash(&mut lot));
        recover(&disk, seed + 2, blocks, &history.borrow(), &context).done();
        states += 1;
    }
    states
}

/// Crashes at every boundary of a recovery and recovers again.
fn crash_recovery_everywhere(
    disk: &SimDisk,
    seed: u64,
    blocks: u64,
    before: &History,
    context: &str,
) -> u64 {
    for at in 1.. {
        let disk = disk.fork();
        disk.crash_at(at);
        let context = format!("{context} recovery boundary {at}");
        match recover(&disk, seed + 7, blocks, before, &context) {
            Ended::Done(_) => return at - 1,
            ended => assert_eq!(ended, Ended::Halted, "{context}"),
        }
        let crash = if at % 3 == 0 { Crash::Kill } else { Crash::PowerCut };
        let disk = disk.reboot(crash);
        recover(&disk, seed + 8, blocks, before, &context).done();
    }
    unreachable!("a recovery ends")
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_any_boundary() {
    /// Enough for tens of thousands of crash states in a few seconds.
    const SEEDS: u64 = 150;
    let states: u64 = (0..SEEDS).map(crash_everywhere).sum();
    assert!(states > 20_000, "only {states} crash states were looked at");
}

#[test]
fn one_seed_is_one_story() {
    let tell = |seed| {
        let (disk, history) = (SimDisk::new(seed), Rc::default());
        disk.crash_at(40);
        assert_eq!(boot(&disk, seed, 6, 30, &history), Ended::Halted);
        let disk = disk.reboot(Crash::PowerCut);
        recover(&disk, seed, 6, &history.borrow(), "second boot").done();
        disk.audit()
    };
    let audits: BTreeSet<u64> = (0..20).map(tell).collect();
    assert_eq!(audits.len(), 20, "seeds tell different stories");
    assert!((0..20).map(tell).all(|audit| audits.contains(&audit)), "a story never changes");
}

/// A log that worked for a while and then fell idle: everything but the very last frame is
/// provably acknowledged.
fn idle_log(seed: u64) -> (SimDisk, History) {
    let (blocks, steps) = sizes(seed);
    let (disk, history) = (SimDisk::new(seed), Rc::new(RefCell::new(History::default())));
    boot(&disk, seed, blocks, steps, &history).done();
    let disk = disk.reboot(Crash::PowerCut);
    boot(&disk, seed + 1, blocks, steps, &history).done();
    let disk = disk.reboot(Crash::PowerCut);
    (disk, history.take())
}

/// What opening a copy of the disk says, and whether anything was written by it.
fn try_open(disk: &SimDisk, seed: u64) -> (Result<History, WalError>, bool) {
    let (copy, before) = (disk.fork(), disk.writes());
    let ours = copy.clone();
    let options = options(sizes(seed).0, seed + 9);
    let opened = run(&copy, seed, async move |_| open(ours, options).await).done();
    let history = opened.map(|(wal, found)| {
        let model = Model {
            entries: found.entries.into_iter().map(|entry| (entry.index, entry)).collect(),
            hard_state: found.hard_state,
            trimmed: found.trimmed,
            last_index: wal.last_index(),
        };
        History::behind(model, wal.durable_frame())
    });
    (history, copy.writes() != before)
}

/// Every frame on the disk that belongs to a segment in use or once in use: file, offset, number,
/// bytes that mean something.
fn frames_on(disk: &SimDisk) -> Vec<(String, u64, u64, usize)> {
    let mut all = Vec::new();
    for name in disk.names() {
        let bytes = disk.peek(&name);
        let Opening::Live(header) = segment::decode(&bytes[..BLOCK_BYTES]) else { continue };
        for (offset, seen) in frame::scan(&bytes, header.frame_salt(), u64::MAX) {
            let Seen::Intact(head, _) = seen else { continue };
            let bytes = frame::FRAME_HEAD_BYTES + head.payload_bytes as usize;
            all.push((name.clone(), offset, head.number, bytes));
        }
    }
    all
}

#[test]
fn rot_of_an_acknowledged_frame_is_refused_and_touches_nothing() {
    let mut refused = 0;
    for seed in 0..30 {
        let (disk, history) = idle_log(seed);
        let (intact, _) = try_open(&disk, seed);
        let intact = intact.expect("the log opens before it rots");
        let mut lot = Lot::new(seed);
        let frames = frames_on(&disk);
        let proven = history.acknowledged - 1;
        for (file, offset, number, bytes) in frames.into_iter().filter(|frame| frame.2 <= proven) {
            let rotten = disk.fork();
            // Bytes 92..104 mean nothing.
            let byte = match lot.below(bytes as u64 - 12) as usize {
                byte if byte < 92 => byte,
                byte => byte + 12,
            };
            rotten.flip(&file, (offset as usize + byte) * 8 + lot.below(8) as usize);
            let context = format!("seed {seed} frame {number} byte {byte}");
            match try_open(&rotten, seed) {
                (Err(WalError::Damaged { file: named, offset: at, .. }), touched) => {
                    assert_eq!((named, at), (file, offset), "{context}");
                    assert!(!touched, "{context}");
                    refused += 1;
                }
                // The frame lies before everything that is needed.
                (Ok(found), _) => assert_eq!(found.base, intact.base, "{context}"),
                (Err(other), _) => panic!("{context}: {other}"),
            }
        }
    }
    assert!(refused > 200, "only {refused} rotten frames were needed ones");
}

#[test]
fn rot_of_a_segment_header_is_refused() {
    for seed in 0..20 {
        let (disk, _) = idle_log(seed);
        let mut lot = Lot::new(seed);
        for file in disk.names() {
            let rotten = disk.fork();
            rotten.flip(&file, lot.below(segment::HEADER_BYTES as u64 * 8) as usize);
            match try_open(&rotten, seed) {
                (Err(WalError::Damaged { file: named, offset: 0, .. }), touched) => {
                    assert_eq!(named, file);
                    assert!(!touched);
                }
                other => panic!("seed {seed} {file}: {:?}", other.0.err()),
            }
        }
    }
}

#[test]
fn a_lost_segment_is_refused() {
    let mut refused = 0;
    for seed in 0..20 {
        let (disk, _) = idle_log(seed);
        let intact = try_open(&disk, seed).0.expect("the log opens");
        let mut live: Vec<(u64, String)> = disk
            .names()
            .into_iter()
            .filter_map(|name| match segment::decode(&disk.peek(&name)[..BLOCK_BYTES]) {
                Opening::Live(header) => Some((header.sequence, name)),
                _ => None,
            })
            .collect();
        live.sort();
        live.pop();
        for (sequence, file) in live {
            let lossy = disk.fork();
            let blank = lossy.peek(&file).len();
            lossy.poke(&file, 0, &vec![0; blank]);
            match try_open(&lossy, seed) {
                (Err(WalError::Damaged { .. }), touched) => {
                    assert!(!touched);
                    refused += 1;
                }
                (Ok(found), _) => {
                    assert_eq!(found.base, intact.base, "seed {seed} segment {sequence}")
                }
                (Err(other), _) => panic!("seed {seed}: {other}"),
            }
        }
    }
    assert!(refused > 20, "only {refused} lost segments were needed ones");
}

#[test]
fn a_segment_header_that_the_disk_lost_is_noticed_by_its_frames() {
    let disk = SimDisk::new(1);
    let ours = disk.clone();
    let last = run(&disk, 1, async move |_| {
        let (mut wal, _) = open(ours, options(3, 1)).await.expect("opens");
        for serial in 1..=4 {
            spare_ready(&mut wal).await;
            wal.append(&state_only(serial)).expect("room").await.expect("durable");
        }
        wal.durable_frame()
    });
    assert_eq!(last.done(), 4);
    // Two frames to a segment: the second segment's header never reached the medium, as if an
    // older one were still there.
    let before = disk.peek("wal/00000001.seg");
    assert!(matches!(segment::decode(&before), Opening::Live(header) if header.sequence == 2));
    let blank = segment::Header {
        cluster: 0xc1,
        member: 0x3e,
        segment_bytes: before.len() as u64,
        ..segment::Header::default()
    };
    let mut stale = vec![0; BLOCK_BYTES];
    blank.encode(&mut stale);
    disk.poke("wal/00000001.seg", 0, &stale);
    let disk = disk.reboot(Crash::Kill);
    match try_open_with(&disk, options(3, 2)) {
        Err(WalError::Damaged { file, offset: 0, .. }) => assert_eq!(file, "wal/00000001.seg"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn rot_behind_the_acknowledged_end_changes_nothing() {
    for seed in 0..40 {
        let (blocks, steps) = sizes(seed);
        let (disk, history) = (SimDisk::new(seed), Rc::new(RefCell::new(History::default())));
        disk.crash_at(60 + seed);
        if boot(&disk, seed, blocks, steps, &history) != Ended::Halted {
            continue;
        }
        let disk = disk.reboot(Crash::PowerCut);
        let history = history.take();
        let frames = frames_on(&disk);
        for (file, offset, _, bytes) in frames.iter().filter(|frame| frame.2 > history.acknowledged)
        {
            let rotten = disk.fork();
            rotten.flip(file, (*offset as usize) * 8 + (seed as usize * 101) % (bytes * 8));
            recover(&rotten, seed, blocks, &history, &format!("seed {seed}")).done();
        }
    }
}

#[test]
fn a_damaged_last_frame_is_reported_as_doubtful() {
    let disk = SimDisk::new(3);
    let ours = disk.clone();
    run(&disk, 3, async move |_| {
        let (mut wal, _) = open(ours, options(8, 3)).await.expect("opens");
        for serial in 1..=2 {
            wal.append(&entry_of(serial, 100)).expect("room").await.expect("durable");
        }
    })
    .done();
    let disk = disk.reboot(Crash::PowerCut);
    disk.flip("wal/00000000.seg", (2 * BLOCK_BYTES + frame::FRAME_HEAD_BYTES + 30) * 8);
    let ours = disk.clone();
    let (wal, found) =
        run(&disk, 4, async move |_| open(ours, options(8, 4)).await).done().expect("opens");
    let torn = found.torn.expect("the end is reported");
    assert!(torn.doubtful);
    assert_eq!((torn.file.as_str(), torn.offset, torn.frame), ("wal/00000000.seg", 8192, 2));
    assert_eq!((wal.durable_frame(), found.entries.len()), (1, 1));
}

#[test]
fn a_failed_write_fails_every_frame_behind_it_and_ends_the_log() {
    for faults in [Faults { write: Some(2), sync: None }, Faults { write: None, sync: Some(2) }] {
        let disk = SimDisk::new(5);
        let ours = disk.clone();
        run(&disk, 5, async move |_| {
            let (mut wal, _) = open(ours.clone(), options(8, 5)).await.expect("opens");
            ours.arm(faults);
            let flights: Vec<_> =
                (1..=3).map(|serial| wal.append(&state_only(serial)).expect("room")).collect();
            let mut outcomes = Vec::new();
            for flight in flights {
                outcomes.push(flight.await.is_ok());
            }
            assert_eq!(outcomes, [true, false, false], "{faults:?}");
            assert_eq!(wal.durable_frame(), 1);
            assert!(matches!(wal.append(&state_only(4)).err(), Some(WalError::Failed)));
        })
        .done();
    }
}

#[test]
fn a_full_disk_is_reported_and_costs_nothing() {
    let disk = SimDisk::new(6);
    let ours = disk.clone();
    run(&disk, 6, async move |_| {
        let (mut wal, _) = open(ours.clone(), options(3, 6)).await.expect("opens");
        ours.set_space(Some(3 * BLOCK_BYTES as u64));
        let full = wal.prepare().expect("a spare is missing").await.err().expect("no room");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        for serial in 1..=2 {
            wal.append(&state_only(serial)).expect("room").await.expect("durable");
        }
        assert!(matches!(wal.append(&state_only(3)).err(), Some(WalError::NoSpare)));
        ours.set_space(None);
        spare_ready(&mut wal).await;
        assert_eq!(wal.append(&state_only(3)).expect("room").await.expect("durable"), 3);
    })
    .done();
    let (wal, found) = try_open_with(&disk.reboot(Crash::PowerCut), options(3, 7)).expect("opens");
    assert_eq!((wal.durable_frame(), found.hard_state.commit), (3, 3));
}

#[test]
fn a_log_of_another_cluster_or_member_is_refused() {
    let disk = SimDisk::new(8);
    try_open_with(&disk, options(4, 1)).map(|_| ()).expect("opens");
    let disk = disk.reboot(Crash::PowerCut);
    let theirs = Options { cluster: 0xc2, ..options(4, 2) };
    let error = try_open_with(&disk, theirs).err().expect("refused").to_string();
    assert_eq!(
        error,
        "wal/00000000.seg is the log of cluster c1, this member was started as cluster c2"
    );
    let theirs = Options { member: 0x3f, ..options(4, 2) };
    let error = try_open_with(&disk, theirs).err().expect("refused");
    assert!(matches!(
        error,
        WalError::Foreign { whose: "member", expected: 0x3f, found: 0x3e, .. }
    ));
}

#[test]
fn trimmed_segments_are_used_again_and_the_rest_give_their_space_back() {
    let disk = SimDisk::new(9);
    let ours = disk.clone();
    let (most, least) = run(&disk, 9, async move |_| {
        let (mut wal, _) = open(ours, options(3, 9)).await.expect("opens");
        for serial in 1..=40 {
            spare_ready(&mut wal).await;
            wal.append(&entry_of(serial, 10)).expect("room").await.expect("durable");
        }
        let most = wal.disk_bytes();
        wal.trim(40);
        wal.append(&entry_of(41, 10)).expect("room").await.expect("durable");
        while let Some(work) = wal.prepare() {
            wal.prepared(work.await.expect("no faults are armed"));
        }
        for serial in 42..=200 {
            wal.trim(serial - 2);
            spare_ready(&mut wal).await;
            wal.append(&entry_of(serial, 10)).expect("room").await.expect("durable");
        }
        (most, wal.disk_bytes())
    })
    .done();
    let segment = 3 * BLOCK_BYTES as u64;
    assert!(most >= 20 * segment, "two entries to a segment");
    assert!(least <= 7 * segment, "{least} bytes are kept for two entries");
    let on_disk: u64 = disk.names().iter().map(|name| disk.peek(name).len() as u64).sum();
    assert_eq!(on_disk, least);
    let (_, found) = try_open_with(&disk.reboot(Crash::PowerCut), options(3, 10)).expect("opens");
    assert_eq!((found.trimmed, found.entries.len()), (198, 2));
}

#[test]
fn opening_again_and_again_takes_no_space() {
    let mut disk = SimDisk::new(10);
    for salt in 0..30 {
        try_open_with(&disk, options(4, salt)).map(|_| ()).expect("opens");
        disk = disk.reboot(Crash::PowerCut);
    }
    assert_eq!(disk.names(), ["wal/00000000.seg"]);
}

#[test]
fn what_does_not_continue_the_log_is_refused() {
    let (mut wal, _) = try_open_with(&SimDisk::new(11), options(4, 1)).expect("opens");
    let gap = |error: Option<WalError>| match error {
        Some(WalError::Gap { found, lowest, highest }) => (found, lowest, highest),
        other => panic!("{other:?}"),
    };
    assert_eq!(gap(wal.append(&entry_of(2, 1)).err()), (2, 1, 1), "before the first entry");
    assert_eq!(gap(wal.append(&entry_of(0, 1)).err()), (0, 1, 1), "entries count from 1");
    wal.trim(10);
    assert_eq!(gap(wal.append(&entry_of(10, 1)).err()), (10, 11, 11), "kept elsewhere");
    let mut torn_apart = entry_of(11, 1);
    torn_apart.entries.push(entry_of(13, 1).entries.remove(0));
    assert_eq!(gap(wal.append(&torn_apart).err()), (13, 12, 12), "a gap in the batch");
    let bytes_max = 3 * BLOCK_BYTES;
    match wal.append(&entry_of(11, bytes_max)).err() {
        Some(WalError::TooLarge { bytes, bytes_max: max }) => {
            assert_eq!((bytes, max), (4 * BLOCK_BYTES, bytes_max));
        }
        other => panic!("{other:?}"),
    }
}

fn try_open_with(disk: &SimDisk, options: Options) -> Result<(SimWal, Recovered), WalError> {
    let ours = disk.clone();
    run(disk, options.salt, async move |_| open(ours, options).await).done()
}

async fn spare_ready(wal: &mut SimWal) {
    if let Some(work) = wal.prepare() {
        wal.prepared(work.await.expect("no faults are armed"));
    }
}

fn state_only(serial: u64) -> Batch {
    Batch { entries: Vec::new(), hard_state: HardState { term: 1, vote: 1, commit: serial } }
}

fn entry_of(index: u64, bytes: usize) -> Batch {
    let data = Bytes::from(vec![index as u8; bytes]);
    Batch { entries: vec![LogEntry { index, term: 1, kind: 0, data }], ..state_only(index) }
}
