//! HTTP/1.1 heads, read and written, and bodies in chunks (RFC 9112). Parsed by `httparse`; what a
//! request means stands with whoever serves it.
//!
//! Nothing here waits or panics, whatever the bytes.

use crate::limits::{HTTP1_CHUNK_HEAD_BYTES_MAX, HTTP1_HEAD_BYTES_MAX, HTTP1_HEADERS_MAX};
use bytes::{Buf, BytesMut};
use std::fmt::Write;

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// By its length in bytes; none at all is 0.
    Known(usize),
    /// By chunks.
    Chunked,
    /// An answer's, by the end of the connection.
    UntilClose,
}

/// The headers of a request or an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of the first header of that name, in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Values that are not UTF-8 are none that anybody here reads: they count as empty.
    fn of(parsed: &[httparse::Header<'_>]) -> Self {
        let value = |raw| std::str::from_utf8(raw).unwrap_or_default().trim().to_owned();
        Self(parsed.iter().map(|header| (header.name.to_owned(), value(header.value))).collect())
    }

    fn keeps_alive(&self, version: Option<u8>) -> bool {
        let close = self.get("connection").is_some_and(|said| said.eq_ignore_ascii_case("close"));
        version == Some(1) && !close
    }

    /// `without` is what no word on the length means.
    fn length(&self, without: Length) -> Option<Length> {
        match (self.get("transfer-encoding"), self.get("content-length")) {
            (Some(coding), None) => {
                coding.eq_ignore_ascii_case("chunked").then_some(Length::Chunked)
            }
            // Two words on the length are how requests are smuggled (RFC 9112 §6.3).
            (Some(_), Some(_)) => None,
            (None, Some(bytes)) => bytes.parse().ok().map(Length::Known),
            (None, None) => Some(without),
        }
    }
}

/// What a request asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As sent: methods have case.
    pub method: String,
    /// A path with its query.
    pub target: String,
    /// Whether the connection goes on after it.
    pub keep_alive: bool,
    /// How its body is delimited; never [`Length::UntilClose`].
    pub length: Length,
    /// Everything else.
    pub headers: Headers,
}

/// How an answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Whether the connection goes on after it.
    pub keep_alive: bool,
    /// How its body is delimited.
    pub length: Length,
    /// Everything else.
    pub headers: Headers,
}

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The head is not whole.
    Partial,
    /// A head, taken off the front.
    Whole(T),
    /// Not one, or one larger than is taken: a status and why.
    Bad(u16, &'static str),
}

/// Takes the head of a request off the front of `input`.
pub fn take_request(input: &mut BytesMut) -> Parsed<Request> {
    const NONE: Parsed<Request> = Parsed::Bad(400, "not an HTTP/1.1 request");
    let mut headers = [httparse::EMPTY_HEADER; HTTP1_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return partial(input),
        Err(_) => return NONE,
    };
    let (Some(method), Some(target)) = (request.method, request.path) else { return NONE };
    let (method, target, version) = (method.to_owned(), target.to_owned(), request.version);
    let headers = Headers::of(request.headers);
    let Some(length) = headers.length(Length::Known(0)) else {
        return Parsed::Bad(400, "bad content-length or transfer-encoding");
    };
    input.advance(len);
    let keep_alive = headers.keeps_alive(version);
    Parsed::Whole(Request { method, target, keep_alive, length, headers })
}

/// Takes the head of an answer off the front of `input`.
pub fn take_response(input: &mut BytesMut) -> Parsed<Response> {
    const NONE: Parsed<Response> = Parsed::Bad(400, "not an HTTP/1.1 response");
    let mut headers = [httparse::EMPTY_HEADER; HTTP1_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return partial(input),
        Err(_) => return NONE,
    };
    let (Some(status), version) = (response.code, response.version) else { return NONE };
    let headers = Headers::of(response.headers);
    let without = if status == 204 { Length::Known(0) } else { Length::UntilClose };
    let Some(length) = headers.length(without) else {
        return Parsed::Bad(400, "bad content-length or transfer-encoding");
    };
    input.advance(len);
    let keep_alive = headers.keeps_alive(version) && length != Length::UntilClose;
    Parsed::Whole(Response { status, keep_alive, length, headers })
}

fn partial<T>(input: &BytesMut) -> Parsed<T> {
    match input.len() > HTTP1_HEAD_BYTES_MAX {
        true => Parsed::Bad(431, "the head is too large"),
        false => Parsed::Partial,
    }
}

/// A body in chunks, taken off its coding piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dechunk {
    /// The size of a chunk comes next.
    Size,
    /// So many bytes of a chunk are still to come.
    Data(usize),
    /// The line's end after a chunk comes next.
    End,
    /// Headers after the last chunk; they are passed over.
    Trailers,
    /// That was all.
    Done,
}

/// Bytes that are no body in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotChunks;

impl Dechunk {
    /// Moves what is there of the body from `input` to the end of `body`.
    ///
    /// # Errors
    /// [`NotChunks`]; what is left in `input` is worth nothing then.
    pub fn step(&mut self, input: &mut BytesMut, body: &mut BytesMut) -> Result<(), NotChunks> {
        while *self != Self::Done && !input.is_empty() {
            match *self {
                Self::Data(left) => {
                    let step = left.min(input.len());
                    body.extend_from_slice(&input[..step]);
                    input.advance(step);
                    *self = if step == left { Self::End } else { Self::Data(left - step) };
                }
                Self::Size | Self::End | Self::Trailers => {
                    let Some(line) = take_line(input)? else { return Ok(()) };
                    *self = self.after(&line)?;
                }
                Self::Done => {}
            }
        }
        Ok(())
    }

    fn after(self, line: &[u8]) -> Result<Self, NotChunks> {
        match self {
            Self::Size => Ok(match chunk_size(line).ok_or(NotChunks)? {
                0 => Self::Trailers,
                size => Self::Data(size),
            }),
            Self::End if line.is_empty() => Ok(Self::Size),
            Self::End => Err(NotChunks),
            Self::Trailers if line.is_empty() => Ok(Self::Done),
            Self::Trailers | Self::Data(_) | Self::Done => Ok(self),
        }
    }
}

/// A line without its end, or none yet.
fn take_line(input: &mut BytesMut) -> Result<Option<BytesMut>, NotChunks> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return if input.len() > HTTP1_CHUNK_HEAD_BYTES_MAX { Err(NotChunks) } else { Ok(None) };
    };
    let mut line = input.split_to(end + 1);
    line.truncate(end - usize::from(end > 0 && line[end - 1] == b'\r'));
    Ok(Some(line))
}

/// Up to eight hex digits, then perhaps an extension, which says nothing to us.
fn chunk_size(line: &[u8]) -> Option<usize> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let text = std::str::from_utf8(digits).ok().filter(|text| text.len() <= 8)?;
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| usize::from_str_radix(text, 16).ok()).flatten()
}

/// The standard phrase of a status (RFC 9110 §15).
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// Begins an answer: its status line and these headers. [`finish_head`] ends it.
pub fn begin_response(status: u16, headers: &[(&str, &str)]) -> String {
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a string takes everything");
    }
    head
}

/// Ends the head of an answer whose body follows whole.
pub fn finish_head(head: &mut String, body_bytes: Option<usize>, keep_alive: bool) {
    if let Some(bytes) = body_bytes {
        write!(head, "Content-Length: {bytes}\r\n").expect("a string takes everything");
    }
    head.push_str(if keep_alive { "\r\n" } else { "Connection: close\r\n\r\n" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::fuzz;

    fn request(text: &[u8]) -> Parsed<Request> {
        take_request(&mut BytesMut::from(text))
    }

    #[test]
    fn heads_are_read_whole_or_refused() {
        let mut input = BytesMut::from(&b"GET /health?x=1 HTTP/1.1\r\nHost: a\r\n\r\nrest"[..]);
        let Parsed::Whole(head) = take_request(&mut input) else { panic!("a whole head") };
        assert_eq!((head.method.as_str(), head.target.as_str()), ("GET", "/health?x=1"));
        assert_eq!((head.keep_alive, head.length), (true, Length::Known(0)));
        assert_eq!((&input[..], head.headers.get("hOST")), (&b"rest"[..], Some("a")));
        assert_eq!(request(b"GET / HTTP/1.1\r\nHo"), Parsed::Partial);
        for bad in [
            &b"\x16\x03\x01\x02\x00"[..],
            b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(matches!(request(bad), Parsed::Bad(400, _)), "{bad:?}");
        }
        assert!(matches!(request(&[b'a'; HTTP1_HEAD_BYTES_MAX + 1]), Parsed::Bad(431, _)));
        let Parsed::Whole(old) = request(b"GET / HTTP/1.0\r\n\r\n") else { panic!("a whole head") };
        assert!(!old.keep_alive);
    }

    #[test]
    fn answers_say_how_their_bodies_end() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (200, true, Length::Known(5))),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", (200, true, Length::Chunked)),
            ("HTTP/1.1 204 No Content\r\n\r\n", (204, true, Length::Known(0))),
            ("HTTP/1.1 200 OK\r\n\r\n", (200, false, Length::UntilClose)),
        ] {
            let Parsed::Whole(head) = take_response(&mut text.into()) else { panic!("{text}") };
            assert_eq!((head.status, head.keep_alive, head.length), expected, "{text}");
        }
    }

    #[test]
    fn chunks_are_put_together_however_they_arrive() {
        let coded = b"5;x=y\r\nhello\r\nA\r\n, world !!\r\n0\r\nTrailer: 1\r\n\r\nnext";
        for step in 1..coded.len() {
            let (mut state, mut input, mut body) =
                (Dechunk::Size, BytesMut::new(), BytesMut::new());
            for piece in coded.chunks(step) {
                input.extend_from_slice(piece);
                state.step(&mut input, &mut body).expect("these are chunks");
            }
            assert_eq!((state, &body[..]), (Dechunk::Done, &b"hello, world !!"[..]), "{step}");
            assert_eq!(&input[..], b"next");
        }
        for bad in ["x\r\n", "\r\n", "5\r\nhelloo\r\n", "123456789\r\n", &"1".repeat(5000)] {
            let (mut state, mut body) = (Dechunk::Size, BytesMut::new());
            assert_eq!(state.step(&mut bad.into(), &mut body), Err(NotChunks), "{bad}");
        }
    }

    #[test]
    fn spoiled_heads_and_chunks_are_read_or_refused() {
        fuzz("http1 head", |dice| {
            let mut text =
                b"POST /raft HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_vec();
            dice.spoil(&mut text);
            let mut input = BytesMut::from(&text[..]);
            let left = match take_request(&mut input) {
                Parsed::Whole(head) => {
                    assert!(!head.method.is_empty() && head.length != Length::UntilClose);
                    text.len() - input.len()
                }
                _ => 0,
            };
            assert!(left <= text.len());
            let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc".to_vec();
            dice.spoil(&mut answer);
            if let Parsed::Whole(head) = take_response(&mut BytesMut::from(&answer[..])) {
                assert!(head.status <= 999);
            }
        });
        fuzz("http1 chunks", |dice| {
            let mut text = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec();
            dice.spoil(&mut text);
            let (mut state, mut body) = (Dechunk::Size, BytesMut::new());
            let mut input = BytesMut::from(&text[..]);
            if state.step(&mut input, &mut body).is_ok() {
                assert!(body.len() + input.len() <= text.len());
            }
        });
    }
}
