//! Leases on invented clocks: a member with a log that writes when it is told to, and the deadlines
//! alone where a lone member cannot lose its term.

use super::*;
use crate::{
    consensus::{Append, Durable, Replica, Timing},
    node::Event,
    store::{Lease, Outcome, Quota, Store, encode_lease_grant},
    tree::{Options, Tree},
    types::{ClusterId, Index, MemberId, Term},
};
use bytes::Bytes;

const ID: LeaseId = LeaseId(7);
const ELECTION: Duration = Duration::from_secs(1);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn moment(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn store(quota: Quota) -> Store {
    Store::new(Tree::new(Options::default()), quota)
}

/// A member that leads alone. What it appends is written when it is told so.
struct House {
    node: Node,
    unwritten: Vec<Append>,
    replies: Vec<(Ticket, Reply)>,
    tickets: u64,
}

impl House {
    fn new() -> Self {
        Self::with_quota(Quota::from_flag(-1))
    }

    fn with_quota(quota: Quota) -> Self {
        let id = MemberId(1);
        let durable = Durable::nothing(vec![id]);
        let timing = Timing::default();
        let replica = Replica::recover(id, &durable, timing).expect("an empty log has no gap");
        let node = Node::new(ClusterId(1), id, replica, store(quota));
        let mut house = Self { node, unwritten: Vec::new(), replies: Vec::new(), tickets: 0 };
        house.node.keep_pace(ELECTION / 10, ELECTION);
        house.node.campaign();
        house.settle(Duration::ZERO);
        assert!(matches!(house.node.leases.standing, Standing::InCharge { .. }));
        house
    }

    /// One turn at `now`.
    fn turn(&mut self, now: Duration, events: Vec<Event>, room: bool) {
        let mut actions = Vec::new();
        self.node.begin_turn(now);
        for event in events {
            self.node.handle(event, &mut actions);
        }
        self.node.flush(room, &mut actions).expect("nothing is stuck");
        for action in actions {
            match action {
                Action::Append(append) => self.unwritten.push(append),
                Action::Reply { ticket, reply } => self.replies.push((ticket, reply)),
                Action::Peers(word) => panic!("a lone member has nobody to tell: {word:?}"),
                Action::Install(staged) => panic!("nobody sends a lone member {staged:?}"),
            }
        }
    }

    fn written(&mut self) -> Vec<Event> {
        let appends = std::mem::take(&mut self.unwritten).into_iter();
        appends.map(|append| Event::Appended { number: append.number }).collect()
    }

    /// Turns at `now` until nothing is left to do.
    fn settle(&mut self, now: Duration) {
        loop {
            let events = self.written();
            self.turn(now, events, true);
            if self.unwritten.is_empty() && !self.node.has_more() {
                return;
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn propose(&mut self, now: Duration, request: Bytes) -> Outcome {
        let ticket = self.ticket();
        self.turn(now, vec![Event::Propose { ticket, request }], true);
        self.settle(now);
        match self.answer(ticket) {
            Some(Reply::Applied(outcome)) => outcome,
            other => panic!("a proposal was answered with {other:?}"),
        }
    }

    fn grant(&mut self, now: Duration, id: LeaseId, ttl: i64) {
        let outcome = self.propose(now, encode_lease_grant(id, ttl));
        assert!(matches!(outcome, Outcome::LeaseGranted { .. }), "{outcome:?}");
    }

    fn put(&mut self, now: Duration, key: &str, lease: LeaseId) {
        let put = proto_put(key, lease);
        assert!(matches!(self.propose(now, put), Outcome::Put(_)));
    }

    /// Asks in a turn of its own; nothing is written in it.
    fn ask(&mut self, now: Duration, ask: LeaseAsk, room: bool) -> Ticket {
        let ticket = self.ticket();
        self.turn(now, vec![Event::Lease { ticket, ask }], room);
        ticket
    }

    fn answer(&mut self, ticket: Ticket) -> Option<Reply> {
        let at = self.replies.iter().position(|(to, _)| *to == ticket)?;
        Some(self.replies.remove(at).1)
    }

    fn renew(&mut self, now: Duration) -> Option<Option<i64>> {
        let ticket = self.ask(now, LeaseAsk::Renew(ID), true);
        renewed(self.answer(ticket))
    }

    fn lives(&self, id: LeaseId) -> bool {
        self.node.store().leases().get(id).is_some()
    }
}

fn renewed(reply: Option<Reply>) -> Option<Option<i64>> {
    match reply {
        None => None,
        Some(Reply::Renewed(ttl)) => Some(ttl),
        Some(other) => panic!("a renewal was answered with {other:?}"),
    }
}

/// A put as the edge proposes it, by hand: this module has no door to the generated messages.
fn proto_put(key: &str, lease: LeaseId) -> Bytes {
    let mut request = vec![0x0a, key.len() as u8];
    request.extend_from_slice(key.as_bytes());
    request.extend([0x18, u8::try_from(lease.0).expect("small ids here")]);
    command::body(command::field::PUT, &request)
}

#[test]
fn a_lease_lives_until_its_deadline_and_goes_with_its_keys_right_after() {
    let mut house = House::new();
    house.grant(seconds(10), ID, 5);
    house.put(seconds(11), "a", ID);
    let revision = house.node.store().revision();
    house.settle(seconds(15) - Duration::from_nanos(1));
    assert!(house.lives(ID), "revoked before its time");
    house.settle(seconds(15));
    assert!(!house.lives(ID));
    assert_eq!(house.node.store().revision().0, revision.0 + 1, "its key went with it");
    let meters = house.node.lease_meters();
    let counted = [&meters.granted, &meters.revoked, &meters.expired].map(|count| count.get());
    assert_eq!(counted, [1, 1, 1]);
}

#[test]
fn a_renewal_just_before_the_deadline_counts_in_full() {
    let mut house = House::new();
    house.grant(Duration::ZERO, ID, 5);
    assert_eq!(house.renew(moment(4_999)), Some(Some(5)));
    house.settle(moment(9_998));
    assert!(house.lives(ID), "revoked within the TTL of a renewal");
    house.settle(moment(9_999));
    assert!(!house.lives(ID));
    assert_eq!(house.renew(moment(10_000)), Some(None));
}

#[test]
fn in_a_turn_that_comes_late_renewals_go_before_expiry() {
    let mut house = House::new();
    house.grant(Duration::ZERO, ID, 5);
    assert_eq!(house.renew(seconds(60)), Some(Some(5)), "it was there, so it can be renewed");
    house.settle(moment(64_999));
    assert!(house.lives(ID));
}

#[test]
fn a_renewal_while_the_revocation_is_on_its_way_waits_and_finds_nothing() {
    let mut house = House::new();
    house.grant(Duration::ZERO, ID, 5);
    house.turn(seconds(5), vec![], true);
    assert_eq!(house.unwritten.len(), 1, "the revocation is with the disk");
    let waits = house.ask(seconds(6), LeaseAsk::Renew(ID), true);
    let asked = house.ask(seconds(6), LeaseAsk::Remaining(ID), true);
    let expected = Some(LeaseTime { granted: 5, remaining: Duration::ZERO });
    assert!(matches!(house.answer(asked), Some(Reply::Remaining(time)) if time == expected));
    assert!(house.answer(waits).is_none(), "acknowledged, and then revoked");
    house.settle(seconds(7));
    assert_eq!(renewed(house.answer(waits)), Some(None));
}

#[test]
fn behind_a_stuck_disk_nothing_expires_and_renewals_count() {
    let mut house = House::new();
    house.grant(Duration::ZERO, ID, 5);
    for second in 5..20 {
        house.turn(seconds(second), vec![Event::Tick], false);
    }
    assert!(house.unwritten.is_empty(), "a revocation was queued behind a stuck disk");
    let ticket = house.ask(seconds(20), LeaseAsk::Renew(ID), false);
    assert_eq!(renewed(house.answer(ticket)), Some(Some(5)));
    house.settle(seconds(24));
    assert!(house.lives(ID));
    house.settle(seconds(25));
    assert!(!house.lives(ID));
}

#[test]
fn a_revocation_of_an_older_term_is_ignored() {
    let mut house = House::new();
    house.grant(Duration::ZERO, ID, 5);
    let (term, applied) = (house.node.leadership().term, house.node.applied());
    let late = Expired { term: Term(term.0 - 1), applied };
    assert_eq!(house.propose(seconds(1), encode_lease_revoke(ID, Some(late))), Outcome::Done);
    assert!(house.lives(ID), "the leader of another term thought it expired");
    assert_eq!(house.renew(seconds(4)), Some(Some(5)));
    let now = encode_lease_revoke(ID, Some(Expired { term, applied }));
    assert!(matches!(house.propose(seconds(5), now), Outcome::LeaseRevoked { .. }));
}

/// A client revokes a lease and grants its id again, and before either is applied the old lease's
/// time has come: the revocation that follows them is not meant for the new one.
#[test]
fn a_lease_granted_again_outlives_the_revocation_of_the_one_before() {
    let mut house = House::new();
    house.grant(Duration::ZERO, ID, 5);
    let bodies = [encode_lease_revoke(ID, None), encode_lease_grant(ID, 5)];
    let events =
        bodies.map(|request| Event::Propose { ticket: house.ticket(), request }).into_iter();
    house.turn(moment(4_999), events.collect(), true);
    house.turn(seconds(5), vec![], true);
    assert_eq!(house.unwritten.len(), 2, "the leader's own is behind the client's");
    house.settle(seconds(6));
    assert!(house.lives(ID), "the new lease went with the old one");
    assert_eq!(house.renew(seconds(7)), Some(Some(5)));
    house.settle(seconds(12));
    assert!(!house.lives(ID));
}

#[test]
fn a_lease_that_was_granted_when_room_had_run_out_expires_too() {
    let mut house = House::with_quota(Quota::from_flag(1));
    let outcome = house.propose(Duration::ZERO, encode_lease_grant(ID, 5));
    assert_eq!(outcome, Outcome::LeaseGrantedWithoutRoom { id: ID, ttl: 5 });
    assert!(house.lives(ID));
    house.settle(seconds(5));
    assert!(!house.lives(ID));
}

#[test]
fn a_lease_that_a_client_revokes_is_forgotten_and_may_be_granted_again() {
    let mut house = House::new();
    house.grant(Duration::ZERO, ID, 5);
    let outcome = house.propose(seconds(1), encode_lease_revoke(ID, None));
    assert!(matches!(outcome, Outcome::LeaseRevoked { .. }));
    assert!(house.node.leases.running.is_empty() && house.node.leases.queue.is_empty());
    house.grant(seconds(3), ID, 5);
    house.settle(moment(7_999));
    assert!(house.lives(ID), "the first one's deadline counts no more");
    house.settle(seconds(8));
    assert!(!house.lives(ID));
    assert_eq!(house.node.lease_meters().expired.get(), 1);
}

/// How many revocations each append holds, while `house` goes on in steps of a millisecond.
fn expire_all(house: &mut House, from: Duration, left: impl Fn(&House) -> u64) -> Vec<u64> {
    let (mut now, mut pieces) = (from, Vec::new());
    while left(house) > 0 {
        let before = left(house);
        house.settle(now);
        pieces.push(before - left(house));
        now += moment(1);
        assert!(now < from + seconds(60), "{} are still there", left(house));
    }
    pieces
}

#[test]
fn many_that_expire_at_once_go_in_pieces_at_their_interval() {
    let mut house = House::new();
    let leases = 10 * LEASE_EXPIRY_CHANGES_MAX as u64;
    for id in 0..leases {
        house.node.store.tree_mut().set_lease(LeaseId(id as i64), leased(5));
        house.node.leases.granted(LeaseId(id as i64), 5, Duration::ZERO);
    }
    let pieces = expire_all(&mut house, seconds(5), |house| house.node.store().leases().count());
    let most = LEASE_EXPIRY_CHANGES_MAX as u64;
    let interval = LEASE_EXPIRY_INTERVAL.as_millis() as usize;
    for (millis, piece) in pieces.iter().enumerate() {
        let expected = if millis % interval == 0 { most } else { 0 };
        assert_eq!(*piece, expected, "after {millis} ms");
    }
    assert_eq!(pieces.len(), 9 * interval + 1);
    assert_eq!(house.node.wants_turn_at(), None, "nothing is left to be woken for");
}

#[test]
fn keys_count_as_much_as_leases() {
    let mut house = House::new();
    for id in 1..=5 {
        house.grant(Duration::ZERO, LeaseId(id), 5);
        for key in 0..100 {
            house.put(Duration::ZERO, &format!("{id}/{key}"), LeaseId(id));
        }
    }
    let pieces = expire_all(&mut house, seconds(5), |house| house.node.store().leases().count());
    let taken: Vec<_> = pieces.into_iter().filter(|piece| *piece > 0).collect();
    assert_eq!(taken, [2, 2, 1], "a hundred keys and a lease, twice, are a piece");
}

fn leased(ttl: i64) -> Lease {
    Lease { granted: ttl, remaining: 0, since: Index(0) }
}

/// The deadlines alone, with a store that has these leases.
fn alone(leases: impl Iterator<Item = i64>, ttl: i64) -> (Expiry, Store) {
    let mut store = store(Quota::from_flag(-1));
    leases.for_each(|id| store.tree_mut().set_lease(LeaseId(id), leased(ttl)));
    let mut expiry = Expiry::default();
    expiry.extend_by(ELECTION);
    (expiry, store)
}

fn leads(term: u64) -> Leadership {
    Leadership { leader: MemberId(1), own: true, term: Term(term) }
}

fn follows(term: u64) -> Leadership {
    Leadership { leader: MemberId(2), own: false, term: Term(term) }
}

#[test]
fn a_new_leader_gives_every_lease_its_ttl_and_an_election_more() {
    let (mut expiry, store) = alone(1..=3, 10);
    let mut out = Vec::new();
    expiry.on_leadership(leads(2), &mut out);
    expiry.tend(seconds(90), store.leases());
    assert!(expiry.take_due(seconds(1_000), store.leases()).is_empty(), "not in charge yet");
    let early = LeaseAsk::Renew(LeaseId(2));
    expiry.ask(Ticket(1), early, seconds(95), store.leases(), &mut out);
    assert!(out.is_empty(), "an earlier leader may have revoked it");
    expiry.take_charge(seconds(100), store.leases(), &mut out);
    assert!(matches!(out[..], [Action::Reply { reply: Reply::Renewed(Some(10)), .. }]));
    expiry.tend(seconds(100), store.leases());
    let just_before = seconds(111) - Duration::from_nanos(1);
    assert!(expiry.take_due(just_before, store.leases()).is_empty());
    assert_eq!(expiry.take_due(seconds(111), store.leases()).len(), 3);
}

#[test]
fn who_does_not_lead_says_so_and_who_leads_no_more_sends_all_away() {
    let (mut expiry, store) = alone(1..=3, 10);
    let mut out = Vec::new();
    let unavailable = |out: &mut Vec<Action>| match out.pop() {
        Some(Action::Reply { reply: Reply::Unavailable(why), .. }) => why,
        other => panic!("{other:?}"),
    };
    expiry.ask(Ticket(1), LeaseAsk::Renew(ID), seconds(1), store.leases(), &mut out);
    assert_eq!(unavailable(&mut out), Unavailable::NoLeader);
    expiry.on_leadership(leads(2), &mut out);
    expiry.take_charge(seconds(1), store.leases(), &mut out);
    expiry.tend(seconds(1), store.leases());
    assert_eq!(expiry.take_due(seconds(12), store.leases()).len(), 3);
    let late = LeaseAsk::Renew(LeaseId(1));
    expiry.ask(Ticket(2), late, seconds(13), store.leases(), &mut out);
    assert!(out.is_empty());
    expiry.on_leadership(follows(3), &mut out);
    assert_eq!(unavailable(&mut out), Unavailable::LeaderChanged);
    // What it knew counts no more, not even for itself.
    expiry.on_leadership(leads(4), &mut out);
    expiry.take_charge(seconds(20), store.leases(), &mut out);
    while expiry.has_more() {
        expiry.tend(seconds(20), store.leases());
    }
    assert!(expiry.take_due(seconds(30), store.leases()).is_empty());
    assert_eq!(expiry.take_due(seconds(31), store.leases()).len(), 3);
}

#[test]
fn what_raft_would_not_take_may_be_renewed_and_is_tried_again() {
    let (mut expiry, store) = alone(1..=2, 10);
    let mut out = Vec::new();
    expiry.on_leadership(leads(2), &mut out);
    expiry.take_charge(seconds(0), store.leases(), &mut out);
    expiry.tend(seconds(0), store.leases());
    let due = expiry.take_due(seconds(11), store.leases());
    expiry.put_back(&due);
    expiry.ask(Ticket(1), LeaseAsk::Renew(LeaseId(1)), seconds(11), store.leases(), &mut out);
    assert!(matches!(out[..], [Action::Reply { reply: Reply::Renewed(Some(10)), .. }]));
    assert!(expiry.take_due(seconds(11), store.leases()).is_empty(), "not again at once");
    let again = expiry.next_due(seconds(11)).expect("one is due still");
    assert_eq!(again, seconds(11) + LEASE_EXPIRY_INTERVAL);
    assert_eq!(expiry.take_due(again, store.leases()), [LeaseId(2)]);
}

/// Renews them all and lets the queue catch up: how many turns that took.
fn renew_all(expiry: &mut Expiry, store: &Store, leases: i64, now: Duration) -> usize {
    let mut out = Vec::new();
    for id in 0..leases {
        let ask = LeaseAsk::Renew(LeaseId(id));
        expiry.ask(Ticket(1), ask, now, store.leases(), &mut out);
        assert!(matches!(out.pop(), Some(Action::Reply { reply: Reply::Renewed(Some(_)), .. })));
    }
    let mut turns = 0;
    while expiry.is_due(now + seconds(5)) {
        assert!(expiry.take_due(now + seconds(5), store.leases()).is_empty());
        turns += 1;
    }
    turns
}

#[test]
fn with_a_million_leases_no_turn_sees_more_than_its_share() {
    const LEASES: i64 = 1_000_000;
    let turns = LEASES as usize / LEASES_PER_TURN_MAX + 1;
    let (mut expiry, store) = alone(0..LEASES, 10);
    let mut out = Vec::new();
    expiry.on_leadership(leads(2), &mut out);
    expiry.take_charge(seconds(0), store.leases(), &mut out);
    for turn in 1..=turns {
        assert!(expiry.has_more());
        expiry.tend(seconds(0), store.leases());
        assert!(expiry.running.len() <= turn * LEASES_PER_TURN_MAX);
    }
    assert!(!expiry.has_more() && expiry.running.len() == LEASES as usize);

    // A storm of renewals costs the queue nothing; each lease is queued again once.
    assert_eq!(renew_all(&mut expiry, &store, LEASES, seconds(8)), turns);

    let mut pieces = 0;
    let mut now = seconds(18);
    while expiry.is_due(now) && pieces < 10 {
        let due = expiry.take_due(now, store.leases());
        assert_eq!(due.len(), LEASE_EXPIRY_CHANGES_MAX);
        assert!(expiry.take_due(now, store.leases()).is_empty(), "one piece an interval");
        now = expiry.next_due(now).expect("more are due");
        pieces += 1;
    }

    let mut listing = crate::node::listing::Listing::default();
    listing.wait(Ticket(9));
    for _ in 1..turns {
        listing.step(store.leases(), |id| expiry.deadline(id), &mut out);
        assert!(out.is_empty() && listing.has_more());
    }
    listing.step(store.leases(), |id| expiry.deadline(id), &mut out);
    let Some(Action::Reply { reply: Reply::Leases(found), .. }) = out.pop() else { panic!() };
    assert_eq!(found.len(), LEASES as usize);

    expiry.on_leadership(follows(3), &mut out);
    let mut forgetting = 0;
    while expiry.has_more() {
        expiry.tend(now, store.leases());
        forgetting += 1;
    }
    assert!(forgetting >= turns, "all were thrown away in one turn");
}

#[test]
fn a_list_has_what_was_granted_before_it_was_asked_for() {
    let mut house = House::new();
    house.grant(seconds(1), LeaseId(1), 50);
    house.grant(seconds(2), LeaseId(-2), 20);
    let ticket = house.ask(seconds(3), LeaseAsk::List, true);
    let Some(Reply::Leases(found)) = house.answer(ticket) else { panic!("a list") };
    assert_eq!(*found, [(seconds(22), LeaseId(-2)), (seconds(51), LeaseId(1))]);
    let none = house.ask(seconds(3), LeaseAsk::Remaining(LeaseId(3)), true);
    assert!(matches!(house.answer(none), Some(Reply::Remaining(None))));
}
