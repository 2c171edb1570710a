//! Ringleader: a drop-in replacement for etcd, thread per core on io_uring.
//!
//! The modules stand in reading order. Imports run downward only; `tests/floor_plan.rs` keeps it.

// What was typed → what it means, validated once.
pub mod config;
// Who runs on which core; the only place executors are made.
pub mod runtime;
// A data directory, looked at and left as it is.
pub mod inspect;
// A data directory as it was at an earlier revision, made anew elsewhere.
pub mod restore;

// etcd's wire meaning ↔ ours; no I/O.
pub mod api;
// Member to member: etcd's peer HTTP/1.1, both ways.
pub mod peer;
// Sockets, and the HTTP/1.1 that both ports speak.
pub mod net;
// The only words cores share.
pub mod mesh;
// The single writer.
pub mod node;
// One per serving core: accept, HTTP, sessions, reads.
pub mod shard;

// raft behind one door.
pub mod consensus;
// What etcd means: commands in, outcomes out.
pub mod store;
// Records and the copy-on-write tree.
pub mod tree;
// A durable sequence of byte strings.
pub mod wal;

// The seam to the machine.
pub mod io;

// Who a member and a cluster are, as numbers.
pub mod identity;

// How the process dies: what broke, where, what to look at.
pub mod fatal;
// Every bound, its reason, and how it relates to the others.
pub mod limits;
// Log lines in etcd's form, written off the hot path.
pub mod log;
// Counters and histograms as plain values; knows nobody.
pub mod metrics;
// Numbers that do not mix.
pub mod types;

// Chance from a seed, for the fuzz targets of private decoders.
#[cfg(test)]
#[path = "../tests/fuzz/mutate.rs"]
mod fuzz;
