//! Where an operation is while it is open: a seat of a connection. And which one is next, where
//! operations do not wait for each other.

use std::{collections::VecDeque, time::Duration};

use crate::{
    arrivals::Schedule,
    grpc::{self, Status, Verdict},
    h2::{Broken, Event},
    link::Link,
    script::Ask,
    tally::{Lateness, Tally},
};

/// One connection and its seats, which are known by their number on it.
pub(super) struct Asker {
    /// None while it is lost.
    pub(super) link: Option<Link>,
    /// The header block of each of the script's methods.
    pub(super) heads: Vec<Vec<u8>>,
    pub(super) endpoint: usize,
    pub(super) seats: Vec<Seat>,
    /// When bytes last came, or it was made.
    pub(super) heard: Duration,
    /// A new connection is on its way.
    pub(super) dialing: bool,
    pub(super) retry_at: Duration,
    /// Something waits to be written.
    pub(super) touched: bool,
}

/// A place for one operation.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) call: Slot,
    pub(super) kind: usize,
    /// When it was to begin, and when it did.
    pub(super) due: Duration,
    pub(super) sent: Duration,
    pub(super) answer: Vec<u8>,
    pub(super) busy: bool,
}

/// One call that is open.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) began: Duration,
    pub(super) bytes: usize,
    verdict: Verdict,
    reset: Option<u32>,
}

impl Slot {
    pub(crate) fn new(began: Duration) -> Self {
        Self { began, ..Self::default() }
    }

    /// Takes in what came; whether that was all.
    pub(crate) fn on(&mut self, event: Event<'_>) -> bool {
        match event {
            Event::Headers(fields) => self.verdict.add(fields),
            Event::Data(bytes) => self.bytes += bytes.len(),
            Event::End => return true,
            Event::Reset(code) => {
                self.reset = Some(code);
                return true;
            }
        }
        false
    }

    /// How the call ended; an answer of fewer bytes than this is none.
    pub(crate) fn outcome(&self, bytes_min: usize) -> Result<(), Status> {
        if let Some(code) = self.reset {
            return Err(grpc::reset(code));
        }
        self.verdict.read()?;
        if self.bytes < bytes_min {
            return Err(crate::work::empty_answer());
        }
        Ok(())
    }
}

impl Asker {
    /// Sends a seat's next call.
    pub(super) fn ask(&mut self, seat: usize, ask: Ask<'_>, now: Duration) -> Result<(), Broken> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if link.connection.is_quiet() {
            self.heard = now;
        }
        self.seats[seat].call = Slot::new(now);
        self.seats[seat].answer.clear();
        self.touched = true;
        link.connection.request(seat, &self.heads[ask.path], ask.body).map(drop)
    }
}

/// What is due, and who can take it.
pub(super) struct Due {
    pub(super) schedule: Schedule,
    pub(super) next: Option<Duration>,
    /// Connection and seat, longest free first.
    pub(super) free: VecDeque<(usize, usize)>,
    /// Until then, last, no seat was free: what was due before had to wait for that.
    pub(super) taken_until: Duration,
    pub(super) lateness: Lateness,
    pub(super) service: Tally,
    /// How much later than due those began that did not have to wait: our own doing.
    pub(super) slip: Tally,
}

impl Due {
    /// An operation that was due then begins now.
    pub(super) fn begun(&mut self, due: Duration, now: Duration) {
        let late = now - due;
        if due < self.taken_until {
            self.lateness.add(Some(late));
        } else {
            self.lateness.add(None);
            self.slip.record(late.as_nanos() as u64);
        }
    }

    pub(super) fn free_up(
        &mut self,
        seats: impl IntoIterator<Item = (usize, usize)>,
        now: Duration,
    ) {
        if self.free.is_empty() {
            self.taken_until = now;
        }
        self.free.extend(seats);
    }
}
