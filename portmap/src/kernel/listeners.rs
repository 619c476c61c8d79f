//! The sockets of the thread's network namespace that take new clients: listening TCP sockets, and bound UDP sockets without
//! a peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
};

use anyhow::{Context, Result};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::netlink::Connection;

/// The index of the loopback device in each network namespace.
const LOOPBACK: u32 = 1;

/// A socket that takes new clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address that the socket is bound to, which may be unspecified. Never an IPv4-mapped address.
    pub address: IpAddr,
    /// The port that the socket is bound to.
    pub port: u16,
    /// Whether an IPv6 socket takes no clients of IPv4 (`IPV6_V6ONLY`).
    pub is_v6_only: bool,
    /// The index of the only device whose packets the socket receives (`SO_BINDTODEVICE`); 0 for all devices.
    pub device: u32,
    /// The inode of the socket.
    pub inode: u32,
}

/// The listeners of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Listening TCP sockets.
    pub tcp: Vec<Listener>,
    /// Bound UDP sockets without a peer.
    pub udp: Vec<Listener>,
}

/// A process with a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketOwner {
    /// The process id.
    pub pid: u32,
    /// The name of the program, at most 15 bytes.
    pub name: String,
}

impl Listener {
    /// Whether the socket takes clients of this address, which arrive by a device other than the loopback device.
    pub fn serves(&self, address: IpAddr) -> bool {
        self.is_at(address) && self.device != LOOPBACK
    }

    /// Whether the socket is bound to the address, or to all addresses of its family or of both.
    pub fn is_at(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (bound, address) if bound == address => true,
            (IpAddr::V4(bound), IpAddr::V4(_)) => bound.is_unspecified(),
            (IpAddr::V6(bound), IpAddr::V6(_)) => bound.is_unspecified(),
            (IpAddr::V6(bound), IpAddr::V4(_)) => bound.is_unspecified() && !self.is_v6_only,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// Lists the listeners of the thread's network namespace. Fails if the kernel has no `tcp_diag` or `udp_diag`.
pub fn list() -> Result<Listeners> {
    let kernel = Connection::open(NETLINK_SOCK_DIAG).context("failed to open a sock_diag socket")?;
    let list = |protocol, states: StateFlags| {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
            let extensions = ExtensionFlags::empty();
            let request = InetRequest { family, protocol, extensions, states: states.clone(), socket_id };
            let sockets = kernel.list(SockDiagMessage::InetRequest(request));
            let sockets = sockets.context("failed to list the listening sockets; the kernel may lack tcp_diag or udp_diag")?;
            found.extend(sockets.into_iter().filter_map(listener));
        }
        Ok::<_, anyhow::Error>(found)
    };
    Ok(Listeners { tcp: list(IPPROTO_TCP, StateFlags::LISTEN)?, udp: list(IPPROTO_UDP, StateFlags::CLOSE)? })
}

fn listener(message: SockDiagMessage) -> Option<Listener> {
    let SockDiagMessage::InetResponse(response) = message else { return None };
    let InetResponse { header, nlas } = *response;
    Some(Listener {
        address: header.socket_id.source_address.to_canonical(),
        port: header.socket_id.source_port,
        is_v6_only: nlas.contains(&Nla::SkV6Only(true)),
        device: header.socket_id.interface_id,
        inode: header.inode,
    })
}

/// The processes that have one of these sockets open, by the inodes of the sockets. Reads the open files of all processes, so
/// it is slow. Processes that may not be examined are left out.
pub fn owners(inodes: &BTreeSet<u32>) -> BTreeMap<u32, SocketOwner> {
    let mut owners = BTreeMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for inode in sockets(&process.path()).filter(|inode| inodes.contains(inode)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            owners.entry(inode).or_insert_with(|| SocketOwner { pid, name: name.trim_end().to_owned() });
        }
    }
    owners
}

/// The inodes of the sockets that a process has open.
fn sockets(process: &Path) -> impl Iterator<Item = u32> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    files.filter_map(|file| {
        let target = fs::read_link(file.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn listeners_and_their_process_are_found() -> Result<()> {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        let connected = UdpSocket::bind("127.0.0.1:0")?;
        connected.connect(udp.local_addr()?)?;
        let Listeners { tcp: found_tcp, udp: found_udp } = list()?;
        let port = tcp.local_addr()?.port();
        let found = found_tcp.iter().find(|it| it.port == port).context("the TCP listener")?;
        assert_eq!((found.address, found.is_v6_only, found.device), ("127.0.0.1".parse()?, false, 0));
        assert_eq!(owners(&BTreeSet::from([found.inode])).get(&found.inode).map(|owner| owner.pid), Some(std::process::id()));
        let has_udp = |socket: &UdpSocket| {
            Ok::<_, anyhow::Error>(found_udp.iter().any(|it| Some(it.port) == socket.local_addr().ok().map(|it| it.port())))
        };
        assert!(has_udp(&udp)?);
        assert!(!has_udp(&connected)?, "a connected socket takes no new clients");
        Ok(())
    }
}
