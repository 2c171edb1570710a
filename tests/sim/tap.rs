//! A disk that keeps a copy of itself after each change, for [`crate::states`] to pull the plug there;
//! and that does things in another order than it was told, where a planted bug wants it.

use crate::disk::{SimDisk, SimFile};
use ringleader::{
    io::{AlignedBuf, Disk, File, Load, Mapping},
    tree::SUPERBLOCK_FILE,
};
use std::{cell::RefCell, future::Future, io, rc::Rc};

/// In which order a disk does what it says that it has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// As it was told.
    #[default]
    Told,
    /// Files below this directory are synced after the superblock that names them.
    FilesAfterSuperblock(&'static str),
    /// Names below this directory are synced after the superblock that needs them.
    NamesAfterSuperblock(&'static str),
    /// The superblock is written when what it does not name any more is gone.
    SuperblockLast,
}

/// A [`SimDisk`] that is looked at after each change. Clones reach the same one.
#[derive(Clone)]
pub(crate) struct Tap {
    disk: SimDisk,
    order: Order,
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    points: RefCell<Vec<Point>>,
    late: RefCell<Vec<Late>>,
}

/// A disk as it was just after a change.
pub(crate) struct Point {
    pub(crate) disk: SimDisk,
    /// The change.
    pub(crate) what: String,
}

impl Point {
    pub(crate) fn now(tap: &Tap, what: &str) -> Self {
        Self { disk: tap.disk.fork(), what: what.into() }
    }
}

/// What was said to be done and is not.
enum Late {
    Sync(TapFile),
    SyncDir(String),
    Write(TapFile, AlignedBuf, u64),
}

impl Tap {
    pub(crate) fn new(disk: SimDisk, order: Order) -> Self {
        Self { disk, order, shared: Rc::default() }
    }

    /// Its copies since the last call.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.shared.points.take()
    }

    /// Does what is late.
    pub(crate) async fn catch_up(&self) -> io::Result<()> {
        for late in self.shared.late.take() {
            match late {
                Late::Sync(file) => file.sync_now().await?,
                Late::SyncDir(dir) => {
                    self.noted(self.disk.sync_dir(&dir).await, || format!("{dir}/ is synced"))?
                }
                Late::Write(file, buf, offset) => file.write_now(buf, offset).await?,
            }
        }
        Ok(())
    }

    fn noted<T>(&self, outcome: io::Result<T>, what: impl FnOnce() -> String) -> io::Result<T> {
        let point = Point { disk: self.disk.fork(), what: what() };
        self.shared.points.borrow_mut().push(point);
        outcome
    }

    fn file(&self, name: &str, inner: SimFile) -> TapFile {
        TapFile { inner, name: name.into(), tap: self.clone() }
    }

    fn is_late(&self, late: Late) -> io::Result<()> {
        self.shared.late.borrow_mut().push(late);
        Ok(())
    }
}

impl Disk for Tap {
    type File = TapFile;

    async fn open(&self, name: &str) -> io::Result<TapFile> {
        Ok(self.file(name, self.disk.open(name).await?))
    }

    async fn create(&self, name: &str, len: u64) -> io::Result<TapFile> {
        let made = self.disk.create(name, len).await;
        let inner = self.noted(made, || format!("{name} is created"))?;
        Ok(self.file(name, inner))
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.noted(self.disk.remove(name).await, || format!("{name} is removed"))
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.noted(self.disk.rename(from, to).await, || format!("{from} becomes {to}"))
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        if self.order == Order::NamesAfterSuperblock(dir_of(dir)) {
            return self.is_late(Late::SyncDir(dir.to_owned()));
        }
        self.noted(self.disk.sync_dir(dir).await, || format!("{dir}/ is synced"))
    }
}

/// The directory's name as long as the program lives; "" for one that no bug is planted in.
fn dir_of(name: &str) -> &'static str {
    ["rec", "idx"].into_iter().find(|dir| name.starts_with(dir)).unwrap_or_default()
}

/// A file of a [`Tap`].
#[derive(Clone)]
pub(crate) struct TapFile {
    inner: SimFile,
    name: Rc<str>,
    tap: Tap,
}

impl TapFile {
    fn is_superblock(&self) -> bool {
        *self.name == *SUPERBLOCK_FILE
    }

    async fn write_now(&self, buf: AlignedBuf, offset: u64) -> io::Result<()> {
        let len = buf.len();
        let wrote = self.inner.write_at(buf, offset).await;
        self.tap.noted(wrote, || format!("{len} bytes go to {} at {offset}", self.name))
    }

    async fn sync_now(&self) -> io::Result<()> {
        let synced = self.inner.sync().await;
        self.tap.noted(synced, || format!("{} is synced", self.name))
    }
}

impl File for TapFile {
    fn len(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        self.inner.len()
    }

    fn read_at(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = io::Result<AlignedBuf>> + 'static {
        self.inner.read_at(offset, len)
    }

    fn write_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let this = self.clone();
        async move {
            match this.tap.order {
                Order::SuperblockLast if this.is_superblock() => {
                    let tap = this.tap.clone();
                    tap.is_late(Late::Write(this, buf, offset))
                }
                _ => this.write_now(buf, offset).await,
            }
        }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let this = self.clone();
        async move {
            let tap = this.tap.clone();
            match tap.order {
                Order::FilesAfterSuperblock(dir) if dir_of(&this.name) == dir => {
                    tap.is_late(Late::Sync(this))
                }
                Order::SuperblockLast if this.is_superblock() => tap.is_late(Late::Sync(this)),
                Order::SuperblockLast | Order::Told => this.sync_now().await,
                _ => {
                    this.sync_now().await?;
                    if this.is_superblock() { tap.catch_up().await } else { Ok(()) }
                }
            }
        }
    }

    fn write_sync_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let this = self.clone();
        async move {
            this.write_at(buf, offset).await?;
            this.sync().await
        }
    }

    fn map(&self, len: u64, load: Load) -> impl Future<Output = io::Result<Mapping>> + 'static {
        self.inner.map(len, load)
    }
}
