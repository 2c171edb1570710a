//! Fuzz targets for every decoder that takes bytes from a disk, a socket or a person, with nothing
//! but the Rust toolchain: valid bytes, spoiled from a seed ([`mutate`]).
//!
//! Whatever comes in, a decoder neither panics nor asks for memory beyond the input's own size
//! ([`memory`]); what was encoded is read back; and what is taken means the same when it is encoded
//! again. Decoders that are private to a module are fuzzed by the same machinery from inside:
//! `src/tree/fuzz.rs`, `src/shard/fuzz.rs`.

mod api;
mod config;
mod memory;
mod mutate;
mod store;
mod wal;
mod watch;
