//! The only words cores share, and the bounded rings that carry them.
//!
//! ```text
//!   shard 0 ──ToNode──▶┐            ┌──ToShard──▶ shard 0
//!   shard 1 ──ToNode──▶├─▶  node  ──┼──ToShard──▶ shard 1
//!   shard n ──ToNode──▶┤            ├──ToShard──▶ shard n
//!   peers   ──ToNode──▶┘            └──ToShard, ToPeers──▶ peers
//! ```
//!
//! The peers' room asks for other members as shards ask for clients, and has a desk as if it were
//! one; raft's messages take the same rings to the node and one of their own back.
//!
//! Beside the rings stands one pointer, [`Newest`]: the view that the node published last. Shards
//! load it when they read, so a shard that nobody asks anything is never woken by writes elsewhere.
//!
//! Each arrow is one single-producer single-consumer ring. A full ring is an immediate refusal to
//! whoever sends, never a wait, so back-pressure has one place. Whoever receives sleeps on one
//! waker, which the first push after falling asleep takes and wakes: a busy receiver costs its
//! senders one atomic load.

use crate::{
    consensus::Message,
    limits::{TO_NODE_RING_MESSAGES_MAX, TO_PEERS_RING_MESSAGES_MAX, TO_SHARD_RING_MESSAGES_MAX},
    store::{Cluster, Outcome, Unavailable, View, command::MemberChange},
    tree::{Snapshot, Staged},
    types::{LeaseId, MemberId, Ticket},
};
use arc_swap::ArcSwap;
use atomic_waker::AtomicWaker;
use bytes::Bytes;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
    task::{Context, Poll},
    time::Duration,
};

/// What a shard asks of the node.
#[derive(Debug)]
pub enum ToNode {
    /// Put this encoded request into the log. Answered once, by its ticket.
    Propose {
        /// Ties the answer to the client; stands in the request's header too.
        ticket: Ticket,
        /// One encoded `InternalRaftRequest`, header included.
        request: Bytes,
    },
    /// When is a read that begins now linearizable? Answered by [`Reply::Readable`].
    Read {
        /// Ties the answer to the reads that wait for it; one ticket may stand for many.
        ticket: Ticket,
    },
    /// Something about leases that only the leader's clock knows.
    Lease {
        /// Ties the answer to the client.
        ticket: Ticket,
        /// What.
        ask: LeaseAsk,
    },
    /// Change the members. Answered by [`Reply::Applied`].
    Change {
        /// Ties the answer to the client; stands in the entry too.
        ticket: Ticket,
        /// How.
        change: MemberChange,
    },
    /// Hand the lead over. Answered by [`Reply::Moved`].
    MoveLeader {
        /// Ties the answer to the client.
        ticket: Ticket,
        /// To whom.
        to: MemberId,
    },
    /// Give back what space can be given back. Answered by [`Reply::Defragmented`].
    Defragment {
        /// Ties the answer to the client.
        ticket: Ticket,
    },
    /// From the peers' room.
    Peer(FromPeer),
    /// This shard is going down and asks nothing any more.
    Farewell,
}

/// What the peers' room tells the node.
#[derive(Debug)]
pub enum FromPeer {
    /// Another member says this.
    Message(Box<Message>),
    /// A whole snapshot has come in and lies beside the member's own data; with it, raft's word of it.
    Snapshot {
        /// As the leader said it.
        message: Box<Message>,
        /// What it holds.
        staged: Box<Staged>,
    },
    /// This proposal was not sent, nor will it be: its leader cannot be reached.
    Returned(Box<Message>),
    /// What was sent to this member may not have arrived.
    Unreachable(MemberId),
    /// The snapshot for this member has arrived whole, or it has not.
    SnapshotSent {
        /// Who was to get it.
        to: MemberId,
        /// Whether it has it.
        arrived: bool,
    },
    /// A connection with this member came about, or the last one is gone.
    Contact {
        /// Whom.
        member: MemberId,
        /// Whether there is one now.
        connected: bool,
    },
    /// The leader's answer to what was forwarded to it, for whoever holds the ticket.
    Answered {
        /// Who waits.
        ticket: Ticket,
        /// What to say.
        reply: Reply,
    },
    /// The cluster says that this member is not one of it any more.
    Removed,
}

/// What the node tells the peers' room.
#[derive(Debug)]
pub enum ToPeers {
    /// Send these, each to its `to`, in this order. A member that cannot be reached loses them.
    Send(Vec<Message>),
    /// These are the members now; keep in touch with all but this one itself.
    Members(Arc<Cluster>),
    /// Bring this to the message's `to`, at leisure, and then the message; say how it went with
    /// [`FromPeer::SnapshotSent`].
    Snapshot {
        /// raft's word of it.
        message: Box<Message>,
        /// What it holds.
        snapshot: Snapshot,
    },
    /// This one was not needed: keep of it what helps the next.
    Unneeded(Box<Staged>),
    /// Ask the leader this and answer with [`FromPeer::Answered`].
    Forward {
        /// Who waits.
        ticket: Ticket,
        /// Who leads; 0 for whoever will.
        to: MemberId,
        /// What to ask.
        what: Forward,
    },
}

/// What only the leader can answer.
#[derive(Clone, Debug)]
pub enum Forward {
    /// About a lease's time.
    Lease(LeaseAsk),
    /// To let a learner vote.
    Promote(MemberId),
}

/// What is asked of the leader's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseAsk {
    /// Let it live for its TTL from now on. Answered by [`Reply::Renewed`].
    Renew(LeaseId),
    /// How long does it still live? Answered by [`Reply::Remaining`].
    Remaining(LeaseId),
    /// All of them. Answered by [`Reply::Leases`].
    List,
}

/// A lease's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// As granted, seconds.
    pub granted: i64,
    /// Until it expires; zero once it has, until it is revoked.
    pub remaining: Duration,
}

/// What the node tells a shard: at most one message a turn. An empty one says that there is a new
/// revision, to a shard that has set its [`Interest`].
#[derive(Debug, Default)]
pub struct ToShard {
    /// Answers, in the order they came about. [`Newest`] holds everything that they speak of.
    pub replies: Vec<(Ticket, Reply)>,
}

/// Whether a shard wants to hear of every new revision. The shard sets it, the node looks.
///
/// ```text
///   shard:  set interest ── fence ── load newest view ── look what is new
///   node:   publish view ── fence ── look at interest ── send news
/// ```
///
/// Of the two fences one is first. If it is the shard's, the node sees the interest and sends news;
/// if it is the node's, the shard loads that view or a newer one. So no revision comes between the
/// view that the shard looked at and the news of the next (store buffering, as in Dekker's
/// algorithm; C++ \[atomics.order\] on fences of sequential consistency).
#[derive(Clone, Default)]
pub struct Interest(Arc<AtomicBool>);

impl Interest {
    /// From now on each new revision is told by a message, an empty one if need be; or no more.
    /// Whoever begins to want it loads [`Newest`] afterwards, not before.
    pub fn set(&self, wanted: bool) {
        self.0.store(wanted, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether news are wanted. Looked at after the view was published.
    pub fn is_set(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed)
    }
}

/// The newest published view. One writer; loading it takes no lock.
#[derive(Clone)]
pub struct Newest(Arc<ArcSwap<View>>);

impl Newest {
    /// Starts with `view`.
    pub fn new(view: View) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(view)))
    }

    /// Replaces the view. Done before any reply that speaks of it is sent, so whoever has the reply
    /// also has the view.
    pub fn publish(&self, view: View) {
        self.0.store(Arc::new(view));
    }

    /// The view published last.
    pub fn load(&self) -> Arc<View> {
        self.0.load_full()
    }
}

/// The answer to one ticket.
#[derive(Debug)]
pub enum Reply {
    /// The proposal was applied; this is what it said.
    Applied(Outcome),
    /// The newest view, or any later one, may serve the read.
    Readable,
    /// The lease lives for this many seconds from when it was renewed; `None`: there is none.
    Renewed(Option<i64>),
    /// The lease's time; `None`: there is none.
    Remaining(Option<LeaseTime>),
    /// All leases with the moment of the node's clock when each expires, in no useful order. Where
    /// the member does not lead it knows no moments: all are the same.
    Leases(Arc<Vec<(Duration, LeaseId)>>),
    /// The lead was handed over.
    Moved,
    /// What space could be given back was given back.
    Defragmented,
    /// Decided before the log: whether it took effect is what the variant says.
    Unavailable(Unavailable),
}

/// The sending end of a ring.
pub struct Sender<T> {
    /// `None` only while it is dropped.
    ring: Option<rtrb::Producer<T>>,
    waker: Arc<AtomicWaker>,
}

impl<T> Drop for Sender<T> {
    /// The receiver hears of it, so that it can see [`Inbox::is_closed`].
    fn drop(&mut self) {
        self.ring = None;
        self.waker.wake();
    }
}

/// The receiving ends that share one waker: all rings into one place.
pub struct Inbox<T> {
    rings: Vec<rtrb::Consumer<T>>,
    waker: Arc<AtomicWaker>,
    next: usize,
}

impl<T> Sender<T> {
    /// Hands over `message`, or gives it back when the ring is full.
    ///
    /// # Errors
    /// The message itself, when the ring is full.
    pub fn try_send(&mut self, message: T) -> Result<(), T> {
        let ring = self.ring.as_mut().expect("held until dropped");
        ring.push(message).map_err(|rtrb::PushError::Full(message)| message)?;
        self.waker.wake();
        Ok(())
    }

    /// Whether the other end is gone.
    pub fn is_closed(&self) -> bool {
        self.ring.as_ref().is_none_or(rtrb::Producer::is_abandoned)
    }
}

impl<T> Inbox<T> {
    /// The next message, taking turns between the rings so that none starves.
    pub fn pop(&mut self) -> Option<T> {
        for _ in 0..self.rings.len() {
            let at = self.next;
            self.next = (at + 1) % self.rings.len();
            if let Ok(message) = self.rings[at].pop() {
                return Some(message);
            }
        }
        None
    }

    /// Ready when some ring holds a message; else the waker of `cx` is woken by the next push.
    pub fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        if self.has_any() {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        // A push between the look and the registration woke nobody: look again.
        if self.has_any() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether every sender is gone and nothing is left.
    pub fn is_closed(&self) -> bool {
        self.rings.iter().all(|ring| ring.is_abandoned() && ring.is_empty())
    }

    fn has_any(&self) -> bool {
        self.rings.iter().any(|ring| !ring.is_empty())
    }
}

/// `senders` rings of `capacity` messages each, into one inbox.
pub fn rings<T>(senders: usize, capacity: usize) -> (Vec<Sender<T>>, Inbox<T>) {
    let waker = Arc::new(AtomicWaker::new());
    let (senders, rings) = (0..senders)
        .map(|_| {
            let (producer, consumer) = rtrb::RingBuffer::new(capacity);
            (Sender { ring: Some(producer), waker: waker.clone() }, consumer)
        })
        .unzip();
    (senders, Inbox { rings, waker, next: 0 })
}

/// A shard's end: it sends to the node and receives from it.
pub struct ShardEnd {
    /// Which shard this is, from 0.
    pub shard: usize,
    /// To the node.
    pub to_node: Sender<ToNode>,
    /// From the node.
    pub inbox: Inbox<ToShard>,
    /// Whether the node should tell of every new revision.
    pub interest: Interest,
}

/// The node's end: one sender to each shard, one inbox from all.
pub struct NodeEnd {
    /// To each shard, by its number; the last is the desk of the peers' room.
    pub to_shards: Vec<Sender<ToShard>>,
    /// To the peers' room.
    pub to_peers: Sender<ToPeers>,
    /// From all shards and the peers' room.
    pub inbox: Inbox<ToNode>,
    /// Of each shard, by its number; the last is the desk's.
    pub interests: Vec<Interest>,
}

/// The end of the peers' room: a desk like a shard's, for what other members ask of this one, and
/// what the node has for them.
pub struct PeersEnd {
    /// To the node and its answers. Its number is one above the last shard's.
    pub desk: ShardEnd,
    /// From the node.
    pub from_node: Inbox<ToPeers>,
}

/// How many messages fit the rings.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// From each shard, and from the peers' room, to the node.
    pub to_node: usize,
    /// From the node to each shard.
    pub to_shard: usize,
    /// From the node to the peers' room.
    pub to_peers: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            to_node: TO_NODE_RING_MESSAGES_MAX,
            to_shard: TO_SHARD_RING_MESSAGES_MAX,
            to_peers: TO_PEERS_RING_MESSAGES_MAX,
        }
    }
}

/// The whole mesh for a node, `shards` shards and the peers' room.
pub fn mesh(shards: usize, capacity: Capacity) -> (NodeEnd, Vec<ShardEnd>, PeersEnd) {
    let (to_node, inbox) = rings(shards + 1, capacity.to_node);
    let mut to_shards = Vec::with_capacity(shards + 1);
    let mut ends = Vec::with_capacity(shards + 1);
    for (shard, to_node) in to_node.into_iter().enumerate() {
        let (mut sender, inbox) = rings(1, capacity.to_shard);
        to_shards.extend(sender.pop());
        ends.push(ShardEnd { shard, to_node, inbox, interest: Interest::default() });
    }
    let interests = ends.iter().map(|end| end.interest.clone()).collect();
    let (mut to_peers, from_node) = rings(1, capacity.to_peers);
    let to_peers = to_peers.pop().expect("one ring was asked for");
    let desk = ends.pop().expect("one more than shards");
    (NodeEnd { to_shards, to_peers, inbox, interests }, ends, PeersEnd { desk, from_node })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, AtomicUsize};
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_full_ring_gives_the_message_back() {
        let (mut senders, mut inbox) = rings(1, 2);
        assert_eq!(senders[0].try_send(1), Ok(()));
        assert_eq!(senders[0].try_send(2), Ok(()));
        assert_eq!(senders[0].try_send(3), Err(3));
        assert_eq!((inbox.pop(), inbox.pop(), inbox.pop()), (Some(1), Some(2), None));
    }

    #[test]
    fn a_loud_sender_does_not_starve_a_quiet_one() {
        let (mut senders, mut inbox) = rings(2, 8);
        for n in 0..4 {
            senders[0].try_send(n).unwrap();
        }
        senders[1].try_send(100).unwrap();
        let first_two = [inbox.pop().unwrap(), inbox.pop().unwrap()];
        assert!(first_two.contains(&100), "{first_two:?}");
    }

    #[test]
    fn a_sleeping_receiver_is_woken_once_and_a_busy_one_never() {
        let (mut senders, mut inbox) = rings(1, 8);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let cx = Context::from_waker(&waker);
        assert!(inbox.poll_ready(&cx).is_pending());
        senders[0].try_send(1).unwrap();
        senders[0].try_send(2).unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(inbox.poll_ready(&cx).is_ready());
        assert_eq!((inbox.pop(), inbox.pop()), (Some(1), Some(2)));
        drop(senders);
        assert!(inbox.is_closed());
    }

    /// The node publishes once, the shard begins to be interested once, at the same time: the shard
    /// has the view, or it gets the news.
    #[test]
    fn interest_that_begins_as_a_view_is_published_misses_nothing() {
        const ROUNDS: u64 = 20_000;
        let (newest, rounds) = (AtomicU64::new(0), std::sync::Barrier::new(2));
        let interest = Interest::default();
        std::thread::scope(|scope| {
            let node = scope.spawn(|| {
                let publish = |round| {
                    rounds.wait();
                    newest.store(round, Ordering::Relaxed);
                    let told = interest.is_set();
                    rounds.wait();
                    told
                };
                (1..=ROUNDS).map(publish).collect::<Vec<_>>()
            });
            let subscribe = |_| {
                interest.set(false);
                rounds.wait();
                interest.set(true);
                let seen = newest.load(Ordering::Relaxed);
                rounds.wait();
                seen
            };
            let seen: Vec<_> = (1..=ROUNDS).map(subscribe).collect();
            let told = node.join().unwrap();
            for (round, (seen, told)) in (1..).zip(seen.into_iter().zip(told)) {
                assert!(told || seen == round, "round {round} was missed");
            }
        });
    }

    #[test]
    fn two_threads_lose_and_reorder_nothing() {
        const MESSAGES: u64 = 20_000;
        let (mut senders, mut inbox) = rings(1, 16);
        let mut sender = senders.pop().unwrap();
        let producer = std::thread::spawn(move || {
            for n in 0..MESSAGES {
                let mut message = n;
                while let Err(back) = sender.try_send(message) {
                    message = back;
                    std::thread::yield_now();
                }
            }
        });
        futures_lite::future::block_on(async {
            for n in 0..MESSAGES {
                std::future::poll_fn(|cx| inbox.poll_ready(cx)).await;
                assert_eq!(inbox.pop(), Some(n));
            }
        });
        producer.join().unwrap();
    }
}
