//! HTTP/2 on one socket: what it reads goes into a [`Connection`], requests go to the shard, and
//! what the connection says leaves in one send a turn.
//!
//! A request costs no task: it is handed over on the spot, and its [`Responder`] answers from
//! wherever on this core the answer comes about. Answers gather until the socket's task runs next.
//! Where the request is a stream of messages, a [`Call`] is handed over as soon as it is opened.
//!
//! ```text
//!                 ┌─────────────── this task ───────────────┐
//!  socket ─ read ─► Connection::receive ─► Shard::on_body ──┼─► …
//!                 │                      └ Shard::on_call ──┼─► …
//!         ◄ send ─┤ Connection::out     ◄───────────────────┼── Responder, Answers, Call
//!                 └─────────────────────────────────────────┘
//! ```

mod call;
pub mod connection;
pub mod frame;
mod head;
mod hpack;
pub(super) mod huffman;
mod incoming;
mod link;
mod pings;
mod reply;
mod respond;
mod send;
mod streams;
#[cfg(test)]
mod tests;

pub use call::Call;
pub use head::Metadata;
pub use incoming::Inbound;
pub use link::Links;
pub use respond::{Answers, Gone, Responder};
pub use send::Progress;

use super::{Shard, stream::Stream};
use crate::limits::{HTTP2_LINGER_BYTES_MAX, HTTP2_LINGER_WAIT, HTTP2_READ_BYTES};
use connection::{Connection, Rules};
use frame::Goaway;
use link::Link;
use std::{future::poll_fn, io, rc::Rc};

/// Serves one connection until either side ends it.
///
/// # Errors
/// A sentence for the log: what the client did that HTTP/2 forbids, or why the socket broke.
pub async fn serve(mut stream: Stream, shard: Rc<Shard>) -> Result<(), String> {
    let limits = shard.limits();
    let link = Rc::new(Link::new(Connection::new(Rules {
        concurrent_streams_max: limits.concurrent_streams_max,
        message_bytes_max: limits.message_bytes_max,
        takes_stream: limits.takes_stream,
    })));
    let number = shard.links.enter(&link);
    let served = poll_fn(|cx| link.poll(&mut stream, &shard, cx)).await;
    shard.links.exit(number);
    link.close();
    match served {
        Ok(End::Gone) => Ok(()),
        Ok(End::Left) => linger(stream).await,
        Ok(End::Broken(goaway)) => {
            linger(stream).await?;
            Err(format!("HTTP/2: {goaway}"))
        }
        Err(error) => Err(format!("HTTP/2: {error}")),
    }
}

/// How a connection ended, once all that was to be said is sent.
enum End {
    /// The client closed it.
    Gone,
    /// We said that we leave, and everything is answered.
    Left,
    /// The client broke a rule.
    Broken(Goaway),
}

/// Closes our side and waits a moment for the client's: closing the socket while bytes of the
/// client lie unread would reset it, and the client might never read the GOAWAY.
async fn linger(mut stream: Stream) -> Result<(), String> {
    let mut unread = vec![0; HTTP2_READ_BYTES];
    let mut left = HTTP2_LINGER_BYTES_MAX;
    let ended = async {
        poll_fn(|cx| stream.poll_close(cx)).await?;
        stream.set_read_timeout(HTTP2_LINGER_WAIT)?;
        while left > 0 {
            match poll_fn(|cx| stream.poll_read(cx, &mut unread)).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<(), io::Error>(())
    };
    // The socket closes in any case; why it did so sooner is nobody's concern.
    let _reason = ended.await.is_err();
    Ok(())
}
