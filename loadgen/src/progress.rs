//! One line on a terminal that says how far a run is.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use crate::tally::Tallies;

const BAR_WIDTH: usize = 30;
const CLEAR: &str = "\r\x1b[K";

/// How far a run is.
#[derive(Clone, Copy)]
pub(crate) struct Standing<'a> {
    /// Since it began.
    pub(crate) now: Duration,
    /// Until then nothing counts.
    pub(crate) warm_up: Duration,
    /// When it is over, where that is a matter of time.
    pub(crate) end: Option<Duration>,
    /// Operations that are to be begun yet, where that is not.
    pub(crate) left: u64,
    pub(crate) tallies: &'a Tallies,
}

/// The line, and what it said last.
pub struct Progress {
    shown: Duration,
    done: u64,
    all: Option<u64>,
}

impl Progress {
    /// None where standard error is no terminal. `all`: of how many operations, where that is known.
    pub fn new(all: Option<u64>) -> Option<Self> {
        io::stderr().is_terminal().then_some(Self { shown: Duration::ZERO, done: 0, all })
    }

    /// Shows where the run is.
    pub(crate) fn show(&mut self, standing: Standing<'_>) {
        let Standing { now, warm_up, end, left, tallies } = standing;
        let (done, failed) = (tallies.done(), tallies.failed());
        let since = now.saturating_sub(self.shown).as_secs_f64();
        if since < 0.2 {
            return;
        }
        let rate = done.saturating_sub(self.done) as f64 / since;
        (self.shown, self.done) = (now, done);
        let part = match (end, self.all) {
            (Some(end), _) => now.as_secs_f64() / end.as_secs_f64(),
            (None, Some(all)) => (all - left.min(all)) as f64 / all as f64,
            (None, None) => 0.0,
        };
        let line = line(part, now < warm_up, done, rate, failed);
        // A terminal that is gone is no reason to stop.
        write!(io::stderr(), "{CLEAR}{line}").ok();
    }

    /// Leaves the line empty.
    pub(crate) fn clear(&mut self) {
        write!(io::stderr(), "{CLEAR}").ok();
    }
}

fn line(part: f64, warming: bool, done: u64, rate: f64, failed: u64) -> String {
    let full = ((part * BAR_WIDTH as f64) as usize).min(BAR_WIDTH);
    let bar = format!("{:<BAR_WIDTH$}", "#".repeat(full));
    let what = if warming { "warming up".into() } else { format!("{done} done, {rate:.0}/s") };
    match failed {
        0 => format!("[{bar}] {:>3.0} %  {what}", part * 100.0),
        failed => format!("[{bar}] {:>3.0} %  {what}, {failed} failed", part * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_the_run_is() {
        let half = line(0.5, false, 1200, 99.6, 0);
        assert_eq!(half, format!("[{}{}]  50 %  1200 done, 100/s", "#".repeat(15), " ".repeat(15)));
        assert!(line(2.0, true, 0, 0.0, 3).ends_with("] 200 %  warming up, 3 failed"));
    }
}
