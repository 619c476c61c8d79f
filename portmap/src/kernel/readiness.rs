//! Waits until a descriptor of the kernel is readable.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// A duplicate of a descriptor, to wait for data on it. The original may be used meanwhile.
pub fn readable(descriptor: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let duplicate = descriptor.try_clone_to_owned()?;
    // SAFETY: the `AsyncFd` owns the descriptor, which stays open as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(duplicate, Interest::READABLE) }?)
}
