//! Watches that are open beside a load, on a thread and connections of their own, so that the server
//! has somebody to send its events to: how many come, and how long after their puts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use proto::etcdserverpb::watch as method;

use crate::{
    ear::{self, Ear, Heard},
    h2::Window,
    link::{Failure, Link, PATIENCE, READ_BYTES_MAX},
    poll::Poll,
};

/// How often is looked whether it is over.
const LOOK: Duration = Duration::from_millis(100);
/// A revision that no event has.
const NEVER: i64 = i64::MAX;

/// Watches that are there.
pub struct Watches {
    poll: Poll,
    listeners: Vec<Listener>,
    buffer: Box<[u8]>,
    clock: Instant,
    heard: Heard,
}

struct Listener {
    link: Link,
    ears: Vec<Ear>,
}

/// Watches at work.
pub struct Watching {
    /// When all watchers have this revision, it is over.
    until: Arc<AtomicI64>,
    thread: JoinHandle<Result<Heard, Failure>>,
}

impl Watches {
    /// Opens so many watchers of each prefix, dealt to the endpoints in turn, and waits until they
    /// are there.
    ///
    /// # Errors
    /// An endpoint that cannot be reached; a watch that is refused.
    pub fn open(endpoints: &[String], prefixes: &[String], each: usize) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let mut listeners = Vec::new();
        for (token, endpoint) in endpoints.iter().enumerate() {
            let mut link = Link::connect(endpoint, Window::Wide, &poll, token)?;
            let head = link.head(method::WATCH);
            let mut ears = Vec::new();
            for prefix in prefixes {
                let create = ear::create(prefix, false);
                for _ in (token..each).step_by(endpoints.len()) {
                    ears.push(Ear::open(&mut link, ears.len(), &head, &create, 1, true)?);
                }
            }
            link.flush(&poll)?;
            listeners.push(Listener { link, ears });
        }
        let (buffer, clock) = (vec![0; READ_BYTES_MAX].into(), Instant::now());
        let mut all = Self { poll, listeners, buffer, clock, heard: Heard::default() };
        while all.heard.created < prefixes.len() * each {
            if clock.elapsed() > PATIENCE {
                return Err(Failure::Wrong("watches are not created".into()));
            }
            all.turn()?;
        }
        Ok(all)
    }

    /// Listens. Values may begin with when they were put, by this clock; what was put or came before
    /// `from` is not counted.
    pub fn listen(mut self, clock: Instant, from: Duration) -> Watching {
        (self.clock, self.heard.from) = (clock, from);
        let until = Arc::new(AtomicI64::new(NEVER));
        let told = Arc::clone(&until);
        let thread = thread::spawn(move || self.hear(&told));
        Watching { until, thread }
    }

    fn hear(mut self, until: &AtomicI64) -> Result<Heard, Failure> {
        let mut deadline = None;
        loop {
            let revision = until.load(Ordering::Relaxed);
            let behind = self.ears().filter(|ear| !ear.is_at(revision)).count();
            if behind == 0 {
                // The last one ends the run and is no part of it.
                self.heard.events -= if revision > 0 { self.ears().count() as u64 } else { 0 };
                return Ok(self.heard);
            }
            let now = self.clock.elapsed();
            if revision < NEVER && now > *deadline.get_or_insert(now + PATIENCE) {
                return Err(Failure::Wrong(format!(
                    "{behind} watchers did not get revision {revision}"
                )));
            }
            self.turn()?;
        }
    }

    fn ears(&self) -> impl Iterator<Item = &Ear> {
        self.listeners.iter().flat_map(|listener| &listener.ears)
    }

    fn turn(&mut self) -> Result<(), Failure> {
        for token in self.poll.wait(LOOK)? {
            let Self { listeners, buffer, clock, heard, .. } = self;
            let Listener { link, ears } = &mut listeners[token];
            let mut now = None;
            link.read(buffer, |tag, event| {
                let now = *now.get_or_insert_with(|| clock.elapsed());
                ears[tag].on(event, now, heard);
            })?;
            if let Some(over) = ears.iter().find_map(Ear::over) {
                return Err(over.clone().into());
            }
            link.flush(&self.poll)?;
        }
        match self.heard.wrong.take() {
            Some(wrong) => Err(Failure::Wrong(wrong)),
            None => Ok(()),
        }
    }
}

impl Watching {
    /// Ends the watches once each has its event of this revision, which is the last and not counted;
    /// none: at once. What they heard.
    ///
    /// # Errors
    /// A watch that ended by itself, or did not get as far.
    ///
    /// # Panics
    /// Where the watching thread did.
    pub fn finish(self, revision: Option<i64>) -> Result<Heard, Failure> {
        self.until.store(revision.unwrap_or(0), Ordering::Relaxed);
        self.thread.join().expect("watching does not panic")
    }
}
