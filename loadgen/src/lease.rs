//! Leases kept alive: many streams of keep-alives, each lease in its turn.
//!
//! ```text
//!   stream 0 ── lease 0, 1, 2, 0, 1, ..      so many on their way before the first is answered
//!   stream 1 ── lease 3, 4, 5, 3, ..         answers come in order, so they need no names
//! ```

use std::{
    collections::VecDeque,
    ops::Range,
    time::{Duration, Instant, SystemTime},
};

use proto::etcdserverpb::{LeaseKeepAliveRequest, lease as method};

use crate::{
    cpu::CpuUse,
    engine::{self, Until},
    fanout::Shares,
    grpc::{self, Status, Verdict, code},
    h2::{Event, Window},
    hdrlog::{HdrLog, LoggedTally},
    interrupt,
    link::{Failure, Link, PATIENCE, READ_BYTES_MAX},
    notice,
    poll::Poll,
    report::Report,
    tally::Tallies,
    work::{Call, Order, Work},
};

/// Which leases there are, and who keeps them alive.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port`.
    pub endpoint: String,
    /// Connections, at least 1.
    pub connections: usize,
    /// Keep-alive streams on each connection, at least 1.
    pub streams: usize,
    /// Leases in all, at least one a stream.
    pub leases: usize,
    /// Keep-alives on their way on a stream, at least 1.
    pub depth: usize,
    /// Seconds.
    pub ttl: i64,
    /// Whether each lease has a key.
    pub attach: bool,
    /// How long is renewed, or put, before that counts.
    pub warm_up: Duration,
    /// The server's process, where its CPU time and memory are wanted.
    pub pid: Option<u32>,
}

/// Grants the leases, renews them for this time, and says what that came to; the renewals' latencies
/// are logged, too.
pub fn run(plan: &Plan, time: Duration, hdr_log: Option<HdrLog>) -> Result<Report, Failure> {
    let first = grant(plan)?;
    let poll = Poll::new()?;
    let mut renewals = Renewals::connect(plan, first, &poll, 0)?;
    let mut ready = Ready::new(poll);
    let clock = Instant::now();
    renewals.start(Goal::Forever, Duration::ZERO, &ready.poll)?;
    ready.turn_until(&mut renewals, plan.warm_up, clock)?;
    let (begin, cpu) = (clock.elapsed(), CpuUse::now(plan.pid)?);
    renewals.tally.begin(hdr_log, begin);
    ready.turn_until(&mut renewals, begin + time, clock)?;
    let cut_short = interrupt::asked().then(|| "interrupted".into());
    let (elapsed, cpu) = (clock.elapsed() - begin, CpuUse::now(plan.pid)?.since(&cpu));
    let tally = renewals.tally.take();
    renewals.tally.finish()?;
    // What is answered later is neither counted nor logged.
    renewals.tally = LoggedTally::default();
    renewals.goal = Goal::Nothing;
    while renewals.open > 0 {
        ready.turn(&mut renewals, PATIENCE, clock)?;
    }
    let Plan { connections, streams, .. } = *plan;
    let tallies = Tallies::of("keepalive", tally);
    let (open, counts) = (None, Vec::new());
    let heard = None;
    Ok(Report { elapsed, cpu, tallies, open, heard, counts, connections, streams, cut_short })
}

/// Grants the plan's leases, with ids that no earlier run has taken; returns the first.
pub(crate) fn grant(plan: &Plan) -> Result<i64, Failure> {
    assert!(plan.leases >= plan.connections * plan.streams, "no stream without a lease");
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // No server grants a lease a nanosecond, so no run comes to another's ids.
    let nanos = since.expect("it is after 1970").as_nanos();
    let first = i64::try_from(nanos).expect("it is before 2262");
    each_lease(plan, Call::Grant { first, ttl: plan.ttl })?;
    if plan.attach {
        each_lease(plan, Call::Attach { first })?;
    }
    Ok(first)
}

fn each_lease(plan: &Plan, call: Call) -> Result<(), Failure> {
    let asking = engine::Plan {
        endpoints: vec![plan.endpoint.clone()],
        connections: plan.connections,
        streams: plan.leases.div_ceil(plan.connections).min(64),
        until: Until::Calls(plan.leases as u64),
        pids: Vec::new(),
    };
    let report = engine::run(&asking, Work::new(call, Order::Sequential, plan.leases as u64, 16))?;
    match report.errors().first_key_value() {
        Some((error, calls)) => Err(Failure::Wrong(format!("{calls} times {call:?}: {error}"))),
        None => Ok(()),
    }
}

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Each lease in its turn, without end.
    Forever,
    /// Each lease once.
    Once,
    /// No further keep-alive.
    Nothing,
}

/// One keep-alive stream and its leases.
struct Line {
    stream: u32,
    leases: Range<i64>,
    next: i64,
    /// When the keep-alives on their way were sent, oldest first.
    began: VecDeque<Duration>,
    held: Vec<u8>,
    verdict: Verdict,
}

struct Wire {
    link: Link,
    lines: Vec<Line>,
}

/// All keep-alive streams.
pub(crate) struct Renewals {
    wires: Vec<Wire>,
    first_token: usize,
    depth: usize,
    goal: Goal,
    pub(crate) tally: LoggedTally,
    /// Keep-alives on their way.
    pub(crate) open: usize,
    over: Option<Status>,
    touched: Vec<usize>,
}

impl Renewals {
    /// Opens the streams; the links have tokens from `first_token` on.
    pub(crate) fn connect(
        plan: &Plan,
        first: i64,
        poll: &Poll,
        first_token: usize,
    ) -> Result<Self, Failure> {
        let shares = Shares::new(plan.leases, plan.connections * plan.streams);
        let bound = |part| first + shares.from(part) as i64;
        let mut wires = Vec::new();
        for at in 0..plan.connections {
            let mut link = Link::connect(&plan.endpoint, Window::Wide, poll, first_token + at)?;
            let head = link.head(method::LEASE_KEEP_ALIVE);
            let mut lines = Vec::new();
            for tag in 0..plan.streams {
                let part = at * plan.streams + tag;
                let leases = bound(part)..bound(part + 1);
                lines.push(Line {
                    stream: link.connection.open(tag, &head)?,
                    next: leases.start,
                    leases,
                    began: VecDeque::new(),
                    held: Vec::new(),
                    verdict: Verdict::default(),
                });
            }
            wires.push(Wire { link, lines });
        }
        Ok(Self {
            wires,
            first_token,
            depth: plan.depth,
            goal: Goal::Nothing,
            tally: LoggedTally::default(),
            open: 0,
            over: None,
            touched: Vec::new(),
        })
    }

    /// Sends the first keep-alives of every stream.
    pub(crate) fn start(&mut self, goal: Goal, now: Duration, poll: &Poll) -> Result<(), Failure> {
        self.goal = goal;
        for Wire { link, lines } in &mut self.wires {
            for line in lines {
                line.next = line.leases.start;
                for _ in 0..self.depth {
                    self.open += usize::from(line.ask(goal, link, now));
                }
            }
            link.flush(poll)?;
        }
        Ok(())
    }

    /// Whether the token is one of these links'.
    pub(crate) fn owns(&self, token: usize) -> bool {
        (self.first_token..self.first_token + self.wires.len()).contains(&token)
    }

    /// Hears what was answered on one link, and asks again.
    pub(crate) fn hear(
        &mut self,
        token: usize,
        buffer: &mut [u8],
        now: impl Fn() -> Duration,
        poll: &Poll,
    ) -> Result<usize, Failure> {
        let Self { wires, tally, open, over, goal, touched, first_token, .. } = self;
        let Wire { link, lines } = &mut wires[token - *first_token];
        let mut read_at = None;
        let read = link.read(buffer, |tag, event| {
            let now = *read_at.get_or_insert_with(&now);
            match lines[tag].on(event, now, tally) {
                Ok(0) => {}
                Ok(answers) => touched.extend(std::iter::repeat_n(tag, answers)),
                Err(status) => *over = Some(status),
            }
        })?;
        if let Some(over) = over.take() {
            return Err(over.into());
        }
        let now = read_at.unwrap_or_default();
        for tag in touched.drain(..) {
            *open -= 1;
            *open += usize::from(lines[tag].ask(*goal, link, now));
        }
        link.flush(poll)?;
        Ok(read)
    }
}

impl Line {
    /// Sends the next keep-alive, if there is another to send.
    fn ask(&mut self, goal: Goal, link: &mut Link, now: Duration) -> bool {
        if self.next == self.leases.end && goal == Goal::Forever {
            self.next = self.leases.start;
        }
        if self.next == self.leases.end || goal == Goal::Nothing {
            return false;
        }
        let body = grpc::body(&LeaseKeepAliveRequest { id: self.next });
        link.connection.send(self.stream, &body);
        self.next += 1;
        self.began.push_back(now);
        true
    }

    /// Takes in what came; how many answers that were.
    fn on(
        &mut self,
        event: Event<'_>,
        now: Duration,
        tally: &mut LoggedTally,
    ) -> Result<usize, Status> {
        let mut answers = 0;
        match event {
            Event::Headers(fields) => self.verdict.add(fields),
            Event::Data(bytes) => {
                let Self { held, began, .. } = self;
                let mut unasked = false;
                grpc::each_message(held, bytes, |message| match began.pop_front() {
                    None => unasked = true,
                    Some(began) => {
                        answers += 1;
                        let gone = || Status::new(code::OK, "a lease is gone");
                        let kept = notice::kept_alive(message) > 0;
                        tally.add(now - began, kept.then_some(()).ok_or_else(gone));
                    }
                })?;
                if unasked {
                    return Err(Status::new(code::INTERNAL, "an answer that nobody asked for"));
                }
            }
            Event::End => {
                let ended = Status::new(code::UNKNOWN, "a keep-alive stream ended by itself");
                return Err(self.verdict.read().err().unwrap_or(ended));
            }
            Event::Reset(code) => return Err(grpc::reset(code)),
        }
        Ok(answers)
    }
}

/// A poll that only has renewals.
struct Ready {
    poll: Poll,
    buffer: Box<[u8]>,
    latest: Duration,
}

impl Ready {
    fn new(poll: Poll) -> Self {
        Self { poll, buffer: vec![0; READ_BYTES_MAX].into(), latest: Duration::ZERO }
    }

    /// Serves who is ready until then, or until somebody wants an end.
    fn turn_until(
        &mut self,
        renewals: &mut Renewals,
        end: Duration,
        clock: Instant,
    ) -> Result<(), Failure> {
        while clock.elapsed() < end && !interrupt::asked() {
            self.turn(renewals, end.saturating_sub(clock.elapsed()), clock)?;
        }
        Ok(())
    }

    fn turn(
        &mut self,
        renewals: &mut Renewals,
        time: Duration,
        clock: Instant,
    ) -> Result<(), Failure> {
        for token in self.poll.wait(time.min(PATIENCE))? {
            let now = || clock.elapsed();
            if renewals.hear(token, &mut self.buffer, now, &self.poll)? > 0 {
                self.latest = clock.elapsed();
            }
        }
        let now = clock.elapsed();
        renewals.tally.look(now)?;
        match now > self.latest + PATIENCE {
            true => Err(Failure::Stalled(renewals.open)),
            false => Ok(()),
        }
    }
}
