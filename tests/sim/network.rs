//! What lies between members: it loses, repeats, delays and reorders what they say, and is cut for a
//! while, as the [`Winds`] have it.
//!
//! ```text
//!   room ── send ──▶ lost? twice? late? ──▶ mail, by time ── courier ──▶ cut? down? ──▶ port ──▶ room
//! ```
//!
//! Two things it never does. Nothing of an older boot of a sender arrives once something of a newer
//! one has, since a new boot opens its connections anew. And nothing arrives whose sender has ended
//! before its receiver began: no connection was ever between them.

use crate::{
    executor::{Lot, SimClock},
    history::History,
    story::Line,
    weather::Winds,
};
use ringleader::{
    consensus::{Kind, Message},
    io::Clock,
    mesh::{Forward, FromPeer, Reply},
    tree::Snapshot,
    types::{Index, MemberId, Term, Ticket},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::{Future, poll_fn},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// What members say to each other.
pub(crate) enum Word {
    Raft(Message),
    /// What only the leader can answer.
    Ask {
        ticket: Ticket,
        what: Forward,
    },
    Answer {
        ticket: Ticket,
        reply: Reply,
    },
    /// A whole state, and raft's message that goes with it.
    Snapshot {
        message: Box<Message>,
        snapshot: Snapshot,
    },
    /// It has come in, or it has not.
    Received {
        arrived: bool,
    },
}

/// A bug planted between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gust {
    /// Appends that are lost are acknowledged all the same.
    AppendsConfirmed,
    /// Heartbeats that ask on behalf of a read are answered all the same when they are lost.
    ReadsConfirmed,
    /// Whoever refuses a vote gives it.
    VotesGranted,
    /// A forwarded proposal comes once more without its mark.
    ForwardedTwice,
}

/// What arrives in a member's room.
pub(crate) enum Arrived {
    Word { from: u64, word: Word },
    News(FromPeer),
}

struct Letter {
    from: u64,
    boot: u64,
    to: u64,
    word: Word,
    /// Its sender has ended since.
    orphan: bool,
}

/// Where a running member hears.
struct Port {
    inbox: VecDeque<Arrived>,
    waker: Option<Waker>,
    /// Who is no member any more, as far as this one knows.
    removed: BTreeSet<u64>,
}

struct State {
    lot: Lot,
    winds: Winds,
    ports: BTreeMap<u64, Port>,
    mail: BTreeMap<(Duration, u64), Letter>,
    sent: u64,
    courier: Option<Waker>,
    /// One way each.
    cut: BTreeSet<(u64, u64)>,
    slow: BTreeMap<(u64, u64), u64>,
    /// Both ways.
    contacts: BTreeSet<(u64, u64)>,
    newest_boots: BTreeMap<(u64, u64), u64>,
    /// When the newest letter of each way arrives.
    newest: BTreeMap<(u64, u64), Duration>,
    sights: BTreeMap<&'static str, usize>,
    told: Vec<Line>,
    gust: Option<Gust>,
}

/// The network of a cluster. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Network {
    state: Rc<RefCell<State>>,
    clock: SimClock,
    history: Rc<RefCell<History>>,
}

impl Network {
    pub(crate) fn new(
        lot: Lot,
        winds: Winds,
        gust: Option<Gust>,
        clock: SimClock,
        history: Rc<RefCell<History>>,
    ) -> Self {
        let state = State {
            lot,
            winds,
            ports: BTreeMap::new(),
            mail: BTreeMap::new(),
            sent: 0,
            courier: None,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            contacts: BTreeSet::new(),
            newest_boots: BTreeMap::new(),
            newest: BTreeMap::new(),
            sights: BTreeMap::new(),
            told: Vec::new(),
            gust,
        };
        Self { state: Rc::new(RefCell::new(state)), clock, history }
    }

    /// A member can be reached.
    pub(crate) fn open(&self, member: u64) {
        let mut state = self.state.borrow_mut();
        let port = Port { inbox: VecDeque::new(), waker: None, removed: BTreeSet::new() };
        state.ports.insert(member, port);
        state.mail.retain(|_, letter| letter.to != member || !letter.orphan);
        state.touch();
    }

    /// It cannot any more.
    pub(crate) fn close(&self, member: u64) {
        let mut state = self.state.borrow_mut();
        state.ports.remove(&member);
        let own = state.mail.values_mut().filter(|letter| letter.from == member);
        own.for_each(|letter| letter.orphan = true);
        state.touch();
    }

    /// A member knows who is no member any more.
    pub(crate) fn disown(&self, member: u64, removed: impl Iterator<Item = u64>) {
        if let Some(port) = self.state.borrow_mut().ports.get_mut(&member) {
            port.removed = removed.collect();
        }
    }

    pub(crate) fn send(&self, (from, boot): (u64, u64), to: u64, mut word: Word) {
        let now = self.clock.now();
        let mut state = self.state.borrow_mut();
        if let Word::Raft(message) = &mut word {
            self.history.borrow_mut().promises(message);
            state.note(message);
            if state.gust == Some(Gust::VotesGranted) && message.kind == Kind::VoteResponse {
                message.reject = false;
            }
            if state.gust == Some(Gust::ForwardedTwice) && message.kind == Kind::Propose {
                let word = Word::Raft(Message { term: Term(0), ..message.clone() });
                state.post(now, Letter { from, boot, to, word, orphan: false });
            }
            let again = state.winds.twice_odds.is_some_and(|odds| state.lot.one_in(odds));
            if again {
                state.see("a message that came twice");
                let word = Word::Raft(message.clone());
                state.post(now, Letter { from, boot, to, word, orphan: false });
            }
        }
        state.post(now, Letter { from, boot, to, word, orphan: false });
    }

    /// What has arrived for a member, if anything has.
    pub(crate) fn poll_arrived(&self, member: u64, cx: &Context<'_>) -> Poll<Arrived> {
        let mut state = self.state.borrow_mut();
        let Some(port) = state.ports.get_mut(&member) else { return Poll::Pending };
        port.waker = Some(cx.waker().clone());
        port.inbox.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    /// Whether two members are in touch.
    pub(crate) fn in_touch(&self, one: u64, other: u64) -> bool {
        self.state.borrow().contacts.contains(&(one.min(other), one.max(other)))
    }

    /// How long a piece of something large takes.
    pub(crate) fn piece_takes(&self) -> Duration {
        let mut state = self.state.borrow_mut();
        let most = state.winds.delay_micros_max + 1;
        Duration::from_micros(state.lot.below(most))
    }

    pub(crate) fn see(&self, sight: &'static str) {
        self.state.borrow_mut().see(sight);
    }

    /// Delivers, for ever.
    pub(crate) async fn carry(self) {
        loop {
            let mut timer = Box::pin(self.clock.sleep_until(self.next_at()));
            let mut looked = false;
            poll_fn(|cx| {
                self.state.borrow_mut().courier = Some(cx.waker().clone());
                let rang = timer.as_mut().poll(cx);
                if std::mem::replace(&mut looked, true) { Poll::Ready(()) } else { rang }
            })
            .await;
            while let Some(letter) = self.due() {
                self.state.borrow_mut().deliver(self.clock.now(), letter);
            }
        }
    }

    fn next_at(&self) -> Duration {
        let state = self.state.borrow();
        state.mail.first_key_value().map_or(Duration::MAX, |((at, _), _)| *at)
    }

    fn due(&self) -> Option<Letter> {
        let (now, mut state) = (self.clock.now(), self.state.borrow_mut());
        let first = state.mail.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    /// Cuts links for a while, again and again, for ever.
    pub(crate) async fn storm(self) {
        loop {
            let (lull, storm) = {
                let mut state = self.state.borrow_mut();
                let Winds { lull, storm, .. } = state.winds;
                let Some(lull) = lull else { return };
                let part = |lot: &mut Lot, of: Duration| of * lot.below(100) as u32 / 100;
                (part(&mut state.lot, lull), part(&mut state.lot, storm))
            };
            self.clock.sleep_until(self.clock.now() + lull).await;
            if self.state.borrow().winds.lull.is_none() {
                return;
            }
            let leader = self.history.borrow().newest_leader();
            self.state.borrow_mut().blow(self.clock.now(), leader);
            self.clock.sleep_until(self.clock.now() + storm).await;
            self.state.borrow_mut().heal(self.clock.now());
        }
    }

    /// From now on nothing is cut and hardly anything delayed.
    pub(crate) fn calm(&self) {
        let mut state = self.state.borrow_mut();
        state.winds = Winds::calm();
        state.heal(self.clock.now());
    }

    /// When links were cut, and when they were whole again.
    pub(crate) fn told(&self) -> Vec<Line> {
        self.state.borrow().told.clone()
    }

    pub(crate) fn sights(&self) -> BTreeMap<&'static str, usize> {
        self.state.borrow().sights.clone()
    }
}

impl State {
    fn see(&mut self, sight: &'static str) {
        *self.sights.entry(sight).or_default() += 1;
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    fn post(&mut self, now: Duration, letter: Letter) {
        let (way, winds) = ((letter.from, letter.to), self.winds);
        let lost = winds.loss_odds.is_some_and(|odds| self.lot.one_in(odds));
        if lost || self.is_cut(way.0, way.1) {
            self.see("a message that was lost");
            return self.lose(now, &letter);
        }
        let slow = self.slow.get(&way).copied().unwrap_or(0);
        let mut micros = self.lot.below(winds.delay_micros_max + slow + 1);
        let late = winds.late_odds.is_some_and(|odds| self.lot.one_in(odds));
        if late {
            self.see("a message that came late");
            micros += self.lot.below(winds.late_micros_max + 1);
        }
        let mut at = now + Duration::from_micros(micros);
        if winds.orderly && !late {
            let newest = self.newest.entry(way).or_default();
            at = at.max(*newest);
            *newest = at;
        }
        self.sent += 1;
        self.mail.insert((at, self.sent), letter);
        self.wake_courier();
    }

    /// A bug may pretend that it was not lost.
    fn lose(&mut self, now: Duration, letter: &Letter) {
        self.report(letter);
        let Word::Raft(message) = &letter.word else { return };
        let kind = match (self.gust, message.kind) {
            (Some(Gust::AppendsConfirmed), Kind::Append) => Kind::AppendResponse,
            (Some(Gust::ReadsConfirmed), Kind::Heartbeat) if !message.context.is_empty() => {
                let (kind, term) = (Kind::HeartbeatResponse, message.term);
                let context = message.context.clone();
                let answer =
                    Message { term, context, ..Message::new(kind, message.to, message.from) };
                // No link is needed for it.
                if let Some(port) = self.ports.get_mut(&letter.from) {
                    port.arrives(Arrived::Word { from: letter.to, word: Word::Raft(answer) });
                }
                return;
            }
            _ => return,
        };
        let answer = Message {
            term: message.term,
            index: Index(message.index.0 + message.entries.len() as u64),
            context: message.context.clone(),
            ..Message::new(kind, message.to, message.from)
        };
        let (from, to) = (letter.to, letter.from);
        let boot = self.newest_boots.get(&(from, to)).copied().unwrap_or(0);
        self.sent += 1;
        let letter = Letter { from, boot, to, word: Word::Raft(answer), orphan: false };
        self.mail.insert((now, self.sent), letter);
        self.wake_courier();
    }

    fn note(&mut self, message: &Message) {
        self.see(match message.kind {
            Kind::Propose => "a proposal that was forwarded",
            Kind::TimeoutNow => "a lead that was handed over",
            Kind::ReadIndex => "a read that asked the leader",
            Kind::AppendResponse if message.reject => "a log that did not fit the leader's",
            Kind::Vote => "a vote that was asked for",
            _ => return,
        });
    }

    /// Whoever sends may notice that it did not arrive.
    fn report(&mut self, letter: &Letter) {
        if matches!(letter.word, Word::Raft(_)) && self.lot.one_in(2) {
            self.tell(letter.from, FromPeer::Unreachable(MemberId(letter.to)));
        }
    }

    fn deliver(&mut self, now: Duration, letter: Letter) {
        let (from, to) = (letter.from, letter.to);
        if self.is_cut(from, to) || !self.ports.contains_key(&to) {
            return self.lose(now, &letter);
        }
        let newest = self.newest_boots.entry((from, to)).or_default();
        if letter.boot < *newest {
            return;
        }
        *newest = letter.boot;
        let port = self.ports.get_mut(&to).expect("looked at above");
        if port.removed.contains(&from) {
            return self.tell(from, FromPeer::Removed);
        }
        port.arrives(Arrived::Word { from, word: letter.word });
    }

    fn tell(&mut self, member: u64, news: FromPeer) {
        if let Some(port) = self.ports.get_mut(&member) {
            port.arrives(Arrived::News(news));
        }
    }

    fn wake_courier(&mut self) {
        if let Some(waker) = self.courier.take() {
            waker.wake();
        }
    }

    fn heal(&mut self, now: Duration) {
        let storm = !self.cut.is_empty() || !self.slow.is_empty();
        self.told.extend(storm.then(|| (now, "links are whole".into())));
        self.cut.clear();
        self.slow.clear();
        self.touch();
    }

    fn blow(&mut self, now: Duration, leader: Option<u64>) {
        let all: Vec<u64> = self.ports.keys().copied().collect();
        if all.len() < 2 {
            return;
        }
        let some = all[self.lot.below(all.len() as u64) as usize];
        let other = all[self.lot.below(all.len() as u64) as usize];
        let side: BTreeSet<u64> = all.iter().copied().filter(|_| self.lot.one_in(2)).collect();
        let kind = self.lot.below(6);
        let is_cut = |from: u64, to: u64| match kind {
            0 => [from, to].contains(&leader.unwrap_or(some)),
            1 => side.contains(&from) != side.contains(&to),
            2 => (from, to) == (some, other),
            3 => from == some,
            4 => true,
            _ => false,
        };
        let links = all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to)));
        for (from, to) in links.filter(|(from, to)| from != to) {
            if is_cut(from, to) {
                self.cut.insert((from, to));
            } else if kind == 5 && self.lot.one_in(2) {
                self.slow.insert((from, to), self.winds.storm.as_micros() as u64 / 10);
            }
        }
        let sight = [
            "a leader that was alone",
            "a cluster in two parts",
            "a link that was cut one way",
            "a member that nobody heard",
            "a network that was down",
            "links that were slow",
        ][kind as usize];
        self.see(sight);
        let cut = self.cut.iter().map(|(from, to)| format!("{from:x} to {to:x}"));
        self.told.push((now, format!("{sight}; cut: {}", cut.collect::<Vec<_>>().join(", "))));
        self.touch();
    }

    /// Contacts begin and end with ports and links.
    fn touch(&mut self) {
        let all: Vec<u64> = self.ports.keys().copied().collect();
        let pairs = all.iter().flat_map(|one| all.iter().map(move |other| (*one, *other)));
        let whole = |(one, other): &(u64, u64)| {
            one < other && !self.is_cut(*one, *other) && !self.is_cut(*other, *one)
        };
        let contacts: BTreeSet<_> = pairs.filter(whole).collect();
        let before = std::mem::replace(&mut self.contacts, contacts.clone());
        for (pairs, connected) in [(&before - &contacts, false), (&contacts - &before, true)] {
            for (one, other) in pairs {
                for (member, of) in [(one, other), (other, one)] {
                    let contact = FromPeer::Contact { member: MemberId(of), connected };
                    self.tell(member, contact);
                }
            }
        }
    }
}

impl Port {
    fn arrives(&mut self, arrived: Arrived) {
        self.inbox.push_back(arrived);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
