//! What other members say, who leads, and how the lead changes hands.

use super::{Action, Node};
use crate::{
    consensus::Leadership,
    mesh::{FromPeer, Reply},
    store::Unavailable,
    types::{Index, MemberId, Term, Ticket},
};
use std::{collections::BTreeMap, time::Duration};

/// Since when this member is in touch with each other one, by the node's clock.
#[derive(Default)]
pub(super) struct Contacts {
    since: BTreeMap<MemberId, Duration>,
    /// The first contact after the start has been.
    met: bool,
}

/// Who waits for the lead to change hands.
#[derive(Default)]
pub(super) struct Moves {
    waiting: Vec<(Ticket, MemberId)>,
    /// The term in which this member has given up the lead because of its disk.
    given_up: Option<Term>,
}

impl Contacts {
    /// Whether this member is in touch with `member`.
    pub(super) fn has(&self, member: MemberId) -> bool {
        self.since.contains_key(&member)
    }

    /// Since when this member is in touch with `member`.
    pub(super) fn since(&self, member: MemberId) -> Option<Duration> {
        self.since.get(&member).copied()
    }

    /// Since when member `own` is in touch with a majority of `members`, itself among them.
    fn majority_since(
        &self,
        own: MemberId,
        members: impl ExactSizeIterator<Item = MemberId> + Clone,
    ) -> Option<Duration> {
        let majority = members.len() / 2 + 1;
        let since = |id| if id == own { Some(Duration::ZERO) } else { self.since(id) };
        let all = members.filter_map(since);
        let there_at = |at: &Duration| all.clone().filter(|since| since <= at).count() >= majority;
        all.clone().filter(there_at).min()
    }

    /// Whether this member has been in touch with `member` for so long.
    pub(super) fn lasts(&self, member: MemberId, at_least: Duration, now: Duration) -> bool {
        self.since(member).is_some_and(|since| now.saturating_sub(since) >= at_least)
    }
}

impl Node {
    pub(super) fn on_peer(&mut self, said: FromPeer, out: &mut Vec<Action>) {
        match said {
            FromPeer::Message(message) => self.replica.step(*message),
            FromPeer::Snapshot { message, staged } => self.on_arrived(*message, staged, out),
            FromPeer::Returned(message) => self.replica.on_returned(*message),
            FromPeer::Unreachable(member) => self.replica.report_unreachable(member),
            FromPeer::SnapshotSent { to, arrived } => self.replica.report_snapshot(to, arrived),
            FromPeer::Contact { member, connected } => self.on_contact(member, connected),
            FromPeer::Answered { ticket, reply } => out.push(Action::Reply { ticket, reply }),
            FromPeer::Removed => self.removed = true,
        }
    }

    /// A start among members that are there already need not wait a whole election timeout for a
    /// leader that may be gone (etcd `--initial-election-tick-advance`).
    fn on_contact(&mut self, member: MemberId, connected: bool) {
        self.changed = true;
        if !connected {
            self.contacts.since.remove(&member);
            return;
        }
        self.contacts.since.entry(member).or_insert(self.now);
        if !std::mem::replace(&mut self.contacts.met, true) && self.hurries {
            self.replica.hurry();
        }
    }

    /// See [`RaftSeen::in_touch`](crate::store::RaftSeen::in_touch). Learners count among the members,
    /// as in etcd (`isConnectedToQuorumSince`).
    pub(super) fn in_touch_since(&self) -> Option<Duration> {
        let Leadership { leader, own, .. } = self.leadership;
        if !own {
            return self.contacts.since(leader);
        }
        let members = self.store.cluster().members.keys().copied();
        self.contacts.majority_since(self.id, members)
    }

    /// `--initial-election-tick-advance`.
    pub fn set_hurry(&mut self, hurries: bool) {
        self.hurries = hurries;
    }

    /// Only the leader can hand its lead over, and only to a member that votes (etcd `MoveLeader`).
    pub(super) fn on_move_leader(&mut self, ticket: Ticket, to: MemberId, out: &mut Vec<Action>) {
        let refusal = if !self.leadership.own {
            Some(Unavailable::NotLeader)
        } else if !self.replica.configuration().voters.contains(&to) {
            Some(Unavailable::BadTransferee)
        } else {
            None
        };
        if let Some(why) = refusal {
            out.push(Action::Reply { ticket, reply: Reply::Unavailable(why) });
            return;
        }
        self.moves.waiting.push((ticket, to));
        if to != self.id {
            self.replica.hand_over(to);
        }
        self.answer_moves(out);
    }

    /// Somebody leads: those who waited for that hear of it. Who waits for another one runs out of
    /// time.
    pub(super) fn answer_moves(&mut self, out: &mut Vec<Action>) {
        let leader = self.leadership.leader;
        let done = self.moves.waiting.extract_if(.., |(_, to)| *to == leader);
        out.extend(done.map(|(ticket, _)| Action::Reply { ticket, reply: Reply::Moved }));
    }

    /// Asks the most advanced of the other voters to lead; false where this member does not lead or
    /// nobody else can. `at_least`: what the heir must have in its log.
    pub fn hand_over_lead(&mut self, at_least: Index) -> bool {
        if !self.leadership.own || self.replica.is_handing_over() {
            return false;
        }
        let able = |heir: &(MemberId, crate::consensus::Progress)| {
            heir.1.active && heir.1.matched >= at_least
        };
        let Some((heir, _)) = self.replica.heirs().into_iter().find(able) else { return false };
        crate::log::info!("leadership transfer", "from" => self.id.to_string(), "to" => heir.to_string());
        self.replica.hand_over(heir);
        true
    }

    /// This leader's disk has not finished anything for long, while another member's has: let that
    /// one lead. Once in a term, since the heir may be no better.
    pub fn flee_from_disk(&mut self, durable: Index) -> bool {
        let term = Some(self.leadership.term);
        if self.moves.given_up == term || !self.hand_over_lead(Index(durable.0 + 1)) {
            return false;
        }
        self.moves.given_up = term;
        true
    }

    /// Whether the lead is being handed over.
    pub fn is_handing_over(&self) -> bool {
        self.replica.is_handing_over()
    }

    /// Whether the log that was lost is not all there again.
    pub fn has_lost(&self) -> bool {
        self.replica.has_lost()
    }

    /// Whether nobody else votes.
    pub fn is_alone(&self) -> bool {
        self.replica.is_alone()
    }

    /// Whether the cluster has removed this member.
    pub fn is_removed(&self) -> bool {
        self.removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_there_since_its_last_came() {
        let second = Duration::from_secs;
        let since = [(2, 7), (3, 5), (5, 9)].map(|(id, at)| (MemberId(id), second(at)));
        let contacts = Contacts { since: since.into(), met: true };
        let of = |members: &[u64]| {
            let members = members.iter().copied().map(MemberId);
            contacts.majority_since(MemberId(1), members)
        };
        assert_eq!(of(&[1]), Some(Duration::ZERO), "it is always in touch with itself");
        assert_eq!(of(&[1, 2, 3]), Some(second(5)));
        assert_eq!(of(&[1, 2, 3, 4]), Some(second(7)));
        assert_eq!(of(&[1, 2, 3, 4, 5]), Some(second(7)));
        assert_eq!(of(&[1, 3, 4, 6]), None);
        assert_eq!(of(&[1, 4, 6]), None);
    }
}
