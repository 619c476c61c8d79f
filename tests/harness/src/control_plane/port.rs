//! A TCP port of 127.0.0.1 that stays reserved while its program does not run.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt};

/// A reserved port, held by a socket that is bound but never listens. Dropping this releases the port.
///
/// A program that sets `SO_REUSEPORT` (Kubernetes: `--permit-port-sharing`) can still listen on the port, and gets all its
/// connections. So parallel tests never take each other's port, even between a kill and a restart.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _socket: OwnedFd,
}

impl Port {
    /// Reserves a port that the kernel chooses.
    pub(super) fn reserve() -> Result<Self> {
        let socket =
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("failed to create a socket")?;
        setsockopt(&socket, sockopt::ReusePort, &true).context("failed to set SO_REUSEPORT")?;
        bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).context("failed to bind to 127.0.0.1")?;
        let address: SockaddrIn = getsockname(socket.as_raw_fd()).context("failed to read a socket's address")?;
        Ok(Self { number: address.port(), _socket: socket })
    }

    /// The number that the kernel chose.
    pub(super) fn number(&self) -> u16 {
        self.number
    }
}
