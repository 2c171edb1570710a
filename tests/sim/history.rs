//! What members wrote to their logs and showed as applied, and what must be true of it whoever asked
//! what: raft's safety.
//!
//! A [`History`] reads each log's frames off the disk as they are written. The first member that
//! shows an index as applied fixes its entry; from then on:
//!
//! 1. **One leader a term**, and one boot of it ([`History::leads`]).
//! 2. **Log matching.** An entry is named by its index and term: whoever writes it writes the same,
//!    behind the same.
//! 3. **Nothing committed is lost or changed.** What is fixed is what every member shows there; no
//!    member writes another entry over it.
//! 4. **Leader completeness.** A term's log begins behind all that was fixed before it, and holds it
//!    ([`Ledger::holds`]).
//! 5. **Promises are kept durably** ([`History::promises`]): a vote and an acknowledged append leave a
//!    member when they are on its disk.

use crate::{
    check::{parse, unframed},
    disk::SimDisk,
    executor::Lot,
    rot::{self, Place},
};
use prost::bytes::Bytes;
use proto::etcdserverpb as pb;
use ringleader::{
    api::{self, Edge, Read},
    consensus::{Kind, Message},
    io::BLOCK_BYTES,
    store::{View, command::Range},
    types::{LeaseId, Ticket},
    wal::{
        self, HardState, LogEntry,
        frame::{self, Seen},
        segment::{self, Opening},
    },
};
use std::{collections::BTreeMap, time::Duration};

/// An entry, as whoever wrote it first did.
pub(crate) struct Made {
    pub(crate) entry: LogEntry,
    pub(crate) at: Duration,
    /// Term of the entry before it, once it was seen behind one.
    before: Option<u64>,
}

/// The log as one member wrote it: a later frame replaces what an earlier one said of its indexes.
#[derive(Default)]
struct Ledger {
    salts: BTreeMap<String, u64>,
    /// Term by index.
    terms: BTreeMap<u64, u64>,
    trimmed: u64,
    /// What is written and was not reported durable, by number of the write.
    on_its_way: BTreeMap<u64, Promise>,
    writes: u64,
    durable: Promise,
    /// The highest index that it has shown as applied.
    shown: u64,
    /// Where its frames are.
    frames: Vec<Framed>,
    /// Rot has come over it.
    rotten: bool,
    snapshots: u64,
    /// Up to here it has everything in its store, or in a snapshot that has come.
    whole: u64,
}

/// A frame on the disk.
struct Framed {
    name: String,
    offset: usize,
    bytes: usize,
    number: u64,
}

/// What a member may say that it has.
#[derive(Clone, Copy, Default)]
struct Promise {
    term: u64,
    vote: u64,
    last: u64,
}

impl Promise {
    fn of(state: HardState, last: u64) -> Self {
        Self { term: state.term, vote: state.vote, last }
    }
}

/// All logs of a cluster. See the head of this file.
#[derive(Default)]
pub(crate) struct History {
    /// Entries that came to each member as a whole when the cluster began.
    begun: u64,
    ledgers: BTreeMap<u64, Ledger>,
    made: BTreeMap<(u64, u64), Made>,
    /// Term of each entry that somebody showed as applied, by index.
    fixed: BTreeMap<u64, u64>,
    /// When the first entry of each term was written, which is how a leader begins, and by whom.
    terms: BTreeMap<u64, (Duration, u64)>,
    /// Member and boot that leads each term.
    leaders: BTreeMap<u64, (u64, Option<u64>)>,
    /// Whom each member voted for, by term.
    votes: BTreeMap<(u64, u64), u64>,
    trims: usize,
    /// Terms whose first entry was seen to stand behind all that was fixed.
    begun_whole: usize,
    /// Tickets that a leader drew for what was forwarded to it, and those by which it was asked.
    forwarded: BTreeMap<Ticket, Ticket>,
}

impl History {
    pub(crate) fn new(members: u64) -> Self {
        Self { begun: members, ..Self::default() }
    }

    /// Takes note of a write to a member's log. Returns its number.
    pub(crate) fn written(
        &mut self,
        member: u64,
        (name, offset): (&str, u64),
        bytes: &[u8],
        at: Duration,
    ) -> u64 {
        let ledger = self.ledgers.entry(member).or_default();
        ledger.writes += 1;
        let number = ledger.writes;
        let (mut frame, mut at_byte) = (bytes, offset as usize);
        if offset == 0 {
            ledger.frames.retain(|framed| framed.name != name);
            at_byte = BLOCK_BYTES;
            match segment::decode(&bytes[..BLOCK_BYTES]) {
                Opening::Live(header) => ledger.salts.insert(name.into(), header.frame_salt()),
                _ => ledger.salts.remove(name),
            };
            frame = &bytes[BLOCK_BYTES..];
        }
        let Some(salt) = ledger.salts.get(name) else { return number };
        match frame::decode(frame, *salt, 0) {
            Seen::Nothing => {}
            Seen::Intact(head, entries) => {
                self.trims += usize::from(head.trimmed > ledger.trimmed);
                ledger.trimmed = head.trimmed;
                let (name, bytes) = (name.to_owned(), frame.len());
                ledger.frames.push(Framed { name, offset: at_byte, bytes, number: head.number });
                let last = entries.last().map_or(ledger.durable_or_later().last, |last| last.index);
                let promise = Promise::of(head.hard_state, last.max(head.trimmed));
                ledger.on_its_way.insert(number, promise);
                self.take(member, entries, at);
            }
            Seen::Broken(_) => panic!("a frame is written broken into {name}"),
        }
        number
    }

    fn take(&mut self, member: u64, entries: Vec<LogEntry>, at: Duration) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        let ledger = self.ledgers.get_mut(&member).expect("it wrote before");
        let shown = ledger.shown;
        assert!(first > shown, "{first} is written again after {shown} was applied by {member:x}");
        let gone = ledger.terms.split_off(&first);
        let mut before = ledger.terms.get(&(first - 1)).copied();
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            if let Some(fixed) = self.fixed.get(&index) {
                let lost = gone.get(&index) == Some(fixed) && term != *fixed;
                assert!(!lost, "{member:x} writes over entry {index}, which is committed");
            }
            let newest = self.leaders.range(term + 1..).next().is_none()
                && self.terms.range(term..).next().is_none();
            if newest {
                ledger.holds(&self.fixed, self.begun, index);
                self.begun_whole += 1;
            }
            ledger.terms.insert(index, term);
            self.terms.entry(term).or_insert((at, member));
            let made = self.made.entry((index, term));
            let made = made.or_insert_with(|| Made { entry: entry.clone(), at, before });
            assert_eq!(made.entry, entry, "entry {index} of term {term} is two: {member:x}");
            let same = before.is_none() || made.before.is_none() || before == made.before;
            assert!(same, "entry {index} of term {term} stands behind two: {member:x}");
            made.before = made.before.or(before);
            before = Some(term);
        }
    }

    /// The write of this number was reported durable.
    pub(crate) fn durable(&mut self, member: u64, number: u64) {
        let ledger = self.ledgers.get_mut(&member).expect("it wrote before");
        if let Some(promise) = ledger.on_its_way.remove(&number) {
            // What is said may have been taken back by the time that it leaves.
            let last = promise.last.max(ledger.durable.last);
            ledger.durable = Promise { last, ..promise };
        }
    }

    /// Something of a member's log changes on the medium that is known to have been durable. Says what.
    pub(crate) fn rot(&mut self, member: u64, disk: &SimDisk, lot: &mut Lot) -> Option<String> {
        let ledger = self.ledgers.get_mut(&member)?;
        let names = disk.names();
        let proven = ledger.proven_on(disk);
        let there = |framed: &&Framed| framed.number < proven && names.contains(&framed.name);
        let all: Vec<&Framed> = ledger.frames.iter().filter(there).collect();
        let framed = all.get(lot.below(all.len().max(1) as u64) as usize)?;
        let Framed { name, offset, bytes, number } = framed;
        let place = Place { name, offset: *offset, bytes: *bytes };
        let what = rot::strike(disk, place, lot);
        ledger.rotten = true;
        Some(format!("{what}: frame {number}, at {offset} of {name}"))
    }

    /// Rot has come over a member's tree: what it had may not count any more.
    pub(crate) fn may_lose(&mut self, member: u64) {
        self.ledgers.entry(member).or_default().rotten = true;
    }

    /// A member starts with this in its log; all up to `applied` is in its store. `lost`: the rest
    /// was damaged and put aside. With nothing in its store, that is what was damaged, and what is in
    /// the log goes on from nothing.
    pub(crate) fn boot(
        &mut self,
        member: u64,
        recovered: &wal::Recovered,
        applied: u64,
        lost: bool,
    ) {
        if self.begun == 1 {
            // Nobody has heard of the terms in which a lone voter wrote nothing.
            let newest = recovered.hard_state.term;
            self.made.retain(|(_, term), _| *term <= newest);
            self.leaders.retain(|term, _| *term <= newest);
            self.terms.retain(|term, _| *term <= newest);
        }
        let ledger = self.ledgers.entry(member).or_default();
        if lost {
            assert!(ledger.rotten, "{member:x} calls itself damaged, which it is not");
            ledger.shown = ledger.shown.min(applied);
            ledger.frames.clear();
        }
        let stands_in = lost && applied == 0;
        let entries = if stands_in { &[] } else { &recovered.entries[..] };
        let newer = entries.iter().filter(|entry| entry.index > applied);
        drop(ledger.terms.split_off(&(applied + 1)));
        ledger.terms.extend(newer.map(|entry| (entry.index, entry.term)));
        let last = entries.last().map_or(applied, |last| last.index.max(applied));
        ledger.whole = applied;
        ledger.on_its_way.clear();
        ledger.durable = Promise::of(recovered.hard_state, last);
        let shown = ledger.shown;
        assert!(shown <= last, "{member:x} has shown {shown} as applied, and has only {last}");
        for entry in &recovered.entries {
            let made = self.made.get(&(entry.index, entry.term));
            let same = made.is_some_and(|made| made.entry == *entry);
            assert!(same, "{member:x} has an entry that nobody wrote: {entry:?}");
        }
    }

    /// A snapshot of everything up to `index` has come to a member, which may take its place there.
    pub(crate) fn arrives(&mut self, member: u64, index: u64) {
        let ledger = self.ledgers.entry(member).or_default();
        ledger.terms = ledger.terms.split_off(&(index + 1));
        ledger.whole = ledger.whole.max(index);
        ledger.snapshots += 1;
    }

    /// Up to here a member has everything as a whole, or soon will.
    pub(crate) fn whole_of(&self, member: u64) -> u64 {
        self.ledgers.get(&member).map_or(0, |ledger| ledger.whole)
    }

    /// How many have come to a member.
    pub(crate) fn snapshots_of(&self, member: u64) -> u64 {
        self.ledgers.get(&member).map_or(0, |ledger| ledger.snapshots)
    }

    /// Somebody was shown that a member has applied everything up to `applied`.
    pub(crate) fn show(&mut self, member: u64, applied: u64) {
        let reach = self.reach();
        let ledger = self.ledgers.entry(member).or_default();
        for index in ledger.shown.max(self.begun) + 1..=applied {
            match (self.fixed.get(&index), ledger.terms.get(&index)) {
                (Some(fixed), Some(own)) => {
                    assert_eq!(
                        own, fixed,
                        "{member:x} shows another entry {index}, by their terms"
                    );
                }
                (None, Some(own)) => drop(self.fixed.insert(index, *own)),
                (fixed, None) => {
                    let known = fixed.is_some();
                    assert!(known, "{member:x} has applied {index}, which is in no log ({reach})");
                }
            }
        }
        ledger.shown = ledger.shown.max(applied);
    }

    /// A boot of a member leads a term, as it says itself or, without a boot, as others say.
    pub(crate) fn leads(&mut self, term: u64, member: u64, boot: Option<u64>) {
        let known = self.leaders.entry(term).or_insert((member, boot));
        assert_eq!(known.0, member, "two members lead in term {term}");
        if let (Some(one), Some(other)) = (known.1, boot) {
            assert_eq!(one, other, "two boots of {member:x} lead in term {term}");
        }
        known.1 = known.1.or(boot);
    }

    /// Who led last, as far as anybody has said.
    pub(crate) fn newest_leader(&self) -> Option<u64> {
        self.leaders.last_key_value().map(|(_, (member, _))| *member)
    }

    /// A message leaves a member.
    pub(crate) fn promises(&mut self, message: &Message) {
        let (member, term) = (message.from.0, message.term.0);
        match message.kind {
            Kind::Append | Kind::Heartbeat | Kind::Snapshot => self.leads(term, member, None),
            Kind::VoteResponse if !message.reject => {
                let candidate = message.to.0;
                let vote = *self.votes.entry((member, term)).or_insert(candidate);
                assert_eq!(vote, candidate, "{member:x} votes twice in term {term}");
                let durable = self.ledgers.entry(member).or_default().durable;
                let kept = durable.term > term || (durable.term, durable.vote) == (term, vote);
                assert!(kept, "{member:x} gives a vote of term {term} that is not on its disk");
            }
            // With a context it says where a leader's log ends, to one that lost its own.
            Kind::AppendResponse if !message.reject && message.context.is_empty() => {
                let ledger = self.ledgers.entry(member).or_default();
                let last = ledger.durable.last.max(ledger.shown).max(self.begun);
                let index = message.index.0;
                assert!(index <= last, "{member:x} has {index}, it says, but {last} on its disk");
            }
            _ => {}
        }
    }

    /// A leader draws a ticket of its own for what is forwarded to it.
    pub(crate) fn forward(&mut self, asked: Ticket, own: Ticket) {
        self.forwarded.insert(own, asked);
    }

    /// The ticket by which a client asked for what stands in the log under this one. Whoever leads no
    /// more has sent it on.
    pub(crate) fn asked_as(&self, mut ticket: Ticket) -> Ticket {
        while let Some(before) = self.forwarded.get(&ticket) {
            ticket = *before;
        }
        ticket
    }

    /// When each term's leader began, and who it was.
    pub(crate) fn terms(&self) -> impl Iterator<Item = (u64, Duration, u64)> {
        self.terms.iter().map(|(term, (began, author))| {
            let leader = self.leaders.get(term).map_or(*author, |(leader, _)| *leader);
            (*term, *began, leader)
        })
    }

    /// How often a log was trimmed.
    pub(crate) fn trims(&self) -> usize {
        self.trims
    }

    /// How many terms were seen to begin with everything.
    pub(crate) fn begun_whole(&self) -> usize {
        self.begun_whole
    }

    /// Entries that the cluster began with.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// The highest index that anybody was shown as applied.
    pub(crate) fn reach(&self) -> u64 {
        self.fixed.last_key_value().map_or(self.begun, |(index, _)| *index)
    }

    /// The committed entry at `index`.
    pub(crate) fn committed(&self, index: u64) -> &Made {
        let term = self.fixed.get(&index).unwrap_or_else(|| panic!("a hole at {index}"));
        &self.made[&(index, *term)]
    }

    /// The term of the committed entry at `index`; 0 before the first.
    pub(crate) fn term_at(&self, index: u64) -> u64 {
        self.fixed.get(&index).copied().unwrap_or(0)
    }
}

impl Ledger {
    /// Up to this frame the log on a disk says itself that all is durable: what was on its way when the
    /// power went says nothing.
    fn proven_on(&self, disk: &SimDisk) -> u64 {
        let names = disk.names();
        let there = self.frames.iter().filter(|framed| names.contains(&framed.name));
        let proofs = there.filter_map(|Framed { name, offset, bytes, number }| {
            let (image, salt) = (disk.peek(name), self.salts.get(name)?);
            match frame::decode(image.get(*offset..offset + bytes)?, *salt, 0) {
                Seen::Intact(head, _) if head.number == *number => Some(head.durable_upto),
                _ => None,
            }
        });
        proofs.max().unwrap_or(0)
    }

    /// A term newer than all begins with this log, at `index`. Whoever leads it writes its first entry
    /// behind what it has, and whoever takes that from it has the same before it. What is fixed by now
    /// was committed in earlier terms, since nobody has led a later one.
    ///
    /// # Panics
    /// Where something of that is missing or another.
    fn holds(&self, fixed: &BTreeMap<u64, u64>, begun: u64, index: u64) {
        for (at, term) in fixed.range(self.whole.max(begun) + 1..) {
            let own = self.terms.get(at).filter(|_| *at < index);
            assert_eq!(
                own,
                Some(term),
                "entry {at} is committed; a term begins without it at {index}"
            );
        }
    }

    /// What will be durable when all writes are.
    fn durable_or_later(&self) -> Promise {
        self.on_its_way.last_key_value().map_or(self.durable, |(_, promise)| *promise)
    }
}

/// Everything that a view shows, as bytes.
pub(crate) fn state_of(view: &View, edge: &Edge) -> Vec<u8> {
    let everything =
        Range { key: Bytes::from_static(&[0]), end: Bytes::from_static(&[0]), ..Range::default() };
    let mut framed = Vec::new();
    api::answer(&Read::Range(everything), view, edge, &mut framed).expect("all keys can be read");
    let found: pb::RangeResponse = parse(&unframed(&framed.into()));
    let mut state = format!("{:?} {:?}", view.revision, view.compacted()).into_bytes();
    state.extend(found.kvs.iter().flat_map(prost::Message::encode_to_vec));
    state.extend_from_slice(&view.cluster.encode());
    for (id, lease) in view.leases().from(LeaseId(i64::MIN)) {
        state.extend_from_slice(format!("{id:?} {lease:?}").as_bytes());
    }
    state
}
