//! The UDP side of the server: each datagram gets a reply from the address that it was sent to.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, cmsg_space, recvmsg, setsockopt, sockopt};

use crate::pod_socket::{send_with_source, socket_address};

/// Greater than every UDP datagram.
const LARGEST: usize = 1 << 16;

/// Opens a UDP socket that learns the local address of each datagram. Without it, a server on all addresses of a machine with
/// several addresses would reply from another one.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    match address {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    Ok(socket)
}

/// Waits for a datagram and replies to it. `line` gives the first line of the reply for the sender. The reply is that line,
/// and then the datagram's own bytes from that length on: it is as long as the datagram, or longer.
pub(super) fn answer_one(socket: &UdpSocket, line: impl Fn(SocketAddr) -> String) -> io::Result<()> {
    let mut bytes = vec![0; LARGEST];
    let (length, peer, local) = receive(socket, &mut bytes)?;
    let line = line(peer);
    let echo = bytes.get(line.len()..length).unwrap_or_default();
    let slices = [IoSlice::new(line.as_bytes()), IoSlice::new(echo)];
    send_with_source(socket, &slices, peer, local).map(drop)
}

/// The length, the source and the local address of the next datagram.
fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> io::Result<(usize, SocketAddr, IpAddr)> {
    let mut slices = [IoSliceMut::new(bytes)];
    let mut space = vec![0; cmsg_space::<libc::in6_pktinfo>()];
    let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty())?;
    let local = received.cmsgs()?.find_map(|message| destination(&message));
    let peer = received.address.and_then(socket_address).ok_or(io::ErrorKind::InvalidData)?;
    Ok((received.bytes, peer, local.ok_or(io::ErrorKind::InvalidData)?))
}

fn destination(message: &ControlMessageOwned) -> Option<IpAddr> {
    if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
        Some(info.ipi_addr.s_addr.to_ne_bytes().into())
    } else if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
        Some(info.ipi6_addr.s6_addr.into())
    } else {
        None
    }
}
