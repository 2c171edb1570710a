//! Sockets, and the HTTP/1.1 that both ports speak: what serving cores and the peers' room have in
//! common.
//!
//! ```text
//!  listen ─ accept ─ deal ──ring──▶ adopt ─┬─ shard: HTTP/2, or http1 for probes and people
//!  connect ◀─ resolve ◀──────────── peer ──┴─ peer:  http1, both ways
//! ```

mod accept;
mod adopt;
mod connect;
pub mod http1;
mod promise;

pub use accept::{Accepted, deal, listen};
pub use adopt::twin;
pub use connect::{Authority, connect};
pub use promise::Promise;
