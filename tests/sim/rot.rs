//! What a disk does to a log, or to a tree, behind everybody's back, once it has said that a write is
//! durable.
//!
//! ```text
//!   flip       one bit is another
//!   zeroed     a sector is empty
//!   astray     a write of somewhere else stands here
//!   stale      a sector, a whole write or a segment's header is as it was before it was written
//!   misplaced  a write stands somewhere else, and here is what was before
//! ```
//!
//! A log can only miss what something else in it speaks of: the last write of all, gone as if it had
//! never been, looks as it would after a power cut. So whatever is struck here has frames behind it
//! that say that it was durable.

use crate::{
    disk::{SECTOR_BYTES, SimDisk},
    executor::Lot,
};
use ringleader::io::BLOCK_BYTES;

/// A frame on a disk.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// Strikes one of a tree's files in a few places, whether or not anybody needs it any more. Says how.
pub(crate) fn strike_tree(disk: &SimDisk, lot: &mut Lot) -> Option<String> {
    let is_tree = |name: &String| name.starts_with("rec/") || name.starts_with("idx/");
    let there = disk.names().into_iter().filter(is_tree);
    let names: Vec<_> = there.filter(|name| disk.is_on_medium(name)).collect();
    let name = names.get(lot.below(names.len().max(1) as u64) as usize)?;
    let image = disk.peek(name);
    // Much of a small file is empty.
    let sectors = image.chunks(SECTOR_BYTES).enumerate();
    let used = sectors.filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
    let used: Vec<usize> = used.map(|(at, _)| at * SECTOR_BYTES).collect();
    let mut blow = || {
        let at = used.get(lot.below(used.len().max(1) as u64) as usize)?;
        Some(strike_sector(disk, name, *at, lot))
    };
    let blows = [blow()?, blow()?].join(" and ");
    Some(format!("{blows} in {name}"))
}

fn strike_sector(disk: &SimDisk, name: &str, at: usize, lot: &mut Lot) -> &'static str {
    match lot.below(3) {
        0 => flip(disk, name, (at, SECTOR_BYTES), lot),
        1 => zero(disk, name, at),
        _ => stale(disk, name, at),
    }
}

/// Flips one bit of `bytes` at `offset`.
fn flip(
    disk: &SimDisk,
    name: &str,
    (offset, bytes): (usize, usize),
    lot: &mut Lot,
) -> &'static str {
    disk.flip(name, offset * 8 + lot.below(bytes as u64 * 8) as usize);
    "a flipped bit"
}

fn zero(disk: &SimDisk, name: &str, at: usize) -> &'static str {
    disk.poke(name, at, &[0; SECTOR_BYTES]);
    "a zeroed sector"
}

fn stale(disk: &SimDisk, name: &str, at: usize) -> &'static str {
    disk.turn_back(name, at, SECTOR_BYTES);
    "a stale sector"
}

/// Strikes one frame, or the header of its segment. Says how.
pub(crate) fn strike(disk: &SimDisk, frame: Place<'_>, lot: &mut Lot) -> &'static str {
    let Place { name, offset, bytes } = frame;
    let sector = |lot: &mut Lot, of: usize| {
        lot.below(of.div_ceil(SECTOR_BYTES) as u64) as usize * SECTOR_BYTES
    };
    let at = offset + sector(lot, bytes);
    let image = disk.peek(name);
    let elsewhere = sector(lot, image.len());
    match lot.below(7) {
        0 => flip(disk, name, (offset, bytes), lot),
        1 => zero(disk, name, at),
        2 => {
            disk.poke(name, at, &image[elsewhere..][..SECTOR_BYTES]);
            "a sector of somewhere else"
        }
        3 => stale(disk, name, at),
        4 => {
            disk.turn_back(name, offset, bytes);
            "a write that was lost"
        }
        5 => {
            disk.turn_back(name, 0, BLOCK_BYTES);
            "a header that was lost"
        }
        _ => {
            // Not onto what lies behind: that is what tells.
            let elsewhere = sector(lot, offset);
            disk.turn_back(name, offset, bytes);
            disk.poke(name, elsewhere, &image[offset..][..bytes.min(offset - elsewhere)]);
            "a write that went astray"
        }
    }
}
