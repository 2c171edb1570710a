//! Everything that can happen to a node, and everything it can do.

use crate::{
    consensus::Append,
    mesh::{LeaseAsk, Reply},
    types::Ticket,
};
use bytes::Bytes;

/// A closed set of causes: if it is not here, it cannot happen to a node.
#[derive(Debug)]
pub enum Event {
    /// One heartbeat interval has passed.
    Tick,
    /// A shard wants this in the log.
    Propose {
        /// Who waits.
        ticket: Ticket,
        /// One encoded request, without its header.
        request: Bytes,
    },
    /// A shard wants to know when a read that begins now is linearizable.
    Read {
        /// Who waits.
        ticket: Ticket,
    },
    /// A shard asks about leases what only the leader's clock knows.
    Lease {
        /// Who waits.
        ticket: Ticket,
        /// What it asks.
        ask: LeaseAsk,
    },
    /// The disk holds everything up to and including this append.
    Appended {
        /// As in [`Append::number`].
        number: u64,
    },
}

/// A closed set of consequences.
#[derive(Debug)]
pub enum Action {
    /// Make this durable, then say so with [`Event::Appended`].
    Append(Append),
    /// Tell whoever holds this ticket, not before the state it speaks of is published.
    Reply {
        /// Who waits.
        ticket: Ticket,
        /// What to say.
        reply: Reply,
    },
}
