//! The room's end of the rings with the node: a desk as a shard has one.
//!
//! A message of another member goes into the ring or waits where it is, so that a full ring stops
//! the reading of sockets. What the room itself has to say is short and never lost: it waits here.

use crate::{
    consensus::Message,
    limits::{PEER_RING_INTERVAL, PEER_WORDS_MAX},
    mesh::{FromPeer, Reply, Sender, ToNode, ToShard},
    net::Promise,
    types::{MemberId, Ticket},
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

/// See the head of this file.
pub struct Desk {
    own: MemberId,
    number: usize,
    /// Count of the next ticket.
    count: Cell<u64>,
    to_node: RefCell<Sender<ToNode>>,
    words: RefCell<VecDeque<FromPeer>>,
    waiting: RefCell<BTreeMap<Ticket, Waiting>>,
}

/// Who waits for an answer of the node, and until when. `None` is no answer.
struct Waiting {
    promise: Rc<Promise<Option<Reply>>>,
    until: Duration,
}

impl Desk {
    /// A desk whose tickets begin at `boot` (see [`Ticket::new`]).
    pub fn new(own: MemberId, number: usize, boot: u64, to_node: Sender<ToNode>) -> Self {
        Self {
            own,
            number,
            count: Cell::new(boot),
            to_node: to_node.into(),
            words: RefCell::default(),
            waiting: RefCell::default(),
        }
    }

    /// Tells the node, now or as soon as there is room. Of what says the same of a member only the
    /// newest word waits, so there are never more than members and forwarded requests.
    pub fn tell(&self, word: FromPeer) {
        let mut words = self.words.borrow_mut();
        words.retain(|waiting| match (waiting, &word) {
            (FromPeer::Unreachable(known), FromPeer::Unreachable(new)) => known != new,
            (FromPeer::Contact { member: known, .. }, FromPeer::Contact { member: new, .. }) => {
                known != new
            }
            _ => true,
        });
        assert!(words.len() < PEER_WORDS_MAX, "the room has more to say than there can be");
        words.push_back(word);
        drop(words);
        self.flush();
    }

    /// Hands over what waits; true when nothing does any more.
    pub fn flush(&self) -> bool {
        let (mut words, mut to_node) = (self.words.borrow_mut(), self.to_node.borrow_mut());
        while let Some(word) = words.pop_front() {
            if let Err(ToNode::Peer(back)) = to_node.try_send(ToNode::Peer(word)) {
                words.push_front(back);
                return false;
            }
        }
        true
    }

    /// Hands over a message of another member once there is room, if `is_good` holds then.
    pub async fn deliver(&self, message: Box<Message>, is_good: impl Fn() -> bool) -> bool {
        let mut message = ToNode::Peer(FromPeer::Message(message));
        while is_good() {
            if self.flush() {
                match self.to_node.borrow_mut().try_send(message) {
                    Ok(()) => return true,
                    Err(back) => message = back,
                }
            }
            glommio::timer::sleep(PEER_RING_INTERVAL).await;
        }
        false
    }

    /// Asks the node. The promise holds `None` where the ring is full or no answer has come until
    /// `until`.
    pub fn ask(
        &self,
        until: Duration,
        question: impl FnOnce(Ticket) -> ToNode,
    ) -> Rc<Promise<Option<Reply>>> {
        let ticket = Ticket::new(self.own, self.number, self.count.get());
        self.count.set(self.count.get() + 1);
        let promise = Rc::new(Promise::default());
        match self.to_node.borrow_mut().try_send(question(ticket)) {
            Ok(()) => {
                let waiting = Waiting { promise: promise.clone(), until };
                self.waiting.borrow_mut().insert(ticket, waiting);
            }
            Err(_full) => promise.set(None),
        }
        promise
    }

    /// Whether a ticket is one of this desk.
    pub fn drew(&self, ticket: Ticket) -> bool {
        ticket.shard_of(self.own) == Some(self.number)
    }

    /// Tells everybody whose time is up.
    pub fn expire(&self, now: Duration) {
        self.waiting.borrow_mut().retain(|_, waiting| {
            let late = waiting.until <= now;
            if late {
                waiting.promise.set(None);
            }
            !late
        });
    }

    /// The node has answered.
    pub fn on_message(&self, message: ToShard) {
        for (ticket, reply) in message.replies {
            // Whoever waited may have run out of time.
            if let Some(waiting) = self.waiting.borrow_mut().remove(&ticket) {
                waiting.promise.set(Some(reply));
            }
        }
    }
}
