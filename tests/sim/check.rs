//! Who is right: what clients asked and were told, held against the log and an executable model.
//!
//! Nothing here knows how a request was drawn. The [`History`] knows what is committed; the
//! [`Chronicle`] notes each question and answer in the order in which they
//! happened. [`Chronicle::judge`] then asks:
//!
//! 1. **Exactly what was said.** The committed requests are executed one by one by the model; every
//!    answer must equal the model's, revision and all. A read is compared with the model at the
//!    index that its view claims.
//! 2. **Nothing lost, nothing twice, nothing invented.** Each committed request was made by a
//!    client and is there once; each that was answered as applied is there; none is that was
//!    refused before the log.
//! 3. **In its time.** Leases end as [`check_lease`](crate::check_lease) says, and watchers are told
//!    what [`check_watch`](crate::check_watch) says.
//! 4. **In real time.** A write's position is its place in the log, a read's lies behind the index
//!    that its view shows. Nothing stands before what had been answered when it was asked, so one
//!    sweep over the questions and answers decides linearizability.

use crate::{
    check_lease::{self, Life, Lives, Place, Term},
    check_watch::{self, Line},
    history::History,
    member,
    model::{Model, No},
    model_members::Members,
    story,
    weather::Weather,
};
use prost::{Message, bytes::Bytes};
use proto::etcdserverpb as pb;
use ringleader::{
    api::status::{self, Status},
    store::command::{self, Body, Expired, MemberChange},
    types::Ticket,
};
use std::{collections::BTreeMap, time::Duration};

/// What a client can ask.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    /// One message of a keep-alive stream.
    Renew(i64),
    TimeToLive(pb::LeaseTimeToLiveRequest),
    Leases,
    /// The member makes itself known.
    Introduce(Bytes),
    Change(MemberChange),
    /// To this member.
    MoveLeader(u64),
}

/// What the answer to a request holds, its header reduced to the revision.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    Grant(pb::LeaseGrantResponse),
    Revoke(pb::LeaseRevokeResponse),
    /// Who is a member after a change.
    Members(Vec<(u64, bool, Vec<String>)>),
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

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Whoever applies the log.
    Log,
    /// A view: any that there is, or one that is new enough.
    View { serializable: bool },
    /// The leader's clock.
    Clock,
    /// Whoever leads, without the log.
    Leader,
}

/// When a client asked or heard, in every sense.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Counts all moments.
    pub(crate) number: u64,
    /// By the simulated clock, which is right.
    pub(crate) at: Duration,
    /// What the newest view, or the one that the answer came from, had applied.
    pub(crate) applied: u64,
    /// The highest index that any member had shown as applied.
    pub(crate) reach: u64,
}

/// The same before it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) at: Duration,
    pub(crate) applied: u64,
    pub(crate) reach: u64,
}

#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) request: Request,
    /// Who is asked.
    pub(crate) member: u64,
    ticket: Option<Ticket>,
    pub(crate) way: Way,
    pub(crate) asked: Moment,
    pub(crate) answered: Option<Answered>,
}

#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) when: Moment,
    pub(crate) answer: Answer,
}

/// A stretch of time on which nothing but its clients makes the cluster busy.
pub(crate) struct Day {
    pub(crate) began: Duration,
    /// When the first of its clients left in peace.
    pub(crate) ended: Option<Duration>,
}

/// Everything that clients saw, in order.
#[derive(Default)]
pub(crate) struct Chronicle {
    pub(crate) ops: Vec<Op>,
    days: Vec<Day>,
    /// What happened on each watch stream.
    streams: Vec<(u64, Vec<Line>)>,
    moment: u64,
    audit: u64,
    /// What the life came past, and how often.
    pub(crate) sights: BTreeMap<&'static str, usize>,
    /// One line for each thing worth telling.
    pub(crate) story: Vec<story::Line>,
}

/// A place in the history: behind this many requests of the entry at this index.
pub(crate) type Position = (u64, usize);

impl Chronicle {
    pub(crate) fn asked(
        &mut self,
        request: Request,
        member: u64,
        ticket: Option<Ticket>,
        way: Way,
        now: Now,
    ) -> usize {
        let asked = self.moment(now);
        self.note(&asked.number.to_le_bytes());
        self.ops.push(Op { request, member, ticket, way, asked, answered: None });
        self.ops.len() - 1
    }

    fn moment(&mut self, Now { at, applied, reach }: Now) -> Moment {
        self.moment += 1;
        Moment { number: self.moment, at, applied, reach }
    }

    pub(crate) fn answered(&mut self, op: usize, answer: Answer, now: Now) {
        let when = self.moment(now);
        self.note(&(op as u64).to_le_bytes());
        self.note(&now.applied.to_le_bytes());
        match &answer {
            Answer::Applied(Ok(bytes)) => self.note(bytes),
            Answer::Applied(Err(status)) => self.note(status.message.as_bytes()),
            Answer::TurnedAway => self.note(b"turned away"),
        }
        let before = self.ops[op].answered.replace(Answered { when, answer });
        assert!(before.is_none(), "request {op} is answered twice");
    }

    /// A client opens a watch stream to a member.
    pub(crate) fn watch_opened(&mut self, member: u64) -> usize {
        self.streams.push((member, Vec::new()));
        self.streams.len() - 1
    }

    /// A watch stream's client asks; somebody had seen revision `seen` by then.
    pub(crate) fn watch_asked(&mut self, stream: usize, request: pb::WatchRequest, seen: i64) {
        self.note(&request.encode_to_vec());
        self.streams[stream].1.push(Line::Asked { request, seen });
    }

    /// A watch stream's client is told something, from a view that has applied so much.
    pub(crate) fn watch_told(&mut self, stream: usize, response: pb::WatchResponse, applied: u64) {
        self.note(&(stream as u64).to_le_bytes());
        self.note(&response.encode_to_vec());
        self.streams[stream].1.push(Line::Told { response, applied });
    }

    /// All up to `revision` must have been told on a stream.
    pub(crate) fn watch_quiet(&mut self, stream: usize, revision: i64) {
        self.streams[stream].1.push(Line::Quiet { revision });
    }

    /// A calm day begins.
    pub(crate) fn day_began(&mut self, began: Duration) {
        self.days.push(Day { began, ended: None });
    }

    /// A desk has nothing left to ask and to hear; of a calm day if one has begun.
    pub(crate) fn day_ends(&mut self, at: Duration) {
        if let Some(day) = self.days.last_mut() {
            day.ended.get_or_insert(at);
        }
    }

    pub(crate) fn see(&mut self, sight: &'static str, times: usize) {
        *self.sights.entry(sight).or_default() += times;
    }

    fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.audit = (self.audit ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn audit(&self) -> u64 {
        self.audit
    }

    /// Requests that were turned away, and those that were never answered.
    pub(crate) fn ends(&self) -> (usize, usize) {
        let turned_away =
            |op: &&Op| matches!(&op.answered, Some(Answered { answer: Answer::TurnedAway, .. }));
        let untold = self.ops.iter().filter(|op| op.answered.is_none());
        (self.ops.iter().filter(turned_away).count(), untold.count())
    }

    /// What was asked since calm began and is not answered.
    pub(crate) fn unanswered(&self) -> String {
        let began = self.days.last().map_or(Duration::ZERO, |day| day.began);
        let waits = |op: &&Op| op.answered.is_none() && op.asked.at >= began;
        let tell = |op: &Op| format!("{:?} asked of {:x} at {:?}", op.request, op.member, op.asked);
        self.ops.iter().filter(waits).map(tell).collect::<Vec<_>>().join("; ")
    }

    /// Holds everything against the log.
    ///
    /// # Panics
    /// At the first thing that is wrong.
    pub(crate) fn judge(&mut self, history: &History, weather: &Weather) {
        let Replay { positions, lives, model, .. } = self.replay(history);
        self.judge_presence(&positions);
        self.judge_order(&positions);
        let terms = history.terms().map(|(term, began, leader)| {
            (term, Term { began, rate: weather.clocks[member::machine_of(leader)] })
        });
        let (terms, days) = (terms.collect(), &self.days[..]);
        let (election, tick) = (weather.election(), weather.tick);
        let clock = check_lease::Clock { terms, days, election, tick };
        let mut seen = check_lease::judge(&self.ops, &lives, &clock);
        seen.extend(check_watch::judge(&self.streams, &model.history(), &lives));
        seen.into_iter().for_each(|(sight, times)| self.see(sight, times));
    }

    /// Executes what is committed with the model and compares every answer.
    fn replay<'a>(&'a self, history: &'a History) -> Replay<'a> {
        let mut replay = Replay::new(self, history);
        (0..=history.begun()).for_each(|index| replay.reads_at(index));
        for index in history.begun() + 1..=history.reach() {
            let written = history.committed(index);
            let mut data = written.entry.data.clone();
            if written.entry.kind != 0 {
                replay.change(data, (index, 1));
                replay.reads_at(index);
                continue;
            }
            let mut own = command::commands(data.clone());
            let mut number = 0;
            while !data.is_empty() {
                let request = pb::InternalRaftRequest::decode_length_delimited(&mut data)
                    .expect("the log holds etcd's requests");
                let own = own.next().expect("as many").expect("the member reads it too");
                number += 1;
                let place =
                    Place { position: (index, number), term: written.entry.term, at: written.at };
                match own.body {
                    Body::LeaseRevoke { id, expired: Some(expired) } => {
                        replay.expire(id.0, expired, place);
                    }
                    _ => replay.execute(request, place),
                }
            }
            replay.reads_at(index);
        }
        replay
    }

    fn judge_presence(&self, positions: &[Option<Position>]) {
        for (id, (op, position)) in self.ops.iter().zip(positions).enumerate() {
            match &op.answered {
                Some(Answered { answer: Answer::Applied(_), .. })
                    if !matches!(op.way, Way::Clock | Way::Leader) =>
                {
                    assert!(position.is_some(), "acknowledged and lost: {}", self.tell(id));
                }
                Some(Answered { answer: Answer::TurnedAway, .. }) => {
                    assert!(position.is_none(), "turned away and applied: {}", self.tell(id));
                }
                _ => {}
            }
        }
    }

    /// One sweep in the order in which things happened.
    fn judge_order(&self, positions: &[Option<Position>]) {
        let asked = self.ops.iter().enumerate().map(|(id, op)| (op.asked.number, id, false));
        let answered = self.ops.iter().enumerate();
        let answered = answered
            .filter_map(|(id, op)| op.answered.as_ref().map(|done| (done.when.number, id, true)));
        let mut moments: Vec<(u64, usize, bool)> = asked.chain(answered).collect();
        moments.sort_unstable();
        let mut newest: Option<(Position, usize)> = None;
        for (_, id, is_answer) in moments {
            let (op, Some(position)) = (&self.ops[id], positions[id]) else { continue };
            if is_answer {
                newest = newest.max(Some((position, id)));
                continue;
            }
            let Some((floor, witness)) = newest else { continue };
            let late_enough = match op.way {
                Way::View { serializable } => serializable || position >= floor,
                Way::Log | Way::Clock | Way::Leader => position > floor,
            };
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
        let answered = op
            .answered
            .as_ref()
            .map(|answered| (answered.when, matches!(answered.answer, Answer::Applied(_))));
        format!(
            "request {id} {:?} (asked at {:?}, answered at, and applied: {answered:?})",
            op.request, op.asked
        )
    }
}

/// The model on its way through the log.
struct Replay<'a> {
    chronicle: &'a Chronicle,
    history: &'a History,
    by_ticket: BTreeMap<u64, usize>,
    /// Reads that were answered, by the index their view had applied.
    reads: BTreeMap<u64, Vec<usize>>,
    model: Model,
    members: Members,
    lives: Lives,
    positions: Vec<Option<Position>>,
}

impl<'a> Replay<'a> {
    fn new(chronicle: &'a Chronicle, history: &'a History) -> Self {
        let ops = chronicle.ops.iter().enumerate();
        let mut by_ticket = BTreeMap::new();
        let mut reads: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (id, op) in ops {
            if let (Some(ticket), Way::Log) = (op.ticket, op.way) {
                let twin = by_ticket.insert(ticket.0, id);
                assert!(twin.is_none(), "ticket {ticket:?} was drawn twice");
            }
            if let Some(Answered { answer: Answer::Applied(_), when }) = &op.answered
                && matches!(op.way, Way::View { .. } | Way::Clock)
            {
                reads.entry(when.applied).or_default().push(id);
            }
        }
        let positions = vec![None; chronicle.ops.len()];
        let (model, lives) = (Model::default(), Lives::default());
        let members = Members::begin((0..history.begun() as usize).map(member::facts_of));
        Self { chronicle, history, by_ticket, reads, model, members, lives, positions }
    }

    /// The member's own revocation: it counts in the term of the leader that proposed it, for the
    /// lease that this leader knew.
    fn expire(&mut self, id: i64, seen: Expired, place: Place) {
        let knew = |life: &Life| life.granted.position.0 <= seen.applied.0;
        if seen.term.0 == place.term && self.lives.current(id).is_some_and(knew) {
            self.model.revoke(&pb::LeaseRevokeRequest { id }).expect("it is there");
            self.lives.end(id, place, true);
        }
    }

    fn execute(&mut self, logged: pb::InternalRaftRequest, place: Place) {
        let position = place.position;
        let ticket = logged.header.as_ref().map_or(0, |header| header.id);
        let id = *self.by_ticket.get(&ticket).unwrap_or_else(|| {
            panic!("{position:?} holds a request that nobody made: {logged:?}");
        });
        let op = &self.chronicle.ops[id];
        assert!(op.request.is_logged_as(&logged), "{position:?} holds another request: {logged:?}");
        let before = self.positions[id].replace(position);
        assert!(before.is_none(), "in the log twice: {}", self.chronicle.tell(id));
        let expected = execute(&mut self.model, &op.request);
        match (&op.request, &expected) {
            (Request::Grant(r), Said::Grant(_)) => {
                self.lives.begin(r, place);
            }
            (Request::Revoke(r), Said::Revoke(_)) => {
                self.lives.end(r.id, place, false);
            }
            _ => {}
        }
        self.compare(id, expected, position);
    }

    /// A change of members.
    fn change(&mut self, data: Bytes, position: Position) {
        let (ticket, change) = MemberChange::decode(data).expect("the log holds etcd's changes");
        let ticket = self.history.asked_as(ticket);
        let id = *self.by_ticket.get(&ticket.0).unwrap_or_else(|| {
            panic!("{position:?} holds a change that nobody asked for: {change:?}");
        });
        let op = &self.chronicle.ops[id];
        assert_eq!(op.request, Request::Change(change.clone()), "{position:?} holds another");
        let before = self.positions[id].replace(position);
        assert!(before.is_none(), "in the log twice: {}", self.chronicle.tell(id));
        let expected = match self.members.change(&change) {
            Ok(()) => {
                let all = self.members.all.iter();
                Said::Members(
                    all.map(|(id, (learner, urls))| (*id, *learner, urls.clone())).collect(),
                )
            }
            Err(no) => Said::No(sentence(no)),
        };
        self.compare(id, expected, position);
    }

    /// Compares the reads whose views had applied just this much.
    fn reads_at(&mut self, index: u64) {
        self.lives.after(index, &self.model);
        for id in self.reads.remove(&index).unwrap_or_default() {
            let op = &self.chronicle.ops[id];
            if op.way == Way::Clock {
                check_lease::judge_keys(op, &self.model);
                continue;
            }
            let position = (index, usize::MAX);
            self.positions[id] = Some(position);
            let expected = execute(&mut self.model.clone(), &self.chronicle.ops[id].request);
            self.compare(id, expected, position);
        }
    }

    fn compare(&self, id: usize, expected: Said, position: Position) {
        let op = &self.chronicle.ops[id];
        let Some(Answered { answer: Answer::Applied(answer), .. }) = &op.answered else { return };
        let least_term = self.history.term_at(position.0);
        let said = match answer {
            Ok(framed) => op.request.read_answer(framed, op.member, least_term),
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
        Request::Grant(r) => model.grant(r).map(Said::Grant),
        Request::Revoke(r) => model.revoke(r).map(Said::Revoke),
        Request::Introduce(_) => Ok(Said::Done),
        Request::Change(_) => unreachable!("another model has the members"),
        Request::Renew(_) | Request::TimeToLive(_) | Request::Leases | Request::MoveLeader(_) => {
            unreachable!("the model has no clock and no leader")
        }
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
        "MemberNotFound" => status::MEMBER_NOT_FOUND,
        "MemberExists" => status::MEMBER_EXISTS,
        "PeerUrlExists" => status::PEER_URL_EXISTS,
        "NotLearner" => status::NOT_LEARNER,
        "TooManyLearners" => status::TOO_MANY_LEARNERS,
        "LastVoter" => status::NOT_ENOUGH_STARTED,
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
            Self::Grant(r) => logged.lease_grant.as_ref() == Some(r),
            Self::Revoke(r) => logged.lease_revoke.as_ref() == Some(r),
            Self::Range(_)
            | Self::Renew(_)
            | Self::TimeToLive(_)
            | Self::Leases
            | Self::Change(_)
            | Self::MoveLeader(_) => false,
        }
    }

    /// Reads a framed answer and reduces its header to what the model knows. It shows the state of
    /// an entry of `least_term`, so it cannot be of an earlier term.
    fn read_answer(&self, framed: &Bytes, member: u64, least_term: u64) -> Said {
        let message = unframed(framed);
        macro_rules! reduced {
            ($said:ident, $message:ty) => {{
                let mut response: $message = parse(&message);
                let header = response.header.as_mut().expect("every answer has a header");
                assert_eq!(
                    (header.cluster_id, header.member_id),
                    (crate::member::CLUSTER.0, member)
                );
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
            Self::Grant(_) => reduced!(Grant, pb::LeaseGrantResponse),
            Self::Revoke(_) => reduced!(Revoke, pb::LeaseRevokeResponse),
            Self::Introduce(_) => Said::Done,
            // The list has another tag where somebody was added.
            Self::Change(MemberChange::Add(_)) => {
                let said: pb::MemberAddResponse = parse(&message);
                members_of(said.members)
            }
            Self::Change(_) => {
                let said: pb::MemberListResponse = parse(&message);
                members_of(said.members)
            }
            Self::Renew(_) | Self::TimeToLive(_) | Self::Leases | Self::MoveLeader(_) => {
                unreachable!("only the leader knows")
            }
        }
    }
}

fn members_of(members: Vec<pb::Member>) -> Said {
    let all = members.into_iter().map(|member| (member.id, member.is_learner, member.peer_urls));
    Said::Members(all.collect())
}

/// What is in a gRPC message's frame.
pub(crate) fn unframed(framed: &Bytes) -> Bytes {
    /// A compressed-flag and a length stand before each message.
    const PREFIX_BYTES: usize = 5;
    let (prefix, message) = framed.split_at(PREFIX_BYTES);
    let len = u32::from_be_bytes(prefix[1..].try_into().expect("four bytes"));
    assert_eq!((prefix[0], len as usize), (0, message.len()), "the answer's frame");
    framed.slice(PREFIX_BYTES..)
}

pub(crate) fn parse<M: Message + Default>(message: &Bytes) -> M {
    M::decode(message.clone()).expect("an answer is a message")
}
