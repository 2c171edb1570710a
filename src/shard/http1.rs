//! HTTP/1.1 on one connection: health, version and metrics for probes, scrapers and people.
//!
//! One request at a time, small heads, no bodies to speak of. Parsed by `httparse`; everything that
//! can be asked stands in [`super::http`].

use super::Shard;
use super::http::{self, Answer};
use crate::limits::{HTTP1_BODY_BYTES_MAX, HTTP1_HEAD_BYTES_MAX, HTTP1_HEADERS_MAX};
use bytes::{Buf, BytesMut};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;
use std::{io, rc::Rc};

/// Which port a connection came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// A client URL.
    Client,
    /// A peer URL.
    Peer,
}

/// What a request asks, as far as anybody here cares.
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) keep_alive: bool,
    pub(super) body_bytes: usize,
}

pub(super) enum Parsed {
    Partial,
    Whole(Head, usize),
    Bad(&'static str),
}

/// Serves one connection until either side ends it. `early` was read before anybody knew which
/// protocol it is.
///
/// # Errors
/// What the socket says.
pub async fn serve(
    mut socket: TcpStream,
    early: BytesMut,
    shard: Rc<Shard>,
    port: Port,
) -> io::Result<()> {
    let mut input = early;
    loop {
        let head = match parse(&input) {
            Parsed::Whole(head, len) => {
                input.advance(len);
                head
            }
            Parsed::Bad(why) => {
                let answer = Answer::text(400, format!("{why}\n"));
                return write(&mut socket, &answer, false, false).await;
            }
            Parsed::Partial if input.len() > HTTP1_HEAD_BYTES_MAX => {
                let answer = Answer::text(431, "the request's head is too large\n");
                return write(&mut socket, &answer, false, false).await;
            }
            Parsed::Partial => {
                if !read_more(&mut socket, &mut input).await? {
                    return Ok(());
                }
                continue;
            }
        };
        if head.body_bytes > HTTP1_BODY_BYTES_MAX {
            let answer = Answer::text(413, "the request's body is too large\n");
            return write(&mut socket, &answer, false, false).await;
        }
        while input.len() < head.body_bytes {
            if !read_more(&mut socket, &mut input).await? {
                return Ok(());
            }
        }
        input.advance(head.body_bytes);
        let answer = http::answer(&shard, port, &head.method, &head.target).await;
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

/// Reads the head of the request that `input` begins with. Never panics, whatever the bytes.
pub(super) fn parse(input: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HTTP1_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Bad("not an HTTP/1.1 request"),
    };
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Parsed::Bad("not an HTTP/1.1 request");
    };
    let mut head = Head {
        method: method.into(),
        target: target.into(),
        keep_alive: request.version == Some(1),
        body_bytes: 0,
    };
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("connection") {
            head.keep_alive &= !value.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("content-length") {
            let Ok(bytes) = value.parse() else { return Parsed::Bad("bad content-length") };
            head.body_bytes = bytes;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Parsed::Bad("chunked request bodies are not taken here");
        }
    }
    Parsed::Whole(head, len)
}

async fn write(
    socket: &mut TcpStream,
    answer: &Answer,
    keep_alive: bool,
    head_only: bool,
) -> io::Result<()> {
    let connection = if keep_alive { "" } else { "Connection: close\r\n" };
    let allow = if answer.status == 405 { "Allow: GET\r\n" } else { "" };
    let mut out = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}{connection}\r\n",
        answer.status,
        reason(answer.status),
        answer.content_type,
        answer.body.len(),
    )
    .into_bytes();
    if !head_only {
        out.extend_from_slice(answer.body.as_bytes());
    }
    socket.write_all(&out).await?;
    socket.flush().await
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_whole_or_refused() {
        let Parsed::Whole(head, len) = parse(b"GET /health?x=1 HTTP/1.1\r\nHost: a\r\n\r\nrest")
        else {
            panic!("a whole head")
        };
        assert_eq!((head.method.as_str(), head.target.as_str()), ("GET", "/health?x=1"));
        assert_eq!((head.keep_alive, head.body_bytes, len), (true, 0, 37));
        assert!(matches!(parse(b"GET / HTTP/1.1\r\nHo"), Parsed::Partial));
        assert!(matches!(parse(b"\x16\x03\x01\x02\x00"), Parsed::Bad(_)), "a TLS hello");
        assert!(matches!(parse(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), Parsed::Bad(_)));
        let Parsed::Whole(old, _) = parse(b"GET / HTTP/1.0\r\n\r\n") else {
            panic!("a whole head")
        };
        assert!(!old.keep_alive);
    }
}
