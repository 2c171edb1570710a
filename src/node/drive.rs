//! The loop around the node: the one place where log, engine and consensus meet, and where waiting
//! is allowed. It decides nothing that a client could notice.
//!
//! ```text
//!          ┌──────────────────────── one turn ────────────────────────┐
//!  wait ──▶ take in events ──▶ Node::flush ──▶ start appends ──▶ publish, reply ──▶ wait
//!   ▲                                                                         │
//!   └── rings · durable appends · checkpoint · spare segments · timer ◀───────┘
//! ```
//!
//! Appends are pipelined: [`APPENDS_IN_FLIGHT_MAX`] may be on their way to the disk while requests
//! keep coming in; what arrives meanwhile is packed into the next one. Futures in flight are kept
//! here until they end; none is ever dropped halfway.
//!
//! The same code runs in the simulator, over its disk and its clock.

use super::{
    Action, Event, Node, Stuck,
    pieces::{Piece, batch, hard_state, in_pieces},
    piecewise::Piecewise,
};
use crate::{
    consensus,
    fatal::Fatal,
    io::{Clock, Disk, File},
    limits::{
        APPENDS_IN_FLIGHT_MAX, BACKGROUND_PIECE_MIN, BACKGROUND_PIECES_PRESSED, BACKGROUND_SHARE,
        CHECKPOINT_INTERVAL, CHECKPOINT_LOG_BYTES, CHECKPOINT_LULL, CHECKPOINT_LULL_LOG_BYTES,
        CHECKPOINT_PIECE_REST, DISK_FULL_RETRY, DISK_STALL_MIN, EVENTS_PER_TURN_MAX,
        INDEX_MEMORY_BYTES_MAX, RETIRED_INDEX_BYTES_HELD_MAX, RETIRED_INDEX_BYTES_MAX,
        UNSEALED_BYTES_HELD_MAX, UNSEALED_BYTES_MAX,
    },
    mesh::{Newest, NodeEnd, Reply, ToNode, ToPeers, ToShard},
    metrics::NodeMeters,
    store::{Cluster, Unavailable},
    tree::{CheckpointDone, RootFacts, Staged, Tree},
    types::{Index, Revision, Ticket},
    wal::{Ballot, BallotBox, Batch, Prepared, Wal, WalError},
};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

/// What a member is made of, recovered and ready to run.
pub struct Parts<D: Disk, C: Clock> {
    /// The decisions.
    pub node: Node,
    /// The log, and whatever lane its disk has.
    pub wal: Wal<D>,
    /// Term and vote, kept a second time.
    pub ballots: BallotBox<D::File>,
    /// Where records and the superblock live.
    pub disk: D,
    /// Time.
    pub clock: C,
    /// To and from the shards.
    pub mesh: NodeEnd,
    /// Where views are published.
    pub newest: Newest,
    /// What is counted here and read by whoever serves `/metrics`.
    pub meters: Arc<NodeMeters>,
    /// How often raft's clock ticks, and how often a checkpoint is due.
    pub pace: Pace,
    /// Gives memory that is free back to the machine: called once after a checkpoint, when nobody waits.
    pub give_memory_back: fn(),
}

/// How fast a member's own clocks go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time between two ticks of raft (`--heartbeat-interval`).
    pub tick: Duration,
    /// How long a leader may be silent (`--election-timeout`).
    pub election: Duration,
    /// When a checkpoint is due.
    pub checkpoint: CheckpointPace,
}

/// When a checkpoint is due: whichever comes first. And in a lull, where there is something to it, so that
/// memory is free and a start is short when nobody is busy.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointPace {
    /// After so many applied entries (`--snapshot-count`).
    pub entries: u64,
    /// After so many bytes of log (`--ringleader-checkpoint-bytes`).
    pub log_bytes: u64,
    /// After this long, if there is anything new (`--ringleader-checkpoint-interval`).
    pub interval: Duration,
    /// When changed pages of the index take so many bytes of memory (`--ringleader-index-memory-bytes`).
    pub index_bytes: u64,
}

impl CheckpointPace {
    /// The defaults, and so many entries.
    pub fn usual(entries: u64) -> Self {
        Self {
            entries,
            log_bytes: CHECKPOINT_LOG_BYTES,
            interval: CHECKPOINT_INTERVAL,
            index_bytes: INDEX_MEMORY_BYTES_MAX,
        }
    }
}

/// Why a member has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every shard has said goodbye.
    Stopped,
    /// It is no member of its cluster any more.
    Removed,
}

/// Runs a member until every shard is gone, hands its lead over if it has it, and writes a last
/// checkpoint; or until the cluster has removed it.
///
/// # Errors
/// [`Fatal`]: the disk failed or the log holds what cannot be applied. The process must die; what
/// was acknowledged is on disk.
pub async fn drive<D: Disk, C: Clock>(parts: Parts<D, C>) -> Result<Ended, Fatal> {
    let mut driver = Driver::new(parts);
    driver.run().await
}

struct Driver<D: Disk, C: Clock> {
    parts: Parts<D, C>,
    appends: VecDeque<Appending>,
    checkpoint: Option<Checkpointing>,
    prepare: Option<Pending<io::Result<Prepared<D::File>>>>,
    timer: Pending<()>,
    next_tick: Duration,
    /// Rings when the node wants a turn before the next tick.
    alarm: Option<(Duration, Pending<()>)>,
    outbox: Vec<Outbox>,
    /// Revision of the newest published view.
    published: Revision,
    /// The members that the peers' room knows of.
    introduced: Option<Arc<Cluster>>,
    /// The last entry of the log that is durable.
    durable: Index,
    /// The log's last frame at the start.
    frame_before: u64,
    /// How long an append usually takes.
    usual_append: Duration,
    /// What the oldest append on its way has taken so far.
    stall: Option<Stall>,
    /// On its way: nothing is lost any more.
    found: Option<Cast>,
    /// A snapshot that is to be this member's state, before the append that says so.
    staged: Option<Box<Staged>>,
    install: Option<Pending<Installed>>,
    events: Vec<Event>,
    actions: Vec<Action>,
    last_checkpoint: LastCheckpoint,
    /// Shards that have gone.
    farewells: usize,
    /// The log's last frame says that all before it are durable.
    sealed: bool,
    /// Bytes of entries handed to the log, after those that it held at the start.
    log_bytes: u64,
    /// When the last of them was.
    log_grew: Duration,
    /// Appends that the log has no room for yet, in order; nothing is proposed meanwhile.
    held: VecDeque<Piece>,
    /// The log was long at the start: its checkpoint comes before a new spare segment, which takes
    /// the same thread a second, and does not rest. A member that is killed again and again so gets
    /// somewhere.
    checkpoint_first: bool,
    /// Nobody is served any more.
    finishing: bool,
    /// A checkpoint has left memory free that nobody has given back.
    memory_is_free: bool,
    /// Work that nobody waits for rests until then.
    rest: Option<Pending<()>>,
    /// The disk is full: no new spare segment and no checkpoint until this moment.
    full_until: Option<Duration>,
}

/// What is to be sent to one shard.
#[derive(Default)]
struct Outbox {
    message: ToShard,
    /// There is a new revision, and the shard wants to hear of it.
    news: bool,
}

struct Appending {
    /// raft's number; `None` for a seal.
    number: Option<u64>,
    /// Its last entry.
    last: Index,
    since: Duration,
    done: Pending<io::Result<()>>,
}

/// An append that takes its time.
struct Stall {
    since: Duration,
    looked: Duration,
    lasts: Duration,
}

struct Checkpointing {
    applied: Index,
    since: Duration,
    done: Piecewise<io::Result<CheckpointDone>>,
}

/// What the newest finished or begun checkpoint covers.
#[derive(Clone, Copy)]
struct LastCheckpoint {
    applied: Index,
    at: Duration,
    log_bytes: u64,
}

impl<D: Disk, C: Clock> Driver<D, C> {
    fn new(parts: Parts<D, C>) -> Self {
        let now = parts.clock.now();
        let next_tick = now + parts.pace.tick;
        Self {
            appends: VecDeque::new(),
            checkpoint: None,
            prepare: None,
            timer: Box::pin(parts.clock.sleep_until(next_tick)),
            next_tick,
            alarm: None,
            outbox: parts.mesh.to_shards.iter().map(|_| Outbox::default()).collect(),
            published: parts.newest.load().revision,
            introduced: None,
            durable: Index(parts.wal.last_index()),
            frame_before: parts.wal.durable_frame(),
            usual_append: Duration::ZERO,
            stall: None,
            found: None,
            staged: None,
            install: None,
            events: Vec::new(),
            actions: Vec::new(),
            last_checkpoint: LastCheckpoint {
                applied: parts.node.applied(),
                at: now,
                log_bytes: 0,
            },
            farewells: 0,
            sealed: false,
            log_bytes: parts.wal.live_bytes(),
            log_grew: now,
            held: VecDeque::new(),
            checkpoint_first: parts.wal.live_bytes() >= parts.pace.checkpoint.log_bytes,
            finishing: false,
            memory_is_free: false,
            rest: None,
            full_until: None,
            parts,
        }
    }

    async fn run(&mut self) -> Result<Ended, Fatal> {
        let Pace { tick, election, .. } = self.parts.pace;
        self.parts.node.keep_pace(tick, election);
        if self.parts.node.is_alone() {
            self.parts.node.campaign();
        }
        // The peers' room stays to the end.
        while self.farewells + 1 < self.parts.mesh.to_shards.len() {
            self.step().await?;
            if self.parts.node.is_removed() {
                return self.finish().await.map(|()| Ended::Removed);
            }
        }
        self.leave().await?;
        self.finish().await.map(|()| Ended::Stopped)
    }

    async fn step(&mut self) -> Result<(), Fatal> {
        self.turn()?;
        // Others share this core: let them run before looking again.
        futures_lite::future::yield_now().await;
        self.wait().await
    }

    /// A leader that goes does not let its cluster wait for an election.
    async fn leave(&mut self) -> Result<(), Fatal> {
        let until = self.parts.clock.now() + self.parts.pace.election;
        if !self.parts.node.hand_over_lead(Index(0)) {
            return Ok(());
        }
        while self.parts.node.leadership().own && self.parts.clock.now() < until {
            self.step().await?;
        }
        Ok(())
    }

    /// Everything between two waits. Nothing in here waits.
    fn turn(&mut self) -> Result<(), Fatal> {
        self.take_in();
        self.parts.node.begin_turn(self.parts.clock.now());
        let mut actions = std::mem::take(&mut self.actions);
        for event in self.events.drain(..) {
            self.parts.node.handle(event, &mut actions);
        }
        self.append_held()?;
        let room = self.held.is_empty()
            && self.appends.len() < APPENDS_IN_FLIGHT_MAX
            && !self.memory_is_full();
        self.parts.node.flush(room, &mut actions).map_err(stuck)?;
        if self.rest.is_none() && self.parts.node.wants_tidying() {
            let begun = self.parts.clock.now();
            for _ in 0..self.pieces() {
                if self.parts.node.wants_tidying() {
                    self.parts.node.tidy(&mut actions);
                }
            }
            self.rest_from(begun, Duration::ZERO);
        }
        for action in actions.drain(..) {
            match action {
                Action::Append(append) => self.hold(append),
                Action::Install(staged) => self.staged = Some(staged),
                Action::Peers(word) => self.tell_peers(word),
                Action::Reply { ticket, reply } => self.reply(ticket, reply),
            }
        }
        self.actions = actions;
        self.append_held()?;
        self.publish();
        self.note_found();
        self.maintain();
        self.set_alarm(room);
        Ok(())
    }

    /// Whether memory is full until the checkpoint that is under way is further.
    fn memory_is_full(&self) -> bool {
        let tree = self.parts.node.store().tree();
        let full = tree.unsealed_bytes() >= UNSEALED_BYTES_HELD_MAX
            || tree.retired_index_bytes() >= RETIRED_INDEX_BYTES_HELD_MAX;
        self.checkpoint.is_some() && full
    }

    /// Without `room` for another append the node is asked again when there is some.
    fn set_alarm(&mut self, room: bool) {
        let at = if room { self.parts.node.wants_turn_at() } else { None };
        if self.alarm.as_ref().map(|(at, _)| *at) != at {
            self.alarm =
                at.map(|at| (at, Box::pin(self.parts.clock.sleep_until(at)) as Pending<_>));
        }
    }

    fn take_in(&mut self) {
        while self.events.len() < EVENTS_PER_TURN_MAX {
            match self.parts.mesh.inbox.pop() {
                Some(ToNode::Propose { ticket, request }) => {
                    self.events.push(Event::Propose { ticket, request });
                }
                Some(ToNode::Read { ticket }) => self.events.push(Event::Read { ticket }),
                Some(ToNode::Lease { ticket, ask }) => {
                    self.events.push(Event::Lease { ticket, ask });
                }
                Some(ToNode::Change { ticket, change }) => {
                    self.events.push(Event::Change { ticket, change });
                }
                Some(ToNode::MoveLeader { ticket, to }) => {
                    self.events.push(Event::MoveLeader { ticket, to });
                }
                Some(ToNode::Defragment { ticket }) => {
                    self.events.push(Event::Defragment { ticket });
                }
                Some(ToNode::Peer(said)) => self.events.push(Event::Peer(said)),
                Some(ToNode::Farewell) => self.farewells += 1,
                None => break,
            }
        }
    }

    /// Puts an append behind those that the log has not got yet.
    fn hold(&mut self, append: consensus::Append) {
        self.held.extend(in_pieces(append, self.parts.wal.frame_bytes_max()));
    }

    /// Hands over what the log has room for. Without a spare segment the rest waits for one, which
    /// [`Driver::maintain`] sees to.
    fn append_held(&mut self) -> Result<(), Fatal> {
        while let Some(Piece { number, append: front }) = self.held.front() {
            if front.snapshot.is_some() && (self.staged.is_some() || self.install.is_some()) {
                self.begin_install();
                return Ok(());
            }
            let done = match self.parts.wal.append(&batch(front)) {
                Ok(done) => done,
                Err(WalError::NoSpare | WalError::Busy) => return Ok(()),
                Err(error) => {
                    return Err(Fatal {
                        what: format!("the log refuses an append: {error}"),
                        place: "wal".into(),
                        advice: "start again; nothing acknowledged is lost".into(),
                    });
                }
            };
            let (number, since) = (*number, self.parts.clock.now());
            let last = Index(self.parts.wal.last_index());
            let done = both(done, cast(&mut self.parts.ballots, front.hard_state));
            self.appends.push_back(Appending { number, last, since, done: Box::pin(done) });
            self.sealed = false;
            if !front.entries.is_empty() {
                self.log_grew = since;
            }
            for entry in &front.entries {
                self.log_bytes += entry.data.len() as u64;
                self.parts.node.store().foresee(&entry.data);
            }
            self.held.pop_front();
        }
        Ok(())
    }

    /// One superblock makes the snapshot the member's state. Before it everything that is on its way to
    /// the disk has arrived, and until it is written nothing else goes there.
    fn begin_install(&mut self) {
        let full = self.full_until.is_some_and(|until| self.parts.clock.now() < until);
        if full || !self.appends.is_empty() || self.checkpoint.is_some() || self.install.is_some() {
            return;
        }
        let Some(staged) = self.staged.take() else { return };
        let (disk, number) = (self.parts.disk.clone(), self.parts.node.superblock());
        let member = self.parts.node.id();
        self.install = Some(Box::pin(async move { staged.install(&disk, number, member).await }));
    }

    fn poll_install(&mut self, cx: &mut Context<'_>) -> Result<bool, Fatal> {
        let Some(running) = &mut self.install else { return Ok(false) };
        let Poll::Ready(outcome) = running.as_mut().poll(cx) else { return Ok(false) };
        self.install = None;
        match outcome {
            Ok((tree, facts)) => {
                let applied = facts.applied;
                self.parts.wal.trim(applied.0);
                let installed = self.parts.node.installed(tree, &facts, &mut self.actions);
                installed.map_err(|error| Fatal {
                    what: format!("a snapshot is not what a store can be: {error}"),
                    place: "superblock".into(),
                    advice: "run the version that the leader runs, or a newer one".into(),
                })?;
                let (at, log_bytes) = (self.parts.clock.now(), self.log_bytes);
                self.last_checkpoint = LastCheckpoint { applied, at, log_bytes };
                crate::log::info!("applied snapshot", "applied-index" => applied.0);
            }
            Err((staged, error)) if error.kind() == io::ErrorKind::StorageFull => {
                self.staged = Some(staged);
                self.disk_is_full(&error);
            }
            Err((_, error)) => return Err(disk_failed("a snapshot", &error)),
        }
        Ok(true)
    }

    /// What does not fit the ring is lost as on any network; whoever waits for an answer is told.
    fn tell_peers(&mut self, word: ToPeers) {
        if let Err(ToPeers::Forward { ticket, .. }) = self.parts.mesh.to_peers.try_send(word) {
            self.reply(ticket, Reply::Unavailable(Unavailable::TooManyRequests));
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        // A ticket of another member, or of an earlier boot, has nobody waiting here.
        let shard = ticket.shard_of(self.parts.node.id());
        if let Some(outbox) = shard.and_then(|shard| self.outbox.get_mut(shard)) {
            outbox.message.replies.push((ticket, reply));
        }
    }

    /// Publishes the new view, then hands each shard its answers in one message, and the news of a
    /// new revision with it or alone. A shard whose ring is full gets them with a later turn.
    fn publish(&mut self) {
        if let Some(view) = self.parts.node.publish() {
            self.introduce(&view.cluster);
            let is_news = view.revision > self.published;
            self.published = view.revision;
            self.parts.newest.publish(view);
            if is_news {
                let interests = self.parts.mesh.interests.iter();
                for (outbox, interest) in self.outbox.iter_mut().zip(interests) {
                    outbox.news |= interest.is_set();
                }
            }
        }
        let shards = self.outbox.iter_mut().zip(&mut self.parts.mesh.to_shards);
        for (Outbox { message, news }, sender) in shards {
            if message.replies.is_empty() && !*news {
                continue;
            }
            match sender.try_send(std::mem::take(message)) {
                Ok(()) => *news = false,
                Err(back) => *message = back,
            }
        }
        let node = &self.parts.node;
        let (committed, applied) = (node.committed(), node.applied());
        self.parts.meters.committed_index.set(committed.0);
        self.parts.meters.applied_index.set(applied.0);
        self.parts.meters.leader_changes.set(node.leaders_seen());
        self.parts.meters.proposals_pending.set(node.proposals_waiting());
        self.parts.meters.proposals_failed.set(node.proposals_failed());
        self.parts.meters.proposals_bytes.set(node.proposals_bytes());
        self.parts.meters.window_bytes.set(node.window_bytes() as u64);
        self.parts.meters.appends_in_flight.set(self.appends.len() as u64);
        self.parts.meters.appends_held.set(self.held.len() as u64);
    }

    /// The peers' room hears of every change of the cluster's facts.
    fn introduce(&mut self, cluster: &Arc<Cluster>) {
        if self.introduced.as_ref().is_some_and(|known| Arc::ptr_eq(known, cluster)) {
            return;
        }
        let told = self.parts.mesh.to_peers.try_send(ToPeers::Members(cluster.clone()));
        // With a full ring the next view brings it.
        self.introduced = told.is_ok().then(|| cluster.clone());
    }

    /// A leader whose disk stands still lets another lead; a member whose disk does so for long ends,
    /// so that its cluster knows what it has. A member alone waits: nobody else could do better.
    fn watch_disk(&mut self) -> Result<(), Fatal> {
        let Some(oldest) = self.appends.front().filter(|_| !self.parts.node.is_alone()) else {
            return Ok(());
        };
        // A process that stood still itself knows nothing of its disk: only time in which this member
        // looked again and again counts.
        let (now, since) = (self.parts.clock.now(), oldest.since);
        let stall = self.stall.take().filter(|stall| stall.since == since);
        let mut stall = stall.unwrap_or(Stall { since, looked: now, lasts: Duration::ZERO });
        stall.lasts += (now - stall.looked).min(2 * self.parts.pace.tick);
        stall.looked = now;
        let age = stall.lasts;
        self.stall = Some(stall);
        if age >= 2 * self.parts.pace.election {
            return Err(Fatal {
                what: format!("the disk has not finished a write to the log in {age:?}"),
                place: "wal".into(),
                advice:
                    "look at the disk; the other members go on, and a restart recovers all that \
                         was acknowledged"
                        .into(),
            });
        }
        if age >= DISK_STALL_MIN.max(self.usual_append * 10) {
            self.parts.node.flee_from_disk(self.durable);
        }
        Ok(())
    }

    /// What was lost is there again: from now on a start need not ask for it. But first a frame must
    /// say where the new log begins, or that start would find it too short.
    fn note_found(&mut self) {
        let (before, wal) = (self.parts.ballots.ballot(), &self.parts.wal);
        let is_there = !self.parts.node.has_lost() && wal.durable_frame() > self.frame_before;
        if before.lost && is_there && self.found.is_none() {
            crate::log::info!("the log that was lost is there again");
            self.found = Some(self.parts.ballots.cast(Ballot { lost: false, ..before }));
        }
    }

    fn poll_found(&mut self, cx: &mut Context<'_>) -> Result<bool, Fatal> {
        let Some(writing) = &mut self.found else { return Ok(false) };
        let Poll::Ready(outcome) = writing.as_mut().poll(cx) else { return Ok(false) };
        self.found = None;
        outcome.map_err(|error| disk_failed("the ballot", &error)).map(|()| true)
    }

    /// Starts what keeps the disk tidy: spare log segments and checkpoints.
    fn maintain(&mut self) {
        let now = self.parts.clock.now();
        if self.full_until.is_some_and(|until| now < until) {
            return;
        }
        let spare_may_wait = self.checkpoint_first && self.held.is_empty();
        if self.prepare.is_none() && !spare_may_wait {
            self.prepare = self.parts.wal.prepare().map(|future| Box::pin(future) as Pending<_>);
        }
        let installs = self.staged.is_some() || self.install.is_some();
        if self.checkpoint.is_none() && !installs && self.checkpoint_is_due(now) {
            self.begin_checkpoint(now);
        }
    }

    fn checkpoint_is_due(&self, now: Duration) -> bool {
        if self.parts.node.store().tree().is_settling() && !self.is_pressed() {
            return false;
        }
        let (last, due) = (&self.last_checkpoint, &self.parts.pace.checkpoint);
        let entries = self.parts.node.applied().0 - last.applied.0;
        let log_bytes = self.log_bytes - last.log_bytes;
        let tree = self.parts.node.store().tree();
        let lull = log_bytes >= CHECKPOINT_LULL_LOG_BYTES && now >= self.log_grew + CHECKPOINT_LULL;
        let some = lull
            || log_bytes >= due.log_bytes
            || now >= last.at + due.interval
            || tree.unwritten_index_bytes() >= due.index_bytes;
        self.parts.node.wants_defragment()
            || entries >= due.entries
            || tree.unsealed_bytes() >= UNSEALED_BYTES_MAX
            || (entries > 0 && some)
    }

    fn begin_checkpoint(&mut self, now: Duration) {
        let applied = self.parts.node.applied();
        let Some(checkpoint) = self.parts.node.begin_checkpoint() else { return };
        self.last_checkpoint = LastCheckpoint { applied, at: now, log_bytes: self.log_bytes };
        let done = Piecewise::new(checkpoint.run(self.parts.disk.clone()));
        self.checkpoint = Some(Checkpointing { applied, since: now, done });
    }

    /// Waits for any cause, and collects what has come about.
    async fn wait(&mut self) -> Result<(), Fatal> {
        poll_fn(|cx| self.poll_causes(cx)).await
    }

    fn poll_causes(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fatal>> {
        let mut woken = self.parts.node.has_more();
        if !self.is_resting(cx) {
            woken |= self.poll_checkpoint(cx)?;
            woken |= !self.is_resting(cx) && self.parts.node.wants_tidying();
        }
        woken |= self.parts.mesh.inbox.poll_ready(cx).is_ready();
        woken |= self.poll_appends(cx)?;
        woken |= self.poll_prepare(cx)?;
        woken |= self.poll_found(cx)?;
        woken |= self.poll_install(cx)?;
        if self.timer.as_mut().poll(cx).is_ready() {
            self.on_timer();
            self.watch_disk()?;
            // The next one is looked at after the turn: on a busy machine it may be due by now.
            woken = true;
        }
        if let Some((_, alarm)) = &mut self.alarm
            && alarm.as_mut().poll(cx).is_ready()
        {
            self.alarm = None;
            woken = true;
        }
        if woken { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// What nobody waits for has worked since `begun`, and now rests so long that it takes no more than its
    /// share of the core, and for a while at `least`; unless memory fills meanwhile with what waits for it.
    fn rest_from(&mut self, begun: Duration, least: Duration) {
        let clock = &self.parts.clock;
        let worked = clock.now() - begun;
        let share = match worked >= BACKGROUND_PIECE_MIN {
            true => worked * (BACKGROUND_SHARE - 1),
            false => Duration::ZERO,
        };
        let rests = least.max(share);
        if !rests.is_zero() && !self.is_pressed() {
            self.rest = Some(Box::pin(clock.sleep_until(clock.now() + rests)));
        }
    }

    /// Whether memory fills with what a checkpoint has to write, or with what only its view needs; or
    /// the log was long at the start; or all that is left to do is what otherwise nobody waits for.
    fn is_pressed(&self) -> bool {
        let tree = self.parts.node.store().tree();
        self.checkpoint_first
            || self.finishing
            || tree.unsealed_bytes() >= UNSEALED_BYTES_MAX
            || tree.retired_index_bytes() >= RETIRED_INDEX_BYTES_MAX
    }

    /// Of the work that nobody waits for, how many pieces a turn does.
    fn pieces(&self) -> usize {
        if self.is_pressed() { BACKGROUND_PIECES_PRESSED } else { 1 }
    }

    fn is_resting(&mut self, cx: &mut Context<'_>) -> bool {
        let resting = self.rest.as_mut().is_some_and(|rest| rest.as_mut().poll(cx).is_pending());
        if !resting {
            self.rest = None;
        }
        resting
    }

    /// Appends end in the order they were made; each that has is an event.
    fn poll_appends(&mut self, cx: &mut Context<'_>) -> Result<bool, Fatal> {
        let mut any = false;
        while let Some(front) = self.appends.front_mut() {
            let Poll::Ready(durable) = front.done.as_mut().poll(cx) else { break };
            durable.map_err(|error| disk_failed("the log", &error))?;
            self.events.extend(front.number.map(|number| Event::Appended { number }));
            let took = self.parts.clock.now() - front.since;
            self.parts.meters.log_sync.record(took);
            self.usual_append = (self.usual_append * 7 + took) / 8;
            self.durable = front.last;
            self.appends.pop_front();
            any = true;
        }
        Ok(any)
    }

    /// A piece of the checkpoint, or a few where it is pressed, and the rest behind it: a long one where
    /// it has asked something of the disk, which the log needs as well.
    fn poll_checkpoint(&mut self, cx: &Context<'_>) -> Result<bool, Fatal> {
        let begun = self.parts.clock.now();
        for _ in 0..self.pieces() {
            let Some(Checkpointing { done, .. }) = &mut self.checkpoint else { return Ok(false) };
            if !done.may_go_on(cx) {
                return Ok(false);
            }
            if let Poll::Ready(outcome) = done.go_on() {
                self.end_checkpoint(outcome)?;
                return Ok(true);
            }
            if !done.may_go_on(cx) {
                self.rest_from(begun, CHECKPOINT_PIECE_REST);
                return Ok(false);
            }
        }
        self.rest_from(begun, Duration::ZERO);
        Ok(self.rest.is_none())
    }

    fn end_checkpoint(&mut self, outcome: io::Result<CheckpointDone>) -> Result<(), Fatal> {
        let Some(Checkpointing { applied, since, .. }) = self.checkpoint.take() else {
            return Ok(());
        };
        self.checkpoint_first = false;
        match outcome {
            Ok(done) => {
                self.parts.node.finish_checkpoint(done);
                self.memory_is_free = true;
                self.parts.wal.trim(applied.0);
                self.parts.meters.checkpoint.record(self.parts.clock.now() - since);
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.parts.node.abandon_checkpoint();
                self.disk_is_full(&error);
            }
            Err(error) => return Err(disk_failed("a checkpoint", &error)),
        }
        Ok(())
    }

    fn poll_prepare(&mut self, cx: &mut Context<'_>) -> Result<bool, Fatal> {
        let Some(running) = &mut self.prepare else { return Ok(false) };
        let Poll::Ready(outcome) = running.as_mut().poll(cx) else { return Ok(false) };
        self.prepare = None;
        match outcome {
            Ok(prepared) => self.parts.wal.prepared(prepared),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => self.disk_is_full(&error),
            Err(error) => return Err(disk_failed("a new log segment", &error)),
        }
        Ok(true)
    }

    /// Nothing is lost by a full disk: the log has its spare segments, and what could not be
    /// checkpointed stays in it. Tried again after a while.
    fn disk_is_full(&mut self, error: &io::Error) {
        crate::log::warn!("disk is full", "error" => error.to_string());
        self.full_until = Some(self.parts.clock.now() + DISK_FULL_RETRY);
    }

    /// Once the log falls idle, one more frame proves the last one durable: a start after a power
    /// cut can then tell a torn end from rot.
    fn seal(&mut self) {
        if self.sealed || !self.held.is_empty() || !self.appends.is_empty() {
            return;
        }
        let batch =
            Batch { entries: Vec::new(), hard_state: hard_state(self.parts.node.hard_state()) };
        // Without room there is no hurry: the next tick tries again.
        let Ok(done) = self.parts.wal.append(&batch) else { return };
        let (since, last) = (self.parts.clock.now(), Index(self.parts.wal.last_index()));
        let done = Box::pin(both(done, None));
        self.appends.push_back(Appending { number: None, last, since, done });
        self.sealed = true;
    }

    fn on_timer(&mut self) {
        self.events.push(Event::Tick);
        let node = &self.parts.node;
        let idle = self.sealed
            && self.appends.is_empty()
            && !node.has_more()
            && !node.wants_tidying()
            && self.checkpoint.is_none();
        if self.memory_is_free && idle && self.parts.node.memory_is_tidy() {
            self.memory_is_free = false;
            (self.parts.give_memory_back)();
        }
        self.seal();
        // A machine that slept ticks once, not once for each interval it missed.
        let now = self.parts.clock.now();
        self.next_tick =
            (self.next_tick + self.parts.pace.tick).max(now + self.parts.pace.tick / 2);
        self.timer = Box::pin(self.parts.clock.sleep_until(self.next_tick));
    }

    /// The shards are gone: finish what is in flight and checkpoint, so that the next start is short.
    /// What is held for want of a spare segment goes along if one is on its way; on a full disk none
    /// is, and nobody waits for the answer any more.
    async fn finish(&mut self) -> Result<(), Fatal> {
        (self.finishing, self.rest) = (true, None);
        while !self.appends.is_empty()
            || self.checkpoint.is_some()
            || self.prepare.is_some()
            || self.found.is_some()
            || self.install.is_some()
        {
            self.wait_and_turn().await?;
        }
        if self.parts.node.applied() > self.last_checkpoint.applied {
            let now = self.parts.clock.now();
            self.begin_checkpoint(now);
            while self.checkpoint.is_some() {
                self.wait_and_turn().await?;
            }
        }
        Ok(())
    }

    async fn wait_and_turn(&mut self) -> Result<(), Fatal> {
        poll_fn(|cx| {
            let woken = self.poll_appends(cx)?
                | self.poll_checkpoint(cx)?
                | self.poll_prepare(cx)?
                | self.poll_found(cx)?
                | self.poll_install(cx)?;
            if woken { Poll::Ready(Ok::<(), Fatal>(())) } else { Poll::Pending }
        })
        .await?;
        self.parts.node.begin_turn(self.parts.clock.now());
        let mut actions = Vec::new();
        for event in self.events.drain(..) {
            self.parts.node.handle(event, &mut actions);
        }
        self.parts.node.flush(false, &mut actions).map_err(stuck)?;
        for action in actions {
            if let Action::Append(append) = action {
                self.hold(append);
            }
        }
        self.append_held()
    }
}

/// A new term or vote goes into the ballot box as well, before anybody hears of it.
fn cast<F: File>(ballots: &mut BallotBox<F>, state: consensus::HardState) -> Option<Cast> {
    let (term, vote) = (state.term.0, state.vote.0);
    let before = ballots.ballot();
    let ballot = Ballot { term, vote, ..before };
    (ballot != before).then(|| ballots.cast(ballot))
}

type Cast = Pending<io::Result<()>>;
type Installed = Result<(Tree, RootFacts), (Box<Staged>, io::Error)>;

async fn both(append: impl Future<Output = io::Result<u64>>, cast: Option<Cast>) -> io::Result<()> {
    match cast {
        None => append.await.map(drop),
        Some(cast) => {
            // Side by side; neither is dropped halfway.
            let (appended, cast) = futures_lite::future::zip(append, cast).await;
            appended.map(drop).and(cast)
        }
    }
}

fn stuck(stuck: Stuck) -> Fatal {
    Fatal {
        what: format!("a committed entry cannot be applied: {}", stuck.entry),
        place: format!("log index {}", stuck.index.0),
        advice: "run the version that wrote this log, or a newer one".into(),
    }
}

fn disk_failed(whose: &str, error: &io::Error) -> Fatal {
    Fatal {
        what: format!("writing {whose} failed, so nothing since is known to be durable"),
        place: error.to_string(),
        advice:
            "look at the disk and the kernel's log; a restart recovers all that was acknowledged"
                .into(),
    }
}
