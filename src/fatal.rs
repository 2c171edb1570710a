//! How the process dies on purpose: what broke, where, what to look at; then abort.
//!
//! A fatal is for the person with the pager. It is printed whole on standard error before the
//! process aborts, because the log's own writer may be what is stuck. Standard error may be stuck
//! too, on a pipe that nobody reads: then the process dies without a word, but it dies.

use crate::limits::FATAL_WRITE_WAIT;
use std::{
    fmt::Display,
    io::Write,
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

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

/// What to do about a file that is damaged.
pub const DAMAGED_ADVICE: &str = "restore this member from a snapshot, or remove it from the \
                                  cluster and add it again with an empty directory";

/// Who hears which file is damaged, and how, before the process dies of it.
type Witness = Box<dyn Fn(&str, &str) + Send + Sync>;

static WITNESS: OnceLock<Witness> = OnceLock::new();

/// From now on `witness` hears of damage, by the file's name below the data disk's root, before the
/// process dies. The first one stays.
pub fn hear_of_damage(witness: impl Fn(&str, &str) + Send + Sync + 'static) {
    let _another_hears = WITNESS.set(Box::new(witness)).is_err();
}

/// Dies of a damaged file, once whoever hears of that has.
pub fn damaged(what: &str, file: &str, flaw: impl Display) -> ! {
    if let Some(hear) = WITNESS.get() {
        hear(file, &flaw.to_string());
    }
    die(&Fatal {
        what: what.into(),
        place: format!("{file}, {flaw}"),
        advice: format!(
            "start it again: where enough other members are there it fetches its data anew from \
             them; else {DAMAGED_ADVICE}"
        ),
    })
}

/// Prints and aborts. Never returns, never unwinds: nothing may run on a broken invariant.
pub fn die(fatal: &Fatal) -> ! {
    let _said = say(format!("ringleader: fatal: {fatal}\n"), std::io::stderr(), FATAL_WRITE_WAIT);
    std::process::abort()
}

/// Writes `text` and waits `at_most` for it; whether all was written.
fn say(text: String, mut out: impl Write + Send + 'static, at_most: Duration) -> bool {
    within(at_most, move || out.write_all(text.as_bytes()).is_ok())
}

/// Does something on a thread of its own and waits `at_most` for it; whether it was done. Where there
/// is no thread to be had there is nobody to wait for either, and nothing is done.
pub fn within(at_most: Duration, work: impl FnOnce() -> bool + Send + 'static) -> bool {
    let (done, outcome) = mpsc::channel();
    let work = move || done.send(work()).unwrap_or_default();
    let worker = thread::Builder::new().name("fatal".into()).spawn(work);
    worker.is_ok() && outcome.recv_timeout(at_most).unwrap_or(false)
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
