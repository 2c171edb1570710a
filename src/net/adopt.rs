//! A socket that the standard library accepted becomes one of glommio's.
//!
//! Unsafe, because glommio takes a bare number. What makes it sound: the number comes out of an
//! [`OwnedFd`], so it is an open descriptor and nobody else's to close.
#![allow(unsafe_code)]

use glommio::net::TcpStream;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// Hands a connected TCP socket over to this core's executor.
pub fn adopt(socket: OwnedFd) -> TcpStream {
    // SAFETY: the descriptor is open and owned by nobody else; from here on the stream owns it.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}
