//! The service `KV`: what its requests ask, and how its answers are written.

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;

use super::{
    Edge, Header, Status, Work, check,
    encode::{bytes, message, nested, number},
    status,
};
use crate::{
    limits::REQUEST_HEADER_BYTES_MAX,
    store::{
        self, ALARM_NOSPACE, Deleted, OpDone, Part, PutDone, RangeDone, TxnDone, View,
        command::{self, AlarmAction, AlarmOrder, Range, Txn, field},
        put_cost, range,
    },
    types::MemberId,
};

/// Decodes a generated message.
///
/// # Errors
/// What is not one gets grpc-go's refusal.
pub fn parse<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|_| status::MALFORMED)
}

/// `Put`, in etcd's order: room, then the request itself, then its size.
pub(super) fn decode_put(raw: Bytes, edge: &Edge, disk_bytes: u64) -> Result<Work, Status> {
    let request: pb::PutRequest = parse(raw.clone())?;
    let cost = put_cost(request.key.len(), request.value.len());
    if !edge.quota.fits(disk_bytes, cost) {
        return Ok(no_space(edge.member));
    }
    check::put(&request)?;
    propose(field::PUT, &raw, edge)
}

pub(super) fn decode_range(raw: Bytes) -> Result<Work, Status> {
    let request: pb::RangeRequest = parse(raw)?;
    check::range(&request)?;
    let query = Range::from(request);
    Ok(Work::Read { serializable: query.serializable, read: super::Read::Range(query) })
}

/// What is not a range at all is left to [`decode_range`], which has the words for it.
pub(super) fn is_serializable(raw: &Bytes) -> bool {
    pb::RangeRequest::decode(raw.clone()).map_or(true, |request| request.serializable)
}

pub(super) fn decode_range_stream(raw: Bytes) -> Result<Work, Status> {
    let request = pb::RangeRequest::decode(raw).map_err(|_| status::MALFORMED_IN_STREAM)?;
    check::range(&request)?;
    let query = Range::from(request);
    if !query.is_default_order() {
        return Err(status::STREAM_SORT);
    }
    if query.has_filters() {
        return Err(status::STREAM_FILTER);
    }
    Ok(Work::Read { serializable: query.serializable, read: super::Read::RangeStream(query) })
}

pub(super) fn decode_txn(raw: Bytes, edge: &Edge, disk_bytes: u64) -> Result<Work, Status> {
    let request = pb::TxnRequest::decode(raw.clone()).map_err(|error| too_deep(&error))?;
    let checked = check::txn(&request, edge.txn_ops_max);
    let txn = Txn::from(request);
    if !edge.quota.fits(disk_bytes, txn.cost()) {
        return Ok(no_space(edge.member));
    }
    checked?;
    if txn.is_read_only() {
        let serializable = txn.is_serializable();
        return Ok(Work::Read { serializable, read: super::Read::Txn(txn) });
    }
    propose(field::TXN, &raw, edge)
}

/// The decoder goes 100 messages deep, an operation in 48 nested transactions; etcd goes as deep
/// as its budget for operations. The error has no kind, only its words.
fn too_deep(error: &prost::DecodeError) -> Status {
    if error.to_string().contains("recursion limit") {
        return Status::not_built("a transaction nested more than 48 deep");
    }
    status::MALFORMED
}

pub(super) fn decode_delete_range(raw: Bytes, edge: &Edge) -> Result<Work, Status> {
    let request: pb::DeleteRangeRequest = parse(raw.clone())?;
    check::delete_range(&request)?;
    propose(field::DELETE_RANGE, &raw, edge)
}

pub(super) fn decode_compact(raw: Bytes, edge: &Edge) -> Result<Work, Status> {
    let _: pb::CompactionRequest = parse(raw.clone())?;
    propose(field::COMPACTION, &raw, edge)
}

/// The request's own bytes go into the log; etcd measures them with the header they get there.
pub(super) fn propose(field: u32, raw: &[u8], edge: &Edge) -> Result<Work, Status> {
    let body = command::body(field, raw);
    if body.len() + REQUEST_HEADER_BYTES_MAX > edge.request_bytes_max {
        return Err(status::REQUEST_TOO_LARGE);
    }
    Ok(Work::Propose(body))
}

pub(super) fn no_space(member: MemberId) -> Work {
    let order = AlarmOrder { action: AlarmAction::Activate, member, kind: ALARM_NOSPACE };
    Work::NoSpace(order.encode())
}

/// Appends the answer to a range: one gRPC message, in one piece.
pub(super) fn answer_range(
    query: &Range,
    view: &View,
    header: Header,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    let found = view.range(query)?;
    out.reserve(found.encoded_len() + 64);
    message(out, |out| {
        header.at(found.revision).encode(out);
        found.encode(out);
    });
    Ok(())
}

/// A streamed range's answers, one gRPC message at a time.
#[derive(Debug, Clone)]
pub struct Stream {
    inner: store::Stream,
    header: Header,
}

impl Stream {
    /// Begins the answer to a [`super::Read::RangeStream`] from `view`, which must stay the same
    /// until the end.
    pub fn new(query: Range, view: &View, edge: &Edge) -> Self {
        let inner = store::Stream::new(query, view.revision, edge.request_bytes_max);
        Self { inner, header: Header::of(view, edge) }
    }

    /// Appends the next message; `false` if the last one was before.
    ///
    /// # Errors
    /// What the client is told instead; the stream is over.
    pub fn next(&mut self, view: &View, out: &mut Vec<u8>) -> Result<bool, Status> {
        let Some(part) = self.inner.next(view.tree.reader())? else {
            return Ok(false);
        };
        message(out, |out| nested(1, out, |out| self.encode(&part, out)));
        Ok(true)
    }

    fn encode(&self, part: &Part<'_>, out: &mut Vec<u8>) {
        let Some(last) = part.last else {
            return part.outcome.encode_kvs(out);
        };
        self.header.at(last.revision).encode(out);
        part.outcome.encode_kvs(out);
        range::encode_tail(last.more, last.count, out);
    }
}

/// Appends the answer to a put: one gRPC message.
pub fn encode_put(done: &PutDone, header: Header, out: &mut Vec<u8>) {
    message(out, |out| put(done, header, out));
}

fn put(done: &PutDone, header: Header, out: &mut Vec<u8>) {
    header.at(done.revision).encode(out);
    if let Some(prev) = &done.prev {
        bytes(2, prev, out);
    }
}

pub(super) fn deleted(done: &Deleted, header: Header, out: &mut Vec<u8>) {
    header.at(done.revision).encode(out);
    number(2, done.deleted as u64, out);
    done.prev.iter().for_each(|prev| bytes(3, prev, out));
}

fn ranged(done: &RangeDone, header: Header, out: &mut Vec<u8>) {
    header.at(done.revision).encode(out);
    out.extend_from_slice(&done.body);
}

pub(super) fn txn(done: &TxnDone, header: Header, out: &mut Vec<u8>) {
    header.at(done.revision).encode(out);
    number(2, u64::from(done.succeeded), out);
    for response in &done.responses {
        nested(3, out, |out| op(response, out));
    }
}

/// Headers inside carry the revision only; that of a nested transaction not even this.
fn op(done: &OpDone, out: &mut Vec<u8>) {
    let inner = Header::default();
    match done {
        OpDone::Range(done) => nested(1, out, |out| ranged(done, inner, out)),
        OpDone::Put(done) => nested(2, out, |out| put(done, inner, out)),
        OpDone::Deleted(done) => nested(3, out, |out| deleted(done, inner, out)),
        OpDone::Txn(done) => nested(4, out, |out| txn(done, inner, out)),
        OpDone::Nothing => {}
    }
}
