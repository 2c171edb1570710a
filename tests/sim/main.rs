//! The simulator: the member's movers on a machine that exists only in memory, decided by a seed.
//!
//! [`executor`] runs futures and time, [`disk`] is a disk that cuts power, tears writes and rots.
//! One file for each idea that is checked. A failing check prints its seed and the boundary at which
//! it crashed; the same numbers fail the same way on every machine.

mod disk;
mod executor;
mod tree_crash;
mod tree_model;
mod wal_crash;
mod wal_model;
mod wal_refusal;
mod wal_rot;
