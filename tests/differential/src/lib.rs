//! The same requests to two servers, every answer compared.
//!
//! ```text
//!            seed
//!             │ generate
//!             ▼            ┌─ Side a: resolve, ask, normalise ─┐
//!       calls, in batches ─┤                                   ├─ equal? ── no ─► shrink
//!                          └─ Side b: resolve, ask, normalise ─┘
//! ```
//!
//! Revisions in a call may be relative to what the server said last ([`call::CURRENT`],
//! [`call::COMPACTED`]), so a list of calls means the same after some of them were left out.
//! Watches go on beside the calls: at quiet points all that a watcher got since the last is one answer.
//! What is not compared is listed in [`answer`], and nowhere else.
#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

pub mod answer;
pub mod call;
pub mod generate;
pub mod leasing;
pub mod run;
pub mod shrink;
pub mod side;
pub mod watching;
