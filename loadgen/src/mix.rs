//! Clients of a cluster that do a bit of everything and write down what they were told, for
//! [`check`](crate::check) to judge. Faults are somebody else's.
//!
//! ```text
//!   k/NN           shared keys: puts, transactions, deletions of one key, by everybody
//!   r/CLIENT/N     one client's own: he alone deletes them, by range
//!   l/CLIENT/N     keys on a lease, which go with it and in no other way
//! ```
//!
//! Every value is written once in the history, so that a write of which nobody was told can be
//! recognized by what it wrote. A client whose call failed goes on at another member.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::{
    self as pb, compare::TargetUnion, kv, lease, request_op::Request as Nested, watch,
    watch_request::RequestUnion,
};

use crate::{
    client::{Client, Duplex},
    grpc::{Status, code},
    history::{Kind, Record, Recorder},
};

/// Who asks, and how hard.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port` of every member.
    pub endpoints: Vec<String>,
    /// Clients that read and write.
    pub workers: u32,
    /// Clients that keep leases with keys on them.
    pub keepers: u32,
    /// Clients that watch everything from the first revision on.
    pub watchers: u32,
    /// Calls a second of each worker, at most.
    pub rate: u32,
    /// The same seed asks the same questions, as far as the answers are the same.
    pub seed: u64,
}

/// Shared keys: few, so that clients meet.
const KEYS: u64 = 16;
/// Keys of one client's own.
const OWN_KEYS: u64 = 3;
/// How long a call may take: some give up early, and leave behind what nobody was told of.
const TIMEOUTS: [Duration; 3] =
    [Duration::from_millis(400), Duration::from_millis(1500), Duration::from_secs(6)];
/// How long a client waits before it tries the next member.
const PAUSE: Duration = Duration::from_millis(20);
/// A watch that hears nothing for so long goes to another member.
const QUIET: Duration = Duration::from_secs(2);
/// Times to live asked for, in seconds.
const TTLS: [i64; 2] = [2, 4];
/// How long a healed cluster may take to answer, and to tell a new watch everything.
const CALM: Duration = Duration::from_secs(60);

/// Clients at work.
pub struct Running {
    plan: Plan,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Sends the clients off.
pub fn start(plan: Plan, recorder: Arc<Recorder>) -> Running {
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    let mut spawn = |number: u32, life: fn(&mut Asker)| {
        let mut asker = Asker::new(number, &plan, &recorder, &stop);
        threads.push(thread::spawn(move || life(&mut asker)));
    };
    let (keepers, watchers) = (plan.workers, plan.workers + plan.keepers);
    (0..plan.workers).for_each(|number| spawn(number, Asker::work));
    (0..plan.keepers).for_each(|number| spawn(keepers + number, Asker::keep));
    (0..plan.watchers).for_each(|number| spawn(watchers + number, Asker::watch));
    Running { plan, recorder, stop, threads }
}

impl Running {
    /// Calls the clients back from a cluster that is whole again, waits until all leases must be
    /// over, and asks each member for everything: what it has, and all that ever happened.
    ///
    /// # Errors
    /// A member that does not answer or does not tell all; the disk.
    ///
    /// # Panics
    /// Where a client did.
    pub fn finish(self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("clients do not panic");
        }
        self.recorder.finish()?;
        let longest = TTLS.iter().max().expect("there are some");
        // Twice, for a leader that is new; and as long again to find them.
        thread::sleep(Duration::from_secs(3 * *longest as u64));
        let number = self.plan.workers + self.plan.keepers + self.plan.watchers;
        let mut last = Asker::new(number, &self.plan, &self.recorder, &self.stop);
        for endpoint in 0..self.plan.endpoints.len() {
            let revision = last.read_all(endpoint)?;
            last.watch_all(endpoint, revision)?;
        }
        self.recorder.finish()
    }
}

/// splitmix64 (Steele, Lea, Flood 2014).
struct Lot(u64);

impl Lot {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as u64) as usize]
    }
}

/// One client.
struct Asker {
    number: u32,
    endpoints: Vec<String>,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    between: Duration,
    lot: Lot,
    at: usize,
    client: Option<Client>,
    values: u64,
    /// The last revision of a shared key that it was shown.
    shown: BTreeMap<Bytes, i64>,
    revision: i64,
}

/// From the first key to the last.
fn everything() -> pb::RangeRequest {
    let zero = Bytes::from_static(b"\0");
    pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() }
}

impl Asker {
    fn new(number: u32, plan: &Plan, recorder: &Arc<Recorder>, stop: &Arc<AtomicBool>) -> Self {
        Self {
            number,
            endpoints: plan.endpoints.clone(),
            recorder: Arc::clone(recorder),
            stop: Arc::clone(stop),
            between: Duration::from_secs(1) / plan.rate.max(1),
            lot: Lot(plan.seed ^ (u64::from(number) << 40)),
            at: number as usize % plan.endpoints.len(),
            client: None,
            values: 0,
            shown: BTreeMap::new(),
            revision: 0,
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One call, noted; none where nobody took the connection, and nothing was asked.
    fn ask<Resp>(&mut self, kind: Kind, path: &str, request: &impl Message) -> Option<Resp>
    where
        Resp: Message + Default,
    {
        let timeout = self.lot.of(&TIMEOUTS);
        let mut client = self.connect(timeout)?;
        client.set_timeout(timeout);
        let asked = self.recorder.now();
        let answer: Result<Resp, Status> = client.unary(path, request);
        let call = (self.number, self.at as u32, kind, asked);
        self.recorder.note(&self.recorder.record(call, request, &answer));
        match &answer {
            // Whether the connection is any good is not known; another may be better.
            Err(status) if [code::UNAVAILABLE, code::DEADLINE_EXCEEDED].contains(&status.code) => {
                self.move_on();
            }
            _ => self.client = Some(client),
        }
        answer.ok()
    }

    fn connect(&mut self, timeout: Duration) -> Option<Client> {
        if let Some(client) = self.client.take() {
            return Some(client);
        }
        let client = Client::connect_within(&self.endpoints[self.at], timeout).ok();
        if client.is_none() {
            self.move_on();
        }
        client
    }

    fn move_on(&mut self) {
        self.client = None;
        self.at = (self.at + 1) % self.endpoints.len();
        thread::sleep(PAUSE);
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        format!("{}-{}", self.number, self.values).into()
    }

    fn shared_key(&mut self) -> Bytes {
        format!("k/{:02}", self.lot.below(KEYS)).into()
    }

    fn own_key(&mut self) -> Bytes {
        format!("r/{}/{}", self.number, self.lot.below(OWN_KEYS)).into()
    }

    /// The life of a client that reads and writes.
    fn work(&mut self) {
        while !self.stopped() {
            let next = Instant::now() + self.between;
            match self.lot.below(100) {
                0..25 => self.put(),
                25..40 => self.change_what_was_seen(),
                40..48 => self.change_two(),
                48..55 => self.delete(),
                55..58 => self.delete_own(),
                58..85 => self.get(),
                _ => self.list(),
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn put(&mut self) {
        let key = if self.lot.below(5) == 0 { self.own_key() } else { self.shared_key() };
        let prev_kv = self.lot.below(2) == 0;
        let put =
            pb::PutRequest { key: key.clone(), value: self.value(), prev_kv, ..Default::default() };
        let response: Option<pb::PutResponse> = self.ask(Kind::Put, kv::PUT, &put);
        if let Some(header) = response.and_then(|response| response.header) {
            self.shown.insert(key, header.revision);
        }
    }

    /// Compare and swap, of what was seen last; of a key never seen: create it.
    fn change_what_was_seen(&mut self) {
        let key = self.shared_key();
        let seen = self.shown.get(&key).copied().unwrap_or(0);
        let compare = pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(seen)),
            ..Default::default()
        };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![self.put_of(&key)],
            failure: vec![get_of(&key)],
        };
        let Some(response): Option<pb::TxnResponse> = self.ask(Kind::Txn, kv::TXN, &txn) else {
            return;
        };
        let now = match response.responses.into_iter().next().and_then(|op| op.response) {
            Some(pb::response_op::Response::ResponseRange(range)) => {
                range.kvs.first().map_or(0, |kv| kv.mod_revision)
            }
            _ => response.header.unwrap_or_default().revision,
        };
        self.shown.insert(key, now);
    }

    /// Two keys at one revision, or one written and one deleted.
    fn change_two(&mut self) {
        let (one, mut two) = (self.shared_key(), self.shared_key());
        while one == two {
            two = self.shared_key();
        }
        let compare = pb::Compare {
            result: pb::compare::CompareResult::Greater.into(),
            target: pb::compare::CompareTarget::Version.into(),
            key: two.clone(),
            target_union: Some(TargetUnion::Version(1)),
            ..Default::default()
        };
        let delete = pb::DeleteRangeRequest { key: two.clone(), ..Default::default() };
        let delete = pb::RequestOp { request: Some(Nested::RequestDeleteRange(delete)) };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![self.put_of(&one), delete],
            failure: vec![self.put_of(&one), self.put_of(&two), get_of(&two)],
        };
        let _answer: Option<pb::TxnResponse> = self.ask(Kind::Txn, kv::TXN, &txn);
    }

    fn put_of(&mut self, key: &Bytes) -> pb::RequestOp {
        let put = pb::PutRequest { key: key.clone(), value: self.value(), ..Default::default() };
        pb::RequestOp { request: Some(Nested::RequestPut(put)) }
    }

    fn delete(&mut self) {
        let (key, prev_kv) = (self.shared_key(), self.lot.below(2) == 0);
        let delete = pb::DeleteRangeRequest { key, prev_kv, ..Default::default() };
        let _answer: Option<pb::DeleteRangeResponse> =
            self.ask(Kind::DeleteRange, kv::DELETE_RANGE, &delete);
    }

    fn delete_own(&mut self) {
        let [key, range_end] = ["", "~"].map(|end| format!("r/{}/{end}", self.number).into());
        let delete = pb::DeleteRangeRequest { key, range_end, ..Default::default() };
        let _answer: Option<pb::DeleteRangeResponse> =
            self.ask(Kind::DeleteRange, kv::DELETE_RANGE, &delete);
    }

    fn get(&mut self) {
        let (key, serializable) = (self.shared_key(), self.lot.below(4) == 0);
        let range = pb::RangeRequest { key: key.clone(), serializable, ..Default::default() };
        let Some(found): Option<pb::RangeResponse> = self.ask(Kind::Range, kv::RANGE, &range)
        else {
            return;
        };
        self.revision = found.header.unwrap_or_default().revision;
        self.shown.insert(key, found.kvs.first().map_or(0, |kv| kv.mod_revision));
    }

    /// All shared keys, now or as they were at a revision seen before.
    fn list(&mut self) {
        let old = self.revision > 2 && self.lot.below(4) == 0;
        let range = pb::RangeRequest {
            key: "k/".into(),
            range_end: "k0".into(),
            limit: self.lot.of(&[0, 3]),
            serializable: self.lot.below(3) == 0,
            revision: if old { self.revision } else { 0 },
            ..Default::default()
        };
        let _answer: Option<pb::RangeResponse> = self.ask(Kind::Range, kv::RANGE, &range);
    }

    /// The life of a client that keeps leases: each for some time, and then revoked or left alone.
    fn keep(&mut self) {
        let mut turn = 0;
        while !self.stopped() {
            turn += 1;
            let id = 1_000_000 * i64::from(self.number) + turn;
            let ttl = self.lot.of(&TTLS);
            let grant = pb::LeaseGrantRequest { id, ttl };
            let granted: Option<pb::LeaseGrantResponse> =
                self.ask(Kind::Grant, lease::LEASE_GRANT, &grant);
            // One that may or may not be there is left alone.
            if let Some(granted) = granted {
                self.keep_one(id, granted.ttl);
            }
        }
    }

    fn keep_one(&mut self, id: i64, ttl: i64) {
        let (keys, renewals) = (1 + self.lot.below(2), self.lot.below(8));
        for key in 0..keys {
            let put = pb::PutRequest {
                key: format!("l/{}/{key}-{id}", self.number).into(),
                value: self.value(),
                lease: id,
                ..Default::default()
            };
            let _answer: Option<pb::PutResponse> = self.ask(Kind::Put, kv::PUT, &put);
        }
        for _ in 0..renewals {
            thread::sleep(Duration::from_secs(ttl as u64) / 3);
            let renew = pb::LeaseKeepAliveRequest { id };
            let answer: Option<pb::LeaseKeepAliveResponse> =
                self.ask(Kind::Renew, lease::LEASE_KEEP_ALIVE, &renew);
            if self.stopped() || answer.is_some_and(|answer| answer.ttl <= 0) {
                return;
            }
        }
        if self.lot.below(3) == 0 {
            let revoke = pb::LeaseRevokeRequest { id };
            let _answer: Option<pb::LeaseRevokeResponse> =
                self.ask(Kind::Revoke, lease::LEASE_REVOKE, &revoke);
        }
    }

    /// The life of a client that watches: from the first revision on, over all lost connections.
    fn watch(&mut self) {
        let mut from = 1;
        while !self.stopped() {
            let Some((number, mut stream)) = self.open_watch(from) else {
                self.move_on();
                continue;
            };
            while !self.stopped() {
                match self.told(number, &mut stream, QUIET) {
                    Ok(last) => from = from.max(last + 1),
                    Err(_) => break,
                }
            }
            self.move_on();
        }
    }

    fn open_watch(&mut self, from: i64) -> Option<(u32, Duplex)> {
        let client = Client::connect_within(&self.endpoints[self.at], QUIET).ok()?;
        let create = pb::WatchCreateRequest {
            start_revision: from,
            prev_kv: self.number.is_multiple_of(2),
            ..everything_watched()
        };
        let number = self.recorder.stream();
        self.recorder.note(&Record {
            client: number,
            endpoint: self.at as u32,
            kind: Kind::Watch.into(),
            asked: self.recorder.now(),
            request: create.encode_to_vec(),
            ..Default::default()
        });
        let mut stream = client.duplex(watch::WATCH).ok()?;
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        stream.send(&request).ok()?;
        let created: pb::WatchResponse = stream.next(QUIET).ok()??;
        created.created.then_some((number, stream))
    }

    /// The next response of a watch, noted: the last revision it tells of, 0 of none.
    fn told(&mut self, number: u32, stream: &mut Duplex, timeout: Duration) -> Result<i64, Status> {
        let response: Option<pb::WatchResponse> = stream.next(timeout)?;
        let response = response.ok_or(Status::new(code::UNAVAILABLE, "the watch ended"))?;
        if response.canceled {
            return Err(Status::new(code::UNAVAILABLE, response.cancel_reason));
        }
        self.recorder.note(&Record {
            client: number,
            kind: Kind::Told.into(),
            asked: self.recorder.now(),
            response: response.encode_to_vec(),
            ..Default::default()
        });
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        Ok(last.map_or(0, |kv| kv.mod_revision))
    }

    /// Everything that a member has, linearizably. The revision.
    fn read_all(&mut self, endpoint: usize) -> io::Result<i64> {
        let deadline = Instant::now() + CALM;
        while Instant::now() < deadline {
            (self.at, self.client) = (endpoint, None);
            let all = everything();
            let found: Option<pb::RangeResponse> = self.ask(Kind::Range, kv::RANGE, &all);
            let header = found.and_then(|found| found.header);
            if let Some(header) = header {
                return Ok(header.revision);
            }
        }
        let late = format!("{} does not answer", self.endpoints[endpoint]);
        Err(io::Error::new(io::ErrorKind::TimedOut, late))
    }

    /// Everything that ever happened, told by one member up to this revision.
    fn watch_all(&mut self, endpoint: usize, revision: i64) -> io::Result<()> {
        self.at = endpoint;
        let opened = self.open_watch(1);
        let (number, mut stream) =
            opened.ok_or_else(|| io::Error::other("a watch does not open in the calm"))?;
        let mut last = 1;
        while last < revision {
            let told = self.told(number, &mut stream, CALM);
            last = last.max(told.map_err(|status| io::Error::other(status.to_string()))?);
        }
        self.recorder.note(&Record {
            client: number,
            kind: Kind::Complete.into(),
            request: pb::RangeRequest { revision, ..Default::default() }.encode_to_vec(),
            ..Default::default()
        });
        Ok(())
    }
}

fn everything_watched() -> pb::WatchCreateRequest {
    let zero = Bytes::from_static(b"\0");
    pb::WatchCreateRequest { key: zero.clone(), range_end: zero, ..Default::default() }
}

fn get_of(key: &Bytes) -> pb::RequestOp {
    let range = pb::RangeRequest { key: key.clone(), ..Default::default() };
    pb::RequestOp { request: Some(Nested::RequestRange(range)) }
}
