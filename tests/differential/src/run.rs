//! Asks both, batch by batch, until an answer differs.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use crate::{
    answer::Answer,
    call::{Call, shortened},
    side::Side,
};

/// Asked of one server without waiting for the other.
const BATCH_CALLS: usize = 256;
/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// The first answer that differs.
#[derive(Debug)]
pub struct Difference {
    /// How many calls were answered alike before.
    pub at: usize,
    /// What was asked of `a`, and of `b` where revisions had gone apart.
    pub calls: [Call; 2],
    /// What was answered.
    pub answers: [Answer; 2],
}

impl Difference {
    /// Whether the answers are of the same kinds: when calls are left out, another difference may
    /// come in the way of the one looked for.
    pub fn is_like(&self, other: &Self) -> bool {
        self.answers.iter().zip(&other.answers).all(|(a, b)| a.is_like(b))
    }
}

/// How a run without a difference went.
#[derive(Debug, Default)]
pub struct Summary {
    /// Calls asked of each.
    pub calls: usize,
    /// Of those, answered with an error.
    pub errors: usize,
    /// Events that watchers heard of each.
    pub events: usize,
    /// The revision in the last header.
    pub revision: i64,
    /// From first to last.
    pub elapsed: Duration,
}

/// Asks every call of both.
///
/// # Errors
/// The first difference, if any.
pub fn run<'a>(
    endpoints: [&str; 2],
    calls: impl IntoIterator<Item = &'a Call>,
    talk: bool,
) -> Result<Summary, Box<Difference>> {
    let begin = Instant::now();
    let mut said = begin;
    let mut sides = endpoints.map(Side::new);
    let mut summary = Summary::default();
    let mut calls = calls.into_iter();
    loop {
        let batch: Vec<&Call> = calls.by_ref().take(BATCH_CALLS).collect();
        summary.elapsed = begin.elapsed();
        if talk && (said.elapsed() > PROGRESS_EVERY || batch.is_empty()) {
            eprintln!("{summary}");
            said = Instant::now();
        }
        if batch.is_empty() {
            return Ok(summary);
        }
        let [a, b] = ask_both(&mut sides, &batch);
        for (a, b) in a.into_iter().zip(b) {
            if a.1 != b.1 {
                let (calls, answers) = ([a.0, b.0], Answer::narrowed([a.1, b.1]));
                return Err(Box::new(Difference { at: summary.calls, calls, answers }));
            }
            summary.calls += 1;
            summary.errors += usize::from(matches!(a.1, Answer::Error(..)));
            summary.events += a.1.events();
            summary.revision = a.1.revision().unwrap_or(summary.revision);
        }
    }
}

fn ask_both(sides: &mut [Side; 2], batch: &[&Call]) -> [Vec<(Call, Answer)>; 2] {
    let ask = |side: &mut Side| batch.iter().map(|call| side.ask(call)).collect::<Vec<_>>();
    let [a, b] = sides;
    thread::scope(|scope| {
        let a = scope.spawn(|| ask(a));
        let b = ask(b);
        [a.join().expect("asking does not panic"), b]
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, errors, events, revision, elapsed } = self;
        let rate = *calls as f64 / elapsed.as_secs_f64().max(1e-3);
        write!(
            f,
            "{calls} calls answered alike ({errors} with errors), {events} events, \
             revision {revision}, {rate:.0}/s"
        )
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [call, other] = &self.calls;
        writeln!(f, "{call}")?;
        if other != call {
            writeln!(f, "  of b: {other}")?;
        }
        for (name, answer) in ["a", "b"].into_iter().zip(&self.answers) {
            writeln!(f, "  {name}: {}", shortened(&format!("{answer:?}")))?;
        }
        Ok(())
    }
}
