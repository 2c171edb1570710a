//! Everything that can happen to a node, and everything it can do.

use crate::{
    consensus::Append,
    mesh::{FromPeer, LeaseAsk, Reply, ToPeers},
    store::command::MemberChange,
    tree::Staged,
    types::{MemberId, Ticket},
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
    /// Somebody wants to change the members.
    Change {
        /// Who waits.
        ticket: Ticket,
        /// How.
        change: MemberChange,
    },
    /// Somebody wants another member to lead.
    MoveLeader {
        /// Who waits.
        ticket: Ticket,
        /// Who is to lead.
        to: MemberId,
    },
    /// Somebody wants space given back.
    Defragment {
        /// Who waits.
        ticket: Ticket,
    },
    /// News from the peers' room.
    Peer(FromPeer),
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
    /// Make this the member's state, before the append that comes with it: it says so too.
    Install(Box<Staged>),
    /// Tell the peers' room.
    Peers(ToPeers),
    /// Tell whoever holds this ticket, not before the state it speaks of is published.
    Reply {
        /// Who waits.
        ticket: Ticket,
        /// What to say.
        reply: Reply,
    },
}
