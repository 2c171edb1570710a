//! Calls from a seed: mostly what a client would ask, with every option, and now and then what no
//! client should.

use std::collections::VecDeque;

use bytes::Bytes;
use e2e::Dice;
use prost::Message;
use proto::{
    etcdserverpb::{
        AlarmRequest, CompactionRequest, Compare, DefragmentRequest, DeleteRangeRequest,
        HashKvRequest, LeaseRevokeRequest, MemberListRequest, PutRequest, RangeRequest, RequestOp,
        StatusRequest, TxnRequest,
        compare::{CompareTarget, TargetUnion},
        kv, lease,
        request_op::Request,
    },
    health::HealthCheckRequest,
};

use crate::call::{COMPACTED, COMPACTION, CURRENT, Call};

mod coordination;

/// Every so many calls all keys are compared; a call makes at most one revision.
const SCAN_EVERY_CALLS: usize = 1_000;
/// And every so many, what the watchers heard.
const SETTLE_EVERY_CALLS: usize = 50;
/// etcd's default for the largest request, and what gRPC takes beyond it.
const REQUEST_BYTES_MAX: usize = 1_572_864;
const RECEIVE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 524_288;
/// Operations in one transaction: etcd's default.
const TXN_OPS_MAX: usize = 128;
/// Transactions inside a transaction.
const DEPTH_MAX: usize = 3;
/// Go sorts so many by insertion, and the first part of a stream is smaller.
const STABLE_KEYS_MAX: i64 = 11;
/// Where large values are cut from, so that they take no memory of their own.
static ZEROES: [u8; RECEIVE_BYTES_MAX] = [b'0'; RECEIVE_BYTES_MAX];

/// What is asked only where the server is known to answer it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// `HashKV`, and `Defragment`, of which it must see nothing.
    pub hash_kv: bool,
    /// Messages in which a field has another wire type than it should. Go's protobuf skips such a
    /// field as unknown; prost refuses the message.
    pub mistyped: bool,
    /// Watch streams.
    pub watches: bool,
    /// Leases, and keys with them.
    pub leases: bool,
    /// Locks and elections, on the same leases.
    pub locks: bool,
}

/// An endless list of calls; the same for the same seed.
#[derive(Debug)]
pub struct Calls {
    dice: Dice,
    count: usize,
    extras: Extras,
    /// What must come next.
    next: VecDeque<Call>,
}

impl Calls {
    /// All that happens follows from the seed.
    pub fn new(seed: u64, extras: Extras) -> Self {
        Self { dice: Dice::new(seed), count: 0, extras, next: VecDeque::new() }
    }
}

impl Iterator for Calls {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        if let Some(call) = self.next.pop_front() {
            return Some(call);
        }
        self.count += 1;
        if self.extras.watches && self.count.is_multiple_of(SETTLE_EVERY_CALLS) {
            self.next.push_back(Call::Settle);
        }
        if self.count.is_multiple_of(SCAN_EVERY_CALLS) {
            let scan = |revision| RangeRequest { revision, ..everything() };
            self.next.push_back(Call::Range(scan(COMPACTED)));
            self.next.push_back(Call::RangeStream(everything()));
            if self.extras.hash_kv {
                self.next.push_back(Call::HashKv(HashKvRequest { revision: 0 }));
            }
            return Some(Call::Range(everything()));
        }
        Some(self.draw())
    }
}

fn everything() -> RangeRequest {
    let zero = Bytes::from_static(b"\0");
    RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() }
}

impl Calls {
    fn draw(&mut self) -> Call {
        if let Some(call) = self.coordination() {
            return call;
        }
        match self.dice.below(1_000) {
            0..330 => Call::Put(self.put()),
            330..590 => Call::Range(self.range()),
            590..640 => Call::RangeStream(self.range_stream()),
            640..720 => Call::DeleteRange(self.delete_range()),
            720..940 => Call::Txn(self.harmless_txn()),
            940..955 => {
                let compact = self.compact();
                if self.extras.hash_kv && !compact.physical {
                    // etcd knows a compaction's sum a moment later. One that is physical waits for
                    // those before it, although it is refused itself.
                    let wait = CompactionRequest { revision: 1, physical: true };
                    self.next.push_back(Call::Compact(wait));
                }
                Call::Compact(compact)
            }
            955..961 if self.extras.hash_kv => {
                if self.dice.percent(10) {
                    return Call::Defragment(DefragmentRequest {});
                }
                Call::HashKv(HashKvRequest { revision: self.hash_revision() })
            }
            955..963 => Call::MemberList(MemberListRequest { linearizable: self.dice.percent(50) }),
            963..966 => Call::Status(StatusRequest {}),
            966..969 => self.alarm(),
            969..971 => self.health(),
            971..973 => self.large(),
            973..978 => self.elsewhere(),
            978..980 => Call::Txn(self.long_txn()),
            _ => loop {
                let call = self.mangled();
                if self.extras.mistyped || !is_mistyped(&call) {
                    return call;
                }
            },
        }
    }

    // ── parts ───────────────────────────────────────────────────────────────────────────────────

    fn key(&mut self) -> Bytes {
        match self.dice.below(100) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            2 => Bytes::from_static(b"\0\0"),
            3 => Bytes::from_static(b"\xff"),
            4 => Bytes::from_static(b"\xff\xff"),
            5 => Bytes::from_static(b"k0"),
            6 => Bytes::from_static(b"k07\0"),
            7 => Bytes::from_static(&ZEROES[..1_000]),
            8 => Bytes::from_static("schlüssel/鍵".as_bytes()),
            9..40 => format!("dir/{}/k{}", self.dice.below(3), self.dice.below(6)).into(),
            _ => format!("k{:02}", self.dice.below(30)).into(),
        }
    }

    /// Mostly some keys, sometimes all, sometimes none.
    fn range_end(&mut self, key: &Bytes) -> Bytes {
        match self.dice.below(12) {
            0 => Bytes::from_static(b"\0"),
            1 => key.clone(),
            2 => [key, &b"\0"[..]].concat().into(),
            3 => Bytes::from_static(b"\xff\xff\xff"),
            4 => Bytes::from_static(b"a"),
            5 | 6 => after_prefix(key),
            7 => after_prefix(&key[..key.len().min(4)]),
            8 => after_prefix(&key[..key.len().min(1)]),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        match self.dice.below(100) {
            0..10 => Bytes::new(),
            10..30 => format!("v{}", self.dice.below(5)).into(),
            30..95 => {
                let bytes = self.dice.below(100);
                (0..bytes).map(|_| self.dice.number() as u8).collect()
            }
            95..99 => Bytes::from_static(&ZEROES[..self.dice.below(3_000)]),
            _ => Bytes::from_static(&ZEROES[..self.dice.below(40_000)]),
        }
    }

    fn revision(&mut self) -> i64 {
        let near = |dice: &mut Dice, most: usize| dice.below(most) as i64;
        match self.dice.below(20) {
            0..8 => CURRENT - near(&mut self.dice, 40),
            8 => CURRENT + 1,
            9 => CURRENT + near(&mut self.dice, 1_000),
            10..12 => COMPACTED,
            12..15 => COMPACTED + near(&mut self.dice, 10),
            15 => COMPACTED - 1,
            16 => COMPACTED - near(&mut self.dice, 100),
            17 => *self.dice.pick(&[1, 2, 3]),
            18 => *self.dice.pick(&[-1, -2, i64::MIN]),
            _ => *self.dice.pick(&[0, i64::MAX, i64::MAX - 1]),
        }
    }

    /// The newest revision, one above the compacted one, one of the last compactions' or none at all.
    fn hash_revision(&mut self) -> i64 {
        match self.dice.below(20) {
            0..4 => 0,
            4..10 => COMPACTED + 1 + self.dice.below(20) as i64,
            // Ten are remembered.
            10..18 => COMPACTION - self.dice.below(12) as i64,
            18 => CURRENT + 1,
            _ => *self.dice.pick(&[-1, i64::MIN, i64::MAX]),
        }
    }

    fn limit(&mut self) -> i64 {
        *self.dice.pick(&[1, 1, 2, 3, 5, 7, 10, 10, 12, 30, 1_000, 1 << 40, -1, i64::MAX, i64::MIN])
    }

    /// So many times in a hundred something, otherwise nothing.
    fn maybe<T: Default>(&mut self, percent: usize, draw: impl FnOnce(&mut Self) -> T) -> T {
        if self.dice.percent(percent) { draw(self) } else { T::default() }
    }

    // ── requests ────────────────────────────────────────────────────────────────────────────────

    fn range(&mut self) -> RangeRequest {
        let key = self.key();
        RangeRequest {
            range_end: self.maybe(75, |calls| calls.range_end(&key)),
            key,
            limit: self.maybe(35, Self::limit),
            revision: self.maybe(35, Self::revision),
            sort_order: self.maybe(25, |calls| *calls.dice.pick(&[1, 1, 1, 2, 2, 2, 3, -1, 99])),
            sort_target: self.maybe(25, |calls| *calls.dice.pick(&[1, 2, 3, 4, 1, 2, 3, 4, 5, -1])),
            serializable: self.dice.percent(40),
            keys_only: self.dice.percent(15),
            count_only: self.dice.percent(15),
            min_mod_revision: self.maybe(8, Self::revision),
            max_mod_revision: self.maybe(8, Self::revision),
            min_create_revision: self.maybe(8, Self::revision),
            max_create_revision: self.maybe(8, Self::revision),
        }
    }

    /// etcd goes on after the last key of a part, also where the part was sorted by something else,
    /// which a target without an order does. Keys that tie in it are in no certain order, and then
    /// neither is what the next part holds. So such targets come only where one part is all, and
    /// that part so small that Go sorts it by insertion, which is stable.
    fn range_stream(&mut self) -> RangeRequest {
        let mut request = self.range();
        if request.sort_order == 0 && !(1..=STABLE_KEYS_MAX - 1).contains(&request.limit) {
            request.sort_target = 0;
        }
        request
    }

    fn put(&mut self) -> PutRequest {
        let ignore_value = self.dice.percent(6);
        PutRequest {
            key: self.key(),
            value: self.maybe(if ignore_value { 20 } else { 100 }, Self::value),
            lease: self.attached(),
            prev_kv: self.dice.percent(30),
            ignore_value,
            ignore_lease: self.dice.percent(6),
        }
    }

    fn delete_range(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        // Rarely a wide one, lest nothing is ever there.
        let range_end = match self.dice.below(10) {
            0 => self.range_end(&key),
            1 | 2 => after_prefix(&key),
            _ => Bytes::new(),
        };
        DeleteRangeRequest { key, range_end, prev_kv: self.dice.percent(40) }
    }

    fn compact(&mut self) -> CompactionRequest {
        let revision = match self.dice.below(10) {
            0..5 => CURRENT - 10 - self.dice.below(60) as i64,
            5 => CURRENT,
            _ => self.revision(),
        };
        CompactionRequest { revision, physical: self.dice.percent(40) }
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        let compares = *self.dice.pick(&[0, 1, 1, 1, 2, 3]);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.operations(depth),
            failure: self.operations(depth),
        }
    }

    /// etcd checks that a key to keep the value or lease of is there before it executes anything, and
    /// dies, also at each start after, where a deletion in the same transaction took it away. So
    /// where anything is deleted, nothing is kept.
    fn harmless_txn(&mut self) -> TxnRequest {
        let mut txn = self.txn(DEPTH_MAX);
        if deletes(&txn) {
            keep_nothing(&mut txn);
        }
        txn
    }

    fn operations(&mut self, depth: usize) -> Vec<RequestOp> {
        let count = *self.dice.pick(&[0, 1, 1, 1, 2, 2, 3, 4]);
        (0..count).map(|_| self.operation(depth)).collect()
    }

    fn operation(&mut self, depth: usize) -> RequestOp {
        let request = match self.dice.below(100) {
            0 => None,
            1..45 => Some(Request::RequestPut(self.put())),
            45..70 => Some(Request::RequestRange(self.range())),
            70..85 => Some(Request::RequestDeleteRange(self.delete_range())),
            _ if depth == 0 => Some(Request::RequestPut(self.put())),
            _ => Some(Request::RequestTxn(self.txn(depth - 1))),
        };
        RequestOp { request }
    }

    fn compare(&mut self) -> Compare {
        let target = match self.dice.below(50) {
            0 => *self.dice.pick(&[5, -1, i32::MAX]),
            other => (other % 5) as i32,
        };
        // Now and then the field of another target, or none.
        let union = match self.dice.below(20) {
            0 => None,
            1 => Some(self.dice.below(5) as i32),
            _ => Some(target),
        };
        let key = self.key();
        Compare {
            result: self.maybe(70, |calls| *calls.dice.pick(&[1, 1, 2, 2, 3, 3, 4, -1])),
            target,
            range_end: self.maybe(20, |calls| calls.range_end(&key)),
            key,
            target_union: union.and_then(|target| self.target_union(target)),
        }
    }

    fn target_union(&mut self, target: i32) -> Option<TargetUnion> {
        let small = self.dice.below(4) as i64;
        Some(match CompareTarget::try_from(target).ok()? {
            CompareTarget::Version => TargetUnion::Version(small),
            CompareTarget::Create => TargetUnion::CreateRevision(self.compared_revision()),
            CompareTarget::Mod => TargetUnion::ModRevision(self.compared_revision()),
            CompareTarget::Value => TargetUnion::Value(self.value()),
            CompareTarget::Lease => TargetUnion::Lease(*self.dice.pick(&[0, 0, 1, 2, -3])),
        })
    }

    fn compared_revision(&mut self) -> i64 {
        if self.dice.percent(30) { 0 } else { self.revision() }
    }

    // ── what no client should ask ───────────────────────────────────────────────────────────────

    /// As many operations as there may be, or one more.
    fn long_txn(&mut self) -> TxnRequest {
        let count = TXN_OPS_MAX + self.dice.below(2);
        let put = |at| PutRequest {
            key: format!("many/{at}").into(),
            value: Bytes::from_static(b"m"),
            ..Default::default()
        };
        let puts = (0..count).map(|at| Request::RequestPut(put(at)));
        let ops: Vec<_> = puts.map(|put| RequestOp { request: Some(put) }).collect();
        let all = DeleteRangeRequest {
            key: Bytes::from_static(b"many/"),
            range_end: Bytes::from_static(b"many0"),
            prev_kv: false,
        };
        self.next.push_back(Call::DeleteRange(all));
        match self.dice.below(3) {
            0 => TxnRequest { success: ops, ..Default::default() },
            1 => TxnRequest { failure: ops, ..Default::default() },
            // One inside another: what the outer has used up is not there for the inner.
            _ => {
                let inner = TxnRequest { success: ops, ..Default::default() };
                let op = RequestOp { request: Some(Request::RequestTxn(inner)) };
                TxnRequest { success: vec![op], ..Default::default() }
            }
        }
    }

    /// About as large as may be, or larger; what was stored is deleted at once. Sizes within a few
    /// bytes of the limit are left out: etcd counts a request's id, which is its own affair.
    fn large(&mut self) -> Call {
        let bytes = *self.dice.pick(&[
            REQUEST_BYTES_MAX - 200,
            REQUEST_BYTES_MAX,
            REQUEST_BYTES_MAX + 100_000,
            RECEIVE_BYTES_MAX - 100,
            RECEIVE_BYTES_MAX,
        ]);
        let key = Bytes::from_static(b"large");
        let delete = DeleteRangeRequest { key: key.clone(), ..Default::default() };
        self.next.push_back(Call::DeleteRange(delete));
        let value = Bytes::from_static(&ZEROES[..bytes]);
        let put = PutRequest { key, value, ..Default::default() };
        if self.dice.percent(50) {
            return Call::Put(put);
        }
        let op = RequestOp { request: Some(Request::RequestPut(put)) };
        Call::Txn(TxnRequest { success: vec![op], ..Default::default() })
    }

    fn alarm(&mut self) -> Call {
        let alarm = self.dice.below(3) as i32;
        Call::Alarm(AlarmRequest { action: 0, member_id: 0, alarm })
    }

    fn health(&mut self) -> Call {
        let service = *self.dice.pick(&["", "", "etcdserverpb.KV", "nothing"]);
        Call::Health(HealthCheckRequest { service: service.into() })
    }

    /// A method that is not there.
    fn elsewhere(&mut self) -> Call {
        let path = *self.dice.pick(&[
            "/etcdserverpb.KV/Nothing",
            "/etcdserverpb.KV/put",
            "/etcdserverpb.KV/",
            "/etcdserverpb.Nothing/Put",
            "/Put",
            "/",
            "//",
            "/a/b/c",
            "/etcdserverpb.KV/Put/",
        ]);
        Call::Raw { path: path.into(), message: Bytes::new() }
    }

    /// A message with some bytes cut off, changed or added.
    fn mangled(&mut self) -> Call {
        let range = RangeRequest { sort_order: 0, sort_target: 0, ..self.range() };
        // Compacting by accident to any number would soon leave nothing to compact.
        let choices: [(&'static str, Vec<u8>); 5] = [
            (kv::RANGE, range.encode_to_vec()),
            (kv::PUT, self.put().encode_to_vec()),
            (kv::DELETE_RANGE, self.delete_range().encode_to_vec()),
            (kv::COMPACT, CompactionRequest { revision: 1, physical: false }.encode_to_vec()),
            (lease::LEASE_REVOKE, LeaseRevokeRequest { id: 77 }.encode_to_vec()),
        ];
        let answered = if self.extras.leases { 5 } else { 4 };
        let (path, mut message) = self.dice.pick(&choices[..answered]).clone();
        match self.dice.below(5) {
            0 => message.truncate(self.dice.below(message.len() + 1)),
            1 => message.extend_from_slice(self.stray_field()),
            2 => message.splice(0..0, self.stray_field().iter().copied()).for_each(drop),
            3 if !message.is_empty() => {
                let at = self.dice.below(message.len().min(6));
                message[at] = self.dice.number() as u8;
            }
            _ => message = (0..self.dice.below(12)).map(|_| self.dice.number() as u8).collect(),
        }
        Call::Raw { path: path.into(), message: message.into() }
    }

    fn stray_field(&mut self) -> &'static [u8] {
        self.dice.pick::<&[u8]>(&[
            b"\x00\x01",                                     // field 0
            b"\x0e",                                         // wire type 6
            b"\x0f",                                         // wire type 7
            b"\x0a",                                         // a length missing
            b"\x0a\x7f",                                     // a length too long
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", // a length beyond all
            b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", // a number of more than 64 bits
            b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\xf8\x7f\x01",             // a field nobody knows
            b"\xfa\x7f\x02ab",           // another
            b"\xfb\x7f\xfc\x7f",         // an empty group nobody knows
            b"\xfb\x7f",                 // a group that does not end
            b"\xfc\x7f",                 // a group that does not begin
            b"\x08\x05",                 // field 1, which is bytes in most, as a number
            b"\x1a\x01x",                // field 3, a number in most, as bytes
            b"\x0d\x01\x02\x03\x04",     // field 1 as four bytes
            b"\x30\x02",                 // a bool of 2
            b"\xf8\xff\xff\xff\x0f\x01", // the last field there is
            b"\xf8\xff\xff\xff\x1f\x01", // one after it
        ])
    }
}

fn deletes(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestDeleteRange(_)) => true,
        Some(Request::RequestTxn(inner)) => deletes(inner),
        _ => false,
    })
}

fn keep_nothing(txn: &mut TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestPut(put)) => (put.ignore_value, put.ignore_lease) = (false, false),
            Some(Request::RequestTxn(inner)) => keep_nothing(inner),
            _ => {}
        }
    }
}

fn is_mistyped(call: &Call) -> bool {
    let message = call.message();
    let error = match call.path() {
        kv::RANGE => RangeRequest::decode(message).err(),
        kv::PUT => PutRequest::decode(message).err(),
        kv::DELETE_RANGE => DeleteRangeRequest::decode(message).err(),
        kv::COMPACT => CompactionRequest::decode(message).err(),
        lease::LEASE_REVOKE => LeaseRevokeRequest::decode(message).err(),
        _ => None,
    };
    error.is_some_and(|error| error.to_string().contains("invalid wire type: "))
}

/// The end of the range of all keys that begin with this one.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff);
    let Some(last) = kept else { return Bytes::from_static(b"\0") };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Extras =
        Extras { hash_kv: true, mistyped: true, watches: true, leases: true, locks: true };

    #[test]
    fn the_seed_decides_everything() {
        let calls = |seed| Calls::new(seed, ALL).take(3_000).collect::<Vec<_>>();
        assert_eq!(calls(1), calls(1));
        assert_ne!(calls(1), calls(2));
    }

    #[test]
    fn a_prefix_ends_where_its_last_byte_is_one_more() {
        assert_eq!(after_prefix(b"ab"), &b"ac"[..]);
        assert_eq!(after_prefix(b"a\xff"), &b"b"[..]);
        assert_eq!(after_prefix(b"\xff\xff"), &b"\0"[..]);
        assert_eq!(after_prefix(b""), &b"\0"[..]);
    }

    /// What the run claims to cover is there within its first thousands of calls.
    #[test]
    fn all_kinds_of_calls_come() {
        let calls: Vec<_> = Calls::new(7, ALL).take(20_000).collect();
        let mut paths: Vec<_> = calls.iter().map(|call| call.path().to_owned()).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 33, "{paths:?}");
        let deep = |op: &RequestOp| matches!(op.request, Some(Request::RequestTxn(_)));
        let txns = calls.iter().filter_map(|call| match call {
            Call::Txn(txn) => Some(txn),
            _ => None,
        });
        assert!(txns.clone().any(|txn| txn.success.iter().any(deep)));
        assert!(txns.clone().any(|txn| txn.success.iter().any(|op| op.request.is_none())));
        assert!(txns.clone().any(|txn| txn.compare.iter().any(|one| one.target > 4)));
    }
}
