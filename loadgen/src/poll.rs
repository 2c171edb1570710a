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
    /// The kernel waits in nanoseconds.
    precise: bool,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is new and ours alone.
        let epoll =
            unsafe { OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        // SAFETY: no pointers. By default a sleep may be 50 µs longer than asked (prctl(2)).
        checked(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) })?;
        let ready = [libc::epoll_event { events: 0, u64: 0 }; READY_MAX];
        Ok(Self { epoll, ready, precise: true })
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

    /// Waits for any socket, and returns the tokens of those that are ready; none after the timeout,
    /// or when a signal came.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<impl Iterator<Item = usize> + use<>> {
        let waited = match self.precise {
            true => self.wait_nanos(timeout),
            false => self.wait_millis(timeout),
        };
        let ready = match waited {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                self.precise = false;
                0
            }
            ready => ready?,
        };
        Ok(self.ready.into_iter().take(ready).map(|event| event.u64 as usize))
    }

    /// epoll_pwait2(2), since Linux 5.11: calls that are due in less than a millisecond are not late
    /// because of us.
    fn wait_nanos(&mut self, timeout: Duration) -> io::Result<usize> {
        let time = libc::timespec {
            tv_sec: timeout.as_secs().min(1_000) as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the kernel writes at most READY_MAX events, which is the array's length, and reads
        // a time that lives on the stack for the call; a signal mask there is none.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.ready.as_mut_ptr(),
                READY_MAX as libc::c_int,
                &raw const time,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        usize::try_from(ready).map_err(|_| io::Error::last_os_error())
    }

    fn wait_millis(&mut self, timeout: Duration) -> io::Result<usize> {
        // Rounded up, so that the last millisecond is slept and not spun.
        let millis = timeout.as_millis().saturating_add(1).min(1_000_000) as i32;
        let epoll = self.epoll.as_raw_fd();
        // SAFETY: the kernel writes at most READY_MAX events, which is the array's length.
        checked(unsafe {
            libc::epoll_wait(epoll, self.ready.as_mut_ptr(), READY_MAX as i32, millis)
        })
        .map(|ready| ready as usize)
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
