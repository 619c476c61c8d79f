//! A client process in a pod or on the node. A test makes the process open and use sockets, one system call at a time.
//!
//! The process runs [`crate::pod_process`]. Dropping the handle kills the process.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::listen::Protocol;
use crate::pod_client::identity;
use crate::pod_problem::Problem;
use crate::pod_process::{Reply, Request};
use crate::pod_socket::{Datagram, Domain, SocketOption};
use crate::world::{Group, Machine, Pod, program};

/// The result of a system call in a [`Process`].
pub type Met<T> = Result<T, Failure>;

/// The name of a system call's error, for example `ECONNREFUSED`. If the process itself failed, a description of that failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure with this error name, which a test compares with the result of a call.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    fn of_pipe(error: &io::Error) -> Self {
        Self(format!("failed to exchange a request with portmap-pod drive: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server's pod and port, for example `pod-a 8080/TCP`.
    pub who: String,
    /// The address and port of the client, as the server sees them.
    pub client: SocketAddr,
    /// The source of the reply, as `recvfrom()` returned it; `None` on TCP connections.
    pub source: Option<SocketAddr>,
}

impl Answer {
    fn of(datagram: &Datagram) -> Option<Self> {
        let (who, client) = datagram.text.split_once(" from ")?;
        Some(Self { who: who.to_owned(), client: client.parse().ok()?, source: datagram.source })
    }
}

/// A running `portmap-pod drive`; dropping this kills the process.
pub struct Process {
    child: RefCell<Child>,
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Process {
    /// Starts a process in a pod, in the cgroup that portmap is attached to.
    pub fn in_pod(pod: &Pod) -> Result<Self> {
        Self::start(pod.command(program::find("portmap-pod")?))
    }

    /// Starts a process in the node's network namespace, in the cgroup that portmap is attached to.
    pub fn on_node(machine: &Machine) -> Result<Self> {
        Self::start(machine.command_in(Group::Clients, program::find("portmap-pod")?))
    }

    /// Starts a process with a command whose program is `portmap-pod`, with `drive` as the next argument.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .arg("drive")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to run portmap-pod drive")?;
        let stdin = child.stdin.take().context("portmap-pod drive has no standard input")?;
        let stdout = BufReader::new(child.stdout.take().context("portmap-pod drive has no standard output")?);
        Ok(Self { child: RefCell::new(child), pipes: RefCell::new((stdin, stdout)) })
    }

    /// The id of the client process, for example for `/proc`.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.borrow().id()
    }

    /// Opens a socket, neither bound nor connected.
    pub fn open(&self, domain: Domain, protocol: Protocol) -> Met<Socket<'_>> {
        self.request(&Request::Open(domain, protocol)).and_then(|reply| self.opened(&reply))
    }

    /// Opens a socket of the address's family.
    pub fn open_for(&self, address: SocketAddr, protocol: Protocol) -> Met<Socket<'_>> {
        self.open(Domain::of(address), protocol)
    }

    /// Opens a socket of the address's family and connects it to the address.
    pub fn connected(&self, address: SocketAddr, protocol: Protocol) -> Met<Socket<'_>> {
        let socket = self.open_for(address, protocol)?;
        socket.connect(address)?;
        Ok(socket)
    }

    fn opened(&self, reply: &Reply) -> Met<Socket<'_>> {
        let Reply::Socket(number) = *reply else { return Err(unexpected(reply)) };
        Ok(Socket { process: self, number })
    }

    fn request(&self, request: &Request) -> Met<Reply> {
        let reply = self.exchange(request).map_err(|error| Failure::of_pipe(&error))?;
        if let Reply::Failed(name) = reply { Err(Failure(name)) } else { Ok(reply) }
    }

    fn exchange(&self, request: &Request) -> io::Result<Reply> {
        let (stdin, stdout) = &mut *self.pipes.borrow_mut();
        writeln!(stdin, "{}", serde_json::to_string(request)?)?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        if let Err(error) = child.kill().and_then(|()| child.wait()) {
            eprintln!("warning: failed to kill portmap-pod drive: {error}");
        }
    }
}

/// A socket of a [`Process`]. Dropping this closes the socket in the process.
pub struct Socket<'a> {
    process: &'a Process,
    number: u32,
}

impl<'a> Socket<'a> {
    /// `bind()` to a local address.
    pub fn bind(&self, address: SocketAddr) -> Met<()> {
        self.done(&Request::Bind(self.number, address))
    }

    /// `listen()`
    pub fn listen(&self) -> Met<()> {
        self.done(&Request::Listen(self.number))
    }

    /// `accept()`: waits for the next connection.
    pub fn accept(&self) -> Met<Socket<'a>> {
        self.process.request(&Request::Accept(self.number)).and_then(|reply| self.process.opened(&reply))
    }

    /// `connect()`: for UDP, this sets the destination of [`Self::send`].
    pub fn connect(&self, address: SocketAddr) -> Met<()> {
        self.done(&Request::Connect(self.number, address))
    }

    /// Disconnects a UDP socket: `connect()` to `AF_UNSPEC`.
    pub fn dissolve(&self) -> Met<()> {
        self.done(&Request::Dissolve(self.number))
    }

    /// `send()` of a request to the peer.
    pub fn send(&self) -> Met<()> {
        self.done(&Request::Send(self.number, REQUEST.into(), None))
    }

    /// `sendto()` of a request to the address.
    pub fn send_to(&self, address: SocketAddr) -> Met<()> {
        self.done(&Request::Send(self.number, REQUEST.into(), Some(address)))
    }

    /// As [`Self::send_to`], with a source address in a control message (`sendmsg()`).
    pub fn send_from(&self, source: IpAddr, address: SocketAddr) -> Met<()> {
        self.done(&Request::SendFrom(self.number, REQUEST.into(), address, source))
    }

    /// Allows `bind()` to addresses that the network namespace does not have (`IP_FREEBIND`).
    pub fn bind_freely(&self) -> Met<()> {
        self.done(&Request::BindFreely(self.number))
    }

    /// Sends a request to each address with one `sendmmsg()`. Returns the number of sent requests.
    pub fn send_all(&self, addresses: &[SocketAddr]) -> Met<usize> {
        let reply = self.process.request(&Request::SendAll(self.number, REQUEST.into(), addresses.into()))?;
        if let Reply::Count(count) = reply { Ok(count) } else { Err(unexpected(&reply)) }
    }

    /// Sends a request to the peer, and returns the complete reply: also the client as the server sees it.
    pub fn converse(&self) -> Met<Answer> {
        self.send()?;
        self.answer(&Request::Receive(self.number))
    }

    /// As [`Self::converse`], with `sendto()` of the address.
    pub fn converse_with(&self, address: SocketAddr) -> Met<Answer> {
        self.send_to(address)?;
        self.answer(&Request::Receive(self.number))
    }

    /// Sends a datagram of `size` bytes to the peer. The reply must echo it.
    pub fn echo(&self, size: usize) -> Met<Answer> {
        self.answer(&Request::Echo(self.number, size))
    }

    /// Sends a request of `up` bytes on a TCP connection, and receives `down` bytes after the reply.
    pub fn transfer(&self, up: usize, down: usize) -> Met<Answer> {
        self.answer(&Request::Transfer(self.number, up, down))
    }

    fn answer(&self, request: &Request) -> Met<Answer> {
        let reply = self.process.request(request)?;
        let Reply::Datagram(datagram) = reply else { return Err(unexpected(&reply)) };
        Answer::of(&datagram).ok_or_else(|| Failure(format!("the reply names no client: {datagram:?}")))
    }

    /// `setsockopt()`
    pub fn set(&self, option: SocketOption) -> Met<()> {
        self.done(&Request::Set(self.number, option))
    }

    /// Takes the first ICMP error that [`SocketOption::Problems`] has kept. Does not wait for one.
    pub fn problem(&self) -> Met<Problem> {
        let reply = self.process.request(&Request::Problem(self.number))?;
        if let Reply::Problem(problem) = reply { Ok(problem) } else { Err(unexpected(&reply)) }
    }

    /// Waits for a reply. `text` is the server's pod and port, for example `pod-a 8080/TCP`; `source` is the address that
    /// `recvfrom()` returned.
    pub fn receive(&self) -> Met<Datagram> {
        let reply = self.process.request(&Request::Receive(self.number))?;
        let Reply::Datagram(Datagram { text, source }) = reply else { return Err(unexpected(&reply)) };
        Ok(Datagram { text: identity(&text), source })
    }

    /// Sends a request to the peer. Returns the server's pod and port from the reply.
    pub fn ask(&self) -> Met<String> {
        self.send()?;
        Ok(self.receive()?.text)
    }

    /// Sends a request to the address with `sendto()`, and waits for a reply as [`Self::receive`] does.
    pub fn ask_at(&self, address: SocketAddr) -> Met<Datagram> {
        self.send_to(address)?;
        self.receive()
    }

    /// `getpeername()`
    pub fn peer(&self) -> Met<SocketAddr> {
        self.address(&Request::Peer(self.number))
    }

    /// `getsockname()`
    pub fn local(&self) -> Met<SocketAddr> {
        self.address(&Request::Local(self.number))
    }

    fn done(&self, request: &Request) -> Met<()> {
        let reply = self.process.request(request)?;
        if let Reply::Done = reply { Ok(()) } else { Err(unexpected(&reply)) }
    }

    fn address(&self, request: &Request) -> Met<SocketAddr> {
        let reply = self.process.request(request)?;
        if let Reply::Address(address) = reply { Ok(address) } else { Err(unexpected(&reply)) }
    }
}

impl Drop for Socket<'_> {
    fn drop(&mut self) {
        // An error needs no handling: it usually means that the process has ended, which also closed the socket.
        drop(self.process.request(&Request::Close(self.number)));
    }
}

const REQUEST: &str = "who";

fn unexpected(reply: &Reply) -> Failure {
    Failure(format!("portmap-pod drive sent an unexpected reply: {reply:?}"))
}
