//! A client's socket as the HTTP library wants it: bytes already read are served first, and small
//! writes are gathered so that a connection's replies of one turn leave in one send.

use crate::limits::SEND_BUFFER_BYTES;
use bytes::{Buf, Bytes};
use futures_lite::{AsyncRead as _, AsyncWrite as _, ready};
use glommio::net::TcpStream;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connected socket with a buffer on the way out.
pub struct Stream {
    socket: TcpStream,
    /// Read before anybody knew what protocol it is.
    early: Bytes,
    out: Vec<u8>,
    /// Bytes of `out` that have left already.
    sent: usize,
}

impl Stream {
    /// Serves `early` first, then the socket.
    pub fn new(socket: TcpStream, early: Bytes) -> Self {
        Self { socket, early, out: Vec::with_capacity(SEND_BUFFER_BYTES), sent: 0 }
    }

    /// Sends what is gathered until nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let rest = &self.out[self.sent..];
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.has_remaining() {
            let step = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(step));
            return Poll::Ready(Ok(()));
        }
        let free = buf.initialize_unfilled();
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, free))?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.out.len() >= SEND_BUFFER_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        self.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.out.len() >= SEND_BUFFER_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        slices.iter().for_each(|slice| self.out.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_close(cx)
    }
}
