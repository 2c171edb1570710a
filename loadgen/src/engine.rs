//! Load: one thread keeps every seat of every connection busy with one operation at a time, or gives
//! each operation a seat when it is due.
//!
//! ```text
//!   closed   wait ──► read one link ──► note what ended ──► begin again on those seats ──► one write
//!
//!   open     schedule ──due──► a free seat ──► one write     wait ──► read ──► the seat is free
//!                  └─ none: it waits, and its time runs
//! ```
//!
//! In a closed loop a seat begins again only when it has its answer, so a slow server is asked less,
//! and the latencies say nothing of what an open world would have waited. In an open loop times are
//! fixed beforehand, and an operation's latency counts from when it was due.

mod lost;
mod seat;

use std::{
    io, mem,
    time::{Duration, Instant},
};

use lost::Lost;
pub(crate) use seat::Slot;
use seat::{Asker, Due, Seat};

use crate::{
    arrivals::Schedule,
    beside::Beside,
    cpu::CpuUse,
    grpc::Status,
    h2::{Broken, Event, Window},
    interrupt,
    link::{Failure, Link, PATIENCE, READ_BYTES_MAX},
    poll::Poll,
    progress::Standing,
    report::{OpenLoop, Report},
    script::{Answer, Next, Script},
    tally::{Lateness, Tallies, Tally},
};

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time. In a closed loop, operations still open then are waited for, and not counted.
    Elapsed(Duration),
    /// After so many operations.
    Calls(u64),
}

/// Who asks whom, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port` of each member; connections are dealt to them in turn.
    pub endpoints: Vec<String>,
    /// Connections, at least 1.
    pub connections: usize,
    /// Operations open at a time on each connection, at least 1.
    pub streams: usize,
    /// When to stop.
    pub until: Until,
    /// The servers' processes, where their CPU time is wanted: the sum.
    pub pids: Vec<u32>,
}

/// When operations begin, and from when on they count.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// When operations are due; none: each seat begins again when it can.
    pub schedule: Option<Schedule>,
    /// What is due before is made and not counted. The plan's end is counted from here.
    pub warm_up: Duration,
}

/// How often is looked at what has nothing to do with answers.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a plan in a closed loop, and says what came of it.
///
/// # Errors
/// As [`run_at`].
pub fn run(plan: &Plan, mut script: impl Script) -> Result<Report, Failure> {
    run_at(plan, &Pace::default(), &mut script, &mut Beside::default())
}

/// Runs a plan and says what came of it. Operations that fail are counted, those of a lost connection
/// among them, which is made again; a run without any connection for 10 seconds is cut short.
///
/// # Errors
/// A connection that could not be made at the start; a server that allows fewer streams; a file that
/// could not be written.
pub fn run_at<S: Script>(
    plan: &Plan,
    pace: &Pace,
    script: &mut S,
    beside: &mut Beside,
) -> Result<Report, Failure> {
    let mut engine = Engine::connect(plan, pace, script, beside)?;
    engine.clock = Instant::now();
    let cut_short = engine.run()?;
    let elapsed = engine.counted_time();
    // A server that died has no CPU time any more, and the report is wanted all the more.
    let cpu = engine.cpu_now().or_else(|_| CpuUse::now(None))?.since(&engine.cpu_before);
    let (tallies, open) = (mem::take(&mut engine.tallies), engine.take_open());
    if cut_short.is_none() {
        engine.drain()?;
    }
    drop(engine);
    beside.finish()?;
    let Plan { connections, streams, .. } = *plan;
    let counts = script.counts();
    let heard = None;
    Ok(Report { elapsed, cpu, tallies, open, heard, counts, connections, streams, cut_short })
}

struct Engine<'a, S> {
    plan: &'a Plan,
    script: &'a mut S,
    beside: &'a mut Beside,
    askers: Vec<Asker>,
    poll: Poll,
    clock: Instant,
    reads_answers: bool,
    tallies: Tallies,
    /// In an open loop.
    due: Option<Due>,
    warm_up: Duration,
    /// Set once the warm-up is over.
    cpu_before: CpuUse,
    warm: bool,
    open: usize,
    left: u64,
    /// When the last operation that counts ended.
    last_ended: Duration,
    lost: Lost,
    looked: Duration,
    buffer: Box<[u8]>,
    ended: Vec<usize>,
}

impl<'a, S: Script> Engine<'a, S> {
    fn connect(
        plan: &'a Plan,
        pace: &Pace,
        script: &'a mut S,
        beside: &'a mut Beside,
    ) -> Result<Self, Failure> {
        let Plan { connections, streams, .. } = *plan;
        assert!(connections > 0 && streams > 0, "somebody must ask");
        assert!(!plan.endpoints.is_empty(), "somebody must be asked");
        let poll = Poll::new()?;
        let mut askers = Vec::new();
        for token in 0..connections {
            let endpoint = token % plan.endpoints.len();
            let link = Link::connect(&plan.endpoints[endpoint], Window::Wide, &poll, token)?;
            askers.push(Asker {
                heads: script.paths().into_iter().map(|path| link.head(path)).collect(),
                link: Some(link),
                endpoint,
                seats: (0..streams).map(|_| Seat::default()).collect(),
                heard: Duration::ZERO,
                dialing: false,
                retry_at: Duration::ZERO,
                touched: false,
            });
        }
        let due = pace.schedule.clone().map(|mut schedule| Due {
            next: schedule.next(),
            schedule,
            // Across the connections first.
            free: (0..streams)
                .flat_map(|seat| (0..connections).map(move |at| (at, seat)))
                .collect(),
            taken_until: Duration::ZERO,
            lateness: Lateness::default(),
            service: Tally::default(),
            slip: Tally::default(),
        });
        let left = match plan.until {
            Until::Elapsed(_) => u64::MAX,
            Until::Calls(calls) => calls,
        };
        Ok(Self {
            tallies: Tallies::new(&script.kinds()),
            reads_answers: script.reads_answers(),
            cpu_before: CpuUse::now(plan.pids.iter().copied())?,
            plan,
            script,
            beside,
            askers,
            poll,
            clock: Instant::now(),
            due,
            warm_up: pace.warm_up,
            warm: false,
            open: 0,
            left,
            last_ended: Duration::ZERO,
            lost: Lost::default(),
            looked: Duration::ZERO,
            buffer: vec![0; READ_BYTES_MAX].into(),
            ended: Vec::new(),
        })
    }

    fn cpu_now(&self) -> io::Result<CpuUse> {
        CpuUse::now(self.plan.pids.iter().copied())
    }

    /// Begins, and goes on until it is over; says why, where that was too early.
    fn run(&mut self) -> Result<Option<String>, Failure> {
        if self.due.is_none() {
            for at in 0..self.askers.len() {
                self.begin_all(at, Duration::ZERO)?;
            }
        }
        loop {
            let now = self.clock.elapsed();
            if !self.warm && now >= self.warm_up {
                self.warm = true;
                self.cpu_before = self.cpu_now()?;
            }
            if self.is_over(now) {
                let alone = self.lost.alone_in_the_end();
                return Ok(self.last_words(now)?.or(alone));
            }
            if let Some(why) = self.look(now)? {
                self.count_unsent(now);
                return Ok(Some(why));
            }
            self.begin_due(now)?;
            self.turn(self.wait(now))?;
        }
    }

    fn end(&self) -> Option<Duration> {
        match self.plan.until {
            Until::Elapsed(time) => Some(self.warm_up + time),
            Until::Calls(_) => None,
        }
    }

    fn is_over(&self, now: Duration) -> bool {
        let nothing_due = match &self.due {
            Some(due) => due.next.is_none() || self.left == 0,
            None => self.left == 0,
        };
        self.end().is_some_and(|end| now >= end) || (nothing_due && self.open == 0)
    }

    /// In an open loop what was begun in time counts.
    fn last_words(&mut self, now: Duration) -> Result<Option<String>, Failure> {
        if self.due.is_none() {
            return Ok(None);
        }
        let end = self.end().unwrap_or(now);
        self.begin_due(end.saturating_sub(Duration::from_nanos(1)))?;
        self.count_unsent(end);
        while self.open > 0 {
            let now = self.clock.elapsed();
            if let Some(why) = self.look(now)? {
                return Ok(Some(why));
            }
            if now > end + PATIENCE {
                return Ok(Some(format!("{} operations had no answer", self.open)));
            }
            self.turn(LOOK)?;
        }
        Ok(None)
    }

    /// What was due and not begun.
    fn count_unsent(&mut self, end: Duration) {
        let Some(due) = &mut self.due else { return };
        while self.left > 0
            && let Some(next) = due.next.take_if(|next| *next < end)
        {
            due.lateness.unsent += u64::from(next >= self.warm_up);
            due.next = due.schedule.next();
        }
        due.next = None;
    }

    /// How long to wait for answers before there is something else to do.
    fn wait(&self, now: Duration) -> Duration {
        let mut until = now + LOOK;
        if !self.warm {
            until = until.min(self.warm_up);
        }
        if let Some(end) = self.end() {
            until = until.min(end);
        }
        if let Some(due) = &self.due
            && !due.free.is_empty()
            && let Some(next) = due.next
        {
            until = until.min(next);
        }
        until.saturating_sub(now)
    }

    /// What has nothing to do with answers, every now and then. Why the run is over, if it is.
    fn look(&mut self, now: Duration) -> Result<Option<String>, Failure> {
        if now < self.looked + LOOK {
            return Ok(None);
        }
        self.looked = now;
        if interrupt::asked() {
            return Ok(Some("interrupted".into()));
        }
        let end = self.end();
        let Self { beside, warm_up, left, tallies, .. } = self;
        beside.look(Standing { now, warm_up: *warm_up, end, left: *left, tallies })?;
        for at in 0..self.askers.len() {
            let Asker { link, heard, seats, .. } = &self.askers[at];
            let silent = now > *heard + PATIENCE && seats.iter().any(|seat| seat.busy);
            if silent && link.is_some() {
                let silence = io::Error::new(io::ErrorKind::TimedOut, "no answer for 30 s");
                self.lose(at, &silence.into(), now);
            }
        }
        self.reconnect(now)?;
        Ok(self.lost.alone(now))
    }

    /// Waits once, at most `time`, and serves the links that are ready.
    fn turn(&mut self, time: Duration) -> Result<(), Failure> {
        for at in self.poll.wait(time)? {
            self.serve(at)?;
        }
        Ok(())
    }

    fn counted_time(&self) -> Duration {
        let end = match self.due {
            // What was begun in time and ended later belongs to the time, too.
            Some(_) => {
                self.last_ended.max(self.end().unwrap_or_default()).min(self.clock.elapsed())
            }
            None => self.clock.elapsed(),
        };
        end.saturating_sub(self.warm_up)
    }

    fn take_open(&mut self) -> Option<OpenLoop> {
        self.due.take().map(|Due { lateness, service, slip, .. }| OpenLoop {
            lateness,
            service,
            slip,
        })
    }

    /// Waits for what is open, so that nothing disturbs who comes next. It counts no more.
    fn drain(&mut self) -> Result<(), Failure> {
        (self.left, self.warm_up) = (0, Duration::MAX);
        let begin = self.clock.elapsed();
        while self.open > 0 && self.clock.elapsed() < begin + PATIENCE && !interrupt::asked() {
            self.turn(LOOK)?;
        }
        Ok(())
    }
}

// ── asking ──────────────────────────────────────────────────────────────────────────────────────

impl<S: Script> Engine<'_, S> {
    /// The first operation of every seat of a link.
    fn begin_all(&mut self, at: usize, now: Duration) -> Result<(), Failure> {
        for seat in 0..self.askers[at].seats.len() {
            self.begin(at, seat, now, now)?;
        }
        self.flush(at)
    }

    /// Begins what is due, as far as there are seats.
    fn begin_due(&mut self, now: Duration) -> Result<(), Failure> {
        let mut begun = false;
        while let Some(due) = &mut self.due
            && let Some(next) = due.next.filter(|next| *next <= now)
            && self.left > 0
        {
            let Some((at, seat)) = due.free.pop_front() else { break };
            due.next = due.schedule.next();
            if next >= self.warm_up {
                due.begun(next, now);
            }
            self.begin(at, seat, next, now)?;
            begun = true;
        }
        if begun {
            for at in 0..self.askers.len() {
                if self.askers[at].touched {
                    self.flush(at)?;
                }
            }
        }
        Ok(())
    }

    /// Opens a seat's next operation, if there is another to make.
    fn begin(
        &mut self,
        at: usize,
        seat: usize,
        due: Duration,
        now: Duration,
    ) -> Result<(), Failure> {
        let asker = &mut self.askers[at];
        if self.left == 0 || asker.link.is_none() {
            return Ok(());
        }
        let (kind, ask) = self.script.begin(at * self.plan.streams + seat);
        let Seat { kind: of, due: since, sent, busy, .. } = &mut asker.seats[seat];
        (*of, *since, *sent, *busy) = (kind, due, now, true);
        self.open += 1;
        let asked = asker.ask(seat, ask, now);
        if due >= self.warm_up {
            self.left -= 1;
            self.beside.begun(due - self.warm_up, self.script)?;
        }
        match asked {
            Ok(()) => Ok(()),
            Err(Broken::TooManyStreams(max)) => Err(Broken::TooManyStreams(max).into()),
            Err(broken) => {
                self.lose(at, &broken.into(), now);
                Ok(())
            }
        }
    }

    fn flush(&mut self, at: usize) -> Result<(), Failure> {
        let asker = &mut self.askers[at];
        asker.touched = false;
        if let Some(link) = &mut asker.link
            && let Err(failure) = link.flush(&self.poll)
        {
            self.lose(at, &failure, self.clock.elapsed());
        }
        Ok(())
    }
}

// ── hearing ─────────────────────────────────────────────────────────────────────────────────────

impl<S: Script> Engine<'_, S> {
    fn serve(&mut self, at: usize) -> Result<(), Failure> {
        let Asker { link, seats, .. } = &mut self.askers[at];
        let Some(link) = link else { return Ok(()) };
        let (ended, keep) = (&mut self.ended, self.reads_answers);
        let read = link.read(&mut self.buffer, |seat, event| {
            let seat_number = seat;
            let seat = &mut seats[seat];
            if let (true, Event::Data(bytes)) = (keep, &event) {
                seat.answer.extend_from_slice(bytes);
            }
            if seat.call.on(event) {
                ended.push(seat_number);
            }
        });
        // One look at the clock for all that came together.
        let now = self.clock.elapsed();
        let mut ended = mem::take(&mut self.ended);
        for seat in ended.drain(..) {
            self.answered(at, seat, now)?;
        }
        self.ended = ended;
        match read {
            Ok(0) => {}
            Ok(_) => self.askers[at].heard = now,
            Err(failure) => {
                self.lose(at, &failure, now);
                return Ok(());
            }
        }
        self.flush(at)
    }

    /// A call ended: the operation goes on, or is over.
    fn answered(&mut self, at: usize, seat: usize, now: Duration) -> Result<(), Failure> {
        let asker = &mut self.askers[at];
        if !asker.seats[seat].busy {
            return Ok(());
        }
        let number = at * self.plan.streams + seat;
        let Seat { call, answer, .. } = &mut asker.seats[seat];
        let outcome = match call.outcome(0) {
            Err(status) => {
                self.script.failed(number);
                Err(status)
            }
            Ok(()) => {
                let (bytes, body) = (call.bytes, mem::take(answer));
                let next = self.script.answered(number, Answer { bytes, body: &body });
                let outcome = match next {
                    Next::Over => Some(Ok(())),
                    Next::Failed(status) => Some(Err(status)),
                    Next::Call(ask) => match asker.ask(seat, ask, now) {
                        Ok(()) => None,
                        Err(broken) => {
                            self.lose(at, &broken.into(), now);
                            return Ok(());
                        }
                    },
                };
                // Its room is used again.
                self.askers[at].seats[seat].answer = body;
                self.askers[at].seats[seat].answer.clear();
                let Some(outcome) = outcome else { return Ok(()) };
                outcome
            }
        };
        self.over(at, seat, now, outcome);
        match &mut self.due {
            Some(due) => {
                due.free_up([(at, seat)], now);
                Ok(())
            }
            None => self.begin(at, seat, now, now),
        }
    }

    /// Counts an operation that is over.
    fn over(&mut self, at: usize, seat: usize, now: Duration, outcome: Result<(), Status>) {
        let Seat { kind, due, sent, busy, .. } = &mut self.askers[at].seats[seat];
        *busy = false;
        self.open -= 1;
        if *due < self.warm_up {
            return;
        }
        self.last_ended = now;
        if outcome.is_ok() {
            self.beside.ended(now - *due);
            if let Some(open) = &mut self.due {
                open.service.record((now - *sent).as_nanos() as u64);
            }
        }
        self.tallies.add(*kind, now - *due, outcome);
    }
}
