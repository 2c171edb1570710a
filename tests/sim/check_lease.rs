//! When leases end, held against the clock and the log.
//!
//! The log says when each lease was granted and when it was revoked, and by whom; clients say what
//! they were told. From these alone:
//!
//! 1. **Never early.** The member revokes a lease by itself not before its TTL has passed since it
//!    was granted, since each renewal that was acknowledged was asked for, and, with one election
//!    timeout more, since a leader began who did not see it granted.
//! 2. **Gone.** On a calm day a lease that nobody renews, nor may have, is revoked within two ticks and
//!    [`GONE_WITHIN`] after the latest moment at which it may run out.
//! 3. **True answers.** What a renewal, a time to live and a list say was so at some point between
//!    the question and the answer.
//!
//! Times pass by the clock of whoever leads, and it is known how fast that goes: nothing beyond it is
//! forgiven.

use crate::{
    check::{Answer, Day, Moment, Op, Position, Request, parse, unframed},
    clocks::Rate,
    model::Model,
};
use prost::bytes::Bytes;
use proto::etcdserverpb as pb;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

/// What the judge goes by.
pub(crate) struct Clock<'a> {
    pub(crate) terms: BTreeMap<u64, Term>,
    pub(crate) days: &'a [Day],
    /// What a new leader gives to every lease.
    pub(crate) election: Duration,
    pub(crate) tick: Duration,
}

/// A term's leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Term {
    /// When it began.
    pub(crate) began: Duration,
    /// How fast its clock goes.
    pub(crate) rate: Rate,
}

/// A clock shows whole nanoseconds, and may be slow.
const ROUNDING: Duration = Duration::from_nanos(2);

impl Clock<'_> {
    /// Who may have led at some point between two moments, and known it.
    fn leaders(&self, from: Duration, to: Duration) -> impl Iterator<Item = &Term> {
        let first = self.terms.iter().rev().find(|(_, term)| term.began <= from);
        let first = first.map_or(0, |(number, _)| *number);
        self.terms.range(first..).map(|(_, term)| term).filter(move |term| term.began <= to)
    }
}

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) term: u64,
    /// When the entry was written: it was proposed before and is applied after.
    pub(crate) at: Duration,
}

/// A lease from its grant to its end. An id may have several, one after the other.
#[derive(Debug)]
pub(crate) struct Life {
    id: i64,
    ttl: i64,
    pub(crate) granted: Place,
    ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    place: Place,
    /// By the member, for its time was up.
    expired: bool,
}

impl Life {
    fn ttl(&self) -> Duration {
        seconds(self.ttl)
    }

    /// Whether it was there once the entry at `index` was applied.
    fn is_there(&self, index: u64) -> bool {
        let ended = self.ended.map_or(u64::MAX, |ended| ended.place.position.0);
        self.granted.position.0 <= index && index < ended
    }

    fn is_there_in(&self, window: &RangeInclusive<u64>) -> bool {
        window.clone().any(|index| self.is_there(index))
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.unsigned_abs())
}

/// All leases that the log knows of, and what else there was at each index.
#[derive(Default)]
pub(crate) struct Lives {
    all: Vec<Life>,
    current: BTreeMap<i64, usize>,
    /// The revision, by index.
    pub(crate) revisions: Vec<i64>,
    /// The compacted revision, by index.
    pub(crate) compacted: Vec<i64>,
}

impl Lives {
    pub(crate) fn current(&self, id: i64) -> Option<&Life> {
        self.current.get(&id).map(|at| &self.all[*at])
    }

    pub(crate) fn begin(&mut self, r: &pb::LeaseGrantRequest, granted: Place) {
        self.current.insert(r.id, self.all.len());
        self.all.push(Life { id: r.id, ttl: r.ttl, granted, ended: None });
    }

    pub(crate) fn end(&mut self, id: i64, place: Place, expired: bool) {
        let at = self.current.remove(&id).expect("the model knows it");
        self.all[at].ended = Some(Ended { place, expired });
    }

    /// The entry at `index` is executed.
    pub(crate) fn after(&mut self, index: u64, model: &Model) {
        assert_eq!(self.revisions.len() as u64, index, "one after the other");
        self.revisions.push(model.revision);
        self.compacted.push(model.compacted);
    }

    fn of(&self, id: i64) -> impl Iterator<Item = &Life> {
        self.all.iter().filter(move |life| life.id == id)
    }

    /// Whether there was no such lease at some point of `window`. One that is revoked and granted
    /// again in one entry is missing in between.
    fn was_missing(&self, id: i64, window: &RangeInclusive<u64>) -> bool {
        let ends = self.of(id).filter_map(|life| life.ended);
        let mut ends = ends.map(|ended| ended.place.position.0);
        ends.any(|end| *window.start() < end && end <= *window.end())
            || window.clone().any(|index| !self.of(id).any(|life| life.is_there(index)))
    }

    fn ids_at(&self, index: u64) -> BTreeSet<i64> {
        self.all.iter().filter(|life| life.is_there(index)).map(|life| life.id).collect()
    }
}

/// A renewal that was acknowledged.
struct Renewal<'a> {
    op: &'a Op,
    /// By index: what the one who answered had applied.
    window: RangeInclusive<u64>,
    answered: Moment,
}

/// Judges all that the clock has said and done.
///
/// # Panics
/// At the first thing that is wrong.
pub(crate) fn judge(ops: &[Op], lives: &Lives, clock: &Clock<'_>) -> Vec<(&'static str, usize)> {
    let mut renewals: BTreeMap<i64, Vec<Renewal<'_>>> = BTreeMap::new();
    let mut seen = Vec::new();
    for op in ops {
        let Some(answered) = &op.answered else { continue };
        let Answer::Applied(Ok(framed)) = &answered.answer else { continue };
        // Another member may have answered, which had applied more.
        let window = op.asked.applied..=answered.when.reach;
        match &op.request {
            Request::Renew(id) => {
                let ttl = judge_renewal(op, *id, framed, &window, lives);
                if ttl > 0 {
                    let answered = answered.when;
                    renewals.entry(*id).or_default().push(Renewal { op, window, answered });
                } else if came_too_late(op, *id, &window, lives) {
                    seen.push(("a renewal that came while its lease was being revoked", 1));
                }
            }
            Request::TimeToLive(r) => judge_time(op, r, framed, &window, lives, &renewals, clock),
            Request::Leases => judge_list(framed, &window, lives),
            _ => {}
        }
    }
    for life in &lives.all {
        let renewals = renewals.get(&life.id).map_or(&[][..], |renewals| renewals);
        judge_not_early(life, renewals, lives, clock);
        // A renewal of which nobody was told may have come at any time.
        let is_untold = |op: &&Op| op.request == Request::Renew(life.id) && op.answered.is_none();
        let untold = ops.iter().find(is_untold).map(|op| op.asked.at);
        let days = clock.days.iter().filter(|day| untold.is_none_or(|at| day.ended < Some(at)));
        days.for_each(|day| judge_gone(life, renewals, day, clock));
    }
    let ends = || lives.all.iter().filter_map(|life| life.ended);
    seen.push(("a lease that expired", ends().filter(|ended| ended.expired).count()));
    seen.push(("a lease that a client revoked", ends().filter(|ended| !ended.expired).count()));
    seen.push(("a lease that was renewed", renewals.values().map(Vec::len).sum()));
    seen
}

/// The TTL that the client was told.
fn judge_renewal(
    op: &Op,
    id: i64,
    framed: &Bytes,
    window: &RangeInclusive<u64>,
    lives: &Lives,
) -> i64 {
    let said: pb::LeaseKeepAliveResponse = parse(&unframed(framed));
    let revision = said.header.as_ref().expect("every answer has a header").revision;
    assert_eq!(revision, lives.revisions[*window.start() as usize], "of when it was asked: {op:?}");
    assert_eq!(said.id, id, "another lease: {op:?}");
    let is_true = match said.ttl {
        0 => lives.was_missing(id, window),
        ttl => lives.of(id).any(|life| life.ttl == ttl && life.is_there_in(window)),
    };
    assert!(is_true, "a wrong TTL: {said:?} answers {op:?}");
    said.ttl
}

/// Whether a renewal found a lease whose revocation by the member was on its way to the disk.
fn came_too_late(op: &Op, id: i64, window: &RangeInclusive<u64>, lives: &Lives) -> bool {
    lives.of(id).any(|life| {
        life.is_there(*window.start())
            && life.ended.is_some_and(|ended| ended.expired && ended.place.at < op.asked.at)
    })
}

/// The keys are those of the view that the answer was read from, which has applied all that `model`
/// has.
pub(crate) fn judge_keys(op: &Op, model: &Model) {
    let (Request::TimeToLive(r), Some(answered)) = (&op.request, &op.answered) else { return };
    let Answer::Applied(Ok(framed)) = &answered.answer else { return };
    let said: pb::LeaseTimeToLiveResponse = parse(&unframed(framed));
    assert_eq!(said.header.expect("every answer has a header").revision, model.revision);
    let expected = if r.keys && said.ttl >= 0 { model.lease_keys(r.id) } else { Vec::new() };
    assert_eq!(said.keys, expected, "keys of a lease: {op:?}");
}

fn judge_time(
    op: &Op,
    r: &pb::LeaseTimeToLiveRequest,
    framed: &Bytes,
    window: &RangeInclusive<u64>,
    lives: &Lives,
    renewals: &BTreeMap<i64, Vec<Renewal<'_>>>,
    clock: &Clock<'_>,
) {
    let said: pb::LeaseTimeToLiveResponse = parse(&unframed(framed));
    assert_eq!(said.id, r.id, "another lease: {op:?}");
    if said.ttl < 0 {
        assert!(lives.was_missing(r.id, window), "it was there all the time: {op:?}");
        return;
    }
    let candidates: Vec<_> = lives.of(r.id).filter(|life| life.is_there_in(window)).collect();
    let life = candidates.iter().find(|life| life.ttl == said.granted_ttl);
    let life = life.unwrap_or_else(|| panic!("no such lease: {said:?} for {op:?}"));
    let most = life.ttl() + clock.election;
    assert!(seconds(said.ttl) <= most, "more than there can be: {said:?} for {op:?}");
    let answered = op.answered.as_ref().expect("it was").when.at;
    for renewal in renewals.get(&r.id).into_iter().flatten() {
        let is_of_this = *renewal.window.start() >= life.granted.position.0;
        if is_of_this && renewal.answered.number < op.asked.number && candidates.len() == 1 {
            let fastest = clock.leaders(op.asked.at, answered).map(|term| term.rate.0).max();
            let fastest = Rate(fastest.expect("somebody led"));
            let least = life.ttl().saturating_sub(fastest.shown(answered - renewal.op.asked.at));
            // Whole seconds are told.
            let most = seconds(said.ttl + 1) + ROUNDING;
            assert!(most > least, "less than {least:?}: {said:?} for {op:?}");
        }
    }
}

fn judge_list(framed: &Bytes, window: &RangeInclusive<u64>, lives: &Lives) {
    let said: pb::LeaseLeasesResponse = parse(&unframed(framed));
    let ids: BTreeSet<i64> = said.leases.iter().map(|lease| lease.id).collect();
    assert_eq!(ids.len(), said.leases.len(), "each once");
    let is_true = window.clone().any(|index| lives.ids_at(index) == ids);
    assert!(is_true, "never were these all leases in {window:?}: {ids:?}");
}

/// No key vanishes before its lease's last acknowledged renewal and the TTL.
fn judge_not_early(life: &Life, renewals: &[Renewal<'_>], lives: &Lives, clock: &Clock<'_>) {
    let Some(Ended { place, expired: true }) = life.ended else { return };
    let Term { began, rate } = clock.terms[&place.term];
    let (start, left) = match life.granted.term == place.term {
        true => (life.granted.at, life.ttl()),
        false => (began, clock.election + life.ttl()),
    };
    let early = format!("revoked before its time: {life:?}");
    let at = place.at + ROUNDING;
    assert!(at >= start + rate.lasts(left), "{early}, which began at {start:?}, by {rate:?}");
    for Renewal { op, window, .. } in renewals {
        let of_others = lives.of(life.id).filter(|other| other.is_there_in(window));
        if life.is_there_in(window) && of_others.count() == 1 {
            let asked = op.asked.at;
            let left = rate.lasts(life.ttl());
            assert!(at >= asked + left, "{early}, renewed at {asked:?}, by {rate:?}");
        }
    }
}

/// How long it takes on a calm day to revoke a lease through the log, once it is seen to have run
/// out: two ticks after it has at the latest.
const GONE_WITHIN: Duration = Duration::from_millis(100);

fn judge_gone(life: &Life, renewals: &[Renewal<'_>], day: &Day, clock: &Clock<'_>) {
    let Some(evening) = day.ended else { return };
    let mut terms = clock.terms.iter().filter(|(_, term)| term.began <= evening);
    let Some((_, Term { began, rate })) = terms.next_back() else { return };
    let began = &day.began.max(*began);
    let gone = match life.ended {
        Some(ended) if ended.place.at < *began => return,
        Some(ended) if ended.place.at <= evening && !ended.expired => return,
        Some(ended) => ended.place.at.min(evening),
        None => evening,
    };
    // Its time runs from when it was applied, which a rough day may have put off.
    let granted = life.granted.at.max(*began);
    let renewed = renewals.iter().map(|renewal| renewal.answered.at).filter(|at| *at <= evening);
    let latest = renewed.fold(granted, Duration::max)
        + rate.lasts(life.ttl() + clock.election + clock.tick * 2);
    assert!(
        gone <= latest + GONE_WITHIN,
        "still there at {gone:?}, though it ran out {latest:?}: {life:?}"
    );
}
