//! Operations of one call or more, from a [`Chooser`]: compare-and-swap with its retries, lists with
//! their pages, and whatever a mix or a file asks for.
//!
//! What a key was last known to be lies here, by its modification revision, as a controller's cache
//! has it: a swap compares with that, and what it learns from a refusal it compares with next.

use std::{collections::BTreeMap, mem, time::Instant};

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, RangeRequest, RangeResponse,
    RequestOp, TxnRequest, TxnResponse, compare, compare::TargetUnion, kv, request_op::Request,
    response_op::Response,
};

use crate::{
    grpc::{self, Status},
    keys::{Keys, Order},
    replay::Noted,
    script::{Answer, Ask, Next, Script},
    sizes::Sizes,
    work::{empty_answer, key, nonsense, value},
};

const PUT: usize = 0;
const RANGE: usize = 1;
const DELETE: usize = 2;
const TXN: usize = 3;
const PATHS: [&str; 4] = [kv::PUT, kv::RANGE, kv::DELETE_RANGE, kv::TXN];
/// A swap that is refused more often has lost: a server that never lets it through is not asked
/// forever.
const TRIES_MAX: u32 = 100;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A value of so many bytes.
    Put(Bytes, usize),
    /// The key, which may not be there.
    Get {
        /// Which.
        key: Bytes,
        /// From the member's own state.
        serializable: bool,
    },
    /// All keys that begin so, all at one revision.
    List {
        /// With what they begin.
        prefix: Bytes,
        /// Keys in one page; 0: all in one.
        limit: usize,
    },
    /// How many keys begin so.
    Count(Bytes),
    /// The key, whatever it holds.
    Delete(Bytes),
    /// A value of so many bytes, if the key is still as it was known; again until it is.
    Swap(Bytes, usize),
    /// A value of so many bytes, if there is no such key; again until there is none or one is.
    Create(Bytes, usize),
    /// No key, if it is still as it was known; again until it is.
    SwapDelete(Bytes),
}

impl Op {
    /// The operation as a line of a file.
    pub fn noted(&self) -> Noted<'_> {
        let noted = |kind, key, number| Noted { kind, key, number };
        match self {
            Self::Put(key, bytes) => noted("put", key, Some(*bytes)),
            Self::Get { key, serializable: false } => noted("get", key, None),
            Self::Get { key, serializable: true } => noted("serializable", key, None),
            Self::List { prefix, limit } => noted("list", prefix, Some(*limit)),
            Self::Count(prefix) => noted("count", prefix, None),
            Self::Delete(key) => noted("delete", key, None),
            Self::Swap(key, bytes) => noted("cas", key, Some(*bytes)),
            Self::Create(key, bytes) => noted("create", key, Some(*bytes)),
            Self::SwapDelete(key) => noted("cas-delete", key, None),
        }
    }

    /// Of its value; 0: it has none.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::Put(_, bytes) | Self::Swap(_, bytes) | Self::Create(_, bytes) => *bytes,
            _ => 0,
        }
    }
}

/// Says which operation comes next.
pub trait Chooser {
    /// The kinds it has, which are reported apart.
    fn kinds(&self) -> Vec<&'static str>;

    /// The next operation, and its kind.
    fn choose(&mut self) -> (usize, Op);

    /// The operation is over, well or not.
    fn done(&mut self, _kind: usize, _op: &Op, _well: bool) {}
}

/// An operation that is not over.
#[derive(Debug)]
struct Open {
    op: Op,
    kind: usize,
    /// Of a swap.
    tries: u32,
    /// Of a list: where its next page begins, and at which revision; 0: it has not begun.
    page: (Bytes, i64),
}

/// Does what a chooser says.
pub struct Ops<C> {
    chooser: C,
    open: BTreeMap<usize, Open>,
    /// The modification revision of each key that was swapped; 0: there is no such key.
    known: BTreeMap<Bytes, i64>,
    value: Bytes,
    /// Values begin with how long after this they were sent.
    clock: Option<Instant>,
    body: Vec<u8>,
    last: Option<Op>,
    counted: Counted,
}

/// What became of the calls.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Swaps refused because somebody else was faster.
    retries: u64,
    /// Swaps refused because the key was not known yet.
    learned: u64,
    /// Keys that were to be created and were there.
    present: u64,
    /// Pages of lists, and the keys on them.
    pages: u64,
    listed: u64,
    /// Keys that were there to be counted.
    counted: u64,
    absent: u64,
}

impl<C: Chooser> Ops<C> {
    /// No value is longer than this.
    pub fn new(chooser: C, value_bytes_max: usize) -> Self {
        Self {
            chooser,
            open: BTreeMap::new(),
            known: BTreeMap::new(),
            value: value(value_bytes_max).into(),
            clock: None,
            body: Vec::new(),
            last: None,
            counted: Counted::default(),
        }
    }

    /// Who says what is done.
    pub fn chooser(&mut self) -> &mut C {
        &mut self.chooser
    }

    /// From here on values of 8 bytes and more begin with when they are sent, in nanoseconds by this
    /// clock.
    pub fn stamp_values(&mut self, clock: Instant) {
        self.clock = Some(clock);
    }

    /// The value of the next call.
    fn stamp(&mut self) {
        let Some(clock) = self.clock else { return };
        let mut value =
            mem::take(&mut self.value).try_into_mut().unwrap_or_else(|value| value[..].into());
        if let Some(stamp) = value.first_chunk_mut() {
            *stamp = (clock.elapsed().as_nanos() as u64).to_be_bytes();
        }
        self.value = value.freeze();
    }

    /// Counts from here.
    pub fn forget_counts(&mut self) {
        self.counted = Counted::default();
    }

    fn encode(&mut self, seat: usize) -> Ask<'_> {
        self.stamp();
        let Open { op, page, .. } = self.open.get(&seat).expect("the seat's operation is open");
        let known = |key| self.known.get(key).copied().unwrap_or(0);
        let value = self.value.slice(..op.value_bytes());
        let (path, body) = match op {
            Op::Put(key, _) => {
                let key = key.clone();
                (PUT, grpc::body(&PutRequest { key, value, ..Default::default() }))
            }
            Op::Get { key, serializable } => {
                (RANGE, grpc::body(&RangeRequest { serializable: *serializable, ..get(key) }))
            }
            Op::List { prefix, limit } => (RANGE, grpc::body(&list(prefix, *limit, page))),
            Op::Count(prefix) => {
                let all = list(prefix, 0, page);
                (RANGE, grpc::body(&RangeRequest { count_only: true, ..all }))
            }
            Op::Delete(key) => {
                let key = key.clone();
                (DELETE, grpc::body(&DeleteRangeRequest { key, ..Default::default() }))
            }
            Op::Swap(key, _) | Op::Create(key, _) => {
                let as_known = if matches!(op, Op::Create(..)) { 0 } else { known(key) };
                let put = PutRequest { key: key.clone(), value, ..Default::default() };
                (TXN, grpc::body(&swap(key, as_known, Request::RequestPut(put))))
            }
            Op::SwapDelete(key) => {
                let delete = DeleteRangeRequest { key: key.clone(), ..Default::default() };
                (TXN, grpc::body(&swap(key, known(key), Request::RequestDeleteRange(delete))))
            }
        };
        self.body = body;
        Ask { path, body: &self.body }
    }

    /// Whether the operation is over.
    fn take(&mut self, seat: usize, message: &[u8]) -> Result<bool, Status> {
        let open = self.open.get_mut(&seat).expect("the seat's operation is open");
        match &open.op {
            Op::Put(..) => Ok(true),
            Op::Get { .. } => {
                let response = decode::<RangeResponse>(message)?;
                self.counted.absent += u64::from(response.kvs.is_empty());
                Ok(true)
            }
            Op::Delete(key) => {
                let response = decode::<DeleteRangeResponse>(message)?;
                self.counted.absent += u64::from(response.deleted == 0);
                self.known.remove(key);
                Ok(true)
            }
            Op::Count(_) => {
                self.counted.counted += decode::<RangeResponse>(message)?.count as u64;
                Ok(true)
            }
            Op::List { .. } => {
                let response = decode::<RangeResponse>(message)?;
                self.counted.pages += 1;
                self.counted.listed += response.kvs.len() as u64;
                let Some(last) = response.kvs.last().filter(|_| response.more) else {
                    return Ok(true);
                };
                let revision = match open.page.1 {
                    0 => response.header.as_ref().map_or(0, |header| header.revision),
                    revision => revision,
                };
                open.page = (after(&last.key), revision);
                Ok(false)
            }
            Op::Swap(..) | Op::Create(..) | Op::SwapDelete(_) => {
                let (known, counted) = (&mut self.known, &mut self.counted);
                swapped(open, known, counted, decode(message)?)
            }
        }
    }

    fn close(&mut self, seat: usize, well: bool) {
        let Open { op, kind, .. } = self.open.remove(&seat).expect("the seat's operation is open");
        self.chooser.done(kind, &op, well);
    }
}

/// Whether a swap is over; if not, what there is now is known.
fn swapped(
    open: &mut Open,
    known: &mut BTreeMap<Bytes, i64>,
    counted: &mut Counted,
    response: TxnResponse,
) -> Result<bool, Status> {
    let (Op::Swap(key, _) | Op::Create(key, _) | Op::SwapDelete(key)) = &open.op else {
        unreachable!("no other operation is a swap");
    };
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    if response.succeeded {
        match &open.op {
            Op::SwapDelete(_) => known.remove(key),
            _ => known.insert(key.clone(), revision),
        };
        return Ok(true);
    }
    let found = match response.responses.into_iter().next().and_then(|op| op.response) {
        Some(Response::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| kv.mod_revision),
        _ => return Err(empty_answer()),
    };
    let count = match known.insert(key.clone(), found) {
        _ if matches!(open.op, Op::Create(..)) => &mut counted.present,
        None => &mut counted.learned,
        Some(_) => &mut counted.retries,
    };
    *count += 1;
    open.tries += 1;
    match &open.op {
        // There is one, and whose it is says nothing of the server.
        Op::Create(..) if found != 0 => Ok(true),
        Op::SwapDelete(_) if found == 0 => Ok(true),
        _ if open.tries == TRIES_MAX => {
            Err(Status::new(grpc::code::OK, format!("a swap lost {TRIES_MAX} times")))
        }
        _ => Ok(false),
    }
}

impl<C: Chooser> Script for Ops<C> {
    fn paths(&self) -> Vec<&'static str> {
        PATHS.to_vec()
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.chooser.kinds()
    }

    fn reads_answers(&self) -> bool {
        true
    }

    fn begin(&mut self, seat: usize) -> (usize, Ask<'_>) {
        let (kind, op) = self.chooser.choose();
        self.last = Some(op.clone());
        let open = Open { op, kind, tries: 0, page: (Bytes::new(), 0) };
        let before = self.open.insert(seat, open);
        assert!(before.is_none(), "a seat has one operation at a time");
        (kind, self.encode(seat))
    }

    fn answered(&mut self, seat: usize, answer: Answer<'_>) -> Next<'_> {
        let message = answer.body.get(grpc::PREFIX_BYTES..);
        match message.ok_or_else(empty_answer).and_then(|message| self.take(seat, message)) {
            Ok(false) => Next::Call(self.encode(seat)),
            Ok(true) => {
                self.close(seat, true);
                Next::Over
            }
            Err(status) => {
                self.close(seat, false);
                Next::Failed(status)
            }
        }
    }

    fn failed(&mut self, seat: usize) {
        self.close(seat, false);
    }

    fn noted(&self) -> Option<Noted<'_>> {
        self.last.as_ref().map(Op::noted)
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let Counted { retries, learned, present, pages, listed, counted, absent } = self.counted;
        let all = [
            ("retries", retries),
            ("learned", learned),
            ("present", present),
            ("pages", pages),
            ("listed", listed),
            ("counted", counted),
            ("absent", absent),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

fn get(key: &Bytes) -> RangeRequest {
    RangeRequest { key: key.clone(), ..Default::default() }
}

fn list(prefix: &Bytes, limit: usize, (from, revision): &(Bytes, i64)) -> RangeRequest {
    let key = if from.is_empty() { prefix } else { from };
    RangeRequest { range_end: end(prefix), limit: limit as i64, revision: *revision, ..get(key) }
}

/// Where the keys with this prefix end, as etcd's clients have it.
pub(crate) fn end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < u8::MAX) {
        None => Bytes::from_static(b"\0"),
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
    }
}

/// The first key behind this one.
fn after(key: &[u8]) -> Bytes {
    [key, b"\0"].concat().into()
}

/// This, if the key was last changed then; the key as it is, if not.
fn swap(key: &Bytes, mod_revision: i64, then: Request) -> TxnRequest {
    let compare = Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(mod_revision)),
        ..Default::default()
    };
    let op = |request| vec![RequestOp { request: Some(request) }];
    TxnRequest {
        compare: vec![compare],
        success: op(then),
        failure: op(Request::RequestRange(get(key))),
    }
}

fn decode<M: Message + Default>(message: &[u8]) -> Result<M, Status> {
    M::decode(message).map_err(|error| nonsense(&error))
}

/// One kind of operation on numbered keys.
#[derive(Debug)]
pub struct Numbered {
    kind: Kind,
    keys: Keys,
    sizes: Sizes,
    turn: u64,
}

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Op::Swap`].
    Swap,
    /// [`Op::List`] of the keys that differ from the one drawn in so many of their last digits.
    List {
        /// From 0, that key alone, to 12, all keys.
        digits: usize,
        /// Keys in a page; 0: all in one.
        limit: usize,
    },
    /// [`Op::Count`] of the keys that differ from the one drawn in so many of their last digits.
    Count {
        /// From 0 to 12.
        digits: usize,
    },
}

impl Numbered {
    /// On so many keys, with values of such sizes.
    pub fn new(kind: Kind, order: Order, keys: u64, sizes: Sizes) -> Ops<Self> {
        let bytes_max = sizes.max();
        Ops::new(Self { kind, keys: Keys::new(order, keys), sizes, turn: 0 }, bytes_max)
    }
}

impl Chooser for Numbered {
    fn kinds(&self) -> Vec<&'static str> {
        vec![match self.kind {
            Kind::Swap => "cas",
            Kind::List { .. } => "list",
            Kind::Count { .. } => "count",
        }]
    }

    fn choose(&mut self) -> (usize, Op) {
        let mut key = key(self.keys.draw());
        let bytes = self.sizes.draw(self.turn);
        self.turn += 1;
        let op = match self.kind {
            Kind::Swap => Op::Swap(key.into(), bytes),
            Kind::List { digits, limit } => {
                key.truncate(key.len() - digits);
                Op::List { prefix: key.into(), limit }
            }
            Kind::Count { digits } => {
                key.truncate(key.len() - digits);
                Op::Count(key.into())
            }
        };
        (0, op)
    }
}

#[cfg(test)]
mod tests;
