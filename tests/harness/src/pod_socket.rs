//! Sockets whose methods make the system calls that they name, as in C. The standard library would add `bind()`, name
//! resolution and retries.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg, setsockopt, sockopt};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, Timeout, set_ip_freebind, set_ip_mtu_discover, set_ip_ttl, set_ipv6_freebind,
    set_ipv6_mtu_discover, set_ipv6_unicast_hops, set_ipv6_v6only, set_socket_linger, set_socket_reuseaddr, set_socket_timeout,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, acceptfrom, bind, connect, connect_unspec,
    getpeername, getsockname, listen, recvfrom, send, sendto, socket_with,
};
use serde::{Deserialize, Serialize};

use crate::listen::Protocol;
use crate::patience::patience;
use crate::pod_problem::{self, Problem};

/// Time limit of blocking calls (`SO_SNDTIMEO`, `SO_RCVTIMEO`), before scaling by [`patience`].
const PATIENCE: Duration = Duration::from_secs(3);

/// The address family of a socket. An `AF_INET6` socket also reaches IPv4, through IPv4-mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Domain {
    /// `AF_INET`
    Inet,
    /// `AF_INET6`
    Inet6,
}

impl Domain {
    /// The family of an address; `Inet6` also for IPv4-mapped addresses.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::Inet } else { Self::Inet6 }
    }
}

/// An option of a socket, for `setsockopt()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketOption {
    /// The time to live or hop limit of sent packets.
    Hops(u8),
    /// Sent packets are not fragmented, by this machine or by others.
    Whole,
    /// The time limit of blocking calls in milliseconds, instead of the usual one.
    TimeLimit(u64),
    /// Other sockets may have the same local address and port (`SO_REUSEADDR`).
    Shared,
    /// ICMP errors are kept for [`RawSocket::problem`], and also reported by the next call.
    Problems,
    /// An IPv6 socket does not serve IPv4 (`IPV6_V6ONLY`).
    V6Only,
}

/// The result of one `recvfrom()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// The received text without trailing white space.
    pub text: String,
    /// The source address that the kernel reports; `None` on TCP connections.
    pub source: Option<SocketAddr>,
}

/// An open socket; dropping it closes it.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

impl RawSocket {
    /// `socket()`: neither bound nor connected. Blocking calls have a time limit.
    pub fn open(domain: Domain, protocol: Protocol) -> io::Result<Self> {
        let family = match domain {
            Domain::Inet => AddressFamily::INET,
            Domain::Inet6 => AddressFamily::INET6,
        };
        let kind = match protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        Self::with_time_limit(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
    }

    fn with_time_limit(socket: OwnedFd) -> io::Result<Self> {
        set_time_limit(&socket, patience(PATIENCE))?;
        Ok(Self(socket))
    }

    /// `bind()` to a local address.
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        Ok(bind(&self.0, &address)?)
    }

    /// `listen()` with a backlog of 16.
    pub fn listen(&self) -> io::Result<()> {
        Ok(listen(&self.0, 16)?)
    }

    /// `accept()`: waits for the next connection.
    pub fn accept(&self) -> io::Result<Self> {
        let (socket, _) = acceptfrom(&self.0)?;
        Self::with_time_limit(socket)
    }

    /// `connect()`: for UDP, this sets the destination of `send()`.
    pub fn connect(&self, address: SocketAddr) -> io::Result<()> {
        Ok(connect(&self.0, &address)?)
    }

    /// Disconnects a UDP socket: `connect()` to `AF_UNSPEC`.
    pub fn dissolve(&self) -> io::Result<()> {
        Ok(connect_unspec(&self.0)?)
    }

    /// Sends `text` and a line end, to the peer (`send()`) or to the given address (`sendto()`).
    pub fn send(&self, text: &str, to: Option<SocketAddr>) -> io::Result<()> {
        let line = format!("{text}\n");
        // With this flag, a closed connection returns EPIPE and raises no SIGPIPE.
        let sent = match to {
            Some(address) => sendto(&self.0, line.as_bytes(), SendFlags::NOSIGNAL, &address)?,
            None => send(&self.0, line.as_bytes(), SendFlags::NOSIGNAL)?,
        };
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Sends `text` and a line end to `to` with `sendmsg()`. A control message sets the source address `from`.
    pub fn send_from(&self, text: &str, to: SocketAddr, from: IpAddr) -> io::Result<()> {
        let line = format!("{text}\n");
        let sent = send_with_source(&self.0, &[io::IoSlice::new(line.as_bytes())], to, from)?;
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Allows `bind()` to addresses that the network namespace does not have (`IP_FREEBIND`).
    pub fn bind_freely(&self) -> io::Result<()> {
        match Domain::of(self.local()?) {
            Domain::Inet => Ok(set_ip_freebind(&self.0, true)?),
            Domain::Inet6 => Ok(set_ipv6_freebind(&self.0, true)?),
        }
    }

    /// Sends `text` and a line end to each address with one `sendmmsg()`. Returns the number of sent messages.
    pub fn send_all(&self, text: &str, to: &[SocketAddr]) -> io::Result<usize> {
        let line = format!("{text}\n");
        let slices = vec![[io::IoSlice::new(line.as_bytes())]; to.len()];
        let addresses: Vec<Option<SockaddrStorage>> = to.iter().map(|address| Some((*address).into())).collect();
        let mut headers = MultiHeaders::preallocate(to.len(), None);
        let sent = sendmmsg(self.0.as_raw_fd(), &mut headers, &slices, &addresses, [], MsgFlags::MSG_NOSIGNAL)?;
        Ok(sent.count())
    }

    /// `recvfrom()` of up to 512 bytes. Fails with `EAGAIN` if nothing arrives within the time limit.
    pub fn receive(&self) -> io::Result<Datagram> {
        let mut bytes = [0; 512];
        let (text, source) = self.receive_into(&mut bytes)?;
        Ok(Datagram { text: String::from_utf8_lossy(text).trim_end().to_owned(), source })
    }

    fn receive_into<'a>(&self, bytes: &'a mut [u8]) -> io::Result<(&'a [u8], Option<SocketAddr>)> {
        let (length, _, source) = recvfrom(&self.0, &mut *bytes, RecvFlags::empty())?;
        Ok((bytes.get(..length).unwrap_or_default(), source.map(internet).transpose()?))
    }

    /// Sends a datagram of `size` bytes to the peer, and receives the reply, which must echo the datagram after its first line.
    /// Returns the first line.
    pub fn echo(&self, size: usize) -> io::Result<Datagram> {
        let sent: Vec<u8> = (0..size).map(pattern).collect();
        if send(&self.0, &sent, SendFlags::NOSIGNAL)? != size {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut bytes = vec![0; 1 << 16];
        let (reply, source) = self.receive_into(&mut bytes)?;
        let line = reply.iter().position(|byte| *byte == b'\n').ok_or(io::ErrorKind::InvalidData)? + 1;
        let (line, echo) = reply.split_at_checked(line).ok_or(io::ErrorKind::InvalidData)?;
        if echo != sent.get(line.len()..).unwrap_or_default() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Datagram { text: String::from_utf8_lossy(line).trim_end().to_owned(), source })
    }

    /// Sends a request line of `up` bytes on a TCP connection, and receives the reply line and `down` further bytes. Returns
    /// the reply line.
    pub fn transfer(&self, up: usize, down: usize) -> io::Result<Datagram> {
        let mut stream = Stream(self);
        let mut request = format!("{GIVE}{down} ").into_bytes();
        request.extend((request.len()..up.saturating_sub(1)).map(pattern));
        request.push(b'\n');
        stream.write_all(&request)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut bytes = vec![0; down];
        reader.read_exact(&mut bytes)?;
        if !bytes.into_iter().eq((0..down).map(pattern)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Datagram { text: line.trim_end().to_owned(), source: None })
    }

    /// Sets an option.
    pub fn set(&self, option: SocketOption) -> io::Result<()> {
        let domain = Domain::of(self.local()?);
        match (option, domain) {
            (SocketOption::Hops(hops), Domain::Inet) => set_ip_ttl(&self.0, hops.into())?,
            (SocketOption::Hops(hops), Domain::Inet6) => set_ipv6_unicast_hops(&self.0, Some(hops))?,
            (SocketOption::Whole, Domain::Inet) => set_ip_mtu_discover(&self.0, Ipv4PathMtuDiscovery::DO)?,
            (SocketOption::Whole, Domain::Inet6) => set_ipv6_mtu_discover(&self.0, Ipv6PathMtuDiscovery::DO)?,
            (SocketOption::TimeLimit(limit), _) => set_time_limit(&self.0, Duration::from_millis(limit))?,
            (SocketOption::Shared, _) => set_socket_reuseaddr(&self.0, true)?,
            (SocketOption::V6Only, _) => set_ipv6_v6only(&self.0, true)?,
            (SocketOption::Problems, Domain::Inet) => setsockopt(&self.0, sockopt::Ipv4RecvErr, &true)?,
            (SocketOption::Problems, Domain::Inet6) => setsockopt(&self.0, sockopt::Ipv6RecvErr, &true)?,
        }
        Ok(())
    }

    /// Takes the first ICMP error that [`SocketOption::Problems`] has kept.
    pub fn problem(&self) -> io::Result<Problem> {
        pod_problem::take(&self.0)
    }

    /// `getpeername()`: fails if the socket has no peer.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        getpeername(&self.0)?.map_or_else(|| Err(io::ErrorKind::NotConnected.into()), internet)
    }

    /// `getsockname()`: port 0 if the socket is not bound.
    pub fn local(&self) -> io::Result<SocketAddr> {
        internet(getsockname(&self.0)?)
    }

    /// Closes the socket. A TCP connection is reset, so that no `TIME_WAIT` stays and tests can make many connections.
    pub fn reset(self) -> io::Result<()> {
        Ok(set_socket_linger(&self.0, Some(Duration::ZERO))?)
    }
}

fn set_time_limit(socket: &OwnedFd, limit: Duration) -> io::Result<()> {
    for direction in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(socket, direction, Some(limit))?;
    }
    Ok(())
}

/// The byte at a position of test data: a printable character.
pub(crate) fn pattern(position: usize) -> u8 {
    let [low, high, ..] = position.to_le_bytes();
    b'!' + (low ^ high.wrapping_mul(7)) % 90
}

/// A request line that begins so asks for a number of further bytes on a TCP connection.
pub(crate) const GIVE: &str = "give ";

struct Stream<'a>(&'a RawSocket);

impl Read for Stream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(self.0.receive_into(bytes)?.0.len())
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `sendmsg()` of a datagram to `to`, with the source address `from` in a control message. Returns the number of sent bytes.
pub(crate) fn send_with_source(
    socket: &impl AsRawFd,
    slices: &[io::IoSlice<'_>],
    to: SocketAddr,
    from: IpAddr,
) -> io::Result<usize> {
    let to = SockaddrStorage::from(to);
    let with = |control| sendmsg(socket.as_raw_fd(), slices, &[control], MsgFlags::MSG_NOSIGNAL, Some(&to));
    let sent = match from {
        IpAddr::V4(from) => {
            let address = libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
            let any = libc::in_addr { s_addr: libc::INADDR_ANY };
            with(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: any }))?
        }
        IpAddr::V6(from) => {
            let address = libc::in6_addr { s6_addr: from.octets() };
            with(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 }))?
        }
    };
    Ok(sent)
}

/// The IP address and port of a socket address of an IP family.
pub(crate) fn socket_address(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
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
        let one = RawSocket::open(Domain::Inet, Protocol::Udp)?;
        one.bind(([127, 0, 0, 1], 0).into())?;
        let two = RawSocket::open(Domain::Inet6, Protocol::Udp)?;
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
