//! What is asked of a server, as the engine sees it: operations of one call or more, each on a seat
//! of its own until it is over.
//!
//! ```text
//!   begin(seat) ──► call ──► answered(seat) ──► Next::Call ──► call ──► .. ──► Next::Over
//!                     └────► failed(seat): the operation is over
//! ```

use crate::{grpc::Status, replay::Noted};

/// One call of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Which of the script's [`Script::paths`].
    pub path: usize,
    /// The whole body, with its prefix.
    pub body: &'a [u8],
}

/// What an answer leads to.
#[derive(Debug)]
pub enum Next<'a> {
    /// The operation went on with another call.
    Call(Ask<'a>),
    /// The operation went well.
    Over,
    /// The operation failed, though its call did not.
    Failed(Status),
}

/// An answer whose call went well.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Of the body, with the prefix.
    pub bytes: usize,
    /// The body, with its prefix; empty unless the script [reads answers](Script::reads_answers).
    pub body: &'a [u8],
}

/// Operations, one after the other.
pub trait Script {
    /// The methods it calls.
    fn paths(&self) -> Vec<&'static str>;

    /// The kinds of its operations, which are reported apart.
    fn kinds(&self) -> Vec<&'static str>;

    /// Whether it needs the bytes of the answers. Those of others are counted and not kept.
    fn reads_answers(&self) -> bool {
        false
    }

    /// The next operation, on this seat: its kind, as a number in [`Self::kinds`], and first call.
    fn begin(&mut self, seat: usize) -> (usize, Ask<'_>);

    /// The seat's call went well.
    fn answered(&mut self, seat: usize, answer: Answer<'_>) -> Next<'_>;

    /// The seat's call failed, and its operation is over.
    fn failed(&mut self, _seat: usize) {}

    /// The operation that was begun last, as it would be replayed; none that can.
    fn noted(&self) -> Option<Noted<'_>>;

    /// What else there is to say of the operations so far: a name and a number.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
