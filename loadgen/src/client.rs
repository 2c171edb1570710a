//! A client that makes one call at a time and waits for it, never longer than its timeout: for
//! tests.
//!
//! ```no_run
//! use proto::etcdserverpb::{PutRequest, PutResponse, kv};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = loadgen::client::Client::connect("127.0.0.1:2379")?;
//! let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
//! let response: PutResponse = client.unary(kv::PUT, &put)?;
//! # Ok(()) }
//! ```

use std::{
    io::{self, ErrorKind, Read, Write},
    marker::PhantomData,
    net::TcpStream,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use prost::Message;

use crate::{
    grpc::{self, Status, Verdict, code},
    h2::{Broken, Connection, Event},
};

/// How long a call waits for its next message, unless [`Client::set_timeout`] says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// Read from the socket at a time.
const READ_BYTES_MAX: usize = 1 << 16;

/// A socket and the protocol's state, greeted by the server.
pub(crate) struct Dialed {
    pub(crate) socket: TcpStream,
    pub(crate) connection: Connection,
    pub(crate) authority: String,
}

/// Connects to `host:port`, with or without `http://`, and waits for the server's SETTINGS.
pub(crate) fn dial(endpoint: &str, timeout: Duration) -> io::Result<Dialed> {
    let authority = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot reach {authority}: {error}"))
    };
    let socket = TcpStream::connect(authority).map_err(named)?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(timeout))?;
    let connection = Connection::default();
    let mut dialed = Dialed { socket, connection, authority: authority.to_owned() };
    let deadline = Instant::now() + timeout;
    while !dialed.connection.greeted() {
        dialed.flush().map_err(named)?;
        dialed.read(deadline, |_| {}).map_err(named)?;
    }
    dialed.flush().map_err(named)?;
    Ok(dialed)
}

impl Dialed {
    fn flush(&mut self) -> io::Result<()> {
        let bytes = self.connection.out().len();
        self.socket.write_all(self.connection.out())?;
        self.connection.sent(bytes);
        Ok(())
    }

    /// Reads once, and answers what the protocol wants answered with the next flush.
    fn read(&mut self, deadline: Instant, mut on: impl FnMut(Event<'_>)) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left))?;
        let mut buffer = [0; READ_BYTES_MAX];
        let read = match self.socket.read(&mut buffer) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed by the server")),
            // How a read timeout shows on Linux.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            read => read?,
        };
        let broken = |broken: Broken| io::Error::new(ErrorKind::InvalidData, broken);
        self.connection.receive(&buffer[..read], |_, event| on(event)).map_err(broken)
    }
}

/// A connection on which one call is made at a time.
pub struct Client {
    dialed: Dialed,
    timeout: Duration,
}

impl Client {
    /// Connects to `host:port`, with or without `http://`.
    pub fn connect(endpoint: &str) -> io::Result<Self> {
        Ok(Self { dialed: dial(endpoint, TIMEOUT)?, timeout: TIMEOUT })
    }

    /// How long each message of an answer may take from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// One request, one response. `path` is one of [`proto`]'s, such as
    /// [`proto::etcdserverpb::kv::PUT`].
    pub fn unary<Req, Resp>(&mut self, path: &str, request: &Req) -> Result<Resp, Status>
    where
        Req: Message,
        Resp: Message + Default,
    {
        let mut replies = self.stream(path, request)?;
        let response = replies.next();
        match (response, replies.next()) {
            (Some(Err(status)), _) | (_, Some(Err(status))) => Err(status),
            (Some(Ok(response)), None) => Ok(response),
            (None, _) => Err(Status::new(code::INTERNAL, "success without a message")),
            (Some(Ok(_)), Some(Ok(_))) => {
                Err(Status::new(code::INTERNAL, "a second message where there can be one"))
            }
        }
    }

    /// One request, any number of responses. Dropping the iterator cancels the call.
    pub fn stream<Req, Resp>(
        &mut self,
        path: &str,
        request: &Req,
    ) -> Result<Replies<'_, Resp>, Status>
    where
        Req: Message,
        Resp: Message + Default,
    {
        let head = grpc::head(path, &self.dialed.authority);
        let sent = self.dialed.connection.request(0, &head, &grpc::body(request));
        let stream = sent.map_err(|broken| Status::new(code::UNAVAILABLE, broken.to_string()))?;
        self.dialed.flush().map_err(|error| lost(&error))?;
        Ok(Replies {
            client: self,
            stream,
            body: BytesMut::new(),
            verdict: Verdict::default(),
            ended: None,
            over: false,
            messages: PhantomData,
        })
    }
}

/// The messages of one answer as they come, then the error if the call failed.
pub struct Replies<'a, Resp> {
    client: &'a mut Client,
    stream: u32,
    body: BytesMut,
    verdict: Verdict,
    /// Set once the server has said all.
    ended: Option<Result<(), Status>>,
    over: bool,
    messages: PhantomData<Resp>,
}

impl<Resp: Message + Default> Replies<'_, Resp> {
    /// The next message; none at the end of a call that went well.
    fn advance(&mut self) -> Result<Option<Resp>, Status> {
        let deadline = Instant::now() + self.client.timeout;
        loop {
            if let Some(message) = grpc::take_message(&mut self.body)? {
                let message = Resp::decode(message);
                return message
                    .map(Some)
                    .map_err(|error| Status::new(code::INTERNAL, error.to_string()));
            }
            match self.ended.clone() {
                Some(Ok(())) if !self.body.is_empty() => {
                    return Err(Status::new(code::INTERNAL, "the answer ends inside a message"));
                }
                Some(end) => return end.map(|()| None),
                None => self.read(deadline).map_err(|error| lost(&error))?,
            }
        }
    }

    fn read(&mut self, deadline: Instant) -> io::Result<()> {
        let Self { client, body, verdict, ended, .. } = self;
        client.dialed.read(deadline, |event| match event {
            Event::Headers(fields) => verdict.add(fields),
            Event::Data(bytes) => body.extend_from_slice(bytes),
            Event::End => *ended = Some(verdict.read()),
            Event::Reset(code) => *ended = Some(Err(grpc::reset(code))),
        })?;
        client.dialed.flush()
    }
}

impl<Resp: Message + Default> Iterator for Replies<'_, Resp> {
    type Item = Result<Resp, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.advance().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<Resp> Drop for Replies<'_, Resp> {
    fn drop(&mut self) {
        self.client.dialed.connection.cancel(self.stream);
        // If this fails, so will the next call, and it can say so.
        self.client.dialed.flush().ok();
    }
}

fn lost(error: &io::Error) -> Status {
    match error.kind() {
        ErrorKind::TimedOut => Status::new(code::DEADLINE_EXCEEDED, "no answer in time"),
        _ => Status::new(code::UNAVAILABLE, error.to_string()),
    }
}
