//! How the process dies on purpose: what broke, where, what to look at; then abort.
//!
//! A fatal is for the person with the pager. It is printed whole on standard error before the
//! process aborts, because the log's own writer may be what is stuck. Standard error may be stuck
//! too, on a pipe that nobody reads: then the process dies without a word, but it dies.

use crate::limits::FATAL_WRITE_WAIT;
use std::{io::Write, sync::mpsc, thread, time::Duration};

/// What broke and what to do, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatal {
    /// What broke, one sentence.
    pub what: String,
    /// Which file and offset, address or peer.
    pub place: String,
    /// What to look at or do next, one sentence.
    pub advice: String,
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; at {}; {}", self.what, self.place, self.advice)
    }
}

impl std::error::Error for Fatal {}

/// Prints and aborts. Never returns, never unwinds: nothing may run on a broken invariant.
pub fn die(fatal: &Fatal) -> ! {
    let _said = say(format!("ringleader: fatal: {fatal}\n"), std::io::stderr(), FATAL_WRITE_WAIT);
    std::process::abort()
}

/// Writes `text` from a thread of its own and waits `at_most` for it; whether all was written.
/// Where there is no thread to be had there is nobody to wait for either, and nothing is written.
fn say(text: String, mut out: impl Write + Send + 'static, at_most: Duration) -> bool {
    let (done, written) = mpsc::channel();
    let write = move || done.send(out.write_all(text.as_bytes()).is_ok()).unwrap_or_default();
    let writer = thread::Builder::new().name("fatal".into()).spawn(write);
    writer.is_ok() && written.recv_timeout(at_most).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, pipe};

    #[test]
    fn the_last_word_is_written_whole() {
        let (mut reader, writer) = pipe().expect("a pipe");
        assert!(say("the last word".into(), writer, Duration::MAX));
        let mut heard = String::new();
        reader.read_to_string(&mut heard).expect("text");
        assert_eq!(heard, "the last word");
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_nobodys_death() {
        let (reader, writer) = pipe().expect("a pipe");
        assert!(!say("x".repeat(8 << 20), writer, Duration::from_millis(1)), "no pipe holds this");
        drop(reader);
    }
}
