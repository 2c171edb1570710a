//! What `inspect` says of a directory is what a start says of it, wherever the disk changed it; and it
//! changes nothing.

use crate::{disk::SimDisk, tree_model::run, wal_model::spare_ready};
use bytes::Bytes;
use ringleader::{
    inspect::{Report, Verdict, look},
    io::{BLOCK_BYTES, Disk, File},
    node::recover::{self, Disks, Opening, RecoverError},
    store::{Cluster, Member, Quota},
    tree::{self, Lease, OpenError, RootFacts, Tree},
    types::{ClusterId, Index, LeaseId, MemberId, Revision, Stamp, Term},
    wal::{self, Ballot, BallotBox, Batch, HardState, LogEntry, Wal, WalError},
};
use std::collections::BTreeSet;

const SIZES: tree::Options =
    tree::Options { page_bytes: 2048, segment_bytes: 16 << 10, index_files: 32 };
const WAL_SEGMENT_BYTES: u64 = 6 * BLOCK_BYTES as u64;
const CLUSTER: ClusterId = ClusterId(0xc1);
const MEMBER: MemberId = MemberId(0x3e);
/// Far enough apart to be quick, and of no kin with the sizes of fields.
const EVERY_BYTES: usize = 97;

fn facts(applied: u64, revision: i64) -> RootFacts {
    let member = Member { id: MEMBER, name: "alone".into(), ..Member::default() };
    let cluster = Cluster { members: [(MEMBER, member)].into(), ..Cluster::default() };
    RootFacts {
        cluster: CLUSTER,
        member: MEMBER,
        applied: Index(applied),
        applied_term: Term(1),
        installed: Index(1),
        revision: Revision(revision),
        state: cluster.encode(),
    }
}

async fn checkpoint(tree: &mut Tree, disk: &SimDisk, applied: u64, revision: i64) {
    let job = tree.begin_checkpoint(facts(applied, revision)).expect("none is running");
    tree.finish_checkpoint(job.run(disk.clone()).await.expect("the disk works"));
}

/// Records in segments of all kinds, some of them dead; leases.
async fn make_records(disk: &SimDisk) -> i64 {
    let mut tree = tree::format(disk, SIZES, facts(1, 1)).await.expect("a fresh directory");
    let mut revision = 1;
    for key in 0..30_u8 {
        revision += 1;
        tree.put(Stamp::new(revision, 0), &[b's', key], b"still", LeaseId(0));
    }
    for id in 1..4 {
        let lease = Lease { granted: 60, remaining: 0, since: Index(1) };
        tree.set_lease(LeaseId(id), lease);
    }
    for round in 0..30 {
        for key in 0..20 {
            revision += 1;
            tree.put(Stamp::new(revision, 0), &[b'k', key], &vec![key; 40 + round], LeaseId(1));
        }
    }
    checkpoint(&mut tree, disk, 3, revision).await;
    // Until some lie dead in a segment that is not worth rewriting.
    for compacted in (revision - 500..revision).step_by(10) {
        tree.compact(Revision(compacted));
        while !tree.sweep(1000) {}
        checkpoint(&mut tree, disk, 4, revision).await;
        let names = disk.names();
        if names.iter().any(|name| name.starts_with("rec/dead.")) {
            revision += 1;
            tree.put(Stamp::new(revision, 0), b"last", b"one", LeaseId(0));
            checkpoint(&mut tree, disk, 5, revision).await;
            return revision;
        }
    }
    panic!("a segment dies by and by");
}

/// A log that goes on from there, over more than one segment, and fell idle.
async fn make_log(disk: &SimDisk) {
    for salt in 1..3 {
        let options = wal::Options {
            segment_bytes: WAL_SEGMENT_BYTES,
            cluster: CLUSTER.0,
            member: MEMBER.0,
            salt,
        };
        let opened = Wal::open(disk.clone(), disk.clone(), options).await;
        let (mut wal, _) = opened.expect("nothing is damaged yet");
        for _ in 0..6 {
            let index = wal.last_index() + 1;
            let data = Bytes::from(vec![index as u8; 2000]);
            let entry = LogEntry { index, term: 1, kind: 0, data };
            let hard_state = HardState { term: 1, vote: MEMBER.0, commit: index };
            let batch = Batch { entries: vec![entry], hard_state };
            spare_ready(&mut wal).await;
            wal.append(&batch).expect("room").await.expect("durable");
        }
        wal.trim(4);
        let hard_state = HardState { term: 1, vote: MEMBER.0, commit: wal.last_index() };
        let idle = Batch { entries: Vec::new(), hard_state };
        wal.append(&idle).expect("room").await.expect("durable");
        wal.append(&idle).expect("room").await.expect("durable");
    }
}

fn directory() -> SimDisk {
    let disk = SimDisk::new(7);
    let ours = disk.clone();
    run(async move {
        make_records(&ours).await;
        let opened = BallotBox::open(&ours, CLUSTER.0, MEMBER.0).await;
        let (mut ballots, _) = opened.expect("a fresh one");
        for boot in 1..3 {
            let ballot = Ballot { term: 1, vote: MEMBER.0, lost: false, boot };
            ballots.cast(ballot).await.expect("the disk works");
        }
        make_log(&ours).await;
    });
    disk
}

/// What a start says of a copy, and whoever reads all of it then: the place of the damage, where it
/// names one.
fn start(disk: &SimDisk) -> Result<(), (RecoverError, Option<(String, u64)>)> {
    let copy = disk.fork();
    let opening = Opening {
        quota: Quota::from_flag(0),
        tree: SIZES,
        wal_segment_bytes: WAL_SEGMENT_BYTES,
        salt: 9,
        election_ticks: 10,
        pre_vote: true,
        boot_micros: 1,
    };
    let started = run(async move {
        let disks = Disks { data: copy.clone(), wal: copy.clone(), wal_background: copy.clone() };
        recover::member(&disks, &opening, || Err("nobody is born here".into())).await?;
        // A start leaves it to the first read to see whether a page or a record is whole.
        let (tree, _) =
            tree::open(&copy, SIZES).await.map_err(RecoverError::Tree)?.expect("started");
        tree.check_index().and_then(|()| tree.check_records()).map_err(RecoverError::Tree)
    });
    started.map_err(|error| {
        let place = match &error {
            RecoverError::Tree(OpenError::Damaged { file, flaw }) => {
                Some((file.clone(), flaw.offset))
            }
            RecoverError::Log(WalError::Damaged { file, offset, .. }) => {
                Some((file.clone(), *offset))
            }
            _ => None,
        };
        (error, place)
    })
}

/// What a look at it says. It writes nothing.
fn inspect(disk: &SimDisk) -> Report {
    let (ours, writes) = (disk.clone(), disk.writes());
    let report = run(async move { look(&ours, &ours, SIZES).await });
    assert_eq!(disk.writes(), writes);
    report.expect("it can be looked at")
}

/// The two agree, but for what only a look sees: a start goes on without its ballot.
fn agree(disk: &SimDisk, what: &str) -> Verdict {
    let (report, started) = (inspect(disk), start(disk));
    let refused: Vec<_> =
        report.damage.iter().filter(|damage| damage.file != wal::BALLOT_FILE).collect();
    match &started {
        Ok(()) => assert!(refused.is_empty(), "{what}: it starts, and {refused:?}"),
        Err((error, place)) => {
            assert!(!refused.is_empty(), "{what}: it does not start: {error}");
            if let Some((file, offset)) = place {
                let told = refused.iter().any(|one| (&one.file, one.offset) == (file, *offset));
                assert!(told, "{what}: {error}, but {refused:?}");
            }
        }
    }
    report.verdict()
}

#[test]
fn a_whole_directory_is_whole_and_counted() {
    let disk = directory();
    assert_eq!(agree(&disk, "nothing changed"), Verdict::Whole);
    let report = inspect(&disk);
    assert!(report.notes.is_empty() && report.leftovers.is_empty(), "{report:?}");
    let tree = report.tree.as_ref().expect("there is one");
    let kinds: BTreeSet<&str> = tree.files.iter().map(|file| &file.file[..8]).collect();
    assert_eq!(kinds, ["idx/0000", "rec/0000", "rec/dead", "rec/leas"].into());
    assert!(tree.files.iter().any(|file| file.live.0 > 0 && file.live.0 < file.records));
    assert_eq!(tree.leases, 3);
    let log = report.log.as_ref().expect("it opens");
    assert_eq!((log.first_index(), log.last_index), (5, 12));
    assert!(log.segments.len() > 1, "{log:?}");
    let last = report.last_frame.as_ref().expect("there are frames");
    assert_eq!(last.entries(), [], "it fell idle");
}

#[test]
fn wherever_a_bit_flips_the_verdict_is_that_of_a_start() {
    let disk = directory();
    let mut damaged = BTreeSet::new();
    for name in disk.names() {
        for byte in (0..disk.peek(&name).len()).step_by(EVERY_BYTES) {
            let rotten = disk.fork();
            rotten.flip(&name, byte * 8 + byte % 8);
            if agree(&rotten, &format!("{name} byte {byte}")) == Verdict::Damaged {
                damaged.insert(name[..name.len().min(8)].to_owned());
            }
        }
    }
    let kinds = ["ballot", "idx/0000", "rec/0000", "rec/dead", "rec/leas", "superblo", "wal/0000"];
    assert_eq!(damaged, kinds.map(String::from).into());
}

#[test]
fn both_slots_of_the_superblock_make_it_damage() {
    let disk = directory();
    let half = disk.peek(tree::SUPERBLOCK_FILE).len() / 2;
    for field in [0, 8, 12, 16, 24, 100, 180] {
        let rotten = disk.fork();
        for slot in [0, half] {
            rotten.flip(tree::SUPERBLOCK_FILE, (slot + field) * 8);
        }
        assert_eq!(agree(&rotten, &format!("byte {field}")), Verdict::Damaged);
        let places: Vec<_> =
            inspect(&rotten).damage.into_iter().map(|damage| damage.offset).collect();
        assert!(places[0] < half as u64 && places[1] >= half as u64, "{places:?}");
    }
}

#[test]
fn a_file_that_is_gone_or_short_is_told_as_a_start_tells_it() {
    let disk = directory();
    for name in disk.names() {
        let bytes = disk.peek(&name);
        let without = |len: Option<usize>| {
            let (copy, name) = (disk.fork(), name.clone());
            let (changed, bytes) = (copy.clone(), bytes.clone());
            run(async move {
                changed.remove(&name).await.expect("it was there");
                if let Some(len) = len {
                    let short = changed.create(&name, len as u64).await.expect("it is gone");
                    short.sync().await.expect("the disk works");
                    changed.poke(&name, 0, &bytes[..len]);
                }
            });
            copy
        };
        if !name.starts_with("superblock") {
            let verdict = agree(&without(None), &format!("{name} is gone"));
            let needed = !name.starts_with("wal/");
            assert!(verdict == Verdict::Damaged || !needed, "{name} is gone");
        }
        for len in [0, 100, bytes.len() / 2, bytes.len() - 1] {
            agree(&without(Some(len)), &format!("{name} has {len} bytes"));
        }
    }
}
