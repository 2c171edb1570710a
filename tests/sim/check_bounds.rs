//! What may wait, and how much of it: the bounds of [`ringleader::limits`], looked at after every turn
//! of a shard, apart from whatever made it wait.
//!
//! The rings between node, shards and peers have no check here: they cannot hold more than they were
//! made for, and the weather makes some of a single message.

use ringleader::{
    limits::{
        PACKED_BYTES_MAX, RAFT_MESSAGE_BYTES_MAX, RAFT_MESSAGES_IN_FLIGHT_MAX,
        RAFT_WINDOW_BYTES_MAX, UNCOMMITTED_BYTES_MAX, WAL_FRAMES_IN_FLIGHT_MAX, WATCH_CONTROLS_MAX,
        WATCH_RESPONSE_BYTES_MAX, WATCH_SHARD_BYTES_MAX, WATCH_STREAM_BYTES_MAX,
    },
    metrics::NodeMeters,
    shard::watch::Watches,
};

/// What the answer to a client's own request on a watch stream takes at most, bytes.
const CONTROL_BYTES_MAX: usize = 1 << 10;

/// Holds a node against its bounds.
///
/// # Panics
/// At the first that is passed.
pub(crate) fn judge(meters: &NodeMeters) {
    let bounds = [
        // The first may have its frame on the disk and wait for its vote.
        (
            "appends on their way to the disk",
            &meters.appends_in_flight,
            WAL_FRAMES_IN_FLIGHT_MAX + 1,
        ),
        // What a leader sends before it has an answer; a lone member proposes nothing meanwhile.
        ("appends without room", &meters.appends_held, RAFT_MESSAGES_IN_FLIGHT_MAX as u64),
        ("bytes to be proposed", &meters.proposals_bytes, PACKED_BYTES_MAX as u64),
        ("bytes of entries in memory", &meters.window_bytes, WINDOW_BYTES_MAX),
    ];
    for (what, meter, most) in bounds {
        assert!(meter.get() <= most, "{what}: {} of {most}", meter.get());
    }
}

/// Applied entries, and what is not applied yet.
const WINDOW_BYTES_MAX: u64 = RAFT_WINDOW_BYTES_MAX as u64
    + UNCOMMITTED_BYTES_MAX
    + RAFT_MESSAGES_IN_FLIGHT_MAX as u64 * RAFT_MESSAGE_BYTES_MAX;

/// Holds a shard's watchers against theirs: each stream may have one response beyond its bound.
///
/// # Panics
/// Where more waits.
pub(crate) fn judge_watches(watches: &Watches) {
    let stream =
        WATCH_STREAM_BYTES_MAX + WATCH_RESPONSE_BYTES_MAX + WATCH_CONTROLS_MAX * CONTROL_BYTES_MAX;
    let (bytes, most) = (watches.waiting_bytes(), watches.streams() * stream);
    assert!(bytes <= most.min(WATCH_SHARD_BYTES_MAX + stream), "{bytes} bytes wait for watchers");
}
