//! One boot of a member: recovered and driven by the code that production runs, on a disk and a
//! clock that are not there.

use crate::{
    audience::{self, Spots},
    check::{Chronicle, Ledger},
    clients::{Desk, Floor, Slip},
    disk::{Faults, SimDisk},
    executor::{Executor, Lot, SimClock},
    weather::{Air, Day, Drought, Fate, Lie, RoughDisk, Weather},
};
use ringleader::{
    api::Edge,
    fatal::Fatal,
    io::Clock,
    mesh::{Capacity, Newest, mesh},
    metrics::NodeMeters,
    node::{
        drive::{Pace, Parts, drive},
        recover::{self, Disks, Found, Newborn, Opening, RecoverError},
    },
    store::{Member as MemberFacts, Quota},
    types::{ClusterId, MemberId},
};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// Cluster and member of every run.
pub(crate) const WHO: (u64, u64) = (0xc1, 0x3e);
pub(crate) const WHO_TYPED: (ClusterId, MemberId) = (ClusterId(WHO.0), MemberId(WHO.1));

pub(crate) const ELECTION_TICKS: usize = 10;

/// A bug planted between recovery and the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tamper {
    /// Term, vote and commit are as on the first day.
    HardStateForgotten,
    /// The log's last entry is not there.
    LastEntryDropped,
    /// The log is trimmed at once, though no checkpoint covers it.
    TrimmedTooEarly,
}

/// A bug planted in the member's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drift {
    /// It goes twice as fast as time.
    Fast,
    /// It goes half as fast.
    Slow,
}

/// The clock that the member goes by.
#[derive(Clone)]
struct MemberClock {
    inner: SimClock,
    drift: Option<Drift>,
}

impl Clock for MemberClock {
    fn now(&self) -> Duration {
        match self.drift {
            None => self.inner.now(),
            Some(Drift::Fast) => self.inner.now() * 2,
            Some(Drift::Slow) => self.inner.now() / 2,
        }
    }

    fn wall_nanos(&self) -> u64 {
        self.inner.wall_nanos()
    }

    fn sleep_until(&self, until: Duration) -> impl Future<Output = ()> + 'static {
        self.inner.sleep_until(match self.drift {
            None => until,
            Some(Drift::Fast) => (until + Duration::from_nanos(1)) / 2,
            Some(Drift::Slow) => until * 2,
        })
    }
}

/// All bugs of a run; usually none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mutant {
    pub(crate) lie: Option<Lie>,
    pub(crate) slip: Option<Slip>,
    pub(crate) tamper: Option<Tamper>,
    pub(crate) drift: Option<Drift>,
}

/// How a boot ended by itself.
#[derive(Debug)]
pub(crate) enum End {
    /// Every shard said goodbye.
    Stopped,
    /// The process would have died.
    Fatal(Fatal),
    /// The process would not have started.
    Unrecovered(RecoverError),
}

/// What a boot needs.
pub(crate) struct Boot {
    pub(crate) weather: Rc<Weather>,
    pub(crate) day: Day,
    pub(crate) disk: SimDisk,
    pub(crate) air: Rc<Air>,
    pub(crate) lot: Lot,
    pub(crate) mutant: Mutant,
    pub(crate) spots: Rc<RefCell<Spots>>,
    pub(crate) chronicle: Rc<RefCell<Chronicle>>,
    pub(crate) ledger: Rc<RefCell<Ledger>>,
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
            Ok(outcome) => outcome.map_or_else(End::Fatal, |()| End::Stopped),
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
            pre_vote: true,
            boot_micros: 1,
        }
    }

    async fn recover(&mut self) -> Result<Found<RoughDisk>, RecoverError> {
        let disk = self.rough();
        let disks = Disks { data: disk.clone(), wal: disk.clone(), wal_background: disk };
        let opening = self.opening();
        let newborn = || {
            let member = MemberFacts {
                id: WHO_TYPED.1,
                name: "sim".into(),
                peer_urls: vec!["http://sim:2380".into()],
                ..MemberFacts::default()
            };
            Ok(Newborn { cluster: WHO_TYPED.0, member: member.id, members: vec![member] })
        };
        let mut found = recover::find(&disks, &opening, newborn).await?;
        match self.mutant.tamper {
            None => {}
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
    ) -> Result<Result<(), Fatal>, RecoverError> {
        let recovered = found.recovered.entries.len();
        let recover::Member { mut node, wal, ballots, .. } = found.member(&self.opening())?;
        let view = node.publish().expect("nothing is published yet, so all of it is new");
        self.chronicle.borrow_mut().story.push(format!(
            "  recovered: revision {}, applied {}, {recovered} entries in the log",
            view.revision.0, view.applied.0
        ));
        self.ledger.borrow_mut().show(view.applied.0);
        let newest = Newest::new(view);
        let rings = self.weather.ring_messages;
        let capacity = Capacity { to_node: rings, to_shard: rings, to_peers: rings };
        let (node_end, shard_ends, _nobody_else) = mesh(self.weather.shards, capacity);
        let floor = Rc::new(Floor {
            weather: self.weather.clone(),
            day: self.day.clone(),
            lot: Lot::new(self.lot.draw()).into(),
            clock: executor.clock(),
            edge: edge(&self.weather),
            newest: newest.clone(),
            left: Cell::new(self.day.requests),
            returning: audience::returning(&mut self.spots.borrow_mut()).into(),
            spots: self.spots.clone(),
            chronicle: self.chronicle.clone(),
            ledger: self.ledger.clone(),
            slip: self.mutant.slip,
        });
        for end in shard_ends {
            executor.spawn(Desk::new(floor.clone(), end).serve());
        }
        let meters = Arc::new(NodeMeters::default());
        let parts = Parts {
            node,
            wal,
            ballots,
            disk: self.rough(),
            clock: MemberClock { inner: executor.clock(), drift: self.mutant.drift },
            mesh: node_end,
            newest,
            meters: meters.clone(),
            pace: Pace {
                tick: self.weather.tick,
                election: self.weather.tick * ELECTION_TICKS as u32,
                checkpoint_entries: self.weather.checkpoint_entries,
            },
        };
        self.air.served.set(true);
        let is_calm = self.day.rest > Duration::ZERO;
        self.chronicle.borrow_mut().day_began(executor.clock().now(), is_calm);
        if self.day.while_serving {
            self.begin_fate(executor);
        }
        // Clients may come before the node has its first turn.
        for _ in 0..self.lot.below(3) {
            futures_lite::future::yield_now().await;
        }
        let outcome = drive(parts).await;
        if outcome.is_ok() && self.day.patience.is_none() && self.mutant.slip.is_none() {
            assert_eq!(meters.proposals_pending.get(), 0, "a proposal waits for ever");
        }
        Ok(outcome.map(|_stopped| ()))
    }

    /// Droughts come and go beside the member, and sometimes it stands still.
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
        let (clock, mut lot) = (executor.clock(), Lot::new(self.lot.draw()));
        if self.day.pauses {
            executor.spawn(async move {
                for _ in 0..lot.below(4) {
                    clock.sleep_until(clock.now() + Duration::from_micros(lot.below(9_000))).await;
                    clock.skip(Duration::from_millis(lot.below(90_000)));
                }
            });
        }
    }
}

fn edge(weather: &Weather) -> Edge {
    let least_ttl = weather.tick * (ELECTION_TICKS * 3 / 2) as u32;
    Edge {
        request_bytes_max: ringleader::limits::REQUEST_BYTES_MAX,
        txn_ops_max: ringleader::limits::TXN_OPS_MAX,
        quota: Quota::from_flag(-1),
        quota_flag_bytes: -1,
        cluster: WHO_TYPED.0,
        member: WHO_TYPED.1,
        lease_ttl_min: least_ttl.as_millis().div_ceil(1_000) as i64,
    }
}
