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
// ── tree: records and checkpoints ───────────────────────────────────────────────────────────────

/// Bytes of records in a segment: large enough that a thousand hold 64 GiB, small enough that one
/// is rewritten in well under a second. Fixed when a directory is made.
pub const SEGMENT_BYTES: usize = 64 << 20;
/// Segments a superblock can name: 256 GiB of live records.
pub const SEGMENTS_MAX: usize = 4096;
/// A superblock slot is this part of a segment: 4 MiB, room for the segment table and for the
/// store's own state.
pub const ROOT_SEGMENT_SHARE: usize = 16;
/// Smallest superblock slot, for directories with tiny segments.
pub const ROOT_BYTES_MIN: usize = 64 << 10;
/// What the store may add to a superblock: members, alarms and leases, about 150,000 of them.
pub const ROOT_STATE_BYTES_MAX: usize = 3 << 20;
/// One write of a checkpoint. Larger ones gain little and hold up the log's writes longer.
pub const CHECKPOINT_CHUNK_BYTES: usize = 256 << 10;
/// Live bytes that one checkpoint copies out of mostly dead segments, so that it ends soon; two
/// segments at least, so that compaction keeps up with writing.
pub const REWRITE_BYTES_MAX: usize = 2 * SEGMENT_BYTES;

const _: () = assert!(REQUEST_BYTES_MAX * 2 < SEGMENT_BYTES, "a record fits many times");
const _: () =
    assert!(SEGMENTS_MAX * 64 + ROOT_STATE_BYTES_MAX < SEGMENT_BYTES / ROOT_SEGMENT_SHARE);
const _: () = assert!(CHECKPOINT_CHUNK_BYTES.is_multiple_of(crate::io::BLOCK_BYTES));
const _: () = assert!(SEGMENT_BYTES < u32::MAX as usize, "offsets of records are u32");
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
