//! What a log means, a seeded load for one, and the boots that use both.

use crate::{
    disk::SimDisk,
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
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, task::Poll};

pub(crate) type SimWal = Wal<SimDisk>;

/// What a log means: the specification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) entries: BTreeMap<u64, LogEntry>,
    pub(crate) hard_state: HardState,
    pub(crate) trimmed: u64,
    pub(crate) last_index: u64,
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
pub(crate) struct History {
    /// The log when the boot began, and its last frame.
    pub(crate) base: Model,
    pub(crate) base_frame: u64,
    /// Each append with the trim it carried, from `base_frame + 1` on.
    appended: Vec<(Batch, u64)>,
    pub(crate) acknowledged: u64,
    acknowledgements: u64,
    trim_wanted: u64,
}

impl History {
    pub(crate) fn behind(base: Model, base_frame: u64) -> Self {
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
    pub(crate) fn check(&self, wal: &SimWal, found: &Recovered, context: &str) -> History {
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
            assert!(self.acknowledged < newest, "{context}: nothing could be torn: {torn}");
        }
        History::behind(expected, frame)
    }
}

pub(crate) fn options(segment_blocks: u64, salt: u64) -> Options {
    let segment_bytes = segment_blocks * BLOCK_BYTES as u64;
    Options { segment_bytes, cluster: 0xc1, member: 0x3e, salt }
}

pub(crate) async fn open(disk: SimDisk, options: Options) -> Result<(SimWal, Recovered), WalError> {
    Wal::open(disk.clone(), disk, options).await
}

/// Runs `main` until it ends or the disk loses power.
pub(crate) fn run<T: 'static>(
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
pub(crate) struct Load {
    lot: Lot,
    executor: Executor,
    wal: Rc<RefCell<SimWal>>,
    history: Rc<RefCell<History>>,
    depth: u64,
    entry_bytes_max: u64,
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
        let roomy = ROOMY_BLOCKS_MIN - 1;
        let entry_bytes_max =
            if wal.frame_bytes_max() as u64 >= roomy * BLOCK_BYTES as u64 { 5000 } else { 800 };
        let wal = Rc::new(RefCell::new(wal));
        let preparing = Rc::new(RefCell::new(false));
        Self { lot, executor, wal, history, depth, entry_bytes_max, serial, committed, preparing }
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
            let bytes = [30, 500, self.entry_bytes_max][self.lot.below(3) as usize];
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
pub(crate) fn boot(
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

/// Opens the log once, checks it, and leaves it. The seed is also the salt: one that no earlier boot
/// of this disk had.
pub(crate) fn recover(
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

/// Sizes of a seed's world: blocks of a segment and steps of a boot. In every third, each frame
/// needs a segment of its own, so that frames in flight lie in several files.
pub(crate) fn sizes(seed: u64) -> (u64, u64) {
    let mut lot = Lot::new(seed ^ 0x517e);
    let blocks = if seed.is_multiple_of(3) { 2 } else { ROOMY_BLOCKS_MIN + lot.below(8) };
    (blocks, 8 + lot.below(20))
}

/// Three entries of 5000 bytes need four blocks and the header one.
pub(crate) const ROOMY_BLOCKS_MIN: u64 = 5;

/// What a file's first block says.
pub(crate) fn opening(disk: &SimDisk, name: &str) -> Opening {
    let mut block = disk.peek(name);
    block.truncate(BLOCK_BYTES);
    segment::decode(&block)
}

/// Segments in use or once in use, ascending.
pub(crate) fn live_segments(disk: &SimDisk) -> Vec<(segment::Header, String)> {
    let mut live = Vec::new();
    for name in disk.names() {
        if let Opening::Live(header) = opening(disk, &name) {
            live.push((header, name));
        }
    }
    live.sort_by_key(|(header, _)| header.sequence);
    live
}

/// Every frame on the disk that belongs to a segment in use or once in use: file, offset, number,
/// bytes that mean something.
pub(crate) fn frames_on(disk: &SimDisk) -> Vec<(String, u64, u64, usize)> {
    let mut all = Vec::new();
    for (header, name) in live_segments(disk) {
        let bytes = disk.peek(&name);
        for (offset, seen) in frame::scan(&bytes, header.frame_salt(), u64::MAX) {
            let Seen::Intact(head, _) = seen else { continue };
            let bytes = frame::FRAME_HEAD_BYTES + head.payload_bytes as usize;
            all.push((name.clone(), offset, head.number, bytes));
        }
    }
    all
}

pub(crate) fn try_open_with(
    disk: &SimDisk,
    options: Options,
) -> Result<(SimWal, Recovered), WalError> {
    let ours = disk.clone();
    run(disk, options.salt, async move |_| open(ours, options).await).done()
}

pub(crate) async fn spare_ready(wal: &mut SimWal) {
    if let Some(work) = wal.prepare() {
        wal.prepared(work.await.expect("no faults are armed"));
    }
}

pub(crate) fn state_only(serial: u64) -> Batch {
    Batch { entries: Vec::new(), hard_state: HardState { term: 1, vote: 1, commit: serial } }
}

pub(crate) fn entry_of(index: u64, bytes: usize) -> Batch {
    let data = Bytes::from(vec![index as u8; bytes]);
    Batch { entries: vec![LogEntry { index, term: 1, kind: 0, data }], ..state_only(index) }
}
