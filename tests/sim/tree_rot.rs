//! What a disk does to a tree's files behind everybody's back is named with file and place, or changes
//! nothing: pages of the index, and records.
//!
//! ```text
//!   flip    one bit is another
//!   lost    a block or a sector is as it was before it was written, though the disk said that it was
//!   astray  a sector of somewhere else stands here
//! ```
//!
//! Opening does not look at pages and records. So each directory is read whole, which must name what is
//! damaged; and some of them are read as a member does, in a process of its own: it must die
//! with the page's place on its lips, and answer nothing wrong before.

use crate::{
    disk::{Crash, SECTOR_BYTES, SimDisk, SimFile},
    executor::Lot,
    tree_model::{History, OPTIONS, Rig, checkpoint, format, open, run},
};
use ringleader::{
    io::{AlignedBuf, BLOCK_BYTES, Disk, File, Load, Mapping},
    tree::{self, OpenError, SUPERBLOCK_FILE},
};
use std::{cell::Cell, collections::BTreeMap, future::Future, io, rc::Rc};

const ENTRIES: usize = 160;
/// Apart enough to be quick, and in every line of the index at least once.
const FLIPPED_EVERY_BYTES: usize = 48;

/// A directory, and what is in it.
struct Directory {
    disk: SimDisk,
    history: History,
}

/// An index in several files, segments of all kinds, dead records, leases.
fn directory() -> Directory {
    let count =
        |disk: &SimDisk, part: &str| disk.names().iter().filter(|it| it.contains(part)).count();
    let has_all = |disk: &SimDisk| {
        count(disk, "idx/") > 2
            && [".g0", ".g1", "dead.", "leases."].iter().all(|part| count(disk, part) > 0)
    };
    (0..).map(draw_directory).find(|it| has_all(&it.disk)).expect("seeds do not end")
}

fn draw_directory(seed: u64) -> Directory {
    let history = History::draw(seed, ENTRIES);
    let disk = SimDisk::new(seed);
    let mut rig = Rig::new(format(&disk), 0, &history);
    while rig.apply(&history) {
        rig.tree.sweep(30);
        if rig.applied.is_multiple_of(16) {
            checkpoint(&mut rig, &disk);
        }
    }
    Directory { disk, history }
}

/// Which file is damaged, and where.
type Place = (String, u64);

impl Directory {
    fn files(&self) -> Vec<String> {
        self.disk.names().into_iter().filter(|name| name != SUPERBLOCK_FILE).collect()
    }

    /// The place that is named, or None for a directory in which everything is as it was.
    fn place_of_damage(&self, disk: &SimDisk, what: &str) -> Option<Place> {
        match open(disk).map(|found| found.expect("a damaged directory is not an empty one")) {
            Ok((tree, root)) => {
                let model = self.history.model(root.facts.applied.0);
                model.check(&tree.reader(), &mut Lot::new(1), false);
                model.check_ranks(&tree.reader());
                None
            }
            Err(OpenError::Damaged { file, flaw }) => Some((file, flaw.offset)),
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// What happened to a file, and the bytes of it that are others.
struct Blow {
    what: String,
    from: usize,
    to: usize,
}

fn flip(disk: &SimDisk, name: &str, byte: usize) -> Blow {
    disk.flip(name, byte * 8 + byte % 8);
    Blow { what: format!("{name}: a bit of byte {byte}"), from: byte, to: byte + 1 }
}

fn overwrite(disk: &SimDisk, name: &str, at: usize, bytes: &[u8], what: &str) -> Blow {
    disk.poke(name, at, bytes);
    Blow { what: format!("{name}: {what} at {at}"), from: at, to: at + bytes.len() }
}

/// Every damage of one file that is tried.
fn blows(directory: &Directory, name: &str) -> Vec<(SimDisk, Blow)> {
    let image = directory.disk.peek(name);
    let mut blows = Vec::new();
    let mut strike = |blow: &dyn Fn(&SimDisk) -> Blow| {
        let struck = directory.disk.fork();
        let blow = blow(&struck);
        blows.push((struck, blow));
    };
    for byte in (0..image.len()).step_by(FLIPPED_EVERY_BYTES) {
        strike(&|disk| flip(disk, name, byte));
    }
    for (unit, what) in [(SECTOR_BYTES, "a lost sector"), (BLOCK_BYTES, "a lost block")] {
        for at in (0..image.len()).step_by(unit) {
            strike(&|disk| overwrite(disk, name, at, &vec![0; unit], what));
        }
    }
    for at in (0..image.len()).step_by(SECTOR_BYTES) {
        let elsewhere = (at + 3 * SECTOR_BYTES) % image.len();
        let sector = &image[elsewhere..elsewhere + SECTOR_BYTES];
        strike(&|disk| overwrite(disk, name, at, sector, "a sector that went astray"));
    }
    blows
}

#[test]
fn what_rots_in_pages_and_records_is_named_or_does_not_matter() {
    let directory = directory();
    let mut named: BTreeMap<String, u32> = BTreeMap::new();
    for name in directory.files() {
        let image = directory.disk.peek(&name);
        for (disk, blow) in blows(&directory, &name) {
            let Some((file, at)) = directory.place_of_damage(&disk, &blow.what) else { continue };
            assert_eq!(file, name, "{}", blow.what);
            if name.starts_with("idx/") && at as usize >= BLOCK_BYTES {
                let page = at as usize..at as usize + page_bytes(&image, at as usize);
                let hit = blow.from < page.end && page.start < blow.to;
                assert!(hit, "{}, but the page at {page:?} is named", blow.what);
            }
            let kind = if name.starts_with("idx/") { "a page" } else { &name[..name.len().min(8)] };
            *named.entry(kind.into()).or_default() += 1;
        }
    }
    let kinds = ["a page", "rec/0000", "rec/dead", "rec/leas"];
    assert!(named.keys().eq(kinds) && named.values().all(|times| *times > 3), "{named:?}");
    assert!(named["a page"] > 100 && named["rec/0000"] > 500, "{named:?}");
}

/// Bytes of the page there, by its own word.
fn page_bytes(image: &[u8], at: usize) -> usize {
    let bytes: [u8; 4] = image[at + 4..at + 8].try_into().expect("four bytes");
    u32::from_le_bytes(bytes) as usize
}

// ── lost writes ─────────────────────────────────────────────────────────────────────────────────

/// A disk that says of one write below a directory that it is done, and does not do it.
#[derive(Clone)]
struct Forgetful {
    disk: SimDisk,
    below: &'static str,
    /// Writes there until it is the one.
    left: Rc<Cell<u64>>,
}

#[derive(Clone)]
struct ForgetfulFile {
    file: SimFile,
    forgets: bool,
    left: Rc<Cell<u64>>,
}

impl Forgetful {
    fn file(&self, name: &str, file: SimFile) -> ForgetfulFile {
        ForgetfulFile { file, forgets: name.starts_with(self.below), left: self.left.clone() }
    }
}

impl Disk for Forgetful {
    type File = ForgetfulFile;

    async fn open(&self, name: &str) -> io::Result<ForgetfulFile> {
        Ok(self.file(name, self.disk.open(name).await?))
    }

    async fn create(&self, name: &str, len: u64) -> io::Result<ForgetfulFile> {
        Ok(self.file(name, self.disk.create(name, len).await?))
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to).await
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir).await
    }
}

impl File for ForgetfulFile {
    fn len(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        self.file.len()
    }

    fn read_at(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = io::Result<AlignedBuf>> + 'static {
        self.file.read_at(offset, len)
    }

    fn write_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let forgotten = self.forgets && {
            let left = self.left.get();
            self.left.set(left.saturating_sub(1));
            left == 1
        };
        let (file, len) = (self.file.clone(), offset as usize + buf.len());
        async move {
            match forgotten {
                // The file is as long as if it had been done, or anybody would notice.
                true => grow(&file, len).await,
                false => file.write_at(buf, offset).await,
            }
        }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        self.file.sync()
    }

    fn write_sync_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        self.file.write_sync_at(buf, offset)
    }

    fn map(&self, len: u64, load: Load) -> impl Future<Output = io::Result<Mapping>> + 'static {
        self.file.map(len, load)
    }
}

async fn grow(file: &SimFile, len: usize) -> io::Result<()> {
    let old = file.len().await? as usize;
    match len.checked_sub(old) {
        None | Some(0) => Ok(()),
        Some(more) => file.write_at(AlignedBuf::zeroed(more), old as u64).await,
    }
}

/// A life up to some entry, and the next checkpoint on a disk that forgets the `nth` write below `dir`
/// there. None where there is no such write.
fn forget(seed: u64, dir: &'static str, nth: u64) -> Option<(Directory, Rig, Forgotten)> {
    let history = History::draw(seed, ENTRIES);
    let disk = SimDisk::new(seed);
    let mut rig = Rig::new(format(&disk), 0, &history);
    for entry in 0..120 {
        rig.apply(&history);
        rig.tree.sweep(30);
        if entry % 16 == 0 {
            checkpoint(&mut rig, &disk);
        }
    }
    let job = rig.tree.begin_checkpoint(rig.facts()).expect("none is running");
    let left = Rc::new(Cell::new(nth));
    let forgetful = Forgetful { disk: disk.clone(), below: dir, left: left.clone() };
    let outcome = run(job.run(forgetful));
    (left.get() == 0).then_some((Directory { disk, history }, rig, outcome))
}

/// How the checkpoint ended that had a write forgotten.
type Forgotten = io::Result<tree::CheckpointDone>;

#[test]
fn a_write_that_was_lost_is_named_or_was_not_needed() {
    let mut named = BTreeMap::new();
    for (dir, seed) in ["idx/", "rec/"].into_iter().flat_map(|dir| (0..12).map(move |at| (dir, at)))
    {
        for nth in 1.. {
            let Some((directory, rig, outcome)) = forget(seed, dir, nth) else { break };
            let what = format!("seed {seed}: write {nth} below {dir}");
            if let Err(error) = outcome {
                // It was read back, and the superblock not written.
                assert!(error.to_string().contains("reads back differently"), "{what}: {error}");
            }
            drop(rig);
            let disk = directory.disk.reboot(Crash::PowerCut);
            if let Some((file, _)) = directory.place_of_damage(&disk, &what) {
                assert!(file.starts_with(dir), "{what}: {file} is named");
                *named.entry(dir).or_insert(0) += 1;
            }
        }
    }
    assert!(named["idx/"] >= 24 && named["rec/"] > 10, "{named:?}");
}

// ── never served ────────────────────────────────────────────────────────────────────────────────

/// How a test asks another process to read what is damaged.
const ASKED: &str = "RINGLEADER_READS_DAMAGE";
const SERVED: &str = "everything was served, and right";

/// Reads a damaged directory as a member does, which looks at nothing before it needs it.
fn serve(directory: &Directory, disk: &SimDisk) {
    let disk = disk.clone();
    let opened = run(async move { tree::open(&disk, OPTIONS).await });
    let (tree, root) = opened.expect("its files are there").expect("formatted");
    let model = directory.history.model(root.facts.applied.0);
    model.check(&tree.reader(), &mut Lot::new(1), false);
    model.check_ranks(&tree.reader());
    println!("{SERVED}");
}

/// The `nth` page of the newest index file, with a flipped bit.
fn damage_page(directory: &Directory, nth: usize) -> (SimDisk, Place) {
    let of_keys = |name: &String| name.starts_with("idx/") && !name.ends_with(".held");
    let name = directory.files().into_iter().rfind(of_keys);
    let name = name.expect("there is an index");
    let image = directory.disk.peek(&name);
    let next = |at: &usize| Some(at + page_bytes(&image, *at)).filter(|at| at + 8 < image.len());
    let pages = std::iter::successors(Some(BLOCK_BYTES), next);
    let whole: Vec<usize> = pages.take_while(|at| page_bytes(&image, *at) > 0).collect();
    let at = whole[nth % whole.len()];
    let disk = directory.disk.fork();
    disk.flip(&name, (at + nth % page_bytes(&image, at)) * 8 + nth % 8);
    (disk, (name, at as u64))
}

/// A page of which the checkpoint's write was lost while the process goes on: it reads the page from the
/// file once that has settled.
fn serve_after_a_lost_write(seed: u64) {
    let (directory, mut rig, outcome) = forget(seed, "idx/", 2).expect("an index is two writes");
    rig.tree.finish_checkpoint(outcome.expect("nobody reads it back"));
    while !rig.tree.tend_index(1) {}
    let model = directory.history.model(rig.applied);
    model.check(&rig.tree.reader(), &mut Lot::new(1), false);
    println!("{SERVED}");
}

#[test]
fn a_page_that_rotted_is_never_served() {
    if let Ok(asked) = std::env::var(ASKED) {
        let (kind, number) = asked.split_once(' ').expect("the parent says two words");
        let number: usize = number.parse().expect("the parent says a number");
        match kind {
            "flip" => {
                let directory = directory();
                serve(&directory, &damage_page(&directory, number).0);
            }
            _ => serve_after_a_lost_write(number as u64),
        }
        return;
    }
    let directory = directory();
    for nth in 0..16 {
        let (_, (file, at)) = damage_page(&directory, nth * 7);
        dies_of(&format!("flip {}", nth * 7), &format!("at {file}, byte {at}:"));
    }
    for seed in 0..4 {
        dies_of(&format!("lost {seed}"), "at idx/");
    }
}

/// The other process dies by its own hand, naming the place, or never came past the damage.
fn dies_of(asked: &str, place: &str) {
    let own = std::env::current_exe().expect("a running test has a path");
    let child = std::process::Command::new(own)
        .args(["--exact", "--nocapture", "tree_rot::a_page_that_rotted_is_never_served"])
        .env(ASKED, asked)
        .output()
        .expect("the test can be started again");
    let [said, last] = [&child.stdout, &child.stderr].map(|text| String::from_utf8_lossy(text));
    let named = last.contains("fatal: the index is damaged") && last.contains(place);
    assert!(named && !said.contains(SERVED), "{asked}: expected {place} in\n{said}\n{last}");
    assert!(child.status.code().is_none(), "{asked}: it aborts: {}", child.status);
}
