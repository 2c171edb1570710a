//! The seam to the machine: traits [`Disk`], [`File`], [`Clock`], and the memory they share.
//!
//! [`thread`] and [`glommio`] are the real machine, [`readonly`] looks at it only, and the simulator's lie
//! on purpose. Whatever awaits here may wait; whatever decides lives elsewhere.

use std::{future::Future, io, time::Duration};

mod buf;
mod giveback;
pub mod glommio;
pub mod host;
mod map;
pub mod process;
pub mod readonly;
pub mod thread;

pub use buf::AlignedBuf;
pub use map::{Mapping, every_second, is_memory_short, note_miss};

/// Bytes in the unit of O_DIRECT I/O. Offsets and lengths of writes are multiples of it.
pub const BLOCK_BYTES: usize = 4096;

/// A directory tree on a machine's disk. Names are relative paths with `/`; directories that a
/// name needs are created by [`Disk::create`].
pub trait Disk: Clone + 'static {
    /// An open file.
    type File: File;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` where there is none; otherwise what the machine says, naming the file.
    fn open(&self, name: &str) -> impl Future<Output = io::Result<Self::File>>;

    /// Creates a file of `len` bytes, all zero and all written (not a hole, not merely allocated:
    /// decision 7). The file is durable after [`File::sync`] and [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `AlreadyExists` where there is one; `StorageFull` when the disk is.
    fn create(&self, name: &str, len: u64) -> impl Future<Output = io::Result<Self::File>>;

    /// Names of the files directly in `dir`, sorted, without the directory; empty if there is none.
    ///
    /// # Errors
    /// What the machine says, naming the directory.
    fn list(&self, dir: &str) -> impl Future<Output = io::Result<Vec<String>>>;

    /// Removes a file. Durable after [`Disk::sync_dir`]. Maps of it stay readable.
    ///
    /// # Errors
    /// What the machine says, naming the file.
    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>>;

    /// Gives a file another name, in the same or another directory, which is made if need be. Durable
    /// after [`Disk::sync_dir`] of both.
    ///
    /// # Errors
    /// What the machine says, naming the file.
    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>>;

    /// Makes creations and removals in `dir` durable.
    ///
    /// # Errors
    /// What the machine says. After an error nothing is known to be durable: the caller aborts.
    fn sync_dir(&self, dir: &str) -> impl Future<Output = io::Result<()>>;
}

/// An open file. Futures own what they need, so several may be in flight; each is run to its end
/// by whoever made it and never dropped halfway.
#[allow(clippy::len_without_is_empty, reason = "it asks the machine, which may fail")]
pub trait File: Clone + 'static {
    /// Bytes in the file.
    ///
    /// # Errors
    /// What the machine says, naming the file.
    fn len(&self) -> impl Future<Output = io::Result<u64>> + 'static;

    /// Reads exactly `len` bytes at `offset`; both are multiples of [`BLOCK_BYTES`].
    ///
    /// # Errors
    /// `UnexpectedEof` past the end; otherwise what the machine says, naming the file.
    fn read_at(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = io::Result<AlignedBuf>> + 'static;

    /// Writes the whole buffer at `offset`, both multiples of [`BLOCK_BYTES`]. Not durable yet.
    /// A write past the end grows the file.
    ///
    /// # Errors
    /// What the machine says, naming the file and offset; how much was written is then unknown.
    fn write_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static;

    /// Everything written to this file before this call survives a power cut once this is `Ok`.
    ///
    /// # Errors
    /// After an error nothing is known to be durable: the caller aborts, it never retries.
    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static;

    /// [`File::write_at`] and [`File::sync`] in one hand-over. Calls on one file take effect in the
    /// order they were made, so the next may be made before the last has finished.
    ///
    /// # Errors
    /// As those two.
    fn write_sync_at(
        &self,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static;

    /// Maps the first `len` bytes for reading. The bytes must be durable and never change again.
    ///
    /// # Errors
    /// What the machine says, naming the file.
    fn map(&self, len: u64, load: Load) -> impl Future<Output = io::Result<Mapping>> + 'static;
}

/// When the bytes of a map come from the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// At once: the map is there when they are.
    Now,
    /// When they are read: a map of any length is there at once, and takes no memory before.
    Later,
}

/// Time, as the member sees it.
pub trait Clock: Clone + 'static {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Nanoseconds since the Unix epoch, by the wall clock: for log lines and new ids only.
    fn wall_nanos(&self) -> u64;

    /// Returns once [`Clock::now`] is at least `until`.
    fn sleep_until(&self, until: Duration) -> impl Future<Output = ()> + 'static;
}
