//! Files as memory: bytes that are read without asking, from every core.
//!
//! The invariant that the one `unsafe` here rests on: *a file of which a part is mapped is never written
//! there again and never shortened.* Sealed segments and the index's files are written, synced, mapped, and
//! at last removed; a removed file stays as long as it is mapped.
#![allow(unsafe_code)]

use super::Load;
use std::{fs, io, ops::Deref, os::fd::AsRawFd, sync::Arc};

/// Bytes of a file that never change again, readable from every core. Cheap to clone; the bytes
/// stay until the last clone goes, even when the file was removed.
#[derive(Clone)]
pub struct Mapping(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Mapping {
    /// Wraps whatever holds the bytes.
    pub fn new(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(bytes))
    }
}

/// Maps the first `len` bytes of a file, under the invariant at the head of this page.
pub(super) fn map(file: &fs::File, len: u64, load: Load) -> io::Result<Mapping> {
    let mut options = memmap2::MmapOptions::new();
    options.len(usize::try_from(len).expect("64-bit machine"));
    if load == Load::Now {
        options.populate();
    }
    // SAFETY: these bytes never change again and the file is never shortened: the invariant above.
    unsafe { options.map(file.as_raw_fd()) }.map(Mapping::new)
}

impl Deref for Mapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapping({} bytes)", self.len())
    }
}
