//! All that happened, once more, against the model.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::{
    etcdserverpb as pb,
    mvccpb::{Event, event::EventType},
};

use super::{
    Findings, Op,
    model::Model,
    op::{Outcome, Request, Response},
    order::{Position, Seen, read_at, write_at},
    truth::Truth,
};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Where each operation stands, where it stands anywhere. On the way, everything that was said is
/// held against the model.
pub(super) fn replay(
    ops: &[Op],
    truth: &Truth,
    seen: &Seen,
    found: &mut Findings,
) -> Vec<Option<Position>> {
    let mut replay = Replay::new(ops, seen, found);
    replay.place_answers();
    let last = truth.keys().last().copied().unwrap_or(1);
    replay.nothing_behind(last);
    replay.reads(1);
    for (revision, events) in truth {
        replay.write(*revision, events);
        replay.reads(*revision);
    }
    replay.refusals();
    replay.found.summary.revision = last;
    replay.positions
}

/// An acknowledged renewal, or the grant.
struct Renewal {
    asked: u64,
    answered: u64,
    ttl: u64,
}

struct Replay<'a> {
    ops: &'a [Op],
    seen: &'a Seen,
    found: &'a mut Findings,
    model: Model,
    positions: Vec<Option<Position>>,
    /// Who says that he wrote a revision.
    writers: BTreeMap<i64, usize>,
    /// Who read behind a revision, or at it.
    readers: BTreeMap<i64, Vec<usize>>,
    /// Who would write this value.
    values: BTreeMap<Bytes, usize>,
    /// Deletions that may have happened, by interval.
    deletions: BTreeMap<(Bytes, Bytes), Vec<usize>>,
    /// Who asked to revoke a lease.
    revokes: BTreeMap<i64, Vec<usize>>,
    renewals: BTreeMap<i64, Vec<Renewal>>,
    /// Unknown ones that did happen.
    happened: BTreeSet<usize>,
}

impl<'a> Replay<'a> {
    fn new(ops: &'a [Op], seen: &'a Seen, found: &'a mut Findings) -> Self {
        Self {
            ops,
            seen,
            found,
            model: Model::default(),
            positions: vec![None; ops.len()],
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
            values: BTreeMap::new(),
            deletions: BTreeMap::new(),
            revokes: BTreeMap::new(),
            renewals: BTreeMap::new(),
            happened: BTreeSet::new(),
        }
    }

    /// Sorts all operations to where their answers say that they stand.
    fn place_answers(&mut self) {
        for (at, op) in self.ops.iter().enumerate() {
            for value in op.values() {
                self.values.insert(value, at);
            }
            if let Request::Revoke(lease) = op.request {
                self.revokes.entry(lease).or_default().push(at);
            }
            match &op.outcome {
                Outcome::Said(response) => self.place(at, op, response),
                Outcome::Refused(_) => {}
                Outcome::Unknown => {
                    if let Request::Delete(r) = &op.request {
                        let interval = (r.key.clone(), r.range_end.clone());
                        self.deletions.entry(interval).or_default().push(at);
                    }
                }
            }
        }
    }

    fn place(&mut self, at: usize, op: &Op, response: &Response) {
        let revision = response.revision();
        if let (Response::Grant(pb::LeaseGrantResponse { id, ttl, .. }), _)
        | (Response::Renew(pb::LeaseKeepAliveResponse { id, ttl, .. }), _) = (response, ())
            && *ttl > 0
        {
            let Op { asked, answered, .. } = *op;
            let renewal = Renewal { asked, answered, ttl: *ttl as u64 * SECOND };
            self.renewals.entry(*id).or_default().push(renewal);
        }
        if matches!(response, Response::Renew(_)) {
            return;
        }
        if response.wrote() {
            self.positions[at] = Some(write_at(revision));
            if let Some(other) = self.writers.insert(revision, at) {
                let other = &self.ops[other];
                self.found.say(|| format!("two were written at {revision}: {op}\n  and {other}"));
            }
            return;
        }
        self.positions[at] = Some(read_at(revision));
        let content = match &op.request {
            Request::Range(r) if r.revision > 0 => r.revision,
            _ => revision,
        };
        self.readers.entry(content).or_default().push(at);
    }

    /// Whoever stands behind the last revision that a watch was told of stands behind nothing.
    fn nothing_behind(&mut self, last: i64) {
        let writers = self.writers.range(last + 1..).map(|(revision, at)| (*revision, *at));
        let readers = self.readers.range(last + 1..).map(|(revision, at)| (*revision, at[0]));
        let behind: Vec<_> = writers.chain(readers).collect();
        for (revision, at) in behind {
            let op = &self.ops[at];
            self.found.say(|| format!("{revision} is lost, the end is {last}: {op}"));
        }
    }

    /// The write at a revision: whose it is, what it did, what he was told.
    fn write(&mut self, revision: i64, events: &[Event]) {
        self.model.forget();
        match self.writers.get(&revision).copied().or_else(|| self.claim(revision, events)) {
            Some(at) => self.execute(at, revision),
            None => self.expire(revision, events),
        }
        if self.model.revision != revision {
            let (op, ours) = (self.writers.get(&revision), self.model.revision);
            let op = op.map_or("nobody".into(), |at| self.ops[*at].to_string());
            self.found.say(|| format!("revision {revision} changes nothing after {ours}: {op}"));
            self.model.revision = revision;
        }
        self.compare_events(revision, events);
    }

    /// One whose outcome nobody was told, and who may have done this.
    fn claim(&mut self, revision: i64, events: &[Event]) -> Option<usize> {
        let at = match events.iter().find(|event| event.r#type() == EventType::Put) {
            Some(put) => {
                let value = put.kv.as_ref().map(|kv| kv.value.clone()).unwrap_or_default();
                let Some(at) = self.values.get(&value).copied() else {
                    self.found
                        .say(|| format!("{value:?} of revision {revision} was never asked for"));
                    return None;
                };
                at
            }
            None => self.claim_deletion(revision, events)?,
        };
        let op = &self.ops[at];
        let again = self.positions[at].is_some();
        if again && !matches!(op.request, Request::Revoke(_)) {
            self.found.say(|| format!("it is done once more at {revision}: {op}"));
            return None;
        }
        if let Outcome::Refused(_) = op.outcome {
            self.found.say(|| format!("it was refused, and is done at {revision}: {op}"));
            return None;
        }
        self.positions[at] = Some(write_at(revision));
        if matches!(op.outcome, Outcome::Unknown) {
            self.happened.insert(at);
            self.found.summary.unknown_happened += 1;
        }
        Some(at)
    }

    fn claim_deletion(&mut self, revision: i64, events: &[Event]) -> Option<usize> {
        let keys: Vec<&Bytes> = events.iter().filter_map(|e| Some(&e.kv.as_ref()?.key)).collect();
        let lease = self.lease_of(keys.first()?);
        if lease != 0 {
            let asked = self.revokes.get(&lease)?;
            let said_here = |at: &&usize| match &self.ops[**at].outcome {
                Outcome::Said(response) => response.revision() == revision,
                Outcome::Refused(_) => false,
                Outcome::Unknown => {
                    !self.happened.contains(*at) && self.may_stand_at(**at, revision)
                }
            };
            return asked.iter().find(said_here).copied();
        }
        let all_in = |(from, end): &&(Bytes, Bytes)| {
            keys.iter()
                .all(|key| if end.is_empty() { *key == from } else { *key >= from && *key < end })
        };
        let intervals: Vec<_> = self.deletions.keys().filter(all_in).cloned().collect();
        for interval in intervals {
            let open = &self.deletions[&interval];
            let free = open.iter().position(|at| self.may_stand_at(*at, revision));
            if let Some(free) = free {
                return Some(self.deletions.get_mut(&interval)?.swap_remove(free));
            }
        }
        None
    }

    /// Above all that was known when it was asked.
    fn may_stand_at(&self, at: usize, revision: i64) -> bool {
        write_at(revision) > self.seen.before(self.ops[at].asked).0
    }

    fn lease_of(&self, key: &Bytes) -> i64 {
        let range = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let found = self.model.range(&range).unwrap_or_default();
        found.kvs.first().map_or(0, |kv| kv.lease)
    }

    /// Does it to the model, and compares the answers.
    fn execute(&mut self, at: usize, revision: i64) {
        let op = &self.ops[at];
        let expected = match &op.request {
            Request::Put(r) => self.model.put(r).map(Response::Put),
            Request::Delete(r) => Ok(Response::Delete(self.model.delete_range(r))),
            Request::Txn(r) => self.model.txn(r).map(Response::Txn),
            Request::Revoke(id) => {
                self.model.revoke(&pb::LeaseRevokeRequest { id: *id }).map(Response::Revoke)
            }
            Request::Range(_) | Request::Grant(_) | Request::Renew(_) => Err("Written"),
        };
        self.compare(op, expected.map(Response::plain), revision);
    }

    fn compare(&mut self, op: &Op, expected: Result<Response, &str>, revision: i64) {
        let Some(said) = op.said() else {
            if let Err(no) = expected {
                self.found.say(|| format!("it is done at {revision}, and cannot be ({no}): {op}"));
            }
            return;
        };
        if expected.as_ref() != Ok(&said.clone().plain()) {
            self.found.say(|| format!("{op}\n  at {revision} the answer is {expected:?}"));
        }
    }

    /// Nobody asked for it: then the keys are all those of one lease, and its time is over.
    fn expire(&mut self, revision: i64, events: &[Event]) {
        let mut keys: Vec<_> =
            events.iter().filter_map(|e| Some(e.kv.as_ref()?.key.clone())).collect();
        keys.sort();
        let lease = keys.first().map_or(0, |key| self.lease_of(key));
        let deletes = events.iter().all(|event| event.r#type() == EventType::Delete);
        if lease == 0 || !deletes || self.model.lease_keys(lease) != keys {
            self.found.say(|| format!("nobody did what is told of {revision}: {events:?}"));
            return;
        }
        self.found.summary.expired += 1;
        if self.model.revoke(&pb::LeaseRevokeRequest { id: lease }).is_err() {
            self.found.say(|| format!("lease {lease} ends a second time at {revision}"));
        }
        let Some(gone) = self.seen.since(write_at(revision)) else { return };
        for renewal in self.renewals.get(&lease).into_iter().flatten() {
            if renewal.asked + renewal.ttl > gone {
                let Renewal { asked, ttl, .. } = renewal;
                self.found.say(|| {
                    format!(
                        "lease {lease} ended at revision {revision}, seen at {gone} ns, renewed at \
                         {asked} ns for {ttl} ns"
                    )
                });
            }
        }
    }

    /// What the model did is what watchers were told.
    fn compare_events(&mut self, revision: i64, events: &[Event]) {
        let history = self.model.history();
        let changes = history.into_iter().filter(|change| change.revision == revision);
        let with_before = events.iter().any(|event| event.prev_kv.is_some());
        let mut expected: Vec<_> = changes
            .map(|change| Event {
                r#type: change.kind.into(),
                kv: Some(change.kv),
                prev_kv: change.before.filter(|_| with_before),
            })
            .collect();
        let mut events = events.to_vec();
        // The keys of a lease go in no order that matters.
        if events.iter().all(|event| event.r#type() == EventType::Delete) {
            for list in [&mut events, &mut expected] {
                list.sort_by_key(|event| event.kv.as_ref().map(|kv| kv.key.clone()));
            }
        }
        if events != expected {
            self.found
                .say(|| format!("at {revision} watchers are told {events:?}, not {expected:?}"));
        }
    }

    /// All who stand behind a revision.
    fn reads(&mut self, revision: i64) {
        let mut readers = self.readers.remove(&revision).unwrap_or_default();
        readers.sort_by_key(|at| self.ops[*at].asked);
        readers.into_iter().for_each(|at| self.read(at, revision));
    }

    fn read(&mut self, at: usize, revision: i64) {
        let op = &self.ops[at];
        let said = op.said().expect("only answers are placed");
        let expected = match &op.request {
            Request::Range(r) => {
                let now = pb::RangeRequest { revision: 0, ..r.clone() };
                let range = self.model.range(&now).map(|mut range| {
                    // A read of an old revision says how far its member is.
                    range.header.get_or_insert_default().revision = said.revision();
                    Response::Range(range)
                });
                if r.revision > said.revision() { Err("FutureRev") } else { range }
            }
            Request::Delete(r) => Ok(Response::Delete(self.model.delete_range(r))),
            Request::Txn(r) => self.model.txn(r).map(Response::Txn),
            Request::Grant(r) => return self.grant(op, r.id),
            Request::Revoke(lease) => return self.revoked(at, *lease, revision),
            Request::Put(_) | Request::Renew(_) => Err("Read"),
        };
        self.compare(op, expected.map(Response::plain), revision);
    }

    fn grant(&mut self, op: &Op, id: i64) {
        let Some(Response::Grant(said)) = op.said() else { return };
        // The server may lengthen it: its own shortest (etcd `minLeaseTTL`).
        if self.model.leases.insert(said.id, said.ttl).is_some() || id != 0 && said.id != id {
            self.found.say(|| format!("it is another's lease: {op}"));
        }
    }

    /// A lease that had no keys leaves no trace but this.
    fn revoked(&mut self, at: usize, lease: i64, revision: i64) {
        // It was its own revision, and done there.
        if self.positions[at] == Some(write_at(revision)) {
            return;
        }
        let op = &self.ops[at];
        let keys = self.model.lease_keys(lease);
        if !keys.is_empty() || self.model.leases.remove(&lease).is_none() {
            self.found.say(|| format!("at {revision} it has keys {keys:?}, or is no more: {op}"));
        }
    }

    /// A lease that somebody renewed in time, and nobody revoked, is there.
    fn refusals(&mut self) {
        for op in self.ops {
            let lease = match (&op.request, &op.outcome) {
                (Request::Renew(id), Outcome::Said(Response::Renew(r))) if r.ttl <= 0 => *id,
                (Request::Renew(id), Outcome::Refused(_)) => *id,
                (Request::Put(r), Outcome::Refused(_)) if r.lease != 0 => r.lease,
                _ => continue,
            };
            let revoked = self.revokes.get(&lease).into_iter().flatten();
            if revoked.into_iter().any(|at| self.ops[*at].asked < op.answered) {
                continue;
            }
            let renewals = self.renewals.get(&lease).into_iter().flatten();
            let mut known = renewals.filter(|renewal| renewal.answered < op.asked);
            if known.any(|renewal| renewal.asked + renewal.ttl > op.answered) {
                self.found.say(|| format!("its lease was renewed and its time is not over: {op}"));
            }
        }
    }
}
