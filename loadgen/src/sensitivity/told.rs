//! What is said on a terminal: how far it is, and what was measured.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use super::{cell::Row, grid::Setting};

const BAR_WIDTH: usize = 20;

/// A line on the terminal; without one, a line for each step that is done.
pub(super) struct Progress {
    shown: bool,
    quiet: bool,
    all: usize,
    done: usize,
    /// What the steps were thought to take, of those done and of all that are to do, in seconds.
    thought: f64,
    thought_all: f64,
    since: Instant,
}

impl Progress {
    /// Of so many steps, of which these are to do and are thought to take so many seconds.
    pub(super) fn new(quiet: bool, all: usize, todo: &[f64]) -> Self {
        Self {
            shown: io::stderr().is_terminal() && !quiet,
            quiet,
            all,
            done: all - todo.len(),
            thought: 0.0,
            thought_all: todo.iter().sum(),
            since: Instant::now(),
        }
    }

    /// Another step begins.
    pub(super) fn begin(&self, what: &impl fmt::Display) {
        if self.shown {
            let line = self.line(what, self.since.elapsed());
            // A terminal that is gone is no reason to stop.
            write!(io::stderr(), "\r\x1b[K{line}").ok();
        }
    }

    fn line(&self, what: &impl fmt::Display, elapsed: Duration) -> String {
        let full = BAR_WIDTH * self.done / self.all.max(1);
        let bar = format!("{:<BAR_WIDTH$}", "#".repeat(full));
        let left = self.left(elapsed).as_secs();
        let (done, all) = (self.done, self.all);
        format!("[{bar}] {done}/{all}, {}:{:02} left  {what}", left / 60, left % 60)
    }

    /// By how long those before took.
    fn left(&self, elapsed: Duration) -> Duration {
        let pace = if self.thought > 0.0 { elapsed.as_secs_f64() / self.thought } else { 1.0 };
        Duration::from_secs_f64(((self.thought_all - self.thought) * pace).max(0.0))
    }

    /// A step that was thought to take so long is done.
    pub(super) fn end(&mut self, thought: f64, what: &impl fmt::Display) {
        self.done += 1;
        self.thought += thought;
        if !self.shown && !self.quiet {
            writeln!(io::stderr(), "{}/{} {what}", self.done, self.all).ok();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            write!(io::stderr(), "\r\x1b[K").ok();
        }
    }
}

/// Cells as a table.
pub(super) struct Lines<'a>(pub(super) &'a [Row]);

/// One of them.
pub(super) struct Line<'a>(pub(super) &'a Row);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.0;
        let Setting { place, clocks, program } = row.setting;
        let number = |value: Option<f64>, decimals: usize| {
            value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
        };
        let tail = place.tail.map_or("-".to_owned(), |tail| tail.to_string());
        let elections = row.elections.map_or("-".to_owned(), |elections| elections.to_string());
        write!(f, "{:<10} {:>5} {tail:>9} {:>5}", program.name(), place.sync_ms, place.network_ms)?;
        write!(f, " {:>5} {:>6}", clocks.heartbeat_ms, clocks.election_ms)?;
        write!(f, " {:>8}", number(row.per_second, 0))?;
        for latency in [row.p50_ms, row.p99_ms, row.p999_ms] {
            write!(f, " {:>8}", number(latency, 2))?;
        }
        write!(f, " {:>8} {elections:>5}", number(row.stall_ms, 1))?;
        write!(f, " {:>9}", number(row.leaderless_median_ms(), 0))?;
        match row.trouble.as_str() {
            "" => Ok(()),
            trouble => write!(f, "  {trouble}"),
        }
    }
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10} {:>5} {:>9} {:>5} {:>5}", "ms", "sync", "tail", "net", "heart")?;
        write!(f, " {:>6} {:>8} {:>8} {:>8} {:>8}", "elect", "puts/s", "p50", "p99", "p99.9")?;
        writeln!(f, " {:>8} {:>5} {:>9}", "stall", "elec.", "no leader")?;
        self.0.iter().try_for_each(|row| writeln!(f, "{}", Line(row)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_by_how_long_those_before_took() {
        let mut progress = Progress::new(true, 10, &[5.0, 5.0, 20.0]);
        assert_eq!(progress.left(Duration::ZERO), Duration::from_secs(30), "as was thought");
        progress.end(5.0, &"");
        progress.end(5.0, &"");
        // Twice as slow as thought.
        assert_eq!(progress.left(Duration::from_secs(20)), Duration::from_secs(40));
        let line = progress.line(&"next", Duration::from_secs(50));
        assert_eq!(line, format!("[{}  ] 9/10, 1:40 left  next", "#".repeat(18)));
    }
}
