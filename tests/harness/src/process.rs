//! A process in a pod, or on the node, whose sockets a test drives one system call at a time.
//!
//! It is a [`crate::pod_process`], and ends with its handle.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::listen::Protocol;
use crate::pod_client::identity;
use crate::pod_process::{Reply, Request};
use crate::pod_socket::{Datagram, Domain};
use crate::world::{Group, Pod, World, program};

/// What a system call gave, or the error that it met.
pub type Met<T> = Result<T, Failure>;

/// The name of an error, as in `ECONNREFUSED`; or in words what went wrong with the process itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// The error of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    fn lost(error: &io::Error) -> Self {
        Self(format!("the process is lost: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Killed when dropped.
pub struct Process {
    child: RefCell<Child>,
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Process {
    /// In a pod, in the cgroup that portmap is attached to.
    pub fn in_pod(pod: &Pod) -> Result<Self> {
        Self::start(pod.command(program::find("portmap-pod")?))
    }

    /// In the node's network namespace, in the cgroup that portmap is attached to.
    pub fn on_node(world: &World) -> Result<Self> {
        Self::start(world.command_in(Group::Clients, program::find("portmap-pod")?))
    }

    /// Wherever the command starts a `portmap-pod`.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .arg("drive")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to run portmap-pod drive")?;
        let stdin = child.stdin.take().context("it has no standard input")?;
        let stdout = BufReader::new(child.stdout.take().context("it has no standard output")?);
        Ok(Self { child: RefCell::new(child), pipes: RefCell::new((stdin, stdout)) })
    }

    /// The id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.borrow().id()
    }

    /// A new socket, neither bound nor connected.
    pub fn open(&self, domain: Domain, protocol: Protocol) -> Met<Socket<'_>> {
        self.request(&Request::Open(domain, protocol)).and_then(|reply| self.opened(&reply))
    }

    /// A new socket that takes such addresses.
    pub fn open_for(&self, address: SocketAddr, protocol: Protocol) -> Met<Socket<'_>> {
        self.open(Domain::of(address), protocol)
    }

    /// A new socket that is connected already.
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
        let reply = self.exchange(request).map_err(|error| Failure::lost(&error))?;
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
            eprintln!("warning: failed to end a driven process: {error}");
        }
    }
}

/// A socket of a driven process; closed when dropped.
pub struct Socket<'a> {
    process: &'a Process,
    number: u32,
}

impl<'a> Socket<'a> {
    /// Gives it a local address.
    pub fn bind(&self, address: SocketAddr) -> Met<()> {
        self.done(&Request::Bind(self.number, address))
    }

    /// Lets it take connections.
    pub fn listen(&self) -> Met<()> {
        self.done(&Request::Listen(self.number))
    }

    /// Takes the next connection.
    pub fn accept(&self) -> Met<Socket<'a>> {
        self.process.request(&Request::Accept(self.number)).and_then(|reply| self.process.opened(&reply))
    }

    /// Connects it, or says where its datagrams go.
    pub fn connect(&self, address: SocketAddr) -> Met<()> {
        self.done(&Request::Connect(self.number, address))
    }

    /// Takes the connection of a UDP socket back: `connect()` to `AF_UNSPEC`.
    pub fn dissolve(&self) -> Met<()> {
        self.done(&Request::Dissolve(self.number))
    }

    /// Asks who is there, where it is connected to.
    pub fn send(&self) -> Met<()> {
        self.done(&Request::Send(self.number, QUESTION.into(), None))
    }

    /// Asks who is at the address.
    pub fn send_to(&self, address: SocketAddr) -> Met<()> {
        self.done(&Request::Send(self.number, QUESTION.into(), Some(address)))
    }

    /// As [`Self::send_to`], with a source address in a control message.
    pub fn send_from(&self, source: IpAddr, address: SocketAddr) -> Met<()> {
        self.done(&Request::SendFrom(self.number, QUESTION.into(), address, source))
    }

    /// Lets it bind to addresses that its network namespace does not have.
    pub fn bind_freely(&self) -> Met<()> {
        self.done(&Request::BindFreely(self.number))
    }

    /// Asks who is at each of the addresses, with one `sendmmsg()`. Returns how many questions were taken.
    pub fn send_all(&self, addresses: &[SocketAddr]) -> Met<usize> {
        let reply = self.process.request(&Request::SendAll(self.number, QUESTION.into(), addresses.into()))?;
        if let Reply::Count(count) = reply { Ok(count) } else { Err(unexpected(&reply)) }
    }

    /// Waits for an answer: who gave it, as in `pod-a 8080/TCP`, and where it came from.
    pub fn receive(&self) -> Met<Datagram> {
        let reply = self.process.request(&Request::Receive(self.number))?;
        let Reply::Datagram(Datagram { text, source }) = reply else { return Err(unexpected(&reply)) };
        Ok(Datagram { text: identity(&text), source })
    }

    /// Sends, and waits for who answers.
    pub fn ask(&self) -> Met<String> {
        self.send()?;
        Ok(self.receive()?.text)
    }

    /// Sends to the address, and waits for who answers, from where.
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
        // If the process is gone, so is the socket.
        drop(self.process.request(&Request::Close(self.number)));
    }
}

const QUESTION: &str = "who";

fn unexpected(reply: &Reply) -> Failure {
    Failure(format!("an unexpected reply: {reply:?}"))
}
