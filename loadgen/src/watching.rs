//! Watches that are open beside a load, on a thread and connections of their own: they count events,
//! so that the server has somebody to send them to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use proto::etcdserverpb::{
    WatchCreateRequest, WatchRequest, watch as method, watch_request::RequestUnion,
};

use crate::{
    grpc::{self, Status, Verdict, code},
    h2::{Event, Window},
    link::{Failure, Link, PATIENCE, READ_BYTES_MAX},
    notice, ops,
    poll::Poll,
};

/// How often is looked whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// Watches at work.
pub struct Watching {
    told: Arc<Told>,
    thread: JoinHandle<Result<(), Failure>>,
}

/// What the two threads tell each other.
#[derive(Default)]
struct Told {
    stop: AtomicBool,
    events: AtomicU64,
}

/// One stream, with one watcher.
#[derive(Default)]
struct Ear {
    held: Vec<u8>,
    verdict: Verdict,
}

struct Listener {
    link: Link,
    ears: Vec<Ear>,
}

impl Watching {
    /// Opens so many watchers of each prefix, dealt to the endpoints in turn, and waits until they
    /// are there.
    ///
    /// # Errors
    /// An endpoint that cannot be reached; a watch that is refused.
    pub fn start(endpoints: &[String], prefixes: &[String], each: usize) -> Result<Self, Failure> {
        let mut ears = Ears::connect(endpoints, prefixes, each)?;
        let told: Arc<Told> = Arc::default();
        let tell = Arc::clone(&told);
        let thread = thread::spawn(move || {
            while !tell.stop.load(Ordering::Relaxed) {
                ears.turn()?;
                tell.events.store(ears.events, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { told, thread })
    }

    /// How many events came.
    pub fn events(&self) -> u64 {
        self.told.events.load(Ordering::Relaxed)
    }

    /// Ends the watches; how many events came.
    ///
    /// # Errors
    /// A watch that ended by itself.
    ///
    /// # Panics
    /// Where the watching thread did.
    pub fn finish(self) -> Result<u64, Failure> {
        self.told.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("watching does not panic")?;
        Ok(self.told.events.load(Ordering::Relaxed))
    }
}

struct Ears {
    poll: Poll,
    listeners: Vec<Listener>,
    buffer: Box<[u8]>,
    created: usize,
    events: u64,
}

impl Ears {
    fn connect(endpoints: &[String], prefixes: &[String], each: usize) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let mut listeners = Vec::new();
        for (token, endpoint) in endpoints.iter().enumerate() {
            let mut link = Link::connect(endpoint, Window::Wide, &poll, token)?;
            let head = link.head(method::WATCH);
            let mut ears = Vec::new();
            for prefix in prefixes {
                for _ in (token..each).step_by(endpoints.len()) {
                    let stream = link.connection.open(ears.len(), &head)?;
                    link.connection.send(stream, &grpc::body(&create(prefix)));
                    ears.push(Ear::default());
                }
            }
            link.flush(&poll)?;
            listeners.push(Listener { link, ears });
        }
        let buffer = vec![0; READ_BYTES_MAX].into();
        let mut all = Self { poll, listeners, buffer, created: 0, events: 0 };
        let begin = Instant::now();
        while all.created < prefixes.len() * each {
            if begin.elapsed() > PATIENCE {
                return Err(Failure::Wrong("watches are not created".into()));
            }
            all.turn()?;
        }
        Ok(all)
    }

    fn turn(&mut self) -> Result<(), Failure> {
        for token in self.poll.wait(LOOK)? {
            let Self { listeners, buffer, created, events, .. } = self;
            let Listener { link, ears } = &mut listeners[token];
            let mut over = None;
            link.read(buffer, |tag, event| {
                over = over.take().or(ears[tag].on(event, created, events).err());
            })?;
            if let Some(over) = over {
                return Err(over.into());
            }
            link.flush(&self.poll)?;
        }
        Ok(())
    }
}

impl Ear {
    fn on(
        &mut self,
        event: Event<'_>,
        created: &mut usize,
        events: &mut u64,
    ) -> Result<(), Status> {
        match event {
            Event::Headers(fields) => self.verdict.add(fields),
            Event::Data(bytes) => {
                let mut canceled = false;
                grpc::each_message(&mut self.held, bytes, |message| {
                    let notice = notice::watch(message, |_, _| *events += 1);
                    *created += usize::from(notice.created);
                    canceled |= notice.canceled;
                })?;
                if canceled {
                    return Err(Status::new(code::UNKNOWN, "a watch was cancelled"));
                }
            }
            Event::End => {
                let ended = Status::new(code::UNKNOWN, "a watch stream ended by itself");
                return Err(self.verdict.read().err().unwrap_or(ended));
            }
            Event::Reset(code) => return Err(grpc::reset(code)),
        }
        Ok(())
    }
}

fn create(prefix: &str) -> WatchRequest {
    let key = prefix.to_owned().into();
    let range_end = ops::end(prefix.as_bytes());
    let create = WatchCreateRequest { key, range_end, ..Default::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}
