//! A connection with what was read from it and what is to be sent over it.

use super::delay::DelayLine;
use crate::{
    io::glommio::GlommioClock,
    limits::{PEER_DELAYED_BYTES_MAX, PEER_READ_BYTES},
    net::twin,
};
use bytes::BytesMut;
use futures_lite::{AsyncRead as _, AsyncWrite as _};
use glommio::net::TcpStream;
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

thread_local! {
    /// Reads land here first: one buffer for the core, not one for each connection.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; PEER_READ_BYTES]);
}

/// How long a connection may stand still before it is given up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Nothing comes (`--raft-read-timeout`).
    pub read: Duration,
    /// Nothing that was sent is taken (`--raft-write-timeout`).
    pub write: Duration,
}

/// See the head of this file.
pub struct Socket {
    stream: TcpStream,
    /// What was read and not yet taken.
    pub input: BytesMut,
    /// What is to be sent; the first `sent` bytes of it are.
    pub out: Vec<u8>,
    sent: usize,
    /// What all of `out` goes through where a test wants it late.
    late: Option<DelayLine<GlommioClock>>,
}

impl Socket {
    /// A connection on which silence or a full window beyond the `patience` is an error.
    ///
    /// # Errors
    /// What the machine says.
    pub fn new(stream: TcpStream, patience: Patience) -> io::Result<Self> {
        stream.set_read_timeout(Some(patience.read)).map_err(io::Error::from)?;
        stream.set_write_timeout(Some(patience.write)).map_err(io::Error::from)?;
        Ok(Self { stream, input: BytesMut::new(), out: Vec::new(), sent: 0, late: None })
    }

    /// From now on all that is sent leaves so much later.
    ///
    /// # Errors
    /// What the machine says.
    pub fn send_late(&mut self, clock: &GlommioClock, delay: Duration) -> io::Result<()> {
        let far = twin(&self.stream)?;
        far.set_write_timeout(self.stream.write_timeout()).map_err(io::Error::from)?;
        let line = DelayLine::new(clock.clone(), delay, PEER_DELAYED_BYTES_MAX);
        glommio::spawn_local(line.deliver(far)).detach();
        self.late = Some(line);
        Ok(())
    }

    /// From now on the other side may say nothing for as long as it likes.
    ///
    /// # Errors
    /// What the machine says.
    pub fn allow_silence(&self) -> io::Result<()> {
        self.stream.set_read_timeout(None).map_err(io::Error::from)
    }

    /// Reads what is there to the end of `input`; 0 is the end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, scratch))?;
            self.input.extend_from_slice(&scratch[..read]);
            Poll::Ready(Ok(read))
        })
    }

    /// Sends all of `out`, which is empty when it is ready.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(late) = &self.late {
            return late.poll_take(&mut self.out, cx);
        }
        while self.sent < self.out.len() {
            let unsent = &self.out[self.sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                step => self.sent += step,
            }
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads more; false at the end.
    ///
    /// # Errors
    /// What the machine says; `TimedOut` after silence.
    pub async fn fill(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_fill(cx)).await.map(|read| read > 0)
    }

    /// Sends everything.
    ///
    /// # Errors
    /// What the machine says.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }
}

/// Appends one chunk of an HTTP/1.1 body, made by `fill`; nothing when it makes none.
pub fn chunk(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    const HEAD: &[u8] = b"00000000\r\n";
    let start = out.len();
    out.extend_from_slice(HEAD);
    let body = out.len();
    fill(out);
    let len = out.len() - body;
    if len == 0 {
        return out.truncate(start);
    }
    assert!(u32::try_from(len).is_ok(), "a chunk's size fits eight digits");
    out[start..start + 8].copy_from_slice(format!("{len:08x}").as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http1::Dechunk;

    #[test]
    fn chunks_are_read_as_they_were_written() {
        let mut out = Vec::new();
        chunk(&mut out, |out| out.extend_from_slice(b"hello"));
        chunk(&mut out, |_| {});
        chunk(&mut out, |out| out.extend_from_slice(&[7; 70_000]));
        let (mut input, mut body) = (BytesMut::from(&out[..]), BytesMut::new());
        let mut state = Dechunk::Size;
        state.step(&mut input, &mut body).expect("these are chunks");
        assert_eq!((body.len(), state, input.len()), (70_005, Dechunk::Size, 0));
    }
}
