//! Puts beside another load, on a connection of their own: as fast as they are answered, or so many
//! a second.

use std::time::Duration;

use crate::{
    engine::Slot,
    h2::Window,
    hdrlog::LoggedTally,
    link::{Failure, Link},
    poll::Poll,
    work::{Call, Order, Work},
};

/// How the puts come.
#[derive(Clone, Copy, Debug)]
pub struct Puts {
    /// Open at a time, at least 1.
    pub writers: usize,
    /// A second; none: each writer puts again when it is answered.
    pub rate: Option<u64>,
    /// Different keys.
    pub keys: u64,
    /// Bytes of a value, at least 8: it begins with when it was put.
    pub value_bytes: usize,
}

pub(crate) struct Writers {
    link: Link,
    head: Vec<u8>,
    work: Work,
    slots: Vec<Slot>,
    free: Vec<usize>,
    ended: Vec<usize>,
    /// Between two puts, where they have a rate.
    interval: Option<Duration>,
    due: Duration,
    /// A put was due while no writer was free.
    late: bool,
    pub(crate) tally: LoggedTally,
}

impl Writers {
    pub(crate) fn connect(
        endpoint: &str,
        puts: &Puts,
        poll: &Poll,
        token: usize,
    ) -> Result<Self, Failure> {
        assert!(puts.writers > 0 && puts.value_bytes >= 8, "somebody puts a time");
        let link = Link::connect(endpoint, Window::Wide, poll, token)?;
        let work = Work::new(Call::Put, Order::Random, puts.keys, puts.value_bytes);
        Ok(Self {
            head: link.head(work.path()),
            link,
            work,
            slots: (0..puts.writers).map(|_| Slot::default()).collect(),
            free: (0..puts.writers).collect(),
            ended: Vec::new(),
            interval: puts.rate.map(|rate| Duration::from_secs(1) / rate.max(1) as u32),
            due: Duration::ZERO,
            late: false,
            tally: LoggedTally::default(),
        })
    }

    /// Puts what is due, from now on.
    pub(crate) fn start(&mut self, now: Duration, poll: &Poll) -> Result<(), Failure> {
        (self.due, self.late) = (now, false);
        self.ask(now, poll)
    }

    /// Puts what is due. A put that had to wait for a writer began when it was due.
    pub(crate) fn ask(&mut self, now: Duration, poll: &Poll) -> Result<(), Failure> {
        while self.interval.is_none() || self.due <= now {
            let Some(slot) = self.free.pop() else {
                self.late = true;
                break;
            };
            let began = match self.interval {
                Some(_) if self.late => self.due,
                _ => now,
            };
            self.due += self.interval.unwrap_or_default();
            self.slots[slot] = Slot::new(began);
            let body = self.work.stamped_body(now.as_nanos() as u64);
            self.link.connection.request(slot, &self.head, body)?;
        }
        self.late &= self.due <= now;
        self.link.flush(poll)
    }

    /// When the next put is due, where there is a writer for it.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.interval.filter(|_| !self.free.is_empty()).map(|_| self.due)
    }

    /// Hears what was answered by `now`.
    pub(crate) fn hear(
        &mut self,
        buffer: &mut [u8],
        now: impl Fn() -> Duration,
    ) -> Result<usize, Failure> {
        let Self { link, slots, ended, tally, free, work, .. } = self;
        let read = link.read(buffer, |slot, event| {
            if slots[slot].on(event) {
                ended.push(slot);
            }
        })?;
        let now = now();
        for slot in ended.drain(..) {
            tally.add(now - slots[slot].began, slots[slot].outcome(work.answer_bytes_min()));
            free.push(slot);
        }
        Ok(read)
    }

    /// Writes what waits, without putting more.
    pub(crate) fn flush(&mut self, poll: &Poll) -> Result<(), Failure> {
        self.link.flush(poll)
    }

    /// Puts without an answer yet.
    pub(crate) fn open(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
