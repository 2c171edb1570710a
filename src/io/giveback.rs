//! What is given back to the machine: maps, and the blocks of files that were removed. A thread beside
//! does it, a piece at a time.
//!
//! To take a map back is to give up all its pages, which takes milliseconds that a core which serves does
//! not have. And a file system that frees a large file at once may hold every write and sync behind it
//! up meanwhile: 64 MiB on ext4, mounted with `discard` as many cloud images are, held a log's sync up for
//! 12 ms, in steps of a MiB for half of one.
//!
//! So a removed file is shortened step by step, once nobody can read it any more: no name leads to it (a
//! hard link is one), this process maps it nowhere, and no [`Watch`] is kept over its directory, as
//! whoever inspects that keeps one. If any of these is not so, the machine frees the file as it likes.

use crate::limits::{FREE_STEP_BYTES, FREE_STEP_REST};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
};

/// A file, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(u64, u64);

/// A file that this process maps.
#[derive(Default)]
struct Mapped {
    maps: usize,
    /// It was removed.
    gone: Option<Gone>,
}

/// A file that was removed, and the directory that it was in.
struct Gone(fs::File, PathBuf);

enum Work {
    Unmap(memmap2::Mmap, FileId),
    Free(Gone),
}

static MAPPED: Mutex<BTreeMap<FileId, Mapped>> = Mutex::new(BTreeMap::new());

fn mapped() -> MutexGuard<'static, BTreeMap<FileId, Mapped>> {
    MAPPED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileId {
    fn of(meta: &fs::Metadata) -> Self {
        Self(meta.dev(), meta.ino())
    }
}

/// A file is about to be mapped once more: it is whole until [`unmap`] has heard of all its maps.
pub(super) fn will_map(file: &fs::File) -> io::Result<FileId> {
    // Begun here, on a thread that may use every core; threads inherit that.
    worker();
    let id = FileId::of(&file.metadata()?);
    mapped().entry(id).or_default().maps += 1;
    Ok(id)
}

/// Takes a map back.
pub(super) fn unmap(map: memmap2::Mmap, id: FileId) {
    hand_over(Work::Unmap(map, id));
}

/// A file could not be mapped after all.
pub(super) fn is_not_mapped(id: FileId) {
    if let Some(gone) = unmapped(id) {
        hand_over(Work::Free(gone));
    }
}

/// Removes a file of the directories below `root`, and sees to its blocks.
///
/// # Errors
/// What the machine says.
pub(super) fn remove(root: &Path, path: &Path) -> io::Result<()> {
    let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    // What cannot be opened is removed all the same.
    let file = fs::OpenOptions::new().write(true).custom_flags(flags).open(path);
    fs::remove_file(path)?;
    let Ok(file) = file else { return Ok(()) };
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() <= FREE_STEP_BYTES {
        return Ok(());
    }
    let gone = Gone(file, root.to_owned());
    match mapped().get_mut(&FileId::of(&meta)) {
        Some(mapped) => mapped.gone = Some(gone),
        None => hand_over(Work::Free(gone)),
    }
    Ok(())
}

/// As long as one is kept over a directory, files that were removed from it stay whole for whoever has
/// them open. Any process may keep one.
pub(super) struct Watch {
    _directory: fs::File,
}

impl Watch {
    /// Over `root`; `None` where there is no directory, or it cannot be locked.
    pub(super) fn over(root: &Path) -> Option<Self> {
        let directory = fs::File::open(root).ok()?;
        directory.lock_shared().ok()?;
        Some(Self { _directory: directory })
    }
}

fn unmapped(id: FileId) -> Option<Gone> {
    let mut all = mapped();
    let mapped = all.get_mut(&id)?;
    mapped.maps -= 1;
    if mapped.maps > 0 {
        return None;
    }
    all.remove(&id)?.gone
}

fn hand_over(work: Work) {
    let refused = match worker() {
        Some(worker) => worker.send(work).err().map(|refused| refused.0),
        None => Some(work),
    };
    // Without a thread it goes here and now, and all at once.
    if let Some(Work::Unmap(map, id)) = refused {
        drop(map);
        drop(unmapped(id));
    }
}

/// To the thread. It holds no more than there are maps and removed files.
fn worker() -> Option<&'static mpsc::Sender<Work>> {
    static WORKER: OnceLock<Option<mpsc::Sender<Work>>> = OnceLock::new();
    let start = || {
        let (sender, work) = mpsc::channel();
        let serve = move || work.into_iter().for_each(give_back);
        let thread = std::thread::Builder::new().name("giveback".into()).spawn(serve);
        thread.is_ok().then_some(sender)
    };
    WORKER.get_or_init(start).as_ref()
}

fn give_back(work: Work) {
    let gone = match work {
        Work::Free(gone) => Some(gone),
        Work::Unmap(map, id) => {
            drop(map);
            unmapped(id)
        }
    };
    if let Some(gone) = gone {
        // The machine frees what is left of it.
        let _stepwise = free(&gone);
    }
}

/// Shortens a file step by step; each step is on the disk before the next, or they would be one.
fn free(Gone(file, root): &Gone) -> io::Result<()> {
    let directory = fs::File::open(root)?;
    if directory.try_lock().is_err() || file.metadata()?.nlink() > 0 {
        return Ok(());
    }
    let mut left = file.metadata()?.len();
    while left > FREE_STEP_BYTES {
        left -= FREE_STEP_BYTES;
        file.set_len(left)?;
        file.sync_data()?;
        std::thread::sleep(FREE_STEP_REST);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// A directory of this test's own.
    struct Ground(PathBuf);

    impl Ground {
        fn new(name: &str) -> Self {
            let name = format!("giveback-{name}-{}", std::process::id());
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name);
            fs::create_dir_all(&root).unwrap();
            Self(root)
        }

        /// A file of three steps and a bit, and a handle that outlives its name.
        fn file(&self, name: &str) -> (PathBuf, fs::File) {
            let path = self.0.join(name);
            let file = fs::File::create_new(&path).unwrap();
            file.set_len(LEN).unwrap();
            file.write_all_at(b"end", LEN - 3).unwrap();
            (path.clone(), fs::File::open(&path).unwrap())
        }
    }

    impl Drop for Ground {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    const LEN: u64 = 3 * FREE_STEP_BYTES + 5000;

    fn len(file: &fs::File) -> u64 {
        file.metadata().unwrap().len()
    }

    fn freed(file: &fs::File) -> bool {
        len(file) <= FREE_STEP_BYTES
    }

    fn soon(mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            std::thread::yield_now();
        }
    }

    /// All that was handed over before is done.
    fn settle(ground: &Ground) {
        let (path, file) = ground.file("last");
        remove(&ground.0, &path).unwrap();
        soon(|| freed(&file));
    }

    fn map(file: &fs::File) -> (memmap2::Mmap, FileId) {
        let id = will_map(file).unwrap();
        let options = memmap2::MmapOptions::new();
        #[allow(unsafe_code)]
        // SAFETY: the file is not written; that it is not shortened either is what is tested.
        let map = unsafe { options.map(file) }.unwrap();
        (map, id)
    }

    #[test]
    fn a_removed_file_is_freed_when_its_last_map_has_gone_and_not_before() {
        let ground = Ground::new("maps");
        let (path, file) = ground.file("a");
        let [(first, id), (second, _)] = [map(&file), map(&file)];
        remove(&ground.0, &path).unwrap();
        assert!(!path.exists());
        unmap(first, id);
        settle(&ground);
        assert_eq!(len(&file), LEN);
        assert_eq!(&second[LEN as usize - 3..], b"end");
        unmap(second, id);
        soon(|| freed(&file));
        assert!(!mapped().contains_key(&id), "nothing is remembered of it");
    }

    #[test]
    fn a_file_that_has_another_name_or_is_watched_stays_whole() {
        let ground = Ground::new("watched");
        let (path, linked) = ground.file("a");
        fs::hard_link(&path, ground.0.join("b")).unwrap();
        remove(&ground.0, &path).unwrap();
        settle(&ground);
        assert_eq!(len(&linked), LEN);

        let (path, watched) = ground.file("c");
        let _watch = Watch::over(&ground.0).unwrap();
        remove(&ground.0, &path).unwrap();
        assert!(Watch::over(&ground.0).is_some(), "several may look on");
        settle(&Ground::new("unwatched"));
        assert_eq!(len(&watched), LEN);
    }

    #[test]
    fn small_files_and_what_is_not_there() {
        let ground = Ground::new("small");
        let path = ground.0.join("a");
        fs::write(&path, b"small").unwrap();
        remove(&ground.0, &path).unwrap();
        assert!(!path.exists());
        let missing = remove(&ground.0, &path).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
