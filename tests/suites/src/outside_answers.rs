//! Requests to Services, and the answers that tests expect.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use portmap_harness::listen::Protocol;
use portmap_harness::pod_socket::SocketOption;
use portmap_harness::process::{Answer, Failure, Met, Process, Socket};

use crate::service_stage::Transport;

/// The time after which a silent Service counts as silent, in milliseconds. A SYN is repeated after one second.
const SILENCE: u64 = 400;

/// Sends a request to an address through a new socket.
pub fn ask(process: &Process, transport: Transport, address: SocketAddr) -> Met<Answer> {
    let socket = process.open_for(address, transport.protocol())?;
    converse(&socket, transport, address)
}

/// As [`ask`], from this local address. Its port may be 0.
pub fn ask_from(process: &Process, from: SocketAddr, transport: Transport, address: SocketAddr) -> Met<Answer> {
    let socket = process.open_for(address, transport.protocol())?;
    socket.bind(from)?;
    converse(&socket, transport, address)
}

fn converse(socket: &Socket<'_>, transport: Transport, address: SocketAddr) -> Met<Answer> {
    if transport == Transport::UdpUnconnected {
        return socket.converse_with(address);
    }
    socket.connect(address)?;
    socket.converse()
}

/// Expects that each kind of socket gets an answer of `server` (`a 8080`), shown as that of the address. The server must see
/// the client as `client`.
pub fn expect_answers(process: &Process, address: SocketAddr, server: &str, client: IpAddr) -> Result<()> {
    for transport in Transport::ALL {
        let what = || format!("{transport:?} to {address}");
        let answer = ask(process, transport, address).with_context(what)?;
        expect(&answer, transport.protocol(), server, client).with_context(what)?;
        ensure!(answer.source.is_none_or(|source| source == address), "{}: the answer is shown as {:?}", what(), answer.source);
    }
    Ok(())
}

/// Expects that an answer comes from `server` (`a 8080`), which sees the client as `client`.
pub fn expect(answer: &Answer, protocol: Protocol, server: &str, client: IpAddr) -> Result<()> {
    let who = format!("{server}/{protocol}");
    ensure!(answer.who == who, "expected an answer of {who}, but got {answer:?}");
    ensure!(answer.client.ip() == client, "{server} should see {client}, but saw {}", answer.client);
    Ok(())
}

/// Expects that TCP and UDP are refused, with an ICMP error that seems to come from the address.
pub fn expect_refusal(process: &Process, address: SocketAddr) -> Result<()> {
    let refused = Failure::named("ECONNREFUSED");
    let result = ask(process, Transport::Tcp, address);
    ensure!(result.as_ref().err() == Some(&refused), "TCP to {address}: {result:?}");
    expect_refused_datagram(process, address)
}

/// Expects that a datagram is refused with an ICMP error that seems to come from the address.
pub fn expect_refused_datagram(process: &Process, address: SocketAddr) -> Result<()> {
    let socket = process.open_for(address, Protocol::Udp)?;
    socket.set(SocketOption::Problems)?;
    let result = socket.connect(address).and_then(|()| socket.ask());
    ensure!(result == Err(Failure::named("ECONNREFUSED")), "UDP to {address}: {result:?}");
    let problem = socket.problem()?;
    ensure!(problem.offender == Some(address.ip()), "the error of {address} comes from another address: {problem:?}");
    ensure!(problem.destination == Some(address), "the error of {address} is about another destination: {problem:?}");
    Ok(())
}

/// Expects that neither TCP nor UDP gets an answer or an error. `from` is the local address, with port 0.
pub fn expect_silence(process: &Process, from: SocketAddr, address: SocketAddr) -> Result<()> {
    let tcp = process.open_for(address, Protocol::Tcp)?;
    let udp = process.open_for(address, Protocol::Udp)?;
    for socket in [&tcp, &udp] {
        socket.set(SocketOption::TimeLimit(SILENCE))?;
        socket.bind(from)?;
    }
    udp.connect(address)?;
    udp.send()?;
    let result = tcp.connect(address);
    // The error of a `connect()` that the time limit ends.
    ensure!(result == Err(Failure::named("EINPROGRESS")), "TCP to {address}: {result:?}");
    udp.set(SocketOption::TimeLimit(1))?;
    let result = udp.receive();
    ensure!(result == Err(Failure::named("no answer")), "UDP to {address}: {result:?}");
    Ok(())
}
