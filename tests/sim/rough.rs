//! A disk as slow as the weather makes it, between a member and its [`SimDisk`]. It makes operations
//! last, remembers which failed, shows every write of the log to the [`History`], and lies where a
//! mutant wants it.

use crate::{
    disk::{SimDisk, SimFile},
    executor::{Executor, Lot},
    history::History,
    weather::Tempo,
};
use ringleader::io::{AlignedBuf, Clock, Disk, File, Load, Mapping};
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

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
    pub(crate) tempo: Cell<Tempo>,
    pub(crate) lie: Option<Lie>,
    pub(crate) history: Rc<RefCell<History>>,
    /// Whose disk it is.
    pub(crate) member: u64,
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
            let tempo = self.tempo.get();
            match tempo.stall_odds {
                Some(odds) if lot.one_in(odds) => lot.below(tempo.stall_micros_max),
                _ => lot.below(tempo.micros_max + 1),
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
        let (now, member) = (self.air.executor.clock().now(), self.air.member);
        let number = self.of_log().then(|| {
            let mut history = self.air.history.borrow_mut();
            history.written(member, (&self.name, offset), &buf, now)
        });
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
        let air = self.air.clone();
        let write = async move {
            let outcome = write.await;
            if let (Ok(()), Some(number)) = (&outcome, number) {
                air.history.borrow_mut().durable(member, number);
            }
            outcome
        };
        let (early, executor) = (self.air.lie, self.air.executor.clone());
        async move {
            if early == Some(Lie::LogAcknowledgedEarly) {
                executor.spawn(async move { write.await.expect("mutants have no other weather") });
                return Ok(());
            }
            write.await
        }
    }

    fn map(&self, len: u64, load: Load) -> impl Future<Output = io::Result<Mapping>> + 'static {
        self.later(async move |inner| inner.map(len, load).await)
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
