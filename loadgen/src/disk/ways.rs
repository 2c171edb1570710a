//! Three ways to keep a log: as Ringleader writes its own, as etcd does, and the naive one.
//!
//! ```text
//!   filled     |header|frame |frame |000000000|   O_DIRECT over blocks that were written before: a sync
//!                                                 has contents to make durable and no metadata
//!   reserved   |rec|rec|rec|                  |   through the page cache, into blocks that are reserved
//!                                                 and unwritten: a sync also marks them as written
//!   growing    |rec|rec|rec|                      through the page cache: a sync also commits the length
//! ```
//!
//! A file has no name from its making on, so that nothing stays behind, however the run ends.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::kernel;

/// The unit of O_DIRECT writes, bytes.
const BLOCK_BYTES: usize = 4096;
/// A log's file, bytes: what both servers take by default (etcd `wal.SegmentSizeBytes`).
pub(super) const FILE_BYTES: u64 = 64 << 20;
/// Written at once when a file is filled with zeros, bytes, as the server does.
const FILL_BYTES: usize = 1 << 20;
/// What stands before the first record of a log of etcd's kind, bytes: its records begin at multiples
/// of 8 and not on pages.
const HEAD_BYTES: u64 = 56;

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Filled,
    Reserved,
    Growing,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Filled, Self::Reserved, Self::Growing];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filled => "filled",
            Self::Reserved => "reserved",
            Self::Growing => "growing",
        }
    }
}

/// A log that is written to be measured.
pub(super) struct Log {
    way: Way,
    dir: PathBuf,
    file: File,
    at: u64,
    record: Record,
}

impl Log {
    pub(super) fn start(way: Way, dir: &Path, record_bytes: usize) -> io::Result<Self> {
        let file = make(way, dir)?;
        let record = Record::new(record_bytes);
        Ok(Self { way, dir: dir.to_owned(), file, at: first(way), record })
    }

    /// Appends a record and syncs it, and says how long the two took. What comes before that, such
    /// as the next file of a log, is not in it: both servers have it ready.
    pub(super) fn append(&mut self) -> io::Result<Duration> {
        if self.at + self.record.bytes as u64 > FILE_BYTES {
            self.next()?;
        }
        let record = self.record.next();
        let start = Instant::now();
        self.file.write_all_at(record, self.at)?;
        self.file.sync_data()?;
        let took = start.elapsed();
        self.at += self.record.bytes as u64;
        Ok(took)
    }

    fn next(&mut self) -> io::Result<()> {
        // A filled file is used again: its blocks stay written.
        if self.way != Way::Filled {
            self.file = make(self.way, &self.dir)?;
        }
        self.at = first(self.way);
        Ok(())
    }
}

fn first(way: Way) -> u64 {
    if way == Way::Filled { BLOCK_BYTES as u64 } else { HEAD_BYTES }
}

/// An open file of this kind in `dir`, durable and without a name.
fn make(way: Way, dir: &Path) -> io::Result<File> {
    let path = dir.join(format!(".loadgen-disk-{}", std::process::id()));
    let direct = if way == Way::Filled { libc::O_DIRECT } else { 0 };
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let opened = options.custom_flags(direct).open(&path);
    // Also where it was not opened: a file system that refuses O_DIRECT may have made it all the same.
    let unnamed = fs::remove_file(&path);
    let file = opened?;
    unnamed?;
    match way {
        Way::Filled => fill(&file)?,
        Way::Reserved => kernel::reserve(&file, FILE_BYTES)?,
        Way::Growing => {}
    }
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

fn fill(file: &File) -> io::Result<()> {
    let zeros = Aligned::zeroed(FILL_BYTES);
    (0..FILE_BYTES).step_by(FILL_BYTES).try_for_each(|at| file.write_all_at(zeros.bytes(), at))
}

/// What is written, each time a little different and never mostly zeros, so that no layer below can
/// save itself the work.
struct Record {
    buffer: Aligned,
    bytes: usize,
    count: u64,
}

impl Record {
    fn new(bytes: usize) -> Self {
        let mut buffer = Aligned::zeroed(bytes);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for word in buffer.bytes_mut().chunks_exact_mut(8) {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        Self { buffer, bytes, count: 0 }
    }

    fn next(&mut self) -> &[u8] {
        self.count += 1;
        for block in self.buffer.bytes_mut().chunks_mut(BLOCK_BYTES) {
            block[..8].copy_from_slice(&self.count.to_le_bytes());
        }
        self.buffer.bytes()
    }
}

/// Memory that O_DIRECT takes: whole blocks, on a block.
struct Aligned {
    room: Vec<u8>,
    from: usize,
    bytes: usize,
}

impl Aligned {
    fn zeroed(bytes: usize) -> Self {
        let room = vec![0; bytes + BLOCK_BYTES];
        let from = room.as_ptr().align_offset(BLOCK_BYTES);
        Self { room, from, bytes }
    }

    fn bytes(&self) -> &[u8] {
        &self.room[self.from..][..self.bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.from..][..self.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_lies_on_a_block_and_is_never_the_same_twice() {
        let mut record = Record::new(2 * BLOCK_BYTES);
        let first = record.next().to_vec();
        assert_eq!(record.next().as_ptr() as usize % BLOCK_BYTES, 0);
        let second = record.next();
        assert!(first.len() == 2 * BLOCK_BYTES && first != second);
        assert_ne!(first[BLOCK_BYTES..][..8], second[BLOCK_BYTES..][..8], "each block differs");
    }

    #[test]
    fn logs_are_written_each_in_its_way_and_leave_nothing() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let dir = dir.join(format!("loadgen-ways-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for way in Way::ALL {
            let mut log = Log::start(way, &dir, BLOCK_BYTES).unwrap();
            let empty = log.file.metadata().unwrap().len();
            log.append().unwrap();
            let len = log.file.metadata().unwrap().len();
            match way {
                Way::Growing => assert_eq!((empty, len), (0, HEAD_BYTES + BLOCK_BYTES as u64)),
                _ => assert_eq!((empty, len), (FILE_BYTES, FILE_BYTES)),
            }
            log.at = FILE_BYTES;
            log.append().unwrap();
            assert_eq!(log.at, first(way) + BLOCK_BYTES as u64, "a full file is followed by one");
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "it has no name");
        }
        fs::remove_dir(&dir).unwrap();
    }
}
