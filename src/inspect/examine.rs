//! One look at a directory: everything that can be known of it without changing it.

use super::Verdict;
use crate::{
    io::{BLOCK_BYTES, Disk},
    node::recover::fits,
    store::Cluster,
    tree::{self, OpenError, RootSummary, SUPERBLOCK_FILE, SlotState},
    types::Index,
    wal::{self, BALLOT_FILE, BallotSlot, Framed, WalError},
};
use std::io::ErrorKind;

const OF_RECORDS: &str = "nothing was changed; keep a copy of the directory and check the disk; then \
    restore this member from a backup, or remove it from the cluster and add it again with an empty \
    directory";
const OF_BALLOT: &str = "a start goes on with what the log says of term and vote; check the disk";
const OF_OWNER: &str =
    "put the files of one member together, or give --wal-dir as the member has it";

/// What one look found.
#[derive(Debug, Default)]
pub struct Report {
    /// Superblock and records; None where there is no superblock.
    pub tree: Option<tree::Inspection>,
    /// What the superblock says of the cluster.
    pub cluster: Option<Cluster>,
    /// The log; None where it does not open.
    pub log: Option<wal::Inspection>,
    /// The log's last frame.
    pub last_frame: Option<Framed>,
    /// The ballot's blocks.
    pub ballots: Option<[BallotSlot; 2]>,
    /// What does not verify.
    pub damage: Vec<Damage>,
    /// What did not verify, each time elsewhere: a running member writes there.
    pub being_written: Vec<Damage>,
    /// What a crash leaves and a start gets over.
    pub notes: Vec<String>,
    /// Files that nothing names.
    pub leftovers: Vec<String>,
}

/// Something that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Below the folder of the records or of the log.
    pub file: String,
    /// Byte in the file.
    pub offset: u64,
    /// What should be there, or what is wrong.
    pub what: String,
    /// Expected and found.
    pub values: Option<(u64, u64)>,
    /// What to do.
    pub advice: &'static str,
}

impl Damage {
    /// Whether the other one is at the same place.
    pub(super) fn same_place(&self, other: &Self) -> bool {
        (&self.file, self.offset) == (&other.file, other.offset)
    }

    fn plain(file: &str, what: impl ToString, advice: &'static str) -> Self {
        Self { file: file.into(), offset: 0, what: what.to_string(), values: None, advice }
    }

    fn flaw(file: String, flaw: &tree::Flaw) -> Self {
        let values = Some((flaw.expected, flaw.found));
        Self { file, offset: flaw.offset, what: flaw.what.into(), values, advice: OF_RECORDS }
    }
}

/// Looks at superblock and records below `data`, log and ballot below `wal`, once. The superblock
/// comes first: what it names may be gone a moment later, and never the other way round.
///
/// # Errors
/// Why it could not look: a sentence.
pub async fn look<D: Disk>(data: &D, wal: &D, sizes: tree::Options) -> Result<Report, String> {
    let mut report = Report::default();
    let has_log = !list(wal, wal::segment::DIR).await?.is_empty();
    report.records(data, sizes, has_log).await?;
    report.ballot(wal, has_log).await?;
    if let Some(owner) = report.owner() {
        report.log(wal, owner).await?;
    }
    report.see_that_it_fits(data, sizes).await?;
    for name in list(wal, wal::segment::DIR).await? {
        if wal::segment::slot(&name).is_none() {
            report.leftovers.push(format!("{}/{name}", wal::segment::DIR));
        }
    }
    Ok(report)
}

async fn list<D: Disk>(disk: &D, dir: &str) -> Result<Vec<String>, String> {
    disk.list(dir).await.map_err(|error| error.to_string())
}

impl Report {
    /// What the exit code says.
    pub fn verdict(&self) -> Verdict {
        if self.damage.is_empty() { Verdict::Whole } else { Verdict::Damaged }
    }

    /// What the superblock that counts says.
    pub fn root(&self) -> Option<&RootSummary> {
        self.tree.as_ref()?.root.as_ref()
    }

    /// The newest ballot and its number.
    pub fn ballot_that_counts(&self) -> Option<(u64, wal::Ballot)> {
        let numbered = |slot: &BallotSlot| match slot {
            BallotSlot::Whole { number, ballot, .. } => Some((*number, *ballot)),
            BallotSlot::Blank | BallotSlot::Damaged => None,
        };
        self.ballots.iter().flatten().filter_map(numbered).max_by_key(|(number, _)| *number)
    }

    /// Cluster and member that the log is to be of.
    fn owner(&self) -> Option<(u64, u64)> {
        let of_root = self.root().map(|root| (root.facts.cluster.0, root.facts.member.0));
        let of_ballot = |slot: &BallotSlot| match slot {
            BallotSlot::Whole { owner, .. } => Some(*owner),
            BallotSlot::Blank | BallotSlot::Damaged => None,
        };
        of_root.or_else(|| self.ballots.iter().flatten().find_map(of_ballot))
    }

    async fn records<D: Disk>(
        &mut self,
        data: &D,
        sizes: tree::Options,
        has_log: bool,
    ) -> Result<(), String> {
        let missing = "the superblock is not there, and records or a log are";
        let found = match tree::inspect(data, sizes).await {
            Ok(Some(found)) => found,
            Ok(None) if !has_log => {
                return Err("there is no database: nothing was ever written here".into());
            }
            Ok(None) => {
                self.damage.push(Damage::plain(SUPERBLOCK_FILE, missing, OF_RECORDS));
                return Ok(());
            }
            Err(OpenError::Disk(error)) if error.kind() == ErrorKind::NotFound => {
                self.damage.push(Damage::plain(SUPERBLOCK_FILE, missing, OF_RECORDS));
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        let bad = found.slots.iter().filter_map(|slot| match slot {
            SlotState::Damaged(flaw) => Some(flaw),
            SlotState::Blank | SlotState::Whole(_) => None,
        });
        if let Some(root) = &found.root {
            self.notes.extend(bad.map(|flaw| {
                format!("{SUPERBLOCK_FILE} at {flaw}: as a crash leaves it; the other slot counts")
            }));
            match Cluster::decode(&root.facts.state) {
                Ok(cluster) => self.cluster = Some(cluster),
                Err(error) => self.damage.push(Damage::plain(SUPERBLOCK_FILE, error, OF_RECORDS)),
            }
        } else {
            self.damage.extend(bad.map(|flaw| Damage::flaw(SUPERBLOCK_FILE.into(), flaw)));
            if self.damage.is_empty() {
                let what = "no slot was ever written, and there are records";
                self.damage.push(Damage::plain(SUPERBLOCK_FILE, what, OF_RECORDS));
            }
        }
        let of_files = found.damage.iter();
        self.damage.extend(of_files.map(|bad| Damage::flaw(bad.file.clone(), &bad.flaw)));
        self.leftovers.extend(found.leftovers.iter().cloned());
        self.tree = Some(found);
        Ok(())
    }

    async fn ballot<D: Disk>(&mut self, wal: &D, has_log: bool) -> Result<(), String> {
        self.ballots = wal::ballots(wal).await.map_err(|error| error.to_string())?;
        let Some(slots) = self.ballots else {
            if has_log {
                let what = "the ballot is not there, and a log is";
                self.damage.push(Damage::plain(BALLOT_FILE, what, OF_BALLOT));
            }
            return Ok(());
        };
        let owner = self.owner();
        for (at, slot) in slots.iter().enumerate() {
            let offset = (at * BLOCK_BYTES) as u64;
            match slot {
                BallotSlot::Damaged => {
                    let what = "a ballot that verifies";
                    let damage = Damage::plain(BALLOT_FILE, what, OF_BALLOT);
                    self.damage.push(Damage { offset, ..damage });
                }
                BallotSlot::Whole { owner: found, .. } if owner != Some(*found) => {
                    let what = "a ballot of the superblock's cluster and member";
                    let damage = Damage::plain(BALLOT_FILE, what, OF_OWNER);
                    self.damage.push(Damage { offset, ..damage });
                }
                BallotSlot::Whole { .. } | BallotSlot::Blank => {}
            }
        }
        Ok(())
    }

    async fn log<D: Disk>(&mut self, wal: &D, owner: (u64, u64)) -> Result<(), String> {
        match wal::inspect(wal, owner).await {
            Ok(log) => {
                self.notes.extend(log.torn.iter().map(ToString::to_string));
                let last = wal::find_frame(wal, log.last_frame).await;
                self.last_frame = last.map_err(|error| error.to_string())?;
                self.log = Some(log);
            }
            Err(WalError::Damaged { file, offset, what, advice }) => {
                self.damage.push(Damage { file, offset, what, values: None, advice });
            }
            Err(WalError::Foreign { file, whose, expected, found }) => {
                let damage = Damage::plain(&file, format!("the log of this {whose}"), OF_OWNER);
                self.damage.push(Damage { values: Some((expected, found)), ..damage });
            }
            Err(WalError::Io(error))
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) =>
            {
                self.damage.push(Damage::plain(wal::segment::DIR, error, OF_RECORDS));
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// A log that is read after one superblock must reach as far, and before another not begin later:
    /// a running member writes superblocks and trims its log meanwhile.
    async fn see_that_it_fits<D: Disk>(
        &mut self,
        data: &D,
        sizes: tree::Options,
    ) -> Result<(), String> {
        let lost = self.ballot_that_counts().is_some_and(|(_, ballot)| ballot.lost);
        if lost {
            let note =
                "its log was lost: it comes back by way of its leader, without a vote until then";
            self.notes.push(note.into());
        }
        let (Some(before), Some(log)) = (self.root(), &self.log) else { return Ok(()) };
        let after = tree::inspect_superblock(data, sizes).await;
        let (_, after) = after.map_err(|error| error.to_string())?;
        let after = after.as_ref().unwrap_or(before);
        let reaches = fits(&before.facts, lost, [Index(0), Index(log.last_index)]);
        let begins = fits(&after.facts, lost, [Index(log.trimmed), Index(u64::MAX)]);
        let damage = match (reaches, begins) {
            (Ok(_), Ok(_)) => return Ok(()),
            (Err(error), _) | (Ok(_), Err(error)) => {
                Damage::plain(wal::segment::DIR, error, OF_OWNER)
            }
        };
        // An end that was taken for an unfinished write was applied: so the disk changed it.
        self.damage.push(match &log.torn {
            Some(torn) => Damage { file: torn.file.clone(), offset: torn.offset, ..damage },
            None => damage,
        });
        Ok(())
    }
}
