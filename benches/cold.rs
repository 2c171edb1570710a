//! A page of a mapped file that is not in memory: what it costs to know, what the read takes, and how
//! long everybody else on the core waits, for each way of reading it (decision 15).
//!
//! Beside the reads a task of the same executor ticks every 50 µs; its longest gap is the stall. The
//! executor's thread asks for real-time priority, so that what it waits for is the disk and not other
//! programs; the kernel takes that away for 50 ms of a second, so there is no maximum here.
//!
//! `COLD_BENCH_FOLDER` says where the file is (a real disk; else below `target`), `COLD_BENCH_MIB` how
//! large (1024). An argument names a part: probes, reads, batches, scans or memory, of which the last
//! wants a limit on memory below the file's size, as of a cgroup: how often is a page gone that was there
//! so long ago? As a test (`--test`) all of it is small.
#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "it measures the real machine in real time")]

use futures_lite::future::block_on;
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, io::DmaFile, timer::sleep};
use ringleader::io::thread::{Lane, Priority};
use std::{
    cell::Cell,
    env, fs,
    hint::black_box,
    io::Write,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

const PAGE_BYTES: usize = 4096;
const TICK: Duration = Duration::from_micros(50);
/// Where nothing of the reads before is to be noticed any more.
const QUIET: Duration = Duration::from_micros(500);
/// Leaves that one turn of the writer needs.
const BATCH: usize = 100;

/// Splitmix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * end as u128) >> 64) as usize
    }
}

// ── a mapped file ───────────────────────────────────────────────────────────────────────────────

struct Mapped {
    map: memmap2::Mmap,
    file: fs::File,
}

impl Mapped {
    fn open(path: &Path) -> Self {
        let file = fs::File::open(path).expect("the file was made just now");
        // SAFETY: nobody writes to the file or cuts it while this runs.
        let map = unsafe { memmap2::Mmap::map(&file) }.expect("a file can be mapped");
        Self { map, file }
    }

    fn pages(&self) -> usize {
        self.map.len() / PAGE_BYTES
    }

    fn advise(&self, page: usize, pages: usize, advice: libc::c_int) {
        let at = self.map.as_ptr().wrapping_add(page * PAGE_BYTES).cast_mut();
        // SAFETY: the range is within the map, which is only read; no advice given here changes it.
        let said = unsafe { libc::madvise(at.cast(), pages * PAGE_BYTES, advice) };
        assert_eq!(said, 0, "madvise {advice}");
    }

    /// Takes all of it out of memory.
    fn cool(&self) {
        self.advise(0, self.pages(), libc::MADV_DONTNEED);
        // SAFETY: plain numbers.
        let said =
            unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(said, 0, "posix_fadvise");
    }

    fn is_resident(&self, page: usize) -> bool {
        let at = self.map.as_ptr().wrapping_add(page * PAGE_BYTES).cast_mut();
        let mut answer = 0_u8;
        // SAFETY: one page of the map, and a byte for the answer.
        let said = unsafe { libc::mincore(at.cast(), PAGE_BYTES, &mut answer) };
        assert_eq!(said, 0, "mincore");
        answer & 1 == 1
    }

    fn touch(&self, page: usize) {
        black_box(self.map[page * PAGE_BYTES + 100]);
    }

    /// The other way to ask: a read that does not wait.
    fn reads_at_once(&self, page: usize) -> bool {
        let mut byte = 0_u8;
        let to = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let (fd, at) = (self.file.as_raw_fd(), (page * PAGE_BYTES) as i64);
        // SAFETY: one byte is read into one byte.
        (unsafe { libc::preadv2(fd, &to, 1, at, libc::RWF_NOWAIT) }) == 1
    }
}

/// Page faults of this thread that waited for the disk.
fn major_faults() -> i64 {
    // SAFETY: a struct of numbers, all zero is one of its values; filled by the call.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage.ru_majflt
    }
}

/// This thread's scheduling; threads that it starts have the usual one.
fn ask_for_real_time() {
    let param = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 names the calling thread, and the struct outlives the call.
    if unsafe { libc::sched_setscheduler(0, policy, &param) } != 0 {
        println!("without real-time priority: gaps are of other programs too");
    }
}

// ── what it costs to know ───────────────────────────────────────────────────────────────────────

fn probes(map: &Mapped, count: usize) {
    map.advise(0, map.pages(), libc::MADV_NORMAL);
    (0..map.pages()).for_each(|page| map.touch(page));
    let mut dice = Dice(7);
    let order: Vec<_> = (0..count).map(|_| dice.below(map.pages())).collect();
    let bits = vec![u64::MAX; map.pages().div_ceil(64)];
    let time = |name: &str, probe: &dyn Fn(usize)| {
        let begun = Instant::now();
        order.iter().for_each(|page| probe(*page));
        let nanos = begun.elapsed().as_nanos() as f64 / count as f64;
        println!("{name:<44} {nanos:8.1} ns");
    };
    time("a bit of a bitmap", &|page| {
        black_box(bits[page / 64] >> (page % 64) & 1);
    });
    time("the page itself", &|page| map.touch(page));
    time("mincore", &|page| assert!(map.is_resident(page)));
    time("preadv2 with RWF_NOWAIT", &|page| assert!(map.reads_at_once(page)));
    time("getrusage", &|_| {
        black_box(major_faults());
    });
}

// ── a cold read beside a ticker ─────────────────────────────────────────────────────────────────

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Touched, and the kernel reads what lies around too.
    FaultAround,
    /// Touched, after `MADV_RANDOM`, as for all below.
    Fault,
    /// Asked for with `MADV_WILLNEED`, and looked for again each tick.
    WillNeed,
    /// Touched by another thread, page by page.
    HelperByPage,
    /// Handed as a whole to another thread.
    Helper,
    /// Handed as a whole to another thread, the first page asked for with `MADV_WILLNEED`.
    AskedHelper,
    /// Read by io_uring past the page cache.
    Uring,
}

const WAYS: [Way; 7] = [
    Way::FaultAround,
    Way::Fault,
    Way::WillNeed,
    Way::HelperByPage,
    Way::Helper,
    Way::AskedHelper,
    Way::Uring,
];

struct Seat {
    map: Arc<Mapped>,
    helper: Lane,
    direct: DmaFile,
}

impl Seat {
    /// Pages one after the other: where the next one is stands in the one before.
    async fn read(&self, way: Way, pages: &[usize]) {
        if way == Way::AskedHelper {
            self.map.advise(pages[0], 1, libc::MADV_WILLNEED);
        }
        if matches!(way, Way::Helper | Way::AskedHelper) {
            return self.touched_elsewhere(pages.to_vec()).await;
        }
        for &page in pages {
            if way == Way::Uring {
                let read = self.direct.read_at_aligned((page * PAGE_BYTES) as u64, PAGE_BYTES);
                assert_eq!(read.await.expect("a page can be read").len(), PAGE_BYTES);
                continue;
            }
            match way {
                Way::WillNeed if !self.map.is_resident(page) => {
                    self.map.advise(page, 1, libc::MADV_WILLNEED);
                    while !self.map.is_resident(page) {
                        sleep(TICK).await;
                    }
                }
                Way::HelperByPage if !self.map.is_resident(page) => {
                    self.touched_elsewhere(vec![page]).await;
                }
                _ => {}
            }
            self.map.touch(page);
        }
    }

    async fn touched_elsewhere(&self, pages: Vec<usize>) {
        let map = self.map.clone();
        let touch = move || {
            pages.iter().for_each(|page| map.touch(*page));
            Ok(())
        };
        self.helper.run(touch).await.expect("touching does not fail");
    }
}

/// The longest gap of a ticker since it was last asked.
type Gap = Rc<Cell<Duration>>;

async fn tick(gap: Gap) {
    let mut last = Instant::now();
    loop {
        sleep(TICK).await;
        let now = Instant::now();
        gap.set(gap.get().max(now - last));
        last = now;
    }
}

async fn cold_reads(seat: Seat, gap: Gap, samples: usize, depth: usize) {
    let (mut dice, map) = (Dice(1), &seat.map);
    for way in WAYS {
        let random = way != Way::FaultAround;
        let advice = if random { libc::MADV_RANDOM } else { libc::MADV_NORMAL };
        map.advise(0, map.pages(), advice);
        let (mut took, mut gaps, mut usual) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..samples {
            map.cool();
            let pages: Vec<_> = (0..depth).map(|_| dice.below(map.pages())).collect();
            sleep(QUIET).await;
            gap.take();
            sleep(QUIET).await;
            usual.push(gap.take());
            let begun = Instant::now();
            seat.read(way, &pages).await;
            took.push(begun.elapsed());
            sleep(4 * TICK).await;
            gaps.push(gap.take());
        }
        let [took, gaps, usual] = [took, gaps, usual].map(percentiles);
        println!(
            "{:<12} {depth} pages   read {took}   gap {gaps}   else {usual}",
            format!("{way:?}")
        );
    }
}

/// p50, p90 and p99 in microseconds.
fn percentiles(mut all: Vec<Duration>) -> String {
    all.sort_unstable();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100].as_micros();
    format!("{:>6} {:>6} {:>6}", at(50), at(90), at(99))
}

/// What `runtime::nudge` does for a member: an executor that fell asleep with work to do wakes up.
fn nudge(waker: Arc<Mutex<Option<Waker>>>) {
    thread::spawn(move || {
        while Arc::strong_count(&waker) > 1 {
            let waker = waker.lock().expect("nobody panics").clone();
            waker.into_iter().for_each(Waker::wake);
            thread::sleep(Duration::from_millis(10));
        }
    });
}

fn serve(path: PathBuf, core: usize, samples: usize, depth: usize) {
    let main = move || async move {
        let helper = Lane::start("helper", Priority::Normal).expect("a thread can be started");
        let direct = DmaFile::open(&path).await.expect("O_DIRECT is possible here");
        let seat = Seat { map: Mapped::open(&path).into(), helper, direct };
        ask_for_real_time();
        let latency = Latency::Matters(Duration::from_micros(200));
        let queue = glommio::executor().create_task_queue(Shares::default(), latency, "core");
        let (gap, slot) = (Gap::default(), Arc::default());
        nudge(Arc::clone(&slot));
        let idle = std::future::poll_fn::<(), _>(move |cx| {
            *slot.lock().expect("nobody panics") = Some(cx.waker().clone());
            Poll::Pending
        });
        let spawn_beside = |task| glommio::spawn_local_into(task, queue).expect("it was made");
        let _idle = glommio::spawn_local_into(idle, queue).expect("the queue was made just now");
        let _ticker = spawn_beside(tick(gap.clone()));
        let reads = cold_reads(seat, gap, samples, depth);
        glommio::spawn_local_into(reads, queue).expect("the queue was made just now").await;
    };
    let executor = LocalExecutorBuilder::new(Placement::Fixed(core));
    let thread = executor.spin_before_park(Duration::from_micros(20)).spawn(main);
    thread.expect("an executor can be started").join().expect("nobody panics");
}

/// Keeps a core busy until told to stop.
fn spin(core: usize, stop: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        // SAFETY: a set of bits, all zero is one of its values, and 0 names the calling thread.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(core, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    })
}

fn reads(path: &Path, samples: usize) {
    let cores = ringleader::io::host::allowed_cores().expect("the kernel says which");
    let (other, own) = (cores[0], *cores.last().expect("there is one"));
    println!("microseconds: p50, p90, p99");
    for (busy, depth) in [(false, 1), (false, 3), (true, 1), (true, 3)] {
        println!("the other core {}", if busy { "busy" } else { "idle" });
        let stop = Arc::new(AtomicBool::new(!busy));
        let spinner = spin(other, stop.clone());
        serve(path.to_path_buf(), own, samples, depth);
        stop.store(true, Ordering::Relaxed);
        spinner.join().expect("nobody panics");
    }
}

// ── many at once: the leaves of the writer's next turn ──────────────────────────────────────────

fn batches(map: &Arc<Mapped>, rounds: usize) {
    map.advise(0, map.pages(), libc::MADV_RANDOM);
    let lane = |_| Lane::start("helper", Priority::Normal).expect("a thread can be started");
    let lanes: Vec<_> = (0..4).map(lane).collect();
    let helped = |helpers: usize, pages: &[usize]| {
        let job = |(at, &page): (usize, &usize)| {
            let map = map.clone();
            lanes[at % helpers].run(move || {
                map.touch(page);
                Ok(())
            })
        };
        let jobs: Vec<_> = pages.iter().enumerate().map(job).collect();
        jobs.into_iter().for_each(|job| block_on(job).expect("touching does not fail"));
    };
    let touch = |pages: &[usize]| pages.iter().for_each(|page| map.touch(*page));
    let ask = |pages: &[usize]| {
        pages.iter().for_each(|page| map.advise(*page, 1, libc::MADV_WILLNEED));
    };
    let mut dice = Dice(3);
    let mut time = |name: &str, fetch: &dyn Fn(&[usize])| {
        let mut took = Vec::new();
        for _ in 0..rounds {
            map.cool();
            let pages: Vec<_> = (0..BATCH).map(|_| dice.below(map.pages())).collect();
            let begun = Instant::now();
            fetch(&pages);
            took.push(begun.elapsed());
        }
        println!("{BATCH} pages, {name:<32} {}", percentiles(took));
    };
    time("touched", &touch);
    time("asked for", &ask);
    time("asked for, then touched", &|pages| {
        ask(pages);
        touch(pages);
    });
    time("touched by a helper", &|pages| helped(1, pages));
    time("touched by four", &|pages| helped(4, pages));
}

// ── all in a row, as a sweep or a snapshot reads ────────────────────────────────────────────────

fn scans(map: &Mapped) {
    let (pages, ahead) = (map.pages() / 4, (1 << 20) / PAGE_BYTES);
    for (name, advice, asks) in [
        ("as it is", libc::MADV_NORMAL, false),
        ("MADV_RANDOM", libc::MADV_RANDOM, false),
        ("MADV_RANDOM, asked for 1 MiB ahead", libc::MADV_RANDOM, true),
    ] {
        map.cool();
        map.advise(0, map.pages(), advice);
        let begun = Instant::now();
        for page in 0..pages {
            if asks && page % ahead == 0 {
                map.advise(page, ahead.min(pages - page), libc::MADV_WILLNEED);
                let next = (page + ahead).min(pages);
                map.advise(next, ahead.min(pages - next), libc::MADV_WILLNEED);
            }
            map.touch(page);
        }
        let speed = (pages * PAGE_BYTES) as f64 / begun.elapsed().as_secs_f64() / 1e6;
        println!("in a row, {name:<36} {speed:6.0} MB/s");
    }
}

// ── what is there now is there for how long? ────────────────────────────────────────────────────

/// Four of five reads go to a tenth of the pages. A page known to be there is asked about again once
/// `age` has passed.
fn memory(map: &Mapped, age: Duration, length: Duration) {
    map.advise(0, map.pages(), libc::MADV_RANDOM);
    let (mut dice, mut known) = (Dice(9), vec![false; map.pages()]);
    let (mut reads, mut asked, mut gone) = (0_u64, 0_u64, 0_u64);
    let (mut waited, begun) = (0, Instant::now());
    let mut forgot = begun;
    while begun.elapsed() < length {
        if forgot.elapsed() > age {
            known.fill(false);
            forgot = Instant::now();
        }
        let hot = dice.below(5) > 0;
        let page = dice.below(if hot { map.pages() / 10 } else { map.pages() });
        reads += 1;
        if !std::mem::replace(&mut known[page], true) {
            asked += 1;
            gone += u64::from(!map.is_resident(page));
            map.touch(page);
            continue;
        }
        let before = major_faults();
        map.touch(page);
        waited += major_faults() - before;
    }
    let share = |part: u64| part as f64 / reads.max(1) as f64 * 100.0;
    println!(
        "known for {age:>5.1?}: of {reads} reads {:.1} % asked, {:.1} % found it gone, {:.2} % believed \
         and waited",
        share(asked),
        share(gone),
        share(waited as u64),
    );
}

// ── all of it ───────────────────────────────────────────────────────────────────────────────────

fn make(path: &Path, mib: usize) {
    let mut file = fs::File::create(path).expect("the file can be made");
    let mut dice = Dice(5);
    for _ in 0..mib {
        let words = (0..(1 << 20) / 8).map(|_| dice.below(usize::MAX).to_le_bytes());
        let chunk: Vec<u8> = words.flatten().collect();
        file.write_all(&chunk).expect("there is room for the file");
    }
    file.sync_all().expect("the file can be synced");
}

fn main() {
    let tiny = env::args().any(|arg| arg == "--test");
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    let mib = number("COLD_BENCH_MIB").unwrap_or(if tiny { 8 } else { 1024 });
    let folder = env::var("COLD_BENCH_FOLDER").unwrap_or(env!("CARGO_TARGET_TMPDIR").into());
    let path = PathBuf::from(folder).join("cold-pages");
    let (count, samples, rounds) = if tiny { (100, 2, 1) } else { (200_000, 300, 20) };
    make(&path, mib);
    let map = Arc::new(Mapped::open(&path));
    let named: Vec<_> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    if wanted("probes") {
        probes(&map, count);
        map.cool();
    }
    if wanted("reads") {
        reads(&path, samples);
    }
    if wanted("batches") {
        batches(&map, rounds);
    }
    if wanted("scans") {
        scans(&map);
    }
    if wanted("memory") {
        for age in [100, 1_000, 10_000] {
            let length = Duration::from_secs(if tiny { 0 } else { 12 });
            memory(&map, Duration::from_millis(age), length);
        }
    }
    fs::remove_file(&path).expect("the file is there");
}
