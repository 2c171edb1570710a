//! The peers' room of a boot, where [`peer`](ringleader) would stand: between the node's rings and
//! the [`Network`].

use crate::{
    executor::{Lot, SimClock},
    history::History,
    network::{Arrived, Network, Word},
    parcel::Ramp,
};
use futures_lite::future::block_on;
use ringleader::{
    io::Clock,
    mesh::{Forward, FromPeer, Newest, PeersEnd, Reply, ToNode, ToPeers},
    store::{Unavailable, command::MemberChange},
    types::{MemberId, Ticket},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    future::{Future, poll_fn},
    rc::Rc,
    task::Poll,
    time::Duration,
};

/// See the head of this file.
pub(crate) struct Room {
    pub(crate) member: u64,
    pub(crate) boot: u64,
    pub(crate) end: PeersEnd,
    pub(crate) network: Network,
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) newest: Newest,
    pub(crate) clock: SimClock,
    pub(crate) lot: Lot,
    /// Answers that others wait for, by our ticket: who, and by which ticket of theirs.
    pub(crate) asked: BTreeMap<Ticket, (u64, Ticket)>,
    pub(crate) next_ticket: u64,
    /// What did not fit the ring.
    pub(crate) held: VecDeque<ToNode>,
    pub(crate) ramp: Rc<Ramp>,
    /// Snapshots on their way to others, and until when.
    pub(crate) sending: BTreeMap<u64, Duration>,
    /// How long one may take.
    pub(crate) patience: Duration,
}

/// How long a room waits for room in the ring.
const AGAIN: Duration = Duration::from_micros(200);

impl Room {
    pub(crate) async fn serve(mut self) {
        loop {
            self.say();
            self.answer();
            self.give_up_sending();
            self.held.extend(self.ramp.out.borrow_mut().drain(..));
            self.pass_on();
            self.wait().await;
        }
    }

    /// From the node to others.
    fn say(&mut self) {
        while let Some(word) = self.end.from_node.pop() {
            match word {
                ToPeers::Send(messages) => {
                    for message in messages {
                        self.send(message.to, Word::Raft(message));
                    }
                }
                ToPeers::Members(cluster) => {
                    self.network.disown(self.member, cluster.removed.iter().map(|id| id.0));
                }
                ToPeers::Snapshot { message, snapshot } => {
                    let (to, applied) = (message.to, snapshot.facts().applied.0);
                    self.history.borrow_mut().show(self.member, applied);
                    self.sending.insert(to.0, self.clock.now() + self.patience);
                    // All of it is read here: what is damaged is the sender's death.
                    block_on(snapshot.encode_manifest());
                    self.send(to, Word::Snapshot { message, snapshot });
                }
                ToPeers::Unneeded(staged) => self.ramp.unneeded(*staged),
                ToPeers::Forward { ticket, to: MemberId(0), .. } => {
                    let reply = Reply::Unavailable(Unavailable::NoLeader);
                    self.held.push_back(ToNode::Peer(FromPeer::Answered { ticket, reply }));
                }
                ToPeers::Forward { ticket, to, what } => {
                    self.send(to, Word::Ask { ticket, what });
                }
            }
        }
    }

    fn send(&self, to: MemberId, word: Word) {
        self.network.send((self.member, self.boot), to.0, word);
    }

    /// What the node answers to others.
    fn answer(&mut self) {
        while let Some(message) = self.end.desk.inbox.pop() {
            self.history.borrow_mut().show(self.member, self.newest.load().applied.0);
            for (ticket, reply) in message.replies {
                if let Some((to, ticket)) = self.asked.remove(&ticket) {
                    self.send(MemberId(to), Word::Answer { ticket, reply });
                }
            }
        }
    }

    /// Whoever does not say for long whether a snapshot came in has not got it.
    fn give_up_sending(&mut self) {
        let now = self.clock.now();
        let late = self.sending.extract_if(.., |_, until| *until <= now);
        let lost = |(to, _)| FromPeer::SnapshotSent { to: MemberId(to), arrived: false };
        self.held.extend(late.map(lost).map(ToNode::Peer));
    }

    fn hear(&mut self, arrived: Arrived) {
        let said = match arrived {
            Arrived::Word { from, word: Word::Snapshot { message, snapshot } } => {
                return self.ramp.take(from, message, snapshot);
            }
            Arrived::Word { from, word: Word::Received { arrived } } => {
                if self.sending.remove(&from).is_none() {
                    return;
                }
                ToNode::Peer(FromPeer::SnapshotSent { to: MemberId(from), arrived })
            }
            Arrived::News(news) => ToNode::Peer(news),
            Arrived::Word { word: Word::Raft(message), .. } => {
                ToNode::Peer(FromPeer::Message(Box::new(message)))
            }
            Arrived::Word { word: Word::Answer { ticket, reply }, .. } => {
                ToNode::Peer(FromPeer::Answered { ticket, reply })
            }
            Arrived::Word { from, word: Word::Ask { ticket: theirs, what } } => {
                self.next_ticket += 1;
                let desk = self.end.desk.shard;
                let ticket = Ticket::new(MemberId(self.member), desk, self.next_ticket);
                self.asked.insert(ticket, (from, theirs));
                self.history.borrow_mut().forward(theirs, ticket);
                match what {
                    Forward::Lease(ask) => ToNode::Lease { ticket, ask },
                    Forward::Promote(id) => {
                        ToNode::Change { ticket, change: MemberChange::Promote(id) }
                    }
                }
            }
        };
        self.held.push_back(said);
    }

    /// To the node, as far as there is room.
    fn pass_on(&mut self) {
        while let Some(said) = self.held.pop_front() {
            if let Err(back) = self.end.desk.to_node.try_send(said) {
                self.held.push_front(back);
                return;
            }
        }
    }

    async fn wait(&mut self) {
        let mut again = if self.held.is_empty() { Duration::MAX } else { self.clock.now() + AGAIN };
        if self.ramp.busy.get() || !self.sending.is_empty() {
            again = again.min(self.clock.now() + self.patience / 100);
        }
        let mut timer = Box::pin(self.clock.sleep_until(again));
        let arrived = poll_fn(|cx| {
            if let Poll::Ready(arrived) = self.network.poll_arrived(self.member, cx) {
                return Poll::Ready(Some(arrived));
            }
            let rings = [self.end.from_node.poll_ready(cx), self.end.desk.inbox.poll_ready(cx)];
            let rang = timer.as_mut().poll(cx);
            let ready = rang.is_ready() || rings.iter().any(Poll::is_ready);
            if ready { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        if let Some(arrived) = arrived {
            self.hear(arrived);
        }
        for _ in 0..self.lot.below(2) {
            futures_lite::future::yield_now().await;
        }
    }
}
