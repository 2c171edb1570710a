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

// ── configuration and log: what a start line and a slow reader may cost ─────────────────────────

/// Largest `--max-request-bytes` that is taken: a request is one log entry and is held whole in
/// memory, several times over.
pub const REQUEST_BYTES_CEILING: usize = 64 << 20;
/// Above this `--max-request-bytes` is warned about, as etcd does (`recommendedMaxRequestBytes`).
pub const REQUEST_BYTES_RECOMMENDED: usize = 10 << 20;
/// Bytes of data before the NOSPACE alarm, default. etcd's `--quota-backend-bytes`.
pub const QUOTA_BYTES: i64 = 2 << 30;
/// Committed entries between two checkpoints, default. etcd's `--snapshot-count`.
pub const SNAPSHOT_COUNT: u64 = 10_000;
/// Milliseconds of the longest `--election-timeout`; etcd's `maxElectionMs`.
pub const ELECTION_MS_MAX: u64 = 50_000;
/// Cores a process may be told to use: the size of Linux's `cpu_set_t`.
pub const CORES_MAX: usize = 1024;
/// Bytes in a configuration file: a thousand times a real one.
pub const CONFIG_FILE_BYTES_MAX: usize = 4 << 20;
/// Log lines waiting for the writer; with [`LOG_QUEUE_BYTES_MAX`] what a stuck reader can cost.
pub const LOG_QUEUE_LINES_MAX: usize = 4096;
/// Bytes of log lines waiting for the writer.
pub const LOG_QUEUE_BYTES_MAX: usize = 4 << 20;
/// Bytes of one value in a log line; the rest is cut off and counted in the line.
pub const LOG_VALUE_BYTES_MAX: usize = 8 << 10;
/// Elements of one list in a log line; the rest is cut off and counted in the line.
pub const LOG_LIST_LEN_MAX: usize = 64;
/// Bytes the log's writer hands over in one write.
pub const LOG_WRITE_BYTES: usize = 64 << 10;
/// Between two tries of the log's writer on an output that is full and refuses to block.
pub const LOG_RETRY_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

const _: () = assert!(REQUEST_BYTES_MAX <= REQUEST_BYTES_RECOMMENDED);
const _: () = assert!(REQUEST_BYTES_RECOMMENDED <= REQUEST_BYTES_CEILING);
const _: () = assert!(
    LOG_LIST_LEN_MAX * LOG_VALUE_BYTES_MAX < LOG_QUEUE_BYTES_MAX,
    "a line with one full list must fit into an empty queue"
);
