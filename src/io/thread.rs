//! The real disk: O_DIRECT files driven by a named thread of their own, never by a serving core.
//!
//! io_uring writes issued by a busy pinned reactor wait behind it for 4–8 ms (the completion needs
//! a kernel thread on the same core); a blocking thread with real-time priority does the same write
//! in 0.2–0.3 ms. So each [`Lane`] is one thread with a queue; [`LaneDisk`] hands it jobs and awaits
//! them. Jobs of a lane run in the order they were made. Syncs that stand in the queue together are
//! done as one: all writes first, then one `fdatasync` per file.
#![allow(unsafe_code)]

use super::{AlignedBuf, BLOCK_BYTES, Disk, File, Load, Mapping, giveback, host, map};
use crate::limits::{MAP_LOAD_BYTES, ZERO_FILL_BYTES};
use std::{
    collections::VecDeque,
    fs,
    future::Future,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

/// One thread and the queue in front of it. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub struct Lane {
    queue: Arc<Queue>,
    _last: Arc<Hangup>,
}

struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    drag: Option<Drag>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Hangup(Arc<Queue>);

impl Drop for Hangup {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake.notify_one();
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no job runs under the lock, so it is never poisoned")
    }

    /// Every sync of the lane goes through here.
    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let outcome = sync();
        if let Some(drag) = &self.drag {
            std::thread::sleep(drag.next());
        }
        outcome
    }
}

/// How much longer than the disk needs a sync takes: a slower disk, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SyncDelay {
    /// As a rule (`--testing-sync-delay`).
    pub usual: Duration,
    /// This long instead, so often: 0 is never, 1 is always (`--testing-sync-delay-tail`).
    pub tail: (f64, Duration),
}

impl SyncDelay {
    fn is_none(&self) -> bool {
        self.usual.is_zero() && self.tail.0 == 0.0
    }
}

/// A [`SyncDelay`] and the dice that say when it is the tail's turn.
struct Drag {
    delay: SyncDelay,
    throws: AtomicU64,
}

impl Drag {
    /// Splitmix64 (Steele, Lea, Flood 2014).
    fn next(&self) -> Duration {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.throws.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // 53 bits, all that a number from 0 to 1 has.
        let thrown = (z >> 11) as f64 / (1_u64 << 53) as f64;
        let (share, tail) = self.delay.tail;
        if thrown < share { tail } else { self.delay.usual }
    }
}

enum Job {
    /// Anything that is done at once.
    Run(Box<dyn FnOnce() + Send>),
    /// A write, a sync or both; the sync is shared with its neighbours in the queue.
    Persist { file: Arc<Open>, write: Option<(AlignedBuf, u64)>, sync: bool, done: Done<()> },
}

/// How a lane's thread is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Ahead of everything that is not real-time, where the kernel allows it: the log.
    RealTime,
    /// As any other thread: checkpoints, opening, listing.
    Normal,
    /// Behind all others: what may take its time.
    Low,
}

impl Lane {
    /// Starts the thread. The name is what `top -H` shows.
    ///
    /// # Errors
    /// What the machine says when it starts no thread.
    pub fn start(name: &str, priority: Priority) -> io::Result<Self> {
        Self::start_slow(name, priority, SyncDelay::default())
    }

    /// As [`Self::start`], with a disk that is slower than it is.
    ///
    /// # Errors
    /// What the machine says when it starts no thread, or has no random number.
    pub fn start_slow(name: &str, priority: Priority, delay: SyncDelay) -> io::Result<Self> {
        let drag = match delay.is_none() {
            true => None,
            false => Some(Drag { delay, throws: AtomicU64::new(host::random()?) }),
        };
        let queue = Arc::new(Queue { state: Mutex::default(), wake: Condvar::new(), drag });
        let theirs = queue.clone();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            match priority {
                Priority::RealTime => ask_for_real_time(),
                Priority::Normal => {}
                Priority::Low => stand_back(),
            }
            serve(&theirs);
        })?;
        let _last = Arc::new(Hangup(queue.clone()));
        Ok(Self { queue, _last })
    }

    fn submit(&self, job: Job) {
        self.queue.lock().jobs.push_back(job);
        self.queue.wake.notify_one();
    }

    /// Does `work` on the lane's thread, after all that was asked of it before.
    ///
    /// # Errors
    /// What `work` says.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Wait<T> {
        let (done, wait) = completion();
        self.submit(Job::Run(Box::new(move || done.set(work()))));
        wait
    }
}

/// Real-time priority keeps the log's latency when every core is busy. Containers and
/// `RT_GROUP_SCHED` may refuse it: then the log is only as quick as any other thread.
fn ask_for_real_time() {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 names the calling thread, and the struct outlives the call.
    let refused = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) } != 0;
    if refused {
        crate::log::info!(
            "log thread runs without real-time priority",
            "advice" => "grant CAP_SYS_NICE for a steadier tail latency",
        );
    }
}

/// A thread's own niceness (setpriority(2): on Linux it is the thread's, not the process's).
fn stand_back() {
    const NICENESS: libc::c_int = 15;
    // SAFETY: plain numbers; 0 names the calling thread.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) } != 0;
    if refused {
        crate::log::info!("a thread in the background runs as any other");
    }
}

fn serve(queue: &Queue) {
    loop {
        let mut batch = {
            let mut state = queue.lock();
            while state.jobs.is_empty() {
                if state.closed {
                    return;
                }
                state = queue.wake.wait(state).expect("never poisoned");
            }
            std::mem::take(&mut state.jobs)
        };
        while let Some(job) = batch.pop_front() {
            match job {
                Job::Run(work) => work(),
                persist => {
                    let mut run = vec![persist];
                    while let Some(Job::Persist { .. }) = batch.front() {
                        run.extend(batch.pop_front());
                    }
                    persist_all(queue, run);
                }
            }
        }
    }
}

/// All writes in order, one sync per file that asked for one, then every answer in order.
fn persist_all(queue: &Queue, run: Vec<Job>) {
    let mut answers = Vec::with_capacity(run.len());
    let mut to_sync: Vec<Arc<Open>> = Vec::new();
    for job in run {
        let Job::Persist { file, write, sync, done } = job else { unreachable!("chosen above") };
        let wrote = write.map_or(Ok(()), |(buf, offset)| file.write(&buf, offset));
        if sync && !to_sync.iter().any(|known| Arc::ptr_eq(known, &file)) {
            to_sync.push(file.clone());
        }
        answers.push((file, sync, wrote, done));
    }
    let synced: Vec<_> = to_sync.iter().map(|file| (file, queue.sync(|| file.sync()))).collect();
    for (file, sync, wrote, done) in answers {
        let outcome = wrote.and_then(|()| {
            let of_mine = synced.iter().find(|(known, _)| sync && Arc::ptr_eq(known, &file));
            match of_mine {
                Some((_, Err(error))) => Err(io::Error::new(error.kind(), error.to_string())),
                _ => Ok(()),
            }
        });
        done.set(outcome);
    }
}

/// A file with its name, so that every error can say where it happened.
struct Open {
    file: fs::File,
    path: PathBuf,
}

impl Open {
    fn named(&self, doing: &str, error: &io::Error) -> io::Error {
        named(&self.path, doing, error)
    }
    fn write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset).map_err(|error| {
            self.named(&format!("write of {} bytes at {offset}", buf.len()), &error)
        })
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| self.named("sync", &error))
    }
}

pub(super) fn named(path: &Path, doing: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {doing}: {error}", path.display()))
}

/// A directory, reached through one lane.
#[derive(Clone)]
pub struct LaneDisk {
    lane: Lane,
    root: Arc<PathBuf>,
}

impl LaneDisk {
    /// Files below `root`, which must exist, driven by `lane`.
    pub fn new(lane: Lane, root: PathBuf) -> Self {
        Self { lane, root: Arc::new(root) }
    }

    fn open_file(path: PathBuf, lane: Lane, fresh: bool) -> io::Result<LaneFile> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(fresh)
            .mode(0o600)
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
            .open(&path)
            .map_err(|error| named(&path, if fresh { "create" } else { "open" }, &error))?;
        Ok(LaneFile { lane, open: Arc::new(Open { file, path }) })
    }
}

/// The directory that a name below `root` needs.
fn make_parent(queue: &Queue, root: &Path, path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        fs::create_dir_all(parent).map_err(|error| named(parent, "create", &error))?;
        sync_directory(queue, root)?;
    }
    Ok(())
}

fn sync_directory(queue: &Queue, path: &Path) -> io::Result<()> {
    let sync = || fs::File::open(path).and_then(|dir| dir.sync_all());
    queue.sync(sync).map_err(|error| named(path, "sync directory", &error))
}

/// Names of the files directly in `dir`, sorted; none where there is no such directory.
pub(super) fn file_names(dir: &Path) -> io::Result<Vec<String>> {
    let failed = |error| named(dir, "list", &error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

impl Disk for LaneDisk {
    type File = LaneFile;

    fn open(&self, name: &str) -> impl Future<Output = io::Result<LaneFile>> {
        let (path, lane) = (self.root.join(name), self.lane.clone());
        self.lane.run(move || Self::open_file(path, lane, false))
    }

    fn create(&self, name: &str, len: u64) -> impl Future<Output = io::Result<LaneFile>> {
        let (root, path, lane) = (self.root.clone(), self.root.join(name), self.lane.clone());
        self.lane.run(move || {
            make_parent(&lane.queue, &root, &path)?;
            let file = Self::open_file(path, lane, true)?;
            let filled = zero_fill(&file.open, len);
            if filled.is_err() {
                // Half a file helps nobody, least of all a full disk; the first error is the one to tell.
                let _gone = fs::remove_file(&file.open.path);
            }
            filled.map(|()| file)
        })
    }

    fn list(&self, dir: &str) -> impl Future<Output = io::Result<Vec<String>>> {
        let path = self.root.join(dir);
        self.lane.run(move || file_names(&path))
    }

    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> {
        let (root, path) = (self.root.clone(), self.root.join(name));
        self.lane.run(move || {
            giveback::remove(&root, &path).map_err(|error| named(&path, "remove", &error))
        })
    }

    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>> {
        let (root, from, to) = (self.root.clone(), self.root.join(from), self.root.join(to));
        let queue = self.lane.queue.clone();
        self.lane.run(move || {
            make_parent(&queue, &root, &to)?;
            fs::rename(&from, &to).map_err(|error| named(&from, "rename", &error))
        })
    }

    fn sync_dir(&self, dir: &str) -> impl Future<Output = io::Result<()>> {
        let (path, queue) = (self.root.join(dir), self.lane.queue.clone());
        self.lane.run(move || sync_directory(&queue, &path))
    }
}

fn zero_fill(open: &Open, len: u64) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let step = (len - at).min(ZERO_FILL_BYTES as u64) as usize;
        open.write(&AlignedBuf::zeroed(step), at)?;
        at += step as u64;
    }
    Ok(())
}

/// A file of a [`LaneDisk`], open with O_DIRECT.
#[derive(Clone)]
pub struct LaneFile {
    lane: Lane,
    open: Arc<Open>,
}

impl LaneFile {
    fn persist(&self, write: Option<(AlignedBuf, u64)>, sync: bool) -> Wait<()> {
        let (done, wait) = completion();
        self.lane.submit(Job::Persist { file: self.open.clone(), write, sync, done });
        wait
    }
}

impl File for LaneFile {
    fn len(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        let open = self.open.clone();
        self.lane.run(move || {
            open.file.metadata().map(|meta| meta.len()).map_err(|e| open.named("stat", &e))
        })
    }

    fn read_at(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = io::Result<AlignedBuf>> + 'static {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES));
        let open = self.open.clone();
        self.lane.run(move || {
            let mut buf = AlignedBuf::zeroed(len);
            open.file
                .read_exact_at(&mut buf, offset)
                .map_err(|e| open.named(&format!("read of {len} bytes at {offset}"), &e))?;
            Ok(buf)
        })
    }

    fn write_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        self.persist(Some((buf, offset)), false)
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        self.persist(None, true)
    }

    fn write_sync_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        self.persist(Some((buf, offset)), true)
    }

    fn map(&self, len: u64, load: Load) -> impl Future<Output = io::Result<Mapping>> + 'static {
        let (lane, open) = (self.lane.clone(), self.open.clone());
        async move {
            let mapped = lane.run(move || {
                map::map(&open.file, len)
                    .map_err(|error| open.named(&format!("map of {len} bytes"), &error))
            });
            let map = mapped.await?;
            // A piece at a time, so that others who need the disk or this thread get to it in between.
            for at in (0..map.len()).step_by(MAP_LOAD_BYTES).filter(|_| load == Load::Now) {
                let (map, end) = (map.clone(), map.len().min(at + MAP_LOAD_BYTES));
                let loaded = lane.run(move || {
                    map.load(at..end);
                    Ok(())
                });
                loaded.await?;
            }
            Ok(map)
        }
    }
}

/// The two ends of one job's answer.
fn completion<T>() -> (Done<T>, Wait<T>) {
    let slot = Arc::new(Mutex::new(Slot { answer: None, waker: None }));
    (Done(slot.clone()), Wait(slot))
}

struct Slot<T> {
    answer: Option<io::Result<T>>,
    waker: Option<Waker>,
}

struct Done<T>(Arc<Mutex<Slot<T>>>);
/// What a lane's thread will say.
pub struct Wait<T>(Arc<Mutex<Slot<T>>>);

impl<T> Done<T> {
    fn set(self, answer: io::Result<T>) {
        let waker = {
            let mut slot = self.0.lock().expect("nothing panics under this lock");
            slot.answer = Some(answer);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Wait<T> {
    type Output = io::Result<T>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let mut slot = self.0.lock().expect("nothing panics under this lock");
        match slot.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    /// A directory of our own on a disk that has O_DIRECT (the build's, not `/tmp`, which may be memory).
    fn scratch(name: &str) -> LaneDisk {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target")
            .join(format!("lane-{name}-{}", std::process::id()));
        let _absent = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        LaneDisk::new(Lane::start("test-io", Priority::Normal).unwrap(), root)
    }

    #[test]
    fn a_file_is_created_zeroed_written_in_order_and_read_back() {
        let disk = scratch("roundtrip");
        block_on(async {
            let file = disk.create("deep/a", 3 * BLOCK_BYTES as u64).await.unwrap();
            assert_eq!(file.len().await.unwrap(), 3 * BLOCK_BYTES as u64);
            assert!(file.read_at(0, 3 * BLOCK_BYTES).await.unwrap().iter().all(|b| *b == 0));
            let mut writes = Vec::new();
            for round in 1..=4u8 {
                let mut buf = AlignedBuf::zeroed(BLOCK_BYTES);
                buf.fill(round);
                writes.push(file.write_sync_at(buf, BLOCK_BYTES as u64));
            }
            for write in writes {
                write.await.unwrap();
            }
            let map = file.map(3 * BLOCK_BYTES as u64, Load::Now).await.unwrap();
            assert_eq!((map[0], map[BLOCK_BYTES], map[2 * BLOCK_BYTES]), (0, 4, 0));
            disk.sync_dir("deep").await.unwrap();
            assert_eq!(disk.list("deep").await.unwrap(), ["a"]);
            disk.remove("deep/a").await.unwrap();
            assert_eq!(disk.list("deep").await.unwrap(), [""; 0]);
            assert_eq!(map[BLOCK_BYTES], 4, "a map outlives its file's name");
        });
        fs::remove_dir_all(&*disk.root).unwrap();
    }

    #[test]
    fn a_slow_disk_takes_its_time_for_every_sync() {
        let drag =
            |usual, tail| Drag { delay: SyncDelay { usual, tail }, throws: AtomicU64::new(7) };
        let (usual, tail) = (Duration::from_millis(1), Duration::from_secs(1));
        for (share, expected) in [(0.0, 0..=0), (0.01, 50..=200), (0.5, 4_500..=5_500)] {
            let drag = drag(usual, (share, tail));
            let waits: Vec<_> = (0..10_000).map(|_| drag.next()).collect();
            let tails = waits.iter().filter(|wait| **wait == tail).count();
            assert!(expected.contains(&tails), "{tails} of 10000 at {share}");
            assert!(waits.iter().all(|wait| [usual, tail].contains(wait)));
        }
        let always = drag(usual, (1.0, tail));
        assert!((0..10_000).all(|_| always.next() == tail));
    }

    #[test]
    fn errors_name_the_file() {
        let disk = scratch("errors");
        block_on(async {
            let missing = disk.open("nowhere").await.err().unwrap();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            assert!(missing.to_string().contains("nowhere: open"), "{missing}");
            let file = disk.create("a", BLOCK_BYTES as u64).await.unwrap();
            let past = file.read_at(BLOCK_BYTES as u64, BLOCK_BYTES).await.err().unwrap();
            assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
            assert!(disk.create("a", 0).await.is_err(), "a second create would lose the first");
            assert_eq!(disk.list("nothing").await.unwrap(), [""; 0]);
        });
        fs::remove_dir_all(&*disk.root).unwrap();
    }
}
