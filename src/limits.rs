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

// ── store: what etcd means ──────────────────────────────────────────────────────────────────────

/// Size at which writes are refused, default: `--quota-backend-bytes` 0 means this (etcd: 2 GiB).
pub const QUOTA_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;
/// What a key costs beside its bytes when room is estimated (etcd `storage/quota.go`).
pub const QUOTA_KEY_BYTES: usize = 256;
/// Most bytes of a request's header in the log: two bytes of key, a length, a byte of key and a
/// ten-byte number. Counted whole against [`REQUEST_BYTES_MAX`].
pub const REQUEST_HEADER_BYTES_MAX: usize = 14;
/// Key-values in the first part of a streamed range; later parts double or halve (etcd 3.7).
pub const STREAM_FIRST_KEYS: i64 = 10;

const _: () =
    assert!(REQUEST_HEADER_BYTES_MAX < GRPC_OVERHEAD_BYTES, "a legal request must arrive");
