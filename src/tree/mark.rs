//! The mark: what a process that died of a damaged file leaves for the next start.
//!
//! Pages and records are checked when they are first read, so a start alone would not know, and serve
//! until the next read of the same place. The mark lies with the segments, as `rec/damaged`, and goes
//! with the first checkpoint after it, as every file that the superblock does not name; it says nothing
//! once the superblock does not name that file either.
//!
//! ```text
//!   0   the damaged file's name below the disk's root, a line
//!       where it is damaged, and what was expected and found there, a line
//!       zeros up to the end of the block
//! ```

use super::segment::DIR;
use crate::io::{BLOCK_BYTES, Disk, File};
use std::io;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The damaged file's name below the disk's root.
    pub file: String,
    /// Where it is damaged, and how.
    pub flaw: String,
}

impl Mark {
    /// The mark's own name, in the folder of the segments.
    pub const NAME: &str = "damaged";

    /// What its file holds. A flaw that is too long for it ends early.
    ///
    /// # Panics
    /// If the name alone is longer than a block.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = format!("{}\n", self.file).into_bytes();
        let room = BLOCK_BYTES.checked_sub(block.len() + 1).expect("the names here are short");
        block.extend(self.flaw.bytes().filter(|byte| *byte != b'\n').take(room));
        block.push(b'\n');
        block.resize(BLOCK_BYTES, 0);
        block
    }

    /// Reads what [`Mark::encode`] wrote; None for anything else.
    fn decode(block: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(block);
        let (file, rest) = text.split_once('\n')?;
        let (flaw, zeros) = rest.split_once('\n')?;
        let whole = zeros.bytes().all(|byte| byte == 0);
        whole.then(|| Self { file: file.into(), flaw: flaw.into() })
    }

    /// The mark that a process left below `disk`, if there is one that is whole.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn read<D: Disk>(disk: &D) -> io::Result<Option<Self>> {
        let file = match disk.open(&format!("{DIR}/{}", Self::NAME)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if file.len().await? < BLOCK_BYTES as u64 {
            return Ok(None);
        }
        Ok(Self::decode(&file.read_at(0, BLOCK_BYTES).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(flaw: &str) -> Mark {
        Mark { file: "rec/0000000012.g0".into(), flaw: flaw.into() }
    }

    #[test]
    fn a_mark_reads_back_as_written() {
        let mark = mark("byte 4116: the record's checksum: expected 0x1, found 0x2");
        let block = mark.encode();
        assert_eq!(block.len(), BLOCK_BYTES);
        assert_eq!(Mark::decode(&block), Some(mark));
    }

    #[test]
    fn a_long_flaw_ends_with_the_block_and_stays_one_line() {
        let block = mark(&"a line\n".repeat(BLOCK_BYTES)).encode();
        let read = Mark::decode(&block).expect("it is whole");
        assert_eq!((block.len(), read.file), (BLOCK_BYTES, mark("").file));
        assert!(read.flaw.starts_with("a linea line"), "{}", read.flaw);
    }

    #[test]
    fn what_is_no_mark_is_none() {
        let mut torn = mark("byte 0").encode();
        torn[BLOCK_BYTES - 1] = 1;
        for block in [torn, vec![0; BLOCK_BYTES], b"rec/0000000012.g0".to_vec()] {
            assert_eq!(Mark::decode(&block), None);
        }
    }
}
