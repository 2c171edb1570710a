//! Connections that are lost while others work: what was open on them has failed, and they are made
//! again elsewhere, so that nobody is held up.

use std::{io, sync::mpsc, thread, time::Duration};

use super::Engine;
use crate::{
    client::{Dialed, dial},
    grpc::{Status, code},
    h2::Window,
    link::{Failure, Link},
    script::Script,
};

/// A link that is lost is tried again after this time.
const RETRY: Duration = Duration::from_millis(100);
/// How long one try may take.
const TRY: Duration = Duration::from_secs(2);
/// With no link at all for so long, the run is over.
const ALONE_MAX: Duration = Duration::from_secs(10);

/// A connection that somebody tried to make, and whose it is.
type Dial = (usize, io::Result<Dialed>);

/// What is lost.
pub(super) struct Lost {
    /// Connections.
    count: usize,
    /// Since when all are.
    alone_since: Option<Duration>,
    /// Why the last one was.
    by: String,
    dials: (mpsc::Sender<Dial>, mpsc::Receiver<Dial>),
}

impl Default for Lost {
    fn default() -> Self {
        Self { count: 0, alone_since: None, by: String::new(), dials: mpsc::channel() }
    }
}

impl Lost {
    /// Why the run is over, where nobody is left to ask.
    pub(super) fn alone(&self, now: Duration) -> Option<String> {
        let by = &self.by;
        self.alone_since
            .filter(|since| now > *since + ALONE_MAX)
            .map(|_| format!("no endpoint could be reached for {} s: {by}", ALONE_MAX.as_secs()))
    }

    /// The same of a run that ends now.
    pub(super) fn alone_in_the_end(&self) -> Option<String> {
        let by = &self.by;
        self.alone_since.map(|_| format!("no endpoint could be reached in the end: {by}"))
    }
}

impl<S: Script> Engine<'_, S> {
    /// A connection is gone, and what was open on it has failed.
    pub(super) fn lose(&mut self, at: usize, failure: &Failure, now: Duration) {
        if self.askers[at].link.take().is_none() {
            return;
        }
        self.lost.count += 1;
        self.askers[at].retry_at = now + RETRY;
        self.lost.by = failure.to_string();
        if self.lost.count == self.askers.len() {
            self.lost.alone_since = Some(now);
        }
        if let Some(due) = &mut self.due {
            due.free.retain(|(of, _)| *of != at);
        }
        let status = Status::new(code::UNAVAILABLE, format!("connection lost: {failure}"));
        for seat in 0..self.askers[at].seats.len() {
            if self.askers[at].seats[seat].busy {
                self.script.failed(at * self.plan.streams + seat);
                self.over(at, seat, now, Err(status.clone()));
            }
        }
    }

    /// Takes the connections that were made meanwhile, and has others made: not here, where it would
    /// hold up those that work.
    pub(super) fn reconnect(&mut self, now: Duration) -> Result<(), Failure> {
        while let Ok((at, dialed)) = self.lost.dials.1.try_recv() {
            self.askers[at].dialing = false;
            match dialed {
                Ok(dialed) => self.found(at, dialed, now)?,
                Err(error) => {
                    self.lost.by = error.to_string();
                    self.askers[at].retry_at = now + RETRY;
                }
            }
        }
        for (at, asker) in self.askers.iter_mut().enumerate() {
            if asker.link.is_none() && !asker.dialing && now >= asker.retry_at {
                asker.dialing = true;
                let (told, endpoint) =
                    (self.lost.dials.0.clone(), &self.plan.endpoints[asker.endpoint]);
                let endpoint = endpoint.clone();
                // Nobody listens any more once the run is over.
                thread::spawn(move || told.send((at, dial(&endpoint, Window::Wide, TRY))).ok());
            }
        }
        Ok(())
    }

    fn found(&mut self, at: usize, dialed: Dialed, now: Duration) -> Result<(), Failure> {
        let asker = &mut self.askers[at];
        asker.link = Some(Link::new(dialed, &self.poll, at)?);
        asker.heard = now;
        self.lost.count -= 1;
        self.lost.alone_since = None;
        match &mut self.due {
            Some(due) => due.free_up((0..asker.seats.len()).map(|seat| (at, seat)), now),
            None => self.begin_all(at, now)?,
        }
        Ok(())
    }
}
