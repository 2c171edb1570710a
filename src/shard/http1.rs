//! HTTP/1.1 on one connection: health, version and metrics for probes, scrapers and people.
//!
//! One request at a time, small heads, no bodies to speak of. Everything that can be asked stands
//! in [`super::http`].

use super::Shard;
use super::http::{self, Answer};
use crate::{
    limits::HTTP1_BODY_BYTES_MAX,
    net::http1::{Length, Parsed, begin_response, finish_head, take_request},
};
use bytes::{Buf, BytesMut};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;
use std::{io, rc::Rc};

/// Serves one connection until either side ends it. `early` was read before anybody knew which
/// protocol it is.
///
/// # Errors
/// What the socket says.
pub async fn serve(mut socket: TcpStream, early: BytesMut, shard: Rc<Shard>) -> io::Result<()> {
    let mut input = early;
    loop {
        let head = match take_request(&mut input) {
            Parsed::Whole(head) => head,
            Parsed::Bad(status, why) => {
                let answer = Answer::text(status, format!("{why}\n"));
                return write(&mut socket, &answer, false, false).await;
            }
            Parsed::Partial => {
                if !read_more(&mut socket, &mut input).await? {
                    return Ok(());
                }
                continue;
            }
        };
        let Length::Known(body_bytes) = head.length else {
            let answer = Answer::text(400, "chunked request bodies are not taken here\n");
            return write(&mut socket, &answer, false, false).await;
        };
        if body_bytes > HTTP1_BODY_BYTES_MAX {
            let answer = Answer::text(413, "the request's body is too large\n");
            return write(&mut socket, &answer, false, false).await;
        }
        while input.len() < body_bytes {
            if !read_more(&mut socket, &mut input).await? {
                return Ok(());
            }
        }
        input.advance(body_bytes);
        let answer = http::answer(&shard, &head.method, &head.target).await;
        write(&mut socket, &answer, head.keep_alive, head.method == "HEAD").await?;
        if !head.keep_alive {
            return socket.close().await;
        }
    }
}

/// False at the end of the stream.
async fn read_more(socket: &mut TcpStream, input: &mut BytesMut) -> io::Result<bool> {
    let mut chunk = [0; 4096];
    let read = socket.read(&mut chunk).await?;
    input.extend_from_slice(&chunk[..read]);
    Ok(read > 0)
}

async fn write(
    socket: &mut TcpStream,
    answer: &Answer,
    keep_alive: bool,
    head_only: bool,
) -> io::Result<()> {
    let mut headers = vec![("Content-Type", answer.content_type)];
    headers.extend((answer.status == 405).then_some(("Allow", "GET")));
    let mut head = begin_response(answer.status, &headers);
    finish_head(&mut head, Some(answer.body.len()), keep_alive);
    if !head_only {
        head.push_str(&answer.body);
    }
    socket.write_all(head.as_bytes()).await?;
    socket.flush().await
}
