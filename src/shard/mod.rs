//! One per serving core: it owns its connections from accept to reply, and reads from the newest
//! [`View`] without asking anybody.
//!
//! A [`Shard`] lives on one core and is shared there by its connections' tasks (`Rc`). It speaks
//! with the node through the mesh only. What waits for the node stands in `tickets`, so a request
//! costs no task of its own.
//!
//! ```text
//!  socket ─ accept ─┬─ http2 ─ session ─┬─ ToNode ─▶ node
//!                   └─ http1 ─ http     └─ View (reads)
//!  reply  ◀─────────── http2 ◀─ session ◀─ ToShard ─ node
//! ```

mod accept;
mod cold;
mod grpc;
mod http;
mod http1;
pub mod http2;
mod inside;
mod keep_alive;
mod metrics;
mod session;
mod stream;
mod tickets;
pub mod watch;
mod watching;

#[cfg(test)]
mod fuzz;

pub use accept::serve_all;
pub use metrics::ShardMeters;

use crate::{
    api::Edge,
    io::{Clock, glommio::GlommioClock},
    limits::GRPC_OVERHEAD_BYTES,
    mesh::{Inbox, Interest, Newest, Reply, Sender, ShardEnd, ToNode, ToShard},
    metrics::{LeaseMeters, NodeMeters, PeerMeters},
    store::View,
    types::Ticket,
};
use session::Waiting;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    rc::{Rc, Weak},
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};
use tickets::Tickets;
use watch::{StreamId, WatchSetup, Watches};

/// What a shard is told when it is made.
pub struct Setup {
    /// What requests are judged by.
    pub edge: Edge,
    /// `--max-concurrent-streams`.
    pub concurrent_streams_max: u32,
    /// `--election-timeout`, from which follows how long requests wait for the cluster
    /// ([`request_wait`](crate::limits::request_wait)).
    pub election: Duration,
    /// The node's clock: what the newest view says of times is by that.
    pub clock: GlommioClock,
    /// `--watch-progress-notify-interval`.
    pub watch_progress: Duration,
    /// Where tickets start, see [`Ticket::new`](crate::types::Ticket::new).
    pub first_ticket: u64,
    /// Whose numbers `/metrics` shows, this shard's among them.
    pub meters: Meters,
}

/// Everybody's meters, readable from any core.
#[derive(Clone)]
pub struct Meters {
    /// The node's.
    pub node: Arc<NodeMeters>,
    /// The node's, of leases.
    pub leases: Arc<LeaseMeters>,
    /// The peers' room's, of the other members.
    pub peers: Arc<PeerMeters>,
    /// Each shard's, by number.
    pub shards: Arc<[ShardMeters]>,
}

/// The state that a core's connections share.
pub struct Shard {
    number: usize,
    setup: Setup,
    clock: GlommioClock,
    newest: Newest,
    /// The view that this turn reads from.
    view: RefCell<Arc<View>>,
    to_node: RefCell<Sender<ToNode>>,
    waiting: RefCell<Tickets<Waiting>>,
    /// Linearizable reads that join the next ReadIndex round.
    next_round: RefCell<Vec<session::Reading>>,
    /// A round is on its way; the next one starts when it is back.
    round_in_flight: Cell<bool>,
    connections: Rc<Cell<usize>>,
    unfinished: Rc<Cell<usize>>,
    calls: Rc<Cell<usize>>,
    links: http2::Links,
    watches: RefCell<Watches>,
    /// Reads that would wait for the disk.
    cold: cold::ColdReads,
    /// For tasks that this shard begins.
    me: Weak<Self>,
    /// Who reads each watch stream.
    readers: RefCell<BTreeMap<StreamId, watching::Reader>>,
    /// Told to the node: this shard wants to hear of new revisions.
    interest: Interest,
    /// Calls that end when there is no leader for long.
    led: RefCell<session::Led>,
    /// The task of [`run`].
    task: RefCell<Option<Waker>>,
    stopping: Cell<bool>,
}

/// A place held in some count; given back when dropped.
pub struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(count: &Rc<Cell<usize>>, most: usize) -> Option<Self> {
        (count.get() < most).then(|| {
            count.set(count.get() + 1);
            Self(count.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Shard {
    /// A shard that serves from the newest view. Its ring from the node is driven by [`run`].
    pub fn new(end: ShardEnd, newest: Newest, setup: Setup) -> (Rc<Self>, Inbox<ToShard>) {
        let ShardEnd { shard: number, to_node, inbox, interest } = end;
        let tickets = Tickets::new(setup.edge.member, number, setup.first_ticket);
        let watches = Watches::new(WatchSetup {
            cluster: setup.edge.cluster,
            member: setup.edge.member,
            fragment_bytes: setup.edge.request_bytes_max + GRPC_OVERHEAD_BYTES,
            progress_interval: setup.watch_progress,
        });
        let shard = Rc::new_cyclic(|me| Self {
            number,
            clock: setup.clock.clone(),
            view: RefCell::new(newest.load()),
            newest,
            to_node: RefCell::new(to_node),
            waiting: RefCell::new(tickets),
            next_round: RefCell::default(),
            round_in_flight: Cell::new(false),
            connections: Rc::default(),
            unfinished: Rc::default(),
            calls: Rc::default(),
            links: http2::Links::default(),
            watches: watches.into(),
            cold: cold::ColdReads::default(),
            me: me.clone(),
            readers: RefCell::default(),
            interest,
            led: RefCell::default(),
            task: RefCell::new(None),
            stopping: Cell::new(false),
            setup,
        });
        (shard, inbox)
    }

    /// The newest published state.
    pub fn view(&self) -> Arc<View> {
        self.newest.load()
    }

    /// Reads from the newest published state from now on: at the start of a turn.
    fn refresh(&self) {
        *self.view.borrow_mut() = self.newest.load();
    }

    fn meters(&self) -> &ShardMeters {
        &self.setup.meters.shards[self.number]
    }

    /// A place for one more connection, if there are fewer than `most`.
    fn enter(&self, most: usize) -> Option<Place> {
        Place::take(&self.connections, most)
    }

    fn on_message(&self, message: ToShard) {
        self.refresh();
        for (ticket, reply) in message.replies {
            self.on_reply(ticket, reply);
        }
    }

    fn on_reply(&self, ticket: Ticket, reply: Reply) {
        // Whoever waited may have run out of time.
        let Some(waiting) = self.waiting.borrow_mut().take(ticket) else { return };
        self.finish(waiting, reply);
    }
}

/// Takes in what the node says until the node is gone or after [`Shard::farewell`], and lets
/// requests run out of time.
pub async fn run(shard: Rc<Shard>, mut inbox: Inbox<ToShard>) {
    let every = crate::limits::TIMEOUT_CHECK_INTERVAL;
    let mut timer = Box::pin(shard.clock.sleep_until(shard.clock.now() + every));
    while !inbox.is_closed() && !shard.stopping.get() {
        poll_fn(|cx| {
            let rang = timer.as_mut().poll(cx).is_ready();
            if rang {
                shard.expire();
                timer = Box::pin(shard.clock.sleep_until(shard.clock.now() + every));
                let again = timer.as_mut().poll(cx);
                assert!(again.is_pending(), "a timer for later rang at once");
            }
            if rang || inbox.is_closed() || shard.watches.borrow().is_behind() {
                return Poll::Ready(());
            }
            *shard.task.borrow_mut() = Some(cx.waker().clone());
            inbox.poll_ready(cx)
        })
        .await;
        while let Some(message) = inbox.pop() {
            shard.on_message(message);
        }
        shard.on_news();
        shard.flush();
        futures_lite::future::yield_now().await;
    }
}
