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

// ── process: between cores ──────────────────────────────────────────────────────────────────────

/// Messages a shard may have on its way to the node. A full ring refuses with "too many requests";
/// the size is what one shard's clients can usefully have in flight.
pub const TO_NODE_RING_MESSAGES_MAX: usize = 16_384;
/// Messages the node may have on its way to a shard: one a turn, so this many turns of delay.
/// While a ring is full the node keeps the shard's answers, which its tickets bound.
pub const TO_SHARD_RING_MESSAGES_MAX: usize = 1_024;

// ── process: raft ───────────────────────────────────────────────────────────────────────────────

/// Entries of one raft message, bytes (etcd `raft.Config.MaxSizePerMsg`: 1 MiB).
pub const RAFT_MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Proposals that are not committed yet, bytes; past it they are refused, never queued.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Entries that raft hands over to be applied at once, bytes, so that applying never fills a turn.
pub const COMMITTED_BYTES_PER_READY_MAX: u64 = 4 << 20;
/// Applied entries kept in memory for members that lag, bytes.
pub const RAFT_WINDOW_BYTES_MAX: usize = 64 << 20;
