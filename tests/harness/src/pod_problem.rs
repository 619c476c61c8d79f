//! The error queue of a UDP socket: the ICMP errors to its datagrams.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, cmsg_space, recvmsg};
use serde::{Deserialize, Serialize};

use crate::pod_socket::socket_address;

/// An ICMP error to a datagram. The kernel finds the socket by the datagram that the error quotes, so the quoted addresses and
/// ports were those of the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The name of the error, for example `EHOSTUNREACH`.
    pub error: String,
    /// The host that sent the error; `None` if this machine found the error itself.
    pub offender: Option<IpAddr>,
    /// The destination of the datagram.
    pub destination: Option<SocketAddr>,
    /// The MTU in an error about the length; else 0.
    pub mtu: u32,
}

/// Takes the first error of a socket's error queue, without waiting.
pub(crate) fn take(socket: &impl AsRawFd) -> io::Result<Problem> {
    let mut bytes = [0; 512];
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let mut space = vec![0; cmsg_space::<(libc::sock_extended_err, libc::sockaddr_in6)>()];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let destination = received.address.and_then(socket_address);
    let problem = received.cmsgs()?.find_map(|message| of_message(&message, destination));
    problem.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn of_message(message: &ControlMessageOwned, destination: Option<SocketAddr>) -> Option<Problem> {
    let (error, offender) = if let ControlMessageOwned::Ipv4RecvErr(error, offender) = message {
        (error, offender.map(|host| SockaddrIn::from(host).into()))
    } else if let ControlMessageOwned::Ipv6RecvErr(error, offender) = message {
        (error, offender.map(|host| SockaddrIn6::from(host).into()))
    } else {
        return None;
    };
    Some(Problem {
        error: format!("{:?}", Errno::from_raw(error.ee_errno.cast_signed())),
        offender: offender.filter(|host: &SocketAddr| !host.ip().is_unspecified()).map(|host| host.ip()),
        destination,
        mtu: error.ee_info,
    })
}
