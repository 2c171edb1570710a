//! The service `Watch`: what its requests ask, and how its answers and events are written.
//!
//! An answer is one gRPC message in two parts. The head is the watcher's own; the body, the events,
//! may be shared by everybody who watches the same:
//!
//! ```text
//! ┌──────── head ─────────────────────────────────────────┬── body ─────────────┐
//! │ prefix, header, watch_id, created, canceled, fragment │ event event event … │
//! └───────────────────────────────────────────────────────┴─────────────────────┘
//! ```
//!
//! Facts are those of etcd 3.7 (`v3rpc/watch.go`, `mvcc/watcher.go`).

use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};
use proto::etcdserverpb::{
    WatchCreateRequest, WatchRequest, watch_create_request::FilterType, watch_request::RequestUnion,
};

use super::{
    Header, Status,
    encode::{PREFIX_BYTES, bytes, number},
    kv,
    status::{self, Code},
};
use crate::{store::Change, types::Revision};

/// A watcher's name on its stream; the client may choose it. Any number is legal (etcd).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(pub i64);

impl WatchId {
    /// Stands for no watcher, or for all of the stream (etcd `InvalidWatchID`).
    pub const NONE: Self = Self(-1);
}

/// What a client asks on a watch stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A new watcher.
    Create(Create),
    /// No new watcher, for this reason: it is created and canceled at once.
    Refused(&'static str),
    /// No more of this watcher.
    Cancel(WatchId),
    /// How far are all watchers of the stream?
    Progress,
    /// Neither; ignored (etcd).
    Nothing,
}

/// A watcher that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// The client's choice; `None` leaves it to the server.
    pub id: Option<WatchId>,
    /// The first revision to tell of; `None` is whatever comes next.
    pub start: Option<Revision>,
    /// Tell of progress now and then.
    pub progress_notify: bool,
    /// The key watched, or the first one.
    pub key: Bytes,
    /// How far the keys reach.
    pub until: Until<Bytes>,
    /// What is told of a change.
    pub wish: Wish,
}

/// Where the keys of a watcher end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until<K> {
    /// With the first one.
    Itself,
    /// Before this one.
    Before(K),
    /// Nowhere.
    Forever,
}

/// What a watcher wants to know of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wish {
    /// Puts.
    pub puts: bool,
    /// Deletes.
    pub deletes: bool,
    /// What was there before.
    pub prev_kv: bool,
    /// A large response may come in parts.
    pub fragment: bool,
}

impl Wish {
    /// Whether `change` passes the filters.
    pub fn takes(&self, change: &Change<'_>) -> bool {
        if change.tombstone { self.deletes } else { self.puts }
    }
}

/// `cancel_reason` of a negative start revision (etcd `rpctypes.ErrCompacted`).
pub const NEGATIVE_START: &str = "etcdserver: mvcc: required revision has been compacted";
/// `cancel_reason` of a range that ends before it begins (etcd `ErrEmptyWatcherRange`).
pub const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// `cancel_reason` of an id that is in use (etcd `ErrWatcherDuplicateID`).
pub const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// `cancel_reason` of one watcher too many; etcd takes any number.
pub const TOO_MANY_WATCHERS: &str = "ringleader: too many watchers";
/// A call that would be one watch stream too many; etcd takes any number.
pub const TOO_MANY_STREAMS: Status =
    Status::new(Code::ResourceExhausted, "ringleader: too many watch streams");

/// What `message`, the body of one gRPC message, asks.
///
/// # Errors
/// It is no `WatchRequest`: the stream ends with this status.
pub fn decode(message: Bytes) -> Result<Ask, Status> {
    let request: WatchRequest =
        kv::parse(message).map_err(|_: Status| status::MALFORMED_IN_STREAM)?;
    Ok(match request.request_union {
        Some(RequestUnion::CreateRequest(create)) => decode_create(create),
        Some(RequestUnion::CancelRequest(cancel)) => Ask::Cancel(WatchId(cancel.watch_id)),
        Some(RequestUnion::ProgressRequest(_)) => Ask::Progress,
        None => Ask::Nothing,
    })
}

/// Unknown filters filter nothing (etcd `FiltersFromRequest`).
/// What a request for a new watcher asks.
pub fn decode_create(request: WatchCreateRequest) -> Ask {
    let key = if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key };
    if request.start_revision < 0 {
        return Ask::Refused(NEGATIVE_START);
    }
    let until = match &request.range_end[..] {
        b"" => Until::Itself,
        b"\0" => Until::Forever,
        end if *end <= key[..] => return Ask::Refused(EMPTY_RANGE),
        _ => Until::Before(request.range_end),
    };
    let filtered = |kind: FilterType| request.filters.contains(&i32::from(kind));
    let wish = Wish {
        puts: !filtered(FilterType::Noput),
        deletes: !filtered(FilterType::Nodelete),
        prev_kv: request.prev_kv,
        fragment: request.fragment,
    };
    Ask::Create(Create {
        id: (request.watch_id != 0).then_some(WatchId(request.watch_id)),
        start: (request.start_revision != 0).then_some(Revision(request.start_revision)),
        progress_notify: request.progress_notify,
        key,
        until,
        wish,
    })
}

/// What an answer says beside its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The watcher is there.
    Created,
    /// It is not, and will not be; the body is from [`reason`].
    Refused,
    /// As the client wished.
    Canceled,
    /// What the watcher waits for was compacted up to this revision. etcd gives no reason.
    Compacted(Revision),
    /// Events, or none: progress.
    Events,
    /// Events, of which the next answer has more.
    Fragment,
}

/// Room for the longest head: all numbers at their longest.
const HEAD_BYTES: usize = 80;

/// The first part of an answer, gRPC prefix included.
#[derive(Clone, Copy)]
pub struct Head {
    bytes: [u8; HEAD_BYTES],
    len: u8,
}

impl Head {
    /// The head of an answer to watcher `id` whose body has `body_bytes`.
    pub fn new(header: Header, id: WatchId, kind: Kind, body_bytes: usize) -> Self {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        header.encode(&mut out);
        number(2, id.0 as u64, &mut out);
        number(3, u64::from(matches!(kind, Kind::Created | Kind::Refused)), &mut out);
        let canceled = matches!(kind, Kind::Refused | Kind::Canceled | Kind::Compacted(_));
        number(4, u64::from(canceled), &mut out);
        if let Kind::Compacted(revision) = kind {
            number(5, revision.0 as u64, &mut out);
        }
        number(7, u64::from(kind == Kind::Fragment), &mut out);
        let message_bytes = u32::try_from(out.len() - PREFIX_BYTES + body_bytes)
            .expect("events of one revision are bounded by the log's entries");
        out[1..PREFIX_BYTES].copy_from_slice(&message_bytes.to_be_bytes());
        let mut bytes = [0; HEAD_BYTES];
        bytes[..out.len()].copy_from_slice(&out);
        Self { bytes, len: out.len() as u8 }
    }
}

impl std::ops::Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The body of a [`Kind::Refused`].
pub fn reason(text: &str) -> Bytes {
    let mut out = Vec::new();
    bytes(6, text.as_bytes(), &mut out);
    out.into()
}

const EVENT: u8 = 0x5a;
const EVENT_TYPE_DELETE: [u8; 2] = [0x08, 0x01];
const EVENT_KV: u8 = 0x12;
const EVENT_PREV_KV: u8 = 0x1a;
const KV_MOD_REVISION: u8 = 0x18;

/// Appends `change` as one event of a response, with the `KeyValue` before it where there is one.
/// The record's bytes are the event's; a delete gets its revision, which the record does not repeat.
pub fn event(change: &Change<'_>, prev: Option<&[u8]>, out: &mut Vec<u8>) {
    let revision = change.stamp.main.0 as u64;
    let stamp = if change.tombstone { 1 + encoded_len_varint(revision) } else { 0 };
    let kv_bytes = change.kv.len() + stamp;
    let field = |len: usize| 1 + encoded_len_varint(len as u64) + len;
    let kind = if change.tombstone { EVENT_TYPE_DELETE.len() } else { 0 };
    let event_bytes = kind + field(kv_bytes) + prev.map_or(0, |prev| field(prev.len()));
    out.reserve(field(event_bytes));
    out.push(EVENT);
    encode_varint(event_bytes as u64, out);
    if change.tombstone {
        out.extend_from_slice(&EVENT_TYPE_DELETE);
    }
    out.push(EVENT_KV);
    encode_varint(kv_bytes as u64, out);
    out.extend_from_slice(change.kv);
    if change.tombstone {
        out.push(KV_MOD_REVISION);
        encode_varint(revision, out);
    }
    if let Some(prev) = prev {
        out.push(EVENT_PREV_KV);
        encode_varint(prev.len() as u64, out);
        out.extend_from_slice(prev);
    }
}
