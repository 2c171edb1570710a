//! Serving what the dealers hand to this core. A shard finds out from the first bytes whether a
//! connection speaks HTTP/2 or HTTP/1.1.

use super::{Shard, http1, http2, stream::Stream};
use crate::{
    limits::{CONNECTIONS_PER_SHARD_MAX, FIRST_BYTES_WAIT},
    mesh::Inbox,
    net::Accepted,
};
use bytes::BytesMut;
use futures_lite::{AsyncReadExt, future};
use glommio::net::TcpStream;
use std::{io, rc::Rc};

/// What every HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
    let mut socket = accepted.adopt();
    let early = match first_bytes(&mut socket).await.map_err(|error| error.to_string())? {
        Some(early) => early,
        None => return Ok(()),
    };
    if early.starts_with(PREFACE) {
        http2::serve(Stream::new(socket, early.freeze()), shard).await
    } else {
        let served = http1::serve(socket, early, shard).await;
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
