//! A client's socket: bytes that were read before anybody knew which protocol it speaks are served
//! first.

use bytes::{Buf, Bytes};
use futures_lite::{AsyncRead as _, AsyncWrite as _};
use glommio::net::TcpStream;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// A connected socket.
pub struct Stream {
    socket: TcpStream,
    early: Bytes,
}

impl Stream {
    /// Serves `early` first, then the socket.
    pub fn new(socket: TcpStream, early: Bytes) -> Self {
        Self { socket, early }
    }

    /// Reads what is there. 0 is the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, into);
        }
        let step = self.early.len().min(into.len());
        self.early.copy_to_slice(&mut into[..step]);
        Poll::Ready(Ok(step))
    }

    /// Sends as much as the socket takes now.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    /// Tells the client that nothing more comes.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }

    /// Lets reads fail after `wait` without a byte.
    pub fn set_read_timeout(&self, wait: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(wait)).map_err(io::Error::from)
    }
}
