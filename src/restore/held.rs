//! What a directory holds of its past: all revisions from the compacted one to the newest that is known
//! to be committed.
//!
//! ```text
//!  superblock, records ── revisions from the compacted one on ──┐
//!  log behind it ── committed entries, applied as a start does ─┴── a view at the revision
//! ```
//!
//! The log says how far it is committed, and may know less than the member had told its clients: the
//! last entries are known to be committed by what comes behind them. Of a cluster of one, whatever is in
//! the log is.

use crate::{
    io::Disk,
    node::recover::{RecoverError, fits, newer},
    store::{BadEntry, Cluster, Quota, Store},
    tree::{self, Lease, Past, RootFacts, Tree, View},
    types::{Index, LeaseId, MemberId, Revision, Term},
    wal::{self, LogEntry},
};
use std::fmt;

/// A member's keys and leases at a revision, out of its files.
pub struct Held {
    /// Them then or later.
    view: View,
    revision: Revision,
    /// Whose they were.
    pub facts: RootFacts,
}

/// Why there is nothing to restore.
#[derive(Debug)]
pub enum NotHeld {
    /// The directory has no database.
    Nothing,
    /// It does not open.
    Unreadable(RecoverError),
    /// An entry of the log that this version does not know.
    Entry {
        /// Which.
        index: u64,
        /// What about it.
        error: BadEntry,
    },
    /// The revision is not there any more, or not yet.
    Outside {
        /// What was asked for.
        asked: Revision,
        /// The oldest and the newest that can be had.
        held: [Revision; 2],
    },
}

impl fmt::Display for NotHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("there is no database: nothing was ever written here"),
            Self::Unreadable(error) => write!(f, "{error}"),
            Self::Entry { index, error } => write!(f, "entry {index} of the log: {error}"),
            Self::Outside { asked, held: [oldest, newest] } => {
                let why = match asked < oldest {
                    true => "is compacted or never was",
                    false => "is still to come, or not known to be committed",
                };
                let (asked, oldest, newest) = (asked.0, oldest.0, newest.0);
                write!(f, "revision {asked} {why}: revisions {oldest} to {newest} can be restored")
            }
        }
    }
}

impl std::error::Error for NotHeld {}

impl Held {
    /// Finds `revision` in records and superblock below `data` and in the log below `wal`; `lost` as the
    /// ballot says it.
    ///
    /// # Errors
    /// [`NotHeld`]. Beside a running member files change meanwhile: all but [`NotHeld::Outside`] may go
    /// away when it is tried again.
    pub async fn find<D: Disk>(
        data: &D,
        wal: &D,
        sizes: tree::Options,
        lost: bool,
        revision: Revision,
    ) -> Result<Self, NotHeld> {
        let opened = tree::open(data, sizes).await.map_err(RecoverError::Tree);
        let (mut tree, root) = opened.map_err(NotHeld::Unreadable)?.ok_or(NotHeld::Nothing)?;
        let facts = root.facts;
        let oldest = tree.reader().compacted().max(Revision(1));
        if (oldest..=facts.revision).contains(&revision) {
            return Ok(Self { view: tree.publish(), revision, facts });
        }
        // Where it is too old, all of the log tells what there is instead.
        let until = if revision < oldest { Revision(i64::MAX) } else { revision };
        let (view, newest) = replay(wal, tree, &facts, lost, until).await?;
        match (oldest..=newest).contains(&revision) {
            true => Ok(Self { view, revision, facts }),
            false => Err(NotHeld::Outside { asked: revision, held: [oldest, newest] }),
        }
    }

    /// It as a tree can be made of it, with so many revisions left out behind it.
    pub fn past(&self, skipped: i64) -> Past<'_> {
        Past { reader: self.view.reader(), revision: self.revision, skipped }
    }

    /// What is known of a lease.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.view.reader().lease(id)
    }
}

/// Applies the committed entries behind the superblock, up to the end of `until` or all of them. Returns
/// the state then and the newest revision.
async fn replay<D: Disk>(
    wal: &D,
    tree: Tree,
    facts: &RootFacts,
    lost: bool,
    until: Revision,
) -> Result<(View, Revision), NotHeld> {
    let quota = Quota::from_flag(0);
    let store = Store::recover(tree, quota, facts).map_err(RecoverError::Blob);
    let mut store = store.map_err(NotHeld::Unreadable)?;
    let log = wal::read(wal, (facts.cluster.0, facts.member.0)).await.map_err(RecoverError::Log);
    let log = log.map_err(NotHeld::Unreadable)?;
    fits(facts, lost, [Index(log.trimmed), Index(log.last_index())])
        .map_err(NotHeld::Unreadable)?;
    for entry in newer(facts, log.entries) {
        let known = entry.index <= log.hard_state.commit || alone(store.cluster(), facts.member);
        if !known {
            break;
        }
        let index = entry.index;
        let then = apply(&mut store, until, entry);
        if let Some(view) = then.map_err(|error| NotHeld::Entry { index, error })? {
            return Ok((view, store.revision()));
        }
    }
    let newest = store.revision();
    Ok((store.tree_mut().publish(), newest))
}

fn alone(cluster: &Cluster, member: MemberId) -> bool {
    cluster.voters().map(|voter| voter.id).eq([member])
}

/// As [`Store::apply_until`], also for a change of members.
fn apply(store: &mut Store, until: Revision, entry: LogEntry) -> Result<Option<View>, BadEntry> {
    let (index, term) = (Index(entry.index), Term(entry.term));
    match entry.kind {
        0 => store.apply_until(until, index, term, entry.data),
        _ => store.change_members(index, term, entry.data).map(|_| None),
    }
}
