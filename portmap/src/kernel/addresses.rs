//! The addresses of the interfaces in a network namespace, and notifications of their changes.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::IpNet;
use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    sys::socket::SockaddrStorage,
};

use super::notifications::{self, Notifications};

/// The rtnetlink groups that announce addresses of both families.
const GROUPS: u32 = (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR).cast_unsigned();

/// The addresses of all interfaces in the thread's network namespace, without prefixes.
pub fn local() -> Result<Vec<IpAddr>> {
    Ok(networks()?.iter().map(IpNet::addr).collect())
}

/// The addresses of all interfaces in the thread's network namespace, each with the prefix length of its network. An address
/// without a valid netmask gets the full length (32 or 128).
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

/// Listens for changes of the addresses in the thread's network namespace.
pub fn changes() -> Result<Notifications> {
    Notifications::of(notifications::open(GROUPS)?)
}
