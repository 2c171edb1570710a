//! When leases expire: the leader's clock, which is no part of the state.
//!
//! Every member knows which leases there are; only the leader knows when they end, and it tells
//! nobody but by revoking them through the log.
//!
//! ```text
//!  granted ─▶ running ──deadline passed──▶ expiring ──revocation applied──▶ gone
//!               ▲ │                           │
//!               └─┘ renewed                   └ renewals wait here, and then find nothing
//! ```
//!
//! - **Never early.** A deadline is a renewal's own moment and the TTL, by a clock that never goes
//!   back. From the moment a revocation is proposed no renewal is answered, so none that was
//!   acknowledged is followed by one. A revocation names its leader's term and what that leader had
//!   applied, and does nothing where an entry says otherwise (decision 10).
//! - **Across leaders.** A new leader takes charge once it has applied an entry of its own term,
//!   and so every revocation of the terms before; then each lease has its whole TTL and an election
//!   timeout more. Before that its renewals wait.
//! - **A stuck disk** takes no proposals, so nothing expires behind it, and what is renewed
//!   meanwhile lives on.
//! - **Paced.** Revocations go in pieces of [`LEASE_EXPIRY_CHANGES_MAX`] changes, one in each
//!   [`LEASE_EXPIRY_INTERVAL`]; whatever must see all leases sees [`LEASES_PER_TURN_MAX`] a turn.
//!
//! The queue is lazy: a renewal moves the deadline, in place, and not the lease's place in the
//! queue. When that comes up too early, the lease is queued again. So a renewal is one search, and
//! each lease is queued about once in its TTL however often it is renewed.

use super::{Action, Node, propose::NOBODY, read::Question};
use crate::{
    consensus::Leadership,
    limits::{
        LEASE_ASKS_HELD_MAX, LEASE_EXPIRY_CHANGES_MAX, LEASE_EXPIRY_INTERVAL,
        LEASE_KEYS_COUNTED_MAX, LEASE_TTL_SECONDS_MAX, LEASES_PER_TURN_MAX,
    },
    mesh::{Forward, LeaseAsk, LeaseTime, Reply, ToPeers},
    metrics::LeaseMeters,
    store::{
        Leases, Unavailable,
        command::{self, Expired},
        encode_lease_revoke,
    },
    types::{LeaseId, Ticket},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// The deadlines of all leases, on the member that leads.
#[derive(Default)]
pub(super) struct Expiry {
    /// How much longer than its TTL a lease lives under a new leader.
    extension: Duration,
    standing: Standing,
    /// All leases that this leader knows a deadline of, also those that are expiring.
    running: BTreeMap<LeaseId, Running>,
    /// Each lease that runs and is not expiring, once, at its deadline or before it.
    queue: BTreeSet<(Duration, LeaseId)>,
    /// Whose revocation is on its way, with the renewals that wait for it.
    expiring: BTreeMap<LeaseId, Vec<Ticket>>,
    /// Renewals in `expiring`.
    waiting: usize,
    /// No revocation before this moment.
    next_piece: Duration,
    /// What earlier times in charge have left behind, thrown away a piece at a time.
    left_behind: Vec<LeftBehind>,
    meters: Arc<LeaseMeters>,
}

/// What a member may say about the leases' time.
#[derive(Default)]
enum Standing {
    /// Nothing: somebody else leads, or nobody.
    #[default]
    Aside,
    /// Nothing yet: it leads and has not applied an entry of its term. Questions wait.
    Elected { asks: Vec<(Ticket, LeaseAsk)> },
    /// Everything. Leases from `adopt_from` on may have no deadline yet.
    InCharge { adopt_from: Option<LeaseId> },
}

/// A lease with a deadline.
struct Running {
    /// Expired from this moment on.
    deadline: Duration,
    /// Where it is in the queue: never after the deadline.
    queued: Duration,
    /// Seconds.
    granted: i64,
}

struct LeftBehind {
    running: BTreeMap<LeaseId, Running>,
    queue: BTreeSet<(Duration, LeaseId)>,
}

impl Expiry {
    /// What is counted.
    pub(super) fn meters(&self) -> Arc<LeaseMeters> {
        self.meters.clone()
    }

    /// A new leader gives each lease this much more than its TTL (etcd: one election timeout).
    pub(super) fn extend_by(&mut self, extension: Duration) {
        self.extension = extension;
    }

    /// Somebody else leads now, or in another term: what was known here counts no more, and who
    /// waits for it must ask again.
    pub(super) fn on_leadership(&mut self, now: Leadership, out: &mut Vec<Action>) {
        let fresh = if now.own { Standing::Elected { asks: Vec::new() } } else { Standing::Aside };
        let ask_again = |ticket| reply(ticket, Reply::Unavailable(Unavailable::LeaderChanged));
        if let Standing::Elected { asks } = std::mem::replace(&mut self.standing, fresh) {
            out.extend(asks.into_iter().map(|(ticket, _)| ask_again(ticket)));
        }
        let waiting = std::mem::take(&mut self.expiring).into_values().flatten();
        out.extend(waiting.map(ask_again));
        self.waiting = 0;
        if !self.running.is_empty() {
            let running = std::mem::take(&mut self.running);
            let queue = std::mem::take(&mut self.queue);
            self.left_behind.push(LeftBehind { running, queue });
        }
    }

    /// An entry of this leader's own term is applied: all that its predecessors revoked is gone.
    pub(super) fn take_charge(&mut self, now: Duration, leases: Leases<'_>, out: &mut Vec<Action>) {
        if !matches!(self.standing, Standing::Elected { .. }) {
            return;
        }
        let in_charge = Standing::InCharge { adopt_from: Some(LeaseId(i64::MIN)) };
        if let Standing::Elected { asks } = std::mem::replace(&mut self.standing, in_charge) {
            for (ticket, ask) in asks {
                self.ask(ticket, ask, now, leases, out);
            }
        }
    }

    /// A lease was granted.
    pub(super) fn granted(&mut self, id: LeaseId, granted: i64, now: Duration) {
        self.meters.granted.add(1);
        self.meters.ttl.record(ttl(granted));
        if matches!(self.standing, Standing::InCharge { .. }) {
            self.run(id, granted, now + ttl(granted));
        }
    }

    /// A lease is gone, whoever asked for it.
    pub(super) fn revoked(&mut self, id: LeaseId, out: &mut Vec<Action>) {
        self.meters.revoked.add(1);
        if let Some(running) = self.running.remove(&id) {
            self.queue.remove(&(running.queued, id));
        }
        if let Some(tickets) = self.expiring.remove(&id) {
            self.meters.expired.add(1);
            self.waiting -= tickets.len();
            out.extend(tickets.into_iter().map(|ticket| reply(ticket, Reply::Renewed(None))));
        }
    }

    /// Answers what only the leader's clock knows, or keeps the ticket until it can be answered.
    pub(super) fn ask(
        &mut self,
        ticket: Ticket,
        ask: LeaseAsk,
        now: Duration,
        leases: Leases<'_>,
        out: &mut Vec<Action>,
    ) {
        let answer = match (&mut self.standing, ask) {
            (Standing::Aside, _) => Some(Reply::Unavailable(Unavailable::NoLeader)),
            (Standing::Elected { asks }, _) if asks.len() < LEASE_ASKS_HELD_MAX => {
                asks.push((ticket, ask));
                None
            }
            (Standing::Elected { .. }, _) => Some(Reply::Unavailable(Unavailable::TooManyRequests)),
            (Standing::InCharge { .. }, LeaseAsk::Renew(id)) => self.renew(id, ticket, now, leases),
            (Standing::InCharge { .. }, LeaseAsk::Remaining(id)) => {
                Some(Reply::Remaining(self.time_of(id, now, leases)))
            }
            (_, LeaseAsk::List) => unreachable!("lists are made in pieces, in listing.rs"),
        };
        out.extend(answer.map(|answer| reply(ticket, answer)));
    }

    /// `None`: the renewal waits for the revocation that is on its way.
    fn renew(
        &mut self,
        id: LeaseId,
        ticket: Ticket,
        now: Duration,
        leases: Leases<'_>,
    ) -> Option<Reply> {
        if let Some(tickets) = self.expiring.get_mut(&id) {
            if self.waiting >= LEASE_ASKS_HELD_MAX {
                return Some(Reply::Unavailable(Unavailable::TooManyRequests));
            }
            tickets.push(ticket);
            self.waiting += 1;
            return None;
        }
        let granted = if let Some(running) = self.running.get_mut(&id) {
            // Never back: what a new leader's extension covers stays covered.
            running.deadline = running.deadline.max(now + ttl(running.granted));
            running.granted
        } else if let Some(lease) = leases.get(id) {
            self.run(id, lease.granted, now + ttl(lease.granted) + self.extension);
            lease.granted
        } else {
            return Some(Reply::Renewed(None));
        };
        self.meters.renewed.add(1);
        Some(Reply::Renewed(Some(granted)))
    }

    fn time_of(&self, id: LeaseId, now: Duration, leases: Leases<'_>) -> Option<LeaseTime> {
        if let Some(running) = self.running.get(&id) {
            let remaining = running.deadline.saturating_sub(now);
            return Some(LeaseTime { granted: running.granted, remaining });
        }
        let granted = leases.get(id)?.granted;
        Some(LeaseTime { granted, remaining: ttl(granted) + self.extension })
    }

    /// When a lease expires, as far as this member knows.
    pub(super) fn deadline(&self, id: LeaseId) -> Duration {
        self.running.get(&id).map_or(Duration::MAX, |running| running.deadline)
    }

    fn run(&mut self, id: LeaseId, granted: i64, deadline: Duration) {
        let running = Running { deadline, queued: deadline, granted };
        let before = self.running.insert(id, running);
        assert!(before.is_none(), "a lease begins to run once");
        self.queue.insert((deadline, id));
    }

    /// The next piece of leases whose time has come; each is expiring from now on.
    pub(super) fn take_due(&mut self, now: Duration, leases: Leases<'_>) -> Vec<LeaseId> {
        let (mut due, mut changes) = (Vec::new(), 0);
        if now < self.next_piece {
            return due;
        }
        for _ in 0..LEASES_PER_TURN_MAX {
            let Some(&(queued, id)) = self.queue.first() else { break };
            if queued > now {
                break;
            }
            let running = self.running.get_mut(&id).expect("what is queued runs");
            if running.deadline > now {
                self.queue.pop_first();
                running.queued = running.deadline;
                self.queue.insert((running.queued, id));
                continue;
            }
            let cost = 1 + leases.keys(id).take(LEASE_KEYS_COUNTED_MAX).count();
            if !due.is_empty() && changes + cost > LEASE_EXPIRY_CHANGES_MAX {
                break;
            }
            self.queue.pop_first();
            self.expiring.insert(id, Vec::new());
            due.push(id);
            changes += cost;
        }
        if !due.is_empty() {
            self.next_piece = now + LEASE_EXPIRY_INTERVAL * pieces(changes);
        }
        due
    }

    fn is_due(&self, now: Duration) -> bool {
        self.queue.first().is_some_and(|(queued, _)| *queued <= now)
    }

    /// raft would not take their revocation: they are tried again, and may be renewed until then.
    pub(super) fn put_back(&mut self, ids: &[LeaseId]) {
        for id in ids {
            let held = self.expiring.remove(id).expect("taken just before");
            assert!(held.is_empty(), "nobody asked in between");
            let running = &self.running[id];
            self.queue.insert((running.queued, *id));
        }
    }

    /// When the next piece may be taken, if leases wait for it already. Whatever becomes due later
    /// is seen at the next tick.
    pub(super) fn next_due(&self, now: Duration) -> Option<Duration> {
        self.is_due(now).then_some(self.next_piece)
    }

    /// One bounded piece of what must see every lease.
    pub(super) fn tend(&mut self, now: Duration, leases: Leases<'_>) {
        self.forget_some();
        let Standing::InCharge { adopt_from: Some(from) } = self.standing else { return };
        let mut next = None;
        for (seen, (id, lease)) in leases.from(from).enumerate() {
            if seen == LEASES_PER_TURN_MAX {
                next = Some(id);
                break;
            }
            if !self.running.contains_key(&id) {
                self.run(id, lease.granted, now + ttl(lease.granted) + self.extension);
            }
        }
        self.standing = Standing::InCharge { adopt_from: next };
    }

    fn forget_some(&mut self) {
        let Some(left) = self.left_behind.last_mut() else { return };
        for _ in 0..LEASES_PER_TURN_MAX {
            let ended = left.running.pop_first().is_none() & left.queue.pop_first().is_none();
            if ended {
                self.left_behind.pop();
                return;
            }
        }
    }

    /// Whether another turn has work to do although nothing new happened.
    pub(super) fn has_more(&self) -> bool {
        let adopts = matches!(self.standing, Standing::InCharge { adopt_from: Some(_) });
        adopts || !self.left_behind.is_empty()
    }
}

fn reply(ticket: Ticket, reply: Reply) -> Action {
    Action::Reply { ticket, reply }
}

/// A TTL of the log may be anything; one that this server lets in is not.
fn ttl(granted: i64) -> Duration {
    Duration::from_secs(granted.clamp(0, LEASE_TTL_SECONDS_MAX).unsigned_abs())
}

/// Intervals that so many changes take.
fn pieces(changes: usize) -> u32 {
    let pieces = changes.div_ceil(LEASE_EXPIRY_CHANGES_MAX);
    u32::try_from(pieces).expect("one piece of leases, and the counted keys of one")
}

impl Node {
    /// Lists are every member's own. The rest the leader knows: it is asked where another leads, or
    /// will: an election must not end a client's keep-alives.
    pub(super) fn on_lease(&mut self, ticket: Ticket, ask: LeaseAsk, out: &mut Vec<Action>) {
        let Leadership { leader, own, .. } = self.leadership;
        match ask {
            LeaseAsk::List => self.listing.wait(ticket),
            ask if own => self.reads.wait(Question::Lease(ticket, ask)),
            ask => {
                let what = Forward::Lease(ask);
                out.push(Action::Peers(ToPeers::Forward { ticket, to: leader, what }));
            }
        }
    }

    /// It was still the leader after it was asked, at least.
    pub(super) fn answer_lease(&mut self, ticket: Ticket, ask: LeaseAsk, out: &mut Vec<Action>) {
        if self.leadership.own {
            self.leases.ask(ticket, ask, self.now, self.store.leases(), out);
        } else {
            out.push(reply(ticket, Reply::Unavailable(Unavailable::LeaderChanged)));
        }
    }

    /// The store was replaced: what was known of its leases counts no more.
    pub(super) fn forget_leases(&mut self, out: &mut Vec<Action>) {
        self.leases.on_leadership(Leadership::default(), out);
    }

    /// Proposes to revoke what has expired, all of the piece in one entry; false with nothing due.
    pub(super) fn revoke_expired(&mut self) -> bool {
        let due = self.leases.take_due(self.now, self.store.leases());
        if due.is_empty() {
            return false;
        }
        let mut data = Vec::new();
        let expired = Expired { term: self.leadership.term, applied: self.store.applied() };
        for id in &due {
            let revoke = encode_lease_revoke(*id, Some(expired));
            command::append(&mut data, NOBODY, &revoke);
        }
        if self.replica.propose(data).is_err() {
            self.leases.put_back(&due);
        }
        true
    }

    /// One bounded piece of whatever must see all leases.
    pub(super) fn tend_leases(&mut self, out: &mut Vec<Action>) {
        self.leases.tend(self.now, self.store.leases());
        self.listing.step(self.store.leases(), |id| self.leases.deadline(id), out);
    }

    /// When this node wants a turn although nothing happens until then, by the clock of
    /// [`Node::begin_turn`]. Without room for another append there is no hurry.
    pub fn wants_turn_at(&self) -> Option<Duration> {
        self.leases.next_due(self.now)
    }
}

#[cfg(test)]
mod tests;
