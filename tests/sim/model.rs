//! The model: what etcd's key space means, written as slowly and plainly as possible.
//!
//! Every version of every key in one list, every read a walk over it. It speaks etcd's own
//! messages, so the same model judges the store, a recorded history, or etcd itself. It checks
//! nothing that the edge refuses (empty keys, budgets, duplicate keys), and it has no clock: a lease
//! lives until it is revoked.

use std::{cmp::Ordering, collections::BTreeMap};

use prost::bytes::Bytes;
use proto::{
    etcdserverpb::{self as pb, compare::TargetUnion, request_op::Request, response_op::Response},
    mvccpb::{KeyValue, event::EventType},
};

/// What a model says no with: the word after etcd's `Err`.
pub type No = &'static str;

/// One change of one key; a deletion has no key-value.
#[derive(Clone)]
struct Version {
    revision: i64,
    /// Changes of the same revision before it.
    sub: usize,
    kv: Option<KeyValue>,
}

/// One change as a watcher is told of it.
#[derive(Debug)]
pub struct Change {
    pub revision: i64,
    pub kind: EventType,
    /// Of a deletion only the key and the revision.
    pub kv: KeyValue,
    pub before: Option<KeyValue>,
    /// Its own revision changed the key once more.
    pub overtaken: bool,
}

/// The key space.
#[derive(Clone)]
pub struct Model {
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// Granted TTL by id.
    pub leases: BTreeMap<i64, i64>,
    pub revision: i64,
    pub compacted: i64,
}

impl Default for Model {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), leases: BTreeMap::new(), revision: 1, compacted: -1 }
    }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn within(key: &Bytes, from: &Bytes, end: &Bytes) -> bool {
    match &end[..] {
        [] => key == from,
        [0] => key >= from,
        _ => key >= from && key < end,
    }
}

impl Model {
    /// Every live key-value of an interval at a revision, by key.
    fn at(&self, from: &Bytes, end: &Bytes, revision: i64) -> Vec<KeyValue> {
        let newest = |versions: &Vec<Version>| {
            versions.iter().rfind(|v| v.revision <= revision).and_then(|v| v.kv.clone())
        };
        let keys = self.keys.iter().filter(|(key, _)| within(key, from, end));
        keys.filter_map(|(_, versions)| newest(versions)).collect()
    }

    fn one(&self, key: &Bytes) -> Option<KeyValue> {
        self.at(key, &Bytes::new(), i64::MAX).pop()
    }

    pub fn range(&self, r: &pb::RangeRequest) -> Result<pb::RangeResponse, No> {
        let revision = if r.revision <= 0 { self.revision } else { r.revision };
        if revision > self.revision {
            return Err("FutureRev");
        }
        if revision < self.compacted {
            return Err("Compacted");
        }
        let mut kvs = self.at(&r.key, &r.range_end, revision);
        let mut response = pb::RangeResponse {
            header: header(self.revision),
            count: kvs.len() as i64,
            ..Default::default()
        };
        if r.count_only {
            return Ok(response);
        }
        kvs.retain(|kv| {
            (r.max_mod_revision == 0 || kv.mod_revision <= r.max_mod_revision)
                && (r.min_mod_revision == 0 || kv.mod_revision >= r.min_mod_revision)
                && (r.max_create_revision == 0 || kv.create_revision <= r.max_create_revision)
                && (r.min_create_revision == 0 || kv.create_revision >= r.min_create_revision)
        });
        response.kvs = kvs;
        cut_and_sort(&mut response, r);
        for kv in response.kvs.iter_mut().filter(|_| r.keys_only) {
            kv.value.clear();
            kv.lease = if r.sort_target == 4 { kv.lease } else { 0 };
        }
        Ok(response)
    }

    pub fn put(&mut self, r: &pb::PutRequest) -> Result<pb::PutResponse, No> {
        let mut changes = 0;
        self.check_put(r)?;
        let response = self.write(r, &mut changes);
        self.revision += 1;
        Ok(response)
    }

    fn check_put(&self, r: &pb::PutRequest) -> Result<(), No> {
        if r.lease != 0 && !self.leases.contains_key(&r.lease) {
            return Err("LeaseNotFound");
        }
        let missing = (r.ignore_value || r.ignore_lease) && self.one(&r.key).is_none();
        if missing { Err("KeyNotFound") } else { Ok(()) }
    }

    /// Writes at the revision after the current one, which the caller then makes current.
    fn write(&mut self, r: &pb::PutRequest, changes: &mut usize) -> pb::PutResponse {
        let (revision, prev) = (self.revision + 1, self.one(&r.key));
        let kept = prev.clone().unwrap_or_default();
        let kv = KeyValue {
            key: r.key.clone(),
            create_revision: prev.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: kept.version + 1,
            value: if r.ignore_value { kept.value } else { r.value.clone() },
            lease: if r.ignore_lease { kept.lease } else { r.lease },
        };
        let version = Version { revision, sub: *changes, kv: Some(kv) };
        self.keys.entry(r.key.clone()).or_default().push(version);
        *changes += 1;
        pb::PutResponse { header: header(revision), prev_kv: prev.filter(|_| r.prev_kv) }
    }

    pub fn delete_range(&mut self, r: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let mut changes = 0;
        let response = self.erase(r, &mut changes);
        self.revision += i64::from(changes > 0);
        response
    }

    fn erase(
        &mut self,
        r: &pb::DeleteRangeRequest,
        changes: &mut usize,
    ) -> pb::DeleteRangeResponse {
        let gone = self.at(&r.key, &r.range_end, i64::MAX);
        for (sub, kv) in (*changes..).zip(&gone) {
            let versions = self.keys.get_mut(&kv.key).expect("it was just read");
            versions.push(Version { revision: self.revision + 1, sub, kv: None });
        }
        *changes += gone.len();
        pb::DeleteRangeResponse {
            header: header(self.revision + i64::from(*changes > 0)),
            deleted: gone.len() as i64,
            prev_kvs: if r.prev_kv { gone } else { Vec::new() },
        }
    }

    /// Compares and checks look at the state before; nothing is kept of one that is refused.
    pub fn txn(&mut self, r: &pb::TxnRequest) -> Result<pb::TxnResponse, No> {
        let before = self.clone();
        before.check_txn(r)?;
        let mut changes = 0;
        let mut response = self.run(&before, r, &mut changes);
        self.revision += i64::from(changes > 0);
        response.header = header(self.revision);
        Ok(response)
    }

    fn branch<'a>(&self, r: &'a pb::TxnRequest) -> (bool, &'a [pb::RequestOp]) {
        let succeeded = r.compare.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &r.success } else { &r.failure })
    }

    fn check_txn(&self, r: &pb::TxnRequest) -> Result<(), No> {
        for op in self.branch(r).1 {
            match op.request.as_ref() {
                Some(Request::RequestRange(r)) if r.revision > self.revision => {
                    return Err("FutureRev");
                }
                Some(Request::RequestRange(r))
                    if r.revision != 0 && r.revision < self.compacted =>
                {
                    return Err("Compacted");
                }
                Some(Request::RequestPut(r)) => self.check_put(r)?,
                Some(Request::RequestTxn(r)) => self.check_txn(r)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn run(&mut self, before: &Self, r: &pb::TxnRequest, changes: &mut usize) -> pb::TxnResponse {
        let (succeeded, ops) = before.branch(r);
        let mut responses = Vec::new();
        for op in ops {
            let response = op.request.as_ref().map(|request| match request {
                Request::RequestRange(r) => Response::ResponseRange(self.range_inside(r, *changes)),
                Request::RequestPut(r) => Response::ResponsePut(self.write(r, changes)),
                Request::RequestDeleteRange(r) => {
                    Response::ResponseDeleteRange(self.erase(r, changes))
                }
                Request::RequestTxn(r) => Response::ResponseTxn(self.run(before, r, changes)),
            });
            responses.push(pb::ResponseOp { response });
        }
        pb::TxnResponse { header: header(0), succeeded, responses }
    }

    /// A range inside a transaction sees what the transaction wrote.
    fn range_inside(&mut self, r: &pb::RangeRequest, changes: usize) -> pb::RangeResponse {
        let bump = i64::from(changes > 0);
        self.revision += bump;
        let response = self.range(r).expect("checked before the transaction began");
        self.revision -= bump;
        response
    }

    fn holds(&self, c: &pb::Compare) -> bool {
        let mut found = self.at(&c.key, &c.range_end, i64::MAX);
        if found.is_empty() {
            if c.target == 3 {
                return false;
            }
            found.push(KeyValue::default());
        }
        found.iter().all(|kv| compare(c, kv))
    }

    pub fn grant(&mut self, r: &pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, No> {
        if self.leases.contains_key(&r.id) {
            return Err("LeaseExists");
        }
        self.leases.insert(r.id, r.ttl);
        let header = header(self.revision);
        Ok(pb::LeaseGrantResponse { header, id: r.id, ttl: r.ttl, ..Default::default() })
    }

    /// The keys that hold on to a lease: those whose newest version says so.
    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        let all = self.at(&Bytes::new(), &Bytes::from_static(&[0]), i64::MAX);
        all.into_iter().filter(|kv| kv.lease == id).map(|kv| kv.key).collect()
    }

    pub fn revoke(&mut self, r: &pb::LeaseRevokeRequest) -> Result<pb::LeaseRevokeResponse, No> {
        if !self.leases.contains_key(&r.id) {
            return Err("LeaseNotFound");
        }
        let mut changes = 0;
        for key in self.lease_keys(r.id) {
            self.erase(&pb::DeleteRangeRequest { key, ..Default::default() }, &mut changes);
        }
        self.leases.remove(&r.id);
        self.revision += i64::from(changes > 0);
        Ok(pb::LeaseRevokeResponse { header: header(self.revision) })
    }

    /// Every change that ever was, compacted or not, in order. What was before is what was there at
    /// the revision before, and nothing where the key is new (etcd `IsCreateEvent`).
    pub fn history(&self) -> Vec<Change> {
        let mut all = Vec::new();
        for (key, versions) in &self.keys {
            let next = versions.iter().skip(1).map(|version| version.revision).chain([0]);
            for (Version { revision, sub, kv }, next) in versions.iter().zip(next) {
                let earlier = versions.iter().rfind(|version| version.revision < *revision);
                let is_new = kv.as_ref().is_some_and(|kv| kv.create_revision == *revision);
                let before = earlier.filter(|_| !is_new).and_then(|version| version.kv.clone());
                let kind = if kv.is_some() { EventType::Put } else { EventType::Delete };
                let key = key.clone();
                let gone = KeyValue { key, mod_revision: *revision, ..Default::default() };
                let kv = kv.clone().unwrap_or(gone);
                let (revision, overtaken) = (*revision, next == *revision);
                all.push((*sub, Change { revision, kind, kv, before, overtaken }));
            }
        }
        all.sort_by_key(|(sub, change)| (change.revision, *sub));
        all.into_iter().map(|(_, change)| change).collect()
    }

    /// Keeps of each key only what is there now: for those who replay a long history, read nothing
    /// old, and want it no slower at its end.
    #[allow(dead_code, reason = "this file is shared with the judge of real histories")]
    pub fn forget(&mut self) {
        self.keys.retain(|_, versions| {
            versions.drain(..versions.len() - 1);
            versions[0].kv.is_some()
        });
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), No> {
        if revision <= self.compacted {
            return Err("Compacted");
        }
        if revision > self.revision {
            return Err("FutureRev");
        }
        self.compacted = revision;
        Ok(())
    }
}

/// Without an order but with a target, the limit cuts by key and the sort comes after.
fn cut_and_sort(response: &mut pb::RangeResponse, r: &pb::RangeRequest) {
    let limit = if r.limit <= 0 { usize::MAX } else { r.limit as usize };
    let filtered = r.min_mod_revision != 0
        || r.max_mod_revision != 0
        || r.min_create_revision != 0
        || r.max_create_revision != 0;
    if r.sort_order == 0 && !filtered {
        response.kvs.truncate(limit.saturating_add(1));
    }
    response.kvs.sort_by(|a, b| {
        let order = match r.sort_target {
            0 => a.key.cmp(&b.key),
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            _ => a.value.cmp(&b.value),
        };
        if r.sort_order == 2 { order.reverse() } else { order }
    });
    response.more = response.kvs.len() > limit;
    response.kvs.truncate(limit);
}

fn compare(c: &pb::Compare, kv: &KeyValue) -> bool {
    let order = match (c.target, &c.target_union) {
        (0, Some(TargetUnion::Version(n))) => kv.version.cmp(n),
        (0, _) => kv.version.cmp(&0),
        (1, Some(TargetUnion::CreateRevision(n))) => kv.create_revision.cmp(n),
        (1, _) => kv.create_revision.cmp(&0),
        (2, Some(TargetUnion::ModRevision(n))) => kv.mod_revision.cmp(n),
        (2, _) => kv.mod_revision.cmp(&0),
        (3, Some(TargetUnion::Value(value))) => kv.value.cmp(value),
        (3, _) => kv.value[..].cmp(&[]),
        (4, Some(TargetUnion::Lease(n))) => kv.lease.cmp(n),
        (4, _) => kv.lease.cmp(&0),
        _ => Ordering::Equal,
    };
    match c.result {
        0 => order.is_eq(),
        1 => order.is_gt(),
        2 => order.is_lt(),
        3 => order.is_ne(),
        _ => true,
    }
}
