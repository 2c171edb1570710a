//! One HTTP/1.1 request by hand.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The number in the status line.
    pub status: u16,
    /// All between status line and body.
    pub headers: String,
    /// All after the headers.
    pub body: String,
}

impl Answer {
    /// A header's value, the name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.headers.lines().find(|line| {
            line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
        });
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// No connection, no answer within ten seconds, or one that is not HTTP/1.1.
pub fn ask(endpoint: &str, method: &str, path: &str) -> io::Result<Answer> {
    ask_with(endpoint, method, path, "", "")
}

/// The same with a body and, each with its line's end, further headers.
///
/// # Errors
/// As [`ask`].
pub fn ask_with(
    endpoint: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> io::Result<Answer> {
    let mut socket = TcpStream::connect(endpoint)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n{headers}"
    )?;
    match body.len() {
        0 => write!(socket, "\r\n")?,
        bytes => write!(socket, "Content-Length: {bytes}\r\n\r\n{body}")?,
    }
    let mut text = Vec::new();
    socket.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text.into_owned()))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let chunked = headers.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(body)? } else { body.into() };
    Some(Answer { status, headers: headers.into(), body })
}

/// RFC 9112 §7.1, without trailers.
fn dechunk(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let plain = parse("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\nbody").unwrap();
        assert_eq!((plain.status, plain.header("content-type")), (200, Some("a/b")));
        assert_eq!((plain.header("date"), plain.body.as_str()), (None, "body"));
        let text =
            "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        let chunked = parse(text).unwrap();
        assert_eq!((chunked.status, chunked.body.as_str()), (503, "abcd"));
        assert!(parse("HTTP/2 200\r\n\r\n").is_none());
    }
}
