//! Two calls that the standard library does not have: room for a file, and a thread's priority.
//!
//! The invariant behind the `unsafe`: descriptors are borrowed, so they are open for the length of
//! the call, and structures live on the stack for it.
#![allow(unsafe_code)]

use std::{fs::File, io, os::fd::AsRawFd};

/// Gives an empty file its blocks and length, unwritten (fallocate(2)); where the file system cannot,
/// the length alone, as etcd does.
pub(super) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, and there are no pointers.
    let done = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) };
    match io::Error::last_os_error() {
        _ if done == 0 => Ok(()),
        error if error.kind() == io::ErrorKind::Unsupported => file.set_len(bytes),
        error => Err(error),
    }
}

/// Puts this thread ahead of all that is not real-time, as the server's log thread, and says whether
/// the kernel agreed.
pub(super) fn ask_for_real_time() -> bool {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 names the calling thread, and the structure outlives the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &lowest) == 0 }
}
