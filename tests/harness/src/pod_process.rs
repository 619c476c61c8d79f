//! `portmap-pod drive`: makes the system calls on sockets that standard input requests, one at a time.
//!
//! Each line of standard input is a [`Request`] in JSON; each line of standard output is its [`Reply`]. [`crate::process`]
//! writes the requests.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::listen::Protocol;
use crate::pod_client::name_of;
use crate::pod_problem::Problem;
use crate::pod_socket::{Datagram, Domain, RawSocket, SocketOption};

/// One system call. Except in [`Self::Open`], the first number is the number of the socket, as [`Reply::Socket`] returned it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// `socket()`
    Open(Domain, Protocol),
    /// `close()`
    Close(u32),
    /// `bind()`
    Bind(u32, SocketAddr),
    /// `listen()`
    Listen(u32),
    /// `accept()`
    Accept(u32),
    /// `connect()`
    Connect(u32, SocketAddr),
    /// `connect()` to `AF_UNSPEC`, which disconnects a UDP socket
    Dissolve(u32),
    /// `sendto()` if an address is given, else `send()`
    Send(u32, String, Option<SocketAddr>),
    /// `sendmsg()` to the first address, with the second as its source (`IP_PKTINFO` or `IPV6_PKTINFO`)
    SendFrom(u32, String, SocketAddr, IpAddr),
    /// `setsockopt()` of `IP_FREEBIND` or `IPV6_FREEBIND`
    BindFreely(u32),
    /// `sendmmsg()` of the text to each address
    SendAll(u32, String, Vec<SocketAddr>),
    /// `recvfrom()`
    Receive(u32),
    /// `setsockopt()`
    Set(u32, SocketOption),
    /// `send()` of a datagram of this many bytes, and `recv()` of its reply
    Echo(u32, usize),
    /// A request and its reply on a TCP connection, with this many bytes of a request and of data after the reply
    Transfer(u32, usize, usize),
    /// `recvmsg()` of the error queue
    Problem(u32),
    /// `getpeername()`
    Peer(u32),
    /// `getsockname()`
    Local(u32),
}

/// The result of a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Success without a value.
    Done,
    /// The number of a new socket.
    Socket(u32),
    /// The number of sent messages.
    Count(usize),
    /// The address of the socket, or of its peer.
    Address(SocketAddr),
    /// The received text and its source.
    Datagram(Datagram),
    /// The first entry of the error queue.
    Problem(Problem),
    /// The name of the error, for example `ECONNREFUSED`.
    Failed(String),
}

/// Executes the requests of standard input until it ends.
pub fn drive() -> Result<()> {
    let mut sockets = Sockets::default();
    for line in io::stdin().lines() {
        let line = line.context("failed to read standard input")?;
        let request = serde_json::from_str(&line).with_context(|| format!("failed to parse the request {line}"))?;
        let reply = sockets.answer(request).unwrap_or_else(|error| Reply::Failed(name_of(&error)));
        let reply = serde_json::to_string(&reply).context("failed to write JSON")?;
        writeln!(io::stdout(), "{reply}").context("failed to print the reply")?;
    }
    Ok(())
}

#[derive(Default)]
struct Sockets {
    open: BTreeMap<u32, RawSocket>,
    last: u32,
}

impl Sockets {
    fn answer(&mut self, request: Request) -> io::Result<Reply> {
        let done = |()| Reply::Done;
        match request {
            Request::Open(domain, protocol) => Ok(self.keep(RawSocket::open(domain, protocol)?)),
            Request::Close(number) => {
                self.open.remove(&number);
                Ok(Reply::Done)
            }
            Request::Bind(number, address) => self.socket(number)?.bind(address).map(done),
            Request::Listen(number) => self.socket(number)?.listen().map(done),
            Request::Accept(number) => self.socket(number)?.accept().map(|socket| self.keep(socket)),
            Request::Connect(number, address) => self.socket(number)?.connect(address).map(done),
            Request::Dissolve(number) => self.socket(number)?.dissolve().map(done),
            Request::Send(number, text, to) => self.socket(number)?.send(&text, to).map(done),
            Request::SendFrom(number, text, to, from) => self.socket(number)?.send_from(&text, to, from).map(done),
            Request::BindFreely(number) => self.socket(number)?.bind_freely().map(done),
            Request::SendAll(number, text, to) => self.socket(number)?.send_all(&text, &to).map(Reply::Count),
            Request::Receive(number) => self.socket(number)?.receive().map(Reply::Datagram),
            Request::Set(number, option) => self.socket(number)?.set(option).map(done),
            Request::Echo(number, size) => self.socket(number)?.echo(size).map(Reply::Datagram),
            Request::Transfer(number, up, down) => self.socket(number)?.transfer(up, down).map(Reply::Datagram),
            Request::Problem(number) => self.socket(number)?.problem().map(Reply::Problem),
            Request::Peer(number) => self.socket(number)?.peer().map(Reply::Address),
            Request::Local(number) => self.socket(number)?.local().map(Reply::Address),
        }
    }

    fn socket(&self, number: u32) -> io::Result<&RawSocket> {
        self.open.get(&number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn keep(&mut self, socket: RawSocket) -> Reply {
        self.last += 1;
        self.open.insert(self.last, socket);
        Reply::Socket(self.last)
    }
}
