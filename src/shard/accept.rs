//! From a listening socket to a served connection.
//!
//! Each listening address has one thread that blocks in `accept` and deals the sockets out to the
//! shards in turn, so a few connections never pile up on one core. A shard finds out from the first
//! bytes whether a connection speaks HTTP/2 or HTTP/1.1.

use super::{Shard, adopt::adopt, http1, http1::Port, http2, stream::Stream};
use crate::{
    limits::{ACCEPT_RETRY, CONNECTIONS_PER_SHARD_MAX, FIRST_BYTES_WAIT, LISTEN_BACKLOG},
    mesh::{Inbox, Sender},
};
use bytes::BytesMut;
use futures_lite::{AsyncReadExt, future};
use glommio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    rc::Rc,
};

/// What every HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A socket on its way to a shard.
pub struct Accepted {
    socket: OwnedFd,
    port: Port,
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
pub fn deal(listener: &TcpListener, port: Port, mut shards: Vec<Sender<Accepted>>) {
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
        let to = turn % shards.len();
        if socket.set_nodelay(true).is_err() || shards[to].is_closed() {
            continue;
        }
        let accepted = Accepted { socket: socket.into(), port };
        // A shard that does not keep up takes no more: the socket closes and the client tries again.
        let _closed = shards[to].try_send(accepted).is_err();
    }
}

/// Serves every socket that is dealt to this shard until the dealers are gone.
pub async fn serve_all(mut inbox: Inbox<Accepted>, shard: Rc<Shard>) {
    while !inbox.is_closed() {
        future::poll_fn(|cx| match inbox.is_closed() {
            true => std::task::Poll::Ready(()),
            false => inbox.poll_ready(cx),
        })
        .await;
        while let Some(accepted) = inbox.pop() {
            let Some(place) = shard.enter(CONNECTIONS_PER_SHARD_MAX) else {
                continue; // closing it says more than a wait
            };
            let shard = shard.clone();
            let serve = async move {
                if let Err(why) = serve_one(accepted, shard).await {
                    crate::log::debug!("connection ended", "reason" => why);
                }
                drop(place);
            };
            glommio::spawn_local(serve).detach();
        }
    }
}

async fn serve_one(accepted: Accepted, shard: Rc<Shard>) -> Result<(), String> {
    let mut socket = adopt(accepted.socket);
    let early = match first_bytes(&mut socket).await.map_err(|error| error.to_string())? {
        Some(early) => early,
        None => return Ok(()),
    };
    if early.starts_with(PREFACE) && accepted.port == Port::Client {
        http2::serve(Stream::new(socket, early.freeze()), shard).await
    } else {
        let served = http1::serve(socket, early, shard, accepted.port).await;
        served.map_err(|error| format!("HTTP/1.1: {error}"))
    }
}

/// Reads until it is clear whether this is the HTTP/2 preface. `None` if the client says nothing
/// for [`FIRST_BYTES_WAIT`] or goes away: an idle socket must not hold a place for ever.
async fn first_bytes(socket: &mut TcpStream) -> io::Result<Option<BytesMut>> {
    let mut early = BytesMut::new();
    socket.set_read_timeout(Some(FIRST_BYTES_WAIT)).map_err(io::Error::from)?;
    let mut chunk = [0; 1024];
    while early.len() < PREFACE.len() && PREFACE.starts_with(&early) {
        match socket.read(&mut chunk).await {
            Ok(0) => return Ok(None),
            Ok(read) => early.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    socket.set_read_timeout(None).map_err(io::Error::from)?;
    Ok(Some(early))
}
