//! Committed entries → store → replies; and the compactions that clients wait for.

use super::{Action, Node, Stuck};
use crate::{
    consensus::Entry,
    limits::{INDEX_PAGES_PER_TURN, SUM_STEPS_PER_TURN, SWEEP_RECORDS_PER_TURN},
    mesh::Reply,
    store::{
        ALARM_NOSPACE, Outcome, Refusal,
        command::{AlarmAction, AlarmOrder},
    },
    types::{Index, Term, Ticket},
};

/// Physical compaction in progress, and who waits for it.
#[derive(Default)]
pub(super) struct Sweeping {
    waiting: Vec<(Ticket, Outcome)>,
    unfinished: bool,
}

/// Where an entry stands.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    pub(super) index: Index,
    pub(super) term: Term,
}

impl Sweeping {
    /// The last life may have ended in the middle of a sweep.
    pub(super) fn at_start() -> Self {
        Self { unfinished: true, ..Self::default() }
    }

    /// Whether another turn has work to do although nothing new happened.
    pub(super) fn has_more(&self) -> bool {
        self.unfinished
    }
}

impl Node {
    pub(super) fn on_committed(
        &mut self,
        entries: Vec<Entry>,
        out: &mut Vec<Action>,
    ) -> Result<(), Stuck> {
        let last = entries.last().map(|entry| (entry.index, entry.term));
        let Some((last, last_term)) = last else { return Ok(()) };
        for entry in entries {
            self.apply(entry, out)?;
        }
        self.replica.applied_through(last, last_term);
        if self.leadership.own && last_term == self.leadership.term {
            self.leases.take_charge(self.now, self.store.leases(), out);
        }
        self.changed = true;
        Ok(())
    }

    fn apply(&mut self, entry: Entry, out: &mut Vec<Action>) -> Result<(), Stuck> {
        let Entry { index, term, kind, data } = entry;
        if kind != 0 {
            return self.apply_change(Placed { index, term }, data, out);
        }
        let (sweeping, leases, now) = (&mut self.sweeping, &mut self.leases, self.now);
        let mut no_space = false;
        let reply = |ticket, outcome| match outcome {
            Outcome::Compacted { physical: true, .. } => {
                sweeping.unfinished = true;
                sweeping.waiting.push((ticket, outcome));
            }
            outcome => {
                match outcome {
                    Outcome::Refused(Refusal::NoSpace) => no_space = true,
                    Outcome::LeaseGranted { id, ttl, .. } => leases.granted(id, ttl, now),
                    Outcome::LeaseGrantedWithoutRoom { id, ttl } => {
                        no_space = true;
                        leases.granted(id, ttl, now);
                    }
                    Outcome::LeaseRevoked { id, .. } => leases.revoked(id, out),
                    _ => {}
                }
                sweeping.unfinished |= matches!(outcome, Outcome::Compacted { .. });
                out.push(Action::Reply { ticket, reply: Reply::Applied(outcome) });
            }
        };
        self.store.apply(index, term, data, reply).map_err(|entry| Stuck { index, entry })?;
        if no_space {
            self.raise_no_space();
        }
        Ok(())
    }

    /// Room ran out while entries were on their way: the leader raises the alarm for this member
    /// (etcd `server.go`, after apply). It stands until somebody clears it.
    fn raise_no_space(&mut self) {
        if self.leadership.own && !self.store.cluster().alarmed(ALARM_NOSPACE) {
            let member = self.id;
            let order = AlarmOrder { action: AlarmAction::Activate, member, kind: ALARM_NOSPACE };
            self.propose_own(&order.encode());
        }
    }

    /// The tree is another one: it may have something to compact.
    pub(super) fn sweep_again(&mut self) {
        self.sweeping.unfinished = true;
    }

    /// One bounded piece of physical compaction; clients that wait for it hear when it is done.
    pub(super) fn sweep(&mut self, out: &mut Vec<Action>) {
        if !self.sweeping.unfinished {
            return;
        }
        self.sweeping.unfinished = !self.store.tree_mut().sweep(SWEEP_RECORDS_PER_TURN);
        self.changed = true;
        if !self.sweeping.unfinished {
            let done = self.sweeping.waiting.drain(..);
            let reply =
                |(ticket, outcome)| Action::Reply { ticket, reply: Reply::Applied(outcome) };
            out.extend(done.map(reply));
        }
    }

    /// One bounded piece of what gives memory and disk space of the index back.
    pub(super) fn tend_index(&mut self) {
        if self.tending_index {
            self.tending_index = !self.store.tree_mut().tend_index(INDEX_PAGES_PER_TURN);
            // What a view held is free once there is a newer one.
            self.changed = true;
        }
    }

    /// A bounded piece of the checksums of compactions. No client waits for it: a view that shows
    /// one as due is a place to make it from.
    pub(super) fn sum_up(&mut self) {
        for _ in 0..SUM_STEPS_PER_TURN {
            if !self.store.has_sums_due() {
                return;
            }
            self.changed |= self.store.sum_up();
        }
    }
}
