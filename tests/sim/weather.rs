//! What a seed makes happen to a member: sizes, days, and a disk that takes its time.
//!
//! A run is a row of days; each is one boot of the member and has an end of its own. The last two
//! are calm: on the first of them everything must finish, on the second nothing may be missing.
//!
//! [`RoughDisk`] stands between the member and [`SimDisk`]. It makes operations last, remembers
//! which failed, shows every write of the log to the [`Ledger`], and lies where a mutant wants it.

use crate::{
    check::Ledger,
    disk::{SimDisk, SimFile},
    executor::{Executor, Lot},
};
use ringleader::{
    io::{AlignedBuf, BLOCK_BYTES, Clock, Disk, File, Mapping},
    tree,
};
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

/// Everything that is drawn before a run begins.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) wal_blocks: u64,
    pub(crate) tree: tree::Options,
    pub(crate) ring_messages: usize,
    pub(crate) checkpoint_entries: u64,
    pub(crate) tick: Duration,
    pub(crate) shards: usize,
    /// Requests that a shard's clients have on their way at once.
    pub(crate) outstanding: usize,
    pub(crate) keys: u64,
    pub(crate) value_bytes: u64,
    /// Longest TTL that is usually asked for, seconds.
    pub(crate) ttl_max: u64,
    /// Watch streams that a shard's clients open.
    pub(crate) streams: usize,
    /// Bytes at which responses to watchers come in parts.
    pub(crate) fragment_bytes: usize,
    pub(crate) days: Vec<Day>,
}

/// One boot.
#[derive(Clone, Debug)]
pub(crate) struct Day {
    /// Requests that clients make; then they say goodbye.
    pub(crate) requests: u64,
    pub(crate) tempo: Tempo,
    pub(crate) drought: Option<Drought>,
    /// The process stands still now and then while time goes on.
    pub(crate) pauses: bool,
    pub(crate) fate: Fate,
    /// Fate and drought begin when the member begins to serve, not when it begins to recover.
    pub(crate) while_serving: bool,
    /// Whether the machine loses power after the day, whatever ended it.
    pub(crate) dark: bool,
    /// Clients leave after this time, whether or not everything was asked and answered.
    pub(crate) patience: Option<Duration>,
    /// Only reads are asked.
    pub(crate) reads_only: bool,
    /// Clients pause up to so long between requests.
    pub(crate) leisure: Duration,
    /// How long clients stay when all is answered, renew their leases and watch. Whoever watches
    /// must then have been told everything.
    pub(crate) rest: Duration,
    /// Watchers of a stream whose client asks for many and stops reading; 0 for no such stream.
    pub(crate) crowd: u64,
}

/// The disk is full for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drought {
    pub(crate) after: Duration,
    pub(crate) lasts: Duration,
    /// What files may take in all meanwhile.
    pub(crate) space_bytes: u64,
}

/// How long operations take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tempo {
    pub(crate) micros_max: u64,
    /// One operation in so many takes seconds.
    pub(crate) stall_odds: Option<u64>,
}

/// What befalls a day unless its requests are done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Nothing,
    /// The process or the machine ends at the n-th operation of the disk.
    Crash(u64),
    /// The n-th sync fails.
    FailedSync(u64),
    /// The n-th write fails.
    FailedWrite(u64),
}

impl Weather {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut lot = Lot::new(seed ^ 0x77ea_7e12);
        let lot = &mut lot;
        let mut days: Vec<Day> = (0..1 + lot.below(9)).map(|_| Day::draw(lot)).collect();
        let tempo = lot.below(3) as usize;
        let tick = Duration::from_millis([1, 10, 100][tempo]);
        let ttl_max = [2, 3, 5][tempo];
        // Every lease has its whole TTL and an election from the start; and a second more.
        let rest = Duration::from_secs(ttl_max + 1) + tick * 10;
        let calm = Day::calm(20 + lot.below(40), false);
        days.push(Day { rest, crowd: Day::draw_crowd(lot), ..calm });
        days.push(Day { rest: rest / 2, ..Day::calm(8, true) });
        Self {
            wal_blocks: [8, 9, 12, 16, 40][lot.below(5) as usize],
            tree: tree::Options {
                page_bytes: [256, 512, 2048][lot.below(3) as usize],
                segment_bytes: [4 << 10, 8 << 10, 20 << 10, 64 << 10][lot.below(4) as usize],
            },
            ring_messages: [1, 2, 4, 64][lot.below(4) as usize],
            checkpoint_entries: [1, 3, 8, 30, 1_000][lot.below(5) as usize],
            tick,
            ttl_max,
            streams: lot.below(4) as usize,
            fragment_bytes: [64, 600, 4_000][lot.below(3) as usize],
            shards: 1 + lot.below(3) as usize,
            outstanding: 1 + lot.below(5) as usize,
            keys: 1 + lot.below(12),
            value_bytes: [8, 40, 700][lot.below(3) as usize],
            days,
        }
    }

    /// Few requests of each kind of day, to tell a failure's story in few words.
    pub(crate) fn with_requests_at_most(mut self, most: u64) -> Self {
        self.days.iter_mut().for_each(|day| day.requests = day.requests.min(most));
        self
    }

    pub(crate) fn wal_segment_bytes(&self) -> u64 {
        self.wal_blocks * BLOCK_BYTES as u64
    }
}

impl Day {
    fn draw(lot: &mut Lot) -> Self {
        let (while_serving, leisurely) = (lot.below(3) > 0, lot.one_in(3));
        let soon = 1 + lot.draw() % (1 << (2 + lot.below(5 + 4 * u64::from(while_serving))));
        let requests = 4 + lot.draw() % (1 << (3 + lot.below(6)));
        Self {
            requests,
            tempo: Tempo::draw(lot, leisurely),
            drought: lot.one_in(3).then(|| Drought::draw(lot)),
            pauses: lot.one_in(4),
            fate: match lot.below(8) {
                0..4 => Fate::Crash(soon),
                4 => Fate::FailedSync(1 + soon / 3),
                5 => Fate::FailedWrite(1 + soon / 3),
                _ => Fate::Nothing,
            },
            while_serving,
            dark: lot.below(3) > 0,
            patience: lot.one_in(4).then(|| Duration::from_micros(lot.below(200_000))),
            reads_only: false,
            leisure: Duration::from_millis(if leisurely { 200 } else { 2 }),
            rest: Duration::ZERO,
            crowd: Self::draw_crowd(lot),
        }
    }

    fn draw_crowd(lot: &mut Lot) -> u64 {
        if lot.one_in(8) { 100 + lot.below(200) } else { 0 }
    }

    pub(crate) fn calm(requests: u64, reads_only: bool) -> Self {
        let tempo = Tempo { micros_max: 50, stall_odds: None };
        Self {
            requests,
            tempo,
            drought: None,
            pauses: false,
            fate: Fate::Nothing,
            while_serving: false,
            dark: true,
            patience: None,
            reads_only,
            leisure: Duration::from_millis(2),
            rest: Duration::ZERO,
            crowd: 0,
        }
    }
}

impl Drought {
    fn draw(lot: &mut Lot) -> Self {
        let after_max = [0, 1_000, 20_000][lot.below(3) as usize];
        Self {
            after: Duration::from_micros(lot.below(after_max + 1)),
            lasts: Duration::from_millis(lot.below(20_000)),
            space_bytes: lot.below(600_000),
        }
    }
}

impl Tempo {
    /// The disk is often slow where nobody is in a hurry, so that what is asked then is asked while
    /// something is on its way to it.
    fn draw(lot: &mut Lot, leisurely: bool) -> Self {
        let kinds = if leisurely { 8 } else { 4 };
        let micros_max =
            [0, 50, 500, 20_000].get(lot.below(kinds) as usize).copied().unwrap_or(20_000);
        Self { micros_max, stall_odds: lot.one_in(4).then_some(150) }
    }
}

/// A bug planted through the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Syncs of records and superblock do nothing.
    DataNeverSynced,
    /// The log's writes are not synced.
    LogNeverSynced,
    /// The log's writes are said to be durable while they are on their way.
    LogAcknowledgedEarly,
    /// Records are synced some time after the superblock that names them.
    RecordsAfterSuperblock,
}

/// A disk as slow as the weather makes it.
#[derive(Clone)]
pub(crate) struct RoughDisk {
    inner: SimDisk,
    air: Rc<Air>,
}

/// What all files of a [`RoughDisk`] share.
pub(crate) struct Air {
    pub(crate) executor: Executor,
    pub(crate) lot: RefCell<Lot>,
    pub(crate) tempo: Tempo,
    pub(crate) lie: Option<Lie>,
    pub(crate) ledger: Rc<RefCell<Ledger>>,
    /// An operation has failed with something else than a full disk or a missing file.
    pub(crate) failed: Cell<bool>,
    /// An operation was refused for lack of room.
    pub(crate) was_full: Cell<bool>,
    /// The member was recovered and began to serve.
    pub(crate) served: Cell<bool>,
    /// A new superblock is on its way.
    pub(crate) checkpointing: Cell<bool>,
}

impl Air {
    async fn delay(&self) {
        let micros = {
            let mut lot = self.lot.borrow_mut();
            match self.tempo.stall_odds {
                Some(odds) if lot.one_in(odds) => lot.below(5_000_000),
                _ => lot.below(self.tempo.micros_max + 1),
            }
        };
        let clock = self.executor.clock();
        clock.sleep_until(clock.now() + Duration::from_micros(micros)).await;
    }

    fn note<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &outcome {
            match error.kind() {
                io::ErrorKind::StorageFull => self.was_full.set(true),
                io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => {}
                _ => self.failed.set(true),
            }
        }
        outcome
    }

    async fn operate<T>(&self, operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        self.delay().await;
        self.note(operation.await)
    }
}

impl RoughDisk {
    pub(crate) fn new(inner: SimDisk, air: Rc<Air>) -> Self {
        Self { inner, air }
    }

    fn file(&self, name: &str, inner: SimFile) -> RoughFile {
        let (name, air) = (name.into(), self.air.clone());
        RoughFile { inner, name, air, gate: Rc::default() }
    }
}

impl Disk for RoughDisk {
    type File = RoughFile;

    async fn open(&self, name: &str) -> io::Result<RoughFile> {
        Ok(self.file(name, self.air.operate(self.inner.open(name)).await?))
    }

    async fn create(&self, name: &str, len: u64) -> io::Result<RoughFile> {
        Ok(self.file(name, self.air.operate(self.inner.create(name, len)).await?))
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.air.operate(self.inner.list(dir)).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.air.operate(self.inner.remove(name)).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.air.operate(self.inner.rename(from, to)).await
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.air.operate(self.inner.sync_dir(dir)).await
    }
}

/// A file of a [`RoughDisk`].
#[derive(Clone)]
pub(crate) struct RoughFile {
    inner: SimFile,
    name: Rc<str>,
    air: Rc<Air>,
    gate: Rc<Gate>,
}

impl RoughFile {
    fn of_log(&self) -> bool {
        self.name.starts_with("wal/")
    }

    /// `make` is called once the operation has waited its time.
    fn later<T>(
        &self,
        make: impl AsyncFnOnce(SimFile) -> io::Result<T> + 'static,
    ) -> impl Future<Output = io::Result<T>> + 'static {
        let this = self.clone();
        async move {
            this.air.delay().await;
            this.air.note(make(this.inner).await)
        }
    }
}

impl File for RoughFile {
    fn len(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        self.later(async |inner| inner.len().await)
    }

    fn read_at(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = io::Result<AlignedBuf>> + 'static {
        self.later(async move |inner| inner.read_at(offset, len).await)
    }

    fn write_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        self.air.checkpointing.set(self.air.served.get());
        self.later(async move |inner| inner.write_at(buf, offset).await)
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let this = self.clone();
        async move {
            match this.air.lie {
                Some(Lie::DataNeverSynced) if !this.of_log() => Ok(()),
                Some(Lie::RecordsAfterSuperblock) if this.name.starts_with("rec/") => {
                    let (inner, clock) = (this.inner.clone(), this.air.executor.clock());
                    this.air.executor.spawn(async move {
                        clock.sleep_until(clock.now() + Duration::from_millis(50)).await;
                        inner.sync().await.expect("mutants have no other weather");
                    });
                    Ok(())
                }
                _ => {
                    let outcome = this.later(async |inner| inner.sync().await).await;
                    let superblock = &*this.name == "superblock";
                    this.air.checkpointing.set(this.air.checkpointing.get() && !superblock);
                    outcome
                }
            }
        }
    }

    fn write_sync_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        if self.of_log() {
            let now = self.air.executor.clock().now();
            self.air.ledger.borrow_mut().written(&self.name, offset, &buf, now);
        }
        let (this, turn) = (self.clone(), self.gate.draw());
        let write: Pin<Box<dyn Future<Output = io::Result<()>>>> = Box::pin(async move {
            // One after the other, as they were called, or the disk would be told to reorder them.
            this.gate.wait(turn).await;
            this.air.delay().await;
            let (unsynced, synced) = match this.air.lie {
                Some(Lie::LogNeverSynced) => (Some(this.inner.write_at(buf, offset)), None),
                _ => (None, Some(this.inner.write_sync_at(buf, offset))),
            };
            this.gate.pass();
            let outcome = match (unsynced, synced) {
                (Some(write), _) => write.await,
                (None, Some(write)) => write.await,
                (None, None) => unreachable!("one of the two was made"),
            };
            this.air.note(outcome)
        });
        let (early, executor) = (self.air.lie, self.air.executor.clone());
        async move {
            if early == Some(Lie::LogAcknowledgedEarly) {
                executor.spawn(async move { write.await.expect("mutants have no other weather") });
                return Ok(());
            }
            write.await
        }
    }

    fn map(&self, len: u64) -> impl Future<Output = io::Result<Mapping>> + 'static {
        self.later(async move |inner| inner.map(len).await)
    }
}

/// Lets waiters through one by one, in the order in which they drew.
#[derive(Default)]
struct Gate {
    drawn: Cell<u64>,
    passed: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Gate {
    fn draw(&self) -> u64 {
        self.drawn.replace(self.drawn.get() + 1)
    }

    async fn wait(&self, turn: u64) {
        poll_fn(|cx| {
            if self.passed.get() == turn {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn pass(&self) {
        self.passed.set(self.passed.get() + 1);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}
