//! One boot of a member: recovered and driven by the code that production runs, on a disk and a
//! clock that are not there.

use crate::{
    audience::Spots,
    check::Chronicle,
    clients::{Desk, Floor, Slip},
    clocks::{OwnClock, Rate},
    damage::MARK,
    disk::{Faults, SimDisk},
    executor::{Executor, Lot},
    history::History,
    network::{Gust, Network},
    parcel::Ramp,
    room::Room,
    rough::{Air, Lie, RoughDisk},
    weather::{Day, Drought, ELECTION_TICKS, Fate, Weather},
};
use proto::etcdserverpb::WatchCreateRequest;
use ringleader::{
    api::Edge,
    fatal::Fatal,
    io::Clock,
    mesh::{Capacity, Newest, PeersEnd, mesh},
    metrics::NodeMeters,
    node::{
        drive::{CheckpointPace, Ended, Pace, Parts, drive},
        recover::{self, Disks, Found, Newborn, Opening, RecoverError},
    },
    store::{Member as MemberFacts, Quota},
    tree::Stage,
    types::{ClusterId, MemberId},
    wal::{self, Ballot},
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// The cluster of every run.
pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);

/// The `life`-th member on a machine. Tickets tell members apart by the last twelve bits.
pub(crate) fn member_on(machine: usize, life: u64) -> MemberId {
    MemberId(0x3e + 0x10 * machine as u64 + 0x100 * life)
}

/// On which machine a member lives.
pub(crate) fn machine_of(member: u64) -> usize {
    ((member - 0x3e) % 0x100 / 0x10) as usize
}

/// What everybody knows of the first member on a machine.
pub(crate) fn facts_of(machine: usize) -> MemberFacts {
    MemberFacts { name: format!("sim{machine}"), ..newcomer_on(machine, 0) }
}

/// What is known of one that is added later.
pub(crate) fn newcomer_on(machine: usize, life: u64) -> MemberFacts {
    MemberFacts {
        id: member_on(machine, life),
        peer_urls: vec![format!("http://sim{machine}-{life}:2380")],
        ..MemberFacts::default()
    }
}

/// Where a member's votes are a second time.
const BALLOT: &str = "ballot";

/// A bug planted between recovery and the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tamper {
    /// Term, vote and commit are as on the first day.
    HardStateForgotten,
    /// The log's last entry is not there.
    LastEntryDropped,
    /// The log is trimmed at once, though no checkpoint covers it.
    TrimmedTooEarly,
    /// What a process died of is not known to the next.
    MarkForgotten,
}

/// A bug planted in the member's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drift {
    /// It goes twice as fast as time.
    Fast,
    /// It goes half as fast.
    Slow,
}

impl Drift {
    pub(crate) fn of(self, rate: Rate) -> Rate {
        match self {
            Self::Fast => Rate(rate.0 * 2),
            Self::Slow => Rate(rate.0 / 2),
        }
    }
}

/// All bugs of a run; usually none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mutant {
    pub(crate) lie: Option<Lie>,
    pub(crate) slip: Option<Slip>,
    pub(crate) tamper: Option<Tamper>,
    pub(crate) drift: Option<Drift>,
    pub(crate) gust: Option<Gust>,
}

/// How a boot ended by itself.
#[derive(Debug)]
pub(crate) enum End {
    /// Every shard said goodbye.
    Stopped,
    /// It is no member any more.
    Removed,
    /// The process would have died.
    Fatal(Fatal),
    /// The process would not have started.
    Unrecovered(RecoverError),
}

/// What a boot needs.
pub(crate) struct Boot {
    pub(crate) weather: Rc<Weather>,
    pub(crate) day: Day,
    /// It stays until the whistle; `day` is then what it begins with.
    pub(crate) whistle: Option<Rc<Cell<bool>>>,
    pub(crate) is_calm: bool,
    pub(crate) dusk: Rc<Cell<bool>>,
    pub(crate) machine: usize,
    pub(crate) member: MemberId,
    /// Boots of the whole life so far.
    pub(crate) number: u64,
    /// The machine's.
    pub(crate) clock: OwnClock,
    pub(crate) disk: SimDisk,
    pub(crate) air: Rc<Air>,
    pub(crate) lot: Lot,
    pub(crate) mutant: Mutant,
    pub(crate) returning: Vec<WatchCreateRequest>,
    pub(crate) spots: Rc<RefCell<Spots>>,
    pub(crate) chronicle: Rc<RefCell<Chronicle>>,
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) network: Network,
    pub(crate) candidates: Rc<RefCell<Vec<MemberFacts>>>,
    pub(crate) recovered: Option<wal::Recovered>,
    /// Where it shows itself once it serves.
    pub(crate) shown: Rc<RefCell<Option<Rc<Floor>>>>,
}

impl Boot {
    pub(crate) async fn run(mut self, executor: Executor) -> End {
        if !self.day.while_serving {
            self.begin_fate(&executor);
        }
        let found = match self.recover().await {
            Ok(found) => found,
            Err(error) => return End::Unrecovered(error),
        };
        match self.start(&executor, found).await {
            Ok(Ok(Ended::Stopped)) => End::Stopped,
            Ok(Ok(Ended::Removed)) => End::Removed,
            Ok(Err(fatal)) => End::Fatal(fatal),
            Err(error) => End::Unrecovered(error),
        }
    }

    fn begin_fate(&mut self, executor: &Executor) {
        self.change_weather(executor);
        match self.day.fate {
            Fate::Nothing => {}
            Fate::Crash(at) => self.disk.crash_at(at),
            Fate::FailedSync(at) => self.disk.arm(Faults { sync: Some(at), write: None }),
            Fate::FailedWrite(at) => self.disk.arm(Faults { write: Some(at), sync: None }),
        }
    }

    fn rough(&self) -> RoughDisk {
        RoughDisk::new(self.disk.clone(), self.air.clone())
    }

    fn opening(&mut self) -> Opening {
        Opening {
            quota: Quota::from_flag(-1),
            tree: self.weather.tree,
            wal_segment_bytes: self.weather.wal_segment_bytes(),
            salt: self.lot.draw(),
            election_ticks: ELECTION_TICKS,
            pre_vote: self.weather.pre_vote,
            boot_micros: self.clock.wall_nanos() / 1_000,
        }
    }

    async fn recover(&mut self) -> Result<Found<RoughDisk>, RecoverError> {
        let disk = self.rough();
        let disks = Disks { data: disk.clone(), wal: disk.clone(), wal_background: disk };
        if self.mutant.tamper == Some(Tamper::HardStateForgotten) {
            forget_ballots(&self.disk);
        }
        let is_marked = self.disk.names().iter().any(|name| name == MARK);
        if is_marked && self.mutant.tamper == Some(Tamper::MarkForgotten) {
            self.disk.leave(MARK, &[]);
        }
        let opening = self.opening();
        let (member, machines) = (self.member, self.weather.members() as usize);
        let newborn = || {
            let begins = member == member_on(self.machine, 0);
            let members = if begins { (0..machines).map(facts_of).collect() } else { Vec::new() };
            Ok(Newborn { cluster: CLUSTER, member, members })
        };
        let mut found = recover::find(&disks, &opening, newborn).await?;
        self.recovered = Some(wal::Recovered {
            entries: found.recovered.entries.clone(),
            hard_state: found.recovered.hard_state,
            trimmed: found.recovered.trimmed,
            torn: None,
        });
        match self.mutant.tamper {
            None | Some(Tamper::MarkForgotten) => {}
            Some(Tamper::HardStateForgotten) => found.recovered.hard_state = Default::default(),
            Some(Tamper::LastEntryDropped) => drop(found.recovered.entries.pop()),
            Some(Tamper::TrimmedTooEarly) => found.wal.trim(found.wal.last_index()),
        }
        Ok(found)
    }

    async fn start(
        mut self,
        executor: &Executor,
        found: Found<RoughDisk>,
    ) -> Result<Result<Ended, Fatal>, RecoverError> {
        let recovered = found.recovered.entries.len();
        let recover::Member { mut node, wal, ballots, .. } = found.member(&self.opening())?;
        let view = node.publish().expect("nothing is published yet, so all of it is new");
        let line = format!(
            "  {:x} recovered: revision {}, applied {}, {recovered} entries in the log",
            self.member.0, view.revision.0, view.applied.0
        );
        self.chronicle.borrow_mut().story.push((executor.clock().now(), line));
        let recovered = self.recovered.take().expect("it was just made");
        let Ballot { lost, boot: first_ticket, .. } = ballots.ballot();
        let stands_in = lost && view.applied.0 == 0;
        self.chronicle.borrow_mut().see("a log that was lost", usize::from(lost && !stands_in));
        self.history.borrow_mut().boot(self.member.0, &recovered, view.applied.0, lost);
        self.history.borrow_mut().show(self.member.0, view.applied.0);
        node.set_strict(self.weather.strict);
        let (newest, meters) = (Newest::new(view), Arc::new(NodeMeters::default()));
        let rings = self.weather.ring_messages;
        let capacity = Capacity { to_node: rings, to_shard: rings, to_peers: 64 };
        let (node_end, shard_ends, peers_end) = mesh(self.weather.shards, capacity);
        let floor = Rc::new(Floor {
            weather: self.weather.clone(),
            day: RefCell::new(self.day.clone()),
            lot: Lot::new(self.lot.draw()).into(),
            clock: executor.clock(),
            own: self.clock.clone(),
            first_ticket,
            edge: edge(&self.weather, self.member),
            boot: self.number,
            newest: newest.clone(),
            meters: meters.clone(),
            left: Cell::new(self.day.requests),
            done: Cell::new(0),
            whistle: self.whistle.clone(),
            is_calm: Cell::new(self.is_calm),
            dusk: self.dusk.clone(),
            returning: std::mem::take(&mut self.returning).into(),
            spots: self.spots.clone(),
            chronicle: self.chronicle.clone(),
            history: self.history.clone(),
            candidates: self.candidates.clone(),
            slip: self.mutant.slip,
        });
        for end in shard_ends {
            executor.spawn(Desk::new(floor.clone(), end, stands_in).serve());
        }
        *self.shown.borrow_mut() = Some(floor);
        self.open_room(executor, peers_end, &newest, first_ticket);
        let alone = node.is_alone();
        let parts = Parts {
            node,
            wal,
            ballots,
            disk: self.rough(),
            clock: self.clock.clone(),
            mesh: node_end,
            newest,
            meters: meters.clone(),
            pace: Pace {
                tick: self.weather.tick,
                election: self.weather.election(),
                checkpoint: CheckpointPace::usual(self.weather.checkpoint_entries),
            },
            give_memory_back: || {},
        };
        self.air.served.set(true);
        if self.day.while_serving {
            self.begin_fate(executor);
        }
        // Clients may come before the node has its first turn.
        for _ in 0..self.lot.below(3) {
            futures_lite::future::yield_now().await;
        }
        let outcome = drive(parts).await;
        let in_peace = outcome.is_ok() && self.day.patience.is_none();
        if alone && in_peace && self.mutant.slip.is_none() {
            assert_eq!(meters.proposals_pending.get(), 0, "a proposal waits for ever");
        }
        Ok(outcome)
    }

    fn open_room(
        &mut self,
        executor: &Executor,
        end: PeersEnd,
        newest: &Newest,
        first_ticket: u64,
    ) {
        self.network.open(self.member.0);
        let ramp = Rc::new(Ramp {
            member: self.member.0,
            boot: self.number,
            executor: executor.clone(),
            disk: self.rough(),
            machine: self.disk.clone(),
            options: self.weather.tree,
            newest: newest.clone(),
            network: self.network.clone(),
            history: self.history.clone(),
            stage: RefCell::new(Stage::default()),
            busy: Cell::new(false),
            handed: Cell::new(None),
            out: RefCell::default(),
        });
        let room = Room {
            member: self.member.0,
            boot: self.number,
            end,
            network: self.network.clone(),
            history: self.history.clone(),
            newest: newest.clone(),
            clock: executor.clock(),
            lot: Lot::new(self.lot.draw()),
            asked: BTreeMap::new(),
            next_ticket: first_ticket,
            held: VecDeque::new(),
            ramp,
            sending: BTreeMap::new(),
            patience: self.weather.election() * 20,
        };
        executor.spawn(room.serve());
    }

    /// Droughts come and go beside the member, clocks are set, and sometimes it stands still.
    fn change_weather(&mut self, executor: &Executor) {
        let (disk, clock) = (self.disk.clone(), executor.clock());
        if let Some(Drought { after, lasts, space_bytes }) = self.day.drought {
            executor.spawn(async move {
                clock.sleep_until(clock.now() + after).await;
                disk.set_space(Some(space_bytes));
                clock.sleep_until(clock.now() + lasts).await;
                disk.set_space(None);
            });
        }
        let (group, mut lot) = (executor.clone(), Lot::new(self.lot.draw()));
        let alone = self.weather.members() == 1;
        let (lull, most) = match alone {
            true => (Duration::from_micros(9_000), Duration::from_secs(90)),
            false => (self.weather.election() * 5, self.weather.election() * 5),
        };
        let part = |lot: &mut Lot, of: Duration| of * lot.below(1_000) as u32 / 1_000;
        if self.weather.walls {
            let (clock, own, mut lot) =
                (executor.clock(), self.clock.clone(), Lot::new(self.lot.draw()));
            executor.spawn(async move {
                for _ in 0..lot.below(4) {
                    clock.sleep_until(clock.now() + part(&mut lot, lull)).await;
                    own.set(&mut lot);
                }
            });
        }
        if self.day.pauses {
            let clock = executor.clock();
            executor.spawn(async move {
                for _ in 0..lot.below(4) {
                    clock.sleep_until(clock.now() + part(&mut lot, lull)).await;
                    group.freeze(clock.now() + part(&mut lot, most));
                    futures_lite::future::yield_now().await;
                }
            });
        }
        if let Some(after) = self.day.killed_after {
            let (disk, clock) = (self.disk.clone(), executor.clock());
            executor.spawn(async move {
                clock.sleep_until(clock.now() + after).await;
                disk.crash();
            });
        }
    }
}

/// What a vote was put into a second time is as on the first day.
fn forget_ballots(disk: &SimDisk) {
    if disk.names().iter().any(|name| name == BALLOT) {
        let len = disk.peek(BALLOT).len();
        disk.poke(BALLOT, 0, &vec![0; len]);
    }
}

fn edge(weather: &Weather, member: MemberId) -> Edge {
    let least_ttl = weather.tick * (ELECTION_TICKS * 3 / 2) as u32;
    Edge {
        request_bytes_max: ringleader::limits::REQUEST_BYTES_MAX,
        txn_ops_max: ringleader::limits::TXN_OPS_MAX,
        quota: Quota::from_flag(-1),
        quota_flag_bytes: -1,
        cluster: CLUSTER,
        member,
        lease_ttl_min: least_ttl.as_millis().div_ceil(1_000) as i64,
    }
}
