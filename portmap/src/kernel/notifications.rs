//! Notifications of rtnetlink about changes of links, addresses, routes or rules. Their content is not read.
//!
//! After each notification, callers list the addresses or ask for the routes again.

use std::io;

use anyhow::{Context, Result};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;

const FAILURE: &str = "failed to listen for changes of addresses and routes";

/// Opens a non-blocking socket that receives the notifications of these groups (a bit mask), in the thread's network
/// namespace.
pub fn open(groups: u32) -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE).context("failed to open a netlink socket")?;
    socket.bind(&SocketAddr::new(0, groups)).context(FAILURE)?;
    socket.set_non_blocking(true).context(FAILURE)?;
    Ok(socket)
}

/// The notifications that a socket receives.
pub struct Notifications(AsyncFd<Socket>);

impl Notifications {
    /// Registers a socket of [`open`] with tokio's runtime.
    pub fn of(socket: Socket) -> Result<Self> {
        // SAFETY: the socket keeps its descriptor open, and never changes it, until it is dropped with the registration.
        Ok(Self(unsafe { AsyncFd::register(socket) }.context(FAILURE)?))
    }

    /// Returns after a notification, and discards all notifications that have arrived. An overflow of the socket's buffer
    /// (ENOBUFS) counts as a notification.
    pub async fn next(&self) -> Result<()> {
        let is_lost = |error: &io::Error| error.raw_os_error() == Some(libc::ENOBUFS);
        let mut guard = self.0.readable().await.context(FAILURE)?;
        loop {
            match guard.try_io(|socket| socket.get_ref().recv_from_full()) {
                Ok(Err(error)) if !is_lost(&error) => return Err(error).context(FAILURE),
                Ok(_) => {}
                Err(_) => return Ok(()),
            }
        }
    }
}
