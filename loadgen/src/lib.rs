//! A client for etcd-compatible servers that costs little, so that the server is what is measured.
//!
//! It speaks gRPC over plain HTTP/2 (prior knowledge, RFC 9113 §3.3) with a codec of its own:
//!
//! ```text
//!   client   one call at a time, blocking: for tests          engine   operations: many at a time
//!        │                                                      └ script   what they are: work, ops,
//!        │                                                                 kubernetes, replay
//!        │                                                    fanout   watchers, and who puts
//!        │                                                    lease    keep-alives; expiry
//!        └──────────────┬─────────────────────────────────────────┬── writers, watching, ear, poll
//!                     grpc    messages, statuses                 link    a socket that never blocks
//!                       └──────── h2    frames, windows ──────────┘
//!                                 hpack    header blocks
//!
//!   what is asked       keys, sizes, arrivals          what is said    tally, cpu → report; scene
//!   beside a run        progress, hdrlog, replay       judged later    history, mix, check
//!   runs of its own     compare, disk, sensitivity
//! ```
//!
//! What makes it cheap: the headers of a request are encoded once and sent as literals, with no
//! dynamic table on either side; so the same answer has the same bytes, and a header block seen
//! before is compared and not decoded. A body is encoded once and its key patched. All that a
//! connection has to say leaves in one write.
#![allow(clippy::disallowed_methods, reason = "it measures real servers in real time")]

pub mod arrivals;
pub mod beside;
pub mod check;
pub mod client;
pub mod compare;
pub mod cpu;
pub mod disk;
pub mod ear;
pub mod engine;
pub mod expiry;
pub mod fanout;
pub mod flags;
mod ground;
pub mod grpc;
pub mod h2;
pub mod hdrlog;
pub mod history;
pub mod hpack;
pub mod interrupt;
pub mod keys;
pub mod kubernetes;
pub mod lease;
pub mod link;
pub mod mix;
mod notice;
pub mod ops;
mod poll;
pub mod progress;
pub mod replay;
pub mod report;
pub mod scene;
pub mod script;
pub mod sensitivity;
pub mod sizes;
pub mod tally;
pub mod watching;
pub mod work;
pub mod writers;
