//! How the process dies on purpose: what broke, where, what to look at; then abort.
//!
//! A fatal is for the person with the pager. It is printed whole on standard error before the
//! process aborts, because the log's own writer may be what is stuck.

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
    eprintln!("ringleader: fatal: {fatal}");
    std::process::abort()
}
