//! Changes of members: what is refused before the log, and what an applied one does.
//!
//! With `--strict-reconfig-check` a change must leave a majority that is there (etcd `server.go`,
//! `mayAddMember` and its neighbours). That is judged by the member that is asked, from what it sees;
//! whether a change is right at all is judged where it is applied, by everybody alike.

use super::{Action, Node, Stuck, apply::Placed};
use crate::{
    consensus::Change,
    limits::{MEMBER_HEALTHY_AFTER, REMOVED_LINGER_TICKS},
    mesh::{Forward, Reply, ToPeers},
    store::{Changed, RaftChange, Unavailable, command::MemberChange},
    types::{MemberId, Ticket},
};
use bytes::Bytes;

/// Those who vote, and how many of them have been in touch for some time.
#[derive(Clone, Copy, Debug, Default)]
struct Voters {
    all: usize,
    healthy: usize,
}

/// The new one counts as not there: of all with it, those who are there must be a majority (etcd
/// `isConnectedToQuorumAfterAddingNewMemberSince`). Else a member that joined just now would have to be
/// in touch for some time before the next may be added.
fn is_safe_to_add(Voters { all, healthy }: Voters) -> bool {
    let with_it = all + 1;
    all == 1 || healthy > with_it / 2
}

/// One of those who are there goes: the others of them must be a majority of the rest (etcd
/// `mayRemoveMember`).
fn is_safe_to_remove(Voters { all, healthy }: Voters) -> bool {
    healthy > 1 + all.saturating_sub(1) / 2
}

impl Node {
    /// `--strict-reconfig-check`.
    pub fn set_strict(&mut self, strict: bool) {
        self.strict = strict;
    }

    pub(super) fn on_change(
        &mut self,
        ticket: Ticket,
        change: &MemberChange,
        out: &mut Vec<Action>,
    ) {
        let leadership = self.leadership;
        if let MemberChange::Promote(id) = change
            && !leadership.own
            && leadership.leader.0 != 0
        {
            let what = Forward::Promote(*id);
            out.push(Action::Peers(ToPeers::Forward { ticket, to: leadership.leader, what }));
            return;
        }
        let asked = self.may_change(change);
        let proposed = asked.and_then(|()| {
            let proposed = self.replica.propose_change(change.encode(ticket));
            // Nobody leads, or another change is on its way, which etcd makes nothing without a word.
            proposed.map_err(|_dropped| match leadership.leader.0 {
                0 => Unavailable::NoLeader,
                _ => Unavailable::TooManyRequests,
            })
        });
        if let Err(why) = proposed {
            out.push(Action::Reply { ticket, reply: Reply::Unavailable(why) });
        }
    }

    fn may_change(&self, change: &MemberChange) -> Result<(), Unavailable> {
        let cluster = self.store.cluster();
        match change {
            MemberChange::Update { .. } => Ok(()),
            MemberChange::Promote(id) => {
                self.is_in_sync(*id)?;
                self.demand(cluster.can_promote(), Unavailable::NotEnoughStarted)
            }
            MemberChange::Add(member) => {
                let enough = member.learner || cluster.can_add_voter();
                self.demand(enough, Unavailable::NotEnoughStarted)?;
                self.demand(is_safe_to_add(self.voters()), Unavailable::Unhealthy)
            }
            MemberChange::Remove(id) => {
                self.demand(cluster.can_remove(*id), Unavailable::NotEnoughStarted)?;
                let learner = cluster.members.get(id).is_some_and(|member| member.learner);
                let gone = *id != self.id && !self.contacts.has(*id);
                if learner || gone {
                    return Ok(());
                }
                self.demand(is_safe_to_remove(self.voters()), Unavailable::Unhealthy)
            }
        }
    }

    fn demand(&self, holds: bool, else_say: Unavailable) -> Result<(), Unavailable> {
        if holds || !self.strict { Ok(()) } else { Err(else_say) }
    }

    fn voters(&self) -> Voters {
        let voters = self.store.cluster().voters();
        voters.fold(Voters::default(), |so_far, voter| Voters {
            all: so_far.all + 1,
            healthy: so_far.healthy + usize::from(self.is_healthy(voter.id)),
        })
    }

    fn is_healthy(&self, member: MemberId) -> bool {
        member == self.id || self.contacts.lasts(member, MEMBER_HEALTHY_AFTER, self.now)
    }

    /// A learner may vote once it has nine tenths of the leader's log (etcd `isLearnerReady`). One
    /// that is not known is refused where the change is applied.
    fn is_in_sync(&self, learner: MemberId) -> Result<(), Unavailable> {
        if !self.leadership.own {
            return Err(Unavailable::NoLeader);
        }
        let Some(progress) = self.replica.progress(learner) else { return Ok(()) };
        let leader = self.replica.last_index().0;
        let ready = u128::from(progress.matched.0) * 10 >= u128::from(leader) * 9;
        if ready { Ok(()) } else { Err(Unavailable::LearnerNotReady) }
    }

    /// Applies a committed change of members.
    pub(super) fn apply_change(
        &mut self,
        placed: Placed,
        data: Bytes,
        out: &mut Vec<Action>,
    ) -> Result<(), Stuck> {
        let Placed { index, term } = placed;
        let changed = self.store.change_members(index, term, data);
        let changed = changed.map_err(|entry| Stuck { index, entry })?;
        let Changed { ticket, outcome, raft } = changed;
        self.replica.apply_change(match raft {
            RaftChange::AddVoter(id) => Some(Change::Voter(id)),
            RaftChange::AddLearner(id) => Some(Change::Learner(id)),
            RaftChange::Remove(id) => Some(Change::Gone(id)),
            RaftChange::None => None,
        });
        if raft == RaftChange::Remove(self.id) {
            self.ends_after.get_or_insert(REMOVED_LINGER_TICKS);
        }
        out.push(Action::Reply { ticket, reply: Reply::Applied(outcome) });
        Ok(())
    }

    /// A removed member stays for a moment, so that what removed it is known to be committed
    /// elsewhere too (etcd waits a second).
    pub(super) fn age_removed(&mut self) {
        let Some(ticks) = &mut self.ends_after else { return };
        *ticks = ticks.saturating_sub(1);
        self.removed |= *ticks == 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many voters must be in touch.
    fn needed(all: usize, is_safe: fn(Voters) -> bool) -> Option<usize> {
        (0..=all).find(|healthy| is_safe(Voters { all, healthy: *healthy }))
    }

    #[test]
    fn a_change_asks_for_as_many_as_etcds() {
        let all = [1, 2, 3, 4, 5, 6, 7];
        let to_add = all.map(|all| needed(all, is_safe_to_add));
        assert_eq!(to_add, [Some(0), Some(2), Some(3), Some(3), Some(4), Some(4), Some(5)]);
        let to_remove = all.map(|all| needed(all, is_safe_to_remove));
        assert_eq!(to_remove, [None, Some(2), Some(3), Some(3), Some(4), Some(4), Some(5)]);
    }
}
