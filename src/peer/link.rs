//! One other member: where it is, what waits for it, and which of its starts is the newest.
//!
//! ```text
//!            ┌─ lane msgapp  ── stream that it opened ──▶
//!  send ─ pickup ─ lane message ── stream that it opened ──▶ it
//!            └─ calls: POST /raft while there is no stream ──▶
//! ```
//!
//! What does not fit its lane, or was on its way when a stream broke, is lost; raft is told and says
//! it again.

use super::{Room, calls::Calls, frame::Lane};
use crate::{
    consensus::{Kind, Message},
    limits::{PEER_LANE_BYTES_MAX, PEER_LANE_MESSAGES_MAX},
    log,
    mesh::FromPeer,
    metrics::PeerMeter,
    net::Authority,
    types::MemberId,
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

/// See the head of this file.
pub struct Link {
    /// Whom it leads to.
    pub id: MemberId,
    /// Only heard of, not known as a member: it is answered by posts, and no stream is opened.
    pub stranger: Cell<bool>,
    places: RefCell<Places>,
    /// Its newest start that was heard of; 0 before any, and always with an etcd.
    boot: Cell<u64>,
    lanes: [RefCell<Queue>; 2],
    /// Requests to it.
    pub calls: Calls,
    /// Messages that are being posted.
    pub posts: Cell<usize>,
    /// A snapshot is on its way to it.
    pub sends_snapshot: Cell<bool>,
    /// Streams that are open, in either direction.
    streams: Cell<usize>,
    /// What is counted of it.
    pub meter: Arc<PeerMeter>,
    ended: Cell<bool>,
    /// Of the tasks that end with the link.
    wakers: RefCell<[Option<Waker>; TASKS]>,
}

/// A task that ends with its link.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// Reads the stream of appends.
    ReadAppends,
    /// Reads the stream of messages.
    ReadMessages,
    /// Asks how long an answer takes.
    Probe,
}

const TASKS: usize = 3;

/// Where a member is said to be.
#[derive(Debug, Default)]
struct Places {
    urls: Vec<String>,
    usable: Vec<Authority>,
    picked: usize,
}

/// Messages that wait for a stream.
#[derive(Default)]
struct Queue {
    /// Rises with each stream that is opened; the newest is the one that is written to.
    stream: u64,
    open: bool,
    /// Without entries: heartbeats, votes and answers never stand behind entries.
    light: VecDeque<Message>,
    heavy: VecDeque<Message>,
    bytes: usize,
    waker: Option<Waker>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.light.is_empty() && self.heavy.is_empty()
    }

    fn push(&mut self, message: Message) -> bool {
        let weight = message.weight();
        let full = self.light.len() + self.heavy.len() >= PEER_LANE_MESSAGES_MAX
            || !self.is_empty() && self.bytes + weight > PEER_LANE_BYTES_MAX;
        if !self.open || full {
            return false;
        }
        self.bytes += weight;
        match message.kind {
            // Appends stay in order, whether they hold entries or not.
            Kind::Append | Kind::Propose => self.heavy.push_back(message),
            _ => self.light.push_back(message),
        }
        self.waker.take().into_iter().for_each(Waker::wake);
        true
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.light.pop_front().or_else(|| self.heavy.pop_front())?;
        self.bytes -= message.weight();
        Some(message)
    }

    fn clear(&mut self) {
        self.light.clear();
        self.heavy.clear();
        self.bytes = 0;
    }
}

/// How a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over a stream.
    Stream(Lane),
    /// By a request of its own.
    Post,
    /// With all that it speaks of.
    Snapshot,
}

/// etcd's choice (`rafthttp` `peer.pick`): appends over their own stream while there is one,
/// everything over the other while there is that, posts otherwise.
pub fn pickup(kind: Kind, appends_open: bool, messages_open: bool) -> Way {
    match kind {
        Kind::Snapshot => Way::Snapshot,
        Kind::Append if appends_open => Way::Stream(Lane::Append),
        _ if messages_open => Way::Stream(Lane::Message),
        _ => Way::Post,
    }
}

impl Link {
    /// A link without any connection yet.
    pub fn new(id: MemberId, urls: &[String], stranger: bool, meter: Arc<PeerMeter>) -> Self {
        let link = Self {
            id,
            stranger: Cell::new(stranger),
            places: RefCell::default(),
            boot: Cell::new(0),
            lanes: Default::default(),
            calls: Calls::default(),
            posts: Cell::new(0),
            sends_snapshot: Cell::new(false),
            streams: Cell::new(0),
            meter,
            ended: Cell::new(false),
            wakers: RefCell::default(),
        };
        link.set_urls(urls);
        link
    }

    /// Where it is from now on. What cannot be spoken to is left out, with a line in the log.
    pub fn set_urls(&self, urls: &[String]) {
        let mut places = self.places.borrow_mut();
        if places.urls == urls {
            return;
        }
        let read = |url: &String| {
            let found = url.strip_prefix("http://").and_then(Authority::parse);
            if found.is_none() {
                log::warn!(
                    "cannot speak to a peer URL: only http is built yet in ringleader",
                    "remote-peer-id" => self.id.to_string(),
                    "url" => url,
                );
            }
            found
        };
        let usable = urls.iter().filter_map(read).collect();
        *places = Places { urls: urls.to_vec(), usable, picked: 0 };
    }

    /// Where to try now; `None` when it has no URL that can be spoken to.
    pub fn place(&self) -> Option<Authority> {
        let places = self.places.borrow();
        places.usable.get(places.picked).cloned()
    }

    /// Another of its URLs is tried next, unless that has been decided meanwhile.
    pub fn unreachable_at(&self, place: &Authority) {
        let mut places = self.places.borrow_mut();
        if places.usable.get(places.picked) == Some(place) {
            places.picked = (places.picked + 1) % places.usable.len();
        }
    }

    /// Whether what a start of it says may still be heard: nothing of an older one may be, once a
    /// newer one was heard of. An etcd does not say which start it is.
    pub fn hears(&self, boot: Option<u64>) -> bool {
        let Some(boot) = boot else { return true };
        self.boot.set(self.boot.get().max(boot));
        self.boot.get() == boot
    }

    /// Whether a proposal is likely to arrive. Where it is not, whoever has it keeps it: it may be
    /// proposed once.
    pub fn takes_proposals(&self) -> bool {
        self.lanes[Lane::Message as usize].borrow().open
    }

    /// Sends or queues one message; false when it is lost.
    pub fn send(self: &Rc<Self>, room: &Rc<Room>, message: Message) -> bool {
        let open = |lane: Lane| self.lanes[lane as usize].borrow().open;
        let went = match pickup(message.kind, open(Lane::Append), open(Lane::Message)) {
            Way::Stream(lane) => self.lanes[lane as usize].borrow_mut().push(message),
            Way::Post => super::calls::post(room, self, &message),
            Way::Snapshot => {
                room.desk.tell(FromPeer::SnapshotSent { to: self.id, arrived: false });
                false
            }
        };
        if !went {
            self.meter.sent_failures.add(1);
        }
        went
    }

    /// A new stream to write to; whoever wrote to the last one ends.
    pub fn open_lane(&self, lane: Lane) -> u64 {
        let mut queue = self.lanes[lane as usize].borrow_mut();
        queue.clear();
        queue.open = true;
        queue.stream += 1;
        queue.waker.take().into_iter().for_each(Waker::wake);
        queue.stream
    }

    /// That stream is gone. True when it was the newest, and what waited for it is lost.
    pub fn close_lane(&self, lane: Lane, stream: u64) -> bool {
        let mut queue = self.lanes[lane as usize].borrow_mut();
        let newest = queue.stream == stream;
        if newest {
            queue.clear();
            queue.open = false;
        }
        newest
    }

    /// The next message for that stream, or word that there is none yet; `Err` when the stream is
    /// not the newest any more.
    pub fn next_for(&self, lane: Lane, stream: u64, waker: &Waker) -> Result<Option<Message>, ()> {
        let mut queue = self.lanes[lane as usize].borrow_mut();
        if queue.stream != stream || self.ended.get() {
            return Err(());
        }
        let message = queue.pop();
        if message.is_none() {
            queue.waker = Some(waker.clone());
        }
        Ok(message)
    }

    /// A stream is open until the guard goes.
    pub fn touch(self: &Rc<Self>, room: &Rc<Room>) -> Touch {
        self.streams.set(self.streams.get() + 1);
        if self.streams.get() == 1 {
            self.meter.active.set(1);
            log::info!("peer became active", "peer-id" => self.id.to_string());
            room.desk.tell(FromPeer::Contact { member: self.id, connected: true });
        }
        Touch { link: self.clone(), room: room.clone() }
    }

    /// Ends everything that belongs to it.
    pub fn end(&self) {
        self.ended.set(true);
        self.wakers.take().into_iter().flatten().for_each(Waker::wake);
        for lane in &self.lanes {
            lane.borrow_mut().waker.take().into_iter().for_each(Waker::wake);
        }
        self.calls.wake();
    }

    /// Whether it has ended.
    pub fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// Returns once it has ended.
    pub async fn end_of(&self, task: Task) {
        poll_fn(|cx| {
            if self.ended.get() {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut()[task as usize] = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// See [`Link::touch`].
pub struct Touch {
    link: Rc<Link>,
    room: Rc<Room>,
}

impl Drop for Touch {
    fn drop(&mut self) {
        let link = &self.link;
        link.streams.set(link.streams.get() - 1);
        if link.streams.get() > 0 {
            return;
        }
        link.meter.active.set(0);
        link.meter.disconnected.add(1);
        log::warn!(
            "peer became inactive (message send to peer failed)",
            "peer-id" => link.id.to_string(),
        );
        self.room.desk.tell(FromPeer::Contact { member: link.id, connected: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{consensus::KINDS, types::Term};

    fn link(urls: &[&str]) -> Link {
        let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
        Link::new(MemberId(2), &urls, false, Arc::default())
    }

    fn message(kind: Kind, term: u64) -> Message {
        Message { term: Term(term), ..Message::new(kind, MemberId(1), MemberId(2)) }
    }

    #[test]
    fn each_kind_goes_etcds_way() {
        for kind in KINDS {
            let ways = [(true, true), (true, false), (false, true), (false, false)]
                .map(|(appends, messages)| pickup(kind, appends, messages));
            let (append, other) = (Way::Stream(Lane::Append), Way::Stream(Lane::Message));
            let expected = match kind {
                Kind::Snapshot => [Way::Snapshot; 4],
                Kind::Append => [append, append, other, Way::Post],
                _ => [other, Way::Post, other, Way::Post],
            };
            assert_eq!(ways, expected, "{kind:?}");
        }
    }

    #[test]
    fn urls_are_tried_in_turn_and_those_of_no_use_are_left_out() {
        let link = link(&["http://a:1", "https://b:2", "unix://c", "http://d:4"]);
        let place = |link: &Link| link.place().map(|place| place.to_string());
        let first = link.place().expect("two are of use");
        assert_eq!(first.to_string(), "a:1");
        link.unreachable_at(&first);
        link.unreachable_at(&first);
        assert_eq!(place(&link).as_deref(), Some("d:4"), "one failure moves on once");
        link.unreachable_at(&link.place().expect("two are of use"));
        assert_eq!(place(&link).as_deref(), Some("a:1"));
        link.set_urls(&["https://b:2".into()]);
        assert_eq!(place(&link), None);
    }

    #[test]
    fn nothing_of_an_older_start_is_heard_after_a_newer_one() {
        let link = link(&[]);
        assert!(link.hears(None) && link.hears(Some(5)) && link.hears(Some(5)));
        assert!(link.hears(Some(6)) && !link.hears(Some(5)) && link.hears(None));
    }

    #[test]
    fn heartbeats_pass_entries_and_a_lane_is_bounded() {
        let mut queue = Queue { open: true, ..Queue::default() };
        assert!(queue.push(message(Kind::Propose, 1)) && queue.push(message(Kind::Propose, 2)));
        assert!(queue.push(message(Kind::HeartbeatResponse, 3)));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|sent| sent.term.0).collect();
        assert_eq!((order, queue.bytes), (vec![3, 1, 2], 0));
        for _ in 0..PEER_LANE_MESSAGES_MAX {
            assert!(queue.push(message(Kind::Vote, 1)));
        }
        assert!(!queue.push(message(Kind::Vote, 1)));
        queue.clear();
        let large =
            Message { context: vec![0; PEER_LANE_BYTES_MAX].into(), ..message(Kind::Append, 1) };
        assert!(queue.push(large.clone()), "one that alone is too large is taken");
        assert!(!queue.push(message(Kind::Append, 1)));
    }

    #[test]
    fn of_two_streams_of_a_kind_the_newer_is_written_to() {
        let link = link(&[]);
        let first = link.open_lane(Lane::Message);
        assert!(link.lanes[1].borrow_mut().push(message(Kind::Vote, 1)));
        let second = link.open_lane(Lane::Message);
        let waker = Waker::noop();
        assert_eq!(link.next_for(Lane::Message, first, waker), Err(()));
        assert_eq!(link.next_for(Lane::Message, second, waker), Ok(None));
        assert!(!link.close_lane(Lane::Message, first));
        assert!(link.lanes[1].borrow_mut().push(message(Kind::Vote, 2)), "the newer goes on");
        assert!(link.close_lane(Lane::Message, second));
        assert!(!link.lanes[1].borrow_mut().push(message(Kind::Vote, 3)));
    }
}
