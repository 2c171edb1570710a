//! The room against scripted members over loopback sockets, and two rooms with each other.
//!
//! Each test runs on one executor: the room, the node that it believes to have, and the other side.
//! Waiting is for something to happen, for as long as it takes.

use super::{
    frame::{Fault, Heard, Reader, Writer},
    *,
};
use crate::{
    consensus::{Entry, Kind, Message},
    mesh::{
        Capacity, Forward, LeaseAsk, LeaseTime, NodeEnd, Reply, Sender, ToNode, ToShard, mesh,
        rings,
    },
    net::{
        deal,
        http1::{Dechunk, Length, Parsed, take_response},
    },
    store::Member,
    tree,
    types::{Index, LeaseId, Term, Ticket},
};
use bytes::{Bytes, BytesMut};
use glommio::{LocalExecutor, net::TcpListener, net::TcpStream};
use socket::Socket;
use std::net::SocketAddr;

const CLUSTER: ClusterId = ClusterId(0xc1);
const A: MemberId = MemberId(0xa);
const B: MemberId = MemberId(0xb);

/// A room with what it believes to be its node and its port.
struct Bench {
    node: NodeEnd,
    newest: Newest,
    _peers: Vec<Sender<Accepted>>,
    address: SocketAddr,
}

/// A listening socket of the machine's choice, and a thread that deals to `to`.
fn listening(to: Vec<Sender<Accepted>>) -> SocketAddr {
    let listener = crate::net::listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = listener.local_addr().expect("it listens");
    // It ends with the process; tests are short.
    std::thread::spawn(move || deal(&listener, to));
    address
}
