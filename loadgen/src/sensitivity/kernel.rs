//! A child that does not outlive us, however we end.
//!
//! The invariant behind the `unsafe`: between fork and exec only calls are made that are safe in a
//! signal's handler (signal-safety(7)), and no memory is taken.
#![allow(unsafe_code)]

use std::{io, os::unix::process::CommandExt, process::Command};

/// The kernel kills the child when the thread that starts it is gone (prctl(2)); and the terminal's
/// Ctrl-C, which is for us, does not reach it.
pub(super) fn bind_to_us(command: &mut Command) {
    let ours = std::process::id();
    command.process_group(0);
    // SAFETY: both are system calls without pointers.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) != 0 {
                return Err(io::Error::last_os_error());
            }
            // We may have ended before.
            match libc::getppid().cast_unsigned() == ours {
                true => Ok(()),
                false => Err(io::ErrorKind::BrokenPipe.into()),
            }
        });
    }
}
