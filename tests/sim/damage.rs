//! What becomes of a process that reads what rotted: in the product it notes the file and aborts, here
//! its tasks stop where they stand.
//!
//! ```text
//!   a task ── reads ──▶ fatal::damaged ── [`Died`] unwinds ──▶ the executor, which notes it for the
//!                                                              task's group; the world ends the boot
//! ```

use crate::disk::SimDisk;
use ringleader::{
    fatal::{self, Fatal},
    tree::Mark,
};
use std::panic::{self, AssertUnwindSafe};

/// Where a process leaves its mark.
pub(crate) const MARK: &str = "rec/damaged";
/// How it is told that one died of damage.
pub(crate) const WHAT: &str = "a file is damaged";

/// The damage that a process died of.
#[derive(Clone, Debug)]
pub(crate) struct Died(Mark);

/// From now on whoever comes to damage in this process unwinds.
pub(crate) fn unwinds() {
    fatal::hear_of_damage(|file, flaw| {
        let mark = Mark { file: file.into(), flaw: flaw.into() };
        panic::resume_unwind(Box::new(Died(mark)))
    });
}

/// Does something that may come to damage. Everything else goes on unwinding.
pub(crate) fn attempt<T>(work: impl FnOnce() -> T) -> Result<T, Died> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let died = payload.downcast::<Died>();
        *died.unwrap_or_else(|other| panic::resume_unwind(other))
    })
}

impl Died {
    /// What the process has left when it is dead.
    pub(crate) fn leave_mark(&self, disk: &SimDisk) {
        disk.leave(MARK, &self.0.encode());
    }

    /// What it said.
    pub(crate) fn fatal(self) -> Fatal {
        let Mark { file, flaw } = self.0;
        Fatal { what: WHAT.into(), place: format!("{file}, {flaw}"), advice: String::new() }
    }
}
