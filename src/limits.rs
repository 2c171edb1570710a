//! Every bound in the house, with the reason for its size and how it relates to the others.
//!
//! Names end in their unit and say `MAX` or `MIN`. What a flag can change has its default here.

// ── wire: what clients see ──────────────────────────────────────────────────────────────────────

/// Largest request after encoding for the log, default. etcd's `--max-request-bytes`.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;
/// How much larger a gRPC message may be than [`REQUEST_BYTES_MAX`] (etcd `embed`: 512 KiB).
pub const GRPC_OVERHEAD_BYTES: usize = 524_288;
/// Operations in one level of a transaction, default. etcd's `--max-txn-ops`.
pub const TXN_OPS_MAX: usize = 128;
