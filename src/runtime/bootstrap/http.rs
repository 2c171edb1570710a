//! One HTTP/1.1 request on a connection of its own, for a member that has no executor yet.
//!
//! Every wait and every answer has a bound. Redirects are not followed, as etcd does not follow
//! them when members ask members.
#![allow(clippy::disallowed_methods, reason = "a start waits for the world, and is not simulated")]

use super::names;
use crate::{
    config::{Scheme, Url},
    limits::{BOOTSTRAP_ANSWER_BYTES_MAX, BOOTSTRAP_HEADERS_MAX},
    log::span_text,
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number in the status line.
    pub status: u16,
    headers: Vec<(String, Vec<u8>)>,
    /// Everything after the head, unpacked.
    pub body: Vec<u8>,
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the host's address and a connection.
    pub dial: Duration,
    /// For the answer, after that.
    pub request: Duration,
}

impl Patience {
    /// So long for all of it, in either part.
    pub fn of(wait: Duration) -> Self {
        Self { dial: wait, request: wait }
    }
}

impl Answer {
    /// A header's value, the name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(&found.1).ok()
    }
}

/// Whether a URL can be asked.
pub fn can_ask(url: &Url) -> bool {
    url.scheme == Scheme::Http
}

/// GETs a path below a URL.
///
/// # Errors
/// Why there is no whole answer, for people.
pub fn get(url: &Url, path: &str, patience: Patience) -> Result<Answer, String> {
    ask(url, &format!("GET {path} HTTP/1.1\r\n"), "", patience)
}

/// POSTs JSON to a path below a URL.
///
/// # Errors
/// As [`get`].
pub fn post(url: &Url, path: &str, json: &str, patience: Patience) -> Result<Answer, String> {
    let length = json.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    );
    ask(url, &head, json, patience)
}

fn ask(url: &Url, head: &str, body: &str, patience: Patience) -> Result<Answer, String> {
    if !can_ask(url) {
        return Err(format!("{url}: only http can be spoken; TLS is not built yet"));
    }
    let mut socket = dial(url, patience.dial)?;
    let end = Instant::now() + patience.request;
    let host = url.as_str().trim_start_matches("http://");
    let request = format!("{head}Host: {host}\r\nConnection: close\r\n\r\n{body}");
    exchange(&mut socket, request.as_bytes(), end).map_err(|error| match error {
        Broken::Slow => format!("{url}: no answer within {}", span_text(patience.request)),
        Broken::Socket(error) => format!("{url}: {error}"),
        Broken::Answer(why) => format!("{url}: {why}"),
    })
}

fn dial(url: &Url, limit: Duration) -> Result<TcpStream, String> {
    let end = Instant::now() + limit;
    let mut said = String::new();
    for ip in names::lookup(&url.host, limit)? {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&SocketAddr::new(ip, url.port), left) {
            Ok(socket) => return Ok(socket),
            Err(error) => said = format!("dial {ip} port {}: {error}", url.port),
        }
    }
    Err(if said.is_empty() { format!("dial {url}: no time left") } else { said })
}

/// Why there is no answer.
enum Broken {
    Slow,
    Socket(std::io::Error),
    Answer(String),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Slow,
            _ => Self::Socket(error),
        }
    }
}

fn exchange(socket: &mut TcpStream, request: &[u8], end: Instant) -> Result<Answer, Broken> {
    let left = || match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(Broken::Slow),
        left => Ok(left),
    };
    socket.set_write_timeout(Some(left()?))?;
    socket.write_all(request)?;
    let (mut bytes, mut piece) = (Vec::new(), [0; 8 << 10]);
    loop {
        socket.set_read_timeout(Some(left()?))?;
        let count = match socket.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            count => count?,
        };
        bytes.extend_from_slice(&piece[..count]);
        if bytes.len() > BOOTSTRAP_ANSWER_BYTES_MAX {
            let most = BOOTSTRAP_ANSWER_BYTES_MAX;
            return Err(Broken::Answer(format!("the answer has more than {most} bytes")));
        }
        match parse(&bytes, count == 0).map_err(Broken::Answer)? {
            Some(answer) => return Ok(answer),
            None if count == 0 => {
                let why = "the connection ended before the answer did";
                return Err(Broken::Answer(why.into()));
            }
            None => {}
        }
    }
}

/// An answer, once it is whole; `ended` says that no byte follows.
pub(super) fn parse(bytes: &[u8], ended: bool) -> Result<Option<Answer>, String> {
    let mut headers = [httparse::EMPTY_HEADER; BOOTSTRAP_HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let start = match head.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("the answer is not HTTP/1.1: {error}")),
    };
    let headers = head.headers.iter();
    let mut answer = Answer {
        status: head.code.unwrap_or_default(),
        headers: headers.map(|h| (h.name.to_owned(), h.value.to_vec())).collect(),
        body: Vec::new(),
    };
    let rest = &bytes[start..];
    let body = match length(&answer)? {
        Length::Counted(count) => rest.get(..count).map(<[u8]>::to_vec),
        Length::Chunked => unchunked(rest)?,
        Length::ToTheEnd => ended.then(|| rest.to_vec()),
    };
    Ok(body.map(|body| {
        answer.body = body;
        answer
    }))
}

/// Where a body ends (RFC 9112 §6.3).
enum Length {
    Counted(usize),
    Chunked,
    ToTheEnd,
}

fn length(answer: &Answer) -> Result<Length, String> {
    if answer.status < 200 || [204, 304].contains(&answer.status) {
        return Ok(Length::Counted(0));
    }
    match (answer.header("transfer-encoding"), answer.header("content-length")) {
        (Some(coding), _) if coding.trim().eq_ignore_ascii_case("chunked") => Ok(Length::Chunked),
        (Some(coding), _) => Err(format!("the answer has an unknown coding, {coding:?}")),
        (None, None) => Ok(Length::ToTheEnd),
        (None, Some(digits)) => match digits.trim().parse() {
            Ok(count) if count <= BOOTSTRAP_ANSWER_BYTES_MAX => Ok(Length::Counted(count)),
            _ => Err(format!("the answer is {digits:?} bytes long, which is not taken")),
        },
    }
}

/// RFC 9112 §7.1; trailers are not read. None where a piece is missing.
fn unchunked(mut rest: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let broken = || "the answer has a broken chunk".to_owned();
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(broken()),
        };
        let size = usize::try_from(size).ok().filter(|size| *size <= BOOTSTRAP_ANSWER_BYTES_MAX);
        let size = size.ok_or_else(broken)?;
        if size == 0 {
            return Ok(Some(body));
        }
        let Some(chunk) = rest.get(start..start + size) else { return Ok(None) };
        body.extend_from_slice(chunk);
        rest = &rest[start + size..];
        match rest {
            [b'\r', b'\n', after @ ..] => rest = after,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(broken()),
        }
    }
}
