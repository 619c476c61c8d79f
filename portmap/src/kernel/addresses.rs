//! The addresses of the node's own interfaces, and word of their changes.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::IpNet;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    sys::socket::SockaddrStorage,
};

/// `RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR`
const GROUPS: u32 = 0x10 | 0x100;

/// The addresses of all interfaces in the thread's network namespace.
pub fn local() -> Result<Vec<IpAddr>> {
    Ok(networks()?.iter().map(IpNet::addr).collect())
}

/// The same, each with its prefix.
pub fn networks() -> Result<Vec<IpNet>> {
    let interfaces = getifaddrs().context("failed to list the addresses of this host")?;
    let address = |interface: InterfaceAddress| {
        let (address, mask) = (ip(&interface.address?)?, interface.netmask.as_ref().and_then(ip));
        let with_mask = mask.and_then(|mask| IpNet::with_netmask(address, mask).ok());
        Some(with_mask.unwrap_or_else(|| address.into()))
    };
    Ok(interfaces.filter_map(address).collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
}

/// Word of changes to the addresses.
pub struct AddressEvents(TokioSocket);

impl AddressEvents {
    /// Begins to listen.
    pub fn listen() -> Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE).context("failed to open a netlink socket")?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS)).context("failed to listen for changes of addresses")?;
        Ok(Self(socket))
    }

    /// Returns after a change, or several.
    pub async fn next(&mut self) -> Result<()> {
        // Which change it was does not matter: the addresses are listed anew. Nor does it if some were lost (ENOBUFS).
        match self.0.recv_from_full().await {
            Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => {
                Err(error).context("failed to listen for changes of addresses")
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
