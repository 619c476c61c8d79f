//! Sockets as C has them: bare system calls on a file descriptor, where the standard library binds, resolves and retries.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg};
use rustix::net::sockopt::{Timeout, set_ip_freebind, set_ipv6_freebind, set_socket_linger, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, acceptfrom, bind, connect, connect_unspec,
    getpeername, getsockname, listen, recvfrom, send, sendto, socket_with,
};
use serde::{Deserialize, Serialize};

use crate::listen::Protocol;
use crate::patience::patience;

/// How long the kernel may wait for a connection, or for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The address family of a socket. An `AF_INET6` socket speaks IPv4 too, with mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Domain {
    /// `AF_INET`
    Inet,
    /// `AF_INET6`
    Inet6,
}

impl Domain {
    /// That of the sockets which take such addresses.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::Inet } else { Self::Inet6 }
    }
}

/// What one receive brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// Without the line's end.
    pub text: String,
    /// Where the kernel says that it came from; nowhere on TCP connections.
    pub source: Option<SocketAddr>,
}

/// An open socket.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Neither bound nor connected.
    pub fn open(domain: Domain, protocol: Protocol) -> io::Result<Self> {
        let family = match domain {
            Domain::Inet => AddressFamily::INET,
            Domain::Inet6 => AddressFamily::INET6,
        };
        let kind = match protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        Self::patient(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
    }

    fn patient(socket: OwnedFd) -> io::Result<Self> {
        for direction in [Timeout::Send, Timeout::Recv] {
            set_socket_timeout(&socket, direction, Some(patience(PATIENCE)))?;
        }
        Ok(Self(socket))
    }

    /// Gives it a local address.
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        Ok(bind(&self.0, &address)?)
    }

    /// Lets it take connections.
    pub fn listen(&self) -> io::Result<()> {
        Ok(listen(&self.0, 16)?)
    }

    /// Takes the next connection.
    pub fn accept(&self) -> io::Result<Self> {
        let (socket, _) = acceptfrom(&self.0)?;
        Self::patient(socket)
    }

    /// Connects it, or says where its datagrams go.
    pub fn connect(&self, address: SocketAddr) -> io::Result<()> {
        Ok(connect(&self.0, &address)?)
    }

    /// Takes the connection of a UDP socket back: `connect()` to `AF_UNSPEC`.
    pub fn dissolve(&self) -> io::Result<()> {
        Ok(connect_unspec(&self.0)?)
    }

    /// Sends one line to where it is connected, or to the address.
    pub fn send(&self, text: &str, to: Option<SocketAddr>) -> io::Result<()> {
        let line = format!("{text}\n");
        // A connection that is closed is an error like another, not a signal.
        let sent = match to {
            Some(address) => sendto(&self.0, line.as_bytes(), SendFlags::NOSIGNAL, &address)?,
            None => send(&self.0, line.as_bytes(), SendFlags::NOSIGNAL)?,
        };
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Sends one line to the address, from a source that a control message names.
    pub fn send_from(&self, text: &str, to: SocketAddr, from: IpAddr) -> io::Result<()> {
        let line = format!("{text}\n");
        let slices = [io::IoSlice::new(line.as_bytes())];
        let to = SockaddrStorage::from(to);
        let with = |control| sendmsg(self.0.as_raw_fd(), &slices, &[control], MsgFlags::MSG_NOSIGNAL, Some(&to));
        let sent = match from {
            IpAddr::V4(from) => {
                let address = libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
                let any = libc::in_addr { s_addr: libc::INADDR_ANY };
                with(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: address,
                    ipi_addr: any,
                }))?
            }
            IpAddr::V6(from) => {
                let address = libc::in6_addr { s6_addr: from.octets() };
                with(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 }))?
            }
        };
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Lets it bind to addresses that its network namespace does not have.
    pub fn bind_freely(&self) -> io::Result<()> {
        match Domain::of(self.local()?) {
            Domain::Inet => Ok(set_ip_freebind(&self.0, true)?),
            Domain::Inet6 => Ok(set_ipv6_freebind(&self.0, true)?),
        }
    }

    /// Sends one line to each address, with one `sendmmsg()`. Returns how many were taken.
    pub fn send_all(&self, text: &str, to: &[SocketAddr]) -> io::Result<usize> {
        let line = format!("{text}\n");
        let slices = vec![[io::IoSlice::new(line.as_bytes())]; to.len()];
        let addresses: Vec<Option<SockaddrStorage>> = to.iter().map(|address| Some((*address).into())).collect();
        let mut headers = MultiHeaders::preallocate(to.len(), None);
        let sent = sendmmsg(self.0.as_raw_fd(), &mut headers, &slices, &addresses, [], MsgFlags::MSG_NOSIGNAL)?;
        Ok(sent.count())
    }

    /// Waits for a line.
    pub fn receive(&self) -> io::Result<Datagram> {
        let mut bytes = [0; 512];
        let (length, _, source) = recvfrom(&self.0, &mut bytes, RecvFlags::empty())?;
        let text = bytes.get(..length).unwrap_or_default();
        Ok(Datagram { text: String::from_utf8_lossy(text).trim_end().to_owned(), source: source.map(internet).transpose()? })
    }

    /// `getpeername()`
    pub fn peer(&self) -> io::Result<SocketAddr> {
        getpeername(&self.0)?.map_or_else(|| Err(io::ErrorKind::NotConnected.into()), internet)
    }

    /// `getsockname()`
    pub fn local(&self) -> io::Result<SocketAddr> {
        internet(getsockname(&self.0)?)
    }

    /// Closes it so that nothing of its connection stays, as it takes to make very many.
    pub fn reset(self) -> io::Result<()> {
        Ok(set_socket_linger(&self.0, Some(Duration::ZERO))?)
    }
}

fn internet(address: SocketAddrAny) -> io::Result<SocketAddr> {
    Ok(address.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn datagrams_tell_their_source() -> io::Result<()> {
        let one = Socket::open(Domain::Inet, Protocol::Udp)?;
        one.bind(([127, 0, 0, 1], 0).into())?;
        let two = Socket::open(Domain::Inet6, Protocol::Udp)?;
        let SocketAddr::V4(local) = one.local()? else { return Err(io::ErrorKind::InvalidData.into()) };
        let mapped = SocketAddr::new(local.ip().to_ipv6_mapped().into(), local.port());
        two.connect(mapped)?;
        assert_eq!(two.peer()?, mapped);
        two.send("hello", None)?;
        let hello = one.receive()?;
        assert_eq!(hello.text, "hello");
        assert_eq!(one.send_all("hi", &[hello.source.ok_or(io::ErrorKind::InvalidData)?; 2])?, 2);
        assert_eq!(two.receive()?, Datagram { text: "hi".into(), source: Some(mapped) });
        two.dissolve()?;
        let code = two.peer().map_err(|error| error.raw_os_error()).err().flatten();
        assert_eq!(code, Some(Errno::ENOTCONN as i32));
        Ok(())
    }
}
