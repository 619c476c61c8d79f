//! Times socket calls in blocks. Each block runs in the cgroup of its [`Arm`]. `statistics` computes the figures afterwards.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};

use super::{Arm, Plan, Work};

/// Time limit for the reply to a datagram. After it the measurement fails.
const PATIENCE: Duration = Duration::from_secs(2);

/// Measures blocks of calls, of any [`Arm`] in any order.
pub(super) struct Arms<'p> {
    plan: &'p Plan,
    /// Counter that selects the next destination from the addresses of the plan.
    turn: usize,
}

/// The state that all samples of one block share.
struct Block {
    arm: Arm,
    /// The socket that all calls of [`Work::UdpUnconnected`] share; `None` for other calls. It belongs to the cgroup in which
    /// it was made.
    datagrams: Option<UdpSocket>,
    /// The connection that all calls of [`Work::TcpRequest`] share; `None` for other calls.
    connection: Option<TcpStream>,
}

impl<'p> Arms<'p> {
    pub(super) fn new(plan: &'p Plan) -> Self {
        Self { plan, turn: 0 }
    }

    /// Measures one block of calls. Returns their times in nanoseconds, in the order of the calls; calls of the warm-up are
    /// left out.
    pub(super) fn block(&mut self, arm: Arm) -> Result<Vec<u32>> {
        enter(match arm {
            Arm::Clean | Arm::Peer => &self.plan.cgroup_clean,
            Arm::Miss | Arm::Hit => &self.plan.cgroup_portmap,
        })?;
        self.turn += 1;
        let datagrams = (self.plan.work == Work::UdpUnconnected).then(|| datagram_socket(self.address(arm)?)).transpose()?;
        let connection = (self.plan.work == Work::TcpRequest).then(|| connection(self.address(arm)?)).transpose()?;
        let block = Block { arm, datagrams, connection };
        for _ in 0..self.plan.warm_up {
            self.sample(&block)?;
        }
        (0..self.plan.per_round).map(|_| self.sample(&block)).collect()
    }

    fn sample(&mut self, block: &Block) -> Result<u32> {
        // A reused socket keeps its destination for the whole block.
        if block.datagrams.is_none() && block.connection.is_none() {
            self.turn += 1;
        }
        let address = self.address(block.arm)?;
        let time = match (self.plan.work, &block.datagrams) {
            (Work::TcpConnect, _) => time_connect(address, SockType::Stream),
            (Work::UdpConnect, _) => time_connect(address, SockType::Datagram),
            (Work::UdpConnected, _) => time_connected(address),
            (Work::Getpeername, _) => time_getpeername(address),
            (Work::UdpUnconnected, Some(socket)) => time_datagram(socket, address),
            (Work::TcpRequest, _) => block.connection.as_ref().ok_or(io::ErrorKind::InvalidInput.into()).and_then(time_request),
            (Work::UdpUnconnected, None) => Err(io::ErrorKind::InvalidInput.into()),
        };
        let time = time.with_context(|| format!("failed to measure {} with {address}", self.plan.work))?;
        Ok(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX))
    }

    /// The destination of `arm` that `turn` selects from the plan. Fails if the plan has no address for `arm`.
    fn address(&self, arm: Arm) -> io::Result<SocketAddr> {
        let addresses = match arm {
            Arm::Miss if !self.plan.miss.is_empty() => &self.plan.miss,
            Arm::Clean | Arm::Miss => &self.plan.direct,
            Arm::Hit => &self.plan.service,
            Arm::Peer => &self.plan.peer,
        };
        let index = self.turn.checked_rem(addresses.len()).ok_or(io::ErrorKind::InvalidInput)?;
        addresses.get(index).copied().ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

fn enter(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("failed to enter the cgroup {}", cgroup.display()))
}

/// Times `connect()` alone, without `socket()` and `close()`.
fn time_connect(address: SocketAddr, kind: SockType) -> io::Result<Duration> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if kind == SockType::Stream {
        // `close()` then resets the connection, which leaves no socket in TIME_WAIT and frees the port.
        setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    }
    let address = SockaddrStorage::from(address);
    let start = Instant::now();
    connect(socket.as_raw_fd(), &address)?;
    Ok(start.elapsed())
}

fn time_connected(address: SocketAddr) -> io::Result<Duration> {
    let socket = datagram_socket(address)?;
    let mut answer = [0; 64];
    let start = Instant::now();
    socket.connect(address)?;
    socket.send(b"?")?;
    socket.recv(&mut answer)?;
    Ok(start.elapsed())
}

fn time_datagram(socket: &UdpSocket, address: SocketAddr) -> io::Result<Duration> {
    let mut answer = [0; 64];
    let start = Instant::now();
    socket.send_to(b"?", address)?;
    socket.recv_from(&mut answer)?;
    Ok(start.elapsed())
}

fn time_request(mut connection: &TcpStream) -> io::Result<Duration> {
    let mut answer = [0; 128];
    let start = Instant::now();
    connection.write_all(b"?\n")?;
    // The reply is one short line, so it arrives in one piece.
    let length = connection.read(&mut answer)?;
    if length == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(start.elapsed()) }
}

/// A connection without Nagle's algorithm. Receiving has a time limit.
fn connection(address: SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

fn time_getpeername(address: SocketAddr) -> io::Result<Duration> {
    let stream = TcpStream::connect(address)?;
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    let start = Instant::now();
    stream.peer_addr()?;
    Ok(start.elapsed())
}

/// A UDP socket that is bound to a free port, in the family of `address`. Receiving has a time limit.
fn datagram_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}
