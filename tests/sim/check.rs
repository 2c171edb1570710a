//! Who is right: what clients asked and were told, held against the log and an executable model.
//!
//! Nothing here knows how a request was drawn. The [`Ledger`] reads the log's frames off the disk
//! as they are written; the [`Chronicle`] notes each question and answer in the order in which they
//! happened. [`Chronicle::judge`] then asks:
//!
//! 1. **Exactly what was said.** The ledger's requests are executed one by one by the model; every
//!    answer must equal the model's, revision and all. A read is compared with the model at the
//!    index that its view claims.
//! 2. **Nothing lost, nothing twice, nothing invented.** Each request in the ledger was made by a
//!    client and is there once; each that was answered as applied is there; none is that was
//!    refused before the log.
//! 3. **In real time.** A write's position is its place in the log, a read's lies behind the index
//!    that its view shows. Nothing stands before what had been answered when it was asked, so one
//!    sweep over the questions and answers decides linearizability.

use crate::model::{Model, No};
use prost::{Message, bytes::Bytes};
use proto::etcdserverpb as pb;
use ringleader::{
    api::status::{self, Status},
    io::BLOCK_BYTES,
    types::Ticket,
    wal::{
        LogEntry,
        frame::{self, Seen},
        segment::{self, Opening},
    },
};
use std::collections::BTreeMap;

/// The log as it was written: a later frame replaces what an earlier one said of its indexes.
#[derive(Default)]
pub(crate) struct Ledger {
    salts: BTreeMap<String, u64>,
    entries: BTreeMap<u64, LogEntry>,
    /// The highest index that anybody was shown as applied.
    shown: u64,
    trimmed: u64,
    trims: usize,
    /// The term of what this boot writes, once it has written something.
    term: Option<u64>,
}

impl Ledger {
    /// Takes note of a write to the log.
    pub(crate) fn written(&mut self, name: &str, offset: u64, bytes: &[u8]) {
        let mut frame = bytes;
        if offset == 0 {
            match segment::decode(&bytes[..BLOCK_BYTES]) {
                Opening::Live(header) => self.salts.insert(name.into(), header.frame_salt()),
                _ => self.salts.remove(name),
            };
            frame = &bytes[BLOCK_BYTES..];
        }
        let Some(salt) = self.salts.get(name) else { return };
        match frame::decode(frame, *salt, 0) {
            Seen::Nothing => {}
            Seen::Intact(head, entries) => {
                self.trims += usize::from(head.trimmed > self.trimmed);
                self.trimmed = head.trimmed;
                self.take(entries);
            }
            Seen::Broken(_) => panic!("a frame is written broken into {name}"),
        }
    }

    fn take(&mut self, entries: Vec<LogEntry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        assert!(first > self.shown, "{first} is written again after {} was applied", self.shown);
        if self.term.is_none() {
            let (term, before) = (entries[0].term, self.term_at(self.shown));
            assert!(term > before, "two boots lead in term {term}, the earlier one of {before}");
            self.term = Some(term);
        }
        drop(self.entries.split_off(&first));
        self.entries.extend(entries.into_iter().map(|entry| (entry.index, entry)));
    }

    /// Somebody was shown that everything up to `applied` is applied.
    pub(crate) fn show(&mut self, applied: u64) {
        let last = self.last();
        assert!(applied <= last, "{applied} is applied, and the log ends at {last}");
        self.shown = self.shown.max(applied);
    }

    /// The member starts again. A lone voter then begins a term of its own.
    pub(crate) fn boot(&mut self) {
        self.term = None;
    }

    /// The term of the entry at `index`; 0 before the first.
    fn term_at(&self, index: u64) -> u64 {
        self.entries.get(&index).map_or(0, |entry| entry.term)
    }

    /// How often the log was trimmed.
    pub(crate) fn trims(&self) -> usize {
        self.trims
    }

    pub(crate) fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }
}

/// What a client can ask.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    /// The member makes itself known.
    Introduce(Bytes),
}

/// What the answer to a request holds, its header reduced to the revision.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    Done,
    No(Status),
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It was applied or read: a framed gRPC message, or a no.
    Applied(Result<Bytes, Status>),
    /// It never came into the log.
    TurnedAway,
}

#[derive(Debug)]
struct Op {
    request: Request,
    ticket: Option<Ticket>,
    /// Answered from a view.
    read: bool,
    /// Any view will do.
    serializable: bool,
    asked: u64,
    answered: Option<Answered>,
}

#[derive(Debug)]
struct Answered {
    at: u64,
    answer: Answer,
    /// What the view of that moment had applied.
    applied: u64,
}

/// Everything that clients saw, in order.
#[derive(Default)]
pub(crate) struct Chronicle {
    ops: Vec<Op>,
    moment: u64,
    audit: u64,
    /// One line for each thing worth telling.
    pub(crate) story: Vec<String>,
}

/// A place in the history: behind this many requests of the entry at this index.
type Position = (u64, usize);

impl Chronicle {
    pub(crate) fn asked(
        &mut self,
        request: Request,
        ticket: Option<Ticket>,
        read: bool,
        serializable: bool,
    ) -> usize {
        self.moment += 1;
        let (asked, answered) = (self.moment, None);
        self.note(&asked.to_le_bytes());
        self.ops.push(Op { request, ticket, read, serializable, asked, answered });
        self.ops.len() - 1
    }

    pub(crate) fn answered(&mut self, op: usize, answer: Answer, applied: u64) {
        self.moment += 1;
        self.note(&(op as u64).to_le_bytes());
        self.note(&applied.to_le_bytes());
        match &answer {
            Answer::Applied(Ok(bytes)) => self.note(bytes),
            Answer::Applied(Err(status)) => self.note(status.message.as_bytes()),
            Answer::TurnedAway => self.note(b"turned away"),
        }
        let answered = Answered { at: self.moment, answer, applied };
        let before = self.ops[op].answered.replace(answered);
        assert!(before.is_none(), "request {op} is answered twice");
    }

    fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.audit = (self.audit ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn audit(&self) -> u64 {
        self.audit
    }

    /// Requests so far, and how many were answered as applied.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let applied =
            |op: &&Op| matches!(&op.answered, Some(Answered { answer: Answer::Applied(_), .. }));
        (self.ops.len(), self.ops.iter().filter(applied).count())
    }

    /// Requests that were turned away, and those that were never answered.
    pub(crate) fn ends(&self) -> (usize, usize) {
        let turned_away =
            |op: &&Op| matches!(&op.answered, Some(Answered { answer: Answer::TurnedAway, .. }));
        let untold = self.ops.iter().filter(|op| op.answered.is_none());
        (self.ops.iter().filter(turned_away).count(), untold.count())
    }

    /// Holds everything against the log.
    ///
    /// # Panics
    /// At the first thing that is wrong.
    pub(crate) fn judge(&self, ledger: &Ledger) {
        let positions = self.replay(ledger);
        self.judge_presence(&positions);
        self.judge_order(&positions);
    }

    /// Executes the ledger with the model and compares every answer.
    fn replay(&self, ledger: &Ledger) -> Vec<Option<Position>> {
        let mut replay = Replay::new(self, ledger);
        replay.reads_at(0);
        for index in 1..=ledger.last() {
            let entry = &ledger.entries.get(&index).unwrap_or_else(|| panic!("a hole at {index}"));
            let mut data = entry.data.clone();
            let mut place = 0;
            while !data.is_empty() {
                let request = pb::InternalRaftRequest::decode_length_delimited(&mut data)
                    .expect("the log holds etcd's requests");
                place += 1;
                replay.execute(request, (index, place));
            }
            replay.reads_at(index);
        }
        replay.positions
    }

    fn judge_presence(&self, positions: &[Option<Position>]) {
        for (id, (op, position)) in self.ops.iter().zip(positions).enumerate() {
            match &op.answered {
                Some(Answered { answer: Answer::Applied(_), .. }) => {
                    assert!(position.is_some(), "acknowledged and lost: {}", self.tell(id));
                }
                Some(Answered { answer: Answer::TurnedAway, .. }) => {
                    assert!(position.is_none(), "turned away and applied: {}", self.tell(id));
                }
                None => {}
            }
        }
    }

    /// One sweep in the order in which things happened.
    fn judge_order(&self, positions: &[Option<Position>]) {
        let asked = self.ops.iter().enumerate().map(|(id, op)| (op.asked, id, false));
        let answered = self.ops.iter().enumerate();
        let answered =
            answered.filter_map(|(id, op)| op.answered.as_ref().map(|done| (done.at, id, true)));
        let mut moments: Vec<(u64, usize, bool)> = asked.chain(answered).collect();
        moments.sort_unstable();
        let mut newest: Option<(Position, usize)> = None;
        for (_, id, is_answer) in moments {
            let (op, Some(position)) = (&self.ops[id], positions[id]) else { continue };
            if is_answer {
                newest = newest.max(Some((position, id)));
                continue;
            }
            let Some((floor, witness)) = newest.filter(|_| !op.serializable) else { continue };
            let late_enough = if op.read { position >= floor } else { position > floor };
            assert!(
                late_enough,
                "not linearizable: {} stands at {position:?}, although {} at {floor:?} had been \
                 answered when it was asked",
                self.tell(id),
                self.tell(witness)
            );
        }
    }

    fn tell(&self, id: usize) -> String {
        let op = &self.ops[id];
        let answered = op.answered.as_ref().map(|answered| {
            (answered.at, answered.applied, matches!(answered.answer, Answer::Applied(_)))
        });
        format!(
            "request {id} {:?} (asked at moment {}, answered at moment/index/applied {answered:?})",
            op.request, op.asked
        )
    }
}

/// The model on its way through the log.
struct Replay<'a> {
    chronicle: &'a Chronicle,
    ledger: &'a Ledger,
    by_ticket: BTreeMap<u64, usize>,
    /// Reads that were answered, by the index their view had applied.
    reads: BTreeMap<u64, Vec<usize>>,
    model: Model,
    positions: Vec<Option<Position>>,
}

impl<'a> Replay<'a> {
    fn new(chronicle: &'a Chronicle, ledger: &'a Ledger) -> Self {
        let ops = chronicle.ops.iter().enumerate();
        let mut by_ticket = BTreeMap::new();
        let mut reads: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (id, op) in ops {
            if let (Some(ticket), false) = (op.ticket, op.read) {
                let twin = by_ticket.insert(ticket.0, id);
                assert!(twin.is_none(), "ticket {ticket:?} was drawn twice");
            }
            if let (Some(Answered { answer: Answer::Applied(_), applied, .. }), true) =
                (&op.answered, op.read)
            {
                reads.entry(*applied).or_default().push(id);
            }
        }
        let positions = vec![None; chronicle.ops.len()];
        Self { chronicle, ledger, by_ticket, reads, model: Model::default(), positions }
    }

    fn execute(&mut self, logged: pb::InternalRaftRequest, position: Position) {
        let ticket = logged.header.as_ref().map_or(0, |header| header.id);
        let id = *self.by_ticket.get(&ticket).unwrap_or_else(|| {
            panic!("{position:?} holds a request that nobody made: {logged:?}");
        });
        let op = &self.chronicle.ops[id];
        assert!(op.request.is_logged_as(&logged), "{position:?} holds another request: {logged:?}");
        let before = self.positions[id].replace(position);
        assert!(before.is_none(), "in the log twice: {}", self.chronicle.tell(id));
        let expected = execute(&mut self.model, &op.request);
        self.compare(id, expected, position);
    }

    /// Compares the reads whose views had applied just this much.
    fn reads_at(&mut self, index: u64) {
        for id in self.reads.remove(&index).unwrap_or_default() {
            let position = (index, usize::MAX);
            self.positions[id] = Some(position);
            let expected = execute(&mut self.model.clone(), &self.chronicle.ops[id].request);
            self.compare(id, expected, position);
        }
    }

    fn compare(&self, id: usize, expected: Said, position: Position) {
        let op = &self.chronicle.ops[id];
        let Some(Answered { answer: Answer::Applied(answer), .. }) = &op.answered else { return };
        let least_term = self.ledger.term_at(position.0);
        let said = match answer {
            Ok(framed) => op.request.read_answer(framed, least_term),
            Err(status) => Said::No(status.clone()),
        };
        assert!(
            said == expected,
            "wrong answer at {position:?}: {}\n  said     {said:?}\n  expected {expected:?}",
            self.chronicle.tell(id)
        );
    }
}

fn execute(model: &mut Model, request: &Request) -> Said {
    let said = match request {
        Request::Range(r) => model.range(r).map(Said::Range),
        Request::Put(r) => model.put(r).map(Said::Put),
        Request::DeleteRange(r) => Ok(Said::DeleteRange(model.delete_range(r))),
        Request::Txn(r) => model.txn(r).map(Said::Txn),
        Request::Compact(r) => model.compact(r.revision).map(|()| {
            let header =
                Some(pb::ResponseHeader { revision: model.revision, ..Default::default() });
            Said::Compact(pb::CompactionResponse { header })
        }),
        Request::Introduce(_) => Ok(Said::Done),
    };
    said.unwrap_or_else(|no| Said::No(sentence(no)))
}

fn sentence(no: No) -> Status {
    match no {
        "Compacted" => status::COMPACTED,
        "FutureRev" => status::FUTURE_REVISION,
        "KeyNotFound" => status::KEY_NOT_FOUND,
        "LeaseNotFound" => status::LEASE_NOT_FOUND,
        "LeaseExists" => status::LEASE_EXISTS,
        other => panic!("the model says {other}"),
    }
}

impl Request {
    fn is_logged_as(&self, logged: &pb::InternalRaftRequest) -> bool {
        match self {
            Self::Put(r) => logged.put.as_ref() == Some(r),
            Self::DeleteRange(r) => logged.delete_range.as_ref() == Some(r),
            Self::Txn(r) => logged.txn.as_ref() == Some(r),
            Self::Compact(r) => logged.compaction.as_ref() == Some(r),
            Self::Introduce(_) => {
                logged.cluster_version_set.is_some() || logged.cluster_member_attr_set.is_some()
            }
            Self::Range(_) => false,
        }
    }

    /// Reads a framed answer and reduces its header to what the model knows. It shows the state of
    /// an entry of `least_term`, so it cannot be of an earlier term.
    fn read_answer(&self, framed: &Bytes, least_term: u64) -> Said {
        /// A compressed-flag and a length stand before each message.
        const PREFIX_BYTES: usize = 5;
        let (prefix, message) = framed.split_at(PREFIX_BYTES);
        let len = u32::from_be_bytes(prefix[1..].try_into().expect("four bytes"));
        assert_eq!((prefix[0], len as usize), (0, message.len()), "the answer's frame");
        fn parse<M: Message + Default>(message: &[u8]) -> M {
            M::decode(message).expect("an answer is a message")
        }
        macro_rules! reduced {
            ($said:ident, $message:ty) => {{
                let mut response: $message = parse(message);
                let header = response.header.as_mut().expect("every answer has a header");
                assert_eq!((header.cluster_id, header.member_id), crate::member::WHO);
                let term = header.raft_term;
                assert!(term >= least_term, "an answer of term {term} shows term {least_term}");
                (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
                Said::$said(response)
            }};
        }
        match self {
            Self::Range(_) => reduced!(Range, pb::RangeResponse),
            Self::Put(_) => reduced!(Put, pb::PutResponse),
            Self::DeleteRange(_) => reduced!(DeleteRange, pb::DeleteRangeResponse),
            Self::Txn(_) => reduced!(Txn, pb::TxnResponse),
            Self::Compact(_) => reduced!(Compact, pb::CompactionResponse),
            Self::Introduce(_) => Said::Done,
        }
    }
}
