//! Who runs on which core; the only place executors are made.
//!
//! ```text
//!  2 cores                               4 cores and more
//!  core a: node + peers + shard 0        core a: node + peers
//!  core b: shard 1                       core b, c, d …: shards 0, 1, 2 …
//!  threads: wal-io (real time), disk-io, snapshot-io while one is sent, one "accept" per listening
//!           address, log
//! ```
//!
//! A start goes: limits → sockets → directory → recovery → cores → ready. Whatever fails before
//! "ready" is one sentence on standard error and in the log, and exit code 1; nothing is lost.

pub mod bootstrap;
mod nudge;
mod recover;

use crate::{
    api::{API_VERSION, Edge},
    config::{Config, Notice, Url},
    fatal,
    io::{
        Clock,
        glommio::GlommioClock,
        host, process,
        thread::{Lane, LaneDisk, LaneFile, Priority, SyncDelay},
    },
    limits::{
        ACCEPTED_RING_SOCKETS_MAX, EXECUTOR_IO_BYTES, FAREWELL_WAIT, INDEX_MEMORY_BYTES_MAX,
        INDEX_MEMORY_BYTES_MIN, INDEX_MEMORY_SHARE, INTRODUCE_INTERVAL, INTRODUCE_RETRY,
        LISTENERS_MAX, LOG_FLUSH_WAIT, SPIN, request_wait,
    },
    log,
    mesh::{Capacity, Inbox, Newest, NodeEnd, PeersEnd, Sender, ShardEnd, mesh, rings},
    metrics::{NodeMeters, PeerMeters},
    net::{Accepted, deal, listen},
    node::{
        Node,
        drive::{CheckpointPace, Ended, Pace, Parts, drive},
        recover::Member,
    },
    peer,
    shard::{Meters, Setup, Shard, ShardMeters, run as run_shard, serve_all},
    store::{Quota, command::MemberAttributes, encode_cluster_version},
    types::{ClusterId, Index, MemberId, SHARDS_MAX},
};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use nudge::Nudger;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    ffi::OsStr,
    net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs},
    os::{
        linux::net::SocketAddrExt,
        unix::{ffi::OsStrExt, net as unix},
    },
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};

/// Runs a member until it is told to stop. Returns the signal that did; none where the cluster has
/// removed it.
///
/// # Errors
/// A sentence for whoever started it: what is wrong, where, and what to do.
pub fn run(config: Config, notices: &[Notice]) -> Result<Option<i32>, String> {
    log::start(&config.log).map_err(|error| format!("cannot open the log: {error}"))?;
    notices.iter().for_each(Notice::log);
    let outcome = serve(&config);
    if let Err(why) = &outcome {
        log::error!("cannot start", "error" => why);
    }
    let _all_written = log::flush(LOG_FLUSH_WAIT);
    outcome
}

/// Ends this process as the signal would have (etcd does the same, so that whoever waits for the
/// process learns what ended it). The first process of a container is not ended by signals of its own:
/// it just ends, with 0 as etcd.
pub fn end_by(signal: i32) {
    if std::process::id() == 1 {
        return;
    }
    let emulated = signal_hook::low_level::emulate_default_handler(signal);
    emulated.expect("SIGINT and SIGTERM have default handlers");
}

fn serve(config: &Config) -> Result<Option<i32>, String> {
    log::info!(
        "starting ringleader",
        "version" => env!("CARGO_PKG_VERSION"),
        "etcd-version" => API_VERSION,
        "name" => &config.name,
        "data-dir" => config.data_dir.display().to_string(),
    );
    host::raise_limits()?;
    host::check_io_uring()?;
    let cores = cores(config)?;
    let clients = listeners(&config.listen_client)?;
    let peers = listeners(&config.listen_peer)?;

    let placed = recover::place(config)?;
    let wal_lane = lane("wal-io", Priority::RealTime, config)?;
    let disk_lane = lane("disk-io", Priority::Normal, config)?;
    let disks = placed.disks(&wal_lane, &disk_lane);
    placed.mark_damage();
    let member = recover::member(config, &disks)?;
    // Until here a signal just ends the process: a new member may wait long for others.
    let (news, heard) = std::sync::mpsc::channel();
    hear_signals(news.clone())?;

    let plan = Plan::new(config, &cores)?;
    let mut house = start(config, member, disks.data, &plan, &news)?;
    house.deal(peers, Port::Peer)?;
    let mut clients = Some(clients);
    let signal = loop {
        match heard.recv().expect("the thread that hears signals is there to the end") {
            News::Ready => {
                if let Some(clients) = clients.take() {
                    house.deal(clients, Port::Client)?;
                    log::info!("ready to serve client requests");
                    notify_ready();
                }
            }
            News::Removed => {
                log::warn!(
                    "server error",
                    "error" => "the member has been permanently removed from the cluster",
                );
                log::warn!("data-dir used by this member must be removed");
                break None;
            }
            News::Signal(signal) => {
                log::info!("received signal; shutting down", "signal" => signal);
                break Some(signal);
            }
        }
    };
    house.stop();
    house.join()?;
    drop(placed);
    Ok(signal)
}

/// What the thread that started the member waits for.
enum News {
    /// The cluster knows this member, and has a leader.
    Ready,
    /// It is no member any more.
    Removed,
    /// Somebody wants it to end.
    Signal(i32),
}

fn hear_signals(news: mpsc::Sender<News>) -> Result<(), String> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|e| format!("signals: {e}"))?;
    let hear = move || {
        for signal in signals.forever() {
            // With nobody left to hear it the process is at its end already.
            let _nobody = news.send(News::Signal(signal)).is_err();
        }
    };
    let thread = std::thread::Builder::new().name("signals".into()).spawn(hear);
    thread.map(drop).map_err(|error| format!("cannot start the thread signals: {error}"))
}

/// Where a test wants a slow disk every lane is slow: the log's spare segments are made by the other
/// one, and as a rule there is one disk below both.
fn lane(name: &str, priority: Priority, config: &Config) -> Result<Lane, String> {
    let testing = &config.testing;
    let delay = SyncDelay { usual: testing.sync_delay, tail: testing.sync_delay_tail };
    Lane::start_slow(name, priority, delay)
        .map_err(|error| format!("cannot start the thread {name}: {error}"))
}

/// The cores to use, in order.
fn cores(config: &Config) -> Result<Vec<usize>, String> {
    let allowed =
        host::allowed_cores().map_err(|error| format!("reading allowed cores: {error}"))?;
    let Some(wanted) = &config.cores else { return Ok(allowed) };
    if let Some(missing) = wanted.iter().find(|core| !allowed.contains(core)) {
        return Err(format!(
            "--ringleader-cores names core {missing}, but this process may use only {allowed:?}"
        ));
    }
    Ok(wanted.clone())
}

/// Who gets which core.
struct Plan {
    node: usize,
    shards: Vec<usize>,
}

impl Plan {
    /// With four cores or more the node has one to itself; on fewer it shares the first one.
    fn new(config: &Config, cores: &[usize]) -> Result<Self, String> {
        let (node, serving) = match cores {
            [] => return Err("this process may use no core at all".into()),
            [node, rest @ ..] if rest.len() >= 3 => (*node, rest),
            all => (all[0], all),
        };
        let shards = match config.shards {
            0 => serving.len(),
            wanted => wanted,
        };
        if shards > serving.len().min(SHARDS_MAX) {
            return Err(format!(
                "--ringleader-shards={shards}: there are {} cores to serve on ({cores:?})",
                serving.len()
            ));
        }
        Ok(Self { node, shards: serving[..shards].to_vec() })
    }

    /// The shard that lives with the node, if any.
    fn with_node(&self) -> Option<usize> {
        self.shards.iter().position(|core| *core == self.node)
    }
}

/// Listens on each URL.
fn listeners(urls: &[Url]) -> Result<Vec<TcpListener>, String> {
    urls.iter().map(|url| listen(resolve(url)?).map_err(|error| error.to_string())).collect()
}

/// `localhost` is 127.0.0.1 where there is one, as for Go's listeners.
fn resolve(url: &Url) -> Result<SocketAddr, String> {
    let found = (url.host.as_str(), url.port).to_socket_addrs();
    let mut found: Vec<_> = found.map_err(|error| format!("{url}: {error}"))?.collect();
    found.sort_by_key(|address| matches!(address.ip(), IpAddr::V6(_)));
    found.first().copied().ok_or_else(|| format!("{url}: no address"))
}

/// A member's executors, running.
struct House {
    threads: Vec<ExecutorJoinHandle<()>>,
    _nudger: Nudger,
    /// To each shard from each client URL.
    clients: Vec<Vec<Sender<Accepted>>>,
    /// To the peers' room from each peer URL.
    peers: Vec<Sender<Accepted>>,
    dealers: Dealers,
}

fn start(
    config: &Config,
    member: Member<LaneDisk>,
    disk: LaneDisk,
    plan: &Plan,
    news: &mpsc::Sender<News>,
) -> Result<House, String> {
    let listening = config.listen_client.len() + config.listen_peer.len();
    if listening > LISTENERS_MAX {
        return Err(format!("{listening} listening URLs; at most {LISTENERS_MAX} are taken"));
    }
    let (node_end, shard_ends, peers_end) = mesh(plan.shards.len(), Capacity::default());
    let meters = Meters {
        node: Arc::new(NodeMeters::default()),
        leases: member.node.lease_meters(),
        peers: Arc::new(PeerMeters::default()),
        shards: plan.shards.iter().map(|_| ShardMeters::default()).collect(),
    };
    let Member { mut node, wal, ballots, cluster } = member;
    node.set_strict(config.strict_reconfig_check);
    node.set_hurry(config.initial_election_tick_advance);
    let view = node.publish().expect("nothing is published yet, so all of it is new");
    let newest = Newest::new(view);
    let who = Who { cluster, member: node.id(), name: config.name.clone() };
    let (clock, boot) = (GlommioClock::new(), ballots.ballot().boot);
    let own = OwnFacts { who: who.clone(), client_urls: config.advertise_client.clone() };

    let (peers, peers_inbox) = rings(config.listen_peer.len(), ACCEPTED_RING_SOCKETS_MAX);
    let room = RoomSeat {
        end: peers_end,
        inbox: peers_inbox,
        newest: newest.clone(),
        setup: peer_setup(config, &who, boot, &meters, disk.clone()),
    };
    let mut clients = Vec::new();
    let mut seats = Vec::new();
    for end in shard_ends {
        let (senders, inbox) = rings(config.listen_client.len(), ACCEPTED_RING_SOCKETS_MAX);
        clients.push(senders);
        seats.push(Seat {
            announce: (end.shard == 0).then(|| (own.clone(), news.clone())),
            end,
            inbox,
            newest: newest.clone(),
            setup: setup(config, &who, (&clock, boot), &meters),
        });
    }
    let parts = NodeSeat {
        node,
        wal,
        ballots,
        disk,
        clock,
        mesh: node_end,
        newest,
        room,
        meters: meters.node.clone(),
        pace: Pace {
            tick: config.heartbeat,
            election: config.election,
            checkpoint: checkpoint_pace(config),
        },
        news: news.clone(),
    };
    let nudger =
        Nudger::start().map_err(|error| format!("cannot start the thread nudge: {error}"))?;
    let threads = spawn(plan, parts, seats, &nudger)?;
    Ok(House { threads, _nudger: nudger, clients, peers, dealers: Dealers::default() })
}

/// Changed pages of the index may take a part of the machine's memory, where nobody has said how much.
fn checkpoint_pace(config: &Config) -> CheckpointPace {
    let share = host::memory_bytes().map_or(INDEX_MEMORY_BYTES_MAX, |all| all / INDEX_MEMORY_SHARE);
    let share = share.clamp(INDEX_MEMORY_BYTES_MIN, INDEX_MEMORY_BYTES_MAX);
    CheckpointPace {
        entries: config.snapshot_count,
        log_bytes: config.checkpoint.log_bytes,
        interval: config.checkpoint.interval,
        index_bytes: config.checkpoint.index_memory_bytes.unwrap_or(share),
    }
}

fn setup(
    config: &Config,
    who: &Who,
    (clock, boot): (&GlommioClock, u64),
    meters: &Meters,
) -> Setup {
    Setup {
        edge: Edge {
            request_bytes_max: config.max_request_bytes,
            txn_ops_max: config.max_txn_ops,
            quota: Quota::from_flag(config.quota_backend_bytes),
            quota_flag_bytes: config.quota_backend_bytes,
            cluster: who.cluster,
            member: who.member,
            lease_ttl_min: lease_ttl_min(config),
        },
        concurrent_streams_max: config.max_concurrent_streams,
        election: config.election,
        clock: clock.clone(),
        watch_progress: config.watch_progress,
        first_ticket: boot,
        meters: meters.clone(),
    }
}

fn peer_setup(
    config: &Config,
    who: &Who,
    boot: u64,
    meters: &Meters,
    disk: LaneDisk,
) -> peer::Setup {
    peer::Setup {
        member: who.member,
        cluster: who.cluster,
        peer_urls: config.advertise_peer.iter().map(Url::to_string).collect(),
        boot,
        // etcd `ServerConfig.peerDialTimeout`: a second, and an election.
        dial_wait: Duration::from_secs(1) + config.election,
        patience: peer::Patience {
            read: config.raft_read_timeout,
            write: config.raft_write_timeout,
        },
        delay: config.testing.peer_delay,
        request_timeout: request_wait(config.election),
        meters: meters.peers.clone(),
        ground: peer::Ground { disk, tree: crate::tree::Options::default() },
    }
}

/// The shortest TTL that is granted, seconds: one and a half elections, in whole ticks (etcd
/// `NewServer`).
fn lease_ttl_min(config: &Config) -> i64 {
    let election_ticks = config.election.as_millis() / config.heartbeat.as_millis();
    let millis = (3 * election_ticks / 2) * config.heartbeat.as_millis();
    i64::try_from(millis.div_ceil(1_000)).expect("an election is at most 50 s")
}

#[derive(Clone)]
struct Who {
    cluster: ClusterId,
    member: MemberId,
    name: String,
}

/// What this member tells the cluster of itself.
#[derive(Clone)]
struct OwnFacts {
    who: Who,
    client_urls: Vec<String>,
}

/// What a shard's core is given.
struct Seat {
    end: ShardEnd,
    inbox: Inbox<Accepted>,
    newest: Newest,
    setup: Setup,
    /// The first shard announces the member and says when that is done.
    announce: Option<(OwnFacts, mpsc::Sender<News>)>,
}

/// What the node's core is given.
struct NodeSeat {
    node: Node,
    wal: crate::wal::Wal<LaneDisk>,
    ballots: crate::wal::BallotBox<LaneFile>,
    disk: LaneDisk,
    clock: GlommioClock,
    mesh: NodeEnd,
    newest: Newest,
    room: RoomSeat,
    meters: Arc<NodeMeters>,
    pace: Pace,
    news: mpsc::Sender<News>,
}

/// What the peers' room is given; it lives with the node.
struct RoomSeat {
    end: PeersEnd,
    inbox: Inbox<Accepted>,
    newest: Newest,
    setup: peer::Setup,
}

impl NodeSeat {
    async fn sit(self) {
        let Self { node, wal, ballots, disk, clock, mesh, newest, room, meters, pace, news } = self;
        let RoomSeat { end, inbox, newest: seen, setup } = room;
        let room = glommio::spawn_local(peer::serve(end, seen, inbox, setup)).detach();
        let give_memory_back = process::give_memory_back;
        let parts =
            Parts { node, wal, ballots, disk, clock, mesh, newest, meters, pace, give_memory_back };
        match drive(parts).await {
            Ok(Ended::Stopped) => {}
            Ok(Ended::Removed) => {
                // Told to end at the same moment, it ends all the same.
                let _nobody = news.send(News::Removed).is_err();
            }
            Err(why) => {
                log::error!("fatal", "error" => why.to_string());
                let _all_written = log::flush(LOG_FLUSH_WAIT);
                fatal::die(&why);
            }
        }
        room.await;
    }
}

impl Seat {
    async fn sit(self) {
        let Self { end, inbox, newest, setup, announce } = self;
        let (shard, from_node) = Shard::new(end, newest, setup);
        let pump = glommio::spawn_local(run_shard(shard.clone(), from_node)).detach();
        if let Some((facts, ready)) = announce {
            introduce(&shard, &facts, &inbox).await;
            // Told to end before it was ready, it ends all the same.
            let _nobody = ready.send(News::Ready).is_err();
        }
        serve_all(inbox, shard.clone()).await;
        shard.farewell(FAREWELL_WAIT).await;
        pump.await;
    }
}

/// Waits for a leader, then sees to it that the cluster knows this member's name and URLs and has
/// agreed on a version (etcd `publishV3`, `monitorClusterVersions`). One that has nothing yet waits for
/// its snapshot. Ends early when the dealers are gone.
async fn introduce(shard: &Rc<Shard>, facts: &OwnFacts, dealers: &Inbox<Accepted>) {
    let clock = GlommioClock::new();
    let attributes = MemberAttributes {
        member: facts.who.member,
        name: facts.who.name.clone(),
        client_urls: facts.client_urls.clone(),
    };
    let (minor, _patch) = API_VERSION.rsplit_once('.').expect("a version has three parts");
    let version = format!("{minor}.0");
    let mut next_try = clock.now();
    while !dealers.is_closed() {
        let view = shard.view();
        let own = view.cluster.members.get(&attributes.member);
        let known = own.is_some_and(|own| {
            own.name == attributes.name && own.client_urls == attributes.client_urls
        });
        let agreed = view.cluster.version.is_some();
        if known && agreed && view.applied > Index(0) {
            return;
        }
        // Now and then again: what was proposed may be lost on its way to the leader.
        if view.raft.leader.0 != 0 && own.is_some() && clock.now() >= next_try {
            next_try = clock.now() + INTRODUCE_RETRY;
            if !known {
                shard.propose_own(attributes.encode());
            }
            if !agreed {
                shard.propose_own(encode_cluster_version(&version));
            }
        }
        clock.sleep_until(clock.now() + INTRODUCE_INTERVAL).await;
    }
}

/// Starts the executors, the node's first.
fn spawn(
    plan: &Plan,
    node: NodeSeat,
    mut seats: Vec<Seat>,
    nudger: &Nudger,
) -> Result<Vec<ExecutorJoinHandle<()>>, String> {
    let beside = plan.with_node().map(|shard| seats.remove(shard));
    let mut threads = vec![executor("node", plan.node, nudger, move || async move {
        match beside {
            None => node.sit().await,
            Some(seat) => {
                let serving = glommio::spawn_local(seat.sit()).detach();
                node.sit().await;
                serving.await;
            }
        }
    })?];
    for seat in seats {
        let core = plan.shards[seat.end.shard];
        let name = format!("shard-{}", seat.end.shard);
        threads.push(executor(&name, core, nudger, move || seat.sit())?);
    }
    Ok(threads)
}

fn executor<F: Future<Output = ()> + 'static>(
    name: &str,
    core: usize,
    nudger: &Nudger,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<ExecutorJoinHandle<()>, String> {
    let nudged = nudger.add();
    LocalExecutorBuilder::new(Placement::Fixed(core))
        .io_memory(EXECUTOR_IO_BYTES)
        .name(name)
        .spin_before_park(SPIN)
        .spawn(move || async move { nudged.run(work()).await })
        .map_err(|error| format!("cannot start {name} on core {core}: {error}"))
}

/// Which port a listening address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Client,
    Peer,
}

/// The threads that accept, and how to end them.
#[derive(Default)]
struct Dealers(Vec<(TcpListener, std::thread::JoinHandle<()>)>);

impl House {
    /// Starts accepting: one thread for each listening address, dealing clients to all shards and
    /// members to the peers' room.
    fn deal(&mut self, listeners: Vec<TcpListener>, port: Port) -> Result<(), String> {
        for listener in listeners {
            let to: Vec<_> = match port {
                Port::Client => self.clients.iter_mut().filter_map(Vec::pop).collect(),
                Port::Peer => self.peers.pop().into_iter().collect(),
            };
            let kept =
                listener.try_clone().map_err(|error| format!("listening socket: {error}"))?;
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            let thread = std::thread::Builder::new()
                .name("accept".into())
                .spawn(move || deal(&listener, to))
                .map_err(|error| {
                    format!("cannot start a thread to accept on {address}: {error}")
                })?;
            match port {
                Port::Client => log::info!(
                    "serving client traffic insecurely; this is strongly discouraged!",
                    "traffic" => "grpc+http",
                    "address" => address.to_string(),
                ),
                Port::Peer => {
                    log::info!("serving peer traffic", "address" => address.to_string());
                }
            }
            self.dealers.0.push((kept, thread));
        }
        Ok(())
    }

    /// Ends accepting. Shards learn of it when the dealers' rings are gone.
    fn stop(&mut self) {
        std::mem::take(&mut self.dealers).stop();
        self.clients.clear();
        self.peers.clear();
    }

    /// Waits until every core has come to its end.
    fn join(self) -> Result<(), String> {
        for thread in self.threads {
            thread.join().map_err(|error| format!("an executor failed: {error}"))?;
        }
        Ok(())
    }
}

impl Dealers {
    fn stop(self) {
        for (listener, thread) in self.0 {
            let listener = socket2::Socket::from(listener);
            // A listener that is shut down already has nobody left in accept.
            let _gone = listener.shutdown(std::net::Shutdown::Both).is_err();
            if thread.join().is_err() {
                log::error!("an accept thread panicked");
            }
        }
    }
}

/// Tells systemd that the member serves (sd_notify(3), `Type=notify`), where it asked to be told.
fn notify_ready() {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = notify_address(&name)
        .and_then(|address| unix::UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address));
    if let Err(error) = sent {
        log::warn!("cannot tell systemd that the member is ready", "error" => error.to_string());
    }
}

/// A path, or behind an `@` a name that no file stands for.
fn notify_address(name: &OsStr) -> std::io::Result<unix::SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => unix::SocketAddr::from_abstract_name(name),
        _ => unix::SocketAddr::from_pathname(name),
    }
}
