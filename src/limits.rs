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
/// Tickets between the first ones of two starts, where the wall clock does not set them further apart
/// because it went back or begins anew with the machine: more than a start draws in six hours at
/// 200,000 a second, and a thousand starts before they come round.
pub const STARTS_APART_TICKETS_MIN: u64 = 1 << 32;
/// Messages the node may have on its way to a shard: one a turn, so this many turns of delay.
/// While a ring is full the node keeps the shard's answers, which its tickets bound.
pub const TO_SHARD_RING_MESSAGES_MAX: usize = 1_024;
/// Messages the node may have on its way to the peers' room: a few a turn. What does not fit is lost,
/// as it may be on any network, and raft says it again.
pub const TO_PEERS_RING_MESSAGES_MAX: usize = 1_024;

// ── process: the machine ────────────────────────────────────────────────────────────────────────

/// Locked memory that io_uring's queues need, bytes (glommio refuses to start with less).
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Written at once when a new file is filled with zeros, bytes.
pub const ZERO_FILL_BYTES: usize = 1 << 20;

// ── process: raft ───────────────────────────────────────────────────────────────────────────────

/// Entries of one raft message, bytes (etcd `raft.Config.MaxSizePerMsg`: 1 MiB).
pub const RAFT_MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages with entries on their way to one follower (etcd: 512; half of that, since one carries a
/// whole turn's requests here).
pub const RAFT_MESSAGES_IN_FLIGHT_MAX: usize = 256;
/// Boots of other members whose forwarded proposals a leader tells apart in one term. Past it all are
/// forgotten: a message that the network has kept since then would count twice.
pub const FORWARDING_BOOTS_MAX: usize = 4_096;
/// Forwarded proposals that may still come back; older ones may not: 64 seconds' worth at a thousand
/// turns a second.
pub const FORWARDS_OUTSTANDING_MAX: usize = 65_536;
/// Proposals that came back and wait to be proposed again, bytes; what is beyond is lost.
pub const RETURNED_BYTES_MAX: usize = PACKED_BYTES_MAX;
/// Ticks after which a member that has lost its log tells its leader so again.
pub const LOST_LOG_ASK_TICKS: u32 = 5;
/// What an entry takes in memory beside its data, bytes.
pub const RAFT_ENTRY_OVERHEAD_BYTES: usize = 128;
/// Entries that a member's disk has not finished, bytes: past it no more are taken until it has. As much
/// as a leader may have under way to it.
pub const UNWRITTEN_BYTES_MAX: usize = 64 << 20;
/// Proposals that are not committed yet, bytes; past it they are refused, never queued.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Entries that raft hands over to be applied at once, bytes, so that applying never fills a turn.
pub const COMMITTED_BYTES_PER_READY_MAX: u64 = 4 << 20;
/// Learners in a cluster: a leader sends each the whole log, and they take no load (etcd's default
/// of `--max-learners`). The same on every member, since it decides what applying a change does.
pub const LEARNERS_MAX: usize = 1;
/// Peer URLs that a member may name, bytes: they stand in every superblock, whose room is bounded.
pub const PEER_URLS_BYTES_MAX: usize = 16 << 10;
/// Applied entries kept in memory for members that lag, bytes.
pub const RAFT_WINDOW_BYTES_MAX: usize = 64 << 20;
/// The same of a member that is alone: there is nobody to send them to, and who joins begins with a
/// snapshot.
pub const RAFT_LONE_WINDOW_BYTES_MAX: usize = 1 << 20;

// ── process: the node ───────────────────────────────────────────────────────────────────────────

/// Requests packed into one raft entry, bytes: one entry is one frame's worth.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Requests that wait to be proposed, bytes; past it a shard is told "too many requests". A turn
/// proposes all of them at once, and the log takes that as one frame: half a segment of it.
pub const PACKED_BYTES_MAX: usize = 32 << 20;
/// What a request gets for queues, work and the disk; elections come on top, see [`request_wait`].
pub const REQUEST_WAIT_BASE: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a request may wait for the cluster: [`REQUEST_WAIT_BASE`] and two elections (etcd
/// `ServerConfig.ReqTimeout`).
pub fn request_wait(election: std::time::Duration) -> std::time::Duration {
    REQUEST_WAIT_BASE + 2 * election
}

/// Ticks for which a request waits for somebody to lead: one or two less than fit [`request_wait`],
/// so that whoever asked is told by the node, which knows that it was never proposed.
pub fn held_ticks(tick: std::time::Duration, election: std::time::Duration) -> u32 {
    let ticks = request_wait(election).as_nanos() / tick.as_nanos();
    u32::try_from(ticks.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Memory that each ring of an executor pins for files of its own, of which there are none: they are read
/// and written by lanes. glommio's default took 20 MiB of an idle server.
pub const EXECUTOR_IO_BYTES: usize = 1 << 20;
/// Events a turn takes in before it flushes, so that replies are never far behind requests.
pub const EVENTS_PER_TURN_MAX: usize = 4_096;
/// What nobody waits for (checkpoints, physical compaction, giving space back) takes one part in so many
/// of the writer's core, while memory is not full of what a checkpoint has to write.
pub const BACKGROUND_SHARE: u32 = 4;
/// Pages of the index that only an older state needs, which a checkpoint or a checksum looks at: past so
/// many bytes it takes all of the core that it can have, for each write may add some.
pub const RETIRED_INDEX_BYTES_MAX: u64 = 128 << 20;
/// Past so many, proposals wait while a checkpoint is under way.
pub const RETIRED_INDEX_BYTES_HELD_MAX: u64 = 256 << 20;
/// Pieces of it that one turn does then.
pub const BACKGROUND_PIECES_PRESSED: usize = 8;
/// Pieces of it that are shorter, such as a look whether a write has ended, count for nothing.
pub const BACKGROUND_PIECE_MIN: std::time::Duration = std::time::Duration::from_micros(20);
/// Records that physical compaction looks at in one turn: about a tenth of a millisecond.
pub const SWEEP_RECORDS_PER_TURN: usize = 1_000;
/// Appends on their way to the disk at once: one being written while the next is ready to go.
/// Deeper only makes frames smaller.
pub const APPENDS_IN_FLIGHT_MAX: usize = 2;
/// An append that takes longer than this, and ten times the usual, is a stalled disk: a leader then
/// looks for a member whose disk goes on.
pub const DISK_STALL_MIN: std::time::Duration = std::time::Duration::from_millis(200);
/// Records that a checksum of the key space looks at before others may run: some 0.2 ms.
pub const HASH_RECORDS_PER_STEP: usize = 256;
/// Bytes of them after which a step ends early: with large values some 0.2 ms as well.
pub const HASH_BYTES_PER_STEP: usize = 1 << 20;
/// Compactions whose checksums are remembered (etcd `mvcc`: `hashStorageMaxSize`). So many views may
/// wait to be summed up, too.
pub const COMPACTION_SUMS_MAX: usize = 10;
/// Steps that one turn makes of such a checksum: half a millisecond where records are read for the first
/// time in a while. Until it is whole its view holds on to every page that writes replace.
pub const SUM_STEPS_PER_TURN: usize = 1;
/// Heartbeats after which an unanswered ReadIndex round is asked again (etcd: 500 ms).
pub const READ_INDEX_RETRY_TICKS: u32 = 5;

// ── process: leases on the leader's clock ───────────────────────────────────────────────────────

/// Longest TTL that is granted, seconds (etcd `lease.MaxLeaseTTL`). As nanoseconds it still fits 64
/// bits.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// How long a member must have been in touch before a change of members counts on it (etcd
/// `HealthInterval`).
pub const MEMBER_HEALTHY_AFTER: std::time::Duration = std::time::Duration::from_secs(5);
/// Ticks for which a removed member stays, so that others hear that its removal is committed (etcd: a
/// second).
pub const REMOVED_LINGER_TICKS: u32 = 10;

/// Changes that expired leases may make in one [`LEASE_EXPIRY_INTERVAL`]: each lease counts as one,
/// and each of its keys. About a millisecond of applying, so a put waits no longer than that for
/// them; 25,600 leases a second without keys, where etcd revokes 1,000.
pub const LEASE_EXPIRY_CHANGES_MAX: usize = 256;
/// See [`LEASE_EXPIRY_CHANGES_MAX`].
pub const LEASE_EXPIRY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(10);
/// Keys of an expired lease that are counted; one lease with more than this is revoked as one
/// piece all the same, and others wait for it 160 ms.
pub const LEASE_KEYS_COUNTED_MAX: usize = 4_096;
/// Leases looked at in one turn by each thing that looks at all of them: a new leader, a list, and
/// the queue of those whose time may have come. Each is a third of a millisecond.
pub const LEASES_PER_TURN_MAX: usize = 1_024;
/// Questions about leases that wait for a revocation or for a new leader's first entry.
pub const LEASE_ASKS_HELD_MAX: usize = 65_536;

const _: () = assert!(LEASE_TTL_SECONDS_MAX < i64::MAX / 1_000_000_000, "nanoseconds fit");
const _: () = assert!(LEASE_EXPIRY_CHANGES_MAX <= LEASES_PER_TURN_MAX, "a piece is one look");
const _: () = assert!(
    LEASE_EXPIRY_CHANGES_MAX * 64 <= ENTRY_BYTES_MAX,
    "a piece of revocations is one entry, and a small one"
);

// ── process: checkpoints ────────────────────────────────────────────────────────────────────────

/// A change is in a checkpoint after this long at the latest (`--ringleader-checkpoint-interval`).
pub const CHECKPOINT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(60);
/// Between two attempts of a checkpoint on a disk that is full.
pub const DISK_FULL_RETRY: std::time::Duration = std::time::Duration::from_secs(6);
/// Checkpoints are not to come so fast that a disk has no time for anything else.
pub const CHECKPOINT_INTERVAL_MIN: std::time::Duration = std::time::Duration::from_secs(1);
/// Log written since the last checkpoint, bytes, past which one is due: what a start must replay, a
/// third of a second of it (`--ringleader-checkpoint-bytes`). What a start finds counts too, or a member
/// that is killed again and again starts ever slower.
pub const CHECKPOINT_LOG_BYTES: u64 = 128 << 20;
/// Between two pieces of a checkpoint that ask something of the disk, each about one write of
/// [`CHECKPOINT_CHUNK_BYTES`] or a read of [`MAP_LOAD_BYTES`]: so it moves a hundred MiB a second at most, and a
/// log on the same disk does not wait for it.
pub const CHECKPOINT_PIECE_REST: std::time::Duration = std::time::Duration::from_millis(2);
/// Where so much log has come since the last checkpoint, a lull of [`CHECKPOINT_LULL`] is used for one.
pub const CHECKPOINT_LULL_LOG_BYTES: u64 = 4 << 20;
/// Nothing came for so long: whoever has filled a store looks at its memory next.
pub const CHECKPOINT_LULL: std::time::Duration = std::time::Duration::from_secs(1);
/// Less would write the same pages of the index again and again.
pub const CHECKPOINT_LOG_BYTES_MIN: u64 = 1 << 20;
/// More would take a start a minute, and the log a disk.
pub const CHECKPOINT_LOG_BYTES_MAX: u64 = 16 << 30;
/// Records that are not in a sealed file yet, bytes, past which a checkpoint is due: memory. At least
/// one segment is full by then.
pub const UNSEALED_BYTES_MAX: u64 = 96 << 20;
/// Past so many the log takes no more until the checkpoint that is under way has sealed some: a disk that
/// takes the log faster than checkpoints is not to fill the memory.
pub const UNSEALED_BYTES_HELD_MAX: u64 = 2 * UNSEALED_BYTES_MAX;
/// Pages of the index that are in memory, bytes, past which a checkpoint is due, are this part of the
/// machine's memory, within the next two (`--ringleader-index-memory-bytes`): they are gathered from all over
/// the index, so the more of them go at once, the less is written for each change.
pub const INDEX_MEMORY_SHARE: u64 = 32;
/// The least that is worth a checkpoint.
pub const INDEX_MEMORY_BYTES_MIN: u64 = 16 << 20;
/// Past this a checkpoint takes seconds, and writes little less for each change.
pub const INDEX_MEMORY_BYTES_MAX: u64 = 1 << 30;
const _: () = assert!(UNSEALED_BYTES_MAX > SEGMENT_BYTES as u64, "a checkpoint seals something");

// ── process: reads that wait for a disk ─────────────────────────────────────────────────────────

/// Memory that was short once is taken to be so for so long after the last page that was missing: the look
/// before each read costs a microsecond.
pub const MEMORY_SHORT_FORGOTTEN_SECONDS: u32 = 10;
/// How often it is looked whether memory is short. What was seen to be in memory counts until then.
pub const MEMORY_LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
/// Removed files are shortened by so many bytes at a time: on ext4 with `discard` 64 MiB at once held a log's
/// sync up for 12 ms, 4 MiB for 1, and this for a half.
pub const FREE_STEP_BYTES: u64 = 1 << 20;
/// Between two such steps.
pub const FREE_STEP_REST: std::time::Duration = std::time::Duration::from_millis(2);
/// One read of a file that is mapped and read at once. Larger ones hold up the log's writes longer.
pub const MAP_LOAD_BYTES: usize = CHECKPOINT_CHUNK_BYTES;
/// What whoever reads a file in a row asks for ahead: a disk gives a MiB at nearly its full speed.
pub const READ_AHEAD_BYTES: usize = 1 << 20;
/// Keys of one read that are looked for before it is answered; one of more goes to a thread beside at once.
pub const KEYS_LOOKED_FOR_MAX: i64 = 64;
/// Threads that a shard has for reads that wait for the disk: SSDs answer several at once.
pub const COLD_READERS: usize = 4;
/// Reads that wait for these threads, of one shard; another is refused as too many requests.
pub const COLD_READS_MAX: usize = 1_024;

// ── process: shards ─────────────────────────────────────────────────────────────────────────────

/// Connections a shard serves at once; one more is closed at once. Twice the ten thousand idle
/// ones that a misbehaving fleet leaves behind.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 20_000;
/// Time a client has to say which protocol it speaks.
pub const FIRST_BYTES_WAIT: std::time::Duration = std::time::Duration::from_secs(30);
/// Connections the kernel keeps for us until they are accepted.
pub const LISTEN_BACKLOG: i32 = 4_096;
/// Pause after an accept that failed, mostly for lack of descriptors.
pub const ACCEPT_RETRY: std::time::Duration = std::time::Duration::from_millis(50);
/// Sockets dealt to a shard that it has not taken yet.
pub const ACCEPTED_RING_SOCKETS_MAX: usize = 4_096;
/// HTTP/2 window of one stream, bytes: a request of the default size fits without a round trip.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// HTTP/2 window of a connection, bytes: what its clients may send ahead.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Headers of one request, bytes; gRPC clients send a few hundred.
pub const HTTP2_HEADER_BYTES_MAX: u32 = 64 << 10;
/// Requests taken from one connection before others get a turn.
pub const REQUESTS_PER_POLL_MAX: usize = 256;
/// Requests of a shard whose bodies have not arrived whole; each holds up to one message.
pub const UNFINISHED_REQUESTS_PER_SHARD_MAX: usize = 4_096;
/// Calls of a shard whose requests are streams of messages. One a connection, and as many again for
/// clients that have several; an idle one costs a few hundred bytes.
pub const CALLS_PER_SHARD_MAX: usize = 2 * CONNECTIONS_PER_SHARD_MAX;
/// Messages that a call may hold without a place among the unfinished requests, bytes: all that
/// [`CALLS_PER_SHARD_MAX`] calls can hold so is 625 MiB, and a message that comes in one frame fits.
pub const CALL_HELD_BYTES_MAX: usize = 16 << 10;
/// How often requests are looked at for having run out of time.
pub const TIMEOUT_CHECK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);
/// Head of an HTTP/1.1 request, bytes.
pub const HTTP1_HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of an HTTP/1.1 request.
pub const HTTP1_HEADERS_MAX: usize = 64;
/// Line before a chunk of an HTTP/1.1 body, bytes: a few digits, and extensions that nobody sends.
pub const HTTP1_CHUNK_HEAD_BYTES_MAX: usize = 4 << 10;
/// Body of an HTTP/1.1 request, bytes; nothing that is built reads one.
pub const HTTP1_BODY_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(
    HTTP2_STREAM_WINDOW_BYTES as usize >= REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES - (64 << 10),
    "a request of the default size needs no second window"
);
const _: () = assert!(HTTP2_CONNECTION_WINDOW_BYTES >= HTTP2_STREAM_WINDOW_BYTES);
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
/// Files of the index at once. A link has room for many more; a superblock is not to grow by them.
pub const INDEX_FILES_MAX: usize = 1024;
/// Past so many files that one with the least in it is emptied, also where most of it counts: each
/// checkpoint makes one more, however small. With usual checkpoints a hundred million keys take no more.
pub const INDEX_FILES_USUAL: usize = 256;
/// Bytes of pages that come back to memory between two checkpoints because their file is emptied.
pub const INDEX_CLEARED_BYTES_MAX: u64 = 32 << 20;
/// Pages of the index that one turn of the writer looks at where nobody waits for it: well below a
/// millisecond, also where each is copied.
pub const INDEX_PAGES_PER_TURN: usize = 16;
/// What the store may add to a superblock: members, alarms and raft's configuration. Leases have a
/// file of their own.
pub const ROOT_STATE_BYTES_MAX: usize = 3 << 20;
/// One write of a checkpoint. Larger ones gain little and hold up the log's writes longer.
pub const CHECKPOINT_CHUNK_BYTES: usize = 256 << 10;
/// One read of a directory that is inspected: how often whoever waits for it sees that it goes on.
pub const INSPECT_READ_BYTES: usize = 1 << 20;
/// How often a directory with something damaged in it is looked at, before what was never there twice is
/// taken for what a running member was writing.
pub const INSPECT_LOOKS_MAX: usize = 5;
/// Between two of these looks: a write that was under way is through.
pub const INSPECT_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);
/// Memory that a restore fills with what is not in files yet before it writes that, in segments: half a
/// gigabyte. The more, the less often pages of the index are written again.
pub const RESTORE_SEGMENTS_IN_MEMORY: u64 = 8;
/// TTL, seconds, of a lease that keys held on to at the revision that is restored, and of which nothing
/// is known but its id: time enough to look at what came back, and no lock is held for ever.
pub const RESTORED_LEASE_TTL_SECONDS: i64 = 3600;
/// Live bytes that one checkpoint copies out of mostly dead segments, so that it ends soon; two
/// segments at least, so that compaction keeps up with writing.
pub const REWRITE_BYTES_MAX: usize = 2 * SEGMENT_BYTES;

/// An operator who wants space back gets it from segments of which more than this part is dead: what
/// stays behind is at most a seventh of what is live.
pub const DEFRAGMENT_DEAD_SHARE: usize = 8;
/// Dead bytes for which the segment that grows is closed: what a segment takes beside its records,
/// which is the first block, the end, and two blocks that are not full.
pub const DEFRAGMENT_TAIL_BYTES_MIN: usize = 16 << 10;

const _: () = assert!(REQUEST_BYTES_MAX * 2 < SEGMENT_BYTES, "a record fits many times");
const _: () = assert!(PEER_URLS_BYTES_MAX * 100 < ROOT_STATE_BYTES_MAX, "of a hundred members");
const _: () = assert!(
    SEGMENTS_MAX * 64 + INDEX_FILES_MAX * 64 + ROOT_STATE_BYTES_MAX
        < SEGMENT_BYTES / ROOT_SEGMENT_SHARE
);
const _: () = assert!(2 * INDEX_FILES_USUAL < INDEX_FILES_MAX, "there is always a slot");
const _: () = assert!(SEGMENT_BYTES < u32::MAX as usize, "offsets of records are u32");
// ── tree: snapshots for other members ───────────────────────────────────────────────────────────

/// A snapshot's parts: its segments, the one that grows, the list of dead records, the leases.
pub const SNAPSHOT_PARTS_MAX: usize = SEGMENTS_MAX + 3;
/// A manifest of a snapshot: as much as a superblock may say.
pub const SNAPSHOT_MANIFEST_BYTES_MAX: usize = SEGMENT_BYTES / ROOT_SEGMENT_SHARE;
/// One piece of a part, as it is read here and written there.
pub const SNAPSHOT_PIECE_BYTES: usize = CHECKPOINT_CHUNK_BYTES;
/// A record that does not fit a segment: twice the largest request there can be.
pub const RECORD_BYTES_MAX: usize = 2 * REQUEST_BYTES_CEILING;

const _: () = assert!(
    SNAPSHOT_PARTS_MAX * 64 + ROOT_STATE_BYTES_MAX < SNAPSHOT_MANIFEST_BYTES_MAX,
    "what a superblock can say fits a manifest"
);
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
/// seconds at full load), small enough to zero-fill and to look through at start.
pub const WAL_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Largest segment the format allows: a frame's length is a `u32`.
pub const WAL_SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Frames handed to the disk and not yet durable. A damaged frame is known to have been
/// acknowledged once a frame this much younger exists, so a small number makes rot provable early;
/// group commit needs two.
pub const WAL_FRAMES_IN_FLIGHT_MAX: u64 = 8;
/// Spare segments that are kept ready, so that an append never waits for zero-filling.
pub const WAL_SPARES_MIN: usize = 1;
/// Spare segments that are kept when a trim frees many; the rest give their space back.
pub const WAL_SPARES_MAX: usize = 4;
/// Bytes that a start reads of the log at once: memory that is used again for the next piece.
pub const WAL_READ_BYTES: usize = 1024 * 1024;

const _: () = assert!(
    (REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES) as u64 <= WAL_SEGMENT_BYTES / 2,
    "the largest request fits one frame with room to spare"
);
const _: () = assert!(WAL_SEGMENT_BYTES <= WAL_SEGMENT_BYTES_MAX, "the default is legal");
const _: () = assert!(WAL_SEGMENT_BYTES_MAX <= u32::MAX as u64, "lengths in a frame are u32");
const _: () = assert!(WAL_SPARES_MIN <= WAL_SPARES_MAX, "what is kept covers what is needed");
// ── store: what etcd means ──────────────────────────────────────────────────────────────────────

/// Size at which writes are refused, default: `--quota-backend-bytes` 0 means this (etcd: 2 GiB).
pub const QUOTA_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;
/// What a key costs beside its bytes when room is estimated (etcd `storage/quota.go`).
pub const QUOTA_KEY_BYTES: usize = 256;
/// What a lease costs, bytes, when room is estimated (etcd `storage/quota.go`).
pub const QUOTA_LEASE_BYTES: u64 = 64;
/// Most bytes of a request's header in the log: two bytes of key, a length, a byte of key and a
/// ten-byte number. Counted whole against [`REQUEST_BYTES_MAX`].
pub const REQUEST_HEADER_BYTES_MAX: usize = 14;
/// Key-values in the first part of a streamed range; later parts double or halve (etcd 3.7).
pub const STREAM_FIRST_KEYS: i64 = 10;

const _: () =
    assert!(REQUEST_HEADER_BYTES_MAX < GRPC_OVERHEAD_BYTES, "a legal request must arrive");
// ── http2: what one client may cost ─────────────────────────────────────────────────────────────

/// The client's header table that we keep, bytes: the protocol's default (RFC 9113 §6.5.2).
pub const HTTP2_HEADER_TABLE_BYTES: usize = 4_096;
/// CONTINUATION frames of one header block; four full ones carry all that is allowed, so this
/// leaves room for small ones and none for a flood of empty ones.
pub const HTTP2_CONTINUATIONS_MAX: usize = 32;
/// Header blocks remembered with their meaning: one for each method that a client calls often.
pub const HTTP2_BLOCKS_SEEN_MAX: usize = 16;
/// Largest header block remembered, bytes; larger ones hold a token, or are of no client we know.
pub const HTTP2_BLOCK_SEEN_BYTES_MAX: usize = 1_024;
/// Bytes on their way out past which nothing more is read from the client and bodies wait where
/// they are: several full sends, so that a fast reader never notices.
pub const HTTP2_OUT_BYTES_MAX: usize = 256 << 10;
/// Read from and sent on one connection before others get a turn, bytes: about a millisecond of
/// copying.
pub const HTTP2_MOVED_PER_POLL_BYTES_MAX: usize = 1 << 20;
/// Streams that a client took back, or that we had to reset, before they had an answer, beyond
/// those that were answered. A client whose calls all time out at once stays far below; rapid reset
/// (CVE-2023-44487) does not.
pub const HTTP2_RESETS_AHEAD_MAX: usize = 8_192;
/// Frames in a row that say nothing (DATA with no bytes and no end).
pub const HTTP2_EMPTY_FRAMES_MAX: usize = 1_024;
/// Streams ended early by us whose late frames are still let pass: what is on its way from a client
/// when it hears of it.
pub const HTTP2_STREAMS_ENDED_EARLY_MAX: usize = 256;
/// A client may ping this often while it has streams open (etcd `--grpc-keepalive-min-time`: 5 s).
pub const HTTP2_PING_INTERVAL_MIN: std::time::Duration = std::time::Duration::from_secs(5);
/// A client may ping this often while it has none (grpc-go without PermitWithoutStream: 2 h).
pub const HTTP2_PING_INTERVAL_IDLE_MIN: std::time::Duration =
    std::time::Duration::from_secs(2 * 3600);
/// Pings that may come too early before the connection is ended (grpc-go: 2).
pub const HTTP2_PING_STRIKES_MAX: u32 = 2;
/// Read from a socket at once, bytes: one buffer for each core.
pub const HTTP2_READ_BYTES: usize = 64 << 10;
/// Bodies are copied out of the read buffer into chunks of this size, bytes. One body that somebody
/// still holds keeps its chunk, so it is not large.
pub const HTTP2_BODY_CHUNK_BYTES: usize = 16 << 10;
/// Most that a body which arrives in parts is given room for ahead of its bytes.
pub const HTTP2_BODY_AHEAD_BYTES_MAX: usize = 256 << 10;
/// Buffer that a connection with nothing to do may keep, bytes: twenty thousand idle ones must not
/// hold gigabytes.
pub const HTTP2_IDLE_BUFFER_BYTES_MAX: usize = 4 << 10;
/// Read and thrown away after a GOAWAY, bytes, so that closing the socket does not destroy what
/// the client has not read yet.
pub const HTTP2_LINGER_BYTES_MAX: usize = 1 << 20;
/// Time a client has to close its side after a GOAWAY.
pub const HTTP2_LINGER_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

const _: () = assert!(
    HTTP2_OUT_BYTES_MAX <= HTTP2_MOVED_PER_POLL_BYTES_MAX,
    "a turn can send what was gathered"
);
const _: () = assert!(HTTP2_RESETS_AHEAD_MAX > UNFINISHED_REQUESTS_PER_SHARD_MAX);
const _: () = assert!(HTTP2_BODY_CHUNK_BYTES <= HTTP2_BODY_AHEAD_BYTES_MAX);
const _: () = assert!(HTTP2_READ_BYTES <= HTTP2_MOVED_PER_POLL_BYTES_MAX);
const _: () = assert!(CALL_HELD_BYTES_MAX < HTTP2_STREAM_WINDOW_BYTES as usize);

// ── process: the runtime ────────────────────────────────────────────────────────────────────────

/// Listening addresses of a member; each has a ring to each shard.
pub const LISTENERS_MAX: usize = 64;
/// How long a core polls before it sleeps: a wake-up of a sleeping core costs about as much.
pub const SPIN: std::time::Duration = std::time::Duration::from_micros(20);
/// How often a starting member looks whether the cluster has heard of it.
pub const INTRODUCE_INTERVAL: std::time::Duration = std::time::Duration::from_millis(1);
/// How often it proposes what the cluster should know of it, until that is so.
pub const INTRODUCE_RETRY: std::time::Duration = std::time::Duration::from_secs(1);
/// How long a stopping shard waits for requests that are on their way.
pub const FAREWELL_WAIT: std::time::Duration = std::time::Duration::from_millis(500);
/// How long the end of the process waits for the log to be written.
pub const LOG_FLUSH_WAIT: std::time::Duration = std::time::Duration::from_secs(1);
/// How long a dying process waits for its last word to be taken, and for its mark where it dies of
/// damage; in it nothing else happens.
pub const FATAL_WRITE_WAIT: std::time::Duration = std::time::Duration::from_secs(1);
/// How often a stopping shard looks whether somebody still waits.
pub const FAREWELL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(5);

// ── bootstrap: what a member without data waits for, and takes from others ──────────────────────

/// How long the members of a new cluster are asked whether this one has been there before (etcd
/// `BootstrapTimeoutEffective`); one that starts too does not answer.
pub const BOOTSTRAP_ASK_WAIT: std::time::Duration = std::time::Duration::from_secs(1);
/// How long one member may take to say who the members are (etcd `GetClusterFromRemotePeers`).
pub const JOIN_MEMBERS_WAIT: std::time::Duration = std::time::Duration::from_secs(10);
/// How long a member may take to say its version, besides two elections (etcd `ReqTimeout`).
pub const JOIN_VERSION_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
/// How long a member may take to say whether its cluster is on its way down to an older version: two
/// elections at defaults, and no more, because it cannot be known without a quorum.
pub const JOIN_DOWNGRADE_WAIT: std::time::Duration = std::time::Duration::from_secs(2);
/// How long host names may take to be found, all together (etcd `advertiseMatchesCluster`).
pub const NAMES_WAIT: std::time::Duration = std::time::Duration::from_secs(30);
/// Between two tries to find a host name (etcd `netutil.retryInterval`).
pub const NAMES_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
/// Bytes of an answer: members of a cluster, or a list in the discovery service; a thousand members
/// would fit.
pub const BOOTSTRAP_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Headers of an answer; real ones have a dozen.
pub const BOOTSTRAP_HEADERS_MAX: usize = 64;
/// Between two looks into the discovery service while other members are missing.
pub const DISCOVERY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(500);
/// Times that the pause after a failed request doubles, from 2 s (etcd `maxExponentialRetries`).
pub const DISCOVERY_DOUBLINGS_MAX: u32 = 8;
/// Name servers that are asked, and domains that are tried (`resolv.conf(5)`, glibc 2.26: no limit
/// on domains, but a query for each).
pub const DNS_SERVERS_MAX: usize = 3;
/// Domains of a search list that are tried.
pub const DNS_SEARCH_MAX: usize = 6;
/// Bytes of an answer by UDP: without EDNS no server sends more (RFC 1035 §4.2.1).
pub const DNS_DATAGRAM_BYTES_MAX: usize = 512;
/// Seconds for one try of a name server, and tries of each, at most (`resolv.conf(5)`).
pub const DNS_TIMEOUT_SECONDS_MAX: u64 = 30;
/// Tries of each name server.
pub const DNS_ATTEMPTS_MAX: u32 = 5;
/// Shortest timeout of connections between members, and the default of `--raft-read-timeout` and
/// `--raft-write-timeout`: so soon may another member take silence for the end (etcd
/// `rafthttp.DefaultConnReadTimeout`).
pub const PEER_CONNECTION_WAIT_MIN: std::time::Duration = std::time::Duration::from_secs(5);

const _: () = assert!(BOOTSTRAP_ASK_WAIT.as_millis() < JOIN_MEMBERS_WAIT.as_millis());
const _: () = assert!(NAMES_INTERVAL.as_millis() < NAMES_WAIT.as_millis());

// ── configuration and log: what a start line and a slow reader may cost ─────────────────────────

/// Largest `--max-request-bytes` that is taken: a request is one log entry, waits to be proposed as
/// one piece, and is held whole in memory several times over.
pub const REQUEST_BYTES_CEILING: usize = 32 << 20;
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
/// Longest delay that a test may ask of a disk or of the way to another member (`--testing-…`): past
/// it nothing is slow any more, it is gone.
pub const TESTING_DELAY_MAX: std::time::Duration = std::time::Duration::from_secs(10);
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
const _: () = assert!(REQUEST_BYTES_CEILING <= PACKED_BYTES_MAX, "the largest request is taken");
const _: () = assert!(
    2 * PACKED_BYTES_MAX as u64 <= WAL_SEGMENT_BYTES,
    "what a turn proposes fits one frame, with room for headers"
);
const _: () = assert!(PACKED_BYTES_MAX as u64 <= UNCOMMITTED_BYTES_MAX, "raft takes a whole turn");
const _: () = assert!(
    LOG_LIST_LEN_MAX * LOG_VALUE_BYTES_MAX < LOG_QUEUE_BYTES_MAX,
    "a line with one full list must fit into an empty queue"
);
/// How often each executor is woken for no other reason: the longest that a lost wake-up costs.
pub const NUDGE_INTERVAL: std::time::Duration = std::time::Duration::from_millis(10);
/// How often a busy executor looks for news from other cores. glommio's own default makes a busy
/// core answer after 93 ms; this makes it 0.3 ms.
pub const TASK_LATENCY: std::time::Duration = std::time::Duration::from_micros(200);

// ── watch: what watchers may cost a shard ───────────────────────────────────────────────────────

/// Watch streams of a shard: five for each of its connections, as many as a client library opens.
pub const WATCH_STREAMS_PER_SHARD_MAX: usize = 5 * CONNECTIONS_PER_SHARD_MAX;
/// Watchers of a shard; at some 310 bytes each, 310 MB (see `shard::watch`).
pub const WATCHERS_PER_SHARD_MAX: usize = 1_000_000;
/// Watchers of one stream: a client that multiplexes all it watches, with room for four such.
pub const WATCHERS_PER_STREAM_MAX: usize = 250_000;
/// Answers to a client's own requests that wait for it to read; then none is taken from it
/// (etcd: 16 and what its sockets hold).
pub const WATCH_CONTROLS_MAX: usize = 64;
/// Messages of one stream that wait for its client, bytes. Its watchers fall behind past it, and
/// the history is their queue. Enough to fill a connection's window while more is fetched.
pub const WATCH_STREAM_BYTES_MAX: usize = 1 << 20;
/// Watchers that fell behind go on when less than this waits for their client, bytes.
pub const WATCH_STREAM_RESUME_BYTES: usize = WATCH_STREAM_BYTES_MAX / 2;
/// Messages that wait for all clients of a shard, bytes; past it a stream has room only when
/// nothing waits for it. Bodies that are shared count each time.
pub const WATCH_SHARD_BYTES_MAX: usize = 256 << 20;
/// A response that has reached this many bytes of events ends with its revision. Well below the
/// 4 MiB that gRPC clients take by default.
pub const WATCH_RESPONSE_BYTES_MAX: usize = 256 << 10;
/// Events gathered before any is handed out, bytes; then all are, at the end of a revision.
pub const WATCH_GATHERED_BYTES_MAX: usize = 4 << 20;
/// Events of one revision copied for those who want different parts of it, bytes. Past it they fall
/// behind and are told one after the other.
pub const WATCH_REVISION_BYTES_MAX: usize = 64 << 20;
/// Watchers that share a piece of history (etcd `maxWatchersPerSync`).
pub const WATCH_COHORT_MAX: usize = 512;
/// Records read for one piece of history: a fraction of a millisecond, unless one revision is
/// larger.
pub const WATCH_PIECE_RECORDS_MAX: usize = 4_096;
/// Smallest interval of progress notifications (etcd `minWatchProgressInterval`).
pub const WATCH_PROGRESS_INTERVAL_MIN: std::time::Duration = std::time::Duration::from_millis(100);
/// Messages that a stream's idle queue keeps room for; a longer one gives its memory back.
pub const WATCH_IDLE_MESSAGES_MAX: usize = 16;

const _: () = assert!(WATCH_RESPONSE_BYTES_MAX < WATCH_STREAM_RESUME_BYTES, "several fit");
const _: () = assert!(WATCH_STREAM_BYTES_MAX < WATCH_SHARD_BYTES_MAX);
const _: () = assert!(WATCH_GATHERED_BYTES_MAX < WATCH_REVISION_BYTES_MAX);
const _: () = assert!(WATCHERS_PER_STREAM_MAX <= WATCHERS_PER_SHARD_MAX);
const _: () = assert!(WATCHERS_PER_SHARD_MAX < u32::MAX as usize, "places are u32");
/// Between two words of progress to watchers that want them, default (etcd: 10 minutes).
pub const WATCH_PROGRESS_INTERVAL: std::time::Duration = std::time::Duration::from_secs(600);
// ── shard: streams of leases, and the server as its own client ──────────────────────────────────

/// Keep-alives of one call that may be under way; more are not taken from the client until one is
/// answered. A client with many leases sends them in a burst.
pub const KEEP_ALIVES_AHEAD_MAX: usize = 1_024;
/// TTL of the lease that a lock or election makes for a client that brings none, seconds (etcd
/// `concurrency.defaultSessionTTL`).
pub const SESSION_TTL_SECONDS: i64 = 60;
/// Elections without a leader after which streams that require one are ended (etcd
/// `maxNoLeaderCnt`).
pub const NO_LEADER_ELECTIONS_MAX: u32 = 3;
// ── peer: member to member ──────────────────────────────────────────────────────────────────────

/// One message of another member, bytes: a full message of entries and one more request of any size
/// that is taken, with room for an etcd's larger ones (etcd `rafthttp`: 512 MiB).
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Entries in one message: each costs some fifty bytes of memory beside its data.
pub const PEER_MESSAGE_ENTRIES_MAX: usize = 1 << 18;
/// Messages that wait for one stream to another member (etcd `streamBufSize`).
pub const PEER_LANE_MESSAGES_MAX: usize = 4_096;
/// Bytes of messages that wait for one stream; one message that alone is larger is taken into an
/// empty lane. What does not fit is lost, and raft is told.
pub const PEER_LANE_BYTES_MAX: usize = 64 << 20;
/// Gathered into one send to another member, bytes: what a heartbeat may stand behind.
pub const PEER_SEND_BYTES_MAX: usize = 256 << 10;
/// Read at once from another member, bytes.
pub const PEER_READ_BYTES: usize = 64 << 10;
/// Messages that wait to be posted one by one to a member without streams (etcd `pipelineBufSize`).
pub const PEER_POSTS_MAX: usize = 64;
/// Largest message that is posted, bytes: votes and heartbeats are a hundred.
pub const PEER_POST_BYTES_MAX: usize = 64 << 10;
/// How often a stream says that it is alive: often enough for a member that waits no longer than it must.
pub const PEER_LINK_HEARTBEAT_INTERVAL: std::time::Duration =
    std::time::Duration::from_nanos(PEER_CONNECTION_WAIT_MIN.as_nanos() as u64 / 3);
/// Between two tries to open a stream (etcd `DialRetryFrequency`: ten a second).
pub const PEER_DIAL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);
/// How often another member is asked how long an answer takes (etcd `proberInterval`); below
/// [`PEER_IDLE_WAIT`], so that the connection it is asked over stays.
pub const PEER_PROBE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(4);
/// Connections on the peers' port at once: a few for each of the other members, and room for what
/// they have not yet noticed to be dead.
pub const PEER_CONNECTIONS_MAX: usize = 1_024;
/// Body of a request to the peers' port, bytes; a posted message of an etcd may be this large.
pub const PEER_BODY_BYTES_MAX: usize = PEER_MESSAGE_BYTES_MAX;
/// Body of an answer of another member, bytes: a few numbers, or the list of members.
pub const PEER_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Between two looks whether the node's ring has room again.
pub const PEER_RING_INTERVAL: std::time::Duration = std::time::Duration::from_millis(1);
/// How fast a snapshot goes to one member, bytes a second: a fraction of what a core can copy, so
/// that raft and clients hardly notice; ten gigabytes take three minutes.
pub const PEER_SNAPSHOT_BYTES_PER_SECOND: u64 = 64 << 20;
/// How long a member may check what of a snapshot it has, or has got.
pub const PEER_SNAPSHOT_WAIT: std::time::Duration = std::time::Duration::from_secs(300);
/// Members that were only heard of and are answered all the same: a cluster's worth.
pub const PEER_STRANGERS_MAX: usize = 64;
/// Words of the room itself that wait for room in the node's ring: one for each stream that broke
/// and each forwarded request.
pub const PEER_WORDS_MAX: usize = 2 * PEER_FORWARDS_MAX;
/// Requests forwarded to the leader that are not answered yet.
pub const PEER_FORWARDS_MAX: usize = 65_536;
/// What may be on its way on one connection that is held back for a test, bytes; one more send
/// begins below it. A delay is not to limit the rate, so this is more than the rate times the delay
/// of anything that is sent.
pub const PEER_DELAYED_BYTES_MAX: usize = 1 << 30;
/// Connections to another member for requests. One would do for a Ringleader, which works on many
/// requests of one connection at once; an etcd answers one after the other.
pub const PEER_CALL_CONNECTIONS_MAX: usize = 4;
/// Requests on their way on one connection, either way.
pub const PEER_CALLS_AHEAD_MAX: usize = 256;
/// A connection for requests that nobody has used for so long is closed, before the other side does
/// (after [`PEER_CONNECTION_WAIT_MIN`]).
pub const PEER_IDLE_WAIT: std::time::Duration = std::time::Duration::from_millis(4_500);
/// Between two tries to forward a request (etcd `LeaseRenew`).
pub const PEER_FORWARD_RETRY: std::time::Duration = std::time::Duration::from_millis(50);
/// Between two looks for somebody who leads, to ask: many may look at once (etcd `waitLeader`: an
/// election timeout).
pub const PEER_LEADER_RETRY: std::time::Duration = std::time::Duration::from_millis(200);
/// How long a forwarded question may wait at the leader (etcd `leasehttp.applyTimeout`).
pub const PEER_LEASE_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

const _: () = assert!(
    PEER_MESSAGE_BYTES_MAX
        >= RAFT_MESSAGE_BYTES_MAX as usize + REQUEST_BYTES_CEILING + GRPC_OVERHEAD_BYTES,
    "a message of entries holds the largest request"
);
const _: () =
    assert!(PEER_MESSAGE_BYTES_MAX >= 2 * PACKED_BYTES_MAX, "all that waits is forwarded");
const _: () = assert!(PEER_PROBE_INTERVAL.as_millis() < PEER_IDLE_WAIT.as_millis());
const _: () = assert!(PEER_IDLE_WAIT.as_millis() < PEER_CONNECTION_WAIT_MIN.as_millis());
const _: () = assert!(
    PEER_SNAPSHOT_BYTES_PER_SECOND * TESTING_DELAY_MAX.as_secs() < PEER_DELAYED_BYTES_MAX as u64,
    "the longest delay holds a snapshot up, and does not slow it down"
);
const _: () = assert!(
    RAFT_MESSAGES_IN_FLIGHT_MAX as u64 * RAFT_MESSAGE_BYTES_MAX < PEER_DELAYED_BYTES_MAX as u64,
    "all that raft sends ahead fits"
);
