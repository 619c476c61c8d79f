//! Requests of clients outside the node, from threads of the test in the client's network namespace.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use portmap_harness::listen::Protocol;
use portmap_harness::pod_socket::{Domain, RawSocket, SocketOption};

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A server answered: its pod, port and protocol, and the client's address as the server saw it.
    Answered(String, Option<IpAddr>),
    /// An error said that no server listens.
    Refused,
    /// Neither an answer nor an error arrived within the time limit.
    Silent,
    /// Another error.
    Failed(String),
}

/// Moves the calling thread into a network namespace. The thread stays in its cgroup, so portmap does not translate its calls.
pub fn enter(namespace: &Path) -> Result<()> {
    let namespace = File::open(namespace).context("failed to open a network namespace")?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("failed to enter a network namespace")
}

/// Sends a request from an address and port through a new socket, and waits for the reply. With port 0 the kernel chooses the
/// port. A TCP connection is reset afterwards.
pub fn dial(from: SocketAddr, protocol: Protocol, target: SocketAddr, limit: Duration) -> Outcome {
    match exchange(from, protocol, target, limit) {
        Ok(reply) => {
            let (who, client) = reply.split_once(" from ").unwrap_or((&reply, ""));
            Outcome::Answered(who.to_owned(), client.parse().ok().map(|client: SocketAddr| client.ip()))
        }
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNREFUSED) => Outcome::Refused,
            // The time limit ends `connect()` with the first of these, and `recvfrom()` with the second.
            Some(Errno::EINPROGRESS | Errno::EAGAIN) => Outcome::Silent,
            _ => Outcome::Failed(error.to_string()),
        },
    }
}

/// As [`dial`], from a network namespace.
pub fn dial_in(namespace: &Path, from: SocketAddr, protocol: Protocol, target: SocketAddr, limit: Duration) -> Result<Outcome> {
    let work = || enter(namespace).map(|()| dial(from, protocol, target, limit));
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
}

fn exchange(from: SocketAddr, protocol: Protocol, target: SocketAddr, limit: Duration) -> io::Result<String> {
    let socket = RawSocket::open(Domain::of(target), protocol)?;
    socket.set(SocketOption::TimeLimit(limit.as_millis().try_into().unwrap_or(u64::MAX)))?;
    socket.bind(from)?;
    socket.connect(target)?;
    socket.send("who", None)?;
    let reply = socket.receive()?.text;
    socket.reset()?;
    Ok(reply)
}
