//! Records, understood.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use prost::{DecodeError, Message};
use proto::{
    etcdserverpb::{self as pb, response_op::Response as Nested},
    mvccpb::Event,
};

use crate::{
    grpc::{Status, code},
    history::{Kind, Record},
};

/// What was asked.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Range(pb::RangeRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(i64),
    Renew(i64),
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Response {
    Put(pb::PutResponse),
    Delete(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Range(pb::RangeResponse),
    Grant(pb::LeaseGrantResponse),
    Revoke(pb::LeaseRevokeResponse),
    Renew(pb::LeaseKeepAliveResponse),
}

/// How it ended for the one who asked.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Said(Response),
    /// It did not happen, and never will.
    Refused(Status),
    /// It may have happened, or may happen yet.
    Unknown,
}

/// One question.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) client: u32,
    pub(super) endpoint: u32,
    pub(super) asked: u64,
    pub(super) answered: u64,
    pub(super) request: Request,
    pub(super) outcome: Outcome,
}

/// One watch stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    pub(super) endpoint: u32,
    pub(super) start: i64,
    /// When it was told, the response's revision, the events.
    pub(super) told: Vec<(u64, i64, Vec<Event>)>,
    /// Everything up to here must have been told.
    pub(super) complete: i64,
}

/// gRPC's numbers with which a server says that it will not do it; others may come on the way.
const REFUSALS: [i32; 7] = [3, 5, 6, 8, 9, 11, code::UNIMPLEMENTED];

/// All questions, and all watch streams by number.
pub(super) fn read(records: &[Record]) -> Result<(Vec<Op>, BTreeMap<u32, Stream>), String> {
    let mut ops = Vec::new();
    let mut streams: BTreeMap<u32, Stream> = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        take(record, &mut ops, &mut streams).map_err(|error| format!("record {at}: {error}"))?;
    }
    Ok((ops, streams))
}

fn take(
    record: &Record,
    ops: &mut Vec<Op>,
    streams: &mut BTreeMap<u32, Stream>,
) -> Result<(), DecodeError> {
    let Record { client, endpoint, asked, .. } = *record;
    match record.kind() {
        Kind::Watch => {
            let start = pb::WatchCreateRequest::decode(&record.request[..])?.start_revision;
            streams.insert(client, Stream { endpoint, start, ..Default::default() });
        }
        Kind::Told => {
            let told = pb::WatchResponse::decode(&record.response[..])?;
            let revision = told.header.unwrap_or_default().revision;
            let stream = streams.entry(client).or_default();
            stream.told.push((asked, revision, told.events));
        }
        Kind::Complete => {
            let complete = pb::RangeRequest::decode(&record.request[..])?.revision;
            streams.entry(client).or_default().complete = complete;
        }
        _ => ops.push(Op {
            client,
            endpoint,
            asked,
            answered: record.answered.unwrap_or(u64::MAX),
            request: request(record)?,
            outcome: outcome(record)?,
        }),
    }
    Ok(())
}

fn request(record: &Record) -> Result<Request, DecodeError> {
    let bytes = Bytes::copy_from_slice(&record.request);
    Ok(match record.kind() {
        Kind::Put => Request::Put(Message::decode(bytes)?),
        Kind::DeleteRange => Request::Delete(Message::decode(bytes)?),
        Kind::Txn => Request::Txn(Message::decode(bytes)?),
        Kind::Grant => Request::Grant(Message::decode(bytes)?),
        Kind::Revoke => Request::Revoke(pb::LeaseRevokeRequest::decode(bytes)?.id),
        Kind::Renew => Request::Renew(pb::LeaseKeepAliveRequest::decode(bytes)?.id),
        _ => Request::Range(Message::decode(bytes)?),
    })
}

fn outcome(record: &Record) -> Result<Outcome, DecodeError> {
    if record.answered.is_none() || record.code != code::OK {
        let status = Status::new(record.code, record.text.clone());
        let refused = record.answered.is_some() && REFUSALS.contains(&record.code);
        return Ok(if refused { Outcome::Refused(status) } else { Outcome::Unknown });
    }
    let bytes = Bytes::copy_from_slice(&record.response);
    Ok(Outcome::Said(match record.kind() {
        Kind::Put => Response::Put(Message::decode(bytes)?),
        Kind::DeleteRange => Response::Delete(Message::decode(bytes)?),
        Kind::Txn => Response::Txn(Message::decode(bytes)?),
        Kind::Grant => Response::Grant(Message::decode(bytes)?),
        Kind::Revoke => Response::Revoke(Message::decode(bytes)?),
        Kind::Renew => Response::Renew(Message::decode(bytes)?),
        _ => Response::Range(Message::decode(bytes)?),
    }))
}

impl Response {
    pub(super) fn revision(&self) -> i64 {
        let header = match self {
            Self::Put(r) => r.header,
            Self::Delete(r) => r.header,
            Self::Txn(r) => r.header,
            Self::Range(r) => r.header,
            Self::Grant(r) => r.header,
            Self::Revoke(r) => r.header,
            Self::Renew(r) => r.header,
        };
        header.unwrap_or_default().revision
    }

    /// Whether it made a revision; of a revoked lease that is not said.
    pub(super) fn wrote(&self) -> bool {
        match self {
            Self::Put(_) => true,
            Self::Delete(r) => r.deleted > 0,
            Self::Txn(r) => txn_wrote(r),
            _ => false,
        }
    }

    /// With headers that hold the revision alone, as the model's do, and inside a transaction none.
    pub(super) fn plain(mut self) -> Self {
        let revision = self.revision();
        let plain = Some(pb::ResponseHeader { revision, ..Default::default() });
        match &mut self {
            Self::Put(r) => r.header = plain,
            Self::Delete(r) => r.header = plain,
            Self::Txn(r) => {
                headless(r);
                r.header = plain;
            }
            Self::Range(r) => r.header = plain,
            Self::Grant(r) => r.header = plain,
            Self::Revoke(r) => r.header = plain,
            Self::Renew(r) => r.header = plain,
        }
        self
    }
}

fn txn_wrote(txn: &pb::TxnResponse) -> bool {
    txn.responses.iter().any(|op| match &op.response {
        Some(Nested::ResponsePut(_)) => true,
        Some(Nested::ResponseDeleteRange(r)) => r.deleted > 0,
        Some(Nested::ResponseTxn(r)) => txn_wrote(r),
        _ => false,
    })
}

fn headless(txn: &mut pb::TxnResponse) {
    txn.header = None;
    for op in &mut txn.responses {
        match &mut op.response {
            Some(Nested::ResponsePut(r)) => r.header = None,
            Some(Nested::ResponseDeleteRange(r)) => r.header = None,
            Some(Nested::ResponseRange(r)) => r.header = None,
            Some(Nested::ResponseTxn(r)) => headless(r),
            None => {}
        }
    }
}

impl Op {
    pub(super) fn said(&self) -> Option<&Response> {
        match &self.outcome {
            Outcome::Said(response) => Some(response),
            _ => None,
        }
    }

    /// Whether it may be older than what was answered before.
    pub(super) fn serializable(&self) -> bool {
        match &self.request {
            Request::Range(r) => r.serializable,
            // Answered by the leader's clock, with whatever revision that member has.
            Request::Renew(_) => true,
            _ => false,
        }
    }

    /// Values that it writes, in whichever way it goes.
    pub(super) fn values(&self) -> Vec<Bytes> {
        match &self.request {
            Request::Put(r) => vec![r.value.clone()],
            Request::Txn(r) => txn_values(r),
            _ => vec![],
        }
    }

    pub(super) fn outcome_name(&self) -> String {
        let name = match &self.request {
            Request::Put(_) => "put",
            Request::Delete(_) => "delete",
            Request::Txn(_) => "txn",
            Request::Range(r) if r.serializable => "serializable range",
            Request::Range(_) => "range",
            Request::Grant(_) => "grant",
            Request::Revoke(_) => "revoke",
            Request::Renew(_) => "renew",
        };
        match &self.outcome {
            Outcome::Said(_) => name.to_owned(),
            Outcome::Refused(_) => format!("{name} refused"),
            Outcome::Unknown => format!("{name} unknown"),
        }
    }
}

fn txn_values(txn: &pb::TxnRequest) -> Vec<Bytes> {
    let ops = txn.success.iter().chain(&txn.failure);
    ops.flat_map(|op| match &op.request {
        Some(pb::request_op::Request::RequestPut(r)) => vec![r.value.clone()],
        Some(pb::request_op::Request::RequestTxn(r)) => txn_values(r),
        _ => vec![],
    })
    .collect()
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        write!(f, "client {} at endpoint {}, ", self.client, self.endpoint)?;
        match self.answered {
            u64::MAX => write!(f, "{:.6} s on", seconds(self.asked))?,
            answered => write!(f, "{:.6}..{:.6} s", seconds(self.asked), seconds(answered))?,
        }
        write!(f, ": {:?} ──▶ ", self.request)?;
        match &self.outcome {
            Outcome::Said(response) => write!(f, "{response:?}"),
            Outcome::Refused(status) => write!(f, "refused, {status}"),
            Outcome::Unknown => write!(f, "nobody knows"),
        }
    }
}
