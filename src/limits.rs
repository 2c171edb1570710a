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

// ── tree: pages of the index ────────────────────────────────────────────────────────────────────

/// A page of the index. Half of 4 KiB costs a lookup nothing, and a put copies half as much.
pub const TREE_PAGE_BYTES: usize = 2048;
/// Freed pages kept for the next copies: about what ten batches of a hundred puts copy.
pub const TREE_PAGES_SPARE_MAX: usize = 4096;
/// Retired pages that one publish may always free: some 50 µs of work, while a batch of one put
/// retires only a handful. A larger batch may free twice what it retires.
pub const TREE_PAGES_FREED_PER_PUBLISH_MIN: usize = 512;

const _: () = assert!(TREE_PAGE_BYTES.is_multiple_of(64), "pages are whole cache lines");
const _: () = assert!(TREE_PAGES_FREED_PER_PUBLISH_MIN <= TREE_PAGES_SPARE_MAX);
