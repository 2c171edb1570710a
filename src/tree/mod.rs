//! Records and the copy-on-write tree.

/// The index: a copy-on-write B+tree.
mod map;

/// Reading a state of the index.
mod cursor;

/// Whose pages are whose.
mod heap;
/// The memory of pages.
mod node;
/// One page, byte for byte.
mod page;

pub use cursor::{Cursor, MapReader};
pub use map::{Map, MapView};
