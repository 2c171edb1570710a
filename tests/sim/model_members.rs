//! The model of who belongs to the cluster: what etcd lets be changed, and what comes of it.

use ringleader::store::{Member, command::MemberChange};
use std::collections::{BTreeMap, BTreeSet};

/// Who belongs to the cluster, and who did once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    /// By id: whether it only learns, and where it is reached.
    pub(crate) all: BTreeMap<u64, (bool, Vec<String>)>,
    removed: BTreeSet<u64>,
}

/// Why a change is refused: the word after etcd's `Err`.
pub(crate) type No = &'static str;

impl Members {
    pub(crate) fn begin(members: impl Iterator<Item = Member>) -> Self {
        let all = members.map(|member| (member.id.0, (member.learner, member.peer_urls)));
        Self { all: all.collect(), removed: BTreeSet::new() }
    }

    /// Takes over a committed change, or says why not.
    pub(crate) fn change(&mut self, change: &MemberChange) -> Result<(), No> {
        let id = change.member().0;
        let known = self.all.get(&id).cloned();
        if self.removed.contains(&id) {
            return Err("MemberNotFound");
        }
        match (change, known) {
            (MemberChange::Add(_), Some(_)) => Err("MemberExists"),
            (MemberChange::Add(new), None) => {
                self.check_urls(id, &new.peer_urls)?;
                let learners = self.all.values().filter(|(learner, _)| *learner).count();
                if new.learner && learners > 0 {
                    return Err("TooManyLearners");
                }
                self.all.insert(id, (new.learner, new.peer_urls.clone()));
                Ok(())
            }
            (_, None) => Err("MemberNotFound"),
            (MemberChange::Update { peer_urls, .. }, Some((learner, _))) => {
                self.check_urls(id, peer_urls)?;
                self.all.insert(id, (learner, peer_urls.clone()));
                Ok(())
            }
            (MemberChange::Promote(_), Some((false, _))) => Err("NotLearner"),
            (MemberChange::Promote(_), Some((true, urls))) => {
                self.all.insert(id, (false, urls));
                Ok(())
            }
            (MemberChange::Remove(_), Some((learner, _))) => {
                let voters = self.all.values().filter(|(learner, _)| !learner).count();
                if !learner && voters == 1 {
                    return Err("LastVoter");
                }
                self.all.remove(&id);
                self.removed.insert(id);
                Ok(())
            }
        }
    }

    fn check_urls(&self, id: u64, urls: &[String]) -> Result<(), No> {
        let mut others = self.all.iter().filter(|(other, _)| **other != id);
        let taken = others.any(|(_, (_, theirs))| theirs.iter().any(|url| urls.contains(url)));
        if taken { Err("PeerUrlExists") } else { Ok(()) }
    }
}
