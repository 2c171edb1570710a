//! One connection of a loop that has many: a socket that does not block, and the protocol's state.

use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    mem,
    net::TcpStream,
    time::Duration,
};

use crate::{
    client::{Dialed, dial},
    grpc::{self, Status},
    h2::{Broken, Connection, Event, Window},
    poll::Poll,
};

/// Longer than any server should take to accept, or to answer anybody at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Read from one connection before its answers are looked at.
pub(crate) const READ_BYTES_MAX: usize = 1 << 18;

/// Why there is no report.
#[derive(Debug)]
pub enum Failure {
    /// A connection could not be made, or was lost.
    Io(io::Error),
    /// A connection cannot be used any more.
    Broken(Broken),
    /// So many calls were open, and no bytes came for 30 seconds.
    Stalled(usize),
    /// A call that the rest depends on failed.
    Refused(Status),
    /// The server did not do what it is measured for.
    Wrong(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Broken(broken) => write!(f, "{broken}"),
            Self::Refused(status) => write!(f, "{status}"),
            Self::Wrong(what) => write!(f, "{what}"),
            Self::Stalled(open) => write!(f, "{open} calls are open and no answer comes"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// One connection, known to the poll by its token.
pub(crate) struct Link {
    socket: TcpStream,
    pub(crate) connection: Connection,
    authority: String,
    token: usize,
    /// The socket would take no more; we are told when it does.
    full: bool,
}

impl Link {
    pub(crate) fn connect(
        endpoint: &str,
        window: Window,
        poll: &Poll,
        token: usize,
    ) -> Result<Self, Failure> {
        Self::new(dial(endpoint, window, PATIENCE)?, poll, token)
    }

    /// Takes over a connection that was made elsewhere.
    pub(crate) fn new(dialed: Dialed, poll: &Poll, token: usize) -> Result<Self, Failure> {
        let Dialed { socket, connection, authority } = dialed;
        socket.set_nonblocking(true)?;
        poll.add(&socket, token)?;
        Ok(Self { socket, connection, authority, token, full: false })
    }

    /// The header block of a call to this method.
    pub(crate) fn head(&self, path: &str) -> Vec<u8> {
        grpc::head(path, &self.authority)
    }

    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.authority))
    }

    /// Reads once, and returns how many bytes came.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        on: impl FnMut(usize, Event<'_>),
    ) -> Result<usize, Failure> {
        let read = match self.socket.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Ok(0) => {
                let closed = io::Error::new(ErrorKind::UnexpectedEof, "closed by the server");
                return Err(self.named(closed).into());
            }
            read => read.map_err(|error| self.named(error))?,
        };
        self.connection.receive(&buffer[..read], on)?;
        Ok(read)
    }

    /// Writes all that the link has to say, as far as its socket takes it.
    pub(crate) fn flush(&mut self, poll: &Poll) -> Result<(), Failure> {
        let Self { socket, connection, token, full, .. } = self;
        while !connection.out().is_empty() {
            match socket.write(connection.out()) {
                Ok(sent) => connection.sent(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.named(error).into()),
            }
        }
        let is_full = !connection.out().is_empty();
        if mem::replace(full, is_full) != is_full {
            poll.watch_writable(socket, *token, is_full)?;
        }
        Ok(())
    }
}
