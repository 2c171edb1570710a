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
    mem,
    time::{Duration, Instant},
};

use crate::{
    grpc::{self, Status, Verdict},
    h2::{Event, Window},
    link::{Failure, Link, PATIENCE, READ_BYTES_MAX},
    poll::Poll,
    report::{CpuUse, Report, Tally},
    work::Work,
};

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
    /// `host:port` of each member; connections are dealt to them in turn.
    pub endpoints: Vec<String>,
    /// Connections, at least 1.
    pub connections: usize,
    /// Calls open at a time on each connection, at least 1.
    pub streams: usize,
    /// When to stop.
    pub until: Until,
    /// The servers' processes, where their CPU time is wanted: the sum.
    pub pids: Vec<u32>,
}

/// Runs a plan and says what came of it. Calls that fail are counted; a lost connection ends the
/// run.
pub fn run(plan: &Plan, work: Work) -> Result<Report, Failure> {
    let mut engine = Engine::connect(plan, work)?;
    let before = CpuUse::now(plan.pids.iter().copied())?;
    engine.clock = Instant::now();
    for at in 0..plan.connections {
        engine.start(at)?;
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
    let cpu = CpuUse::now(plan.pids.iter().copied())?.since(&before);
    let tally = mem::take(&mut engine.tally);
    engine.calls_left = 0;
    while engine.open > 0 {
        engine.turn(PATIENCE)?;
    }
    Ok(Report { elapsed, cpu, tally, connections: plan.connections, streams: plan.streams })
}

/// One connection and its calls, which are known by their slot.
struct Asker {
    link: Link,
    slots: Vec<Slot>,
}

/// One call that is open.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) began: Duration,
    bytes: usize,
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
            return Err(Status::new(grpc::code::OK, "an answer without what was asked for"));
        }
        Ok(())
    }
}

struct Engine {
    askers: Vec<Asker>,
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
        assert!(!plan.endpoints.is_empty(), "somebody must be asked");
        let poll = Poll::new()?;
        let mut askers = Vec::new();
        let mut head = Vec::new();
        for token in 0..plan.connections {
            let endpoint = &plan.endpoints[token % plan.endpoints.len()];
            let link = Link::connect(endpoint, Window::Wide, &poll, token)?;
            head = link.head(work.path());
            let slots = (0..plan.streams).map(|_| Slot::default()).collect();
            askers.push(Asker { link, slots });
        }
        let calls_left = match plan.until {
            Until::Elapsed(_) => u64::MAX,
            Until::Calls(calls) => calls,
        };
        Ok(Self {
            askers,
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
    fn start(&mut self, at: usize) -> Result<(), Failure> {
        let now = self.clock.elapsed();
        for slot in 0..self.askers[at].slots.len() {
            self.ask(at, slot, now)?;
        }
        self.askers[at].link.flush(&self.poll)
    }

    /// Opens a slot's next call, if there is another to make.
    fn ask(&mut self, at: usize, slot: usize, now: Duration) -> Result<(), Failure> {
        if self.calls_left == 0 {
            return Ok(());
        }
        let asker = &mut self.askers[at];
        asker.slots[slot] = Slot::new(now);
        asker.link.connection.request(slot, &self.head, self.work.body())?;
        self.calls_left -= 1;
        self.open += 1;
        Ok(())
    }

    /// Waits once, at most `time`, and serves the links that are ready.
    fn turn(&mut self, time: Duration) -> Result<(), Failure> {
        for at in self.poll.wait(time.min(PATIENCE))? {
            self.serve(at)?;
        }
        if self.clock.elapsed() > self.heard + PATIENCE {
            return Err(Failure::Stalled(self.open));
        }
        Ok(())
    }

    fn serve(&mut self, at: usize) -> Result<(), Failure> {
        let Asker { link, slots } = &mut self.askers[at];
        let ended = &mut self.ended;
        let read = link.read(&mut self.buffer, |slot, event| {
            if slots[slot].on(event) {
                ended.push(slot);
            }
        })?;
        // One look at the clock for all that came together.
        let now = self.clock.elapsed();
        if read > 0 {
            self.heard = now;
        }
        let mut ended = mem::take(&mut self.ended);
        for slot in ended.drain(..) {
            let done = &self.askers[at].slots[slot];
            self.tally.add(now - done.began, done.outcome(self.work.answer_bytes_min()));
            self.open -= 1;
            self.ask(at, slot, now)?;
        }
        self.ended = ended;
        self.askers[at].link.flush(&self.poll)
    }
}
