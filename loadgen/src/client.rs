//! A client that makes one call at a time and waits for it, never longer than its timeout: for
//! tests. A call may be a conversation, with messages both ways: [`Duplex`].
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
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::{
    grpc::{self, Status, Verdict, code},
    h2::{Broken, Connection, Event, Window},
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
pub(crate) fn dial(endpoint: &str, window: Window, timeout: Duration) -> io::Result<Dialed> {
    let authority = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot reach {authority}: {error}"))
    };
    let socket = reach(authority, timeout).map_err(named)?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(timeout))?;
    let connection = Connection::new(window);
    let mut dialed = Dialed { socket, connection, authority: authority.to_owned() };
    let deadline = Instant::now() + timeout;
    while !dialed.connection.greeted() {
        dialed.flush().map_err(named)?;
        dialed.read(deadline, |_| {}).map_err(named)?;
    }
    dialed.flush().map_err(named)?;
    Ok(dialed)
}

/// The first address of the name that takes a connection in time.
fn reach(authority: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
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
        let mut buffer = [0; READ_BYTES_MAX];
        let read = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed by the server"));
                }
                // A socket that has a timeout says so once a stopped process goes on: signal(7).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // How a read timeout shows on Linux.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                read => break read?,
            }
        };
        let broken = |broken: Broken| io::Error::new(ErrorKind::InvalidData, broken);
        self.connection.receive(&buffer[..read], |_, event| on(event)).map_err(broken)
    }
}

/// A connection on which one call is made at a time.
pub struct Client {
    dialed: Dialed,
    timeout: Duration,
    /// Headers that each call has beside what all have.
    metadata: Vec<(&'static str, String)>,
}

impl Client {
    /// Connects to `host:port`, with or without `http://`.
    pub fn connect(endpoint: &str) -> io::Result<Self> {
        Self::connect_within(endpoint, TIMEOUT)
    }

    /// As [`Self::connect`], where nothing may take longer than this: neither to be connected and
    /// greeted, nor, until [`Self::set_timeout`] says otherwise, each message of an answer.
    pub fn connect_within(endpoint: &str, timeout: Duration) -> io::Result<Self> {
        let dialed = dial(endpoint, Window::Wide, timeout)?;
        Ok(Self { dialed, timeout, metadata: Vec::new() })
    }

    /// Sends this header with each call from now on, such as `hasleader: true`.
    pub fn add_metadata(&mut self, name: &'static str, value: impl Into<String>) {
        self.metadata.push((name, value.into()));
    }

    fn head(&self, path: &str) -> Vec<u8> {
        let mut head = grpc::head(path, &self.dialed.authority);
        self.metadata.iter().for_each(|(name, value)| grpc::add_header(name, value, &mut head));
        head
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
        let head = self.head(path);
        let sent = self.dialed.connection.request(0, &head, &grpc::body(request));
        let stream = sent.map_err(|broken| Status::new(code::UNAVAILABLE, broken.to_string()))?;
        self.dialed.flush().map_err(|error| lost(&error))?;
        let hearing = Hearing::default();
        Ok(Replies { client: self, stream, hearing, over: false, messages: PhantomData })
    }

    /// Opens a call with messages both ways, and gives it the connection.
    pub fn duplex(mut self, path: &str) -> Result<Duplex, Status> {
        let head = self.head(path);
        let opened = self.dialed.connection.open(0, &head);
        let stream = opened.map_err(|broken| Status::new(code::UNAVAILABLE, broken.to_string()))?;
        self.dialed.flush().map_err(|error| lost(&error))?;
        Ok(Duplex { dialed: self.dialed, stream, hearing: Hearing::default() })
    }
}

/// One call with messages both ways, alone on its connection. Dropping it closes the connection.
pub struct Duplex {
    dialed: Dialed,
    stream: u32,
    hearing: Hearing,
}

impl Duplex {
    /// Sends a message. After the server has ended the call nothing is sent, and [`Self::next`]
    /// says how it ended.
    pub fn send(&mut self, message: &impl Message) -> Result<(), Status> {
        self.dialed.connection.send(self.stream, &grpc::body(message));
        self.dialed.flush().map_err(|error| lost(&error))
    }

    /// Says that no more messages follow. The server may go on.
    pub fn finish(&mut self) -> Result<(), Status> {
        self.dialed.connection.finish(self.stream);
        self.dialed.flush().map_err(|error| lost(&error))
    }

    /// The server's next message; none where the call ended well.
    ///
    /// # Errors
    /// [`code::DEADLINE_EXCEEDED`] where no message came within the time, and one may come later;
    /// how the call failed otherwise.
    pub fn next<Resp: Message + Default>(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<Resp>, Status> {
        let deadline = Instant::now() + timeout;
        let message = self.hearing.next(&mut self.dialed, deadline)?;
        message.map(decoded).transpose()
    }
}

/// What was heard of one answer and not yet passed on.
#[derive(Default)]
struct Hearing {
    body: BytesMut,
    verdict: Verdict,
    /// Set once the server has said all.
    ended: Option<Result<(), Status>>,
}

impl Hearing {
    /// The next message; none at the end of a call that went well.
    fn next(&mut self, dialed: &mut Dialed, deadline: Instant) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = grpc::take_message(&mut self.body)? {
                return Ok(Some(message));
            }
            match self.ended.clone() {
                Some(Ok(())) if !self.body.is_empty() => {
                    return Err(Status::new(code::INTERNAL, "the answer ends inside a message"));
                }
                Some(end) => return end.map(|()| None),
                None => self.read(dialed, deadline).map_err(|error| lost(&error))?,
            }
        }
    }

    fn read(&mut self, dialed: &mut Dialed, deadline: Instant) -> io::Result<()> {
        let Self { body, verdict, ended } = self;
        dialed.read(deadline, |event| match event {
            Event::Headers(fields) => verdict.add(fields),
            Event::Data(bytes) => body.extend_from_slice(bytes),
            Event::End => *ended = Some(verdict.read()),
            Event::Reset(code) => *ended = Some(Err(grpc::reset(code))),
        })?;
        dialed.flush()
    }
}

fn decoded<Resp: Message + Default>(message: Bytes) -> Result<Resp, Status> {
    Resp::decode(message).map_err(|error| Status::new(code::INTERNAL, error.to_string()))
}

/// The messages of one answer as they come, then the error if the call failed.
pub struct Replies<'a, Resp> {
    client: &'a mut Client,
    stream: u32,
    hearing: Hearing,
    over: bool,
    messages: PhantomData<Resp>,
}

impl<Resp: Message + Default> Replies<'_, Resp> {
    fn advance(&mut self) -> Result<Option<Resp>, Status> {
        let deadline = Instant::now() + self.client.timeout;
        let message = self.hearing.next(&mut self.client.dialed, deadline)?;
        message.map(decoded).transpose()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{Shutdown, TcpListener},
        process::{self, Command},
    };

    #[test]
    fn a_read_goes_on_when_the_process_was_stopped_for_a_moment() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let dialing = std::thread::spawn(move || dial(&endpoint, Window::Wide, TIMEOUT).err());
        let (silent, _) = listener.accept().unwrap();
        let id = process::id();
        let script = format!("sleep 0.1; kill -STOP {id}; sleep 0.1; kill -CONT {id}; sleep 0.1");
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        silent.shutdown(Shutdown::Write).unwrap();

        let error = dialing.join().unwrap().unwrap();
        assert!(error.to_string().ends_with("closed by the server"), "{error}");
    }
}
