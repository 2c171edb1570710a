//! Snapshots: for a member that the log does not reach any more, and from a leader.
//!
//! What a snapshot holds never passes through raft. A leader takes it of its tree at the very state
//! that raft speaks of, and the peers' room brings it over, the message behind it. Where it arrives,
//! all of it lies on the disk before raft hears the message; if raft takes it, one superblock makes it
//! the member's state, and the log goes on behind it.

use super::{Action, Node};
use crate::{
    consensus::{Append, Kind, Message},
    mesh::ToPeers,
    store::BlobError,
    tree::{RootFacts, Staged, Tree},
    types::{Index, MemberId},
};

impl Node {
    /// Sends messages, those that go with a snapshot by their own way.
    pub(super) fn send(&mut self, messages: Vec<Message>, out: &mut Vec<Action>) {
        let (large, plain): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| message.kind == Kind::Snapshot);
        if !plain.is_empty() {
            out.push(Action::Peers(ToPeers::Send(plain)));
        }
        for message in large {
            let index = message.snapshot.as_ref().map(|mark| mark.index);
            if index != Some(self.store.applied()) {
                // It speaks of a state that is gone; raft asks again.
                self.replica.report_snapshot(message.to, false);
                continue;
            }
            let facts = self.store.facts(self.cluster, self.id);
            let snapshot = self.store.tree_mut().snapshot(facts);
            let message = Box::new(message);
            out.push(Action::Peers(ToPeers::Snapshot { message, snapshot }));
        }
    }

    /// A snapshot has come in whole: raft says whether it is of use.
    pub(super) fn on_arrived(
        &mut self,
        message: Message,
        staged: Box<Staged>,
        out: &mut Vec<Action>,
    ) {
        let mark = message.snapshot.as_ref().map(|mark| mark.index);
        let is_too_old = staged.applied() < self.snapshots_from;
        if self.arrived.is_some() || mark != Some(staged.applied()) || is_too_old {
            out.push(Action::Peers(ToPeers::Unneeded(staged)));
            return;
        }
        self.arrived = Some(staged);
        self.replica.step(message);
    }

    /// This member has nothing, but had everything up to `index`, and its log begins behind that. One who
    /// leads only since now may not have applied as much: raft, which knows nothing of it, asks again.
    pub fn take_no_snapshot_before(&mut self, index: Index) {
        self.snapshots_from = index;
    }

    /// raft wants its log to begin behind a snapshot: the one that has arrived.
    pub(super) fn install_for(&mut self, append: &Append, out: &mut Vec<Action>) {
        let Some(mark) = &append.snapshot else { return };
        let arrived = self.arrived.take_if(|staged| staged.applied() == mark.index);
        let staged = arrived.expect("raft hears of no snapshot that is not there");
        out.push(Action::Install(staged));
    }

    /// raft did not want it.
    pub(super) fn give_back_unneeded(&mut self, out: &mut Vec<Action>) {
        out.extend(self.arrived.take().map(|staged| Action::Peers(ToPeers::Unneeded(staged))));
    }

    /// The snapshot is this member's state now, on disk and from here on in memory.
    ///
    /// # Errors
    /// What it says of the cluster is not what the store writes.
    pub fn installed(
        &mut self,
        tree: Tree,
        facts: &RootFacts,
        out: &mut Vec<Action>,
    ) -> Result<(), BlobError> {
        self.store.replace(tree, facts)?;
        self.forget_leases(out);
        self.sweep_again();
        // The next checkpoint waits until what was written for this one is read from its files.
        self.tending_index = true;
        self.changed = true;
        Ok(())
    }

    /// What the next superblock comes behind.
    pub fn superblock(&self) -> u64 {
        self.store.tree().superblock()
    }

    /// Whether `member` is one.
    pub fn is_member(&self, member: MemberId) -> bool {
        self.store.cluster().members.contains_key(&member)
    }
}
