//! Files as memory: bytes that are read without asking, from every core.
//!
//! A page of a file that is not in memory is brought there by whoever touches it, who waits for the disk
//! meanwhile. Where that matters, [`Mapping::is_at_hand`] tells beforehand (decision 0015): at first the
//! machine is asked, then a bit remembers for a second. As long as memory is not short none of it is done.
//!
//! The invariant that mapping rests on: *a file of which a part is mapped is never written there again and
//! never shortened.* Sealed segments and the index's files are written, synced, mapped, and at last removed;
//! a removed file stays as long as it is mapped (see `giveback`).
#![allow(unsafe_code)]

use super::{
    BLOCK_BYTES,
    giveback::{self, FileId},
};
use crate::limits::{MEMORY_SHORT_FORGOTTEN_SECONDS, READ_AHEAD_BYTES};
use std::{
    fs, io,
    ops::{Deref, Range},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

/// Bytes that never change again, readable from every core. Cheap to clone; the bytes stay until the
/// last clone goes, even when their file was removed.
#[derive(Clone)]
pub struct Mapping {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// Of a file that is mapped.
    known: Option<Arc<Known>>,
}

/// Which pages of a file are known to be in memory.
struct Known {
    /// The second in which the bits were set.
    second: AtomicU32,
    pages: Box<[AtomicU64]>,
}

/// Seconds by [`every_second`]: bits of an earlier one do not count.
static SECOND: AtomicU32 = AtomicU32::new(0);
/// Seconds for which memory is taken to be short, still: as many at the start.
static SHORT: AtomicU32 = AtomicU32::new(MEMORY_SHORT_FORGOTTEN_SECONDS);
/// A page was not there, since the last second began.
static MISSED: AtomicBool = AtomicBool::new(false);

/// Whether pages of files are likely not to be in memory.
pub fn is_memory_short() -> bool {
    SHORT.load(Ordering::Relaxed) > 0
}

/// Somebody had to wait for a page.
pub fn note_miss() {
    MISSED.store(true, Ordering::Relaxed);
    SHORT.store(MEMORY_SHORT_FORGOTTEN_SECONDS, Ordering::Relaxed);
}

/// Forgets what is known to be in memory; and after a while without a miss, that it was short. One thread of
/// the process calls this each second.
pub fn every_second() {
    SECOND.fetch_add(1, Ordering::Relaxed);
    let left = match MISSED.swap(false, Ordering::Relaxed) {
        true => MEMORY_SHORT_FORGOTTEN_SECONDS,
        false => SHORT.load(Ordering::Relaxed).saturating_sub(1),
    };
    SHORT.store(left, Ordering::Relaxed);
}

impl Mapping {
    /// Wraps whatever holds the bytes, in memory.
    pub fn new(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self { bytes: Arc::new(bytes), known: None }
    }

    /// Whether these bytes can be read without waiting for a disk, as far as one can tell. Where they
    /// cannot, the machine is asked for them and nobody waits.
    ///
    /// # Panics
    /// If they are not all there.
    pub fn is_at_hand(&self, range: Range<usize>) -> bool {
        let Some(known) = &self.known else { return true };
        assert!(range.end <= self.len(), "{range:?} of {} bytes", self.len());
        let pages = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        if known.has(pages.clone()) {
            return true;
        }
        let there = self.are_resident(pages.clone());
        match there {
            true => known.set(pages),
            false => {
                note_miss();
                self.will_need(range);
            }
        }
        there
    }

    /// Asks the machine for bytes that will be read soon, without waiting for them.
    pub fn will_need(&self, range: Range<usize>) {
        if self.known.is_none() {
            return;
        }
        let pages = self.pages(range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES));
        // SAFETY: the address lies in the map, which lives as long as `self`; the hint changes no byte.
        let refused = unsafe {
            libc::madvise(pages.as_ptr().cast_mut().cast(), pages.len(), libc::MADV_WILLNEED)
        };
        // A hint that is not taken costs time and nothing else.
        let _taken = refused == 0;
    }

    /// Waits for bytes to be in memory.
    pub(super) fn load(&self, range: Range<usize>) {
        self.will_need(range.clone());
        for page in range.step_by(BLOCK_BYTES) {
            std::hint::black_box(self[page]);
        }
    }

    /// Whoever has just read all of it will not soon again: its pages are the machine's to keep or not, and no
    /// part of this process until they are read once more.
    pub fn let_go(&self) {
        if self.known.is_some() {
            // SAFETY: a private map of a file that nobody writes through it: what is read again is the file.
            let refused = unsafe {
                let bytes = self.as_ptr().cast_mut().cast();
                libc::madvise(bytes, self.len(), libc::MADV_DONTNEED)
            };
            // A hint, as above.
            let _taken = refused == 0;
        }
    }

    /// Whoever reads in a row and has come to `at`, from `before`, will need what comes next.
    pub fn read_ahead(&self, before: usize, at: usize) {
        if self.known.is_some()
            && (before == at || before / READ_AHEAD_BYTES != at / READ_AHEAD_BYTES)
        {
            let from = at / READ_AHEAD_BYTES * READ_AHEAD_BYTES;
            self.will_need(from..(from + 2 * READ_AHEAD_BYTES).min(self.len()));
        }
    }

    /// Those of the map's pages that there are.
    fn pages(&self, pages: Range<usize>) -> &[u8] {
        let end = (pages.end * BLOCK_BYTES).min(self.len());
        &self[pages.start * BLOCK_BYTES..end]
    }

    fn are_resident(&self, pages: Range<usize>) -> bool {
        let bytes = self.pages(pages.clone());
        let mut resident = [0u8; 64];
        bytes.chunks(resident.len() * BLOCK_BYTES).all(|bytes| {
            let resident = &mut resident[..bytes.len().div_ceil(BLOCK_BYTES)];
            // SAFETY: the address is that of a page of the map, and there is a byte for each page asked for.
            let failed = unsafe {
                libc::mincore(bytes.as_ptr().cast_mut().cast(), bytes.len(), resident.as_mut_ptr())
            };
            // Whoever cannot be told reads as if all were well.
            failed != 0 || resident.iter().all(|page| page & 1 == 1)
        })
    }
}

impl Known {
    fn new(bytes: usize) -> Self {
        let words = bytes.div_ceil(BLOCK_BYTES).div_ceil(u64::BITS as usize);
        let pages = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { second: AtomicU32::new(SECOND.load(Ordering::Relaxed)), pages }
    }

    /// Bits that another core forgets meanwhile are looked up again.
    fn has(&self, mut pages: Range<usize>) -> bool {
        let now = SECOND.load(Ordering::Relaxed);
        if self.second.load(Ordering::Relaxed) != now {
            self.second.store(now, Ordering::Relaxed);
            self.pages.iter().for_each(|word| word.store(0, Ordering::Relaxed));
            return false;
        }
        pages.all(|page| self.pages[page / 64].load(Ordering::Relaxed) >> (page % 64) & 1 == 1)
    }

    fn set(&self, mut pages: Range<usize>) {
        pages.all(|page| {
            self.pages[page / 64].fetch_or(1 << (page % 64), Ordering::Relaxed);
            true
        });
    }
}

/// Maps the first `len` bytes of a file, under the invariant at the head of this page.
pub(super) fn map(file: &fs::File, len: u64) -> io::Result<Mapping> {
    let len = usize::try_from(len).expect("64-bit machine");
    let of = giveback::will_map(file)?;
    let mut options = memmap2::MmapOptions::new();
    options.len(len);
    // SAFETY: these bytes never change again and the file is never shortened: the invariant above.
    let map = unsafe { options.map(file.as_raw_fd()) };
    let map = map.inspect_err(|_| giveback::is_not_mapped(of))?;
    let map = Mapped { map: Some(map), of };
    // One touch is not to read all that lies around it.
    map.map.iter().try_for_each(|map| map.advise(memmap2::Advice::Random))?;
    Ok(Mapping { bytes: Arc::new(map), known: Some(Arc::new(Known::new(len))) })
}

/// A map that another thread takes back.
struct Mapped {
    map: Option<memmap2::Mmap>,
    of: FileId,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.map.take().into_iter().for_each(|map| giveback::unmap(map, self.of));
    }
}

impl Deref for Mapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapping({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_page_that_is_not_in_memory_is_asked_for_and_memory_is_short_for_a_while() {
        let name = format!("map-{}", std::process::id());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name);
        let bytes = 64 * BLOCK_BYTES;
        fs::write(&path, vec![7; bytes]).unwrap();
        let file = fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        fs::remove_file(&path).unwrap();
        // SAFETY: plain numbers, and a descriptor that is open.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        let map = map(&file, bytes as u64).unwrap();
        if map.are_resident(63..64) {
            eprintln!("skipped: this file system keeps everything in memory");
            return;
        }
        assert!(!map.is_at_hand(bytes - 100..bytes), "nobody has read it");
        while !map.is_at_hand(bytes - 100..bytes) {
            std::thread::yield_now();
        }
        assert_eq!(map[bytes - 1], 7);
        assert!(is_memory_short());
        every_second();
        assert!(is_memory_short(), "it is too early to say");
        assert!(map.is_at_hand(bytes - 100..bytes), "it is still there, and looked up again");
        for _ in 0..=MEMORY_SHORT_FORGOTTEN_SECONDS {
            every_second();
        }
        assert!(!is_memory_short());
        assert!(Mapping::new(vec![1]).is_at_hand(0..1));
    }
}
