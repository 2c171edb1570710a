//! From flags to a member that can run: its directories, made, checked and locked, and what
//! [`recover`] is told.

use super::bootstrap;
use crate::{
    config::Config,
    fatal,
    io::{
        Clock,
        glommio::GlommioClock,
        host,
        thread::{Lane, LaneDisk},
    },
    limits::{FATAL_WRITE_WAIT, WAL_SEGMENT_BYTES},
    node::recover::{self, Disks, Member, Opening, RecoverError},
    store::Quota,
    tree,
};
use futures_lite::future::block_on;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// The directories of a member, made, checked and locked.
pub struct Placed {
    data: PathBuf,
    wal: PathBuf,
    _locks: Vec<host::Lock>,
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
    /// From now on what is damaged is noted for the next start, before the process dies of it. The disk
    /// may stand still: death waits for the note no longer than for its last word.
    pub fn mark_damage(&self) {
        let (folder, one) = (self.data.join(tree::RECORDS_DIR), Arc::new(Mutex::new(())));
        fatal::hear_of_damage(move |file, flaw| {
            let (folder, one) = (folder.clone(), one.clone());
            let block = tree::Mark { file: file.into(), flaw: flaw.into() }.encode();
            let write = move || {
                // Several threads may come to damage at once.
                let _turn = one.lock();
                host::write_whole(&folder, tree::Mark::NAME, &block).is_ok()
            };
            // Where it cannot be written, the next start is as any other.
            let _noted = fatal::within(FATAL_WRITE_WAIT, write);
        });
    }

    /// The directories as disks.
    pub fn disks(&self, wal_lane: &Lane, disk_lane: &Lane) -> Disks<LaneDisk> {
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
pub fn member(config: &Config, disks: &Disks<LaneDisk>) -> Result<Member<LaneDisk>, String> {
    let ticks = config.election.as_nanos() / config.heartbeat.as_nanos();
    let opening = Opening {
        quota: Quota::from_flag(config.quota_backend_bytes),
        tree: tree::Options::default(),
        wal_segment_bytes: WAL_SEGMENT_BYTES,
        salt: host::random().map_err(|error| format!("no random numbers: {error}"))?,
        election_ticks: usize::try_from(ticks).expect("an election is at most 50 s"),
        pre_vote: config.pre_vote,
        boot_micros: GlommioClock::new().wall_nanos() / 1_000,
    };
    let opened = block_on(recover::member(disks, &opening, || bootstrap::newborn(config)));
    opened.map_err(|error| match error {
        RecoverError::Newborn(why) => why,
        error => format!("{}: {error}", config.data_dir.display()),
    })
}
