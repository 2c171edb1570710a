//! Memory that O_DIRECT accepts.
#![allow(unsafe_code)]

use super::BLOCK_BYTES;
use std::ops::{Deref, DerefMut};

/// One block, aligned as O_DIRECT wants it.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

const _: () = assert!(size_of::<Block>() == BLOCK_BYTES && align_of::<Block>() == BLOCK_BYTES);

/// A buffer whose address and length are multiples of [`BLOCK_BYTES`]; zeroed when made.
#[derive(Clone)]
pub struct AlignedBuf {
    blocks: Vec<Block>,
}

impl AlignedBuf {
    /// A zeroed buffer of at least `len` bytes, rounded up to whole blocks.
    pub fn zeroed(len: usize) -> Self {
        Self { blocks: vec![Block([0; BLOCK_BYTES]); len.div_ceil(BLOCK_BYTES)] }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `Block` is `repr(C)` around a byte array of its own size, so `n` blocks in a row
        // are `n * BLOCK_BYTES` initialised bytes, borrowed for as long as `self` is.
        unsafe {
            std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.blocks.len() * BLOCK_BYTES)
        }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and every bit pattern is a valid byte and a valid block.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.blocks.as_mut_ptr().cast(),
                self.blocks.len() * BLOCK_BYTES,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_whole_zeroed_aligned_blocks() {
        for len in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 10 * BLOCK_BYTES] {
            let mut buf = AlignedBuf::zeroed(len);
            assert_eq!(buf.len() % BLOCK_BYTES, 0);
            assert!(buf.len() >= len && buf.len() < len + BLOCK_BYTES);
            assert_eq!(buf.as_ptr() as usize % BLOCK_BYTES, 0);
            assert!(buf.iter().all(|byte| *byte == 0));
            buf.fill(7);
            assert!(buf.iter().all(|byte| *byte == 7));
        }
    }
}
