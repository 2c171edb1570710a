//! Bugs that the simulator found, each as the smallest life that showed it.

use crate::{
    clocks::Rate,
    disk::SimDisk,
    executor::{Executor, SimClock},
    member::{CLUSTER, Mutant, facts_of, member_on},
    wal_model::run,
    weather::{Day, Drought, Tempo, Weather, Winds},
    world::live,
};
use bytes::Bytes;
use ringleader::{
    consensus::{Append, Durable, Entry, Replica, Timing},
    io::{BLOCK_BYTES, Clock},
    limits::{
        REQUEST_BYTES_CEILING, REQUEST_BYTES_MAX, REQUEST_HEADER_BYTES_MAX,
        STARTS_APART_TICKETS_MIN, WAL_SEGMENT_BYTES,
    },
    mesh::{Capacity, Newest, ToNode, mesh},
    node::{
        Action, Event, Node,
        drive::{CheckpointPace, Pace, Parts, drive},
        recover::{self, Disks, Newborn, Opening, RecoverError},
    },
    store::{Member, Quota, Store},
    tree::{self, RootFacts, Tree},
    types::{Index, Term, Ticket},
    wal::{self, Batch, LogEntry, Wal, frame},
};
use std::{cell::Cell, future::Future, rc::Rc, sync::Arc, time::Duration};

/// A plain life of a lone member: `days`, and calm ones after them.
fn plain(days: Vec<Day>) -> Weather {
    Weather {
        wal_blocks: 8,
        tree: tree::Options { page_bytes: 512, segment_bytes: 8 << 10, index_files: 32 },
        ring_messages: 64,
        checkpoint_entries: 1_000,
        tick: Duration::from_millis(10),
        shards: 1,
        outstanding: 4,
        keys: 4,
        value_bytes: 700,
        ttl_max: 2,
        streams: 2,
        fragment_bytes: 600,
        rows: vec![days],
        stay: Day::calm(8, true),
        calm: Day::calm(8, true),
        last_look: Day::calm(8, true),
        winds: Winds::calm(),
        calm_boots: true,
        blackout: None,
        pre_vote: true,
        operators: false,
        strict: true,
        rot: false,
        clocks: vec![Rate::RIGHT],
        walls: false,
    }
}

fn sound(weather: Weather) {
    for seed in 0..20 {
        let lived = live(seed, weather.clone(), Mutant::default());
        assert!(lived.is_ok(), "seed {seed}: {}", lived.expect_err("it is not sound"));
    }
}

#[test]
fn an_answer_before_the_first_election_tells_the_term_of_what_it_shows() {
    sound(plain(vec![Day::calm(20, false), Day::calm(20, false)]));
}

#[test]
fn a_member_that_is_told_to_stop_while_its_disk_is_full_stops() {
    let drought =
        Drought { after: Duration::ZERO, lasts: Duration::from_secs(1_800), space_bytes: 0 };
    let day = Day {
        drought: Some(drought),
        while_serving: true,
        patience: Some(Duration::from_secs(60)),
        tempo: Tempo::calm(),
        ..Day::calm(200, false)
    };
    sound(plain(vec![day]));
}

/// Whoever was stopped while a write was on its way finds it unfinished when it goes on, and its own
/// clock an age later. `World::judge_ending` lets nobody end for that on a disk that never stalls.
#[test]
fn a_process_that_was_stopped_does_not_take_that_for_a_stalled_disk() {
    let tick = Duration::from_millis(10);
    let day = Day {
        pauses: true,
        tempo: Tempo { micros_max: 5_000, ..Tempo::calm() },
        leisure: tick,
        ..Day::calm(150, false)
    };
    let rows = vec![vec![day.clone(), day]; 3];
    sound(Weather { rows, tick, clocks: vec![Rate::RIGHT; 3], ..plain(Vec::new()) });
}

/// A member whose log was lost, and that has everything in its superblock, has nothing to fetch. The
/// new log must say where it begins before the ballot says that nothing is lost any more.
#[test]
fn a_member_that_finds_its_lost_log_again_may_crash_at_once() {
    let tick = Duration::from_millis(10);
    for seed in 0..150 {
        let soon = tick * (seed % 50) as u32 / 10;
        let second = Day { killed_after: Some(soon), ..Day::calm(20, false) };
        let rows = vec![vec![Day::calm(20, false), second], Vec::new(), Vec::new()];
        let weather =
            Weather { rows, tick, rot: true, clocks: vec![Rate::RIGHT; 3], ..plain(Vec::new()) };
        let lived = live(seed, weather, Mutant::default());
        assert!(lived.is_ok(), "seed {seed}: {}", lived.expect_err("it is not sound"));
    }
}

/// A node that leads, alone.
fn leader() -> Node {
    let (id, mut actions) = (member_on(0, 0), Vec::new());
    let durable = Durable::nothing(vec![id]);
    let timing = Timing::default();
    let replica = Replica::recover(id, &durable, timing).expect("an empty log has no gap");
    let store = Store::new(Tree::new(tree::Options::default()), Quota::from_flag(-1));
    let mut node = Node::new(CLUSTER, id, replica, store);
    node.campaign();
    while !node.leadership().own || !actions.is_empty() {
        for action in std::mem::take(&mut actions) {
            if let Action::Append(append) = action {
                node.handle(Event::Appended { number: append.number }, &mut Vec::new());
            }
        }
        node.flush(true, &mut actions).expect("nothing is stuck");
    }
    node
}

fn frame_bytes(append: &Append) -> usize {
    let entry = |entry: &Entry| LogEntry {
        index: entry.index.0,
        term: entry.term.0,
        kind: entry.kind,
        data: entry.data.clone(),
    };
    let entries = append.entries.iter().map(entry).collect();
    frame::frame_bytes(&Batch { entries, hard_state: wal::HardState::default() })
}

/// Bytes of the largest frame that a turn makes which is sent requests of this size until it takes
/// no more.
fn fullest_frame(request_bytes: usize) -> usize {
    let (mut node, mut actions) = (leader(), Vec::new());
    let request = Bytes::from(vec![7; request_bytes]);
    for count in 0.. {
        let ticket = Ticket::new(member_on(0, 0), 0, count);
        node.handle(Event::Propose { ticket, request: request.clone() }, &mut actions);
        if !actions.is_empty() {
            break;
        }
    }
    node.flush(true, &mut actions).expect("nothing is stuck");
    let frames = actions.iter().filter_map(|action| match action {
        Action::Append(append) => Some(frame_bytes(append)),
        Action::Reply { .. } | Action::Peers(_) | Action::Install(_) => None,
    });
    frames.max().expect("some request was taken")
}

#[test]
fn the_largest_request_and_the_fullest_turn_each_fit_a_frame_of_the_log() {
    let room = WAL_SEGMENT_BYTES as usize - BLOCK_BYTES;
    for request_bytes in [REQUEST_BYTES_CEILING - REQUEST_HEADER_BYTES_MAX, REQUEST_BYTES_MAX, 500]
    {
        let frame = fullest_frame(request_bytes);
        assert!(frame <= room, "requests of {request_bytes}: a frame of {frame} for {room}");
    }
}

fn opening() -> Opening {
    Opening {
        quota: Quota::from_flag(-1),
        tree: tree::Options::default(),
        wal_segment_bytes: 8 * BLOCK_BYTES as u64,
        salt: 1,
        election_ticks: 10,
        pre_vote: true,
        boot_micros: 1,
    }
}

/// Opens a member whose superblock has applied `applied` and whose log had `entries` written, then
/// `trim` of them trimmed.
fn open_mixed(applied: u64, entries: u64, trim: u64) -> Result<(), RecoverError> {
    open_installed((applied, 1), 0, entries, trim).map(drop)
}

/// The same where the superblock's entries up to `installed` came as a whole and the one at
/// `applied` is of this term; the log's are all of term 1. Returns the indexes of the log's first and
/// last entry, and of raft's last.
fn open_installed(
    (applied, term): (u64, u64),
    installed: u64,
    entries: u64,
    trim: u64,
) -> Result<[u64; 3], RecoverError> {
    let (cluster, member) = (CLUSTER, member_on(0, 0));
    let opening = opening();
    let main = async move {
        let disk = SimDisk::new(1);
        let mut store = Store::new(Tree::new(opening.tree), opening.quota);
        store.set_member(Member { id: member, ..Member::default() });
        let (applied, applied_term, installed) = (Index(applied), Term(term), Index(installed));
        let facts = RootFacts { applied, applied_term, installed, ..store.facts(cluster, member) };
        tree::format(&disk, opening.tree, facts).await.expect("the disk is fine");
        let options = wal::Options {
            segment_bytes: opening.wal_segment_bytes,
            cluster: cluster.0,
            member: member.0,
            salt: 2,
        };
        let opened = Wal::open(disk.clone(), disk.clone(), options).await;
        let (mut wal, _nothing) = opened.expect("the disk is fine");
        let entry = |index| LogEntry { index, term: 1, kind: 0, data: Bytes::new() };
        let entries = (1..=entries).map(entry).collect();
        for (entries, trim) in [(entries, 0), (Vec::new(), trim)] {
            wal.trim(trim);
            let batch = Batch { entries, hard_state: wal::HardState::default() };
            wal.append(&batch).expect("it fits").await.expect("the disk is fine");
        }
        let disks = Disks { data: disk.clone(), wal: disk.clone(), wal_background: disk };
        let opened = recover::member(&disks, &opening, || Err("it is no new member".into())).await;
        let recover::Member { mut node, wal, .. } = opened?;
        let seen = [wal.first_index(), wal.last_index()];
        node.campaign();
        let mut actions = Vec::new();
        node.flush(true, &mut actions).expect("nothing is stuck");
        let next = actions.iter().find_map(|action| match action {
            Action::Append(append) => append.entries.first().map(|entry| entry.index.0),
            _ => None,
        });
        Ok([seen[0], seen[1], next.expect("a leader begins its term") - 1])
    };
    Executor::new(1).run(main, || false).done()
}

/// What an earlier start proposed may be applied later, by the next one. Its ticket must not be one
/// that somebody else waits with, though the clock on the wall begins anew with the machine.
#[test]
fn tickets_do_not_come_back_when_the_wall_clock_does() {
    let starts = async {
        let (disk, mut starts) = (SimDisk::new(1), Vec::new());
        for boot_micros in [1_000, 1_000, 7, 1 << 50, 1_000] {
            let opening = Opening { boot_micros, ..opening() };
            let disks =
                Disks { data: disk.clone(), wal: disk.clone(), wal_background: disk.clone() };
            let newborn = || {
                Ok(Newborn {
                    cluster: CLUSTER,
                    member: member_on(0, 0),
                    members: vec![facts_of(0)],
                })
            };
            let opened = recover::member(&disks, &opening, newborn).await;
            starts.push(opened.expect("the disk is fine").ballots.ballot().boot);
        }
        starts
    };
    let starts = Executor::new(1).run(starts, || false).done();
    let apart = STARTS_APART_TICKETS_MIN;
    let second = 1_000 + apart;
    assert_eq!(starts, [1_000, second, second + apart, 1 << 50, (1 << 50) + apart]);
}

#[test]
fn a_log_trimmed_behind_what_the_superblock_has_applied_is_refused() {
    open_mixed(5, 9, 5).expect("the log begins where the superblock ends");
    assert!(matches!(open_mixed(5, 9, 7), Err(RecoverError::Gap(_))), "entries behind the gap");
    assert!(matches!(open_mixed(5, 9, 9), Err(RecoverError::Gap(_))), "nothing behind the gap");
}

#[test]
fn a_log_older_than_its_superblock_is_refused() {
    open_mixed(5, 5, 0).expect("the log ends where the superblock does");
    for entries in [0, 4] {
        let opened = open_mixed(5, entries, 0);
        assert!(matches!(opened, Err(RecoverError::LogMissing { .. })), "{entries} entries");
    }
}

#[test]
fn a_log_may_end_before_what_came_as_a_whole_and_goes_on_behind_it() {
    let behind = |entries, trim| open_installed((5, 1), 5, entries, trim).expect("it fits");
    assert_eq!(behind(0, 0), [6, 5, 5], "there never was a log");
    assert_eq!(behind(3, 0), [6, 5, 5], "it ends before");
    assert_eq!(behind(3, 3), [6, 5, 5], "and is empty");
    assert_eq!(behind(5, 5), [6, 5, 5], "it ends there");
    assert_eq!(behind(9, 2), [3, 9, 9], "it goes on behind, and was trimmed less far");
    assert_eq!(open_installed((5, 1), 3, 6, 0).expect("it fits"), [1, 6, 6], "more was applied");
    let opened = open_installed((5, 1), 3, 4, 0);
    assert!(
        matches!(opened, Err(RecoverError::LogMissing { .. })),
        "what was applied since is gone"
    );
    let opened = open_installed((5, 1), 5, 9, 7);
    assert!(matches!(opened, Err(RecoverError::Gap(_))), "trimmed for a newer superblock");
}

/// Entries behind the snapshot of a branch that never came to be are not the log's: terms never go
/// back.
#[test]
fn a_branch_that_a_snapshot_was_installed_over_is_left() {
    assert_eq!(open_installed((5, 2), 5, 9, 0).expect("it fits"), [1, 9, 5]);
    assert_eq!(open_installed((5, 2), 5, 9, 5).expect("it fits"), [6, 9, 5]);
}

/// The clock of a machine that is so busy for a second that time passes whenever somebody looks at it or
/// sets a timer.
#[derive(Clone)]
struct BusyClock {
    truth: SimClock,
    passed: Rc<Cell<Duration>>,
}

impl BusyClock {
    fn pass(&self) -> Duration {
        if self.passed.get() < Duration::from_secs(1) {
            self.passed.set(self.passed.get() + Duration::from_millis(6));
        }
        self.passed.get()
    }
}

impl Clock for BusyClock {
    fn now(&self) -> Duration {
        self.truth.now() + self.pass()
    }

    fn wall_nanos(&self) -> u64 {
        self.truth.wall_nanos()
    }

    fn sleep_until(&self, until: Duration) -> impl Future<Output = ()> + 'static {
        self.truth.sleep_until(until.saturating_sub(self.pass()))
    }
}

/// A member with a heartbeat of 10 ms was held up for 5 between setting the timer of its next tick and
/// looking at it.
#[test]
fn a_tick_that_is_due_as_soon_as_it_is_set_does_no_harm() {
    let disk = SimDisk::new(1);
    let ended = run(&disk.clone(), 1, async move |executor| {
        let disks = Disks { data: disk.clone(), wal: disk.clone(), wal_background: disk.clone() };
        let (cluster, member) = (CLUSTER, member_on(0, 0));
        let newborn = || Ok(Newborn { cluster, member, members: vec![facts_of(0)] });
        let opened = recover::member(&disks, &opening(), newborn).await;
        let recover::Member { mut node, wal, ballots, .. } = opened.expect("the disk is fine");
        let newest = Newest::new(node.publish().expect("nothing is published yet"));
        let (mesh, mut shards, _peers) = mesh(1, Capacity::default());
        let (truth, passed) = (executor.clock(), Rc::default());
        let goes = truth.clone();
        executor.spawn(async move {
            goes.sleep_until(goes.now() + Duration::from_secs(1)).await;
            assert!(shards[0].to_node.try_send(ToNode::Farewell).is_ok(), "the ring is empty");
        });
        let pace = Pace {
            tick: Duration::from_millis(10),
            election: Duration::from_millis(100),
            checkpoint: CheckpointPace::usual(1_000),
        };
        let clock = BusyClock { truth, passed };
        let meters = Arc::default();
        let give_memory_back = || {};
        let parts =
            Parts { node, wal, ballots, disk, clock, mesh, newest, meters, pace, give_memory_back };
        drive(parts).await
    });
    assert_eq!(ended.done().expect("nothing is fatal"), ringleader::node::drive::Ended::Stopped);
}
