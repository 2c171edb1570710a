//! From what the disks hold to a member that can run: the superblock, what the log adds to it, and
//! raft. The second place beside [`drive`](super::drive) where log, engine and consensus meet.
//!
//! ```text
//!  superblock ─ Store at `applied` ─┐
//!      └ none: a new member         ├─ Node
//!  log ─ entries, hard state ─ Replica ─┘      entries up to `applied` are in the store already
//! ```
//!
//! Nothing is repaired here: what does not fit together is refused, with what to do about it. Two
//! things the other members can mend. A log that is damaged where it was acknowledged is put aside where
//! others vote too; and where the others are enough to go on alone, an empty tree stands in for one that
//! is damaged, until a snapshot of theirs takes its place. In both cases the member comes back without a
//! voice until its leader has brought it all again ([`Durable::lost`]). The same code runs in the
//! simulator, over its disk.

use super::Node;
use crate::{
    consensus::{Configuration, Durable, Entry, HardState, LogGap, Replica, Timing},
    io::Disk,
    limits::STARTS_APART_TICKETS_MIN,
    log,
    store::{BlobError, Member as MemberFacts, Quota, Store},
    tree::{self, Mark, Newest, OpenError, Root, RootFacts, Tree},
    types::{ClusterId, Index, MemberId, Term},
    wal::{self, Ballot, BallotBox, Wal, WalError},
};
use futures_lite::future::zip;
use std::{fmt, io};

/// A member's files.
pub struct Disks<D> {
    /// Records and superblock.
    pub data: D,
    /// The log's frames.
    pub wal: D,
    /// The log's directory, for what may take its time.
    pub wal_background: D,
}

/// How a member is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// `--quota-backend-bytes`.
    pub quota: Quota,
    /// Sizes of the engine's parts.
    pub tree: tree::Options,
    /// Bytes of a new segment of the log.
    pub wal_segment_bytes: u64,
    /// A fresh random number for each opening, not known to clients.
    pub salt: u64,
    /// Ticks without a leader before this member stands for election.
    pub election_ticks: usize,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// Microseconds since the Unix epoch, by the wall clock.
    pub boot_micros: u64,
}

/// Who a new member is, and in whose company.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newborn {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub member: MemberId,
    /// All members of a cluster that begins, itself among them; empty for one that joins: it learns
    /// them from a snapshot.
    pub members: Vec<MemberFacts>,
}

/// A member, recovered.
pub struct Member<D: Disk> {
    /// Its decisions.
    pub node: Node,
    /// Its log.
    pub wal: Wal<D>,
    /// Its term and vote, kept a second time.
    pub ballots: BallotBox<D::File>,
    /// Its cluster.
    pub cluster: ClusterId,
}

/// Why a member cannot be opened.
#[derive(Debug)]
pub enum RecoverError {
    /// The engine's files.
    Tree(tree::OpenError),
    /// The superblock carries what the store did not write.
    Blob(BlobError),
    /// Who the new member is cannot be told.
    Newborn(String),
    /// The first superblock cannot be written.
    Format(io::Error),
    /// The log's files.
    Log(WalError),
    /// The log ends before what the superblock has applied from it: it is gone, or an older copy.
    LogMissing {
        /// Entries applied.
        applied: Index,
        /// The log's last entry, or what came as a whole.
        last: Index,
    },
    /// Log and superblock are not of one member.
    Gap(LogGap),
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => write!(f, "{error}"),
            Self::Blob(error) => write!(f, "the superblock: {error}"),
            Self::Newborn(why) => f.write_str(why),
            Self::Format(error) => write!(f, "cannot make a new database: {error}"),
            Self::Log(error) => write!(f, "the log: {error}"),
            Self::LogMissing { applied, last } => write!(
                f,
                "the log ends at index {}, but the superblock has applied its entries up to {}; \
                 put the log's own directory back (--wal-dir), or restore a backup",
                last.0, applied.0
            ),
            Self::Gap(gap) => write!(
                f,
                "{gap}; the log and the superblock are not of one member: restore a backup"
            ),
        }
    }
}

impl std::error::Error for RecoverError {}

/// What the disks held: all that a member is made of.
pub struct Found<D: Disk> {
    /// The log, ready to go on.
    pub wal: Wal<D>,
    /// What it held.
    pub recovered: wal::Recovered,
    ballots: BallotBox<D::File>,
    held: Held,
}

/// The state machine as the data disk has it.
struct Held {
    store: Store,
    facts: RootFacts,
    /// Where the database is damaged and the store is an empty one in its place: up to here a snapshot
    /// has to reach, as what was applied is promised and is not in the log any more.
    stands_in: Option<Index>,
}

/// Opens what is there, or makes the new member that `newborn` describes.
///
/// # Errors
/// [`RecoverError`]: what is damaged, missing or in the way, and what to do. Nothing is lost by it.
pub async fn member<D: Disk>(
    disks: &Disks<D>,
    opening: &Opening,
    newborn: impl FnOnce() -> Result<Newborn, String>,
) -> Result<Member<D>, RecoverError> {
    find(disks, opening, newborn).await?.member(opening)
}

/// The first half of [`member`]: everything that waits for a disk.
///
/// # Errors
/// As [`member`].
pub async fn find<D: Disk>(
    disks: &Disks<D>,
    opening: &Opening,
    newborn: impl FnOnce() -> Result<Newborn, String>,
) -> Result<Found<D>, RecoverError> {
    let newest = tree::newest(&disks.data, opening.tree).await.transpose();
    let owner = newest.as_ref().and_then(|newest| newest.as_ref().ok()).map(Newest::owner);
    // Log and database are read side by side: whose they are is all that one needs of the other.
    let weigh = async {
        match owner {
            Some(owner) => Some(Wal::weigh(disks.wal.clone(), log_options(opening, owner)).await),
            None => None,
        }
    };
    let (held, weighed) = zip(held(disks, opening, newest, newborn), weigh).await;
    let held = held?;
    let Held { store, facts, stands_in } = &held;
    let options = log_options(opening, (facts.cluster, facts.member));
    let boxed = BallotBox::open(&disks.wal, facts.cluster.0, facts.member.0).await;
    let (mut ballots, ballot) = boxed.map_err(RecoverError::Log)?;
    let weighed = match weighed {
        Some(weighed) => weighed,
        None => Wal::weigh(disks.wal.clone(), options).await,
    };
    let opened = match weighed {
        Ok(weighed) => weighed.open(disks.wal_background.clone()).await,
        Err(error) => Err(error),
    };
    let others_vote = store.cluster().voters().any(|voter| voter.id != facts.member);
    let (wal, recovered) = match (opened, ballot) {
        (Err(WalError::Damaged { file, offset, what, .. }), Some(ballot)) if others_vote => {
            log::error!(
                "the log is damaged; put aside, the other members have it",
                "file" => file,
                "offset" => offset,
                "found" => what,
            );
            lose(disks, options, &mut ballots, ballot).await?
        }
        (opened, _) => opened.map_err(RecoverError::Log)?,
    };
    // A start that is refused changes nothing, so it counts only now. The wall clock may have gone
    // back; where no ballot can be read, it is all there is.
    let least = ballot.map_or(0, |ballot| ballot.boot + STARTS_APART_TICKETS_MIN);
    let boot = opening.boot_micros.max(least);
    let known = ballots.ballot();
    let begun =
        ballots.cast(Ballot { boot, lost: known.lost || stands_in.is_some(), ..known }).await;
    begun.map_err(|error| RecoverError::Log(WalError::Io(error)))?;
    Ok(Found { wal, recovered, ballots, held })
}

fn log_options(opening: &Opening, (cluster, member): (ClusterId, MemberId)) -> wal::Options {
    wal::Options {
        segment_bytes: opening.wal_segment_bytes,
        cluster: cluster.0,
        member: member.0,
        salt: opening.salt,
    }
}

/// What the data disk holds, or the new member's first superblock.
async fn held<D: Disk>(
    disks: &Disks<D>,
    opening: &Opening,
    newest: Option<Result<Newest, OpenError>>,
    newborn: impl FnOnce() -> Result<Newborn, String>,
) -> Result<Held, RecoverError> {
    let opened = match newest {
        Some(Ok(newest)) => tree::open_newest(&disks.data, opening.tree, newest).await.map(Some),
        Some(Err(error)) => Err(error),
        None => Ok(None),
    };
    if let Some(damage) = known_damage(disks, &opened).await? {
        let held = stand_in(disks, opening).await?;
        let what = if others_go_on(&held) {
            "the database is damaged; it is fetched anew from the other members"
        } else {
            "the database is damaged, and the other members are too few to fetch it from"
        };
        log::error!(what, "file" => damage.file, "found" => damage.flaw);
        if others_go_on(&held) {
            return Ok(held);
        }
    }
    let (store, facts) = match opened.map_err(RecoverError::Tree)? {
        Some((tree, root)) => existing(tree, root, opening.quota).map_err(RecoverError::Blob)?,
        None => fresh(disks, opening, newborn().map_err(RecoverError::Newborn)?).await?,
    };
    Ok(Held { store, facts, stands_in: None })
}

/// The damage that this start has come upon, or that the process before it died of.
async fn known_damage<D: Disk>(
    disks: &Disks<D>,
    opened: &Result<Option<(Tree, Root)>, OpenError>,
) -> Result<Option<Mark>, RecoverError> {
    match opened {
        Err(OpenError::Damaged { file, flaw }) => {
            Ok(Some(Mark { file: file.clone(), flaw: flaw.to_string() }))
        }
        Ok(Some((_, root))) => {
            let mark = Mark::read(&disks.data).await;
            let mark = mark.map_err(|error| RecoverError::Tree(OpenError::Disk(error)))?;
            // What the superblock does not name any more is of no matter.
            Ok(mark.filter(|mark| root.files().any(|name| name == mark.file)))
        }
        Ok(None) | Err(_) => Ok(None),
    }
}

/// A store that has nothing but the members' names, as one that joins them.
async fn stand_in<D: Disk>(disks: &Disks<D>, opening: &Opening) -> Result<Held, RecoverError> {
    let stands_in = tree::stand_in(&disks.data, opening.tree).await;
    let (tree, root) = stands_in.map_err(RecoverError::Tree)?;
    let RootFacts { cluster, member, applied, state, .. } = root.facts;
    let joins = born(Newborn { cluster, member, members: Vec::new() }, opening.tree);
    let facts = RootFacts { state, ..joins };
    let store = Store::recover(tree, opening.quota, &facts).map_err(RecoverError::Blob)?;
    Ok(Held { store, facts, stands_in: Some(applied) })
}

/// Whether the others are a majority without this member, so that they can do without its voice.
fn others_go_on(held: &Held) -> bool {
    let voters = || held.store.cluster().voters();
    let others = voters().filter(|voter| voter.id != held.facts.member).count();
    others * 2 > voters().count()
}

/// Begins a new log in place of a damaged one.
async fn lose<D: Disk>(
    disks: &Disks<D>,
    options: wal::Options,
    ballots: &mut BallotBox<D::File>,
    ballot: Ballot,
) -> Result<(Wal<D>, wal::Recovered), RecoverError> {
    let io = |error| RecoverError::Log(WalError::Io(error));
    // First it is known that something is lost, then it is.
    ballots.cast(Ballot { lost: true, ..ballot }).await.map_err(io)?;
    Wal::set_aside(&disks.wal, options).await.map_err(io)?;
    let opened = Wal::open(disks.wal.clone(), disks.wal_background.clone(), options).await;
    opened.map_err(RecoverError::Log)
}

impl<D: Disk> Found<D> {
    /// The second half of [`member`]: does it all fit together?
    ///
    /// # Errors
    /// [`RecoverError::LogMissing`], [`RecoverError::Gap`].
    pub fn member(self, opening: &Opening) -> Result<Member<D>, RecoverError> {
        let Self { mut wal, mut recovered, ballots, held } = self;
        let Held { store, facts, stands_in } = held;
        let ballot = ballots.ballot();
        // A promise counts once both places have it; one of them may know of it alone.
        let known = &mut recovered.hard_state;
        if (ballot.term, ballot.vote) > (known.term, known.vote) {
            (known.term, known.vote) = (ballot.term, ballot.vote);
        }
        let log = [recovered.trimmed, wal.last_index()].map(Index);
        if stands_in.is_some() {
            // What is in the log goes on from what is not there.
            recovered.entries.clear();
        } else {
            let end = fits(&facts, ballot.lost, log)?;
            if wal.last_index() < end.0 {
                wal.trim(end.0);
                recovered.entries.clear();
            }
        }
        if let Some(torn) = &recovered.torn {
            log::warn!("the log ended in an unfinished write, which was cut off", "where" => torn.to_string());
        }
        let Opening { election_ticks, pre_vote, salt: boot, .. } = *opening;
        let timing = Timing { election_ticks, seed: facts.member.0, boot, pre_vote };
        let configuration = store.cluster().configuration();
        let durable = Durable { lost: ballot.lost, ..durable(&facts, recovered, configuration) };
        let replica =
            Replica::recover(facts.member, &durable, timing).map_err(RecoverError::Gap)?;
        let mut node = Node::new(facts.cluster, facts.member, replica, store);
        if let Some(applied) = stands_in {
            // The log does not take again what it was trimmed of.
            node.take_no_snapshot_before(applied.max(log[0]));
        }
        Ok(Member { node, wal, ballots, cluster: facts.cluster })
    }
}

/// Whether a log goes on from a superblock, given up to where it was trimmed and its last entry.
/// Returns the entry that the next one follows: the log's last, or one behind it where what it lacks
/// is held elsewhere.
///
/// # Errors
/// [`RecoverError::LogMissing`], [`RecoverError::Gap`].
pub fn fits(
    facts: &RootFacts,
    lost: bool,
    [trimmed, last]: [Index; 2],
) -> Result<Index, RecoverError> {
    let applied = facts.applied;
    // What came as a whole is not in the log, which goes on behind it: a crash came before the first
    // entry there. And the superblock stands for all that a lost log had of it.
    let held = if lost { facts.installed.max(applied) } else { facts.installed };
    let last = last.max(held);
    if last < applied {
        return Err(RecoverError::LogMissing { applied, last });
    }
    // Trimmed is only what a superblock holds: this one is not the newest that there was.
    let [wanted, found] = [applied.0 + 1, trimmed.0 + 1].map(Index);
    if found > wanted {
        return Err(RecoverError::Gap(LogGap { wanted, found }));
    }
    Ok(last)
}

fn existing(tree: Tree, root: Root, quota: Quota) -> Result<(Store, RootFacts), BlobError> {
    let facts = root.facts;
    let store = Store::recover(tree, quota, &facts)?;
    log::info!(
        "recovered from superblock",
        "member-id" => facts.member.to_string(),
        "applied-index" => facts.applied.0,
        "revision" => facts.revision.0,
    );
    Ok((store, facts))
}

/// What the first superblock of a new member says. A cluster of n begins as if n entries of term 1 had
/// been applied, each adding a member (etcd `bootstrap.go`): so a member that joins later, and has
/// nothing, is always sent a snapshot, which tells it who the others are.
pub fn born(newborn: Newborn, sizes: tree::Options) -> RootFacts {
    let Newborn { cluster, member, members } = newborn;
    let mut store = Store::new(Tree::new(sizes), Quota::from_flag(0));
    let begun = Index(members.len() as u64);
    let applied_term = Term(u64::from(begun.0 > 0));
    members.into_iter().for_each(|member| store.set_member(member));
    let facts = store.facts(cluster, member);
    RootFacts { applied: begun, applied_term, installed: begun, ..facts }
}

/// A new member: its first superblock says who it is.
async fn fresh<D: Disk>(
    disks: &Disks<D>,
    opening: &Opening,
    newborn: Newborn,
) -> Result<(Store, RootFacts), RecoverError> {
    let joins = newborn.members.is_empty();
    let message = if joins { "joining a cluster" } else { "starting a new cluster" };
    let facts = born(newborn, opening.tree);
    let tree = tree::format(&disks.data, opening.tree, facts.clone()).await;
    let tree = tree.map_err(RecoverError::Format)?;
    log::info!(
        message,
        "member-id" => facts.member.to_string(),
        "cluster-id" => facts.cluster.to_string(),
    );
    let store = Store::recover(tree, opening.quota, &facts);
    Ok((store.expect("the blob was made just now"), facts))
}

/// The entries of a log that are behind a superblock.
pub fn newer(
    facts: &RootFacts,
    entries: Vec<wal::LogEntry>,
) -> impl Iterator<Item = wal::LogEntry> + use<> {
    let (applied, applied_term) = (facts.applied.0, facts.applied_term.0);
    // Terms never go back along a log. What does lies behind a snapshot that was installed over a
    // branch which never came to be; the next append takes its place.
    let newer = entries.into_iter().filter(move |entry| entry.index > applied);
    newer.take_while(move |entry| entry.term >= applied_term)
}

fn durable(
    facts: &RootFacts,
    recovered: wal::Recovered,
    (voters, learners): (Vec<MemberId>, Vec<MemberId>),
) -> Durable {
    let entry = |entry: wal::LogEntry| Entry {
        index: Index(entry.index),
        term: Term(entry.term),
        kind: entry.kind,
        data: entry.data,
    };
    Durable {
        applied: facts.applied,
        applied_term: facts.applied_term,
        entries: newer(facts, recovered.entries).map(entry).collect(),
        hard_state: HardState {
            term: Term(recovered.hard_state.term),
            vote: MemberId(recovered.hard_state.vote),
            commit: Index(recovered.hard_state.commit),
        },
        configuration: Configuration { voters, learners },
        lost: false,
    }
}
