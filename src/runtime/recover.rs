//! From a directory to a member that can run: the superblock, what the log adds to it, and raft.

use crate::{
    config::Config,
    consensus::{Durable, Entry, HardState, Replica, Timing},
    io::{
        host,
        thread::{Lane, LaneDisk},
    },
    limits::WAL_SEGMENT_BYTES,
    log,
    node::Node,
    store::{Member as MemberFacts, Quota, Store},
    tree::{self, Root, RootFacts, Tree},
    types::{ClusterId, Index, MemberId, Term},
    wal::{self, Wal},
};
use futures_lite::future::block_on;
use std::path::PathBuf;

/// The directories of a member, made, checked and locked.
pub struct Placed {
    data: PathBuf,
    wal: PathBuf,
    _locks: Vec<host::Lock>,
}

/// A member's files, through the threads that do its I/O.
pub struct Disks {
    /// Records and superblock.
    pub data: LaneDisk,
    /// The log's frames.
    pub wal: LaneDisk,
    /// The log's directory, for what may take its time.
    pub wal_background: LaneDisk,
}

/// A member, recovered.
pub struct Member {
    /// Its decisions.
    pub node: Node,
    /// Its log.
    pub wal: Wal<LaneDisk>,
    /// Its cluster.
    pub cluster: ClusterId,
}

/// Makes the directories, checks them, and takes them for this process.
///
/// # Errors
/// A sentence that names the directory.
pub fn place(config: &Config) -> Result<Placed, String> {
    host::prepare_directory(&config.data_dir)?;
    let mut locks = vec![host::lock(&config.data_dir)?];
    let data = config.data_dir.join("member");
    let foreign = data.join("snap").join("db");
    if foreign.exists() {
        return Err(format!(
            "{} holds the data of an etcd; taking that over is not built yet. Use another --data-dir",
            config.data_dir.display()
        ));
    }
    host::prepare_directory(&data)?;
    let wal = match &config.wal_dir {
        None => data.clone(),
        Some(dir) => {
            host::prepare_directory(dir)?;
            locks.push(host::lock(dir)?);
            dir.clone()
        }
    };
    Ok(Placed { data, wal, _locks: locks })
}

impl Placed {
    /// The directories as disks.
    pub fn disks(&self, wal_lane: &Lane, disk_lane: &Lane) -> Disks {
        Disks {
            data: LaneDisk::new(disk_lane.clone(), self.data.clone()),
            wal: LaneDisk::new(wal_lane.clone(), self.wal.clone()),
            wal_background: LaneDisk::new(disk_lane.clone(), self.wal.clone()),
        }
    }
}

/// Opens what is there, or makes a new member.
///
/// # Errors
/// A sentence: what is damaged, missing or in the way, where, and what to do.
pub fn member(config: &Config, disks: &Disks) -> Result<Member, String> {
    let quota = Quota::from_flag(config.quota_backend_bytes);
    let opened = block_on(tree::open(&disks.data, tree::Options::default()));
    let opened = opened.map_err(|error| format!("{}: {error}", config.data_dir.display()))?;
    let (store, facts) = match opened {
        Some((tree, root)) => existing(tree, root, quota)?,
        None => fresh(config, disks, quota)?,
    };
    let options = wal::Options {
        segment_bytes: WAL_SEGMENT_BYTES,
        cluster: facts.cluster.0,
        member: facts.member.0,
        salt: host::random().map_err(|error| format!("no random numbers: {error}"))?,
    };
    let opened = block_on(Wal::open(disks.wal.clone(), disks.wal_background.clone(), options));
    let (wal, recovered) = opened.map_err(|error| format!("the log: {error}"))?;
    if recovered.trimmed == 0 && recovered.entries.is_empty() && facts.applied.0 > 0 {
        return Err(format!(
            "the log is empty, but the superblock of {} has applied {} of its entries; \
             put the log's directory back (--wal-dir), or restore a backup",
            config.data_dir.display(),
            facts.applied.0
        ));
    }
    if let Some(torn) = &recovered.torn {
        log::warn!("the log ended in an unfinished write, which was cut off", "where" => torn.to_string());
    }
    let replica = replica(config, &facts, recovered)?;
    let node = Node::new(facts.member, replica, store);
    Ok(Member { node, wal, cluster: facts.cluster })
}

fn existing(tree: Tree, root: Root, quota: Quota) -> Result<(Store, RootFacts), String> {
    let facts = root.facts;
    let store =
        Store::recover(tree, quota, &facts).map_err(|error| format!("the superblock: {error}"))?;
    log::info!(
        "recovered from superblock",
        "member-id" => facts.member.to_string(),
        "applied-index" => facts.applied.0,
        "revision" => facts.revision.0,
    );
    Ok((store, facts))
}

/// A new member of a new cluster: its first superblock says who it is.
fn fresh(config: &Config, disks: &Disks, quota: Quota) -> Result<(Store, RootFacts), String> {
    let bootstrap = config.bootstrap()?;
    let mut store = Store::new(Tree::new(tree::Options::default()), quota);
    store.set_member(MemberFacts {
        id: bootstrap.member,
        name: config.name.clone(),
        peer_urls: bootstrap.peer_urls,
        client_urls: Vec::new(),
        learner: false,
    });
    let facts = store.facts(bootstrap.cluster, bootstrap.member);
    let tree = block_on(tree::format(&disks.data, tree::Options::default(), facts.clone()));
    let tree = tree.map_err(|error| format!("cannot make a new database: {error}"))?;
    log::info!(
        "starting a new cluster",
        "member-id" => facts.member.to_string(),
        "cluster-id" => facts.cluster.to_string(),
    );
    let store = Store::recover(tree, quota, &facts);
    Ok((store.expect("the blob was made just now"), facts))
}

fn replica(
    config: &Config,
    facts: &RootFacts,
    recovered: wal::Recovered,
) -> Result<Replica, String> {
    let entry = |entry: wal::LogEntry| Entry {
        index: Index(entry.index),
        term: Term(entry.term),
        kind: entry.kind,
        data: entry.data,
    };
    let durable = Durable {
        applied: facts.applied,
        applied_term: facts.applied_term,
        entries: recovered.entries.into_iter().map(entry).collect(),
        hard_state: HardState {
            term: Term(recovered.hard_state.term),
            vote: MemberId(recovered.hard_state.vote),
            commit: Index(recovered.hard_state.commit),
        },
        voters: vec![facts.member],
    };
    let ticks = config.election.as_nanos() / config.heartbeat.as_nanos();
    let timing = Timing {
        election_ticks: usize::try_from(ticks).expect("an election is at most 50 s"),
        seed: facts.member.0,
    };
    Replica::recover(facts.member, &durable, timing).map_err(|gap| {
        format!("{gap}; the log and the superblock are not of one member: restore a backup")
    })
}
