//! Load: one thread keeps every stream of every connection busy with one call at a time.
//!
//! ```text
//!   wait ──► read one link ──► note what ended ──► ask again on those streams ──► one write
//!    ▲                                                                              │
//!    └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The loop is closed: a stream asks again only when it has its answer, so a slow server is asked
//! less, and the latencies say nothing of what an open world would have waited.

use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    mem,
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    client::{Dialed, dial},
    grpc::{self, Status, Verdict},
    h2::{Broken, Connection, Event},
    poll::Poll,
    report::{CpuUse, Report, Tally},
    work::Work,
};

/// Longer than any server should take to accept, or to answer anybody at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// Read from one connection before its answers are looked at.
const READ_BYTES_MAX: usize = 1 << 18;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time. Calls still open then are waited for, and not counted.
    Elapsed(Duration),
    /// After so many calls.
    Calls(u64),
}

/// How hard to ask, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port`.
    pub endpoint: String,
    /// Connections, at least 1.
    pub connections: usize,
    /// Calls open at a time on each connection, at least 1.
    pub streams: usize,
    /// When to stop.
    pub until: Until,
    /// The server's process, where its CPU time is wanted.
    pub pid: Option<u32>,
}

/// Why there is no report.
#[derive(Debug)]
pub enum Failure {
    /// A connection could not be made, or was lost.
    Io(io::Error),
    /// A connection cannot be used any more.
    Broken(Broken),
    /// So many calls were open, and no bytes came for 30 seconds.
    Stalled(usize),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Broken(broken) => write!(f, "{broken}"),
            Self::Stalled(open) => write!(f, "{open} calls are open and no answer comes"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// Runs a plan and says what came of it. Calls that fail are counted; a lost connection ends the
/// run.
pub fn run(plan: &Plan, work: Work) -> Result<Report, Failure> {
    let mut engine = Engine::connect(plan, work)?;
    let before = CpuUse::now(plan.pid)?;
    engine.clock = Instant::now();
    for link in 0..plan.connections {
        engine.start(link)?;
    }
    match plan.until {
        Until::Elapsed(time) => loop {
            let left = time.saturating_sub(engine.clock.elapsed());
            if left.is_zero() {
                break;
            }
            engine.turn(left)?;
        },
        Until::Calls(_) => {
            while engine.open > 0 {
                engine.turn(PATIENCE)?;
            }
        }
    }
    let elapsed = engine.clock.elapsed();
    let cpu = CpuUse::now(plan.pid)?.since(&before);
    let tally = mem::take(&mut engine.tally);
    engine.calls_left = 0;
    while engine.open > 0 {
        engine.turn(PATIENCE)?;
    }
    Ok(Report { elapsed, cpu, tally, connections: plan.connections, streams: plan.streams })
}

/// One connection and its calls, which are known by their slot.
struct Link {
    socket: TcpStream,
    connection: Connection,
    slots: Vec<Slot>,
    /// The socket would take no more; we are told when it does.
    full: bool,
}

/// One call that is open.
#[derive(Default)]
struct Slot {
    began: Duration,
    bytes: usize,
    verdict: Verdict,
    reset: Option<u32>,
}

impl Slot {
    fn outcome(&self, bytes_min: usize) -> Result<(), Status> {
        if let Some(code) = self.reset {
            return Err(grpc::reset(code));
        }
        self.verdict.read()?;
        if self.bytes < bytes_min {
            return Err(Status::new(grpc::code::OK, "an answer without what was asked for"));
        }
        Ok(())
    }
}

struct Engine {
    links: Vec<Link>,
    poll: Poll,
    work: Work,
    head: Vec<u8>,
    clock: Instant,
    /// When bytes last came.
    heard: Duration,
    tally: Tally,
    open: usize,
    calls_left: u64,
    buffer: Box<[u8]>,
    ended: Vec<usize>,
}

impl Engine {
    fn connect(plan: &Plan, work: Work) -> Result<Self, Failure> {
        assert!(plan.connections > 0 && plan.streams > 0, "somebody must ask");
        let poll = Poll::new()?;
        let mut links = Vec::new();
        let mut head = Vec::new();
        for token in 0..plan.connections {
            let Dialed { socket, connection, authority } = dial(&plan.endpoint, PATIENCE)?;
            socket.set_nonblocking(true)?;
            poll.add(&socket, token)?;
            head = grpc::head(work.path(), &authority);
            let slots = (0..plan.streams).map(|_| Slot::default()).collect();
            links.push(Link { socket, connection, slots, full: false });
        }
        let calls_left = match plan.until {
            Until::Elapsed(_) => u64::MAX,
            Until::Calls(calls) => calls,
        };
        Ok(Self {
            links,
            poll,
            work,
            head,
            clock: Instant::now(),
            heard: Duration::ZERO,
            tally: Tally::default(),
            open: 0,
            calls_left,
            buffer: vec![0; READ_BYTES_MAX].into(),
            ended: Vec::new(),
        })
    }

    /// The first call of every slot of a link.
    fn start(&mut self, link: usize) -> Result<(), Failure> {
        let now = self.clock.elapsed();
        for slot in 0..self.links[link].slots.len() {
            self.ask(link, slot, now)?;
        }
        self.flush(link)
    }

    /// Opens a slot's next call, if there is another to make.
    fn ask(&mut self, link: usize, slot: usize, now: Duration) -> Result<(), Failure> {
        if self.calls_left == 0 {
            return Ok(());
        }
        let link = &mut self.links[link];
        link.slots[slot] = Slot { began: now, ..Slot::default() };
        link.connection.request(slot, &self.head, self.work.body())?;
        self.calls_left -= 1;
        self.open += 1;
        Ok(())
    }

    /// Waits once, at most `time`, and serves the links that are ready.
    fn turn(&mut self, time: Duration) -> Result<(), Failure> {
        for link in self.poll.wait(time.min(PATIENCE))? {
            self.serve(link)?;
        }
        if self.clock.elapsed() > self.heard + PATIENCE {
            return Err(Failure::Stalled(self.open));
        }
        Ok(())
    }

    fn serve(&mut self, at: usize) -> Result<(), Failure> {
        let Link { socket, connection, slots, .. } = &mut self.links[at];
        let read = match socket.read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Ok(0) => {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed by the server").into());
            }
            read => read?,
        };
        // One look at the clock for all that came together.
        let now = self.clock.elapsed();
        if read > 0 {
            self.heard = now;
        }
        connection.receive(&self.buffer[..read], |slot, event| match event {
            Event::Headers(fields) => slots[slot].verdict.add(fields),
            Event::Data(bytes) => slots[slot].bytes += bytes.len(),
            Event::End => self.ended.push(slot),
            Event::Reset(code) => {
                slots[slot].reset = Some(code);
                self.ended.push(slot);
            }
        })?;
        let mut ended = mem::take(&mut self.ended);
        for slot in ended.drain(..) {
            let done = &self.links[at].slots[slot];
            self.tally.add(now - done.began, done.outcome(self.work.answer_bytes_min()));
            self.open -= 1;
            self.ask(at, slot, now)?;
        }
        self.ended = ended;
        self.flush(at)
    }

    /// Writes all that a link has to say, as far as its socket takes it.
    fn flush(&mut self, at: usize) -> Result<(), Failure> {
        let Link { socket, connection, full, .. } = &mut self.links[at];
        while !connection.out().is_empty() {
            match socket.write(connection.out()) {
                Ok(sent) => connection.sent(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let is_full = !connection.out().is_empty();
        if mem::replace(full, is_full) != is_full {
            self.poll.watch_writable(socket, at, is_full)?;
        }
        Ok(())
    }
}
