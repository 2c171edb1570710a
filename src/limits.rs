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

// ── wal: the log on disk ────────────────────────────────────────────────────────────────────────

/// Bytes in one segment of the log. etcd's own figure; large enough that a roll is rare (one in
/// seconds at full load), small enough to zero-fill and to read whole at start.
pub const WAL_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Largest segment the format allows: a frame's length is a `u32`, and recovery reads a segment whole.
pub const WAL_SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Frames handed to the disk and not yet durable. A damaged frame is known to have been
/// acknowledged once a frame this much younger exists, so a small number makes rot provable early;
/// group commit needs two.
pub const WAL_FRAMES_IN_FLIGHT_MAX: u64 = 8;
/// Spare segments that are kept ready, so that an append never waits for zero-filling.
pub const WAL_SPARES_MIN: usize = 1;
/// Spare segments that are kept when a trim frees many; the rest give their space back.
pub const WAL_SPARES_MAX: usize = 4;

const _: () = assert!(
    (REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES) as u64 <= WAL_SEGMENT_BYTES / 2,
    "the largest request fits one frame with room to spare"
);
const _: () = assert!(WAL_SEGMENT_BYTES <= WAL_SEGMENT_BYTES_MAX, "the default is legal");
const _: () = assert!(WAL_SEGMENT_BYTES_MAX <= u32::MAX as u64, "lengths in a frame are u32");
const _: () = assert!(WAL_SPARES_MIN <= WAL_SPARES_MAX, "what is kept covers what is needed");
