//! A disk that does what disks may do and nothing they may not.
//!
//! A file is what readers see now, what is surely on the medium, and the writes in between, in
//! order. [`File::sync`] moves the writes that began before it to the medium. A power cut lets each
//! sector of each write in between live or die by lot; names that were made or removed since the
//! folder's last sync may be either; a file never synced may have any length up to its own. A killed
//! process leaves all that as it is: readable, and still not durable.
//!
//! Instead of by lot, what lives can be chosen: [`Pending`] names every piece that is on its way.
//!
//! Every operation is a boundary: it is counted, it may take a few polls, and the plug can be pulled
//! there, with or without the operation's effect. One seed decides everything; [`SimDisk::audit`] is
//! a hash over every effect.

use crate::executor::Lot;
use ringleader::io::{AlignedBuf, BLOCK_BYTES, Disk, File, Load, Mapping};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    rc::Rc,
    task::Poll,
};

mod pending;

pub(crate) use pending::Pending;

/// The unit that a disk writes or does not write.
pub(crate) const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones reach the same one.
#[derive(Clone)]
pub(crate) struct SimDisk {
    state: Rc<RefCell<State>>,
    /// The boot this handle belongs to. One from before a crash does nothing any more.
    boot: u64,
}

/// What the next operations of a kind will do, counted from now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The n-th write from now fails (1 is the next); nothing of it happens.
    pub(crate) write: Option<u64>,
    /// The n-th sync from now fails; nothing becomes durable by it.
    pub(crate) sync: Option<u64>,
}

struct State {
    lot: Lot,
    audit: u64,
    boot: u64,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Name to inode, as programs see it and as it surely is on the medium.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    dirs: BTreeSet<String>,
    durable_dirs: BTreeSet<String>,
    boundaries: u64,
    crash_at: Option<u64>,
    crashed: bool,
    faults: Faults,
    /// Bytes that may be taken by files in all.
    space_bytes: Option<u64>,
    writes: u64,
}

/// Forks share what none of them has changed since.
#[derive(Clone, Default)]
struct Inode {
    seen: Rc<Vec<u8>>,
    medium: Rc<Vec<u8>>,
    /// What was on the medium before it was written there last.
    older: Rc<Vec<u8>>,
    between: Vec<Write>,
    ever_synced: bool,
    /// Order of [`File::write_sync_at`] calls: the next to be given out, to write, to sync.
    calls: [u64; 3],
}

#[derive(Clone)]
struct Write {
    offset: usize,
    bytes: Rc<[u8]>,
}

#[derive(Clone, Copy)]
enum Turn {
    Write = 1,
    Sync = 2,
}

/// What happens at a boundary.
enum Fate {
    Go,
    /// The plug is pulled; the operation still takes effect, or not.
    Crash {
        effect: bool,
    },
}

/// What ended a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Crash {
    /// The machine lost power.
    PowerCut,
    /// The process was killed; the machine went on.
    Kill,
}

impl SimDisk {
    /// An empty disk.
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            lot: Lot::new(seed),
            audit: 0xcbf2_9ce4_8422_2325,
            boot: 0,
            inodes: BTreeMap::new(),
            next_inode: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            dirs: BTreeSet::from([String::new()]),
            durable_dirs: BTreeSet::from([String::new()]),
            boundaries: 0,
            crash_at: None,
            crashed: false,
            faults: Faults::default(),
            space_bytes: None,
            writes: 0,
        };
        Self { state: Rc::new(RefCell::new(state)), boot: 0 }
    }

    /// An independent copy of the disk as it is, to be tried for something.
    pub(crate) fn fork(&self) -> Self {
        let state = self.state.borrow();
        let state = State {
            lot: state.lot.clone(),
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            dirs: state.dirs.clone(),
            durable_dirs: state.durable_dirs.clone(),
            ..*state
        };
        Self { state: Rc::new(RefCell::new(state)), boot: self.boot }
    }

    /// Operations so far.
    pub(crate) fn boundaries(&self) -> u64 {
        self.state.borrow().boundaries
    }

    /// Writes that took effect so far.
    pub(crate) fn writes(&self) -> u64 {
        self.state.borrow().writes
    }

    /// A running hash over every effect.
    pub(crate) fn audit(&self) -> u64 {
        self.state.borrow().audit
    }

    /// Pulls the plug at the `n`-th operation from now (1 is the next).
    pub(crate) fn crash_at(&self, n: u64) {
        let mut state = self.state.borrow_mut();
        state.crash_at = Some(state.boundaries + n);
    }

    /// Pulls the plug now.
    pub(crate) fn crash(&self) {
        self.state.borrow_mut().crashed = true;
    }

    /// Whether the plug was pulled. Nothing finishes any more until [`SimDisk::reboot`].
    pub(crate) fn crashed(&self) -> bool {
        self.state.borrow().crashed
    }

    /// Arms faults, replacing those armed before.
    pub(crate) fn arm(&self, faults: Faults) {
        self.state.borrow_mut().faults = faults;
    }

    /// Limits what files may take in all; `None` for no limit.
    pub(crate) fn set_space(&self, bytes: Option<u64>) {
        self.state.borrow_mut().space_bytes = bytes;
    }

    /// The disk after a crash, whether or not the plug was pulled. Old handles are dead.
    pub(crate) fn reboot(&self, crash: Crash) -> Self {
        let mut state = self.state.borrow_mut();
        state.boot += 1;
        state.crashed = false;
        state.crash_at = None;
        state.faults = Faults::default();
        for inode in state.inodes.values_mut() {
            inode.calls = [0; 3];
        }
        if crash == Crash::PowerCut {
            state.cut_power();
        }
        let boot = state.boot;
        state.note(&[b'R', crash as u8]);
        drop(state);
        Self { state: self.state.clone(), boot }
    }

    /// Names of all files, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.state.borrow().names.keys().cloned().collect()
    }

    /// A file's bytes, as programs see them.
    pub(crate) fn peek(&self, name: &str) -> Vec<u8> {
        let state = self.state.borrow();
        state.inodes[&state.names[name]].seen.to_vec()
    }

    /// Whether the medium has all of a file: what only memory has cannot rot there.
    pub(crate) fn is_on_medium(&self, name: &str) -> bool {
        let state = self.state.borrow();
        let inode = &state.inodes[&state.names[name]];
        inode.medium.len() == inode.seen.len()
    }

    /// Changes a file's bytes on the medium behind everybody's back: rot, or a write of someone
    /// else's that went astray.
    pub(crate) fn poke(&self, name: &str, offset: usize, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        let inode = state.names[name];
        let inode = state.inodes.get_mut(&inode).expect("a name has an inode");
        for image in [&mut inode.seen, &mut inode.medium] {
            Rc::make_mut(image)[offset..][..bytes.len()].copy_from_slice(bytes);
        }
        state.note(bytes);
    }

    /// What was there before the last write comes back, as if that had never been: it was lost, though
    /// the disk said that it was durable.
    pub(crate) fn turn_back(&self, name: &str, offset: usize, len: usize) {
        let mut before = {
            let state = self.state.borrow();
            let older = &state.inodes[&state.names[name]].older;
            older.get(offset..).unwrap_or_default().iter().copied().take(len).collect::<Vec<_>>()
        };
        before.resize(len, 0);
        self.poke(name, offset, &before);
    }

    /// Puts a file there that is durable at once, in place of one of that name.
    pub(crate) fn leave(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.note(name.as_bytes());
        state.note(bytes);
        let number = state.next_inode;
        state.next_inode += 1;
        let image = Rc::new(bytes.to_vec());
        let (seen, medium) = (image.clone(), image);
        state.inodes.insert(number, Inode { seen, medium, ever_synced: true, ..Inode::default() });
        state.names.insert(name.into(), number);
        state.durable_names.insert(name.into(), number);
        state.dirs.insert(parent(name).into());
        state.durable_dirs.insert(parent(name).into());
    }

    /// Flips one bit of a file: `bit` counts from the lowest of byte 0.
    pub(crate) fn flip(&self, name: &str, bit: usize) {
        let byte = self.peek(name)[bit / 8] ^ (1 << (bit % 8));
        self.poke(name, bit / 8, &[byte]);
    }

    /// Waits for a few polls, counts the boundary and says what happens at it.
    async fn boundary(&self, what: u8) -> Fate {
        let mut polls = self.state.borrow_mut().lot.below(3);
        std::future::poll_fn(|context| {
            if polls == 0 {
                return Poll::Ready(());
            }
            polls -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.alive().await;
        let mut state = self.state.borrow_mut();
        state.boundaries += 1;
        state.note(&[what]);
        if state.crash_at != Some(state.boundaries) {
            return Fate::Go;
        }
        state.crashed = true;
        Fate::Crash { effect: state.lot.one_in(2) }
    }

    /// Never returns on a machine that is off.
    async fn alive(&self) {
        let off = {
            let state = self.state.borrow();
            state.crashed || state.boot != self.boot
        };
        if off {
            std::future::pending::<()>().await;
        }
    }

    /// One operation: a boundary, then `effect`.
    async fn operate<T>(
        &self,
        what: u8,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.boundary(what).await {
            Fate::Go => effect(&mut self.state.borrow_mut()),
            Fate::Crash { effect: happens } => {
                if happens {
                    // Nobody is there to be told how it went.
                    let _untold = effect(&mut self.state.borrow_mut());
                }
                std::future::pending().await
            }
        }
    }
}

impl State {
    fn note(&mut self, bytes: &[u8]) {
        self.audit = mixed(self.audit, bytes);
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("an open file keeps its inode")
    }

    fn cut_power(&mut self) {
        let mut lot = Lot::new(self.lot.draw());
        for inode in self.inodes.values_mut() {
            inode.cut_power(&mut lot);
        }
        let lost_dirs: Vec<String> =
            self.dirs.difference(&self.durable_dirs).filter(|_| lot.one_in(2)).cloned().collect();
        let all: BTreeSet<String> =
            self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        for name in all {
            let (seen, durable) = (self.names.get(&name), self.durable_names.get(&name));
            let after = if seen != durable && lot.one_in(2) { seen } else { durable }.copied();
            match after.filter(|_| !lost_dirs.iter().any(|dir| dir == parent(&name))) {
                Some(inode) => self.names.insert(name, inode),
                None => self.names.remove(&name),
            };
        }
        self.dirs.retain(|dir| !lost_dirs.contains(dir));
        self.durable_dirs = self.dirs.clone();
        self.durable_names = self.names.clone();
        let used: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|number, _| used.contains(number));
        let images: Vec<_> = self.inodes.values().map(|inode| inode.seen.clone()).collect();
        images.iter().for_each(|image| self.note(image));
    }

    fn taken_bytes(&self) -> u64 {
        self.names.values().map(|number| self.inodes[number].seen.len() as u64).sum()
    }

    fn write(&mut self, number: u64, offset: usize, bytes: Rc<[u8]>) -> io::Result<()> {
        if strikes(&mut self.faults.write) {
            return Err(io::Error::other("simulated write error"));
        }
        let grows = (offset + bytes.len()).saturating_sub(self.inode(number).seen.len()) as u64;
        self.ask_for_space(grows)?;
        self.note(&(offset as u64).to_le_bytes());
        self.note(&bytes);
        self.writes += 1;
        let inode = self.inode(number);
        overwrite(&mut inode.seen, offset, &bytes);
        inode.between.push(Write { offset, bytes });
        Ok(())
    }

    fn sync(&mut self, number: u64) -> io::Result<()> {
        if strikes(&mut self.faults.sync) {
            return Err(io::Error::other("simulated sync error"));
        }
        let inode = self.inode(number);
        if inode.medium.len() < inode.seen.len() {
            Rc::make_mut(&mut inode.medium).resize(inode.seen.len(), 0);
        }
        for write in std::mem::take(&mut inode.between) {
            let before = inode.medium.get(write.offset..).unwrap_or_default();
            let before = &before[..before.len().min(write.bytes.len())];
            overwrite(&mut inode.older, write.offset, before);
            overwrite(&mut inode.medium, write.offset, &write.bytes);
        }
        inode.ever_synced = true;
        Ok(())
    }

    fn ask_for_space(&self, bytes: u64) -> io::Result<()> {
        match self.space_bytes {
            Some(limit) if bytes > 0 && self.taken_bytes() + bytes > limit => {
                Err(io::Error::new(io::ErrorKind::StorageFull, "simulated disk full"))
            }
            _ => Ok(()),
        }
    }

    fn create(&mut self, name: &str, len: u64) -> io::Result<u64> {
        if self.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, name));
        }
        self.ask_for_space(len)?;
        self.note(name.as_bytes());
        let number = self.next_inode;
        self.next_inode += 1;
        let len = usize::try_from(len).expect("64-bit machine");
        self.inodes.insert(number, Inode { seen: vec![0; len].into(), ..Inode::default() });
        self.names.insert(name.into(), number);
        self.dirs.insert(parent(name).into());
        Ok(number)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.note(name.as_bytes());
        match self.names.remove(name) {
            Some(_) => Ok(()),
            None => Err(io::Error::new(io::ErrorKind::NotFound, name)),
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.note(from.as_bytes());
        self.note(to.as_bytes());
        let inode = self.names.remove(from);
        let inode = inode.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, from))?;
        self.names.insert(to.into(), inode);
        self.dirs.insert(parent(to).into());
        Ok(())
    }

    fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        if strikes(&mut self.faults.sync) {
            return Err(io::Error::other("simulated sync error"));
        }
        if !self.dirs.contains(dir) {
            return Err(io::Error::new(io::ErrorKind::NotFound, dir));
        }
        self.note(dir.as_bytes());
        self.durable_names.retain(|name, _| parent(name) != dir);
        let here = self.names.iter().filter(|(name, _)| parent(name) == dir);
        self.durable_names.extend(here.map(|(name, inode)| (name.clone(), *inode)));
        let below = self.dirs.iter().filter(|below| parent(below) == dir);
        self.durable_dirs.extend(below.cloned());
        Ok(())
    }
}

impl Inode {
    /// Lets each sector of each unsynced write live or die. Some cuts are kind, some are cruel, most
    /// are mixed.
    fn cut_power(&mut self, lot: &mut Lot) {
        if !self.ever_synced {
            let whole = (self.seen.len() / SECTOR_BYTES) as u64;
            let sectors = if lot.one_in(2) { whole } else { lot.below(whole + 1) };
            self.medium = vec![0; sectors as usize * SECTOR_BYTES].into();
        }
        let (survivors, of) = [(0, 1), (1, 1), (1, 2), (1, 8), (7, 8)][lot.below(5) as usize];
        for write in std::mem::take(&mut self.between) {
            for (at, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
                if lot.below(of) < survivors {
                    overwrite(&mut self.medium, write.offset + at * SECTOR_BYTES, sector);
                }
            }
        }
        self.seen = self.medium.clone();
        self.ever_synced = true;
    }
}

fn overwrite(image: &mut Rc<Vec<u8>>, offset: usize, bytes: &[u8]) {
    let image = Rc::make_mut(image);
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

/// A hash that goes on over more bytes (FNV-1a, eight at a time).
fn mixed(hash: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        mixed ^ mixed >> 32
    };
    let (words, rest) = bytes.as_chunks();
    let mut hash = hash;
    for word in words {
        hash = step(hash, u64::from_le_bytes(*word));
    }
    rest.iter().fold(hash, |hash, byte| step(hash, u64::from(*byte)))
}

/// Counts an armed fault down; true when it is due.
fn strikes(fault: &mut Option<u64>) -> bool {
    match fault {
        Some(1) => {
            *fault = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

/// The folder of a name, `""` for the root.
fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, name: &str) -> io::Result<SimFile> {
        let inode = self
            .operate(b'o', |state| {
                state.names.get(name).copied().ok_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, format!("{name}: no such file"))
                })
            })
            .await?;
        Ok(SimFile { disk: self.clone(), inode })
    }

    async fn create(&self, name: &str, len: u64) -> io::Result<SimFile> {
        let inode = self.operate(b'c', |state| state.create(name, len)).await?;
        Ok(SimFile { disk: self.clone(), inode })
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.operate(b'l', |state| {
            let here = state.names.keys().filter(|name| parent(name) == dir);
            Ok(here.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect())
        })
        .await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.operate(b'u', |state| state.remove(name)).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate(b'n', |state| state.rename(from, to)).await
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.operate(b'd', |state| state.sync_dir(dir)).await
    }
}

/// An open file of a [`SimDisk`].
#[derive(Clone)]
pub(crate) struct SimFile {
    disk: SimDisk,
    inode: u64,
}

impl SimFile {
    /// Waits until all earlier [`File::write_sync_at`] calls have done this part.
    async fn turn(&self, turn: Turn, call: u64) {
        std::future::poll_fn(|context| {
            let mut state = self.disk.state.borrow_mut();
            if state.boot != self.disk.boot {
                return Poll::Pending;
            }
            match state.inode(self.inode).calls[turn as usize] == call {
                true => Poll::Ready(()),
                false => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await;
    }

    fn pass(&self, turn: Turn) {
        self.disk.state.borrow_mut().inode(self.inode).calls[turn as usize] += 1;
    }
}

impl File for SimFile {
    fn len(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        let this = self.clone();
        async move {
            let inode = this.inode;
            this.disk.operate(b's', |state| Ok(state.inode(inode).seen.len() as u64)).await
        }
    }

    fn read_at(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = io::Result<AlignedBuf>> + 'static {
        let (this, offset) = (self.clone(), offset as usize);
        assert!(offset.is_multiple_of(BLOCK_BYTES) && len.is_multiple_of(BLOCK_BYTES));
        async move {
            let inode = this.inode;
            let read = |state: &mut State| {
                let seen = &state.inode(inode).seen;
                let bytes = seen.get(offset..offset + len).ok_or(io::ErrorKind::UnexpectedEof)?;
                let mut buf = AlignedBuf::zeroed(len);
                buf.copy_from_slice(bytes);
                Ok(buf)
            };
            this.disk.operate(b'r', read).await
        }
    }

    fn write_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let (this, offset) = (self.clone(), offset as usize);
        assert!(offset.is_multiple_of(BLOCK_BYTES), "O_DIRECT writes whole blocks");
        async move {
            let inode = this.inode;
            this.disk.operate(b'w', |state| state.write(inode, offset, buf[..].into())).await
        }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let this = self.clone();
        async move {
            let inode = this.inode;
            this.disk.operate(b'f', |state| state.sync(inode)).await
        }
    }

    fn write_sync_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let this = self.clone();
        let call = {
            let mut state = self.disk.state.borrow_mut();
            let calls = &mut state.inode(self.inode).calls;
            calls[0] += 1;
            calls[0] - 1
        };
        async move {
            this.turn(Turn::Write, call).await;
            let wrote = this.write_at(buf, offset).await;
            this.pass(Turn::Write);
            this.turn(Turn::Sync, call).await;
            let synced = if wrote.is_ok() { this.sync().await } else { Ok(()) };
            this.pass(Turn::Sync);
            wrote.and(synced)
        }
    }

    fn map(&self, len: u64, _: Load) -> impl Future<Output = io::Result<Mapping>> + 'static {
        let this = self.clone();
        async move {
            let inode = this.inode;
            let copy = |state: &mut State| {
                let seen = &state.inode(inode).seen;
                let bytes = seen.get(..len as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
                Ok(Mapping::new(bytes.to_vec()))
            };
            this.disk.operate(b'm', copy).await
        }
    }
}
