//! A directory that is only looked at: nothing in it is made, changed or removed, and files are opened
//! for reading alone. What a member that runs there removes meanwhile stays whole for whoever has it open.
//!
//! What asks for durability is answered at once: nothing is written here, so nothing waits for it.
//! Reads go past the page cache where the file system lets them, so that the disk is asked and not
//! memory. They block: this is for a program that does nothing else.

use super::{
    AlignedBuf, BLOCK_BYTES, Disk, File, Load, Mapping,
    giveback::Watch,
    map,
    thread::{file_names, named},
};
use crate::limits::INSPECT_READ_BYTES;
use std::{
    fs,
    future::{Future, ready},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

/// Told of every read how many bytes it brought.
pub type Heard = Rc<dyn Fn(usize)>;

/// A directory, for reading.
#[derive(Clone)]
pub struct ReadOnlyDisk {
    root: Arc<PathBuf>,
    heard: Heard,
    _watch: Rc<Option<Watch>>,
}

impl ReadOnlyDisk {
    /// Files below `root`; `heard` is told of every read.
    pub fn new(root: PathBuf, heard: Heard) -> Self {
        let _watch = Rc::new(Watch::over(&root));
        Self { root: Arc::new(root), heard, _watch }
    }

    fn open_file(&self, name: &str) -> io::Result<ReadOnlyFile> {
        let path = self.root.join(name);
        let open = |flags| fs::OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let opened = match open(libc::O_DIRECT | libc::O_CLOEXEC) {
            // A file system that has no O_DIRECT, as of a copy in memory.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => open(libc::O_CLOEXEC),
            opened => opened,
        };
        let file = opened.map_err(|error| named(&path, "open", &error))?;
        Ok(ReadOnlyFile { file: Arc::new(file), path: path.into(), heard: self.heard.clone() })
    }
}

fn refused<T>(name: &str) -> io::Result<T> {
    let what = format!("{name}: the directory is only looked at");
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, what))
}

impl Disk for ReadOnlyDisk {
    type File = ReadOnlyFile;

    fn open(&self, name: &str) -> impl Future<Output = io::Result<ReadOnlyFile>> {
        ready(self.open_file(name))
    }

    fn create(&self, name: &str, _len: u64) -> impl Future<Output = io::Result<ReadOnlyFile>> {
        ready(refused(name))
    }

    fn list(&self, dir: &str) -> impl Future<Output = io::Result<Vec<String>>> {
        ready(file_names(&self.root.join(dir)))
    }

    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> {
        ready(refused(name))
    }

    fn rename(&self, from: &str, _to: &str) -> impl Future<Output = io::Result<()>> {
        ready(refused(from))
    }

    fn sync_dir(&self, _dir: &str) -> impl Future<Output = io::Result<()>> {
        ready(Ok(()))
    }
}

/// A file of a [`ReadOnlyDisk`].
#[derive(Clone)]
pub struct ReadOnlyFile {
    file: Arc<fs::File>,
    path: Arc<Path>,
    heard: Heard,
}

impl ReadOnlyFile {
    fn bytes(&self) -> io::Result<u64> {
        let meta = self.file.metadata().map_err(|error| named(&self.path, "stat", &error))?;
        Ok(meta.len())
    }

    /// Reads in pieces, so that whoever hears of them hears often.
    fn read(&self, offset: u64, len: usize) -> io::Result<AlignedBuf> {
        let mut buf = AlignedBuf::zeroed(len);
        for (at, piece) in
            (offset..).step_by(INSPECT_READ_BYTES).zip(buf.chunks_mut(INSPECT_READ_BYTES))
        {
            let read = self.file.read_exact_at(piece, at);
            let doing = || format!("read of {} bytes at {at}", piece.len());
            read.map_err(|error| named(&self.path, &doing(), &error))?;
            (self.heard)(piece.len());
        }
        Ok(buf)
    }

    fn refused<T>(&self) -> io::Result<T> {
        refused(&self.path.display().to_string())
    }
}

impl File for ReadOnlyFile {
    fn len(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        ready(self.bytes())
    }

    fn read_at(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = io::Result<AlignedBuf>> + 'static {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES));
        ready(self.read(offset, len))
    }

    fn write_at(
        &self,
        _buf: AlignedBuf,
        _offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        ready(self.refused())
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        ready(Ok(()))
    }

    fn write_sync_at(
        &self,
        _buf: AlignedBuf,
        _offset: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        ready(self.refused())
    }

    fn map(&self, len: u64, load: Load) -> impl Future<Output = io::Result<Mapping>> + 'static {
        let mapped = match load {
            // In pieces that are heard of.
            Load::Now => self
                .read(0, (len as usize).next_multiple_of(BLOCK_BYTES))
                .map(|buf| Mapping::new(Whole(buf))),
            Load::Later => {
                (self.heard)(len as usize);
                map::map(&self.file, len).map_err(|error| named(&self.path, "map", &error))
            }
        };
        ready(mapped)
    }
}

/// What was read, as a mapping holds it.
struct Whole(AlignedBuf);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use std::cell::Cell;

    #[test]
    fn what_is_only_looked_at_cannot_be_changed() {
        let name = format!("readonly-{}", std::process::id());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name);
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("a"), [7; 3 * BLOCK_BYTES]).unwrap();
        let bytes = Rc::new(Cell::new(0));
        let counted = bytes.clone();
        let heard = Rc::new(move |more| counted.set(counted.get() + more));
        let disk = ReadOnlyDisk::new(root.clone(), heard);
        block_on(async {
            let file = disk.open("a").await.unwrap();
            assert_eq!(file.len().await.unwrap(), 3 * BLOCK_BYTES as u64);
            assert_eq!(*file.read_at(4096, BLOCK_BYTES).await.unwrap(), [7; BLOCK_BYTES]);
            assert_eq!(*file.map(2 * 4096, Load::Now).await.unwrap(), [7; 2 * BLOCK_BYTES]);
            let past = file.read_at(3 * 4096, BLOCK_BYTES).await.err().unwrap();
            assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
            let block = AlignedBuf::zeroed(BLOCK_BYTES);
            assert!(file.write_at(block.clone(), 0).await.is_err());
            assert!(file.write_sync_at(block, 0).await.is_err());
            assert!(disk.create("b", 0).await.is_err());
            assert!(disk.rename("a", "b").await.is_err());
            assert!(disk.remove("a").await.is_err());
            assert_eq!(disk.list("").await.unwrap(), ["a"]);
            assert_eq!(disk.list("nothing").await.unwrap(), [""; 0]);
        });
        assert_eq!(bytes.get(), 3 * BLOCK_BYTES);
        fs::remove_dir_all(&root).unwrap();
    }
}
