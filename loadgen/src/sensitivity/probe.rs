//! How long until somebody accepts a write again.
//!
//! A write that was sent while there is no leader may be refused, or lost with the leader that it was
//! passed on to, and then its client waits for long. So one is sent every few milliseconds, whatever became of
//! those before, and the first that is answered well ends it.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    client::dial,
    engine::Slot,
    h2::Window,
    interrupt,
    keys::Order,
    link::{Failure, Link, READ_BYTES_MAX},
    poll::Poll,
    work::{Call, Work},
};

/// Between two writes: what the answer may be off by.
const EVERY: Duration = Duration::from_millis(10);
/// Writes open on a connection; the oldest is given up for a newer one. Each has two seconds.
const OPEN_MAX: usize = 200;
/// How long a member that starts may take to greet.
const GREETING_MAX: Duration = Duration::from_millis(200);

/// Connections to those that are asked.
pub(super) struct Probe {
    poll: Poll,
    members: Vec<Asked>,
    work: Work,
    buffer: Box<[u8]>,
}

/// One member.
struct Asked {
    endpoint: String,
    link: Option<(Link, Vec<u8>)>,
    /// Streams by the write's number, modulo.
    open: Vec<Option<(u32, Slot)>>,
}

impl Probe {
    /// Connects to those that are there.
    pub(super) fn new(endpoints: Vec<String>) -> io::Result<Self> {
        let open = || (0..OPEN_MAX).map(|_| None).collect();
        let member = |endpoint| Asked { endpoint, link: None, open: open() };
        let mut probe = Self {
            poll: Poll::new()?,
            members: endpoints.into_iter().map(member).collect(),
            work: Work::new(Call::Put, Order::Sequential, 1_000, 16),
            buffer: vec![0; READ_BYTES_MAX].into(),
        };
        probe.connect();
        Ok(probe)
    }

    fn connect(&mut self) {
        let path = self.work.path();
        for (token, member) in self.members.iter_mut().enumerate() {
            if member.link.is_none()
                && let Ok(dialed) = dial(&member.endpoint, Window::Wide, GREETING_MAX)
                && let Ok(link) = Link::new(dialed, &self.poll, token)
            {
                let head = link.head(path);
                member.link = Some((link, head));
                member.open.iter_mut().for_each(|open| *open = None);
            }
        }
    }

    /// From `since` until a write was accepted; none within the limit.
    pub(super) fn first_write(
        &mut self,
        since: Instant,
        limit: Duration,
    ) -> io::Result<Option<Duration>> {
        for number in 0.. {
            if interrupt::asked() || since.elapsed() > limit {
                break;
            }
            self.connect();
            let body = self.work.body().to_vec();
            for member in &mut self.members {
                member.send(number % OPEN_MAX, &body, &self.poll);
            }
            let next = Instant::now() + EVERY;
            while Instant::now() < next {
                let left = next.saturating_duration_since(Instant::now());
                for at in self.poll.wait(left)? {
                    if self.members[at].hears(&mut self.buffer, &self.poll) {
                        return Ok(Some(since.elapsed()));
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Asked {
    fn send(&mut self, number: usize, body: &[u8], poll: &Poll) {
        let Some((link, head)) = &mut self.link else { return };
        if let Some((oldest, _)) = self.open[number].take() {
            link.connection.cancel(oldest);
        }
        // A server that takes no more streams gets the next when it has answered one.
        if let Ok(stream) = link.connection.request(number, head, body) {
            self.open[number] = Some((stream, Slot::new(Duration::ZERO)));
        }
        self.flush(poll);
    }

    fn flush(&mut self, poll: &Poll) {
        if let Some((link, _)) = &mut self.link
            && link.flush(poll).is_err()
        {
            self.link = None;
        }
    }

    /// Whether one was answered well.
    fn hears(&mut self, buffer: &mut [u8], poll: &Poll) -> bool {
        let Self { link, open, .. } = self;
        let Some((connection, _)) = link else { return false };
        let mut accepted = false;
        let read: Result<usize, Failure> = connection.read(buffer, |number, event| {
            if let Some((_, slot)) = &mut open[number]
                && slot.on(event)
            {
                accepted |= slot.outcome(1).is_ok();
                open[number] = None;
            }
        });
        match read {
            Ok(_) => self.flush(poll),
            Err(_) => self.link = None,
        }
        accepted
    }
}
