//! Which sockets can be read or written: epoll(7), level-triggered.
//!
//! The invariant behind the `unsafe`: each call gets descriptors that are open for its length,
//! because they are borrowed, and a pointer to memory of the length that goes with it.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

/// Sockets reported by one wait.
const READY_MAX: usize = 64;

/// A set of sockets, each known by a token.
pub struct Poll {
    epoll: OwnedFd,
    ready: [libc::epoll_event; READY_MAX],
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is new and ours alone.
        let epoll =
            unsafe { OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self { epoll, ready: [libc::epoll_event { events: 0, u64: 0 }; READY_MAX] })
    }

    /// Adds a socket, to be reported when it can be read.
    pub fn add(&self, socket: &impl AsFd, token: usize) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, libc::EPOLLIN)
    }

    /// Whether to report the socket when it can be written, too.
    pub fn watch_writable(
        &self,
        socket: &impl AsFd,
        token: usize,
        writable: bool,
    ) -> io::Result<()> {
        let write = if writable { libc::EPOLLOUT } else { 0 };
        self.control(libc::EPOLL_CTL_MOD, socket, token, libc::EPOLLIN | write)
    }

    fn control(&self, verb: i32, socket: &impl AsFd, token: usize, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token as u64 };
        let (epoll, socket) = (self.epoll.as_raw_fd(), socket.as_fd().as_raw_fd());
        // SAFETY: both descriptors are borrowed, the event lives on the stack for the call.
        checked(unsafe { libc::epoll_ctl(epoll, verb, socket, &mut event) }).map(drop)
    }

    /// Waits for any socket, and returns the tokens of those that are ready; none after the timeout.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<impl Iterator<Item = usize> + use<>> {
        // Rounded up, so that the last millisecond is slept and not spun.
        let millis = timeout.as_millis().saturating_add(1).min(1_000_000) as i32;
        let epoll = self.epoll.as_raw_fd();
        // SAFETY: the kernel writes at most READY_MAX events, which is the array's length.
        let waited = checked(unsafe {
            libc::epoll_wait(epoll, self.ready.as_mut_ptr(), READY_MAX as i32, millis)
        });
        let ready = match waited {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            ready => ready? as usize,
        };
        Ok(self.ready.into_iter().take(ready).map(|event| event.u64 as usize))
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
