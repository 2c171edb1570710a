//! From a listening socket to the core that serves it.
//!
//! Each listening address has one thread that blocks in `accept` and deals the sockets out to its
//! receivers in turn, so a few connections never pile up on one core.

use super::adopt::adopt;
use crate::{
    limits::{ACCEPT_RETRY, LISTEN_BACKLOG},
    mesh::Sender,
};
use glommio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    time::Duration,
};

/// A socket on its way to the core that serves it.
pub struct Accepted(OwnedFd);

impl Accepted {
    /// Hands the socket over to this core's executor.
    pub fn adopt(self) -> TcpStream {
        adopt(self.0)
    }

    /// Lets the machine give up a connection on which what was sent is not acknowledged for so long
    /// (tcp(7), `TCP_USER_TIMEOUT`): whoever only writes would learn that the other side is gone
    /// after a quarter of an hour.
    ///
    /// # Errors
    /// What the machine says.
    pub fn give_up_after(&self, silence: Duration) -> io::Result<()> {
        SockRef::from(&self.0).set_tcp_user_timeout(Some(silence))
    }
}

/// Listens on `address`, alone: neither side sets SO_REUSEPORT, so a port that any other process
/// listens on is an error even if that one would share it.
///
/// # Errors
/// What the machine says, with the address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error: io::Error| {
        let why = match error.kind() {
            // In Go's words, which operators of etcd look for.
            io::ErrorKind::AddrInUse => "bind: address already in use".into(),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("listen tcp {address}: {why}"))
    })
}

/// Accepts until the listener is shut down, dealing sockets out in turn. Runs on its own thread.
pub fn deal(listener: &TcpListener, mut receivers: Vec<Sender<Accepted>>) {
    for turn in 0.. {
        let socket = match listener.accept() {
            Ok((socket, _from)) => socket,
            // Shut down: this is how the thread is told to end.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) => {
                // Out of descriptors, most likely: the clients that are here go on.
                crate::log::warn!("cannot accept a connection", "error" => error.to_string());
                std::thread::sleep(ACCEPT_RETRY);
                continue;
            }
        };
        let to = turn % receivers.len();
        if socket.set_nodelay(true).is_err() || receivers[to].is_closed() {
            continue;
        }
        // Who does not keep up takes no more: the socket closes and the client tries again.
        let _closed = receivers[to].try_send(Accepted(socket.into())).is_err();
    }
}
