//! The peers' room: everything that members say to each other, in etcd's peer HTTP/1.1.
//!
//! ```text
//!  node ──ToPeers──▶ room ─▶ link ─┬─ lanes ─▶ streams that the other side opened
//!                                  └─ calls ─▶ requests: posts, forwarded questions, probes
//!  node ◀──ToNode── desk ◀─ streams that this side opened · requests of the other side
//! ```
//!
//! One task of the node's executor holds the room; each connection is a task of its own beside it.
//! It moves messages and decides nothing that a client could notice. What cannot be sent is lost and
//! raft is told; what cannot be handed to the node waits in its socket, so that whoever sends too
//! much is slowed down by TCP.

mod calls;
mod delay;
mod desk;
mod forward;
pub mod frame;
pub mod identity;
mod link;
mod probe;
mod serve;
mod snapshot;
mod socket;
mod stream;

#[cfg(test)]
mod tests;

pub use snapshot::Ground;
pub use socket::Patience;

use crate::{
    consensus::Kind,
    io::{Clock, glommio::GlommioClock},
    limits::{
        PEER_CONNECTIONS_MAX, PEER_RING_INTERVAL, PEER_STRANGERS_MAX, TIMEOUT_CHECK_INTERVAL,
    },
    log,
    mesh::{FromPeer, Inbox, Newest, PeersEnd, ToPeers},
    metrics::PeerMeters,
    net::{Accepted, http1::Headers},
    store::Cluster,
    types::{ClusterId, MemberId},
};
use desk::Desk;
use frame::Lane;
use glommio::net::TcpStream;
use identity::Identity;
use link::Link;
use snapshot::Landing;
use socket::Socket;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    io,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// What the room is told when it is made.
pub struct Setup {
    /// This member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Where others reach it (`--initial-advertise-peer-urls`).
    pub peer_urls: Vec<String>,
    /// Which start of this member it is: each is above all before it, whatever the clock says. Here
    /// tickets start.
    pub boot: u64,
    /// How long another member may take to accept a connection (etcd: 1 s and an election).
    pub dial_wait: Duration,
    /// How long connections may stand still.
    pub patience: Patience,
    /// How much later what is sent leaves; above zero in tests only (`--testing-peer-delay`).
    pub delay: Duration,
    /// How long a forwarded question may take (etcd: 5 s and two elections).
    pub request_timeout: Duration,
    /// What is counted of other members.
    pub meters: Arc<PeerMeters>,
    /// Where snapshots of other members are staged.
    pub ground: Ground,
}

/// What the room's tasks share.
struct Room {
    who: Identity,
    dial_wait: Duration,
    patience: Patience,
    delay: Duration,
    request_timeout: Duration,
    meters: Arc<PeerMeters>,
    clock: GlommioClock,
    newest: Newest,
    desk: Desk,
    links: RefCell<BTreeMap<MemberId, Rc<Link>>>,
    landing: Landing,
    /// Connections that other members opened.
    connections: Cell<usize>,
    /// Forwarded questions under way.
    forwards: Cell<usize>,
}

/// Serves the members' connections with each other until the node is gone. `accepted` are those that
/// others opened.
pub async fn serve(end: PeersEnd, newest: Newest, mut accepted: Inbox<Accepted>, setup: Setup) {
    let PeersEnd { desk: end, mut from_node } = end;
    let mut answers = end.inbox;
    let desk = Desk::new(setup.member, end.shard, setup.boot, end.to_node);
    let room = Rc::new(Room::new(setup, newest, desk));
    room.meet(&room.newest.load().cluster);
    let look = |flushed| {
        let wait = if flushed { TIMEOUT_CHECK_INTERVAL } else { PEER_RING_INTERVAL };
        Box::pin(room.clock.sleep_until(room.clock.now() + wait))
    };
    let mut timer = look(true);
    while !from_node.is_closed() {
        poll_fn(|cx| {
            let mut rang = false;
            while timer.as_mut().poll(cx).is_ready() {
                rang = true;
                timer = look(true);
                room.desk.expire(room.clock.now());
            }
            let ready = [
                from_node.poll_ready(cx).is_ready(),
                answers.poll_ready(cx).is_ready(),
                accepted.poll_ready(cx).is_ready(),
                from_node.is_closed(),
                rang,
            ];
            if ready.contains(&true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        while let Some(said) = from_node.pop() {
            room.on(said);
        }
        while let Some(message) = answers.pop() {
            room.desk.on_message(message);
        }
        while let Some(accepted) = accepted.pop() {
            room.receive(accepted);
        }
        if !room.desk.flush() {
            timer = look(false);
        }
        futures_lite::future::yield_now().await;
    }
    room.links.borrow().values().for_each(|link| link.end());
}

impl Room {
    fn new(setup: Setup, newest: Newest, desk: Desk) -> Self {
        Self {
            who: Identity {
                member: setup.member,
                cluster: setup.cluster,
                peer_urls: setup.peer_urls,
                boot: setup.boot,
            },
            dial_wait: setup.dial_wait,
            patience: setup.patience,
            delay: setup.delay,
            request_timeout: setup.request_timeout,
            meters: setup.meters,
            clock: GlommioClock::new(),
            newest,
            desk,
            links: RefCell::default(),
            landing: Landing::new(setup.ground),
            connections: Cell::new(0),
            forwards: Cell::new(0),
        }
    }

    /// A connection with another member, whoever opened it.
    fn socket(&self, stream: TcpStream) -> io::Result<Socket> {
        let mut socket = Socket::new(stream, self.patience)?;
        if !self.delay.is_zero() {
            socket.send_late(&self.clock, self.delay)?;
        }
        Ok(socket)
    }

    fn on(self: &Rc<Self>, said: ToPeers) {
        match said {
            ToPeers::Send(messages) => self.send(messages),
            ToPeers::Members(cluster) => self.meet(&cluster),
            ToPeers::Snapshot { message, snapshot } => snapshot::send(self, message, snapshot),
            ToPeers::Unneeded(staged) => self.landing.take_back(*staged),
            ToPeers::Forward { ticket, to, what } => forward::forward(self, ticket, to, what),
        }
    }

    fn send(self: &Rc<Self>, messages: Vec<crate::consensus::Message>) {
        let mut lost = BTreeSet::new();
        for message in messages {
            let to = message.to;
            // Who is not known is not a member any more.
            let Some(link) = self.link(to) else { continue };
            if message.kind == Kind::Propose && !message.reject && !link.takes_proposals() {
                self.desk.tell(FromPeer::Returned(Box::new(message)));
                continue;
            }
            if !link.send(self, message) {
                lost.insert(to);
            }
        }
        lost.into_iter().for_each(|member| self.desk.tell(FromPeer::Unreachable(member)));
    }

    fn link(&self, id: MemberId) -> Option<Rc<Link>> {
        self.links.borrow().get(&id).cloned()
    }

    fn is_removed(&self, id: MemberId) -> bool {
        self.newest.load().cluster.removed.contains(&id)
    }

    /// These are the members now.
    fn meet(self: &Rc<Self>, cluster: &Cluster) {
        let others = cluster.members.values().filter(|member| member.id != self.who.member);
        for member in others {
            match self.link(member.id) {
                Some(link) => {
                    link.set_urls(&member.peer_urls);
                    if link.stranger.replace(false) {
                        self.keep_in_touch(&link);
                    }
                }
                None => {
                    let link = self.add(member.id, &member.peer_urls, false);
                    self.keep_in_touch(&link);
                }
            }
        }
        let is_gone = |link: &Link| !link.stranger.get() && !cluster.members.contains_key(&link.id);
        let gone: Vec<_> =
            self.links.borrow().values().filter(|link| is_gone(link)).cloned().collect();
        for link in gone {
            link.end();
            self.links.borrow_mut().remove(&link.id);
            log::info!(
                "removed remote peer",
                "local-member-id" => self.who.member.to_string(),
                "removed-remote-peer-id" => link.id.to_string(),
            );
        }
    }

    fn add(&self, id: MemberId, urls: &[String], stranger: bool) -> Rc<Link> {
        let meter = self.meters.of(&id.to_string());
        let link = Rc::new(Link::new(id, urls, stranger, meter));
        self.links.borrow_mut().insert(id, link.clone());
        log::info!(
            if stranger { "added new remote peer" } else { "added remote peer" },
            "local-member-id" => self.who.member.to_string(),
            "remote-peer-id" => id.to_string(),
            "remote-peer-urls" => urls.to_vec(),
        );
        link
    }

    fn keep_in_touch(self: &Rc<Self>, link: &Rc<Link>) {
        for lane in [Lane::Append, Lane::Message] {
            glommio::spawn_local(stream::read_all(self.clone(), link.clone(), lane)).detach();
        }
        glommio::spawn_local(probe::probe_all(self.clone(), link.clone())).detach();
    }

    /// Somebody of this cluster says who it is and where. Whoever is not a member as far as this one
    /// knows is answered all the same: a member that lags knows less than the others, and must hear
    /// from them to learn more (etcd `AddRemote`).
    fn hear_of(&self, headers: &Headers) {
        let from = headers.get("x-server-from").and_then(|id| u64::from_str_radix(id, 16).ok());
        let urls = headers.get("x-peerurls").filter(|urls| !urls.is_empty());
        let (Some(from), Some(urls)) = (from.map(MemberId), urls) else { return };
        let strangers = self.links.borrow().values().filter(|link| link.stranger.get()).count();
        let is_new = from != self.who.member && self.link(from).is_none() && !self.is_removed(from);
        if is_new && strangers < PEER_STRANGERS_MAX {
            let urls: Vec<_> = urls.split(',').map(str::to_owned).collect();
            self.add(from, &urls, true);
        }
    }

    /// Serves a connection that another member opened.
    fn receive(self: &Rc<Self>, accepted: Accepted) {
        if self.connections.get() >= PEER_CONNECTIONS_MAX {
            return; // closing it says more than a wait
        }
        self.connections.set(self.connections.get() + 1);
        let room = self.clone();
        let serving = async move {
            if let Err(error) = serve::serve(room.clone(), accepted).await {
                log::debug!("peer connection ended", "reason" => error.to_string());
            }
            room.connections.set(room.connections.get() - 1);
        };
        glommio::spawn_local(serving).detach();
    }
}
