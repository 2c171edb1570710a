//! A socket that the standard library accepted becomes one of glommio's.
//!
//! Unsafe, because glommio takes and gives bare numbers. What makes it sound: a number that is taken
//! comes out of an [`OwnedFd`], so it is an open descriptor and nobody else's to close; one that is
//! given belongs to a stream that is borrowed meanwhile.
#![allow(unsafe_code)]

use glommio::net::TcpStream;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
};

/// Hands a connected TCP socket over to this core's executor.
pub fn adopt(socket: OwnedFd) -> TcpStream {
    // SAFETY: the descriptor is open and owned by nobody else; from here on the stream owns it.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}

/// Another handle of the same connection, which is open until both are gone.
///
/// # Errors
/// What the machine says.
pub fn twin(socket: &TcpStream) -> io::Result<TcpStream> {
    // SAFETY: the descriptor is open for as long as its stream is borrowed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    borrowed.try_clone_to_owned().map(adopt)
}
