//! Histories made up from the model, so true; then with one lie each, which must be found.

use bytes::Bytes;
use prost::Message;
use proto::{
    etcdserverpb::{self as pb, request_op::Request as Nested},
    mvccpb::{Event, KeyValue, event::EventType},
};

use super::{judge, model::Model};
use crate::{
    grpc::{Status, code},
    history::{Kind, Record},
};

const MILLI: u64 = 1_000_000;
const CLIENTS: u64 = 6;
const STEPS: u64 = 600;
/// Between two things that happen; calls take up to some steps.
const STEP: u64 = 10 * MILLI;
const SEEDS: u64 = 30;
const TTL: i64 = 2;

/// What a broken cluster might do, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// It acknowledged a write and lost it; another took its revision.
    LostWrite,
    /// It lost the last writes that it acknowledged.
    LostEnd,
    /// A linearizable read from a member that is behind.
    StaleRead,
    /// A read of what was never so.
    TornRead,
    /// A member showed a write that was not committed, and then was not.
    Uncommitted,
    AppliedTwice,
    WrittenBeforeItsTime,
    UnknownWrittenBeforeItWasAsked,
    RefusedAndDone,
    NeverAsked,
    WrongPrevious,
    /// A transaction went on although its comparison did not hold.
    ComparedNothing,
    LeaseEndsEarly,
    RenewedAfterItsEnd,
    /// Its keys are gone, and it was renewed and its time is not over.
    NotFoundInItsTime,
    /// Only some keys of a lease went with it.
    LeaseLeavesKeys,
    WatchMisses,
    WatchSwaps,
    WatchRepeats,
    WatchInvents,
    WatchCutShort,
}

const LIES: [Lie; 21] = [
    Lie::LostWrite,
    Lie::LostEnd,
    Lie::StaleRead,
    Lie::TornRead,
    Lie::Uncommitted,
    Lie::AppliedTwice,
    Lie::WrittenBeforeItsTime,
    Lie::UnknownWrittenBeforeItWasAsked,
    Lie::RefusedAndDone,
    Lie::NeverAsked,
    Lie::WrongPrevious,
    Lie::ComparedNothing,
    Lie::LeaseEndsEarly,
    Lie::RenewedAfterItsEnd,
    Lie::NotFoundInItsTime,
    Lie::LeaseLeavesKeys,
    Lie::WatchMisses,
    Lie::WatchSwaps,
    Lie::WatchRepeats,
    Lie::WatchInvents,
    Lie::WatchCutShort,
];

/// A cluster that does everything at once, at a time of its own between question and answer.
struct World {
    lot: u64,
    now: u64,
    model: Model,
    /// As it was some time ago.
    behind: Model,
    records: Vec<Record>,
    values: u64,
    lie: Option<Lie>,
    told: bool,
    /// Id, and when it was last renewed.
    leases: Vec<(i64, u64)>,
    /// Nobody renews them any more.
    left: Vec<(i64, u64)>,
}

impl World {
    fn below(&mut self, bound: u64) -> u64 {
        self.lot = self.lot.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.lot;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// Once, in the second half, where this lie is to be told.
    fn lies(&mut self, lie: Lie) -> bool {
        let now = self.lie == Some(lie) && !self.told && self.now > STEPS / 2 * STEP;
        self.told |= now;
        now
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        format!("v{}", self.values).into()
    }

    fn key(&mut self) -> Bytes {
        format!("k/{}", self.below(5)).into()
    }

    fn put(&mut self) -> pb::PutRequest {
        pb::PutRequest { key: self.key(), value: self.value(), prev_kv: true, ..Default::default() }
    }

    /// Notes what happens now, asked before and answered after.
    fn note<R: Message>(&mut self, kind: Kind, request: &impl Message, answer: &Result<R, Status>) {
        let (before, after) = (self.below(3 * STEP), self.below(3 * STEP));
        self.note_at(self.now - before, self.now + after, kind, request, answer);
    }

    fn note_at<R: Message>(
        &mut self,
        asked: u64,
        answered: u64,
        kind: Kind,
        request: &impl Message,
        answer: &Result<R, Status>,
    ) {
        let mut record = Record {
            client: self.below(CLIENTS) as u32,
            kind: kind.into(),
            asked,
            answered: Some(answered),
            request: request.encode_to_vec(),
            ..Default::default()
        };
        match answer {
            Ok(response) => record.response = response.encode_to_vec(),
            Err(status) => (record.code, record.text) = (status.code, status.message.clone()),
        }
        self.records.push(record);
    }

    fn step(&mut self) {
        match self.below(20) {
            0..6 => self.a_put(),
            6..8 => self.a_txn(),
            8 => self.a_delete(),
            9..14 => self.a_range(),
            14 => self.an_unknown_put(),
            15 => self.a_refused_put(),
            _ => self.a_lease(),
        }
        self.end_leases();
        if self.below(25) == 0 {
            self.behind = self.model.clone();
        }
        self.now += STEP;
    }

    fn a_put(&mut self) {
        let put = self.put();
        if self.lies(Lie::LostWrite) {
            let lost = self.model.clone().put(&put);
            return self.note(Kind::Put, &put, &said(lost));
        }
        if self.lies(Lie::WrittenBeforeItsTime) {
            let first = self.model.put(&put);
            let other = self.put();
            let second = self.model.put(&other);
            let now = self.now;
            self.note_at(now, now + 1, Kind::Put, &other, &said(second));
            return self.note_at(now + 2, now + 3, Kind::Put, &put, &said(first));
        }
        let mut response = self.model.put(&put);
        if self.lies(Lie::AppliedTwice) {
            _ = self.model.put(&put);
        }
        if self.lies(Lie::WrongPrevious)
            && let Ok(response) = &mut response
        {
            let prev = response.prev_kv.get_or_insert_default();
            prev.version += 1;
        }
        self.note(Kind::Put, &put, &said(response));
    }

    fn a_txn(&mut self) {
        let (key, put) = (self.key(), self.put());
        let known = self.behind.range(&get(&key)).expect("it is a plain read");
        let seen = known.kvs.first().map_or(0, |kv| kv.mod_revision);
        let compare = pb::Compare {
            target: pb::compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(pb::compare::TargetUnion::ModRevision(seen)),
            ..Default::default()
        };
        let mut txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![pb::RequestOp { request: Some(Nested::RequestPut(put)) }],
            failure: vec![pb::RequestOp { request: Some(Nested::RequestRange(get(&key))) }],
        };
        let would = self.model.clone().txn(&txn).is_ok_and(|txn| txn.succeeded);
        if !would && self.lies(Lie::ComparedNothing) {
            let compare = std::mem::take(&mut txn.compare);
            let response = self.model.txn(&txn);
            txn.compare = compare;
            return self.note(Kind::Txn, &txn, &said(response));
        }
        let response = self.model.txn(&txn);
        self.note(Kind::Txn, &txn, &said(response));
    }

    fn a_delete(&mut self) {
        let delete =
            pb::DeleteRangeRequest { key: self.key(), prev_kv: true, ..Default::default() };
        let response = self.model.delete_range(&delete);
        // One in three is never heard of again.
        match self.below(3) {
            0 => self.note(Kind::DeleteRange, &delete, &unknown::<pb::DeleteRangeResponse>()),
            _ => self.note(Kind::DeleteRange, &delete, &Ok(response)),
        }
    }

    fn a_range(&mut self) {
        let serializable = self.below(3) == 0;
        let range = pb::RangeRequest {
            key: "k/".into(),
            range_end: "k0".into(),
            serializable,
            ..Default::default()
        };
        let old = self.behind.revision + 8 < self.model.revision;
        let from_behind = serializable || old && self.lies(Lie::StaleRead);
        let mut source = if from_behind { self.behind.clone() } else { self.model.clone() };
        if serializable && self.lies(Lie::Uncommitted) {
            source = self.model.clone();
            let put = self.put();
            source.put(&put).expect("a plain put");
        }
        let mut response = source.range(&range).expect("a plain read");
        if old && self.lies(Lie::TornRead) {
            let now = self.model.revision;
            response = self.behind.range(&range).expect("a plain read");
            response.header.get_or_insert_default().revision = now;
        }
        self.note(Kind::Range, &range, &Ok(response));
    }

    fn an_unknown_put(&mut self) {
        let put = self.put();
        if self.lies(Lie::UnknownWrittenBeforeItWasAsked) {
            _ = self.model.put(&put);
            let other = self.put();
            let response = self.model.put(&other);
            let now = self.now;
            self.note_at(now, now + 1, Kind::Put, &other, &said(response));
            let answer = unknown::<pb::PutResponse>();
            return self.note_at(now + 2, now + 3, Kind::Put, &put, &answer);
        }
        if self.below(2) == 0 {
            _ = self.model.put(&put);
        }
        self.note(Kind::Put, &put, &unknown::<pb::PutResponse>());
    }

    fn a_refused_put(&mut self) {
        let mut put = self.put();
        if self.lies(Lie::NeverAsked) {
            _ = self.model.put(&put);
            return;
        }
        if self.lies(Lie::RefusedAndDone) {
            _ = self.model.put(&put);
        } else {
            put.lease = 99;
        }
        self.note(Kind::Put, &put, &not_found::<pb::PutResponse>());
    }

    fn a_lease(&mut self) {
        if self.leases.len() < 3 {
            let id = 100 + self.now as i64;
            let grant = pb::LeaseGrantRequest { id, ttl: TTL };
            let response = self.model.grant(&grant);
            self.note(Kind::Grant, &grant, &said(response));
            for key in 0..2 {
                let put = pb::PutRequest {
                    key: format!("l/{id}/{key}").into(),
                    value: self.value(),
                    lease: id,
                    ..Default::default()
                };
                let response = self.model.put(&put);
                self.note(Kind::Put, &put, &said(response));
            }
            return self.leases.push((id, self.now));
        }
        let at = self.below(3) as usize;
        let (id, renewed) = &mut self.leases[at];
        let (id, known) = (*id, *renewed);
        if self.below(20) == 0 {
            let left = self.leases.swap_remove(at);
            return self.left.push(left);
        }
        let renew = pb::LeaseKeepAliveRequest { id };
        let dead = self.now > known + 3 * STEP;
        if dead && self.lies(Lie::NotFoundInItsTime) {
            let answer = not_found::<pb::LeaseKeepAliveResponse>();
            return self.note_at(self.now, self.now + 1, Kind::Renew, &renew, &answer);
        }
        self.leases[at].1 = self.now;
        self.renewed(id, self.now);
    }

    fn renewed(&mut self, id: i64, at: u64) {
        let renew = pb::LeaseKeepAliveRequest { id };
        let response = pb::LeaseKeepAliveResponse { id, ttl: TTL, ..Default::default() };
        self.note_at(at, at + 1, Kind::Renew, &renew, &Ok(response));
    }

    fn end_leases(&mut self) {
        let ttl = TTL as u64 * 1000 * MILLI;
        let Some(at) = self.left.iter().position(|(_, renewed)| {
            let early = self.lie == Some(Lie::LeaseEndsEarly) && !self.told;
            let early = early && self.now > STEPS / 2 * STEP;
            *renewed + ttl < self.now || early && *renewed + ttl / 2 < self.now
        }) else {
            return;
        };
        if self.left[at].1 + ttl * 3 / 4 > self.now {
            self.lies(Lie::LeaseEndsEarly);
        }
        let (id, _) = self.left.swap_remove(at);
        if self.lies(Lie::LeaseLeavesKeys) {
            let key = format!("l/{id}/0").into();
            self.model.delete_range(&pb::DeleteRangeRequest { key, ..Default::default() });
            return;
        }
        _ = self.model.revoke(&pb::LeaseRevokeRequest { id });
        let after = self.put();
        let response = self.model.put(&after);
        self.note_at(self.now, self.now + 1, Kind::Put, &after, &said(response));
        if self.lies(Lie::RenewedAfterItsEnd) {
            self.renewed(id, self.now + 2);
        }
    }

    /// What everybody has in the end, and two watches of all that happened.
    fn finish(mut self) -> Vec<Record> {
        self.now += 10_000 * MILLI;
        let model = if self.lies(Lie::LostEnd) { self.behind.clone() } else { self.model.clone() };
        let zero = Bytes::from_static(b"\0");
        let all = pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
        let response = said(model.range(&all));
        self.note(Kind::Range, &all, &response);
        let mut revisions: Vec<(i64, Vec<Event>)> = Vec::new();
        for change in model.history() {
            let event =
                Event { r#type: change.kind.into(), kv: Some(change.kv), prev_kv: change.before };
            match revisions.last_mut() {
                Some((revision, events)) if *revision == change.revision => events.push(event),
                _ => revisions.push((change.revision, vec![event])),
            }
        }
        self.watch(1, true, &revisions);
        self.watch(model.revision / 3, false, &revisions);
        self.records
    }

    fn watch(&mut self, start: i64, ground: bool, revisions: &[(i64, Vec<Event>)]) {
        let stream = u32::from(!ground);
        let create = pb::WatchCreateRequest { start_revision: start, ..Default::default() };
        let record = Record {
            client: stream,
            kind: Kind::Watch.into(),
            request: create.encode_to_vec(),
            ..Default::default()
        };
        self.records.push(record);
        let mut told: Vec<_> =
            revisions.iter().filter(|(revision, _)| *revision >= start).cloned().collect();
        let last = told.last().map_or(1, |(revision, _)| *revision);
        let middle = told.len() / 2;
        if !ground {
            if self.lies(Lie::WatchMisses) {
                told.remove(middle);
            } else if self.lies(Lie::WatchSwaps) {
                told.swap(middle, middle + 1);
            } else if self.lies(Lie::WatchRepeats) {
                told.insert(middle, told[middle - 1].clone());
            } else if self.lies(Lie::WatchInvents) {
                let kv = KeyValue { key: "k/0".into(), ..told[middle].1[0].kv.clone().unwrap() };
                let event = Event { kv: Some(kv), r#type: EventType::Put.into(), prev_kv: None };
                told[middle].1.push(event);
            } else if self.lies(Lie::WatchCutShort) {
                told.pop();
            }
        }
        for (revision, events) in told {
            let response = pb::WatchResponse {
                header: Some(pb::ResponseHeader { revision, ..Default::default() }),
                events,
                ..Default::default()
            };
            self.records.push(Record {
                client: stream,
                kind: Kind::Told.into(),
                asked: self.now,
                response: response.encode_to_vec(),
                ..Default::default()
            });
        }
        let complete = pb::RangeRequest { revision: last, ..Default::default() };
        self.records.push(Record {
            client: stream,
            kind: Kind::Complete.into(),
            request: complete.encode_to_vec(),
            ..Default::default()
        });
    }
}

fn get(key: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key: key.clone(), ..Default::default() }
}

fn said<R>(answer: Result<R, &'static str>) -> Result<R, Status> {
    answer.map_err(|no| Status::new(5, no))
}

fn not_found<R>() -> Result<R, Status> {
    Err(Status::new(5, "etcdserver: requested lease not found"))
}

fn unknown<R>() -> Result<R, Status> {
    Err(Status::new(code::DEADLINE_EXCEEDED, "no answer in time"))
}

fn history(seed: u64, lie: Option<Lie>) -> (Vec<Record>, bool) {
    let mut world = World {
        lot: seed,
        now: 100 * STEP,
        model: Model::default(),
        behind: Model::default(),
        records: Vec::new(),
        values: 0,
        lie,
        told: false,
        leases: Vec::new(),
        left: Vec::new(),
    };
    (0..STEPS).for_each(|_| world.step());
    let behind = world.behind.revision + 8 < world.model.revision;
    let told = world.told;
    let at_the_end = matches!(
        lie,
        Some(
            Lie::WatchMisses
                | Lie::WatchSwaps
                | Lie::WatchRepeats
                | Lie::WatchInvents
                | Lie::WatchCutShort
        )
    );
    (world.finish(), told || at_the_end || behind && lie == Some(Lie::LostEnd))
}

#[test]
fn a_true_history_is_believed() {
    for seed in 0..SEEDS {
        let summary =
            judge(&history(seed, None).0).unwrap_or_else(|broken| panic!("{seed}: {broken}"));
        assert!(summary.revision > 100 && summary.unknown_happened > 5, "{summary}");
    }
}

#[test]
fn every_lie_is_found() {
    for lie in LIES {
        let mut told = 0;
        for seed in 0..SEEDS {
            let (records, lied) = history(seed, Some(lie));
            told += usize::from(lied);
            assert!(!lied || judge(&records).is_err(), "{lie:?} is believed, seed {seed}");
        }
        assert!(told > 0, "{lie:?} was never told");
    }
}

#[test]
fn a_file_gives_back_what_was_noted() {
    let (records, _) = history(1, None);
    let path = std::env::temp_dir().join(format!("loadgen-history-{}", std::process::id()));
    let recorder = crate::history::Recorder::create(&path).unwrap();
    records.iter().for_each(|record| recorder.note(record));
    recorder.finish().unwrap();
    assert!(crate::history::read(&path).unwrap() == records);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(crate::history::read(&path).unwrap_err().to_string().contains("offset"));
    std::fs::remove_file(&path).unwrap();
}
